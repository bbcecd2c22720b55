"""What searches for prompts work on: tiny models, and the same numbers by plain TransformerLens."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from transformer_lens.config import TransformerBridgeConfig
from transformer_lens.model_bridge import TransformerBridge

from patchclamp.engine.candidates import Candidates, Swap
from patchclamp.engine.engine import Engine
from patchclamp.methods.objective import objective
from patchclamp.models.language_model import LanguageModel
from tests.unit import tiny

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from patchclamp.engine.candidates import Prompt, Score, Tried
    from patchclamp.methods.objective import Objective

T = TypeVar("T")

LENGTH = 7
ABOUT = tuple(range(40, 24, -1))
"""The token that each neuron of layer 1 of the planted model is about."""


def on_worker(model: LanguageModel, job: Callable[[], T]) -> T:
    """Do something where the model's runs belong."""
    return Engine.of(model).queue.submit(lambda _: job()).result()


def last(model: LanguageModel, steps: Callable[[Engine], Generator[object, None, T]]) -> T:
    """Run a search to its end, and return what it returns."""

    def job() -> T:
        running = steps(Engine.of(model))
        while True:
            try:
                next(running)
            except StopIteration as end:
                found: T = end.value
                return found

    return on_worker(model, job)


def parents_of(candidates: Candidates, count: int = 3, *, slopes: bool = False) -> list[Prompt]:
    """Run random prompts."""
    ids = [
        (*candidates.front, *tiny.ids(candidates.length, seed=seed).tolist())
        for seed in range(count)
    ]
    return candidates.prompts(ids, slopes=slopes)


def random_swaps(candidates: Candidates, parents: int = 3, each: int = 2) -> list[Swap]:
    """Draw swaps in every position."""
    generator = torch.Generator().manual_seed(5)
    places = list(candidates.swappable) * each
    tokens = torch.randint(3, tiny.VOCAB, (len(places),), generator=generator).tolist()
    return [
        Swap(number % parents, place, token)
        for number, (place, token) in enumerate(zip(places, tokens, strict=True))
    ]


def numbers(tried: Sequence[Tried]) -> dict[int, tuple[float, float]]:
    """Return (activation, cross-entropy) of each swap."""
    return {
        item: (activation, cross_entropy)
        for one in tried
        for item, activation, cross_entropy in zip(
            one.items, one.activations.tolist(), one.cross_entropies.tolist(), strict=True
        )
    }


def plainly(model: LanguageModel, score: Score, ids: Sequence[int]) -> tuple[float, float, float]:
    """Return activation, cross-entropy and the largest logit, by a plain hooked pass."""
    taken: dict[str, torch.Tensor] = {}

    def keep(tensor: torch.Tensor, hook: object, name: str) -> None:
        taken[name] = tensor.detach().clone()

    hooks: list[Any] = [(name, partial(keep, name=name)) for name in score.hooks]
    with torch.no_grad():
        logits = model.bridge.run_with_hooks(torch.tensor([list(ids)]), fwd_hooks=hooks)[0]
    start = 0 if model.bos_id is None else 1
    activation = float(score.value(taken, start=start)[0])
    losses = -logits[:-1].log_softmax(-1).gather(-1, torch.tensor(ids[1:])[:, None])
    return activation, float(losses.mean()), float(logits.abs().max())


def planted(act: str = "gelu") -> LanguageModel:
    """Make a model in which each neuron of layer 1 is about one token: L1.N3 about ABOUT[3].

    Embeddings stand at right angles; positions, attention and layer 0 write nothing. So what enters
    a neuron is the embedding of the token that stands there, and its weights are ten times that of
    its own token: it is 10 on that one, and 0 on all others.
    """
    config = TransformerBridgeConfig(
        n_layers=2,
        d_model=64,
        n_heads=2,
        d_head=32,
        d_mlp=16,
        d_vocab=tiny.VOCAB,
        n_ctx=32,
        act_fn=act,
        normalization_type=None,
        init_mode="gpt2",
        initializer_range=0.25,
        seed=1,
    )
    made: TransformerBridge = TransformerBridge.boot_native(config)  # type: ignore[attr-defined] # put on the class when it is imported
    weights = dict(made.original_model.named_parameters())
    with torch.no_grad():
        for name, weight in weights.items():
            plain = name.replace("._original_component", "")
            if plain == "tok_embed.weight":
                weight.copy_(torch.eye(64)[: tiny.VOCAB])
            elif plain == "layers.1.mlp.fc_in.weight":
                weight.copy_(10 * torch.eye(64)[list(ABOUT)])
            elif plain == "pos.weight" or ".o." in plain or "fc_out" in plain or "bias" in plain:
                weight.zero_()
    return LanguageModel(made, None, name=f"planted-{act}")


def in_a_row(model: LanguageModel) -> Objective:
    """Make the objective whose best prompt is ABOUT[:4]: a neuron's value in each position."""
    first, *others = (objective(model, f"L1.N{place}@{place}") for place in range(4))
    for other in others:
        first = first + other
    return first
