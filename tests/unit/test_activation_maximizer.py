"""ActivationMaximizer on tiny models: what a page sends, and what comes back to it."""

import _thread
import base64
import gc
import io
import json
import re
import threading
import time
import weakref
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import patchclamp as pc
from patchclamp.errors import AddressError, InputError, MetricError, ModelError
from patchclamp.methods.epo import epo
from patchclamp.methods.feature_visualization import Climb, Optimization
from patchclamp.methods.front import Generation
from patchclamp.methods.objective import objective
from patchclamp.methods.text_examples import TextExample, endings
from patchclamp.models.language_model import LanguageModel
from patchclamp.models.module_model import ModuleModel
from patchclamp.models.stimulus import Stimulus
from patchclamp.module_session import ModuleSession
from patchclamp.session import Session
from patchclamp.views import messages as say
from patchclamp.views.activation_maximizer import ActivationMaximizer
from patchclamp.views.messages import activation_maximizer
from patchclamp.views.view import SNAPSHOT_BYTES
from tests.unit import tiny
from tests.unit.heard import Gate, HearsAll, Message, until, until_the_main_thread_waits
from tests.unit.small_modules import Convolutions, Heaviside

LABELS = ("cat", "dog", "heron", "house", "train")


class Heard(HearsAll, ActivationMaximizer):
    """The real view, heard."""

    def over(self) -> None:
        """Wait for the end of what is being optimised."""
        until(lambda: self.now()["activity"] is None or self.now()["activity"]["paused"])

    def now(self) -> Message:
        state: Message = self.of("maximizer")[-1]["state"] if self.of("maximizer") else {}
        return state or {"activity": {"paused": False}}

    def comes_to(self, name: str, value: Any) -> None:
        """Wait until this is declared."""
        until(lambda: self.now().get(name) == value)

    def track(self) -> Message:
        track: Message = self.of("tracks")[-1]["tracks"][-1]
        return track


def conv() -> ModuleModel:
    torch.manual_seed(3)
    stimulus = Stimulus((3, None, None), size=24, smallest=8)
    return ModuleModel(Convolutions(), stimulus, name="tiny conv", labels=LABELS)


@pytest.fixture
def module() -> ModuleModel:
    return conv()


def plainly(module: ModuleModel, stimuli: torch.Tensor) -> float:
    """What channel 2 of the second part has on average (the norm before it changes nothing)."""
    net = module.module
    assert isinstance(net, Convolutions)
    with torch.no_grad():
        return float(net.second(net.relu(net.first(module.prepare(stimuli))))[:, 2].mean())


@pytest.fixture
def view(module: ModuleModel) -> Iterator[Heard]:
    view = Heard(module, "second:c2")
    view.ask("hello")
    view.ask("options", steps=12)
    yield view
    view.close()


@pytest.fixture(scope="module")
def recall() -> LanguageModel:
    return pc.load("recall-4l")


@pytest.fixture
def prompts(recall: LanguageModel) -> Iterator[Heard]:
    view = Heard(recall, "L2.N7", prompt="the capital of lesotho is", corpus=recall.reference[:6])
    view.ask("hello")
    yield view
    view.close()


class Metronome:
    """Every step of an optimisation, and every piece of a search, waits for a beat."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._beats = threading.Semaphore(0)
        self._free = False
        self.taken = 0
        step = Optimization.step

        def on_the_beat(optimization: Optimization, *args: Any) -> Any:
            self._wait()
            return step(optimization, *args)

        def piece_by_piece(*args: Any, **options: Any) -> Generator[Generation, None, Generation]:
            pieces = epo(*args, **options)
            while True:
                self._wait()
                try:
                    piece = next(pieces)
                except StopIteration as end:
                    found: Generation = end.value
                    return found
                yield piece

        monkeypatch.setattr(Optimization, "step", on_the_beat)
        monkeypatch.setattr("patchclamp.views.dream_view.epo", piece_by_piece)

    def _wait(self) -> None:
        while not self._free and not self._beats.acquire(timeout=0.05):
            pass
        self.taken += 1

    def beat(self, times: int) -> None:
        self._beats.release(times)

    def free(self) -> None:
        self._free = True


@pytest.fixture
def metronome(monkeypatch: pytest.MonkeyPatch) -> Iterator[Metronome]:
    made = Metronome(monkeypatch)
    yield made
    made.free()


SEARCH: dict[str, Any] = {"length": 4, "population": 3, "children": 6, "top": 16}


def png(size: int = 40) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def send(view: Heard, name: str, data: bytes, most: int = 49_152) -> Message:
    text = base64.b64encode(data).decode()
    parts = [text[begin : begin + most] for begin in range(0, len(text), most)]
    for index, part in enumerate(parts):
        reply = view.ask("piece", name=name, index=index, of=len(parts), data=part)
    return reply


# --- drawing -------------------------------------------------------------------------------------


def test_hello_is_answered_with_what_is_declared_and_what_can_be_done(view: Heard) -> None:
    body = view.ask("hello")["body"]
    assert (body["of"], body["tracks"], body["front"]) == ("maximizer", [], None)
    state = body["state"]
    assert (state["family"], state["shape"]) == ("image", [3, None, None])
    assert [term["address"] for term in state["terms"]] == ["second:c2"]
    assert (state["options"]["size"], state["options"]["smallest"]) == (24, 8)
    refusals = {mode["mode"]: mode["refusal"] for mode in state["modes"]}
    assert refusals["climb"] is None
    assert "Prompts are searched for in language models" in refusals["dream"]
    assert (state["can_undo"], state["input"]) == (True, "")


def test_nothing_is_computed_before_somebody_asks(module: ModuleModel) -> None:
    view = Heard(module, "second:c2")
    view.ask("hello")
    assert view._tasks == {}
    assert view.of("frame") == []
    view.close()


def test_a_climb_ends_with_the_frame_that_the_optimisation_saw_last(
    view: Heard, module: ModuleModel
) -> None:
    view.ask("climb")
    view.over()
    plain = Optimization(module, objective(module, "second:c2"), Climb(steps=12))
    values = [plain.step().value for _ in range(12)]
    frames = view.of("frame")
    shown = frames[-1]["frame"]
    assert (shown["step"], shown["total"]) == (11, 12)
    own = [plainly(module, frame) for frame in (plain.frame(), plain.best.frame)]
    assert abs(own[0] - values[-1]) > 1e-4  # which the last step saw moved and under noise
    assert shown["value"] == pytest.approx(own[0], rel=1e-4)
    picture = shown["picture"]
    assert picture["pixels"].shape == (24, 24, 3) == (picture["height"], picture["width"], 3)
    wanted = (plain.frame()[0].permute(1, 2, 0) * 255).round().byte().numpy()
    assert np.array_equal(picture["pixels"], wanted)
    curve = np.concatenate([frame["curve"]["values"] for frame in frames])
    assert np.allclose(curve, values)
    assert view.track()["status"] == "done"
    assert view.track()["best"] == pytest.approx(max(own), rel=1e-4)
    assert view.tracks.value.tolist() == [pytest.approx(own[0], rel=1e-4)]
    assert plainly(module, view.picture[None]) == pytest.approx(max(own), rel=1e-4)


def test_frames_come_ten_a_second_at_most_and_the_curve_loses_nothing(view: Heard) -> None:
    began = time.perf_counter()
    view.ask("options", steps=150)
    view.ask("climb")
    view.over()
    took = time.perf_counter() - began
    frames = view.of("frame")
    assert 1 < len(frames) <= took / 0.1 + 2
    starts = [frame["curve"]["start"] for frame in frames]
    lengths = [len(frame["curve"]["values"]) for frame in frames]
    assert starts == np.cumsum([0, *lengths[:-1]]).tolist()
    assert sum(lengths) == 150


def test_several_tracks_share_the_ten_frames_a_second(view: Heard) -> None:
    began = time.perf_counter()
    view.ask("options", steps=60)
    view.ask("diverse", count=3)
    view.over()
    took = time.perf_counter() - began
    frames = view.of("frame")
    assert len({frame["frame"]["track"] for frame in frames}) == 3
    assert len(frames) <= took / 0.1 + 6
    assert view.tracks.label.tolist() == ["picture 1", "picture 2", "picture 3"]


def test_scrubbing_gives_the_kept_frame_that_is_nearest(view: Heard) -> None:
    view.climb()
    key = int(view.tracks.track[0])
    frame = view.ask("scrub", track=key, step=5)["body"]["frame"]
    at, kept = view._tracks[key].optimization.history.frame(5)
    assert frame["step"] == at == 5
    assert frame["value"] == pytest.approx(view.history.value[5])
    shown = (kept[0].permute(1, 2, 0) * 255).round().byte().numpy()
    assert np.array_equal(frame["picture"]["pixels"], shown)
    assert view.ask("scrub", track=key, step=10**6)["body"]["frame"]["step"] == 11
    refused = view.ask("scrub", track=99, step=0)
    assert (refused["ok"], refused["field"]) == (False, "track")


def test_scrubbing_while_it_runs_and_thins_its_frames_never_fails(module: ModuleModel) -> None:
    view = Heard(module, "second:c2", budget=6 * 3 * 24 * 24)
    view.ask("hello")
    view.climb(steps=100_000, wait=False)
    until(lambda: view._ascent is not None and view._ascent.optimizations[0].steps > 5)
    key = int(view.tracks.track[0])
    for _ in range(300):
        newest = view._tracks[key].optimization.steps
        reply = view.ask("scrub", track=key, step=newest)
        assert reply["ok"], reply
    history = view._tracks[key].optimization.history
    assert history.nbytes <= 6 * 3 * 24 * 24
    assert history.steps[0] == 0
    view.close()


# --- running -------------------------------------------------------------------------------------


def test_a_pause_holds_the_climb_and_continuing_takes_it_up_where_it_was(
    view: Heard, metronome: Metronome
) -> None:
    view.ask("options", steps=100)
    view.ask("climb")
    metronome.beat(10)
    until(lambda: view._ascent is not None and view._ascent.optimizations[0].steps == 10)
    view.ask("pause")
    metronome.free()  # more steps could be taken now
    until(lambda: view.now()["activity"] == {"mode": "climb", "paused": True})
    view.rest()
    held = view._ascent
    assert held is not None
    # The eleventh was under way when the pause was asked for, or had not begun.
    steps, key = held.optimizations[0].steps, view.track()["key"]
    assert steps in {10, 11}
    assert not view._tasks
    view.ask("climb")
    until(lambda: view.now()["activity"] is None)
    assert view._ascent is held
    assert (view.track()["key"], view.track()["step"]) == (key, 100)
    assert view.history.step.tolist() == list(range(100))


def test_a_paused_and_continued_climb_gives_the_picture_of_one_that_ran_through(
    module: ModuleModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    through, held = Heard(module, "second:c2", seed=4), Heard(module, "second:c2", seed=4)
    whole = through.climb(steps=60)
    metronome = Metronome(monkeypatch)
    held.climb(steps=60, wait=False)
    metronome.beat(4)
    until(lambda: held._ascent is not None and held._ascent.optimizations[0].steps == 4)
    held.pause()
    metronome.free()
    assert torch.equal(held.climb(), whole)
    assert not torch.equal(Heard(module, "second:c2", seed=5).climb(steps=60), whole)


def test_pausing_and_continuing_at_once_starts_no_second_job(
    view: Heard, metronome: Metronome
) -> None:
    view.ask("options", steps=80)
    view.ask("climb")
    for _ in range(20):
        metronome.beat(2)  # it cannot come to its end meanwhile
        view.ask("pause")
        view.ask("climb")
    metronome.free()
    until(lambda: view.now()["activity"] is None)
    assert view.track()["status"] == "done"
    assert view.history.step.tolist() == list(range(80))


def test_stop_ends_the_climb_within_a_step_and_keeps_what_there_is(
    view: Heard, module: ModuleModel
) -> None:
    view.ask("options", steps=100_000)
    took = []
    for _ in range(7):
        view.heard.clear()
        view.ask("climb")
        until(lambda: view.of("frame"))
        began = time.perf_counter()
        view.ask("stop")
        until(lambda: view.now()["activity"] is None)
        took.append(time.perf_counter() - began)
    assert min(took) < 0.5  # the others had to wait for a machine that does something else
    assert view.track()["status"] == "stopped"
    assert view.picture.shape == (3, 24, 24)
    # What it has come to is measured as it is, too.
    until(lambda: view.track()["value"] == pytest.approx(plainly(module, view.frame()[None]), 1e-4))
    assert view.ask("scrub", track=view.track()["key"], step=0)["ok"]
    assert not [m for m in view.of("status") if m["error"]]


def test_interactive_work_gets_in_between_two_steps(view: Heard) -> None:
    view.ask("options", steps=100_000)
    view.ask("climb")
    until(lambda: view.of("frame"))
    assert view.session.submit(lambda _stop: 7).result() == 7
    assert view._ascent is not None
    assert 0 < view._ascent.optimizations[0].steps < 100_000
    view.stop()


def test_a_cell_that_waits_can_be_interrupted_and_the_best_is_kept(view: Heard) -> None:
    def interrupt() -> None:
        until(lambda: view.of("frame"))
        until_the_main_thread_waits()
        _thread.interrupt_main()

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        view.climb(steps=100_000)
    assert view.picture.shape == (3, 24, 24)
    assert view.tracks.status.tolist() == ["stopped"]
    assert "interrupted" in view.hear(lambda m: m["kind"] == "status" and m["error"])["error"]


def test_another_start_replaces_what_runs(view: Heard) -> None:
    view.ask("options", steps=100_000)
    view.ask("climb")
    until(lambda: view.of("frame"))
    view.ask("options", steps=5)
    view.ask("diverse", count=2)
    until(lambda: view.now()["activity"] is None)
    tracks = view.of("tracks")[-1]["tracks"]
    assert [(t["kind"], t["status"]) for t in tracks] == [
        ("climb", "stopped"),
        ("diverse", "done"),
        ("diverse", "done"),
    ]


# --- what is maximised ---------------------------------------------------------------------------


def test_a_sum_of_units_is_maximised_and_undone_in_one_step(view: Heard) -> None:
    for weight in (-0.1, -0.3, -0.5):
        terms = [{"address": "second:c2"}, {"address": "out:c1", "weight": weight}]
        assert view.ask("aim", terms=terms, final=weight == -0.5)["ok"]
    state = view.now()
    assert state["objective"] == "second:c2 − 0.5 × out:c1"
    assert [term["label"] for term in state["terms"]] == ["", "dog"]
    assert [term["how"] for term in state["terms"]] == ["channel", None]
    view.climb()
    assert view.track()["objective"] == state["objective"]
    view.ask("undo")
    view.comes_to("objective", "second:c2")
    view.ask("redo")
    view.comes_to("objective", "second:c2 − 0.5 × out:c1")


def test_what_was_found_for_another_unit_stays_until_a_start(view: Heard) -> None:
    view.climb()
    view.ask("aim", terms=[{"address": "second:c3", "how": "peak"}])
    assert view.of("tracks")[-1]["tracks"][0]["objective"] == "second:c2"
    view.ask("diverse", count=2)
    view.over()
    assert {t["objective"] for t in view.of("tracks")[-1]["tracks"]} == {"second:c3"}


@pytest.mark.parametrize(
    ("kind", "fields", "field", "words"),
    [
        ("aim", {"terms": [{"address": "second:c99"}]}, "terms", "c0 to c7"),
        ("aim", {"terms": [{"address": "secnd:c1"}]}, "terms", "nearest is second"),
        ("aim", {"terms": []}, "terms", "at least 1 item"),
        ("options", {"size": 4}, "size", "takes 8 or more"),
        ("options", {"rate": 0}, "rate", "greater than 0"),
        ("dream", {}, "kind", "searched for in language models"),
        ("rivals", {"method": "greedy"}, "kind", "searched for in language models"),
        ("prompt", {"text": "a"}, "text", "searched for in language models"),
        ("load", {}, "candidate", "Name one thing"),
        ("load", {"track": 5}, "track", "no track 5"),
        ("own", {"piece": "a.png"}, "piece", "no file 'a.png'"),
        ("own", {"text": "1 2"}, "text", "as a file"),
        ("save", {"what": "sheet", "format": "csv"}, "format", "written as png"),
        ("save", {"what": "sheet", "format": "png"}, None, "start an optimisation first"),
        ("matter", {}, "track", "optimise one first"),
        ("piece", {"name": "a", "index": 1, "of": 2, "data": ""}, "index", "send it again"),
    ],
)
def test_a_gesture_that_cannot_be_done_is_refused_in_a_sentence_and_changes_nothing(
    view: Heard, kind: str, fields: dict[str, Any], field: str | None, words: str
) -> None:
    revision = view.session.revision
    reply = view.ask(kind, **fields)
    assert (reply["ok"], reply["field"]) == (False, field)
    assert words in reply["error"]
    assert view.session.revision == revision
    assert view.ask("hello")["ok"]


def test_without_a_unit_the_view_says_what_to_do_first(module: ModuleModel) -> None:
    view = Heard(module)
    assert view.ask("hello")["body"]["state"]["objective"] == ""
    assert "Say first which unit" in view.ask("climb")["error"]
    with pytest.raises(AddressError, match="Say first which unit"):
        view.climb()
    assert view.ask("aim", terms=[{"address": "out:c0"}])["ok"]
    assert view.climb(steps=2).shape == (3, 24, 24)


def test_a_function_of_activations_is_maximised_and_the_page_cannot_change_it(
    module: ModuleModel,
) -> None:
    view = Heard(module, lambda v: v["second"].square().mean((1, 2, 3)), paths="second")
    state = view.ask("hello")["body"]["state"]
    assert state["terms"] == []
    assert "view.aim" in state["fixed"]
    assert not view.ask("aim", terms=[{"address": "out:c0"}])["ok"]
    assert view.climb(steps=20).shape == (3, 24, 24)
    assert view.history.value.iloc[-1] > view.history.value[0]


def test_completion_knows_parts_channels_and_labels(view: Heard) -> None:
    assert view.complete("sec") == ["second:c0"]
    assert view.complete("out:")[:2] == ["out:c0", "out:c1"]
    body = view.ask("complete", prefix="her")["body"]
    assert (body["items"], body["labels"]) == (["out:c2"], ["heron"])


def test_two_views_of_a_session_aim_at_the_same_unit(module: ModuleModel) -> None:
    session = ModuleSession(module)
    other = Heard(session)
    assert session.revision == 0
    one = Heard(session, "second:c2")
    other.ask("hello")
    one.aim("out:c1")
    other.comes_to("objective", "out:c1")
    one.close()
    other.close()


def test_a_session_that_the_view_makes_begins_with_its_unit(module: ModuleModel) -> None:
    view = Heard(module, "second:c2")
    assert not view.session.can_undo
    view.aim("out:c1")
    view.undo()
    assert view.objective is not None
    assert view.objective.text == "second:c2"


# --- other stimuli -------------------------------------------------------------------------------


class Filter(torch.nn.Module):
    """One unit of known weights: its best stimulus within a ball is proportional to them."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        size = int(torch.tensor(shape).prod())
        self.unit = torch.nn.Linear(size, 1, bias=False)
        with torch.no_grad():
            self.unit.weight.copy_(torch.randn(1, size, generator=generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        read: torch.Tensor = self.unit(x.flatten(1))
        return read


@pytest.mark.parametrize(
    ("shape", "renderer", "height", "width"),
    [((2, 30), "curve", 2, 30), ((5, 30), "raster", 5, 30), ((1, 6, 7), "raster", 6, 7)],
)
def test_curves_and_rasters_are_climbed_and_travel_as_numbers(
    shape: tuple[int, ...], renderer: Any, height: int, width: int
) -> None:
    net = Filter(shape)
    model = ModuleModel(net, Stimulus(shape, low=-1, high=1, renderer=renderer))
    view = Heard(model, "unit:c0")
    view.ask("hello")
    found = view.climb(steps=200, norm=1.0)
    weights = net.unit.weight.detach().flatten()
    cosine = torch.cosine_similarity(found.flatten(), weights, dim=0)
    assert float(cosine) >= 0.99
    picture = view.of("frame")[-1]["frame"]["picture"]
    assert (picture["renderer"], picture["height"], picture["width"]) == (renderer, height, width)
    assert picture["pixels"] is None
    assert picture["values"].shape == (height, width)
    assert view.now()["options"]["size"] is None
    numbers = "\n".join(" ".join(f"{x:.2f}" for x in row) for row in torch.zeros(height, width))
    assert view.ask("own", text=numbers)["ok"]
    assert view.of("own")[-1]["own"]["activation"] == pytest.approx(0.0, abs=1e-6)
    assert "differ" not in view.ask("own", text=numbers)
    assert not view.ask("own", text="1 2\n3")["ok"]
    view.close()


# --- what goes wrong -----------------------------------------------------------------------------


def failed(view: Heard) -> str:
    error: str = view.hear(lambda m: m["kind"] == "status" and m["error"] is not None)["error"]
    return error


def test_a_unit_without_a_gradient_is_told_in_a_sentence() -> None:
    model = ModuleModel(Heaviside(), Stimulus((2, 2), renderer="raster"))
    view = Heard(model, "spikes:c1")
    view.ask("hello")
    view.ask("climb")
    assert "No gradient" in failed(view) or "gradient" in failed(view)
    until(lambda: view.now()["activity"] is None)
    assert view.track()["status"] == "failed"
    with pytest.raises(ModelError, match="gradient"):
        view.climb()
    assert view.ask("hello")["ok"]


class Explodes(torch.nn.Module):
    """Is no number from its seventh call on."""

    def __init__(self) -> None:
        super().__init__()
        self.unit = torch.nn.Linear(4, 1)
        self.calls = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        read: torch.Tensor = self.unit(x.flatten(1))
        return read * (x.amax() > 0.9).float().where(x.amax() <= 0.9, torch.nan) + read


def test_nan_in_the_loss_ends_the_climb_and_the_best_until_then_is_shown() -> None:
    torch.manual_seed(0)
    model = ModuleModel(Explodes(), Stimulus((2, 2), renderer="raster"))
    view = Heard(model, "output:c0")
    view.ask("hello")
    view.ask("climb")
    said = failed(view)
    assert "is kept" in said
    until(lambda: view.now()["activity"] is None)
    assert (view.track()["status"], view.track()["note"]) == ("failed", said)
    assert view.picture.isfinite().all()
    kinds = [m["kind"] for m in view.heard]
    last_error = max(n for n, m in enumerate(view.heard) if m.get("error") == said)
    assert "frame" not in kinds[last_error:]


def test_a_start_from_the_input_needs_one(view: Heard) -> None:
    view.ask("options", start="input")
    assert "no input to start from" in view.ask("climb")["error"]
    session = view.session
    assert isinstance(session, ModuleSession)
    session.input = torch.full((3, 16, 16), 0.5)
    assert view.climb(steps=2, parameterization="pixel").shape == (3, 16, 16)


def test_options_that_do_not_exist_are_refused(view: Heard) -> None:
    with pytest.raises(InputError, match=r"no option 'stepz'; there are steps, size"):
        view.climb(stepz=3)
    with pytest.raises(InputError, match="whole number"):
        view.climb(steps=0)
    with pytest.raises(ModelError, match="language models"):
        view.dream()


def test_a_model_name_is_no_model() -> None:
    with pytest.raises(ModelError, match="not the text 'smollm2'"):
        Heard("smollm2", "L0.N0")
    with pytest.raises(ModelError, match="ModuleModel"):
        Heard(Convolutions(), "second:c2")


# --- loading -------------------------------------------------------------------------------------


def test_loading_a_frame_puts_it_into_the_session_and_undo_takes_it_back(view: Heard) -> None:
    view.climb()
    key = int(view.tracks.track[0])
    loaded = view.ask("load", track=key, step=4)["body"]["input"]
    session = view.session
    assert isinstance(session, ModuleSession)
    given = session.input
    assert given is not None
    assert torch.allclose(given, view.frame(4, key).clamp(0, 1))
    assert loaded == "picture for second:c2, step 4"
    view.comes_to("input", loaded)
    view.ask("undo")
    assert session.input is None
    view.comes_to("input", "")


# --- examples ------------------------------------------------------------------------------------


@pytest.fixture
def drawn(module: ModuleModel) -> Iterator[Heard]:
    generator = torch.Generator().manual_seed(0)
    stimuli = {f"noise {n}": torch.rand(3, 24, 24, generator=generator) for n in range(20)}
    view = Heard(module, "second:c2", corpus=stimuli)
    view.ask("hello")
    view.ask("options", steps=8)
    yield view
    view.close()


def test_examples_of_a_corpus_are_measured_and_the_best_stands_first(drawn: Heard) -> None:
    drawn.ask("examples")
    found = drawn.hear(lambda m: m["kind"] == "examples" and m["examples"]["done"] == 20)
    examples = found["examples"]
    values = [each["activation"] for each in examples["groups"][0]["examples"]]
    assert values == sorted(values, reverse=True)
    assert examples["maximum"] == pytest.approx(values[0])
    assert examples["counts"].sum() == 20
    first = examples["groups"][0]["examples"][0]
    assert first["picture"]["pixels"].shape == (24, 24, 3)
    assert first["map"].shape == (12, 12) == (first["map_height"], first["map_width"])
    frame = drawn.examples()
    assert frame.activation[0] == pytest.approx(values[0])
    assert drawn.ask("load", example=[0, 0])["body"]["input"] == first["name"]
    assert drawn.ask("load", example=[9, 0])["field"] == "example"


def test_an_image_of_the_users_is_measured_on_the_same_axis(drawn: Heard) -> None:
    assert send(drawn, "mine.png", png(), most=4096)["ok"]
    assert drawn.ask("own", piece="mine.png")["ok"]
    own = drawn.of("own")[-1]["own"]
    assert (own["name"], own["objective"]) == ("mine.png", "second:c2")
    drawn.ask("aim", terms=[{"address": "out:c0"}])
    until(lambda: drawn.of("own")[-1]["own"]["objective"] == "out:c0")
    drawn.ask("own")
    assert drawn.of("own")[-1]["own"] is None
    send(drawn, "text.png", b"no picture")
    refused = drawn.ask("own", piece="text.png")
    assert (refused["ok"], refused["field"]) == (False, "piece")
    assert "picture" in refused["error"]


def test_a_model_without_a_corpus_says_what_to_give_it() -> None:
    model = ModuleModel(Heaviside(), Stimulus((2, 2), renderer="raster"))
    view = Heard(model, "drive:c1")
    refusals = {m["mode"]: m["refusal"] for m in view.ask("hello")["body"]["state"]["modes"]}
    assert "corpus=" in refusals["examples"]
    assert "corpus=" in refusals["facets"]
    with pytest.raises(InputError, match="corpus="):
        view.examples()


def test_facets_start_from_their_own_images(drawn: Heard) -> None:
    drawn.ask("facets", count=2)
    drawn.over()
    tracks = drawn.of("tracks")[-1]["tracks"]
    assert [(t["kind"], t["label"], t["status"]) for t in tracks] == [
        ("facet", "facet 1", "done"),
        ("facet", "facet 2", "done"),
    ]
    assert sum(t["member_count"] for t in tracks) == 20
    assert tracks[0]["members"][0]["pixels"].shape == (24, 24, 3)
    first = drawn.sorted_images.facets.facets[0].mean
    assert torch.allclose(drawn.frame(0, tracks[0]["key"]), first, atol=1 / 255)
    assert "1 to 10 facets" in drawn.ask("facets", count=12).get("error", "") or "facets" in failed(
        drawn
    )


def test_whether_the_unit_matters_is_measured_on_what_was_optimised(drawn: Heard) -> None:
    drawn.climb()
    drawn.examples()
    drawn.ask("matter")
    found = drawn.hear(lambda m: m["kind"] == "matter")["matter"]
    assert (found["unit"], found["objective"]) == ("second:c2", "second:c2")
    assert found["subject"].startswith("picture, step ")
    assert found["corpus_maximum"] == pytest.approx(drawn.on_corpus.maximum)
    assert len(found["controls"]) >= 5
    assert all(each["address"] != "second:c2" for each in found["controls"])
    assert drawn.matter().unit.effect == pytest.approx(found["kl"])


def test_whether_a_direction_among_channels_matters_is_measured(module: ModuleModel) -> None:
    view = Heard(module, ("second[line]", torch.linspace(-1, 2, 8)))
    view.climb(steps=4)
    view.ask("hello")
    assert view.ask("matter")["ok"]
    found = view.hear(lambda m: m["kind"] == "matter")["matter"]
    assert found["unit"] == "second[line]"
    assert [each["address"] for each in found["controls"]] == [
        f"second[random {at}]" for at in range(5)
    ]
    assert found["kl"] == pytest.approx(view.matter().unit.effect)


def refusal(view: Heard, mode: str) -> str | None:
    modes = view.ask("hello")["body"]["state"]["modes"]
    said: str | None = next(each["refusal"] for each in modes if each["mode"] == mode)
    return said


def test_what_cannot_be_ablated_says_what_can_be_asked_instead(
    module: ModuleModel, recall: LanguageModel, prompts: Heard
) -> None:
    assert refusal(prompts, "matter") is None
    prompts.aim(("logits", 5))
    said = refusal(prompts, "matter") or ""
    assert "is the output itself" in said
    assert "a neuron or a direction that drives this logit" in said
    assert prompts.ask("matter")["error"] == said
    with pytest.raises(InputError, match="is the output itself"):
        prompts.matter()
    vector = torch.linspace(-1, 2, recall.anatomy.d_model)
    prompts.aim(("L1.resid_post[line]", vector))
    assert refusal(prompts, "matter") is None
    assert prompts.matter().unit.address == "L1.resid_post[line]"
    function = Heard(module, lambda v: v["second"].square().mean((1, 2, 3)), paths="second")
    assert "aim at a unit, a direction" in (refusal(function, "matter") or "")


# --- prompts -------------------------------------------------------------------------------------


def finished(view: Heard) -> Message:
    message: Message = view.hear(
        lambda m: m["kind"] == "front" and m["front"]["status"] in {"done", "stopped", "failed"}
    )["front"]
    return message


def test_a_front_of_prompts_is_found_and_a_click_loads_one(prompts: Heard) -> None:
    assert prompts.ask("dream", iterations=2, **SEARCH)["ok"]
    front = finished(prompts)
    assert (front["method"], front["status"], front["iteration"]) == ("epo", "done", 2)
    best = [c for c in front["candidates"] if c["front"]]
    acts = [c["activation"] for c in sorted(best, key=lambda c: c["cross_entropy"])]
    assert acts == sorted(acts)
    chosen = best[0]
    assert len(chosen["tokens"]) == 4
    session = prompts.session
    assert isinstance(session, Session)
    assert prompts.ask("load", candidate=chosen["key"])["ok"]
    ids = session.ids.tolist()
    assert ids[-4:] == [token["id"] for token in chosen["tokens"]]
    value = float(session.baseline.activation("L2.N7")[-1])
    assert value == pytest.approx(chosen["activation"], abs=1e-4)
    prompts.ask("undo")
    assert session.text == "the capital of lesotho is"
    assert prompts.ask("load", candidate=10**6)["field"] == "candidate"


def test_tokens_of_the_front_are_shaded_by_what_the_unit_does_there(prompts: Heard) -> None:
    prompts.dream(iterations=1, length=4, population=2, children=4)

    def shading() -> list[Message]:
        front = prompts.of("front")[-1]["front"]
        return [c for c in front["candidates"] if c["front"]]

    until(lambda: all(c["activations"] is not None for c in shading()))
    shaded = shading()
    assert shaded
    assert all(len(c["activations"]) == 4 for c in shaded)
    assert all(c["activations"][-1] == pytest.approx(c["activation"], abs=1e-4) for c in shaded)


def test_a_search_is_paused_and_taken_up_where_it_was(prompts: Heard, metronome: Metronome) -> None:
    prompts.ask("dream", iterations=6, **SEARCH)
    metronome.beat(5)
    until(lambda: metronome.taken == 5)
    prompts.ask("pause")
    metronome.free()
    until(lambda: prompts.now()["activity"] == {"mode": "dream", "paused": True})
    prompts.rest()
    held = prompts.of("front")[-1]["front"]
    assert held["iteration"] < 6
    tried = held["tried"]
    prompts.ask("dream")
    front = finished(prompts)
    assert (front["status"], front["iteration"]) == ("done", 6)
    assert front["tried"] > tried
    through = prompts.dream(again=True)
    kept = {tuple(c["tokens"][n]["id"] for n in range(4)) for c in front["candidates"]}
    assert {ids[-4:] for ids in through.ids[through.method == "epo"]} == kept


def test_a_stopped_search_keeps_what_it_found(prompts: Heard) -> None:
    prompts.ask("dream", iterations=100_000, **SEARCH)
    until(lambda: prompts.of("front") and prompts.of("front")[-1]["front"]["candidates"])
    prompts.ask("stop")
    front = finished(prompts)
    assert front["status"] == "stopped"
    assert front["candidates"]
    assert "kept" in front["note"]
    prompts.comes_to("activity", None)


def test_plainer_searches_examples_and_the_users_text_join_the_same_plot(prompts: Heard) -> None:
    prompts.dream(iterations=1, length=3, population=2, children=4)
    prompts.rivals("greedy", iterations=1, children=8)
    prompts.rivals("single")
    prompts.examples()
    assert prompts.ask("own", text="john is taller than nina")["ok"]
    front = prompts.ask("hello")["body"]["front"]
    kinds = {c["kind"] for c in front["candidates"]}
    assert kinds == {"epo", "greedy", "single", "corpus", "own"}
    corpus = [c for c in front["candidates"] if c["kind"] == "corpus"]
    assert corpus[0]["activation"] == pytest.approx(prompts.on_corpus.maximum, abs=1e-5)
    assert all(c["cross_entropy"] > 0 for c in corpus if c["cross_entropy"] is not None)
    assert all(len(c["activations"]) == len(c["tokens"]) for c in corpus)
    assert set(prompts.front.method) == kinds
    prompts.ask("aim", terms=[{"address": "L1.N3"}])
    prompts.dream(iterations=1, length=3, population=2, children=4)
    assert set(prompts.front.method) <= {"epo", "own"}


def test_a_page_waits_for_no_job_that_is_over(prompts: Heard) -> None:
    for _ in range(3):
        prompts.ask("dream", iterations=1, again=True, **SEARCH)
        finished(prompts)
        prompts.rest()
        busy, counted = False, set[tuple[str, str | None]]()
        for message in prompts.heard:
            if message["kind"] == "progress":
                name = (message["job"], message["key"])
                (counted.discard if message["done"] >= message["total"] else counted.add)(name)
            elif message["kind"] == "status":
                busy = message["busy"]
                counted = counted if busy else set()
        assert not busy
        assert counted == set()


def test_a_search_starts_from_what_leads_up_to_the_peaks_of_the_corpus(prompts: Heard) -> None:
    begun = prompts.dream(iterations=0, start="examples", length=3)
    top = prompts.on_corpus.groups[0].examples  # it was measured for that
    assert all(isinstance(one, TextExample) for one in top)
    starts = endings([one for one in top if isinstance(one, TextExample)], 3)
    assert starts
    searched = begun[begun.method == "epo"]
    assert {ids[-3:] for ids in searched.ids} <= set(starts)
    assert prompts.ask("dream", iterations=1, start="random", again=True)["ok"]
    assert finished(prompts)["status"] == "done"
    assert prompts.now()["dreaming"]["start"] == "random"
    greedily = prompts.rivals("greedy", iterations=0)
    assert greedily[greedily.method == "greedy"].ids.iloc[0][-3:] not in starts
    with pytest.raises(InputError, match="No example has 100 tokens up to its peak"):
        prompts.dream(start="examples", length=100)


def test_a_search_that_the_corpus_beats_says_how_to_go_on_from_there(prompts: Heard) -> None:
    prompts.examples()
    prompts.dream(iterations=0, population=1, length=4)
    assert prompts.front.activation.max() == pytest.approx(prompts.on_corpus.maximum, abs=1e-5)
    note = prompts.ask("hello")["body"]["front"]["note"]
    assert "starts from examples" in note
    assert f"{prompts.on_corpus.maximum:.3g}" in note


def test_a_logit_and_a_direction_of_the_session_are_units_too(prompts: Heard) -> None:
    session = prompts.session
    assert isinstance(session, Session)
    session.define("taller", "L1.resid_post", torch.ones(session.model.anatomy.d_model))
    word = session.model.token_text(int(session.ids[-1]))
    for address in ("L1.resid_post[taller]", f"logits[{word}]"):
        assert prompts.ask("aim", terms=[{"address": address, "how": "last"}])["ok"], address
        assert prompts.now()["terms"][0]["address"] == address
        assert len(prompts.dream(iterations=1, length=3, population=2, children=4)) > 0
    assert "L1.resid_post[taller]" in prompts.complete("L1.resid_post")
    assert prompts.ask("aim", terms=[{"address": "L1.resid_post"}])["field"] == "terms"


def test_a_model_without_a_tokenizer_is_searched_too() -> None:
    view = Heard(tiny.model("gpt2"), "L1.N5", prompt=tiny.ids())
    view.ask("hello")
    found = view.dream(iterations=1, length=3, population=2, children=4)
    view.load(int(found.candidate[0]))
    session = view.session
    assert isinstance(session, Session)
    assert tuple(session.ids.tolist()) == found.ids[0]
    view.close()


def test_a_search_that_fails_says_why_and_keeps_the_view(prompts: Heard) -> None:
    prompts.aim(lambda v: v["L2.mlp"].mean((1, 2)) * torch.tensor(float("nan")), paths="L2.mlp")
    prompts.ask("dream", iterations=1, **SEARCH)
    front = finished(prompts)
    assert front["status"] == "failed"
    assert front["note"] == failed(prompts)
    with pytest.raises(MetricError):
        prompts.dream(again=True)
    assert prompts.ask("hello")["ok"]


# --- many units ----------------------------------------------------------------------------------


def test_units_are_put_into_clusters_with_one_stimulus_each(drawn: Heard) -> None:
    drawn.ask("discriminate", units=["second"], clusters=3)
    found = drawn.hear(
        lambda m: m["kind"] == "discrimination" and m["discrimination"]["status"] == "done"
    )["discrimination"]
    assert found["units"] == [f"second:c{n}" for n in range(8)]
    assert len(found["stimuli"]) == found["clusters"]
    assert found["responses"].shape == (found["clusters"], 8)
    chosen = found["responses"].argmax(0)
    assert chosen.tolist() == found["labels"].tolist()
    loaded = drawn.ask("load", stimulus=0)["body"]["input"]
    assert loaded == "stimulus of cluster 1"
    assert drawn.clusters.cluster.tolist() == found["labels"].tolist()
    assert drawn.ask("load", stimulus=20)["field"] == "stimulus"


def test_clusters_are_stopped_and_keep_their_last_state(drawn: Heard) -> None:
    drawn.ask("discriminate", units=["second", "out:c1"], clusters=4)
    until(lambda: drawn.of("discrimination") and drawn.of("discrimination")[-1])
    until(lambda: drawn._clustering is not None and drawn._clustering.state is not None)
    drawn.ask("stop")
    found = drawn.hear(
        lambda m: m["kind"] == "discrimination" and m["discrimination"]["status"] != "running"
    )["discrimination"]
    assert found["status"] in {"stopped", "done"}
    assert len(found["labels"]) == 9
    assert drawn.ask("discriminate", units=["second:c1"], clusters=2)["field"] == "units"
    assert "fewer than" in drawn.ask("discriminate", units=["out"], clusters=9)["error"]


# --- files ---------------------------------------------------------------------------------------


def test_pictures_are_saved_as_files(drawn: Heard, tmp_path: Path) -> None:
    drawn.climb()
    drawn.examples()
    for what, kind, magic in (
        ("sheet", "png", b"\x89PNG"),
        ("animation", "gif", b"GIF8"),
        ("animation", "webp", b"RIFF"),
        ("history", "csv", b"track"),
        ("front", "csv", b"candidate"),
    ):
        body = drawn.ask("save", what=what, format=kind)["body"]
        assert bytes(body["data"]).startswith(magic)
        assert body["name"] == f"second-c2-{what}.{kind}"
    drawn.animation(tmp_path / "climb.gif")
    with Image.open(tmp_path / "climb.gif") as opened:
        assert getattr(opened, "n_frames", 1) > 1
    assert drawn.sheet() == drawn.sheet(tmp_path / "sheet.png")
    with pytest.raises(InputError, match="gif or webp"):
        drawn.animation(tmp_path / "climb.mp4")


def test_a_saved_page_draws_the_last_pictures_without_a_kernel(
    drawn: Heard, tmp_path: Path
) -> None:
    drawn.climb(size=64)
    drawn.diversity(3)
    drawn.examples()
    text = drawn.to_html(tmp_path / "view.html")
    assert (tmp_path / "view.html").read_text() == text
    traits = re.search(r'id="traits">(.*?)</script>', text, re.DOTALL)
    assert traits is not None
    picture = json.loads(traits[1])["snapshot"]
    assert len(traits[1]) <= SNAPSHOT_BYTES + 100
    hello = picture["hello"]
    assert hello["of"] == "maximizer"
    assert {frame["track"] for frame in hello["frames"]} == {t["key"] for t in hello["tracks"]}
    first = hello["frames"][0]["picture"]
    assert first["coding"] == "jpeg"
    data = base64.b64decode(picture["buffers"][first["pixels"]["buffer"]])
    with Image.open(io.BytesIO(data)) as opened:
        assert opened.size == (64, 64)
    assert hello["examples"]["groups"][0]["examples"]


def test_a_saved_page_stays_small_whatever_was_optimised(view: Heard) -> None:
    view.climb(size=256, steps=40)
    view.diversity(6, size=128, steps=10)
    view.to_html()
    assert len(json.dumps(view.snapshot)) <= SNAPSHOT_BYTES + 1000
    assert view.snapshot["hello"]["frames"]


# --- life ----------------------------------------------------------------------------------------


def test_every_gesture_of_this_view_is_handled() -> None:
    mine = {
        part.__name__.lower()
        for part in say.Up.__subclasses__()
        if part.__module__ == activation_maximizer.__name__
    }
    shared = {"hello", "undo", "redo", "stop", "complete", "prompt"}
    missing = {kind for kind in mine | shared if not hasattr(ActivationMaximizer, f"_on_{kind}")}
    assert missing == set()
    assert len(mine) > 14


def test_no_gesture_waits_for_the_model(drawn: Heard) -> None:
    drawn.climb()
    key = int(drawn.tracks.track[0])
    gestures: list[tuple[str, Message]] = [
        ("hello", {}),
        ("aim", {"terms": [{"address": "second:c3"}]}),
        ("options", {"steps": 3}),
        ("climb", {}),
        ("pause", {}),
        ("climb", {}),
        ("stop", {}),
        ("scrub", {"track": key, "step": 2}),
        ("diverse", {"count": 2}),
        ("facets", {"count": 2}),
        ("examples", {}),
        ("load", {"track": key}),
        ("complete", {"prefix": "s"}),
        ("undo", {}),
        ("stop", {}),
    ]
    with Gate(drawn.session) as gate:
        for kind, fields in gestures:
            gate.answers_at_once(drawn, kind, **fields)


def test_a_closed_view_stops_its_climb_and_is_gone(module: ModuleModel) -> None:
    session = ModuleSession(module)

    def climbing() -> weakref.ref[Heard]:
        view = Heard(session, "second:c2")
        view.ask("hello")
        view.climb(steps=100_000, wait=False)
        until(lambda: view.of("frame"))
        view.close()
        return weakref.ref(view)

    gone = climbing()
    session.submit(lambda _stop: None).result()
    assert session._observers == []
    until(lambda: gc.collect() >= 0 and gone() is None)


def test_a_climb_that_is_stopped_before_its_first_step_gives_its_start(view: Heard) -> None:
    gate = Gate(view.session)

    def stop_and_free() -> None:
        until(lambda: "ascent" in view._tasks)
        view.stop()
        gate.__exit__()

    gate.__enter__()
    threading.Thread(target=stop_and_free).start()
    assert view.climb().shape == (3, 24, 24)
    assert view.tracks.step.tolist() == [0]
    assert view.tracks.status.tolist() == ["stopped"]
