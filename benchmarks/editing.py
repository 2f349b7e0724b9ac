"""How long a person waits: medians of the four things that are done most.

python benchmarks/editing.py [--runs 15]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

import engine
from engine.editor import Editor

SAMPLES = Path(__file__).parents[1] / "assets" / "samples"


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def median(run: Callable[[int], object], runs: int) -> tuple[float, float, float]:
    """Median, least and most milliseconds of `runs` calls, after one that warms up."""
    run(-1)
    times = []
    for i in range(runs):
        start = time.perf_counter()
        run(i)
        times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times), min(times), max(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    start = time.perf_counter()
    e = engine.load()
    print(f"{processor()}, {os.cpu_count()} cores, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"engine loaded in {time.perf_counter() - start:.2f} s (imports apart)")

    text = (SAMPLES / "the-monkey-and-the-crocodile.txt").read_text("utf-8")
    document = e.import_text(text, "eng_Latn")
    a, b = document.nodes[0].id, document.nodes[5].id
    # 200 different sentences: the samples over and over, each time with another number in it.
    sentences = [n.text for n in document.nodes]
    long = " ".join(f"{sentences[i % len(sentences)].rstrip('.!?')} {i}." for i in range(200))

    def rewrite(i: int) -> None:
        editor = Editor(e, document)
        editor.rewrite(a, f"The fisherman sold {i + 20} fish at the market this morning.")
        e.project(editor.document.vectors[:1])

    def interpolate(i: int) -> None:
        Editor(e, document).preview_interpolation(a, b, (i % 9 + 1) / 10, "eng_Latn")

    def continue_by_one(i: int) -> None:
        e.continue_(document.vectors[: 8 + i % 8], 1, "eng_Latn", seed=max(i, 0), minimum=1)

    def open_long(i: int) -> None:
        e.project(e.import_text(long, "eng_Latn").vectors)

    rows: list[tuple[str, Callable[[int], object], int, int]] = [
        ("rewrite to new point on the map", rewrite, runs, 150),
        ("interpolation step to new sentence", interpolate, runs, 150),
        ("continue by one", continue_by_one, runs, 300),
        ("open a 200-sentence document", open_long, max(3, runs // 5), 6000),
    ]
    print(f"{'':36}{'median':>10}{'least':>10}{'most':>10}{'aim':>10}   ms")
    for name, run, times, aim in rows:
        middle, least, most = median(run, times)
        print(f"{name:36}{middle:10.0f}{least:10.0f}{most:10.0f}{aim:10d}")


if __name__ == "__main__":
    main()
