"""Checkpoints trained with Meta's code (github.com/facebookresearch/large_concept_model) as models of this project.

Its base_lcm and two_tower_diffusion_lcm are the networks of `base` and `two_tower`; names, layouts and the settings
read here are those of its commit fd7db80 and of fairseq2 0.3, on which it is built.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from ..errors import WeightsError
from ..weights import blank
from .base import BaseLCM
from .blocks import Dimensions
from .diffusion import Schedule
from .model import ConceptModel
from .two_tower import TwoTower
from .weights import dimensions, known

FAMILIES: dict[str, type[ConceptModel]] = {"base_lcm": BaseLCM, "two_tower_diffusion_lcm": TwoTower}
# Cards of models trained with a registered architecture name it instead of listing its settings.
ARCHITECTURES = {
    "base_lcm_1_6B": ("base", "1.6B"),
    "two_tower_diffusion_lcm_1_6B": ("two-tower", "1.6B"),
    "two_tower_diffusion_lcm_7B": ("two-tower", "7B"),
}
CURVES = {"squaredcos_cap_v2": "cosine", "sigmoid": "sigmoid", "linear": "linear"}
PREDICTIONS = {"sample": "sample", "epsilon": "epsilon", "v_prediction": "v"}

# What a network does that its weights don't show: settings of a card and the values that can be imported.
TOWER = {
    "layer_normalization_style": ("rms",),
    "norm_order_style": ("pre",),
    "final_norm_order_style": (None, "pre"),
    "use_swiglu": (True,),
}
SETTINGS: dict[str, dict[str, tuple[Any, ...]]] = {
    "base_lcm": {
        "frontend.scale_embeddings": (False,),
        "lcm.pos_embedding_style": ("rope",),
        **{f"lcm.{name}": values for name, values in TOWER.items()},
        "postnet.activation_name": (None,),
    },
    "two_tower_diffusion_lcm": {
        "context_encoder.pos_embedding_style": ("rope",),
        **{f"context_encoder.{name}": values for name, values in TOWER.items()},
        "denoiser.pos_embedding_style": ("none",),
        **{f"denoiser.{name}": values for name, values in TOWER.items()},
        "denoiser.pre_denoiser.activation_name": (None,),
        "denoiser.post_denoiser.activation_name": (None,),
        "noise_scheduler.beta_schedule": tuple(CURVES),
        "noise_scheduler.beta_start": (1e-4,),
        "noise_scheduler.beta_end": (0.02,),
        "noise_scheduler.prediction_type": tuple(PREDICTIONS),
        "noise_scheduler.set_alpha_to_one": (True,),
        "noise_scheduler.timestep_spacing": ("trailing",),
    },
}

# Our modules and the ones of Meta's that they join: outputs of those come one after the other in ours.
BLOCK = {
    "norm1": ["self_attn_layer_norm"],
    "attention.qkv": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "attention.out": ["self_attn.output_proj"],
    "norm2": ["ffn_layer_norm"],
    "feed.fc1": ["ffn.gate_proj", "ffn.inner_proj"],
    "feed.fc2": ["ffn.output_proj"],
}
DENOISER_BLOCK = BLOCK | {
    "norm2": ["cross_attention_layer_norm"],
    "cross.q": ["cross_attention.q_proj"],
    "cross.kv": ["cross_attention.k_proj", "cross_attention.v_proj"],
    "cross.out": ["cross_attention.output_proj"],
    "norm3": ["ffn_layer_norm"],
    "modulation": ["modulator.fc"],
}
BASE = {"prenet": ["frontend.pre_linear"], "stack.norm": ["lcm.layer_norm"], "postnet": ["postnet.fc"]}
TWO_TOWER = {
    "prenet": ["encoder_frontend.pre_linear"],
    "contextualizer.norm": ["context_encoder.layer_norm"],
    "denoiser.time.fc1": ["denoiser.embed_time.fc1"],
    "denoiser.time.fc2": ["denoiser.embed_time.fc2"],
    "denoiser.entry": ["denoiser.initial_proj.fc"],
    "denoiser.norm": ["denoiser.layer_norm"],
    "denoiser.exit": ["denoiser.final_proj.fc"],
}


def load_meta(folder: Path) -> ConceptModel:
    """The model of a folder that Meta's trainer wrote, with its `model.pt` and `model_card.yaml`, ready to predict.

    The normalizer comes with it. What the checkpoint does not hold: the end-of-document concept, so that documents
    end by length or repetition alone, and the norm of sentences, which is taken from the normalizer. Raises
    WeightsError for files that are missing or damaged, and for models that have no counterpart here.
    """
    family, dims, schedule = read_card(folder / "model_card.yaml")
    state = read_state(folder / "model.pt")
    with blank():  # nothing is allocated twice: a model of 7B parameters takes 28 GB
        model = BaseLCM(dims) if family == "base_lcm" else TwoTower(dims, schedule)
    model.load_state_dict(converted(model, state), assign=True)
    return model.eval()


def read_card(path: Path) -> tuple[str, Dimensions, Schedule]:
    """A model card: family, sizes and (for the two towers) noise schedule."""
    import yaml  # here, so that a machine that only trains does without it

    try:
        card = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise missing(path) from error
    except (yaml.YAMLError, OSError, ValueError) as error:
        raise WeightsError(f"{path.name} can't be read as YAML; get a complete copy of it.") from error
    if not isinstance(card, dict) or "model_family" not in card:
        raise WeightsError(f"{path.name} is no model card of Meta's code: it names no model_family.")
    family, config = card["model_family"], card.get("model_config")
    if family not in FAMILIES:
        raise WeightsError(f"Models of the family {family!r} can't be imported; only {known(FAMILIES)} can.")
    if config is None:
        return architecture(family, card.get("model_arch"))
    try:
        return family, *configuration(family, config)
    except (KeyError, TypeError) as error:
        raise WeightsError(f"The model_config in {path.name} is not that of a {family}: {error}.") from error
    except ValueError as error:  # a schedule that can't be
        raise WeightsError(str(error)) from error


def architecture(family: str, name: Any) -> tuple[str, Dimensions, Schedule]:
    """What a registered architecture stands for; all of them have the schedule that is the default here."""
    kind, size = ARCHITECTURES.get(name, ("", ""))
    if kind != FAMILIES[family].kind:
        raise WeightsError(
            f"The architecture {name!r} of a {family} can't be imported; only {known(ARCHITECTURES)} can, "
            "and models whose card has a model_config."
        )
    return family, dimensions(kind, size), Schedule()


def configuration(family: str, config: dict[str, Any]) -> tuple[Dimensions, Schedule]:
    """Sizes and schedule from a card's full settings. Raises WeightsError for a setting that has no counterpart."""
    for name, values in SETTINGS[family].items():
        value: Any = config
        for part in name.split("."):
            value = value[part]
        if value not in values:
            allowed = " or ".join(map(repr, values))
            raise WeightsError(f"A model with {name} = {value!r} can't be imported; it must be {allowed}.")
    first = config["lcm"] if family == "base_lcm" else config["context_encoder"]
    dims = Dimensions(
        concept=config["sonar_embed_dim"],
        width=config["model_dim"],
        layers=first["num_layers"],
        heads=first["num_attn_heads"],
        hidden=inner_width(first["ffn_inner_dim"]),
        context=config["max_seq_len"],
        dropout=first["dropout_p"],
        rope_base=first["rope_theta"],
        begin=family != "base_lcm",  # Base-LCM there has nothing in front of the first concept
    )
    if family == "base_lcm":
        return dims, Schedule()
    second, noise = config["denoiser"], config["noise_scheduler"]
    for name in ("num_attn_heads", "ffn_inner_dim"):
        if first[name] != second[name]:
            raise WeightsError(f"A model whose towers differ in {name} can't be imported.")
    schedule = Schedule(
        curve=CURVES[noise["beta_schedule"]],  # type: ignore[arg-type]
        steps=noise["num_diffusion_train_steps"],
        prediction=PREDICTIONS[noise["prediction_type"]],  # type: ignore[arg-type]
        zero_terminal_snr=noise["rescale_betas_zero_snr"],
        alpha=noise["sigmoid_schedule_alpha"],
        beta=noise["sigmoid_schedule_beta"],
    )
    return Dimensions(**(vars(dims) | {"denoiser": second["num_layers"]})), schedule


def inner_width(inner: int) -> int:
    """The width inside SwiGLU: two thirds of what is configured, up to a multiple of 256."""
    return 256 * math.ceil(int(inner * 2 / 3) / 256)


def read_state(path: Path) -> dict[str, Tensor]:
    """The weights of a checkpoint by Meta's names, mapped from the file: only what is used is read."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError as error:
        raise missing(path) from error
    except UnpicklingError as error:
        raise WeightsError(f"{path.name} holds more than tensors or is damaged; it is not read.") from error
    except (OSError, RuntimeError, ValueError, EOFError) as error:
        raise WeightsError(f"{path.name} is damaged or no checkpoint; get a complete copy of it.") from error
    state = checkpoint.get(checkpoint.get("model_key", "model")) if isinstance(checkpoint, dict) else None
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise WeightsError(f"{path.name} holds no weights under 'model'; it is no checkpoint of Meta's code.")
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}  # as saved by DDP


def missing(path: Path) -> WeightsError:
    return WeightsError(f"There is no {path.name} in {path.parent}; give the folder of a checkpoint of Meta's trainer.")


def converted(model: ConceptModel, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Meta's weights as ours, fp32. Raises WeightsError where one is missing, left over, or of another shape."""
    left, ours = dict(state), {}
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for module, sources in counterparts(model):
        for suffix in ("weight", "bias"):
            name = f"{module}.{suffix}"
            if name not in shapes:
                continue  # the norms have no bias
            rows = shapes[name][0] // len(sources)
            parts = [take(left, f"{source}.{suffix}", (rows, *shapes[name][1:])) for source in sources]
            if module.endswith("attention.qkv") and not module.startswith("denoiser."):
                parts[:2] = [halved(part, model.dims.heads) for part in parts[:2]]
            ours[name] = torch.cat(parts) if len(parts) > 1 else parts[0]
    own = normalizer(model, left)
    if left:
        raise WeightsError(f"The checkpoint holds {next(iter(left))}, which its card does not account for.")
    return ours | own


def counterparts(model: ConceptModel) -> Iterator[tuple[str, list[str]]]:
    """Each of our modules with weights, and what it joins of Meta's."""
    if isinstance(model, TwoTower):
        yield from TWO_TOWER.items()
        towers = [
            ("contextualizer.blocks", "context_encoder.layers", BLOCK, model.dims.layers),
            ("denoiser.blocks", "denoiser.layers", DENOISER_BLOCK, model.dims.denoiser),
        ]
    else:
        yield from BASE.items()
        towers = [("stack.blocks", "lcm.layers", BLOCK, model.dims.layers)]
    for here, there, block, layers in towers:
        for i in range(layers):
            for module, sources in block.items():
                yield f"{here}.{i}.{module}", [f"{there}.{i}.{source}" for source in sources]


def take(left: dict[str, Tensor], name: str, shape: tuple[int, ...]) -> Tensor:
    """One of Meta's tensors, removed from those that are left."""
    if name not in left:
        raise WeightsError(f"The checkpoint has no {name}, which its card calls for.")
    tensor = left.pop(name)
    if tuple(tensor.shape) != shape:
        raise WeightsError(f"{name} has the shape {tuple(tensor.shape)}; the card calls for {shape}.")
    return tensor.to(torch.float32, copy=True)  # a file that others may write to must not stay mapped


def halved(weight: Tensor, heads: int) -> Tensor:
    """Rows of queries or keys [width, ...] in our order of each head's components.

    Rotary positions turn pairs of them: (2 i, 2 i + 1) in fairseq2, (i, i + half) here.
    """
    return weight.unflatten(0, (heads, -1, 2)).transpose(1, 2).flatten(0, 2)


def normalizer(model: ConceptModel, left: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors that `ConceptModel` has beside its network."""
    concept = model.dims.concept
    prefix = "sonar_normalizer." if isinstance(model, TwoTower) else "frontend.sonar_normalizer."
    centre, deviation = torch.zeros(concept), torch.ones(concept)
    if isinstance(model, TwoTower) or prefix + "center" in left:  # Base-LCM may have none
        centre, deviation = take(left, prefix + "center", (concept,)), take(left, prefix + "scale", (concept,))
    own = {
        "normalizer.centre": centre,
        "normalizer.deviation": deviation,
        "end": torch.zeros(concept),
        "end_fit": torch.tensor([1.0, 0.0]),
        "end_threshold": torch.tensor(2.0),  # no probability reaches it
        "norm": (centre.square() + deviation.square()).sum().sqrt(),  # of concepts with that mean and variance
    }
    if isinstance(model, BaseLCM):
        own["spread"] = torch.eye(concept)
    return own
