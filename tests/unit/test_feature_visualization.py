"""Gradient ascent: truth on known units, dead starts, bad input, memory, the same seed the same."""

from __future__ import annotations

import gc
import itertools
import json
import math
from collections import OrderedDict
from typing import Any, get_args

import pytest
import torch
from torch import nn

from patchclamp.engine.module_engine import ModuleEngine
from patchclamp.errors import AddressError, BudgetError, InputError, ModelError, Stopped
from patchclamp.methods import regularizers
from patchclamp.methods.feature_visualization import Climb, Optimization, run
from patchclamp.methods.frames import Curve, History
from patchclamp.methods.leaky_gradient import LeakyGradient
from patchclamp.methods.objective import Objective, objective
from patchclamp.methods.transformations import Name
from patchclamp.models.module_model import ModuleModel
from patchclamp.models.stimulus import Stimulus

PICTURE = Stimulus((3, None, None), size=24, smallest=5)


def named(**parts: nn.Module) -> Any:  # whose parts are reached by name
    return nn.Sequential(OrderedDict(parts))


def small_net(seed: int = 0) -> ModuleModel:
    """Make a net of a few convolutions, wide enough to have something to climb."""
    torch.manual_seed(seed)
    net = named(
        first=nn.Conv2d(3, 8, 5, padding=2),
        relu=nn.ReLU6(),
        second=nn.Conv2d(8, 6, 3, padding=1),
        pool=nn.AdaptiveAvgPool2d(1),
        flat=nn.Flatten(1),
        out=nn.Linear(6, 4),
    )
    return ModuleModel(net, PICTURE, name="small")


def climbed(model: ModuleModel, unit: str, steps: int = 40, **how: Any) -> Optimization:
    made = Optimization(model, objective(model, unit), Climb(steps=steps, **how))
    list(run(made))
    return made


# Truth -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bound", [math.inf, 3.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_under_a_norm_ball_a_linear_units_optimum_is_along_its_weights(
    bound: float, seed: int
) -> None:
    torch.manual_seed(seed)
    net = named(flat=nn.Flatten(1), out=nn.Linear(60, 3))
    sound = Stimulus((2, 30), low=-bound, high=bound, renderer="curve")
    model = ModuleModel(net, sound)
    found = Optimization(model, objective(model, "out:c1"), Climb(steps=300, seed=seed), norm=2.0)
    start = found.frame().flatten()
    list(run(found))
    net.requires_grad_(requires_grad=False)
    weights, x = net.out.weight[1], found.best.frame.flatten()
    assert abs(float(torch.cosine_similarity(start, weights, 0))) < 0.5
    assert float(torch.cosine_similarity(x, weights, 0)) >= 0.99
    assert float(x.norm()) == pytest.approx(2, rel=1e-3)
    best = 2 * float(weights.norm()) + float(net.out.bias[1])
    assert found.best.value == pytest.approx(best, rel=0.01)


@pytest.mark.parametrize("parameterization", ["fourier", "pixel"])
def test_a_linear_filter_is_found_where_it_stands(parameterization: str) -> None:
    # The weights of one place: bright where they are positive, dark where they are negative.
    torch.manual_seed(3)
    weights = torch.randn(3, 12, 12)
    net = named(conv=nn.Conv2d(3, 1, 12))
    net.conv.weight.data[0] = weights
    model = ModuleModel(net, Stimulus((3, 12, 12)))
    made = climbed(
        model, "conv:c0", 400, parameterization=parameterization, transforms="none", rate=0.2
    )
    agree = (made.best.frame[0] > 0.5) == (weights > 0)
    assert float(agree.float().mean()) > 0.9
    noise = torch.rand(3000, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert made.best.value > float(model.module(noise).max()) + 5


def test_a_recurrent_net_is_driven_by_a_curve_of_any_length() -> None:
    torch.manual_seed(0)

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRU(1, 6, batch_first=True)
            self.read = nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            states, _ = self.cell(x.transpose(1, 2))
            found: torch.Tensor = self.read(states[:, -1])
            return found

    sound = Stimulus((1, None), low=-2, high=2, renderer="curve", size=30)
    model = ModuleModel(Recurrent(), sound)
    made = climbed(model, "read:c1", 120, size=20, batch=2)
    assert made.frame().shape == (2, 1, 20)
    assert float(made.frame().abs().max()) <= 2
    noise = torch.rand(2000, 1, 20, generator=torch.Generator().manual_seed(0)) * 4 - 2
    with torch.no_grad():
        assert made.best.value > float(model.module(noise)[:, 1].max())


def test_a_raster_of_rows_and_time_is_climbed_too() -> None:
    torch.manual_seed(0)
    retina = Stimulus((5, 20), low=0, high=1, renderer="raster")
    model = ModuleModel(named(flat=nn.Flatten(1), cell=nn.Linear(100, 2), out=nn.Sigmoid()), retina)
    made = climbed(model, "cell:c0", 60, tv=0.1, l2=0.01, blur=0.1)
    assert made.frame().shape == (1, 5, 20)
    assert made.curve[-1] > made.curve[0] + 0.5


# Reproducible ------------------------------------------------------------------------------------


def test_the_same_seed_gives_bit_identical_frames() -> None:
    model = small_net()
    runs = [climbed(model, "second:c2", seed=seed, batch=2, diversity=0.5) for seed in (5, 5, 6)]
    torch.rand(7)  # nobody else's random numbers matter
    assert torch.equal(runs[0].frame(), runs[1].frame())
    assert runs[0].curve == runs[1].curve
    assert not torch.equal(runs[0].frame(), runs[2].frame())


def test_a_pause_or_a_stop_in_the_middle_of_a_step_changes_nothing() -> None:
    model = small_net()
    whole = climbed(model, "second:c2", 30)
    made = Optimization(model, objective(model, "second:c2"), Climb(steps=30))
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return asked % 7 == 0

    stopped = 0
    while made.steps < 30:
        try:
            list(run(made, should_stop=stop))
        except Stopped:
            stopped += 1
            assert made.best.step <= made.steps
            assert made.frame().isfinite().all()
    assert stopped > 3
    assert torch.equal(made.frame(), whole.frame())
    list(run(made, 5))
    assert made.steps == 35


def test_once_settled_values_are_those_of_the_frames_themselves() -> None:
    model = small_net()
    made = climbed(model, "second:c1", steps=30, batch=2)
    seen = made.best
    assert seen.value == max(made.curve)

    net = nn.Sequential(*list(model.module.children())[:3])

    def plainly(frames: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            values: torch.Tensor = net(model.prepare(frames))[:, 1].mean((1, 2))
        return values

    wanted = [plainly(frames) for frames in (made.frame(), seen.frame)]
    last, best = made.settle()
    assert torch.allclose(last, wanted[0], rtol=1e-4)
    better = max(wanted, key=lambda values: float(values.mean()))
    assert torch.allclose(best, better, rtol=1e-4)
    assert torch.allclose(plainly(made.best.frame), better, rtol=1e-4)
    assert made.best.value == pytest.approx(float(better.mean()), rel=1e-4)
    assert made.best.value != pytest.approx(seen.value, rel=1e-2)
    unmoved = climbed(model, "second:c1", steps=30, transforms="none")
    assert float(unmoved.settle()[0]) == pytest.approx(unmoved.curve[-1], rel=1e-4)
    with pytest.raises(InputError, match="Nothing has run yet"):
        Optimization(model, objective(model, "second:c1"), Climb()).settle()


def test_an_interrupt_keeps_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_net()
    made = Optimization(model, objective(model, "second:c2"), Climb(steps=30))
    list(run(made, 10))
    best = made.best

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(ModuleEngine, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            made.step()
    assert made.best is best
    assert made.steps == 10
    list(run(made))
    assert torch.equal(made.frame(), climbed(model, "second:c2", 30).frame())


def test_what_the_model_sees_is_a_crop_under_noise_a_moved_image_or_the_image_itself() -> None:
    net = named(eye=nn.Identity(), conv=nn.Conv2d(3, 2, 5))
    model = ModuleModel(net, PICTURE, name="small")
    seen: dict[str, torch.Tensor] = {}
    for transforms in get_args(Name):

        def taken(values: dict[str, torch.Tensor], name: str = transforms) -> torch.Tensor:
            seen[name] = values["eye"].detach()
            return values["conv"].mean((1, 2, 3))

        what = Objective.of_function(taken, paths=("eye", "conv"))
        made = Optimization(model, what, Climb(size=24, transforms=transforms, batch=2))
        made.step()
    assert torch.equal(seen["none"], made.frame())
    rough = {name: float(x.diff(dim=3).abs().mean()) for name, x in seen.items()}
    assert rough["crops"] > 5 * max(rough["lucid"], rough["none"])
    # Every image of a batch has noise of its own strength.
    strengths = seen["crops"].diff(dim=3).flatten(1).std(1)
    assert abs(float(strengths[0] / strengths[1]) - 1) > 0.05


# What is maximised -------------------------------------------------------------------------------


def test_only_the_parts_up_to_the_unit_run() -> None:
    model = small_net()
    counted: list[str] = []
    for name, module in model.module.named_modules():
        module.register_forward_hook(lambda *_, name=name: counted.append(name))
    engine = ModuleEngine.of(model)
    seen = []
    inner = engine.run

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.append(inner(*args, **kwargs))
        return seen[-1]

    engine.run = watched  # type: ignore[method-assign]
    climbed(model, "first:c2", 3)
    assert [one.modules for one in seen] == [1, 1, 1]
    seen.clear()
    climbed(model, "second:c2", 3)
    assert [one.modules for one in seen] == [3, 3, 3]
    assert counted == []  # and the user's own module never ran


def test_a_difference_of_units_is_climbed_and_beats_each_alone() -> None:
    model = small_net()
    wanted = objective(model, "second:c2") - objective(model, "second:c4")
    made = Optimization(model, wanted, Climb(steps=80))
    list(run(made))

    def of(frame: torch.Tensor) -> float:
        values = ModuleEngine.of(model).run(frame, wanted.hooks).values
        return float(wanted.value(values))

    assert of(made.frame()) > of(climbed(model, "second:c2", 80).frame())
    assert of(made.frame()) > of(climbed(model, "second:c4", 80).frame())


def test_a_function_of_activations_is_climbed() -> None:
    model = small_net()
    spread = objective(model, lambda v: v["first"].flatten(1).std(1), paths="first", name="spread")
    made = Optimization(model, spread, Climb(steps=40))
    list(run(made))
    assert made.curve[-1] > 1.2 * made.curve[0]


def test_diversity_makes_the_pictures_of_a_batch_differ() -> None:
    model = small_net()
    alike = []
    for weight in (0.0, 2.0):
        made = climbed(model, "second:c2", 80, batch=3, transforms="lucid", diversity=weight)
        values = ModuleEngine.of(model).run(made.frame(), ["second"]).values["second"]
        alike.append(float(regularizers.sameness(values).mean()))
    assert alike[1] < alike[0] - 0.1


def test_the_diversity_of_a_logit_is_that_of_the_last_part_that_has_places() -> None:
    model = small_net()
    made = climbed(model, "out:c1", 20, batch=2, diversity=0.5)
    assert made._diverse == "second"
    flat = ModuleModel(named(flat=nn.Flatten(1), out=nn.Linear(75, 2)), Stimulus((3, 5, 5)))
    with pytest.raises(InputError, match="leave it at 0"):
        climbed(flat, "out:c1", 1, batch=2, diversity=0.5)


@pytest.mark.parametrize(
    ("name", "weight", "term"),
    [("l2", 2.0, regularizers.l2), ("tv", 2.0, regularizers.total_variation), ("blur", 20.0, None)],
)
def test_a_regulariser_lowers_what_it_is_about(name: str, weight: float, term: Any) -> None:
    model = small_net()
    term = term or regularizers.blur
    plain = climbed(model, "second:c2", 60).frame()
    held = climbed(model, "second:c2", 60, **{name: weight}).frame()
    assert float(term(held)) < 0.8 * float(term(plain))


def test_regularisers_are_what_they_say() -> None:
    x = torch.rand(2, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(regularizers.l2(x), (2 * x - 1).square().mean((1, 2, 3)))
    rows = (x[:, :, 1:] - x[:, :, :-1]).abs().mean((1, 2, 3))
    columns = (x[..., 1:] - x[..., :-1]).abs().mean((1, 2, 3))
    assert torch.allclose(regularizers.total_variation(x), rows + columns)
    flat = torch.full((1, 3, 6, 7), 0.3)
    assert float(regularizers.total_variation(flat)) == 0
    assert float(regularizers.blur(flat)) == pytest.approx(0, abs=1e-9)
    # Its gradient leads to the blurred picture.
    given = x.clone().requires_grad_()
    regularizers.blur(given).sum().backward()
    assert given.grad is not None
    assert torch.allclose(x - given.grad * 3 * 6 * 7 / 2, regularizers.blurred(x), atol=1e-6)
    spot = torch.zeros(1, 1, 9, 9)
    spot[..., 4, 4] = 256
    one = torch.tensor([1.0, 4, 6, 4, 1])
    assert torch.allclose(regularizers.blurred(spot)[0, 0, 2:7, 2:7], torch.outer(one, one))


def test_sameness_is_the_cosine_of_gram_matrices() -> None:
    x = torch.randn(3, 4, 5, 5, generator=torch.Generator().manual_seed(0))
    flat = x.flatten(2)
    grams = [(item @ item.T).flatten() for item in flat]
    wanted = (
        torch.cosine_similarity(grams[0], grams[1], 0)
        + torch.cosine_similarity(grams[0], grams[2], 0)
    ) / 2
    assert float(regularizers.sameness(x)[0]) == pytest.approx(float(wanted), rel=1e-5)
    shuffled = x[:1, :, torch.randperm(5)]  # a texture is the same wherever it stands
    assert float(regularizers.sameness(torch.cat([x[:1], shuffled]))[0]) == pytest.approx(1)
    assert regularizers.sameness(x[:1]).tolist() == [0]


# Dead starts -------------------------------------------------------------------------------------


def shut_net(bias: float = -1.0, activation: nn.Module | None = None) -> ModuleModel:
    """Make a net whose units are shut where an ascent starts, at grey."""
    torch.manual_seed(0)
    net = named(
        conv=nn.Conv2d(3, 4, 5, padding=2),
        relu=activation or nn.ReLU(),
        wide=nn.Conv2d(4, 4, 3, padding=1),
        last=nn.ReLU6(),
    )
    # Smooth filters, as those of trained nets are, that answer to grey with the bias.
    smooth = nn.functional.interpolate(torch.randn(4, 3, 2, 2), 5, mode="bilinear") / 5
    net.conv.weight.data = smooth - smooth.mean((1, 2, 3), keepdim=True)
    net.conv.bias.data.fill_(bias)
    net.wide.weight.data.abs_()
    net.wide.bias.data.fill_(-1.0)
    return ModuleModel(net, PICTURE)


@pytest.mark.parametrize("unit", ["relu:c1", "last:c1"])
def test_a_unit_that_is_dead_at_the_start_is_brought_to_life(unit: str) -> None:
    model = shut_net()
    wanted = objective(model, unit)
    # Plain ascent on the same start: value and gradient are 0, and stay so.
    made = Optimization(model, wanted, Climb(steps=150, transforms="none"))
    x = made.frame().clone().requires_grad_()
    plain = torch.optim.Adam([x], lr=0.05)
    for _ in range(150):
        plain.zero_grad()
        value = wanted.value(ModuleEngine.of(model).run(x, wanted.hooks).values)
        (-value.sum()).backward()
        plain.step()
    assert float(value) == 0
    assert torch.equal(x.detach(), made.frame())
    list(run(made))
    assert made.curve[0] == 0
    assert made.curve[-1] > 0.1
    assert made.note is not None
    assert "was dead at the start" in made.note
    assert "leaky gradient" in made.note
    assert climbed(small_net(), "second:c2", 3).note is None


def test_where_the_leaky_gradient_does_not_lead_another_start_is_taken() -> None:
    # A threshold that is no rectifier that is known: only contrast gets over it.
    model = shut_net(activation=nn.Threshold(0, 0))
    made = climbed(model, "relu:c1", 30, transforms="none")
    assert made.curve[-1] > made.curve[0] >= 0
    assert made.note is not None
    assert "other starts" in made.note


def test_a_unit_that_nothing_wakes_ends_with_a_sentence_not_a_grey_picture() -> None:
    model = shut_net(bias=-1e6)
    made = Optimization(model, objective(model, "relu:c1"), Climb(steps=300, batch=2))
    with pytest.raises(ModelError, match=r"relu:c1 \(picture 1\) is dead: it stays at 0 with"):
        list(run(made))
    assert made.best.value == 0
    assert made.steps < 100
    with pytest.raises(ModelError, match="is dead"):  # and does not start over
        made.step()


def test_a_batch_in_which_some_are_dead_lets_the_others_climb_as_they_would() -> None:
    model = shut_net()
    shut: Any = model.module.get_submodule("conv")
    starts = torch.full((2, 3, 24, 24), 0.5)
    starts[1] += 0.45 * shut.weight[1].detach().sign().repeat(1, 5, 5)[:, :24, :24]
    made = Optimization(
        model,
        objective(model, "relu:c1"),
        Climb(steps=20, batch=2, transforms="none"),
        start=starts,
    )
    alone = Optimization(
        model, objective(model, "relu:c1"), Climb(steps=20, transforms="none"), start=starts[1]
    )
    first = made.step()
    assert first.values[0] == 0 < first.values[1]
    list(run(made))
    list(run(alone))
    assert made.note is not None
    assert "picture 1" in made.note
    assert "picture 2" not in made.note
    assert torch.allclose(made.frame()[1], alone.frame()[0], atol=1e-4)


@pytest.mark.parametrize(
    "rectify",
    [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.functional.relu,
        torch.relu,
        lambda x: x.relu(),
        lambda x: x.clamp(min=0),
        lambda x: x.clamp_min(0),
        lambda x: torch.clamp(x, 0),
    ],
)
@pytest.mark.parametrize("ends", [False, True])
def test_a_leaky_gradient_leads_back_in_and_leaves_values_alone(rectify: Any, ends: bool) -> None:
    if ends:
        rectify = nn.ReLU6() if isinstance(rectify, nn.Module) else lambda x: x.clamp(0, 6)
    z = torch.tensor([-2.0, 1.0, 9.0])
    x = z.clone().requires_grad_()
    with LeakyGradient():
        y = rectify(x * 1)
    assert torch.equal(y, rectify(z.clone()))
    (up,) = torch.autograd.grad(-y.sum(), x, retain_graph=True)
    (down,) = torch.autograd.grad(y.sum(), x)
    # Minimising -y pushes up: into the open range from below, further out above.
    assert up.tolist() == ([-1, -1, 0] if ends else [-1, -1, -1])
    assert down.tolist() == ([0, 1, 1])
    (outside,) = torch.autograd.grad(rectify(x * 1).sum(), x)
    assert outside.tolist() == ([0, 1, 0] if ends else [0, 1, 1])


# Bad input ---------------------------------------------------------------------------------------


class Breaks(nn.Module):
    """Is fine until a value is high, and then NaN."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0.7, torch.nan, x)


def test_nan_ends_the_ascent_with_a_sentence_and_the_best_is_kept() -> None:
    torch.manual_seed(0)
    model = ModuleModel(named(conv=nn.Conv2d(3, 2, 3), breaks=Breaks()), PICTURE)
    made = Optimization(model, objective(model, "breaks:c1"), Climb(steps=400))
    with pytest.raises(ModelError, match=r"NaN.*The best so far, .* is kept"):
        list(run(made))
    assert 0 < made.steps < 400
    assert math.isfinite(made.best.value)
    assert made.best.value == max(made.curve)
    assert made.best.frame.isfinite().all()
    with pytest.raises(ModelError, match="NaN"):
        made.step()


def test_a_value_that_is_not_finite_is_said() -> None:
    model = small_net()
    wrong = objective(model, lambda v: v["first"].mean((1, 2, 3)) / 0, paths="first", name="ratio")
    made = Optimization(model, wrong, Climb(steps=5))
    with pytest.raises(ModelError, match=r"ratio became -?inf"):
        made.step()


def test_a_module_without_a_gradient_is_said() -> None:
    class Rounded(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.detach().round()

    model = ModuleModel(named(conv=nn.Conv2d(3, 2, 3), rounded=Rounded()), PICTURE)
    with pytest.raises(ModelError, match=r"No gradient of rounded:?.* reaches the input"):
        Optimization(model, objective(model, "rounded:c1"), Climb(steps=5)).step()
    steps = objective(model, lambda v: v["conv"].argmax(1).float().mean((1, 2)), paths="conv")
    with pytest.raises(ModelError, match="not differentiable"):
        Optimization(model, steps, Climb(steps=5)).step()


def test_a_size_that_the_network_cannot_take_is_said() -> None:
    model = small_net()
    with pytest.raises(InputError, match="size of 4 is too small"):
        Optimization(model, objective(model, "second:c2"), Climb(size=4))
    net = named(conv=nn.Conv2d(3, 2, 3), flat=nn.Flatten(1), out=nn.Linear(2 * 22 * 22, 3))
    fussy = ModuleModel(net, Stimulus((3, None, None), size=24))
    made = Optimization(fussy, objective(fussy, "out:c1"), Climb(size=30, transforms="none"))
    with pytest.raises(InputError, match="does not take a batch of the shape"):
        made.step()


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"steps": 0}, "steps is a whole number from 1 on"),
        ({"batch": 0}, "batch is a whole number from 1 on"),
        ({"seed": -1}, "seed is a whole number from 0 on"),
        ({"seed": 2**63}, "less than"),
        ({"rate": 0.0}, "rate is a number that is positive"),
        ({"tv": -1.0}, "tv is a number that is 0 or more"),
        ({"l2": math.nan}, "l2 is a number"),
        ({"decay": math.nan}, "decay is a number"),
        ({"parameterization": "wavelet"}, "fourier or pixel"),
        ({"transforms": True}, "moved as crops, lucid, none, not True"),
    ],
)
def test_a_climb_says_what_is_wrong_with_it(how: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        Climb(**how)


def test_a_unit_or_a_start_that_does_not_fit_is_said_before_anything_runs() -> None:
    model = small_net()
    with pytest.raises(AddressError, match="6 channels"):
        objective(model, "second:c9")
    with pytest.raises(InputError, match="the model takes 0 to 1"):
        Optimization(model, objective(model, "second:c2"), start=torch.full((3, 24, 24), 2.0))
    with pytest.raises(InputError, match="Nothing has run yet"):
        _ = Optimization(model, objective(model, "second:c2")).best


# The history -------------------------------------------------------------------------------------


@pytest.mark.parametrize("frames", [3, 4, 7, 16])
def test_a_history_stays_in_its_budget_and_evenly_spaced(frames: int) -> None:
    shape = (1, 3, 10, 10)
    history = History(PICTURE, shape, budget=frames * 300 + 299)
    for step in range(200):
        history.add(step, torch.full(shape, step / 255), best=step == 63)
        assert history.nbytes <= frames * 300 + 299
        steps = history.steps
        assert steps[0] == 0
        assert steps[-1] == step
        even = [s for s in steps if s not in {63, step}]
        gaps = {b - a for a, b in itertools.pairwise(even)}
        assert gaps <= {history.stride, 2 * history.stride}
        assert len(steps) >= min(step, (frames - 2) // 2)
    assert 63 in steps
    nearest, frame = history.frame(63)
    assert nearest == 63
    assert torch.allclose(frame, torch.full(shape, 63 / 255), atol=1e-6)
    assert history.packed(10**6)[0] == 199
    with pytest.raises(BudgetError, match="give it 900"):
        History(PICTURE, shape, budget=899)


def test_frames_that_are_no_pictures_keep_their_range() -> None:
    sound = Stimulus((1, 50), low=-20, high=20, renderer="curve")
    history = History(sound, (2, 1, 50), budget=1000)
    x = torch.linspace(-20, 20, 100).view(2, 1, 50)
    history.add(0, x, best=True)
    step, packed = history.packed(3)
    assert (step, packed.dtype) == (0, torch.float16)
    assert torch.allclose(history.frame(0)[1], x, rtol=1e-3)


def test_memory_does_not_grow_with_steps_beyond_the_budget() -> None:
    torch.manual_seed(0)
    model = ModuleModel(named(conv=nn.Conv2d(3, 1, 1)), Stimulus((3, 64, 64)))
    budget = 40 * 3 * 64 * 64
    made = Optimization(
        model, objective(model, "conv:c0"), Climb(steps=10**6, transforms="none"), budget=budget
    )

    def after(steps: int) -> int:
        """Return the bytes of all tensors that there are."""
        list(run(made, steps))
        gc.collect()
        tensors = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        return sum(storages.values())

    first = after(100)
    assert made.history.nbytes <= budget
    later = after(400)
    assert made.history.nbytes <= budget
    # All 400 frames would be 4.9 MB as bytes.
    assert later - first < budget
    assert made.history.steps[0] == 0
    assert made.history.steps[-1] == 499
    assert made.best.step in made.history.steps


def test_a_long_curve_is_thinned_evenly() -> None:
    curve = Curve()
    for step in range(20_000):
        curve.add(step, step / 2)
    assert len(curve.steps) <= 8192
    assert curve.steps[:3] == [0, 4, 8]
    assert [2 * value for value in curve.values] == curve.steps


def test_what_a_step_says_is_the_value_of_its_frame() -> None:
    model = small_net()
    made = Optimization(model, objective(model, "second:c2"), Climb(steps=9, transforms="none"))
    engine = ModuleEngine.of(model)
    for step in run(made):
        seen = engine.run(made.frame(), ["second"]).values["second"][:, 2].mean((1, 2))
        assert torch.allclose(seen, step.values, atol=1e-6)
        assert step.value == pytest.approx(float(seen.mean()), abs=1e-6)
    assert made.curve_steps == list(range(9))
    assert made.curve == [pytest.approx(v) for v in json.loads(json.dumps(made.curve))]
    assert made.best.value == max(made.curve)


def test_a_batch_norm_that_wants_a_gradient_has_torchs_values_and_gradient() -> None:
    torch.manual_seed(0)
    net = named(conv=nn.Conv2d(3, 6, 3), norm=nn.BatchNorm2d(6), relu=nn.ReLU())
    net.norm.running_mean.normal_()
    net.norm.running_var.uniform_(0.1, 3)
    net.norm.weight.data.normal_()
    net.norm.bias.data.normal_()
    model = ModuleModel(net.eval(), PICTURE)
    x = torch.rand(2, 3, 9, 9, requires_grad=True)
    ours = ModuleEngine.of(model).run(x, ["norm", "relu"]).values
    theirs = net.norm(net.conv(x))
    assert torch.allclose(ours["norm"], theirs, rtol=1e-4, atol=1e-5)
    (one,) = torch.autograd.grad(ours["relu"].square().sum(), x)
    (two,) = torch.autograd.grad(theirs.relu().square().sum(), x)
    assert torch.allclose(one, two, rtol=1e-4, atol=1e-5)
