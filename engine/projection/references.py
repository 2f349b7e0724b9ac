"""The reference sentences of a landscape as text, and how they are packed into its file."""

from __future__ import annotations

import json
import lzma
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

LARGEST = 64 * 2**20  # bytes of unpacked text: a damaged or foreign file must not fill the memory


@dataclass(frozen=True)
class Source:
    """Where sentences come from, as the page shows it: author and title (or collection), and the licence."""

    credit: str
    licence: str


@dataclass(frozen=True)
class Reference:
    """A sentence that the landscape was fitted on."""

    text: str
    source: Source


def pack(references: Sequence[Reference]) -> tuple[dict[str, Tensor], list[list[str]]]:
    """References as tensors and a table of their sources (credit, licence), for the file's metadata.

    `texts`, uint8 [bytes], is a JSON list of all sentences in UTF-8, compressed by LZMA: a third of its size, and any
    Unicode comes back as it was. `source`, int64 [R], is each sentence's row of the table.
    """
    table = sorted({reference.source for reference in references}, key=lambda source: (source.licence, source.credit))
    places = {source: i for i, source in enumerate(table)}
    # "surrogatepass": half of a surrogate pair is no valid Unicode, but a Python string may hold one.
    said = json.dumps([r.text for r in references], ensure_ascii=False).encode("utf-8", "surrogatepass")
    packed = torch.frombuffer(bytearray(lzma.compress(said, preset=9)), dtype=torch.uint8)
    rows = torch.tensor([places[reference.source] for reference in references])
    return {"texts": packed, "source": rows}, [[source.credit, source.licence] for source in table]


def unpack(texts: Tensor, rows: Tensor, table: Sequence[Sequence[str]]) -> list[Reference]:
    """What `pack` has packed. Raises ValueError where it is something else."""
    decompressor = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    try:
        said = decompressor.decompress(texts.to(torch.uint8).numpy().tobytes(), LARGEST)
    except (lzma.LZMAError, EOFError) as error:
        raise ValueError("the texts are damaged") from error
    if not decompressor.eof:
        raise ValueError("the texts are cut off or too long")
    sources = [Source(credit, licence) for credit, licence in table]
    sentences = json.loads(said.decode("utf-8", "surrogatepass"))
    if len(sentences) != len(rows) or not all(isinstance(sentence, str) for sentence in sentences):
        raise ValueError("the texts are not one a reference")
    return [Reference(text, sources[row]) for text, row in zip(sentences, rows.long().tolist(), strict=True)]
