"""Circuits as values: selections, files, graphs; and what is measured of them, on tiny models."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from patchclamp.engine.edges import Graph
from patchclamp.engine.engine import Engine
from patchclamp.engine.plan import Input
from patchclamp.engine.surroundings import Reference
from patchclamp.errors import AddressError, InputError, MetricError, ModelError
from patchclamp.methods.acdc import acdc
from patchclamp.methods.circuit import Circuit, NodeNote, Selection, circuit_of
from patchclamp.methods.edge_attribution import EdgeScores, eap, eap_ig
from patchclamp.methods.faithfulness import check, faithfulness_curve, random_circuit, sizes_of
from patchclamp.methods.metric import KL, LogitDifference
from patchclamp.methods.path_patching import edge_runs, exact_edges, with_cut
from patchclamp.methods.task import Task
from tests.unit import tiny

if TYPE_CHECKING:
    from pathlib import Path

    from patchclamp.models.language_model import LanguageModel

LENGTH = 9


def task_of(model: LanguageModel, pairs: int = 3) -> Task:
    """Random pairs that differ in two tokens."""
    engine = Engine.of(model)
    clean, corrupt = [], []
    for seed in range(pairs):
        ids = tiny.ids(LENGTH, seed)
        other = ids.clone()
        other[[3, 5]] = (ids[[3, 5]] + 7) % tiny.VOCAB
        clean.append(Input(tuple(ids.tolist()), has_bos=False))
        corrupt.append(Input(tuple(other.tolist()), has_bos=False))
    return Task(
        engine,
        tuple(clean),
        tuple(corrupt),
        LogitDifference(5, 9),
        ((5, 9),) * pairs,
        Reference(engine, tuple(clean)),
    )


@pytest.fixture(scope="module")
def task() -> Task:
    return task_of(tiny.model("llama"))


@pytest.fixture(scope="module")
def scores(task: Task) -> EdgeScores:
    return eap(task)


def test_a_graph_has_an_edge_from_every_source_to_every_later_reader() -> None:
    graph = Graph.of(tiny.model("llama").anatomy)
    # 4 layers, 4 heads on 2 key/value heads, an MLP: 8 attention readers and 1 MLP a layer.
    assert len(graph.sources) == 1 + 4 * 5
    assert len(graph.readers) == 4 * 9 + 1
    assert graph.n_edges == sum(8 * (1 + 5 * n) + (1 + 5 * n + 4) for n in range(4)) + 21
    assert int(graph.exists.sum()) == graph.n_edges
    for reader, source in graph.exists.nonzero().tolist():
        address = graph.edge(reader, source)
        assert graph.cut([address]).nonzero().tolist() == [[reader, source]]


def test_heads_that_share_keys_share_their_edges() -> None:
    graph = Graph.of(tiny.model("llama").anatomy)
    assert torch.equal(graph.cut(["L0.mlp->L2.H0:k"]), graph.cut(["L0.mlp->L2.H1:k"]))
    assert not torch.equal(graph.cut(["L0.mlp->L2.H1:k"]), graph.cut(["L0.mlp->L2.H2:k"]))


def test_a_head_takes_its_keys_and_values_along_where_no_other_head_shares_them() -> None:
    own = Graph.of(tiny.model("gpt2").anatomy)
    cut = own.cut(["L1.H2"])
    for part in ("q", "k", "v"):
        assert bool((cut & own.cut([f"L1.H2:{part}"])).any()), part
    shared = Graph.of(tiny.model("llama").anatomy)
    assert not bool((shared.cut(["L1.H2"]) & shared.cut(["L1.H2:k"])).any())


def test_a_selection_of_nodes_is_of_nodes_whatever_edges_a_method_chose(
    scores: EdgeScores,
) -> None:
    chose = replace(scores, chosen=scores.top(3))
    assert torch.equal(Selection(3).mask(chose), scores.top(3))
    assert torch.equal(Selection(3, "nodes").mask(chose), scores.top(3, "nodes"))


def test_in_a_parallel_model_an_mlp_does_not_read_its_own_layers_heads() -> None:
    graph = Graph.of(tiny.model("neox").anatomy)
    with pytest.raises(AddressError):
        graph.cut(["L1.H0->L1.mlp"])
    assert Graph.of(tiny.model("llama").anatomy).cut(["L1.H0->L1.mlp"]).any()


def test_a_model_that_norms_what_components_write_has_no_graph() -> None:
    for name in ("gemma2", "gemma3", "bert"):
        with pytest.raises(ModelError, match="no graph of components"):
            Graph.of(tiny.model(name).anatomy)


def test_a_neuron_is_no_node() -> None:
    graph = Graph.of(tiny.model("llama").anatomy)
    with pytest.raises(AddressError, match="no node of the graph"):
        graph.cut(["L1.N3"])
    with pytest.raises(AddressError, match="no source of an edge"):
        graph.cut(["L1.N3->L2.mlp"])


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox", "native"])
def test_cutting_everything_gives_the_corrupt_run_and_nothing_the_clean_one(name: str) -> None:
    task = task_of(tiny.model(name))
    runs = edge_runs(task)
    nothing = torch.zeros_like(runs.graph.exists)
    measure = task.measure()
    for side, cut in (("clean", nothing), ("corrupt", runs.graph.exists)):
        logits = task.base(side).logits(task.rows)  # type: ignore[arg-type]
        largest = float(logits.abs().max())
        plain = float(measure(logits).mean())
        assert with_cut(task, runs, cut) == pytest.approx(plain, abs=1e-5 * largest)
    apart = [with_cut(task, runs, cut) for cut in (nothing, runs.graph.exists)]
    assert abs(apart[0] - apart[1]) > 0.1


@pytest.mark.parametrize("how", ["mean", "zero", "resample"])
def test_other_replacements_need_no_corrupt_prompt(how: str) -> None:
    task = task_of(tiny.model("llama"))
    alone = Task(
        task.engine,
        task.clean,
        None,
        task.metric,
        task.tokens,
        task.reference,
    )
    found = eap(alone, how)  # type: ignore[arg-type]
    assert found.clean != pytest.approx(found.corrupt)
    with pytest.raises(InputError, match="corrupt"):
        eap(alone, "corrupt")


def test_integrated_gradients_come_nearer_to_the_exact_effects(task: Task) -> None:
    runs = edge_runs(task)
    *_, (_, integrated) = eap_ig(task, steps=20)
    edges = integrated.ranked()[:40]
    *_, (_, exact) = exact_edges(task, runs, edges)
    plain = eap(task)
    off = [
        float((torch.tensor([float(each.values[edge]) for edge in edges]) - exact).abs().mean())
        for each in (integrated, plain)
    ]
    assert off[0] < 0.7 * off[1]


def test_the_scores_of_a_source_add_up_to_its_node_score(task: Task, scores: EdgeScores) -> None:
    from patchclamp.methods.ablation import component_estimates

    estimates = component_estimates(task, "corrupt")
    nodes = scores.nodes()[1:].reshape(estimates.shape)
    assert torch.allclose(nodes, estimates, atol=1e-5 * float(estimates.abs().max()))
    assert float(estimates.abs().max()) > 1e-2


def test_kl_has_no_slope_at_the_clean_prompt_and_is_estimated_on_the_way_to_the_corrupt_one(
    task: Task,
) -> None:
    of_kl = replace(task, metric=KL(), tokens=((),) * task.n_pairs, _kept={})
    with pytest.raises(MetricError, match="more steps of integrated gradients"):
        eap(of_kl)
    *_, (_, found) = eap_ig(of_kl, steps=5)
    assert float(found.values.nan_to_num().abs().max()) > 0.1
    *_, (_, cut) = acdc(of_kl, runs=60)
    assert cut.chosen is not None
    assert 0 < int(cut.chosen.sum()) < cut.graph.n_edges


def test_the_strongest_edges_are_the_strongest(scores: EdgeScores) -> None:
    ranked = scores.ranked()
    assert len(ranked) == scores.graph.n_edges
    sizes = [abs(float(scores.values[edge])) for edge in ranked]
    assert sizes == sorted(sizes, reverse=True)
    for count in (0, 1, 17, scores.graph.n_edges, scores.graph.n_edges + 5):
        mask = scores.top(count)
        assert int(mask.sum()) == min(count, scores.graph.n_edges)
        assert all(bool(mask[edge]) for edge in ranked[:count])
    assert scores.threshold(17) == pytest.approx(sizes[16])


def test_a_node_circuit_has_all_edges_of_its_sources(scores: EdgeScores) -> None:
    mask = scores.top(3, "nodes")
    best = scores.nodes().abs().argsort(descending=True)[:3].tolist()
    assert mask.any(0).nonzero().flatten().tolist() == sorted(best)
    assert torch.equal(mask[:, best], scores.graph.exists[:, best])


def test_switching_twice_changes_nothing(scores: EdgeScores) -> None:
    start = Selection(30)
    inside = scores.graph.edge(*scores.ranked()[3])
    outside = scores.graph.edge(*scores.ranked()[100])
    source = scores.graph.sources[scores.ranked()[0][1]].address
    for address in (inside, outside, source):
        once = start.switched(address, scores)
        edges = scores.graph.cut([address])
        assert bool((once.mask(scores) & edges).any()) is (address == outside)
        twice = once.switched(address, scores)
        assert torch.equal(twice.mask(scores), start.mask(scores))
        assert twice == start


def test_an_edge_of_a_node_that_is_out_can_be_switched_in(scores: EdgeScores) -> None:
    reader, source = scores.ranked()[0]
    name, edge = scores.graph.sources[source].address, scores.graph.edge(reader, source)
    found = Selection(30).switched(name, scores).switched(edge, scores)
    assert (found.mask(scores)[:, source]).nonzero().flatten().tolist() == [reader]


def test_a_node_without_edges_in_the_circuit_is_refused(scores: EdgeScores) -> None:
    used = scores.top(5).any(0) | False
    idle = next(
        site.address
        for place, site in enumerate(scores.graph.sources)
        if not bool(used[place])
        and not bool((scores.top(5) & scores.graph.cut([site.address])).any())
    )
    with pytest.raises(AddressError, match="no edge in the circuit"):
        Selection(5).switched(idle, scores)


def test_a_selection_goes_to_json_and_back(scores: EdgeScores) -> None:
    found = Selection(7).switched(scores.graph.edge(*scores.ranked()[50]), scores)
    found = found.annotated(["L1.H2"], name="mover", pinned=True).annotated(["L0.mlp"], group="a")
    assert Selection.from_json(found.to_json()) == found
    assert found.annotated(["L1.H2"], name="", pinned=False).notes == (
        NodeNote("L0.mlp", group="a"),
    )
    with pytest.raises(InputError, match="no selection"):
        Selection.from_json({"size": 3})


def test_a_circuit_goes_to_a_file_and_back_and_has_the_same_edges(
    scores: EdgeScores, tmp_path: Path
) -> None:
    selection = Selection(25).annotated(["L1.H2"], name="mover")
    circuit = circuit_of(
        selection, scores, "llama", exact={scores.ranked()[0]: 1.5}, faithfulness=0.9
    )
    circuit.save(tmp_path / "circuit.json")
    loaded = Circuit.load(tmp_path / "circuit.json")
    assert loaded == circuit
    assert loaded.edges[0].exact == 1.5
    assert torch.equal(loaded.mask(scores.graph), selection.mask(scores))
    again = loaded.scores(tiny.model("llama").anatomy)
    assert torch.equal(Selection(25).mask(again), selection.mask(scores))


@pytest.mark.parametrize("text", ["", "[]", '{"kind": "patchclamp circuit", "format": 99}', "{}"])
def test_a_file_that_is_no_circuit_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "circuit.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match="circuit"):
        Circuit.load(tmp_path / "circuit.json")


def test_a_circuit_as_a_networkx_graph_has_its_nodes_and_edges(scores: EdgeScores) -> None:
    circuit = circuit_of(Selection(25).annotated(["L0.mlp"], name="first"), scores, "llama")
    graph = circuit.to_networkx()
    assert graph.number_of_edges() == 25
    assert {data["address"] for _, _, data in graph.edges(data=True)} == {
        edge.address for edge in circuit.edges
    }
    assert graph.nodes["L0.mlp"]["name"] == "first"


def test_a_check_is_the_circuit_alone_and_the_model_without_it(
    task: Task, scores: EdgeScores
) -> None:
    runs = edge_runs(task)
    circuit = scores.top(60)
    first, last = check(task, runs, circuit, clean=scores.clean, corrupt=scores.corrupt)
    assert first.circuit == last.circuit == pytest.approx(with_cut(task, runs, ~circuit))
    assert last.without == pytest.approx(with_cut(task, runs, circuit))
    apart = scores.clean - scores.corrupt
    assert last.faithfulness == pytest.approx((last.circuit - scores.corrupt) / apart)
    everything = runs.graph.exists
    *_, whole = check(task, runs, everything, clean=scores.clean, corrupt=scores.corrupt)
    assert whole.faithfulness == pytest.approx(1, abs=1e-4)
    assert whole.completeness == pytest.approx(0, abs=1e-4)


def test_a_curve_fills_in_and_ends_at_the_whole_model(task: Task, scores: EdgeScores) -> None:
    runs = edge_runs(task)
    sizes = sizes_of(scores.graph.n_edges, 4)
    steps = list(faithfulness_curve(task, runs, scores, sizes, seeds=2))
    assert [step.done for step in steps] == list(range(1, len(sizes) * 4 + 1))
    assert bool(steps[0].random.isnan().all())
    last = steps[-1]
    assert last.random.shape == (len(sizes), 2)
    assert not bool(last.random.isnan().any())
    assert float(last.faithfulness[-1]) == pytest.approx(1, abs=1e-4)
    assert float(last.completeness[-1]) == pytest.approx(0, abs=1e-4)


def test_a_random_circuit_has_as_many_edges_into_each_kind_of_reader(scores: EdgeScores) -> None:
    graph, circuit = scores.graph, scores.top(40)
    drawn = random_circuit(graph, circuit, seed=1)
    assert not torch.equal(drawn, circuit)
    assert not bool((drawn & ~graph.exists).any())
    for layer in range(4):
        for part in ("q", "k", "v", None):
            readers = [
                place
                for place, site in enumerate(graph.readers)
                if site.layer == layer and site.part == part
            ]
            assert int(drawn[readers].sum()) == int(circuit[readers].sum())


def test_acdc_keeps_the_metric_within_its_thresholds_and_stops_at_its_budget(task: Task) -> None:
    *_, (made, found) = acdc(task, threshold=1e-3, runs=10_000)
    assert found.chosen is not None
    runs = edge_runs(task)
    level = with_cut(task, runs, ~found.chosen)
    assert abs(level - found.clean) <= 1e-3 * made
    assert 0 < int(found.chosen.sum()) < found.graph.n_edges
    *_, (few, short) = acdc(task, threshold=1e-3, runs=5)
    assert few == 5
    assert "were not tried and stay in" in short.note


def test_acdc_one_edge_at_a_time_cuts_what_by_itself_does_nothing(task: Task) -> None:
    *_, (made, found) = acdc(task, threshold=1e-2, runs=40, together=False)
    assert made == 40
    assert found.chosen is not None
    # The first trials are the edges into the logits, the last source first; by hand, one by one.
    runs, kept = edge_runs(task), found.graph.exists.clone()
    now = found.clean
    reader = len(found.graph.readers) - 1
    for source in reversed(range(len(found.graph.sources))):
        trial = kept.clone()
        trial[reader, source] = False
        level = with_cut(task, runs, ~trial)
        if abs(level - now) < 1e-2:
            kept, now = trial, level
    assert torch.equal(found.chosen[reader], kept[reader])
    assert 0 < int(kept[reader].sum()) < len(found.graph.sources)
