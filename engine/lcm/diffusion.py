"""Diffusion of concepts: noise schedules, what a network predicts of them, and DDIM back from noise to a concept.

Large Concept Models, arXiv 2412.08821, section 2.3.2; DDIM: Song et al., arXiv 2010.02502; zero terminal SNR,
trailing timesteps and rescaled guidance: Lin et al., arXiv 2305.08891. Concepts are normalized ones here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

# From noisy concepts [N, D] at timestep t (step number i of the path): what the network says with the document in
# sight and, where guidance is wanted, without it. Both [N, D].
Predict = Callable[[Tensor, int, int], tuple[Tensor, Tensor | None]]


BLIND = 0.3  # how often a concept is predicted from the document alone in training


def draw_levels(real: Tensor, count: int, blind: int) -> Tensor:
    """How far each of the concepts `real` [N, T] that are trained on has come, of `count` levels [N, T]: often the
    `blind` one, at which nothing is there of the concept, else any.

    A concept has so many components that a little of it gives it away: only where nothing is there of it must a
    network learn from the document, and even draws would teach it that at one level of many.
    """
    level = torch.randint(count, real.shape, device=real.device)
    return torch.where(torch.rand(real.shape, device=real.device) < BLIND, blind, level)


@dataclass(frozen=True)
class Schedule:
    """How noise is added over `steps` steps, and what the network predicts."""

    curve: Literal["cosine", "sigmoid", "linear"] = "cosine"
    steps: int = 100
    prediction: Literal["sample", "epsilon", "v"] = "sample"
    zero_terminal_snr: bool = True  # nothing of the concept is left after the last step
    alpha: float = 1.5  # of the sigmoid curve: its slope
    beta: float = 0.0  # of the sigmoid curve: its shift

    def __post_init__(self) -> None:
        if self.prediction == "epsilon" and self.zero_terminal_snr:
            raise ValueError("The noise alone says nothing of the concept at zero SNR; predict sample or v.")

    @cached_property
    def kept(self) -> Tensor:
        """The share of the concept's variance that is left at each step, [steps] (alpha bar in the papers)."""
        if self.curve == "linear":
            betas = torch.linspace(1e-4, 0.02, self.steps)
        else:
            curve = self.cosine if self.curve == "cosine" else self.sigmoid
            shares = [curve(i / self.steps) for i in range(self.steps + 1)]
            betas = torch.tensor([min(1 - b / a, 0.999) for a, b in itertools.pairwise(shares)])
        kept = (1 - betas).cumprod(0)
        if self.zero_terminal_snr:  # arXiv 2305.08891, algorithm 1
            root = kept.sqrt()
            kept = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))).square()
        return kept

    def amplitudes(self, t: int) -> tuple[float, float]:
        """What the concept and the noise are multiplied with after t steps."""
        kept = float(self.kept[t])  # a plain number: with a tensor each product would cost as much as a small matrix's
        return math.sqrt(kept), math.sqrt(1 - kept)

    @staticmethod
    def cosine(t: float) -> float:
        """Nichol & Dhariwal, arXiv 2102.09672, equation 17."""
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    def sigmoid(self, t: float) -> float:
        """arXiv 2412.08821, equation 14."""
        t = min(max(t, 1e-32), 1 - 1e-7)
        return 1 / (1 + math.exp(self.alpha * math.log(t / (1 - t)) - self.beta))

    def draw(self, real: Tensor) -> Tensor:
        """Timesteps [N, T] to train concepts `real` [N, T] at: often the last, else any."""
        return draw_levels(real, self.steps, blind=self.steps - 1)

    def add_noise(self, concepts: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Concepts [..., D] as they are after t [...] steps."""
        kept = self.kept.to(concepts.device)[t][..., None]
        return kept.sqrt() * concepts + (1 - kept).sqrt() * noise

    def target(self, concepts: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What the network must predict of them, [..., D]."""
        kept = self.kept.to(concepts.device)[t][..., None]
        if self.prediction == "sample":
            return concepts
        return noise if self.prediction == "epsilon" else kept.sqrt() * noise - (1 - kept).sqrt() * concepts

    def concept(self, predicted: Tensor, noisy: Tensor, t: int) -> Tensor:
        """The clean concepts [N, D] that a prediction stands for."""
        signal, noise = self.amplitudes(t)
        if self.prediction == "sample":
            return predicted
        if self.prediction == "epsilon":
            return (noisy - noise * predicted) / signal
        return signal * noisy - noise * predicted

    def noise(self, predicted: Tensor, noisy: Tensor, t: int) -> Tensor:
        """The noise [N, D] that a prediction stands for."""
        signal, noise = self.amplitudes(t)
        if self.prediction == "epsilon":
            return predicted
        if self.prediction == "v":
            return signal * predicted + noise * noisy
        return (noisy - signal * predicted) / noise

    def timesteps(self, count: int) -> list[int]:
        """`count` timesteps from the noisiest on, evenly spaced ("trailing", arXiv 2305.08891, table 2)."""
        if not 1 <= count <= self.steps:
            raise ValueError(f"Between 1 and {self.steps} denoising steps can be taken, not {count}.")
        return [int(self.steps - i * self.steps / count) - 1 for i in range(count)]


@dataclass(frozen=True)
class Sampling:
    """How a diffusion model writes; the defaults are the paper's choices (arXiv 2412.08821, section 2.4.1), but for the
    guidance: at the 3 of its large models the small ones that ship soon say the same words over and over.
    """

    steps: int = 40
    guidance: float = 1.5  # weight of the document against no document; 1 is no guidance
    rescale: float = 0.7  # how far guided noise gets back the spread of unguided noise (arXiv 2305.08891, section 3.4)
    epsilon_scaling: float = 1.00045  # predicted noise is divided by it (arXiv 2308.15321)
    noise: float = 0.6  # standard deviation of the noise that the path starts from
    eta: float = 0.0  # fresh noise at each step: 0 is DDIM, 1 DDPM
    threshold: float | None = None  # quantile of dynamic thresholding (arXiv 2205.11487, section 2.3)
    ceiling: float = 6.0  # the largest value that dynamic thresholding leaves


def denoise_path(
    schedule: Schedule, sampling: Sampling, start: Tensor, predict: Predict, fresh: Callable[[], Tensor] | None = None
) -> Iterator[Tensor]:
    """From noise `start` [N, D] to concepts: the estimate of them [N, D] at every step; the last one is the result.

    `fresh` draws the noise [N, D] that each step adds where eta is not 0.
    """
    x, timesteps = start.clamp(-100, 100), schedule.timesteps(sampling.steps)
    for i, t in enumerate(timesteps):
        with_document, without = predict(x, i, t)
        signal, level = schedule.amplitudes(t)
        before, level_before = schedule.amplitudes(timesteps[i + 1]) if i + 1 < len(timesteps) else (1.0, 0.0)
        # At the last timestep there is next to no signal, or none, to tell noise from: Meta's code guides after it.
        if without is None or t == schedule.steps - 1:
            concept = schedule.concept(with_document, x, t)
            noise = schedule.noise(with_document, x, t)
        else:
            noise = guided(schedule.noise(with_document, x, t), schedule.noise(without, x, t), sampling)
            concept = (x - level * noise) / signal
        noise = noise / sampling.epsilon_scaling
        if sampling.threshold is not None:
            concept = thresholded(concept, sampling.threshold, sampling.ceiling)
        yield concept
        deviation = sampling.eta * level_before / level * math.sqrt(1 - (signal / before) ** 2)
        x = before * concept + math.sqrt(max(level_before**2 - deviation**2, 0)) * noise
        if sampling.eta > 0 and fresh is not None:
            x = x + deviation * fresh()
        x = x.clamp(-100, 100)


def guided(noise: Tensor, free: Tensor, sampling: Sampling) -> Tensor:
    """Classifier-free guidance with rescale (arXiv 2305.08891, algorithm 2) of predicted noise [N, D]."""
    mixed = free + sampling.guidance * (noise - free)
    factor = noise.std(-1, keepdim=True) / mixed.std(-1, keepdim=True).clamp_min(1e-6)
    return mixed * (sampling.rescale * factor + (1 - sampling.rescale))


def thresholded(concept: Tensor, quantile: float, ceiling: float) -> Tensor:
    """Dynamic thresholding (arXiv 2205.11487, section 2.3) of concepts [N, D]."""
    size = concept.abs().quantile(quantile, dim=-1, keepdim=True).clamp(1, ceiling)
    return concept.clamp(-size, size) / size
