from dataclasses import replace

import numpy as np
import pytest
import torch

from engine import Engine, Search
from engine.spaces import packed as module
from engine.spaces.builtin import BuiltinSpace
from engine.spaces.decoding import Decoding
from engine.spaces.packed import PackedDecoder, PackedLinear, can_pack, packed
from engine.spaces.transformer import FIRST_DECODER, TextDecoder

TEXTS = [
    "He is tired.",
    "Once upon a time there was a little girl who lived with her old grandmother in a house near the forest.",
    "The dog is sleeping in the garden.",
    "No!",
    "Did you see the new film that they showed at the cinema yesterday?",
]
packs = pytest.mark.skipif(not can_pack(), reason="this torch has no oneDNN")


def small() -> TextDecoder:
    torch.manual_seed(0)
    sizes = {"vocabulary": 50, "width": 32, "layers": 2, "heads": 2, "hidden": 64, "concept": 24}
    return TextDecoder(replace(FIRST_DECODER, **sizes)).eval()


def plainly(space: BuiltinSpace) -> Decoding:
    """What the space decodes with, without packed matrices."""
    own = space.codec.decoding
    return Decoding(space.decoder, own.end, tuple(own.banned), own.limits)


@packs
@pytest.mark.parametrize("shape", [(1,), (3,), (4,), (5,), (24,), (0,), (1, 1), (2, 3), (2, 0)])
def test_a_packed_matrix_gives_what_a_plain_one_gives(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    linear, x = torch.nn.Linear(40, 72), torch.randn(*shape, 40)
    with torch.inference_mode():
        for bias in (linear.bias, None):
            found = PackedLinear(linear.weight, bias)(x)
            assert found.shape == (*shape, 72) and found.is_contiguous()
            assert torch.allclose(found, torch.nn.functional.linear(x, linear.weight, bias), atol=1e-5)


@packs
@torch.inference_mode()
@pytest.mark.parametrize("rows", [[0], [1], [0, 1], list(range(5)), list(range(5)) * 6])
@pytest.mark.parametrize(
    "search",
    [Search(), Search("beam", beams=6, alternatives=6), Search("sample", alternatives=2, seed=3)],
    ids=lambda search: search.kind,
)
def test_a_packed_decoder_writes_what_the_plain_one_writes(e: Engine, rows: list[int], search: Search) -> None:
    """One row, several that end at different steps and leave, and beams."""
    space = e.space
    assert isinstance(space, BuiltinSpace) and isinstance(space.codec.decoding.decoder, PackedDecoder)
    concepts = torch.from_numpy(space.encode(TEXTS, "eng_Latn"))[rows]
    for language in (0, 2):
        found = space.codec.decoding(concepts, language, search, 40)
        assert found == plainly(space)(concepts, language, search, 40)
    assert len(rows) == 1 or len({len(own[0]) for own in found}) > 1


@packs
@torch.inference_mode()
def test_a_packed_decoder_is_as_sure_as_the_plain_one(e: Engine) -> None:
    space = e.space
    assert isinstance(space, BuiltinSpace)
    concepts, said = torch.from_numpy(space.encode(TEXTS, "eng_Latn")), [space.tokens(text) for text in TEXTS]
    together = space.codec.decoding.likelihood(concepts, 0, said).numpy()
    alone = [space.likelihood([text], concepts[[i]].numpy(), "eng_Latn")[0] for i, text in enumerate(TEXTS)]
    plain = plainly(space).likelihood(concepts, 0, said).numpy()
    assert np.abs(together - plain).max() <= 1e-4 and np.abs(together - alone).max() <= 1e-4


@packs
def test_packing_leaves_the_decoder_as_it_was() -> None:
    decoder = small().train()
    before = {name: tensor.clone() for name, tensor in decoder.state_dict().items()}
    ready = packed(decoder)
    assert ready is not decoder and not ready.training
    assert decoder.training and all(p.requires_grad for p in decoder.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in decoder.state_dict().items())
    assert ready.embed.weight.data_ptr() == decoder.embed.weight.data_ptr()  # what is not packed is shared
    decoder.states(torch.ones(2, 3, dtype=torch.long), decoder.condition(torch.ones(2, 24))).sum().backward()


def test_where_nothing_can_be_packed_the_decoder_stays_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = small()
    assert packed(half := small().bfloat16()) is half

    def missing(*_: object) -> None:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")

    monkeypatch.setattr(module, "PackedLinear", missing)
    assert not can_pack() and packed(decoder) is decoder
    monkeypatch.setattr(module, "PackedLinear", lambda *_: lambda _: torch.zeros(1, 8))
    assert not can_pack() and packed(decoder) is decoder
