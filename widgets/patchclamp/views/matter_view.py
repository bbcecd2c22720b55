"""Whether a unit matters: what ablating it on the input that drives it does to the output."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from patchclamp.errors import InputError, PatchclampError, Stopped
from patchclamp.methods.unit_matters import Matter, Trial, unit_matters

from . import aims, rows
from . import messages as say
from .facet_view import FacetView, stacked
from .view import ShouldStop

if TYPE_CHECKING:
    from torch import Tensor

    from patchclamp.methods.objective import Objective
    from patchclamp.methods.unit_matters import How

_REFERENCES = 64  # stimuli that means are taken over


class MatterView(FacetView):
    """The part of ActivationMaximizer that asks whether the unit matters."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._matter: tuple[Objective, str, Matter] | None = None
        super().__init__(*args, **options)

    # --- the same gestures, from Python -----------------------------------------------------------

    def matter(
        self,
        candidate: int | None = None,
        *,
        track: int | None = None,
        how: "How | None" = None,
        seed: int = 0,
    ) -> Matter:
        """Ablate the unit on the input that drives it, and random units of its layer beside it.

        Args:
            candidate: a prompt, by its key in `front`; None for the strongest.
            track: a stimulus, by its key in `tracks`; None for the highest. Where nothing was
                optimised, the session's input is taken.
            how: to its "mean" over the reference texts, or the corpus' stimuli, or to "zero"; None
                for the mean where there is something to take it over.
            seed: of the random units.

        Returns:
            The activation against the corpus' maximum (where `examples` has measured it), and what
            each ablation does to the output.

        Raises:
            InputError: when there is no such prompt or stimulus, or the unit is what cannot be
                ablated: a logit of a language model, or a function.
            AddressError: when no unit was chosen.
        """
        target, given, subject = self._matters_of(candidate, track)
        job = self._matter_job(target, given, how, seed)
        found: Matter = self._session.submit(job, priority="sweep").result()
        self._take_matter(target, subject, found)
        return found

    # --- gestures from the page -------------------------------------------------------------------

    def _on_matter(self, message: say.Matter) -> None:
        self._refuse_mode("matter")
        with rows.about("candidate" if message.candidate is not None else "track"):
            target, given, subject = self._matters_of(message.candidate, message.track)
        self._start(
            "matter",
            "ablating the unit",
            self._matter_job(target, given, None, 0),
            then=lambda found: self._take_matter(target, subject, found),
            failed=self._matter_failed,
            priority="sweep",
        )

    # --- measuring --------------------------------------------------------------------------------

    def _matters_of(
        self, candidate: int | None, track: int | None
    ) -> "tuple[Objective, Tensor, str]":
        """What is asked about, the input that it is asked on, and what that is in words."""
        target = aims.objective_of(self._aim)
        if refusal := self._refusals()["matter"]:
            raise InputError(refusal)
        if self._module is None:
            return (target, *self._prompt_of(candidate))
        if track is None and not self._tracks:
            given = self._module.input
            if given is None:
                msg = "There is no input to ablate the unit on: optimise one first, or set one."
                raise InputError(msg)
            return target, given, self._module.input_name or "the session's input"
        chosen = self._track(track)
        best = chosen.optimization.best
        subject = f"{chosen.label}, step {best.step}"
        return target, best.frame[chosen.item], subject

    def _prompt_of(self, candidate: int | None) -> "tuple[Tensor, str]":
        session = self._language_session()
        found = self._all_candidates()
        if candidate is not None:
            ids = self._ids_of(candidate)
        elif found:
            ids = max(found, key=lambda each: each[1].activation)[1].ids
        else:
            return session.ids, session.text or self._joined(tuple(session.ids.tolist()))
        return torch.tensor(ids), self._joined(ids)

    def _matter_job(
        self, target: "Objective", given: "Tensor", how: "How | None", seed: int
    ) -> Callable[[ShouldStop], Matter]:
        engine = self._session.engine
        corpus = None if self._no_corpus() is not None else self._corpus()

        def job(should_stop: ShouldStop) -> Matter:
            if self._module is None:
                reference: Any = self._language_session().reference
            else:
                model = self._module.model
                reference = None if corpus is None else stacked(model, corpus, _REFERENCES)
            way = how or ("zero" if reference is None else "mean")
            trial = Trial(how=way, reference=reference, seed=seed)
            return unit_matters(
                engine,
                target,
                given,
                trial,
                corpus_maximum=self._corpus_maximum(target),
                should_stop=should_stop,
            )

        return job

    def _corpus_maximum(self, target: "Objective") -> float | None:
        if self._scanned is None or self._scanned[0] != target:
            return None
        return self._scanned[2].maximum

    def _take_matter(self, target: "Objective", subject: str, found: Matter) -> None:
        self._matter = (target, subject, found)
        self._push("matter", say.MatterUpdate(matter=self._matter_message()))

    def _matter_failed(self, error: PatchclampError) -> None:
        if not isinstance(error, Stopped):
            self._say_error(error, self._session.revision)

    # --- what there is to draw --------------------------------------------------------------------

    def _matter_message(self) -> say.Matters | None:
        if self._matter is None:
            return None
        target, subject, found = self._matter
        return say.Matters(
            objective=target.text,
            unit=found.unit.address,
            subject=subject,
            how=found.how,
            activation=found.activation,
            corpus_maximum=found.corpus_maximum,
            kl=found.unit.effect,
            measured=found.measured,
            controls=[
                say.RandomUnit(address=each.address, kl=each.effect) for each in found.controls
            ],
            note=found.note,
        )
