"""The concept space that ships with the project: six languages, 512 components, weights in assets/."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import sentencepiece
import torch

from ..errors import LanguageError, TextError, VectorError, WeightsError
from ..weights import load_weights
from . import Language, Progress, Search
from .decoding import Decoding
from .transformer import BUILTIN_DECODER, BUILTIN_ENCODER, PAD, TextDecoder, TextEncoder

ASSETS = Path(__file__).parents[2] / "assets"
UNK, BOS, EOS = 1, 2, 3
LANGUAGES = {
    language.code: language
    for language in (  # in the order of the decoder's language vectors
        Language("eng_Latn", "English", "English"),
        Language("deu_Latn", "German", "Deutsch"),
        Language("fra_Latn", "French", "français"),
        Language("spa_Latn", "Spanish", "español"),
        Language("ita_Latn", "Italian", "italiano"),
        Language("por_Latn", "Portuguese", "português"),
    )
}
BATCH = 32  # sentences decoded or encoded at once


class BuiltinSpace:
    """Encode and decode with the shipped weights; implements ConceptSpace."""

    name = "builtin"
    dim = BUILTIN_ENCODER.concept
    max_tokens = 60  # trained on sentences up to 62 tokens; longer ones are split before they come here
    languages: Mapping[str, Language] = LANGUAGES

    def __init__(
        self,
        encoder: TextEncoder,
        decoder: TextDecoder,
        tokenizer: Path,
        fingerprint: str,
    ) -> None:
        self.encoder, self.decoder = encoder.eval(), decoder.eval()
        self.tokenizer = sentencepiece.SentencePieceProcessor()
        try:
            self.tokenizer.load(str(tokenizer))
        except (OSError, RuntimeError) as error:
            raise WeightsError(f"The tokenizer {tokenizer.name} is missing or damaged; get a complete copy.") from error
        self.decoding = Decoding(decoder, EOS, banned=(PAD, UNK, BOS))
        self.fingerprint = fingerprint  # names these weights: vectors of other weights mean something else
        self.identity = f"{self.name} {fingerprint}"

    @classmethod
    def load(cls, folder: Path = ASSETS) -> BuiltinSpace:
        """Load `space.safetensors` and `tokenizer.model`. Raises WeightsError where they are missing or damaged."""
        path = folder / "space.safetensors"
        state = load_weights(path)
        with torch.device("meta"):
            encoder, decoder = (
                TextEncoder(BUILTIN_ENCODER),
                TextDecoder(BUILTIN_DECODER),
            )
        for tower, prefix in ((encoder, "encoder."), (decoder, "decoder.")):
            part = {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}
            try:
                tower.load_state_dict(part, assign=True)
            except RuntimeError as error:
                raise WeightsError(
                    f"{path.name} holds another model than this version expects; update both."
                ) from error
        return cls(encoder, decoder, folder / "tokenizer.model", fingerprint(path))

    def language(self, code: str) -> int:
        if code not in self.languages:
            known = ", ".join(self.languages)
            raise LanguageError(f"The built-in space does not know the language {code!r}; use one of {known}.")
        return list(self.languages).index(code)

    def tokens(self, text: str) -> list[int]:
        return self.tokenizer.encode(plain(text))

    def count_tokens(self, text: str) -> int:
        return len(self.tokens(text))

    @torch.inference_mode()
    def encode(self, texts: Sequence[str], lang: str, *, progress: Progress | None = None) -> np.ndarray:
        self.language(lang)
        rows = []
        for text in texts:
            ids = self.tokens(text)
            known = self.tokenizer.decode([i for i in ids if i != UNK])
            if not any(c.isalnum() for c in known):
                raise TextError(f"There is nothing to read in {shown(text)}; write at least one word.")
            if len(ids) > BUILTIN_ENCODER.positions - 2:
                raise TextError(
                    f"A sentence of {len(ids)} tokens is too long for one concept; split it ({shown(text)})."
                )
            rows.append([BOS, *ids, EOS])
        result = np.zeros((len(rows), self.dim), np.float32)
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))  # like lengths together: little padding
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            width = max(len(rows[i]) for i in batch)
            padded = torch.tensor([rows[i] + [PAD] * (width - len(rows[i])) for i in batch])
            result[batch] = self.encoder(padded).numpy()
            if progress:
                progress(min(start + BATCH, len(rows)), len(rows))
        return result

    def decode(
        self,
        vectors: np.ndarray,
        lang: str,
        *,
        search: Search = Search(),
        progress: Progress | None = None,
    ) -> list[str]:
        return [found[0] for found in self.alternatives(vectors, lang, search=search, progress=progress)]

    @torch.inference_mode()
    def alternatives(
        self,
        vectors: np.ndarray,
        lang: str,
        *,
        search: Search,
        progress: Progress | None = None,
    ) -> list[list[str]]:
        language = self.language(lang)
        concepts = torch.from_numpy(checked(vectors, self.dim))
        result: list[list[str]] = []
        for start in range(0, len(concepts), BATCH):
            for hypotheses in self.decoding(concepts[start : start + BATCH], language, search, start):
                texts = [self.tokenizer.decode(tokens) for tokens in hypotheses]
                result.append(list(dict.fromkeys(texts)))  # two token sequences can spell one sentence
            if progress:
                progress(len(result), len(concepts))
        return result


def plain(text: str) -> str:
    """Text as the encoder was trained on it: NFC, one space between words, no control characters."""
    text = unicodedata.normalize("NFC", text)
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def shown(text: str) -> str:
    """A text short enough to stand in a message."""
    text = plain(text)
    return repr(text if len(text) <= 40 else text[:37] + "...")


def checked(vectors: np.ndarray, dim: int) -> np.ndarray:
    """Vectors as float32 [N, dim]; raises VectorError where they are not that, or not finite."""
    try:
        array = np.array(vectors, dtype=np.float32)
    except (TypeError, ValueError) as error:
        raise VectorError("The vectors are not an array of numbers.") from error
    if array.ndim != 2 or array.shape[1] != dim:
        raise VectorError(f"The vectors have the shape {array.shape}; this space needs [N, {dim}].")
    if not np.isfinite(array).all():
        raise VectorError("The vectors hold values that are not finite numbers.")
    return array


def fingerprint(path: Path) -> str:
    """The first 16 hex digits of a file's SHA-256."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]
