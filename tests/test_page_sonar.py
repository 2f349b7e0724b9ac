"""The page in the sonar space, at a toy's size: no landscape, no concept model, 202 languages."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import toy_sonar
from playwright.sync_api import Page, expect
from tabs import Tab
from test_page import ROOT, Program, browser, context, page, row, settled  # noqa: F401 - fixtures

from app import view
from engine import Document, Engine, text
from engine.errors import VectorError, WeightsError
from engine.projection import DocumentMap
from engine.spaces.builtin import LANGUAGES as SIX
from engine.spaces.languages import LANGUAGES
from engine.store import Store

GERMAN = "Der alte Mann wohnte am Meer. Eines Tages fand er ein kleines Boot. Er freute sich sehr."


@pytest.fixture(scope="module")
def sonar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield Engine(toy_sonar.load(toy_sonar.save(tmp_path_factory.mktemp("toy"))))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "documents.db") as opened:
        yield opened


@pytest.fixture
def tab(sonar: Engine, store: Store) -> Tab:
    return Tab(sonar, store)


def points(tab: Tab) -> np.ndarray:
    return np.array([(node["x"], node["y"]) for node in tab.map["nodes"]])


def test_a_document_lies_in_its_plane(tab: Tab) -> None:
    before = points(tab)
    assert tab.map["frame"] == "plane" and len(before) == len(tab.ids) > 10
    assert np.abs(before).max() == pytest.approx(1) and len(np.unique(before, axis=0)) == len(before)
    tab.act("insert", index=2, text="A sparrow sat on the roof.")
    assert np.array_equal(np.delete(points(tab), 2, 0), before)  # nothing moves while one edits
    assert tab.look(want="place", x=0.2, y=0.1, frame="plane")["at"] == [0.2, 0.1]


def test_a_map_of_few_sentences(tab: Tab) -> None:
    tab.act("new", lang="eng_Latn")
    assert (
        tab.map["nodes"] == [] and "nothing on this map" in tab.look(want="place", x=0, y=0, frame="plane")["refused"]
    )
    for n, sentence in enumerate(("The sea was calm.", "A storm came.", "They rowed home.", "It was late."), 1):
        tab.act("insert", index=n - 1, text=sentence)
        assert len(tab.ids) == n and np.isfinite(points(tab)).all()
    assert len(np.unique(points(tab), axis=0)) == 4


def test_a_plane_of_any_number_of_concepts() -> None:
    random = np.random.default_rng(0)
    plane = random.standard_normal((9, 2)) @ random.standard_normal((2, 8)) + 3
    flat = DocumentMap.flat(plane).coordinates
    apart = [np.linalg.norm(x[:, None] - x[None], axis=-1) for x in (plane, flat)]
    assert np.allclose(
        apart[0] / apart[0].max(), apart[1] / apart[1].max(), atol=1e-5
    )  # what lies in a plane, as it lies
    assert np.array_equal(DocumentMap.flat(plane[:1]).coordinates, [[0, 0]])
    assert np.isfinite(DocumentMap.flat(np.ones((4, 8))).coordinates).all()
    with pytest.raises(VectorError, match="write a sentence first"):
        DocumentMap.flat(np.zeros((0, 8)))


def test_models_of_another_space_are_not_offered(tab: Tab, sonar: Engine, e: Engine) -> None:
    assert "no concept model of the sonar space" in tab.bar["no_model"] and not e.lacks_model
    before = tab.session.document
    for act in ({"what": "continue", "n": 1}, {"what": "regenerate", "ids": tab.ids[-1:], "seed": 0}):
        tab.act(act.pop("what"), **act)
        assert "no concept model of the sonar space" in tab.said[0]
        assert tab.session.document is before
    with pytest.raises(WeightsError, match="no landscape of the sonar space"):
        sonar.project(before.vectors)
    assert np.isfinite(sonar.table(before)[["x", "y"]]).all(axis=None)
    assert len(sonar.table(Document("Empty", "eng_Latn", sonar.space.identity))) == 0


def test_a_text_says_its_own_language_and_can_be_corrected(tab: Tab, store: Store) -> None:
    tab.act("import", text=GERMAN, lang="")
    assert "Read as German" in tab.said[0]
    read = tab.session.document
    assert read.lang == "deu_Latn" and {node.lang for node in read.nodes} == {"deu_Latn"}
    tab.act("written", lang="nld_Latn")
    again = store.open(read.id)[0]
    assert again.lang == "nld_Latn" and {node.lang for node in again.nodes} == {"nld_Latn"}
    assert again.text == GERMAN and not np.allclose(again.vectors, read.vectors)
    assert np.allclose(again.vectors, tab.session.engine.encode([n.text for n in read.nodes], "nld_Latn"), atol=1e-5)
    tab.act("written", lang="rus_Cyrl")
    assert "not in Russian's script" in tab.said[0]
    assert tab.session.document == again
    tab.act("undo")
    assert tab.session.document == read
    tab.act("import", text=GERMAN, lang="nld_Latn")  # what a person says counts
    assert tab.session.document.lang == "nld_Latn" and tab.said == []
    tab.act("import", text="12 3 45", lang="")  # no telling: the language of the document before
    assert tab.session.document.lang == "nld_Latn"


def test_languages_are_guessed_and_doubt_is_not_hidden() -> None:
    for body, code in (
        ("Once upon a time there was a little girl who lived in the forest.", "eng_Latn"),
        ("昔々、ある所におじいさんとおばあさんが住んでいました。", "jpn_Jpan"),
        ("从前有一个老人住在海边，他每天都去钓鱼。", "zho_Hans"),
        ("從前有一個老人住在海邊，他每天都去釣魚。", "zho_Hant"),
        ("Жил-был у самого синего моря старик со своею старухой.", "rus_Cyrl"),
        ("Det var en gang en gammel mann som bodde ved havet.", "nob_Latn"),
    ):
        assert text.guess(body, LANGUAGES) == code
    assert text.guess("De oude man woonde aan de zee en ging elke dag vissen.", SIX) is None  # Dutch is not among them
    assert text.guess("", LANGUAGES) is None and text.guess("12 345", LANGUAGES) is None


def test_documents_of_another_space_are_offered(tab: Tab, sonar: Engine, e: Engine, store: Store) -> None:
    other = e.import_text(GERMAN, "deu_Latn", "Boot")
    store.save(other, "Import", None)
    listed = {one["title"]: one for one in tab.ask("library")["documents"]}
    assert listed["Boot"]["other"] == "builtin"
    assert [one["other"] for title, one in listed.items() if title != "Boot"] == [""]
    assert Tab(sonar, store).bar["title"] != "Boot"  # not by itself
    tab.act("open", document=other.id)
    assert "encoded again" in tab.said[0]
    opened, revision = store.open(other.id)
    assert (opened.space, revision, opened.text) == (sonar.space.identity, 2, GERMAN)
    assert np.array_equal(store.open(other.id, 1)[0].vectors, other.vectors)


def test_every_language_is_in_the_menu(tab: Tab) -> None:
    assert len(tab.bar["languages"]) == 202
    assert ["jpn_Jpan", "日本語", "Japanese"] in tab.bar["languages"]
    names = [(own, english) for _, own, english in tab.bar["languages"]]
    assert len(set(names)) == 202  # each can be told from the others
    assert view.web_language("zho_Hant") == "zh-Hant"


def test_the_table_of_languages() -> None:
    assert len(LANGUAGES) == 202 == len({language.tag for language in LANGUAGES.values()})
    assert next(iter(LANGUAGES)) == "ace_Arab" and list(LANGUAGES)[-1] == "zul_Latn"  # tokens follow this order
    assert all(code[3] == "_" and len(code) == 8 for code in LANGUAGES)


# In a browser


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder = tmp_path_factory.mktemp("page")
    toy_sonar.save(folder / "sonar")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    options = ("--space", "sonar", "--sonar-dir", str(folder / "sonar"), "--device", "cpu")
    running = Program(folder, "tests/app_sonar.py", *options, PYTHONPATH=paths, XDG_CACHE_HOME=str(folder / "cache"))
    yield running
    running.end()


def test_the_page_in_a_browser(page: Page, program: Program) -> None:  # noqa: F811
    assert any("SONAR takes about" in line and "GB of memory" in line for line in program.said)  # before it is loaded
    expect(page.get_by_role("radio", name="Plane")).to_have_attribute("aria-checked", "true")
    expect(page.get_by_role("radio", name="Landscape")).to_be_hidden()
    expect(page.get_by_text("no landscape of this space yet")).to_be_visible()
    expect(page.locator("#concept-list .continue")).to_be_disabled()
    assert "no concept model" in (page.locator("#concept-list .continue").get_attribute("title") or "")
    row(page, 1).click()
    expect(page.get_by_role("button", name="Regenerate")).to_be_disabled()

    # A menu of 202 languages is searched by typing, in a language's own name or in English.
    read = page.locator("#bar").get_by_role("combobox", name="Language in which the document is read")
    read.fill("japanese")
    read.press("Enter")
    expect(read).to_have_value("日本語 – Japanese")
    settled(page)
    expect(page.locator("#concept-list li .sentence").first).to_have_attribute("lang", "ja")
    read.fill("as written")
    read.press("Enter")
    settled(page)

    # The language of a text is guessed, and put right.
    page.get_by_role("button", name="Open", exact=True).click()
    page.locator("#pasted").fill(GERMAN)
    page.get_by_role("button", name="Put it on the map").click()
    expect(page.get_by_text("Read as German")).to_be_visible()
    settled(page)
    title = "Der alte Mann wohnte am Meer."
    before = program.document(GERMAN[:60].rsplit(" ", 1)[0] + "…")
    assert before.lang == "deu_Latn" and before.text == GERMAN and before.title.startswith(title)
    read.fill("Written in …")
    read.press("Enter")
    written = page.get_by_role("combobox", name="Language in which the document is written")
    written.fill("Nederlands")
    written.press("Enter")
    page.get_by_role("button", name="Read it again").click()
    settled(page)
    assert program.document(before.title).lang == "nld_Latn"
