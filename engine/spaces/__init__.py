"""Concept spaces: text to concepts and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from ..errors import ConceptscapeError

# Called with (done, total) as work goes on. Raising `Cancelled` in it stops the work.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Language:
    code: str  # FLORES-200
    english: str
    own: str  # its name in itself


@dataclass(frozen=True)
class Search:
    """How a concept is decoded. The same search with the same seed gives the same sentences."""

    kind: Literal["greedy", "beam", "sample"] = "greedy"
    beams: int = 5
    temperature: float = 0.8
    top_p: float = 0.9
    seed: int = 0
    max_tokens: int | None = None  # None: what the space's own sentences take at most
    alternatives: int = 1


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


def load_space(name: str = "builtin") -> ConceptSpace:
    """Load a concept space by name. Raises ConceptscapeError for a name nobody knows, WeightsError for bad files."""
    if name == "builtin":
        from .builtin import BuiltinSpace

        return BuiltinSpace.load()
    raise ConceptscapeError(f"There is no concept space called {name!r}; use builtin.")
