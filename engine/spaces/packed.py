"""A decoder whose matrices are laid out for few rows on a CPU: one sentence being decoded, or a handful, or beams.

A step of so few rows costs what reading the weights costs. `x @ weight.T` reads them at a third or less of the speed
that memory has (MKL on an AMD EPYC, 2 to 24 rows); oneDNN reads its own blocks of them nearly at full speed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .transformer import TextDecoder

PAIR = 2  # rows up to which a tall matrix is best used as it is: weight @ x.T
BLOCK = 4  # rows that oneDNN needs to do well; fewer are filled up with zeros


class PackedLinear(nn.Module):
    """`nn.Linear` without gradients; the weight is shared with the model it comes from, its packed copy is not."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = weight.detach()
        self.bias = weight.new_zeros(len(weight)) if bias is None else bias.detach()
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight, BLOCK)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        n = len(rows)
        outputs, inputs = self.weight.shape
        if n <= PAIR and outputs >= inputs:
            # A pair, even if it is one row: MKL is twice as fast with a matrix of two columns as with a vector.
            found = torch.addmm(self.bias[:, None], self.weight, filled(rows, PAIR).T)[:, :n].T.contiguous()
        else:
            found = torch.ops.mkldnn._linear_pointwise(filled(rows, BLOCK), self.packed, self.bias, "none", [], "")[:n]
        return found.view(*x.shape[:-1], outputs)


def filled(rows: Tensor, least: int) -> Tensor:
    """Rows [N, D] with zeros after them, so that there are at least so many."""
    return F.pad(rows, (0, 0, 0, least - len(rows))) if len(rows) < least else rows


class PackedDecoder(TextDecoder):
    """The same decoder with packed matrices, for decoding alone. It does not follow the other's training."""

    def __init__(self, decoder: TextDecoder) -> None:
        with torch.device("meta"):
            super().__init__(decoder.dims)
        self.load_state_dict(decoder.state_dict(), assign=True)
        for layer in self.layers:
            for name, part in list(layer.named_children()):
                if isinstance(part, nn.Linear):
                    setattr(layer, name, PackedLinear(part.weight, part.bias))
        self.output = PackedLinear(self.embed.weight)
        self.eval()

    def logits(self, states: Tensor) -> Tensor:
        return self.output(states)


def packed(decoder: TextDecoder) -> TextDecoder:
    """The decoder as it decodes fastest: packed on a CPU in fp32, if this torch can do so, and otherwise as it is.

    Packing takes as much memory as the decoder has.
    """
    weight = decoder.embed.weight
    if weight.device.type != "cpu" or weight.dtype != torch.float32 or not can_pack():
        return decoder
    return PackedDecoder(decoder)


def can_pack() -> bool:
    """Whether this torch has oneDNN and its products, which are no public part of torch, and they are right."""
    weight, bias = torch.linspace(-1, 1, 64 * 32).view(64, 32), torch.ones(64)
    x = torch.linspace(-1, 1, 5 * 32).view(5, 32)
    try:
        found = PackedLinear(weight, bias)(x)
    except (AttributeError, RuntimeError, TypeError):
        return False
    return torch.allclose(found, F.linear(x, weight, bias), atol=1e-4)
