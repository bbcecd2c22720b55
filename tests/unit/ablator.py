"""A CircuitAblator without a page, on tiny models, and what it is compared with."""

from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import pytest
import torch

from patchclamp.engine.edges import Graph
from patchclamp.interventions import Intervention
from patchclamp.methods.circuit import Selection
from patchclamp.methods.metric import LogitDifference
from patchclamp.methods.path_patching import edge_runs, with_cut
from patchclamp.methods.prompt_sets import Pair, PromptSet
from patchclamp.session import Session
from patchclamp.views import messages as say
from patchclamp.views.circuit_ablator import CircuitAblator
from tests.unit import tiny
from tests.unit.heard import Hears, Message

Array = np.ndarray[Any, Any]
METRIC = LogitDifference(7, 12)
N_EDGES = Graph.of(tiny.model("llama").anatomy).n_edges
MINE = PromptSet(
    "mine",
    "letters",
    3,
    (
        Pair("a b c d", "a x c d", " e", " f"),
        Pair("g b h d", "g x h d", " i", " j"),
        Pair("k b l m", "k x l m", " n", " o"),
    ),
    note="one was left out",
)


class Heard(Hears, CircuitAblator):
    """The real view, heard."""

    def circuit_state(self) -> Message:
        """What is declared, of the session as it is."""
        found: Message = self.ask("hello")["body"]["circuit"]
        return found

    def whole_map(self, how: str = "mean") -> Message:
        """The map of the session as it is, once it is whole."""
        since = self.circuit_state()["holds_since"]["map"]
        found = self.hear(
            lambda m: (
                m["kind"] == "map"
                and m["map"]["revision"] >= since
                and m["map"]["how"] == how
                and m["map"]["done"] == m["map"]["total"]
            )
        )
        whole: Message = found["map"]
        return whole


def opened(*args: Any, **options: Any) -> Heard:
    view = Heard(*args, **options)
    view.ask("hello")
    view.result()
    return view


def last(session: Session, method: Callable[..., Any], *args: Any) -> Any:
    """What a method gives in the end, of the session's task, on the model's worker."""

    def job(_stop: Callable[[], bool]) -> Any:
        found = method(session.task, *args)
        return list(found)[-1] if isinstance(found, Generator) else found

    return session.submit(job).result()


def last_of(session: Session, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """All that a method yields, of the session's task without its stack."""
    return session.submit(
        lambda _stop: list(method(session.task.without_stack(), *args, **options))
    ).result()


def stack(session: Session) -> list[Intervention]:
    return list(session.interventions)


def level(session: Session) -> float:
    """The metric of the session as it is, by the session's own run."""
    logits = session.current.rows([-1])[0]
    return float(logits[7] - logits[12])


def found_in(view: Heard, **fields: Any) -> Message:
    """The graph of a search, once its strongest edges are exact, and its circuit is checked."""
    assert view.ask("find", **fields)["ok"]
    view.hear(lambda m: m["kind"] == "graph" and "measured exactly" in m["graph"]["note"])
    view.rest()
    graph: Message = view.of("graph")[-1]["graph"]
    return graph


def by_hand(session: Session, cut: torch.Tensor, how: str = "corrupt") -> float:
    """The metric with some edges cut, by path patching."""

    def job(_stop: Callable[[], bool]) -> float:
        task = session.task.without_stack()
        return with_cut(task, edge_runs(task, how), cut)  # type: ignore[arg-type]

    found: float = session.submit(job).result()
    return found


def mask_of(view: Heard) -> torch.Tensor:
    selection = view.session.circuit
    assert isinstance(selection, Selection)
    assert view.scores is not None
    return selection.mask(view.scores)


def new_session() -> Session:
    """A prompt of 8 tokens with a corrupt one, on the tiny Llama."""
    return Session(tiny.model("llama"), tiny.ids(8), contrast=tiny.ids(8, seed=5), metric=METRIC)


def pressing_stop(view: Heard, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Press Stop as soon as the job named has begun; all come in many pieces."""
    monkeypatch.setattr("patchclamp.engine.batch.ROWS", 8)
    monkeypatch.setattr("patchclamp.engine.batch._READ", 1)
    monkeypatch.setattr("patchclamp.engine.edges.ROWS", 8)

    jobs: list[str] = []
    say_progress = view._say_progress

    def pressing(job: say.Job, done: int, total: int) -> None:
        say_progress(job, done, total)
        if job in jobs and 2 <= done < total:
            view.say("stop")

    def midway(job: str) -> None:
        jobs[:] = [job]

    monkeypatch.setattr(view, "_say_progress", pressing)
    return midway
