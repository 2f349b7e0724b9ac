"""What a damaged database still gives, and that the rest is refused in one sentence."""

import random
import sqlite3
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from toy_documents import node, story

from engine.errors import StoreError
from engine.store import Store


def run(store: Store, sql: str, *values: object) -> None:
    """Do to the file what nobody should."""
    connection = sqlite3.connect(store.path)
    connection.execute(sql, values)
    connection.commit()
    connection.close()


def test_a_newer_or_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "documents.db"
    with Store(path) as store:
        store.save(story(*(f"Sentence {i}." for i in range(200))), "Import", None)
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(StoreError, match="newer Conceptscape"):
        Store(path)
    cut = tmp_path / "cut.db"
    data = path.read_bytes()
    cut.write_bytes(data[:40] + b"\xff" * 3000 + data[3040 : len(data) // 2])
    with pytest.raises(StoreError, match=r"damaged|not a database"), Store(cut) as store:
        store.documents()


@pytest.mark.parametrize(
    "damage",
    [
        "update node_versions set vector = x'0000'",
        "update node_versions set vector = x'00000000'",
        "update node_versions set vector = x'' ",
        "update node_versions set vector = 'text'",
        "update node_versions set vector = cast(zeroblob(60) || x'0000c07f' as blob)",  # the last number is NaN
        "update node_versions set provenance = 'no json'",
        "update node_versions set provenance = '{\"extra\": 1}'",
        "delete from node_versions",
        "update revisions set path = 'no json'",
        "update revisions set path = '[[1]]'",
    ],
)
def test_a_damaged_row_is_named(store: Store, damage: str) -> None:
    document = story("One.", "Two.")
    store.save(document, "Import", None)
    connection = sqlite3.connect(store.path)
    connection.execute(damage)
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match=r"“Story” is damaged"):
        store.open(document.id)
    assert len(store.documents()) == 1


BROKEN = "update node_versions set text = cast(x'80ff' as text) where text = ?"  # no UTF-8


def test_text_that_is_no_text_is_damaged(store: Store) -> None:
    document = story("One.", "Two.")
    store.save(document, "Import", None)
    run(store, BROKEN, "Two.")
    with pytest.raises(StoreError, match="Sentence 2 of “Story” is damaged"):
        store.open(document.id)
    run(store, "update documents set title = cast(x'53ff' as text), updated = 'no time'")
    run(store, "update revisions set title = cast(x'53ff' as text), label = cast(x'ff' as text), created = 7")
    with pytest.raises(StoreError, match="damaged"):
        store.open(document.id)
    assert [summary.title for summary in store.documents()] == ["S\ufffd"]
    assert store.revisions(document.id)[0].label == "\ufffd"
    assert store.history(document.id).undo == ()


def test_what_is_left_of_a_damaged_document_can_be_read(store: Store) -> None:
    document = story("One.", "Two.", "Three.", before="\t")
    assert store.readable(document.id) == ""
    store.save(document, "Import", None)
    newer = replace(document, nodes=(*document.nodes[:2], node("Drei.", 9)))
    store.save(newer, "Rewrite", 1)
    assert store.readable(document.id) == newer.text == "\tOne. Two. Drei. "
    run(store, "update node_versions set vector = x'00' where text = 'One.'")  # its text can still be read
    run(store, BROKEN, "Two.")
    assert store.readable(document.id) == "\tOne. \ufffd\ufffd Drei. "
    run(store, "delete from node_versions where text = 'One.'")
    run(store, "update revisions set path = replace(path, '[3,', '[3,1e400,') where number = 2")
    run(store, "update revisions set before = cast(x'ff' as text) where number = 2")
    assert store.readable(document.id) == "\ufffd\ufffd\ufffd Drei. "
    for path in ("no json", "7", "[]", "[[1]]", '[[99, ""], null, [[], 1], [{}, {}], [1e400, 2]]', "[" * 100_000):
        run(store, "update revisions set path = ? where number = 2", path)
        with suppress(StoreError):
            store.open(document.id)
        assert store.readable(document.id) == "\t\ufffd\ufffd Three. "  # from the revision before
    run(store, "update revisions set path = '[]'")
    assert store.readable(document.id) == ""
    run(store, "delete from revisions")
    assert store.readable(document.id) == ""
    with pytest.raises(StoreError, match="has no revision 1"):
        store.revision(document.id, 1)
    assert len(store.documents()) == 1
    store.delete(document.id)
    assert store.documents() == []


@pytest.mark.parametrize("seed", range(25))
def test_any_damage_is_said_in_a_sentence(seed: int, tmp_path: Path) -> None:
    path = tmp_path / "documents.db"
    document = story(*(f"Sentence {i}." for i in range(30)), id="story")
    with Store(path) as store:
        for number in range(10):
            changed = replace(document.nodes[number], text=f"Version {number}.")
            document = replace(document, nodes=(*document.nodes[:number], changed, *document.nodes[number + 1 :]))
            store.save(document, "Rewrite", number or None)
    draw = random.Random(seed)
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 10, 100])):
        size = draw.choice([1, 8, 200])
        at = draw.randrange(100, len(data) - size)
        data[at : at + size] = draw.randbytes(size)
    path.write_bytes(data)

    def check(store: Store) -> None:
        calls = [
            lambda: store.documents(),
            lambda: store.open("story"),
            lambda: store.open("story", 3),
            lambda: store.revisions("story"),
            lambda: store.revision("story", 1),
            lambda: store.history("story"),
            lambda: store.readable("story"),
            lambda: store.save(document, "Rewrite", 10),
            lambda: store.save(replace(document, id="copy"), "Copy", None),
            lambda: store.delete("story"),
            lambda: store.save_elsewhere(),
        ]
        for call in calls:
            try:
                call()
            except StoreError as error:
                assert len(str(error)) <= 300 and "\n" not in str(error)

    with suppress(StoreError), Store(path) as store:
        check(store)
