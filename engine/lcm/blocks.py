"""The transformer blocks under every concept model: RMSNorm, rotary positions, SwiGLU, causal attention with a cache.

The choices are those of the paper's models (Large Concept Models, arXiv 2412.08821, section 2.3 and its reference to
Llama's recipe): pre-norm with RMSNorm (Zhang & Sennrich, arXiv 1910.07467), rotary positions (RoPE, Su et al.,
arXiv 2104.09864) and SwiGLU (Shazeer, arXiv 2002.05202).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Dimensions:
    """The sizes of one concept model."""

    concept: int  # components of a concept
    width: int
    layers: int
    heads: int
    hidden: int  # inner width of the feed-forward part
    context: int  # the most positions that attention sees at once
    dropout: float = 0.0  # on what each block adds, in training only
    eps: float = 1e-5
    rope_base: float = 10_000.0


class Cache:
    """Keys and values of the positions read so far, so that each new concept costs one step.

    Buffers are [N, heads, context, head width] per layer, allocated once.
    """

    def __init__(self, dims: Dimensions, rows: int, like: Tensor) -> None:
        shape = (rows, dims.heads, dims.context, dims.width // dims.heads)
        self.keys = [like.new_zeros(shape) for _ in range(dims.layers)]
        self.values = [like.new_zeros(shape) for _ in range(dims.layers)]
        self.length = 0

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Append [N, heads, T, d] keys and values of one layer; return all of that layer so far."""
        end = self.length + keys.shape[2]
        self.keys[layer][:, :, self.length : end] = keys
        self.values[layer][:, :, self.length : end] = values
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]


def rotations(dims: Dimensions, start: int, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines [length, head width / 2] of positions from `start` on."""
    half = dims.width // dims.heads // 2
    rates = dims.rope_base ** (-torch.arange(half, device=device, dtype=torch.float32) / half)
    angles = torch.arange(start, start + length, device=device, dtype=torch.float32)[:, None] * rates
    return angles.cos(), angles.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn queries or keys [N, heads, T, d] by their positions; component i is paired with i + d / 2."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


class Attention(nn.Module):
    """Causal self-attention."""

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()
        self.heads = dims.heads
        self.qkv = nn.Linear(dims.width, 3 * dims.width, bias=False)
        self.out = nn.Linear(dims.width, dims.width, bias=False)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache | None, layer: int
    ) -> Tensor:
        """x [N, T, width]; `turn` from `rotations`; mask broadcastable to [N, heads, T, S], added to the scores."""
        n, t, width = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, *turn), rotate(k, *turn)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        # Plain products: for the 10 to 40 concepts of a story they beat the fused kernels on a CPU.
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if mask is not None:
            scores = scores + mask.to(scores.dtype)
        return self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(n, t, width))


class FeedForward(nn.Module):
    """SwiGLU: a gate and a value, multiplied."""

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dims.width, 2 * dims.hidden, bias=False)
        self.fc2 = nn.Linear(dims.hidden, dims.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.fc1(x).chunk(2, dim=-1)
        return self.fc2(F.silu(gate) * value)


class Block(nn.Module):
    """One pre-norm transformer block."""

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()
        self.norm1 = nn.RMSNorm(dims.width, eps=dims.eps)
        self.attention = Attention(dims)
        self.norm2 = nn.RMSNorm(dims.width, eps=dims.eps)
        self.feed = FeedForward(dims)
        self.dropout = nn.Dropout(dims.dropout)

    def forward(
        self, x: Tensor, turn: tuple[Tensor, Tensor], mask: Tensor | None, cache: Cache | None, layer: int
    ) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), turn, mask, cache, layer))
        return x + self.dropout(self.feed(self.norm2(x)))


class Stack(nn.Module):
    """A causal stack of blocks with a final norm."""

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()
        self.dims = dims
        self.blocks = nn.ModuleList(Block(dims) for _ in range(dims.layers))
        self.norm = nn.RMSNorm(dims.width, eps=dims.eps)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                # Branches that add to the stream start small: its variance then does not grow with depth (GPT-2).
                closing = name.endswith(("out.weight", "fc2.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * dims.layers) if closing else 0.02)

    def forward(self, x: Tensor, cache: Cache | None = None) -> Tensor:
        """States [N, T, width] of inputs [N, T, width]; with a cache the inputs are the positions that are new.

        No position sees a later one, so rows may be padded at their end.
        """
        start = cache.length if cache is not None else 0
        length = x.shape[1]
        turn = rotations(self.dims, start, length, x.device)
        mask = None
        if length > 1:
            mask = torch.full((length, start + length), -1e9, device=x.device).triu(start + 1)
        x = x.float()  # the stream that blocks add to stays exact where autocast makes their products bfloat16
        for index, block in enumerate(self.blocks):
            x = block(x, turn, mask, cache, index)
        if cache is not None:
            cache.length += length
        return self.norm(x)
