"""NeuronAtlas's card: all about one neuron, put together from the atlas and from the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from patchclamp.errors import AtlasError
from patchclamp.methods.neighbours import Near, feeds, writes_like
from patchclamp.methods.neuron_statistics import ERROR
from patchclamp.sites import Site

from . import messages as say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from patchclamp.atlas.atlas import Atlas
    from patchclamp.models.language_model import LanguageModel

    from .atlas_table import Table

NEIGHBOURS = 8
LABELS = 6
BINS = 48
_QUANTILES = ("q01", "q10", "q50", "q90", "q99")


def card(atlas: Atlas, model: LanguageModel, table: Table, place: int) -> say.Card:
    """Put a neuron's card together; reads weights and files, runs no model.

    Args:
        atlas: where its row is.
        model: whose neuron it is.
        table: what the row is shown in.
        place: which of the atlas's neurons.
    """
    row = table.row(place)
    site = Site.parse(row.address)
    assert site.layer is not None  # noqa: S101 (a neuron's address)
    assert site.index is not None  # noqa: S101
    there = atlas.tables
    fires: list[Near] = []
    lost = ""
    if "examples" in there:
        try:
            fires = atlas.fires_like(row.address, NEIGHBOURS)
        except AtlasError as error:  # a file is gone: the rest of the card is there
            lost = str(error)
    return say.Card(
        row=row,
        decoded=_decoded(atlas, row.address) if "decoded" in there else [],
        histogram=_histogram(atlas, row.address, place) if "sketches" in there else None,
        examples=_examples(atlas, row.address) if "examples" in there else [],
        writes_like=_near(table, writes_like(model, site.layer, site.index, NEIGHBOURS)),
        fires_like=_near(table, fires),
        feeds=_near(table, feeds(model, site.layer, site.index, NEIGHBOURS)),
        labels=_labels(atlas, site.layer, site.index) if "labels" in there else [],
        note=" ".join(filter(None, (_note(row), lost))),
    )


def _decoded(atlas: Atlas, address: str) -> list[say.DecodedSide]:
    sides: dict[tuple[str, int], list[say.DecodedToken]] = {}
    for found in atlas.decoded(address).to_dict("records"):
        sides.setdefault((str(found["matrix"]), int(found["sign"])), []).append(
            say.DecodedToken(id=int(found["token"]), text=str(found["text"]), z=float(found["z"]))
        )
    return [
        say.DecodedSide(matrix=matrix, sign=1 if sign > 0 else -1, tokens=tokens)  # type: ignore[arg-type] # one of the three
        for (matrix, sign), tokens in sides.items()
    ]


def _histogram(atlas: Atlas, address: str, place: int) -> say.Histogram:
    """The sketch's bins, which grow with the value, as bars of one width."""
    found = atlas.histogram(address)
    values, counts = (found[name].to_numpy(dtype=float) for name in ("value", "count"))
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    bars, edges = np.histogram(values, bins=BINS, range=(low, high), weights=counts)
    row = atlas.neurons.iloc[place]
    return say.Histogram(
        edges=edges.astype(np.float32),
        counts=bars.astype(np.float32),
        quantiles=[float(row[name]) for name in _QUANTILES],
        error=ERROR,
    )


def _examples(atlas: Atlas, address: str) -> list[say.AtlasExample]:
    found = atlas.examples(address)
    # The top first, then from the highest group down.
    order = {"top": 0} | {name: n for n, name in enumerate(_groups(), start=1)}
    records = sorted(
        found.to_dict("records"), key=lambda each: (order[str(each["group"])], int(each["rank"]))
    )
    return [
        say.AtlasExample(
            group=str(each["group"]),
            value=float(each["value"]),
            place=int(each["place"]),
            before=str(each["before"]),
            token=str(each["token"]),
            after=str(each["after"]),
        )
        for each in records
    ]


def _groups() -> Sequence[str]:
    from patchclamp.atlas.tables import GROUPS

    return tuple(GROUPS)


def _labels(atlas: Atlas, layer: int, index: int) -> list[say.Neighbour]:
    found = atlas.query(
        "SELECT label, average_precision AS value FROM labels "
        "WHERE layer = $layer AND index = $index ORDER BY value DESC LIMIT $count",
        layer=layer,
        index=index,
        count=LABELS,
    )
    return [
        say.Neighbour(address=str(each["label"]), value=float(each["value"]), token="")
        for each in found.to_dict("records")
    ]


def _near(table: Table, found: Sequence[Near]) -> list[say.Neighbour]:
    return [
        say.Neighbour(address=near.address, value=near.value, token=_token(table, near.address))
        for near in found
    ]


def _token(table: Table, address: str) -> str:
    place = table.place(address.split(":", maxsplit=1)[0])
    return "" if place is None else table.row(place).token


def _note(row: say.AtlasRow) -> str:
    if not row.massive:
        return ""
    return (
        "A massive-activation neuron: it carries the model whatever it reads, and touching it "
        "wrecks every task. Rankings and random controls leave it out."
    )
