"""What any message between a view in the page and its Python half is made of.

Numbers on the wire are raw values: units (standard deviations, multiples of the peak) are the
page's matter. Nothing here needs torch or numpy.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from patchclamp.errors import PatchclampError

MAX_MESSAGE = 65_536
"""How many characters of JSON, about, one message from the page may hold."""

MAX_IMPORT = 4 * 2**20
"""The same of a file that is taken in; from 10 MiB on a browser's message silently gets lost."""

MAX_DEPTH = 16
MAX_SAFE_INTEGER = 2**53 - 1  # what a number in JavaScript holds exactly


class MessageError(PatchclampError):
    """A message from the page that cannot be read; nothing was changed by it.

    Attributes:
        id: the message's own id where it had a usable one, so that the answer finds its gesture.
        field: the part of the message that was wrong, None when it is the whole.
    """

    def __init__(self, sentence: str, *, id: int | None = None, field: str | None = None) -> None:  # noqa: A002
        super().__init__(sentence)
        self.id = id
        self.field = field


class Message(BaseModel):
    """One value on the wire: immutable, with exactly these fields."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
        json_schema_serialization_defaults_required=True,
    )


Id = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
Key = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
Address = Annotated[str, Field(min_length=1, max_length=400)]
Positions = Annotated[str, Field(max_length=400)]


class PackedArray(Message):
    """Where an array lies: binary buffer number `buffer` of the same message, C order."""

    buffer: int
    dtype: Literal["float32", "float16", "float64", "uint8", "int32", "bool"]
    shape: list[int]


class _AnyArray:
    """Marks a field that holds an array in Python and travels as a `PackedArray`."""

    @classmethod
    def __get_pydantic_core_schema__(
        cls, _source: Any, _handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        def check(value: Any) -> Any:
            if hasattr(value, "__array__") or isinstance(value, PackedArray):
                return value
            if isinstance(value, Mapping):
                return PackedArray.model_validate(value)
            raise ValueError(f"should be an array, not {type(value).__name__}")

        return core_schema.no_info_plain_validator_function(check)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, _schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return handler(PackedArray.__pydantic_core_schema__)


Array = Annotated[Any, _AnyArray]


class Up(Message):
    """A gesture. `id` grows with each message of one view; the reply carries it back."""

    id: Id
