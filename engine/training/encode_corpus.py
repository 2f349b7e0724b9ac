"""Encode documents into parquet shards of concepts: `python -m engine.training.encode_corpus --help`.

Every document becomes its sentences' concepts (Large Concept Models, arXiv 2412.08821, section 2.2). A run that was
stopped goes on with the shards that are missing; `torchrun` shares them among processes.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ..device import best_dtype
from ..errors import ConceptscapeError, CorpusError
from ..lcm.model import END_SENTENCE
from ..segmentation import split_long
from ..spaces.builtin import ASSETS, BOS, EOS, BuiltinSpace
from ..spaces.transformer import PAD
from ..text import has_words
from . import corpus
from .documents import Text, about, write_shard

DOCUMENTS = 200  # in a shard: half a minute's work


class Encoder(Protocol):
    """What encoding needs of a space."""

    name: str
    fingerprint: str

    def fits(self, sentence: str) -> bool: ...
    def encode(self, sentences: Sequence[str]) -> np.ndarray: ...


class FastEncoder:
    """The built-in space's encoder with large batches, and in bfloat16 where that is fast (cosine 0.99995 to exact)."""

    def __init__(self, space: BuiltinSpace) -> None:
        self.space = space
        self.name, self.fingerprint = space.name, space.fingerprint
        dtype = best_dtype(torch.device("cpu"))
        self.model = copy.deepcopy(space.encoder).to(dtype)
        self.tokens = 2048 if dtype == torch.bfloat16 else 1024

    def fits(self, sentence: str) -> bool:
        return len(sentence) <= self.space.max_tokens // 2 or self.space.count_tokens(sentence) <= self.space.max_tokens

    @torch.inference_mode()
    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        """Concepts [N, D] of sentences; batches hold like lengths."""
        rows = [[BOS, *self.space.tokens(s), EOS] for s in sentences]
        result = np.zeros((len(rows), self.space.dim), np.float32)
        batch: list[int] = []
        for index in [*sorted(range(len(rows)), key=lambda i: len(rows[i])), -1]:
            if batch and (index < 0 or (len(batch) + 1) * len(rows[index]) > self.tokens):
                width = -(-max(len(rows[i]) for i in batch) // 4) * 4
                ids = torch.tensor([rows[i] + [PAD] * (width - len(rows[i])) for i in batch])
                result[batch] = self.model(ids).float().numpy()
                batch = []
            batch.append(index)
        return result


def texts(
    path: Path, fits: Callable[[str], bool], langs: Collection[str] = (), seed: int = 0, limit: int = 0
) -> list[Text]:
    """The documents of a file (or of a folder's `documents.jsonl.gz`): those for validation, then the others.

    Sentences that do not fit one concept are cut.

    Both are in a seeded order; of the others only those in `langs`, if any are named, and at most `limit` (0: all).
    """
    path = path / "documents.jsonl.gz" if path.is_dir() else path
    found = []
    for story, (_, record) in zip(corpus.stories(path), corpus.lines(path), strict=True):
        valid = story.split == "valid"
        if not valid and langs and story.lang not in langs:
            continue
        parts = [p.strip() for s in story.sentences for p in split_long(s, fits)]
        kept = tuple(p for p in parts if has_words(p))
        if len(kept) >= 2:
            whole = not json.loads(record).get("truncated", False)
            found.append(Text(story.lang, valid, whole, kept))
    random.Random(seed).shuffle(found)
    held, learnt = ([text for text in found if text.valid is valid] for valid in (True, False))
    return held + (learnt[:limit] if limit else learnt)


def encode(found: Sequence[Text], encoder: Encoder, out: Path, minutes: float, size: int = DOCUMENTS) -> int:
    """Write the shards of `found` that are not in `out` yet, for `minutes` at most; how many documents are there then.

    Raises CorpusError where a shard there was made by other weights or of other documents.
    """
    out.mkdir(parents=True, exist_ok=True)
    facts = {
        "space": encoder.name,
        "fingerprint": encoder.fingerprint,
        "documents": len(found),
        "end": encoder.encode([END_SENTENCE])[0].tolist(),
    }
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    began, sentences = time.monotonic(), 0
    for number, first in enumerate(range(0, len(found), size)):
        path, part = shard(out, number), found[first : first + size]
        if path.exists():
            there = about(path)
            if any(there[name] != facts[name] for name in ("fingerprint", "documents")):
                raise CorpusError(f"{out.name} holds concepts of other weights or texts; choose an empty folder.")
            continue
        if number % processes != rank:
            continue
        if time.monotonic() - began > minutes * 60:
            break
        said = [sentence for text in part for sentence in text.sentences]
        write_shard(path, part, encoder.encode(said), facts)
        sentences += len(said)
        rate = sentences / (time.monotonic() - began)
        print(f"encoded {first + len(part)} of {len(found)} documents, {rate:.0f} sentences a second", flush=True)
    return sum(len(found[i : i + size]) for i in range(0, len(found), size) if shard(out, i // size).exists())


def shard(out: Path, number: int) -> Path:
    return out / f"concepts-{number:05}.parquet"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.training.encode_corpus", description=__doc__)
    parser.add_argument("documents", type=Path, help="a file like documents.jsonl.gz, or a folder with one")
    parser.add_argument("--out", type=Path, default=Path("runs/concepts"), help="where the shards go (%(default)s)")
    parser.add_argument("--space", type=Path, default=ASSETS, help="folder with the space's weights and tokenizer")
    parser.add_argument("--langs", nargs="*", default=[], help="train on these languages only, such as eng (all)")
    parser.add_argument("--limit", type=int, default=0, help="at most so many training documents (all)")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many; a later run goes on")
    parser.add_argument("--seed", type=int, default=0, help="of the documents' order")
    args = parser.parse_args(arguments)
    try:
        encoder = FastEncoder(BuiltinSpace.load(args.space))
        found = texts(args.documents, encoder.fits, args.langs, args.seed, args.limit)
        done = encode(found, encoder, args.out, args.minutes)
        print(f"{done} of {len(found)} documents are in {args.out}")
    except ConceptscapeError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
