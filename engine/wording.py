"""Concepts put into words: what a concept model predicts, and what has a sentence and can be said otherwise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from . import text
from .concepts import vary
from .spaces import ConceptSpace, Search
from .spaces.choice import nearness
from .text import has_words

CHOICES = 4  # concepts drawn for each one that is written
ATTEMPTS = 3  # rounds of so many, where none of them makes a sentence to write

# What another wording must come up to. NEAR is the cosine of its own concept to the one that it words: in the built-in
# space three of four translations lie farther from each other (`python -m engine evaluate space PAIRS` prints it; 600
# pairs: 10 % below 0.894, half below 0.951, 75 % below 0.971; other sentences: 99 % below 0.772). SURE is what the
# decoder thinks of it, as a mean log-probability of a token: garbled ones come as near as good ones. Translated into
# those of the READERS that the space has, it must not show a difference in most. For 48 sentences, with at most four
# wordings each, 35 % of 89 read well where near and sure were enough, and 14 of 22 with the READERS, too.
NEAR = 0.971
SURE = math.log(0.95)
READERS = ("eng_Latn", "deu_Latn", "fra_Latn", "spa_Latn", "ita_Latn", "por_Latn")
AROUND = 4  # concepts around the one to be worded that are decoded, too
SPREAD = 0.5  # how far around it they are, see `concepts.vary`
READ = 8  # wordings that are translated, the nearest ones


@dataclass(frozen=True)
class Continuation:
    """A concept that a model went on with, and the sentence it decodes to."""

    text: str
    vector: np.ndarray


def worded(space: ConceptSpace, predicted: np.ndarray, lang: str) -> list[Continuation]:
    """Predicted concepts [N, D] as sentences, and the concepts of these; what decodes to no words stays as it was."""
    sentences = space.decode(predicted, lang)
    vectors = np.asarray(predicted, np.float32).copy()
    rows = [i for i, sentence in enumerate(sentences) if has_words(sentence)]
    if rows:
        vectors[rows] = space.encode([sentences[i] for i in rows], lang)
    return [Continuation(sentence, vector) for sentence, vector in zip(sentences, vectors, strict=True)]


def refined(
    space: ConceptSpace, drawn: np.ndarray, found: Sequence[Continuation], lang: str, end: str = ""
) -> tuple[np.ndarray, np.ndarray]:
    """The concepts [N, D] of what was `found` for drawn concepts [N, D], and how sure the decoder is of it, [N].

    Sure means likely both as what the drawn concept says and as what its own concept says: a sentence that is none is
    a surprise to a decoder that has learnt sentences. It is -inf for what must not be written: what has no words, says
    some of them over and over, is in another language, or is made of `end`, which is how the concept that ends a
    document reads in this one ("Rabbit was always of text.").
    """
    said, vectors = [one.text for one in found], np.stack([one.vector for one in found])
    # Both at once: a pass costs what its weights cost to read.
    both = np.concatenate([np.asarray(drawn, np.float32), vectors])
    sure = space.likelihood([*said, *said], both, lang).reshape(2, -1).sum(0)
    for i, sentence in enumerate(said):
        garbled = text.loops(sentence) or text.ends_like(sentence, end)
        if not has_words(sentence) or garbled or text.foreign(sentence, lang, space.languages):
            sure[i] = -np.inf
    return vectors, sure


def other_wordings(space: ConceptSpace, vector: np.ndarray, said: str, lang: str, n: int, seed: int) -> list[str]:
    """Up to `n` sentences of a language that say what concept [D] says otherwise than `said` does, the nearest first.

    None of them is `said` or another one but for case, punctuation and spaces, is more likely in another language of
    the space, loops, or falls short of NEAR, SURE or the READERS. There may be none.
    """
    read = {code: space.decode(vector[None], code)[0] for code in READERS if code != lang and code in space.languages}
    different = {text.key(said): said}
    languages = {lang, text.likeliest(said, space.languages)}  # `said` may itself be taken for another language
    for sentence in drawn(space, vector, lang, read, seed):
        if has_words(sentence) and not text.loops(sentence) and text.likeliest(sentence, space.languages) in languages:
            different.setdefault(text.key(sentence), sentence)
    wordings = list(different.values())[1:]
    (near,) = nearness(space, vector[None], [wordings], lang)
    wordings = [wordings[i] for i in np.argsort(-near, kind="stable") if near[i] >= NEAR]
    if not wordings:
        return []
    own = space.encode(wordings, lang)
    sure = (space.likelihood(wordings, own, lang) >= SURE).nonzero()[0][:READ]
    agreed = np.zeros(len(sure))
    for code, sentence in read.items():
        agreed += [text.key(other) == text.key(sentence) for other in space.decode(own[sure], code)]
    return [wordings[i] for i, votes in zip(sure, agreed, strict=True) if votes > len(read) / 2][:n]


def drawn(space: ConceptSpace, vector: np.ndarray, lang: str, read: Mapping[str, str], seed: int) -> list[str]:
    """Sentences that may word concept [D]: beams of it, of concepts around it, and of its translations (`read`)."""
    around = [vary(vector, SPREAD, seed + i) for i in range(AROUND)]
    translated = [space.encode([sentence], code)[0] for code, sentence in read.items() if has_words(sentence)]
    search = Search("beam", beams=6, alternatives=6)
    found = space.alternatives(np.stack([vector, *around, *translated]), lang, search=search)
    return [sentence for hypotheses in found for sentence in hypotheses]
