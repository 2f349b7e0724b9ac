"""Commands for SONAR's files."""

from __future__ import annotations

import argparse

from .options import Commands, Parser, add_sonar_dir, command
from .output import emit, progress


def add(commands: Commands) -> None:
    sonar = commands.add_parser(
        "sonar", help="Fetch and check SONAR's files.", description="Meta's SONAR, 200 languages."
    ).add_subparsers(title="what", required=True, metavar="WHAT", parser_class=Parser)
    made = command(
        sonar,
        fetch,
        "fetch",
        "Download SONAR's text encoder, text decoder and tokenizer from Meta (6.6 GB; the weights are CC BY-NC 4.0); "
        "run again, it goes on where it was cut off.",
        "python -m engine sonar fetch",
    )
    add_sonar_dir(made)
    made = command(
        sonar,
        check,
        "check",
        "Check that SONAR's files are whole, and print their SHA-256.",
        "python -m engine sonar check --sonar-dir DIR",
    )
    add_sonar_dir(made)


def fetch(args: argparse.Namespace) -> None:
    from ..spaces import sonar_files

    folder = args.sonar_dir or sonar_files.default_folder()
    for file in sonar_files.OFFICIAL:
        with progress(f"Fetching {file.name}, MB") as report:
            path = sonar_files.fetch(file, folder, lambda done, total: report(done // 10**6, total // 10**6))
        emit(str(path))


def check(args: argparse.Namespace) -> None:
    from ..device import best_device, best_dtype
    from ..spaces import sonar

    for name, found in sonar.check(args.sonar_dir).items():
        emit(name, found)
    device = best_device()
    dtype = best_dtype(device)
    emit(
        f"Loading takes {sonar.memory_needed(dtype):.1f} GB of memory ({str(dtype).removeprefix('torch.')}, {device})."
    )
