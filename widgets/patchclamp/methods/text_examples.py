"""A language model's unit on texts: the activation at every token, in contexts of one length.

A text longer than a context is cut into contexts of about one length, each behind a
beginning-of-sequence token of its own where the model has one; the cuts are counted. Activations
at such tokens ([CLS] and [SEP] of an encoder too) are left out: what stands there is unlike any
other position. Only the blocks up to the unit are run.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from patchclamp.corpora.english import Passage
from patchclamp.engine.batch import ROWS
from patchclamp.engine.passes import last_layer
from patchclamp.engine.surroundings import input_of
from patchclamp.errors import InputError, Stopped
from patchclamp.methods.example_groups import Scan, Survey, finite

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from torch import Tensor

    from patchclamp.engine.engine import Engine
    from patchclamp.engine.plan import Input
    from patchclamp.methods.objective import Objective
    from patchclamp.models.language_model import LanguageModel

    ShouldStop = Callable[[], bool]
    Text: TypeAlias = str | Passage | Tensor | Sequence[int]

_TEXTS_AT_ONCE = 8  # are tokenized before others work
_DEEP = 4  # times as many rows, where few blocks are run
_WIDE = 16  # times as many rows on a device that takes them side by side


@dataclass(frozen=True, eq=False)
class TextExample:
    """A context with the unit's activation at each of its tokens.

    Attributes:
        activation: what it is an example for.
        source: which text of the corpus; -1 for one that is in none.
        label: what the text is; may be empty.
        start: which token of the text the first one is.
        ids: the tokens, without special ones around them.
        tokens: the same as text.
        values: Float[token], the activation at each; empty of a function of activations, which has
            one for the whole context.
        peak: which token ``activation`` is of; None of such a function.
    """

    activation: float
    source: int
    label: str
    start: int
    ids: tuple[int, ...]
    tokens: tuple[str, ...]
    values: Tensor
    peak: int | None

    @property
    def text(self) -> str:
        """The tokens as one text, marked up by nothing."""
        return "".join(self.tokens)

    @property
    def name(self) -> str:
        """Where it is: "text 12, token 40"."""
        where = "" if self.peak is None else f", token {self.start + self.peak}"
        return f"text {self.source}{where}" if self.source >= 0 else where.removeprefix(", ")

    def around(self, before: int = 24, after: int = 8) -> TextExample:
        """Return the same with only so many tokens before and after its peak."""
        if self.peak is None:
            return self
        begin = max(0, self.peak - before)
        part = slice(begin, self.peak + after + 1)
        return TextExample(
            self.activation,
            self.source,
            self.label,
            self.start + begin,
            self.ids[part],
            self.tokens[part],
            self.values[part],
            self.peak - begin,
        )

    def row(self) -> dict[str, Any]:
        """Return what a table says of it beside its activation."""
        token = None if self.peak is None else self.tokens[self.peak]
        position = None if self.peak is None else self.start + self.peak
        return {
            "source": self.source,
            "label": self.label,
            "position": position,
            "token": token,
            "text": self.text,
        }


@dataclass(frozen=True)
class Context:
    """What is run at once of a text.

    Attributes:
        source: which text.
        label: what the text is; may be empty.
        start: which token of the text its first one is.
        given: the input, special tokens included.
        inside: from which to which of the input's tokens are the text's own.
    """

    source: int
    label: str
    start: int
    given: Input
    inside: tuple[int, int]

    @property
    def ids(self) -> tuple[int, ...]:
        """The text's own tokens."""
        return self.given.ids[slice(*self.inside)]


@dataclass(frozen=True)
class TokenizedTexts:
    """A corpus as one model's tokens, for as many units as one likes; see :func:`tokenizing`.

    Attributes:
        contexts: in the corpus' order.
        sources: how many texts there are.
        split: how many texts became several contexts.
        skipped: how many have no token.
    """

    contexts: tuple[Context, ...]
    sources: int
    split: int
    skipped: int

    @property
    def count(self) -> int:
        """How many tokens it has, special ones left out."""
        return sum(len(context.ids) for context in self.contexts)


def tokenized(
    model: LanguageModel,
    texts: Sequence[Text],
    most: int = Survey.context,
    should_stop: ShouldStop | None = None,
) -> TokenizedTexts:
    """Cut texts into contexts, at once; see :func:`tokenizing`."""
    steps = tokenizing(model, texts, most, should_stop)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: TokenizedTexts = end.value
            return found


def tokenizing(
    model: LanguageModel,
    texts: Sequence[Text],
    most: int = Survey.context,
    should_stop: ShouldStop | None = None,
) -> Generator[None, None, TokenizedTexts]:
    """Cut texts into contexts, and let others work now and then.

    Takes about a second for 100 thousand tokens.

    Args:
        model: whose tokens.
        texts: texts, or their token ids, which are taken as they are: with a beginning-of-sequence
            token only where they begin with one.
        most: the most tokens of a context, special ones included; the model's own limit holds, too.
        should_stop: asked before every text.

    Yields:
        After every few texts.

    Raises:
        InputError: when there is no text, none has a token, or token ids are none of the model's.
        Stopped: when ``should_stop`` said so.
    """
    if isinstance(texts, str | Passage) or not len(texts):
        msg = "A corpus is a list of texts with at least one in it."
        raise InputError(msg)
    most = min(most, model.n_ctx)
    found: list[Context] = []
    split = skipped = 0
    for source, text in enumerate(texts):
        if should_stop is not None and should_stop():
            msg = "Stopped before it was finished."
            raise Stopped(msg)
        ids, before, after = _tokens(model, text)
        room = most - len(before) - len(after)
        if room < 1:
            msg = f"{model.name} takes {most} tokens: too few for one beside its special tokens."
            raise InputError(msg)
        pieces = math.ceil(len(ids) / room)
        split += pieces > 1
        skipped += not pieces
        for piece in range(pieces):
            # All pieces about as long: a last one of two tokens would say little.
            begin, end = (len(ids) * at // pieces for at in (piece, piece + 1))
            whole = [*before, *ids[begin:end], *after]
            given = input_of(model, model.check_ids(whole))
            inside = (len(before), len(whole) - len(after))
            found.append(Context(source, _label(text), begin, given, inside))
        if source % _TEXTS_AT_ONCE == _TEXTS_AT_ONCE - 1:
            yield
    if not found:
        msg = "No text of the corpus has a token in it."
        raise InputError(msg)
    return TokenizedTexts(tuple(found), len(texts), split, skipped)


def text_examples(
    engine: Engine,
    objective: Objective,
    texts: Sequence[Text] | TokenizedTexts,
    survey: Survey | None = None,
    should_stop: ShouldStop | None = None,
) -> Generator[Scan, None, None]:
    """Measure a unit at every token of a corpus. Runs on the model's worker.

    Holds 4 bytes a token beside the tokens themselves, and one batch of the model's values.

    Args:
        engine: the model's.
        objective: the unit, read at every token whatever positions its address names; a function
            of activations is read once a context.
        texts: see :func:`tokenizing`; what that returned can be given for several units.
        survey: how, and what is shown.
        should_stop: asked before every block.

    Yields:
        After each batch the same scan, with more in it.

    Raises:
        InputError: for an empty corpus.
        MetricError: when an activation is no finite number.
        Stopped: when ``should_stop`` said so; the scan that was yielded keeps what was measured.
    """
    model, survey = engine.model, survey or Survey()
    if not isinstance(texts, TokenizedTexts):
        texts = tokenized(model, texts, survey.context, should_stop)
    contexts = texts.contexts
    written: dict[int, str] = {}

    def make(context: int, place: int) -> TextExample:
        return _example(model, objective, contexts[context], scan.found[context], place, written)

    scan = Scan(
        unit=objective.text,
        of="tokens",
        survey=survey,
        total=len(contexts),
        sources=texts.sources,
        make=make,
        split=texts.split,
        skipped=texts.skipped,
    )
    for batch in _batches(engine, objective, contexts, survey.seed):
        found = engine.capture_many(
            [contexts[context].given for context in batch],
            objective.hooks,
            should_stop=should_stop,
        )
        for context, values in zip(batch, found, strict=True):
            one = contexts[context]
            scan.add(context, _read(objective, values, one), f"text {one.source} of the corpus")
        yield scan


def own_text(
    engine: Engine,
    objective: Objective,
    text: Text,
    should_stop: ShouldStop | None = None,
) -> TextExample:
    """Measure a unit at every token of one text, in one context. Runs on the model's worker.

    Args:
        engine: the model's.
        objective: the unit.
        text: a text or token ids, not longer than the model's context.
        should_stop: asked before every block.

    Raises:
        InputError: for a text without a token, and one that is too long.
        MetricError: when an activation is no finite number.
        Stopped: when ``should_stop`` said so.
    """
    model = engine.model
    ids, before, after = _tokens(model, text)
    if not ids:
        msg = "The text is empty: type at least one word."
        raise InputError(msg)
    given = input_of(model, model.check_ids([*before, *ids, *after]))
    one = Context(-1, _label(text), 0, given, (len(before), len(before) + len(ids)))
    found = engine.capture_many([given], objective.hooks, should_stop=should_stop)[0]
    values = finite(_read(objective, found, one), objective.text, "this text")
    return _example(model, objective, one, values, int(values.argmax()), {})


def endings(examples: Iterable[TextExample], length: int) -> list[tuple[int, ...]]:
    """Return the tokens of examples that lead up to their peaks: prompts to begin a search with.

    Args:
        examples: texts with their peaks, such as those of a group; where there is no peak the whole
            text counts.
        length: how many tokens, the peak's own included.

    Returns:
        Token ids without a beginning-of-sequence token, in the order of the examples; those with
        fewer tokens up to the peak are left out.
    """
    ends = [(one.ids, len(one.ids) if one.peak is None else one.peak + 1) for one in examples]
    return [ids[end - length : end] for ids, end in ends if end >= length]


def has_map(objective: Objective) -> bool:
    """Say whether an objective has a value at every place: a function of activations has not."""
    return len(objective.sites) > 0 and all(term.unit.site for term in objective.terms)


# --- inside ---------------------------------------------------------------------------------------


def _example(
    model: LanguageModel,
    objective: Objective,
    one: Context,
    values: Tensor,
    place: int,
    written: dict[int, str],
) -> TextExample:
    for token in one.ids:
        if token not in written:
            written[token] = model.token_text(token)
    tokens = tuple(written[token] for token in one.ids)
    activation = float(values[place])
    kept, peak = (values, place) if has_map(objective) else (values.new_empty(0), None)
    return TextExample(activation, one.source, one.label, one.start, one.ids, tokens, kept, peak)


def _label(text: Text) -> str:
    return f"{text.kind}: {text.title}" if isinstance(text, Passage) else ""


def _read(objective: Objective, values: Mapping[str, Tensor], one: Context) -> Tensor:
    """Return Float[token] of the text's own tokens, or Float[1] of a function."""
    whole = {name: value[None] for name, value in values.items()}
    if not has_map(objective):
        return objective.value(whole, start=one.inside[0])
    return objective.map(whole)[0][slice(*one.inside)]


def _batches(
    engine: Engine, objective: Objective, contexts: Sequence[Context], seed: int
) -> list[list[int]]:
    """Group contexts of about one length, in an order in which a beginning is fair to all."""
    model = engine.model
    n_layers = model.anatomy.n_layers
    blocks = min(n_layers, max(1, last_layer(objective.hooks)))
    rows = int(ROWS * min(_DEEP, n_layers / blocks))
    if model.device.type != "cpu":
        rows *= _WIDE
    batches: list[list[int]] = []
    by_length = sorted(range(len(contexts)), key=lambda at: len(contexts[at].given.ids))
    for at in by_length:
        length = len(contexts[at].given.ids)
        if batches and (len(batches[-1]) + 1) * length <= rows:
            batches[-1].append(at)
        else:
            batches.append([at])
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(batches), generator=generator).tolist()
    return [batches[at] for at in order]


def _tokens(model: LanguageModel, text: Text) -> tuple[list[int], list[int], list[int]]:
    """Return a text's own tokens, and the special ones that go before and after them."""
    if isinstance(text, Passage):
        text = text.text
    if not isinstance(text, str):
        return _given_ids(model, text)
    if model.tokenizer is None:
        msg = "This model has no tokenizer: give lists of token ids as a corpus, not texts."
        raise InputError(msg)
    if not text.strip():
        return [], [], []
    ids: list[int] = list(model.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)
    if not ids:
        return [], [], []
    if model.anatomy.causal:
        return ids, [] if model.bos_id is None else [model.bos_id], []
    # An encoder's special tokens, seen on its first token alone.
    one = model.tokenizer("a", add_special_tokens=False).input_ids
    around = list(model.tokenizer("a").input_ids)
    at = next(at for at in range(len(around)) if around[at : at + len(one)] == list(one))
    return ids, around[:at], around[at + len(one) :]


def _given_ids(
    model: LanguageModel, given: Tensor | Sequence[int]
) -> tuple[list[int], list[int], list[int]]:
    try:
        ids = torch.as_tensor(given).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        msg = f"A text of a corpus is a string or a list of token ids, not {type(given).__name__}."
        raise InputError(msg) from error
    if ids.ndim != 1 or ids.is_floating_point() or ids.is_complex() or ids.dtype is torch.bool:
        if not ids.numel() and ids.ndim == 1:
            return [], [], []
        msg = (
            "A text of a corpus is a string or a 1-D list of token ids, not "
            f"{tuple(ids.shape)} of {ids.dtype}."
        )
        raise InputError(msg)
    if ids.numel() > 1 and model.bos_id is not None and int(ids[0]) == model.bos_id:
        return ids[1:].tolist(), [model.bos_id], []
    return ids.tolist(), [], []
