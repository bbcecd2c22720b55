"""Most discriminative stimuli: clusters of units, and for each the stimulus that tells it apart.

Burg, Zenkel, Vystrčilová et al. ("Most discriminative stimuli for functional cell type clustering",
2023; ICLR 2024): what type a cell is can be read off its answers to a few
stimuli, if these are the right ones. They are found by alternating two steps, as in k-means:

1. *Stimuli.* For each cluster c one stimulus is optimised that drives it and not the others,

       J(c) = r(c, c) / T - log sum over k exp(r(c, k) / T) + log K,

   where r(c, k) is the mean response of cluster k's units to the stimulus of c, K the number of
   clusters, and T a temperature: differences in response much smaller than it do not count. J is at
   most log K, and 0 where all clusters answer alike.
2. *Units.* Each goes to the cluster whose stimulus drives it most. Clusters that lose all their
   units are dropped.

It ends when no unit moves. It begins with too many clusters, units drawn at random. Then it is
*reconsidered*: two clusters that answer most alike are made one, and one whose units fall into two
by their responses is made two, and each is kept if the mean of J rises after a few rounds.

What is done as in the authors' program: the objective, the assignment, dropping, splitting and
merging by the objective. Otherwise: a response is a share of the largest that the unit gave so far
to any stimulus that was tried, beyond that to a blank one, so that T is a share too (they divide by
the unit's spread over a set of films, and take T = 1.6); all stimuli climb together, by Adam,
within the declared range of the input.

*Controls*: without the contrast (``contrast=False``: J is r(c, c) / T alone, the most exciting
stimulus of each cluster); k-means on responses to random stimuli (:func:`random_stimuli`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from patchclamp.errors import InputError, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from torch import Tensor

    from patchclamp.engine.module_engine import ModuleEngine
    from patchclamp.methods.objective import Objective
    from patchclamp.models.stimulus import Stimulus

    Respond = Callable[[Tensor], Tensor]
    ShouldStop = Callable[[], bool]

_START = 0.1  # contrast of the first stimuli, as a share of half the range
_BETTER = 1e-3  # by which J must rise
_TRIAL_ROUNDS = 3
_LEAST_TO_SPLIT = 4
_PROBES = 64  # random stimuli that the first scale is taken from


@dataclass(frozen=True)
class Search:
    """How to search.

    Attributes:
        clusters: how many there are at first; about twice as many as are expected.
        temperature: T, a share of a unit's largest response.
        steps: of the ascent in each round.
        rate: Adam's, as a share of half the range.
        rounds: at most so many, before and after reconsidering.
        contrast: whether a stimulus is to leave the other clusters out.
        reconsider: how many clusters may be merged or split, at most.
        size: of each free dimension; None for what the model's stimulus says.
        seed: of the first clusters and stimuli.
    """

    clusters: int = 16
    temperature: float = 0.3
    steps: int = 20
    rate: float = 0.1
    rounds: int = 15
    contrast: bool = True
    reconsider: int = 8
    size: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("clusters", 2), ("steps", 1), ("rounds", 1), ("reconsider", 0)):
            if getattr(self, name) < least:
                msg = f"{name} is at least {least}, not {getattr(self, name)}."
                raise InputError(msg)
        for name in ("temperature", "rate"):
            value = getattr(self, name)
            if not math.isfinite(value) or value <= 0:
                msg = f"{name} is a positive number, not {value}."
                raise InputError(msg)


@dataclass(frozen=True, eq=False)
class State:
    """How far the search is.

    Attributes:
        round: how many rounds were gone through.
        stimuli: Float[cluster, *shape], in the declared range.
        labels: LongTensor[unit], the cluster of each.
        responses: Float[cluster, unit], each unit's response to each stimulus, as a share of its
            largest.
        objective: the mean of J over clusters, with the contrast whatever was maximised.
        moved: how many units changed their cluster in this round.
        what: what was done last, in words.
        done: whether the search is through.
    """

    round: int
    stimuli: Tensor
    labels: Tensor
    responses: Tensor
    objective: float
    moved: int
    what: str
    done: bool = False

    @property
    def clusters(self) -> int:
        """How many clusters there are."""
        return len(self.stimuli)

    def mean_responses(self) -> Tensor:
        """Return Float[stimulus, cluster]: the mean response of each cluster to each stimulus."""
        return self.responses @ _shares(self.labels, self.clusters).to(self.responses)


def responses_of(engine: ModuleEngine, units: Sequence[Objective]) -> Respond:
    """Return a function from stimuli to the responses of a model's units.

    Args:
        engine: of the model.
        units: each is one objective, such as ``objective(model, "cell:c3")``.

    Returns:
        From Float[batch, *shape] to Float[batch, unit]; it keeps the graph.

    Raises:
        InputError: when there are no units.
    """
    if len(units) < 2:
        msg = f"Clusters are of two units or more, not {len(units)}."
        raise InputError(msg)
    paths = tuple(dict.fromkeys(hook for unit in units for hook in unit.hooks))

    def respond(stimuli: Tensor) -> Tensor:
        values = engine.run(stimuli, paths).values
        return torch.stack([unit.value(values) for unit in units], 1)

    return respond


def discriminate(
    respond: Respond,
    stimulus: Stimulus,
    search: Search | None = None,
    *,
    should_stop: ShouldStop | None = None,
) -> Generator[State, None, State]:
    """Find clusters of units and the stimulus that tells each apart.

    It yields after every round, the first time before any; whoever stops it keeps the last state.

    Args:
        respond: from Float[batch, *shape] to Float[batch, unit]; see :func:`responses_of`.
        stimulus: what a stimulus is; its range has ends.
        search: how.
        should_stop: asked before every step.

    Returns:
        The last state.

    Raises:
        InputError: when the range has no ends, there are fewer units than clusters, or a response
            is no finite number.
        Stopped: when told to.
    """
    how = search or Search()
    if not stimulus.bounded:
        msg = "A stimulus is kept within its range, and this one's has no end."
        raise InputError(msg)
    run = _Search(respond, stimulus, how, should_stop)
    state = run.start()
    yield state
    state = yield from run.settle(state, how.rounds, "assigned")
    left = how.reconsider
    while left:
        better = run.merged(state) or run.split(state)
        if better is None:
            break
        left -= 1
        state = replace(better, round=state.round + 1)
        yield state
    if left < how.reconsider:
        state = yield from run.settle(state, how.rounds, "assigned")
    state = replace(state, done=True)
    yield state
    return state


def random_stimuli(
    stimulus: Stimulus, count: int, *, size: int | None = None, seed: int = 0
) -> Tensor:
    """Draw stimuli of white noise over the whole range: what the found ones are compared with.

    Args:
        stimulus: what a stimulus is.
        count: how many.
        size: of each free dimension.
        seed: of the draw.

    Returns:
        Float[count, *shape].
    """
    generator = torch.Generator().manual_seed(seed)
    shape = (count, *stimulus.example_shape(size))
    half = (stimulus.high - stimulus.low) / 2
    noise = torch.randn(shape, generator=generator).clamp(-1, 1)
    return stimulus.middle + half * noise


def clusters_by_responses(responses: Tensor, clusters: int, *, seed: int = 0) -> Tensor:
    """Cluster units by k-means on their responses to given stimuli.

    Args:
        responses: Float[stimulus, unit]; each unit's are brought to mean 0 and variance 1 when
            there are several stimuli, then each stimulus' over units.
        clusters: how many.
        seed: of the starts.

    Returns:
        LongTensor[unit].
    """
    from sklearn.cluster import KMeans

    points = responses.T.double()
    points = (points - points.mean(0)) / points.std(0).clamp_min(1e-12)
    labels = KMeans(clusters, n_init=10, random_state=seed).fit_predict(points.numpy())
    return torch.as_tensor(labels).long()


class _Search:
    """What a search knows while it runs: the scale of each unit's responses."""

    def __init__(
        self, respond: Respond, stimulus: Stimulus, how: Search, should_stop: ShouldStop | None
    ) -> None:
        self._respond, self._stimulus, self._how = respond, stimulus, how
        self._should_stop = should_stop
        self._half = (stimulus.high - stimulus.low) / 2
        self._generator = torch.Generator().manual_seed(how.seed)
        self._blank = self._largest = torch.zeros(0)

    def start(self) -> State:
        """Draw the first clusters and stimuli."""
        how, stimulus = self._how, self._stimulus
        shape = stimulus.example_shape(how.size)
        with torch.no_grad():
            middle = torch.full((1, *shape), stimulus.middle)
            self._blank = self._checked(self._respond(middle))[0]
            probes = random_stimuli(stimulus, _PROBES, size=how.size, seed=how.seed)
            beyond = torch.cat([self._respond(some) for some in probes.split(16)]) - self._blank
        self._largest = beyond.amax(0).clamp_min(1e-6)
        units = len(self._blank)
        if units < how.clusters:
            msg = f"There are {units} units: too few for {how.clusters} clusters."
            raise InputError(msg)
        labels = torch.randperm(units, generator=self._generator) % how.clusters
        noise = torch.randn((how.clusters, *shape), generator=self._generator)
        stimuli = stimulus.middle + _START * self._half * noise
        # As exact as the responses are: Adam's first steps are signs, and rounding flips signs.
        stimuli = stimuli.clamp(stimulus.low, stimulus.high).to(self._blank.dtype)
        return self._state(0, stimuli, labels, 0, "drawn at random")

    def settle(self, state: State, rounds: int, what: str) -> Generator[State, None, State]:
        """Alternate until no unit moves."""
        for _ in range(rounds):
            state = self._round(state, what)
            yield state
            if not state.moved:
                break
        return state

    def merged(self, state: State) -> State | None:
        """Make one of the two clusters that answer most alike, if that is better."""
        if state.clusters <= 2:
            return None
        mean = state.mean_responses()
        alike = mean - mean.diagonal()[:, None]
        alike = torch.maximum(alike, alike.T)
        alike.fill_diagonal_(-math.inf)
        one, other = divmod(int(alike.argmax()), state.clusters)
        kept = [c for c in range(state.clusters) if c != other]
        labels = torch.where(state.labels == other, one, state.labels)
        labels = torch.tensor(kept).argsort()[torch.searchsorted(torch.tensor(kept), labels)]
        return self._tried(state, state.stimuli[kept], labels, "merged two clusters")

    def split(self, state: State) -> State | None:
        """Make two of the first cluster for which that is better; the least united come first."""
        mean = state.mean_responses().diagonal()
        for cluster in mean.argsort().tolist():
            (of_cluster,) = (state.labels == cluster).nonzero(as_tuple=True)
            if len(of_cluster) < _LEAST_TO_SPLIT:
                continue
            answers = state.responses[:, of_cluster]
            if bool((answers == answers[:, :1]).all()):
                continue  # cells that are all alike
            halves = clusters_by_responses(answers, 2)
            labels = state.labels.clone()
            labels[of_cluster[halves == 1]] = state.clusters
            noise = torch.randn(state.stimuli[:1].shape, generator=self._generator).to(
                state.stimuli
            )
            added = state.stimuli[cluster : cluster + 1] + _START * self._half * noise
            added = added.clamp(self._stimulus.low, self._stimulus.high)
            stimuli = torch.cat([state.stimuli, added])
            better = self._tried(state, stimuli, labels, "split a cluster")
            if better is not None and better.clusters > state.clusters:
                return better
        return None

    def _tried(self, state: State, stimuli: Tensor, labels: Tensor, what: str) -> State | None:
        trial = self._state(state.round, stimuli, labels, 0, what)
        for _ in range(_TRIAL_ROUNDS):
            trial = self._round(trial, what)
            if not trial.moved:
                break
        # The scale may have grown meanwhile: both are measured on the same.
        before = self._state(0, state.stimuli, state.labels, 0, "").objective
        return trial if trial.objective > before + _BETTER else None

    def _round(self, state: State, what: str) -> State:
        stimuli = self._climbed(state)
        with torch.no_grad():
            closest = self._beyond(stimuli).argmax(0)
        kept = closest.unique()
        labels = torch.searchsorted(kept, closest)
        moved = int((closest != state.labels).sum())
        return self._state(state.round + 1, stimuli[kept], labels, moved, what)

    def _climbed(self, state: State) -> Tensor:
        how, stimulus = self._how, self._stimulus
        shares = _shares(state.labels, state.clusters).to(state.responses)
        x = state.stimuli.clone().requires_grad_()
        adam = torch.optim.Adam([x], lr=how.rate * self._half)
        for _ in range(how.steps):
            if self._should_stop is not None and self._should_stop():
                msg = "Stopped before it was finished."
                raise Stopped(msg)
            mean = self._beyond(x) @ shares
            value = discrimination(mean, how.temperature, contrast=how.contrast).sum()
            (slope,) = torch.autograd.grad(-value, x)
            x.grad = slope
            adam.step()
            with torch.no_grad():
                x.clamp_(stimulus.low, stimulus.high)
        return x.detach()

    def _beyond(self, stimuli: Tensor) -> Tensor:
        """Return Float[stimulus, unit], responses as shares of each unit's largest so far."""
        beyond = self._checked(self._respond(stimuli)) - self._blank
        with torch.no_grad():
            self._largest = torch.maximum(self._largest, beyond.amax(0))
        return beyond / self._largest

    def _checked(self, responses: Tensor) -> Tensor:
        if not bool(responses.isfinite().all()):
            msg = "A response is not a finite number."
            raise InputError(msg)
        return responses

    def _state(self, number: int, stimuli: Tensor, labels: Tensor, moved: int, what: str) -> State:
        with torch.no_grad():
            responses = self._beyond(stimuli)
            mean = responses @ _shares(labels, len(stimuli)).to(responses)
            value = float(discrimination(mean, self._how.temperature).mean())
        return State(number, stimuli, labels, responses, value, moved, what)


def discrimination(mean: Tensor, temperature: float, *, contrast: bool = True) -> Tensor:
    """Return Float[cluster], J of this module.

    Args:
        mean: Float[cluster, cluster], the mean response of each cluster (column) to the stimulus of
            each (row).
        temperature: T.
        contrast: without, the response of the cluster's own units alone.

    >>> [round(float(j), 3) for j in discrimination(torch.eye(2), 0.1)]
    [0.693, 0.693]
    """
    own = mean.diagonal() / temperature
    if not contrast:
        return own
    return own - torch.logsumexp(mean / temperature, 1) + math.log(len(mean))


def _shares(labels: Tensor, clusters: int) -> Tensor:
    """Return Float[unit, cluster]: what turns responses of units into means of clusters."""
    member = torch.nn.functional.one_hot(labels, clusters).float()
    return member / member.sum(0).clamp_min(1)


def last(states: Generator[State, Any, State]) -> State:
    """Let a search run to its end and return the last state."""
    while True:
        try:
            next(states)
        except StopIteration as end:
            state: State = end.value
            return state
