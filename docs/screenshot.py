"""Take the pictures of NeuronClamp that the README shows, from the running product.

    python docs/screenshot.py

opens a JupyterLab of its own in Chromium, puts two neurons and a direction of the default model on
sliders, and writes neuron-clamp-light.png and neuron-clamp-dark.png beside this file.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.lab import lab  # noqa: E402 (the repository is not installed as a package of tests)

CELLS = (
    'import patchclamp as pc\n\nmodel = pc.load("smollm2")',
    'session = pc.Session(model, "The Eiffel Tower is located in the city of")',
    "clamp = pc.NeuronClamp(session)\nclamp",
)
STACK = """
import torch


def mean_residual(texts):
    rows = [pc.Session(model, text).baseline.activation("L12.resid_post")[1:] for text in texts]
    return torch.cat(rows).mean(dim=0)


english = "She reads a good book in front of the window of her house."
french = "Elle lit un bon livre devant la fenêtre de sa maison."
session.define("french", "L12.resid_post", mean_residual([french]) - mean_residual([english]))
session.interventions = [
    pc.Clamp("L21.N529@-1", -6.0),
    pc.Scale("L20.N894", 0.0),
    pc.Add("L12.resid_post[french]", 0.8),
]
clamp.select("L21.N529@-1")
clamp.generate(40)
"""
LARGEST = 300_000
"""Bytes that a picture in the repository may have."""


def main() -> None:
    """Write both pictures."""
    with tempfile.TemporaryDirectory() as temporary:
        served, home = Path(temporary, "served"), Path(temporary, "home")
        served.mkdir()
        home.mkdir()
        notebook_file = {
            "cells": [],
            "metadata": {
                "kernelspec": {
                    "name": "python3",
                    "display_name": "Python 3",
                    "language": "python",
                }
            },
            "nbformat": 4,
            "nbformat_minor": 5,
        }
        (served / "screenshot.ipynb").write_text(json.dumps(notebook_file), encoding="utf-8")
        with lab.server(served, home) as url, lab.browser() as browser:
            page = browser.new_page(
                viewport={"width": 1180, "height": 1200}, device_scale_factor=1.5
            )
            notebook = lab.Notebook(page, url)
            notebook.open("screenshot.ipynb")
            notebook.cells(*CELLS)
            notebook.run_all()
            notebook.settled()
            notebook.python(STACK)
            notebook.settled()
            page.mouse.move(0, 0)
            for theme in ("Light", "Dark"):
                notebook.theme(theme)
                notebook.settled()
                _write(
                    notebook.view().screenshot(animations="disabled"),
                    HERE / f"neuron-clamp-{theme.lower()}.png",
                )


def _write(taken: bytes, file: Path) -> None:
    """Keep a screenshot as the smallest PNG of the same pixels."""
    Image.open(io.BytesIO(taken)).convert("RGB").save(file, optimize=True)
    size = file.stat().st_size
    if size > LARGEST:
        raise SystemExit(f"{file.name} has {size} bytes, more than {LARGEST}: make it smaller.")
    sys.stdout.write(f"{file.name}: {size // 1000} KB\n")


if __name__ == "__main__":
    main()
