"""Weights on disk: safetensors, with large matrices as int8 and one scale per output row."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .errors import WeightsError

SCALE = ".scale"


class NoStart(TorchFunctionMode):
    """Modules made in its context do not draw their first weights."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


@contextmanager
def blank() -> Iterator[None]:
    """Modules made in its context have shapes but no memory, until weights are loaded into them with `assign=True`.

    To draw first weights without memory, torch would import 800 modules, which takes a second or two.
    """
    with torch.device("meta"), NoStart():
        yield


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """[rows, columns] to int8 and a float32 scale per row, so that weight is about int8 * scale."""
    scale = weight.float().abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
    return (weight.float() / scale).round().to(torch.int8), scale


def save_weights(path: Path, state: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write matrices as int8 (see `quantize`), bytes (uint8) as they are, all else as fp32.

    The file appears whole or not at all, and the same weights give the same bytes, by which they are known.
    """
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if tensor.dtype == torch.uint8:
            packed[name] = tensor.contiguous()
        elif tensor.ndim == 2 and min(tensor.shape) >= 16:
            packed[name], packed[name + SCALE] = quantize(tensor)
        else:
            packed[name] = tensor.detach().float().contiguous()
    new = path.with_suffix(".new")
    save_file(packed, new, metadata)
    new.write_bytes(ordered(new.read_bytes()))
    new.replace(path)


def ordered(data: bytes) -> bytes:
    """A safetensors file whose metadata stand in the order of their names: the library writes them in any order."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header.get("__metadata__", {}).items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at multiples of 8
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def read_metadata(path: Path) -> dict[str, str]:
    """What was written beside the tensors of a weights file. Raises WeightsError where it is missing or damaged."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"The weights file {path.name} is missing or damaged; get a complete copy.") from error


def load_weights(path: Path) -> dict[str, Tensor]:
    """Read a weights file as fp32 tensors. Raises WeightsError where it is missing or damaged."""
    if not path.is_file():
        raise WeightsError(f"The weights file {path.name} is missing; get a complete copy of the project.")
    try:
        packed = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"The weights file {path.name} is damaged; get a complete copy of it.") from error
    state: dict[str, Tensor] = {}
    for name, tensor in packed.items():
        if name.endswith(SCALE):
            continue
        scale = packed.get(name + SCALE)
        state[name] = tensor.float() if scale is None else tensor.float() * scale
    return state
