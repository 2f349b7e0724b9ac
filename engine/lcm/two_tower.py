"""Two-Tower diffusion: one transformer reads the document, another denoises the next concept in its sight.

Large Concept Models, arXiv 2412.08821, section 2.3.4: the contextualizer is causal; the denoiser's blocks attend to
its states and are modulated by the timestep (AdaLN, Peebles & Xie, arXiv 2212.09748). A zero vector in front of the
states stands for no document: it is all that is seen before the first concept, and without guidance by the document.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

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
        self.feed = FeedForward(replace(dims, hidden=dims.denoiser_hidden or dims.hidden))
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
    shifts the biases of the maps that follow. So does what attention adds where the document is out of sight.
    """

    def __init__(self, denoiser: Denoiser, timesteps: list[int]) -> None:
        width = denoiser.norm.weight.numel()
        root = math.sqrt(width)
        self.floor = torch.tensor(width * (denoiser.norm.eps or 0.0)).sqrt()
        self.entry = turned(denoiser.entry.weight), denoiser.entry.bias
        self.exit = turned(denoiser.exit.weight), denoiser.exit.bias
        self.scale = root * denoiser.norm.weight
        time = F.silu(denoiser.time(torch.tensor(timesteps)))
        # Of each block: the matrices of self-attention, of cross-attention's queries and outputs, and of the feed;
        # the biases of cross-attention's outputs and of the feed's.
        self.blocks: list[tuple[Tensor, ...]] = []
        # Of each block at each timestep: scale, bias and gate of its three parts, what is added without a document.
        self.modulations: list[list[tuple[Tensor, ...]]] = []
        for block in denoiser.blocks:
            weight, bias = block.alone()
            cross, feed = block.cross, block.feed
            matrices = (weight, cross.q.weight, cross.out.weight, feed.fc1.weight, feed.fc2.weight)
            self.blocks.append((*map(turned, matrices), cross.out.bias, feed.fc2.bias))
            shift1, scale1, gate1, shift2, scale2, gate2, shift3, scale3, gate3 = block.modulation(time).chunk(9, -1)
            unseen = cross.out(cross.kv.bias.chunk(2)[1])  # attention to the zero in front alone
            folded = (
                *(root * block.norm1.weight * (1 + scale1), F.linear(shift1, weight, bias), gate1),
                *(root * block.norm2.weight * (1 + scale2), cross.q(shift2), gate2),
                *(root * block.norm3.weight * (1 + scale3), feed.fc1(shift3), gate3),
                gate2 * unseen,
            )
            self.modulations.append(list(zip(*folded, strict=True)))

    def normed(self, x: Tensor, scale: Tensor) -> Tensor:
        """RMSNorm of [M, width] in few operations; `scale` [width] is its weight times the root of the width."""
        return x * scale / torch.hypot(torch.linalg.vector_norm(x, dim=-1, keepdim=True), self.floor)

    def __call__(self, noisy: Tensor, i: int, sight: Sight, free: bool) -> tuple[Tensor, Tensor | None]:
        """Denoise [N, D] at step i: each in sight of its document and, if `free`, without it, both [N, D]."""
        n, x = len(noisy), F.linear(noisy, *self.entry)
        if free:
            x = torch.cat([x, x])
        for b, (alone, query, out, fc1, fc2, out_bias, fc2_bias) in enumerate(self.blocks):
            scale1, bias1, gate1, scale2, bias2, gate2, scale3, bias3, gate3, unseen = self.modulations[b][i]
            x = torch.addcmul(x, gate1, F.linear(self.normed(x, scale1), alone, bias1))
            with_document, without = x[:n], x[n:]
            seen = sight.attend(F.linear(self.normed(with_document, scale2), query, bias2), b)
            with_document.addcmul_(gate2, F.linear(seen, out, out_bias))
            without.add_(unseen)
            gate, value = F.linear(self.normed(x, scale3), fc1, bias3).chunk(2, dim=-1)
            x = torch.addcmul(x, gate3, F.linear(F.silu(gate) * value, fc2, fc2_bias))
        predicted = F.linear(self.normed(x, self.scale), *self.exit)
        return predicted[:n], predicted[n:] if free else None


def turned(weight: Tensor) -> Tensor:
    """A matrix [outputs, inputs] as a copy whose columns lie together: few rows are multiplied with it faster so.

    A large one stays as it is: the copy would take as much memory as the model.
    """
    return weight if weight.numel() > 1_000_000 else weight.T.contiguous().T


class Sight:
    """What concepts being denoised see of their documents: keys and values of each of the denoiser's blocks."""

    def __init__(self, cache: Cache) -> None:
        end = cache.end
        parts = ([part[:, :, :end].flatten(0, 1) for part in parts] for parts in (cache.keys, cache.values))
        self.keys, self.values = parts  # of each block, [N x heads, S, d]
        self.rows, self.heads = cache.keys[0].shape[:2]
        beyond = torch.arange(end) >= cache.lengths[:, None]
        self.mask = torch.zeros(beyond.shape).masked_fill(beyond, -1e9).repeat_interleave(self.heads, 0)[:, None]

    def attend(self, q: Tensor, block: int) -> Tensor:
        """Attention of queries [N, width] in one block, [N, width]: plain products are fastest for one query a row."""
        q = q.view(len(self.mask), 1, -1)
        scores = torch.baddbmm(self.mask, q, self.keys[block].transpose(1, 2), alpha=1 / math.sqrt(q.shape[-1]))
        return torch.bmm(scores.softmax(-1), self.values[block]).view(self.rows, -1)


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

    def expect(self, memory: Read) -> Tensor:
        last = self.schedule.steps - 1
        noisy = torch.zeros(len(memory.cross.lengths), self.dims.concept)
        predicted, _ = self._prepared(memory, [last])(noisy, 0, Sight(memory.cross), free=False)
        return self.schedule.concept(predicted, noisy, last)

    def denoise_path(
        self, memory: Read, start: Tensor, how: Sampling, fresh: Callable[[], Tensor] | None = None
    ) -> Iterator[Tensor]:
        """The estimates [N, D] of the next concepts at every denoising step from noise `start` [N, D] on."""
        prepared, sight = self._prepared(memory, self.schedule.timesteps(how.steps)), Sight(memory.cross)

        def predict(x: Tensor, i: int, t: int) -> tuple[Tensor, Tensor | None]:
            return prepared(x, i, sight, free=how.guidance != 1)

        return denoise_path(self.schedule, how, start, predict, fresh)

    def sample(self, memory: Read, draws: Sequence[np.random.Generator], temperature: float, how: Sampling) -> Tensor:
        """DDIM from noise of standard deviation `temperature`."""
        start = temperature * normal(draws, self.dims.concept)
        *_, concept = self.denoise_path(memory, start, how, lambda: normal(draws, self.dims.concept))
        return concept
