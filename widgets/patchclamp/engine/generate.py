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
from transformers.cache_utils import DynamicCache

from patchclamp.engine.hooks import Frame
from patchclamp.engine.passes import filled_layer
from patchclamp.engine.shell import Pass
from patchclamp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from torch import Tensor

    from patchclamp.engine.experiment import Experiment
    from patchclamp.engine.trace import Trace
    from patchclamp.models.language_model import LanguageModel

    ShouldStop = Callable[[], bool]

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
        InputError: when count or temperature make no sense, or the input fills the context.
        Stopped: when ``should_stop`` said so.
    """
    if count < 1 or not 0 <= temperature < float("inf"):
        msg = "Generation needs a count of at least 1 and a temperature of at least 0."
        raise InputError(msg)
    experiments = list(sides.values())
    room = experiments[0].engine.model.n_ctx - experiments[0].length
    if room < 1:
        msg = "The prompt fills the model's context: there is no room for another token."
        raise InputError(msg)
    engine, model = experiments[0].engine, experiments[0].engine.model
    noise = torch.Generator().manual_seed(seed)
    outcomes = [e.outcome(should_stop=should_stop) for e in experiments]
    logits = torch.stack([outcome.logits[-1] for outcome in outcomes])
    cached = use_cache and engine.shortcuts.positions
    stream = _Stream(experiments, [outcome.trace for outcome in outcomes] if cached else None)
    writers = {side: _Writer(model) for side in sides}
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


class _Stream:
    """Continues runs of one input as a batch; without traces it computes the whole text anew."""

    def __init__(self, experiments: Sequence[Experiment], traces: Sequence[Trace] | None) -> None:
        engine = experiments[0].engine
        self._passes = engine.passes
        self._items = [engine.compile(e.stack, e.surroundings) for e in experiments]
        self._prompt = experiments[0].given
        self._new: list[list[int]] = [[] for _ in experiments]
        self._cache: DynamicCache | None = None
        if traces is not None:
            self._cache = DynamicCache()
            keys = zip(*(trace.keys or () for trace in traces), strict=True)
            values = zip(*(trace.values or () for trace in traces), strict=True)
            self._cache.layers = [
                filled_layer(torch.stack(k), torch.stack(v))
                for k, v in zip(keys, values, strict=True)
            ]

    def step(self, tokens: Tensor, should_stop: ShouldStop | None = None) -> Tensor:
        """Take one token of each run; return Float[run, vocab], the logits of the next.

        Args:
            tokens: LongTensor[run].
            should_stop: asked before every block.
        """
        for new, token in zip(self._new, tokens.tolist(), strict=True):
            new.append(token)
        prompt = list(self._prompt.ids)
        first = len(prompt) + len(self._new[0]) - 1 if self._cache is not None else 0
        rows = [(prompt + new)[first:] for new in self._new]
        frame = Frame(first, len(prompt), has_bos=self._prompt.has_bos)
        now = Pass(should_stop=should_stop)
        with torch.no_grad():
            result = self._passes.forward(
                torch.tensor(rows), self._items, frame, now, cache=self._cache
            )
        assert result.logits is not None  # noqa: S101 (no layer to stop at was given)
        return result.logits[:, -1]


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
