"""What the recipes' command lines share: every number of a recipe is an option, an error is one sentence."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import ConceptscapeError

Recipe = TypeVar("Recipe")


def answered(main: Callable[..., None]) -> Callable[..., int]:
    """A command whose expected failures are said on stderr: it returns 0, or 2 for one of those."""

    @functools.wraps(main)
    def command(arguments: list[str] | None = None) -> int:
        try:
            main(arguments)
        except ConceptscapeError as error:
            print(error, file=sys.stderr)
            return 2
        return 0

    return command


def add_recipe(parser: argparse.ArgumentParser, recipe: type[Any]) -> None:
    """An option for each number of a recipe, a dataclass."""
    for field in dataclasses.fields(recipe):
        kind = float if field.default is None else type(field.default)
        name = f"--{field.name.replace('_', '-')}"
        parser.add_argument(name, type=kind, default=field.default, help=f"{field.default}")


def chosen(args: argparse.Namespace, recipe: type[Recipe]) -> Recipe:
    """The recipe that the options name."""
    return recipe(**{field.name: getattr(args, field.name) for field in dataclasses.fields(recipe)})  # type: ignore[arg-type]
