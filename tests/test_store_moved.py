"""The file is deleted, moved, replaced or overwritten while it is open: what is said to be saved is on disk."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from toy_documents import story

from engine.document import Document
from engine.errors import ConflictError, MovedError, StoreError
from engine.store import Store
from engine.store.database import Database

pytestmark = pytest.mark.skipif(os.name != "posix", reason="elsewhere a file that is open can't be taken away")

BASE = story("One.", "Two.", id="story")


def version(number: int) -> Document:
    return replace(BASE, title=f"Version {number}")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """With three revisions of a document, and a copy of the file and another database in reach."""
    monkeypatch.setattr("platformdirs.user_data_path", lambda *names, **options: tmp_path / "home" / "conceptscape")
    with Store(tmp_path / "place" / "documents.db", timeout=0.2) as opened:
        for number in (1, 2, 3):
            opened.save(version(number), f"Save {number}", number - 1 or None)
            if number == 2:
                shutil.copy(opened.path, tmp_path / "copy.db")
        with Store(tmp_path / "other.db") as other:
            other.save(story("Other.", id="other"), "Import", None)
        foreign = sqlite3.connect(tmp_path / "foreign.db")
        foreign.execute("create table documents (title)")
        foreign.close()
        yield opened


def beside(store: Store) -> Path:
    return store.path.parents[1]


def newest(path: Path) -> int:
    """The newest revision of the story in the file, as a program that is started now finds it; 0 for none."""
    if not path.exists():
        return 0
    with Store(path, timeout=0.2) as fresh:
        return next((one.revision for one in fresh.documents() if one.id == "story"), 0)


TAKEN: dict[str, Callable[[Store], object]] = {
    "deleted": lambda s: s.path.unlink(),
    "moved": lambda s: s.path.rename(s.path.with_name("moved.db")),
    "replaced by another": lambda s: os.replace(beside(s) / "other.db", s.path),
    "replaced by a copy": lambda s: os.replace(beside(s) / "copy.db", s.path),
    "replaced by a text": lambda s: (s.path.unlink(), s.path.write_text("No database.")),
    "replaced by a folder": lambda s: (s.path.unlink(), s.path.mkdir()),
    "folder deleted": lambda s: shutil.rmtree(s.path.parent),
    "folder moved": lambda s: s.path.parent.rename(beside(s) / "elsewhere"),
    "link to another": lambda s: (s.path.unlink(), s.path.symlink_to(beside(s) / "other.db")),
    "dead link": lambda s: (s.path.unlink(), s.path.symlink_to("nowhere")),
}


@pytest.mark.parametrize("what", TAKEN)
def test_nothing_is_saved_to_a_file_that_is_not_there(store: Store, what: str, tmp_path: Path) -> None:
    TAKEN[what](store)
    other = store.path.read_bytes() if store.path.is_file() else None
    for _ in range(2):
        with pytest.raises(MovedError, match=r"^The database .* while it was open, and .*; save to another file\.$"):
            store.save(version(4), "Save 4", 3)
    with pytest.raises(MovedError):
        store.delete("story")
    assert (store.path.read_bytes() if store.path.is_file() else None) == other
    assert store.open("story") == (version(3), 3)  # reading goes on
    assert [summary.id for summary in store.documents()] == ["story"]

    old = store.path
    path = store.save_elsewhere()
    folder = tmp_path / "home" / "conceptscape" if what.startswith("folder") else old.parent
    assert path == store.path == folder / "documents-2.db"
    assert store.save(version(4), "Save 4", 3) == newest(path) == 4
    with Store(path) as fresh:
        for number in (1, 2, 3, 4):
            assert fresh.open("story", number) == (version(number), number)
    assert (old.read_bytes() if old.is_file() else None) == other


@pytest.mark.parametrize("ends", ["-wal", "-shm", "-journal"])
def test_files_beside_it_don_t_matter(store: Store, ends: str) -> None:
    beside_it = store.path.with_name(store.path.name + ends)
    beside_it.unlink(missing_ok=True)
    assert store.save(version(4), "Save 4", 3) == newest(store.path) == 4
    assert [path.name for path in store.path.parent.iterdir()] == ["documents.db"]  # one file is all


@pytest.mark.parametrize("what", ["copy", "other", "foreign", "empty", "text"])
def test_what_is_said_is_true_of_a_file_that_is_overwritten(store: Store, what: str) -> None:
    text = {"empty": "", "text": "No database. " * 1000}
    if what in text:
        store.path.write_text(text[what])
    else:
        shutil.copyfile(beside(store) / f"{what}.db", store.path)
    other = store.path.read_bytes()
    with pytest.raises((MovedError, ConflictError)) as caught:
        store.save(version(4), "Save 4", 3)
    assert store.path.read_bytes() == other
    if what in ("copy", "other"):  # these are databases of ours: their documents are those that are there
        assert isinstance(caught.value, ConflictError)
        assert newest(store.path) == (2 if what == "copy" else 0)
    else:
        assert isinstance(caught.value, MovedError)
    store.save_elsewhere()
    assert store.save(replace(version(4), id="mine"), "Copy", None) == 1
    assert store.path.name == "documents-2.db"


@pytest.mark.parametrize("what", ["deleted", "moved", "folder deleted", "replaced by a copy"])
def test_taken_away_while_it_is_written(store: Store, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check, calls = Database.check_place, []

    def taken(database: Database) -> None:
        calls.append(database)
        if len(calls) == 2:  # after the commit, before the number is returned
            TAKEN[what](store)
        check(database)

    monkeypatch.setattr(Database, "check_place", taken)
    with pytest.raises(MovedError):
        store.save(version(4), "Save 4", 3, act="tab 1")
    assert newest(store.path) == (2 if what == "replaced by a copy" else 0)
    store.save_elsewhere()
    assert store.save(version(4), "Save 4", 3, act="tab 1") == newest(store.path) == 4
    assert [one.label for one in store.revisions("story")] == ["Save 4", "Save 3", "Save 2", "Save 1"]
    with pytest.raises(ConflictError):
        store.save(version(5), "Save 5", 3)


def test_a_first_revision_that_nobody_was_told_of(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    check, calls = Database.check_place, []

    def taken(database: Database) -> None:
        calls.append(database)
        if len(calls) == 2:
            store.path.unlink()
        check(database)

    monkeypatch.setattr(Database, "check_place", taken)
    new = story("New.", id="new")
    with pytest.raises(MovedError):
        store.save(new, "Import", None)
    store.save_elsewhere()
    assert store.save(new, "Import", None) == 1
    assert store.save(new, "Edit", 1) == 2


def test_a_file_that_comes_back_is_used_again(store: Store) -> None:
    away = store.path.with_name("away.db")
    store.path.rename(away)
    with pytest.raises(MovedError, match="deleted or moved"):
        store.save(version(4), "Save 4", 3)
    away.rename(store.path)
    assert store.save(version(4), "Save 4", 3) == newest(store.path) == 4


def test_replaced_while_it_is_opened(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    path, prepare = store.path, Database._prepare

    def taken(database: Database) -> bool:
        path.unlink()
        return prepare(database)

    monkeypatch.setattr(Database, "_prepare", taken)
    with pytest.raises(MovedError):
        Store(path)


def test_another_program_s_journal_is_left_alone(store: Store) -> None:
    journal = store.path.with_name("documents.db-journal")
    os.replace(beside(store) / "other.db", store.path)
    journal.write_bytes(b"\xd9\xd5\x05\xf9 the journal of the file that came" + bytes(600))
    for call in (store.documents, lambda: store.open("story"), store.save_elsewhere):
        with pytest.raises(MovedError, match="replaced"):
            call()
    assert journal.exists() and sorted(path.name for path in store.path.parent.iterdir()) == [
        "documents.db",
        "documents.db-journal",
    ]
    journal.unlink()
    assert store.open("story") == (version(3), 3)


def test_no_file_is_ever_overwritten(store: Store) -> None:
    taken = [store.path.with_name(f"documents-{number}.db") for number in (2, 3)]
    taken[0].write_text("Mine.")
    taken[1].mkdir()
    store.path.unlink()
    assert store.save_elsewhere().name == "documents-4.db"
    store.path.unlink()
    assert store.save_elsewhere().name == "documents-4.db"  # not documents-4-2.db
    assert store.save_elsewhere().name == "documents-5.db"  # also where nothing is wrong
    assert store.save(version(4), "Save 4", 3) == 4
    assert taken[0].read_text() == "Mine."


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond `size`."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk(store: Store) -> None:
    size = store.path.stat().st_size
    long = replace(version(4), nodes=story(*(f"Sentence {i}. " * 50 for i in range(100))).nodes)
    with full_disk(size), pytest.raises(StoreError, match="disk"):
        store.save(long, "Save 4", 3)
    assert newest(store.path) == 3
    old = store.path
    store.path.unlink()
    for limit in (0, 4096, size - 4096):
        with full_disk(limit), pytest.raises(StoreError) as caught:
            store.save_elsewhere()
        assert len(str(caught.value)) <= 300
        assert store.path == old and list(old.parent.iterdir()) == []
        assert store.open("story") == (version(3), 3)
    store.save_elsewhere()
    assert store.save(long, "Save 4", 3) == newest(store.path) == 4


def test_no_folder_takes_the_new_file(store: Store) -> None:
    shutil.rmtree(store.path.parent)
    (beside(store) / "home").write_text("A file where the folder should be.")
    old = store.path
    with pytest.raises(StoreError, match=r"No new database could be made .*; export this document"):
        store.save_elsewhere()
    assert store.path == old and store.open("story") == (version(3), 3)
    (beside(store) / "home").unlink()
    store.save_elsewhere()
    assert store.save(version(4), "Save 4", 3) == newest(store.path) == 4


def test_sentences_stay_short(tmp_path: Path) -> None:
    folder = tmp_path.joinpath(*["a long folder name " * 5] * 3)
    name = "a very long title\n" * 50
    with Store(folder / "documents.db") as store:
        document = replace(BASE, title=name)
        store.save(document, name, None)
        store.save(document, name, 1)
        calls: list[Callable[[], object]] = [
            lambda: store.save(document, name, 1),
            lambda: store.save(document, name, None),
            lambda: store.save(replace(document, id="new"), name, 1),
            lambda: store.open("story", 9),
            lambda: (store.path.unlink(), store.save(document, name, 2)),
            lambda: (store.close(), store.save_elsewhere()),
        ]
        for call in calls:
            with pytest.raises(StoreError) as caught:
                call()
            assert len(str(caught.value)) <= 300 and "\n" not in str(caught.value)
