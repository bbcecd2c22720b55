"""Facets: planted ones are found, one cloud is not cut into two, and what is averaged is said."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from patchclamp.errors import InputError
from patchclamp.methods.facets import APART, Facets, clusters, find_facets, shuffled

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

SHAPE = (1, 4, 4)


def cloud(count: int, dim: int, seed: int) -> Tensor:
    return torch.randn(count, dim, generator=torch.Generator().manual_seed(seed))


def planted(sizes: tuple[int, ...], *, away: float, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Images, codes and the facet of each; codes of facets lie `away` standard deviations apart."""
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    codes = cloud(len(labels), 12, seed)
    # Corners of a simplex: every two are as far apart.
    codes[torch.arange(len(labels)), labels] += away / 2**0.5
    images = labels[:, None, None, None] + torch.zeros(len(labels), *SHAPE)
    return images, codes, labels


def agreement(found: Facets, labels: Tensor) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(labels.numpy(), found.labels))


@pytest.mark.parametrize("sizes", [(60, 40), (50, 30, 30), (40, 30, 20, 20)])
def test_planted_facets_are_found_counted_and_averaged(sizes: tuple[int, ...]) -> None:
    images, codes, labels = planted(sizes, away=8)
    found = find_facets(images, codes)
    assert len(found) == len(sizes)
    assert agreement(found, labels) > 0.98
    assert [len(facet.members) for facet in found.facets] == sorted(sizes, reverse=True)
    for facet in found.facets:
        assert facet.averaged == 15
        assert facet.silhouette > 0.4
        # All images of a facet are alike here, so that their mean is their label.
        assert torch.allclose(facet.mean, images[facet.members[0]])
    assert {m for facet in found.facets for m in facet.members} == set(range(len(labels)))


def one_bell(seed: int) -> Tensor:
    return cloud(120, 20, seed)


def one_cigar(seed: int) -> Tensor:
    return cloud(120, 20, seed) * torch.linspace(5, 0.1, 20)


def rectified(seed: int) -> Tensor:
    """As codes after a ReLU are: half of their values zero, the rest skewed."""
    return (cloud(120, 20, seed) @ cloud(20, 20, 99) / 3).relu()


def evenly_spread(seed: int) -> Tensor:
    return torch.rand(120, 2, generator=torch.Generator().manual_seed(seed))


def few_in_many_dimensions(seed: int) -> Tensor:
    return cloud(24, 300, seed)


@pytest.mark.parametrize(
    "draw", [one_bell, one_cigar, rectified, evenly_spread, few_in_many_dimensions]
)
def test_one_cloud_is_one_facet(draw: Callable[[int], Tensor]) -> None:
    for seed in range(4):
        codes = draw(seed)
        found = find_facets(torch.zeros(len(codes), *SHAPE), codes)
        assert len(found) == 1, [(t.count, t.apart, t.apart_in_cloud) for t in found.trials]
        assert found.trials[0].count == 2
        assert set(found.labels) == {0}
        assert found.facets[0].silhouette == 0


def test_facets_that_touch_are_one() -> None:
    images, codes, _ = planted((50, 50), away=APART / 2)
    assert len(find_facets(images, codes)) == 1


def test_a_single_odd_image_is_no_facet() -> None:
    codes = cloud(60, 8, 3)
    codes[17] += 40
    found = find_facets(torch.zeros(60, *SHAPE), codes)
    assert found.trials[0].smallest == 1
    assert all(len(facet.members) > 1 for facet in found.facets)


def test_a_number_that_is_asked_for_is_taken() -> None:
    images, codes, labels = planted((40, 40), away=8)
    found = find_facets(images, codes, count=4)
    assert len(found) == 4
    assert found.trials == ()
    assert agreement(found, labels) < 0.9


def test_in_the_plane_of_tsne_the_same_number_of_facets_is_found() -> None:
    images, codes, labels = planted((40, 30), away=8)
    found = find_facets(images, codes, embedding="tsne")
    assert len(found) == 2
    assert agreement(found, labels) > 0.98
    assert found.map.shape == (70, 2)
    assert len(find_facets(images, cloud(70, 12, 5), embedding="tsne")) == 1


def test_the_images_nearest_to_a_centre_are_averaged() -> None:
    _, codes, labels = planted((30, 20), away=8)
    images = torch.arange(50.0)[:, None, None, None].expand(50, *SHAPE)
    found = find_facets(images, codes, averaged=3)
    for facet in found.facets:
        of_facet = codes[labels == labels[facet.members[0]]]
        away = (of_facet - of_facet.mean(0)).norm(dim=1).sort().values
        mine = (codes[list(facet.members[:3])] - of_facet.mean(0)).norm(dim=1)
        assert mine.max() <= away[3], "one of the rest was nearer"
        assert facet.mean.flatten()[0] == pytest.approx(sum(facet.members[:3]) / 3)


def test_the_control_has_the_sizes_and_not_the_kinds() -> None:
    images, codes, labels = planted((60, 40), away=8)
    found = find_facets(images, codes)
    control = shuffled(found, images)
    assert [len(f.members) for f in control.facets] == [60, 40]
    assert abs(agreement(control, labels)) < 0.1
    assert 0.1 < float(control.facets[0].mean.mean()) < 0.9, "a mixture of both kinds"
    again = shuffled(found, images)
    assert torch.equal(control.facets[0].mean, again.facets[0].mean)
    assert control.labels == again.labels != shuffled(found, images, seed=1).labels


def test_the_same_seed_gives_the_same_facets() -> None:
    images, codes, _ = planted((30, 30), away=5)
    one, again = find_facets(images, codes, seed=4), find_facets(images, codes, seed=4)
    assert one.labels == again.labels
    assert one.trials == again.trials
    assert torch.equal(one.map, again.map)


def test_clusters_are_numbered_by_their_size() -> None:
    images, codes, _ = planted((10, 50, 30), away=9)
    found = find_facets(images, codes)
    assert np.bincount(found.labels).tolist() == [50, 30, 10]
    assert len(set(clusters(codes.double().numpy(), 1).tolist())) == 1


@pytest.mark.parametrize(
    ("images", "codes", "more", "said"),
    [
        ((4, 1, 2, 2), (4, 3), {}, "at least 6 images"),
        ((8, 1, 2, 2), (7, 3), {}, r"codes has a row for each of the 8 images"),
        ((8, 1, 2, 2), (8, 3, 2), {}, r"\(8, dim\)"),
        ((8, 1, 2, 2), (8, 3), {"count": 5}, "1 to 4 facets"),
        ((8, 1, 2, 2), (8, 3), {"count": 0}, "1 to 4 facets"),
        ((8, 1, 2, 2), (8, 3), {"averaged": 0}, "At least 1 image"),
    ],
)
def test_what_cannot_be_clustered_is_said(
    images: tuple[int, ...], codes: tuple[int, ...], more: dict[str, int], said: str
) -> None:
    with pytest.raises(InputError, match=said):
        find_facets(torch.zeros(images), torch.zeros(codes), **more)  # type: ignore[arg-type]


def test_values_that_are_not_finite_are_refused() -> None:
    codes = cloud(10, 3, 0)
    codes[2, 1] = torch.nan
    with pytest.raises(InputError, match="codes holds values that are not finite"):
        find_facets(torch.zeros(10, *SHAPE), codes)
    with pytest.raises(InputError, match="images is a tensor of floats"):
        find_facets(torch.zeros(10, 1, 2, 2, dtype=torch.uint8), cloud(10, 3, 0))
