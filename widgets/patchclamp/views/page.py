"""A view as one HTML file that needs neither kernel nor network.

The file holds the view's bundle, its style and the snapshot of its last picture, and a host of a
few lines that stands where Jupyter's widget manager would. What needs the model says so there.
"""

import html
import json
from pathlib import Path
from typing import Any, Protocol

# The model that anywidget hands to `render`, over the saved traits. `send` leads nowhere: a saved
# page has no kernel, and says so by having no trait `live`.
_HOST = """\
const traits = JSON.parse(document.getElementById("traits").textContent);
const listeners = new Map();
const model = {
  get: name => traits[name],
  set: (name, value) => {
    traits[name] = value;
    for (const wanted of [`change:${name}`, "change"])
      for (const listener of listeners.get(wanted) ?? []) listener();
  },
  save_changes: () => {},
  on: (names, listener) => {
    for (const name of names.split(" "))
      listeners.set(name, (listeners.get(name) ?? new Set()).add(listener));
  },
  off: (names, listener) => {
    if (!names) return listeners.clear();
    for (const name of names.split(" "))
      listener ? listeners.get(name)?.delete(listener) : listeners.delete(name);
  },
  send: () => {},
};
const el = document.getElementById("view");
const source = JSON.parse(document.getElementById("bundle").textContent);
const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
const { signal } = new AbortController();
try {
  const { default: exported } = await import(url);
  const view = typeof exported === "function" ? await exported() : exported;
  await view.initialize?.({ model, signal });
  await view.render?.({ model, el, signal });
} catch (error) {
  el.append(`This saved view cannot be drawn here: ${error}`);
  throw error;
}
"""

_STYLE = """\
:root { color-scheme: light dark; }
body { margin: 16px; font: 13px system-ui, sans-serif; }
"""


class Pictured(Protocol):
    """What a view must have to become a page."""

    _esm: Any
    _css: Any
    snapshot: dict[str, Any]


def to_html(view: Pictured, path: str | Path | None = None, *, title: str = "patchclamp") -> str:
    """Make one self-contained page of a view's last picture.

    Args:
        view: the view; its `snapshot` is what the page draws.
        path: where to write the page too, UTF-8; None writes nothing.
        title: of the page, plain text.

    Returns:
        The page.
    """
    text = page(
        bundle=str(view._esm),  # noqa: SLF001 (anywidget's own names)
        style=str(view._css),  # noqa: SLF001
        traits={"snapshot": view.snapshot},
        title=title,
    )
    if path is not None:
        Path(path).write_text(text, encoding="utf-8")
    return text


def page(*, bundle: str, style: str, traits: dict[str, Any], title: str) -> str:
    """Put a bundle, its style and its traits into one page.

    The bundle and the traits are JSON in inert script elements in which no ``<`` is left, so that
    nothing in them, a token's text ``</script>`` for one, can end its element.
    """
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>
{_STYLE}{_inert_style(style)}
</style>
</head>
<body>
<div id="view"></div>
<script type="application/json" id="traits">{_inert_json(traits)}</script>
<script type="application/json" id="bundle">{_inert_json(bundle)}</script>
<script type="module">
{_HOST}</script>
</body>
</html>
"""


def _inert_json(value: object) -> str:
    """JSON that cannot end, or open, an HTML element; it reads back the same."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace(
        "<", "\\u003c"
    )


def _inert_style(style: str) -> str:
    # In CSS a backslash escape stands for the character only inside strings and names, which is
    # where "</style" could stand at all.
    return style.replace("</", "<\\/")
