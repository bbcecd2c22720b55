"""Which short cuts are exact on a model: each is compared with the bridge's own pass."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from patchclamp.engine.hooks import Step
from patchclamp.engine.passes import Passes, Result, Shortcuts
from patchclamp.engine.plan import Input, Plan, compose
from patchclamp.engine.shell import Pass

if TYPE_CHECKING:
    from collections.abc import Callable

    from patchclamp.models.language_model import LanguageModel

_EXACT = 1e-5
_LENGTH = 8


def check_shortcuts(  # noqa: C901 (one step after the other)
    model: LanguageModel, passes: Passes
) -> Shortcuts:
    """Try every short cut on a few fixed tokens; each check uses only what held before it.

    Args:
        model: the model.
        passes: what runs it; its ``shortcuts`` are narrowed to what holds.

    Returns:
        The short cuts that hold, with a sentence for each that does not.
    """
    anatomy = model.anatomy
    length = min(_LENGTH, anatomy.n_ctx)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, anatomy.d_vocab, (length,), generator=generator)
    given = Input(tuple(ids.tolist()), has_bos=False)
    with torch.no_grad():
        truth = passes.bridge(ids.unsqueeze(0).to(model.device))
    truth = getattr(truth, "logits", truth)[0]
    reasons: list[str] = []

    def holds(what: str, run: Callable[[], Result]) -> Result | None:
        try:
            result = run()
        except (TypeError, ValueError, LookupError, AttributeError, RuntimeError) as error:
            reasons.append(f"{what}: not on this architecture ({type(error).__name__}: {error}).")
            return None
        assert result.logits is not None  # noqa: S101 (no layer to stop at was given)
        found = result.logits[0]
        off = float((found - truth[-len(found) :]).abs().max() / truth.abs().max())
        if off <= _EXACT:
            return result
        reasons.append(f"{what}: differs by {off:.1e} of the largest logit here.")
        return None

    def whole(*, plain: bool) -> Result:
        return passes.run(given, [[]], Pass((), record=True), plain=plain)

    def resumed(full: Result, position: int, *, mixed: bool) -> Result:
        """Start in the middle, with every second block hooked."""
        layer = anatomy.n_layers // 2
        trace = compose(given.ids, (), Plan(), full.residual, full.cache)
        hooks = [f"blocks.{n}.hook_in" for n in range(layer, anatomy.n_layers, 2)] if mixed else []
        steps = [Step(name, lambda _tensor, _frame: None) for name in hooks]
        return passes.run(given, [steps], Pass(()), Plan(trace, layer, position))

    full = holds("Keys and values", lambda: whole(plain=False))
    cached = full is not None
    passes.shortcuts = Shortcuts(layers=False, positions=cached, plain=False)
    if full is None:
        full = holds("Recording", lambda: whole(plain=False))
        if full is None:
            return Shortcuts(layers=False, positions=False, plain=False, reasons=tuple(reasons))
    recorded = full
    passes.shortcuts = Shortcuts(layers=False, positions=cached, plain=True)
    plain = holds("Plain blocks", lambda: whole(plain=True)) is not None
    passes.shortcuts = Shortcuts(layers=True, positions=cached, plain=plain)
    layers = holds("Starting from a layer", lambda: resumed(recorded, 0, mixed=plain)) is not None
    keeps = recorded.cache is not None and len(recorded.cache.layers) == anatomy.n_layers
    positions = False
    if not anatomy.causal:
        reasons.append("Reusing keys and values: every position sees every other one here.")
    elif cached and not keeps:
        reasons.append("Reusing keys and values: this model keeps none.")
    elif cached and layers and length > 1:
        positions = (
            holds(
                "Reusing keys and values",
                lambda: resumed(recorded, length // 2, mixed=plain),
            )
            is not None
        )
    return Shortcuts(layers=layers, positions=positions, plain=plain, reasons=tuple(reasons))
