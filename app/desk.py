"""The page's side of the server: the open tabs, and an answer to everything that a page asks.

A page asks by POST, not by Gradio's events: those are lost without a word when the connection breaks, and Gradio then
reloads the page with all that was typed on it.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import orjson

from engine import Engine
from engine.store import Store

from . import view
from .acts import looking
from .acts.data import Data, RequestError
from .acts.documents import samples
from .session import usual_language
from .tab import Tab, sentence

TABS = 100  # kept; the one asked for least recently is forgotten first, and opened again when it asks
NAME = re.compile(r"[0-9a-f]{32}")
LARGE = 1_000_000  # bytes


def read(body: bytes) -> object:
    try:
        return orjson.loads(body)  # which stops at a depth of 1,024, where `json` goes as deep as Python can
    except orjson.JSONDecodeError:
        raise RequestError(
            "What the page sent can't be read; if its text holds half of a character, take it out, or reload the page."
        ) from None


class Desk:
    """Everything that one page program answers, for one engine and one database."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self.engine = engine
        self.store = store
        self.faults: dict[str, str] = {}  # documents that can't be shown, and why
        self._tabs: OrderedDict[str, Tab] = OrderedDict()
        self._lock = threading.Lock()
        self._large = threading.Lock()

    def answer(self, body: bytes) -> bytes:
        """JSON to JSON; whatever is asked is answered, a bad request with `refused` and a sentence."""
        # JSON can take fifty times its bytes of memory, so large requests are read one at a time.
        with self._large if len(body) > LARGE else nullcontext():
            try:
                found = self.ask(Data(read(body)))
            except Exception as error:
                found = {"refused": sentence(error)}
        return json.dumps(found, allow_nan=False).encode()

    def ask(self, asked: Data) -> view.Json:
        """Raises RequestError for what can't be read, and what the question itself raises."""
        what = asked.text("ask")
        if what == "landscape":
            return view.landscape(self.engine.landscape) if self.engine.has_landscape else {}
        name = asked.text("tab")
        if not NAME.fullmatch(name):
            raise RequestError("The page gave no name of a tab; reload it.")
        if what == "leave":
            self._leave(name)
            return {}
        with self._tab(name) as tab:
            return self._of(tab, what, asked)

    def _of(self, tab: Tab, what: str, asked: Data) -> view.Json:
        if what == "act":
            return tab.ask(asked.whole("number"), asked.text("act"), asked.part("data"), asked.part("at"))
        if what == "stop":
            tab.stop()
            return {}
        if what == "library":
            return self.library(tab)
        if tab.opened is None:  # the program was restarted: the page asks for the act "show" first
            return {"lost": True}
        if what == "look":
            return looking.answer(tab.session, asked.part("data"))
        if what == "chart":
            return tab.chart(asked.maybe("frame") or "")
        raise RequestError("The page asked for something that this version does not know; reload it.")

    def library(self, tab: Tab) -> view.Json:
        """What can be opened."""
        lang = tab.opened.document.lang if tab.opened else usual_language(self.engine)
        return view.library(self.engine, self.store.documents(), samples(), lang, self.faults)

    @contextmanager
    def _tab(self, name: str) -> Iterator[Tab]:
        """The tab of a name, which is not forgotten while it is asked: what it does would be done again by another."""
        with self._lock:
            tab = self._tabs.get(name) or Tab(name, self.engine, self.store, self.faults)
            self._tabs[name] = tab
            self._tabs.move_to_end(name)
            tab.asked += 1
            if len(self._tabs) > TABS:
                for other in [one for one in self._tabs.values() if one.idle][: len(self._tabs) - TABS]:
                    del self._tabs[other.name]
        try:
            yield tab
        finally:
            with self._lock:
                tab.asked -= 1

    def _leave(self, name: str) -> None:
        """The page was closed or loaded again; nobody will ask after its work."""
        with self._lock:
            if tab := self._tabs.get(name):
                tab.stop()
                if tab.idle:
                    del self._tabs[name]
