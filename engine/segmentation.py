"""Text to sentences, and back to the very same text.

A `Piece` is a sentence and the spacing after it; joined again, the pieces are the text, to the character.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from .spaces.languages import LANGUAGES
from .text import has_words

BLANK_LINES = re.compile(r"((?:\r\n|\r|\n)[^\S\r\n]*(?:(?:\r\n|\r|\n)[^\S\r\n]*)+)")
LINE_END = re.compile(r"(\r\n|\r|\n)")
CLOSED = re.compile(r"[.!?…:;][\"'”’»)\]]*\s*$")
CLAUSE = re.compile(r"[,;:—–)]\s+|\s+[—–(]\s*")
WRAPPED = 45  # a line at least this long that ends in no full stop was broken by an editor, not by its writer


@dataclass(frozen=True)
class Piece:
    text: str
    after: str


@dataclass(frozen=True)
class Segmented:
    before: str  # what stands in front of the first sentence
    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        return self.before + "".join(p.text + p.after for p in self.pieces)


def paragraphs(text: str) -> list[str]:
    """The text in runs that no sentence crosses: blank lines end one, and so does a line that was ended on purpose."""
    runs: list[str] = []
    for block in BLANK_LINES.split(text):
        run = ""
        for part in LINE_END.split(block):
            ended = part in ("\r\n", "\r", "\n") and (len(run) < WRAPPED or CLOSED.search(run) is not None)
            run += part
            if ended:
                runs.append(run)
                run = ""
        if run:
            runs.append(run)
    return runs


def sentences(run: str, language: str) -> list[str]:
    """Cut one paragraph after each sentence; the cuts join to `run` again."""
    import sentencex  # here, so that a machine that only trains does without it

    cuts, at = [], 0
    for sentence in sentencex.segment(language, run):
        found = run.find(sentence.strip(), at)
        if found < 0:  # the segmenter changed a character; leave the rest in one piece
            break
        end = found + len(sentence.strip())
        cuts.append(run[at:end])
        at = end
    if at < len(run):
        cuts.append(run[at:])
    return cuts


def split_long(text: str, fits: Callable[[str], bool]) -> list[str]:
    """Halve a sentence at the clause border nearest its middle, or else at a space, until every part fits."""
    if fits(text) or len(text) < 2:
        return [text]
    middle = len(text) / 2
    for borders in (CLAUSE.finditer(text), re.finditer(r"\s+", text)):
        inner = [m.end() for m in borders if len(text) / 10 < m.end() < len(text) * 9 / 10]
        if inner:
            cut = min(inner, key=lambda i: abs(i - middle))
            break
    else:
        cut = int(middle)
    return split_long(text[:cut], fits) + split_long(text[cut:], fits)


def segment(text: str, language: str, fits: Callable[[str], bool] = lambda _: True) -> Segmented:
    """Cut `text` into sentences of a language (a FLORES-200 code).

    `fits` says whether a sentence is short enough to be encoded; longer ones are split at clause borders.
    What holds no letter or digit becomes spacing.
    """
    short = TWO_LETTERS.get(language[:3], language[:3])
    before = ""
    pieces: list[Piece] = []
    for run in paragraphs(text):
        for sentence in sentences(run, short):
            for part in split_long(sentence, fits):
                if not has_words(part):
                    if pieces:
                        pieces[-1] = Piece(pieces[-1].text, pieces[-1].after + part)
                    else:
                        before += part
                    continue
                body = part.strip().strip("\ufeff")
                start = part.index(body)
                if pieces:
                    pieces[-1] = Piece(pieces[-1].text, pieces[-1].after + part[:start])
                else:
                    before += part[:start]
                pieces.append(Piece(body, part[start + len(body) :]))
    return Segmented(before, tuple(pieces))


# The segmenter names languages by their two-letter codes, where they have one.
TWO_LETTERS = {code[:3]: language.tag.split("-")[0] for code, language in LANGUAGES.items()}
