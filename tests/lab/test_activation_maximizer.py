"""ActivationMaximizer in JupyterLab, on tiny random models: a hand, Python, and back.

While something is optimised nothing is at rest: what is waited for then is a state, such as a step
that was reached. Pictures and numbers are read off the page and compared with what Python has.
"""

from __future__ import annotations

import re
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from tests.lab.test_neuron_clamp import agrees
from tests.lab.tiny_model import squares

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser, Locator, Route

    from tests.lab.lab import Notebook

SHOW_PICTURES = """
maximizer = pc.ActivationMaximizer(session, "second:c2", corpus=squares())
maximizer.set_options(steps=100_000, size=32)
maximizer
"""
PICTURES = (
    "session = pc.ModuleSession(eye())\nmodel_of_pictures = session.model.module",
    SHOW_PICTURES,
)
"""A picture that is not through before somebody stops it."""
SHOW_PROMPTS = """
texts = [f"the cat saw {what} on a mat" for what in ("w0 w1", "city", "of w9")]
maximizer = pc.ActivationMaximizer(session, "L2.N7", corpus=texts)
maximizer.set_options(length=5, population=4, children=8, iterations=4)
maximizer
"""
PROMPTS = ("session = pc.Session(model, SENTENCE)", SHOW_PROMPTS)
TAKEN = "int(maximizer.tracks.step.max()) if len(maximizer.tracks) else 0"
STATUS = "maximizer.tracks.status.tolist()"
# Every step of the optimisation that runs, and when it ended.
NOTE_STEPS = """
run = next(iter(maximizer._tracks.values())).optimization
steps, plain = [], run.step


def noted(should_stop=None):
    found = plain(should_stop)
    steps.append((found.step, time.time()))
    return found


run.step = noted
"""


@pytest.fixture
def seen(notebook: Notebook) -> Notebook:
    """The notebook with a view on a model of pictures; nothing is optimised yet."""
    notebook.cells(*PICTURES)
    notebook.run_all()
    notebook.maximizer()
    return notebook


@pytest.fixture
def dreamt(notebook: Notebook) -> Notebook:
    """The notebook with a view on a language model, prompts found."""
    notebook.cells(*PROMPTS)
    notebook.run_all()
    notebook.maximizer()
    go(notebook).click()
    notebook.until("len(maximizer.front) > 2 and maximizer._last_search.status == 'done'")
    notebook.maximizer()
    return notebook


def view_of(notebook: Notebook) -> Locator:
    """The view, whatever it does."""
    return notebook.page.locator(".pc-activation-maximizer").first


def go(notebook: Notebook) -> Locator:
    """The button that starts, pauses and continues."""
    return view_of(notebook).locator(".pc-go")


def stop(notebook: Notebook) -> Locator:
    """The button that stops what is optimised."""
    return view_of(notebook).get_by_role("button", name="Stop this run")


def ran(notebook: Notebook, steps: int) -> None:
    """The page comes to show that so many steps were taken."""
    notebook.wait(
        """least => {
          const said = document.querySelector(".pc-step-count").textContent;
          return Number(/(\\d+)\\//.exec(said)?.[1] ?? 0) >= least;
        }""",
        steps,
    )


def pixels(notebook: Notebook, selector: str = ".pc-optimised .pc-stimulus") -> list[int]:
    """What a canvas shows: red, green and blue of each of its own pixels, 0 to 255."""
    found: list[int] = notebook.page.evaluate(
        """selector => {
          const canvas = document.querySelector(".pc-activation-maximizer " + selector);
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return [...data].filter((_, i) => i % 4 !== 3);
        }""",
        selector,
    )
    return found


def picture(notebook: Notebook, expression: str) -> Any:
    """A picture as Python has it, as a screen would show it: bytes."""
    shown = f"(255 * {expression}).round().permute(1, 2, 0).flatten().int().tolist()"
    return np.array(notebook.value(shown))


def told(notebook: Notebook, selector: str, pattern: str) -> str:
    """What an error says, once it can be read."""
    error = view_of(notebook).locator(selector).filter(has_text=re.compile(pattern)).first
    error.wait_for(state="visible")
    said = error.inner_text()
    assert said.rstrip().endswith((".", "?")), said
    return said


# --- pictures ------------------------------------------------------------------------------------


def test_frames_arrive_while_it_runs_and_stop_keeps_the_last(seen: Notebook) -> None:
    go(seen).click()
    ran(seen, 5)
    seen.wait("() => document.querySelector('.pc-go').textContent === 'pause'")
    earlier = pixels(seen)
    for _ in range(2):
        # The canvas is painted again and again, with other pixels.
        seen.wait(
            """earlier => {
              const canvas = document.querySelector(".pc-optimised .pc-stimulus");
              const { data } =
                canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
              return [...data].filter((_, i) => i % 4 !== 3).some((v, i) => v !== earlier[i]);
            }""",
            earlier,
        )
        earlier = pixels(seen)
    ran(seen, max(30, seen.value(TAKEN)))
    stop(seen).click()
    seen.until(f"{STATUS} == ['stopped']")
    seen.maximizer()
    # The page shows what Python saw last, in each of its pixels.
    last = picture(seen, "maximizer.frame()")
    assert np.abs(np.array(pixels(seen)) - last).max() <= 1
    taken = seen.value(TAKEN)
    assert re.search(rf"\b{taken}/", view_of(seen).locator(".pc-step-count").inner_text())
    assert seen.value("bool(maximizer.tracks.best[0] > maximizer.history.value[0])")


def test_stop_ends_it_within_half_a_second_and_nothing_goes_on(seen: Notebook) -> None:
    late = []
    for _ in range(5):
        go(seen).click()
        ran(seen, 5)
        seen.python(NOTE_STEPS)
        seen.until("len(steps) > 3")
        seen.page.evaluate(
            """() => document.addEventListener("click", () => { window.clicked = Date.now(); },
              { capture: true, once: true })"""
        )
        stop(seen).click()
        seen.until(f"{STATUS} == ['stopped']")
        clicked = seen.page.evaluate("() => window.clicked / 1000")
        seen.maximizer()  # nothing computes any more
        taken = seen.value("len(steps)")
        late.append(seen.value("steps[-1][1]") - clicked)
        assert go(seen).inner_text() == "start"
        seen.maximizer()
        assert seen.value("len(steps)") == taken
    assert median(late) < 0.5, late


def test_pause_holds_it_and_continue_goes_on_from_the_same_step(seen: Notebook) -> None:
    go(seen).click()
    ran(seen, 5)
    seen.python(NOTE_STEPS)
    seen.until("len(steps) > 3")
    go(seen).click()
    seen.until(f"{STATUS} == ['paused']")
    seen.maximizer()
    held = seen.value("len(steps)")
    assert go(seen).inner_text() == "continue"
    shown = pixels(seen)
    go(seen).click()
    seen.until(f"len(steps) > {held} + 3")
    stop(seen).click()
    seen.until(f"{STATUS} == ['stopped']")
    seen.maximizer()
    # No step was left out, none was taken twice.
    steps = seen.value("[step for step, _ in steps]")
    assert steps == list(range(steps[0], steps[0] + len(steps)))
    assert pixels(seen) != shown


def test_the_scrubber_shows_the_frame_that_python_has_kept(seen: Notebook) -> None:
    seen.python("maximizer.climb(steps=40)")
    seen.maximizer()
    newest = pixels(seen)
    slider = view_of(seen).get_by_role("slider", name="Step whose picture is shown")
    slider.focus()
    for key, step in (("Home", "0"), ("ArrowRight", "steps[1]"), ("End", "steps[-1]")):
        slider.press(key)
        seen.maximizer()
        seen.python("steps = next(iter(maximizer._tracks.values())).optimization.history.steps")
        shown = np.array(pixels(seen))
        assert np.abs(shown - picture(seen, f"maximizer.frame({step})")).max() <= 1, key
        assert f"step {seen.value(step)}" in view_of(seen).locator(".pc-at-step").inner_text()
    slider.press("Home")
    seen.maximizer()
    assert pixels(seen) != newest
    view_of(seen).get_by_role("button", name="newest").click()
    seen.maximizer()
    assert pixels(seen) == newest


def test_another_unit_is_typed_refused_and_undone(seen: Notebook) -> None:
    box = view_of(seen).locator(".pc-unit-form").get_by_role("combobox").first
    box.fill("second:c99")
    box.press("Enter")
    assert "second" in told(seen, ".pc-unit-form .pc-error", "c99|channel")
    assert seen.value("maximizer.objective.text") == "second:c2"
    box.fill("first:c1")
    box.press("Enter")
    seen.until("maximizer.objective.text == 'first:c1'")
    seen.maximizer()
    view_of(seen).locator(".pc-model").click()
    seen.page.keyboard.press("Control+z")
    seen.until("maximizer.objective.text == 'second:c2'")
    seen.maximizer()
    assert box.input_value() == "second:c2"


def test_what_cannot_be_optimised_is_a_sentence_and_the_best_so_far_stays(seen: Notebook) -> None:
    seen.python("maximizer.climb(steps=10)")
    seen.maximizer()
    before = pixels(seen)
    options = view_of(seen).get_by_role("button", name="options")
    options.click()
    size = view_of(seen).locator(".pc-options").get_by_label(re.compile("^size"))
    size.fill("3")
    size.press("Enter")
    assert "8" in told(seen, ".pc-options .pc-error", "smallest|at least|size")
    assert seen.value("maximizer._aim.drawing.size") == 32
    seen.maximizer()
    assert pixels(seen) == before
    # In the middle of a run no number comes out of the model any more.
    seen.python("maximizer.set_options(steps=100_000)")
    seen.maximizer()
    go(seen).click()
    ran(seen, 5)
    seen.python(
        "weights = session.model.module.second.weight\n"
        "kept = weights.detach().clone()\n"
        "def spoil(should_stop):\n"
        "    with torch.no_grad(): weights.fill_(float('nan'))\n"
        "session.submit(spoil).result()"  # between two steps, not in the middle of one
    )
    seen.until(f"{STATUS} == ['failed']")
    seen.python("with torch.no_grad(): weights.copy_(kept)")
    seen.maximizer()
    said = told(seen, ".pc-error", "finite|NaN|not a number")
    assert "inf" not in said.lower().replace("finite", "")
    best = seen.value("maximizer.tracks.best[0]")
    assert np.isfinite(best)
    last = picture(seen, "maximizer.frame()")
    assert np.abs(np.array(pixels(seen)) - last).max() <= 1


def test_facets_stand_side_by_side_with_the_images_that_they_came_from(seen: Notebook) -> None:
    seen.python("maximizer.set_options(steps=20)")
    seen.maximizer()
    view_of(seen).get_by_role("tab", name="facets").click()
    panel = view_of(seen).locator(".pc-facets")
    panel.get_by_label(re.compile("^facets")).fill("2")
    panel.get_by_role("button", name="find facets").click()
    seen.until(f"{STATUS} == ['done', 'done']")
    seen.maximizer()
    facets = panel.locator(".pc-facet")
    assert facets.count() == 2
    boxes = [facets.nth(i).bounding_box() for i in range(2)]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[1]["x"] >= boxes[0]["x"] + boxes[0]["width"]
    for i in range(2):
        source = int(re.findall(r"from (\d+)", facets.nth(i).inner_text())[0])
        assert source >= 2
        shown = facets.nth(i).locator(".pc-members .pc-stimulus")
        assert 1 <= shown.count() <= source
    red, blue = (
        np.array(pixels(seen, f".pc-facet:nth-child({i + 1}) .pc-members .pc-stimulus"))
        for i in range(2)
    )
    # One came from the red squares and one from the blue ones.
    sides = {int(np.argmax(each.reshape(-1, 3).mean(axis=0))) for each in (red, blue)}
    assert sides == {0, 2}
    facets.nth(1).locator(".pc-facet-show").click()
    seen.maximizer()
    assert view_of(seen).locator(".pc-optimised").get_by_text("facet 2").is_visible()


def test_a_found_picture_is_put_into_the_session_and_undo_takes_it_back(seen: Notebook) -> None:
    seen.python("maximizer.climb(steps=10)")
    seen.maximizer()
    assert seen.value("session.input is None")
    view_of(seen).locator(".pc-optimised").get_by_role("button", name="load").click()
    seen.until("session.input is not None")
    assert seen.value("bool((session.input == maximizer.frame()).all())")
    seen.maximizer()
    view_of(seen).get_by_role("button", name="undo").click()
    seen.until("session.input is None")


def test_a_picture_of_the_users_is_measured_as_python_measures_it(
    seen: Notebook, tmp_path: Path
) -> None:
    file = tmp_path / "mine.png"
    square = (255 * squares()[3]).round().byte()
    Image.fromarray(square.permute(1, 2, 0).numpy()).save(file)
    own = view_of(seen).locator(".pc-own")
    with seen.page.expect_file_chooser() as choosing:
        own.get_by_role("button", name="choose a picture").click()
    choosing.value.set_files(file)
    own.get_by_text("mine.png").wait_for()
    seen.maximizer()
    title = own.locator(".pc-value").get_attribute("title") or ""
    # By hand, without a hook: the channel's mean is that of what the second layer gives.
    truth = seen.value(
        "float(model_of_pictures.second("
        "model_of_pictures.first((255 * squares()[3:4]).round() / 255).relu())[0, 2].mean())"
    )
    assert float(title.replace("\N{MINUS SIGN}", "-")) == pytest.approx(truth, rel=1e-4)
    file.write_text("no picture")
    with seen.page.expect_file_chooser() as choosing:
        own.get_by_role("button", name="choose a picture").click()
    choosing.value.set_files(file)
    told(seen, ".pc-own .pc-error", "picture")
    assert own.locator(".pc-value").get_attribute("title") == title


def test_a_sheet_and_an_animation_are_saved(seen: Notebook) -> None:
    seen.python("maximizer.climb(steps=30)")
    seen.maximizer()
    panel = view_of(seen).locator(".pc-optimised")
    with seen.page.expect_download() as sheet:
        panel.get_by_role("button", name=re.compile("PNG")).click()
    with Image.open(sheet.value.path()) as image:
        assert image.format == "PNG"
        assert len(image.convert("RGB").getcolors(1_000_000) or []) > 100
    for kind in ("GIF", "WebP"):
        with seen.page.expect_download() as moving:
            panel.get_by_role("button", name=re.compile(kind)).click()
        with Image.open(moving.value.path()) as image:
            assert image.format == kind.upper()
            assert getattr(image, "n_frames", 1) > 3


# --- prompts -------------------------------------------------------------------------------------


def test_a_click_on_a_point_of_the_front_loads_its_prompt(dreamt: Notebook) -> None:
    box = view_of(dreamt).get_by_role("application", name=re.compile("^Prompts: activation"))
    box.scroll_into_view_if_needed()
    box.focus()
    box.press("End")
    # Found and measured at once: the rings are drawn anew with every picture.
    middle = dreamt.page.evaluate(
        """() => {
          const ring = [...document.querySelectorAll(".pc-front-over circle")].at(-1);
          const { x, y, width, height } = ring.getBoundingClientRect();
          return [x + width / 2, y + height / 2];
        }"""
    )
    dreamt.page.mouse.move(*middle)
    pointed = view_of(dreamt).locator(".pc-candidates tr[data-pointed]")
    key = int(pointed.get_attribute("data-key") or "0")
    front = dreamt.value("maximizer.front.to_dict('records')")
    found = next(each for each in front if each["candidate"] == key)
    truth = "pc.Session(model, torch.tensor({ids})).baseline.activation('L2.N7')[-1]"
    assert found["activation"] == pytest.approx(
        dreamt.value(f"float({truth.format(ids=found['ids'])})"), rel=1e-4, abs=1e-5
    )
    dreamt.page.mouse.down()
    dreamt.page.mouse.up()
    dreamt.until(f"session.ids.tolist() == {found['ids']}")
    dreamt.maximizer()
    assert pointed.get_attribute("data-loaded") is not None
    dreamt.page.keyboard.press("Control+z")
    dreamt.until("session.text == SENTENCE")
    # The same by keys alone.
    box.focus()
    box.press("End")
    box.press("Enter")
    dreamt.until(f"session.ids.tolist() == {found['ids']}")


def test_pointing_at_prompts_shows_them_and_moves_nothing(dreamt: Notebook) -> None:
    # Some fill more lines than others.
    dreamt.python("maximizer.dream(length=30, again=True)\nmaximizer.rivals('single')")
    dreamt.maximizer()
    view = view_of(dreamt)
    dreamt.resize(700)
    box = view.get_by_role("application", name=re.compile("^Prompts: activation"))
    box.focus()
    dreamt.maximizer()
    place = dreamt.place(box)
    shown = view.locator(".pc-optimised-prompt")
    seen = set()
    for key in ("Home", *["ArrowRight"] * 4, "End"):
        box.press(key)
        dreamt.maximizer()
        assert dreamt.place(box) == place
        seen.add(shown.inner_text())
    assert len(seen) > 3


def test_examples_are_shaded_on_one_scale_by_what_python_measures(dreamt: Notebook) -> None:
    view = view_of(dreamt)
    view.get_by_role("tab", name="examples").click()
    view.locator(".pc-examples-panel").get_by_role("button", name="measure the corpus").click()
    dreamt.maximizer()
    lines = view.locator(".pc-examples-panel .pc-example-text")
    assert lines.count() > 0
    top = dreamt.value("maximizer.on_corpus.groups[0].examples[0].activation")
    title = lines.first.locator(".pc-example-value").get_attribute("title") or ""
    assert float(title.replace("\N{MINUS SIGN}", "-")) == pytest.approx(top, rel=1e-4)
    shades = lines.first.locator(".pc-shaded").evaluate_all(
        "all => all.map(each => getComputedStyle(each).backgroundColor)"
    )
    assert len(set(shades)) > 2
    assert view.locator(".pc-examples-panel .pc-heat-bar").is_visible()


def test_a_search_starts_from_examples_that_are_measured_for_it(dreamt: Notebook) -> None:
    dreamt.python("maximizer.set_options(length=2, iterations=1)")
    dreamt.maximizer()
    view = view_of(dreamt)
    view.locator(".pc-options-button").click()
    view.get_by_label("What a search for prompts starts from").select_option("examples")
    go(dreamt).click()
    dreamt.until("session.aim.dreaming.start == 'examples'")
    dreamt.until("maximizer._last_search.status == 'done'")
    dreamt.maximizer()
    ends = "[one.ids[one.peak - 1 : one.peak + 1] for one in top if one.peak]"
    dreamt.python(f"top = maximizer.on_corpus.groups[0].examples\nends = {ends}")
    strongest = dreamt.value(
        "max(float(pc.Session(model, torch.tensor([model.bos_id, *ids])).baseline"
        ".activation('L2.N7')[-1]) for ids in ends)"
    )
    found = dreamt.value("maximizer.front.query('method == \"epo\"').activation.max()")
    assert found >= strongest - 1e-4 * abs(strongest)


def test_the_users_own_text_stands_on_the_same_axis(dreamt: Notebook) -> None:
    view = view_of(dreamt)
    box = view.get_by_role("textbox", name="Your own text")
    box.fill("the dog saw w5")
    box.press("Enter")
    dreamt.until("maximizer._own is not None")
    dreamt.maximizer()
    ids = "model.tokenizer('the dog saw w5')['input_ids']"
    truth = dreamt.value(
        f"float(pc.Session(model, 'the dog saw w5').baseline.activation('L2.N7')[1:].max())"
        f" if len({ids}) else None"
    )
    title = view.locator(".pc-own .pc-value").get_attribute("title") or ""
    assert float(title.replace("\N{MINUS SIGN}", "-")) == pytest.approx(truth, rel=1e-4, abs=1e-5)
    assert "your own" in view.locator(".pc-activation-axis").inner_text()


def test_whether_the_unit_matters_is_shown_beside_random_units(dreamt: Notebook) -> None:
    view = view_of(dreamt)
    view.get_by_role("tab", name="does it matter?").click()
    panel = view.locator(".pc-matter")
    panel.get_by_role("button", name="ablate it").click()
    dreamt.until("maximizer._matter is not None")
    dreamt.maximizer()
    bars = panel.locator(".pc-matter-line")
    shown = {}
    for line in bars.all():
        name = line.locator(".pc-ellipsis").inner_text()
        title = line.locator(".pc-number").get_attribute("title") or ""
        shown[name] = float(title.replace("\N{MINUS SIGN}", "-"))
    found = dreamt.value(
        "(lambda m: [m.unit.effect, [[c.address, c.effect] for c in m.controls]])"
        "(maximizer.matter())"
    )
    assert len(found[1]) >= 5
    for address, effect in [["L2.N7", found[0]], *found[1]]:
        assert shown[address] == pytest.approx(effect, rel=1e-4, abs=1e-9), address
    assert "KL" in panel.inner_text()


def test_the_sessions_stack_is_at_hand_and_searches_run_without_it(dreamt: Notebook) -> None:
    before = dreamt.value("maximizer.front.activation.tolist()")
    view = view_of(dreamt)
    strip = view.locator(".pc-session")
    assert "Nothing in the stack" in strip.inner_text()
    strip.get_by_role("button", name="hold L2.N7").click()
    dreamt.until("[str(i.site) for i in session.interventions] == ['L2.N7@-1']")
    row = strip.locator(".pc-row")
    box = row.locator(".pc-box")
    box.fill("4")
    box.press("Enter")
    dreamt.until("session.interventions[0].value == 4.0")
    dreamt.until("maximizer._effects is not None and maximizer._effects[0] == session.revision")
    dreamt.maximizer()
    assert "run on the model without these rows" in strip.inner_text()
    title = row.locator(".pc-effect").get_attribute("title") or ""
    said = re.match(r"Alone, this row changes the metric by (\S+)\.\n", title)
    assert said is not None
    effect = float(said[1].replace("\N{MINUS SIGN}", "-"))
    assert effect == pytest.approx(dreamt.value("maximizer.effects.effect[0]"), rel=1e-4)
    again = dreamt.value("maximizer.dream(iterations=4).activation.tolist()")
    assert again == before
    # Undo is the view's, of the session: a search is no step of it.
    box.blur()
    view.get_by_role("button", name="undo").click()
    dreamt.until("session.interventions[0].value != 4.0")


# --- beside others -------------------------------------------------------------------------------


def test_another_view_of_the_model_stays_usable_while_a_search_runs(notebook: Notebook) -> None:
    notebook.cells(*PROMPTS, "clamp = pc.NeuronClamp(session)\nclamp")
    notebook.run_all()
    notebook.maximizer()
    notebook.settled()
    notebook.python("maximizer.dream(iterations=100_000, restart=None, wait=False)")
    notebook.until("len(maximizer.front) > 1")
    generation = "maximizer._last_search.generation.front.iteration"
    for value in (4.0, -3.0):
        before = notebook.value(generation)
        if value > 0:
            notebook.add("L2.N7")
            notebook.row("L2.N7").wait_for()
        notebook.type_value("L2.N7", str(value))
        notebook.until(f"[each.value for each in session.interventions] == [{value}]")
        agrees(notebook)
        notebook.until(f"{generation} > {before}")
    assert notebook.value("maximizer._last_search.status") == "running"
    stop(notebook).click()
    notebook.until("maximizer._last_search.status == 'stopped'")
    notebook.maximizer()


def test_a_saved_page_draws_and_scrubs_without_kernel_and_network(
    seen: Notebook, chromium: Browser, served: Path
) -> None:
    seen.python("maximizer.climb(steps=40)\nmaximizer.to_html('maximizer.html')")
    context = chromium.new_context(viewport={"width": 1200, "height": 1400})
    asked: list[str] = []
    wrong: list[str] = []

    def refuse(route: Route) -> None:
        asked.append(route.request.url)
        route.abort()

    context.route(re.compile("^(http|ws)s?:"), refuse)
    drawn = """() => {
      const canvas = document.querySelector(".pc-optimised .pc-stimulus");
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
      return new Set(data).size > 3 ? [...data].join() : "";
    }"""
    try:
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda line: wrong.append(line.text) if line.type == "error" else None)
        page.goto((served / "maximizer.html").as_uri())
        page.wait_for_function(drawn)
        last = page.evaluate(drawn)
        assert "without a kernel" in page.locator(".pc-kernel").inner_text()
        assert page.locator(".pc-go").is_disabled()
        slider = page.get_by_role("slider", name="Step whose picture is shown")
        slider.focus()
        slider.press("Home")
        page.wait_for_function(f"last => ![last, ''].includes(({drawn})())", arg=last)
        assert "step 0" in page.locator(".pc-at-step").inner_text()
        assert asked == []
        assert wrong == []
    finally:
        context.close()


def test_nothing_outside_this_machine_was_asked_for(seen: Notebook) -> None:
    seen.python("maximizer.climb(steps=3)")
    seen.maximizer()
    assert seen.outside == []
    assert seen.broken() == []
