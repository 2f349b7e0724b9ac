"""Concept spaces: text to concepts and back."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Literal, Protocol, get_args

import numpy as np

from ..errors import ConceptscapeError, LanguageError, SeedError

# Called with (done, total) as work goes on. Raising `Cancelled` in it stops the work.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Language:
    code: str  # FLORES-200
    english: str
    own: str  # its name in itself
    tag: str = ""  # BCP 47: what browsers and other programs call it


Kind = Literal["greedy", "beam", "sample", "nearest"]

# Beams, and alternatives, that a search may have. Memory grows with them: a token of a beam takes 18 kB of keys and
# values in the built-in space and 197 kB in SONAR (fp32), 32 concepts are decoded at once, and each step has a number
# for every word of the vocabulary. So 64 beams take 3 GB in the built-in space, and in SONAR 2 GB for the words and
# 0.4 GB for each token that is written. More would find nothing better: with many beams sentences only become shorter.
MOST_BEAMS = 64
MOST_TOKENS = 4_096  # what any decoder has positions for, and more
HOTTEST = 100.0  # temperature at which all words are equally likely, to float32


@dataclass(frozen=True)
class Search:
    """How a concept is decoded. The same search with the same seed gives the same sentences.

    "nearest" is a beam search of whose sentences the one is kept whose own concept is nearest to the one decoded.

    Raises ConceptscapeError for what is no search (beams and alternatives are 1 to MOST_BEAMS, the temperature is 0 or
    more, top_p above 0 and at most 1), SeedError for a seed that is none.
    """

    kind: Kind = "greedy"
    beams: int = 5
    temperature: float = 0.8
    top_p: float = 0.9
    seed: int = 0
    max_tokens: int | None = None  # None: what the space's own sentences take at most
    alternatives: int = 1

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ConceptscapeError(f"There is no search {self.kind!r}; use one of {', '.join(get_args(Kind))}.")
        wholes = [("beams", MOST_BEAMS), ("alternatives", MOST_BEAMS), ("max_tokens", MOST_TOKENS)]
        for name, most in wholes[: 2 if self.max_tokens is None else 3]:
            if not _is_whole(getattr(self, name)) or not 1 <= getattr(self, name) <= most:
                raise ConceptscapeError(
                    f"A search has {name} from 1 to {most:,}, a whole number, not {getattr(self, name)!r}."
                )
        for name, lowest, highest in (("temperature", 0.0, HOTTEST), ("top_p", 0.0, 1.0)):
            value = getattr(self, name)
            fits = isinstance(value, int | float | np.floating) and lowest <= value <= highest  # NaN is not
            if not fits or (name == "top_p" and value == 0):
                raise ConceptscapeError(f"A search has a {name} from {lowest:g} to {highest:g}, not {value!r}.")
        if not _is_whole(self.seed) or not 0 <= self.seed < 2**63:
            raise SeedError(f"A seed is a whole number from 0 to 2^63 - 1, not {self.seed!r}.")


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


# For whoever can wait: it reads better than greedy decoding (see `evaluation.space`) and takes several times as long.
CHOICE = Search("nearest", beams=6)


class ConceptSpace(Protocol):
    """What the engine needs of a space. Vectors are float32 numpy at this edge."""

    name: str
    identity: str  # the name, and what tells these weights from others: vectors belong to one identity
    dim: int
    max_tokens: int  # the longest sentence that is encoded whole
    languages: Mapping[str, Language]

    def count_tokens(self, text: str) -> int:
        """How many tokens a sentence takes; compare with `max_tokens`."""
        ...

    def encode(self, texts: Sequence[str], lang: str, *, progress: Progress | None = None) -> np.ndarray:
        """Encode sentences into concepts, float32 [N, dim].

        Raises LanguageError for an unknown language, TextError for a text without words.
        """
        ...

    def decode(
        self,
        vectors: np.ndarray,
        lang: str,
        *,
        search: Search = Search(),
        progress: Progress | None = None,
    ) -> list[str]:
        """Decode concepts [N, dim] into one sentence each.

        Raises LanguageError, and VectorError for a wrong shape or values that are not finite.
        """
        ...

    def alternatives(
        self,
        vectors: np.ndarray,
        lang: str,
        *,
        search: Search,
        progress: Progress | None = None,
    ) -> list[list[str]]:
        """Decode each concept into up to `search.alternatives` different sentences, best first."""
        ...

    def likelihood(self, texts: Sequence[str], vectors: np.ndarray, lang: str) -> np.ndarray:
        """How sure the decoder is that concepts [N, dim] say these N texts: mean log-probability of a token, [N]."""
        ...


def unknown_language(space: str, code: str, languages: Mapping[str, Language]) -> LanguageError:
    """The error for a code that a space does not have, with the codes that it has or one that may be meant."""
    if len(languages) <= 10:
        return LanguageError(
            f"The {space} space does not know the language {code!r}; use one of {', '.join(languages)}."
        )
    near = difflib.get_close_matches(code, languages, 1, 0.5) or [next(iter(languages))]
    return LanguageError(
        f"The {space} space does not know the language {code!r}; use one of its {len(languages)} FLORES-200 codes, "
        f"such as {near[0]}."
    )


SPACES = ("builtin", "sonar", "sonar-space")


def load_space(
    name: str = "builtin",
    *,
    sonar_dir: Path | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> ConceptSpace:
    """Load a concept space by name.

    `sonar_dir` (where SONAR's files are, if not where `sonar fetch` puts them) and `device` (None: a GPU, if there is
    one) are for the sonar spaces. Raises ConceptscapeError for a name nobody knows, WeightsError for bad files.
    """
    if name == "builtin":
        from .builtin import BuiltinSpace

        return BuiltinSpace.load()
    if name == "sonar":
        from .sonar import SonarSpace

        return SonarSpace.load(sonar_dir, device, progress)
    if name == "sonar-space":
        from .sonar_space import SonarPackageSpace

        return SonarPackageSpace.load(device)
    raise ConceptscapeError(f"There is no concept space called {name!r}; use one of {', '.join(SPACES)}.")
