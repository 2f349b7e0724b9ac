"""The space's training on a small corpus with a small model: what it learns, what it survives, what it writes."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from toy_space import ENGLISH, GERMAN, TOKENIZER, tokenized, write_corpus, write_start, written

from engine.errors import TrainingError, WeightsError
from engine.spaces import builtin
from engine.spaces.builtin import BuiltinSpace, read_towers
from engine.training import packaging, space
from engine.training.objective import Shortlist, TokenLoss, contrast
from engine.training.packaging import package
from engine.training.schedule import Clock, Schedule
from engine.training.space import Recipe, Run, averaged_model
from engine.weights import read_metadata

RECIPE = Recipe(batch=150, steps=6, warmup=0.3, decay=0.3)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus")


@pytest.fixture
def init(tmp_path: Path) -> Path:
    return write_start(tmp_path / "start")


def run(texts: Path, init: Path, out: Path, recipe: Recipe = RECIPE) -> Run:
    valid = texts / "valid.tsv.gz"
    return Run(tokenized(texts), init, TOKENIZER, out, recipe, space.held_out(valid) if valid.exists() else [])


def test_the_token_loss_is_cross_entropy() -> None:
    torch.manual_seed(0)
    states = torch.randn(300, 16).bfloat16().float().requires_grad_()
    embedding = torch.randn(50, 16).bfloat16().float().requires_grad_()
    targets = torch.randint(50, (300,))
    nn.functional.cross_entropy(states @ embedding.T, targets).backward()
    expected = [states.grad.clone(), embedding.grad.clone()]
    states.grad = embedding.grad = None
    loss = TokenLoss.apply(states, embedding, torch.zeros(50), targets)
    loss.backward()
    assert loss.item() == pytest.approx(nn.functional.cross_entropy(states @ embedding.T, targets).item(), rel=0.01)
    for found, exact in zip((states.grad, embedding.grad), expected, strict=True):
        assert nn.functional.cosine_similarity(found.flatten(), exact.flatten(), dim=0) > 0.999


def test_a_shortlist_stands_for_the_vocabulary() -> None:
    torch.manual_seed(0)
    states, embedding = torch.randn(200, 16), 0.25 * torch.randn(1000, 16)
    targets = torch.randint(1000, (200,))
    exact = nn.functional.cross_entropy(states @ embedding.T, targets).item()
    shortlist = Shortlist(np.arange(1000), 100, 300)
    assert shortlist.frequent.nonzero()[:, 0].tolist() == list(range(900, 1000))
    losses = []
    for seed in range(20):
        pieces, shift, wanted = shortlist.draw(targets, torch.Generator().manual_seed(seed))
        assert torch.equal(pieces[wanted], targets) and len(pieces.unique()) == len(pieces)
        assert shift[wanted].eq(0).all() and shift.exp().sum().item() == pytest.approx(1000, rel=1e-4)
        losses.append(TokenLoss.apply(states, embedding[pieces], shift, wanted).item())
    assert np.mean(losses) == pytest.approx(exact, rel=0.01)
    everything, shift, wanted = Shortlist(np.arange(1000), 1000, 300).draw(targets, torch.Generator())
    assert torch.equal(everything, torch.arange(1000)) and shift.eq(0).all() and torch.equal(wanted, targets)


def test_a_frozen_encoder_keeps_its_concepts(texts: Path, init: Path, tmp_path: Path) -> None:
    going = run(texts, init, tmp_path / "out", replace(RECIPE, encoder_rate=0.0))
    before = {name: part.averaged.clone() for name, part in going.parts.items()}
    going.go(minutes=100)
    assert torch.equal(going.parts["encoder"].averaged, before["encoder"])
    assert not torch.equal(going.parts["decoder"].averaged, before["decoder"])
    with pytest.raises(WeightsError, match="of another run"):
        run(texts, init, tmp_path / "out")


def test_an_encoder_thaws_when_its_share_of_the_run_is_over(texts: Path, init: Path, tmp_path: Path) -> None:
    going = run(texts, init, tmp_path / "out", replace(RECIPE, thaw=0.5, encoder_rate=0.01))
    before = going.parts["encoder"].exact.clone()
    batches = going.batches.stream()
    tokens, align, against = going.train_on(next(batches), 0.4)
    assert torch.isfinite(tokens) and align == against == 0
    moved = (going.parts["encoder"].exact - before).abs().max()
    tokens, align, against = going.train_on(next(batches), 0.6)
    assert align > 0 and (going.parts["encoder"].exact - before).abs().max() > 10 * moved


def test_contrast_falls_as_translations_stand_out() -> None:
    torch.manual_seed(0)
    left = torch.randn(8, 64)
    near, far = (left + spread * torch.randn(8, 64) for spread in (0.1, 3.0))
    assert contrast(left, near, 0.05) < 0.01 < contrast(left, far, 0.05) < contrast(left, near.roll(1, 0), 0.05)
    assert contrast(left, far, 0.05) == pytest.approx(float(contrast(far, left, 0.05)))
    same = torch.ones(8, 64)
    assert contrast(same, same, 0.05) == pytest.approx(np.log(8))


def test_the_pieces_of_the_encoder_keep_their_meanings(texts: Path, init: Path, tmp_path: Path) -> None:
    going = run(texts, init, tmp_path / "out", replace(RECIPE, encoder_rate=0.01))
    before = {name: tensor.clone() for name, tensor in going.model.encoder.state_dict().items()}
    for batch in islice(going.batches.stream(), 2):
        going.train_on(batch, 0.5)
    changed = {
        name for name, tensor in going.model.encoder.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert "embed.weight" not in changed and "project.weight" in changed


def test_training_learns_and_packages(texts: Path, init: Path, tmp_path: Path) -> None:
    going = run(texts, init, tmp_path / "out", replace(RECIPE, steps=40, decoder_rate=0.01, encoder_rate=0.002))
    losses = [float(going.train_on(batch, 0.4)[0]) for batch in islice(going.batches.stream(), 40)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    going.save()
    assets = tmp_path / "assets"
    assets.mkdir()
    package(tmp_path / "out", TOKENIZER, assets)
    assert (assets / "tokenizer.model").read_bytes() == TOKENIZER.read_bytes()
    averaged = averaged_model(going.state())
    for tower, packed in zip((averaged.encoder, averaged.decoder), read_towers(assets), strict=True):
        assert packed.dims == tower.dims
        for name, tensor in tower.state_dict().items():
            assert torch.allclose(packed.state_dict()[name], tensor, atol=float(tensor.abs().max()) / 100)
    assert "bleu" not in read_metadata(assets / "decoder.safetensors")
    assert BuiltinSpace.load(assets).dim == 48


def test_a_decoder_trained_on_leaves_the_encoders_file_as_it_is(texts: Path, init: Path, tmp_path: Path) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    run(texts, init, tmp_path / "both").save()
    package(tmp_path / "both", TOKENIZER, assets)
    before = {name: (assets / f"{name}.safetensors").read_bytes() for name in ("encoder", "decoder")}
    going = run(texts, assets, tmp_path / "decoder", replace(RECIPE, encoder_rate=0.0, decoder_rate=0.01))
    for batch in islice(going.batches.stream(), 3):
        going.train_on(batch, 0.5)
    going.save()
    package(tmp_path / "decoder", TOKENIZER, assets)
    assert (assets / "encoder.safetensors").read_bytes() == before["encoder"]
    assert (assets / "decoder.safetensors").read_bytes() != before["decoder"]
    made_for = read_metadata(assets / "decoder.safetensors")["encoder"]
    assert made_for == builtin.fingerprint(assets / "encoder.safetensors")


def test_packaging_scores_both_and_refuses_a_loss(
    texts: Path, init: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    written(texts, "valid.tsv.gz", [f"eng\tdeu\t{a}\t{b}" for a, b in zip(ENGLISH[:3], GERMAN[:3], strict=True)])
    run(texts, init, tmp_path / "out").save()
    assets = tmp_path / "assets"
    assets.mkdir()
    options = [tmp_path / "out", "--tokenizer", TOKENIZER, "--assets", assets, "--valid", texts / "valid.tsv.gz"]
    assert packaging.main(list(map(str, options))) == 0
    scores = json.loads(read_metadata(assets / "decoder.safetensors")["bleu"])
    assert scores["fp32"].keys() == scores["int8"].keys() >= {"english_to_itself", "to_english"}
    before = (assets / "decoder.safetensors").read_bytes()
    bleus = iter([{"a": 50.0}, {"a": 49.4}])
    monkeypatch.setattr(packaging, "bleu", lambda *_: next(bleus))
    assert packaging.main(list(map(str, options))) == 2
    assert "loses 0.60 BLEU; nothing was written" in capsys.readouterr().err
    assert (assets / "decoder.safetensors").read_bytes() == before
    assert packaging.main(list(map(str, [tmp_path / "none", *options[1:]]))) == 2
    assert "train first" in capsys.readouterr().err


def test_towers_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    one, two = write_start(tmp_path / "one"), write_start(tmp_path / "two", concept=64)
    with pytest.raises(WeightsError, match="concepts of different sizes"):
        (one / "decoder.safetensors").write_bytes((two / "decoder.safetensors").read_bytes())
        read_towers(one)
    (two / "encoder.safetensors").write_bytes((two / "decoder.safetensors").read_bytes())
    with pytest.raises(WeightsError, match=r"encoder.safetensors holds another model"):
        read_towers(two)


def test_a_broken_run_ends_where_an_unbroken_one_does(texts: Path, init: Path, tmp_path: Path) -> None:
    whole = run(texts, init, tmp_path / "whole")
    whole.go(minutes=100)
    broken = run(texts, init, tmp_path / "broken")
    for batch in islice(broken.batches.stream(), 3):
        broken.train_on(batch, broken.done)
    broken.save()
    for batch in islice(broken.batches.stream(3), 2):  # these steps are lost with the process
        broken.train_on(batch, broken.done)
    resumed = run(texts, init, tmp_path / "broken")
    assert resumed.step == 3
    resumed.go(minutes=100)
    assert whole.step == resumed.step == 6
    for name, part in whole.parts.items():
        for value, other in zip(part.state().values(), resumed.parts[name].state().values(), strict=True):
            assert torch.equal(value, other)


def test_sigterm_saves_and_stops(texts: Path, init: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    going = run(texts, init, tmp_path / "out", replace(RECIPE, steps=1000))
    train_on = going.train_on

    def interrupted(batch, done):
        if going.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_on(batch, done)

    monkeypatch.setattr(going, "train_on", interrupted)
    going.go(minutes=100)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert going.step == 3
    assert run(texts, init, tmp_path / "out").step == 3


def test_a_step_that_is_not_finite_is_skipped_and_ten_stop_the_run(texts: Path, init: Path, tmp_path: Path) -> None:
    going = run(texts, init, tmp_path / "out", replace(RECIPE, steps=100))
    batches = going.batches.stream()
    going.train_on(next(batches), 0.5)
    before = going.parts["decoder"].exact.detach().clone()
    going.parts["decoder"].computing[0] = torch.nan
    going.train_on(next(batches), 0.5)
    assert (going.step, int(going.skipped)) == (2, 1)
    assert torch.equal(going.parts["decoder"].exact, before)
    going.recipe = replace(going.recipe, noise=float("nan"))
    with pytest.raises(TrainingError, match="not finite 10 times in a row"):
        going.go(minutes=100)
    assert int(going.in_a_row) >= 10 and going.step <= 20
    assert torch.equal(going.parts["decoder"].exact, before)


def test_two_processes_share_a_run(texts: Path, init: Path, tmp_path: Path) -> None:
    tokenized(texts).save(tmp_path / "tokens.npz")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    files = ["--tokens", tmp_path / "tokens.npz", "--init", init, "--tokenizer", TOKENIZER, "--out", tmp_path / "out"]
    numbers = ["--batch", 150, "--steps", 3, "--warmup", 0.3, "--decay", 0.3]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [str(part) for part in (*torchrun, "-m", "engine.training.space", *files, *numbers)]
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=120)
    saved = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
    assert saved["numbers"][:2] == [3, 6]
    # One process moves about as far.
    alone = run(texts, init, tmp_path / "alone", replace(RECIPE, steps=3))
    alone.train_on(next(alone.batches.stream()), 0.0)
    moved = (alone.parts["encoder"].exact - saved["encoder"]["exact"]).abs().max()
    assert 0 < moved < 0.01


def test_a_run_ends_cooled_down_when_its_time_is_spent(texts: Path, init: Path, tmp_path: Path) -> None:
    recipe = replace(RECIPE, budget=1.5 / 60, average=0.5)
    going = run(texts, init, tmp_path / "out", recipe)
    rates: list[float] = []
    step = going.optimizer.step
    going.optimizer.step = lambda rate, bad: (rates.append(rate), step(rate, bad))  # type: ignore[method-assign,assignment]
    began = time.monotonic()
    going.go(minutes=100)
    assert 1.0 < time.monotonic() - began < 15
    assert going.step == len(rates) > 3
    assert max(rates) > 0.8 > 0.4 > rates[-1]
    assert rates[-1] == min(rates[len(rates) // 2 :])
    again = run(texts, init, tmp_path / "out", recipe)  # its time is spent
    again.go(minutes=100)
    assert again.step == going.step


def test_a_schedule_goes_by_time_or_by_steps() -> None:
    timed, counted = Schedule(100, 2.0, 0.1, 0.5), Schedule(100, None, 0.1, 0.5)
    assert timed.done(7, 60.0) == 0.5 and counted.done(7, 60.0) == 0.07
    for schedule in (timed, counted):
        assert schedule.rate(0.0) < 0.02 and schedule.rate(0.3) == 1.0
        assert schedule.rate(0.75) == pytest.approx(0.5) and schedule.rate(1.0) == 0.0
    for wrong in (Schedule(0, None), Schedule(10, 0.0), Schedule(10, -1.0)):
        with pytest.raises(TrainingError, match="There is no time to train in"):
            wrong.checked()


def test_a_pause_is_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock(10.0)
    for spent in (2.0, 2.0, 2.0, 500.0, 2.0):  # the process was stopped for a while
        now[0] += spent
        clock.tick()
    assert clock.seconds == pytest.approx(20.0)
    now[0] += 30.0  # a validation
    clock.skip()
    now[0] += 2.0
    clock.tick()
    assert clock.seconds == pytest.approx(22.0)


def test_validation_notes_scores(texts: Path, init: Path, tmp_path: Path) -> None:
    held = [f"eng\tdeu\t{a}\t{b}" for a, b in zip(ENGLISH[:2], GERMAN[:2], strict=True)]
    written(texts, "valid.tsv.gz", held)
    going = run(texts, init, tmp_path / "out", replace(RECIPE, steps=1))
    assert len(going.batches.tokens.left) == 2  # what is held out is not trained on
    kept = []
    going.go(minutes=100, keep=kept.append)
    assert [model.encoder.dims.concept for model in kept] == [48]
    (record,) = map(json.loads, (tmp_path / "out" / "log.jsonl").read_text().splitlines())
    assert record["step"] == 1
    assert {"english_to_itself", "to_english", "from_english"} <= record["valid"].keys()


def test_without_pairs_there_is_nothing_to_learn(texts: Path, init: Path, tmp_path: Path) -> None:
    written(texts, "valid.tsv.gz", [f"eng\tdeu\t{a}\t{b}" for a, b in zip(ENGLISH, GERMAN, strict=True)])
    with pytest.raises(TrainingError, match="no pairs"):
        run(texts, init, tmp_path / "out")


def test_main_says_one_sentence(texts: Path, init: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokenized(texts).save(tmp_path / "tokens.npz")
    files = {"tokens": tmp_path / "tokens.npz", "init": init, "tokenizer": TOKENIZER, "out": tmp_path / "out"}

    def said(**changes: object) -> str:
        options = [f"--{name}={value}" for name, value in (files | {"steps": 2} | changes).items()]
        assert space.main(options) == 2
        return capsys.readouterr().err

    assert "none.npz is missing or damaged" in said(tokens=tmp_path / "none.npz")
    assert "encoder.safetensors is missing" in said(init=tmp_path / "none")
    assert "There is no time to train in" in said(steps=0)
    assert "There is no time to train in" in said(budget=0)
    assert "There is no time to train in" in said(budget=-3)
    assert not (tmp_path / "out").exists()


def test_a_full_disk_leaves_the_last_checkpoint_whole(
    texts: Path, init: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    going = run(texts, init, tmp_path / "out")
    going.save()
    before = going.checkpoint.read_bytes()

    def full(state: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"No space left on device.*the last one is whole"):
        going.save()
    assert going.checkpoint.read_bytes() == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["checkpoint.pt"]


def test_another_models_checkpoint_is_refused(texts: Path, init: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(texts, init, out).save()
    saved = torch.load(out / "checkpoint.pt", weights_only=True)
    saved["encoder"]["exact"] = saved["encoder"]["exact"][:-1].clone()
    torch.save(saved, out / "checkpoint.pt")
    with pytest.raises(WeightsError, match="of another run"):
        run(texts, init, out)
    (out / "checkpoint.pt").write_bytes(b"half a file")
    with pytest.raises(WeightsError, match="damaged"):
        run(texts, init, out)
