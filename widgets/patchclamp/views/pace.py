"""How often a view speaks: a capped outbox, and what waits until things settle.

A kernel that publishes more than about a thousand messages a second loses some of them for good,
and the page cannot draw more than some thirty a second anyway.
"""

import threading
import time
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

T = TypeVar("T")

RATE = 30.0
"""Messages a second that a view may push."""

_BURST = 10.0  # what may go at once after a pause, so that a single gesture never waits


class Outbox(Generic[T]):
    """Sends messages in order, at most `RATE` a second.

    A message that has to wait is replaced by a newer one in the same slot: what nobody has seen
    yet is not worth sending once it is old.

    Args:
        send: sends one message; called on whichever thread put it, or on a timer's.
        rate: messages a second.
    """

    def __init__(self, send: Callable[[T], None], rate: float = RATE) -> None:
        self._send = send
        self._rate = rate
        self._lock = threading.RLock()
        self._waiting: dict[Hashable, T] = {}
        self._allowed = _BURST
        self._counted = time.monotonic()
        self._timer: threading.Timer | None = None
        self._closed = False

    def put(self, slot: Hashable, message: T, merge: Callable[[T, T], T] | None = None) -> None:
        """Send a message as soon as the rate allows.

        Args:
            slot: what it is about; it replaces a waiting one about the same.
            message: the message.
            merge: makes one of the waiting message and this one, instead of replacing.
        """
        with self._lock:
            if self._closed:
                return
            if slot in self._waiting:
                old = self._waiting[slot]
                self._waiting[slot] = message if merge is None else merge(old, message)
            else:
                self._waiting[slot] = message
            self._flush()

    def close(self) -> None:
        """Send nothing any more."""
        with self._lock:
            self._closed = True
            self._waiting.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _flush(self) -> None:
        now = time.monotonic()
        self._allowed = min(_BURST, self._allowed + (now - self._counted) * self._rate)
        self._counted = now
        while self._waiting and self._allowed >= 1:
            self._allowed -= 1
            self._send(self._waiting.pop(next(iter(self._waiting))))
        if self._waiting and self._timer is None:
            self._timer = _timer((1 - self._allowed) / self._rate, self._tick)

    def _tick(self) -> None:
        with self._lock:
            self._timer = None
            if not self._closed:
                self._flush()


class Settled:
    """Calls a function once nothing has happened for a while.

    Args:
        seconds: how long is a while.
        act: what is called, on a thread of its own.
    """

    def __init__(self, seconds: float, act: Callable[[], None]) -> None:
        self._seconds = seconds
        self._act = act
        self._lock = threading.Lock()
        self._due = 0.0
        self._timer: threading.Timer | None = None
        self._closed = False

    def touch(self) -> None:
        """Something happened: wait from now on."""
        with self._lock:
            self._due = time.monotonic() + self._seconds
            if self._timer is None and not self._closed:
                self._timer = _timer(self._seconds, self._tick)

    def close(self) -> None:
        """Never call it any more."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _tick(self) -> None:
        with self._lock:
            self._timer = None
            if self._closed:
                return
            rest = self._due - time.monotonic()
            if rest > 0:
                self._timer = _timer(rest, self._tick)
                return
        self._act()


def _timer(seconds: float, act: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(max(seconds, 0.0), act)
    timer.daemon = True
    timer.name = "patchclamp view"
    timer.start()
    return timer
