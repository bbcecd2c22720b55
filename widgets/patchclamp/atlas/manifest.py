"""What an atlas is of: which weights, which tokenizer, which corpus, read how.

Two atlases with different manifests hold different numbers. Everything that could make them differ
is in here, so that a folder is only ever gone on with, or opened for a model, when it fits.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import torch

from patchclamp.errors import AtlasError
from patchclamp.methods.corpus_pass import SHARD_TOKENS
from patchclamp.methods.neuron_statistics import SAMPLE, TOP

if TYPE_CHECKING:
    from pathlib import Path

    from patchclamp.methods.corpus_pass import PerPrompt, Windows
    from patchclamp.models.language_model import LanguageModel

FILE = "manifest.json"
FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """Everything that an atlas's numbers depend on.

    Attributes:
        model: the model's name, for people.
        weights: SHA-256 of its parameters.
        tokenizer: SHA-256 of its vocabulary; empty without a tokenizer.
        corpus: SHA-256 of the corpus as tokens; empty where only weights were decoded.
        corpus_name: what the corpus is, for people.
        texts: how many texts it has.
        split: how many of them were longer than a window, and were cut.
        tokens: how many tokens were counted.
        context: how many tokens a window has at most.
        per_prompt: which value stands for a text; empty without labels.
        labels: SHA-256 of the labels; empty without.
        top: how many of each neuron's largest values are kept.
        sample: at how many tokens all values are kept.
        seed: what draws these, and the controls of the decoding.
        decoded: which matrices were decoded.
        layers: of which layers they were; empty where all were.
        versions: of the packages that computed it.
        format: of the files.
    """

    model: str
    weights: str
    tokenizer: str
    corpus: str = ""
    corpus_name: str = ""
    texts: int = 0
    split: int = 0
    tokens: int = 0
    context: int = 0
    per_prompt: str = ""
    labels: str = ""
    top: int = 0
    sample: int = 0
    seed: int = 0
    decoded: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    format: int = FORMAT

    def write(self, folder: Path) -> None:
        """Write it into a folder."""
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"
        (folder / FILE).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Read a folder's.

        Raises:
            AtlasError: when there is none, or it cannot be read.
        """
        path = folder / FILE
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if found.get("format") != FORMAT:
                msg = (
                    f"The atlas in {folder} has the format {found.get('format')}, and this version "
                    f"reads {FORMAT}: build it anew."
                )
                raise AtlasError(msg)
            found["decoded"] = tuple(found["decoded"])
            found["layers"] = tuple(found.get("layers", ()))
            found["versions"] = tuple((name, version) for name, version in found["versions"])
            return cls(**found)
        except FileNotFoundError as error:
            msg = f"There is no atlas in {folder}: it holds no {FILE}."
            raise AtlasError(msg) from error
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            msg = f"The {FILE} in {folder} is damaged ({error}): build the atlas anew."
            raise AtlasError(msg) from error

    def check_model(self, model: LanguageModel) -> None:
        """Say when a model is not the one whose neurons are in here.

        Raises:
            AtlasError: when its weights or its tokenizer are others.
        """
        for what, mine, its in (
            ("weights", self.weights, weights_digest(model)),
            ("a tokenizer", self.tokenizer, tokenizer_digest(model)),
        ):
            if mine != its:
                msg = (
                    f"This atlas is of {self.model}, and {model.name} has other {what}: build one "
                    "for this model, in a folder of its own."
                ).replace("other a tokenizer", "another tokenizer")
                raise AtlasError(msg)

    def check_same(self, other: Manifest, folder: Path) -> None:
        """Say when what is asked for is not what a folder has begun with.

        Raises:
            AtlasError: naming what differs.
        """
        ignored = {"versions", "decoded"}  # which do not change the corpus's numbers
        differing = [
            each.name
            for each in fields(self)
            if each.name not in ignored and getattr(self, each.name) != getattr(other, each.name)
        ]
        if differing:
            msg = (
                f"The atlas in {folder} is another: its {', '.join(differing)} "
                f"{'differs' if len(differing) == 1 else 'differ'}. Two atlases are never mixed: "
                "give this one a folder of its own."
            )
            raise AtlasError(msg)

    def with_decoded(self, *matrices: str) -> Manifest:
        """The same with more matrices decoded."""
        return replace(self, decoded=tuple(dict.fromkeys((*self.decoded, *matrices))))


@dataclass(frozen=True)
class Reading:
    """How a corpus is read.

    Attributes:
        name: what the corpus is, for people.
        context: how many tokens are run together; longer texts are cut, and counted. None is what
            :func:`patchclamp.methods.corpus_pass.cut` takes.
        per_prompt: with labels, which value of a neuron stands for a text: "max", "mean" or "last".
        seed: draws the examples and the controls.
        shard_tokens: about how many tokens are read between two checkpoints.
    """

    name: str = ""
    context: int | None = None
    per_prompt: PerPrompt = "max"
    seed: int = 0
    shard_tokens: int = SHARD_TOKENS


def manifest_of(
    model: LanguageModel,
    windows: Windows | None,
    reading: Reading,
    labels: tuple[str, ...] = (),
    layers: tuple[int, ...] = (),
) -> Manifest:
    """Say what an atlas of a model and a corpus is of."""
    from importlib.metadata import version

    names = ("patchclamp", "torch", "transformers", "transformer-lens")
    found = Manifest(
        model=model.name,
        weights=weights_digest(model),
        tokenizer=tokenizer_digest(model),
        seed=reading.seed,
        layers=layers,
        versions=tuple((name, version(name)) for name in names),
    )
    if windows is None:
        return found
    return replace(
        found,
        corpus=windows.digest,
        corpus_name=reading.name,
        texts=windows.texts,
        split=windows.split,
        tokens=windows.tokens,
        context=windows.context,
        per_prompt=reading.per_prompt if labels else "",
        labels=sha256("\0".join(labels).encode()).hexdigest() if labels else "",
        top=TOP,
        sample=SAMPLE,
    )


def weights_digest(model: LanguageModel) -> str:
    """SHA-256 of a model's parameters, in their order, with their shapes and kinds."""
    summed = sha256()
    for name, weight in model.bridge.original_model.named_parameters():
        plain = weight.detach().cpu().contiguous()
        summed.update(f"{name} {tuple(plain.shape)} {plain.dtype}\n".encode())
        summed.update(memoryview(plain.view(torch.uint8).numpy()).cast("B"))  # type: ignore[arg-type] # numpy's arrays have a buffer
    return summed.hexdigest()


def tokenizer_digest(model: LanguageModel) -> str:
    """SHA-256 of a tokenizer's vocabulary; empty without one."""
    vocabulary: dict[str, int] = getattr(model.tokenizer, "get_vocab", dict)()
    if not vocabulary:
        return ""
    words = sorted((number, word) for word, number in vocabulary.items())
    return sha256(json.dumps(words).encode()).hexdigest()
