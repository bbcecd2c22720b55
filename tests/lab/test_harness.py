"""What the other tests here stand on: being at rest means it, and our own errors are seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchclamp.views.pace import RATE

if TYPE_CHECKING:
    from tests.lab.lab import Notebook

THROW = """async ({ where, code }) => {
  if (where === "blob") {
    const link = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    await import(link).catch(error => { Promise.reject(error); });
  } else setTimeout(code);
}"""


def test_at_rest_waits_for_what_a_slow_view_has_yet_to_say(notebook: Notebook) -> None:
    notebook.cells(
        "session = pc.Session(model, SENTENCE)", "clamp = pc.NeuronClamp(session)\nclamp"
    )
    notebook.run_all()
    notebook.settled()
    notebook.python(
        "outbox = clamp._outbox\n"
        "outbox._allowed = -1e6  # nothing may be said now\n"
        "session.input = 'a dog saw the cat'"
    )
    assert len(notebook.shown()["tokens"]) == 11
    notebook.python(
        "outbox._timer.cancel()\n"
        "outbox._timer = None\n"
        f"outbox._allowed, outbox._counted = {1 - RATE / 2}, time.monotonic()\n"
        "outbox._flush()  # in half a second"
    )
    notebook.settled()
    assert notebook.shown()["tokens"][1:] == ["a", "dog", "saw", "the", "cat"]


def test_at_rest_waits_for_what_the_page_is_about_to_ask(notebook: Notebook) -> None:
    notebook.cells(
        "session = pc.Session(model, SENTENCE)",
        "inspector = pc.AttentionInspector(session)\ninspector",
    )
    notebook.run_all()
    view = notebook.inspector()
    view.get_by_role("button", name="edit").first.click()
    # The page sends a typed text when the typing pauses.
    view.get_by_role("textbox", name="Prompt", exact=True).fill("a dog saw the cat")
    assert view.locator(".pc-prompts .pc-prompt .pc-chip").count() != 6
    notebook.inspector()
    assert notebook.value("session.text") == "a dog saw the cat"
    assert view.locator(".pc-prompts .pc-prompt .pc-chip").count() == 6


def test_an_error_in_a_views_code_is_seen_and_one_of_the_hosts_is_not_ours(
    notebook: Notebook,
) -> None:
    page = notebook.page
    before = len(notebook.broken())
    for code in ("setTimeout(() => { throw new Error('ours') })", "throw new Error('ours')"):
        with page.expect_event("pageerror"):
            page.evaluate(THROW, {"where": "blob", "code": code})
    with page.expect_event("pageerror"):
        page.evaluate(THROW, {"where": "host", "code": "throw new Error('theirs')"})
    found = notebook.broken()[before:]
    assert len(found) == 2
    assert all("ours" in line for line in found)
    # What this test threw is nobody else's error.
    notebook.said.clear()
