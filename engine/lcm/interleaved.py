"""One transformer over clean concepts and over concepts in the making, between them.

It is the backbone of the One-Tower diffusion model (Large Concept Models, arXiv 2412.08821, section 2.3.3) and of the
quantized ones (section 2.3.5): in training every concept of a document is made at once, each in sight of the clean
ones before it and of itself; in use the clean ones' keys and values are kept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import Cache, Dimensions, Stack


class Read:
    """Keys and values of the clean concepts, and of the beginning alone."""

    def __init__(self, cache: Cache, beginning: Cache) -> None:
        self.cache, self.beginning = cache, beginning

    def keep(self, rows: list[int]) -> None:
        self.cache.keep(rows)
        self.beginning.keep(rows)


class Interleaved(nn.Module):
    """The backbone. `level` embeds how far a concept in the making has come: a timestep, or a codebook's number."""

    def __init__(self, dims: Dimensions, level: nn.Module) -> None:
        super().__init__()
        self.dims = dims
        self.prenet = nn.Linear(dims.concept, dims.width)
        self.level = level
        self.stack = Stack(dims)

    def forward(self, read: Tensor, making: Tensor, level: Tensor, without: Tensor | None = None) -> Tensor:
        """States [N, T, width] of concepts in the making [N, T, D] at levels [N, T].

        Each sees the concepts before it in `read` [N, T, D]; where `without` [N, T] is true, only the beginning.
        """
        count = making.shape[1]
        clean = self.prenet(torch.cat([torch.zeros_like(read[:, :1]), read[:, :-1]], dim=1))
        x = torch.cat([clean, self.prenet(making) + self.level(level)], dim=1)
        places = torch.arange(count, device=x.device)
        before = (places[None, :] <= places[:, None])[None]  # place 0 is the beginning, place t the concept t - 1
        itself = torch.eye(count, dtype=torch.bool, device=x.device)[None]
        makers = before
        if without is not None:
            makers = before & (~without[..., None] | (places == 0))
        nothing = torch.zeros_like(before)
        upper = torch.cat([before, nothing], dim=2).expand(len(makers), -1, -1)
        mask = torch.cat([upper, torch.cat([makers, itself.expand_as(makers)], dim=2)], dim=1)
        positions = torch.cat([places, places + 1])[None]
        return self.stack(x, positions=positions, mask=mask[:, None])[:, count:]

    def start(self, rows: int) -> Read:
        ones = torch.ones(rows, dtype=torch.long)
        caches = [Cache(self.dims, self.dims.layers, rows, self.prenet.bias) for _ in range(2)]
        for cache in caches:
            self.stack(self.prenet(torch.zeros(rows, 1, self.dims.concept)), cache)
            cache.advance(ones)
        return Read(*caches)

    def read(self, memory: Read, concepts: Tensor, counts: Tensor) -> None:
        self.stack(self.prenet(concepts), memory.cache)
        memory.cache.advance(counts)

    def make(self, memory: Read, making: Tensor, level: int, without: bool = False) -> Tensor:
        """States [N, width] of concepts in the making [N, D], with or without the document in sight."""
        x = self.prenet(making) + self.level(torch.full((len(making),), level))
        # Its keys and values stand behind the document's until the next ones are written over them.
        return self.stack(x[:, None], memory.beginning if without else memory.cache)[:, 0]
