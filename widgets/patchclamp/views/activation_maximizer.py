"""ActivationMaximizer: what drives a unit, found while you watch.

What is maximised is declared in `aim_view.py`, and the stack of a language model's session is in
`strip_view.py`; stimuli are optimised in `climb_view.py`, prompts searched for in `dream_view.py`;
the corpus is in `example_view.py`, the user's own input in `own_view.py`. Here is what belongs to
all of them: loading what was found into the session, and what a page that comes late, or a saved
one, is given.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
from pydantic import BaseModel

from patchclamp.errors import InputError

from . import messages as say
from . import rows
from .climb_view import Track, curve_message
from .discriminate_view import DiscriminateView
from .matter_view import MatterView
from .messages import Body, MessageError
from .own_view import OwnView
from .sheets import AnimationFormat, Tile, animation, sheet
from .stimulus_pictures import compressed, picture
from .view import Later, ShouldStop

if TYPE_CHECKING:
    from collections.abc import Callable

_KEPT_FRAMES = 24  # of a saved page, of each track
_ANIMATED = 120  # frames of an animation
_MIME = {"png": "image/png", "gif": "image/gif", "webp": "image/webp", "csv": "text/csv"}


class ActivationMaximizer(MatterView, OwnView, DiscriminateView, bundle="activation-maximizer"):
    """What drives a unit of any model: stimuli or prompts, optimised while the view shows them.

    A language model's session is there too, its prompt and its stack of interventions: what was
    found is loaded into it. All that is searched for and measured of the unit, though, is of the
    model without the stack.

    Args:
        model: a session, a module session, or a model, for which the view makes a session.
        unit: what is maximised: an address such as ``"_blocks.9:c17"`` or ``"L12.N304"``; a pair of
            a place and a direction there; a sum or difference of objectives
            (:func:`patchclamp.objective`); or a function of activations. The session's own aim is
            kept without.
        how: which number of a unit that has many: ``"channel"`` (its mean over space),
            ``"centre"``, ``"peak"``, or of a language model ``"last"``.
        paths: what a function of activations reads.
        corpus: what examples are taken from: texts, or stimuli in the declared range (a tensor, a
            list, or by name); by default what comes with the package, where that suits the model.
        prompt: what the session of a language model begins with, where it is made here.
        seed: of whatever is drawn; the same seed gives the same picture on the same machine.
        budget: bytes that the kept frames of an optimisation may take.

    Raises:
        PatchclampError: when the model has no such unit, or the front end was not built.

    Example:
        >>> view = pc.ActivationMaximizer(  # doctest: +SKIP
        ...     pc.load("efficientnet-lite0"), "_blocks.9:c17"
        ... )
        >>> view.climb(steps=256, size=128, wait=False)  # doctest: +SKIP
        >>> view.pause()
        ... view.climb()  # doctest: +SKIP
        >>> prompts = pc.ActivationMaximizer(pc.load("smollm2"), "L12.N304")  # doctest: +SKIP
        >>> prompts.dream(iterations=20).head()  # doctest: +SKIP
    """

    # --- the same gestures, from Python -----------------------------------------------------------

    def load(
        self,
        candidate: int | None = None,
        *,
        track: int | None = None,
        step: int | None = None,
    ) -> str:
        """Put what was found into the session: other views follow, and undo takes it back.

        Args:
            candidate: a prompt, by its key in `front`.
            track: a stimulus, by its key in `tracks`.
            step: of a stimulus, the nearest kept frame; None for the last.

        Returns:
            What the session's input is now.

        Raises:
            InputError: when there is no such prompt or stimulus, or both are named.
        """
        if (candidate is None) == (track is None):
            msg = "Name one thing to load: a candidate of the front, or a track."
            raise InputError(msg)
        if candidate is not None:
            return self._load_candidate(candidate)
        return self._load_frame(track, step)

    def _load_frame(self, key: int | None, step: int | None) -> str:
        session, track = self._module_session(), self._track(key)
        at, frame = track.frame(step)
        name = f"{track.label} for {track.optimization.objective.text}, step {at}"
        stimulus = session.model.stimulus
        session.set_input(frame.clamp(stimulus.low, stimulus.high), name=name)
        return name

    def sheet(self, path: "str | Path | None" = None) -> bytes:
        """Draw what was optimised, the best examples and the own input on one sheet, as PNG.

        Args:
            path: where to write it; None only returns it.

        Raises:
            InputError: when there is nothing to draw.
        """
        return _written(sheet(self._tiles(), title=self._aim.text), path)

    def animation(
        self, path: "str | Path | None" = None, *, track: int | None = None, kind: str = "gif"
    ) -> bytes:
        """Draw the kept frames of a track as they followed each other.

        Args:
            path: where to write it; its ending says the kind.
            track: which, by its key in `tracks`; None for the highest.
            kind: "gif" or "webp", where no path says it.

        Raises:
            InputError: when there is no such track or kind.
        """
        if path is not None:
            kind = Path(path).suffix.removeprefix(".").lower()
        if kind not in get_args(AnimationFormat):
            msg = f"Animations are written as gif or webp, not {kind!r}."
            raise InputError(msg)
        frames = self._kept_frames(self._track(track), _ANIMATED)
        pictures = [frame.picture for frame in frames]
        return _written(animation(pictures, cast("AnimationFormat", kind)), path)

    # --- gestures from the page -------------------------------------------------------------------

    def _on_load(self, message: say.Load) -> Body:
        named = [
            name
            for name in ("candidate", "track", "example", "stimulus")
            if getattr(message, name) is not None
        ]
        with rows.about(named[0] if named else "candidate"):
            if len(named) == 1 and message.example is not None:
                return say.LoadBody(input=self._load_example(*message.example))
            if len(named) == 1 and message.stimulus is not None:
                return say.LoadBody(input=self._load_stimulus(message.stimulus))
            loaded = self.load(message.candidate, track=message.track, step=message.step)
        return say.LoadBody(input=loaded)

    def _on_save(self, message: say.Save) -> Later:
        job = self._save_job(message)
        return self._answer_later(message.id, ("save", message.id), "writing a file", job)

    def _save_job(self, message: say.Save) -> "Callable[[ShouldStop], say.SaveBody]":
        kinds = {"sheet": {"png"}, "animation": {"gif", "webp"}}.get(message.what, {"csv"})
        if message.format not in kinds:
            msg = f"A {message.what} is written as {' or '.join(sorted(kinds))}."
            raise MessageError(msg, field="format")

        def job(_should_stop: ShouldStop) -> say.SaveBody:
            if message.what == "sheet":
                data = self.sheet()
            elif message.what == "animation":
                data = self.animation(track=message.track, kind=message.format)
            else:
                table = self.front if message.what == "front" else self.history
                data = table.to_csv(index=False).encode()
            return say.SaveBody(
                name=f"{_file_name(self._aim.text)}-{message.what}.{message.format}",
                mime=_MIME[message.format],
                data=np.frombuffer(data, dtype=np.uint8),
            )

        return job

    def _tiles(self) -> list[Tile]:
        """What a sheet shows."""
        found = []
        for track in self._tracks.values():
            if track.curve.steps:
                best = track.optimization.best
                stimulus = self._module_session().model.stimulus
                shown = picture(stimulus, best.frame[track.item])
                found.append(
                    Tile(shown, track.label, f"{track.value_at(best.step):.3g} at step {best.step}")
                )
        measured = self._examples_message()
        best_group = [] if measured is None or not measured.groups else measured.groups[0].examples
        own = self._own_message()
        measured_ones = [*best_group, *([] if own is None else [own])]
        return found + [
            Tile(each.picture, each.name, f"{each.activation:.3g}")
            for each in measured_ones
            if each.picture is not None
        ]

    # --- what there is to draw --------------------------------------------------------------------

    def _everything(self) -> say.MaximizerBody:
        tracks = list(self._tracks.values())
        return say.MaximizerBody(
            revision=self._session.revision,
            state=self._state(),
            tracks=self._track_messages(),
            curves=[curve_message(track) for track in tracks],
            frames=[self._frame(track) for track in tracks if track.curve.steps],
            front=self._front_message(),
            examples=self._examples_message(),
            own=self._own_message(),
            matter=self._matter_message(),
            discrimination=self._clusters_message(),
            effects_revision=None if self._effects is None else self._effects[0],
            effects=[] if self._effects is None else self._effects[1],
        )

    def _to_save(self) -> say.MaximizerBody:
        """The same for a saved page: pictures as files, and kept frames to scrub through."""
        found = self._everything()
        kept = [frame for track in self._tracks.values() for frame in self._kept_frames(track)]
        smaller: say.MaximizerBody = _smaller(found.model_copy(update={"frames": kept}))
        return smaller

    def _cuts(self, hello: say.MaximizerBody) -> list[tuple[str, dict[str, Any]]]:
        last = {frame.track: frame for frame in hello.frames}
        bare = [track.model_copy(update={"members": []}) for track in hello.tracks]
        return [
            ("effects", {"effects": [], "effects_revision": None}),
            ("frames", {"frames": hello.frames[::3]}),
            ("frames", {"frames": list(last.values())}),
            ("members", {"tracks": bare}),
            ("examples", {"examples": None}),
            ("discrimination", {"discrimination": None}),
            ("front", {"front": None}),
            ("pictures", {"frames": [], "own": None}),
            ("curves", {"curves": []}),
        ]

    def _kept_frames(self, track: Track, most: int = _KEPT_FRAMES) -> list[say.Frame]:
        """Some of a track's frames, evenly spaced, and the last one."""
        steps = track.optimization.history.steps
        if not steps:
            return []
        count = min(most, len(steps))
        chosen = sorted({steps[(len(steps) - 1) * n // max(1, count - 1)] for n in range(count)})
        return [self._frame(track, step) for step in chosen]


def _written(data: bytes, path: "str | Path | None") -> bytes:
    if path is not None:
        Path(path).write_bytes(data)
    return data


def _file_name(text: str) -> str:
    """A unit's name as a file's: letters, digits and what stands between them."""
    return re.sub(r"[^\w.-]+", "-", text).strip("-.")[:60] or "unit"


def _smaller(value: Any) -> Any:
    """The same with every picture in it compressed."""
    if isinstance(value, say.Picture):
        return compressed(value)
    if isinstance(value, BaseModel):
        names = type(value).model_fields
        changed = {name: _smaller(getattr(value, name)) for name in names}
        return value.model_copy(update=changed)
    if isinstance(value, list):
        return [_smaller(each) for each in value]
    return value
