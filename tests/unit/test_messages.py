"""The messages: what is taken, what is refused in which words, and the schema of it all."""

import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchclamp.views import messages as say
from patchclamp.views.messages import MAX_MESSAGE, MessageError, parse_up
from patchclamp.views.schema import schema


def refused(content: object, buffers: tuple[object, ...] = ()) -> MessageError:
    with pytest.raises(MessageError) as caught:
        parse_up(content, buffers)
    return caught.value


def test_a_gesture_is_read_with_its_defaults() -> None:
    edit = parse_up({"kind": "edit", "id": 7, "key": 2, "value": 8})
    assert edit == say.Edit(kind="edit", id=7, key=2, value=8.0, final=True)
    assert isinstance(parse_up({"kind": "generate", "id": 1}), say.Generate)


@pytest.mark.parametrize(
    ("content", "field", "words"),
    [
        (None, None, "an object with a kind and an id, not null"),
        ([], None, "not a list"),
        ("hello", None, "not 'hello'"),
        ({}, "kind", "no message of kind null; there are hello, edit, add"),
        ({"kind": "zap", "id": 1}, "kind", "no message of kind 'zap'"),
        ({"kind": ["edit"], "id": 1}, "kind", "no message of kind a list"),
        ({"kind": "edit", "id": 1}, "key", "'key' is missing"),
        ({"kind": "edit", "id": 1, "key": "2"}, "key", "not '2'"),
        ({"kind": "edit", "id": 1, "key": True}, "key", "not true"),
        ({"kind": "edit", "id": 1, "key": -1}, "key", "greater than or equal to 0"),
        ({"kind": "edit", "id": 1, "key": 10**400}, "key", "not a very large number"),
        ({"kind": "edit", "id": 1, "key": 2, "value": float("nan")}, "value", "not a finite"),
        ({"kind": "edit", "id": 1, "key": 2, "value": float("inf")}, "value", "not a finite"),
        ({"kind": "edit", "id": 1, "key": 2, "value": None}, "value", "not a finite number"),
        ({"kind": "edit", "id": 1, "key": 2, "value": "8"}, "value", "valid number, not '8'"),
        ({"kind": "edit", "id": 1, "key": 2, "op": "burn"}, "op", "'set', 'add', 'scale'"),
        (
            {"kind": "edit", "id": 1, "key": 2, "velue": 3},
            "velue",
            "there are id, kind, key, value",
        ),
        ({"kind": "add", "id": 1, "address": ""}, "address", "'address' is empty"),
        (
            {"kind": "add", "id": 1, "address": "L" * 500},
            "address",
            "at most 400 characters, not 500",
        ),
        ({"kind": "rank", "id": 1, "by": "size"}, "by", "'activation', 'direct' or 'gradient'"),
        ({"kind": "rank", "id": 1, "by": "direct", "count": 10**9}, "count", "200"),
        ({"kind": "generate", "id": 1, "temperature": -1}, "temperature", "equal to 0"),
    ],
)
def test_a_bad_message_is_refused_in_one_sentence(
    content: object, field: str | None, words: str
) -> None:
    error = refused(content)
    assert words in str(error)
    assert error.field == field
    assert str(error).endswith(".")
    assert "\n" not in str(error)
    assert len(str(error)) < 300


def test_the_answer_to_a_bad_message_finds_its_gesture() -> None:
    assert refused({"kind": "zap", "id": 12}).id == 12
    for useless in (-1, "12", True, 1.5, 2**60, None):
        assert refused({"kind": "zap", "id": useless}).id is None


def test_ten_megabytes_of_junk_are_refused_at_once() -> None:
    deep: list[Any] = []
    for _ in range(10_000):
        deep = [deep]
    for junk in (
        "x" * 10_000_000,
        list(range(2_000_000)),
        {str(i): i for i in range(500_000)},
        deep,
    ):
        began = time.thread_time()  # that of this thread only: others may have the processor
        error = refused({"kind": "edit", "id": 3, "key": 0, "value": junk})
        assert time.thread_time() - began < 0.05
        assert "larger than the 64 KB" in str(error)
        assert error.id == 3


def test_a_message_with_binary_data_is_refused() -> None:
    assert "binary" in str(refused({"kind": "hello", "id": 1}, (b"x" * 10_000_000,)))


def test_a_long_prompt_below_the_limit_is_taken() -> None:
    text = "word " * ((MAX_MESSAGE - 200) // 5)
    assert parse_up({"kind": "prompt", "id": 1, "text": text}) == say.Prompt(
        kind="prompt", id=1, text=text
    )


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
kinds = st.sampled_from([*say._KINDS, "zap"])
names = st.sampled_from(
    ["key", "value", "op", "address", "final", "positions", "text", "count", "by", "position", "x"]
)


@settings(max_examples=400, deadline=None)
@given(anything, kinds, st.dictionaries(names, anything, max_size=5))
def test_whatever_comes_is_a_gesture_or_a_sentence(
    junk: object, kind: str, fields: dict[str, object]
) -> None:
    for content in (junk, {"kind": kind, "id": 1, **fields}):
        try:
            said = type(parse_up(content)).__doc__ or ""
        except MessageError as error:
            said = str(error)
        assert 0 < len(said) < 400


def test_every_gesture_is_in_the_union_and_in_the_schema() -> None:
    written = schema()
    names = {part.__name__ for part in say.Up.__subclasses__()}
    assert {part["$ref"].rsplit("/", 1)[-1] for part in written["$defs"]["Up"]["oneOf"]} == names
    assert {name.lower() for name in names} == set(say._KINDS)


def references(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*(references(part) for part in node.values()))
    if isinstance(node, list):
        return set().union(*(references(part) for part in node))
    return set()


def test_the_schema_refers_only_to_what_it_defines() -> None:
    written = schema()
    assert references(written) <= {f"#/$defs/{name}" for name in written["$defs"]}
    assert written["$defs"]["Result"]["properties"]["moved"]["$ref"] == "#/$defs/PackedArray"


def test_printing_the_schema_loads_no_model_library() -> None:
    program = (
        "import runpy, sys; runpy.run_module('patchclamp.views.schema', run_name='__main__');"
        "print([m for m in ('torch', 'numpy', 'anywidget', 'transformers') if m in sys.modules],"
        "file=sys.stderr)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert ended.stderr.strip().endswith("[]")
    assert json.loads(ended.stdout) == schema()


def test_what_goes_down_holds_arrays_and_refuses_what_is_none() -> None:
    work = say.Work(blocks=1, positions=1, seconds=0.1, way="x")
    metric = say.BeforeAfter(before=0, after=1)
    moved = np.zeros(3, dtype=np.float32)
    assert say.Result(top=[], metric=metric, moved=moved, work=work).moved is moved
    with pytest.raises(ValueError, match="an array, not list"):
        say.Result(top=[], metric=metric, moved=[0.0], work=work)
    with pytest.raises(ValueError, match="finite"):
        say.BeforeAfter(before=float("nan"), after=0)
