"""What goes wrong while people work, and how it is mended. Each trouble lasts as long as its `with` block."""

from __future__ import annotations

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from .wire import MODES

if TYPE_CHECKING:
    from .driver import Chaos

FULL = (0, 4096, 8192, 32768)  # bytes left on a full disk
CLOCKS = (-40 * 365 * 86400.0, -3600.0, 90.0, 86400.0, 30 * 365 * 86400.0)  # seconds
FROZEN = 2.0  # seconds, at most: longer than a tab waits for an answer
LOCKED = 0.5  # seconds: longer than the program waits


@contextmanager
def cut(chaos: Chaos) -> Iterator[None]:
    """The connection of one tab, or of both."""
    mode = chaos.random.choice(MODES)
    for tab in chaos.random.choice([chaos.tabs, chaos.tabs[:1], chaos.tabs[1:]]):
        tab.wire.cut(mode)
    yield
    for tab in chaos.tabs:
        tab.wire.mend()


@contextmanager
def restarted(chaos: Chaos) -> Iterator[None]:
    chaos.server.end(chaos.random.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL]))
    yield
    chaos.start()


@contextmanager
def killed_at(chaos: Chaos) -> Iterator[None]:
    """It dies by itself in the middle of an act. A save takes a dozen statements."""
    chaos.server.die_after(chaos.random.randint(1, 60))
    yield
    chaos.server.die_after(0)
    chaos.revive()


@contextmanager
def frozen(chaos: Chaos) -> Iterator[None]:
    chaos.server.signal(signal.SIGSTOP)
    time.sleep(chaos.random.uniform(0.1, FROZEN))
    chaos.server.signal(signal.SIGCONT)
    yield


@contextmanager
def disk_full(chaos: Chaos) -> Iterator[None]:
    chaos.server.limit(max(0, size(chaos.server.db) - 4096) * chaos.random.choice([0, 1]) + chaos.random.choice(FULL))
    yield
    chaos.server.limit()


@contextmanager
def killed_on_a_full_disk(chaos: Chaos) -> Iterator[None]:
    with disk_full(chaos):
        yield
        chaos.server.end(signal.SIGKILL)
    chaos.start()


@contextmanager
def clock_moved(chaos: Chaos) -> Iterator[None]:
    """It stays wrong for a while."""
    chaos.server.move_clock(chaos.random.choice(CLOCKS))
    yield
    if chaos.random.random() < 0.5:
        chaos.server.move_clock(0.0)


@contextmanager
def locked(chaos: Chaos) -> Iterator[None]:
    """Another program writes to the database, and takes its time."""
    with closing(sqlite3.connect(chaos.server.db, timeout=5, isolation_level=None)) as other:
        with suppress(sqlite3.OperationalError):
            other.execute(chaos.random.choice(["begin immediate", "begin exclusive"]))
            time.sleep(LOCKED)
        yield


@contextmanager
def moved_for_a_while(chaos: Chaos) -> Iterator[None]:
    away = chaos.server.db.with_name("away.db")
    chaos.server.db.rename(away)
    yield
    if not chaos.went_elsewhere():
        away.rename(chaos.server.db)
    else:
        away.unlink()


@contextmanager
def deleted(chaos: Chaos) -> Iterator[None]:
    """The program goes on with the file that it has open, and can save it elsewhere."""
    chaos.server.db.unlink()
    yield
    chaos.go_elsewhere()


@contextmanager
def replaced(chaos: Chaos) -> Iterator[None]:
    """By a copy, as some backup and sync programs do."""
    copy = copied(chaos)
    os.replace(copy, chaos.server.db)
    yield
    chaos.go_elsewhere()


@contextmanager
def deleted_and_killed(chaos: Chaos) -> Iterator[None]:
    """Nothing is left of what was saved; only the tabs show it still."""
    chaos.server.db.unlink()
    yield
    chaos.server.end(signal.SIGKILL)
    if not chaos.went_elsewhere():
        chaos.ledger.forget()
    chaos.start()


@contextmanager
def set_back(chaos: Chaos) -> Iterator[None]:
    """An older copy of the database is put in its place while the program is not running."""
    promises, copy = chaos.ledger.promises(), copied(chaos)
    yield
    chaos.server.end(signal.SIGTERM)
    with suppress(FileNotFoundError):  # what is left of a crash belongs to the file that was there
        chaos.server.db.with_name(f"{chaos.server.db.name}-journal").unlink()
    os.replace(copy, chaos.server.db)
    chaos.ledger.forget(promises)
    chaos.start()


def copied(chaos: Chaos) -> Path:
    copy = chaos.server.db.with_name("copy.db")
    with closing(sqlite3.connect(chaos.server.db)) as db, closing(sqlite3.connect(copy)) as other:
        db.backup(other)  # also in the middle of a save
    return copy


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


Trouble = Callable[["Chaos"], AbstractContextManager[None]]
CONNECTION: tuple[Trouble, ...] = (cut, frozen, clock_moved)  # go together with all others
PROGRAM: tuple[Trouble, ...] = (restarted, killed_at, killed_at, disk_full, killed_on_a_full_disk, locked)
FILE: tuple[Trouble, ...] = (moved_for_a_while, deleted, replaced, deleted_and_killed, set_back)
