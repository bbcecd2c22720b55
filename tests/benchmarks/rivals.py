"""CircuitsVis and BertViz for a benchmark's kernel: fetched into a folder of its own, then shown.

Neither is a dependency of anything here. Both are installed without their dependencies: the kernel
has torch and numpy already. What BertViz would load from a CDN while it draws is served by the
notebook's own server instead, so that no network's delay is charged to it; CircuitsVis is shown
with its script inside its page, as it does itself where there is no network.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

# A later importlib_metadata wants packages that CircuitsVis does not ask for.
_PYTHON = ("circuitsvis==1.43.3", "bertviz==1.4.1", "importlib_metadata==8.7.0", "zipp==3.23.0")
# npm has no jQuery 2.0.0, which BertViz names.
_SCRIPTS = {
    "https://cdnjs.cloudflare.com/ajax/libs/require.js/2.3.6/require.min.js": (
        "requirejs@2.3.6",
        "requirejs/require.js",
    ),
    "https://cdnjs.cloudflare.com/ajax/libs/d3/5.7.0/d3.min": ("d3@5.7.0", "d3/dist/d3.min.js"),
    "https://cdnjs.cloudflare.com/ajax/libs/jquery/2.0.0/jquery.min": (
        "jquery@2.1.0",
        "jquery/dist/jquery.min.js",
    ),
}


def fetch(packages: Path, served: Path) -> None:
    """Install both for the kernel, and BertViz's scripts where the notebook server finds them.

    Args:
        packages: a new folder for the kernel's PYTHONPATH.
        served: the folder that the notebook server serves.

    Raises:
        subprocess.CalledProcessError: when pip or npm fails.
    """
    pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-qq"]
    subprocess.run([*pip, "--no-deps", "--target", str(packages), *_PYTHON], check=True)
    node = packages / "node"
    node.mkdir()
    npm = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
    names = [package for package, _ in _SCRIPTS.values()]
    subprocess.run([*npm, "--prefix", str(node), *names], check=True, stdout=subprocess.DEVNULL)
    for _, file in _SCRIPTS.values():
        shutil.copy(node / "node_modules" / file, served / Path(file).name)


def circuits_vis(patterns: Tensor, tokens: list[str]) -> Any:
    """Make CircuitsVis' ``attention_heads``, as it shows itself without a network.

    Args:
        patterns: Float[head, dest, source].
        tokens: text of each.
    """
    heads = import_module("circuitsvis.attention").attention_heads
    return html(heads(patterns, tokens).local_src)


def circuits_vis_code() -> str:
    """Return the script that is part of each of its pages."""
    file = _folder("circuitsvis") / "dist" / "cdn" / "iife.js"
    return file.read_text(encoding="utf-8").replace("</script>", "")


def bert_viz(patterns: Tensor, tokens: list[str]) -> Any:
    """Make BertViz' ``head_view`` of one layer.

    Its require.js is left out: the page has it by then (:func:`bert_viz_script`), because a
    notebook does not wait for it before it runs what needs it.

    Args:
        patterns: Float[head, dest, source].
        tokens: text of each.
    """
    head_view = import_module("bertviz").head_view
    page = head_view([patterns[None]], tokens, html_action="return").data
    for address, (_, file) in _SCRIPTS.items():
        if "require" in address:
            page = page.replace(f'<script src="{address}"></script>', "")
        else:
            page = page.replace(address, f"/files/{Path(file).name.removesuffix('.js')}")
    return html(page)


def bert_viz_script() -> Any:
    """Return what puts require.js into the page."""
    return html('<script src="/files/require.js"></script>')


def bert_viz_code() -> str:
    """Return the script that is part of each of its pages."""
    return (_folder("bertviz") / "head_view.js").read_text(encoding="utf-8")


def html(page: str) -> Any:
    """Make what a notebook shows as a page."""
    return import_module("IPython.display").HTML(page)


def _folder(package: str) -> Path:
    return Path(str(import_module(package).__file__)).parent
