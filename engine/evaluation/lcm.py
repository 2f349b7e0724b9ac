"""How good a concept model is: the paper's measures for the next concept, and what free generation is like.

Large Concept Models, arXiv 2412.08821, section 2.4. Its mutual information needs a small language model, and none
ships with the project: it is left out.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..concepts import cosine, seeded
from ..errors import CorpusError
from ..lcm import ConceptModel, Reading, generate_all
from ..lcm.model import Batch
from ..spaces import ConceptSpace, Progress
from ..training.corpus import stories
from ..wording import ATTEMPTS, CHOICES, refined, worded
from .pairs import language_codes

MOST = 4000  # concepts that are compared with each other: every one with all


def read_documents(
    path: Path, languages: Collection[str], fits: Callable[[str], bool]
) -> list[tuple[str, tuple[str, ...]]]:
    """(language, sentences) of a file with a document a line; where it says which are for validation, of those.

    Raises CorpusError for a line that is not a document (see `docs/training.md`), and where none is of use.
    """
    codes = language_codes(languages)
    told = [(story, kept) for story in stories(path) if len(kept := tuple(story.cut(fits))) >= 2]
    random.Random(0).shuffle(told)
    found = [(codes[story.lang], kept) for story, kept in told if story.split == "valid" and story.lang in codes]
    if not found:
        raise CorpusError(f"{path.name} holds no document of two sentences or more to measure on; choose another file.")
    return found


class Encoded:
    """Documents as concepts, as the measures see them: `documents[i]` is [T, D], ends included where they are whole."""

    def __init__(self, documents: Sequence[np.ndarray], whole: Sequence[bool]) -> None:
        self.documents, self.whole = list(documents), np.array(whole, bool)

    def __len__(self) -> int:
        return len(self.documents)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.documents[index]

    def length(self, index: int) -> int:
        return len(self.documents[index])


@torch.inference_mode()
def predictions(
    model: ConceptModel, documents: Any, indices: Sequence[int] | np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(expected [T, D], truth [T, D]) of each document's first `context` concepts, each given the true ones before."""
    result = []
    for start in range(0, len(indices), 16):
        group = [documents[int(i)][: model.dims.context] for i in indices[start : start + 16]]
        concepts = torch.zeros(len(group), max(map(len, group)), model.dims.concept)
        for row, document in zip(concepts, group, strict=True):
            row[: len(document)] = torch.from_numpy(np.ascontiguousarray(document, np.float32))
        real = torch.ones(concepts.shape[:2], dtype=torch.bool)
        normal = model.expectations(Batch(model.normalizer.normalize(concepts), real))
        expected = model.normalizer.denormalize(normal).numpy()
        result += [(expected[i, : len(document)], document) for i, document in enumerate(group)]
    return result


def contrast(guesses: np.ndarray, truths: np.ndarray, owner: np.ndarray) -> float:
    """How often a guess [N, D] is nearer to its truth than to a truth of another document, on average.

    `owner` [N] is each row's document; 0.5 is chance.
    """
    distance = (truths**2).sum(1)[None] - 2 * guesses @ truths.T  # and |guess| squared, the same along each row
    other = owner[:, None] != owner[None]
    own = np.diag(distance)[:, None]
    return float(((own < distance) & other).sum() / other.sum())


def auc(positive: np.ndarray, negative: np.ndarray) -> float:
    """The share of pairs in which the positive value is the larger one."""
    ordered = np.sort(negative)
    return float(np.searchsorted(ordered, positive).mean() / len(ordered))


def surprise(expected: np.ndarray, concepts: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """How far concepts [N, D] lie from what was expected [N, D]: 1 less the cosine, both seen from the centre, [N]."""
    a, b = expected - centre, concepts - centre
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return 1 - (a * b).sum(1) / np.maximum(lengths, 1e-9)


def scores(model: ConceptModel, documents: Any, indices: np.ndarray | Sequence[int]) -> dict[str, float]:
    """l2, contrastive accuracy and the surprise's AUC of next concepts, next to the baselines.

    The first concept of a document and its end are left out: the baselines have nothing to say about them. The AUC is
    that of telling the true next concept from a random one of another document, and from a later one of the same.
    """
    guesses, truths, previous, owner, later = [], [], [], [], []
    rng = seeded(0)
    for i, (guess, truth) in zip(indices, predictions(model, documents, indices), strict=True):
        last = len(truth) - int(documents.whole[i] and len(truth) == documents.length(int(i)))
        if last < 2:
            continue
        guesses.append(guess[1:last])
        truths.append(truth[1:last])
        previous.append(truth[: last - 1])
        owner.append(np.full(last - 1, i))
        # A later sentence of the same document, where there is one after the next.
        later.append([int(rng.integers(t + 1, last)) if t + 1 < last else -1 for t in range(1, last)])
    if len(owner) < 2:
        return {}
    guess, truth, before, own = (np.concatenate(x)[:MOST] for x in (guesses, truths, previous, owner))
    mean = np.broadcast_to(truth.mean(0), truth.shape)
    found: dict[str, float] = {}
    for name, values in (("model", guess), ("repeat", before), ("mean", mean)):
        found[f"l2 {name}"] = round(float(np.linalg.norm(values - truth, axis=1).mean()), 4)
        found[f"contrast {name}"] = round(contrast(values, truth, own), 4)
    centre = model.normalizer.centre.numpy()
    true = surprise(guess, truth, centre)
    others = np.array([rng.choice(np.flatnonzero(own != o)) for o in own])
    found["auc other documents"] = round(auc(surprise(guess, truth[others], centre), true), 4)
    pairs = [
        (g, t[j - 1])
        for guess_rows, t, places in zip(guesses, truths, later, strict=True)
        for g, j in zip(guess_rows, places, strict=True)
        if j > 0
    ]
    if pairs:
        expected, chosen = (np.stack(part) for part in zip(*pairs, strict=True))
        found["auc same document"] = round(auc(surprise(expected, chosen, centre), true), 4)
    return found


def follow(
    model: ConceptModel, documents: Sequence[np.ndarray], progress: Progress | None = None
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What the model would write after each true prefix: sampled concepts, and the true ones, [T - 1, D] a document."""
    reading = Reading(model, [document[:1] for document in documents])
    alive = list(range(len(documents)))
    draws = [seeded(i) for i in alive]
    written: list[list[np.ndarray]] = [[] for _ in documents]
    longest = max(map(len, documents))
    for t in range(1, longest):
        rows = [row for row, i in enumerate(alive) if t < len(documents[i])]
        if len(rows) < len(alive):
            reading.keep(rows)
            alive = [alive[row] for row in rows]
        for i, concept in zip(alive, reading.sample([draws[i] for i in alive]), strict=True):
            written[i].append(concept)
        reading.read([documents[i][t : t + 1] for i in alive])
        if progress:
            progress(t, longest - 1)
    kept = [i for i in range(len(documents)) if written[i]]
    return [np.stack(written[i]) for i in kept], [documents[i][1:] for i in kept]


def evaluate_lcm(
    space: ConceptSpace,
    models: Mapping[str, ConceptModel],
    documents: Sequence[tuple[str, Sequence[str]]],
    free: int = 20,
    sentences: int = 12,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure concept models on documents (language, sentences), all taken to be whole; plain values, ready for JSON.

    For each model: `scores`, and contrastive accuracy in each language where there are several; of what it writes after
    each true prefix contrastive accuracy, the distance to the truth (l2), the same after decoding and encoding again
    (l2 round trip) and the cosine to the concept before (paraphrasing); and of `free` documents that go on from their
    first three sentences by up to `sentences`: distinct-2, the share of sentences that were said before, and the share
    that ends sooner by itself, at its end or where all that is drawn says the same again.
    """
    vectors: list[np.ndarray] = []
    for lang, said in documents:
        vectors.append(space.encode(list(said), lang))
    report: dict[str, Any] = {
        "space": space.name,
        "documents": len(documents),
        "concepts": sum(map(len, vectors)),
        "left out": "mutual information: it needs a small language model, and none ships with the project",
        "models": {},
    }
    for number, (name, model) in enumerate(models.items()):
        end = model.end.numpy()
        held = Encoded([np.concatenate([v, end[None]]) for v in vectors], [True] * len(vectors))
        found: dict[str, Any] = dict(scores(model, held, range(len(held))))
        languages = list(dict.fromkeys(lang for lang, _ in documents))
        for lang in languages if len(languages) > 1 else []:
            own = scores(model, held, [i for i, (code, _) in enumerate(documents) if code == lang])
            if own:
                found[f"contrast {lang}"] = own["contrast model"]
        short = [v[: model.dims.context] for v in vectors]
        written, truth = follow(model, short)
        langs = [documents[i][0] for i, v in enumerate(short) if len(v) > 1]
        before = [v[:-1] for v in short if len(v) > 1]
        owner = np.repeat(np.arange(len(truth)), [len(own) for own in truth])
        if len(truth) > 1:
            rows = (np.concatenate(written)[:MOST], np.concatenate(truth)[:MOST], owner[:MOST])
            found["contrast written"] = round(contrast(*rows), 4)
        again = [
            np.stack([one.vector for one in worded(space, w, lang)]) for w, lang in zip(written, langs, strict=True)
        ]
        found["l2 written"] = mean_distance(written, truth)
        found["l2 round trip"] = mean_distance(again, truth)
        found["paraphrasing"] = round(
            float(np.mean([np.diag(cosine(a, b)).mean() for a, b in zip(written, before, strict=True)])), 4
        )
        told = [v for (lang, _), v in zip(documents, vectors, strict=True) if lang == documents[0][0]]
        found |= free_generation(space, model, documents[0][0], told[:free], sentences)
        report["models"][name] = found
        if progress:
            progress(number + 1, len(models))
    return report


def mean_distance(found: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> float:
    return round(float(np.linalg.norm(np.concatenate(found) - np.concatenate(truth), axis=1).mean()), 4)


def free_generation(
    space: ConceptSpace, model: ConceptModel, lang: str, documents: Sequence[np.ndarray], sentences: int
) -> dict[str, float]:
    """What documents [T, D] of a language are like that go on by themselves from their first three sentences."""
    end = space.decode(model.end.numpy()[None], lang)[0]
    made = generate_all(
        model,
        [vectors[:3] for vectors in documents],
        sentences,
        seeds=range(len(documents)),
        choices=CHOICES,
        attempts=ATTEMPTS,
        refine=lambda drawn: refined(space, drawn, worded(space, drawn, lang), lang, end),
    )
    texts = [space.decode(vectors, lang) if len(vectors) else [] for vectors in made]
    words = [sentence.lower().split() for own in texts for sentence in own]
    pairs = [pair for w in words for pair in itertools.pairwise(w)]
    repeated = [sentence in own[:i] for own in texts for i, sentence in enumerate(own)]
    return {
        "distinct-2": round(len(set(pairs)) / max(len(pairs), 1), 4),
        "said before": round(float(np.mean(repeated)) if repeated else 0.0, 4),
        "ended by itself": round(float(np.mean([len(own) < sentences for own in texts])), 4),
    }


def table(report: Mapping[str, Any]) -> str:
    """A report as a table to read."""
    measures = list(dict.fromkeys(m for found in report["models"].values() for m in found))
    width = max(map(len, measures), default=0) + 2
    lines = [f"{report['documents']} documents, {report['concepts']} concepts; {report['left out']}", ""]
    lines.append(" " * width + "".join(f"{name:>12}" for name in report["models"]))
    for measure in measures:
        values = [found.get(measure) for found in report["models"].values()]
        lines.append(f"{measure:<{width}}" + "".join(f"{'' if v is None else format(v, '.3f'):>12}" for v in values))
    return "\n".join(lines)
