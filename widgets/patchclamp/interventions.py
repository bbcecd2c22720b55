"""What is done to a site: declarative values that go to JSON and back, and to hooks elsewhere.

Interventions apply in list order; at one place a later one sees the earlier one's result.
Building one needs neither torch nor a model; whether a model has the site is checked when the
intervention meets it (`engine/hooks.py`).

>>> Clamp("L12.N304@-1", 8)
Clamp('L12.N304@-1', 8.0)
>>> Intervention.from_json(Scale("L3.mlp", 0.5).to_json())
Scale('L3.mlp', 0.5)
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, get_args

from .errors import InterventionError
from .sites import Kind, Positions, Site, SiteLike, SiteSet, as_positions, as_site

# Sites whose value is one number at each position, and those whose value is a vector.
SCALARS: frozenset[Kind] = frozenset(["neuron", "direction", "feature", "module", "variable"])
VECTORS: frozenset[Kind] = frozenset(
    ["head", "mlp", "attn", "resid_pre", "resid_mid", "resid_post", "embed"]
)
VALUES = SCALARS | VECTORS

Numbers = tuple[float, ...]
KnockoutHow = Literal["renormalise", "zero", "contrast"]
CutHow = Literal["mean", "zero", "contrast"]


def _number(value: object, what: str) -> float:
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InterventionError(f"{what} must be a number, not {_shown(value)}.")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InterventionError(f"{what} must be a finite number, not {value!r:.40}.")
    return number


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"a {type(value).__name__}"


def _vector(value: Any, what: str) -> Numbers:
    """A tuple of floats from a list, a tuple, or anything with `.tolist()` (a tensor, an array)."""
    listed = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(listed, str) or not isinstance(listed, Iterable):
        raise InterventionError(f"{what} must be a vector of numbers, not {_shown(listed)}.")
    numbers = tuple(_number(number, f"{what}'s every entry") for number in listed)
    if not numbers:
        raise InterventionError(f"{what} is empty; it needs one number for each coordinate.")
    return numbers


def _number_or_vector(value: Any, what: str) -> float | Numbers:
    many = isinstance(value, Sequence) or getattr(value, "ndim", 0) > 0
    return _vector(value, what) if many and not isinstance(value, str) else _number(value, what)


def _check_seed(seed: object) -> None:
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise InterventionError(f"a seed is an integer from 0 to 2**63 - 1, not {_shown(seed)}.")


def _choice(value: object, choices: tuple[str, ...], what: str) -> str:
    if value not in choices:
        listed = " or ".join(repr(choice) for choice in choices)
        raise InterventionError(f"{what} must be {listed}, not {_shown(value)}.")
    return str(value)


@dataclass(frozen=True, init=False, repr=False)
class Intervention:
    """One thing done to one site or set of sites.

    Attributes:
        site: Where, and at which positions.
        muted: Kept in the list, but not applied.
    """

    site: Site | SiteSet
    muted: bool

    op: ClassVar[str]
    #: The kinds of site that the operation can be applied to, and how a sentence names them.
    kinds: ClassVar[frozenset[Kind]] = VALUES
    _wants: ClassVar[str] = "a value such as L12.N304, L5.H3, L7.mlp or L12.resid_post[dog]"
    #: The field that a slider moves, if the operation has one.
    _slider: ClassVar[str | None] = None

    def _set(self, site: SiteLike, *, muted: bool, **values: object) -> None:
        address = as_site(site)
        kinds = address.kinds if isinstance(address, SiteSet) else frozenset([address.kind])
        if kinds - self.kinds:
            raise InterventionError(f"{type(self).__name__} needs {self._wants}; {address} is not.")
        if not isinstance(muted, bool):
            raise InterventionError(f"muted must be True or False, not {_shown(muted)}.")
        for name, value in {"site": address, "muted": muted, **values}.items():
            object.__setattr__(self, name, value)

    if TYPE_CHECKING:

        @property
        def value(self) -> float | Numbers | None:
            """The number that a slider moves; None (or a vector) when there is no single one."""

    def with_value(self, value: float) -> Self:
        """The same with another number.

        Raises:
            InterventionError: when the operation has no single number, or it is not finite.
        """
        if self._slider is None or not isinstance(self.value, float):
            raise InterventionError(f"{self!r} has no single number to change.")
        return self.replace(**{self._slider: _number(value, "the value")})

    def replace(self, **changes: Any) -> Self:
        """The same with some fields changed; the new values are validated as at first.

        Raises:
            InterventionError: when a field does not exist or its value cannot be.
        """
        known = [item.name for item in fields(self)]
        for name in changes:
            if name not in known:
                raise InterventionError(
                    f"{type(self).__name__} has no {name!r}; it has {', '.join(known)}."
                )
        return type(self)(**{name: getattr(self, name) for name in known} | changes)

    def with_positions(self, positions: Positions | str | int | Iterable[int]) -> Self:
        """The same at other positions."""
        return self.replace(site=self.site.at(positions))

    def to_json(self) -> dict[str, Any]:
        """A dictionary that `json.dumps` takes and `Intervention.from_json` reads back."""
        result: dict[str, Any] = {"op": self.op}
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, (Site, SiteSet, Positions)):
                value = str(value)
            result[item.name] = list(value) if isinstance(value, tuple) else value
        return result

    @staticmethod
    def from_json(data: Mapping[str, Any]) -> Intervention:
        """The intervention that `to_json` wrote.

        Raises:
            InterventionError: when the operation is unknown, or a field is missing or not known.
            AddressError: when the site cannot be read.
        """
        if not isinstance(data, Mapping):
            raise InterventionError(f"an intervention is a JSON object, not {_shown(data)}.")
        rest = dict(data)
        op = rest.pop("op", None)
        kind = OPERATIONS.get(op) if isinstance(op, str) else None
        if kind is None:
            raise InterventionError(
                f"{_shown(op)} is not an operation; it may be {', '.join(OPERATIONS)}."
            )
        known = [item.name for item in fields(kind)]
        if unknown := [name for name in rest if name not in known]:
            raise InterventionError(
                f"{kind.__name__} has no {_shown(unknown[0])}; it has {', '.join(known)}."
            )
        try:
            return kind(**rest)
        except TypeError as error:  # a required argument is missing
            raise InterventionError(f"{kind.__name__} cannot be made: {error}.") from None

    def __repr__(self) -> str:
        return self._repr()

    def _repr(self, *arguments: str) -> str:
        site = self.site
        shown = [f"{str(site)!r}", *arguments, *(["muted=True"] if self.muted else [])]
        return f"{type(self).__name__}({', '.join(shown)})"


def _literal(value: float | Numbers) -> str:
    return repr(value) if isinstance(value, float) else repr(list(value))


def _kinds(site: Site | SiteSet) -> frozenset[Kind]:
    return site.kinds if isinstance(site, SiteSet) else frozenset([site.kind])


@dataclass(frozen=True, init=False, repr=False)
class Clamp(Intervention):
    """Set a value: a neuron's activation, or a direction's coefficient c = (x . d) / (d . d).

    A head or a whole component takes a vector in its space (one number for each coordinate); a
    single number would set every coordinate to it, which nobody means, so only 0 is taken.
    """

    value: float | Numbers

    op: ClassVar[str] = "clamp"
    _slider: ClassVar[str | None] = "value"

    def __init__(self, site: SiteLike, value: Any, *, muted: bool = False) -> None:
        number = _number_or_vector(value, "the value of a Clamp")
        self._set(site, muted=muted, value=number)
        kinds = _kinds(self.site)
        if isinstance(number, float) and number != 0 and kinds & VECTORS:
            raise InterventionError(
                f"{self.site} is a vector, and setting its every coordinate to {number:g} is "
                "hardly meant: Scale it, Ablate it, Add a direction to it, or Clamp it to a vector "
                "or a named direction of it, such as L12.resid_post[dog]."
            )
        if isinstance(number, tuple) and kinds & SCALARS:
            raise InterventionError(f"{self.site} is one number; Clamp it to one, not to a vector.")

    def __repr__(self) -> str:
        return self._repr(_literal(self.value))


@dataclass(frozen=True, init=False, repr=False)
class Scale(Intervention):
    """Multiply a value (a direction: its coefficient) by a factor."""

    factor: float

    op: ClassVar[str] = "scale"
    _slider: ClassVar[str | None] = "factor"

    def __init__(self, site: SiteLike, factor: Any, *, muted: bool = False) -> None:
        self._set(site, muted=muted, factor=_number(factor, "the factor of a Scale"))

    @property
    def value(self) -> float:
        """The factor."""
        return self.factor

    def __repr__(self) -> str:
        return self._repr(_literal(self.factor))


@dataclass(frozen=True, init=False, repr=False)
class Add(Intervention):
    """Add to a value: a number to a neuron, `amount` times a direction to a vector (steering).

    Args:
        site: A neuron or a named direction (to which `amount` is added: x + amount d), or a head
            or whole component, which then needs `direction`.
        amount: One number, or one for each touched prompt position; then the positions must name
            prompt tokens only, such as `@0:5`.
        direction: A vector in the site's space.
        muted: Kept in the list, but not applied.
    """

    amount: float | Numbers
    direction: Numbers | None

    op: ClassVar[str] = "add"
    _slider: ClassVar[str | None] = "amount"

    def __init__(
        self, site: SiteLike, amount: Any, direction: Any = None, *, muted: bool = False
    ) -> None:
        vector = None if direction is None else _vector(direction, "the direction of an Add")
        number = _number_or_vector(amount, "the amount of an Add")
        self._set(site, muted=muted, amount=number, direction=vector)
        kinds = _kinds(self.site)
        if kinds & VECTORS and vector is None:
            raise InterventionError(
                f"{self.site} is a vector; say along which direction to add, "
                "Add(site, amount, direction), or use a named one such as L12.resid_post[dog]."
            )
        if kinds & SCALARS and vector is not None:
            raise InterventionError(f"{self.site} is one number; Add to it without a direction.")
        if vector is not None and not any(vector):
            raise InterventionError("the direction of an Add is zero; it needs a length.")
        if isinstance(number, tuple):
            written = self.site.written if isinstance(self.site, SiteSet) else (self.site,)
            if any(site.positions.touches_generated for site in written):
                raise InterventionError(
                    f"an amount for each position needs a site that says which prompt positions, "
                    f"such as {written[0]}@0:{len(number)}."
                )

    @property
    def value(self) -> float | None:
        """The amount, when it is one number."""
        return self.amount if isinstance(self.amount, float) else None

    def __repr__(self) -> str:
        direction = [] if self.direction is None else [_literal(self.direction)]
        return self._repr(_literal(self.amount), *direction)


@dataclass(frozen=True, init=False, repr=False)
class _Unnumbered(Intervention):
    """What a slider cannot move."""

    @property
    def value(self) -> None:
        """None: there is no number."""
        return


@dataclass(frozen=True, init=False, repr=False)
class Ablate(_Unnumbered):
    """Take away what a value says.

    Args:
        site: Any value.
        how: `"mean"` puts the mean over the session's reference set there, `"zero"` nothing,
            `"resample"` its value at one random reference position.
        seed: Which position `"resample"` draws.
        direction: Of a head or whole component, a vector in its space, of any length: only what
            lies along it is taken away (to zero: it is projected out), the rest stays.
        muted: Kept in the list, but not applied.
    """

    how: Literal["mean", "zero", "resample"]
    seed: int
    direction: Numbers | None

    op: ClassVar[str] = "ablate"

    def __init__(
        self,
        site: SiteLike,
        how: Literal["mean", "zero", "resample"] = "mean",
        seed: int = 0,
        direction: Any = None,
        *,
        muted: bool = False,
    ) -> None:
        chosen = _choice(how, ("mean", "zero", "resample"), "how to Ablate")
        _check_seed(seed)
        vector = None if direction is None else _vector(direction, "the direction of an Ablate")
        self._set(site, muted=muted, how=chosen, seed=seed, direction=vector)
        if vector is not None:
            if _kinds(self.site) & SCALARS:
                raise InterventionError(
                    f"{self.site} is one number; Ablate it without a direction."
                )
            if not any(vector):
                raise InterventionError("the direction of an Ablate is zero; it needs a length.")

    def __repr__(self) -> str:
        seed = [f"seed={self.seed}"] if self.seed else []
        along = [] if self.direction is None else [f"direction={_literal(self.direction)}"]
        return self._repr(f"how={self.how!r}", *seed, *along)


@dataclass(frozen=True, init=False, repr=False)
class Patch(_Unnumbered):
    """Put the same site's values from another run there; generated tokens keep their own.

    Args:
        site: Any value.
        source: `"contrast"` (the session's contrast input), another text, or token ids.
        at: Positions of that run to take from: one for all, or as many as are touched. None takes
            from the same positions.
        muted: Kept in the list, but not applied.
    """

    source: str | tuple[int, ...]
    at: Positions | None

    op: ClassVar[str] = "patch"

    def __init__(
        self,
        site: SiteLike,
        source: Any = "contrast",
        at: Positions | str | int | Iterable[int] | None = None,
        *,
        muted: bool = False,
    ) -> None:
        places = None if at is None else as_positions(at)
        if places is not None and places.touches_generated:
            raise InterventionError(
                "a Patch takes its values from prompt positions; write at='-1', at='0:5', or "
                "leave it out for the same positions."
            )
        self._set(site, muted=muted, source=_source(source), at=places)

    def __repr__(self) -> str:
        source = [] if self.source == "contrast" else [repr(_plain(self.source))]
        at = [] if self.at is None else [f"at={str(self.at)!r}"]
        return self._repr(*source, *at)


def _plain(source: str | tuple[int, ...]) -> str | list[int]:
    return source if isinstance(source, str) else list(source)


def _source(source: Any) -> str | tuple[int, ...]:
    if isinstance(source, str):
        if not source:
            raise InterventionError("a Patch from an empty text has nothing to take; give a text.")
        return source
    listed = source.tolist() if hasattr(source, "tolist") else source
    if isinstance(listed, Iterable):
        ids = tuple(listed)
        if ids and all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in ids):
            return ids
    raise InterventionError(
        f"a Patch takes from 'contrast', a text or a list of token ids, not {_shown(listed)}."
    )


@dataclass(frozen=True, init=False, repr=False)
class Knockout(_Unnumbered):
    """Stop attention from reading: cells `L5.H3[7<-2]`, or a whole head `L5.H3` at its positions.

    Args:
        site: Cells or heads; a head's positions are the destinations that read nothing. Cells may
            be ranges and sets: `L5.H3[7:9<-2:5]`, `L[3:9].H*[7<-2]`.
        how: `"renormalise"` spreads the row over its other sources, as a score of minus infinity
            does (a row with no other source becomes zeros: the head then reads nothing there);
            `"zero"` only takes the weight away; `"contrast"` gives the cells the weights that they
            have on the session's contrast input, at the same positions, and leaves the rest of the
            row as it is (generated tokens keep their own).
        muted: Kept in the list, but not applied.
    """

    how: KnockoutHow

    op: ClassVar[str] = "knockout"
    kinds: ClassVar[frozenset[Kind]] = frozenset(["cell", "head"])
    _wants: ClassVar[str] = "an attention cell such as L5.H3[7<-2], or a head such as L5.H3"

    def __init__(
        self,
        site: SiteLike,
        how: KnockoutHow = "renormalise",
        *,
        muted: bool = False,
    ) -> None:
        chosen = _choice(how, get_args(KnockoutHow), "how to do a Knockout")
        self._set(site, muted=muted, how=chosen)
        written = self.site.written if isinstance(self.site, SiteSet) else (self.site,)
        for place in written:
            if place.kind == "head" and place.part != "z":
                raise InterventionError(
                    f"Knockout needs {self._wants}; {place} is only one of the head's inputs."
                )

    def __repr__(self) -> str:
        return self._repr(*([] if self.how == "renormalise" else [f"how={self.how!r}"]))


@dataclass(frozen=True, init=False, repr=False)
class Cut(_Unnumbered):
    """Cut an edge: its destination reads the residual stream without its source's contribution.

    The destination's norm is computed again without it; everything else still reads the source.
    With grouped-query attention an edge into `k` or `v` ends in the key/value head that the named
    head uses, and so acts on all heads that share it.

    Args:
        edge: For instance `L3.H1->L7.H2:q`; its positions are the destination's.
        how: What is read instead: `"mean"` the source's mean contribution over the reference set,
            `"zero"` nothing, `"contrast"` its contribution in a run of the session's contrast
            input, at the same positions (generated tokens keep their own): path patching of one
            edge (Wang et al. 2022; Goldowsky-Dill et al. 2023).
        muted: Kept in the list, but not applied.
    """

    how: CutHow

    op: ClassVar[str] = "cut"
    kinds: ClassVar[frozenset[Kind]] = frozenset(["edge"])
    _wants: ClassVar[str] = "an edge such as L3.H1->L7.H2:q"

    def __init__(self, site: SiteLike, how: CutHow = "mean", *, muted: bool = False) -> None:
        self._set(site, muted=muted, how=_choice(how, get_args(CutHow), "how to Cut"))

    def __repr__(self) -> str:
        return self._repr(f"how={self.how!r}")


#: Each operation by the name it has in JSON.
OPERATIONS: Mapping[str, type[Intervention]] = {
    kind.op: kind for kind in (Clamp, Scale, Add, Ablate, Patch, Knockout, Cut)
}
