"""One pass over a corpus: what every neuron of a model does on it, in bounded memory.

Texts are cut into *windows* of the context's length; each begins with the model's
beginning-of-sequence token, which is run but not counted (what stands at position 0 is unlike any
other position). Windows are grouped into *shards*. A shard is the unit of work: it can be done by
anybody, in any order, and what it gives is merged; a pass that is stopped after a shard goes on
with the next one. A token's *place* is its number among all counted tokens.

How much is held does not depend on the corpus: about 1.7 KB a neuron for its statistics, twice the
sample's size, and one batch's values.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256
from typing import TYPE_CHECKING, Literal, get_args

import torch

from patchclamp.engine.neuron_stream import NeuronStream
from patchclamp.errors import InputError
from patchclamp.methods.neuron_statistics import SAMPLE, TOP, NeuronStatistics, Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from torch import Tensor

    from patchclamp.engine.engine import Engine
    from patchclamp.models.language_model import LanguageModel

    ShouldStop = Callable[[], bool]

PerPrompt = Literal["max", "mean", "last"]
"""Which value of a neuron stands for a whole text, where texts have labels."""

CONTEXT = 128
SHARD_TOKENS = 8192
BATCH_TOKENS = 1024


@dataclass(frozen=True)
class Window:
    """Some tokens of a text.

    Attributes:
        text: the number of the text.
        start: the first token's number in the text.
        ids: the tokens, the beginning-of-sequence token not among them.
        place: the place of the first token.
    """

    text: int
    start: int
    ids: tuple[int, ...]
    place: int


@dataclass(frozen=True, eq=False)
class Windows:
    """A corpus as a model reads it.

    Attributes:
        windows: in the order of the texts.
        texts: how many texts there are.
        split: how many of them are longer than a window, and were cut.
        bos: the beginning-of-sequence token that each window gets; None without one.
        context: how many tokens a window has at most, that one included.
        shards: ranges of windows.
    """

    windows: tuple[Window, ...]
    texts: int
    split: int
    bos: int | None
    context: int
    shards: tuple[range, ...]

    @property
    def tokens(self) -> int:
        """How many tokens are counted."""
        last = self.windows[-1]
        return last.place + len(last.ids)

    @property
    def digest(self) -> str:
        """SHA-256 of the tokens and of how they are cut."""
        summed = sha256(f"{self.context} {self.bos}".encode())
        for window in self.windows:
            summed.update(f"\n{window.text} {window.start} ".encode())
            summed.update(torch.tensor(window.ids, dtype=torch.int32).numpy().tobytes())
        return summed.hexdigest()

    def at(self, place: int) -> tuple[Window, int]:
        """Return the window that holds a place, and which of its tokens it is."""
        low, high = 0, len(self.windows) - 1
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.windows[middle].place <= place else (low, middle - 1)
        window = self.windows[low]
        return window, place - window.place


def cut(
    model: LanguageModel,
    texts: Iterable[object],
    *,
    context: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    whole_texts: bool = False,
) -> Windows:
    """Tokenize texts and cut them into windows and shards; texts without tokens are left out.

    Args:
        model: who reads them.
        texts: the corpus.
        context: how many tokens a window has at most, a beginning-of-sequence token included; by
            default :data:`CONTEXT`, or what the model takes if that is less.
        shard_tokens: about how many tokens a shard has.
        whole_texts: no text lies in two shards, as values that stand for whole texts need it.

    Raises:
        InputError: when there is no text with a token in it, the model has no tokenizer, or the
            context is not one of the model's.
    """
    bos = model.bos_id if model.anatomy.causal else None
    front = int(bos is not None)
    context = min(CONTEXT, model.n_ctx) if context is None else context
    if not front < context <= model.n_ctx:
        msg = f"A window of {model.name} has {front + 1} to {model.n_ctx:,} tokens, not {context}."
        raise InputError(msg)
    width = context - front
    windows: list[Window] = []
    count = split = place = 0
    for text in texts:
        if not isinstance(text, str):
            msg = f"A corpus is texts; number {count} is none ({type(text).__name__})."
            raise InputError(msg)
        ids = model.tokens_of(text)
        split += len(ids) > width
        for start in range(0, len(ids), width):
            some = tuple(ids[start : start + width])
            windows.append(Window(count, start, some, place))
            place += len(some)
        count += 1
    if not windows:
        msg = "The corpus is empty: it has no text with at least one token."
        raise InputError(msg)
    shards = _shards(windows, shard_tokens, whole_texts=whole_texts)
    return Windows(tuple(windows), count, split, bos, context, shards)


def _shards(
    windows: Sequence[Window], shard_tokens: int, *, whole_texts: bool
) -> tuple[range, ...]:
    shards, begin = [], 0
    last = len(windows) - 1
    for index, window in enumerate(windows):
        full = window.place + len(window.ids) - windows[begin].place >= shard_tokens
        goes_on = whole_texts and index < last and windows[index + 1].text == window.text
        if index == last or (full and not goes_on):
            shards.append(range(begin, index + 1))
            begin = index + 1
    return tuple(shards)


@dataclass(eq=False)
class Collected:
    """What was collected from some shards.

    Attributes:
        layers: the statistics of each layer's neurons.
        sample: values of all neurons, layer after layer, at the same few tokens.
        tokens: how many tokens were read.
    """

    layers: dict[int, NeuronStatistics]
    sample: Sample
    tokens: int = 0

    @classmethod
    def nothing(
        cls, model: LanguageModel, *, top: int = TOP, sample: int = SAMPLE, seed: int = 0
    ) -> Collected:
        """Of no shard yet.

        Args:
            model: whose neurons.
            top: how many of each neuron's largest values are kept.
            sample: at how many tokens all values are kept.
            seed: what draws these tokens.
        """
        a = model.anatomy
        counts = {n: a.n_neurons(n) for n in range(a.n_layers) if a.n_neurons(n)}
        layers = {layer: NeuronStatistics.zeros(count, top) for layer, count in counts.items()}
        return cls(layers, Sample.zeros(sum(counts.values()), sample, seed))

    def merge(self, other: Collected) -> None:
        """Take in what was collected from other shards."""
        for layer, statistics in self.layers.items():
            statistics.merge(other.layers[layer])
        self.sample.merge(other.sample)
        self.tokens += other.tokens

    def to_tensors(self) -> dict[str, Tensor]:
        """Return it as named tensors, to be written to a file; :meth:`of_tensors` reads them."""
        found = {"tokens": torch.tensor(self.tokens)}
        found |= {f"sample.{name}": tensor for name, tensor in self.sample.to_tensors().items()}
        for layer, statistics in self.layers.items():
            found |= {f"{layer}.{name}": each for name, each in statistics.to_tensors().items()}
        return found

    @classmethod
    def of_tensors(cls, found: Mapping[str, Tensor]) -> Collected:
        """Read what :meth:`to_tensors` gave."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in found.items():
            owner, _, rest = name.partition(".")
            parts.setdefault(owner, {})[rest] = tensor
        sample, tokens = Sample.of_tensors(parts.pop("sample")), int(parts.pop("tokens")[""])
        layers = {int(layer): NeuronStatistics.of_tensors(part) for layer, part in parts.items()}
        return cls(dict(sorted(layers.items())), sample, tokens)


@dataclass(eq=False)
class Reader:
    """Runs shards of a corpus. It computes where it is called: on the model's worker.

    Args:
        engine: what runs the model.
        windows: the corpus.
        per_prompt: with labels, which value of a neuron stands for a text; None keeps none.
        batch_tokens: how many tokens are run at once.

    Raises:
        ModelError: when the model has no neurons.
        InputError: when ``per_prompt`` is none of those there are.
    """

    engine: Engine
    windows: Windows
    per_prompt: PerPrompt | None = None
    batch_tokens: int = BATCH_TOKENS
    _stream: NeuronStream = field(init=False)
    _ends: dict[int, int] = field(init=False)

    def __post_init__(self) -> None:
        if self.per_prompt not in (None, *get_args(PerPrompt)):
            msg = f"A text's value is its max, mean or last one, not {self.per_prompt!r}."
            raise InputError(msg)
        self._stream = NeuronStream(self.engine)
        # Where each text's last window begins: later ones replace earlier ones.
        self._ends = {window.text: window.place for window in self.windows.windows}

    def texts_of(self, shard: range) -> range:
        """Return the texts that a shard has windows of."""
        first, last = self.windows.windows[shard[0]], self.windows.windows[shard[-1]]
        return range(first.text, last.text + 1)

    def read(
        self,
        shard: range,
        into: Collected,
        prompts: Tensor | None = None,
        *,
        should_stop: ShouldStop | None = None,
    ) -> Generator[int, None, None]:
        """Read one shard. Stopped in the middle, ``into`` is not to be used.

        Args:
            shard: which windows.
            into: takes what is found.
            prompts: Float32[text, unit] of NaN, a row for each of :meth:`texts_of`: takes the value
                that stands for each text. Needs shards of whole texts.
            should_stop: asked before every block of the model.

        Yields:
            After each batch, how many tokens it had.

        Raises:
            Stopped: when ``should_stop`` said so.
        """
        # Windows of one length go together, so that little is padding.
        order = sorted(shard, key=lambda index: (len(self.windows.windows[index].ids), index))
        batch: list[Window] = []
        for index in order:
            window = self.windows.windows[index]
            if batch and (len(batch) + 1) * len(window.ids) > self.batch_tokens:
                yield self._run(batch, into, prompts, shard, should_stop)
                batch = []
            batch.append(window)
        yield self._run(batch, into, prompts, shard, should_stop)
        if prompts is not None and self.per_prompt == "mean":
            counts = torch.zeros(len(prompts))
            first = self.texts_of(shard)[0]
            for index in shard:
                window = self.windows.windows[index]
                counts[window.text - first] += len(window.ids)
            prompts /= counts.clamp_min(1)[:, None]

    def _run(
        self,
        batch: Sequence[Window],
        into: Collected,
        prompts: Tensor | None,
        shard: range,
        should_stop: ShouldStop | None,
    ) -> int:
        # Places grow within a batch: of equal values the earliest is kept.
        batch = sorted(batch, key=lambda window: window.place)
        bos = [] if self.windows.bos is None else [self.windows.bos]
        longest = max(len(window.ids) for window in batch)
        rows = torch.zeros(len(batch), len(bos) + longest, dtype=torch.long)
        counted = torch.zeros(rows.shape, dtype=torch.bool)
        for row, window in enumerate(batch):
            ids = [*bos, *window.ids]
            rows[row, : len(ids)] = torch.tensor(ids)
            counted[row, len(bos) : len(ids)] = True
        where = counted.flatten().nonzero().flatten()
        places = torch.cat([torch.arange(w.place, w.place + len(w.ids)) for w in batch])
        wanted = into.sample.wanted(places)
        sampled: list[Tensor] = []
        offset = 0

        def take(layer: int, values: Tensor) -> None:
            nonlocal offset
            flat = values.reshape(-1, values.shape[-1])[where].float().cpu()
            into.layers[layer].add(flat, places)
            sampled.append(flat[wanted])
            if prompts is not None:
                first = self.texts_of(shard)[0]
                self._keep(prompts[:, offset : offset + flat.shape[1]], batch, flat, first)
            offset += flat.shape[1]

        self._stream.run(rows, take, should_stop=should_stop)
        into.sample.add(torch.cat(sampled, 1), places[wanted])
        into.tokens += len(places)
        return len(places)

    def _keep(self, prompts: Tensor, batch: Sequence[Window], values: Tensor, first: int) -> None:
        """Put in what stands for each window's text; that of several windows is put together."""
        begin = 0
        for window in batch:
            own = values[begin : begin + len(window.ids)]
            begin += len(window.ids)
            row = prompts[window.text - first]
            if self.per_prompt == "last":
                if self._ends[window.text] == window.place:
                    row.copy_(own[-1])
                continue
            found = own.amax(0) if self.per_prompt == "max" else own.sum(0)
            if not bool(row[0].isnan()):
                found = torch.maximum(row, found) if self.per_prompt == "max" else row + found
            row.copy_(found)
