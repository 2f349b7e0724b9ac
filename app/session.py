"""A document open in one browser tab."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from engine import ConceptNode, Document, Engine, Progress
from engine.document import new_id
from engine.editor import Editor, Step
from engine.errors import ConflictError, EditError, MovedError, StoreError
from engine.projection import DocumentMap, Landscape
from engine.store import Past, StepKind, Store


def usual_language(engine: Engine) -> str:
    return "eng_Latn" if "eng_Latn" in engine.space.languages else next(iter(engine.space.languages))


class Session:
    """The editor of an open document, the revision it stands on, and how it is being looked at."""

    def __init__(self, engine: Engine, store: Store, document: Document, revision: int | None, model: str = "") -> None:
        """`revision` is None for a document that is not stored; `model` the kind of concept model that writes."""
        self.engine = engine
        self.store = store
        undo: Sequence[Past] = ()
        redo: Sequence[Past] = ()
        if revision is not None:
            history = store.history(document.id, revision)
            undo, redo = history.undo, history.redo
        self.editor = Editor(engine, document, model, self._steps(document.id, undo), self._steps(document.id, redo))
        self.revision = revision
        self._stored = (0, "")  # a revision and when it was stored
        self.saved = revision is not None
        self.unsaved = ""  # why it could not be saved
        self._unstored: list[tuple[Document, str, StepKind, str]] = []  # what could not: document, label, step, act
        self.moved = False  # whether that was because the database's file is gone
        self.conflict: str | None = None
        self.reading: str | None = None  # the language it is read in; None: as written
        self.encoded_again = False
        self.own_map: DocumentMap | None = None
        self.plane: DocumentMap | None = None  # stands in where the space has no landscape
        self.chart = self.usual_chart
        # For each map, the vector and the point of each node that was placed there.
        self._places: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {
            "landscape": {},
            "plane": {},
            "document": {},
        }

    @classmethod
    def of(
        cls,
        engine: Engine,
        store: Store,
        document_id: str,
        progress: Progress | None = None,
        revision: int | None = None,
        model: str = "",
    ) -> Session:
        """A stored document, as it was at a revision (the newest where None).

        One from other weights is encoded again, as a revision of its own. Raises StoreError, or what `Engine.adopt`
        raises, where it can't be had.
        """
        stored, number = store.open(document_id, revision)
        document = engine.adopt(stored, progress)
        session = cls(engine, store, document, number, model)
        if document is not stored:
            session.save("Encode again", step="same")
            session.encoded_again = True
        return session

    def _steps(self, document_id: str, past: Sequence[Past]) -> list[Step]:
        return [Step(one.label, partial(self._document, document_id, one.revision)) for one in past]

    def _document(self, document_id: str, revision: int) -> Document:
        return self.engine.adopt(self.store.open(document_id, revision)[0])

    @property
    def document(self) -> Document:
        return self.editor.document

    @property
    def model(self) -> str:
        return self.editor.model

    @property
    def lang(self) -> str:
        """The language of what the page shows and of what a person types there."""
        return self.reading or self.document.lang

    @property
    def usual_chart(self) -> str:
        return "landscape" if self.engine.has_landscape else "plane"

    @property
    def stored(self) -> str:
        """When the revision that this stands on was stored: its number alone may mean another one, where an older copy
        of the database was put back. Empty where there is none."""
        if self.revision is None:
            return ""
        if self._stored[0] != self.revision:
            self._stored = self.revision, self.store.revision(self.document.id, self.revision).created.isoformat()
        return self._stored[1]

    # Keeping

    def leave(self) -> None:
        """Raise EditError where another document would push out changes that are not stored."""
        if self.revision is not None and not self.saved:
            raise EditError("This document is not saved yet; press “Not saved” to try again, or export it first.")

    def save(self, label: str, *, step: StepKind = "edit", act: str = "") -> None:
        """Store the document, and before it what could not be stored earlier, each as the step that it was.

        A conflict is kept for the person to decide; other StoreErrors are raised.
        """
        self._unstored.append((self.document, label, step, act))
        self.retry()

    def retry(self) -> None:
        """Store what could not be stored so far. Raises StoreError."""
        self.saved = not self._unstored
        try:
            while self._unstored:
                document, label, step, act = self._unstored[0]
                self.revision = self.store.save(document, label, self.revision, step=step, act=act)
                self._unstored.pop(0)
        except ConflictError as conflict:
            self.conflict = str(conflict)
        except StoreError as error:
            self.unsaved, self.moved = str(error), isinstance(error, MovedError)
            raise
        else:
            self.saved, self.conflict, self.unsaved, self.moved = True, None, "", False

    def copy(self, act: str = "") -> Session:
        """This tab's document under a name of its own, stored."""
        mine = replace(self.document, id=new_id(), title=f"{self.document.title} (copy)")
        return Session(self.engine, self.store, mine, self.store.save(mine, "Copy", None, act=act), self.model)

    # Looking

    def read(self, lang: str | None, progress: Progress | None = None) -> None:
        """Show every sentence in `lang`, or as it was written."""
        if lang:
            self.engine.read(self.document, lang, progress)  # decodes now, so that showing it is quick
        self.reading = lang

    def write_with(self, model: str) -> None:
        """Let another kind of concept model write from here on. Raises WeightsError where it can't be loaded."""
        self.engine.lcm(model)
        self.editor.model = model

    def sentences(self, progress: Progress | None = None) -> list[str]:
        """The document's sentences as they are shown."""
        if self.reading is None:
            return [node.text for node in self.document.nodes]
        return self.engine.read(self.document, self.reading, progress)

    @property
    def map(self) -> Landscape | DocumentMap:
        if self.chart == "document" and self.own_map:
            return self.own_map
        if self.engine.has_landscape:
            return self.engine.landscape
        vectors = self.document.vectors
        if self.plane is None or len(self.plane.vectors) < min(3, len(vectors)):  # three make a plane, and it stays
            self.plane = DocumentMap.flat(vectors)
            self._places["plane"].clear()
        return self.plane

    def keep_map(self, fitted: DocumentMap, nodes: tuple[ConceptNode, ...]) -> None:
        """Show the document on its own map, which was fitted to `nodes`."""
        self.own_map, self.chart = fitted, "document"
        pairs = zip(nodes, fitted.coordinates, strict=True)
        self._places["document"] = {node.id: (node.vector, point) for node, point in pairs}

    def places(self) -> np.ndarray:
        """Where the document's concepts lie on the map in use, float32 [N, 2]; those placed once stay there."""
        nodes = self.document.nodes
        if not nodes:
            return np.zeros((0, 2), np.float32)
        drawn = self.map  # before what is known: a plane that is drawn anew forgets the places it had
        known = self._places[self.chart]
        new = [n for n in nodes if n.id not in known or not np.array_equal(known[n.id][0], n.vector)]
        if new:
            points = drawn.project(np.stack([n.vector for n in new]))
            known.update({n.id: (n.vector, point) for n, point in zip(new, points, strict=True)})
        return np.array([known[n.id][1] for n in nodes], np.float32).reshape(-1, 2)
