"""How good a concept space is: its round trips, its translations, how it finds them, and whether it can be walked."""

from __future__ import annotations

import gzip
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from . import concepts
from .errors import CorpusError
from .spaces import ConceptSpace, Progress

DIRECTIONS = ("1>1", "2>2", "1>2", "2>1")  # which text is encoded > in which language it is decoded
STEPS = 7  # sentences of a gradient, both ends included


@dataclass(frozen=True)
class Pair:
    """Two sentences that say the same."""

    langs: tuple[str, str]  # codes of the space
    texts: tuple[str, str]


def read_pairs(data: bytes, name: str, space: ConceptSpace) -> list[Pair]:
    """Pairs from a table of lang1, lang2, text1, text2 (tab-separated UTF-8, plain or gzip; more columns are ignored).

    A language is a code of the space, or its first three letters where only one begins with them. Raises CorpusError
    naming the line that can't be used.
    """
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise CorpusError(f"{name} is a damaged gzip file ({error}); get a complete copy.") from error
    try:
        body = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CorpusError(f"{name} is not UTF-8 text (byte {error.start:,}); save it as UTF-8.") from error
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
            if not any(c.isalnum() for c in text):
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
    """Measure a space on translated pairs, decoding greedily; a report of plain numbers, ready for JSON.

    BLEU and chrF (sacrebleu, 0 to 100) of the four directions of each pair of languages, how often (in percent) the
    nearest concept among a group's other side is the translation, the means of these, and the steps of `gradients`
    walks between random sentences (see `walk`).
    """
    from sacrebleu.metrics import BLEU

    groups = by_languages(pairs)
    said = {(lang, text): None for pair in pairs for lang, text in zip(pair.langs, pair.texts, strict=True)}
    jobs = dict.fromkeys(
        (pair.langs[i], pair.texts[i], pair.langs[j]) for pair in pairs for i, j in map(_sides, DIRECTIONS)
    )
    walks = min(gradients, _walkable(said))
    steps = _Steps(progress, len(said) + len(jobs) + 2 * STEPS * walks)
    vectors = _encode(space, list(said), steps)
    decoded = _decode(space, list(jobs), vectors, steps)

    rows = []
    directed: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)  # (decoded, reference)
    for (lang1, lang2), group in groups.items():
        row: dict[str, Any] = {"lang1": lang1, "lang2": lang2, "pairs": len(group), "bleu": {}, "chrf": {}}
        for direction in DIRECTIONS:
            i, j = _sides(direction)
            found = [(decoded[p.langs[i], p.texts[i], p.langs[j]], p.texts[j]) for p in group]
            row["bleu"][direction], row["chrf"][direction] = _score(found)
            directed[group[0].langs[i], group[0].langs[j]] += found
        row["retrieval"] = {"1>2": _retrieval(group, vectors, 0, 1), "2>1": _retrieval(group, vectors, 1, 0)}
        rows.append(row)
    return {
        "space": space.name,
        "pairs": len(pairs),
        "sacrebleu": str(BLEU().get_signature()) if False else _version(),
        "languages": rows,
        "summary": _summary(directed, rows),
        "walk": walk(space, vectors, walks, seed, steps) if walks else None,
    }
