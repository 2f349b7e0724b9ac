"""How a run's weights follow their gradients: Muon for matrices that multiply, AdamW for all else.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) makes each matrix's averaged gradient orthogonal, so that
all its directions learn alike. Its step is scaled to the size of AdamW's (Liu et al. 2025, arXiv 2502.16982, section
2.2), so that one learning rate serves both. Processes share that work: each does some of the matrices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

MOMENTUM = 0.95
DECAY = 0.01  # of weights, in shares of the learning rate
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # of the quintic that drives singular values towards 1 (Jordan et al.)


class Weights:
    """The fp32 weights of a module that computes in bf16, in one vector, with their average over the steps.

    `boosts` are factors of the learning rate of parameters whose names contain a word.

    The module's own weights and gradients become views of two bf16 vectors, so that copying and summing over
    processes are one operation each.
    """

    def __init__(self, module: nn.Module, peak: float, boosts: Mapping[str, float] = MappingProxyType({})) -> None:
        self.module, self.peak, self.boosts = module, peak, boosts
        self.exact = nn.utils.parameters_to_vector(module.parameters()).detach().float()
        self.slope = torch.zeros_like(self.exact)
        self.averaged = self.exact.clone()
        self.computing = self.exact.bfloat16()
        self.gradient = torch.zeros_like(self.computing)
        self.places: dict[str, tuple[slice, torch.Size]] = {}  # of what is trained
        module.bfloat16()
        start = 0
        for name, parameter in module.named_parameters():
            place = slice(start, start + parameter.numel())
            if parameter.requires_grad:
                self.places[name] = place, parameter.shape
            parameter.data = self.computing[place].view_as(parameter)
            parameter.grad = self.gradient[place].view_as(parameter)
            start = place.stop

    def take_gradient(self, processes: int) -> Tensor:
        """Move the gradient to `slope`, averaged over the processes; its norm."""
        self.slope.copy_(self.gradient)
        self.gradient.zero_()
        if processes > 1:
            torch.distributed.all_reduce(self.slope)
            self.slope.div_(processes)
        return self.slope.norm()

    def rate(self, name: str) -> float:
        """The peak learning rate of a parameter."""
        return self.peak * math.prod(boost for word, boost in self.boosts.items() if word in name)

    def updated(self, keep: float) -> None:
        """After the optimizer changed the exact weights: average them, and compute with them."""
        self.averaged.lerp_(self.exact, 1 - keep)
        self.computing.copy_(self.exact)

    def state(self) -> dict[str, Tensor]:
        return {"exact": self.exact, "averaged": self.averaged}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Raises ValueError for a state of another shape."""
        if state["exact"].shape != self.exact.shape:
            raise ValueError("a model of another shape")
        self.exact.copy_(state["exact"])
        self.averaged.copy_(state["averaged"])
        self.computing.copy_(self.exact)


class Matrices:
    """Some matrices of one shape [K, rows, columns], in one vector of weights each: their Nesterov momentum, and where
    they go, worked out for all at once.
    """

    def __init__(self, shape: torch.Size) -> None:
        self.shape = shape
        self.exact: list[Tensor] = []
        self.slopes: list[Tensor] = []
        self.peaks: list[float] = []

    def add(self, part: Weights, name: str) -> None:
        place, shape = part.places[name]
        self.exact.append(part.exact[place].view(shape))
        self.slopes.append(part.slope[place].view(shape))
        self.peaks.append(part.rate(name))

    def ready(self) -> None:
        self.momentum = torch.stack([torch.zeros_like(own) for own in self.exact])

    def directions(self, first: int, last: int) -> Tensor:
        """Where matrices `first` to `last` go (made orthogonal), of the size that AdamW's steps usually have."""
        ahead = torch.stack(self.slopes[first:last]).lerp(self.momentum[first:last], MOMENTUM)
        return orthogonal(ahead) * (0.2 * max(self.shape) ** 0.5)


class Optimizer:
    """Muon and AdamW over the weights of some modules."""

    def __init__(self, parts: list[Weights], rank: int = 0, processes: int = 1) -> None:
        self.parts, self.rank, self.processes = parts, rank, processes
        self.groups: dict[torch.Size, Matrices] = {}
        rates: dict[float, list[nn.Parameter]] = {}
        for part in parts:
            for name, (place, shape) in part.places.items():
                if multiplies(name, shape):
                    self.groups.setdefault(shape, Matrices(shape)).add(part, name)
                else:
                    weight = nn.Parameter(part.exact[place])
                    weight.grad = part.slope[place]
                    rates.setdefault(part.rate(name), []).append(weight)
        for group in self.groups.values():
            group.ready()
        groups = [{"params": params, "peak": peak} for peak, params in rates.items()]
        self.adamw = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), weight_decay=DECAY, fused=True)

    @torch.no_grad()
    def step(self, rate: float, bad: Tensor) -> None:
        """Follow the parts' slopes by `rate` of their peak learning rates; not at all where `bad` [] is 1.

        It does not ask what `bad` is: that would make a GPU wait.
        """
        for part in self.parts:  # a gradient that is not finite is left out of the momenta, too
            torch.where(bad > 0, torch.zeros_like(bad), part.slope, out=part.slope)
        self.adamw.found_inf = bad  # type: ignore[attr-defined]  # as a gradient scaler says it
        for group in self.adamw.param_groups:
            group["lr"] = group["peak"] * rate
        self.adamw.step()
        good = 1 - bad
        for matrices in self.groups.values():
            matrices.momentum.lerp_(torch.stack(matrices.slopes), (1 - MOMENTUM) * good)
            count = len(matrices.exact)
            if self.processes > 1:
                found = torch.zeros_like(matrices.momentum, dtype=torch.bfloat16)
                share = range(count * self.rank // self.processes, count * (self.rank + 1) // self.processes)
                if len(share):
                    found[share.start : share.stop] = matrices.directions(share.start, share.stop)
                torch.distributed.all_reduce(found)
            else:
                found = matrices.directions(0, count)
            for exact, direction, peak in zip(matrices.exact, found, matrices.peaks, strict=True):
                by = peak * rate
                exact.mul_(1 - by * DECAY * good).sub_(direction * (by * good))

    def state(self) -> dict[str, Any]:
        return {"adamw": self.adamw.state_dict(), "momenta": [group.momentum for group in self.groups.values()]}

    def restore(self, state: dict[str, Any]) -> None:
        """Raises ValueError for the state of other modules. Peaks are this run's."""
        peaks = [group["peak"] for group in self.adamw.param_groups]
        self.adamw.load_state_dict(state["adamw"])
        for group, peak in zip(self.adamw.param_groups, peaks, strict=True):
            group["peak"] = peak
        for matrices, momentum in zip(self.groups.values(), state["momenta"], strict=True):
            matrices.momentum.copy_(momentum)


def multiplies(name: str, shape: torch.Size) -> bool:
    """Whether a weight is a matrix that states go through, rather than a table that they are looked up in."""
    return len(shape) == 2 and min(shape) >= 16 and not name.startswith(("embed", "positions", "languages"))


def orthogonal(matrices: Tensor) -> Tensor:
    """About the nearest matrices [K, rows, columns] with singular values of 1, in bf16: five steps of a Newton-Schulz
    iteration.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16()
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x
