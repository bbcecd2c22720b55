"""NeuronAtlas in JupyterLab: 46,080 real rows, a card, a clamp, a plot that is linked both ways."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from playwright.sync_api import Browser, Route

    from tests.lab.lab import Notebook

NEURONS = 46_080
SMALL = 192
SETUP = """
import patchclamp as pc
from ipywidgets import Widget
from tests.lab.tiny_model import texts, tiny, wide
reading = pc.Reading(name="words")
atlas = pc.Atlas.build(MODEL(), texts(), "MODEL-atlas", reading=reading, decode=["down"])
"""
CELLS = (
    'session = pc.Session(MODEL(), "the cat sat on the mat")',
    "view = pc.NeuronAtlas(session, atlas)\nview",
)
DRAWN = "() => document.querySelector('.pc-neuron-atlas .pc-child-chart canvas')"
FIRST_ROW = """address => document.querySelector(
  `.pc-neuron-atlas .pc-neuron-rows [id$="-0"][data-address="${address}"]`)"""


def opened(notebook: Notebook, model: str) -> Notebook:
    """Build a model's atlas in a notebook's kernel and show its view."""
    notebook.python(SETUP.replace("MODEL", model))
    notebook.cells(*(cell.replace("MODEL", model) for cell in CELLS))
    notebook.run_all()
    return notebook


@pytest.fixture(scope="module")
def atlas_notebook(open_notebook: Callable[[str], Notebook]) -> Iterator[Notebook]:
    """A notebook whose kernel has an atlas of a few neurons, with its view."""
    notebook = opened(open_notebook("atlas.ipynb"), "tiny")
    yield notebook
    notebook.page.close()


@pytest.fixture
def atlas(atlas_notebook: Notebook) -> Notebook:
    """The same, with nothing searched, chosen or clamped."""
    atlas_notebook.python("view.meet(None); session.interventions = []")
    atlas_notebook.page.locator(".pc-neuron-atlas").get_by_role("button", name="clear").click()
    atlas_notebook.until("len(view._need().order) == 192 and view._need().sifting.token == ''")
    atlas_notebook.atlas()
    return atlas_notebook


def rows(notebook: Notebook) -> dict[int, str]:
    """The rows that are drawn: place to address."""
    found = notebook.page.locator(".pc-neuron-rows .pc-neuron-row[data-address]").evaluate_all(
        "lines => lines.map(line => [Number(line.id.split('-').pop()), line.dataset.address])"
    )
    return dict(found)


def search(notebook: Notebook, token: str) -> None:
    """Type a token into the search."""
    box = notebook.page.get_by_label("Search by a token")
    box.fill(token)
    box.press("Enter")


def test_the_view_shows_every_neuron_and_scrolls_to_any(
    open_notebook: Callable[[str], Notebook],
) -> None:
    atlas = opened(open_notebook("wide-atlas.ipynb"), "wide")
    view = atlas.atlas()
    assert f"{NEURONS:,} neurons" in view.inner_text()
    order = atlas.value(
        "view.atlas.neurons.sort_values('down_score', ascending=False, kind='stable')"
        "['address'].tolist()"
    )
    assert len(order) == NEURONS
    table = view.get_by_role("grid", name="Neurons")
    for place in (0, 23_000, 46_000, 7_777):
        table.evaluate("(table, top) => { table.scrollTop = top; }", 24 * place)
        atlas.wait(
            "place => document.querySelector(`.pc-neuron-rows [id$='-${place}'][data-address]`)",
            place,
        )
        shown = rows(atlas)
        assert len(shown) < 60
        assert all(order[at] == address for at, address in shown.items())
    table.focus()
    atlas.page.keyboard.press("End")
    atlas.wait("() => document.querySelector(\".pc-neuron-rows [id$='-46079'][data-address]\")")
    assert rows(atlas)[NEURONS - 1] == order[-1]
    atlas.page.keyboard.press("Enter")
    atlas.until(f"view._selected == {order[-1]!r}")
    atlas.page.close()


def test_a_token_is_searched_and_the_found_neuron_clamped(atlas: Notebook) -> None:
    search(atlas, "dog")
    atlas.until("view._need().sifting.token == 'dog'")
    found = atlas.value("view.sift('dog')['address'].iloc[0]")
    atlas.wait(FIRST_ROW, found)
    view = atlas.atlas()
    view.locator(f'.pc-neuron-row[data-address="{found}"]').click()
    card = view.get_by_role("region", name="One neuron")
    card.locator(".pc-decoded-token").first.wait_for()
    assert "dog" in card.locator(".pc-decoded-token").all_inner_texts()
    card.get_by_role("button", name="measure its effect").click()
    line = card.locator(".pc-weighed tbody tr").first
    line.wait_for()
    up, down = (
        float(text.replace("\N{MINUS SIGN}", "-"))
        for text in line.locator(".pc-weighed-figure").all_inner_texts()
    )
    assert up > 0 > down
    example = card.locator(".pc-atlas-example").first
    example.click()
    card.locator(".pc-atlas-text[data-whole]").wait_for()
    assert card.locator(".pc-atlas-text[data-whole] .pc-shaded").count() > 10
    card.get_by_role("button", name="clamp it").click()
    atlas.until(
        "[str(i.site) for i in session.interventions] == [found + '@-1']".replace(
            "found", repr(found)
        )
    )
    clamp = view.locator(".pc-child-clamp .pc-neuron-clamp")
    box = clamp.locator(".pc-row .pc-box")
    before = atlas.value("float(session.current.log_probs().max())")
    box.fill("30")
    box.press("Enter")
    atlas.until("session.interventions[0].value == 30")
    assert atlas.value("float(session.current.log_probs().max())") != before
    # A token that looks like markup is text.
    assert atlas.page.evaluate("window.taken") is None


def test_plot_and_table_are_linked_both_ways_and_nothing_is_fetched(atlas: Notebook) -> None:
    atlas.wait(DRAWN)
    atlas.until("view._plot is not None")
    assert atlas.value("len(view.chart.spec['datasets']['neurons'])") == SMALL
    atlas.atlas()
    # Search -> rings.
    search(atlas, "dog")
    atlas.until("view._need().sifting.token == 'dog' and len(view.chart.params.marked) == 192")
    first = atlas.value("view.chart.params.marked[0]")
    atlas.wait(FIRST_ROW, first)
    atlas.page.locator(f'.pc-neuron-row[data-address="{first}"]').click()
    atlas.until(f"view.chart.params.marked == [{first!r}]")
    atlas.page.get_by_role("button", name="clear").click()
    atlas.until("view._need().sifting.token == ''")
    # Brush -> table.
    atlas.atlas()
    canvas = atlas.page.locator(".pc-child-chart canvas")
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    at = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in BRUSH]
    atlas.page.mouse.move(*at[0])
    atlas.page.mouse.down()
    atlas.page.mouse.move(*at[1], steps=4)
    atlas.page.mouse.up()
    atlas.until("view._need().sifting.brush is not None")
    atlas.atlas()
    count = atlas.value("len(view._need().order)")
    by_hand = atlas.value(
        "(lambda n, b: int((n.firing_rate.between(*b.firing) & n.down_score.between(*b.score))"
        ".sum()))(view.atlas.neurons, view._need().sifting.brush)"
    )
    assert 0 < count == by_hand < SMALL
    assert f"{count:,} of {SMALL:,} neurons" in atlas.atlas().inner_text()
    atlas.page.get_by_role("button", name="Take the brush away").click()
    atlas.until("len(view._need().order) == 192")
    assert atlas.outside == []
    assert atlas.broken() == []


BRUSH = ((0.3, 0.35), (0.7, 0.7))
"""Two corners of the plot, as shares of it."""


def test_a_saved_page_shows_the_atlas_without_a_kernel_or_a_net(
    atlas: Notebook, chromium: Browser, tmp_path: Path
) -> None:
    atlas.wait(DRAWN)
    atlas.python(f"view.meet('L2.N5')\nview.to_html({str(tmp_path / 'page.html')!r})")
    context = chromium.new_context(viewport={"width": 1200, "height": 1000})
    asked: list[str] = []

    def refuse(route: Route) -> None:
        asked.append(route.request.url)
        route.abort()

    context.route(re.compile("^(http|ws)s?:"), refuse)
    page = context.new_page()
    page.goto((tmp_path / "page.html").as_uri())
    saved = page.locator(".pc-neuron-atlas")
    saved.locator(".pc-neuron-row[data-address]").first.wait_for()
    assert saved.locator(".pc-card-address").inner_text() == "L2.N5"
    page.wait_for_function("() => document.querySelector('.pc-saved-chart')?.naturalWidth > 300")
    assert saved.locator(".pc-saved-chart").is_visible()
    assert re.search("without a kernel", saved.locator(".pc-kernel").inner_text())
    assert asked == []
    context.close()
