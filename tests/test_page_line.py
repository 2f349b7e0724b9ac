"""What a person meets when the program, the connection, the database or a document fails; in a browser."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect
from test_page import (
    Program,
    begin,
    browser,  # noqa: F401 - a fixture
    context,  # noqa: F401 - a fixture
    paste,
    sentences,
    settled,
    toast,
    visit,
)

from engine.store import Store


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    running = Program(tmp_path_factory.mktemp("line"))
    yield running
    running.end()


@pytest.fixture
def page(context: BrowserContext, program: Program) -> Page:  # noqa: F811
    """A tab in which requests may fail."""
    tab = context.new_page()
    visit(tab, program.url)
    return tab


def write(tab: Page, text: str) -> None:
    tab.locator("#next-sentence").fill(text)
    tab.locator("#next-sentence").press("Enter")


def banner(tab: Page):
    return tab.locator("#notices .banner")


def test_a_restart_of_the_program_loses_nothing(page: Page, program: Program) -> None:
    begin(page, "Restarted")
    page.locator("#bar .read select").select_option("fra_Latn")
    settled(page)
    shown = sentences(page).all_text_contents()
    program.end()
    write(page, "Le bateau est parti.")  # asked while nobody is there
    expect(banner(page)).to_contain_text("does not answer")
    expect(page.locator("#next-sentence")).to_have_value("")
    page.locator("#next-sentence").fill("Encore une phrase.")
    page.locator("#next-sentence").press("Enter")  # nothing more is asked meanwhile, and nothing typed is lost
    expect(page.locator("#next-sentence")).to_have_value("Encore une phrase.")
    expect(page.locator("#concept-list .live")).to_contain_text("Nothing can be changed now")
    program.start()
    expect(banner(page)).to_be_hidden()
    expect(toast(page)).to_contain_text("answers again")
    settled(page)
    expect(sentences(page)).to_have_text([*shown, "Le bateau est parti."])
    write(page, "Encore une phrase.")
    expect(sentences(page)).to_have_count(len(shown) + 2)
    settled(page)
    stored = program.document("Restarted")
    assert [node.text for node in stored.nodes[-2:]] == ["Le bateau est parti.", "Encore une phrase."]
    page.locator("#concept-list ol").focus()
    for _ in range(3):
        page.keyboard.press("Control+z")  # also what was done before the restart
    expect(page.locator("#bar .title")).not_to_have_value("Restarted")
    assert page.locator("#bar .redo").is_enabled()


def test_a_cut_connection_is_said_and_everything_is_done_afterwards(
    page: Page,
    context: BrowserContext,  # noqa: F811
    program: Program,
) -> None:
    begin(page, "Cut")
    row = page.locator("#concept-list li").first
    context.set_offline(True)
    row.click()
    page.locator("#concept-list ol").focus()
    for _ in range(3):
        page.keyboard.press("Alt+ArrowDown")  # moved at once on the page; the program is told in order
    expect(banner(page)).to_be_visible()
    moved = sentences(page).all_text_contents()
    context.set_offline(False)
    expect(banner(page)).to_be_hidden()
    settled(page)
    expect(sentences(page)).to_have_text(moved)
    assert [node.text for node in program.document("Cut").nodes] == moved
    with Store(program.db) as store:
        found = next(one for one in store.documents() if one.title == "Cut")
        labels = [one.label for one in reversed(store.revisions(found.id))]
    # What was asked before the page knew was done once; what came after that was not taken.
    assert labels[:3] == ["Import", "Rename", "Move"] and set(labels[3:]) <= {"Move"}


def test_a_sleeping_tab_finds_its_answer(page: Page, context: BrowserContext) -> None:  # noqa: F811
    begin(page, "Asleep")
    devtools = context.new_cdp_session(page)
    page.locator("#how-many").select_option("2")
    page.get_by_role("button", name="Continue").click()
    devtools.send("Page.setWebLifecycleState", {"state": "frozen"})
    page.wait_for_timeout(1500)
    devtools.send("Page.setWebLifecycleState", {"state": "active"})
    settled(page)
    expect(banner(page)).to_be_hidden()
    assert sentences(page).count() > 5


def test_leaving_asks_where_something_is_half_typed(browser: Browser, program: Program) -> None:  # noqa: F811
    for typed, asked in (("", []), ("Half a sen", ["beforeunload"])):
        opened = browser.new_context()
        tab = opened.new_page()
        dialogs: list[str] = []
        tab.on("dialog", lambda dialog, into=dialogs: (into.append(dialog.type), dialog.accept()))
        visit(tab, program.url)
        tab.locator("#next-sentence").click()
        tab.keyboard.type(typed)
        tab.close(run_before_unload=True)
        tab.wait_for_event("close") if not tab.is_closed() else None
        assert dialogs == asked
        opened.close()


def test_a_deleted_database_is_said_and_saved_elsewhere(
    tmp_path: Path,
    context: BrowserContext,  # noqa: F811
) -> None:
    running = Program(tmp_path)
    try:
        tab = context.new_page()
        visit(tab, running.url)
        settled(tab)
        running.db.unlink()
        write(tab, "A new sentence came last.")
        dialog = tab.get_by_role("dialog", name="This is not saved")
        expect(dialog).to_contain_text("was deleted or moved")
        expect(tab.locator("#bar .state")).to_have_text("Not saved")
        dialog.get_by_role("button", name="Save to another file").click()
        settled(tab)
        expect(toast(tab)).to_contain_text("documents-2.db")
        with Store(tmp_path / "documents-2.db") as store:
            kept = store.open(store.documents()[0].id)[0]
        assert kept.nodes[-1].text == "A new sentence came last."
        tab.close()
    finally:
        running.end()


def test_a_document_that_can_not_be_shown_locks_nothing(
    page: Page,
    context: BrowserContext,  # noqa: F811
    program: Program,
    tmp_path: Path,
) -> None:
    begin(page, "Damaged")
    begin(page, "Sound")
    begin(page, "Broken")
    with sqlite3.connect(program.db) as database:  # as an earlier version might have stored it
        for title, provenance in (("Damaged", "["), ("Broken", '{"kind": "interpolated", "operation": "interpolate"')):
            (one,) = database.execute("select id from documents where title = ?", [title]).fetchone()
            database.execute(
                "update node_versions set provenance = ? where rowid in "
                "(select rowid from node_versions where document = ? limit 1)",
                [provenance, one],
            )
    database.close()
    tab = context.new_page()
    tab.goto(f"{program.url}/?doc={one}")
    expect(tab.locator("#bar .title")).to_have_value("Sound")
    expect(toast(tab)).to_contain_text("“Broken” can't be shown")
    tab.get_by_role("button", name="Open", exact=True).click()
    damaged = tab.locator("#library .damaged", has_text="Broken")
    expect(damaged).to_contain_text("is damaged in the database")
    with tab.expect_download() as download:
        damaged.get_by_role("button", name="Export what can be read").click()
    assert download.value.suggested_filename == "Broken.txt"
    assert "One day he found a small boat." in download.value.path().read_text()
    tab.get_by_role("button", name="Open", exact=True).click()
    tab.locator("#library .damaged", has_text="Broken").get_by_role("button", name="Delete").click()
    tab.get_by_role("button", name="Press again to delete it for good").click()
    settled(tab)
    with Store(program.db) as store:
        assert "Broken" not in [one.title for one in store.documents()]
    # A file that can't be shown is not even stored.
    exported = {"format": "conceptscape-document", "version": 1, "title": "Poison", "lang": "eng_Latn"}
    file = tmp_path / "poison.json"
    file.write_text(json.dumps(exported | {"space": "builtin", "before": "", "nodes": [{"text": 7}]}))
    tab.get_by_role("button", name="Open", exact=True).click()
    tab.locator("#library input[type=file]").set_input_files(file)
    expect(toast(tab)).to_contain_text("not a document")
    settled(tab)
    tab.close()
    visit(page, program.url)
    expect(page.locator("#bar .title")).to_have_value("Sound")


WATCH = """() => {
  window.gaps = [];
  let last = performance.now();
  setInterval(() => { const now = performance.now(); window.gaps.push(now - last); last = now; }, 20);
}"""


def test_a_long_document_never_freezes_the_tab(page: Page) -> None:
    # Sentences that return are read once; to the page each is one of 3,000.
    long = " ".join(f"The traveller came to house number {n % 200}." for n in range(3000))
    paste(page, long)
    page.wait_for_function("document.querySelectorAll('#concept-list .sentence').length === 3000")
    settled(page)
    page.evaluate(WATCH)
    read = page.locator("#bar .read select")
    read.select_option("fra_Latn")
    page.wait_for_function("/Translating: \\d+ of/.test(document.querySelector('#bar .progress-text').textContent)")
    page.evaluate("window.asked = performance.now()")
    page.get_by_role("button", name="Stop").click()
    page.wait_for_function("document.querySelector('.toast')?.textContent.includes('Stopped')")
    assert page.evaluate("performance.now() - window.asked") < 2000
    settled(page)
    read.select_option("fra_Latn")
    settled(page)
    expect(page.locator("#concept-list .decoded")).to_have_count(3000)
    assert max(page.evaluate("window.gaps")) < 1000
