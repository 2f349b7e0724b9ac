"""What a person does on the page: each act changes the tab's document or shows another, divided by what it is about."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine import Progress

from . import documents, editing, generating
from .data import Data

if TYPE_CHECKING:
    from ..tab import Tab


@dataclass(frozen=True)
class Act:
    do: Callable[[Tab, Data, Progress], None]
    name: str  # shown with the progress
    edits: bool = True  # is one step of the document's history, to be stored
    fresh: bool = False  # shows a document of its own, so that it needs none that is open


ACTS = {
    "rewrite": Act(editing.rewrite, "Rewriting"),
    "insert": Act(editing.insert, "Reading your words"),
    "delete": Act(editing.delete, "Deleting"),
    "move": Act(editing.move, "Moving"),
    "split": Act(editing.split, "Splitting"),
    "merge": Act(editing.merge, "Merging"),
    "duplicate": Act(editing.duplicate, "Duplicating"),
    "alternative": Act(editing.alternative, "Rewording"),
    "rename": Act(editing.rename, "Renaming"),
    "undo": Act(editing.undo, "Undoing"),
    "redo": Act(editing.redo, "Redoing"),
    "vary": Act(generating.vary, "Varying"),
    "interpolate": Act(generating.interpolate, "Interpolating"),
    "blend": Act(generating.blend, "Blending"),
    "arithmetic": Act(generating.arithmetic, "Reckoning"),
    "place": Act(generating.place, "Decoding"),
    "regenerate": Act(generating.regenerate, "Regenerating"),
    "continue": Act(generating.continue_, "Continuing"),
    "infill": Act(generating.infill, "Filling in"),
    "translate": Act(generating.translate, "Translating"),
    "written": Act(generating.written_in, "Reading the text again"),
    "model": Act(generating.model, "Loading the model", edits=False),
    "read": Act(documents.read, "Translating", edits=False),
    "save": Act(documents.save, "Saving", edits=False),
    "elsewhere": Act(documents.save_elsewhere, "Saving", edits=False),
    "copy": Act(documents.copy, "Copying", edits=False),
    "export": Act(documents.export, "Exporting", edits=False),
    "show": Act(documents.show, "Opening", edits=False),
    "remove": Act(documents.remove, "Deleting", edits=False),
    "salvage": Act(documents.salvage, "Reading what is left", edits=False),
    "arrive": Act(documents.arrive, "Opening", edits=False, fresh=True),
    "reopen": Act(documents.reopen, "Opening", edits=False, fresh=True),
    "open": Act(documents.open_stored, "Opening", edits=False, fresh=True),
    "sample": Act(documents.open_sample, "Reading the text", edits=False, fresh=True),
    "new": Act(documents.new, "Opening", edits=False, fresh=True),
    "import": Act(documents.import_text, "Reading the text", edits=False, fresh=True),
}
