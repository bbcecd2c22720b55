"""The plain twin multiplies by oneDNN where it can, and to the same numbers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from patchclamp.engine.engine import Engine
from patchclamp.engine.twin import OneDnnLinear, onednn_multiplies
from patchclamp.models.language_model import LanguageModel
from tests.unit import tiny


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 1, 24), (3, 7, 24), (300, 24), (0, 5, 24)])
def test_a_product_is_the_same_to_float32(shape: tuple[int, ...], bias: bool) -> None:
    torch.manual_seed(0)
    layer, given = OneDnnLinear(24, 40, bias=bias), torch.randn(shape)
    truth = nn.functional.linear(given, layer.weight, layer.bias)
    with torch.no_grad():
        found = layer(given)
        strided = layer(given.expand(2, *given.shape))[1]
    assert found.shape == truth.shape
    torch.testing.assert_close(found, truth.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(strided, truth.detach(), rtol=1e-5, atol=1e-6)


def test_where_a_gradient_is_wanted_there_is_one() -> None:
    layer, given = OneDnnLinear(4, 3), torch.ones(2, 4, requires_grad=True)
    (grad,) = torch.autograd.grad(layer(given).sum(), given)
    torch.testing.assert_close(grad, layer.weight.sum(0).expand(2, 4))


def test_what_is_not_float32_is_left_to_torch() -> None:
    layer = OneDnnLinear(4, 3).double()
    with torch.no_grad():
        assert layer(torch.ones(2, 4, dtype=torch.double)).dtype == torch.double


def test_only_the_plain_twin_does_so() -> None:
    assert onednn_multiplies()
    model = LanguageModel(tiny.hugging_face("llama"), None, name="llama")
    shells = Engine.of(model).passes.shells
    plain = [m for block in shells["plain"].blocks for m in block.modules()]
    hooked = [m for block in shells["hooked"].blocks for m in block.modules()]
    assert sum(type(m) is OneDnnLinear for m in plain) == 4 * 7
    users = list(model.bridge.modules())
    assert not any(isinstance(m, OneDnnLinear) for m in [*hooked, *users])
    assert any(isinstance(m, nn.Linear) for m in users)
