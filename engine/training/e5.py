"""multilingual-e5-small (Wang et al. 2024, arXiv 2402.05672; MIT licence) as the start of the space's encoder.

`python -m engine.training.e5 --help` makes a tokenizer of its pieces.

Reads its Hugging Face folder: `model.safetensors` (a BERT of 12 layers and width 384) and
`sentencepiece.bpe.model` (250,000 pieces of a hundred languages, of which six languages need a tenth).
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

import sentencepiece
import torch
from sentencepiece.sentencepiece_model_pb2 import ModelProto  # type: ignore[attr-defined]
from torch import Tensor

from ..errors import TrainingError, WeightsError
from ..spaces.builtin import BOS, EOS, UNK
from ..spaces.transformer import FIRST_ENCODER, PAD
from ..weights import load_weights
from . import corpus
from .command import answered

PIECES = "sentencepiece.bpe.model"
# The rows of these in e5's embedding, which has fairseq's order; every other piece is one row after its number.
SPECIAL = {PAD: 1, UNK: 3, BOS: 0, EOS: 2}
LAYER = {  # e5's names in a layer, for ours
    "out": "attention.output.dense",
    "norm1": "attention.output.LayerNorm",
    "fc1": "intermediate.dense",
    "fc2": "output.dense",
    "norm2": "output.LayerNorm",
}


def pruned_tokenizer(folder: Path, texts: Path, size: int) -> bytes:
    """A SentencePiece model with `size` of e5's pieces: all single characters of the corpus, then the most used.

    Begins with padding, unknown, begin and end, as the space's models expect. Raises TrainingError where the
    corpus does not use so many pieces.
    """
    proto = ModelProto()
    proto.ParseFromString(pieces_file(folder).read_bytes())
    original = sentencepiece.SentencePieceProcessor(model_proto=proto.SerializeToString())
    used: Counter[int] = Counter()
    characters: Counter[str] = Counter()
    for lines in (corpus.distinct_pairs(texts), corpus.distinct_sentences(texts)):
        for line in lines:
            for text in line[len(line) // 2 :]:
                used.update(original.encode(text))
                characters.update(text)
    for story in corpus.stories(texts):
        for sentence in story.sentences:
            used.update(original.encode(sentence))
            characters.update(sentence)
    scores = {piece.piece: piece.score for piece in proto.pieces if piece.type == ModelProto.SentencePiece.NORMAL}
    ranked = [c for c, _ in characters.most_common()] + [original.id_to_piece(i) for i, _ in used.most_common()]
    kept = [piece for piece in dict.fromkeys(["▁", *ranked]) if piece in scores][: size - len(SPECIAL)]
    if len(kept) < size - len(SPECIAL):
        raise TrainingError(f"The corpus uses only {len(kept)} pieces of {size - len(SPECIAL)}; give it more text.")
    del proto.pieces[:]
    for name, kind in (("<pad>", "CONTROL"), ("<unk>", "UNKNOWN"), ("<s>", "CONTROL"), ("</s>", "CONTROL")):
        proto.pieces.add(piece=name, score=0.0, type=ModelProto.SentencePiece.Type.Value(kind))
    for piece in sorted(kept, key=lambda piece: -scores[piece]):
        proto.pieces.add(piece=piece, score=scores[piece])
    spec = proto.trainer_spec
    spec.pad_id, spec.unk_id, spec.bos_id, spec.eos_id = PAD, UNK, BOS, EOS
    spec.vocab_size = size
    return bytes(proto.SerializeToString())


def encoder_state(folder: Path, tokenizer: sentencepiece.SentencePieceProcessor) -> dict[str, Tensor]:
    """e5's weights under the names of SpaceModel's encoder, the embedding with the tokenizer's rows only.

    The pooling has no counterpart there and stays as it is. Raises WeightsError where the folder lacks a file,
    a weight, or one of the tokenizer's pieces.
    """
    original = sentencepiece.SentencePieceProcessor(str(pieces_file(folder)))
    rows = []
    for i in range(tokenizer.vocab_size()):
        piece = tokenizer.id_to_piece(i)
        number = original.piece_to_id(piece)
        if i not in SPECIAL and number == original.unk_id():
            raise WeightsError(f"The tokenizer is not made from e5's: it has the piece {piece!r}.")
        rows.append(SPECIAL.get(i, number + 1))
    e5 = load_weights(folder / "model.safetensors")
    try:
        state = {
            "encoder.embed.weight": e5["embeddings.word_embeddings.weight"][torch.tensor(rows)],
            "encoder.positions": e5["embeddings.position_embeddings.weight"][: FIRST_ENCODER.positions]
            + e5["embeddings.token_type_embeddings.weight"][0],
        }
        for kind in ("weight", "bias"):
            state[f"encoder.norm.{kind}"] = e5[f"embeddings.LayerNorm.{kind}"]
            for i in range(FIRST_ENCODER.layers):
                theirs, ours = f"encoder.layer.{i}", f"encoder.layers.{i}"
                parts = [e5[f"{theirs}.attention.self.{name}.{kind}"] for name in ("query", "key", "value")]
                state[f"{ours}.qkv.{kind}"] = torch.cat(parts)
                for name, their_name in LAYER.items():
                    state[f"{ours}.{name}.{kind}"] = e5[f"{theirs}.{their_name}.{kind}"]
    except (KeyError, IndexError) as error:
        raise WeightsError(f"{folder.name} is not multilingual-e5-small: {error} is missing.") from error
    return state


def pieces_file(folder: Path) -> Path:
    if not (folder / PIECES).is_file():
        raise WeightsError(f"{folder.name} has no {PIECES}; give the folder of multilingual-e5-small.")
    return folder / PIECES


@answered
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m engine.training.e5", description=pruned_tokenizer.__doc__)
    parser.add_argument("--e5", type=Path, required=True, help="multilingual-e5-small as Hugging Face has it")
    parser.add_argument("--corpus", type=Path, required=True, help="folder with pairs, sentences and documents")
    parser.add_argument("--size", type=int, default=FIRST_ENCODER.vocabulary, help="pieces (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="the tokenizer to write")
    args = parser.parse_args(arguments)
    args.out.write_bytes(pruned_tokenizer(args.e5, args.corpus, args.size))


if __name__ == "__main__":
    sys.exit(main())
