"""Concept models: what comes next in a document, as a concept.

model = load_lcm("base", space)
model.predict(vectors)                      # Prediction(concept, end)
generate(model, vectors, 5, seed=1, temperature=0.3)
"""

from __future__ import annotations

from pathlib import Path

from ..errors import WeightsError
from ..spaces import ConceptSpace
from .base import BaseLCM, Prediction, load
from .generator import Stop, generate

__all__ = ["ConceptModel", "Prediction", "Stop", "generate", "load_lcm"]

ASSETS = Path(__file__).parents[2] / "assets"

ConceptModel = BaseLCM  # what the engine asks of a model: `predict`, `read`, `draw`, `dims`, `end_threshold`


def load_lcm(name: str = "base", space: ConceptSpace | None = None, folder: Path = ASSETS) -> ConceptModel:
    """Load the weights of a concept model by name, ready to predict.

    Raises WeightsError for a name that nobody knows, a missing or damaged file, and weights made for another space
    than `space`, for another checkpoint of it, or for another size.
    """
    if name != "base":
        raise WeightsError(f"There is no concept model called {name!r}; use base.")
    path = folder / f"lcm-{name}.safetensors"
    if space is None:
        return load(path)
    return load(path, space.name, space.dim, getattr(space, "fingerprint", None))
