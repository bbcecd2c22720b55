"""What was measured of components, as the messages that a page draws and as tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from patchclamp.methods.activation_patching import Patched
from patchclamp.methods.interaction import Interaction
from patchclamp.sites import Site

from . import messages as say
from .messages import Replacement

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray
    from torch import Tensor

    from patchclamp.engine.batch import Cost
    from patchclamp.methods.ablation import ComponentEffects, Parts


def floats(values: "Tensor") -> "NDArray[np.float32]":
    """A tensor as it travels."""
    found: NDArray[np.float32] = values.detach().cpu().float().numpy()
    return found


def cost_in_words(cost: "Cost", n_pairs: int) -> str:
    """What a sweep takes, before it begins."""
    pairs = "" if n_pairs == 1 else f" of all {n_pairs} prompts"
    pieces = "in one piece" if cost.chunks == 1 else f"in {cost.chunks:,} pieces"
    size = max(1, round(cost.nbytes / 2**20))
    return (
        f"Exact values take about as long as {max(1, round(cost.passes)):,} whole passes{pairs}, "
        f"{pieces} of up to {size:,} MiB."
    )


@dataclass(frozen=True, eq=False)
class Effects:
    """Effects of all components under one replacement, as far as they are measured.

    Attributes:
        how: what is put in a component's place.
        baseline: the metric without that.
        estimate: Float32[layer, column]; NaN where there is none.
        exact: Float32[layer, column]; NaN where it is not measured yet.
        done: how many are exact.
        total: how many components there are.
        pairs: how many prompt pairs effects are averaged over.
        note: what it costs, or why there is no estimate.
    """

    how: Replacement
    baseline: float
    estimate: "NDArray[np.float32]"
    exact: "NDArray[np.float32]"
    done: int
    total: int
    pairs: int
    note: str

    @property
    def whole(self) -> bool:
        """Whether nothing is left to measure."""
        return self.done == self.total

    def with_exact(self, found: "ComponentEffects") -> "Effects":
        """The same with what is measured now; what was measured before stays."""
        exact = floats(found.values)
        exact = np.where(np.isnan(exact), self.exact, exact)
        return Effects(
            self.how,
            found.baseline,
            self.estimate,
            exact,
            max(found.done, self.done),
            found.total,
            self.pairs,
            self.note,
        )

    def message(self, revision: int) -> say.EffectMap:
        """For the page."""
        return say.EffectMap(
            revision=revision,
            how=self.how,
            baseline=self.baseline,
            estimate=self.estimate,
            exact=self.exact,
            done=self.done,
            total=self.total,
            pairs=self.pairs,
            note=self.note,
        )

    def frame(self, sites: Mapping[tuple[int, int], Site]) -> "pd.DataFrame":
        """One component a row, those with the largest effect first."""
        import pandas as pd

        found = pd.DataFrame(
            [
                {
                    "address": str(site),
                    "layer": layer,
                    "component": str(site).partition(".")[2],
                    "estimate": float(self.estimate[layer, column]),
                    "exact": float(self.exact[layer, column]),
                    "intervened": self.baseline + float(self.exact[layer, column]),
                    "baseline": self.baseline,
                }
                for (layer, column), site in sites.items()
            ]
        )
        size = found["exact"].fillna(found["estimate"]).abs()
        order = size.sort_values(ascending=False, kind="stable", na_position="last").index
        return found.loc[order].reset_index(drop=True)


@dataclass(frozen=True, eq=False)
class Patching:
    """Patching as far as it is measured.

    Attributes:
        found: what is measured.
        pairs: how many prompt pairs it is averaged over.
        note: what it costs.
    """

    found: Patched
    pairs: int
    note: str

    @property
    def whole(self) -> bool:
        """Whether nothing is left to measure."""
        return self.found.done == self.found.total

    def message(self, revision: int, tokens: Sequence[str]) -> say.PatchingMap:
        """For the page; `tokens` are the prompt's that is shown."""
        found = self.found
        _, n_columns = found.values.shape
        columns = [str(position) for position in range(n_columns)]  # of a prompt that is no more
        if found.over == "head":
            columns = [f"H{head}" for head in range(n_columns)]
        elif len(tokens) == n_columns:
            columns = list(tokens)
        return say.PatchingMap(
            revision=revision,
            direction=found.direction,
            over=found.over,
            columns=columns,
            clean=found.clean,
            corrupt=found.corrupt,
            values=floats(found.values),
            done=found.done,
            total=found.total,
            pairs=self.pairs,
            note=self.note,
        )


def patching_frame(found: Patched, tokens: Sequence[str]) -> "pd.DataFrame":
    """One patched activation a row."""
    import pandas as pd

    values = floats(found.values)
    lines: list[dict[str, Any]] = []
    for layer, column in np.ndindex(*values.shape):
        if found.over == "head":
            where: dict[str, Any] = {"address": f"L{layer}.H{column}", "layer": layer}
            where["head"] = column
        else:
            where = {"address": f"L{layer}.{found.over}@{column}", "layer": layer}
            where |= {"position": column, "token": tokens[column]}
        level = float(values[layer, column])
        lines.append(where | {"value": level, "clean": found.clean, "corrupt": found.corrupt})
    return pd.DataFrame(lines)


def drilled(found: "Parts", tokens: Sequence[str]) -> say.DrillBody:
    """What is in a component, for the page."""
    return say.DrillBody(
        address=found.address,
        how=found.how,
        parts=list(found.parts),
        part_effects=np.asarray(list(found.parts.values()), dtype=np.float32),
        positions=list(tokens),
        position_effects=floats(found.positions),
        neurons=[
            say.NeuronEffect(address=n.address, estimate=n.estimate, exact=n.exact)
            for n in found.neurons
        ],
        total=found.total,
        note=found.note,
    )


def drilled_frame(found: "Parts") -> "pd.DataFrame":
    """One part, neuron or position a row: address, estimate, exact, intervened, baseline."""
    import pandas as pd

    lines: list[tuple[str, float | None, float]] = [
        (found.address if part == "z" else f"{found.address}:{part}", None, effect)
        for part, effect in found.parts.items()
    ]
    lines += [(neuron.address, neuron.estimate, neuron.exact) for neuron in found.neurons]
    lines += [
        (f"{found.address}@{position}", None, effect)
        for position, effect in enumerate(found.positions.tolist())
    ]
    table = pd.DataFrame(lines, columns=["address", "estimate", "exact"])
    table["intervened"] = found.baseline + table["exact"]
    table["baseline"] = found.baseline
    return table.astype({"estimate": float})


def interacting(found: Interaction, a: Sequence[str], b: Sequence[str]) -> say.InteractBody:
    """An interaction, for the page."""
    return say.InteractBody(
        a=list(a),
        b=list(b),
        effect_a=found.effect_a,
        effect_b=found.effect_b,
        both=found.both,
        interaction=found.interaction,
        control=found.control,
        seeds=found.seeds,
        note=found.note,
    )
