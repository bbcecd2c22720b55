"""The user's own input, on the axis of all that drives the unit: a text, a file, or numbers.

Of a language model it joins the plot of prompts (`dream_view.py`), with its cross-entropy.
"""

import base64
import binascii
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from patchclamp.engine.engine import Engine
from patchclamp.errors import InputError
from patchclamp.methods.corpus_examples import own_example
from patchclamp.methods.front import Candidate
from patchclamp.methods.text_examples import TextExample

from . import aims, rows
from . import messages as say
from .example_view import ExampleView
from .messages import MessageError
from .stimulus_pictures import read_image, read_numbers
from .view import Later, ShouldStop

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from patchclamp.methods.example_groups import Example
    from patchclamp.methods.objective import Objective
    from patchclamp.session import Change

_MOST_BYTES = 4 * 2**20  # of a file of the user's
_FILES = 4  # of the user's that are kept


class OwnView(ExampleView):
    """The part of ActivationMaximizer that is about an input of the user's."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self._own: tuple[Objective, Example, float | None] | None = None
        self._own_given: str | Tensor | None = None
        self._own_label = ""
        self._files: OrderedDict[str, list[str]] = OrderedDict()
        super().__init__(*args, **options)

    # --- the same gestures, from Python -----------------------------------------------------------

    def own(self, given: "str | Tensor | Path | None", label: str = "") -> "Example | None":
        """Measure an input of one's own, on the axis of all others.

        Args:
            given: of a language model a text or token ids; of another one a stimulus, or the path
                of an image; None takes it away.
            label: what to call a stimulus.

        Returns:
            The activation, at each token or place too.

        Raises:
            InputError: when the model does not take it.
            AddressError: when no unit was chosen.
        """
        if isinstance(given, Path):
            label = label or given.name
            given = read_image(given.read_bytes(), self._module_session().model.stimulus)
        if given is None:
            self._take_own(None, None, "")
            return None
        target = aims.objective_of(self._aim)
        found, cost = self._session.submit(self._own_job(target, given, label)).result()
        self._take_own((target, found, cost), given, label)
        example: Example = found
        return example

    # --- gestures from the page -------------------------------------------------------------------

    def _on_piece(self, message: say.Piece) -> None:
        if message.index == 0:
            self._files[message.name] = []
            while len(self._files) > _FILES:
                self._files.popitem(last=False)
        parts = self._files.get(message.name)
        if parts is None or message.index != len(parts) or message.index >= message.of:
            raise MessageError("A piece of the file is missing: send it again.", field="index")
        if (sum(map(len, parts)) + len(message.data)) * 3 // 4 > _MOST_BYTES:
            del self._files[message.name]
            raise MessageError("The file is larger than 4 MB: make it smaller.", field="data")
        parts.append(message.data)

    def _on_own(self, message: say.Own) -> Later | None:
        if message.text is None and message.piece is None:
            self.own(None)
            return None
        self._refuse_mode("own")
        with rows.about("piece" if message.text is None else "text"):
            target = aims.objective_of(self._aim)
            given, label = self._own_of(message)
            job = self._own_job(target, given, label)

        def then(found: "tuple[Example, float | None]") -> None:
            self._take_own((target, *found), given, label)
            self._reply(message.id)

        field = "piece" if message.text is None else "text"
        self._start(
            "own",
            "measuring your input",
            job,
            then=then,
            failed=lambda error: self._refuse(message.id, str(error), field),
        )
        return Later()

    def _own_of(self, message: say.Own) -> "tuple[str | Tensor, str]":
        """What a message gives to be measured, and what it is called.

        Raises:
            InputError: when it cannot be read.
        """
        if self._module is None:
            if message.text is None:
                msg = "A language model is given a text, not a file."
                raise InputError(msg)
            return message.text, ""
        stimulus = self._module.model.stimulus
        if message.piece is None:
            if stimulus.renderer == "image":
                msg = "An image is given as a file, not as a text."
                raise InputError(msg)
            numbers = read_numbers(message.text or "")
            shaped = numbers if len(stimulus.shape) == 2 else numbers[None]
            return stimulus.check(shaped), "your numbers"
        parts = self._files.pop(message.piece, None)
        if parts is None:
            msg = f"There is no file {message.piece!r}: send it again."
            raise InputError(msg)
        try:
            data = base64.b64decode("".join(parts), validate=True)
        except binascii.Error as error:
            msg = "The file did not arrive whole: send it again."
            raise InputError(msg) from error
        if stimulus.renderer != "image":
            msg = "Files are images; a curve or a raster is given as numbers."
            raise InputError(msg)
        return read_image(data, stimulus), message.piece

    # --- measuring --------------------------------------------------------------------------------

    def _own_job(
        self, target: "Objective", given: "str | Tensor", label: str
    ) -> "Callable[[ShouldStop], tuple[Example, float | None]]":
        engine = self._session.engine

        def job(should_stop: ShouldStop) -> "tuple[Example, float | None]":
            found = own_example(engine, target, given, label, should_stop)
            causal = isinstance(engine, Engine) and engine.model.anatomy.causal
            if not isinstance(found, TextExample) or not causal:
                return found, None
            cost = self._cross_entropy(target, self._up_to_peak(found), should_stop)
            return found, cost if np.isfinite(cost) else None

        return job

    def _take_own(
        self,
        found: "tuple[Objective, Example, float | None] | None",
        given: "str | Tensor | None",
        label: str,
    ) -> None:
        self._own, self._own_given, self._own_label = found, given, label
        self._beside.pop("own", None)
        if found is not None and isinstance(found[1], TextExample):
            cost = float("nan") if found[2] is None else found[2]
            one = Candidate(self._up_to_peak(found[1]), found[1].activation, cost)
            self._beside["own"] = (found[0], [one])
            if found[1].peak is not None:
                self._shaded["own", one.ids] = found[1].values[: found[1].peak + 1]
        self._push("own", say.OwnUpdate(own=self._own_message()))
        if self._module is None:
            self._push_front(always=True)

    # --- following the session --------------------------------------------------------------------

    def _changed(self, change: "Change") -> None:
        super()._changed(change)
        given, target = self._own_given, self._aim.objective
        if given is None or target is None or self._own is None or self._own[0] == target:
            return
        label = self._own_label
        self._start(  # another unit: the user's own input stays on its axis
            "own",
            "measuring your input",
            self._own_job(target, given, label),
            then=lambda found: self._take_own((target, *found), given, label),
        )

    # --- what there is to draw --------------------------------------------------------------------

    def _own_message(self) -> say.Example | None:
        if self._own is None:
            return None
        target, found, cost = self._own
        return self._example(target, found, cost)
