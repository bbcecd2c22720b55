"""What every session is: a state that is only ever replaced, with undo, observers and a worker."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from patchclamp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from patchclamp.engine.queue import Priority, Queue, Task
    from patchclamp.methods.aim import Aim

    ShouldStop = Callable[[], bool]

_UNDO_STEPS = 500


@dataclass(frozen=True)
class Change:
    """What happened to a session.

    Attributes:
        kind: "interventions", "input", "contrast", "metric", "directions", "pairs", "circuit",
            "aim", "undo" or "redo".
        revision: the session's revision after it.
    """

    kind: str
    revision: int


@dataclass(frozen=True)
class State:
    """All that undo brings back. Compared by identity of its parts; never changed in place."""

    aim: Aim | None = field(default=None, kw_only=True)


StateT = TypeVar("StateT", bound=State)


class History(Generic[StateT]):
    """A state and how it came about.

    Args:
        state: the first one.
        queue: the worker of the model that it is about.
    """

    def __init__(self, state: StateT, queue: Queue) -> None:
        self._state = state
        self._queue = queue
        self._lock = threading.RLock()
        self._observers: list[Callable[[Change], None]] = []
        self._revision = 0
        self._coalescing: Hashable = None
        self._redo: list[StateT] = []
        self._undo: list[StateT] = []

    @property
    def revision(self) -> int:
        """A number that grows with every change."""
        return self._revision

    @property
    def aim(self) -> Aim | None:
        """What a view maximises and how; None at first."""
        return self._state.aim

    def set_aim(self, value: Aim | None, *, coalesce: Hashable | None = None) -> None:
        """Take another aim.

        Args:
            value: what is maximised and how, or None.
            coalesce: aims in a row with the same value here are one step of undo: a drag.
        """
        if value != self._state.aim:
            self._change("aim", lambda s: replace(s, aim=value), coalesce=coalesce)

    def begin_with_aim(self, value: Aim | None) -> None:
        """Have an aim from the start: for whoever made the session, no step of undo."""
        with self._lock:
            self._state = replace(self._state, aim=value)

    def end_gesture(self) -> None:
        """Let the next edit be a step of undo of its own, whatever it coalesces with."""
        self._coalescing = None

    @property
    def can_undo(self) -> bool:
        """Whether there is something to undo."""
        return bool(self._undo)

    @property
    def can_redo(self) -> bool:
        """Whether there is something to redo."""
        return bool(self._redo)

    def undo(self) -> bool:
        """Take the last change back; returns whether there was one."""
        return self._travel("undo", self._undo, self._redo)

    def redo(self) -> bool:
        """Make the last undone change again; returns whether there was one."""
        return self._travel("redo", self._redo, self._undo)

    def submit(
        self,
        job: Callable[[ShouldStop], Any],
        *,
        priority: Priority = "interactive",
        key: Hashable | None = None,
    ) -> Task[Any]:
        """Hand a job to the model's worker; see :class:`patchclamp.engine.queue.Queue`.

        Args:
            job: called with ``should_stop``; a generator function yields between its chunks.
            priority: interactive work goes before sweeps.
            key: a job that waits under the same key of this session is replaced.
        """
        return self._queue.submit(
            job, priority=priority, key=None if key is None else (id(self), key)
        )

    def observe(self, observer: Callable[[Change], None]) -> Callable[[], None]:
        """Call ``observer(change)`` after every change, on the thread that made it.

        Returns:
            A function that stops it.
        """
        self._observers.append(observer)

        def stop() -> None:
            if observer in self._observers:
                self._observers.remove(observer)

        return stop

    # Inside ---------------------------------------------------------------------------------------

    def _change(
        self, kind: str, make: Callable[[StateT], StateT], *, coalesce: Hashable | None = None
    ) -> None:
        """Make a new state of the present one, then tell the observers, who may wait for a run."""
        with self._lock:
            old, self._state = self._state, make(self._state)
            if coalesce is None or coalesce != self._coalescing:
                self._undo.append(old)
                del self._undo[:-_UNDO_STEPS]
            self._coalescing = coalesce
            self._redo.clear()
            self._revision += 1
            change = Change(kind, self._revision)
        self._tell(change)

    def _travel(self, kind: str, source: list[StateT], target: list[StateT]) -> bool:
        with self._lock:
            if not source:
                return False
            target.append(self._state)
            self._state = source.pop()
            self._coalescing = None
            self._revision += 1
            change = Change(kind, self._revision)
        self._tell(change)
        return True

    def _tell(self, change: Change) -> None:
        for observer in tuple(self._observers):
            observer(change)


def read_session(path: str | Path) -> dict[str, Any]:
    """Read what a session of either kind has written to a JSON file.

    Raises:
        InputError: when the file holds none.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        msg = f"{path} holds no session: {error}."
        raise InputError(msg) from error
    if not isinstance(data, dict):
        msg = f"{path} holds no session."
        raise InputError(msg)
    return data
