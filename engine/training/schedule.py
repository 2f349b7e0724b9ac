"""How a run's learning rate follows the time or the steps that it has."""

from __future__ import annotations

import time
from dataclasses import dataclass

from ..errors import TrainingError

PAUSE = 20.0  # a step that takes so many times the usual was a pause: a stopped process, a machine asleep


@dataclass(frozen=True)
class Schedule:
    """Up, constant, then linear to zero. A run has a budget of minutes, or where there is none a number of steps."""

    steps: int
    budget: float | None  # minutes
    warmup: float = 0.02  # share of the run in which the rate rises
    decay: float = 0.5  # share of the run, at its end, in which it falls to zero

    def done(self, step: int, seconds: float) -> float:
        """The share of the run that is over, after so many steps and seconds of training."""
        return min(1.0, seconds / (self.budget * 60) if self.budget else step / self.steps)

    def rate(self, done: float) -> float:
        """The learning rate's share of its peak."""
        return max(0.0, min(1.0, (done + 1e-3) / self.warmup, (1 - done) / self.decay))

    def checked(self) -> Schedule:
        """Itself. Raises TrainingError where there is neither time nor a step to train in."""
        if (self.steps if self.budget is None else self.budget) <= 0:
            raise TrainingError("There is no time to train in; give --budget some minutes, or --steps at least 1.")
        return self


class Clock:
    """Seconds spent in training: what lies between two steps, without pauses."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds, self.usual, self.last = seconds, 0.0, time.monotonic()

    def tick(self) -> None:
        """A step has ended."""
        now = time.monotonic()
        spent = now - self.last
        if self.usual and spent > max(60.0, PAUSE * self.usual):
            spent = self.usual
        self.usual = spent if not self.usual else 0.9 * self.usual + 0.1 * spent
        self.seconds, self.last = self.seconds + spent, now

    def skip(self) -> None:
        """What went on since the last step was no training (a validation, a checkpoint)."""
        self.last = time.monotonic()
