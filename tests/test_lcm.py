"""Concept models: blocks, normalizer, diffusion, quantizer, the kinds, how they read, generate and are stored."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import Cancelled, VectorError, WeightsError
from engine.lcm import KINDS, ConceptModel, Reading, Sampling, Stop, available, generate, generate_all, infill, load_lcm
from engine.lcm.blocks import Cache, Dimensions, Stack
from engine.lcm.diffusion import Schedule, denoise_path
from engine.lcm.model import Batch
from engine.lcm.normalizer import Normalizer
from engine.lcm.one_tower import OneTower
from engine.lcm.quantized import QuantD
from engine.lcm.quantizer import ResidualQuantizer
from engine.lcm.sonar_llm import SonarLLM
from engine.lcm.two_tower import Prepared, Sight, TwoTower
from engine.lcm.weights import dimensions, load, save
from engine.spaces import ConceptSpace, load_space

SMALL = Dimensions(
    concept=16, width=32, layers=2, heads=4, hidden=48, context=12, denoiser=2, denoiser_hidden=24, codebooks=3, units=8
)  # fmt: skip
QUICK = Sampling(steps=5)
ON = Stop(end=2.0, repetition=2.0)  # no document ends


def made(kind: str) -> ConceptModel:
    """A small model with random weights whose output depends on its input."""
    torch.manual_seed(1)
    model = KINDS[kind](SMALL).eval().requires_grad_(False)
    for weight in model.parameters():
        if weight.ndim == 2:
            torch.nn.init.normal_(weight, std=0.3)
    model.prepare(torch.randn(400, 16), 0)
    model.end.copy_(torch.randn(16))
    model.end_threshold.fill_(2.0)  # no document ends, unless a test says so
    return model


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> ConceptModel:
    return made(request.param)


@pytest.fixture(scope="module")
def space() -> ConceptSpace:
    return load_space()


def told(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 16)).astype(np.float32)


def expected(model: ConceptModel, document: np.ndarray) -> np.ndarray:
    return Reading(model, [document]).expect()[0][0]


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
    cache = Cache(SMALL, SMALL.layers, 2, x)
    steps = []
    for part in x.split(pieces, dim=1):
        steps.append(stack(part, cache))
        cache.advance(torch.full((2,), part.shape[1]))
    assert torch.allclose(torch.cat(steps, dim=1), stack(x), atol=1e-5)


def test_rows_of_a_cache_may_differ_in_length_and_leave() -> None:
    torch.manual_seed(0)
    stack = Stack(SMALL).eval()
    x = torch.randn(3, 6, 32)
    cache = Cache(SMALL, SMALL.layers, 3, x)
    stack(x[:, :5], cache)
    cache.advance(torch.tensor([2, 5, 3]))
    cache.keep([0, 2])
    step = stack(torch.stack([x[0, 2], x[2, 3]])[:, None], cache)
    assert torch.allclose(step[0, 0], stack(x[:1, :3])[0, 2], atol=1e-5)
    assert torch.allclose(step[1, 0], stack(x[2:, :4])[0, 3], atol=1e-5)


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


# ---- diffusion ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("curve", ["cosine", "sigmoid", "linear"])
def test_schedules_fall_from_nearly_all_to_nothing(curve: str) -> None:
    kept = Schedule(curve=curve).kept  # type: ignore[arg-type]
    assert (kept.diff() < 0).all()
    assert kept[0] > 0.8 and kept[-1] == 0
    assert Schedule(curve=curve, zero_terminal_snr=False).kept[-1] > 0  # type: ignore[arg-type]


def test_cosine_schedule_is_the_published_curve() -> None:
    # alpha bar of Nichol & Dhariwal, equation 17, relative to its start; the last beta is capped there.
    curve = [np.cos((t / 100 + 0.008) / 1.008 * np.pi / 2) ** 2 for t in range(101)]
    kept = Schedule(zero_terminal_snr=False).kept.numpy()
    assert np.allclose(kept[:99], np.array(curve[1:100]) / curve[0], atol=1e-5)


def test_training_often_starts_where_nothing_is_left_of_the_concept() -> None:
    torch.manual_seed(0)
    t = Schedule().draw(torch.ones(100, 200, dtype=torch.bool))
    counts = t.flatten().bincount(minlength=100) / t.numel()
    assert counts[99] == pytest.approx(0.307, abs=0.02)
    assert counts[:99].min() > 0.004 and counts[:99].max() < 0.011


def test_timesteps_trail() -> None:
    assert Schedule(steps=1000).timesteps(10) == [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]
    with pytest.raises(ValueError, match="Between 1 and 100"):
        Schedule().timesteps(101)


@pytest.mark.parametrize("prediction", ["sample", "epsilon", "v"])
def test_what_is_predicted_leads_back_to_concept_and_noise(prediction: str) -> None:
    schedule = Schedule(prediction=prediction, zero_terminal_snr=False)  # type: ignore[arg-type]
    concepts, noise = torch.randn(4, 16), torch.randn(4, 16)
    for t in (1, 40, 90):
        at = torch.full((4,), t)
        noisy, target = schedule.add_noise(concepts, noise, at), schedule.target(concepts, noise, at)
        assert torch.allclose(schedule.concept(target, noisy, t), concepts, atol=1e-3)
        assert torch.allclose(schedule.noise(target, noisy, t), noise, atol=1e-3)


def test_noise_cannot_be_predicted_where_nothing_else_is_left() -> None:
    with pytest.raises(ValueError, match="zero SNR"):
        Schedule(prediction="epsilon")


@pytest.mark.parametrize("prediction", ["sample", "v"])
@pytest.mark.parametrize(
    "sampling", [Sampling(guidance=1), Sampling(), Sampling(eta=0.5), Sampling(steps=7, rescale=0, epsilon_scaling=1)]
)
def test_a_perfect_network_is_denoised_to_its_concept(prediction: str, sampling: Sampling) -> None:
    schedule = Schedule(prediction=prediction)  # type: ignore[arg-type]
    goal, generator = torch.randn(3, 16), torch.Generator().manual_seed(0)

    def predict(x: torch.Tensor, i: int, t: int) -> tuple[torch.Tensor, torch.Tensor]:
        kept = schedule.kept[t]
        noise = (x - kept.sqrt() * goal) / (1 - kept).sqrt()
        return (out := schedule.target(goal, noise, torch.full((3,), t))), out

    path = list(
        denoise_path(schedule, sampling, torch.randn(3, 16), predict, lambda: torch.randn(3, 16, generator=generator))
    )
    assert len(path) == sampling.steps
    assert torch.allclose(path[-1], goal, atol=0.02)


@pytest.mark.parametrize("steps", [1, 7, 10, 40, 100])
def test_each_step_leaves_the_noise_that_the_next_timestep_stands_for(steps: int) -> None:
    """Also where the steps do not divide the schedule."""
    schedule, goal, noise = Schedule(), torch.randn(2, 16), torch.randn(2, 16)

    def predict(x: torch.Tensor, i: int, t: int) -> tuple[torch.Tensor, None]:
        assert torch.allclose(x, schedule.add_noise(goal, noise, torch.tensor([t])), atol=1e-4), (i, t)
        return goal, None

    *_, concept = denoise_path(schedule, Sampling(steps=steps, guidance=1, epsilon_scaling=1), noise, predict)
    assert torch.equal(concept, goal)


def test_guidance_moves_away_from_what_is_said_without_the_document() -> None:
    schedule, sampled, free = Schedule(), torch.ones(1, 16), torch.zeros(1, 16)
    free[:, 8:] = 2.0

    def last(guidance: float) -> torch.Tensor:
        how = Sampling(steps=10, guidance=guidance, rescale=0)
        *_, concept = denoise_path(schedule, how, torch.zeros(1, 16), lambda x, i, t: (sampled, free))
        return concept

    assert torch.allclose(last(1.0), sampled, atol=1e-2)
    assert (last(3.0)[:, :8] > 1.2).all() and (last(3.0)[:, 8:] < 0.8).all()


def test_dynamic_thresholding_bounds_the_estimate() -> None:
    how = Sampling(steps=4, threshold=0.9, ceiling=3.0)
    big = torch.randn(2, 16) * 50
    for concept in denoise_path(Schedule(), how, torch.randn(2, 16), lambda x, i, t: (big, None)):
        assert concept.abs().max() <= 1


# ---- quantizer ------------------------------------------------------------------------------------------------------


def test_each_codebook_leaves_less_of_the_concepts() -> None:
    torch.manual_seed(0)
    concepts = torch.randn(600, 16)
    quantizer = ResidualQuantizer(4, 16, 16)
    left = quantizer.fit(concepts, 0)
    assert all(b < a for a, b in zip([1.0, *left[:-1]], left, strict=True))
    codes = quantizer.encode(concepts)
    sums = quantizer.partial(codes)
    assert codes.shape == (600, 4) and sums.shape == (600, 5, 16)
    assert torch.equal(sums[:, 0], torch.zeros(600, 16))
    assert float((sums[:, -1] - concepts).square().mean() / concepts.square().mean()) == pytest.approx(
        left[-1], rel=1e-3
    )
    again = ResidualQuantizer(4, 16, 16)
    again.fit(concepts, 0)
    assert torch.equal(again.centroids, quantizer.centroids)


def test_the_mean_of_a_sum_of_units_is_the_sum_of_their_means() -> None:
    """What Quant-LCM-d expects is the mean of all concepts that its codebooks can make, by their probabilities."""
    model = made("quant-d")
    assert isinstance(model, QuantD)
    states = torch.randn(2, 32)
    shares = model.scores(states).softmax(-1)
    mean = torch.zeros(2, 16)
    for units in itertools.product(range(8), repeat=3):
        share = torch.stack([shares[:, level, unit] for level, unit in enumerate(units)]).prod(0)
        mean += share[:, None] * sum(model.quantizer.book(level)[unit] for level, unit in enumerate(units))
    assert torch.allclose(model.mean(states), mean, atol=1e-5)
    for level in range(3):  # one codebook's scores alone are the same
        alone = model.logits(states, torch.zeros(2, 16), level).softmax(-1)
        assert torch.allclose(alone, shares[:, level], atol=1e-5)


def test_means_follow_from_what_sonar_llm_would_write() -> None:
    model = made("sonar-llm")
    assert isinstance(model, SonarLLM)
    before = expected(model, told(4))
    predicted, turn = torch.randn(400, 16), torch.randn(16, 16)
    model.fit_means(predicted, predicted @ turn.T + 3)
    assert torch.allclose(model.slope, turn, atol=0.05) and torch.allclose(
        model.offset, torch.full((16,), 3.0), atol=0.1
    )
    wanted = model.normalizer.normalize(torch.from_numpy(before)) @ model.slope.T + model.offset
    assert np.allclose(expected(model, told(4)), model.normalizer.denormalize(wanted).numpy(), atol=1e-4)
    with torch.inference_mode():
        reading = Reading(model, [told(4)])
        written = reading.sample([np.random.default_rng(0)], temperature=0.0)[0]
    assert np.allclose(written / np.linalg.norm(written), before / np.linalg.norm(before), atol=1e-5)  # as it was


# ---- reading --------------------------------------------------------------------------------------------------------


def test_reading_step_by_step_equals_reading_at_once(model: ConceptModel) -> None:
    document = told(30)  # twice the context and more
    reading = Reading(model, [document[:0]])
    for i in range(len(document)):
        reading.read([document[i : i + 1]])
        step, end = reading.expect()
        whole, whole_end = Reading(model, [document[: i + 1]]).expect()
        assert np.allclose(step, whole, atol=1e-4), i
        assert end == pytest.approx(whole_end, abs=1e-4)


def test_reading_equals_what_training_sees(model: ConceptModel) -> None:
    documents = np.stack([told(8), told(8, seed=3)])
    batch = Batch(model.normalizer.normalize(torch.from_numpy(documents)), torch.ones(2, 8, dtype=torch.bool))
    with torch.inference_mode():
        all_at_once = model.normalizer.denormalize(model.expectations(batch)).numpy()
    for t in range(8):
        found, _ = Reading(model, [document[:t] for document in documents]).expect()
        assert np.allclose(found, all_at_once[:, t], atol=1e-4), t


def test_documents_of_any_length_are_read_together(model: ConceptModel) -> None:
    documents = [told(0), told(7, 1), told(3, 2), told(20, 3)]
    found, ends = Reading(model, documents).expect()
    assert found.shape == (4, 16) and ends.shape == (4,)
    for document, own in zip(documents, found, strict=True):
        assert np.allclose(own, expected(model, document), atol=1e-4)


def test_long_prefix_is_read_through_its_last_window(model: ConceptModel) -> None:
    document = told(40)
    assert np.array_equal(expected(model, document), expected(model, document[-SMALL.context :]))


def test_order_matters(model: ConceptModel) -> None:
    forward = expected(model, told(6))
    assert np.abs(forward - expected(model, told(6)[[1, 0, 2, 3, 4, 5]])).max() > 1e-4


def test_vectors_that_cannot_be_read_are_refused(model: ConceptModel) -> None:
    with pytest.raises(VectorError, match=r"\(2, 8\)"):
        Reading(model, [np.zeros((2, 8), np.float32)])
    with pytest.raises(VectorError, match="finite"):
        Reading(model, [np.full((2, 16), np.nan, np.float32)])


def test_end_is_near_one_at_the_end_concept(model: ConceptModel) -> None:
    model.end_fit.copy_(torch.tensor([20.0, -10.0]))
    end = model.normalizer.normalize(model.end)
    assert float(model.ending(end)) > 0.99
    assert float(model.ending(-end)) < 0.01


def test_a_loss_has_gradients_everywhere_it_should(model: ConceptModel) -> None:
    model.requires_grad_(True).train()
    concepts = torch.randn(3, 6, 16)
    model.loss(Batch(concepts, torch.ones(3, 6, dtype=torch.bool)), concepts).backward()
    without = [name for name, weight in model.named_parameters() if weight.grad is None]
    # Self-attention of a concept to itself alone needs no queries and keys; they share one matrix with the values.
    assert not without


def test_two_towers_worked_out_beforehand_say_the_same() -> None:
    """The fast path of generation equals the denoiser that is trained, with the document and without."""
    model = made("two-tower")
    assert isinstance(model, TwoTower)
    document, noisy = torch.randn(1, 7, 16), torch.randn(1, 16)
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    with torch.inference_mode():
        reading = Reading(model, [model.normalizer.denormalize(document[0]).numpy()])
        path = model.denoise_path(reading.memory, noisy, Sampling(steps=1, guidance=2.0))
        seen.append((next(iter(path)), noisy))
        slow = model.denoise(
            torch.cat([document, torch.zeros(1, 1, 16)], 1),
            torch.cat([torch.zeros(1, 7, 16), noisy[None]], 1),
            torch.full((1, 8), 99),
        )[:, -1]
        assert torch.allclose(seen[0][0], slow, atol=1e-4)
        free = model.denoise(torch.zeros(1, 1, 16), noisy[None], torch.full((1, 1), 60))[:, 0]
        prepared = Prepared(model.denoiser, [60])
        seen_too, unseen = prepared(noisy, 0, Sight(reading.memory.cross), free=True)
        assert unseen is not None and torch.allclose(unseen, free, atol=1e-4)
        assert not torch.allclose(seen_too, free, atol=1e-2)
        nothing_read, none = prepared(noisy, 0, Sight(model.start(1).cross), free=False)
        assert none is None and torch.allclose(nothing_read, free, atol=1e-4)


# ---- generator ------------------------------------------------------------------------------------------------------


def test_a_seed_gives_one_answer_and_seeds_differ(model: ConceptModel) -> None:
    def run(seed: int, temperature: float | None = 5.0) -> np.ndarray:
        how = Sampling(steps=5, guidance=1.0)
        return generate(model, told(5), 4, seed=seed, temperature=temperature, how=how, stop=ON)

    assert np.array_equal(run(3), run(3))
    assert np.abs(run(3) - run(4)).max() > 0.1
    assert np.array_equal(run(3, 0.0), run(4, 0.0))


def test_documents_go_on_together_as_they_would_alone(model: ConceptModel) -> None:
    prefixes = [told(2), told(9, 4), told(0)]
    together = generate_all(model, prefixes, 4, seeds=[5, 6, 7], how=QUICK, stop=ON)
    for prefix, seed, own in zip(prefixes, [5, 6, 7], together, strict=True):
        alone = generate(model, prefix, 4, seed=seed, how=QUICK, stop=ON)
        assert np.allclose(own, alone, atol=1e-3)


def test_choices_are_offered_for_every_concept_and_the_chosen_one_is_read(model: ConceptModel) -> None:
    offered: list[np.ndarray] = []

    def refine(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        offered.append(drawn.reshape(-1, 3, 16))
        return drawn, np.tile([0.0, 10.0, 20.0], len(drawn) // 3)  # the last one is the best

    def run(prefixes: list[np.ndarray], seeds: list[int]) -> list[np.ndarray]:
        return generate_all(
            model, prefixes, 3, seeds=seeds, temperature=5.0, how=QUICK, choices=3, refine=refine, stop=ON
        )

    made = run([told(2), told(5, 4)], [5, 6])
    assert [drawn.shape for drawn in offered] == [(2, 3, 16)] * 3
    assert np.array_equal(np.stack(offered)[:, 1, -1], made[1])
    for drawn in offered:
        assert min(np.abs(a - b).max() for row in drawn for a, b in itertools.combinations(row, 2)) > 0.01
    assert np.allclose(run([told(5, 4)], [6])[0], made[1], atol=1e-3)
    # The first choice is what would be drawn without any; what is read then differs.
    alone = generate(model, told(2), 1, seed=5, temperature=5.0, how=QUICK, stop=ON)
    assert np.allclose(offered[0][0, 0], alone[0], atol=1e-3)
    follows = Reading(model, [np.concatenate([told(2), made[0][:1]])]).expect()[0]
    other = Reading(model, [np.concatenate([told(2), offered[0][0, :1]])]).expect()[0]
    assert np.abs(follows - other).max() > 1e-3


def test_the_end_is_not_written_where_a_sentence_was_drawn_too() -> None:
    model = made("base")
    model.end_fit.copy_(torch.tensor([20.0, -10.0]))
    end, sentences = model.end.numpy(), told(3, 6)
    offered: list[np.ndarray] = []

    def sample(self: Reading, *_: object) -> np.ndarray:
        return np.stack([end, sentences[0], 1.01 * end, sentences[1], end, end * 0.99])

    def refine(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        offered.append(drawn.reshape(2, 3, 16))
        return drawn, np.zeros(6)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reading, "sample", sample)
        stop = Stop(end=0.9, minimum=1)
        generate_all(model, [told(2), told(3)], 1, seeds=[1, 2], choices=3, refine=refine, stop=stop)
    assert np.allclose(offered[0][0], sentences[0])  # for both ends the sentence that was drawn
    assert np.allclose(offered[0][1], sentences[1])


def test_what_was_said_is_not_chosen_again_where_there_is_another_choice() -> None:
    said = told(3, 8)

    def refine(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate([told(4)[3:], said[len(made_) :][:1]]), np.array([50.0, 1.0])

    made_: list[np.ndarray] = []
    stop = Stop(end=2.0, repetition=0.999)
    found = generate(
        made("base"), told(4), 3, choices=2, refine=refine, stop=stop, on_concept=lambda c: made_.append(c)
    )
    assert np.array_equal(found, said)


def test_what_ends_leaves_with_all_its_choices() -> None:
    model = made("base")
    said: list[np.ndarray] = []

    def refine(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        said.append(drawn.copy())
        if len(said) == 2:
            said[1][:2] = said[0][0]  # both choices of the first document say the same again
        return said[-1], np.tile([10.0, 0.0], len(drawn) // 2)

    found = generate_all(
        model, [told(2), told(5, 4), told(3, 7)], 3, seeds=[1, 2, 3], choices=2, refine=refine, stop=Stop(end=2.0)
    )
    assert [len(drawn) for drawn in said] == [6, 6, 4]
    assert [len(own) for own in found] == [1, 3, 3]


def test_generated_concepts_are_as_long_as_sentences(model: ConceptModel) -> None:
    model.norm.fill_(4.0)
    made = generate(model, told(3), 5, how=QUICK, stop=ON)
    assert made.dtype == np.float32 and made.shape == (5, 16)
    assert np.allclose(np.linalg.norm(made, axis=1), 4.0, atol=1e-4)


def test_stops_at_the_end_of_the_document() -> None:
    model = made("base")
    lengths: list[int] = []

    def expect(self: Reading) -> tuple[np.ndarray, np.ndarray]:
        lengths.append(len(self.documents))
        return np.zeros((len(self.documents), 16)), np.array([0.9 if len(d) >= 7 else 0.1 for d in self.documents])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Reading, "expect", expect)
        model.end_threshold.fill_(0.5)
        stop = Stop(repetition=2.0)
        assert len(generate(model, told(4), 20, seed=1, stop=stop)) == 3
        assert len(generate(model, told(9), 20, stop=stop)) == 0  # it has ended already
        assert len(generate(model, told(9), 20, stop=Stop(minimum=4, repetition=2.0))) == 4
        assert len(generate(model, told(4), 8, stop=Stop(end=0.95, repetition=2.0))) == 8
        made_ = generate_all(model, [told(4), told(6, 1), told(9, 2)], 20, seeds=[1, 2, 3], stop=stop)
        assert [len(own) for own in made_] == [3, 1, 0]
        assert lengths[-1] == 1  # those that have ended are read no more


def test_stops_when_it_says_the_same_again() -> None:
    model = made("base")
    said = iter([*told(3, seed=9), told(3, seed=9)[1] * 1.01, *told(9, seed=10)])
    found = generate(model, told(4), 20, refine=lambda _: (next(said)[None], np.zeros(1)))
    assert len(found) == 3
    said = iter([*told(3, seed=9), told(3, seed=9)[1], *told(9, seed=10)])
    again = generate(model, told(4), 8, refine=lambda _: (next(said)[None], np.zeros(1)), stop=Stop(repetition=2.0))
    assert len(again) == 8


def test_context_is_what_was_refined(model: ConceptModel) -> None:
    fixed = told(1, seed=5)
    assert np.array_equal(generate(model, told(4), 1, how=QUICK, refine=lambda _: (fixed, np.zeros(1))), fixed)
    seen: list[np.ndarray] = []

    def refine(concepts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        seen.append(concepts)
        return fixed, np.zeros(1)

    generate(model, told(4), 2, temperature=0, how=QUICK, refine=refine, stop=ON)
    again = Reading(model, [np.concatenate([told(4), fixed])]).sample([np.random.default_rng(0)], 0.0, QUICK)
    assert np.allclose(seen[1], again, atol=1e-3)


def test_concepts_come_one_by_one_and_can_be_cancelled(model: ConceptModel) -> None:
    seen: list[tuple[int, int]] = []

    def progress(done: int, total: int) -> None:
        seen.append((done, total))
        if done == 3:
            raise Cancelled

    came: list[np.ndarray] = []
    with pytest.raises(Cancelled):
        generate(model, told(2), 9, how=QUICK, on_concept=came.append, progress=progress, stop=ON)
    assert seen == [(1, 9), (2, 9), (3, 9)] and len(came) == 3


def test_seeds_and_documents_must_match() -> None:
    with pytest.raises(VectorError, match="2 documents need 2 seeds, not 1"):
        generate_all(made("base"), [told(2), told(2)], 1, seeds=[0])


def test_draws_that_will_not_do_are_drawn_again() -> None:
    """In rounds; a document whose draws will do does not depend on one whose draws will not."""
    rounds: list[np.ndarray] = []

    def refine(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rounds.append(drawn)
        good = np.zeros(len(drawn))
        if len(rounds) < 3:
            good[:2] = -np.inf  # nothing of the first document, twice
        return drawn, good

    model, stop = made("base"), Stop(end=2.0)
    prefixes, seeds = [told(2), told(5, 4)], [1, 2]

    def run(attempts: int) -> list[np.ndarray]:
        rounds.clear()
        return generate_all(
            model, prefixes, 1, seeds=seeds, temperature=5.0, choices=2, attempts=attempts, refine=refine, stop=stop
        )

    found = run(3)
    assert [len(own) for own in found] == [1, 1] and len(rounds) == 3
    assert any(np.array_equal(found[0][0], drawn) for drawn in rounds[2][:2])
    assert any(np.array_equal(found[1][0], drawn) for drawn in rounds[0][2:])
    assert not np.allclose(rounds[0], rounds[1]) and not np.allclose(rounds[1], rounds[2])
    assert all(np.array_equal(a, b) for a, b in zip(found, run(3), strict=True))
    assert [len(own) for own in run(2)] == [0, 1]  # then the document has ended


def test_of_sure_draws_the_expected_one_is_taken() -> None:
    model = made("base")
    before = Reading(model, [told(3)]).expect()[0][0]
    centre = model.normalizer.centre.numpy()
    draws = np.stack([2 * centre - before, before, before])

    def run(good: list[float]) -> np.ndarray:
        return generate(model, told(3), 1, choices=3, refine=lambda _: (draws, np.array(good)), stop=ON)[0]

    assert np.array_equal(run([0.0, 0.0, -0.5]), before)
    assert np.array_equal(run([3.0, 0.0, 0.0]), before)
    assert np.array_equal(run([9.0, 0.0, 0.0]), draws[0])  # so sure is the decoder


def test_what_is_filled_in_fits_both_sides(model: ConceptModel) -> None:
    left, right = told(4), told(3, seed=7)
    found = infill(model, left, right, 3, candidates=12, temperature=1.0, how=QUICK)
    assert 1 <= len(found) <= 3
    centre = model.normalizer.centre.numpy()

    def near(a: np.ndarray, b: np.ndarray) -> float:
        a, b = a - centre, b - centre
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    def fits(concept: np.ndarray) -> float:
        guess = expected(model, np.concatenate([left, concept[None]]))
        return near(expected(model, left), concept) + near(guess, right[0])

    values = [fits(concept) for concept in found]
    assert values == sorted(values, reverse=True)
    first = generate(model, left, 1, seed=0, temperature=1.0, how=QUICK, stop=Stop(minimum=1))
    assert values[0] >= fits(first[0]) - 1e-5
    assert np.array_equal(found, infill(model, left, right, 3, candidates=12, temperature=1.0, how=QUICK))
    with pytest.raises(VectorError, match="nothing after the gap"):
        infill(model, left, told(0), how=QUICK)


def test_what_is_filled_in_is_good_and_says_nothing_again() -> None:
    model, left, right = made("base"), told(4), told(3, seed=7)
    other = told(2, seed=9)
    draws = np.stack([left[3], right[0], other[0], other[0] * 1.01, other[1], told(1, seed=11)[0]])
    good = np.array([9.0, 9.0, 9.0, 8.0, 0.0, -np.inf])
    found = infill(model, left, right, 6, candidates=6, refine=lambda _: (draws, good))
    assert len(found) == 2 and np.array_equal(found, other)


# ---- sizes and weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_what_ships_is_small(kind: str) -> None:
    with torch.device("meta"):
        model = KINDS[kind](dimensions(kind))
    assert sum(tensor.numel() for tensor in model.state_dict().values()) < 24 * 2**20  # a byte each


def test_sizes_and_kinds_that_nobody_knows_are_refused() -> None:
    with pytest.raises(WeightsError, match=r"tiny, small, 1\.6B, 7B"):
        dimensions("base", "70B")
    with pytest.raises(WeightsError, match="three-tower"):
        dimensions("three-tower")


def test_saved_weights_predict_alike(model: ConceptModel, tmp_path: Path) -> None:
    path = tmp_path / "lcm.safetensors"
    save(path, model, "builtin", "0123456789abcdef")
    again = load(path, "builtin", 16, "0123456789abcdef")
    assert type(again) is type(model)
    a, b = expected(model, told(5)), expected(again, told(5))
    assert np.linalg.norm(a - b) < 0.08 * np.linalg.norm(a)  # int8


@pytest.mark.parametrize("kind", ["one-tower", "two-tower"])
def test_saved_weights_keep_their_noise_schedule(kind: str, tmp_path: Path) -> None:
    model, path = made(kind), tmp_path / "lcm.safetensors"
    assert isinstance(model, OneTower | TwoTower)
    model.schedule = Schedule(curve="sigmoid", steps=1000, prediction="v", alpha=2.0)
    save(path, model, "builtin", "0123456789abcdef")
    again = load(path)
    assert isinstance(again, OneTower | TwoTower)
    assert again.schedule == model.schedule


@pytest.mark.parametrize(
    ("space", "concept", "fingerprint", "message"),
    [
        ("sonar", 16, "0123456789abcdef", "space 'builtin', not for 'sonar'"),
        ("builtin", 1024, "0123456789abcdef", "16 components; the space has 1024"),
        ("builtin", 16, "fedcba9876543210", "other weights of this space"),
    ],
)
def test_weights_of_another_space_are_refused(
    tmp_path: Path, space: str, concept: int, fingerprint: str, message: str
) -> None:
    path = tmp_path / "base.safetensors"
    save(path, made("base"), "builtin", "0123456789abcdef")
    with pytest.raises(WeightsError, match=message):
        load(path, space, concept, fingerprint)


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "base.safetensors"
    with pytest.raises(WeightsError, match="missing"):
        load_lcm("base", folder=tmp_path)
    save(path, made("base"), "builtin", "0123456789abcdef")
    assert available("builtin", tmp_path) == ["base"] and available("sonar", tmp_path) == []
    whole = path.read_bytes()
    for cut in (len(whole) - 100, len(whole) // 2, 20, 0):
        path.write_bytes(whole[:cut])
        with pytest.raises(WeightsError):
            load_lcm("base", folder=tmp_path)
    with pytest.raises(WeightsError, match="no concept model called 'huge'"):
        load_lcm("huge")


# ---- the weights that ship ------------------------------------------------------------------------------------------

STORY = [
    "Once upon a time, there was a little girl named Lily.",
    "She loved to play in the garden with her dog.",
    "One day, the dog ran away into the forest.",
    "Lily was very sad and began to cry.",
]


@pytest.fixture(scope="module", params=available())
def shipped(request: pytest.FixtureRequest, space: ConceptSpace) -> ConceptModel:
    return load_lcm(request.param, space)


def test_shipped_weights_fit_the_space_and_its_size(shipped: ConceptModel, space: ConceptSpace) -> None:
    assert shipped.dims.concept == space.dim
    path = Path(__file__).parents[1] / "assets" / "lcm" / f"{shipped.kind}.safetensors"
    assert path.stat().st_size <= 24 * 2**20


def test_shipped_model_expects_its_own_story_more_than_another(shipped: ConceptModel, space: ConceptSpace) -> None:
    story = space.encode(STORY, "eng_Latn")
    others = space.encode(
        ["The stock market fell by two percent.", "I have never been to Boston.", "Where is the nearest bank?"],
        "eng_Latn",
    )
    centre = shipped.normalizer.centre.numpy()
    for i in range(1, len(story)):
        guess = expected(shipped, story[:i]) - centre
        assert guess @ (story[i] - centre) > ((others - centre) @ guess).max(), STORY[i]


def test_shipped_model_ends_stories(shipped: ConceptModel, space: ConceptSpace) -> None:
    ending = space.encode(
        [
            *STORY,
            "Then her mother found the dog and brought it home.",
            "They all lived happily ever after.",
            "The end.",
        ],
        "eng_Latn",
    )
    ends = Reading(shipped, [ending, ending[:2]]).expect()[1]
    assert ends[0] > 3 * ends[1]


def test_shipped_model_goes_on_in_sentences(shipped: ConceptModel, space: ConceptSpace) -> None:
    story = space.encode(STORY, "eng_Latn")

    def refine(drawn: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return space.encode(space.decode(drawn, "eng_Latn"), "eng_Latn"), np.zeros(len(drawn))

    seeds = [1, 1, 2, 3, 4]
    found = generate_all(shipped, [story] * 5, 3, seeds=seeds, temperature=0.6, refine=refine, stop=Stop(minimum=1))
    assert all(len(own) for own in found)
    assert np.allclose(found[0], found[1], atol=1e-4)
    assert any(o.shape != found[0].shape or np.abs(o - found[0]).max() > 0.1 for o in found[2:])
