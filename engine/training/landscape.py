"""Make the landscape of the built-in space: `python -m engine.training.landscape --help`.

umap-learn is fitted once on reference sentences of every language (McInnes et al., arXiv 1802.03426). A small
network then learns its placement, as in parametric UMAP (Sainburg et al., arXiv 2009.12981): it has no
neighbours to look up, places a concept in well under a millisecond, and never moves what it has placed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import re
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from sklearn.cluster import KMeans
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from sklearn.neighbors import NearestNeighbors

from ..concepts import rescale, slerp
from ..errors import CorpusError
from ..projection import LANDSCAPE, Label, Landscape, Placement
from ..spaces.builtin import LANGUAGES, BuiltinSpace
from ..weights import save_weights
from . import corpus

CODES = dict(zip(corpus.LANGUAGES, LANGUAGES, strict=True))  # the corpus' codes in FLORES-200
Sentence = tuple[str, str]  # language code of the corpus, text


@dataclass(frozen=True)
class Recipe:
    """Every number of a run."""

    references: int = 1200  # sentences per language that UMAP is fitted on
    others: int = 1600  # more per language, placed by UMAP's transform for the network to learn
    unseen: int = 250  # and more, that only the measurement sees
    english: int = 4000  # English sentences that give the regions their names
    stories: float = 0.35  # share of story sentences, where a language has so many
    neighbours: int = 15
    distance: float = 0.1  # UMAP's min_dist: how tightly points may lie together
    mixtures: int = 12_000  # noisy references and points between two of them, placed by UMAP's transform
    noise: float = 0.6  # largest standard deviation of the noise on a concept (its own is 1)
    epochs: int = 30
    batch: int = 512
    rate: float = 1e-3
    regions: int = 24
    grid: int = 96  # cells of the density along one side
    seed: int = 0


DETERMINERS = frozenset(
    ["the", "a", "an", "my", "your", "his", "her", "our", "their", "this", "these", "some", "any", "no", "two", "three"]
)

# Words that stand everywhere and name no region.
PLAIN = frozenset(
    """
    thing things way ways lot lots day days time times kind sort bit one ones end side part parts place right left
    good new old big little great best better first second third last next same other others own few only very more
    most many small long whole different certain special important word words name names people person man men woman
    women the and was were are had has have did does that this with for but not you they she his her him its their
    them our what said told asked into from been then than when who can there going want wants wanted your gave
    knew like spot
    """.split()  # noqa: SIM905 - read as a paragraph, not as eighty strings
)


def sample(folder: Path, recipe: Recipe) -> tuple[list[Sentence], ...]:
    """References, others, unseen and English sentences: no two the same, every language alike, seeded."""
    rng = random.Random(recipe.seed)
    everyday: dict[str, list[str]] = {lang: [] for lang in CODES}
    told: dict[str, list[str]] = {lang: [] for lang in CODES}
    for lang, text in corpus.sentences(folder):
        everyday[lang].append(text)
    for story in corpus.stories(folder):
        told[story.lang].extend(story.sentences)
    parts: tuple[list[Sentence], ...] = ([], [], [], [])
    for lang in CODES:
        sizes = (recipe.references, recipe.others, recipe.unseen, recipe.english if lang == "eng" else 0)
        need = sum(sizes)
        stories = picked(told[lang], int(need * recipe.stories), rng)
        chosen = stories + picked(everyday[lang], need - len(stories), rng)
        if len(chosen) < need:
            raise CorpusError(f"The corpus has {len(chosen)} fit sentences in {lang} and {need} are needed.")
        rng.shuffle(chosen)
        for part, size in zip(parts, sizes, strict=True):
            part.extend((lang, text) for text in chosen[:size])
            del chosen[:size]
    return parts


def picked(texts: list[str], n: int, rng: random.Random) -> list[str]:
    """Up to n whole sentences of 3 to 25 words, at most four with the same first two words.

    A corpus of examples has templates in hundreds; each would be an island of its own.
    """
    found: list[str] = []
    seen: set[str] = set()
    openings: Counter[str] = Counter()
    for text in rng.sample(texts, len(texts)):
        if len(found) == n:
            break
        words = text.split()
        opening = corpus.key(" ".join(words[:2]))
        key = corpus.key(text)
        whole = 3 <= len(words) <= 25 and re.search(r"[.!?…][\"'»«”“’]?$", text)
        if whole and key not in seen and openings[opening] < max(4, n // 200):
            openings[opening] += 1
            seen.add(key)
            found.append(text)
    return found


def encode(space: BuiltinSpace, sentences: list[Sentence]) -> np.ndarray:
    """Concepts [N, D] of sentences in any order of languages."""
    vectors = np.zeros((len(sentences), space.dim), np.float32)
    for lang, code in CODES.items():
        rows = [i for i, sentence in enumerate(sentences) if sentence[0] == lang]
        vectors[rows] = space.encode([sentences[i][1] for i in rows], code)
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
    """Fit the network to UMAP's points [N, 2] of concepts [N, D], with fresh noise in every batch."""
    torch.set_num_threads(1)  # once more: numba, which UMAP runs on, sets it back
    torch.manual_seed(recipe.seed)
    network = Placement(vectors.shape[1])
    x, y = torch.from_numpy(vectors), torch.from_numpy(points)
    steps = recipe.epochs * -(-len(x) // recipe.batch)
    optimizer = torch.optim.AdamW(network.parameters(), lr=recipe.rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, recipe.rate, steps)
    for _ in range(recipe.epochs):
        for rows in torch.randperm(len(x)).split(recipe.batch):
            noisy = x[rows] + recipe.noise * torch.rand(len(rows), 1) * torch.randn(len(rows), x.shape[1])
            # The distance, not its square: UMAP throws single points far, and the network must not chase them.
            loss = (network(noisy) - y[rows]).square().sum(1).add(1e-5).sqrt().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
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


def words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z]+(?:'[a-z]+)?", text)


def vocabulary(texts: Iterable[str]) -> tuple[set[str], set[str]]:
    """Nouns, and all words: neither with names, which are words that mostly have a capital inside a sentence.

    A noun is what often follows a determiner; there is no need to be right about every word.
    """
    seen: Counter[str] = Counter()
    named: Counter[str] = Counter()
    capital: Counter[str] = Counter()
    for text in texts:
        for before, word in itertools.pairwise(words(text)):
            small = word.lower()
            seen[small] += 1
            named[small] += before.lower() in DETERMINERS
            capital[small] += word[0].isupper()
    everything = {
        word
        for word, n in seen.items()
        if n >= 10 and capital[word] < 0.3 * n and len(word) > 2 and "'" not in word and word not in PLAIN
    }
    return {word for word in everything - ENGLISH_STOP_WORDS if named[word] > 0.25 * seen[word]}, everything


def regions(points: np.ndarray, texts: list[str], nouns: set[str], everything: set[str], recipe: Recipe) -> list[Label]:
    """Names for the parts of the map: one or two words that are typical of the English sentences lying there.

    Nouns, where there are typical ones; else any words ("where", "please"), since some regions are ways of speaking.
    """
    clusters = KMeans(recipe.regions, n_init=4, random_state=recipe.seed).fit(points)
    inside: list[Counter[str]] = [Counter() for _ in range(recipe.regions)]
    for region, text in zip(clusters.labels_, texts, strict=True):
        inside[region].update(set(words(text.lower())))
    everywhere: Counter[str] = sum(inside, Counter())
    shares = np.bincount(clusters.labels_, minlength=recipe.regions) / len(points)
    chosen: list[list[tuple[float, str]]] = [[] for _ in range(recipe.regions)]
    used: set[str] = set()
    for usable, fewest in ((nouns, 4), (everything, 8)):
        ranked = []
        for region, counts in enumerate(inside):
            for word, n in counts.items():
                expected = everywhere[word] * shares[region]
                surprise = (n - expected) / expected**0.5  # in standard deviations
                if word in usable and n >= fewest and surprise > 3 and not chosen[region]:
                    ranked.append((surprise, region, word))
        # The most typical words choose first, so no word names two regions.
        for surprise, region, word in sorted(ranked, reverse=True):
            there = chosen[region]
            if stem(word) not in used and (not there or (len(there) == 1 and surprise > 0.6 * there[0][0])):
                there.append((surprise, word))
                used.add(stem(word))
    return [
        Label(round(x, 4), round(y, 4), " · ".join(word for _, word in found))
        for (x, y), found in zip(clusters.cluster_centers_.astype(float).tolist(), chosen, strict=True)
        if found
    ]


def stem(word: str) -> str:
    """A word without its ending, enough to see that boat and boats are one."""
    return re.sub(r"(?:ies|es|s|y|ed|ing|e)$", "", word)


def density(points: np.ndarray, recipe: Recipe) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centres of the cells and how many points lie in each, smoothed, 1 at the peak: x [W], y [H], z [H, W]."""
    edges = np.linspace(-1.15, 1.15, recipe.grid + 1)
    counts, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=(edges, edges))
    smooth = gaussian_filter(counts, sigma=recipe.grid / 50)
    centres = ((edges[1:] + edges[:-1]) / 2).astype(np.float32)
    return centres, centres.copy(), (smooth / smooth.max()).astype(np.float32)


def save(
    path: Path,
    space: BuiltinSpace,
    references: list[Sentence],
    vectors: np.ndarray,
    points: np.ndarray,
    network: Placement,
    labels: list[Label],
    recipe: Recipe,
    error: dict[str, float],
) -> None:
    x, y, z = density(points, recipe)
    state = {
        "coordinates": torch.from_numpy(points),
        "vectors": torch.from_numpy(vectors),
        "language": torch.tensor([list(CODES).index(lang) for lang, _ in references]),
        "density.x": torch.from_numpy(x),
        "density.y": torch.from_numpy(y),
        "density.z": torch.from_numpy(z)[None],
        **network.state_dict(),
    }
    about: dict[str, Any] = {
        "languages": json.dumps(list(CODES.values())),
        "labels": json.dumps([[label.x, label.y, label.text] for label in labels]),
        "error": json.dumps({name: round(value, 4) for name, value in error.items()}),
        "recipe": json.dumps(asdict(recipe)),
    }
    save_weights(path, state, {"space": space.name, "fingerprint": space.fingerprint, **about})


def make(folder: Path, out: Path, recipe: Recipe) -> Landscape:
    began = time.monotonic()
    torch.set_num_threads(1)  # on a busy machine two threads spend most of their time waiting for each other

    def told(what: str) -> None:
        print(f"{time.monotonic() - began:6.0f} s  {what}", flush=True)

    space = BuiltinSpace.load()
    references, others, unseen, english = sample(folder, recipe)
    told(f"{len(references)} references, {len(others)} others, {len(unseen)} unseen, {len(english)} for names")
    vectors, more, test = (encode(space, part) for part in (references, others, unseen))
    told("encoded")
    teacher = Teacher(vectors, recipe)
    told("UMAP fitted")
    taught = np.concatenate([vectors, more, mixtures(np.concatenate([vectors, more]), recipe)])
    points = np.concatenate([teacher.coordinates, teacher.place(taught[len(vectors) :])])
    told("UMAP placed the others and the mixtures")
    network = train(taught, points, recipe)
    told("network trained")
    english += [sentence for sentence in references + others if sentence[0] == "eng"]
    labels = regions(
        network(torch.from_numpy(encode(space, english))).detach().numpy(),
        [text for _, text in english],
        *vocabulary(text for lang, text in corpus.sentences(folder) if lang == "eng"),
        recipe,
    )
    told(", ".join(label.text for label in labels))

    def write(error: dict[str, float]) -> Landscape:
        save(out, space, references, vectors, teacher.coordinates, network, labels, recipe, error)
        return Landscape.load(out)

    error = measure(write({}), teacher, test)  # of the file as it is read, 8-bit weights and all
    told(json.dumps(error))
    return write(error)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.training.landscape", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="folder with sentences and documents")
    parser.add_argument("--out", type=Path, default=LANDSCAPE, help="the file to write")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    args = parser.parse_args(arguments)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    make(args.corpus, args.out, Recipe(seed=args.seed))


if __name__ == "__main__":
    main()
