"""AttentionInspector: every head's pattern at a glance, one of them large, and knocked out by hand.

What it shares with other views on a session is in `stack_view.py`; what a pattern can be looked at
as in `looks.py`; how it becomes bytes in `tiles.py`; what a brush over it means in `knockouts.py`.
"""

import time
from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast, get_args

import numpy as np
import torch

from patchclamp.engine.hooks import first_layer
from patchclamp.errors import InputError, ModelError
from patchclamp.interventions import Knockout
from patchclamp.methods.alignment import by_position, by_tokens, paired
from patchclamp.methods.attention_value import why_no_contribution, why_no_values
from patchclamp.methods.composition import composition
from patchclamp.methods.head_scores import SCORES, HeadScores, head_effects, random_induction
from patchclamp.session import Change, Session
from patchclamp.sites import Site

from . import knockouts, rows, tiles
from . import messages as say
from .head_grid import HeadGrid, coarse, merged
from .looks import BASE, MODES, OTHER, Partners, Patterns, PatternView, Scene, Side
from .messages import TILE, Body, KnockoutHow, Look, MessageError, Mode, Score
from .stack_view import StackView
from .strip_view import NO_PREDICTION
from .view import Later, ShouldStop

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from patchclamp.engine.experiment import Experiment

Head = tuple[int, int]
"""A head: its layer and its number."""

NAMES: tuple[Score, ...] = get_args(Score)
_SAVED_TILES = 96 * 1024  # bytes of tiles of the locked head that a saved page may hold
_SCORES_EVERY = 0.3  # seconds
_OF_TWO: frozenset[Look] = frozenset({"second", "second-difference"})
# Jobs that answer one gesture at once: neither Stop nor another prompt ends them.
_ANSWERS = frozenset({"head", "tiles", "cell", "compose"})


class AttentionInspector(StackView, bundle="attention-inspector"):
    """Attention patterns of a live model: read them, find heads, compare, and knock them out.

    Args:
        model: a session; or a model, with a prompt, for which the view makes a session.
        prompt: a text or token ids, where a model is given.
        **options: of the session that is made, such as ``contrast`` (the second prompt).

    Raises:
        PatchclampError: when the prompt cannot be run, or the front end was not built.

    Patterns are computed when they are looked at, of queries and keys, a block of rows at a time.
    Measured at 2,048 tokens of SmolLM2 (30 layers of 9 heads, whose patterns are 4.5 GB): the run,
    all small patterns and all scores take 0.65 GiB more memory at the most, of which 0.55 GiB stay;
    knocking out a head, whose layer then needs its patterns whole, up to 1.35 GiB, of which
    0.85 GiB stay. What needs more than the engine's budget (1 GiB) for one layer is refused with
    the number.

    Example:
        >>> model = pc.load("smollm2")  # doctest: +SKIP
        >>> inspector = pc.AttentionInspector(model, "one two three one two")  # doctest: +SKIP
        >>> inspector.lock("L5.H3")  # doctest: +SKIP
        >>> inspector.knock_out("L5.H3[4<-2]")  # doctest: +SKIP
        0
    """

    def __init__(
        self,
        model: Session | Any,
        prompt: "str | torch.Tensor | None" = None,
        **options: Any,
    ) -> None:
        self._patterns = Patterns()
        self._locked: Head | None = None
        self._look: Look = "now"
        self._mode: Mode = "weight"
        self._alignment: tuple[Hashable, Partners] = (None, ())
        self._grids: dict[tuple[Look, str], HeadGrid] = {}
        self._scored: dict[str, _Scored] = {}
        self._effect: tuple[Hashable, NDArray[np.float32]] | None = None
        self._induction: tuple[Hashable, NDArray[np.float32]] | None = None
        self._saved: tuple[Hashable, say.HeadBody, list[say.TilesBody]] | None = None
        self._scores_said = 0.0
        self._reference_started = False
        super().__init__(model, prompt, **options)

    def close(self) -> None:
        """Take the view off its session and out of the notebook; its work stops."""
        was_open = not getattr(self, "_closed", True)
        super().close()
        if was_open:  # on the worker, behind what runs there still
            patterns = self._patterns
            self._session.submit(lambda _should_stop: patterns.forget())

    # --- the same gestures, from Python ----------------------------------------------------------

    @property
    def locked(self) -> str | None:
        """The address of the locked head, or None."""
        return None if self._locked is None else _address(self._locked)

    def lock(self, head: str | None) -> None:
        """Look at one head large, "L5.H3", or at none."""
        self._inspect(head=None if head is None else self._head(head), unlock=head is None)

    @property
    def look(self) -> Look:
        """Which pattern: "now", "before", "difference", "second", "second-difference". Settable."""
        return self._look

    @look.setter
    def look(self, look: Look) -> None:
        _one_of(look, get_args(Look), "look")
        self._inspect(look=look)

    @property
    def mode(self) -> Mode:
        """What a cell is: "weight", "value" (weighted) or "contribution". Settable."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        _one_of(mode, get_args(Mode), "mode")
        self._inspect(mode=mode)

    def knock_out(self, site: str, how: KnockoutHow = "renormalise") -> int | None:
        """Knock out a head, "L5.H3", or cells, "L5.H3[7<-2]", "L[3:9].H*[7:9<-0:2]".

        Just the same again takes it back.

        Args:
            site: where.
            how: "renormalise" (as a score of minus infinity does), "zero", or "contrast" (the
                weights of the second prompt).

        Returns:
            The new row's key; None when a knock-out was taken back.

        Raises:
            AddressError: when the model has no such head or cell.
            InterventionError: when its attention cannot be knocked out.
        """
        return self._knock(Knockout(self._site(site), how))

    def pattern(
        self, head: str, look: Look = "now", mode: Mode = "weight"
    ) -> "NDArray[np.float32]":
        """A head's pattern as it is, Float32[destination, source].

        Args:
            head: such as "L5.H3".
            look: of which run, or which difference; see `look`.
            mode: what a cell is; see `mode`.

        Raises:
            InputError: when there is no second prompt to look at.
            ModelError: when the model cannot be read in this mode.
        """
        where = self._head(head)
        _one_of(look, get_args(Look), "look")
        _one_of(mode, get_args(Mode), "mode")

        def job(_should_stop: ShouldStop) -> "NDArray[np.float32]":
            found = self._read(self._scene(), look, where, mode)
            return found.rows(0, found.length)

        found: NDArray[np.float32] = self._session.submit(job).result()
        return found

    @property
    def scores(self) -> "pd.DataFrame":
        """All heads' scores: layer, head, address, and one column a score.

        Of the patterns looked at; `effect` and `random_induction` are NaN until measured.
        """
        import pandas as pd

        self._session.submit(self._sweep_job(), priority="sweep").result()
        found = self._scores()
        values = np.asarray(found.values)
        layers, heads = np.indices(values.shape[1:]).reshape(2, -1)
        columns: dict[str, Any] = {"layer": layers, "head": heads}
        columns["address"] = [_address(each) for each in zip(layers, heads, strict=True)]
        columns |= {name: values[i].ravel() for i, name in enumerate(found.names)}
        return pd.DataFrame(columns)

    def measure(self, score: str) -> "pd.DataFrame":
        """Measure a score that costs runs of its own, "effect" or "random_induction".

        Returns:
            The table `scores`, with it.

        Raises:
            ModelError: when the model predicts no next token.
        """
        _one_of(score, ("effect", "random_induction"), "score")
        self._session.submit(self._assess_job(score), priority="sweep").result()
        return self.scores

    def composition(self, head: str) -> "pd.DataFrame":
        """Composition of a head with all others, minus that of random matrices of the same shapes.

        Returns:
            One other head a row: layer, head, address, q, k, v. With heads of earlier layers: how
            much this head's queries, keys and values read what they write; of later layers: how
            much theirs read what this one writes.
        """
        import pandas as pd

        body = self._session.submit(self._compose_job(*self._head(head))).result()
        parts = {name: np.asarray(getattr(body, name)) for name in ("q", "k", "v")}
        layers, heads = np.indices(parts["q"].shape).reshape(2, -1)
        columns: dict[str, Any] = {"layer": layers, "head": heads}
        columns["address"] = [_address(each) for each in zip(layers, heads, strict=True)]
        columns |= {name: part.ravel() for name, part in parts.items()}
        return (
            pd.DataFrame(columns).dropna(subset=["q", "k", "v"], how="all").reset_index(drop=True)
        )

    def compare(self, text: "str | torch.Tensor | None") -> None:
        """Look at a second prompt beside the first, the session's contrast; None takes it away."""
        self._session.contrast = text

    def align(
        self,
        by: str | None = None,
        pairs: "Iterable[tuple[int, int | None]]" = (),
    ) -> None:
        """Say which token of the second prompt stands for which of the first.

        Args:
            by: anew, by "position" or by "tokens" (the longest common run of them).
            pairs: then, one by one, a position of the prompt and its partner, or None for none.

        Raises:
            InputError: when there is no second prompt, no such position, or pairs would cross.
        """
        scene = self._scene()
        now, second = scene.now, scene.side("second")
        found = list(scene.partners)
        if by is not None:
            _one_of(by, ("position", "tokens"), "by")
            found = list(_partners(now, second, by))
        for position, partner in pairs:
            found = paired(found, position, partner, second=second.length)
        with self._lock:
            self._alignment = ((now.given, second.given), tuple(found))
        self._looked_at_else()

    def refresh(self) -> None:
        """Compute what the view shows now and wait for it; a page that is open gets it too."""
        super().refresh()
        self._session.submit(self._sweep_job(), priority="sweep").result()
        self._session.submit(self._save_job(), priority="sweep").result()

    # --- gestures from the page ------------------------------------------------------------------

    def _on_inspect(self, message: say.Inspect) -> None:
        head = None
        if message.head is not None:
            layer, number = message.head
            head = self._checked(layer, number)
        self._inspect(head=head, look=message.look, mode=message.mode)

    def _on_head(self, message: say.Head) -> Later:
        head = self._asked(message.layer, message.head, message.look)

        def job(should_stop: ShouldStop) -> Generator[None, None, say.HeadBody]:
            return (yield from self._head_body(self._scene(), head, message.look, should_stop))

        what = f"reading {_address(head)}"
        return self._answer_later(message.id, ("head", message.id), what, job)

    def _on_tiles(self, message: say.Tiles) -> Later:
        head = self._asked(message.layer, message.head, message.look)

        def job(_should_stop: ShouldStop) -> Generator[None, None, say.TilesBody]:
            places = [(row, column) for row, column in message.tiles]
            scene, mode = self._scene(), message.mode
            return (yield from self._tiles_body(scene, head, message.look, mode, places))

        what = f"reading tiles of {_address(head)}"
        return self._answer_later(message.id, ("tiles", message.id), what, job)

    def _on_cell(self, message: say.Cell) -> Later:
        head = self._asked(message.layer, message.head, message.look)

        def job(_should_stop: ShouldStop) -> say.CellBody:
            place = message.destination, message.source
            return self._cell_body(self._scene(), head, message.look, *place)

        what = f"reading a cell of {_address(head)}"
        return self._answer_later(message.id, ("cell", message.id), what, job)

    def _on_assess(self, message: say.Assess) -> None:
        if message.score == "effect" and not self._predicts:
            raise MessageError(NO_PREDICTION, field="score")
        self._stop_tasks(lambda name: name == ("assess", message.score))
        self._start(
            ("assess", message.score),
            "ablating every head" if message.score == "effect" else "running repeated tokens",
            self._assess_job(message.score),
            then=lambda _none: self._push_scores(),
            priority="sweep",
        )

    def _on_compose(self, message: say.Compose) -> Later:
        head = self._checked(message.layer, message.head)
        job = self._compose_job(*head)
        what = f"composing {_address(head)} with the others"
        return self._answer_later(message.id, ("compose", message.id), what, job)

    def _on_knock(self, message: say.Knock) -> Body:
        session = self._session
        made = knockouts.made(message, session.model.anatomy, len(session.ids))
        with rows.about("how"):
            return say.KnockBody(key=self._knock(made))

    def _on_second(self, message: say.Second) -> None:
        if message.text != self._session.contrast:
            with rows.about("text"):
                self.compare(message.text)

    def _on_align(self, message: say.Align) -> None:
        pairs: list[tuple[int, int | None]] = []
        if message.pair is not None:
            position, partner = message.pair
            if position is None:
                said = "A pair begins with a position of the prompt; null stands for no partner."
                raise MessageError(said, field="pair")
            pairs = [(position, partner)]
        with rows.about("by" if message.pair is None else "pair"):
            self.align(message.by, pairs)

    # --- what is looked at -----------------------------------------------------------------------

    def _inspect(
        self,
        *,
        head: Head | None = None,
        look: Look | None = None,
        mode: Mode | None = None,
        unlock: bool = False,
    ) -> None:
        """Look at something else; what is None stays. Changes nothing when it is refused."""
        if look is not None:
            with rows.about("look"):
                self._scene().stamp(look)
        refused = None if mode in {None, "weight"} else getattr(self._refusals(), str(mode))
        if refused is not None:
            raise MessageError(refused, field="mode")
        with self._lock:
            self._locked = head or (None if unlock else self._locked)
            self._look = look or self._look
            self._mode = mode or self._mode
        self._looked_at_else()
        if look is not None:
            self._push_grid(look)

    def _looked_at_else(self) -> None:
        self._push_attention()
        self._start_sweep()

    def _head(self, address: str) -> Head:
        site = self._session.model.anatomy.parse(address)
        if not isinstance(site, Site) or site.kind != "head" or site.layer is None:
            raise InputError(f"A head is wanted, such as L5.H3; {address!r} is none.")
        return site.layer, site.index or 0

    def _checked(self, layer: int, head: int) -> Head:
        anatomy = self._session.model.anatomy
        if layer >= anatomy.n_layers or head >= anatomy.n_heads:
            raise MessageError(
                f"There is no head L{layer}.H{head}: the model has {anatomy.n_layers} layers of "
                f"{anatomy.n_heads} heads, counted from 0.",
                field="layer" if layer >= anatomy.n_layers else "head",
            )
        return layer, head

    def _asked(self, layer: int, head: int, look: Look) -> Head:
        """The head of a request, when it and the pattern are there."""
        with rows.about("look"):
            self._scene().stamp(look)
        return self._checked(layer, head)

    def _scene(self) -> Scene:
        scene = Scene.of(self._session, self._aligned)
        if scene.second is None and self._look in _OF_TWO:  # it was taken away
            with self._lock:
                self._look = "now"
        return scene

    def _aligned(self, now: "Experiment", second: "Experiment | None") -> Partners:
        """The partners of an input's positions: those chosen, or a first guess."""
        if second is None:
            return ()
        pair = now.given, second.given
        with self._lock:
            if self._alignment[0] != pair:
                by = "position" if now.length == second.length else "tokens"
                self._alignment = (pair, _partners(now, second, by))
            return self._alignment[1]

    def _refusals(self) -> say.Refusals:
        model = self._session.model
        return say.Refusals(
            value=why_no_values(model),
            contribution=why_no_contribution(model),
            knockout=knockouts.refusal(model.anatomy),
            prediction=None if self._predicts else NO_PREDICTION,
        )

    def _modes(self) -> list[Mode]:
        """The modes that the model can be read in."""
        refusals = self._refusals()
        return [m for m in MODES if m == "weight" or getattr(refusals, m) is None]

    def _knock(self, knockout: Knockout) -> int | None:
        refused = knockouts.refusal(self._session.model.anatomy)
        if refused is not None:
            raise ModelError(refused)
        for key, iv in zip(self._session.keys, self._session.interventions, strict=True):
            if knockouts.same(iv, knockout):
                self._session.remove(key)
                return None
        key = self._session.add(knockout)
        self.select(key)
        return key

    # --- following the session -------------------------------------------------------------------

    def _changed(self, change: Change) -> None:
        # What is measured now is of patterns that are no more.
        self._stop_tasks(lambda name: name in {"grid", "picture", ("assess", "effect")})
        super()._changed(change)
        self._push_attention()
        self._push_scores()

    def _show_result(self, found: tuple[int, say.Result]) -> None:
        super()._show_result(found)
        self._start_sweep()

    def _is_of_the_prompt(self, name: Hashable) -> bool:
        return super()._is_of_the_prompt(name) and not _is_answer(name)

    def _is_long(self, name: Hashable) -> bool:
        return super()._is_long(name) and not _is_answer(name)

    def _start_sweep(self) -> None:
        """Measure what the grid, the scores and a saved page lack."""
        if not self._shown or self._closed:
            return
        self._stop_tasks(lambda name: name in {"grid", "picture"})
        self._start(
            "grid",
            "looking at all heads",
            self._sweep_job(),
            then=lambda _none: self._swept(),
            priority="sweep",
        )

    def _swept(self) -> None:
        self._push_scores()
        self._start(
            "picture",
            "reading the locked head",
            self._save_job(),
            then=lambda _none: None,
            priority="sweep",
        )
        # After the patterns: only a stack's sliders and effects need it.
        if self._session.interventions and not self._reference_started:
            self._reference_started = True
            self._start_reference()

    # --- on the worker ---------------------------------------------------------------------------

    def _read(self, scene: Scene, look: Look, head: Head, mode: Mode) -> PatternView:
        return self._patterns.view(scene, look, head, mode, self._targets(mode))

    def _targets(self, mode: Mode = "contribution") -> tuple[int, ...]:
        """The metric's tokens (the likeliest where it has none), where a mode needs them."""
        if mode != "contribution" or not self._predicts:
            return ()
        _, baseline, _, metric = self._consistent()
        return self._tokens(metric, baseline)

    def _sweep_job(self) -> Callable[[ShouldStop], Any]:
        def job(should_stop: ShouldStop) -> Generator[None, None, None]:
            scene, look = self._scene(), self._look
            base = self._grid(scene, BASE[look])
            grids = [base] if look == base.look else [base, self._grid(scene, look)]
            self._drop_old(scene)
            missing = [n for n in range(base.layers) if not all(grid.done[n] for grid in grids)]
            for done, layer in enumerate(missing, start=1):
                if not base.done[layer]:
                    yield from self._measure_layer(scene, base, layer, should_stop)
                if not grids[-1].done[layer]:
                    yield from self._difference_layer(scene, grids[-1], layer)
                self._push_grid(look, grids[-1].part([layer]))
                self._push_scores(often=False)
                progress = say.Progress(job="grid", done=done, total=len(missing))
                self._push(("progress", "grid"), progress)
                yield

        return job

    def _measure_layer(
        self, scene: Scene, grid: HeadGrid, layer: int, should_stop: ShouldStop
    ) -> Generator[None, None, None]:
        """Small patterns and scores of one layer of one run."""
        scored = self._scored[grid.stamp]
        side = cast("Side", grid.look)
        before = self._grids.get(("before", scene.stamps.before))
        if side == "now" and before is not None and before.done[layer] and _untouched(scene, layer):
            grid.copy(before, layer)
            scored.values[:, layer] = self._scored[before.stamp].values[:, layer]
            return
        attention = self._patterns.attention(scene, side)
        ids = torch.tensor(scene.side(side).given.ids)
        measured = HeadScores(ids, attention.n_heads, causal=attention.causal)
        for start, chunk in attention.chunks(layer, should_stop):
            measured.add(start, chunk)
            yield
        found = measured.result()
        for name in SCORES:
            scored.values[NAMES.index(name), layer] = found[name].cpu().numpy()
        grid.put(layer, measured.thumbs.cpu().numpy())

    def _difference_layer(
        self, scene: Scene, grid: HeadGrid, layer: int
    ) -> Generator[None, None, None]:
        thumbs = np.zeros((grid.heads, grid.size, grid.size), dtype=np.float32)
        same = grid.look == "difference" and _untouched(scene, layer)
        for head in range(0 if same else grid.heads):
            view = self._read(scene, grid.look, (layer, head), "weight")
            for start, cells in view.chunks(grid.block):
                known = view.known(start, start + len(cells))
                tiles.furthest(cells, known, start, grid.block, thumbs[head])
                yield
        grid.put(layer, thumbs)

    def _grid(self, scene: Scene, look: Look) -> HeadGrid:
        """The small patterns of a look, as many as are measured."""
        stamp = scene.stamp(look)
        anatomy = self._session.model.anatomy
        if look in BASE.values() and stamp not in self._scored:
            self._scored[stamp] = _Scored(anatomy.n_layers, anatomy.n_heads)
        if (look, stamp) not in self._grids:
            sizes = anatomy.n_layers, anatomy.n_heads, scene.length(look)
            self._grids[look, stamp] = HeadGrid(look, stamp, *sizes)
        return self._grids[look, stamp]

    def _drop_old(self, scene: Scene) -> None:
        """Forget what was measured of patterns that are no more."""
        stamps = {stamp for stamp in scene.stamps.model_dump().values() if stamp is not None}
        with self._lock:
            self._grids = {k: g for k, g in self._grids.items() if set(k[1].split("-")) <= stamps}
            self._scored = {stamp: s for stamp, s in self._scored.items() if stamp in stamps}

    def _head_body(
        self, scene: Scene, head: Head, look: Look, should_stop: ShouldStop
    ) -> Generator[None, None, say.HeadBody]:
        tokens = self._targets()
        peaks: dict[str, float | None] = {"weight": 0.0, "value": None, "contribution": None}
        factors: dict[str, tuple[Any, Any]] = {}
        direct = None
        nothing = np.zeros(0, dtype=np.float32)
        for mode in self._modes():
            view = self._patterns.view(scene, look, head, mode, tokens)
            peak = 0.0
            for _, cells in view.chunks():
                peak = max(peak, tiles.peak_of(cells))
                if should_stop():
                    break
                yield
            peaks[mode] = peak
            if look not in OTHER:
                factors[mode] = (view.base.columns, view.base.scale)
            if mode == "contribution":
                last = view.rows(view.length - 1, view.length)
                direct = _finite(float(last.astype(np.float64).sum()))
        columns, scale = factors.get("contribution", (nothing, nothing))
        return say.HeadBody(
            layer=head[0],
            head=head[1],
            look=look,
            stamp=scene.stamp(look),
            peaks=say.Peaks.model_validate(peaks),
            value=factors.get("value", (nothing, nothing))[0],
            contribution=columns,
            scale=scale,
            direct=direct,
        )

    def _tiles_body(
        self, scene: Scene, head: Head, look: Look, mode: Mode, places: Sequence[tuple[int, int]]
    ) -> Generator[None, None, say.TilesBody]:
        coding: say.Coding = "signed" if look in OTHER else "share"
        view = self._read(scene, look, head, mode if look in OTHER else "weight")
        length, causal = view.length, self._session.model.anatomy.causal
        for place in places:
            tiles.check(*place, length, causal=causal)
        found: dict[tuple[int, int], tuple[NDArray[np.uint8], float]] = {}
        for row in sorted({row for row, _ in places}):
            at = tiles.span(row, length)
            cells = view.rows(at.start, at.stop)
            for place in (p for p in places if p[0] == row):
                tile = cells[:, tiles.span(place[1], length)]
                triangle = causal and place[0] == place[1]
                found[place] = tiles.code_tile(tile, coding, triangle=triangle)
            yield
        return say.TilesBody(
            layer=head[0],
            head=head[1],
            look=look,
            mode=mode,
            stamp=scene.stamp(look),
            coding=coding,
            places=[list(place) for place in places],
            peaks=[found[place][1] for place in places],
            cells=np.concatenate([found[place][0] for place in places]),
        )

    def _cell_body(
        self, scene: Scene, head: Head, look: Look, destination: int, source: int
    ) -> say.CellBody:
        length = scene.length(look)
        _check_position(destination, length, "the prompt")
        _check_position(source, length, "the prompt")
        values: dict[str, Any] = dict.fromkeys(MODES)
        if source <= destination or not self._session.model.anatomy.causal:
            for mode in self._modes():
                cells = self._read(scene, look, head, mode).rows(destination, destination + 1)
                values[mode] = _finite(float(cells[0, source]))
        return say.CellBody(
            layer=head[0],
            head=head[1],
            look=look,
            stamp=scene.stamp(look),
            destination=destination,
            source=source,
            **values,
        )

    def _save_job(self) -> Callable[[ShouldStop], Any]:
        """Read what a saved page shows of the locked head."""

        def job(should_stop: ShouldStop) -> Generator[None, None, None]:
            scene, head, look, mode = self._scene(), self._locked, self._look, self._mode
            if head is None:
                return
            key = self._saved_key(scene, head, look, mode)
            if self._saved is not None and self._saved[0] == key:
                return
            body = yield from self._head_body(scene, head, look, should_stop)
            length, causal = scene.length(look), self._session.model.anatomy.causal
            places: list[tuple[int, int]] = []
            size = 0
            for place in tiles.places(length, causal=causal):
                size += TILE**2
                if size > _SAVED_TILES and places:
                    break
                places.append(place)
            part = yield from self._tiles_body(scene, head, look, mode, places)
            self._saved = (key, body, [part])
            self._rest_due.touch()

        return job

    def _saved_key(self, scene: Scene, head: Head, look: Look, mode: Mode) -> Hashable:
        return scene.stamp(look), head, look, mode if look in OTHER else "", self._session.metric

    def _assess_job(self, score: str) -> Callable[[ShouldStop], Any]:
        if score == "effect" and not self._predicts:
            raise ModelError(NO_PREDICTION)
        return self._effect_job if score == "effect" else self._induction_job

    def _effect_job(self, should_stop: ShouldStop) -> Generator[None, None, None]:
        _, experiment, metric, _ = self._stack()
        key = self._effect_key()
        measure = self._measuring(metric, self._session.baseline)
        for done, found in head_effects(experiment, measure=measure, should_stop=should_stop):
            self._effect = (key, found.cpu().numpy())
            self._push_scores(often=False)
            self._push_progress(done, found.numel())
            yield

    def _induction_job(self, should_stop: ShouldStop) -> Generator[None, None, None]:
        key = self._induction_key()
        self._push_progress(0, 1)
        yield
        found = random_induction(self._session.engine, should_stop=should_stop)
        self._induction = (key, found.cpu().numpy())
        self._push_progress(1, 1)

    def _push_progress(self, done: int, total: int) -> None:
        progress = say.Progress(job="scores", done=done, total=total)
        self._push(("progress", "scores"), progress)

    def _effect_key(self) -> Hashable:
        experiment = self._session.experiment
        parts = experiment.given, experiment.stack, experiment.context
        return parts, self._session.metric

    def _induction_key(self) -> Hashable:
        return self._session.model.weights_version

    def _compose_job(self, layer: int, head: int) -> Callable[[ShouldStop], Any]:
        def job(should_stop: ShouldStop) -> say.ComposeBody:
            found = composition(self._session.model, layer, head, should_stop=should_stop)
            return say.ComposeBody(
                layer=layer,
                head=head,
                q=found.q.float().cpu().numpy(),
                k=found.k.float().cpu().numpy(),
                v=found.v.float().cpu().numpy(),
                baseline=found.baseline,
            )

        return job

    # --- what there is to draw -------------------------------------------------------------------

    def _push_attention(self) -> None:
        attention = self._attention(self._scene())
        revision = self._session.revision
        self._push("attention", say.AttentionUpdate(revision=revision, attention=attention))

    def _push_grid(self, look: Look, part: say.GridPart | None = None) -> None:
        """Some layers of the grid, or all that are measured."""
        if part is None:
            grid = self._grids.get((look, self._scene().stamp(look)))
            part = None if grid is None else grid.part()
        if part is not None and look == self._look and part.layers:
            self._push(("grid", look), say.GridUpdate(part=part), merge=merged)

    def _push_scores(self, *, often: bool = True) -> None:
        now = time.monotonic()
        if often or now - self._scores_said >= _SCORES_EVERY:
            self._scores_said = now
            self._push("scores", say.ScoresUpdate(scores=self._scores()))

    def _scores(self) -> say.Scores:
        """All scores as far as they are measured, of the patterns looked at."""
        anatomy = self._session.model.anatomy
        stamp = self._scene().stamp(BASE[self._look])
        scored = self._scored.get(stamp) or _Scored(anatomy.n_layers, anatomy.n_heads)
        values = scored.values.copy()
        stale: list[Score] = []
        apart: list[tuple[Score, Any, Hashable]] = [
            ("effect", self._effect, self._effect_key()),
            ("random_induction", self._induction, self._induction_key()),
        ]
        for name, measured, key in apart:
            if measured is not None:
                values[NAMES.index(name)] = measured[1]
                if measured[0] != key:
                    stale.append(name)
        return say.Scores(names=list(NAMES), values=values, stamp=stamp, stale=stale)

    def _attention(self, scene: Scene) -> say.AttentionState:
        session = self._session
        anatomy = session.model.anatomy
        length = len(session.ids)
        outlines = [
            outline
            for key, iv in zip(session.keys, session.interventions, strict=False)
            for outline in knockouts.outlines(key, iv, anatomy, length)
        ]
        return say.AttentionState(
            layers=anatomy.n_layers,
            heads=anatomy.n_heads,
            causal=anatomy.causal,
            head=None if self._locked is None else list(self._locked),
            look=self._look,
            mode=self._mode,
            stamps=scene.stamps,
            acting=bool(scene.now.stack),
            knocked_out=outlines,
            second=self._second(scene),
            refusals=self._refusals(),
        )

    def _second(self, scene: Scene) -> say.SecondPrompt | None:
        if scene.second is None:
            return None
        given, model = scene.second.given, self._session.model
        text = self._session.contrast
        return say.SecondPrompt(
            text=text if isinstance(text, str) else None,
            tokens=[
                say.PromptToken(
                    position=i, id=token, text=model.token_text(token), bos=given.has_bos and i == 0
                )
                for i, token in enumerate(given.ids)
            ],
            partners=list(scene.partners),
        )

    def _everything(self) -> say.InspectorBody:
        self._follow_input()
        scene, state = self._scene(), self._state()
        result, effects = self._result, self._effects
        grid = self._grids.get((self._look, scene.stamp(self._look)))
        part = None if grid is None else grid.part()
        head: say.HeadBody | None = None
        parts: list[say.TilesBody] = []
        if self._locked is not None and self._saved is not None:
            key, body, found = self._saved
            if key == self._saved_key(scene, self._locked, self._look, self._mode):
                head, parts = body, found
        return say.InspectorBody(
            revision=scene.revision,
            state=state,
            result_revision=None if result is None else result[0],
            result=None if result is None else result[1],
            effects_revision=None if effects is None else effects[0],
            effects=[] if effects is None else effects[1],
            attention=self._attention(scene),
            grid=[part] if part is not None and part.layers else [],
            scores=self._scores(),
            head=head,
            tiles=parts,
        )

    def _cuts(self, hello: Any) -> list[tuple[str, dict[str, Any]]]:
        return [
            ("fine grid", {"grid": [coarse(part) for part in hello.grid]}),
            ("tiles", {"tiles": []}),
            ("grid", {"grid": []}),
            *super()._cuts(hello),
            ("head", {"head": None}),
        ]


class _Scored:
    """Scores of the heads of one run, as far as they are measured.

    Attributes:
        values: float32 [names, layers, heads]; NaN where nothing is.
    """

    def __init__(self, layers: int, heads: int) -> None:
        self.values = np.full((len(NAMES), layers, heads), np.nan, dtype=np.float32)


def _untouched(scene: Scene, layer: int) -> bool:
    """Whether the patterns of a layer are as they are without the stack."""
    anatomy = scene.now.engine.model.anatomy
    return all(layer < first_layer(iv, anatomy) for iv in scene.now.stack)


def _partners(now: "Experiment", second: "Experiment", by: str) -> Partners:
    if by == "position":
        return tuple(by_position(now.length, second.length))
    return tuple(by_tokens(now.given.ids, second.given.ids))


def _check_position(position: int, length: int, whose: str) -> None:
    if not 0 <= position < length:
        raise InputError(
            f"There is no position {position}: {whose} has {length} tokens, 0 to {length - 1}."
        )


def _one_of(value: object, choices: Sequence[str], what: str) -> None:
    if value not in choices:
        raise InputError(f"There is no {what} {value!r}; there are {', '.join(choices)}.")


def _address(head: Head) -> str:
    return f"L{head[0]}.H{head[1]}"


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _is_answer(name: Hashable) -> bool:
    return isinstance(name, tuple) and name[0] in _ANSWERS
