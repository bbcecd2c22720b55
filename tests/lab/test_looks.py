"""How NeuronClamp looks in JupyterLab: themes, widths, a saved page, a dead kernel."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image, ImageStat

if TYPE_CHECKING:
    from collections.abc import Callable

    from playwright.sync_api import Browser, Locator, Route

    from tests.lab.lab import Notebook

STACK = "[pc.Clamp('L2.N7@-1', -6.0), pc.Scale('L1.N3', 2.0), pc.Ablate('L3.H1')]"
CELLS = (
    f"session = pc.Session(model, SENTENCE)\nsession.interventions = {STACK}",
    "clamp = pc.NeuronClamp(session)\nclamp",
)


@pytest.fixture
def clamp(notebook: Notebook) -> Notebook:
    """The notebook with one view of three rows, at rest."""
    notebook.cells(*CELLS)
    notebook.run_all()
    notebook.settled()
    return notebook


def picture(element: Locator, name: str | None = None) -> Image.Image:
    """A screenshot; kept as a file in $PATCHCLAMP_SCREENSHOTS where that is set."""
    taken = element.screenshot()
    folder = os.environ.get("PATCHCLAMP_SCREENSHOTS")
    if name is not None and folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        (Path(folder) / f"{name}.png").write_bytes(taken)
    return Image.open(io.BytesIO(taken)).convert("RGB")


def brightness(image: Image.Image) -> float:
    """The mean grey value, 0 to 255."""
    return float(ImageStat.Stat(image.convert("L")).mean[0])


def test_dark_repaints_every_canvas_and_light_brings_each_back(clamp: Notebook) -> None:
    # Every canvas that is visible: the row that is ablated has none.
    drawn = (
        "() => [...document.querySelectorAll('.pc-bar, [data-numeric] canvas')]"
        ".map(one => one.toDataURL())"
    )
    light = picture(clamp.view(), "light")
    ink = clamp.page.evaluate(drawn)
    try:
        clamp.theme("Dark")
        clamp.wait(f"ink => ({drawn})().every((now, i) => now !== ink[i])", ink)
        dark = picture(clamp.settled(), "dark")
    finally:
        clamp.theme("Light")
    assert len(ink) >= 3
    assert brightness(light) > 200
    assert brightness(dark) < 80
    clamp.wait(f"ink => ({drawn})().every((now, i) => now === ink[i])", ink)


@pytest.mark.parametrize("width", [600, 1500])
def test_nothing_sticks_out_sideways(clamp: Notebook, width: int) -> None:
    clamp.resize(width)
    # Which takes some frames: the containers' queries, then what their observers redraw.
    clamp.settled()
    picture(clamp.view(), f"width-{width}")
    out = clamp.view().evaluate(
        """view => {
          const right = view.getBoundingClientRect().right + 1;
          const out = [...view.querySelectorAll("*")].filter(element =>
            element.checkVisibility() && !element.closest(".pc-hidden, .pc-chips")
            && element.getBoundingClientRect().right > right);
          const scrolls = view.scrollWidth > view.clientWidth + 1 ? ["the view scrolls"] : [];
          return [...scrolls, ...out.map(element => element.outerHTML.slice(0, 120))];
        }"""
    )
    assert out == []


def test_a_saved_page_draws_without_kernel_and_network(
    clamp: Notebook, chromium: Browser, served: Path
) -> None:
    clamp.python("clamp.to_html('saved.html')")
    shown = clamp.shown()
    context = chromium.new_context(viewport={"width": 1200, "height": 1000})
    asked: list[str] = []

    def refuse(route: Route) -> None:
        asked.append(route.request.url)
        route.abort()

    context.route(re.compile("^(http|ws)s?:"), refuse)
    try:
        page = context.new_page()
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
        page.goto((served / "saved.html").as_uri())
        view = page.locator(".pc-neuron-clamp")
        view.locator(".pc-next tbody tr").first.wait_for()
        assert view.locator(".pc-chip-text").all_inner_texts() == shown["tokens"]
        assert view.locator(".pc-address").all_inner_texts() == ["L2.N7", "L1.N3", "L3.H1"]
        lines = view.locator(".pc-next tbody tr")
        assert {str(lines.nth(i).get_attribute("data-token")) for i in range(lines.count())} == set(
            shown["next"]
        )
        assert "without a kernel" in view.locator(".pc-kernel").inner_text()
        curve = Image.open(io.BytesIO(view.locator("canvas.pc-curve").first.screenshot()))
        assert len(curve.convert("RGB").getcolors(10_000) or []) > 10, "no curve is drawn"
        picture(view, "saved")
        assert asked == []
        assert wrong == []
    finally:
        context.close()


def test_a_killed_kernel_is_said_and_the_last_picture_stays(
    open_notebook: Callable[[str], Notebook],
) -> None:
    notebook = open_notebook("killed.ipynb")
    try:
        notebook.cells(
            "import os, signal\nimport patchclamp as pc\n"
            "from tests.lab.tiny_model import SENTENCE, tiny\nmodel = tiny()",
            *CELLS,
        )
        notebook.run_all()
        notebook.settled()
        shown = notebook.shown()
        notebook.send("os.kill(os.getpid(), signal.SIGKILL)")
        note = notebook.view().locator(".pc-kernel")
        # It may be called busy before it is known to be gone.
        note.filter(has_text="No kernel").wait_for(state="visible")
        assert notebook.shown()["next"] == shown["next"]
        assert notebook.shown()["rows"] == shown["rows"]
        assert notebook.row("L2.N7").locator(".pc-slider").is_disabled()
    finally:
        notebook.page.close()
