"""The map: concepts to points in the plane, and points back to concepts.

Two maps, one interface. A `Landscape` was fitted once on reference sentences and never moves. A `DocumentMap`
is fitted by umap-learn to the concepts of one document. Both have `coordinates`, `project` and `invert`.
"""

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

from .concepts import cosine
from .errors import VectorError, WeightsError
from .spaces import Progress
from .spaces.builtin import ASSETS, BuiltinSpace, fingerprint
from .weights import load_weights

LANDSCAPE = ASSETS / "landscape.safetensors"
FEWEST = 15  # concepts that a document map needs: umap-learn describes neighbourhoods, and fewer have none
NEIGHBOURS = 5  # concepts blended where a point lies between them


@dataclass(frozen=True)
class Label:
    """The name of a region, at a point of the map."""

    x: float
    y: float
    text: str


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
    ) -> None:
        self.coordinates = coordinates  # float32 [R, 2], between -1 and 1
        self.vectors = vectors  # float32 [R, D], the reference concepts
        self.languages = languages  # FLORES-200 code of each reference
        self.labels = labels
        self.density = density
        self.placement = placement.eval().requires_grad_(False)
        self.error = error  # how far the network lies from UMAP, on sentences it has not seen; see training.landscape

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
            )
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
        for; turning it by some 3 degrees, which hardly ever changes its sentence, puts it there.
        """
        x, goal = torch.from_numpy(concepts), torch.from_numpy(points)
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


class DocumentMap:
    """A map of one document's own shape, fitted by umap-learn.

    New concepts are placed among their nearest in the document, and points read the same way, by `nearest`. UMAP's
    own two ways were tried on 30 and 60 sentences and do worse. `transform` puts a sentence's translation a quarter
    to a third of the map away from it (this: 3 %) and even an all but identical vector a sixth away, since on so few
    points its repulsion outweighs its attraction. `inverse_transform` takes a second or more and gives vectors half
    as long again as a concept, which decode to the same few sentences everywhere and are placed half the map away.
    """

    def __init__(self, coordinates: np.ndarray, vectors: np.ndarray) -> None:
        self.coordinates = coordinates  # float32 [N, 2]
        self.vectors = vectors  # float32 [N, D]

    @classmethod
    def fit(cls, vectors: np.ndarray, seed: int = 0, progress: Progress | None = None) -> DocumentMap:
        """Fit the concepts [N, D] of a document, N >= 15; the same seed gives the same map.

        Takes tens of seconds the first time in a process (umap-learn is imported and compiled), so run it in the
        background. Raises VectorError for fewer concepts and for vectors that can't be used.
        """
        vectors = checked(vectors)
        if len(vectors) < FEWEST:
            raise VectorError(
                f"A document map needs {FEWEST} concepts and there are {len(vectors)}; use the landscape until then."
            )
        report = progress or (lambda done, total: None)
        report(0, 2)
        from umap import UMAP

        report(1, 2)
        neighbours = min(15, len(vectors) // 3)  # 15 is UMAP's habit; of a short document it would be everything
        model = UMAP(n_neighbors=neighbours, metric="cosine", random_state=seed, n_jobs=1)
        coordinates = model.fit_transform(vectors).astype(np.float32)
        report(2, 2)
        return cls(coordinates, vectors)

    @classmethod
    def flat(cls, vectors: np.ndarray) -> DocumentMap:
        """The concepts [N, D] of a document, N >= 1, in the plane in which they spread most (principal components).

        Takes a millisecond and any number of concepts: it stands in where a space has no landscape. Raises VectorError.
        """
        vectors = checked(vectors)
        if not len(vectors):
            raise VectorError("There is nothing on this map yet; write a sentence first.")
        centered = vectors - vectors.mean(0)
        rows = np.concatenate([centered, np.zeros((2, vectors.shape[1]), np.float32)])  # one or two make no plane
        directions = np.linalg.svd(rows, full_matrices=False)[2][:2]
        directions *= np.sign(directions[np.arange(2), np.abs(directions).argmax(1)])[:, None]  # else either way round
        coordinates = centered @ directions.T
        return cls((coordinates / max(np.abs(coordinates).max(), 1e-6)).astype(np.float32), vectors)

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """Place concepts [M, D] among those of the document, float32 [M, 2]. Raises VectorError."""
        vectors = checked(vectors, self.vectors.shape[1])
        # Between unit vectors the squared distance is 2 - 2 cosine.
        rows, weights = nearest(2 - 2 * cosine(vectors, self.vectors))
        return np.einsum("mk,mkc->mc", weights, self.coordinates[rows])

    def invert(self, points: np.ndarray) -> np.ndarray:
        """The concepts that lie at points [M, 2] of the map, float32 [M, D]. Raises VectorError."""
        return lying_at(checked(points, 2, "points"), self.coordinates, self.vectors)


def nearest(squared: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From squared distances [M, N]: the rows that are nearest and how much each counts, both [M, NEIGHBOURS].

    Inverse distance weighting (Shepard 1968): at a row's own place it alone counts, and nothing jumps between.
    """
    k = min(NEIGHBOURS, squared.shape[1])
    rows = np.argpartition(squared, k - 1, axis=1)[:, :k]
    near = np.maximum(np.take_along_axis(squared, rows, axis=1), 1e-9)
    weights = (near.min(axis=1, keepdims=True) / near) ** 2  # of the squares: the fourth power of the distance
    return rows, (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def lying_at(points: np.ndarray, coordinates: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Concepts [M, D] at points [M, 2] of a map that has `vectors` [N, D] at `coordinates` [N, 2]."""
    squared = sum((points[:, None, axis].astype(float) - coordinates[:, axis]) ** 2 for axis in (0, 1))
    rows, weights = nearest(squared)
    mixed = np.einsum("mk,mkd->md", weights, vectors[rows])
    # A mean is shorter than what it is the mean of, and short concepts decode badly.
    length = np.einsum("mk,mk->m", weights, np.linalg.norm(vectors[rows], axis=2))
    return mixed * (length / np.maximum(np.linalg.norm(mixed, axis=1), 1e-6))[:, None]


def checked(rows: np.ndarray, width: int | None = None, what: str = "vectors") -> np.ndarray:
    """Rows as float32 [N, width]; raises VectorError where they are not that, or not finite."""
    try:
        array = np.ascontiguousarray(rows, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise VectorError(f"The {what} are not an array of numbers.") from error
    if array.ndim != 2 or array.shape[1] != (width or array.shape[1]):
        raise VectorError(f"The {what} have the shape {array.shape}; this map needs [N, {width or 'D'}].")
    if not np.isfinite(array).all():
        raise VectorError(f"The {what} hold values that are not finite numbers.")
    return array
