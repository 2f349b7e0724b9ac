"""JSON as it comes from outside: plain values, and nothing that would fail later on."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

DIGITS = 19  # of a whole number: what 64 bits hold
LARGEST = 3.4e38  # a number that float32 still holds


def parse(data: str | bytes) -> Any:
    """The value that JSON stands for; its numbers are finite, and no name stands twice in one object.

    Raises ValueError in a few words for anything else, such as damaged, cut-off or very deeply nested JSON. Strings
    may still hold half of a character (a lone surrogate), which JSON allows.
    """
    try:
        return json.loads(
            data, object_pairs_hook=_object, parse_int=_whole, parse_float=_real, parse_constant=_no_number
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def is_number(value: object) -> bool:
    """Whether a value is a number that float32 holds; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST


def is_whole(value: object, lowest: int, highest: int) -> bool:
    """Whether a value is a whole number from `lowest` to `highest`; true and false are none."""
    return isinstance(value, int) and not isinstance(value, bool) and lowest <= value <= highest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} stands in it twice")
        found[name] = value
    return found


def _whole(digits: str) -> int:
    if len(digits.removeprefix("-")) > DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _real(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"the number {digits:.20} is too large")
    return number


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")
