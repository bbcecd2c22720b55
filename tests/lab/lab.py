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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from playwright.sync_api import sync_playwright

from patchclamp.models.store import cache_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from playwright.sync_api import Browser, ConsoleMessage, Locator, Page

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
_ROOT = Path(__file__).resolve().parents[2]
_SPY = """() => {
  const spy = window.pcSpy = { moved: 0, asked: new Map(), timers: new Map() };
  const { setTimeout: start, clearTimeout: end } = window;
  // A pause after which a view goes on by itself; what is longer only tidies up.
  window.setTimeout = (act, after, ...rest) => {
    if (typeof act !== "function" || after > 1000 || !new Error().stack.includes("blob:"))
      return start(act, after, ...rest);
    const timer = start((...each) => { spy.timers.delete(timer); act(...each); }, after, ...rest);
    spy.timers.set(timer, after);
    return timer;
  };
  window.clearTimeout = timer => { spy.timers.delete(timer); end(timer); };
  spy.listen = kernel => kernel.anyMessage.connect((_, { msg, direction }) => {
    const { method, content } = msg.header.msg_type === "comm_msg" ? msg.content.data : {};
    if (method !== "custom") return;
    spy.moved += 1;
    if (direction === "send" && content?.id !== undefined) spy.asked.set(content.id, content.kind);
    if (direction === "recv" && content.kind === "reply") spy.asked.delete(content.id);
  });
  spy.run = async code => {
    const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
    const future = kernel.requestExecute({ code, store_history: false });
    let out = "", error = "";
    future.onIOPub = message => {
      if (message.header.msg_type === "stream" && message.content.name === "stdout")
        out += message.content.text;
      if (message.header.msg_type === "error")
        error = message.content.ename + ": " + message.content.evalue;
    };
    await future.done;
    return { out, error };
  };
}"""
"""JavaScript: counts what goes between the views of a page and their kernel, and what waits."""
_AT_REST = """async ([selector, index, seconds], isShown) => {
  const { pcSpy: spy } = window;
  const frame = () => new Promise(done => requestAnimationFrame(done));
  const there = () => document.querySelectorAll(selector)[index];
  const quiet = () => spy.asked.size === 0 && spy.timers.size === 0;
  const ask = "from tests.lab import rest as _rest; print(_rest.at_rest())";
  const end = performance.now() + 1000 * seconds;
  let kernel = "was not asked";
  while (performance.now() < end) {
    await frame();
    if (!there() || !isShown(there()) || !quiet()) continue;
    const before = spy.moved;
    // All that was sent before the answer is there before the answer.
    const { out, error } = await spy.run(ask);
    if (error) throw new Error(error);
    kernel = out.trim() === "True" ? "is at rest" : "is at work";
    if (kernel === "is at work") {
      await new Promise(done => setTimeout(done, 30)); // between two questions
      continue;
    }
    // It is painted in the next frame; what observes sizes follows in the one after.
    await frame();
    await frame();
    if (there() && isShown(there()) && quiet() && spy.moved === before) return;
  }
  const view = there();
  const marks = [...view?.attributes ?? []].map(each => `${each.name}="${each.value}"`);
  throw new Error(`${view ? "Never at rest" : "Not there"}: ${marks.join(" ")}; unanswered: `
    + `${[...spy.asked.values()]}; pauses: ${[...spy.timers.values()]}; the kernel ${kernel}.`);
}"""
"""JavaScript: waits until a view shows all that its kernel knows, and neither has more to say."""
_FRESH = """view => view.querySelector(".pc-body:not([hidden])")
  && !view.hasAttribute("aria-busy") && !view.hasAttribute("data-stale")
  && !(view.querySelector(".pc-row") && view.querySelector("[data-old-effects]"))"""
_FRESH_WITH_CURVES = f"""view => ({_FRESH})(view) && view.querySelector(".pc-next tbody tr")
  && [...view.querySelectorAll("[data-numeric] .pc-dose")].every(dose =>
    dose.dataset.points === "25" && !("stale" in dose.dataset))"""


class LabError(AssertionError):
    """What went wrong in the notebook or its server, with what it said."""


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def server(folder: Path, home: Path, *, pythonpath: Sequence[Path] = ()) -> Iterator[str]:
    """Run a JupyterLab server on 127.0.0.1, whose kernels can import these tests.

    Args:
        folder: what it serves.
        home: a new folder for everything that it would keep in the user's own.
        pythonpath: folders besides that its kernels import from.

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
            [*map(str, (_ROOT, *pythonpath)), *filter(None, [os.environ.get("PYTHONPATH")])]
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

    Attributes:
        patience: seconds that anything may take.
    """

    def __init__(self, page: Page, url: str, *, patience: float = PATIENCE) -> None:
        self.page = page
        self.url = url
        self.patience = patience
        self.said: list[str] = []
        self.outside: list[str] = []
        page.set_default_timeout(1000 * patience)
        page.add_init_script(f"({_SPY})()")
        # What moves to its new place in 120 ms is somewhere else meanwhile.
        page.emulate_media(reduced_motion="reduce")
        page.on("console", self._note_line)
        page.on("pageerror", lambda error: self.said.append(f"pageerror: {error.stack or error}"))
        page.on("request", lambda request: self._note(request.url))

    def _note_line(self, line: ConsoleMessage) -> None:
        self.said.append(f"{line.type}: {line.text} ({line.location['url']})")

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
        self.page.evaluate(f"() => window.pcSpy.listen({_PANEL}.sessionContext.session.kernel)")
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
              // Who asked for these is gone.
              window.pcSpy.asked.clear();
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
        """Errors of our views' code that nobody caught or that were logged, with their stacks.

        The host imports a widget's code from a blob, and anywidget logs what a view fails with
        while it starts. JupyterLab's own toolbars and menus now and then lose a race of theirs
        while cells are replaced, without any of our code in the stack.
        """
        wrong = [line for line in self.said if line.startswith(("pageerror", "error"))]
        return [line for line in wrong if "blob:" in line or "anywidget" in line]

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
        answer: dict[str, str] = self.page.evaluate("code => window.pcSpy.run(code)", code)
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
        deadline = time.monotonic() + self.patience
        while not self.value(f"bool({condition})"):
            if time.monotonic() > deadline:
                said = self.page.evaluate(
                    """() => [...document.querySelectorAll(".pc-error, .pc-status")]
                      .filter(each => each.checkVisibility()).map(each => each.textContent)
                      .concat([...window.pcSpy.asked.values()]).filter(each => each)"""
                )
                raise LabError(f"This never came true: {condition}; the page says {said}")

    # --- the view ---------------------------------------------------------------------------------

    def view(self, index: int = 0) -> Locator:
        """One of the NeuronClamps that the notebook shows."""
        return self.page.locator(".pc-neuron-clamp").nth(index)

    def settled(self, index: int = 0) -> Locator:
        """One of the NeuronClamps at rest, with the curves of all its rows."""
        return self._at_rest(".pc-neuron-clamp", index, _FRESH_WITH_CURVES)

    def inspector(self, index: int = 0) -> Locator:
        """One of the AttentionInspectors, at rest."""
        return self._at_rest(".pc-attention-inspector", index, _FRESH)

    def ablator(self, index: int = 0) -> Locator:
        """One of the CircuitAblators, at rest."""
        return self._at_rest(".pc-circuit-ablator", index, _FRESH)

    def maximizer(self, index: int = 0) -> Locator:
        """One of the ActivationMaximizers, at rest: nothing is optimised."""
        return self._at_rest(".pc-activation-maximizer", index, _FRESH)

    def atlas(self, index: int = 0) -> Locator:
        """One of the NeuronAtlases, at rest; its plot may still be made."""
        return self._at_rest(".pc-neuron-atlas", index, _FRESH)

    def _at_rest(self, selector: str, index: int, shown: str) -> Locator:
        """A view once it shows all that its kernel knows, and neither has more to say.

        That nothing is marked as busy is not enough: between a change in the kernel and the page's
        hearing of it nothing is busy yet. So the kernel is asked whether it is at rest; when it
        says so and meanwhile nothing was sent in either direction, what is painted next is all.
        """
        rest = f"args => ({_AT_REST})(args, {shown})"
        self.page.evaluate(rest, [selector, index, self.patience])
        return self.page.locator(selector).nth(index)

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

    @staticmethod
    def place(element: Locator) -> list[float]:
        """Where an element stands in its view, wherever that is scrolled to: x, y and sizes."""
        found: list[float] = element.evaluate(
            """element => {
              const own = element.getBoundingClientRect();
              const view = element.closest(".pc").getBoundingClientRect();
              return [own.x - view.x, own.y - view.y, own.width, own.height].map(Math.round);
            }"""
        )
        return found

    def resize(self, width: int, height: int = 1400) -> None:
        """Give the page another size, and wait until it has it."""
        self.page.set_viewport_size({"width": width, "height": height})
        self.wait("size => innerWidth === size[0] && innerHeight === size[1]", [width, height])

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
        # The attribute changes before the theme's style sheet is there.
        self.page.wait_for_function(
            """light => {
              if (document.body.dataset.jpThemeLight !== light) return false;
              const probe = document.body.appendChild(document.createElement("i"));
              probe.style.backgroundColor = "var(--jp-layout-color1)";
              const [red] = getComputedStyle(probe).backgroundColor.match(/[0-9]+/g).map(Number);
              probe.remove();
              return light === "true" ? red > 200 : red < 80;
            }""",
            arg=light,
        )
