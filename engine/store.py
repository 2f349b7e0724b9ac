"""Documents on disk: one SQLite file, every revision kept, every concept stored once.

A document's revisions point at immutable node versions. An edit of one sentence therefore adds one node version
and one revision (the list of node versions, with the spacing that follows each), never a copy of the document.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import platformdirs
import sqlite_utils

from .document import ConceptNode, Document, Provenance
from .errors import ConflictError, StoreError, VectorError

SCHEMA = 1  # PRAGMA user_version; a file with a higher one was written by a newer Conceptscape
APPLICATION = 0x436F6E63  # PRAGMA application_id, "Conc": tells our file from another program's
FLOAT = np.dtype("<f4")  # little-endian on every machine, so that a file can be carried between them

# What SQLite calls a failure, and what a person can do about it.
FAILURES = {
    "BUSY": "The database {path} is in use by another program; close that program and try again.",
    "LOCKED": "The database {path} is in use by another program; close that program and try again.",
    "READONLY": "The database {path} is read-only; make it writable or choose another file.",
    "PERM": "The database {path} may not be opened; change its permissions or choose another file.",
    "AUTH": "The database {path} may not be opened; change its permissions or choose another file.",
    "CANTOPEN": "The database {path} can't be opened for writing; check the permissions of its folder.",
    "NOTADB": "The file {path} is not a database; choose another file.",
    "CORRUPT": "The database {path} is damaged; restore a copy of it or choose another file.",
    "FULL": "The disk is full and nothing was saved to {path}; make room and try again.",
    "IOERR": "The disk failed while the database {path} was used; check the disk and try again.",
}


@dataclass(frozen=True)
class Summary:
    """A document as lists show it, without its sentences."""

    id: str
    title: str
    lang: str
    space: str
    sentences: int
    updated: datetime  # UTC
    revision: int  # the newest
    dim: int  # of the space that its vectors belong to; 0 while it never had a sentence


@dataclass(frozen=True)
class Revision:
    number: int
    label: str  # what was done, e.g. "Rewrite"
    created: datetime  # UTC


def default_path() -> Path:
    """The database in the user's own data folder."""
    return platformdirs.user_data_path("conceptscape", appauthor=False) / "documents.db"


class Store:
    """The documents in one SQLite file.

    One connection behind one lock serves every thread: SQLite lets one writer in at a time anyway, each call takes
    milliseconds, and the page's threads come and go without anyone who would close connections of their own.
    Other processes may use the same file; whoever saves second is told by ConflictError.
    """

    def __init__(self, path: Path | str, timeout: float = 5.0) -> None:
        """Open the file, or make it and its folder. `timeout`: seconds to wait while another program writes.

        Raises StoreError where the file is locked, read-only, no database, another program's, or too new.
        """
        self.path = Path(path).expanduser().absolute()
        self._lock = threading.RLock()
        self._create_file()
        with self._failures():
            connection = sqlite3.connect(self.path, timeout=timeout, isolation_level=None, check_same_thread=False)
            try:
                self._db = sqlite_utils.Database(connection, execute_plugins=False)
                self._prepare()
                self._keep_safely(timeout)
            except BaseException:
                connection.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; later calls raise StoreError."""
        with self._lock, self._failures():
            self._db.close()

    def save(self, document: Document, label: str, base: int | None) -> int:
        """Store a new revision and return its number once it is safely on disk.

        `base` is the revision that the document was made from, None for a document not stored yet. Raises
        ConflictError where the stored document has moved on or is gone, StoreError where it can't be written; in
        both cases the file is as it was.
        """
        versions = [_version(document, node) for node in document.nodes]
        for text in (document.id, document.title, document.lang, document.space, document.before, label):
            _check_text(text)
        dims = {len(node.vector) for node in document.nodes}
        if len(dims) > 1:
            raise StoreError(f"“{document.title}” mixes concepts of different spaces and can't be saved.")
        with self._transaction():
            stored = self._row("select revision, dim from documents where id = ?", document.id)
            current = stored["revision"] if stored else None
            if current != base:
                raise ConflictError(self._conflict(document, base, current))
            number = (current or 0) + 1
            now = datetime.now(UTC).isoformat(timespec="microseconds")
            ids = self._version_ids(document.id, versions)
            path = [[ids[version["digest"]], version["after"]] for version in versions]
            head = {
                "title": document.title,
                "lang": document.lang,
                "space": document.space,
                "dim": dims.pop() if dims else (stored["dim"] if stored else 0),
            }
            summary = {**head, "sentences": len(path), "revision": number, "updated": now}
            if stored:
                self._db.table("documents").update(document.id, summary)
            else:
                self._db.table("documents").insert({"id": document.id, **summary})
            self._db.table("revisions").insert(
                {
                    "document": document.id,
                    "number": number,
                    "label": label,
                    "created": now,
                    **head,
                    "before": document.before,
                    "path": json.dumps(path, separators=(",", ":")),
                }
            )
        return number

    def open(self, document_id: str, revision: int | None = None) -> tuple[Document, int]:
        """A document as it was at a revision (the newest where None), and that revision's number.

        To bring an old revision back, save it with the newest revision as its base. Raises StoreError for a document
        or revision that is not there, or whose stored concepts are damaged.
        """
        with self._transaction("DEFERRED"):
            found = self._row("select title, revision from documents where id = ?", document_id)
            if found is None:
                raise StoreError("That document is not in the database; it may have been deleted.")
            number = found["revision"] if revision is None else revision
            row = self._row("select * from revisions where document = ? and number = ?", document_id, number)
            if row is None:
                raise StoreError(f"“{found['title']}” has no revision {number}; its newest is {found['revision']}.")
            try:
                path = [(int(version), str(after)) for version, after in json.loads(row["path"])]
            except (ValueError, TypeError) as error:
                raise StoreError(f"Revision {number} of “{row['title']}” is damaged; open an earlier one.") from error
            wanted = json.dumps([version for version, _ in path])
            versions = {
                version["id"]: version
                for version in self._db.query(
                    "select * from node_versions where id in (select value from json_each(?))", [wanted]
                )
            }
        nodes = []
        for place, (version, after) in enumerate(path, 1):
            try:
                nodes.append(_node(versions[version], after, row["dim"]))
            except (KeyError, ValueError, TypeError, VectorError) as error:
                raise StoreError(
                    f"Sentence {place} of “{row['title']}” is damaged in the database; open an earlier revision or "
                    "restore a copy of the file."
                ) from error
        return Document(row["title"], row["lang"], row["space"], tuple(nodes), row["before"], document_id), number

    def documents(self) -> list[Summary]:
        """Every document, the one saved last first."""
        with self._alone():
            rows = list(self._db.query("select * from documents order by updated desc, rowid desc"))
        return [Summary(**{**row, "updated": datetime.fromisoformat(row["updated"])}) for row in rows]

    def revisions(self, document_id: str) -> list[Revision]:
        """Every revision of a document, newest first; none for a document that is not there."""
        sql = "select number, label, created from revisions where document = ? order by number desc"
        with self._alone():
            rows = list(self._db.query(sql, [document_id]))
        return [Revision(row["number"], row["label"], datetime.fromisoformat(row["created"])) for row in rows]

    def delete(self, document_id: str) -> None:
        """Delete a document with all its revisions. Raises StoreError where it is not there."""
        with self._transaction():
            if self._row("select id from documents where id = ?", document_id) is None:
                raise StoreError("That document is not in the database; it may have been deleted already.")
            self._db.table("documents").delete(document_id)
            self._db.table("revisions").delete_where("document = ?", [document_id])
            self._db.table("node_versions").delete_where("document = ?", [document_id])

    def _create_file(self) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A file that is there is only looked at, never opened here: closing a second descriptor of it would drop
            # the locks that other connections of this process hold on it.
            with suppress(FileExistsError):
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            if not self.path.is_file():
                raise StoreError(f"{self.path} is not a file; choose a file for the database.")
        except PermissionError as error:
            raise StoreError(
                f"The database {self.path} can't be made because its folder does not allow it; choose another file."
            ) from error
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = getattr(error, "strerror", None) or error
            raise StoreError(f"The database {self.path} can't be opened ({reason}); choose another file.") from error

    def _prepare(self) -> None:
        """Check that the file is ours and not newer, and make the tables in an empty one."""
        with self._transaction():
            version = self._pragma("user_version")
            if self._pragma("application_id") != APPLICATION:
                if version or self._db.table_names():
                    raise StoreError(f"The database {self.path} belongs to another program; choose another file.")
                self._create_tables()
            elif version > SCHEMA:
                raise StoreError(
                    f"The database {self.path} was written by a newer Conceptscape; update this one or choose another "
                    "file."
                )

    def _keep_safely(self, timeout: float) -> None:
        """Choose how commits reach the disk."""
        # Readers and the writer don't wait for each other in WAL. A killed process loses nothing with any setting of
        # `synchronous`, since the system still holds what was written; FULL also waits for the disk at each commit (a
        # few milliseconds), so that a power cut loses nothing either. A file system that has no WAL keeps its journal.
        until = time.monotonic() + timeout
        while True:
            try:
                self._db.enable_wal()
                break
            except sqlite3.OperationalError as error:
                # SQLite does not wait for others at this switch, as it does elsewhere.
                if not error.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > until:
                    raise
                time.sleep(0.01)
        self._db.execute("PRAGMA synchronous=FULL")

    def _create_tables(self) -> None:
        head = {"title": str, "lang": str, "space": str, "dim": int}
        documents = {"id": str, **head, "sentences": int, "revision": int, "updated": str}
        revisions = {"document": str, "number": int, "label": str, "created": str, **head, "before": str}
        revisions["path"] = str  # JSON: [node version, the spacing after it] for each sentence in order
        versions = {"id": int, "document": str, "digest": str, "node": str, "text": str, "lang": str}
        versions["provenance"] = str  # JSON
        versions["vector"] = bytes  # float32, little-endian
        self._db.create_table("documents", documents, pk="id", not_null=documents)
        self._db.create_table("revisions", revisions, pk=("document", "number"), not_null=revisions)
        table = self._db.create_table("node_versions", versions, pk="id", not_null=versions)
        table.create_index(["document", "digest"], unique=True)
        self._db.execute(f"PRAGMA application_id={APPLICATION}")
        self._db.execute(f"PRAGMA user_version={SCHEMA}")

    def _version_ids(self, document_id: str, versions: list[dict[str, Any]]) -> dict[str, int]:
        """The row of each node version by its digest, storing those that are new."""
        known = self._known_versions(document_id, versions)
        new = {version["digest"]: version for version in versions if version["digest"] not in known}
        if not new:
            return known
        rows = [{name: value for name, value in version.items() if name != "after"} for version in new.values()]
        self._db.table("node_versions").insert_all(rows)
        return known | self._known_versions(document_id, list(new.values()))

    def _known_versions(self, document_id: str, versions: list[dict[str, Any]]) -> dict[str, int]:
        sql = "select digest, id from node_versions where document = ? and digest in (select value from json_each(?))"
        digests = json.dumps([version["digest"] for version in versions])
        return {row["digest"]: row["id"] for row in self._db.query(sql, [document_id, digests])}

    def _conflict(self, document: Document, base: int | None, current: int | None) -> str:
        if current is None:
            return f"“{document.title}” was deleted elsewhere; save yours as a copy to keep it."
        row = self._row("select title, label from revisions where document = ? and number = ?", document.id, current)
        title, label = (row["title"], row["label"]) if row else (document.title, "")
        if base is None:
            return f"“{title}” is stored already, as revision {current}; open that one or save yours as a copy."
        return (
            f"“{title}” was changed elsewhere (revision {current}, “{label}”) after you opened revision {base}; "
            "open the newer one or save yours as a copy."
        )

    def _row(self, sql: str, *values: object) -> dict[str, Any] | None:
        return next(iter(self._db.query(sql, values)), None)

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[0])

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        """All or nothing. IMMEDIATE takes the write lock at once: what was checked is still true when it is written."""
        with self._alone():
            self._db.execute(f"BEGIN {kind}")
            try:
                yield
                self._db.commit()
            except BaseException:
                self._db.rollback()
                raise

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with self._lock, self._failures():
            yield

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn what SQLite raises into one sentence."""
        try:
            yield
        except sqlite3.Error as error:
            # Extended names go on, as in SQLITE_IOERR_WRITE.
            name = (getattr(error, "sqlite_errorname", None) or "").removeprefix("SQLITE_").split("_")[0]
            if isinstance(error, sqlite3.ProgrammingError) and not name:
                raise StoreError(f"The database {self.path} is closed; open it again.") from error
            sentence = FAILURES.get(name, "The database {path} can't be used ({error}); choose another file.")
            raise StoreError(sentence.format(path=self.path, error=error)) from error


def _check_text(text: str) -> None:
    """SQLite holds UTF-8, which has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        shown = text[:60].encode(errors="replace").decode()
        raise StoreError(
            f"The text “{shown}” holds half of a character (a lone surrogate) and can't be saved; remove it."
        ) from error


def _version(document: Document, node: ConceptNode) -> dict[str, Any]:
    """The row of a node, and the spacing `after` it, which belongs to the place and not to the node version."""
    for text in (node.id, node.text, node.lang, node.after):
        _check_text(text)
    try:
        provenance = json.dumps(
            vars(node.provenance) | {"parameters": dict(node.provenance.parameters)}, sort_keys=True
        )
    except (TypeError, ValueError) as error:
        raise StoreError(f"The history of “{node.text}” holds a value that can't be saved ({error}).") from error
    vector = node.vector.astype(FLOAT).tobytes()
    digest = hashlib.blake2b(vector, digest_size=16)
    digest.update(json.dumps([node.id, node.text, node.lang, provenance]).encode())
    return {
        "document": document.id,
        "digest": digest.hexdigest(),
        "node": node.id,
        "text": node.text,
        "lang": node.lang,
        "provenance": provenance,
        "vector": vector,
        "after": node.after,
    }


def _node(version: dict[str, Any], after: str, dim: int) -> ConceptNode:
    """A node from its row. Raises KeyError, ValueError, TypeError or VectorError where the row is damaged."""
    vector = np.frombuffer(version["vector"], dtype=FLOAT)
    if vector.shape != (dim,):
        raise VectorError(f"{vector.shape[0]} numbers where {dim} are needed.")
    provenance = json.loads(version["provenance"])
    return ConceptNode(
        version["text"],
        version["lang"],
        vector,
        Provenance(**{**provenance, "parents": tuple(provenance["parents"])}),
        after,
        version["node"],
    )
