"""The command line: each command is a thin function over the engine's method of the same name.

Results go to standard output, one a line, as UTF-8. What goes wrong is one sentence on standard error and exit code 2;
Ctrl-C ends with 130 and a closed pipe with 141, both quietly.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from ..errors import ConceptscapeError
from . import evaluation, sentences, sonar, writing
from .options import Parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whatever the system's own encoding is
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    try:
        args = parser().parse_args(argv)
        args.run(args)
        sys.stdout.flush()
    except ConceptscapeError as error:
        print(f"{args.prog}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Nobody reads on, as in `| head`. What is left in the buffer must not be written at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # such as a full disk behind `>`
        print(f"{args.prog}: Reading or writing failed ({error.strerror or error}); check the disk.", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    top = Parser(
        prog="python -m engine",
        description="Text to concepts and back. Each command has --help with an example.",
        allow_abbrev=False,
    )
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=Parser)
    for group in (sentences, writing, evaluation, sonar):
        group.add(commands)
    return top
