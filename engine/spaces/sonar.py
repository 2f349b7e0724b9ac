"""SONAR: Meta's official text encoder and decoder, 200 languages, in plain torch.

The architecture is that of the built-in space at other sizes; the weights are loaded from Meta's own files
(see `checkpoint`). SONAR: Duquenne et al. 2023, arXiv 2308.11466.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import sentencepiece
import torch

from ..device import best_device, best_dtype
from ..errors import TextError, WeightsError
from . import Language, Progress, Search, unknown_language
from .checkpoint import load_decoder, load_encoder, read
from .choice import nearest
from .codec import Codec
from .decoding import Decoding
from .languages import LANGUAGES
from .sonar_files import DECODER, ENCODER, OFFICIAL, TOKENIZER, default_folder, fingerprint, verify
from .transformer import PAD, SONAR_DECODER, SONAR_ENCODER, Dimensions

EOS = 3
LONGEST = 510  # tokens of a decoded sentence with its end: all that its positions leave, as in the official pipeline


class Tokenizer:
    """NLLB's: SentencePiece with a padding token put in front and a token for each language behind.

    Raises WeightsError where the file is missing, damaged or of another size than `vocabulary`.
    """

    # After the languages come <MINED_DATA>, <MMT_BT_DATA> and <SMT_BT_DATA>, which only training used.
    MARKS = 3

    def __init__(self, path: Path, vocabulary: int) -> None:
        if not path.is_file():
            raise WeightsError(f"{path.name} is not in {path.parent}; fetch it with `python -m engine sonar fetch`.")
        self.pieces = sentencepiece.SentencePieceProcessor()
        try:
            self.pieces.load(str(path))
        except (OSError, RuntimeError) as error:
            raise WeightsError(f"{path.name} is damaged or no tokenizer; remove it and fetch it again.") from error
        self.size = self.pieces.get_piece_size()
        if 1 + self.size + len(LANGUAGES) + self.MARKS != vocabulary:
            raise WeightsError(f"{path.name} is not SONAR's tokenizer ({self.size:,} pieces); fetch the official file.")
        self.languages = {code: 1 + self.size + index for index, code in enumerate(LANGUAGES)}

    def encode(self, text: str) -> list[int]:
        return [piece + 1 for piece in self.pieces.encode(text)]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids; control tokens, the languages' among them, say nothing."""
        return self.pieces.decode([token - 1 for token in tokens if 1 <= token <= self.size])


class SonarSpace:
    """Encode and decode with Meta's weights; implements ConceptSpace."""

    name = "sonar"
    languages: Mapping[str, Language] = LANGUAGES

    def __init__(self, codec: Codec, tokenizer: Tokenizer, fingerprint: str) -> None:
        self.codec, self.tokenizer = codec, tokenizer
        self.dim = codec.encoder.dims.concept
        self.max_tokens = codec.encoder.dims.positions - 2  # beside the language and the end
        self.fingerprint = fingerprint
        self.identity = f"{self.name} {fingerprint}"

    @classmethod
    def load(
        cls,
        folder: Path | None = None,
        device: str | None = None,
        progress: Progress | None = None,
        dtype: torch.dtype | None = None,
        encoder: Dimensions | None = None,
        decoder: Dimensions | None = None,
    ) -> SonarSpace:
        """Load the three official files of a folder (None: where `sonar fetch` puts them).

        The device is a GPU where there is one, and numbers are bf16 where the device is good at them. Raises
        WeightsError for files that are missing, damaged or swapped, ConceptscapeError for a device that is not there.
        """
        folder, place = folder or default_folder(), best_device(device)
        dtype = dtype or best_dtype(place)
        encoder, decoder = encoder or SONAR_ENCODER, decoder or SONAR_DECODER
        tokenizer = Tokenizer(folder / TOKENIZER.name, encoder.vocabulary)
        parts = encoder.layers + decoder.layers + 2

        def report(before: int) -> Progress:
            return lambda done, total: progress(before + done, parts) if progress else None

        text_encoder = load_encoder(folder / ENCODER.name, encoder, dtype, report(0)).to(place)
        text_decoder = load_decoder(folder / DECODER.name, decoder, dtype, report(encoder.layers + 1)).to(place)
        # Padding alone is banned, as by the official pipeline.
        codec = Codec(text_encoder, text_decoder, Decoding(text_decoder, EOS, banned=(PAD,)), LONGEST)
        return cls(codec, tokenizer, fingerprint(folder))

    def language(self, code: str) -> int:
        if code not in self.languages:
            raise unknown_language(self.name, code, self.languages)
        return self.tokenizer.languages[code]

    def count_tokens(self, text: str) -> int:
        return len(self.tokenizer.encode(text))

    def encode(self, texts: Sequence[str], lang: str, *, progress: Progress | None = None) -> np.ndarray:
        language = self.language(lang)
        rows = []
        for text in texts:
            if not any(c.isalnum() for c in text):
                raise TextError(f"There is nothing to read in {text.strip()[:40]!r}; write at least one word.")
            rows.append([language, *self.tokenizer.encode(text), EOS])
        return self.codec.encode(rows, progress)

    def decode(
        self,
        vectors: np.ndarray,
        lang: str,
        *,
        search: Search = Search(),
        progress: Progress | None = None,
    ) -> list[str]:
        return [found[0] for found in self.alternatives(vectors, lang, search=search, progress=progress)]

    def alternatives(
        self,
        vectors: np.ndarray,
        lang: str,
        *,
        search: Search,
        progress: Progress | None = None,
    ) -> list[list[str]]:
        if search.kind == "nearest":
            return nearest(self, vectors, lang, search, progress)
        return self.codec.decode(vectors, self.language(lang), search, self.tokenizer.decode, progress)

    def likelihood(self, texts: Sequence[str], vectors: np.ndarray, lang: str) -> np.ndarray:
        return self.codec.likelihood([self.tokenizer.encode(text) for text in texts], vectors, self.language(lang))


def check(folder: Path | None = None) -> dict[str, str]:
    """The SHA-256 of each official file of a folder, after its checksum and what is in it were found right.

    Raises WeightsError for the first file that is missing, damaged or another one.
    """
    folder = folder or default_folder()
    sums = {file.name: verify(file, folder) for file in OFFICIAL}
    Tokenizer(folder / TOKENIZER.name, SONAR_ENCODER.vocabulary)
    read(folder / ENCODER.name, SONAR_ENCODER, decoder=False)
    read(folder / DECODER.name, SONAR_DECODER, decoder=True)
    return sums


def memory_needed(dtype: torch.dtype) -> float:
    """Gigabytes (10^9 bytes) that loading takes: both files' 1,632,993,280 numbers."""
    return 1.632993280 * dtype.itemsize
