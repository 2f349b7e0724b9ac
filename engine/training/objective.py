"""What the concept space is trained for: SONAR's objective (arXiv 2308.11466, section 3) and a contrastive loss."""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..spaces.transformer import Dimensions, TextDecoder, TextEncoder
from .batches import Batch

ROWS = {"cpu": 128, "cuda": 8192}  # of the softmax at once: what a core's cache holds, or what a GPU is busy with


class TokenLoss(torch.autograd.Function):
    """Mean cross-entropy of states [N, width] @ weight.T + shift against targets [N], keeping only bf16 probabilities.

    The fp32 log-softmax over the vocabulary would be a fifth of a step on a CPU.
    """

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, shift: Tensor, targets: Tensor) -> Tensor:
        states, weight = states.bfloat16(), weight.bfloat16()
        probabilities = torch.addmm(shift.bfloat16(), states, weight.T)
        loss = states.new_zeros((), dtype=torch.float32)
        rows = ROWS.get(states.device.type, 128)
        for logits, wanted in zip(probabilities.split(rows), targets.split(rows), strict=True):
            top = logits.amax(1, keepdim=True)
            chosen = logits.gather(1, wanted[:, None]).float()
            total = logits.sub_(top).exp_().sum(1, keepdim=True, dtype=torch.float32)
            logits.mul_(total.reciprocal().to(logits.dtype))
            loss += (total.log() + top.float() - chosen).sum()
        probabilities[torch.arange(len(targets), device=targets.device), targets] -= 1
        ctx.save_for_backward(states, weight, probabilities)
        return loss / len(targets)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        states, weight, difference = ctx.saved_tensors
        scale = (grads[0] / len(states)).to(states.dtype)
        learnt = ctx.needs_input_grad[1]  # not where the decoder is frozen
        return (difference @ weight) * scale, (difference.T @ states) * scale if learnt else None, None, None


class Shortlist:
    """The pieces that a step's softmax runs over, a quarter of the vocabulary: the frequent ones, those that the
    batch wants, and a draw of the others, each of which stands for many (sampled softmax; Jean et al. 2015,
    arXiv 1412.2007, section 3).
    """

    def __init__(self, counts: np.ndarray, frequent: int, drawn: int) -> None:
        self.frequent = torch.zeros(len(counts), dtype=torch.bool)
        self.frequent[torch.from_numpy(counts.argsort(kind="stable")[::-1][:frequent].copy())] = True
        self.drawn = drawn

    def draw(self, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Pieces [K], what is added to the logit of each [K], and where among them the targets [N] stand [N]."""
        kept = self.frequent.clone()
        kept[targets] = True
        rest = (~kept).nonzero()[:, 0]
        some = rest[torch.randperm(len(rest), generator=generator)[: self.drawn]]
        pieces = torch.cat([kept.nonzero()[:, 0], some])
        shift = torch.zeros(len(pieces))
        shift[len(pieces) - len(some) :] = math.log(max(1, len(rest)) / max(1, len(some)))
        place = torch.zeros(len(kept), dtype=torch.long)
        place[pieces] = torch.arange(len(pieces))
        return pieces, shift, place[targets]


class SpaceModel(nn.Module):
    """Encoder and decoder, trained together."""

    def __init__(self, encoder: Dimensions, decoder: Dimensions) -> None:
        super().__init__()
        self.encoder, self.decoder = TextEncoder(encoder), TextDecoder(decoder)

    def losses(
        self,
        batch: Batch,
        shortlist: Shortlist,
        noise: float,
        temperature: float,
        generator: torch.Generator,
        frozen: bool = False,
    ) -> Tensor:
        """Token cross-entropy (nats), alignment (mean square of translations' difference), and contrast (nats), [3].

        Contrast is how hard it is to tell a sentence's translation from those of the batch's other sentences. Nothing
        in it waits for the device. The generator is a CPU's; it seeds the device's own. A `frozen` encoder gets no
        gradient.
        """
        device = self.decoder.embed.weight.device

        def there(array: np.ndarray | Tensor) -> Tensor:
            tensor = torch.from_numpy(array) if isinstance(array, np.ndarray) else array
            return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor

        # Drawn on the CPU, so that every device trains on the same draw.
        pieces, shift, wanted = shortlist.draw(torch.from_numpy(batch.wanted), generator)
        own = torch.Generator(device).manual_seed(int(torch.randint(2**62, (), generator=generator)))
        with torch.no_grad() if frozen else nullcontext():
            z = self.encoder(there(batch.sources))
        said = z.index_select(0, there(batch.rows))
        scale = noise * torch.rand(len(said), 1, generator=own, device=device)
        noisy = said + scale * torch.randn(said.shape, generator=own, device=device)
        conditions = self.decoder.condition(noisy.to(self.decoder.embed.weight.dtype))
        states = self.decoder.states(there(batch.inputs), conditions, there(batch.langs))
        states = states.flatten(0, 1).index_select(0, there(batch.places))
        weight = functional.embedding(there(pieces), self.decoder.embed.weight)
        tokens = TokenLoss.apply(states, weight, there(shift), there(wanted))
        if not len(batch.pairs) or frozen:
            return torch.stack([tokens, tokens.new_zeros(()), tokens.new_zeros(())])
        first = there(batch.pairs)
        left, right = z.index_select(0, first).float(), z.index_select(0, first + 1).float()
        return torch.stack([tokens, (left - right).square().mean(), contrast(left, right, temperature)])


def contrast(left: Tensor, right: Tensor, temperature: float) -> Tensor:
    """InfoNCE (van den Oord et al. 2018, arXiv 1807.03748, equation 4) of translations [N, D] and [N, D], both ways."""
    likeness = functional.normalize(left, dim=1) @ functional.normalize(right, dim=1).T / temperature
    own = torch.arange(len(left), device=left.device)
    return (functional.cross_entropy(likeness, own) + functional.cross_entropy(likeness.T, own)) / 2
