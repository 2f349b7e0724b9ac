"""The page on a landscape with texts and three levels of labels, made from the shipped one's places."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from test_page import SLOW, Program, begin, browser, settled, visit, watched  # noqa: F401 - a fixture

from app import view
from engine.projection import SCALES, Label, Landscape, Reference, Source
from engine.spaces.builtin import BuiltinSpace
from engine.training.landscape import Recipe, save

BOOK = Source("Anna <i>Autorin</i>, Ein Buch (1880)", "public domain")
OTHER = Source("Tatoeba (tatoeba.org)", "CC BY 2.0 FR")


def said(i: int) -> str:
    return f"Reference {i} says <b>& so on</b> – “ü”."


def labelled() -> list[Label]:
    """A broad, four middle and sixteen fine labels on a grid."""
    found = []
    for level, side in enumerate((1, 2, 4)):
        for i in range(side * side):
            x, y = ((i % side + 0.5) / side) - 0.5, ((i // side + 0.5) / side) - 0.5
            found.append(Label(x, y, f"{('sea', 'war', 'sky')[level]}{i}", level))
    return found


@pytest.fixture(scope="module")
def landscape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    land = Landscape.load()
    land.labels = labelled()
    land.references = [Reference(said(i), (BOOK, OTHER)[i % 2]) for i in range(len(land.coordinates))]
    path = tmp_path_factory.mktemp("landscape") / "landscape.safetensors"
    save(path, land, BuiltinSpace.load(), Recipe())
    return path


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory, landscape: Path) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("page")
    running = Program(folder, "tests/app_landscape.py", TEST_LANDSCAPE=str(landscape), PYTHONPATH=".")
    yield running
    running.end()


@pytest.fixture
def page(browser: Browser, program: Program) -> Iterator[Page]:  # noqa: F811
    context = browser.new_context(viewport={"width": 1440, "height": 900}, reduced_motion="reduce")
    context.set_default_timeout(SLOW)
    expect.set_options(timeout=SLOW)
    wrong: list[str] = []
    tab = watched(context, wrong)
    visit(tab, program.url)
    yield tab
    assert wrong == []
    context.close()


# What the page is sent


def test_a_landscape_with_texts_is_sent_whole(landscape: Path) -> None:
    land = Landscape.load(landscape)
    sent = view.landscape(land)
    assert len(sent["x"]) == len(sent["texts"]) == len(land.references)
    place = {(round(float(x), 4), round(float(y), 4)): i for i, (x, y) in enumerate(land.coordinates)}
    for x, y, text, source, tongue in list(
        zip(sent["x"], sent["y"], sent["texts"], sent["source"], sent["language"], strict=True)
    )[:50]:
        i = place[x, y]
        assert (text, sent["sources"][source]) == (said(i), dataclasses.astuple(land.references[i].source))
        assert sent["languages"][tongue] == view.web_language(land.languages[i])
    assert {label[3] for label in sent["labels"]} == {0, 1, 2} and len(sent["scales"]) == 3


def test_a_landscape_without_texts_is_a_sample_of_places() -> None:
    land = Landscape.load()
    land.references = []
    sent = view.landscape(land)
    assert len(sent["x"]) == len(sent["y"]) == view.FAINT_POINTS
    assert "texts" not in sent and len(sent["labels"]) == len(land.labels)


# What a person sees


def look(tab: Page, x: float, y: float, scale: float) -> None:
    """Show the landscape around a point, at so many pixels for a unit of it."""
    tab.evaluate(
        """async ([x, y, scale]) => {
            const plot = document.querySelector('#concept-map .plot');
            const [w, h] = [plot.clientWidth / scale / 2, plot.clientHeight / scale / 2];
            await Plotly.relayout(plot, { 'xaxis.range': [x - w, x + w], 'yaxis.range': [y - h, y + h] });
        }""",
        [x, y, scale],
    )


def middle(tab: Page) -> tuple[float, float]:
    box = tab.locator("#concept-map .plot").bounding_box()
    assert box
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def lonely(landscape: Path) -> int:
    """A reference that has no other near it."""
    points = Landscape.load(landscape).coordinates
    apart = ((points[:, None] - points[None, :2000]) ** 2).sum(2)
    apart[apart == 0] = 9
    return int(apart.min(1)[:2000].argmax())


def test_a_reference_is_read_where_it_lies(page: Page, landscape: Path) -> None:
    begin(page, "Faint points")
    i = lonely(landscape)
    x, y = Landscape.load(landscape).coordinates[i].tolist()
    look(page, x, y, 4000)  # near enough for all dots to be there
    left, top = middle(page)
    page.mouse.move(left + 40, top + 40)
    tip = page.locator("#concept-map .tip")
    expect(tip).to_be_hidden()
    page.mouse.move(left + 2, top + 2)
    expect(tip.locator(".said")).to_have_text(said(i))
    expect(tip.locator(".source")).to_have_text("; ".join(dataclasses.astuple((BOOK, OTHER)[i % 2])))
    expect(page.locator("#concept-map .spot")).to_be_visible()
    assert page.locator("#concept-map .tip b, #concept-map .tip i").count() == 0
    # A click reads the concept there, beside the sentence.
    page.mouse.click(left + 2, top + 2)
    expect(page.locator("#inspector h2")).to_have_text("Here lies")
    expect(tip.locator(".said")).to_have_text(said(i))
    page.mouse.move(left + 40, top + 40)
    expect(tip).to_be_hidden()
    settled(page)


def test_labels_follow_the_zoom(page: Page) -> None:
    seen = page.locator("#concept-map .region.seen")
    for scale, words in ((250, "sea"), (SCALES[1] * 1.1, "war"), (SCALES[2] * 1.1, "sky"), (SCALES[2] * 0.95, "sky")):
        look(page, 0, 0, scale)
        texts = seen.all_text_contents()
        assert texts and all(text.startswith(words) for text in texts), scale
    look(page, 0, 0, 250)
    expect(seen).to_have_text(["sea0"])
    # Never two over one another.
    for scale in (60, 300, 450, 1000):
        look(page, 0, 0, scale)
        boxes = [box for box in (one.bounding_box() for one in seen.all()) if box]
        assert boxes
        for n, a in enumerate(boxes):
            for b in boxes[n + 1 :]:
                apart_x = a["x"] + a["width"] <= b["x"] or b["x"] + b["width"] <= a["x"]
                assert apart_x or a["y"] + a["height"] <= b["y"] or b["y"] + b["height"] <= a["y"]
