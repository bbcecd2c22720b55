"""What a session measures about a prediction: a number of the logits.

A metric says what is measured; a :class:`Measure` is a metric bound to the inputs that it is
measured on, with the tokens of each and what the model predicted without interventions, so that a
method that runs many items at once hands over their logits and gets a number for each.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from patchclamp.errors import InputError, MetricError
from patchclamp.methods.divergence import kl_divergence
from patchclamp.models.language_model import as_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from patchclamp.engine.experiment import Experiment, Run
    from patchclamp.engine.plan import Input
    from patchclamp.models.language_model import LanguageModel

Token = str | int
Unit = Literal["nats", "logits", ""]

_ROWS_AT_ONCE = 64


def _plain(token: Any) -> Any:
    """Turn what ``argmax`` gives into a number that compares and goes to JSON."""
    return token if token is None or isinstance(token, str | int) else as_id(token)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


class _OfThePrediction:
    """What is measured of the next token's logits, those at the last position."""

    def rows(self, length: int) -> tuple[int, ...]:
        """Return the positions whose logits it needs: the last one."""
        return (length - 1,)


@dataclass(frozen=True)
class LogProb(_OfThePrediction):
    """The log-probability of one next token, in nats.

    Attributes:
        token: the token, as its text (leading space included) or its id; None for the likeliest
            one without interventions.
    """

    token: Token | None = None

    kind: ClassVar[Literal["log_prob"]] = "log_prob"
    unit: ClassVar[Unit] = "nats"

    def __post_init__(self) -> None:
        object.__setattr__(self, "token", _plain(self.token))

    def tokens(self, model: LanguageModel, likeliest: int) -> tuple[int, ...]:
        """Return the ids that it is about."""
        return (likeliest if self.token is None else model.token_id(self.token),)

    def of(self, logits: Tensor, bound: Measure) -> Tensor:
        """Measure Float[item, row, vocab] logits; returns Float[item]."""
        return _picked(logits[:, -1].float().log_softmax(-1), bound)[:, 0]

    def label(self, texts: tuple[str, ...]) -> str:
        """Write it as people do."""
        return f"log p({_quoted(texts[0])})"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"metric": self.kind, "token": self.token}


@dataclass(frozen=True)
class LogitDifference(_OfThePrediction):
    """The logit of one next token minus that of another.

    Attributes:
        token: the target.
        against: the distractor.
    """

    token: Token
    against: Token

    kind: ClassVar[Literal["logit_difference"]] = "logit_difference"
    unit: ClassVar[Unit] = "logits"

    def __post_init__(self) -> None:
        object.__setattr__(self, "token", _plain(self.token))
        object.__setattr__(self, "against", _plain(self.against))

    def tokens(self, model: LanguageModel, likeliest: int) -> tuple[int, ...]:
        """Return the ids that it is about."""
        del likeliest  # both are given
        return model.token_id(self.token), model.token_id(self.against)

    def of(self, logits: Tensor, bound: Measure) -> Tensor:
        """Measure Float[item, row, vocab] logits; returns Float[item]."""
        picked = _picked(logits[:, -1], bound)
        return (picked[:, 0] - picked[:, 1]).float()

    def label(self, texts: tuple[str, ...]) -> str:
        """Write it as people do."""
        return " − ".join(f"logit {_quoted(text)}" for text in texts)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"metric": self.kind, "token": self.token, "against": self.against}


@dataclass(frozen=True)
class KL(_OfThePrediction):
    """How far the next token's prediction moved: KL(without || with interventions), in nats.

    Kullback and Leibler (1951). It is 0 without interventions and has its minimum there, so that
    its gradient is 0 there too: a first-order estimate of it says nothing.
    """

    kind: ClassVar[Literal["kl"]] = "kl"
    unit: ClassVar[Unit] = "nats"

    def tokens(self, model: LanguageModel, likeliest: int) -> tuple[int, ...]:
        """Return no ids: it is about all of them."""
        del model, likeliest
        return ()

    def of(self, logits: Tensor, bound: Measure) -> Tensor:
        """Measure Float[item, row, vocab] logits; returns Float[item]."""
        assert bound.baseline is not None  # noqa: S101 (bind makes none without)
        return kl_divergence(bound.baseline[:, -1].to(logits.device), logits[:, -1])

    def label(self, texts: tuple[str, ...]) -> str:
        """Write it as people do."""
        del texts
        return "KL from the baseline"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"metric": self.kind}


@dataclass(frozen=True)
class Loss:
    """The mean cross-entropy of the prompt's own next tokens, in nats.

    Each position but the last predicts the token after it.
    """

    kind: ClassVar[Literal["loss"]] = "loss"
    unit: ClassVar[Unit] = "nats"

    def rows(self, length: int) -> tuple[int, ...]:
        """Return the positions whose logits it needs: all but the last.

        Raises:
            InputError: when there is none.
        """
        if length < 2:
            msg = "The loss is of a prompt's own next tokens: it needs a prompt of at least two."
            raise InputError(msg)
        return tuple(range(length - 1))

    def tokens(self, model: LanguageModel, likeliest: int) -> tuple[int, ...]:
        """Return no ids: it is about the prompt's own."""
        del model, likeliest
        return ()

    def of(self, logits: Tensor, bound: Measure) -> Tensor:
        """Measure Float[item, row, vocab] logits; returns Float[item]."""
        places = torch.tensor(bound.rows) + 1
        target = bound.ids[:, places].to(logits.device).expand(len(logits), -1)
        found = logits.float().log_softmax(-1).gather(-1, target[..., None])[..., 0]
        return -found.mean(-1)

    def label(self, texts: tuple[str, ...]) -> str:
        """Write it as people do."""
        del texts
        return "loss"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"metric": self.kind}


@dataclass(frozen=True, eq=False)
class Custom(_OfThePrediction):
    """A function of the user's, of the next token's logits. Equal to itself alone.

    Attributes:
        function: from Float[item, 1, vocab] logits to Float[item], each item by itself. Written
            in torch throughout, it has a gradient, which attribution and ranking need.
        name: what to call it.
    """

    function: Callable[[Tensor], Any]
    name: str = "custom"

    kind: ClassVar[Literal["custom"]] = "custom"
    unit: ClassVar[Unit] = ""

    def __post_init__(self) -> None:
        given: object = self.function
        if not callable(given):
            what = type(given).__name__
            msg = f"A Custom metric is made of a function of the logits, not of a {what}."
            raise MetricError(msg)

    def tokens(self, model: LanguageModel, likeliest: int) -> tuple[int, ...]:
        """Return no ids: the function knows what it is about."""
        del model, likeliest
        return ()

    def of(self, logits: Tensor, bound: Measure) -> Tensor:
        """Measure Float[item, row, vocab] logits; returns Float[item].

        Raises:
            MetricError: when the function fails, or returns anything but a number an item.
        """
        del bound
        try:
            found = self.function(logits)
        except Exception as error:  # a user's function raises whatever it likes
            msg = f"The metric {self.name!r} failed: {type(error).__name__}: {error}"
            raise MetricError(msg) from error
        if not isinstance(found, Tensor) or found.shape != (len(logits),):
            shape = f"{tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            msg = (
                f"The metric {self.name!r} gave {shape} for logits of shape "
                f"{tuple(logits.shape)}: it must return a tensor of shape ({len(logits)},), one "
                "number for each item."
            )
            raise MetricError(msg)
        return found.float()

    def label(self, texts: tuple[str, ...]) -> str:
        """Write it as people do."""
        del texts
        return self.name

    def to_json(self) -> dict[str, Any]:
        """Refuse: a function does not go into a file.

        Raises:
            MetricError: always.
        """
        msg = (
            f"The metric {self.name!r} is a function, which no file can hold: set another metric, "
            "such as LogProb(), before saving, and this one again after loading."
        )
        raise MetricError(msg)


Metric = LogProb | LogitDifference | KL | Loss | Custom


def metric_from_json(data: Mapping[str, Any]) -> Metric:
    """Make a metric of what ``to_json`` gave.

    Raises:
        InputError: when there is no such metric.
    """
    match data.get("metric"):
        case LogProb.kind:
            return LogProb(data.get("token"))
        case LogitDifference.kind:
            return LogitDifference(data["token"], data["against"])
        case KL.kind:
            return KL()
        case Loss.kind:
            return Loss()
        case other:
            kinds = f"{LogProb.kind}, {LogitDifference.kind}, {KL.kind} and {Loss.kind}"
            msg = f"There is no metric {other!r}: {kinds} are known."
            raise InputError(msg)


@dataclass(frozen=True, eq=False)
class Measure:
    """A metric bound to the inputs that it is measured on, all of one length.

    A measure of one item measures any number of items of logits, all runs of that one input.

    Attributes:
        metric: what is measured.
        rows: the positions whose logits it needs.
        tokens: LongTensor[item, k], the ids that the metric is about; k may be 0.
        ids: LongTensor[item, pos], the inputs.
        baseline: Float[item, 1, vocab], the last position's logits without interventions, where
            the metric compares with them.
    """

    metric: Metric
    rows: tuple[int, ...]
    tokens: Tensor
    ids: Tensor
    baseline: Tensor | None = None

    def __call__(self, logits: Tensor) -> Tensor:
        """Measure logits.

        Args:
            logits: Float[item, row, vocab], of this measure's rows.

        Returns:
            Float32[item]; nothing is said of NaN, see :meth:`finite`.

        Raises:
            MetricError: when a user's function fails.
        """
        return self.metric.of(logits, self)

    @property
    def name(self) -> str:
        """What a sentence calls it; tokens by their ids."""
        return self.metric.label(tuple(str(token) for token in self.tokens[0].tolist()))

    def at(self, items: Sequence[int]) -> Measure:
        """Return the measure of some of the items, in the order given, repeated where they are."""
        if len(self.ids) == 1:
            return self
        chosen = torch.tensor(list(items))
        baseline = None if self.baseline is None else self.baseline[chosen]
        return replace(self, tokens=self.tokens[chosen], ids=self.ids[chosen], baseline=baseline)

    def finite(self, logits: Tensor) -> Tensor:
        """Measure logits as a call does, and refuse what is no number.

        Raises:
            MetricError: when some item's is NaN or infinite.
        """
        found = self(logits)
        self.check(found, logits)
        return found

    def check(self, found: Tensor, logits: Tensor) -> None:
        """Say when what was measured, Float[item], of Float[item, row, vocab], is no number.

        Raises:
            MetricError: when some item's is NaN or infinite.
        """
        wrong = ~found.isfinite()
        if not bool(wrong.any()):
            return
        what = "NaN" if bool(found[wrong][0].isnan()) else "infinite"
        why = (
            "the metric itself divides by zero or overflows, as the model's output is finite"
            if bool(logits.isfinite().all())
            else "the model's output is no longer finite there; take smaller values"
        )
        raise MetricError(f"The metric {self.name!r} is {what}: {why}.")

    def differentiable(self, logits: Tensor) -> Tensor:
        """Measure logits as :meth:`finite` does, for a gradient to be taken of it.

        Raises:
            MetricError: when the metric has no gradient, or is no number.
        """
        found = self.finite(logits)
        if not found.requires_grad:
            msg = (
                f"The metric {self.name!r} has no gradient, which an estimate needs: write it in "
                "torch throughout, without .item(), .detach(), comparisons or argmax."
            )
            raise MetricError(msg)
        return found

    def of_run(self, run: Run) -> float:
        """Measure a finished run of the one input; rows of a long prompt are read in parts.

        Raises:
            MetricError: when it is no number.
        """
        total = 0.0
        for start in range(0, len(self.rows), _ROWS_AT_ONCE):
            part = replace(self, rows=self.rows[start : start + _ROWS_AT_ONCE])
            total += float(part.finite(run.rows(part.rows)[None])[0]) * len(part.rows)
        return total / len(self.rows)


def bind(
    metric: Metric,
    model: LanguageModel,
    inputs: Sequence[Input],
    *,
    baseline: Callable[[], Tensor],
    tokens: Sequence[Sequence[int]] | None = None,
) -> Measure:
    """Bind a metric to inputs of one length.

    Args:
        metric: what to measure.
        model: whose tokens are meant.
        inputs: the inputs; one of them serves any number of runs of it.
        baseline: gives Float[item, 1, vocab], the logits at the inputs' last positions without
            interventions; called only when the metric needs them.
        tokens: of each input, the ids that the metric is about; none of an input, or none at all,
            for what the metric itself says.

    Raises:
        InputError: when a token is none of the model's, or the inputs are of several lengths or
            too short for the metric.
    """
    lengths = {len(one.ids) for one in inputs}
    if len(lengths) != 1:
        listed = ", ".join(map(str, sorted(lengths))) or "none"
        msg = f"A metric is measured on inputs of one length, and these have {listed} tokens."
        raise InputError(msg)
    own = tokens if tokens is not None else [()] * len(inputs)
    likeliest_is_meant = isinstance(metric, LogProb) and metric.token is None
    before = None
    if isinstance(metric, KL) or (likeliest_is_meant and not all(own)):
        before = baseline()
    meant: list[tuple[int, ...]] = []
    for index, given in enumerate(own):
        likeliest = -1 if before is None else int(before[index, -1].argmax())
        known = metric.tokens(model, likeliest)
        meant.append(tuple(given)[: len(known)] if given else known)
    return Measure(
        metric,
        metric.rows(lengths.pop()),
        torch.tensor(meant, dtype=torch.long),
        torch.tensor([one.ids for one in inputs]),
        before if isinstance(metric, KL) else None,
    )


def bind_to(
    experiment: Experiment, metric: Metric, should_stop: Callable[[], bool] | None = None
) -> Measure:
    """Bind a metric to one experiment's input, on the model's worker.

    The baseline is the input without the experiment's stack.
    """
    before = experiment.under(())
    return bind(
        metric,
        experiment.engine.model,
        [experiment.given],
        baseline=lambda: before.outcome(should_stop=should_stop).logits[None],
    )


def _picked(scores: Tensor, bound: Measure) -> Tensor:
    """Return Float[item, k] of Float[item, vocab]: those of the tokens."""
    return scores.gather(-1, bound.tokens.to(scores.device).expand(len(scores), -1))
