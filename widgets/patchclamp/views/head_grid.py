"""The grid of all heads: one small pattern each, coded, filling in layer by layer."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from patchclamp.methods.head_scores import THUMB

from . import tiles
from .looks import OTHER
from .messages import Coding, GridPart, GridUpdate, Look, Message

if TYPE_CHECKING:
    from numpy.typing import NDArray


class HeadGrid:
    """The small patterns of one look, coded, as far as they are measured.

    Attributes:
        look: of which pattern.
        stamp: its stamp.
        block: a pixel is the cell furthest from 0 of `block` x `block`.
        size: pixels a side.
        done: for each layer, whether it is measured.
        thumbs: uint8 [layers, heads, size, size].
        peaks: float32 [layers, heads].
    """

    def __init__(self, look: Look, stamp: str, layers: int, heads: int, length: int) -> None:
        self.look = look
        self.stamp = stamp
        self.layers = layers
        self.heads = heads
        self.block = -(-length // THUMB)
        self.size = -(-length // self.block)
        self.done = np.zeros(layers, dtype=np.bool_)
        self.thumbs = np.zeros((layers, heads, self.size, self.size), dtype=np.uint8)
        self.peaks = np.ones((layers, heads), dtype=np.float32)

    def put(self, layer: int, thumbs: "NDArray[np.float32]") -> None:
        """Take a layer's, Float[head, n, n]."""
        for head, thumb in enumerate(thumbs):
            coding: Coding = "signed" if self.look in OTHER else "share"
            coded, peak = tiles.code_tile(thumb, coding, triangle=False)
            self.thumbs[layer, head] = coded.reshape(thumb.shape)
            self.peaks[layer, head] = peak
        self.done[layer] = True

    def copy(self, other: "HeadGrid", layer: int) -> None:
        """Take a layer's from another run's, in which it is the same."""
        self.thumbs[layer] = other.thumbs[layer]
        self.peaks[layer] = other.peaks[layer]
        self.done[layer] = True

    def part(self, layers: Sequence[int] | None = None) -> GridPart:
        """Some layers, or all that are measured, as they travel."""
        chosen = np.flatnonzero(self.done).tolist() if layers is None else list(layers)
        return GridPart(
            look=self.look,
            stamp=self.stamp,
            layers=chosen,
            thumbs=self.thumbs[chosen],
            block=self.block,
            coding="signed" if self.look in OTHER else "share",
            peaks=self.peaks[chosen],
        )


def merged(old: Message, new: Message) -> Message:
    """One message of two with layers of the same grid that waited together."""
    if not (isinstance(old, GridUpdate) and isinstance(new, GridUpdate)):
        return new
    if old.part.stamp != new.part.stamp:
        return new
    kept = [i for i, layer in enumerate(old.part.layers) if layer not in new.part.layers]
    layers = [*(old.part.layers[i] for i in kept), *new.part.layers]
    thumbs = np.concatenate([old.part.thumbs[kept], new.part.thumbs])
    peaks = np.concatenate([old.part.peaks[kept], new.part.peaks])
    changes = {"layers": layers, "thumbs": thumbs, "peaks": peaks}
    return new.model_copy(update={"part": new.part.model_copy(update=changes)})


def coarse(part: GridPart) -> GridPart:
    """The same with half as many pixels a side: each the byte furthest from 0 of four."""
    thumbs = np.asarray(part.thumbs)
    middle = 128 if part.coding == "signed" else 0
    size = -(-thumbs.shape[-1] // 2)
    gap = 2 * size - thumbs.shape[-1]
    padded = np.pad(thumbs, [(0, 0), (0, 0), (0, gap), (0, gap)], constant_values=middle)
    four = padded.reshape(*thumbs.shape[:2], size, 2, size, 2).swapaxes(3, 4)
    four = four.reshape(*thumbs.shape[:2], size, size, 4)
    furthest = np.abs(four.astype(np.int16) - middle).argmax(-1)[..., None]
    chosen = np.take_along_axis(four, furthest, -1)[..., 0]
    return part.model_copy(update={"thumbs": chosen, "block": 2 * part.block})
