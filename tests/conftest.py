"""One engine on the shipped weights for all tests: loading it once keeps the suite fast; and a database for each."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tabs import STORY, Tab

import engine
from engine.document import Document
from engine.store import Store

SAMPLES = Path(__file__).parents[1] / "assets" / "samples"


@pytest.fixture(scope="session")
def e() -> engine.Engine:
    return engine.load()


@pytest.fixture(scope="session")
def story(e: engine.Engine) -> Document:
    return e.import_text((SAMPLES / "the-monkey-and-the-crocodile.txt").read_text("utf-8"), "eng_Latn", "The Monkey")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "documents.db", timeout=0.2) as opened:
        yield opened


@pytest.fixture
def tab(e: engine.Engine, store: Store) -> Tab:
    """A browser tab, without a browser, in which a short story is open."""
    opened = Tab(e, store)
    opened.act("import", text=STORY, lang="eng_Latn")
    return opened
