"""CircuitAblator: what each component does to a metric, which edges carry it, and whether all do.

Components are in `component_view.py`, what every view on a session shares in `stack_view.py`. Here
are circuits: edges scored, chosen, switched by hand, and checked. They are measured on the model as
it is, without the stack. How what was measured becomes a message is in `circuit_pictures.py`.
"""

import itertools
import json
from collections import OrderedDict
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass, replace
from math import isnan
from typing import TYPE_CHECKING, Any, get_args

from patchclamp.engine.edges import Graph
from patchclamp.errors import InputError, MetricError, ModelError, PatchclampError, Stopped
from patchclamp.methods.acdc import acdc
from patchclamp.methods.circuit import Circuit, Selection, circuit_of
from patchclamp.methods.edge_attribution import EdgeScores, eap_ig, ends
from patchclamp.methods.edge_effect import EdgeEffect, edge_effect
from patchclamp.methods.faithfulness import (
    SEEDS,
    Checked,
    Curve,
    check,
    faithfulness_curve,
    sizes_of,
)
from patchclamp.methods.path_patching import edge_runs, exact_edges
from patchclamp.sites import Site

from . import ablations, rows
from . import circuit_pictures as pictures
from . import messages as say
from .circuit_code import circuit_code
from .component_view import SETTLED_AFTER, ComponentView, Declared, Kept, one_of
from .messages import Finder, Replacement
from .pace import Settled
from .strip_view import NO_PREDICTION
from .view import Later, ShouldStop, _weakly

if TYPE_CHECKING:
    from pathlib import Path

    import networkx as nx
    import pandas as pd

    from patchclamp.engine.edges import EdgeRuns
    from patchclamp.methods.edge_attribution import Of
    from patchclamp.methods.task import Task

_KEPT_CHECKS = 64
_FIRST_SHARE = 10  # the circuit shown first has a tenth of the edges
MEASURED_EDGES = 60
"""So many of the strongest edges are measured exactly once all are scored."""
MEASURING = "measuring the strongest edges"
UNFINISHED = "It was stopped before it was finished."
LOADS = 'ablator.load_circuit("circuit.json")  # the file that was loaded'
NO_CIRCUIT = "No circuit has been looked for yet: find one first (ablator.find())."


@dataclass(frozen=True, eq=False)
class _Running:
    """What runs the prompts with edges cut, and the metric at both ends: nothing cut, and all."""

    key: Hashable
    runs: "EdgeRuns"
    clean: float
    corrupt: float


@dataclass(frozen=True)
class Search:
    """What is looked for, and how: the arguments of :meth:`CircuitAblator.find`."""

    method: Finder = "eap-ig"
    of: "Of" = "edges"
    how: Replacement = "corrupt"
    steps: int = 5
    threshold: float | None = None
    runs: int = 500

    @property
    def passes(self) -> int:
        """About how many whole passes it takes: forward, backward, and those of the replacement."""
        if self.method == "acdc":
            return 2 * self.runs
        return 2 + 3 * (self.steps if self.method == "eap-ig" else 1)

    @property
    def code(self) -> str:
        """The call that does it."""
        own = {"eap-ig": ["steps"], "acdc": ["threshold", "runs"]}.get(self.method, [])
        named = "".join(f", {name}={getattr(self, name)!r}" for name in own)
        return f'ablator.find("{self.method}", of="{self.of}", how="{self.how}"{named})'


class CircuitAblator(ComponentView, bundle="circuit-ablator"):
    """Components cut, patched and put together to circuits, on prompt pairs.

    Args:
        model: a session; or a model, with a prompt or pairs, for which the view makes a session.
        prompt: a text or token ids, where a model is given.
        metric: what is measured, such as ``LogitDifference(" Paris", " Rome")``; the session's is
            kept without.
        pairs: prompt pairs that everything is averaged over: a set, or the name of one that comes
            with the package, such as "capitals"; the session's are kept without.
        **options: of the session that is made, such as ``contrast`` (the corrupt prompt).

    Raises:
        PatchclampError: when the prompt cannot be run, or the front end was not built.

    Example:
        >>> ablator = pc.CircuitAblator(pc.load("smollm2"), pairs="capitals")  # doctest: +SKIP
        >>> ablator.survey("mean").head()  # doctest: +SKIP
        >>> ablator.ablate("L17.H4", "L20.mlp")  # doctest: +SKIP
        >>> ablator.find("eap-ig")  # doctest: +SKIP
        >>> ablator.size = 200  # doctest: +SKIP
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._edges_known: Graph | None = None
        self._finds = itertools.count(1)
        self._searching: list[pictures.Found] = []
        self._stopped_search: list[pictures.Found] | None = None
        self._arrived: pictures.Found | None = None
        self._found: Kept[pictures.Found] | None = None
        self._running: _Running | None = None
        self._checks: OrderedDict[Hashable, Kept[Checked]] = OrderedDict()
        self._curve: Kept[Curve] | None = None
        self._adopt_due = Settled(0.0, _weakly(self._adopt))
        self._check_due = Settled(SETTLED_AFTER, _weakly(self._start_check))
        super().__init__(*args, **options)

    def close(self) -> None:
        """Take the view off its session and out of the notebook; its work stops."""
        for due in ("_check_due", "_adopt_due"):
            if hasattr(self, due):
                getattr(self, due).close()
        super().close()

    def _let_go(self) -> None:
        super()._let_go()
        self._running = None

    # --- the same gestures, from Python -----------------------------------------------------------

    def find(
        self,
        method: Finder = "eap-ig",
        *,
        of: "Of" = "edges",
        how: Replacement = "corrupt",
        steps: int = 5,
        threshold: float | None = None,
        runs: int = 500,
    ) -> "pd.DataFrame":
        """Score all edges between components, without the stack, and measure the strongest.

        Args:
            method: "attribution" (of nodes), "eap", "eap-ig" (with integrated gradients), or
                "acdc", which cuts edges one trial after the other.
            of: whether a circuit is so many of the strongest edges, or nodes with all edges between
                them.
            how: what an edge carries when it is cut.
            steps: of the integrated gradients.
            threshold: of ACDC, in units of the metric; None for a twentieth of what separates clean
                from corrupt.
            runs: the most trials of ACDC.

        Returns:
            The strongest edges, one a row: address, source, reader, estimate, exact (NaN where it
            was not measured), disagree ("sign", "half" or None). `scores` has all.

        Raises:
            ModelError: when the model has no graph of components.
            InputError: when there is no corrupt prompt where one is needed.
            MetricError: when the metric has no gradient, or is no number.
        """
        search, so_far = self._asked(Search(method, of, how, steps, threshold, runs)), _so_far()
        self._stop_tasks(lambda name: name == "faithful")
        job = self._find_job(search, so_far)
        _, whole = self._sweep("find", self._cost_of(search), job, lambda: so_far or None)
        self._take(so_far[0] if whole else so_far[0].saying(UNFINISHED))
        self._sweep("find", MEASURING, self._exact_job(), lambda: self._found)
        self._push_graph(always=True)
        return self.edges

    @property
    def scores(self) -> EdgeScores | None:
        """All edges with their scores; None where none were found yet."""
        return None if self._found is None else self._found.value.scores

    @property
    def edges(self) -> "pd.DataFrame":
        """The strongest edges, one a row: address, source, reader, estimate, exact, disagree.

        Raises:
            InputError: when no circuit was looked for yet.
        """
        return self._need().value.frame()

    @property
    def size(self) -> int:
        """How many of the strongest edges (or nodes) the circuit has. Settable.

        Raises:
            InputError: when no circuit was looked for yet, or there are not so many.
        """
        return self._selection().size

    @size.setter
    def size(self, count: int) -> None:
        self._resize(count, None)

    def switch(self, *addresses: str) -> None:
        """Take nodes or edges out of the circuit; where all are out already, put them back in.

        Raises:
            AddressError: when there is no such node or edge.
        """
        selection, found = self._selection(), self._need().value
        graph = found.scores.graph
        now = selection.mask(found.scores)
        inside = [each for each in addresses if bool((graph.cut([each]) & now).any())]
        for address in inside or addresses:
            selection = selection.switched(address, found.scores)
        self._session.set_circuit(selection)

    def annotate(
        self,
        *addresses: str,
        pinned: bool | None = None,
        name: str | None = None,
        group: str | None = None,
    ) -> None:
        """Pin, name or group nodes of the graph; what is None stays, an empty name takes it away.

        Raises:
            AddressError: when there is no such node.
        """
        selection, graph = self._selection(), self._need().value.scores.graph
        nodes = []
        for address in addresses:
            site = Site.parse(address)
            graph.cut([address])  # says what is no node
            if site.kind == "edge":
                msg = f"{address} is an edge; nodes can be named, such as {site.source.address}."
                raise InputError(msg)
            nodes.append(site.address)
        said = selection.annotated(nodes, pinned=pinned, name=name, group=group)
        self._session.set_circuit(said)

    def check(self) -> Checked:
        """Measure the circuit by itself, and the model without it, exactly.

        Returns:
            Clean and corrupt metric, that of the circuit and that without it, its faithfulness and
            completeness.

        Raises:
            InputError: when there is no circuit, or no corrupt prompt for it.
        """
        self._check_how(self._need().value.scores.how)
        self._whole()
        found: Checked = self._session.submit(self._check_job()).result()
        return found

    def faithfulness(self) -> "pd.DataFrame":
        """Measure faithfulness and completeness against size, beside random circuits.

        Returns:
            One size a row: size, faithfulness, completeness, random_low, random_median,
            random_high. Random circuits have as many edges into each layer's readers.

        Raises:
            InputError: when no circuit was looked for yet, or there is no corrupt prompt for it.
        """
        self._check_how(self._need().value.scores.how)
        what, job = self._cost_of_sizes(), self._curve_job()
        found, _ = self._sweep("faithful", what, job, lambda: self._curve)
        return pictures.curve_frame(found.value)

    def edge(self, address: str) -> EdgeEffect:
        """Cut one edge, such as "L3.H1->L7.H2:q", exactly.

        Raises:
            AddressError: when there is no such edge.
            ModelError: when the model has no graph of components.
        """
        place = self._edge_place(address)
        found: EdgeEffect = self._session.submit(self._edge_job(place)).result()
        return found

    @property
    def circuit(self) -> Circuit | None:
        """The circuit as a value that can be kept; None where there is none. Settable."""
        found, selection = self._found, self._session.circuit
        if found is None or not isinstance(selection, Selection):
            return None
        return self._circuit_now(found.value, selection)

    @circuit.setter
    def circuit(self, circuit: Circuit) -> None:
        self._take(self._loaded(circuit))

    def save_circuit(self, path: "str | Path") -> None:
        """Write the circuit to a JSON file.

        Raises:
            InputError: when there is none.
        """
        self._whole().save(path)

    def load_circuit(self, path: "str | Path") -> None:
        """Take a circuit from a JSON file.

        Raises:
            InputError: when it holds none, or one of another model.
        """
        self.circuit = Circuit.load(path)

    def to_networkx(self) -> "nx.MultiDiGraph[str]":
        """The circuit as a graph of networkx; see :meth:`Circuit.to_networkx`.

        Raises:
            InputError: when there is none.
        """
        return self._whole().to_networkx()

    def refresh(self) -> None:
        """Compute what the view shows now and wait for it; a page that is open gets it too.

        Of the map what a Stop has left out stays out.
        """
        super().refresh()
        if self._predicts and self._checkable() is not None:
            self._session.submit(self._check_job()).result()

    def stop(self) -> None:
        """End the view's long work where it is; what was measured stays."""
        self._stopped_search = self._searching
        super().stop()

    def circuit_code(self) -> str:
        """The circuit as Python that finds, chooses and checks it again.

        Raises:
            InputError: when there is none.
        """
        self._whole()
        return circuit_code(self._session, self._need().value.asked, self._selection())

    # --- gestures from the page -------------------------------------------------------------------

    def _on_find(self, message: say.Find) -> None:
        self._refuse_encoders("method")
        with rows.about("method"):
            self._graph()
        with rows.about("how"):
            self._check_how(message.how)
        search = self._asked(
            Search(
                message.method,
                message.of,
                message.how,
                message.steps,
                message.threshold,
                message.runs,
            )
        )
        self._stop_tasks(lambda name: name in {"find", "faithful"})
        so_far = self._searching = _so_far()
        self._start(
            "find",
            self._cost_of(search),
            self._find_job(search, so_far),
            then=self._has_arrived,
            priority="sweep",
            failed=lambda error: self._has_failed(error, so_far),
        )

    def _on_size(self, message: say.Size) -> None:
        with rows.about("count"):
            self._resize(message.count, ("size", id(self), self._gesture))
        if message.final:
            self._next_gesture()

    def _on_switch(self, message: say.Switch) -> None:
        with rows.about("addresses"):
            self.switch(*message.addresses)

    def _on_annotate(self, message: say.Annotate) -> None:
        with rows.about("addresses"):
            self.annotate(
                *message.addresses, pinned=message.pinned, name=message.name, group=message.group
            )

    def _on_edge(self, message: say.Edge) -> Later:
        self._refuse_encoders("address")
        with rows.about("address"):
            place = self._edge_place(message.address)
        return self._answer(
            message.id,
            "edge",
            f"cutting {message.address}",
            self._edge_job(place),
            lambda found: self._edge_body(place, found),
            field="address",
        )

    def _on_check(self, _message: say.Check) -> None:
        self._check_how(self._need().value.scores.how)
        what = self._cost_of_sizes()
        self._stop_tasks(lambda name: name == "faithful")
        self._start("faithful", what, self._curve_job(), then=lambda _none: None, priority="sweep")

    def _on_export(self, message: say.Export) -> Later:
        with rows.about("format"):
            self._whole()
        name = f"circuit-{self._session.model.name}".replace("/", "-")

        def job(_should_stop: ShouldStop) -> say.ExportBody:
            if message.format == "code":
                return say.ExportBody(name=f"{name}.py", text=self.circuit_code())
            return say.ExportBody(name=f"{name}.json", text=pictures.circuit_text(self._whole()))

        return self._answer(
            message.id, "export", "writing the circuit", job, lambda body: body, field="format"
        )

    def _on_import(self, message: say.Import) -> None:
        with rows.about("text"):
            try:
                data = json.loads(message.text)
            except ValueError as error:
                raise InputError(f"This is no circuit that patchclamp wrote: {error}.") from error
            self.circuit = Circuit.from_json(data)

    # --- what is declared -------------------------------------------------------------------------

    def _keys(self, declared: Declared) -> dict[str, Hashable]:
        circuits = {
            "graph": declared.bare_key,
            "checked": (declared.bare_key, self._circuit_key()),
        }
        return super()._keys(declared) | circuits

    def _circuit_key(self) -> Hashable:
        """Which edges are in the circuit; None where there is none."""
        found, chosen = self._found, self._session.circuit
        if found is None or not isinstance(chosen, Selection):
            return None
        return found.value.number, chosen.size, chosen.of, chosen.added, chosen.removed

    def _graph(self) -> Graph:
        """The model's graph of components.

        Raises:
            ModelError: when it has none.
        """
        if self._edges_known is None:
            self._edges_known = Graph.of(self._session.model.anatomy)
        return self._edges_known

    def _why_no_graph(self) -> str | None:
        try:
            self._graph()
        except ModelError as error:
            return str(error)
        return None

    def _asked(self, search: Search) -> Search:
        """What is to be looked for, when it can be."""
        if not self._predicts:
            raise ModelError(NO_PREDICTION)
        one_of(search.method, get_args(Finder), "method")
        one_of(search.of, ("edges", "nodes"), "kind of circuit")
        self._graph()
        self._check_how(search.how)
        return replace(search, of="nodes") if search.method == "attribution" else search

    def _cost_of(self, search: Search) -> str:
        """What a search is, and costs, for the status."""
        pairs = self._declared().task.n_pairs
        prompts = f" of all {pairs} prompts" if pairs > 1 else ""
        passes = f"about {search.passes:,} whole passes{prompts}"
        return f"scoring {self._graph().n_edges:,} edges: {passes}"

    def _cost_of_sizes(self) -> str:
        count = len(sizes_of(self._need().value.scores.total(self._selection().of)))
        return f"measuring {count * (2 + SEEDS)} circuits: about two whole passes each"

    def _need(self) -> Kept[pictures.Found]:
        if self._found is None:
            raise InputError(NO_CIRCUIT)
        return self._found

    def _whole(self) -> Circuit:
        """The circuit.

        Raises:
            InputError: when there is none.
        """
        circuit = self.circuit
        if circuit is None:
            raise InputError(NO_CIRCUIT)
        return circuit

    def _selection(self) -> Selection:
        """The session's circuit, or that which was found, where an undo has taken it away."""
        found, chosen = self._need().value, self._session.circuit
        return chosen if isinstance(chosen, Selection) else found.selection

    def _resize(self, count: int, gesture: Hashable) -> None:
        selection, scores = self._selection(), self._need().value.scores
        most = scores.total(selection.of)
        if not 0 <= count <= most:
            raise InputError(f"A circuit has 0 to {most:,} {selection.of}, not {count:,}.")
        self._session.set_circuit(replace(selection, size=count), coalesce=gesture)

    def _edge_place(self, address: str) -> tuple[int, int]:
        """The (reader, source) of an edge."""
        graph = self._graph()
        if Site.parse(address).kind != "edge":
            raise InputError(f"{address} is no edge; one is L3.H1->L7.H2:q.")
        reader, source = graph.cut([address]).nonzero()[0].tolist()
        return reader, source

    def _loaded(self, circuit: Circuit) -> pictures.Found:
        """A circuit from elsewhere, as if it had been found here."""
        model = self._session.model
        if circuit.model != model.name:
            said = f"This circuit is one of {circuit.model}, and the model here is {model.name}."
            raise InputError(said)
        scores = circuit.scores(model.anatomy)
        exact = {
            self._edge_place(edge.address): edge.exact
            for edge in circuit.edges
            if edge.exact is not None
        }
        said = "This circuit was loaded: what it was found on may be other prompts than these."
        return pictures.Found(
            next(self._finds),
            scores,
            Selection(int(circuit.mask(scores.graph).sum()), notes=circuit.notes),
            exact,
            LOADS,
            (said,),
            metric=circuit.metric,
            about=circuit.about,
        )

    def _circuit_now(self, found: pictures.Found, selection: Selection) -> Circuit:
        """The circuit as it is, with what was measured of it."""
        kept = self._checks.get(self._check_key(self._declared()))
        known = None if kept is None else kept.value
        return circuit_of(
            selection,
            found.scores,
            self._session.model.name,
            exact=found.exact,
            metric=found.metric,
            about=found.about,
            faithfulness=None if known is None else pictures.number_or_none(known.faithfulness),
            completeness=None if known is None else pictures.number_or_none(known.completeness),
        )

    def _found_on(self) -> dict[str, Any]:
        """What circuits are of, for a file."""
        session = self._session
        pairs, contrast = session.pairs, session.contrast
        if pairs is not None:
            return {"pairs": pairs.name, "count": len(pairs.pairs), "seed": pairs.seed}
        texts = {"prompt": session.text, "contrast": contrast}
        return {name: text if isinstance(text, str) else None for name, text in texts.items()}

    # --- following the session --------------------------------------------------------------------

    def _moved(self, names: set[str], declared: Declared) -> None:
        super()._moved(names, declared)
        if "graph" in names:
            self._stop_tasks(lambda name: name in {"find", "faithful"})
            for push, kept in ((self._push_graph, self._found), (self._push_curve, self._curve)):
                if kept is not None and kept.key == declared.bare_key:
                    push(always=True)
            self._check_due.touch()  # a prompt may be typed letter by letter
        elif "checked" in names:
            self._start_check()

    def _has_arrived(self, found: pictures.Found) -> None:
        """All edges are scored; the session is told on another thread than the model's worker."""
        with self._lock:
            self._arrived = found
        self._adopt_due.touch()

    def _has_failed(self, error: PatchclampError, so_far: list[pictures.Found]) -> None:
        """Stopped by hand, it keeps what it has; a newer search, or another prompt, wants none."""
        if not isinstance(error, Stopped):
            self._say_error(error, self._session.revision)
        elif so_far and self._stopped_search is so_far:
            self._has_arrived(so_far[0].saying(UNFINISHED))

    def _adopt(self) -> None:
        with self._lock:
            found, self._arrived = self._arrived, None
        if found is None or self._closed:
            return
        self._take(found)
        self._start(
            "find",
            MEASURING,
            self._exact_job(),
            then=lambda _none: self._push_graph(always=True),
            priority="sweep",
        )

    def _take(self, found: pictures.Found) -> None:
        """Let the circuit be that which was found."""
        session = self._session
        before = session.circuit
        if isinstance(before, Selection) and not found.selection.notes:
            found = replace(found, selection=replace(found.selection, notes=before.notes))
        key = self._declared().bare_key if found.key is None else found.key
        had_curve, revision = self._curve is not None, session.revision
        with self._lock:
            self._found = Kept(key, revision, found)
            self._curve = None
        session.set_circuit(found.selection)  # a change, and the circuit is checked
        declared = self._declared()
        if declared.bare_key == key:
            with self._lock:
                self._found = Kept(key, declared.revision, found)
        self._push_declared()
        self._push_graph(always=True)
        if had_curve:  # it was of another graph
            none = pictures.no_curve(declared.revision)
            self._push("faithful", say.FaithfulUpdate(faithful=none))
        if session.revision == revision:  # it was the same already, but of other edges
            self._start_check()

    def _check_key(self, declared: Declared) -> Hashable:
        return self._keys(declared)["checked"]

    def _checkable(self) -> "tuple[Declared, pictures.Found, Selection] | None":
        """The circuit to check; None where there is none, or nothing to put in its edges' place."""
        declared, found, chosen = self._declared(), self._found, self._session.circuit
        if found is None or not isinstance(chosen, Selection):
            return None
        if found.value.scores.how == "corrupt" and declared.task.corrupt is None:
            return None
        return declared, found.value, chosen

    def _start_check(self) -> None:
        """Measure the circuit as it is now."""
        if not self._shown or self._closed:
            return
        now = self._checkable()
        if now is None:
            return
        key = self._check_key(now[0])
        if key in self._checks:
            self._push_checked(key)
            return
        self._start("check", "checking the circuit", self._check_job(), then=lambda _found: None)

    # --- on the worker ----------------------------------------------------------------------------

    def _bare(self, declared: Declared) -> "Task":
        """The task without the stack."""
        return self._kept_task(declared.task.without_stack())

    def _find_job(
        self, search: Search, so_far: list[pictures.Found]
    ) -> Callable[[ShouldStop], Any]:
        """Score all edges; what is there when it is stopped is the last of `so_far`."""

        def job(should_stop: ShouldStop) -> Generator[None, None, pictures.Found]:
            declared, how = self._declared(), search.how
            task = self._bare(declared)
            if search.method == "acdc":
                total, bound = search.runs, search.threshold
                finding = acdc(task, how, threshold=bound, runs=total, should_stop=should_stop)
            else:
                total = search.steps if search.method == "eap-ig" else 1
                finding = eap_ig(task, how, steps=total, should_stop=should_stop)
            for done, scores in finding:
                scored = replace(scores, method=search.method)
                so_far[:] = [self._as_found(declared, scored, search)]
                self._say_progress("find", done, total)
                yield
            return so_far[0]

        return job

    def _as_found(self, declared: Declared, scores: EdgeScores, search: Search) -> pictures.Found:
        """What was found, with the circuit that is shown first."""
        said, of = [], search.of
        if declared.task.stack:
            said.append("The circuit is one of the model as it is: the stack does not act in it.")
        size = Selection.chosen_size(scores)
        if size is None:
            size = max(1, round(scores.total(of) / _FIRST_SHARE))
            said.append(f"First shown: the strongest {100 // _FIRST_SHARE} % of the {of}.")
        else:
            of = "edges"
        try:
            metric = declared.task.metric.to_json()
        except MetricError:  # a function of the user's goes into no file
            metric = None
        return pictures.Found(
            next(self._finds),
            scores,
            Selection(size, of),
            {},
            search.code,
            tuple(said),
            declared.bare_key,
            metric,
            self._found_on(),
        )

    def _exact_job(self) -> Callable[[ShouldStop], Any]:
        """Measure the strongest edges exactly; fills in what was found."""

        def job(should_stop: ShouldStop) -> Generator[None, None, None]:
            kept, declared = self._need(), self._declared()
            if kept.key != declared.bare_key:
                return  # its estimates are of other prompts
            found, task = kept.value, self._bare(declared)
            places = found.scores.ranked()[:MEASURED_EDGES]
            runs = self._run_edges(found.scores.how, should_stop).runs
            for done, values in exact_edges(task, runs, places, should_stop=should_stop):
                exact = dict(zip(places, values.tolist(), strict=True))
                known = {at: value for at, value in exact.items() if not isnan(value)}
                self._learn(found.number, known, always=False)
                self._say_progress("find", done, len(places))
                yield

        return job

    def _learn(self, number: int, exact: dict[tuple[int, int], float], *, always: bool) -> None:
        """Keep and tell what edges do exactly, when the graph is still the same."""
        with self._lock:
            kept = self._found
            if kept is None or kept.value.number != number:
                return
            if exact.keys() <= kept.value.exact.keys():
                return
            value = replace(kept.value, exact={**kept.value.exact, **exact})
            self._found = replace(kept, value=value)
        self._push_graph(always=always)

    def _run_edges(self, how: Replacement, should_stop: ShouldStop) -> _Running:
        """What runs the present prompts with edges cut; kept while they are the same."""
        declared = self._declared()
        key = declared.bare_key, how
        if self._running is None or self._running.key != key:
            task = self._bare(declared)
            runs = edge_runs(task, how, should_stop=should_stop)
            found = None if self._found is None else self._found.value
            if found is not None and (found.key, found.scores.how) == key:
                clean, corrupt = found.scores.clean, found.scores.corrupt
            else:
                clean, corrupt = ends(task, runs, should_stop)
            self._running = _Running(key, runs, clean, corrupt)
        return self._running

    def _check_job(self) -> Callable[[ShouldStop], Any]:
        def job(should_stop: ShouldStop) -> Generator[None, None, Checked | None]:
            now = self._checkable()
            if now is None:
                return None
            declared, found, selection = now
            key = self._check_key(declared)
            if key not in self._checks:
                running = self._run_edges(found.scores.how, should_stop)
                task = self._bare(declared)
                for checked in check(
                    task,
                    running.runs,
                    selection.mask(found.scores),
                    clean=running.clean,
                    corrupt=running.corrupt,
                    should_stop=should_stop,
                ):
                    kept = Kept(key, declared.revision, checked)
                    if not isnan(checked.without):
                        self._keep_check(key, kept)
                    self._push_checked(key, kept)
                    yield
            else:
                self._push_checked(key)
            return self._checks[key].value

        return job

    def _keep_check(self, key: Hashable, kept: Kept[Checked]) -> None:
        with self._lock:
            self._checks[key] = kept
            self._checks.move_to_end(key)
            while len(self._checks) > _KEPT_CHECKS:
                self._checks.popitem(last=False)

    def _curve_job(self) -> Callable[[ShouldStop], Any]:
        def job(should_stop: ShouldStop) -> Generator[None, None, None]:
            found, of, declared = self._need().value, self._selection().of, self._declared()
            running = self._run_edges(found.scores.how, should_stop)
            scores = replace(found.scores, clean=running.clean, corrupt=running.corrupt)
            task, sizes = self._bare(declared), sizes_of(scores.total(of))
            for curve in faithfulness_curve(
                task, running.runs, scores, sizes, of=of, should_stop=should_stop
            ):
                with self._lock:
                    self._curve = Kept(declared.bare_key, declared.revision, curve)
                self._push_curve(always=curve.done == curve.total)
                self._say_progress("faithful", curve.done, curve.total)
                yield

        return job

    def _edge_job(self, place: tuple[int, int]) -> Callable[[ShouldStop], EdgeEffect]:
        def job(should_stop: ShouldStop) -> EdgeEffect:
            found, declared = self._found, self._declared()
            task = self._bare(declared)
            how: Replacement = "corrupt" if task.corrupt is not None else "mean"
            how = how if found is None else found.value.scores.how
            runs = self._run_edges(how, should_stop).runs
            pair = 0 if self._session.pairs is None else self._session.shown_pair
            effect = edge_effect(task, runs, place, pair=pair, should_stop=should_stop)
            if found is not None and found.key == declared.bare_key:
                self._learn(found.value.number, {place: effect.exact}, always=True)
            return effect

        return job

    def _edge_body(self, place: tuple[int, int], effect: EdgeEffect) -> say.EdgeBody:
        found, text = self._found, self._session.model.token_text
        known = float("nan") if found is None else float(found.value.scores.values[place])
        return pictures.edge_body(self._graph().edge(*place), known, effect, text)

    # --- what there is to draw --------------------------------------------------------------------

    def _push_declared(self) -> None:
        if self._shown:
            declared = self._declared()
            state = self._circuit_state(declared)
            self._push("circuit", say.CircuitUpdate(revision=declared.revision, circuit=state))

    def _push_graph(self, *, always: bool) -> None:
        kept = self._found
        if self._shown and kept is not None and self._now_and_then("graph", always=always):
            self._push("graph", say.GraphUpdate(graph=self._graph_message(kept, self._declared())))

    def _graph_message(self, kept: Kept[pictures.Found], declared: Declared) -> say.Graph:
        return kept.value.message(self._revision_of("graph", kept, declared))

    def _push_checked(self, key: Hashable, kept: Kept[Checked] | None = None) -> None:
        kept = self._checks[key] if kept is None else kept
        declared = self._declared()
        if self._shown and key == self._check_key(declared):
            revision = self._revision_of("checked", kept, declared)
            self._push("checked", say.CheckUpdate(checked=pictures.checked(kept.value, revision)))

    def _push_curve(self, *, always: bool) -> None:
        kept = self._curve
        if self._shown and kept is not None and self._now_and_then("faithful", always=always):
            revision = self._revision_of("graph", kept, self._declared())
            message = pictures.curve(kept.value, revision)
            self._push("faithful", say.FaithfulUpdate(faithful=message))

    def _circuit_state(self, declared: Declared) -> say.CircuitState:
        session = self._session
        anatomy, metric = session.model.anatomy, session.metric
        contrast = session.contrast
        task = declared.task
        return say.CircuitState(
            layers=anatomy.n_layers,
            heads=anatomy.n_heads,
            kv_heads=anatomy.n_kv_heads,
            mlp=not anatomy.attn_only,
            metric_kind=metric.kind,
            unit=metric.unit,
            sets=self._set_names(),
            pairs=self._pair_state(),
            contrast=contrast if isinstance(contrast, str) else None,
            ablated=ablations.components(session.interventions, anatomy),
            selection=self._selection_state(),
            holds_since=say.HoldsSince(**self._holds_since(declared)),
            refusals=say.CircuitRefusals(
                corrupt=task.why_no_corrupt if task.corrupt is None else None,
                edges=self._why_no_graph(),
                prediction=None if self._predicts else NO_PREDICTION,
            ),
        )

    def _selection_state(self) -> say.Selection | None:
        found, chosen = self._found, self._session.circuit
        if not isinstance(chosen, Selection):
            return None
        return pictures.selection(chosen, None if found is None else found.value)

    def _everything(self) -> say.AblatorBody:
        self._follow_input()
        declared, state = self._declared(), self._state()
        result, effects = self._result, self._effects
        kept = self._maps.get(self._map_key(declared))
        found, curve = self._found, self._curve
        checked = self._checks.get(self._check_key(declared))
        return say.AblatorBody(
            revision=declared.revision,
            state=state,
            result_revision=None if result is None else result[0],
            result=None if result is None else result[1],
            effects_revision=None if effects is None else effects[0],
            effects=[] if effects is None else effects[1],
            circuit=self._circuit_state(declared),
            map=None
            if kept is None
            else kept.value.message(self._revision_of("map", kept, declared)),
            patching=[self._patching_map(kind, declared) for kind in list(self._patched)],
            graph=None if found is None else self._graph_message(found, declared),
            checked=None
            if checked is None
            else pictures.checked(checked.value, self._revision_of("checked", checked, declared)),
            faithful=None
            if curve is None
            else pictures.curve(curve.value, self._revision_of("graph", curve, declared)),
        )

    def _cuts(self, hello: Any) -> list[tuple[str, dict[str, Any]]]:
        circuit, pairs = hello.circuit, hello.circuit.pairs
        if pairs is not None:
            shown = pairs.pairs[pairs.shown : pairs.shown + 1]
            alone = pairs.model_copy(update={"pairs": shown, "shown": 0})
            circuit = circuit.model_copy(update={"pairs": alone})
        return [
            ("patching", {"patching": []}),
            ("pairs", {"circuit": circuit}),  # but for the one that is shown
            ("faithful", {"faithful": None}),
            *super()._cuts(hello),
            ("graph", {"graph": None, "checked": None, "faithful": None}),
            ("map", {"map": None}),
        ]


def _so_far() -> list[pictures.Found]:
    """Where a search leaves what it has, for when it is stopped."""
    return []
