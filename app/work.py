"""Work that takes a while: done in a thread, followed from the page, stopped on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import TypeVar

from engine import Progress
from engine.errors import Cancelled

T = TypeVar("T")

QUIET = 0.4  # seconds before progress is shown: most edits are done by then
EVERY = 0.2  # seconds between two looks at it


def follow(task: Callable[[Progress], T], stop: threading.Event) -> Generator[tuple[int, int], None, T]:
    """Run `task(progress)` in a thread, yield (done, total) while it goes on, return its result or raise its error.

    Once `stop` is set, the task's next call of its progress raises Cancelled.
    """
    state = (0, 0)
    finished = threading.Event()
    results: list[T] = []
    errors: list[BaseException] = []

    def progress(done: int, total: int) -> None:
        nonlocal state
        if stop.is_set():
            raise Cancelled
        state = (done, total)

    def run() -> None:
        try:
            results.append(task(progress))
        except BaseException as error:
            errors.append(error)
        finally:
            finished.set()

    threading.Thread(target=run, daemon=True).start()
    try:
        wait = QUIET
        while not finished.wait(wait):
            yield state
            wait = EVERY
    except GeneratorExit:  # the browser tab is gone
        stop.set()
        raise
    if errors:
        raise errors[0]
    return results[0]
