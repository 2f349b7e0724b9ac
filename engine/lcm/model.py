"""What every concept model is: how it is trained, how it reads documents, and what it says comes next.

A kind of model is one class derived from `ConceptModel`, in a file of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import VectorError
from .blocks import Dimensions
from .diffusion import Sampling
from .normalizer import Normalizer

END_SENTENCE = "End of text."  # training documents are suffixed with its concept (arXiv 2412.08821, section 2.3.1)


@dataclass(frozen=True)
class Batch:
    """Windows of documents, padded: each concept is to be predicted from those before it."""

    concepts: Tensor  # [N, T, D]
    real: Tensor  # bool [N, T]: what is predicted, and not padding
    tokens: list[list[list[int]]] | None = None  # of each concept's sentence, where the loss is over words
    languages: Tensor | None = None  # [N], with tokens


class Memory(Protocol):
    """What a model keeps of the documents that it has read, one row each."""

    def keep(self, rows: list[int]) -> None:
        """Forget all other rows."""
        ...


class ConceptModel(nn.Module):
    """A model with everything that prediction needs, so that one weights file is the whole model.

    Its tensors are normalized concepts; numpy arrays at `Reading`'s edge are concepts as the space has them.
    """

    kind: ClassVar[str]
    title: ClassVar[str]  # the kind as people write it
    temperature: ClassVar[float]  # how far alternatives are spread, unless told otherwise; 0 is always the same
    words: ClassVar[bool] = False  # whether it is trained on words, through the space's decoder, instead of by `loss`
    end: Tensor  # [D] concept of END_SENTENCE
    end_fit: Tensor  # [2] slope and offset of the logistic from nearness to the end to its probability
    end_threshold: Tensor  # [] probability at which a document ends
    norm: Tensor  # [] mean norm of a sentence's concept

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()
        self.dims = dims
        self.normalizer = Normalizer(dims.concept)
        self.register_buffer("end", torch.zeros(dims.concept))
        self.register_buffer("end_fit", torch.tensor([1.0, 0.0]))
        self.register_buffer("end_threshold", torch.tensor(0.5))
        self.register_buffer("norm", torch.tensor(math.sqrt(dims.concept)))

    # What each kind says

    def prepare(self, concepts: Tensor, seed: int) -> None:
        """Learn from normalized concepts [N, D] what must be known before training; most kinds need nothing."""

    def loss(self, batch: Batch, read: Tensor) -> Tensor:
        """The training loss; `batch` and `read` [N, T, D], what stands before each concept, are normalized."""
        raise NotImplementedError

    def expectations(self, batch: Batch) -> Tensor:
        """What is expected at each position given the true concepts before it, [N, T, D] (a mean, not a sample)."""
        raise NotImplementedError

    def start(self, rows: int) -> Memory:
        """The memory of documents of which nothing has been read."""
        raise NotImplementedError

    def read(self, memory: Any, concepts: Tensor, counts: Tensor) -> None:
        """Read concepts [N, T, D] on; row i has counts[i] of them, the rest is padding."""
        raise NotImplementedError

    def expect(self, memory: Any) -> Tensor:
        """What is expected next, [N, D]."""
        raise NotImplementedError

    def sample(self, memory: Any, draws: Sequence[np.random.Generator], temperature: float, how: Sampling) -> Tensor:
        """One of the concepts that may come next for each row, [N, D], by that row's own random numbers."""
        raise NotImplementedError

    # What all have

    def nearness(self, expected: Tensor) -> Tensor:
        """Cosine [...] of expected concepts [..., D] and the end-of-document concept, both normalized."""
        return torch.cosine_similarity(expected, self.normalizer.normalize(self.end), dim=-1)

    def ending(self, expected: Tensor) -> Tensor:
        """Probability [...] that the document ends where [..., D] is expected."""
        return torch.sigmoid(self.end_fit[0] * self.nearness(expected) + self.end_fit[1])


class Reading:
    """Documents being read by a model, one row each.

    Keys and values are kept as long as the documents fit the context. Beyond it, every step reads the last window
    anew, so that the answer depends on those concepts alone.
    """

    def __init__(self, model: ConceptModel, documents: Sequence[np.ndarray]) -> None:
        """Begin with what is there of each document, [N, D]; N may be 0. Raises VectorError as `read` does."""
        self.model = model
        nothing = np.zeros((0, model.dims.concept), np.float32)
        self.documents = [nothing for _ in documents]
        self.memory = self._start(len(documents))
        self.read(documents)

    @torch.inference_mode()
    def _start(self, rows: int) -> Memory:
        return self.model.start(rows)

    @torch.inference_mode()
    def read(self, new: Sequence[np.ndarray]) -> None:
        """Read concepts [N, D] on, for each row. Raises VectorError for another shape or values not finite."""
        model, context = self.model, self.model.dims.context
        new = [checked(rows, model.dims.concept) for rows in new]
        begun = any(len(document) for document in self.documents)
        self.documents = [np.concatenate([a, b]) for a, b in zip(self.documents, new, strict=True)]
        ragged = len({len(rows) for rows in new}) > 1
        if max(map(len, self.documents), default=0) > context or (begun and ragged):
            self.memory = model.start(len(self.documents))
            new = [document[-context:] for document in self.documents]
        counts = torch.tensor([len(rows) for rows in new])
        if not len(counts) or not counts.max():
            return
        concepts = torch.zeros(len(new), int(counts.max()), model.dims.concept)
        for row, rows in zip(concepts, new, strict=True):
            row[: len(rows)] = torch.from_numpy(rows)
        model.read(self.memory, model.normalizer.normalize(concepts), counts)

    @torch.inference_mode()
    def expect(self) -> tuple[np.ndarray, np.ndarray]:
        """Expected next concepts [N, D], shorter the less certain they are, and each document's chance to end [N]."""
        expected = self.model.expect(self.memory)
        return self.model.normalizer.denormalize(expected).numpy(), self.model.ending(expected).numpy()

    @torch.inference_mode()
    def sample(
        self, draws: Sequence[np.random.Generator], temperature: float | None = None, how: Sampling = Sampling()
    ) -> np.ndarray:
        """Concepts [N, D] that may come next, as long as a sentence's."""
        if temperature is None:
            temperature = self.model.temperature
        drawn = self.model.normalizer.denormalize(self.model.sample(self.memory, draws, temperature, how)).numpy()
        length = np.linalg.norm(drawn, axis=1, keepdims=True)
        return np.asarray(drawn * (float(self.model.norm) / np.maximum(length, 1e-6)), np.float32)

    @torch.inference_mode()
    def ends(self, concepts: np.ndarray) -> np.ndarray:
        """The chance that each of concepts [..., D] is the end of its document, [...]."""
        own = torch.from_numpy(np.ascontiguousarray(concepts, np.float32))
        return self.model.ending(self.model.normalizer.normalize(own)).numpy()

    def keep(self, rows: list[int]) -> None:
        """Go on with these rows only; one that is named several times is there as often."""
        self.documents = [self.documents[i] for i in rows]
        self.memory.keep(rows)


def normal(draws: Sequence[np.random.Generator], width: int) -> Tensor:
    """Standard normal noise [N, width], each row by its own random numbers: a batch's size changes nothing."""
    return torch.from_numpy(np.stack([draw.standard_normal(width) for draw in draws]).astype(np.float32))


def checked(vectors: np.ndarray, concept: int) -> np.ndarray:
    """Vectors as float32 [N, D], in rows as torch takes them; raises VectorError where they are not that, or not
    finite."""
    try:
        array = np.ascontiguousarray(vectors, np.float32)
    except (TypeError, ValueError) as error:
        raise VectorError("The vectors are not an array of numbers.") from error
    if array.size == 0:
        return np.zeros((0, concept), np.float32)
    if array.ndim != 2 or array.shape[1] != concept:
        raise VectorError(f"The vectors have the shape {array.shape}; this model needs [N, {concept}].")
    if not np.isfinite(array).all():
        raise VectorError("The vectors hold values that are not finite numbers.")
    return array
