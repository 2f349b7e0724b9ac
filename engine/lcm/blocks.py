"""The transformer blocks under every concept model: RMSNorm, rotary positions, SwiGLU, attention with a cache.

The choices are those of the paper's models (Large Concept Models, arXiv 2412.08821, section 2.3 and its reference to
Llama's recipe): pre-norm with RMSNorm (Zhang & Sennrich, arXiv 1910.07467), rotary positions (RoPE, Su et al.,
arXiv 2104.09864) and SwiGLU (Shazeer, arXiv 2002.05202). All linear maps have a bias, as in Meta's code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Dimensions:
    """The sizes of one concept model; what a kind has not is 0."""

    concept: int  # components of a concept
    width: int
    layers: int  # of the tower that reads the document
    heads: int
    hidden: int  # inner width of the feed-forward part
    context: int  # the most concepts that attention sees at once
    denoiser: int = 0  # layers of the second tower, in models that have two
    denoiser_hidden: int = 0  # inner width of its feed-forward parts, if not `hidden`
    codebooks: int = 0  # of the residual quantizer
    units: int = 0  # centroids in each codebook
    begin: bool = True  # a zero vector stands before the first concept: the beginning of what can be seen
    dropout: float = 0.0  # on what each block adds, in training only
    eps: float = 1e-5
    rope_base: float = 10_000.0


class Cache:
    """Keys and values of the positions read so far, so that each new concept costs one step.

    Buffers are [N, heads, capacity, head width] per layer, and double when they are full. Rows may have different
    `lengths` [N].
    """

    def __init__(self, dims: Dimensions, layers: int, rows: int, like: Tensor) -> None:
        shape = (rows, dims.heads, 32, dims.width // dims.heads)
        self.keys = [like.new_zeros(shape) for _ in range(layers)]
        self.values = [like.new_zeros(shape) for _ in range(layers)]
        self.lengths = torch.zeros(rows, dtype=torch.long)
        self.end = 0  # the largest of them

    def positions(self, count: int) -> Tensor:
        """Where the next `count` positions of each row go, [N, count]."""
        return self.lengths[:, None] + torch.arange(count)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Put [N, heads, T, d] keys and values of one layer after each row's; return all of that layer so far.

        They count as read once `advance` says so: until then they are written over.
        """
        count = keys.shape[2]
        rows, places = torch.arange(len(keys))[:, None], self.positions(count)
        capacity = self.keys[layer].shape[2]
        if self.end + count > capacity:
            more = (0, 0, 0, max(capacity, self.end + count - capacity))
            self.keys[layer], self.values[layer] = F.pad(self.keys[layer], more), F.pad(self.values[layer], more)
        self.keys[layer][rows, :, places] = keys.transpose(1, 2)
        self.values[layer][rows, :, places] = values.transpose(1, 2)
        end = self.end + count
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]

    def advance(self, counts: Tensor) -> None:
        """Each row [N] has read so many more positions."""
        self.lengths = self.lengths + counts
        self.end = int(self.lengths.max()) if len(self.lengths) else 0

    def keep(self, rows: list[int]) -> None:
        """Forget all other rows."""
        self.keys = [keys[rows] for keys in self.keys]
        self.values = [values[rows] for values in self.values]
        self.lengths = self.lengths[rows]
        self.advance(torch.zeros_like(self.lengths))


Turn = tuple[Tensor, Tensor]


def rotations(dims: Dimensions, positions: Tensor) -> Turn:
    """Cosines and sines [N, 1, T, head width / 2] of positions [N, T]."""
    half = dims.width // dims.heads // 2
    rates = dims.rope_base ** (-torch.arange(half, device=positions.device, dtype=torch.float32) / half)
    angles = positions[:, None, :, None].float() * rates
    return angles.cos(), angles.sin()


def rotate(x: Tensor, turn: Turn) -> Tensor:
    """Turn queries or keys [N, heads, T, d] by their positions; component i is paired with i + d / 2."""
    a, b = x.chunk(2, dim=-1)
    cos, sin = (part.to(x.dtype) for part in turn)
    return torch.cat([a * cos - b * sin, a * sin + b * cos], dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Softmax attention: q [N, heads, T, d] over k, v [N, heads, S, d]; what is not in the mask is out of sight."""
    # Plain products: for the 10 to 40 concepts of a story they beat the fused kernels on a CPU.
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores.masked_fill(~mask, -1e9)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Self-attention."""

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()
        self.heads = dims.heads
        self.qkv = nn.Linear(dims.width, 3 * dims.width)
        self.out = nn.Linear(dims.width, dims.width)

    def forward(self, x: Tensor, turn: Turn, mask: Tensor | None, cache: Cache | None, layer: int) -> Tensor:
        """x [N, T, width]; `turn` from `rotations`; mask broadcastable to [N, heads, T, S], true where seen."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotate(q, turn), rotate(k, turn)
        if cache is not None:
            k, v = cache.extend(layer, k, v)
        return self.out(attend(q, k, v, mask))


class FeedForward(nn.Module):
    """SwiGLU: a gate and a value, multiplied."""

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dims.width, 2 * dims.hidden)
        self.fc2 = nn.Linear(dims.hidden, dims.width)

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

    def forward(self, x: Tensor, turn: Turn, mask: Tensor | None, cache: Cache | None, layer: int) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), turn, mask, cache, layer))
        return x + self.dropout(self.feed(self.norm2(x)))


class Stack(nn.Module):
    """A stack of blocks with a final norm; causal, unless it is told what each position sees."""

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()
        self.dims = dims
        self.blocks = nn.ModuleList(Block(dims) for _ in range(dims.layers))
        self.norm = nn.RMSNorm(dims.width, eps=dims.eps)
        initialize(self, dims.layers)

    def forward(
        self,
        x: Tensor,
        cache: Cache | None = None,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """States [N, T, width] of inputs [N, T, width]; with a cache the inputs are the positions that are new.

        Rows may be padded at their end, since no position sees a later one. `positions` [N, T] and `mask`, true
        where seen and broadcastable to [N, heads, T, S], replace the causal ones.
        """
        count = x.shape[1]
        if positions is None:
            positions = cache.positions(count) if cache is not None else torch.arange(count, device=x.device)[None]
        if mask is None and (count > 1 or cache is not None):
            seen = torch.arange((cache.end if cache is not None else 0) + count, device=x.device)
            mask = (seen <= positions[..., None])[:, None]
        turn = rotations(self.dims, positions)
        x = x.float()  # the stream that blocks add to stays exact where autocast makes their products bfloat16
        for index, block in enumerate(self.blocks):
            x = block(x, turn, mask, cache, index)
        return self.norm(x)


def initialize(module: nn.Module, layers: int) -> None:
    """Small random matrices and no biases.

    Branches that add to the stream start smaller: its variance then does not grow with depth (GPT-2).
    """
    for name, weight in module.named_parameters():
        if weight.ndim == 2:
            closing = name.endswith(("out.weight", "fc2.weight"))
            nn.init.normal_(weight, std=0.02 / math.sqrt(2 * layers) if closing else 0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(weight)
