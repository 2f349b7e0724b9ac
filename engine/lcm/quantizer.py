"""Residual vector quantization: a concept as a sum of centroids, from coarse to fine.

Large Concept Models, arXiv 2412.08821, section 2.3.5; Zeghidour et al., arXiv 2107.03312.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ResidualQuantizer(nn.Module):
    """Codebooks of centroids; each quantizes what the sum of those before it leaves of a concept."""

    centroids: Tensor  # [codebooks * units, D]

    def __init__(self, codebooks: int, units: int, concept: int) -> None:
        super().__init__()
        self.codebooks, self.units = codebooks, units
        self.register_buffer("centroids", torch.zeros(codebooks * units, concept))

    def book(self, level: int) -> Tensor:
        """The centroids [units, D] of one codebook."""
        return self.centroids[level * self.units : (level + 1) * self.units]

    def fit(self, concepts: Tensor, seed: int) -> list[float]:
        """Learn the codebooks from normalized concepts [N, D], one after the other, by k-means.

        Returns the share of the variance that is left after each.
        """
        from sklearn.cluster import MiniBatchKMeans  # scikit-learn takes a second to import, and only training needs it

        rest, left = concepts.clone(), []
        total = concepts.square().mean()
        for level in range(self.codebooks):
            means = MiniBatchKMeans(self.units, random_state=seed + level, n_init=1, batch_size=2048, max_iter=15)
            means.fit(rest.numpy())
            self.book(level).copy_(torch.from_numpy(means.cluster_centers_))
            rest -= self.book(level)[self.nearest(rest, level)]
            left.append(float(rest.square().mean() / total))
        return left

    def nearest(self, rest: Tensor, level: int) -> Tensor:
        """Which unit of a codebook is nearest to [N, D], [N]."""
        return self.distances(rest, level).argmin(-1)

    def distances(self, rest: Tensor, level: int) -> Tensor:
        """Squared distances [N, units] of [N, D] to a codebook's centroids, less what they share."""
        book = self.book(level)
        return book.square().sum(1) - 2 * rest @ book.T

    def encode(self, concepts: Tensor) -> Tensor:
        """The units [N, codebooks] of normalized concepts [N, D]."""
        rest, found = concepts.clone(), []
        for level in range(self.codebooks):
            found.append(self.nearest(rest, level))
            rest -= self.book(level)[found[-1]]
        return torch.stack(found, dim=1)

    def partial(self, codes: Tensor) -> Tensor:
        """The sums [N, codebooks + 1, D] of the centroids of units [N, codebooks], from none of them to all."""
        first = torch.arange(self.codebooks, device=codes.device) * self.units
        parts = self.centroids[codes + first]
        return torch.cat([torch.zeros_like(parts[:, :1]), parts.cumsum(1)], dim=1)
