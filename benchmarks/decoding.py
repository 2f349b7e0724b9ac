"""How fast few concepts are decoded: `python -m benchmarks.decoding`.

With packed matrices (`engine.spaces.packed`) and with plain ones, in turn in the same run, for both sizes of the
built-in space's decoder with random weights. `FIRST_DECODER` plain is what the first edition was measured with.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator

import torch

from engine import Search
from engine.spaces.decoding import Decoding, Limits
from engine.spaces.packed import packed
from engine.spaces.transformer import FIRST_DECODER, WHISPER_DECODER, Dimensions, TextDecoder

from .editing import processor

LENGTH = 13  # tokens of a sentence, its end included; random weights never end one sooner
SEARCHES = {
    "1 greedily": (1, Search()),
    "4 greedily": (4, Search()),
    "24 greedily": (24, Search()),
    "1 with 6 beams": (1, Search("beam", beams=6)),
    "4 with 6 beams": (4, Search("beam", beams=6)),
}


def decoder(dims: Dimensions) -> TextDecoder:
    """Random weights that write various tokens."""
    torch.manual_seed(0)
    made = TextDecoder(dims).eval().requires_grad_(False)
    made.embed.weight.mul_(dims.width**-0.5)
    return made


def works(dims: Dimensions, quick: bool) -> Iterator[Callable[[], object]]:
    """Each of the searches."""
    own = decoder(dims)
    limits = Limits(torch.zeros(dims.vocabulary, dtype=torch.bool), torch.rand(6, dims.vocabulary) < 0.25)
    decoding = Decoding(packed(own) if quick else own, 3, (0, 1, 2), limits)
    for rows, search in SEARCHES.values():
        concepts = torch.randn(rows, dims.concept, generator=torch.Generator().manual_seed(1))

        @torch.inference_mode()
        def work(concepts: torch.Tensor = concepts, search: Search = search) -> object:
            return decoding(concepts, 0, search, LENGTH)

        yield work


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    print(f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{LENGTH} tokens a sentence; median and least of {runs} runs, in ms; ratios are those of the least")
    sizes = {"first": FIRST_DECODER, "whisper": WHISPER_DECODER}
    names = [(size, quick) for size in sizes for quick in (False, True)]
    kinds = [works(sizes[size], quick) for size, quick in names]
    print(f"{'':16}" + "".join(f"{size + (' packed' if quick else ' plain'):>18}" for size, quick in names), end="")
    print(f"{'first: gain':>14}{'whisper: gain':>15}{'packed whisper / plain first':>31}")
    for name, *own in zip(SEARCHES, *kinds, strict=True):
        taken: list[list[float]] = [[] for _ in own]
        for _ in range(runs + 1):
            for times, work in zip(taken, own, strict=True):
                began = time.perf_counter()
                work()
                times.append((time.perf_counter() - began) * 1000)
        least = [min(times[1:]) for times in taken]
        columns = [f"{statistics.median(times[1:]):9.0f}{low:9.0f}" for times, low in zip(taken, least, strict=True)]
        gains = f"{least[0] / least[1]:14.2f}{least[2] / least[3]:15.2f}{least[3] / least[0]:31.2f}"
        print(f"{name:16}" + "".join(columns) + gains, flush=True)


if __name__ == "__main__":
    main()
