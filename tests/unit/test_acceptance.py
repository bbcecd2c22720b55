"""Claims as rows: held only where both numbers say so, and written as they are."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING

import pytest

from patchclamp.errors import InputError
from patchclamp.methods import acceptance
from patchclamp.methods.acceptance import Row

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("value", "control", "met"),
    [
        (0.5, 0.1, True),
        (0.49, 0.1, False),
        (2.0, 0.2, False),
        (math.nan, 0.1, False),
        (2.0, math.nan, False),
    ],
)
def test_a_claim_is_held_only_with_its_control(value: float, control: float, met: bool) -> None:
    row = Row("it works", value, 0.5, control, 0.2, "nats")
    assert row.met is met
    assert row.to_json()["met"] is met
    assert acceptance.table([row])[0]["met"] == ("yes" if met else "no")


def test_rows_are_written_rounded_with_what_belongs_to_them(tmp_path: Path) -> None:
    path = tmp_path / "results" / "a.json"
    acceptance.write(path, [Row("it “works”", 0.123456, 0.1, -0.5, 0.2, "nats")], seed=3)
    assert json.loads(path.read_text(encoding="utf-8")) == {
        "seed": 3,
        "rows": [
            {
                "claim": "it “works”",
                "value": 0.123,
                "at_least": 0.1,
                "control": -0.5,
                "control_below": 0.2,
                "unit": "nats",
                "met": True,
            }
        ],
    }


def test_a_recipe_without_claims_has_nothing_to_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="at least one claim"):
        acceptance.write(tmp_path / "a.json", [])
    assert not list(tmp_path.iterdir())
