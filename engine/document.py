"""Concept nodes and documents: immutable values, and the pure functions that edit them.

A document's text is `before`, then each node's text and the spacing `after` it. Whatever is not a sentence
(blank lines, indentation, a row of asterisks) lives in the spacing, so a document nobody touched is, to the
byte, what was imported.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from .errors import EditError, VectorError

Kind = Literal["written", "edited", "interpolated", "generated", "decoded"]


def new_id() -> str:
    """A name for a node or document that nothing else has."""
    return uuid.uuid4().hex[:12]


@dataclass(frozen=True)
class Provenance:
    """Where a node came from: the kind, the operation, the nodes it was made from, and how."""

    kind: Kind = "written"
    operation: str = "import"
    parents: tuple[str, ...] = ()  # node ids
    parameters: Mapping[str, Any] = field(default_factory=dict)  # JSON values
    seed: int | None = None


@dataclass(frozen=True, eq=False)
class ConceptNode:
    """One sentence and its concept."""

    text: str
    lang: str  # FLORES-200 code
    vector: np.ndarray  # float32 [D], read-only
    provenance: Provenance = Provenance()
    after: str = " "  # the spacing that follows
    id: str = field(default_factory=new_id)

    def __post_init__(self) -> None:
        vector = np.array(self.vector, dtype=np.float32)
        if vector.ndim != 1:
            raise VectorError(f"A concept is one vector, not an array of shape {vector.shape}.")
        if not np.isfinite(vector).all():
            raise VectorError("A concept holds values that are not finite numbers.")
        vector.setflags(write=False)
        object.__setattr__(self, "vector", vector)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConceptNode) and (
            (self.id, self.text, self.lang, self.after, self.provenance)
            == (other.id, other.text, other.lang, other.after, other.provenance)
            and np.array_equal(self.vector, other.vector)
        )

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Document:
    """A path of concept nodes."""

    title: str
    lang: str  # the language that new sentences are written in
    space: str  # the identity of the concept space that the vectors belong to
    nodes: tuple[ConceptNode, ...] = ()
    before: str = ""  # the spacing in front of the first node
    id: str = field(default_factory=new_id)

    @property
    def text(self) -> str:
        return self.before + "".join(node.text + node.after for node in self.nodes)

    @property
    def vectors(self) -> np.ndarray:
        """The trajectory, float32 [N, D]."""
        if not self.nodes:
            return np.zeros((0, 0), np.float32)
        return np.stack([node.vector for node in self.nodes])

    def index(self, node_id: str) -> int:
        for i, node in enumerate(self.nodes):
            if node.id == node_id:
                return i
        raise EditError("That sentence is no longer in the document; it was deleted or merged.")

    def node(self, node_id: str) -> ConceptNode:
        return self.nodes[self.index(node_id)]

    def indices(self, node_ids: Iterable[str]) -> list[int]:
        """Positions of the given nodes, in document order. Raises EditError where none is given."""
        found = sorted({self.index(i) for i in node_ids})
        if not found:
            raise EditError("Select at least one sentence first.")
        return found


def insert(document: Document, index: int, nodes: Sequence[ConceptNode]) -> Document:
    """Put nodes in front of position `index` (0 to len). Spacing stays where paragraphs were."""
    if not 0 <= index <= len(document.nodes):
        raise EditError(f"There is no place {index} in a document of {len(document.nodes)} sentences.")
    old, new = list(document.nodes), list(nodes)
    if new and index:
        # The sentence in front hands its spacing on (a paragraph's end stays its end) and is joined by a space.
        new[-1] = replace(new[-1], after=old[index - 1].after)
        old[index - 1] = replace(old[index - 1], after=" ")
    return replace(document, nodes=(*old[:index], *new, *old[index:]))


def replace_node(document: Document, node: ConceptNode) -> Document:
    """Put `node` where the node of the same id is."""
    index = document.index(node.id)
    return replace(document, nodes=(*document.nodes[:index], node, *document.nodes[index + 1 :]))


def delete(document: Document, node_ids: Iterable[str]) -> Document:
    """Take nodes out; the spacing with the larger break survives, so that paragraphs stay apart."""
    gone = set(document.indices(node_ids))
    kept: list[ConceptNode] = []
    for i, node in enumerate(document.nodes):
        if i not in gone:
            kept.append(node)
        elif kept and (i == len(document.nodes) - 1 or node.after.count("\n") > kept[-1].after.count("\n")):
            kept[-1] = replace(kept[-1], after=node.after)
    return replace(document, nodes=tuple(kept))


def move(document: Document, node_ids: Iterable[str], index: int) -> Document:
    """Move nodes, keeping their order, so that they stand in front of what is now at position `index`.

    Spacing belongs to places, not to sentences: after a move the paragraphs break where they broke before.
    """
    moved = document.indices(node_ids)
    if not 0 <= index <= len(document.nodes):
        raise EditError(f"There is no place {index} in a document of {len(document.nodes)} sentences.")
    rest = [i for i in range(len(document.nodes)) if i not in set(moved)]
    at = sum(1 for i in rest if i < index)
    order = [*rest[:at], *moved, *rest[at:]]
    spacing = [node.after for node in document.nodes]
    nodes = [replace(document.nodes[i], after=spacing[place]) for place, i in enumerate(order)]
    return replace(document, nodes=tuple(nodes))
