"""SONAR's official files: where they are fetched from, where they are kept, and whether they are whole."""

from __future__ import annotations

import hashlib
import json
import shutil
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path

import platformdirs

from ..errors import WeightsError
from . import Progress

CHUNK = 1 << 20
TIMEOUT = 30  # seconds without a byte


@dataclass(frozen=True)
class Official:
    """One file. Meta publishes neither sizes nor checksums; what others measured stands here, or None: not known.

    Where they are None, a download is held against the size that the server states, and a file on the disk against
    the checksum it had when it was fetched; and the names and shapes in it must be SONAR's before it is used.
    """

    name: str
    url: str
    size: int | None = None  # bytes
    sha256: str | None = None


# The addresses in SONAR's asset cards: facebookresearch/SONAR, sonar/cards/text_sonar_basic_{encoder,decoder}.yaml.
HOME = "https://dl.fbaipublicfiles.com/SONAR/"
ENCODER = Official("sonar_text_encoder.pt", HOME + "sonar_text_encoder.pt")
DECODER = Official("sonar_text_decoder.pt", HOME + "sonar_text_decoder.pt")
# The tokenizer is NLLB-200's, whose size and checksum its copies everywhere state (facebook/nllb-200-distilled-600M).
TOKENIZER = Official(
    "sentencepiece.source.256000.model",
    HOME + "sentencepiece.source.256000.model",
    4_852_054,
    "14bb8dfb35c0ffdea7bc01e56cea38b9e3d5efcdcb9c251d6b40538e1aab555a",
)
OFFICIAL = (TOKENIZER, ENCODER, DECODER)  # the small one first: what is wrong with the network shows at once


def default_folder() -> Path:
    """Where fetched files are kept, by the system's custom."""
    return platformdirs.user_cache_path("conceptscape", appauthor=False) / "sonar"


def fetch(file: Official, folder: Path, progress: Progress | None = None) -> Path:
    """Download a file unless it is there; a download that was cut off goes on where it ended.

    `progress` counts bytes. Raises WeightsError where there is no network or what came is not the file.
    """
    path, part = folder / file.name, folder / f"{file.name}.part"
    if path.is_file():
        return path
    try:
        folder.mkdir(parents=True, exist_ok=True)
        total = download(file, part, progress)
        size = part.stat().st_size
        if size != (file.size or total):
            if size > (file.size or total):
                part.unlink()
            raise WeightsError(
                f"{file.name} came with {size:,} of {file.size or total:,} bytes; run `sonar fetch` again to go on."
            )
        found = digest(part)
        if file.sha256 and found != file.sha256:
            part.unlink()
            raise WeightsError(f"{file.name} came with a wrong checksum and was removed; fetch it again.")
        part.replace(path)
        remember(path, found)
    except OSError as error:
        raise WeightsError(
            f"{file.name} can't be written to {folder} ({error.strerror or error}); it needs a folder with "
            "enough room (6.6 GB for all files)."
        ) from error
    return path


def download(file: Official, part: Path, progress: Progress | None) -> int:
    """Append to `part` what it lacks; returns the whole size that the server states. Raises WeightsError."""
    begun = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={begun}-"} if begun else {}
    request = urllib.request.Request(file.url, headers=headers)
    try:
        answer: HTTPResponse = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and begun:  # nothing is lacking, or the file is another one now
            total = int((error.headers.get("Content-Range") or "*/0").rpartition("/")[2])
            if total == begun:
                return total
            part.unlink()
            return download(file, part, progress)
        raise WeightsError(
            f"The server of {file.name} answers {error.code} {error.reason}; try again later."
        ) from error
    except (OSError, HTTPException) as error:
        raise WeightsError(unreachable(file, error)) from error
    with answer:
        if begun and answer.status != 206:  # a server that can't go on starts over
            begun = 0
        total = begun + int(answer.headers.get("Content-Length") or 0)
        if shutil.disk_usage(part.parent).free < total - begun:
            raise WeightsError(f"{file.name} needs {total:,} bytes and {part.parent} has no room; make room and retry.")
        done = begun
        with part.open("ab" if begun else "wb") as out:
            while True:
                try:
                    chunk = answer.read(CHUNK)
                except (OSError, HTTPException) as error:
                    raise WeightsError(unreachable(file, error)) from error
                if not chunk:
                    break
                out.write(chunk)
                done += len(chunk)
                if progress:
                    progress(done, total)
    return total


def unreachable(file: Official, error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    host = file.url.split("/")[2]
    return (
        f"{file.name} can't be fetched because {host} can't be reached ({reason}); check the network and run "
        "`sonar fetch` again, or copy the files from elsewhere and name their folder with --sonar-dir."
    )


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# Hashing 6.5 GB takes seconds to minutes, so it is done once: what was found is kept by path, size and time.


def record() -> Path:
    return default_folder() / "checksums.json"


def remembered() -> dict[str, dict[str, str | int]]:
    try:
        known = json.loads(record().read_text(encoding="utf-8"))
        return known if isinstance(known, dict) else {}
    except (OSError, ValueError):
        return {}


def remember(path: Path, found: str) -> None:
    about = path.stat()
    known = remembered()
    known[str(path.resolve())] = {"size": about.st_size, "time": about.st_mtime_ns, "sha256": found}
    try:
        record().parent.mkdir(parents=True, exist_ok=True)
        new = record().with_suffix(".new")
        new.write_text(json.dumps(known, indent=1), encoding="utf-8")
        new.replace(record())
    except OSError:
        pass  # it will be hashed again the next time


def checksum(path: Path) -> str:
    """A file's SHA-256, worked out once for as long as its size and time stay the same."""
    known, about = remembered().get(str(path.resolve()), {}), path.stat()
    if (known.get("size"), known.get("time")) == (about.st_size, about.st_mtime_ns):
        return str(known["sha256"])
    found = digest(path)
    remember(path, found)
    return found


def verify(file: Official, folder: Path) -> str:
    """A file's SHA-256, worked out anew. Raises WeightsError where it is missing or not what it was, or should be."""
    path = folder / file.name
    if not path.is_file():
        raise WeightsError(f"{file.name} is not in {folder}; fetch it with `python -m engine sonar fetch`.")
    found = digest(path)
    known = remembered().get(str(path.resolve()), {}).get("sha256")
    if found != (file.sha256 or known or found):
        than = "the official one" if file.sha256 else "when it was fetched"
        raise WeightsError(f"{file.name} has another checksum than {than}; remove it and fetch it again.")
    remember(path, found)
    return found


def fingerprint(folder: Path) -> str:
    """16 hex digits that name the weights of a folder."""
    sums = "".join(checksum(folder / file.name) for file in OFFICIAL)
    return hashlib.sha256(sums.encode()).hexdigest()[:16]
