"""One open SQLite file: which file it is, its transactions, and its failures in plain words."""

from __future__ import annotations

import os
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import platformdirs
import sqlite_utils

from ..errors import MovedError, StoreError
from . import schema

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


def default_path() -> Path:
    """The database in the user's own data folder."""
    return platformdirs.user_data_path("conceptscape", appauthor=False) / "documents.db"


def shown(text: object, length: int = 60) -> str:
    """A title or the like as errors quote it: on one line, not too long, and without halves of characters."""
    line = " ".join(str(text).encode(errors="replace").decode().split())
    return line if len(line) <= length else line[: length - 1].rstrip() + "…"


def shown_path(path: Path) -> str:
    """A path as errors name it; of a long one the end, which tells more."""
    text = str(path).encode(errors="replace").decode()
    return text if len(text) <= 120 else "…" + text[-119:]


class Database:
    """One SQLite file of documents, open. Whoever uses it sees to it that only one thread does so at a time.

    The file keeps a rollback journal, no write-ahead log: what was committed is then in the file itself and not in a
    second one beside it, and SQLite looks at the file before it trusts what it remembers of it. With a log, a file
    that is deleted or replaced while it is open takes commits that nobody will find, or gets pages of another file.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        """Open the file, or make it and its folder; see Store for the errors."""
        self.path = path
        self.timeout = timeout
        self._opened = False
        self._create_file()
        self._identity = self._found()
        self._journal = Path(f"{os.path.realpath(path)}-journal")
        until = time.monotonic() + timeout
        with self._failures():
            while not self._connect():
                if time.monotonic() > until:
                    raise StoreError(FAILURES["BUSY"].format(path=shown_path(path)))
                time.sleep(random.uniform(0.01, 0.05))
        self._opened = True

    def close(self) -> None:
        with self._failures():
            self.db.close()

    def row(self, sql: str, *values: object) -> dict[str, Any] | None:
        return next(iter(self.db.query(sql, values)), None)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """A transaction that sees one state of the file; it reads on where the file is no longer at its path."""
        with self._failures():
            # A journal at the path of a file that has gone belongs to the file that came. SQLite would take it for
            # what is left of a crash, play it into ours, and delete it.
            if self._found() != self._identity and self._journal.exists():
                self.check_place()
            with self._transaction("DEFERRED"):
                yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """A transaction that changes the file, all or nothing, and that others wait for.

        Raises MovedError where the path does not lead to the file that was opened. The file can be taken away while
        it is being written as well, so call `check_place` again before anyone is told that something is saved.
        """
        with self._failures():
            self.check_place()
            with self._transaction("IMMEDIATE"):
                if not schema.is_current(self.db):  # another program wrote over the file where it is
                    raise self._moved("was overwritten by another program")
                yield

    def check_place(self) -> None:
        """Raise MovedError where the path does not lead to the file that was opened."""
        found = self._found()
        if found is None:
            raise self._moved("was deleted or moved")
        if found != self._identity:
            raise self._moved("was replaced by another file")

    def copy_to(self, other: Database) -> None:
        """Give `other` all that this file holds, also where no path leads here any more; nothing where it is no longer
        a database of ours."""
        with self.reading():
            if not schema.is_current(self.db):
                return
            try:
                self.db.conn.backup(other.db.conn)
            except sqlite3.Error as error:
                raise StoreError(
                    f"The documents can't be copied to {shown_path(other.path)} ({shown(error)}); make room there, or "
                    "export this document."
                ) from error

    def discard(self) -> None:
        """Close the file and delete it."""
        with suppress(StoreError):
            self.close()
        for path in (self.path, self._journal):
            with suppress(OSError):
                path.unlink()

    def damaged(self) -> StoreError:
        return StoreError(FAILURES["CORRUPT"].format(path=shown_path(self.path)))

    def _moved(self, what: str) -> MovedError:
        return MovedError(
            f"The database {shown_path(self.path)} {what} while it was open, and nothing more can be saved there; save "
            "to another file."
        )

    def _found(self) -> tuple[int, int] | None:
        """Device and inode of the file that the path leads to. While a file is open no other gets its inode."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _create_file(self) -> None:
        path = shown_path(self.path)
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A file that is there is only looked at, never opened here: closing a second descriptor of it would drop
            # the locks that other connections of this process hold on it.
            with suppress(FileExistsError):
                create(self.path)
            if not self.path.is_file():
                raise StoreError(f"{path} is not a file; choose a file for the database.")
        except PermissionError as error:
            raise StoreError(
                f"The database {path} can't be made because its folder does not allow it; choose another file."
            ) from error
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = getattr(error, "strerror", None) or error
            raise StoreError(f"The database {path} can't be opened ({reason}); choose another file.") from error

    def _connect(self) -> bool:
        """Open the file and make it ready; False where another program that has it open is in the way of a journal.

        Files of the first schema have a log, which is given up only while nobody else has the file open. SQLite does
        not wait for that, and two programs that wait for it with the file open would wait for each other.
        """
        connection = sqlite3.connect(self.path, timeout=self.timeout, isolation_level=None, check_same_thread=False)
        # Text that is damaged, and no UTF-8 any more, is for the reader to find, not to fail a whole query.
        connection.text_factory = lambda text: text.decode(errors="surrogateescape")
        self.db = sqlite_utils.Database(connection, execute_plugins=False)
        try:
            if not self._prepare():
                connection.close()
                return False
            self.check_place()
        except BaseException:
            connection.close()
            raise
        return True

    def _prepare(self) -> bool:
        with self._transaction("DEFERRED"):  # a file that is not for us is left as it is
            self._check_ours()
        try:
            self.db.execute("PRAGMA journal_mode=DELETE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname.startswith("SQLITE_BUSY"):
                return False
            raise
        # A killed process loses nothing with any setting, since the system still holds what was written. EXTRA waits
        # for the disk at each commit (a few milliseconds), and for the folder that the journal was deleted from, so
        # that a power cut loses nothing either.
        self.db.execute("PRAGMA synchronous=EXTRA")
        with self._transaction("IMMEDIATE"):
            self._check_ours()
            schema.bring_up(self.db)
        return True

    def _check_ours(self) -> None:
        path = shown_path(self.path)
        if not (schema.is_ours(self.db) or schema.is_empty(self.db)):
            raise StoreError(f"The database {path} belongs to another program; choose another file.")
        if schema.pragma(self.db, "user_version") > schema.SCHEMA:
            raise StoreError(
                f"The database {path} was written by a newer Conceptscape; update this one or choose another file."
            )

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        """All or nothing. IMMEDIATE takes the write lock at once: what was checked is still true when it is written."""
        self.db.execute(f"BEGIN {kind}")
        try:
            yield
            self.db.commit()
        except BaseException:
            self.db.rollback()
            raise

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Turn what SQLite raises into one sentence."""
        try:
            yield
        except sqlite3.Error as error:
            path = shown_path(self.path)
            name = (getattr(error, "sqlite_errorname", None) or "").removeprefix("SQLITE_")
            if name == "READONLY_DBMOVED":  # SQLite noticed it at the first page that it was to write
                raise self._moved("was deleted or moved") from error
            if name == "NOTADB" and self._opened:
                raise self._moved("was overwritten by another program") from error
            name = name.split("_")[0]  # extended names go on, as in SQLITE_IOERR_WRITE
            if isinstance(error, sqlite3.ProgrammingError) and not name:
                raise StoreError(f"The database {path} is closed; open it again.") from error
            sentence = FAILURES.get(name, "The database {path} can't be used ({error}); choose another file.")
            raise StoreError(sentence.format(path=path, error=shown(error))) from error
        except UnicodeDecodeError as error:  # what SQLite says quotes a damaged name
            raise self.damaged() from error


def create(path: Path) -> None:
    """Make an empty file that only its owner may read. Raises FileExistsError, other OSErrors, and ValueError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def create_beside(path: Path) -> Path:
    """Make an empty file with a new name (documents-2.db) beside `path`, or else in the user's data folder.

    Raises StoreError where neither folder takes one.
    """
    reason = ""
    for folder in (path.parent, default_path().parent):
        number = 2
        while True:
            candidate = folder / f"{path.stem}-{number}{path.suffix}"
            try:
                if folder != path.parent:  # that one is not made again: what it was mounted on may be gone
                    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                create(candidate)
                return candidate
            except FileExistsError:
                number += 1
            except OSError as error:
                reason = error.strerror or str(error)
                break
    raise StoreError(
        f"No new database could be made beside {shown_path(path)} or in your data folder ({reason}); export this "
        "document to keep it."
    )
