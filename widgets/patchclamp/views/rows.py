"""From an intervention to its row in the stack, and from a row's edit to the new intervention."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from patchclamp.errors import InterventionError, PatchclampError
from patchclamp.interventions import (
    SCALARS,
    Ablate,
    Add,
    Clamp,
    Cut,
    Intervention,
    Knockout,
    Patch,
    Scale,
)
from patchclamp.sites import Positions, Site, SiteSet

from .messages import Edit, MessageError, Operation, Range, Row

OPERATIONS: dict[type[Intervention], Operation] = {
    Clamp: "set",
    Add: "add",
    Scale: "scale",
    Ablate: "ablate",
}
LAST = Positions((-1,))
_SCALE_RANGE = (-1.0, 3.0)
_VERBS: dict[type[Intervention], str] = {Ablate: "ablate", Knockout: "knock out", Cut: "cut"}
_WORDS = {"": "all positions", "all": "all positions with the first", "-1": "the last token"}


@dataclass(frozen=True)
class Measured:
    """What a site of one number does on the prompt, baseline, and over the reference texts.

    Attributes:
        values: at each position of the prompt.
        has_bos: whether position 0 is a beginning-of-sequence token, which the peak leaves out.
        mean: over the reference texts; None while they are not measured.
        sd: the same.
        massive: whether the neuron is behind the massive-activation mask.
    """

    values: tuple[float, ...]
    has_bos: bool
    mean: float | None = None
    sd: float | None = None
    massive: bool = False

    @property
    def inner(self) -> Sequence[float]:
        """The values that a default intervention touches."""
        return self.values[1:] if self.has_bos and len(self.values) > 1 else self.values

    @property
    def peak(self) -> float:
        """The largest absolute value."""
        return max(abs(value) for value in self.inner)

    def at(self, positions: Positions) -> float | None:
        """The value at the first of the positions; None when they are all generated ones."""
        first = positions.first(len(self.values), self.has_bos)
        return None if first is None else self.values[first]


def operation(intervention: Intervention) -> str:
    """The row's word for what is done."""
    return OPERATIONS.get(type(intervention), intervention.op)


def positions_of(site: Site | SiteSet) -> Positions:
    """The positions that a row shows; a set's are part of its address."""
    return site.positions if isinstance(site, Site) else Positions()


def address_of(site: Site | SiteSet) -> str:
    """The address that a row shows, which leaves out positions."""
    return site.address if isinstance(site, Site) else str(site)


def is_editable(intervention: Intervention) -> bool:
    """Whether this view has the controls for it."""
    if type(intervention) not in OPERATIONS:
        return False
    if isinstance(intervention, Ablate):
        return intervention.direction is None
    return isinstance(intervention.value, float)


def row(key: int, intervention: Intervention, measured: Measured | None, span: Range | None) -> Row:
    """The row of one intervention."""
    site = intervention.site
    value = intervention.value
    return Row(
        key=key,
        address=address_of(site),
        op=operation(intervention),
        label=label(intervention),
        value=value if isinstance(value, float) else None,
        how=getattr(intervention, "how", None),
        positions=str(positions_of(site)),
        muted=intervention.muted,
        massive=measured is not None and measured.massive,
        editable=is_editable(intervention),
        range=span,
        sd=None if measured is None else measured.sd,
        mean=None if measured is None else measured.mean,
        peak=None if measured is None else measured.peak,
        observed=None if measured is None else measured.at(positions_of(site)),
    )


def label(intervention: Intervention) -> str:
    """An intervention in words, for those who do not see the row."""
    said = _said(intervention, address_of(intervention.site))
    if isinstance(intervention.site, Site) and intervention.site.kind != "cell":
        positions = str(intervention.site.positions)
        said += f", {_WORDS.get(positions, f'positions {positions}')}"
    return said + (", muted" if intervention.muted else "")


def _said(intervention: Intervention, site: str) -> str:
    match intervention:
        case Clamp():
            value = intervention.value
            return f"set {site} to {f'{value:.3g}' if isinstance(value, float) else 'a vector'}"
        case Scale():
            return f"scale {site} by {intervention.factor:.3g}"
        case Add():
            amount = intervention.value
            return f"add {'its amounts' if amount is None else f'{amount:.3g}'} to {site}"
        case Patch():
            source = intervention.source
            return f"patch {site} from {source if source == 'contrast' else 'another run'}"
        case Ablate() | Knockout() | Cut():
            if getattr(intervention, "direction", None) is not None:
                site = f"a direction in {site}"
            return f"{_VERBS[type(intervention)]} {site} ({intervention.how})"
        case _:
            return f"{intervention.op} {site}"


def span(
    intervention: Intervention, measured: Measured | None, before: Range | None = None
) -> Range | None:
    """From where to where the row's slider goes.

    It covers what the value is now and, for `set`, 0, the observed value, four standard deviations
    around the reference mean and 1.5 times the prompt's extremes; for `add` as much either way.

    Args:
        intervention: the row's.
        measured: None while nothing is measured.
        before: what the range was; it only grows, so that no slider moves under a hand.
    """
    value = intervention.value
    if not isinstance(value, float):
        return None
    if isinstance(intervention, Scale):
        low, high = _SCALE_RANGE
    elif measured is None:
        return before
    else:
        low, high = _ends(intervention, measured)
    if before is not None:
        low, high = min(low, before.low), max(high, before.high)
    # A value beyond them gets some room, so that its handle is not stuck at the end.
    if value < low:
        low = value - abs(value) / 4
    if value > high:
        high = value + abs(value) / 4
    if low == high:  # a dead neuron
        low, high = low - 1.0, high + 1.0
    if not math.isfinite(low) or not math.isfinite(high):
        return before
    return Range(low=low, high=high)


def _ends(intervention: Intervention, measured: Measured) -> tuple[float, float]:
    spread = 4 * (measured.sd or 0.0)
    least, most = min(measured.inner), max(measured.inner)
    if isinstance(intervention, Add):
        reach = max(spread, 1.5 * measured.peak)
        return -reach, reach
    mean = measured.mean or 0.0
    return (
        min(0.0, least, 1.5 * least, mean - spread),
        max(0.0, most, 1.5 * most, mean + spread),
    )


def neutral(site: Site | SiteSet, op: Operation, measured: Measured | None) -> float:
    """The value with which an operation changes nothing (for `set`: at its first position)."""
    if op == "set":
        observed = None if measured is None else measured.at(positions_of(site))
        return 0.0 if observed is None else observed
    return 1.0 if op == "scale" else 0.0


def made(
    site: Site | SiteSet,
    op: Operation,
    value: float,
    *,
    muted: bool = False,
) -> Intervention:
    """An intervention of this view's four kinds.

    Raises:
        InterventionError: when the site cannot take the operation or the value.
    """
    match op:
        case "set":
            return Clamp(site, value, muted=muted)
        case "add":
            return Add(site, value, muted=muted)
        case "scale":
            return Scale(site, value, muted=muted)
        case "ablate":
            return Ablate(site, muted=muted)


def first(site: Site | SiteSet, op: Operation, measured: Measured | None) -> Intervention:
    """What a site gets that is added without a value: what changes nothing yet, where there is it.

    Attention cells and edges have no value to start from: they are knocked out, or cut.
    """
    kinds = {site.kind} if isinstance(site, Site) else site.kinds
    if kinds <= {"cell"}:
        return Knockout(site)
    if kinds <= {"edge"}:
        return Cut(site)
    if op == "set" and not kinds <= SCALARS:
        op = "scale"  # no one number sets a vector
    return made(site, op, neutral(site, op, measured))


def edited(old: Intervention, edit: Edit, measured: Measured | None) -> Intervention:
    """The intervention that an edit makes of another.

    Raises:
        MessageError: saying which part of the edit cannot be.
    """
    new = old
    if edit.positions is not None:
        with _about("positions"):
            new = new.replace(site=new.site.at(edit.positions))
    if edit.op is not None and edit.op != operation(old):
        with _about("op"):
            if isinstance(old, Add | Ablate) and old.direction is not None:
                does = "adds" if isinstance(old, Add) else "ablates"
                raise InterventionError(
                    f"This row {does} along a direction of its own, which no other operation "
                    "takes; name the direction (session.define) to do more with it."
                )
            if not is_editable(old):
                raise InterventionError(f"This view cannot make something else of {old!r}.")
            value = neutral(new.site, edit.op, measured)
            new = made(new.site, edit.op, value, muted=old.muted)
    if edit.value is not None:
        with _about("value"):
            new = new.with_value(edit.value)
    if edit.how is not None:
        with _about("how"):
            if not isinstance(new, Ablate | Knockout):
                raise InterventionError(
                    "Only ablating and knocking out have a how; choose the operation first."
                )
            new = new.replace(how=edit.how)
    if edit.muted is not None:
        new = new.replace(muted=edit.muted)
    return new


class _about:  # noqa: N801 (reads as a word of the with statement)
    """Says which part of the message an error is about."""

    def __init__(self, field: str) -> None:
        self._field = field

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, PatchclampError) and not isinstance(error, MessageError):
            raise MessageError(str(error), field=self._field) from error


about = _about
