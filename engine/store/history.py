"""What can be undone and redone, rebuilt from the revisions that are stored."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

# What a revision is in the history. "same" is no step of it: the first revision, "Save", "Encode again".
StepKind = Literal["edit", "undo", "redo", "same"]


@dataclass(frozen=True)
class Past:
    """A step that can be taken back (or taken again)."""

    label: str  # what the step is called, e.g. "Rewrite"
    revision: int  # the one whose state Undo (or Redo) brings back


@dataclass(frozen=True)
class History:
    """Steps that can be undone and redone; the last one of each is the first to be taken."""

    undo: tuple[Past, ...] = ()
    redo: tuple[Past, ...] = ()


def rebuild(revisions: Iterable[tuple[int, str, str]]) -> History:
    """The history after revisions in order, each given by number, label and kind of step."""
    undo: list[Past] = []
    redo: list[Past] = []
    current = 0  # none yet
    for number, label, step in revisions:
        if current and step == "edit":
            undo.append(Past(label, current))
            redo.clear()
        elif step == "undo" and undo:
            redo.append(Past(undo.pop().label, current))
        elif step == "redo" and redo:
            undo.append(Past(redo.pop().label, current))
        current = number
    return History(tuple(undo), tuple(redo))
