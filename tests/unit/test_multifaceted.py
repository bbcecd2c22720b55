"""Multifaceted feature visualization: planted styles become pictures of their own.

The digit classifier was told nothing of the two ways in which its sevens are written; which seven
lies is known. An independent classifier (a support vector machine on pixels) says what a picture
shows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

import patchclamp as pc
from patchclamp.engine.module_engine import ModuleEngine
from patchclamp.errors import AddressError, InputError, ModelError, Stopped
from patchclamp.methods.facets import shuffled
from patchclamp.methods.multifaceted import (
    PUBLISHED,
    UNREGULARISED,
    FacetOptimization,
    Octave,
    Sorting,
    UnitFacets,
    crops,
    denoised,
    last_before_output,
    schedule,
    unit_facets,
)
from patchclamp.methods.objective import Objective, objective
from patchclamp.methods.regularizers import total_variation
from patchclamp.models.shipped.written_digits import PLANTED_CLASS, WrittenDigits, written_digits

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from patchclamp.models.module_model import ModuleModel

LYING = 10  # what the independent classifier calls a seven that lies
STEPS = 40


@pytest.fixture(scope="module")
def model() -> ModuleModel:
    return pc.load("digits")


@pytest.fixture(scope="module")
def sevens() -> WrittenDigits:
    data = written_digits()
    return data.where(data.classes == PLANTED_CLASS)


@pytest.fixture(scope="module")
def says() -> Callable[[Tensor], list[int]]:
    from sklearn.svm import SVC

    data = written_digits()
    kinds = torch.where(data.lying, LYING, data.classes)
    learned = ~data.held_out
    machine = SVC(C=10).fit(data.images[learned].flatten(1).numpy(), kinds[learned].numpy())
    return lambda pictures: machine.predict(pictures.flatten(1).numpy()).tolist()


def found(model: ModuleModel, what: str, images: Tensor, sorting: Sorting) -> UnitFacets:
    search = unit_facets(ModuleEngine.of(model), objective(model, what), images, sorting)
    while True:
        try:
            next(search)
        except StopIteration as end:
            value: UnitFacets = end.value
            return value


@pytest.fixture(scope="module")
def planted(model: ModuleModel, sevens: WrittenDigits) -> UnitFacets:
    return found(model, "digit:c7", sevens.images, Sorting(top=len(sevens)))


def optimised(model: ModuleModel, starts: Tensor, octaves: tuple[Octave, ...]) -> FacetOptimization:
    made = FacetOptimization(model, objective(model, "digit:c7"), starts, octaves=octaves)
    for _ in range(made.climb.steps):
        made.step()
    return made


def test_the_planted_styles_are_the_two_facets(planted: UnitFacets, sevens: WrittenDigits) -> None:
    from sklearn.metrics import adjusted_rand_score

    assert len(planted.facets) == 2
    lying = sevens.lying[list(planted.chosen)]
    assert adjusted_rand_score(lying.numpy(), planted.facets.labels) > 0.9
    control = shuffled(planted.facets, planted.images)
    assert abs(adjusted_rand_score(lying.numpy(), control.labels)) < 0.1
    assert planted.at == "code"
    assert planted.activations.tolist() == sorted(planted.activations.tolist(), reverse=True)


@pytest.mark.parametrize("digit", [0, 2, 3, 4, 6, 8])
def test_a_class_written_in_one_way_has_one_facet(model: ModuleModel, digit: int) -> None:
    data = written_digits()
    images = data.images[data.classes == digit]
    assert len(found(model, f"digit:c{digit}", images, Sorting(top=200)).facets) == 1


def test_each_facet_becomes_a_picture_of_its_style(
    model: ModuleModel,
    planted: UnitFacets,
    sevens: WrittenDigits,
    says: Callable[[Tensor], list[int]],
) -> None:
    facets = planted.facets.facets
    styles = [LYING if sevens.lying[planted.members_of(f)[0]] else PLANTED_CLASS for f in facets]
    assert sorted(styles) == [PLANTED_CLASS, LYING]
    made = optimised(model, torch.stack([facet.mean for facet in facets]), schedule(STEPS))
    assert says(made.frame()) == styles
    assert model.module(made.frame()).argmax(1).tolist() == [PLANTED_CLASS] * 2
    assert made.curve[-1] > made.curve[0] + 2
    # From the mean of all sevens one style comes out, whatever it is.
    (one,) = says(optimised(model, sevens.images.mean(0), schedule(STEPS)).frame())
    assert one in {PLANTED_CLASS, LYING}


def test_taking_total_variation_off_makes_smoother_pictures(
    model: ModuleModel, planted: UnitFacets
) -> None:
    starts = torch.stack([facet.mean for facet in planted.facets.facets])
    smooth, rough = (
        optimised(model, starts, schedule(STEPS, octaves)) for octaves in (PUBLISHED, UNREGULARISED)
    )
    both = total_variation(smooth.frame()) < 0.95 * total_variation(rough.frame())
    assert bool(both.all())
    assert rough.best.value > smooth.best.value > 0.8 * rough.best.value, "the price, and no more"


def test_a_facet_is_an_optimisation_that_can_be_stopped_and_goes_on(
    model: ModuleModel, planted: UnitFacets
) -> None:
    start = planted.facets.facets[0].mean
    octaves = schedule(12)
    whole = optimised(model, start, octaves)
    halted = FacetOptimization(model, objective(model, "digit:c7"), start, octaves=octaves)
    for _ in range(9):
        halted.step()
    with pytest.raises(Stopped):
        halted.step(lambda: True)
    for _ in range(3):
        halted.step()
    assert torch.equal(whole.frame(), halted.frame())
    assert whole.curve == halted.curve
    assert whole.steps == 12
    assert whole.frame().shape == (1, *start.shape)
    assert whole.canvas.shape == (1, 1, 19, 19)
    assert 0 in whole.history.steps
    assert float(whole.canvas.min()) >= 0
    assert float(whole.canvas.max()) <= 1


def test_denoising_finds_the_minimum_of_its_energy() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(2, 1, 12, 9, generator=generator, dtype=torch.float64)
    weight = 4.0

    def energy(u: Tensor) -> Tensor:
        down = torch.nn.functional.pad(u.diff(dim=2), (0, 0, 0, 1))
        right = torch.nn.functional.pad(u.diff(dim=3), (0, 1))
        length = (down.square() + right.square()).sqrt()
        return (length + weight / 2 * (u - x).square()).flatten(1).sum(1)

    u = denoised(x, weight, 300)
    assert bool((energy(u) < 0.7 * energy(x)).all())
    for scale in (1e-3, 1e-2, 1e-1):
        other = u + scale * torch.randn(u.shape, generator=generator, dtype=u.dtype)
        assert bool((energy(other) > energy(u)).all())
    assert bool((energy(denoised(x, weight)) < 1.02 * energy(u)).all()), "12 rounds come close"
    assert torch.equal(denoised(x, math.inf), x)
    flat = torch.full((1, 3, 5, 5), 0.3)
    assert torch.allclose(denoised(flat, 1.0), flat, atol=1e-6)
    line = torch.rand(1, 2, 30, generator=generator)
    assert float(total_variation(denoised(line, 2.0))) < float(total_variation(line))


def test_only_the_middle_changes_where_the_schedule_says_so(
    model: ModuleModel, planted: UnitFacets
) -> None:
    start = planted.facets.facets[0].mean
    octave = Octave(3, margin=70, step=(5, 5), weight=(math.inf, math.inf))
    made = optimised(model, start, (octave,))
    changed = (made.canvas[0] - start).abs() > 1e-6
    edge = round(70 / 224 * 16)
    assert bool(changed[:, edge:-edge, edge:-edge].any())
    changed[:, edge:-edge, edge:-edge] = False
    assert not bool(changed.any())


def test_the_published_schedule_is_shortened_in_proportion() -> None:
    assert [octave.steps for octave in PUBLISHED] == [190, 150, 20, 10]
    for steps in (4, 5, 7, 40, 74, 370, 1000):
        short = schedule(steps)
        assert sum(octave.steps for octave in short) == steps
        assert min(octave.steps for octave in short) >= 1
    assert schedule(370) == PUBLISHED
    with pytest.raises(InputError, match="at least 4 steps, not 3"):
        schedule(3)


def test_a_dead_start_climbs_through_a_leaky_gradient(model: ModuleModel) -> None:
    dark = torch.zeros(1, 16, 16)
    values = objective(model, "relu3:c5")
    made = FacetOptimization(model, values, dark, octaves=schedule(12, UNREGULARISED))
    first = made.step()
    for _ in range(11):
        made.step()
    if first.value == 0:
        assert made.note is not None
        assert "was dead" in made.note
    assert made.best.value > first.value


def test_a_raster_has_facets_too() -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 2))
    rows = pc.ModuleModel(net, pc.Stimulus((6, 8), low=-1, high=1, renderer="raster"))
    made = FacetOptimization(rows, objective(rows, "1:c1"), torch.zeros(6, 8), octaves=schedule(8))
    before = made.step().value
    for _ in range(7):
        made.step()
    assert made.frame().shape == (1, 6, 8)
    assert made.best.value > before


def test_pieces_of_pictures_are_like_them_and_the_seed_says_which() -> None:
    pictures = torch.rand(3, 3, 20, 30, generator=torch.Generator().manual_seed(1))
    made = crops(pictures, 4)
    assert made.shape == (12, 3, 20, 30)
    assert torch.equal(made[::4], pictures)
    assert torch.equal(made, crops(pictures, 4))
    assert not torch.equal(made, crops(pictures, 4, seed=1))
    assert 0 <= float(made.min()) < float(made.max()) <= 1


def test_what_cannot_be_done_is_said(model: ModuleModel, sevens: WrittenDigits) -> None:
    images = sevens.images
    with pytest.raises(InputError, match="at least 6 images; there are 3"):
        found(model, "digit:c7", images[:3], Sorting())
    with pytest.raises(InputError, match="from 0 to 2"):
        found(model, "digit:c7", images * 2, Sorting())
    with pytest.raises(AddressError):
        found(model, "digit:c7", images, Sorting(at="nowhere"))
    one_part = pc.ModuleModel(torch.nn.Linear(4, 2), pc.Stimulus((1, 4), renderer="curve"))
    with pytest.raises(ModelError, match="name the part with at="):
        last_before_output(one_part.anatomy)
    endless = pc.ModuleModel(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)),
        pc.Stimulus((1, 4), low=-math.inf, high=math.inf, renderer="curve"),
    )
    with pytest.raises(InputError, match="has no end"):
        FacetOptimization(endless, objective(endless, "1:c0"), torch.zeros(1, 4))
    bad = Objective.of_function(
        lambda values: values["digit"][:, 0] * torch.nan, paths=("digit",), name="nothing"
    )
    made = FacetOptimization(model, bad, images[0], octaves=schedule(4))
    with pytest.raises(ModelError, match="nothing"):
        made.step()
