"""Does a unit matter where it is driven hardest? Ablate it there, beside random units of its layer.

An input that drives a unit says what the unit answers to, and nothing about whether the model uses
it. So the unit is ablated (to its mean over a reference set, or to zero) on that very input, and
what that does to the output is measured: KL(as it is || ablated) of the prediction, in nats (Wang
et al., "Interpretability in the Wild", 2022, on ablation to the mean). Any ablation does something:
beside it stands the same for random units of the same layer, massive-activation neurons left out.

Of a language model the prediction is the next token's, after the last position and on average over
all positions; of a classifier the distribution over classes. A module that gives no distribution is
measured by the relative change of its output, |ablated - as it is| / |as it is|, and called so.

The unit is every unit of the objective: of a neuron or channel itself; of a direction d of a layer
or among a part's channels the coefficient c = (x . d) / (d . d) of what is there, at every position
or place (ablated to zero, d is projected out: x - c d), beside random directions of the same layer,
part or head, drawn evenly from all there are. A logit of a language model is what is predicted, and
a Python function is no unit: both are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch

from patchclamp.engine.engine import Engine
from patchclamp.engine.experiment import Experiment
from patchclamp.engine.module_engine import DirectionAblation
from patchclamp.engine.surroundings import Reference, Surroundings, input_of, reference_inputs
from patchclamp.errors import InputError, MetricError
from patchclamp.interventions import Ablate
from patchclamp.methods.divergence import kl_divergence
from patchclamp.methods.massive import massive_neurons
from patchclamp.methods.objective import Channel, Neuron
from patchclamp.sites import EVERYWHERE, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from torch import Tensor

    from patchclamp.engine.module_engine import ModuleEngine
    from patchclamp.methods.objective import Objective
    from patchclamp.models.anatomy import Anatomy
    from patchclamp.sites import Kind

    ShouldStop = Callable[[], bool]

How = Literal["mean", "zero"]
Measure = Literal["kl", "change"]

CONTROLS = 5
"""How many random units a unit stands beside."""

_SUMS_TO_ONE = 1e-4


@dataclass(frozen=True, eq=False)
class Trial:
    """How a unit is ablated and what beside it.

    Attributes:
        how: what is put in the unit's place, "mean" or "zero", at every position but a
            beginning-of-sequence token's.
        reference: what means are taken over: of a language model a session's reference (by default
            the shipped texts); of a module stimuli, Float[stimulus, *shape].
        measure: of a module, "kl" or "change"; by default "kl" where its output is probabilities or
            has labels.
        controls: how many random units; as many as there are, if there are fewer.
        seed: of what is drawn.

    Raises:
        InputError: when these are no such things.
    """

    how: How = "mean"
    reference: Reference | Tensor | None = None
    measure: Measure | None = None
    controls: int = CONTROLS
    seed: int = 0

    def __post_init__(self) -> None:
        if self.controls < 1:
            msg = f"A unit stands beside at least one random unit, not {self.controls}."
            raise InputError(msg)
        if self.how not in get_args(How):
            msg = f"A unit is ablated to its 'mean' or to 'zero', not {self.how!r}."
            raise InputError(msg)
        if self.measure not in {None, *get_args(Measure)}:
            msg = f"Outputs are compared by 'kl' or by their 'change', not {self.measure!r}."
            raise InputError(msg)


@dataclass(frozen=True)
class Ablation:
    """What ablating a unit does to the output on one input.

    Attributes:
        address: the unit, or some of them, joined by commas.
        effect: KL in nats (of a language model after the last position), or the relative change.
        everywhere: of a language model, the mean KL over all positions; else None.
    """

    address: str
    effect: float
    everywhere: float | None = None


@dataclass(frozen=True)
class Matter:
    """Whether a unit matters on an input.

    Attributes:
        objective: what was to be driven, in words.
        how: what it was ablated to.
        measure: "kl" or "change".
        activation: the objective on the input.
        corpus_maximum: its largest value in a corpus; None where none was given.
        unit: what ablating it does.
        controls: what ablating random units of the same layer does, each.
        note: what a reader must know, in sentences; may be empty.
    """

    objective: str
    how: How
    measure: Measure
    activation: float
    corpus_maximum: float | None
    unit: Ablation
    controls: tuple[Ablation, ...]
    note: str = ""

    @property
    def measured(self) -> str:
        """What the numbers are, in words."""
        if self.measure == "change":
            return "relative change of the output"
        place = "" if self.unit.everywhere is None else " after the last token"
        return f"KL(as it is || ablated) of the prediction{place}, nats"

    @property
    def larger_than(self) -> int:
        """How many of the controls the unit's effect is larger than."""
        return sum(self.unit.effect > control.effect for control in self.controls)

    def frame(self) -> pd.DataFrame:
        """Return the unit and its controls as a table, one row each."""
        import pandas as pd

        rows = [(self.unit, False), *((control, True) for control in self.controls)]
        return pd.DataFrame(
            [
                {
                    "unit": one.address,
                    "random": random,
                    self.measure: one.effect,
                    **({} if one.everywhere is None else {"kl, all positions": one.everywhere}),
                }
                for one, random in rows
            ]
        )


def unit_matters(
    engine: Engine | ModuleEngine,
    objective: Objective,
    given: Tensor | Sequence[int] | str,
    trial: Trial | None = None,
    *,
    corpus_maximum: float | None = None,
    should_stop: ShouldStop | None = None,
) -> Matter:
    """Ablate an objective's units on an input, and random units of the same layers beside them.

    Runs on the model's worker.

    Args:
        engine: the model's.
        objective: a unit, or several.
        given: of a language model token ids (taken as they are) or a text; of a module a stimulus
            Float[*shape] in the declared range.
        trial: how, and beside what.
        corpus_maximum: the unit's largest value in a corpus, to be told beside its value here.
        should_stop: asked before every block or module.

    Raises:
        InputError: for an objective without a unit that can be ablated, and an input that the model
            does not take.
        InterventionError: when there is nothing to take the mean over.
        MetricError: when the output is no finite number.
        Stopped: when ``should_stop`` said so.
    """
    trial = trial or Trial()
    if isinstance(engine, Engine):
        found = _of_language_model(engine, objective, given, trial, should_stop)
    else:
        found = _of_module(engine, objective, given, trial, should_stop)
    return replace(found, corpus_maximum=corpus_maximum)


@dataclass(frozen=True)
class _Target:
    """What is ablated.

    Attributes:
        text: how a reader knows it.
        site: its address; of a direction, that of what it lives in.
        vector: the direction; None where the address says all.
    """

    text: str
    site: Site
    vector: tuple[float, ...] | None = None

    def in_module(self, how: How) -> Ablate | DirectionAblation:
        """Return the intervention of a module's channel, or of a direction among them."""
        if self.vector is None:
            return Ablate(self.site, how)
        return DirectionAblation(self.site, self.vector, how)

    def in_language_model(self, how: How) -> Ablate:
        """Return the intervention of a neuron, or of a direction of a head or a component."""
        site = self.site
        if site.kind == "direction" and site.component is not None:
            site = Site(cast("Kind", site.component), site.layer)
        return Ablate(site, how, direction=self.vector)


# --- of a language model --------------------------------------------------------------------------


def _of_language_model(
    engine: Engine,
    objective: Objective,
    given: Any,
    trial: Trial,
    should_stop: ShouldStop | None,
) -> Matter:
    model = engine.model
    ids = model.to_ids(given) if isinstance(given, str) else model.check_ids(given)
    one = input_of(model, ids)
    targets = list(dict.fromkeys(_target(term.unit) for term in objective.terms))
    reference = cast("Reference | None", trial.reference)
    if reference is None:
        reference = Reference(engine, reference_inputs(model, None) or (one,))
    massive = massive_neurons(reference, model.anatomy, should_stop)
    drawn = [
        _others(model.anatomy, target, targets, massive, trial.controls, trial.seed + at)
        for at, target in enumerate(targets)
    ]
    sets = [tuple(targets), *zip(*drawn, strict=False)]  # as many as the smallest layer has
    stacks = [tuple(target.in_language_model(trial.how) for target in chosen) for chosen in sets]
    surroundings = Surroundings(engine, reference)
    experiment = Experiment(engine, one, (), surroundings, ("unit_matters", reference.inputs))
    values = engine.capture_many([one], objective.hooks, should_stop=should_stop)[0]
    activation = objective.value(
        {hook: value[None] for hook, value in values.items()}, start=int(one.has_bos)
    )
    rows = list(range(int(one.has_bos and len(one.ids) > 1), len(one.ids)))
    before = experiment.outcome(rows, should_stop).logits
    found: list[Ablation] = []
    for _, logits in experiment.sweep(stacks, rows, should_stop):
        for after in logits:
            kl = _finite(kl_divergence(before, after), objective)
            place = len(found)
            name = ", ".join(target.text for target in sets[place])
            found.append(Ablation(name, float(kl[-1]), float(kl.mean())))
    notes = [
        f"{target.text} is a massive-activation neuron."
        for target in targets
        if (target.site.layer, target.site.index) in massive and target.site.kind == "neuron"
    ]
    notes += _too_few(len(found) - 1, trial.controls)
    return Matter(
        objective=objective.text,
        how=trial.how,
        measure="kl",
        activation=float(activation[0]),
        corpus_maximum=None,
        unit=found[0],
        controls=tuple(found[1:]),
        note=" ".join(notes),
    )


def _target(unit: object) -> _Target:
    refusal = why_not(unit)
    if refusal or not isinstance(unit, Neuron):
        raise InputError(refusal)
    site = unit.site.at(EVERYWHERE)
    if unit.direction is None:
        return _Target(site.address, site)
    return _Target(unit.text, site, unit.direction.vector)


def _others(
    anatomy: Anatomy,
    target: _Target,
    targets: Sequence[_Target],
    massive: frozenset[tuple[int, int]],
    count: int,
    seed: int,
) -> list[_Target]:
    """Draw random neurons of the same layer, or directions of the same home."""
    site = target.site
    if target.vector is not None:
        return _random_directions(target, site.address.partition("[")[0], count, seed)
    taken = {index for layer, index in massive if layer == site.layer}
    taken |= {
        other.site.index or 0
        for other in targets
        if other.vector is None and other.site.layer == site.layer
    }
    free = [index for index in range(anatomy.n_neurons(site.layer or 0)) if index not in taken]
    chosen = _drawn(site, free, count, seed)
    return [_Target(other.address, other) for other in chosen]


# --- of a module ----------------------------------------------------------------------------------


def _of_module(
    engine: ModuleEngine,
    objective: Objective,
    given: Any,
    trial: Trial,
    should_stop: ShouldStop | None,
) -> Matter:
    model = engine.model
    stimulus = model.stimulus.check(given)
    model.stimulus.check_shape(tuple(stimulus.shape))  # one, and not a batch of them
    targets = list(dict.fromkeys(_module_target(term.unit) for term in objective.terms))
    drawn = [
        _other_targets(engine, target, targets, trial.controls, trial.seed + at)
        for at, target in enumerate(targets)
    ]
    sets = [tuple(targets), *zip(*drawn, strict=False)]  # as many as the smallest part has
    batch = stimulus.detach()[None].to(model.device, model.dtype)
    reference = cast("Tensor | None", trial.reference)
    if reference is not None:
        reference = reference.to(model.device, model.dtype)
    with torch.no_grad():
        run = engine.run(batch, objective.hooks, output=True, should_stop=should_stop)
        assert run.output is not None  # noqa: S101 (it was asked for)
        before = run.output.float()
        activation = float(objective.value(run.values)[0])
        probabilities = _are_probabilities(before)
        kind = trial.measure or ("kl" if probabilities or model.labels else "change")
        found = []
        for chosen in sets:
            after = engine.run(
                batch,
                output=True,
                interventions=[target.in_module(trial.how) for target in chosen],
                reference=reference,
                should_stop=should_stop,
            ).output
            assert after is not None  # noqa: S101 (it was asked for)
            apart = _apart(before, after.float(), kind, probabilities=probabilities)
            effect = float(_finite(apart, objective))
            found.append(Ablation(", ".join(target.text for target in chosen), effect))
    notes = [
        f"{target.text} is the model's own output: ablating it changes that directly, and says "
        "nothing of what the model does with it."
        for target in targets
        if target.site.name == model.anatomy.output
    ]
    return Matter(
        objective=objective.text,
        how=trial.how,
        measure=kind,
        activation=activation,
        corpus_maximum=None,
        unit=found[0],
        controls=tuple(found[1:]),
        note=" ".join([*notes, *_too_few(len(found) - 1, trial.controls)]),
    )


def _module_target(unit: object) -> _Target:
    if not isinstance(unit, Channel):
        raise InputError(why_not(unit))
    if unit.direction is not None:
        return _Target(unit.text, unit.site, unit.direction.vector)
    return _Target(str(unit.site), unit.site)


def _other_targets(
    engine: ModuleEngine, target: _Target, targets: Sequence[_Target], count: int, seed: int
) -> list[_Target]:
    """Draw random channels of the same part, or directions among its channels."""
    site = target.site
    if target.vector is not None:
        return _random_directions(target, str(site.name), count, seed)
    taken = {
        other.site.index
        for other in targets
        if other.site.name == site.name and other.vector is None
    }
    channels = engine.model.anatomy.parts[str(site.name)].channels
    free = [index for index in range(channels) if index not in taken]
    return [_Target(str(other), other) for other in _drawn(site, free, count, seed)]


def _are_probabilities(output: Tensor) -> bool:
    """Say whether Float[1, class, *space] are probabilities, rather than logits."""
    sums = output.sum(1)
    return bool((output >= 0).all()) and bool(((sums - 1).abs() < _SUMS_TO_ONE).all())


def _apart(before: Tensor, after: Tensor, measure: Measure, *, probabilities: bool) -> Tensor:
    """Return how far two outputs Float[1, class, *space] are apart, one number."""
    if measure == "change":
        change: Tensor = (after - before).norm() / before.norm().clamp_min(1e-30)
        return change
    if probabilities:
        least = torch.finfo(before.dtype).tiny
        before, after = before.clamp_min(least).log(), after.clamp_min(least).log()
    return kl_divergence(before.movedim(1, -1), after.movedim(1, -1)).mean()


# --- of both --------------------------------------------------------------------------------------


def why_not(unit: object) -> str:
    """Say why a unit of an objective cannot be ablated, and what can; nothing where it can."""
    text = getattr(unit, "text", unit)
    if not isinstance(unit, Channel | Neuron):
        return (
            f"{text} is a function of activations, and no unit that could be ablated: aim at a "
            "unit, a direction (a place and a vector), or a sum of them."
        )
    if unit.site.kind == "logits":
        return (
            f"{text} is the output itself, which nothing after it reads: ask of a unit inside the "
            "model whether it matters, such as a neuron or a direction that drives this logit."
        )
    return ""


def _random_directions(target: _Target, home: str, count: int, seed: int) -> list[_Target]:
    """Draw directions that live where the target's does, evenly from all there are."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, len(target.vector or ()), generator=generator)
    return [
        replace(target, text=f"{home}[random {seed + at}]", vector=tuple(vector))
        for at, vector in enumerate(drawn.tolist())
    ]


def _drawn(site: Site, free: Sequence[int], count: int, seed: int) -> list[Site]:
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(free), generator=generator)[:count].tolist()
    return [replace(site, index=free[at]) for at in order]


def _too_few(found: int, wanted: int) -> list[str]:
    if found >= wanted:
        return []
    are = "is 1 other unit" if found == 1 else f"are {found} other units"
    return [f"There {are} in the layer to stand beside it, not {wanted}."]


def _finite(value: Tensor, objective: Objective) -> Tensor:
    if not bool(value.isfinite().all()):
        msg = f"With {objective.text} or a random unit ablated the output is no finite number."
        raise MetricError(msg)
    return value
