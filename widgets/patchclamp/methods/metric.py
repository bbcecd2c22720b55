"""What a session measures about a prediction: a number of the next-token logits."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from patchclamp.errors import InputError
from patchclamp.models.language_model import as_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from patchclamp.models.language_model import LanguageModel

Token = str | int


def _plain(token: Any) -> Any:
    """Turn what ``argmax`` gives into a number that compares and goes to JSON."""
    return token if token is None or isinstance(token, str | int) else as_id(token)


@dataclass(frozen=True)
class LogProb:
    """The log-probability of one next token, in nats.

    Attributes:
        token: the token, as its text (leading space included) or its id; None for the likeliest
            one without interventions.
    """

    token: Token | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "token", _plain(self.token))

    def tokens(self, model: LanguageModel, likeliest: int) -> tuple[int, ...]:
        """Return the ids that it is about."""
        return (likeliest if self.token is None else model.token_id(self.token),)

    def of(self, logits: Tensor, tokens: tuple[int, ...]) -> Tensor:
        """Measure Float[..., vocab] logits; returns Float[...]."""
        return logits.float().log_softmax(-1)[..., tokens[0]]

    def label(self, texts: tuple[str, ...]) -> str:
        """Write it as people do."""
        return f"log p({json.dumps(texts[0], ensure_ascii=False)})"

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"metric": "log_prob", "token": self.token}


@dataclass(frozen=True)
class LogitDifference:
    """The logit of one next token minus that of another.

    Attributes:
        token: the target.
        against: the distractor.
    """

    token: Token
    against: Token

    def __post_init__(self) -> None:
        object.__setattr__(self, "token", _plain(self.token))
        object.__setattr__(self, "against", _plain(self.against))

    def tokens(self, model: LanguageModel, likeliest: int) -> tuple[int, ...]:
        """Return the ids that it is about."""
        del likeliest  # both are given
        return model.token_id(self.token), model.token_id(self.against)

    def of(self, logits: Tensor, tokens: tuple[int, ...]) -> Tensor:
        """Measure Float[..., vocab] logits; returns Float[...]."""
        return (logits[..., tokens[0]] - logits[..., tokens[1]]).float()

    def label(self, texts: tuple[str, ...]) -> str:
        """Write it as people do."""
        return " − ".join(f"logit {json.dumps(text, ensure_ascii=False)}" for text in texts)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {"metric": "logit_difference", "token": self.token, "against": self.against}


Metric = LogProb | LogitDifference


def metric_from_json(data: Mapping[str, Any]) -> Metric:
    """Make a metric of what ``to_json`` gave.

    Raises:
        InputError: when there is no such metric.
    """
    match data.get("metric"):
        case "log_prob":
            return LogProb(data.get("token"))
        case "logit_difference":
            return LogitDifference(data["token"], data["against"])
        case other:
            msg = f"There is no metric {other!r}: log_prob and logit_difference are known."
            raise InputError(msg)
