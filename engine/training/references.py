"""Which sentences a landscape is made from, and which of them may be shown.

Reference sentences ship as text, so they come from works whose licence allows it: `works.tsv` names them (key in the
corpus, credit, licence). Novels in it are by authors who died before 1956. All other text of the corpus may teach the
network where sentences lie, and is never shown.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ..errors import CorpusError
from ..projection import Reference, Source
from ..segmentation import TWO_LETTERS
from . import corpus

WORKS = Path(__file__).with_name("works.tsv")
SPARSE = 4  # finding the sentences of 27,000 documents takes a minute, and there are far more than are needed
# Shares of a mixture. Where a kind has too few sentences, the others fill up, novels first.
SHOWN = {"novels": 0.6, "everyday": 0.2, "prompts": 0.1, "stories": 0.1}
NAMING = {"novels": 0.75, "everyday": 0.25}
TAUGHT = {"novels": 0.5, "everyday": 0.2, "prompts": 0.1, "stories": 0.2}
WHOLE = re.compile(r"[\"'»«“”„‘’—–¿¡(\s]*[^\W\d_].*[.!?…][\"'»«“”’)]*", re.DOTALL)
CUT = re.compile(r"\b(?:[A-Z]|Mr|Mrs|Dr|Sr|Sra|Mme|Mlle|St)\.$")  # "it is not for M.": cut at an abbreviation
QUOTES = ("“”", "«»", "()")  # a sentence that opens one and doesn't close it belongs to a longer speech
# Novels of that time insult peoples; a map shows sentences out of context, so those with such words stay out.
INSULTS = re.compile(r"\b(?:nigg|darkie|darky|neger|nègre|négresse|zigeun)\w*", re.IGNORECASE)
# Tatoeba's examples have these in up to a quarter of a language's sentences, which would be an island of the map.
EXAMPLES = re.compile(r"\b(?:Tom|Mary|Maria)\b")


class Sentence(NamedTuple):
    lang: str  # code of the corpus
    text: str
    source: Source | None = None  # None where it may not be shown


Pool = dict[str, dict[str, list[Sentence]]]  # by kind, then by language


@dataclass(frozen=True)
class Sample:
    """Sentences for each use, no two the same, every language alike."""

    references: list[Sentence]  # UMAP is fitted on them, and they are shown: each has a source
    others: list[Sentence]  # placed by UMAP's transform, for the network to learn
    unseen: list[Sentence]  # only measured on
    english: list[Sentence]  # give the regions their names


def works(path: Path = WORKS) -> dict[str, Source]:
    """The sources that may be shown, by their key in the corpus."""
    rows = (line.rstrip("\n").split("\t") for line in path.read_text("utf-8").splitlines())
    return {key: Source(credit, licence) for key, credit, licence in rows}


def read(folder: Path, known: dict[str, Source]) -> Pool:
    """All single sentences of a corpus: of novels, everyday ones, read prompts, and of stories."""
    pool: Pool = {kind: defaultdict(list) for kind in SHOWN}
    for kind, name in (("novels", corpus.LITERATURE), ("everyday", "sentences.tsv.gz")):
        for row in corpus.rows(folder / name, 2) if kind == "everyday" or (folder / name).exists() else ():
            key = row[2] if len(row) > 2 else ""
            everyday = "prompts" if key.startswith("commonvoice") else "everyday"
            source = known.get("tatoeba" if key.startswith("tatoeba") else key)
            pool[kind if kind == "novels" else everyday][row[0]].append(Sentence(row[0], corpus.clean(row[1]), source))
    for lang, text, source in told(folder / corpus.DOCUMENTS, known):
        pool["stories"][lang].append(Sentence(lang, text, source))
    return pool


def told(path: Path, known: dict[str, Source]) -> Iterator[Sentence]:
    """The sentences of documents for training: of all that may be shown, and of one in SPARSE of the others."""
    import sentencex

    for number, line in corpus.lines(path):
        try:
            record = json.loads(line)
            lang, text, training = record["lang"], record["text"], record.get("split") == "train"
            source = known.get(record.get("source", ""))
            parts = text.split("\n") if training and (source or number % SPARSE == 1) else []
            tongue = TWO_LETTERS[lang]
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise CorpusError(f"{path.name}, line {number}: not a document record ({error}).") from error
        for part in parts:
            for sentence in sentencex.segment(tongue, part):
                if words := corpus.clean(sentence):
                    yield Sentence(lang, words, source)


class Picker:
    """Takes whole sentences of 3 to 25 words, none twice, few with the same first two words.

    A corpus of examples has templates in hundreds; each would be an island of its own.
    """

    def __init__(self, fits: Callable[[str], bool], taken: Iterable[str] = ()) -> None:
        self.most = 4  # sentences with the same opening
        self.fits = fits
        self.seen = set(taken)  # language and `corpus.key`
        self.openings: Counter[tuple[str, str]] = Counter()

    def take(self, sentences: Iterable[Sentence], n: int) -> list[Sentence]:
        """Up to n of the sentences, in their order."""
        found: list[Sentence] = []
        for sentence in sentences:
            if len(found) >= n:
                break
            words = sentence.text.split()
            opening = sentence.lang, corpus.key(" ".join(words[:2]))
            same = sentence.lang + corpus.key(sentence.text)
            if same in self.seen or self.openings[opening] >= self.most or not self.good(sentence.text, words):
                continue
            self.seen.add(same)
            self.openings[opening] += 1
            found.append(sentence)
        return found

    def good(self, text: str, words: Sequence[str]) -> bool:
        return (
            3 <= len(words) <= 25
            and WHOLE.fullmatch(text) is not None
            and next(letter for letter in text if letter.isalpha()).isupper()
            and all(text.count(pair[0]) == text.count(pair[1]) for pair in QUOTES)
            and text.count('"') % 2 == 0
            and not CUT.search(text)
            and not INSULTS.search(text)
            and self.fits(text)
        )


def mixed(sentences: Iterable[Sentence], rng: random.Random) -> list[Sentence]:
    """In random order, and one of each work in turn, so that a long book does not crowd out a short one."""
    by_work: dict[Source | None, list[Sentence]] = defaultdict(list)
    for sentence in sentences:
        by_work[sentence.source].append(sentence)
    ranked: list[tuple[float, Sentence]] = []
    for work in by_work.values():
        rng.shuffle(work)
        ranked += [(place + rng.random(), sentence) for place, sentence in enumerate(work)]
    return [sentence for _, sentence in sorted(ranked, key=lambda one: one[0])]


def choose(
    pool: Pool, lang: str, n: int, shares: dict[str, float], picker: Picker, rng: random.Random, shown: bool = False
) -> list[Sentence]:
    """n sentences of a language, of each kind its share. Raises CorpusError where there are not so many."""

    def usable(sentence: Sentence) -> bool:
        return not shown or (sentence.source is not None and not EXAMPLES.search(sentence.text))

    picker.most = max(4, n // 200)
    picker.openings.clear()
    order = {kind: iter(mixed(filter(usable, pool[kind].get(lang, ())), rng)) for kind in shares}
    found = [s for kind, share in shares.items() for s in picker.take(order[kind], round(n * share))][:n]
    for kind in shares:
        found += picker.take(order[kind], n - len(found))
    if len(found) < n:
        what = "that may be shown (see works.tsv)" if shown else "fit for the landscape"
        raise CorpusError(f"The corpus has {len(found)} sentences in {lang} {what} and {n} are needed.")
    rng.shuffle(found)
    return found


def sample(
    folder: Path,
    references: int,
    others: int,
    unseen: int,
    english: int,
    seed: int = 0,
    fits: Callable[[str], bool] = lambda text: True,
    known: dict[str, Source] | None = None,
) -> Sample:
    """So many sentences of each language (`english` of English only); `fits` says which ones can be encoded.

    The same seed gives the same sample. Raises CorpusError where the corpus has too few.
    """
    rng = random.Random(seed)
    pool = read(folder, works() if known is None else known)
    held = corpus.held_out(folder)
    parts: tuple[list[Sentence], ...] = ([], [], [], [])
    pickers = {lang: Picker(fits, held) for lang in corpus.LANGUAGES}
    for lang, picker in pickers.items():
        parts[0].extend(choose(pool, lang, references, SHOWN, picker, rng, shown=True))
        for part, size in zip(parts[1:3], (others, unseen), strict=True):
            part.extend(choose(pool, lang, size, TAUGHT, picker, rng))
    parts[3].extend(choose(pool, "eng", english, NAMING, pickers["eng"], rng))
    return Sample(*parts)


def attribution(references: Sequence[Reference]) -> str:
    """Markdown that names every work with its licence and how many of its sentences are shown."""
    counts = Counter(reference.source for reference in references)
    lines = ["# Where the reference sentences of the landscape come from", ""]
    lines += ["Sentences are quoted as they are; the number is how many of them the map shows.", ""]
    for licence in sorted({source.licence for source in counts}):
        of_it = sorted((source.credit, n) for source, n in counts.items() if source.licence == licence)
        total = sum(n for _, n in of_it)
        lines += [f"## {licence[:1].upper()}{licence[1:]}: {total:,} sentences", ""]
        lines += ["; ".join(f"{credit}: {n}" for credit, n in of_it) + ".", ""]
    lines += [
        "The novels are those of the European Literary Text Collection (ELTeC, COST Action CA16204).",
        "Licences: CC BY, https://creativecommons.org/licenses/by/4.0/;",
        "CC BY 2.0 FR, https://creativecommons.org/licenses/by/2.0/fr/;",
        "CC0, https://creativecommons.org/publicdomain/zero/1.0/.",
        "",
    ]
    return "\n".join(lines)
