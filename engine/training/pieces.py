"""Which of the tokenizer's pieces are foreign to each language: the decoder never writes those.

A piece is foreign to a language if it begins a word in lower case, stands nowhere in the corpus's text of that
language, and is so usual in another one that it would stand there EXPECTED times. Pieces that begin with a capital or
stand inside words are left alone: names are made of them, and names go through all languages.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from safetensors.torch import save_file

from ..spaces.builtin import BEGIN, fingerprint
from . import corpus
from .command import answered

# Of 5, 20, 50, 100 and 200 the lowest with which 99.99 % of the held-out text of every language stays allowed.
EXPECTED = 100
TOGETHER = 2000  # sentences split into pieces at once

Said = Iterable[tuple[str, str]]  # language, text


def read(folder: Path) -> Iterator[tuple[str, str]]:
    """All text of the corpus that is for training, of the files that are there."""
    for a, b, left, right in corpus.pairs(folder):
        yield from ((a, left), (b, right))
    for name in ("sentences.tsv.gz", "literature.tsv.gz"):
        if (folder / name).exists():
            yield from ((row[0], corpus.clean(row[1])) for row in corpus.rows(folder / name, 2))
    for name in (corpus.DOCUMENTS, corpus.PASSAGES):
        if (folder / name).exists():
            told = corpus.records(folder / name)
            yield from ((lang, corpus.clean(text)) for lang, split, text, _ in told if split == "train")


def held_out(folder: Path) -> Iterator[tuple[str, str]]:
    if (folder / corpus.VALID).exists():
        for a, b, left, right in corpus.pairs(folder, corpus.VALID):
            yield from ((a, left), (b, right))
    name = "literature-valid.tsv.gz"
    if (folder / name).exists():
        yield from ((row[0], corpus.clean(row[1])) for row in corpus.rows(folder / name, 2))


def count(said: Said, tokenizer: sentencepiece.SentencePieceProcessor) -> np.ndarray:
    """How often each piece stands in the text of each language, int64 [languages, pieces]."""
    size = tokenizer.get_piece_size()
    counts = np.zeros((len(corpus.LANGUAGES), size), np.int64)
    rest = iter(said)
    while batch := list(islice(rest, TOGETHER)):
        for i, lang in enumerate(corpus.LANGUAGES):
            found = tokenizer.encode([text for own, text in batch if own == lang])
            flat = np.fromiter((piece for ids in found for piece in ids), np.int64)
            counts[i] += np.bincount(flat, minlength=size)
    return counts


def foreign(counts: np.ndarray, pieces: list[str], expected: float = EXPECTED) -> np.ndarray:
    """Which pieces are foreign to each language, bool [languages, pieces], of their counts in each."""
    totals = counts.sum(1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    lower = np.array([piece.startswith(BEGIN) and piece[1:2].islower() and len(piece) > 2 for piece in pieces])
    return (counts == 0) & (shares.max(0) * totals >= expected) & lower


@answered
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.training.pieces", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with pairs, sentences and documents")
    parser.add_argument(
        "--tokenizer", type=Path, default=Path("assets/tokenizer.model"), help="its SentencePiece model"
    )
    parser.add_argument("--out", type=Path, default=Path("assets/pieces.safetensors"), help="the file to write")
    args = parser.parse_args(arguments)
    tokenizer = sentencepiece.SentencePieceProcessor(str(args.tokenizer))
    pieces = tokenizer.id_to_piece(list(range(tokenizer.get_piece_size())))
    found = foreign(count(read(args.corpus), tokenizer), pieces)
    held = count(held_out(args.corpus), tokenizer)
    for lang, own, seen in zip(corpus.LANGUAGES, found, held, strict=True):
        allowed = f"; {100 * (1 - seen[own].sum() / seen.sum()):.3f} % of held-out text allowed" if seen.any() else ""
        print(f"{lang}: {own.sum():,} of {len(pieces):,} foreign{allowed}")
    packed = torch.from_numpy(np.packbits(found, axis=1))
    metadata = {"tokenizer": fingerprint(args.tokenizer), "languages": " ".join(corpus.LANGUAGES)}
    save_file({"foreign": packed}, args.out, metadata)


if __name__ == "__main__":
    sys.exit(main())
