"""Interventions are values: validated, compared, printed, and written to JSON and back."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchclamp.errors import AddressError, InterventionError, PatchclampError
from patchclamp.interventions import (
    OPERATIONS,
    Ablate,
    Add,
    Clamp,
    Cut,
    CutHow,
    Intervention,
    Knockout,
    KnockoutHow,
    Patch,
    Scale,
)
from patchclamp.sites import Site

if TYPE_CHECKING:
    from collections.abc import Callable

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)
vectors = st.lists(finite, min_size=1, max_size=4).filter(any)
at = st.sampled_from(["", "@-1", "@0:5", "@1,3", "@all", "@new"])
scalars = st.builds(
    lambda text, where: text + where,
    st.sampled_from(
        ["L12.N304", "L3.N7:gate", "L12.resid_post[a dog]", "_blocks.7:c3", "L[2:5].N*"]
    ),
    at,
)
wholes = st.builds(
    lambda text, where: text + where,
    st.sampled_from(["L5.H3", "L7.mlp", "embed", "L2.resid_mid", "L[0:3].H*"]),
    at,
)
muted = st.booleans()
interventions: st.SearchStrategy[Intervention] = st.one_of(
    st.builds(Clamp, scalars, finite, muted=muted),
    st.builds(Clamp, wholes, vectors, muted=muted),
    st.builds(Scale, scalars | wholes, finite, muted=muted),
    st.builds(Add, scalars, finite, muted=muted),
    st.builds(Add, wholes, finite, vectors, muted=muted),
    st.builds(Add, st.just("L3.N5@0:3"), vectors, muted=muted),
    st.builds(
        Ablate,
        scalars | wholes,
        st.sampled_from(["mean", "zero", "resample"]),
        st.integers(0, 2**63 - 1),
        muted=muted,
    ),
    st.builds(Ablate, wholes, st.sampled_from(["mean", "zero"]), direction=vectors, muted=muted),
    st.builds(
        Patch,
        scalars | wholes,
        st.just("contrast") | st.text(min_size=1) | st.lists(st.integers(0, 99), min_size=1),
        st.none() | st.sampled_from(["-1", "0:3", "1,2"]),
        muted=muted,
    ),
    st.builds(
        Knockout,
        st.sampled_from(
            [
                "L5.H3[7<-2]",
                "L5.H3[*<--1]",
                "L5.H3@-1",
                "{L1.H2[3<-1], L1.H2[3<-2]}",
                "L5.H3[7:9<-2:5]",
                "L[3:9].H*[-3:-1<-*]",
            ]
        ),
        st.sampled_from(get_args(KnockoutHow)),
        muted=muted,
    ),
    st.builds(
        Cut,
        st.sampled_from(["L3.H1->L7.H2:q", "embed->logits@-1", "{L1.N2->L3.mlp, L1.N3->L3.mlp}"]),
        st.sampled_from(get_args(CutHow)),
        muted=muted,
    ),
)


@given(interventions)
def test_json_gives_the_same_intervention(intervention: Intervention) -> None:
    written = json.dumps(intervention.to_json(), allow_nan=False)
    assert Intervention.from_json(json.loads(written)) == intervention


@given(interventions)
def test_its_print_makes_it_again(intervention: Intervention) -> None:
    made = eval(repr(intervention), {kind.__name__: kind for kind in OPERATIONS.values()})  # noqa: S307
    assert made == intervention
    assert hash(made) == hash(intervention)


@given(interventions, finite)
def test_one_number_can_be_changed_where_there_is_one(
    intervention: Intervention, number: float
) -> None:
    if isinstance(intervention.value, float):
        changed = intervention.with_value(number)
        assert changed.value == number
        assert (changed.site, changed.muted) == (intervention.site, intervention.muted)
    else:
        with pytest.raises(InterventionError, match="no single number"):
            intervention.with_value(number)


@given(interventions)
def test_muting_changes_only_that(intervention: Intervention) -> None:
    other = intervention.replace(muted=not intervention.muted)
    assert other != intervention
    assert other.replace(muted=intervention.muted) == intervention


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)


@given(
    st.sampled_from([*OPERATIONS, "nothing"]),
    st.dictionaries(
        st.sampled_from(
            ["site", "value", "factor", "amount", "how", "seed", "source", "muted", "x"]
        ),
        junk | st.just("L1.N2"),
    ),
)
def test_junk_is_refused_in_a_sentence(op: str, fields: dict[str, Any]) -> None:
    try:
        made = Intervention.from_json({"op": op, **fields})
    except PatchclampError as error:
        assert str(error).endswith((".", "?"))  # noqa: PT017 (either outcome is right)
    else:
        assert Intervention.from_json(made.to_json()) == made


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Clamp("L1.N2", math.nan), "must be a finite number, not nan"),
        (lambda: Clamp("L1.N2", math.inf), "must be a finite number, not inf"),
        (lambda: Clamp("L1.N2", 10**400), "must be a finite number"),
        (lambda: Clamp("L1.N2", "8"), "must be a number, not '8'"),
        (lambda: Clamp("L1.N2", True), "must be a number, not True"),
        (lambda: Clamp("L1.N2", [1.0, 2.0]), "L1.N2 is one number"),
        (lambda: Clamp("L1.mlp", 8.0), "Scale it, Ablate it, Add a direction"),
        (lambda: Clamp("L[0:2].H*", 8.0), "is a vector"),
        (lambda: Clamp("L1.H2[3<-1]", 0.0), "Clamp needs a value such as"),
        (lambda: Scale("L1.N2", math.nan), "the factor of a Scale"),
        (lambda: Add("L1.mlp", 1.0), "say along which direction"),
        (lambda: Add("L1.N2", 1.0, [1.0]), "without a direction"),
        (lambda: Add("L1.mlp", 1.0, [0.0, 0.0]), "needs a length"),
        (lambda: Add("L1.N2", [1.0, 2.0]), "such as L1.N2@0:2"),
        (lambda: Add("L1.mlp", 1.0, [1.0, math.inf]), "must be a finite number"),
        (lambda: Ablate("L1.N2", "median"), "must be 'mean' or 'zero' or 'resample'"),  # type: ignore[arg-type]
        (lambda: Ablate("L1.N2", seed=-1), "a seed is an integer from 0"),
        (lambda: Ablate("L1.N2", direction=[1.0]), "Ablate it without a direction"),
        (lambda: Ablate("L1.mlp", direction=[0.0, 0.0]), "an Ablate is zero; it needs a length"),
        (lambda: Patch("L1.N2", ""), "empty text"),
        (lambda: Patch("L1.N2", [-1]), "a text or a list of token ids"),
        (lambda: Patch("L1.N2", at="new"), "takes its values from prompt positions"),
        (lambda: Knockout("L1.N2"), "an attention cell such as L5.H3[7<-2]"),
        (lambda: Knockout("L1.H2:q"), "only one of the head's inputs"),
        (lambda: Knockout("L1.H2", "mean"), "'renormalise' or 'zero' or 'contrast'"),  # type: ignore[arg-type]
        (lambda: Cut("L1.H2"), "an edge such as L3.H1->L7.H2:q"),
        (lambda: Cut("L1.H2->L2.mlp", "resample"), "'mean' or 'zero' or 'contrast'"),  # type: ignore[arg-type]
        (lambda: Clamp("L1.N2", 1.0).replace(how="zero"), "Clamp has no 'how'"),
        (lambda: Clamp("L1.N2", 1.0, muted=1), "muted must be True or False"),  # type: ignore[arg-type]
        (lambda: Intervention.from_json({"op": "clamp", "site": "L1.N2"}), "missing"),
        (lambda: Intervention.from_json([]), "is a JSON object"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_is_said(make: Callable[[], Intervention], sentence: str) -> None:
    with pytest.raises(InterventionError) as error:
        make()
    assert sentence in str(error.value)


def test_a_wrong_address_is_an_address_error() -> None:
    with pytest.raises(AddressError, match=r"Did you mean L12\.N304"):
        Clamp("L12.n304", 1.0)


@pytest.mark.parametrize("make", [torch.tensor, np.array, list, tuple])
def test_vectors_are_taken_from_tensors_and_arrays_and_kept_as_floats(
    make: Callable[[list[float]], Any],
) -> None:
    assert Add("L1.mlp", 2, make([1.0, 2.0])) == Add("L1.mlp", 2.0, (1.0, 2.0))


def test_numbers_are_taken_from_scalars_of_torch_and_numpy() -> None:
    assert Clamp("L1.N2", torch.tensor(2.0)) == Clamp("L1.N2", np.float32(2)) == Clamp("L1.N2", 2)


def test_positions_can_be_changed() -> None:
    assert Clamp("L1.N2", 1).with_positions(-1) == Clamp("L1.N2@-1", 1)
    assert Clamp(Site.parse("L1.N2"), 1).with_positions("0:2").site == Site.parse("L1.N2@0:2")


def test_making_interventions_needs_no_torch() -> None:
    code = (
        "import sys, patchclamp; patchclamp.Clamp('L12.N304@-1', 8.0); "
        "patchclamp.Site.parse('L[0:2].N*' and 'L1.N2'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
