"""How good a concept space is: its round trips, its translations, how it finds them, and whether it can be walked."""

from __future__ import annotations

import gzip
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from statistics import fmean
from typing import Any

import numpy as np

from . import concepts
from .errors import CorpusError
from .spaces import ConceptSpace, Progress
from .text import from_bytes, has_words

# Which side is encoded, and in whose language it is decoded.
DIRECTIONS = {"1>1": (0, 0), "2>2": (1, 1), "1>2": (0, 1), "2>1": (1, 0)}
STEPS = 7  # sentences of a gradient, both ends included


@dataclass(frozen=True)
class Pair:
    """Two sentences that say the same."""

    langs: tuple[str, str]  # codes of the space
    texts: tuple[str, str]


def read_pairs(data: bytes, name: str, space: ConceptSpace) -> list[Pair]:
    """Pairs from a table of lang1, lang2, text1, text2 (tab-separated UTF-8, plain or gzip; more columns are ignored).

    A language is a code of the space, or its first three letters where only one begins with them. Raises CorpusError
    naming the line that can't be used, TextError where the file is no UTF-8.
    """
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise CorpusError(f"{name} is a damaged gzip file ({error}); get a complete copy.") from error
    body = from_bytes(data, name).removeprefix("\ufeff")
    codes = language_codes(space)
    pairs = []
    for number, line in enumerate(body.split("\n"), 1):
        row = [cell.strip() for cell in line.split("\t")]
        if not any(row):
            continue
        if len(row) < 4:
            raise CorpusError(
                f"{name}, line {number}: {len(row)} columns where lang1, lang2, text1 and text2 are needed."
            )
        for lang in row[:2]:
            if lang not in codes:
                known = ", ".join(space.languages)
                raise CorpusError(f"{name}, line {number}: the language {lang!r} is not one of {known}.")
        for text in row[2:4]:
            if not has_words(text):
                raise CorpusError(f"{name}, line {number}: a text without words; give a sentence on both sides.")
        pairs.append(Pair((codes[row[0]], codes[row[1]]), (row[2], row[3])))
    if not pairs:
        raise CorpusError(f"{name} is empty; give lines of lang1, lang2, text1 and text2.")
    return pairs


def language_codes(space: ConceptSpace) -> dict[str, str]:
    """What may name each language: its code, and the three letters in front where they name no other."""
    short = defaultdict(list)
    for code in space.languages:
        short[code.split("_")[0]].append(code)
    return {code: code for code in space.languages} | {s: found[0] for s, found in short.items() if len(found) == 1}


def thin(pairs: Sequence[Pair], limit: int) -> list[Pair]:
    """At most `limit` pairs of each pair of languages, evenly from the whole of them."""
    kept = []
    for group in by_languages(pairs).values():
        n = min(limit, len(group))
        kept += [group[i * len(group) // n] for i in range(n)]
    return kept


def by_languages(pairs: Iterable[Pair]) -> dict[tuple[str, str], list[Pair]]:
    groups = defaultdict(list)
    for pair in pairs:
        groups[pair.langs].append(pair)
    return dict(groups)


def evaluate_space(
    space: ConceptSpace, pairs: Sequence[Pair], gradients: int = 100, seed: int = 0, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure a space on translated pairs, decoding greedily; a report of plain values, ready for JSON.

    For each pair of languages: BLEU and chrF (sacrebleu, 0 to 100) of the four directions, and how often, in percent,
    the nearest concept among the other side is the translation. Then the means of these, where a language's round
    trip is scored over all its sentences, and the steps of `gradients` walks (see `walk`).
    """
    said = list(dict.fromkeys(side for pair in pairs for side in zip(pair.langs, pair.texts, strict=True)))
    jobs = list(dict.fromkeys((*_side(pair, i), pair.langs[j]) for pair in pairs for i, j in DIRECTIONS.values()))
    walks = sample_walks(said, gradients, seed)
    work = Work(len(said) + len(jobs) + 2 * STEPS * len(walks), progress)
    vectors = dict(zip(said, encode(space, said, work), strict=True))
    decoded = dict(
        zip(jobs, decode(space, [(vectors[lang, text], to, len(text)) for lang, text, to in jobs], work), strict=True)
    )

    rows = []
    directed: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)  # (decoded, reference)
    for langs, group in by_languages(pairs).items():
        scores = {}
        for direction, (i, j) in DIRECTIONS.items():
            found = [(decoded[*_side(pair, i), langs[j]], pair.texts[j]) for pair in group]
            scores[direction] = score(found)
            directed[langs[i], langs[j]] += found
        sides = [np.stack([vectors[_side(pair, i)] for pair in group]) for i in (0, 1)]
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
    return {
        "space": space.name,
        "pairs": len(pairs),
        "metrics": f"sacrebleu {metadata.version('sacrebleu')}: corpus BLEU (13a), chrF2",
        "languages": rows,
        "summary": summarize(directed, rows),
        "walk": walk(space, vectors, walks, work) if walks else None,
    }


@dataclass
class Work:
    """Progress over several calls that each count from 0."""

    total: int
    progress: Progress | None = None
    done: int = 0

    def part(self, n: int) -> Progress | None:
        """The progress callback of the next call, which has `n` things to do."""
        start, self.done = self.done, self.done + n
        progress = self.progress
        return None if progress is None else lambda done, _: progress(start + done, self.total)


def encode(space: ConceptSpace, said: Sequence[tuple[str, str]], work: Work) -> np.ndarray:
    """Concepts [N, D] of (language, text), one call for each language."""
    result = np.zeros((len(said), space.dim), np.float32)
    for lang in dict.fromkeys(lang for lang, _ in said):
        rows = [i for i, (own, _) in enumerate(said) if own == lang]
        result[rows] = space.encode([said[i][1] for i in rows], lang, progress=work.part(len(rows)))
    return result


def decode(space: ConceptSpace, jobs: Sequence[tuple[np.ndarray, str, int]], work: Work) -> list[str]:
    """Sentences of (concept [D], language, about how long), one call for each language, like lengths together."""
    result = [""] * len(jobs)
    for lang in dict.fromkeys(lang for _, lang, _ in jobs):
        rows = sorted((i for i, (_, own, _) in enumerate(jobs) if own == lang), key=lambda i: jobs[i][2])
        sentences = space.decode(np.stack([jobs[i][0] for i in rows]), lang, progress=work.part(len(rows)))
        for i, sentence in zip(rows, sentences, strict=True):
            result[i] = sentence
    return result


def score(found: Sequence[tuple[str, str]]) -> tuple[float, float]:
    """Corpus BLEU and chrF of (decoded, reference)."""
    from sacrebleu import corpus_bleu, corpus_chrf

    decoded, references = [d for d, _ in found], [[r for _, r in found]]
    return round(corpus_bleu(decoded, references).score, 2), round(corpus_chrf(decoded, references).score, 2)


def retrieval(queries: np.ndarray, candidates: np.ndarray, texts: Sequence[str]) -> float:
    """Percent of rows of queries [N, D] whose nearest row of candidates [N, D] says `texts[row]`."""
    nearest = concepts.cosine(queries, candidates).argmax(1)
    return round(100 * fmean(texts[found] == text for found, text in zip(nearest, texts, strict=True)), 2)


def summarize(
    directed: Mapping[tuple[str, str], Sequence[tuple[str, str]]], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Means over directions (source, target), in the groups that a space is judged by; None where there are none."""
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
        **{
            name: {"bleu": _mean(b for b, _ in scores), "chrf": _mean(c for _, c in scores)}
            for name, scores in groups.items()
        },
        "retrieval": _mean(accuracy for row in rows for accuracy in row["retrieval"].values()),
    }


def sample_walks(said: Sequence[tuple[str, str]], n: int, seed: int) -> list[tuple[str, str, str]]:
    """`n` seeded pairs of different sentences of one language, (language, from, to), the languages taking turns."""
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


def walk(
    space: ConceptSpace,
    vectors: Mapping[tuple[str, str], np.ndarray],
    walks: Sequence[tuple[str, str, str]],
    work: Work,
) -> dict[str, Any]:
    """Can the space be walked? Decode a gradient of STEPS concepts from A to B, encode it again, and look at each step.

    In percent of steps: `nearer` when the sentence's own concept comes nearer to B (cosine), `same` when the sentence
    stays as it was, and `farther`; `new_midpoints` is the percent of middle sentences that differ from both ends.
    """
    ends = [(lang, vectors[lang, a], vectors[lang, b]) for lang, a, b in walks]
    longest = [max(len(a), len(b)) for _, a, b in walks]
    path = [
        (concepts.slerp(a, b, i / (STEPS - 1)), lang, length)
        for (lang, a, b), length in zip(ends, longest, strict=True)
        for i in range(STEPS)
    ]
    sentences = decode(space, path, work)
    # A sentence without words has no concept; its steps count as farther, since nothing is nearer than NaN.
    worded = [i for i, sentence in enumerate(sentences) if has_words(sentence)]
    again = np.full((len(path), space.dim), np.nan, np.float32)
    again[worded] = encode(space, [(path[i][1], sentences[i]) for i in worded], work)
    nearer = same = midpoints = 0
    for number, (_, _, b) in enumerate(ends):
        rows = slice(number * STEPS, (number + 1) * STEPS)
        closeness, said = concepts.cosine(b, again[rows])[0], sentences[rows]
        stays = [said[i] == said[i + 1] for i in range(STEPS - 1)]
        same += sum(stays)
        nearer += sum(bool(closeness[i + 1] > closeness[i]) for i in range(STEPS - 1) if not stays[i])
        midpoints += said[STEPS // 2] not in (said[0], said[-1])
    steps = len(walks) * (STEPS - 1)
    return {
        "gradients": len(walks),
        "sentences": STEPS,
        "nearer": round(100 * nearer / steps, 2),
        "same": round(100 * same / steps, 2),
        "farther": round(100 * (steps - nearer - same) / steps, 2),
        "new_midpoints": round(100 * midpoints / len(walks), 2),
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
    if report["walk"]:
        walked = report["walk"]
        lines += [
            "",
            f"{walked['gradients']} gradients of {walked['sentences']} sentences: {walked['nearer']:.1f} % of steps "
            f"come nearer to the end, {walked['same']:.1f} % stay, {walked['farther']:.1f} % go astray; "
            f"{walked['new_midpoints']:.1f} % of midpoints are new sentences",
        ]
    return "\n".join(lines)


def _side(pair: Pair, i: int) -> tuple[str, str]:
    return pair.langs[i], pair.texts[i]


def _english(code: str) -> bool:
    return code.startswith("eng_")


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return round(fmean(found), 2) if found else None
