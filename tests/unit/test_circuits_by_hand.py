"""Methods on edges and nodes equal what is computed by hand on models written out.

Truth here is :mod:`tests.unit.written_out` (plain PyTorch, every reader with a stream of its own)
and TransformerLens' own analyses where they take the model; nothing of the engine that is tested.
Differences are relative to the largest logit, or for gradients to the largest score, and effects
are at least 100 times what is allowed.
"""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch
import transformers as hf
from torch import Tensor
from transformer_lens import patching
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import direct_logit_attribution
from transformer_lens.tools.analysis.attribution_patching import (
    EdgeAttributionConfig,
    attribution_patch,
)

from patchclamp.methods.ablation import component_effects, component_estimates, components
from patchclamp.methods.activation_patching import activation_patching
from patchclamp.methods.edge_attribution import eap, eap_ig
from patchclamp.methods.levels import level
from patchclamp.methods.path_patching import cut_levels, edge_runs, exact_edges, with_cut
from patchclamp.models.language_model import LanguageModel
from tests.unit import tiny
from tests.unit.pairs import on_worker, task_on
from tests.unit.written_out import Run, WrittenOut, replacing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from patchclamp.methods.activation_patching import Over
    from patchclamp.methods.edge_attribution import EdgeScores
    from patchclamp.methods.task import Replacement, Task

EXACT = 1e-5
SEEN = 100 * EXACT
MODELS = ["gpt2", "llama", "neox", "native"]
ARCHITECTURES = pytest.mark.parametrize("name", MODELS)

GPT: dict[str, Any] = {
    "vocab_size": tiny.VOCAB,
    "n_embd": 32,
    "n_layer": 3,
    "n_head": 4,
    "initializer_range": 0.25,
}

Edge = tuple[str, str]
"""Source and reader."""


class ByHand:
    """A task's numbers on a model written out."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.written = WrittenOut(task.engine.model.bridge.original_model)
        assert task.corrupt is not None
        self.clean = torch.tensor([one.ids for one in task.clean])
        self.corrupt = torch.tensor([one.ids for one in task.corrupt])
        with torch.no_grad():
            self.plain = self.written.run(self.clean)
            self.other = self.written.run(self.corrupt)
        self.largest = float(self.plain.logits.abs().max())
        self.level = float(self.metric(self.plain.logits).mean())

    def metric(self, logits: Tensor) -> Tensor:
        """Float[item]: the difference of two logits at the last position."""
        answer, wrong = torch.tensor(self.task.tokens).T
        rows = torch.arange(len(logits))
        return logits[rows, -1, answer] - logits[rows, -1, wrong]

    def replacement(self, how: Replacement) -> dict[str, Tensor]:
        """What every source's output is replaced by."""
        if how == "corrupt":
            return self.other.wrote
        if how == "zero":
            return {source: torch.zeros(1, 1, 1) for source in self.plain.wrote}
        wrote: dict[str, list[Tensor]] = {}
        for one in self.task.reference.inputs:
            with torch.no_grad():
                found = self.written.run(torch.tensor([one.ids]))
            for source, value in found.wrote.items():
                wrote.setdefault(source, []).append(value[0, 1:])
        return {source: torch.cat(rows).mean(0)[None, None] for source, rows in wrote.items()}

    def cut(self, edges: Collection[Edge], how: Replacement) -> float:
        """The metric with edges cut at all positions but a beginning's, averaged over the pairs."""
        rows = slice(int(self.task.clean[0].has_bos), None)
        carry = replacing(edges, self.replacement(how), rows)
        with torch.no_grad():
            return float(self.metric(self.written.run(self.clean, carry).logits).mean())

    def slopes(self, share: float) -> dict[str, Tensor]:
        """The metric's gradient by each reader's stream, with so much of the clean embedding."""
        mixed = share * self.plain.wrote["embed"] + (1 - share) * self.other.wrote["embed"]
        streams: dict[str, Tensor] = {}

        def carry(reader: str, source: str, value: Tensor) -> Tensor:
            return mixed if source == "embed" else value

        def read(reader: str, stream: Tensor) -> Tensor:
            # A tensor of the reader's own, which the others do not read.
            own = stream * 1.0 if stream.requires_grad else stream.clone().requires_grad_()
            return streams.setdefault(reader, own)

        logits = self.written.run(self.clean, carry, read).logits
        slopes = torch.autograd.grad(self.metric(logits).sum(), list(streams.values()))
        return dict(zip(streams, slopes, strict=True))

    def scores(self, steps: int) -> dict[Edge, float]:
        """EAP-IG by hand: the mean gradient times the difference, summed, averaged over pairs."""
        each = [self.slopes(step / steps) for step in range(1, steps + 1)]
        found = {}
        for source, reader in self.written.edges():
            apart = self.other.wrote[source] - self.plain.wrote[source]
            slope = sum(slopes[reader] for slopes in each) / steps
            found[source, reader] = float((apart * slope).sum()) / len(self.clean)
        return found


@cache
def model(name: str) -> LanguageModel:
    """Make a tiny model whose biases and norms are random, too: they are made as 0 and 1."""
    torch.manual_seed(7)
    match name:
        case "native":
            made: Any = tiny.native()
        case "gptj":  # attention and the MLP side by side, behind one norm
            made = hf.GPTJForCausalLM(hf.GPTJConfig(n_positions=64, rotary_dim=4, **GPT)).eval()
        case _:
            made = tiny.hugging_face(name)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=draw) / 4)
    return LanguageModel(made, None, name=name)


@cache
def task_with(name: str, *, bos: bool = False) -> Task:
    return task_on(model(name), bos=bos)


@cache
def by_hand(name: str, *, bos: bool = False) -> ByHand:
    return ByHand(task_with(name, bos=bos))


def places(task: Task, edges: Collection[Edge]) -> list[tuple[int, int]]:
    """(reader, source) in the graph of a task's model."""
    graph = on_worker(task, lambda: edge_runs(task)).graph
    readers = {site.address: place for place, site in enumerate(graph.readers)}
    sources = {site.address: place for place, site in enumerate(graph.sources)}
    return [(readers[reader], sources[source]) for source, reader in edges]


def some(edges: list[Edge], share: float, seed: int) -> set[Edge]:
    draw = torch.rand(len(edges), generator=torch.Generator().manual_seed(seed)) < share
    return {edge for edge, chosen in zip(edges, draw.tolist(), strict=True) if chosen}


# ------------------------------------------------------------------------------ exact edges


@ARCHITECTURES
def test_the_graph_has_the_edges_of_the_model_written_out(name: str) -> None:
    task = task_with(name)
    graph = on_worker(task, lambda: edge_runs(task)).graph
    edges = [graph.edge(int(r), int(s)) for r, s in graph.exists.nonzero()]
    written = by_hand(name).written.edges()
    assert sorted(edges) == sorted(f"{source}->{reader}" for source, reader in written)
    assert graph.n_edges == len(written)


@pytest.mark.parametrize("bos", [False, True], ids=["plain", "with a beginning"])
@pytest.mark.parametrize("how", ["corrupt", "zero", "mean"])
@ARCHITECTURES
def test_an_edge_cut_has_the_effect_of_one_cut_by_hand(
    name: str, how: Replacement, bos: bool
) -> None:
    hand = by_hand(name, bos=bos)
    task = hand.task
    edges = hand.written.edges()
    chosen = sorted(some(edges, 0.06, seed=1) | {e for e in edges if e[1] == "logits"})
    assert len({reader.partition(":")[2] for _, reader in chosen}) == 4  # q, k, v, and the rest
    asked = places(task, chosen)

    def measure() -> Tensor:
        *_, (_, effects) = exact_edges(task, edge_runs(task, how), asked)
        return effects

    found = on_worker(task, measure)
    expected = torch.tensor([hand.cut({edge}, how) - hand.level for edge in chosen])
    assert expected.abs().max() > SEEN * hand.largest
    assert (found - expected).abs().max() < EXACT * hand.largest


@pytest.mark.parametrize("how", ["corrupt", "zero", "mean"])
@ARCHITECTURES
def test_sets_of_edges_cut_at_once_are_the_same_sets_cut_by_hand(
    name: str, how: Replacement
) -> None:
    hand = by_hand(name)
    task, edges = hand.task, hand.written.edges()
    sets = [some(edges, share, seed) for seed, share in enumerate([0.05, 0.1, 0.5, 0.9, 1.0])]
    asked = [places(task, each) for each in sets]

    def measure() -> Tensor:
        runs = edge_runs(task, how)
        cuts = []
        for each in asked:
            cut = torch.zeros_like(runs.graph.exists)
            cut[tuple(torch.tensor(each).T)] = True
            cuts.append(cut)
        *_, (_, found) = cut_levels(task, runs, cuts)
        return found

    found = on_worker(task, measure)
    expected = torch.tensor([hand.cut(each, how) for each in sets])
    assert (expected - hand.level).abs().median() > SEEN * hand.largest
    assert (found - expected).abs().max() < EXACT * hand.largest


@ARCHITECTURES
def test_with_every_edge_cut_the_corrupt_prompt_is_what_is_left(name: str) -> None:
    hand = by_hand(name)
    corrupt = float(hand.metric(hand.other.logits).mean())
    assert abs(hand.cut(hand.written.edges(), "corrupt") - corrupt) < EXACT * hand.largest
    scores = on_worker(hand.task, lambda: eap(hand.task))
    assert abs(scores.corrupt - corrupt) < EXACT * hand.largest
    assert abs(scores.clean - hand.level) < EXACT * hand.largest


@pytest.mark.parametrize("how", ["corrupt", "zero"])
@pytest.mark.parametrize("name", [*MODELS, "gemma", "opt", "gptj"])
def test_to_cut_all_that_a_source_is_read_by_is_to_replace_what_it_writes(
    name: str, how: Replacement
) -> None:
    """On every kind of block; and what is left when everything is replaced is the other prompt."""
    task = task_with(name)
    table = components(task.engine.model.anatomy)

    def measure() -> tuple[Tensor, Tensor]:
        *_, replaced = component_effects(task, how)
        runs = edge_runs(task, how)
        sources = {site.address: place for place, site in enumerate(runs.graph.sources)}
        cuts = []
        for site in table.values():
            cut = torch.zeros_like(runs.graph.exists)
            cut[:, sources[str(site)]] = True
            cuts.append(cut)
        *_, (_, found) = cut_levels(task, runs, [*cuts, runs.graph.exists])
        truth = [float(replaced.values[place]) + replaced.baseline for place in table]
        last = [level(task, side="corrupt") if how == "corrupt" else float(found[-1])]
        return found, torch.tensor([*truth, *last])

    found, truth = on_worker(task, measure)
    largest = float(on_worker(task, lambda: task.base().logits((-1,))).abs().max())
    assert truth.max() - truth.min() > SEEN * largest
    assert (found - truth).abs().max() < EXACT * largest


# ------------------------------------------------------------------------------- estimates


@pytest.mark.parametrize("steps", [1, 2, 5])
@ARCHITECTURES
def test_scores_of_edges_are_gradients_by_hand_times_differences(name: str, steps: int) -> None:
    hand = by_hand(name)
    *_, (_, scores) = on_worker(hand.task, lambda: list(eap_ig(hand.task, steps=steps)))
    truth = hand.scores(steps)
    same_scores(scores, truth)


def test_many_pairs_are_scored_in_pieces_and_averaged_over_all_of_them() -> None:
    task = task_on(model("llama"), pairs=40, length=20)
    hand = ByHand(task)
    assert on_worker(task, lambda: 2 * task.base().at_once < task.n_pairs)  # three pieces at least
    *_, (_, scores) = on_worker(task, lambda: list(eap_ig(task, steps=2)))
    same_scores(scores, hand.scores(2))
    estimates = on_worker(task, lambda: component_estimates(task, "corrupt"))
    nodes = on_worker(task, lambda: eap(task)).nodes()
    for place, site in components(task.engine.model.anatomy).items():
        sources = [source.address for source in scores.graph.sources]
        node = nodes[sources.index(str(site))]
        assert abs(estimates[place] - node) < EXACT * nodes.abs().max()
    chosen = some(hand.written.edges(), 0.3, seed=0)
    cut = torch.zeros_like(scores.graph.exists)
    cut[tuple(torch.tensor(places(task, chosen)).T)] = True
    found = on_worker(task, lambda: with_cut(task, edge_runs(task), cut))
    assert abs(found - hand.cut(chosen, "corrupt")) < EXACT * hand.largest
    assert abs(found - hand.level) > SEEN * hand.largest


def same_scores(scores: EdgeScores, truth: dict[Edge, float]) -> None:
    found = scores.values[tuple(torch.tensor(_places_in(scores, list(truth))).T)]
    expected = torch.tensor(list(truth.values()))
    assert int((~scores.values.isnan()).sum()) == len(truth)
    assert (found - expected).abs().max() < EXACT * expected.abs().max()
    # Most of them are far above what is allowed, not just the largest.
    assert expected.abs().median() > SEEN * expected.abs().max()


def _places_in(scores: EdgeScores, edges: list[Edge]) -> list[tuple[int, int]]:
    readers = {site.address: place for place, site in enumerate(scores.graph.readers)}
    sources = {site.address: place for place, site in enumerate(scores.graph.sources)}
    return [(readers[reader], sources[source]) for source, reader in edges]


def logit_difference(tokens: tuple[int, ...]) -> Any:
    def metric(logits: Tensor) -> Tensor:
        return logits[0, -1, tokens[0]] - logits[0, -1, tokens[1]]

    return metric


@contextmanager
def evaluating(task: Task) -> Iterator[Any]:
    """The bridge in evaluation mode, which TransformerLens' analyses ask for."""
    bridge = task.engine.model.bridge
    was_training = bridge.training
    try:
        yield bridge.eval()
    finally:
        bridge.train(was_training)


def attributed(task: Task, granularity: Any) -> list[Any]:
    """TransformerLens' attribution patching of each pair.

    It takes gradients on its corrupt prompts and tells what a clean value would do there; ours are
    taken on the clean ones: the sides are exchanged.
    """
    assert task.corrupt is not None
    with evaluating(task) as bridge:
        return [
            attribution_patch(
                bridge,
                torch.tensor([corrupt.ids]),
                torch.tensor([clean.ids]),
                logit_difference(tokens),
                EdgeAttributionConfig(granularity=granularity),
            )
            for clean, corrupt, tokens in zip(task.clean, task.corrupt, task.tokens, strict=True)
        ]


@ARCHITECTURES
def test_scores_of_nodes_are_those_of_transformerlens(name: str) -> None:
    task = task_with(name)
    truth: dict[str, float] = {}
    for result in attributed(task, "node"):
        for node, score in result.node_scores.items():
            address = {
                "embed": "embed",
                "attn_head_out": f"L{node.layer}.H{node.head}",
                "mlp_out": f"L{node.layer}.mlp",
            }[node.kind]
            truth[address] = truth.get(address, 0.0) + score / task.n_pairs
    largest = max(map(abs, truth.values()))

    estimates = on_worker(task, lambda: component_estimates(task, "corrupt"))
    table = components(task.engine.model.anatomy)
    assert len(table) == len(truth) - 1
    for place, site in table.items():
        assert abs(float(estimates[place]) - truth[str(site)]) < EXACT * largest
    # The sum of a source's edges is its node.
    scores = on_worker(task, lambda: eap(task))
    for source, score in zip(scores.graph.sources, scores.nodes().tolist(), strict=True):
        assert abs(score - truth[source.address]) < EXACT * largest


@pytest.mark.parametrize("name", ["gpt2", "neox"])
def test_scores_of_edges_are_those_of_transformerlens(name: str) -> None:
    """Which takes neither grouped-query attention nor its native models."""
    task = task_with(name)
    truth: dict[Edge, float] = {}

    def address(node: Any) -> str:
        part = {"q_input": ":q", "k_input": ":k", "v_input": ":v"}.get(node.kind, "")
        match node.kind:
            case "embed" | "logits":
                return str(node.kind)
            case "mlp_in" | "mlp_out":
                return f"L{node.layer}.mlp"
            case _:
                return f"L{node.layer}.H{node.head}{part}"

    for result in attributed(task, "edge"):
        for (writer, reader), score in result.edge_scores.items():
            edge = address(writer), address(reader)
            truth[edge] = truth.get(edge, 0.0) + score / task.n_pairs
    same_scores(on_worker(task, lambda: eap(task)), truth)


# --------------------------------------------------------------- direct effects on the logits


@cache
def without_norm() -> LanguageModel:
    """Make a random model whose logits are a sum of what its components write."""
    config = TransformerBridgeConfig(
        n_layers=3,
        d_model=32,
        n_heads=4,
        d_head=8,
        d_mlp=64,
        d_vocab=tiny.VOCAB,
        n_ctx=64,
        act_fn="gelu",
        normalization_type=None,
        init_mode="gpt2",
        initializer_range=0.2,
        seed=3,
    )
    bridge: Any = TransformerBridge.boot_native(config)  # type: ignore[attr-defined] # put on the class when it is imported
    return LanguageModel(bridge.eval(), None, name="without norm")


def test_direct_effects_are_direct_logit_attribution() -> None:
    """Without a norm to freeze: what is lost with a source's edge into the logits is its share."""
    task = task_on(without_norm())
    hand = ByHand(task)

    def measure() -> tuple[list[str], Tensor]:
        runs = edge_runs(task, "zero")
        last = len(runs.graph.readers) - 1
        edges = [(last, source) for source in range(len(runs.graph.sources))]
        *_, (_, effects) = exact_edges(task, runs, edges)
        return [source.address for source in runs.graph.sources], effects

    sources, found = on_worker(task, measure)
    # A bridge of its own: what TransformerLens needs for it changes the weights for good.
    config = task.engine.model.bridge.cfg
    lens: Any = TransformerBridge.boot_native(config)  # type: ignore[attr-defined]
    lens.eval().enable_compatibility_mode(disable_warnings=True)
    shares = dict.fromkeys(sources, 0.0)
    for one, (answer, wrong) in zip(task.clean, task.tokens, strict=True):
        for unit in ("component", "head"):
            with torch.no_grad():
                result = direct_logit_attribution(
                    lens, torch.tensor([one.ids]), answer, wrong, unit=unit
                )
            for label, value in zip(result.labels, result.attribution.flatten(), strict=True):
                head = label.replace("H", ".H")
                address = {"embed": "embed", "pos_embed": "embed"}.get(label, head)
                if label.endswith("_mlp_out"):
                    address = f"L{label.partition('_')[0]}.mlp"
                if address in shares and (unit == "component") == (".H" not in address):
                    shares[address] += float(value) / task.n_pairs
    expected = torch.tensor([-shares[source] for source in sources])
    assert expected.abs().min() > SEEN * expected.abs().max()
    assert (found - expected).abs().max() < EXACT * hand.largest
    assert abs(float(found.sum()) + hand.level) < EXACT * hand.largest  # no bias has a share


@ARCHITECTURES
def test_scores_of_edges_into_the_logits_are_direct_effects_with_the_norm_linear(name: str) -> None:
    """The derivative of the final norm and the unembedding, times what each source writes."""
    hand = by_hand(name)
    scores = on_worker(hand.task, lambda: eap(hand.task))
    read = hand.plain.read["logits"]

    def measured(stream: Tensor) -> Tensor:
        return hand.metric(hand.written.unembed(stream)).mean()

    for source in range(len(scores.graph.sources)):
        address = scores.graph.sources[source].address
        apart = hand.other.wrote[address] - hand.plain.wrote[address]
        change = torch.func.jvp(measured, (read,), (apart,))[1].detach()
        assert abs(float(change - scores.values[-1, source])) < EXACT * hand.largest


# ----------------------------------------------------------------------- activation patching

SWEEPS: dict[Over, Any] = {
    "resid_pre": patching.get_act_patch_resid_pre,
    "attn": patching.get_act_patch_attn_out,
    "mlp": patching.get_act_patch_mlp_out,
    "head": patching.get_act_patch_attn_head_out_all_pos,
}


@pytest.mark.parametrize("over", SWEEPS)
@ARCHITECTURES
def test_denoising_is_that_of_transformerlens(name: str, over: Over) -> None:
    task = task_with(name)
    assert task.corrupt is not None
    expected = torch.zeros(0)
    largest = 0.0
    for clean, corrupt, tokens in zip(task.clean, task.corrupt, task.tokens, strict=True):
        with torch.no_grad(), evaluating(task) as bridge:
            logits, cached = bridge.run_with_cache(torch.tensor([clean.ids]))
            sweep = SWEEPS[over](
                bridge, torch.tensor([corrupt.ids]), cached, logit_difference(tokens)
            )
        expected = sweep / task.n_pairs + (expected if len(expected) else 0.0)
        largest = max(largest, float(logits.abs().max()))
    *_, found = on_worker(task, lambda: list(activation_patching(task, "denoise", over)))
    assert (expected - found.corrupt).abs().max() > SEEN * largest
    assert (found.values - expected).abs().max() < EXACT * largest


def test_the_model_written_out_keeps_what_it_wrote_and_read() -> None:
    run: Run = by_hand("llama").plain
    assert set(run.wrote) == {source for source, _ in by_hand("llama").written.edges()}
    total = sum(run.wrote.values())
    assert torch.allclose(torch.as_tensor(total), run.read["logits"], atol=1e-5)
