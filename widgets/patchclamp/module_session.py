"""One module and one stimulus, which any number of views observe."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from patchclamp.engine.module_engine import ModuleEngine
from patchclamp.errors import InputError, ModelError, PatchclampError
from patchclamp.history import History, State, read_session
from patchclamp.models.module_model import ModuleModel

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

    from torch import Tensor

_FORMAT = 1


@dataclass(frozen=True, eq=False)
class _State(State):
    given: Tensor | None
    name: str


class ModuleSession(History[_State]):
    """One module, and the stimulus that is looked at, if there is one.

    Args:
        model: the model.
        input: Float[*shape] in the declared range; None for none yet.
        name: what to call the input.

    Raises:
        ModelError: when it is no `ModuleModel`.
        InputError: when the model does not take the input.

    Attributes:
        model: the model.
        engine: what runs it, shared by all of its sessions.
    """

    def __init__(
        self,
        model: ModuleModel,
        input: Tensor | None = None,  # noqa: A002 (the word that users say)
        *,
        name: str = "",
    ) -> None:
        self.model = _checked(model)
        self.engine = ModuleEngine.of(self.model)
        super().__init__(_State(self._read(input), name), self.engine.queue)

    def __repr__(self) -> str:
        shown = "no input" if self._state.given is None else self.input_name or "an input"
        return f"ModuleSession({self.model.name}, {shown})"

    @property
    def input(self) -> Tensor | None:
        """Float[*shape], the stimulus, in the declared range, or None. Settable."""
        return self._state.given

    @input.setter  # noqa: A003 (the property above, not the builtin)
    def input(self, value: Tensor | None) -> None:
        self.set_input(value)

    @property
    def input_name(self) -> str:
        """What the input is called; empty when it was given no name."""
        return self._state.name

    def set_input(
        self, value: Tensor | None, *, name: str = "", coalesce: Hashable | None = None
    ) -> None:
        """Take another stimulus.

        Args:
            value: Float[*shape] in the declared range; None for none.
            name: what to call it.
            coalesce: inputs in a row with the same value here are one step of undo.

        Raises:
            InputError: when the model does not take it.
        """
        given = self._read(value)
        self._change("input", lambda s: replace(s, given=given, name=name), coalesce=coalesce)

    # Keeping it -----------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """Return the session as JSON; the model is named, not included.

        Raises:
            InputError: when what is maximised is a Python function.
        """
        given, aim = self._state.given, self._state.aim
        return {
            "format": _FORMAT,
            "kind": "module",
            "model": self.model.name,
            "input": None if given is None else given.tolist(),
            "input_name": self.input_name,
            "aim": None if aim is None else aim.to_json(),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any], model: ModuleModel) -> ModuleSession:
        """Make a session of what :meth:`to_json` gave.

        Raises:
            PatchclampError: when it is not a session of this version, or not one of this model.
        """
        if data.get("format") != _FORMAT or data.get("kind") != "module":
            msg = "This is not a session of a module that this version reads."
            raise InputError(msg)
        try:
            given = data["input"]
            value = None if given is None else torch.tensor(given, dtype=torch.float32)
            session = cls(model, value, name=str(data["input_name"]))
            aim = data.get("aim")
            if aim is not None:
                from patchclamp.methods.aim import Aim

                session.begin_with_aim(Aim.from_json(model, aim))
        except PatchclampError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            msg = f"This session cannot be read ({type(error).__name__}: {error})."
            raise InputError(msg) from error
        return session

    def save(self, path: str | Path) -> None:
        """Write the session to a JSON file.

        Raises:
            InputError: when what is maximised is a Python function.
        """
        Path(path).write_text(json.dumps(self.to_json(), indent=1), encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path, model: ModuleModel) -> ModuleSession:
        """Read a session from a JSON file.

        Raises:
            PatchclampError: when the file does not hold a session of this model.
        """
        return cls.from_json(read_session(path), model)

    def _read(self, value: Tensor | None) -> Tensor | None:
        """Return a private copy of one stimulus: the user's own may be written to later."""
        if value is None:
            return None
        found = self.model.stimulus.check(value)
        if found.ndim != len(self.model.stimulus.shape):
            msg = (
                f"A session takes one stimulus, not a batch of {len(found)}: give one of them, "
                "such as stimuli[0]."
            )
            raise InputError(msg)
        return found.detach().float().cpu().clone()


def _checked(model: object) -> ModuleModel:
    if isinstance(model, ModuleModel):
        return model
    if isinstance(model, torch.nn.Module):
        msg = (
            "ModuleSession takes a patchclamp.ModuleModel, which says what a module takes: "
            "ModuleModel(module, Stimulus((3, None, None), size=224)), say."
        )
        raise ModelError(msg)
    msg = f"ModuleSession takes a patchclamp.ModuleModel, not a {type(model).__name__}."
    if type(model).__name__ == "LanguageModel":
        msg = "A language model's session is patchclamp.Session(model, text)."
    raise ModelError(msg)
