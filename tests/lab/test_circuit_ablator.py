"""CircuitAblator in JupyterLab, on tiny random models: what a hand does, Python sees, and back.

Exact numbers are read off the page and compared with what Python computes for the same edit by
another way: a session with the same interventions on its stack.
"""

from __future__ import annotations

import io
import json
import re
from operator import itemgetter
from typing import TYPE_CHECKING

import pytest
from PIL import Image

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Locator, Route

    from tests.lab.lab import Notebook

SESSION = """
session = pc.Session(model, SENTENCE, contrast="the dog sat on the city and saw a mat",
                     metric=pc.LogitDifference(5, 6))


def by_hand(*interventions, input=SENTENCE):
    "The metric of a session of its own with these interventions."
    other = pc.Session(model, input, contrast=session.contrast, interventions=interventions)
    logits = other.current.rows([-1])[0]
    return float(logits[5] - logits[6])
"""
SHOW = "ablator = pc.CircuitAblator(session)\nablator"
MAP = re.compile("^Components, layers by heads and MLP")


@pytest.fixture
def ablated(notebook: Notebook) -> Notebook:
    """The notebook with one view, its map measured."""
    notebook.cells(SESSION, SHOW)
    notebook.run_all()
    notebook.ablator()
    notebook.until("ablator.survey().exact.notna().all()")
    notebook.ablator()
    return notebook


@pytest.fixture
def found(ablated: Notebook) -> Notebook:
    """The same with a circuit."""
    ablated.ablator().get_by_role("button", name="find", exact=True).click()
    ablated.until("ablator.scores is not None and ablator.edges.exact.notna().sum() > 10")
    ablated.ablator()
    ablated.page.wait_for_selector(".pc-graph-box .pc-edge", state="attached")
    return ablated


def numbers(text: str) -> list[float]:
    """The numbers in what a page says."""
    plain = text.replace("\N{MINUS SIGN}", "-").replace(",", "")
    return [float(each) for each in re.findall(r"-?\d+\.?\d*(?:e-?\d+)?", plain)]


def exactly(locator: Locator) -> float:
    """The number that a place has in its title, with all digits."""
    return numbers(locator.get_attribute("title") or "")[-1]


def measured(notebook: Notebook, **truth: float) -> None:
    """The page shows Python's numbers of the circuit, and of all but the circuit."""
    rows = notebook.ablator().locator(".pc-checked tr")
    places = {
        "circuit": rows.nth(2).locator("td").nth(1),
        "without": rows.nth(3).locator("td").nth(1),
    }
    for name, value in truth.items():
        assert exactly(places[name]) == pytest.approx(value, rel=1e-4, abs=1e-5), name


def point_at(notebook: Notebook, address: str) -> tuple[float, float]:
    """Move the mouse over the map until it is on a component; the page says on which it is."""
    grid = notebook.ablator().get_by_role("application", name=MAP)
    grid.scroll_into_view_if_needed()
    box = grid.bounding_box()
    assert box is not None
    where = "() => document.querySelector('.pc-component-map .pc-where').textContent"
    layer = address.split(".", maxsplit=1)[0]
    # Down through the first heads until the layer is right, then across.
    x, y, said = box["x"] + 60, box["y"] + 20, ""
    while not said.startswith(f"{layer}.") and y < box["y"] + box["height"]:
        y += 8
        notebook.page.mouse.move(x, y)
        said = notebook.page.evaluate(where)
    x, said = box["x"] + 10, ""
    while said.split(" ")[0] != address and x < box["x"] + box["width"]:
        x += 8
        notebook.page.mouse.move(x, y)
        said = notebook.page.evaluate(where)
    # Not on its very edge.
    notebook.page.mouse.move(x + 6, y + 4)
    assert notebook.page.evaluate(where).split(" ")[0] == address, said
    return x + 6, y + 4


# --- the map -------------------------------------------------------------------------------------


def test_a_click_ablates_the_component_and_the_page_shows_what_python_has(
    ablated: Notebook,
) -> None:
    x, y = point_at(ablated, "L2.H1")
    said = ablated.page.evaluate(
        "() => document.querySelector('.pc-component-map .pc-where').textContent"
    )
    truth = ablated.value("by_hand(pc.Ablate('L2.H1')) - by_hand()")
    assert abs(truth) > 0.01
    assert numbers(said.split("L2.H1")[1])[0] == pytest.approx(truth, rel=1e-3, abs=1e-4)
    ablated.page.mouse.click(x, y)
    ablated.until("[str(iv.site) for iv in session.interventions] == ['L2.H1']")
    ablated.ablator()
    assert ablated.value("session.interventions[0].how") == "mean"
    # The reading of the metric on the page is that of the ablated model.
    after = exactly(ablated.ablator().locator(".pc-metric-chooser .pc-after").first)
    assert after == pytest.approx(ablated.value("by_hand(pc.Ablate('L2.H1'))"), rel=1e-4)
    # Again takes it back, after the time in which it could have become a double click.
    ablated.page.mouse.click(x, y)
    ablated.until("len(session.interventions) == 0")


def test_the_table_has_pythons_numbers_and_sorts(ablated: Notebook) -> None:
    table = ablated.value("ablator.survey().set_index('address').exact.to_dict()")
    rows = ablated.ablator().locator(".pc-components tbody tr")
    for index in range(rows.count()):
        row = rows.nth(index)
        address = row.get_attribute("data-address") or ""
        assert any(
            number == pytest.approx(table[address], rel=6e-3, abs=6e-4)
            for number in numbers(row.inner_text())
        ), (address, row.inner_text())
    ablated.ablator().locator(".pc-components .pc-sort").first.click()
    ablated.wait(
        """() => ["L0.H0", "L3.mlp"].includes(
          document.querySelector(".pc-components tbody tr").dataset.address)"""
    )


def test_a_double_click_ablates_alone_and_undo_brings_the_rest_back(ablated: Notebook) -> None:
    ablated.python("ablator.ablate('L0.mlp')")
    ablated.ablator()
    x, y = point_at(ablated, "L1.H0")
    ablated.page.mouse.dblclick(x, y)
    ablated.until("[str(iv.site) for iv in session.interventions if not iv.muted] == ['L1.H0']")
    ablated.ablator().get_by_role("button", name="undo").click()
    ablated.until("'L0.mlp' in [str(iv.site) for iv in session.interventions if not iv.muted]")


def test_a_brush_ablates_what_it_covers_at_once_and_one_undo_takes_it_back(
    ablated: Notebook,
) -> None:
    end = point_at(ablated, "L2.H2")
    start = point_at(ablated, "L1.H1")
    ablated.page.mouse.down()
    ablated.page.mouse.move(*end, steps=5)
    ablated.page.mouse.up()
    expected = "{'L1.H1', 'L1.H2', 'L2.H1', 'L2.H2'}"
    members = (
        "{str(site) for iv in session.interventions for site in model.anatomy.expand(iv.site)}"
    )
    ablated.until(f"{members} == {expected}")
    assert start != end
    ablated.page.keyboard.press("Control+z")
    ablated.until("len(session.interventions) == 0")


def test_keys_move_and_ablate(ablated: Notebook) -> None:
    grid = ablated.ablator().get_by_role("application", name=MAP)
    grid.focus()
    ablated.page.keyboard.press("Home")
    ablated.page.keyboard.press("Enter")
    ablated.until("len(session.interventions) == 1")


# --- patching ------------------------------------------------------------------------------------


def test_patching_fills_in_stops_and_is_what_python_has_by_hand(ablated: Notebook) -> None:
    view = ablated.ablator()
    panel = view.locator(".pc-patching")
    panel.get_by_role("button", name="start", exact=True).click()
    panel.get_by_text("recovered share").first.wait_for()
    ablated.until("ablator.patch('denoise', 'resid_pre').value.notna().all()")
    ablated.ablator()
    table = ablated.value("ablator.patch('denoise', 'resid_pre').to_dict('records')")
    # Layer 2, position 2 of the corrupt run gets the clean run's stream, by hand.
    truth = ablated.value("by_hand(pc.Patch('L2.resid_pre@2', SENTENCE), input=session.contrast)")
    mine = next(row for row in table if row["layer"] == 2 and row["position"] == 2)
    assert mine["value"] == pytest.approx(truth, rel=1e-4, abs=1e-4)
    corrupt = ablated.value("by_hand(input=session.contrast)")
    assert abs(truth - corrupt) > 0.01


def test_stop_ends_patching_and_what_is_there_stays(notebook: Notebook) -> None:
    notebook.cells(
        "big = slow()\n"
        "words = ' '.join(['the', 'cat', 'saw', 'a', 'dog', 'on', 'the', 'mat'] * 6)\n"
        "session = pc.Session(big, words, contrast=words.replace('cat', 'city'),"
        " metric=pc.LogitDifference(5, 6))",
        SHOW,
    )
    notebook.run_all()
    notebook.page.wait_for_selector(".pc-circuit-ablator .pc-body:not([hidden])")
    notebook.python(
        "ablator.stop()\n"
        "session.baseline.compute()\n"
        "from tests.lab.tiny_model import slower\n"
        "waits = slower(session)\n"
        "waits.__enter__()"
    )
    panel = notebook.page.locator(".pc-circuit-ablator .pc-patching")
    panel.get_by_role("button", name="start", exact=True).click()
    stop = panel.get_by_role("button", name="stop", exact=True)
    stop.wait_for()
    notebook.wait(
        """() => /[1-9]\\d* of \\d+/.test(
          document.querySelector(".pc-circuit-ablator .pc-patching").textContent)"""
    )
    stop.click()
    notebook.ablator()
    notebook.python("waits.__exit__(None, None, None)")
    said = panel.inner_text()
    done, total = map(int, re.findall(r"(\d+) of (\d+) measured", said)[0])
    assert 0 < done < total
    assert panel.get_by_role("button", name="go on", exact=True).is_visible()


# --- circuits ------------------------------------------------------------------------------------


def test_a_found_circuit_is_drawn_with_pythons_numbers(found: Notebook) -> None:
    edges = found.value("ablator.edges.head(5).to_dict('records')")
    drawn = found.page.locator(".pc-graph-box .pc-edge").evaluate_all(
        "all => all.map(each => each.dataset.edge)"
    )
    assert edges[0]["address"] in drawn
    clean = exactly(found.ablator().locator(".pc-checked tr").nth(1).locator("td").nth(1))
    assert clean == pytest.approx(found.value("by_hand()"), rel=1e-4)
    # The exact effect of the strongest edge is that of the same edge cut on a stack.
    truth = found.value(f"by_hand(pc.Cut({edges[0]['address']!r}, how='contrast')) - by_hand()")
    assert abs(truth) > 0.01
    assert edges[0]["exact"] == pytest.approx(truth, rel=1e-3, abs=1e-4)


def test_dragging_the_threshold_keeps_up_and_ends_at_the_exact_faithfulness(
    found: Notebook,
) -> None:
    slider = found.ablator().get_by_role("slider", name="Size of the circuit")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    before = found.value("ablator.size")
    steps = found.value("len(session._undo)")
    found.page.mouse.move(box["x"] + 0.6 * box["width"], middle)
    found.page.mouse.down()
    for part in range(60, 90, 2):
        found.page.mouse.move(box["x"] + part / 100 * box["width"], middle)
    found.page.mouse.up()
    wanted = int(
        found.ablator().get_by_label("Edges in the circuit").input_value().replace(",", "")
    )
    assert wanted != before
    found.until(f"ablator.size == {wanted}")
    found.ablator()
    # A drag is one step of undo, whatever it passed through.
    assert found.value("len(session._undo)") == steps + 1
    checked = found.value(
        "(lambda c: [c.edges, c.circuit, c.without, c.faithfulness])(ablator.check())"
    )
    measured(found, circuit=checked[1], without=checked[2])
    without = checked[2]
    # By hand: every edge that is in the circuit cut, on a session's stack.
    truth = found.value(
        "by_hand(*[pc.Cut(e.address, how='contrast') for e in ablator.circuit.edges])"
    )
    assert without == pytest.approx(truth, rel=1e-3, abs=1e-3)
    found.page.keyboard.press("Control+z")
    found.until(f"ablator.size == {before}")


def test_a_click_on_an_edge_takes_it_out_and_undo_puts_it_back(found: Notebook) -> None:
    address = found.value("ablator.edges.address[0]")
    held = found.value("ablator.check().circuit")
    hit = found.page.locator(f'.pc-edge[data-edge="{address}"] .pc-edge-hit')
    hit.scroll_into_view_if_needed()
    place = hit.evaluate(
        """path => {
          const at = path.getPointAtLength(path.getTotalLength() / 2);
          const on = new DOMPoint(at.x, at.y).matrixTransform(path.getScreenCTM());
          return [on.x, on.y];
        }"""
    )
    found.page.mouse.click(*place)
    found.until(f"{address!r} not in [edge.address for edge in ablator.circuit.edges]")
    without = found.value("ablator.check().circuit")
    measured(found, circuit=without)
    assert without != pytest.approx(held, abs=1e-3)
    found.page.keyboard.press("Control+z")
    found.until(f"{address!r} in [edge.address for edge in ablator.circuit.edges]")


def test_a_node_is_switched_named_and_pinned(found: Notebook) -> None:
    nodes = found.ablator().get_by_role("list", name="Nodes of the circuit")
    first = nodes.get_by_role("checkbox", name="L0.mlp is in the circuit")
    first.click()
    found.until("not any('L0.mlp' in e.address for e in ablator.circuit.edges)")
    found.ablator()
    first.click()
    found.until("any('L0.mlp' in e.address for e in ablator.circuit.edges)")
    found.ablator()
    nodes.get_by_role("button", name="Pin L0.mlp").click()
    found.until("[n.address for n in session.circuit.notes if n.pinned] == ['L0.mlp']")


def test_pointing_at_a_node_says_what_it_does_and_moves_nothing(found: Notebook) -> None:
    nodes = found.ablator().get_by_role("list", name="Nodes of the circuit")
    nodes.scroll_into_view_if_needed()
    found.page.mouse.move(0, 0)
    place = found.place(nodes)
    for line in nodes.locator("[data-node]").all()[:6]:
        # Where it stands once and for all: a hover waits until it stands still.
        name = line.locator(".pc-address")
        name.hover()
        found.ablator()
        assert found.place(nodes) == place
        said = found.ablator().locator(".pc-edge-reading").inner_text()
        assert said.startswith(name.inner_text()), said


def test_pointing_at_an_edge_says_what_it_does_exactly(found: Notebook) -> None:
    # One beyond those that were measured already.
    address = found.value(
        "ablator.edges[ablator.edges.exact.isna()].address.iloc[0]"
        " if ablator.edges.exact.isna().any() else ablator.edges.address[3]"
    )
    found.python(
        f"ablator.switch({address!r}) if {address!r} not in "
        "[e.address for e in ablator.circuit.edges] else None"
    )
    found.ablator()
    effect = found.value(f"ablator.edge({address!r}).exact")
    truth = found.value(f"by_hand(pc.Cut({address!r}, how='contrast')) - by_hand()")
    assert effect == pytest.approx(truth, rel=1e-3, abs=2e-5)


def test_the_curve_is_measured_with_its_random_band(found: Notebook) -> None:
    size = found.ablator().locator(".pc-circuit-size")
    size.get_by_role("button", name=re.compile("curve|faithfulness")).last.click()
    found.until("ablator.faithfulness().random_median.notna().all()")
    table = found.value("ablator.faithfulness().to_dict('records')")
    assert table[-1]["faithfulness"] == pytest.approx(1, abs=1e-3)
    assert table[-1]["completeness"] == pytest.approx(0, abs=1e-3)
    found.ablator()
    assert "random circuits" in size.inner_text()


def test_a_circuit_is_saved_and_loaded(found: Notebook) -> None:
    held = found.value("sorted(edge.address for edge in ablator.circuit.edges)")
    with found.page.expect_download() as waiting:
        found.ablator().get_by_role("button", name="save", exact=True).click()
    text = waiting.value.path().read_text(encoding="utf-8")
    assert sorted(edge["address"] for edge in json.loads(text)["edges"]) == held
    found.python("ablator.size = 5")
    found.ablator()
    with found.page.expect_file_chooser() as choosing:
        found.ablator().get_by_role("button", name="open", exact=True).click()
    choosing.value.set_files(waiting.value.path())
    found.until(f"sorted(edge.address for edge in ablator.circuit.edges) == {held!r}")


# --- what goes wrong -----------------------------------------------------------------------------


def test_a_corrupt_prompt_of_another_length_is_a_sentence_and_nothing_is_lost(
    ablated: Notebook,
) -> None:
    ablated.python("session.contrast = 'the dog sat'")
    ablated.ablator()
    said = ablated.ablator().locator(".pc-patching").inner_text()
    assert re.search(r"same length|another length|as many tokens|\d+ tokens", said), said
    assert ablated.ablator().locator(".pc-components tbody tr").count() == 20


# --- one picture for all -------------------------------------------------------------------------


def test_a_head_ablated_here_is_ablated_in_another_view_of_the_session(notebook: Notebook) -> None:
    notebook.cells(SESSION, SHOW, "clamp = pc.NeuronClamp(session)\nclamp")
    notebook.run_all()
    notebook.ablator()
    x, y = point_at(notebook, "L2.H1")
    notebook.page.mouse.click(x, y)
    notebook.until("len(session.interventions) == 1")
    assert "L2.H1" in notebook.settled().locator(".pc-row").first.inner_text()


def test_dark_and_light_narrow_and_wide_nothing_scrolls_sideways(found: Notebook) -> None:
    pictures = {}
    for theme in ("Light", "Dark"):
        found.theme(theme)
        pictures[theme] = Image.open(io.BytesIO(found.ablator().screenshot()))
    found.theme("Light")
    # What most of the picture is: the page behind all.
    grounds = [
        max(enumerate(p.convert("L").histogram()), key=itemgetter(1))[0] for p in pictures.values()
    ]
    assert grounds[0] > 200
    assert grounds[1] < 80
    for width in (560, 1600):
        found.resize(width)
        found.ablator()
        wide = found.ablator().evaluate("view => [view.scrollWidth, view.clientWidth]")
        assert wide[0] <= wide[1] + 1, width


def test_an_exported_page_draws_without_kernel_and_network(
    found: Notebook, tmp_path: Path, chromium: Browser
) -> None:
    file = tmp_path / "page.html"
    file.write_text(found.value("ablator.to_html()"), encoding="utf-8")
    context = chromium.new_context(viewport={"width": 1200, "height": 2000})
    asked: list[str] = []

    def refuse(route: Route) -> None:
        asked.append(route.request.url)
        if route.request.url.startswith("file:"):
            route.continue_()
        else:
            route.abort()

    context.route("**/*", refuse)
    page = context.new_page()
    page.goto(file.as_uri())
    page.wait_for_selector(".pc-graph-box .pc-edge", state="attached")
    assert page.locator(".pc-components tbody tr").count() == 20
    assert [url for url in asked if not url.startswith("file:")] == []
    assert page.get_by_role("button", name="find", exact=True).is_disabled()
    context.close()


def test_nothing_was_asked_of_a_network_and_no_error_was_logged(found: Notebook) -> None:
    assert found.outside == []
    assert found.broken() == []
