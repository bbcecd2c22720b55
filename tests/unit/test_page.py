"""A saved view: one file that draws in a browser with neither kernel nor network."""

import json
import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from patchclamp.views.page import page

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
