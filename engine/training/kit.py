"""Train on another machine: `python -m engine.training.kit --help`.

`pack` makes a folder of small parts that hold all that training needs: code, tokenized corpus, starting weights. On the
other machine, which needs torch, numpy, safetensors, sentencepiece and sacrebleu but no network, `unpack.py` puts them
together and `run` trains: first the space, then, on the concepts of all documents, every kind of concept model. Its
results come in small parts, too; `take` checks and installs them.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import ConceptscapeError, TrainingError
from ..evaluation import evaluate_space
from ..spaces.builtin import ASSETS, BuiltinSpace, read_towers
from . import concepts, lcm, space
from .packaging import write_towers
from .tokens import Tokens

PART = 55 * 2**20  # bytes of a part of the kit: such machines are often reached through narrow doors
RESULT = 15 * 2**20  # bytes of a part of the results
KIT, RESULTS, SCORES = "kit.json", "results.json", "space-scores.json"
ARCHIVE = "kit.tar.xz"
ROOT = Path(__file__).parents[2]
TOWERS = ("encoder.safetensors", "decoder.safetensors")


@dataclass(frozen=True)
class Training:
    """How one concept model is trained."""

    kind: str
    size: str = "tiny"
    init: str = ""  # another one of the plan, from whose weights it starts
    ships: bool = True
    share: float = 1.0  # of the minutes for the models

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.size}"


# SONAR-LLM writes by default: it is the largest, and starts from a Base-LCM of its size.
PLAN = (
    Training("base", "small", ships=False, share=0.3),
    Training("sonar-llm", "small", "base-small", share=0.7),
    Training("base"),
    Training("two-tower"),
    Training("one-tower"),
    Training("quant-c"),
    Training("quant-d"),
)
# On a GPU: batches that it is busy with.
WIDE_SPACE = ("--batch", "65536", "--thaw", "0.05")
WIDE_MODEL = ("--batch", "8192", "--sentences", "4096")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def split(name: str, data: bytes, size: int, folder: Path) -> list[dict[str, Any]]:
    """Write data as parts of at most `size` bytes; their names, sizes and SHA-256."""
    parts = []
    for number, first in enumerate(range(0, max(len(data), 1), size)):
        piece = data[first : first + size]
        path = folder / f"{name}.{number:02}.part"
        concepts.written(path, lambda new, piece=piece: new.write_bytes(piece))
        parts.append({"name": path.name, "size": len(piece), "sha256": digest(piece)})
    return parts


def joined(parts: Sequence[dict[str, Any]], folders: Sequence[Path]) -> bytes:
    """The data of parts that lie in any of the folders. Raises TrainingError for one that is missing or damaged."""
    data = []
    for part in parts:
        path = next((folder / part["name"] for folder in folders if (folder / part["name"]).is_file()), None)
        if path is None:
            raise TrainingError(f"The part {part['name']} is missing; bring it and try again.")
        data.append(path.read_bytes())
        if digest(data[-1]) != part["sha256"]:
            raise TrainingError(f"The part {part['name']} is damaged; bring it once more and try again.")
    return b"".join(data)


def manifest(folder: Path, name: str) -> dict[str, Any]:
    """A kit's or a result's list of parts. Raises TrainingError where it is none."""
    try:
        found = json.loads((folder / name).read_text())
        if isinstance(found, dict) and "kit" in found:
            return found
    except FileNotFoundError as error:
        raise TrainingError(f"There is no {name} in {folder.name}; give the folder that has it.") from error
    except (OSError, ValueError):
        pass
    raise TrainingError(f"{folder.name}/{name} is damaged; get it once more.")


# ---- packing --------------------------------------------------------------------------------------------------------


def pack(out: Path, tokens: Path, start: Path, tokenizer: Path, valid: Path, part: int = PART) -> dict[str, Any]:
    """Write the kit into an empty folder; its manifest. Raises TrainingError where something is there already."""
    if out.exists() and any(out.iterdir()):
        raise TrainingError(f"{out.name} is not empty; choose another folder for the kit.")
    Tokens.load(tokens)
    read_towers(start)
    out.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", preset=6) as archive:
        for path in sorted((ROOT / "engine").rglob("*.py")):
            archive.add(path, path.relative_to(ROOT), filter=anonymous)
        for path, name in (
            (tokens, "tokens.npz"),
            (tokenizer, "tokenizer.model"),
            (valid, "valid.tsv.gz"),
            *((start / tower, f"start/{tower}") for tower in TOWERS),
        ):
            archive.add(path, name, filter=anonymous)
    data = buffer.getvalue()
    facts = {"kit": digest(data)[:16], "sha256": digest(data), "parts": split("kit", data, part, out)}
    concepts.written(out / KIT, lambda new: new.write_text(json.dumps(facts, indent=1)))
    (out / "unpack.py").write_text(UNPACK)
    return facts


def anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info


# What unpacks the kit where the project is not there yet: nothing but Python itself.
UNPACK = '''"""Put a training kit together: python3 unpack.py FOLDER_OF_PARTS TARGET"""

import hashlib, io, json, pathlib, sys, tarfile

parts, target = map(pathlib.Path, sys.argv[1:3])
data = b""
for part in json.loads((parts / "kit.json").read_text())["parts"]:
    path = parts / part["name"]
    if not path.is_file():
        sys.exit(f"The part {part['name']} is missing; bring it and try again.")
    piece = path.read_bytes()
    if hashlib.sha256(piece).hexdigest() != part["sha256"]:
        sys.exit(f"The part {part['name']} is damaged; bring it once more and try again.")
    data += piece
target.mkdir(parents=True, exist_ok=True)
with tarfile.open(fileobj=io.BytesIO(data), mode="r:xz") as archive:
    archive.extractall(target, filter="data")
(target / "kit.json").write_bytes((parts / "kit.json").read_bytes())
print(f"unpacked to {target}")
'''


# ---- training -------------------------------------------------------------------------------------------------------


def run(kit: Path, out: Path, space_minutes: float, model_minutes: float, extra: Sequence[str] = ()) -> None:
    """Train in an unpacked kit; results go to `out` every two minutes, and what was begun is gone on with.

    `extra` are options of `engine.training.space`. Raises TrainingError.
    """
    kit = kit.resolve()  # the models are trained from there
    known = manifest(kit, KIT)["kit"]
    if min(space_minutes, model_minutes) <= 0:
        raise TrainingError("There is no time to train in; give --space-minutes and --model-minutes some.")
    wide = torch.cuda.is_available()
    work = kit / "runs"
    results = Results(known, kit / "start", out)
    arguments = [
        *("--tokens", kit / "tokens.npz", "--init", kit / "start", "--tokenizer", kit / "tokenizer.model"),
        *("--out", work / "space", "--budget", space_minutes, "--minutes", 2),
        *(WIDE_SPACE if wide else ()),
        *extra,
    ]
    folder = work / "towers"

    def keep(model: space.SpaceModel) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        write_towers(model.encoder, model.decoder, folder)
        for tower in TOWERS:
            results.add(tower, folder / tower)
        results.add("space-log.jsonl", work / "space" / "log.jsonl")

    space.train(list(map(str, arguments)), keep)
    torch.cuda.empty_cache()  # for the models, which are other processes
    shutil.copyfile(kit / "tokenizer.model", folder / "tokenizer.model")
    tokens = Tokens.load(kit / "tokens.npz")
    chosen = concepts.select(tokens)
    shards = work / "concepts"
    concepts.encode(tokens, chosen, concepts.FastEncoder(BuiltinSpace.load(folder)), shards, size=2000 if wide else 200)
    models(kit, work, results, model_minutes, wide)
    # Last, so that nothing waits for it: how good the space is.
    pairs = space.held_out(kit / "valid.tsv.gz")
    scores = evaluate_space(BuiltinSpace.load(folder), pairs, gradients=0)
    (work / SCORES).write_text(json.dumps(scores["summary"] | {"lengths": scores["lengths"]}, indent=1))
    results.add(SCORES, work / SCORES)


def models(kit: Path, work: Path, results: Results, minutes: float, wide: bool) -> None:
    """Train the concept models: on a GPU all at once, since none of them fills it."""
    waiting = list(PLAN)
    running: list[tuple[Training, subprocess.Popen[bytes]]] = []
    failed = []

    def finished(one: Training, code: int) -> None:
        weights = work / f"{one.name}.safetensors"
        if code:
            failed.append(one.name)
        if one.ships:
            results.add(f"{one.kind}.safetensors", weights)

    while waiting or running:
        busy = {other.name for other in waiting} | {other.name for other, _ in running}
        for one in [one for one in waiting if one.init not in busy]:
            waiting.remove(one)
            arguments = [
                *("--model", one.kind, "--size", one.size, "--tokens", kit / "tokens.npz"),
                *("--concepts", work / "concepts", "--space", work / "towers", "--out", work / one.name),
                *("--weights", work / f"{one.name}.safetensors", "--budget", minutes * one.share),
                *(("--init", work / f"{one.init}.safetensors") if one.init else ()),
                *(WIDE_MODEL if wide else ()),
            ]
            if not wide:
                finished(one, lcm.main(list(map(str, arguments))))
                continue
            command = [sys.executable, "-m", "engine.training.lcm", *map(str, arguments)]
            # What runs on the processor afterwards shares its cores.
            threads = max(1, (os.cpu_count() or 1) // len(PLAN))
            environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
            with (work / f"{one.name}.log").open("ab") as log:
                running.append((one, subprocess.Popen(command, cwd=kit, stdout=log, stderr=log, env=environment)))
        for one, process in list(running):
            if process.poll() is not None:
                running.remove((one, process))
                finished(one, process.returncode)
        time.sleep(1 if running else 0)
    if failed:
        raise TrainingError(f"These concept models failed, and the others are done: {', '.join(failed)}.")


class Results:
    """Trained files in small parts, and what is known of them.

    A tensor that is as it was in the starting weights does not travel: its bytes are left out and put back by `take`.
    """

    def __init__(self, kit: str, start: Path, out: Path) -> None:
        self.start, self.out = start, out
        self.facts: dict[str, Any] = {"kit": kit, "files": {}}
        out.mkdir(parents=True, exist_ok=True)
        if (out / RESULTS).exists():
            self.facts = manifest(out, RESULTS)
            if self.facts["kit"] != kit:
                raise TrainingError(f"{out.name} holds the results of another kit; choose an empty folder.")

    def add(self, name: str, path: Path) -> None:
        """Add a file, or what has become of it."""
        if not path.exists():
            return
        data = path.read_bytes()
        sparse, left_out = without(data, self.start / name) if name in TOWERS else (data, [])
        packed = zlib.compress(sparse, 1)  # while a GPU waits
        for old in self.out.glob(f"{name}.*.part"):
            old.unlink()
        self.facts["files"][name] = {
            "size": len(data),
            "sha256": digest(data),
            "left_out": left_out,
            "parts": split(name, packed, RESULT, self.out),
        }
        concepts.written(self.out / RESULTS, lambda new: new.write_text(json.dumps(self.facts, indent=1)))


def places(data: bytes) -> dict[str, tuple[int, int]]:
    """Where each tensor of a safetensors file begins and ends (the format's header: 8 bytes of length, then JSON)."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header.pop("__metadata__", None)
    return {
        name: (8 + length + about["data_offsets"][0], 8 + length + about["data_offsets"][1])
        for name, about in header.items()
    }


def without(data: bytes, start: Path) -> tuple[bytes, list[str]]:
    """A weights file with zeros for all tensors whose bytes are those of the starting weights, and their names."""
    before = start.read_bytes()
    old, sparse, names = places(before), bytearray(data), []
    for name, (first, last) in places(data).items():
        if name in old and data[first:last] == before[slice(*old[name])]:
            sparse[first:last] = bytes(last - first)
            names.append(name)
    return bytes(sparse), names


# ---- taking ---------------------------------------------------------------------------------------------------------


def take(kit: Path, folders: Sequence[Path], assets: Path, logs: Path | None = None) -> list[str]:
    """Check the results of a kit, which may lie in several folders, and install them; the names of what was installed.

    Nothing is written before all has been checked. Raises TrainingError for the results of another kit, a part that is
    missing or damaged, and weights that can't be read.
    """
    known = manifest(kit, KIT)
    # The archive again: what was left out of the results is in its starting weights.
    archive = joined(known["parts"], [kit])
    newest: dict[str, dict[str, Any]] = {}
    for folder in folders:
        facts = manifest(folder, RESULTS)
        if facts["kit"] != known["kit"]:
            raise TrainingError(f"{folder.name} holds the results of another kit; give the folder of {kit.name}.")
        newest |= facts["files"]
    missing = [name for name in TOWERS if name not in newest]
    if missing:
        raise TrainingError(f"The results lack {' and '.join(missing)}; give all the folders that came back.")
    files = {}
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:xz") as packed:
        for name, about in newest.items():
            try:
                data = bytearray(zlib.decompress(joined(about["parts"], folders)))
                if about["left_out"]:
                    member = packed.extractfile(f"start/{name}")
                    before = member.read() if member else b""
                    own, old = places(bytes(data)), places(before)
                    for tensor in about["left_out"]:
                        data[slice(*own[tensor])] = before[slice(*old[tensor])]
            except (zlib.error, KeyError, ValueError) as error:
                raise TrainingError(f"The results' {name} is damaged; bring it once more and try again.") from error
            if digest(bytes(data)) != about["sha256"]:
                raise TrainingError(f"The results' {name} is damaged; bring it once more and try again.")
            files[name] = bytes(data)
    return [name for name, data in files.items() if install(name, data, assets, logs)]


def install(name: str, data: bytes, assets: Path, logs: Path | None) -> bool:
    """Write one file to where it belongs; whether it is one of weights."""
    weights = name.endswith(".safetensors")
    if not weights and logs is None:
        return False
    folder = assets if name in TOWERS else assets / "lcm" if weights else logs
    assert folder is not None
    path = folder / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        new = path.with_suffix(".new")
        new.write_bytes(data)
        if weights:
            with safe_open(new, "pt") as file:
                file.keys()
        new.replace(path)
    except (OSError, SafetensorError) as error:
        path.with_suffix(".new").unlink(missing_ok=True)
        raise TrainingError(f"{name} can't be written to {folder.name} ({error}); make room and try again.") from error
    return weights


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.training.kit", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="make the kit")
    packing.add_argument("out", type=Path, help="an empty folder")
    packing.add_argument("--tokens", type=Path, default=Path("runs/tokens.npz"), help="the corpus (%(default)s)")
    packing.add_argument("--start", type=Path, default=Path("runs/start"), help="towers to start from (%(default)s)")
    packing.add_argument("--tokenizer", type=Path, default=ASSETS / "tokenizer.model", help="SentencePiece model")
    packing.add_argument("--valid", type=Path, required=True, help="held-out pairs (valid.tsv.gz)")
    training = commands.add_parser("run", help="train, in an unpacked kit")
    training.add_argument("--kit", type=Path, default=Path(), help="the unpacked kit (here)")
    training.add_argument("--out", type=Path, required=True, help="where the results go")
    training.add_argument("--space-minutes", type=float, required=True, help="for the space")
    training.add_argument("--model-minutes", type=float, required=True, help="for the concept models")
    taking = commands.add_parser("take", help="check and install what came back")
    taking.add_argument("results", type=Path, nargs="+", help="folders with results")
    taking.add_argument("--kit", type=Path, required=True, help="the folder that was packed")
    taking.add_argument("--assets", type=Path, default=ASSETS, help="where the weights go")
    taking.add_argument("--logs", type=Path, help="where the logs go (nowhere)")
    args, extra = parser.parse_known_args(arguments)
    if extra and args.command != "run":
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
    try:
        if args.command == "pack":
            facts = pack(args.out, args.tokens, args.start, args.tokenizer, args.valid)
            sizes = ", ".join(f"{part['name']} {part['size'] / 2**20:.1f} MiB" for part in facts["parts"])
            print(f"kit {facts['kit']} in {args.out}: {sizes}, {KIT}, unpack.py")
        elif args.command == "run":
            run(args.kit, args.out, args.space_minutes, args.model_minutes, extra)
        else:
            print("installed", *take(args.kit, args.results, args.assets, args.logs))
    except ConceptscapeError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{error.strerror or error}; make room or choose another folder.", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
