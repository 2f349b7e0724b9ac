"""The tables of the database, and how those of an older file become them."""

from __future__ import annotations

import sqlite3

import sqlite_utils

APPLICATION = 0x436F6E63  # PRAGMA application_id, "Conc": tells our file from another program's
SCHEMA = 2  # PRAGMA user_version; a file with a higher one was written by a newer Conceptscape


def is_empty(db: sqlite_utils.Database) -> bool:
    """Whether nothing was ever written to the file."""
    return not (pragma(db, "application_id") or pragma(db, "user_version") or db.table_names())


def is_ours(db: sqlite_utils.Database) -> bool:
    """Whether the file is one of Conceptscape's, of whatever version."""
    return pragma(db, "application_id") == APPLICATION


def is_current(db: sqlite_utils.Database) -> bool:
    """Whether the file has the tables below. To be called in a transaction."""
    try:
        return is_ours(db) and pragma(db, "user_version") == SCHEMA
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_NOTADB":
            return False
        raise


def pragma(db: sqlite_utils.Database, name: str) -> int:
    return int(db.execute(f"PRAGMA {name}").fetchone()[0])


def bring_up(db: sqlite_utils.Database) -> None:
    """Make the tables in an empty file, or bring an older file's up to date. To be called in a transaction."""
    if not is_ours(db):
        _create(db)
    elif pragma(db, "user_version") == 1:
        _from_1(db)
    # Written even where they stand there already: a folder that allows no journal is then named when the file is
    # opened, and not at the first edit.
    db.execute(f"PRAGMA application_id={APPLICATION}")
    db.execute(f"PRAGMA user_version={SCHEMA}")


def _create(db: sqlite_utils.Database) -> None:
    head = {"title": str, "lang": str, "space": str, "dim": int}
    # `saved` counts up with every save of any document: their order, whatever the clock says.
    documents = {"id": str, **head, "sentences": int, "revision": int, "updated": str, "saved": int}
    revisions = {"document": str, "number": int, "label": str, "created": str, "step": str, "act": str, **head}
    revisions["before"] = str
    revisions["path"] = str  # JSON: [node version, the spacing after it] for each sentence in order
    versions = {"id": int, "document": str, "digest": str, "node": str, "text": str, "lang": str}
    versions["provenance"] = str  # JSON
    versions["vector"] = bytes  # float32, little-endian
    db.create_table("documents", documents, pk="id", not_null=documents)
    db.create_table("revisions", revisions, pk=("document", "number"), not_null=revisions)
    table = db.create_table("node_versions", versions, pk="id", not_null=versions)
    table.create_index(["document", "digest"], unique=True)


def _from_1(db: sqlite_utils.Database) -> None:
    """Schema 1 knew neither `step` nor `act`, and ordered documents by the clock."""
    db.execute("alter table documents add column saved integer not null default 0")
    order = [row[0] for row in db.execute("select id from documents order by updated, rowid").fetchall()]
    db.conn.executemany("update documents set saved = ? where id = ?", list(enumerate(order, 1)))
    db.execute("alter table revisions add column step text not null default 'edit'")
    db.execute("alter table revisions add column act text not null default ''")
    db.execute(
        "update revisions set step = case"
        " when number = 1 or label in ('Save', 'Encode again') then 'same'"
        " when substr(label, 1, 5) = 'Undo ' then 'undo'"
        " when substr(label, 1, 5) = 'Redo ' then 'redo' else 'edit' end"
    )
