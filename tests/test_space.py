import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from engine import Engine, Search
from engine.errors import ConceptscapeError, LanguageError, TextError, VectorError, WeightsError
from engine.spaces import load_space
from engine.spaces.builtin import ASSETS, BuiltinSpace
from engine.spaces.decoding import forbid_repeats
from engine.spaces.transformer import (
    FIRST_DECODER,
    SONAR_DECODER,
    SONAR_ENCODER,
    Cache,
    TextDecoder,
    TextEncoder,
)
from engine.weights import blank, load_weights, quantize, read_metadata, save_weights

TEXTS = ["The dog is sleeping in the garden.", "Once upon a time there was a little girl.", "He is tired."]


def test_simple_sentences_come_back(e: Engine) -> None:
    vectors = e.encode(TEXTS, "eng_Latn")
    assert vectors.shape == (3, 512) and vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), np.sqrt(512), rtol=1e-3)
    assert e.decode(vectors, "eng_Latn") == TEXTS
    assert e.decode(e.encode(["Der Hund schläft im Garten."], "deu_Latn"), "eng_Latn") == [TEXTS[0]]


def test_batches_do_not_change_a_concept(e: Engine) -> None:
    alone = np.concatenate([e.encode([text], "eng_Latn") for text in TEXTS])
    assert np.allclose(alone, e.encode(TEXTS * 20, "eng_Latn")[:3], atol=1e-4)


def test_every_search_is_repeatable(e: Engine) -> None:
    vectors = e.encode(TEXTS, "eng_Latn")
    for search in (
        Search("beam", alternatives=3),
        Search("sample", alternatives=3, temperature=2.0, top_p=0.99, seed=5),
    ):
        found = e.alternatives(vectors, "eng_Latn", search)
        assert found == e.alternatives(vectors, "eng_Latn", search)
        assert [len(set(f)) for f in found] == [len(f) for f in found]
        assert max(map(len, found)) > 1
    hot = Search("sample", temperature=2.0, top_p=0.99)
    outputs = {e.decode(vectors[:1], "eng_Latn", replace(hot, seed=seed))[0] for seed in range(6)}
    assert len(outputs) > 1


def test_sampling_does_not_depend_on_the_batch(e: Engine) -> None:
    vectors = e.encode(TEXTS, "eng_Latn")
    search = Search("sample", temperature=1.0, seed=3)
    assert e.decode(vectors[:1], "eng_Latn", search)[0] == e.decode(vectors, "eng_Latn", search)[0]


def test_the_cache_gives_what_a_whole_pass_gives() -> None:
    torch.manual_seed(0)
    decoder = TextDecoder(replace(FIRST_DECODER, vocabulary=50, layers=2)).eval()
    tokens, concepts, language = torch.randint(3, 50, (2, 7)), torch.randn(2, 512), torch.tensor([0, 3])
    with torch.inference_mode():
        conditions = decoder.condition(concepts)
        whole = decoder.states(tokens, conditions, language)
        cache = Cache(decoder.dims, 2, 9, concepts)
        steps = [decoder.states(tokens[:, :0], conditions, language, cache)]
        steps += [decoder.states(tokens[:, i : i + 1], conditions, cache=cache) for i in range(7)]
    assert torch.allclose(whole, torch.cat(steps, 1), atol=1e-5)


def test_no_run_of_tokens_comes_twice() -> None:
    logits = torch.zeros(2, 9)
    forbid_repeats(logits, torch.tensor([[1, 2, 3, 4, 1, 2, 3], [1, 2, 3, 4, 5, 6, 7]]))
    assert logits[0, 4] == -torch.inf and torch.isfinite(logits).sum() == 17


def test_sonar_sizes_fit_the_same_code() -> None:
    with torch.device("meta"):
        encoder, decoder = TextEncoder(SONAR_ENCODER), TextDecoder(SONAR_DECODER)
    # Meta's own encoder figure (facebookresearch/SONAR).
    assert sum(p.numel() for p in encoder.parameters()) == 766_091_264
    assert decoder.embed.weight.shape == (256_206, 1024) and len(decoder.layers) == 24


@pytest.mark.parametrize(
    "vectors",
    [np.zeros((2, 3)), np.zeros(512), np.full((1, 512), np.nan), np.array([["a"] * 512]), np.zeros((1, 1, 512))],
)
def test_vectors_that_are_no_concepts(e: Engine, vectors: np.ndarray) -> None:
    with pytest.raises(VectorError):
        e.decode(vectors, "eng_Latn")


def test_nothing_to_decode_is_nothing(e: Engine) -> None:
    assert e.decode(np.zeros((0, 512), np.float32), "eng_Latn") == []
    assert e.encode([], "eng_Latn").shape == (0, 512)


def test_what_can_not_be_encoded(e: Engine) -> None:
    with pytest.raises(LanguageError, match="jpn_Jpan"):
        e.encode(["Hello."], "jpn_Jpan")
    with pytest.raises(TextError, match="at least one word"):
        e.encode(["😀"], "eng_Latn")
    with pytest.raises(TextError, match="too long"):
        e.encode(["very long words " * 200], "eng_Latn")
    with pytest.raises(ConceptscapeError, match="no concept space called 'nowhere'"):
        load_space("nowhere")


def test_progress_is_told_and_can_stop_the_work(e: Engine) -> None:
    from engine.errors import Cancelled

    told: list[tuple[int, int]] = []
    e.encode(TEXTS * 30, "eng_Latn", progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (90, 90) and len(told) == 3

    def stop(done: int, total: int) -> None:
        raise Cancelled

    with pytest.raises(Cancelled):
        e.decode(e.encode(TEXTS, "eng_Latn"), "eng_Latn", progress=stop)


def test_missing_and_damaged_weights(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="missing"):
        BuiltinSpace.load(tmp_path)
    shutil.copy(ASSETS / "tokenizer.model", tmp_path)
    whole = (ASSETS / "encoder.safetensors").read_bytes()
    (tmp_path / "encoder.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError, match="damaged"):
        BuiltinSpace.load(tmp_path)
    save_weights(tmp_path / "encoder.safetensors", {"embed.weight": torch.zeros(3, 3)})
    with pytest.raises(WeightsError, match="another model"):
        BuiltinSpace.load(tmp_path)
    (tmp_path / "encoder.safetensors").write_bytes(whole)
    own = load_weights(ASSETS / "decoder.safetensors")
    save_weights(tmp_path / "decoder.safetensors", own, {"encoder": "0123456789abcdef"})
    with pytest.raises(WeightsError, match=r"made for another encoder\.safetensors"):
        BuiltinSpace.load(tmp_path)
    save_weights(tmp_path / "decoder.safetensors", own)
    (tmp_path / "tokenizer.model").write_bytes(b"not a tokenizer")
    with pytest.raises(WeightsError, match=r"tokenizer\.model"):
        BuiltinSpace.load(tmp_path)


def test_quantized_weights_are_close(tmp_path: Path) -> None:
    weight = torch.randn(64, 128)
    values, scale = quantize(weight)
    assert (values * scale - weight).abs().max() <= scale.max() / 2 + 1e-6
    save_weights(tmp_path / "w.safetensors", {"matrix": weight, "vector": torch.arange(5.0)})
    back = load_weights(tmp_path / "w.safetensors")
    assert torch.equal(back["vector"], torch.arange(5.0))
    assert torch.nn.functional.cosine_similarity(back["matrix"].flatten(), weight.flatten(), dim=0) > 0.9999


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    """A fingerprint is of a file's bytes: it must not change when weights are written again."""
    weights = {"a": torch.randn(20, 20), "b": torch.ones(3)}
    about = {name: f"{name} ä" for name in ("languages", "sizes", "steps", "encoder", "bleu", "model", "facts")}
    found = set()
    for number in range(12):
        path = tmp_path / f"{number}.safetensors"
        save_weights(path, weights, dict(sorted(about.items(), reverse=number % 2 == 0)))
        found.add(path.read_bytes())
        assert read_metadata(path) == about and torch.equal(load_weights(path)["b"], weights["b"])
    assert len(found) == 1


def test_the_shipped_weights_say_what_int8_costs() -> None:
    """Scores of the same weights in fp32 and as they are packed, on held-out pairs (see `training.space.package`)."""
    scores = json.loads(read_metadata(ASSETS / "decoder.safetensors")["bleu"])
    exact, packed = (list(scores[kind].values()) for kind in ("fp32", "int8"))
    assert len(exact) == len(packed) == 5 and min(packed) > 10
    assert sum(exact) / 5 - sum(packed) / 5 <= 0.5


def test_assets_stay_small() -> None:
    names = ("encoder.safetensors", "decoder.safetensors", "tokenizer.model")
    assert sum((ASSETS / name).stat().st_size for name in names) <= 64 * 2**20


def test_a_blank_tower_has_shapes_and_takes_weights() -> None:
    """Without memory, without drawing, and without what torch imports for that."""
    dims = replace(FIRST_DECODER, vocabulary=50, layers=2)
    whole = TextDecoder(dims)
    with blank():
        tower = TextDecoder(dims)
    assert all(parameter.device.type == "meta" for parameter in tower.parameters())
    assert torch.empty(1).device.type == "cpu" and nn.init.ones_(torch.zeros(2)).tolist() == [1, 1]
    tower.load_state_dict(whole.state_dict(), assign=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), tower.parameters(), strict=True))
    script = "import sys; from engine.spaces import load_space; load_space(); sys.exit('sympy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
