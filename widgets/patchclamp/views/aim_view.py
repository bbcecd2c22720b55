"""What every part of ActivationMaximizer needs: a session of either kind, and what is maximised.

The unit and the options are the session's (`Session.aim`), so that undo brings them back together
with the input, and two views of one session aim at the same thing. Nothing is computed here.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from torch import nn

from patchclamp.errors import InputError, ModelError, PatchclampError
from patchclamp.methods.aim import Aim, Drawing
from patchclamp.methods.objective import How, Objective, objective
from patchclamp.methods.unit_matters import why_not as why_not_ablated
from patchclamp.models.language_model import LanguageModel
from patchclamp.models.module_model import ModuleModel
from patchclamp.module_session import ModuleSession
from patchclamp.session import Session

from . import aims, rows
from . import messages as say
from .messages import Body, MaximizerMode, MessageError
from .pausable import PausableView
from .strip_view import StripView

if TYPE_CHECKING:
    import torch

    from patchclamp.methods.objective import What
    from patchclamp.session import Change

T = TypeVar("T")
_FIRST_PROMPT = "Hello"
_FIRST_SIZE = 128
"""Pixels of a picture where the model leaves them free: about four times as fast as 224."""
NO_PICTURES = (
    "This is a language model, which takes no stimulus that could be drawn: search for prompts "
    "instead (dream)."
)
NO_PROMPTS = "Prompts are searched for in language models; here a stimulus is optimised (climb)."
NO_PREDICTION = (
    "This model is an encoder: it predicts no next token, so that a prompt has no cross-entropy to "
    "be weighed against the activation."
)
NO_STACK = (
    "The session of a module has no stack of interventions: its parts are ablated by matter(), and "
    "by ModuleEngine.run(interventions=...)."
)
_HOWS_OF_MODULES: tuple[say.UnitHow, ...] = ("channel", "centre", "peak")
_HOWS_OF_PROMPTS: tuple[say.UnitHow, ...] = ("last", "peak")


class AimView(StripView, PausableView):
    """A view of a unit of a session's model, whichever kind of model it is.

    Of a language model's session it has the strip of the stack, and its prompt; what is optimised,
    searched for and measured here runs on the model without the stack.

    Args:
        model: a session, a module session, or a model, for which the view makes a session.
        unit: what is maximised; the session's own aim is kept without.
        how: which number of a unit that has many; see :mod:`patchclamp.methods.objective`.
        paths: what a function of activations reads.
        prompt: what the session of a language model begins with, where it is made here.
        seed: of whatever is drawn.

    Raises:
        PatchclampError: when the model has no such unit, or the front end was not built.
    """

    _session: Session | ModuleSession

    def __init__(
        self,
        model: Session | ModuleSession | LanguageModel | ModuleModel | Any,
        unit: "What | None" = None,
        *,
        how: How = "channel",
        paths: str | Sequence[str] = (),
        prompt: "str | torch.Tensor | None" = None,
        seed: int = 0,
    ) -> None:
        session, is_ours = _session(type(self).__name__, model, prompt)
        aim = session.aim or Aim(drawing=_first_drawing(session))
        if seed:
            drawing = replace(aim.drawing, seed=seed)
            aim = replace(aim, drawing=drawing, dreaming=replace(aim.dreaming, seed=seed))
        if unit is not None:
            aim = replace(aim, objective=_objective(session, unit, how, paths))
        if is_ours:
            session.begin_with_aim(aim)
        elif unit is not None or seed:
            session.set_aim(aim)
        self._seen_stack: tuple[int, object] | None = None
        given = session.experiment.given if isinstance(session, Session) else None
        super().__init__(session, given)

    # --- the same gestures, from Python -----------------------------------------------------------

    @property
    def session(self) -> Session | ModuleSession:
        """What the view looks at."""
        return self._session

    @property
    def objective(self) -> Objective | None:
        """What is maximised; None where no unit was chosen. Settable: an objective, or an address.

        Raises:
            AddressError: when the model has no such unit.
        """
        return self._aim.objective

    @objective.setter
    def objective(self, what: "What") -> None:
        self.aim(what)

    def aim(
        self, what: "What", how: How = "channel", *, paths: str | Sequence[str] = ()
    ) -> Objective:
        """Maximise something else from the next start on; one step of undo.

        Args:
            what: an address, a pair of a place and a vector, an objective, or a function.
            how: which number of a unit that has many.
            paths: what a function reads.

        Raises:
            AddressError: when the model has no such unit.
            InputError: when it is not one number.
        """
        found = _objective(self._session, what, how, paths)
        self._declare(replace(self._aim, objective=found))
        return found

    def set_options(self, **options: Any) -> None:
        """Change how pictures (:class:`Drawing`) or prompts are optimised from the next start on.

        Args:
            **options: of a module's pictures those of :class:`Drawing`, of a language model's
                prompts those of :class:`~patchclamp.methods.epo.Evolution`.

        Raises:
            InputError: when there is no such option, or it has no such value.
        """
        aim = self._aim
        if self._module is None:
            dreaming = _with(aim.dreaming, options)
            dreaming.check()
            self._declare(replace(aim, dreaming=dreaming))
        else:
            drawing = _with(aim.drawing, options)
            self._check_drawing(drawing)
            self._declare(replace(aim, drawing=drawing))

    def complete(self, prefix: str) -> list[str]:
        """Addresses that begin like this; of a module also outputs whose label has the text."""
        return [address for address, _ in self._completions(prefix)]

    # --- gestures from the page -------------------------------------------------------------------

    def _on_aim(self, message: say.Aim) -> None:
        aim = self._aim
        if aim.is_function:
            raise MessageError(self._fixed() or "", field="terms")
        session = self._session
        directions = session.directions if isinstance(session, Session) else {}
        with rows.about("terms"):
            found = aims.read_terms(session.model, message.terms, aim.objective, directions)
        self._declare(replace(aim, objective=found), ("aim", id(self), self._gesture))
        if message.final:
            self._next_gesture()

    def _on_options(self, message: say.Options) -> None:
        if self._module is None:
            raise MessageError(NO_PICTURES, field="kind")
        drawing = self._aim.drawing
        for name in type(message).model_fields.keys() & {each.name for each in fields(Drawing)}:
            value = getattr(message, name)
            if value is not None:
                drawing = replace(drawing, **{name: value})
                with rows.about(name):
                    self._check_drawing(drawing)
        gesture = ("options", id(self), self._gesture)
        self._declare(replace(self._aim, drawing=drawing), gesture)
        if message.final:
            self._next_gesture()

    def _on_pause(self, _message: say.Pause) -> None:
        self.pause()

    def _on_complete(self, message: say.Complete) -> Body:
        found = self._completions(message.prefix)
        labels = [label for _, label in found]
        return say.CompleteBody(
            items=[address for address, _ in found], labels=labels if any(labels) else None
        )

    def _on_prompt(self, message: say.Prompt) -> None:
        session = self._session
        if not isinstance(session, Session):
            raise MessageError(NO_PROMPTS, field="text")
        if message.text != session.text:
            with rows.about("text"):
                session.set_input(message.text, coalesce=("prompt", id(self), self._gesture))
        if message.final:
            self._next_gesture()

    # --- what is declared -------------------------------------------------------------------------

    @property
    def _module(self) -> ModuleSession | None:
        """The session, where its model is no language model."""
        return self._session if isinstance(self._session, ModuleSession) else None

    @property
    def _aim(self) -> Aim:
        return self._session.aim or Aim(drawing=_first_drawing(self._session))

    def _declare(self, aim: Aim, gesture: Any = None) -> None:
        self._session.set_aim(aim, coalesce=gesture)

    def _module_session(self) -> ModuleSession:
        """The session, or a sentence."""
        if self._module is None:
            raise ModelError(NO_PICTURES)
        return self._module

    def _language_session(self) -> Session:
        """The session, or a sentence."""
        if not isinstance(self._session, Session):
            raise ModelError(NO_PROMPTS)
        return self._session

    def _check_drawing(self, drawing: Drawing) -> None:
        """Say what cannot be drawn so.

        Raises:
            InputError: when the model cannot take the size, or another option makes no sense.
        """
        model = self._module_session().model
        model.stimulus.example_shape(drawing.size)

    def _completions(self, prefix: str) -> list[tuple[str, str]]:
        session = self._session
        if isinstance(session, ModuleSession):
            return aims.complete_units(session.model, prefix)
        own = [f"{site}[{name}]" for name, (site, _) in session.directions.items()]
        found = [each for each in own if each.startswith(prefix)]
        found += session.model.anatomy.complete(prefix, aims.COMPLETIONS)
        return [(each, "") for each in dict.fromkeys(found)][: aims.COMPLETIONS]

    def _refuse_mode(self, mode: MaximizerMode) -> None:
        """Say why something cannot be done here."""
        refusal = self._refusals()[mode]
        if refusal is not None:
            raise MessageError(refusal, field="kind")
        with rows.about("kind"):
            aims.objective_of(self._aim)

    # --- following the session --------------------------------------------------------------------

    @property
    def _stacked(self) -> Session:
        if not isinstance(self._session, Session):
            raise ModelError(NO_STACK)
        return self._session

    def _wake(self) -> None:
        """Nothing but the rows of the strip is measured before somebody asks."""
        self._follow_stack()

    def _changed(self, change: "Change") -> None:
        del change  # everything is read from the session
        self._follow_stack()
        self._push_state()

    def _follow_stack(self) -> None:
        """Measure what the strip shows, where that is not what it showed before."""
        session = self._session
        if not isinstance(session, Session):
            return
        self._follow_input()
        revision, experiment = session.revision, session.experiment
        rows_now = session.keys, session.interventions
        now = experiment.given, experiment.context, session.metric, rows_now
        before, self._seen_stack = self._seen_stack, (revision, now)
        if before is None or before[1] != now:
            # What is measured now is of a stack that is no more.
            self._stop_tasks(lambda name: name == "effects")
        elif self._effects is not None and self._effects[0] == before[0]:
            # Another aim leaves the effects as they are.
            self._effects = (revision, self._effects[1])
            self._push("effects", say.EffectsUpdate(revision=revision, rows=self._effects[1]))
            return
        if session.interventions:
            if self._unmeasured():
                self._start(
                    "measure", "measuring", self._measure_rows, then=self._rows_are_measured
                )
            self._settled.touch()

    def _effects_are_measured(self) -> None:
        self._push_state()  # the metric has its token now

    def _is_long(self, name: Hashable) -> bool:
        return name != "measure"

    def _is_of_the_prompt(self, name: Hashable) -> bool:
        return isinstance(name, tuple) and name[0] == "add"

    def _push_state(self) -> None:
        revision = self._session.revision
        self._push("maximizer", say.MaximizerUpdate(revision=revision, state=self._state()))

    def refresh(self) -> None:
        """Measure the rows of the strip; what was found is shown already."""
        if isinstance(self._session, Session) and self._session.interventions:
            self._session.submit(self._measure_rows).result()

    # --- what there is to draw --------------------------------------------------------------------

    def _activity(self) -> say.Activity | None:
        """What is being optimised, or paused."""
        return None

    def _refusals(self) -> dict[MaximizerMode, str | None]:
        """Why something cannot be done here, by mode; None where it can."""
        module = self._module
        found: dict[MaximizerMode, str | None] = dict.fromkeys(get_args(MaximizerMode))
        if module is None:
            model = self._language_session().model
            found |= dict.fromkeys(("climb", "facets", "diverse", "discriminate"), NO_PICTURES)
            if not model.anatomy.causal:
                found |= dict.fromkeys(("dream", "greedy", "single"), NO_PREDICTION)
        else:
            found |= dict.fromkeys(("dream", "greedy", "single"), NO_PROMPTS)
        aimed = self._aim.objective
        if aimed is not None:
            refused = [why_not_ablated(term.unit) for term in aimed.terms]
            found["matter"] = next(filter(None, refused), None)
        return found

    def _notes(self) -> list[str]:
        """What a reader must know."""
        note = self._session.model.note
        return [*([note] if note else []), *self._massive_note()]

    def _fixed(self) -> str | None:
        """Why the page cannot change the objective."""
        if not self._aim.is_function:
            return None
        return "A Python function is maximised; another unit is chosen from Python: view.aim(...)."

    def _corpus_name(self) -> str:
        """What examples are taken from; empty where there is nothing."""
        return ""

    def _state(self) -> say.MaximizerState:
        session, aim = self._session, self._aim
        model = session.model
        module = session if isinstance(session, ModuleSession) else None
        language = session if isinstance(session, Session) else None
        stimulus = None if module is None else module.model.stimulus
        text = "" if language is None else language.text
        if language is not None and text is None:
            text = "".join(token.text for token in language.tokens if not token.is_bos)
        return say.MaximizerState(
            model=model.name,
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            family="prompt" if stimulus is None else stimulus.renderer,
            shape=[] if stimulus is None else list(stimulus.shape),
            objective=aim.text,
            fixed=self._fixed(),
            terms=aims.terms(aim, model),
            hows=list(_HOWS_OF_PROMPTS if module is None else _HOWS_OF_MODULES),
            options=None if module is None else aims.drawing(aim.drawing, module.model),
            dreaming=None if language is None else aims.dreaming(aim.dreaming),
            modes=[
                say.ModeState(mode=mode, refusal=refusal)
                for mode, refusal in self._refusals().items()
            ],
            activity=self._activity(),
            input=module.input_name if module is not None else text or "",
            tokens=[]
            if language is None
            else [
                say.PromptToken(position=t.position, id=t.id, text=t.text, bos=t.is_bos)
                for t in language.tokens
            ],
            corpus=self._corpus_name(),
            strip=None if language is None else self._strip(language),
            can_undo=session.can_undo,
            can_redo=session.can_redo,
            notes=self._notes(),
        )

    def _strip(self, session: Session) -> say.Strip:
        metric = self._metric()
        return say.Strip(
            prompt=session.text,
            max_tokens=session.model.n_ctx,
            rows=self._strip_rows(),
            selected=self._selected if self._selected in session.keys else None,
            metric="" if metric is None else metric.label,
        )

    def _say_interrupted(self) -> None:
        """A cell that waited was interrupted: say what is left."""
        self._say_error(
            PatchclampError("It was interrupted; the best until then is kept and shown."),
            self._session.revision,
        )

    def pause(self) -> None:
        """Hold what is being optimised."""


def _first_drawing(session: Session | ModuleSession) -> Drawing:
    """A picture of a size that is drawn fast, where the model leaves its size free."""
    if isinstance(session, Session):
        return Drawing()
    stimulus = session.model.stimulus
    free = stimulus.renderer == "image" and stimulus.size is not None and None in stimulus.shape
    large = free and (stimulus.size or 0) > _FIRST_SIZE >= stimulus.smallest
    return Drawing(size=_FIRST_SIZE if large else None)


def _session(view: str, model: object, prompt: object) -> tuple[Session | ModuleSession, bool]:
    """The session that a view was given, or one of its own, and whether it is its own."""
    if isinstance(model, Session | ModuleSession):
        if prompt is not None:
            raise InputError(
                f"A session has its input already: {view}(session, unit); session.input = ... "
                "changes it."
            )
        return model, False
    if isinstance(model, ModuleModel):
        if prompt is not None:
            raise InputError(NO_PROMPTS)
        return ModuleSession(model), True
    if isinstance(model, str):
        raise ModelError(
            f"{view} takes a session or a model, not the text {model[:40]!r}: "
            f'{view}(patchclamp.load("efficientnet-lite0"), "_blocks.9:c17").'
        )
    if isinstance(model, nn.Module) and not hasattr(model, "config"):
        raise ModelError(
            f"A {type(model).__name__} does not say what it takes: wrap it as "
            "patchclamp.ModuleModel(module, patchclamp.Stimulus((3, None, None), size=224))."
        )
    given: Any = model
    made = Session(given, _FIRST_PROMPT if prompt is None else prompt)  # type: ignore[arg-type]
    return made, True


def _objective(
    session: Session | ModuleSession, what: "What", how: How, paths: str | Sequence[str]
) -> Objective:
    directions: Mapping[str, Any] = session.directions if isinstance(session, Session) else {}
    given: Any = aims.named(what, directions) if isinstance(what, str) else what
    return objective(session.model, given, how, paths=paths)


def _with(options: T, changed: Mapping[str, Any]) -> T:
    """The options with some changed; a sentence where there is no such option."""
    names = [each.name for each in fields(options)]  # type: ignore[arg-type]
    for name in changed:
        if name not in names:
            msg = f"There is no option {name!r}; there are {', '.join(names)}."
            raise InputError(msg)
    found: T = replace(options, **changed)  # type: ignore[type-var]
    return found
