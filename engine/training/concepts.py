"""Encode the corpus's documents into shards of concepts: `python -m engine.training.concepts --help`.

Every document becomes its sentences' concepts (Large Concept Models, arXiv 2412.08821, section 2.2). A run that was
stopped goes on with the shards that are missing; `torchrun` shares them among processes.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import sentencepiece
import torch

from ..device import best_device, best_dtype
from ..errors import CorpusError
from ..lcm.model import END_SENTENCE
from ..spaces.builtin import ASSETS, BOS, EOS, BuiltinSpace
from .command import answered
from .documents import Documents
from .tokens import CODES, Texts, Tokens, joined

DOCUMENTS = 200  # in a shard: half a minute's work of two cores
ABOUT = "about.json"


class Encoder(Protocol):
    """What encoding needs of a space."""

    name: str
    fingerprint: str
    tokenizer: sentencepiece.SentencePieceProcessor

    def encode(self, texts: Texts) -> np.ndarray: ...


class FastEncoder:
    """The built-in space's encoder with large batches, and in bfloat16 where that is fast (cosine 0.99995 to exact)."""

    def __init__(self, space: BuiltinSpace) -> None:
        self.name, self.fingerprint, self.tokenizer = space.name, space.fingerprint, space.tokenizer
        self.device = best_device()
        dtype = best_dtype(self.device)
        self.model = copy.deepcopy(space.encoder).to(self.device, dtype)
        self.tokens = 2**17 if self.device.type == "cuda" else 2048 if dtype == torch.bfloat16 else 1024

    @torch.inference_mode()
    def encode(self, texts: Texts) -> np.ndarray:
        """Concepts [N, D] of sentences; batches hold like lengths."""
        result = np.zeros((len(texts), self.model.dims.concept), np.float32)
        order = np.argsort(texts.lengths, kind="stable")
        while len(order):
            widths = -(-(texts.lengths[order] + 2) // 8) * 8  # as they are padded
            count = max(1, int((widths * np.arange(1, len(order) + 1) <= self.tokens).sum()))
            batch, order = order[:count], order[count:]
            ids = torch.from_numpy(texts.rows(batch).padded([BOS], [EOS], 8)).to(self.device)
            result[batch] = self.model(ids).float().cpu().numpy()
        return result


def select(tokens: Tokens, langs: Collection[str] = (), limit: int = 0, seed: int = 0) -> np.ndarray:
    """The numbers of documents to encode: those for validation, then the others, both in a seeded order.

    Of the others only those in `langs`, if any are named, and at most `limit` (0: all).
    """
    order = np.random.default_rng(seed).permutation(len(tokens.valid))
    own = tokens.told.langs[tokens.starts[:-1]][order]
    wanted = np.isin(own, [CODES[lang] for lang in langs]) if langs else np.ones(len(order), bool)
    held, learnt = order[tokens.valid[order]], order[~tokens.valid[order] & wanted]
    return np.concatenate([held, learnt[:limit] if limit else learnt])


def encode(
    tokens: Tokens, chosen: np.ndarray, encoder: Encoder, out: Path, minutes: float = 1e9, size: int = DOCUMENTS
) -> int:
    """Write the shards of documents `chosen` that are not in `out` yet, for `minutes` at most; how many documents are
    there then.

    Raises CorpusError where what is there was made by other weights or of other documents.
    """
    out.mkdir(parents=True, exist_ok=True)
    end = Texts.of(encoder.tokenizer, [END_SENTENCE], ["eng"])
    facts: dict[str, Any] = {
        "space": encoder.name,
        "fingerprint": encoder.fingerprint,
        "documents": chosen.tolist(),
        "sentences": len(tokens.told),
        "size": size,
        "end": encoder.encode(end)[0].tolist(),
        "end_tokens": end[0],
    }
    if (out / ABOUT).exists():
        there = about(out)
        if any(there.get(name) != facts[name] for name in ("fingerprint", "documents", "sentences", "size")):
            raise CorpusError(f"{out.name} holds concepts of other weights or texts; choose an empty folder.")
    rank, processes = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if rank == 0:
        written(out / ABOUT, lambda path: path.write_text(json.dumps(facts)))
    began, sentences = time.monotonic(), 0
    for number, first in enumerate(range(0, len(chosen), size)):
        path, part = shard(out, number), chosen[first : first + size]
        if path.exists() or number % processes != rank:
            continue
        if time.monotonic() - began > minutes * 60:
            break
        vectors = encoder.encode(tokens.told.rows(rows_of(tokens, part))).astype(np.float16)
        written(path, lambda new, vectors=vectors: save_array(new, vectors))
        sentences += len(vectors)
        if number % 20 == rank:
            rate = sentences / (time.monotonic() - began)
            print(f"encoded {first + len(part)} of {len(chosen)} documents, {rate:.0f} sentences a second", flush=True)
    return sum(len(chosen[i : i + size]) for i in range(0, len(chosen), size) if shard(out, i // size).exists())


def rows_of(tokens: Tokens, documents: np.ndarray) -> np.ndarray:
    """The sentences of some documents, one document after another."""
    parts = [np.arange(tokens.starts[i], tokens.starts[i + 1]) for i in documents]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def save_array(path: Path, vectors: np.ndarray) -> None:
    with path.open("wb") as file:
        np.save(file, vectors)


def written(path: Path, write: Any) -> None:
    """Let `write` make a file that appears whole or not at all."""
    new = path.with_suffix(".new")
    write(new)
    new.replace(path)


def about(folder: Path) -> dict[str, Any]:
    """What `encode` wrote down about a folder. Raises CorpusError where it is none of its folders."""
    try:
        return json.loads((folder / ABOUT).read_text())
    except FileNotFoundError as error:
        raise CorpusError(
            f"There are no concepts in {folder.name}; make them with engine.training.concepts."
        ) from error
    except (OSError, ValueError) as error:
        raise CorpusError(f"{folder.name}/{ABOUT} is damaged; encode into an empty folder.") from error


def read(folder: Path, tokens: Tokens, langs: Collection[str] = ()) -> Documents:
    """The documents of a folder's shards; of the training ones only those in `langs`, if any are named.

    Raises CorpusError where there is none, or where they were made from other texts.
    """
    facts = about(folder)
    if facts["sentences"] != len(tokens.told):
        raise CorpusError(f"{folder.name} holds concepts of other texts; encode into an empty folder.")
    vectors: list[np.ndarray] = []
    kept: list[int] = []
    wanted = {CODES[lang] for lang in langs}
    for number, first in enumerate(range(0, len(facts["documents"]), facts["size"])):
        path = shard(folder, number)
        if not path.exists():
            continue
        part = np.array(facts["documents"][first : first + facts["size"]])
        lengths = (tokens.starts[1:] - tokens.starts[:-1])[part]
        try:
            own = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise CorpusError(f"{path.name} is damaged; delete it and encode again.") from error
        if len(own) != lengths.sum():
            raise CorpusError(f"{path.name} holds concepts of other texts; delete it and encode again.")
        spoken = tokens.told.langs[tokens.starts[part]]
        use = tokens.valid[part] | (np.isin(spoken, list(wanted)) if wanted else True)
        vectors.append(own[np.repeat(use, lengths)])
        kept += part[use].tolist()
    if not kept:
        raise CorpusError(f"There are no concepts in {folder.name}; make them with engine.training.concepts.")
    chosen = np.array(kept)
    codes = list(CODES)
    end = Texts(
        np.array(facts["end_tokens"], np.uint16), np.array([0, len(facts["end_tokens"])]), np.zeros(1, np.uint8)
    )
    return Documents(
        np.concatenate(vectors),
        np.concatenate([[0], np.cumsum((tokens.starts[1:] - tokens.starts[:-1])[chosen])]),
        tokens.valid[chosen],
        tokens.whole[chosen],
        tuple(codes[code] for code in tokens.told.langs[tokens.starts[chosen]]),
        np.array(facts["end"], np.float32),
        str(facts["space"]),
        str(facts["fingerprint"]),
        joined([tokens.told.rows(rows_of(tokens, chosen)), end]),
    )


def shard(out: Path, number: int) -> Path:
    return out / f"concepts-{number:05}.npy"


@answered
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.training.concepts", description=__doc__)
    parser.add_argument("--tokens", type=Path, required=True, help="the corpus, as engine.training.tokens writes it")
    parser.add_argument("--out", type=Path, default=Path("runs/concepts"), help="where the shards go (%(default)s)")
    parser.add_argument("--space", type=Path, default=ASSETS, help="folder with the space's weights and tokenizer")
    parser.add_argument("--langs", nargs="*", default=[], choices=list(CODES), help="of training documents (all)")
    parser.add_argument("--limit", type=int, default=0, help="at most so many training documents (all)")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so many; a later run goes on")
    parser.add_argument("--seed", type=int, default=0, help="of the documents' order")
    args = parser.parse_args(arguments)
    tokens = Tokens.load(args.tokens)
    chosen = select(tokens, args.langs, args.limit, args.seed)
    done = encode(tokens, chosen, FastEncoder(BuiltinSpace.load(args.space)), args.out, args.minutes)
    print(f"{done} of {len(chosen)} documents are in {args.out}")


if __name__ == "__main__":
    sys.exit(main())
