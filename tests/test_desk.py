"""What the page asks, with a real engine and a real database, without a browser."""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tabs import STORY, Tab, full

from app import view
from app.acts import ACTS
from app.acts.documents import samples
from app.work import Work
from engine import Engine, formats
from engine.document import new_id
from engine.editor import Editor
from engine.errors import Cancelled
from engine.store import Store


def test_an_empty_database_begins_with_the_first_sample(e: Engine, store: Store) -> None:
    opened = Tab(e, store)
    assert opened.bar["title"] == samples()[0]["title"]
    assert opened.bar["saved"]
    assert len(opened.list["nodes"]) == len(opened.map["nodes"]) > 10
    assert [one.title for one in store.documents()] == [samples()[0]["title"]]


def test_a_tab_opens_the_document_in_its_address_or_the_last_one(e: Engine, store: Store, tab: Tab) -> None:
    first = next(one.id for one in store.documents() if one.title == samples()[0]["title"])
    assert Tab(e, store, first).bar["document"] == first
    assert Tab(e, store, "unknown").bar["document"] == tab.bar["document"] == store.documents()[0].id


def test_a_document_of_older_weights_is_encoded_again(e: Engine, store: Store, tab: Tab) -> None:
    mine = tab.session.document
    old = replace(
        mine, id=new_id(), space="builtin", nodes=tuple(replace(n, vector=-n.vector) for n in mine.nodes)
    )  # as version 0.1 stored it
    store.save(old, "Import", None)
    opened = Tab(e, store, old.id)
    assert "encoded again" in opened.said[0]
    assert opened.texts == tab.texts
    stored, revision = store.open(old.id)
    assert (stored.space, revision) == (e.space.identity, 2)
    assert np.allclose(stored.vectors, mine.vectors, atol=1e-5)
    assert np.array_equal(store.open(old.id, 1)[0].vectors, old.vectors)  # what it was is still there
    assert Tab(e, store, old.id).said == []
    exported = formats.to_json(replace(old, space="sonar"))
    tab.act("import", name="old.json", base64=base64.b64encode(exported.encode()).decode(), lang="eng_Latn")
    assert "encoded again" in tab.said[0]
    assert np.allclose(tab.session.document.vectors, mine.vectors, atol=1e-5)


def test_an_import_is_stored_as_it_came(tab: Tab, store: Store) -> None:
    assert tab.bar["title"] == "The old man lived by the sea."
    assert tab.texts == ["The old man lived by the sea.", "One day he found a small boat.", "He was very happy."]
    assert [node["paragraph"] for node in tab.list["nodes"]] == [True, False, True]
    assert store.open(tab.bar["document"])[0].text == STORY


def test_an_edit_is_stored_before_it_is_shown_and_can_be_undone(tab: Tab, store: Store) -> None:
    tab.act("rewrite", id=tab.ids[2], text="He was terribly angry.")
    assert tab.bar["saved"]
    assert tab.bar["undo"] == "Rewrite"
    assert store.open(tab.bar["document"])[0].nodes[2].text == "He was terribly angry."
    assert tab.list["nodes"][2]["mark"] == "rewritten"
    assert "He was very happy." in tab.list["nodes"][2]["origin"]
    tab.act("undo")
    assert store.open(tab.bar["document"])[0].text == STORY
    assert [r.label for r in sorted(store.revisions(tab.bar["document"]), key=lambda r: r.number)] == [
        "Import",
        "Rewrite",
        "Undo Rewrite",
    ]


def test_what_is_new_gets_selected(tab: Tab) -> None:
    old = tab.ids
    tab.act("interpolate", a=old[0], b=old[1], t=0.5)
    assert tab.ids[1] not in old
    assert tab.list["select"] == [tab.ids[1]]
    assert tab.list["nodes"][1]["mark"] == "between 1 and 3"
    assert tab.list["nodes"][1]["parents"] == old[:2]
    assert [node["made"] for node in tab.map["nodes"]] == [False, True, False, False]
    tab.act("delete", ids=[tab.ids[1]], then=old[1])
    assert tab.ids == old
    assert tab.list["select"] == [old[1]]


EDITS: list[Callable[[list[str]], dict[str, Any]]] = [
    lambda ids: {"act": "insert", "index": 1, "text": "A dog barked."},
    lambda ids: {"act": "split", "id": ids[1], "position": 7},
    lambda ids: {"act": "merge", "ids": ids[1:]},
    lambda ids: {"act": "move", "ids": [ids[0]], "index": 3},
    lambda ids: {"act": "duplicate", "ids": ids[:2]},
    lambda ids: {"act": "vary", "id": ids[0], "amount": 0.4, "seed": 1},
    lambda ids: {"act": "blend", "ids": ids, "weights": [1, 0.5, 0]},
    lambda ids: {"act": "arithmetic", "ids": ids},
    lambda ids: {"act": "alternative", "id": ids[0], "text": "An old man lived at the sea."},
    lambda ids: {"act": "place", "x": 0.1, "y": 0.1, "frame": "landscape", "index": 0},
    lambda ids: {"act": "regenerate", "ids": ids[1:], "seed": 0},
    lambda ids: {"act": "infill", "a": ids[0], "b": ids[1], "seed": 0},
    lambda ids: {"act": "rename", "title": "<b>Bold</b>"},
]


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit([""] * 3)["act"])
def test_every_edit_is_one_stored_step(edit: Callable[[list[str]], dict[str, Any]], tab: Tab, store: Store) -> None:
    data = edit(tab.ids)
    tab.act(data.pop("act"), **data)
    document, revision = store.open(tab.bar["document"])
    assert revision == 2
    assert document.nodes == tab.session.document.nodes
    assert (document.title, len(document.nodes)) == (tab.bar["title"], len(tab.list["nodes"]))
    assert len(tab.map["nodes"]) == len(tab.list["nodes"])
    tab.act("undo")
    assert store.open(tab.bar["document"])[0].text == STORY


def test_the_model_that_writes_can_be_chosen(tab: Tab) -> None:
    kinds = [kind for kind, _ in tab.list["models"]]
    assert tab.list["model"] == kinds[0]
    for kind in reversed(kinds):
        tab.act("model", model=kind)
        assert tab.list["model"] == kind
        tab.act("continue", n=1)
        assert tab.session.document.nodes[-1].provenance.parameters["model"] == kind
        tab.act("undo")
    tab.act("model", model="huge")
    assert tab.list["model"] == kinds[0]


def test_reading_in_another_language_changes_nothing_until_it_is_kept(tab: Tab, store: Store) -> None:
    own = tab.texts
    tab.act("read", lang="fra_Latn")
    assert tab.list["reading"] == {"name": "French", "decoded": 3}
    assert all(node["decoded"] and node["own"] == text for node, text in zip(tab.list["nodes"], own, strict=True))
    assert store.open(tab.bar["document"]) == (tab.session.document, 1)
    french = tab.texts
    tab.act("rewrite", id=tab.ids[0], text="Le chat dort.")
    assert [node["decoded"] for node in tab.list["nodes"]] == [False, True, True]
    tab.act("translate")
    assert tab.list["reading"] is None
    assert tab.texts == ["Le chat dort.", *french[1:]]
    assert {node.lang for node in store.open(tab.bar["document"])[0].nodes} == {"fra_Latn"}


def test_looks_answer_without_changing_anything(tab: Tab) -> None:
    a, b, c = tab.ids
    before = tab.session.document
    between = tab.look(want="between", a=a, b=b, t=0.5)
    assert between["text"]
    assert len(between["at"]) == 2
    assert tab.look(want="between", a=a, b=b, t=0.0)["at"] == pytest.approx(
        [tab.map["nodes"][0]["x"], tab.map["nodes"][0]["y"]], abs=1e-3
    )
    assert tab.look(want="blend", ids=[a, b, c], weights=[1, 1, 1])["text"]
    assert tab.look(want="arithmetic", ids=[a, b, c])["text"]
    assert tab.look(want="place", x=0.0, y=0.0, frame="landscape")["at"] == [0.0, 0.0]
    found = tab.look(want="alternatives", id=a, n=3, seed=0)
    assert found.keys() == {"texts"} if found["texts"] else "No other wording" in found["refused"]
    assert "weights" in tab.look(want="blend", ids=[a, b], weights=[0, 0])["refused"]
    assert "no longer" in tab.look(want="between", a=a, b="gone", t=0.5)["refused"]
    assert tab.session.document is before


def test_no_other_wording_is_told_in_a_sentence(tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    wordings = ["The old man lived at the sea."]
    monkeypatch.setattr(Editor, "alternatives", lambda self, node_id, n, seed: wordings)
    assert tab.look(want="alternatives", id=tab.ids[0], n=3, seed=0)["texts"] == wordings
    wordings.clear()
    answered = tab.look(want="alternatives", id=tab.ids[0], n=3, seed=0)
    assert answered["texts"] == [] and answered["refused"] == "No other wording was found that surely says the same."


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ({"text": "   "}, "no text"),
        ({"text": "🙂"}, "no words"),
        ({"text": "Hello there.", "lang": "xxx_Latn"}, "xxx_Latn"),
        ({"text": "Это другой алфавит."}, "script"),
        ({"text": "one\0two"}, "NUL"),
        ({"text": "word " * 1_000_000}, "characters"),
        ({"name": "a.txt", "base64": base64.b64encode(b"caf\xe9").decode()}, "not UTF-8"),
        ({"name": "a.txt", "size": 10**9}, "too|more than"),
        ({"name": "a.json", "base64": base64.b64encode(b"{}").decode()}, "JSON"),
    ],
)
def test_bad_imports_are_told_in_one_sentence_and_lose_nothing(tab: Tab, data: dict[str, Any], said: str) -> None:
    before = tab.session.document
    tab.act("import", **{"lang": "eng_Latn", **data})
    assert re.search(said, tab.said[0])
    assert len(tab.said) == 1
    assert tab.session.document is before
    assert tab.texts == [node.text for node in before.nodes]


def test_a_line_of_twenty_thousand_characters_becomes_sentences(tab: Tab) -> None:
    tab.act("import", text="and then he walked on, " * 900, lang="eng_Latn")
    assert len(tab.texts) > 20
    assert tab.session.document.text == "and then he walked on, " * 900


def test_two_tabs_conflict_and_both_are_kept(e: Engine, store: Store, tab: Tab) -> None:
    other = Tab(e, store, tab.bar["document"])
    tab.act("rewrite", id=tab.ids[0], text="The first tab wrote this.")
    other.act("rewrite", id=other.ids[0], text="The second tab wrote that.")
    assert not other.bar["saved"]
    assert "changed" in other.bar["conflict"]
    third = Tab(e, store, tab.bar["document"])
    third.act("rewrite", id=third.ids[1], text="The third tab is up to date.")
    assert third.bar["saved"]
    other.act("copy")
    assert other.bar["saved"]
    assert other.bar["conflict"] is None
    assert other.texts[0] == "The second tab wrote that."
    tab.act("delete", ids=[tab.ids[1]], then=None)
    assert tab.bar["conflict"]
    tab.act("reopen", document=tab.bar["document"])
    assert tab.texts[:2] == ["The first tab wrote this.", "The third tab is up to date."]
    assert len(store.documents()) == 3  # the sample, the story, the copy


def test_an_edit_that_can_not_be_stored_stays_and_is_not_called_saved(
    tab: Tab, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(store, "save", full)
        tab.act("rewrite", id=tab.ids[0], text="A storm came.")
        assert "disk is full" in tab.said[0] and "disk is full" in tab.bar["unsaved"]
        assert not tab.bar["saved"]
        assert tab.texts[0] == "A storm came."
        assert tab.act("new", lang="eng_Latn")["done"] is False
        assert "not saved yet" in tab.said[0]
        tab.act("rename", title="Storm")
        tab.act("undo")
    tab.act("save")
    assert tab.bar["saved"]
    assert store.open(tab.bar["document"])[0].nodes[0].text == "A storm came."
    steps = [(one.label, one.step) for one in store.revisions(tab.bar["document"])]
    assert steps[:3] == [("Undo Rename", "undo"), ("Rename", "edit"), ("Rewrite", "edit")]  # each as what it was
    assert (tab.bar["undo"], tab.bar["redo"]) == ("Rewrite", "Rename")


def test_a_database_that_is_gone_is_said_and_everything_goes_on_elsewhere(e: Engine, tab: Tab, store: Store) -> None:
    old = store.path
    old.unlink()
    tab.act("rewrite", id=tab.ids[0], text="A storm came.")
    assert (tab.bar["saved"], tab.bar["moved"]) == (False, True)
    assert "deleted or moved" in tab.bar["unsaved"] and not old.exists()
    assert tab.act("save")["bar"]["saved"] is False  # it is still gone
    tab.act("elsewhere")
    assert tab.bar["saved"] and "documents-2.db" in tab.said[0]
    tab.act("rename", title="Rescued")
    with Store(old.parent / "documents-2.db") as fresh:
        rescued = fresh.open(tab.bar["document"])[0]
        assert (rescued.title, rescued.nodes[0].text) == ("Rescued", "A storm came.")
        assert len(fresh.documents()) == 2  # the sample as well
        assert Tab(e, fresh, rescued.id).bar["undo"] == "Rename"


def test_two_tabs_go_on_in_the_same_new_database(e: Engine, tab: Tab, store: Store) -> None:
    other = Tab(e, store, desk=tab.desk)
    other.act("new")
    store.path.unlink()
    for one in (tab, other):
        one.act("rename", title="A storm")
        assert one.bar["moved"]
    for one in (tab, other):
        one.act("elsewhere")
        assert one.bar["saved"] and "documents-2.db" in one.said[0]


def test_only_what_can_not_be_shown_is_deleted_as_such(tab: Tab, store: Store) -> None:
    mine = tab.bar["document"]
    tab.desk.faults[mine] = "The database is in use by another program."  # which has passed
    assert tab.act("remove", document=mine)["done"] is False
    assert "can be shown after all" in tab.said[0]
    assert mine in [one.id for one in store.documents()] and not tab.desk.faults
    tab.act("remove", document="unknown")
    assert "not in the database" in tab.said[0]


def test_an_unexpected_error_is_one_plain_sentence(
    tab: Tab, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("inner")

    before = tab.session.document
    with monkeypatch.context() as broken:
        broken.setattr(Editor, "split", fail)
        assert tab.act("split", id=tab.ids[0], position=3)["done"] is False
    assert "Something went wrong" in tab.said[0] and "left as it is" in tab.said[0]
    assert "KeyError" not in tab.said[0] and "KeyError" in caplog.text
    assert tab.session.document is before and len(tab.texts) == 3

    with monkeypatch.context() as broken:  # after it was stored, that is not said
        broken.setattr(Engine, "read", fail)
        tab.act("read", lang="fra_Latn")
        assert "left as it is" in tab.said[0]
        tab.session.reading = "fra_Latn"
        assert tab.act("rename", title="Another name")["done"]
    assert "after the document was saved" in tab.said[0] and "left as it is" not in "".join(tab.said)
    assert tab.bar["saved"] and tab.bar["title"] == "Another name"
    assert tab.bar["reading"] is None and len(tab.texts) == 3  # what can't be translated is shown as it was written


def test_an_empty_page_can_be_written_on(tab: Tab, store: Store) -> None:
    tab.act("new", lang="deu_Latn")
    assert (tab.bar["title"], tab.texts) == ("Untitled", [])
    tab.act("insert", index=0, text="Die Sonne scheint. Es ist warm.")
    assert tab.texts == ["Die Sonne scheint.", "Es ist warm."]
    assert store.open(tab.bar["document"])[0].text == "Die Sonne scheint. Es ist warm."


@pytest.mark.parametrize(("form", "extension"), [("text", "txt"), ("markdown", "md"), ("json", "json")])
def test_exports(tab: Tab, form: str, extension: str) -> None:
    tab.act("rename", title="../A <title>: of/mine")
    tab.act("export", format=form)
    download = tab.download
    assert download
    assert download["name"] == f"A-title-of-mine.{extension}"
    if form == "text":
        assert download["text"] == STORY
    if form == "json":
        tab.act("import", name="again.json", base64=base64.b64encode(download["text"].encode()).decode())
        assert tab.session.document.text == STORY
        assert tab.bar["title"] == "../A <title>: of/mine"
    tab.act("undo") if form != "json" else None
    assert tab.download is None


def test_work_is_asked_after_and_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    def task(progress: Callable[[int, int], None]) -> str:
        for done in range(1000):
            progress(done, 1000)
            threading.Event().wait(0.01)
        return "done"

    work = Work(task)
    while not work.wait(0.05):
        assert work.progress[1] in (0, 1000)
        work.stop()
    with pytest.raises(Cancelled):
        work.result()

    quick = Work(lambda progress: 7)
    assert quick.wait(10) and quick.result() == 7

    monkeypatch.setattr("app.work.PATIENCE", 0.1)
    forgotten = Work(task)
    time.sleep(0.5)
    assert forgotten.finished
    with pytest.raises(Cancelled):
        forgotten.result()


def test_a_stopped_import_leaves_the_page_as_it_was(tab: Tab) -> None:
    before = tab.session.document
    long = " ".join(f"The traveller came to house number {n}." for n in range(2000))
    tab.number += 1
    running = tab.once("import", tab.number, text=long, lang="eng_Latn")
    assert (running["state"], running["progress"][0]) == ("running", ACTS["import"].name)
    tab.ask("stop")
    assert tab.settle("import")["done"] is False
    assert (tab.said, tab.bar["title"]) == (["Stopped; nothing was changed."], before.title)
    assert tab.session.document is before


def test_languages_of_the_web() -> None:
    assert [view.web_language(code) for code in ("eng_Latn", "por_Latn", "swh_Latn")] == ["en", "pt", "sw"]
