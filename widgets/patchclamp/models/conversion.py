"""Turn a GGUF language model into a folder that transformers loads directly: exact, and once.

Run as a program of its own (`python conversion.py MODEL.gguf FOLDER`): what it needs in memory
goes back to the system, nothing of it stays in the caller's torch or transformers, and ending
it ends the work. It prints one line `done total what` for each step.

transformers reads GGUF by dequantising every tensor, which takes half a minute, and refuses to
save what it read. The weights go into a fresh model of the same configuration, without the
quantisation entry, and that one saves as float32 safetensors. Q4_1 and Q8_0 blocks dequantise
to float32 values, so nothing is rounded; the saved file is compared bit for bit all the same.
"""

import json
import os
import sys
import threading
from pathlib import Path

STEPS = 4

# llama.cpp's name of a way to split text before byte-pair merging -> how `tokenizers` spells it.
# transformers reads only the merges from a GGUF file and splits as GPT-2 does, which is not how
# this model was trained: "  7" must be two spaces and the digit, not a space and " 7".
PRE_TOKENIZERS = {
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": True,
                "use_regex": True,
            },
        ],
    }
}


def convert(gguf: Path, folder: Path) -> None:
    """Write `config.json`, `model.safetensors` (float32) and the tokenizer of a GGUF model.

    Args:
        gguf: A GGUF file of a language model that transformers can read.
        folder: Where to write; made if it is not there.

    Raises:
        ValueError: If what was saved is not bit for bit what was read.
    """
    _say(0, "reading the tokenizer")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    _say(1, "converting the weights")
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32
    )
    weights = model.state_dict()
    config = model.config
    del config.quantization_config
    tokenizer.model_max_length = config.max_position_embeddings
    with torch.device("meta"):  # takes the tensors over instead of holding them twice
        fresh = type(model)(config)
    fresh.load_state_dict(weights, assign=True)
    fresh.tie_weights()

    _say(2, "saving")
    fresh.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    _set_pre_tokenizer(gguf, folder / "tokenizer.json")

    _say(3, "comparing")
    saved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    different = [
        name
        for name in weights.keys() | saved.keys()
        if name not in weights or name not in saved or not torch.equal(weights[name], saved[name])
    ]
    if different:
        raise ValueError(f"These tensors changed while they were saved: {sorted(different)}.")
    _say(4, "done")


def _set_pre_tokenizer(gguf: Path, tokenizer: Path) -> None:
    from gguf import GGUFReader

    field = GGUFReader(gguf).fields.get("tokenizer.ggml.pre")
    rule = PRE_TOKENIZERS.get(field.contents()) if field is not None else None
    if rule is not None:
        contents = json.loads(tokenizer.read_text(encoding="utf-8"))
        contents["pre_tokenizer"] = rule
        tokenizer.write_text(json.dumps(contents, ensure_ascii=False), encoding="utf-8")


def _say(done: int, what: str) -> None:
    print(done, STEPS, what, flush=True)  # noqa: T201 (this is how the caller follows)


def _end_with_the_caller() -> None:
    """Wait until the caller's end of standard input closes, however the caller ended."""
    os.read(0, 1)  # not sys.stdin: its lock, held here, would abort the interpreter's own end
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=_end_with_the_caller, daemon=True).start()
    convert(Path(sys.argv[1]), Path(sys.argv[2]))
