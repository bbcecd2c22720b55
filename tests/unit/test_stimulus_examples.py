"""A module's unit over stimuli equals the module itself; places, crops and groups are right."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from patchclamp.engine.module_engine import ModuleEngine
from patchclamp.errors import InputError, ModelError, Stopped
from patchclamp.methods.corpus_examples import examples_of, own_example
from patchclamp.methods.example_groups import CorpusUnit, Survey
from patchclamp.methods.objective import Objective, objective
from patchclamp.methods.receptive_field import ReceptiveField, receptive_field
from patchclamp.methods.stimulus_examples import StimulusExample, stimulus_examples
from patchclamp.models.module_model import ModuleModel
from patchclamp.models.stimulus import Stimulus

if TYPE_CHECKING:
    from collections.abc import Callable

SIDE = 24


def net() -> nn.Sequential:
    torch.manual_seed(3)
    made = nn.Sequential(
        nn.Conv2d(3, 6, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    ).eval()
    return made.requires_grad_(requires_grad=False)


def engine() -> ModuleEngine:
    takes = Stimulus((3, None, None), size=SIDE, smallest=8, mean=(0.5,) * 3, std=(0.25,) * 3)
    return ModuleEngine.of(ModuleModel(net(), takes, name="net"))


def pictures(count: int = 30, side: int = SIDE) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def by_hand(part: int, given: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return net()[: part + 1]((given - 0.5) / 0.25)  # type: ignore[no-any-return]


def on_worker(one: ModuleEngine, job: Callable[[], Any]) -> Any:
    return one.queue.submit(lambda _stop: job()).result(60)


def found_on(stimuli: Any, unit: str = "2:c3", how: Any = "channel", **options: Any) -> CorpusUnit:
    one = engine()
    return examples_of(one, objective(one.model, unit, how), stimuli, Survey(**options))


def the(example: Any) -> StimulusExample:
    assert isinstance(example, StimulusExample)
    return example


@pytest.mark.parametrize("how", ["channel", "centre", "peak"])
def test_every_activation_and_its_statistics_equal_the_module_itself(how: str) -> None:
    given = pictures()
    found = found_on(given, how=how)
    truth = by_hand(2, given)[:, 3]
    middle = truth.shape[1] // 2
    each = {
        "channel": truth.mean((1, 2)),
        "centre": truth[:, middle, middle],
        "peak": truth.amax((1, 2)),
    }[how]
    assert each.std() > 0.005
    assert torch.allclose(found.values, each, atol=1e-6)
    assert found.maximum == float(found.values.max())
    assert found.mean == pytest.approx(float(each.double().mean()), abs=1e-6)
    assert found.sd == pytest.approx(float(each.double().std(correction=0)), abs=1e-6)
    assert (found.of, found.count, found.total, found.sources) == ("stimuli", 30, 30, 30)
    best = the(found.groups[0].examples[0])
    assert best.source == int(each.argmax())
    assert torch.allclose(best.map, truth[best.source], atol=1e-6)
    assert torch.equal(best.stimulus, given[best.source])
    if how == "centre":
        assert best.peak == (middle, middle)
    else:
        assert float(best.map[best.peak]) == float(best.map.max())


def test_a_logit_has_no_places() -> None:
    given = pictures(5)
    found = found_on(given, "5:c2")
    assert torch.allclose(found.values, by_hand(5, given)[:, 2], atol=1e-6)
    best = the(found.groups[0].examples[0])
    assert best.map.ndim == 0
    assert (best.peak, best.seen) == ((), ())
    assert torch.equal(best.crop, best.stimulus)


def test_stimuli_of_several_sizes_keep_their_order_and_their_names() -> None:
    mixed = {
        "a": pictures(1, 24)[0],
        "b": pictures(1, 32)[0],
        "c": pictures(2, 24)[1],
        "d": pictures(1, 16)[0],
    }
    found = found_on(mixed)
    truth = [float(by_hand(2, stimulus[None])[0, 3].mean()) for stimulus in mixed.values()]
    assert found.values.tolist() == pytest.approx(truth, abs=1e-6)
    names = {the(e).source: the(e).name for group in found.groups for e in group.examples}
    assert names == dict(enumerate(mixed))
    unnamed = found_on(list(mixed.values()))
    assert the(unnamed.groups[0].examples[0]).name == f"stimulus {unnamed.values.argmax()}"


def test_the_receptive_field_is_what_can_change_the_unit_and_nothing_else() -> None:
    one = engine()
    field = on_worker(one, lambda: receptive_field(one, "2", (3, SIDE, SIDE)))
    assert isinstance(field, ReceptiveField)
    # A 3 x 3 of places of a 5 x 5 at stride 2: 9 pixels wide.
    ((top, bottom), (left, right)) = field.at((6, 6))
    assert (bottom - top, right - left) == (9, 9)
    given = pictures(1)
    for place in ((6, 6), (3, 8), (0, 11), (5, 1)):
        (top, bottom), (left, right) = field.at(place)
        before = by_hand(2, given)[0, :, place[0], place[1]]
        outside = torch.rand(given.shape, generator=torch.Generator().manual_seed(9))
        outside[..., top:bottom, left:right] = given[..., top:bottom, left:right]
        assert torch.equal(by_hand(2, outside)[0, :, place[0], place[1]], before)
        inside = given.clone()
        inside[..., top:bottom, left:right] += 0.1
        assert not torch.allclose(by_hand(2, inside)[0, :, place[0], place[1]], before, atol=1e-4)


def test_a_crop_is_what_the_peak_sees() -> None:
    found = found_on(pictures(), how="peak")
    for example in (the(e) for e in found.groups[0].examples):
        (top, bottom), (left, right) = example.seen
        assert torch.equal(example.crop, example.stimulus[:, top:bottom, left:right])
        # Everything else can be grey: the largest activation stays where and what it was.
        grey = torch.full_like(example.stimulus, 0.5)
        grey[:, top:bottom, left:right] = example.crop
        at = by_hand(2, grey[None])[0, 3][example.peak]
        assert float(at) == pytest.approx(example.activation, abs=1e-6)


def test_a_unit_that_sees_the_whole_stimulus_is_cropped_to_all_of_it() -> None:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(1, 2, 9, padding=4), nn.Conv2d(2, 2, 9, padding=4))
    one = ModuleEngine.of(ModuleModel(made, Stimulus((1, 12, 12))))
    found = examples_of(one, objective(one.model, "1:c0"), torch.rand(3, 1, 12, 12))
    assert all(the(e).seen == ((0, 12), (0, 12)) for e in found.groups[0].examples)


def test_a_sequence_is_measured_over_time() -> None:
    torch.manual_seed(0)
    ears = nn.Sequential(nn.Conv1d(1, 4, 5), nn.Tanh())
    takes = Stimulus((1, None), low=-1, high=1, renderer="curve", size=40, smallest=5)
    one = ModuleEngine.of(ModuleModel(ears, takes, name="ears"))
    sounds = torch.rand(8, 1, 40) * 2 - 1
    found = examples_of(one, objective(one.model, "1:c2", "peak"), sounds)
    with torch.no_grad():
        truth = ears(sounds)[:, 2]
    assert torch.allclose(found.values, truth.amax(1), atol=1e-6)
    best = the(found.groups[0].examples[0])
    ((begin, end),) = best.seen
    assert end - begin == 5
    assert best.crop.shape == (1, 5)


def test_a_module_through_which_no_gradient_comes_is_measured_without_crops() -> None:
    class Threshold(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x > 0.5).float()

    made = nn.Sequential(Threshold(), nn.Conv2d(1, 2, 3))
    one = ModuleEngine.of(ModuleModel(made, Stimulus((1, 8, 8))))
    found = examples_of(one, objective(one.model, "1:c1"), torch.rand(4, 1, 8, 8))
    assert found.count == 4
    assert all(the(e).seen == () for e in found.groups[0].examples)


def test_a_function_of_activations_is_measured_too() -> None:
    one = engine()
    power = Objective.of_function(lambda v: v["1"].square().mean((1, 2, 3)), paths=("1",), name="p")
    given = pictures(6)
    found = examples_of(one, power, given)
    assert torch.allclose(found.values, by_hand(1, given).square().mean((1, 2, 3)), atol=1e-6)
    assert the(found.groups[0].examples[0]).peak == ()


def test_the_users_own_picture_is_measured_as_the_corpus_is() -> None:
    one = engine()
    unit = objective(one.model, "2:c3", "peak")
    given = pictures()
    found = examples_of(one, unit, given)
    own = the(on_worker(one, lambda: own_example(one, unit, given[7], "mine.png")))
    assert own.activation == pytest.approx(float(found.values[7]), abs=1e-6)
    assert (own.source, own.name) == (-1, "mine.png")
    assert own.map.shape == (SIDE // 2, SIDE // 2)
    assert found.share_above(own.activation - 1e-5) > 0


def test_a_stop_keeps_what_was_measured() -> None:
    one = engine()
    unit = objective(one.model, "2:c3")
    stop = False

    def partly() -> CorpusUnit:
        nonlocal stop
        steps = stimulus_examples(one, unit, pictures(800, 40), should_stop=lambda: stop)
        scan = next(steps)
        stop = True
        with pytest.raises(Stopped):
            next(steps)
        return scan.so_far()

    found = on_worker(one, partly)
    assert 0 < found.done < found.total == 800
    assert not found.finished


def test_the_table_says_where_the_peak_is() -> None:
    table = found_on(pictures(), how="peak", top=2, each=1).frame()
    assert list(table.columns) == ["group", "activation", "source", "label", "peak", "seen"]
    assert table["activation"].is_monotonic_decreasing or "lowest" in set(table["group"])


@pytest.mark.parametrize(
    ("stimuli", "said"),
    [
        ([], "a list of stimuli with at least one in it"),
        ({}, "a list of stimuli with at least one in it"),
        ([torch.rand(3, 4, 4)], "stimulus 0: A size of 4 is too small"),
        ({"x.png": torch.rand(1, 24, 24)}, r"x.png: The model takes stimuli of the shape"),
        ([torch.rand(3, 24, 24), torch.rand(3, 24, 24) * 9], "stimulus 1: The stimulus has values"),
        ([torch.rand(2, 3, 24, 24)], "The model takes stimuli of the shape"),
    ],
)
def test_stimuli_that_the_model_does_not_take_are_named(stimuli: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        found_on(stimuli)


def test_an_activation_that_is_no_number_is_told() -> None:
    one = engine()
    with torch.no_grad():
        one.model.module[2].weight.fill_(torch.nan)  # type: ignore[index]
    with pytest.raises(ModelError, match="NaN"):
        examples_of(one, objective(one.model, "2:c3"), pictures(2))
