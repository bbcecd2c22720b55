"""Prompts that drive a unit of a language model: searched for, drawn as a front, loaded.

A search is a generator that lives as long as it is paused; a job of the queue takes it a few chunks
further at a time. What was found stays when it is stopped, fails or is interrupted.
"""

import itertools
import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch

from patchclamp.errors import InputError, PatchclampError, Stopped
from patchclamp.methods.epo import Evolution, epo
from patchclamp.methods.front import Archive, Candidate
from patchclamp.methods.greedy_coordinate import Greedy, greedy
from patchclamp.methods.single_token import SingleTokens, single_tokens
from patchclamp.methods.text_examples import has_map, own_text
from patchclamp.methods.vocabulary import as_text

from . import aims
from . import messages as say
from .aim_view import AimView
from .messages import MaximizerMode
from .pace import Settled
from .pausable import Pausable
from .view import ShouldStop, _weakly

if TYPE_CHECKING:
    import pandas as pd

    from patchclamp.methods.front import Generation
    from patchclamp.methods.objective import Objective

Method = Literal["epo", "greedy", "single"]
Status = Literal["running", "paused", "stopped", "failed", "done"]

_SINGLE_SHOWN = 200  # of all tokens of the vocabulary
_OPTIONS = ("length", "population", "children", "iterations", "top", "seconds", "seed", "start")
_MODES: dict[Method, MaximizerMode] = {"epo": "dream", "greedy": "greedy", "single": "single"}
_WHAT: dict[Method, str] = {
    "epo": "searching for prompts",
    "greedy": "searching greedily",
    "single": "trying every token",
}


@dataclass(eq=False)
class Search(Pausable):
    """One search, running or over.

    Attributes:
        method: which.
        objective: what it maximises.
        how: its options; None of a single-token search, which has none.
        iterations: how many there will be; 0 where only time ends it.
        steps: the generator, which yields nothing while it looks for a start; None once it is over.
        status: how it stands.
        generation: the last state; None before the first.
        whole: of a single-token search that came to its end, all tokens.
        note: what a reader must know.
        should_stop: that of the job that runs it.
    """

    method: Method
    objective: "Objective"
    how: Evolution | Greedy | None
    iterations: int
    steps: "Generator[Generation | None, None, Any] | None" = None
    status: Status = "running"
    generation: "Generation | None" = None
    whole: SingleTokens | None = None
    note: str = ""
    should_stop: ShouldStop = bool

    @property
    def candidates(self) -> "list[Candidate]":
        """What it found: its front, and what it goes on from."""
        if self.generation is None:
            return []
        found = [*self.generation.front.candidates, *self.generation.population]
        return list({each.ids: each for each in found}.values())


class DreamView(AimView):
    """The part of ActivationMaximizer that is about prompts."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._searches: dict[Method, Search] = {}
        self._last_search: Search | None = None
        self._keys: dict[tuple[str, tuple[int, ...]], int] = {}
        self._next_candidate = itertools.count(1)
        self._shaded: dict[tuple[str, tuple[int, ...]], torch.Tensor] = {}
        self._beside: dict[Literal["corpus", "own"], tuple[Objective, list[Candidate]]] = {}
        self._shade_due = Settled(0.0, _weakly(self._start_shading))
        super().__init__(*args, **options)

    # --- the same gestures, from Python -----------------------------------------------------------

    def dream(self, *, again: bool = False, wait: bool = True, **options: Any) -> "pd.DataFrame":
        """Search for prompts from fluent to extreme by EPO, or go on with a paused search.

        Args:
            again: from the first iteration, even where a search is paused.
            wait: for its end; an interrupt of the cell stops it. Without, the view shows it live.
            **options: of :class:`~patchclamp.methods.aim.Dreaming`, such as ``iterations``,
                ``seconds`` or ``start="examples"``, which measures the unit on the corpus first
                where it was not yet; they stay.

        Returns:
            `front`, as it is by then.

        Raises:
            ModelError: when the model is no language model that predicts tokens.
            AddressError: when no unit was chosen.
            InputError: for an option that cannot be, and where there are no examples to start from.
            MetricError: when an activation is no finite number, or the unit has no gradient.
        """
        self._language_session()
        if options:
            self.set_options(**options)
        paused = self._paused_search()
        if paused is None or again or options:
            self._begin("epo")
        self._go_on(wait=wait)
        return self.front

    def rivals(
        self, method: Literal["greedy", "single"] = "greedy", *, wait: bool = True, **options: Any
    ) -> "pd.DataFrame":
        """Search by a plainer method, for comparison in the same plot.

        Args:
            method: "greedy" (greedy coordinate search) or "single" (every token as a prompt).
            wait: for its end.
            **options: of :class:`~patchclamp.methods.greedy_coordinate.Greedy`; by default those of
                the prompts' search.

        Returns:
            `front`, as it is by then.

        Raises:
            ModelError: when the model is no language model that predicts tokens.
            InputError: when there is no such method.
        """
        self._language_session()
        if method not in {"greedy", "single"}:
            msg = f"The plainer methods are 'greedy' and 'single', not {method!r}."
            raise InputError(msg)
        self._begin(method, options)
        self._go_on(wait=wait)
        return self.front

    @property
    def front(self) -> "pd.DataFrame":
        """All prompts found, one a row, by method and falling activation.

        Columns: candidate (its key, for :meth:`load`), method, text, activation, cross_entropy
        (nats a token), front (whether no other of its method beats it in both), ids.
        """
        import pandas as pd

        columns = ["candidate", "method", "text", "activation", "cross_entropy", "front", "ids"]
        lines = [
            [
                self._key_of(kind, each),
                kind,
                self._joined(each.ids),
                each.activation,
                each.cross_entropy,
                on_front,
                each.ids,
            ]
            for kind, each, on_front in self._all_candidates()
        ]
        found = pd.DataFrame(lines, columns=columns)
        return found.sort_values(["method", "activation"], ascending=[True, False]).reset_index(
            drop=True
        )

    # --- gestures from the page -------------------------------------------------------------------

    def _on_dream(self, message: say.Dream) -> None:
        self._refuse_mode("dream")
        how = self._aim.dreaming
        changed = {
            "top_k" if name == "top" else name: getattr(message, name)
            for name in _OPTIONS
            if getattr(message, name) is not None
        }
        if changed:
            how = replace(how, **changed)
            how.check()
            self._declare(replace(self._aim, dreaming=how))
        paused = self._paused_search()
        if paused is None or message.again:
            self._begin("epo")
        self._go_on(wait=False)

    def _on_rivals(self, message: say.Rivals) -> None:
        self._refuse_mode(message.method)
        self._begin(message.method)
        self._go_on(wait=False)

    # --- searching --------------------------------------------------------------------------------

    def _paused_search(self) -> Search | None:
        last = self._last_search
        if last is None or last.steps is None:
            return None
        return last if last.status == "paused" or last.asked_to_pause else None

    def _begin(self, method: Method, options: dict[str, Any] | None = None) -> None:
        """Make a search of what is aimed at now; what the method found before is gone."""
        self._stop_searches()
        session, aim = self._language_session(), self._aim
        target = aims.objective_of(aim)
        how: Evolution | Greedy | None = None
        if method == "epo":
            how = aim.dreaming
        elif method == "greedy":
            how = _greedy(aim.dreaming, options or {})
        iterations = 1 if how is None else how.iterations or 0
        search = Search(method, target, how, iterations)

        def stop() -> bool:
            return search.should_stop()

        if how is None:
            search.steps = single_tokens(session.engine, target, should_stop=stop)
        else:
            search.steps = self._steps(target, how, aim.dreaming.start, stop)
        if any(each.objective != target for each in self._searches.values()):
            self._searches.clear()  # candidates of another unit are on another axis
            self._shaded.clear()
        self._searches.pop(method, None)
        self._searches[method] = search
        self._last_search = search

    def _steps(
        self,
        target: "Objective",
        how: Evolution | Greedy,
        start: Literal["random", "examples"],
        stop: ShouldStop,
    ) -> "Generator[Generation | None, None, Any]":
        """Search, after the examples to begin with were measured where they were not yet."""
        engine = self._language_session().engine
        begin: list[tuple[int, ...]] = []
        if start == "examples":
            begin = yield from self._starts(target, how.length, stop)
        if isinstance(how, Evolution):
            return (yield from epo(engine, target, how, start=begin, should_stop=stop))
        first = begin[0] if begin else None
        return (yield from greedy(engine, target, how, start=first, should_stop=stop))

    def _starts(
        self, target: "Objective", length: int, stop: ShouldStop
    ) -> Generator[None, None, list[tuple[int, ...]]]:
        """The prompts of some length that lead up to a unit's peaks in a corpus; none without."""
        del target, length, stop
        yield from ()
        return []

    def _go_on(self, *, wait: bool) -> None:
        search = self._last_search
        if search is None or search.steps is None:
            return
        begin = self._take_up(search, wait=wait)
        search.status = "running"
        self._push_front(always=True)
        self._push_state()
        if not begin:
            return
        try:
            self._run(
                ("search", search.method),
                _WHAT[search.method],
                self._search_job(search),
                lambda error: self._search_ended(search, error),
                wait=wait,
            )
        except KeyboardInterrupt:
            self._say_interrupted()
            raise

    def _search_job(self, search: Search) -> Callable[[ShouldStop], Any]:
        def job(should_stop: ShouldStop) -> Generator[None, None, None]:
            search.should_stop = should_stop
            while True:
                if search.steps is None or search.asked_to_pause:
                    search.status = "done" if search.steps is None else "paused"
                    if self._let_off(search, over=search.steps is None):
                        return
                    search.status = "running"  # it was taken up again meanwhile
                    continue
                try:
                    search.generation = next(search.steps) or search.generation
                except StopIteration as end:
                    search.whole = end.value if isinstance(end.value, SingleTokens) else None
                    search.steps = None
                    continue
                self._push_front()
                self._push_search_progress(search)
                yield

        return job

    def _search_ended(self, search: Search, error: PatchclampError | None) -> None:
        if error is not None:
            search.steps, search.at_work = None, False
            if search.status in {"running", "paused"}:
                search.status = "stopped" if isinstance(error, Stopped) else "failed"
            if isinstance(error, Stopped):
                search.note = search.note or "It was stopped; what was found until then is kept."
            else:
                search.note = str(error)
                self._say_error(error, self._session.revision)
        self._push_front(always=True)
        self._push_state()
        self._shade_due.touch()

    def close(self) -> None:
        """Take the view off its session and out of the notebook; its work stops."""
        if hasattr(self, "_shade_due"):
            self._shade_due.close()
        super().close()

    def stop(self) -> None:
        """End the view's long work where it is; what was found stays."""
        super().stop()
        self._stop_searches()

    def _stop_searches(self) -> None:
        """End what runs or is paused."""
        self._stop_tasks(lambda name: isinstance(name, tuple) and name[0] == "search")
        last = self._last_search
        if last is not None and last.status == "paused":
            last.status, last.steps = "stopped", None
            self._push_front(always=True)
            self._push_state()

    def pause(self) -> None:
        """Hold the search that runs; :meth:`dream` goes on with it."""
        last = self._last_search
        if last is not None and last.status == "running":
            last.asked_to_pause = True

    def _start_shading(self) -> None:
        """Measure the unit at each token of the front's prompts, for their shading."""
        search = self._last_search
        if self._closed or search is None or search.method == "single":
            return
        if not has_map(search.objective):
            return
        self._start(
            "shading",
            "measuring the prompts' tokens",
            self._shading_job(search),
            then=lambda _none: self._push_front(always=True),
            priority="sweep",
        )

    def _shading_job(self, search: Search) -> Callable[[ShouldStop], Any]:
        engine = self._language_session().engine

        def job(should_stop: ShouldStop) -> Generator[None, None, None]:
            for each, on_front in _listed(search):
                key = (search.method, each.ids)
                if on_front and key not in self._shaded:
                    ids = torch.tensor(each.ids)
                    found = own_text(engine, search.objective, ids, should_stop)
                    self._shaded[key] = found.values
                    yield

        return job

    # --- loading ----------------------------------------------------------------------------------

    def _load_candidate(self, key: int) -> str:
        """Put a prompt into the session; what it is, in words.

        Raises:
            InputError: when there is none of that key.
        """
        return self._load_ids(self._ids_of(key))

    def _load_ids(self, ids: Sequence[int]) -> str:
        """Put a prompt into the session: as text where its text is read as just these tokens."""
        session = self._language_session()
        text = None if session.chat else as_text(session.model, ids)
        session.set_input(torch.tensor(ids) if text is None else text)
        return session.text if session.text is not None else self._joined(ids)

    def _ids_of(self, key: int) -> tuple[int, ...]:
        for (_, ids), known in list(self._keys.items()):
            if known == key:
                return ids
        msg = "There is no such prompt any more: it was found for another unit."
        raise InputError(msg)

    # --- what there is to draw --------------------------------------------------------------------

    def _activity(self) -> say.Activity | None:
        last = self._last_search
        if last is not None and last.status in {"running", "paused"}:
            return say.Activity(mode=_MODES[last.method], paused=last.status == "paused")
        return super()._activity()

    def _push_search_progress(self, search: Search) -> None:
        generation = search.generation
        if generation is None or not self._now_and_then(("progress", search.method), always=False):
            return
        done = generation.front.iteration
        progress = say.Progress(
            job=_MODES[search.method], done=done, total=max(search.iterations, done)
        )
        self._push(("progress", search.method), progress)

    def _push_front(self, *, always: bool = False) -> None:
        if self._shown and self._now_and_then("front", always=always):
            self._push("front", say.FrontUpdate(front=self._front_message()))

    def _front_message(self) -> say.Front | None:
        last, found = self._last_search, self._all_candidates()
        if last is None and not found:
            return None
        front = None if last is None or last.generation is None else last.generation.front
        return say.Front(
            objective=self._aim.text if last is None else last.objective.text,
            candidates=[self._candidate(*each) for each in found],
            method=None if last is None else last.method,
            status="done" if last is None else last.status,
            iteration=0 if front is None else front.iteration,
            iterations=0 if last is None else last.iterations,
            tried=0 if front is None else front.tokens_tried,
            seconds=0.0 if front is None else front.seconds,
            note="" if last is None else last.note or self._advice(last),
        )

    def _advice(self, search: Search) -> str:
        """What helps a search that is over and found less than the corpus has; mostly nothing."""
        if search.status == "running" or search.generation is None or search.method == "single":
            return ""
        objective, beside = self._beside.get("corpus", (None, []))
        best = search.generation.front.best
        if objective != search.objective or best is None or not beside:
            return ""
        strongest = max(each.activation for each in beside)
        if strongest <= best.activation or self._aim.dreaming.start == "examples":
            return ""
        return (
            f"An example of the corpus is stronger ({strongest:.3g}): a search that starts from "
            "examples (options) goes on from there."
        )

    def _all_candidates(self) -> "list[tuple[say.CandidateKind, Candidate, bool]]":
        """Every prompt that is known, by which way, and whether it is on that way's front."""
        found: list[tuple[say.CandidateKind, Candidate, bool]] = [
            (search.method, each, on_front)
            for search in list(self._searches.values())
            for each, on_front in _listed(search)
        ]
        last = self._last_search
        target = self._aim.objective if last is None else last.objective
        for kind, (objective, beside) in list(self._beside.items()):
            if objective == target:  # of another unit it is on another axis
                best = Archive()
                best.add(beside)
                found += [(kind, each, each in best.candidates) for each in beside]
        return found

    def _candidate(
        self,
        kind: say.CandidateKind,
        each: "Candidate",
        on_front: bool,  # noqa: FBT001
    ) -> say.Candidate:
        model = self._language_session().model
        shaded = self._shaded.get((kind, each.ids))
        return say.Candidate(
            key=self._key_of(kind, each),
            kind=kind,
            tokens=[say.TokenName(id=i, text=model.token_text(i)) for i in self._bare(each.ids)],
            text=self._joined(each.ids),
            activation=each.activation,
            cross_entropy=each.cross_entropy if math.isfinite(each.cross_entropy) else None,
            activations=None if shaded is None else shaded.numpy(),
            front=on_front,
        )

    def _key_of(self, kind: str, each: "Candidate") -> int:
        name = (kind, each.ids)
        known = self._keys.get(name)
        return self._keys.setdefault(name, next(self._next_candidate)) if known is None else known

    def _bare(self, ids: Sequence[int]) -> Sequence[int]:
        """The ids without a beginning-of-sequence token."""
        model = self._language_session().model
        return ids[1:] if model.bos_id is not None and ids[:1] == (model.bos_id,) else ids

    def _joined(self, ids: Sequence[int]) -> str:
        model = self._language_session().model
        return "".join(model.token_text(i) for i in self._bare(ids))


def _listed(search: Search) -> "list[tuple[Candidate, bool]]":
    """What is shown of a search, and whether it is on its front."""
    if search.generation is None:
        return []
    front = {each.ids for each in search.generation.front.candidates}
    found = search.candidates
    if search.whole is not None:
        found = _strongest(search, search.whole)
    return [(each, each.ids in front) for each in found]


def _strongest(search: Search, whole: SingleTokens) -> "list[Candidate]":
    """The strongest single tokens, and those of the front."""
    known = search.candidates
    before = known[0].ids[:-1] if known else ()
    strongest = [
        Candidate((*before, token), value, float(whole.cross_entropies[token]))
        for token, value in whole.top(_SINGLE_SHOWN)
    ]
    return list({each.ids: each for each in [*known, *strongest]}.values())


def _greedy(like: Evolution, options: dict[str, Any]) -> Greedy:
    """Greedy search under the same budget: as many swaps an iteration."""
    given: dict[str, Any] = {
        "length": like.length,
        "children": like.population * like.children,
        "top_k": like.top_k,
        "iterations": like.iterations,
        "seconds": like.seconds,
        "seed": like.seed,
        "tokens": like.tokens,
        **options,
    }
    return Greedy(**given)
