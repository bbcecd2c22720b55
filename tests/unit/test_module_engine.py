"""The module engine reads, changes, ends early and leaves everything as it was."""

from __future__ import annotations

import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from patchclamp.engine.module_engine import ModuleEngine
from patchclamp.errors import AddressError, InputError, InterventionError, ModelError, Stopped
from patchclamp.interventions import Ablate, Add, Clamp, Intervention, Patch, Scale
from patchclamp.models.stimulus import Stimulus
from tests.unit import small_modules as small

if TYPE_CHECKING:
    from patchclamp.models.module_model import ModuleModel


@pytest.fixture
def pictures() -> ModuleModel:
    return small.convolutions()


def engine(model: ModuleModel) -> ModuleEngine:
    return ModuleEngine.of(model)


def by_hand(model: ModuleModel, stimuli: Tensor) -> dict[str, Tensor]:
    """What the picture classifier's layers give, computed one after the other on a copy."""
    net = copy.deepcopy(model.module)
    assert isinstance(net, small.Convolutions)
    with torch.no_grad():
        first = net.first(model.prepare(stimuli))
        norm = net.norm(first)
        relu = norm.relu()
        second = net.second(relu)
        relu_again = second.relu()
        pool = net.pool(relu_again)
        out = net.out(pool.flatten(1))
    return {
        "first": first,
        "norm": norm,
        "relu": relu,
        "second": second,
        "relu@1": relu_again,
        "pool": pool,
        "out": out,
    }


# Reading ----------------------------------------------------------------------------------------


def test_every_part_reads_as_its_layers_compute_it_in_place_or_not(pictures: ModuleModel) -> None:
    stimuli = small.draw(small.PICTURE, 3)
    truth = by_hand(pictures, stimuli)
    run = engine(pictures).run(stimuli, list(truth), output=True)
    assert list(run.values) == list(truth)
    for key, value in truth.items():
        assert value.abs().max() > 0.01
        torch.testing.assert_close(run.values[key], value)
    torch.testing.assert_close(run.output, truth["out"])


@pytest.mark.parametrize("size", [4, 7, 12, 33])
def test_any_size_goes_through(pictures: ModuleModel, size: int) -> None:
    stimuli = small.draw(small.PICTURE, 2, size=size)
    run = engine(pictures).run(stimuli, ["first"], output=True)
    assert run.values["first"].shape == (2, 6, size, size)
    assert run.output is not None
    assert run.output.shape == (2, 5)


@pytest.mark.parametrize(
    ("paths", "modules"),
    [(["first"], 1), (["norm"], 2), (["relu"], 3), (["relu@1"], 5), (["first", "second"], 4)],
)
def test_no_module_runs_after_the_last_wanted_part(
    pictures: ModuleModel, paths: list[str], modules: int
) -> None:
    run = engine(pictures).run(small.draw(small.PICTURE), paths)
    assert run.modules == modules
    assert run.output is None


def test_a_later_part_that_would_fail_is_never_reached() -> None:
    class Fails(nn.Module):
        armed = False

        def forward(self, x: Tensor) -> Tensor:
            if Fails.armed:
                raise AssertionError("it ran")
            return x

    model = small.model(nn.Sequential(nn.Conv1d(1, 2, 1), Fails()), small.ROW)
    Fails.armed = True
    stimuli = small.draw(small.ROW)
    assert engine(model).run(stimuli, ["0"]).modules == 1
    with pytest.raises(InputError, match=r"tiny does not take a batch .*\(2, 1, 4\): it ran"):
        engine(model).run(stimuli, ["1"])


@pytest.mark.parametrize("batch_first", [True, False])
def test_a_recurrent_nets_outputs_are_read_channels_first(batch_first: bool) -> None:
    model = small.model(small.Recurrent(batch_first=batch_first), small.SEQUENCE)
    net = model.module
    assert isinstance(net, small.Recurrent)
    stimuli = small.draw(small.SEQUENCE, 3, size=9)
    run = engine(model).run(stimuli, ["lstm", "out"])
    given = stimuli.transpose(1, 2) if batch_first else stimuli.permute(2, 0, 1)
    with torch.no_grad():
        states = net.lstm(given)[0]
    truth = states.transpose(1, 2) if batch_first else states.permute(1, 2, 0)
    torch.testing.assert_close(run.values["lstm"], truth)
    assert run.values["out"].shape == (3, 3)


def test_each_step_of_a_cell_is_a_call_of_it() -> None:
    model = small.model(small.Cells(), small.STEPS)
    assert model.anatomy.parts["cell"].calls == 5
    stimuli = small.draw(small.STEPS)
    run = engine(model).run(stimuli, ["cell", "cell@2", "cell@4"], output=True)
    net = model.module
    assert isinstance(net, small.Cells)
    state = torch.zeros(2, 5)
    with torch.no_grad():
        for step in range(5):
            state = net.cell(stimuli[:, :, step], state)
            if step in {0, 2, 4}:
                key = "cell" if step == 0 else f"cell@{step}"
                torch.testing.assert_close(run.values[key], state)


def test_sound_goes_through_a_convolution_over_time() -> None:
    ears = nn.Sequential(nn.Conv1d(1, 4, 5, stride=2), nn.ReLU(), nn.Conv1d(4, 3, 3))
    sound = Stimulus((1, None), low=-1, high=1, renderer="curve", size=40, smallest=9)
    model = small.model(ears, sound)
    run = engine(model).run(small.draw(sound, 2, size=21), ["1"], output=True)
    assert run.values["1"].shape == (2, 4, 9)
    assert run.output is not None
    assert run.output.shape == (2, 3, 7)
    with pytest.raises(InputError, match="A size of 8 is too small"):
        engine(model).run(torch.zeros(2, 1, 8), ["1"])


def test_a_value_that_the_model_writes_into_later_is_kept_as_it_was() -> None:
    model = small.model(small.Overwrites(), small.ROW)
    net = model.module
    assert isinstance(net, small.Overwrites)
    stimuli = small.draw(small.ROW)
    for _ in range(2):  # found out the first time, known the second
        run = engine(model).run(stimuli, ["first", "second"])
        truth = net.first(stimuli.flatten(1)).detach()
        assert torch.equal(run.values["first"], truth)


def test_a_value_of_a_stateful_module_starts_from_the_users_own_state() -> None:
    model = small.model(small.Leaky(), Stimulus((2, 3), renderer="curve"))
    stimuli = small.draw(model.stimulus)
    before = model.module.get_buffer("membrane").clone()
    first, second = (engine(model).run(stimuli, output=True).output for _ in range(2))
    assert first is not None
    assert second is not None
    assert torch.equal(first, second)
    assert torch.equal(model.module.get_buffer("membrane"), before)


def test_an_update_of_the_users_weights_shows_in_the_next_run(pictures: ModuleModel) -> None:
    stimuli = small.draw(small.PICTURE)
    before = engine(pictures).run(stimuli, ["out"]).values["out"]
    net = pictures.module
    assert isinstance(net, small.Convolutions)
    with torch.no_grad():
        net.out.bias.add_(1)
        net.norm.running_mean = torch.ones(6)  # a buffer replaced
    after = engine(pictures).run(stimuli, ["out"]).values["out"]
    torch.testing.assert_close(after, by_hand(pictures, stimuli)["out"])
    assert (after - before - 1).abs().max() > 0.01


def test_a_model_in_training_is_run_in_evaluation_mode_and_stays_in_training() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(4, 3))
    model = small.model(net.train(), small.ROW)
    stimuli = small.draw(small.ROW)
    runs = [engine(model).run(stimuli, ["2"]).values["2"] for _ in range(3)]
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0], runs[2])
    assert net.training
    assert net[1].training


# Gradients --------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["norm", "second", "relu@1", "out"])
def test_the_gradient_at_the_stimulus_is_autograds(pictures: ModuleModel, path: str) -> None:
    stimuli = small.draw(small.PICTURE).double().requires_grad_()
    pictures.module.double()

    def value(given: Tensor) -> Tensor:
        found: Tensor = engine(pictures).run(given, [path]).values[path]
        return found.square().sum()

    (grad,) = torch.autograd.grad(value(stimuli), stimuli)
    step = torch.zeros_like(stimuli)
    step[1, 2, 3, 4] = 1e-6
    with torch.no_grad():
        slope = (value(stimuli + step) - value(stimuli - step)) / 2e-6
    torch.testing.assert_close(grad[1, 2, 3, 4], slope, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_norm_gives_the_same_with_and_without_a_gradient(affine: bool) -> None:
    net = nn.Sequential(nn.Conv1d(1, 3, 1), nn.BatchNorm1d(3, affine=affine, eps=0.1))
    model = small.model(net.eval(), small.ROW)
    stimuli = small.draw(small.ROW)
    plain = engine(model).run(stimuli, ["1"]).values["1"]
    asks = stimuli.clone().requires_grad_()
    found = engine(model).run(asks, ["1"]).values["1"]
    torch.testing.assert_close(found, plain)
    (grad,) = torch.autograd.grad(found.square().sum(), asks)
    given = stimuli.clone().requires_grad_()
    (truth,) = torch.autograd.grad(net(given).square().sum(), given)
    torch.testing.assert_close(grad, truth)


def test_a_backward_pass_leaves_nothing_on_the_users_weights(pictures: ModuleModel) -> None:
    assert all(parameter.requires_grad for parameter in pictures.module.parameters())
    stimuli = small.draw(small.PICTURE).requires_grad_()
    engine(pictures).run(stimuli, ["out"]).values["out"].sum().backward()
    assert stimuli.grad is not None
    assert stimuli.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in pictures.module.parameters())


def test_no_graph_is_made_where_none_is_asked_for(pictures: ModuleModel) -> None:
    plain = small.draw(small.PICTURE)
    asks = plain.clone().requires_grad_()
    assert not engine(pictures).run(plain, ["out"]).values["out"].requires_grad
    assert engine(pictures).run(asks, ["out"]).values["out"].requires_grad
    with torch.no_grad():
        assert not engine(pictures).run(asks, ["out"]).values["out"].requires_grad


def test_a_threshold_on_the_way_is_said() -> None:
    model = small.model(small.Heaviside(), small.ROW)
    stimuli = small.draw(small.ROW)
    assert engine(model).run(stimuli, ["spikes"]).values["spikes"].shape == (2, 4)
    stimuli.requires_grad_()
    assert engine(model).run(stimuli, ["drive"]).values["drive"].requires_grad
    with pytest.raises(ModelError, match=r"No gradient of spikes reaches the input.*a thresh"):
        engine(model).run(stimuli, ["spikes"])


# Interventions ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("intervention", "expected"),
    [
        (Ablate("second:c2", "zero"), torch.zeros_like),
        (Clamp("second:c2", 1.5), lambda old: torch.full_like(old, 1.5)),
        (Scale("second:c2", -2.0), lambda old: old * -2),
        (Add("second:c2", 0.25), lambda old: old + 0.25),
    ],
)
def test_an_intervention_changes_its_channel_and_what_comes_after(
    pictures: ModuleModel, intervention: Intervention, expected: object
) -> None:
    assert callable(expected)
    stimuli = small.draw(small.PICTURE)
    truth = by_hand(pictures, stimuli)
    run = engine(pictures).run(
        stimuli, ["norm", "second", "relu@1"], output=True, interventions=[intervention]
    )
    wanted = truth["second"].clone()
    wanted[:, 2] = expected(wanted[:, 2])
    torch.testing.assert_close(run.values["second"], wanted)
    torch.testing.assert_close(run.values["relu@1"], wanted.relu())
    torch.testing.assert_close(run.values["norm"], truth["norm"])
    net = pictures.module
    assert isinstance(net, small.Convolutions)
    with torch.no_grad():
        logits = net.out(wanted.relu().mean((2, 3)))
    torch.testing.assert_close(run.output, logits)


def test_interventions_act_in_order_and_muted_ones_do_not(pictures: ModuleModel) -> None:
    stimuli = small.draw(small.PICTURE)
    stack = [Add("out:c1", 1), Scale("out:c1", 3), Clamp("out:c0", 7, muted=True)]
    truth = by_hand(pictures, stimuli)["out"]
    out = engine(pictures).run(stimuli, ["out"], interventions=stack).values["out"]
    torch.testing.assert_close(out[:, 1], (truth[:, 1] + 1) * 3)
    torch.testing.assert_close(out[:, 0], truth[:, 0])


def test_without_positions_every_call_is_changed_and_with_one_only_that(
    pictures: ModuleModel,
) -> None:
    stimuli = small.draw(small.PICTURE)
    keys = ["relu", "relu@1"]
    both = engine(pictures).run(stimuli, keys, interventions=[Clamp("relu:c1", 9)]).values
    last = engine(pictures).run(stimuli, keys, interventions=[Clamp("relu:c1@1", 9)]).values
    assert [bool((both[key][:, 1] == 9).all()) for key in keys] == [True, True]
    assert [bool((last[key][:, 1] == 9).all()) for key in keys] == [False, True]


def test_a_mean_is_taken_over_the_reference_and_over_space(pictures: ModuleModel) -> None:
    reference = small.draw(small.PICTURE, 37, seed=5)  # more than run at once
    stimuli = small.draw(small.PICTURE)
    ablate = Ablate("{second:c2, second:c5}", "mean")
    truth = by_hand(pictures, reference)["second"].mean((0, 2, 3))
    found = engine(pictures).run(stimuli, ["second"], interventions=[ablate], reference=reference)
    for channel in (2, 5):
        wanted = truth[channel].expand(2, 6, 6)
        torch.testing.assert_close(found.values["second"][:, channel], wanted)
    logits = engine(pictures).means(reference, ["out"])["out"]
    torch.testing.assert_close(logits, by_hand(pictures, reference)["out"].mean(0))
    reference *= 0  # written into: the kept means are of other stimuli
    assert not torch.equal(engine(pictures).means(reference, ["out"])["out"], logits)


def test_a_part_that_returns_a_tuple_can_be_changed_too() -> None:
    model = small.model(small.Recurrent(batch_first=False), small.SEQUENCE)
    stimuli = small.draw(small.SEQUENCE)
    clamp = Clamp("lstm:c3", 2.0)
    run = engine(model).run(stimuli, ["lstm"], output=True, interventions=[clamp])
    plain = engine(model).run(stimuli, ["lstm"], output=True)
    assert bool((run.values["lstm"][:, 3] == 2).all())
    assert torch.equal(run.values["lstm"][:, 2], plain.values["lstm"][:, 2])
    assert run.output is not None
    assert plain.output is not None
    assert not torch.equal(run.output, plain.output)


def test_the_gradient_goes_through_what_is_changed(pictures: ModuleModel) -> None:
    stimuli = small.draw(small.PICTURE).requires_grad_()
    scaled = engine(pictures).run(stimuli, ["second"], interventions=[Scale("second:c2", 5)])
    (grad,) = torch.autograd.grad(scaled.values["second"][:, 2].sum(), stimuli)
    plain = engine(pictures).run(stimuli, ["second"]).values["second"][:, 2].sum()
    (single,) = torch.autograd.grad(plain, stimuli)
    torch.testing.assert_close(grad, single * 5)


@pytest.mark.parametrize(
    ("intervention", "error", "sentence"),
    [
        (Ablate("second:c2", "mean"), InterventionError, "needs stimuli to take the mean over"),
        (Ablate("second:c2", "resample"), InterventionError, "Ablate is to zero or to the mean"),
        (Patch("second:c2"), InterventionError, "cannot be done to channels of a module"),
        (Clamp("second:c99", 1), AddressError, "second has 8 channels"),
        (Clamp("L1.N7", 1), AddressError, "an address in a language model"),
    ],
)
def test_an_intervention_that_cannot_be_done_is_refused(
    pictures: ModuleModel, intervention: Intervention, error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        engine(pictures).run(small.draw(small.PICTURE), output=True, interventions=[intervention])


# What is wrong is said, and changes nothing -----------------------------------------------------


@pytest.mark.parametrize(
    ("stimuli", "sentence"),
    [
        (torch.rand(3, 12, 12), r"a batch of the shape \(batch, 3, any, any\), not \(3, 12, 12\)"),
        (torch.rand(0, 3, 12, 12), r"not \(0, 3, 12, 12\)"),
        (torch.rand(1, 1, 12, 12), r"the shape \(3, any, any\), not \(1, 12, 12\)"),
        (torch.rand(1, 3, 3, 3), "A size of 3 is too small for this model: it takes 4 or more"),
        (torch.full((1, 3, 12, 12), torch.nan), "hold NaN"),
    ],
)
def test_stimuli_that_cannot_be_run_are_refused(
    pictures: ModuleModel, stimuli: Tensor, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        engine(pictures).run(stimuli, ["out"])


def test_paths_that_do_not_exist_or_do_not_run_are_refused(pictures: ModuleModel) -> None:
    stimuli = small.draw(small.PICTURE)
    with pytest.raises(AddressError, match="The nearest is second"):
        engine(pictures).run(stimuli, ["secnd"])
    with pytest.raises(ModelError, match="second@1 did not run"):
        engine(pictures).run(stimuli, ["second@1"])
    with pytest.raises(ModelError, match="names no call of second"):
        engine(pictures).run(stimuli, ["second@x"])


def test_nan_inside_is_said_with_where_it_is(pictures: ModuleModel) -> None:
    stack = [Clamp("second:c0", 3e38), Scale("second:c0", 1e30)]  # infinite, and 0 times that
    with pytest.raises(ModelError, match="pictures gave NaN at the output"):
        engine(pictures).run(
            small.draw(small.PICTURE),
            output=True,
            interventions=[*stack, Scale("second:c0", 0.0)],
        )


def test_a_run_that_is_stopped_stops_within_a_module_and_changes_nothing(
    pictures: ModuleModel,
) -> None:
    stimuli = small.draw(small.PICTURE)
    asked: list[int] = []

    def after_three() -> bool:
        asked.append(1)
        return len(asked) > 3

    with pytest.raises(Stopped):
        engine(pictures).run(stimuli, ["out"], should_stop=after_three)
    assert len(asked) == 4
    truth = by_hand(pictures, stimuli)["out"]
    torch.testing.assert_close(engine(pictures).run(stimuli, ["out"]).values["out"], truth)


def test_a_failure_in_the_middle_leaves_the_model_as_it_was(pictures: ModuleModel) -> None:
    net = pictures.module
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(InterventionError):
        engine(pictures).run(
            small.draw(small.PICTURE), output=True, interventions=[Ablate("first:c0", "mean")]
        )

    def interrupted() -> bool:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine(pictures).run(small.draw(small.PICTURE), ["out"], should_stop=interrupted)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in net.modules())
    assert not any("forward" in vars(part) for part in net.modules())
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
    stimuli = small.draw(small.PICTURE)
    truth = by_hand(pictures, stimuli)["out"]
    torch.testing.assert_close(engine(pictures).run(stimuli, ["out"]).values["out"], truth)


def test_a_hook_of_the_users_own_never_sees_our_runs(pictures: ModuleModel) -> None:
    seen: list[int] = []
    net = pictures.module
    assert isinstance(net, small.Convolutions)
    net.second.register_forward_hook(lambda *_: seen.append(1))
    engine(pictures).run(small.draw(small.PICTURE), ["out"])
    assert not seen


def test_calls_at_the_same_time_do_not_see_each_other(pictures: ModuleModel) -> None:
    runner = engine(pictures)
    stimuli = [small.draw(small.PICTURE, seed=seed) for seed in range(4)]
    truth = [by_hand(pictures, one)["out"] for one in stimuli]
    assert not torch.allclose(truth[0], truth[1], rtol=1e-3, atol=1e-3)
    together = threading.Barrier(4, timeout=30)

    def ours(which: int) -> bool:
        together.wait()
        right = True
        for _ in range(10):
            if which % 2:
                out = runner.run(stimuli[which], ["out"]).values["out"]
            else:  # the user's own call, while others clamp
                with torch.no_grad():
                    out = pictures.module(pictures.prepare(stimuli[which]))
            right &= torch.allclose(out, truth[which], rtol=1e-5, atol=1e-6)
            clamped = runner.run(stimuli[which], ["out"], interventions=[Clamp("out:c0", 8)])
            right &= bool((clamped.values["out"][:, 0] == 8).all())
        return right

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ours, range(4)))


def test_all_sessions_of_a_model_share_one_engine(pictures: ModuleModel) -> None:
    assert ModuleEngine.of(pictures) is ModuleEngine.of(pictures)
    assert ModuleEngine.of(small.convolutions()) is not ModuleEngine.of(pictures)
