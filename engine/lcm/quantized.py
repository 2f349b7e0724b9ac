"""Quant-LCM: the next concept from coarse to fine, one codebook of a residual quantizer after the other.

Large Concept Models, arXiv 2412.08821, section 2.3.5. Quant-LCM-d predicts the next unit (cross-entropy), Quant-LCM-c
the concept itself (MSE), from which the unit is then chosen by its distance.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import Dimensions
from .diffusion import Sampling, draw_levels
from .interleaved import Interleaved, Read
from .model import Batch, ConceptModel
from .quantizer import ResidualQuantizer
from .two_tower import DROP


class Quantized(ConceptModel):
    """What both have: the quantizer, the backbone, and how a concept is made."""

    def __init__(self, dims: Dimensions) -> None:
        super().__init__(dims)
        self.quantizer = ResidualQuantizer(dims.codebooks, dims.units, dims.concept)
        level = nn.Embedding(dims.codebooks, dims.width)
        nn.init.normal_(level.weight, std=0.02)
        self.backbone = Interleaved(dims, level)
        self.postnet = nn.Linear(dims.width, dims.concept)
        nn.init.zeros_(self.postnet.weight)
        nn.init.zeros_(self.postnet.bias)

    def prepare(self, concepts: Tensor, seed: int) -> None:
        self.quantizer.fit(concepts, seed)

    def made(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """For one level drawn for each concept: the levels [N, T], the sums so far [N, T, D]; and the units of all
        codebooks [N, T, codebooks].
        """
        level = draw_levels(batch.real, self.dims.codebooks, blind=0)
        codes = self.quantizer.encode(batch.concepts.flatten(0, 1))
        sums = self.quantizer.partial(codes)
        rows, flat = torch.arange(len(codes), device=codes.device), level.flatten()
        return level, sums[rows, flat].unflatten(0, level.shape), codes.unflatten(0, level.shape)

    def start(self, rows: int) -> Read:
        return self.backbone.start(rows)

    def read(self, memory: Read, concepts: Tensor, counts: Tensor) -> None:
        self.backbone.read(memory, concepts, counts)

    def logits(self, states: Tensor, making: Tensor, level: int) -> Tensor:
        """Scores [N, units] of a codebook's units for states [N, width] of concepts in the making [N, D]."""
        raise NotImplementedError

    def mean(self, states: Tensor) -> Tensor:
        """The mean concept [..., D] for states [..., width] in which nothing of it is there yet."""
        raise NotImplementedError

    def expectations(self, batch: Batch) -> Tensor:
        making = torch.zeros_like(batch.concepts)
        level = torch.zeros_like(batch.real, dtype=torch.long)
        return self.mean(self.backbone(batch.concepts, making, level))

    def expect(self, memory: Read) -> Tensor:
        making = torch.zeros(len(memory.cache.lengths), self.dims.concept)
        return self.mean(self.backbone.make(memory, making, 0))

    def sample(self, memory: Read, draws: Sequence[np.random.Generator], temperature: float, how: Sampling) -> Tensor:
        """Units drawn by their guided scores at a temperature, codebook after codebook."""
        making = torch.zeros(len(draws), self.dims.concept)
        for level in range(self.dims.codebooks):
            scores = self.logits(self.backbone.make(memory, making, level), making, level).log_softmax(-1)
            if how.guidance != 1:
                free = self.logits(self.backbone.make(memory, making, level, True), making, level).log_softmax(-1)
                scores = free + how.guidance * (scores - free)
            if temperature > 0:
                # The largest score with Gumbel noise is a draw from the softmax.
                noise = np.stack([draw.gumbel(size=self.dims.units) for draw in draws])
                scores = scores / temperature + torch.from_numpy(noise.astype(np.float32))
            making = making + self.quantizer.book(level)[scores.argmax(-1)]
        return making


class QuantD(Quantized):
    """Quant-LCM-d: cross-entropy over a codebook's units.

    A unit's score is the product of its centroid with a vector that is read off the state, and its frequency: what is
    learnt of one centroid holds for those beside it, of which each is seen too rarely to have weights of its own.
    """

    kind = "quant-d"
    title = "Quant-LCM-d"
    temperature = 0.5

    def __init__(self, dims: Dimensions) -> None:
        super().__init__(dims)
        self.frequency = nn.Parameter(torch.zeros(dims.codebooks, dims.units))  # its logarithm
        self.scale = nn.Parameter(torch.zeros(dims.codebooks))  # the logarithm of how much the vector counts

    def prepare(self, concepts: Tensor, seed: int) -> None:
        super().prepare(concepts, seed)
        for counts, units in zip(self.frequency.data, self.quantizer.encode(concepts).T, strict=True):
            counts.copy_((torch.bincount(units, minlength=self.dims.units) + 1.0).log())

    def scores(self, states: Tensor) -> Tensor:
        """Logits [..., codebooks, units] for states [..., width]."""
        vector = self.postnet(states).float()
        with torch.autocast(vector.device.type, enabled=False):  # eight bits are too few to tell centroids apart
            products = (vector @ self.quantizer.centroids.T).unflatten(-1, (self.dims.codebooks, self.dims.units))
        return products * self.scale.exp()[:, None] + self.frequency

    def loss(self, batch: Batch, read: Tensor) -> Tensor:
        """Cross-entropy of the drawn codebook's unit (section 2.3.5).

        Where the first codebook was drawn, nothing is there of the concept yet, and the units of all others are asked
        for as well: it is what `expectations` sums up.
        """
        level, making, codes = self.made(batch)
        without = torch.rand(batch.real.shape, device=read.device) < DROP
        scores = self.scores(self.backbone(read, making, level, without)[batch.real])
        level, codes = level[batch.real], codes[batch.real]
        rows = torch.arange(len(level), device=level.device)
        own = F.cross_entropy(scores[rows, level], codes[rows, level])
        first = level == 0
        if not first.any():
            return own
        others = F.cross_entropy(scores[first, 1:].flatten(0, 1), codes[first, 1:].flatten())
        return own + first.float().mean() * others

    def logits(self, states: Tensor, making: Tensor, level: int) -> Tensor:
        products = self.postnet(states).float() @ self.quantizer.book(level).T
        return products * self.scale[level].exp() + self.frequency[level]

    def mean(self, states: Tensor) -> Tensor:
        """A concept is a sum of centroids, so its mean is the sum of each codebook's means."""
        return self.scores(states).softmax(-1).flatten(-2) @ self.quantizer.centroids


class QuantC(Quantized):
    """Quant-LCM-c: mean squared error to the concept; a unit is the likelier the nearer it brings the sum to it."""

    kind = "quant-c"
    title = "Quant-LCM-c"
    temperature = 0.5

    def loss(self, batch: Batch, read: Tensor) -> Tensor:
        level, making, _ = self.made(batch)
        without = torch.rand(batch.real.shape, device=read.device) < DROP
        predicted = self.postnet(self.backbone(read, making, level, without)).float()
        return (predicted - batch.concepts)[batch.real].square().mean()

    def logits(self, states: Tensor, making: Tensor, level: int) -> Tensor:
        # As if the concept lay around the prediction with a variance of 1 in each component.
        return -0.5 * self.quantizer.distances(self.postnet(states) - making, level)

    def mean(self, states: Tensor) -> Tensor:
        return self.postnet(states).float()
