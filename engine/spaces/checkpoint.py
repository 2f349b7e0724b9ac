"""SONAR's official checkpoints as towers, without a second copy in memory and without running what a file says.

The files are pickles of tensors, in one of two forms: fairseq's, with which SONAR was trained (`layers.0.fc1.weight`),
or fairseq2's, which its package uses (`encoder.layers.0.ffn.inner_proj.weight`). What the names mean is told by
facebookresearch/SONAR, sonar/models/sonar_text/checkpoint.py.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import WeightsError
from ..weights import blank
from . import Progress
from .transformer import Dimensions, TextDecoder, TextEncoder, Tower


class Inert:
    """Stands in for an object of another class: it keeps what the file says about it and does nothing."""

    def __init__(self, *args: object, **kwargs: object) -> None: ...


# What fairseq's files hold beside tensors: a module for the embedding, the training's options, the dictionary.
HARMLESS = (
    "torch.nn.modules.sparse.Embedding",
    "torch.nn.modules.normalization.LayerNorm",
    "argparse.Namespace",
    "fairseq.data.dictionary.Dictionary",
)

FAIRSEQ_TO_FAIRSEQ2 = (
    (r"^(?:encoder|decoder)\.(?=(?:layers|embed_tokens|layer_norm|output_projection)\b)", ""),
    (r"^layers\.", "{tower}.layers."),
    (r"\.self_attn\.out_proj\.", ".self_attn.output_proj."),
    (r"\.encoder_attn\.out_proj\.", ".encoder_decoder_attn.output_proj."),
    (r"\.encoder_attn\.", ".encoder_decoder_attn."),
    (r"\.encoder_attn_layer_norm\.", ".encoder_decoder_attn_layer_norm."),
    (r"\.fc1\.", ".ffn.inner_proj."),
    (r"\.fc2\.", ".ffn.output_proj."),
    (r"\.final_layer_norm\.", ".ffn_layer_norm."),
    (r"^embed_tokens\.", "{tower}_frontend.embed."),
    (r"^layer_norm\.", "{norm}."),
)
# The vectors of the control tokens: fairseq has BOS, PAD, EOS, UNK; the tokenizer PAD, UNK, BOS, EOS.
CONTROL = [1, 3, 0, 2]


def official_shapes(dims: Dimensions, decoder: bool) -> dict[str, tuple[int, ...]]:
    """Every parameter of an official text encoder or decoder of these sizes, by its fairseq2 name.

    At SONAR's sizes they count 766,091,264 and 866,902,016 numbers.
    """
    tower = "decoder" if decoder else "encoder"
    width, hidden = dims.width, dims.hidden
    shapes: dict[str, tuple[int, ...]] = {f"{tower}_frontend.embed.weight": (dims.vocabulary, width)}

    def norm(name: str) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    def linear(name: str, rows: int, columns: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (rows, columns), (rows,)

    for index in range(dims.layers):
        layer = f"{tower}.layers.{index}"
        for attention in ("self_attn", "encoder_decoder_attn")[: 1 + decoder]:
            norm(f"{layer}.{attention}_layer_norm")
            for part in ("q_proj", "k_proj", "v_proj", "output_proj"):
                source = dims.concept if part[0] in "kv" and attention != "self_attn" else width
                linear(f"{layer}.{attention}.{part}", width, source)
        norm(f"{layer}.ffn_layer_norm")
        linear(f"{layer}.ffn.inner_proj", hidden, width)
        linear(f"{layer}.ffn.output_proj", width, hidden)
    norm("decoder.layer_norm" if decoder else "layer_norm")
    return shapes


def load_encoder(
    path: Path, dims: Dimensions, dtype: torch.dtype = torch.float32, progress: Progress | None = None
) -> TextEncoder:
    """The text encoder of an official file. Raises WeightsError where it is missing, damaged or another file."""
    with blank():
        tower = TextEncoder(dims)
    fill(tower, path, dtype, progress)
    return tower


def load_decoder(
    path: Path, dims: Dimensions, dtype: torch.dtype = torch.float32, progress: Progress | None = None
) -> TextDecoder:
    """The text decoder of an official file; its cross-attention is folded into `Layer.concept`.

    Raises WeightsError where the file is missing, damaged or another one.
    """
    with blank():
        tower = TextDecoder(dims)
    fill(tower, path, dtype, progress)
    return tower


def fill(tower: Tower, path: Path, dtype: torch.dtype, progress: Progress | None) -> None:
    """Give a tower its weights, part by part, so that no more than one part is in memory twice.

    The file is mapped, not read: a tensor that is taken as it is stays a view of the file. Where numbers are
    converted, the file is mapped anew for each part, which gives back the memory of the pages read before.
    """
    decoder = isinstance(tower, TextDecoder)
    state = read(path, tower.dims, decoder)
    parts: list[Callable[[Mapping[str, Tensor]], dict[str, Tensor]]] = [lambda state: ends(state, decoder)]
    for index in range(tower.dims.layers):
        parts.append(lambda state, index=index: layer(state, index, decoder))  # type: ignore[misc]
    converts = next(iter(state.values())).dtype != dtype
    for number, part in enumerate(parts, 1):
        made = {name: tensor.to(dtype) for name, tensor in part(state).items()}
        tower.load_state_dict(made, strict=False, assign=True)  # names and shapes were checked in `read`
        if converts and number < len(parts):
            state = read(path, tower.dims, decoder)
        if progress:
            progress(number, len(parts))
    tower.positions = tower.positions.to(dtype)
    tower.requires_grad_(False).eval()


def ends(state: Mapping[str, Tensor], decoder: bool) -> dict[str, Tensor]:
    """What comes before and after the layers."""
    norm = "decoder.layer_norm" if decoder else "layer_norm"
    return {
        "embed.weight": state[f"{'decoder' if decoder else 'encoder'}_frontend.embed.weight"],
        "norm.weight": state[f"{norm}.weight"],
        "norm.bias": state[f"{norm}.bias"],
    }


def layer(state: Mapping[str, Tensor], index: int, decoder: bool) -> dict[str, Tensor]:
    """One layer by the names of `transformer.Layer`."""
    source = f"{'decoder' if decoder else 'encoder'}.layers.{index}."
    made: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        qkv = [state[f"{source}self_attn.{part}_proj.{kind}"] for part in "qkv"]
        made[f"qkv.{kind}"] = torch.cat(qkv)
        made[f"out.{kind}"] = state[f"{source}self_attn.output_proj.{kind}"]
        made[f"norm1.{kind}"] = state[f"{source}self_attn_layer_norm.{kind}"]
        made[f"fc1.{kind}"] = state[f"{source}ffn.inner_proj.{kind}"]
        made[f"fc2.{kind}"] = state[f"{source}ffn.output_proj.{kind}"]
        made[f"norm2.{kind}"] = state[f"{source}ffn_layer_norm.{kind}"]
    if decoder:
        # Attention over one vector has weight 1 whatever the query and the key are: it is output(value(concept)).
        value, output = (f"{source}encoder_decoder_attn.{part}_proj" for part in ("v", "output"))
        weight = state[f"{output}.weight"].float()
        made["concept.weight"] = weight @ state[f"{value}.weight"].float()
        made["concept.bias"] = weight @ state[f"{value}.bias"].float() + state[f"{output}.bias"].float()
    return {f"layers.{index}.{name}": tensor for name, tensor in made.items()}


def read(path: Path, dims: Dimensions, decoder: bool) -> dict[str, Tensor]:
    """The tensors of an official file by their fairseq2 names, mapped from the disk. Raises WeightsError."""
    wanted = "text decoder" if decoder else "text encoder"
    checkpoint = unpickle(path)
    state = checkpoint.get("model", checkpoint.get("state_dict", checkpoint))
    if not isinstance(state, dict):
        raise WeightsError(f"{path.name} is not SONAR's {wanted}; fetch the official file.")
    state = dict(state)
    embedding = state.pop("embed_tokens", None) or checkpoint.get("embed_tokens")
    if isinstance(embedding, Inert):  # the old files keep the encoder's embedding as a module
        state["embed_tokens.weight"] = embedding.__dict__.get("_parameters", {}).get("weight")
    tower = "decoder" if any(re.search(r"\bencoder(_decoder)?_attn\b", str(name)) for name in state) else "encoder"
    if (tower == "decoder") != decoder:
        if not any("layers.0." in str(name) for name in state):
            raise WeightsError(f"{path.name} is not SONAR's {wanted}; fetch the official file.")
        raise WeightsError(f"{path.name} holds SONAR's text {tower}, not its {wanted}; the files are swapped.")
    if f"{tower}_frontend.embed.weight" not in state:
        state = {fairseq2_name(str(name), tower): tensor for name, tensor in state.items()}
        embed = state.get(f"{tower}_frontend.embed.weight")
        if isinstance(embed, Tensor) and len(embed) > len(CONTROL):
            embed = embed.detach()
            embed[: len(CONTROL)] = embed[CONTROL]  # the mapping is private: this changes memory, not the file
            state[f"{tower}_frontend.embed.weight"] = embed
    found: dict[str, Tensor] = {}
    for name, shape in official_shapes(dims, decoder).items():
        tensor = state.get(name)
        if not isinstance(tensor, Tensor) or tuple(tensor.shape) != shape or not tensor.is_floating_point():
            raise WeightsError(f"{path.name} is not SONAR's {wanted} ({name} differs); fetch the official file.")
        found[name] = tensor.detach()
    return found


def fairseq2_name(name: str, tower: str) -> str:
    norm = "decoder.layer_norm" if tower == "decoder" else "layer_norm"
    for pattern, replacement in FAIRSEQ_TO_FAIRSEQ2:
        name = re.sub(pattern, replacement.format(tower=tower, norm=norm), name)
    return name


def unpickle(path: Path) -> dict[str, Any]:
    """A checkpoint's dictionary, tensors mapped, with every class that is not a tensor's made inert."""
    if not path.is_file():
        raise WeightsError(
            f"{path.name} is not in {path.parent}; fetch it with `python -m engine sonar fetch`, or name its folder "
            "with --sonar-dir."
        )
    damaged = f"{path.name} is damaged or incomplete; remove it and fetch it again."
    inert = [(Inert, name) for name in HARMLESS]
    try:
        unsafe = set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) - set(HARMLESS)
        if unsafe:
            raise WeightsError(
                f"{path.name} holds objects that could run code ({', '.join(sorted(unsafe))}), so nothing of it was "
                "loaded; fetch the official file."
            )
        with torch.serialization.safe_globals(inert):  # type: ignore[arg-type]
            checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (RuntimeError, ValueError, OSError, EOFError, KeyError, AttributeError, pickle.UnpicklingError) as error:
        raise WeightsError(damaged) from error
    if not isinstance(checkpoint, dict):
        raise WeightsError(damaged)
    return checkpoint
