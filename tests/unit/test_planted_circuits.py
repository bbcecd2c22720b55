"""Methods that look for circuits find those that were planted in hand-set models, and nothing else.

What is true of these models is worked out on paper; see :mod:`tests.unit.planted`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch

from patchclamp import Cut, LogitDifference, Session
from patchclamp.engine.engine import Engine
from patchclamp.engine.plan import Input
from patchclamp.engine.surroundings import Reference
from patchclamp.methods.ablation import component_effects, component_estimates, components
from patchclamp.methods.acdc import acdc
from patchclamp.methods.activation_patching import activation_patching
from patchclamp.methods.edge_attribution import EdgeScores, eap, eap_ig
from patchclamp.methods.faithfulness import Checked, Curve, check, faithfulness_curve
from patchclamp.methods.interaction import interaction
from patchclamp.methods.path_patching import edge_runs, exact_edges
from patchclamp.methods.task import Task
from patchclamp.sites import Site
from tests.unit import planted
from tests.unit.pairs import on_worker
from tests.unit.planted import COPY, ENOUGH, MATCH, OTHER, SHARE, SOFT, Planted
from tests.unit.written_out import WrittenOut

if TYPE_CHECKING:
    from collections.abc import Collection

    from patchclamp.methods.activation_patching import Over
    from patchclamp.methods.task import Replacement

EXACT = 1e-5
EVERY = pytest.mark.parametrize("name", planted.EVERY)


def task_of(model: Planted) -> Task:
    def side(ids: torch.Tensor) -> tuple[Input, ...]:
        return tuple(Input(tuple(row), has_bos=False) for row in ids.tolist())

    engine = Engine.of(model.model)
    clean = side(model.clean)
    metric = LogitDifference(*model.answers[0])
    return Task(engine, clean, side(model.corrupt), metric, model.answers, Reference(engine, clean))


def near(found: float | torch.Tensor, truth: float | torch.Tensor, model: Planted) -> bool:
    apart = torch.as_tensor(found) - torch.as_tensor(truth)
    return bool(apart.abs().max() <= EXACT * model.clean_metric)


def by_edge(scores: EdgeScores) -> dict[str, float]:
    return {scores.graph.edge(*edge): float(scores.values[edge]) for edge in scores.ranked()}


def not_zero(found: dict[str, float], model: Planted) -> set[str]:
    return {name for name, value in found.items() if not near(value, 0.0, model)}


# ------------------------------------------------------------------------------------ edges


@EVERY
def test_patching_one_path_after_the_other_finds_the_edges_and_their_effects(name: str) -> None:
    model = planted.EVERY[name]()
    task = task_of(model)

    def measure() -> dict[str, float]:
        runs = edge_runs(task, "corrupt")
        edges = [(int(reader), int(source)) for reader, source in runs.graph.exists.nonzero()]
        *_, (_, effects) = exact_edges(task, runs, edges)
        names = [runs.graph.edge(*edge) for edge in edges]
        return dict(zip(names, effects.tolist(), strict=True))

    found = on_worker(task, measure)
    assert model.edges.keys() <= found.keys()
    for edge, effect in found.items():
        assert near(effect, model.edges.get(edge, 0.0), model), edge


@EVERY
def test_attribution_with_integrated_gradients_finds_the_edges(name: str) -> None:
    model = planted.EVERY[name]()
    task = task_of(model)
    *_, (_, scores) = on_worker(task, lambda: list(eap_ig(task)))
    found = by_edge(scores)
    assert not_zero(found, model) == model.edges.keys()
    assert all(found[edge] < 0 for edge in model.edges)  # to cut one is to lose
    assert near(scores.clean, model.clean_metric, model)
    assert near(scores.corrupt, model.corrupt_metric, model)
    best = scores.top(len(model.edges)).nonzero().tolist()
    assert {scores.graph.edge(*edge) for edge in best} == model.edges.keys()


@EVERY
def test_attribution_finds_the_edges_where_the_metric_has_a_slope(name: str) -> None:
    """Of a pair of which one is nearly enough it finds neither: both together are too much."""
    model = planted.EVERY[name]()
    scores = on_worker(task_of(model), lambda: eap(task_of(model)))
    flat = {edge for edge, effect in model.edges.items() if name == "redundant" and effect > -2}
    assert not_zero(by_edge(scores), model) == model.edges.keys() - flat
    assert len(flat) == (4 if name == "redundant" else 0)


def test_a_score_is_the_gradient_times_the_difference_as_worked_out_on_paper() -> None:
    """Keys or queries that move a match from B to D: the derivative of a softmax.

    The score of B's place falls by SOFT and that of D's rises by it. Attention p changes by
    dp = p (ds - sum of p ds), and the metric by COPY (dp of B - dp of D).
    """
    mean = MATCH * -SOFT + OTHER * SOFT
    expected = COPY * (MATCH * (-SOFT - mean) - OTHER * (SOFT - mean))
    for family, edge in [("cue", "L0.H2->L1.H1:k"), ("query", "embed->L1.H1:q")]:
        model = planted.induction(family)
        task = task_of(model)
        scores = on_worker(task, partial(eap, task))
        assert near(by_edge(scores)[edge], expected, model)
        assert near(by_edge(scores)["L1.H1->logits"], model.edges["L1.H1->logits"], model)


def test_integrated_gradients_meet_the_slope_where_less_than_enough_is_left() -> None:
    """Of the steps k/5 of the way to 2 x 0.875, those of 0.35 and 0.7 are below 1."""
    model = planted.redundant()
    *_, (_, scores) = on_worker(task_of(model), lambda: list(eap_ig(task_of(model), steps=5)))
    found = by_edge(scores)
    for edge in ("L0.H1->L1.mlp", "L1.H0->L1.mlp", "embed->L0.H1:v", "embed->L1.H0:v"):
        assert near(found[edge], -SHARE * ENOUGH * 2 / 5, model)


# --------------------------------------------------------------------------------- circuits


def chosen(scores: EdgeScores) -> set[str]:
    assert scores.chosen is not None
    return {scores.graph.edge(*edge) for edge in scores.chosen.nonzero().tolist()}


@pytest.mark.parametrize("together", [True, False], ids=["together", "one by one"])
@EVERY
def test_cutting_all_that_changes_nothing_leaves_the_edges(name: str, together: bool) -> None:
    model = planted.EVERY[name]()
    task = task_of(model)
    runs = 2 * edge_count(model)
    *_, (_, found) = on_worker(task, lambda: list(acdc(task, runs=runs, together=together)))
    assert chosen(found) == model.edges.keys()


def edge_count(model: Planted) -> int:
    return len(WrittenOut(model.model.bridge.original_model).edges())


@pytest.mark.parametrize("together", [True, False], ids=["together", "one by one"])
def test_where_one_of_two_is_enough_a_high_threshold_keeps_one(together: bool) -> None:
    """Cutting a second one costs 7, the first 1: what it finds is a circuit, not all of them."""
    model = planted.redundant()
    task = task_of(model)
    found = on_worker(task, lambda: list(acdc(task, threshold=2.0, together=together)))[-1][1]
    kept = chosen(found)
    assert kept in ({*model.edges} - {*told} for told in TOLD)
    if not together:  # what is read last is cut first
        assert kept == {*model.edges} - {*TOLD[1]}


TOLD = (("embed->L0.H1:v", "L0.H1->L1.mlp"), ("embed->L1.H0:v", "L1.H0->L1.mlp"))


def circuit_of(task: Task, edges: Collection[str]) -> torch.Tensor:
    graph = edge_runs(task).graph
    found: torch.Tensor = graph.cut(list(edges))
    return found


def checked(model: Planted, edges: Collection[str]) -> Checked:
    task = task_of(model)

    def measure() -> Checked:
        *_, last = check(
            task,
            edge_runs(task),
            circuit_of(task, edges),
            clean=model.clean_metric,
            corrupt=model.corrupt_metric,
        )
        return last

    return on_worker(task, measure)


@EVERY
def test_the_planted_circuit_is_faithful_and_complete(name: str) -> None:
    model = planted.EVERY[name]()
    found = checked(model, model.edges)
    assert found.edges == len(model.edges)
    assert near(found.circuit, model.clean_metric, model)
    assert near(found.without, model.corrupt_metric, model)
    assert abs(found.faithfulness - 1) < EXACT
    assert abs(found.completeness) < EXACT


def test_half_of_a_redundant_pair_is_faithful_but_not_complete() -> None:
    """7/8 are kept by one half; and 7/8 are left without it, as the other half is still there."""
    model = planted.redundant()
    found = checked(model, {*TOLD[0], "L1.mlp->logits"})
    assert abs(found.faithfulness - SHARE) < EXACT
    without_half = checked(model, TOLD[0])
    assert abs(without_half.completeness - SHARE) < EXACT
    assert abs(without_half.faithfulness) < EXACT  # what the MLP says does not arrive


@EVERY
def test_edges_cut_in_a_session_do_what_is_worked_out(name: str) -> None:
    """One by one; and all that is outside of the circuit at once."""
    model = planted.EVERY[name]()
    session = Session(model.model, model.clean[0], metric=LogitDifference(*model.answers[0]))
    session.contrast = model.corrupt[0]

    def measured(edges: Collection[str]) -> float:
        session.interventions = tuple(Cut(edge, how="contrast") for edge in edges)
        answer, wrong = session.current.rows((-1,))[0][list(model.answers[0])].tolist()
        return float(answer - wrong)

    for edge, effect in model.edges.items():
        assert near(measured([edge]) - model.clean_metric, effect, model), edge
    written = WrittenOut(model.model.bridge.original_model)
    every = {f"{source}->{reader}" for source, reader in written.edges()}
    assert near(measured(every - model.edges.keys()), model.clean_metric, model)
    assert near(measured(every), model.corrupt_metric, model)


@EVERY
def test_the_curve_reaches_all_of_it_at_the_size_of_the_circuit(name: str) -> None:
    model = planted.EVERY[name]()
    task = task_of(model)
    size = len(model.edges)

    def measure() -> Curve:
        *_, (_, scores) = eap_ig(task)
        *_, last = faithfulness_curve(task, edge_runs(task), scores, [1, size - 1, size, size + 9])
        return last

    found = on_worker(task, measure)
    assert found.done == found.total
    assert (found.faithfulness[2:] - 1).abs().max() < EXACT
    assert (found.completeness[2:]).abs().max() < EXACT
    assert (found.faithfulness[:2] < 0.95).all()
    assert found.random.shape == (4, 5)


# ------------------------------------------------------------------------------- components


@EVERY
def test_the_map_shows_the_components_that_matter(name: str) -> None:
    model = planted.EVERY[name]()
    task = task_of(model)
    *_, exact = on_worker(task, lambda: list(component_effects(task, "corrupt")))
    assert near(exact.baseline, model.clean_metric, model)
    for place, site in components(model.model.anatomy).items():
        assert near(exact.values[place], model.nodes.get(str(site), 0.0), model), site


@EVERY
def test_attribution_patching_finds_the_components_where_the_metric_has_a_slope(name: str) -> None:
    model = planted.EVERY[name]()
    task = task_of(model)
    estimates = on_worker(task, lambda: component_estimates(task, "corrupt"))
    table = components(model.model.anatomy)
    found = {str(site): float(estimates[place]) for place, site in table.items()}
    flat = {"L0.H1", "L1.H0"} if name == "redundant" else set()
    assert not_zero(found, model) == model.nodes.keys() - flat


# -------------------------------------------------------------------------------- positions

PATCHED: list[tuple[str, Over, dict[tuple[int, int], float]]] = [
    # The token to be copied stands at place 2 until the last place has it.
    ("copied", "resid_pre", {(0, 2): -2 * COPY * MATCH, (1, 2): -2 * COPY * MATCH}),
    ("copied", "attn", {(1, 5): -2 * COPY * MATCH}),
    ("copied", "head", {(1, 1): -2 * COPY * MATCH}),
    # With C instead of A at one of the places 1 and 3, nothing matches, or both B and D do: these
    # are equal, and all of the metric is lost. The layer before tells it to the place after.
    (
        "cue",
        "resid_pre",
        dict.fromkeys([(0, 1), (0, 3), (1, 2), (1, 4)], COPY * (OTHER - MATCH)),
    ),
    (
        "cue",
        "attn",
        {
            **dict.fromkeys([(0, 2), (0, 4)], COPY * (OTHER - MATCH)),
            (1, 5): 2 * COPY * (OTHER - MATCH),
        },
    ),
    ("cue", "head", dict.fromkeys([(0, 2), (1, 1)], 2 * COPY * (OTHER - MATCH))),
    (
        "query",
        "resid_pre",
        dict.fromkeys([(0, 5), (1, 5)], 2 * COPY * (OTHER - MATCH)),
    ),
]


@pytest.mark.parametrize(
    ("family", "over", "effects"), PATCHED, ids=[f"{family}, {over}" for family, over, _ in PATCHED]
)
def test_patching_shows_where_what_matters_is_carried(
    family: str, over: Over, effects: dict[tuple[int, int], float]
) -> None:
    model = planted.induction(family)
    task = task_of(model)
    *_, found = on_worker(task, lambda: list(activation_patching(task, "noise", over)))
    expected = torch.full_like(found.values, model.clean_metric)
    for place, effect in effects.items():
        expected[place] += effect
    assert near(found.values, expected, model)


@pytest.mark.parametrize("over", ["resid_pre", "attn", "head"])
@pytest.mark.parametrize("family", planted.FAMILIES)
def test_denoising_is_noising_with_the_sides_exchanged(family: str, over: Over) -> None:
    model = planted.induction(family)
    task = task_of(model)
    turned = tuple((wrong, answer) for answer, wrong in model.answers)
    assert task.corrupt is not None
    other = Task(task.engine, task.corrupt, task.clean, task.metric, turned, task.reference)
    *_, found = on_worker(task, lambda: list(activation_patching(task, "denoise", over)))
    *_, expected = on_worker(task, lambda: list(activation_patching(other, "noise", over)))
    assert near(found.values, -expected.values, model)
    assert not near(found.values, found.corrupt, model)


# ------------------------------------------------------------------------------ interaction


@pytest.mark.parametrize("how", ["corrupt", "zero"])
def test_a_redundant_pair_interacts(how: Replacement) -> None:
    model = planted.redundant()
    task = task_of(model)
    a, b = [Site.parse("L0.H1")], [Site.parse("L1.H0")]
    found = on_worker(task, lambda: interaction(task, a, b, how))
    assert near(found.effect_a, -(1 - SHARE) * ENOUGH, model)
    assert near(found.effect_b, -(1 - SHARE) * ENOUGH, model)
    assert near(found.both, -ENOUGH, model)
    assert near(found.interaction, planted.INTERACTION, model)
    assert found.control is not None
    assert near(found.control, 0.0, model)  # noise does not interact with either


def test_of_two_heads_in_a_row_the_second_does_nothing_once_the_first_is_gone() -> None:
    model = planted.induction("cue")
    task = task_of(model)
    a, b = [Site.parse("L0.H2")], [Site.parse("L1.H1")]
    found = on_worker(task, lambda: interaction(task, a, b, "corrupt"))
    assert near(found.effect_a, found.effect_b, model)
    assert near(found.interaction, -found.effect_a, model)
    assert near(found.both, 2 * COPY * (OTHER - MATCH), model)
