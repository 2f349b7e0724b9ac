"""The corpus as token ids, read and cut once for all recipes: `python -m engine.training.tokens --help`."""

from __future__ import annotations

import argparse
import sys
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import sentencepiece

from ..errors import CorpusError
from ..spaces.transformer import PAD
from . import corpus
from .command import answered

CODES = {lang: i for i, lang in enumerate(corpus.LANGUAGES)}
LONGEST = 62  # tokens of a sentence, without begin and end: what is longer is cut, or left out
TEXTS = ("left", "right", "singles", "literature", "told")
FACTS = ("starts", "valid", "whole", "novel")


@dataclass(frozen=True)
class Texts:
    """Token ids of many sentences in one flat array, with their languages."""

    flat: np.ndarray  # uint16
    starts: np.ndarray  # int64 [sentences + 1]
    langs: np.ndarray  # uint8 [sentences], numbers of CODES

    @classmethod
    def of(
        cls,
        tokenizer: sentencepiece.SentencePieceProcessor,
        texts: Sequence[str],
        langs: Iterable[str],
        share: int = 50_000,
    ) -> Texts:
        """Tokenize so many at a time: the ids of millions of sentences as lists would not fit."""
        flat, lengths = [np.zeros(0, np.uint16)], [0]
        for first in range(0, len(texts), share):
            rows = tokenizer.encode(list(texts[first : first + share]))
            flat.append(np.fromiter((i for row in rows for i in row), np.uint16))
            lengths += map(len, rows)
        return cls(np.concatenate(flat), np.cumsum(lengths), np.array([CODES[lang] for lang in langs], np.uint8))

    def __len__(self) -> int:
        return len(self.langs)

    def __getitem__(self, index: int) -> list[int]:
        return self.flat[self.starts[index] : self.starts[index + 1]].tolist()

    @property
    def lengths(self) -> np.ndarray:
        return np.diff(self.starts)

    def rows(self, chosen: np.ndarray) -> Texts:
        """The sentences of these numbers [K], in this order."""
        lengths = self.lengths[chosen]
        starts = np.concatenate([[0], np.cumsum(lengths)])
        # Where each token stands: its place in its own sentence, after that sentence's start.
        places = np.arange(starts[-1]) + np.repeat(self.starts[:-1][chosen] - starts[:-1], lengths)
        return Texts(self.flat[places], starts, self.langs[chosen])

    def padded(self, before: Sequence[int] = (), after: Sequence[int] = (), multiple: int = 1) -> np.ndarray:
        """Token ids int64 [N, T], each sentence between `before` and `after`; T is a multiple of `multiple`."""
        extra = len(before) + len(after)
        lengths = self.lengths + extra
        width = -(-int(lengths.max(initial=1)) // multiple) * multiple
        result = np.full((len(self), width), PAD, np.int64)
        result[:, : len(before)] = before
        columns = np.arange(width)[None]
        inside = (columns >= len(before)) & (columns < (lengths - len(after))[:, None])
        result[inside] = self.flat
        for place, token in enumerate(after):
            result[np.arange(len(self)), lengths - len(after) + place] = token
        return result


def joined(parts: Sequence[Texts]) -> Texts:
    """Texts one after another."""
    starts = np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in parts]))])
    return Texts(np.concatenate([p.flat for p in parts]), starts, np.concatenate([p.langs for p in parts]))


@dataclass(frozen=True)
class Tokens:
    """The whole corpus: pairs, single sentences, sentences of novels, and the sentences of documents in their order."""

    left: Texts
    right: Texts
    singles: Texts
    literature: Texts
    told: Texts
    starts: np.ndarray  # int64 [documents + 1]: rows of `told`
    valid: np.ndarray  # bool [documents], kept for scores
    whole: np.ndarray  # bool [documents]: the end is there
    novel: np.ndarray  # bool [documents]: a passage of a novel, rather than a story

    def __str__(self) -> str:
        return (
            f"{len(self.left)} pairs, {len(self.singles)} sentences, {len(self.literature)} of novels, "
            f"{len(self.told)} of {len(self.valid)} documents"
        )

    @classmethod
    def read(cls, folder: Path, tokenizer: sentencepiece.SentencePieceProcessor) -> Tokens:
        """Read a corpus (its files are described in docs/training.md); `literature` and `passages` may be missing.

        Raises CorpusError for a line that can't be used.
        """
        pairs = list(corpus.distinct_pairs(folder))
        left = Texts.of(tokenizer, [p[2] for p in pairs], [p[0] for p in pairs])
        right = Texts.of(tokenizer, [p[3] for p in pairs], [p[1] for p in pairs])
        short = np.flatnonzero((left.lengths <= LONGEST) & (right.lengths <= LONGEST))
        singles, novels = (
            Texts.of(tokenizer, [text for _, text in found], [lang for lang, _ in found])
            for found in (list(corpus.distinct_sentences(folder)), list(corpus.literature(folder)))
        )
        lengths: dict[str, int] = {}  # cutting asks for the same sentences again

        def fits(sentence: str) -> bool:
            if len(sentence) > LONGEST // 2 and sentence not in lengths:
                lengths[sentence] = len(tokenizer.encode(sentence))
            return len(sentence) <= LONGEST // 2 or lengths[sentence] <= LONGEST

        said: list[str] = []
        langs: list[str] = []
        starts, facts = [0], []
        for novel, name in ((False, corpus.DOCUMENTS), (True, corpus.PASSAGES)):
            for story in corpus.stories(folder / name) if (folder / name).exists() or not novel else ():
                kept = story.cut(fits)
                if len(kept) >= 2:
                    said += kept
                    langs += [story.lang] * len(kept)
                    starts.append(len(said))
                    facts.append((story.split == "valid", story.whole and not novel, novel))
        about = np.array(facts, bool).reshape(-1, 3)
        return cls(
            left.rows(short),
            right.rows(short),
            singles.rows(np.flatnonzero(singles.lengths <= LONGEST)),
            novels.rows(np.flatnonzero(novels.lengths <= LONGEST)),
            Texts.of(tokenizer, said, langs),
            np.array(starts),
            valid=about[:, 0],
            whole=about[:, 1],
            novel=about[:, 2],
        )

    def save(self, path: Path) -> None:
        """Write all arrays into one .npz. The file appears whole or not at all."""
        new = path.with_name("new." + path.name)
        np.savez(new, **self.arrays())  # type: ignore[arg-type]
        new.replace(path)

    def arrays(self) -> dict[str, np.ndarray]:
        texts = {
            f"{name}.{part.name}": getattr(getattr(self, name), part.name) for name in TEXTS for part in fields(Texts)
        }
        return texts | {name: getattr(self, name) for name in FACTS}

    @classmethod
    def load(cls, path: Path) -> Tokens:
        """Raises CorpusError where the file is missing, damaged, or something else."""
        try:
            with np.load(path, allow_pickle=False) as file:
                texts = {name: Texts(*(file[f"{name}.{part.name}"] for part in fields(Texts))) for name in TEXTS}
                return cls(**texts, **{name: file[name] for name in FACTS})  # type: ignore[arg-type]
        except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise CorpusError(f"{path.name} is missing or damaged; make it with engine.training.tokens.") from error


@answered
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.training.tokens", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with pairs, sentences and documents")
    parser.add_argument("--tokenizer", type=Path, required=True, help="SentencePiece model")
    parser.add_argument("--out", type=Path, default=Path("runs/tokens.npz"), help="the file to write (%(default)s)")
    args = parser.parse_args(arguments)
    tokens = Tokens.read(args.corpus, sentencepiece.SentencePieceProcessor(str(args.tokenizer)))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    tokens.save(args.out)
    print(tokens)


if __name__ == "__main__":
    sys.exit(main())
