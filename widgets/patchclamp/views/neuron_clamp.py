"""NeuronClamp: put neurons of a live model on sliders and see what it would say instead.

What it shares with other views on a session is in `stack_view.py`; here are dose-response curves,
rankings of neurons and continuations of the prompt.
"""

from collections.abc import Callable, Generator, Hashable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from patchclamp.errors import InterventionError, PatchclampError, Stopped
from patchclamp.methods.dose_response import dose_response
from patchclamp.methods.ranking import rank_neurons
from patchclamp.session import Change

from . import messages as say
from . import rows
from .messages import Measure, Range, Side
from .stack_view import StackView
from .strip_view import is_number
from .view import Later, ShouldStop

if TYPE_CHECKING:
    import pandas as pd

CURVE_POINTS = 25


class NeuronClamp(StackView, bundle="neuron-clamp"):
    """Sliders on a model's neurons, and the prediction before and after.

    Args:
        model: a session; or a model, with a prompt, for which the view makes a session.
        prompt: a text or token ids, where a model is given.
        **options: of the session that is made, such as ``contrast`` or ``metric``.

    Raises:
        PatchclampError: when the prompt cannot be run, or the front end was not built.

    Example:
        >>> model = pc.load("smollm2")  # doctest: +SKIP
        >>> clamp = pc.NeuronClamp(model, "The Eiffel Tower is in")  # doctest: +SKIP
        >>> clamp.add("L12.N304@-1", value=8.0)  # doctest: +SKIP
        0
    """

    def _forget(self, given: Hashable) -> None:
        super()._forget(given)
        self._curves: dict[int, say.CurveEntry] = {}
        self._generated: dict[Side, say.GeneratedText] = {}

    # --- the same gestures, from Python ----------------------------------------------------------

    def rank(
        self,
        by: Measure = "activation",
        *,
        position: int = -1,
        count: int = 20,
        massive: bool = False,
    ) -> "pd.DataFrame":
        """The prompt's neurons that matter most; see `patchclamp.methods.ranking`.

        Args:
            by: "activation", "direct" (effect on the metric's token) or "gradient" (x activation).
            position: where.
            count: how many.
            massive: whether neurons behind the massive-activation mask are listed too.

        Returns:
            One neuron a row: address, value, massive.
        """
        import pandas as pd

        job = self._rank_job(by, position, count, massive=massive)
        body = self._session.submit(job).result()
        return pd.DataFrame([item.model_dump() for item in body.items])

    def curve(self, row: int | str) -> "pd.DataFrame":
        """A row's dose-response curve: value, metric (its unit) and KL (nats) at 25 values."""
        import pandas as pd

        key = self._key(row)
        self._session.submit(self._curve_job(key), priority="sweep").result()
        curve = self._curves[key].curve
        return pd.DataFrame({"value": curve.values, "metric": curve.logprob, "kl": curve.kl})

    def generate(
        self, count: int = 40, *, seed: int = 0, temperature: float = 0.0
    ) -> dict[str, str]:
        """Continue the prompt, baseline and clamped, with one seed.

        Returns:
            The two texts, {"baseline": ..., "clamped": ...}.
        """
        self._session.submit(self._generate_job(count, seed, temperature)).result()
        return {side: text.text for side, text in self._generated.items()}

    # --- gestures from the page ------------------------------------------------------------------

    def _on_rank(self, message: say.Rank) -> Later:
        position = -1 if message.position is None else message.position
        job = self._rank_job(message.by, position, message.count, massive=message.massive)
        return self._answer_later(message.id, "rank", "ranking neurons", job)

    def _on_curve(self, message: say.Curve) -> None:
        with rows.about("key"):
            self._session.intervention(message.key)
        self._start(
            ("curve", message.key),
            "measuring a dose-response curve",
            self._curve_job(message.key),
            then=lambda _none: None,
            priority="sweep",
        )

    def _on_generate(self, message: say.Generate) -> None:
        self._stop_tasks(lambda name: name == "generate")
        self._start(
            "generate",
            "generating",
            self._generate_job(message.count, message.seed, message.temperature),
            then=lambda _none: None,
            failed=self._generation_ended,
        )

    # --- following the session -------------------------------------------------------------------

    def _wake(self) -> None:
        super()._wake()
        self._start_reference()

    def _changed(self, change: Change) -> None:
        gone = self._curves.keys() - set(self._session.keys)
        for key in gone:
            self._curves.pop(key, None)
            self._stop_tasks(lambda name, key=key: name == ("curve", key))  # type: ignore[misc]
        super()._changed(change)

    def _is_of_the_prompt(self, name: Hashable) -> bool:
        return name == "generate" or super()._is_of_the_prompt(name)

    # --- on the worker ---------------------------------------------------------------------------

    def _rank_job(
        self, by: Measure, position: int, count: int, *, massive: bool
    ) -> Callable[[ShouldStop], Any]:
        _, experiment, metric, _ = self._stack()
        baseline = self._session.baseline

        def job(should_stop: ShouldStop) -> Generator[None, None, say.RankBody]:
            yield from self._reference_job(should_stop)  # the mask needs it
            found = rank_neurons(
                experiment,
                by,
                measure=self._measuring(metric, baseline),
                position=position,
                count=count,
                include_massive=massive,
                should_stop=should_stop,
            )
            return say.RankBody(
                by=by,
                items=[
                    say.Ranked(address=f"{n.address}@{position}", value=n.score, massive=n.massive)
                    for n in found
                ],
            )

        return job

    def _curve_job(self, key: int) -> Callable[[ShouldStop], Any]:
        def job(should_stop: ShouldStop) -> Generator[None, None, None]:
            revision, experiment, metric, places = self._stack()
            measured = self._session.intervention(key)
            index = places.get(key)
            if index is None:  # a muted row's curve is of what it would do
                index = len(experiment.stack)
                experiment = experiment.under((*experiment.stack, measured.replace(muted=False)))
            if is_number(measured.site) and rows.address_of(measured.site) not in self._measured:
                self._measure(measured.site, self._session.baseline)
            span = self._span(key, measured)
            if span is None or not isinstance(measured.value, float):
                raise InterventionError(f"{rows.label(measured)}: there is no value to vary.")
            values = _outwards(span, measured.value)
            doses: list[tuple[float, float, float]] = []
            measure = self._measuring(metric, self._session.baseline)
            for chunk in dose_response(
                experiment, index, values, measure=measure, should_stop=should_stop
            ):
                doses += [(dose.value, dose.metric, dose.kl) for dose in chunk]
                self._show_curve(key, revision, doses, len(values))
                yield

        return job

    def _show_curve(
        self, key: int, revision: int, doses: list[tuple[float, float, float]], total: int
    ) -> None:
        ordered = np.asarray(sorted(doses), dtype=np.float32).T
        curve = say.DoseResponse(values=ordered[0], logprob=ordered[1], kl=ordered[2])
        if key not in self._session.keys:
            return
        self._curves[key] = say.CurveEntry(key=key, revision=revision, curve=curve)
        self._push(("curve", key), say.CurveUpdate(key=key, revision=revision, curve=curve))
        progress = say.Progress(job="curve", key=key, done=len(doses), total=total)
        self._push(("progress", "curve", key), progress)

    def _generate_job(
        self, count: int, seed: int, temperature: float
    ) -> Callable[[ShouldStop], Any]:
        from patchclamp.engine.generate import generate

        experiment = self._session.experiment
        sides = {"baseline": experiment.under(()), "clamped": experiment}

        def job(should_stop: ShouldStop) -> Generator[None, None, None]:
            self._generated = {}
            for token in generate(
                sides, count=count, seed=seed, temperature=temperature, should_stop=should_stop
            ):
                self._show_token(
                    cast("Side", token.side), token.text, token.id, token.index, done=token.done
                )
                yield

        return job

    def _show_token(self, side: Side, text: str, token: int, index: int, *, done: bool) -> None:
        before = self._generated.get(side)
        whole = (before.text if before is not None else "") + text
        self._generated[side] = say.GeneratedText(
            side=side, text=whole, tokens=index + 1, done=done
        )
        message = say.Generated(side=side, text=text, token=token, index=index, done=done)
        self._push(("generated", side), message, merge=_joined)

    def _generation_ended(self, error: PatchclampError) -> None:
        """Stopped or failed: what is there stays, and both sides are over."""
        if self._closed:
            return
        for side, text in list(self._generated.items()):
            if not text.done:
                self._show_token(side, "", -1, text.tokens, done=True)
        if not isinstance(error, Stopped):
            self._say_error(error, self._session.revision)

    # --- what there is to draw -------------------------------------------------------------------

    def _cuts(self, hello: Any) -> list[tuple[str, dict[str, Any]]]:
        own: list[tuple[str, dict[str, Any]]] = [
            ("curves", {"curves": []}),
            ("generated", {"generated": []}),
        ]
        return [*own, *super()._cuts(hello)]

    def _everything(self) -> say.HelloBody:
        self._follow_input()
        revision, state = self._session.revision, self._state()
        result, found = self._result, self._effects
        return say.HelloBody(
            revision=revision,
            state=state,
            result_revision=None if result is None else result[0],
            result=None if result is None else result[1],
            curves=list(self._curves.values()),
            effects_revision=None if found is None else found[0],
            effects=[] if found is None else found[1],
            generated=list(self._generated.values()),
        )


def _outwards(span: Range, value: float) -> list[float]:
    """Evenly spaced values over a range, the nearest to the present one first."""
    values = np.linspace(span.low, span.high, CURVE_POINTS).tolist()
    return sorted(values, key=lambda v: abs(v - value))


def _joined(old: say.Message, new: say.Message) -> say.Message:
    """One message of two of the same side that waited together."""
    if not (isinstance(old, say.Generated) and isinstance(new, say.Generated)) or not new.index:
        return new
    return new.model_copy(update={"text": old.text + new.text, "index": old.index})
