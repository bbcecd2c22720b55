"""Interactions of ablations are what four hooked passes say."""

from __future__ import annotations

from functools import cache, partial

import pytest

from patchclamp.methods.interaction import interaction
from patchclamp.sites import Site
from tests.unit.pairs import EXACT, Plain, on_worker, task_on


@pytest.mark.parametrize("name", ["native", "gpt2", "llama", "neox"])
def test_an_interaction_is_what_four_hooked_passes_say(name: str) -> None:
    task = task_on(name)
    plain, anatomy = Plain(task), task.engine.model.anatomy
    a, b = [Site.parse("L1.H1"), Site.parse("L2.mlp")], [Site.parse("L2.H0"), Site.parse("L3.H2")]
    value = cache(partial(plain.replacement, "mean"))

    def effect(*sites: Site) -> float:
        edits = [
            (anatomy.hook(s), None if s.kind == "mlp" else s.index, plain.everywhere())
            for s in sites
        ]
        return plain.put(edits, value) - plain.level()

    found = on_worker(task, lambda: interaction(task, a, b, "mean"))
    truth = [effect(*a), effect(*b), effect(*a, *b)]
    near = EXACT * plain.largest
    assert [found.effect_a, found.effect_b, found.both] == pytest.approx(truth, abs=near)
    assert found.interaction == pytest.approx(found.both - found.effect_a - found.effect_b)
    assert abs(found.interaction) >= 100 * near
    assert found.control is not None
    assert found.control >= 0
    assert found.seeds == 5
