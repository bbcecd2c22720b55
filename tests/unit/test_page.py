"""A saved view: one file that draws in a browser with neither kernel nor network."""

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from patchclamp.interventions import Clamp
from patchclamp.session import Session
from patchclamp.views.neuron_clamp import NeuronClamp
from patchclamp.views.page import page
from tests.unit import tiny

CHROMIUM = shutil.which("chromium")
NASTY = "</script><script>window.broken = 1</script><!--<b>&amp;\u2028\"'"
BUNDLE = """
export default {
  initialize({ model }) { model.set("begun", true); },
  render({ model, el }) {
    const p = document.createElement("p");
    const changed = [];
    const onChange = () => changed.push(model.get("n"));
    model.on("change:n", onChange);
    model.set("n", 1);
    model.off("change:n", onChange);
    model.set("n", 2);
    model.save_changes();
    model.send({ kind: "hello", id: 1 });
    p.textContent = model.get("snapshot").text;
    p.dataset.changed = JSON.stringify(changed);
    p.dataset.live = String(model.get("live"));
    p.dataset.begun = String(model.get("begun"));
    el.append(p);
    // "</script>" in a bundle's own text is no end either.
  },
};
"""


class Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002
        self.tags.append(tag)


def written(text: str = NASTY) -> str:
    return page(
        bundle=BUNDLE,
        style="p::after { content: '</style><b>'; } p { color: rgb(1, 2, 3); }",
        traits={"snapshot": {"text": text}},
        title="<b>",
    )


def test_nothing_in_a_page_ends_its_element() -> None:
    elements = Elements()
    elements.feed(written())
    assert elements.tags.count("script") == 3
    assert "b" not in elements.tags
    assert elements.tags.count("style") == 1


def test_a_page_names_no_address_of_a_network() -> None:
    assert not re.search(r"https?://|//[a-z]+\.|@import|<link|src=", written("x"))


def test_what_was_put_in_is_what_is_read_out() -> None:
    found = re.search(r'id="traits">(.*?)</script>', written(), re.DOTALL)
    assert found is not None
    assert json.loads(found[1]) == {"snapshot": {"text": NASTY}}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("needs the system's chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-quic"]
        )
        yield browser
        browser.close()


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Page:
    file = tmp_path / "view.html"
    file.write_text(written(), encoding="utf-8")
    context = browser.new_context(offline=True)
    shown = context.new_page()
    asked: list[str] = []
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(file.as_uri())
    shown.wait_for_selector("#view > *")
    assert [url for url in asked if not url.startswith(("file:", "blob:"))] == []
    return shown


def test_a_page_draws_offline_with_token_text_as_text(opened: Page) -> None:
    assert opened.evaluate("document.querySelector('#view p').textContent") == NASTY
    assert opened.evaluate("window.broken") is None
    colour = "getComputedStyle(document.querySelector('#view p')).color"
    assert opened.evaluate(colour) == "rgb(1, 2, 3)"


def test_the_pages_host_is_a_widget_model_without_a_kernel(opened: Page) -> None:
    assert opened.evaluate("({ ...document.querySelector('#view p').dataset })") == {
        "changed": "[1]",
        "live": "undefined",
        "begun": "true",
    }


@pytest.mark.skipif(not hasattr(NeuronClamp, "_esm"), reason="the front end is not built")
def test_a_saved_clamp_shows_its_tokens_and_says_that_there_is_no_kernel(
    browser: Browser, tmp_path: Path
) -> None:
    session = Session(tiny.model("llama"), tiny.ids())
    session.interventions = [Clamp("L1.N5@-1", 3.0)]
    view = NeuronClamp(session)
    view.to_html(tmp_path / "clamp.html")
    view.close()
    shown = browser.new_context(offline=True).new_page()
    errors: list[str] = []
    shown.on("pageerror", lambda error: errors.append(str(error)))
    shown.on("console", lambda said: errors.append(said.text) if said.type == "error" else None)
    shown.goto((tmp_path / "clamp.html").as_uri())
    shown.get_by_text("L1.N5", exact=False).first.wait_for()
    text = shown.evaluate("document.body.innerText")
    assert "saved picture without a kernel" in text
    assert all(token.text in text for token in session.tokens)
    assert errors == []
