"""The kernel's side of "at rest": asked by the harness, answered on the kernel's main thread.

What a view has to say leaves it from a gesture's handler, from the model's worker or from a timer.
A gesture is answered when its handler has ended, which the page knows. The other two are looked at
here; that nothing is left there, and that all that was sent before the answer to this question has
reached the page before it (both go through one channel), makes what the page shows next complete.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ipywidgets import Widget

from patchclamp.views.view import View

if TYPE_CHECKING:
    from patchclamp.engine.queue import Queue
    from patchclamp.views.pace import Settled


def at_rest() -> bool:
    """Whether no open view has anything more to say: nothing computes, no timer runs."""
    views = [widget for widget in Widget.widgets.values() if isinstance(widget, View)]
    queues = {view.session.engine.queue for view in views}
    # The picture for a saved page is nothing that an open one draws.
    saving = {view._rest_due for view in views}
    # Twice: work ends in timers and timers start work.
    return all(
        all(map(_is_idle, queues)) and not any(_says_something(t, saving) for t in _timers())
        for _ in range(2)
    )


def _is_idle(queue: Queue) -> bool:
    # A task counts as running until all that it calls when it is done has returned.
    with queue._changed:
        return queue._running is None and not queue._waiting


def _timers() -> list[threading.Timer]:
    return [thread for thread in threading.enumerate() if isinstance(thread, threading.Timer)]


def _says_something(timer: threading.Timer, saving: set[Settled]) -> bool:
    ours = timer.name == "patchclamp view"
    return ours and getattr(timer.function, "__self__", None) not in saving
