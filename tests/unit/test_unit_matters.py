"""Ablating a unit equals the same edit by hand, and so do the random units beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from patchclamp.engine.engine import Engine
from patchclamp.engine.experiment import Experiment
from patchclamp.engine.module_engine import DirectionAblation, ModuleEngine
from patchclamp.engine.surroundings import Reference, Surroundings, input_of
from patchclamp.errors import InputError, InterventionError, MetricError
from patchclamp.interventions import Ablate
from patchclamp.methods.massive import massive_neurons
from patchclamp.methods.objective import Neuron, Objective, objective
from patchclamp.methods.unit_matters import Matter, Trial, unit_matters
from patchclamp.models.language_model import LanguageModel
from patchclamp.models.module_model import ModuleModel
from patchclamp.models.stimulus import Stimulus
from patchclamp.sites import Site
from tests.unit import tiny

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

GIVEN = tiny.ids(9, seed=4)
TEXTS = [tiny.ids(8, seed=at) for at in range(20, 26)]


def engine(name: str = "llama") -> Engine:
    return Engine.of(tiny.model(name))


def reference(one: Engine) -> Reference:
    return Reference(one, tuple(input_of(one.model, ids) for ids in TEXTS))


def matters(
    what: Any, name: str = "llama", given: Any = GIVEN, how: Any = "mean", **options: Any
) -> Matter:
    one = engine(name)
    unit = what if isinstance(what, Objective) else objective(one.model, what)
    trial = Trial(how, reference(one), **options)
    found: Matter = run(one, lambda: unit_matters(one, unit, given, trial))
    return found


def run(one: Any, job: Callable[[], Any]) -> Any:
    return one.queue.submit(lambda _stop: job()).result(60)


def by_hand(
    hook: str,
    edit: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    *,
    name: str = "llama",
    given: torch.Tensor = GIVEN,
    begin: int = 0,
) -> tuple[float, float]:
    """Return the KL after the last position and its mean, with plain TransformerLens hooks.

    `edit` is given the values at all positions and their mean over the reference texts.
    """
    bridge = tiny.fresh_bridge(name)
    taken: list[torch.Tensor] = []

    def keep(x: torch.Tensor, hook: Any) -> None:
        taken.append(x[0, 1:].double())

    with torch.no_grad():
        for ids in TEXTS:
            bridge.run_with_hooks(ids[None], fwd_hooks=[(hook, keep)])
        mean = torch.cat(taken).mean(0).float()

        def act(x: torch.Tensor, hook: Any) -> torch.Tensor:
            new = x.clone()
            new[:, begin:] = edit(x[:, begin:], mean)
            return new

        before = bridge(given[None])[0].double().log_softmax(-1)
        after = bridge.run_with_hooks(given[None], fwd_hooks=[(hook, act)])[0]
        after = after.double().log_softmax(-1)
    kl = (before.exp() * (before - after)).sum(-1)[begin:]
    return float(kl[-1]), float(kl.mean())


def neuron_edit(index: int, how: str) -> Any:
    def edit(x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        new = x.clone()
        new[..., index] = mean[index] if how == "mean" else 0.0
        return new

    return edit


@pytest.mark.parametrize("how", ["mean", "zero"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_neurons_effect_and_its_controls_equal_the_same_edits_by_hand(
    name: str, how: str
) -> None:
    found = matters("L1.N5", name, how=how)
    hook = objective(tiny.model(name), "L1.N5").hooks[0]
    assert found.unit.address == "L1.N5"
    assert len(found.controls) == 5
    for one in (found.unit, *found.controls):
        index = Site.parse(one.address).index
        assert index is not None
        last, mean = by_hand(hook, neuron_edit(index, how), name=name)
        assert one.effect == pytest.approx(last, rel=1e-3, abs=1e-7)
        assert one.everywhere == pytest.approx(mean, rel=1e-3, abs=1e-7)
        assert mean > 1e-6
    assert found.larger_than == sum(found.unit.effect > c.effect for c in found.controls)


def test_the_activation_is_the_objectives_on_this_very_input() -> None:
    one = engine()
    taken: list[torch.Tensor] = []

    def keep(x: torch.Tensor, hook: Any) -> None:
        taken.append(x)

    hook = objective(one.model, "L1.N5").hooks[0]
    with torch.no_grad():
        tiny.fresh_bridge("llama").run_with_hooks(GIVEN[None], fwd_hooks=[(hook, keep)])
    found = matters("L1.N5")
    assert found.activation == pytest.approx(float(taken[0][0, -1, 5]), abs=1e-5)
    peak = matters(objective(one.model, "L1.N5", "peak"))
    assert peak.activation == pytest.approx(float(taken[0][0, :, 5].max()), abs=1e-5)


def test_controls_are_other_units_of_the_same_layer_by_seed() -> None:
    def drawn(seed: int, controls: int = 5) -> list[str]:
        return [one.address for one in matters("L2.N7:up", seed=seed, controls=controls).controls]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert drawn(1, 8)[:5] == drawn(1)
    sites = [Site.parse(address) for address in drawn(3, 10)]
    assert {(site.kind, site.layer, site.part) for site in sites} == {("neuron", 2, "up")}
    assert len({site.index for site in sites} - {7}) == 10


def test_a_beginning_of_sequence_token_is_left_as_it_is() -> None:
    given = torch.cat([torch.tensor([1]), GIVEN])
    found = matters("L1.N5", given=given)
    hook = objective(tiny.model("llama"), "L1.N5").hooks[0]
    spared = by_hand(hook, neuron_edit(5, "mean"), given=given, begin=1)
    assert (found.unit.effect, found.unit.everywhere) == pytest.approx(spared, rel=1e-3)
    touched = by_hand(hook, neuron_edit(5, "mean"), given=given)
    assert abs(touched[0] - spared[0]) > 0.01 * spared[0]


def test_massive_neurons_are_never_a_control_and_are_said_when_they_are_the_unit() -> None:
    made = tiny.hugging_face("llama")
    with torch.no_grad():
        for index in (4, 11):  # what they read is made huge
            made.model.layers[1].mlp.up_proj.weight[index] *= 3_000
    one = Engine.of(LanguageModel(made, None))
    texts = reference(one)
    massive = run(one, lambda: massive_neurons(texts, one.model.anatomy))
    assert massive == {(1, 4), (1, 11)}
    unit = objective(one.model, "L1.N5")
    everybody = Trial("mean", texts, controls=100)
    found = run(one, lambda: unit_matters(one, unit, GIVEN, everybody))
    indices = {Site.parse(control.address).index for control in found.controls}
    assert indices == set(range(48)) - {5, 4, 11}
    assert found.note == "There are 45 other units in the layer to stand beside it, not 100."
    few = Trial("mean", texts, controls=2)
    itself = run(one, lambda: unit_matters(one, objective(one.model, "L1.N4"), GIVEN, few))
    assert itself.note == "L1.N4 is a massive-activation neuron."
    assert itself.unit.effect > 10 * max(control.effect for control in itself.controls)


def random_vector(size: int, at: int) -> torch.Tensor:
    """The direction that stands beside one as the control number `at`."""
    drawn = torch.randn(5, size, generator=torch.Generator().manual_seed(0))
    return drawn[at]


@pytest.mark.parametrize("how", ["mean", "zero"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_directions_effect_and_its_controls_equal_the_same_edits_by_hand(
    name: str, how: str
) -> None:
    width = tiny.model(name).anatomy.d_model
    vector = torch.linspace(-1, 2, width)
    found = matters(("L2.resid_post[line]", vector), name, how=how)
    hook = objective(tiny.model(name), ("L2.resid_post[line]", vector)).hooks[0]

    def without(d: torch.Tensor) -> Any:
        unit = d / d.norm()

        def edit(x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
            moved = x - mean if how == "mean" else x
            along: torch.Tensor = (moved @ unit)[..., None] * unit
            return x - along

        return edit

    assert found.unit.address == "L2.resid_post[line]"
    assert [each.address for each in found.controls] == [
        f"L2.resid_post[random {at}]" for at in range(5)
    ]
    directions = [vector, *(random_vector(width, at) for at in range(5))]
    for one, direction in zip((found.unit, *found.controls), directions, strict=True):
        last, mean = by_hand(hook, without(direction), name=name)
        assert one.effect == pytest.approx(last, rel=1e-3, abs=1e-7)
        assert one.everywhere == pytest.approx(mean, rel=1e-3, abs=1e-7)
        assert mean > 1e-6


@pytest.mark.parametrize("how", ["mean", "zero"])
@pytest.mark.parametrize(("address", "head"), [("L1.H2", 2), ("L1.H3:k", 1)])
def test_of_a_head_what_lies_along_the_direction_is_ablated_beside_random_directions(
    address: str, head: int, how: str
) -> None:
    vector = torch.linspace(-1, 2, 8)  # heads 2 and 3 have the second keys in common
    found = matters((address, vector), how=how)
    hook = objective(tiny.model("llama"), (address, vector)).hooks[0]

    def without(d: torch.Tensor) -> Any:
        unit = d / d.norm()

        def edit(x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
            new = x.clone()
            moved = x[..., head, :] - (mean[head] if how == "mean" else 0.0)
            new[..., head, :] -= (moved @ unit)[..., None] * unit
            return new

        return edit

    assert found.unit.address == f"{address}[direction]"
    assert [each.address for each in found.controls] == [f"{address}[random {n}]" for n in range(5)]
    directions = [vector, *(random_vector(8, at) for at in range(5))]
    for one, direction in zip((found.unit, *found.controls), directions, strict=True):
        last, mean = by_hand(hook, without(direction))
        assert one.effect == pytest.approx(last, rel=2e-3, abs=1e-7)
        assert one.everywhere == pytest.approx(mean, rel=2e-3, abs=1e-7)
    assert found.unit.effect > 1e-6


def test_of_what_a_head_writes_along_a_direction_nothing_is_left() -> None:
    one = engine()
    vector = torch.linspace(-1, 2, 32)
    unit = objective(one.model, ("L1.H2", vector))
    along = unit.terms[0].unit
    assert isinstance(along, Neuron)
    assert along.direction is not None
    stack = (Ablate("L1.H2", "zero", direction=along.direction.vector),)
    given = input_of(one.model, GIVEN)
    texts = reference(one)
    experiment = Experiment(one, given, stack, Surroundings(one, texts), "nothing is left")
    left = run(one, lambda: experiment.capture(unit.hooks))
    before = run(one, lambda: experiment.under(()).capture(unit.hooks))
    assert unit.map({hook: value[None] for hook, value in before.items()}).abs().max() > 1e-3
    assert unit.map({hook: value[None] for hook, value in left.items()}).abs().max() < 1e-6


def test_two_directions_of_one_place_are_two_units() -> None:
    one = engine()
    both = objective(one.model, ("L2.resid_post", torch.eye(32)[0])) + objective(
        one.model, ("L2.resid_post", torch.eye(32)[1])
    )
    hook = both.hooks[0]

    def edit(x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        new = x.clone()
        new[..., :2] = 0.0
        return new

    assert matters(both, how="zero").unit.effect == pytest.approx(by_hand(hook, edit)[0], rel=1e-3)


def test_all_units_of_a_sum_are_ablated_together_beside_as_many_random_ones() -> None:
    one = engine()
    both = objective(one.model, "L1.N5") - 0.5 * objective(one.model, "L2.N7")
    found = matters(both)
    assert found.objective == "L1.N5 − 0.5 × L2.N7"
    assert found.unit.address == "L1.N5, L2.N7"
    for control in found.controls:
        assert [Site.parse(each).layer for each in control.address.split(", ")] == [1, 2]
    bridge = tiny.fresh_bridge("llama")
    hooks = [(hook, index) for hook, index in zip(both.hooks, (5, 7), strict=True)]

    def zeroing(index: int) -> Any:
        def act(x: torch.Tensor, hook: Any) -> torch.Tensor:
            new = x.clone()
            new[..., index] = 0.0
            return new

        return act

    with torch.no_grad():
        before = bridge(GIVEN[None])[0].log_softmax(-1)
        after = bridge.run_with_hooks(
            GIVEN[None], fwd_hooks=[(hook, zeroing(index)) for hook, index in hooks]
        )[0].log_softmax(-1)
    kl = (before.exp() * (before - after)).sum(-1)
    assert matters(both, how="zero").unit.effect == pytest.approx(float(kl[-1]), rel=1e-3)


def test_what_was_measured_is_told_in_words_and_as_a_table() -> None:
    one = engine()
    trial = Trial("mean", reference(one))
    unit = objective(one.model, "L1.N5")
    found = run(one, lambda: unit_matters(one, unit, GIVEN, trial, corpus_maximum=3.5))
    assert found.corpus_maximum == 3.5
    assert found.measured == "KL(as it is || ablated) of the prediction after the last token, nats"
    table = found.frame()
    assert list(table.columns) == ["unit", "random", "kl", "kl, all positions"]
    assert table["random"].tolist() == [False] + [True] * 5
    assert table["kl"][0] == found.unit.effect


def test_a_model_without_texts_of_its_own_takes_means_over_the_input() -> None:
    one = engine()
    found = run(one, lambda: unit_matters(one, objective(one.model, "L1.N5"), GIVEN))
    assert found.unit.effect > 0


# --- modules --------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, end: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.conv = nn.Conv2d(1, 8, 3)
        self.end = nn.Sequential(nn.Flatten(), nn.Linear(8 * 36, 4), end)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        done: torch.Tensor = self.end(self.conv(x).tanh())
        return done


def module_engine(end: nn.Module, labels: Sequence[str] = ()) -> ModuleEngine:
    return ModuleEngine.of(ModuleModel(Net(end), Stimulus((1, 8, 8)), name="net", labels=labels))


def stimuli(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(2))


def outputs(end: nn.Module, given: torch.Tensor, edit: Any) -> Any:
    """Both outputs; `edit` gets Float[1, channel, *space] and the mean of each channel."""
    net = Net(end).double()  # a small divergence drowns in float32's rounding
    with torch.no_grad():
        mean = net.conv(stimuli(20).double()).mean((0, 2, 3))
        x = net.conv(given[None].double())
        before = net.end(x.tanh())
        return before[0], net.end(edit(x, mean).tanh())[0]


def channel_edit(channel: int, how: str) -> Any:
    def edit(x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        new = x.clone()
        new[:, channel] = mean[channel] if how == "mean" else 0.0
        return new

    return edit


def direction_edit(vector: torch.Tensor, how: str) -> Any:
    unit: torch.Tensor = (vector / vector.norm()).double()

    def edit(x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        moved = x - mean.view(1, -1, 1, 1) if how == "mean" else x
        along: torch.Tensor = torch.einsum("bchw,c->bhw", moved, unit)
        return x - along[:, None] * unit.view(1, -1, 1, 1)

    return edit


@pytest.mark.parametrize("how", ["mean", "zero"])
@pytest.mark.parametrize("end", ["logits", "probabilities", "numbers"])
def test_a_channels_effect_and_its_controls_equal_the_module_run_by_hand(
    end: str, how: Any
) -> None:
    last = nn.Softmax(1) if end == "probabilities" else nn.Identity()
    labels = ("a", "b", "c", "d") if end == "logits" else ()
    one = module_engine(last, labels)
    given = stimuli(1)[0]
    trial = Trial(how, stimuli(20))
    unit = objective(one.model, "conv:c3", "peak")
    found = run(one, lambda: unit_matters(one, unit, given, trial))
    assert found.measure == ("change" if end == "numbers" else "kl")
    assert len(found.controls) == 5
    for each in (found.unit, *found.controls):
        channel = Site.parse(each.address).index
        assert channel is not None
        before, after = outputs(last, given, channel_edit(channel, how))
        if end == "numbers":
            truth = (after - before).norm() / before.norm()
        else:
            p, q = (x if end == "probabilities" else x.softmax(0) for x in (before, after))
            truth = (p * (p / q).log()).sum()
        assert float(truth) > 1e-6
        assert each.effect == pytest.approx(float(truth), rel=1e-3, abs=1e-7)
        assert each.everywhere is None
    with torch.no_grad():
        assert found.activation == pytest.approx(
            float(Net(last).conv(given[None])[0, 3].max()), abs=1e-6
        )


@pytest.mark.parametrize("how", ["mean", "zero"])
def test_a_direction_among_channels_and_its_controls_equal_the_module_run_by_hand(
    how: Any,
) -> None:
    one = module_engine(nn.Identity(), ("a", "b", "c", "d"))
    given, vector = stimuli(1)[0], torch.linspace(-1, 2, 8)
    unit = objective(one.model, ("conv[line]", vector))
    found = run(one, lambda: unit_matters(one, unit, given, Trial(how, stimuli(20))))
    assert found.unit.address == "conv[line]"
    assert [each.address for each in found.controls] == [f"conv[random {at}]" for at in range(5)]
    assert found.note == ""
    directions = [vector, *(random_vector(8, at) for at in range(5))]
    for each, direction in zip((found.unit, *found.controls), directions, strict=True):
        before, after = outputs(nn.Identity(), given, direction_edit(direction, how))
        p, q = before.softmax(0), after.softmax(0)
        truth = float((p * (p / q).log()).sum())
        assert truth > 1e-6
        assert each.effect == pytest.approx(truth, rel=1e-3, abs=1e-7)


def test_a_directions_length_does_not_matter_and_a_channels_own_axis_is_the_channel() -> None:
    one = module_engine(nn.Identity(), ("a", "b", "c", "d"))
    trial = Trial("mean", stimuli(20))

    def effect(what: Any) -> float:
        unit = objective(one.model, what)
        found: Matter = run(one, lambda: unit_matters(one, unit, stimuli(1)[0], trial))
        return found.unit.effect

    axis = torch.eye(8)[3]
    assert effect(("conv", 7 * axis)) == pytest.approx(effect("conv:c3"), rel=1e-4)
    assert effect(("conv", axis)) == pytest.approx(effect(("conv", -0.01 * axis)), rel=1e-4)


def test_a_change_is_called_a_change_and_a_divergence_can_be_asked_for() -> None:
    one = module_engine(nn.Identity())
    unit = objective(one.model, "conv:c3")
    given = stimuli(1)[0]
    change = run(one, lambda: unit_matters(one, unit, given, Trial("zero")))
    assert change.measured == "relative change of the output"
    assert list(change.frame().columns) == ["unit", "random", "change"]
    asked = run(one, lambda: unit_matters(one, unit, given, Trial("zero", measure="kl")))
    before, after = outputs(nn.Identity(), given, channel_edit(3, "zero"))
    p, q = before.softmax(0), after.softmax(0)
    assert asked.measured == "KL(as it is || ablated) of the prediction, nats"
    assert asked.unit.effect == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-3)


def test_controls_of_a_channel_are_all_others_where_there_are_few() -> None:
    one = module_engine(nn.Identity(), ("a", "b", "c", "d"))
    unit = objective(one.model, "end.1:c0")
    found = run(one, lambda: unit_matters(one, unit, stimuli(1)[0], Trial("zero")))
    assert {control.address for control in found.controls} == {f"end.1:c{n}" for n in (1, 2, 3)}
    assert found.note == "There are 3 other units in the layer to stand beside it, not 5."


def test_an_output_of_a_module_is_said_to_be_one() -> None:
    one = module_engine(nn.Identity(), ("a", "b", "c", "d"))
    unit = objective(one.model, f"{one.model.anatomy.output}:c0")
    trial = Trial("zero", controls=3)
    found = run(one, lambda: unit_matters(one, unit, stimuli(1)[0], trial))
    assert "is the model's own output: ablating it changes that directly" in found.note
    inside = run(
        one, lambda: unit_matters(one, objective(one.model, "conv:c0"), stimuli(1)[0], trial)
    )
    assert inside.note == ""


# --- what cannot be -------------------------------------------------------------------------------


def test_what_cannot_be_ablated_is_told_in_a_sentence() -> None:
    one = engine()
    hook = objective(one.model, "L1.N5").hooks[0]
    function = Objective.of_function(lambda v: v[hook].sum((1, 2)), paths=(hook,), name="total")
    with pytest.raises(InputError, match=r"total is a function of activations.*aim at a unit"):
        matters(function)
    with pytest.raises(InputError, match=r"is the output itself.*a unit inside the model"):
        matters(("logits", 5))


def test_a_direction_that_does_not_fit_a_part_is_refused() -> None:
    one, given = module_engine(nn.Identity()), stimuli(1)
    site = Site.parse("conv:c0")
    for vector, said in (
        ((1.0, 2.0), "a number for each of its 8 channels, not 2"),
        ((0.0,) * 8, "finite and longer than zero"),
        ((float("nan"),) * 8, "finite and longer than zero"),
    ):
        with pytest.raises(InterventionError, match=said):
            one.run(given, output=True, interventions=[DirectionAblation(site, vector)])


def test_a_mean_over_nothing_and_a_wrong_stimulus_are_told() -> None:
    one = module_engine(nn.Identity())
    unit = objective(one.model, "conv:c3")
    with pytest.raises(InterventionError, match="reference="):
        run(one, lambda: unit_matters(one, unit, stimuli(1)[0], Trial("mean")))
    with pytest.raises(InputError, match="takes stimuli of the shape"):
        run(one, lambda: unit_matters(one, unit, stimuli(2), Trial("zero")))


def test_an_output_that_is_no_number_is_told() -> None:
    one = module_engine(nn.ReLU())
    with torch.no_grad():
        one.model.module.end[1].weight.fill_(torch.inf)  # type: ignore[union-attr, index]
        one.model.module.end[1].bias.fill_(1.0)  # type: ignore[union-attr, index]
    unit = objective(one.model, "conv:c3")
    given = torch.ones(1, 8, 8)
    with pytest.raises((MetricError, ValueError), match=r"no finite number|NaN"):
        run(one, lambda: unit_matters(one, unit, given, Trial("zero")))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"controls": 0}, "at least one random unit"),
        ({"how": "resample"}, "'mean' or to 'zero', not 'resample'"),
        ({"measure": "cosine"}, "by 'kl' or by their 'change'"),
    ],
)
def test_a_trial_that_is_none_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Trial(**options)
