"""SONAR's files at a toy's size: real names, real forms, weights drawn from a seed.

The sizes are those of the official package's own `toy` configuration; the tokenizer (tests/data/sonar.model) has
400 pieces of the sample texts, so that with padding, 202 languages and 3 marks the vocabulary has 606.
"""

from __future__ import annotations

import shutil
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from engine.spaces.checkpoint import official_shapes
from engine.spaces.sonar import SonarSpace
from engine.spaces.sonar_files import DECODER, ENCODER, TOKENIZER
from engine.spaces.transformer import SONAR_DECODER, SONAR_ENCODER, Dimensions

DATA = Path(__file__).parent / "data"
TOY = {"vocabulary": 606, "width": 32, "layers": 2, "heads": 4, "hidden": 128, "concept": 32, "embed_scale": 32**0.5}
TOY_ENCODER, TOY_DECODER = replace(SONAR_ENCODER, **TOY), replace(SONAR_DECODER, **TOY)  # type: ignore[arg-type]

# Large enough to measure memory on: 53 million numbers, a layer's share of them as in SONAR.
MIDDLE_DECODER = replace(
    SONAR_DECODER, vocabulary=30_000, width=512, layers=6, hidden=4096, concept=512, embed_scale=512**0.5
)

SENTENCES = (
    ("The crocodile lived in a river.", "eng_Latn"),
    ("The monkey ate sweet fruit from the tree, and gave some to his friend.", "eng_Latn"),
    ("Der Affe saß im Baum.", "deu_Latn"),
    ("Le singe.", "fra_Latn"),
    ("He", "eng_Latn"),
    ("“Where are you going, Ant?” asked the dove.", "eng_Latn"),
    ("すずめ 🐦", "jpn_Jpan"),
    ("A river. A tree. A friend!", "zul_Latn"),
)

TO_FAIRSEQ = (
    ("encoder_frontend.embed.", "embed_tokens."),
    ("decoder_frontend.embed.", "embed_tokens."),
    ("encoder_decoder_attn.output_proj", "encoder_attn.out_proj"),
    ("encoder_decoder_attn", "encoder_attn"),
    ("self_attn.output_proj", "self_attn.out_proj"),
    ("ffn.inner_proj", "fc1"),
    ("ffn.output_proj", "fc2"),
    ("ffn_layer_norm", "final_layer_norm"),
)


def weights(dims: Dimensions, decoder: bool) -> dict[str, torch.Tensor]:
    """Random weights by their fairseq2 names; numpy draws the same ones everywhere."""
    random = np.random.default_rng(decoder)
    state = {}
    for name, shape in official_shapes(dims, decoder).items():
        draw = random.standard_normal(shape).astype(np.float32)
        # Sizes at which a random decoder says more than one word over and over, and ends now and then.
        if "norm" in name:
            draw = 0.1 * draw + ("weight" in name) * (4 if name.startswith("decoder.layer_norm") else 1)
        elif "embed" in name:
            draw *= 0.15
            draw[3] *= 2
        elif name.endswith("weight"):
            draw *= 2.5 / np.sqrt(shape[1])
        state[name] = torch.from_numpy(draw.astype(np.float32))
    return state


def fairseq(state: dict[str, torch.Tensor], decoder: bool) -> dict[str, object]:
    """The same weights in fairseq's form: its names, its order of control tokens, the embedding as a module."""
    made: OrderedDict[str, object] = OrderedDict(version=torch.tensor([3.0]))
    made["embed_positions._float_tensor"] = torch.zeros(1)
    for name, tensor in state.items():
        for old, new in TO_FAIRSEQ:
            name = name.replace(old, new)
        name = name.removeprefix("encoder.").removeprefix("decoder.")
        if name == "embed_tokens.weight":
            tensor = tensor.clone()
            tensor[[1, 3, 0, 2]] = tensor[[0, 1, 2, 3]]  # PAD, UNK, BOS, EOS to BOS, PAD, EOS, UNK
        made[name] = tensor
    if decoder:
        made["output_projection.weight"] = made["embed_tokens.weight"]
        return {"state_dict": made}
    embed = torch.nn.Embedding(*state["encoder_frontend.embed.weight"].shape, padding_idx=1)
    embed.weight.data = made.pop("embed_tokens.weight")  # type: ignore[assignment]
    return {"state_dict": made, "embed_tokens": embed}


def save(folder: Path, form: str = "fairseq2") -> Path:
    """The three files of the toy in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for file, dims, decoder in ((ENCODER, TOY_ENCODER, False), (DECODER, TOY_DECODER, True)):
        state = weights(dims, decoder)
        if form == "fairseq":
            torch.save(fairseq(state, decoder), folder / file.name)
            continue
        if decoder:
            state["final_proj.weight"] = state["decoder_frontend.embed.weight"]  # tied
        torch.save({"model": state}, folder / file.name)
    shutil.copy(DATA / "sonar.model", folder / TOKENIZER.name)
    return folder


def load(folder: Path, dtype: torch.dtype = torch.float32) -> SonarSpace:
    return SonarSpace.load(folder, "cpu", encoder=TOY_ENCODER, decoder=TOY_DECODER, dtype=dtype)
