"""python -m benchmarks.chaos [--minutes 30] [--seed 0]: ends with 1 where something was not as it was said to be."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from .driver import Chaos

ROUNDS = 25  # with one database
PAGE = 5  # of so many databases one is that of the page itself, whose program takes longer to start


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    until = time.monotonic() + 60 * chosen.minutes
    seed, rounds, acts, wrong = chosen.seed, 0, 0, 0
    troubles: Counter[str] = Counter()
    said: Counter[str] = Counter()
    answered: Counter[str] = Counter()
    while time.monotonic() < until:
        kind = "page" if seed % PAGE == PAGE - 1 else "desk"
        with tempfile.TemporaryDirectory() as folder, Chaos(Path(folder), seed, kind) as chaos:
            while chaos.rounds < ROUNDS and not chaos.ledger.wrong and time.monotonic() < until:
                chaos.round()
            for what in chaos.ledger.wrong:
                print(f"Seed {seed} ({kind}), round {chaos.rounds}: {what}", flush=True)
            wrong += len(chaos.ledger.wrong)
            rounds += chaos.rounds
            acts += chaos.acts
            troubles += chaos.troubles
            said += chaos.ledger.said
            answered += chaos.ledger.answered
        print(
            f"Seed {seed} ({kind}): {chaos.rounds} rounds, {chaos.acts} acts, {chaos.server.starts} starts.", flush=True
        )
        seed += 1
    for counts in (troubles, answered, said):
        print(*(f"{count:7} {what}" for what, count in counts.most_common()), sep="\n")
    print(f"{rounds} rounds, {acts} acts, {wrong} wrong.")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
