"""The program under test, in a process of its own that was forked from one in which everything is imported already.

Its clock can be moved and it can be told to die at a certain moment; all else about it is what people run.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import multiprocessing.connection
import os
import runpy
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import MutableSequence
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import uvicorn

import app.desk
import app.view
import engine.store
from app.guard import Guard
from app.page import route
from engine import Engine
from engine.store import Store

from .space import HashSpace

# What the shared numbers are: seconds that the clock is wrong; moments until it dies, 0 for never; 1 as it dies so.
CLOCK, COUNT, DYING = 0, 1, 2
ROOT = Path(__file__).parents[2]


def serve(kind: str, port: int, db: str, tabs: int, log: str, shared: MutableSequence[float]) -> None:
    """`kind` is "page" for app.py itself, "desk" for what it asks without the page and the weights."""
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(out, 1)
    os.dup2(out, 2)
    faulthandler.register(signal.SIGUSR1)  # what its threads are at, where it does not answer
    threading.Thread(target=end_with_parent, daemon=True).start()
    app.desk.TABS = tabs
    move_clock(shared)
    count_moments(shared)
    (page if kind == "page" else desk)(port, db)


def page(port: int, db: str) -> None:
    os.chdir(ROOT)
    main = runpy.run_path("app.py", run_name="program")["main"]
    sys.exit(main(["--port", str(port), "--db", db, "--no-browser"]))


def desk(port: int, db: str) -> None:
    store = Store(db, timeout=0.3)
    server = uvicorn.Server(
        uvicorn.Config(
            Guard("127.0.0.1", [route(Engine(HashSpace()), store)]),
            host="127.0.0.1",
            port=port,
            log_level="warning",
            timeout_graceful_shutdown=1,
        )
    )
    thread = threading.Thread(target=server.run)  # as Gradio's: signals are for the main thread
    thread.start()
    with contextlib.suppress(KeyboardInterrupt):
        signal.pause()
    server.should_exit = True
    thread.join()
    store.close()


def end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)


def move_clock(shared: MutableSequence[float]) -> None:
    class Moved(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + timedelta(seconds=shared[CLOCK])

    right = time.time
    time.time = lambda: right() + shared[CLOCK]
    engine.store.datetime = app.view.datetime = Moved  # type: ignore[misc]


def count_moments(shared: MutableSequence[float]) -> None:
    """A moment is before each statement to SQLite, so also in the middle of a save, and before and after an answer."""

    def moment(*_: object) -> None:
        if shared[COUNT] > 0:
            shared[COUNT] -= 1
            if shared[COUNT] == 0:
                shared[DYING] = 1
                os.kill(os.getpid(), signal.SIGKILL)

    connect, answer = sqlite3.connect, app.desk.Desk.answer

    def traced(*values: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*values, **options)
        connection.set_trace_callback(moment)
        return connection

    def counted(self: app.desk.Desk, body: bytes) -> bytes:
        moment()
        found = answer(self, body)
        moment()
        return found

    sqlite3.connect = traced  # type: ignore[assignment]
    app.desk.Desk.answer = counted  # type: ignore[method-assign]
