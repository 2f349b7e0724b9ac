"""SONAR through Meta's own package, sonar-space, for those who have it (requirements-sonar.txt)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..device import best_device
from ..errors import ConceptscapeError, LanguageError, TextError
from . import Language, Progress, Search, unknown_language
from .choice import nearest
from .codec import checked
from .languages import LANGUAGES

SENTENCES = 32  # handed to a pipeline at once
CARDS = ("text_sonar_basic_encoder", "text_sonar_basic_decoder")


class SonarPackageSpace:
    """The package's pipelines behind ConceptSpace. Its beams give one sentence, its sampling one a draw."""

    name = "sonar-space"
    max_tokens = 512
    languages: Mapping[str, Language] = LANGUAGES

    def __init__(self, encoder: Any, decoder: Any, version: str, device: torch.device, dim: int = 1024) -> None:
        """`encoder` and `decoder` are a TextToEmbeddingModelPipeline and an EmbeddingToTextModelPipeline."""
        self.encoder, self.decoder, self.device, self.dim = encoder, decoder, device, dim
        self.identity = f"{self.name} {version}"
        self._count = encoder.tokenizer.create_raw_encoder()

    @classmethod
    def load(cls, device: str | None = None) -> SonarPackageSpace:
        """Load the package's own models; it downloads what it lacks. Raises ConceptscapeError where it is missing."""
        try:
            from sonar.inference_pipelines.text import EmbeddingToTextModelPipeline, TextToEmbeddingModelPipeline

            version = metadata.version("sonar-space")
        except (ImportError, OSError) as error:  # OSError: libsndfile is missing
            raise ConceptscapeError(
                f"The package sonar-space can't be used here ({error}); install requirements-sonar.txt in an "
                "environment of its own, or use --space sonar, which needs no package."
            ) from error

        place = best_device(device)
        encoder_card, decoder_card = CARDS
        try:
            encoder = TextToEmbeddingModelPipeline(encoder_card, encoder_card, device=place)
            decoder = EmbeddingToTextModelPipeline(decoder_card, encoder_card, device=place)
        except Exception as error:  # the package's own kinds, many of them
            raise ConceptscapeError(
                f"The package sonar-space can't load its models ({str(error).splitlines()[0]}); it needs the network "
                "the first time."
            ) from error
        return cls(encoder, decoder, version, place)

    def language(self, code: str) -> str:
        if code not in self.languages:
            raise unknown_language(self.name, code, self.languages)
        return code

    def count_tokens(self, text: str) -> int:
        return len(self._count(text))

    def encode(self, texts: Sequence[str], lang: str, *, progress: Progress | None = None) -> np.ndarray:
        self.language(lang)
        for text in texts:
            if not any(c.isalnum() for c in text):
                raise TextError(f"There is nothing to read in {text.strip()[:40]!r}; write at least one word.")
            if self.count_tokens(text) > self.max_tokens:  # the package would cut it
                raise TextError(
                    f"A sentence of more than {self.max_tokens} tokens is too long for one concept; split it."
                )
        result = np.zeros((len(texts), self.dim), np.float32)
        for start in range(0, len(texts), SENTENCES):
            batch = list(texts[start : start + SENTENCES])
            result[start : start + len(batch)] = self.encoder.predict(batch, lang).float().cpu().numpy()
            if progress:
                progress(start + len(batch), len(texts))
        return result

    def encode_speech(self, path: Path, lang: str) -> np.ndarray:
        """A recording of one sentence (16 kHz, mono) as a concept, float32 [1, dim].

        The package has a speech encoder for each of some 60 languages and loads the one of `lang` (FLORES-200).
        Raises LanguageError where there is none, ConceptscapeError where the recording can't be read.
        """
        from sonar.inference_pipelines.speech import SpeechToEmbeddingModelPipeline

        if not path.is_file():
            raise ConceptscapeError(f"There is no recording {path}; check its name.")
        card = f"sonar_speech_encoder_{SPEECH.get(self.language(lang)[:3], lang[:3])}"
        try:
            pipeline = SpeechToEmbeddingModelPipeline(card, device=self.device)
        except Exception as error:
            raise LanguageError(
                f"The package has no speech encoder for {self.languages[lang].english}, or can't load it ({error})."
            ) from error
        try:
            return pipeline.predict([str(path)]).float().cpu().numpy()
        except Exception as error:
            raise ConceptscapeError(f"{path.name} can't be read as a recording ({error}); use 16 kHz WAV.") from error

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
        if search.kind == "nearest":  # of one sentence; the package's beams give no more
            return nearest(self, vectors, lang, search, progress)
        self.language(lang)
        concepts = torch.from_numpy(checked(vectors, self.dim)).to(self.device)
        options: dict[str, Any] = {"max_gen_len": (0, search.max_tokens)} if search.max_tokens else {}
        draws = 1
        if search.kind == "sample":
            from fairseq2.generation.sampling.sampler import TopPSampler

            options |= {"sampler": TopPSampler(search.top_p), "temperature": search.temperature}
            draws = search.alternatives
        else:
            options["beam_size"] = search.beams if search.kind == "beam" else 1
        result: list[list[str]] = []
        for start in range(0, len(concepts), SENTENCES):
            batch = concepts[start : start + SENTENCES]
            drawn = []
            for draw in range(draws):
                torch.manual_seed(search.seed + draw)
                drawn.append(self.decoder.predict(batch, lang, batch_size=SENTENCES, **options))
            result += [list(dict.fromkeys(texts)) for texts in zip(*drawn, strict=True)]
            if progress:
                progress(len(result), len(concepts))
        return result

    def likelihood(self, texts: Sequence[str], vectors: np.ndarray, lang: str) -> np.ndarray:
        raise ConceptscapeError("The package sonar-space does not say how likely a text is; use --space sonar.")


# The speech encoders go by the same three letters as FLORES-200, but for Chinese.
SPEECH = {"zho": "cmn"}
