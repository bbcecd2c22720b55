"""A view without a page: what it sends is kept, and gestures arrive as the comm brings them."""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from patchclamp.views.transport import unpack
from patchclamp.views.view import View

Message = dict[str, Any]


class Hears(View):
    """Mixed into the real view, whose messages to the page are kept instead of sent nowhere."""

    heard: list[Message]
    ids: Iterator[int]

    _esm = "export default { render() {} };\n"
    _css = "\n"

    def __init__(self, *args: Any, **options: Any) -> None:
        self.heard = []
        self.ids = iter(range(1, 10_000))
        super().__init__(*args, **options)

    def send(self, content: Any, buffers: Any = None) -> None:
        self.heard.append(unpack(json.loads(json.dumps(content)), buffers or []))

    def say(self, kind: str, **fields: Any) -> int:
        """A gesture, as the comm delivers it."""
        ident = next(self.ids)
        self._handle_custom_msg({"kind": kind, "id": ident, **fields}, [])
        return ident

    def reply(self, ident: int | None) -> Message:
        return self.hear(lambda m: m["kind"] == "reply" and m["id"] == ident)

    def ask(self, kind: str, **fields: Any) -> Message:
        return self.reply(self.say(kind, **fields))

    def hear(self, wanted: Callable[[Message], bool], seconds: float = 60) -> Message:
        """The first message like this, waiting for it."""
        found: Message = until(lambda: next((m for m in self.heard if wanted(m)), None), seconds)
        return found

    def result(self) -> Message:
        """The result of the session as it is."""
        now = self.session.revision
        return self.hear(lambda m: m["kind"] == "result" and m["revision"] >= now)

    def of(self, kind: str) -> list[Message]:
        return [m for m in self.heard if m["kind"] == kind]

    def rows(self) -> list[Message]:
        rows: list[Message] = self.of("state")[-1]["state"]["rows"]
        return rows


class HearsAll(Hears):
    """The same, and what waits for its turn to be sent is waited for before anything is read."""

    def of(self, kind: str) -> list[Message]:
        until(lambda: not self._outbox._waiting)
        return super().of(kind)


def until(found: Callable[[], Any], seconds: float = 60) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.005)
    pytest.fail("It never came.")
