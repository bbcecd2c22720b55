"""The tour on the real model in JupyterLab: every cell runs, and its slider does what it says."""

from __future__ import annotations

import io
import math
import re
import shutil
from typing import TYPE_CHECKING

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Locator

    from tests.lab.lab import Notebook

pytestmark = pytest.mark.model
MOVES = 30
NUMBER = re.compile(r"\d+\.\d+")


@pytest.fixture(scope="module")
def tour(open_notebook: Callable[[str], Notebook], root: Path, served: Path) -> Iterator[Notebook]:
    """The tour, run from top to bottom."""
    shutil.copy(root / "recipes" / "00-tour.ipynb", served)
    notebook = open_notebook("00-tour.ipynb")
    notebook.page.set_default_timeout(300_000)
    notebook.run_all()
    yield notebook
    notebook.page.close()


def bar_width(bar: Locator) -> int:
    """How many columns of pixels of a bar's screenshot are in the bar's own colour."""
    image = Image.open(io.BytesIO(bar.screenshot())).convert("RGB")
    middle = [image.getpixel((x, image.height // 2)) for x in range(image.width)]
    blue = [p for p in middle if isinstance(p, tuple) and p[2] > p[0] + 60]
    return len(blue)


def test_the_tour_runs_and_its_view_is_live(tour: Notebook) -> None:
    assert tour.errors() == []
    view = tour.settled()
    assert [row["address"] for row in tour.shown()["rows"]] == ["L21.N529", "L5.H3"]
    assert view.locator(".pc-kernel").is_hidden()
    assert tour.outside == []
    assert tour.broken() == []


def test_the_tour_without_a_browser_gives_the_same_numbers(tour: Notebook, served: Path) -> None:
    alone = nbformat.read(served / "00-tour.ipynb", as_version=4)
    NotebookClient(alone, timeout=300, resources={"metadata": {"path": str(served)}}).execute()
    # A widget's text is its address in memory, and the snippet says where the cache is.
    outputs = [
        "".join(
            str(output.get("text", output.get("data", {}).get("text/plain", "")))
            for output in cell.outputs
            if "application/vnd.jupyter.widget-view+json" not in output.get("data", {})
        )
        for cell in alone.cells
        if cell.cell_type == "code"
    ]
    elsewhere = [re.sub("(?m)^source = .*$", "", output) for output in tour.outputs()]
    plainly = [re.sub("(?m)^source = .*$", "", output) for output in outputs]
    for there, here in zip(elsewhere, plainly, strict=True):
        # Two processes may round otherwise: all but the numbers is equal, and these are close.
        assert NUMBER.sub("#", there) == NUMBER.sub("#", here)
        for one, other in zip(NUMBER.findall(there), NUMBER.findall(here), strict=True):
            last = 10.0 ** -len(one.partition(".")[2])
            assert float(one) == pytest.approx(float(other), rel=1e-4, abs=1.01 * last)
    assert sum(bool(output) for output in outputs) >= 10


def test_a_drag_of_thirty_moves_ends_with_dom_python_and_pixels_agreeing(tour: Notebook) -> None:
    tour.python("session.interventions = [pc.Clamp('L21.N529@-1', 0.0)]")
    tour.wait("() => document.querySelectorAll('.pc-row').length === 1")
    tour.settled()
    tour.python(
        "runs, edits = [], []\n"
        "show = clamp._show_result\n"
        "clamp._show_result = lambda found: (runs.append(found[0]), show(found))\n"
        "unobserve = session.observe(lambda change: edits.append(change.revision))\n"
        "steps = len(session._undo)\n"
        "import threading\n"
        "free = threading.Event()"
    )
    slider = tour.row("L21.N529").locator(".pc-slider")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box is not None
    # Waits until the slider stands still and is what the mouse would meet there.
    slider.hover(position={"x": 0.3 * box["width"], "y": box["height"] - 6})
    box = slider.bounding_box()
    assert box is not None
    y = box["y"] + box["height"] - 6  # the handle stands on the lower edge
    start, end = box["x"] + 0.3 * box["width"], box["x"] + 0.95 * box["width"]
    mouse = tour.page.mouse
    mouse.move(start, y)
    # The hand is faster than the model: for half the way on whatever machine, then as it is.
    tour.python("held = session.submit(lambda stop: free.wait(120))")
    mouse.down()
    for i in range(1, MOVES + 1):
        mouse.move(start + (end - start) * i / MOVES, y)
        if i == MOVES // 2:
            tour.python("free.set()")
    mouse.up()

    value = float(slider.input_value())
    tour.until(f"session.interventions[0].value == {value!r} and session.revision in runs")
    tour.settled()
    shown = tour.shown()
    assert tour.value("session.interventions[0].value") == value
    assert shown["rows"][0]["value"] == value
    low, high = (float(slider.get_attribute(end) or "nan") for end in ("min", "max"))
    assert low < value <= high
    assert value > low + 0.8 * (high - low)

    # Python's truth, computed afresh, is what the table says.
    truth = tour.value(
        "{str(i): float(session.current.log_probs()[i].exp()) for i in range(49152)"
        f" if i in {[int(i) for i in shown['next']]}}}"
    )
    for token, p in shown["next"].items():
        assert math.isclose(p, truth[token], rel_tol=1e-4), token
    # And the bars are as long as that: pixels, not styles.
    first, second = (tour.view().locator(".pc-bar-after").nth(i) for i in (0, 1))
    lengths = [bar_width(first), bar_width(second)]
    order = [
        tour.view().locator(".pc-next tbody tr").nth(i).get_attribute("data-token") for i in (0, 1)
    ]
    expected = [truth[str(token)] for token in order]
    assert lengths[0] > 20
    assert lengths[1] / lengths[0] == pytest.approx(
        expected[1] / expected[0], abs=2 / lengths[0] + 0.02
    )

    # The newest won: fewer runs than moves, the last one of the last edit, in order.
    runs, edits = tour.value("runs"), tour.value("edits")
    assert 1 <= len(runs) <= len(edits) <= MOVES + 1
    assert len(runs) < MOVES
    assert runs == sorted(runs)
    assert runs[-1] == edits[-1] == tour.value("session.revision")
    assert tour.value("len(session._undo) - steps") == 1, "a drag is one step of undo"
    tour.python("unobserve()")


def test_a_drag_moves_the_curve_pixels_under_the_hand(tour: Notebook) -> None:
    tour.python("session.interventions = [pc.Clamp('L21.N529@-1', 0.0)]")
    tour.wait("() => document.querySelector('.pc-box')?.title.startsWith('0 raw')")
    tour.settled()
    canvas = tour.row("L21.N529").locator("canvas.pc-curve")
    before = canvas.screenshot()
    slider = tour.row("L21.N529").locator(".pc-slider")
    slider.focus()
    for _ in range(10):
        tour.page.keyboard.press("ArrowRight")
    tour.settled()
    value = float(slider.input_value())
    assert value > 0
    assert tour.value("session.interventions[0].value") == value
    assert canvas.screenshot() != before


def test_continuing_the_prompt_shows_what_python_generates(tour: Notebook) -> None:
    tour.python("session.interventions = [pc.Clamp('L21.N529@-1', -20.0)]")
    tour.settled()
    view = tour.view()
    view.get_by_role("textbox", name="Number of tokens").fill("8")
    view.get_by_role("button", name="run: continue the prompt").click()
    tour.wait(
        "() => document.querySelector('.pc-generate').getAttribute('aria-busy') === null"
        " && document.querySelector('.pc-side[data-side=clamped] .pc-continued').textContent"
    )
    tour.settled()
    expected = tour.value("session.generate(8)")
    for side in ("baseline", "clamped"):
        text = view.locator(f".pc-side[data-side={side}] .pc-continued").evaluate(
            "element => element.textContent"
        )
        assert text == expected[side]
