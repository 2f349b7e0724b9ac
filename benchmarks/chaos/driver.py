"""Rounds of chaos: two people work, something goes wrong and is mended, and then all that was said is looked at."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from . import person, troubles
from .client import Client, NeverAnsweredError
from .ledger import Ledger
from .server import Server
from .wire import Wire

TRACEBACK = "Traceback (most recent call last)"
PATIENCE = 20.0  # seconds until trouble comes, at most: by then both tabs should have asked something


class Chaos:
    """Two tabs and a program of their own, in `folder`. What was found is in `ledger.wrong`."""

    def __init__(self, folder: Path, seed: int, kind: str = "desk") -> None:
        self.random = random.Random(seed)
        self.ledger = Ledger()
        self.server = Server(folder, kind, tabs=self.random.choice([1, 100]))
        self.tabs: list[Client] = []
        self.rounds = 0
        self._people: list[threading.Thread] = []
        self.troubles: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self.start()
        for letter in "AB":
            wire = Wire(self.server.port, self.random.getrandbits(32))
            self.tabs.append(Client(letter, wire, self.server.port, self.ledger, self.random.getrandbits(32)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.server.end()
        for tab in self.tabs:
            tab.wire.close()

    def start(self) -> None:
        self.server.start()
        self.ledger.programs += 1

    @property
    def acts(self) -> int:
        return self.ledger.answered.total()

    def round(self) -> None:
        self.rounds += 1
        before = len(self.ledger.wrong)
        chosen = self._chosen()
        self.troubles.update(trouble.__name__ for trouble in chosen)
        asked = sum(tab.asked for tab in self.tabs) + self.random.randint(1, 12)
        acts = [(tab, self.random.randint(4, 10)) for tab in self.tabs]
        pause = self.random.uniform(0.0, 0.3)
        self._people = [threading.Thread(target=self._work, args=one, daemon=True) for one in acts]
        for working in self._people:
            working.start()
        until = time.monotonic() + PATIENCE
        while sum(tab.asked for tab in self.tabs) < asked and time.monotonic() < until:
            time.sleep(0.001)
        with ExitStack() as stack:
            for trouble in chosen:
                stack.enter_context(trouble(self))
            time.sleep(pause)
        self.rest()
        self._look()
        when = ", ".join(trouble.__name__ for trouble in chosen)
        self.ledger.wrong[before:] = [f"After {when}: {what}" for what in self.ledger.wrong[before:]]

    def rest(self) -> None:
        """Wait until both people have done what they meant to do."""
        for working in self._people:
            while working.is_alive():
                self.revive()
                working.join(0.1)
        self.revive()

    def revive(self) -> None:
        """Start the program again where it has ended."""
        if not self.server.alive:
            if not self.server.dying:
                self.ledger.complain(f"The program ended by itself: {self.server.said}")
            self.server.end()
            self.start()

    def _chosen(self) -> list[troubles.Trouble]:
        kinds = self.random.choices([troubles.CONNECTION, troubles.PROGRAM, troubles.FILE], [3, 4, 2])
        chosen = [self.random.choice(kinds[0])]
        if kinds[0] is not troubles.CONNECTION and self.random.random() < 0.4:
            chosen.append(self.random.choice(troubles.CONNECTION))  # mended first, so that people can go on
        return chosen

    def _work(self, tab: Client, acts: int) -> None:
        try:
            for _ in range(acts):
                person.go_on(tab)
        except NeverAnsweredError as error:
            self.server.signal(signal.SIGUSR1)
            time.sleep(1)
            self.ledger.complain(f"Never answered: {error}, alive: {self.server.alive}, {self.server.said}")
        except Exception as error:
            self.ledger.complain(f"{type(error).__name__}: {error}")

    def _look(self) -> None:
        """Let both people bring everything to rest, and compare."""
        for tab in self.tabs:
            if not person.settle(tab):
                self.ledger.complain(f"Tab {tab.letter} can't be saved: {tab.bar}")
        self.went_elsewhere()
        self.ledger.check(self.server.db)
        if TRACEBACK in self.server.said:
            self.ledger.complain(self.server.said)
        self.server.log.write_text("")

    # A database that is taken away

    def went_elsewhere(self) -> bool:
        """Whether a tab was told of another database; then that is the one in use."""
        path, self.ledger.elsewhere = self.ledger.elsewhere, None
        if path:
            self.server.db = path
        return path is not None

    def go_elsewhere(self) -> None:
        """Edit until somebody is told that the database has gone, and takes another."""
        self.rest()
        tab = self.tabs[0]
        for _ in range(5):
            if self.went_elsewhere():
                return
            if person.settle(tab):
                person.insert(tab)
        self.ledger.complain("Nobody was told that the database has gone")
