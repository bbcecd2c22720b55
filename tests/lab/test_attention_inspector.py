"""AttentionInspector in JupyterLab, on tiny random models: what a hand does, Python sees, and back.

Exact numbers are read off the page and compared with what Python computes for the same edit.
"""

from __future__ import annotations

import io
import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.lab.tiny_model import SCRIPT

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Locator, Route

    from tests.lab.lab import Notebook

SESSION = "session = pc.Session(model, SENTENCE)"
SHOW = "inspector = pc.AttentionInspector(session)\ninspector"
METRIC = "float(session.current.log_probs()[session.target])"
HEADS = "All heads; arrow keys move, Enter locks one, Shift+Enter solos it"
PATTERN = "Attention pattern; arrow keys move over its cells, Enter locks one"


@pytest.fixture
def inspected(notebook: Notebook) -> Notebook:
    """The notebook with one view, a head locked."""
    notebook.cells(SESSION, SHOW)
    notebook.run_all()
    notebook.inspector()
    notebook.python("inspector.lock('L2.H1')")
    said(notebook, ".pc-pattern-title", "L2.H1")
    notebook.inspector()
    return notebook


def said(notebook: Notebook, selector: str, pattern: str) -> None:
    """Wait until a part says what a regular expression finds."""
    notebook.wait(
        """([selector, pattern]) => [...document.querySelectorAll(".pc-attention-inspector " +
          selector)].some(each => each.checkVisibility()
            && new RegExp(pattern).test(each.textContent))""",
        [selector, pattern],
    )


def pattern_of(notebook: Notebook, head: str, look: str = "now", mode: str = "weight") -> Any:
    """A pattern as Python has it, [destination, source]."""
    rows = notebook.value(f"inspector.pattern({head!r}, look={look!r}, mode={mode!r}).tolist()")
    return np.array(rows, dtype=np.float64)


def point_at(notebook: Notebook, destination: int, source: int) -> None:
    """Move the mouse over the large pattern until it is on a cell; the page says on which it is."""
    app = notebook.inspector().get_by_role("application", name=PATTERN)
    box = app.bounding_box()
    assert box is not None
    x, y = box["x"] + 6, box["y"] + 6
    where = "() => document.querySelector('.pc-pattern-panel .pc-where').textContent"
    wanted = f"{destination} .* reads {source} "
    row, column = re.compile(rf"^{destination} .* reads "), re.compile(rf" reads {source} ")
    found = ""
    # Down along the first column until the row is right, then across.
    while not row.search(found) and y < box["y"] + box["height"]:
        y += 5
        notebook.page.mouse.move(x, y)
        found = notebook.page.evaluate(where)
    while not column.search(found) and x < box["x"] + box["width"]:
        x += 5
        notebook.page.mouse.move(x, y)
        found = notebook.page.evaluate(where)
    assert re.search(wanted, found), found


def exact(notebook: Notebook) -> dict[str, float]:
    """The exact values of the cell under the mouse, once they have come."""
    notebook.wait("() => document.querySelector('.pc-pattern-panel .pc-exact[data-exact]')")
    text = notebook.inspector().locator(".pc-exact").inner_text().replace("\N{MINUS SIGN}", "-")
    numbers = dict(re.findall(r"(weight|value-weighted|logits) ([-+]?[\d.e-]+)", text))
    return {name: float(number) for name, number in numbers.items()}


def inked(picture: Image.Image) -> int:
    """How many colours a picture has."""
    return len(picture.convert("RGB").getcolors(1_000_000) or [])


def shot(element: Locator) -> Image.Image:
    """A screenshot of an element."""
    return Image.open(io.BytesIO(element.screenshot()))


# --- 1: all heads --------------------------------------------------------------------------------


def test_the_grid_shows_every_head_and_keys_move_and_lock(inspected: Notebook) -> None:
    view = inspected.inspector()
    grid = view.get_by_role("application", name=HEADS)
    assert inked(shot(grid)) > 30
    grid.focus()
    inspected.page.keyboard.press("ArrowRight")
    inspected.page.keyboard.press("ArrowDown")
    inspected.page.keyboard.press("Enter")
    inspected.until("inspector.locked == 'L3.H2'")
    said(inspected, ".pc-address-title", "^L3.H2$")
    box = grid.bounding_box()
    assert box is not None
    # Right and below of the labels the first head begins.
    inspected.page.mouse.click(box["x"] + 44, box["y"] + 32)
    inspected.until("inspector.locked == 'L0.H0'")
    said(inspected, ".pc-pattern-title", "^L0.H0")
    inspected.python("inspector.lock('L1.H3')")
    said(inspected, ".pc-address-title", "^L1.H3$")


def test_scores_on_the_page_are_the_table_that_python_has(inspected: Notebook) -> None:
    rows = inspected.value("inspector.scores.to_dict('records')")
    mine = next(row for row in rows if row["address"] == "L2.H1")
    shown = inspected.inspector().locator(".pc-scores tr").all_inner_texts()
    # The page rounds to three digits, the title of each number has them all.
    for name, words in {"previous": "previous", "first": "first", "entropy": "entropy"}.items():
        line = next(text for text in shown if words in text)
        number = float(re.findall(r"[\d.]+", line.replace("\u2212", "-"))[-1])
        assert number == pytest.approx(mine[name], rel=6e-3, abs=6e-4), (name, line)
    inspected.inspector().get_by_role("button", name=re.compile("^Measure effect")).click()
    inspected.until("inspector._effect is not None and inspector.scores.effect.notna().all()")
    by_hand = inspected.value(
        "float(pc.Session(model, SENTENCE, interventions=[pc.Ablate('L2.H1')]).current"
        ".log_probs()[session.target] - session.baseline.log_probs()[session.target])"
    )
    effect = inspected.value("float(inspector.scores.set_index('address').effect['L2.H1'])")
    assert effect == pytest.approx(by_hand, rel=1e-3, abs=1e-6)
    assert abs(by_hand) > 1e-4
    inspected.inspector().get_by_label("Heads sorted by").select_option("effect")
    said(inspected, ".pc-heads-panel", "16 heads")


# --- 2: one head large ---------------------------------------------------------------------------


def test_a_cell_under_the_mouse_says_its_exact_values(inspected: Notebook) -> None:
    point_at(inspected, 7, 3)
    values = exact(inspected)
    assert values["weight"] == pytest.approx(pattern_of(inspected, "L2.H1")[7, 3], rel=1e-6)
    weighted = pattern_of(inspected, "L2.H1", mode="value")
    assert values["value-weighted"] == pytest.approx(weighted[7, 3], rel=1e-5)
    logits = pattern_of(inspected, "L2.H1", mode="contribution")
    assert values["logits"] == pytest.approx(logits[7, 3], rel=1e-5)
    # The tokens of the cell are marked in the prompt too.
    marked = inspected.inspector().locator(".pc-prompt .pc-chip[data-pointed]")
    assert [mark.get_attribute("data-position") for mark in marked.all()] == ["3", "7"]


def test_the_mode_recolours_the_pattern_and_python_knows(inspected: Notebook) -> None:
    view = inspected.inspector()
    cells = view.locator(".pc-pattern-box")
    weight = shot(cells).tobytes()
    view.get_by_role("radio", name="contribution").click(force=True)
    inspected.until("inspector.mode == 'contribution'")
    inspected.inspector()
    assert shot(cells).tobytes() != weight
    inspected.python("inspector.mode = 'weight'")
    inspected.wait(
        "() => document.querySelector('.pc-segments input[value=weight]').checked"
        " && !document.querySelector('.pc-segments input[value=contribution]').checked"
    )


def test_a_token_of_the_prompt_shows_where_it_looks(inspected: Notebook) -> None:
    view = inspected.inspector()
    chip = view.locator(".pc-prompts .pc-chip").nth(7)
    chip.hover()
    said(inspected, ".pc-legend", "looks at")
    shades = (
        inspected.inspector()
        .locator(".pc-prompts .pc-chip .pc-chip-text")
        .evaluate_all("chips => chips.map(chip => getComputedStyle(chip).backgroundColor)")
    )
    row = pattern_of(inspected, "L2.H1")[7]
    # The strongest source of the row has the deepest blue of those that it looks at.
    blue = [int(re.findall(r"\d+", shade)[0]) for shade in shades[:8]]
    assert int(np.argmin(blue)) == int(np.argmax(row[:8]))


# --- 3: live -------------------------------------------------------------------------------------


def test_typing_runs_after_a_pause_and_is_one_step_of_undo(inspected: Notebook) -> None:
    before = inspected.value("session.text")
    inspected.inspector().get_by_role("button", name="edit").first.click()
    box = inspected.inspector().get_by_role("textbox", name="Prompt", exact=True)
    box.press("End")
    box.press_sequentially(" of the city in the city")
    inspected.until("session.text.endswith('in the city')")
    inspected.until("inspector.pattern('L2.H1').shape[0] == len(session.ids)")
    tokens = inspected.inspector().locator(".pc-prompts .pc-chip")
    inspected.wait(
        "n => document.querySelectorAll('.pc-prompts .pc-prompt .pc-chip').length === n",
        inspected.value("len(session.ids)"),
    )
    assert tokens.last.inner_text().startswith("city")
    box.press("Enter")
    inspected.inspector()  # what Enter sends is there
    inspected.python("session.undo()")
    assert inspected.value("session.text") == before


def test_now_before_and_difference_show_what_the_stack_does(inspected: Notebook) -> None:
    inspected.python("session.interventions = [pc.Ablate('L0.H2', how='zero')]")
    inspected.inspector()
    now, before = (pattern_of(inspected, "L2.H1", look) for look in ("now", "before"))
    assert np.abs(now - before).max() > 1e-3
    inspected.inspector().get_by_role("radio", name="difference", exact=True).click(force=True)
    inspected.until("inspector.look == 'difference'")
    inspected.inspector()
    point_at(inspected, 8, 2)
    values = exact(inspected)
    assert values["weight"] == pytest.approx(now[8, 2] - before[8, 2], rel=1e-4, abs=1e-8)
    inspected.python("session.reset()")
    # Nothing acts: there is no difference to look at, and the view says the pattern as it is.
    inspected.wait(
        "() => document.querySelector('.pc-segments input[value=difference]').disabled"
        " || document.querySelector('.pc-segments input[value=now]').checked"
    )


# --- 4: knock out --------------------------------------------------------------------------------


def test_a_click_knocks_a_cell_out_and_a_click_takes_it_back(inspected: Notebook) -> None:
    before = float(inspected.value(METRIC))
    view = inspected.inspector()
    view.get_by_role("radio", name="knock out").click(force=True)
    point_at(inspected, 9, 4)
    inspected.page.mouse.down()
    inspected.page.mouse.up()
    inspected.until("len(session.interventions) == 1")
    assert inspected.value("repr(session.interventions[0])") == "Knockout('L2.H1[9<-4]')"
    by_hand = inspected.value(
        "float(pc.Session(model, SENTENCE, interventions=[pc.Knockout('L2.H1[9<-4]')])"
        ".current.log_probs()[session.target])"
    )
    assert abs(by_hand - before) > 1e-5
    inspected.inspector()
    shown = inspected.inspector().locator(".pc-after").get_attribute("title") or ""
    assert float(shown.split(": ")[-1].replace("\N{MINUS SIGN}", "-")) == pytest.approx(
        by_hand, rel=1e-5
    )
    now = pattern_of(inspected, "L2.H1")
    assert now[9, 4] == 0
    assert now[9].sum() == pytest.approx(1, abs=1e-5)
    code = inspected.value("session.to_code()")
    assert "hook_pattern" in code
    point_at(inspected, 9, 4)
    inspected.page.mouse.down()
    inspected.page.mouse.up()
    inspected.until("len(session.interventions) == 0")
    inspected.inspector().locator(".pc-pattern-title").click()
    inspected.page.keyboard.press("Control+z")
    inspected.until("len(session.interventions) == 1")


def test_a_brush_knocks_out_a_rectangle_without_renormalising(inspected: Notebook) -> None:
    view = inspected.inspector()
    view.get_by_role("radio", name="knock out").click(force=True)
    view.get_by_label("How attention is knocked out").select_option("zero")
    point_at(inspected, 9, 5)
    inspected.page.mouse.down()
    point_at_while_down(inspected, 7, 3)
    inspected.page.mouse.up()
    inspected.until("len(session.interventions) == 1")
    assert (
        inspected.value("repr(session.interventions[0])")
        == "Knockout('L2.H1[7:10<-3:6]', how='zero')"
    )
    now, before = (pattern_of(inspected, "L2.H1", look) for look in ("now", "before"))
    assert (now[7:10, 3:6] == 0).all()
    rest = before.copy()
    rest[7:10, 3:6] = 0
    np.testing.assert_allclose(now, rest, atol=1e-6)


def point_at_while_down(notebook: Notebook, destination: int, source: int) -> None:
    """Drag up and to the left until the page says which cell it is on."""
    where = "() => document.querySelector('.pc-pattern-panel .pc-where').textContent"
    app = notebook.inspector().get_by_role("application", name=PATTERN)
    box = app.bounding_box()
    assert box is not None
    wanted = re.compile(f"^{destination} .* reads {source} ")
    for y in range(int(box["y"] + box["height"]), int(box["y"]), -5):
        notebook.page.mouse.move(box["x"] + 6, y)
        if re.match(f"^{destination} ", notebook.page.evaluate(where)):
            break
    for x in range(int(box["x"]) + 6, int(box["x"] + box["width"]), 5):
        notebook.page.mouse.move(x, y)
        if wanted.match(notebook.page.evaluate(where)):
            return
    raise AssertionError(notebook.page.evaluate(where))


def test_from_token_to_token_across_layers_and_whole_heads(inspected: Notebook) -> None:
    view = inspected.inspector()
    for label, text in {
        "From token": "2",
        "To token": "8",
        "First layer": "1",
        "Last layer": "2",
    }.items():
        view.get_by_label(label, exact=True).fill(text)
    view.get_by_role("button", name="Knock out everything from the one token to the other").click()
    inspected.until("len(session.interventions) == 1")
    for layer in range(4):
        cell = pattern_of(inspected, f"L{layer}.H3")[8, 2]
        assert (cell == 0) == (layer in {1, 2})
    view.get_by_role("button", name="Knock out L2.H1").click()
    inspected.until("len(session.interventions) == 2")
    assert inspected.value("str(session.interventions[1].site)") == "L2.H1"
    row = inspected.inspector().locator(".pc-row").first
    row.get_by_label(re.compile("^How .* is knocked out$")).select_option("zero")
    inspected.until("session.interventions[0].how == 'zero'")
    row.get_by_role("button", name=re.compile("^Remove ")).click()
    inspected.until("len(session.interventions) == 1")


# --- 5: two prompts ------------------------------------------------------------------------------


def test_a_second_prompt_is_aligned_edited_and_subtracted(inspected: Notebook) -> None:
    view = inspected.inspector()
    view.get_by_role("button", name="second prompt").first.click()
    view.get_by_label("Second prompt", exact=True).last.fill(
        "a dog sat on the mat and saw a cat of the city"
    )
    view.get_by_label("Second prompt", exact=True).last.press("Enter")
    inspected.until("session.contrast is not None")
    view.get_by_role("button", name="by tokens").click()
    inspected.until("inspector._attention(inspector._scene()).second.partners is not None")
    partners = inspected.value("list(inspector._attention(inspector._scene()).second.partners)")
    assert any(p is not None for p in partners)
    inspected.inspector().get_by_role("radio", name=re.compile("second$")).last.click(force=True)
    inspected.until("inspector.look == 'second-difference'")
    inspected.inspector()
    d, s = next(
        (i, j)
        for i in range(9, 1, -1)
        for j in range(1, i)
        if partners[i] is not None and partners[j] is not None
    )
    now = pattern_of(inspected, "L2.H1")
    second = pattern_of(inspected, "L2.H1", "second")
    point_at(inspected, d, s)
    values = exact(inspected)
    by_hand = now[d, s] - second[partners[d], partners[s]]
    assert values["weight"] == pytest.approx(by_hand, rel=1e-4, abs=1e-7)
    inspected.python(f"inspector.align(pairs=[({d}, None)])")
    inspected.wait(
        "() => /not a number/.test(document.querySelector('.pc-exact').textContent) ||"
        " !document.querySelector('.pc-exact[data-exact]')"
    )


# --- 6 and 8: composition, saving ----------------------------------------------------------------


def test_composition_is_pythons_and_its_heads_are_one_click_away(inspected: Notebook) -> None:
    view = inspected.inspector()
    view.get_by_role("button", name="Measure composition with all other heads").click()
    view.locator(".pc-composed").first.wait_for()
    table = inspected.value("inspector.composition('L2.H1').fillna(-9).to_dict('records')")
    later = max((row for row in table if row["layer"] > 2), key=lambda row: row["v"])
    said(inspected, ".pc-composed-name", f"^{later['address']}$")
    shown = view.locator(".pc-composed").filter(has_text=later["address"]).last
    shown.click()
    inspected.until(f"inspector.locked == {later['address']!r}")


def test_the_pattern_is_saved_as_svg_and_png_with_its_tokens(inspected: Notebook) -> None:
    panel = inspected.inspector().locator(".pc-pattern-panel")
    with inspected.page.expect_download() as svg:
        panel.get_by_role("button", name=re.compile("SVG")).click()
    text = svg.value.path().read_text(encoding="utf-8")
    assert svg.value.suggested_filename.endswith(".svg")
    assert "L2.H1" in text
    assert "mat" in text
    with inspected.page.expect_download() as png:
        panel.get_by_role("button", name=re.compile("PNG")).click()
    assert inked(Image.open(png.value.path())) > 20


# --- 7: encoders ---------------------------------------------------------------------------------


def test_an_encoder_reads_both_ways_and_a_knock_out_moves_its_tokens(notebook: Notebook) -> None:
    notebook.cells("session = pc.Session(encoder(), SENTENCE)", SHOW)
    notebook.run_all()
    notebook.inspector()
    notebook.python("inspector.lock('L0.H1')")
    said(notebook, ".pc-pattern-title", "^L0.H1$")
    notebook.inspector()
    point_at(notebook, 2, 6)
    before = pattern_of(notebook, "L0.H1")
    assert exact(notebook)["weight"] == pytest.approx(before[2, 6], rel=1e-6)
    assert before[2, 6] > 0
    assert notebook.inspector().locator(".pc-metric").is_hidden()
    notebook.inspector().get_by_role("radio", name="knock out").click(force=True)
    point_at(notebook, 2, 6)
    notebook.page.mouse.down()
    notebook.page.mouse.up()
    notebook.until("len(session.interventions) == 1")
    now = pattern_of(notebook, "L0.H1")
    rest = np.delete(before[2], 6) / (1 - before[2, 6])
    np.testing.assert_allclose(np.delete(now[2], 6), rest, rtol=1e-5)
    assert now[2, 6] == 0
    moved = notebook.value("inspector._result[1].moved.tolist()")
    assert moved[2] > 1e-6


# --- what comes in ------------------------------------------------------------------------------


def test_what_is_typed_is_text_wherever_it_is_shown(notebook: Notebook) -> None:
    prompt = f"the {SCRIPT} cat <|endoftext|> sat"
    notebook.cells(f"session = pc.Session(model, {json.dumps(prompt)})", SHOW)
    notebook.run_all()
    notebook.inspector()
    notebook.python("inspector.lock('L1.H0')")
    said(notebook, ".pc-pattern-title", "L1.H0")
    assert SCRIPT in notebook.inspector().locator(".pc-prompts").inner_text()
    assert notebook.page.evaluate("() => window.taken") is None
    notebook.python("session.input = torch.tensor([4])")
    notebook.until("inspector.pattern('L1.H0').tolist() == [[1.0]]")
    point_at(notebook, 0, 0)
    assert exact(notebook)["weight"] == 1


def test_a_saved_page_draws_the_pattern_without_kernel_and_network(
    inspected: Notebook, chromium: Browser, served: Path
) -> None:
    inspected.python("inspector.to_html('inspector.html')")
    context = chromium.new_context(viewport={"width": 1200, "height": 1400})
    asked: list[str] = []
    wrong: list[str] = []

    def refuse(route: Route) -> None:
        asked.append(route.request.url)
        route.abort()

    context.route(re.compile("^(http|ws)s?:"), refuse)
    try:
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
        page.goto((served / "inspector.html").as_uri())
        view = page.locator(".pc-attention-inspector")
        view.locator(".pc-pattern-box").wait_for()
        page.evaluate(
            "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
        )
        assert inked(shot(view.locator(".pc-pattern-box"))) > 20
        assert inked(shot(view.get_by_role("application", name=HEADS))) > 30
        assert "without a kernel" in view.locator(".pc-kernel").inner_text()
        assert asked == []
        assert wrong == []
    finally:
        context.close()


@pytest.mark.parametrize("width", [600, 900, 1500])
def test_nothing_sticks_out_sideways(inspected: Notebook, width: int) -> None:
    inspected.resize(width)
    out = inspected.inspector().evaluate(
        """view => {
          const right = view.getBoundingClientRect().right + 1;
          const out = [...view.querySelectorAll("*")].filter(element =>
            element.checkVisibility() && !element.closest(".pc-hidden, .pc-chips, .pc-pattern-box,"
              + " .pc-lines-scroll, .pc-heads")
            && element.getBoundingClientRect().right > right);
          const scrolls = view.scrollWidth > view.clientWidth + 1 ? ["the view scrolls"] : [];
          return [...scrolls, ...out.map(element => element.outerHTML.slice(0, 120))];
        }"""
    )
    assert out == []


def test_a_change_in_one_view_shows_in_the_other(inspected: Notebook) -> None:
    inspected.cells(SESSION, SHOW, "clamp = pc.NeuronClamp(session)\nclamp")
    inspected.run_all()
    inspected.inspector()
    inspected.settled()
    inspected.python("inspector.lock('L3.H0')\nclamp.add('L1.N5', value=20.0)")
    inspected.inspector()
    inspected.wait(
        "() => document.querySelectorAll('.pc-attention-inspector .pc-row').length === 1"
    )
    now, before = (pattern_of(inspected, "L3.H0", look) for look in ("now", "before"))
    assert np.abs(now - before).max() > 1e-4
