"""How fast the built-in space is: loading it, and sentences a second.

python -m benchmarks.space [--runs 5]
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch

from engine.segmentation import segment
from engine.spaces import load_space

from .editing import SAMPLES, processor

BATCH = 16
TOKENS = 12  # of the sentences that are decoded, about


def median(run: Callable[[], object], runs: int) -> float:
    """Median seconds of `runs` calls, after one that warms up."""
    run()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    print(f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"loading: {median(load_space, runs):.2f} s (aim: 1)")
    space = load_space()
    text = " ".join(path.read_text("utf-8") for path in sorted(SAMPLES.glob("*.txt")))
    pieces = [piece.text for piece in segment(text, "eng_Latn", lambda _: True).pieces]
    usual = sorted(dict.fromkeys(pieces), key=lambda sentence: abs(space.count_tokens(sentence) - TOKENS))[: 2 * BATCH]
    tokens = statistics.fmean(map(space.count_tokens, usual))
    vectors = space.encode(usual, "eng_Latn")
    for name, run, aim in (
        ("encoding", lambda: [space.encode(usual[i : i + BATCH], "eng_Latn") for i in (0, BATCH)], ""),
        (
            "decoding greedily",
            lambda: [space.decode(vectors[i : i + BATCH], "eng_Latn") for i in (0, BATCH)],
            " (aim: 40)",
        ),
    ):
        rate = len(usual) / median(run, runs)
        print(f"{name}: {rate:.0f} sentences of {tokens:.0f} tokens a second, {BATCH} at once{aim}")


if __name__ == "__main__":
    main()
