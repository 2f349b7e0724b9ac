"""How good a concept space is, in one report."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from statistics import fmean
from typing import Any

import numpy as np

from ..concepts import cosine
from ..spaces import CHOICE, ConceptSpace, Progress, Search
from ..text import has_words
from .coding import Work, decode, encode
from .pairs import Pair, by_languages
from .scores import percent, retrieval, score
from .smoothness import Said, effort, noise, sample_walks, walk

# Which side is encoded, and in whose language it is decoded.
DIRECTIONS = {"1>1": (0, 0), "2>2": (1, 1), "1>2": (0, 1), "2>1": (1, 0)}
PERCENTS = (1, 10, 25, 50, 75, 90, 99)
LENGTHS = ((1, 8), (9, 15), (16, 24), (25, 40))  # words of a reference, first and last of each group

NOTHING: Mapping[str, Sequence[Said]] = {}

Found = tuple[str, str]  # decoded, reference


def evaluate_space(
    space: ConceptSpace,
    pairs: Sequence[Pair],
    sentences: Mapping[str, Sequence[Said]] = NOTHING,
    gradients: int = 100,
    seed: int = 0,
    progress: Progress | None = None,
    choice: bool = False,
) -> dict[str, Any]:
    """Measure a space on translated pairs and on other sentences, decoding greedily; plain values, ready for JSON.

    For each pair of languages: BLEU and chrF (sacrebleu, 0 to 100) of the four directions, and how often, in percent,
    the nearest concept among the other side is the translation. Then the means of these, where a language's round
    trip is scored over all its sentences; round trips and translations by the length of what should come out; the
    round trips of other `sentences`, for each named set and language, and how many percent of these keep their meaning:
    encoded again, the nearest concept of the set is the sentence's own; the steps of `gradients` walks and what noise
    changes (see `smoothness`); and percentiles of the cosine of translations and of sentences that are none. With
    `choice`, translations to and from English are also decoded with choice (`spaces.CHOICE`), which takes several times
    as long.
    """
    in_pairs = [side for pair in pairs for side in zip(pair.langs, pair.texts, strict=True)]
    others = [sentence for own in sentences.values() for sentence in own]
    said = list(dict.fromkeys([*in_pairs, *others]))
    jobs = list(
        dict.fromkeys(
            [(*_side(pair, i), pair.langs[j]) for pair in pairs for i, j in DIRECTIONS.values()]
            + [(lang, text, lang) for lang, text in others]
        )
    )
    walks = sample_walks(list(dict.fromkeys(in_pairs)), gradients, seed)
    chosen = [job for job in jobs if choice and _english(job[0]) != _english(job[2])]
    work = Work(len(said) + len(jobs) + len(chosen) + len(others) + effort(walks), progress)
    vectors = dict(zip(said, encode(space, said, work), strict=True))
    decoded, nearest = (
        dict(zip(part, decode(space, [(vectors[a, t], b, len(t)) for a, t, b in part], work, search), strict=True))
        for part, search in ((jobs, Search()), (chosen, CHOICE))
    )

    rows = []
    directed: dict[tuple[str, str], list[Found]] = defaultdict(list)
    with_choice: dict[tuple[str, str], list[Found]] = defaultdict(list)
    alike: list[np.ndarray] = []
    unlike: list[np.ndarray] = []
    for langs, group in by_languages(pairs).items():
        scores = {}
        for direction, (i, j) in DIRECTIONS.items():
            found = [(decoded[*_side(pair, i), langs[j]], pair.texts[j]) for pair in group]
            scores[direction] = score(found)
            directed[langs[i], langs[j]] += found
            if choice and _english(langs[i]) != _english(langs[j]):
                found = [(nearest[*_side(pair, i), langs[j]], pair.texts[j]) for pair in group]
                with_choice[langs[i], langs[j]] += found
        sides = [np.stack([vectors[_side(pair, i)] for pair in group]) for i in (0, 1)]
        near = cosine(*sides)
        same = np.eye(len(group), dtype=bool)
        alike.append(near[same])
        unlike.append(near[~same])
        rows.append(
            {
                "lang1": langs[0],
                "lang2": langs[1],
                "pairs": len(group),
                "bleu": {direction: bleu for direction, (bleu, _) in scores.items()},
                "chrf": {direction: chrf for direction, (_, chrf) in scores.items()},
                "retrieval": {
                    "1>2": retrieval(sides[0], sides[1], [pair.texts[1] for pair in group]),
                    "2>1": retrieval(sides[1], sides[0], [pair.texts[0] for pair in group]),
                },
            }
        )
    told: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in sentences}
    for name, own in sentences.items():
        for lang in dict.fromkeys(lang for lang, _ in own):
            texts = [text for own_lang, text in own if own_lang == lang]
            again = [decoded[lang, text, lang] for text in texts]
            concepts = np.stack([vectors[lang, text] for text in texts])
            told[name][lang] = one(list(zip(again, texts, strict=True))) | {
                "kept": kept(space, lang, again, concepts, texts, work)
            }
    return {
        "space": space.name,
        "pairs": len(pairs),
        "metrics": f"sacrebleu {metadata.version('sacrebleu')}: corpus BLEU (13a), chrF2",
        "languages": rows,
        "summary": summarize(directed, rows)
        | {f"{name}_with_choice": means for name, means in grouped(with_choice).items() if means["bleu"] is not None},
        "cosine": {"translations": percentiles(alike), "others": percentiles(unlike)},
        "lengths": {
            "to themselves": by_length(found for (a, b), group in directed.items() if a == b for found in group),
            "translated": by_length(found for (a, b), group in directed.items() if a != b for found in group),
        },
        "sentences": told,
        "walk": walk(space, vectors, walks, work) if walks else None,
        "noise": noise(space, vectors, [(lang, a) for lang, a, _ in walks], seed, work) if walks else None,
    }


def one(found: Sequence[Found]) -> dict[str, Any]:
    bleu, chrf = score(found)
    return {"sentences": len(found), "bleu": bleu, "chrf": chrf}


def kept(
    space: ConceptSpace, lang: str, again: Sequence[str], own: np.ndarray, texts: Sequence[str], work: Work
) -> float:
    """Percent of sentences, decoded `again` from concepts [N, D] of `texts`, that are nearest to their own concept."""
    worded = [i for i, sentence in enumerate(again) if has_words(sentence)]
    back = encode(space, [(lang, again[i]) for i in worded], work)
    work.skip(len(again) - len(worded))
    nearest = cosine(back, own).argmax(1) if worded else []
    return percent(sum(texts[j] == texts[i] for i, j in zip(worded, nearest, strict=True)), len(texts))


def by_length(found: Iterable[Found]) -> dict[str, dict[str, Any]]:
    """Scores of the groups of LENGTHS, those without sentences left out."""
    groups: dict[str, list[Found]] = {f"{first}-{last} words": [] for first, last in LENGTHS}
    for decoded, reference in found:
        words = len(reference.split())
        for first, last in LENGTHS:
            if first <= words <= last:
                groups[f"{first}-{last} words"].append((decoded, reference))
    return {name: one(group) for name, group in groups.items() if group}


def percentiles(cosines: Sequence[np.ndarray]) -> dict[str, float] | None:
    """The cosine below which each of PERCENTS percent of them lie; None where there are none."""
    found = np.concatenate(cosines)
    if not len(found):
        return None
    values = np.percentile(found, PERCENTS)
    return {str(share): round(float(value), 3) for share, value in zip(PERCENTS, values, strict=True)}


def summarize(directed: Mapping[tuple[str, str], Sequence[Found]], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over directions (source, target), in the groups that a space is judged by; None where there are none."""
    return {
        **grouped(directed),
        "retrieval": _mean(accuracy for row in rows for accuracy in row["retrieval"].values()),
    }


def grouped(directed: Mapping[tuple[str, str], Sequence[Found]]) -> dict[str, dict[str, float | None]]:
    groups: dict[str, list[tuple[float, float]]] = {
        "english_to_itself": [],
        "others_to_themselves": [],
        "to_english": [],
        "from_english": [],
        "between_others": [],
    }
    for (source, target), found in directed.items():
        if source == target:
            name = "english_to_itself" if _english(source) else "others_to_themselves"
        else:
            name = "to_english" if _english(target) else "from_english" if _english(source) else "between_others"
        groups[name].append(score(found))
    return {
        name: {"bleu": _mean(b for b, _ in scores), "chrf": _mean(c for _, c in scores)}
        for name, scores in groups.items()
    }


def table(report: Mapping[str, Any]) -> str:
    """A report as a table to read."""
    heads = [f"{name} {d}" for name in ("BLEU", "chrF") for d in DIRECTIONS] + ["found 1>2", "found 2>1"]
    lines = [f"{'languages':<21}{'pairs':>6}" + "".join(f"{head:>10}" for head in heads)]
    for row in report["languages"]:
        values = [*row["bleu"].values(), *row["chrf"].values(), *row["retrieval"].values()]
        name = f"{row['lang1']} {row['lang2']}"
        lines.append(f"{name:<21}{row['pairs']:>6}" + "".join(f"{value:>10.1f}" for value in values))
    lines += ["", f"{'means':<30}{'BLEU':>8}{'chrF':>8}"]
    for name, value in report["summary"].items():
        if isinstance(value, Mapping) and value["bleu"] is not None:
            lines.append(f"{name.replace('_', ' '):<30}{value['bleu']:>8.1f}{value['chrf']:>8.1f}")
    lines.append(f"{'translation found, percent':<30}{report['summary']['retrieval']:>8.1f}")
    shares = "".join(f"{f'{share} %':>8}" for share in PERCENTS)
    lines += ["", f"{'cosine, as many lie below':<30}{shares}"]
    for name, values in report["cosine"].items():
        if values:
            lines.append(f"{name:<30}" + "".join(f"{value:>8.3f}" for value in values.values()))
    lines += ["", f"{'by length':<30}{'BLEU':>8}{'chrF':>8}{'sentences':>11}{'meaning kept, percent':>23}"]
    groups = [(f"{what}, {size}", own) for what, found in report["lengths"].items() for size, own in found.items()]
    groups += [(f"{name}, {lang}", own) for name, found in report["sentences"].items() for lang, own in found.items()]
    lines += [
        f"{name:<30}{own['bleu']:>8.1f}{own['chrf']:>8.1f}{own['sentences']:>11}"
        + (f"{own['kept']:>23.1f}" if "kept" in own else "")
        for name, own in groups
    ]
    if report["walk"]:
        walked = report["walk"]
        lines += ["", f"{walked['gradients']} walks of {walked['sentences']} sentences: percent of steps that"]
        for name, title in (("equal_steps", "in equal steps"), ("gradient", "as `gradient` goes")):
            found = walked[name]
            lines.append(
                f"  {title:<20}come nearer {found['nearer']:.1f}, stay {found['same']:.1f}, "
                f"go astray {found['farther']:.1f}"
            )
        lines.append(
            f"midpoints: {walked['new_midpoints']:.1f} % differ from both ends, {walked['stable_midpoints']:.1f} % "
            "come back from their own concept as they were"
        )
        for deviation, found in report["noise"].items():
            lines.append(
                f"noise of {deviation}: {found['unchanged']:.1f} % stay word for word, "
                f"BLEU to those without {found['bleu']:.1f}"
            )
    return "\n".join(lines)


def _side(pair: Pair, i: int) -> Said:
    return pair.langs[i], pair.texts[i]


def _english(code: str) -> bool:
    return code.startswith("eng_")


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return round(fmean(found), 2) if found else None
