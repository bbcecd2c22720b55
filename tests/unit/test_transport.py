"""Arrays as binary buffers: what is packed is unpacked, wherever in the bytes it lies."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from patchclamp.views import messages as say
from patchclamp.views.transport import DTYPES, from_text, pack, to_text, unpack

some_arrays = st.sampled_from([d for d in DTYPES if d != "bool"]).flatmap(
    lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_side=4, min_side=0))
)
structures = st.recursive(
    some_arrays | st.integers(-5, 5) | st.text(max_size=3) | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return bool(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes())
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[name], b[name]) for name in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


@settings(deadline=None)
@given(structures, st.integers(0, 7))
def test_what_is_packed_is_unpacked(structure: Any, offset: int) -> None:
    content, buffers = pack(structure)
    # As a comm delivers them: views at any offset of one larger block, followed by other bytes.
    block = b"\xff" * offset + b"".join(buffers) + b"\xff" * 5
    views, at = [], offset
    for buffer in buffers:
        views.append(memoryview(block)[at : at + len(buffer)])
        at += len(buffer)
    assert same(unpack(json.loads(json.dumps(content)), views), structure)


def test_tensors_of_every_kind_travel() -> None:
    values = torch.arange(6.0).reshape(2, 3)
    given = {
        "grad": values.clone().requires_grad_(),
        "columns": values.T,
        "brain": values.bfloat16(),
        "half": values.half(),
        "long": values.long(),
        "yes": values > 2,
    }
    found = unpack(*pack(given))
    assert found["columns"].tolist() == values.T.tolist()
    assert [found[name].dtype.name for name in given] == [
        "float32", "float32", "float32", "float16", "int32", "bool",
    ]  # fmt: skip
    assert all(np.allclose(found[n], given[n].detach().float().numpy()) for n in ("grad", "brain"))


def test_a_message_is_packed_with_its_arrays_beside_it() -> None:
    curve = say.DoseResponse(
        values=np.arange(3, dtype=np.float32),
        logprob=np.zeros(3, dtype=np.float32),
        kl=np.ones(3, dtype=np.float32),
    )
    content, buffers = pack(say.CurveUpdate(key=4, revision=9, curve=curve))
    assert content["kind"] == "curve"
    assert content["curve"]["kl"] == {"buffer": 2, "dtype": "float32", "shape": [3]}
    assert [len(buffer) for buffer in buffers] == [12, 12, 12]


def test_what_javascript_has_no_array_for_is_refused() -> None:
    for array in (np.array(["a"]), np.array([2**40]), np.array([1j])):
        with pytest.raises(TypeError, match="cannot travel"):
            pack([array])


@pytest.mark.parametrize(
    ("packed", "words"),
    [
        ({"buffer": 1, "dtype": "float32", "shape": [2]}, "Buffer 1 is missing"),
        ({"buffer": 0, "dtype": "float32", "shape": [3]}, "holds 8 bytes"),
        ({"buffer": 0, "dtype": "object", "shape": [1]}, "no dtype 'object'"),
    ],
)
def test_a_buffer_that_does_not_fit_is_refused(packed: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        unpack(packed, [b"\0" * 8])


def test_buffers_as_text_come_back() -> None:
    assert from_text(to_text([b"", b"\x00\xff", b"abc"])) == [b"", b"\x00\xff", b"abc"]
