"""EfficientNet-Lite0, an image classifier of a thousand classes, from its pinned weights.

Tan and Le 2019, "EfficientNet: rethinking model scaling for convolutional neural networks",
arXiv:1905.11946; the Lite variant (Liu 2020) has no squeeze-and-excitation, ReLU6 instead of swish,
and its stem and head are not scaled. Sixteen inverted residual blocks (Sandler et al. 2018,
"MobileNetV2"): a 1x1 convolution widens, a depthwise one filters, a 1x1 one narrows again.

The weights are a port of TensorFlow's. So convolutions pad as TensorFlow's "SAME" does (more on the
right and below where the padding is odd), whatever the size, and the modules have the names of the
weights' keys: `_conv_stem`, `_blocks.9._depthwise_conv`, `_conv_head`, `_fc`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from patchclamp.models.stimulus import Stimulus

if TYPE_CHECKING:
    from pathlib import Path

# Repeats, kernel, stride of the first, expansion, channels in, channels out.
_STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)

#: What it takes: pictures of any size from 32, where its five strides leave one position; it was
#: trained on 224, normalised as TensorFlow's Lite models are, (byte − 127) / 128. (The code that
#: the weights came with names ImageNet's mean and deviation in a comment. The first batch norm
#: decides: so normalised, a picture of ImageNet's mean colour gives its 32 running means, with a
#: correlation of 0.97; the other way they would all be 0. Over the network's 49 batch norms, seven
#: colour photographs are 0.2 deviations from the running means, and 0.4 the other way.)
PICTURE = Stimulus(
    (3, None, None), mean=(127 / 255,) * 3, std=(128 / 255,) * 3, size=224, smallest=32
)


class SameConv2d(nn.Conv2d):
    """A convolution whose output has the size of its input divided by the stride, rounded up."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 (torch's word)
        """Return Float[batch, out, ceil(height / stride), ceil(width / stride)]."""
        if self.kernel_size == (1, 1):
            return super().forward(input)
        height = _padding(input.shape[-2], self.kernel_size[0], self.stride[0])
        width = _padding(input.shape[-1], self.kernel_size[1], self.stride[1])
        if height % 2 or width % 2:
            before_and_after = [width // 2, width - width // 2, height // 2, height - height // 2]
            return super().forward(nn.functional.pad(input, before_and_after))
        # The same on both sides: the convolution pads by itself, which copies nothing.
        return nn.functional.conv2d(
            input,
            self.weight,
            self.bias,
            self.stride,
            (height // 2, width // 2),
            self.dilation,
            self.groups,
        )


def _padding(size: int, kernel: int, stride: int) -> int:
    """How many zeros TensorFlow's "SAME" adds along one dimension."""
    return max((-(-size // stride) - 1) * stride + kernel - size, 0)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class Block(nn.Module):
    """An inverted residual block: widen, filter each channel, narrow, add the input."""

    def __init__(self, kernel: int, stride: int, expansion: int, inner: int, outer: int) -> None:
        super().__init__()
        wide = inner * expansion
        self._widens = expansion != 1
        self._skips = stride == 1 and inner == outer
        if self._widens:
            self._expand_conv = SameConv2d(inner, wide, 1, bias=False)
            self._bn0 = _norm(wide)
        self._depthwise_conv = SameConv2d(
            wide, wide, kernel, stride=stride, groups=wide, bias=False
        )
        self._bn1 = _norm(wide)
        self._project_conv = SameConv2d(wide, outer, 1, bias=False)
        self._bn2 = _norm(outer)
        self._swish = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        """Return Float[batch, outer, height, width]."""
        wide = self._swish(self._bn0(self._expand_conv(x))) if self._widens else x
        filtered = self._swish(self._bn1(self._depthwise_conv(wide)))
        narrow: Tensor = self._bn2(self._project_conv(filtered))
        return narrow + x if self._skips else narrow


class EfficientNetLite0(nn.Module):
    """The whole network, from Float[batch, 3, height, width] to Float[batch, 1000] logits.

    It has no stochastic depth: it is not for training.
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = SameConv2d(3, 32, 3, stride=2, bias=False)
        self._bn0 = _norm(32)
        self._blocks = nn.ModuleList(
            Block(kernel, stride if n == 0 else 1, expansion, inner if n == 0 else outer, outer)
            for repeats, kernel, stride, expansion, inner, outer in _STAGES
            for n in range(repeats)
        )
        self._conv_head = SameConv2d(320, 1280, 1, bias=False)
        self._bn1 = _norm(1280)
        self._avg_pooling = nn.AdaptiveAvgPool2d(1)
        self._dropout = nn.Dropout(0.2)
        self._fc = nn.Linear(1280, 1000)
        self._swish = nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        """Return Float[batch, 1000], the logits of ImageNet's classes."""
        x = self._swish(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = self._swish(self._bn1(self._conv_head(x)))
        x = self._avg_pooling(x).flatten(1)
        logits: Tensor = self._fc(self._dropout(x))
        return logits


def read(weights: Path) -> EfficientNetLite0:
    """The network with the weights of a file, in evaluation mode.

    Args:
        weights: The pinned `.pth`, whose SHA-256 was compared.
    """
    with torch.device("meta"):
        network = EfficientNetLite0()
    state = torch.load(weights, map_location="cpu", weights_only=True)
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval().requires_grad_(requires_grad=False)  # it is looked into, not trained
