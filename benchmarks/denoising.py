"""How fast the two towers write a concept: `python -m benchmarks.denoising`.

Against the way of the published generator, on the same weights in the same run: at every denoising step it computes
the keys and values of the whole context, the modulations of the timestep and self-attention's queries and keys again,
for the guided and the unguided half of the batch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.lcm import Reading, Sampling
from engine.lcm.blocks import attend
from engine.lcm.diffusion import denoise_path
from engine.lcm.two_tower import DenoiserBlock, TwoTower
from engine.lcm.weights import dimensions

RUNS = 15


def block(self: DenoiserBlock, x: Tensor, time_: Tensor, states: Tensor, mask: Tensor) -> Tensor:
    """A denoiser block [M, 1, width] with everything computed anew."""
    parts = self.modulation(F.silu(time_)).chunk(9, -1)
    h = self.norm1(x) * (1 + parts[1]) + parts[0]
    q, k, v = self.attention.qkv(h).unflatten(-1, (3, self.attention.heads, -1)).permute(2, 0, 3, 1, 4)
    x = x + parts[2] * self.attention.out(attend(q, k, v, None))
    h = self.norm2(x) * (1 + parts[4]) + parts[3]
    x = x + parts[5] * self.cross(h, *self.cross.keys_values(states), mask)
    h = self.norm3(x) * (1 + parts[7]) + parts[6]
    return x + parts[8] * self.feed(h)


@torch.inference_mode()
def published(model: TwoTower, documents: Tensor, start: Tensor, how: Sampling) -> Tensor:
    """The next concepts [N, D] of documents [N, T, D]; the context itself is read once, as there."""
    states = model.encode(documents)
    states = torch.cat([states, torch.zeros_like(states)])
    seen = torch.ones(len(states), 1, 1, states.shape[1], dtype=torch.bool)
    seen[len(documents) :, :, :, 1:] = False
    denoiser = model.denoiser

    def predict(x: Tensor, i: int, t: int) -> tuple[Tensor, Tensor]:
        noisy = torch.cat([x, x])[:, None]
        hidden, time_ = denoiser.entry(noisy), denoiser.time(torch.full((len(noisy), 1), t))
        for one in denoiser.blocks:
            hidden = block(one, hidden, time_, states, seen)
        with_document, without = denoiser.exit(denoiser.norm(hidden))[:, 0].chunk(2)
        return with_document, without

    *_, concept = denoise_path(model.schedule, how, start, predict)
    return concept


def seconds(*works: Callable[[], object]) -> list[float]:
    """The median of each of several works, done in turn, so that all see the machine in the same moods."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(RUNS + 1):
        for own, work in zip(taken, works, strict=True):
            began = time.perf_counter()
            work()
            own.append(time.perf_counter() - began)
    return [statistics.median(own[1:]) for own in taken]


def main() -> None:
    torch.manual_seed(0)
    model = TwoTower(dimensions("two-tower")).eval()
    for one in model.denoiser.blocks:  # as after training: modulations that do something
        torch.nn.init.normal_(one.modulation.weight, std=0.02)
    how = Sampling()
    print(f"Two-Tower, tiny, {how.steps} steps with guidance, {torch.get_num_threads()} threads; medians of {RUNS}")
    print(f"{'context':>8}{'documents':>11}{'here, s':>10}{'published, s':>14}{'ratio':>7}{'difference':>12}")
    for context in (20, 60, 127):
        for rows in (1, 8, 16):
            documents = np.random.default_rng(0).standard_normal((rows, context, 512)).astype(np.float32)
            start = torch.randn(rows, 512)
            reading = Reading(model, list(documents))

            @torch.inference_mode()
            def here(reading: Reading = reading, start: Tensor = start) -> Tensor:
                *_, concept = model.denoise_path(reading.memory, start, how)
                return concept

            normal = model.normalizer.normalize(torch.from_numpy(documents))
            fast, slow = seconds(here, lambda d=normal, s=start: published(model, d, s, how))  # type: ignore[misc]
            apart = float((here() - published(model, normal, start, how)).abs().max())
            print(f"{context:>8}{rows:>11}{fast:>10.3f}{slow:>14.3f}{slow / fast:>7.1f}{apart:>12.1e}")


if __name__ == "__main__":
    main()
