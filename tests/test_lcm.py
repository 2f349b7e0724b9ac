"""Concept models: blocks, normalizer, Base-LCM, generator, and the training recipe on a tiny synthetic corpus."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import Cancelled, TrainingError, VectorError, WeightsError
from engine.lcm import Stop, generate, load_lcm
from engine.lcm.base import BaseLCM, load, save
from engine.lcm.blocks import Cache, Dimensions, Stack
from engine.lcm.normalizer import Normalizer
from engine.spaces import ConceptSpace, load_space
from engine.training import lcm as training

SMALL = Dimensions(concept=16, width=32, layers=2, heads=4, hidden=48, context=12)


@pytest.fixture
def model() -> BaseLCM:
    """A small model with random weights whose output depends on its input."""
    torch.manual_seed(1)
    model = BaseLCM(SMALL).eval()
    torch.nn.init.normal_(model.postnet.weight, std=0.3)
    for name, weight in model.stack.named_parameters():
        if name.endswith("out.weight"):
            torch.nn.init.normal_(weight, std=0.2)
    model.end.copy_(torch.randn(16))
    model.end_threshold.fill_(2.0)  # no document ends, unless a test says so
    return model


@pytest.fixture(scope="module")
def space() -> ConceptSpace:
    return load_space()


def told(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 16)).astype(np.float32)


# ---- blocks ---------------------------------------------------------------------------------------------------------


def test_no_position_sees_a_later_one() -> None:
    torch.manual_seed(0)
    stack = Stack(SMALL).eval()
    x = torch.randn(2, 9, 32)
    changed = x.clone()
    changed[:, 5:] += 1
    a, b = stack(x), stack(changed)
    assert torch.equal(a[:, :5], b[:, :5])
    assert (a[:, 5:] - b[:, 5:]).abs().min(-1).values.max() > 0


@pytest.mark.parametrize("pieces", [(1,) * 9, (4, 5), (1, 6, 2)])
def test_cache_equals_the_full_pass(pieces: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    stack = Stack(SMALL).eval()
    x = torch.randn(2, 9, 32)
    cache = Cache(SMALL, 2, x)
    steps = torch.cat([stack(part, cache) for part in x.split(pieces, dim=1)], dim=1)
    assert torch.allclose(steps, stack(x), atol=1e-5)


def test_order_matters(model: BaseLCM) -> None:
    forward = model.predict(told(6)).concept
    swapped = told(6)[[1, 0, 2, 3, 4, 5]]
    assert np.abs(forward - model.predict(swapped).concept).max() > 1e-4


# ---- normalizer -----------------------------------------------------------------------------------------------------


def test_normalizer_is_robust_and_has_an_inverse() -> None:
    rng = np.random.default_rng(0)
    data = rng.standard_normal((4000, 16)).astype(np.float32) * np.linspace(0.1, 9, 16, dtype=np.float32) + 5
    data[:40] = 1e6  # outliers, which mean and standard deviation would follow
    data[:, 3] = 7  # never varies
    normalizer = Normalizer(16)
    normalizer.fit(data)
    x = torch.from_numpy(data[100:])
    values = normalizer.normalize(x)
    varying = [i for i in range(16) if i != 3]
    assert values[:, varying].mean(0).abs().max() < 0.1
    assert (values[:, varying].std(0) - 1).abs().max() < 0.1
    assert torch.isfinite(values).all()
    assert torch.allclose(normalizer.denormalize(values), x, atol=1e-4)


# ---- prediction -----------------------------------------------------------------------------------------------------


def test_reading_step_by_step_equals_reading_at_once(model: BaseLCM) -> None:
    document = told(30)  # twice the context and more
    reading = model.read()
    reading.predict(document[:0])
    for i in range(len(document)):
        step = reading.predict(document[i : i + 1])
        whole = model.predict(document[: i + 1])
        assert np.allclose(step.concept, whole.concept, atol=1e-4), i
        assert step.end == pytest.approx(whole.end, abs=1e-4)


def test_long_prefix_is_read_through_its_last_window(model: BaseLCM) -> None:
    document = told(40)
    assert np.array_equal(model.predict(document).concept, model.predict(document[-SMALL.context :]).concept)


def test_empty_prefix_is_the_beginning_of_a_document(model: BaseLCM) -> None:
    first = model.predict(np.zeros((0, 16), np.float32))
    assert first.concept.shape == (16,) and np.isfinite(first.concept).all()
    assert len(generate(model, told(0), 2)) == 2


def test_vectors_that_cannot_be_read_are_refused(model: BaseLCM) -> None:
    with pytest.raises(VectorError, match=r"\(2, 8\)"):
        model.predict(np.zeros((2, 8), np.float32))
    with pytest.raises(VectorError, match="finite"):
        model.predict(np.full((2, 16), np.nan, np.float32))


def test_end_is_near_one_at_the_end_concept(model: BaseLCM) -> None:
    model.end_fit.copy_(torch.tensor([20.0, -10.0]))
    assert float(model.ending(model.end)) > 0.99
    assert float(model.ending(-model.end)) < 0.01


# ---- generator ------------------------------------------------------------------------------------------------------


def test_a_seed_gives_one_answer_and_seeds_differ(model: BaseLCM) -> None:
    def run(seed: int, temperature: float = 0.7) -> np.ndarray:
        return generate(model, told(5), 6, seed=seed, temperature=temperature)

    assert np.array_equal(run(3), run(3))
    assert np.abs(run(3) - run(4)).max() > 0.1
    assert np.array_equal(run(3, 0.0), run(4, 0.0))


def test_generated_concepts_are_as_long_as_sentences(model: BaseLCM) -> None:
    model.norm.fill_(4.0)
    made = generate(model, told(3), 5, temperature=0.5)
    assert made.dtype == np.float32 and made.shape == (5, 16)
    assert np.allclose(np.linalg.norm(made, axis=1), 4.0, atol=1e-4)


def test_stops_at_the_end_of_the_document(model: BaseLCM) -> None:
    class Ending:
        """Reads like the model, and sees the end after the seventh concept."""

        def __init__(self) -> None:
            self.reading, self.count = BaseLCM.read(model), 0

        def predict(self, new: np.ndarray):
            self.count += len(new)
            return replace(self.reading.predict(new), end=0.9 if self.count >= 7 else 0.1)

    model.read = Ending  # type: ignore[method-assign, assignment]
    model.end_threshold.fill_(0.5)
    assert len(generate(model, told(4), 20, seed=1, temperature=0.5)) == 3
    assert len(generate(model, told(9), 20)) == 0  # it has ended already
    assert len(generate(model, told(9), 20, temperature=0.5, stop=Stop(minimum=4))) == 4
    assert len(generate(model, told(4), 8, temperature=0.5, stop=Stop(end=0.95))) == 8


def test_stops_when_it_says_the_same_again(model: BaseLCM) -> None:
    said = iter([*told(3, seed=9), told(3, seed=9)[1] * 1.01, *told(9, seed=10)])
    made = generate(model, told(4), 20, refine=lambda _: next(said))
    assert len(made) == 3
    said = iter([*told(3, seed=9), told(3, seed=9)[1], *told(9, seed=10)])
    assert len(generate(model, told(4), 8, refine=lambda _: next(said), stop=Stop(repetition=2.0))) == 8


def test_context_is_what_was_refined(model: BaseLCM) -> None:
    fixed = told(1, seed=5)[0]
    made = generate(model, told(4), 1, refine=lambda _: fixed)
    assert np.array_equal(made, fixed[None])
    seen: list[np.ndarray] = []

    def refine(concept: np.ndarray) -> np.ndarray:
        seen.append(concept)
        return fixed

    generate(model, told(4), 2, refine=refine, stop=Stop(repetition=2.0))
    expected = model.draw(model.predict(np.concatenate([told(4), fixed[None]])).concept, 0.0, np.random.default_rng(0))
    assert np.allclose(seen[1], expected, atol=1e-4)


def test_concepts_come_one_by_one_and_can_be_cancelled(model: BaseLCM) -> None:
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 3:
            raise Cancelled

    came: list[np.ndarray] = []
    with pytest.raises(Cancelled):
        generate(model, told(2), 9, temperature=0.5, on_concept=came.append, progress=progress)
    assert seen == [(1, 9), (2, 9), (3, 9)] and len(came) == 3


# ---- weights --------------------------------------------------------------------------------------------------------


def test_saved_weights_predict_alike(model: BaseLCM, tmp_path: Path) -> None:
    path = tmp_path / "lcm-base.safetensors"
    save(path, model, "builtin", "0123456789abcdef")
    again = load(path, "builtin", 16, "0123456789abcdef")
    a, b = model.predict(told(5)).concept, again.predict(told(5)).concept
    assert np.linalg.norm(a - b) < 0.05 * np.linalg.norm(a)  # int8


@pytest.mark.parametrize(
    ("space", "concept", "fingerprint", "message"),
    [
        ("sonar", 16, "0123456789abcdef", "space 'builtin', not for 'sonar'"),
        ("builtin", 1024, "0123456789abcdef", "16 components; the space has 1024"),
        ("builtin", 16, "fedcba9876543210", "other weights of this space"),
    ],
)
def test_weights_of_another_space_are_refused(
    model: BaseLCM, tmp_path: Path, space: str, concept: int, fingerprint: str, message: str
) -> None:
    path = tmp_path / "lcm-base.safetensors"
    save(path, model, "builtin", "0123456789abcdef")
    with pytest.raises(WeightsError, match=message):
        load(path, space, concept, fingerprint)


def test_damaged_and_missing_files_are_refused(model: BaseLCM, tmp_path: Path) -> None:
    path = tmp_path / "lcm-base.safetensors"
    with pytest.raises(WeightsError, match="missing"):
        load_lcm("base", folder=tmp_path)
    save(path, model, "builtin", "0123456789abcdef")
    whole = path.read_bytes()
    for cut in (len(whole) - 100, len(whole) // 2, 20, 0):
        path.write_bytes(whole[:cut])
        with pytest.raises(WeightsError):
            load_lcm("base", folder=tmp_path)
    with pytest.raises(WeightsError, match="no concept model called 'huge'"):
        load_lcm("huge")


# ---- training -------------------------------------------------------------------------------------------------------


def walks(documents: int = 60) -> training.Documents:
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
    return training.Documents(
        np.array(rows, np.float16), np.array(starts), valid, whole, ("eng",) * documents, end
    )  # fmt: skip


QUICK = training.Recipe(steps=120, batch=64, rate=5e-3, warmup=10, noise=0.02)


def test_training_learns_and_finds_the_ends(tmp_path: Path) -> None:
    documents = walks()
    model, facts = training.train(documents, SMALL, replace(QUICK, steps=400), tmp_path)
    scores = facts["scores"]
    assert scores["mse model"] < 0.7 * min(scores["mse mean"], scores["mse repeat"])
    assert scores["contrast model"] > max(scores["contrast repeat"], scores["contrast mean"])
    before = model.end_fit.clone()
    training.calibrate(model, documents, np.flatnonzero(documents.valid))
    assert not torch.equal(before, model.end_fit)
    assert float(model.ending(model.end)) > float(model.ending(-model.end))
    assert 0 < float(model.end_threshold) < 1


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents, dims = walks(), replace(SMALL, dropout=0.1)
    recipe = replace(QUICK, steps=60)
    whole, _ = training.train(documents, dims, recipe, tmp_path / "whole")

    # The second run is stopped at step 25, as a power cut would: what counts is the checkpoint it left.
    real, taken = training.rate, []

    def cut(step: int, share: float, recipe: training.Recipe) -> float:
        taken.append(step)
        if step == 25 and len(taken) <= 26:
            raise KeyboardInterrupt
        return real(step, share, recipe)

    monkeypatch.setattr(training, "rate", cut)
    with pytest.raises(KeyboardInterrupt):
        training.train(documents, dims, recipe, tmp_path / "broken", save_minutes=0)
    resumed, facts = training.train(documents, dims, recipe, tmp_path / "broken", save_minutes=0)
    assert facts["steps"] == 60 and taken.count(25) == 2 and taken.count(24) == 1
    for name, tensor in whole.state_dict().items():
        assert torch.allclose(tensor, resumed.state_dict()[name], atol=1e-6), name


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    documents = walks()
    documents.concepts[documents.starts[12] :] = np.inf
    with pytest.raises(TrainingError, match="ten times in a row"):
        training.train(documents, SMALL, QUICK, tmp_path)


class Lengths:
    """An encoder that needs no weights: a sentence's vector is made from its letters."""

    name, fingerprint = "letters", "0" * 16

    def __init__(self) -> None:
        self.encoded = 0

    def fits(self, sentence: str) -> bool:
        return True

    def encode(self, sentences):
        self.encoded += len(sentences)
        return np.array([[len(s), *map(ord, s[:3].ljust(3))] for s in sentences], np.float32)


def test_encoding_goes_on_where_it_stopped(tmp_path: Path) -> None:
    found = [
        training.Text("eng", i < 2, i != 3, tuple(f"Sentence {j} of {i}." for j in range(3 + i))) for i in range(8)
    ]
    encoder = Lengths()
    partly = training.encode(found, encoder, tmp_path, minutes=1e-9, chunk=10)  # time for one chunk
    assert 0 < len(partly) < 8
    first = encoder.encoded
    documents = training.encode(found, encoder, tmp_path, minutes=1, chunk=10)
    sentences = sum(len(t.sentences) for t in found)
    assert len(documents) == 8
    assert encoder.encoded - first == sentences - (first - 1) + 1  # the rest, and "End of text." again
    assert np.array_equal(documents[5][:-1], encoder.encode(found[5].sentences))
    assert np.array_equal(documents[5][-1], documents.end)
    assert len(documents[3]) == 6  # cut off in the corpus: it has no end


def test_batches_hold_every_document_once_with_its_beginning() -> None:
    documents = walks()
    indices = np.flatnonzero(~documents.valid)
    stream = training.batches(documents, indices, SMALL.context, 64, 0, 0)
    seen = 0
    while seen < len(indices):
        batch = next(stream)
        seen += len(batch.starts)
        for row in range(len(batch.starts)):
            n = int(batch.real[row].sum())
            # What is read is what is predicted, one later.
            assert torch.equal(batch.inputs[row, 1:n], batch.targets[row, : n - 1])
            assert n <= SMALL.context
    assert seen == len(indices)


# ---- the weights that ship ------------------------------------------------------------------------------------------

STORY = [
    "Once upon a time, there was a little girl named Lily.",
    "She loved to play in the garden with her dog.",
    "One day, the dog ran away into the forest.",
    "Lily was very sad and began to cry.",
]


def test_shipped_weights_fit_the_space_and_its_size(space: ConceptSpace) -> None:
    model = load_lcm("base", space)
    assert model.dims.concept == space.dim
    assert (Path(__file__).parents[1] / "assets" / "lcm-base.safetensors").stat().st_size <= 24 * 2**20


def test_shipped_model_expects_its_own_story_more_than_another(space: ConceptSpace) -> None:
    model = load_lcm("base", space)
    story = space.encode(STORY, "eng_Latn")
    others = space.encode(
        ["The stock market fell by two percent.", "I have never been to Boston.", "Where is the nearest bank?"],
        "eng_Latn",
    )
    for i in range(1, len(story)):
        expected = model.predict(story[:i]).concept
        assert expected @ story[i] > (others @ expected).max(), STORY[i]


def test_shipped_model_ends_stories(space: ConceptSpace) -> None:
    model = load_lcm("base", space)
    ending = space.encode(
        [
            *STORY,
            "Then her mother found the dog and brought it home.",
            "They all lived happily ever after.",
            "The end.",
        ],
        "eng_Latn",
    )
    assert model.predict(ending).end > 3 * model.predict(ending[:2]).end
    made = generate(model, ending[:3], 80, stop=Stop(repetition=2.0))
    assert len(made) < 80


def test_shipped_model_goes_on_in_sentences(space: ConceptSpace) -> None:
    model = load_lcm("base", space)
    story = space.encode(STORY, "eng_Latn")

    def refine(concept: np.ndarray) -> np.ndarray:
        return space.encode(space.decode(concept[None], "eng_Latn"), "eng_Latn")[0]

    first = generate(model, story, 3, seed=1, temperature=0.6, refine=refine)
    assert len(first)
    assert np.array_equal(first, generate(model, story, 3, seed=1, temperature=0.6, refine=refine))
    other = [generate(model, story, 3, seed=seed, temperature=0.6, refine=refine) for seed in (2, 3, 4)]
    assert any(o.shape != first.shape or np.abs(o - first).max() > 0.1 for o in other)
