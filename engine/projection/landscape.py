"""The fixed map of a concept space: its file, the network that places concepts, and the way back."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import WeightsError
from ..spaces.builtin import ASSETS, BuiltinSpace, fingerprint
from ..weights import load_weights
from .neighbours import checked, lying_at
from .references import Reference, unpack

LANDSCAPE = ASSETS / "landscape.safetensors"
# Pixels for a unit of the map from which labels of each level are shown: broad, middle and fine regions. The recipe
# keeps the labels of a level apart at its scale.
SCALES = (250, 430, 900)


@dataclass(frozen=True)
class Label:
    """The name of a region, at a point of the map."""

    x: float
    y: float
    text: str
    level: int = 0  # of SCALES: 0 for the broadest regions; a landscape may have fewer levels


@dataclass(frozen=True)
class Density:
    """How many references lie where, smoothed; 1 at the peak. Row i of z belongs to y[i], column j to x[j]."""

    x: np.ndarray  # [W]
    y: np.ndarray  # [H]
    z: np.ndarray  # [H, W]


class Placement(nn.Module):
    """The network that learnt UMAP's placement: concepts [N, D] to points [N, 2]. Only directions matter to it."""

    def __init__(self, dim: int, hidden: int = 256) -> None:
        super().__init__()
        self.scale = math.sqrt(dim)
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, 2)
        )

    def forward(self, concepts: Tensor) -> Tensor:
        return self.layers(F.normalize(concepts, dim=-1) * self.scale)


class Landscape:
    """The fixed map of a concept space."""

    def __init__(
        self,
        coordinates: np.ndarray,
        vectors: np.ndarray,
        languages: list[str],
        labels: list[Label],
        density: Density,
        placement: Placement,
        error: dict[str, float],
        references: list[Reference] | None = None,
    ) -> None:
        self.coordinates = coordinates  # float32 [R, 2], between -1 and 1
        self.vectors = vectors  # float32 [R, D], the reference concepts
        self.languages = languages  # FLORES-200 code of each reference
        self.labels = labels  # at each level, the most typical first
        self.density = density
        self.placement = placement.eval().requires_grad_(False)
        self.error = error  # how far the network lies from UMAP, on sentences it has not seen; see training.landscape
        self.references = references or []  # the text of each, in the order of `coordinates`; [] where none is shipped

    @classmethod
    def load(cls, path: Path = LANDSCAPE, space: str | None = None) -> Landscape:
        """Load a landscape made for the weights with the fingerprint `space` (None: the ones in assets/).

        Raises WeightsError for a file that is missing, damaged, or made for other weights.
        """
        state = load_weights(path)
        try:
            with safe_open(path, "np") as file:
                about = file.metadata() or {}
            made_for = f"{about['space']} {about['fingerprint']}"
            languages, labels, error = (json.loads(about[key]) for key in ("languages", "labels", "error"))
            vectors = state["vectors"].numpy()
            placement = Placement(vectors.shape[1])
            placement.load_state_dict({k: v for k, v in state.items() if k.startswith("layers.")})
            landscape = cls(
                coordinates=state["coordinates"].numpy(),
                vectors=vectors,
                languages=[languages[int(i)] for i in state["language"]],
                labels=[Label(*label) for label in labels],
                density=Density(*(state[f"density.{axis}"].numpy().squeeze() for axis in "xyz")),
                placement=placement,
                error=error,
                references=unpack(state["texts"], state["source"], json.loads(about["sources"]))
                if "texts" in state
                else None,
            )
            if landscape.references and len(landscape.references) != len(vectors):
                raise ValueError("the texts are not one a reference")
        except (SafetensorError, OSError, KeyError, ValueError, RuntimeError, IndexError, TypeError) as cause:
            raise WeightsError(f"{path.name} is not a landscape; make one with engine.training.landscape.") from cause
        wanted = f"{BuiltinSpace.name} {space or fingerprint(ASSETS / 'encoder.safetensors')}"
        if made_for != wanted:
            raise WeightsError(
                f"{path.name} was made for the space {made_for}, not {wanted};"
                " make it again with engine.training.landscape."
            )
        return landscape

    @torch.inference_mode()
    def project(self, vectors: np.ndarray) -> np.ndarray:
        """Place concepts [N, D] on the map, float32 [N, 2]. Raises VectorError."""
        return self.placement(torch.from_numpy(checked(vectors, self.vectors.shape[1]))).numpy()

    def invert(self, points: np.ndarray) -> np.ndarray:
        """The concepts that lie at points [M, 2] of the map, float32 [M, D]. Raises VectorError.

        A point far from every reference gives a concept at the nearest shore.
        """
        points = checked(points, 2, "points")
        return self.settle(lying_at(points, self.coordinates, self.vectors), points)

    def settle(self, concepts: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Turn concepts [M, D] by as little as it takes for `project` to place them at `points` [M, 2].

        Gauss-Newton on the network. A blend of neighbours lands 4 % of the map away from the point that was asked
        for; turning it by some 3 degrees, which hardly ever changes its sentence, puts it there. Raises VectorError.
        """
        x = torch.from_numpy(checked(concepts, self.vectors.shape[1]))
        goal = torch.from_numpy(checked(points, 2, "points"))
        length = x.norm(dim=1, keepdim=True)
        for _ in range(4):
            x.requires_grad_(True)
            with torch.enable_grad():
                placed = self.placement(x)
                slopes = [torch.autograd.grad(placed[:, axis].sum(), x, retain_graph=True)[0] for axis in (0, 1)]
            jacobian = torch.stack(slopes, dim=1)  # [M, 2, D]
            normal = jacobian @ jacobian.mT + 1e-6 * torch.eye(2)
            step = (jacobian.mT @ torch.linalg.solve(normal, (goal - placed).detach()[..., None]))[..., 0]
            # At most 3 degrees a step: further off, where no sentence lies, the network's word is worth nothing.
            step = step * (0.05 * length / step.norm(dim=1, keepdim=True).clamp_min(1e-12)).clamp_max(1)
            x = F.normalize(x.detach() + step, dim=1) * length
        return x.numpy()
