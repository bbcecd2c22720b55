"""NeuronAtlas's scatter plot: how often a neuron fires against how special it is, by layer.

Altair's own widget, with Vega inside its bundle, so that nothing is fetched. What is brushed in it
sifts the table; what is found or chosen in the table is ringed in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .atlas_table import Brush

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import altair as alt
    import pandas as pd

NAME = "neurons"
MARKED = 200
"""Neurons that are ringed at most; the foremost of the table."""
_GREY = "#767676"  # 4.5:1 on white; on a dark page, the view's style sheet makes all of it lighter


def drawable(neurons: pd.DataFrame, matrix: str) -> bool:
    """Say whether the atlas holds both axes."""
    return "firing_rate" in neurons and f"{matrix}_score" in neurons


class AtlasChart:
    """The plot and its two links.

    Args:
        neurons: all of the atlas's.
        matrix: whose score is shown.
        brushed: told of what is brushed; of None when nothing is any more.

    Attributes:
        widget: what the page shows.
    """

    def __init__(
        self, neurons: pd.DataFrame, matrix: str, brushed: Callable[[Brush | None], None]
    ) -> None:
        import altair as alt

        alt.JupyterChart.enable_offline()
        self.matrix = matrix
        self._brushed = brushed
        self._points = points(neurons, matrix)
        self.widget: Any = alt.JupyterChart(
            # Tens of thousands of elements of an SVG would hold the page up; its menu would lead
            # to an editor on the web.
            scatter(matrix),
            debounce_wait=100,
            embed_options={"actions": False, "renderer": "canvas"},
        )
        self._fill()

    def mark(self, addresses: Sequence[str]) -> None:
        """Ring these neurons."""
        marked = list(addresses[:MARKED])
        if self.widget.params.marked != marked:
            self.widget.params.marked = marked

    def clear(self) -> None:
        """Take the brush away."""
        if self.widget.selections.brush.value:
            # A selection cannot be set from Python: the plot is made anew.
            self.widget.chart = scatter(self.matrix)
            self._fill()

    def png(self) -> np.ndarray:
        """Draw it as a PNG file, for a page without a kernel: uint8[byte]."""
        import vl_convert

        drawn: bytes = vl_convert.vegalite_to_png(self.widget.spec)
        return np.frombuffer(drawn, dtype=np.uint8)

    def _fill(self) -> None:
        """Put the points in past Altair, which would check each of them for half a minute."""
        self.widget.spec = {**self.widget.spec, "datasets": {NAME: self._points}}
        self.widget.selections.observe(self._moved, ["brush"])

    def _moved(self, change: dict[str, Any]) -> None:
        value = change["new"].value or {}
        if "firing" in value and "score" in value:
            firing, score = (sorted(map(float, value[name])) for name in ("firing", "score"))
            self._brushed(Brush((firing[0], firing[1]), (score[0], score[1])))
        else:
            self._brushed(None)

    def close(self) -> None:
        """Take it out of the notebook."""
        self.widget.close()


def points(neurons: pd.DataFrame, matrix: str) -> list[dict[str, Any]]:
    """Return what is drawn; a neuron whose numbers are not known is left out."""
    firing = neurons["firing_rate"].to_numpy(dtype=float)
    score = neurons[f"{matrix}_score"].to_numpy(dtype=float)
    token = neurons[f"{matrix}_token"].to_numpy()
    return [
        {"a": a, "firing": round(f, 5), "score": round(s, 2), "layer": n, "token": _printable(t)}
        for a, f, s, n, t in zip(
            neurons["address"], firing, score, neurons["layer"].tolist(), token, strict=True
        )
        if np.isfinite(f) and np.isfinite(s)
    ]


def _printable(text: str) -> str:
    """A token as text that any renderer takes."""
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text)


def scatter(matrix: str) -> alt.LayerChart:
    """Return the chart, with the parameters ``brush`` (an interval) and ``marked`` (addresses).

    Its points are the dataset :data:`NAME`, which is put in later.
    """
    import altair as alt

    marked = alt.param(name="marked", value=[])
    brush = alt.selection_interval(name="brush", encodings=["x", "y"])
    base = alt.Chart(alt.NamedData(name=NAME)).encode(
        x=alt.X("firing:Q", title="firing rate", axis=alt.Axis(format="%")),
        y=alt.Y("score:Q", title=f"specialness of {matrix} (standard deviations)"),
    )
    dots = base.mark_point(filled=True, size=9, opacity=0.5).encode(
        color=alt.condition(
            brush,
            alt.Color(
                "layer:Q",
                scale=alt.Scale(scheme="viridis"),
                legend=alt.Legend(title="layer", orient="top", gradientLength=160),
            ),
            alt.value("#88888855"),
        ),
        tooltip=[
            alt.Tooltip("a:N", title="neuron"),
            alt.Tooltip("token:N", title="foremost token"),
            alt.Tooltip("firing:Q", title="firing rate", format=".2%"),
            alt.Tooltip("score:Q", title="specialness"),
        ],
    )
    rings = base.mark_point(
        filled=False, size=70, strokeWidth=1.5, color="#d55e00"
    ).transform_filter("indexof(marked, datum.a) >= 0")
    chart = alt.layer(dots.add_params(brush, marked), rings).properties(width=360, height=230)
    made: Any = (
        chart.configure(background="transparent")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor=_GREY,
            titleColor=_GREY,
            gridColor="#88888833",
            domainColor=_GREY,
            tickColor=_GREY,
            titleFontWeight="normal",
        )
        .configure_legend(labelColor=_GREY, titleColor=_GREY, titleFontWeight="normal")
    )
    found: alt.LayerChart = made
    return found
