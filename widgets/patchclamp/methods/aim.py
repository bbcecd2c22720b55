"""What a session maximises and how, which undo and the session's file bring back.

It is declared, never measured.
Every view that searches for inputs (see :mod:`patchclamp.methods.feature_visualization` and
:mod:`patchclamp.methods.epo`) reads it from the session: two views of one session have one aim.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from patchclamp.errors import InputError
from patchclamp.methods.epo import Evolution
from patchclamp.methods.feature_visualization import Climb
from patchclamp.methods.objective import Channel, Neuron, Objective

if TYPE_CHECKING:
    from collections.abc import Mapping

    from patchclamp.methods.objective import Model

OptionsT = TypeVar("OptionsT")


@dataclass(frozen=True)
class Drawing:
    """How pictures are optimised, from the next start on.

    Attributes:
        steps: of the optimiser.
        size: of every free dimension of the stimulus; None for the declared one.
        seed: of the start and of the transformations.
        parameterization: "fourier" or "pixel".
        transforms: how a picture is moved before each step: "crops" shows squares of many sizes
            under noise, "lucid" jitters, scales and turns it a little, "none" leaves it.
        decay: how fast the weight of a frequency falls; 1 is 1 / f. Of "fourier".
        rate: of Adam.
        l2: how much the squared distance from the middle of the range costs.
        tv: how much total variation costs.
        blur: how much the picture is blurred between steps.
        start: "noise", or "input" for the session's input.
        norm: holds the stimulus within this L2 distance of the middle of its range; None for none.
    """

    steps: int = 256
    size: int | None = None
    seed: int = 0
    parameterization: Literal["fourier", "pixel"] = "fourier"
    transforms: Literal["crops", "lucid", "none"] = "crops"
    decay: float = 1.25
    rate: float = 0.05
    l2: float = 0.0
    tv: float = 0.0
    blur: float = 0.0
    start: Literal["noise", "input"] = "noise"
    norm: float | None = None

    def climb(self) -> Climb:
        """Return the options of the optimisation itself.

        Raises:
            InputError: when one has no such value.
        """
        return Climb(
            steps=self.steps,
            size=self.size,
            seed=self.seed,
            parameterization=self.parameterization,
            transforms=self.transforms,
            decay=self.decay,
            rate=self.rate,
            l2=self.l2,
            tv=self.tv,
            blur=self.blur,
        )


@dataclass(frozen=True)
class Dreaming(Evolution):
    """How prompts are searched for, from the next start on.

    Attributes:
        start: "random" tokens, or "examples" for what leads up to the unit's peaks in a corpus; a
            greedy search begins with the first of these.
    """

    start: Literal["random", "examples"] = "random"

    def check(self) -> None:
        """Say what cannot be.

        Raises:
            InputError: when a number is out of its range, or the start has another name.
        """
        super().check()
        if self.start not in {"random", "examples"}:
            msg = f"A search starts from 'random' tokens or from 'examples', not {self.start!r}."
            raise InputError(msg)


@dataclass(frozen=True)
class Aim:
    """What is maximised, and how.

    Attributes:
        objective: None until a unit was chosen.
        drawing: how pictures are optimised.
        dreaming: how prompts are searched for.
    """

    objective: Objective | None = None
    drawing: Drawing = field(default_factory=Drawing)
    dreaming: Dreaming = field(default_factory=Dreaming)

    @property
    def text(self) -> str:
        """What is maximised, in words; empty where nothing is."""
        return "" if self.objective is None else self.objective.text

    @property
    def is_function(self) -> bool:
        """Whether it is a Python function, which no page and no file can hold."""
        return self.objective is not None and any(
            not isinstance(term.unit, Channel | Neuron) for term in self.objective.terms
        )

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON; :meth:`from_json` reads it.

        Raises:
            InputError: when a Python function is maximised.
        """
        if self.is_function:
            msg = (
                f"What is maximised, {self.text}, has a Python function in it, which no file can "
                "hold: aim at a unit, or session.set_aim(None), before saving, and at the function "
                "again after loading."
            )
            raise InputError(msg)
        return {
            "objective": None if self.objective is None else self.objective.to_json(),
            "drawing": asdict(self.drawing),
            "dreaming": asdict(self.dreaming),
        }

    @classmethod
    def from_json(cls, model: Model, data: Mapping[str, Any]) -> Aim:
        """Read what :meth:`to_json` wrote, and check that the model has it.

        Raises:
            AddressError: when the model lacks a unit.
            InputError: when this is no aim.
        """
        try:
            units = data["objective"]
            drawing = _options(Drawing, data["drawing"])
            dreaming = _options(Dreaming, data["dreaming"])
            drawing.climb()
            dreaming.check()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            msg = f"This is no aim ({type(error).__name__}: {error})."
            raise InputError(msg) from error
        objective = None if units is None else Objective.from_json(model, units)
        return cls(objective, drawing, dreaming)


def _options(kind: type[OptionsT], data: Mapping[str, Any]) -> OptionsT:
    """Read options; one that an older file lacks is the usual one."""
    # Only dataclasses come here, which a type variable cannot say.
    names = {each.name for each in fields(kind)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - names)
    if unknown:
        msg = f"there is no option {unknown[0]!r}"
        raise ValueError(msg)
    # JSON has no tuples.
    given = {
        name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
    }
    return kind(**given)
