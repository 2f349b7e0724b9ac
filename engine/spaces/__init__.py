"""Concept spaces: text to concepts and back."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np

from ..errors import ConceptscapeError, LanguageError

# Called with (done, total) as work goes on. Raising `Cancelled` in it stops the work.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Language:
    code: str  # FLORES-200
    english: str
    own: str  # its name in itself
    tag: str = ""  # BCP 47: what browsers and other programs call it


@dataclass(frozen=True)
class Search:
    """How a concept is decoded. The same search with the same seed gives the same sentences.

    "nearest" is a beam search of whose sentences the one is kept whose own concept is nearest to the one decoded.
    """

    kind: Literal["greedy", "beam", "sample", "nearest"] = "greedy"
    beams: int = 5
    temperature: float = 0.8
    top_p: float = 0.9
    seed: int = 0
    max_tokens: int | None = None  # None: what the space's own sentences take at most
    alternatives: int = 1


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
