"""A gradient through rectifiers that are shut, for a unit that is dead where the ascent starts.

Where max(0, z) is 0, so is its slope: a unit whose every place is under 0 at the start gets no
gradient at all, and the picture would stay the grey that it began with. ReLU6 is shut at its other
end too. Inside :class:`LeakyGradient` the values are what they are, while the gradient g of what is
*minimised* goes on through a place that is shut where a step against g leads back in (z <= low and
g < 0, or z >= high and g > 0), less the further it is from being open:

    dL/dz = g exp(-(d - d0) / s)    where shut and leading in
    dL/dz = 0                       where shut and leading further out
    dL/dz = g                       where open

with d the distance to the open range, s the standard deviation of z over the places of the channel,
and d0 the smallest d of a channel that is shut everywhere, else 0. So the places that are about to
open are climbed first. All of them alike would be climbed by a flat colour, which need not open
any; one of them alone, by a spot in a grey picture.

Lucid (``misc/redirected_relu_grad.py``, with Olah, Mordvintsev and Schubert, "Feature
Visualization", 2017) lets gradients through shut rectifiers at every place, in a network's first
steps.
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_RELU = frozenset(
    {torch.relu, torch.relu_, Tensor.relu, Tensor.relu_, functional.relu, functional.relu_}
)
# What has bounds, and what it calls them.
_BOUNDED: Mapping[object, tuple[tuple[str, float], tuple[str, float]]] = MappingProxyType(
    {
        functional.hardtanh: (("min_val", -1.0), ("max_val", 1.0)),
        functional.hardtanh_: (("min_val", -1.0), ("max_val", 1.0)),
        **dict.fromkeys(
            (torch.clamp, torch.clip, Tensor.clamp, Tensor.clip, Tensor.clamp_, Tensor.clip_),
            (("min", -math.inf), ("max", math.inf)),
        ),
        **dict.fromkeys(
            (torch.clamp_min, Tensor.clamp_min, Tensor.clamp_min_),
            (("min", -math.inf), ("", math.inf)),
        ),
    }
)

_LEAST_SPREAD = 1e-6


class LeakyGradient(TorchFunctionMode):
    """A context in which gradients pass rectifiers that are shut; values stay what they are.

    It acts on the calls of this thread alone, and on no module: ReLU, ReLU6, Hardtanh and clamping
    by numbers, as modules, functions and methods.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: object,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Do what torch does, but for a rectifier's gradient."""
        given = kwargs or {}
        bounds = _bounds(func, args, given)
        if bounds is None:
            return func(*args, **given)
        x = args[0] if args else given["input"]
        return _Rectified.apply(x, *bounds)  # type: ignore[no-untyped-call] # torch's own


def _bounds(
    func: Callable[..., Any], args: tuple[Any, ...], given: Mapping[str, Any]
) -> tuple[float, float] | None:
    """Return where a rectifier shuts; None for any other function."""
    if func in _RELU:
        return 0.0, math.inf
    if func is functional.relu6:
        return 0.0, 6.0
    if func not in _BOUNDED:
        return None
    found = []
    for place, (name, default) in enumerate(_BOUNDED[func], 1):
        value = args[place] if name and len(args) > place else given.get(name, default)
        found.append(default if value is None else value)
    low, high = found
    if isinstance(low, Tensor) or isinstance(high, Tensor):
        return None
    return float(low), float(high)


class _Rectified(torch.autograd.Function):
    """Clamping whose gradient leads back in."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (x,), (low, high), (gradient,) = ctx.saved_tensors, ctx.bounds, gradients
        places = (*x.shape[:2], -1) if x.ndim > 2 else (*x.shape, 1)
        z, g = x.reshape(places), gradient.reshape(places)
        below, above = z <= low, z >= high
        shut = below | above
        inward = (below & (g < 0)) | (above & (g > 0))
        away = torch.where(below, low - z, z - high).masked_fill(~inward, math.inf)
        least = torch.where(shut.all(-1, keepdim=True), away.amin(-1, keepdim=True), 0)
        spread = z.std(-1, correction=0, keepdim=True).clamp_min(_LEAST_SPREAD)
        weight = torch.where(shut, ((least - away) / spread).exp(), 1)
        return (g * weight.nan_to_num()).view(x.shape), None, None
