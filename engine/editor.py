"""A document being edited: the operations a person has, their provenance, undo and redo."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from . import Continuation, Engine, concepts, document, segmentation, soundness, text
from .document import ConceptNode, Document, Kind, Provenance, new_id
from .errors import Cancelled, EditError
from .spaces import Progress
from .wording import other_wordings


@dataclass(frozen=True)
class Proposal:
    """A concept that is not in the document yet, and the sentence it decodes to."""

    text: str
    vector: np.ndarray


@dataclass(frozen=True)
class Step:
    """One entry of the history: what was done, and how to get the document before (undo) or after (redo) it."""

    label: str
    load: Callable[[], Document]


class Editor:
    """Holds the current `document`; every operation replaces it and can be undone.

    An operation that raises leaves document and history as they were.
    """

    def __init__(
        self,
        engine: Engine,
        start: Document,
        model: str = "",
        undo: Iterable[Step] = (),
        redo: Iterable[Step] = (),
    ) -> None:
        """Edit `start`. `undo` and `redo`: its history so far, the last step of each the first to be taken."""
        self.engine = engine
        self.model = model  # the kind of concept model that writes; empty for the engine's own
        self.document = start
        self._undo = list(undo)
        self._redo = list(redo)

    # History

    @property
    def can_undo(self) -> bool:
        return bool(self._undo)

    @property
    def can_redo(self) -> bool:
        return bool(self._redo)

    @property
    def undo_label(self) -> str:
        return self._undo[-1].label if self._undo else ""

    @property
    def redo_label(self) -> str:
        return self._redo[-1].label if self._redo else ""

    def undo(self) -> Document:
        """Take the last step back. Raises EditError where there is none, and what loading a step raises."""
        if not self._undo:
            raise EditError("There is nothing to undo.")
        return self._step(self._undo, self._redo)

    def redo(self) -> Document:
        """Take the step that was undone last again. Raises EditError where there is none, and what loading raises."""
        if not self._redo:
            raise EditError("There is nothing to redo.")
        return self._step(self._redo, self._undo)

    def _step(self, source: list[Step], target: list[Step]) -> Document:
        found = source[-1].load()  # first, since this may raise
        target.append(_kept(source.pop().label, self.document))
        self.document = found
        return found

    def _commit(self, label: str, new: Document) -> Document:
        soundness.check(new, self.document)
        self._undo.append(_kept(label, self.document))
        self._redo.clear()
        self.document = new
        return new

    # Words

    def rewrite(self, node_id: str, new_text: str, lang: str | None = None) -> Document:
        """Give a node other words, and with them another concept."""
        node = self.document.node(node_id)
        lang = lang or node.lang
        vector = self._encode(new_text, lang)
        origin = Provenance("edited", "rewrite", (node_id,), {"from": node.text})
        node = replace(node, text=new_text.strip(), lang=lang, vector=vector, provenance=origin)
        return self._commit("Rewrite", document.replace_node(self.document, node))

    def insert(self, index: int, new_text: str, lang: str | None = None) -> Document:
        """Write one or more sentences in front of position `index`."""
        lang = lang or self.document.lang
        text.check(new_text, self.engine.language(lang))
        pieces = segmentation.segment(new_text.strip(), lang, self.engine.fits).pieces
        vectors = self.engine.encode([piece.text for piece in pieces], lang)
        nodes = [
            ConceptNode(
                piece.text,
                lang,
                vector,
                Provenance("written", "insert"),
                after=piece.after or " ",
            )
            for piece, vector in zip(pieces, vectors, strict=True)
        ]
        return self._commit("Insert", self._inserted(index, nodes))

    def split(self, node_id: str, position: int) -> Document:
        """Cut a sentence in two at a character position; the first part keeps the node's id."""
        node = self.document.node(node_id)
        left, right = node.text[:position], node.text[position:]
        if not (text.has_words(left) and text.has_words(right)):
            raise EditError("Put the cut between two words: both parts need at least one.")
        spacing = left[len(left.rstrip()) :] + right[: len(right) - len(right.lstrip())]
        vectors = self.engine.encode([left.strip(), right.strip()], node.lang)
        origin = Provenance("edited", "split", (node_id,), {"position": position})
        first = replace(node, text=left.strip(), vector=vectors[0], after=spacing, provenance=origin)
        second = replace(node, text=right.strip(), vector=vectors[1], provenance=origin, id=new_id())
        index = self.document.index(node_id)
        nodes = (
            *self.document.nodes[:index],
            first,
            second,
            *self.document.nodes[index + 1 :],
        )
        return self._commit("Split", replace(self.document, nodes=nodes))

    def merge(self, node_ids: Sequence[str]) -> Document:
        """Join neighbouring sentences into one; it keeps the first one's id."""
        indices = self._neighbours(node_ids, "merge")
        nodes = self.document.nodes
        parts = [nodes[i] for i in indices]
        if len(parts) < 2:
            raise EditError("Select two or more neighbouring sentences to merge.")
        if len({part.lang for part in parts}) > 1:
            raise EditError("These sentences are in different languages; only sentences of one language can be merged.")
        joined = "".join(p.text + (" " if "\n" in p.after else p.after) for p in parts[:-1]) + parts[-1].text
        origin = Provenance("edited", "merge", tuple(p.id for p in parts))
        vector = self._encode(joined, parts[0].lang)
        one = replace(
            parts[0],
            text=joined,
            vector=vector,
            after=parts[-1].after,
            provenance=origin,
        )
        new = (*nodes[: indices[0]], one, *nodes[indices[-1] + 1 :])
        return self._commit("Merge", replace(self.document, nodes=new))

    def use_alternative(self, node_id: str, words: str) -> Document:
        """Say the same concept in other words: the text changes, the concept and its place do not."""
        node = self.document.node(node_id)
        text.check(words, self.engine.language(node.lang))
        origin = Provenance("decoded", "alternative", (node_id,), {"from": node.text})
        node = replace(node, text=words.strip(), provenance=origin)
        return self._commit("Other words", document.replace_node(self.document, node))

    def rename(self, title: str) -> Document:
        title = " ".join(title.split())[:200]
        if not title:
            raise EditError("A document needs a title; type at least one letter.")
        return self._commit("Rename", replace(self.document, title=title))

    # Order

    def delete(self, node_ids: Sequence[str]) -> Document:
        return self._commit("Delete", document.delete(self.document, node_ids))

    def move(self, node_ids: Sequence[str], index: int) -> Document:
        """Move sentences in front of what is now at position `index` (the number of sentences: to the end)."""
        return self._commit("Move", document.move(self.document, node_ids, index))

    def duplicate(self, node_ids: Sequence[str]) -> Document:
        """Put copies behind the last of the given sentences."""
        indices = self.document.indices(node_ids)
        copies = []
        for i in indices:
            node = self.document.nodes[i]
            origin = replace(node.provenance, operation="duplicate", parents=(node.id,))
            copies.append(replace(node, provenance=origin, id=new_id()))
        return self._commit("Duplicate", self._inserted(indices[-1] + 1, copies))

    # Concepts

    def interpolate(self, a: str, b: str, t: float) -> Document:
        """Insert the concept at share t of the way from node a to node b, behind the earlier of the two."""
        proposal = self.preview_interpolation(a, b, t, self.document.lang)
        index = min(self.document.index(a), self.document.index(b)) + 1
        return self._add(
            "Interpolate",
            index,
            proposal,
            "interpolated",
            "interpolate",
            (a, b),
            {"t": t},
        )

    def blend(self, node_ids: Sequence[str], weights: Sequence[float]) -> Document:
        """Insert the weighted mean of several concepts behind the last of them."""
        nodes = [self.document.node(i) for i in node_ids]
        if not nodes:
            raise EditError("Select the sentences to blend first.")
        proposal = self._propose(
            concepts.blend(np.stack([n.vector for n in nodes]), weights),
            self.document.lang,
        )
        index = self.document.indices(node_ids)[-1] + 1
        parameters = {"weights": [float(w) for w in weights]}
        return self._add(
            "Blend",
            index,
            proposal,
            "interpolated",
            "blend",
            tuple(node_ids),
            parameters,
        )

    def arithmetic(self, a: str, b: str, c: str) -> Document:
        """Insert a - b + c behind the last of the three."""
        vectors = [self.document.node(i).vector for i in (a, b, c)]
        proposal = self._propose(concepts.arithmetic(*vectors), self.document.lang)
        index = self.document.indices((a, b, c))[-1] + 1
        return self._add("Arithmetic", index, proposal, "interpolated", "arithmetic", (a, b, c), {})

    def vary(self, node_id: str, amount: float, seed: int) -> Document:
        """Replace a concept by a seeded sample around it; `amount` 0 to 1 is how far."""
        node = self.document.node(node_id)
        proposal = self._propose(concepts.vary(node.vector, amount, seed), node.lang)
        origin = Provenance("generated", "vary", (node_id,), {"amount": amount, "from": node.text}, seed)
        node = replace(node, text=proposal.text, vector=proposal.vector, provenance=origin)
        return self._commit("Vary", document.replace_node(self.document, node))

    def place(self, vector: np.ndarray, index: int, point: tuple[float, float]) -> Document:
        """Insert the concept taken at a point of a map in front of position `index`."""
        proposal = self._propose(vector, self.document.lang)
        parameters = {"x": float(point[0]), "y": float(point[1])}
        return self._add("Place", index, proposal, "decoded", "place", (), parameters)

    # The concept model

    def regenerate(self, node_ids: Sequence[str], seed: int, progress: Progress | None = None) -> Document:
        """Replace neighbouring sentences by what the concept model expects after those before them; where it is
        stopped, as many as were written."""
        indices = self._neighbours(node_ids, "regenerate")
        nodes = list(self.document.nodes)
        made = self._written(self.document.vectors[: indices[0]], len(indices), seed, progress, minimum=len(indices))
        for i, one in zip(indices, made, strict=False):
            parents = tuple(node.id for node in nodes[max(0, i - 1) : i])
            origin = Provenance("generated", "regenerate", parents, {"from": nodes[i].text, **self._by()}, seed)
            nodes[i] = replace(
                nodes[i],
                text=one.text,
                lang=self.document.lang,
                vector=one.vector,
                provenance=origin,
            )
        return self._commit("Regenerate", replace(self.document, nodes=tuple(nodes)))

    def continue_(self, n: int, seed: int, progress: Progress | None = None) -> Document:
        """Let the concept model go on for up to `n` sentences.

        It may end the document sooner, but not before one sentence: whoever asks wants at least that. Where it is
        stopped, what was written so far is kept.
        """
        made = self._written(self.document.vectors, n, seed, progress, minimum=1)
        if not made:
            raise EditError("What the model came up with can't be read; try again with another seed.")
        last = tuple(node.id for node in self.document.nodes[-1:])
        nodes = [self._node(one, "generated", "continue", last, self._by(), seed) for one in made]
        return self._commit("Continue", self._inserted(len(self.document.nodes), nodes))

    def infill(self, a: str, b: str, seed: int) -> Document:
        """Insert between two neighbours what the concept model takes to lead best from the one to the other."""
        first, second = self._neighbours([a, b], "write between")
        vectors = self.document.vectors
        found = self.engine.infill(
            vectors[: first + 1], vectors[second:], 1, self.document.lang, seed=seed, model=self.model
        )
        if not found:
            raise EditError("What the model came up with can't be read; try again with another seed.")
        parents = (self.document.nodes[first].id, self.document.nodes[second].id)
        node = self._node(found[0], "generated", "infill", parents, self._by(), seed)
        return self._commit("Fill in", self._inserted(second, [node]))

    def _written(
        self, context: np.ndarray, n: int, seed: int, progress: Progress | None, minimum: int
    ) -> list[Continuation]:
        """Up to `n` sentences after a context [N, D]; those written so far where it is stopped.

        Raises Cancelled where there are none.
        """
        made: list[Continuation] = []
        try:
            return self.engine.continue_(
                context,
                n,
                self.document.lang,
                seed=seed,
                progress=progress,
                on_concept=made.append,
                minimum=minimum,
                model=self.model,
            )
        except Cancelled:
            if not (kept := [one for one in made if text.has_words(one.text)]):
                raise
            return kept

    def _by(self) -> dict[str, object]:
        return {"model": self.model} if self.model else {}

    def translate(self, lang: str, progress: Progress | None = None) -> Document:
        """Make the reading in another language the document itself; concepts stay where they are."""
        texts = self.engine.read(self.document, lang, progress)
        nodes = tuple(
            node
            if node.lang == lang or not text.has_words(words)  # what can't be said in it stays as it is
            else replace(
                node,
                text=words,
                lang=lang,
                provenance=Provenance(
                    "decoded",
                    "translate",
                    (node.id,),
                    {"from": node.text, "lang": node.lang},
                ),
            )
            for node, words in zip(self.document.nodes, texts, strict=True)
        )
        return self._commit("Translate", replace(self.document, nodes=nodes, lang=lang))

    def written_in(self, lang: str, progress: Progress | None = None) -> Document:
        """Say that the document is written in another language than was thought: its words stay, and what they mean
        is read anew."""
        before = self.document.lang
        affected = [node for node in self.document.nodes if node.lang == before]
        if affected:
            text.check(" ".join(node.text for node in affected), self.engine.language(lang))
        vectors = iter(self.engine.encode([node.text for node in affected], lang, progress))
        nodes = tuple(
            replace(node, lang=lang, vector=next(vectors)) if node.lang == before else node
            for node in self.document.nodes
        )
        return self._commit("Change language", replace(self.document, nodes=nodes, lang=lang))

    # Previews: they change nothing

    def preview_interpolation(self, a: str, b: str, t: float, lang: str) -> Proposal:
        va, vb = self.document.node(a).vector, self.document.node(b).vector
        return self._propose(concepts.slerp(va, vb, t), lang)

    def preview(self, vector: np.ndarray, lang: str) -> Proposal:
        """What a concept from elsewhere (a point of the map, a blend) reads like."""
        return self._propose(vector, lang)

    def alternatives(self, node_id: str, n: int, seed: int) -> list[str]:
        """Up to `n` other wordings of one concept, the nearest first; fewer, or none, where there are no good ones."""
        node = self.document.node(node_id)
        return other_wordings(self.engine.space, node.vector, node.text, node.lang, n, seed)

    # Shared steps

    def _encode(self, words: str, lang: str) -> np.ndarray:
        text.check(words, self.engine.language(lang))
        return self.engine.encode([words.strip()], lang)[0]

    def _propose(self, vector: np.ndarray, lang: str) -> Proposal:
        words = self.engine.decode(vector[None], lang)[0]
        if not text.has_words(words):
            raise EditError("Nothing readable lies there; try a point nearer to other sentences.")
        return Proposal(words, vector)

    def _node(
        self,
        source: Proposal | Continuation,
        kind: Kind,
        operation: str,
        parents: tuple[str, ...],
        parameters: Mapping[str, object],
        seed: int | None = None,
    ) -> ConceptNode:
        origin = Provenance(kind, operation, parents, parameters, seed)
        return ConceptNode(source.text, self.document.lang, source.vector, origin)

    def _add(
        self,
        label: str,
        index: int,
        proposal: Proposal,
        kind: Kind,
        operation: str,
        parents: tuple[str, ...],
        parameters: Mapping[str, object],
    ) -> Document:
        node = self._node(proposal, kind, operation, parents, parameters)
        return self._commit(label, self._inserted(index, [node]))

    def _inserted(self, index: int, nodes: list[ConceptNode]) -> Document:
        if not self.document.nodes and nodes:
            nodes = [*nodes[:-1], replace(nodes[-1], after="")]
        return document.insert(self.document, index, nodes)

    def _neighbours(self, node_ids: Sequence[str], verb: str) -> list[int]:
        indices = self.document.indices(node_ids)
        if indices != list(range(indices[0], indices[-1] + 1)):
            raise EditError(f"Select sentences that stand next to each other to {verb} them.")
        return indices


def _kept(label: str, kept: Document) -> Step:
    return Step(label, lambda: kept)
