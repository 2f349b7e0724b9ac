"""The scores of decoded sentences and of found concepts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import concepts


def score(found: Sequence[tuple[str, str]]) -> tuple[float, float]:
    """Corpus BLEU and chrF (sacrebleu, 0 to 100) of (decoded, reference)."""
    from sacrebleu import corpus_bleu, corpus_chrf

    decoded, references = [d for d, _ in found], [[r for _, r in found]]
    return round(corpus_bleu(decoded, references).score, 2), round(corpus_chrf(decoded, references).score, 2)


def retrieval(queries: np.ndarray, candidates: np.ndarray, texts: Sequence[str]) -> float:
    """Percent of rows of queries [N, D] whose nearest row of candidates [N, D] says `texts[row]`."""
    nearest = concepts.cosine(queries, candidates).argmax(1)
    return percent(sum(texts[found] == text for found, text in zip(nearest, texts, strict=True)), len(texts))


def percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2)
