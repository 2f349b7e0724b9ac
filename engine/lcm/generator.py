"""The generator: a document goes on concept by concept until it ends by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..concepts import cosine, seeded
from ..spaces import Progress
from .base import BaseLCM, checked


@dataclass(frozen=True)
class Stop:
    """When generation ends before the number of concepts that was asked for (arXiv 2412.08821, section 2.3.1)."""

    end: float | None = None  # probability of the document's end that ends it; None: the model's calibrated one
    repetition: float = 0.95  # cosine to a recent concept that counts as saying it again; above 1 nothing does
    recent: int = 8  # concepts that are looked back at
    minimum: int = 0  # concepts to generate before the document may end


def generate(
    model: BaseLCM,
    prefix: np.ndarray,
    n: int,
    *,
    seed: int = 0,
    temperature: float = 0.0,
    refine: Callable[[np.ndarray], np.ndarray] | None = None,
    on_concept: Callable[[np.ndarray], None] | None = None,
    progress: Progress | None = None,
    stop: Stop = Stop(),
) -> np.ndarray:
    """Up to `n` concepts float32 [M, D] that follow `prefix` [N, D]; N may be 0 (a new document).

    `refine` [D] -> [D] takes a prediction to where sentences lie (by decoding and encoding it again): a mean
    prediction lies between sentences, and the model was trained on sentences. It is called once for each concept, and
    what it returns is checked for repetition, read as context and generated. `on_concept` gets each concept
    as it comes, `progress` (generated, n); either may raise `Cancelled`.

    Seeds give alternatives, spread out by `temperature`; at temperature 0 all are the same. Raises VectorError for a
    prefix that the model can't read.
    """
    rng = seeded(seed)
    threshold = float(model.end_threshold) if stop.end is None else stop.end
    told = checked(prefix, model.dims.concept)
    reading = model.read()
    new, generated = told, 0
    while generated < n:
        prediction = reading.predict(new)
        if generated >= stop.minimum and prediction.end >= threshold:
            break
        concept = model.draw(prediction.concept, temperature, rng)
        if refine is not None:
            concept = np.asarray(refine(concept), np.float32)
        recent = told[-stop.recent :] if stop.recent else told[:0]
        if len(recent) and generated >= stop.minimum and cosine(concept, recent).max() > stop.repetition:
            break
        new = concept[None]
        told = np.concatenate([told, new])
        generated += 1
        if on_concept:
            on_concept(concept)
        if progress:
            progress(generated, n)
    return told[len(told) - generated :]
