"""Documents on disk: one SQLite file, every revision kept, every concept stored once.

A document's revisions point at immutable node versions. An edit of one sentence therefore adds one node version
and one revision (the list of node versions, with the spacing that follows each), never a copy of the document.
"""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlite_utils

from .. import soundness
from ..document import Document
from ..errors import ConflictError, MovedError, StoreError, VectorError
from .database import Database, create_beside, default_path, shown
from .history import History, Past, StepKind, rebuild
from .rows import cleaned, to_moment, to_node, to_path, to_row

__all__ = ["History", "Past", "Revision", "StepKind", "Store", "Summary", "default_path"]


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
    step: StepKind  # what it is in the history
    act: str  # which act of which browser tab made it; empty where nobody said


class Store:
    """The documents in one SQLite file.

    One connection behind one lock serves every thread: SQLite lets one writer in at a time anyway, each call takes
    milliseconds, and the page's threads come and go without anyone who would close connections of their own.
    Other processes may use the same file; whoever saves second is told by ConflictError.
    """

    def __init__(self, path: Path | str, timeout: float = 5.0) -> None:
        """Open the file, or make it and its folder. `timeout`: seconds to wait while another program writes.

        A file of an older Conceptscape gets today's tables. Raises StoreError where the file is locked, read-only, no
        database, another program's, or too new.
        """
        self._lock = threading.RLock()
        self._first = Path(path).expanduser().absolute()
        self._database = Database(self._first, timeout)
        # Revisions that were written while the file was taken away: nobody was told of them, so that whoever made
        # them saves them again. For each document, the number.
        self._untold: dict[str, int] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def path(self) -> Path:
        """The file in use; another one after `save_elsewhere`."""
        return self._database.path

    def close(self) -> None:
        """Close the file; later calls raise StoreError."""
        with self._lock:
            self._database.close()

    def save(self, document: Document, label: str, base: int | None, *, step: StepKind = "edit", act: str = "") -> int:
        """Store a new revision and return its number once it is safely on disk, in the file that `path` leads to.

        `base` is the revision that the document was made from, None for a document not stored yet. `step` is what the
        revision is in the history, for a document's first one always "same"; `act` says which act made it. Raises
        DocumentError for a document that is not sound, ConflictError where the stored document has moved on or is
        gone, MovedError where the file was deleted, moved or replaced, other StoreErrors where it can't be written;
        then nothing is saved.
        """
        soundness.check(document)
        versions = [to_row(document, node) for node in document.nodes]
        with self._lock:
            with self._database.writing():
                stored = self._database.row("select revision, dim from documents where id = ?", document.id)
                current = stored["revision"] if stored else None
                if current and current == self._untold.get(document.id) and (base or 0) == current - 1:
                    self._db.execute("delete from revisions where document = ? and number = ?", [document.id, current])
                    current = base
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
                    "dim": len(document.nodes[0].vector) if document.nodes else (stored["dim"] if stored else 0),
                }
                saved = self._db.execute("select coalesce(max(saved), 0) + 1 from documents").fetchone()[0]
                summary = {**head, "sentences": len(path), "revision": number, "updated": now, "saved": saved}
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
                        "step": step if current else "same",
                        "act": act,
                        **head,
                        "before": document.before,
                        "path": json.dumps(path, separators=(",", ":")),
                    }
                )
            self._untold.pop(document.id, None)
            try:
                self._database.check_place()
            except MovedError:
                self._untold[document.id] = number
                raise
        return number

    def save_elsewhere(self) -> Path:
        """Go on in a new file that has all that the old one held, also where the old one was deleted or moved.

        It lies beside the old one (documents-2.db), or in the user's data folder where that folder is gone or takes no
        file. What another program wrote over the old file is not copied. Raises StoreError where the new file can't be
        made or filled; then the store goes on in the old one.
        """
        with self._lock:
            old, path = self._database, create_beside(self._first)
            try:
                new = Database(path, old.timeout)
            except BaseException:
                with suppress(OSError):
                    path.unlink()
                raise
            try:
                old.copy_to(new)
                new.check_place()
            except BaseException:
                new.discard()
                raise
            self._database = new
            with suppress(StoreError):
                old.close()
            return path

    def open(self, document_id: str, revision: int | None = None) -> tuple[Document, int]:
        """A document as it was at a revision (the newest where None), and that revision's number.

        To bring an old revision back, save it with the newest revision as its base. Raises StoreError for a document
        or revision that is not there, or whose stored concepts are damaged.
        """
        with self._lock, self._database.reading():
            found = self._found(document_id)
            number = found["revision"] if revision is None else revision
            row = self._database.row("select * from revisions where document = ? and number = ?", document_id, number)
            if row is None:
                raise StoreError(
                    f"“{shown(found['title'])}” has no revision {number}; its newest is {found['revision']}."
                )
            title = shown(row["title"])
            try:
                "".join((row["title"], row["lang"], row["space"], row["before"])).encode()
                path = to_path(row["path"])
            except (ValueError, TypeError, RecursionError) as error:
                raise StoreError(f"Revision {number} of “{title}” is damaged; open an earlier one.") from error
            versions = self._versions([version for version, _ in path])
        nodes = []
        for place, (version, after) in enumerate(path, 1):
            try:
                nodes.append(to_node(versions[version], after, row["dim"]))
            except (KeyError, ValueError, TypeError, VectorError) as error:
                raise StoreError(
                    f"Sentence {place} of “{title}” is damaged in the database; open an earlier revision or restore a "
                    "copy of the file."
                ) from error
        return Document(row["title"], row["lang"], row["space"], tuple(nodes), row["before"], document_id), number

    def readable(self, document_id: str) -> str:
        """What can be read of a document whose newest revision is damaged, without the sentences that can't.

        Where nothing can be read of the newest revision, it is that of the newest of which something can; an empty
        text where there is none. Raises StoreError where the file can't be read at all.
        """
        with self._lock, self._database.reading():
            sql = "select number from revisions where document = ? order by number desc"
            for number in [row["number"] for row in self._db.query(sql, [document_id])]:
                words = self._readable(document_id, number)
                if words:
                    return cleaned(words)
        return ""

    def documents(self) -> list[Summary]:
        """Every document, the one saved last first."""
        with self._lock, self._database.reading():
            rows = list(self._db.query("select * from documents order by saved desc"))
        return [
            Summary(
                row["id"],
                cleaned(row["title"]),
                row["lang"],
                row["space"],
                row["sentences"],
                to_moment(row["updated"]),
                row["revision"],
                row["dim"],
            )
            for row in rows
        ]

    def revision(self, document_id: str, number: int) -> Revision:
        """One revision of a document. Raises StoreError where it is not there."""
        with self._lock, self._database.reading():
            found = self._found(document_id)
            revisions = self._revisions("document = ? and number = ?", document_id, number)
        if not revisions:
            raise StoreError(f"“{shown(found['title'])}” has no revision {number}; its newest is {found['revision']}.")
        return revisions[0]

    def revisions(self, document_id: str) -> list[Revision]:
        """Every revision of a document, newest first; none for a document that is not there."""
        with self._lock, self._database.reading():
            return self._revisions("document = ? order by number desc", document_id)

    def history(self, document_id: str, revision: int | None = None) -> History:
        """What could be undone and redone when a revision (the newest where None) was stored; nothing for a document
        that is not there."""
        sql = "select number, label, step from revisions where document = ? and number <= ? order by number"
        with self._lock, self._database.reading():
            rows = self._db.execute(sql, [document_id, revision or sys.maxsize]).fetchall()
        return rebuild((number, cleaned(label), step) for number, label, step in rows)

    def made_by(self, act: str) -> str | None:
        """The id of the document that an act saved, None where it saved none."""
        sql = "select document from revisions where act = ? order by rowid desc limit 1"
        with self._lock, self._database.reading():
            row = self._db.execute(sql, [act]).fetchone()
        return row[0] if row else None

    def delete(self, document_id: str) -> None:
        """Delete a document with all its revisions, damaged ones too.

        Raises StoreError where it is not there, MovedError where the file was deleted, moved or replaced.
        """
        with self._lock:
            with self._database.writing():
                if self._database.row("select id from documents where id = ?", document_id) is None:
                    raise StoreError("That document is not in the database; it may have been deleted already.")
                self._db.execute("delete from documents where id = ?", [document_id])
                self._db.execute("delete from revisions where document = ?", [document_id])
                self._db.execute("delete from node_versions where document = ?", [document_id])
            self._database.check_place()

    @property
    def _db(self) -> sqlite_utils.Database:
        return self._database.db

    def _found(self, document_id: str) -> dict[str, Any]:
        found = self._database.row("select title, revision from documents where id = ?", document_id)
        if found is None:
            raise StoreError("That document is not in the database; it may have been deleted.")
        return found

    def _revisions(self, where: str, *values: object) -> list[Revision]:
        rows = self._db.query(f"select number, label, created, step, act from revisions where {where}", values)
        return [
            Revision(row["number"], cleaned(row["label"]), to_moment(row["created"]), row["step"], row["act"])
            for row in rows
        ]

    def _readable(self, document_id: str, number: int) -> str:
        """The sentences of a revision that can be read, one by one: a damaged page takes only its own along."""
        try:
            sql = "select before, path from revisions where document = ? and number = ?"
            row = self._database.row(sql, document_id, number)
            path = json.loads(row["path"]) if row else []
        except (sqlite3.DatabaseError, ValueError, TypeError, RecursionError):
            return ""
        words: list[str] = []
        for place in path if isinstance(path, list) else []:
            with suppress(sqlite3.DatabaseError, LookupError, ValueError, TypeError, OverflowError):
                version, after = place
                words.append(self._versions([version])[version]["text"] + after)
        return f"{row['before']}{''.join(words)}" if row and words else ""

    def _versions(self, ids: list[int]) -> dict[int, dict[str, Any]]:
        sql = "select * from node_versions where id in (select value from json_each(?))"
        return {version["id"]: version for version in self._db.query(sql, [json.dumps(ids)])}

    def _version_ids(self, document_id: str, versions: list[dict[str, Any]]) -> dict[str, int]:
        """The row of each node version by its digest, storing those that are new."""
        known = self._known_versions(document_id, versions)
        new = {version["digest"]: version for version in versions if version["digest"] not in known}
        if not new:
            return known
        rows = [{name: value for name, value in version.items() if name != "after"} for version in new.values()]
        self._db.table("node_versions").insert_all(rows)
        known |= self._known_versions(document_id, list(new.values()))
        if not new.keys() <= known.keys():
            raise self._database.damaged()
        return known

    def _known_versions(self, document_id: str, versions: list[dict[str, Any]]) -> dict[str, int]:
        sql = "select digest, id from node_versions where document = ? and digest in (select value from json_each(?))"
        digests = json.dumps([version["digest"] for version in versions])
        return {row["digest"]: row["id"] for row in self._db.query(sql, [document_id, digests])}

    def _conflict(self, document: Document, base: int | None, current: int | None) -> str:
        if current is None:
            return f"“{shown(document.title)}” was deleted elsewhere; save yours as a copy to keep it."
        sql = "select title, label from revisions where document = ? and number = ?"
        row = self._database.row(sql, document.id, current)
        title, label = (shown(row["title"]), shown(row["label"])) if row else (shown(document.title), "")
        if base is None:
            return f"“{title}” is stored already, as revision {current}; open that one or save yours as a copy."
        return (
            f"“{title}” was changed elsewhere (revision {current}, “{label}”) after you opened revision {base}; "
            "open the newer one or save yours as a copy."
        )
