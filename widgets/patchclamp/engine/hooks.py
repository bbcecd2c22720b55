"""From interventions to what happens at TransformerLens hook points.

Each intervention becomes `Step`s: functions from the tensor at a hook point to its replacement.
`compile_stack` is the way in for a list of interventions; it also puts steps in the order in which
things happen inside a model. Steps hold what they read from one hook point to the next, so each
item of a batch needs steps compiled for it alone.

1. what changes a value from upstream (a cut edge, the rest of an edit of `resid_mid`),
2. edits of the value, in list order, so that a later one sees the earlier one's result,
3. what only reads the value (the source of a cut edge).

Editing TransformerLens' `hook_resid_mid` (which is `ln2.hook_in`) changes only what the MLP reads;
here `resid_mid` is the residual stream, so the same change also goes past the MLP.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch

from patchclamp.errors import AddressError, InterventionError
from patchclamp.interventions import (
    Ablate,
    Add,
    Clamp,
    Cut,
    Intervention,
    Knockout,
    Numbers,
    Patch,
    Scale,
)
from patchclamp.sites import Positions, Site, SiteSet, end_positions

if TYPE_CHECKING:
    from torch import Tensor, nn

    from patchclamp.models.anatomy import Anatomy

BEFORE, EDIT, AFTER = -1, 0, 1


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the rows of a tensor stand in the sequence.

    Attributes:
        start: Absolute position of the tensor's first row.
        prompt: Number of prompt tokens; positions from there on are generated.
        has_bos: Whether position 0 is a beginning-of-sequence token that was put in front.
        first_source: Of a pattern, the absolute position of its first column; None where its rows
            are the newest positions and its columns all up to them, as in a forward pass.
        head: Of a pattern of one head, which one; None where all heads are there.
    """

    start: int
    prompt: int
    has_bos: bool
    first_source: int | None = None
    head: int | None = None

    def rows(self, count: int, positions: Positions) -> list[int]:
        """Which of a tensor's `count` rows stand at the given positions."""
        stop = self.start + count
        found = positions.indices(self.start, stop, self.prompt, self.has_bos)
        return [position - self.start for position in found]


@dataclass(frozen=True, slots=True)
class Step:
    """What is done at one hook point.

    Attributes:
        hook: Canonical hook-point name.
        apply: Takes the tensor ([batch, pos, ...]; [batch, head, dest, src] for a pattern) and its
            frame; returns a new tensor, or None when nothing changes. Never edits its input.
        rank: `BEFORE`, `EDIT` or `AFTER`: at one hook point lower ranks go first, and within a
            rank list order holds.
    """

    hook: str
    apply: Callable[[Tensor, Frame], Tensor | None]
    rank: int = EDIT


class Lookup(Protocol):
    """What interventions need besides the run itself."""

    def mean(self, hook: str) -> Tensor:
        """Mean over the reference set at a hook point, without position 0: one position's shape."""
        ...

    def resample(self, hook: str, seed: int) -> Tensor:
        """The value at one random reference position: one position's shape."""
        ...

    def patch(self, source: str | tuple[int, ...], hook: str) -> Tensor:
        """The values of another run at a hook point: [pos, ...]."""
        ...

    def patterns(self, heads: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Tensor]:
        """Attention of (layer, head)s on the contrast input: [destination, source] of each."""
        ...

    def direction(self, name: str) -> Tensor:
        """A named direction: [d]."""
        ...

    def module(self, path: str) -> nn.Module:
        """A component of the bridge by its path, such as `blocks.7.attn.q`."""
        ...


def compile_stack(
    interventions: Sequence[Intervention], anatomy: Anatomy, lookup: Lookup
) -> list[Step]:
    """The steps of a list of interventions, each hook point's in the order to apply them.

    Cut edges that end in the same place are taken together: without all of their sources at once,
    as norms make the effect of two cuts differ from the sum of both. Muted ones are left out.

    Raises:
        AddressError: when the model lacks a site.
        InterventionError: when an operation cannot be done in this model.
    """
    active = [intervention for intervention in interventions if not intervention.muted]
    steps: list[Step] = []
    cuts: list[tuple[Site, str]] = []
    for intervention in active:
        if isinstance(intervention, Cut):
            cuts.extend((edge, intervention.how) for edge in _members(intervention.site, anatomy))
        else:
            steps.extend(_COMPILERS[type(intervention)](intervention, anatomy, lookup))
    steps.extend(_cut_steps(cuts, anatomy, lookup))
    return sorted(steps, key=lambda step: step.rank)


def compile_intervention(
    intervention: Intervention, anatomy: Anatomy, lookup: Lookup
) -> list[Step]:
    """The steps of one intervention; none when it is muted. For several use `compile_stack`.

    Raises:
        AddressError: when the model lacks its site.
        InterventionError: when the operation cannot be done in this model.
    """
    return compile_stack([intervention], anatomy, lookup)


def check_intervention(
    intervention: Intervention, anatomy: Anatomy, n_positions: int | None, *, has_bos: bool
) -> None:
    """Say what is wrong with an intervention for this model and a prompt of this length.

    Raises:
        AddressError: when the model lacks the site, or the prompt a position.
        InterventionError: when the operation cannot be done in this model, or a vector or a list
            of amounts has the wrong length.
    """
    anatomy.check(intervention.site, n_positions)
    sites = groups(intervention.site, anatomy)
    if isinstance(intervention, Knockout):
        _check_pattern(intervention.site, anatomy)
    if isinstance(intervention, Cut):
        _check_additive(anatomy)
        _check_overlap(_members(intervention.site, anatomy))
    for site, _ in sites:
        if isinstance(intervention, Ablate) and site.part == "act" and intervention.how == "mean":
            raise _no_act_mean(site)
        for vector, what in _vectors(intervention):
            if len(vector) != anatomy.width(site):
                raise InterventionError(
                    f"{what} has {len(vector)} numbers, but {site} is a vector of "
                    f"{anatomy.width(site)}."
                )
        if (
            isinstance(intervention, Add)
            and isinstance(intervention.amount, tuple)
            and n_positions is not None
        ):
            touched = site.positions.indices(0, n_positions, n_positions, has_bos)
            _check_amounts(site, len(intervention.amount), len(touched))


def touched_layers(intervention: Intervention, anatomy: Anatomy) -> tuple[int, ...]:
    """The layers at which the intervention reads or edits something, lowest first.

    The embedding counts as -1, what comes after the last block as `n_layers`. A cut edge touches
    its source's layer, where its value is read, and its destination's.
    """
    found: set[int] = set()
    for site in _members(intervention.site, anatomy):
        ends = (site.source, site.destination) if site.kind == "edge" else (site,)
        found.update(_layer(end, anatomy) for end in ends)
    return tuple(sorted(found))


def _layer(site: Site, anatomy: Anatomy) -> int:
    if site.kind == "logits":
        return anatomy.n_layers
    return -1 if site.layer is None else site.layer


def first_layer(intervention: Intervention, anatomy: Anatomy) -> int:
    """The lowest block that must run for the intervention: 0 for the embedding.

    For a cut edge it is its source's, whose value is read in the run itself.
    """
    return max(min(touched_layers(intervention, anatomy), default=anatomy.n_layers), 0)


def first_position(intervention: Intervention, prompt: int, has_bos: bool) -> int | None:  # noqa: FBT001
    """The first prompt position at which a causal model's run differs; None when none does.

    Args:
        intervention: What is done.
        prompt: Number of prompt tokens.
        has_bos: Whether position 0 is a beginning-of-sequence token that was put in front.
    """
    site = intervention.site
    written = site.written if isinstance(site, SiteSet) else (site,)
    firsts = [_first_change(place, prompt, has_bos=has_bos) for place in written]
    return min((first for first in firsts if first is not None), default=None)


def _first_change(place: Any, prompt: int, *, has_bos: bool) -> int | None:
    first = _destinations(place).first(prompt, has_bos)
    if place.kind != "cell" or first is None or place.cell[1] is None:
        return first
    source = end_positions(place.cell[1]).first(prompt, has_bos)
    return None if source is None else max(first, source)  # nothing before it read it


def _destinations(site: Any) -> Positions:
    """Positions of what a site changes; of an attention cell its destination."""
    if site.kind != "cell":
        positions: Positions = site.positions
        return positions
    return end_positions(site.cell[0])


# --------------------------------------------------------------------------- sites of one step


def _members(site: Site | SiteSet, anatomy: Anatomy) -> list[Site]:
    return anatomy.expand(site)


def groups(site: Site | SiteSet, anatomy: Anatomy) -> list[tuple[Site, list[int]]]:
    """Neurons or heads of one layer, part and positions together; everything else by itself.

    Each group is one site that stands for it, and the indices of all.
    """
    groups: dict[Site, list[int]] = {}
    for member in _members(site, anatomy):
        if member.kind in {"neuron", "head"} and member.index is not None:
            groups.setdefault(replace(member, index=0), []).append(member.index)
        else:
            groups.setdefault(member, [])
    return [
        (replace(site, index=indices[0]) if indices else site, indices)
        for site, indices in groups.items()
    ]


@dataclass(frozen=True, slots=True)
class _Place:
    """How a site's value lies in the tensor at its hook point.

    `take` and `put` work on tensors of any leading dimensions whose last ones are one position's;
    a value is [..., k] (neurons), [..., k, d_head] (heads), [..., d] or [..., 1] (a coefficient).
    """

    hook: str
    take: Callable[[Tensor], Tensor]
    put: Callable[[Tensor, Tensor], Tensor]


def _place(site: Site, indices: list[int], anatomy: Anatomy, lookup: Lookup) -> _Place:
    hook = anatomy.hook(site)
    if site.kind == "direction":
        return _coefficient(hook, site, anatomy, lookup)
    if site.kind not in {"neuron", "head"}:
        return _Place(hook, lambda x: x, lambda _, value: value)
    if site.part in {"k", "v"}:
        indices = list(dict.fromkeys(anatomy.kv_head(head) for head in indices))
    chosen = torch.tensor(indices)

    def take(x: Tensor) -> Tensor:
        here = chosen.to(x.device)
        return x[..., here] if site.kind == "neuron" else x[..., here, :]

    def put(x: Tensor, value: Tensor) -> Tensor:
        result, here = x.clone(), chosen.to(x.device)
        if site.kind == "neuron":
            result[..., here] = value
        else:
            result[..., here, :] = value
        return result

    return _Place(hook, take, put)


def _coefficient(hook: str, site: Site, anatomy: Anatomy, lookup: Lookup) -> _Place:
    direction = lookup.direction(site.name or "").detach().float()
    if direction.shape != (anatomy.width(anatomy.home(site)),):
        raise InterventionError(
            f"the direction {site.name!r} has the shape {tuple(direction.shape)}, but "
            f"{anatomy.home(site)} is a vector of {anatomy.width(anatomy.home(site))}."
        )
    square = float(direction @ direction)
    if not square > 0 or square == float("inf"):
        raise InterventionError(
            f"the direction {site.name!r} has no finite length above zero; define it anew."
        )

    def take(x: Tensor) -> Tensor:
        d = direction.to(x.device, x.dtype)
        return (x @ d / square)[..., None]

    def put(x: Tensor, value: Tensor) -> Tensor:
        return x + (value - take(x)) * direction.to(x.device, x.dtype)

    return _Place(hook, take, put)


def reading(site: Site, anatomy: Anatomy, lookup: Lookup) -> tuple[str, Callable[[Tensor], Tensor]]:
    """Where a site's value is read, and how it is taken from the tensor there.

    Returns:
        The hook point, and a function from [..., one position's shape] to [...] for a neuron or a
        direction, to [..., d] for a vector.

    Raises:
        AddressError: when the model lacks the site, or it has no value to be read.
    """
    if site.kind in {"cell", "edge", "logits"} or site.part == "act":
        raise AddressError(f"{site} has no value that can be read at one hook point.")
    place = _place(site, [site.index or 0], anatomy, lookup)
    squeezed = {"neuron": -1, "direction": -1, "head": -2}.get(site.kind)
    if squeezed is None:
        return place.hook, place.take
    return place.hook, lambda x: place.take(x).squeeze(squeezed)


# ------------------------------------------------------------------------- edits of one value

# (value at the touched rows [batch, row, ...], their absolute positions, frame) -> new value
_Edit = Callable[["Tensor", list[int], Frame], "Tensor"]


def _edit_steps(
    site: Site,
    indices: list[int],
    edit: Callable[[_Place], _Edit],
    anatomy: Anatomy,
    lookup: Lookup,
    *,
    prompt_only: bool = False,
) -> list[Step]:
    """Steps that change the value at a site's positions and nothing else."""
    place = _place(site, indices, anatomy, lookup)
    change = edit(place)
    positions = site.positions

    def apply(x: Tensor, frame: Frame) -> Tensor | None:
        rows = frame.rows(x.shape[1], positions)
        if prompt_only:
            rows = [row for row in rows if frame.start + row < frame.prompt]
        if not rows:
            return None
        here = torch.tensor(rows, device=x.device)
        old = x[:, here]
        value = place.take(old)
        new = change(value, [frame.start + row for row in rows], frame)
        result = x.clone()
        result[:, here] = place.put(old, new.to(x.dtype).expand(value.shape))
        return result

    if _home_kind(site) == "resid_mid" and not anatomy.post_ln:
        return _past_the_mlp(place.hook, apply, f"blocks.{site.layer}.hook_out")
    return [Step(place.hook, apply)]


def _home_kind(site: Site) -> str | None:
    return site.component if site.kind == "direction" else site.kind


def _past_the_mlp(
    hook: str, apply: Callable[[Tensor, Frame], Tensor | None], out: str
) -> list[Step]:
    """An edit of `ln2.hook_in` reaches only the MLP; make the same one past it."""
    changes: list[Tensor] = []

    def edit(x: Tensor, frame: Frame) -> Tensor | None:
        changes.clear()
        new = apply(x, frame)
        if new is not None:
            changes.append(new - x)
        return new

    def carry(x: Tensor, _frame: Frame) -> Tensor | None:
        return x + changes.pop() if changes else None

    return [Step(hook, edit), Step(out, carry, BEFORE)]


def _vectors(intervention: Intervention) -> list[tuple[Numbers, str]]:
    found: list[tuple[Numbers, str]] = []
    if isinstance(intervention, Clamp) and isinstance(intervention.value, tuple):
        found.append((intervention.value, "the value"))
    if isinstance(intervention, Add | Ablate) and intervention.direction is not None:
        found.append((intervention.direction, "the direction"))
    return found


def _check_amounts(site: Site, amounts: int, touched: int) -> None:
    if amounts != touched:
        raise InterventionError(
            f"there are {amounts} amounts, but {site} touches {touched} prompt positions; give one "
            "for each, or a single number."
        )


def _with_up(
    site: Site, anatomy: Anatomy, steps: Callable[[Callable[[], Tensor]], list[Step]]
) -> list[Step]:
    """Steps that need what a gated neuron's activation is multiplied by: post = act * up."""
    held: list[Tensor] = []

    def read(x: Tensor, _frame: Frame) -> None:
        held[:] = [x]

    def up() -> Tensor:
        if not held:
            raise InterventionError(
                f"{site} needs the value of {replace(site, part='up')}, which did not fire in this "
                "run."
            )
        return held[0]

    return [Step(anatomy.hook(replace(site, part="up")), read, AFTER), *steps(up)]


def _value_steps(
    intervention: Intervention,
    anatomy: Anatomy,
    lookup: Lookup,
    edit: Callable[[Site, _Place], _Edit],
    *,
    prompt_only: bool = False,
) -> list[Step]:
    """Steps for each group of an intervention's sites, from how one group's value changes.

    For `:act` the edit is told the new activation; what is written is that times up.
    """
    check_intervention(intervention, anatomy, None, has_bos=False)
    steps: list[Step] = []
    for site, indices in groups(intervention.site, anatomy):
        if site.part != "act":
            steps += _edit_steps(
                site,
                indices,
                partial(edit, site),
                anatomy,
                lookup,
                prompt_only=prompt_only,
            )
            continue
        steps += _act_steps(
            intervention, site, indices, edit, anatomy, lookup, prompt_only=prompt_only
        )
    return steps


def _act_steps(
    intervention: Intervention,
    site: Site,
    indices: list[int],
    edit: Callable[[Site, _Place], _Edit],
    anatomy: Anatomy,
    lookup: Lookup,
    *,
    prompt_only: bool,
) -> list[Step]:
    def steps(up: Callable[[], Tensor]) -> list[Step]:
        def on_post(place: _Place) -> _Edit:
            inner = edit(site, place)

            def change(post: Tensor, at: list[int], frame: Frame) -> Tensor:
                if isinstance(intervention, Scale):  # act * factor * up
                    return inner(post, at, frame)
                rows = torch.tensor([p - frame.start for p in at], device=post.device)
                ups = place.take(up()[:, rows])
                if isinstance(intervention, Add):  # (act + amount) * up
                    return post + (inner(torch.zeros_like(post), at, frame)) * ups
                return inner(post, at, frame) * ups

            return change

        return _edit_steps(site, indices, on_post, anatomy, lookup, prompt_only=prompt_only)

    return _with_up(site, anatomy, steps)


def _no_act_mean(site: Site) -> InterventionError:
    return InterventionError(
        f"{site} has no reference mean, as no hook point has the value after the nonlinearity by "
        f"itself; ablate it to zero, or ablate {replace(site, part='post')} or "
        f"{replace(site, part='gate')} to the mean."
    )


def _clamp(intervention: Clamp, anatomy: Anatomy, lookup: Lookup) -> list[Step]:
    def edit(_site: Site, _place: _Place) -> _Edit:
        target = torch.tensor(intervention.value)
        return lambda value, _at, _frame: target.to(value).expand(value.shape)

    return _value_steps(intervention, anatomy, lookup, edit)


def _scale(intervention: Scale, anatomy: Anatomy, lookup: Lookup) -> list[Step]:
    def edit(_site: Site, _place: _Place) -> _Edit:
        return lambda value, _at, _frame: value * intervention.factor

    return _value_steps(intervention, anatomy, lookup, edit)


def _add(intervention: Add, anatomy: Anatomy, lookup: Lookup) -> list[Step]:
    amount, direction = intervention.amount, intervention.direction

    def edit(site: Site, _place: _Place) -> _Edit:
        along = torch.tensor(1.0 if direction is None else direction)

        def change(value: Tensor, at: list[int], frame: Frame) -> Tensor:
            if isinstance(amount, float):
                return value + amount * along.to(value)
            touched = site.positions.indices(0, frame.prompt, frame.prompt, frame.has_bos)
            _check_amounts(site, len(amount), len(touched))
            each = dict(zip(touched, amount, strict=True))
            amounts = torch.tensor([each[position] for position in at]).to(value)
            return value + amounts.reshape(-1, *[1] * (value.ndim - 2)) * along.to(value)

        return change

    return _value_steps(intervention, anatomy, lookup, edit)


def _ablate(intervention: Ablate, anatomy: Anatomy, lookup: Lookup) -> list[Step]:
    def edit(site: Site, place: _Place) -> _Edit:
        if intervention.how == "zero":
            return along(torch.zeros_like)

        def fetch(hook: str) -> Tensor:
            if intervention.how == "mean":
                return lookup.mean(hook)
            return lookup.resample(hook, intervention.seed)

        target = _fetch(site, place, fetch, anatomy, lookup)
        return along(lambda value: target.to(value).expand(value.shape))

    def along(target: Callable[[Tensor], Tensor]) -> _Edit:
        """The whole value becomes the target, or only what lies along the direction does."""
        if intervention.direction is None:
            return lambda value, _at, _frame: target(value)
        d = torch.tensor(intervention.direction, dtype=torch.float64)
        dual = d / (d @ d)

        def change(value: Tensor, _at: list[int], _frame: Frame) -> Tensor:
            moved = (target(value) - value) @ dual.to(value)
            return value + moved[..., None] * d.to(value)

        return change

    return _value_steps(intervention, anatomy, lookup, edit)


def _patch(intervention: Patch, anatomy: Anatomy, lookup: Lookup) -> list[Step]:
    def edit(site: Site, place: _Place) -> _Edit:
        def fetch(hook: str) -> Tensor:
            return lookup.patch(intervention.source, hook)

        source = _fetch(site, place, fetch, anatomy, lookup)

        def change(value: Tensor, at: list[int], frame: Frame) -> Tensor:
            return source[patch_rows(intervention, site, at, frame, len(source))].to(value)

        return change

    return _value_steps(intervention, anatomy, lookup, edit, prompt_only=True)


def patch_rows(
    intervention: Patch, site: Site, at: list[int], frame: Frame, length: int
) -> list[int]:
    """Which rows of the other run go to the absolute positions `at` of this one."""
    if intervention.at is None:
        if at[-1] >= length:
            raise InterventionError(
                f"{site} touches position {at[-1]}, but the run to patch from has only {length} "
                "positions; say which to take with at=, such as at='-1'."
            )
        return at
    try:
        intervention.at.check(length)
    except AddressError as error:
        raise InterventionError(f"in the run to patch from, {error}") from None
    rows = intervention.at.indices(0, length, length, has_bos=False)
    touched = site.positions.indices(0, frame.prompt, frame.prompt, frame.has_bos)
    if len(rows) == 1:
        return rows * len(at)
    if len(rows) != len(touched):
        raise InterventionError(
            f"at={str(intervention.at)!r} names {len(rows)} positions, but {site} touches "
            f"{len(touched)}; name one, or as many."
        )
    each = dict(zip(touched, rows, strict=True))
    return [each[position] for position in at]


def _fetch(
    site: Site,
    place: _Place,
    fetch: Callable[[str], Tensor],
    anatomy: Anatomy,
    lookup: Lookup,
) -> Tensor:
    """A site's value from elsewhere; `:act` is computed there from `:gate`."""
    if site.part != "act":
        return place.take(fetch(place.hook))
    gate = place.take(fetch(anatomy.hook(replace(site, part="gate"))))
    path = f"blocks.{site.layer}.mlp"
    mlp = lookup.module(path)
    original = getattr(mlp, "original_component", mlp)
    nonlinearity = getattr(original, "act_fn", None) or getattr(original, "act", None)
    if not callable(nonlinearity):
        raise InterventionError(
            f"{site} cannot be taken from another run, as {path} does not say its nonlinearity; "
            f"use {replace(site, part='post')} or {replace(site, part='gate')}."
        )
    result: Tensor = nonlinearity(gate)
    return result


# -------------------------------------------------------------------------------- attention


def _check_pattern(site: Site | SiteSet, anatomy: Anatomy) -> None:
    if not anatomy.pattern:
        raise InterventionError(
            f"Knockout of {site} would do nothing: this model computes attention by code of its "
            "own, whose pattern can be neither read nor edited. Ablate the head instead, or Cut "
            "what it reads."
        )


def _knockout(intervention: Knockout, anatomy: Anatomy, lookup: Lookup) -> list[Step]:
    _check_pattern(intervention.site, anatomy)
    layers: dict[int, list[Site]] = {}
    for site in _members(intervention.site, anatomy):
        layers.setdefault(site.layer or 0, []).append(site)
    if intervention.how != "contrast":
        return [
            Step(
                anatomy.hooks[layer]["cell"],
                partial(_knock_out, sites=sites, how=intervention.how),
            )
            for layer, sites in layers.items()
        ]
    heads = {(layer, site.index or 0) for layer, sites in layers.items() for site in sites}
    patterns = lookup.patterns(sorted(heads))
    return [
        Step(
            anatomy.hooks[layer]["cell"],
            partial(
                _take_over,
                sites=sites,
                patterns={head: patterns[layer, head] for at, head in heads if at == layer},
                causal=anatomy.causal,
            ),
        )
        for layer, sites in layers.items()
    ]


def cells_of(site: Site, frame: Frame, rows: int, columns: int) -> tuple[list[int], list[int]]:
    """Which rows and columns of a pattern a head or its cells mean.

    Args:
        site: A head (its positions are the destinations) or attention cells.
        frame: Where the pattern's rows stand, and its first column.
        rows: How many rows it has.
        columns: How many columns.
    """
    # With a key/value cache the rows are the newest positions and the columns all up to them.
    offset = frame.start + rows - columns if frame.first_source is None else frame.first_source
    source = None if site.cell is None else site.cell[1]
    if source is None:
        meant = list(range(columns))
    else:
        every = end_positions(source).indices(0, frame.prompt, frame.prompt, frame.has_bos)
        meant = [position - offset for position in every if 0 <= position - offset < columns]
    return frame.rows(rows, _destinations(site)), meant


def _knock_out(pattern: Tensor, frame: Frame, sites: list[Site], how: str) -> Tensor | None:
    """Take away the cells of one layer's pattern, [batch, head, destination, source]."""
    out = torch.zeros(pattern.shape[1:], dtype=torch.bool)
    for site in sites:
        if frame.head not in {None, site.index}:
            continue
        rows, columns = cells_of(site, frame, *pattern.shape[-2:])
        if rows and columns:
            head = 0 if frame.head is not None else site.index or 0
            out[head, torch.tensor(rows)[:, None], torch.tensor(columns)] = True
    if not out.any():
        return None
    out = out.to(pattern.device)
    left = pattern.masked_fill(out, 0.0)
    if how == "zero":
        return left
    total = left.sum(-1, keepdim=True)
    # A row whose every source was taken away stays zero: the head reads nothing there.
    spread = left / torch.where(total > 0, total, torch.ones_like(total))
    return torch.where(out.any(-1, keepdim=True), spread, pattern)


def _take_over(
    pattern: Tensor, frame: Frame, sites: list[Site], patterns: dict[int, Tensor], *, causal: bool
) -> Tensor | None:
    """Give cells the weights of another run's patterns, Float[dest, source] for each head."""
    result = None
    n_rows, n_columns = pattern.shape[-2:]
    for site in sites:
        if frame.head not in {None, site.index}:
            continue
        other = patterns[site.index or 0]
        check_contrast(site, frame, len(other), causal=causal)
        rows, columns = cells_of(site, frame, n_rows, n_columns)
        # The other run has no generated tokens: these keep their own.
        rows = [row for row in rows if row + frame.start < min(frame.prompt, len(other))]
        first = frame.start + n_rows - n_columns
        first = first if frame.first_source is None else frame.first_source
        columns = [column for column in columns if column + first < len(other)]
        if not rows or not columns:
            continue
        result = pattern.clone() if result is None else result
        head = 0 if frame.head is not None else site.index or 0
        down, across = torch.tensor(rows)[:, None], torch.tensor(columns)
        taken = other[down + frame.start, across + first]
        result[:, head, down, across] = taken.to(pattern)
    return result


def check_contrast(site: Site, frame: Frame, length: int, *, causal: bool) -> None:
    """Say when another input lacks positions of the cells that are to be taken from its pattern.

    Args:
        site: A head or attention cells.
        frame: Where the prompt's own pattern stands.
        length: How many positions the other input has.
        causal: Whether a position reads only itself and earlier ones.

    Raises:
        InterventionError: naming the positions.
    """
    whole = replace(frame, start=0, first_source=0)
    rows, columns = cells_of(site, whole, frame.prompt, frame.prompt)
    if causal:
        columns = [column for column in columns if rows and column <= rows[-1]]
    last = max([*rows, *columns], default=0)
    if last >= length:
        raise InterventionError(
            f"{site} touches position {last}, but the contrast input has only {length} positions: "
            "name cells that both have, or give a contrast input of the same length."
        )


# ------------------------------------------------------------------------------------ edges


def _check_additive(anatomy: Anatomy) -> None:
    if not anatomy.additive:
        raise InterventionError(
            "an edge of this model cannot be cut: between a component's output and the residual "
            "stream lies a norm or a scale, so that a source has no contribution of its own to "
            "take away. Patch or Ablate the source instead."
        )


def _check_overlap(edges: Sequence[Site]) -> None:
    ends = {(edge.source, edge.destination) for edge in edges}
    for edge in edges:
        whole = Site("mlp", edge.source.layer)
        if edge.source.kind == "neuron" and (whole, edge.destination) in ends:
            raise InterventionError(
                f"{edge} and {Site('edge', ends=(whole, edge.destination))} cut the same thing "
                "twice: the neuron is part of the MLP. Leave one out."
            )


def _cut_steps(cuts: Sequence[tuple[Site, str]], anatomy: Anatomy, lookup: Lookup) -> list[Step]:
    """Steps for edges to cut, those into one destination together."""
    if not cuts:
        return []
    _check_additive(anatomy)
    _check_overlap([edge for edge, _ in cuts])
    steps: list[Step] = []
    read: dict[Site, list[Tensor]] = {}
    for source in dict.fromkeys(edge.source for edge, _ in cuts):
        read[source] = []
        steps.append(_read(anatomy.hook(source), read[source]))
    for end, sources in cut_destinations(cuts, anatomy).items():
        steps += _destination_steps(end, sources, read, anatomy, lookup)
    return steps


def cut_destinations(
    cuts: Sequence[tuple[Site, str]], anatomy: Anatomy
) -> dict[Site, dict[tuple[Site, Positions], str]]:
    """For each destination of edges its sources, the positions of each, and how it is cut.

    Heads that share a key/value head have one destination, whose index is the key/value head's.
    """
    found: dict[Site, dict[tuple[Site, Positions], str]] = {}
    for edge, how in cuts:
        end = edge.destination
        if end.part in {"k", "v"}:
            end = replace(end, index=anatomy.kv_head(end.index or 0))
        found.setdefault(end, {})[edge.source, edge.positions] = how
    return found


def _read(hook: str, held: list[Tensor]) -> Step:
    def keep(x: Tensor, _frame: Frame) -> None:
        held[:] = [x]

    return Step(hook, keep, AFTER)


def _destination_steps(
    end: Site,
    sources: Mapping[tuple[Site, Positions], str],
    read: Mapping[Site, list[Tensor]],
    anatomy: Anatomy,
    lookup: Lookup,
) -> list[Step]:
    """Read the residual stream before the destination's norm; put there what it gives without."""
    norm_path, hook, linear_path = reader_of(end, anatomy)
    norm = original(lookup.module(norm_path))
    linear = None if linear_path is None else original(lookup.module(linear_path))
    contributions = {source: _writer(source, anatomy, lookup) for source, _ in sources}
    means = {
        source: contributions[source](lookup.mean(anatomy.hook(source))[None, None])
        for (source, _), how in sources.items()
        if how == "mean"
    }
    others = {
        source: contributions[source](lookup.patch("contrast", anatomy.hook(source)))
        for (source, _), how in sources.items()
        if how == "contrast"
    }
    stream: list[Tensor] = []

    def apply(x: Tensor, frame: Frame) -> Tensor | None:
        touches = {
            edge: _cut_rows(end, edge, how, frame, x.shape[1], len(others.get(edge[0], ())))
            for edge, how in sources.items()
        }
        rows = sorted({row for touched in touches.values() for row in touched})
        if not rows:
            return None
        here = torch.tensor(rows, device=x.device)
        resid = stream[0][:, here]
        for edge, how in sources.items():
            source, touched = edge[0], touches[edge]
            gone = contributions[source](read[source][0][:, here])
            if how == "mean":
                gone = gone - means[source].to(gone)
            if how == "contrast":
                # Rows that another edge touches may lie beyond the other run: they are not taken.
                at = (here + frame.start).clamp_max(len(others[source]) - 1)
                gone = gone - others[source].to(gone)[at]
            kept = torch.tensor([row in touched for row in rows], device=x.device)
            resid = resid - gone * kept[:, None].to(gone.dtype)
        new = norm(resid)
        result = x.clone()
        if linear is None:
            result[:, here] = new.to(x.dtype)
            return result
        heads = linear(new).reshape(*new.shape[:2], -1, anatomy.d_head)
        result[:, here, end.index or 0] = heads[:, :, end.index or 0].to(x.dtype)
        return result

    return [_read(f"{norm_path}.hook_in", stream), Step(hook, apply, BEFORE)]


def _cut_rows(
    end: Site,
    edge: tuple[Site, Positions],
    how: str,
    frame: Frame,
    count: int,
    length: int,
) -> list[int]:
    """Which of a destination's `count` rows read an edge cut; of contrast none generated."""
    source, where = edge
    rows = frame.rows(count, where)
    if how != "contrast":
        return rows
    rows = [row for row in rows if frame.start + row < frame.prompt]
    check_contrast_edge(Site("edge", ends=(source, end)), [frame.start + r for r in rows], length)
    return rows


def check_contrast_edge(edge: Site, positions: Sequence[int], length: int) -> None:
    """Say when the contrast input lacks positions at which an edge is to carry its values.

    Args:
        edge: The edge.
        positions: Where its destination is changed, in order.
        length: How many positions the contrast input has.

    Raises:
        InterventionError: naming the position.
    """
    if positions and positions[-1] >= length:
        raise InterventionError(
            f"{edge} touches position {positions[-1]}, but the contrast input has only {length} "
            "positions: name positions that both have, or give a contrast input of the same length."
        )


def reader_of(end: Site, anatomy: Anatomy) -> tuple[str, str, str | None]:
    """Paths of the norm through which a destination reads, of its hook, and of its projection."""
    if end.kind == "logits":
        return "ln_final", "ln_final.hook_out", None
    block = f"blocks.{end.layer}"
    if end.kind == "mlp":
        # GPT-J and Phi have one norm for both attention and MLP.
        norm = f"{block}.ln2" if anatomy.has_ln2(end.layer or 0) else f"{block}.ln1"
        return norm, f"{block}.mlp.hook_in", None
    return f"{block}.ln1", f"{block}.attn.{end.part}.hook_out", f"{block}.attn.{end.part}"


def original(module: nn.Module) -> nn.Module:
    """The original module under a bridge's, which fires no hook."""
    original = getattr(module, "original_component", None)
    return module if original is None else original


def _writer(source: Site, anatomy: Anatomy, lookup: Lookup) -> Callable[[Tensor], Tensor]:
    """What a source adds to the residual stream, from the tensor at its hook point."""
    if source.kind in {"mlp", "embed"}:
        return lambda x: x
    path = "attn.o" if source.kind == "head" else "mlp.out"
    out = original(lookup.module(f"blocks.{source.layer}.{path}"))
    weight = out.weight
    if not isinstance(weight, torch.Tensor):
        raise InterventionError(f"{source} has no output weights to read its contribution with.")
    # [in, out]: as GPT-2's Conv1D keeps it; a Linear has it the other way round.
    W_out = weight if type(out).__name__ == "Conv1D" else weight.T
    index = source.index or 0
    if source.kind == "neuron":
        row = W_out[index]
        return lambda x: x[..., index, None] * row
    rows = W_out[index * anatomy.d_head : (index + 1) * anatomy.d_head]
    return lambda x: x[..., index, :] @ rows


_COMPILERS: Mapping[type[Intervention], Callable[[Any, Anatomy, Lookup], list[Step]]] = {
    Clamp: _clamp,
    Scale: _scale,
    Add: _add,
    Ablate: _ablate,
    Patch: _patch,
    Knockout: _knockout,
}
