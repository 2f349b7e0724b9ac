"""Make the landscape of the built-in space: `python -m engine.training.landscape --help`.

umap-learn is fitted once on reference sentences of every language (McInnes et al., arXiv 1802.03426). A small
network then learns its placement, as in parametric UMAP (Sainburg et al., arXiv 2009.12981): it has no
neighbours to look up, places a concept in well under a millisecond, and never moves what it has placed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from sklearn.neighbors import NearestNeighbors

from ..concepts import rescale, slerp
from ..projection import LANDSCAPE, Density, Label, Landscape, Placement, Reference
from ..projection.references import pack
from ..spaces.builtin import ASSETS, LANGUAGES, BuiltinSpace
from ..weights import save_weights
from . import corpus
from .command import answered
from .labels import Vocabulary, labels
from .references import Sample, Sentence, attribution, sample
from .schedule import Clock, Schedule

CODES = dict(zip(corpus.LANGUAGES, LANGUAGES, strict=True))  # the corpus' codes in FLORES-200


@dataclass(frozen=True)
class Recipe:
    """Every number of a run."""

    references: int = 1200  # sentences per language that UMAP is fitted on
    others: int = 1600  # more per language, placed by UMAP's transform for the network to learn
    unseen: int = 250  # and more, that only the measurement sees
    english: int = 16_000  # English sentences that, with the English references, give the regions their names
    neighbours: int = 15
    distance: float = 0.1  # UMAP's min_dist: how tightly points may lie together
    mixtures: int = 12_000  # noisy references and points between two of them, placed by UMAP's transform
    noise: float = 0.6  # largest standard deviation of the noise on a concept (its own is 1)
    steps: int = 1700
    budget: float | None = None  # minutes: let the network learn so long, instead of a number of steps
    batch: int = 512
    rate: float = 1e-3
    warmup: float = 0.2  # share of the network's training in which the rate rises
    decay: float = 0.8  # share of it, at its end, in which the rate falls to zero
    grid: int = 96  # cells of the density along one side
    seed: int = 0

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.steps, self.budget, self.warmup, self.decay)


def encode(space: BuiltinSpace, sentences: list[Sentence]) -> np.ndarray:
    """Concepts [N, D] of sentences in any order of languages."""
    vectors = np.zeros((len(sentences), space.dim), np.float32)
    for lang, code in CODES.items():
        rows = [i for i, sentence in enumerate(sentences) if sentence.lang == lang]
        vectors[rows] = space.encode([sentences[i].text for i in rows], code)
    return vectors


class Teacher:
    """UMAP, with its map moved and scaled (never turned) so that the longer side goes from -1 to 1."""

    def __init__(self, vectors: np.ndarray, recipe: Recipe) -> None:
        from umap import UMAP

        self.model = UMAP(
            n_neighbors=recipe.neighbours,
            min_dist=recipe.distance,
            metric="cosine",
            random_state=recipe.seed,
            n_jobs=1,
        ).fit(vectors)
        low, high = self.model.embedding_.min(0), self.model.embedding_.max(0)
        self.middle, self.half = (low + high) / 2, float((high - low).max()) / 2
        self.coordinates = self.scaled(self.model.embedding_)  # float32 [R, 2]

    def scaled(self, points: np.ndarray) -> np.ndarray:
        return ((points - self.middle) / self.half).astype(np.float32)

    def place(self, vectors: np.ndarray) -> np.ndarray:
        """UMAP's own placement of concepts it was not fitted on, [N, 2]."""
        return self.scaled(self.model.transform(vectors))


def mixtures(vectors: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Concepts that no sentence has: noisy ones, and ones between two others. Editing makes many of them."""
    rng = np.random.default_rng(recipe.seed)
    made = np.empty((recipe.mixtures, vectors.shape[1]), np.float32)
    for i in range(len(made)):
        a, b = vectors[rng.integers(len(vectors), size=2)]
        if i % 2:
            made[i] = slerp(a, b, rng.uniform(0.1, 0.9))
        else:
            made[i] = rescale(a + rng.uniform(0, recipe.noise) * rng.standard_normal(a.shape), a)
    return made


def train(vectors: np.ndarray, points: np.ndarray, recipe: Recipe) -> Placement:
    """Fit the network to UMAP's points [N, 2] of concepts [N, D], with fresh noise in every batch.

    The rate falls to zero by the last step, whether steps or minutes end the run. Raises TrainingError where there
    are neither.
    """
    schedule = recipe.schedule.checked()
    torch.set_num_threads(1)  # once more: numba, which UMAP runs on, sets it back
    torch.manual_seed(recipe.seed)
    network = Placement(vectors.shape[1])
    x, y = torch.from_numpy(vectors), torch.from_numpy(points)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=0.05)
    clock, step = Clock(), 0
    rest = torch.zeros(0, dtype=torch.long)  # of the rows in random order: what this pass has still to learn
    while (done := schedule.done(step, clock.seconds)) < 1:
        rest = rest if len(rest) else torch.randperm(len(x))
        rows, rest = rest[: recipe.batch], rest[recipe.batch :]
        noisy = x[rows] + recipe.noise * torch.rand(len(rows), 1) * torch.randn(len(rows), x.shape[1])
        # The distance, not its square: UMAP throws single points far, and the network must not chase them.
        loss = (network(noisy) - y[rows]).square().sum(1).add(1e-5).sqrt().mean()
        optimizer.param_groups[0]["lr"] = recipe.rate * schedule.rate(done)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        clock.tick()
        step += 1
    return network.eval()


def nearest(points: np.ndarray, among: np.ndarray, k: int) -> np.ndarray:
    """Indices [N, k] of the k rows of `among` nearest to each point."""
    return NearestNeighbors(n_neighbors=k).fit(among).kneighbors(points, return_distance=False)


def diameter(points: np.ndarray) -> float:
    """The longer side of the map."""
    return float(np.ptp(points, axis=0).max())


def measure(landscape: Landscape, teacher: Teacher, unseen: np.ndarray) -> dict[str, float]:
    """How far the network and the inverse are from what they stand for, on sentences neither has seen.

    Distances are in diameters of the map, shares between 0 and 1.
    """
    span = diameter(landscape.coordinates)
    own, theirs = landscape.project(unseen), teacher.place(unseen)
    away = np.linalg.norm(own - theirs, axis=1) / span
    # Neighbourhoods: of the 50 references nearest to UMAP's point, how many are nearest to the network's?
    kept = [
        len(set(a) & set(b)) / 50
        for a, b in zip(
            nearest(own, landscape.coordinates, 50), nearest(theirs, landscape.coordinates, 50), strict=True
        )
    ]
    back = landscape.project(landscape.invert(theirs))
    returned = np.linalg.norm(back - theirs, axis=1) / span
    return {
        "placement_median": float(np.median(away)),
        "placement_90": float(np.quantile(away, 0.9)),
        "neighbours_kept": float(np.mean(kept)),
        "inverse_median": float(np.median(returned)),
        "inverse_90": float(np.quantile(returned, 0.9)),
        "same_language": same_language(landscape),
    }


def same_language(landscape: Landscape) -> float:
    """The share of a reference's 15 neighbours on the map that are in its language; 1/6 is a perfect mixture."""
    languages = np.array(landscape.languages)
    around = nearest(landscape.coordinates, landscape.coordinates, 16)[:, 1:]
    return float((languages[around] == languages[:, None]).mean())


def density(points: np.ndarray, grid: int) -> Density:
    """How many points [R, 2] lie in each of grid x grid cells, smoothed, 1 at the peak."""
    edges = np.linspace(-1.15, 1.15, grid + 1)
    counts, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=(edges, edges))
    smooth = gaussian_filter(counts, sigma=grid / 50)
    centres = ((edges[1:] + edges[:-1]) / 2).astype(np.float32)
    return Density(centres, centres.copy(), (smooth / smooth.max()).astype(np.float32))


def save(path: Path, landscape: Landscape, space: BuiltinSpace, recipe: Recipe) -> None:
    """Write a landscape of this space, its references as text too where it has them; `Landscape.load` reads it."""
    codes = list(CODES.values())
    tensors, sources = pack(landscape.references) if landscape.references else ({}, [])
    state = {
        "coordinates": torch.from_numpy(landscape.coordinates),
        "vectors": torch.from_numpy(landscape.vectors),
        "language": torch.tensor([codes.index(code) for code in landscape.languages]),
        "density.x": torch.from_numpy(landscape.density.x),
        "density.y": torch.from_numpy(landscape.density.y),
        "density.z": torch.from_numpy(landscape.density.z)[None],
        **landscape.placement.state_dict(),
        **tensors,
    }
    about = {
        "languages": json.dumps(codes),
        "labels": json.dumps([[label.x, label.y, label.text, label.level] for label in landscape.labels]),
        "error": json.dumps({name: round(value, 4) for name, value in landscape.error.items()}),
        "recipe": json.dumps(asdict(recipe)),
        "sources": json.dumps(sources, ensure_ascii=False),
    }
    save_weights(path, state, {"space": space.name, "fingerprint": space.fingerprint, **about})


def make(folder: Path, out: Path, recipe: Recipe, space: BuiltinSpace) -> Landscape:
    """Make the landscape of a space from a corpus, write it, and beside it (`.md`) where its sentences come from.

    Raises CorpusError for a corpus with too few sentences, TrainingError where there is no time to train in.
    """
    recipe.schedule.checked()  # before the minutes that come first
    began = time.monotonic()
    torch.set_num_threads(1)  # on a busy machine two threads spend most of their time waiting for each other

    def report(what: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {what}", flush=True)

    def fits(text: str) -> bool:
        return len(text) <= space.max_tokens // 2 or space.count_tokens(text) <= space.max_tokens

    parts = sample(folder, recipe.references, recipe.others, recipe.unseen, recipe.english, recipe.seed, fits)
    report(
        f"{len(parts.references)} references, {len(parts.others)} others, {len(parts.unseen)} unseen, "
        f"{len(parts.english)} for names"
    )
    vectors, more, test = (encode(space, part) for part in (parts.references, parts.others, parts.unseen))
    report("encoded")
    teacher = Teacher(vectors, recipe)
    report("UMAP fitted")
    taught = np.concatenate([vectors, more, mixtures(np.concatenate([vectors, more]), recipe)])
    points = np.concatenate([teacher.coordinates, teacher.place(taught[len(vectors) :])])
    report("UMAP placed the others and the mixtures")
    network = train(taught, points, recipe)
    report("network trained")
    landscape = Landscape(
        coordinates=teacher.coordinates,
        vectors=vectors,
        languages=[CODES[sentence.lang] for sentence in parts.references],
        labels=[],
        density=density(teacher.coordinates, recipe.grid),
        placement=network,
        error={},
        references=[Reference(s.text, s.source) for s in parts.references if s.source],
    )
    landscape.labels = named(landscape, parts, encode(space, parts.english))
    for level in sorted({label.level for label in landscape.labels}):
        report(", ".join(label.text for label in landscape.labels if label.level == level))
    save(out, landscape, space, recipe)
    # Of the file as it is read, 8-bit weights and all.
    landscape.error = measure(Landscape.load(out, space.fingerprint), teacher, test)
    report(json.dumps(landscape.error))
    save(out, landscape, space, recipe)
    out.with_suffix(".md").write_text(attribution(landscape.references), "utf-8")
    return Landscape.load(out, space.fingerprint)


def named(landscape: Landscape, parts: Sample, english: np.ndarray) -> list[Label]:
    """The labels, of the English references where UMAP put them and of `parts.english`, whose concepts are [E, D]."""
    rows = [i for i, sentence in enumerate(parts.references) if sentence.lang == "eng"]
    texts = [parts.references[i].text for i in rows] + [sentence.text for sentence in parts.english]
    points = np.concatenate([landscape.coordinates[rows], landscape.project(english)])
    known = texts + [sentence.text for sentence in parts.others + parts.unseen if sentence.lang == "eng"]
    return labels(landscape.coordinates, points, texts, Vocabulary.of(known))


@answered
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.training.landscape", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with sentences, novels and documents")
    parser.add_argument("--out", type=Path, default=LANDSCAPE, help="the file to write")
    parser.add_argument("--space", type=Path, default=ASSETS, help="folder with the space's weights")
    parser.add_argument("--references", type=int, default=Recipe.references, help="of each language (%(default)s)")
    parser.add_argument("--budget", type=float, help="minutes in which the network learns, instead of --steps")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="in which the network learns (%(default)s)")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    args = parser.parse_args(arguments)
    recipe = Recipe(references=args.references, budget=args.budget, steps=args.steps, seed=args.seed)
    recipe.schedule.checked()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    make(args.corpus, args.out, recipe, BuiltinSpace.load(args.space))


if __name__ == "__main__":
    sys.exit(main())
