"""Concept models: what comes next in a document, as a concept.

model = load_lcm("two-tower", space)
generate(model, vectors, 5, seed=1)                 # concepts [5, D]
expected, ends = Reading(model, [vectors]).expect()  # [1, D], [1]
"""

from __future__ import annotations

from pathlib import Path

from ..errors import WeightsError
from ..spaces import ConceptSpace
from .diffusion import Sampling
from .generator import Stop, generate, generate_all, infill
from .meta import load_meta
from .model import ConceptModel, Reading
from .weights import KINDS, facts, known, load, made_for

__all__ = [
    "KINDS",
    "ConceptModel",
    "Reading",
    "Sampling",
    "Stop",
    "available",
    "facts",
    "generate",
    "generate_all",
    "infill",
    "load_lcm",
    "load_meta",
]

FOLDER = Path(__file__).parents[2] / "assets" / "lcm"
DEFAULT = "sonar-llm"


def available(space: str = "builtin", folder: Path = FOLDER) -> list[str]:
    """The kinds of which there are weights for a space, the default first."""
    kinds = [kind for kind in KINDS if made_for(folder / f"{kind}.safetensors") == space]
    return sorted(kinds, key=lambda kind: kind != DEFAULT)


def load_lcm(kind: str = DEFAULT, space: ConceptSpace | None = None, folder: Path = FOLDER) -> ConceptModel:
    """Load the weights of a kind of concept model, ready to predict.

    Raises WeightsError for a kind that nobody knows, a missing or damaged file, and weights made for another space
    than `space`, for another checkpoint of it, or for another size.
    """
    if kind not in KINDS:
        raise WeightsError(f"There is no concept model called {kind!r}; use one of {known(KINDS)}.")
    path = folder / f"{kind}.safetensors"
    if space is None:
        return load(path)
    return load(path, space.name, space.dim, getattr(space, "fingerprint", None))
