"""The concept space that ships with the project: six languages, weights in assets/."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import sentencepiece
import torch

from ..errors import TextError, WeightsError
from ..weights import blank, load_weights, read_metadata
from . import Language, Progress, Search, unknown_language
from .choice import nearest
from .codec import Codec
from .decoding import Decoding, Limits
from .languages import LANGUAGES as ALL
from .packed import packed
from .transformer import FIRST_DECODER, FIRST_ENCODER, PAD, Dimensions, TextDecoder, TextEncoder

ASSETS = Path(__file__).parents[2] / "assets"
UNK, BOS, EOS = 1, 2, 3
# In the order of the decoder's language vectors.
LANGUAGES = {code: ALL[code] for code in ("eng_Latn", "deu_Latn", "fra_Latn", "spa_Latn", "ita_Latn", "por_Latn")}
LONGEST = 64  # tokens of a decoded sentence
BEGIN = "▁"  # in front of a piece that begins a word
LAUGHTER = {"ha", "he", "hi", "ho", "ja", "ah", "oh"}


class BuiltinSpace:
    """Encode and decode with the shipped weights; implements ConceptSpace."""

    name = "builtin"
    max_tokens = 60  # trained on sentences up to 62 tokens; longer ones are split before they come here
    languages: Mapping[str, Language] = LANGUAGES

    def __init__(
        self,
        encoder: TextEncoder,
        decoder: TextDecoder,
        tokenizer: Path,
        fingerprint: str,
        foreign: torch.Tensor | None = None,
    ) -> None:
        """`foreign`, bool [languages, vocabulary], says which pieces are never written in a language."""
        self.encoder, self.decoder = encoder, decoder
        self.dim = encoder.dims.concept
        self.tokenizer = sentencepiece.SentencePieceProcessor()
        try:
            self.tokenizer.load(str(tokenizer))
        except (OSError, RuntimeError) as error:
            raise WeightsError(f"The tokenizer {tokenizer.name} is missing or damaged; get a complete copy.") from error
        pieces = self.tokenizer.id_to_piece(list(range(self.tokenizer.get_piece_size())))
        device = decoder.embed.weight.device
        limits = Limits(
            torch.tensor([is_sound(piece) for piece in pieces], device=device),
            None if foreign is None else foreign.to(device),
        )
        decoding = Decoding(packed(decoder), EOS, banned=(PAD, UNK, BOS), limits=limits)
        self.codec = Codec(encoder, decoder, decoding, LONGEST)
        self.fingerprint = fingerprint  # names these weights: vectors of other weights mean something else
        self.identity = f"{self.name} {fingerprint}"

    @classmethod
    def load(cls, folder: Path = ASSETS) -> BuiltinSpace:
        """Load `encoder.safetensors`, `decoder.safetensors`, `tokenizer.model` and, where it is, `pieces.safetensors`.

        Concepts are the encoder's: a decoder trained on leaves them valid. Raises WeightsError where a file is missing
        or damaged, where the decoder was made for another encoder, and the pieces for another tokenizer.
        """
        encoder, decoder = read_towers(folder)
        known = fingerprint(folder / "encoder.safetensors")
        if read_metadata(folder / "decoder.safetensors").get("encoder", known) != known:
            raise WeightsError(
                "decoder.safetensors was made for another encoder.safetensors; get both from one version."
            )
        pieces = folder / "pieces.safetensors"
        foreign = load_foreign(pieces, folder / "tokenizer.model") if pieces.exists() else None
        return cls(encoder, decoder, folder / "tokenizer.model", known, foreign)

    def language(self, code: str) -> int:
        if code not in self.languages:
            raise unknown_language("built-in", code, self.languages)
        return list(self.languages).index(code)

    def tokens(self, text: str) -> list[int]:
        return self.tokenizer.encode(plain(text))

    def count_tokens(self, text: str) -> int:
        return len(self.tokens(text))

    def encode(self, texts: Sequence[str], lang: str, *, progress: Progress | None = None) -> np.ndarray:
        self.language(lang)
        rows = []
        for text in texts:
            ids = self.tokens(text)
            known = self.tokenizer.decode([i for i in ids if i != UNK])
            if not any(c.isalnum() for c in known):
                raise TextError(f"There is nothing to read in {shown(text)}; write at least one word.")
            rows.append([BOS, *ids, EOS])
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
        return self.codec.likelihood([self.tokens(text) for text in texts], vectors, self.language(lang))


def read_towers(folder: Path) -> tuple[TextEncoder, TextDecoder]:
    """The towers in `encoder.safetensors` and `decoder.safetensors`. Raises WeightsError."""
    towers = []
    for name, kind, first in (("encoder", TextEncoder, FIRST_ENCODER), ("decoder", TextDecoder, FIRST_DECODER)):
        path = folder / f"{name}.safetensors"
        state, stated = load_weights(path), read_metadata(path).get("sizes")
        try:
            with blank():
                tower = kind(Dimensions(**json.loads(stated)) if stated else first)
            tower.load_state_dict(state, assign=True)
        except (RuntimeError, TypeError, ValueError) as error:
            raise WeightsError(f"{path.name} holds another model than this version expects; update both.") from error
        towers.append(tower)
    encoder, decoder = towers
    if encoder.dims.concept != decoder.dims.concept:
        raise WeightsError("encoder.safetensors and decoder.safetensors have concepts of different sizes.")
    return encoder, decoder  # type: ignore[return-value]


def sizes(tower: TextEncoder | TextDecoder) -> dict[str, str]:
    """What a tower's weights file says about its sizes, as metadata."""
    return {"sizes": json.dumps(asdict(tower.dims))}


def load_foreign(path: Path, tokenizer: Path) -> torch.Tensor:
    """Which pieces are foreign to each language, bool [languages, vocabulary] (see `training.pieces`).

    Raises WeightsError where the file is damaged or was made for another tokenizer.
    """
    packed = load_weights(path).get("foreign")
    made_for = read_metadata(path).get("tokenizer")
    if packed is None or not tokenizer.exists() or made_for != fingerprint(tokenizer):
        raise WeightsError(f"{path.name} was made for another {tokenizer.name}; get both from one version.")
    bits = np.unpackbits(packed.numpy().astype(np.uint8), axis=1, count=FIRST_DECODER.vocabulary)
    return torch.from_numpy(bits.astype(bool))


def is_sound(piece: str) -> bool:
    """Whether a piece may come three times in a row: laughter, a letter inside a word, or no letters at all."""
    word = piece.removeprefix(BEGIN)
    letters = sum(c.isalpha() for c in word)
    return word.lower() in LAUGHTER or letters == 0 or (letters == len(piece) == 1)


def plain(text: str) -> str:
    """Text as the encoder was trained on it: NFC, one space between words, no control characters."""
    text = unicodedata.normalize("NFC", text)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def shown(text: str) -> str:
    """A text short enough to stand in a message."""
    text = plain(text)
    return repr(text if len(text) <= 40 else text[:37] + "...")


def fingerprint(path: Path) -> str:
    """The first 16 hex digits of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
