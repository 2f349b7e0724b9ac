"""The generator, one for all kinds: documents go on concept by concept until they end by themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..concepts import cosine, seeded
from ..errors import VectorError
from ..spaces import Progress
from .diffusion import Sampling
from .model import ConceptModel, Reading, checked

# Takes draws [M, D] to where sentences lie (by decoding and encoding again), and says how good each is, [M].
Refine = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class Stop:
    """When generation ends before the number of concepts that was asked for (arXiv 2412.08821, section 2.3.1)."""

    end: float | None = None  # probability of the document's end that ends it; None: the model's calibrated one
    repetition: float = 0.95  # cosine to a recent concept that counts as saying it again; above 1 nothing does
    recent: int = 8  # concepts that are looked back at
    minimum: int = 0  # concepts to generate before the document may end


def generate_all(
    model: ConceptModel,
    prefixes: Sequence[np.ndarray],
    n: int,
    *,
    seeds: Sequence[int],
    temperature: float | None = None,
    how: Sampling = Sampling(),
    choices: int = 1,
    refine: Refine | None = None,
    on_concept: Callable[[int, np.ndarray], None] | None = None,
    progress: Progress | None = None,
    stop: Stop = Stop(),
) -> list[np.ndarray]:
    """For each of the documents `prefixes` [N, D], up to `n` concepts float32 [M, D] that follow it.

    They go on together, in one batch, but none depends on another: each has its own seed, and the same document with
    several seeds gives alternatives, spread out by `temperature` (None: as the kind of model has it; at 0 all are the
    same). N may be 0: a new document.

    A prediction may lie between sentences, and the model was trained on sentences: what `refine` makes of predictions
    is checked for repetition, read as context and generated. Of `choices` for each concept the best one is taken, or
    without `refine` the first, that does not say the same again. `on_concept` gets a document's number and each concept
    as it comes, `progress` (generated, n) as the longest has; either may raise `Cancelled`. Raises VectorError for a
    prefix that the model can't read.
    """
    if len(seeds) != len(prefixes):
        raise VectorError(f"{len(prefixes)} documents need {len(prefixes)} seeds, not {len(seeds)}.")
    threshold = float(model.end_threshold) if stop.end is None else stop.end
    told = [checked(prefix, model.dims.concept) for prefix in prefixes]
    made: list[list[np.ndarray]] = [[] for _ in prefixes]
    draws = [[seeded(seed), *(seeded(seed, choice) for choice in range(1, choices))] for seed in seeds]
    reading = Reading(model, told)
    reading.keep([row for row in range(len(told)) for _ in range(choices)])  # read once, then a row for each choice
    alive = list(range(len(prefixes)))
    for generated in range(n):
        if generated >= stop.minimum:
            alive = goes_on(reading, alive, reading.expect()[1][::choices] < threshold)
        if not alive:
            break
        drawn = reading.sample([draw for i in alive for draw in draws[i]], temperature, how)
        offered = before_the_end(reading, drawn.reshape(len(alive), choices, -1), threshold)
        good = np.zeros((len(alive), choices))
        if refine is not None:
            refined, good = refine(offered.reshape(drawn.shape))
            offered, good = np.asarray(refined, np.float32).reshape(offered.shape), good.reshape(len(alive), choices)
        again = np.stack([said_before(own, told[i], stop) for own, i in zip(offered, alive, strict=True)])
        chosen = np.argmax(np.where(again, -np.inf, good), axis=1)
        concepts, new = (part[np.arange(len(alive)), chosen] for part in (offered, ~again))
        if generated >= stop.minimum:
            alive, concepts = goes_on(reading, alive, new), concepts[new]
            if not alive:
                break
        reading.read([concept[None] for concept in concepts for _ in range(choices)])
        for i, concept in zip(alive, concepts, strict=True):
            told[i] = np.concatenate([told[i], concept[None]])
            made[i].append(concept)
            if on_concept:
                on_concept(i, concept)
        if progress:
            progress(generated + 1, n)
    return [np.array(own, np.float32).reshape(-1, model.dims.concept) for own in made]


def said_before(concepts: np.ndarray, document: np.ndarray, stop: Stop) -> np.ndarray:
    """Whether each of concepts [K, D] says again what stands at the end of a document [M, D], [K]."""
    recent = document[max(0, len(document) - stop.recent) :]
    if not len(recent):
        return np.zeros(len(concepts), bool)
    return np.asarray(cosine(concepts, recent).max(1) > stop.repetition)


def before_the_end(reading: Reading, drawn: np.ndarray, threshold: float) -> np.ndarray:
    """Draws [N, choices, D] without those that are the document's end, which is no sentence to write: in their places
    stands their row's draw that is farthest from it.
    """
    ends = reading.ends(drawn)
    farthest = np.take_along_axis(drawn, ends.argmin(1)[:, None, None], axis=1)
    return np.where((ends >= threshold)[..., None], farthest, drawn)


def goes_on(reading: Reading, alive: list[int], stays: np.ndarray) -> list[int]:
    """The documents of `alive` that stay; the reading, with so many rows for each, forgets the others."""
    rows = [row for row, stay in enumerate(stays) if stay]
    if len(rows) < len(alive):
        choices = len(reading.documents) // len(alive)
        reading.keep([row * choices + choice for row in rows for choice in range(choices)])
    return [alive[row] for row in rows]


def generate(
    model: ConceptModel,
    prefix: np.ndarray,
    n: int,
    *,
    seed: int = 0,
    temperature: float | None = None,
    how: Sampling = Sampling(),
    choices: int = 1,
    refine: Refine | None = None,
    on_concept: Callable[[np.ndarray], None] | None = None,
    progress: Progress | None = None,
    stop: Stop = Stop(),
) -> np.ndarray:
    """`generate_all` for one document [N, D]."""
    return generate_all(
        model,
        [prefix],
        n,
        seeds=[seed],
        temperature=temperature,
        how=how,
        choices=choices,
        refine=refine,
        on_concept=(lambda _, concept: on_concept(concept)) if on_concept else None,
        progress=progress,
        stop=stop,
    )[0]


def infill(
    model: ConceptModel,
    left: np.ndarray,
    right: np.ndarray,
    n: int = 1,
    *,
    candidates: int = 16,
    seed: int = 0,
    temperature: float | None = None,
    how: Sampling = Sampling(),
    choices: int = 1,
    refine: Refine | None = None,
) -> np.ndarray:
    """Up to `n` concepts [M, D], best first, each of which may stand between `left` [N, D] and `right` [R, D].

    `candidates`, each chosen from `choices`, are drawn as what follows the left side; the better one is that after
    which the model expects the first concept of the right side more (cosine of the expected concept to it). Candidates
    that say the same count once. Raises VectorError where there is no right side.
    """
    right = checked(right, model.dims.concept)
    if not len(right):
        raise VectorError("There is nothing after the gap; continue the document instead.")
    left = checked(left, model.dims.concept)
    anyhow = Stop(minimum=1)
    found = generate_all(
        model,
        [left] * candidates,
        1,
        seeds=[seed + i for i in range(candidates)],
        temperature=temperature,
        how=how,
        choices=choices,
        refine=refine,
        stop=anyhow,
    )
    expected, _ = Reading(model, [np.concatenate([left, own]) for own in found]).expect()
    centre = model.normalizer.centre.numpy()
    ranked = np.argsort(-cosine(expected - centre, right[:1] - centre)[:, 0], kind="stable")
    chosen: list[np.ndarray] = []
    for row in ranked:
        own = found[row]
        if not chosen or cosine(own, np.stack(chosen)).max() <= anyhow.repetition:
            chosen.append(own[0])
    return np.array(chosen[:n], np.float32).reshape(-1, model.dims.concept)
