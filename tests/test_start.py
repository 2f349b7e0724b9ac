"""Where a concept space's training starts from: widened and whitened encoders, language models, e5."""

from dataclasses import replace
from pathlib import Path

import pytest
import sentencepiece
import torch
from safetensors.torch import save_file
from sentencepiece.sentencepiece_model_pb2 import ModelProto
from torch import nn
from torch.nn import functional
from toy_space import SIZES, TOKENIZER, tokenized, write_corpus, write_start

from engine.errors import TrainingError, WeightsError
from engine.spaces.builtin import read_towers
from engine.spaces.transformer import FIRST_DECODER, FIRST_ENCODER, WHISPER_DECODER, TextDecoder, TextEncoder
from engine.training import e5, start
from engine.weights import load_weights, save_weights


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    return write_corpus(tmp_path / "corpus")


def test_whitening_spreads_concepts_and_reads_the_same() -> None:
    torch.manual_seed(0)
    sizes = {"vocabulary": 10, "width": 64, "layers": 1, "heads": 2, "hidden": 32, "concept": 96}
    encoder = TextEncoder(replace(FIRST_ENCODER, **sizes, pool_width=64))
    decoder = TextDecoder(replace(FIRST_DECODER, **sizes))
    # Pooled states that vary in 40 directions, strongly in the first; and concepts that are mostly their mean.
    states = torch.randn(3000, 40) * torch.linspace(3, 0.2, 40) @ torch.randn(40, 128) + 0.05 * torch.randn(3000, 128)
    with torch.no_grad():
        encoder.project.weight.normal_(std=0.02)
        encoder.project.bias.normal_(std=3.0)

    def concepts() -> torch.Tensor:
        return functional.layer_norm(encoder.project(states), (96,)).detach()

    before = concepts()
    read = decoder.condition(before)[0].detach()
    start.whiten(encoder, states, 24, decoder)
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


def test_more_pooling_heads_leave_what_is_pooled_as_it_is() -> None:
    torch.manual_seed(0)
    encoder = TextEncoder(
        replace(FIRST_ENCODER, vocabulary=10, width=32, layers=1, heads=2, hidden=32, pool_width=32)
    ).eval()
    wide = start.widened(encoder, 700, 12).eval()
    assert (wide.dims.concept, wide.dims.pool_heads, wide.dims.pool_width) == (700, 12, 96)
    ids = [[5, 6, 7], [8], [4, 4, 5, 9]]
    before, after = (start.pooled_states(model, ids) for model in (encoder, wide))
    assert after.shape == (3, 128)
    assert torch.allclose(after[:, :64], before, atol=1e-6)  # the mean, then the heads that were there
    assert after[:, 64:].abs().min() > 0
    with torch.no_grad():
        old, new = encoder.project(before), wide.project(after)
    assert torch.allclose(new[:, :512], old, atol=1e-5) and new[:, 512:].abs().max() < 1e-6


def test_a_start_is_written_from_a_space_and_a_language_model(
    texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(start, "WHISPER_DECODER", replace(WHISPER_DECODER, width=32, layers=2, heads=2, hidden=48))
    monkeypatch.setattr(start, "FIRST_DECODER", replace(FIRST_DECODER, **SIZES))
    tokenized(texts).save(tmp_path / "tokens.npz")
    old = write_start(tmp_path / "old")
    whole = TextDecoder(replace(start.WHISPER_DECODER, concept=8)).state_dict()
    spoken = {name: torch.randn_like(tensor) for name, tensor in whole.items() if ".concept." not in name}
    save_weights(tmp_path / "whisper.safetensors", spoken)
    files = ["--tokens", tmp_path / "tokens.npz", "--tokenizer", TOKENIZER, "--encoder", old, "--kept", 4]
    made = ["--concept", 24, "--heads", 8, "--out", tmp_path / "start"]
    assert start.main(list(map(str, [*files, *made, "--decoder", tmp_path / "whisper.safetensors"]))) == 0
    encoder, decoder = read_towers(tmp_path / "start")
    assert (encoder.dims.concept, encoder.dims.pool_heads, decoder.dims.concept) == (24, 8, 24)
    assert decoder.dims.width == 32 and 0 < decoder.layers[0].concept.weight.std() < 0.03
    for name, tensor in spoken.items():
        assert torch.allclose(decoder.state_dict()[name], tensor, atol=float(tensor.abs().max()) / 100)
    # Without a language model the space's own decoder reads the new concepts; of another size it starts anew.
    for size in (48, 24):
        assert start.main(list(map(str, [*files, "--concept", size, "--out", tmp_path / str(size)]))) == 0
        assert read_towers(tmp_path / str(size))[1].dims.concept == size
    del spoken["norm.weight"]
    save_weights(tmp_path / "part.safetensors", spoken)
    assert start.main(list(map(str, [*files, *made, "--decoder", tmp_path / "part.safetensors"]))) == 2
    assert "part.safetensors holds no text decoder of Whisper's sizes" in capsys.readouterr().err
    assert start.main(list(map(str, [*files, "--concept", 900, "--out", tmp_path / "large"]))) == 2
    assert "asks for more pooling heads" in capsys.readouterr().err


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
    encoder = TextEncoder(replace(FIRST_ENCODER, vocabulary=50)).eval()
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


def test_e5_is_a_start_too(hugging_face: Path, texts: Path, tmp_path: Path) -> None:
    options = ["--e5", hugging_face, "--corpus", texts, "--size", 50, "--out", tmp_path / "tokenizer.model"]
    assert e5.main(list(map(str, options))) == 0
    tokenizer = tmp_path / "tokenizer.model"
    encoder, decoder = start.read_encoder(hugging_face, tokenizer)
    assert decoder is None and encoder.dims.vocabulary == 50
    fresh = start.fresh_decoder(encoder)
    assert fresh.dims.vocabulary == 50 and float(fresh.embed.weight.detach().std()) == pytest.approx(
        384**-0.5, rel=0.01
    )
