"""Documents as concepts: what a concept model learns from, in parquet shards on disk and as arrays in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import CorpusError


@dataclass(frozen=True)
class Text:
    """A document before it is encoded."""

    lang: str  # as the corpus names it: eng, deu, ...
    valid: bool  # kept for scores
    whole: bool  # its end is in the corpus, and not cut off
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Documents:
    """Encoded documents: rows `starts[i]` to `starts[i + 1]` of `concepts` [total, D] are document i."""

    concepts: np.ndarray  # float16
    starts: np.ndarray  # int64 [documents + 1]
    valid: np.ndarray  # bool [documents]
    whole: np.ndarray  # bool [documents]
    langs: tuple[str, ...]
    end: np.ndarray  # float32 [D], the end-of-document concept
    space: str = ""  # the name of the space, and the fingerprint of its weights
    fingerprint: str = ""
    sentences: tuple[str, ...] = ()  # of each row

    def __len__(self) -> int:
        return len(self.langs)

    def __getitem__(self, index: int) -> np.ndarray:
        """Document `index` with its end, float32 [T, D]."""
        body = np.asarray(self.concepts[self.starts[index] : self.starts[index + 1]], np.float32)
        return np.concatenate([body, self.end[None]]) if self.whole[index] else body

    def length(self, index: int) -> int:
        return int(self.starts[index + 1] - self.starts[index]) + int(self.whole[index])

    def said(self, index: int, end: str) -> list[str]:
        """The sentences of document `index`, and `end` after a whole one."""
        body = list(self.sentences[self.starts[index] : self.starts[index + 1]])
        return body + [end] if self.whole[index] else body


def write_shard(path: Path, texts: Sequence[Text], concepts: np.ndarray, about: dict[str, object]) -> None:
    """Write documents and their concepts [sentences, D], float16, one row a sentence; `about` goes to the metadata.

    The file appears whole or not at all.
    """
    import pyarrow
    from pyarrow import parquet

    rows = [(i, text, said) for i, text in enumerate(texts) for said in text.sentences]
    flat = pyarrow.array(np.ascontiguousarray(concepts, np.float16).reshape(-1))
    table = pyarrow.table(
        {
            "document": [i for i, _, _ in rows],
            "lang": [text.lang for _, text, _ in rows],
            "valid": [text.valid for _, text, _ in rows],
            "whole": [text.whole for _, text, _ in rows],
            "sentence": [said for _, _, said in rows],
            "concept": pyarrow.FixedSizeListArray.from_arrays(flat, concepts.shape[1]),
        }
    ).replace_schema_metadata({"conceptscape": json.dumps(about)})
    new = path.with_suffix(".new")
    parquet.write_table(table, new)
    new.replace(path)


def about(path: Path) -> dict[str, object]:
    """What `write_shard` was told about a shard. Raises CorpusError for a file that is none."""
    from pyarrow import ArrowException, parquet

    try:
        return json.loads(parquet.read_schema(path).metadata[b"conceptscape"])
    except (ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise CorpusError(f"{path.name} is not a shard of concepts, or damaged; delete it and encode again.") from error


def read_shards(folder: Path, langs: Iterable[str] = ()) -> Documents:
    """All documents of a folder's shards; of the training ones only those in `langs`, if any are named.

    Raises CorpusError where there is none, or where they were made by different weights.
    """
    from pyarrow import ArrowException, parquet

    paths = sorted(folder.glob("*.parquet"))
    if not paths:
        raise CorpusError(f"There are no concepts in {folder.name}; make them with engine.training.encode_corpus.")
    made = [about(path) for path in paths]
    if len({one["fingerprint"] for one in made}) > 1:
        raise CorpusError(f"The shards in {folder.name} come from different weights; encode into an empty folder.")
    wanted = set(langs)
    concepts, lengths, documents, sentences = [], [], [], []
    for path in paths:
        try:
            table = parquet.read_table(path)
        except (ArrowException, OSError) as error:
            raise CorpusError(f"{path.name} is damaged; delete it and encode again.") from error
        column = table["concept"].combine_chunks()
        values = column.flatten().to_numpy().reshape(len(table), -1)
        numbers = table["document"].to_numpy()
        first = np.flatnonzero(np.diff(numbers, prepend=-1))
        last = np.append(first[1:], len(numbers))
        told = table["sentence"].to_pylist()
        about_rows = [table[name].to_pylist() for name in ("lang", "valid", "whole")]
        for a, b in zip(first.tolist(), last.tolist(), strict=True):
            lang, valid, whole = (part[a] for part in about_rows)
            if valid or not wanted or lang in wanted:
                concepts.append(values[a:b])
                lengths.append(b - a)
                documents.append((lang, valid, whole))
                sentences += told[a:b]
    return Documents(
        np.concatenate(concepts),
        np.cumsum([0, *lengths]),
        np.array([valid for _, valid, _ in documents], bool),
        np.array([whole for _, _, whole in documents], bool),
        tuple(lang for lang, _, _ in documents),
        np.array(made[0]["end"], np.float32),
        str(made[0]["space"]),
        str(made[0]["fingerprint"]),
        tuple(sentences),
    )
