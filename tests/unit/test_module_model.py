"""What a module takes, which parts it has, and what is said when it is not so."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification, ViTModel

from patchclamp.engine.module_engine import ModuleEngine
from patchclamp.errors import AddressError, InputError, ModelError
from patchclamp.interventions import Clamp
from patchclamp.models.language_model import LanguageModel
from patchclamp.models.module_anatomy import ModuleAnatomy
from patchclamp.models.module_model import ModuleModel
from patchclamp.models.shared_weights import frozen_twin
from patchclamp.models.stimulus import Stimulus
from patchclamp.session import Session
from tests.unit import small_modules as small


@pytest.fixture(scope="module")
def pictures() -> ModuleModel:
    return small.convolutions()


# Stimulus ---------------------------------------------------------------------------------------


def test_a_free_size_is_the_declared_one_unless_another_is_asked_for() -> None:
    assert small.PICTURE.example_shape() == (3, 12, 12)
    assert small.PICTURE.example_shape(40) == (3, 40, 40)
    with pytest.raises(InputError, match="A size of 3 is too small for this model: it takes 4 or"):
        small.PICTURE.example_shape(3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"shape": ()}, "one positive size, or None"),
        ({"shape": (3, 0, 4)}, "one positive size, or None"),
        ({"shape": (3, 4, 4), "low": 1, "high": 1}, "goes from low to high, not 1 to 1"),
        ({"shape": (3, 4, 4), "low": math.nan}, "goes from low to high"),
        ({"shape": (3, None, 4)}, "needs size="),
        ({"shape": (3, None, 4), "size": 2, "smallest": 3}, "at least smallest=3"),
        ({"shape": (2, 4, 4)}, r"'image' draws \[1 or 3, height, width\], not"),
        ({"shape": (3, 4, 4), "renderer": "curve"}, r"'curve' draws \[channel, time\]"),
        ({"shape": (3, 4, 4), "renderer": "raster"}, r"'raster' draws \[row, time\] or"),
        ({"shape": (3, 4, 4), "renderer": "film"}, "one of image, curve, raster, not 'film'"),
        ({"shape": (3, 4, 4), "mean": (1.0,)}, "mean has 1 numbers.* is 3"),
        ({"shape": (3, 4, 4), "std": (1.0, 0.0, 1.0)}, "std is positive"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused(
    arguments: dict[str, object], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        Stimulus(**arguments)  # type: ignore[arg-type] # wrong on purpose


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (torch.rand(3, 12), r"the shape \(3, any, any\), not \(3, 12\)"),
        (torch.rand(1, 12, 12), r"not \(1, 12, 12\)"),
        (torch.rand(3, 12, 2), "A size of 2 is too small"),
        (torch.rand(3, 12, 12) * 255, "from .* to .*, and the model takes 0 to 1"),
        (torch.rand(3, 12, 12) - 0.5, "the model takes 0 to 1"),
        (torch.full((3, 12, 12), math.nan), "holds NaN"),
        (torch.full((3, 12, 12), math.inf), "the model takes 0 to 1"),
        (torch.zeros(3, 12, 12, dtype=torch.uint8), "not uint8: convert it, x.float"),
        (torch.zeros(0, 3, 12, 12), "one at least"),
        ([[0.0]], "a torch tensor of numbers, not a list"),
    ],
)
def test_a_stimulus_that_the_model_does_not_take_is_refused(value: Tensor, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        small.PICTURE.check(value)


def test_one_stimulus_and_a_batch_pass_as_they_are_also_with_rounding_at_the_ends() -> None:
    for value in (torch.rand(3, 12, 9), torch.rand(2, 3, 12, 12), torch.full((3, 4, 4), 1 + 1e-6)):
        assert small.PICTURE.check(value) is value


def test_an_endless_range_takes_any_finite_number() -> None:
    endless = Stimulus((1, 4), low=-math.inf, high=math.inf, renderer="curve")
    assert not endless.bounded
    assert endless.middle == 0
    endless.check(torch.full((1, 4), -1e9))
    with pytest.raises(InputError, match="infinite"):
        endless.check(torch.full((1, 4), math.inf))


# What a model says ------------------------------------------------------------------------------


def test_stimuli_are_normalised_by_channel_and_keep_their_graph(pictures: ModuleModel) -> None:
    stimuli = small.draw(small.PICTURE).requires_grad_()
    prepared = pictures.prepare(stimuli)
    channel = (stimuli[:, 1] - 0.5) / 0.3
    torch.testing.assert_close(prepared[:, 1], channel)
    (grad,) = torch.autograd.grad(prepared.sum(), stimuli)
    torch.testing.assert_close(grad[0, :, 0, 0], 1 / torch.tensor(small.PICTURE.std))


def test_labels_name_the_outputs_and_are_as_many(pictures: ModuleModel) -> None:
    names = [f"thing {n}" for n in range(5)]
    labelled = ModuleModel(pictures.module, small.PICTURE, labels=names)
    assert labelled.label(3) == "thing 3"
    assert pictures.label(3) == "3"
    with pytest.raises(InputError, match="has the outputs 0 to 4, not 5"):
        pictures.label(5)
    with pytest.raises(ModelError, match="gives 5 numbers, and there are 2 labels"):
        ModuleModel(pictures.module, small.PICTURE, labels=["a", "b"])


def test_what_is_no_module_is_refused_with_what_is_needed(pictures: ModuleModel) -> None:
    with pytest.raises(ModelError, match=r"takes a torch\.nn\.Module, not a str"):
        ModuleModel("resnet", small.PICTURE)  # type: ignore[arg-type] # wrong on purpose
    with pytest.raises(ModelError, match="use it as it is"):
        ModuleModel(pictures, small.PICTURE)  # type: ignore[arg-type] # wrong on purpose
    with pytest.raises(ModelError, match=r"needs a patchclamp\.Stimulus that says"):
        ModuleModel(nn.Linear(2, 2), (2,))  # type: ignore[arg-type] # wrong on purpose


def test_a_stimulus_that_the_module_does_not_take_is_found_out_at_once() -> None:
    with pytest.raises(ModelError, match=r"Linear does not take the stimulus .*\(2, 1, 4\): mat1"):
        ModuleModel(nn.Linear(3, 2), small.ROW)


def test_a_module_without_sizes_yet_is_refused() -> None:
    with pytest.raises(ModelError, match="never given a size: run it once"):
        ModuleModel(nn.LazyLinear(3), small.ROW)


def test_a_module_model_is_no_language_model() -> None:
    pictures = small.convolutions()
    with pytest.raises(ModelError, match=r"pictures is a ModuleModel.*ModuleSession"):
        Session(pictures, "text")  # type: ignore[arg-type] # wrong on purpose
    with pytest.raises(ModelError, match="not ModuleModel"):
        LanguageModel(pictures)


def test_a_training_step_is_seen_and_a_run_is_not() -> None:
    module = small.Convolutions()
    model = small.model(module.eval(), small.PICTURE)
    before = model.weights_version
    with torch.no_grad():
        module(small.draw(small.PICTURE))
        assert model.weights_version == before
        module.train()(small.draw(small.PICTURE))  # the running means move
        assert model.weights_version == before + 1
        module.out.weight += 1
        assert model.weights_version == before + 2
    module.out.bias = nn.Parameter(torch.zeros(5))
    assert model.weights_version == before + 3
    module.double()
    assert model.weights_version == before + 4
    assert model.dtype == torch.float64
    assert model.weights_version == before + 4


# Parts ------------------------------------------------------------------------------------------


def test_parts_stand_in_the_order_in_which_they_run(pictures: ModuleModel) -> None:
    parts = pictures.anatomy.parts
    assert list(parts) == ["first", "norm", "relu", "second", "pool", "out"]
    assert [part.channels for part in parts.values()] == [6, 6, 6, 8, 8, 5]
    assert [part.shape for part in parts.values()] == [
        *[(12, 12)] * 3,
        (6, 6),
        (1, 1),
        (),
    ]
    assert parts["relu"].calls == 2
    assert pictures.anatomy.output == "out"
    assert pictures.anatomy.leaves == 7


def test_depth_is_the_share_of_modules_that_have_run(pictures: ModuleModel) -> None:
    depths = [pictures.anatomy.depth(path) for path in pictures.anatomy.parts]
    assert depths == sorted(depths)
    assert (depths[0], depths[-1]) == (1 / 7, 1)


def test_an_output_that_no_part_gives_is_a_part_called_output() -> None:
    class Softmax(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.output = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return torch.softmax(self.output(x.flatten(1)), 1)

    anatomy = small.model(Softmax(), small.ROW).anatomy
    assert list(anatomy.parts) == ["output", "_output"]
    assert (anatomy.output, anatomy.root) == ("_output", "_output")
    assert str(anatomy.check("_output:c1")) == "_output:c1"


def test_a_leaf_alone_is_its_own_output() -> None:
    anatomy = small.model(nn.Conv1d(1, 3, 2), small.ROW).anatomy
    assert list(anatomy.parts) == ["output"]
    assert anatomy.parts["output"].channels == 3


def test_children_named_by_numbers_can_be_addressed() -> None:
    anatomy = small.model(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)), small.ROW).anatomy
    assert anatomy.hook("1:c2") == "1"


@pytest.mark.parametrize("batch_first", [True, False])
def test_the_channels_of_a_recurrent_net_are_its_features(batch_first: bool) -> None:
    anatomy = small.model(small.Recurrent(batch_first=batch_first), small.SEQUENCE).anatomy
    assert (anatomy.parts["lstm"].channels, anatomy.parts["lstm"].shape) == (7, (6,))
    assert anatomy.parts["lstm"].batch_axis == (0 if batch_first else 1)


def test_a_residual_block_and_a_nonlinearity_have_the_channels_of_what_is_in_them() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.act = nn.Linear(6, 6), nn.Tanh()

        def forward(self, x: Tensor) -> Tensor:
            mixed: Tensor = self.act(self.mix(x))
            return x + mixed

    net = nn.Sequential(nn.Linear(4, 6), Residual(), nn.Flatten(), nn.Linear(18, 2))
    anatomy = small.model(net, Stimulus((3, 4), renderer="curve")).anatomy
    for path in ("0", "1.mix", "1.act", "1"):
        assert (anatomy.parts[path].channels, anatomy.parts[path].shape) == (6, (3,)), path


def test_the_parts_of_an_attention_layer_run_as_they_do_with_gradients() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    net = nn.Sequential(nn.Linear(5, 8), layer, nn.Flatten(), nn.Linear(24, 2))
    anatomy = small.model(net.eval(), Stimulus((3, 5), renderer="raster")).anatomy
    assert {"1.linear1", "1.linear2", "1.norm2", "1.self_attn"} <= set(anatomy.parts)
    assert anatomy.parts["1.linear1"].channels == 16


def test_a_vision_transformer_of_transformers_is_a_module_like_any_other() -> None:
    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        image_size=12,
        patch_size=4,
    )
    config.num_labels = 5
    transformer = small.model(ViTForImageClassification(config).eval(), Stimulus((3, 12, 12)))
    anatomy = transformer.anatomy
    (layers,) = {path.partition("layer")[0] for path in anatomy.parts if ".1.mlp" in path}
    assert anatomy.output == "classifier"
    assert anatomy.parts["classifier"].channels == 5
    assert {part.channels for path, part in anatomy.parts.items() if path != "classifier"} <= {
        8,
        12,
    }
    assert any(path.startswith(layers) for path in anatomy.parts)
    stimuli = small.draw(transformer.stimulus)
    run = ModuleEngine.of(transformer).run(
        stimuli, ["classifier"], output=True, interventions=[Clamp("classifier:c2", 4)]
    )
    assert run.output is not None
    assert torch.equal(run.output, run.values["classifier"])
    assert bool((run.output[:, 2] == 4).all())
    body = ViTModel(config, add_pooling_layer=False).eval()
    hidden = small.model(body, Stimulus((3, 12, 12)))
    name = hidden.anatomy.output
    clamped = ModuleEngine.of(hidden).run(
        stimuli, output=True, interventions=[Clamp(f"{name}:c1", 2)]
    )
    assert clamped.output is not None
    assert clamped.output.shape == (2, 8, 10)
    assert bool((clamped.output[:, 1] == 2).all())


def test_parts_without_units_say_why() -> None:
    anatomy = small.model(small.Speaks(), small.ROW).anatomy
    with pytest.raises(AddressError, match="says has no units: it returns a dict, not a tensor"):
        anatomy.check("says:c0")
    with pytest.raises(AddressError, match=r"mixes has no units: its output for two stimuli"):
        anatomy.check("mixes:c0")


def test_a_model_that_returns_no_tensor_is_refused() -> None:
    class Nothing(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"x": x}

    with pytest.raises(ModelError, match="cannot be looked into: it returns a dict"):
        small.model(Nothing(), small.ROW)


# Addresses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("secnd:c0", "no part 'secnd'; there are first, norm.*The nearest is second"),
        ("second:c8", "second has 8 channels, c0 to c7. The nearest is second:c7"),
        ("second", "second is a part; say which of its channels, second:c0 to second:c7"),
        ("L3.N5", "an address in a language model.*such as first:c0"),
        ("out:c1@1", "out runs once in one pass, so that its calls are @0"),
        ("relu:c1@2", "relu runs 2 times in one pass, so that its calls are @0 to @1"),
        ("relu:c1@new", "relu runs 2 times"),
        ("???", "is not an address of a unit"),
        ("{first:c0, first:c1}", "is a set of sites"),
    ],
)
def test_a_wrong_address_says_what_exists(
    pictures: ModuleModel, address: str, sentence: str
) -> None:
    with pytest.raises(AddressError, match=sentence):
        pictures.anatomy.check(address)


def test_which_call_is_read_has_to_be_said_where_there_are_several(pictures: ModuleModel) -> None:
    anatomy = pictures.anatomy
    assert anatomy.hook("second:c2") == "second"
    assert anatomy.hook("relu:c2@0") == "relu"
    assert anatomy.hook("relu:c2@1") == anatomy.hook("relu:c2@-1") == "relu@1"
    with pytest.raises(AddressError, match=r"relu runs 2 times.*such as relu:c2@1"):
        anatomy.hook("relu:c2")


def test_a_set_is_its_members_and_no_pattern(pictures: ModuleModel) -> None:
    anatomy = pictures.anatomy
    found = anatomy.expand("{second:c1, out:c0} - {out:c0}")
    assert [str(site) for site in found] == ["second:c1"]
    assert [str(site) for site in anatomy.expand("second:c1")] == ["second:c1"]
    with pytest.raises(AddressError, match="a set inside a language model"):
        anatomy.expand("L3.N*")
    with pytest.raises(AddressError, match="second has 8 channels"):
        anatomy.expand("{second:c1, second:c99}")


# Nothing of the user's changes ------------------------------------------------------------------


def test_looking_at_a_module_that_draws_leaves_the_users_random_numbers() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn_like(x)

    state = torch.random.get_rng_state()
    ModuleModel(Noisy(), small.ROW)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_looking_at_a_module_changes_nothing_of_it() -> None:
    module = small.Convolutions().train()
    called: list[int] = []
    module.second.register_forward_hook(lambda *_: called.append(1))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    ModuleModel(module, small.PICTURE)
    assert module.training
    assert module.relu.inplace
    assert not called
    assert len(module.second._forward_hooks) == 1
    assert "forward" not in vars(module.second)
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_a_twin_shares_weights_but_asks_for_no_gradient_of_them() -> None:
    module = small.Convolutions()
    twin = frozen_twin(module)
    assert (
        vars(twin.get_submodule("relu"))["inplace"] is False
    )  # what it reads stays to be looked at
    assert not any(parameter.requires_grad for parameter in twin.parameters())
    with torch.no_grad():
        module.out.weight += 3
    assert torch.equal(twin.get_parameter("out.weight"), module.out.weight)


def test_torchs_own_normalisation_hooks_stay_on_a_twin() -> None:
    with pytest.warns(FutureWarning, match="deprecated"):  # but there are models that use it
        normed = nn.utils.weight_norm(nn.Linear(4, 3))
    stimuli = torch.rand(2, 4)
    torch.testing.assert_close(frozen_twin(normed)(stimuli), normed(stimuli).detach())


def test_what_cannot_be_copied_is_refused() -> None:
    module = nn.Linear(4, 2)
    module.keeper = (number for number in range(3))  # type: ignore[assignment] # of any kind
    with pytest.raises(ModelError, match="cannot be copied"):
        ModuleModel(module, small.ROW)


def test_an_anatomy_is_small_to_read(pictures: ModuleModel) -> None:
    assert repr(pictures) == "ModuleModel('pictures': 3×any×any, 6 parts)"
    assert isinstance(pictures.anatomy, ModuleAnatomy)
    assert repr(pictures.anatomy) == "ModuleAnatomy(6 parts, 7 leaf modules, out)"
