"""The space's recipe on a small corpus and a small model: what it reads, what it survives, what it writes."""

import gzip
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch
from safetensors.torch import save_file
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from torch import nn
from torch.nn import functional

from engine.errors import CorpusError, TrainingError, WeightsError
from engine.spaces import builtin
from engine.spaces.builtin import ASSETS, load_foreign
from engine.spaces.transformer import BUILTIN_DECODER, BUILTIN_ENCODER, TextDecoder, TextEncoder
from engine.training import corpus, e5, pieces, space, whitening
from engine.training.batches import Batches, Mixture, corrupted
from engine.training.space import Recipe, Run, Shortlist, SpaceModel, TokenLoss, contrast, initialize, package
from engine.weights import load_weights, read_metadata

TOKENIZER = ASSETS / "tokenizer.model"
ENGLISH = ["The dog sleeps in the garden.", "She reads a long book.", "We go to the market.", "It is raining today."]
GERMAN = ["Der Hund schläft im Garten.", "Sie liest ein langes Buch.", "Wir gehen zum Markt.", "Heute regnet es."]


def written(folder: Path, name: str, lines: list[str]) -> None:
    with gzip.open(folder / name, "wt", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    pairs = [f"eng\tdeu\t{a}\t{b}\ttatoeba" for a, b in zip(ENGLISH, GERMAN, strict=True)]
    written(folder, "pairs.tsv.gz", pairs)
    written(folder, "sentences.tsv.gz", [*(f"eng\t{a} {a}" for a in ENGLISH), "fra\tIl pleut.", "spa\tEstá lloviendo."])
    stories = [{"lang": "eng", "split": split, "text": " ".join(ENGLISH)} for split in ("train", "valid")]
    written(folder, "documents.jsonl.gz", list(map(json.dumps, stories)))
    return folder


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = {"width": 32, "layers": 1, "heads": 2, "hidden": 32}
    monkeypatch.setattr(space, "BUILTIN_ENCODER", replace(BUILTIN_ENCODER, **sizes))
    monkeypatch.setattr(space, "BUILTIN_DECODER", replace(BUILTIN_DECODER, **sizes))


@pytest.fixture
def init(small: None, tmp_path: Path) -> Path:
    torch.manual_seed(1)
    path = tmp_path / "init.safetensors"
    state = SpaceModel().state_dict()
    save_file({name: 0.05 * tensor if "embed" in name else tensor for name, tensor in state.items()}, path)
    return path


RECIPE = Recipe(tokens=150, steps=6, warmup=2, decay=2)


def run(texts: Path, init: Path, out: Path, recipe: Recipe = RECIPE) -> Run:
    return Run(texts, init, TOKENIZER, out, recipe)


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


def test_whitening_writes_a_checkpoint(
    texts: Path, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(space, "BUILTIN_ENCODER", replace(space.BUILTIN_ENCODER, concept=24))
    monkeypatch.setattr(space, "BUILTIN_DECODER", replace(space.BUILTIN_DECODER, concept=24))
    monkeypatch.setattr(whitening, "KEPT", 4)
    torch.manual_seed(0)
    before = SpaceModel().state_dict()
    save_file(before, tmp_path / "init.safetensors")
    arguments = ["--corpus", texts, "--tokenizer", TOKENIZER, "--out", tmp_path / "white.safetensors"]
    assert whitening.main([str(a) for a in [*arguments, "--init", tmp_path / "init.safetensors"]]) == 0
    after = load_weights(tmp_path / "white.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    parts = ("weight", "bias")
    assert changed == {f"{at}.{part}" for at in ("encoder.project", "decoder.layers.0.concept") for part in parts}
    assert whitening.main([str(a) for a in [*arguments, "--init", tmp_path / "none.safetensors"]]) == 2
    assert "missing" in capsys.readouterr().err


def test_pieces_are_foreign_where_only_another_language_has_them(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pieces.foreign, "__defaults__", (0.5,))
    written(texts, corpus.VALID, ["eng\tdeu\tThe book is long.\tDas Buch ist lang, the end."])
    out = tmp_path / "pieces.safetensors"
    arguments = [str(a) for a in ("--corpus", texts, "--tokenizer", TOKENIZER, "--out", out)]
    assert pieces.main(arguments) == 0
    tokenizer = sentencepiece.SentencePieceProcessor(str(TOKENIZER))
    found = load_foreign(out, TOKENIZER)

    def foreign(piece: str) -> list[bool]:
        return found[:2, tokenizer.piece_to_id(piece)].tolist()  # to English, to German

    assert foreign("▁book") == [False, True] and foreign("▁ein") == [True, False]
    assert foreign("▁Hund") == foreign("▁The") == [False, False]  # a name may begin with a capital
    assert foreign("▁lion") == foreign(".") == foreign("▁") == [False, False]  # nowhere, or everywhere
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("eng: ") and told[0].endswith("100.000 % of held-out text allowed")
    assert told[1].startswith("deu: ") and not told[1].endswith("100.000 % of held-out text allowed")
    written(texts, "documents.jsonl.gz", ["no record"])
    assert pieces.main(arguments) == 2
    assert capsys.readouterr().err.startswith("documents.jsonl.gz, line 1: not a document record")


def test_whitening_spreads_concepts_and_reads_the_same() -> None:
    torch.manual_seed(0)
    sizes = {"vocabulary": 10, "width": 64, "layers": 1, "heads": 2, "hidden": 32, "concept": 96}
    encoder = TextEncoder(replace(BUILTIN_ENCODER, **sizes))
    decoder = TextDecoder(replace(BUILTIN_DECODER, **sizes))
    # Pooled states that vary in 40 directions, strongly in the first; and concepts that are mostly their mean.
    states = torch.randn(3000, 40) * torch.linspace(3, 0.2, 40) @ torch.randn(40, 128) + 0.05 * torch.randn(3000, 128)
    with torch.no_grad():
        encoder.project.weight.normal_(std=0.02)
        encoder.project.bias.normal_(std=3.0)

    def concepts() -> torch.Tensor:
        return functional.layer_norm(encoder.project(states), (96,)).detach()

    before = concepts()
    read = decoder.condition(before)[0].detach()
    whitening.whiten(encoder, decoder, states, kept=24)
    after = concepts()
    again = decoder.condition(after)[0].detach()
    assert torch.allclose(after.norm(dim=1), torch.full((3000,), 96**0.5), atol=1e-3)

    def spread(z: torch.Tensor) -> tuple[float, float]:
        """The mean's share of the square, and how many directions vary (participation ratio)."""
        centred = z - z.mean(0)
        variances = torch.linalg.eigvalsh(centred.T @ centred / len(z))
        return float(z.mean(0).square().sum() / 96), float(variances.sum() ** 2 / variances.square().sum())

    assert spread(before)[0] > 0.6 and spread(after)[0] < 0.02
    assert spread(after)[1] > 3 * spread(before)[1]
    wanted = read - read.mean(0)
    assert float((again - read).square().mean() / wanted.square().mean()) < 0.1


@pytest.mark.parametrize("translate", [0.0, 1.0])
def test_a_pair_is_encoded_once_and_decoded_more_often(texts: Path, translate: float) -> None:
    """Each side comes back in its own language; English is always translated, the others as often as is wished."""
    pieces = sentencepiece.SentencePieceProcessor(str(TOKENIZER))
    batches = Batches(texts, pieces, Mixture(tokens=200, pair_share=1.0, join=0.0, translate=translate))
    for unit in next(batches.stream()):
        english, german = (pieces.decode(ids) for ids in unit.sources)
        assert GERMAN[ENGLISH.index(english)] == german
        said = [(target.source, target.lang, pieces.decode(target.ids)) for target in unit.targets]
        wanted = [(0, 0, english), (1, 1, german), (0, 1, german), (1, 0, english)]
        assert said == wanted[: 4 if translate else 3]


def test_contrast_falls_as_translations_stand_out() -> None:
    torch.manual_seed(0)
    left = torch.randn(8, 64)
    near, far = (left + spread * torch.randn(8, 64) for spread in (0.1, 3.0))
    assert contrast(left, near) < 0.01 < contrast(left, far) < contrast(left, near.roll(1, 0))
    assert contrast(left, far) == pytest.approx(float(contrast(far, left)))
    same = torch.ones(8, 64)
    assert contrast(same, same) == pytest.approx(np.log(8))


def test_the_pieces_of_the_encoder_keep_their_meanings(texts: Path, init: Path, tmp_path: Path) -> None:
    going = run(texts, init, tmp_path / "out", replace(RECIPE, encoder_rate=0.01))
    before = {name: tensor.clone() for name, tensor in going.model.encoder.state_dict().items()}
    for batch in islice(going.batches.stream(), 2):
        going.train_on(batch)
    changed = {
        name for name, tensor in going.model.encoder.state_dict().items() if not torch.equal(tensor, before[name])
    }
    assert "embed.weight" not in changed and "project.weight" in changed


def test_training_learns_and_packages(texts: Path, init: Path, tmp_path: Path) -> None:
    going = run(texts, init, tmp_path / "out", replace(RECIPE, steps=40, decoder_rate=0.01, encoder_rate=0.002))
    losses = [going.train_on(batch)[0] for batch in islice(going.batches.stream(), 40)]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    going.save()
    assets = tmp_path / "assets"
    assets.mkdir()
    package(tmp_path / "out", TOKENIZER, assets)
    assert (assets / "tokenizer.model").read_bytes() == TOKENIZER.read_bytes()
    written_weights = {
        f"{tower}.{name}": tensor
        for tower in ("encoder", "decoder")
        for name, tensor in load_weights(assets / f"{tower}.safetensors").items()
    }
    averaged = space.averaged_model({name: part.state() for name, part in going.parts.items()}).state_dict()
    assert written_weights.keys() == averaged.keys()
    assert "bleu" not in read_metadata(assets / "decoder.safetensors")
    for name, tensor in averaged.items():
        assert torch.allclose(written_weights[name], tensor, atol=float(tensor.abs().max()) / 100)


def test_a_decoder_trained_on_leaves_the_encoders_file_as_it_is(texts: Path, init: Path, tmp_path: Path) -> None:
    assets = tmp_path / "assets"
    assets.mkdir()
    run(texts, init, tmp_path / "both").save()
    package(tmp_path / "both", TOKENIZER, assets)
    before = {name: (assets / f"{name}.safetensors").read_bytes() for name in ("encoder", "decoder")}
    going = run(texts, assets, tmp_path / "decoder", replace(RECIPE, encoder_rate=0.0, decoder_rate=0.01))
    for batch in islice(going.batches.stream(), 3):
        going.train_on(batch)
    going.save()
    package(tmp_path / "decoder", TOKENIZER, assets)
    assert (assets / "encoder.safetensors").read_bytes() == before["encoder"]
    assert (assets / "decoder.safetensors").read_bytes() != before["decoder"]
    assert read_metadata(assets / "decoder.safetensors")["encoder"] == builtin.fingerprint(
        assets / "encoder.safetensors"
    )


def test_packaging_scores_both_and_refuses_a_loss(
    texts: Path, init: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(texts, "valid.tsv.gz", [f"eng\tdeu\t{a}\t{b}" for a, b in zip(ENGLISH, GERMAN, strict=True)])
    run(texts, init, tmp_path / "out").save()
    # The small model writes nothing sensible, so its packed twin is read with the real one's sizes replaced too.
    monkeypatch.setattr(builtin, "BUILTIN_ENCODER", space.BUILTIN_ENCODER)
    monkeypatch.setattr(builtin, "BUILTIN_DECODER", space.BUILTIN_DECODER)
    package(tmp_path / "out", TOKENIZER, tmp_path, texts)
    scores = json.loads(read_metadata(tmp_path / "decoder.safetensors")["bleu"])
    assert scores["fp32"].keys() == scores["int8"].keys() >= {"english_to_itself", "to_english"}
    before = (tmp_path / "decoder.safetensors").read_bytes()
    bleus = iter([{"a": 50.0}, {"a": 49.4}])
    monkeypatch.setattr(space, "bleu", lambda *_: next(bleus))
    with pytest.raises(TrainingError, match=r"loses 0.60 BLEU"):
        package(tmp_path / "out", TOKENIZER, tmp_path, texts)
    assert (tmp_path / "decoder.safetensors").read_bytes() == before


def test_a_broken_run_ends_where_an_unbroken_one_does(texts: Path, init: Path, tmp_path: Path) -> None:
    whole = run(texts, init, tmp_path / "whole")
    whole.go(minutes=100)
    broken = run(texts, init, tmp_path / "broken")
    for batch in islice(broken.batches.stream(), 3):
        broken.train_on(batch)
    broken.save()
    for batch in islice(broken.batches.stream(3), 2):  # these steps are lost with the process
        broken.train_on(batch)
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

    def interrupted(batch):
        if going.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return train_on(batch)

    monkeypatch.setattr(going, "train_on", interrupted)
    going.go(minutes=100)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert going.step == 3
    assert run(texts, init, tmp_path / "out").step == 3


def test_a_step_that_is_not_finite_is_skipped_and_ten_stop_the_run(texts: Path, init: Path, tmp_path: Path) -> None:
    going = run(texts, init, tmp_path / "out", replace(RECIPE, steps=100))
    batches = going.batches.stream()
    going.train_on(next(batches))
    before = going.parts["decoder"].exact.detach().clone()
    going.parts["decoder"].computing[0] = torch.nan
    going.train_on(next(batches))
    assert (going.step, going.skipped) == (2, 1)
    assert torch.equal(going.parts["decoder"].exact, before)
    with pytest.raises(TrainingError, match="not finite 10 times in a row"):
        going.go(minutes=100)
    assert going.skipped == 10


def test_two_processes_share_a_run(texts: Path, init: Path, tmp_path: Path) -> None:
    script = tmp_path / "small.py"
    script.write_text(
        "import sys\n"
        "from dataclasses import replace\n"
        "from engine.training import space\n"
        "sizes = {'width': 32, 'layers': 1, 'heads': 2, 'hidden': 32}\n"
        "space.BUILTIN_ENCODER = replace(space.BUILTIN_ENCODER, **sizes)\n"
        "space.BUILTIN_DECODER = replace(space.BUILTIN_DECODER, **sizes)\n"
        "sys.exit(space.main())\n"
    )
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = ["--corpus", texts, "--init", init, "--tokenizer", TOKENIZER, "--out", tmp_path / "out"]
    numbers = ["--tokens", 150, "--steps", 3, "--warmup", 2, "--decay", 1]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [str(part) for part in (*torchrun, script, *options, *numbers)]
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=120)
    saved = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=True)
    assert (saved["step"], saved["seen"]) == (3, 6)
    # One process that averages the gradients of the same batches takes the same steps, to bf16's rounding.
    alone = run(texts, init, tmp_path / "alone", replace(RECIPE, steps=3, warmup=2, decay=1))
    alone.train_on(next(alone.batches.stream()))
    moved = (alone.parts["encoder"].exact - saved["encoder"]["exact"]).abs().max()
    assert 0 < moved < 0.01


def test_validation_notes_scores(texts: Path, init: Path, tmp_path: Path) -> None:
    held = [f"eng\tdeu\t{a}\t{b}" for a, b in zip(ENGLISH[:2], GERMAN[:2], strict=True)]
    written(texts, "valid.tsv.gz", held)
    going = run(texts, init, tmp_path / "out", replace(RECIPE, steps=1))
    assert len(going.batches.left) == 2  # what is held out is not trained on
    going.go(minutes=100)
    (record,) = map(json.loads, (tmp_path / "out" / "log.jsonl").read_text().splitlines())
    assert record["step"] == 1
    assert {"english_to_itself", "to_english", "from_english"} <= record["valid"].keys()


def test_batches_are_the_same_for_the_same_seed_and_fill_their_tokens(texts: Path) -> None:
    pieces = sentencepiece.SentencePieceProcessor(str(TOKENIZER))
    batches = Batches(texts, pieces, Mixture(tokens=200))
    first = list(islice(batches.stream(), 120))
    assert list(islice(batches.stream(105), 15)) == first[105:]
    assert list(islice(Batches(texts, pieces, Mixture(tokens=200, seed=1)).stream(), 3)) != first[:3]
    for batch in first:
        cost = sum(unit.cost for unit in batch)
        assert 100 < cost < 300
    langs = {target.lang for batch in first for unit in batch for target in unit.targets}
    assert langs == {0, 1, 2, 3}


def test_corruption_keeps_something() -> None:
    import random

    rng = random.Random(0)
    ids = list(range(10, 30))
    for _ in range(50):
        found = corrupted(ids, rng)
        assert found and set(found) <= {1, *ids}
    assert corrupted([5], rng)


def test_repetitions_and_wild_translations_are_left_out(texts: Path) -> None:
    written(
        texts,
        "pairs.tsv.gz",
        [
            "eng\tdeu\tGood morning!\tGuten Morgen!",
            "eng\tdeu\tgood morning\tguten morgen",
            "eng\tdeu\tHi.\t" + "Lang " * 20,
        ],
    )
    assert [p[2] for p in corpus.distinct_pairs(texts)] == ["Good morning!"]
    written(texts, "sentences.tsv.gz", ["eng\tGood morning!", "eng\tGOOD  morning", "deu\tGood morning"])
    assert [lang for lang, _ in corpus.distinct_sentences(texts)] == ["eng", "deu"]


@pytest.mark.parametrize(
    ("name", "lines", "sentence"),
    [
        ("pairs.tsv.gz", ["eng\tdeu\tOnly three columns."], "pairs.tsv.gz, line 1: 3 columns where 4 are needed"),
        ("pairs.tsv.gz", ["eng\txyz\tA.\tB."], "unknown language 'xyz'"),
        (
            "sentences.tsv.gz",
            ["eng\tA sentence.", "klingon\tB."],
            "sentences.tsv.gz, line 2: unknown language 'klingon'",
        ),
        ("sentences.tsv.gz", [], "sentences.tsv.gz is empty"),
        ("documents.jsonl.gz", ["{no json"], "documents.jsonl.gz, line 1: not a document record"),
        ("documents.jsonl.gz", ['{"lang": "eng", "split": "train"}'], "not a document record"),
    ],
)
def test_a_bad_corpus_is_named(texts: Path, init: Path, tmp_path: Path, name: str, lines: list[str], sentence) -> None:
    written(texts, name, lines)
    with pytest.raises(CorpusError, match=sentence):
        run(texts, init, tmp_path / "out")


def test_main_says_one_sentence(texts: Path, init: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (texts / "pairs.tsv.gz").write_bytes(b"no gzip")
    options = ["--corpus", texts, "--init", init, "--tokenizer", TOKENIZER, "--out", tmp_path / "out"]
    assert space.main([str(option) for option in options]) == 2
    assert "pairs.tsv.gz can't be read" in capsys.readouterr().err
    assert space.main(["--package", str(tmp_path), "--out", str(tmp_path / "none")]) == 2
    assert "train first" in capsys.readouterr().err


def test_another_models_checkpoint_is_refused(texts: Path, init: Path, tmp_path: Path) -> None:
    pieces = sentencepiece.SentencePieceProcessor(str(TOKENIZER))
    state = load_weights(init)
    wide = tmp_path / "wide.safetensors"
    save_file(state | {"decoder.norm.weight": torch.ones(7)}, wide)
    with pytest.raises(WeightsError, match=r"wide.safetensors holds another model: decoder.norm.weight is \[7\]"):
        initialize(SpaceModel(), wide, pieces, fresh=False)
    part = tmp_path / "part.safetensors"
    save_file({name: tensor for name, tensor in state.items() if name != "decoder.norm.weight"}, part)
    with pytest.raises(WeightsError, match=r"decoder.norm.weight is missing"):
        initialize(SpaceModel(), part, pieces, fresh=False)
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


# --- starting from multilingual-e5-small


@pytest.fixture
def hugging_face(tmp_path: Path) -> Path:
    """A folder in e5's format: random weights, and the shipped tokenizer's pieces in fairseq's order."""
    folder = tmp_path / "e5"
    folder.mkdir()
    proto = ModelProto()
    proto.ParseFromString(TOKENIZER.read_bytes())
    pieces = [(piece.piece, piece.score) for piece in proto.pieces][4:4000]
    pieces.insert(100, ("▁unused", -9.0))
    pieces.insert(101, ("日", -9.0))
    del proto.pieces[:]
    for name, kind in (("<unk>", 2), ("<s>", 3), ("</s>", 3)):
        proto.pieces.add(piece=name, score=0, type=kind)
    for name, score in pieces:
        proto.pieces.add(piece=name, score=score)
    spec = proto.trainer_spec
    spec.pad_id, spec.unk_id, spec.bos_id, spec.eos_id, spec.vocab_size = -1, 0, 1, 2, len(proto.pieces)
    (folder / "sentencepiece.bpe.model").write_bytes(proto.SerializeToString())
    torch.manual_seed(3)
    sizes = {"query": (384, 384), "key": (384, 384), "value": (384, 384)}
    state = {
        "embeddings.word_embeddings.weight": torch.randn(len(proto.pieces) + 1, 384),
        "embeddings.position_embeddings.weight": torch.randn(512, 384),
        "embeddings.token_type_embeddings.weight": torch.randn(2, 384),
        "embeddings.LayerNorm.weight": torch.randn(384),
        "embeddings.LayerNorm.bias": torch.randn(384),
    }
    names = {f"attention.self.{name}": size for name, size in sizes.items()} | {
        "attention.output.dense": (384, 384),
        "attention.output.LayerNorm": (384,),
        "intermediate.dense": (1536, 384),
        "output.dense": (384, 1536),
        "output.LayerNorm": (384,),
    }
    for i in range(12):
        for name, size in names.items():
            state[f"encoder.layer.{i}.{name}.weight"] = torch.randn(size) * 0.05
            state[f"encoder.layer.{i}.{name}.bias"] = torch.randn(size[0]) * 0.05
    save_file(state, folder / "model.safetensors")
    return folder


def test_the_tokenizer_is_pruned_to_what_the_corpus_uses(hugging_face: Path, texts: Path) -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_proto=e5.pruned_tokenizer(hugging_face, texts, 50))
    assert pieces.vocab_size() == 50
    assert [pieces.id_to_piece(i) for i in range(4)] == ["<pad>", "<unk>", "<s>", "</s>"]
    assert (pieces.pad_id(), pieces.unk_id(), pieces.bos_id(), pieces.eos_id()) == (0, 1, 2, 3)
    assert pieces.unk_id() not in pieces.encode("Der Hund schläft im Garten.")  # every letter has a piece
    assert pieces.decode(pieces.encode("The dog sleeps.")) == "The dog sleeps."
    kept = {pieces.id_to_piece(i) for i in range(50)}
    assert not kept & {"▁unused", "日"}
    with pytest.raises(TrainingError, match="uses only"):
        e5.pruned_tokenizer(hugging_face, texts, 3000)


def test_the_encoder_starts_as_e5(hugging_face: Path, texts: Path) -> None:
    pieces = sentencepiece.SentencePieceProcessor(model_proto=e5.pruned_tokenizer(hugging_face, texts, 50))
    state = e5.encoder_state(hugging_face, pieces)
    encoder = TextEncoder(replace(BUILTIN_ENCODER, vocabulary=50)).eval()
    missing = encoder.load_state_dict({name.removeprefix("encoder."): t for name, t in state.items()}, strict=False)
    assert {name.split(".")[0] for name in missing.missing_keys} == {"pool_score", "pool_value", "project"}
    # The same weights in torch's own post-norm layers, at the original's rows.
    weights = load_weights(hugging_face / "model.safetensors")
    original = sentencepiece.SentencePieceProcessor(str(hugging_face / "sentencepiece.bpe.model"))
    ids = pieces.encode("The dog sleeps.")
    rows = [0, *(original.piece_to_id(pieces.id_to_piece(i)) + 1 for i in ids), 2]
    x = weights["embeddings.word_embeddings.weight"][rows]
    x = x + weights["embeddings.position_embeddings.weight"][: len(rows)]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    norm = [weights[f"embeddings.LayerNorm.{kind}"] for kind in ("weight", "bias")]
    x = nn.functional.layer_norm(x, (384,), *norm, 1e-12)[None]
    mine = encoder.norm(encoder.embed(torch.tensor([[2, *ids, 3]])) + encoder.positions[: len(rows)])
    for i, layer in enumerate(encoder.layers):
        theirs = nn.TransformerEncoderLayer(
            384, 12, 1536, 0.0, "gelu", layer_norm_eps=1e-12, batch_first=True, norm_first=False
        ).eval()
        own = {}
        for kind in ("weight", "bias"):
            prefix = f"encoder.layer.{i}"
            attention = [weights[f"{prefix}.attention.self.{n}.{kind}"] for n in ("query", "key", "value")]
            own[f"self_attn.in_proj_{kind}"] = torch.cat(attention)
            for name, their_name in (
                ("self_attn.out_proj", "attention.output.dense"),
                ("norm1", "attention.output.LayerNorm"),
                ("linear1", "intermediate.dense"),
                ("linear2", "output.dense"),
                ("norm2", "output.LayerNorm"),
            ):
                own[f"{name}.{kind}"] = weights[f"{prefix}.{their_name}.{kind}"]
        theirs.load_state_dict(own)
        with torch.no_grad():
            x, mine = theirs(x), layer(mine)
    assert torch.allclose(x, mine, atol=1e-4)


def test_what_is_not_e5_is_refused(hugging_face: Path, tmp_path: Path) -> None:
    pieces = sentencepiece.SentencePieceProcessor(str(TOKENIZER))
    with pytest.raises(WeightsError, match="not made from e5's"):
        e5.encoder_state(hugging_face, pieces)
    with pytest.raises(WeightsError, match=r"has no sentencepiece.bpe.model"):
        e5.encoder_state(tmp_path, pieces)
