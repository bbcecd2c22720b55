"""When something was painted, measured inside the page, for any tool alike.

A frame is painted when a message that the page posts to itself in the frame's first animation
callback arrives: the browser has drawn by then. A tool changes what is seen by changing the
document or by drawing on a canvas; both are noticed as they happen, and the frame that ends after
the first of them shows it.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from playwright.sync_api import Page

WATCH = """(() => {
  const bench = (window.bench = { received: 0 });

  // What the kernel sends comes through a socket, whichever tool it is for.
  const Socket = window.WebSocket;
  window.WebSocket = class extends Socket {
    constructor(...given) {
      super(...given);
      this.addEventListener("message", ({ data }) => {
        bench.received += data.byteLength ?? data.size ?? new Blob([data]).size;
      });
    }
  };

  // Changes: of the document, and of canvases.
  let root = null;
  let changed = false;
  const observer = new MutationObserver(() => { changed = true; });
  for (const name of ["clearRect", "drawImage", "fill", "fillRect", "fillText", "putImageData",
                      "stroke", "strokeRect"]) {
    const draw = CanvasRenderingContext2D.prototype[name];
    CanvasRenderingContext2D.prototype[name] = function (...given) {
      if (!changed && root !== null && root.contains(this.canvas)) changed = true;
      return draw.apply(this, given);
    };
  }

  // One call for each frame, once it is painted. This callback is the first of its frame: it asked
  // for it before anything that happened since the frame before.
  const readers = new Set();
  const painted = new MessageChannel();
  painted.port1.onmessage = () => {
    const now = performance.now();
    for (const reader of [...readers]) reader(now);
  };
  const tick = () => {
    requestAnimationFrame(tick);
    if (readers.size > 0) painted.port2.postMessage(null);
  };
  requestAnimationFrame(tick);

  const look = (element) => {
    root = element;
    changed = false;
    observer.disconnect();
    // What a canvas shows is what is drawn on it: its attributes change nothing that is seen.
    if (element.nodeName !== "CANVAS") observer.observe(element,
      { subtree: true, childList: true, characterData: true, attributes: true });
  };
  const rest = () => {
    root = null;
    observer.disconnect();
  };

  const CALM = 500;
  const GAP = 100;
  // The time at which what `drawn` asks for was on screen and the main thread had nothing more to
  // do: no frame within half a second after it was more than 100 ms late. And what had been sent.
  bench.settled = (drawn, calm = CALM) => new Promise((resolve) => {
    let last = performance.now();
    let since = null;
    let there = false;
    let received = 0;
    look(document.body);
    changed = true;
    const reader = (now) => {
      if (now - last > GAP) since = null;
      last = now;
      if (!there && changed) {
        there = drawn();
        changed = false;
        if (there) rest();
      }
      if (there && since === null) {
        since = now;
        received = bench.received;
      }
      if (since !== null && now - since >= calm) {
        readers.delete(reader);
        resolve([since, received]);
      }
    };
    readers.add(reader);
  });

  // From the next move of the mouse to the end of the first frame that shows a change of an
  // element; `shows` may ask for more of it, and what it says is kept.
  bench.hover = (element, shows = () => true) => {
    bench.hovered = new Promise((resolve, reject) => {
      setTimeout(() => reject(new Error("A move of the mouse was never seen.")), 120000);
      let began = null;
      const begin = (move) => {
        if (began === null) {
          began = move.timeStamp;
          look(element);
        }
      };
      // The first that a move gives, and what it gives when it stays in an element.
      for (const name of ["pointerover", "pointermove"])
        window.addEventListener(name, begin, { capture: true });
      const reader = (now) => {
        if (began === null || !changed) return;
        changed = false;
        const said = shows();
        if (!said) return;
        readers.delete(reader);
        rest();
        for (const name of ["pointerover", "pointermove"])
          window.removeEventListener(name, begin, { capture: true });
        resolve([now - began, said]);
      };
      readers.add(reader);
    });
  };

  // Whether a canvas holds a picture rather than one colour.
  bench.pictured = (canvas) => {
    if (!canvas || canvas.width < 2 || canvas.height < 2) return false;
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const words = new Uint32Array(data.buffer);
    const colours = new Set();
    for (let i = 0; i < words.length && colours.size < 16; i += 7) colours.add(words[i]);
    return colours.size >= 16;
  };

  // Milliseconds of one display frame.
  bench.frame = () => new Promise((resolve) => {
    const times = [];
    const next = (time) => {
      times.push(time);
      if (times.length < 61) requestAnimationFrame(next);
      else resolve((times[60] - times[0]) / 60);
    };
    requestAnimationFrame(next);
  });
})()"""
"""For ``page.add_init_script``: everything below needs it."""


@dataclass(frozen=True)
class Shown:
    """A picture that is on screen.

    Attributes:
        seconds: until it was, and the page had nothing more to do.
        received: bytes that the kernel had sent by then.
    """

    seconds: float
    received: int


@dataclass(frozen=True)
class Move:
    """A move of the mouse and the frame that showed it.

    Attributes:
        milliseconds: from the one to the end of the other.
        said: what `shows` said of the frame.
    """

    milliseconds: float
    said: Any


def settled(page: Page, drawn: str, act: str, cap: float) -> Shown | None:
    """Do something and measure until the page shows it and has nothing more to do.

    Args:
        page: a page with :data:`WATCH`.
        drawn: JavaScript, an expression that is true once the picture is there.
        act: JavaScript, a statement that starts it.
        cap: seconds after which to give up: None.
    """
    found: list[float] | None = page.evaluate(
        f"""async () => {{
          const [began, before] = [performance.now(), bench.received];
          const late = new Promise((resolve) => setTimeout(() => resolve(null), {1000 * cap}));
          {act};
          const then = await Promise.race([bench.settled(() => {drawn}), late]);
          return then === null ? null : [then[0] - began, then[1] - before];
        }}"""
    )
    return None if found is None else Shown(found[0] / 1000, int(found[1]))


def calm(page: Page, milliseconds: int = 200) -> None:
    """Wait until the page has had nothing to do for a while."""
    page.evaluate("calm => bench.settled(() => true, calm)", milliseconds)


def moves(
    page: Page,
    element: str,
    places: Iterable[tuple[float, float]],
    *,
    shows: str = "true",
    cap: float,
    least: int = 3,
) -> list[Move]:
    """Move the real mouse from place to place, each time until the page shows it.

    Args:
        page: a page with :data:`WATCH`.
        element: JavaScript, an expression: the element that will change, or the canvas.
        places: x and y of each move, in the window; the first only brings the mouse there.
        shows: JavaScript, an expression that must be true of the frame too.
        cap: seconds after which no further move is made, once there are some.
        least: how many they must be.
    """
    first, *others = places
    page.mouse.move(*first)
    made: list[Move] = []
    began = time.monotonic()
    for place in others:
        calm(page)
        page.evaluate(f"() => {{ bench.hover({element}, () => {shows}); }}")
        page.mouse.move(*place)
        milliseconds, said = page.evaluate("() => bench.hovered")
        made.append(Move(milliseconds, said))
        if time.monotonic() - began > cap and len(made) >= least:
            break
    return made
