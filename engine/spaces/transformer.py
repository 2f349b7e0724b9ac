"""The text encoder and text decoder of a concept space: a sentence to one vector, and back.

One implementation serves every size. The architecture is SONAR's (Duquenne et al., arXiv 2308.11466):
a transformer encoder whose states are pooled into one vector, and a transformer decoder whose only view
of the source is that vector. Cross-attention to a single vector always has weight 1, so it is exactly a
linear map of the concept, added in every layer; that is how it is written here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Dimensions:
    """The sizes and habits of one tower (encoder or decoder)."""

    vocabulary: int
    width: int
    layers: int
    heads: int
    hidden: int  # inner width of the feed-forward part
    concept: int  # components of a concept vector
    positions: int  # the longest sequence, in tokens
    pre_norm: bool
    activation: Literal["gelu", "relu"] = "gelu"
    embed_scale: float = 1.0
    learned_positions: bool = True  # otherwise sinusoidal, as in fairseq
    first_position: int = 0  # fairseq counts from 2: its padding has index 1
    embed_norm: bool = False  # LayerNorm on the embeddings (post-norm encoders have it)
    pool_heads: int = 0  # of attention pooling; 0: plain mean pooling, and the concept is as wide as the tower
    pool_width: int = 0  # of what all these heads pool together
    languages: int = 0  # learned language prompts of the decoder; 0 where languages are ordinary tokens
    eps: float = 1e-5


# The built-in space's sizes stand in its weights files; its first edition wrote none down.
FIRST_ENCODER = Dimensions(
    vocabulary=23_992,
    width=384,
    layers=12,
    heads=12,
    hidden=1536,
    concept=512,
    positions=128,
    pre_norm=False,
    embed_norm=True,
    pool_heads=4,
    pool_width=384,
    eps=1e-12,
)
FIRST_DECODER = Dimensions(
    vocabulary=23_992,
    width=384,
    layers=6,
    heads=6,
    hidden=1536,
    concept=512,
    positions=128,
    pre_norm=True,
    embed_scale=math.sqrt(384) * 0.5,
    languages=6,
)
# Whisper base's text decoder (Radford et al. 2022, arXiv 2212.04356) is one of these without its cross-attention.
WHISPER_DECODER = replace(FIRST_DECODER, width=512, heads=8, hidden=2048, embed_scale=1.0)
SONAR_ENCODER = Dimensions(
    vocabulary=256_206,
    width=1024,
    layers=24,
    heads=16,
    hidden=8192,
    concept=1024,
    positions=514,
    pre_norm=True,
    activation="relu",
    embed_scale=32.0,
    learned_positions=False,
    first_position=2,
)
SONAR_DECODER = replace(SONAR_ENCODER, positions=512)

PAD = 0


class Cache:
    """Keys and values of the tokens decoded so far, so that each new token costs one step.

    Buffers are [N, heads, slots, head width] per layer, allocated once; memory is taken as slots are written.
    """

    def __init__(self, dimensions: Dimensions, rows: int, slots: int, like: Tensor) -> None:
        shape = (rows, dimensions.heads, slots, dimensions.width // dimensions.heads)
        self.keys = [like.new_empty(shape) for _ in range(dimensions.layers)]
        self.values = [like.new_empty(shape) for _ in range(dimensions.layers)]
        self.length = 0  # slots in use
        self.position = 0  # of the next token; beams stand side by side at one position

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append [N, heads, T, d] keys and values of one layer; return all of that layer so far."""
        end = self.length + keys.shape[2]
        self.keys[layer][:, :, self.length : end] = keys
        self.values[layer][:, :, self.length : end] = values
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def select(self, rows: Tensor) -> None:
        """Keep the given rows, in the given order (finished sentences leave). Only slots in use are copied."""
        for buffers in (self.keys, self.values):
            for layer, old in enumerate(buffers):
                buffers[layer] = old.new_empty(len(rows), *old.shape[1:])
                buffers[layer][:, :, : self.length] = old[rows, :, : self.length]


class Layer(nn.Module):
    """One transformer layer, with an optional concept input."""

    def __init__(self, dims: Dimensions, decoder: bool) -> None:
        super().__init__()
        self.heads, self.pre_norm = dims.heads, dims.pre_norm
        self.activation = F.gelu if dims.activation == "gelu" else F.relu
        self.norm1 = nn.LayerNorm(dims.width, eps=dims.eps)
        self.qkv = nn.Linear(dims.width, 3 * dims.width)
        self.out = nn.Linear(dims.width, dims.width)
        self.norm2 = nn.LayerNorm(dims.width, eps=dims.eps)
        self.fc1 = nn.Linear(dims.width, dims.hidden)
        self.fc2 = nn.Linear(dims.hidden, dims.width)
        if decoder:
            self.concept = nn.Linear(dims.concept, dims.width)

    def attend(self, x: Tensor, mask: Tensor | None, cache: Cache | None, index: int) -> Tensor:
        n, t, width = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if cache is not None:
            k, v = cache.extend(index, k, v)
        # Plain products: for sentences of 10 to 40 tokens they beat the fused kernels on a CPU.
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores + mask.to(scores.dtype)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, width))

    def feed(self, x: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(x)))

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        concept: Tensor | None = None,
        cache: Cache | None = None,
        index: int = 0,
    ) -> Tensor:
        """x [N, T, width], mask broadcastable to [N, heads, T, S], concept [N, 1, width] (projected)."""
        if self.pre_norm:
            x = x + self.attend(self.norm1(x), mask, cache, index)
            if concept is not None:
                x = x + concept
            return x + self.feed(self.norm2(x))
        x = self.norm1(x + self.attend(x, mask, cache, index))
        return self.norm2(x + self.feed(x))


def sinusoids(length: int, width: int, first: int = 0) -> Tensor:
    """Fixed sine and cosine positions from `first` on, [length, width] (Vaswani et al. 2017, section 3.5; fairseq's
    layout)."""
    half = width // 2
    # On the processor even where the model is laid out without memory: a table has no weights to load later.
    rates = torch.exp(torch.arange(half, device="cpu") * -(math.log(10_000) / (half - 1)))
    angles = torch.arange(first, first + length, device="cpu")[:, None] * rates[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Tower(nn.Module):
    """What encoder and decoder share: embeddings, positions and a stack of layers."""

    positions: Tensor

    def __init__(self, dims: Dimensions, decoder: bool) -> None:
        super().__init__()
        self.dims = dims
        self.embed = nn.Embedding(dims.vocabulary, dims.width)
        if dims.learned_positions:
            self.positions = nn.Parameter(torch.zeros(dims.positions, dims.width))
        else:
            table = sinusoids(dims.positions, dims.width, dims.first_position)
            self.register_buffer("positions", table, persistent=False)
        # A ModuleList, named for what it holds.
        self.layers: list[Layer] = nn.ModuleList(Layer(dims, decoder) for _ in range(dims.layers))  # type: ignore[assignment]
        if dims.embed_norm or dims.pre_norm:  # a post-norm tower norms its input, a pre-norm one its output
            self.norm = nn.LayerNorm(dims.width, eps=dims.eps)


class TextEncoder(Tower):
    """Token ids to concepts."""

    def __init__(self, dims: Dimensions) -> None:
        super().__init__(dims, decoder=False)
        if dims.pool_heads:
            self.pool_score = nn.Linear(dims.width, dims.pool_heads)
            self.pool_value = nn.Linear(dims.width, dims.pool_width)
            self.project = nn.Linear(dims.width + dims.pool_width, dims.concept)

    def forward(self, ids: Tensor) -> Tensor:
        """Encode token ids [N, T] (padded with 0) into concepts [N, concept]."""
        real = ids != PAD
        mask = torch.zeros(real.shape, device=ids.device).masked_fill(~real, -1e9)[:, None, None, :]
        x = self.embed(ids) * self.dims.embed_scale + self.positions[: ids.shape[1]]
        if self.dims.embed_norm:
            x = self.norm(x)
        for layer in self.layers:
            x = layer(x, mask)
        if self.dims.pre_norm:
            x = self.norm(x)
        weight = real[..., None].float()  # bf16 can't even count to 300
        mean = (x.float() * weight).sum(1) / weight.sum(1)
        if not self.dims.pool_heads:
            return mean
        scores = self.pool_score(x).float().masked_fill(~real[..., None], -1e9).softmax(1).to(x.dtype)  # [N, T, heads]
        values = self.pool_value(x).unflatten(-1, (self.dims.pool_heads, -1))  # [N, T, heads, pool width / heads]
        pooled = (scores[..., None] * values).sum(1).flatten(1)
        z = self.project(torch.cat([mean.to(x.dtype), pooled], dim=-1))
        return F.layer_norm(z.float(), (self.dims.concept,))  # every concept has norm sqrt(concept)


class TextDecoder(Tower):
    """Concepts to next-token logits."""

    def __init__(self, dims: Dimensions) -> None:
        super().__init__(dims, decoder=True)
        if dims.languages:
            self.languages = nn.Embedding(dims.languages, dims.width)

    def condition(self, concepts: Tensor) -> list[Tensor]:
        """What each layer adds for concepts [N, concept]: one [N, 1, width] per layer, computed once a sentence."""
        return [layer.concept(concepts)[:, None] for layer in self.layers]

    def states(
        self,
        tokens: Tensor,
        conditions: list[Tensor],
        language: Tensor | None = None,
        cache: Cache | None = None,
        ancestors: Tensor | None = None,
    ) -> Tensor:
        """Hidden states [N, T, width] after tokens [N, T].

        `language` [N] puts the language's learned vector in front (first call only); with a `cache`, `tokens`
        are the ones that are new. `ancestors` [N, T, slots] is given where the T tokens do not follow each other but
        end T beams at the same position: it says which slots of the cache, the new ones included, each beam is made of.
        So a beam that changes its parent changes what it looks at, and no keys or values are moved.
        """
        x = self.embed(tokens)
        if language is not None:
            x = torch.cat([self.languages(language)[:, None], x], dim=1)
        start = cache.position if cache is not None else 0
        length = x.shape[1] if ancestors is None else 1
        x = x * self.dims.embed_scale + self.positions[start : start + length]
        mask = None
        if ancestors is not None:
            mask = torch.zeros(ancestors.shape, device=x.device).masked_fill(~ancestors, -1e9)[:, None]
        elif length > 1:
            mask = torch.full((length, start + length), -1e9, device=x.device).triu(start + 1)
        for index, (layer, condition) in enumerate(zip(self.layers, conditions, strict=True)):
            x = layer(x, mask, condition, cache, index)
        if cache is not None:
            cache.length += x.shape[1]
            cache.position += length
        return self.norm(x)

    def logits(self, states: Tensor) -> Tensor:
        """Scores over the vocabulary, with the embedding matrix as output matrix (tied)."""
        # As one matrix: a product of strided batches would copy the 256,206 words for each of them.
        rows = states.reshape(-1, states.shape[-1]) @ self.embed.weight.T
        return rows.view(*states.shape[:-1], rows.shape[-1])
