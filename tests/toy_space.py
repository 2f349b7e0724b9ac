"""A corpus of a few sentences and towers of a few weights: enough to train a space and concept models in seconds."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import sentencepiece
import torch

from engine.spaces.builtin import ASSETS
from engine.spaces.transformer import FIRST_DECODER, FIRST_ENCODER
from engine.training.objective import SpaceModel
from engine.training.packaging import write_towers
from engine.training.tokens import Tokens

TOKENIZER = ASSETS / "tokenizer.model"
PIECES = sentencepiece.SentencePieceProcessor(str(TOKENIZER))
SIZES = {"width": 32, "layers": 1, "heads": 2, "hidden": 32}
ENGLISH = ["The dog sleeps in the garden.", "She reads a long book.", "We go to the market.", "It is raining today."]
GERMAN = ["Der Hund schläft im Garten.", "Sie liest ein langes Buch.", "Wir gehen zum Markt.", "Heute regnet es."]


def written(folder: Path, name: str, lines: list[str]) -> None:
    with gzip.open(folder / name, "wt", encoding="utf-8") as file:
        file.writelines(line + "\n" for line in lines)


def write_corpus(folder: Path) -> Path:
    """A corpus with a few lines of every kind."""
    folder.mkdir()
    pairs = [f"eng\tdeu\t{a}\t{b}\ttatoeba" for a, b in zip(ENGLISH, GERMAN, strict=True)]
    written(folder, "pairs.tsv.gz", pairs)
    written(folder, "sentences.tsv.gz", [*(f"eng\t{a} {a}" for a in ENGLISH), "fra\tIl pleut.", "spa\tEstá lloviendo."])
    stories = [{"lang": "eng", "split": split, "text": " ".join(ENGLISH)} for split in ("train", "valid", "train")]
    written(folder, "documents.jsonl.gz", list(map(json.dumps, stories)))
    written(folder, "literature.tsv.gz", ["ita\tEra una notte buia e tempestosa.\tELTeC", "fra\tLongtemps il se tut."])
    passages = [{"lang": "deu", "split": "train", "text": "\n".join(GERMAN)}]
    written(folder, "passages.jsonl.gz", list(map(json.dumps, passages)))
    return folder


def tokenized(folder: Path) -> Tokens:
    return Tokens.read(folder, PIECES)


def write_start(folder: Path, **changes: int) -> Path:
    """Small random towers."""
    torch.manual_seed(1)
    encoder, decoder = (replace(dims, **SIZES | {"concept": 48} | changes) for dims in (FIRST_ENCODER, FIRST_DECODER))
    model = SpaceModel(replace(encoder, pool_heads=4, pool_width=32), decoder)
    for name, parameter in model.named_parameters():
        if "embed" in name:
            parameter.data.mul_(0.05)
    folder.mkdir(parents=True, exist_ok=True)
    write_towers(model.encoder, model.decoder, folder)
    return folder
