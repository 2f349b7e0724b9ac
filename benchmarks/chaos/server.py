"""The program's process as whoever troubles it has it in hand."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import socket
import time
from collections.abc import MutableSequence
from contextlib import suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

# Imports take seconds and are done once; each program after that is a fork, which takes a tenth of one.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["benchmarks.chaos.program"])

STARTING = 60.0  # seconds, at most


def run(kind: str, port: int, db: str, tabs: int, log: str, shared: MutableSequence[float]) -> None:
    from . import program  # in the process that is forked from, and not here

    program.serve(kind, port, db, tabs, log, shared)


class Server:
    """One program after another on the same port."""

    def __init__(self, folder: Path, kind: str = "desk", tabs: int = 100) -> None:
        self.kind = kind
        self.tabs = tabs  # that it keeps
        self.db = folder / "documents.db"
        self.log = folder / "log.txt"
        self.starts = 0
        self.shared = CONTEXT.RawArray("d", 3)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]
        self._process: BaseProcess | None = None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    @property
    def dying(self) -> bool:
        """Whether it died, or is about to, because it was told to."""
        return bool(self.shared[2])

    @property
    def said(self) -> str:
        """In its terminal."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self.shared[1:] = [0, 0]
        self.starts += 1
        values = (self.kind, self.port, str(self.db), self.tabs, str(self.log), self.shared)
        self._process = CONTEXT.Process(target=run, args=values, daemon=True)
        self._process.start()
        until = time.monotonic() + STARTING
        while self.alive and time.monotonic() < until:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.01)
        raise RuntimeError(f"The program did not start: {self.said[-2000:]}")

    def end(self, how: int = signal.SIGKILL) -> None:
        """SIGINT is Ctrl+C in its terminal, SIGTERM a system that shuts down, SIGKILL the end of everything."""
        if self._process is None:
            return
        if self.alive:
            self.signal(how)
            self._process.join(10)
        if self.alive:  # acts may be under way that nothing can interrupt
            self._process.kill()
        self._process.join()
        self._process = None

    def signal(self, what: int) -> None:
        """Nothing where it has ended."""
        with suppress(ProcessLookupError):
            if self._process and self._process.pid and self.alive:
                os.kill(self._process.pid, what)

    def limit(self, size: int = resource.RLIM_INFINITY) -> None:
        """No file of the program can grow beyond `size`: what a full disk is to it."""
        with suppress(ProcessLookupError):
            if self._process and self._process.pid and self.alive:
                resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def move_clock(self, seconds: float) -> None:
        self.shared[0] = seconds

    def die_after(self, moments: int) -> None:
        """See `program.count_moments`; 0 for never."""
        self.shared[1] = moments
