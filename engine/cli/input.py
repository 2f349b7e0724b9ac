"""What commands read: files or standard input, as text, lines or vectors."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from .. import text
from ..errors import ConceptscapeError, VectorError


def read(file: str) -> tuple[bytes, str]:
    """The bytes of a file, or of standard input for `-`, and what to call it in messages."""
    if file == "-":
        return sys.stdin.buffer.read(), "Standard input"
    try:
        return Path(file).read_bytes(), file
    except FileNotFoundError as error:
        raise ConceptscapeError(f"There is no file {file}; check its name.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise ConceptscapeError(f"{file} can't be read ({reason}); choose another file.") from error


def read_text(file: str) -> str:
    return text.from_bytes(*read(file))


def split_lines(body: str) -> list[str]:
    """Lines as other programs count them: ended by a line feed alone, which the last line may lack."""
    lines = body.removeprefix("\ufeff").split("\n")
    if not lines[-1]:
        lines.pop()
    return [line.removesuffix("\r") for line in lines]


def read_vectors(file: str) -> np.ndarray:
    """Vectors from a .npy file; the space checks their shape and values. Raises VectorError for anything else."""
    data, name = read(file)
    try:
        found = np.load(io.BytesIO(data), allow_pickle=False)
    except Exception as error:  # numpy raises many kinds of errors for a damaged header
        raise VectorError(f"{name} is not a .npy file of numbers; make one with `encode`.") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu":
        raise VectorError(f"{name} is not a .npy file of numbers; make one with `encode`.")
    with np.errstate(over="ignore"):  # too large for float32 becomes infinite, which the space refuses
        return found.astype(np.float32)


@contextmanager
def at_line(number: int) -> Iterator[None]:
    """Name the line in the errors of what is done with it."""
    try:
        yield
    except ConceptscapeError as error:
        message = str(error)
        raise type(error)(f"Line {number}: {message[0].lower() + message[1:]}") from error
