"""One model, one input and one stack of interventions, which any number of views observe."""

from __future__ import annotations

import json
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import torch

from patchclamp.engine.engine import Engine
from patchclamp.engine.experiment import Experiment, Run
from patchclamp.engine.generate import generate
from patchclamp.engine.hooks import check_intervention
from patchclamp.engine.surroundings import Reference, Surroundings, input_of, reference_inputs
from patchclamp.errors import (
    InputError,
    InterventionError,
    ModelError,
    PatchclampError,
    Stopped,
)
from patchclamp.history import Change, History, State, read_session
from patchclamp.interventions import Intervention
from patchclamp.methods import prompt_sets
from patchclamp.methods.metric import (
    KL,
    Custom,
    LogitDifference,
    LogProb,
    Loss,
    Metric,
    metric_from_json,
)
from patchclamp.methods.prompt_sets import PromptSet, ReadPairs
from patchclamp.methods.task import Task as PairTask
from patchclamp.models.language_model import LanguageModel
from patchclamp.models.module_model import ModuleModel
from patchclamp.sites import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Hashable, Iterable, Mapping, Sequence

    from torch import Tensor, nn

    from patchclamp.engine.generate import Generated
    from patchclamp.engine.plan import Input
    from patchclamp.methods.circuit import Selection

    ShouldStop = Callable[[], bool]

__all__ = [
    "KL",
    "Change",
    "Custom",
    "LogProb",
    "LogitDifference",
    "Loss",
    "Session",
    "Token",
]


_KEPT_RUNS = 8
_FORMAT = 1


@dataclass(frozen=True)
class Token:
    """One token of the input.

    Attributes:
        position: counted from 0.
        id: its number in the vocabulary.
        text: its text, with its leading space.
        is_bos: whether it is the beginning-of-sequence token.
    """

    position: int
    id: int
    text: str
    is_bos: bool


@dataclass(frozen=True)
class _State(State):
    """All that undo brings back. Compared by identity of its parts; never changed in place."""

    given: Input
    text: str | None
    chat: bool
    contrast: Input | None
    contrast_text: str | None
    metric: Metric
    stack: tuple[tuple[int, Intervention], ...]
    directions: tuple[tuple[str, str, tuple[float, ...]], ...] = ()
    pairs: ReadPairs | None = None
    shown: int = 0
    circuit: Selection | None = None

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        return tuple(iv for _, iv in self.stack)


class Session(History[_State]):
    """One model, one input, one stack of interventions; a baseline run and a current run.

    Args:
        model: the model; a Hugging Face model or a ``TransformerBridge`` becomes one, and then
            inputs are token ids, unless the bridge has a tokenizer.
        input: a text, or a 1-D tensor of token ids, which is taken as it is. With pairs it may be
            left out, or be the clean prompt of the pair that is to be shown.
        contrast: a second input (a corrupted prompt, say) that :class:`patchclamp.Patch` takes
            values from.
        metric: what is measured about the next token; by default the log-probability of the
            token that is likeliest without interventions; with pairs the logit difference of the
            answer and the wrong one.
        reference: texts or token ids over which means and spreads are taken; by default a small
            shipped set, or, without a tokenizer, the input itself.
        chat: put texts through the model's chat template.
        interventions: the stack to begin with.
        pairs: prompt pairs that effects are averaged over; see :attr:`pairs`.

    Raises:
        InputError: when there is neither input nor pairs, or the input is empty, too long or not
            one of the model's, or the pairs do not fit it.
        AddressError: when an intervention is at a site that the model does not have.
    """

    def __init__(
        self,
        model: LanguageModel | nn.Module,
        input: str | Tensor | None = None,  # noqa: A002 (the word that users say)
        *,
        contrast: str | Tensor | None = None,
        metric: Metric | None = None,
        reference: Sequence[str | Tensor] | None = None,
        chat: bool = False,
        interventions: Iterable[Intervention] = (),
        pairs: PromptSet | None = None,
    ) -> None:
        self.model = _language_model(model)
        self.engine = Engine.of(self.model)
        self._next_key = 0
        self._runs: OrderedDict[Hashable, Run] = OrderedDict()
        self._reference = reference_inputs(self.model, reference)
        self._measured: tuple[Hashable, Reference] | None = None
        self._task: tuple[Hashable, PairTask] | None = None
        if pairs is not None:
            state = self._of_pairs(pairs, input, contrast, metric, chat=chat)
        elif input is None:
            msg = "A session needs an input, a text or token ids, or pairs of prompts."
            raise InputError(msg)
        else:
            given, text = self._read(input, chat=chat)
            other, other_text = self._read_contrast(contrast, chat=chat)
            state = _State(given, text, chat, other, other_text, metric or LogProb(), ())
        self._check_metric(state.metric, state.given)
        super().__init__(state, self.engine.queue)
        self._state = replace(self._state, stack=self._keyed(interventions))

    def __repr__(self) -> str:
        shown = self.text if self.text is not None else f"{len(self.ids)} token ids"
        count = len(self.interventions)
        stack = f"{count} intervention{'' if count == 1 else 's'}"
        return f"Session({self.model.name}, {shown!r}, {stack})"

    # What it is -----------------------------------------------------------------------------------

    @property
    def ids(self) -> Tensor:
        """LongTensor[pos], the token ids of the input."""
        return torch.tensor(self._state.given.ids)

    @property
    def has_bos(self) -> bool:
        """Whether position 0 is a beginning-of-sequence token."""
        return self._state.given.has_bos

    @property
    def text(self) -> str | None:
        """The input as it was typed; None when it was given as token ids."""
        return self._state.text

    @property
    def chat(self) -> bool:
        """Whether texts go through the model's chat template."""
        return self._state.chat

    @property
    def tokens(self) -> tuple[Token, ...]:
        """The tokens of the input."""
        return tuple(
            Token(position, token, self.model.token_text(token), self.has_bos and position == 0)
            for position, token in enumerate(self._state.given.ids)
        )

    @property
    def input(self) -> str | Tensor:
        """The input: the text, or token ids. Settable."""
        return self._state.text if self._state.text is not None else self.ids

    @input.setter  # noqa: A003 (the property above, not the builtin)
    def input(self, value: str | Tensor) -> None:
        self.set_input(value)

    def set_input(self, value: str | Tensor, *, coalesce: Hashable | None = None) -> None:
        """Take another input; pairs that it is not shown from are dropped.

        Args:
            value: a text, or a 1-D tensor of token ids.
            coalesce: inputs in a row with the same value here are one step of undo: typing.

        Raises:
            InputError: when it cannot be run.
            PatchclampError: when the stack cannot act on it.
        """
        given, text = self._read(value, chat=self._state.chat)

        def make(state: _State) -> _State:
            new = replace(state, given=given, text=text)
            if given != state.given:
                new = replace(new, pairs=None, shown=0)
            return self._checked(new)

        self._change("input", make, coalesce=coalesce)

    @property
    def contrast(self) -> str | Tensor | None:
        """The second input, or None. Settable; pairs that it is not shown from are dropped."""
        if self._state.contrast is None:
            return None
        text = self._state.contrast_text
        return text if text is not None else torch.tensor(self._state.contrast.ids)

    @contrast.setter
    def contrast(self, value: str | Tensor | None) -> None:
        given, text = self._read_contrast(value, chat=self._state.chat)

        def make(state: _State) -> _State:
            new = replace(state, contrast=given, contrast_text=text)
            if given != state.contrast:
                new = replace(new, pairs=None, shown=0)
            self._check_stack(new.interventions, new)
            return new

        self._change("contrast", make)

    @property
    def metric(self) -> Metric:
        """What is measured about the next token. Settable.

        Pairs stay while it is of another kind only: of the shown pair's own tokens, or of none.
        """
        return self._state.metric

    @metric.setter
    def metric(self, value: Metric) -> None:
        self._check_metric(value, self._state.given)

        def make(state: _State) -> _State:
            new = replace(state, metric=value)
            if state.pairs is None:
                return new
            meant = state.pairs.tokens[state.shown]
            named = () if value == LogProb() else value.tokens(self.model, -1)
            if named == meant[: len(named)]:
                return new
            return replace(new, pairs=None, shown=0)

        self._change("metric", make)

    @property
    def target(self) -> int:
        """The id of the token that the metric is about.

        Of a metric without tokens (KL, loss) the one that is likeliest without interventions.
        """
        found = self.metric_tokens()
        return found[0] if found else self._likeliest()

    def metric_tokens(self) -> tuple[int, ...]:
        """Return the ids that the metric is about, none of KL, loss and a function of the user's.

        Runs the baseline if it needs its likeliest.
        """
        metric = self._state.metric
        likeliest = -1
        if isinstance(metric, LogProb) and metric.token is None:
            likeliest = self._likeliest()
        return metric.tokens(self.model, likeliest)

    def _likeliest(self) -> int:
        return int(self.baseline.rows([-1])[0].argmax())

    # Pairs and circuits ---------------------------------------------------------------------------

    @property
    def pairs(self) -> PromptSet | None:
        """The prompt pairs that effects are averaged over; None for the prompt alone. Settable.

        One pair of them is shown: its clean prompt is the input, its corrupt one the contrast, its
        answer and the wrong one the tokens of a metric that has any. All of that is one step of
        undo. Another input, contrast or token, set by hand, drops the pairs.

        Raises:
            InputError: when they do not fit the model; see
                :func:`patchclamp.methods.prompt_sets.read`.
        """
        return None if self._state.pairs is None else self._state.pairs.given

    @pairs.setter
    def pairs(self, value: PromptSet | None) -> None:
        if value is None:
            if self._state.pairs is not None:
                self._change("pairs", lambda s: replace(s, pairs=None, shown=0))
            return
        read = self._read_pairs(value, chat=self._state.chat)

        def make(state: _State) -> _State:
            # The likeliest token of a prompt is not what a pair is about.
            named = state.metric != LogProb()
            metric = state.metric if named else LogProb(read.given.pairs[0].answer)
            return self._checked(_showing(replace(state, pairs=read, metric=metric), 0))

        self._change("pairs", make)

    @property
    def shown_pair(self) -> int:
        """Which of the pairs is shown, counted from 0."""
        return self._state.shown

    def show_pair(self, index: int) -> None:
        """Show another of the pairs.

        Raises:
            InputError: when there are no pairs, or not so many.
        """

        def make(state: _State) -> _State:
            count = 0 if state.pairs is None else len(state.pairs.given.pairs)
            if not 0 <= index < count:
                there = f"0 to {count - 1}" if count else "there are none: set session.pairs"
                msg = f"There is no pair {index} ({there})."
                raise InputError(msg)
            return self._checked(_showing(state, index))

        if self._state.pairs is None or index != self._state.shown:
            self._change("pairs", make)

    @property
    def circuit(self) -> Selection | None:
        """Which edges are in the circuit that is looked at, or None. Settable."""
        return self._state.circuit

    @circuit.setter
    def circuit(self, value: Selection | None) -> None:
        self.set_circuit(value)

    def set_circuit(self, value: Selection | None, *, coalesce: Hashable | None = None) -> None:
        """Take another circuit.

        Args:
            value: which edges are in it.
            coalesce: circuits in a row with the same value here are one step of undo: a drag.
        """
        if value != self._state.circuit:
            self._change("circuit", lambda s: replace(s, circuit=value), coalesce=coalesce)

    @property
    def task(self) -> PairTask:
        """The pairs, or else the prompt with its contrast, and the metric: what circuits are of."""
        with self._lock:
            state, experiment = self._state, self.experiment
            surroundings = experiment.surroundings
            if state.pairs is not None:
                clean, why = state.pairs.clean, ""
                corrupt: tuple[Input, ...] | None = state.pairs.corrupt
                tokens = tuple(_wanted(state.metric, pair) for pair in state.pairs.tokens)
            else:
                clean, tokens = (state.given,), ((),)
                why = _why_no_corrupt(state)
                corrupt = None if why or state.contrast is None else (state.contrast,)
            context = (experiment.context, clean, corrupt, state.metric, tokens, experiment.stack)
            if self._task is None or self._task[0] != context:
                made = PairTask(
                    engine=self.engine,
                    clean=clean,
                    corrupt=corrupt,
                    metric=state.metric,
                    tokens=tokens,
                    reference=surroundings.reference,
                    stack=experiment.stack,
                    directions=surroundings.directions,
                    why_no_corrupt=why,
                    context=context,
                    contrast=state.contrast,
                )
                self._task = (context, made)
            return self._task[1]

    # The stack ------------------------------------------------------------------------------------

    @property
    def interventions(self) -> tuple[Intervention, ...]:
        """The stack, applied in order. Settable as a whole: one step of undo."""
        return self._state.interventions

    @interventions.setter
    def interventions(self, value: Iterable[Intervention]) -> None:
        wanted = tuple(value)
        self._change("interventions", lambda s: replace(s, stack=self._keyed(wanted)))

    @property
    def keys(self) -> tuple[int, ...]:
        """A name for each intervention that stays while it is edited and moved."""
        return tuple(key for key, _ in self._state.stack)

    def intervention(self, key: int) -> Intervention:
        """Return one intervention by its key.

        Raises:
            InterventionError: when it is gone.
        """
        return self._state.stack[self._index(key)][1]

    def add(self, intervention: Intervention) -> int:
        """Put an intervention at the end of the stack; returns its key."""
        self._check_stack([intervention], self._state)
        with self._lock:
            key = self._next_key
            self._next_key += 1
        self._change("interventions", lambda s: replace(s, stack=(*s.stack, (key, intervention))))
        return key

    def edit(
        self, key: int, intervention: Intervention, *, coalesce: Hashable | None = None
    ) -> None:
        """Replace an intervention.

        Args:
            key: which.
            intervention: the new one.
            coalesce: edits in a row with the same value here are one step of undo: a drag.
        """
        self._check_stack([intervention], self._state)

        def make(state: _State) -> _State:
            stack = list(state.stack)
            stack[self._index(key)] = (key, intervention)
            return replace(state, stack=tuple(stack))

        if self.intervention(key) != intervention:
            self._change("interventions", make, coalesce=coalesce)

    def remove(self, key: int) -> None:
        """Take an intervention off the stack."""

        def make(state: _State) -> _State:
            stack = list(state.stack)
            del stack[self._index(key)]
            return replace(state, stack=tuple(stack))

        self._change("interventions", make)

    def move(self, key: int, index: int) -> None:
        """Put an intervention at another place of the stack, counted without it."""

        def make(state: _State) -> _State:
            stack = list(state.stack)
            item = stack.pop(self._index(key))
            stack.insert(max(0, min(index, len(stack))), item)
            return replace(state, stack=tuple(stack))

        self._change("interventions", make)

    def reset(self) -> None:
        """Empty the stack; undo brings it back."""
        if self._state.stack:
            self._change("interventions", lambda s: replace(s, stack=()))

    def define(self, name: str, site: str, vector: Any) -> Site:
        """Name a direction, so that ``L12.resid_post[dog]`` is a site like any other.

        A value along a direction d is the coefficient (x · d) / (d · d); adding v adds v d. The
        vector is taken as it is, not scaled to length 1.

        Args:
            name: what to call it.
            site: where it lives, such as ``"L12.resid_post"``.
            vector: Float[d_model], a tensor, an array, a probe's weights, a difference of means.

        Returns:
            The new site.

        Raises:
            InterventionError: when the vector has another size, is zero or is not finite.
        """
        where = Site.parse(f"{site}[{name}]")
        try:
            values = torch.as_tensor(vector).detach().float().cpu().flatten()
        except (TypeError, ValueError, RuntimeError) as error:
            msg = f"A direction is a vector of numbers, not a {type(vector).__name__} ({error})."
            raise InterventionError(msg) from error
        width = self.model.anatomy.d_model
        if values.numel() != width:
            msg = f"A direction at {site} has {width} numbers, not {values.numel()}."
            raise InterventionError(msg)
        if not bool(torch.isfinite(values).all()) or not bool(values.any()):
            msg = f"The direction {name!r} must be finite and not all zero."
            raise InterventionError(msg)
        self.model.anatomy.check(where, len(self.ids))
        new = (name, site, tuple(values.tolist()))

        def make(state: _State) -> _State:
            kept = tuple(d for d in state.directions if d[0] != name)
            return replace(state, directions=(*kept, new))

        self._change("directions", make)
        return where

    @property
    def directions(self) -> Mapping[str, tuple[str, Tensor]]:
        """The named directions: where each lives, and its vector."""
        return {name: (site, torch.tensor(vector)) for name, site, vector in self._state.directions}

    # Runs -----------------------------------------------------------------------------------------

    @property
    def experiment(self) -> Experiment:
        """The input under the stack, for the methods of :mod:`patchclamp.methods`."""
        state = self._state
        stack = tuple(iv for _, iv in state.stack if not iv.muted)
        surroundings = self._surroundings(state)
        context = (
            surroundings.reference.inputs,
            state.contrast,
            state.directions,
            self.model.weights_version,
        )
        return Experiment(self.engine, state.given, stack, surroundings, context)

    @property
    def baseline(self) -> Run:
        """The run without interventions; computed when asked."""
        return self._run(self.experiment.under(()))

    @property
    def current(self) -> Run:
        """The run under the stack as it is now; computed when asked."""
        return self._run(self.experiment)

    @property
    def reference(self) -> Reference:
        """The reference set and its statistics."""
        return self._surroundings(self._state).reference

    def generate(
        self,
        count: int = 20,
        *,
        seed: int = 0,
        temperature: float = 0.0,
        on_token: Callable[[str, Generated], None] | None = None,
    ) -> dict[str, str]:
        """Continue the input, without and with the interventions, with one seed for both.

        Args:
            count: the most tokens.
            seed: of the sampling; both sides draw with the same noise.
            temperature: 0 takes the likeliest token.
            on_token: called with "baseline" or "clamped" and each token as it comes, on the
                calling thread, never while the model is held.

        Returns:
            The two texts, by side.

        Raises:
            InputError: when count or temperature make no sense, or the input fills the context.
            Stopped: when somebody stopped the model's queue.
        """
        experiment = self.experiment
        sides = {"baseline": experiment.under(()), "clamped": experiment}
        arrived: SimpleQueue[Generated | None] = SimpleQueue()

        def job(stop: ShouldStop) -> Generator[None, None, None]:
            for token in generate(
                sides, count=count, seed=seed, temperature=temperature, should_stop=stop
            ):
                arrived.put(token)
                yield

        task = self.submit(job)
        task.add_done_callback(lambda _: arrived.put(None))
        texts = dict.fromkeys(sides, "")
        try:
            while (token := _next(arrived)) is not None:
                texts[token.side] += token.text
                if on_token is not None:
                    on_token(token.side, token)
        except BaseException:  # an interrupt, or the callback's own error
            task.cancel()
            with suppress(Stopped):
                task.result()  # the model is free again
            raise
        task.result()
        return texts

    # Keeping it -----------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Return the session as JSON; the model is named, not included.

        Raises:
            PatchclampError: when the metric, or what is maximised, is a Python function.
        """
        state = self._state
        return {
            "format": _FORMAT,
            "model": self.model.name,
            "input": state.text if state.text is not None else list(state.given.ids),
            "chat": state.chat,
            "contrast": None
            if state.contrast is None
            else (
                state.contrast_text if state.contrast_text is not None else list(state.contrast.ids)
            ),
            "metric": state.metric.to_json(),
            "reference": [list(one.ids) for one in self._reference] or None,
            "directions": [
                {"name": n, "site": s, "vector": list(v)} for n, s, v in state.directions
            ],
            "interventions": [iv.to_json() for _, iv in state.stack],
            "pairs": None if state.pairs is None else state.pairs.given.to_json(),
            "shown_pair": state.shown,
            "circuit": None if state.circuit is None else state.circuit.to_json(),
            "aim": None if state.aim is None else state.aim.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], model: LanguageModel) -> Session:
        """Make a session of what :meth:`to_json` gave.

        Raises:
            PatchclampError: when it is not a session of this version, or not one of this model.
        """
        if data.get("format") != _FORMAT:
            msg = f"This is not a session that this version reads (format {data.get('format')!r})."
            raise InputError(msg)

        def read(value: Any) -> Any:
            return torch.tensor(value) if isinstance(value, list) else value

        try:
            reference, pairs = data["reference"], data.get("pairs")
            session = cls(
                model,
                read(data["input"]),
                contrast=read(data["contrast"]),
                metric=metric_from_json(data["metric"]),
                reference=None if reference is None else [read(one) for one in reference],
                chat=bool(data["chat"]),
            )
            if pairs is not None:
                session.pairs = PromptSet.from_json(pairs)
                session.show_pair(int(data["shown_pair"]))
                session.metric = metric_from_json(data["metric"])
            circuit = data.get("circuit")
            if circuit is not None:
                from patchclamp.methods.circuit import Selection

                session.circuit = Selection.from_json(circuit)
            for direction in data["directions"]:
                session.define(direction["name"], direction["site"], direction["vector"])
            session.interventions = [Intervention.from_json(one) for one in data["interventions"]]
            aim = data.get("aim")
            if aim is not None:
                from patchclamp.methods.aim import Aim

                session.begin_with_aim(Aim.from_json(model, aim))
        except PatchclampError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            msg = f"This session cannot be read ({type(error).__name__}: {error})."
            raise InputError(msg) from error
        session._undo.clear()
        return session

    def save(self, path: str | Path) -> None:
        """Write the session to a JSON file.

        Raises:
            PatchclampError: when the metric, or what is maximised, is a Python function.
        """
        Path(path).write_text(json.dumps(self.to_json(), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path, model: LanguageModel) -> Session:
        """Read a session from a JSON file.

        Raises:
            PatchclampError: when the file does not hold a session of this model.
        """
        return cls.from_json(read_session(path), model)

    def to_code(self) -> str:
        """Return Python that makes the current run again with TransformerLens alone."""
        from patchclamp.code import to_code

        return to_code(self)

    # Inside ---------------------------------------------------------------------------------------

    def _read(self, value: str | Tensor, *, chat: bool) -> tuple[Input, str | None]:
        if isinstance(value, str):
            return input_of(self.model, self.model.to_ids(value, chat=chat)), value
        return input_of(self.model, self.model.check_ids(value)), None

    def _read_contrast(
        self, value: str | Tensor | None, *, chat: bool
    ) -> tuple[Input | None, str | None]:
        return (None, None) if value is None else self._read(value, chat=chat)

    def _read_pairs(self, value: object, *, chat: bool) -> ReadPairs:
        if not isinstance(value, PromptSet):
            what = type(value).__name__
            msg = f"Pairs are a patchclamp.PromptSet, such as prompt_set(...) gives, not a {what}."
            raise InputError(msg)
        return prompt_sets.read(value, self.model, chat=chat)

    def _of_pairs(
        self,
        pairs: PromptSet,
        given: str | Tensor | None,
        contrast: str | Tensor | None,
        metric: Metric | None,
        *,
        chat: bool,
    ) -> _State:
        """Make the state of a session that begins with pairs."""
        read = self._read_pairs(pairs, chat=chat)
        shown = 0
        if given is not None:
            there = [n for n, pair in enumerate(pairs.pairs) if pair.clean == given]
            if not there:
                msg = "The input is the clean prompt of none of the pairs: leave one of them out."
                raise InputError(msg)
            shown = there[0]
        if contrast is not None:
            msg = "Pairs bring their own contrast, the corrupt prompts: leave out contrast=."
            raise InputError(msg)
        first = pairs.pairs[0]
        chosen = metric or LogitDifference(first.answer, first.wrong)
        state = _State(read.clean[0], first.clean, chat, None, None, chosen, (), pairs=read)
        return _showing(state, shown)

    def _checked(self, state: _State) -> _State:
        """Return a state that can be, or say why it cannot."""
        self._check_metric(state.metric, state.given)
        self._check_stack(state.interventions, state)
        return state

    def _check_metric(self, metric: object, given: Input) -> None:
        if not isinstance(metric, Metric):
            msg = (
                "A metric is LogProb(...), LogitDifference(...), KL(), Loss() or Custom(...), not "
                f"{type(metric).__name__}."
            )
            raise InputError(msg)
        metric.tokens(self.model, 0)
        metric.rows(len(given.ids))

    def _check_stack(self, stack: Iterable[object], state: _State) -> None:
        given, surroundings = state.given, self._surroundings(state)
        for iv in stack:
            if not isinstance(iv, Intervention):
                what = type(iv).__name__
                msg = f"The stack takes interventions such as patchclamp.Clamp, not {what}."
                raise InterventionError(msg)
            check_intervention(iv, self.model.anatomy, len(given.ids), has_bos=given.has_bos)
            surroundings.check(iv, given)

    def _keyed(self, interventions: Iterable[Intervention]) -> tuple[tuple[int, Intervention], ...]:
        """Give each intervention a key; one that is on the stack already keeps its own."""
        wanted = list(interventions)
        self._check_stack(wanted, self._state)
        free = list(self._state.stack)
        keyed = []
        for iv in wanted:
            found = next((pair for pair in free if pair[1] == iv), None)
            if found is not None:
                free.remove(found)
                keyed.append(found)
            else:
                keyed.append((self._next_key, iv))
                self._next_key += 1
        return tuple(keyed)

    def _index(self, key: int) -> int:
        for index, (found, _) in enumerate(self._state.stack):
            if found == key:
                return index
        msg = "This intervention is no longer on the stack."
        raise InterventionError(msg)

    def _surroundings(self, state: _State) -> Surroundings:
        inputs = self._reference or (state.given,)
        with self._lock:
            key = (inputs, self.model.weights_version)
            if self._measured is None or self._measured[0] != key:
                self._measured = (key, Reference(self.engine, inputs))
            reference = self._measured[1]
        directions = {name: torch.tensor(vector) for name, _, vector in state.directions}
        return Surroundings(self.engine, reference, state.contrast, directions)

    def _run(self, experiment: Experiment) -> Run:
        key = (experiment.given, experiment.stack, experiment.context)
        with self._lock:
            if key not in self._runs:
                self._runs[key] = Run(experiment)
                while len(self._runs) > self._most_runs(experiment):
                    self._runs.popitem(last=False)
            self._runs.move_to_end(key)
            return self._runs[key]

    def _most_runs(self, experiment: Experiment) -> int:
        """Return how many runs to keep: fewer of a long input, two at least."""
        a = self.model.anatomy
        a_row = 4 * a.n_layers * (a.d_model + 2 * a.n_kv_heads * a.d_head)
        return max(2, min(_KEPT_RUNS, self.engine.budget // (2 * a_row * experiment.length)))


def _language_model(model: object) -> LanguageModel:
    if isinstance(model, LanguageModel):
        return model
    if isinstance(model, ModuleModel):
        msg = (
            f"{model.name} is a ModuleModel, which takes no text: use "
            "patchclamp.ModuleSession(model), or a view such as "
            "patchclamp.ActivationMaximizer(model, unit)."
        )
        raise ModelError(msg)
    return LanguageModel(model)


def _showing(state: _State, index: int) -> _State:
    """Let one of a state's pairs be its input, its contrast and the tokens of its metric."""
    assert state.pairs is not None  # noqa: S101 (who calls has set them)
    pair, metric = state.pairs.given.pairs[index], state.metric
    if isinstance(metric, LogitDifference):
        metric = LogitDifference(pair.answer, pair.wrong)
    elif isinstance(metric, LogProb) and metric.token is not None:
        metric = LogProb(pair.answer)
    return replace(
        state,
        given=state.pairs.clean[index],
        text=pair.clean,
        contrast=state.pairs.corrupt[index],
        contrast_text=pair.corrupt,
        metric=metric,
        shown=index,
    )


def _wanted(metric: Metric, tokens: tuple[int, int]) -> tuple[int, ...]:
    """Return what a metric takes of a pair's tokens; none where it takes the likeliest."""
    if isinstance(metric, LogitDifference):
        return tokens
    return tokens[:1] if isinstance(metric, LogProb) and metric.token is not None else ()


def _why_no_corrupt(state: _State) -> str:
    """Say why the contrast is no corrupt prompt; nothing where it is one."""
    if state.contrast is None:
        return "There is no corrupt prompt: set session.contrast, or session.pairs."
    if len(state.contrast.ids) == len(state.given.ids):
        return ""
    return (
        f"The prompt has {len(state.given.ids)} tokens and the contrast prompt "
        f"{len(state.contrast.ids)}: values are patched position by position, so both need the "
        "same length."
    )


def _next(arrived: SimpleQueue[Generated | None]) -> Generated | None:
    while True:  # short waits, so that an interrupt gets through on every system
        with suppress(Empty):
            return arrived.get(timeout=0.1)
