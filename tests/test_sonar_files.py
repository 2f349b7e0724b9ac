"""SONAR's files fetched from a server on this machine, and checked."""

import hashlib
import http.server
import shutil
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import toy_sonar

from engine import cli
from engine.errors import Cancelled, WeightsError
from engine.spaces import sonar, sonar_files
from engine.spaces.sonar_files import OFFICIAL, TOKENIZER, Official, checksum, default_folder, fetch, remembered, verify

DATA = bytes(range(256)) * 20_000  # 5 MB


class Server(http.server.BaseHTTPRequestHandler):
    """Serves `files`, with Range unless told otherwise; `cut` ends an answer early."""

    files: dict[str, bytes]
    ranges, cut = True, None
    asked: list[str | None]

    def do_GET(self) -> None:
        data, wanted = self.files.get(self.path), self.headers.get("Range")
        self.asked.append(wanted)
        if data is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges else 0
        if start >= len(data) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(data)}")
            self.end_headers()
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        self.wfile.write(data[start : self.cut])

    def log_message(self, format: str, *args: object) -> None: ...


@pytest.fixture
def server() -> Iterator[type[Server]]:
    handler = type("Handler", (Server,), {"files": {"/file": DATA}, "asked": []})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        handler.home = f"http://127.0.0.1:{running.server_port}"
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield handler
        running.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(sonar_files.platformdirs, "user_cache_path", lambda *_, **__: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def file(server: type[Server]) -> Official:
    return Official("file", f"{server.home}/file", len(DATA), hashlib.sha256(DATA).hexdigest())


def test_a_file_is_fetched_once(server: type[Server], file: Official, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    path = fetch(file, tmp_path / "new" / "folder", lambda *counts: told.append(counts))
    assert path.read_bytes() == DATA and told[-1] == (len(DATA), len(DATA)) and len(told) > 3
    assert not list(path.parent.glob("*.part"))
    assert fetch(file, path.parent) == path and len(server.asked) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_goes_on_where_it_was_cut_off(
    ranges: bool, server: type[Server], file: Official, tmp_path: Path
) -> None:
    server.ranges, server.cut = ranges, 3_000_000
    with pytest.raises(WeightsError, match=r"file came with 3,000,000 of 5,120,000 bytes; run .sonar fetch. again"):
        fetch(file, tmp_path)
    server.cut = None
    assert fetch(file, tmp_path).read_bytes() == DATA
    assert server.asked == [None, "bytes=3000000-"]


def test_stopping_keeps_what_has_come(server: type[Server], file: Official, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > 2_000_000:
            raise Cancelled

    with pytest.raises(Cancelled):
        fetch(file, tmp_path, stop)
    assert 2_000_000 < (tmp_path / "file.part").stat().st_size < len(DATA)
    assert fetch(file, tmp_path).read_bytes() == DATA


def test_a_whole_part_needs_no_more(server: type[Server], file: Official, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(DATA)
    assert fetch(file, tmp_path).read_bytes() == DATA
    (tmp_path / "file").unlink()
    (tmp_path / "file.part").write_bytes(DATA * 2)  # of another file: begun anew
    assert fetch(file, tmp_path).read_bytes() == DATA


def test_a_wrong_file_is_not_kept(server: type[Server], file: Official, tmp_path: Path) -> None:
    server.files["/file"] = DATA[::-1]
    with pytest.raises(WeightsError, match="wrong checksum"):
        fetch(file, tmp_path)
    server.files["/file"] = DATA + b"more"
    with pytest.raises(WeightsError, match="5,120,004 of 5,120,000 bytes"):
        fetch(file, tmp_path)
    assert not list(tmp_path.glob("file*"))


def test_what_the_network_does_is_told(server: type[Server], file: Official, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"answers 404 Not Found"):
        fetch(replace(file, url=f"{server.home}/other"), tmp_path)
    with pytest.raises(WeightsError, match=r"127\.0\.0\.1:9 can't be reached .*--sonar-dir"):
        fetch(replace(file, url="http://127.0.0.1:9/file"), tmp_path)
    (tmp_path / "taken").write_text("no folder")
    with pytest.raises(WeightsError, match="can't be written"):
        fetch(file, tmp_path / "taken")


def test_official_addresses_and_what_is_known() -> None:
    assert [file.url.rpartition("/")[0] for file in OFFICIAL] == ["https://dl.fbaipublicfiles.com/SONAR"] * 3
    assert [file.url.rpartition("/")[2] for file in OFFICIAL] == [file.name for file in OFFICIAL]


def test_checksums_are_worked_out_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_bytes(DATA)
    found = checksum(path)
    assert found == hashlib.sha256(DATA).hexdigest()
    monkeypatch.setattr(sonar_files, "digest", lambda path: "worked out again")
    assert checksum(path) == found
    path.write_bytes(DATA[1:])
    assert checksum(path) == "worked out again"


def test_a_file_that_changed_since_it_was_fetched(server: type[Server], tmp_path: Path) -> None:
    """As on a failing disk: same name, same size. Meta's checksums are not known, so the first one found counts."""
    file = Official("file", f"{server.home}/file")
    path = fetch(file, tmp_path)
    assert verify(file, tmp_path) == remembered()[str(path)]["sha256"]
    path.write_bytes(DATA[:-1] + b"?")
    with pytest.raises(WeightsError, match="another checksum than when it was fetched"):
        verify(file, tmp_path)


def test_a_tokenizer_that_is_not_the_official_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / TOKENIZER.name).write_bytes(b"another")
    with pytest.raises(WeightsError, match="another checksum than the official one"):
        verify(TOKENIZER, tmp_path)


@pytest.fixture
def toy(server: type[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SONAR at a toy's size: the official names lead to this machine's server."""
    folder = toy_sonar.save(tmp_path / "toy")
    server.files = {f"/{path.name}": path.read_bytes() for path in folder.iterdir()}
    here = tuple(Official(file.name, f"{server.home}/{file.name}") for file in OFFICIAL)  # the toy's, not Meta's
    for module in (sonar, sonar_files):
        monkeypatch.setattr(module, "OFFICIAL", here)
    monkeypatch.setattr(sonar, "SONAR_ENCODER", toy_sonar.TOY_ENCODER)
    monkeypatch.setattr(sonar, "SONAR_DECODER", toy_sonar.TOY_DECODER)
    return folder


def run(capsys: pytest.CaptureFixture[str], *args: object) -> tuple[int, str, str]:
    code = cli.main([str(arg) for arg in args])
    return code, *capsys.readouterr()


def test_fetch_check_and_use(toy: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    code, out, error = run(capsys, "sonar", "check")
    assert code == 2 and "sonar fetch" in error and error.count("\n") == 1

    code, out, _ = run(capsys, "sonar", "fetch")
    assert code == 0 and out.splitlines() == [str(default_folder() / file.name) for file in OFFICIAL]
    code, out, _ = run(capsys, "sonar", "check")
    assert code == 0 and "GB of memory" in out.splitlines()[3]
    for line, file in zip(out.splitlines(), OFFICIAL, strict=False):
        assert line == f"{file.name}\t{hashlib.sha256((toy / file.name).read_bytes()).hexdigest()}"

    text, vectors = tmp_path / "a.txt", tmp_path / "v.npy"
    text.write_text("すずめ\n", encoding="utf-8")
    code, _, _ = run(
        capsys, "encode", text, "--lang", "jpn_Jpan", "--space", "sonar", "--device", "cpu", "--out", vectors
    )
    assert code == 0 and np.load(vectors).shape == (1, 32)
    code, out, _ = run(capsys, "decode", vectors, "--lang", "zul_Latn", "--space", "sonar", "--sonar-dir", toy)
    assert code == 0 and out.count("\n") == 1
    code, _, error = run(capsys, "decode", vectors, "--lang", "zul_Latin", "--space", "sonar")
    assert code == 2 and "such as zul_Latn" in error


def test_check_finds_swapped_and_damaged_files(toy: Path, capsys) -> None:
    names = [toy / file.name for file in OFFICIAL[1:]]
    shutil.move(names[0], toy / "other")
    shutil.move(names[1], names[0])
    shutil.move(toy / "other", names[1])
    code, _, error = run(capsys, "sonar", "check", "--sonar-dir", toy)
    assert code == 2 and "swapped" in error and error.count("\n") == 1
    (toy / TOKENIZER.name).write_bytes(b"?")
    code, _, error = run(capsys, "sonar", "check", "--sonar-dir", toy)
    assert code == 2 and TOKENIZER.name in error and error.count("\n") == 1
