"""The session's aim (:mod:`patchclamp.methods.aim`) as people type it and as the page gets it.

It is read from addresses, ``logits[ Paris]`` and names of the session's directions, and written as
a message.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from patchclamp.errors import AddressError, InputError
from patchclamp.methods.aim import Aim, Drawing, Dreaming
from patchclamp.methods.objective import Channel, Neuron, Objective, Term, objective

from . import messages as say

if TYPE_CHECKING:
    from patchclamp.methods.objective import Model, Unit
    from patchclamp.models.module_model import ModuleModel

_LOGIT = re.compile(r"logits\[(?P<token>.*)\](?P<positions>@\S*)?", re.DOTALL)
_NAMED = re.compile(r"(?P<home>[^\[\]]+)\[(?P<name>[^\]]*)\]")
COMPLETIONS = 20


def read_terms(
    model: "Model",
    terms: Sequence[say.TermUp],
    known: Objective | None,
    directions: Mapping[str, tuple[str, Any]],
) -> Objective:
    """Make an objective of what was typed.

    Args:
        model: whose units.
        terms: addresses with weights.
        known: the present objective: a direction that was given as a vector is known by its text.
        directions: the session's, a site and a vector each, by name.

    Raises:
        AddressError: when the model has no such unit.
        InputError: when it is not one number.
    """
    units = {} if known is None else {term.unit.text: term.unit for term in known.terms}
    found = Objective((), 0.0 if known is None else known.constant)
    for term in terms:
        unit = units.get(term.address.strip())
        if unit is None:
            what = named(term.address, directions)
            unit = objective(model, what, term.how or "channel").terms[0].unit
        elif term.how is not None and isinstance(unit, Channel | Neuron):
            unit = replace(unit, how=term.how)
        found += Objective((Term(term.weight, unit),))
    return found


def named(address: str, directions: Mapping[str, tuple[str, Any]]) -> Any:
    """What :func:`objective` takes for an address: of a logit or a named direction a pair.

    >>> named("logits[ Paris]", {})
    ('logits', ' Paris')
    >>> named("L3.resid_post[dog]", {"dog": ("L3.resid_post", [1.0, 2.0])})
    ('L3.resid_post[dog]', [1.0, 2.0])
    >>> named(" L3.N5 ", {})
    'L3.N5'
    """
    text = address.strip()
    if logit := _LOGIT.fullmatch(address.lstrip()):
        return f"logits{logit['positions'] or ''}", logit["token"]
    plain = text.partition("@")[0]
    if (part := _NAMED.fullmatch(plain)) and part["name"] in directions:
        home, vector = directions[part["name"]]
        if home == part["home"]:
            return text, vector
    return text


def terms(aim: Aim, model: "Model") -> list[say.Term]:
    """The units of an aim, as the page gets them; none of a Python function."""
    if aim.objective is None or aim.is_function:
        return []
    return [
        say.Term(
            address=term.unit.text,
            weight=term.weight,
            how=how_of(term.unit, model),
            label=label(term.unit, model),
        )
        for term in aim.objective.terms
    ]


def drawing(how: Drawing, model: "ModuleModel") -> say.ClimbOptions:
    """How pictures are optimised, as the page gets it."""
    stimulus = model.stimulus
    free = None in stimulus.shape
    return say.ClimbOptions(
        steps=how.steps,
        size=(how.size or stimulus.size) if free else None,
        smallest=stimulus.smallest,
        seed=how.seed,
        parameterization=how.parameterization,
        transforms=how.transforms,
        decay=how.decay,
        rate=how.rate,
        l2=how.l2,
        tv=how.tv,
        blur=how.blur,
        start=how.start,
    )


def dreaming(how: Dreaming) -> say.DreamOptions:
    """How prompts are searched for, as the page gets it."""
    return say.DreamOptions(
        length=how.length,
        population=how.population,
        children=how.children,
        iterations=how.iterations or 0,
        top=how.top_k,
        seconds=how.seconds,
        seed=how.seed,
        start=how.start,
    )


def how_of(unit: "Unit", model: "Model") -> say.UnitHow | None:
    """How all places of a unit become one number; None where it is one."""
    if isinstance(unit, Neuron):
        return unit.how
    if not isinstance(unit, Channel) or not _part_shape(unit, model):
        return None
    return unit.how


def label(unit: "Unit", model: "Model") -> str:
    """What a unit is in words, such as the class of an output; empty where nothing is known."""
    labels: Sequence[str] = getattr(model, "labels", ())
    if not isinstance(unit, Channel) or unit.direction is not None or not labels:
        return ""
    if unit.site.name != cast("ModuleModel", model).anatomy.output:
        return ""
    return labels[unit.site.index or 0]


def _part_shape(unit: Channel, model: "Model") -> tuple[int, ...]:
    return cast("ModuleModel", model).anatomy.part(unit.site.name or "").shape


def complete_units(model: "ModuleModel", prefix: str) -> list[tuple[str, str]]:
    """Addresses of a module's units that a beginning could become, each with its label.

    Parts first; with ``:c`` the part's channels; and outputs whose label has the text in it.
    """
    anatomy, text = model.anatomy, prefix.strip()
    path, colon, number = text.partition(":")
    found: list[tuple[str, str]] = []
    if colon and path in anatomy.parts:
        digits = number.removeprefix("c")
        for index in range(anatomy.parts[path].channels):
            if str(index).startswith(digits):
                named_as = model.label(index) if path == anatomy.output and model.labels else ""
                found.append((f"{path}:c{index}", named_as))
            if len(found) == COMPLETIONS:
                return found
        return found
    begun = [each for each in anatomy.parts if each.startswith(text)]
    # A block before what it is made of.
    found += [(f"{each}:c0", "") for each in sorted(begun, key=lambda path: path.count("."))]
    wanted = text.casefold()
    if len(wanted) > 1:
        named_like = [
            (not each.casefold().startswith(wanted), index, each)
            for index, each in enumerate(model.labels)
            if wanted in each.casefold()
        ]
        found += [(f"{anatomy.output}:c{index}", each) for _, index, each in sorted(named_like)]
    return found[:COMPLETIONS]


def expand_units(model: "ModuleModel", addresses: Sequence[str]) -> list[str]:
    """Addresses of single units; ``_fc`` and ``_fc:c*`` stand for all channels of a part.

    Raises:
        AddressError: when there is no such unit.
        InputError: when there are fewer than two.
    """
    found: dict[str, None] = {}
    for address in addresses:
        path, _, rest = address.strip().partition(":")
        if path in model.anatomy.parts and rest in {"", "c*"}:
            found |= dict.fromkeys(
                f"{path}:c{index}" for index in range(model.anatomy.parts[path].channels)
            )
        else:
            found |= dict.fromkeys(str(site) for site in model.anatomy.expand(address.strip()))
    if len(found) < 2:
        msg = "Clusters are of two units at least: name more of them, such as _fc:c*."
        raise InputError(msg)
    return list(found)


def objective_of(aim: Aim) -> Objective:
    """What is maximised.

    Raises:
        AddressError: when no unit was chosen.
    """
    if aim.objective is None:
        msg = "Say first which unit is to be maximised, such as view.aim('_blocks.9:c17')."
        raise AddressError(msg)
    return aim.objective
