"""Arrays as binary buffers: a structure with arrays in it becomes plain JSON and a list of buffers.

Where an array stood, the JSON says ``{"buffer": i, "dtype": "float32", "shape": [..]}``
(`messages.PackedArray`), C order, little endian. The front end's `transport.ts` does `unpack`'s
work and respects `byteOffset`; `unpack` here is for saved pages and tests.
"""

import sys
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

DTYPES = ("float32", "float16", "float64", "uint8", "int32", "bool")
"""What can travel: JavaScript has a typed array for each (bool as bytes, float16 as numbers)."""


def pack(content: object) -> tuple[Any, list[bytes]]:
    """Take the arrays out of a structure.

    Args:
        content: dicts, sequences, pydantic models, plain values, and numpy arrays or torch tensors
            (of any device; bfloat16 travels as float32) anywhere among them.

    Returns:
        The same as JSON-ready values, and the buffers that it points to.

    Raises:
        TypeError: for an array whose numbers have no typed array in JavaScript.
    """
    buffers: list[bytes] = []
    return _pack(content, buffers), buffers


def _pack(value: Any, buffers: list[bytes]) -> Any:
    if isinstance(value, BaseModel):
        # Field by field: model_dump would copy nested models into dicts first, to no use.
        return {name: _pack(getattr(value, name), buffers) for name in type(value).model_fields}
    if isinstance(value, Mapping):
        return {name: _pack(part, buffers) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_pack(part, buffers) for part in value]
    if isinstance(value, np.generic):
        return value.item()
    if hasattr(value, "__array__"):
        array = _as_numpy(value)
        buffers.append(array.tobytes())
        return {
            "buffer": len(buffers) - 1,
            "dtype": array.dtype.name,
            "shape": list(array.shape),
        }
    return value


def _as_numpy(value: Any) -> "NDArray[Any]":
    if hasattr(value, "detach"):  # a torch tensor, without importing torch
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16":  # numpy has none
            value = value.float()
        value = value.numpy()
    array = np.asarray(value)
    if array.dtype.name == "int64" and (
        not array.size or np.abs(array).max() <= np.iinfo(np.int32).max
    ):
        array = array.astype(np.int32)
    if array.dtype.name not in DTYPES:
        raise TypeError(
            f"An array of {array.dtype.name} cannot travel to the page; {', '.join(DTYPES)} can."
        )
    if sys.byteorder == "big" and array.dtype.itemsize > 1:
        return array.byteswap()
    return array


def unpack(content: Any, buffers: Sequence[bytes | bytearray | memoryview]) -> Any:
    """Put the arrays back: the inverse of `pack`, with numpy arrays.

    A buffer may be a view into a larger one; only its own bytes are read.

    Raises:
        ValueError: when a buffer is missing or does not hold what its shape says.
    """
    if isinstance(content, Mapping):
        if content.keys() == {"buffer", "dtype", "shape"}:
            return _unpack_array(content, buffers)
        return {name: unpack(part, buffers) for name, part in content.items()}
    if isinstance(content, list | tuple):
        return [unpack(part, buffers) for part in content]
    return content


def _unpack_array(
    packed: Mapping[str, Any], buffers: Sequence[bytes | bytearray | memoryview]
) -> "NDArray[Any]":
    index, name, shape = packed["buffer"], packed["dtype"], tuple(packed["shape"])
    if not 0 <= index < len(buffers):
        raise ValueError(f"Buffer {index} is missing: the message has {len(buffers)}.")
    if name not in DTYPES:
        raise ValueError(f"There is no dtype {name!r}; there are {', '.join(DTYPES)}.")
    dtype = np.dtype(name).newbyteorder("<")
    data = memoryview(buffers[index]).cast("B")
    expected = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if data.nbytes != expected:
        raise ValueError(
            f"Buffer {index} holds {data.nbytes} bytes; {name} of shape {list(shape)} are "
            f"{expected}."
        )
    return np.frombuffer(data, dtype=dtype).reshape(shape)


def to_text(buffers: Sequence[bytes]) -> list[str]:
    """Buffers as base64, for pages and traits that hold JSON only."""
    return [b64encode(buffer).decode("ascii") for buffer in buffers]


def from_text(texts: Sequence[str]) -> list[bytes]:
    """The inverse of `to_text`."""
    return [b64decode(text, validate=True) for text in texts]
