"""Everything goes wrong while two people work; see benchmarks/chaos, of which this is the short form."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from test_page import CHROMIUM, QUIET_BROWSER, SLOW, sentences, settled, visit, watched

from benchmarks.chaos.driver import Chaos
from benchmarks.chaos.ledger import Ledger
from benchmarks.chaos.server import Server
from engine.store import Store

pytestmark = pytest.mark.skipif(os.name != "posix", reason="processes are stopped and killed as POSIX has it")


@pytest.mark.parametrize(("kind", "seed", "rounds"), [("desk", 1, 15), ("desk", 5, 10), ("page", 2, 5)])
def test_what_was_said_is_so(kind: str, seed: int, rounds: int, tmp_path: Path) -> None:
    with Chaos(tmp_path, seed, kind) as chaos:
        while chaos.rounds < rounds and not chaos.ledger.wrong:
            chaos.round()
    assert chaos.ledger.wrong == []
    assert chaos.acts > 5 * rounds


# In the browser


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    running = Server(tmp_path, "page")
    running.start()
    yield running
    running.end()


@pytest.fixture
def contexts() -> Iterator[list[BrowserContext]]:
    """One for each tab, so that each has a connection of its own."""
    expect.set_options(timeout=SLOW)
    with sync_playwright() as playwright:
        chromium: Browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET_BROWSER)
        opened = [chromium.new_context() for _ in range(2)]
        for one in opened:
            one.set_default_timeout(SLOW)
        yield opened
        chromium.close()


class Writer:
    """A person in one tab of the browser, who does not look whether an act is answered before the next one."""

    def __init__(self, page: Page, name: str, seed: int) -> None:
        self.page = page
        self.name = name
        self.random = random.Random(seed)
        self.written = 0

    def write(self) -> None:
        self.written += 1
        self.page.keyboard.press("Escape")  # nothing is selected, so that it comes at the end
        self.page.locator("#next-sentence").fill(f"Sentence {self.written} is of the {self.name} tab.")
        self.page.locator("#next-sentence").press("Enter")

    def move(self) -> None:
        self.page.locator("#concept-list li[data-id]").first.click()
        self.page.keyboard.press("Alt+ArrowDown")

    def undo(self) -> None:
        self.page.locator("#concept-list ol").focus()
        self.page.keyboard.press("Control+z")

    def act(self) -> None:
        few = sentences(self.page).count() < 3
        self.random.choice([self.write] if few else [self.write, self.write, self.move, self.undo])()


def test_two_tabs_of_a_browser(server: Server, contexts: list[BrowserContext]) -> None:
    wrong: list[str] = []
    writers = [Writer(watched(contexts[0], wrong), "first", 1), Writer(watched(contexts[1], wrong), "second", 2)]
    for writer in writers:
        visit(writer.page, f"http://127.0.0.1:{server.port}")
    for writer in writers:
        writer.page.get_by_role("button", name="Open", exact=True).click()
        writer.page.get_by_role("button", name="Or begin with an empty page").click()
        expect(writer.page.locator("#bar .title")).to_have_value("Untitled")

    def ended(how: int) -> Callable[[], None]:
        return lambda: server.end(how)

    def offline(context: BrowserContext, off: bool) -> Callable[[], None]:
        return lambda: context.set_offline(off)

    troubles = [
        (ended(signal.SIGKILL), server.start),
        (offline(contexts[0], True), offline(contexts[0], False)),
        (lambda: server.die_after(30), lambda: (server.end(), server.start())),  # in the middle of an act
        (offline(contexts[1], True), offline(contexts[1], False)),
        (ended(signal.SIGTERM), server.start),
    ]
    for begin, mend in troubles:
        for _ in range(3):
            for writer in writers:
                writer.act()
        begin()
        for writer in writers:
            writer.act()
        mend()
        for writer in writers:
            settled(writer.page)

    ledger = Ledger()
    ledger.check(server.db)
    assert ledger.wrong == wrong == []
    with Store(server.db) as store:
        for writer in writers:
            document = store.open(writer.page.evaluate("new URL(location).searchParams.get('doc')"))[0]
            assert [node.text for node in document.nodes] == sentences(writer.page).all_text_contents()
            assert len(store.revisions(document.id)) > 8
