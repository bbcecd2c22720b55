"""Most discriminative stimuli: units in clusters, and for each a stimulus of its own."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from patchclamp.errors import InputError, PatchclampError, Stopped
from patchclamp.methods.discriminative_stimuli import Search, State, discriminate, responses_of
from patchclamp.methods.objective import objective

from . import aims, rows
from . import messages as say
from .aim_view import AimView
from .messages import MaximizerMode, MessageError
from .stimulus_pictures import picture
from .view import ShouldStop

if TYPE_CHECKING:
    import pandas as pd


@dataclass(eq=False)
class Clustering:
    """One search for clusters.

    Attributes:
        units: their addresses.
        search: how.
        state: the last one; None before the first.
        status: how it stands.
        note: what a reader must know.
    """

    units: tuple[str, ...]
    search: Search
    state: State | None = None
    status: Literal["running", "stopped", "failed", "done"] = "running"
    note: str = ""

    @property
    def rounds(self) -> int:
        """How many rounds there are at most."""
        return 2 * self.search.rounds + self.search.reconsider


class DiscriminateView(AimView):
    """The part of ActivationMaximizer that is about many units at once."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._clustering: Clustering | None = None
        super().__init__(*args, **options)

    # --- the same gestures, from Python -----------------------------------------------------------

    def discriminate(
        self, *units: str, clusters: int = 8, wait: bool = True, **options: Any
    ) -> "pd.DataFrame":
        """Put units into clusters, and find one stimulus for each that the others do not answer to.

        Args:
            *units: addresses; a part alone (``"cell"``) stands for all of its channels.
            clusters: how many there are at first, about twice as many as are expected.
            wait: for its end; an interrupt or a Stop keeps what there is.
            **options: of :class:`~patchclamp.methods.discriminative_stimuli.Search`.

        Returns:
            `clusters`, as it is by then.

        Raises:
            ModelError: when the model takes no stimulus.
            AddressError: when there is no such unit.
            InputError: when there are fewer units than clusters, or the input has no range.
        """
        self._module_session()
        self._cluster(units, Search(clusters=clusters, **options), wait=wait)
        return self.clusters

    @property
    def clusters(self) -> "pd.DataFrame":
        """The units in their clusters, one a row: unit, cluster, response (to its stimulus).

        Responses are shares of the largest that the unit gave to any stimulus.
        """
        import pandas as pd

        lines: list[list[object]] = []
        found = self._clustering
        if found is not None and found.state is not None:
            state = found.state
            lines = [
                [unit, int(label), float(state.responses[label, at])]
                for at, (unit, label) in enumerate(zip(found.units, state.labels, strict=True))
            ]
        return pd.DataFrame(lines, columns=["unit", "cluster", "response"])

    # --- gestures from the page -------------------------------------------------------------------

    def _on_discriminate(self, message: say.Discriminate) -> None:
        refusal = self._refusals()["discriminate"]
        if refusal is not None:
            raise MessageError(refusal, field="kind")
        search = Search(clusters=message.clusters, seed=message.seed)
        with rows.about("units"):
            self._cluster(message.units, search, wait=False)

    # --- clustering -------------------------------------------------------------------------------

    def _cluster(self, units: Sequence[str], search: Search, *, wait: bool) -> None:
        session = self._module_session()
        addresses = aims.expand_units(session.model, units)
        if len(addresses) < search.clusters:
            msg = f"{len(addresses)} units are fewer than {search.clusters} clusters: name more."
            raise InputError(msg)
        targets = [objective(session.model, address) for address in addresses]
        respond = responses_of(session.engine, targets)
        found = self._clustering = Clustering(tuple(addresses), search)
        self._stop_tasks(lambda name: name == "discriminate")

        def job(should_stop: ShouldStop) -> Generator[None, None, None]:
            stimulus = session.model.stimulus
            for state in discriminate(respond, stimulus, search, should_stop=should_stop):
                found.state, found.note = state, state.what
                self._push_clusters(found)
                progress = say.Progress(job="discriminate", done=state.round, total=found.rounds)
                self._push(("progress", "discriminate"), progress)
                yield

        def ended(error: PatchclampError | None) -> None:
            if error is None:
                found.status = "done"
            else:
                stopped = isinstance(error, Stopped)
                found.status = "stopped" if stopped else "failed"
                found.note = "It was stopped." if stopped else str(error)
            self._push_clusters(found, always=True)
            if found.status == "failed":
                self._say_error(PatchclampError(found.note), self._session.revision)

        self._push_clusters(found, always=True)
        try:
            self._run("discriminate", "finding stimuli for clusters", job, ended, wait=wait)
        except KeyboardInterrupt:
            self._say_interrupted()
            raise

    def _load_stimulus(self, index: int) -> str:
        """Put the stimulus of a cluster into the session.

        Raises:
            InputError: when there is none.
        """
        found = self._clustering
        if found is None or found.state is None or not 0 <= index < found.state.clusters:
            msg = f"There is no stimulus {index}."
            raise InputError(msg)
        name = f"stimulus of cluster {index + 1}"
        self._module_session().set_input(found.state.stimuli[index], name=name)
        return name

    def _refusals(self) -> dict[MaximizerMode, str | None]:
        found = super()._refusals()
        module = self._module
        if module is not None and not module.model.stimulus.bounded:
            found["discriminate"] = (
                "Stimuli are kept within a range of values, and this input declares none."
            )
        return found

    # --- what there is to draw --------------------------------------------------------------------

    def _push_clusters(self, found: Clustering, *, always: bool = False) -> None:
        ours = found is self._clustering and self._shown
        if ours and self._now_and_then("discrimination", always=always):
            update = say.DiscriminationUpdate(discrimination=self._clusters_message())
            self._push("discrimination", update)

    def _clusters_message(self) -> say.Discrimination | None:
        found = self._clustering
        if found is None:
            return None
        state = found.state
        empty = np.zeros(0, dtype=np.float32)
        stimulus = self._module_session().model.stimulus
        return say.Discrimination(
            units=list(found.units),
            clusters=0 if state is None else state.clusters,
            labels=empty.astype(np.int32) if state is None else _labels(state),
            responses=empty if state is None else state.responses.float().cpu().numpy(),
            stimuli=[] if state is None else [picture(stimulus, one) for one in state.stimuli],
            value=None if state is None else state.objective,
            iteration=0 if state is None else state.round,
            iterations=found.rounds,
            status=found.status,
            note=found.note,
        )


def _labels(state: State) -> Any:
    return state.labels.cpu().numpy().astype(np.int32)
