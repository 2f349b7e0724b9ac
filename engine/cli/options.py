"""How commands and their options are declared, and the engine that they ask for."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeAlias

from .. import Engine, load
from ..errors import elided
from ..spaces import SPACES
from .output import progress


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {elided(message)}; see {self.prog} --help.\n")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"  # where a group adds its commands


def whole(lowest: int, highest: int) -> Callable[[str], int]:
    """The type of an option that is a whole number from `lowest` to `highest`."""

    def parse(value: str) -> int:
        if not re.fullmatch(r"-?[0-9]{1,19}", value) or not lowest <= int(value) <= highest:
            raise argparse.ArgumentTypeError(f"{value!r} is not a whole number from {lowest} to {highest}")
        return int(value)

    return parse


SEED = whole(0, 2**63 - 1)


def command(
    under: Commands,
    run: Callable[[argparse.Namespace], None],
    name: str,
    about: str,
    example: str,
) -> argparse.ArgumentParser:
    """Declare a command that calls `run`; the example ends its help."""
    made = under.add_parser(
        name,
        help=about,
        description=about,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.set_defaults(run=run, prog=made.prog)
    return made


def add_language(made: argparse.ArgumentParser, what: str, option: str = "--lang", dest: str = "lang") -> None:
    made.add_argument(option, dest=dest, required=True, metavar="CODE", help=what)


def add_space(made: argparse.ArgumentParser) -> None:
    made.add_argument("--space", choices=SPACES, default="builtin", help="the concept space (builtin)")
    add_sonar_dir(made)
    made.add_argument("--device", metavar="NAME", help="where SONAR computes: cpu, cuda, mps (a GPU, if there is one)")


def add_sonar_dir(made: argparse.ArgumentParser) -> None:
    made.add_argument("--sonar-dir", type=Path, metavar="DIR", help="where SONAR's files are (the cache folder)")


def opened(args: argparse.Namespace) -> Engine:
    """The engine on the concept space that was asked for."""
    with progress(f"Loading {args.space}") as report:
        return load(args.space, sonar_dir=args.sonar_dir, device=args.device, progress=report)
