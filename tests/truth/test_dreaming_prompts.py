"""EPO on ten neurons of SmolLM2, beside the best of a corpus and greedy search. `make truth`.

The neurons, by a rule: one of each layer of the middle third, drawn with seed 0 among those that
are not massive and are alive (their largest absolute value over the reference texts is at least
half of the layer's median one). The objective is the neuron's value (``:post``) at the last token.

Each search has the same time, three minutes. It is counted as the time that this process computes,
divided by the number of torch's threads: what else the machine does makes the run longer and not
worse. PATCHCLAMP_TRUTH_SECONDS sets another time; the results say which it was.

- *Beats the corpus*: the highest activation of EPO's front is above the highest one at any token of
  the shipped texts, run in contexts of at most 128 tokens. For at least 8 of 10.
- *Dominates greedy search*: at no higher cross-entropy than the strongest prompt that greedy search
  found, EPO's front has at least its activation. Greedy is greedy coordinate gradient with as many
  swaps an iteration and the middle of EPO's penalties (0.1 to 10), 1. For at least 6 of 10.
- Greedy search for activation alone is measured too and told; nothing is asked of EPO there. So is
  the share of greedy search's front of which that can be said.

What was measured is written to `results/dreaming-prompts.json` after each neuron.
"""

from __future__ import annotations

import json
import os
import random
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from patchclamp import load
from patchclamp.engine.engine import Engine
from patchclamp.engine.surroundings import Reference, reference_inputs
from patchclamp.methods.corpus_examples import shipped_texts
from patchclamp.methods.epo import Evolution, epo
from patchclamp.methods.greedy_coordinate import Greedy, greedy
from patchclamp.methods.massive import massive_neurons, neuron_hooks
from patchclamp.methods.objective import objective
from patchclamp.methods.text_examples import tokenized
from patchclamp.models import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from torch import Tensor

    from patchclamp.engine.plan import Input
    from patchclamp.methods.front import Front, Generation
    from patchclamp.methods.objective import Objective
    from patchclamp.models.language_model import LanguageModel

SEED = 0
SECONDS = float(os.environ.get("PATCHCLAMP_TRUTH_SECONDS", "180"))
PENALTY = 1.0
CONTEXT = 128
AT_ONCE = 4  # contexts
BEATS_CORPUS, DOMINATES = 8, 6
RESULTS = Path(__file__).parent / "results" / "dreaming-prompts.json"


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, Any]]:
    """Search for every neuron, and look through the corpus."""
    model = load(catalogue.SMOLLM2.name)
    units = chosen(model)
    tokens, best = corpus_maxima(model, units)
    found: dict[str, dict[str, Any]] = {}
    for unit in units:
        score = objective(model, unit)
        found[unit] = {"corpus": round(best[unit], 3)}
        for name, search in searches(model, score).items():
            found[unit][name] = timed(model, score, search)
            print(unit, name, found[unit][name]["best"], "corpus", found[unit]["corpus"])  # noqa: T201 (an hour's work says where it is)
        write(found, tokens)
    return found


def test_epo_finds_stronger_prompts_than_the_best_of_the_corpus(
    measured: dict[str, dict[str, Any]],
) -> None:
    stronger = [unit for unit, one in measured.items() if beats_corpus(one)]
    assert len(stronger) >= BEATS_CORPUS, stronger


def test_epos_front_dominates_greedy_search_at_equal_cross_entropy(
    measured: dict[str, dict[str, Any]],
) -> None:
    dominated = [unit for unit, one in measured.items() if dominates(one, "greedy")]
    assert len(dominated) >= DOMINATES, dominated


def chosen(model: LanguageModel) -> list[str]:
    """Choose the neurons by the rule."""
    engine, anatomy = Engine.of(model), model.anatomy
    reference = Reference(engine, reference_inputs(model, None))
    massive = engine.queue.submit(lambda _: massive_neurons(reference, anatomy)).result()
    rng = random.Random(SEED)  # noqa: S311
    third = anatomy.n_layers // 3
    units = []
    for layer in range(third, 2 * third):
        peaks = reference.statistics(neuron_hooks(anatomy)[layer]).peak
        while True:
            index = rng.randrange(anatomy.n_neurons(layer))
            alive = bool(peaks[index] >= peaks.median() / 2)
            if alive and (layer, index) not in massive:
                break
        units.append(f"L{layer}.N{index}")
    return units


def corpus_maxima(model: LanguageModel, units: list[str]) -> tuple[int, dict[str, float]]:
    """Return how many tokens the corpus has, and each neuron's highest value there; in one pass."""
    engine = Engine.of(model)
    scores = {unit: objective(model, unit) for unit in units}
    hooks = [score.hooks[0] for score in scores.values()]
    contexts = tokenized(model, shipped_texts(model), CONTEXT).contexts
    best = dict.fromkeys(units, float("-inf"))
    for begin in range(0, len(contexts), AT_ONCE):
        some = contexts[begin : begin + AT_ONCE]
        inputs = [one.given for one in some]
        captured = engine.queue.submit(partial(_captured, engine, inputs, hooks)).result()
        for context, values in zip(some, captured, strict=True):
            batch = {hook: tensor[None] for hook, tensor in values.items()}
            for unit, score in scores.items():
                inside = score.map(batch)[0, slice(*context.inside)]
                best[unit] = max(best[unit], float(inside.max()))
    return sum(len(context.ids) for context in contexts), best


def _captured(
    engine: Engine, inputs: list[Input], hooks: list[str], stop: Callable[[], bool]
) -> list[dict[str, Tensor]]:
    return engine.capture_many(inputs, hooks, should_stop=stop)


def searches(
    model: LanguageModel, score: Objective
) -> dict[str, Callable[[], Generator[Generation, None, Generation]]]:
    """Return the searches; each ends by time."""
    engine = Engine.of(model)

    def endless(penalty: float) -> Greedy:
        return Greedy(iterations=None, seed=SEED, penalty=penalty)

    return {
        "epo": lambda: epo(engine, score, Evolution(iterations=None, seed=SEED)),
        "greedy": lambda: greedy(engine, score, endless(PENALTY)),
        "greedy for activation": lambda: greedy(engine, score, endless(0.0)),
    }


def timed(
    model: LanguageModel,
    score: Objective,
    search: Callable[[], Generator[Generation, None, Generation]],
) -> dict[str, Any]:
    """Let a search run for the time that it has."""
    engine = Engine.of(model)

    def job(_stop: object) -> tuple[Front, float]:
        began = time.process_time()
        steps = search()
        while True:
            front = next(steps).front
            seconds = (time.process_time() - began) / torch.get_num_threads()
            if seconds >= SECONDS:
                return front, seconds

    front, seconds = engine.queue.submit(job).result()
    strongest = front.candidates[-1]
    return {
        "unit": score.text,
        "seconds": round(seconds, 1),
        "iterations": front.iteration,
        "tried": front.tokens_tried,
        "best": [round(strongest.activation, 3), round(strongest.cross_entropy, 3)],
        "text": model.text(list(strongest.ids)),
        "front": [[round(c.activation, 3), round(c.cross_entropy, 3)] for c in front.candidates],
    }


def beats_corpus(one: Mapping[str, Any]) -> bool:
    """Say whether EPO's best is above the corpus' best."""
    return bool(one["epo"]["best"][0] > one["corpus"])


def dominates(one: Mapping[str, Any], rival: str) -> bool:
    """Say whether EPO's front has the activation of a search's strongest prompt at its cost."""
    return above(one, *one[rival]["best"])


def share_dominated(one: Mapping[str, Any]) -> float:
    """Return of which share of greedy search's front that can be said."""
    points = one["greedy"]["front"]
    return sum(above(one, *point) for point in points) / len(points)


def above(one: Mapping[str, Any], activation: float, cross_entropy: float) -> bool:
    """Say whether EPO's front has an activation at a cross-entropy."""
    return any(a >= activation and c <= cross_entropy for a, c in one["epo"]["front"])


def write(found: Mapping[str, Mapping[str, Any]], tokens: int) -> None:
    """Write what was measured so far."""
    data = {
        "seconds for each search": SECONDS,
        "threads": torch.get_num_threads(),
        "corpus tokens": tokens,
        "neurons": len(found),
        "beats the corpus": sum(map(beats_corpus, found.values())),
        "dominates greedy search": sum(dominates(one, "greedy") for one in found.values()),
        "dominates greedy search for activation": sum(
            dominates(one, "greedy for activation") for one in found.values()
        ),
        "share of greedy search's fronts dominated": round(
            sum(map(share_dominated, found.values())) / len(found), 2
        ),
        "units": found,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, indent=1, ensure_ascii=False)
    RESULTS.write_text(text + "\n", encoding="utf-8")
