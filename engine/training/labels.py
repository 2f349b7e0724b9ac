"""Names for the regions of a landscape, at three levels of zoom.

A region is where a word is at home. For each content word of the English sentences that lie on the map, and each place,
a Gaussian window says in which share p of the sentences around there the word stands; q is its share everywhere. The
word's score at the place is its part in the Kullback-Leibler divergence between the sentences there and all,
p log(p / q): it must be both frequent and typical there, which makes it a word that a reader recognises. The highest
score on the map gets the first label, the highest one that is far enough from it the next, and so on. A wide window
gives names to broad regions, a narrow one to fine ones.

Content words are no names and no stop words, and nouns count more than others.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS, CountVectorizer

from ..projection import SCALES, Label

MOST = (8, 25, 80)  # labels of each level: broad, middle, fine
WINDOWS = (0.17, 0.1, 0.055)  # standard deviation of each level's window, where the map goes from -1 to 1
LETTER, LINE = (9.0, 7.0, 6.5), (30, 26, 24)  # pixels that a letter and a line take at each level, with some air
SHORE = 0.05  # standard deviation of the window that tells land (references) from sea
GRID = 72  # places along one side of the map
FEWEST = 10  # sentences that a word must stand in, and a window must hold
SHRINK = 30  # sentences like all others that are added to each window, so that chance in a thin one counts little
LIFT = 1.5  # times as often as everywhere that a word must stand in a window
SURPRISE = 4.0  # standard deviations by which it must stand there more often than by chance
LEAST = 0.005  # score of a label
SECOND = 0.6  # share of the first word's score that a second word must have
OTHERS = 0.3  # weight of a word that is no noun
QUESTION = re.compile(r"\?[\"'’”»)]*$")
WORD = r"[A-Za-z]+(?:['’][a-z]+)?"

DETERMINERS = frozenset(
    ["the", "a", "an", "my", "your", "his", "her", "our", "their", "this", "these", "some", "any", "no", "two", "three"]
)

# What stands before a verb.
BEFORE_VERBS = frozenset(
    """
    to i you he she it we they who not will would can could shall should may might must did do does don't didn't never
    let had has have having
    """.split()  # noqa: SIM905 - read as a line, not as thirty strings
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
    course fact case point matter number order manner self young far near away soon later ago middle extraordinary
    particular pretty mysterious subject result situation difference quarter age thousand effort distance doing begin
    till sent held drew added meant mean thou stood sat round expected account live state worth question questions ought
    sure able possible expect longer bring saying fell lay tried thee suppose needs able run meet gone
    """.split()  # noqa: SIM905 - read as a paragraph, not as two hundred strings
)


@dataclass(frozen=True)
class Vocabulary:
    """Words that may name a region."""

    nouns: set[str]
    others: set[str]  # verbs and adjectives: whatever else is no name, no stop word and no adverb in -ly

    @classmethod
    def of(cls, texts: Iterable[str], fewest: int = 10) -> Vocabulary:
        """From English text: words that stand there `fewest` times or more.

        A name is a word that has a capital inside a sentence in 3 of 10 cases; a noun is what often follows a
        determiner, and seldom what a verb follows. There is no need to be right about every word.
        """
        seen: Counter[str] = Counter()
        named: Counter[str] = Counter()
        verbal: Counter[str] = Counter()
        capital: Counter[str] = Counter()
        for text in texts:
            for before, word in itertools.pairwise(re.findall(WORD, text.replace("’", "'"))):
                small = word.lower()
                verbal[small] += before.lower() in BEFORE_VERBS
                seen[small] += 1
                named[small] += before.lower() in DETERMINERS
                capital[small] += word[0].isupper()
        usable = {
            word
            for word, n in seen.items()
            if n >= fewest and capital[word] < 0.3 * n and len(word) > 2 and word.isalpha()
        }
        usable -= PLAIN | ENGLISH_STOP_WORDS
        nouns = {word for word in usable if named[word] > max(0.25 * seen[word], 3 * verbal[word])}
        return cls(nouns, {word for word in usable - nouns if not word.endswith("ly")})  # certainly, probably

    def weight(self, word: str) -> float:
        return 1.0 if word in self.nouns else OTHERS if word in self.others else 0.0


def labels(references: np.ndarray, points: np.ndarray, texts: Sequence[str], vocabulary: Vocabulary) -> list[Label]:
    """Labels of all levels for a map with references at [R, 2] and English sentences `texts` at `points` [N, 2].

    At one level no word stands twice and no two labels overlap. Where no word is typical, there is no label.
    """
    words = Words.of(texts, vocabulary)
    return [
        label
        for level, (most, window) in enumerate(zip(MOST, WINDOWS, strict=True))
        for label in placed(words, references, points, window, level)[:most]
    ]


@dataclass(frozen=True)
class Words:
    """Words that may name a region, each with the sentences that it stands in."""

    shown: list[str]
    weights: np.ndarray  # [W]
    rows: list[np.ndarray]  # the numbers of each word's sentences

    @classmethod
    def of(cls, texts: Sequence[str], vocabulary: Vocabulary) -> Words:
        """Forms of one word (boat, boats) count together, under the one that is used most.

        One more "word" stands for being a question, which no content word says: questions may lie together.
        """
        counter = CountVectorizer(token_pattern=WORD, binary=True)
        has = counter.fit_transform(texts).tocsc()
        words = counter.get_feature_names_out()
        counts = np.diff(has.indptr)
        forms: dict[str, list[int]] = defaultdict(list)
        for column, word in enumerate(words):
            if vocabulary.weight(word):
                forms[stem(word)].append(column)
        shown, weights, rows = [], [], []
        for columns in forms.values():
            found = np.unique(np.concatenate([has.indices[has.indptr[c] : has.indptr[c + 1]] for c in columns]))
            if len(found) >= FEWEST:
                shown.append(str(words[max(columns, key=lambda column: counts[column])]))
                weights.append(vocabulary.weight(shown[-1]))
                rows.append(found)
        asked = np.array([i for i, text in enumerate(texts) if QUESTION.search(text)], int)
        if len(asked) >= FEWEST:
            shown.append("questions")
            weights.append(OTHERS)
            rows.append(asked)
        return cls(shown, np.array(weights), rows)


def windowed(points: np.ndarray, window: float) -> np.ndarray:
    """How many of the points [N, 2] lie in the window around each place of the grid, [GRID, GRID], rows by y."""
    edges = np.linspace(-1, 1, GRID + 1)
    counts, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=(edges, edges))
    sigma = window * GRID / 2
    return gaussian_filter(counts, sigma, mode="constant") * 2 * np.pi * sigma**2  # its middle counts fully


def scores(words: Words, references: np.ndarray, points: np.ndarray, window: float) -> tuple[np.ndarray, np.ndarray]:
    """Places of the grid where there are references, [P, 2], and the score of each word there, [W, P]."""
    middles = (np.arange(GRID) + 0.5) * 2 / GRID - 1
    there = windowed(references, SHORE)  # whatever the window: a broad label must stand on land, too
    total = windowed(points, window)
    y, x = np.nonzero((there > 0.25 * np.median(there[there > 0.5])) & (total >= FEWEST))
    total = total[y, x]
    result = np.zeros((len(words.shown), len(x)))
    for i, rows in enumerate(words.rows):
        n, q = windowed(points[rows], window)[y, x], len(rows) / len(points)
        p = (n + SHRINK * q) / (total + SHRINK)
        surprise = (n - total * q) / np.sqrt(total * q)
        result[i] = np.where((n >= 3) & (p > LIFT * q) & (surprise > SURPRISE), words.weights[i] * p * np.log(p / q), 0)
    return np.stack([middles[x], middles[y]], axis=1), result


def placed(words: Words, references: np.ndarray, points: np.ndarray, window: float, level: int) -> list[Label]:
    """The labels of a level, the most typical first.

    A label stands on land, as near as can be to the middle of the sentences around that have its word, and apart from
    the others at the smallest scale at which its level is shown.
    """
    places, score = scores(words, references, points, window)
    boxes: list[tuple[float, float, float, float]] = []
    found: list[Label] = []
    while score.size and score.max() > LEAST:
        first, place = np.unravel_index(score.argmax(), score.shape)
        second = score[:, place].copy()
        second[first] = 0
        names = [first]
        if second.max() > SECOND * score[first, place]:
            names.append(second.argmax())
        near = points[words.rows[first]]
        near = near[np.linalg.norm(near - places[place], axis=1) < 1.5 * window]
        middle = near.mean(0) if len(near) else places[place]
        middle = places[np.linalg.norm(places - middle, axis=1).argmin()]
        text = " · ".join(words.shown[name] for name in names)
        half = np.array([len(text) * LETTER[level], LINE[level]]) / SCALES[level] / 2
        box = (*(middle - half), *(middle + half))
        if np.abs(middle).max() > 1 or any(overlap(box, other) for other in boxes):
            score[first, place] = 0
            continue
        boxes.append(box)
        found.append(Label(round(float(middle[0]), 4), round(float(middle[1]), 4), text, level))
        score[names] = 0
        score[:, np.linalg.norm(places - middle, axis=1) < window] = 0
        score[:, place] = 0
    return found


def overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    """Whether two boxes (left, bottom, right, top) share some of the plane."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def stem(word: str) -> str:
    """A word without its ending, enough to see that boat and boats are one."""
    return re.sub(r"(?:ies|es|s|y|ed|ing|e)$", "", word)
