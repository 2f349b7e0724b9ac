"""What lies nearest counts most: the way between concepts and points that both maps share."""

from __future__ import annotations

import numpy as np

from ..errors import VectorError

NEIGHBOURS = 5  # concepts blended where a point lies between them


def nearest(squared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From squared distances [M, N]: the rows that are nearest and how much each counts, both [M, NEIGHBOURS].

    Inverse distance weighting (Shepard 1968): at a row's own place it alone counts, and nothing jumps between.
    """
    k = min(NEIGHBOURS, squared.shape[1])
    rows = np.argpartition(squared, k - 1, axis=1)[:, :k]
    near = np.maximum(np.take_along_axis(squared, rows, axis=1), 1e-9)
    weights = (near.min(axis=1, keepdims=True) / near) ** 2  # of the squares: the fourth power of the distance
    return rows, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def lying_at(points: np.ndarray, coordinates: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Concepts [M, D] at points [M, 2] of a map that has `vectors` [N, D] at `coordinates` [N, 2]."""
    squared = sum((points[:, None, axis].astype(float) - coordinates[:, axis]) ** 2 for axis in (0, 1))
    rows, weights = nearest(squared)
    mixed = np.einsum("mk,mkd->md", weights, vectors[rows])
    # A mean is shorter than what it is the mean of, and short concepts decode badly.
    length = np.einsum("mk,mk->m", weights, np.linalg.norm(vectors[rows], axis=2))
    return mixed * (length / np.maximum(np.linalg.norm(mixed, axis=1), 1e-6))[:, None]


def checked(rows: np.ndarray, width: int | None = None, what: str = "vectors") -> np.ndarray:
    """Rows as float32 [N, width]; raises VectorError where they are not that, or not finite."""
    try:
        array = np.ascontiguousarray(rows, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise VectorError(f"The {what} are not an array of numbers.") from error
    if array.ndim != 2 or array.shape[1] != (width or array.shape[1]):
        raise VectorError(f"The {what} have the shape {array.shape}; this map needs [N, {width or 'D'}].")
    if not np.isfinite(array).all():
        raise VectorError(f"The {what} hold values that are not finite numbers.")
    return array
