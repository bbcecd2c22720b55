"""What is maximised: a number made of the values of units, for each item of a batch.

An :class:`Objective` is a sum of weighted terms and a constant. A term is a unit of a model, read
as one number, or a Python function of activations:

- of a module's part with values x[batch, channel, *space]: a channel (``_blocks.9:c17``), a
  direction among its channels, or, where the part is the model's output, a logit. How the places
  become one number is said by ``how``: ``"channel"`` is the mean over all of them (Olah et al.'s
  channel objective), ``"centre"`` the value at the middle one, index n // 2 (their neuron
  objective), ``"peak"`` the largest;
- of a language model, a number for each position: a neuron (``L12.N304``, ``:pre``, ``:gate``,
  ``:up``), a direction (``L12.resid_post[dog]`` with its vector), a head's output along a
  direction, a token's logit. It is read at the positions that its address names (their mean), at
  the last one where it names none, or at its ``"peak"`` over them.

A direction's value is its coefficient c = (x . d) / (d . d), as everywhere in patchclamp: it does
not depend on the vector's length but by a factor, and Clamp, Scale and the objective mean the same
number.

Source of the objectives: Olah, Mordvintsev and Schubert, "Feature Visualization" (Distill, 2017).

>>> from types import SimpleNamespace
>>> import torch
>>> mean = Objective.of_function(lambda v: v["net"].mean((1, 2)), paths=("net",), name="mean")
>>> (2 * mean - 1).text
'2 × mean − 1'
>>> (2 * mean - 1).value({"net": torch.ones(3, 4, 4)})
tensor([1., 1., 1.])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, cast, get_args

import torch
from torch import Tensor

from patchclamp.errors import AddressError, InputError
from patchclamp.models.anatomy import Anatomy
from patchclamp.models.weights import head_output
from patchclamp.sites import COMPONENTS, Site, as_positions

if TYPE_CHECKING:
    from patchclamp.models.language_model import LanguageModel
    from patchclamp.models.module_anatomy import ModuleAnatomy
    from patchclamp.models.module_model import ModuleModel

    Model: TypeAlias = LanguageModel | ModuleModel

How = Literal["channel", "centre", "peak", "last"]
Values: TypeAlias = Mapping[str, Tensor]
Function: TypeAlias = Callable[[dict[str, Tensor]], object]


class Unit(Protocol):
    """What a term reads: a unit, or a function of activations."""

    @property
    def text(self) -> str:
        """How a reader knows it: its address, or the function's name."""
        ...

    @property
    def site(self) -> Site | None:
        """Its address, where it has one."""
        ...

    @property
    def hooks(self) -> tuple[str, ...]:
        """The module paths or hook points that it reads."""
        ...

    def map(self, values: Values) -> Tensor:
        """Return Float[batch, *space] or Float[batch, pos]: its value at every place."""
        ...

    def value(self, values: Values, start: int) -> Tensor:
        """Return Float[batch]."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        ...


@dataclass(frozen=True)
class Direction:
    """A vector d, and the coefficient c = (x . d) / (d . d) of others along it.

    Attributes:
        vector: d.
    """

    vector: tuple[float, ...]
    _dual: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        d = torch.tensor(self.vector, dtype=torch.float64)
        object.__setattr__(self, "_dual", (d / (d @ d)).float())

    def along(self, x: Tensor, axis: int) -> Tensor:
        """Return the coefficients of x along one of its axes, which goes."""
        found: Tensor = torch.tensordot(x.float(), self._dual.to(x.device), ([axis], [0]))
        return found


@dataclass(frozen=True)
class Channel:
    """A channel of a module's part, or a direction among its channels.

    Attributes:
        site: its address; of a direction, that of the part's channel 0.
        text: how a reader knows it.
        hook: the module's path, with ``@k`` for the k-th of several calls.
        how: how the values of all places become one number.
        direction: the direction; None for the channel that the address names.
    """

    site: Site
    text: str
    hook: str
    how: How = "channel"
    direction: Direction | None = None

    @property
    def hooks(self) -> tuple[str, ...]:
        """The module's path."""
        return (self.hook,)

    def map(self, values: Values) -> Tensor:
        """Return Float[batch, *space]."""
        x = values[self.hook]
        if self.direction is not None:
            return self.direction.along(x, 1)
        return x.select(1, self.site.index or 0).float()

    def value(self, values: Values, start: int) -> Tensor:
        """Return Float[batch]."""
        del start  # no token stands in front
        x = self.map(values)
        if x.ndim == 1:
            return x
        if self.how == "centre":
            for size in x.shape[1:]:
                x = x.select(1, size // 2)
            return x
        return x.flatten(1).amax(1) if self.how == "peak" else x.flatten(1).mean(1)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        vector = None if self.direction is None else list(self.direction.vector)
        return {"what": self.text, "how": self.how, "vector": vector, "token": None}


@dataclass(frozen=True)
class Neuron:
    """A number at each position of a language model: a neuron, a logit, or a direction.

    Attributes:
        site: its address.
        text: how a reader knows it.
        hook: the TransformerLens hook point.
        how: ``"last"`` or ``"peak"``, where the address names no positions.
        index: which coordinate of the last axis; of a head, which head.
        direction: along which direction; None for one coordinate.
    """

    site: Site
    text: str
    hook: str
    how: How = "last"
    index: int | None = None
    direction: Direction | None = None

    @property
    def hooks(self) -> tuple[str, ...]:
        """The hook point."""
        return (self.hook,)

    def map(self, values: Values) -> Tensor:
        """Return Float[batch, pos]."""
        x = values[self.hook]
        if self.site.kind == "head":
            x = x.select(-2, self.index or 0)
        if self.direction is not None:
            return self.direction.along(x, x.ndim - 1)
        return x.select(-1, self.index or 0).float()

    def value(self, values: Values, start: int) -> Tensor:
        """Return Float[batch]."""
        x, positions = self.map(values), self.site.positions
        length = x.shape[1]
        if not positions.is_default:
            positions.check(length)
            x = x[:, positions.indices(0, length, length, has_bos=start > 0)]
            return x.amax(1) if self.how == "peak" else x.mean(1)
        return x[:, min(start, length - 1) :].amax(1) if self.how == "peak" else x[:, -1]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        vector = None if self.direction is None else list(self.direction.vector)
        token = self.index if self.site.kind == "logits" else None
        return {"what": str(self.site), "how": self.how, "vector": vector, "token": token}


@dataclass(frozen=True)
class FunctionOfActivations:
    """A Python function of activations.

    Attributes:
        text: its name.
        hooks: the module paths or hook points that it reads.
        function: from the values, by the names in ``names``, to Float[batch].
        names: under which name it gets each of ``hooks``.
    """

    text: str
    hooks: tuple[str, ...]
    function: Function
    names: tuple[str, ...]

    site: None = None

    def map(self, values: Values) -> Tensor:
        """Refuse: it has one value an item."""
        del values
        msg = f"{self.text} is a function of activations: it has no value at a single place."
        raise InputError(msg)

    def value(self, values: Values, start: int) -> Tensor:
        """Return Float[batch].

        Raises:
            InputError: when the function returns anything else.
        """
        del start
        given = {name: values[hook] for name, hook in zip(self.names, self.hooks, strict=True)}
        found = self.function(given)
        batch = len(values[self.hooks[0]])
        if not isinstance(found, Tensor) or found.shape != (batch,):
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            msg = (
                f"{self.text} must return one number for each of the {batch} items, a tensor of "
                f"the shape ({batch},), not {what}."
            )
            raise InputError(msg)
        return found.float()

    def to_json(self) -> dict[str, Any]:
        """Refuse: code is not written to a file."""
        msg = (
            f"{self.text} is a Python function, which cannot be written to a file; give it again "
            "where it is loaded, or say it as a sum of units."
        )
        raise InputError(msg)


@dataclass(frozen=True)
class Term:
    """A unit and its weight."""

    weight: float
    unit: Unit


@dataclass(frozen=True)
class Objective:
    """What is maximised: a sum of weighted units and functions, and a constant.

    Make one with :func:`objective`; add, subtract and weigh them with ``+``, ``-`` and ``*``.

    Attributes:
        terms: the units and functions with their weights.
        constant: what is added to their sum.
    """

    terms: tuple[Term, ...]
    constant: float = 0.0

    @classmethod
    def of_function(
        cls,
        function: Function,
        *,
        paths: Sequence[str],
        name: str = "",
        names: Sequence[str] | None = None,
    ) -> Objective:
        """Make an objective of a Python function.

        Args:
            function: called with the values by name (Float[batch, channel, *space] of a module's
                part, Float[batch, pos, ...] at a hook point); returns Float[batch] and keeps the
                graph.
            paths: the module paths or hook points that it reads.
            name: what to call it; by default its own name.
            names: under which names it gets them; by default the paths themselves.

        Raises:
            InputError: when it says no path.
        """
        text = name or getattr(function, "__name__", "").replace("<lambda>", "") or "a function"
        if not paths:
            msg = (
                f"{text} is a function of activations: name the parts that it reads, such as "
                'paths=("_blocks.9",).'
            )
            raise InputError(msg)
        hooks = tuple(paths)
        unit = FunctionOfActivations(text, hooks, function, tuple(names or hooks))
        return cls((Term(1.0, unit),))

    @property
    def hooks(self) -> tuple[str, ...]:
        """The module paths or TransformerLens hook points that it reads, each once."""
        return tuple(dict.fromkeys(hook for term in self.terms for hook in term.unit.hooks))

    @property
    def sites(self) -> tuple[Site, ...]:
        """The addresses in it, each once."""
        found = [term.unit.site for term in self.terms]
        return tuple(dict.fromkeys(site for site in found if site is not None))

    @property
    def text(self) -> str:
        """It as people write it: ``_blocks.9:c17 − 0.5 × _blocks.9:c3``."""
        pieces = [(term.weight, _times(term)) for term in self.terms]
        if self.constant or not pieces:
            pieces.append((self.constant, f"{abs(self.constant):g}"))
        (first, text), rest = pieces[0], pieces[1:]
        written = f"−{text}" if first < 0 else text
        return written + "".join(f" {'−' if w < 0 else '+'} {piece}" for w, piece in rest)

    def value(self, values: Values, *, start: int = 0) -> Tensor:
        """Return Float[batch], its value for each item; it keeps the graph.

        Args:
            values: by path Float[batch, channel, *space], or by hook point Float[batch, pos, ...].
            start: of a language model, how many positions in front do not count for a peak: 1
                where a beginning-of-sequence token stands there.

        Raises:
            InputError: when a function returns no number for each item.
            AddressError: when a position that it names lies outside.
        """
        total = self.terms[0].weight * self.terms[0].unit.value(values, start)
        for term in self.terms[1:]:
            total = total + term.weight * term.unit.value(values, start)
        return total + self.constant if self.constant else total

    def map(self, values: Values) -> Tensor:
        """Return its value at every place: Float[batch, *space], or Float[batch, pos].

        With one term, the mean over them is the value under ``"channel"``, the largest that under
        ``"peak"``.

        Raises:
            InputError: when a term is a function, or terms have different numbers of places.
        """
        maps = [term.weight * term.unit.map(values) for term in self.terms]
        if len({m.shape for m in maps}) > 1:
            msg = f"The units of {self.text} have different numbers of places: look at one of them."
            raise InputError(msg)
        return torch.stack(maps).sum(0) + self.constant

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON; :meth:`from_json` reads it.

        Raises:
            InputError: when it holds a Python function.
        """
        terms = [{"weight": term.weight, **term.unit.to_json()} for term in self.terms]
        return {"terms": terms, "constant": self.constant}

    @classmethod
    def from_json(cls, model: Model, data: Mapping[str, Any]) -> Objective:
        """Read what :meth:`to_json` wrote, and check that the model has it.

        Raises:
            AddressError: when the model lacks a unit.
            InputError: when this is no objective.
        """
        try:
            found = cls((), _number(data["constant"]))
            for term in data["terms"]:
                given = term["vector"] if term["token"] is None else term["token"]
                what = term["what"] if given is None else (term["what"], given)
                found = found + _number(term["weight"]) * objective(model, what, term["how"])
        except (KeyError, TypeError, AttributeError) as error:
            msg = f"This is no objective ({type(error).__name__}: {error})."
            raise InputError(msg) from error
        if not found.terms:
            msg = "This objective has no term: nothing would be maximised."
            raise InputError(msg)
        return found

    def __add__(self, other: Objective | float) -> Objective:
        if isinstance(other, Objective):
            return Objective(self.terms + other.terms, self.constant + other.constant)
        return Objective(self.terms, self.constant + _number(other))

    __radd__ = __add__

    def __neg__(self) -> Objective:
        return self * -1.0

    def __sub__(self, other: Objective | float) -> Objective:
        return self + (-other if isinstance(other, Objective) else -_number(other))

    def __rsub__(self, other: float) -> Objective:
        return -self + other

    def __mul__(self, factor: float) -> Objective:
        factor = _number(factor)
        terms = tuple(Term(term.weight * factor, term.unit) for term in self.terms)
        return Objective(terms, self.constant * factor)

    __rmul__ = __mul__

    def __str__(self) -> str:
        return self.text


What: TypeAlias = "str | Site | Objective | Function | tuple[str | Site, Any]"


def objective(
    model: Model,
    what: What,
    how: How = "channel",
    *,
    paths: str | Sequence[str] = (),
    name: str = "",
) -> Objective:
    """Make an objective of a unit of a model.

    Args:
        model: a module or a language model.
        what: an address (``"_blocks.9:c17"``, ``"L12.N304"``); a pair of where and a direction
            there, ``("_blocks.9", vector)`` over the channels, ``("L12.resid_post[dog]", vector)``
            over the model's coordinates, ``("L5.H3", vector)`` over the head's own d_head
            coordinates or over what it writes (d_model numbers, taken through W_O);
            ``("logits", token)``, the token as text or id; an objective, which is returned as it
            is; or a function of the values of ``paths`` (see :meth:`Objective.of_function`).
        how: how all places become one number; see the module's docstring. Of a language model,
            ``"channel"`` and ``"centre"`` mean ``"last"``; of a module, ``"last"`` means
            ``"channel"``.
        paths: what a function reads: module paths, or hook points or addresses of a language model.
        name: what to call a function.

    Raises:
        AddressError: when the model has no such unit.
        InputError: when it is not one number, or the direction does not fit.
    """
    if isinstance(what, Objective):
        return what
    if how not in get_args(How):
        msg = f"How places become one number is one of {', '.join(get_args(How))}, not {how!r}."
        raise InputError(msg)
    anatomy = model.anatomy
    if callable(what):
        names = (paths,) if isinstance(paths, str) else tuple(paths)
        hooks = [_hook_named(anatomy, path) for path in names]
        return Objective.of_function(what, paths=hooks, name=name, names=names)
    where: object = what
    given: Any = None
    if isinstance(what, tuple) and len(what) == 2:
        where, given = what
    if not isinstance(where, str | Site):
        msg = (
            "What is maximised is an address such as '_blocks.9:c17', a pair of an address and a "
            f"vector, an Objective or a function, not {type(what).__name__}."
        )
        raise InputError(msg)
    unit: Unit
    if isinstance(anatomy, Anatomy):
        unit = _neuron(cast("LanguageModel", model), where, given, how)
    else:
        unit = _channel(anatomy, where, given, how)
    return Objective((Term(1.0, unit),))


# --------------------------------------------------------------------------------- in a module


def _channel(anatomy: ModuleAnatomy, where: str | Site, given: Any, how: How) -> Channel:
    how = "channel" if how == "last" else how
    if given is None:
        site = anatomy.check(where)
        return Channel(site, str(site), anatomy.hook(site), how)
    path, name = _split_name(str(where.name) if isinstance(where, Site) else where)
    path, at, call = path.partition("@")
    channels = anatomy.part(path).channels
    site = Site("module", name=path, index=0, positions=as_positions(call if at else ()))
    direction = _direction(given, {channels: "channels"}, path)
    return Channel(site, f"{path}[{name}]{at}{call}", anatomy.hook(site), how, direction)


def _split_name(text: str) -> tuple[str, str]:
    """Split what a direction lives in from its name: ``_blocks.9[fur]@1``."""
    path, bracket, rest = text.strip().partition("[")
    name, _, call = rest.partition("]")
    return path + call, name if bracket else "direction"


# ------------------------------------------------------------------------- in a language model


def _neuron(model: LanguageModel, where: str | Site, given: Any, how: How) -> Neuron:
    anatomy = model.anatomy
    how = "peak" if how == "peak" else "last"
    site = Site.parse(where) if isinstance(where, str) else where
    anatomy.check(site)
    if site.kind == "neuron" and site.part != "act":
        _no_vector(given, site)
        return Neuron(site, str(site), anatomy.hook(site), how, site.index)
    if site.kind == "logits" and given is not None:
        token = model.token_id(given)
        text = f"logits[{model.token_text(token)}]"
        return Neuron(site, text, anatomy.hook(site), how, token)
    if site.kind == "head" and given is not None:
        return _head(model, site, given, how)
    home = anatomy.home(site)
    if home.kind in {*COMPONENTS, "embed"} and given is not None:
        direction = _direction(given, {anatomy.d_model: "coordinates"}, str(site))
        return Neuron(site, _named(site), anatomy.hook(site), how, None, direction)
    raise AddressError(_not_a_number(site))


def _head(model: LanguageModel, site: Site, given: Any, how: How) -> Neuron:
    anatomy = model.anatomy
    head = site.index or 0
    if site.part in {"k", "v"}:
        head = anatomy.kv_head(head)
    # A model of one head may have d_head = d_model: then the vector is over what it writes.
    sizes = {anatomy.d_head: "coordinates of the head"}
    if site.part == "z":
        sizes[anatomy.d_model] = "coordinates of what it writes"
    direction = _direction(given, sizes, str(site))
    if site.part == "z" and len(direction.vector) == anatomy.d_model:
        d = torch.tensor(direction.vector, dtype=torch.float64)
        W_O = head_output(model.bridge, site.layer or 0, head).cpu().double()
        # (z W_O . d) / (d . d) as a coefficient along e: e / (e . e) must be W_O d / (d . d).
        dual = (W_O @ d) / (d @ d)
        direction = _direction(dual / (dual @ dual), sizes, str(site))
    return Neuron(site, _named(site), anatomy.hook(site), how, head, direction)


def _named(site: Site) -> str:
    return str(site) if site.kind == "direction" else f"{site.address}[direction]"


def _not_a_number(site: Site) -> str:
    if site.kind == "logits":
        return 'logits is many numbers: say of which token, such as ("logits", " Paris").'
    if site.part == "act":
        return f"{site} is not read at one hook point: use its :post or its :gate."
    if site.kind in {"cell", "edge"}:
        return f"{site} is no number for each position: use a neuron, a logit or a direction."
    return (
        f"{site} is a vector: give a direction in it as well, such as ({str(site)!r}, vector), "
        "and the number along it is maximised."
    )


def _no_vector(given: Any, site: Site) -> None:
    if given is not None:
        msg = f"{site} is one number already; a direction is given in a layer or a head."
        raise InputError(msg)


# ------------------------------------------------------------------------------------- of both


def _hook_named(anatomy: Anatomy | ModuleAnatomy, name: str) -> str:
    """Return where a function's values are read: a module path, or a hook point of an address."""
    if not isinstance(anatomy, Anatomy):
        path, at, call = name.partition("@")
        anatomy.part(path)
        positions = as_positions(call if at else ())
        return anatomy.hook(Site("module", name=path, index=0, positions=positions))
    if "hook_" in name:
        return name
    return anatomy.hook(Site.parse(name))


def _direction(given: Any, sizes: Mapping[int, str], where: str) -> Direction:
    try:
        vector = torch.as_tensor(given).detach().cpu().double()
    except (TypeError, ValueError, RuntimeError) as error:
        msg = f"A direction in {where} is a list of numbers, not {type(given).__name__}."
        raise InputError(msg) from error
    if vector.ndim != 1 or len(vector) not in sizes:
        wanted = " or ".join(f"{size} numbers ({what})" for size, what in sizes.items())
        msg = f"A direction in {where} is {wanted}, not of the shape {tuple(vector.shape)}."
        raise InputError(msg)
    if not bool(vector.isfinite().all()) or not bool(vector.any()):
        msg = f"The direction in {where} must be finite and longer than zero."
        raise InputError(msg)
    return Direction(tuple(vector.tolist()))


def _times(term: Term) -> str:
    weight = abs(term.weight)
    return term.unit.text if weight == 1 else f"{weight:g} × {term.unit.text}"


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        msg = (
            "An objective is weighed with and added to finite numbers and other objectives, not "
            f"{value if isinstance(value, Real) else type(value).__name__}."
        )
        raise InputError(msg)
    return float(value)
