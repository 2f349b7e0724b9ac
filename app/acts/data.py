"""What an act is asked with. It comes from a browser, so each value is checked as it is read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.errors import ConceptscapeError


class RequestError(ConceptscapeError):
    """The page asked for something in a form that the program does not know."""


class Data:
    """The values of a request. Every method raises RequestError for a value that is not there or of another type."""

    def __init__(self, values: object) -> None:
        if not isinstance(values, Mapping):
            raise RequestError("The page asked for nothing that can be read; reload it.")
        self._values: Mapping[str, Any] = values

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def _of(self, name: str, *kinds: type) -> Any:
        value = self._values.get(name)
        if not isinstance(value, kinds) or isinstance(value, bool) is not (bool in kinds):
            raise RequestError(f"The page asked with a “{name}” that can't be read; reload it.")
        return value

    def text(self, name: str) -> str:
        return str(self._of(name, str))

    def maybe(self, name: str) -> str | None:
        """A text, or None where there is none."""
        return (self.text(name) or None) if name in self else None

    def flag(self, name: str) -> bool:
        return bool(self._of(name, bool))

    def whole(self, name: str) -> int:
        return int(self._of(name, int))

    def number(self, name: str) -> float:
        value = self._of(name, int, float)
        if not abs(value) < 1e300:  # also false for what is no number
            raise RequestError(f"The page asked with a “{name}” that is no sensible number; reload it.")
        return float(value)

    def _all(self, name: str, read: str) -> list[Any]:
        items = self._of(name, list)
        return [getattr(Data({name: item}), read)(name) for item in items]

    def texts(self, name: str, count: int | None = None) -> list[str]:
        found = self._all(name, "text")
        if count is not None and len(found) != count:
            raise RequestError(f"The page asked with {len(found)} sentences where {count} are needed; reload it.")
        return found

    def numbers(self, name: str) -> list[float]:
        return self._all(name, "number")

    def part(self, name: str) -> Data:
        """The values under a name; none where there are none."""
        return Data(self._values.get(name) or {})
