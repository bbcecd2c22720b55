"""EPO on ten neurons of SmolLM2, beside the best of a corpus and greedy search. `make truth`.

The neurons, by a rule: one of each layer of the middle third, drawn with seed 0 among those that
are not massive and are alive (their largest absolute value over the reference texts is at least
half of the layer's median one). The objective is the neuron's value (``:post``) at the last token.

Each search has the same time, three minutes. It is counted as the time that this process computes,
divided by the number of torch's threads: what else the machine does makes the run longer and not
worse. PATCHCLAMP_TRUTH_SECONDS sets another time; the results say which it was.

The corpus are the shipped texts, run in contexts of at most 128 tokens. EPO begins with what leads
up to the peaks of the twelve contexts in which the neuron is strongest, twelve tokens each, and
greedy search with the first of them. EPO from random tokens, as published, is measured beside.

- *Beats the corpus*: the highest activation of EPO's front is above the highest one at any token of
  the corpus. For at least 8 of 10.
- *Dominates greedy search*: at no higher cross-entropy than the strongest prompt that greedy search
  found, EPO's front has at least its activation. Greedy is greedy coordinate gradient with as many
  swaps an iteration and the middle of EPO's penalties (0.1 to 10), 1. For at least 6 of 10.
- Of EPO from random tokens nothing is asked: how often it beats the corpus is told, and so is the
  share of greedy search's front of which domination can be said.

What was measured is written to `results/dreaming-prompts.json` after each neuron.
"""

from __future__ import annotations

import json
import os
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from patchclamp import load
from patchclamp.engine.engine import Engine
from patchclamp.engine.surroundings import Reference, reference_inputs
from patchclamp.methods.corpus_examples import examples_of, shipped_texts
from patchclamp.methods.epo import Evolution, epo
from patchclamp.methods.greedy_coordinate import Greedy, greedy
from patchclamp.methods.massive import massive_neurons, neuron_hooks
from patchclamp.methods.objective import objective
from patchclamp.methods.text_examples import TextExample, endings, tokenized
from patchclamp.models import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from patchclamp.methods.front import Front, Generation
    from patchclamp.methods.objective import Objective
    from patchclamp.methods.text_examples import TokenizedTexts
    from patchclamp.models.language_model import LanguageModel

SEED = 0
SECONDS = float(os.environ.get("PATCHCLAMP_TRUTH_SECONDS", "180"))
PENALTY = 1.0
BEATS_CORPUS, DOMINATES = 8, 6
RESULTS = Path(__file__).parent / "results" / "dreaming-prompts.json"


@pytest.fixture(scope="module")
def measured() -> dict[str, dict[str, Any]]:
    """Search for every neuron, and look through the corpus."""
    model = load(catalogue.SMOLLM2.name)
    texts = tokenized(model, shipped_texts(model))
    found: dict[str, dict[str, Any]] = {}
    for unit in chosen(model):
        found[unit] = searched(model, texts, unit)
        write(found, texts.count)
    return found


def test_epo_finds_stronger_prompts_than_the_best_of_the_corpus(
    measured: dict[str, dict[str, Any]],
) -> None:
    stronger = [unit for unit, one in measured.items() if beats_corpus(one)]
    assert len(stronger) >= BEATS_CORPUS, stronger


def test_epos_front_dominates_greedy_search_at_equal_cross_entropy(
    measured: dict[str, dict[str, Any]],
) -> None:
    dominated = [unit for unit, one in measured.items() if dominates(one)]
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


def searched(model: LanguageModel, texts: TokenizedTexts, unit: str) -> dict[str, Any]:
    """Measure a neuron on the corpus, and search for it in every way."""
    engine, score = Engine.of(model), objective(model, unit)
    corpus = examples_of(engine, score, texts)
    examples = [one for one in corpus.groups[0].examples if isinstance(one, TextExample)]
    begin = endings(examples, Evolution.length)
    assert begin, unit
    endless = Evolution(iterations=None, seed=SEED)
    plain = Greedy(iterations=None, seed=SEED, penalty=PENALTY)
    ways = {
        "epo": lambda: epo(engine, score, endless, start=begin),
        "greedy": lambda: greedy(engine, score, plain, start=begin[0]),
        "epo from random tokens": lambda: epo(engine, score, endless),
    }
    found: dict[str, Any] = {"corpus": round(corpus.maximum, 3), "starts": len(begin)}
    for name, way in ways.items():
        found[name] = timed(model, score, way)
        print(unit, name, found[name]["best"], "corpus", found["corpus"])  # noqa: T201 (an hour's work says where it is)
    return found


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


def beats_corpus(one: Mapping[str, Any], way: str = "epo") -> bool:
    """Say whether a search's best is above the corpus' best."""
    return bool(one[way]["best"][0] > one["corpus"])


def dominates(one: Mapping[str, Any]) -> bool:
    """Say whether EPO's front has the activation of greedy's strongest prompt at its cost."""
    return above(one, *one["greedy"]["best"])


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
        "beats the corpus from random tokens": sum(
            beats_corpus(one, "epo from random tokens") for one in found.values()
        ),
        "dominates greedy search": sum(map(dominates, found.values())),
        "share of greedy search's fronts dominated": round(
            sum(map(share_dominated, found.values())) / len(found), 2
        ),
        "units": found,
    }
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, indent=1, ensure_ascii=False)
    RESULTS.write_text(text + "\n", encoding="utf-8")
