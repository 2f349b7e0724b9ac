"""One-Tower diffusion: one transformer reads the document and denoises the next concept.

Large Concept Models, arXiv 2412.08821, section 2.3.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .blocks import Dimensions
from .diffusion import Sampling, Schedule, denoise_path
from .interleaved import Interleaved, Read
from .model import Batch, ConceptModel, normal
from .two_tower import DROP, TimeEmbedding


class OneTower(ConceptModel):
    """One-Tower diffusion LCM."""

    kind = "one-tower"
    title = "One-Tower diffusion"
    temperature = 0.6  # the standard deviation of the noise that denoising starts from

    def __init__(self, dims: Dimensions, schedule: Schedule = Schedule()) -> None:
        super().__init__(dims)
        self.schedule = schedule
        self.backbone = Interleaved(dims, TimeEmbedding(dims.width))
        self.postnet = nn.Linear(dims.width, dims.concept)
        nn.init.zeros_(self.postnet.weight)
        nn.init.zeros_(self.postnet.bias)

    def loss(self, batch: Batch, read: Tensor) -> Tensor:
        """As of the two towers (section 2.3.2)."""
        t = self.schedule.draw(batch.real)
        noise = torch.randn_like(batch.concepts)
        without = torch.rand(batch.real.shape, device=read.device) < DROP
        noisy = self.schedule.add_noise(batch.concepts, noise, t)
        predicted = self.postnet(self.backbone(read, noisy, t, without)).float()
        return (predicted - self.schedule.target(batch.concepts, noise, t))[batch.real].square().mean()

    def expectations(self, batch: Batch) -> Tensor:
        last = self.schedule.steps - 1
        noisy = torch.zeros_like(batch.concepts)
        t = torch.full(batch.real.shape, last, device=noisy.device)
        return self.schedule.concept(self.postnet(self.backbone(batch.concepts, noisy, t)).float(), noisy, last)

    def start(self, rows: int) -> Read:
        return self.backbone.start(rows)

    def read(self, memory: Read, concepts: Tensor, counts: Tensor) -> None:
        self.backbone.read(memory, concepts, counts)

    def expect(self, memory: Read) -> Tensor:
        last = self.schedule.steps - 1
        noisy = torch.zeros(len(memory.cache.lengths), self.dims.concept)
        return self.schedule.concept(self.postnet(self.backbone.make(memory, noisy, last)), noisy, last)

    def denoise_path(
        self, memory: Read, start: Tensor, how: Sampling, fresh: Callable[[], Tensor] | None = None
    ) -> Iterator[Tensor]:
        """The estimates [N, D] of the next concepts at every denoising step from noise `start` [N, D] on."""

        def predict(x: Tensor, i: int, t: int) -> tuple[Tensor, Tensor | None]:
            with_document = self.postnet(self.backbone.make(memory, x, t))
            if how.guidance == 1:
                return with_document, None
            return with_document, self.postnet(self.backbone.make(memory, x, t, without=True))

        return denoise_path(self.schedule, how, start, predict, fresh)

    def sample(self, memory: Read, draws: Sequence[np.random.Generator], temperature: float, how: Sampling) -> Tensor:
        """DDIM from noise of standard deviation `temperature`."""
        start = temperature * normal(draws, self.dims.concept)
        *_, concept = self.denoise_path(memory, start, how, lambda: normal(draws, self.dims.concept))
        return concept
