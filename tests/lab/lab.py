"""A real JupyterLab in a real Chromium, driven from Python.

Everything waits for a condition; nothing sleeps. Server and browser end by their process ids, on
SIGTERM too, and leave nothing behind but a temporary folder that pytest owns.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

from playwright.sync_api import sync_playwright

from patchclamp.models.store import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from playwright.sync_api import Browser, Locator, Page

BROWSER_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 60.0
"""Seconds that anything may take on two busy cores."""

_SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
        "doNotDisturbMode": True,
    },
    # A dialogue about what is not saved would stand between two tests.
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}
SHOWN = """view => {
  const number = text => Number(text.replace(/^.*: /, "").replace("\u2212", "-"));
  const all = (selector, read) => [...view.querySelectorAll(selector)].map(read);
  const visible = element => element.checkVisibility();
  return {
    rows: all(".pc-row", row => ({
      address: row.querySelector(".pc-address").textContent,
      op: row.dataset.op,
      value: "numeric" in row.dataset
        ? number(row.querySelector(".pc-box").title.replace(/ raw.*/s, "")) : null,
      positions: row.querySelector(".pc-at").value,
      muted: "muted" in row.dataset,
    })),
    tokens: all(".pc-chip-text", chip => chip.textContent),
    metric: {
      before: number(view.querySelector(".pc-before").title),
      after: number(view.querySelector(".pc-after").title),
    },
    next: Object.fromEntries(all(".pc-next tbody tr", line =>
      [line.dataset.token, number(line.querySelectorAll("td")[2].title)])),
    errors: [...view.querySelectorAll(".pc-error")].filter(visible)
      .map(error => error.textContent),
  };
}"""
"""JavaScript: what a view says, read off its DOM."""
_PANEL = "window.jupyterapp.shell.currentWidget"


class LabError(AssertionError):
    """What went wrong in the notebook or its server, with what it said."""


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def server(folder: Path, home: Path, *, pythonpath: Sequence[Path] = ()) -> Iterator[str]:
    """Run a JupyterLab server on 127.0.0.1.

    Args:
        folder: what it serves.
        home: a new folder for everything that it would keep in the user's own.
        pythonpath: folders that its kernels import from.

    Yields:
        Its address.
    """
    settings = home / "settings"
    for name, value in _SETTINGS.items():
        file = settings / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(value), encoding="utf-8")
    environment = {
        **os.environ,
        "HOME": str(home),
        "PATCHCLAMP_CACHE": str(cache_folder()),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_DATA_DIR": str(home / "data"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "PYTHONPATH": os.pathsep.join(
            [*map(str, pythonpath), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }
    port = _free_port()
    log = home / "server.log"
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root",
        "--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0",
        "--IdentityProvider.token=", "--ServerApp.password=",
        "--ServerApp.disable_check_xsrf=True", "--LabApp.expose_app_in_browser=True",
        f"--LabApp.user_settings_dir={settings}", f"--LabApp.workspaces_dir={home / 'workspaces'}",
        f"--ServerApp.root_dir={folder}",
    ]  # fmt: skip
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command, env=environment, stdout=sink, stderr=subprocess.STDOUT, start_new_session=True
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + PATIENCE
        while _get(f"{url}/api/status") is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise LabError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
            time.sleep(0.2)  # between two questions, not instead of one
        yield url
    finally:
        # A terminated server takes its kernels with it; whatever hangs goes with the group.
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)


def _get(url: str) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 (127.0.0.1 only)
            return bytes(answer.read())
    except (urllib.error.URLError, OSError):
        return None


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """Run the system's Chromium without a window."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        raise LabError("These tests need Chromium on the PATH (Debian: apt-get install chromium).")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(
            executable_path=found, headless=True, args=list(BROWSER_FLAGS)
        )
        try:
            yield running
        finally:
            running.close()


class Notebook:
    """A notebook that is open in JupyterLab, with its kernel.

    Args:
        page: a browser page that nothing else uses.
        url: the server.
    """

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.said: list[str] = []
        self.outside: list[str] = []
        page.set_default_timeout(1000 * PATIENCE)
        page.on("console", lambda line: self.said.append(f"{line.type}: {line.text}"))
        page.on("pageerror", lambda error: self.said.append(f"pageerror: {error.stack or error}"))
        page.on("request", lambda request: self._note(request.url))

    def _note(self, address: str) -> None:
        here = self.url.removeprefix("http")
        if not address.startswith((f"http{here}/", f"ws{here}/", "data:", "blob:")):
            self.outside.append(address)

    # --- the notebook -----------------------------------------------------------------------------

    def open(self, name: str) -> None:
        """Open a notebook of the served folder and wait for its kernel."""
        self.page.goto(f"{self.url}/lab/tree/{name}?reset", wait_until="domcontentloaded")
        self.page.wait_for_function("() => window.jupyterapp")
        self.page.evaluate("() => window.jupyterapp.restored")
        self.page.wait_for_function(f"() => {_PANEL}?.content?.model && {_PANEL}.sessionContext")
        self.page.evaluate(f"() => {_PANEL}.sessionContext.ready")
        # The view gets the whole window, as in a narrow and a wide one.
        self.page.evaluate("() => { window.jupyterapp.shell.collapseLeft(); }")
        self.wait_idle()

    def wait_idle(self) -> None:
        """Wait until the kernel has nothing to do."""
        self.page.wait_for_function(
            f"() => {_PANEL}.sessionContext.session?.kernel?.status === 'idle'"
        )

    def cells(self, *sources: str) -> None:
        """Replace all cells of the notebook; what they showed goes with them."""
        self.page.evaluate(
            f"""sources => {{
              const notebook = {_PANEL}.content.model.sharedModel;
              notebook.transact(() => {{
                notebook.deleteCellRange(0, notebook.cells.length);
                notebook.insertCells(0, sources.map(source => ({{
                  cell_type: "code", source, metadata: {{}}, outputs: [] }})));
              }});
            }}""",
            list(sources),
        )

    def run_all(self) -> None:
        """Run every cell; an error in one is an error here."""
        self.page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-all-cells')")
        failed = self.errors()
        if failed:
            raise LabError("\n".join(failed))

    def start_cell(self, index: int) -> None:
        """Run one cell without waiting for its end."""
        self.page.evaluate(
            f"""index => {{
              {_PANEL}.content.activeCellIndex = index;
              void window.jupyterapp.commands.execute('notebook:run-cell');
            }}""",
            index,
        )

    def run_cell(self, index: int) -> None:
        """Run one cell and wait for its end."""
        self.page.evaluate(
            f"""index => {{
              {_PANEL}.content.activeCellIndex = index;
              return window.jupyterapp.commands.execute('notebook:run-cell');
            }}""",
            index,
        )
        failed = self.errors()
        if failed:
            raise LabError("\n".join(failed))

    def errors(self) -> list[str]:
        """The errors that cells show, as name and sentence."""
        found: list[str] = self.page.evaluate(
            f"""() => [...{_PANEL}.content.model.cells].flatMap(cell =>
              (cell.outputs?.toJSON() ?? []).filter(o => o.output_type === "error")
                .map(o => `${{o.ename}}: ${{o.evalue}}`))"""
        )
        return found

    def broken(self) -> list[str]:
        """Errors that nobody caught in the code of our views, with their stacks.

        The host imports a widget's code from a blob; JupyterLab's own toolbars and menus now and
        then lose a race of theirs while cells are replaced, without any of our code in the stack.
        """
        return [line for line in self.said if line.startswith("pageerror") and "blob:" in line]

    def outputs(self) -> list[str]:
        """What each code cell printed and returned as text, without its widgets."""
        found: list[str] = self.page.evaluate(
            f"""() => [...{_PANEL}.content.model.cells].filter(cell => cell.type === "code")
              .map(cell => cell.outputs.toJSON()
                .filter(o => !o.data?.["application/vnd.jupyter.widget-view+json"])
                .map(o => [o.text ?? o.data?.["text/plain"] ?? ""].flat().join("")).join(""))"""
        )
        return found

    # --- the kernel, which has the truth ----------------------------------------------------------

    def python(self, code: str) -> str:
        """Run code in the notebook's kernel; what it printed."""
        answer: dict[str, str] = self.page.evaluate(
            f"""async code => {{
              const kernel = {_PANEL}.sessionContext.session.kernel;
              const future = kernel.requestExecute({{ code, store_history: false }});
              let out = "", error = "";
              future.onIOPub = message => {{
                if (message.header.msg_type === "stream" && message.content.name === "stdout")
                  out += message.content.text;
                if (message.header.msg_type === "error")
                  error = message.content.ename + ": " + message.content.evalue;
              }};
              await future.done;
              return {{ out, error }};
            }}""",
            code,
        )
        if answer["error"]:
            raise LabError(answer["error"])
        return answer["out"].strip()

    def send(self, code: str) -> None:
        """Run code in the kernel and wait for nothing."""
        self.page.evaluate(
            f"""code => {{
              const future = {_PANEL}.sessionContext.session.kernel.requestExecute({{ code }});
              future.done.catch(() => undefined);
            }}""",
            code,
        )

    def value(self, expression: str) -> Any:
        """A Python expression's value, by way of JSON."""
        return json.loads(self.python(f"import json; print(json.dumps({expression}))"))

    def until(self, condition: str) -> None:
        """Ask the kernel until a Python expression is true.

        A loop in the kernel would not do: while a cell computes without awaiting, no message
        from the page gets through.
        """
        deadline = time.monotonic() + PATIENCE
        while not self.value(f"bool({condition})"):
            if time.monotonic() > deadline:
                raise LabError(f"This never came true: {condition}")

    # --- the view ---------------------------------------------------------------------------------

    def view(self, index: int = 0) -> Locator:
        """One of the NeuronClamps that the notebook shows."""
        return self.page.locator(".pc-neuron-clamp").nth(index)

    def inspector(self, index: int = 0) -> Locator:
        """One of the AttentionInspectors, once it shows all there is: nothing waits or is stale."""
        self.page.wait_for_function(
            """index => {
              const view = document.querySelectorAll(".pc-attention-inspector")[index];
              return view?.querySelector(".pc-body:not([hidden])")
                && !view.hasAttribute("aria-busy") && !view.hasAttribute("data-stale")
                && !(view.querySelector(".pc-row") && view.querySelector("[data-old-effects]"));
            }""",
            arg=index,
        )
        return self.page.locator(".pc-attention-inspector").nth(index)

    def ablator(self, index: int = 0) -> Locator:
        """One of the CircuitAblators, once it shows all there is: nothing waits or is stale."""
        self.page.wait_for_function(
            """index => {
              const view = document.querySelectorAll(".pc-circuit-ablator")[index];
              return view?.querySelector(".pc-body:not([hidden])")
                && !view.hasAttribute("aria-busy") && !view.hasAttribute("data-stale")
                && !(view.querySelector(".pc-row") && view.querySelector("[data-old-effects]"));
            }""",
            arg=index,
        )
        return self.page.locator(".pc-circuit-ablator").nth(index)

    def settled(self, index: int = 0) -> Locator:
        """A view once it shows what it has to show: nothing computing, nothing stale."""
        view = self.view(index)
        view.locator(".pc-next tbody tr").first.wait_for()
        self.page.wait_for_function(
            """index => {
              const view = document.querySelectorAll(".pc-neuron-clamp")[index];
              return !view.hasAttribute("aria-busy") && !view.hasAttribute("data-stale")
                && !(view.querySelector(".pc-row") && view.querySelector("[data-old-effects]"))
                && [...view.querySelectorAll("[data-numeric] .pc-dose")].every(dose =>
                  dose.dataset.points === "25" && !("stale" in dose.dataset));
            }""",
            arg=index,
        )
        return view

    def shown(self, index: int = 0) -> dict[str, Any]:
        """What a view says, read off its DOM.

        Returns:
            rows (address, op, value, positions, muted), tokens, metric (before, after), next (token
            id to probability after), errors.
        """
        found: dict[str, Any] = self.view(index).evaluate(SHOWN)
        return found

    def add(self, address: str, index: int = 0) -> None:
        """Type an address into a view's box, as a user does."""
        box = self.view(index).get_by_role("combobox", name="Add a neuron by its address")
        box.fill(address)
        box.press("Enter")

    def row(self, address: str, index: int = 0) -> Locator:
        """A view's row of an address."""
        name = self.page.get_by_role("button", name=address, exact=True)
        return self.view(index).locator(".pc-row").filter(has=name)

    def type_value(self, address: str, text: str, index: int = 0) -> None:
        """Type into a row's number box."""
        box = self.row(address, index).locator(".pc-box")
        box.fill(text)
        box.press("Enter")

    def wait(self, condition: str, arg: Any = None) -> None:
        """Wait until a JavaScript function of the argument says true."""
        self.page.wait_for_function(condition, arg=arg)

    def theme(self, name: str) -> None:
        """Switch JupyterLab's theme: "Light" or "Dark"."""
        self.page.evaluate(
            """theme => window.jupyterapp.commands.execute("apputils:change-theme", { theme })""",
            f"JupyterLab {name}",
        )
        light = "true" if name == "Light" else "false"
        self.page.wait_for_selector(f'body[data-jp-theme-light="{light}"]', state="attached")
