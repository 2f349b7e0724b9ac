"""Training concept models on small made-up documents: shards, batches, runs, resuming, several processes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toy_space import PIECES, tokenized, write_corpus, written

from engine.errors import CorpusError, TrainingError, WeightsError
from engine.evaluation.lcm import auc, contrast, predictions, scores, surprise
from engine.lcm import KINDS
from engine.lcm.blocks import Dimensions
from engine.lcm.weights import save
from engine.spaces.builtin import BuiltinSpace
from engine.training import lcm as training
from engine.training.calibration import calibrate
from engine.training.concepts import encode, read, select
from engine.training.documents import Documents
from engine.training.tokens import Texts, Tokens
from engine.training.windows import batches, collate

SMALL = Dimensions(
    concept=16, width=32, layers=2, heads=4, hidden=48, context=12, denoiser=2, codebooks=3, units=8
)  # fmt: skip
QUICK = training.Recipe(steps=40, batch=64, rate=5e-3, warmup=0.25, noise=0.02, check=20)


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


class Lengths:
    """An encoder that needs no weights: a sentence's vector is made from its tokens."""

    name, fingerprint, tokenizer = "letters", "0" * 16, PIECES

    def __init__(self) -> None:
        self.encoded = 0

    def encode(self, texts: Texts) -> np.ndarray:
        self.encoded += len(texts)
        return np.array(
            [[len(texts[i]), *(t % 2048 for t in (texts[i] * 3)[:3])] for i in range(len(texts))], np.float32
        )


@pytest.fixture
def told(tmp_path: Path) -> Tokens:
    """Eight documents of 3 to 10 sentences; the first two are kept for scores, the fourth is cut off, one is German."""
    folder = write_corpus(tmp_path / "corpus")
    documents = [
        {
            "lang": "deu" if i == 5 else "eng",
            "split": "valid" if i < 2 else "train",
            "text": "\n".join(f"Sentence {j} of {i}." for j in range(3 + i)),
            "truncated": i == 3,
        }
        for i in range(8)
    ]
    written(folder, "documents.jsonl.gz", list(map(json.dumps, documents)))
    (folder / "passages.jsonl.gz").unlink()
    return tokenized(folder)


def test_encoding_goes_on_where_it_stopped(told: Tokens, tmp_path: Path) -> None:
    encoder, out, chosen = Lengths(), tmp_path / "out", np.arange(8)
    assert encode(told, chosen, encoder, out, minutes=-1, size=3) == 0  # no time for any shard
    with pytest.raises(CorpusError, match="There are no concepts in out"):
        read(out, told)
    assert encode(told, chosen, encoder, out, size=3) == 8
    (out / "concepts-00001.npy").unlink()
    assert len(read(out, told)) == 5  # what there is
    before = encoder.encoded
    assert encode(told, chosen, encoder, out, size=3) == 8
    assert encoder.encoded - before == 6 + 7 + 8 + 1  # and "End of text."
    documents = read(out, told)
    assert len(documents) == 8 and documents.langs[5] == "deu" and documents.valid.tolist() == [True] * 2 + [False] * 6
    assert np.array_equal(documents[5][:-1], encoder.encode(told.told.rows(np.arange(told.starts[5], told.starts[6]))))
    assert np.array_equal(documents[5][-1], documents.end)
    assert len(documents[3]) == 6  # cut off in the corpus: it has no end
    said = documents.said.rows(documents.rows(np.array([2, 2]), np.array([4, 5])))
    assert [PIECES.decode(said[i]) for i in range(2)] == ["Sentence 4 of 2.", "End of text."]
    assert len(read(out, told, ["eng"])) == 7


def test_processes_share_the_shards(told: Tokens, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, there in ((0, 5), (1, 8)):
        monkeypatch.setenv("RANK", str(rank))
        assert encode(told, np.arange(8), Lengths(), tmp_path / "out", size=3) == there
    assert len(read(tmp_path / "out", told)) == 8


def test_shards_of_other_weights_or_texts_and_damaged_ones_are_refused(told: Tokens, tmp_path: Path) -> None:
    out = tmp_path / "out"
    encode(told, np.arange(8), Lengths(), out, size=3)
    other = Lengths()
    other.fingerprint = "f" * 16
    for chosen, encoder in ((np.arange(8), other), (np.arange(7), Lengths())):
        with pytest.raises(CorpusError, match="other weights or texts"):
            encode(told, chosen, encoder, out, size=3)
    less = replace(told, told=told.told.rows(np.arange(9)))
    with pytest.raises(CorpusError, match="concepts of other texts"):
        read(out, less)
    np.save(out / "concepts-00001.npy", np.zeros((2, 4), np.float16))
    with pytest.raises(CorpusError, match=r"concepts-00001.npy holds concepts of other texts"):
        read(out, told)
    (out / "concepts-00001.npy").write_bytes(b"no array")
    with pytest.raises(CorpusError, match=r"concepts-00001.npy is damaged"):
        read(out, told)
    (out / "about.json").write_text("{")
    with pytest.raises(CorpusError, match=r"about.json is damaged"):
        read(out, told)
    with pytest.raises(CorpusError, match="There are no concepts in nothing"):
        read(tmp_path / "nothing", told)


def test_documents_for_validation_come_first(told: Tokens) -> None:
    chosen = select(told, ["eng"])
    assert set(chosen[:2]) == {0, 1} and set(chosen[2:]) == {2, 3, 4, 6, 7}
    assert select(told, ["eng"], limit=2).tolist() == chosen[:4].tolist()
    assert len(select(told)) == 8
    assert select(told).tolist() != select(told, seed=1).tolist()


# ---- batches --------------------------------------------------------------------------------------------------------


def test_batches_hold_every_document_once() -> None:
    documents = walks()
    indices = np.flatnonzero(~documents.valid)
    stream = batches(documents, indices, SMALL.context, 64, 0, 0)
    seen: list[int] = []
    while len(seen) < len(indices):
        windows = next(stream)
        seen += [index for index, _, _ in windows]
        rows, real = collate(documents, windows)
        for row, (index, first, last) in enumerate(windows):
            n = last - first
            assert n <= SMALL.context
            places = documents.starts[index] + np.arange(first, last)
            wanted = np.where(places < documents.starts[index + 1], places, len(documents.concepts))  # the end's row
            assert rows[row].tolist() == wanted.tolist() + [-1] * (rows.shape[1] - n)
            # What stands first is predicted only where it begins the document.
            assert real[row].tolist() == [first == 0] + [True] * (n - 1) + [False] * (len(real[row]) - n)
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
    calibrate(model, documents, run.check)
    assert not torch.equal(before, model.end_fit)
    if kind == "base":  # these documents end anywhere: only the mean of many says a little of it
        end = model.normalizer.normalize(model.end)
        assert float(model.ending(end)) > float(model.ending(-end))
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["step"] for row in rows] == ["100", "200", "300"]
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])


def test_a_run_starts_from_weights_of_its_kind(
    told: Tokens, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = training.Run("two-tower", SMALL, walks(), QUICK, tmp_path / "first").go()
    run = training.Run("two-tower", SMALL, walks(), QUICK, tmp_path / "second", start=start)
    assert all(torch.equal(a, b) for a, b in zip(run.model.parameters(), start.parameters(), strict=True))
    encode(told, np.arange(8), Lengths(), tmp_path / "shards")
    told.save(tmp_path / "tokens.npz")
    save(tmp_path / "two-tower.safetensors", start, "letters", "0" * 16)
    files = {"tokens": "tokens.npz", "concepts": "shards", "init": "two-tower.safetensors"}
    options = [f"--{name}={tmp_path / file}" for name, file in files.items()]
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

    def cut(self: training.Run, windows: list, done: float) -> torch.Tensor:
        taken.append(self.step)
        if self.step == 25 and len(taken) <= 26:
            raise KeyboardInterrupt
        return real(self, windows, done)

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
    said = [*told[0], *told[1], "End of text."]
    documents = Documents(
        concepts.astype(np.float16),
        np.array([0, 3, 6]),
        np.array([False, True]),
        np.array([True, True]),
        ("eng", "eng"),
        space.encode(["End of text."], "eng_Latn")[0],
        said=Texts.of(space.tokenizer, said, ["eng"] * 7),
    )
    before = [weight.clone() for weight in space.decoder.parameters()]
    dims = replace(SMALL, concept=space.dim, width=64)
    words = training.Words(space, documents)
    run = training.Run("sonar-llm", dims, documents, replace(QUICK, steps=30, check=10), tmp_path, words)
    windows = next(batches(documents, run.learn, dims.context, 64, 0, 0))
    losses = [float(run.train_on(windows, 0.5)) for _ in range(12)]
    assert losses[-1] < losses[0] - 0.3
    assert all(torch.equal(a, b) for a, b in zip(before, space.decoder.parameters(), strict=True))
    with pytest.raises(TrainingError, match="without their words"):
        training.Words(space, replace(documents, said=None))


def test_the_words_loss_is_the_decoders(tmp_path: Path) -> None:
    """What is asked of groups and a shortlist of pieces is the mean cross-entropy, as the decoder itself finds it."""
    space = BuiltinSpace.load()
    said = ["The sun came up over the old town.", "It rained.", "A girl went to the river.", "End of text."]
    concepts = space.encode(said, "eng_Latn")
    documents = Documents(
        concepts[:3].astype(np.float16),
        np.array([0, 3]),
        np.array([False]),
        np.array([True]),
        ("eng",),
        concepts[3],
        said=Texts.of(space.tokenizer, said, ["eng"] * 4),
    )
    model = training.KINDS["sonar-llm"](replace(SMALL, concept=space.dim, width=64)).eval()
    torch.nn.init.normal_(model.postnet.weight, std=0.1)
    model.norm.fill_(float(np.linalg.norm(concepts, axis=1).mean()))
    words = training.Words(space, documents)
    words.shortlist.frequent[:] = True  # all pieces: nothing is estimated
    rows, real = collate(documents, [(0, 0, 4)])
    read = model.normalizer.normalize(torch.from_numpy(concepts)[None])
    with torch.no_grad():
        found = words.loss(model, training.Batch(read, torch.from_numpy(real)), rows, real, read)
        guesses = model.normalizer.denormalize(model.predictions(training.Batch(read, torch.from_numpy(real))))[0]
    guesses = guesses * (float(model.norm) / guesses.norm(dim=-1, keepdim=True))
    lengths = np.array([len(space.tokens(sentence)) + 1 for sentence in said])
    likely = space.likelihood(said, guesses.numpy(), "eng_Latn")
    assert float(found) == pytest.approx(-(likely * lengths).sum() / lengths.sum(), rel=0.01)


# ---- what goes wrong ------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    documents = walks()
    run = training.Run("base", SMALL, documents, QUICK, tmp_path)
    run.concepts[int(documents.starts[12]) :] = torch.inf
    with pytest.raises(TrainingError, match="10 times in a row"):
        run.go()
    assert int(run.skipped) == 10


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


def test_a_run_has_a_budget(tmp_path: Path) -> None:
    run = training.Run("base", SMALL, walks(), replace(QUICK, budget=1 / 60, check=5), tmp_path)
    run.go()
    rows = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert run.clock.seconds >= 1.0 and run.step > 5
    assert float(rows[-1]["rate"]) == 0.0 or float(rows[-1]["rate"]) < 0.2 * QUICK.rate
    with pytest.raises(TrainingError, match="no time to train in"):
        training.Run("base", SMALL, walks(), replace(QUICK, steps=0), tmp_path / "none")


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
