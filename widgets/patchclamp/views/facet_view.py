"""Facets: one stimulus for each kind of the images that drive a unit.

The corpus' images are sorted first (`methods/multifaceted.py`); then all facets climb side by side,
each from the mean of its own images, as the tracks of one ascent (`climb_view.py`).
"""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import interpolate

from patchclamp.errors import InputError
from patchclamp.methods.multifaceted import (
    PUBLISHED,
    FacetOptimization,
    Sorting,
    UnitFacets,
    crops,
    schedule,
    unit_facets,
)
from patchclamp.methods.stimulus_examples import stimuli_of

from . import aims, rows
from . import messages as say
from .climb_view import Ascent, ClimbView, Track
from .example_view import ExampleView
from .messages import MaximizerMode
from .stimulus_pictures import THUMBNAIL, picture
from .view import ShouldStop

if TYPE_CHECKING:
    from torch import Tensor

_MEMBERS = 12  # images of a facet that are shown
_CROPS = 4  # of each picture that comes with the package


class FacetView(ClimbView, ExampleView):
    """The part of ActivationMaximizer that is about facets."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._sorted: UnitFacets | None = None
        super().__init__(*args, **options)

    # --- the same gestures, from Python -----------------------------------------------------------

    def facets(self, count: int | None = None, *, wait: bool = True, **options: Any) -> "Tensor":
        """Optimise one stimulus for each kind of images that drive the unit.

        Args:
            count: how many kinds; None lets the images say.
            wait: for its end; without, the view shows it live.
            **options: of :class:`~patchclamp.methods.aim.Drawing`; steps, size and seed count here.

        Returns:
            Float[facet, *shape], the best of each, in the declared range.

        Raises:
            ModelError: when the model takes no stimulus.
            InputError: when there is no corpus of images of one size, or too few are in it.
            AddressError: when no unit was chosen.
        """
        self._module_session()
        if options:
            self.set_options(**options)
        self._ascend_facets(count)
        self._climb_on(wait=wait)
        return self._pictures("facet")

    @property
    def sorted_images(self) -> UnitFacets:
        """Which of the corpus' images each facet has, and what decided how many there are.

        Raises:
            InputError: when they were not sorted yet.
        """
        if self._sorted is None:
            msg = "The images were not sorted yet: view.facets() does it."
            raise InputError(msg)
        return self._sorted

    # --- gestures from the page -------------------------------------------------------------------

    def _on_facets(self, message: say.Facets) -> None:
        self._refuse_mode("facets")
        with rows.about("count"):
            self._ascend_facets(message.count)
        self._climb_on(wait=False)

    # --- climbing ---------------------------------------------------------------------------------

    def _ascend_facets(self, count: int | None) -> None:
        """Make ready the sorting of the corpus' images, and the ascent that follows it."""
        target, model = aims.objective_of(self._aim), self._module_session().model
        drawing = self._aim.drawing
        octaves = schedule(drawing.steps, PUBLISHED)
        images = stacked(model, self._corpus())
        if images is None:
            msg = "Facets are found among images of one size; those of this corpus differ."
            raise InputError(msg)
        if self._given_corpus is None:  # two dozen pictures: more of them are made
            shape = model.stimulus.example_shape(drawing.size)
            images = crops(_resized(images, shape), _CROPS, seed=drawing.seed)
        engine, sorting = self._module_session().engine, Sorting(count=count, seed=drawing.seed)

        def prepare(should_stop: ShouldStop) -> Generator[None, None, None]:
            steps = unit_facets(engine, target, images, sorting, should_stop=should_stop)
            while True:
                try:
                    done = next(steps)
                except StopIteration as end:
                    found: UnitFacets = end.value
                    break
                progress = say.Progress(job="facets", done=done, total=len(images))
                self._push(("progress", "ascent"), progress)
                yield
            self._sorted = found
            start = torch.stack([facet.mean for facet in found.facets.facets])
            made = FacetOptimization(
                model,
                target,
                _resized(start, model.stimulus.example_shape(drawing.size)),
                octaves=octaves,
                seed=drawing.seed,
                budget=self._budget,
            )
            ascent.optimizations.append(made)
            ascent.tracks += [self._facet_track(made, found, at) for at in range(len(start))]
            self._tracks |= {track.key: track for track in ascent.tracks}
            ascent.say("running")
            self._push_tracks(always=True)

        ascent = Ascent("facets", target, [], [], prepare=prepare)
        self._take_ascent(ascent)

    def _facet_track(self, made: FacetOptimization, found: UnitFacets, at: int) -> Track:
        facet, count = found.facets.facets[at], len(found.facets)
        stimulus = self._module_session().model.stimulus
        images = [found.images[member] for member in facet.members[:_MEMBERS]]
        return Track(
            next(self._next_track),
            "facet",
            f"facet {at + 1}",
            made,
            at,
            members=[picture(stimulus, image, THUMBNAIL) for image in images],
            member_count=len(facet.members),
            note="The images that drive the unit are of one kind." if count == 1 else "",
        )

    def _refusals(self) -> dict[MaximizerMode, str | None]:
        found = super()._refusals()
        found["facets"] = found["facets"] or self._no_corpus()
        module = self._module
        if module is not None and not module.model.stimulus.bounded:
            found["facets"] = "Facets are drawn within a range of values, and this input has none."
        return found


def stacked(model: Any, corpus: Any, most: int | None = None) -> "Tensor | None":
    """Stimuli of a corpus as one tensor; None where they are of several sizes."""
    stimuli = [stimulus for _, stimulus in stimuli_of(model, corpus)][:most]
    if len({tuple(each.shape) for each in stimuli}) != 1:
        return None
    return torch.stack(stimuli)


def _resized(start: "Tensor", shape: tuple[int, ...]) -> "Tensor":
    """Mean images in the size of the pictures that are drawn; what is no image stays."""
    if start.ndim != 4 or start.shape[1:] == shape:
        return start
    found: Tensor = interpolate(start, shape[1:], mode="area")
    return found
