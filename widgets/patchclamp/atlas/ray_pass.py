"""The corpus pass on Ray Data: shards go to a pool of actors, each with a model of its own.

A shard is small to send (the numbers of some windows; the corpus itself is shared once) and gives
the same as here, to float rounding, whoever reads it. Where a worker dies, Ray starts another and
gives it the shard again; what was merged and written before stays.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from patchclamp.atlas.build import Ray
from patchclamp.errors import AtlasError, ModelError, Stopped
from patchclamp.methods.corpus_pass import Collected, Reader
from patchclamp.models.loading import load as load_by_name

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from torch import Tensor

    from patchclamp.atlas.build import Plan
    from patchclamp.atlas.manifest import Manifest
    from patchclamp.methods.corpus_pass import PerPrompt, Windows
    from patchclamp.models.language_model import LanguageModel


class Worker:
    """One actor: a model, and the corpus that it reads shards of.

    Args:
        load: makes the model.
        manifest: what the model has to be.
        windows: the corpus, as Ray's reference to it.
        per_prompt: with labels, which value stands for a text.
    """

    def __init__(
        self,
        load: Callable[[], LanguageModel],
        manifest: Manifest,
        windows: Any,
        per_prompt: PerPrompt | None,
    ) -> None:
        import ray

        from patchclamp.engine.engine import Engine

        model = load()
        manifest.check_model(model)
        self._model = model
        self._manifest = manifest
        self._windows: Windows = ray.get(windows)
        self._reader = Reader(Engine.of(model), self._windows, per_prompt)
        self._per_prompt = per_prompt
        self._units = sum(model.anatomy.n_neurons(n) for n in range(model.anatomy.n_layers))

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Read one shard."""
        number = int(row["shard"])
        shard, m = self._windows.shards[number], self._manifest
        into = Collected.nothing(self._model, top=m.top, sample=m.sample, seed=m.seed)
        own = None
        if self._per_prompt is not None:
            own = torch.full((len(self._reader.texts_of(shard)), self._units), torch.nan)
        for _ in self._reader.read(shard, into, own):
            pass
        from safetensors.torch import save

        found = {name: tensor.contiguous() for name, tensor in into.to_tensors().items()}
        if own is not None:
            found["own"] = own
        return {"shard": number, "found": save(found)}


def read_on_ray(
    model: LanguageModel, plan: Plan, shards: Sequence[int], should_stop: Callable[[], bool]
) -> Generator[tuple[int, Collected, Tensor | None], None, None]:
    """Read shards on Ray.

    Args:
        model: the model here, whose name the workers load where the plan says nothing else.
        plan: what is built.
        shards: the numbers of those that are to be read.
        should_stop: asked after every shard.

    Yields:
        As they come: the shard's number, what was collected, and the values of its texts.

    Raises:
        AtlasError: when Ray is not installed, or gave up.
        Stopped: when ``should_stop`` said so.
    """
    try:
        import ray
    except ImportError as error:
        msg = 'engine="ray" needs Ray: pip install "patchclamp[ray]".'
        raise AtlasError(msg) from error
    from safetensors.torch import load as read

    if not shards:
        return
    if not ray.is_initialized():
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # Ray has no class of its own for this
            why = str(error).strip().partition("\n")[0]
            msg = f"Ray does not start ({why})."
            raise AtlasError(msg) from error
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    how = plan.ray or Ray()
    make = how.load or _by_name(model.name)
    reference = ray.put(plan.windows)
    rows = ray.data.from_items(
        [{"shard": number} for number in shards], override_num_blocks=len(shards)
    )
    worker: Any = Worker  # a class, which Ray's types do not know of
    made = rows.map(
        worker,
        fn_constructor_args=(
            make,
            plan.manifest,
            reference,
            plan.per_prompt if plan.labels else None,
        ),
        compute=ray.data.ActorPoolStrategy(size=max(1, how.workers)),
        num_gpus=how.gpus or None,
    )
    try:
        for row in made.iter_rows():
            if should_stop():
                msg = "Stopped before the corpus was read."
                raise Stopped(msg)
            found = read(row["found"])
            own = found.pop("own", None)
            yield int(row["shard"]), Collected.of_tensors(found), own
    except ray.exceptions.RayError as error:
        msg = (
            f"Ray gave up ({str(error).strip().splitlines()[-1]}). What was read before is kept: "
            "build again, it goes on from there."
        )
        raise AtlasError(msg) from error


def _by_name(name: str) -> Callable[[], LanguageModel]:
    def make() -> LanguageModel:
        found = load_by_name(name)
        if not hasattr(found, "bridge"):
            msg = f"{name} is no language model."
            raise ModelError(msg)
        return found

    return make
