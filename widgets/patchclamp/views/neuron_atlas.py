"""NeuronAtlas: every neuron of a model, found by what it writes, reads and does.

The table is in `atlas_table.py`, one neuron's card in `atlas_card.py`, the scatter plot in
`atlas_chart.py`. Here they are tied to an atlas, to the session, and to each other.
"""

import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
import traitlets
from ipywidgets import Widget, widget_serialization

from patchclamp.atlas.atlas import Atlas
from patchclamp.atlas.build import Plan, Progress, Reading, build, plan_of
from patchclamp.corpora.english import texts as english_texts
from patchclamp.engine.surroundings import input_of
from patchclamp.errors import AddressError, AtlasError, InputError
from patchclamp.methods.decoded_weights import Decoder
from patchclamp.methods.massive import massive_neurons, neuron_hooks
from patchclamp.methods.token_effect import CONTROLS, TokenEffect, random_neurons, token_effect
from patchclamp.session import Change, Session
from patchclamp.sites import Site

from . import messages as say
from . import rows
from .atlas_card import card
from .atlas_chart import MARKED, AtlasChart, drawable
from .atlas_table import Brush, Sifting, Table, sift, usual
from .messages import AtlasMatrix, Body
from .neuron_clamp import NeuronClamp
from .view import Later, ShouldStop, View, _weakly

if TYPE_CHECKING:
    import os

    import pandas as pd

    from patchclamp.engine.plan import Input
    from patchclamp.models.language_model import LanguageModel

FIRST_ROWS = 60
PROMPTS = 8
"""Prompts, the session's own and some of its reference set, that a clamp is measured on."""
_FIRST_PROMPT = "Hello"
_TIMES_PEAK = 2.0
_WITHOUT_PEAK = 10.0
NO_ATLAS = "There is no atlas yet: build one first (view.build(), or the button)."


class NeuronAtlas(View, bundle="neuron-atlas"):
    """A table of all neurons of a language model, with a card for each.

    Args:
        model: a session; or a model, for which the view makes a session.
        atlas: an atlas of this model, or the folder of one; None looks into ``folder``.
        prompt: what the session begins with, where it is made here.
        texts: the corpus that :meth:`build` reads; by default what comes with the package.
        folder: where :meth:`build` puts the atlas.
        labels: one for each text.
        reading: how the corpus is read.
        decode: which matrices are decoded; None is all there are.

    Raises:
        PatchclampError: when the model has no neurons, the atlas is of another model, or the front
            end was not built.

    Example:
        >>> view = pc.NeuronAtlas(pc.load("smollm2"), folder="smollm2-atlas")  # doctest: +SKIP
        >>> view.build()  # doctest: +SKIP
        >>> view.sift(token="dog").head()  # doctest: +SKIP
    """

    chart = traitlets.Instance(Widget, allow_none=True).tag(sync=True, **widget_serialization)
    """Altair's widget, which the page puts into its place."""
    clamp = traitlets.Instance(Widget, allow_none=True).tag(sync=True, **widget_serialization)
    """A NeuronClamp on the same session, once a neuron is held."""

    _session: Session

    def __init__(
        self,
        model: "Session | LanguageModel | Any",
        atlas: "Atlas | str | os.PathLike[str] | None" = None,
        *,
        prompt: "str | torch.Tensor | None" = None,
        texts: Iterable[str] | None = None,
        folder: "str | os.PathLike[str] | None" = None,
        labels: Sequence[str] | None = None,
        reading: Reading | None = None,
        decode: Sequence[AtlasMatrix] | None = None,
    ) -> None:
        session = model if isinstance(model, Session) else Session(model, prompt or _FIRST_PROMPT)
        self._decoder = Decoder(session.model)
        self._folder = Path(folder or f"atlas-{session.model.name}")
        self._texts, self._labels, self._reading = texts, labels, reading
        self._decode = decode
        self._atlas: Atlas | None = None
        self._table: Table | None = None
        self._card: say.Card | None = None
        self._weighed: say.WeighBody | None = None
        self._selected: str | None = None
        self._plot: AtlasChart | None = None
        self._words: list[str] = []
        if isinstance(atlas, Atlas):
            atlas.manifest.check_model(session.model)
        elif atlas is not None:
            atlas = Atlas(atlas, session.model)
        elif (self._folder / "neurons.parquet").is_file():
            atlas = Atlas(self._folder, session.model)
        super().__init__(session)
        if atlas is not None:
            self._open(atlas)

    # --- the same gestures, from Python -----------------------------------------------------------

    @property
    def session(self) -> Session:
        """What the view looks at."""
        return self._session

    @property
    def atlas(self) -> Atlas:
        """The atlas.

        Raises:
            AtlasError: when there is none yet.
        """
        if self._atlas is None:
            raise AtlasError(NO_ATLAS)
        return self._atlas

    def build(self, *, wait: bool = True) -> None:
        """Build the atlas, or go on with one that was stopped.

        Args:
            wait: until it is there; otherwise the view shows how far it is.

        Raises:
            PatchclampError: when it cannot be built.
        """
        plan = self._plan()
        task = self._start(
            "atlas",
            "building the atlas",
            self._build_job(plan),
            then=lambda _none: self._open(Atlas(plan.folder, self._session.model)),
            priority="sweep",
        )
        if wait:
            task.result()

    def sift(
        self,
        token: str = "",
        *,
        matrix: AtlasMatrix = "down",
        layers: tuple[int, int] | None = None,
        least: float | None = None,
        order: say.AtlasColumn | None = None,
        falling: bool = True,
    ) -> "pd.DataFrame":
        """Show these neurons only, in this order.

        Args:
            token: text of a token that stands out of the matrix, whatever its case and spaces.
            matrix: which matrix scores and tokens are of.
            layers: first and last layer.
            least: how special a neuron is at least.
            order: what is sorted by; by default how far the token stands out, or the score.
            falling: the largest first.

        Returns:
            The atlas's rows of these neurons, in this order; with ``z`` where a token is searched.

        Raises:
            InputError: when there is no such token, or the atlas does not hold what is asked for.
        """
        order = order or ("z" if token else "score")
        asked = Sifting(token, matrix, layers, least, None, order, falling)
        table: Table = self._session.submit(lambda _stop: self._sifted(asked)).result()
        self._show_table(table)
        found = self.atlas.neurons.iloc[table.order]
        return found if table.z is None else found.assign(z=table.z[table.order])

    def meet(self, address: str | None) -> None:
        """Show a neuron's card, or none.

        Raises:
            AddressError: when there is no such neuron.
        """
        if address is None:
            self._show_card(None)
        else:
            place = self._place(address)
            self._show_card(self._session.submit(lambda _stop: self._card_of(place)).result())
        self._push_card()

    def weigh(self, address: str, token: "str | int | None" = None) -> "pd.DataFrame":
        """Clamp a neuron up and down and see what that does to a token, beside random neurons.

        Args:
            address: the neuron.
            token: the token; by default the one that stands out most of what it writes.

        Returns:
            One neuron a row: address, up, down (nats), control.
        """
        import pandas as pd

        place = self._place(address)
        if token is None:
            known = self._need().neurons
            side = "down_token"
            if side not in known:
                msg = "Name a token: this atlas has no decoded weights to choose one from."
                raise InputError(msg)
            ident = self._foremost(place)
        else:
            ident = self._session.model.token_id(token)
        body: say.WeighBody = self._session.submit(self._weigh_job(place, ident)).result()
        self._weighed = body
        self._push_card()
        each = [(body.neuron, False), *((other, True) for other in body.controls)]
        return pd.DataFrame([{**one.model_dump(), "control": control} for one, control in each])

    def hold(self, address: str) -> NeuronClamp:
        """Put a neuron into the session's stack, and show a NeuronClamp of it under the card."""
        place = self._place(address)
        site = str(self._need().neurons["address"].iloc[place])
        shown = self.clamp
        if not isinstance(shown, NeuronClamp) or shown.comm is None:  # closed
            shown = NeuronClamp(self._session)
        shown.add(site)
        self.clamp = shown
        self._push_state()
        return shown

    def close(self) -> None:
        """Take the view off its session and out of the notebook; its work stops."""
        for child in (getattr(self, "_plot", None), self.clamp):
            if child is not None:
                child.close()
        super().close()

    # --- gestures from the page -------------------------------------------------------------------

    def _on_build(self, _message: say.Build) -> None:
        self.build(wait=False)

    def _on_sift(self, message: say.Sift) -> None:
        old = self._need().sifting
        brush = old.brush if message.brushed else None
        if not message.brushed and self._plot is not None:
            self._plot.clear()
        layers = None if message.layers is None else (message.layers[0], message.layers[1])
        self._sift_soon(
            Sifting(
                message.token.strip(),
                message.matrix,
                layers,
                message.least,
                brush,
                message.order,
                message.falling,
            )
        )

    def _on_page(self, message: say.Page) -> Body:
        table = self._need()
        return say.PageBody(
            table=table.number, start=message.start, rows=table.page(message.start, message.count)
        )

    def _on_meet(self, message: say.Meet) -> Body | Later:
        if message.address is None:
            self._show_card(None)
            return say.CardBody(card=None)
        with rows.about("address"):
            place = self._place(message.address)

        def job(_stop: ShouldStop) -> say.CardBody:
            found = self._card_of(place)
            self._show_card(found)
            return say.CardBody(card=found)

        return self._answer_later(message.id, "meet", f"looking up {message.address}", job)

    def _on_shade(self, message: say.Shade) -> Later:
        with rows.about("address"):
            place = self._place(message.address)
        return self._answer_later(
            message.id,
            "shade",
            f"reading {message.address} around an example",
            lambda stop: self._shaded(place, message.place, stop),
        )

    def _on_weigh(self, message: say.Weigh) -> Later:
        with rows.about("address"):
            place = self._place(message.address)
        with rows.about("token"):
            token = self._session.model.token_id(message.token)
        job = self._weigh_job(place, token)

        def kept(stop: ShouldStop) -> Generator[None, None, say.WeighBody]:
            self._weighed = body = yield from job(stop)
            return body

        return self._answer_later(message.id, "weigh", f"clamping {message.address}", kept)

    def _on_hold(self, message: say.Hold) -> None:
        with rows.about("address"):
            self.hold(message.address)

    # --- following the session --------------------------------------------------------------------

    def _wake(self) -> None:
        self._make_chart()

    def _changed(self, change: Change) -> None:
        del change
        self._push_state()

    def refresh(self) -> None:
        """Nothing is left to be computed: what is shown is in the atlas."""

    # --- the atlas --------------------------------------------------------------------------------

    def _plan(self) -> Plan:
        texts = english_texts() if self._texts is None else self._texts
        reading = self._reading
        if self._texts is None and reading is None:
            reading = Reading(name="English texts that come with patchclamp")
        return plan_of(
            self._session.model,
            texts,
            self._folder,
            labels=self._labels,
            reading=reading,
            decode=self._decode,
        )

    def _build_job(self, plan: Plan) -> Callable[[ShouldStop], Any]:
        def tell(progress: Progress) -> None:
            if self._now_and_then("atlas", always=progress.done == progress.total):
                said = say.Progress(job="atlas", done=progress.done, total=progress.total)
                self._push(("progress", "atlas"), said)

        return lambda stop: build(self._session.engine, plan, stop, tell)

    def _open(self, atlas: Atlas) -> None:
        self._atlas = atlas
        self._show_table(sift(atlas.neurons, usual(atlas.neurons), None, self._next_table()))
        if self._shown:
            self._make_chart()

    def _need(self) -> Table:
        if self._table is None:
            raise AtlasError(NO_ATLAS)
        return self._table

    def _place(self, address: str) -> int:
        table, site = self._need(), Site.parse(address)
        place = table.place(site.address) if site.kind == "neuron" else None
        if place is None:
            known = table.neurons["address"]
            msg = (
                f"There is no neuron {address} in this atlas: it has {known.iloc[0]} to "
                f"{known.iloc[-1]}."
            )
            raise AddressError(msg)
        return place

    # --- the table --------------------------------------------------------------------------------

    def _next_table(self) -> int:
        return 0 if self._table is None else self._table.number + 1

    def _sift_soon(self, asked: Sifting) -> None:
        self._start("sift", "sifting", lambda _stop: self._sifted(asked), then=self._show_table)

    def _sifted(self, asked: Sifting) -> Table:
        """Sift on the worker, where weights can be read."""
        known = self._need().neurons
        z = self._standing_out(asked.token, asked.matrix) if asked.token else None
        return sift(known, asked, z, self._next_table())

    def _standing_out(self, text: str, matrix: AtlasMatrix) -> np.ndarray:
        """How far a token stands out of each neuron; of several spellings the farthest."""
        model, decoder = self._session.model, self._decoder
        if not self._words:
            self._words = [model.token_text(token) for token in range(model.anatomy.d_vocab)]
        if matrix not in decoder.matrices:
            msg = f"{model.name} has the matrices {', '.join(decoder.matrices)}, not {matrix!r}."
            raise InputError(msg)
        wanted = text.strip().casefold()
        spelled = [
            token for token, word in enumerate(self._words) if word.strip().casefold() == wanted
        ]
        if not spelled:
            near = [word for word in self._words if wanted in word.casefold()][:5]
            like = f" There are {', '.join(map(repr, near))}." if near else ""
            msg = f"No token of {model.name} reads {text!r}, which must be one token.{like}"
            raise InputError(msg)
        each = np.stack([torch.cat(decoder.of_token(t, matrix)).numpy() for t in spelled])
        farthest = np.abs(each).argmax(0)
        found: np.ndarray = np.take_along_axis(each, farthest[None], 0)[0]
        return found

    def _show_table(self, table: Table) -> None:
        self._table = replace(table, number=self._next_table())
        self._push_state()
        self._mark()

    # --- the card ---------------------------------------------------------------------------------

    def _card_of(self, place: int) -> say.Card:
        return card(self.atlas, self._session.model, self._need(), place)

    def _show_card(self, found: say.Card | None) -> None:
        address = None if found is None else found.row.address
        if address != self._selected:
            self._weighed = None
        self._card, self._selected = found, address
        self._push_state()
        self._mark()

    def _shaded(self, place: int, token_place: int, stop: ShouldStop) -> say.ShadeBody:
        """Run an example's window and read the neuron at each of its tokens.

        Tokens that are parts of one character are one, with the example's own value or else the
        largest of theirs.
        """
        session, known = self._session, self._need().neurons
        layer, index = int(known["layer"].iloc[place]), int(known["index"].iloc[place])
        window = self.atlas.query(
            'SELECT place, token, text FROM tokens WHERE "window" = '
            '(SELECT "window" FROM tokens WHERE place = $place) ORDER BY place',
            place=token_place,
        )
        if window.empty:
            msg = f"The corpus has no token at place {token_place}."
            raise InputError(msg)
        ids = [int(token) for token in window["token"]]
        bos = session.model.bos_id if session.model.anatomy.causal else None
        front = [] if bos is None else [bos]
        given = input_of(session.model, torch.tensor([*front, *ids]))
        hook = session.model.anatomy.hook(Site("neuron", layer, index, "post"))
        found = session.engine.capture_many([given], [hook], should_stop=stop)[0][hook]
        values = found[len(front) :, index].float().cpu().numpy().astype(np.float32)
        texts = [str(text) for text in window["text"]]
        at = token_place - int(window["place"].iloc[0])
        starts = [n for n, text in enumerate(texts) if n == 0 or text]
        ends = [*starts[1:], len(texts)]
        shown = [
            at if a <= at < b else a + int(np.abs(values[a:b]).argmax())
            for a, b in zip(starts, ends, strict=True)
        ]
        return say.ShadeBody(
            address=f"L{layer}.N{index}",
            place=token_place,
            tokens=[say.TokenName(id=ids[n], text=texts[n]) for n in starts],
            values=values[shown],
            at=shown.index(at),
        )

    def _foremost(self, place: int) -> int:
        known = self._need().neurons
        found = self.atlas.decoded(str(known["address"].iloc[place]))
        written = found[found["matrix"] == "down"]
        farthest = int(written["z"].abs().to_numpy().argmax())
        return int(written["token"].to_numpy()[farthest])

    def _weigh_job(
        self, place: int, token: int
    ) -> Callable[[ShouldStop], Generator[None, None, say.WeighBody]]:
        session, known = self._session, self._need().neurons
        layer, index = int(known["layer"].iloc[place]), int(known["index"].iloc[place])
        peak = float(known["peak"].iloc[place]) if "peak" in known else 0.0
        size = _TIMES_PEAK * peak if peak > 0 else _WITHOUT_PEAK

        def job(stop: ShouldStop) -> Generator[None, None, say.WeighBody]:
            engine, model = session.engine, session.model
            reference = session.reference
            for _ in reference.measure(list(neuron_hooks(model.anatomy).values()), stop):
                yield
            apart = {*massive_neurons(reference, model.anatomy, stop), (layer, index)}
            beside = random_neurons(engine, layer, CONTROLS, seed=0, apart=apart)
            # Up is where its output vector raises the token, whatever the sign of that.
            z = float(self._decoder.of_token(token)[self._decoder.layers.index(layer)][index])
            value = size if z >= 0 else -size
            steps = token_effect(
                engine, self._prompts(), [(layer, index), *beside], token, value, should_stop=stop
            )
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    found: list[TokenEffect] = end.value
                    break
                yield
            return say.WeighBody(
                token=model.token_text(token),
                neuron=_weighed(found[0]),
                controls=[_weighed(each) for each in found[1:]],
                value=value,
                prompts=len(self._prompts()),
                note="" if peak > 0 else f"Clamped to {size:g}: no corpus says what is usual.",
            )

        return job

    def _prompts(self) -> "list[Input]":
        """The session's prompt and some of its reference set."""
        own = self._session.experiment.given
        others = [one for one in self._session.reference.inputs if one.ids != own.ids]
        return [own, *others[: PROMPTS - 1]]

    # --- the plot ---------------------------------------------------------------------------------

    def _make_chart(self) -> None:
        """Make the scatter plot beside everything else: bundling Vega takes seconds."""
        table = self._table
        if table is None or self._plot is not None:
            return
        if drawable(table.neurons, table.sifting.matrix):
            made = threading.Thread(
                target=_weakly(self._plot_now), args=(table,), name="patchclamp chart", daemon=True
            )
            made.start()

    def _plot_now(self, table: Table) -> None:
        plot = AtlasChart(table.neurons, table.sifting.matrix, _weakly(self._brush))
        if self._closed:
            plot.close()
            return
        self._plot = plot
        self.chart = plot.widget
        self._mark()
        self._work_changed(self._rest_due)

    def _brush(self, brush: Brush | None) -> None:
        table = self._table
        if table is not None and table.sifting.brush != brush and not self._closed:
            self._sift_soon(replace(table.sifting, brush=brush))

    def _mark(self) -> None:
        """Ring in the plot what is chosen, or what a search found."""
        plot, table = self._plot, self._table
        if plot is None or table is None:
            return
        if self._selected is not None:
            plot.mark([self._selected])
        elif table.z is not None:
            found = table.order[:MARKED]
            plot.mark(table.neurons["address"].iloc[found].tolist())
        else:
            plot.mark([])

    # --- what there is to draw --------------------------------------------------------------------

    def _push_state(self) -> None:
        revision = self._session.revision
        self._push("state", say.AtlasUpdate(revision=revision, state=self._state()))

    def _push_card(self) -> None:
        """Say what the page did not ask for."""
        weighed, shown = self._weighed, self._selected
        here = weighed is not None and weighed.neuron.address == shown
        self._push("card", say.CardUpdate(card=self._card, weighed=weighed if here else None))

    def _state(self) -> say.AtlasState:
        session, table = self._session, self._table
        model = session.model
        return say.AtlasState(
            model=model.name,
            device=str(model.device),
            dtype=str(model.dtype).removeprefix("torch."),
            atlas=None if self._atlas is None else self._summary(self._atlas),
            plan=self._plan_in_words(),
            sifted=(Sifting() if table is None else table.sifting).message(),
            table=0 if table is None else table.number,
            count=0 if table is None else len(table.order),
            selected=self._selected,
            held=self.clamp is not None and self.clamp.comm is not None,
            prompt=session.text,
            can_undo=session.can_undo,
            can_redo=session.can_redo,
            notes=[model.note] if model.note else [],
        )

    def _plan_in_words(self) -> str:
        model = self._session.model
        neurons = sum(model.anatomy.n_neurons(layer) for layer in self._decoder.layers)
        matrices = self._decode or self._decoder.matrices
        corpus = (
            "the English texts that come with patchclamp" if self._texts is None else "the texts"
        )
        decoded = f", and decodes {' and '.join(matrices)}" if matrices else ""
        return (
            f"Reads {corpus} once with all {neurons:,} neurons{decoded}; it goes into "
            f"{self._folder} and can be stopped and gone on with."
        )

    def _summary(self, atlas: Atlas) -> say.AtlasSummary:
        m = atlas.manifest
        labels = (
            atlas.query("SELECT DISTINCT label FROM labels ORDER BY label")["label"].tolist()
            if ("labels" in atlas.tables)
            else []
        )
        return say.AtlasSummary(
            folder=str(atlas.folder),
            model=m.model,
            neurons=len(atlas.neurons),
            layers=self._session.model.anatomy.n_layers,
            corpus=m.corpus_name or ("a corpus" if m.corpus else ""),
            tokens=m.tokens,
            texts=m.texts,
            split=m.split,
            matrices=[name for name in get_args(AtlasMatrix) if name in m.decoded],
            labels=labels,
        )

    def _everything(self) -> say.AtlasBody:
        table = self._table
        return say.AtlasBody(
            revision=self._session.revision,
            state=self._state(),
            start=0,
            rows=[] if table is None else table.page(0, FIRST_ROWS),
            card=self._card,
            weighed=self._weighed,
            scatter=None,
        )

    def _to_save(self) -> say.AtlasBody:
        found = self._everything()
        if self._plot is None:
            return found
        return found.model_copy(update={"scatter": self._plot.png()})

    def _cuts(self, hello: say.AtlasBody) -> list[tuple[str, dict[str, Any]]]:
        return [("scatter", {"scatter": None}), ("rows", {"rows": hello.rows[:20]})]


def _weighed(effect: TokenEffect) -> say.Weighed:
    return say.Weighed(address=effect.address, up=effect.up, down=effect.down)
