"""The page as a person meets it: the real `app.py` and a real browser. Asserts on the page's text and the database."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect, sync_playwright

from engine.document import Document
from engine.store import Store

ROOT = Path(__file__).parents[1]
CHROMIUM = os.environ.get(
    "CHROMIUM", shutil.which("chromium") or shutil.which("chromium-browser") or "/usr/bin/chromium"
)
QUIET_BROWSER = [
    "--no-sandbox",
    "--disable-gpu",
    "--use-gl=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
]
SLOW = 60_000  # milliseconds that the slowest step may take on a busy machine

STORY = (
    "The old man lived by the sea. Every morning he walked along the beach.\n\n"
    "One day he found a small boat. He was very happy. He took the boat home."
)


class Program:
    """`python app.py` on a free port, with a database of its own."""

    def __init__(self, folder: Path, script: str = "app.py", *options: str, **environment: str) -> None:
        self.db = folder / "documents.db"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.command = [sys.executable, script, "--port", str(port), "--db", str(self.db), "--no-browser", *options]
        self.environment = {**os.environ, **environment}
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self.environment,
        )
        self.said: list[str] = []
        assert self.process.stdout
        for line in self.process.stdout:
            self.said.append(line)
            if found := re.search(r"http://[\d.:]+", line):
                self.url = found[0]
                return
        raise AssertionError("app.py ended: " + "".join(self.said))

    def document(self, title: str) -> Document:
        """The newest stored document of that title."""
        with Store(self.db) as store:
            return store.open(next(one.id for one in store.documents() if one.title == title))[0]

    def end(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    running = Program(tmp_path_factory.mktemp("page"))
    yield running
    running.end()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET_BROWSER)
        yield chromium
        chromium.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    opened = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    opened.set_default_timeout(SLOW)
    expect.set_options(timeout=SLOW)
    yield opened
    opened.close()


@pytest.fixture
def page(context: BrowserContext, program: Program) -> Iterator[Page]:
    """A tab with the page open; a script error, a dialog or a request that leaves the machine fails the test."""
    wrong: list[str] = []
    tab = watched(context, wrong)
    visit(tab, program.url)
    yield tab
    assert wrong == []


def watched(context: BrowserContext, wrong: list[str]) -> Page:
    tab = context.new_page()
    tab.on("pageerror", lambda error: wrong.append(f"script error: {error}"))
    tab.on("dialog", lambda dialog: (wrong.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    local = ("http://127.0.0.1:", "data:", "blob:")
    tab.on("request", lambda r: None if r.url.startswith(local) else wrong.append(f"request: {r.url}"))
    return tab


# What a person does and sees


def visit(tab: Page, url: str) -> None:
    tab.goto(url)
    tab.locator("#concept-list li").first.wait_for()
    tab.wait_for_function("document.querySelector('#concept-map .plot').data?.length > 1")


def sentences(tab: Page) -> Locator:
    return tab.locator("#concept-list .sentence")


def row(tab: Page, number: int) -> Locator:
    return tab.locator("#concept-list li[data-id]").nth(number - 1)


def selected(tab: Page) -> Locator:
    return tab.locator("#concept-list li[aria-selected=true] .sentence")


def settled(tab: Page) -> None:
    """Everything that was done is done and stored."""
    tab.wait_for_function("!line.busy")
    expect(tab.locator("#bar .state")).to_have_text("Saved")


def paste(tab: Page, text: str, lang: str = "eng_Latn") -> None:
    tab.get_by_role("button", name="Open", exact=True).click()
    tab.locator("#pasted").fill(text)
    tab.locator("#written-in").select_option(lang)
    tab.get_by_role("button", name="Put it on the map").click()


def begin(tab: Page, title: str, text: str = STORY) -> None:
    """A document of one's own, so that tests do not meet."""
    before = tab.url
    paste(tab, text)
    tab.wait_for_function("before => location.href !== before", arg=before)
    expect(tab.locator("#bar .title")).not_to_have_value("")
    tab.locator("#bar .title").fill(title)
    tab.locator("#bar .title").press("Enter")
    settled(tab)


def points(tab: Page) -> list[tuple[float, float]]:
    """The path on the map, as Plotly has it."""
    found = tab.evaluate(
        "() => { const t = document.querySelector('#concept-map .plot').data.at(-1); return [t.x, t.y]; }"
    )
    return list(zip(*found, strict=True))


def pixels(tab: Page, x: float, y: float) -> tuple[float, float]:
    return tuple(
        tab.evaluate(
            """([x, y]) => {
                const plot = document.querySelector('#concept-map .plot');
                const box = plot.getBoundingClientRect();
                const { xaxis, yaxis } = plot._fullLayout;
                const share = (v, [a, b]) => (v - a) / (b - a);
                return [box.left + share(x, xaxis.range) * box.width, box.bottom - share(y, yaxis.range) * box.height];
            }""",
            [x, y],
        )
    )


def toast(tab: Page) -> Locator:
    return tab.locator(".toast").last


# The tests


def test_a_sample_lies_on_the_map(page: Page, program: Program) -> None:
    expect(page.locator("#bar .title")).to_have_value("The Monkey and the Crocodile")
    expect(sentences(page).first).to_have_text("A monkey lived in a big tree on the bank of a river.")
    assert len(points(page)) == sentences(page).count() == len(program.document("The Monkey and the Crocodile").nodes)
    assert page.evaluate("document.querySelector('#concept-map .plot').data[0].type") == "contour"
    assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_list_and_map_select_together(page: Page) -> None:
    begin(page, "Together")
    row(page, 2).click()
    expect(page.locator("#concept-map .chosen")).to_have_text(["2"])
    expect(page.locator("#inspector h2")).to_have_text("Sentence 2")
    page.mouse.click(*pixels(page, *points(page)[3]))
    expect(selected(page)).to_have_text(["He was very happy."])
    row(page, 1).locator(".number").click()
    expect(selected(page)).to_have_count(2)
    page.keyboard.press("Escape")
    expect(selected(page)).to_have_count(0)


def test_the_lasso_selects_what_it_encloses(page: Page) -> None:
    begin(page, "Lasso")
    page.locator("#concept-map .lasso").click()
    box = page.locator("#concept-map .js-plotly-plot").bounding_box()
    assert box
    left, top = box["x"] + 12, box["y"] + 60  # below the switch between the maps
    right, bottom = box["x"] + box["width"] - 60, box["y"] + box["height"] - 12
    page.mouse.move(left, top)
    page.mouse.down()
    for x, y in ((right, top), (right, bottom), (left, bottom), (left, top)):
        page.mouse.move(x, y, steps=8)
    page.mouse.up()
    expect(selected(page)).to_have_count(len(points(page)))


def test_a_writers_session(page: Page, program: Program) -> None:
    begin(page, "Session")
    expect(sentences(page)).to_have_count(5)
    start = program.document("Session").text
    assert start == STORY

    # Rewrite: the point moves, the others stay, the view does not jump, and the database has it.
    before, view = points(page), page.evaluate("document.querySelector('#concept-map .plot')._fullLayout.xaxis.range")
    row(page, 4).click()
    page.keyboard.press("Enter")
    page.locator("#inspector .draft").fill("A terrible storm came up in the night.")
    page.locator("#inspector .draft").press("Enter")
    expect(sentences(page).nth(3)).to_have_text("A terrible storm came up in the night.")
    settled(page)
    after = points(page)
    assert after[3] != before[3]
    assert after[:3] + after[4:] == before[:3] + before[4:]
    assert page.evaluate("document.querySelector('#concept-map .plot')._fullLayout.xaxis.range") == view
    assert program.document("Session").nodes[3].text == "A terrible storm came up in the night."
    expect(row(page, 4).locator(".mark")).to_have_text("rewritten")

    # Reorder: by drag, then back by keyboard.
    order = sentences(page).all_text_contents()
    source, target = row(page, 1).locator(".handle").bounding_box(), row(page, 3).bounding_box()
    assert source and target
    page.mouse.move(source["x"] + 6, source["y"] + 8)
    page.mouse.down()
    page.mouse.move(target["x"] + 60, target["y"] + target["height"] - 4, steps=6)
    page.mouse.up()
    dragged = [order[1], order[2], order[0], order[3], order[4]]
    expect(sentences(page)).to_have_text(dragged)
    settled(page)
    assert [n.text for n in program.document("Session").nodes] == dragged
    page.locator("#concept-list ol").focus()
    page.keyboard.press("Alt+ArrowUp")
    page.keyboard.press("Alt+ArrowUp")
    expect(sentences(page)).to_have_text(order)
    expect(page.locator("#concept-list .live")).to_have_text("Sentence moved to place 1 of 5.")
    settled(page)
    assert [n.text for n in program.document("Session").nodes] == order

    # Slide between two sentences and take what lies there.
    row(page, 1).click()
    row(page, 2).click(modifiers=["Shift"])
    assert page.evaluate("getSelection().toString()") == ""  # sentences are taken, not letters
    found = page.locator("#inspector .proposal")
    expect(found).not_to_have_class(re.compile("waiting"))
    slider = page.locator("#inspector input[type=range]")
    seen = set()
    for share in ("0.1", "0.9"):
        slider.fill(share)
        expect(found).not_to_have_class(re.compile("waiting"))
        seen.add(found.inner_text())
    assert len(seen) == 2
    expect(page.locator("#concept-map .ghost")).to_be_visible()
    proposed = found.inner_text()
    page.get_by_role("button", name="Insert it").click()
    expect(sentences(page)).to_have_count(6)
    expect(sentences(page).nth(1)).to_have_text(proposed)
    settled(page)
    origin = program.document("Session").nodes[1].provenance
    assert (origin.operation, dict(origin.parameters)) == ("interpolate", {"t": 0.9})

    # An empty place of the map: read what lies there, and put it in.
    box = page.locator("#concept-map .plot").bounding_box()
    assert box
    page.mouse.click(box["x"] + 30, box["y"] + box["height"] - 40)
    expect(page.locator("#inspector h2")).to_have_text("Here lies")
    expect(found).not_to_have_class(re.compile("waiting"))
    lies = found.inner_text()
    page.get_by_role("button", name="Insert here").click()
    expect(sentences(page)).to_have_count(7)
    expect(selected(page)).to_have_text([lies])
    settled(page)
    assert "place" in [n.provenance.operation for n in program.document("Session").nodes]

    # Continue by one, unless the model takes the story to be told; then undo and redo everything.
    page.locator("#how-many").select_option("1")
    page.get_by_role("button", name="Continue").click()
    page.wait_for_function(
        "document.querySelectorAll('#concept-list .sentence').length === 8 || document.querySelector('.toast')"
    )
    settled(page)
    end = program.document("Session")
    added = len(end.nodes) - 7
    if added:
        assert end.nodes[-1].provenance.operation == "continue"
    else:
        expect(toast(page)).to_contain_text("complete")
    page.locator("#concept-list ol").focus()
    steps = 6 + added
    for _ in range(steps):
        page.keyboard.press("Control+z")
    expect(sentences(page)).to_have_count(5)
    settled(page)
    assert program.document("Session").text == start
    for _ in range(steps):
        page.keyboard.press("Control+Shift+z")
    expect(sentences(page)).to_have_count(len(end.nodes))
    settled(page)
    assert program.document("Session").nodes == end.nodes

    # Read it in French, and keep that.
    own = sentences(page).all_text_contents()
    page.locator("#bar .read select").select_option("fra_Latn")
    expect(page.locator("#concept-list .reading")).to_be_visible()
    french = sentences(page).all_text_contents()
    assert all(a != b for a, b in zip(own, french, strict=True))
    assert [n.text for n in program.document("Session").nodes] == own
    page.get_by_role("button", name="Keep this translation").click()
    expect(page.locator("#concept-list .reading")).to_be_hidden()
    settled(page)
    kept = program.document("Session")
    assert (kept.lang, [n.text for n in kept.nodes]) == ("fra_Latn", french)

    # A reload opens it again, and so does the library.
    page.reload()
    expect(sentences(page)).to_have_text(french)
    page.get_by_role("button", name="Open", exact=True).click()
    page.locator("#library .samples button").last.click()
    expect(page.locator("#bar .title")).to_have_value("Der Schakal und die Sonne")
    page.get_by_role("button", name="Open", exact=True).click()
    page.locator("#library .documents button", has_text="Session").click()
    expect(sentences(page)).to_have_text(french)


def test_an_untouched_file_is_exported_byte_for_byte(page: Page, tmp_path: Path) -> None:
    raw = "\ufeffFirst line here.  \r\n\r\n\tA second one, indented.\r\n***\nThe last – “quoted”!\r\n\r\n".encode()
    file = tmp_path / "My <odd> name.txt"
    file.write_bytes(raw)
    page.get_by_role("button", name="Open", exact=True).click()
    page.locator("#library input[type=file]").set_input_files(file)
    expect(page.locator("#bar .title")).to_have_value("My <odd> name")
    settled(page)
    for choice, name, check in (
        ("Text", "My-odd-name.txt", lambda data: data == raw),
        ("Markdown", "My-odd-name.md", lambda data: data.startswith(b"# My")),
        ("JSON with vectors", "My-odd-name.json", lambda data: data.count(b'"vector"') == 3),
    ):
        page.get_by_text("Export", exact=True).click()
        with page.expect_download() as download:
            page.get_by_role("button", name=choice, exact=True).click()
        assert download.value.suggested_filename == name
        assert check(download.value.path().read_bytes()), choice


def test_markup_in_a_text_is_text(page: Page) -> None:
    attack = "The cat <script>alert('one')</script> sat down. A dog <img src=x onerror=alert('two')> ran <b>fast</b>."
    begin(page, "<img src=x onerror=alert('three')>", attack)
    expect(sentences(page).first).to_have_text("The cat <script>alert('one')</script> sat down.")
    page.mouse.move(*pixels(page, *points(page)[1]))
    expect(page.locator("#concept-map .tip")).to_contain_text("<img src=x onerror=alert('two')> ran <b>fast</b>.")
    row(page, 1).click()
    expect(page.locator("#inspector .draft")).to_have_value("The cat <script>alert('one')</script> sat down.")
    assert page.locator("#desk script, #desk img, #desk b").count() == 0


def test_bad_input_is_told_and_loses_nothing(page: Page, tmp_path: Path) -> None:
    begin(page, "Kept")
    shown = sentences(page).all_text_contents()
    broken = tmp_path / "broken.txt"
    broken.write_bytes(b"caf\xe9 au lait, latin-1")
    page.get_by_role("button", name="Open", exact=True).click()
    page.locator("#library input[type=file]").set_input_files(broken)
    expect(toast(page)).to_contain_text("broken.txt is not UTF-8 text")
    for text, said in (("   \n ", "no text here"), ("🙂", "no words"), ("Это совсем другой алфавит.", "script")):
        paste(page, text)
        expect(toast(page)).to_contain_text(said)
    # The paste that failed is still there to be mended.
    page.get_by_role("button", name="Open", exact=True).click()
    expect(page.locator("#pasted")).to_have_value("Это совсем другой алфавит.")
    page.keyboard.press("Escape")
    expect(sentences(page)).to_have_text(shown)
    expect(toast(page)).not_to_contain_text("Traceback")


def test_two_tabs_on_one_document(page: Page, context: BrowserContext, program: Program) -> None:
    begin(page, "Twice")
    wrong: list[str] = []
    other = watched(context, wrong)
    visit(other, page.url)
    for tab, words in ((page, "The first tab wrote this."), (other, "The second tab wrote that.")):
        row(tab, 1).click()
        tab.locator("#inspector .draft").fill(words)
        tab.get_by_role("button", name="Rewrite").click()
        if tab is page:
            settled(tab)
    expect(other.locator("#bar .conflict")).to_contain_text("changed")
    assert program.document("Twice").nodes[0].text == "The first tab wrote this."
    other.get_by_role("button", name="Keep mine as a copy").click()
    expect(other.locator("#bar .title")).to_have_value("Twice (copy)")
    settled(other)
    assert program.document("Twice (copy)").nodes[0].text == "The second tab wrote that."
    assert program.document("Twice").nodes[0].text == "The first tab wrote this."
    assert wrong == []


def test_a_long_act_shows_progress_and_stops(page: Page, program: Program) -> None:
    long = " ".join(f"The traveller came to house number {n} and asked for water." for n in range(1, 601))
    before = page.url
    paste(page, long)
    progress = page.locator("#bar .progress")
    expect(progress).to_contain_text("Reading the text")
    page.get_by_role("button", name="Stop").click()
    expect(toast(page)).to_contain_text("Stopped")
    expect(progress).to_be_hidden()
    assert page.url == before
    with Store(program.db) as store:
        assert not [one for one in store.documents() if one.title.startswith("The traveller")]


def test_a_narrow_and_dark_page(browser: Browser, program: Program) -> None:
    phone = browser.new_context(viewport={"width": 390, "height": 844}, reduced_motion="reduce")
    phone.set_default_timeout(SLOW)
    tab = phone.new_page()
    visit(tab, f"{program.url}/?__theme=dark")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    tops = [tab.locator(part).bounding_box()["y"] for part in ("#bar", "#concept-map", "#concept-list", "#inspector")]  # type: ignore[index]
    assert tops == sorted(tops)
    accent = "getComputedStyle(document.querySelector('#concept-map .map')).getPropertyValue('--accent').trim()"
    line = "document.querySelector('#concept-map .plot').data.at(-3).line.color"
    dark = tab.evaluate(accent)
    assert tab.evaluate(line) == dark
    tab.evaluate("document.body.classList.remove('dark')")
    tab.wait_for_function(f"{line} !== '{dark}' && {line} === {accent}")
    phone.close()


def test_the_documents_own_map(page: Page) -> None:
    page.get_by_role("button", name="Open", exact=True).click()
    page.locator("#library .samples button").first.click()
    page.wait_for_function("document.querySelectorAll('#concept-list .sentence').length >= 15")
    settled(page)
    on_landscape = points(page)
    page.get_by_role("radio", name="This document").click()
    expect(page.locator("#concept-map .fitting")).to_be_visible()
    # The page stays usable meanwhile.
    row(page, 2).click()
    page.locator("#inspector .draft").fill("There was an island in the middle of the water.")
    page.get_by_role("button", name="Rewrite").click()
    expect(sentences(page).nth(1)).to_have_text("There was an island in the middle of the water.")
    expect(page.get_by_role("radio", name="This document")).to_have_attribute("aria-checked", "true", timeout=240_000)
    assert len(points(page)) == len(on_landscape)
    assert points(page) != on_landscape
    page.get_by_role("radio", name="Landscape").click()
    expect(page.get_by_role("radio", name="Landscape")).to_have_attribute("aria-checked", "true")
    assert points(page)[0] == pytest.approx(on_landscape[0], abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--port", "99999"], "1 to 65535"),
        (["--db", "."], "not a file"),
        (["--space", "nowhere"], "no concept space"),
    ],
)
def test_bad_options_end_with_one_sentence(arguments: list[str], said: str, tmp_path: Path) -> None:
    command = [sys.executable, "app.py", "--no-browser", "--db", str(tmp_path / "x.db"), *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_what_this_can_do_is_one_click_away(page: Page) -> None:
    said = json.loads((ROOT / "assets" / "abilities.json").read_text())
    page.get_by_role("button", name="What this can do").click()
    dialog = page.get_by_role("dialog", name="What this can do")
    expect(dialog).to_contain_text(said["about"])
    expect(dialog.locator("tbody tr")).to_have_count(len(said["rows"]))
    for task, read, grammatical, sensible in said["rows"]:
        row = dialog.locator("tr", has=page.get_by_role("rowheader", name=task, exact=True))
        expect(row.locator("td")).to_have_text([str(read), grammatical, sensible])
    expect(dialog.locator("blockquote")).to_have_text(said["example"]["wrote"])
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
