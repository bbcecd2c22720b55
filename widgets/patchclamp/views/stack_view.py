"""What every view on a session's prompt is: the prompt, the stack, and what the stack changes.

The stack itself is in `strip_view.py`; what one view alone shows is in its own module.
"""

import time
from collections.abc import Generator, Hashable, Mapping
from typing import TYPE_CHECKING, Any, cast

import torch

from patchclamp.errors import InputError, InterventionError, ModelError
from patchclamp.methods.divergence import (
    cosine_distance_by_position,
    kl_by_position,
    kl_in_steps,
)
from patchclamp.methods.metric import LogProb, Metric
from patchclamp.models.language_model import LanguageModel
from patchclamp.session import Change, Session

from . import messages as say
from . import rows
from .messages import Body, MessageError
from .strip_view import NO_PREDICTION, StripView
from .view import Later, ShouldStop

if TYPE_CHECKING:
    import pandas as pd

    from patchclamp.engine.experiment import Run

TOP = 10
"""How many next tokens of either side are shown."""
_LONG = 1024
"""Tokens of a prompt from which on other requests are served while a result is measured."""
_COMPLETIONS = 20
_TOKENS = 30


class StackView(StripView):
    """A view of a session's prompt, stack of interventions, metric and prediction.

    Args:
        model: a session; or a model, with a prompt, for which the view makes a session.
        prompt: a text or token ids, where a model is given without ``pairs``.
        **options: of the session that is made, such as ``contrast``, ``metric`` or ``pairs``.

    Raises:
        PatchclampError: when the prompt cannot be run, or the front end was not built.
    """

    _session: Session

    def __init__(
        self,
        model: Session | LanguageModel | Any,
        prompt: "str | torch.Tensor | None" = None,
        **options: Any,
    ) -> None:
        session = _session(type(self).__name__, model, prompt, options)
        self._reasons: tuple[str, ...] = ()
        self._vocabulary: list[tuple[int, str]] = []
        super().__init__(session, session.experiment.given)

    def _forget(self, given: Hashable) -> None:
        super()._forget(given)
        self._result: tuple[int, say.Result] | None = None

    # --- the same gestures, from Python ----------------------------------------------------------

    @property
    def session(self) -> Session:
        """What the view looks at."""
        return self._session

    @property
    def prompt(self) -> str | None:
        """The session's text; None when it was given token ids. Settable."""
        return self._session.text

    @prompt.setter
    def prompt(self, text: str) -> None:
        self._session.input = text

    def complete(self, prefix: str) -> list[str]:
        """Addresses that begin like this, the session's own directions first."""
        own = [a for a in self._direction_addresses() if a.startswith(prefix)]
        found = self._session.model.anatomy.complete(prefix, _COMPLETIONS)
        return list(dict.fromkeys([*own, *found]))[:_COMPLETIONS]

    @property
    def next_tokens(self) -> "pd.DataFrame":
        """The likeliest next tokens: id, text, probabilities before and after.

        Raises:
            ModelError: when the model predicts no next token.
        """
        import pandas as pd

        if not self._predicts:
            raise ModelError(NO_PREDICTION)

        StackView.refresh(self)  # a view's own pictures may take long
        top = () if self._result is None else self._result[1].top
        return pd.DataFrame(
            [share.model_dump() for share in top], columns=["id", "text", "before", "after"]
        )

    def refresh(self) -> None:
        """Compute what the view shows now and wait for it; a page that is open gets it too."""
        if self._result is None or self._result[0] != self._session.revision:
            self._show_result(self._session.submit(self._compute).result())
        self._session.submit(self._measure_rows).result()

    # --- gestures from the page ------------------------------------------------------------------

    def _on_prompt(self, message: say.Prompt) -> None:
        if message.text != self._session.text:
            gesture = ("prompt", id(self), self._gesture)
            with rows.about("text"):
                self._session.set_input(message.text, coalesce=gesture)
        if message.final:
            self._next_gesture()

    def _on_target(self, message: say.Target) -> None:
        if not self._predicts:
            raise MessageError(NO_PREDICTION, field="token")
        with rows.about("token"):
            self._session.metric = LogProb(message.token)

    def _on_complete(self, message: say.Complete) -> Body:
        return say.CompleteBody(items=self.complete(message.prefix))

    def _on_tokens(self, message: say.Tokens) -> Later:
        def job(_should_stop: ShouldStop) -> say.TokensBody:
            return say.TokensBody(items=self._find_tokens(message.query))

        return self._answer_later(message.id, "tokens", "looking up tokens", job)

    @property
    def _stacked(self) -> Session:
        return self._session

    # --- following the session -------------------------------------------------------------------

    def _wake(self) -> None:
        self._start_result()
        self._settled.touch()

    def _changed(self, change: Change) -> None:
        del change  # everything is read from the session
        self._follow_input()
        # What is measured now is of a stack that is no more.
        self._stop_tasks(lambda name: name == "effects")
        self._push_state()
        self._start_result()
        self._settled.touch()

    def _is_long(self, name: Hashable) -> bool:
        """Whether a job of this name is long work, which Stop ends."""
        return name not in {"result", "measure"}

    def _start_result(self) -> None:
        self._start("result", "computing", self._compute, then=self._show_result)

    def _show_result(self, found: tuple[int, say.Result]) -> None:
        revision, result = found
        fresh = self._result is None
        with self._lock:
            if self._result is None or self._result[0] <= revision:
                self._result = found
        self._push("result", say.ResultUpdate(revision=revision, result=result))
        self._settled.touch()
        if self._shown and (fresh or self._unmeasured()):
            self._start("measure", "measuring", self._measure_rows, then=self._rows_are_measured)

    def _may_measure(self, revision: int) -> bool:
        # On its way, which comes back to this; or failed, and so would the effects.
        return self._result is not None and self._result[0] == revision

    def _push_state(self) -> None:
        self._push("state", say.StateUpdate(revision=self._session.revision, state=self._state()))

    # --- on the worker ---------------------------------------------------------------------------

    def _compute(self, should_stop: ShouldStop) -> Generator[None, None, tuple[int, say.Result]]:
        """What the model does under the stack as it is now, and the revision that it is of."""
        began = time.perf_counter()
        revision, before, after, metric = self._consistent()
        after.compute(should_stop)
        self._reasons = self._session.engine.shortcuts.reasons
        if self._predicts:
            found = yield from self._predictions(before, after, metric, should_stop)
        else:
            found = self._representations(before, after, should_stop)
        work = after.work
        seconds = time.perf_counter() - began
        done = say.Work(blocks=work.blocks, positions=work.positions, seconds=seconds, way=work.way)
        return revision, say.Result(work=done, **found)

    def _predictions(
        self, before: "Run", after: "Run", metric: Metric, should_stop: ShouldStop
    ) -> Generator[None, None, dict[str, Any]]:
        """The next tokens, the metric, and how far each position's prediction moved."""
        measure = self._measuring(metric, before)
        logits = {"before": before.rows([-1])[0], "after": after.rows([-1])[0]}
        _check_finite(logits["after"])
        shares = _shares(before.log_probs().exp(), after.log_probs().exp())
        text = self._session.model.token_text
        measured = say.BeforeAfter(before=measure.of_run(before), after=measure.of_run(after))
        if before.experiment.length >= _LONG:
            moved = yield from kl_in_steps(before, after)
        else:  # in one go: between two steps a drag's next result would take this one's place
            moved = kl_by_position(before, after, should_stop)
        return {
            "top": [say.Share(id=i, text=text(i), before=b, after=a) for i, b, a in shares],
            "metric": measured,
            "moved": moved.numpy(),
        }

    def _representations(
        self, before: "Run", after: "Run", should_stop: ShouldStop
    ) -> dict[str, Any]:
        """Of an encoder: how far each position's last residual stream turned."""
        moved = cosine_distance_by_position(before, after, should_stop)
        _check_finite(moved)
        return {"top": [], "metric": None, "moved": moved.numpy(), "moved_as": "cosine"}

    def _consistent(self) -> "tuple[int, Run, Run, Metric]":
        """Both runs and the metric of one revision; the session may change at any moment."""
        session = self._session
        while True:
            revision = session.revision
            parts = (session.baseline, session.current, session.metric)
            if session.revision == revision:
                return revision, *parts

    def _tokens(self, metric: Metric, baseline: "Run") -> tuple[int, ...]:
        """The metric's tokens, or the likeliest one where it has none; on the worker."""
        found = self._measuring(metric, baseline).tokens[0].tolist()
        return tuple(found) or (int(baseline.rows([-1])[0].argmax()),)

    def _find_tokens(self, query: str) -> list[say.TokenName]:
        """Tokens that a target could be: exactly the query, then those that contain it."""
        model = self._session.model
        if not query:
            return [say.TokenName(id=i, text=t) for i, t, _ in self._session.baseline.top(_TOKENS)]
        if not self._vocabulary:
            size = model.anatomy.d_vocab
            self._vocabulary = [(i, model.token_text(i)) for i in range(size)]
        wanted = query.strip().casefold() or query

        def far(text: str) -> tuple[bool, bool, bool, int]:
            begins = text.strip().casefold().startswith(wanted)
            return text != query, text.strip() != query.strip(), not begins, len(text)

        found = [(far(t), i, t) for i, t in self._vocabulary if wanted in t.casefold()]
        return [say.TokenName(id=i, text=t) for _, i, t in sorted(found)[:_TOKENS]]

    # --- what there is to draw -------------------------------------------------------------------

    def _cuts(self, hello: Any) -> list[tuple[str, dict[str, Any]]]:
        return [
            ("effects", {"effects": [], "effects_revision": None}),
            ("result", {"result": None, "result_revision": None}),
            *super()._cuts(hello),
        ]

    def _state(self) -> say.State:
        session = self._session
        model = session.model
        return say.State(
            model=model.name,
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            tokens=[
                say.PromptToken(position=t.position, id=t.id, text=t.text, bos=t.is_bos)
                for t in session.tokens
            ],
            prompt=session.text,
            max_tokens=model.n_ctx,
            rows=self._strip_rows(),
            selected=self._selected if self._selected in session.keys else None,
            metric=self._metric(),
            directions=self._direction_addresses(),
            can_undo=session.can_undo,
            can_redo=session.can_redo,
            notes=self._notes(),
            reference=say.Reference(ready=self._massive is not None),
        )

    def _notes(self) -> list[str]:
        notes = self._massive_note()
        given = self._session.experiment.given
        if [one.ids for one in self._session.reference.inputs] == [given.ids]:
            notes.append(
                "There are no reference texts: means and spreads are taken over this prompt alone."
            )
        return [*notes, *self._reasons]


def _session(view: str, model: object, prompt: object, options: Mapping[str, Any]) -> Session:
    """The session that a view was given, or one of its own."""
    if isinstance(model, Session):
        if prompt is not None or options:
            raise InputError(
                f"A session has its prompt already: {view}(session), or {view}(model, "
                "prompt) for a session of its own; session.input = ... changes the prompt."
            )
        return model
    if isinstance(model, str):
        raise ModelError(
            f"{view} takes a session or a model, not the text {model[:40]!r}: "
            f'{view}(patchclamp.load("smollm2"), "a prompt").'
        )
    if prompt is None and options.get("pairs") is None:
        raise InputError(f'A model needs a prompt: {view}(model, "a prompt").')
    given = cast("str | torch.Tensor | None", prompt)
    return Session(cast("LanguageModel", model), given, **options)


def _check_finite(values: torch.Tensor) -> None:
    if not bool(torch.isfinite(values).all()):
        raise InterventionError(
            "Under this stack the model's output is no longer finite; take a smaller value."
        )


def _shares(before: torch.Tensor, after: torch.Tensor) -> list[tuple[int, float, float]]:
    """Both sides' likeliest tokens with both probabilities, by the larger of the two."""
    count = min(TOP, len(before))
    ids = {*before.topk(count).indices.tolist(), *after.topk(count).indices.tolist()}
    found = [(i, float(before[i]), float(after[i])) for i in ids]
    return sorted(found, key=lambda share: (-max(share[1:]), share[0]))
