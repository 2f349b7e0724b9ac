"""What tabs were told, and whether the database has it."""

from __future__ import annotations

import json
import re
import sqlite3
import threading
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.document import Document
from engine.store import Store

LONGEST = 300
# What no person can read: Python's own words, and what is said where nobody knew what would happen.
FOREIGN = re.compile(r"Traceback|\b\w+(Error|Exception)\b|Errno|Something went wrong")


@dataclass(frozen=True)
class Shown:
    """A revision as a tab shows it. Undo and Redo say what they would take back, also after a restart."""

    title: str
    texts: tuple[str, ...]
    undo: str
    redo: str


@dataclass
class Promises:
    """What is in the database, as far as tabs were told."""

    shown: dict[tuple[str, int], Shown] = field(default_factory=dict)  # by document and revision
    acts: dict[str, str] = field(default_factory=dict)  # that are saved; "" or the sentence that the act wrote
    # Tabs by the document and the revision of somebody else that was in their way.
    conflicts: dict[tuple[str, int], str] = field(default_factory=dict)

    def copy(self) -> Promises:
        return Promises(dict(self.shown), dict(self.acts), dict(self.conflicts))


class Ledger:
    def __init__(self) -> None:
        self.wrong: list[str] = []
        self.answered: Counter[str] = Counter()  # by kind of act, and by what became of it
        self.said: Counter[str] = Counter()
        self.programs = 0  # started
        self.life = 0  # of the database: another one after it was taken away for good
        self.elsewhere: Path | None = None  # where a tab was told that everything is now
        self._promises = Promises()
        self._looked_at: dict[tuple[str, int], None] = {}  # revisions in which nothing is there twice
        self._lock = threading.Lock()

    def complain(self, what: str) -> None:
        with self._lock:
            if what not in self.wrong:
                self.wrong.append(what)

    def hear(self, text: str, life: int | None = None) -> None:
        """A sentence that a person reads."""
        with self._lock:
            self.said[re.sub(r"“.*”|/\S+|\d+", "…", text)] += 1
            if (found := re.search("Everything is in (.*) now;", text)) and life == self.life:
                self.elsewhere = Path(found[1])
        sentence = re.sub("“.*?”", "“…”", text)  # titles say what people wrote
        if not 0 < len(text) <= LONGEST or "\n" in text or FOREIGN.search(sentence) or not text.endswith("."):
            self.complain(f"No sentence for a person: {text!r}")

    def told(self, life: int, document: str, revision: int, shown: Shown) -> None:
        """That this is saved."""
        with self._lock:
            if life != self.life:
                return
            before = self._promises.shown.setdefault((document, revision), shown)
        if before != shown:
            self.complain(f"Revision {revision} of {document} was {before}, and later {shown}")

    def saved(self, life: int, act: str, words: str) -> None:
        """That an act is saved."""
        with self._lock:
            if life == self.life:
                self._promises.acts[act] = words

    def conflict(self, life: int, document: str, why: str, tab: str) -> None:
        """That somebody else changed the document."""
        found = re.search(r"\(revision (\d+), ", why)
        with self._lock:
            if found and life == self.life:
                self._promises.conflicts[document, int(found[1])] = tab

    def promises(self) -> Promises:
        with self._lock:
            return self._promises.copy()

    def forget(self, left: Promises | None = None) -> None:
        """The database was taken away, or an older copy put in its place."""
        with self._lock:
            self.life += 1
            self.elsewhere = None
            self._promises = left.copy() if left else Promises()
            self._looked_at.clear()

    # The database

    def check(self, path: Path) -> None:
        """Complain of all that the database does not have as it was told."""
        with closing(sqlite3.connect(path)) as db:
            db.row_factory = sqlite3.Row
            if (found := db.execute("pragma integrity_check").fetchone()[0]) != "ok":
                self.complain(f"The database is damaged: {found}")
            revisions = list(db.execute("select document, number, label, act, path from revisions"))
            inserted = {
                row["id"]: row["text"]
                for row in db.execute("select id, text, provenance from node_versions")
                if json.loads(row["provenance"])["operation"] == "insert"
            }
        self._check_acts(revisions, inserted)
        for row in revisions:
            if (row["document"], row["number"]) not in self._looked_at:
                words = Counter(inserted[one] for one, _ in json.loads(row["path"]) if one in inserted)
                for text in [text for text, count in words.items() if count > 1]:
                    self.complain(f"“{text}” was inserted twice in revision {row['number']} of {row['document']}")
                self._looked_at[row["document"], row["number"]] = None
        with Store(path) as store:
            for (document, revision), shown in self.promises().shown.items():
                self._check_revision(store, document, revision, shown)

    def _check_acts(self, revisions: list[sqlite3.Row], inserted: dict[int, str]) -> None:
        conflicts = self.promises().conflicts
        for row in revisions:
            tab = conflicts.get((row["document"], row["number"]))
            if tab and row["act"].startswith(tab):
                self.complain(f"Act {row['act']} of the same tab was a conflict")
        by_act: dict[str, list[sqlite3.Row]] = {}
        for row in revisions:
            if row["act"]:
                by_act.setdefault(row["act"], []).append(row)
        for act, rows in by_act.items():
            if len(rows) > 1:
                made = ", ".join(f"{row['label']} as revision {row['number']} of {row['document']}" for row in rows)
                self.complain(f"Act {act} was done twice: {made}")
        for act, words in self.promises().acts.items():
            if act not in by_act:
                self.complain(f"Act {act} was told to be saved, and is not in the database")
            elif words and words not in [inserted.get(one) for one, _ in json.loads(by_act[act][0]["path"])]:
                self.complain(f"Act {act} did not write “{words}”")

    def _check_revision(self, store: Store, document: str, revision: int, shown: Shown) -> None:
        try:
            found: Document = store.open(document, revision)[0]
            past = store.history(document, revision)
        except Exception as error:
            return self.complain(f"Revision {revision} of {document} was told to be saved: {error}")
        labels = [steps[-1].label if steps else "" for steps in (past.undo, past.redo)]
        stored = Shown(found.title, tuple(node.text for node in found.nodes), *labels)
        if stored != shown:
            self.complain(f"Revision {revision} of {document} was told to be {shown}, and is {stored}")


def shown(bar: dict[str, Any], nodes: list[dict[str, Any]]) -> Shown:
    return Shown(bar["title"], tuple(node["own"] for node in nodes), bar["undo"], bar["redo"])
