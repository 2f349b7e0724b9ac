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

# Takes draws [M, D] to where sentences lie (by decoding and encoding again), and says how good each is, [M]: -inf for
# what must not be written.
Refine = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


# What the cosine to the expected concept counts for, beside how good `refine` finds a draw (a sum of two mean log-
# probabilities of a token). The surest sentence alone is the stalest one, whatever the document says. Of eight draws
# of SONAR-LLM for each of 80 places in unseen stories and 80 in unseen novels, how often the chosen one was nearer to
# its own document's next sentence than to others': by 0, 1, 2, 4 in 76, 80, 81, 82 % and 68, 66, 68, 72 %, while its
# mean log-probability fell from -0.04 to -0.06 and from -0.09 to -0.21. Taking off a share of the log-probability that
# the mean concept gives (a quarter, a half, all of it) did not help: 78, 76, 75 % and 65, 67, 68 %. In a gap the right
# side's expectation alone gave 85 and 71 %, at -0.21; both sides' with this weight and sureness 87 and 76 %, at -0.10.
RELEVANCE = 2.0


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
    attempts: int = 1,
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
    without `refine` the first, that does not say the same again. Where none of them will do, others are drawn, in up to
    `attempts` rounds; after that the document has ended. `on_concept` gets a document's number and each concept
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

    def draw(by: list[list[np.random.Generator]]) -> tuple[np.ndarray, np.ndarray]:
        """The best of what is drawn for each of `alive` by its random numbers, [N, D], and whether it will do, [N]."""
        drawn = reading.sample([own for row in by for own in row], temperature, how)
        offered = before_the_end(reading, drawn.reshape(len(alive), choices, -1), threshold)
        good = np.zeros((len(alive), choices))
        if refine is not None:
            refined, found = refine(offered.reshape(drawn.shape))
            offered, good = np.asarray(refined, np.float32).reshape(offered.shape), found.reshape(good.shape)
            good = good + RELEVANCE * np.stack(
                [relevance(model, before, own)[0] for before, own in zip(expected[:, None], offered, strict=True)]
            )
        again = np.stack([said_before(own, told[i], stop) for own, i in zip(offered, alive, strict=True)])
        rows, best = np.arange(len(alive)), np.argmax(np.where(again, -np.inf, good), axis=1)
        return offered[rows, best], ~again[rows, best] & (good[rows, best] > -np.inf)

    for generated in range(n):
        expected, ending = (part[::choices] for part in reading.expect())
        if generated >= stop.minimum:
            goes = ending < threshold
            alive, expected = goes_on(reading, alive, goes), expected[goes]
        if not alive:
            break
        concepts, will_do = draw([draws[i] for i in alive])
        for attempt in range(1, attempts):
            if will_do.all():
                break
            # With random numbers of its own, so that no document depends on what another one lacks.
            fresh = [[seeded(seeds[i], attempt, generated, choice) for choice in range(choices)] for i in alive]
            others, better = draw(fresh)
            concepts, will_do = np.where(will_do[:, None], concepts, others), will_do | better
        if generated >= stop.minimum:
            alive, concepts = goes_on(reading, alive, will_do), concepts[will_do]
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


def relevance(model: ConceptModel, expected: np.ndarray, concepts: np.ndarray) -> np.ndarray:
    """Cosines [N, M] of expected concepts [N, D] to concepts [M, D], both seen from the middle of all concepts."""
    centre = model.normalizer.centre.numpy()
    return cosine(expected - centre, concepts - centre)


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
    attempts: int = 1,
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
        attempts=attempts,
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
    refine: Refine | None = None,
) -> np.ndarray:
    """Up to `n` concepts [M, D], best first, each of which may stand between `left` [N, D] and `right` [R, D].

    `candidates` are drawn as what follows the left side. The best of them is expected there, lets the model expect the
    first concept of the right side (cosines of expected concepts to those, as by RELEVANCE), and is good by `refine`.
    None says again what stands on either side, or another one. Raises VectorError where there is no right side.
    """
    right = checked(right, model.dims.concept)
    if not len(right):
        raise VectorError("There is nothing after the gap; continue the document instead.")
    left = checked(left, model.dims.concept)
    reading, stop = Reading(model, [left]), Stop()
    before = reading.expect()[0]
    reading.keep([0] * candidates)
    drawn = reading.sample([seeded(seed + i) for i in range(candidates)], temperature, how)
    own, good = before_the_end(reading, drawn[None], float(model.end_threshold))[0], np.zeros(candidates)
    if refine is not None:
        own, good = refine(own)
    after = Reading(model, [np.concatenate([left, one[None]]) for one in own]).expect()[0]
    fits = relevance(model, before, own)[0] + relevance(model, after, right[:1])[:, 0]
    near = np.concatenate([left[max(0, len(left) - stop.recent) :], right[: stop.recent]])
    chosen: list[np.ndarray] = []
    for row in np.argsort(-(good + RELEVANCE * fits), kind="stable"):
        said = np.concatenate([near, *(one[None] for one in chosen)])
        if good[row] > -np.inf and cosine(own[row], said).max() <= stop.repetition:
            chosen.append(own[row])
    return np.array(chosen[:n], np.float32).reshape(-1, model.dims.concept)
