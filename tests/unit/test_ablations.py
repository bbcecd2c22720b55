"""What a click on components does to a stack of anything."""

import pytest

from patchclamp.errors import InterventionError
from patchclamp.interventions import Ablate, Clamp, Intervention, Knockout, Patch
from patchclamp.sites import Site
from patchclamp.views import ablations
from tests.unit import tiny

ANATOMY = tiny.model("llama").anatomy
OTHER = (Clamp("L1.N5", 2.0), Knockout("L0.H1[3<-1]"), Patch("L2.mlp", "a text"))
H1, H2, MLP = Site.parse("L1.H1"), Site.parse("L2.H2"), Site.parse("L1.mlp")


def toggled(stack: tuple[Intervention, ...], *sites: Site, how: str = "mean") -> tuple[object, ...]:
    return ablations.toggled(stack, sites, how, ANATOMY)[0]  # type: ignore[arg-type]


def test_a_click_ablates_and_the_same_again_takes_it_back() -> None:
    once = ablations.toggled(OTHER, [H1, MLP], "zero", ANATOMY)
    assert once == ((*OTHER, Ablate(H1, "zero"), Ablate(MLP, "zero")), True)
    assert ablations.toggled(once[0], [MLP, H1], "mean", ANATOMY) == (OTHER, False)


def test_of_some_that_are_ablated_and_some_not_the_rest_follows() -> None:
    stack = (Ablate(H1), *OTHER)
    assert toggled(stack, H1, H2, how="corrupt") == (Ablate(H1), *OTHER, Patch(H2, "contrast"))


def test_a_muted_ablation_is_none_and_makes_room() -> None:
    stack = (Ablate(H1, "zero", muted=True), *OTHER)
    assert ablations.components(stack, ANATOMY) == []
    assert toggled(stack, H1) == (*OTHER, Ablate(H1))


def test_one_member_is_taken_out_of_a_set() -> None:
    stack = (Ablate("L1.H*", "zero"),)
    assert ablations.components(stack, ANATOMY) == ["L1.H0", "L1.H1", "L1.H2", "L1.H3"]
    (left,) = ablations.toggled(stack, [H1], "mean", ANATOMY)[0]
    assert left == Ablate("{L1.H0, L1.H2, L1.H3}", "zero")
    assert toggled((Ablate("{L1.H1, L2.H2}"),), H1) == (Ablate("L2.H2"),)


def test_only_what_is_put_in_the_place_of_a_whole_component_counts_as_ablated() -> None:
    stack = (
        Ablate("L1.H1@-1"),
        Ablate("L1.H2:q"),
        Ablate("L1.N3"),
        Ablate("L1.H3", direction=[1.0] * 8),
        Patch("L2.H0", "contrast", at=3),
        Patch("L3.mlp"),
        *OTHER,
    )
    assert ablations.components(stack, ANATOMY) == ["L3.mlp"]
    assert ablations.ablated(stack, ANATOMY)[1] == Site.parse("L1.N3")


def test_solo_mutes_every_other_row() -> None:
    stack = (Ablate(H1), *OTHER, Ablate(H2, "zero"))
    soloed = ablations.soloed(stack, [H2], "mean", ANATOMY)
    muted = [iv.replace(muted=True) for iv in (Ablate(H1), *OTHER)]
    assert soloed == (*muted, Ablate(H2, "mean"))


def test_what_has_no_value_cannot_be_ablated() -> None:
    with pytest.raises(InterventionError, match="nothing that can be ablated"):
        ablations.made(Site.parse("L0.H0->L1.H1:q"), "mean")
    with pytest.raises(InterventionError, match="nothing that can be ablated"):
        ablations.made(Site.parse("logits"), "zero")
