"""What patchclamp raises: a sentence for a person, what was wrong and what would be right."""


class PatchclampError(ValueError):
    """Something patchclamp was given or asked for cannot be; nothing was changed by trying."""


class AddressError(PatchclampError):
    """An address that cannot be read, or names a site that the model does not have."""


class InterventionError(PatchclampError):
    """An intervention that cannot be applied: its value, its positions or its kind of site."""


class InputError(PatchclampError):
    """A text or tensor of token ids that cannot be run: empty, too long, out of the vocabulary."""


class MetricError(PatchclampError):
    """A metric that fails, is no finite number, has no gradient where one is needed, or no file."""


class ModelError(PatchclampError):
    """A model that was not found, not downloaded whole, or that patchclamp cannot take."""


class BudgetError(PatchclampError):
    """Something that needs more memory or work than the budget it was given."""


class Stopped(PatchclampError):  # noqa: N818 (being stopped is an outcome, not a mistake)
    """A run that was told to stop and did; the model is as it was before."""


class AtlasError(PatchclampError):
    """An atlas is missing, damaged, of something else, or cannot be written or asked that."""
