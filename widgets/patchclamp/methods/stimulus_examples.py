"""A module's unit on stimuli: its value on each, at which place, and what that place sees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from patchclamp.corpora.sample_pictures import Pictures
from patchclamp.errors import InputError
from patchclamp.methods.example_groups import Scan, Survey, finite
from patchclamp.methods.receptive_field import ReceptiveField, receptive_field
from patchclamp.methods.text_examples import has_map

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from torch import Tensor

    from patchclamp.engine.module_engine import ModuleEngine
    from patchclamp.methods.objective import Objective
    from patchclamp.models.module_model import ModuleModel

    ShouldStop = Callable[[], bool]
    Stimuli: TypeAlias = Tensor | Sequence[Tensor] | Mapping[str, Tensor] | Pictures

_AT_ONCE = 2**20  # numbers of stimuli that are run at once: about 7 pictures of 224 x 224
_WIDE = 16  # times as many on a device that takes them side by side


@dataclass(frozen=True, eq=False)
class StimulusExample:
    """A stimulus with the unit's value at each of its places.

    Attributes:
        activation: the unit on it.
        source: which stimulus of the corpus; -1 for one that is in none.
        label: its name; may be empty.
        stimulus: Float[*shape], in the declared range.
        map: Float[*space], the unit at each place; without dimensions where it has none.
        peak: the place that the activation is of, or, of a mean over places, of the largest value;
            empty where there are none.
        seen: from where to where, in the stimulus' last dimensions, that place sees; empty where
            there are no places.
    """

    activation: float
    source: int
    label: str
    stimulus: Tensor
    map: Tensor
    peak: tuple[int, ...]
    seen: tuple[tuple[int, int], ...]

    @property
    def name(self) -> str:
        """What it is called: its label, or "stimulus 12"."""
        return self.label or (f"stimulus {self.source}" if self.source >= 0 else "")

    @property
    def crop(self) -> Tensor:
        """The part of the stimulus that the peak sees; all of it where there is no such part."""
        found = self.stimulus
        for axis, (begin, end) in enumerate(self.seen, found.ndim - len(self.seen)):
            found = found.narrow(axis, begin, end - begin)
        return found

    def row(self) -> dict[str, Any]:
        """Return what a table says of it beside its activation."""
        return {"source": self.source, "label": self.label, "peak": self.peak, "seen": self.seen}


def stimulus_examples(
    engine: ModuleEngine,
    objective: Objective,
    stimuli: Stimuli,
    survey: Survey | None = None,
    should_stop: ShouldStop | None = None,
) -> Generator[Scan, None, None]:
    """Measure a unit on every stimulus of a corpus. Runs on the model's worker.

    Holds the unit's map of each stimulus, 4 bytes a place.

    Args:
        engine: the model's.
        objective: the unit, one number a stimulus as it says.
        stimuli: Float[stimulus, *shape], or some Float[*shape], perhaps with names (the shipped
            pictures, say), in the declared range; free dimensions may differ.
        survey: how, and what is shown.
        should_stop: asked before every module.

    Yields:
        After each batch the same scan, with more in it.

    Raises:
        InputError: for an empty corpus, and stimuli that the model does not take.
        MetricError: when an activation is no finite number.
        Stopped: when ``should_stop`` said so; the scan that was yielded keeps what was measured.
    """
    survey = survey or Survey()
    named = stimuli_of(engine.model, stimuli)
    maps: dict[int, Tensor] = {}
    fields: dict[tuple[int, ...], ReceptiveField | None] = {}

    def make(context: int, place: int) -> StimulusExample:
        del place  # a stimulus has one activation
        label, stimulus = named[context]
        field = fields[tuple(stimulus.shape)]
        value = float(scan.found[context][0])
        return _example(objective, value, context, label, stimulus, maps[context], field)

    scan = Scan(
        unit=objective.text,
        of="stimuli",
        survey=survey,
        total=len(named),
        sources=len(named),
        make=make,
    )
    for batch in _batches(engine.model, [stimulus for _, stimulus in named]):
        given = torch.stack([named[at][1] for at in batch])
        shape = tuple(given.shape[1:])
        if shape not in fields:
            fields[shape] = _field(engine, objective, shape, should_stop)
        for at, value, places in zip(
            batch, *_measure(engine, objective, given, should_stop), strict=True
        ):
            maps[at] = places
            scan.add(at, value[None], f"{named[at][0] or f'stimulus {at}'} of the corpus")
        yield scan


def own_stimulus(
    engine: ModuleEngine,
    objective: Objective,
    stimulus: Tensor,
    label: str = "",
    should_stop: ShouldStop | None = None,
) -> StimulusExample:
    """Measure a unit on one stimulus. Runs on the model's worker.

    Args:
        engine: the model's.
        objective: the unit.
        stimulus: Float[*shape], in the declared range.
        label: what to call it.
        should_stop: asked before every module.

    Raises:
        InputError: when the model does not take it.
        MetricError: when the activation is no finite number.
        Stopped: when ``should_stop`` said so.
    """
    ((label, checked),) = stimuli_of(engine.model, {label: stimulus})
    value, places = _measure(engine, objective, checked[None], should_stop)
    found = finite(value, objective.text, label or "this stimulus")
    field = _field(engine, objective, tuple(checked.shape), should_stop)
    return _example(objective, float(found[0]), -1, label, checked, places[0], field)


def stimuli_of(model: ModuleModel, stimuli: Stimuli) -> list[tuple[str, Tensor]]:
    """Return each stimulus with its name, on the CPU.

    Raises:
        InputError: when there is none, or the model does not take one of them.
    """
    if isinstance(stimuli, Pictures):
        named = list(zip(stimuli.names, stimuli.stimuli, strict=True))
    elif isinstance(stimuli, Mapping):
        named = list(stimuli.items())
    else:
        named = [("", stimulus) for stimulus in stimuli]
    if not named:
        msg = "A corpus is a list of stimuli with at least one in it."
        raise InputError(msg)
    checked = []
    for at, (name, stimulus) in enumerate(named):
        try:
            sound = model.stimulus.check(stimulus)
            model.stimulus.check_shape(tuple(sound.shape))  # one, and not a batch of them
        except InputError as error:
            msg = f"{name or f'stimulus {at}'}: {error}"
            raise InputError(msg) from error
        checked.append((name, sound.detach().cpu()))
    return checked


# --- inside ---------------------------------------------------------------------------------------


def _measure(
    engine: ModuleEngine,
    objective: Objective,
    given: Tensor,
    should_stop: ShouldStop | None,
) -> tuple[Tensor, Tensor]:
    """Return Float[stimulus] values and Float[stimulus, *space] maps; [stimulus] without places."""
    with torch.no_grad():
        given = given.to(engine.model.device, engine.model.dtype)
        values = engine.run(given, objective.hooks, should_stop=should_stop).values
        value = objective.value(values)
        places = objective.map(values) if has_map(objective) else value
    return value.float().cpu(), places.float().cpu()


def _field(
    engine: ModuleEngine,
    objective: Objective,
    shape: tuple[int, ...],
    should_stop: ShouldStop | None,
) -> ReceptiveField | None:
    """Return the receptive field of the objective's parts; of several that of the last one."""
    if not has_map(objective):
        return None
    path = max(objective.hooks, key=engine.model.anatomy.depth)
    return receptive_field(engine, path, shape, should_stop=should_stop)


def _example(
    objective: Objective,
    value: float,
    source: int,
    label: str,
    stimulus: Tensor,
    places: Tensor,
    field: ReceptiveField | None,
) -> StimulusExample:
    peak: tuple[int, ...] = ()
    if places.ndim:
        flat = int(places.flatten().argmax())
        centre = all(getattr(term.unit, "how", "") == "centre" for term in objective.terms)
        # Where the activation is one place's, that place is meant.
        index = torch.unravel_index(torch.tensor(flat), places.shape)
        largest = tuple(int(axis) for axis in index)
        peak = tuple(count // 2 for count in places.shape) if centre else largest
    seen = () if field is None or not peak else field.at(peak)
    return StimulusExample(value, source, label, stimulus, places, peak, seen)


def _batches(model: ModuleModel, stimuli: Sequence[Tensor]) -> list[list[int]]:
    """Group stimuli of one shape, in the corpus' order otherwise."""
    numbers = _AT_ONCE * (1 if model.device.type == "cpu" else _WIDE)
    groups: dict[tuple[int, ...], list[list[int]]] = {}
    for at, stimulus in enumerate(stimuli):
        most = max(1, numbers // max(1, stimulus.numel()))
        batches = groups.setdefault(tuple(stimulus.shape), [[]])
        if len(batches[-1]) >= most:
            batches.append([])
        batches[-1].append(at)
    return sorted(batch for batches in groups.values() for batch in batches)
