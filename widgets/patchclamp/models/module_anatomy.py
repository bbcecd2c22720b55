"""What a module is made of: which parts run, in which order, and what shape each one's output has.

`ModuleAnatomy.of` finds it out by running a copy of the module twice, on two and on three stimuli:
the dimension of an output that follows is its batch. A part is a module by its `named_modules()`
path; its units are its channels, `_blocks.9:c17`. A part that runs several times in one pass (a
shared ReLU, a recurrent cell) has positions: `_swish:c3@1` is its second call.
"""

from __future__ import annotations

import difflib
import weakref
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from patchclamp.errors import AddressError, ModelError
from patchclamp.models.shared_weights import frozen_twin
from patchclamp.sites import Pattern, Site, SiteSet, Span, parse_site

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from patchclamp.models.stimulus import Stimulus

#: Modules whose features stand in the last dimension of what they return.
_FEATURES_LAST = (
    nn.Linear,
    nn.Bilinear,
    nn.RNNBase,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.Embedding,
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerDecoderLayer,
    nn.TransformerEncoder,
    nn.TransformerDecoder,
)

#: What a module may raise on an input that it cannot take.
REFUSALS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)

_SHOWN = 12  # parts that a sentence lists


@dataclass(frozen=True)
class Part:
    """A module inside a model that runs when the model runs.

    Attributes:
        path: Its `named_modules()` path; the anatomy's `root` for the model itself.
        kind: Its class.
        channels: How many units its output has: the size of its channel dimension.
        shape: The output's other dimensions without the batch, at the declared size of stimulus;
            empty where each unit is one number.
        calls: How often it runs in one pass.
        batch_axis: Which dimension of the output is the batch.
        channel_axis: Which is the channel; None where a stimulus gives one number.
        leaf: Whether no other module runs inside it.
        done: How many leaf modules have run when its first output is there.
    """

    path: str
    kind: str
    channels: int
    shape: tuple[int, ...]
    calls: int
    batch_axis: int
    channel_axis: int | None
    leaf: bool
    done: int

    def channels_first(self, output: Tensor) -> Tensor:
        """Return an output as Float[batch, channel, *space]; a view."""
        if self.channel_axis is None:
            return output.unsqueeze(1)
        return output.movedim((self.batch_axis, self.channel_axis), (0, 1))

    def as_it_came(self, value: Tensor) -> Tensor:
        """Undo :meth:`channels_first`."""
        if self.channel_axis is None:
            return value.squeeze(1)
        return value.movedim((0, 1), (self.batch_axis, self.channel_axis))


@dataclass(frozen=True)
class ModuleAnatomy:
    """The parts of a model.

    Attributes:
        parts: Each part by its path, in the order in which their outputs are there.
        output: The path of the part whose output is the model's.
        root: What the model itself is called as a part; None when another part's output is its.
        without: Why other modules' outputs cannot be used, by path.
        leaves: How many leaf modules run in one pass.
    """

    parts: Mapping[str, Part]
    output: str
    root: str | None
    without: Mapping[str, str]
    leaves: int

    @classmethod
    def of(
        cls, module: nn.Module, stimulus: Stimulus, prepare: Callable[[Tensor], Tensor]
    ) -> ModuleAnatomy:
        """Look at a module while a copy of it runs.

        Args:
            module: The module; its weights are shared with the copy, and nothing of it changes.
            stimulus: What it takes.
            prepare: From stimuli in the declared range to what the module is given.

        Raises:
            ModelError: When it cannot be copied, does not take such a stimulus, or gives no tensor.
        """
        two = _look(module, stimulus, prepare, batch=2)
        three = {seen.path: seen for seen in reversed(_look(module, stimulus, prepare, batch=3))}
        first = {seen.path: seen for seen in reversed(two)}
        in_order = sorted(first.values(), key=two.index)
        root = _name_of_root({*first})
        parts: dict[str, Part] = {}
        without: dict[str, str] = {}
        for seen in in_order:
            path = seen.path or root
            part = _part(seen, three.get(seen.path), path, tuple(parts.values()))
            if isinstance(part, str):
                without[path] = part
            else:
                parts[path] = replace(part, calls=sum(one.path == seen.path for one in two))
        if root not in parts:
            raise ModelError(f"{type(module).__name__} cannot be looked into: {without[root]}")
        # The last module whose output went out as the model's own, unchanged.
        same = [seen.path for seen in two if seen.path in parts and seen.is_final]
        output = same[-1] if same else root
        if output != root:
            del parts[root]
        return cls(
            MappingProxyType(parts),
            output,
            root if output == root else None,
            MappingProxyType(without),
            two[-1].done,
        )

    def __repr__(self) -> str:
        return f"ModuleAnatomy({len(self.parts)} parts, {self.leaves} leaf modules, {self.output})"

    # What there is ------------------------------------------------------------------------------

    def part(self, path: str) -> Part:
        """The part with a path, with or without the `@k` of one of its calls.

        Raises:
            AddressError: When there is none, saying what exists and what is nearest.
        """
        name = path.partition("@")[0]
        if name in self.parts:
            return self.parts[name]
        if name in self.without:
            raise AddressError(f"{name} has no units: {self.without[name]}")
        listed = ", ".join(list(self.parts)[:_SHOWN])
        more = len(self.parts) - _SHOWN
        rest = f" and {more} more" if more > 0 else ""
        close = difflib.get_close_matches(name, self.parts, 1, 0.3)
        nearest = f" The nearest is {close[0]}." if close else ""
        raise AddressError(f"There is no part {name!r}; there are {listed}{rest}.{nearest}")

    def check(self, site: Site | str) -> Site:
        """Return the address of a unit, parsed, or say why there is none such.

        Args:
            site: Such as `_blocks.9:c17`.

        Raises:
            AddressError: A sentence saying what exists and what is nearest.
        """
        found = site if isinstance(site, Site) else self._read(site)
        if found.kind != "module":
            example = next(iter(self.parts))
            raise AddressError(
                f"{found} is an address in a language model, and this model is made of modules: "
                f"write a part and a channel of it, such as {example}:c0."
            )
        part = self.part(found.name or "")
        if (found.index or 0) >= part.channels:
            last = part.channels - 1
            raise AddressError(
                f"{found}: {part.path} has {part.channels} channels, c0 to c{last}. The nearest is "
                f"{part.path}:c{last}."
            )
        self._check_calls(found, part)
        return found

    def expand(self, sites: SiteSet | Site | str) -> list[Site]:
        """The members of a set, each checked.

        Raises:
            AddressError: When there is no such unit, or the set is of a language model's.
        """
        found = parse_site(sites) if isinstance(sites, str) else sites
        if isinstance(found, Site):
            return [self.check(found)]
        for written in found.written:
            if isinstance(written, Pattern):
                raise AddressError(
                    f"{written} is a set inside a language model; name channels of this model one "
                    f"by one, such as {{{self.output}:c0, {self.output}:c1}}."
                )
            self.check(written)
        return list(found.members(_NO_SIZES))

    def hook(self, site: Site | str) -> str:
        """Where a unit's value is read: its part's path, with `@k` for a later call than the first.

        Raises:
            AddressError: When there is no such unit, or its part runs several times and the address
                does not say which call is meant.
        """
        found = self.check(site)
        part = self.part(found.name or "")
        calls = found.positions.indices(0, part.calls, part.calls, False)  # noqa: FBT003 (Positions' own)
        if len(calls) != 1:
            raise AddressError(
                f"{part.path} runs {part.calls} times in one pass; say which call is meant, such "
                f"as {found.at(part.calls - 1)} for the last one."
            )
        return part.path if calls[0] == 0 else f"{part.path}@{calls[0]}"

    def depth(self, path: str) -> float:
        """How far into a pass a part's first output is there: 0 at the start, 1 at the end.

        It is the share of leaf modules that have run.
        """
        return self.part(path).done / max(self.leaves, 1)

    def _read(self, text: str) -> Site:
        try:
            found = parse_site(text)
        except AddressError as error:
            name = text.partition("@")[0].strip()
            if name in self.parts:
                last = self.parts[name].channels - 1
                raise AddressError(
                    f"{name} is a part; say which of its channels, {name}:c0 to {name}:c{last}."
                ) from error
            raise AddressError(
                f"{text!r} is not an address of a unit; write a part and a channel of it, such as "
                f"{self.output}:c0."
            ) from error
        if not isinstance(found, Site):
            raise AddressError(f"{text!r} is a set of sites; one site is needed here.")
        return found

    def _check_calls(self, site: Site, part: Part) -> None:
        for item in site.positions.items:
            there = isinstance(item, int) and -part.calls <= item < part.calls
            if item == "new" or (isinstance(item, int) and not there):
                runs = "runs once" if part.calls == 1 else f"runs {part.calls} times"
                raise AddressError(
                    f"{site}: {part.path} {runs} in one pass, so that its calls are "
                    f"@0{'' if part.calls == 1 else f' to @{part.calls - 1}'}."
                )
            if isinstance(item, Span) and not range(part.calls)[slice(item.start, item.stop)]:
                raise AddressError(f"{site}: {part.path} has no calls {item}.")


class _NoSizes:
    """A model that is no language model has none of these."""

    n_layers = 0
    n_heads = 0

    def n_neurons(self, layer: int) -> int:  # noqa: ARG002 (the protocol's)
        return 0


_NO_SIZES = _NoSizes()


@dataclass(eq=False)
class _Seen:
    """One call of one module."""

    path: str
    module: nn.Module
    leaf: bool
    done: int
    returned: str
    shape: tuple[int, ...] | None = None
    floating: bool = True
    tensor: weakref.ref[Tensor] | None = None
    is_final: bool = False


def first_tensor(output: object) -> Tensor | None:
    """The tensor that a module returned, or the first of several; None where there is none.

    An LSTM returns its outputs and its last state: the outputs are what it computed. Models of
    `transformers` return an object whose first tensor are the logits or the hidden states.
    """
    if isinstance(output, dict) and hasattr(output, "to_tuple"):
        # Told by what it can do: transformers takes a second to import.
        output = next(iter(output.values()), None)
    if isinstance(output, (tuple, list)) and output:
        output = output[0]
    return output if isinstance(output, Tensor) else None


def with_first_tensor(output: object, tensor: Tensor) -> object:
    """What a module returned, with another first tensor."""
    if isinstance(output, dict):
        return type(output)(**{**output, next(iter(output)): tensor})
    if isinstance(output, list):
        return [tensor, *output[1:]]
    if isinstance(output, tuple):
        rest = (tensor, *output[1:])
        make = getattr(type(output), "_make", None)  # a named tuple
        return rest if make is None else make(rest)
    return tensor


def _look(
    module: nn.Module, stimulus: Stimulus, prepare: Callable[[Tensor], Tensor], *, batch: int
) -> list[_Seen]:
    """Every call of every module in one pass, in the order in which they end."""
    twin = frozen_twin(module)
    seen: list[_Seen] = []
    done = 0

    def watch(path: str, part: nn.Module) -> None:
        inner, leaf = part.forward, next(part.children(), None) is None

        def forward(*args: object, **kwargs: object) -> object:
            nonlocal done
            output = inner(*args, **kwargs)
            done += leaf
            one = _Seen(path, part, leaf, done, type(output).__name__)
            tensor = first_tensor(output)
            if tensor is not None:  # held weakly: all of them together may be gigabytes
                one.shape, one.floating = tuple(tensor.shape), tensor.is_floating_point()
                one.tensor = weakref.ref(tensor)
            seen.append(one)
            return output

        part.forward = forward

    for path, part in twin.named_modules():
        watch(path, part)
    example = _example(stimulus, batch)
    # In evaluation mode torch's attention leaves its parts out, but not where gradients are wanted.
    attends = any(isinstance(part, nn.MultiheadAttention) for part in twin.modules())
    try:
        # A module may draw random numbers; the user's own stay as they are.
        with torch.random.fork_rng(devices=[]), torch.set_grad_enabled(attends):
            final = first_tensor(twin(prepare(example.requires_grad_(attends))))
    except REFUSALS as error:
        raise ModelError(
            f"{type(module).__name__} does not take the stimulus that was declared, a batch of the "
            f"shape {tuple(example.shape)}: {error}"
        ) from error
    for one in seen:
        one.is_final = final is not None and one.tensor is not None and one.tensor() is final
    return seen


def _example(stimulus: Stimulus, batch: int) -> Tensor:
    shape = (batch, *stimulus.example_shape())
    generator = torch.Generator().manual_seed(0)
    if stimulus.bounded:
        drawn = torch.rand(shape, generator=generator)
        return stimulus.low + (stimulus.high - stimulus.low) * drawn
    return torch.randn(shape, generator=generator).clamp(stimulus.low, stimulus.high)


def _name_of_root(paths: set[str]) -> str:
    name = "output"
    while name in paths:
        name = f"_{name}"
    return name


def _part(seen: _Seen, other: _Seen | None, path: str, earlier: tuple[Part, ...]) -> Part | str:
    """What a module's output is like; a sentence when it has no units."""
    if seen.shape is None:
        return f"it returns a {seen.returned}, not a tensor."
    if not seen.floating:
        return "it does not return floating-point numbers."
    two, three = seen.shape, () if other is None else other.shape or ()
    follows = [axis for axis, pair in enumerate(zip(two, three, strict=False)) if pair == (2, 3)]
    if len(two) != len(three) or len(follows) != 1:
        return (
            f"its output for two stimuli has the shape {two}, in which no dimension is the batch."
        )
    batch = follows[0]
    channel = _channel_axis(seen.module, two, batch, earlier)
    return Part(
        path=path,
        kind=type(seen.module).__name__,
        channels=1 if channel is None else two[channel],
        shape=tuple(size for axis, size in enumerate(two) if axis not in {batch, channel}),
        calls=1,
        batch_axis=batch,
        channel_axis=channel,
        leaf=seen.leaf,
        done=seen.done,
    )


def _channel_axis(
    module: nn.Module, shape: tuple[int, ...], batch: int, earlier: tuple[Part, ...]
) -> int | None:
    if len(shape) == 1:
        return None
    if isinstance(module, _FEATURES_LAST):
        return len(shape) - 1
    if len(shape) == 2:
        return 1 - batch
    if not _knows_channels(module) and earlier:
        # What came before it in the same shape (a ReLU's input, the last layer of a block) says;
        # else where there are as many as the part before it has (what pools, pads or transposes).
        for part in reversed(earlier):
            if part.batch_axis == batch and _same_shape(part, shape):
                return part.channel_axis
        many = [n for n, size in enumerate(shape) if n != batch and size == earlier[-1].channels]
        if len(many) == 1:
            return many[0]
    return 1 if batch == 0 else len(shape) - 1


def _knows_channels(module: nn.Module) -> bool:
    """Whether a module of torch's own has its channels in dimension 1."""
    return isinstance(module, (nn.modules.conv._ConvNd, nn.modules.batchnorm._NormBase))  # noqa: SLF001 (torch's only names for all of them)


def _same_shape(part: Part, shape: tuple[int, ...]) -> bool:
    if part.channel_axis is None or len(shape) != len(part.shape) + 2:
        return False
    axes = {part.batch_axis, part.channel_axis}
    rest = tuple(size for axis, size in enumerate(shape) if axis not in axes)
    return shape[part.channel_axis] == part.channels and rest == part.shape
