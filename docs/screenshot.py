"""Take the pictures of the views that the README shows, from the running product.

    python docs/screenshot.py [neuron-clamp | attention-inspector | circuit-ablator
                               | activation-maximizer | dreaming-prompts | neuron-atlas]

opens a JupyterLab of its own in Chromium, does something with each view on the default models, and
writes <name>-light.png and <name>-dark.png beside this file.
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

LOAD = 'import patchclamp as pc\n\nmodel = pc.load("smollm2")'
STORY = "Mary and John went to the store. John gave a book to Mary, and Mary gave a book to"
CELLS = {
    "neuron-clamp": (
        LOAD,
        'session = pc.Session(model, "The Eiffel Tower is located in the city of")',
        "clamp = pc.NeuronClamp(session)\nclamp",
    ),
    "attention-inspector": (
        LOAD,
        f"session = pc.Session(model, {STORY!r})",
        "inspector = pc.AttentionInspector(session)\ninspector",
    ),
    "circuit-ablator": (
        LOAD,
        'session = pc.Session(model, pairs=pc.prompt_set("pronouns", model))',
        "ablator = pc.CircuitAblator(session)\nablator",
    ),
    "activation-maximizer": (
        'import patchclamp as pc\n\nvision = pc.load("efficientnet-lite0")',
        'maximizer = pc.ActivationMaximizer(vision, "_fc:c130")\nmaximizer',
    ),
    "dreaming-prompts": (
        LOAD,
        'maximizer = pc.ActivationMaximizer(model, "L12.N304")\nmaximizer',
    ),
    "neuron-atlas": (
        LOAD,
        """\
reading = pc.Reading(name="60 of the English texts")
atlas = pc.Atlas.build(model, pc.texts(60), "atlas", reading=reading, decode=["down"])""",
        """\
session = pc.Session(model, "My neighbour has a cat and a")
view = pc.NeuronAtlas(session, atlas)
view""",
    ),
}
CLAMP = """
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
INSPECT = """
inspector.lock("L18.H6")
inspector.measure("random_induction")
last = len(session.ids) - 1
source = int(inspector.pattern("L18.H6")[last, 1:].argmax()) + 1
inspector.knock_out(f"L[17:24].H*[{last}<-{source}]")
"""
ABLATE = """
ablator.find("eap-ig")
ablator.size = 60
ablator.faithfulness()
ablator.patch("denoise", "resid_pre")
ablator.survey("mean")
"""
CLIMB = """
maximizer.set_options(steps=256)
maximizer.climb()
maximizer.examples()
maximizer.own(pc.pictures(names=["flower"]).stimuli[0], "flower")
maximizer.diversity(4)
"""
DREAM = """
maximizer.dream(seconds=120)
maximizer.rivals("single")
maximizer.examples()
maximizer.own("The Eiffel Tower is located in the city of")
"""
ATLAS = """
found = view.sift("dog")
view.meet(found.address.iloc[0])
view.weigh(found.address.iloc[0])
"""
DO = {
    "neuron-atlas": ATLAS,
    "neuron-clamp": CLAMP,
    "attention-inspector": INSPECT,
    "circuit-ablator": ABLATE,
    "activation-maximizer": CLIMB,
    "dreaming-prompts": DREAM,
}
SIZE = {
    "neuron-atlas": (1380, 1700),
    "neuron-clamp": (1180, 1200),
    "attention-inspector": (1380, 2100),
    "circuit-ablator": (1380, 2800),
    "activation-maximizer": (1380, 1500),
    "dreaming-prompts": (1380, 1700),
}
#: A view that is too tall for a picture ends above a part of it.
ENDS_ABOVE = {"circuit-ablator": ".pc-patching"}
#: What is drawn by a widget that is not ours.
WAITS_FOR = {"neuron-atlas": ".pc-child-chart canvas"}
SCALE = 1.5
#: Photographs take more bytes than lines and letters.
SCALE_OF = {"activation-maximizer": 1.2}
LARGEST = 300_000
"""Bytes that a picture in the repository may have."""


def main(views: list[str]) -> None:
    """Write both pictures of each view."""
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
        for view in views:
            (served / f"{view}.ipynb").write_text(json.dumps(notebook_file), encoding="utf-8")
        with lab.server(served, home) as url, lab.browser() as browser:
            for view in views:
                width, height = SIZE[view]
                page = browser.new_page(
                    viewport={"width": width, "height": height},
                    device_scale_factor=SCALE_OF.get(view, SCALE),
                )
                # A map of a whole model takes its time.
                _take(lab.Notebook(page, url, patience=15 * 60), view)
                page.close()


def _take(notebook: lab.Notebook, view: str) -> None:
    shown = {
        "neuron-atlas": notebook.atlas,
        "neuron-clamp": notebook.settled,
        "attention-inspector": notebook.inspector,
        "circuit-ablator": notebook.ablator,
        "activation-maximizer": notebook.maximizer,
        "dreaming-prompts": notebook.maximizer,
    }[view]
    notebook.open(f"{view}.ipynb")
    notebook.cells(*CELLS[view])
    notebook.run_all()
    shown()
    notebook.python(DO[view])
    shown()
    if view in WAITS_FOR:  # what another widget draws says nothing when it is done
        notebook.page.wait_for_selector(WAITS_FOR[view])
    notebook.page.mouse.move(0, 0)
    for theme in ("Light", "Dark"):
        notebook.theme(theme)
        whole = shown()
        taken = whole.screenshot(animations="disabled")
        end = None
        if view in ENDS_ABOVE:
            boxes = [whole.bounding_box(), whole.locator(ENDS_ABOVE[view]).bounding_box()]
            end = SCALE_OF.get(view, SCALE) * (boxes[1]["y"] - boxes[0]["y"])
        _write(taken, HERE / f"{view}-{theme.lower()}.png", end)
    notebook.theme("Light")


def _write(taken: bytes, file: Path, end: float | None) -> None:
    """Keep a screenshot, or its upper part, as a small PNG: nobody sees more than 256 colours."""
    picture = Image.open(io.BytesIO(taken)).convert("RGB")
    if end is not None:
        picture = picture.crop((0, 0, picture.width, round(end)))
    picture.quantize(256, kmeans=3).save(file, optimize=True)
    size = file.stat().st_size
    if size > LARGEST:
        raise SystemExit(f"{file.name} has {size} bytes, more than {LARGEST}: make it smaller.")
    sys.stdout.write(f"{file.name}: {size // 1000} KB\n")


if __name__ == "__main__":
    main(sys.argv[1:] or list(CELLS))
