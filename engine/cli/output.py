"""What commands write: results one a line, and progress for terminals."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ConceptscapeError

LINE_BREAKS = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")


def emit(*cells: str) -> None:
    """One result a line, whatever line breaks and tabs it holds; several cells are parted by tabs."""
    print(*(LINE_BREAKS.sub(" ", cell).replace("\t", " ") for cell in cells), sep="\t")


def check_folder(file: str) -> None:
    """Raise ConceptscapeError, before the work begins, where a file's folder is missing; `-` is standard output."""
    if file != "-" and not os.path.isdir(Path(file).absolute().parent):  # pathlib raises for a long name
        raise ConceptscapeError(f"There is no folder {Path(file).parent} to write to; make it first.")


def write(file: str, data: bytes) -> None:
    """Write a file, or to standard output for `-`."""
    if file == "-":
        sys.stdout.buffer.write(data)
        return
    try:
        Path(file).write_bytes(data)
    except OSError as error:
        raise ConceptscapeError(f"{file} can't be written ({error.strerror}); choose another file.") from error


@contextmanager
def progress(doing: str, before: int = 0, all_of: int = 0) -> Iterator[Callable[[int, int], None]]:
    """A progress callback that writes to a terminal once the work has taken half a second, and nowhere else.

    Where the work is one part of more, `before` is what was done in front of it and `all_of` what there is in all.
    """
    start, shown = time.monotonic(), False

    def report(done: int, total: int) -> None:
        nonlocal shown
        if sys.stderr.isatty() and time.monotonic() - start > 0.5:
            print(f"\r{doing}: {before + done} of {all_of or total}", end="\x1b[K", file=sys.stderr, flush=True)
            shown = True

    try:
        yield report
    finally:
        if shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
