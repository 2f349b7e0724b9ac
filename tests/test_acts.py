"""The states of an act (docs/architecture.md): asked, running, answered, lost; and each act is done once."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from tabs import STORY, Tab, full

from app.acts import ACTS
from app.desk import Desk
from app.tab import Tab as AppTab
from engine import Engine
from engine.editor import Editor
from engine.store import Store


def restarted(tab: Tab, e: Engine, store: Store) -> Tab:
    """The program ended and began again; the page is as it was."""
    tab.desk = Desk(e, store)
    return tab


def test_an_act_asked_twice_is_done_once(tab: Tab) -> None:
    tab.act("insert", index=0, text="It was early.")
    first = tab.texts
    again = tab.settle("insert", index=0, text="It was early.")
    assert again["done"] and tab.texts == first
    assert len(tab.session.store.revisions(tab.bar["document"])) == 2


def test_a_running_act_is_asked_after(tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    rename = Editor.rename

    def slow(editor: Editor, title: str) -> Any:
        assert go_on.wait(30)
        return rename(editor, title)

    monkeypatch.setattr(Editor, "rename", slow)
    tab.number += 1
    for _ in range(2):
        assert tab.once("rename", tab.number, title="Slow")["state"] == "running"
    other = tab.once("rename", tab.number + 1, title="Meanwhile")  # the page asks one at a time; whoever does not
    assert (other["state"], other["done"], "still running" in other["said"][0][1]) == ("answered", False, True)
    go_on.set()
    assert tab.settle("rename", title="Slow")["done"]
    assert tab.bar["title"] == "Slow"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_restart_is_not_noticed(when: str, tab: Tab, e: Engine, store: Store) -> None:
    tab.act("read", lang="fra_Latn")
    tab.act("rewrite", id=tab.ids[0], text="Le vieil homme aimait la mer.")
    tab.number += 1
    data = {"ids": [tab.ids[0]], "index": 3}
    if when == "after":  # it was done and stored, and the answer never came
        while tab.once("move", tab.number, **data)["state"] == "running":
            pass
    restarted(tab, e, store)
    assert tab.settle("move", **data)["done"]
    assert tab.texts[-1] == "Le vieil homme aimait la mer."
    assert tab.list["reading"]["name"] == "French"
    assert [one.label for one in reversed(store.revisions(tab.bar["document"]))] == ["Import", "Rewrite", "Move"]
    tab.act("undo")
    tab.act("undo")
    assert store.open(tab.bar["document"])[0].text == STORY
    assert tab.bar["redo"] == "Rewrite"


@pytest.mark.parametrize("act", ["import", "copy"])
def test_a_new_document_is_made_once(act: str, tab: Tab, e: Engine, store: Store) -> None:
    tab.number += 1
    data = {"text": "Another story. It is short.", "lang": "eng_Latn"} if act == "import" else {}
    while tab.once(act, tab.number, **data)["state"] == "running":
        pass
    count = len(store.documents())
    restarted(tab, e, store)
    assert tab.settle(act, **data)["done"]
    assert len(store.documents()) == count
    assert tab.bar["document"] == store.documents()[0].id


def test_undo_and_redo_outlive_the_program(tab: Tab, e: Engine, store: Store) -> None:
    for n in range(4):
        tab.act("rename", title=f"Name {n}")
    tab.act("undo")
    tab.act("undo")
    later = Tab(e, store, tab.bar["document"])
    assert (later.bar["title"], later.bar["undo"], later.bar["redo"]) == ("Name 1", "Rename", "Rename")
    for title in ("Name 2", "Name 3"):
        later.act("redo")
        assert later.bar["title"] == title
    assert later.bar["redo"] == ""
    for _ in range(4):
        later.act("undo")
    assert later.bar["title"] == "The old man lived by the sea."
    assert later.bar["undo"] == ""


def test_questions_of_a_forgotten_tab_are_asked_again(tab: Tab, e: Engine, store: Store) -> None:
    restarted(tab, e, store)
    question = {"want": "between", "a": tab.ids[0], "b": tab.ids[1], "t": 0.5}
    assert tab.look(**question) == {"lost": True}
    tab.act("show")
    assert tab.look(**question)["text"]


def test_a_change_elsewhere_meanwhile_is_a_conflict(tab: Tab, e: Engine, store: Store) -> None:
    other = Tab(e, store, tab.bar["document"])
    other.act("rename", title="Changed elsewhere")
    restarted(tab, e, store)
    assert tab.act("rename", title="Changed here")["done"]
    assert "changed elsewhere" in tab.bar["conflict"]
    assert store.open(tab.bar["document"])[0].title == "Changed elsewhere"
    tab.act("copy")
    assert tab.bar["title"] == "Changed here (copy)" and tab.bar["saved"]


def test_what_was_not_saved_before_a_restart_is_said_and_can_be_kept(
    tab: Tab, e: Engine, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(store, "save", full)
        tab.act("rewrite", id=tab.ids[0], text="A storm came.")
        assert (tab.bar["saved"], "disk is full" in tab.bar["unsaved"]) == (False, True)
    restarted(tab, e, store)
    answer = tab.act("rename", title="Lost?")
    assert answer["state"] == "lost" and "keep what this page shows" in answer["why"]
    assert tab.act("import", text=" ".join(tab.texts), title="Kept", lang="eng_Latn")["done"]
    assert (tab.bar["title"], tab.texts[0]) == ("Kept", "A storm came.")


def test_an_older_copy_of_the_database_is_noticed(tab: Tab, e: Engine, store: Store) -> None:
    older = store.path.read_bytes()
    tab.act("rename", title="Mine")
    store.close()
    store.path.write_bytes(older)
    with Store(store.path) as again:
        other = Tab(e, again, tab.bar["document"])
        other.act("rename", title="Another way")  # revision 2 as well
        assert other.bar["revision"] == tab.bar["revision"] == 2
        answer = restarted(tab, e, again).act("delete", ids=tab.ids[:1])
        assert answer["state"] == "lost" and "older copy" in answer["why"]
        assert again.open(tab.at["document"])[0].title == "Another way"


def test_a_document_deleted_meanwhile_is_lost_and_another_opens(tab: Tab, e: Engine, store: Store) -> None:
    gone = tab.bar["document"]
    store.delete(gone)
    restarted(tab, e, store)
    answer = tab.act("rename", title="Where is it")
    assert answer["state"] == "lost" and "not in the database" in answer["why"]
    assert tab.act("open", document=store.documents()[0].id)["state"] == "answered"


def test_a_tab_that_left_is_forgotten_and_one_with_unsaved_work_is_not(
    tab: Tab, monkeypatch: pytest.MonkeyPatch
) -> None:
    tab.ask("leave")
    assert tab.name not in tab.desk._tabs
    tab.act("show")
    tab.session.saved = False
    tab.ask("leave")
    assert tab.name in tab.desk._tabs
    monkeypatch.setattr("app.desk.TABS", 3)
    others = [Tab(tab.session.engine, tab.session.store, desk=tab.desk) for _ in range(5)]
    assert tab.name in tab.desk._tabs and others[0].name not in tab.desk._tabs and len(tab.desk._tabs) <= 4


def test_a_tab_is_not_forgotten_while_it_is_asked(tab: Tab, e: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Tab(e, tab.session.store, desk=tab.desk)
    monkeypatch.setattr("app.desk.TABS", 1)
    ask = AppTab.ask

    def interrupted(asked: AppTab, *question: Any) -> Any:
        if asked.name == tab.name:
            other.look(want="between")
            assert tab.name in tab.desk._tabs
        return ask(asked, *question)

    monkeypatch.setattr(AppTab, "ask", interrupted)
    assert tab.act("rename", title="Once")["done"]
    assert other.act("show")["done"] and list(tab.desk._tabs) == [other.name]


def test_leaving_does_not_forget_an_act_under_way(tab: Tab, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    rename = Editor.rename
    monkeypatch.setattr(Editor, "rename", lambda *values: go_on.wait(30) and rename(*values))
    tab.number += 1
    assert tab.once("rename", tab.number, title="Once")["state"] == "running"
    tab.ask("leave")  # held up on its way: the page is shown again
    assert tab.name in tab.desk._tabs
    go_on.set()
    assert tab.settle("rename", title="Once")["done"] and not tab.bar["conflict"]


BAD: list[Any] = [
    b"", b"\xff", b"[" * 100_000, b"[]", b"null", b"7", b"{}", b'{"ask": "act"}', b'{"ask": 7, "tab": []}',
]  # fmt: skip
ODD: list[dict[str, Any]] = [
    {"ask": "act", "number": 1, "act": "nothing"},
    {"ask": "act", "number": "1", "act": "show"},
    {"ask": "act", "number": True, "act": "show"},
    {"ask": "act", "number": 1.5, "act": "show"},
    {"ask": "look", "data": {"want": "everything"}},
    {"ask": "look", "data": {"want": "between", "a": [], "b": {}, "t": "x"}},
    {"ask": "look", "data": {"want": "blend", "ids": []}},
    {"ask": "look", "data": {"want": "place", "x": 10**400, "y": 0, "frame": "landscape"}},
    {"ask": "look", "data": 7},
    {"ask": "chart", "frame": 7},
    {"ask": "destroy"},
]


def test_bad_requests_are_refused_in_a_sentence(tab: Tab, caplog: pytest.LogCaptureFixture) -> None:
    for body in BAD:
        answer = json.loads(tab.desk.answer(body))
        assert list(answer) == ["refused"] and answer["refused"].endswith("."), body
    for question in ODD:
        answer = json.loads(tab.desk.answer(json.dumps({"tab": tab.name, **question}).encode()))
        assert list(answer) == ["refused"] and answer["refused"].endswith("."), question
    assert caplog.text == ""


VALUES: list[Any] = [None, True, -1, 0, 1, 10**30, 1e308, "", "x", "eng_Latn", [], ["x"], [1], {"a": 1}]


def test_every_act_with_odd_values_is_answered(tab: Tab, caplog: pytest.LogCaptureFixture) -> None:
    names = ["id", "ids", "text", "index", "position", "amount", "seed", "t", "weights", "x", "y", "n", "lang", "title"]
    for what in ACTS:
        for i, value in enumerate(VALUES):
            data = {name: VALUES[(i + k) % len(VALUES)] for k, name in enumerate(names)}
            data[names[i % len(names)]] = value
            tab.number += 1
            while (answer := tab.once(what, tab.number, **data))["state"] == "running":
                tab.ask("stop")
            assert answer["state"] == "answered" and answer["number"] == tab.number, (what, data)
            assert "went wrong" not in "".join(text for _, text in answer["said"]), (what, data)
    assert caplog.text == ""
