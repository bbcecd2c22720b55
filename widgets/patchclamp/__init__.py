"""Electrodes for live neural networks: pick a unit, watch it, clamp it, see what changes.

Start with `load` (or `LanguageModel` for a model you already have), make a `Session`, and look
at it with a view such as `NeuronClamp`. Importing this package loads neither torch nor
TransformerLens: each name below is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .atlas.atlas import Atlas
    from .atlas.build import Decoding, Reading
    from .corpora.english import texts
    from .corpora.multilingual import parallel_texts
    from .corpora.own import texts_of_dataset, texts_of_files
    from .corpora.sample_pictures import pictures
    from .errors import PatchclampError
    from .interventions import Ablate, Add, Clamp, Cut, Intervention, Knockout, Patch, Scale
    from .methods.objective import Objective, objective
    from .methods.prompt_sets import Pair, PromptSet, prompt_set
    from .models.language_model import LanguageModel
    from .models.loading import load
    from .models.module_model import ModuleModel
    from .models.stimulus import Stimulus
    from .module_session import ModuleSession
    from .session import KL, Custom, LogitDifference, LogProb, Loss, Session
    from .sites import Site, SiteSet
    from .views.activation_maximizer import ActivationMaximizer
    from .views.attention_inspector import AttentionInspector
    from .views.circuit_ablator import CircuitAblator
    from .views.neuron_atlas import NeuronAtlas
    from .views.neuron_clamp import NeuronClamp

__version__ = "0.1.0"

__all__ = [
    "KL",
    "Ablate",
    "ActivationMaximizer",
    "Add",
    "Atlas",
    "AttentionInspector",
    "CircuitAblator",
    "Clamp",
    "Custom",
    "Cut",
    "Decoding",
    "Intervention",
    "Knockout",
    "LanguageModel",
    "LogProb",
    "LogitDifference",
    "Loss",
    "ModuleModel",
    "ModuleSession",
    "NeuronAtlas",
    "NeuronClamp",
    "Objective",
    "Pair",
    "Patch",
    "PatchclampError",
    "PromptSet",
    "Reading",
    "Scale",
    "Session",
    "Site",
    "SiteSet",
    "Stimulus",
    "__version__",
    "load",
    "objective",
    "parallel_texts",
    "pictures",
    "prompt_set",
    "texts",
    "texts_of_dataset",
    "texts_of_files",
]

_HOME = {
    "Atlas": ".atlas.atlas",
    "Decoding": ".atlas.build",
    "Reading": ".atlas.build",
    "texts": ".corpora.english",
    "parallel_texts": ".corpora.multilingual",
    "texts_of_dataset": ".corpora.own",
    "texts_of_files": ".corpora.own",
    "pictures": ".corpora.sample_pictures",
    "PatchclampError": ".errors",
    "Ablate": ".interventions",
    "Add": ".interventions",
    "Clamp": ".interventions",
    "Cut": ".interventions",
    "Intervention": ".interventions",
    "Knockout": ".interventions",
    "Patch": ".interventions",
    "Scale": ".interventions",
    "Objective": ".methods.objective",
    "objective": ".methods.objective",
    "Pair": ".methods.prompt_sets",
    "PromptSet": ".methods.prompt_sets",
    "prompt_set": ".methods.prompt_sets",
    "LanguageModel": ".models.language_model",
    "load": ".models.loading",
    "ModuleModel": ".models.module_model",
    "Stimulus": ".models.stimulus",
    "ModuleSession": ".module_session",
    "Custom": ".session",
    "KL": ".session",
    "Loss": ".session",
    "LogProb": ".session",
    "LogitDifference": ".session",
    "Session": ".session",
    "Site": ".sites",
    "SiteSet": ".sites",
    "ActivationMaximizer": ".views.activation_maximizer",
    "AttentionInspector": ".views.attention_inspector",
    "CircuitAblator": ".views.circuit_ablator",
    "NeuronAtlas": ".views.neuron_atlas",
    "NeuronClamp": ".views.neuron_clamp",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(
            f"patchclamp has no {name!r}; it has {', '.join(n for n in __all__ if n[0] != '_')}."
        )
    value = getattr(import_module(_HOME[name], __name__), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
