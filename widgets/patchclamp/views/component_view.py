"""What each component does to a metric: ablated, patched and looked into, on prompt pairs.

The first half of a CircuitAblator; `circuit_ablator.py` has the other, circuits. What a click on a
component does to the stack is in `ablations.py`; how what was measured becomes a message in
`component_pictures.py`. Everything here is measured under the stack.
"""

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, get_args

import numpy as np

from patchclamp.errors import InputError, MetricError, ModelError
from patchclamp.methods.ablation import (
    Parts,
    component_effects,
    component_estimates,
    components,
    effects_cost,
    into_head,
    into_mlp,
    why_no_estimate,
)
from patchclamp.methods.activation_patching import activation_patching, patching_cost
from patchclamp.methods.interaction import Interaction, interaction
from patchclamp.methods.levels import level
from patchclamp.methods.metric import KL, LogitDifference, LogProb, Loss, Metric
from patchclamp.methods.prompt_sets import NAMES, PromptSet, describe, prompt_set
from patchclamp.methods.task import Task
from patchclamp.models.language_model import LanguageModel
from patchclamp.session import Change, Session
from patchclamp.sites import Site, SiteSet

from . import ablations, rows
from . import component_pictures as pictures
from . import messages as say
from .messages import Body, Direction, MessageError, Over, Replacement
from .pace import Settled
from .stack_view import StackView
from .strip_view import NO_PREDICTION
from .view import LATER, Later, ShouldStop, _weakly

if TYPE_CHECKING:
    import pandas as pd
    import torch

T = TypeVar("T")
Kind = tuple[Direction, Over]
"""What kind of patching."""

MAPPING = "ablating every component"
PATCHING = "patching activations"
SETTLED_AFTER = 0.3
"""Seconds without a change until what takes long is measured again."""
_KEPT_MAPS = 8
_KEPT_TASKS = 3
_SHOWN_PAIRS = 100
# Jobs that answer one gesture at once: neither Stop nor another prompt ends them.
_ANSWERS = frozenset({"drill", "edge", "interact", "export", "check"})


@dataclass(frozen=True, eq=False)
class Kept(Generic[T]):
    """Something measured.

    Attributes:
        key: what it was measured on.
        revision: the session's when it was asked for.
        value: what was measured.
    """

    key: Hashable
    revision: int
    value: T


@dataclass(frozen=True, eq=False)
class Declared:
    """What is measured on, at one revision of the session."""

    revision: int
    task: Task

    @property
    def key(self) -> Hashable:
        """What effects depend on."""
        return key_of(self.task)

    @property
    def bare_key(self) -> Hashable:
        """What circuits depend on: all but the stack."""
        return key_of(self.task, stack=False)


class ComponentView(StackView):
    """A view of what components do to a metric, averaged over prompt pairs.

    Args:
        model: a session; or a model, with a prompt or pairs, for which the view makes a session.
        prompt: a text or token ids, where a model is given.
        metric: what is measured; the session's is kept without.
        pairs: prompt pairs, or the name of a set that comes with the package; the session's are
            kept without.
        **options: of the session that is made, such as ``contrast`` (the corrupt prompt).

    Raises:
        PatchclampError: when the prompt cannot be run, or the front end was not built.
    """

    def __init__(
        self,
        model: Session | Any,
        prompt: "str | torch.Tensor | None" = None,
        *,
        metric: Metric | None = None,
        pairs: PromptSet | str | None = None,
        **options: Any,
    ) -> None:
        self._how: Replacement = "mean"
        self._tasks_kept: OrderedDict[Hashable, Task] = OrderedDict()
        self._held: dict[str, tuple[Hashable, int]] = {}
        self._held_at = -1
        self._seen: dict[str, Hashable] = {}
        self._maps: OrderedDict[Hashable, Kept[pictures.Effects]] = OrderedDict()
        self._halted: Hashable = None
        self._patched: dict[Kind, Kept[pictures.Patching]] = {}
        self._mapping: Hashable = None
        self._computed: tuple[int, Hashable] | None = None
        self._before_solo: tuple[frozenset[Site], Any, Any] | None = None
        self._map_due = Settled(SETTLED_AFTER, _weakly(self._start_map))
        made, prompt, rest = _made(model, prompt, metric, pairs, options)
        super().__init__(made, prompt, **rest)

    def close(self) -> None:
        """Take the view off its session and out of the notebook; its work stops."""
        was_open = not getattr(self, "_closed", True)
        if hasattr(self, "_map_due"):
            self._map_due.close()
        super().close()
        if was_open:  # on the worker, behind what runs there still
            self._session.submit(lambda _should_stop: self._let_go())

    def _let_go(self) -> None:
        """Keep no run of the model."""
        self._tasks_kept.clear()

    # --- the same gestures, from Python -----------------------------------------------------------

    @property
    def pairs(self) -> PromptSet | None:
        """The prompt pairs that everything is averaged over, or None: the prompt alone. Settable.

        A name stands for a set that comes with the package, such as "capitals".
        """
        return self._session.pairs

    @pairs.setter
    def pairs(self, pairs: PromptSet | str | None) -> None:
        model = self._session.model
        self._session.pairs = None if pairs is None else _pair_set(pairs, model)

    def show_pair(self, index: int) -> None:
        """Make a pair of the set the session's prompt and contrast, counted from 0."""
        self._session.show_pair(index)

    @property
    def metric(self) -> Metric:
        """What is measured, the session's. Settable."""
        return self._session.metric

    @metric.setter
    def metric(self, metric: Metric) -> None:
        self._session.metric = metric

    def survey(self, how: Replacement = "mean") -> "pd.DataFrame":
        """Measure what ablating each head and MLP does to the metric.

        Args:
            how: what is put in a component's place: "mean", "zero", "resample", or "corrupt", its
                value on the corrupt prompt.

        Returns:
            One component a row, the largest effect first: address, layer, component, estimate and
            exact (the metric with it ablated minus without: first order, and measured), intervened
            and baseline (the metric with and without). Stopped, as much as is measured.

        Raises:
            ModelError: when the model predicts no next token.
            InputError: when there is no corrupt prompt to take values from.
            MetricError: when the metric is no number.
        """
        self._look_with(how)
        key = self._mapping = self._map_key(self._declared())
        found, _ = self._sweep("map", MAPPING, self._map_job(how), lambda: self._maps.get(key))
        return found.value.frame(components(self._session.model.anatomy))

    def ablate(self, *addresses: str, how: Replacement = "mean", solo: bool = False) -> None:
        """Ablate components, or take their ablations back where every one of them is ablated.

        One step of undo.

        Args:
            *addresses: such as "L5.H3", "L5.mlp", "L5.N7".
            how: what is put in their place.
            solo: ablate just these, and mute every other row of the stack; the same again gives
                them back.

        Raises:
            AddressError: when the model has no such component.
            InterventionError: when it has no value to take away, or there is no corrupt prompt.
        """
        self._ablate(self._ablatable(addresses), how, solo=solo)

    def drill(self, address: str, how: Replacement = "mean") -> "pd.DataFrame":
        """Look into a head or an MLP: exact effects of its parts.

        Its own ablation, where the stack has one, is left out while it is measured.

        Args:
            address: "L5.H3" or "L5.mlp".
            how: what is put in a part's place.

        Returns:
            One part a row: address, estimate, exact, intervened, baseline. Of a head its queries,
            keys and values; of an MLP its strongest neurons; of both the output at each position.

        Raises:
            InputError: when it is neither.
        """
        site = self._component(address)
        self._check_how(how)
        found: Parts = self._session.submit(self._drill_job(site, how)).result()
        return pictures.drilled_frame(found)

    def patch(self, direction: Direction = "denoise", over: Over = "resid_pre") -> "pd.DataFrame":
        """Patch activations between the clean and the corrupt run, each by itself.

        Args:
            direction: "denoise" puts clean values into the corrupt run, "noise" corrupt ones into
                the clean run.
            over: "resid_pre", "attn" or "mlp", by layer and position; or "head".

        Returns:
            One activation a row: address, layer, position and token (or head), value (the metric
            after patching), clean and corrupt (the metric on either side). Stopped, NaN where it
            was not measured yet.

        Raises:
            InputError: when there is no corrupt prompt, or it has another length.
        """
        one_of(direction, get_args(Direction), "direction")
        one_of(over, get_args(Over), "activation")
        self._check_how("corrupt")
        kind, job = (direction, over), self._patching_job(direction, over)
        found, _ = self._sweep("patching", PATCHING, job, lambda: self._patched.get(kind))
        return pictures.patching_frame(found.value.found, self._token_texts())

    def interaction(
        self, a: str | Sequence[str], b: str | Sequence[str], how: Replacement = "mean"
    ) -> Interaction:
        """Ablate A, B, and both: what they do together beyond what each does by itself.

        Ablations of A and B that are on the stack are left out while it is measured.

        Args:
            a: an address, or several.
            b: others.
            how: what is put in their place.

        Raises:
            InputError: when A or B is empty, or both have a component in common.
        """
        sites_a, sites_b = (self._ablatable([x] if isinstance(x, str) else x) for x in (a, b))
        self._check_how(how)
        job = self._interact_job(sites_a, sites_b, how)
        found: Interaction = self._session.submit(job).result()
        return found

    def refresh(self) -> None:
        """Compute what the view shows now and wait for it; a page that is open gets it too.

        Of the map what a Stop has left out stays out.
        """
        super().refresh()
        declared = self._declared()
        if self._halted != self._map_key(declared) and self._can_map(declared):
            self._mapping = self._map_key(declared)
            self._sweep("map", MAPPING, self._map_job(self._how), lambda: self._mapping)

    def stop(self) -> None:
        """End the view's long work where it is; what was measured stays."""
        self._halted = self._map_key(self._declared())
        super().stop()

    # --- gestures from the page -------------------------------------------------------------------

    def _on_objective(self, message: say.Objective) -> None:
        self._refuse_encoders("metric")
        for name, token in (("token", message.token), ("against", message.against)):
            if token is not None:
                with rows.about(name):
                    self._session.model.token_id(token)
        with rows.about("metric"):
            self._session.metric = self._objective(message)

    def _on_pairs(self, message: say.Pairs) -> None:
        self._refuse_encoders("name")
        with rows.about("name"):
            if message.name is None:
                self.pairs = None
            else:
                model = self._session.model
                self.pairs = prompt_set(message.name, model, message.count, message.seed)

    def _on_pair(self, message: say.Pair) -> None:
        with rows.about("index"):
            self.show_pair(message.index)

    def _on_survey(self, message: say.Survey) -> None:
        self._refuse_encoders("how")
        with rows.about("how"):
            self._look_with(message.how)
        self._start_map(again=True)

    def _on_ablations(self, message: say.Ablations) -> None:
        with rows.about("addresses"):
            sites = self._ablatable(message.addresses)
        with rows.about("how"):
            self._ablate(sites, message.how, solo=message.solo)

    def _on_drill(self, message: say.Drill) -> Later:
        self._refuse_encoders("address")
        with rows.about("address"):
            site = self._component(message.address)
        with rows.about("how"):
            self._check_how(message.how)
        job, tokens = self._drill_job(site, message.how), self._token_texts()
        return self._answer(
            message.id,
            "drill",
            f"looking into {site}",
            job,
            lambda found: pictures.drilled(found, tokens),
            field="address",
        )

    def _on_patching(self, message: say.Patching) -> None:
        self._refuse_encoders("direction")
        with rows.about("direction"):
            self._check_how("corrupt")
        self._stop_tasks(lambda name: name == "patching")
        self._start(
            "patching",
            PATCHING,
            self._patching_job(message.direction, message.over),
            then=lambda _none: None,
            priority="sweep",
        )

    def _on_interact(self, message: say.Interact) -> Later:
        self._refuse_encoders("a")
        with rows.about("a"):
            a = self._ablatable(message.a)
        with rows.about("b"):
            b = self._ablatable(message.b)
        with rows.about("how"):
            self._check_how(message.how)
        return self._answer(
            message.id,
            "interact",
            "ablating A, B, and both",
            self._interact_job(a, b, message.how),
            lambda found: pictures.interacting(found, message.a, message.b),
            field="b",
        )

    def _answer(
        self,
        ident: int,
        name: str,
        what: str,
        job: Callable[[ShouldStop], T | Generator[object, None, T]],
        body: Callable[[T], Body],
        *,
        field: str,
    ) -> Later:
        """Reply with what comes of a job, or with its error; the newest of a name wins."""
        self._stop_tasks(lambda other: other == name)
        self._start(
            name,
            what,
            job,
            then=lambda found: self._reply(ident, body(found)),
            failed=lambda error: self._refuse(ident, str(error), field),
        )
        return LATER

    def _refuse_encoders(self, field: str) -> None:
        if not self._predicts:
            raise MessageError(NO_PREDICTION, field=field)

    # --- what is declared -------------------------------------------------------------------------

    def _declared(self) -> Declared:
        """What is measured on; what was computed of the same before is kept with its task."""
        session = self._session
        while True:
            revision = session.revision
            task = session.task
            if session.revision == revision:
                return Declared(revision, self._kept_task(task))

    def _kept_task(self, task: Task) -> Task:
        key = key_of(task)
        with self._lock:
            task = self._tasks_kept.setdefault(key, task)
            self._tasks_kept.move_to_end(key)
            while len(self._tasks_kept) > _KEPT_TASKS:
                self._tasks_kept.popitem(last=False)
        return task

    def _holds_since(self, declared: Declared) -> dict[str, int]:
        """From which revision on what was measured still holds."""
        keys = self._keys(declared)
        with self._lock:
            if declared.revision >= self._held_at:
                self._held_at = declared.revision
                for name, key in keys.items():
                    if name not in self._held or self._held[name][0] != key:
                        self._held[name] = (key, declared.revision)
            return {name: since for name, (_, since) in self._held.items()}

    def _keys(self, declared: Declared) -> dict[str, Hashable]:
        """What each kind of picture is measured on now."""
        return {"map": self._map_key(declared), "patching": declared.key}

    def _map_key(self, declared: Declared) -> Hashable:
        return declared.key, self._how

    def _revision_of(self, name: str, kept: Kept[Any], declared: Declared) -> int:
        """The revision that a picture is sent with: the present one's where it holds (again)."""
        since = self._holds_since(declared)
        if kept.key == self._keys(declared)[name]:
            return max(kept.revision, since[name])
        return kept.revision

    def _objective(self, message: say.Objective) -> Metric:
        """The metric that is asked for; tokens that are not named stay what they are."""
        match message.metric:
            case "kl":
                return KL()
            case "loss":
                return Loss()
            case "log_prob":
                return LogProb(self._named(message, "token"))
            case "logit_difference":
                token, against = (self._named(message, name) for name in ("token", "against"))
                token = self._likeliest if token is None else token
                for name, value in (("against", against), ("token", token)):
                    if value is None:
                        raise MessageError(
                            "A logit difference is between two tokens, the target and one that "
                            "speaks against it: name both.",
                            field=name,
                        )
                return LogitDifference(token, against)  # type: ignore[arg-type] # neither is None

    def _named(self, message: say.Objective, name: Literal["token", "against"]) -> str | int | None:
        """A token of a new metric: the one named, the present metric's, or the shown pair's."""
        pairs = self._session.pairs
        pair = None if pairs is None else pairs.pairs[self._session.shown_pair]
        own = getattr(self._session.metric, name, None)
        paired = None if pair is None else pair.answer if name == "token" else pair.wrong
        return next((t for t in (getattr(message, name), own, paired) if t is not None), None)

    def _look_with(self, how: Replacement) -> None:
        """Let the map be of another replacement."""
        self._check_how(how)
        self._how, self._halted = how, None
        self._push_declared()

    def _check_how(self, how: Replacement) -> None:
        """Say when there is nothing to measure, or to put in a component's place."""
        if not self._predicts:
            raise ModelError(NO_PREDICTION)
        one_of(how, get_args(Replacement), "replacement")
        if how == "corrupt":
            task = self._declared().task
            if task.corrupt is None:
                raise InputError(task.why_no_corrupt)

    def _component(self, address: str) -> Site:
        site = self._site(address)
        if isinstance(site, SiteSet) or not site.positions.is_default or not _is_component(site):
            raise InputError(f"A head (L5.H3) or an MLP (L5.mlp) can be looked into; {site} not.")
        return site

    def _ablatable(self, addresses: Sequence[str]) -> list[Site]:
        """The sites of some addresses, each once; a set stands for its members."""
        anatomy, found = self._session.model.anatomy, list[Site]()
        for address in addresses:
            site = self._site(address)
            found += site.expand(anatomy) if isinstance(site, SiteSet) else [site]
        for site in found:
            ablations.made(site, "mean")  # says what cannot be ablated
        if not found:
            raise InputError("There is nothing to ablate: name a component, such as L5.H3.")
        return list(dict.fromkeys(found))

    def _ablate(self, sites: Sequence[Site], how: Replacement, *, solo: bool) -> None:
        one_of(how, get_args(Replacement), "replacement")
        session, anatomy = self._session, self._session.model.anatomy
        stack = session.interventions
        if not solo:
            session.interventions = ablations.toggled(stack, sites, how, anatomy)[0]
            return
        wanted, before = frozenset(sites), self._before_solo
        if before is not None and (before[0], before[2]) == (wanted, stack):
            self._before_solo = None
            session.interventions = before[1]
            return
        alone = ablations.soloed(stack, sites, how, anatomy)
        session.interventions = alone
        self._before_solo = (wanted, stack, alone)

    # --- following the session --------------------------------------------------------------------

    def _wake(self) -> None:
        self._seen = self._keys(self._declared())
        super()._wake()

    def _changed(self, change: Change) -> None:
        declared = self._declared()
        before, keys = self._seen, self._keys(declared)
        self._seen = keys
        moved = {name for name, key in keys.items() if before.get(name, key) != key}
        self._stop_tasks(lambda name: name in moved)
        if not self._told_again():
            super()._changed(change)
        self._push_declared()
        self._moved(moved, declared)

    def _told_again(self) -> bool:
        """Whether all that was computed of the prompt and the stack still holds: it is told so.

        A hand on the circuit changes neither.
        """
        session = self._session
        revision, experiment = session.revision, session.experiment
        now = experiment.given, experiment.stack, experiment.context, session.metric, session.keys
        before, self._computed = self._computed, (revision, now)
        result, effects = self._result, self._effects
        if result is None or before != (result[0], now) or session.revision != revision:
            return False
        with self._lock:
            self._result = (revision, result[1])
            if effects is not None and effects[0] == result[0]:
                self._effects = (revision, effects[1])
        self._push_state()
        self._push("result", say.ResultUpdate(revision=revision, result=result[1]))
        if self._effects is not None and self._effects[0] == revision:
            self._push("effects", say.EffectsUpdate(revision=revision, rows=self._effects[1]))
        else:  # what is being measured of the revision before ends itself
            self._settled.touch()
        return True

    def _moved(self, names: set[str], declared: Declared) -> None:
        """What some pictures are measured on has changed; after an undo they may hold again."""
        if "map" in names:
            self._map_due.touch()
        if "patching" in names:
            for kind, kept in list(self._patched.items()):
                if kept.key == declared.key:
                    self._push_patching(kind, always=True)

    @abstractmethod
    def _push_declared(self) -> None:
        """Tell the page what is declared."""

    def _show_result(self, found: tuple[int, say.Result]) -> None:
        super()._show_result(found)
        if self._shown and not self._closed:
            self._map_due.touch()

    def _is_long(self, name: Hashable) -> bool:
        return super()._is_long(name) and name not in _ANSWERS

    def _can_map(self, declared: Declared) -> bool:
        """Whether there is something to measure, and to put in components' place."""
        return self._predicts and (self._how != "corrupt" or declared.task.corrupt is not None)

    def _start_map(self, *, again: bool = False) -> None:
        """Measure the map where it is not that of the stack, the prompts and the metric now."""
        declared = self._declared()
        if not self._shown or self._closed or not self._can_map(declared):
            return
        key = self._map_key(declared)
        if key == self._halted and not again:
            return
        kept = self._maps.get(key)
        if kept is not None and kept.value.whole:
            self._push_map(key, always=True)
            return
        with self._lock:
            running = "map" in self._tasks and self._mapping == key
        if running and not again:
            return
        self._mapping = key
        self._stop_tasks(lambda name: name == "map")
        self._start(
            "map",
            MAPPING,
            self._map_job(self._how),
            then=lambda _none: None,
            priority="sweep",
        )

    # --- on the worker ----------------------------------------------------------------------------

    def _map_job(self, how: Replacement) -> Callable[[ShouldStop], Any]:
        def job(should_stop: ShouldStop) -> Generator[None, None, None]:
            declared = self._declared()
            task, key = declared.task, (declared.key, how)
            kept = self._maps.get(key)
            if kept is None:
                self._keep_map(key, declared.revision, self._estimated(task, how, should_stop))
                yield
            elif kept.value.whole:
                self._push_map(key, always=True)
                return
            for found in component_effects(task, how, should_stop=should_stop):
                effects = self._maps[key].value.with_exact(found)
                self._keep_map(key, declared.revision, effects)
                self._say_progress("map", found.done, found.total)
                yield

        return job

    def _estimated(self, task: Task, how: Replacement, should_stop: ShouldStop) -> pictures.Effects:
        """The map before anything is exact: what it costs, and estimates where there are some."""
        anatomy = task.engine.model.anatomy
        sites = components(anatomy)
        notes = []
        if set(map(str, sites.values())) <= set(ablations.components(task.stack, anatomy)):
            notes.append("Every component is ablated: what is left is the embedding alone.")
        notes.append(pictures.cost_in_words(effects_cost(task, how), task.n_pairs))
        shape = (anatomy.n_layers, anatomy.n_heads + (not anatomy.attn_only))
        estimate = np.full(shape, np.nan, dtype=np.float32)
        baseline = level(task, should_stop=should_stop)
        try:
            estimate = pictures.floats(component_estimates(task, how, should_stop=should_stop))
            refused = why_no_estimate(task)
        except MetricError as error:  # no gradient: the exact values are still to be had
            refused = str(error)
        notes = [refused, *notes] if refused else notes
        nothing = np.full(shape, np.nan, dtype=np.float32)
        return pictures.Effects(
            how, baseline, estimate, nothing, 0, len(sites), task.n_pairs, " ".join(notes)
        )

    def _keep_map(self, key: Hashable, revision: int, effects: pictures.Effects) -> None:
        with self._lock:
            self._maps[key] = Kept(key, revision, effects)
            self._maps.move_to_end(key)
            while len(self._maps) > _KEPT_MAPS:
                self._maps.popitem(last=False)
        self._push_map(key, always=effects.whole or not effects.done)

    def _drill_job(self, site: Site, how: Replacement) -> Callable[[ShouldStop], Parts]:
        def job(should_stop: ShouldStop) -> Parts:
            task, layer = self._without(self._declared().task, [site]), site.layer or 0
            if site.kind == "mlp":
                return into_mlp(task, layer, how, should_stop=should_stop)
            return into_head(task, layer, site.index or 0, how, should_stop=should_stop)

        return job

    def _without(self, task: Task, sites: Sequence[Site]) -> Task:
        """The same with what the stack ablates of some components left out."""
        stack = ablations.without(task.stack, sites, task.engine.model.anatomy)
        return self._kept_task(task.under(stack))

    def _patching_job(self, direction: Direction, over: Over) -> Callable[[ShouldStop], Any]:
        def job(should_stop: ShouldStop) -> Generator[None, None, None]:
            declared = self._declared()
            task = declared.task
            note = pictures.cost_in_words(patching_cost(task, over), task.n_pairs)
            for found in activation_patching(task, direction, over, should_stop=should_stop):
                patching = pictures.Patching(found, task.n_pairs, note)
                with self._lock:
                    kept = Kept(declared.key, declared.revision, patching)
                    self._patched[direction, over] = kept
                self._push_patching((direction, over), always=patching.whole)
                self._say_progress("patching", found.done, found.total)
                yield

        return job

    def _interact_job(
        self, a: Sequence[Site], b: Sequence[Site], how: Replacement
    ) -> Callable[[ShouldStop], Interaction]:
        def job(should_stop: ShouldStop) -> Interaction:
            task = self._without(self._declared().task, [*a, *b])
            return interaction(task, a, b, how, should_stop=should_stop)

        return job

    def _say_progress(self, job: say.Job, done: int, total: int) -> None:
        self._push(("progress", job), say.Progress(job=job, done=done, total=total))

    # --- what there is to draw --------------------------------------------------------------------

    def _push_map(self, key: Hashable, *, always: bool) -> None:
        declared = self._declared()
        if self._shown and key == self._map_key(declared):
            kept = self._maps[key]
            if self._now_and_then("map", always=always):
                revision = self._revision_of("map", kept, declared)
                self._push("map", say.MapUpdate(map=kept.value.message(revision)))

    def _push_patching(self, kind: Kind, *, always: bool) -> None:
        if self._shown and self._now_and_then(("patching", kind), always=always):
            found = self._patching_map(kind, self._declared())
            self._push(("patching", kind), say.PatchingUpdate(patching=found))

    def _patching_map(self, kind: Kind, declared: Declared) -> say.PatchingMap:
        kept = self._patched[kind]
        revision = self._revision_of("patching", kept, declared)
        return kept.value.message(revision, self._token_texts())

    def _token_texts(self) -> list[str]:
        return [token.text for token in self._session.tokens]

    def _set_names(self) -> list[say.SetName]:
        """The prompt sets that can be had: of a model that reads text and predicts some."""
        if self._session.model.tokenizer is None or not self._predicts:
            return []
        return [say.SetName(name=name, about=describe(name)) for name in NAMES]

    def _pair_state(self) -> say.PairSet | None:
        found = self._session.pairs
        if found is None:
            return None
        return say.PairSet(
            name=found.name,
            about=found.about,
            seed=found.seed,
            count=len(found.pairs),
            pairs=[
                say.PromptPair(
                    clean=pair.clean, corrupt=pair.corrupt, answer=pair.answer, wrong=pair.wrong
                )
                for pair in found.pairs[:_SHOWN_PAIRS]
            ],
            shown=self._session.shown_pair,
            note=found.note,
        )


def key_of(task: Task, *, stack: bool = True) -> Hashable:
    """What a task's results depend on; without the stack, what its circuits do.

    Which pair is shown is not among it: the metric's own tokens are where each pair brings its.
    """
    metric: Hashable = task.metric.kind if all(task.tokens) else task.metric
    model = task.engine.model
    parts = task.clean, task.corrupt, metric, task.tokens, task.reference.inputs
    if not stack or not task.stack:
        return (*parts, model.weights_version, ())
    directions = tuple((name, tuple(d.tolist())) for name, d in task.directions.items())
    contrast = task.contrast if task.corrupt is None else None
    return (*parts, model.weights_version, (task.stack, directions, contrast))


def _is_component(site: Site) -> bool:
    return site.kind == "mlp" or (site.kind == "head" and site.part == "z")


def _made(
    model: Any,
    prompt: "str | torch.Tensor | None",
    metric: Metric | None,
    pairs: PromptSet | str | None,
    options: Mapping[str, Any],
) -> "tuple[Any, str | torch.Tensor | None, Mapping[str, Any]]":
    """What the view is made of: a session measures what it is told; pairs bring their prompts."""
    if isinstance(model, Session):
        if pairs is not None:
            model.pairs = _pair_set(pairs, model.model)
        if metric is not None:
            model.metric = metric
        return model, prompt, options
    options = {**options} if metric is None else {**options, "metric": metric}
    if pairs is None or isinstance(model, str):
        return model, prompt, options
    model = model if isinstance(model, LanguageModel) else LanguageModel(model)
    return Session(model, prompt, pairs=_pair_set(pairs, model), **options), None, {}


def _pair_set(pairs: PromptSet | str, model: LanguageModel) -> PromptSet:
    return prompt_set(pairs, model) if isinstance(pairs, str) else pairs


def one_of(value: object, choices: Sequence[str], what: str) -> None:
    """Say when a value is none of the choices."""
    if value not in choices:
        raise InputError(f"There is no {what} {value!r}; there are {', '.join(choices)}.")
