"""From a brush over patterns to the knock-out it means, and from knock-outs to their outlines."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from patchclamp.errors import PatchclampError
from patchclamp.interventions import Intervention, Knockout
from patchclamp.sites import Site, SiteSet

from .messages import Knock, KnockedOut, MessageError

if TYPE_CHECKING:
    from patchclamp.models.anatomy import Anatomy

Ends = tuple[int, int] | None
"""From the first position to before the second; None for all."""


def refusal(anatomy: "Anatomy") -> str | None:
    """Why attention of this model cannot be knocked out; None where it can."""
    if anatomy.pattern:
        return None
    return (
        "This model's attention runs inside one fused kernel, which takes no edited pattern; "
        "ablate a head's output instead, such as L5.H3."
    )


def made(message: Knock, anatomy: "Anatomy", length: int) -> Knockout:
    """The intervention that a gesture means.

    Raises:
        MessageError: saying which part of the message names what is not there.
    """
    layers = _within("layers", message.layers, anatomy.n_layers, "layer")
    destinations = _positions("destinations", message.destinations, length)
    sources = _positions("sources", message.sources, length)
    heads = None if message.heads is None else sorted(set(message.heads))
    if heads is not None and heads[-1] >= anatomy.n_heads:
        raise MessageError(
            f"There is no head {heads[-1]}: a layer has {anatomy.n_heads} heads, 0 to "
            f"{anatomy.n_heads - 1}.",
            field="heads",
        )
    cell = "" if (destinations, sources) == (None, None) else _cell(destinations, sources)
    address = _address(layers, heads, cell)
    try:
        return Knockout(anatomy.parse(address), how=message.how)
    except PatchclampError as error:
        raise MessageError(str(error), field="destinations") from error


def _within(field: str, span: Sequence[int], count: int, what: str) -> tuple[int, int]:
    start, stop = span
    if not start < stop <= count:
        raise MessageError(
            f"The {field} {start} to before {stop} are not there: the first {what} is 0, the last "
            f"{count - 1}, and the second number is larger than the first.",
            field=field,
        )
    return start, stop


def _positions(field: str, span: Sequence[int] | None, length: int) -> Ends:
    return None if span is None else _within(field, span, length, "position")


def _cell(destinations: Ends, sources: Ends) -> str:
    return f"[{_end(destinations)}<-{_end(sources)}]"


def _end(ends: Ends) -> str:
    if ends is None:
        return "*"
    start, stop = ends
    return str(start) if stop == start + 1 else f"{start}:{stop}"


def _address(layers: tuple[int, int], heads: list[int] | None, cell: str) -> str:
    """The shortest address of some heads of consecutive layers, or of one cell of each."""
    first, last = layers
    where = str(first) if last == first + 1 else f"[{first}:{last}]"
    if heads is None:
        return f"L{where}.H*{cell}"
    if len(heads) == 1 and last == first + 1:
        return f"L{first}.H{heads[0]}{cell}"
    if heads == list(range(heads[0], heads[-1] + 1)):
        return f"L{where}.H[{heads[0]}:{heads[-1] + 1}]{cell}"
    each = (f"L{layer}.H{head}{cell}" for layer in range(first, last) for head in heads)
    return "{" + ", ".join(each) + "}"


def same(intervention: Intervention, knockout: Knockout) -> bool:
    """Whether an intervention of the stack is this very knock-out, muted or not."""
    return (
        isinstance(intervention, Knockout)
        and intervention.site == knockout.site
        and intervention.how == knockout.how
    )


def outlines(
    key: int, intervention: Intervention, anatomy: "Anatomy", length: int
) -> list[KnockedOut]:
    """What a knock-out of the stack takes away, as few rectangles as it takes; none for others.

    Args:
        key: the intervention's.
        intervention: any of the stack.
        anatomy: of the model.
        length: of the prompt.
    """
    if not isinstance(intervention, Knockout):
        return []
    touched: dict[tuple[Ends, Ends], dict[int, set[int]]] = {}
    site = intervention.site
    for one in site.expand(anatomy) if isinstance(site, SiteSet) else (site,):
        for ends in _ends(one, length):
            layers = touched.setdefault(ends, {})
            layers.setdefault(one.layer or 0, set()).add(one.index or 0)
    return [
        KnockedOut(
            key=key,
            layers=list(layers),
            heads=None if len(heads) == anatomy.n_heads else sorted(heads),
            destinations=_listed(destinations),
            sources=_listed(sources),
            how=intervention.how,
            muted=intervention.muted,
        )
        for (destinations, sources), by_layer in touched.items()
        for layers, heads in _runs_of_layers(by_layer)
    ]


def _ends(site: Site, length: int) -> list[tuple[Ends, Ends]]:
    """Destinations and sources that a cell, or a head at its positions, stands for."""
    if site.kind == "cell":
        destination, source = site.cell or (None, None)
        return [(_absolute(destination, length), _absolute(source, length))]
    if site.positions.is_default:
        return [(None, None)]
    places = site.positions.indices(0, length, length, False)  # noqa: FBT003 (nothing is left out)
    return [(run, None) for run in _runs(places)]


def _absolute(end: int | tuple[int, int] | None, length: int) -> Ends:
    if isinstance(end, tuple):
        return end
    if end is None:
        return None
    position = end + length if end < 0 else end
    return position, position + 1


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Consecutive numbers, from the first to before the second."""
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1] = (found[-1][0], number + 1)
        else:
            found.append((number, number + 1))
    return found


def _runs_of_layers(by_layer: dict[int, set[int]]) -> list[tuple[tuple[int, int], set[int]]]:
    """Consecutive layers in which the same heads are meant."""
    found: list[tuple[tuple[int, int], set[int]]] = []
    for layer, heads in sorted(by_layer.items()):
        if found and found[-1][0][1] == layer and found[-1][1] == heads:
            found[-1] = ((found[-1][0][0], layer + 1), heads)
        else:
            found.append(((layer, layer + 1), heads))
    return found


def _listed(ends: Ends) -> list[int] | None:
    return None if ends is None else list(ends)
