"""Encoding and decoding many sentences of many languages, with one progress over all of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..spaces import ConceptSpace, Progress, Search


@dataclass
class Work:
    """Progress over several calls that each count from 0."""

    total: int
    progress: Progress | None = None
    done: int = 0

    def part(self, n: int) -> Progress | None:
        """The progress callback of the next call, which has `n` things to do."""
        start, self.done = self.done, self.done + n
        progress = self.progress
        return None if progress is None else lambda done, _: progress(start + done, self.total)

    def skip(self, n: int) -> None:
        """Leave out `n` things that turned out to be no work."""
        self.total -= n


def encode(space: ConceptSpace, said: Sequence[tuple[str, str]], work: Work) -> np.ndarray:
    """Concepts [N, D] of (language, text), one call for each language."""
    result = np.zeros((len(said), space.dim), np.float32)
    for lang in dict.fromkeys(lang for lang, _ in said):
        rows = [i for i, (own, _) in enumerate(said) if own == lang]
        result[rows] = space.encode([said[i][1] for i in rows], lang, progress=work.part(len(rows)))
    return result


def decode(
    space: ConceptSpace, jobs: Sequence[tuple[np.ndarray, str, int]], work: Work, search: Search = Search()
) -> list[str]:
    """Sentences of (concept [D], language, about how long), one call for each language, like lengths together."""
    result = [""] * len(jobs)
    for lang in dict.fromkeys(lang for _, lang, _ in jobs):
        rows = sorted((i for i, (_, own, _) in enumerate(jobs) if own == lang), key=lambda i: jobs[i][2])
        concepts = np.stack([jobs[i][0] for i in rows])
        sentences = space.decode(concepts, lang, search=search, progress=work.part(len(rows)))
        for i, sentence in zip(rows, sentences, strict=True):
            result[i] = sentence
    return result
