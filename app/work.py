"""Work that takes a while: done in a thread, asked after from the page, stopped on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from engine import Progress
from engine.errors import Cancelled

T = TypeVar("T")

PATIENCE = 180.0  # seconds after which work is stopped that nobody asks after: browsers wake a hidden tab each minute


class Work(Generic[T]):
    """`task(progress)` in a thread of its own.

    After `stop`, or when nobody has asked after it for PATIENCE seconds, the task's next call of its progress raises
    Cancelled.
    """

    def __init__(self, task: Callable[[Progress], T]) -> None:
        self.progress = (0, 0)  # (done, total); a total of 0 is unknown
        self.stopped = False
        self._asked = time.monotonic()
        self._finished = threading.Event()
        self._result: T | None = None
        self._error: BaseException | None = None
        threading.Thread(target=self._run, args=[task], daemon=True).start()

    def _run(self, task: Callable[[Progress], T]) -> None:
        try:
            self._result = task(self._report)
        except BaseException as error:  # it is raised again where the result is asked for
            self._error = error
        finally:
            self._finished.set()

    def _report(self, done: int, total: int) -> None:
        if self.stopped or time.monotonic() - self._asked > PATIENCE:
            raise Cancelled
        self.progress = (done, total)

    @property
    def finished(self) -> bool:
        return self._finished.is_set()

    def wait(self, seconds: float) -> bool:
        """Ask after it: whether it is finished after at most so many seconds."""
        self._asked = time.monotonic()
        return self._finished.wait(seconds)

    def stop(self) -> None:
        self.stopped = True

    def result(self) -> T:
        """What the finished task returned. Raises what it raised."""
        if self._error:
            raise self._error
        return self._result  # type: ignore[return-value]
