"""SONAR-LLM: Base-LCM's network, trained on the words of the next sentence instead of on its concept.

Dragunov et al. 2025, arXiv 2508.05305: the predicted concept is decoded by the space's frozen decoder, and the loss is
the cross-entropy of the true sentence's tokens. So the network looks for a concept that is decoded well, where the mean
of all that may follow lies between sentences.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .base import BaseLCM, Read
from .blocks import Dimensions
from .model import Batch


class SonarLLM(BaseLCM):
    """SONAR-LLM; it reads and draws as Base-LCM does, whose weights it can start from.

    Its predictions are what to write, and no means; what it expects is a linear map of them to the mean concept.
    """

    kind = "sonar-llm"
    title = "SONAR-LLM"
    words = True
    slope: Tensor  # [D, D] of the map from predictions to means
    offset: Tensor  # [D]

    def __init__(self, dims: Dimensions) -> None:
        super().__init__(dims)
        self.register_buffer("slope", torch.eye(dims.concept))
        self.register_buffer("offset", torch.zeros(dims.concept))

    def fit_means(self, predicted: Tensor, truths: Tensor) -> None:
        """Learn the map from predictions [N, D] and the concepts that followed [N, D], by least squares."""
        x, y = predicted.double(), truths.double()
        centre, mean = x.mean(0), y.mean(0)
        x, y = x - centre, y - mean
        gram = x.T @ x
        ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.double)
        slope = torch.linalg.solve(gram + ridge, x.T @ y).T
        self.slope.copy_(slope)
        self.offset.copy_(mean - slope @ centre)

    def means(self, predicted: Tensor) -> Tensor:
        """What is expected [..., D] where [..., D] would be written."""
        return predicted @ self.slope.T + self.offset

    def expectations(self, batch: Batch) -> Tensor:
        return self.means(self.predictions(batch))

    def expect(self, memory: Read) -> Tensor:
        return self.means(self.predict(memory))
