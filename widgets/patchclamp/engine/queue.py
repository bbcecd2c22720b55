"""One queue a model: interactive work first, sweeps between its chunks, the newest request wins."""

from __future__ import annotations

import heapq
import inspect
import itertools
import sys
import threading
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, TypeVar, cast

from patchclamp.errors import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable

    ShouldStop = Callable[[], bool]

T = TypeVar("T")
Priority = Literal["interactive", "sweep"]
_RANK: dict[str, int] = {"interactive": 0, "sweep": 1}
_IDLE_SECONDS = 10.0
_FINISHED = frozenset({"done", "failed", "stopped"})


class Task(Generic[T]):
    """A job that was handed to a queue.

    Attributes:
        state: "waiting", "running", "done", "failed" or "stopped".
    """

    def __init__(
        self,
        job: Callable[[ShouldStop], T | Generator[object, None, T]],
        rank: int,
        key: Hashable | None,
        order: int,
    ) -> None:
        self._job = job
        self._rank = rank
        self._order = order
        self._steps: Generator[object, None, T] | None = None
        self._stop = threading.Event()
        self._finished = threading.Event()
        self._callbacks: list[Callable[[Task[T]], None]] = []
        self._lock = threading.Lock()
        self._value: T
        self.key = key
        self.error: BaseException | None = None
        self.state = "waiting"

    def __lt__(self, other: Task[Any]) -> bool:
        return (self._rank, self._order) < (other._rank, other._order)

    def go_behind(self, order: int) -> None:
        """Take a later place among tasks of the same priority."""
        self._order = order

    def cancel(self) -> None:
        """Ask the job to stop: at once if it waits, else at the next block of the model."""
        self._stop.set()

    def cancelled(self) -> bool:
        """Say whether somebody asked it to stop."""
        return self._stop.is_set()

    def done(self) -> bool:
        """Say whether it has ended, in whichever way."""
        return self._finished.is_set()

    def result(self, timeout: float | None = None) -> T:
        """Wait for the job and return what it returned.

        An interrupt of the waiting cell cancels the job, and is raised again once the model is
        free.

        Raises:
            Stopped: when it was stopped, or a newer request took its place.
            TimeoutError: when it took longer than ``timeout`` seconds.
        """
        try:
            # Short waits: an interrupt reaches the main thread only between them on some systems.
            waited = 0.0
            while not self._finished.wait(0.1):
                waited += 0.1
                if timeout is not None and waited >= timeout:
                    msg = f"Not finished after {timeout} s."
                    raise TimeoutError(msg)
        except KeyboardInterrupt:
            self.cancel()
            self._finished.wait(30)
            raise
        if self.error is not None:
            raise self.error
        return self._value

    def add_done_callback(self, callback: Callable[[Task[T]], None]) -> None:
        """Call ``callback(task)`` when it has ended; at once if it has."""
        with self._lock:
            if not self._finished.is_set():
                self._callbacks.append(callback)
                return
        callback(self)

    def _step(self) -> bool:
        """Run the job, or one chunk of it; return whether it has ended."""
        try:
            if self._stop.is_set():
                self._leave()
            self.state = "running"
            if self._steps is None:
                value = self._job(self._stop.is_set)
                if not inspect.isgenerator(value):
                    self._end("done", cast("T", value))
                    return True
                self._steps = cast("Generator[object, None, T]", value)
            next(self._steps)
        except StopIteration as end:
            self._end("done", end.value)
            return True
        except Stopped as error:
            self._end("stopped", error=error)
            return True
        except Exception as error:  # noqa: BLE001 (whatever the job raises belongs to who waits for it)
            self._end("failed", error=error)
            return True
        return False

    def _leave(self) -> NoReturn:
        if self._steps is not None:
            self._steps.close()
        raise Stopped("Stopped before it was finished.")

    def _end(self, state: str, value: T | None = None, error: BaseException | None = None) -> None:
        if error is None:
            self._value = value  # type: ignore[assignment]
        self.error = error
        self._steps = None
        with self._lock:
            self.state = state
            self._finished.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            try:
                callback(self)
            except Exception:  # noqa: BLE001 (reported as any thread's; the queue works on)
                threading.excepthook(
                    threading.ExceptHookArgs((*sys.exc_info(), threading.current_thread()))
                )


class Queue:
    """Runs jobs one after the other on one thread of its own.

    A job is called with ``should_stop``, a function to ask now and then. A job that is a generator
    function yields between its chunks: work of higher priority runs there. The thread ends when
    there was nothing to do for a while, and comes back when there is.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._changed = threading.Condition()
        self._waiting: list[Task[Any]] = []
        self._running: Task[Any] | None = None
        self._thread: threading.Thread | None = None
        self._order = itertools.count()

    def submit(
        self,
        job: Callable[[ShouldStop], T | Generator[object, None, T]],
        *,
        priority: Priority = "interactive",
        key: Hashable | None = None,
    ) -> Task[T]:
        """Queue a job; one that waits under the same key is stopped, since this one is newer.

        Called from a job, it runs the new one at once: the queue is that job's already.
        """
        task: Task[T] = Task(job, _RANK[priority], key, next(self._order))
        if threading.current_thread() is self._thread:
            while not task._step():  # noqa: SLF001
                pass
            return task
        replaced = []
        with self._changed:
            if key is not None:
                replaced = [other for other in self._waiting if other.key == key]
                self._waiting = [other for other in self._waiting if other.key != key]
                heapq.heapify(self._waiting)
            heapq.heappush(self._waiting, task)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify()
        for other in replaced:
            other._end("stopped", error=Stopped("A newer request took its place."))  # noqa: SLF001
        return task

    def stop(self, keys: Callable[[Hashable | None], bool] = lambda _: True) -> int:
        """Cancel the waiting and the running tasks whose key is chosen; return how many."""
        with self._changed:
            tasks = [t for t in (*self._waiting, self._running) if t is not None and keys(t.key)]
            for task in tasks:
                task.cancel()
            self._changed.notify()
        return len(tasks)

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._changed.wait(_IDLE_SECONDS)
                if not self._waiting:
                    self._thread = None
                    return
                task = self._running = heapq.heappop(self._waiting)
            ended = task._step()  # noqa: SLF001
            with self._changed:
                self._running = None
                if not ended:  # behind what came meanwhile: a drag does not wait for a whole text
                    task.go_behind(next(self._order))
                    heapq.heappush(self._waiting, task)
            del task
