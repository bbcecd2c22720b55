"""Continue an input token by token, under one or several stacks at once.

All sides are one batch, so that they cost one pass a token together. Where the model keeps keys and
values, each pass computes one position; else the whole text again. Sampling adds the same Gumbel
noise to every side's logits (the Gumbel-max trick), so that two sides differ only by what the
interventions do, never by luck.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from patchclamp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping

    from torch import Tensor

    from patchclamp.engine.experiment import Experiment
    from patchclamp.models.language_model import LanguageModel

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


@dataclass(frozen=True)
class Generated:
    """One new token of one side.

    Attributes:
        side: whose.
        index: which of its new tokens, counted from 0.
        id: its number in the vocabulary.
        text: what it adds to the text; empty while a character is not whole.
        done: whether the side ends with it.
    """

    side: str
    index: int
    id: int
    text: str
    done: bool


def generate(
    sides: Mapping[str, Experiment],
    *,
    count: int,
    seed: int = 0,
    temperature: float = 0.0,
    should_stop: Callable[[], bool] | None = None,
    use_cache: bool = True,
) -> Generator[Generated, None, None]:
    """Continue an input under each side's stack.

    Args:
        sides: experiments on one and the same input.
        count: the most tokens of each side.
        seed: of the noise.
        temperature: 0 takes the likeliest token.
        should_stop: asked before every block.
        use_cache: False computes the whole text anew for every token.

    Yields:
        The new tokens as they come, each side's in turn. A side ends at ``count`` tokens, at
        the end-of-text token or at the end of the context.

    Raises:
        InputError: when count or temperature make no sense.
        Stopped: when ``should_stop`` said so.
    """
    if count < 1 or not 0 <= temperature < float("inf"):
        msg = "Generation needs a count of at least 1 and a temperature of at least 0."
        raise InputError(msg)
    experiments = list(sides.values())
    engine, model = experiments[0].engine, experiments[0].engine.model
    noise = torch.Generator().manual_seed(seed)
    outcomes = [e.outcome(should_stop=should_stop) for e in experiments]
    logits = torch.stack([outcome.logits[-1] for outcome in outcomes])
    stream = engine.stream(experiments, [o.trace for o in outcomes], use_cache=use_cache)
    writers = {side: _Writer(model) for side in sides}
    room = model.n_ctx - experiments[0].length
    ended: set[str] = set()
    for index in range(min(count, room)):
        chosen = _choose(logits, temperature, noise)
        for row, side in enumerate(sides):
            if side in ended:
                continue
            token = int(chosen[row])
            last = index + 1 == min(count, room) or token == model.eos_id
            text = "" if token == model.eos_id else writers[side].add(token, last=last)
            if last:
                ended.add(side)
            yield Generated(side, index, token, text, done=last)
        if len(ended) == len(sides):
            return
        logits = stream.step(chosen, should_stop)


def _choose(logits: Tensor, temperature: float, noise: torch.Generator) -> Tensor:
    """Choose the next token of each row of Float[side, vocab]."""
    if temperature == 0:
        return logits.argmax(-1)
    uniform = torch.rand(logits.shape[-1], generator=noise).clamp_min(1e-20)
    gumbel = -(-uniform.log()).log()
    return (logits.float().cpu() / temperature + gumbel).argmax(-1)


class _Writer:
    """Turns tokens into text, holding back characters that are not whole yet."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model
        self._ids: list[int] = []
        self._written = ""

    def add(self, token: int, *, last: bool) -> str:
        if self._model.tokenizer is None:
            self._ids.append(token)
            return f" {token}"
        self._ids.append(token)
        whole = self._model.text(self._ids)
        if whole.endswith(_REPLACEMENT) and not last:
            return ""
        # Some tokenizers drop a text's first space.
        first = self._model.token_text(self._ids[0])
        if first.startswith(" ") and not whole.startswith(" "):
            whole = " " + whole
        new = whole[len(self._written) :]
        self._written = whole
        return new
