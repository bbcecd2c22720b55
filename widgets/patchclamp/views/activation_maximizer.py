"""ActivationMaximizer: what drives a unit, found while you watch.

What is maximised is declared in `aim_view.py`; stimuli are optimised in `climb_view.py`, prompts
searched for in `dream_view.py`. Here is what belongs to all of them: loading what was found into
the session, and what a page that comes late, or a saved one, is given.
"""

from typing import Any

from pydantic import BaseModel

from patchclamp.errors import InputError

from . import messages as say
from . import rows
from .climb_view import Track, curve_message
from .matter_view import MatterView
from .messages import Body
from .stimulus_pictures import compressed

_KEPT_FRAMES = 24  # of a saved page, of each track


class ActivationMaximizer(MatterView, bundle="activation-maximizer"):
    """What drives a unit of any model: stimuli or prompts, optimised while the view shows them.

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
            loaded = self.load(message.candidate, track=message.track, step=message.step)
        return say.LoadBody(input=loaded)

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
            discrimination=None,
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
            ("frames", {"frames": hello.frames[::3]}),
            ("frames", {"frames": list(last.values())}),
            ("members", {"tracks": bare}),
            ("examples", {"examples": None}),
            ("discrimination", {"discrimination": None}),
            ("front", {"front": None}),
            ("pictures", {"frames": [], "own": None}),
            ("curves", {"curves": []}),
        ]

    def _kept_frames(self, track: Track) -> list[say.Frame]:
        """Some of a track's frames, evenly spaced, and the last one."""
        steps = track.optimization.history.steps
        if not steps:
            return []
        count = min(_KEPT_FRAMES, len(steps))
        chosen = sorted({steps[(len(steps) - 1) * n // max(1, count - 1)] for n in range(count)})
        return [self._frame(track, step) for step in chosen]


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
