"""A folder that holds a model of TransformerLens' own architecture, which transformers lacks.

`config.json` names the architecture `TransformerLensNative` and has the arguments of a
`TransformerBridgeConfig` under `transformer_lens`, and may have texts that are ordinary for the
model under `reference`; `model.safetensors` holds the state dict of the
`NativeModel` that they describe. Attention-only transformers are of this kind: no architecture of
transformers does without MLPs.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from transformer_lens.model_bridge import TransformerBridge

ARCHITECTURE = "TransformerLensNative"


def is_native(folder: Path) -> bool:
    """Whether a folder's `config.json` says that it holds such a model."""
    try:
        described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return bool(described["architectures"] == [ARCHITECTURE])
    except (OSError, ValueError, KeyError, TypeError):
        return False  # whoever reads it next says what is wrong with it


def read(
    folder: Path, device: torch.device, dtype: torch.dtype, *, with_tokenizer: bool
) -> TransformerBridge:
    """Make the bridge of a folder, with its tokenizer if it has one.

    Args:
        folder: What holds `config.json` and `model.safetensors`.
        device: Where the weights go.
        dtype: What they are held in.
        with_tokenizer: Whether there is a tokenizer to read.

    Raises:
        ValueError, KeyError, TypeError, RuntimeError, OSError, SafetensorError: If the files do
            not describe such a model, or its weights are not all there.
    """
    from safetensors.torch import load_file
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
    from transformer_lens.model_bridge.sources.native import NativeModel
    from transformers import AutoTokenizer

    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config = TransformerBridgeConfig.from_dict(described["transformer_lens"])
    tokenizer = None
    if with_tokenizer:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    made = NativeModel(config)
    made.load_state_dict(load_file(folder / "model.safetensors"))
    made = made.to(device=device, dtype=dtype).eval()
    return build_bridge_from_module(
        made, ARCHITECTURE, tl_config=config, tokenizer=tokenizer, device=device, dtype=dtype
    )


def reference(folder: Path) -> tuple[str, ...]:
    """The texts that are ordinary for the model of a folder; none where it says none."""
    described = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return tuple(str(text) for text in described.get("reference", ()))


def source(where: str, device: torch.device, dtype: torch.dtype, *, with_tokenizer: bool) -> str:
    """Statements that load the same model with TransformerLens alone and bind it to `model`.

    Args:
        where: A Python expression of the folder.
        device: Where the weights go.
        dtype: What they are held in.
        with_tokenizer: Whether there is a tokenizer to read.
    """
    moved = "" if device.type == "cpu" else f", device={str(device)!r}"
    words = "AutoTokenizer.from_pretrained(source)" if with_tokenizer else "None"
    imported = "from transformers import AutoTokenizer\n" if with_tokenizer else ""
    return (
        "import json\n"
        "from pathlib import Path\n\n"
        "import torch\n"
        "from safetensors.torch import load_file\n"
        "from transformer_lens.config import TransformerBridgeConfig\n"
        "from transformer_lens.model_bridge.sources._bridge_builder import "
        "build_bridge_from_module\n"
        "from transformer_lens.model_bridge.sources.native import NativeModel\n"
        f"{imported}\n"
        f"source = {where}\n"
        "config = json.loads((source / 'config.json').read_text(encoding='utf-8'))\n"
        "config = TransformerBridgeConfig.from_dict(config['transformer_lens'])\n"
        "native_model = NativeModel(config)\n"
        "native_model.load_state_dict(load_file(source / 'model.safetensors'))\n"
        f"native_model = native_model.to(dtype={dtype}{moved}).eval()\n"
        "model = build_bridge_from_module(\n"
        f"    native_model, {ARCHITECTURE!r}, tl_config=config, tokenizer={words}\n)\n"
    )


def describe(config: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What goes into `config.json`.

    Args:
        config: Arguments of a `TransformerBridgeConfig`.
        more: What else a reader of the file should find.
    """
    return {"architectures": [ARCHITECTURE], "transformer_lens": config, **more}
