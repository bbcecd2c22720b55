"""NeuronAtlas in JupyterLab: 46,080 real rows, a card, a clamp."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.lab.lab import Notebook

NEURONS = 46_080
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
