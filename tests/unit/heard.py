"""A view without a page: what it sends is kept, and gestures arrive as the comm brings them."""

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

import pytest

from patchclamp.engine.queue import Task
from patchclamp.views.pace import Outbox, Settled
from patchclamp.views.transport import unpack
from patchclamp.views.view import Observable, View

if TYPE_CHECKING:
    from types import FrameType

Message = dict[str, Any]

PATIENCE = 120.0
"""Seconds that anything may take on a machine that has much else to do."""


class Hears(View):
    """Mixed into the real view, whose messages to the page are kept instead of sent nowhere."""

    heard: list[Message]
    ids: Iterator[int]

    _esm = "export default { render() {} };\n"
    _css = "\n"

    def __init__(self, *args: Any, **options: Any) -> None:
        self.heard = []
        self.ids = iter(range(1, 10_000))
        super().__init__(*args, **options)

    def send(self, content: Any, buffers: Any = None) -> None:
        self.heard.append(unpack(json.loads(json.dumps(content)), buffers or []))

    def say(self, kind: str, **fields: Any) -> int:
        """A gesture, as the comm delivers it."""
        ident = next(self.ids)
        self._handle_custom_msg({"kind": kind, "id": ident, **fields}, [])
        return ident

    def reply(self, ident: int | None) -> Message:
        return self.hear(lambda m: m["kind"] == "reply" and m["id"] == ident)

    def ask(self, kind: str, **fields: Any) -> Message:
        return self.reply(self.say(kind, **fields))

    def hear(self, wanted: Callable[[Message], bool], seconds: float = PATIENCE) -> Message:
        """The first message like this, waiting for it."""
        found: Message = until(lambda: next((m for m in self.heard if wanted(m)), None), seconds)
        return found

    def rest(self) -> None:
        """Wait until the view has nothing more to say: nothing computes, no timer of it runs."""
        # Twice: work ends in timers and timers start work.
        until(lambda: self._has_said_all() and self._has_said_all())

    def _has_said_all(self) -> bool:
        queue = self.session.engine.queue
        with queue._changed:
            # A task counts as running until all that it calls when it is done has returned.
            if queue._running is not None or queue._waiting:
                return False
        paces = [each for each in vars(self).values() if isinstance(each, (Outbox, Settled))]
        paces.remove(self._rest_due)  # which writes a picture for a saved page, and tells nobody
        return not any(
            isinstance(thread, threading.Timer) and getattr(thread.function, "__self__", 0) in paces
            for thread in threading.enumerate()
        )

    def result(self) -> Message:
        """The result of the session as it is."""
        now = self.session.revision
        return self.hear(lambda m: m["kind"] == "result" and m["revision"] >= now)

    def of(self, kind: str) -> list[Message]:
        return [m for m in self.heard if m["kind"] == kind]

    def rows(self) -> list[Message]:
        rows: list[Message] = self.of("state")[-1]["state"]["rows"]
        return rows


class HearsAll(Hears):
    """The same, and what waits for its turn to be sent is waited for before anything is read."""

    def of(self, kind: str) -> list[Message]:
        until(lambda: not self._outbox._waiting)
        return super().of(kind)


class Gate:
    """While open as a context, the model's worker does nothing else."""

    def __init__(self, session: Observable) -> None:
        self._session = session
        self._free, self._held = threading.Event(), threading.Event()

    def __enter__(self) -> Self:
        def job(_stop: Callable[[], bool]) -> None:
            self._held.set()
            self._free.wait(PATIENCE)

        self._task = self._session.submit(job)
        assert self._held.wait(PATIENCE)
        return self

    def __exit__(self, *_error: object) -> None:
        self._free.set()
        self._task.result()

    def answers_at_once(self, view: Hears, kind: str, **fields: Any) -> Message:
        """The reply to a gesture that does not wait for the model.

        It is there when the gesture's handler ends, while the worker is held; and the handler
        itself computes little: less than half a second of this thread's own time.
        """
        began = time.thread_time()
        ident = view.say(kind, **fields)
        assert time.thread_time() - began < 0.5, kind
        replies = [m for m in view.heard if m["kind"] == "reply" and m["id"] == ident]
        assert replies, kind
        assert self._task.state == "running"
        return replies[0]


def until(found: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """What is found, once there is something; the last of no messages is nothing yet."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(IndexError):
            if value := found():
                return value
        time.sleep(0.005)
    pytest.fail("It never came.")


def until_the_main_thread_waits() -> None:
    """Wait until the main thread waits for a task, where an interrupt of its cell finds it."""

    def waits() -> bool:
        frame: FrameType | None = sys._current_frames()[threading.main_thread().ident or 0]
        for _ in range(4):  # in what `Task.result` waits by
            if frame is not None:
                frame = frame.f_back
                if frame is not None and frame.f_code is Task.result.__code__:
                    return True
        return False

    until(waits)
