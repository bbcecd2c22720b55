"""From a mouse move on a slider to the frame that shows its result, in a real JupyterLab.

Measured in the page, from the time that the browser gives the mouse event to the end of the frame
in which the view's new numbers were drawn. Beside it, in the same page, stands the least that any
widget can do: a mouse move over it sends a message, the kernel sends it back, a frame shows it.
What the model computes is taken off the first; the rest is what the view and its messages cost.
"""

from __future__ import annotations

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.benchmarks.measure import costlier
from tests.lab.lab import Notebook, browser, server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Page

    from tests.benchmarks.measure import Figure

MOVES = 10
_CLAMP = """\
import patchclamp as pc
session = pc.Session(pc.load("smollm2"), "The Eiffel Tower is located in the city of")
clamp = pc.NeuronClamp(session)
clamp.add("L12.N304@-1", value=2.0)
clamp"""
_ECHO = '''\
import anywidget

class Echo(anywidget.AnyWidget):
    _esm = """
    function render({ model, el }) {
      el.className = "echo";
      el.style = "height: 40px; background: #8884";
      el.sent = 0;
      el.addEventListener("pointermove", () => model.send({ count: ++el.sent }));
      model.on("msg:custom", (message) => {
        requestAnimationFrame(() => { el.textContent = message.count; });
      });
    }
    export default { render };
    """

    def __init__(self):
        super().__init__()
        self.on_msg(lambda _, content, buffers: self.send(content))

Echo()'''

# A view draws in an animation frame. A message to oneself that is posted there arrives once the
# frame is painted.
_WATCH = """([event, mover, ...drawn]) => {
  let began = null;
  const root = document.querySelector(mover);
  root.addEventListener(event, (move) => { began = move.timeStamp; }, { once: true });
  window.drawn = new Promise((resolve, reject) => {
    setTimeout(() => reject(new Error(`A ${event} on ${mover} never changed ${drawn}.`)), 30000);
    const observer = new MutationObserver(() => {
      if (began === null) return;
      // The empty widget counts, so that no earlier message's return is taken for this one's.
      if (root.sent !== undefined && root.textContent !== String(root.sent)) return;
      observer.disconnect();
      const painted = new MessageChannel();
      painted.port1.onmessage = () => resolve(performance.now() - began);
      painted.port2.postMessage(null);
    });
    for (const selector of drawn) {
      observer.observe(document.querySelector(selector),
        { subtree: true, childList: true, characterData: true, attributes: true });
    }
  });
}"""


def figures(rounds: int = 6) -> Iterator[Figure]:
    """Drag and echo in turns, ten moves of each a round."""
    with tempfile.TemporaryDirectory(prefix="patchclamp-bench-") as temporary:
        folder, home = Path(temporary, "notebooks"), Path(temporary, "home")
        folder.mkdir()
        home.mkdir()
        # Without a kernel's name JupyterLab would ask for one.
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        empty = {"cells": [], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
        (folder / "bench.ipynb").write_text(json.dumps(empty), encoding="utf-8")
        with server(folder, home) as url, browser() as chromium:
            page = chromium.new_page(viewport={"width": 1200, "height": 1400})
            notebook = Notebook(page, url)
            notebook.open("bench.ipynb")
            notebook.cells(_CLAMP, _ECHO)
            notebook.run_all()
            page.locator(".echo").wait_for()
            ours: list[float] = []
            empty_trips: list[float] = []
            for _ in range(rounds):
                notebook.settled()
                ours += _drag(page)
                notebook.settled()  # the random controls are measured after a drag
                empty_trips += _echoes(page)
    yield costlier("gesture-to-pixels-without-compute/empty-round-trip", ours, empty_trips, 1.5)


def _drag(page: Page) -> list[float]:
    """Drag the slider; of each move the milliseconds that were not the model's."""
    shown = (".pc-slider", ".pc-next", ".pc-work")
    slider = page.locator(".pc-slider").first
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    places = [box["x"] + box["width"] * (0.2 + 0.6 * i / MOVES) for i in range(MOVES + 1)]
    page.mouse.move(places[0], middle)
    # The press moves the thumb: its result must not be taken for that of the first move.
    _timed(page, page.mouse.down, "pointerdown", *shown)
    milliseconds = []
    for place in places[1:]:
        whole = _timed(page, partial(page.mouse.move, place, middle), "pointermove", *shown)
        said = page.locator(".pc-work").inner_text()  # last run 63 ms
        milliseconds.append(whole - float(said.split()[-2]))
    page.mouse.up()
    return milliseconds


def _echoes(page: Page) -> list[float]:
    """Move over the empty widget; of each move the milliseconds."""
    pad = page.locator(".echo")
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    places = [box["x"] + 10 * i for i in range(1, MOVES + 2)]
    return [
        _timed(page, partial(page.mouse.move, place, middle), "pointermove", ".echo", ".echo")
        for place in places
    ][1:]


def _timed(page: Page, act: Callable[[], None], event: str, *watched: str) -> float:
    """Do something with the mouse; the milliseconds until what is watched was painted anew.

    Args:
        page: the page.
        act: what to do.
        event: what the page will call it.
        watched: a selector of what it happens to, then those of what will change.
    """
    page.evaluate(_WATCH, [event, *watched])
    act()
    return float(page.evaluate("() => window.drawn"))
