"""A browser tab as the server meets it: it asks a Desk in JSON, as the page's script does, without a browser."""

from __future__ import annotations

import json
from itertools import count
from typing import Any

from app.desk import Desk
from app.session import Session
from engine import Engine
from engine.errors import StoreError
from engine.store import Store

NAMES = count(1)
STORY = "The old man lived by the sea.\n\nOne day he found a small boat. He was very happy.\n"


def full(*_: Any, **__: Any) -> int:
    """What `Store.save` does when the disk is full."""
    raise StoreError("The disk is full and nothing was saved; make room and try again.")


class Tab:
    def __init__(self, engine: Engine, store: Store, document: str | None = None, desk: Desk | None = None) -> None:
        self.desk = desk or Desk(engine, store)
        self.name = f"{next(NAMES):032x}"
        self.number = 0
        self.at: dict[str, Any] = {}
        self.bar: dict[str, Any] = {}
        self.list: dict[str, Any] = {}
        self.map: dict[str, Any] = {}
        self.said: list[str] = []  # by the last act
        self.download: dict[str, Any] | None = None
        self.act("arrive", document=document)

    def ask(self, what: str, **question: Any) -> dict[str, Any]:
        body = {"ask": what, "tab": self.name, **question}
        return json.loads(self.desk.answer(json.dumps(body).encode()))

    def once(self, what: str, number: int, /, **data: Any) -> dict[str, Any]:
        """One question about an act: it may only be running."""
        return self.ask("act", number=number, act=what, data=data, at=self.at)

    def act(self, what: str, /, **data: Any) -> dict[str, Any]:
        """Ask until the act is answered, and show the answer."""
        self.number += 1
        return self.settle(what, **data)

    def settle(self, what: str, /, **data: Any) -> dict[str, Any]:
        while (answer := self.once(what, self.number, **data))["state"] == "running":
            pass
        assert answer["number"] == self.number
        self.said = [text for _, text in answer.get("said", [])]
        self.download = answer.get("download")
        if "bar" in answer:
            self.bar, self.list, self.map = answer["bar"], answer["list"], answer["map"]
            self.at = {name: self.bar[name] for name in ("document", "revision", "stored", "saved", "reading", "model")}
        return answer

    def look(self, **data: Any) -> dict[str, Any]:
        return self.ask("look", data=data)

    @property
    def session(self) -> Session:
        return self.desk._tabs[self.name].session

    @property
    def ids(self) -> list[str]:
        return [node["id"] for node in self.list["nodes"]]

    @property
    def texts(self) -> list[str]:
        return [node["text"] for node in self.list["nodes"]]
