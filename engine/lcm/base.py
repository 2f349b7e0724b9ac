"""Base-LCM: a causal transformer that predicts the next concept of a document by its mean (MSE).

Large Concept Models, arXiv 2412.08821, section 2.3.1: a PreNet normalizes concepts and maps them to the model's
width, a decoder-only transformer reads them, a PostNet maps its states back to concepts and denormalizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import VectorError
from .blocks import Cache, Dimensions, Stack
from .diffusion import Sampling
from .model import Batch, ConceptModel, normal


class Read:
    """Keys and values of what was read, and the state after it."""

    def __init__(self, cache: Cache, state: Tensor | None) -> None:
        self.cache, self.state = cache, state

    def keep(self, rows: list[int]) -> None:
        self.cache.keep(rows)
        self.state = None if self.state is None else self.state[rows]


class BaseLCM(ConceptModel):
    """Base-LCM; alternatives are drawn from a normal distribution around its prediction."""

    kind = "base"
    title = "Base-LCM"
    temperature = 0.3
    spread: Tensor  # [D, D] factor of the covariance of what prediction misses: spread @ spread.T

    def __init__(self, dims: Dimensions) -> None:
        super().__init__(dims)
        self.prenet = nn.Linear(dims.concept, dims.width)
        self.stack = Stack(dims)
        self.postnet = nn.Linear(dims.width, dims.concept)
        nn.init.zeros_(self.postnet.weight)  # the first prediction is the median concept
        nn.init.zeros_(self.postnet.bias)
        self.register_buffer("spread", torch.eye(dims.concept))

    def forward(self, concepts: Tensor, cache: Cache | None = None) -> Tensor:
        """Predictions [N, T, D] of what follows concepts [N, 0..t, D]."""
        return self.postnet(self.stack(self.prenet(concepts), cache)).float()

    def predictions(self, batch: Batch) -> Tensor:
        """[N, T, D] as of reading; what begins a document is the median concept to a model that can't begin one."""
        zero = torch.zeros_like(batch.concepts[:, :1])
        if not self.dims.begin:
            return torch.cat([zero, self(batch.concepts[:, :-1])], dim=1)
        return self(torch.cat([zero, batch.concepts[:, :-1]], dim=1))

    def expectations(self, batch: Batch) -> Tensor:
        return self.predictions(batch)

    def loss(self, batch: Batch, read: Tensor) -> Tensor:
        """Mean squared error (section 2.3.1), over normalized concepts."""
        missed = self.predictions(replace(batch, concepts=read)) - batch.concepts
        real = batch.real.clone()
        real[:, 0] &= self.dims.begin
        return missed[real].square().mean()

    def start(self, rows: int) -> Read:
        memory = Read(Cache(self.dims, self.dims.layers, rows, self.prenet.bias), None)
        if self.dims.begin:
            self.read(memory, torch.zeros(rows, 1, self.dims.concept), torch.ones(rows, dtype=torch.long))
        return memory

    def read(self, memory: Read, concepts: Tensor, counts: Tensor) -> None:
        states = self.stack(self.prenet(concepts), memory.cache)
        memory.cache.advance(counts)
        last = states[torch.arange(len(counts)), (counts - 1).clamp_min(0)]
        memory.state = last if memory.state is None else torch.where(counts[:, None] > 0, last, memory.state)

    def predict(self, memory: Read) -> Tensor:
        """The prediction of what follows, [N, D]."""
        if memory.state is None:
            raise VectorError("This model can't begin a document; give it at least one sentence.")
        return self.postnet(memory.state).float()

    def expect(self, memory: Read) -> Tensor:
        return self.predict(memory)

    def sample(self, memory: Read, draws: Sequence[np.random.Generator], temperature: float, how: Sampling) -> Tensor:
        """The prediction with noise that has the covariance of what the model missed on validation documents.

        At temperature 1 it is a sample of what may follow (as far as a normal distribution can tell), at 0 the
        prediction itself.
        """
        return self.predict(memory) + temperature * normal(draws, self.dims.concept) @ self.spread.T
