"""Sentences that lead from one concept to another, each a step nearer to the end."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from . import concepts
from .spaces import ConceptSpace
from .text import has_words

CANDIDATES = 64  # concepts that are looked at, eight for each sentence at most


def gradients(space: ConceptSpace, ends: Sequence[tuple[np.ndarray, np.ndarray]], lang: str, n: int) -> list[list[str]]:
    """For each pair of concepts [D], `n` sentences on the way, both ends decoded too.

    Equal steps between vectors are no equal steps in words: near a sentence lie many concepts that decode to it.
    So more concepts are decoded than asked for, and their sentences encoded again, to find those which come
    steadily nearer to the end (see `steady`).
    """
    count = (n - 1) * max(1, min(8, CANDIDATES // n)) + 1
    path = np.stack([concepts.slerp(a, b, t) for a, b in ends for t in np.linspace(0, 1, count)])
    said = space.decode(path, lang)
    distinct = [sentence for sentence in dict.fromkeys(said) if has_words(sentence)]
    concept = dict(zip(distinct, space.encode(distinct, lang), strict=True)) if distinct else {}
    found = []
    for number, (_, b) in enumerate(ends):
        own = said[number * count : (number + 1) * count]
        closeness = [float(concepts.cosine(concept[s], b)[0, 0]) if s in concept else -np.inf for s in own]
        found.append([own[i] for i in steady(closeness, n)])
    return found


def steady(closeness: Sequence[float], n: int) -> list[int]:
    """`n` rising indices, the first and last ones among them, along which the values rise wherever they can.

    The longest rising run between the ends is thinned evenly; where it is too short, indices amid its widest
    gaps fill it up.
    """
    last = len(closeness) - 1
    inner = [i for i in range(1, last) if closeness[0] < closeness[i] < closeness[last]]
    chosen = [0, *(inner[i] for i in longest_rising([closeness[i] for i in inner])), last]
    if len(chosen) > n:
        chosen = [chosen[round(k * (len(chosen) - 1) / (n - 1))] for k in range(n)]
    while len(chosen) < n:
        gap = max(range(len(chosen) - 1), key=lambda k: chosen[k + 1] - chosen[k])
        chosen.insert(gap + 1, (chosen[gap] + chosen[gap + 1]) // 2)
    return chosen


def longest_rising(values: Sequence[float]) -> list[int]:
    """Indices of a longest strictly rising subsequence (patience sorting; Fredman 1975)."""
    tails: list[float] = []  # the smallest end of a run of each length
    at: list[int] = []
    before: list[int] = []
    for i, value in enumerate(values):
        length = bisect_left(tails, value)
        tails[length:] = [value, *tails[length + 1 :]]
        at[length:] = [i, *at[length + 1 :]]
        before.append(at[length - 1] if length else -1)
    run = []
    i = at[-1] if at else -1
    while i >= 0:
        run.append(i)
        i = before[i]
    return run[::-1]
