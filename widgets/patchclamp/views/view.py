"""What every view is: a widget on a session. Intent comes up, state goes down.

A view never computes where a message reaches it: the handler validates, changes the session's
declared state and replies. What must be computed is handed to the model's one worker; the newest
request of a kind wins, and its result is pushed when it is there. A run's failure reaches the
page as a status, and the last good picture stays.

A view holds its session; the session holds no view. A view that is closed, garbage, or made again
by running its cell again observes nothing, computes nothing and has no thread.
"""

import itertools
import os
import sys
import threading
import time
import weakref
from abc import abstractmethod
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, Protocol, TypeVar, cast

import anywidget
import traitlets

from patchclamp.errors import PatchclampError, Stopped

from . import page
from .messages import (
    AblatorBody,
    AnyUp,
    AtlasBody,
    Body,
    Hello,
    HelloBody,
    InspectorBody,
    MaximizerBody,
    Message,
    MessageError,
    Progress,
    Redo,
    ReplyError,
    ReplyOk,
    Snapshot,
    Status,
    Stop,
    Undo,
    parse_up,
)
from .pace import Outbox, Settled
from .transport import pack, to_text

if TYPE_CHECKING:
    from patchclamp.engine.queue import Priority, Queue, Task
    from patchclamp.session import Change

T = TypeVar("T")
Everything = HelloBody | InspectorBody | AblatorBody | MaximizerBody | AtlasBody
ShouldStop = Callable[[], bool]

STATIC = Path(__file__).parent.parent / "static"
SNAPSHOT_BYTES = 256 * 1024

_STATUS_AFTER = 0.1  # seconds; what is done sooner is not worth a word
_PICTURES_EVERY = 0.15  # seconds between two pictures of one kind that fill in
_AT_REST_AFTER = 1.5  # the picture for saved pages is larger than what a gesture needs


class Later:
    """What a handler returns when the reply comes from the worker."""


LATER: Final = Later()


class Queued(Protocol):
    """An engine, whatever its model is."""

    @property
    def queue(self) -> "Queue":
        """Where all of the model's work goes."""


class Observable(Protocol):
    """What every view needs of the session that it looks at, whatever its model is."""

    @property
    def engine(self) -> Queued:
        """What runs the model."""

    @property
    def revision(self) -> int:
        """A number that grows with every change."""

    def observe(self, callback: "Callable[[Change], None]") -> Callable[[], None]:
        """Call back after every change, until what is returned is called."""

    def submit(
        self,
        job: Callable[[ShouldStop], Any],
        *,
        priority: "Priority" = "interactive",
        key: Hashable | None = None,
    ) -> "Task[Any]":
        """Hand a job to the model's one worker."""

    def undo(self) -> bool:
        """Take the last change back; returns whether there was one."""

    def redo(self) -> bool:
        """Make the last undone change again; returns whether there was one."""


class View(anywidget.AnyWidget):
    """A widget on a session; subclasses say what their messages do and what they show.

    Args:
        session: what it looks at.

    Attributes:
        snapshot: the last picture at rest (`messages.Snapshot`), for saved pages; Python writes
            it, nothing reads it here.
        live: true, which tells the page that there is a kernel; a saved page has no such trait.

    Raises:
        PatchclampError: when the front end was not built.
    """

    snapshot = traitlets.Dict().tag(sync=True)
    live = traitlets.Bool(default_value=True).tag(sync=True)

    _bundle: ClassVar[str] = ""
    _cells: ClassVar[dict[str, tuple[str, "weakref.WeakSet[View]"]]] = {}

    def __init_subclass__(cls, *, bundle: str = "", **kwargs: Any) -> None:
        """Take the front end from `static/<bundle>.js` and `.css`."""
        if bundle:
            cls._bundle = bundle
            cls._take_bundle()
        super().__init_subclass__(**kwargs)

    @classmethod
    def _take_bundle(cls) -> None:
        files = {"_esm": STATIC / f"{cls._bundle}.js", "_css": STATIC / f"{cls._bundle}.css"}
        if not all(file.is_file() for file in files.values()):
            return
        # A file that anywidget watches keeps every view of its class alive: only while developing.
        watched = os.environ.get("ANYWIDGET_HMR") == "1"
        for name, file in files.items():
            # The line break tells anywidget that this is no file's name.
            setattr(cls, name, file if watched else file.read_text(encoding="utf-8") + "\n")

    def __init__(self, session: Observable) -> None:
        self._closed = True  # until it is open: `__del__` may come before
        if not hasattr(type(self), "_esm"):
            raise PatchclampError(
                f"The front end of {type(self).__name__} is not built: run `npm ci && npm run "
                "build` in the repository and restart the kernel, or install a released wheel "
                "(`pip install patchclamp`), which has it."
            )
        self._session = session
        self._shown = False  # until a page says hello nothing is computed or sent
        # Nothing of the session is called while it is held: a session may tell of a change while
        # it holds its own.
        self._lock = threading.Lock()
        self._tasks: dict[Hashable, tuple[Task[Any], str]] = {}
        self._said_at: dict[Hashable, float] = {}
        self._gestures = itertools.count()
        self._gesture = next(self._gestures)
        self._said: Status | None = None
        self._counting = False  # progress was sent since the page was last told that work is over
        self._outbox: Outbox[Message] = Outbox(self._transmit)
        self._status_due = Settled(_STATUS_AFTER, _weakly(self._say_status))
        self._rest_due = Settled(_AT_REST_AFTER, _weakly(self._at_rest))
        super().__init__()
        self._closed = False
        self.on_msg(self._receive)
        if self.comm is not None:
            self.comm.on_close(_weakly(self._comm_closed))
        # The session must not keep the view alive, nor a dead view's observer.
        self._unobserve = weakref.finalize(self, session.observe(_weakly(self._observed)))
        self._unobserve.atexit = False
        self._close_the_cells_earlier_views()

    # --- what a view is made of ------------------------------------------------------------------

    @abstractmethod
    def _everything(self) -> Everything:
        """All there is to draw, as it is known now."""

    @abstractmethod
    def _changed(self, change: "Change") -> None:
        """The session changed; called on the thread that changed it, while a page is shown."""

    @abstractmethod
    def _wake(self) -> None:
        """A page is there for the first time: start what it needs."""

    @abstractmethod
    def refresh(self) -> None:
        """Compute what the view shows now and wait for it; a page that is open gets it too."""

    # --- for people ------------------------------------------------------------------------------

    @property
    def session(self) -> Observable:
        """What the view looks at."""
        return self._session

    def undo(self) -> None:
        """Take the last step back."""
        self._session.undo()

    def redo(self) -> None:
        """Do the step again that was taken back."""
        self._session.redo()

    def stop(self) -> None:
        """End the view's long work where it is."""
        self._stop_tasks(self._is_long)

    def to_html(self, path: str | Path | None = None) -> str:
        """Write the view as one file that draws without kernel and network.

        Args:
            path: where to write it; None only returns it.

        Returns:
            The page.
        """
        self.refresh()
        self.snapshot = self._picture()
        return page.to_html(cast("page.Pictured", self), path, title=type(self).__name__)

    def close(self) -> None:
        """Take the view off its session and out of the notebook; its work stops."""
        if not getattr(self, "_closed", True):
            self._closed = True
            self._unobserve()
            self._outbox.close()
            self._status_due.close()
            self._rest_due.close()
            self._stop_tasks()
        super().close()

    def set_state(self, sync_data: dict[str, Any]) -> None:
        """Ignore what a page saves into the view's own traits: nothing is controlled by them."""
        ours = {"snapshot", "live", "_esm", "_css"}
        super().set_state({name: part for name, part in sync_data.items() if name not in ours})

    # --- messages up -----------------------------------------------------------------------------

    def _receive(self, _widget: object, content: object, buffers: list[Any] | None) -> None:
        if self._closed:
            return
        try:
            message = parse_up(content, buffers or ())
        except MessageError as error:
            self._refuse(error.id, str(error), error.field)
            return
        try:
            # No lock: a session orders what reaches it, and must be free to call its observers.
            body = self._handle(message)
        except PatchclampError as error:
            self._refuse(message.id, str(error), getattr(error, "field", None))
        except Exception as error:
            self.log.exception("A %s message failed in %s.", message.kind, type(self).__name__)
            self._refuse(message.id, _unexpected(error), None)
        else:
            if not isinstance(body, Later):
                self._reply(message.id, body)
        if isinstance(message, Hello) and not self._shown:
            self._shown = True
            self._wake()

    def _handle(self, message: AnyUp) -> Body | Later | None:
        """Do what a gesture says, quickly, in `_on_<kind>`; the reply's body, or `LATER`."""
        handler = getattr(self, f"_on_{message.kind}", None)
        if handler is None:
            said = f"{type(self).__name__} has no gesture of the kind {message.kind!r}."
            raise MessageError(said, id=message.id, field="kind")
        return cast("Callable[[AnyUp], Body | Later | None]", handler)(message)

    def _reply(self, ident: int, body: Body | None = None) -> None:
        self._transmit(ReplyOk(id=ident, revision=self._session.revision, body=body))

    def _refuse(self, ident: int | None, sentence: str, field: str | None) -> None:
        revision = self._session.revision
        self._transmit(ReplyError(id=ident, revision=revision, error=sentence, field=field))

    def _on_hello(self, _message: Hello) -> Body:
        return self._everything()

    def _on_undo(self, _message: Undo) -> None:
        self.undo()

    def _on_redo(self, _message: Redo) -> None:
        self.redo()

    def _on_stop(self, _message: Stop) -> None:
        self.stop()

    def _answer_later(
        self, ident: int, name: Hashable, what: str, job: Callable[[ShouldStop], Any]
    ) -> Later:
        """Reply with what the job returns, or with its error."""
        self._start(
            name,
            what,
            job,
            then=lambda body: self._reply(ident, body),
            failed=lambda error: self._refuse(ident, str(error), None),
        )
        return LATER

    def _next_gesture(self) -> int:
        """What is changed from now on is another step of undo."""
        self._gesture = next(self._gestures)
        return self._gesture

    # --- messages down ---------------------------------------------------------------------------

    def _push(
        self,
        slot: Hashable,
        message: Message,
        merge: Callable[[Message, Message], Message] | None = None,
    ) -> None:
        """Send when the rate allows; a newer message of the slot replaces a waiting one."""
        if self._shown:
            self._counting |= isinstance(message, Progress)
            self._outbox.put(slot, message, merge)

    def _transmit(self, message: Message) -> None:
        if self.comm is None or getattr(self.comm, "_closed", False):
            self.close()
            return
        content, buffers = pack(message)
        self.send(content, buffers or None)

    def _now_and_then(
        self, name: Hashable, *, always: bool, every: float = _PICTURES_EVERY
    ) -> bool:
        """Whether a picture that fills in is worth sending now, so many seconds after the last."""
        now = time.monotonic()
        if not always and now - self._said_at.get(name, 0.0) < every:
            return False
        self._said_at[name] = now
        return True

    def _observed(self, change: "Change") -> None:
        if self._shown and not self._closed:
            try:
                self._changed(change)
            except Exception:  # the thread that changed the session is not to suffer for a view
                self.log.exception("%s could not follow a change.", type(self).__name__)

    # --- work ------------------------------------------------------------------------------------

    def _start(
        self,
        name: Hashable,
        what: str,
        job: Callable[[Callable[[], bool]], Any],
        *,
        then: Callable[[Any], None],
        priority: Literal["interactive", "sweep"] = "interactive",
        failed: Callable[[PatchclampError], None] | None = None,
    ) -> "Task[Any]":
        """Hand a job to the model's worker; of two under one name the newer wins.

        Args:
            name: what it is, among this view's jobs.
            what: the same in words, for the status.
            job: called on the worker with a function that says whether to stop; one that yields
                lets others through there.
            then: gets its result, on the worker.
            priority: interactive work goes before sweeps.
            failed: gets its error, being stopped included; by default an error is told as a
                status, and being stopped is not told.

        Returns:
            The task, for who wants to wait.
        """
        revision = self._session.revision

        def ended(task: "Task[Any]") -> None:
            with self._lock:
                if name in self._tasks and self._tasks[name][0] is task:
                    del self._tasks[name]
            try:
                if task.error is None:
                    if not self._closed:
                        then(task.result())
                    return
                error = _as_ours(task.error)
                if not isinstance(task.error, PatchclampError):
                    self.log.error("%s failed.", what, exc_info=task.error)
                if failed is not None:
                    failed(error)
                elif not isinstance(error, Stopped):
                    self._say_error(error, revision)
            except Exception:  # the worker has others to serve
                self.log.exception("%s could not show what came of %s.", type(self).__name__, what)
            finally:
                self._work_changed(self._status_due, self._rest_due)

        task = self._session.submit(job, priority=priority, key=(id(self), name))
        with self._lock:
            self._tasks[name] = (task, what)
        task.add_done_callback(ended)
        self._work_changed(self._status_due)
        return task

    def _sweep(
        self,
        name: Hashable,
        what: str,
        job: Callable[[ShouldStop], Any],
        so_far: Callable[[], T | None],
    ) -> tuple[T, bool]:
        """Do long work and wait for it.

        Args:
            name: what it is, among this view's jobs.
            what: the same in words.
            job: what is done.
            so_far: what there is of it, when it was stopped too.

        Returns:
            What there is, and whether it is whole.

        Raises:
            Stopped: when it was stopped before there was anything.
        """
        self._stop_tasks(lambda other: other == name)
        whole = True

        def nothing(_ended: object) -> None:
            """Who waits is told."""

        task = self._start(name, what, job, then=nothing, failed=nothing, priority="sweep")
        try:
            task.result()
        except Stopped:
            whole = False
        found = so_far()
        if found is None:
            raise Stopped("It was stopped before there was anything to show.")
        return found, whole

    def _is_long(self, name: Hashable) -> bool:
        """Whether a job of this name is long work, which Stop ends."""
        del name
        return True

    def _work_changed(self, *due: Settled) -> None:
        """Let the page know soon; where there is none, nobody has to."""
        for each in due if self._shown else ():
            each.touch()

    def _stop_tasks(self, wanted: Callable[[Hashable], bool] = lambda _name: True) -> int:
        """Cancel this view's jobs of the chosen names; how many there were."""
        with self._lock:
            tasks = [task for name, (task, _) in self._tasks.items() if wanted(name)]
        for task in tasks:
            task.cancel()
        return len(tasks)

    def _say_status(self) -> None:
        with self._lock:
            whats = [what for _, what in self._tasks.values()]
        status = Status(
            busy=bool(whats), what=whats[0] if whats else "", revision=self._session.revision
        )
        said, over = self._said, self._counting and not status.busy
        if over or said is None or (said.busy, said.what) != (status.busy, status.what):
            self._said, self._counting = status, self._counting and not over
            self._push("status", status)

    def _say_error(self, error: PatchclampError, revision: int) -> None:
        self._said = Status(busy=False, what="", error=str(error), revision=revision)
        self._push(("status", revision), self._said)

    # --- the last picture ------------------------------------------------------------------------

    def _at_rest(self) -> None:
        with self._lock:
            busy = bool(self._tasks)
        if busy or self._closed:
            return  # the end of the work comes back here
        picture = self._picture()
        if picture != self.snapshot:
            self.snapshot = picture

    def _picture(self) -> dict[str, Any]:
        """The snapshot, without what does not fit into its size."""
        hello = self._to_save()
        cuts = self._cuts(hello)
        cut: list[str] = []
        while True:
            body, buffers = pack(hello)
            content = Snapshot(hello=hello, buffers=to_text(buffers), cut=cut)
            picture = {"hello": body, "buffers": content.buffers, "cut": content.cut}
            if _size(picture) <= SNAPSHOT_BYTES:
                return picture
            if not cuts:  # a prompt of this size alone is too large
                return {}
            name, without = cuts.pop(0)
            cut = [*cut, name]
            hello = hello.model_copy(update=without)

    def _to_save(self) -> Everything:
        """What a saved page is given, as far as it fits."""
        return self._everything()

    def _cuts(self, hello: Any) -> list[tuple[str, dict[str, Any]]]:
        """What a saved page can do without, the least missed first: a name, and the fields."""
        del hello
        return []

    # --- life ------------------------------------------------------------------------------------

    def _comm_closed(self, _message: object = None) -> None:
        self.close()

    def _close_the_cells_earlier_views(self) -> None:
        """Running a cell again replaces what it showed; the kernel would keep that for ever."""
        place = _running_cell()
        if place is None:
            return
        cell, execution = place
        earlier, views = self._cells.get(cell, (execution, weakref.WeakSet()))
        if earlier != execution:
            for view in list(views):
                view.close()
            views = weakref.WeakSet()
        views.add(self)
        self._cells[cell] = (execution, views)


def _running_cell() -> tuple[str, str] | None:
    """The notebook cell that runs now, and which execution of it; None outside of one."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    parent: dict[str, Any] = getattr(shell, "get_parent", dict)() or {}
    cell = parent.get("metadata", {}).get("cellId")
    execution = parent.get("header", {}).get("msg_id")
    return (cell, execution) if cell and execution else None


def _weakly(method: Callable[..., Any]) -> Callable[..., None]:
    """The method as long as its object lives; then nothing."""
    reference = weakref.WeakMethod(method)

    def call(*args: object) -> None:
        alive = reference()
        if alive is not None:
            alive(*args)

    return call


def _as_ours(error: BaseException) -> PatchclampError:
    return error if isinstance(error, PatchclampError) else PatchclampError(_unexpected(error))


def _unexpected(error: BaseException) -> str:
    said = " ".join(str(error).split())[:200]
    return f"This failed inside patchclamp ({type(error).__name__}: {said}); nothing was changed."


def _size(value: Any) -> int:
    """About how many bytes of JSON a plain value is."""
    if isinstance(value, str):
        return len(value.encode()) + 2
    if isinstance(value, dict):
        return 2 + sum(len(name) + 4 + _size(part) for name, part in value.items())
    if isinstance(value, list):
        return 2 + sum(1 + _size(part) for part in value)
    return len(str(value))
