"""Undo and redo outlive the program: they are rebuilt from the revisions. Files of the first schema get there too."""

import random
import sqlite3
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_documents import node, story

from engine.document import Document
from engine.editor import Editor, Step
from engine.errors import StoreError
from engine.store import History, Past, Store

NO_ENGINE: Any = None  # the edits below need none


class Writer:
    """Edits a document as the page does: every step is stored at once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        start = story("One.", "Two.", "Three.")
        self.editor = Editor(NO_ENGINE, start)
        self.revision = store.save(start, "Import", None)

    def take(self, kind: str, number: int) -> None:
        editor = self.editor
        nodes = editor.document.nodes
        ids = [nodes[number % len(nodes)].id] if nodes else []
        label = ""
        match kind:
            case "undo" if editor.can_undo:
                label = f"Undo {editor.undo_label}"
                editor.undo()
            case "redo" if editor.can_redo:
                label = f"Redo {editor.redo_label}"
                editor.redo()
            case "same":
                label = "Save"
            case "move" if ids:
                editor.move(ids, number % (len(nodes) + 1))
            case "duplicate" if ids and len(nodes) < 6:
                editor.duplicate(ids)
            case "delete" if ids:
                editor.delete(ids)
            case "reload":
                self.editor = reopened(self.store, editor.document.id)
                return
            case _:
                kind = "rename"
                editor.rename(f"Title {number}")
        step = kind if kind in ("undo", "redo", "same") else "edit"
        self.revision = self.store.save(editor.document, label or editor.undo_label, self.revision, step=step)


def reopened(store: Store, document_id: str) -> Editor:
    """An editor with the history that is stored."""

    def steps(found: tuple[Past, ...]) -> list[Step]:
        return [Step(past.label, lambda past=past: store.open(document_id, past.revision)[0]) for past in found]

    history = store.history(document_id)
    return Editor(NO_ENGINE, store.open(document_id)[0], undo=steps(history.undo), redo=steps(history.redo))


def walk(editor: Editor) -> list[tuple[str, str, Document]]:
    """All states that Undo and then Redo lead through, with what the steps are called."""
    forward = []
    while editor.can_redo:
        label = editor.redo_label
        forward.append(("redo", label, editor.redo()))
    back = []
    while editor.can_undo:
        label = editor.undo_label
        back.append(("undo", label, editor.undo()))
    return forward + back


KINDS = ["undo", "undo", "undo", "redo", "redo", "rename", "move", "duplicate", "delete", "same", "reload"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 9)), max_size=40))
def test_history_is_rebuilt(store: Store, steps: list[tuple[str, int]]) -> None:
    writer = Writer(store)
    for step in steps:
        writer.take(*step)
    again = reopened(store, writer.editor.document.id)
    assert again.document == writer.editor.document
    assert walk(again) == walk(writer.editor)


def test_a_long_history_is_rebuilt(store: Store) -> None:
    draw = random.Random(1)
    writer = Writer(store)
    for _ in range(400):
        writer.take(draw.choice([kind for kind in KINDS if kind != "reload"] + ["rename"] * 8), draw.randrange(10))
    again = reopened(store, writer.editor.document.id)
    assert len(store.history(again.document.id).undo) >= 100
    walked = walk(again)
    assert len(walked) >= 200
    assert walked == walk(writer.editor)


def test_three_hundred_steps_can_be_undone(store: Store) -> None:
    writer = Writer(store)
    for number in range(300):
        writer.take("rename", number)
    editor = reopened(store, writer.editor.document.id)
    for number in reversed(range(299)):
        assert editor.undo_label == "Rename" and editor.undo().title == f"Title {number}"
    assert editor.undo().title == "Story" and not editor.can_undo
    assert store.history("unknown") == History()


def test_ten_thousand_revisions_are_read_quickly(store: Store) -> None:
    document = story("One.")
    store.save(document, "Import", None)
    connection = sqlite3.connect(store.path)
    connection.executemany(
        "insert into revisions select document, ?, 'Rewrite', created, 'edit', act, title, lang, space, dim, before,"
        " path from revisions where number = 1",
        [(number,) for number in range(2, 10_001)],
    )
    connection.execute("update documents set revision = 10000")
    connection.commit()
    connection.close()
    start = time.perf_counter()
    history = store.history(document.id)
    assert time.perf_counter() - start < 2  # some 35 ms
    assert len(history.undo) == 9_999 and history.undo[-1] == Past("Rewrite", 9_999)
    assert store.save(document, "Edit", 10_000) == 10_001


def test_a_revision_knows_its_act(store: Store) -> None:
    document = story("One.")
    with pytest.raises(StoreError, match="not in the database"):
        store.revision(document.id, 1)
    store.save(document, "Import", None, act="tab a, 1")
    assert (store.revisions(document.id)[0].step, store.revisions(document.id)[0].act) == ("same", "tab a, 1")
    store.save(document, "Rewrite", 1, act="tab a, 2")
    store.save(document, "Undo Rewrite", 2, step="undo")
    newest = store.revisions(document.id)[0]
    assert (newest.number, newest.label, newest.step, newest.act) == (3, "Undo Rewrite", "undo", "")
    assert newest == store.revisions(document.id)[0]
    assert [one.act for one in store.revisions(document.id)] == ["", "tab a, 2", "tab a, 1"]


FIRST_SCHEMA = """
PRAGMA journal_mode=WAL;
CREATE TABLE "documents" ("id" TEXT PRIMARY KEY NOT NULL, "title" TEXT NOT NULL, "lang" TEXT NOT NULL,
  "space" TEXT NOT NULL, "dim" INTEGER NOT NULL, "sentences" INTEGER NOT NULL, "revision" INTEGER NOT NULL,
  "updated" TEXT NOT NULL);
CREATE TABLE "revisions" ("document" TEXT NOT NULL, "number" INTEGER NOT NULL, "label" TEXT NOT NULL,
  "created" TEXT NOT NULL, "title" TEXT NOT NULL, "lang" TEXT NOT NULL, "space" TEXT NOT NULL,
  "dim" INTEGER NOT NULL, "before" TEXT NOT NULL, "path" TEXT NOT NULL, PRIMARY KEY ("document", "number"));
CREATE TABLE "node_versions" ("id" INTEGER PRIMARY KEY NOT NULL, "document" TEXT NOT NULL, "digest" TEXT NOT NULL,
  "node" TEXT NOT NULL, "text" TEXT NOT NULL, "lang" TEXT NOT NULL, "provenance" TEXT NOT NULL,
  "vector" BLOB NOT NULL);
CREATE UNIQUE INDEX "idx_node_versions_document_digest" ON "node_versions" ("document", "digest");
PRAGMA application_id=0x436F6E63;
PRAGMA user_version=1;
"""
LABELS = [
    "Rewrite", "Merge", "Undo Merge", "Undo Rewrite", "Redo Rewrite", "Save", "Encode again", "Undone", "Undo Undone",
]  # fmt: skip


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A file of the first schema: a story with the revisions above, and two documents saved before and after it."""
    path = tmp_path / "old.db"
    connection = sqlite3.connect(path)
    connection.executescript(FIRST_SCHEMA)
    vector = node("One.").vector.tobytes()
    provenance = '{"kind": "written", "operation": "import", "parameters": {}, "parents": [], "seed": null}'
    for name, day, labels in (("new", 3, ["Import"]), ("old", 1, ["Copy"]), ("story", 2, ["Import", *LABELS])):
        moment = f"2026-01-0{day}T00:00:00.000000+00:00"
        head = ("Story", "eng_Latn", "builtin", 16)
        connection.execute("insert into documents values (?, ?,?,?,?, 1, ?, ?)", (name, *head, len(labels), moment))
        version = connection.execute(
            "insert into node_versions values (null, ?, ?, 'n', 'One.', 'eng_Latn', ?, ?)",
            (name, name, provenance, vector),
        ).lastrowid
        for number, label in enumerate(labels, 1):
            connection.execute(
                "insert into revisions values (?, ?, ?, ?, ?,?,?,?, '', ?)",
                (name, number, label, moment, *head, f'[[{version},"{" " * number}"]]'),
            )
    connection.commit()
    connection.close()
    return path


def test_a_file_of_the_first_schema(old: Path) -> None:
    with Store(old) as store:
        assert [summary.id for summary in store.documents()] == ["new", "story", "old"]
        steps = ["same", "edit", "edit", "undo", "undo", "redo", "same", "same", "edit", "undo"]
        assert [one.step for one in reversed(store.revisions("story"))] == steps
        assert store.history("story") == History((Past("Rewrite", 5),), (Past("Undone", 9),))
        for number in range(1, 11):
            assert store.open("story", number)[0].text == "One." + " " * number
        document, base = store.open("old")
        assert store.save(document, "Rename", base) == 2
        assert [summary.id for summary in store.documents()] == ["old", "new", "story"]
        assert store.revisions("story")[0].act == ""
    assert [path.name for path in old.parent.iterdir()] == ["old.db"]
    with Store(old) as store:
        assert [summary.id for summary in store.documents()] == ["old", "new", "story"]


def test_a_migration_that_fails_changes_nothing(old: Path) -> None:
    connection = sqlite3.connect(old)
    connection.execute("create trigger no before update on revisions begin select raise(abort, 'no'); end")
    connection.commit()
    connection.close()

    def dump() -> list[str]:
        connection = sqlite3.connect(old)
        lines = [*connection.iterdump(), str(connection.execute("PRAGMA user_version").fetchone())]
        connection.close()
        return lines

    before = dump()
    with pytest.raises(StoreError):
        Store(old)
    assert dump() == before
    connection = sqlite3.connect(old)
    connection.execute("drop trigger no")
    connection.commit()
    connection.close()
    with Store(old) as store:
        assert len(store.revisions("story")) == 10


def test_an_old_file_that_is_in_use(old: Path) -> None:
    connection = sqlite3.connect(old)
    connection.execute("select * from documents").fetchone()
    with pytest.raises(StoreError, match="in use by another program"):
        Store(old, timeout=0.1)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    connection.close()
    Store(old).close()


def test_programs_open_an_old_file_at_once(old: Path) -> None:
    start = threading.Barrier(4)
    broken: list[BaseException] = []

    def work() -> None:
        start.wait()
        try:
            with Store(old) as store:
                assert store.revisions("story")[0].step == "undo"
        except BaseException as error:
            broken.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not broken
