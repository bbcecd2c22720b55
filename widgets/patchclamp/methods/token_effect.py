"""What clamping a neuron does to one token: is a decoded neuron what its decoding says?

A neuron whose output vector stands for a token (:mod:`patchclamp.methods.decoded_weights`) should,
clamped high, raise that token's log-probability, and clamped low lower it. Clamped are all
positions of a prompt, as the paper does; what is measured is the log-probability of the token as
the next one, after the prompt, in nats, minus that without the clamp, on average over some prompts.
Beside it stand random neurons of the same layer, clamped to the same values: pushing on anything
does something.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from patchclamp.engine.surroundings import Reference, Surroundings
from patchclamp.errors import InputError
from patchclamp.interventions import Clamp
from patchclamp.sites import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Sequence

    from patchclamp.engine.engine import Engine
    from patchclamp.engine.plan import Input

    ShouldStop = Callable[[], bool]

CONTROLS = 5


@dataclass(frozen=True)
class TokenEffect:
    """What clamping one neuron does to a token, nats, on average over the prompts.

    Attributes:
        address: which neuron.
        up: clamped to the value.
        down: clamped to its negative.
        each: for every prompt, (up, down).
    """

    address: str
    up: float
    down: float
    each: tuple[tuple[float, float], ...]


def token_effect(
    engine: Engine,
    inputs: Sequence[Input],
    neurons: Sequence[tuple[int, int]],
    token: int,
    value: float,
    *,
    should_stop: ShouldStop | None = None,
) -> Generator[tuple[int, int], None, list[TokenEffect]]:
    """Clamp neurons, one after the other, on some prompts. Runs on the model's worker.

    Args:
        engine: what runs the model.
        inputs: the prompts.
        neurons: (layer, index) each.
        token: whose log-probability is measured.
        value: what is clamped to, and the other way its negative; raw units, post activation.
        should_stop: asked before every block.

    Yields:
        How many prompts are done, and how many there are.

    Returns:
        One of each neuron.

    Raises:
        InputError: when there are no prompts, or the value is 0.
        Stopped: when ``should_stop`` said so.
    """
    if not inputs:
        msg = "What a clamp does to a token is measured on prompts, and there are none."
        raise InputError(msg)
    if not value:
        msg = "Clamped to 0, up and down are the same: give another value."
        raise InputError(msg)
    sites = [Site("neuron", layer, index, "post") for layer, index in neurons]
    stacks = [(Clamp(site, sign * value),) for site in sites for sign in (1, -1)]
    rows: list[torch.Tensor] = []
    for done, given in enumerate(inputs, start=1):
        lookup = Surroundings(engine, Reference(engine, (given,)))
        before = engine.run(given, (), lookup, should_stop=should_stop)
        base = before.logits[-1].log_softmax(-1)[token]
        parts = [
            logits[:, -1].log_softmax(-1)[:, token]
            for _, logits in engine.sweep(given, stacks, lookup, should_stop=should_stop)
        ]
        rows.append((torch.cat(parts) - base).reshape(-1, 2).cpu())
        yield done, len(inputs)
    effects = torch.stack(rows).double()
    means = effects.mean(0).tolist()
    return [
        TokenEffect(
            site.address,
            means[place][0],
            means[place][1],
            tuple((up, down) for up, down in effects[:, place].tolist()),
        )
        for place, site in enumerate(sites)
    ]


def random_neurons(
    engine: Engine,
    layer: int,
    count: int,
    *,
    seed: int,
    apart: Collection[tuple[int, int]] = (),
) -> list[tuple[int, int]]:
    """Draw neurons of a layer, none of those that are to be kept apart.

    Args:
        engine: whose model.
        layer: which.
        count: how many at most.
        seed: what draws them.
        apart: the neuron that they stand beside, and massive ones.
    """
    total = engine.model.anatomy.n_neurons(layer)
    left = [(layer, index) for index in range(total) if (layer, index) not in set(apart)]
    drawn = random.Random(f"{seed} {layer}").sample(left, min(count, len(left)))  # noqa: S311 (a control, not a secret)
    return sorted(drawn)
