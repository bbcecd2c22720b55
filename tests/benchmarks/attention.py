"""AttentionInspector beside CircuitsVis' ``attention_heads`` and BertViz' ``head_view``.

All three show the same patterns, those of the 12 heads of a random causal model, in the same
JupyterLab in the same Chromium, one after the other; the patterns are there before anything is
timed (AttentionInspector computes them again itself). A smaller picture of each tool comes first
and does not count: JupyterLab fetches its own parts for widgets with it.

- *First paint*: from running the cell until the pattern is on screen and the page's main thread
  has nothing more to do (:mod:`tests.benchmarks.paint`); the median of a few.
- *Bytes*: all that came through the kernel's socket by then: CircuitsVis' and BertViz' page with
  its numbers as JSON, all messages of AttentionInspector; what Jupyter itself says is in all three.
  "data" leaves out each tool's own program (CircuitsVis puts 1.3 MB of it into each page, BertViz
  loads most of its own elsewhere, a widget's is in its first message). "all tiles" is the data once
  every exact cell of all 12 heads has been sent, which CircuitsVis and BertViz send at once.
  The rivals' causal patterns are half zeros, which are short in JSON.
- *Hover*: from a real mouse move to the end of the first frame that shows a change: of CircuitsVis
  any drawing on its large canvas (it fades a new tip in over several frames; the first counts), of
  BertViz any change of its drawing, of AttentionInspector the crosshair and the value of that very
  cell, read off the tile, which must be right. The median of the moves; slow ones are fewer. Of
  the least that a page can do, a word that changes under the mouse, it is said beside them.

A first paint that takes more than 150 s is given up, and said to be.
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Self

from tests.benchmarks import paint, rivals
from tests.benchmarks.measure import Figure
from tests.benchmarks.random_patterns import HEADS
from tests.lab.lab import LabError, Notebook, browser, server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from playwright.sync_api import Browser, Page

ROOT = Path(__file__).resolve().parents[2]
LENGTHS = (32, 64, 128, 256)
LONG = (512, 1024, 2048)
FIRST = 8  # tokens of the picture that does not count
COMPARED = 128
REPEATS = 3  # of a first paint; from COMPARED on the rivals' is so slow that it is timed once
SETTLE_CAP, HOVER_CAP = 150.0, 30.0  # seconds

_SETUP = """\
import json
import patchclamp as pc
from tests.benchmarks import rivals
from tests.benchmarks.random_patterns import patterns, session
def show(length):
    global given, weights, tokens
    given = session(length)
    given.baseline.rows([-1])
    tokens = [token.text for token in given.tokens]
    weights = patterns(given)"""
_RUN = "void window.jupyterapp.commands.execute('notebook:run-cell')"
_LARGEST = (
    "[...document.querySelectorAll('.jp-OutputArea canvas')].sort((a, b) => b.width - a.width)[0]"
)


@dataclass(frozen=True)
class Tool:
    """How to show patterns with something, and what it looks like.

    Attributes:
        name: as it is called.
        source: a cell that shows `given`, `weights` and `tokens`.
        program: a Python expression: what of each page is its program.
        drawn: JavaScript, true once the pattern is there.
        changes: JavaScript, the element that a hover changes.
        shows: JavaScript, what must be true of the frame that shows a hover.
        before: a cell that comes before all others of a page.
    """

    name: str
    source: str
    program: str
    drawn: str
    changes: str
    shows: str = "true"
    before: str = ""


# The least that a page can do with a move of the mouse.
_EMPTY = """rivals.html('<div class="empty" style="height: 400px">0</div><script>{'
  'const empty = document.querySelector(".empty");'
  'empty.addEventListener("pointermove", () => requestAnimationFrame(() => {'
  ' empty.textContent = Number(empty.textContent) + 1; })); }</script>')"""
OURS = Tool(
    "AttentionInspector",
    "inspector = pc.AttentionInspector(given)\ninspector.lock('L0.H0')\ninspector",
    "inspector._esm + inspector._css",
    "bench.pictured(document.querySelector('.pc-pattern-cells'))",
    "document.querySelector('.pc-pattern-panel')",
    # The frame has the value of another cell than before; "…" would say that its tile is missing.
    """((where, value) => {
      if (where === window.lastWhere || !/\\d/.test(value)) return null;
      window.lastWhere = where;
      return [where, value];
    })(document.querySelector(".pc-where").textContent,
       document.querySelector(".pc-values .pc-exact").textContent)""",
)
CIRCUITS_VIS = Tool(
    "CircuitsVis",
    "rivals.circuits_vis(weights, tokens)",
    "rivals.circuits_vis_code()",
    f"bench.pictured({_LARGEST})",
    _LARGEST,
)
BERT_VIZ = Tool(
    "BertViz",
    "rivals.bert_viz(weights, tokens)",
    "rivals.bert_viz_code()",
    "document.querySelector('.jp-OutputArea #attention') !== null",
    "document.querySelector('.jp-OutputArea svg:has(#attention)')",
    before="rivals.bert_viz_script()",
)


@dataclass
class Measured:
    """What was measured of a tool at a length.

    Attributes:
        seconds: of first paints; none when they were beyond the cap.
        received: bytes of the last.
        program: of these, the tool's own program.
        all_tiles: bytes of the last, and of all other heads' exact cells.
        hover: milliseconds.
    """

    seconds: list[float] = field(default_factory=list)
    received: int = 0
    program: int = 0
    all_tiles: int | None = None
    hover: list[float] = field(default_factory=list)

    @property
    def data(self) -> int:
        """Bytes without the program."""
        return self.received - self.program

    def __str__(self) -> str:
        first = (
            f"first paint {median(self.seconds):.3g} s" if self.seconds else "first paint given up"
        )
        tiles = "" if self.all_tiles is None else f", all tiles {self.all_tiles / 1e6:.3f} MB"
        hover = f"hover {median(self.hover):.3g} ms (of {len(self.hover)})" if self.hover else ""
        return (
            f"{self.received / 1e6:.3f} MB, of it program {self.program / 1e6:.3f} MB{tiles}; "
            f"{first}; {hover or 'no hover'}"
        )


def figures(rounds: int = 15) -> Iterator[Figure | str]:
    """Show and hover all three; ``rounds`` is how many moves of the mouse are made of each."""
    with tempfile.TemporaryDirectory(prefix="patchclamp-bench-") as temporary:
        folder, home, packages = (Path(temporary, each) for each in ("notebooks", "home", "rivals"))
        for each in (folder, home, packages):
            each.mkdir()
        rivals.fetch(packages, folder)
        kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
        empty = {"cells": [], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
        (folder / "bench.ipynb").write_text(json.dumps(empty), encoding="utf-8")
        with (
            server(folder, home, pythonpath=[ROOT, packages]) as url,
            browser() as chromium,
        ):
            found: dict[tuple[str, int], Measured] = {}
            frame = least = 0.0
            for tool in (OURS, BERT_VIZ, CIRCUITS_VIS):
                lengths = (*LENGTHS, *LONG) if tool is OURS else LENGTHS
                with Bench(chromium, url, tool) as bench:
                    if tool is OURS:
                        frame, least = bench.frame(), bench.least(rounds)
                    for length in lengths:
                        measured = bench.measure(length, rounds)
                        found[tool.name, length] = measured
                        yield f"# {tool.name}, T={length}: {measured}"
    yield f"# a display frame is {frame:.3g} ms, a hover over next to nothing {least:.3g} ms"
    yield from _ratios(found, frame)


def _ratios(found: dict[tuple[str, int], Measured], frame: float) -> Iterator[Figure]:
    """Compare where both sides were measured; the targets are for one length, 1 is no worse."""
    for rival in (CIRCUITS_VIS.name, BERT_VIZ.name):
        for length in LENGTHS:
            theirs, ours = found[rival, length], found[OURS.name, length]
            if not theirs.seconds or not ours.seconds:
                continue
            aimed = length == COMPARED
            fortieth = 40 if aimed and rival == CIRCUITS_VIS.name else 1
            name = f"{{}}:T={length}:{rival}/ours"
            yield _more(name.format("data"), theirs.data, ours.data, fortieth)
            if aimed and ours.all_tiles is not None:
                yield _more(name.format("data+program"), theirs.received, ours.received, fortieth)
                yield _more(name.format("data-all-tiles"), theirs.data, ours.all_tiles, 1)
            sooner = median(theirs.seconds), median(ours.seconds)
            yield _more(name.format("first-paint"), *sooner, 10 if aimed else 1)
            yield _more(name.format("hover"), median(theirs.hover), median(ours.hover), 1)
    for length in (*LENGTHS, *LONG):
        hover = found[OURS.name, length].hover
        if hover:
            shown = median(hover) / frame
            yield Figure(f"hover:T={length}:ours/display-frame", shown, 2, at_least=False)


def _more(name: str, theirs: float, ours: float, target: float) -> Figure:
    return Figure(name, theirs / ours, target, at_least=True)


class Bench:
    """A page of a tool, in the kernel that all share."""

    def __init__(self, chromium: Browser, url: str, tool: Tool) -> None:
        self.tool = tool
        self.page: Page = chromium.new_page(viewport={"width": 1200, "height": 1400})
        self.page.add_init_script(paint.WATCH)
        self.notebook = Notebook(self.page, url)

    def __enter__(self) -> Self:
        self.notebook.open("bench.ipynb")
        self.notebook.python(_SETUP)
        if self.tool.before:
            self.notebook.cells(self.tool.before)
            self.notebook.run_all()
            self.page.wait_for_function("() => window.requirejs")
        self._prepare(FIRST)
        self._first_paint()
        return self

    def __exit__(self, *_: object) -> None:
        self.notebook.cells()
        self.page.close()

    def frame(self) -> float:
        """Milliseconds of a display frame."""
        return float(self.page.evaluate("() => bench.frame()"))

    def least(self, rounds: int) -> float:
        """Milliseconds of a hover over a word that changes."""
        self.notebook.cells(_EMPTY)
        self.notebook.run_all()
        element = "document.querySelector('.empty')"
        x, y, width, height = self._box(element)
        steps = [0.1 + 0.8 * step / rounds for step in range(rounds + 1)]
        places = [(x + width * step, y + height * step) for step in steps]
        moves = paint.moves(self.page, element, places, cap=HOVER_CAP)
        return median(move.milliseconds for move in moves)

    def measure(self, length: int, rounds: int) -> Measured:
        """Show the patterns of a prompt and hover over them."""
        found = Measured()
        once = length >= COMPARED and self.tool is not OURS
        for _ in range(1 if once else REPEATS):
            self._prepare(length)
            shown = self._first_paint()
            if shown is None:
                return found
            found.seconds.append(shown.seconds)
            found.received = shown.received
        program = f"len(json.dumps({self.tool.program}, ensure_ascii=False).encode())"
        found.program = self.notebook.value(program)
        moves = paint.moves(
            self.page,
            self.tool.changes,
            self._places(length, rounds),
            shows=self.tool.shows,
            cap=HOVER_CAP,
        )
        found.hover = [move.milliseconds for move in moves]
        if self.tool is OURS:
            self._check([move.said for move in moves])
            if length <= COMPARED:
                found.all_tiles = found.data + self._other_heads()
        return found

    def _prepare(self, length: int) -> None:
        self.notebook.cells()
        self.notebook.python(f"pc.AttentionInspector.close_all()\nshow({length})")
        self.notebook.cells(self.tool.source)
        self.page.evaluate(
            "() => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = 0; }"
        )
        paint.calm(self.page, 500)

    def _first_paint(self) -> paint.Shown | None:
        shown = paint.settled(self.page, self.tool.drawn, _RUN, SETTLE_CAP)
        failed = self.notebook.errors()
        if failed:
            raise LabError("\n".join(failed))
        return shown

    def _places(self, length: int, rounds: int) -> list[tuple[float, float]]:
        """Where the mouse goes: from one cell, or token, to another."""
        steps = [step / rounds for step in range(rounds + 1)]
        if self.tool is BERT_VIZ:
            x, y, _, height = self._box(self.tool.changes)
            # Tokens of the left column, as far as they are seen: 30 px above the first, 22.5 each.
            seen = min(length, int((min(height, 1300 - y) - 30) / 22.5))
            rows = [int(step * (seen - 1)) for step in steps]
            return [(x + 60, y + 30 + 22.5 * (row + 0.5)) for row in rows]
        if self.tool is CIRCUITS_VIS:
            # The lower triangle of the chart, whose labels take a tenth of the canvas.
            x, y, width, height = self._box(self.tool.changes)
            return [(x + width * (0.15 + 0.4 * s), y + height * (0.25 + 0.5 * s)) for s in steps]
        scroller = "document.querySelector('.pc-pattern-scroll')"
        if length in LONG:
            # Cells in the middle, not those that the view begins with.
            self.page.evaluate(
                f"""() => {{
                  const box = {scroller};
                  box.scrollTo(box.scrollWidth / 2 - box.clientWidth / 2,
                    box.scrollHeight / 2 - box.clientHeight / 2);
                }}"""
            )
        x, y, width, height = self._box(scroller)
        size = min(width, height, length * float(self._zoom()))
        paint.calm(self.page, 1000)  # tiles have come
        return [(x + size * (0.05 + 0.5 * s), y + size * (0.3 + 0.5 * s)) for s in steps]

    def _zoom(self) -> str:
        said = self.page.locator(".pc-pattern-tools").inner_text()
        found = re.search(r"(\d+) px a cell", said)
        if found is None:
            raise LabError(f"The pattern does not say how large its cells are: {said}")
        return found[1]

    def _box(self, element: str) -> tuple[float, float, float, float]:
        x, y, width, height = self.page.evaluate(
            f"""() => {{
              const element = {element};
              element.scrollIntoView({{ block: "nearest" }});
              const box = element.getBoundingClientRect();
              return [box.x, box.y, box.width, box.height];
            }}"""
        )
        return x, y, width, height

    def _check(self, said: list[Any]) -> None:
        """Raise unless each frame told the value of the cell that it named."""
        cells = []
        for where, value in said:
            place = re.match(r"(\d+) .* reads (\d+) ", where)
            number = re.search(r"[\d.]+(?:e.?\d+)?", value.replace("\N{MINUS SIGN}", "-"))
            if place is None or number is None:
                raise LabError(f"A hover said {where!r}: {value!r}.")
            cells.append((int(place[1]), int(place[2]), float(number[0])))
        rows, columns, told = zip(*cells, strict=True)
        truth = self.notebook.value(f"weights[0][{list(rows)}, {list(columns)}].tolist()")
        for (row, column), shown, true in zip(
            zip(rows, columns, strict=True), told, truth, strict=True
        ):
            # A code is within 3 % of its weight, and three digits are shown.
            if abs(shown - true) > 0.04 * true + 1e-6:
                raise LabError(f"{row} reads {column}: {shown} was shown, the weight is {true}.")

    def _other_heads(self) -> int:
        """Lock every other head until its cells are there; how many bytes came."""
        before = self.page.evaluate("() => bench.received")
        for head in range(1, HEADS):
            self.notebook.send(f"inspector.lock('L0.H{head}')")
            self.page.wait_for_function(
                "name => document.querySelector('.pc-pattern-title').textContent === name",
                arg=f"L0.H{head}",
            )
            paint.calm(self.page, 500)
        paint.calm(self.page, 1500)  # what was late
        return int(self.page.evaluate("() => bench.received") - before)
