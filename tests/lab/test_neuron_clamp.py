"""NeuronClamp in JupyterLab, on tiny random models: what a hand does, Python sees, and back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import TimeoutError as TimedOut

from tests.lab.lab import PATIENCE, SHOWN

if TYPE_CHECKING:
    from tests.lab.lab import Notebook

SESSION = "session = pc.Session(model, SENTENCE)"
SHOW = "clamp = pc.NeuronClamp(session)\nclamp"
METRIC = "float(session.current.log_probs()[session.target])"
STATE = "[[str(i) for i in session.interventions], session.text, session.revision]"


@pytest.fixture
def clamp(notebook: Notebook) -> Notebook:
    """The notebook with one view, nothing clamped."""
    notebook.cells(SESSION, SHOW)
    notebook.run_all()
    notebook.settled()
    return notebook


def truth(notebook: Notebook) -> float:
    """The metric under the stack, as Python says it."""
    return float(notebook.value(METRIC))


def agrees(notebook: Notebook, index: int = 0) -> None:
    """A view comes to show the session's stack and the metric of exactly that stack."""
    same = f"""([index, rows, after]) => {{
      const shown = ({SHOWN})(document.querySelectorAll(".pc-neuron-clamp")[index]);
      const close = (a, b) => a === b || Math.abs(a - b) <= 1e-5 * Math.abs(b);
      return shown.rows.length === rows.length && close(shown.metric.after, after)
        && shown.rows.every((row, i) => row.address === rows[i][0]
          && row.positions === rows[i][1] && row.muted === rows[i][2]
          && close(row.value, rows[i][3]));
    }}"""
    rows = "[i.site.address, str(i.site.positions), i.muted, i.value]"
    deadline = time.monotonic() + PATIENCE
    while True:
        # A gesture may be on its way: what Python says now need not be its last word.
        said = notebook.value(f"[[{rows} for i in session.interventions], {METRIC}]")
        try:
            notebook.page.wait_for_function(same, arg=[index, *said], timeout=5000)
        except TimedOut:
            if time.monotonic() > deadline:
                shown = notebook.shown(index)
                assert [shown["rows"], shown["metric"]["after"]] == said
        else:
            return


def test_a_neuron_typed_and_given_a_number_is_clamped_in_python_too(clamp: Notebook) -> None:
    before = truth(clamp)
    clamp.add("L2.N7")
    clamp.row("L2.N7").wait_for()
    clamp.type_value("L2.N7", "9")
    clamp.wait("() => document.querySelector('.pc-slider').value === '9'")
    agrees(clamp)
    assert clamp.python("print(clamp.interventions)") == "(Clamp('L2.N7@-1', 9.0),)"
    assert abs(truth(clamp) - before) > 1e-3


def test_every_change_from_python_moves_the_view(clamp: Notebook) -> None:
    changes = [
        "session.interventions = [pc.Clamp('L1.N3@-1', 2.5), pc.Scale('L2.N7', 0.5)]",
        "clamp.set_value('L1.N3', -4.0)",
        "clamp.set_positions('L2.N7', '-1')",
        "clamp.mute('L1.N3')",
        "clamp.move('L2.N7', 0)",
        "session.undo()",
        "session.redo()",
        "session.input = 'a dog saw the cat'",
        "session.metric = pc.LogProb('dog')",
        "clamp.remove('L2.N7')",
        "session.add(pc.Ablate('L3.H1', how='zero'))",
        "clamp.reset()",
    ]
    for change in changes:
        clamp.python(change)
        agrees(clamp)
    clamp.settled()
    assert clamp.shown()["rows"] == []
    assert clamp.shown()["tokens"][1:] == ["a", "dog", "saw", "the", "cat"]


def test_two_displays_and_a_second_view_of_a_session_agree(notebook: Notebook) -> None:
    notebook.cells(SESSION, SHOW, "clamp", "second = pc.NeuronClamp(session)\nsecond")
    notebook.run_all()
    for index in range(3):
        notebook.settled(index)
    notebook.add("L2.N7", 0)
    for index in range(3):
        notebook.row("L2.N7", index).wait_for()
    notebook.type_value("L2.N7", "-6", 1)
    notebook.wait("() => [...document.querySelectorAll('.pc-slider')].every(s => s.value === '-6')")
    for index in range(3):
        agrees(notebook, index)
    notebook.row("L2.N7", 2).get_by_role("button", name="Remove L2.N7").click()
    notebook.until("len(session.interventions) == 0")
    for index in range(3):
        notebook.settled(index)
        assert notebook.shown(index)["rows"] == []


def test_a_result_that_arrives_late_never_overwrites_a_newer_one(clamp: Notebook) -> None:
    clamp.python("clamp.add('L2.N7', value=3.0)")
    clamp.settled()
    clamp.python("from patchclamp.views import messages as say\nold = clamp._result")
    clamp.python("clamp.set_value('L2.N7', -8.0)")
    clamp.settled()
    agrees(clamp)
    shown = clamp.shown()
    # The old result, then an error that is of now: once that is seen, the old one was there.
    clamp.python(
        "clamp._transmit(say.ResultUpdate(revision=old[0], result=old[1]))\n"
        "clamp._transmit(say.Status(busy=False, what='', error='SEEN', revision=session.revision))"
    )
    clamp.view().get_by_text("SEEN").wait_for()
    assert clamp.shown()["metric"] == shown["metric"]
    assert clamp.shown()["next"] == shown["next"]
    assert clamp.value("old[1].metric.after") != pytest.approx(shown["metric"]["after"], abs=1e-4)


def test_what_is_shown_during_many_fast_edits_only_goes_forward(clamp: Notebook) -> None:
    clamp.python("clamp.add('L2.N7', value=0.0)")
    clamp.settled()
    clamp.page.evaluate(
        """() => {
          window.seen = [];
          const after = document.querySelector(".pc-after");
          new MutationObserver(() => window.seen.push(
            Number(after.title.replace("after: ", "").replace("\\u2212", "-"))
          )).observe(after, { attributes: true, attributeFilter: ["title"] });
        }"""
    )
    clamp.python(
        "computed = []\n"
        "session.observe(lambda change: None)\n"
        "show = clamp._show_result\n"
        "clamp._show_result = lambda found: (computed.append((found[0], found[1].metric.after)),"
        " show(found))\n"
        "for i in range(30): clamp.set_value('L2.N7', i / 4); time.sleep(0.005)"
    )
    clamp.wait("() => document.querySelector('.pc-slider').value === '7.25'")
    agrees(clamp)
    clamp.python("for i in range(30, 60): clamp.set_value('L2.N7', i / 4); time.sleep(0.005)")
    clamp.wait("() => document.querySelector('.pc-slider').value === '14.75'")
    agrees(clamp)
    clamp.settled()
    computed = clamp.value("computed")
    seen = clamp.page.evaluate("() => window.seen")
    revisions = [revision for revision, _ in computed]
    assert revisions == sorted(revisions)
    assert 1 < len(seen) <= len(computed)
    order = [min(range(len(computed)), key=lambda i: abs(computed[i][1] - s)) for s in seen]
    assert order == sorted(order)
    assert order[-1] == len(computed) - 1


def test_an_awaiting_cell_does_not_kill_the_controls(notebook: Notebook) -> None:
    # The cell goes on only when a gesture has reached Python while it awaits.
    waits = (
        "seen = session.revision\n"
        "print('waiting')\n"
        "deadline = time.monotonic() + 60\n"
        "while session.revision == seen and time.monotonic() < deadline:\n"
        "    await asyncio.sleep(0.05)\n"
        "print('moved' if session.revision > seen else 'dead')"
    )
    notebook.cells(SESSION, SHOW, waits)
    notebook.run_cell(0)
    notebook.run_cell(1)
    notebook.settled()
    notebook.add("L2.N7")
    notebook.row("L2.N7").wait_for()
    notebook.start_cell(2)
    said = "text => [...document.querySelectorAll('pre')].some(e => e.textContent.includes(text))"
    notebook.wait(said, "waiting\n")
    notebook.type_value("L2.N7", "5")
    notebook.wait(said, "moved\n")
    notebook.wait_idle()
    notebook.type_value("L2.N7", "-5")
    notebook.wait("() => document.querySelector('.pc-slider').value === '-5'")
    agrees(notebook)
    assert notebook.value("session.interventions[0].value") == -5.0


def test_stop_ends_a_long_sweep_and_the_next_gesture_works(notebook: Notebook) -> None:
    notebook.cells(
        "ids = torch.arange(250) % 60 + 3\nsession = pc.Session(slow(), ids, reference=[ids[:8]])",
        SHOW,
    )
    notebook.run_all()
    notebook.view().locator(".pc-next tbody tr").first.wait_for()
    notebook.python(
        "from tests.lab.tiny_model import slower\n"
        "waits = slower(session)\n"
        "waits.__enter__()\n"
        "clamp.add('L2.N7', value=3.0)"
    )
    sweep = notebook.row("L2.N7").locator(".pc-dose .pc-run")
    sweep.wait_for(state="visible")
    started = notebook.value("time.monotonic()")
    notebook.view().get_by_role("button", name="stop", exact=True).first.click()
    sweep.wait_for(state="hidden")
    notebook.wait("() => !document.querySelector('.pc-neuron-clamp').hasAttribute('aria-busy')")
    ended = notebook.value("time.monotonic()")
    points = notebook.value("[len(entry.curve.values) for entry in clamp._curves.values()]")
    assert points < [25], "the sweep ran to its end"
    assert ended - started < 10
    notebook.python("waits.__exit__(None, None, None)")
    notebook.type_value("L2.N7", "-4")
    notebook.wait("() => document.querySelector('.pc-slider').value === '-4'")
    agrees(notebook)


def test_the_reset_key_empties_the_stack_and_ctrl_z_brings_it_back(clamp: Notebook) -> None:
    clamp.python("session.interventions = [pc.Clamp('L1.N3@-1', 2.5), pc.Scale('L2.N7', 0.5)]")
    clamp.settled()
    clamp.row("L2.N7").locator(".pc-mute").focus()
    clamp.page.keyboard.press("r")
    clamp.until("len(session.interventions) == 0")
    clamp.settled()
    assert clamp.shown()["rows"] == []
    clamp.page.keyboard.press("Control+z")
    clamp.until("len(session.interventions) == 2")
    clamp.settled()
    assert [row["address"] for row in clamp.shown()["rows"]] == ["L1.N3", "L2.N7"]
    panel = "window.jupyterapp.shell.currentWidget"
    kinds = clamp.page.evaluate(f"() => [...{panel}.content.model.cells].map(cell => cell.type)")
    assert kinds == ["code", "code"], "a key reached the notebook"


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("L2.X7", "L2.X7"),
        ("L99.N7", "layer"),
        ("L2.N9999", "9999"),
        ("L2.N7@40", "40"),
    ],
)
def test_a_wrong_address_is_a_sentence_beside_the_box(
    clamp: Notebook, address: str, said: str
) -> None:
    before = clamp.value(STATE)
    clamp.add(address)
    error = clamp.view().locator(".pc-picker .pc-error")
    error.wait_for(state="visible")
    assert said in error.inner_text()
    assert error.inner_text().rstrip().endswith((".", "?"))
    assert clamp.value(STATE) == before
    clamp.add("L2.N7")
    clamp.row("L2.N7").wait_for()
    error.wait_for(state="hidden")
    agrees(clamp)


@pytest.mark.parametrize("typed", ["NaN", "Infinity", "1e999", "eight"])
def test_a_value_that_is_no_finite_number_is_refused(clamp: Notebook, typed: str) -> None:
    clamp.add("L2.N7")
    clamp.row("L2.N7").wait_for()
    clamp.type_value("L2.N7", "3")
    clamp.until("[i.value for i in session.interventions] == [3]")
    before = clamp.value(STATE)
    clamp.type_value("L2.N7", typed)
    error = clamp.row("L2.N7").locator(".pc-error")
    error.wait_for(state="visible")
    assert typed in error.inner_text()
    assert clamp.value(STATE) == before
    clamp.type_value("L2.N7", "4")
    clamp.wait("() => document.querySelector('.pc-slider').value === '4'")
    error.wait_for(state="hidden")
    agrees(clamp)


@pytest.mark.parametrize(("text", "said"), [("", "empty"), ("the cat " * 40, "at most 64")])
def test_a_prompt_that_is_empty_or_too_long_is_refused(
    clamp: Notebook, text: str, said: str
) -> None:
    before = clamp.value(STATE)
    tokens = clamp.shown()["tokens"]
    clamp.view().get_by_role("button", name="edit", exact=True).click()
    box = clamp.view().get_by_role("textbox", name="Prompt")
    box.fill(text)
    box.press("Enter")
    error = clamp.view().locator(".pc-prompt .pc-error")
    error.wait_for(state="visible")
    assert said in error.inner_text()
    assert clamp.value(STATE) == before
    assert clamp.shown()["tokens"] == tokens
    box.fill("a dog saw the cat")
    box.press("Enter")
    clamp.wait("() => document.querySelectorAll('.pc-chip').length === 6")
    agrees(clamp)


def test_junk_gets_a_refusal_and_changes_nothing(clamp: Notebook) -> None:
    clamp.python(
        "refused = []\n"
        "refuse = clamp._refuse\n"
        "clamp._refuse = lambda *args: (refused.append(args), refuse(*args))"
    )
    before = clamp.value(STATE)
    # A message of 10 MiB would drop the page's websocket before it reached us; 9 MB gets through.
    sent = clamp.page.evaluate(
        """async ident => {
          const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
          const comm = kernel._comms.get(ident);
          const junk = "x".repeat(9_000_000);
          const contents = [
            { kind: "edit", id: 1, key: 0, junk }, { kind: junk, id: 2 }, { kind: "reboot", id: 3 },
            { kind: "edit", id: 4, key: "0", value: "much" }, { id: 5 }, junk, 7, null, [],
          ];
          for (const content of contents)
            await comm.send({ method: "custom", content }, {}, []).done;
          return contents.length;
        }""",
        clamp.value("clamp.model_id"),
    )
    clamp.until(f"len(refused) >= {sent}")
    refused = clamp.value("refused")
    assert len(refused) == sent
    assert all(0 < len(sentence) < 1000 for _, sentence, _ in refused)
    assert clamp.value(STATE) == before
    clamp.add("L2.N7")
    clamp.row("L2.N7").wait_for()
    agrees(clamp)


def test_a_tokens_text_is_text(clamp: Notebook) -> None:
    clamp.python("session.input = f'the cat {SCRIPT} sat'")
    clamp.settled()
    assert len(clamp.shown()["tokens"]) == 5
    assert "<script>window.taken=1</script>" in clamp.shown()["tokens"]
    assert clamp.page.evaluate("() => window.taken ?? null") is None
    assert clamp.view().locator("script").count() == 0


def test_running_the_cell_again_leaks_no_view_no_worker_and_no_hook(notebook: Notebook) -> None:
    count = """
# The worker leaves when it has had nothing to do for a while.
session.submit(lambda should_stop: None).result()
gc.collect()
counts = [
    sum(isinstance(o, pc.NeuronClamp) and not o._closed for o in gc.get_objects()),
    len(session._observers),
    sum(t.name.startswith("patchclamp") for t in threading.enumerate()),
    sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.bridge.modules()),
    sum(len(h.fwd_hooks) + len(h.bwd_hooks) for h in model.bridge.hook_dict.values()),
]
"""
    # A view's timers are threads too; none of them lasts.
    no_timer = "not any(isinstance(each, threading.Timer) for each in threading.enumerate())"
    notebook.cells(SESSION, SHOW)
    notebook.run_all()
    notebook.python("session.add(pc.Clamp('L2.N7@-1', 3.0))")
    notebook.settled()
    notebook.until(no_timer)
    notebook.python(count)
    once = notebook.value("counts")
    for _ in range(3):
        notebook.run_cell(1)
        notebook.settled()
    notebook.until(no_timer)
    notebook.python(count)
    again = notebook.value("counts")
    assert again[:2] == [1, 1]
    assert again[2] <= once[2]
    assert again[3:] == once[3:]
    assert notebook.page.locator(".pc-neuron-clamp").count() == 1


def test_nothing_outside_this_machine_is_asked_for(clamp: Notebook) -> None:
    clamp.python("clamp.add('L2.N7', value=3.0)")
    clamp.settled()
    assert clamp.outside == []
    assert clamp.broken() == []
