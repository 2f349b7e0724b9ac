"""Whether a space can be walked: what lies between two sentences, and around one, should decode too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import concepts
from ..gradient import gradients
from ..spaces import ConceptSpace
from ..text import has_words
from .coding import Work, decode, encode
from .scores import percent, score

STEPS = 7  # sentences of a walk, both ends included
NOISE = (0.1, 0.2, 0.3)  # standard deviation, where a concept's own components have 1

Said = tuple[str, str]  # language, text
Walk = tuple[str, str, str]  # language, from, to


def sample_walks(said: Sequence[Said], n: int, seed: int) -> list[Walk]:
    """`n` seeded pairs of different sentences of one language, the languages taking turns."""
    texts = defaultdict(list)
    for lang, text in said:
        texts[lang].append(text)
    langs = [lang for lang, own in texts.items() if len(own) > 1]
    rng = np.random.default_rng(seed)
    walks = []
    for i in range(n if langs else 0):
        lang = langs[i % len(langs)]
        a, b = rng.choice(len(texts[lang]), 2, replace=False)
        walks.append((lang, texts[lang][a], texts[lang][b]))
    return walks


def effort(walks: Sequence[Walk]) -> int:
    """How many sentences `walk` and `noise` encode or decode, gradients apart."""
    return (3 * STEPS + 1 + 1 + len(NOISE)) * len(walks)


def walk(space: ConceptSpace, vectors: Mapping[Said, np.ndarray], walks: Sequence[Walk], work: Work) -> dict[str, Any]:
    """Go from A to B in equal steps, and by `gradient`, and look at each step between two of STEPS sentences.

    In percent of steps: `nearer` when the sentence, encoded again, comes nearer to B (cosine), `same` when it stays
    word for word, and `farther`. In percent of walks: `new_midpoints` when the sentence halfway differs from both
    ends, and `stable_midpoints` when it comes back from its own concept as it was, which garbled sentences seldom do.
    """
    ends = [(lang, vectors[lang, a], vectors[lang, b]) for lang, a, b in walks]
    longest = [max(len(a), len(b)) for _, a, b in walks]
    path = [
        (concepts.slerp(a, b, t), lang, length)
        for (lang, a, b), length in zip(ends, longest, strict=True)
        for t in np.linspace(0, 1, STEPS)
    ]
    said = decode(space, path, work)
    even = [said[i : i + STEPS] for i in range(0, len(said), STEPS)]
    closeness = closeness_to_end(space, ends, even, work)
    middles = [(walk[STEPS // 2], job) for walk, job in zip(even, path[STEPS // 2 :: STEPS], strict=True)]
    worded = [(sentence, job) for sentence, job in middles if has_words(sentence)]
    again = [space.encode([sentence], job[1])[0] for sentence, job in worded]
    back = decode(space, [(v, *job[1:]) for v, (_, job) in zip(again, worded, strict=True)], work)
    work.skip(len(middles) - len(worded))
    chosen = [gradients(space, [(a, b)], lang, STEPS)[0] for lang, a, b in ends]
    return {
        "gradients": len(walks),
        "sentences": STEPS,
        "equal_steps": steps(even, closeness),
        "gradient": steps(chosen, closeness_to_end(space, ends, chosen, work)),
        "new_midpoints": percent(sum(w[STEPS // 2] not in (w[0], w[-1]) for w in even), len(walks)),
        "stable_midpoints": percent(sum(b == s for b, (s, _) in zip(back, worded, strict=True)), len(walks)),
    }


def closeness_to_end(
    space: ConceptSpace,
    ends: Sequence[tuple[str, np.ndarray, np.ndarray]],
    said: Sequence[Sequence[str]],
    work: Work,
) -> list[list[float]]:
    """The cosine of each walk's sentences, encoded again, to its end; nan where one has no words and no concept."""
    jobs = [(lang, sentence) for (lang, _, _), walk in zip(ends, said, strict=True) for sentence in walk]
    worded = list(dict.fromkeys(job for job in jobs if has_words(job[1])))
    concept = dict(zip(worded, encode(space, worded, work), strict=True))
    work.skip(len(jobs) - len(worded))
    return [
        [
            float(concepts.cosine(concept[lang, sentence], b)[0, 0]) if (lang, sentence) in concept else np.nan
            for sentence in walk
        ]
        for (lang, _, b), walk in zip(ends, said, strict=True)
    ]


def steps(said: Sequence[Sequence[str]], closeness: Sequence[Sequence[float]]) -> dict[str, float]:
    """Percent of steps; one from or to a sentence without a concept counts as farther."""
    nearer = same = total = 0
    for walk, near in zip(said, closeness, strict=True):
        for i in range(len(walk) - 1):
            total += 1
            same += walk[i] == walk[i + 1]
            nearer += walk[i] != walk[i + 1] and near[i + 1] > near[i]
    return {
        "nearer": percent(nearer, total),
        "same": percent(same, total),
        "farther": percent(total - nearer - same, total),
    }


def noise(
    space: ConceptSpace, vectors: Mapping[Said, np.ndarray], said: Sequence[Said], seed: int, work: Work
) -> dict[str, dict[str, float]]:
    """Decode concepts with Gaussian noise: for each size of it, percent unchanged and BLEU to those without."""
    rng = np.random.default_rng(seed)
    clean = np.stack([vectors[sentence] for sentence in said])
    size = float(np.sqrt(np.square(clean).mean()))
    jobs = [(lang, len(text)) for lang, text in said]
    calm = decode(space, [(v, *job) for v, job in zip(clean, jobs, strict=True)], work)
    result = {}
    for deviation in NOISE:
        moved = (clean + deviation * size * rng.standard_normal(clean.shape)).astype(np.float32)
        found = decode(space, [(v, *job) for v, job in zip(moved, jobs, strict=True)], work)
        result[str(deviation)] = {
            "unchanged": percent(sum(a == b for a, b in zip(found, calm, strict=True)), len(calm)),
            "bleu": score(list(zip(found, calm, strict=True)))[0],
        }
    return result
