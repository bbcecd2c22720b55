"""Most discriminative stimuli: known types are found again, and controls do not find them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch

import patchclamp as pc
from patchclamp.engine.module_engine import ModuleEngine
from patchclamp.errors import InputError, Stopped
from patchclamp.methods.discriminative_stimuli import (
    Search,
    clusters_by_responses,
    discriminate,
    discrimination,
    last,
    random_stimuli,
    responses_of,
)
from patchclamp.methods.objective import objective
from patchclamp.models.retina import BARS, FRAMES, TYPES, Retina, synthetic_retina

if TYPE_CHECKING:
    from torch import Tensor

    from patchclamp.models.module_model import ModuleModel

STILL = pc.Stimulus((6, 6), low=-1, high=1, renderer="raster")
TOY = torch.arange(42) % 2


def on_or_off(films: Tensor) -> Tensor:
    """42 cells that answer to light or to dark: the authors' toy."""
    light = films.mean((1, 2))[:, None]
    return torch.where(TOY == 0, light, -light).relu()


def agreement(labels: Tensor, types: Tensor) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(types.tolist(), labels.tolist()))


@pytest.fixture(scope="module")
def retina() -> ModuleModel:
    return synthetic_retina(cells=6, seed=1)


@pytest.fixture(scope="module")
def types(retina: ModuleModel) -> Tensor:
    assert isinstance(retina.module, Retina)
    return retina.module.types


def answers(retina: ModuleModel, films: Tensor) -> Tensor:
    return ModuleEngine.of(retina).run(films, ["cell"]).values["cell"]


def test_the_types_of_a_retina_come_out_of_twice_too_many_clusters(
    retina: ModuleModel, types: Tensor
) -> None:
    states = list(discriminate(lambda x: answers(retina, x), retina.stimulus, Search(seed=1)))
    end = states[-1]
    assert end.done
    assert states[0].clusters == 16
    assert abs(agreement(states[0].labels, types)) < 0.1, "drawn at random"
    assert agreement(end.labels, types) > 0.9
    assert end.objective > states[0].objective
    assert end.moved == 0
    # Each unit is driven most by the stimulus of its cluster, and shuffled answers say nothing.
    assert torch.equal(end.responses.argmax(0), end.labels)
    order = torch.randperm(len(types), generator=torch.Generator().manual_seed(0))
    assert abs(agreement(end.responses[:, order].argmax(0), types)) < 0.1
    with torch.no_grad():
        noise = answers(retina, random_stimuli(retina.stimulus, 2, seed=1))
    assert agreement(clusters_by_responses(noise, len(TYPES)), types) < 0.9


def test_without_any_contrast_types_are_lost(retina: ModuleModel, types: Tensor) -> None:
    search = Search(seed=1, contrast=False, reconsider=0)
    end = last(discriminate(lambda x: answers(retina, x), retina.stimulus, search))
    assert agreement(end.labels, types) < 0.9


def test_the_toy_of_the_authors_ends_with_exactly_two_clusters() -> None:
    end = last(discriminate(on_or_off, STILL, Search(clusters=5)))
    assert end.clusters == 2
    assert agreement(end.labels, TOY) == 1
    assert end.objective == pytest.approx(math.log(2), abs=0.05)
    bright = end.stimuli.mean((1, 2))
    assert float(bright.max()) > 0.9
    assert float(bright.min()) < -0.9


def test_the_same_seed_gives_the_same_states() -> None:
    def run(seed: int) -> list[float]:
        return [state.objective for state in discriminate(on_or_off, STILL, Search(seed=seed))]

    assert run(3) == run(3)
    assert run(3) != run(4)


def test_a_search_is_stopped_within_a_step_and_keeps_its_last_state() -> None:
    asked = 0

    def should_stop() -> bool:
        nonlocal asked
        asked += 1
        return asked > 25

    states = discriminate(on_or_off, STILL, Search(clusters=5), should_stop=should_stop)
    next(states)
    kept = next(states)
    with pytest.raises(Stopped):
        next(states)
    assert asked == 26
    assert kept.round == 1
    assert kept.responses.shape == (kept.clusters, 42)


def test_clusters_that_lose_their_units_are_dropped_and_stimuli_stay_in_range() -> None:
    search = Search(clusters=12, reconsider=0)
    counts = []
    for state in discriminate(on_or_off, STILL, search):
        counts.append(state.clusters)
        assert set(state.labels.tolist()) == set(range(state.clusters))
        assert float(state.stimuli.abs().max()) <= 1
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < 12


def test_the_contrast_is_at_most_the_logarithm_of_the_number() -> None:
    apart = discrimination(torch.eye(4), 0.01)
    assert torch.allclose(apart, torch.full((4,), math.log(4)))
    assert torch.allclose(discrimination(torch.ones(4, 4), 0.3), torch.zeros(4), atol=1e-6)
    assert torch.equal(discrimination(torch.eye(4), 0.5, contrast=False), torch.full((4,), 2.0))


def test_cells_of_a_retina_do_what_their_type_says() -> None:
    retina = synthetic_retina(cells=2, seed=0)
    assert isinstance(retina.module, Retina)
    light = torch.zeros(1, BARS, FRAMES, dtype=torch.float64)
    light[:, :, 5:] = 1
    seen = retina.module.time(torch.nn.functional.pad(retina.module.space(light), (9, 0)))[0]
    for answer, kind in zip(seen.detach(), retina.module.types.tolist(), strict=True):
        sign, kinetics, size = TYPES[kind].split()
        if size == "small":
            continue  # a wide field hardly moves it
        trace = answer if sign == "ON" else -answer
        assert float(trace.max()) > 0.3
        late = float(trace[-3:].mean() / trace.max())
        assert late > 0.8 if kinetics == "sustained" else late < 0.3
    assert len(set(retina.module.types.tolist())) == len(TYPES) == 8
    assert len(retina.module.types) == 16
    with pytest.raises(InputError, match="at least 1 cell"):
        synthetic_retina(cells=0)


def test_units_of_a_model_are_clustered_by_their_addresses(retina: ModuleModel) -> None:
    units = [objective(retina, f"cell:c{place}") for place in (3, 7)]
    respond = responses_of(ModuleEngine.of(retina), units)
    films = random_stimuli(retina.stimulus, 3)
    assert torch.allclose(respond(films), answers(retina, films)[:, [3, 7]].float())
    with pytest.raises(InputError, match="two units or more, not 1"):
        responses_of(ModuleEngine.of(retina), units[:1])


def test_what_cannot_be_searched_is_said() -> None:
    endless = pc.Stimulus((6, 6), low=-math.inf, high=math.inf, renderer="raster")
    with pytest.raises(InputError, match="has no end"):
        next(discriminate(on_or_off, endless))
    with pytest.raises(InputError, match="42 units: too few for 50 clusters"):
        next(discriminate(on_or_off, STILL, Search(clusters=50)))
    with pytest.raises(InputError, match="not a finite number"):
        next(discriminate(lambda films: on_or_off(films) / 0, STILL))
    with pytest.raises(InputError, match="clusters is at least 2, not 1"):
        Search(clusters=1)
    with pytest.raises(InputError, match="temperature is a positive number"):
        Search(temperature=0)
