"""The circuit that is looked at as Python that finds, chooses and checks it again."""

from typing import TYPE_CHECKING

from patchclamp.errors import InputError
from patchclamp.methods.metric import Custom, Metric
from patchclamp.methods.prompt_sets import NAMES, PromptSet, prompt_set
from patchclamp.models import catalogue

if TYPE_CHECKING:
    import torch

    from patchclamp.methods.circuit import Selection
    from patchclamp.models.language_model import LanguageModel
    from patchclamp.session import Session


def circuit_code(session: "Session", asked: str, selection: "Selection") -> str:
    """Python for a circuit.

    Args:
        session: what it is of.
        asked: the call that found it, or loaded it.
        selection: which edges are in it.
    """
    lines = ["import patchclamp as pc", *_model(session.model), *_session(session)]
    lines += ["ablator = pc.CircuitAblator(session)", asked, f"ablator.size = {selection.size}"]
    switched = [*sorted(selection.removed), *sorted(selection.added)]
    lines += [f"ablator.switch({_quoted(address)})" for address in switched]
    for note in selection.notes:
        said = {"pinned": note.pinned, "name": note.name, "group": note.group}
        words = "".join(f", {word}={_quoted(what)}" for word, what in said.items() if what)
        lines.append(f"ablator.annotate({_quoted(note.address)}{words})")
    lines.append("print(ablator.check())")
    text = "\n".join(lines)
    return text.replace("import patchclamp as pc\n", "import patchclamp as pc\n\n", 1) + "\n"


def _model(model: "LanguageModel") -> list[str]:
    if catalogue.find(model.name) is not None:
        return [f"model = pc.load({_quoted(model.name)})"]
    return [f"model = ...  # {model.name}, as you made it"]


def _session(session: "Session") -> list[str]:
    metric, before = _metric(session.metric)
    if session.pairs is not None:
        pairs = _pairs(session.pairs, session.model)
        return [*pairs, *before, f"session = pc.Session(model, pairs=pairs, metric={metric})"]
    given, contrast = _input(session.input), session.contrast
    other = "" if contrast is None else f", contrast={_input(contrast)}"
    imports = ["import torch"] if "torch" in given + other else []
    return [*imports, *before, f"session = pc.Session(model, {given}{other}, metric={metric})"]


def _pairs(pairs: PromptSet, model: "LanguageModel") -> list[str]:
    """A set that comes with the package by its name, any other written out."""
    count = len(pairs.pairs)
    if pairs.name in NAMES and _is_drawn(pairs, model):
        name = _quoted(pairs.name)
        return [f"pairs = pc.prompt_set({name}, model, count={count}, seed={pairs.seed})"]
    words = [_quoted(pairs.name), _quoted(pairs.about), str(pairs.seed)]
    each = [f"    pc.{pair!r}," for pair in pairs.pairs]
    return [f"pairs = pc.PromptSet({', '.join(words)}, (", *each, "))"]


def _is_drawn(pairs: PromptSet, model: "LanguageModel") -> bool:
    try:
        drawn = prompt_set(pairs.name, model, len(pairs.pairs), pairs.seed)
    except InputError:  # a set of the user's that has the name of one of ours
        return False
    return drawn.pairs == pairs.pairs


def _metric(metric: Metric) -> tuple[str, list[str]]:
    """A metric, and what has to be said before it is named."""
    if isinstance(metric, Custom):
        said = "function = ...  # yours, from Float[item, 1, vocab] logits to Float[item]"
        return f"pc.Custom(function, {_quoted(metric.name)})", [said]
    return f"pc.{metric!r}", []


def _input(given: "str | torch.Tensor") -> str:
    return _quoted(given) if isinstance(given, str) else f"torch.tensor({given.tolist()})"


def _quoted(value: object) -> str:
    """A literal with double quotes, as the rest of the code has."""
    text = repr(value)
    plain = isinstance(value, str) and text.startswith("'") and '"' not in text
    return f'"{text[1:-1]}"' if plain else text
