"""Predicted concepts put into words: what a concept model draws lies near sentences, and the decoder names them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .spaces import ConceptSpace
from .text import has_words

CHOICES = 4  # concepts drawn for each one that is written


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
    space: ConceptSpace, drawn: np.ndarray, found: Sequence[Continuation], lang: str
) -> tuple[np.ndarray, np.ndarray]:
    """The concepts [N, D] of what was `found` for drawn concepts [N, D], and how sure the decoder is of it, [N].

    Sure means likely both as what the drawn concept says and as what its own concept says: a sentence that is none is
    a surprise to a decoder that has learnt sentences.
    """
    said, vectors = [one.text for one in found], np.stack([one.vector for one in found])
    sure = space.likelihood(said, drawn, lang) + space.likelihood(said, vectors, lang)
    sure[[not has_words(sentence) for sentence in said]] = -np.inf
    return vectors, sure
