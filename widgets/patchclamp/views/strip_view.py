"""The strip of a session's stack of interventions, the same in every view that has it.

Every gesture is a method here too, and both take the same way through the session, so that a
notebook can do by code what a hand does by mouse, and the other way round.
"""

from abc import abstractmethod
from collections.abc import Callable, Generator, Hashable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from patchclamp.errors import InterventionError, ModelError, PatchclampError, Stopped
from patchclamp.interventions import SCALARS
from patchclamp.methods.effect import effects
from patchclamp.methods.massive import massive_neurons, neuron_hooks
from patchclamp.methods.metric import Measure, Metric, bind
from patchclamp.session import Session
from patchclamp.sites import Positions, Site, SiteSet

from . import messages as say
from . import rows
from .messages import Body, Operation, Range
from .pace import Settled
from .view import LATER, Later, Observable, ShouldStop, View, _weakly

if TYPE_CHECKING:
    import pandas as pd

    from patchclamp.engine.experiment import Experiment, Run
    from patchclamp.interventions import Intervention

NO_PREDICTION = (
    "This model is an encoder: it reads the whole text at once and predicts no next token, so "
    "there is no metric of the prediction."
)
_SETTLED_AFTER = 0.2  # seconds without a change until the controls are measured


class StripView(View):
    """A view with the strip of a session's stack: its rows, and what each does to the metric.

    What else it shows, and how it is told, is the business of who inherits it.

    Args:
        session: what it looks at; one of a module has no stack.
        given: the prompt that is measured on; None where there is no stack.
    """

    def __init__(self, session: Observable, given: Hashable) -> None:
        self._selected: int | None = None
        self._soloed: tuple[int, dict[int, bool]] | None = None
        self._massive: frozenset[tuple[int, int]] | None = None
        self._forget(given)
        self._settled = Settled(_SETTLED_AFTER, _weakly(self._measure_effects))
        super().__init__(session)

    def _forget(self, given: Hashable) -> None:
        """Drop what was measured on another prompt."""
        self._given = given
        self._likeliest: int | None = None
        self._measured: dict[str, rows.Measured] = {}
        self._unmeasurable: set[str] = set()
        self._spans: dict[int, tuple[str, Range | None]] = {}
        self._effects: tuple[int, list[say.Effect]] | None = None

    @property
    @abstractmethod
    def _stacked(self) -> Session:
        """The session whose stack it is.

        Raises:
            ModelError: where there is none.
        """

    def close(self) -> None:
        """Take the view off its session and out of the notebook; its work stops."""
        if hasattr(self, "_settled"):
            self._settled.close()
        super().close()

    # --- the same gestures, from Python -----------------------------------------------------------

    @property
    def interventions(self) -> "tuple[Intervention, ...]":
        """The session's stack. Settable."""
        return self._stacked.interventions

    @interventions.setter
    def interventions(self, stack: "Sequence[Intervention]") -> None:
        self._stacked.interventions = tuple(stack)

    @property
    def selected(self) -> str | None:
        """The address (with positions) of the selected row, or None."""
        keys = self._stacked.keys
        if self._selected not in keys:
            return None
        return str(self._stacked.interventions[keys.index(self._selected)].site)

    def add(self, address: str, op: Operation = "set", value: float | None = None) -> int:
        """Put a neuron (a direction, a head, ...) at the end of the stack and select it.

        Without a value nothing changes yet: a neuron is set to what it has on the prompt, at the
        last token if no positions are named, because one number cannot be what it has at several.
        An address that has a row already is only selected.

        Args:
            address: such as "L12.N304" or "L12.N304@-1".
            op: "set", "add", "scale" or "ablate".
            value: in raw units.

        Returns:
            The row's key.

        Raises:
            AddressError: when the model has no such site.
            InterventionError: when the site cannot take the operation or the value.
        """
        site = self._site(address)
        key = self._existing(site, address)
        if key is None:
            site = _placed(site, op, value)
            if self._needs_measuring(site, op, value):
                self._measure(site, self._stacked.baseline)
            key = self._put(site, op, value)
        self.select(key)
        return key

    def select(self, row: int | str | None) -> None:
        """Select a row, by key or address, or none."""
        self._selected = None if row is None else self._key(row)
        if self._shown:
            self._push_state()

    def set_value(self, row: int | str, value: float) -> None:
        """Give a row another value, in raw units."""
        key = self._key(row)
        self._stacked.edit(key, self._stacked.intervention(key).with_value(value))

    def set_positions(self, row: int | str, positions: str) -> None:
        """Put a row at other positions: "", "-1", "all", "3,5", "0:4"."""
        key = self._key(row)
        old = self._stacked.intervention(key)
        self._stacked.edit(key, old.replace(site=old.site.at(positions)))

    def mute(self, row: int | str, muted: bool = True) -> None:  # noqa: FBT001, FBT002
        """Switch a row off, or on again."""
        key = self._key(row)
        self._stacked.edit(key, self._stacked.intervention(key).replace(muted=muted))

    def solo(self, row: int | str) -> None:
        """Mute all rows but one; the same again gives the others back what they had.

        One step of undo.
        """
        key = self._key(row)
        session = self._stacked
        muted = {k: iv.muted for k, iv in zip(session.keys, session.interventions, strict=True)}
        alone = {k: k != key for k in muted}
        if self._soloed is not None and self._soloed[0] == key and muted == alone:
            before = self._soloed[1]
            wanted = {k: before.get(k, False) for k in muted}
            self._soloed = None
        else:
            wanted = alone
            self._soloed = (key, muted)
        gesture = ("solo", id(self), self._next_gesture())
        for k, is_muted in wanted.items():
            session.edit(k, session.intervention(k).replace(muted=is_muted), coalesce=gesture)
        self._next_gesture()

    def remove(self, row: int | str) -> None:
        """Take a row out."""
        self._stacked.remove(self._key(row))

    def move(self, row: int | str, index: int) -> None:
        """Put a row at another place of the stack, counted from 0."""
        self._stacked.move(self._key(row), index)

    def reset(self) -> None:
        """Empty the stack; undo brings it back."""
        self._stacked.reset()

    @property
    def effects(self) -> "pd.DataFrame":
        """What each row does to the metric, beside its random control; measured if need be.

        One row that is not muted a line: address, op, value, effect (metric with the whole stack
        minus without this row, in its unit), control_median, control_low, control_high, seeds.

        Raises:
            ModelError: when the model predicts no next token.
        """
        import pandas as pd

        if not self._predicts:
            raise ModelError(NO_PREDICTION)

        if self._effects is None or self._effects[0] != self._stacked.revision:
            self._stacked.submit(self._effects_job(), priority="sweep").result()
        found = {} if self._effects is None else {e.key: e for e in self._effects[1]}
        columns = ["address", "op", "value", "effect", "control_median", "control_low"]
        lines = []
        stack = zip(self._stacked.keys, self._stacked.interventions, strict=True)
        for effect, iv in ((found[key], iv) for key, iv in stack if key in found):
            control = effect.control
            line: list[object] = [str(iv.site), rows.operation(iv), iv.value, effect.effect]
            line += (
                [None] * 4
                if control is None
                else [control.median, control.low, control.high, control.seeds]
            )
            lines.append(line)
        return pd.DataFrame(lines, columns=[*columns, "control_high", "seeds"])

    # --- gestures from the page -------------------------------------------------------------------

    def _on_edit(self, message: say.Edit) -> None:
        with rows.about("key"):
            old = self._stacked.intervention(message.key)
        new = rows.edited(old, message, self._measured.get(rows.address_of(old.site)))
        if new.site != old.site:
            with rows.about("positions"):
                self._check(new.site)
        if new != old:
            gesture = ("edit", id(self), message.key, self._gesture)
            self._stacked.edit(message.key, new, coalesce=gesture)
        if message.final:
            self._next_gesture()

    def _on_add(self, message: say.Add) -> Body | Later:
        with rows.about("address"):
            site = self._site(message.address)
        key = self._existing(site, message.address)
        if key is not None:
            self.select(key)
            return say.AddBody(key=key, existed=True)
        site = _placed(site, message.op, message.value)

        def put(_measured: object = None) -> say.AddBody:
            with rows.about("address" if message.value is None else "value"):
                new = self._put(site, message.op, message.value)
            self.select(new)
            return say.AddBody(key=new, existed=False)

        if not self._needs_measuring(site, message.op, message.value):
            return put()
        baseline = self._stacked.baseline

        def job(_should_stop: ShouldStop) -> None:
            self._measure(site, baseline)

        def then(_none: None) -> None:
            try:
                body = put()
            except PatchclampError as error:
                self._refuse(message.id, str(error), getattr(error, "field", None))
            else:
                self._reply(message.id, body)

        self._start(
            ("add", message.id),
            f"measuring {site}",
            job,
            then=then,
            failed=lambda error: self._refuse(message.id, str(error), "address"),
        )
        return LATER

    def _on_remove(self, message: say.Remove) -> None:
        with rows.about("key"):
            self.remove(message.key)

    def _on_move(self, message: say.Move) -> None:
        with rows.about("key"):
            self.move(message.key, message.index)

    def _on_solo(self, message: say.Solo) -> None:
        with rows.about("key"):
            self.solo(message.key)

    def _on_select(self, message: say.Select) -> None:
        with rows.about("key"):
            self.select(message.key)

    def _on_reset(self, _message: say.Reset) -> None:
        self.reset()

    def _on_code(self, message: say.Code) -> Later:
        def job(_should_stop: ShouldStop) -> say.CodeBody:
            return say.CodeBody(text=self._stacked.to_code())

        return self._answer_later(message.id, ("code", message.id), "writing code", job)

    # --- the stack --------------------------------------------------------------------------------

    def _key(self, row: int | str) -> int:
        """A row's key from its key or its address, with or without positions."""
        keys, stack = self._stacked.keys, self._stacked.interventions
        if isinstance(row, str):
            for key, iv in zip(keys, stack, strict=True):
                if row in {str(iv.site), rows.address_of(iv.site)}:
                    return key
            there = ", ".join(str(iv.site) for iv in stack) or "none"
            raise InterventionError(f"There is no row {row!r}; there is {there}.")
        if row not in keys:
            raise InterventionError("This intervention is no longer on the stack.")
        return row

    def _site(self, address: str) -> Site | SiteSet:
        site = self._stacked.model.anatomy.parse(address)
        self._check(site)
        return site

    def _check(self, site: Site | SiteSet) -> None:
        self._stacked.model.anatomy.check(site, len(self._stacked.experiment.given.ids))

    def _existing(self, site: Site | SiteSet, address: str) -> int | None:
        """The row that has the address: the same positions, or any where none are named."""
        for key, iv in zip(self._stacked.keys, self._stacked.interventions, strict=True):
            same = iv.site == site
            if "@" not in address and isinstance(site, Site) and isinstance(iv.site, Site):
                same = iv.site.address == site.address
            if same:
                return key
        return None

    def _put(self, site: Site | SiteSet, op: Operation, value: float | None) -> int:
        if value is None:
            new = rows.first(site, op, self._measured.get(rows.address_of(site)))
        else:
            new = rows.made(site, op, value)
        return self._stacked.add(new)

    def _needs_measuring(self, site: Site | SiteSet, op: Operation, value: float | None) -> bool:
        if value is not None or op != "set" or not is_number(site):
            return False
        self._follow_input()
        return rows.address_of(site) not in self._measured

    def _direction_addresses(self) -> list[str]:
        return [f"{site}[{name}]" for name, (site, _) in self._stacked.directions.items()]

    # --- following the session --------------------------------------------------------------------

    def _follow_input(self) -> None:
        given = self._stacked.experiment.given
        if given != self._given:
            with self._lock:
                self._forget(given)
            self._stop_tasks(self._is_of_the_prompt)

    def _is_of_the_prompt(self, name: Hashable) -> bool:
        """Whether a job of this name is worth nothing once there is another prompt."""
        return isinstance(name, tuple)

    def _rows_are_measured(self, _none: None) -> None:
        self._push_state()

    @abstractmethod
    def _push_state(self) -> None:
        """Tell the page what is declared."""

    # --- on the worker ----------------------------------------------------------------------------

    def _stack(self) -> "tuple[int, Experiment, Metric, dict[int, int]]":
        """The experiment of one revision, and of each key its place in the experiment's stack."""
        session = self._stacked
        while True:
            revision = session.revision
            experiment, metric = session.experiment, session.metric
            pairs = list(zip(session.keys, session.interventions, strict=False))
            if session.revision == revision:
                acting = [key for key, iv in pairs if not iv.muted]
                return revision, experiment, metric, {key: i for i, key in enumerate(acting)}

    def _measuring(self, metric: Metric, baseline: "Run") -> Measure:
        """The metric of the prompt; on the worker, since it may need the baseline."""
        before = baseline.rows([-1])[None]
        given = baseline.experiment.given
        if given == self._given:
            self._likeliest = int(before[0, 0].argmax())
        return bind(metric, self._stacked.model, [given], baseline=lambda: before)

    def _unmeasured(self) -> list[Site]:
        sites = {
            iv.site.address: iv.site
            for iv in self._stacked.interventions
            if isinstance(iv.site, Site) and is_number(iv.site)
        }
        known = self._measured.keys() | self._unmeasurable
        return [site for address, site in sites.items() if address not in known]

    def _measure_rows(self, should_stop: ShouldStop) -> None:
        self._follow_input()
        baseline = self._stacked.baseline
        for site in self._unmeasured():
            if should_stop():
                return
            self._measure(site, baseline)

    def _measure(self, site: Site | SiteSet, baseline: "Run") -> None:
        """What a site does on the prompt; waits for the worker where it is not on it."""
        if not isinstance(site, Site):
            return
        values = baseline.activation(site.at("")).float().flatten().tolist()
        given = baseline.experiment.given
        found = rows.Measured(tuple(values), given.has_bos)
        usable = len(values) == baseline.experiment.length and bool(np.isfinite(values).all())
        if usable:
            found = self._with_reference(site, found)
        with self._lock:
            if given != self._given:
                return
            if usable:
                self._measured[site.address] = found
            else:
                self._unmeasurable.add(site.address)

    def _with_reference(self, site: Site, measured: rows.Measured) -> rows.Measured:
        """The same with what is known of the reference texts; measures nothing."""
        reference, anatomy = self._stacked.reference, self._stacked.model.anatomy
        mean = sd = None
        if site.kind == "neuron" and site.index is not None:
            hook = anatomy.hook(site)
            if reference.has([hook]):
                statistics = reference.statistics(hook)
                mean, sd = (float(s[site.index]) for s in (statistics.mean, statistics.sd))
        massive = self._massive is not None and (site.layer, site.index) in self._massive
        return rows.Measured(
            measured.values,
            measured.has_bos,
            mean,
            sd,
            massive=massive and site.kind == "neuron",
        )

    def _start_reference(self) -> None:
        self._start(
            "reference",
            "measuring the reference texts",
            self._reference_job,
            then=lambda _none: self._reference_is_there(),
            priority="sweep",
        )

    def _reference_job(self, should_stop: ShouldStop) -> Generator[None, None, None]:
        reference, anatomy = self._stacked.reference, self._stacked.model.anatomy
        hooks = list(neuron_hooks(anatomy).values())
        for done, total in reference.measure(hooks, should_stop):
            progress = say.Progress(job="reference", done=done, total=total)
            self._push(("progress", "reference"), progress)
            yield
        self._massive = massive_neurons(reference, anatomy)

    def _reference_is_there(self) -> None:
        given = self._given
        found = {
            address: self._with_reference(Site.parse(address), measured)
            for address, measured in list(self._measured.items())
        }
        with self._lock:
            if given == self._given:
                self._measured.update(found)
        self._push_state()

    def _measure_effects(self) -> None:
        """The stack has settled: measure what each row does, beside its control."""
        if self._closed or not self._shown or not self._stacked.interventions:
            return
        if not self._predicts:
            return
        current = self._stacked.revision
        if not self._may_measure(current):
            return
        if self._effects is not None and self._effects[0] == current:
            return
        self._start(
            "effects",
            "measuring random controls",
            self._effects_job(current),
            then=lambda _none: self._effects_are_measured(),
            priority="sweep",
            failed=lambda error: self._effects_failed(error, current),
        )

    def _effects_are_measured(self) -> None:
        """The page has them already; what else there is to tell is told here."""

    def _may_measure(self, revision: int) -> bool:
        """Whether now is the time to measure effects of this revision."""
        del revision
        return True

    def _effects_failed(self, error: PatchclampError, revision: int) -> None:
        if not isinstance(error, Stopped):
            said = f"The random controls could not be measured: {error}"
            self._say_error(PatchclampError(said), revision)

    def _effects_job(self, wanted: int | None = None) -> Callable[[ShouldStop], Any]:
        def job(should_stop: ShouldStop) -> Generator[None, None, None]:
            yield from self._reference_job(should_stop)  # the controls need the mask
            revision, experiment, metric, places = self._stack()
            if wanted not in {None, revision}:
                raise Stopped("The stack has changed; it is measured once it settles.")
            keys = {index: key for key, index in places.items()}
            measure = self._measuring(metric, self._stacked.baseline)
            found: list[say.Effect] = []
            for effect in effects(experiment, measure=measure, should_stop=should_stop):
                drawn = effect.control
                control = None
                if drawn is not None:
                    control = say.Control(
                        median=drawn.median,
                        low=drawn.low,
                        high=drawn.high,
                        seeds=drawn.seeds,
                        of=drawn.of,
                    )
                found.append(
                    say.Effect(key=keys[effect.index], effect=effect.effect, control=control)
                )
                progress = say.Progress(job="control", done=len(found), total=len(keys))
                self._push(("progress", "control"), progress)
                yield
            self._effects = (revision, found)
            self._push("effects", say.EffectsUpdate(revision=revision, rows=found))

        return job

    # --- what there is to draw --------------------------------------------------------------------

    def _strip_rows(self) -> list[say.Row]:
        """The rows of the stack as it is now."""
        session = self._stacked
        return [
            rows.row(key, iv, self._measured.get(rows.address_of(iv.site)), self._span(key, iv))
            for key, iv in zip(session.keys, session.interventions, strict=False)
        ]

    @property
    def _predicts(self) -> bool:
        """Whether the model predicts a next token."""
        return self._stacked.model.anatomy.causal

    def _metric(self) -> say.Metric | None:
        if not self._predicts:
            return None
        model, metric = self._stacked.model, self._stacked.metric
        likeliest = -1 if self._likeliest is None else self._likeliest
        own = metric.tokens(model, likeliest)
        tokens = own or (likeliest,)
        if tokens[0] < 0:  # the first run will say which is on top
            return None
        names = [say.TokenName(id=i, text=model.token_text(i)) for i in tokens]
        return say.Metric(
            label=metric.label(tuple(name.text for name in names[: len(own)])),
            target=names[0],
            against=names[1] if len(names) > 1 else None,
        )

    def _span(self, key: int, iv: "Intervention") -> Range | None:
        """The slider's range; it grows, and starts anew with another operation or neuron."""
        kind = f"{rows.operation(iv)} {rows.address_of(iv.site)}"
        before = self._spans.get(key)
        kept = before[1] if before is not None and before[0] == kind else None
        found = rows.span(iv, self._measured.get(rows.address_of(iv.site)), kept)
        self._spans[key] = (kind, found)
        return found

    def _massive_note(self) -> list[str]:
        """Which neurons no random control touches."""
        if not self._massive:
            return []
        shown = ", ".join(f"L{layer}.N{index}" for layer, index in sorted(self._massive)[:4])
        more = f" and {len(self._massive) - 4} more" if len(self._massive) > 4 else ""
        note = (
            f"{len(self._massive)} massive-activation neurons ({shown}{more}) are left out of "
            "rankings and random controls: touching one disturbs every prediction."
        )
        return [note]


def is_number(site: Site | SiteSet) -> bool:
    """Whether the site is one number at each position."""
    return isinstance(site, Site) and site.kind in SCALARS


def _placed(site: Site | SiteSet, op: Operation, value: float | None) -> Site | SiteSet:
    """At the last token, where a neuron is to be set to what it has and no positions are named."""
    if isinstance(site, Site) and value is None and op == "set" and is_number(site):
        return site.at(rows.LAST) if site.positions == Positions() else site
    return site
