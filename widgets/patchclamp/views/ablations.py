"""From components that are clicked to the ablations they mean, on a stack of anything."""

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from patchclamp.errors import InterventionError
from patchclamp.interventions import VALUES, Ablate, Intervention, Patch
from patchclamp.sites import Site, SiteSet

from .messages import Replacement

if TYPE_CHECKING:
    from patchclamp.models.anatomy import Anatomy

Stack = tuple[Intervention, ...]


def made(site: Site, how: Replacement) -> Intervention:
    """The ablation of a component.

    Raises:
        InterventionError: when it has no value to take away.
    """
    if site.kind not in VALUES:
        raise InterventionError(
            f"{site} is nothing that can be ablated; a head is (L5.H3), an MLP (L5.mlp), or one of "
            "its neurons (L5.N7)."
        )
    return Patch(site) if how == "corrupt" else Ablate(site, how)


def is_ablation(intervention: Intervention) -> bool:
    """Whether an intervention puts something else in a component's place, muted or not.

    One along a direction leaves the rest of it.
    """
    if isinstance(intervention, Patch):
        return intervention.source == "contrast" and intervention.at is None
    return isinstance(intervention, Ablate) and intervention.direction is None


def ablated(stack: Iterable[Intervention], anatomy: "Anatomy") -> list[Site]:
    """What is ablated at all its positions, without what is muted, in the stack's order."""
    found = (site for iv in stack if _acts(iv) for site in _members(iv, anatomy))
    return list(dict.fromkeys(site for site in found if site.positions.is_default))


def components(stack: Iterable[Intervention], anatomy: "Anatomy") -> list[str]:
    """The addresses of the heads and MLPs that are ablated."""
    return [str(site) for site in ablated(stack, anatomy) if _is_component(site)]


def toggled(
    stack: Stack, sites: Sequence[Site], how: Replacement, anatomy: "Anatomy"
) -> tuple[Stack, bool]:
    """Ablate sites, or take their ablations back where every one of them is ablated.

    Args:
        stack: what there is.
        sites: what was clicked.
        how: what is put in their place.
        anatomy: of the model.

    Returns:
        The new stack, and whether the sites are ablated under it.
    """
    there = set(ablated(stack, anatomy))
    if there.issuperset(sites):
        return without(stack, sites, anatomy), False
    missing = [site for site in sites if site not in there]
    # A muted row of the same place makes room: two would be one too many once it is unmuted.
    kept = without(stack, missing, anatomy)
    return (*kept, *(made(site, how) for site in missing)), True


def soloed(stack: Stack, sites: Sequence[Site], how: Replacement, anatomy: "Anatomy") -> Stack:
    """Ablate these sites alone: every other row is muted."""
    rest = without(stack, sites, anatomy)
    return (*(iv.replace(muted=True) for iv in rest), *(made(site, how) for site in sites))


def without(stack: Stack, sites: Collection[Site], anatomy: "Anatomy") -> Stack:
    """The stack without ablations of these sites; sets keep their other members."""
    kept: list[Intervention] = []
    for iv in stack:
        members = _members(iv, anatomy) if is_ablation(iv) else []
        left = [site for site in members if site not in sites]
        if not is_ablation(iv) or len(left) == len(members):
            kept.append(iv)
        elif left:
            kept.append(iv.replace(site=SiteSet.of(*left) if len(left) > 1 else left[0]))
    return tuple(kept)


def _acts(intervention: Intervention) -> bool:
    return is_ablation(intervention) and not intervention.muted


def _is_component(site: Site) -> bool:
    return site.kind == "mlp" or (site.kind == "head" and site.part == "z")


def _members(intervention: Intervention, anatomy: "Anatomy") -> list[Site]:
    site = intervention.site
    return site.expand(anatomy) if isinstance(site, SiteSet) else [site]
