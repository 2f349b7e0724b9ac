"""Training concept models on small made-up documents: shards, batches, runs, resuming, several processes."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import CorpusError, TrainingError, WeightsError
from engine.evaluation.lcm import auc, contrast, predictions, scores, surprise
from engine.lcm import KINDS
from engine.lcm.blocks import Dimensions
from engine.lcm.weights import save
from engine.spaces.builtin import BuiltinSpace
from engine.training import lcm as training
from engine.training.documents import Documents, Text, read_shards
from engine.training.encode_corpus import encode, texts

SMALL = Dimensions(
    concept=16, width=32, layers=2, heads=4, hidden=48, context=12, denoiser=2, codebooks=3, units=8
)  # fmt: skip
QUICK = training.Recipe(steps=40, batch=64, rate=5e-3, warmup=10, noise=0.02, check=20)


def walks(documents: int = 60) -> Documents:
    """Documents that turn by the same angle at every step, so that the next concept can be learnt."""
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.standard_normal((16, 16)))
    rows, starts = [], [0]
    for i in range(documents):
        x = rng.standard_normal(16)
        for _ in range(4 + i % 5 if i % 20 else 30):  # some are longer than the context
            rows.append(x / np.linalg.norm(x) * 4)
            x = turn @ x
        starts.append(len(rows))
    valid = np.arange(documents) < 12
    end = rng.standard_normal(16).astype(np.float32)
    whole = np.ones(documents, bool)
    return Documents(
        np.array(rows, np.float16), np.array(starts), valid, whole, ("eng",) * documents, end, "letters", "0" * 16
    )


# ---- shards ---------------------------------------------------------------------------------------------------------


class Letters:
    """An encoder that needs no weights: a sentence's vector is made from its letters."""

    name, fingerprint = "letters", "0" * 16

    def __init__(self) -> None:
        self.encoded = 0

    def fits(self, sentence: str) -> bool:
        return True

    def encode(self, sentences: Sequence[str]) -> np.ndarray:
        self.encoded += len(sentences)
        return np.array([[len(s), *map(ord, s[:3].ljust(3))] for s in sentences], np.float32)


FOUND = [
    Text("deu" if i == 5 else "eng", i < 2, i != 3, tuple(f"Sentence {j} of {i}." for j in range(3 + i)))
    for i in range(8)
]


def test_encoding_goes_on_where_it_stopped(tmp_path: Path) -> None:
    encoder = Letters()
    assert encode(FOUND, encoder, tmp_path, minutes=-1, size=3) == 0  # no time for any shard
    assert encode(FOUND[:3], encoder, tmp_path / "part", minutes=1, size=3) == 3
    assert encode(FOUND, encoder, tmp_path, minutes=1, size=3) == 8
    (tmp_path / "concepts-00001.parquet").unlink()
    before = encoder.encoded
    assert encode(FOUND, encoder, tmp_path, minutes=1, size=3) == 8
    assert encoder.encoded - before == sum(len(t.sentences) for t in FOUND[3:6]) + 1  # and "End of text."
    documents = read_shards(tmp_path)
    assert len(documents) == 8 and documents.langs[5] == "deu" and documents.valid.tolist() == [True] * 2 + [False] * 6
    assert np.array_equal(documents[5][:-1], encoder.encode(FOUND[5].sentences))
    assert np.array_equal(documents[5][-1], documents.end)
    assert len(documents[3]) == 6  # cut off in the corpus: it has no end
    assert documents.said(2, "END") == [*FOUND[2].sentences, "END"]
    assert len(read_shards(tmp_path, ["eng"])) == 7


def test_processes_share_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, there in ((0, 5), (1, 8)):
        monkeypatch.setenv("RANK", str(rank))
        assert encode(FOUND, Letters(), tmp_path, minutes=1, size=3) == there
    assert len(read_shards(tmp_path)) == 8


def test_shards_of_other_weights_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    encode(FOUND, Letters(), tmp_path, minutes=1, size=3)
    other = Letters()
    other.fingerprint = "f" * 16
    with pytest.raises(CorpusError, match="other weights or texts"):
        encode(FOUND, other, tmp_path, minutes=1, size=3)
    encode(FOUND, other, tmp_path / "other", minutes=1, size=3)
    (tmp_path / "other" / "concepts-00002.parquet").rename(tmp_path / "concepts-00009.parquet")
    with pytest.raises(CorpusError, match="different weights"):
        read_shards(tmp_path)
    (tmp_path / "concepts-00009.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(CorpusError, match=r"concepts-00009\.parquet is not a shard"):
        read_shards(tmp_path)
    with pytest.raises(CorpusError, match="There are no concepts in nothing"):
        read_shards(tmp_path / "nothing")


def test_documents_for_validation_come_first(tmp_path: Path) -> None:
    path = tmp_path / "documents.jsonl"
    path.write_text(
        '{"lang": "eng", "split": "train", "text": "One. Two."}\n'
        '{"lang": "deu", "split": "train", "text": "Eins. Zwei."}\n'
        '{"lang": "fra", "split": "valid", "text": "Un. Deux. Trois.", "truncated": true}\n'
        '{"lang": "eng", "split": "train", "text": "Alone."}\n'
    )
    found = texts(path, lambda sentence: True, ["eng"])
    assert [(t.lang, t.valid, t.whole, len(t.sentences)) for t in found] == [
        ("fra", True, False, 3),
        ("eng", False, True, 2),
    ]


# ---- batches --------------------------------------------------------------------------------------------------------


def test_batches_hold_every_document_once() -> None:
    documents = walks()
    indices = np.flatnonzero(~documents.valid)
    stream = training.batches(documents, indices, SMALL.context, 64, 0, 0)
    seen: list[int] = []
    while len(seen) < len(indices):
        windows = next(stream)
        seen += [index for index, _, _ in windows]
        batch = training.collate(documents, windows)
        for row, (index, first, last) in enumerate(windows):
            n = last - first
            assert n <= SMALL.context
            assert np.array_equal(batch.concepts[row, :n].numpy(), documents[index][first:last])
            # What stands first is predicted only where it begins the document.
            assert batch.real[row].tolist() == [first == 0] + [True] * (n - 1) + [False] * (len(batch.real[row]) - n)
    assert sorted(seen) == indices.tolist()


# ---- runs -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns(kind: str, tmp_path: Path) -> None:
    documents = walks()
    torch.manual_seed(0)
    run = training.Run(kind, SMALL, documents, replace(QUICK, steps=300, check=100), tmp_path)
    model = run.go()
    found = scores(model, documents, run.check)
    assert found["contrast model"] > max(found["contrast repeat"], found["contrast mean"])
    assert found["auc other documents"] > 0.6
    before = model.end_fit.clone()
    training.calibrate(model, documents, run.check)
    assert not torch.equal(before, model.end_fit)
    if kind == "base":  # these documents end anywhere: only the mean of many says a little of it
        end = model.normalizer.normalize(model.end)
        assert float(model.ending(end)) > float(model.ending(-end))
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["step"] for row in rows] == ["100", "200", "300"]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


def test_a_run_starts_from_weights_of_its_kind(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    start = training.Run("two-tower", SMALL, walks(), QUICK, tmp_path / "first").go()
    run = training.Run("two-tower", SMALL, walks(), QUICK, tmp_path / "second", start=start)
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), start.parameters(), strict=True))
    encode(FOUND, Letters(), tmp_path / "shards", 9.0)
    save(tmp_path / "two-tower.safetensors", start, "letters", "0" * 16)
    options = ["--concepts", str(tmp_path / "shards"), "--init", str(tmp_path / "two-tower.safetensors")]
    assert training.main(["--model", "base", *options]) == 2
    assert "two-tower.safetensors holds a two-tower model, from which base can't start" in capsys.readouterr().err


def test_sonar_llm_starts_from_base_lcm(tmp_path: Path) -> None:
    start = training.Run("base", SMALL, walks(), QUICK, tmp_path / "first").go()
    model = training.Run("sonar-llm", SMALL, walks(), QUICK, tmp_path / "second", start=start).model
    state = model.state_dict()
    assert all(torch.equal(state[name], weight) for name, weight in start.state_dict().items())
    assert torch.equal(state["slope"], torch.eye(16))


@pytest.mark.parametrize("kind", ["base", "two-tower", "quant-d"])
def test_a_resumed_run_equals_an_unbroken_one(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents, dims = walks(), replace(SMALL, dropout=0.1)
    whole = training.Run(kind, dims, documents, QUICK, tmp_path / "whole").go()

    # The second run is stopped at step 25, as a power cut would: what counts is the checkpoint it left.
    real = training.Run.train_on
    taken: list[int] = []

    def cut(self: training.Run, windows: list, rate: float) -> float:
        taken.append(self.step)
        if self.step == 25 and len(taken) <= 26:
            raise KeyboardInterrupt
        return real(self, windows, rate)

    monkeypatch.setattr(training.Run, "train_on", cut)
    with pytest.raises(KeyboardInterrupt):
        training.Run(kind, dims, documents, QUICK, tmp_path / "broken", save_minutes=0).go()
    run = training.Run(kind, dims, documents, QUICK, tmp_path / "broken", save_minutes=0)
    resumed = run.go()
    assert run.step == 40 and taken.count(25) == 2 and taken.count(24) == 1
    for name, tensor in whole.state_dict().items():
        assert torch.allclose(tensor, resumed.state_dict()[name], atol=1e-6), name


PROCESS = """
import sys, torch
torch.set_num_threads(1)
sys.path.insert(0, "tests")
from dataclasses import replace
from pathlib import Path
from engine.training import lcm
from test_lcm_training import SMALL, QUICK, walks
lcm.best_dtype = lambda device: torch.float32
recipe = replace(QUICK, steps=12, check=6)
run = lcm.Run("base", SMALL, walks(), recipe, Path(sys.argv[1]), save_minutes=0)
run.go()
if torch.distributed.is_initialized():
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
"""


def test_two_processes_reach_the_weights_of_one(tmp_path: Path) -> None:
    """Sharded by FSDP2 over gloo, with the same global batch; also when they go on from a checkpoint."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    script = tmp_path / "process.py"
    script.write_text(PROCESS)
    subprocess.run([sys.executable, script, tmp_path / "one"], check=True, env=environment | {"PYTHONPATH": "."})
    for _ in range(2):  # the second time it finds its last checkpoint, and has nothing left to do
        subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", script]
            + [tmp_path / "two"],
            check=True,
            timeout=180,
            env=environment | {"PYTHONPATH": "."},
        )
    one, two = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("one", "two"))
    assert one["numbers"][0] == two["numbers"][0] == 12
    for name, tensor in one["model"].items():
        assert torch.allclose(tensor, two["model"][name], atol=2e-5), name
    moments = [saved["optimizer"][0]["exp_avg"] for saved in (one, two)]
    assert torch.allclose(*moments, atol=1e-5)


def test_words_are_the_objective_of_sonar_llm(tmp_path: Path) -> None:
    """The loss falls although the decoder stays as it is."""
    space = BuiltinSpace.load()
    told = [
        ("The sun came up.", "The birds began to sing.", "A girl went to the river."),
        ("It was a cold day.", "Nobody was in the street.", "The dog slept by the fire."),
    ]
    concepts = np.concatenate([space.encode(list(sentences), "eng_Latn") for sentences in told])
    documents = Documents(
        concepts.astype(np.float16),
        np.array([0, 3, 6]),
        np.array([False, True]),
        np.array([True, True]),
        ("eng", "eng"),
        space.encode(["End of text."], "eng_Latn")[0],
        sentences=tuple(sentence for sentences in told for sentence in sentences),
    )
    before = [weight.clone() for weight in space.decoder.parameters()]
    dims = replace(SMALL, concept=512, width=64)
    words = training.Words(space, documents)
    run = training.Run("sonar-llm", dims, documents, replace(QUICK, steps=30, check=10, patience=9), tmp_path, words)
    windows = next(training.batches(documents, run.learn, dims.context, 64, 0, 0))
    losses = [run.train_on(windows, 0.4) for _ in range(12)]
    assert losses[-1] < losses[0] - 0.3
    assert all(torch.equal(a, b) for a, b in zip(before, space.decoder.parameters(), strict=True))


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    documents = walks()
    run = training.Run("base", SMALL, documents, QUICK, tmp_path)
    documents.concepts[documents.starts[12] :] = np.inf
    with pytest.raises(TrainingError, match="10 times in a row"):
        run.go()
    assert run.skipped == 10


def test_a_full_disk_leaves_the_last_checkpoint_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = training.Run("base", SMALL, walks(), QUICK, tmp_path)
    run.save()
    before = run.checkpoint.read_bytes()

    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"No space left on device.*the last one is whole"):
        run.save()
    assert run.checkpoint.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_checkpoints_of_another_run_are_refused(tmp_path: Path) -> None:
    training.Run("base", SMALL, walks(), QUICK, tmp_path).save()
    with pytest.raises(WeightsError, match="of another run"):
        training.Run("base", replace(SMALL, width=64), walks(), QUICK, tmp_path)
    with pytest.raises(WeightsError, match="of another run"):
        training.Run("one-tower", SMALL, walks(), QUICK, tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="damaged"):
        training.Run("base", SMALL, walks(), QUICK, tmp_path)


def test_training_needs_documents_to_learn_from_and_to_check_on(tmp_path: Path) -> None:
    documents = walks()
    with pytest.raises(TrainingError, match="training and validation documents"):
        training.Run("base", SMALL, replace(documents, valid=np.ones(60, bool)), QUICK, tmp_path)


def test_a_run_without_progress_stops_early(tmp_path: Path) -> None:
    run = training.Run("base", SMALL, walks(), replace(QUICK, steps=400, rate=0.0, check=5, patience=2), tmp_path)
    run.go()
    assert run.step == 15


# ---- measures -------------------------------------------------------------------------------------------------------


def test_contrast_and_auc_are_what_they_say() -> None:
    truths = np.eye(4, dtype=np.float32)
    owner = np.array([0, 0, 1, 1])
    assert contrast(truths, truths, owner) == 1.0
    assert contrast(-truths, truths, owner) == 0.0
    assert auc(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 1.0
    assert auc(np.array([1.0, 4.0]), np.array([2.0, 3.0])) == 0.5
    assert np.allclose(surprise(truths[:2], truths[1:3], np.zeros(4, np.float32)), [1, 1])
    assert np.allclose(surprise(truths[:2] * 3, truths[:2], np.zeros(4, np.float32)), [0, 0])


def test_a_model_that_knows_the_truth_scores_best() -> None:
    documents = walks()

    class Oracle(KINDS["base"]):  # type: ignore[misc, valid-type]
        def expectations(self, batch: object) -> torch.Tensor:
            return batch.concepts.clone()  # type: ignore[attr-defined]

    oracle = Oracle(SMALL)
    found = scores(oracle, documents, np.arange(20))
    assert found["l2 model"] < 1e-3 and found["contrast model"] == 1.0
    assert found["auc other documents"] == 1.0
    assert [len(truth) for _, truth in predictions(oracle, documents, [0, 1])] == [12, 6]
