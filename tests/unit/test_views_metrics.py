"""The views on a session with any metric, and with prompt pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import patchclamp as pc
from patchclamp.errors import MetricError
from patchclamp.views.attention_inspector import AttentionInspector
from patchclamp.views.neuron_clamp import NeuronClamp
from tests.unit import letters, tiny
from tests.unit.heard import Hears, until

if TYPE_CHECKING:
    from collections.abc import Callable

STACK = (pc.Clamp("L1.N5@3:", 6.0), pc.Scale("L2.H1", 4.0))
SET = pc.PromptSet(
    "mine",
    "Letters",
    0,
    (pc.Pair("a b c", "a d c", " e", " f"), pc.Pair("g b c", "g d c", " h", " i")),
)


class Clamped(Hears, NeuronClamp):
    """The real view, heard."""


class Inspected(Hears, AttentionInspector):
    """The real view, heard."""


def spread(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, -1].amax(-1) - logits[:, -1].mean(-1)


def kl(session: pc.Session) -> float:
    p, q = (r.logits[-1].double().log_softmax(-1) for r in (session.baseline, session.current))
    return float((p.exp() * (p - q)).sum())


def loss(session: pc.Session) -> float:
    logits = session.current.logits[:-1].double()
    return float(torch.nn.functional.cross_entropy(logits, session.ids[1:]))


METRICS: list[tuple[pc.KL | pc.Loss | pc.Custom, str, Callable[[pc.Session], float]]] = [
    (pc.KL(), "KL from the baseline", kl),
    (pc.Loss(), "loss", loss),
    (
        pc.Custom(spread, "spread"),
        "spread",
        lambda s: float(spread(s.current.logits[None, -1:])[0]),
    ),
]


@pytest.mark.parametrize(
    ("metric", "label", "truth"), METRICS, ids=[label for _, label, _ in METRICS]
)
def test_neuron_clamp_measures_any_metric(
    metric: Any, label: str, truth: Callable[[pc.Session], float]
) -> None:
    session = pc.Session(tiny.model("llama"), tiny.ids(), metric=metric)
    view = Clamped(session)
    view.ask("hello")
    session.interventions = STACK
    found = view.result()["result"]["metric"]
    after = truth(session)
    assert found["after"] == pytest.approx(after, abs=1e-4)
    shown = view.ask("hello")["body"]["state"]["metric"]
    likeliest = int(session.baseline.logits[-1].argmax())
    assert (shown["label"], shown["target"]["id"], shown["against"]) == (label, likeliest, None)
    table = view.effects
    session.interventions = STACK[1:]
    assert found["before"] == pytest.approx(truth(pc.Session(session.model, session.ids)), abs=1e-4)
    assert table["effect"][0] == pytest.approx(after - truth(session), abs=1e-4)
    assert abs(table["effect"][0]) > 1e-3
    assert table["seeds"][0] == 5
    session.interventions = STACK
    curve = view.curve(session.keys[0])
    for line in (0, 24):
        session.edit(session.keys[0], STACK[0].with_value(float(curve["value"][line])))
        assert curve["metric"][line] == pytest.approx(truth(session), abs=1e-3)
    assert len(view.rank("gradient")) == 20
    view.close()


@pytest.mark.parametrize(
    ("metric", "label", "truth"), METRICS, ids=[label for _, label, _ in METRICS]
)
def test_attention_inspector_measures_the_effect_of_heads_on_any_metric(
    metric: Any, label: str, truth: Callable[[pc.Session], float]
) -> None:
    session = pc.Session(tiny.model("llama"), tiny.ids(), metric=metric, interventions=STACK)
    view = Inspected(session)
    table = view.measure("effect")
    found = float(table[table["address"] == "L1.H2"]["effect"].iloc[0])
    likeliest = int(session.baseline.logits[-1].argmax())
    cells = view.pattern("L2.H1", mode="contribution")
    session.metric = pc.LogProb(likeliest)
    assert torch.equal(
        torch.tensor(cells), torch.tensor(view.pattern("L2.H1", mode="contribution"))
    )
    before = truth(session)
    session.add(pc.Ablate("L1.H2"))
    assert found == pytest.approx(truth(session) - before, abs=1e-4)
    assert abs(found) > 1e-3
    view.close()


def test_a_metric_that_fails_is_said_as_a_sentence_and_the_last_picture_stays() -> None:
    session = pc.Session(tiny.model("llama"), tiny.ids())
    view = Clamped(session)
    view.ask("hello")
    first = view.result()["result"]
    session.metric = pc.Custom(lambda logits: logits[:, -1, 3] / 0, "ratio")
    said = view.hear(lambda m: m["kind"] == "status" and m["error"] is not None)["error"]
    assert said.startswith("The metric 'ratio' is infinite: the metric itself divides by zero")
    body = view.ask("hello")["body"]
    assert body["result"]["metric"] == first["metric"]
    assert body["state"]["metric"]["label"] == "ratio"
    with pytest.raises(MetricError, match="'ratio' is infinite"):
        view.refresh()
    session.metric = pc.KL()
    assert view.result()["result"]["metric"] == {"before": 0.0, "after": 0.0}
    view.close()


@pytest.mark.parametrize("kind", [Clamped, Inspected])
def test_a_view_follows_the_shown_pair_and_typing_another_prompt_drops_the_set(
    kind: type[Hears],
) -> None:
    view: Any = kind(letters.model(), pairs=SET)
    session = view.session
    view.ask("hello")
    model = session.model
    for index, pair in enumerate(SET.pairs):
        session.show_pair(index)
        state = view.ask("hello")["body"]["state"]
        assert state["prompt"] == pair.clean
        logits = pc.Session(model, pair.clean).baseline.logits[-1]
        answer, wrong = model.token_id(pair.answer), model.token_id(pair.wrong)
        found = view.result()["result"]["metric"]["before"]
        assert found == pytest.approx(float(logits[answer] - logits[wrong]), abs=1e-5)
        metric = view.ask("hello")["body"]["state"]["metric"]
        assert (metric["target"]["id"], metric["against"]["id"]) == (answer, wrong)
        assert metric["label"] == f'logit "{pair.answer}" − logit "{pair.wrong}"'
    assert view.ask("prompt", text="k l m")["ok"]
    assert session.pairs is None
    assert view.ask("undo")["ok"]
    shown: tuple[Any, int] = (session.pairs, session.shown_pair)
    assert shown == (SET, 1)
    until(lambda: view.of("state")[-1]["state"]["prompt"] == "g b c")
    view.close()
