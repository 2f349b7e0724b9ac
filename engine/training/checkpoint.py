"""A run's state on disk: written whole or not at all, read without running code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..errors import TrainingError, WeightsError


def write(path: Path, state: dict[str, Any]) -> None:
    """Raises TrainingError where the disk does not take it; what was there before stays."""
    new = path.with_suffix(".new")
    try:
        torch.save(state, new)
        new.replace(path)
    except (OSError, RuntimeError) as error:
        new.unlink(missing_ok=True)
        raise TrainingError(
            f"The checkpoint can't be written to {path.parent.name} ({error}); make room and start again: "
            "the last one is whole."
        ) from error


def read(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Raises WeightsError where the file is damaged."""
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:  # reading damaged bytes can fail in any way
        raise WeightsError(f"The checkpoint in {path.parent.name} is damaged; delete it and start again.") from error
