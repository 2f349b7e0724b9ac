"""How a run's weights follow their gradients: Muon for matrices that multiply, AdamW for all else.

Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) makes each matrix's averaged gradient orthogonal, so that
all its directions learn alike. Its step is scaled to the size of AdamW's (Liu et al. 2025, arXiv 2502.16982, section
2.2), so that one learning rate serves both. Processes share that work: each does some of the matrices.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

MOMENTUM = 0.95
DECAY = 0.01  # of weights, in shares of the learning rate
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # of the quintic that drives singular values towards 1 (Jordan et al.)


class Weights:
    """The fp32 weights of a module that computes in bf16, in one vector, with their average over the steps.

    The module's own weights and gradients become views of two bf16 vectors, so that copying and summing over
    processes are one operation each.
    """

    def __init__(self, module: nn.Module, peak: float) -> None:
        self.module, self.peak = module, peak
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


class Matrix:
    """One matrix in the weights: itself, its gradient and the average of that."""

    def __init__(self, part: Weights, name: str) -> None:
        place, shape = part.places[name]
        self.exact, self.slope = part.exact[place].view(shape), part.slope[place].view(shape)
        self.momentum = torch.zeros_like(self.exact)
        self.peak = part.peak

    def direction(self) -> Tensor:
        """Where to go (Nesterov's look ahead, made orthogonal), of the size that AdamW's steps usually have."""
        ahead = self.slope.lerp(self.momentum, MOMENTUM)
        return orthogonal(ahead) * (0.2 * max(ahead.shape) ** 0.5)


class Optimizer:
    """Muon and AdamW over the weights of some modules."""

    def __init__(self, parts: list[Weights], rank: int = 0, processes: int = 1) -> None:
        self.rank, self.processes = rank, processes
        self.matrices: list[Matrix] = []
        groups = []
        for part in parts:
            others = []
            for name, (place, shape) in part.places.items():
                if multiplies(name, shape):
                    self.matrices.append(Matrix(part, name))
                else:
                    weight = nn.Parameter(part.exact[place])
                    weight.grad = part.slope[place]
                    others.append(weight)
            groups.append({"params": others, "peak": part.peak})
        self.adamw = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), weight_decay=DECAY, fused=True)
        loads = [0] * processes
        self.owners = []
        for matrix in self.matrices:
            self.owners.append(loads.index(min(loads)))
            loads[self.owners[-1]] += matrix.exact.numel()
        total = sum(matrix.exact.numel() for matrix in self.matrices)
        device = parts[0].exact.device
        self.found = torch.zeros(total, dtype=torch.bfloat16, device=device)

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Follow the parts' slopes by `rate` of their peak learning rates."""
        for group in self.adamw.param_groups:
            group["lr"] = group["peak"] * rate
        self.adamw.step()
        directions = self.found.zero_().split([matrix.exact.numel() for matrix in self.matrices])
        for matrix, owner, direction in zip(self.matrices, self.owners, directions, strict=True):
            matrix.momentum.lerp_(matrix.slope, 1 - MOMENTUM)
            if owner == self.rank:
                direction.copy_(matrix.direction().flatten())
        if self.processes > 1:
            torch.distributed.all_reduce(self.found)
        for matrix, direction in zip(self.matrices, directions, strict=True):
            by = matrix.peak * rate
            matrix.exact.mul_(1 - by * DECAY).add_(direction.view_as(matrix.exact), alpha=-by)

    def state(self) -> dict[str, Any]:
        return {"adamw": self.adamw.state_dict(), "momenta": [matrix.momentum for matrix in self.matrices]}

    def restore(self, state: dict[str, Any]) -> None:
        """Raises ValueError for the state of other modules. Peaks are this run's."""
        peaks = [group["peak"] for group in self.adamw.param_groups]
        self.adamw.load_state_dict(state["adamw"])
        for group, peak in zip(self.adamw.param_groups, peaks, strict=True):
            group["peak"] = peak
        for matrix, momentum in zip(self.matrices, state["momenta"], strict=True):
            matrix.momentum.copy_(momentum)


def multiplies(name: str, shape: torch.Size) -> bool:
    """Whether a weight is a matrix that states go through, rather than a table that they are looked up in."""
    return len(shape) == 2 and min(shape) >= 16 and not name.startswith(("embed", "positions", "languages"))


def orthogonal(matrix: Tensor) -> Tensor:
    """About the nearest matrix with singular values of 1, in bf16: five steps of a Newton-Schulz iteration."""
    a, b, c = NEWTON_SCHULZ
    x = matrix.bfloat16()
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x
