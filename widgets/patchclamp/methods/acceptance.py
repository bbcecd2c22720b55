"""A claim as a row of a table: what was measured, what it had to be, what the control did.

A recipe fixes its thresholds before it measures, or says that it did not, and shows a claim that
does not hold as not held.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from patchclamp.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DIGITS = 3


@dataclass(frozen=True)
class Row:
    """One claim.

    Attributes:
        claim: in words.
        value: what was measured.
        at_least: what it had to be for the claim to hold.
        control: what the control gave: its worst case for the claim.
        control_below: what the control had to stay below.
        unit: of all four numbers.

    >>> Row("the heads matter", 5.2, 0.5, 0.41, 1.3, "nats").met
    True
    >>> Row("the heads matter", 5.2, 0.5, 1.4, 1.3, "nats").met
    False
    """

    claim: str
    value: float
    at_least: float
    control: float
    control_below: float
    unit: str

    @property
    def met(self) -> bool:
        """Whether the claim holds; it does not where a number is missing (NaN)."""
        return self.value >= self.at_least and self.control < self.control_below

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON, rounded: the last digits are the machine's."""
        return {
            "claim": self.claim,
            "value": round(self.value, DIGITS),
            "at_least": round(self.at_least, DIGITS),
            "control": round(self.control, DIGITS),
            "control_below": round(self.control_below, DIGITS),
            "unit": self.unit,
            "met": self.met,
        }


def table(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Return rows as words, for a DataFrame or a page.

    >>> table([Row("the heads matter", 5.2, 0.5, 1.4, 1.3, "nats")])[0]["control"]
    '1.400 (had to be < 1.300)'
    """
    return [
        {
            "claim": row.claim,
            f"value ({row.unit})": f"{row.value:.{DIGITS}f}",
            "threshold": f">= {row.at_least:.{DIGITS}f}",
            "control": f"{row.control:.{DIGITS}f} (had to be < {row.control_below:.{DIGITS}f})",
            "met": "yes" if row.met else "no",
        }
        for row in rows
    ]


def write(path: Path, rows: Sequence[Row], **about: Any) -> None:
    """Write rows to a JSON file, from which the recipes' README is made.

    Args:
        path: such as `results/guide-induction-heads.json`; its folder is made.
        rows: the claims.
        about: what else belongs to the numbers, such as seeds; anything that goes to JSON.

    Raises:
        InputError: when there are no rows.
    """
    if not rows:
        msg = "There is nothing to write: a recipe's results have at least one claim."
        raise InputError(msg)
    data = {**about, "rows": [row.to_json() for row in rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, indent=1, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
