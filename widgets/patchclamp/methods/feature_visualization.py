"""Feature visualization: a stimulus that a unit answers to most, by gradient ascent.

An :class:`Optimization` climbs: each step draws a batch of stimuli from its parameters, moves
images a little (``transformations``), runs the model up to the last part that the objective reads,
and takes a step of Adam (Kingma and Ba 2015) up the gradient of

    value - |value| (l2 L2 + tv TV + blur B + diversity D)

for each item of the batch, with the regularisers of ``regularizers``: a weight of 0.1 is worth a
tenth of the value for each unit of its term, whatever the scale of the unit. An image is written as
waves of uncorrelated colours (``image_parameterization``), everything else as its own numbers.

Source: Olah, Mordvintsev and Schubert, "Feature Visualization" (Distill, 2017): the
parameterisation, Adam with a rate of 0.05, and diversity, in the sizes that were published with it.
Two defaults are others, because with the published ones pictures of newer networks are mostly fine
pattern: images are seen in *crops* of many sizes under noise (``transformations``), and the weight
of a frequency falls faster than 1 / f (``image_parameterization``). The published recipe is
``Climb(transforms="lucid", decay=1)``.

*Dead starts.* A unit whose value is flat where the ascent starts (a ReLU or ReLU6 that is shut at
every place) has a gradient of exactly 0, and plain ascent would never leave its grey start. This
is looked for in every step and item. Such an item climbs through a leaky gradient
(``leaky_gradient``), which is that of the pre-activation, until it is alive and :data:`WARM` steps
on, so that more than one place opens. If it is not alive after :data:`ASLEEP` steps, or has no
gradient there either, :data:`STARTS` other starts with stronger and stronger contrast are tried,
and the one that the unit answers to most is taken; if it answers to none, the ascent ends with a
sentence. ``note`` says what was done.

*The same seed gives the same frames*, bit for bit, on the same machine with the same number of
threads: everything random is drawn from a generator of the optimisation's own.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NoReturn, get_args

import torch

from patchclamp.engine.module_engine import ModuleEngine
from patchclamp.errors import InputError, ModelError
from patchclamp.methods import regularizers
from patchclamp.methods.frames import BUDGET, Curve, History
from patchclamp.methods.image_parameterization import Fourier, Name, Pixels
from patchclamp.methods.leaky_gradient import LeakyGradient
from patchclamp.methods.transformations import Crops, Lucid, moved
from patchclamp.methods.transformations import Name as Moves

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from torch import Tensor

    from patchclamp.methods.image_parameterization import Parameterization
    from patchclamp.methods.objective import Objective
    from patchclamp.models.module_model import ModuleModel

    ShouldStop = Callable[[], bool]

ASLEEP = 64
"""Steps that a dead unit climbs through a leaky gradient before other starts are tried."""

WARM = 32
"""Steps that it goes on through a leaky gradient once it is alive, so that more of it opens."""

STARTS = 24
"""Other starts that are tried for a unit that stays dead."""

_CONTRASTS = (3.0, 10.0, 30.0, 100.0)


@dataclass(frozen=True)
class Climb:
    """How to climb.

    Attributes:
        steps: how many steps, where nobody stops it.
        size: pixels (samples) of each dimension that the model leaves free; None for what the
            model's stimulus says.
        seed: of the start and of how images are moved.
        parameterization: "fourier" or "pixel"; of no meaning for what is no image.
        transforms: how images are moved before each step: "crops", "lucid" or "none".
        decay: how fast the weight of a frequency falls; 1 is the published 1 / f. Of "fourier".
        rate: Adam's.
        l2: weight of the distance from the middle of the range.
        tv: weight of total variation; 1 to 3 makes pictures of classes smoother, which are still
            recognised when they are shown larger.
        blur: weight of fine detail.
        diversity: weight of sameness within a batch.
        batch: how many stimuli are optimised at once.
    """

    steps: int = 256
    size: int | None = None
    seed: int = 0
    parameterization: Name = "fourier"
    transforms: Moves = "crops"
    decay: float = 1.25
    rate: float = 0.05
    l2: float = 0.0
    tv: float = 0.0
    blur: float = 0.0
    diversity: float = 0.0
    batch: int = 1

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("batch", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                msg = f"{name} is a whole number from {least} on, not {value!r}."
                raise InputError(msg)
        if self.seed >= 2**63:
            msg = f"A seed is less than 2**63, not {self.seed}."
            raise InputError(msg)
        if self.parameterization not in {"fourier", "pixel"}:
            msg = f"An image is parameterised as fourier or pixel, not {self.parameterization!r}."
            raise InputError(msg)
        if self.transforms not in get_args(Moves):
            msg = f"Images are moved as {', '.join(get_args(Moves))}, not {self.transforms!r}."
            raise InputError(msg)
        for name in ("rate", "decay", "l2", "tv", "blur", "diversity"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0 or (name == "rate" and value == 0):
                wanted = "positive" if name == "rate" else "0 or more"
                msg = f"{name} is a number that is {wanted}, not {value}."
                raise InputError(msg)


@dataclass(frozen=True, eq=False)
class Step:
    """What one step saw.

    Attributes:
        step: which one, from 0.
        value: the mean of the batch.
        values: Float[batch], the objective's value for each item, without regularisers, as the step
            saw it: moved and under noise, and so another one at every step. What the frames
            themselves have is measured by :meth:`Optimization.settle`.
    """

    step: int
    value: float
    values: Tensor


@dataclass(frozen=True, eq=False)
class Best:
    """The frame with the highest mean value so far.

    Attributes:
        step: where it was seen.
        value: its value, of the batch's mean.
        frame: Float[batch, *shape], in the declared range.
    """

    step: int
    value: float
    frame: Tensor


@dataclass(frozen=True, eq=False)
class _Move:
    """How the images of a step are moved.

    Attributes:
        matrices: Float[batch, 2, 3], see `transformations`.
        window: height and width of what the model sees.
        noise: Float[batch, channel, *window], what is added to it.
    """

    matrices: Tensor
    window: tuple[int, int]
    noise: Tensor | None = None


@dataclass(frozen=True, eq=False)
class _Slope:
    """What a run gave.

    Attributes:
        stimuli: Float[batch, *shape], with the graph to the parameters.
        shown: what the model saw of them, with the same graph.
        values: Float[batch].
        down: the gradient down, by ``shown``.
    """

    stimuli: Tensor
    shown: Tensor
    values: Tensor
    down: Tensor

    @property
    def dead(self) -> Tensor:
        """Bool[batch]: which items have no gradient at all."""
        return self.down.flatten(1).count_nonzero(1) == 0


class Optimization:
    """An ascent that goes on step by step, and keeps the best so far whatever happens.

    Args:
        model: the model.
        objective: what is maximised.
        climb: how.
        start: stimuli to start at, Float[*shape] or Float[batch, *shape] in the declared range;
            noise around the middle by default. Its size goes before the climb's.
        budget: bytes that the kept frames take at most, however many steps there are.
        norm: holds a stimulus within this L2 distance of the middle of its range.

    Raises:
        InputError: when the size or the start is none that the model takes, or does not fit the
            parameterisation.
        AddressError: when the objective names parts that the model does not have.
        BudgetError: when the history cannot hold the first, the best and the last frame.

    Attributes:
        steps: how many steps have been taken.
        history: the kept frames.
        curve: the value at each step.
        note: what was done about a dead start; None when nothing was.
    """

    def __init__(
        self,
        model: ModuleModel,
        objective: Objective,
        climb: Climb | None = None,
        *,
        start: Tensor | None = None,
        budget: int = BUDGET,
        norm: float | None = None,
    ) -> None:
        self.model, self.objective = model, objective
        self.climb = climb = climb or Climb()
        stimulus = model.stimulus
        if start is not None:
            start = stimulus.check(start).detach()
            self.shape = tuple(start.shape[-len(stimulus.shape) :])
        else:
            self.shape = stimulus.example_shape(climb.size)
        self._generator = torch.Generator().manual_seed(climb.seed)
        self._norm = norm
        self._drawn = self._parameterization(start, climb.batch)
        self._adam = torch.optim.Adam([self._drawn.values], lr=climb.rate)
        self._move: _Move | None = None  # of the step that runs: a step that was stopped is taken
        # again as it was
        self._diverse = _textured(model, objective) if climb.diversity else None
        paths = objective.hooks if self._diverse is None else (*objective.hooks, self._diverse)
        self._paths = tuple(dict.fromkeys(paths))
        self._engine = ModuleEngine.of(model)
        with torch.no_grad():
            self._seen = self._drawn.stimuli()
        self._lived = torch.zeros(climb.batch, dtype=torch.bool)
        self._asleep = torch.zeros(climb.batch, dtype=torch.long)
        self._warm = torch.zeros(climb.batch, dtype=torch.long)
        self._elsewhere: set[int] = set()  # items that were started again
        self._notes: list[str] = []
        self._failure: str | None = None
        self._best: Best | None = None
        self._curve = Curve()
        self.steps = 0
        self.history = History(stimulus, tuple(self._seen.shape), budget)

    def __repr__(self) -> str:
        return f"Optimization({self.objective.text!r}, {self.steps} steps)"

    # What came out -------------------------------------------------------------------------------

    def frame(self) -> Tensor:
        """Return Float[batch, *shape], what the last step moved: its value is the curve's last.

        Before the first step it is the start.
        """
        return self._seen.detach()

    @property
    def best(self) -> Best:
        """The frame with the highest value so far.

        Raises:
            InputError: when no step was taken yet.
        """
        if self._best is None:
            msg = "Nothing has run yet: take a step first."
            raise InputError(msg)
        return self._best

    @property
    def curve(self) -> list[float]:
        """The value at each step; of a very long run, at evenly spaced ones (``curve_steps``)."""
        return list(self._curve.values)

    @property
    def curve_steps(self) -> list[int]:
        """The steps that the curve's numbers belong to."""
        return list(self._curve.steps)

    @property
    def note(self) -> str | None:
        """What was done about a dead start."""
        return " ".join(self._notes) or None

    # The ascent ----------------------------------------------------------------------------------

    def step(self, should_stop: ShouldStop | None = None) -> Step:
        """Take one step.

        A step that is stopped or interrupted changes nothing; it is taken again next time.

        Args:
            should_stop: asked while the model runs.

        Raises:
            Stopped: when told to.
            ModelError: when the value or its gradient is no finite number, when no gradient reaches
                the stimulus, or when the unit stays dead; the best so far is kept, and every later
                step says the same.
            InputError: when the model cannot take a stimulus of this size.
        """
        if self._failure is not None:
            raise ModelError(self._failure)
        if self._move is None:
            self._move = self._draw_move()
        try:
            stimuli, values, gradient = self._ascent(should_stop)
        except ModelError as error:
            if self._failure is None:
                self._fail(str(error).rstrip("."), cause=error)
            raise
        found = Step(self.steps, float(values.mean()), values)
        self._keep(found, stimuli)
        if not bool(gradient.isfinite().all()):
            self._fail(f"The gradient of {self.objective.text} is not finite")
        self._drawn.values.grad = gradient
        self._adam.step()
        self._move = None
        self.steps += 1
        return found

    def settle(self, should_stop: ShouldStop | None = None) -> tuple[Tensor, Tensor]:
        """Measure the last frame and the best one as they are: unmoved, and without noise.

        Until then a frame may be the best because of how it was moved; from then on the best is the
        better of these two. For when the ascent has ended, or waits.

        Args:
            should_stop: asked while the model runs.

        Returns:
            Float[batch] of the last frame, and of the best.

        Raises:
            Stopped: when told to.
            InputError: when no step was taken yet.
        """
        best, last = self.best, self.frame()
        of_last = of_best = self._measured(last, should_stop)
        if best.step != self.steps - 1:
            of_best = self._measured(best.frame, should_stop)
        if float(of_last.mean()) >= float(of_best.mean()):
            best, of_best = replace(best, step=self.steps - 1, frame=last), of_last
        if bool(of_best.isfinite().all()):
            self._best = replace(best, value=float(of_best.mean()))
        return of_last, of_best

    def _measured(self, stimuli: Tensor, should_stop: ShouldStop | None) -> Tensor:
        with torch.no_grad():
            run = self._engine.run(stimuli, self._paths, should_stop=should_stop)
            return self.objective.value(run.values)

    def _keep(self, found: Step, stimuli: Tensor) -> None:
        if not math.isfinite(found.value):
            self._fail(f"{self.objective.text} became {found.value:g}")
        best = self._best is None or found.value > self._best.value
        if best:
            self._best = Best(found.step, found.value, stimuli)
        self._seen = stimuli
        self._curve.add(found.step, found.value)
        self.history.add(found.step, stimuli, best=best)

    def _fail(self, what: str, cause: Exception | None = None) -> NoReturn:
        kept = ""
        if self._best is not None:
            kept = f" The best so far, {self._best.value:.4g} at step {self._best.step}, is kept."
        self._failure = f"{what}. The ascent ended at step {self.steps}.{kept}"
        raise ModelError(self._failure) from cause

    def _ascent(self, should_stop: ShouldStop | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return the stimuli, the values, Float[batch], and the parameters' gradient down."""
        slope = self._living_slope(should_stop)
        outputs, along = [slope.shown], [slope.down]
        penalty = self._penalty(slope)
        if penalty is not None:
            outputs.append(penalty)
            along.append(torch.ones_like(penalty))
        (gradient,) = torch.autograd.grad(outputs, self._drawn.values, along)
        return slope.stimuli.detach(), slope.values.detach(), gradient

    def _slope(
        self,
        stimuli: Tensor,
        move: _Move | None,
        should_stop: ShouldStop | None,
        *,
        leak: bool = False,
    ) -> _Slope:
        """Run the model up to the last part that is read, and back."""
        shown = stimuli
        if move is not None:
            shown = moved(stimuli, move.matrices, move.window, self.model.stimulus.middle)
            if move.noise is not None:
                shown = shown + move.noise.to(shown)
        if shown.ndim == 4:  # convolutions are a tenth to a fifth faster so
            shown = shown.contiguous(memory_format=torch.channels_last)
        with LeakyGradient() if leak else nullcontext():
            run = self._engine.run(shown, self._paths, should_stop=should_stop)
            values = self.objective.value(run.values)
        if not values.requires_grad:
            msg = (
                f"No gradient of {self.objective.text} reaches the stimulus: something before it "
                "is not differentiable (argmax, rounding, a threshold, a value that was detached)."
            )
            raise ModelError(msg)
        loss = -values.sum()
        # While something is dead, its sameness to others says nothing.
        if self._diverse is not None and bool(self._lived.all()):
            alike = regularizers.sameness(run.values[self._diverse])
            scale = values.detach().abs().to(alike.device)
            loss = loss + self.climb.diversity * (scale * alike).sum().to(loss.device)
        found: tuple[Tensor | None, ...] = torch.autograd.grad(loss, shown, allow_unused=True)
        down = torch.zeros_like(shown) if found[0] is None else found[0]
        return _Slope(stimuli, shown, values, down)

    def _penalty(self, slope: _Slope) -> Tensor | None:
        climb = self.climb
        terms = ((climb.l2, "l2"), (climb.tv, "total_variation"), (climb.blur, "blur"))
        if not any(weight for weight, _ in terms):
            return None
        x = self._share(slope.stimuli)
        total = torch.stack(
            [weight * getattr(regularizers, name)(x) for weight, name in terms if weight]
        ).sum(0)
        return (slope.values.detach().abs().to(total.device) * total).sum()

    def _share(self, stimuli: Tensor) -> Tensor:
        """Return stimuli as shares of their range, with a channel dimension."""
        stimulus = self.model.stimulus
        if stimulus.bounded:
            x = (stimuli - stimulus.low) / (stimulus.high - stimulus.low)
        else:
            x = (stimuli - stimulus.middle) / 2 + 0.5
        flat = stimulus.renderer == "raster" and stimuli.ndim == 3
        return x[:, None] if flat or stimuli.ndim == 2 else x

    # Dead starts ---------------------------------------------------------------------------------

    def _living_slope(self, should_stop: ShouldStop | None) -> _Slope:
        """Return a slope on which items that are dead get one that may bring them to life."""
        while True:
            slope = self._slope(self._drawn.stimuli(), self._move, should_stop)
            dead = slope.dead
            self._live(~dead)
            leaking = dead | (self._warm > 0)
            if not bool(leaking.any()) or not bool(slope.values.isfinite().all()):
                return slope
            leaky = self._slope(slope.stimuli, self._move, should_stop, leak=True)
            never = dead & ~self._lived
            hopeless = never & (leaky.dead | (self._asleep >= ASLEEP))
            if not bool(hopeless.any()):
                self._asleep += never
                self._warm -= (self._warm > 0).long()
                chosen = leaking.view(-1, *[1] * (leaky.down.ndim - 1))
                return replace(slope, down=torch.where(chosen, leaky.down, slope.down))
            for item in hopeless.nonzero().flatten().tolist():
                self._start_elsewhere(item, slope.values[item].item(), should_stop)

    def _live(self, alive: Tensor) -> None:
        """Note which items have a gradient of their own."""
        for item in (alive & ~self._lived & (self._asleep > 0)).nonzero().flatten().tolist():
            steps = int(self._asleep[item])
            self._warm[item] = WARM
            self._notes.append(
                f"{self._named(item)} was dead at the start (its gradient was 0); {steps} "
                f"step{'s' if steps > 1 else ''} through a leaky gradient brought it to life."
            )
        self._lived |= alive

    def _start_elsewhere(self, item: int, value: float, should_stop: ShouldStop | None) -> None:
        """Start an item again where the unit answers, or end with a sentence."""
        found = None
        if item not in self._elsewhere:
            before = self._generator.get_state()
            try:
                found = self._answered(should_stop)
            except BaseException:  # stopped or interrupted: the next time draws the same
                self._generator.set_state(before)
                raise
        if found is None:
            self._fail(
                f"{self._named(item)} is dead: it stays at {value:.4g} with a gradient of 0, "
                f"through a leaky gradient too, and from {STARTS} other starts with up to "
                f"{_CONTRASTS[-1]:g} times the contrast. Choose another unit, or a start that "
                "excites it"
            )
        contrast, values = found
        self._elsewhere.add(item)
        self._asleep[item] = 0
        with torch.no_grad():
            self._drawn.values[item] = values
            for moment in self._adam.state[self._drawn.values].values():
                if moment.shape == self._drawn.values.shape:
                    moment[item] = 0
        self._notes.append(
            f"{self._named(item)} was dead at the start (its gradient was 0); of {STARTS} other "
            f"starts the one that it answers to most was taken, with {contrast:g} times the "
            "contrast."
        )

    def _answered(self, should_stop: ShouldStop | None) -> tuple[float, Tensor] | None:
        """Return the start that the unit answers to most, after its contrast; None if to none."""
        best: tuple[float, float, Tensor] | None = None
        for n in range(STARTS):
            contrast = _CONTRASTS[n % len(_CONTRASTS)]
            drawn = self._parameterization(None, 1)
            with torch.no_grad():
                drawn.values.mul_(contrast)
            slope = self._slope(drawn.stimuli(), None, should_stop)
            answer = slope.values[0].item()
            if not bool(slope.dead[0]) and (best is None or answer > best[0]):
                best = answer, contrast, drawn.values.detach()[0]
        return None if best is None else best[1:]

    def _named(self, item: int) -> str:
        text = self.objective.text
        return text if self.climb.batch == 1 else f"{text} (picture {item + 1})"

    # How it is made ------------------------------------------------------------------------------

    def _parameterization(self, start: Tensor | None, batch: int) -> Parameterization:
        stimulus, climb = self.model.stimulus, self.climb
        image = stimulus.renderer == "image"
        if image and climb.parameterization == "fourier" and self._norm is None:
            return Fourier(stimulus, self.shape, batch, self._generator, start, decay=climb.decay)
        return Pixels(stimulus, self.shape, batch, self._generator, start, self._norm)

    def _draw_move(self) -> _Move | None:
        """Draw how the images of one step are moved; None for what stays as it is."""
        stimulus, batch = self.model.stimulus, self.climb.batch
        if stimulus.renderer != "image" or self.climb.transforms == "none":
            return None
        height, width = self.shape[-2:]
        if self.climb.transforms == "lucid":
            lucid = Lucid().for_size(min(height, width))
            free = all(size is None for size in stimulus.shape[-2:])
            window = lucid.window(height, width) if free else (height, width)
            return _Move(lucid.matrices(batch, self._generator), window)
        crops = Crops()
        matrices = crops.matrices(batch, height, width, self._generator)
        span = stimulus.high - stimulus.low if stimulus.bounded else 2.0
        noise = crops.noises((batch, *self.shape), self._generator) * span
        return _Move(matrices, (height, width), noise)


def run(
    optimization: Optimization, steps: int | None = None, should_stop: ShouldStop | None = None
) -> Generator[Step, None, None]:
    """Take steps, as many as the climb says or as are said here, and yield each.

    Whatever ends it, the optimisation keeps what it has, and can go on from there.

    Args:
        optimization: what climbs.
        steps: how many more; None for what is left of the climb's.
        should_stop: asked while the model runs.

    Raises:
        Stopped, ModelError, InputError: as :meth:`Optimization.step`.
    """
    left = optimization.climb.steps - optimization.steps if steps is None else steps
    for _ in range(left):
        yield optimization.step(should_stop)


def _textured(model: ModuleModel, objective: Objective) -> str:
    """Return the last part up to the unit that has several places, whose texture is compared."""
    anatomy = model.anatomy
    wanted = {hook.partition("@")[0] for hook in objective.hooks}
    paths = list(anatomy.parts)
    last = max(paths.index(path) for path in wanted)
    for path in reversed(paths[: last + 1]):
        part = anatomy.parts[path]
        if math.prod(part.shape) > 1 and part.channels > 1:
            return path
    msg = (
        "Diversity compares the textures of a part, and no part up to "
        f"{objective.text} has several places; leave it at 0."
    )
    raise InputError(msg)
