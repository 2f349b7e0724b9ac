"""Decoding with choice: of several sentences the one whose own concept is nearest to the concept that was decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..concepts import cosine
from ..text import has_words
from . import ConceptSpace, Progress, Search
from .codec import checked

ROWS = 8  # decoded at once: it can be stopped only between two batches, a second apart; 16 are 8 % faster a sentence

# What a place in the beams' order counts for, in cosine: of two sentences that are about as near, the likelier one is
# better. BLEU on 210 pairs (English to itself, the others to themselves, to English, from English, between the others):
# beams alone 84.6, 69.2, 37.0, 28.8, 30.9; the nearest whatever its place 87.1, 77.1, 40.1, 26.2, 28.3; so 87.0, 75.5,
# 39.9, 28.2, 31.5. Greedily it is 83.2, 66.5, 36.3, 25.0, 27.3, in a quarter of the time.
PLACE = 0.002


def nearest(
    space: ConceptSpace, vectors: np.ndarray, lang: str, search: Search, progress: Progress | None = None
) -> list[list[str]]:
    """Up to `search.alternatives` different sentences for each of concepts [N, dim], the nearest in meaning first.

    Raises LanguageError, and VectorError for a wrong shape or values that are not finite.
    """
    beams = max(search.beams, search.alternatives)
    beam = replace(search, kind="beam", beams=beams, alternatives=beams)
    concepts = checked(vectors, space.dim)
    if not len(concepts):
        return space.alternatives(concepts, lang, search=beam)
    result: list[list[str]] = []
    for start in range(0, len(concepts), ROWS):
        batch = concepts[start : start + ROWS]
        found = space.alternatives(batch, lang, search=beam)
        for texts, near in zip(found, nearness(space, batch, found, lang), strict=True):
            order = np.argsort(PLACE * np.arange(len(texts)) - near, kind="stable")
            result.append([texts[i] for i in order[: search.alternatives]])
        if progress:
            progress(len(result), len(concepts))
    return result


def nearness(space: ConceptSpace, vectors: np.ndarray, found: Sequence[Sequence[str]], lang: str) -> list[np.ndarray]:
    """The cosine of each sentence's own concept to its row of concepts [N, dim], float32, one array for each row.

    It is -1 for what has no concept: without words, or too long for one.
    """
    said = {
        text for texts in found for text in texts if has_words(text) and space.count_tokens(text) <= space.max_tokens
    }
    rows = {text: row for row, text in enumerate(sorted(said))}
    own = space.encode(list(rows), lang)
    return [
        np.array(
            [cosine(vector, own[rows[text]])[0, 0] if text in rows else -1 for text in texts],
            np.float32,
        )
        for vector, texts in zip(vectors, found, strict=True)
    ]
