"""Meta's checkpoints: the same weights say here what they say in Meta's code (fixtures/meta/recipe.py made them)."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from engine.errors import WeightsError
from engine.lcm import KINDS, ConceptModel, Reading, Sampling, load_meta
from engine.lcm.base import BaseLCM
from engine.lcm.diffusion import Schedule
from engine.lcm.meta import ARCHITECTURES, CURVES, FAMILIES, read_card
from engine.lcm.two_tower import TwoTower
from engine.lcm.weights import dimensions

FIXTURES = Path(__file__).parent / "fixtures" / "meta"
RECORDED = load_file(FIXTURES / "recorded.safetensors")
with safe_open(FIXTURES / "recorded.safetensors", "pt") as file:
    CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = json.loads(file.metadata()["cases"])
KINDS_THERE = ["base", "two-tower"]


def weights(kind: str) -> dict[str, Tensor]:
    """The weights of a model by Meta's names, fp32 as Meta's code ran them."""
    prefix = f"{kind}/model/"
    return {name.removeprefix(prefix): t.float() for name, t in RECORDED.items() if name.startswith(prefix)}


def checkpoint(
    folder: Path, kind: str, state: dict[str, Tensor] | None = None, card: dict[str, Any] | None = None
) -> Path:
    """A folder as Meta's trainer leaves it, with other weights or another card where they are given."""
    torch.save({"model": state or weights(kind), "model_key": "model"}, folder / "model.pt")
    if card is None:
        shutil.copy(FIXTURES / f"{kind}.yaml", folder / "model_card.yaml")
    else:
        (folder / "model_card.yaml").write_text(yaml.safe_dump(card))
    return folder


def card(kind: str, **settings: Any) -> dict[str, Any]:
    """A model's card with settings, as dotted names with __ for the dot, changed."""
    found: dict[str, Any] = yaml.safe_load((FIXTURES / f"{kind}.yaml").read_text())
    for name, value in settings.items():
        *path, last = name.split("__")
        inner = found
        for part in path:
            inner = inner[part]
        inner[last] = value
    return found


def base(folder: Path) -> BaseLCM:
    model = load_meta(checkpoint(folder, "base"))
    assert isinstance(model, BaseLCM)
    return model


def two_tower(folder: Path, **settings: Any) -> TwoTower:
    model = load_meta(checkpoint(folder, "two-tower", card=card("two-tower", **settings)))
    assert isinstance(model, TwoTower)
    return model


def same(found: Tensor, name: str) -> None:
    assert found.shape == RECORDED[name].shape
    assert float((found - RECORDED[name]).abs().max()) < 1e-4


# ---- parity ---------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_base_predicts_the_same(tmp_path: Path) -> None:
    model = base(tmp_path)
    same(model(RECORDED["base/normalized"]), "base/forward")
    documents = RECORDED["base/raw"].numpy()
    for t in range(1, 6):  # read concept by concept, through the normalizer
        found, _ = Reading(model, list(documents[:, :t])).expect()
        assert abs(found - RECORDED["base/next"][:, t - 1].numpy()).max() < 1e-4


@torch.inference_mode()
def test_two_towers_read_and_denoise_the_same(tmp_path: Path) -> None:
    model = two_tower(tmp_path)
    concepts, noisy = RECORDED["two-tower/normalized"], RECORDED["two-tower/noisy"]
    same(model.encode(concepts)[:, 1:], "two-tower/encode")
    same(model.denoise(concepts, noisy, RECORDED["two-tower/timesteps"]), "two-tower/denoise-training")
    states = model.encode(concepts)
    everything = torch.ones(1, 1, 1, states.shape[1], dtype=torch.bool)
    for t in (99, 60, 9, 0):
        found = model.denoiser(noisy[:, :1], torch.full((2, 1), t), states, everything)[:, 0]
        same(found, f"two-tower/denoise-{t}")


@pytest.mark.parametrize("case", CASES)
@torch.inference_mode()
def test_denoising_takes_the_same_path(case: str, tmp_path: Path) -> None:
    options, scheduler = CASES[case]
    model = two_tower(tmp_path, **{f"model_config__noise_scheduler__{name}": v for name, v in scheduler.items()})
    path = RECORDED[f"case/{case}/path"]
    how = Sampling(
        # Meta's code rounds the stride down and so takes 50 steps where it is asked for 40 of 100.
        steps=len(path),
        guidance=options["guidance_scale"],
        rescale=options["guidance_rescale"],
        epsilon_scaling=options["epsilon_scaling"],
        eta=options.get("ddim_eta", 0.0),
        threshold=options.get("dynamic_thresholding_ratio"),
        ceiling=options.get("sample_max_value", 6.0),
    )
    reading = Reading(model, list(RECORDED["two-tower/raw"].numpy()))
    draws = iter(RECORDED["two-tower/fresh"])
    found = list(model.denoise_path(reading.memory, RECORDED["two-tower/start"], how, lambda: next(draws)))
    same(torch.stack(found), f"case/{case}/path")
    same(model.normalizer.denormalize(found[-1]), f"case/{case}/next")


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("steps", [100, 1000])
def test_schedules_are_the_same(curve: str, steps: int) -> None:
    schedule = Schedule(curve=CURVES[curve], steps=steps)  # type: ignore[arg-type]
    kept = RECORDED[f"schedule/{curve}/{steps}/kept"]
    assert (schedule.kept - kept).abs().max() < 1e-6
    assert schedule.timesteps(10) == RECORDED[f"schedule/{curve}/{steps}/timesteps"].tolist()


# ---- import ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS_THERE)
def test_halves_and_names_of_data_parallel_training_are_read_alike(kind: str, tmp_path: Path) -> None:
    plain = load_meta(checkpoint(tmp_path, kind)).state_dict()
    state = {f"module.{name}": tensor.half() for name, tensor in weights(kind).items()}
    again = load_meta(checkpoint(tmp_path, kind, state)).state_dict()
    assert all(tensor.dtype == torch.float32 and torch.equal(tensor, plain[name]) for name, tensor in again.items())


def test_a_base_model_may_have_no_normalizer(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in weights("base").items() if "sonar_normalizer" not in name}
    settings = card("base", model_config__sonar_normalizer_name=None)
    model = load_meta(checkpoint(tmp_path, "base", state, settings))
    x = RECORDED["base/raw"]
    assert torch.equal(model.normalizer.normalize(x), x)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_card_may_name_its_architecture(name: str, tmp_path: Path) -> None:
    family = next(family for family in FAMILIES if name.startswith(family))
    path = tmp_path / "model_card.yaml"
    path.write_text(yaml.safe_dump({"model_family": family, "model_arch": name}))
    kind, size = ARCHITECTURES[name]
    assert read_card(path) == (family, dimensions(kind, size), Schedule())


@torch.inference_mode()
def test_imported_models_never_end_a_document_by_themselves(tmp_path: Path) -> None:
    for kind in KINDS_THERE:
        model = load_meta(checkpoint(tmp_path, kind))
        _, ends = Reading(model, [RECORDED[f"{kind}/raw"][0].numpy()]).expect()
        assert float(ends[0]) < float(model.end_threshold)


# ---- sizes ----------------------------------------------------------------------------------------------------------


def parameters(kind: str, size: str) -> int:
    """All weights and biases of the network. The normalizer and what generation needs are buffers and don't count."""
    with torch.device("meta"):
        model: ConceptModel = KINDS[kind](dimensions(kind, size))
    return sum(weight.numel() for weight in model.parameters())


def test_the_largest_two_towers_have_exactly_the_published_number_of_parameters() -> None:
    assert parameters("two-tower", "7B") == 6_930_781_696


def test_the_1_6B_models_have_the_parameters_of_their_code_not_those_of_its_comments() -> None:
    """Built by Meta's own code (commit fd7db80, fairseq2 0.3.0) they have these numbers too.

    Its comments say 1,647,635,456 (base) and 1,635,101,696 (two-tower). The second is that of the same towers with the
    default options of that code instead of the ones its architecture sets: feed-forward parts with one map into their
    8192 units instead of SwiGLU, norms with a bias, and learned positions. What the first one counts is not known.
    """
    base, two_tower = parameters("base", "1.6B"), parameters("two-tower", "1.6B")
    assert base == 1_649_185_792 == 1_647_635_456 + 1_550_336
    assert two_tower == 1_645_538_304
    width, inner, plain = 2048, 5632, 8192
    swiglu, feed = (3 * width + 2) * inner + width, (2 * width + 1) * plain + width
    norms = (2 * 5 + 1) + (3 * 13 + 1)
    assert two_tower - (5 + 13) * (swiglu - feed) + (norms + 4096) * width == 1_635_101_696


# ---- bad input ------------------------------------------------------------------------------------------------------


def refused(folder: Path, message: str) -> None:
    with pytest.raises(WeightsError, match=message) as raised:
        load_meta(folder)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", ["model.pt", "model_card.yaml"])
def test_missing_files_are_refused(name: str, tmp_path: Path) -> None:
    (checkpoint(tmp_path, "base") / name).unlink()
    refused(tmp_path, f"no {name} in")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = checkpoint(tmp_path, "base") / "model.pt"
    whole = path.read_bytes()
    for cut in (len(whole) // 2, 100, 0):
        path.write_bytes(whole[:cut])
        refused(tmp_path, r"model\.pt")
    torch.save(weights("base"), path)
    refused(tmp_path, "no weights under 'model'")
    torch.save({"model": weights("base"), "config": Path("/")}, path)  # a class: unpickling it would run its code
    refused(tmp_path, "more than tensors")
    (tmp_path / "model_card.yaml").write_text("model_config: [")
    refused(tmp_path, "can't be read as YAML")
    (tmp_path / "model_card.yaml").write_text("!!python/object/apply:os.getcwd []")
    refused(tmp_path, "can't be read as YAML")


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("base", {"model_family": "vae_lcm"}, "family 'vae_lcm' can't be imported; only base_lcm, two_tower"),
        ("base", {"model_config": None}, "architecture None of a base_lcm"),
        ("base", {"model_config": None, "model_arch": "toy_base_lcm"}, "architecture 'toy_base_lcm'"),
        ("base", {"model_config": None, "model_arch": "two_tower_diffusion_lcm_7B"}, "of a base_lcm can't"),
        ("base", {"model_config": {"model_dim": 16}}, "model_config .* is not that of a base_lcm"),
        ("base", {"model_config__lcm__pos_embedding_style": "sine"}, "= 'sine' can't be imported; it must be 'rope'"),
        ("base", {"model_config__lcm__layer_normalization_style": "fp32"}, "layer_normalization_style = 'fp32'"),
        ("base", {"model_config__lcm__num_layers": 3}, r"no lcm\.layers\.2\.self_attn_layer_norm\.weight"),
        ("base", {"model_config__lcm__num_layers": 1}, r"holds lcm\.layers\.1\..*does not account for"),
        ("base", {"model_config__model_dim": 32}, r"the shape \(16, 8\); the card calls for \(32, 8\)"),
        ("two-tower", {"model_config__noise_scheduler__beta_schedule": "scaled_linear"}, "beta_schedule = 'scaled"),
        ("two-tower", {"model_config__noise_scheduler__prediction_type": "epsilon"}, "predict sample or v"),
        ("two-tower", {"model_config__denoiser__num_attn_heads": 4}, "towers differ in num_attn_heads"),
        ("two-tower", {"model_config__denoiser__num_layers": 1}, r"holds denoiser\.layers\.1\."),
        ("two-tower", {"model_family": "base_lcm"}, "not that of a base_lcm"),
    ],
)
def test_cards_that_do_not_fit_are_refused(kind: str, settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    refused(checkpoint(tmp_path, kind, card=card(kind, **settings)), message)


def test_a_two_tower_model_without_its_normalizer_is_refused(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in weights("two-tower").items() if "sonar_normalizer" not in name}
    refused(checkpoint(tmp_path, "two-tower", state), r"no sonar_normalizer\.center")
