"""A browser tab as the server knows it: the document open in it, the act under way, and what is answered.

docs/architecture.md draws the states of an act.
"""

from __future__ import annotations

import logging
import threading

from engine import ConceptNode, Document, Engine, Progress
from engine.errors import Cancelled, ConceptscapeError, DocumentError, StoreError
from engine.projection import DocumentMap
from engine.store import StepKind, Store, Summary

from . import view
from .acts import ACTS, Act
from .acts.data import Data, RequestError
from .session import Session
from .work import Work

QUIET = 0.4  # seconds before an act is said to be running: most are done by then
EVERY = 0.5  # seconds between two answers while it runs

log = logging.getLogger("conceptscape")

BUSY = "Something is still running here; wait for it, or press Stop."
REPLACED = (
    "An older copy of the database was put back, and this document has gone another way in it; keep what this page "
    "shows as a new document, or open the document as it is there."
)
GONE = (
    "The program was restarted before the last changes here were saved; keep what this page shows as a new document, "
    "or open the document as it was saved last."
)


class Tab:
    """One tab. `faults` are the documents that can't be shown and why, known to all tabs."""

    def __init__(self, name: str, engine: Engine, store: Store, faults: dict[str, str]) -> None:
        self.name = name
        self.engine = engine
        self.store = store
        self.faults = faults
        self.opened: Session | None = None  # None until the tab has arrived, or after the program was restarted
        self.act = ""  # names the act under way to the store, which then knows whether it was done
        self.download: view.Json | None = None  # a file that the act under way made
        self.notice = ""  # a sentence that the person should read once
        self.asked = 0  # questions that are being answered
        self.fit: Work[DocumentMap] | None = None  # of the document's own map
        self._fitted: tuple[ConceptNode, ...] = ()  # what it is fitted to
        self._number = 0  # of the last act
        self._doing = ""
        self._work: Work[view.Json] | None = None
        self._lock = threading.Lock()

    @property
    def session(self) -> Session:
        if self.opened is None:
            raise RequestError("No document is open here; open one.")
        return self.opened

    @property
    def model(self) -> str:
        """The kind of concept model that writes; empty for the default."""
        return self.opened.model if self.opened else self.engine.model

    @staticmethod
    def check(session: Session) -> None:
        """Raise DocumentError where some part of the page can't show the session's document."""
        _, wrong = view.parts(session)
        if wrong:
            raise DocumentError(f"“{session.document.title[:80]}” can't be shown ({sentence(wrong[0])})")

    def show(self, session: Session) -> None:
        """Put a document on the page, one that was checked."""
        self.opened, self.fit = session, None

    def known(self) -> list[Summary]:
        """The documents of this space; those from other weights of it are encoded again when they are opened, those
        of other spaces when they are asked for."""
        return [one for one in self.store.documents() if one.space.split()[0] == self.engine.space.name]

    # Acts

    def ask(self, number: int, what: str, data: Data, at: Data) -> view.Json:
        """Do act `number`, or ask after it: it is done once however often it is asked.

        `at` is where the page stands, from which a tab that the server no longer knows is opened again.
        """
        if what not in ACTS:
            raise RequestError("The page asked for something that this version does not know; reload it.")
        act = ACTS[what]
        with self._lock:
            quiet = EVERY
            if self._work is None or number != self._number:
                if number < self._number or (self._work and not self._work.finished):
                    return {"state": "answered", "number": number, "done": False, "said": [("warning", BUSY)]}
                quiet = QUIET
                self._number, self._doing = number, act.name
                self._work = Work(lambda progress: self._answer(number, what, act, data, at, progress))
            work = self._work
        if work.wait(quiet):
            return work.result()
        return {"state": "running", "number": number, "progress": [self._doing, *work.progress]}

    @property
    def stopped(self) -> bool:
        """Whether the act under way was stopped."""
        return self._work is not None and self._work.stopped

    def stop(self) -> None:
        if self._work:
            self._work.stop()

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost if the tab were forgotten."""
        working = self._work and not self._work.finished
        return not (self.asked or working) and (self.opened is None or (self.opened.saved and not self.opened.conflict))

    def _answer(self, number: int, what: str, act: Act, data: Data, at: Data, progress: Progress) -> view.Json:
        """Do an act, store it and show what there is then. Raises nothing: every act is answered."""
        self.act, self.download, self.notice = f"{self.name} {number}", None, ""
        said: list[tuple[str, str]] = []
        done = False
        try:
            if self.opened is None:
                done = self._restore(what, at, progress)
        except Exception as error:
            return {"state": "lost", "number": number, "why": sentence(error)}
        before = self.opened.document if self.opened else None
        try:
            if not done:
                step, label = self._named(what)
                act.do(self, data, progress)
                done = True
                if act.edits:
                    self.session.save(label or self.session.editor.undo_label, step=step, act=self.act)
        except Exception as error:
            if not (self.opened and self.opened.moved):  # else the page says it itself and asks what to do
                said.append(self._told(error, before))
        if self.opened is None:
            return {"state": "lost", "number": number, "why": said[0][1]}
        try:
            self.opened.sentences(progress)  # decodes what is new, here where progress is shown
        except Exception as error:
            self.opened.reading = None  # as it was written, it can be shown
            said.append(self._told(error, before))
        shown, wrong = view.parts(self.opened)
        said += [("warning", f"Not everything can be shown: {sentence(error)}") for error in wrong[:1]]
        if self.notice:
            said.append(("info", self.notice))
        if "list" in shown:
            shown["list"]["select"] = self._selected(before, data)
        return {"state": "answered", "number": number, "done": done, "said": said, "download": self.download, **shown}

    def _named(self, what: str) -> tuple[StepKind, str]:
        """The kind of step that an act is in the history, and its label where that is not the editor's own."""
        if what == "undo":
            return "undo", f"Undo {self.session.editor.undo_label}"
        if what == "redo":
            return "redo", f"Redo {self.session.editor.redo_label}"
        return "edit", ""

    def _restore(self, what: str, at: Data, progress: Progress) -> bool:
        """Open again what the page shows. Whether the act under way was done before the program ended.

        Raises ConceptscapeError where the page shows something that is stored nowhere.
        """
        model = at.maybe("model") or ""
        made = self.store.made_by(self.act)
        if made:
            session = Session.of(self.engine, self.store, made, progress, model=model)
        elif ACTS[what].fresh:
            return False
        elif not at.flag("saved"):
            raise StoreError(GONE)
        else:
            document, revision = at.text("document"), at.whole("revision")
            session = Session.of(self.engine, self.store, document, progress, revision, model)
            if self.store.revision(document, revision).created.isoformat() != at.text("stored"):
                raise StoreError(REPLACED)
        self.check(session)
        self.show(session)
        reading = at.maybe("reading")
        same = self.session.document.id == at.maybe("document")
        if same and reading in self.engine.space.languages and not (made and what in ("translate", "written")):
            self.session.reading = reading
        return bool(made)

    def _told(self, error: Exception, before: Document | None) -> tuple[str, str]:
        """What went wrong, and, where that is not plain, what became of the document."""
        kind = "info" if isinstance(error, Cancelled) else "warning"
        if isinstance(error, ConceptscapeError):
            return kind, str(error)
        said = sentence(error)
        if self.opened is None or self.opened.document is before:
            return kind, f"{said[:-1]}, and the document was left as it is."
        return (
            kind,
            f"{said[:-1]}, after the document was {'saved' if self.opened.saved else 'changed; it is not saved'}.",
        )

    def _selected(self, before: Document | None, data: Data) -> list[str] | None:
        """The sentences to select: those that are new; None leaves the selection as it is."""
        now = self.session.document
        if before is None or before.id != now.id:
            return []
        then = data.maybe("then")
        if before is now:
            return None
        old = {node.id for node in before.nodes}
        return [node.id for node in now.nodes if node.id not in old] or ([then] if then else None)

    # The document's own map

    def chart(self, frame: str) -> view.Json:
        """Switch the map: "landscape", "plane", "document" (fitted first, in the background), or "stop" the fit;
        "" asks how far it is. Returns the map as the page shows it."""
        session = self.session
        said: list[tuple[str, str]] = []
        if self.fit and self.fit.wait(EVERY if not frame else 0):
            try:
                fitted = self.fit.result()
                session.keep_map(fitted, self._fitted)
            except Exception as error:
                said.append(self._told(error, session.document))
            self.fit = None
        if frame == "stop" and self.fit:
            self.fit.stop()  # umap-learn can't be interrupted: it is left to end by itself, unheard
            self.fit = None
        elif frame == session.usual_chart or (frame == "document" and session.own_map):
            session.chart = frame
        elif frame == "document" and not self.fit:
            self._fitted = session.document.nodes
            vectors = session.document.vectors
            self.fit = Work(lambda progress: DocumentMap.fit(vectors, progress=progress))
        fitting = list(self.fit.progress) if self.fit else None
        return {"map": view.concept_map(session), "fitting": fitting, "said": said}


def sentence(error: Exception) -> str:
    """One sentence for a person; what nobody expected goes to the log, in full."""
    if isinstance(error, ConceptscapeError):
        return str(error)
    log.error("unexpected", exc_info=error)
    return "Something went wrong (the log file beside the database says more)."
