"""Stimuli that drive a unit: optimised step by step while the view shows them.

An ascent is a list of optimisations that take steps in turn; it lives as long as it is paused, and
a job of the queue takes it a step further at a time, so that interactive work and a Stop get in
between any two steps. What was seen stays when it is stopped, fails or is interrupted.
"""

import itertools
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from patchclamp.errors import InputError, PatchclampError, Stopped
from patchclamp.methods.aim import Drawing
from patchclamp.methods.feature_visualization import Optimization
from patchclamp.methods.frames import BUDGET, Curve

from . import aims, rows
from . import messages as say
from .aim_view import AimView
from .messages import Body, MaximizerMode
from .pausable import Pausable
from .stimulus_pictures import picture
from .view import ShouldStop

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from patchclamp.methods.feature_visualization import Step
    from patchclamp.methods.objective import Objective

Status = Literal["waiting", "running", "paused", "stopped", "failed", "done"]
FRAME_EVERY = 0.1
"""Seconds between two frames that are sent; of several tracks between two of any."""
_TRACKS_EVERY = 0.5
_WHAT: dict[MaximizerMode, str] = {
    "climb": "optimising a picture",
    "facets": "optimising facets",
    "diverse": "optimising diverse pictures",
}
_KIND: dict[MaximizerMode, say.TrackKind] = {
    "climb": "climb",
    "facets": "facet",
    "diverse": "diverse",
}


@dataclass(eq=False)
class Track:
    """One stimulus that is optimised: an item of an optimisation's batch.

    Attributes:
        key: a name for it, among the view's.
        kind: what it is.
        label: the same in words.
        optimization: what it is an item of.
        item: which.
        status: how it stands.
        curve: the objective at each step, as the step saw it: moved, and under noise.
        settled: after how many steps its frame was measured as it is, and what it has; None before.
        best: the largest value so far; once settled, what the best frame itself has.
        members: of a facet, the images that it started from.
        member_count: how many there were.
        note: what a reader must know.
        sent: how many numbers of the curve the page has.
    """

    key: int
    kind: say.TrackKind
    label: str
    optimization: Optimization
    item: int = 0
    status: Status = "waiting"
    curve: Curve = field(default_factory=Curve)
    settled: tuple[int, float] | None = None
    best: float = -math.inf
    members: list[say.Picture] = field(default_factory=list)
    member_count: int = 0
    note: str = ""
    sent: tuple[int, int] = (0, 1)

    @property
    def stride(self) -> int:
        """Steps between two numbers of the curve."""
        steps = self.curve.steps
        return steps[1] - steps[0] if len(steps) > 1 else 1

    @property
    def value(self) -> float:
        """What the last frame has, or what its step saw where it is not settled; -inf before."""
        if self.settled is not None and self.settled[0] == self.optimization.steps:
            return self.settled[1]
        return self.curve.values[-1] if self.curve.values else -math.inf

    def settle(self, value: float, best: float) -> None:
        """Take what the last frame and the best one have by themselves."""
        if math.isfinite(value) and math.isfinite(best):
            self.settled, self.best = (self.optimization.steps, value), best

    def value_at(self, step: int) -> float:
        """The value at the step of the curve that is nearest."""
        pairs = zip(self.curve.steps, self.curve.values, strict=False)  # a step may be under way
        return min(pairs, key=lambda pair: abs(pair[0] - step))[1]

    def frame(self, step: int | None = None) -> "tuple[int, Tensor]":
        """A frame and its step: the nearest kept one, or what was seen last."""
        if step is None:
            return max(0, self.optimization.steps - 1), self.optimization.frame()[self.item]
        at, batch = self.optimization.history.frame(step)
        return at, batch[self.item]


@dataclass(eq=False)
class Ascent(Pausable):
    """What a start has started.

    Attributes:
        mode: which way.
        objective: what is maximised.
        optimizations: those that take steps in turn.
        tracks: what they make.
        paused: whether it waits to go on.
        over: whether it came to its end, was stopped or has failed.
        prepare: what has to be done first, and says what climbs; None once it is done.
    """

    mode: MaximizerMode
    objective: "Objective"
    optimizations: list[Optimization]
    tracks: list[Track]
    paused: bool = False
    over: bool = False
    prepare: Callable[[ShouldStop], Generator[None, None, None]] | None = None

    def next(self) -> Optimization | None:
        """The optimisation whose turn it is; None when all are through."""
        left = [each for each in self.optimizations if each.steps < each.climb.steps]
        return min(left, key=lambda each: each.steps, default=None)

    def of(self, optimization: Optimization) -> list[Track]:
        """The tracks that an optimisation makes."""
        return [track for track in self.tracks if track.optimization is optimization]

    def say(self, status: Status) -> None:
        """Let every track that is not through stand so."""
        for track in self.tracks:
            through = track.optimization.steps >= track.optimization.climb.steps
            track.status = "done" if through else status


class ClimbView(AimView):
    """The part of ActivationMaximizer that is about stimuli."""

    def __init__(self, *args: Any, budget: int = BUDGET, **options: Any) -> None:
        self._budget = budget
        self._tracks: dict[int, Track] = {}
        self._next_track = itertools.count(1)
        self._ascent: Ascent | None = None
        super().__init__(*args, **options)

    # --- the same gestures, from Python -----------------------------------------------------------

    def climb(self, *, again: bool = False, wait: bool = True, **options: Any) -> "Tensor":
        """Optimise a stimulus, or go on with what is paused.

        Args:
            again: from the first step, even where something is paused.
            wait: for its end; an interrupt of the cell stops it, and what it has is kept. Without,
                the view shows it live.
            **options: of :class:`~patchclamp.methods.aim.Drawing`, such as ``steps`` or ``size``;
                they stay.

        Returns:
            Float[*shape], the best so far in the declared range (`picture`).

        Raises:
            ModelError: when the model takes no stimulus, the unit has no gradient to it, or a value
                is no finite number; what was seen until then stays.
            InputError: when the model cannot take such a size.
            AddressError: when no unit was chosen.
        """
        self._module_session()
        if options:
            self.set_options(**options)
        if self._paused_ascent() is None or again or options:
            self._ascend("climb")
        self._climb_on(wait=wait)
        return self._ascended()

    def diversity(
        self, count: int = 4, strength: float = 1.0, *, wait: bool = True, **options: Any
    ) -> "Tensor":
        """Optimise several stimuli at once that are kept from looking alike.

        Args:
            count: how many.
            strength: what their likeness costs.
            wait: for its end.
            **options: as of :meth:`climb`.

        Returns:
            Float[count, *shape].
        """
        self._module_session()
        if options:
            self.set_options(**options)
        self._ascend("diverse", count=count, strength=strength)
        self._climb_on(wait=wait)
        return self._pictures("diverse")

    def pause(self) -> None:
        """Hold what is being optimised; :meth:`climb` goes on with it, of prompts :meth:`dream`."""
        super().pause()
        ascent = self._ascent
        if ascent is not None and not ascent.over:
            ascent.asked_to_pause = True

    @property
    def picture(self) -> "Tensor":
        """Float[*shape], the best stimulus so far, in the declared range.

        Raises:
            InputError: when nothing was optimised yet.
        """
        return _best_of(self._track(None))

    def frame(self, step: int | None = None, track: int | None = None) -> "Tensor":
        """A kept frame.

        Args:
            step: the nearest kept one is taken; None for the last.
            track: which, by its key in `tracks`; None for the one that is highest.

        Returns:
            Float[*shape], in the declared range.

        Raises:
            InputError: when there is no such track.
        """
        return self._track(track).frame(step)[1]

    @property
    def tracks(self) -> "pd.DataFrame":
        """What was optimised, one a row: track, kind, label, status, step, value, best, note."""
        import pandas as pd

        lines = [
            [
                each.key,
                each.kind,
                each.label,
                each.status,
                each.optimization.steps,
                each.value,
                each.best,
                self._note_of(each),
            ]
            for each in self._tracks.values()
        ]
        columns = ["track", "kind", "label", "status", "step", "value", "best", "note"]
        return pd.DataFrame(lines, columns=columns)

    @property
    def history(self) -> "pd.DataFrame":
        """The objective along every track: track, label, step, value, kept (whether its frame is).

        A very long run's is thinned evenly.
        """
        import pandas as pd

        lines = []
        for each in self._tracks.values():
            kept = set(each.optimization.history.steps)
            pairs = zip(each.curve.steps, each.curve.values, strict=True)
            lines += [[each.key, each.label, step, value, step in kept] for step, value in pairs]
        return pd.DataFrame(lines, columns=["track", "label", "step", "value", "kept"])

    # --- gestures from the page -------------------------------------------------------------------

    def _on_climb(self, message: say.Climb) -> None:
        self._refuse_mode("climb")
        if self._paused_ascent() is None or message.again:
            with rows.about("kind"):
                self._ascend("climb")
        self._climb_on(wait=False)

    def _on_diverse(self, message: say.Diverse) -> None:
        self._refuse_mode("diverse")
        with rows.about("count"):
            self._ascend("diverse", count=message.count, strength=message.strength)
        self._climb_on(wait=False)

    def _on_scrub(self, message: say.Scrub) -> Body:
        with rows.about("track"):
            track = self._track(message.track)
            return say.FrameBody(frame=self._frame(track, message.step))

    # --- climbing ---------------------------------------------------------------------------------

    def _paused_ascent(self) -> Ascent | None:
        ascent = self._ascent
        waits = ascent is not None and not ascent.over and (ascent.paused or ascent.asked_to_pause)
        return ascent if waits else None

    def _ascend(self, mode: MaximizerMode, *, count: int = 1, strength: float = 0.0) -> Ascent:
        """Make ready what a start starts; what was made the same way before is gone."""
        target = aims.objective_of(self._aim)
        how = self._aim.drawing.climb()
        if mode == "diverse":
            how = replace(how, batch=count, diversity=strength)
        start = self._start_of(self._aim.drawing)
        model = self._module_session().model
        norm = self._aim.drawing.norm
        made = Optimization(model, target, how, start=start, budget=self._budget, norm=norm)
        kind = _KIND[mode]
        labels = ["picture"] if mode == "climb" else [f"picture {n + 1}" for n in range(count)]
        tracks = [
            Track(next(self._next_track), kind, label, made, item)
            for item, label in enumerate(labels)
        ]
        return self._take_ascent(Ascent(mode, target, [made], tracks))

    def _take_ascent(self, ascent: Ascent) -> Ascent:
        """Let it be the one that runs; tracks of its kind, and of other units, go."""
        self._stop_ascent()
        kind = _KIND[ascent.mode]
        kept = {
            key: track
            for key, track in self._tracks.items()
            if track.kind != kind and track.optimization.objective == ascent.objective
        }
        self._tracks = kept | {track.key: track for track in ascent.tracks}
        self._ascent = ascent
        return ascent

    def _check_drawing(self, drawing: Drawing) -> None:
        super()._check_drawing(drawing)
        drawing.climb()

    def _start_of(self, drawing: Drawing) -> "Tensor | None":
        if drawing.start == "noise":
            return None
        given = self._module_session().input
        if given is None:
            msg = "The session has no input to start from: set session.input, or start from noise."
            raise InputError(msg)
        return given

    def _climb_on(self, *, wait: bool) -> None:
        ascent = self._ascent
        if ascent is None or ascent.over:
            return
        begin = self._take_up(ascent, wait=wait)
        ascent.paused = False
        ascent.say("running")
        self._push_tracks(always=True)
        self._push_state()
        if not begin:
            return
        try:
            self._run(
                "ascent",
                _WHAT[ascent.mode],
                self._ascent_job(ascent),
                lambda error: self._ascent_ended(ascent, error),
                wait=wait,
            )
        except KeyboardInterrupt:
            self._say_interrupted()
            raise

    def _ascent_job(self, ascent: Ascent) -> Callable[[ShouldStop], Any]:
        def job(should_stop: ShouldStop) -> Generator[None, None, None]:
            if ascent.prepare is not None:
                yield from ascent.prepare(should_stop)
                ascent.prepare = None
            while True:
                turn = ascent.next()
                if self._let_off(ascent, over=turn is None) or turn is None:
                    break
                found = turn.step(should_stop)
                tracks = ascent.of(turn)
                for track in tracks:
                    _saw(track, found)
                self._push_frames(tracks, len(ascent.tracks))
                self._push_ascent_progress(ascent)
                yield
            ascent.over = ascent.next() is None
            ascent.paused = not ascent.over
            ascent.say("paused")
            _settle(ascent, should_stop)

        return job

    def _ascent_ended(self, ascent: Ascent, error: PatchclampError | None) -> None:
        failure = None if error is None or isinstance(error, Stopped) else error
        if isinstance(error, Stopped) and ascent is self._ascent and not self._closed:
            self._start(
                "settling",
                "measuring the picture",
                lambda should_stop: _settle(ascent, should_stop),
                then=lambda _none: self._push_ascent(ascent),
            )
        if error is not None and not ascent.over:
            ascent.over, ascent.at_work = True, False
            ascent.say("stopped" if failure is None else "failed")
            for track in ascent.tracks if failure is not None else ():
                track.note = str(failure)
        self._push_ascent(ascent)
        self._push_state()
        if failure is not None:  # last: what comes after it is taken for a new beginning
            self._say_error(failure, self._session.revision)

    def _push_ascent(self, ascent: Ascent) -> None:
        self._push_frames(ascent.tracks, 1, always=True)
        self._push_tracks(always=True)

    def _stop_ascent(self) -> None:
        """End what runs or is paused."""
        ascent = self._ascent
        self._stop_tasks(lambda name: name == "ascent")
        if ascent is not None and ascent.paused and not ascent.over:
            ascent.over = True
            ascent.say("stopped")
            self._push_tracks(always=True)
            self._push_state()

    def stop(self) -> None:
        """End the view's long work where it is; what was found stays."""
        super().stop()
        self._stop_ascent()

    # --- tracks -----------------------------------------------------------------------------------

    def _track(self, key: int | None) -> Track:
        if key is not None and key in self._tracks:
            return self._tracks[key]
        if key is not None:
            there = ", ".join(map(str, self._tracks)) or "none"
            msg = f"There is no track {key}; there are {there}."
            raise InputError(msg)
        if not self._tracks:
            msg = "Nothing was optimised yet: start with climb()."
            raise InputError(msg)
        return max(self._tracks.values(), key=lambda track: track.best)

    def _pictures(self, kind: say.TrackKind) -> "Tensor":
        import torch

        found = [_best_of(each) for each in self._tracks.values() if each.kind == kind]
        shape = self._module_session().model.stimulus.example_shape(self._aim.drawing.size)
        return torch.stack(found) if found else torch.empty(0, *shape)

    def _ascended(self) -> "Tensor":
        """The best of what was started last, so far."""
        tracks = [] if self._ascent is None else self._ascent.tracks
        if not tracks:
            msg = "Nothing was drawn yet: its images are still being sorted."
            raise InputError(msg)
        return _best_of(max(tracks, key=lambda track: track.best))

    # --- what there is to draw --------------------------------------------------------------------

    def _activity(self) -> say.Activity | None:
        ascent = self._ascent
        if ascent is not None and not ascent.over:
            return say.Activity(mode=ascent.mode, paused=ascent.paused)
        return super()._activity()

    def _push_ascent_progress(self, ascent: Ascent) -> None:
        if self._shown and self._now_and_then("progress", always=False, every=FRAME_EVERY):
            done = sum(each.steps for each in ascent.optimizations)
            total = sum(each.climb.steps for each in ascent.optimizations)
            progress = say.Progress(job=ascent.mode, done=done, total=total)
            self._push(("progress", "ascent"), progress)

    def _push_frames(self, tracks: Sequence[Track], running: int, *, always: bool = False) -> None:
        if not self._shown:
            return
        for track in tracks:
            every = FRAME_EVERY * running
            if track.curve.steps and self._now_and_then(
                ("frame", track.key), always=always, every=every
            ):
                update = say.FrameUpdate(frame=self._frame(track), curve=_more(track))
                self._push(("frame", track.key), update, merge=_joined)
        self._push_tracks()

    def _push_tracks(self, *, always: bool = False) -> None:
        if self._shown and self._now_and_then("tracks", always=always, every=_TRACKS_EVERY):
            self._push("tracks", say.TracksUpdate(tracks=self._track_messages()))

    def _frame(self, track: Track, step: int | None = None) -> say.Frame:
        at, value = track.frame(step)
        return say.Frame(
            track=track.key,
            step=at,
            total=track.optimization.climb.steps,
            value=track.value if at == track.optimization.steps - 1 else track.value_at(at),
            picture=picture(self._module_session().model.stimulus, value),
        )

    def _track_messages(self) -> list[say.Track]:
        return [
            say.Track(
                key=each.key,
                kind=each.kind,
                objective=each.optimization.objective.text,
                label=each.label,
                status=each.status,
                step=each.optimization.steps,
                total=each.optimization.climb.steps,
                value=each.value if each.curve.values else None,
                best=each.best if math.isfinite(each.best) else None,
                kept=np.asarray(each.optimization.history.steps, dtype=np.int32),
                budget=self._budget,
                members=each.members,
                member_count=each.member_count,
                note=self._note_of(each),
            )
            for each in list(self._tracks.values())
        ]

    def _note_of(self, track: Track) -> str:
        return " ".join(filter(None, (track.optimization.note, track.note)))


def _best_of(track: Track) -> "Tensor":
    """Its best stimulus so far; the start before the first step."""
    optimization = track.optimization
    batch = optimization.best.frame if track.curve.steps else optimization.frame()
    return batch[track.item]


def _settle(ascent: Ascent, should_stop: ShouldStop) -> None:
    """Measure what an ascent has come to, as it is."""
    for optimization in ascent.optimizations:
        if optimization.steps:
            last, best = optimization.settle(should_stop)
            for track in ascent.of(optimization):
                track.settle(float(last[track.item]), float(best[track.item]))


def _saw(track: Track, found: "Step") -> None:
    value = float(found.values[track.item])
    track.curve.add(found.step, value)
    track.best = max(track.best, value)


def curve_message(track: Track, start: int = 0) -> say.TrackCurve:
    """What a curve has from one of its numbers on."""
    values = np.asarray(track.curve.values[start:], dtype=np.float32)
    return say.TrackCurve(track=track.key, start=start, stride=track.stride, values=values)


def _more(track: Track) -> say.TrackCurve:
    """What the page does not have yet of a curve; all of it where it was thinned since."""
    sent, stride = track.sent
    found = curve_message(track, sent if stride == track.stride else 0)
    track.sent = (found.start + len(found.values), found.stride)
    return found


def _joined(old: say.Message, new: say.Message) -> say.Message:
    """The newest frame, with what the curve has more than the page knows."""
    if not (isinstance(old, say.FrameUpdate) and isinstance(new, say.FrameUpdate)):
        return new
    before, after = old.curve, new.curve
    if after.start == 0 or before.stride != after.stride:
        return new
    values = np.concatenate([before.values, after.values])
    return new.model_copy(
        update={"curve": before.model_copy(update={"values": values})},
    )
