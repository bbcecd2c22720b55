"""Facets: the kinds of images that drive a unit, told apart by what a network makes of them.

A unit that answers to storefronts by day and by night has two facets, and one picture of it shows
neither. Nguyen, Yosinski and Clune ("Multifaceted Feature Visualization: Uncovering the Different
Types of Features Learned By Each Neuron in Deep Neural Networks", 2016) embed the images that drive
a unit by a late layer's values (their *codes*), reduce them by PCA and then by t-SNE to two
dimensions, cluster these by k-means, and average the images nearest to each centre: the mean image,
from which the optimisation of that facet starts (see `multifaceted`). 50 dimensions, then 2; ten
clusters; 15 images: these numbers are given from memory, since their program lacks this part.

*How many* facets there are they fix at ten. Here the images say it, because k-means cuts anything
into as many pieces as it is told to, and pieces of one cloud are no facets. How far apart two
pieces lie is measured along the line through their centres,

    d' = |mean of one - mean of the other| / sqrt((variance of one + variance of other) / 2),

and compared with what cutting yields where there is nothing to be cut: single clouds, bell-shaped
and evenly filled ones, with as many points and the same covariance (the gap statistic of
Tibshirani, Walther and Hastie, 2001, asks for the same). The halves of a bell are 2.66 apart, those
of a box 3.46, pieces of few points more. There are k facets if k is the largest number for which
every two of k pieces lie at least 4 apart, so that the middle between them is two standard
deviations away from both, and further than in the clouds, by four standard deviations of what came
of these. Otherwise there is one. The number is decided among the principal components, at most one
for four images, and never after t-SNE, which pulls single clouds apart as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from patchclamp.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Points = NDArray[np.float64]
    Labels = NDArray[np.int64]

Embedding = Literal["pca", "tsne"]

APART = 4.0
CLOUDS = 20  # of either shape
MARGIN = 4.0  # standard deviations
POINTS_A_DIMENSION = 4
MOST = 10
PRINCIPAL = 50
AVERAGED = 15
FEWEST = 6  # images that could show two facets of three
PERPLEXITY = 30.0
STARTS = 8  # of k-means


@dataclass(frozen=True, eq=False)
class Facet:
    """One kind of images.

    Attributes:
        index: which facet, the largest first.
        members: which of the images it has, the one nearest to its centre first.
        mean: Float[*image], the mean of the images nearest to its centre.
        averaged: how many were averaged.
        silhouette: the mean over its images of (b - a) / max(a, b), a an image's mean distance to
            its own facet's images and b to the nearest other facet's (Rousseeuw, 1987): 1 where
            the facet lies alone, 0 where it touches another; 0 of a single facet.
    """

    index: int
    members: tuple[int, ...]
    mean: Tensor
    averaged: int
    silhouette: float


@dataclass(frozen=True)
class Trial:
    """What came of cutting the images into a number of pieces.

    Attributes:
        count: how many pieces.
        apart: d' of the two pieces that are nearest to each other; see this module.
        apart_in_cloud: what it had to be beyond that of clouds without facets.
        smallest: how many images the smallest piece has.
    """

    count: int
    apart: float
    apart_in_cloud: float
    smallest: int

    @property
    def found(self) -> bool:
        """Whether the pieces are facets."""
        return self.apart >= max(APART, self.apart_in_cloud) and self.smallest > 1


@dataclass(frozen=True, eq=False)
class Facets:
    """The facets of a set of images.

    Attributes:
        facets: the largest first.
        labels: the facet of each image.
        map: Float[image, 2], where each lies: the two main components, or t-SNE's plane.
        trials: for each number that was tried, whether there are so many; none when the number
            was given.
    """

    facets: tuple[Facet, ...]
    labels: tuple[int, ...]
    map: Tensor
    trials: tuple[Trial, ...]

    def __len__(self) -> int:
        return len(self.facets)


def find_facets(
    images: Tensor,
    codes: Tensor,
    *,
    count: int | None = None,
    embedding: Embedding = "pca",
    principal: int = PRINCIPAL,
    averaged: int = AVERAGED,
    seed: int = 0,
) -> Facets:
    """Tell apart the kinds of images that there are.

    Args:
        images: Float[image, *shape], those that drive a unit.
        codes: Float[image, dim], what a late layer makes of each.
        count: how many facets; None lets the images say, see this module.
        embedding: where they are clustered: among the principal components, or in the plane of
            t-SNE, as published.
        principal: how many components are kept, at most.
        averaged: how many of a facet's images are averaged, at most: those nearest to its centre.
        seed: of k-means, t-SNE and the clouds; the same seed gives the same facets.

    Raises:
        InputError: when there are too few images, their codes are not of the same number, a value
            is not finite, or more facets are asked for than there are images.
    """
    _check(images, codes, count, averaged)
    points = components(codes, principal)
    trials: tuple[Trial, ...] = ()
    if count is None:
        trials = tried(points, seed=seed)
        count = max((trial.count for trial in trials if trial.found), default=1)
    plane = _plane(points, embedding, seed)
    space = plane if embedding == "tsne" else points
    labels = by_size(clusters(space, count, seed))
    silhouettes = _silhouettes(space, labels)
    facets = []
    for index in range(count):
        (members,) = np.nonzero(labels == index)
        away = np.linalg.norm(space[members] - space[members].mean(0), axis=1)
        nearest = members[np.argsort(away, kind="stable")]
        chosen = torch.as_tensor(nearest[:averaged])
        mean = images[chosen].mean(0)
        silhouette = float(silhouettes[members].mean())
        facets.append(Facet(index, tuple(nearest.tolist()), mean, len(chosen), silhouette))
    plane_of = torch.as_tensor(plane).float()
    return Facets(tuple(facets), tuple(labels.tolist()), plane_of, trials)


def tried(points: Points, *, most: int = MOST, seed: int = 0) -> tuple[Trial, ...]:
    """Cut points into 2, 3, ... pieces and see whether these lie apart.

    It ends after the second number in a row whose pieces do not.

    Args:
        points: Float[point, dim].
        most: the largest number that is tried.
        seed: of k-means and of the clouds.
    """
    generator = np.random.default_rng(seed)
    found: list[Trial] = []
    for count in range(2, min(most, len(points) // 3) + 1):
        labels = clusters(points, count, seed)
        in_cloud = 0.0
        for filled in (generator.standard_normal, generator.random):
            came = np.array(
                [_cut(_alike(filled(points.shape), points), count) for _ in range(CLOUDS)]
            )
            in_cloud = max(in_cloud, float(came.mean() + MARGIN * came.std()))
        smallest = int(np.bincount(labels, minlength=count).min())
        found.append(Trial(count, apart(points, labels), in_cloud, smallest))
        if len(found) > 1 and not found[-1].found and not found[-2].found:
            break
    return tuple(found)


def apart(points: Points, labels: Labels) -> float:
    """How far the two nearest of several pieces lie apart; d' in this module.

    Args:
        points: Float[point, dim].
        labels: Int[point], 0 to the number of pieces less 1; none is empty.

    >>> steps = np.arange(5.0)[:, None]
    >>> round(apart(np.concatenate([steps, steps + 10]), np.repeat([0, 1], 5)), 2)
    7.07
    """
    pieces = [points[labels == index] for index in range(int(labels.max()) + 1)]
    found = []
    for place, one in enumerate(pieces):
        for other in pieces[:place]:
            line = one.mean(0) - other.mean(0)
            length = float(np.linalg.norm(line))
            line = line / max(length, 1e-12)
            variance = ((one @ line).var() + (other @ line).var()) / 2
            found.append(length / float(np.sqrt(variance) + 1e-12))
    return min(found)


def components(codes: Tensor, most: int = PRINCIPAL) -> Points:
    """Return the principal components of codes, Float[image, at most `most`].

    Args:
        codes: Float[image, dim].
        most: how many are kept, at most; never more than one for four images.
    """
    from sklearn.decomposition import PCA

    given = codes.detach().double().cpu().numpy()
    kept = max(1, min(most, given.shape[1], len(given) // POINTS_A_DIMENSION))
    made: Points = PCA(kept, svd_solver="full").fit_transform(given)
    return made


def clusters(points: Points, count: int, seed: int = 0, starts: int = STARTS) -> Labels:
    """Cluster points by k-means.

    Args:
        points: Float[point, dim].
        count: how many clusters.
        seed: of the starts.
        starts: how many, of which the best is taken.

    Returns:
        Int[point].
    """
    from sklearn.cluster import KMeans

    if count == 1:
        return np.zeros(len(points), dtype=np.int64)
    labels: Labels = KMeans(count, n_init=starts, random_state=seed).fit_predict(points)
    return labels.astype(np.int64)


def by_size(labels: Labels) -> Labels:
    """Number clusters anew, the largest 0.

    >>> by_size(np.array([0, 1, 1, 2, 1, 2])).tolist()
    [2, 0, 0, 1, 0, 1]
    """
    sizes = np.bincount(labels)
    place = np.empty_like(sizes)
    place[np.argsort(-sizes, kind="stable")] = np.arange(len(sizes))
    numbered: Labels = place[labels].astype(np.int64)
    return numbered


def shuffled(facets: Facets, images: Tensor, *, averaged: int = AVERAGED, seed: int = 0) -> Facets:
    """Return facets of the same sizes whose images are drawn at random: the control.

    Args:
        facets: the facets.
        images: Float[image, *shape], those that they are of.
        averaged: how many of a facet's images are averaged.
        seed: of the draw.
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()
    labels = [0] * len(images)
    made, start = [], 0
    for facet in facets.facets:
        members = tuple(order[start : start + len(facet.members)])
        start += len(members)
        for member in members:
            labels[member] = facet.index
        chosen = list(members[:averaged])
        made.append(Facet(facet.index, members, images[chosen].mean(0), len(chosen), 0.0))
    return Facets(tuple(made), tuple(labels), facets.map, ())


def _plane(points: Points, embedding: Embedding, seed: int) -> Points:
    """Return Float[point, 2]: where the points are drawn."""
    if embedding == "tsne":
        from sklearn.manifold import TSNE

        perplexity = min(PERPLEXITY, (len(points) - 1) / 3)
        flat: Points = TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(
            points
        )
        return flat.astype(np.float64)
    if points.shape[1] == 1:
        return np.concatenate([points, np.zeros_like(points)], 1)
    return points[:, :2]


def _silhouettes(points: Points, labels: Labels) -> Points:
    from sklearn.metrics import silhouette_samples

    pieces = int(labels.max()) + 1
    if not 1 < pieces < len(points):
        return np.zeros(len(points))
    found: Points = silhouette_samples(points, labels)
    return found


def _cut(cloud: Points, count: int) -> float:
    return apart(cloud, clusters(cloud, count, starts=2))


def _alike(cloud: Points, points: Points) -> Points:
    """Give a cloud the covariance of points whose components are uncorrelated, to the digit."""
    centred = cloud - cloud.mean(0)
    alone = np.linalg.svd(centred, full_matrices=False)[0]
    made: Points = alone * np.sqrt(len(cloud)) * points.std(0)
    return made


def _check(images: Any, codes: Any, count: int | None, averaged: int) -> None:
    for name, given in (("images", images), ("codes", codes)):
        if not isinstance(given, torch.Tensor) or not given.is_floating_point():
            msg = f"{name} is a tensor of floats, not {type(given).__name__}."
            raise InputError(msg)
        if not bool(given.isfinite().all()):
            msg = f"{name} holds values that are not finite."
            raise InputError(msg)
    if codes.ndim != 2 or len(codes) != len(images):
        msg = (
            f"codes has a row for each of the {len(images)} images, of the shape "
            f"({len(images)}, dim), not {tuple(codes.shape)}."
        )
        raise InputError(msg)
    if len(images) < FEWEST:
        msg = f"Facets are told apart by at least {FEWEST} images; there are {len(images)}."
        raise InputError(msg)
    if count is not None and not 1 <= count <= len(images) // 2:
        msg = (
            f"{len(images)} images have 1 to {len(images) // 2} facets, of two images at least, "
            f"not {count}."
        )
        raise InputError(msg)
    if averaged < 1:
        msg = f"At least 1 image of a facet is averaged, not {averaged}."
        raise InputError(msg)
