"""Steps of feature visualization, against a bare PyTorch loop and against Lucent itself.

EfficientNet-Lite0, a picture of 128 x 128, Fourier parameterisation, decorrelated colours, crops
under noise (against Lucent its own transformations), Adam. Everything is timed in turns, on as many
threads as torch takes.

- *While the view streams frames*: an `ActivationMaximizer` that has a page, climbing a logit from
  its start to its end, with everything that it sends. Beside it a loop that a user would write by
  hand, on the same network with frozen weights, with the same crops and noise: nothing hooked,
  nothing kept, nothing shown.
- *Only the layers up to the unit*: a channel at a third of the depth. Beside it the same loop with
  a hook on the channel's part, which runs the whole network in each step.
- *Lucent's published recipe*, run by Lucent (``lucent_itself``): its transformations one after the
  other, and pictures under 224 pixels enlarged to 224. And once more with enlarging to the 140
  pixels that our network sees, which leaves what its loop and transformations cost.
"""

from __future__ import annotations

import json
import math
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from patchclamp import ActivationMaximizer, load
from patchclamp.methods.feature_visualization import Climb, Optimization, run
from patchclamp.methods.objective import objective
from patchclamp.methods.transformations import Crops
from tests.benchmarks.lucent_itself import Lucent, LucentFailedError
from tests.benchmarks.measure import faster, in_turns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from patchclamp.models.module_model import ModuleModel
    from tests.benchmarks.measure import Figure

SIZE = 128
STEPS = 48
CLASS = 207
CHANNEL = 17


def figures(rounds: int = 5) -> Iterator[Figure | str]:
    """Measure the figures on the default vision model."""
    model = load("efficientnet-lite0")
    yield from streaming(model, rounds)
    yield from up_to_the_unit(model, rounds)
    yield from beside_lucent(model, rounds)


def streaming(model: ModuleModel, rounds: int) -> Iterator[Figure | str]:
    """The view with a page, beside a bare loop."""
    view = Watched(model, f"{model.anatomy.output}:c{CLASS}")
    view.open_page()
    bare = BareLoop(model, model.anatomy.output, CLASS)
    ways = {
        "bare": lambda _: bare.climb(STEPS),
        "ours": lambda _: view.climb(again=True, steps=STEPS, size=SIZE),
    }
    t = in_turns(ways, rounds)
    yield faster(f"climb:{SIZE}px:logit:bare-loop/streaming-view", t["bare"], t["ours"], 0.95)
    seconds = sum(t["ours"])
    yield f"# {view.frames / (rounds + 1):.0f} frames in {STEPS} steps, {seconds / rounds:.1f} s"


def up_to_the_unit(model: ModuleModel, rounds: int) -> Iterator[Figure]:
    """A channel at a third of the depth, beside running the whole network."""
    anatomy = model.anatomy
    blocks = [path for path in anatomy.parts if path.count(".") == 1 and "_blocks." in path]
    path = min(blocks, key=lambda name: abs(anatomy.depth(name) - 1 / 3))
    unit = objective(model, f"{path}:c{CHANNEL}")
    ours = Optimization(model, unit, Climb(size=SIZE))
    ways = {
        "whole": lambda _: BareLoop(model, path, CHANNEL).climb(STEPS),
        "ours": lambda _: list(run(ours, STEPS)),
    }
    t = in_turns(ways, rounds)
    name = f"climb:{SIZE}px:{path}:whole-network/up-to-the-unit"
    yield faster(name, t["whole"], t["ours"], 2)


def beside_lucent(model: ModuleModel, rounds: int) -> Iterator[Figure | str]:
    """A channel by Lucent's published recipe, beside ours."""
    path = "_blocks.9"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with Lucent(Path(folder), path, CHANNEL, SIZE) as lucent:
                for enlarged, wanted in ((224, 2), (SIZE + 12, 1)):
                    yield _against(lucent, enlarged, wanted, model, path, rounds)
        except LucentFailedError as error:
            yield f"# not beside Lucent, which could not be run: {error}"


def _against(
    lucent: Lucent, enlarged: int, wanted: float, model: ModuleModel, path: str, rounds: int
) -> Figure:
    how = Climb(size=SIZE, transforms="lucid", decay=1)
    ours = Optimization(model, objective(model, f"{path}:c{CHANNEL}"), how)
    steps = STEPS // 4
    ways: dict[str, Callable[[float], object]] = {
        "lucent": lambda _: lucent.climb(steps, enlarged),
        "ours": lambda _: list(run(ours, steps)),
    }
    t = in_turns(ways, rounds)
    name = f"climb:{SIZE}px:{path}:lucent-at-{enlarged}px/ours"
    return faster(name, t["lucent"], t["ours"], wanted)


@dataclass(eq=False)
class BareLoop:
    """The loop by hand: a forward hook where the unit is not the output, and nothing else."""

    model: ModuleModel
    path: str
    channel: int
    kept: list[Tensor] = field(default_factory=list)

    def climb(self, steps: int) -> Tensor:
        """Climb from a new start; return Float[1, 3, height, width]."""
        net = self.model.module
        part = net.get_submodule(self.path)
        hook = part.register_forward_hook(lambda *given: self.kept.append(given[2]))
        try:
            return self._climb(steps)
        finally:
            hook.remove()

    def _climb(self, steps: int) -> Tensor:
        torch.manual_seed(0)
        down, across = torch.fft.fftfreq(SIZE)[:, None], torch.fft.rfftfreq(SIZE)[None]
        f = torch.hypot(down, across).clamp_min(1 / SIZE)
        scale = (16 * f) ** (1 - Climb().decay) / f / 4
        root = torch.tensor([[0.26, 0.09, 0.02], [0.27, 0.0, -0.05], [0.27, -0.09, 0.03]])
        colours = root / root.norm(dim=0).max()
        spectrum = (0.01 * torch.randn(1, 3, *scale.shape, 2)).requires_grad_()
        adam = torch.optim.Adam([spectrum], lr=0.05)
        stimulus = self.model.stimulus
        mean, std = (torch.tensor(v).view(3, 1, 1) for v in (stimulus.mean, stimulus.std))
        image = spectrum
        for _ in range(steps):
            waves = torch.view_as_complex(spectrum * scale[..., None])
            image = torch.fft.irfft2(waves, s=(SIZE, SIZE), norm="ortho")
            image = torch.einsum("rc,bchw->brhw", colours, image).sigmoid()
            adam.zero_grad()
            self.kept.clear()
            self.model.module((self._moved(image) - mean) / std)
            unit = self.kept[0][:, self.channel]
            (-unit.mean()).backward()
            adam.step()
        return image.detach()

    @staticmethod
    def _moved(image: Tensor) -> Tensor:
        """Show a square of the image, turned, under noise."""
        crops = Crops()
        low, high = crops.shares
        share = low + (high - low) * torch.rand(())
        angle = (2 * torch.rand(()) - 1) * (crops.angle * math.pi / 180)
        room = (1 - share).abs() / 2 + crops.beyond
        shift = (crops.centre * torch.randn(2)).clamp(-room, room)[:, None] * 2
        cos, sin = angle.cos() * share, angle.sin() * share
        linear = torch.stack([torch.stack([cos, sin]), torch.stack([-sin, cos])])
        theta = torch.cat([linear, shift], 1)[None]
        grid = functional.affine_grid(theta, [1, 3, SIZE, SIZE], align_corners=False)
        seen = functional.grid_sample(image - 0.5, grid, align_corners=False) + 0.5
        return seen + crops.noise * torch.rand(()) * torch.randn_like(seen)


class Watched(ActivationMaximizer):
    """The view itself, with a page that says hello and takes what it is sent."""

    _esm = "export default { render() {} };\n"
    _css = "\n"
    frames = 0

    def open_page(self) -> None:
        """Say hello, as a page does when it opens: until then nothing is sent."""
        self._handle_custom_msg({"kind": "hello", "id": 1}, [])

    def send(self, content: Any, buffers: Any = None) -> None:
        """Turn a message into what goes over the wire."""
        text = json.dumps(content)
        if '"frame"' in text:
            self.frames += 1
        b"".join(bytes(buffer) for buffer in buffers or [])
