"""The ConceptSpace protocol, kept by every space that is available.

sonar is there at a toy's size. sonar-space, too, where its package is installed; where SONAR_PYTHON names an
interpreter that has it (requirements-sonar.txt), it is tested in that one.
"""

import importlib.util
import os
import subprocess
import wave
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_sonar

from engine import Search
from engine.errors import Cancelled, ConceptscapeError, LanguageError, TextError, VectorError
from engine.spaces import ConceptSpace, load_space
from engine.spaces.builtin import EOS
from engine.spaces.languages import LANGUAGES

PACKAGE = importlib.util.find_spec("fairseq2") is not None
NAMES = ["builtin", "sonar", *(["sonar-space"] if PACKAGE else [])]
TEXTS = ["The dog is sleeping in the garden.", "Once upon a time there was a little girl.", "He is tired."]
SHORT = Search(max_tokens=10)


@pytest.fixture(scope="module", params=NAMES)
def space(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ConceptSpace:
    if request.param == "builtin":
        return load_space()
    folder = toy_sonar.save(tmp_path_factory.mktemp("toy"))
    if request.param == "sonar":
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
            return toy_sonar.load(folder)
    import official_sonar
    import torch
    from sonar.inference_pipelines.text import EmbeddingToTextModelPipeline, TextToEmbeddingModelPipeline

    from engine.spaces.sonar_space import SonarPackageSpace

    encoder, decoder, tokenizer = official_sonar.models(folder, list(LANGUAGES))
    embed = TextToEmbeddingModelPipeline(encoder, tokenizer)
    return SonarPackageSpace(
        embed, EmbeddingToTextModelPipeline(decoder, tokenizer), "0.5", torch.device("cpu"), dim=32
    )


def test_what_a_space_is(space: ConceptSpace) -> None:
    assert space.identity.split()[0] == space.name
    assert all(
        code == language.code and language.english and language.own for code, language in space.languages.items()
    )
    assert space.count_tokens(TEXTS[0]) < space.max_tokens < space.count_tokens(TEXTS[0] * 200)


def test_encoding(space: ConceptSpace) -> None:
    vectors = space.encode(TEXTS * 12, "eng_Latn")
    assert vectors.shape == (36, space.dim) and vectors.dtype == np.float32
    assert np.allclose(vectors[:3], np.concatenate([space.encode([text], "eng_Latn") for text in TEXTS]), atol=1e-4)
    assert np.array_equal(space.encode(TEXTS, "eng_Latn"), space.encode(TEXTS, "eng_Latn"))
    assert space.encode([], "eng_Latn").shape == (0, space.dim)


@pytest.mark.parametrize("kind", ["greedy", "beam", "sample", "nearest"])
def test_decoding(kind, space: ConceptSpace) -> None:
    vectors = space.encode(TEXTS, "eng_Latn")
    search = Search(kind, beams=2, seed=3, max_tokens=10)
    found = space.decode(vectors, "fra_Latn", search=search)
    assert len(found) == 3 and all(isinstance(text, str) for text in found)
    assert found == space.decode(vectors, "fra_Latn", search=search)
    assert space.decode(vectors[:0], "fra_Latn", search=search) == []


def test_alternatives_differ(space: ConceptSpace) -> None:
    search = Search("sample", alternatives=3, temperature=1.5, seed=1, max_tokens=10)
    for found in space.alternatives(space.encode(TEXTS, "eng_Latn"), "deu_Latn", search=search):
        assert 1 <= len(set(found)) == len(found) <= 3


def test_likelihood_is_that_of_decoding(space: ConceptSpace) -> None:
    if space.name == "sonar-space":
        with pytest.raises(ConceptscapeError, match="use --space sonar"):
            space.likelihood(TEXTS, space.encode(TEXTS, "eng_Latn"), "eng_Latn")
        return
    vectors = space.encode(TEXTS * 12, "eng_Latn")
    found = space.likelihood(TEXTS * 12, vectors, "eng_Latn")
    assert found.shape == (36,) and (found < 0).all()
    assert np.allclose(found[:3], found[3:6], atol=1e-4)
    alone = [
        space.likelihood([text], vector[None], "eng_Latn")[0] for text, vector in zip(TEXTS, vectors, strict=False)
    ]
    assert np.allclose(found[:3], alone, atol=1e-4)
    assert space.likelihood([], vectors[:0], "eng_Latn").shape == (0,)
    if space.name == "builtin":  # the other's weights are random
        assert (found[:3] > space.likelihood(TEXTS[1:] + TEXTS[:1], vectors[:3], "eng_Latn") + 1).all()
        # The probability of each token after those before it, worked out without the cache.
        said = [*space.tokens(TEXTS[0]), EOS]
        decoder, concept = space.decoder, torch.from_numpy(vectors[:1])
        with torch.inference_mode():
            states = decoder.states(torch.tensor([said[:-1]]), decoder.condition(concept), torch.tensor([0]))
            surprises = torch.nn.functional.cross_entropy(decoder.logits(states)[0], torch.tensor(said))
        assert found[0] == pytest.approx(-float(surprises), abs=1e-4)
    with pytest.raises(LanguageError):
        space.likelihood(TEXTS, vectors[:3], "xxx_Latn")


def test_what_is_refused(space: ConceptSpace) -> None:
    vectors = np.zeros((1, space.dim), np.float32)
    with pytest.raises(LanguageError, match="'xxx_Latn'"):
        space.encode(TEXTS, "xxx_Latn")
    with pytest.raises(LanguageError, match="'xxx_Latn'"):
        space.decode(vectors, "xxx_Latn")
    with pytest.raises(TextError, match="at least one word"):
        space.encode(["…"], "eng_Latn")
    with pytest.raises(TextError, match="too long"):
        space.encode([TEXTS[0] * 200], "eng_Latn")
    for wrong in (vectors[:, 1:], vectors[0], vectors * np.nan):
        with pytest.raises(VectorError):
            space.decode(wrong, "eng_Latn")


def test_progress_is_told_and_can_stop_the_work(space: ConceptSpace) -> None:
    told: list[tuple[int, int]] = []
    vectors = space.encode(TEXTS * 12, "eng_Latn", progress=lambda *counts: told.append(counts))
    assert told[-1] == (36, 36) and len(told) > 1

    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        space.decode(vectors, "eng_Latn", search=SHORT, progress=stop)


@pytest.mark.skipif(not PACKAGE, reason="sonar-space is not installed here")
@pytest.mark.parametrize("space", ["sonar-space"], indirect=True)
def test_speech_that_can_not_be_read(space: ConceptSpace, tmp_path: Path) -> None:
    assert hasattr(space, "encode_speech")
    with pytest.raises(ConceptscapeError, match="no recording"):
        space.encode_speech(tmp_path / "none.wav", "eng_Latn")
    (tmp_path / "noise.wav").write_bytes(b"noise")
    with pytest.raises(LanguageError, match="no speech encoder for Zulu"):
        space.encode_speech(tmp_path / "noise.wav", "zul_Latn")


@pytest.mark.skipif(not PACKAGE, reason="sonar-space is not installed here")
@pytest.mark.parametrize("space", ["sonar-space"], indirect=True)
def test_speech_becomes_a_concept(space: ConceptSpace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the package's own pipeline, from real recordings; the encoder's weights alone are random."""
    import official_sonar
    from sonar.inference_pipelines import speech

    assert hasattr(space, "encode_speech")
    cards, model, pipeline = [], official_sonar.speech_encoder(), speech.SpeechToEmbeddingModelPipeline

    def listening(card: str, device: object) -> speech.SpeechToEmbeddingModelPipeline:
        cards.append(card)
        return pipeline(model, device)

    monkeypatch.setattr(speech, "SpeechToEmbeddingModelPipeline", listening)
    heard = []
    for name, pitch in (("low", 220), ("high", 880)):
        with wave.open(str(tmp_path / f"{name}.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            tone = 8000 * np.sin(2 * np.pi * pitch * np.arange(16_000) / 16_000)
            file.writeframes(tone.astype("<i2").tobytes())
        heard.append(space.encode_speech(tmp_path / f"{name}.wav", "eng_Latn"))
    assert all(vector.shape == (1, space.dim) and vector.dtype == np.float32 for vector in heard)
    assert np.isfinite(heard).all() and not np.allclose(*heard)
    space.encode_speech(tmp_path / "low.wav", "zho_Hans")
    assert cards == ["sonar_speech_encoder_eng", "sonar_speech_encoder_eng", "sonar_speech_encoder_cmn"]
    (tmp_path / "noise.wav").write_bytes(b"noise")
    with pytest.raises(ConceptscapeError, match=r"noise\.wav can't be read as a recording"):
        space.encode_speech(tmp_path / "noise.wav", "eng_Latn")


@pytest.mark.skipif(PACKAGE, reason="sonar-space is installed here")
def test_a_missing_package_is_told() -> None:
    with pytest.raises(
        ConceptscapeError, match=r"sonar-space can't be used here.*--space sonar, which needs no package"
    ):
        load_space("sonar-space")


@pytest.mark.sonar_package
@pytest.mark.skipif("SONAR_PYTHON" not in os.environ, reason="SONAR_PYTHON names no interpreter with sonar-space")
def test_the_package_keeps_the_protocol() -> None:
    """These same tests in the other interpreter."""
    environment = {name: value for name, value in os.environ.items() if name != "SONAR_PYTHON"}
    command = [os.environ["SONAR_PYTHON"], "-m", "pytest", "--noconftest", "-k", "sonar-space", Path(__file__)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
