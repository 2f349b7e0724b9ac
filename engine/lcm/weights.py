"""Concept models on disk: one file holds the model, the space it belongs to, and facts about its training."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import WeightsError
from ..weights import load_weights, save_weights
from .base import BaseLCM
from .blocks import Dimensions
from .diffusion import Schedule
from .model import ConceptModel
from .one_tower import OneTower
from .quantized import QuantC, QuantD
from .sonar_llm import SonarLLM
from .two_tower import TwoTower

# A new kind is a file with its class, and a name here.
KINDS: dict[str, type[ConceptModel]] = {
    model.kind: model for model in (BaseLCM, SonarLLM, OneTower, TwoTower, QuantD, QuantC)
}

# What ships ("tiny", and "small" for the kind that writes by default), and the published sizes (arXiv 2412.08821,
# section 2.4.1 and the architectures of Meta's code).
TINY = Dimensions(concept=512, width=320, layers=6, heads=5, hidden=864, context=128, dropout=0.1)
SMALL = replace(TINY, width=512, layers=7, heads=8, hidden=1376)
LARGE = Dimensions(concept=1024, width=2048, layers=32, heads=16, hidden=5632, context=4096, dropout=0.1)
LARGEST = Dimensions(concept=1024, width=4096, layers=32, heads=32, hidden=11_008, context=4096, dropout=0.1)
SIZES = {"tiny": TINY, "small": SMALL, "1.6B": LARGE, "7B": LARGEST}
SHIPPED = ("tiny", "small")


def dimensions(kind: str, size: str = "tiny") -> Dimensions:
    """The sizes of one kind of model. Raises WeightsError for a kind or size that nobody knows."""
    if kind not in KINDS or size not in SIZES:
        raise WeightsError(f"There is no {kind} model of size {size}; choose from {known(SIZES)} and {known(KINDS)}.")
    dims = SIZES[size]
    if issubclass(KINDS[kind], BaseLCM):
        return replace(dims, begin=size in SHIPPED)
    if kind == "two-tower":
        towers = {"1.6B": (5, 13), "7B": (5, 14)}.get(size, (5, 4))
        if size == "tiny":  # most of it in the tower that runs once a concept, not at every denoising step
            dims = replace(dims, width=256, heads=4, hidden=704, denoiser_hidden=256)
        return replace(dims, layers=towers[0], denoiser=towers[1])
    if kind.startswith("quant"):
        codebooks, units = (16, 256) if size in SHIPPED else (64, 8192)
        return replace(dims, codebooks=codebooks, units=units)
    return dims


def known(names: Any) -> str:
    return ", ".join(names)


def save(path: Path, model: ConceptModel, space: str, fingerprint: str, facts: dict[str, Any] | None = None) -> None:
    """Write a model, the space it belongs to, and `facts` about its training (anything that JSON can hold)."""
    metadata = {
        "model": model.kind,
        "space": space,
        "fingerprint": fingerprint,
        "dimensions": json.dumps(asdict(model.dims)),
        "facts": json.dumps(facts or {}),
    }
    if isinstance(model, OneTower | TwoTower):
        metadata["schedule"] = json.dumps(asdict(model.schedule))
    save_weights(path, dict(model.state_dict()), metadata)


def load(
    path: Path, space: str | None = None, concept: int | None = None, fingerprint: str | None = None
) -> ConceptModel:
    """Read a model. Raises WeightsError where the file is damaged, or made for another space, size or checkpoint.

    What is left None is not checked.
    """
    state = load_weights(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
    try:
        dims = Dimensions(**json.loads(metadata["dimensions"]))
        model = KINDS[metadata["model"]](dims)
        if isinstance(model, OneTower | TwoTower):
            model.schedule = Schedule(**json.loads(metadata.get("schedule", "{}")))
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path.name} is not a concept model of this version; train it anew.") from error
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


def made_for(path: Path) -> str:
    """The space that a model's file names; empty where there is no such file, or a damaged one."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("space", "")
    except (OSError, SafetensorError):
        return ""


def facts(path: Path) -> dict[str, Any]:
    """What a model's file says about its training and scores."""
    with safe_open(path, "pt") as file:
        return json.loads((file.metadata() or {}).get("facts", "{}"))
