"""The normalizer: what makes every component of a concept alike before a model reads it, and its inverse."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

NORMAL_IQR = 1.3489795  # the interquartile range of a standard normal distribution


class Normalizer(nn.Module):
    """A robust scaler per component (arXiv 2412.08821, section 2.3.1).

    "This scaler removes the median statistics and scales the data according to the interquartile range": normalize(x)
    = (x - centre) / scale. As in Meta's code the scale is the range divided by that of a normal distribution
    (arXiv 2307.05445), so that a normal component gets a standard deviation of 1.
    """

    centre: Tensor
    deviation: Tensor

    def __init__(self, concept: int) -> None:
        super().__init__()
        self.register_buffer("centre", torch.zeros(concept))
        self.register_buffer("deviation", torch.ones(concept))

    def fit(self, concepts: np.ndarray) -> None:
        """Take centre and scale from concepts [N, D]; a component that never varies keeps the scale 1."""
        low, centre, high = np.percentile(concepts, [25, 50, 75], axis=0)
        scale = (high - low) / NORMAL_IQR
        scale[scale < 1e-6] = 1.0
        self.centre.copy_(torch.from_numpy(centre.astype(np.float32)))
        self.deviation.copy_(torch.from_numpy(scale.astype(np.float32)))

    def normalize(self, concepts: Tensor) -> Tensor:
        """Concepts [..., D] as the model sees them, [..., D]."""
        return (concepts - self.centre) / self.deviation

    def denormalize(self, values: Tensor) -> Tensor:
        """The inverse of `normalize`."""
        return values * self.deviation + self.centre
