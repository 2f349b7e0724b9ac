"""Base-LCM: a causal transformer that predicts the next concept of a document by its mean (MSE).

Large Concept Models, arXiv 2412.08821, section 2.3.1: a PreNet normalizes concepts and maps them to the model's
width, a decoder-only transformer reads them, a PostNet maps its states back to concepts and denormalizes.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor, nn

from ..errors import VectorError, WeightsError
from ..weights import load_weights, save_weights
from .blocks import Cache, Dimensions, Stack
from .normalizer import Normalizer

END_SENTENCE = "End of text."  # training documents are suffixed with its concept (section 2.3.1)

TINY = Dimensions(concept=512, width=512, layers=6, heads=8, hidden=1408, context=128, dropout=0.1)


@dataclass(frozen=True)
class Prediction:
    """What a model expects after a prefix."""

    concept: np.ndarray  # float32 [D], the mean of what may come; its norm is smaller the less certain it is
    end: float  # the probability that the document ends here, 0 to 1


class BaseLCM(nn.Module):
    """Base-LCM with everything that prediction needs, so that one weights file is the whole model.

    A learned vector of the model's width stands before the first concept: it marks the beginning of a document, and
    makes an empty prefix an ordinary one. A prefix longer than the context is read through its last `context` concepts.
    """

    end: Tensor  # [D] concept of END_SENTENCE
    end_fit: Tensor  # [2] slope and offset of the logistic from nearness to the end to its probability
    end_threshold: Tensor  # [] probability at which a document ends
    norm: Tensor  # [] mean norm of a sentence's concept
    spread: Tensor  # [D, D] factor of the covariance of what prediction misses: spread @ spread.T

    def __init__(self, dims: Dimensions) -> None:
        super().__init__()
        self.dims = dims
        self.normalizer = Normalizer(dims.concept)
        self.prenet = nn.Linear(dims.concept, dims.width)
        self.begin = nn.Parameter(torch.randn(dims.width) * 0.02)
        self.stack = Stack(dims)
        self.postnet = nn.Linear(dims.width, dims.concept)
        nn.init.zeros_(self.postnet.weight)  # the first prediction is the median concept
        nn.init.zeros_(self.postnet.bias)
        self.register_buffer("end", torch.zeros(dims.concept))
        self.register_buffer("end_fit", torch.tensor([1.0, 0.0]))
        self.register_buffer("end_threshold", torch.tensor(0.5))
        self.register_buffer("norm", torch.tensor(math.sqrt(dims.concept)))
        self.register_buffer("spread", torch.eye(dims.concept))

    def forward(self, concepts: Tensor, starts: Tensor, cache: Cache | None = None) -> Tensor:
        """Predictions [N, T, D]: row t is what follows concepts [N, 0..t, D].

        `starts` [N] says in which rows position 0 is the beginning of the document; what `concepts` holds there is
        not read.
        """
        x = self.prenet(self.normalizer.normalize(concepts))
        first = torch.where(starts[:, None, None], self.begin.to(x.dtype), x[:, :1])
        states = self.stack(torch.cat([first, x[:, 1:]], dim=1), cache)
        return self.normalizer.denormalize(self.postnet(states).float())

    def nearness(self, predictions: Tensor) -> Tensor:
        """Cosine [...] of predictions [..., D] and the end-of-document concept, both seen from the median concept."""
        centre = self.normalizer.centre
        return torch.cosine_similarity(predictions - centre, self.end - centre, dim=-1)

    def ending(self, predictions: Tensor) -> Tensor:
        """Probability [...] that the document ends where `predictions` [..., D] stand."""
        return torch.sigmoid(self.end_fit[0] * self.nearness(predictions) + self.end_fit[1])

    def read(self) -> Reading:
        """Begin to read a document, concept after concept."""
        return Reading(self)

    def predict(self, prefix: np.ndarray) -> Prediction:
        """What comes after concepts [N, D]; N may be 0. Raises VectorError for another shape or values not finite."""
        return self.read().predict(prefix)

    def draw(self, concept: np.ndarray, temperature: float, rng: np.random.Generator) -> np.ndarray:
        """A concept [D] around a predicted one, as long as a sentence's.

        The noise has the covariance of what the model missed on validation documents: at temperature 1 it is a sample
        of what may follow (as far as a normal distribution can tell), at 0 the prediction itself.
        """
        drawn = concept
        if temperature > 0:
            noise = rng.standard_normal(len(concept)).astype(np.float32)
            drawn = concept + temperature * (self.spread.numpy() @ noise)
        return np.asarray(drawn * (float(self.norm) / max(float(np.linalg.norm(drawn)), 1e-6)), np.float32)


class Reading:
    """One document being read by a model. Keys and values are kept as long as the document fits the context.

    Beyond it, every step reads the last window anew (some 20 ms), so that the answer depends on those concepts alone.
    """

    def __init__(self, model: BaseLCM) -> None:
        self.model = model
        self.concepts = np.zeros((0, model.dims.concept), np.float32)
        self.cache: Cache | None = Cache(model.dims, 1, model.begin)

    @torch.inference_mode()
    def predict(self, new: np.ndarray) -> Prediction:
        """Read concepts [N, D] after those read before; say what comes next."""
        new = checked(new, self.model.dims.concept)
        self.concepts = np.concatenate([self.concepts, new])
        begin = np.zeros_like(new, shape=(1, new.shape[1]))
        context = self.model.dims.context
        if len(self.concepts) >= context:
            self.cache = None  # the beginning is out of sight from here on
            inputs, starts = self.concepts[-context:], False
        elif self.cache is not None and self.cache.length:
            inputs, starts = new, False
        else:
            inputs, starts = np.concatenate([begin, new]), True
        if not len(inputs):
            raise VectorError("There is no new concept to read.")
        prediction = self.model(torch.from_numpy(inputs)[None], torch.tensor([starts]), self.cache)[0, -1]
        return Prediction(prediction.numpy(), float(self.model.ending(prediction)))


def checked(vectors: np.ndarray, concept: int) -> np.ndarray:
    """Vectors as float32 [N, D]; raises VectorError where they are not that, or not finite."""
    array = np.asarray(vectors, np.float32)
    if array.size == 0:
        return np.zeros((0, concept), np.float32)
    if array.ndim != 2 or array.shape[1] != concept:
        raise VectorError(f"The vectors have the shape {array.shape}; this model needs [N, {concept}].")
    if not np.isfinite(array).all():
        raise VectorError("The vectors hold values that are not finite numbers.")
    return array


def save(path: Path, model: BaseLCM, space: str, fingerprint: str, facts: dict[str, Any] | None = None) -> None:
    """Write a model, the space it belongs to, and `facts` about its training (anything that JSON can hold)."""
    metadata = {
        "model": "base",
        "space": space,
        "fingerprint": fingerprint,
        "dimensions": json.dumps(asdict(model.dims)),
        "facts": json.dumps(facts or {}),
    }
    save_weights(path, dict(model.state_dict()), metadata)


def load(path: Path, space: str | None = None, concept: int | None = None, fingerprint: str | None = None) -> BaseLCM:
    """Read a model. Raises WeightsError where the file is damaged, or made for another space, size or checkpoint.

    What is left None is not checked.
    """
    state = load_weights(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    try:
        dims = Dimensions(**json.loads(metadata["dimensions"]))
        model = BaseLCM(dims)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path.name} is not a Base-LCM of this version; train it anew.") from error
    if space is not None and metadata.get("space") != space:
        raise WeightsError(f"{path.name} was made for the space {metadata.get('space')!r}, not for {space!r}.")
    if concept is not None and dims.concept != concept:
        raise WeightsError(f"{path.name} predicts concepts of {dims.concept} components; the space has {concept}.")
    if fingerprint is not None and metadata.get("fingerprint") != fingerprint:
        raise WeightsError(
            f"{path.name} was trained on other weights of this space ({metadata.get('fingerprint')}) "
            f"than the ones here ({fingerprint}); get both from one version of the project."
        )
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{path.name} does not hold the model that it names; get a complete copy of it.") from error
    return model.eval()
