"""What to compute on, and how exactly."""

from __future__ import annotations

import torch

from .errors import ConceptscapeError


def best_device(wanted: str | None = None) -> torch.device:
    """The device that was asked for, else a GPU where there is one. Raises ConceptscapeError."""
    mps = torch.backends.mps.is_available()
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(wanted)
        here = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(mps)}.get(device.type, 0)
        if (device.index or 0) < here:
            return device
    except RuntimeError:
        pass
    raise ConceptscapeError(f"There is no device {wanted!r} here; leave --device out, or use cpu.")


def best_dtype(device: torch.device) -> torch.dtype:
    """bf16 where the device multiplies it faster than fp32, rather than only storing it; else fp32."""
    if device.type == "cuda":
        good = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        features = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
        good = device.type == "cpu" and any(getattr(torch.cpu, name, bool)() for name in features)
    return torch.bfloat16 if good else torch.float32
