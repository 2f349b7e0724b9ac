"""Geometry of concepts: what can be done with vectors alone, before anything is decoded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .errors import SeedError, VectorError


def _length(vectors: np.ndarray) -> np.ndarray:
    return np.linalg.norm(vectors, axis=-1, keepdims=True)


def seeded(*seed: int) -> np.random.Generator:
    """Random numbers that are the same for the same seed. Raises SeedError for a negative one."""
    if min(seed) < 0:
        raise SeedError(f"A seed is a whole number from 0 up, not {min(seed)}.")
    return np.random.default_rng(seed)


def rescale(vector: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Give `vector` the mean norm of the rows of `like`: sums of concepts fall short of where sentences lie."""
    norm = float(_length(vector)[0])
    if norm < 1e-6:
        raise VectorError("These concepts cancel each other out; nothing is left to decode.")
    return (vector * (float(_length(np.atleast_2d(like)).mean()) / norm)).astype(np.float32)


def slerp(a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
    """Spherical interpolation from `a` (t = 0) to `b` (t = 1), [D]; norms are interpolated linearly.

    Shoemake, "Animating rotation with quaternion curves" (1985). t outside 0 to 1 goes on along the arc.
    """
    na, nb = float(_length(a)[0]), float(_length(b)[0])
    cosine = float(np.clip(a @ b / max(na * nb, 1e-12), -1, 1))
    angle = np.arccos(cosine)
    if angle < 1e-4:
        mixed = (1 - t) * a + t * b
    elif np.pi - angle < 1e-4:
        raise VectorError("These two concepts are exact opposites; there is no one path between them.")
    else:
        unit = (np.sin((1 - t) * angle) * a / na + np.sin(t * angle) * b / nb) / np.sin(angle)
        mixed = unit * ((1 - t) * na + t * nb)
    return np.asarray(mixed, dtype=np.float32)


def blend(vectors: np.ndarray, weights: Sequence[float]) -> np.ndarray:
    """Weighted mean of concepts [N, D], at their mean norm. Raises VectorError for weights that fit nothing."""
    if len(weights) != len(vectors):
        raise VectorError(f"{len(vectors)} concepts need {len(vectors)} weights, not {len(weights)}.")
    w = np.asarray(weights, dtype=np.float32)
    if not np.isfinite(w).all() or abs(float(w.sum())) < 1e-6:
        raise VectorError("The weights add up to nothing; give at least one concept some weight.")
    return rescale((w[:, None] * vectors).sum(0) / w.sum(), vectors)


def arithmetic(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """a - b + c, at the mean norm of the three."""
    return rescale(a - b + c, np.stack([a, b, c]))


def vary(vector: np.ndarray, amount: float, seed: int) -> np.ndarray:
    """A seeded sample around a concept: `amount` is the noise's share of the concept's own spread (0 to 1)."""
    noise = seeded(seed).standard_normal(vector.shape).astype(np.float32)
    spread = float(_length(vector)[0]) / np.sqrt(len(vector))
    return rescale(vector + amount * spread * noise, vector)


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine between rows of a [N, D] and b [M, D], as [N, M]."""
    a, b = np.atleast_2d(a), np.atleast_2d(b)
    return np.asarray((a / np.maximum(_length(a), 1e-12)) @ (b / np.maximum(_length(b), 1e-12)).T)
