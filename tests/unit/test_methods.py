"""The methods measure what they say: against plain torch, by hand, beside a control."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as hf

import patchclamp as pc
from patchclamp.engine.experiment import Run
from patchclamp.engine.plan import Input
from patchclamp.engine.surroundings import Reference
from patchclamp.errors import InputError, InterventionError, MetricError, ModelError, Stopped
from patchclamp.methods.divergence import kl_by_position, kl_divergence
from patchclamp.methods.dose_response import CHUNK, Dose, dose_response
from patchclamp.methods.effect import Effect, effects
from patchclamp.methods.massive import massive_neurons
from patchclamp.methods.metric import (
    KL,
    Custom,
    LogitDifference,
    LogProb,
    Loss,
    bind,
    bind_to,
    metric_from_json,
)
from patchclamp.methods.ranking import RankedNeuron, rank_neurons
from patchclamp.models.language_model import LanguageModel
from patchclamp.models.weights import Readout, neuron_writes
from tests.unit import tiny

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from patchclamp.methods.metric import Measure, Metric

ADDITIVE = ["native", "gpt2", "llama", "neox", "gemma"]
LENGTH = 12
MASSIVE = (1, 20)
WRITER = (2, 9)
TARGET = 30


def session_on(name: str = "llama", *stack: pc.Intervention, **options: Any) -> pc.Session:
    return pc.Session(tiny.model(name), tiny.ids(LENGTH), interventions=stack, **options)


def on_worker(session: pc.Session, job: Callable[[Any], Any]) -> Any:
    return session.submit(job).result()


def rank(session: pc.Session, by: Any, **options: Any) -> list[RankedNeuron]:
    metric: Metric = options.pop("metric", session.metric)

    def job(_: object) -> list[RankedNeuron]:
        measure = bind_to(session.experiment, metric)
        return rank_neurons(session.experiment, by, measure=measure, **options)

    return list(on_worker(session, job))


def every(session: pc.Session) -> int:
    return sum(session.model.anatomy.neurons)


def measured(session: pc.Session, **options: Any) -> list[Effect]:
    metric: Metric = options.pop("metric", session.metric)

    def job(_: object) -> list[Effect]:
        measure = bind_to(session.experiment, metric)
        return list(effects(session.experiment, measure=measure, **options))

    return list(on_worker(session, job))


def doses_of(session: pc.Session, index: int, values: list[float], metric: Metric) -> list[Any]:
    def job(_: object) -> list[Any]:
        measure = bind_to(session.experiment, metric)
        return list(dose_response(session.experiment, index, values, measure=measure))

    return list(on_worker(session, job))


def margin(logits: torch.Tensor) -> torch.Tensor:
    """Return how far the token 7 is above the best of the first five."""
    return logits[:, -1, 7] - logits[:, -1, :5].amax(-1)


METRICS = [LogProb(7), LogitDifference(7, 11), KL(), Loss(), Custom(margin, "margin")]


def by_hand(metric: Metric, session: pc.Session) -> float:
    """Measure the session's current run with torch alone."""
    logits, before = (run.logits.double() for run in (session.current, session.baseline))
    functional = torch.nn.functional
    match metric:
        case LogProb():
            return float(logits[-1].log_softmax(-1)[7])
        case LogitDifference():
            return float(logits[-1, 7] - logits[-1, 11])
        case KL():
            p, q = before[-1].log_softmax(-1), logits[-1].log_softmax(-1)
            return float(functional.kl_div(q, p, log_target=True, reduction="sum"))
        case Loss():
            return float(functional.cross_entropy(logits[:-1], session.ids[1:]))
        case Custom():
            return float(logits[-1, 7] - logits[-1, :5].max())


@cache
def planted() -> LanguageModel:
    """Make a model with one massive neuron, and one that writes a token's unembedding direction."""
    model = tiny.hugging_face("llama")
    with torch.no_grad():
        layer, index = MASSIVE
        model.model.layers[layer].mlp.up_proj.weight[index] *= 1e4
        # It says its 1e4 where nobody listens: the rest of the model stays as it was.
        model.model.layers[layer].mlp.down_proj.weight[:, index] *= 1e-4
        layer, index = WRITER
        row = model.lm_head.weight[TARGET] * model.model.norm.weight
        model.model.layers[layer].mlp.down_proj.weight[:, index] = 2 * row / row.norm()
    return LanguageModel(model, None, name="planted")


# Divergence ---------------------------------------------------------------------------------------


def test_the_divergence_is_torchs_own() -> None:
    draw = torch.Generator().manual_seed(0)
    for scale in (0.1, 1.0, 30.0, 300.0):
        before, after = (torch.randn(20, 500, generator=draw) * scale for _ in range(2))
        truth = torch.nn.functional.kl_div(
            after.double().log_softmax(-1),
            before.double().log_softmax(-1),
            log_target=True,
            reduction="none",
        ).sum(-1)
        found = kl_divergence(before, after)
        assert found.dtype is torch.float32
        assert torch.allclose(found.double(), truth, rtol=1e-4, atol=1e-7)


def test_the_divergence_of_equal_predictions_is_zero_whatever_is_added_to_the_logits() -> None:
    logits = torch.randn(20, 5000, generator=torch.Generator().manual_seed(1)) * 5
    assert kl_divergence(logits, logits).tolist() == [0.0] * 20
    assert float(kl_divergence(logits, logits + 7).max()) < 1e-10
    assert float(kl_divergence(logits, logits * 1.001).min()) > 1e-8


@pytest.mark.parametrize("first", [0, 5, LENGTH - 1])
def test_kl_by_position_is_zero_before_the_first_touched_position_and_torchs_from_there(
    first: int,
) -> None:
    session = session_on("gpt2", pc.Clamp(f"L1.N3@{first}", 9.0), pc.Scale("L2.mlp@-1", 3.0))
    found = kl_by_position(session.baseline, session.current)
    assert found.shape == (LENGTH,)
    assert found[:first].tolist() == [0.0] * first
    p = session.baseline.logits.double().log_softmax(-1)
    q = session.current.logits.double().log_softmax(-1)
    truth = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
    assert torch.allclose(found.double(), truth, rtol=1e-3, atol=1e-7)
    assert float(found[first:].min()) > 1e-5
    backwards = kl_by_position(session.current, session.baseline)
    assert not torch.allclose(backwards[first:], found[first:], rtol=3e-4)


def test_positions_before_the_first_touched_one_cost_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = session_on("gpt2", pc.Clamp("L1.N3@8", 9.0))
    asked: set[int] = set()
    rows = Run.rows

    def spy(run: Run, positions: Sequence[int]) -> torch.Tensor:
        asked.update(positions)
        return rows(run, positions)

    monkeypatch.setattr(Run, "rows", spy)
    kl_by_position(session.baseline, session.current)
    assert asked == set(range(8, LENGTH))


def test_kl_by_position_sees_a_change_of_the_weights_and_of_the_contrast() -> None:
    model = LanguageModel(tiny.hugging_face("llama"), None)
    session = pc.Session(model, tiny.ids(LENGTH), contrast=tiny.ids(LENGTH, seed=1))
    session.interventions = [pc.Patch("L1.mlp@5:")]
    one = session.current
    one.rows(range(LENGTH))
    session.contrast = tiny.ids(LENGTH, seed=2)
    assert float(kl_by_position(one, session.current)[5:].min()) > 1e-4
    session.reset()
    before = session.baseline
    assert before.logits.shape == (LENGTH, tiny.VOCAB)
    with torch.no_grad():
        model.bridge.blocks[0].mlp.out.original_component.weight.mul_(3)
    assert float(kl_by_position(before, session.baseline).min()) > 1e-4


def test_a_stopped_divergence_is_no_divergence_of_zero() -> None:
    session = session_on("llama", pc.Clamp("L1.N3@-1", 9.0))
    with pytest.raises(Stopped):
        kl_by_position(session.baseline, session.current, should_stop=lambda: True)


# Ranking ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ADDITIVE)
def test_a_layers_direct_effects_sum_to_its_mlps_and_all_components_to_the_logit(name: str) -> None:
    session = session_on(name, pc.Scale("L0.attn", 2.0))
    bridge, anatomy, run = session.model.bridge, session.model.anatomy, session.current
    token = session.target
    ranked = rank(session, "direct", count=every(session), include_massive=True)
    final = run.activation(f"L{anatomy.n_layers - 1}.resid_post")[-1]
    read = Readout.of(bridge).direction(final, token).double()
    total = run.activation("L0.resid_pre")[-1].double() @ read
    for layer in range(anatomy.n_layers):
        bias = getattr(bridge.blocks[layer].mlp.out.original_component, "bias", None)
        constant = 0.0 if bias is None else float(bias.detach().double() @ read)
        neurons = sum(n.score for n in ranked if n.layer == layer)
        mlp = float(run.activation(f"L{layer}.mlp")[-1].double() @ read)
        assert neurons == pytest.approx(mlp - constant, abs=1e-5 * max(1, abs(mlp)))
        assert abs(neurons) > 1e-3
        total = total + mlp + run.activation(f"L{layer}.attn")[-1].double() @ read
    logit = float(run.logits[-1, token])
    row = bridge.unembed.original_component.weight[token].detach().double()
    for owner, along in ((bridge.ln_final, row), (bridge.unembed, None)):
        bias = getattr(owner.original_component, "bias", None)
        if bias is not None:
            logit -= float(bias.detach().double() @ along if along is not None else bias[token])
    assert float(total) == pytest.approx(logit, abs=1e-5 * max(1, abs(logit)))
    assert abs(logit) > 0.1


def test_a_direct_effect_where_it_is_not_defined_is_refused() -> None:
    session = session_on("gemma3")
    with pytest.raises(ModelError, match="rank by activation or gradient instead"):
        rank(session, "direct")
    assert len(rank(session, "activation")) == 20


@pytest.mark.parametrize("by", ["activation", "direct", "gradient"])
def test_a_ranking_is_by_size_and_all_of_it_is_there(by: str) -> None:
    session = session_on("llama", pc.Scale("L0.mlp", 2.0))
    ranked = rank(session, by, count=10**6, position=4)
    sizes = [abs(n.score) for n in ranked]
    assert sizes == sorted(sizes, reverse=True)
    assert len({(n.layer, n.index) for n in ranked}) == len(ranked) == every(session)
    assert rank(session, by, count=7, position=4) == ranked[:7]
    assert rank(session, by, count=7, position=4 - LENGTH) == ranked[:7]
    for neuron in ranked[:5]:
        value = float(session.current.activation(f"{neuron.address}@4")[0])
        assert neuron.activation == pytest.approx(value, rel=1e-5)
        if by == "activation":
            assert neuron.score == neuron.activation
    assert not any(n.massive for n in ranked)


@pytest.mark.parametrize(("name", "position"), [("gpt2", 4), ("llama", 4), ("gemma3", LENGTH - 1)])
@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.kind)
def test_gradient_times_activation_is_the_slope_of_the_metric_in_a_factor(
    name: str, position: int, metric: Metric
) -> None:
    if metric == Loss():
        position = 4  # what stands at the last position predicts nothing that the loss knows
    # Under a stack: the gradient of KL is zero without one.
    stack = (pc.Scale("L0.attn", 3.0),)
    session = session_on(name, *stack, metric=metric)
    ranked = rank(session, "gradient", position=position, count=40)
    step = 0.02
    for neuron in (ranked[0], ranked[5], ranked[30]):
        found = []
        for factor in (1 - step, 1 + step):
            session.interventions = [*stack, pc.Scale(f"{neuron.address}@{position}", factor)]
            found.append(by_hand(metric, session))
        assert (found[1] - found[0]) / (2 * step) == pytest.approx(neuron.score, rel=0.03, abs=1e-4)
        assert abs(neuron.score) > 2e-3


def test_a_ranking_hides_massive_neurons_unless_they_are_asked_for() -> None:
    session = pc.Session(planted(), tiny.ids(LENGTH))
    assert MASSIVE not in {
        (n.layer, n.index) for n in rank(session, "activation", count=every(session))
    }
    assert len(rank(session, "activation", count=10**6)) == every(session) - 1
    top, *others = rank(session, "activation", include_massive=True, count=every(session))
    assert (top.layer, top.index) == MASSIVE
    assert top.massive
    assert not any(n.massive for n in others)
    assert len(others) == every(session) - 1


@pytest.mark.parametrize("position", [LENGTH, -LENGTH - 1])
def test_a_ranking_outside_the_prompt_is_refused(position: int) -> None:
    with pytest.raises(InputError, match="0 to 11"):
        rank(session_on(), "activation", position=position)


def test_a_half_precision_model_is_ranked_too() -> None:
    model = LanguageModel(tiny.hugging_face("llama").to(torch.bfloat16), None)
    session = pc.Session(model, tiny.ids(LENGTH))
    for by in ("activation", "direct", "gradient"):
        ranked = rank(session, by)
        target = LogProb(session.target)
        truth = {(n.layer, n.index) for n in rank(session_on(), by, metric=target)}
        assert len(truth & {(n.layer, n.index) for n in ranked}) >= 12


# Massive neurons ----------------------------------------------------------------------------------


def test_a_planted_massive_neuron_is_found_and_no_other() -> None:
    def found(model: LanguageModel) -> frozenset[tuple[int, int]]:
        session = pc.Session(model, tiny.ids(LENGTH))
        job = lambda _: massive_neurons(session.reference, model.anatomy)  # noqa: E731
        return frozenset(on_worker(session, job))

    assert found(planted()) == {MASSIVE}
    for name in ("llama", "gpt2", "native"):
        assert found(tiny.model(name)) == frozenset()


def test_a_neuron_that_is_massive_at_position_0_alone_counts() -> None:
    model = tiny.hugging_face("llama")
    session = pc.Session(LanguageModel(model, None), tiny.ids(LENGTH))
    alone = Reference(session.engine, (session.experiment.given,))
    hook = session.model.anatomy.hook(pc.Site.parse("L1.N3"))
    statistics = on_worker(session, lambda _: alone.statistics(hook))
    values = session.baseline.activation("L1.N3")
    assert float(statistics.peak[3]) == pytest.approx(float(values.abs().max()), rel=1e-5)
    assert float(statistics.mean[3]) == pytest.approx(float(values[1:].mean()), rel=1e-4)
    assert float(statistics.sd[3]) == pytest.approx(float(values[1:].std(correction=0)), rel=1e-4)
    largest_first = [
        n for n in range(48) if int(session.baseline.activation(f"L1.N{n}").abs().argmax()) == 0
    ]
    assert largest_first, "no neuron peaks at position 0"
    n = largest_first[0]
    peak = session.baseline.activation(f"L1.N{n}").abs()
    assert float(statistics.peak[n]) == pytest.approx(float(peak[0]), rel=1e-5)


def test_neurons_that_never_fire_make_no_other_massive() -> None:
    torch.manual_seed(0)
    config = hf.GPT2Config(
        n_layer=2,
        n_head=2,
        n_embd=16,
        n_positions=64,
        vocab_size=tiny.VOCAB,
        activation_function="relu",
        initializer_range=0.25,
    )
    model: Any = hf.GPT2LMHeadModel(config)
    with torch.no_grad():
        for block in model.transformer.h:
            block.mlp.c_fc.bias[:40] = -100.0  # 40 of 64 never fire
    session = pc.Session(LanguageModel(model, None), tiny.ids(LENGTH))
    job = lambda _: massive_neurons(session.reference, session.model.anatomy)  # noqa: E731
    assert on_worker(session, job) == frozenset()
    assert float(session.baseline.activation("L0.N0").abs().max()) == 0


# Dose and response --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stack", "index"),
    [
        ((pc.Clamp("L1.N3@4:", 1.0), pc.Ablate("L3.H1", how="zero")), 0),
        ((pc.Scale("L0.mlp", 0.5), pc.Add("L2.N7@-1", 1.0)), 1),
        ((pc.Scale("L2.H1@-1", 0.5),), 0),
    ],
)
def test_a_dose_response_is_what_single_runs_give(
    stack: tuple[pc.Intervention, ...], index: int
) -> None:
    session = session_on("llama", *stack)
    values = [-6.0, -1.0, 0.0, 0.25, 1.0, 2.0, 4.0, 8.0, 16.0, 5.0, -3.0]
    chunks: list[list[Dose]] = doses_of(session, index, values, LogProb(7))
    assert [len(chunk) for chunk in chunks] == [CHUNK, len(values) - CHUNK]
    doses = [dose for chunk in chunks for dose in chunk]
    assert [dose.value for dose in doses] == values
    key = session.keys[index]
    for dose in doses:
        session.edit(key, stack[index].with_value(dose.value))
        single = float(session.current.log_probs()[7])
        assert dose.metric == pytest.approx(single, abs=1e-4)
        kl = float(kl_by_position(session.baseline, session.current)[-1])
        assert dose.kl == pytest.approx(kl, rel=1e-3, abs=1e-6)
    assert max(d.metric for d in doses) - min(d.metric for d in doses) > 1e-2


def test_a_dose_response_without_a_dose_is_refused() -> None:
    session = session_on("llama", pc.Ablate("L1.N3", how="zero"))
    with pytest.raises(InterventionError, match="no single value"):
        doses_of(session, 0, [1.0], LogProb(7))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.kind)
@pytest.mark.parametrize("place", ["L1.N3@6", "L2.N5@2:"])
def test_a_dose_response_is_of_the_metric_whatever_it_is(metric: Metric, place: str) -> None:
    session = session_on("llama", pc.Clamp(place, 1.0), pc.Scale("L0.H1", 2.0))
    values = [-6.0, 0.0, 8.0]
    doses = [dose for chunk in doses_of(session, 0, values, metric) for dose in chunk]
    for dose in doses:
        session.edit(session.keys[0], pc.Clamp(place, dose.value))
        assert dose.metric == pytest.approx(by_hand(metric, session), abs=1e-4)
        assert dose.kl == pytest.approx(by_hand(KL(), session), rel=1e-3, abs=1e-6)
    assert max(d.metric for d in doses) - min(d.metric for d in doses) > 5e-3


def test_a_dose_that_overflows_the_model_is_a_gap_and_one_that_breaks_the_metric_is_said() -> None:
    session = session_on("llama", pc.Scale("L3.mlp", 1.0))
    (chunk,) = doses_of(session, 0, [1.0, 3e38, 2.0], LogProb(7))
    assert [math.isnan(dose.metric) for dose in chunk] == [False, True, False]

    def inverse(logits: torch.Tensor) -> torch.Tensor:
        return 1 / (logits[:, -1, 7] - logits[:, -1, 7])

    with pytest.raises(MetricError, match="The metric 'inverse' is infinite: the metric itself"):
        doses_of(session, 0, [1.0], Custom(inverse, "inverse"))


# Effects ------------------------------------------------------------------------------------------


STACK = (
    pc.Clamp("L1.N3@4:", 6.0),
    pc.Scale("L0.mlp", 0.5, muted=True),
    pc.Ablate("L2.H1", how="zero"),
    pc.Scale("L2.N8@-1", -4.0),
)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.kind)
def test_an_effect_is_the_metric_with_minus_the_metric_without(metric: Metric) -> None:
    session = session_on("gpt2", *STACK)
    found = measured(session, metric=metric)
    acting = [iv for iv in STACK if not iv.muted]
    assert [effect.index for effect in found] == [0, 1, 2]  # of what is not muted
    for effect in found:
        sides = []
        for stack in (acting, [iv for n, iv in enumerate(acting) if n != effect.index]):
            session.interventions = stack
            sides.append(by_hand(metric, session))
        assert effect.effect == pytest.approx(sides[0] - sides[1], abs=1e-4)
        # What stands at the last position predicts nothing that the loss knows.
        seen = metric != Loss() or effect.index < 2
        assert abs(effect.effect) > 1e-3 if seen else effect.effect == pytest.approx(0, abs=1e-6)
        assert (effect.control is None) == isinstance(acting[effect.index], pc.Ablate)


def test_a_controls_numbers_are_those_of_the_neurons_that_it_names() -> None:
    session = session_on("llama", pc.Clamp("L1.N3@-1", 6.0))
    (effect,) = measured(session, metric=LogProb(7), seeds=5)
    control = effect.control
    assert control is not None
    assert len(set(control.neurons)) == 5
    assert control.low <= control.median <= control.high
    before = session.baseline
    change = 6.0 - float(before.activation("L1.N3@-1")[0])
    norms = neuron_writes(session.model.bridge, 1).norm(dim=-1)
    found = []
    for address in control.neurons:
        index = pc.Site.parse(address).index
        amount = change * float(norms[3] / norms[index])
        session.interventions = [pc.Add(f"{address}@-1", amount)]
        found.append(float(session.current.log_probs()[7] - before.log_probs()[7]))
    found.sort()
    assert [found[0], found[2], found[4]] == pytest.approx(
        [control.low, control.median, control.high], abs=1e-4
    )
    assert control.high - control.low > 1e-3


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox", "gemma"])
@pytest.mark.parametrize(
    "clamp", [pc.Clamp("L2.N3", 6.0), pc.Scale("L2.N3@2:7", -3.0), pc.Ablate("L2.N3@1,-1")]
)
def test_a_control_changes_what_is_written_by_the_same_norm_at_every_position(
    name: str, clamp: pc.Intervention
) -> None:
    from patchclamp.methods.effect import _controls

    # Something else is on the stack, in the layer itself and below it.
    others = (pc.Scale("L0.mlp", 2.0), pc.Clamp("L2.N11", 3.0))
    session = session_on(name, *others, clamp)

    def written(*stack: pc.Intervention) -> torch.Tensor:
        session.interventions = stack
        return session.current.activation("L2.mlp")

    drawn = on_worker(session, lambda _: _controls(session.experiment, others, 2, 5, None))
    without = written(*others)
    norms = (written(*others, clamp) - without).norm(dim=-1)
    assert float(norms.max()) > 1e-2
    assert len(drawn) == 5
    for control in drawn:
        assert control.site.layer == 2
        assert control.site.index not in (3, 11)
        found = (written(*others, control) - without).norm(dim=-1)
        assert torch.allclose(found, norms, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "cells", ["L2.H1[5:8<-2]", "L2.H1@4:", "{L2.H1[7<-3], L2.H1[9<-3:5], L1.H0[6<-*]}"]
)
@pytest.mark.parametrize("how", ["renormalise", "zero", "contrast"])
def test_a_knockouts_control_is_the_same_cells_in_other_heads(cells: str, how: Any) -> None:
    knocked = pc.Knockout(cells, how)
    session = session_on("gpt2", knocked, contrast=tiny.ids(LENGTH, seed=1))
    (effect,) = measured(session, metric=LogProb(7))
    control = effect.control
    assert control is not None
    assert control.of == "heads"
    one = not cells.startswith("{")
    assert control.seeds == len(control.heads) == (3 if one else 5)  # of four heads a layer
    if one:
        assert sorted(control.heads) == ["L2.H0", "L2.H2", "L2.H3"]
    found = []
    for heads in control.heads:
        moved = cells
        for layer, address in zip((2, 1), heads.split(", "), strict=False):
            assert address.startswith(f"L{layer}.")
            assert address not in cells
            moved = moved.replace("L2.H1" if layer == 2 else "L1.H0", address)
        session.interventions = [pc.Knockout(moved, how)]
        change = session.current.log_probs()[7] - session.baseline.log_probs()[7]
        found.append(float(change))
    found.sort()
    assert [found[0], found[-1]] == pytest.approx([control.low, control.high], abs=1e-4)
    assert control.high - control.low > 1e-4


def test_heads_that_the_stack_acts_on_are_no_control() -> None:
    knocked = pc.Knockout("L2.H1[5:8<-2]")
    others = [pc.Scale("L2.H0", 2.0), pc.Cut("L1.H3->L2.H2:q"), pc.Scale("L1.H3", 2.0)]
    effect = measured(session_on("gpt2", knocked, *others))[0]
    assert effect.control is not None
    assert effect.control.heads == ("L2.H3",)
    # Two query heads of this model share a key/value head: what edits its keys acts on both.
    effect = measured(session_on("llama", knocked, pc.Scale("L2.H2:k", 2.0)))[0]
    assert effect.control is not None
    assert effect.control.heads == ("L2.H0",)
    (effect,) = measured(session_on("gpt2", pc.Knockout("L2.H[0:3][5<-2]")))
    assert effect.control is None


def test_a_directions_control_pushes_as_far_along_random_directions() -> None:
    from patchclamp.methods.effect import _controls

    session = session_on("gpt2")
    session.define("up", "L1.resid_post", torch.linspace(-1, 1, 32))
    others, clamp = (pc.Scale("L0.mlp", 2.0),), pc.Clamp("L1.resid_post[up]@3:", 1.5)
    session.interventions = (*others, clamp)

    def stream(*stack: pc.Intervention) -> torch.Tensor:
        session.interventions = stack
        return session.current.activation("L1.resid_post")

    drawn = on_worker(session, lambda _: _controls(session.experiment, others, 1, 5, None))
    without = stream(*others)
    change = stream(*others, clamp) - without
    norms = change.norm(dim=-1)
    assert float(norms[3:].min()) > 1e-2
    assert len(drawn) == 5
    for control in drawn:
        found = stream(*others, control) - without
        assert torch.allclose(found.norm(dim=-1), norms, rtol=1e-4, atol=1e-5)
        assert float(torch.cosine_similarity(found[3:], change[3:], dim=-1).abs().max()) < 0.9
    session.interventions = (*others, clamp)
    effect = measured(session, metric=LogProb(7))[1]
    assert effect.control is not None
    assert (effect.control.seeds, effect.control.neurons) == (5, ())


def test_controls_are_the_same_every_time_and_leave_out_massive_and_clamped_neurons() -> None:
    layer, index = MASSIVE
    stack = [pc.Clamp(f"L{layer}.N{n}@-1", 5.0) for n in range(4)]
    session = pc.Session(planted(), tiny.ids(LENGTH), interventions=stack)
    count = session.model.anatomy.n_neurons(layer)
    first = measured(session, seeds=count)
    assert measured(session, seeds=count) == first
    for effect in first:
        assert effect.control is not None
        drawn = {pc.Site.parse(a).index for a in effect.control.neurons}
        assert drawn == set(range(count)) - {0, 1, 2, 3, index}
    few = [measured(session)[n].control for n in range(2)]
    assert all(control is not None and len(control.neurons) == 5 for control in few)


def test_the_effect_of_a_neuron_that_writes_the_target_is_special_and_others_are_not() -> None:
    layer, index = WRITER
    metric = LogProb(TARGET)
    session = pc.Session(planted(), tiny.ids(LENGTH), metric=metric)
    session.interventions = [pc.Clamp(f"L{layer}.N{index}@-1", 6.0)]
    (effect,) = measured(session, seeds=20)
    assert effect.control is not None
    most = max(abs(effect.control.low), abs(effect.control.high))
    assert effect.effect > 1.5 * most > 0
    inside = 0
    for other in range(10, 20):
        session.interventions = [pc.Clamp(f"L{layer}.N{other}@-1", 6.0)]
        (effect,) = measured(session, seeds=20)
        assert effect.control is not None
        inside += effect.control.low <= effect.effect <= effect.control.high
    assert inside >= 7


def test_only_generated_positions_have_no_effect_on_the_prompt_and_no_control() -> None:
    session = session_on("llama", pc.Clamp("L1.N3@new", 6.0))
    (effect,) = measured(session)
    assert effect.effect == pytest.approx(0, abs=1e-5)
    assert effect.control is None


# Metrics ------------------------------------------------------------------------------------------


IDS = [[3, 7, 9, 4], [5, 5, 8, 11], [6, 2, 7, 7]]


def bound(metric: Metric, baseline: torch.Tensor, count: int = 3) -> Measure:
    inputs = [Input(tuple(ids), has_bos=False) for ids in IDS[:count]]
    return bind(metric, tiny.model("llama"), inputs, baseline=lambda: baseline)


@pytest.mark.parametrize(
    "metric", [LogProb(), LogProb(7), LogProb(" a"), LogitDifference(" a", 3), KL(), Loss()]
)
def test_a_metric_goes_to_json_and_back(metric: Metric) -> None:
    assert metric_from_json(metric.to_json()) == metric


def test_a_function_goes_into_no_file() -> None:
    with pytest.raises(MetricError, match="'margin' is a function, which no file can hold"):
        Custom(margin, "margin").to_json()


def test_metrics_are_what_torch_says() -> None:
    draw = torch.Generator().manual_seed(0)
    logits, before = (torch.randn(3, 4, tiny.VOCAB, generator=draw) * 9 for _ in range(2))
    last = logits[:, -1:]

    def found(metric: Metric, rows: torch.Tensor) -> torch.Tensor:
        return bound(metric, before[:, -1:])(rows)

    assert torch.equal(found(LogProb(7), last), last[:, 0].log_softmax(-1)[..., 7])
    likeliest = before[:, -1].argmax(-1)
    assert len(set(likeliest.tolist())) == 3
    each = last[:, 0].log_softmax(-1)[torch.arange(3), likeliest]
    assert torch.equal(found(LogProb(), last), each)
    assert torch.equal(found(LogitDifference(7, 9), last), last[:, 0, 7] - last[:, 0, 9])
    assert torch.equal(found(KL(), last), kl_divergence(before[:, -1], last[:, 0]))
    assert torch.equal(found(Custom(margin), last), margin(last))
    targets = torch.tensor(IDS)[:, 1:]
    losses = [
        torch.nn.functional.cross_entropy(one, target)
        for one, target in zip(logits[:, :-1], targets, strict=True)
    ]
    assert torch.allclose(found(Loss(), logits[:, :-1]), torch.stack(losses), rtol=1e-6)
    assert LogProb().label((" Paris",)) == 'log p(" Paris")'
    with pytest.raises(InputError, match="log_prob, logit_difference, kl and loss are known"):
        metric_from_json({"metric": "guess"})


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.kind)
def test_a_measure_of_one_input_takes_any_number_of_its_runs_and_of_many_any_choice(
    metric: Metric,
) -> None:
    draw = torch.Generator().manual_seed(0)
    logits, before = (torch.randn(3, 4, tiny.VOCAB, generator=draw) * 9 for _ in range(2))
    logits = logits[:, :-1] if metric == Loss() else logits[:, -1:]
    every = bound(metric, before[:, -1:])
    assert every.rows == ((0, 1, 2) if metric == Loss() else (3,))
    each = every(logits)
    chosen = [2, 0, 2]
    assert torch.equal(every.at(chosen)(logits[chosen]), each[chosen])
    one = bound(metric, before[:1, -1:], count=1)
    assert one(logits)[0] == each[0]
    alone = torch.cat([one(logits[i : i + 1]) for i in range(3)])
    assert torch.allclose(one.at([0, 0, 0])(logits), alone, rtol=1e-6)


def test_the_tokens_of_each_input_come_before_the_metrics_own() -> None:
    inputs = [Input(tuple(ids), has_bos=False) for ids in IDS]
    tokens = [(7, 9), (), (4, 5)]

    def given(metric: Metric) -> list[list[int]]:
        baseline = torch.eye(tiny.VOCAB)[[10, 11, 12]][:, None]
        found = bind(metric, tiny.model("llama"), inputs, baseline=lambda: baseline, tokens=tokens)
        return found.tokens.tolist()

    assert given(LogitDifference(1, 2)) == [[7, 9], [1, 2], [4, 5]]
    assert given(LogProb()) == [[7], [11], [4]]
    assert given(KL()) == [[], [], []]


def test_a_metric_without_a_gradient_is_said_when_one_is_needed() -> None:
    def position(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, -1].argmax(-1)

    session = session_on(metric=Custom(position, "first place"))
    assert len(rank(session, "activation")) == 20
    with pytest.raises(MetricError, match="'first place' has no gradient"):
        rank(session, "gradient")


@pytest.mark.parametrize("metric", [KL(), Loss(), Custom(margin)], ids=lambda metric: metric.kind)
def test_a_direct_effect_of_a_metric_without_tokens_is_on_the_likeliest_token(
    metric: Metric,
) -> None:
    stack = pc.Scale("L1.mlp", -5.0)
    session = session_on("llama", stack, metric=metric)
    likeliest = int(session.baseline.logits[-1].argmax())
    assert int(session.current.logits[-1].argmax()) != likeliest
    assert session.target == likeliest
    assert session.metric_tokens() == ()
    assert rank(session, "direct") == rank(session, "direct", metric=LogProb(likeliest))


def test_what_a_users_function_gets_wrong_is_said_in_a_sentence() -> None:
    session = session_on("llama", pc.Clamp("L1.N3", 4.0))

    def shaped(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, -1]

    def typo(logits: torch.Tensor) -> torch.Tensor:
        return logits[:, -1, 10**6]

    with pytest.raises(MetricError, match=r"gave \(2, 61\) for logits .* it must return .* \(2,\)"):
        measured(session, metric=Custom(shaped, "shaped"), seeds=0)
    with pytest.raises(MetricError, match="'typo' failed: IndexError: index 1000000"):
        measured(session, metric=Custom(typo, "typo"))
    number: Any = 3
    with pytest.raises(MetricError, match="a function of the logits, not of a int"):
        Custom(number)
    with pytest.raises(InputError, match="of at least two"):
        pc.Session(tiny.model("llama"), tiny.ids(1), metric=Loss())
