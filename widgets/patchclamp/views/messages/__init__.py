"""The messages between a view in the page and its Python half.

Intent goes up, state comes down. Every gesture is one small `Up` message with an id; Python
validates it here, answers it with one `Reply` under the same id, and says what changed with the
other `Down` messages. The TypeScript types are generated from these classes (`schema.py`), so the
two sides cannot drift. `parse_up` is the only door for what comes from the page.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from .activation_maximizer import *
from .attention_inspector import *
from .circuit_ablator import *
from .neuron_atlas import *
from .neuron_clamp import *
from .shared import *
from .wire import *

AnyUp = Annotated[
    Hello
    | Edit
    | Add
    | Remove
    | Move
    | Solo
    | Select
    | Reset
    | Undo
    | Redo
    | Prompt
    | Target
    | Rank
    | Complete
    | Curve
    | Generate
    | Stop
    | Code
    | Tokens
    | Inspect
    | Head
    | Tiles
    | Cell
    | Assess
    | Compose
    | Knock
    | Second
    | Align
    | Objective
    | Pairs
    | Pair
    | Survey
    | Ablations
    | Drill
    | Patching
    | Find
    | Size
    | Switch
    | Annotate
    | Edge
    | Check
    | Interact
    | Export
    | Import
    | Aim
    | Options
    | Climb
    | Pause
    | Scrub
    | Facets
    | Diverse
    | Dream
    | Rivals
    | Examples
    | Piece
    | Own
    | Matter
    | Discriminate
    | Load
    | Save
    | Sift
    | Page
    | Meet
    | Shade
    | Weigh
    | Hold
    | Build,
    Field(discriminator="kind"),
]


UP: TypeAdapter[AnyUp] = TypeAdapter(AnyUp)


Body = Annotated[
    HelloBody
    | InspectorBody
    | AblatorBody
    | MaximizerBody
    | AtlasBody
    | AddBody
    | RankBody
    | CompleteBody
    | TokensBody
    | CodeBody
    | HeadBody
    | TilesBody
    | CellBody
    | ComposeBody
    | KnockBody
    | DrillBody
    | EdgeBody
    | InteractBody
    | ExportBody
    | FrameBody
    | LoadBody
    | SaveBody
    | PageBody
    | CardBody
    | ShadeBody
    | WeighBody,
    Field(discriminator="of"),
]


class ReplyOk(Message):
    """The gesture was taken; results up to `revision` are still to come."""

    kind: Literal["reply"] = "reply"
    id: int
    ok: Literal[True] = True
    revision: int
    body: Body | None = None


class ReplyError(Message):
    """The gesture was refused and changed nothing."""

    kind: Literal["reply"] = "reply"
    id: int | None
    """Null when the message had no readable id."""
    ok: Literal[False] = False
    revision: int
    error: str
    """A sentence for a person."""
    field: str | None = None
    """Which part of the message it is about, such as "address"."""


AnyDown = (
    ReplyOk
    | ReplyError
    | StateUpdate
    | ResultUpdate
    | Progress
    | CurveUpdate
    | EffectsUpdate
    | Generated
    | Status
    | AttentionUpdate
    | GridUpdate
    | ScoresUpdate
    | CircuitUpdate
    | MapUpdate
    | PatchingUpdate
    | GraphUpdate
    | CheckUpdate
    | FaithfulUpdate
    | MaximizerUpdate
    | FrameUpdate
    | TracksUpdate
    | FrontUpdate
    | ExamplesUpdate
    | OwnUpdate
    | MatterUpdate
    | DiscriminationUpdate
    | AtlasUpdate
    | CardUpdate
)


class Snapshot(Message):
    """The last picture at rest, for saved pages: what `hello` answers, with its buffers as text.

    Its `PackedArray`s point into `buffers`, each of which is base64. `cut` names what was left out
    to stay inside the size limit. A page made by `to_html` has this trait alone;
    where there is a kernel, there is a trait `live`, which is true.
    """

    hello: HelloBody | InspectorBody | AblatorBody | MaximizerBody | AtlasBody
    buffers: list[str]
    cut: list[str]


def parse_up(content: object, buffers: Sequence[object] = ()) -> AnyUp:
    """Read a message from the page.

    Args:
        content: what the comm delivered, JSON decoded; may be anything.
        buffers: what came with it; no gesture has any.

    Raises:
        MessageError: with one readable sentence; its `id` is the message's own where it had one.
    """
    if not isinstance(content, Mapping):
        raise MessageError(
            f"A message from the view is an object with a kind and an id, not {_name(content)}."
        )
    given = content.get("id")
    known = type(given) is int and 0 <= given <= MAX_SAFE_INTEGER
    ident = given if known else None
    most = MAX_IMPORT if content.get("kind") == "import" else MAX_MESSAGE
    if weight(content, most) > most:
        instead = "A long prompt can be set from Python: session.input = text."
        if most == MAX_IMPORT:
            instead = "A larger file can be loaded from Python: ablator.load_circuit(path)."
        raise MessageError(
            f"The message is larger than the {most // 1024:,} KB that a view may send; nothing was "
            f"changed. {instead}",
            id=ident,
        )
    if buffers:
        raise MessageError("No message from a view carries binary data; this one did.", id=ident)
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in _KINDS:
        shown = repr(kind[:40]) if isinstance(kind, str) else _name(kind)
        raise MessageError(
            f"There is no message of kind {shown}; there are {', '.join(_KINDS[:_SHOWN])} and "
            f"{len(_KINDS) - _SHOWN} more.",
            id=ident,
            field="kind",
        )
    if kind == "edit" and "value" in content and content["value"] is None:
        raise MessageError(
            "The value is not a finite number; NaN and infinity cannot be set.",
            id=ident,
            field="value",
        )
    try:
        return UP.validate_python(dict(content))
    except ValidationError as error:
        raise _readable(kind, error, ident) from None


_KINDS: tuple[str, ...] = tuple(
    part["$ref"].rsplit("/", 1)[-1].lower() for part in UP.json_schema()["oneOf"]
)


_SHOWN = 12  # kinds in a sentence that a person is to read


def weight(content: object, most: int = MAX_MESSAGE) -> int:
    """About how many characters of JSON this is; stops counting beyond `most`.

    Looking stops early, so that 10 MB of junk cost no more than 64 KB of it. Deeper nesting than
    any message has counts as too large.
    """
    total = 0
    waiting: list[tuple[object, int]] = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > MAX_DEPTH:
            return most + 1
        if isinstance(value, str | bytes | bytearray):
            total += len(value) + 2
        elif isinstance(value, memoryview):
            total += value.nbytes
        elif isinstance(value, Mapping | list | tuple):
            total += 2 + len(value)
            if total + len(value) > most:
                return most + 1
            if isinstance(value, Mapping):
                waiting.extend((part, depth + 1) for pair in value.items() for part in pair)
            else:
                waiting.extend((part, depth + 1) for part in value)
        elif isinstance(value, int) and not isinstance(value, bool):
            total += 1 + value.bit_length() // 3
        else:
            total += 8
        if total > most:
            return total
    return total


def _readable(kind: str, error: ValidationError, ident: int | None) -> MessageError:
    """The first thing that is wrong, as a sentence."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    if path[:1] == [kind]:  # which message of the union; "tiles" and "head" have a field like it
        path = path[1:]
    field = path[0][:40] if path else None
    where = f"In the message {kind!r}"
    given = first["input"]
    what = first["type"]
    if what == "extra_forbidden":
        allowed = ", ".join(name for name in _fields(kind))
        return MessageError(
            f"{where} there is no {field!r}; there are {allowed}.", id=ident, field=field
        )
    if what == "missing":
        return MessageError(f"{where}, {field!r} is missing.", id=ident, field=field)
    if isinstance(given, float) and not math.isfinite(given):
        return MessageError(
            f"The {field} is not a finite number; NaN and infinity cannot be set.",
            id=ident,
            field=field,
        )
    if what in {"string_too_long", "string_too_short"}:
        limit = first.get("ctx", {})
        length = len(given) if isinstance(given, str) else 0
        bound = limit.get("max_length") or limit.get("min_length")
        if not length:
            return MessageError(f"{where}, {field!r} is empty.", id=ident, field=field)
        least = "at least" if what == "string_too_short" else "at most"
        return MessageError(
            f"{where}, {field!r} may have {least} {bound} characters, not {length}.",
            id=ident,
            field=field,
        )
    said = first["msg"].removeprefix("Input ").rstrip(".")
    return MessageError(
        f"{where}, {field!r} {said[:1].lower()}{said[1:]}, not {_name(given)}.",
        id=ident,
        field=field,
    )


def _fields(kind: str) -> list[str]:
    for part in Up.__subclasses__():
        if part.__name__.lower() == kind:
            return list(part.model_fields)
    return []


def _name(value: object) -> str:
    """A value in a sentence: itself when it is short, otherwise what it is."""
    match value:
        case None | True | False:
            said = {None: "null", True: "true", False: "false"}[value]
        case int() if value.bit_length() > 64:  # printing it could take long, or be refused
            said = "a very large number"
        case int() | float():
            said = repr(value)
        case str():
            said = repr(value if len(value) <= 40 else value[:40] + "…")
        case list() | tuple():
            said = "a list"
        case _:
            said = "an object"
    return said
