"""Names for the regions of a landscape, at three levels of zoom.

Regions are nested: k-means on the places of the references makes the finest, and Ward's method joins these to middle
and broad ones. A region is named by one or two words of the English sentences that lie in it. A word counts by its
part in the Kullback-Leibler divergence between the region's sentences and all: p log(p / q), where p is the share of
the region's sentences that have the word and q its share everywhere. So a word must be both frequent and typical
there, which makes it one that a reader recognises. Only content words are asked: no names, no stop words, and nouns
before others.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from ..projection import Label
from ..projection.landscape import SCALES

REGIONS = (8, 25, 80)  # broad, middle, fine
LETTER, LINE = (8.4, 7.0, 6.2), (26, 22, 20)  # pixels that a letter and a line of a label take at each level, about
WORD = r"[A-Za-z]+(?:['’][a-z]+)?"

DETERMINERS = frozenset(
    ["the", "a", "an", "my", "your", "his", "her", "our", "their", "this", "these", "some", "any", "no", "two", "three"]
)

# Words that stand everywhere and name no region.
PLAIN = frozenset(
    """
    thing things way ways lot lots day days time times kind sort bit one ones end side part parts place right left
    good new old big little great best better first second third last next same other others own few only very more
    most many small long whole different certain special important word words name names person people man men woman
    women the and was were are had has have did does that this with for but not you they she his her him its their
    them our what said told asked into from been then than when who can there going want wants wanted your gave
    knew like spot sir madam miss mister mrs gentleman lady fellow something anything nothing everything someone
    anyone everyone somebody anybody nobody everybody yes well now just still even quite rather perhaps really always
    came come comes went goes got get gets make makes made take takes took give gives say says tell tells seem seems
    seemed think thinks thought know knows let put use used need must shall will would could should may might
    today tomorrow yesterday tonight year years month months week weeks hour hours minute minutes moment half dear poor
    course fact case point matter number order manner self young far near away soon later ago
    """.split()  # noqa: SIM905 - read as a paragraph, not as two hundred strings
)


@dataclass(frozen=True)
class Vocabulary:
    """Words that may name a region."""

    nouns: set[str]
    others: set[str]  # verbs, adjectives and whatever else is no name and no stop word

    @classmethod
    def of(cls, texts: Iterable[str], fewest: int = 10) -> Vocabulary:
        """From English text: words that stand there `fewest` times or more.

        A name is a word that has a capital inside a sentence in 3 of 10 cases; a noun is what often follows a
        determiner. There is no need to be right about every word.
        """
        seen: Counter[str] = Counter()
        named: Counter[str] = Counter()
        capital: Counter[str] = Counter()
        for text in texts:
            for before, word in itertools.pairwise(re.findall(WORD, text)):
                small = word.lower()
                seen[small] += 1
                named[small] += before.lower() in DETERMINERS
                capital[small] += word[0].isupper()
        usable = {
            word
            for word, n in seen.items()
            if n >= fewest and capital[word] < 0.3 * n and len(word) > 2 and word.isalpha()
        }
        usable -= PLAIN | ENGLISH_STOP_WORDS
        nouns = {word for word in usable if named[word] > 0.25 * seen[word]}
        return cls(nouns, usable - nouns)

    def weight(self, word: str) -> float:
        return 1.0 if word in self.nouns else 0.6 if word in self.others else 0.0


def regions(points: np.ndarray, counts: Sequence[int] = REGIONS, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
    """Centres [F, 2] of the finest regions of a map's points [R, 2], and for each level the region of each centre [F].

    There are fewer regions where there are fewer points.
    """
    finest = max(1, min(counts[-1], len(np.unique(points, axis=0)) // 2))
    centres = KMeans(finest, n_init=4, random_state=seed).fit(points).cluster_centers_
    levels = []
    for count in counts:
        joined = AgglomerativeClustering(count).fit_predict(centres) if count < finest else np.arange(finest)
        levels.append(joined)
    return centres, levels


def nearest(points: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The centre nearest to each point, [N]."""
    return ((points[:, None] - centres[None]) ** 2).sum(2).argmin(1)


def labels(
    references: np.ndarray,
    points: np.ndarray,
    texts: Sequence[str],
    vocabulary: Vocabulary,
    counts: Sequence[int] = REGIONS,
    seed: int = 0,
) -> list[Label]:
    """Labels of all levels for a map with references at [R, 2] and English sentences at `points` [N, 2].

    At one level no word stands twice and no two labels overlap; a region without typical words has none.
    """
    centres, levels = regions(references, counts, seed)
    own, theirs = nearest(references, centres), nearest(points, centres)
    found = []
    for level, joined in enumerate(levels):
        names = typical(joined[theirs], texts, vocabulary, int(joined.max()) + 1)
        members = [references[joined[own] == region] for region in range(len(names))]
        found += placed(members, names, level)
    return found


def typical(inside: np.ndarray, texts: Sequence[str], vocabulary: Vocabulary, count: int) -> list[list[str]]:
    """For each of `count` regions the one or two words that are typical of its sentences; `inside` [N] says whose
    region each sentence is in."""
    counter = CountVectorizer(token_pattern=WORD, binary=True)
    has = counter.fit_transform(texts)
    words = counter.get_feature_names_out()
    usable = np.array([vocabulary.weight(word) > 0 for word in words])
    # Forms of one word count together, under the form that is used most.
    forms: dict[str, list[int]] = defaultdict(list)
    for column in np.flatnonzero(usable):
        forms[stem(words[column])].append(int(column))
    everywhere = np.asarray(has.sum(0)).ravel()
    sizes = np.bincount(inside, minlength=count)
    ranked = []
    by_region = [np.asarray(has[inside == region].sum(0)).ravel() for region in range(count)]
    for root, columns in forms.items():
        word = words[max(columns, key=lambda column: everywhere[column])]
        q = everywhere[columns].sum() / len(texts)
        for region in range(count):
            n = by_region[region][columns].sum()
            p = n / max(sizes[region], 1)
            if n >= 3 and p >= 0.015 and p >= 1.6 * q:
                ranked.append((vocabulary.weight(word) * p * np.log(p / q), region, word, root))
    chosen: list[list[tuple[float, str]]] = [[] for _ in range(count)]
    used: set[str] = set()
    # The most typical words choose first, so no word names two regions.
    for score, region, word, root in sorted(ranked, reverse=True):
        there = chosen[region]
        if root not in used and len(there) < 2 and (not there or score > 0.4 * there[0][0]):
            there.append((score, word))
            used.add(root)
    return [[word for _, word in there] for there in chosen]


def placed(members: Sequence[np.ndarray], names: Sequence[Sequence[str]], level: int) -> list[Label]:
    """A label for each region that has a name, largest first, near the middle of its members [M, 2].

    A label stands where the map has points, and apart from the others at the smallest scale at which its level is
    shown; where there is no such place in its region, it is left out.
    """
    scale = SCALES[level]
    boxes: list[tuple[float, float, float, float]] = []
    found = []
    for region in sorted(range(len(names)), key=lambda region: -len(members[region])):
        inside = members[region]
        if not names[region] or not len(inside):
            continue
        text = " · ".join(names[region])
        half = np.array([len(text) * LETTER[level] / scale / 2, LINE[level] / scale / 2])
        middle = np.median(inside, axis=0)
        order = np.argsort(np.linalg.norm(inside - middle, axis=1))
        # A little between the middle and a reference keeps the label in the region even where that is a ring.
        for point in (0.5 * (inside[order[: len(order) // 2 + 1]] + middle)) if len(inside) else ():
            box = (*(point - half), *(point + half))
            if np.abs(point).max() <= 1 and not any(overlap(box, other) for other in boxes):
                boxes.append(box)
                found.append(Label(round(float(point[0]), 4), round(float(point[1]), 4), text, level))
                break
    return found


def overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two boxes (left, bottom, right, top) share some of the plane."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def stem(word: str) -> str:
    """A word without its ending, enough to see that boat and boats are one."""
    return re.sub(r"(?:ies|es|s|y|ed|ing|e)$", "", word)
