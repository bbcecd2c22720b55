"""The wheel: its bundles are whole, small and silent, and pip alone makes it work in a notebook."""

import importlib
import inspect
import json
import os
import pkgutil
import re
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import anywidget
import nbformat
import pytest

import patchclamp.corpora
import patchclamp.views
from patchclamp.models import catalogue, store

STATIC = "patchclamp/static/"

# What would reach for a network when a view is drawn. Namespaces are names, not addresses, and
# "import" as a string is the name of a message.
NETWORK = re.compile(
    r"""\bfetch\s*\(|\bXMLHttpRequest\b|\bWebSocket\s*\(|\bEventSource\s*\(|\bsendBeacon\b
    |\bimportScripts\s*\(|(?<!["'])\bimport\s*["'(]|\b(?:import|export)\b[^;"'`]*\bfrom\s*["']
    |@import\b|\burl\(\s*["']?(?!data:|["']?\#)|//[\w.-]*cdn|https?://(?!www\.w3\.org/)""",
    re.VERBOSE,
)


def view_names() -> list[str]:
    """Each view's name, from its file: views/neuron_clamp.py, class NeuronClamp -> neuron-clamp."""
    return list(_view_names())


def _view_names() -> Iterator[str]:
    for found in pkgutil.iter_modules(patchclamp.views.__path__):
        module = importlib.import_module(f"patchclamp.views.{found.name}")
        class_name = "".join(part.title() for part in found.name.split("_"))
        view = getattr(module, class_name, None)
        if (
            inspect.isclass(view)
            and issubclass(view, anywidget.AnyWidget)
            and class_name in patchclamp.__all__
        ):
            yield found.name.replace("_", "-")


@pytest.fixture(scope="session")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the tree as a release would be."""
    folder = tmp_path_factory.mktemp("wheel")
    run([sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, root])
    (built,) = folder.glob("*.whl")
    return built


def run(
    command: Sequence[str | Path], env: dict[str, str] | None = None, cwd: Path | None = None
) -> str:
    ended = subprocess.run(
        [str(word) for word in command],
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-6000:]
    return ended.stdout


def read(wheel: Path, name: str) -> str:
    with zipfile.ZipFile(wheel) as packed:
        return packed.read(name).decode()


def names(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as packed:
        return packed.namelist()


def test_there_are_views_to_ask_about() -> None:
    assert "neuron-clamp" in view_names()


def test_each_view_has_its_bundle_in_the_wheel(wheel: Path) -> None:
    for view in view_names():
        assert {f"{STATIC}{view}.js", f"{STATIC}{view}.css"} <= set(names(wheel))
        assert re.search(r"export\s*\{|export\s+default", read(wheel, f"{STATIC}{view}.js"))


def test_each_bundle_in_the_wheel_belongs_to_a_view(wheel: Path) -> None:
    bundles = {name.removeprefix(STATIC) for name in names(wheel) if name.startswith(STATIC)}
    assert bundles == {f"{view}.{kind}" for view in view_names() for kind in ("js", "css")}


def test_each_view_is_inside_its_size_budget(root: Path, wheel: Path) -> None:
    budgets = json.loads((root / "js" / "budgets.json").read_text(encoding="utf-8"))
    for view in view_names():
        for kind in ("js", "css"):
            code = read(wheel, f"{STATIC}{view}.{kind}")
            assert len(code.encode()) <= budgets[view], f"{view}.{kind}"


def test_no_bundle_reaches_for_a_network(wheel: Path) -> None:
    reaching = {
        f"{view}.{kind}: {match.group()}"
        for view in view_names()
        for kind in ("js", "css")
        for match in NETWORK.finditer(read(wheel, f"{STATIC}{view}.{kind}"))
    }
    assert not reaching


@pytest.mark.parametrize(
    "code",
    [
        'import("https://esm.sh/d3")',
        'import d3 from "d3"',
        'import*as d from"https://x.org/d3.js"',
        "await fetch(`x.json`)",
        'a.src="//cdn.x.org/a.js"',
        "@import 'fonts.css'",
        "src:url(font.woff)",
    ],
)
def test_a_bundle_that_reached_for_a_network_would_be_found(code: str) -> None:
    assert NETWORK.search(code)


@pytest.mark.parametrize(
    "code",
    [
        'document.createElementNS("http://www.w3.org/2000/svg","g")',
        "background:url(data:image/png;base64,AA)",
        "const fetched=from(a)",
        "export{render as default}",
        'span("or from"),span("x")',
    ],
)
def test_a_silent_bundle_is_let_through(code: str) -> None:
    assert not NETWORK.search(code)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in names(wheel)}
    assert tops == {"patchclamp", f"patchclamp-{patchclamp.__version__}.dist-info"}
    sources = (".ts", ".tsx", ".map", ".ipynb", ".pyc")
    assert not [name for name in names(wheel) if name.endswith(sources)]
    assert "patchclamp/py.typed" in names(wheel)


def test_the_texts_and_pictures_are_in_the_wheel_with_their_sources(wheel: Path) -> None:
    corpora = Path(patchclamp.corpora.__file__).parent
    here = {path.relative_to(corpora).as_posix(): path for path in corpora.rglob("*")}
    data = {name: path for name, path in here.items() if path.is_file() and ".py" not in name}
    texts = {"english.jsonl.gz", "multilingual.jsonl.gz"}
    assert {"SOURCES.md", "pictures/SOURCES.md", *texts} <= data.keys()
    with zipfile.ZipFile(wheel) as packed:
        for name, path in data.items():
            assert packed.read(f"patchclamp/corpora/{name}") == path.read_bytes()


def test_the_shipped_models_are_whole_in_the_wheel(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path)
    for entry in (entry for entry in catalogue.ENTRIES if entry.shipped):
        folder = tmp_path / "patchclamp" / "models" / "shipped" / entry.name
        files = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))["files"]
        assert "model.safetensors" in files
        for name, file in files.items():
            assert store.sha256_of(folder / name) == file["sha256"]


@pytest.mark.slow
def test_an_sdist_installs_without_node(root: Path, tmp_path: Path) -> None:
    run([sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, root])
    (sdist,) = tmp_path.glob("*.tar.gz")
    no_node = {**os.environ, "PATH": str(Path(sys.executable).parent)}
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    run([*pip, "--wheel-dir", tmp_path, sdist], env=no_node)
    (built,) = tmp_path.glob("*.whl")
    for view in view_names():
        assert f"{STATIC}{view}.js" in names(built)


NOTEBOOK = """\
import shutil
assert shutil.which("node") is None, "this environment was to be without Node"
import torch
from transformers import LlamaConfig, LlamaForCausalLM
import patchclamp as pc
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
)
model = pc.LanguageModel(LlamaForCausalLM(config).eval(), None)
session = pc.Session(model, torch.tensor([3, 14, 15, 9, 26]))
session.interventions = [pc.Clamp("L1.N7@-1", 8.0)]
moved = (session.current.logits - session.baseline.logits).abs().amax(-1)
print("moved:", [bool(x > 0) for x in moved])
pc.NeuronClamp(session)
"""

EXECUTE = """\
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[1])
"""


@pytest.mark.slow
def test_pip_alone_makes_it_work_in_a_notebook(root: Path, wheel: Path, tmp_path: Path) -> None:
    """A new environment, the wheel, no Node: a cell makes a session and shows a NeuronClamp."""
    fresh = tmp_path / "env"
    run([sys.executable, "-m", "venv", fresh])
    python = fresh / "bin" / "python"
    home = tmp_path / "home"
    home.mkdir()
    env = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
        "PATH": str(python.parent),  # no Node, no npm, nothing of this environment
        "HOME": str(home),
        "XDG_CACHE_HOME": os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache")),  # pip's
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "IPYTHONDIR": str(home / "ipython"),
    }
    pip = [str(python), "-m", "pip", "install", "--quiet", "-c", str(root / "constraints.txt")]
    run([*pip, wheel, "nbclient", "ipykernel"], env=env, cwd=tmp_path)

    path = tmp_path / "fresh.ipynb"
    nbformat.write(
        nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(NOTEBOOK)],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        ),
        path,
    )
    run([python, "-c", textwrap.dedent(EXECUTE), path], env=env, cwd=tmp_path)

    executed = nbformat.read(path, as_version=4)
    outputs = executed.cells[0].outputs
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "moved: [False, False, False, False, True]" in printed
    (shown,) = [output.data for output in outputs if output.output_type == "execute_result"]
    view = shown["application/vnd.jupyter.widget-view+json"]["model_id"]
    states = executed.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    assert states[view]["state"]["_esm"].strip() == read(wheel, f"{STATIC}neuron-clamp.js").strip()
