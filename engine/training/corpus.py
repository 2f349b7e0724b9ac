"""Reading the training corpus: pairs, sentences and documents (the format is described in docs/training.md)."""

from __future__ import annotations

import gzip
import os
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .. import values
from ..errors import CorpusError
from ..segmentation import TWO_LETTERS, split_long
from ..text import has_words, key

LANGUAGES = ("eng", "deu", "fra", "spa", "ita", "por")  # in the order of the decoder's language vectors
VALID, DOCUMENTS, PASSAGES, LITERATURE = "valid.tsv.gz", "documents.jsonl.gz", "passages.jsonl.gz", "literature.tsv.gz"


@dataclass(frozen=True)
class Story:
    lang: str
    split: str
    sentences: tuple[str, ...]
    whole: bool = True  # its end is in the corpus, and not cut off

    def cut(self, fits: Callable[[str], bool]) -> list[str]:
        """Its sentences with words, long ones cut until each part fits one concept."""
        parts = [part.strip() for sentence in self.sentences for part in split_long(sentence, fits)]
        return [part for part in parts if has_words(part)]


def lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        opened = gzip.open if path.suffix == ".gz" else open
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\n")
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise CorpusError(f"{path.name} can't be read as gzip-compressed UTF-8 text ({error}).") from error


def rows(path: Path, columns: int) -> Iterator[list[str]]:
    """The tab-separated rows of a file, the first column checked as a language code.

    Raises CorpusError for a missing column, an unknown language or an empty file.
    """
    empty = True
    for number, line in lines(path):
        row = line.split("\t")
        if len(row) < columns:
            raise CorpusError(f"{path.name}, line {number}: {len(row)} columns where {columns} are needed.")
        if row[0] not in LANGUAGES:
            raise CorpusError(f"{path.name}, line {number}: unknown language {row[0]!r}; use one of {LANGUAGES}.")
        empty = False
        yield row
    if empty:
        raise CorpusError(f"{path.name} is empty.")


def clean(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def pairs(folder: Path, name: str = "pairs.tsv.gz") -> Iterator[tuple[str, str, str, str]]:
    """(language, language, text, text), one for each translated pair."""
    for row in rows(folder / name, 4):
        if row[1] not in LANGUAGES:
            raise CorpusError(f"{name}: unknown language {row[1]!r}; use one of {LANGUAGES}.")
        yield row[0], row[1], clean(row[2]), clean(row[3])


def sentences(folder: Path, name: str = "sentences.tsv.gz") -> Iterator[tuple[str, str]]:
    for row in rows(folder / name, 2):
        yield row[0], clean(row[1])


def distinct_pairs(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """Pairs without repetitions, without what is held out, and without those whose lengths can't be a translation's."""
    held = held_out(folder)
    seen = set()
    for a, b, left, right in pairs(folder):
        keys = (a + key(left), b + key(right))
        alike = max(len(left), len(right)) <= 20 + 3 * min(len(left), len(right))
        if keys not in seen and alike and held.isdisjoint(keys):
            seen.add(keys)
            yield a, b, left, right


def distinct_sentences(folder: Path) -> Iterator[tuple[str, str]]:
    """Single sentences without repetitions and without what is held out."""
    seen = held_out(folder)
    for lang, text in sentences(folder):
        same = lang + key(text)
        if same not in seen:
            seen.add(same)
            yield lang, text


def literature(folder: Path) -> Iterator[tuple[str, str]]:
    """Sentences of novels, without repetitions; none where the corpus has no such file."""
    seen = set()
    for lang, text in sentences(folder, LITERATURE) if (folder / LITERATURE).exists() else ():
        same = lang + key(text)
        if same not in seen:
            seen.add(same)
            yield lang, text


def held_out(folder: Path) -> set[str]:
    """Language and key of the sentences kept for scores; none where there is no `valid.tsv.gz`."""
    if not (folder / VALID).exists():
        return set()
    return {lang + key(text) for a, b, x, y in pairs(folder, VALID) for lang, text in ((a, x), (b, y))}


def records(path: Path) -> Iterator[tuple[str, str, str, bool]]:
    """(language, split, text, whether its end is there) of the documents of a file (or of a folder's
    `documents.jsonl.gz`), in its order.

    One that names no split is for validation. Raises CorpusError for a line that is not a document.
    """
    if os.path.isdir(path):  # pathlib's raises for a name that is too long
        path = path / DOCUMENTS
    for number, line in lines(path):
        try:
            record = values.parse(line)
            if not isinstance(record, dict):
                raise ValueError("no object")
            lang, split, text = record["lang"], record.get("split", "valid"), record["text"]
            for name, value in (("language", lang), ("split", split), ("text", text)):
                if not isinstance(value, str):
                    raise ValueError(f"its {name} is no string")
            text.encode()
        except (ValueError, KeyError) as error:
            # A UnicodeEncodeError quotes the whole text.
            reason = "half of a character in its text" if isinstance(error, UnicodeEncodeError) else error
            raise CorpusError(f"{path.name}, line {number}: not a document record ({reason}).") from error
        if lang not in LANGUAGES:
            raise CorpusError(f"{path.name}, line {number}: unknown language {lang!r}; use one of {LANGUAGES}.")
        yield lang, split, text, not record.get("truncated", False)


def stories(path: Path) -> Iterator[Story]:
    """Documents as sequences of sentences, in the order of the file; see `records`."""
    import sentencex  # here, so that a machine that only trains does without it

    for lang, split, text, whole in records(path):
        found = (clean(s) for part in text.split("\n") for s in sentencex.segment(TWO_LETTERS[lang], part))
        yield Story(lang, split, tuple(s for s in found if s), whole)
