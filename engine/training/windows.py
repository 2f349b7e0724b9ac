"""Documents as an endless stream of batches for concept models: the same stream for the same seed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import numpy as np

from .documents import Documents

Window = tuple[int, int, int]  # document, first concept, last concept


def batches(
    documents: Documents, indices: np.ndarray, context: int, size: int, seed: int, start: int
) -> Iterator[list[Window]]:
    """Endless batches of windows of about `size` concepts; the same for the same seed.

    A document that is longer than the context gives a random window of it.
    """
    lengths = np.array([min(documents.length(i), context) for i in indices])
    count = 0
    for epoch in range(1_000_000):
        rng = random.Random(f"{seed}/{epoch}")
        order = sorted(range(len(indices)), key=lambda i: (lengths[i], rng.random()))
        groups: list[list[int]] = [[]]
        for i in order:  # like lengths share a batch, so that little is padding
            if groups[-1] and (len(groups[-1]) + 1) * lengths[i] > size:
                groups.append([])
            groups[-1].append(i)
        rng.shuffle(groups)
        for group in groups:
            if count >= start:
                # Windows are drawn from the batch's own number, so that a resumed run draws the same.
                draw = random.Random(f"{seed}/window/{count}")
                yield [window(int(indices[i]), documents.length(int(indices[i])), context, draw) for i in group]
            count += 1


def window(index: int, length: int, context: int, rng: random.Random) -> Window:
    """The whole of a document that fits the context, or else a random part of it."""
    first = rng.randint(0, max(0, length - context))
    return index, first, min(length, first + context)


def collate(documents: Documents, windows: Sequence[Window]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the concepts, the end's after all others, int64 [N, T] (padding: -1), and what is predicted, bool [N, T].

    What stands first in a window inside a document is not predicted: it has no beginning.
    """
    index, first, last = (np.array(part)[:, None] for part in zip(*windows, strict=True))
    places = first + np.arange((last - first).max())
    inside = places < last
    rows = np.where(inside, documents.rows(index, places), -1)
    return rows, inside & ((places > first) | (first == 0))
