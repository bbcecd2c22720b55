"""Addresses: which value inside a model is meant, at which positions, as text that round-trips.

A `Site` names one value (`L12.N304`, `L5.H3`, `L7.mlp`, `L5.H3[7<-2]`, `L3.H1->L7.H2:q`), a
`SiteSet` many (`L[20:30].N*`, `{L3.N5, L3.N9}`, joined with ` | `, ` - ` and ` & `). Both may end
in positions (`@-1`, `@0:5`, `@1,3,-1`, `@all`, `@new`), but for attention cells, whose positions
stand in their brackets (`L5.H3[7:9<-2:5]`, `L[3:9].H*[*<-2]`). What a model really has is not
known here: `models/anatomy.py` checks that.

>>> str(Site.parse("L12.N304:post@-1"))
'L12.N304@-1'
>>> str(parse_site("L[20:30].N* - {L20.N5}"))
'L[20:30].N* - {L20.N5}'
"""

from __future__ import annotations

import difflib
import random
import re
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NoReturn, Protocol, overload

from .errors import AddressError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

Kind = Literal[
    "neuron",
    "head",
    "mlp",
    "attn",
    "resid_pre",
    "resid_mid",
    "resid_post",
    "embed",
    "logits",
    "cell",
    "edge",
    "direction",
    "feature",
    "module",
    "variable",
]

NEURON_PARTS = ("post", "pre", "gate", "act", "up")
HEAD_PARTS = ("z", "q", "k", "v")
COMPONENTS = ("mlp", "attn", "resid_pre", "resid_mid", "resid_post")

_EXAMPLES = "L12.N304, L5.H3, L7.mlp, L7.resid_post, L5.H3[7<-2], L3.H1->L7.H2:q, L[20:30].N*"
# An address names things in a model; no model has more than this of anything.
_LARGEST = 10**9
_LONGEST = 20_000


def _integer(text: str) -> int:
    if len(text) > len(str(_LARGEST)):
        raise AddressError(f"{text[:20]}... is larger than any index of a model.")
    return int(text)


# ---------------------------------------------------------------------------------- positions


@dataclass(frozen=True, slots=True)
class Span:
    """Prompt positions from `start` up to, not including, `stop`; either may be left open."""

    start: int | None
    stop: int | None

    def __str__(self) -> str:
        start = "" if self.start is None else self.start
        stop = "" if self.stop is None else self.stop
        return f"{start}:{stop}"


PositionItem = int | Span | Literal["all", "new"]

_POSITION = re.compile(r"-?\d+|(?:-?\d+)?:(?:-?\d+)?|all|new")


def _position_order(item: PositionItem) -> tuple[int, int, int]:
    if isinstance(item, int):
        return (0, item, 0) if item >= 0 else (1, item, 0)
    if isinstance(item, Span):
        bounds = [_LARGEST if bound is None else bound for bound in (item.start, item.stop)]
        return (2, bounds[0], bounds[1])
    return (3, 0, 0)


@dataclass(frozen=True, slots=True)
class Positions:
    """Which token positions are meant. Positions count the tokens of the prompt as shown.

    No items mean all positions but a beginning-of-sequence token, and the generated ones. An
    integer is a prompt position (`-1` the prompt's last token, also while generating), a `Span`
    several of them, `"all"` everything, `"new"` the generated ones.
    """

    items: tuple[PositionItem, ...] = ()

    def __post_init__(self) -> None:
        unique = sorted(set(self.items), key=_position_order)
        items = ("all",) if "all" in unique else tuple(unique)
        object.__setattr__(self, "items", items)

    @classmethod
    def parse(cls, text: str) -> Positions:
        """Read `-1`, `0:5`, `1,3,-1`, `all`, `new`, or a comma-separated list of them.

        Raises:
            AddressError: when the text says no positions.
        """
        text = text.strip().removeprefix("@").strip()
        if not text:
            return cls()
        items: list[PositionItem] = []
        for part in (piece.strip() for piece in text.split(",")):
            if part == "all":
                items.append("all")
            elif part == "new":
                items.append("new")
            elif not _POSITION.fullmatch(part):
                raise AddressError(
                    f"{_short(part)!r} is not a position: write @-1 (the last token), @3, @0:5, "
                    "@1,3,-1, @all or @new (the generated tokens)."
                )
            elif ":" in part:
                start, stop = part.split(":")
                items.append(
                    Span(_integer(start) if start else None, _integer(stop) if stop else None)
                )
            else:
                items.append(_integer(part))
        return cls(tuple(items))

    @property
    def is_default(self) -> bool:
        """Whether nothing was said: all positions but a beginning-of-sequence token."""
        return not self.items

    @property
    def touches_generated(self) -> bool:
        """Whether generated tokens are meant too."""
        return not self.items or "all" in self.items or "new" in self.items

    def mask(self, start: int, stop: int, prompt: int, has_bos: bool) -> list[bool]:  # noqa: FBT001
        """For each absolute position from `start` to `stop`, whether it is meant.

        Args:
            start: First absolute position.
            stop: One past the last absolute position.
            prompt: Number of prompt tokens; positions from here on are generated.
            has_bos: Whether position 0 is a beginning-of-sequence token that was put in front.
        """
        meant = set(self._prompt_positions(prompt, has_bos=has_bos))
        new = self.touches_generated
        return [(p in meant) if p < prompt else new for p in range(start, stop)]

    def indices(
        self,
        start: int,
        stop: int,
        prompt: int,
        has_bos: bool,  # noqa: FBT001
    ) -> list[int]:
        """The absolute positions meant, from `start` to `stop`, in order (see `mask`)."""
        mask = self.mask(start, stop, prompt, has_bos)
        return [start + offset for offset, meant in enumerate(mask) if meant]

    def first(self, prompt: int, has_bos: bool) -> int | None:  # noqa: FBT001
        """The first prompt position meant, or None when only generated ones are."""
        return next(iter(self._prompt_positions(prompt, has_bos=has_bos)), None)

    def check(self, n_positions: int) -> None:
        """Say when a position lies outside a prompt of `n_positions` tokens.

        Raises:
            AddressError: naming the positions there are.
        """
        for item in self.items:
            if isinstance(item, int) and not -n_positions <= item < n_positions:
                raise AddressError(
                    f"position {item} is out of range: the prompt has {n_positions} tokens, "
                    f"positions 0 to {n_positions - 1} (or -1 to {-n_positions} from the end)."
                )
            if isinstance(item, Span) and not range(n_positions)[slice(item.start, item.stop)]:
                raise AddressError(
                    f"positions {item} select nothing: the prompt has {n_positions} tokens, "
                    f"positions 0 to {n_positions - 1}; {item} stops before its end."
                )

    def _prompt_positions(self, prompt: int, *, has_bos: bool) -> list[int]:
        every = range(prompt)
        if not self.items:
            return list(every[1:] if has_bos else every)
        if "all" in self.items:
            return list(every)
        meant: set[int] = set()
        for item in self.items:
            if isinstance(item, int):
                position = item + prompt if item < 0 else item
                if 0 <= position < prompt:
                    meant.add(position)
            elif isinstance(item, Span):
                meant.update(every[slice(item.start, item.stop)])
        return sorted(meant)

    def __str__(self) -> str:
        return ",".join(str(item) for item in self.items)


EVERYWHERE = Positions()


def as_positions(value: Positions | str | int | Iterable[int]) -> Positions:
    """Positions from what people write: `"-1"`, `-1`, `[0, 3]`, or a `Positions`."""
    if isinstance(value, Positions):
        return value
    if isinstance(value, str):
        return Positions.parse(value)
    if isinstance(value, int):
        return Positions((int(value),))
    return Positions(tuple(int(item) for item in value))


# --------------------------------------------------------------------------------------- site

#: One end of an attention cell: a position, several (from, up to but not including), or all (None).
End = int | tuple[int, int] | None


def end_positions(end: End) -> Positions:
    """The positions that one end of an attention cell stands for."""
    if end is None:
        return Positions(("all",))
    return Positions((end if isinstance(end, int) else Span(*end),))


def _end_text(end: End) -> str:
    if end is None:
        return "*"
    return str(end) if isinstance(end, int) else f"{end[0]}:{end[1]}"


def _cell_text(cell: tuple[End, End]) -> str:
    return f"[{_end_text(cell[0])}<-{_end_text(cell[1])}]"


def _plain_end(end: End) -> End:
    """A range of one position is that position."""
    one = isinstance(end, tuple) and end[1] == end[0] + 1 and end[1] != 0
    return end[0] if one and isinstance(end, tuple) else end


@dataclass(frozen=True, slots=True)
class Site:
    """One address. Make one with `Site.parse`; `str(site)` prints its canonical form.

    Attributes:
        kind: What is named; it says which of the other fields mean something.
        layer: Block number, for what lives in a block.
        index: Neuron, head, channel, feature, or index of a stepped variable.
        part: Neuron: `post` (the value that the output projection reads), `pre` (before the
            nonlinearity of an MLP without a gate), `gate` (before it), `act` (after it) and `up`
            of a gated one. Head: `z` (TransformerLens `hook_z`), `q`, `k`, `v` (before rotary
            embedding). Heads that share a key/value head share `k` and `v`.
        cell: Of attention cells, (destination, source), each a position, a range (from, up to but
            not including) or None for all of them.
        name: Module path, name of a direction, of a basis, or of a stepped variable.
        component: Of a direction, what it lives in: `resid_post`, `mlp`, `embed`, ...
        ends: Of an edge, its source and its destination.
        positions: Token positions meant; an edge's are those of its destination.
    """

    kind: Kind
    layer: int | None = None
    index: int | None = None
    part: str | None = None
    cell: tuple[End, End] | None = None
    name: str | None = None
    component: str | None = None
    ends: tuple[Site, Site] | None = None
    positions: Positions = EVERYWHERE

    def __post_init__(self) -> None:
        if self.cell is not None:
            plain = (_plain_end(self.cell[0]), _plain_end(self.cell[1]))
            object.__setattr__(self, "cell", plain)

    @classmethod
    def parse(cls, text: str) -> Site:
        """Read the address of one value.

        Raises:
            AddressError: when the text is no address, or that of a set.
        """
        site = parse_site(text)
        if not isinstance(site, Site):
            raise AddressError(f"{_short(text)!r} is a set of sites; one site is needed here.")
        return site

    @property
    def source(self) -> Site:
        """An edge's source."""
        return self._ends[0]

    @property
    def destination(self) -> Site:
        """An edge's destination."""
        return self._ends[1]

    @property
    def _ends(self) -> tuple[Site, Site]:
        if self.ends is None:
            raise AddressError(f"{self} is not an edge, so it has no source and destination.")
        return self.ends

    def at(self, positions: Positions | str | int | Iterable[int]) -> Site:
        """The same value at other positions."""
        positions = as_positions(positions)
        if self.kind == "cell" and not positions.is_default:
            raise _brackets_say(self, positions)
        return replace(self, positions=positions)

    @property
    def address(self) -> str:  # noqa: PLR0911 (a table: one line for each kind)
        """The canonical address without its positions."""
        layer = f"L{self.layer}."
        match self.kind:
            case "neuron":
                return f"{layer}N{self.index}" + ("" if self.part == "post" else f":{self.part}")
            case "head":
                return f"{layer}H{self.index}" + ("" if self.part == "z" else f":{self.part}")
            case "cell":
                return f"{layer}H{self.index}{_cell_text(self.cell or (None, None))}"
            case "edge":
                return f"{self.source.address}->{self.destination.address}"
            case "direction":
                home = "embed" if self.component == "embed" else f"{layer}{self.component}"
                return f"{home}[{self.name}]"
            case "feature":
                return f"{layer}{self.name}.F{self.index}"
            case "module":
                return f"{self.name}:c{self.index}"
            case "variable":
                return f"{self.name}[{self.index}]"
            case "embed" | "logits":
                return self.kind
            case _:
                return f"{layer}{self.kind}"

    def __str__(self) -> str:
        return self.address if self.positions.is_default else f"{self.address}@{self.positions}"

    def __or__(self, other: Site | SiteSet) -> SiteSet:
        return SiteSet.of(self) | other

    def __sub__(self, other: Site | SiteSet) -> SiteSet:
        return SiteSet.of(self) - other

    def __and__(self, other: Site | SiteSet) -> SiteSet:
        return SiteSet.of(self) & other


def _brackets_say(site: Site | Pattern, positions: Positions) -> AddressError:
    return AddressError(
        f"{site} says its positions in its brackets, [destination<-source]; leave out @{positions}."
    )


# ---------------------------------------------------------------------------------------- sets


class Sizes(Protocol):
    """How many of each thing a model has; `Anatomy` is one."""

    @property
    def n_layers(self) -> int:
        """Number of blocks."""
        ...

    @property
    def n_heads(self) -> int:
        """Number of (query) heads in a block."""
        ...

    def n_neurons(self, layer: int) -> int:
        """Number of MLP neurons in a block; 0 when it has no such MLP."""
        ...


@dataclass(frozen=True, slots=True)
class Pattern:
    """All sites of one kind in a range of layers and of indices: `L[20:30].N[0:10]:act@-1`.

    `layers` and `indices` are (start, stop), stop None for all that there are; `indices` is None
    for a whole component such as `mlp`. `cell` is that of each head, of attention cells such as
    `L[3:9].H*[7<-2]`.
    """

    kind: Kind
    layers: tuple[int, int | None]
    indices: tuple[int, int | None] | None = None
    part: str | None = None
    positions: Positions = EVERYWHERE
    cell: tuple[End, End] | None = None

    def __str__(self) -> str:
        # One layer of a whole component would read back as a single site.
        text = f"L{_range_text(self.layers, single=self.indices is not None)}."
        if self.indices is None:
            text += self.kind
        else:
            text += f"{'N' if self.kind == 'neuron' else 'H'}{_range_text(self.indices)}"
            text += "" if self.part in {None, "post", "z"} else f":{self.part}"
        if self.cell is not None:
            text += _cell_text(self.cell)
        return text if self.positions.is_default else f"{text}@{self.positions}"

    def members(self, sizes: Sizes) -> Iterator[Site]:
        """Its sites, one by one.

        Raises:
            AddressError: when it names a layer or an index that the model does not have.
        """
        for layer in _clip(self.layers, sizes.n_layers, f"{self}: layer", strict=True):
            if self.indices is None:
                yield Site(self.kind, layer, positions=self.positions)
                continue
            count = sizes.n_neurons(layer) if self.kind == "neuron" else sizes.n_heads
            noun = "neuron" if self.kind == "neuron" else "head"
            for index in _clip(self.indices, count, f"{self}: in layer {layer}, {noun}"):
                yield Site(
                    self.kind, layer, index, self.part, cell=self.cell, positions=self.positions
                )


def _range_text(bounds: tuple[int, int | None], *, single: bool = False) -> str:
    start, stop = bounds
    if stop is None:
        return "*" if start == 0 else f"[{start}:]"
    if single and stop == start + 1:
        return str(start)
    return f"[{start}:{stop}]"


def _clip(bounds: tuple[int, int | None], count: int, what: str, *, strict: bool = False) -> range:
    start, stop = bounds
    if stop is None:
        if strict and start >= count:
            raise AddressError(f"{what} {start} does not exist; the last is {count - 1}.")
        return range(min(start, count), count)
    if stop > count:
        last = f"the last is {count - 1}" if count else "there are none"
        raise AddressError(f"{what} {stop - 1} does not exist; {last}.")
    return range(start, stop)


SetOperation = Literal["|", "-", "&"]
# As in Python: minus binds closest, then &, then |.
_BINDS: Mapping[str, int] = {"|": 1, "&": 2, "-": 3}


@dataclass(frozen=True, slots=True)
class SiteSet:
    """A set of sites, written down rather than listed: what `*` stands for depends on the model.

    `expand(sizes)` lists it. Union, difference and intersection are `|`, `-` and `&`.
    """

    operation: SetOperation | None = None
    left: SiteSet | None = None
    right: SiteSet | None = None
    sites: tuple[Site, ...] = ()
    pattern: Pattern | None = None

    @classmethod
    def of(cls, *sites: Site | SiteSet | str) -> SiteSet:
        """The set of the given sites; given sets are joined."""
        parsed = [parse_site(site) if isinstance(site, str) else site for site in sites]
        single = [site for site in parsed if isinstance(site, Site)]
        result = cls(sites=tuple(dict.fromkeys(single)))
        for other in (site for site in parsed if isinstance(site, SiteSet)):
            result = result | other if result.sites or result.operation else other
        return result

    @classmethod
    def parse(cls, text: str) -> SiteSet:
        """Read a set; a single address becomes a set of one.

        Raises:
            AddressError: when the text is neither.
        """
        site = parse_site(text)
        return site if isinstance(site, SiteSet) else cls(sites=(site,))

    def __or__(self, other: Site | SiteSet) -> SiteSet:
        return SiteSet("|", self, _as_set(other))

    def __sub__(self, other: Site | SiteSet) -> SiteSet:
        return SiteSet("-", self, _as_set(other))

    def __and__(self, other: Site | SiteSet) -> SiteSet:
        return SiteSet("&", self, _as_set(other))

    def at(self, positions: Positions | str | int | Iterable[int]) -> SiteSet:
        """The same values at other positions."""
        positions = as_positions(positions)
        if self.operation is not None and self.left is not None and self.right is not None:
            return SiteSet(self.operation, self.left.at(positions), self.right.at(positions))
        if self.pattern is not None:
            if self.pattern.cell is not None and not positions.is_default:
                raise _brackets_say(self.pattern, positions)
            return SiteSet(pattern=replace(self.pattern, positions=positions))
        return SiteSet(sites=tuple(dict.fromkeys(site.at(positions) for site in self.sites)))

    @property
    def kinds(self) -> frozenset[Kind]:
        """The kinds of site that the set may hold, without asking a model."""
        if self.operation is not None and self.left is not None and self.right is not None:
            return self.left.kinds if self.operation != "|" else self.left.kinds | self.right.kinds
        if self.pattern is not None:
            return frozenset([self.pattern.kind])
        return frozenset(site.kind for site in self.sites)

    @property
    def written(self) -> tuple[Site | Pattern, ...]:
        """The sites and patterns as written, those of a difference's right side included."""
        if self.operation is not None and self.left is not None and self.right is not None:
            return self.left.written + self.right.written
        return (self.pattern,) if self.pattern is not None else self.sites

    def expand(self, sizes: Sizes) -> list[Site]:
        """Its members, each once, in the order written.

        Raises:
            AddressError: when a range goes past what the model has.
        """
        return list(self.members(sizes))

    def members(self, sizes: Sizes) -> dict[Site, None]:
        """Its members as the keys of a dictionary, in the order written."""
        if self.operation is not None and self.left is not None and self.right is not None:
            left, right = self.left.members(sizes), self.right.members(sizes)
            if self.operation == "|":
                return left | right
            keep = self.operation == "&"
            return {site: None for site in left if (site in right) is keep}
        if self.pattern is not None:
            return dict.fromkeys(self.pattern.members(sizes))
        return dict.fromkeys(self.sites)

    def counts_by_layer(self, sizes: Sizes) -> dict[int, int]:
        """How many members each layer has (what lives in no layer is not counted)."""
        layers = (site.layer for site in self.members(sizes))
        counts = Counter(layer for layer in layers if layer is not None)
        return dict(sorted(counts.items()))

    def random(self, seed: int, sizes: Sizes, exclude: Collection[Site] = ()) -> SiteSet:
        """A random set with the same counts by layer, kind, part and positions: a control.

        Members of this set are never drawn, nor the values in `exclude` (the massive-activation
        neurons, say; their positions do not matter). The same seed draws the same set.

        Args:
            seed: Seed of the draw.
            sizes: The model's anatomy.
            exclude: Sites that must not be drawn.

        Raises:
            AddressError: when the set has sites other than neurons and heads, or too few are left.
        """
        generator = random.Random(seed)  # noqa: S311 (a control, not a secret)
        groups: dict[tuple[Kind, int, str | None, Positions], set[int]] = {}
        for site in self.members(sizes):
            if site.kind not in {"neuron", "head"} or site.layer is None or site.index is None:
                raise AddressError(
                    f"{site} has no random counterpart: a random control is drawn for neurons and "
                    "heads."
                )
            groups.setdefault((site.kind, site.layer, site.part, site.positions), set()).add(
                site.index
            )
        banned = {(site.kind, site.layer, site.index) for site in exclude}
        taken = {(kind, layer, i) for (kind, layer, _, _), own in groups.items() for i in own}
        drawn: list[Site] = []
        for (kind, layer, part, positions), own in groups.items():
            count = sizes.n_neurons(layer) if kind == "neuron" else sizes.n_heads
            pool = [i for i in range(count) if (kind, layer, i) not in banned | taken]
            if len(pool) < len(own):
                raise AddressError(
                    f"layer {layer} has {len(pool)} {kind}s left to draw from, but a control for "
                    f"{len(own)} of its {count} needs as many; take fewer of them."
                )
            drawn.extend(
                Site(kind, layer, index, part, positions=positions)
                for index in sorted(generator.sample(pool, len(own)))
            )
        return SiteSet(sites=tuple(drawn))

    def __str__(self) -> str:
        if self.operation is not None and self.left is not None and self.right is not None:
            left, right = str(self.left), str(self.right)
            own = _BINDS[self.operation]
            if self.left.operation is not None and _BINDS[self.left.operation] < own:
                left = f"({left})"
            if self.right.operation is not None and _BINDS[self.right.operation] <= own:
                right = f"({right})"
            return f"{left} {self.operation} {right}"
        if self.pattern is not None:
            return str(self.pattern)
        return "{" + ", ".join(str(site) for site in self.sites) + "}"


SiteLike = Site | SiteSet | str


def _as_set(site: Site | SiteSet) -> SiteSet:
    return site if isinstance(site, SiteSet) else SiteSet(sites=(site,))


# ------------------------------------------------------------------------------------- reading

_LAYERED = re.compile(r"L(\d+)\.(.+)", re.DOTALL)
_UNIT = re.compile(r"([NH])(\d+)(?::(\w+))?")
_END = r"\s*(\*|-?\d+(?:\s*:\s*-?\d+)?)\s*"
_CELL = re.compile(rf"H(\d+)\[{_END}<-{_END}\]")
_NAMED = re.compile(r"(\w+)\[([^\[\]\n\r]*)\]")
_FEATURE = re.compile(r"([A-Za-z_]\w*)\.F(\d+)")
_MODULE = re.compile(r"(\w+(?:\.\w+)*):c(\d+)")
_VARIABLE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)\[(\d+)\]")
_RANGE = r"(\d+|\*|\[\d*:\d*\])"
_PATTERN = re.compile(rf"L{_RANGE}\.(?:([NH])(\*|\d+|\[\d*:\d*\])(?::(\w+))?|([a-z_]+))")
_CELLS = re.compile(rf"L{_RANGE}\.H(\*|\d+|\[\d*:\d*\])\[{_END}<-{_END}\]")
_POSITION_ITEM = re.compile(rf"\s*(?:{_POSITION.pattern})\s*")


@overload
def as_site(site: Site) -> Site: ...
@overload
def as_site(site: SiteSet) -> SiteSet: ...
@overload
def as_site(site: str) -> Site | SiteSet: ...
def as_site(site: SiteLike) -> Site | SiteSet:
    """A site from what people write: an address, or a site itself."""
    if isinstance(site, (Site, SiteSet)):
        return site
    return parse_site(site)


def parse_site(text: str) -> Site | SiteSet:
    """Read an address.

    Args:
        text: For instance `L12.N304@-1` or `L[20:30].N* - {L20.N5}`.

    Returns:
        A `Site` when one value is named, else a `SiteSet`.

    Raises:
        AddressError: a sentence saying what cannot be read, and what is nearest to it.
    """
    if not isinstance(text, str):
        raise AddressError(f"an address is a text such as L12.N304, not {type(text).__name__}.")
    stripped = text.strip()
    if not stripped:
        raise AddressError(f"an empty text is no address; write one such as {_EXAMPLES}.")
    if len(stripped) > _LONGEST:
        raise AddressError(f"an address of {len(stripped)} characters is too long to be one.")
    return _SetReader(stripped).read()


class _SetReader:
    """Reads `a | b`, `a - b`, `a & b`, `(a)`, `{a, b}`; operators have spaces around them."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.depth = 0

    def read(self) -> Site | SiteSet:
        result = self._join(1)
        if self.at < len(self.text):
            raise AddressError(
                f"{_short(self.text)!r} cannot be read from {_short(self.text[self.at :])!r} on; "
                "join sets with ' | ', ' - ' and ' & ', with spaces around them."
            )
        return result

    def _join(self, tightness: int) -> Site | SiteSet:
        if tightness > max(_BINDS.values()):
            return self._term()
        left = self._join(tightness + 1)
        while (operation := self._operator(tightness)) is not None:
            right = self._join(tightness + 1)
            left = SiteSet(operation, _as_set(left), _as_set(right))
        return left

    def _operator(self, tightness: int) -> SetOperation | None:
        operators: tuple[SetOperation, ...] = ("|", "-", "&")
        for operation in operators:
            if _BINDS[operation] != tightness:
                continue
            match = re.compile(rf"\s+{re.escape(operation)}\s+").match(self.text, self.at)
            if match:
                self.at = match.end()
                return operation
        return None

    def _term(self) -> Site | SiteSet:
        opening = self.text[self.at : self.at + 1]
        if opening not in {"(", "{"}:
            end = _end_of_address(self.text, self.at)
            address = self.text[self.at : end]
            self.at = end
            return _parse_address(address)
        close = _closing(self.text, self.at)
        inside = self.text[self.at + 1 : close]
        self.at = close + 1
        result: SiteSet
        if opening == "(":
            self.depth += inside.count("(")
            if self.depth > 50:  # far more than anybody writes by hand
                raise AddressError("a set with more than 50 nested parentheses is too deep.")
            nested = _SetReader(inside.strip())
            nested.depth = self.depth
            if not inside.strip():
                raise AddressError("() is empty; write a set inside, such as (L3.N* | L4.N*).")
            result = _as_set(nested.read())
        else:
            result = SiteSet(sites=tuple(dict.fromkeys(_members_of(inside))))
        if self.text[self.at : self.at + 1] == "@":
            end = _end_of_address(self.text, self.at)
            positions = Positions.parse(self.text[self.at : end])
            self.at = end
            result = result.at(positions)
        return result


def _members_of(inside: str) -> Iterator[Site]:
    pieces: list[str] = []
    for piece in _split_commas(inside):
        # {L3.N5@1,3, L3.N9}: a bare position belongs to the address before it.
        if pieces and "@" in pieces[-1] and _POSITION_ITEM.fullmatch(piece):
            pieces[-1] += f",{piece.strip()}"
        else:
            pieces.append(piece)
    for piece in pieces:
        if not piece.strip():
            if len(pieces) == 1:
                return
            raise AddressError(f"{{{_short(inside)}}} has an empty place between its commas.")
        member = _parse_address(piece.strip())
        if isinstance(member, SiteSet):
            raise AddressError(
                f"{piece.strip()!r} stands for several sites; braces list single ones. Join sets "
                "with ' | '."
            )
        yield member


def _split_commas(text: str) -> list[str]:
    pieces, depth, start = [], 0, 0
    for place, character in enumerate(text):
        depth += (character == "[") - (character == "]")
        if character == "," and depth == 0:
            pieces.append(text[start:place])
            start = place + 1
    return [*pieces, text[start:]]


def _closing(text: str, at: int) -> int:
    pairs = {"(": ")", "{": "}"}
    opening, depth, square = text[at], 0, 0
    for place in range(at, len(text)):
        character = text[place]
        square += (character == "[") - (character == "]")
        if square > 0:  # brackets may hold a direction's name, which may hold anything
            continue
        depth += (character == opening) - (character == pairs[opening])
        if depth == 0:
            return place
    raise AddressError(f"{_short(text[at:])!r} opens a {opening} that is not closed.")


def _end_of_address(text: str, at: int) -> int:
    operator = re.compile(r"\s+[|&-]\s+")
    square = 0
    for place in range(at, len(text)):
        square += (text[place] == "[") - (text[place] == "]")
        if square == 0 and text[place].isspace() and operator.match(text, place):
            return place
    return len(text)


def _split_outside(text: str, separator: str) -> tuple[str, str | None]:
    """Split at the first `separator` that is in no square brackets."""
    square = 0
    for place, character in enumerate(text):
        square += (character == "[") - (character == "]")
        if square == 0 and text.startswith(separator, place):
            return text[:place], text[place + len(separator) :]
    return text, None


def _parse_address(text: str) -> Site | SiteSet:
    body, suffix = _split_outside(text, "@")
    body = body.strip()
    if suffix is not None and not suffix.strip():
        raise AddressError(f"{_short(text)!r} ends in @ without positions; write @-1, or no @.")
    positions = Positions.parse(suffix or "")
    start, end = _split_outside(body, "->")
    if end is not None:
        return _parse_edge(start.strip(), end.strip(), positions)
    site = _parse_value(body)
    if site is None:
        return _parse_pattern(body, positions)
    return site.at(positions)


def _parse_edge(start: str, end: str, positions: Positions) -> Site:
    source, destination = _parse_value(start), _parse_value(end)
    if source is None or not (
        source.kind in {"mlp", "embed"}
        or (source.kind, source.part) in {("neuron", "post"), ("head", "z")}
    ):
        raise AddressError(
            f"{_short(start)!r} cannot be the source of an edge; it may be a head (L3.H1), an MLP "
            "(L3.mlp), a neuron (L3.N5) or embed."
        )
    if destination is not None and destination.kind == "head" and destination.part == "z":
        raise AddressError(
            f"{_short(end)!r} reads the residual stream three times; say which: {end}:q, {end}:k "
            f"or {end}:v."
        )
    if destination is None or destination.kind not in {"mlp", "head", "logits"}:
        raise AddressError(
            f"{_short(end)!r} cannot be the destination of an edge; it may be a head's input "
            "(L7.H2:q, :k, :v), an MLP (L7.mlp) or logits."
        )
    return Site("edge", ends=(source, destination), positions=positions)


def _parse_value(body: str) -> Site | None:
    """One value without positions; None when the text stands for several."""
    if body in {"embed", "logits"}:
        return Site("embed" if body == "embed" else "logits")
    if body.startswith("embed["):
        return _direction(body, None)
    layered = _LAYERED.fullmatch(body)
    if layered:
        layer, rest = _integer(layered[1]), layered[2]
        return _parse_layered(body, layer, rest)
    if module := _MODULE.fullmatch(body):
        return Site("module", name=module[1], index=_integer(module[2]))
    if variable := _VARIABLE.fullmatch(body):
        return Site("variable", name=variable[1], index=_integer(variable[2]))
    return None


def _parse_layered(body: str, layer: int, rest: str) -> Site | None:
    if unit := _UNIT.fullmatch(rest):
        return _unit(body, layer, unit[1], _integer(unit[2]), unit[3])
    if cell := _CELL.fullmatch(rest):
        return Site("cell", layer, _integer(cell[1]), cell=(_end(cell[2]), _end(cell[3])))
    for component in COMPONENTS:
        if rest == component:
            return Site(component, layer)  # type: ignore[arg-type] # every component is a kind
    if feature := _FEATURE.fullmatch(rest):
        return Site("feature", layer, _integer(feature[2]), name=feature[1])
    if (named := _NAMED.fullmatch(rest)) and named[1] in COMPONENTS:
        return _direction(rest, layer)
    return None


def _end(text: str) -> End:
    if text == "*":
        return None
    start, colon, stop = text.partition(":")
    if not colon:
        return _integer(text)
    bounds = _integer(start.strip()), _integer(stop.strip())
    if (bounds[0] < 0) == (bounds[1] < 0) and bounds[1] <= bounds[0]:
        raise AddressError(f"{text} is an empty range; its end must be larger than its start.")
    return bounds


def _unit(body: str, layer: int, letter: str, index: int, part: str | None) -> Site:
    parts = NEURON_PARTS if letter == "N" else HEAD_PARTS
    part = parts[0] if part is None else part
    if part not in parts:
        nearest = difflib.get_close_matches(part, parts, 1, 0.3)
        hint = f" Did you mean :{nearest[0]}?" if nearest else ""
        noun = "neuron" if letter == "N" else "head"
        raise AddressError(
            f"{_short(body)!r} has no value :{_short(part)}; a {noun} has "
            f":{', :'.join(parts)}.{hint}"
        )
    return Site("neuron" if letter == "N" else "head", layer, index, part)


def _direction(text: str, layer: int | None) -> Site:
    named = _NAMED.fullmatch(text)
    name = named[2].strip() if named else ""
    if named is None or not name:
        raise AddressError(
            f"{_short(text)!r} names no direction; write its name in the brackets, such as "
            "L12.resid_post[dog]."
        )
    return Site("direction", layer, name=name, component=named[1])


def _parse_range(text: str) -> tuple[int, int | None]:
    if text == "*":
        return 0, None
    if text.startswith("["):
        start, stop = text[1:-1].split(":")
        bounds = (_integer(start) if start else 0, _integer(stop) if stop else None)
        if bounds[1] is not None and bounds[1] <= bounds[0]:
            raise AddressError(f"{text} is an empty range; its end must be larger than its start.")
        return bounds
    return _integer(text), _integer(text) + 1


def _parse_pattern(body: str, positions: Positions) -> SiteSet:
    if cells := _CELLS.fullmatch(body):
        bounds = _parse_range(cells[1]), _parse_range(cells[2])
        ends = _plain_end(_end(cells[3])), _plain_end(_end(cells[4]))
        return SiteSet(pattern=Pattern("cell", *bounds, cell=ends)).at(positions)
    match = _PATTERN.fullmatch(body)
    if match is None or (match[5] is not None and match[5] not in COMPONENTS):
        _refuse(body)
    layers = _parse_range(match[1])
    if match[5] is not None:
        kind: Kind = match[5]  # type: ignore[assignment] # a component, as checked above
        return SiteSet(pattern=Pattern(kind, layers, positions=positions))
    part = _unit(body, 0, match[2], 0, match[4]).part
    kind = "neuron" if match[2] == "N" else "head"
    return SiteSet(pattern=Pattern(kind, layers, _parse_range(match[3]), part, positions))


def _short(text: str, length: int = 60) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _refuse(body: str) -> NoReturn:
    """Say that `body` is no address, and what is nearest to it."""
    shown = _short(body)
    if "<-" in body:
        raise AddressError(
            f"{shown!r} is not an address; attention cells are a head with [destination<-source], "
            "each of both a position (7, -1), a range (2:5) or * for all, such as "
            "L5.H3[7:9<-2:5] or L[3:9].H*[*<-2]."
        )
    hint = ""
    layered = re.fullmatch(r"[Ll]?(\d+)\.(.*)", shown)
    if layered:
        layer, rest = layered.groups()
        unit = re.fullmatch(r"([nNhH])(?:euron|ead)?(\d+)(.*)", rest)
        if unit:
            hint = f"L{layer}.{unit[1].upper()}{unit[2]}{unit[3]}"
        else:
            nearest = difflib.get_close_matches(rest, COMPONENTS, 1, 0.4)
            hint = f"L{layer}.{nearest[0]}" if nearest else ""
    elif nearest := difflib.get_close_matches(shown, ("embed", "logits"), 1, 0.6):
        hint = nearest[0]
    if hint and hint != shown:
        raise AddressError(f"{shown!r} is not an address. Did you mean {hint}?")
    raise AddressError(f"{shown!r} is not an address; write one such as {_EXAMPLES}.")
