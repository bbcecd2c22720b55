"""A session's current run as readable Python that needs torch and TransformerLens alone.

Every intervention becomes one small hook function under a comment with its address; positions are
written out for the prompt at hand. Means are computed in the snippet, over the session's reference
set. What is muted is left out.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from patchclamp.engine.hooks import (
    AFTER,
    BEFORE,
    EDIT,
    Frame,
    cells_of,
    check_contrast,
    check_contrast_edge,
    check_intervention,
    cut_destinations,
    groups,
    patch_rows,
    reader_of,
)
from patchclamp.errors import InterventionError
from patchclamp.interventions import (
    Ablate,
    Add,
    Clamp,
    Cut,
    Intervention,
    Knockout,
    Numbers,
    Patch,
    Scale,
)
from patchclamp.sites import Positions, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from patchclamp.models.anatomy import Anatomy
    from patchclamp.session import Session

Ids = tuple[int, ...]


def to_code(session: Session) -> str:
    """Python that makes a session's current run again.

    Raises:
        InterventionError: when an intervention needs what the session does not have, such as a
            contrast input.
    """
    model = session.model

    def to_ids(text: str) -> Ids:
        return tuple(model.to_ids(text).tolist())

    contrast = session.contrast
    if isinstance(contrast, str):
        contrast = model.to_ids(contrast, chat=session.chat)
    return write(
        Setting(
            source=model.source,
            ids=tuple(session.ids.tolist()),
            has_bos=session.has_bos,
            anatomy=model.anatomy,
            text=session.text,
            reference=tuple(tuple(one.ids) for one in session.reference.inputs),
            contrast=None if contrast is None else tuple(contrast.tolist()),
            directions={
                name: tuple(vector.tolist()) for name, (_, vector) in session.directions.items()
            },
            to_ids=to_ids,
        ),
        session.interventions,
    )


@dataclass(frozen=True)
class Setting:
    """What a snippet needs to know besides the interventions.

    Attributes:
        source: Python that binds `model` to the TransformerBridge; None when nobody can say.
        ids: Token ids of the prompt.
        has_bos: Whether position 0 is a beginning-of-sequence token that was put in front.
        anatomy: The model's anatomy.
        text: The prompt as text, for a comment.
        reference: Token ids of each reference text.
        contrast: Token ids of the contrast input.
        directions: Named directions.
        to_ids: Turns a text to patch from into token ids.
    """

    source: str | None
    ids: Ids
    has_bos: bool
    anatomy: Anatomy
    text: str | None = None
    reference: tuple[Ids, ...] = ()
    contrast: Ids | None = None
    directions: Mapping[str, Numbers] = field(default_factory=dict)
    to_ids: Callable[[str], Ids] | None = None


def write(setting: Setting, stack: Sequence[Intervention]) -> str:
    """A snippet that runs `setting` under a list of interventions and leaves `logits`.

    Raises:
        AddressError: when the model lacks a site.
        InterventionError: when an operation cannot be done, or something it needs is not there.
    """
    n = len(setting.ids)
    active = [intervention for intervention in stack if not intervention.muted]
    for intervention in active:
        check_intervention(intervention, setting.anatomy, n, has_bos=setting.has_bos)
    return _Snippet(setting).write(active)


@dataclass
class _Snippet:
    """Collects the parts of one snippet."""

    setting: Setting
    functions: list[str] = field(default_factory=list)
    # (rank, hook-point name, name of the function)
    hooks: list[tuple[int, str, str]] = field(default_factory=list)
    needs: set[str] = field(default_factory=set)
    directions: dict[str, str] = field(default_factory=dict)
    carried: int = 0
    # What the next function needs, computed before the run: a run inside a hook would never end.
    ahead: list[str] = field(default_factory=list)
    constants: dict[str, str] = field(default_factory=dict)

    def write(self, stack: Sequence[Intervention]) -> str:
        cuts: list[tuple[Site, str]] = []
        for intervention in stack:
            match intervention:
                case Cut():
                    edges = self.setting.anatomy.expand(intervention.site)
                    cuts.extend((edge, intervention.how) for edge in edges)
                case Knockout():
                    self._knockout(intervention)
                case _:
                    self._values(intervention)
        self._cuts(cuts)
        return "\n".join(self._document())

    def _document(self) -> list[str]:
        setting = self.setting
        source = setting.source or (
            "# Bind `model` to your TransformerBridge first: it was made by other code than this."
        )
        text = "" if setting.text is None else f"  # {_comment(setting.text)}"
        names = [f"({hook!r}, {name})," for _, hook, name in sorted(self.hooks, key=lambda h: h[0])]
        last = (
            ["logits = model.run_with_hooks(ids, fwd_hooks=["]
            + [f"    {name}" for name in names]
            + ["])  # Float[1, pos, vocab]"]
        )
        return [
            "# Written by patchclamp; needs torch and TransformerLens alone.",
            *([] if "import torch" in source.splitlines() else ["import torch", ""]),
            source.strip(),
            "torch.set_grad_enabled(False)",
            "device = next(model.parameters()).device",
            *_listing("ids", f"torch.tensor([{list(setting.ids)}], device=device)", text),
            *self._helpers(),
            *[line for function in self.functions for line in ("", "", function)],
            "",
            "",
            *(last if names else ["logits = model(ids)  # Float[1, pos, vocab]"]),
            "print(logits[0, -1].topk(5).indices.tolist())  # what comes next",
            "",
        ]

    def _helpers(self) -> list[str]:
        lines: list[str] = []
        for name, variable in self.directions.items():
            vector = list(self.setting.directions[name])
            lines += _listing(
                variable, f"torch.tensor({vector}, device=device)", f"  # {_comment(name)}"
            )
        if "mean" in self.needs or "resample" in self.needs:
            lines += [
                "",
                "# The texts that means are taken over.",
                "reference = [",
                *[
                    f"    {line}"
                    for ids in self.setting.reference
                    for line in _wrap(f"{list(ids)},")
                ],
                "]",
            ]
        if "pattern" in self.needs:
            lines += ["", "", _THROUGH_A_HOOK_POINT.strip()]
        if self.needs & {"mean", "resample", "values"}:
            lines += ["", "", _VALUES.strip()]
        if "mean" in self.needs:
            lines += ["", "", _MEAN.strip()]
        if "resample" in self.needs:
            lines += ["", "", _RESAMPLE.strip()]
        if "matrix" in self.needs:
            lines += ["", "", _MATRIX.strip()]
        if "held" in self.needs:
            lines += ["", "held = {}  # what was read on the way, for hooks further on"]
        return lines

    def _function(self, verb: str, rank: int, hook: str, title: str, body: Sequence[str]) -> None:
        name = f"{verb}_{len(self.hooks) + 1}"
        head = [f"# {line}" for line in title.splitlines()]
        lines = [*head, *self.ahead, f"def {name}(x, hook):", *(f"    {line}" for line in body)]
        self.functions.append("\n".join(lines))
        self.ahead = []
        self.hooks.append((rank, hook, name))

    def _constant(self, name: str, expression: str) -> str:
        if expression not in self.constants:
            self.constants[expression] = f"{name}_{len(self.constants) + 1}"
            self.ahead += _listing(self.constants[expression], expression, "")
        return self.constants[expression]

    # ------------------------------------------------------------------------------- values

    def _values(self, intervention: Intervention) -> None:
        setting = self.setting
        n = len(setting.ids)
        for site, named in groups(intervention.site, setting.anatomy):
            indices = named
            if site.part in {"k", "v"}:
                indices = sorted({setting.anatomy.kv_head(index) for index in named})
            rows = site.positions.indices(0, n, n, setting.has_bos)
            if not rows:
                continue
            hook = setting.anatomy.alias(site)
            title = _title(intervention, site, indices)
            if site.kind == "direction":
                body = self._on_direction(intervention, site, rows, hook)
            elif site.part == "act":
                body = self._on_act(intervention, site, rows, indices)
            else:
                body = self._on_place(intervention, site, rows, indices, hook)
            home = site.component if site.kind == "direction" else site.kind
            if home == "resid_mid" and not setting.anatomy.post_ln:
                self._past_the_mlp(intervention.op, site, hook, title, body)
            else:
                self._function(intervention.op, EDIT, hook, title, body)

    def _on_place(
        self, intervention: Intervention, site: Site, rows: list[int], indices: list[int], hook: str
    ) -> list[str]:
        unit = f", {_index(indices)}" if indices else ""
        where = f"x[:, {_rows_beside(rows, indices)}{unit}]"
        dims = (len(indices) > 1) + (site.kind != "neuron")
        take = f"[{_index(indices)}]" if indices else ""
        match intervention:
            case Clamp(value=value):
                change = f"{where} = {_tensor(value)}"
            case Scale(factor=factor):
                change = f"{where} *= {factor!r}"
            case Add():
                change = f"{where} += {self._amount(intervention, dims)}"
            case Ablate(direction=None, how="zero"):
                change = f"{where} = 0"
            case Ablate(direction=None):
                change = f"{where} = {self._reference(intervention, hook)}{take}.to(x)"
            case Ablate(direction=tuple(vector)):
                zero = intervention.how == "zero"
                to = "0" if zero else f"{self._reference(intervention, hook)}{take}.to(x)"
                named = self._constant("direction", f"torch.tensor({list(vector)}, device=device)")
                return [
                    f"d = {named}.to(x)",
                    f"c = ({to} - {where}) @ d / (d @ d)  # what is missing along it",
                    "x = x.clone()",
                    f"{where} += c[..., None] * d",
                    "return x",
                ]
            case Patch():
                other, at = self._other(intervention, site, rows, hook)
                picked = f"[{_rows_beside(at, indices)}{unit}]"
                change = f"{where} = {other}{picked}.to(x)"
            case _:
                raise TypeError(type(intervention).__name__)
        return ["x = x.clone()", change, "return x"]

    def _on_direction(
        self, intervention: Intervention, site: Site, rows: list[int], hook: str
    ) -> list[str]:
        name = site.name or ""
        if name not in self.setting.directions:
            raise InterventionError(
                f"{site}: there is no direction {name!r}; define it on the session first."
            )
        variable = self.directions.setdefault(name, f"named_{len(self.directions) + 1}")
        at = _rows(rows)
        lines = [f"d = {variable}.to(x)", f"c = x[:, {at}] @ d / (d @ d)  # its coefficient"]
        match intervention:
            case Clamp(value=value):
                new = f"{value!r}"
            case Scale(factor=factor):
                new = f"c * {factor!r}"
            case Add():
                new = f"c + {self._amount(intervention, 0)}"
            case Ablate(how="zero"):
                new = "0"
            case Ablate():
                new = f"{self._reference(intervention, hook)}.to(x) @ d / (d @ d)"
            case Patch():
                other, taken = self._other(intervention, site, rows, hook)
                new = f"{other}[{_rows(taken)}].to(x) @ d / (d @ d)"
            case _:
                raise TypeError(type(intervention).__name__)
        return [
            *lines,
            "x = x.clone()",
            f"x[:, {at}] += ({new} - c)[..., None] * d",
            "return x",
        ]

    def _on_act(
        self, intervention: Intervention, site: Site, rows: list[int], indices: list[int]
    ) -> list[str]:
        """A gated neuron's value after the nonlinearity: post = act * up."""
        where = f"[:, {_rows_beside(rows, indices)}, {_index(indices)}]"
        dims = int(len(indices) > 1)
        if isinstance(intervention, Scale):
            return ["x = x.clone()", f"x{where} *= {intervention.factor!r}", "return x"]
        if isinstance(intervention, Ablate) and intervention.how == "zero":
            return ["x = x.clone()", f"x{where} = 0", "return x"]
        self.needs.add("held")
        part = f"blocks.{site.layer}.mlp"
        key = f"L{site.layer}.up"
        up = Site("neuron", site.layer, 0, "up")
        self._function(
            "read",
            AFTER,
            self.setting.anatomy.alias(up),
            f"What {site.address} is multiplied by",
            [f"held[{key!r}] = x"],
        )
        ups = f"held[{key!r}]{where}"
        gate = self.setting.anatomy.alias(Site("neuron", site.layer, 0, "gate"))
        act = f"getattr(model.{_path(part)}.original_component, 'act_fn', None)"
        act += f" or model.{_path(part)}.original_component.act"
        match intervention:
            case Clamp(value=value):
                lines = [f"x{where} = {value!r} * {ups}"]
            case Add():
                lines = [f"x{where} += {self._amount(intervention, dims)} * {ups}"]
            case Ablate():
                taken = f"{self._reference(intervention, gate)}[{_index(indices)}].to(x)"
                lines = [f"act = {act}", f"x{where} = act({taken}) * {ups}"]
            case Patch():
                other, at = self._other(intervention, site, rows, gate)
                picked = f"[{_rows_beside(at, indices)}, {_index(indices)}].to(x)"
                taken = f"{other}{picked}"
                lines = [f"act = {act}", f"x{where} = act({taken}) * {ups}"]
            case _:
                raise TypeError(type(intervention).__name__)
        return ["x = x.clone()", *lines, "return x"]

    def _past_the_mlp(self, op: str, site: Site, hook: str, title: str, body: list[str]) -> None:
        self.needs.add("held")
        self.carried += 1
        key = f"change {self.carried}"
        lines = ["before = x", *body[:-1], f"held[{key!r}] = x - before", "return x"]
        title += "\nThis hook point reaches only the MLP, so the same change goes past it below."
        self._function(op, EDIT, hook, title, lines)
        self._function(
            "carry",
            BEFORE,
            f"blocks.{site.layer}.hook_resid_post",
            f"The same change to what goes past the MLP of layer {site.layer}",
            [f"return x + held[{key!r}]"],
        )

    def _amount(self, intervention: Add, dims: int) -> str:
        amount, direction = intervention.amount, intervention.direction
        along = ""
        if direction is not None:
            vector = f"torch.tensor({list(direction)}, device=device)"
            along = f" * {self._constant('direction', vector)}.to(x)"
        if isinstance(amount, float):
            return f"{amount!r}{along}"
        shape = "".join(", None" for _ in range(dims))
        return f"{_tensor(amount)}{f'[:{shape}]' if dims else ''}{along}"

    def _reference(self, intervention: Ablate, hook: str) -> str:
        if not self.setting.reference:
            raise InterventionError(
                f"{intervention!r} needs a reference set, and the session has none; give one, or "
                "ablate to zero."
            )
        self.needs.add(intervention.how)
        seed = f", seed={intervention.seed}" if intervention.how == "resample" else ""
        return self._constant(intervention.how, f"{intervention.how}({hook!r}{seed})")

    def _other(
        self, intervention: Patch, site: Site, rows: list[int], hook: str
    ) -> tuple[str, list[int]]:
        """The values at a hook point in the run to patch from, and which rows go to `rows`."""
        self.needs.add("values")
        source = intervention.source
        ids: Ids
        if source == "contrast":
            if self.setting.contrast is None:
                raise InterventionError(
                    "there is no contrast input to patch from; set session.contrast."
                )
            ids = self.setting.contrast
        elif isinstance(source, str):
            if self.setting.to_ids is None:
                raise InterventionError(f"{intervention!r} needs a tokenizer; give token ids.")
            ids = self.setting.to_ids(source)
        else:
            ids = source
        frame = Frame(0, len(self.setting.ids), self.setting.has_bos)
        at = patch_rows(intervention, site, rows, frame, len(ids))
        return self._constant("other", f"values({list(ids)}, {hook!r})"), at

    # ------------------------------------------------------------------------ attention, edges

    def _knockout(self, intervention: Knockout) -> None:
        setting = self.setting
        n = len(setting.ids)
        layers: dict[int, list[Site]] = {}
        for site in setting.anatomy.expand(intervention.site):
            layers.setdefault(site.layer or 0, []).append(site)
        for layer, sites in layers.items():
            frame = Frame(0, n, setting.has_bos, first_source=0)
            found = [(site, *cells_of(site, frame, n, n)) for site in sites]
            cells = [(site, rows, columns) for site, rows, columns in found if rows and columns]
            if not cells:
                continue
            if setting.anatomy.delegated:
                self.needs.add("pattern")
            hook = f"blocks.{layer}.attn.hook_pattern"
            if intervention.how == "contrast":
                lines = self._taken_over(cells, hook, frame)
            else:
                lines = _taken_away(cells, n, intervention.how)
            verb = "takes from the contrast input" if intervention.how == "contrast" else "loses"
            shown = ", ".join(site.address for site, *_ in cells[:4])
            more = f" and {len(cells) - 4} more" if len(cells) > 4 else ""
            said = f"Attention {verb} {shown}{more}"
            said += "" if intervention.how == "contrast" else f" ({intervention.how})"
            self._function("knockout", EDIT, hook, said, lines)

    def _taken_over(
        self, cells: Sequence[tuple[Site, list[int], list[int]]], hook: str, frame: Frame
    ) -> list[str]:
        """Cells that get the weights they have on the contrast input."""
        contrast = self.setting.contrast
        if contrast is None:
            raise InterventionError(
                "there is no contrast input to take attention from; set session.contrast."
            )
        self.needs.add("values")
        other = self._constant("other", f"values({list(contrast)}, {hook!r})")
        lines = ["x = x.clone()"]
        for site, rows, columns in cells:
            check_contrast(site, frame, len(contrast), causal=self.setting.anatomy.causal)
            across = _rows([column for column in columns if column < len(contrast)])
            cell = f"{site.index}, {_rows(rows)}, {across}"
            lines.append(f"x[:, {cell}] = {other}[{cell}].to(x)  # {site}")
        return [*lines, "return x"]

    def _cuts(self, cuts: Sequence[tuple[Site, str]]) -> None:
        anatomy = self.setting.anatomy
        if not cuts:
            return
        self.needs.add("held")
        for source in dict.fromkeys(edge.source for edge, _ in cuts):
            self._function(
                "read",
                AFTER,
                anatomy.alias(source),
                f"What {source.address} writes to the residual stream",
                [f"held[{source.address!r}] = {self._written(source, 'x')}"],
            )
        for end, sources in cut_destinations(cuts, anatomy).items():
            self._cut(end, sources)

    def _cut(self, end: Site, sources: Mapping[tuple[Site, Positions], str]) -> None:
        anatomy, n = self.setting.anatomy, len(self.setting.ids)
        norm, hook, linear = reader_of(end, anatomy)
        key = f"{norm}.hook_in"
        self._function("read", AFTER, key, f"What {norm} reads", [f"held[{key!r}] = x"])
        lines = [f"resid = held[{key!r}].clone()"]
        touched: set[int] = set()
        for (source, where), how in sources.items():
            rows = where.indices(0, n, n, self.setting.has_bos)
            if not rows:
                continue
            touched.update(rows)
            at = _rows(rows)
            gone = f"held[{source.address!r}][:, {at}]"
            if how == "mean":
                self._need_reference(source)
                self.needs.add("mean")
                mean = self._constant("mean", f"mean({anatomy.alias(source)!r})")
                gone = f"({gone} - {self._written(source, mean)})"
            if how == "contrast":
                gone = f"({gone} - {self._written(source, self._elsewhere(source, end, rows))})"
            lines.append(f"resid[:, {at}] -= {gone}.to(x)  # {source.address} ({how})")
        if not touched:
            return
        rows = sorted(touched)
        at = _rows(rows)
        lines += [
            f"read = model.{_path(norm)}.original_component(resid)",
            "x = x.clone()",
        ]
        if linear is None:
            lines.append(f"x[:, {at}] = read[:, {at}].to(x)")
            written = end.address
        else:
            lines += [
                f"heads = model.{_path(linear)}.original_component(read)",
                f"heads = heads.reshape(*read.shape[:2], -1, {anatomy.d_head})",
                f"x[:, {at}, {end.index}] = heads[:, {at}, {end.index}].to(x)",
            ]
            written = end.address if end.part == "q" else f"L{end.layer}, {end.part} {end.index}"
        shown = ", ".join(source.address for source, _ in sources)
        self._function("cut", BEFORE, hook, f"Cut {shown} -> {written}", [*lines, "return x"])

    def _elsewhere(self, source: Site, end: Site, rows: list[int]) -> str:
        """What stands at a source's hook point at some rows of a run of the contrast input."""
        contrast = self.setting.contrast
        if contrast is None:
            raise InterventionError(
                "there is no contrast input to take an edge's values from; set session.contrast."
            )
        check_contrast_edge(Site("edge", ends=(source, end)), rows, len(contrast))
        self.needs.add("values")
        hook = self.setting.anatomy.alias(source)
        other = self._constant("other", f"values({list(contrast)}, {hook!r})")
        return f"{other}[{_rows(rows)}]"

    def _need_reference(self, source: Site) -> None:
        if not self.setting.reference:
            raise InterventionError(
                f"cutting {source.address} to its mean needs a reference set, and the session has "
                "none; give one, or cut to zero."
            )

    def _written(self, source: Site, x: str) -> str:
        """What a source adds to the residual stream, from the tensor at its hook point."""
        if source.kind in {"mlp", "embed"}:
            return x
        self.needs.add("matrix")
        index, d_head = source.index or 0, self.setting.anatomy.d_head
        if source.kind == "neuron":
            W = f"matrix(model.{_path(f'blocks.{source.layer}.mlp.out')})"
            return f"{x}[..., {index}, None] * {W}[{index}]"
        W = f"matrix(model.{_path(f'blocks.{source.layer}.attn.o')})"
        return f"{x}[..., {index}, :] @ {W}[{index * d_head}:{(index + 1) * d_head}]"


# ------------------------------------------------------------------------------ pieces of text

_VALUES = """
def values(ids, name):
    # The values at one hook point in a run of other tokens: [pos, ...].
    found = []
    keep = lambda x, hook: found.append(x.clone())
    model.run_with_hooks(torch.tensor([ids], device=device), fwd_hooks=[(name, keep)])
    return found[0][0]
"""

_THROUGH_A_HOOK_POINT = """
# This model's own attention shows no pattern: let it be computed by a function that passes it
# through the hook point.
def attention(module, query, key, value, attention_mask, scaling=None, softcap=None, **kwargs):
    shared = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(shared, dim=1).transpose(-1, -2)
    scores = scores * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    if attention_mask is not None:
        scores = scores + attention_mask
    pattern = hook_point_of[module](scores.softmax(-1, dtype=torch.float32).to(query.dtype))
    read = pattern @ value.repeat_interleave(shared, dim=1)
    return read.transpose(1, 2).contiguous(), None


from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import eager_mask

hook_point_of = {
    part: block.attn.hook_pattern
    for block in model.blocks
    for part in block.attn.original_component.modules()
}
AttentionInterface.register("through_a_hook_point", attention)
AttentionMaskInterface.register("through_a_hook_point", eager_mask)
model.original_model.config._attn_implementation = "through_a_hook_point"
"""

_MEAN = """
def mean(name):
    # Over the reference texts, without position 0.
    each = [values(ids, name) for ids in reference]
    inner = [x[1:] if len(x) > 1 else x for x in each]
    return torch.cat(inner).double().mean(0).float()
"""

_RESAMPLE = """
def resample(name, seed):
    # The value at one random position of the reference texts.
    places = [(i, p) for i, ids in enumerate(reference) for p in range(1, len(ids))]
    generator = torch.Generator().manual_seed(seed)
    i, p = places[int(torch.randint(len(places), (1,), generator=generator))]
    return values(reference[i], name)[p]
"""

_MATRIX = """
def matrix(module):
    # Weights as [in, out]: Conv1D keeps them so, Linear the other way round.
    weight = module.original_component.weight
    return weight if type(module.original_component).__name__ == "Conv1D" else weight.T
"""


def _taken_away(cells: Sequence[tuple[Site, list[int], list[int]]], n: int, how: str) -> list[str]:
    """Cells of a pattern that are masked, and the rest of their rows renormalised or not."""
    lines = ["gone = torch.zeros(x.shape[1:], dtype=torch.bool, device=x.device)"]
    for site, rows, columns in cells:
        across = ":" if len(columns) == n else _rows(columns)
        lines.append(f"gone[{site.index}, {_rows(rows)}, {across}] = True  # {site}")
    lines.append("left = x.masked_fill(gone, 0.0)")
    if how == "zero":
        return [*lines, "return left"]
    return [
        *lines,
        "total = left.sum(-1, keepdim=True)",
        "left = left / torch.where(total > 0, total, 1.0)  # spread it",
        "return torch.where(gone.any(-1, keepdim=True), left, x)",
    ]


def _title(intervention: Intervention, site: Site, indices: list[int]) -> str:
    """The address and what is done to it, for a comment."""
    where = str(site)
    if len(indices) > 1:
        letter = "N" if site.kind == "neuron" else "H"
        part = "" if site.part in {"post", "z"} else f":{site.part}"
        at = "" if site.positions.is_default else f"@{site.positions}"
        which = _span(indices)
        named = f"[{which}]" if which else "{" + ",".join(str(index) for index in indices) + "}"
        where = f"L{site.layer}.{letter}{named}{part}{at}"
    match intervention:
        case Clamp(value=float(value)):
            what = f"set to {value:g}"
        case Clamp():
            what = "set to a vector"
        case Scale(factor=factor):
            what = f"times {factor:g}"
        case Add(amount=float(amount)):
            what = f"plus {amount:g}" + ("" if intervention.direction is None else " x direction")
        case Add():
            what = "plus an amount for each position"
        case Ablate(how=how):
            what = {"mean": "set to its mean", "zero": "set to zero"}.get(how, "resampled")
            what += "" if intervention.direction is None else " along a direction"
        case Patch(source="contrast"):
            what = "from the contrast input"
        case _:
            what = "from another run"
    return _comment(f"{where}: {what}")


def _comment(text: str) -> str:
    """Text that stays within one comment line."""
    return textwrap.shorten(repr(text)[1:-1], 90, placeholder=" ...")


def _path(path: str) -> str:
    """`blocks.3.attn.o` as Python says it: `blocks[3].attn.o`."""
    parts = path.split(".")
    return "".join(f"[{part}]" if part.isdecimal() else f".{part}" for part in parts)[1:]


def _span(numbers: Sequence[int]) -> str | None:
    """Consecutive numbers as a slice."""
    low, high = numbers[0], numbers[-1]
    return f"{low}:{high + 1}" if list(numbers) == list(range(low, high + 1)) else None


def _rows(rows: Sequence[int]) -> str:
    return _span(rows) or str(list(rows))


def _index(indices: Sequence[int]) -> str:
    if len(indices) == 1:
        return str(indices[0])
    return _span(indices) or str(list(indices))


def _rows_beside(rows: Sequence[int], indices: Sequence[int]) -> str:
    """Rows that stand beside `indices` in one index; two lists would be paired one by one."""
    if _span(rows) or len(indices) < 2 or _span(indices):
        return _rows(rows)
    return f"torch.tensor({list(rows)})[:, None]"


def _tensor(value: float | Numbers) -> str:
    return repr(value) if isinstance(value, float) else f"torch.tensor({list(value)}).to(x)"


def _wrap(line: str, width: int = 96) -> list[str]:
    return textwrap.wrap(line, width, break_long_words=False) or [line]


def _listing(name: str, value: str, comment: str) -> list[str]:
    """An assignment, over several lines when it is long."""
    if len(line := f"{name} = {value}{comment}") <= 100:
        return [line]
    start, _, rest = value.partition("(")
    body, end = rest.rsplit("]", 1)
    return [
        f"{name} = {start}({comment}",
        *[f"    {part}" for part in _wrap(f"{body}]{end[:-1]}")],
        ")",
    ]
