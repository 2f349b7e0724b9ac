"""Reading the training corpus: pairs, sentences and documents (the format is described in docs/training.md)."""

from __future__ import annotations

import gzip
import json
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import sentencex

from ..errors import CorpusError
from ..segmentation import TWO_LETTERS

LANGUAGES = ("eng", "deu", "fra", "spa", "ita", "por")  # in the order of the decoder's language vectors


@dataclass(frozen=True)
class Story:
    lang: str
    split: str
    sentences: tuple[str, ...]


def lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield number, line.rstrip("\n")
    except (OSError, EOFError, UnicodeDecodeError) as error:
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


def key(text: str) -> str:
    """What makes two sentences the same: letters and digits, without case, punctuation or spaces."""
    return re.sub(r"\W+", "", text.casefold())


def pairs(folder: Path, name: str = "pairs.tsv.gz") -> Iterator[tuple[str, str, str, str]]:
    """(language, language, text, text), one for each translated pair."""
    for row in rows(folder / name, 4):
        if row[1] not in LANGUAGES:
            raise CorpusError(f"{name}: unknown language {row[1]!r}; use one of {LANGUAGES}.")
        yield row[0], row[1], clean(row[2]), clean(row[3])


def sentences(folder: Path) -> Iterator[tuple[str, str]]:
    for row in rows(folder / "sentences.tsv.gz", 2):
        yield row[0], clean(row[1])


def stories(folder: Path) -> Iterator[Story]:
    """Documents as sequences of sentences, in the order of the file."""
    path = folder / "documents.jsonl.gz"
    for number, line in lines(path):
        try:
            record = json.loads(line)
            lang, split, text = record["lang"], record["split"], record["text"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise CorpusError(f"{path.name}, line {number}: not a document record ({error}).") from error
        if lang not in LANGUAGES:
            raise CorpusError(f"{path.name}, line {number}: unknown language {lang!r}; use one of {LANGUAGES}.")
        found = (clean(s) for part in text.split("\n") for s in sentencex.segment(TWO_LETTERS[lang], part))
        yield Story(lang, split, tuple(s for s in found if s))
