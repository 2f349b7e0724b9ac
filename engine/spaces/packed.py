"""A decoder whose matrices are laid out for few rows on a CPU: one sentence being decoded, or a handful, or beams.

A step of so few rows costs what reading the weights costs, if they are read as fast as memory allows. MKL is far from
that on some processors (on an AMD EPYC it takes two to six times as long for 2 to 8 rows); oneDNN, with the weights in
blocks of its own, comes near it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..weights import blank
from .transformer import TextDecoder

ROWS = 4  # fewer are filled up to this many with zeros: oneDNN takes longer for one row than for four


class PackedLinear(nn.Module):
    """`nn.Linear` for fp32 on a CPU, without gradients."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.bias = None if bias is None else bias.detach()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), ROWS)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        n = len(rows)
        if n < ROWS:
            rows = F.pad(rows, (0, 0, 0, ROWS - n))
        found = torch.ops.mkldnn._linear_pointwise(rows, self.packed, self.bias, "none", [], "")[:n]
        return found.view(*x.shape[:-1], found.shape[-1])


class PackedDecoder(TextDecoder):
    """Another decoder with its matrices packed, for decoding alone. What that one learns later it does not follow."""

    def __init__(self, decoder: TextDecoder) -> None:
        with blank():
            super().__init__(decoder.dims)
        self.load_state_dict(decoder.state_dict(), assign=True)
        for layer in self.layers:
            for name, part in list(layer.named_children()):
                if isinstance(part, nn.Linear):
                    setattr(layer, name, PackedLinear(part.weight, part.bias))
        self.output = PackedLinear(self.embed.weight)
        self.eval().requires_grad_(False)

    def logits(self, states: Tensor) -> Tensor:
        return self.output(states)


def packed(decoder: TextDecoder) -> TextDecoder:
    """The decoder as it decodes fastest: packed, if it is in fp32 on a CPU and this torch can do so; else as it is.

    Packing takes as much memory as the decoder has.
    """
    weight = decoder.embed.weight
    if weight.device.type == "cpu" and weight.dtype == torch.float32 and can_pack():
        return PackedDecoder(decoder)
    return decoder


def can_pack() -> bool:
    """Whether this torch has oneDNN's products, which it does not document and not every platform has."""
    weight, bias, x = torch.ones(8, 16), torch.arange(8.0), torch.ones(1, 16)
    try:
        found = PackedLinear(weight, bias)(x)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.allclose(found, F.linear(x, weight, bias))
