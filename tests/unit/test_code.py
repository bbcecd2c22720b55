"""A snippet, executed with torch and TransformerLens alone, gives the numbers of the steps."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any

import pytest
import torch

from patchclamp.code import Setting, write
from patchclamp.engine.hooks import Frame, compile_stack
from patchclamp.errors import InterventionError, PatchclampError
from patchclamp.interventions import (
    Ablate,
    Add,
    Clamp,
    Cut,
    Intervention,
    Knockout,
    Patch,
    Scale,
)
from patchclamp.session import Session
from tests.unit import tiny
from tests.unit.test_hooks import (
    EXACT,
    IDS,
    LENGTH,
    OTHER,
    REFERENCE,
    SEEN,
    VECTOR,
    Around,
    anatomy_of,
    bridge_of,
    run,
    untouched,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

NAMES = ["llama", "gpt2", "neox", "gemma3", "bert", "opt", "native"]
EIGHT = [1.0, -1.0, 2.0, 0.5, 1.0, 1.0, -2.0, 1.0]
STACK: list[Intervention] = [
    Clamp("L1.N5", 8.0),
    Clamp("L1.N5:act@1:6", 2.0),
    Scale("L1.N6:act", 3.0),
    Add("{L1.N5:act, L1.N9:act}@1,4", [3.0, -2.0]),
    Ablate("L1.N5:act", "zero"),
    Ablate("L1.N5:act", "resample", 3),
    Patch("L1.N5:act@0:5"),
    Clamp("L1.N5:gate", 2.0),
    Clamp("L1.N5:pre", 3.0),
    Scale("L1.N5:up", -2.0),
    Ablate("L[0:2].N[0:20]"),
    Ablate("{L1.N3, L1.N9}@1,4"),
    Add("{L1.N3, L1.N9}@1,4", [6.0, 9.0]),
    Ablate("L1.H2", "resample", 1),
    Patch("{L1.H2, L1.H0}@1,4,5", at="-1"),
    Patch("L1.mlp@1:3", OTHER, at="0,3"),
    Scale("L1.H2:v", 3.0),
    Clamp("L1.H0", EIGHT),
    Add("L1.H3@-1", 2.0, EIGHT),
    Scale("L1.mlp", 0.5),
    Ablate("L1.attn"),
    Ablate("L1.attn@1,4", direction=VECTOR),
    Ablate("{L1.H0, L1.H3}", "zero", direction=EIGHT),
    Ablate("L1.H1", "resample", 2, EIGHT),
    Add("L1.attn@1:3", [1.0, 2.0], VECTOR),
    Add("L1.resid_mid", 1.0, VECTOR),
    Clamp("L1.resid_mid[dog]", 5.0),
    Clamp("L1.resid_pre[dog]@all", 5.0),
    Scale("L1.mlp[dog]", -3.0),
    Add("L1.resid_post[dog]@1,4", [5.0, 1.0]),
    Ablate("L1.attn[dog]@1,4"),
    Patch("L1.resid_post[dog]@3", at=0),
    Ablate("embed@-1", "zero"),
    Knockout("L1.H2[-1<--2]"),
    Knockout("L1.H2@1,4"),
    Knockout("{L1.H2[*<-2], L1.H2[3<-3]}", "zero"),
    Knockout("L[1:3].H[0:2][3:-1<-1:3]"),
    Knockout("{L1.H1[2:6<-0:6], L1.H3[4<-1]}", "contrast"),
    Cut("L0.H1->L1.H2:q"),
    Cut("L0.mlp->L1.mlp"),
    Cut("{L0.N3->L1.H0:k, L0.N4->L1.H1:k, embed->logits}@1,3", "zero"),
    Cut("L0.H2->L1.H3:v@2:6", "contrast"),
    Cut("{L0.mlp->L1.mlp, L0.N3->L2.H1:k, L0.H0->logits}@1,5", "contrast"),
]


def setting(name: str, **changes: Any) -> Setting:
    known: dict[str, Any] = {
        "source": "model = MODEL",
        "ids": tuple(IDS.tolist()),
        "has_bos": True,
        "anatomy": anatomy_of(name),
        "text": "two\nlines",
        "reference": tuple(tuple(ids.tolist()) for ids in REFERENCE),
        "contrast": tuple(OTHER.tolist()),
        "directions": {"dog": tuple(VECTOR.tolist())},
    }
    return Setting(**(known | changes))


class AsInSessions(Around):
    """Draws reference positions as a session does."""

    def resample(self, hook: str, seed: int) -> Tensor:
        places = [(ids, p) for ids in REFERENCE for p in range(1, len(ids))]
        generator = torch.Generator().manual_seed(seed)
        ids, position = places[int(torch.randint(len(places), (1,), generator=generator))]
        return self.patch(tuple(ids.tolist()), hook)[position]


def executed(code: str, **names: Any) -> Tensor:
    assert "patchclamp" not in code.replace("Written by patchclamp", "")
    with torch.set_grad_enabled(True):  # a snippet switches gradients off for good
        exec(compile(code, "snippet", "exec"), names)  # noqa: S102 (what the test is about)
    logits: Tensor = names["logits"][0]
    return logits


def stepped(name: str, stack: Sequence[Intervention]) -> Tensor:
    frame = Frame(0, LENGTH, has_bos=True)
    steps = compile_stack(stack, anatomy_of(name), AsInSessions(name))
    return run(
        name,
        [(step.hook, lambda x, hook, step=step: step.apply(x, frame)) for step in steps],  # noqa: ARG005
    )


def taken_by(name: str) -> list[Intervention]:
    """Those that the model can do."""
    found: list[Intervention] = []
    for intervention in STACK:
        try:
            compile_stack([intervention], anatomy_of(name), AsInSessions(name))
        except PatchclampError:
            continue
        found.append(intervention)
    return found


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_every_operation_gives_the_numbers_of_its_steps(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done = taken_by(name)
    assert len(done) >= 20
    for intervention in done:
        found = executed(write(setting(name), [intervention]), MODEL=bridge_of(name))
        expected = stepped(name, [intervention])
        largest = expected.abs().max()
        assert (found - expected).abs().max() < EXACT * largest, intervention
        assert (expected - untouched(name)).abs().max() > SEEN * largest, intervention
    assert capsys.readouterr().out.count("[") == len(done)


@pytest.mark.parametrize("name", NAMES)
def test_a_stack_of_all_of_them_does_so_in_either_order(name: str) -> None:
    done = taken_by(name)
    for stack in (done, done[::-1]):
        found = executed(write(setting(name), stack), MODEL=bridge_of(name))
        expected = stepped(name, stack)
        assert (found - expected).abs().max() < EXACT * expected.abs().max()


def test_muted_interventions_are_left_out() -> None:
    code = write(setting("llama"), [Clamp("L1.N5", 8.0, muted=True)])
    assert "L1.N5" not in code
    assert torch.equal(executed(code, MODEL=bridge_of("llama")), untouched("llama"))


def test_a_snippet_says_where_and_what_in_names_that_people_know() -> None:
    code = write(setting("llama"), [Clamp("L1.N5@-1", 8.0), Ablate("L2.H3", "zero")])
    assert "# L1.N5@-1: set to 8" in code
    assert "('blocks.1.mlp.hook_post', clamp_1)" in code
    assert "('blocks.2.attn.hook_z', ablate_2)" in code
    assert "x[:, 7:8, 5] = 8.0" in code


def test_texts_and_names_stay_in_their_comments() -> None:
    """A prompt or a name with line ends in it must not become code."""
    name = "dog'); import os #\u2028#"
    code = write(
        setting("llama", text="x\nimport os\r\u2028#", directions={name: tuple(VECTOR.tolist())}),
        [Clamp(f"L1.mlp[{name}]", 1.0)],
    )
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Import)]
    assert [alias.name for node in imports for alias in node.names] == ["torch"]


@pytest.mark.parametrize(
    ("intervention", "changes", "sentence"),
    [
        (Patch("L1.N5"), {"contrast": None}, "no contrast input"),
        (Knockout("L1.H2[5<-3]", "contrast"), {"contrast": None}, "no contrast input"),
        (Knockout("L1.H2[7<-3]", "contrast"), {}, "the contrast input has only 6 positions"),
        (Patch("L1.N5", "a text"), {}, "needs a tokenizer"),
        (Ablate("L1.N5"), {"reference": ()}, "needs a reference set"),
        (Cut("L0.mlp->L1.mlp"), {"reference": ()}, "needs a reference set"),
        (Cut("L0.mlp->L1.mlp@2", "contrast"), {"contrast": None}, "no contrast input"),
        (Cut("L0.mlp->L1.mlp", "contrast"), {}, "touches position 7, .* has only 6 positions"),
        (Clamp("L1.mlp[cat]", 1.0), {}, "there is no direction 'cat'"),
    ],
)
def test_what_is_missing_is_said(
    intervention: Intervention, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InterventionError, match=sentence):
        write(setting("llama", **changes), [intervention])


def test_a_sessions_snippet_gives_its_numbers() -> None:
    model = tiny.model("llama")
    session = Session(model, IDS, contrast=OTHER, reference=list(REFERENCE))
    session.define("dog", "L1.mlp", VECTOR)
    session.interventions = [
        Clamp("L1.N5", 8.0),
        Ablate("L2.H1"),
        Ablate("L2.N[0:9]", "resample", 4),
        Patch("L1.H0@1:3"),
        Scale("L1.mlp[dog]", 3.0),
        Cut("L0.mlp->L3.H0:k"),
        Cut("L1.H3->L3.mlp@1:6", "contrast"),
        Knockout("L2.H2[-1<-1]"),
        Knockout("L1.H*[3:6<-1] | {L2.H3@1,4}", "contrast"),
    ]
    source = session.to_code().replace(
        "# Bind `model` to your TransformerBridge first: it was made by other code than this.",
        "model = MODEL",
    )
    found = executed(source, MODEL=tiny.fresh_bridge("llama"))
    expected = session.current.logits
    largest = expected.abs().max()
    assert (expected - session.baseline.logits).abs().max() > SEEN * largest
    assert (found - expected).abs().max() < EXACT * largest
