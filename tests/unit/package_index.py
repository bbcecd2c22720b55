"""A package index on this machine, for tests that fetch wheels with real pips."""

import os
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import patchclamp


def make_wheel(
    folder: Path, files: dict[str, bytes], name: str = "tiny_model", version: str = "0.1"
) -> Path:
    """A real wheel, as small as one can be."""
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, contents in files.items():
            archive.writestr(path, contents)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return wheel


class Index:
    """A package index on this machine that can be slow, or hang up in the middle of a file.

    It can also keep back the last piece of every file: until `give_all` nobody has the whole.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.downloads = 0
        self.pause_s = 0.0
        self.hang_up = False
        self._all_is_given = threading.Event()
        self._all_is_given.set()
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index._answer(self)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple/"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def serve(self, file: Path) -> None:
        self.files[file.name] = file.read_bytes()

    def keep_the_last_piece(self) -> None:
        self._all_is_given.clear()

    def give_all(self) -> None:
        self._all_is_given.set()

    def close(self) -> None:
        self.give_all()
        self.server.shutdown()
        self.server.server_close()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.rsplit("/", 1)[1]
        if request.path.startswith("/simple/"):
            links = "".join(f'<a href="/files/{file}">{file}</a>' for file in self.files)
            body, kind = f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), "text/html"
        else:
            self.downloads += 1
            body, kind = self.files[name], "application/octet-stream"
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        if kind == "text/html":
            request.wfile.write(body)
            return
        half = body[: len(body) // 2]
        try:
            for start in range(0, len(half if self.hang_up else body), 20_000):
                if start + 20_000 >= len(body):
                    self._all_is_given.wait(300)
                request.wfile.write(body[start : start + 20_000])
                time.sleep(self.pause_s)
        except OSError:  # the one who asked was killed: that is what some tests are about
            request.close_connection = True


@contextmanager
def only_index(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An empty cache, and pips that know one index only: the one that is served."""
    served = Index()
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", served.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("PATCHCLAMP_CACHE", str(cache))
    monkeypatch.setenv("PYTHONPATH", str(Path(patchclamp.__file__).parents[1]))
    yield served
    served.close()
