"""Interactions of ablations are what four hooked passes say, and show redundancy where it is."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

import pytest
import torch

from patchclamp import Ablate, LogitDifference
from patchclamp.engine.engine import Engine
from patchclamp.engine.plan import Input
from patchclamp.engine.surroundings import Reference
from patchclamp.errors import AddressError, InputError, Stopped
from patchclamp.methods.ablation import component_effects, components
from patchclamp.methods.interaction import Interaction, interaction
from patchclamp.methods.task import Task
from patchclamp.models.language_model import LanguageModel
from patchclamp.sites import Site
from tests.unit import planted, tiny
from tests.unit.pairs import EXACT, Plain, on_worker, task_on

if TYPE_CHECKING:
    from patchclamp.interventions import Intervention
    from patchclamp.methods.task import Replacement


def sites(*addresses: str) -> list[Site]:
    return [Site.parse(address) for address in addresses]


def both(
    task: Task, a: list[Site], b: list[Site], how: Replacement = "mean", seed: int = 0
) -> Interaction:
    return on_worker(task, lambda: interaction(task, a, b, how, seed=seed))


@pytest.mark.parametrize("stack", [[], [Ablate("L0.H0", how="zero")]])
@pytest.mark.parametrize("how", ["mean", "corrupt"])
@pytest.mark.parametrize("name", ["native", "gpt2", "llama", "neox"])
def test_an_interaction_is_what_four_hooked_passes_say(
    name: str, how: Replacement, stack: list[Intervention]
) -> None:
    task = task_on(name, pairs=2, stack=stack, bos=True)
    plain, anatomy = Plain(task), task.engine.model.anatomy
    a, b = sites("L1.H1", "L2.mlp"), sites("L2.H2", "L3.N2", "L1.H3:v@4:")
    value = cache(partial(plain.replacement, how))

    def effect(*chosen: Site) -> float:
        edits = []
        for site in chosen:
            index = None if site.kind == "mlp" else site.index
            if site.part == "v" and index is not None:
                index = anatomy.kv_head(index)
            places = plain.everywhere() if site.positions.is_default else range(4, task.length)
            edits.append((anatomy.hook(site), index, list(places)))
        return plain.put(edits, value) - plain.level()

    found = both(task, a, b, how)
    truth = [effect(*a), effect(*b), effect(*a, *b)]
    near = EXACT * plain.largest
    assert [found.effect_a, found.effect_b, found.both] == pytest.approx(truth, abs=near)
    assert found.interaction == pytest.approx(truth[2] - truth[1] - truth[0], abs=3 * near)
    assert abs(found.interaction) >= 100 * near
    assert found.control is not None
    assert found.control > 0
    assert (found.seeds, found.note) == (5, "")


def test_a_redundant_pair_interacts_and_others_do_not() -> None:
    known = planted.redundant()
    clean, corrupt = (
        tuple(Input(tuple(ids), has_bos=False) for ids in side.tolist())
        for side in (known.clean, known.corrupt)
    )
    engine, metric = Engine.of(known.model), LogitDifference(*known.answers[0])
    task = Task(engine, clean, corrupt, metric, known.answers, Reference(engine, clean))
    effects = known.nodes
    *_, last = on_worker(task, lambda: list(component_effects(task, "corrupt")))
    alone = {str(s): float(last.values[at]) for at, s in components(known.model.anatomy).items()}
    assert alone == pytest.approx({name: effects.get(name, 0.0) for name in alone}, abs=1e-3)
    pairs = {
        (a, b): both(task, sites(a), sites(b), "corrupt").interaction
        for a in alone
        for b in alone
        if a < b
    }
    strongest = max(pairs, key=lambda pair: abs(pairs[pair]))
    found = both(task, sites(strongest[0]), sites(strongest[1]), "corrupt")
    # Either does little by itself, as the other one is there; both together do much.
    assert abs(found.both) > 2 * max(abs(found.effect_a), abs(found.effect_b), 0.1)
    assert found.control is not None
    assert abs(found.interaction) > 10 * found.control


# Controls -----------------------------------------------------------------------------------------


def test_controls_are_drawn_by_the_seed_among_what_neither_a_nor_b_has() -> None:
    task = task_on("gpt2")
    a, b = sites("L2.H0", "L2.H1"), sites("L2.H2")
    found = both(task, a, b)
    # One head is left in the layer: whatever the seed, it is drawn, and once.
    assert found.seeds == 1
    expected = both(task, a, sites("L2.H3"))
    assert found.control == pytest.approx(abs(expected.interaction), abs=1e-5)
    assert found == both(task, a, b, seed=7)
    # An MLP's counterparts are other layers'.
    mlp = both(task, sites("L1.mlp", "L3.mlp"), sites("L2.mlp"))
    assert mlp.seeds == 1
    first = both(task, sites("L1.mlp", "L3.mlp"), sites("L0.mlp"))
    assert mlp.control == pytest.approx(abs(first.interaction), abs=1e-5)
    neurons = sites("L1.N3", "L1.N4")
    assert both(task, a, neurons, seed=1) == both(task, a, neurons, seed=1)
    assert both(task, a, neurons, seed=1).control != both(task, a, neurons, seed=2).control


def test_heads_that_share_keys_are_one_and_no_control_of_each_other() -> None:
    task = task_on("llama")  # two heads use each of two key/value heads
    found = both(task, sites("L2.H0"), sites("L1.H0:k"))
    assert found.seeds == 1
    expected = both(task, sites("L2.H0"), sites("L1.H3:k"))
    assert found.control == pytest.approx(abs(expected.interaction), abs=1e-5)
    with pytest.raises(InputError, match=r"A and B both have L1\.H1:k"):
        both(task, sites("L1.H0:k"), sites("L1.H1:k"))


def test_a_massive_neuron_is_never_drawn() -> None:
    made = tiny.hugging_face("gpt2")
    with torch.no_grad():
        made.transformer.h[2].mlp.c_fc.bias[7] = 3000.0
    task = task_on(LanguageModel(made, None, name="massive"), pairs=1)
    every = [Site("neuron", 2, index, "post") for index in range(128) if index != 7]
    found = both(task, every[:100], every[100:])
    assert found.control is None
    assert "B has 27 neurons in layer 2, and A and B leave 0 to draw from" in found.note


# Everything, and bad input ------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["zero", "mean", "corrupt"])
def test_everything_can_be_ablated_and_what_is_left_is_the_embedding(how: Replacement) -> None:
    task = task_on("llama")
    every = list(components(task.engine.model.anatomy).values())
    found = both(task, every[:7], every[7:], how)
    plain, anatomy = Plain(task), task.engine.model.anatomy
    edits = [
        (anatomy.hook(s), None if s.kind == "mlp" else s.index, plain.everywhere()) for s in every
    ]
    value = cache(partial(plain.replacement, how))
    truth = plain.put(edits, value) - plain.level()
    assert found.both == pytest.approx(truth, abs=EXACT * plain.largest)
    assert found.control is None
    assert found.seeds == 0
    assert found.note.startswith("There is no control: B has ")


def test_what_cannot_be_ablated_is_said() -> None:
    task = task_on("llama")
    one, other = sites("L1.H1"), sites("L2.H1")
    with pytest.raises(InputError, match="A is empty: name at least one component"):
        both(task, [], other)
    with pytest.raises(InputError, match="B is empty"):
        both(task, one, [])
    with pytest.raises(InputError, match=r"A and B both have L1\.H1: how two ablations"):
        both(task, sites("L0.mlp", "L1.H1@3:"), sites("L2.H1", "L1.H1"))
    assert both(task, sites("L1.H1@3"), sites("L1.H1@4")).seeds == 3
    with pytest.raises(InputError, match=r"L1\.H1\[4<-2\] has no value that can be replaced"):
        both(task, sites("L1.H1[4<-2]"), other)
    with pytest.raises(InputError, match=r"L1\.N3:act has no value"):
        both(task, sites("L1.N3:act"), other)
    with pytest.raises(AddressError, match="layer 9 does not exist"):
        both(task, sites("L9.H1"), other)
    with pytest.raises(AddressError, match="40"):
        both(task, sites("L1.H1@40"), other)


def test_it_stops() -> None:
    task = task_on("llama")
    both(task, sites("L1.H1"), sites("L2.H1"))
    asked = iter([False] * 3)
    with pytest.raises(Stopped):
        on_worker(
            task,
            lambda: interaction(
                task,
                sites("L1.H1"),
                sites("L2.H1"),
                "mean",
                should_stop=lambda: next(asked, True),
            ),
        )
