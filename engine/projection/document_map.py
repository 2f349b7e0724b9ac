"""A map fitted to the concepts of one document."""

from __future__ import annotations

import numpy as np

from ..concepts import cosine
from ..errors import VectorError
from ..spaces import Progress
from .neighbours import checked, lying_at, nearest

FEWEST = 15  # concepts that a document map needs: umap-learn describes neighbourhoods, and fewer have none


class DocumentMap:
    """A map of one document's own shape, fitted by umap-learn.

    New concepts are placed among their nearest in the document, and points read the same way, by `nearest`. UMAP's
    own two ways were tried on 30 and 60 sentences and do worse. `transform` puts a sentence's translation a quarter
    to a third of the map away from it (this: 3 %) and even an all but identical vector a sixth away, since on so few
    points its repulsion outweighs its attraction. `inverse_transform` takes a second or more and gives vectors half
    as long again as a concept, which decode to the same few sentences everywhere and are placed half the map away.
    """

    def __init__(self, coordinates: np.ndarray, vectors: np.ndarray) -> None:
        self.coordinates = coordinates  # float32 [N, 2]
        self.vectors = vectors  # float32 [N, D]

    @classmethod
    def fit(cls, vectors: np.ndarray, seed: int = 0, progress: Progress | None = None) -> DocumentMap:
        """Fit the concepts [N, D] of a document, N >= 15; the same seed gives the same map.

        Takes tens of seconds the first time in a process (umap-learn is imported and compiled), so run it in the
        background. Raises VectorError for fewer concepts and for vectors that can't be used.
        """
        vectors = checked(vectors)
        if len(vectors) < FEWEST:
            raise VectorError(
                f"A document map needs {FEWEST} concepts and there are {len(vectors)}; use the landscape until then."
            )
        report = progress or (lambda done, total: None)
        report(0, 2)
        from umap import UMAP

        report(1, 2)
        neighbours = min(15, len(vectors) // 3)  # 15 is UMAP's habit; of a short document it would be everything
        model = UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1)
        coordinates = model.fit_transform(vectors).astype(np.float32)
        report(2, 2)
        return cls(coordinates, vectors)

    @classmethod
    def flat(cls, vectors: np.ndarray) -> DocumentMap:
        """The concepts [N, D] of a document, N >= 1, in the plane in which they spread most (principal components).

        Takes a millisecond and any number of concepts: it stands in where a space has no landscape. Raises VectorError.
        """
        vectors = checked(vectors)
        if not len(vectors):
            raise VectorError("There is nothing on this map yet; write a sentence first.")
        centered = vectors - vectors.mean(0)
        rows = np.concatenate([centered, np.zeros((2, vectors.shape[1]), np.float32)])  # one or two make no plane
        directions = np.linalg.svd(rows, full_matrices=False)[2][:2]
        directions *= np.sign(directions[np.arange(2), np.abs(directions).argmax(1)])[:, None]  # else either way round
        coordinates = centered @ directions.T
        return cls((coordinates / max(np.abs(coordinates).max(), 1e-6)).astype(np.float32), vectors)

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """Place concepts [M, D] among those of the document, float32 [M, 2]. Raises VectorError."""
        vectors = checked(vectors, self.vectors.shape[1])
        # Between unit vectors the squared distance is 2 - 2 cosine.
        rows, weights = nearest(2 - 2 * cosine(vectors, self.vectors))
        return np.einsum("mk,mkc->mc", weights, self.coordinates[rows])

    def invert(self, points: np.ndarray) -> np.ndarray:
        """The concepts that lie at points [M, 2] of the map, float32 [M, D]. Raises VectorError."""
        return lying_at(checked(points, 2, "points"), self.coordinates, self.vectors)
