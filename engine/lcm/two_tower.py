"""Two-Tower diffusion: one transformer reads the document, another denoises the next concept in its sight.

Large Concept Models, arXiv 2412.08821, section 2.3.4: the contextualizer is causal; the denoiser's blocks attend to
its states and are modulated by the timestep (AdaLN, Peebles & Xie, arXiv 2212.09748). A zero vector in front of the
states stands for no document: it is all that is seen before the first concept, and without guidance by the document.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import Attention, Cache, Dimensions, FeedForward, Stack, attend, initialize
from .diffusion import Sampling, Schedule, denoise_path
from .model import Batch, ConceptModel, normal

DROP = 0.15  # how often a concept is denoised without its document in training, for guidance


class TimeEmbedding(nn.Module):
    """Timesteps [...] to vectors [..., width]: sines and cosines of 128 rates, then two layers (arXiv 2212.09748)."""

    def __init__(self, width: int, rates: int = 128) -> None:
        super().__init__()
        self.rates = rates
        self.fc1 = nn.Linear(2 * rates, width)
        self.fc2 = nn.Linear(width, width)

    def forward(self, t: Tensor) -> Tensor:
        rates = torch.exp(torch.arange(self.rates, device=t.device) * (-math.log(10_000) / self.rates))
        angles = t[..., None].float() * rates
        return self.fc2(F.silu(self.fc1(torch.cat([angles.cos(), angles.sin()], dim=-1))))


class CrossAttention(nn.Module):
    """Attention of concepts being denoised to the document's states."""

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()
        self.heads = dims.heads
        self.q = nn.Linear(dims.width, dims.width)
        self.kv = nn.Linear(dims.width, 2 * dims.width)
        self.out = nn.Linear(dims.width, dims.width)

    def keys_values(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Of states [N, S, width], both [N, heads, S, d]."""
        k, v = self.kv(states).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return k, v

    def forward(self, x: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """x [N, T, width]; mask broadcastable to [N, heads, T, S], true where seen."""
        q = self.q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        return self.out(attend(q, keys, values, mask))


class DenoiserBlock(nn.Module):
    """Attention to itself, to the document, and a feed-forward part, each shifted, scaled and gated by the timestep.

    Each concept is denoised alone: self-attention over one position is a linear map of it (its softmax is 1).
    """

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(dims.width, eps=dims.eps)
        self.attention = Attention(dims)
        self.norm2 = nn.RMSNorm(dims.width, eps=dims.eps)
        self.cross = CrossAttention(dims)
        self.norm3 = nn.RMSNorm(dims.width, eps=dims.eps)
        self.feed = FeedForward(dims)
        self.modulation = nn.Linear(dims.width, 9 * dims.width)
        self.dropout = nn.Dropout(dims.dropout)

    def alone(self) -> tuple[Tensor, Tensor]:
        """The linear map [width, width] that self-attention over one position is, and its bias."""
        v, shift = self.attention.qkv.weight.chunk(3)[2], self.attention.qkv.bias.chunk(3)[2]
        return self.attention.out.weight @ v, self.attention.out.weight @ shift + self.attention.out.bias

    def forward(self, x: Tensor, time: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """x [N, T, width] at embedded timesteps [N, T, width]; the document's states [N, S, width]."""
        shift1, scale1, gate1, shift2, scale2, gate2, shift3, scale3, gate3 = self.modulation(F.silu(time)).chunk(9, -1)
        h = self.norm1(x) * (1 + scale1) + shift1
        x = x + gate1 * self.dropout(F.linear(h, *self.alone()))
        h = self.norm2(x) * (1 + scale2) + shift2
        x = x + gate2 * self.dropout(self.cross(h, *self.cross.keys_values(states), mask))
        h = self.norm3(x) * (1 + scale3) + shift3
        return x + gate3 * self.dropout(self.feed(h))


class Denoiser(nn.Module):
    """The second tower: noisy concepts, their timesteps and the document's states to clean concepts."""

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()
        self.time = TimeEmbedding(dims.width)
        self.entry = nn.Linear(dims.concept, dims.width)
        # A ModuleList, named for what it holds.
        self.blocks: list[DenoiserBlock] = nn.ModuleList(DenoiserBlock(dims) for _ in range(dims.denoiser))  # type: ignore[assignment]
        self.norm = nn.RMSNorm(dims.width, eps=dims.eps)
        self.exit = nn.Linear(dims.width, dims.concept)
        initialize(self, dims.denoiser)
        for block in self.blocks:
            nn.init.zeros_(block.modulation.weight)  # each block begins as the identity (arXiv 2212.09748)

    def forward(self, noisy: Tensor, t: Tensor, states: Tensor, mask: Tensor) -> Tensor:
        """noisy [N, T, D] at timesteps [N, T]; states [N, S, width], the zero in front; mask as `CrossAttention`'s."""
        x, time = self.entry(noisy).float(), self.time(t)
        for block in self.blocks:
            x = block(x, time, states, mask)
        return self.exit(self.norm(x)).float()


class Prepared:
    """The denoiser with all that no concept changes worked out beforehand, for the timesteps of one `Sampling`.

    Self-attention is one matrix. Modulations depend on the timestep alone: their scales join the norms' weights, their
    shifts the biases of the maps that follow.
    """

    def __init__(self, denoiser: Denoiser, timesteps: list[int]) -> None:
        self.denoiser = denoiser
        time = F.silu(denoiser.time(torch.tensor(timesteps)))
        self.alone: list[Tensor] = []
        # Of each block at each timestep: scale [width], bias and gate [width] of its three parts.
        self.modulations: list[list[tuple[Tensor, ...]]] = []
        for block in denoiser.blocks:
            weight, bias = block.alone()
            self.alone.append(weight)
            shift1, scale1, gate1, shift2, scale2, gate2, shift3, scale3, gate3 = block.modulation(time).chunk(9, -1)
            folded = (
                *(block.norm1.weight * (1 + scale1), F.linear(shift1, weight, bias), gate1),
                *(block.norm2.weight * (1 + scale2), block.cross.q(shift2), gate2),
                *(block.norm3.weight * (1 + scale3), block.feed.fc1(shift3), gate3),
            )
            self.modulations.append(list(zip(*folded, strict=True)))

    def __call__(self, noisy: Tensor, i: int, keys: list[Tensor], values: list[Tensor], mask: Tensor) -> Tensor:
        """Denoise [N, R, D] at step i: R rows of a document, each in sight of its keys and values [N, heads, S, d] of
        each block to whose scores `mask` [N, 1, R, S] adds 0, and not of those where it adds a large negative number.
        """
        denoiser = self.denoiser
        eps, shape = denoiser.norm.eps, noisy.shape[:2]
        x = denoiser.entry(noisy.flatten(0, 1))  # plain matrices have the least overhead
        for b, block in enumerate(denoiser.blocks):
            scale1, bias1, gate1, scale2, bias2, gate2, scale3, bias3, gate3 = self.modulations[b][i]
            h = F.rms_norm(x, scale1.shape, scale1, eps)
            x = torch.addcmul(x, gate1, F.linear(h, self.alone[b], bias1))
            h = F.rms_norm(x, scale2.shape, scale2, eps)
            q = F.linear(h, block.cross.q.weight, bias2).view(*shape, block.cross.heads, -1).transpose(1, 2)
            seen = F.scaled_dot_product_attention(q, keys[b], values[b], mask).transpose(1, 2).reshape(x.shape)
            x = torch.addcmul(x, gate2, block.cross.out(seen))
            h = F.rms_norm(x, scale3.shape, scale3, eps)
            gate, value = F.linear(h, block.feed.fc1.weight, bias3).chunk(2, dim=-1)
            x = torch.addcmul(x, gate3, block.feed.fc2(F.silu(gate) * value))
        return denoiser.exit(denoiser.norm(x)).view(noisy.shape)


class Read:
    """The contextualizer's keys and values, and those that the denoiser's blocks have of its states."""

    def __init__(self, model: TwoTower, rows: int) -> None:
        like = model.prenet.bias
        self.cache = Cache(model.dims, model.dims.layers, rows, like)
        self.cross = Cache(model.dims, model.dims.denoiser, rows, like)
        self.prepared: dict[tuple[int, ...], Prepared] = {}  # for the timesteps that were needed

    def keep(self, rows: list[int]) -> None:
        self.cache.keep(rows)
        self.cross.keep(rows)


class TwoTower(ConceptModel):
    """Two-Tower diffusion LCM."""

    kind = "two-tower"
    title = "Two-Tower diffusion"
    temperature = 0.6  # the standard deviation of the noise that denoising starts from

    def __init__(self, dims: Dimensions, schedule: Schedule = Schedule()) -> None:
        super().__init__(dims)
        self.schedule = schedule
        self.prenet = nn.Linear(dims.concept, dims.width)
        self.contextualizer = Stack(dims)
        self.denoiser = Denoiser(dims)

    def encode(self, concepts: Tensor) -> Tensor:
        """The document's states [N, T + 1, width], the zero in front, of concepts [N, T, D]."""
        states = self.contextualizer(self.prenet(concepts))
        return torch.cat([torch.zeros_like(states[:, :1]), states], dim=1)

    def denoise(self, read: Tensor, noisy: Tensor, t: Tensor, without: Tensor | None = None) -> Tensor:
        """Denoise [N, T, D] at timesteps [N, T], each in sight of the concepts before it in `read` [N, T, D].

        Where `without` [N, T] is true the document is not seen.
        """
        states = self.encode(read[:, :-1])
        places = torch.arange(noisy.shape[1], device=noisy.device)
        mask = (places[None, :] <= places[:, None])[None]
        if without is not None:
            mask = mask & (~without[..., None] | (places == 0))
        return self.denoiser(noisy, t, states, mask[:, None])

    def loss(self, batch: Batch, read: Tensor) -> Tensor:
        """Mean squared error of what the schedule has predicted, at drawn timesteps (section 2.3.2)."""
        t = self.schedule.draw(batch.real)
        noise = torch.randn_like(batch.concepts)
        without = torch.rand(batch.real.shape, device=read.device) < DROP
        predicted = self.denoise(read, self.schedule.add_noise(batch.concepts, noise, t), t, without)
        return (predicted - self.schedule.target(batch.concepts, noise, t))[batch.real].square().mean()

    def expectations(self, batch: Batch) -> Tensor:
        """The estimate from a noiseless start at the last timestep, where noisy concepts tell nothing."""
        noisy = torch.zeros_like(batch.concepts)
        t = torch.full(batch.real.shape, self.schedule.steps - 1, device=noisy.device)
        predicted = self.denoise(batch.concepts, noisy, t)
        return self.schedule.concept(predicted, noisy, self.schedule.steps - 1)

    def start(self, rows: int) -> Read:
        memory = Read(self, rows)
        self._see(memory, torch.zeros(rows, 1, self.dims.width), torch.ones(rows, dtype=torch.long))
        return memory

    def _see(self, memory: Read, states: Tensor, counts: Tensor) -> None:
        for index, block in enumerate(self.denoiser.blocks):
            memory.cross.extend(index, *block.cross.keys_values(states))
        memory.cross.advance(counts)

    def read(self, memory: Read, concepts: Tensor, counts: Tensor) -> None:
        states = self.contextualizer(self.prenet(concepts), memory.cache)
        memory.cache.advance(counts)
        self._see(memory, states, counts)

    def _prepared(self, memory: Read, timesteps: list[int]) -> Prepared:
        key = tuple(timesteps)
        if key not in memory.prepared:
            memory.prepared[key] = Prepared(self.denoiser, timesteps)
        return memory.prepared[key]

    def _sight(self, memory: Read, free: bool) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Keys, values and mask for `Prepared`: a row of each document and, if `free`, one that sees nothing of it."""
        end = memory.cross.end
        places = torch.arange(end)
        seen = (places < memory.cross.lengths[:, None])[:, None]
        if free:
            seen = torch.cat([seen, (places == 0).expand_as(seen)], dim=1)
        mask = torch.zeros(seen.shape).masked_fill(~seen, -1e9)[:, None]
        keys, values = ([part[:, :, :end] for part in parts] for parts in (memory.cross.keys, memory.cross.values))
        return keys, values, mask

    def expect(self, memory: Read) -> Tensor:
        last = self.schedule.steps - 1
        noisy = torch.zeros(len(memory.cross.lengths), self.dims.concept)
        predicted = self._prepared(memory, [last])(noisy[:, None], 0, *self._sight(memory, free=False))[:, 0]
        return self.schedule.concept(predicted, noisy, last)

    def denoise_path(
        self, memory: Read, start: Tensor, how: Sampling, fresh: Callable[[], Tensor] | None = None
    ) -> Iterator[Tensor]:
        """The estimates [N, D] of the next concepts at every denoising step from noise `start` [N, D] on."""
        prepared = self._prepared(memory, self.schedule.timesteps(how.steps))
        guided = how.guidance != 1
        sight = self._sight(memory, free=guided)

        def predict(x: Tensor, i: int, t: int) -> tuple[Tensor, Tensor | None]:
            predicted = prepared(torch.stack([x, x] if guided else [x], dim=1), i, *sight)
            return predicted[:, 0], predicted[:, 1] if guided else None

        return denoise_path(self.schedule, how, start, predict, fresh)

    def sample(self, memory: Read, draws: Sequence[np.random.Generator], temperature: float, how: Sampling) -> Tensor:
        """DDIM from noise of standard deviation `temperature`."""
        start = temperature * normal(draws, self.dims.concept)
        *_, concept = self.denoise_path(memory, start, how, lambda: normal(draws, self.dims.concept))
        return concept
