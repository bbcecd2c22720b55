"""What SmolLM2's decoded neurons do when they are clamped, beside random ones. `make truth`.

The neurons are the 50 of all 46,080 whose output weights (`down`) score highest in their decoding,
massive neurons left out; each one's token is the one that stands out most of it, to either side. A
neuron is clamped at all positions to plus and minus twice its largest absolute value over the
reference texts, *up* being the side on which its output vector raises the token. The prompts are
the first words of 20 shipped texts.

- *Decoded*: on average over the prompts, clamping up raises the token's log-probability as the next
  one, and clamping down lowers it. For at least 45 of 50, each.
- *Random*: another neuron of the same layer, drawn with seed 0, is clamped as the decoded one is,
  with the same token. It raises the token with up for about half (15 to 35 of 50), and lowers it
  with down for about half: it is random to which side it is clamped.

What was measured is written to `results/decoded-neurons.json`. About three minutes of one core.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from patchclamp import load
from patchclamp.engine.engine import Engine
from patchclamp.engine.surroundings import Reference, reference_inputs
from patchclamp.methods.corpus_examples import shipped_texts
from patchclamp.methods.decoded_weights import Decoder
from patchclamp.methods.massive import massive_neurons, neuron_hooks
from patchclamp.methods.text_examples import tokenized
from patchclamp.methods.token_effect import random_neurons, token_effect
from patchclamp.models import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from patchclamp.engine.plan import Input
    from patchclamp.methods.decoded_weights import Decoded
    from patchclamp.methods.token_effect import TokenEffect

SEED = 0
COUNT, ENOUGH = 50, 45
HALF = (15, 35)
PROMPTS = 20
WORDS = 12  # tokens of a prompt
TIMES_PEAK = 2.0
RESULTS = Path(__file__).parent / "results" / "decoded-neurons.json"


@pytest.fixture(scope="module")
def measured() -> list[dict[str, Any]]:
    """Decode, and clamp each neuron and a random one."""
    model = load(catalogue.SMOLLM2.name)
    engine = Engine.of(model)
    reference = Reference(engine, reference_inputs(model, None))
    massive = engine.queue.submit(lambda _: massive_neurons(reference, model.anatomy)).result()
    contexts = tokenized(model, shipped_texts(model), WORDS).contexts
    begins = [one.given for one in contexts if one.start == 0 and len(one.ids) >= WORDS - 1]
    prompts = begins[:PROMPTS]
    assert len(prompts) == PROMPTS
    found: list[dict[str, Any]] = []
    for place in chosen(decoded := down(engine), massive):
        layer, index = int(decoded.layer[place]), int(decoded.index[place])
        side = int(decoded.z[place, :, 0].abs().argmax())
        token, z = int(decoded.tokens[place, side, 0]), float(decoded.z[place, side, 0])
        peak = float(reference.statistics(neuron_hooks(model.anatomy)[layer]).peak[index])
        # Up is where the decoded neuron's output vector raises the token.
        value = TIMES_PEAK * peak if z > 0 else -TIMES_PEAK * peak
        beside = random_neurons(
            engine, layer, 1, seed=SEED + place, apart={*massive, (layer, index)}
        )
        own, other = clamped(engine, prompts, [(layer, index), *beside], token, value)
        found.append(
            {
                "score": round(float(decoded.score[place]), 1),
                "token": model.token_text(token),
                "z": round(z, 1),
                "value": round(value, 2),
                "decoded": told(own),
                "random": told(other),
            }
        )
        print(found[-1])  # noqa: T201 (minutes of work say where they are)
        write(found)
    return found


@pytest.mark.parametrize("side", ["up", "down"])
def test_clamping_a_decoded_neuron_moves_its_token(
    measured: list[dict[str, Any]], side: str
) -> None:
    assert count(measured, "decoded", side) >= ENOUGH


@pytest.mark.parametrize("side", ["up", "down"])
def test_clamping_a_random_neuron_does_so_for_about_half(
    measured: list[dict[str, Any]], side: str
) -> None:
    assert HALF[0] <= count(measured, "random", side) <= HALF[1]


def down(engine: Engine) -> Decoded:
    """Decode what every neuron writes."""

    def job(stop: Callable[[], bool]) -> Decoded:
        *_, last = Decoder(engine.model).decode("down", top=1, seed=SEED, should_stop=stop)
        return last

    return engine.queue.submit(job).result()


def chosen(decoded: Decoded, massive: Collection[tuple[int, int]]) -> list[int]:
    """Return the places of the most special neurons that are not massive."""
    order = decoded.score.argsort(descending=True).tolist()
    names = list(zip(decoded.layer.tolist(), decoded.index.tolist(), strict=True))
    return [place for place in order if names[place] not in massive][:COUNT]


def clamped(
    engine: Engine,
    prompts: Sequence[Input],
    neurons: Sequence[tuple[int, int]],
    token: int,
    value: float,
) -> list[TokenEffect]:
    """Clamp neurons on the prompts."""

    def job(stop: Callable[[], bool]) -> list[TokenEffect]:
        steps = token_effect(engine, prompts, neurons, token, value, should_stop=stop)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                found: list[TokenEffect] = end.value
                return found

    return engine.queue.submit(job).result()


def told(effect: TokenEffect) -> dict[str, Any]:
    """Return what was measured of a neuron; on how many prompts the token went each way, too."""
    return {
        "address": effect.address,
        "up": round(effect.up, 3),
        "down": round(effect.down, 3),
        "prompts up": sum(up > 0 for up, _ in effect.each),
        "prompts down": sum(down < 0 for _, down in effect.each),
    }


def count(found: Sequence[Mapping[str, Any]], which: str, side: str) -> int:
    """Return for how many neurons the token went the way that their side says."""
    return sum(one[which][side] > 0 if side == "up" else one[which][side] < 0 for one in found)


def write(found: Sequence[Mapping[str, Any]]) -> None:
    """Write what was measured so far."""
    data: dict[str, Any] = {"neurons": len(found), "prompts": PROMPTS}
    for which in ("decoded", "random"):
        data[which] = {
            "up raises": count(found, which, "up"),
            "down lowers": count(found, which, "down"),
            "share of prompts up raises": share(found, which, "up"),
            "share of prompts down lowers": share(found, which, "down"),
        }
    data["units"] = list(found)
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, indent=1, ensure_ascii=False)
    RESULTS.write_text(text + "\n", encoding="utf-8")


def share(found: Sequence[Mapping[str, Any]], which: str, side: str) -> float:
    """Return on which share of all neurons' prompts the token went the way of the side."""
    moved: int = sum(one[which][f"prompts {side}"] for one in found)
    return round(moved / (PROMPTS * len(found)), 3)
