"""One line that says how far a download or conversion is, where a person is watching."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

Progress = Callable[[str, int, int], None]
"""Called with what is happening, how much is done, and of how much (0: not known)."""

BAR = 24
FRAME_S = 0.1


def quiet(_what: str, _done: int, _total: int) -> None:
    """Say nothing."""


def watched_stream() -> TextIO | None:
    """Where a person sees a line being redrawn: a terminal or a notebook; None elsewhere."""
    if sys.stderr is not None and sys.stderr.isatty():
        return sys.stderr
    # A notebook's own stream; asking for it would mean to import IPython.
    if type(sys.stdout).__module__.startswith("ipykernel"):
        return sys.stdout
    return None


@contextmanager
def bar(label: str) -> Iterator[Progress]:
    """A bar that redraws itself in a terminal or notebook, and nothing where nobody looks."""
    stream = watched_stream()
    if stream is None:
        yield quiet
        return
    started = last = 0.0
    current, width = "", 0

    def draw(what: str, done: int, total: int) -> None:
        nonlocal started, last, current, width
        now = time.monotonic()
        if what != current:
            started, current = now, what
        elif now - last < FRAME_S and done < total:
            return
        last = now
        line = f"{label}: {what} {_amount(done, total)} {now - started:.0f} s"
        stream.write("\r" + line.ljust(width))
        stream.flush()
        width = len(line)

    try:
        yield draw
    finally:
        if width:
            stream.write("\r" + " " * width + "\r")
            stream.flush()


def _amount(done: int, total: int) -> str:
    if not total:
        return "..."
    filled = min(BAR, BAR * done // total)
    blocks = f"[{'#' * filled}{'.' * (BAR - filled)}]"
    if total < 10_000:  # steps
        return f"{blocks} {done}/{total}"
    return f"{blocks} {done / 1e6:.0f} of {total / 1e6:.0f} MB"
