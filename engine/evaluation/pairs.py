"""Translated pairs that a space is measured on."""

from __future__ import annotations

import gzip
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ..errors import CorpusError
from ..text import from_bytes, has_words


@dataclass(frozen=True)
class Pair:
    """Two sentences that say the same."""

    langs: tuple[str, str]  # codes of the space
    texts: tuple[str, str]


def read_pairs(data: bytes, name: str, languages: Collection[str]) -> list[Pair]:
    """Pairs from a table of lang1, lang2, text1, text2 (tab-separated UTF-8, plain or gzip; more columns are ignored).

    A language is one of those codes, or its first three letters where only one begins with them. Raises CorpusError
    naming the line that can't be used, TextError where the file is no UTF-8.
    """
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise CorpusError(f"{name} is a damaged gzip file ({error}); get a complete copy.") from error
    body = from_bytes(data, name).removeprefix("\ufeff")
    codes = language_codes(languages)
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
                known = ", ".join(languages)
                raise CorpusError(f"{name}, line {number}: the language {lang!r} is not one of {known}.")
        for text in row[2:4]:
            if not has_words(text):
                raise CorpusError(f"{name}, line {number}: a text without words; give a sentence on both sides.")
        pairs.append(Pair((codes[row[0]], codes[row[1]]), (row[2], row[3])))
    if not pairs:
        raise CorpusError(f"{name} is empty; give lines of lang1, lang2, text1 and text2.")
    return pairs


def language_codes(languages: Collection[str]) -> dict[str, str]:
    """What may name each language: its code, and the three letters in front where they name no other."""
    short = defaultdict(list)
    for code in languages:
        short[code.split("_")[0]].append(code)
    return {code: code for code in languages} | {s: found[0] for s, found in short.items() if len(found) == 1}


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
