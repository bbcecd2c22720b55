"""What is maximised: units, directions, functions, and sums of them."""

from __future__ import annotations

import json
from collections import OrderedDict

import pytest
import torch

from patchclamp.errors import AddressError, InputError
from patchclamp.methods.objective import Objective, objective
from patchclamp.models.module_model import ModuleModel
from patchclamp.models.stimulus import Stimulus
from patchclamp.models.weights import head_output
from tests.unit import tiny

LENGTH = 7


def hooked(*hooks: str, ids: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """Return what plain TransformerLens has at some hook points."""
    taken: dict[str, torch.Tensor] = {}

    def keep(x: torch.Tensor, hook: object) -> None:
        taken[hook.name] = x  # type: ignore[attr-defined]

    given = tiny.ids(LENGTH)[None] if ids is None else ids
    with torch.no_grad():
        tiny.fresh_bridge("llama").run_with_hooks(given, fwd_hooks=[(name, keep) for name in hooks])
    return taken


def test_a_neuron_is_read_at_the_last_position_at_its_peak_or_where_its_address_says() -> None:
    model = tiny.model("llama")
    last, peak = objective(model, "L2.N5"), objective(model, "L2.N5", "peak")
    two = objective(model, "L2.N5@1,3")
    values = hooked(*last.hooks)
    (x,) = (value[0, :, 5] for value in values.values())
    assert x.std() > 0.01
    assert last.value(values).tolist() == [float(x[-1])]
    assert peak.value(values).tolist() == [float(x.max())]
    assert two.value(values)[0] == pytest.approx(float((x[1] + x[3]) / 2))
    assert torch.equal(last.map(values)[0], x)


def test_a_peak_does_not_count_the_beginning_of_sequence_token() -> None:
    peak = objective(tiny.model("llama"), "L2.N5", "peak")
    x = torch.zeros(1, 4, 48)
    x[0, :, 5] = torch.tensor([9.0, 1.0, 3.0, 2.0])
    assert float(peak.value({peak.hooks[0]: x})) == 9
    assert float(peak.value({peak.hooks[0]: x}, start=1)) == 3


def test_a_direction_is_its_coefficient() -> None:
    model = tiny.model("llama")
    d = torch.randn(32, generator=torch.Generator().manual_seed(1))
    found = objective(model, ("L1.resid_post[dog]", d))
    assert found.text == "L1.resid_post[dog]"
    values = hooked(*found.hooks)
    x = values[found.hooks[0]][0, -1]
    assert float(found.value(values)) == pytest.approx(float(x @ d / (d @ d)), rel=1e-5)
    assert float(objective(model, ("L1.resid_post", 2 * d)).value(values)) == pytest.approx(
        float(found.value(values)) / 2, rel=1e-5
    )


def test_a_heads_output_along_a_direction_is_what_it_writes_there() -> None:
    model = tiny.model("llama")
    d = torch.randn(32, generator=torch.Generator().manual_seed(1))
    found = objective(model, ("L1.H2", d))
    values = hooked(*found.hooks)
    z = values[found.hooks[0]][0, -1, 2]
    written = z @ head_output(model.bridge, 1, 2)
    assert float(found.value(values)) == pytest.approx(float(written @ d / (d @ d)), rel=1e-4)
    own = torch.randn(8, generator=torch.Generator().manual_seed(2))
    along = objective(model, ("L1.H2", own)).value(values)
    assert float(along) == pytest.approx(float(z @ own / (own @ own)), rel=1e-5)


def test_a_logit_is_named_by_its_token() -> None:
    model = tiny.model("llama")
    found = objective(model, ("logits", 7))
    values = hooked(*found.hooks)
    assert found.text == "logits[7]"
    assert float(found.value(values)) == float(values[found.hooks[0]][0, -1, 7])


def test_sums_and_differences_are_those_of_the_values() -> None:
    model = tiny.model("llama")
    one, two = objective(model, "L1.N3"), objective(model, "L2.N5", "peak")
    both = one - 0.5 * two + 2
    assert both.text == "L1.N3 − 0.5 × L2.N5 + 2"
    assert [str(site) for site in both.sites] == ["L1.N3", "L2.N5"]
    assert len(both.hooks) == 2
    ids = torch.stack([tiny.ids(LENGTH, seed) for seed in range(3)])
    values = hooked(*both.hooks, ids=ids)
    wanted = one.value(values) - 0.5 * two.value(values) + 2
    assert wanted.std() > 1e-3
    assert torch.allclose(both.value(values), wanted)
    assert (-one).text == "−L1.N3"
    assert (1 - one).text == "−L1.N3 + 1"
    assert torch.allclose((1 - one).value(values), 1 - one.value(values))


def test_a_function_reads_what_it_names() -> None:
    model = tiny.model("llama")

    def spread(values: dict[str, torch.Tensor]) -> torch.Tensor:
        return values["L1.mlp"].var((1, 2))

    found = objective(model, spread, paths=("L1.mlp",))
    values = hooked(*found.hooks)
    assert found.text == "spread"
    assert float(found.value(values)) == float(values[found.hooks[0]].var((1, 2)))
    with pytest.raises(InputError, match="Python function, which cannot be written"):
        found.to_json()
    with pytest.raises(InputError, match="no value at a single place"):
        found.map(values)
    with pytest.raises(InputError, match="name the parts"):
        objective(model, spread)
    wrong = objective(model, lambda v: v["L1.mlp"].mean(), paths="L1.mlp")
    with pytest.raises(InputError, match="one number for each of the 1 items"):
        wrong.value(values)


def test_an_objective_comes_back_from_json_as_it_was() -> None:
    model = tiny.model("llama")
    d = torch.randn(32, generator=torch.Generator().manual_seed(1))
    made = (
        objective(model, "L1.N3@-2", "peak")
        - 0.25 * objective(model, ("L1.resid_post[dog]", d))
        + objective(model, ("L1.H2", d))
        + objective(model, ("logits", 7))
        - 1
    )
    read = Objective.from_json(model, json.loads(json.dumps(made.to_json())))
    assert read.text == made.text
    values = hooked(*made.hooks)
    assert float(read.value(values)) == pytest.approx(float(made.value(values)), rel=1e-5)
    with pytest.raises(InputError, match="no objective"):
        Objective.from_json(model, {"constant": 0})
    with pytest.raises(InputError, match="no term"):
        Objective.from_json(model, {"constant": 0, "terms": []})


@pytest.mark.parametrize(
    ("what", "error", "says"),
    [
        ("L1.N99", AddressError, "neuron 99 does not exist"),
        ("L9.N1", AddressError, "layer 9 does not exist"),
        ("L1.mlp", AddressError, "give a direction in it"),
        ("L1.H2", AddressError, "give a direction in it"),
        ("logits", AddressError, "say of which token"),
        ("L1.N3:act", AddressError, "use its :post"),
        ("L1.H2[3<-1]", AddressError, "no number for each position"),
        ("_fc:c3", AddressError, "addressed by its parts"),
        (("L1.mlp", [1.0, 2.0]), InputError, r"32 numbers \(coordinates\), not of the shape"),
        (("L1.H2", [1.0] * 5), InputError, "8 numbers .* or 32 numbers"),
        (("L1.mlp", [0.0] * 32), InputError, "longer than zero"),
        (("L1.mlp", [float("nan")] * 32), InputError, "must be finite"),
        (("L1.mlp", "dog"), InputError, "a list of numbers"),
        (("L1.N3", [1.0]), InputError, "one number already"),
        (12, InputError, "not int"),
    ],
)
def test_what_is_no_unit_is_refused_with_a_sentence(
    what: object, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        objective(tiny.model("llama"), what)  # type: ignore[arg-type]


def test_only_numbers_weigh_objectives() -> None:
    one = objective(tiny.model("llama"), "L1.N3")
    for wrong in (one, "2", float("nan"), True):
        with pytest.raises(InputError, match="finite numbers"):
            one * wrong  # type: ignore[operator]
    with pytest.raises(InputError, match="one of channel, centre, peak, last"):
        objective(tiny.model("llama"), "L1.N3", "middle")  # type: ignore[arg-type]


# In a module -------------------------------------------------------------------------------------


def net() -> ModuleModel:
    torch.manual_seed(0)
    relu = torch.nn.ReLU()
    parts = {"wide": torch.nn.Conv2d(3, 5, 3), "relu": relu, "narrow": torch.nn.Conv2d(5, 5, 3)}
    layers = torch.nn.Sequential(OrderedDict(parts | {"again": relu}))
    return ModuleModel(layers, Stimulus((3, None, None), size=9))


def drawn_values(*paths: str) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return {path: torch.randn(2, 5, 4, 6, generator=generator) for path in paths}


def test_a_channel_is_its_mean_its_middle_or_its_peak() -> None:
    model, values = net(), drawn_values("wide")
    x = values["wide"][:, 3]
    mean, centre, peak = (objective(model, "wide:c3", how) for how in ("channel", "centre", "peak"))
    assert mean.hooks == ("wide",)
    assert torch.allclose(mean.value(values), x.mean((1, 2)))
    assert torch.equal(centre.value(values), x[:, 2, 3])
    assert torch.equal(peak.value(values), x.amax((1, 2)))
    assert torch.equal(mean.map(values), x)
    both = mean - 2 * objective(model, "wide:c1")
    assert both.text == "wide:c3 − 2 × wide:c1"
    assert torch.allclose(both.map(values), x - 2 * values["wide"][:, 1])


def test_a_direction_among_channels_is_its_coefficient_at_each_place() -> None:
    model, values = net(), drawn_values("wide")
    d = torch.tensor([1.0, 0.0, -2.0, 0.5, 0.0])
    found = objective(model, ("wide[edge]", d))
    assert found.text == "wide[edge]"
    wanted = torch.einsum("bchw,c->bhw", values["wide"], d) / (d @ d)
    assert torch.allclose(found.map(values), wanted, atol=1e-6)
    assert torch.allclose(found.value(values), wanted.mean((1, 2)), atol=1e-6)
    read = Objective.from_json(model, json.loads(json.dumps((3 * found).to_json())))
    assert read == 3 * found


def test_each_call_of_a_shared_module_has_its_own_name() -> None:
    model = net()
    assert objective(model, "relu:c3@0").hooks == ("relu",)
    assert objective(model, "relu:c3@1").hooks == ("relu@1",)
    assert objective(model, ("relu[edge]@1", [1.0] * 5)).hooks == ("relu@1",)
    assert objective(model, lambda v: v["relu@1"].mean((1, 2, 3)), paths="relu@1").hooks == (
        "relu@1",
    )
    with pytest.raises(AddressError, match="say which call is meant"):
        objective(model, "relu:c3")


@pytest.mark.parametrize(
    ("what", "error", "says"),
    [
        ("wide:c9", AddressError, "5 channels, c0 to c4. The nearest is wide:c4"),
        ("high:c0", AddressError, "There is no part 'high'"),
        ("L1.N3", AddressError, "this model is made of modules"),
        (("high", [1.0]), AddressError, "There is no part 'high'"),
        (("wide", [1.0]), InputError, r"5 numbers \(channels\), not of the shape \(1,\)"),
    ],
)
def test_what_a_module_does_not_have_is_refused(
    what: object, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        objective(net(), what)  # type: ignore[arg-type]
