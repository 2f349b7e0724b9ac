"""Documents in SQLite: what was saved is there, and what went wrong is said."""

import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from toy_documents import DIM, node, story

from engine.document import ConceptNode, Document, Provenance, replace_node
from engine.errors import ConflictError, DocumentError, StoreError
from engine.store import Store, default_path

ROOT = Path(__file__).parents[1]


def count(store: Store, table: str) -> int:
    connection = sqlite3.connect(store.path)
    try:
        return int(connection.execute(f"select count(*) from {table}").fetchone()[0])
    finally:
        connection.close()


def test_opens_again_what_was_saved(tmp_path: Path) -> None:
    provenance = Provenance("interpolated", "interpolate", ("a", "b"), {"t": 0.25, "labels": ["x"]}, 7)
    document = Document(
        "Märchen", "deu_Latn", "other", (node("Eins.", 1, provenance=provenance, after="\r\n\r\n"),), "\ufeff "
    )
    with Store(tmp_path / "new" / "folder" / "documents.db") as store:
        assert store.save(document, "Import", None) == 1
    with Store(tmp_path / "new" / "folder" / "documents.db") as store:
        assert store.open(document.id) == (document, 1)
        (summary,) = store.documents()
        assert (summary.space, summary.dim, summary.sentences, summary.revision) == ("other", DIM, 1, 1)
        if os.name == "posix":
            assert stat.S_IMODE(store.path.parent.stat().st_mode) == 0o700
            assert stat.S_IMODE(store.path.stat().st_mode) == 0o600


def test_every_revision_stays(store: Store) -> None:
    first = story("One.", "Two.", before="\n")
    second = replace_node(first, replace(first.nodes[0], text="Uno."))
    third = replace(second, nodes=(), title="Empty")
    for i, (document, label) in enumerate([(first, "Import"), (second, "Rewrite"), (third, "Delete")]):
        assert store.save(document, label, i or None) == i + 1
    assert [(r.number, r.label) for r in store.revisions(first.id)] == [(3, "Delete"), (2, "Rewrite"), (1, "Import")]
    for number, document in enumerate([first, second, third], 1):
        assert store.open(first.id, number) == (document, number)
    assert store.open(first.id) == (third, 3)
    (summary,) = store.documents()
    assert (summary.title, summary.sentences, summary.dim) == ("Empty", 0, DIM)
    with pytest.raises(StoreError, match=r"no revision 9; its newest is 3"):
        store.open(first.id, 9)


def test_a_node_version_is_stored_once(store: Store) -> None:
    document = story("One.", "Two.", "Three.")
    store.save(document, "Import", None)
    moved = [replace(n, after=o.after) for n, o in zip(reversed(document.nodes), document.nodes, strict=True)]
    store.save(replace(document, nodes=tuple(moved)), "Move", 1)
    spaced = replace_node(document, replace(document.nodes[1], after="\n\n"))
    store.save(spaced, "Paragraph", 2)
    assert count(store, "node_versions") == 3
    store.save(replace_node(spaced, replace(document.nodes[1], text="Zwei.")), "Rewrite", 3)
    assert count(store, "node_versions") == 4
    other = replace(document, id="other")  # a copy with the same node ids
    store.save(other, "Copy", None)
    store.delete(document.id)
    assert store.open("other")[0] == other
    assert count(store, "node_versions") == 3
    assert count(store, "revisions") == 1


def test_newest_first_whatever_the_clock_says(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        hour = 23

        @classmethod
        def now(cls, zone=None):
            Clock.hour -= 1
            return datetime(2020, 1, 1, Clock.hour, tzinfo=zone)

    monkeypatch.setattr("engine.store.datetime", Clock)
    a, b, c = story("A."), story("B."), story("C.")
    for document in (a, b, c):
        store.save(document, "Import", None)
    store.save(a, "Rename", 1)
    assert [s.id for s in store.documents()] == [a.id, c.id, b.id]
    store.delete(a.id)
    store.save(b, "Rename", 1)
    assert [s.id for s in store.documents()] == [b.id, c.id]
    newer, older = store.revisions(b.id)
    assert (newer.number, older.number) == (2, 1) and newer.created < older.created


def test_the_later_save_is_told_of_the_first(store: Store) -> None:
    document = story("One.", "Two.")
    store.save(document, "Import", None)
    with Store(store.path) as tab:
        opened, base = tab.open(document.id)
        mine = replace(opened, title="Mine")
        store.save(replace(document, title="Theirs"), "Rename", 1)
        with pytest.raises(ConflictError, match=r"“Theirs” was changed elsewhere \(revision 2, “Rename”\).*revision 1"):
            tab.save(mine, "Rename", base)
        assert tab.open(document.id)[0].title == "Theirs"
        assert tab.save(replace(mine, id="copy"), "Copy", None) == 1
        with pytest.raises(ConflictError, match="stored already, as revision 2"):
            tab.save(mine, "Import", None)
        tab.delete(document.id)
        with pytest.raises(ConflictError, match="was deleted elsewhere"):
            store.save(mine, "Rename", 2)
        with pytest.raises(StoreError, match="not in the database"):
            store.open(document.id)
        with pytest.raises(StoreError, match="not in the database"):
            store.delete(document.id)
        assert store.revisions(document.id) == []


def test_a_failed_save_leaves_nothing(store: Store) -> None:
    document = story("One.")
    odd = ConceptNode("Two.", "eng_Latn", np.ones(DIM + 1, np.float32))
    for broken in (
        replace(document, nodes=(node("\ud800 broken"),)),
        replace(document, title="\udfff"),
        replace(document, nodes=(node("One.", provenance=Provenance(parameters={"x": object()})),)),
        replace(document, nodes=(*document.nodes, odd)),
    ):
        with pytest.raises(DocumentError):
            store.save(broken, "Import", None)
    assert store.documents() == []
    assert count(store, "node_versions") == 0


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
spacing = st.text(st.characters(exclude_categories=["Cs", "L", "M", "N"], exclude_characters="\0"), max_size=30)
parameters = st.dictionaries(
    texts, st.one_of(st.none(), st.booleans(), st.integers(-(2**53), 2**53), texts), max_size=3
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    title=texts,
    before=spacing,
    label=texts,
    sentences=st.lists(st.tuples(texts, spacing, parameters, st.floats(0.25, 64, width=32)), max_size=4),
)
def test_any_text_comes_back(store: Store, title: str, before: str, label: str, sentences: list) -> None:
    nodes = tuple(
        ConceptNode(f"a{text}", "eng_Latn", np.full(DIM, x), Provenance(parameters=given_parameters), after)
        for text, after, given_parameters, x in sentences
    )
    document = Document(title, "eng_Latn", "builtin", nodes, before)
    store.save(document, label, None)
    assert store.open(document.id) == (document, 1)
    assert store.revisions(document.id)[0].label == label


@pytest.mark.parametrize("text", ["'; drop table documents; --", "<script>alert(1)</script>", "[1]", "null"])
def test_text_is_data(store: Store, text: str) -> None:
    document = replace(story(f"{text} x"), title=text, before="'; --", lang=text, space=f"{text} 1")
    store.save(document, text, None)
    assert store.open(document.id)[0] == document
    assert [(s.title, s.lang) for s in store.documents()] == [(text, text)]
    for unknown in (text, f"{document.id}'; --"):
        with pytest.raises(StoreError, match="not in the database"):
            store.open(unknown)


WRITER = """
import sys
from dataclasses import replace
from datetime import datetime
import numpy as np
from engine.document import ConceptNode, Document
from engine.store import Store
store = Store(sys.argv[1])
vector = np.ones(512, np.float32)
nodes = tuple(ConceptNode(f"Sentence {i}.", "eng_Latn", vector, id=str(i)) for i in range(20))
document, base = Document("Story", "eng_Latn", "builtin", nodes, id="story"), None
while True:
    text = f"Version {(base or 0) + 1}."
    document = replace(document, nodes=(ConceptNode(text, "eng_Latn", vector, id="0"), *document.nodes[1:]))
    base = store.save(document, text, base)
    print(base, flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
@pytest.mark.parametrize("saves", [1, 7, 60])
def test_a_killed_process_loses_nothing(tmp_path: Path, saves: int) -> None:
    path = tmp_path / "documents.db"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stdout is not None
    for _ in range(saves):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    printed = max([saves, *map(int, process.stdout.read().split())])
    process.wait()
    with Store(path) as store:
        document, newest = store.open("story")
        assert newest in (printed, printed + 1)  # one may have been saved and not yet printed
        assert document.nodes[0].text == f"Version {newest}."
        for revision in store.revisions("story"):
            assert store.open("story", revision.number)[0].nodes[0].text == revision.label
        assert store.save(document, "Go on", newest) == newest + 1


def test_threads_share_a_store(store: Store) -> None:
    lost: list[ConflictError] = []
    broken: list[BaseException] = []
    shared = story("Shared.")
    store.save(shared, "Import", None)

    def work(number: int) -> None:
        try:
            own, base = story(f"Own {number}."), None
            for _ in range(10):
                base = store.save(own, "Edit", base)
                assert store.open(own.id) == (own, base)
                try:
                    store.save(shared, "Edit", store.open(shared.id)[1])
                except ConflictError as error:
                    lost.append(error)
                store.documents()
        except BaseException as error:
            broken.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not broken
    assert store.open(shared.id)[1] == 61 - len(lost)  # a save either counted or was refused
    assert sorted(s.revision for s in store.documents() if s.id != shared.id) == [10] * 6


@pytest.mark.parametrize("attempt", range(12))  # what goes wrong here goes wrong now and then
def test_processes_open_a_new_file_at_once(attempt: int, tmp_path: Path) -> None:
    path = tmp_path / "documents.db"
    start = threading.Barrier(6)
    broken: list[BaseException] = []

    def work(number: int) -> None:  # connections of their own: to SQLite the same as processes of their own
        start.wait()
        try:
            with Store(path) as store:
                store.save(story(f"{number}."), "Import", None)
        except BaseException as error:
            broken.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not broken
    with Store(path) as store:
        assert len(store.documents()) == 6


def test_a_locked_database_is_named(store: Store) -> None:
    document = story("One.")
    store.save(document, "Import", None)
    other = sqlite3.connect(store.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="in use by another program"):
        store.save(document, "Edit", 1)
    with pytest.raises(StoreError, match="in use by another program"):
        Store(store.path, timeout=0.1)
    assert store.open(document.id) == (document, 1)  # reading goes on
    other.execute("ROLLBACK")
    other.close()
    assert store.save(document, "Edit", 1) == 2


@contextmanager
def as_nobody() -> Iterator[None]:
    """Permissions don't bind root; give its rights up for a while."""
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.skipif(os.name != "posix", reason="needs permission bits")
@pytest.mark.parametrize(("folder", "file"), [(0o755, 0o444), (0o555, 0o644), (0o555, None), (0o000, 0o644)])
def test_a_read_only_database_is_named(tmp_path: Path, folder: int, file: int | None) -> None:
    place = tmp_path / "place"
    path = place / "documents.db"
    Store(path).close()
    if file is None:
        path.unlink()
    else:
        path.chmod(file)
    parents = [p for p in place.parents if p != Path("/") and p.stat().st_uid == os.geteuid()]
    modes = {p: stat.S_IMODE(p.stat().st_mode) for p in parents}
    if os.geteuid() == 0:
        for p in parents:
            p.chmod(modes[p] | 0o011)  # to be reached at all
    place.chmod(folder)
    try:
        with as_nobody(), pytest.raises(StoreError, match=r"read-only|permissions|does not allow"):
            Store(path, timeout=0.1)
    finally:
        place.chmod(0o700)
        for p, mode in modes.items():
            p.chmod(mode)


def test_what_is_no_database_of_ours(tmp_path: Path) -> None:
    text = tmp_path / "story.txt"
    text.write_text("Once upon a time there was a file that was no database. " * 40)
    with pytest.raises(StoreError, match="is not a database"):
        Store(text)
    assert text.read_text().startswith("Once upon a time")
    with pytest.raises(StoreError, match="is not a file"):
        Store(tmp_path)
    with pytest.raises(StoreError, match="can't be opened"):
        Store(text / "documents.db")
    with pytest.raises(StoreError, match="can't be opened"):
        Store(tmp_path / "nul\0.db")
    foreign = tmp_path / "foreign.db"
    connection = sqlite3.connect(foreign)
    connection.execute("create table documents (title)")
    connection.close()
    before = foreign.read_bytes()
    with pytest.raises(StoreError, match="another program"):
        Store(foreign)
    assert foreign.read_bytes() == before


def test_a_closed_store_says_so(store: Store) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        store.documents()
    with pytest.raises(StoreError, match="is closed"):
        store.save(story("One."), "Import", None)


def test_default_path() -> None:
    assert default_path().parts[-2:] == ("conceptscape", "documents.db")
