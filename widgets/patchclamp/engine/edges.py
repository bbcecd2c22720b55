"""The edges between a model's components, and runs in which some of them carry something else.

A component reads the residual stream, which is the sum of what all earlier ones wrote. So between
any source (the embedding, a head, an MLP) and any later reader (a head's queries, keys or values,
an MLP, the logits) there is an edge, and what it carries can be replaced for that reader alone:
path patching (Wang et al. 2022, Goldowsky-Dill et al. 2023) of any set of edges at once. With
grouped-query attention keys and values belong to a key/value head, which several heads share.

In a run, D[s] is what a source s writes minus what it is replaced by. A reader r with the edges
C(r) cut reads

    norm(stream - sum of D[s] over s in C(r))

instead of norm(stream), the norm computed anew; everything else in the run follows from that. The
source "embed" is the whole stream entering the first block.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch

from patchclamp.engine.batch import ROWS, Spot
from patchclamp.engine.hooks import AFTER, BEFORE, Step, original, reader_of
from patchclamp.errors import AddressError, BudgetError, ModelError
from patchclamp.models.weights import head_weights
from patchclamp.sites import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from torch import Tensor, nn

    from patchclamp.engine.batch import Batch, Item
    from patchclamp.engine.hooks import Frame
    from patchclamp.models.anatomy import Anatomy

    ShouldStop = Callable[[], bool]

_LOGITS = Site("logits")


@dataclass(frozen=True, eq=False)
class Graph:
    """All edges of a model.

    Attributes:
        anatomy: the model's.
        sources: what writes, in the order of the forward pass: "embed", then of each layer its
            heads and its MLP.
        readers: what reads, in that order: of each layer its heads' queries, its key/value heads'
            keys and values (each named by the first head that uses it), its MLP; then the logits.
        before: for each reader, how many of the sources it reads: the first so many.
    """

    anatomy: Anatomy
    sources: tuple[Site, ...]
    readers: tuple[Site, ...]
    before: tuple[int, ...]

    @classmethod
    def of(cls, anatomy: Anatomy) -> Graph:
        """Return the graph of a model.

        Raises:
            ModelError: when its residual stream is not the sum of what its components write.
        """
        if not anatomy.additive or not anatomy.causal:
            msg = (
                "This model has no graph of components: between what a component writes and the "
                "residual stream lies a norm or a factor, so the stream is no plain sum of what "
                "they write. Ablate or patch components instead."
            )
            raise ModelError(msg)
        a = anatomy
        shared = list({a.kv_head(h): h for h in reversed(range(a.n_heads))}.values())[::-1]
        sources, readers, before = [Site("embed")], list[Site](), list[int]()
        for layer in range(a.n_layers):
            known = len(sources)
            reading = [Site("head", layer, h, "q") for h in range(a.n_heads)]
            reading += [Site("head", layer, h, part) for part in ("k", "v") for h in shared]
            sources += [Site("head", layer, h, "z") for h in range(a.n_heads)]
            if "mlp" in a.hooks[layer]:
                before += [known] * len(reading) + [known if a.parallel else len(sources)]
                reading.append(Site("mlp", layer))
                sources.append(Site("mlp", layer))
            else:
                before += [known] * len(reading)
            readers += reading
        return cls(a, tuple(sources), (*readers, _LOGITS), (*before, len(sources)))

    @cached_property
    def exists(self) -> Tensor:
        """Bool[reader, source]: whether there is an edge."""
        count = torch.tensor(self.before)[:, None]
        return torch.arange(len(self.sources))[None] < count

    @property
    def n_edges(self) -> int:
        """How many edges there are."""
        return sum(self.before)

    @cached_property
    def layers(self) -> tuple[int, ...]:
        """The layer of each reader; the logits' is the number of layers."""
        n_layers = self.anatomy.n_layers
        return tuple(n_layers if r.layer is None else r.layer for r in self.readers)

    def edge(self, reader: int, source: int) -> str:
        """Return the address of an edge."""
        return str(Site("edge", ends=(self.sources[source], self.readers[reader])))

    def cut(self, addresses: Sequence[str]) -> Tensor:
        """Return Bool[reader, source]: the edges that some addresses name.

        An edge names itself; a component ("L5.H3", "L5.mlp", "embed") its edges in and out, a head
        those of its queries, and of its keys and values where no other head shares them; "L5.H0:k"
        or "logits" the edges of that reader.

        Raises:
            AddressError: when there is no such edge or node.
        """
        found = torch.zeros_like(self.exists)
        for address in addresses:
            site = Site.parse(address)
            self.anatomy.check(site)
            if site.kind == "edge":
                found[self._reader(site.destination), self._source(site.source)] = True
                continue
            reads, writes = self._reads(site), self._writes(site)
            if reads is None and writes is None:
                msg = (
                    f"{address} is no node of the graph: there are embed, heads (L5.H3, and the "
                    "keys and values that they read, L5.H0:k), MLPs (L5.mlp) and logits."
                )
                raise AddressError(msg)
            for reader in [] if reads is None else [reads, *self._own_keys(site)]:
                found[reader] |= self.exists[reader]
            if writes is not None:
                found[:, writes] |= self.exists[:, writes]
        return found

    def _own_keys(self, site: Site) -> list[int]:
        """The readers that are a whole head's keys and values, where no other head shares them."""
        a = self.anatomy
        if site.kind != "head" or site.part != "z" or a.n_kv_heads != a.n_heads:
            return []
        parts = (Site("head", site.layer, site.index, part) for part in ("k", "v"))
        return [self._reader_places[part] for part in parts]

    def _source(self, site: Site) -> int:
        found = self._writes(site)
        if found is None:
            msg = (
                f"{site.address} is no source of an edge here: these are embed, whole heads "
                "(L5.H3) and whole MLPs (L5.mlp)."
            )
            raise AddressError(msg)
        return found

    def _reader(self, site: Site) -> int:
        found = self._reads(site)
        assert found is not None  # noqa: S101 (what an edge ends in always reads)
        return found

    def _writes(self, site: Site) -> int | None:
        place = Site(site.kind, site.layer, site.index, site.part)
        return self._source_places.get(place)

    def _reads(self, site: Site) -> int | None:
        """The reader that a site is: a head's are its queries; keys and values are shared."""
        index, part = site.index, site.part
        if site.kind == "head" and index is not None:
            part = "q" if part == "z" else part
            if part in {"k", "v"}:
                shared = self.anatomy.kv_head(index)
                index = next(h for h in range(index + 1) if self.anatomy.kv_head(h) == shared)
        return self._reader_places.get(Site(site.kind, site.layer, index, part))

    @cached_property
    def _source_places(self) -> dict[Site, int]:
        return {site: place for place, site in enumerate(self.sources)}

    @cached_property
    def _reader_places(self) -> dict[Site, int]:
        return {site: place for place, site in enumerate(self.readers)}

    def hook_points(self) -> list[str]:
        """The hook points where sources write: the first block's input, heads' z, MLPs' outputs."""
        return list(dict.fromkeys(self.hook(site) for site in self.sources))

    def hook(self, source: Site) -> str:
        """The hook point where a source writes."""
        if source.kind == "embed":
            return self.anatomy.hook(Site("resid_pre", 0))
        return self.anatomy.hook(source)


@dataclass(frozen=True, eq=False)
class Reading:
    """How a layer's attention or MLP, or the logits, read the stream: norm, then projections.

    Attributes:
        norm: the norm, or nothing where there is none.
        weight: Float[index, d_model, d], the projections; None where the normed stream is read.
        bias: Float[index, d].
    """

    norm: nn.Module
    weight: Tensor | None
    bias: Tensor | None


@dataclass(eq=False)
class EdgeRuns:
    """Runs of some inputs in which edges are cut: what they carry is replaced.

    Its methods compute where they are called, so they belong on the model's worker.

    Args:
        batch: the inputs, and what acts besides.
        graph: the model's edges.
        values: Float[item, pos, ...] by hook point of :meth:`Graph.hook_points`, what outputs are
            replaced by; the first two dimensions may be 1.
        first: the first position at which anything is replaced.
    """

    batch: Batch
    graph: Graph
    values: Mapping[str, Tensor]
    first: int = 0
    _clean: dict[str, Tensor] = field(default_factory=dict, repr=False)
    _readings: dict[str, Reading] = field(default_factory=dict, repr=False)
    _writes: dict[int, Tensor] = field(default_factory=dict, repr=False)

    def run(
        self,
        cuts: Sequence[Tensor],
        rows: Sequence[int] = (-1,),
        *,
        should_stop: ShouldStop | None = None,
    ) -> Generator[tuple[list[Item], Tensor], None, None]:
        """Run every input with each set of edges cut; those that cost least come first.

        Args:
            cuts: Bool[reader, source] each: the edges that carry something else.
            rows: the positions whose logits are wanted.
            should_stop: asked before every block.

        Yields:
            Which (cut, item) pairs a chunk has, and Float[pair, row, vocab], their logits.

        Raises:
            BudgetError: when one input alone needs more memory than there is to spend.
            Stopped: when ``should_stop`` said so.
        """
        wanted = [row % self.batch.length for row in rows]
        cuts = [cut & self.graph.exists for cut in cuts]
        starts: dict[int, list[int]] = {}
        for index, cut in enumerate(cuts):
            starts.setdefault(self._start(cut), []).append(index)
        for layer in sorted(starts, reverse=True):
            pairs = [(cut, item) for cut in starts[layer] for item in range(self.batch.count)]
            needed = torch.stack([cuts[index].any(0) for index in starts[layer]]).any(0)
            size = self._at_once(int(needed.sum()), len(wanted))
            for begin in range(0, len(pairs), size):
                chunk = pairs[begin : begin + size]
                final = self._final(cuts, chunk, layer, should_stop)
                kept = final[:, [row - self.offset for row in wanted]]
                yield chunk, self.batch.engine.passes.read(kept)

    def difference(self, source: int, items: Sequence[int], value: Tensor | None = None) -> Tensor:
        """Return what a source writes minus what it is replaced by.

        Args:
            source: which.
            items: which inputs.
            value: Float[item, pos, ...], what stands at its hook point in a run; without, in the
                inputs' own one.
        """
        site = self.graph.sources[source]
        hook, offset = self.graph.hook(site), self.offset
        if value is None:
            value = self._own(hook)[list(items), offset:]
        put = self.values[hook].to(value)
        put = put[list(items)] if put.shape[0] > 1 else put
        put = put[:, offset:] if put.shape[1] > 1 else put
        if site.kind == "head":
            apart = value[:, :, site.index or 0] - put[:, :, site.index or 0]
            apart = apart @ self._written(site.layer or 0)[site.index or 0]
        else:
            apart = value - put
        if self.first > offset:
            apart[:, : self.first - offset] = 0
        return apart

    def slopes(self, readers: Sequence[int], stream: Tensor, slope: Tensor) -> Tensor:
        """Take a gradient from what readers of one hook point give back to what they read.

        Args:
            readers: which.
            stream: Float[item, pos, d_model], what enters their norm.
            slope: Float[item, pos, ...], the gradient at their hook point.

        Returns:
            Float[reader, item, pos, d_model], the gradient by the stream through each alone.
        """
        sites = [self.graph.readers[reader] for reader in readers]
        reading = self.reading(sites[0])
        if reading.weight is None:
            normed = slope[None]
        else:
            index = [Spot.of(site, self.graph.anatomy).index or 0 for site in sites]
            normed = torch.einsum("bpre,rde->rbpd", slope[:, :, index], reading.weight[index])
        read = stream.detach().expand(len(readers), *stream.shape).clone().requires_grad_()
        with torch.enable_grad():
            found = torch.autograd.grad(reading.norm(read), read, normed)
        return found[0]

    def reading(self, reader: Site) -> Reading:
        """Return how a reader reads the stream."""
        path, hook, linear_path = reader_of(reader, self.graph.anatomy)
        if hook not in self._readings:
            passes = self.batch.engine.passes
            norm = original(passes.module(path))
            if linear_path is None:
                self._readings[hook] = Reading(norm, None, None)
            else:
                linear = original(passes.module(linear_path))
                self._readings[hook] = Reading(norm, *_affine(linear, self.graph.anatomy))
        return self._readings[hook]

    @property
    def offset(self) -> int:
        """The first position that is computed."""
        return self.first if self.batch.engine.shortcuts.positions else 0

    @property
    def rows(self) -> int:
        """How many positions are computed."""
        return self.batch.length - self.offset

    # --- inside ----------------------------------------------------------------------------------

    def _written(self, layer: int) -> Tensor:
        """Float[head, d_head, d_model], what a layer's heads write per unit of their z."""
        if layer not in self._writes:
            bridge = self.batch.engine.passes.bridge
            self._writes[layer] = head_weights(bridge, layer).W_O
        return self._writes[layer]

    def _start(self, cut: Tensor) -> int:
        """Return the lowest layer that reads a cut edge; the number of layers for the logits."""
        readers = cut.any(1).nonzero().flatten().tolist()
        n_layers = self.graph.anatomy.n_layers
        return min((self.graph.layers[reader] for reader in readers), default=n_layers)

    def _at_once(self, n_sources: int, n_logits: int) -> int:
        a, rows = self.graph.anatomy, self.rows
        readers = a.n_heads + 2 * a.n_kv_heads + 1
        wide = max(a.d_mlp, a.n_heads * self.batch.length)
        streams = (n_sources + 4 * readers + a.n_layers) * a.d_model
        need = 4 * (rows * (streams + 8 * wide) + 3 * n_logits * a.d_vocab)
        budget = self.batch.engine.budget
        if need > budget:
            msg = (
                f"One run with edges cut needs about {need / 2**20:,.0f} MiB, and the budget is "
                f"{budget / 2**20:,.0f} MiB: use a shorter prompt or a larger budget."
            )
            raise BudgetError(msg)
        return max(1, min(budget // need, ROWS // rows))

    def _final(
        self,
        cuts: Sequence[Tensor],
        chunk: Sequence[Item],
        layer: int,
        should_stop: ShouldStop | None,
    ) -> Tensor:
        """Return Float[pair, pos, d_model], what the final norm reads, from the offset on."""
        n_layers, items = self.graph.anatomy.n_layers, [item for _, item in chunk]
        run = _Run(self, cuts, chunk, layer)
        if layer == n_layers:
            final = self.batch.residual(n_layers, should_stop)[items][:, self.offset :]
        else:
            final = self.batch.forward(
                items,
                self.batch.start_from(layer),
                run.steps(),
                first=self.offset,
                stop=n_layers,
                should_stop=should_stop,
            ).residual[n_layers]
        lost = run.lost([len(self.graph.readers) - 1])
        return final if lost is None else final - lost[0]

    def _own(self, hook: str) -> Tensor:
        """What stands at a source's hook point in the inputs' own run."""
        if not self._clean:
            self._clean.update(self.batch.capture(self.graph.hook_points()))
        return self._clean[hook]


class _Run:
    """One batch of runs with edges cut.

    Args:
        runs: whose.
        cuts: Bool[reader, source] each.
        chunk: the (cut, item) pairs of the batch, those of one cut together.
        layer: where it starts.
    """

    def __init__(
        self, runs: EdgeRuns, cuts: Sequence[Tensor], chunk: Sequence[Item], layer: int
    ) -> None:
        self._runs = runs
        self._graph = runs.graph
        self._layer = layer
        self._items = [item for _, item in chunk]
        self._groups: list[tuple[Tensor, slice]] = []
        begin = 0
        for end in range(1, len(chunk) + 1):
            if end == len(chunk) or chunk[end][0] != chunk[begin][0]:
                self._groups.append((cuts[chunk[begin][0]], slice(begin, end)))
                begin = end
        cut = torch.stack([each for each, _ in self._groups]).any(0)
        self._readers: list[int] = cut.any(1).nonzero().flatten().tolist()
        # The sources that some cut edge comes from, in order; the rest need not be read.
        self._sources: list[int] = cut.any(0).nonzero().flatten().tolist()
        own = [place for place in self._sources if self._layer_of(place) < layer]
        a, model = self._graph.anatomy, runs.batch.engine.model
        shape = (len(self._sources), len(chunk), runs.rows, a.d_model)
        self._differences = torch.zeros(shape, dtype=model.dtype, device=model.device)
        for place, source in enumerate(own):
            self._differences[place] = runs.difference(source, self._items)

    def steps(self) -> list[Step]:
        """Return what is read and put in on the way through the blocks."""
        return [*self._source_steps(), *self._reader_steps()]

    def lost(self, readers: Sequence[int]) -> Tensor | None:
        """Return Float[reader, pair, pos, d_model]: what the stream loses for some readers.

        None where it loses nothing.
        """
        total: Tensor | None = None
        for cut, pairs in self._groups:
            weights = cut[list(readers)][:, self._sources]
            columns = weights.any(0).nonzero().flatten()
            if not len(columns):
                continue
            if 4 * len(columns) > int(columns[-1]):  # a slice is read where it lies
                columns = torch.arange(int(columns[-1]) + 1)
                apart = self._differences[: len(columns), pairs]
            else:
                apart = self._differences[columns, pairs]
            if total is None:
                total = apart.new_zeros(len(readers), *self._differences.shape[1:])
            weighted = weights[:, columns].to(apart) @ apart.flatten(1)
            total[:, pairs] = weighted.unflatten(1, apart.shape[1:])
        return total

    def _layer_of(self, source: int) -> int:
        layer = self._graph.sources[source].layer
        return -1 if layer is None else layer

    def _source_steps(self) -> list[Step]:
        by_hook: dict[str, list[tuple[int, int]]] = {}
        for place, source in enumerate(self._sources):
            if self._layer_of(source) >= self._layer:
                hook = self._graph.hook(self._graph.sources[source])
                by_hook.setdefault(hook, []).append((place, source))

        def keeping(name: str, written: list[tuple[int, int]]) -> Step:
            def keep(x: Tensor, _frame: Frame) -> None:
                for place, source in written:
                    self._differences[place] = self._runs.difference(source, self._items, x)

            return Step(name, keep, AFTER)

        return [keeping(name, written) for name, written in by_hook.items()]

    def _reader_steps(self) -> list[Step]:
        """What a norm's readers lose is summed once for all of them, queries, keys and values."""
        by_norm: dict[str, dict[str, list[int]]] = {}
        for reader in self._readers:
            site = self._graph.readers[reader]
            if site.kind != "logits":
                path, hook, _ = reader_of(site, self._graph.anatomy)
                by_norm.setdefault(path, {}).setdefault(hook, []).append(reader)
        steps = []
        for path, by_hook in by_norm.items():
            held: list[Tensor] = []
            readers = [reader for each in by_hook.values() for reader in each]
            steps.append(Step(f"{path}.hook_in", partial(self._lose, readers, held), AFTER))
            begin = 0
            for hook, each in by_hook.items():
                part = slice(begin, begin + len(each))
                steps.append(Step(hook, partial(self._read, each, held, part), BEFORE))
                begin += len(each)
        return steps

    def _lose(self, readers: list[int], held: list[Tensor], x: Tensor, _frame: Frame) -> None:
        """Hold Float[reader, pair, pos, d_model], the stream as some readers read it."""
        lost = self.lost(readers)
        held[:] = [x.expand(len(readers), *x.shape) if lost is None else x - lost]

    def _read(
        self, readers: list[int], held: list[Tensor], part: slice, x: Tensor, _frame: Frame
    ) -> Tensor:
        """Let some readers of one hook point read what was held for them."""
        sites = [self._graph.readers[reader] for reader in readers]
        reading = self._runs.reading(sites[0])
        normed: Tensor = reading.norm(held[0][part])
        if reading.weight is None or reading.bias is None:
            return normed[0]
        index = [Spot.of(site, self._graph.anatomy).index or 0 for site in sites]
        projected = torch.einsum("rbpd,rde->bpre", normed, reading.weight[index])
        result = x.clone()
        result[:, :, index] = (projected + reading.bias[index]).to(x.dtype)
        return result


def _affine(linear: nn.Module, anatomy: Anatomy) -> tuple[Tensor, Tensor]:
    """Return Float[head, d_model, d_head] and Float[head, d_head] of a projection to heads.

    Tried rather than read: how an architecture keeps these weights differs.
    """
    example = next(linear.parameters())
    eye = torch.eye(anatomy.d_model, dtype=example.dtype, device=example.device)
    with torch.no_grad():
        bias: Tensor = linear(eye.new_zeros(1, anatomy.d_model))
        weight: Tensor = linear(eye) - bias
    by_head = weight.unflatten(1, (-1, anatomy.d_head)).transpose(0, 1)
    return by_head.contiguous(), bias.unflatten(1, (-1, anatomy.d_head))[0]
