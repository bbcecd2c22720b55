"""Long work of a view that can be held, and taken up where it was."""

import threading
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from patchclamp.errors import PatchclampError, Stopped

from .view import ShouldStop, View


@dataclass(eq=False)
class Pausable:
    """Long work that can be held, and taken up where it was.

    Attributes:
        asked_to_pause: it is to be held after the step that runs.
        at_work: a job takes it further.
    """

    asked_to_pause: bool = field(default=False, kw_only=True)
    at_work: bool = field(default=False, kw_only=True)


class PausableView(View):
    """A view with such work."""

    def _take_up(self, held: Pausable, *, wait: bool) -> bool:
        """Go on with something; whether a job has to be started for it.

        It may be on its way to being held: whoever waits for the end waits for that first.
        """
        while wait and held.at_work and not self._closed:
            time.sleep(0.01)
        with self._lock:
            begin = not held.at_work
            held.at_work, held.asked_to_pause = True, False
        return begin

    def _let_off(self, held: Pausable, *, over: bool) -> bool:
        """Whether a job has nothing more to do: it is over, or was asked to pause."""
        with self._lock:
            if over or held.asked_to_pause:
                held.at_work = False
            return not held.at_work

    def _run(
        self,
        name: Hashable,
        what: str,
        job: Callable[[ShouldStop], Any],
        ended: Callable[[PatchclampError | None], None],
        *,
        wait: bool,
    ) -> None:
        """Do long work, live, or in a cell that waits for it.

        A Stop, by the button or by an interrupt of the cell, keeps what there is.

        Args:
            name: what it is, among this view's jobs.
            what: the same in words.
            job: what is done.
            ended: gets its error, being stopped included, or None; on the worker.
            wait: until it has ended and `ended` was called.

        Raises:
            PatchclampError: where it is waited for, the error of the job, unless it was stopped.
        """
        told = threading.Event()

        def over(error: PatchclampError | None) -> None:
            try:
                ended(error)
            finally:
                told.set()

        task = self._start(
            name, what, job, then=lambda _none: over(None), failed=over, priority="sweep"
        )
        if not wait:
            return
        with suppress(Stopped):
            try:
                task.result()
            finally:
                while not (told.wait(0.1) or self._closed):
                    pass
