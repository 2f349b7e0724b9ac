"""The training kit, whole: packed, carried in parts, unpacked, trained with, and its results taken, on a toy."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_space import TOKENIZER, tokenized, write_corpus, write_start, written

from engine.errors import TrainingError
from engine.lcm import KINDS, load
from engine.lcm import weights as sizes
from engine.spaces.builtin import BuiltinSpace
from engine.training import kit
from engine.training.kit import pack, take

SMALL = replace(sizes.TINY, concept=48, width=32, layers=1, heads=2, hidden=48, context=16)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit of several parts, of a corpus with enough documents to train concept models on."""
    home = tmp_path_factory.mktemp("kit")
    texts = write_corpus(home / "corpus")
    stories = [
        {
            "lang": "eng",
            "split": "valid" if i < 5 else "train",
            "text": " ".join(f"Day {j} of {i} was long." for j in range(8)),
        }
        for i in range(45)
    ]
    written(texts, "documents.jsonl.gz", list(map(json.dumps, stories)))
    written(texts, "valid.tsv.gz", ["eng\tdeu\tGood morning, my friend.\tGuten Morgen, mein Freund."])
    tokenized(texts).save(home / "tokens.npz")
    start = write_start(home / "start")
    pack(home / "parts", home / "tokens.npz", start, TOKENIZER, texts / "valid.tsv.gz", part=400_000)
    return home / "parts"


def unpack(parts: Path, target: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(parts / "unpack.py"), str(parts), str(target)], capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def trained(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of a run in an unpacked kit."""
    home = tmp_path_factory.mktemp("elsewhere")
    assert unpack(packed, home / "kit").returncode == 0
    patch = pytest.MonkeyPatch()
    for name in ("tiny", "small"):
        patch.setitem(sizes.SIZES, name, SMALL)
    patch.setattr(kit, "RESULT", 100_000)
    patch.setattr(torch.cuda, "is_available", lambda: False)
    options = ["run", "--kit", home / "kit", "--out", home / "results"]
    minutes = ["--space-minutes", 1 / 60, "--model-minutes", 0.5 / 60, "--batch", 150]
    try:
        assert kit.main(list(map(str, [*options, *minutes]))) == 0
        before = {path.name: path.read_bytes() for path in (home / "results").iterdir()}
        # A run that was stopped goes on; here nothing is left to do, and nothing changes.
        assert kit.main(list(map(str, [*options, *minutes]))) == 0
    finally:
        patch.undo()
    assert {name for name in before if "safetensors" in name} <= {path.name for path in (home / "results").iterdir()}
    return home / "results"


def test_parts_are_small_and_say_what_they_are(packed: Path) -> None:
    facts = json.loads((packed / "kit.json").read_text())
    assert len(facts["parts"]) > 1
    for part in facts["parts"]:
        assert (packed / part["name"]).stat().st_size == part["size"] <= 400_000
    assert {path.name for path in packed.iterdir()} == {"kit.json", "unpack.py", *(p["name"] for p in facts["parts"])}


def test_a_kit_holds_what_another_machine_needs(packed: Path, tmp_path: Path) -> None:
    assert unpack(packed, tmp_path).returncode == 0
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {"tokens.npz", "tokenizer.model", "valid.tsv.gz", "start/encoder.safetensors", "kit.json"} <= names
    # It needs none of what the page needs, and no segmenter: the texts are cut already.
    absent = (
        "gradio",
        "umap",
        "sentencex",
        "pandas",
        "pyarrow",
        "plotly",
        "sqlite_utils",
        "platformdirs",
        "py3langid",
        "yaml",
    )
    script = f"import sys; sys.modules.update(dict.fromkeys({absent}))\n"
    script += "from engine.training import kit; kit.main(['run', '--help'])"
    found = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert "--space-minutes" in found.stdout, found.stderr


def test_a_part_that_is_missing_or_damaged_is_named(packed: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    shutil.copytree(packed, parts)
    (parts / "kit.01.part").write_bytes(b"something else")
    found = unpack(parts, tmp_path / "kit")
    assert found.returncode == 1 and found.stderr.strip() == (
        "The part kit.01.part is damaged; bring it once more and try again."
    )
    (parts / "kit.01.part").unlink()
    found = unpack(parts, tmp_path / "kit")
    assert "The part kit.01.part is missing" in found.stderr and "Traceback" not in found.stderr
    assert not (tmp_path / "kit").exists()


def test_results_come_in_small_parts_and_are_installed(packed: Path, trained: Path, tmp_path: Path) -> None:
    facts = json.loads((trained / "results.json").read_text())
    models = {f"{kind}.safetensors" for kind in KINDS}
    weights = {"encoder.safetensors", "decoder.safetensors"} | models
    # A log is written after 50 steps or 20 seconds.
    assert facts["files"].keys() - {"space-log.jsonl"} == weights | {"space-scores.json"}
    for about in facts["files"].values():
        assert all((trained / part["name"]).stat().st_size == part["size"] <= 100_000 for part in about["parts"])
    # The pieces of the encoder are not trained: they stay at home.
    assert "embed.weight" in facts["files"]["encoder.safetensors"]["left_out"]
    names = take(packed, [trained], tmp_path / "assets", tmp_path / "logs")
    assert set(names) == weights
    scores = json.loads((tmp_path / "logs" / "space-scores.json").read_text())
    assert {"english_to_itself", "to_english", "lengths"} <= scores.keys()
    shutil.copyfile(TOKENIZER, tmp_path / "assets" / "tokenizer.model")
    space = BuiltinSpace.load(tmp_path / "assets")
    assert space.encode(["Good morning."], "eng_Latn").shape == (1, 48)
    for kind in KINDS:
        model = load(tmp_path / "assets" / "lcm" / f"{kind}.safetensors", "builtin", None, space.fingerprint)
        assert model.dims.concept == 48


def test_results_may_come_in_several_folders(packed: Path, trained: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        shutil.copy(trained / "results.json", folder)
    for number, path in enumerate(sorted(trained.glob("*.part"))):
        shutil.copy(path, one if number % 2 else two)
    options = ["take", one, two, "--kit", packed, "--assets", tmp_path / "assets"]
    assert kit.main(list(map(str, options))) == 0
    assert len(list((tmp_path / "assets").rglob("*.safetensors"))) == 2 + len(KINDS)
    assert not list(tmp_path.rglob("space-scores.json"))


def damaged(trained: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    shutil.copytree(trained, folder)
    return folder


def test_nothing_is_overwritten_by_bad_results(packed: Path, trained: Path, tmp_path: Path) -> None:
    folder, assets = damaged(trained, tmp_path), tmp_path / "assets"
    take(packed, [trained], assets)
    before = {path: path.read_bytes() for path in assets.rglob("*.safetensors")}
    part = next(folder.glob("quant-d.safetensors.*.part"))
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(TrainingError, match=r"The part quant-d.safetensors.00.part is damaged"):
        take(packed, [folder], assets)
    part.unlink()
    with pytest.raises(TrainingError, match=r"The part quant-d.safetensors.00.part is missing"):
        take(packed, [folder], assets)
    facts = json.loads((folder / "results.json").read_text())
    facts["kit"] = "f" * 16
    (folder / "results.json").write_text(json.dumps(facts))
    with pytest.raises(TrainingError, match="results of another kit"):
        take(packed, [folder], assets)
    (folder / "results.json").write_text("{")
    with pytest.raises(TrainingError, match=r"results.json is damaged"):
        take(packed, [folder], assets)
    with pytest.raises(TrainingError, match=r"There is no results.json in parts"):
        take(packed, [packed], assets)
    assert all(path.read_bytes() == data for path, data in before.items())


def test_a_full_disk_is_one_sentence(
    packed: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assets = tmp_path / "assets"
    take(packed, [trained], assets)
    before = {path: path.read_bytes() for path in assets.rglob("*") if path.is_file()}
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if path.suffix == ".new":
            write(path, data[:10])
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    options = ["take", trained, "--kit", packed, "--assets", assets]
    assert kit.main(list(map(str, options))) == 2
    said = capsys.readouterr().err
    assert "can't be written to assets" in said and "No space left" in said and said.count("\n") == 1
    assert {path: path.read_bytes() for path in assets.rglob("*") if path.is_file()} == before


def test_bad_input_is_one_sentence(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*options: object) -> str:
        assert kit.main(list(map(str, options))) == 2
        found = capsys.readouterr().err
        assert found.count("\n") == 1
        return found

    assert unpack(packed, tmp_path / "kit").returncode == 0
    run = ["run", "--kit", tmp_path / "kit", "--out", tmp_path / "results"]
    assert "There is no time to train in" in said(*run, "--space-minutes", 0, "--model-minutes", 1)
    (tmp_path / "kit" / "runs").mkdir(exist_ok=True)
    assert "There is no kit.json in" in said(
        "run", "--kit", tmp_path, "--out", tmp_path / "r", "--space-minutes", 1, "--model-minutes", 1
    )
    other = tmp_path / "other"
    other.mkdir()
    (other / "results.json").write_text(json.dumps({"kit": "0" * 16, "files": {}}))
    assert "holds the results of another kit" in said(
        "run", "--kit", tmp_path / "kit", "--out", other, "--space-minutes", 1, "--model-minutes", 1
    )
    assert "is not empty" in said("pack", packed, "--valid", tmp_path / "valid.tsv.gz")
    assert "missing or damaged" in said("pack", tmp_path / "new", "--valid", packed, "--tokens", tmp_path / "none.npz")


def test_what_is_left_out_of_weights_is_zero_and_named(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    same, old, new = torch.arange(12.0), torch.ones(3, 4), torch.zeros(3, 4)
    save_file({"same": same, "other": old}, tmp_path / "before.safetensors")
    save_file({"same": same, "other": new}, tmp_path / "after.safetensors")
    data = (tmp_path / "after.safetensors").read_bytes()
    sparse, names = kit.without(data, tmp_path / "before.safetensors")
    assert names == ["same"] and len(sparse) == len(data)
    first, last = kit.places(data)["same"]
    assert sparse[first:last] == bytes(48) and np.frombuffer(data[first:last], np.float32).tolist() == same.tolist()
    assert sparse[:first] == data[:first]
