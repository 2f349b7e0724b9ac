import json
import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import toy_sonar

from engine import Search
from engine.device import best_device
from engine.errors import ConceptscapeError, LanguageError, TextError, VectorError, WeightsError
from engine.spaces import checkpoint
from engine.spaces.builtin import ASSETS
from engine.spaces.languages import LANGUAGES
from engine.spaces.sonar import SonarSpace
from engine.spaces.sonar_files import DECODER, ENCODER, TOKENIZER
from engine.spaces.transformer import SONAR_DECODER, SONAR_ENCODER, TextDecoder, TextEncoder

OFFICIAL = Path(__file__).parent / "official_sonar.py"
FIXTURE = toy_sonar.DATA / "sonar.npz"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory):
    """A cache folder of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_sonar.save(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def space(folder: Path) -> SonarSpace:
    return toy_sonar.load(folder)


# Parity


def compare(space: SonarSpace, official: dict[str, np.ndarray]) -> None:
    """What Meta's package gave for the toy's weights, against what this space gives."""
    for i, (text, lang) in enumerate(toy_sonar.SENTENCES):
        assert [space.language(lang), *space.tokenizer.encode(text), 3] == official[f"source {i}"].tolist()
        alone = space.encode([text], lang)[0]
        assert np.abs(alone - official["embeddings"][i]).max() <= 1e-5
    english = [i for i, (_, lang) in enumerate(toy_sonar.SENTENCES) if lang == "eng_Latn"]
    together = space.encode([toy_sonar.SENTENCES[i][0] for i in english], "eng_Latn")
    assert np.abs(together - official["embeddings"][english]).max() <= 1e-5

    vectors = official["embeddings"]
    decoder = space.codec.decoder
    with torch.inference_mode():
        states = decoder.states(
            torch.from_numpy(official["target"])[None], decoder.condition(torch.tensor(vectors[:1]))
        )
        assert np.abs(decoder.logits(states)[0].numpy() - official["logits"]).max() <= 1e-4
        search = Search("beam", beams=5, alternatives=5)
        beams = space.codec.decoding(torch.tensor(vectors), space.language("fra_Latn"), search, 32)
    theirs = [[official[f"beam {i} {j}"].tolist() for j in range(5)] for i in range(len(vectors))]
    assert [[[*tokens, 3] for tokens in found] for found in beams] == theirs
    assert len({len(tokens) for found in theirs for tokens in found}) > 5  # sentences of many lengths were compared
    assert space.decode(vectors, "deu_Latn", search=Search("beam", max_tokens=32)) == official["texts"].tolist()


@pytest.mark.parametrize("form", ["fairseq", "fairseq2"])
def test_the_official_package_gives_the_same(form: str, tmp_path: Path) -> None:
    compare(toy_sonar.load(toy_sonar.save(tmp_path, form)), dict(np.load(FIXTURE)))


@pytest.mark.sonar_package
@pytest.mark.skipif("SONAR_PYTHON" not in os.environ, reason="SONAR_PYTHON names no interpreter with sonar-space")
def test_the_official_package_gives_the_same_now(folder: Path, space: SonarSpace, tmp_path: Path) -> None:
    toy_sonar.save(folder / "fairseq", "fairseq")
    question, answer = tmp_path / "question.json", tmp_path / "answer.npz"
    question.write_text(json.dumps({"sentences": toy_sonar.SENTENCES, "languages": list(LANGUAGES)}))
    subprocess.run([os.environ["SONAR_PYTHON"], OFFICIAL, folder, question, answer], check=True, timeout=300)
    official = dict(np.load(answer))
    assert official["fairseq_form_agrees"]
    compare(space, official)
    kept = np.load(FIXTURE)
    assert all(np.allclose(official[name], kept[name], atol=1e-5) for name in kept if kept[name].dtype.kind == "f")


def test_batches_and_half_precision_hardly_change_a_concept(folder: Path, space: SonarSpace) -> None:
    texts = [text for text, _ in toy_sonar.SENTENCES] * 20
    alone = np.concatenate([space.encode([text], "eng_Latn") for text in texts[:8]])
    assert np.allclose(space.encode(texts, "eng_Latn")[:8], alone, atol=1e-5)
    half = toy_sonar.load(folder, torch.bfloat16)
    assert half.codec.encoder.embed.weight.dtype == torch.bfloat16
    rounded = half.encode(texts[:8], "eng_Latn")
    cosines = (rounded * alone).sum(1) / np.linalg.norm(rounded, axis=1) / np.linalg.norm(alone, axis=1)
    assert cosines.min() >= 0.999
    assert half.identity == space.identity


def test_half_precision_does_not_make_words_equal(folder: Path) -> None:
    decoding = toy_sonar.load(folder, torch.bfloat16).codec.decoding
    weight = decoding.decoder.embed.weight
    torch.manual_seed(0)
    states = torch.randn(64, 32).bfloat16() * 20
    logits = decoding.decoder.logits(states)
    exact = states.float() @ weight.float().T
    values, tokens = decoding.best(logits, states, 3)
    assert torch.allclose(values, exact.topk(3).values, atol=1e-3) and torch.equal(tokens, exact.topk(3).indices)
    assert not torch.equal(tokens, logits.topk(3).indices)  # by eight bits they would be others


def test_parameter_counts_are_sonars() -> None:
    """What the files hold, and what is left of it: a cross-attention (4 matrices, their biases, a norm) over one
    vector becomes one matrix and a bias in each of the 24 layers."""
    for dims, decoder, official in ((SONAR_ENCODER, False, 766_091_264), (SONAR_DECODER, True, 866_902_016)):
        shapes = checkpoint.official_shapes(dims, decoder)
        assert sum(int(np.prod(shape)) for shape in shapes.values()) == official
    with torch.device("meta"):
        encoder, decoder = TextEncoder(SONAR_ENCODER), TextDecoder(SONAR_DECODER)
    assert sum(p.numel() for p in encoder.parameters()) == 766_091_264
    folded = 24 * (3 * (1024 * 1024 + 1024) + 2 * 1024)
    assert sum(p.numel() for p in decoder.parameters()) == 866_902_016 - folded


# The space


def test_a_space_tells_what_it_is(folder: Path, space: SonarSpace) -> None:
    assert (space.name, space.dim, space.max_tokens) == ("sonar", 32, 512)
    assert len(space.languages) == 202
    assert space.identity == f"sonar {space.fingerprint}" and len(space.fingerprint) == 16
    assert toy_sonar.load(folder).identity == space.identity


def test_every_search_is_repeatable(space: SonarSpace) -> None:
    vectors = space.encode([text for text, _ in toy_sonar.SENTENCES], "eng_Latn")
    for search in (
        Search(max_tokens=12),
        Search("beam", alternatives=3, max_tokens=12),
        Search("nearest", alternatives=3, max_tokens=12),
        Search("sample", alternatives=3, seed=5, max_tokens=12),
    ):
        found = space.alternatives(vectors, "fra_Latn", search=search)
        assert found == space.alternatives(vectors, "fra_Latn", search=search)
        assert [len(set(f)) for f in found] == [len(f) for f in found]
    assert space.decode(vectors[:0], "fra_Latn") == []


def test_what_can_not_be_encoded_or_decoded(space: SonarSpace) -> None:
    with pytest.raises(LanguageError, match=r"'deu_Latin'.*such as deu_Latn"):
        space.encode(["Hallo."], "deu_Latin")
    with pytest.raises(TextError, match="at least one word"):
        space.encode(["😀"], "eng_Latn")
    with pytest.raises(TextError, match="holds 514; split it"):
        space.encode(["a " * 600], "eng_Latn")
    with pytest.raises(VectorError, match=r"\[N, 32\]"):
        space.decode(np.zeros((1, 1024)), "eng_Latn")
    with pytest.raises(ConceptscapeError, match="no device 'abacus'"):
        best_device("abacus")


def test_a_long_sentence_is_split_and_never_cut(space: SonarSpace) -> None:
    from engine import Engine

    body = "The monkey sat in the tree, and the crocodile swam in the river, " * 40
    document = Engine(space).import_text(body, "eng_Latn")
    assert len(document.nodes) > 1 and "".join(n.text + n.after for n in document.nodes) == body
    assert all(space.count_tokens(node.text) <= 512 for node in document.nodes)


# Files that are not what they should be


def swapped(folder: Path) -> None:
    (folder / ENCODER.name).rename(folder / "other")
    (folder / DECODER.name).rename(folder / ENCODER.name)
    (folder / "other").rename(folder / DECODER.name)


def truncated(folder: Path) -> None:
    path = folder / DECODER.name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def other_size(folder: Path) -> None:
    state = toy_sonar.weights(toy_sonar.TOY_ENCODER, False)
    state["encoder.layers.1.ffn.inner_proj.weight"] = torch.zeros(64, 32)
    torch.save({"model": state}, folder / ENCODER.name)


def lacking(folder: Path) -> None:
    state = toy_sonar.weights(toy_sonar.TOY_ENCODER, False)
    del state["layer_norm.bias"]
    torch.save({"model": state}, folder / ENCODER.name)


class Trap:
    def __reduce__(self):
        return (os.system, ("echo sprung > sprung",))


def trapped(folder: Path) -> None:
    torch.save({"model": toy_sonar.weights(toy_sonar.TOY_ENCODER, False), "trap": Trap()}, folder / ENCODER.name)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda f: (f / ENCODER.name).unlink(), r"sonar_text_encoder\.pt is not in .*sonar fetch"),
        (lambda f: (f / TOKENIZER.name).unlink(), r"sentencepiece.*is not in .*sonar fetch"),
        (truncated, r"sonar_text_decoder\.pt is damaged or incomplete"),
        (lambda f: (f / ENCODER.name).write_bytes(b""), r"sonar_text_encoder\.pt is damaged"),
        (lambda f: (f / ENCODER.name).write_bytes(pickle.dumps({"a": 1})), r"sonar_text_encoder\.pt is damaged"),
        (lambda f: torch.save([1, 2], f / ENCODER.name), "damaged"),
        (lambda f: torch.save({"model": {"a": torch.zeros(1)}}, f / ENCODER.name), "is not SONAR's text encoder"),
        (swapped, "holds SONAR's text decoder, not its text encoder; the files are swapped"),
        (other_size, r"not SONAR's text encoder \(encoder.layers.1.ffn.inner_proj.weight differs\)"),
        (lacking, r"not SONAR's text encoder \(layer_norm.bias differs\)"),
        (trapped, r"objects that could run code \((posix|nt)\.system\)"),
        (lambda f: (f / TOKENIZER.name).write_bytes(b"no tokenizer"), "damaged or no tokenizer"),
        (lambda f: shutil.copy(ASSETS / "tokenizer.model", f / TOKENIZER.name), "is not SONAR's tokenizer"),
    ],
)
def test_bad_files_are_told_in_one_sentence(spoil, sentence: str, folder: Path, tmp_path: Path, monkeypatch) -> None:
    shutil.copytree(folder, tmp_path / "sonar")
    spoil(tmp_path / "sonar")
    if spoil is trapped:
        monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match=sentence) as caught:
        toy_sonar.load(tmp_path / "sonar")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def test_loading_changes_no_file(tmp_path: Path) -> None:
    folder = toy_sonar.save(tmp_path, "fairseq")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    toy_sonar.load(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


MEASURE = """
    import sys, torch
    from pathlib import Path
    from engine.spaces.checkpoint import load_decoder
    from toy_sonar import MIDDLE_DECODER, TOY_DECODER

    def peak():
        return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024

    toy, middle, dtype = Path(sys.argv[1]), Path(sys.argv[2]), getattr(torch, sys.argv[3])
    load_decoder(toy, TOY_DECODER)  # what the library takes for itself
    before = peak()
    decoder = load_decoder(middle, MIDDLE_DECODER, dtype)
    for parameter in decoder.parameters():
        parameter.max()  # what is mapped counts once it is read
    print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the system does not tell the peak of memory")
def test_loading_makes_no_second_copy(folder: Path, tmp_path: Path) -> None:
    shapes = checkpoint.official_shapes(toy_sonar.MIDDLE_DECODER, True)
    torch.save({"model": {name: torch.zeros(shape) for name, shape in shapes.items()}}, tmp_path / DECODER.name)
    weights = 4 * sum(int(np.prod(shape)) for shape in shapes.values())
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}

    def peak(dtype: str) -> int:
        command = [
            sys.executable,
            "-c",
            textwrap.dedent(MEASURE),
            folder / DECODER.name,
            tmp_path / DECODER.name,
            dtype,
        ]
        return int(subprocess.run(command, check=True, capture_output=True, env=environment, timeout=120).stdout)

    assert peak("float32") < 1.15 * weights
    assert peak("bfloat16") < 0.75 * weights  # half, and one layer as it was in the file
