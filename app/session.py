"""A document open in one browser tab."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np

from engine import ConceptNode, Document, Engine, Progress
from engine.document import new_id
from engine.editor import Editor
from engine.errors import ConflictError, EditError
from engine.projection import DocumentMap, Landscape
from engine.store import Store

ENCODED_AGAIN = (
    "This document was made with another concept space or version of it, so its sentences were encoded again; "
    "their places on the map may differ."
)


def usual_language(engine: Engine) -> str:
    return "eng_Latn" if "eng_Latn" in engine.space.languages else next(iter(engine.space.languages))


class Session:
    """The editor of the open document, the revision it stands on, and how it is being looked at."""

    def __init__(self, engine: Engine, store: Store) -> None:
        self.engine = engine
        self.store = store
        self.model = engine.model  # the kind of concept model that writes; empty for the default
        self.busy = threading.Lock()  # held while the document is being changed
        self.stop = threading.Event()  # ends the change under way
        self.notice = ""  # one sentence that the person should read once
        self.stop_fit = threading.Event()  # ends the fit of the document's own map
        self.fitting: tuple[int, int] | None = None
        self.show(Document("Untitled", usual_language(engine), engine.space.identity), None)

    def show(self, document: Document, revision: int | None) -> None:
        """Put another document on the page; `revision` is None where it was never stored."""
        self.editor = Editor(self.engine, document, self.model)
        self.revision = revision
        self.saved = revision is not None
        self.conflict: str | None = None
        self.reading: str | None = None  # the language it is read in; None: as written
        self.own_map: DocumentMap | None = None
        self.plane: DocumentMap | None = None  # stands in where the space has no landscape
        self.chart = self.usual_chart
        self.stop_fit.set()
        # For each map, the vector and the point of each node that was placed there.
        self._places: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = {
            "landscape": {},
            "plane": {},
            "document": {},
        }

    @property
    def document(self) -> Document:
        return self.editor.document

    @property
    def lang(self) -> str:
        """The language of what the page shows and of what a person types there."""
        return self.reading or self.document.lang

    @property
    def usual_chart(self) -> str:
        return "landscape" if self.engine.has_landscape else "plane"

    # Keeping

    def leave(self) -> None:
        """Raise EditError where another document would push out changes that are not stored."""
        if self.revision is not None and not self.saved:
            raise EditError("This document is not saved yet; press “Not saved” to try again, or export it first.")

    def save(self, label: str) -> None:
        """Store the document. A conflict is kept for the person to decide; other StoreErrors are raised."""
        self.saved = False
        try:
            self.revision = self.store.save(self.document, label, self.revision)
        except ConflictError as conflict:
            self.conflict = str(conflict)
        else:
            self.saved, self.conflict = True, None

    def open(self, document_id: str, progress: Progress | None = None) -> None:
        """Show a stored document; one from other weights is encoded again, as a revision of its own."""
        self.leave()
        self.reopen(document_id, progress)

    def reopen(self, document_id: str, progress: Progress | None = None) -> None:
        """Show a stored document in place of this tab's unsaved changes."""
        stored, revision = self.store.open(document_id)
        document = self.engine.adopt(stored, progress)
        self.show(document, revision)
        if document is not stored:
            self.save("Encode again")
            self.notice = ENCODED_AGAIN

    def copy(self) -> None:
        """Go on with this tab's document under a name of its own."""
        mine = replace(self.document, id=new_id(), title=f"{self.document.title} (copy)")
        self.revision = self.store.save(mine, "Copy", None)
        self.show(mine, self.revision)

    # Looking

    def read(self, lang: str | None, progress: Progress | None = None) -> None:
        """Show every sentence in `lang`, or as it was written."""
        if lang:
            self.engine.read(self.document, lang, progress)  # decodes now, so that showing it is quick
        self.reading = lang

    def write_with(self, model: str) -> None:
        """Let another kind of concept model write from here on. Raises WeightsError where it can't be loaded."""
        self.engine.lcm(model)
        self.model = self.editor.model = model

    def sentences(self) -> list[str]:
        """The document's sentences as they are shown."""
        if self.reading is None:
            return [node.text for node in self.document.nodes]
        return self.engine.read(self.document, self.reading)

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
