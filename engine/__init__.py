"""Conceptscape's engine: a text as a path of sentence-concepts, edited there, and back to text.

import engine

e = engine.load()
vectors = e.encode(["The sea was calm.", "A storm came."], "eng_Latn")
e.decode(vectors, "fra_Latn")
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from . import concepts, segmentation, soundness, text
from .document import ConceptNode, Document, Provenance
from .errors import DocumentError, TextError, WeightsError
from .gradient import gradients
from .spaces import CHOICE, ConceptSpace, Language, Progress, Search, load_space, unknown_language
from .wording import ATTEMPTS, CHOICES, Continuation, refined, worded

if TYPE_CHECKING:
    import pandas

    from .lcm import ConceptModel
    from .lcm.generator import Refine
    from .projection import Landscape

__all__ = [
    "CHOICE",
    "ConceptNode",
    "Continuation",
    "Document",
    "Engine",
    "Language",
    "Progress",
    "Provenance",
    "Search",
    "load",
]

PORTION = 64  # sentences that are decoded before they are kept
READ_LIMIT = 5_000  # sentences kept in the reading cache, about 10 MB; more where one document has more


@dataclass
class Engine:
    """Everything that can be done with a concept space, in one place. Models load when they are first used."""

    space: ConceptSpace
    model: str = ""  # the kind of concept model: "sonar-llm", "two-tower", ...; empty for the default
    _read: dict[tuple[bytes, str], str] = field(default_factory=dict, repr=False)  # what was used last comes last
    _reading: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)  # held to change _read
    _models: dict[str, ConceptModel] = field(default_factory=dict, repr=False)
    _ends: dict[tuple[str, str], str] = field(default_factory=dict, repr=False)  # how a model's end reads

    @cached_property
    def models(self) -> list[str]:
        """The kinds of concept model that there are for this space, the default first."""
        from .lcm import available

        return available(self.space.name)

    def lcm(self, kind: str = "") -> ConceptModel:
        """A concept model, by default the engine's own; loaded once. Raises WeightsError where there is none."""
        from .lcm import DEFAULT, load_lcm

        if self.lacks_model:
            raise WeightsError(self.lacks_model)
        kind = kind or self.model or DEFAULT
        if kind not in self._models:
            self._models[kind] = load_lcm(kind, self.space)
        return self._models[kind]

    @property
    def has_landscape(self) -> bool:
        """Whether a landscape of this space is shipped."""
        return self.space.name == "builtin"

    @property
    def lacks_model(self) -> str:
        """Why nothing can be continued or regenerated here, in one sentence; empty where it can."""
        if self.models:
            return ""
        return f"There is no concept model of the {self.space.name} space, and those of other spaces mean nothing here."

    @cached_property
    def landscape(self) -> Landscape:
        """The shipped map. Raises WeightsError where the space has none, or its file is damaged."""
        from .projection import Landscape

        if not self.has_landscape:
            raise WeightsError(f"There is no landscape of the {self.space.name} space; use a document's own map.")
        return Landscape.load()

    def language(self, code: str) -> Language:
        if code not in self.space.languages:
            raise unknown_language(self.space.name, code, self.space.languages)
        return self.space.languages[code]

    def fits(self, sentence: str) -> bool:
        # A token is at least one character, so short text needs no counting.
        limit = self.space.max_tokens
        return len(sentence) <= limit // 2 or (
            len(sentence) < 40 * limit and self.space.count_tokens(sentence) <= limit
        )

    def segment(self, body: str, lang: str) -> list[str]:
        """The sentences of a text, long ones split so that each can be encoded."""
        text.check(body, self.language(lang))
        return [piece.text for piece in segmentation.segment(body, lang, self.fits).pieces]

    def encode(self, texts: Sequence[str], lang: str, progress: Progress | None = None) -> np.ndarray:
        """Sentences to concepts, float32 [N, D]. Raises TextError for one too long to be a concept."""
        return self.space.encode(texts, lang, progress=progress)

    def decode(
        self,
        vectors: np.ndarray,
        lang: str,
        search: Search = Search(),
        progress: Progress | None = None,
    ) -> list[str]:
        """Concepts [N, D] to sentences of a language."""
        return self.space.decode(vectors, lang, search=search, progress=progress)

    def alternatives(self, vectors: np.ndarray, lang: str, search: Search) -> list[list[str]]:
        """Concepts [N, D] to several sentences each, best first."""
        return self.space.alternatives(vectors, lang, search=search)

    def interpolate(self, a: np.ndarray, b: np.ndarray, t: float) -> np.ndarray:
        """The concept [D] at share t of the way from `a` to `b`."""
        return concepts.slerp(a, b, t)

    def gradient(self, a: str, b: str, steps: int, lang: str) -> list[str]:
        """`steps` sentences that lead steadily from sentence a to sentence b, both ends decoded too."""
        if steps < 2:
            raise TextError("A gradient needs at least 2 steps: its two ends.")
        for sentence in (a, b):
            text.check(sentence, self.language(lang))
        start, end = self.encode([a, b], lang)
        return gradients(self.space, [(start, end)], lang, steps)[0]

    def continue_(
        self,
        vectors: np.ndarray,
        n: int,
        lang: str,
        seed: int = 0,
        progress: Progress | None = None,
        on_concept: Callable[[Continuation], None] | None = None,
        temperature: float | None = None,
        minimum: int = 0,
        model: str = "",
    ) -> list[Continuation]:
        """Up to `n` concepts that a concept model expects after concepts [N, D]; fewer where it ends the document,
        but no fewer than `minimum`.

        Each predicted concept is decoded and the sentence encoded again before the next one is predicted: a
        prediction may lie between sentences, and the model was trained on sentences. Of several that are drawn, that
        one is taken of whose sentence the decoder is surest and which is expected most; where none will do, others
        are drawn.
        """
        from .lcm import Stop, generate

        writer = self.lcm(model)
        refine, said = self._refine(lang, writer)
        made = generate(
            writer,
            vectors,
            n,
            seed=seed,
            temperature=temperature,
            choices=1 if temperature == 0 else CHOICES,
            attempts=1 if temperature == 0 else ATTEMPTS,
            refine=refine,
            on_concept=lambda concept: on_concept(said[concept.tobytes()]) if on_concept else None,
            progress=progress,
            stop=Stop(minimum=minimum),
        )
        return [one for one in (said[concept.tobytes()] for concept in made) if text.has_words(one.text)]

    def infill(
        self,
        left: np.ndarray,
        right: np.ndarray,
        n: int,
        lang: str,
        seed: int = 0,
        temperature: float | None = None,
        model: str = "",
    ) -> list[Continuation]:
        """Up to `n` concepts, best first, each of which may stand between concepts `left` [N, D] and `right` [M, D].

        Raises VectorError where there is nothing on the right.
        """
        from .lcm import infill

        writer = self.lcm(model)
        refine, said = self._refine(lang, writer)
        found = infill(
            writer,
            left,
            right,
            n,
            seed=seed,
            temperature=temperature,
            refine=refine,
        )
        chosen = [said[vector.tobytes()] for vector in found]
        return [one for one in chosen if text.has_words(one.text)]

    def _refine(self, lang: str, model: ConceptModel) -> tuple[Refine, dict[bytes, Continuation]]:
        """What takes draws to sentences' concepts, and the sentences of those concepts, as they come."""
        said: dict[bytes, Continuation] = {}
        if (model.kind, lang) not in self._ends:
            self._ends[model.kind, lang] = self.space.decode(model.end.numpy()[None], lang)[0]
        end = self._ends[model.kind, lang]

        def refine(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            found = worded(self.space, drawn, lang)
            said.update((one.vector.tobytes(), one) for one in found)
            return refined(self.space, drawn, found, lang, end)

        return refine, said

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """Places of concepts [N, D] on the landscape, float32 [N, 2]."""
        return self.landscape.project(vectors)

    def invert(self, point: tuple[float, float]) -> np.ndarray:
        """The concept [D] that lies at a point of the landscape."""
        return self.landscape.invert(np.array([point], np.float32))[0]

    def import_text(
        self,
        body: str,
        lang: str,
        title: str = "Untitled",
        progress: Progress | None = None,
    ) -> Document:
        """A text as a document; its export is the very same text.

        Raises TextError or LanguageError where it can't be read as text of that language, DocumentError for a title
        that is none, and for more sentences than one document holds.
        """
        text.check(body, self.language(lang))
        soundness.check(Document(title, lang, self.space.identity))
        segmented = segmentation.segment(body, lang, self.fits)
        soundness.check_count(len(segmented.pieces))
        vectors = self.encode([piece.text for piece in segmented.pieces], lang, progress)
        nodes = tuple(
            ConceptNode(piece.text, lang, vector, after=piece.after)
            for piece, vector in zip(segmented.pieces, vectors, strict=True)
        )
        return Document(title, lang, self.space.identity, nodes, segmented.before)

    def check(self, document: Document) -> None:
        """Raise DocumentError or LanguageError, in one sentence, where a document can't be shown and edited here.

        Whatever is opened or imported is checked by this; see `soundness.check` for what is looked at.
        """
        soundness.check(document)
        for lang in dict.fromkeys([document.lang, *(node.lang for node in document.nodes)]):
            self.language(lang)
        dim = len(document.nodes[0].vector) if document.nodes else self.space.dim
        if document.space == self.space.identity and dim != self.space.dim:
            raise DocumentError(
                f"The document's vectors have {dim:,} numbers and those of the {self.space.name} space have "
                f"{self.space.dim:,}; export it again from where it came."
            )

    def adopt(self, document: Document, progress: Progress | None = None) -> Document:
        """The document in this space: the same where it is at home here, else with its sentences encoded again.

        Vectors of another space, or of other weights of this one, mean nothing here. Raises DocumentError or
        LanguageError where it can't be shown here (see `check`), TextError where a sentence can't be encoded.
        """
        self.check(document)
        if document.space == self.space.identity:
            return document
        vectors: dict[tuple[str, str], np.ndarray] = {}
        for lang in dict.fromkeys(node.lang for node in document.nodes):
            texts = list(dict.fromkeys(node.text for node in document.nodes if node.lang == lang))
            vectors.update(zip([(lang, t) for t in texts], self.encode(texts, lang, progress), strict=True))
        nodes = tuple(replace(node, vector=vectors[node.lang, node.text]) for node in document.nodes)
        return replace(document, nodes=nodes, space=self.space.identity)

    def read(self, document: Document, lang: str, progress: Progress | None = None) -> list[str]:
        """Each node's sentence in a language: its own text where it is written in it, else decoded with choice
        (once).

        What was decoded is kept: of all documents some READ_LIMIT sentences, those used last, but always the ones of
        the document read last, also where the reading was stopped half-way. Several threads may read at once.
        """
        self.language(lang)
        keys = [None if node.lang == lang else (node.vector.tobytes(), lang) for node in document.nodes]
        # Others may read meanwhile, so what is returned is not looked up in what all of them change.
        with self._reading:
            said = {key: self._read[key] for key in keys if key in self._read}
        missing = {key: n.vector for key, n in zip(keys, document.nodes, strict=True) if key and key not in said}
        try:
            wanted = list(missing)
            for start in range(0, len(wanted), PORTION):
                portion = wanted[start : start + PORTION]

                def report(done: int, total: int, start: int = start) -> None:
                    if progress:
                        progress(start + done, len(wanted))

                decoded = self.decode(np.stack([missing[key] for key in portion]), lang, CHOICE, report)
                said.update(zip(portion, decoded, strict=True))
        finally:
            self._keep(said)
        return [said[key] if key else node.text for key, node in zip(keys, document.nodes, strict=True)]

    def _keep(self, said: dict[tuple[bytes, str], str]) -> None:
        """Put what was read at the end of the reading cache, and drop what was used longest ago."""
        with self._reading:
            for key, sentence in said.items():
                self._read.pop(key, None)
                self._read[key] = sentence
            for key in list(self._read)[: max(0, len(self._read) - max(READ_LIMIT, len(said)))]:
                del self._read[key]

    def table(self, document: Document) -> pandas.DataFrame:
        """The trajectory as a table, one row a node: what it says, where it came from and where it lies.

        `x` and `y` are places on the landscape (without one, in the plane of the document); `step` is the cosine
        distance (0 to 2) from the node before.
        """
        import pandas

        vectors = document.vectors
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        steps = 1 - (unit[1:] * unit[:-1]).sum(1)  # of neighbours alone: of all pairs a large document has billions
        places = np.zeros((0, 2))
        if len(vectors) and self.has_landscape:
            places = self.project(vectors)
        elif len(vectors):
            from .projection import DocumentMap

            places = DocumentMap.flat(vectors).coordinates
        return pandas.DataFrame(
            {
                "id": [node.id for node in document.nodes],
                "text": [node.text for node in document.nodes],
                "lang": [node.lang for node in document.nodes],
                "kind": [node.provenance.kind for node in document.nodes],
                "operation": [node.provenance.operation for node in document.nodes],
                "x": places[:, 0],
                "y": places[:, 1],
                "step": [float("nan"), *steps][: len(vectors)],
            }
        )


def load(
    space: str = "builtin",
    model: str = "",
    *,
    sonar_dir: Path | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> Engine:
    """Load an engine on a concept space: builtin, sonar or sonar-space; see `spaces.load_space` for the options.

    `model` is the kind of concept model that writes, such as "two-tower"; empty for the default.

    Raises WeightsError where its files are missing or damaged.
    """
    return Engine(load_space(space, sonar_dir=sonar_dir, device=device, progress=progress), model)
