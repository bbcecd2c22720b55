"""Addresses print as they are read, say what is wrong with themselves, and form sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchclamp.errors import AddressError
from patchclamp.sites import (
    COMPONENTS,
    HEAD_PARTS,
    NEURON_PARTS,
    Positions,
    Site,
    SiteSet,
    Span,
    parse_site,
)

if TYPE_CHECKING:
    from patchclamp.sites import End, PositionItem


@dataclass(frozen=True)
class Sizes:
    n_layers: int = 6
    n_heads: int = 4

    def n_neurons(self, layer: int) -> int:
        return 10 + layer


SIZES = Sizes()

small = st.integers(0, 5)
names = st.text(
    st.characters(exclude_characters="[]\n\r", exclude_categories=["Cs", "Cc"]), min_size=1
).filter(lambda name: bool(name.strip()) and name == name.strip())
spans = st.builds(Span, st.none() | st.integers(-9, 9), st.none() | st.integers(-9, 9))
items: st.SearchStrategy[PositionItem] = st.one_of(
    st.integers(-9, 9), spans, st.just("all"), st.just("new")
)
positions = st.lists(items, max_size=4).map(lambda found: Positions(tuple(found)))

neurons = st.builds(
    lambda layer, i, part, at: Site("neuron", layer, i, part, positions=at),
    small,
    st.integers(0, 9),
    st.sampled_from(NEURON_PARTS),
    positions,
)
heads = st.builds(
    lambda layer, i, part, at: Site("head", layer, i, part, positions=at),
    small,
    st.integers(0, 3),
    st.sampled_from(HEAD_PARTS),
    positions,
)
components = st.builds(
    lambda kind, layer, at: Site(kind, layer, positions=at),
    st.sampled_from(COMPONENTS),
    small,
    positions,
)
ends: st.SearchStrategy[End] = (
    st.none()
    | st.integers(-9, 9)
    | st.tuples(st.integers(-9, 8), st.integers(-8, 9)).filter(
        lambda pair: (pair[0] < 0) != (pair[1] < 0) or pair[0] < pair[1]
    )
)
cells = st.builds(
    lambda layer, i, cell: Site("cell", layer, i, cell=cell), small, small, st.tuples(ends, ends)
)
sources = st.one_of(
    small.map(lambda layer: Site("mlp", layer)),
    st.just(Site("embed")),
    st.builds(lambda layer, i: Site("head", layer, i, "z"), small, small),
    st.builds(lambda layer, i: Site("neuron", layer, i, "post"), small, small),
)
destinations = st.one_of(
    small.map(lambda layer: Site("mlp", layer)),
    st.just(Site("logits")),
    st.builds(
        lambda layer, i, part: Site("head", layer, i, part), small, small, st.sampled_from("qkv")
    ),
)
edges = st.builds(
    lambda source, end, at: Site("edge", ends=(source, end), positions=at),
    sources,
    destinations,
    positions,
)
directions = st.builds(
    lambda layer, component, name, at: Site(
        "direction", layer, name=name, component=component, positions=at
    ),
    small,
    st.sampled_from(COMPONENTS),
    names,
    positions,
) | st.builds(lambda name: Site("direction", name=name, component="embed"), names)
features = st.builds(
    lambda layer, basis, i: Site("feature", layer, i, name=basis),
    small,
    st.sampled_from(["snmf", "sae_16k"]),
    small,
)
paths = st.sampled_from(["_blocks.7", "features.0.conv", "fc"])
channels = st.builds(
    lambda path, i, at: Site("module", index=i, name=path, positions=at), paths, small, positions
)
variables = st.builds(
    lambda name, i: Site("variable", index=i, name=name), st.sampled_from(["h", "ca3.cue"]), small
)
sites = st.one_of(
    neurons,
    heads,
    components,
    cells,
    edges,
    directions,
    features,
    channels,
    variables,
    positions.map(lambda at: Site("embed", positions=at)),
)


def ranges(largest: int) -> st.SearchStrategy[str]:
    bounds = st.tuples(st.integers(0, largest - 1), st.integers(1, largest)).filter(
        lambda pair: pair[0] < pair[1]
    )
    sliced = bounds.map(lambda pair: f"[{pair[0]}:{pair[1]}]")
    return st.one_of(st.just("*"), sliced, st.integers(0, largest - 1).map(str))


patterns = st.builds(
    lambda layers, unit, at: SiteSet.parse(f"L{layers}.{unit}").at(at),
    ranges(6),
    ranges(10).map(lambda r: f"N{r}") | ranges(4).map(lambda r: f"H{r}:q") | st.just("mlp"),
    positions,
)
cell_patterns = st.builds(
    lambda layers, heads, cell: SiteSet.parse(f"L{layers}.H{heads}{cell.address[len('L0.H0') :]}"),
    ranges(6),
    ranges(4),
    st.tuples(ends, ends).map(lambda cell: Site("cell", 0, 0, cell=cell)),
).filter(lambda found: found.pattern is not None)
lists = st.lists(neurons | heads | components | cells | edges | directions, max_size=4).map(
    lambda found: SiteSet.of(*found)
)
sets = st.recursive(
    patterns | cell_patterns | lists,
    lambda inner: st.builds(
        lambda a, operation, b: {"|": a | b, "-": a - b, "&": a & b}[operation],
        inner,
        st.sampled_from("|-&"),
        inner,
    ),
    max_leaves=5,
)


@given(sites)
def test_a_site_reads_back_as_it_prints(site: Site) -> None:
    assert Site.parse(str(site)) == site


def test_cells_may_be_ranges_and_sets() -> None:
    several = Site.parse("L5.H3[ 7:9 <- 2:5 ]")
    assert str(several) == "L5.H3[7:9<-2:5]"
    assert several.cell == ((7, 9), (2, 5))
    assert Site.parse("L5.H3[*<-2:5]").cell == (None, (2, 5))
    assert Site.parse("L5.H3[7:8<-2]") == Site.parse("L5.H3[7<-2]")
    heads = SiteSet.parse("L[1:3].H*[-2:-1<-0:4]")
    assert heads.expand(SIZES) == [
        Site("cell", layer, head, cell=(-2, (0, 4))) for layer in (1, 2) for head in range(4)
    ]
    both = "L[1:3].H*[7<-2:4] - {L1.H0[7<-2:4]}"
    assert str(SiteSet.parse(both)) == both
    assert len(SiteSet.parse(both).expand(SIZES)) == 7


@given(sets)
def test_a_set_reads_back_as_it_prints(chosen: SiteSet) -> None:
    again = SiteSet.parse(str(chosen))
    assert str(again) == str(chosen)
    assert again.expand(SIZES) == chosen.expand(SIZES)


@given(sets, sets)
def test_set_operations_are_those_of_sets(a: SiteSet, b: SiteSet) -> None:
    left, right = set(a.expand(SIZES)), set(b.expand(SIZES))
    assert set((a | b).expand(SIZES)) == left | right
    assert set((a - b).expand(SIZES)) == left - right
    assert set((a & b).expand(SIZES)) == left & right


@given(sets)
def test_members_come_once_and_are_counted_by_layer(chosen: SiteSet) -> None:
    members = chosen.expand(SIZES)
    assert len(members) == len(set(members))
    counts = chosen.counts_by_layer(SIZES)
    assert sum(counts.values()) == sum(site.layer is not None for site in members)
    assert {site.kind for site in members} <= chosen.kinds


@given(
    st.text(max_size=40) | st.text(alphabet="LNHqkv0123456789.:@[]{}()<->|& *,mlp_", max_size=30)
)
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    try:
        site = parse_site(text)
    except AddressError as error:
        assert str(error).endswith((".", "?"))  # noqa: PT017 (either outcome is right)
    else:
        assert str(parse_site(str(site))) == str(site)


@given(positions, st.integers(0, 8), st.integers(0, 8), st.integers(1, 9), st.booleans())
def test_positions_are_those_of_python_indexing(
    where: Positions, start: int, count: int, prompt: int, has_bos: bool
) -> None:
    meant: set[int] = set()
    for item in where.items or ("default",):
        if item == "default":
            meant |= set(range(int(has_bos), prompt)) | set(range(prompt, 30))
        elif item == "all":
            meant |= set(range(30))
        elif item == "new":
            meant |= set(range(prompt, 30))
        elif isinstance(item, Span):
            meant |= set(range(prompt)[slice(item.start, item.stop)])
        elif -prompt <= item < prompt:
            meant.add(range(prompt)[item])
    stop = start + count
    assert where.mask(start, stop, prompt, has_bos) == [p in meant for p in range(start, stop)]
    assert where.indices(start, stop, prompt, has_bos) == sorted(meant & set(range(start, stop)))
    in_prompt = sorted(p for p in meant if p < prompt)
    assert where.first(prompt, has_bos) == (in_prompt[0] if in_prompt else None)


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("L12.N304:post", "L12.N304"),
        ("L5.H3:z@ -1", "L5.H3@-1"),
        (" L7.mlp ", "L7.mlp"),
        ("L5.H3[ 7 <- 2 ]", "L5.H3[7<-2]"),
        ("L1.N2@3,1,3,-1", "L1.N2@1,3,-1"),
        ("L1.N2@1,all", "L1.N2@all"),
        ("L1.N2@new,-1", "L1.N2@-1,new"),
        ("{L3.N5@1,3, L3.N9}", "{L3.N5@1,3, L3.N9}"),
        ("{L3.N5, L3.N9}@-1", "{L3.N5@-1, L3.N9@-1}"),
        ("L[3:4].N*", "L3.N*"),
        ("L[3:4].mlp", "L[3:4].mlp"),
        ("(L1.N* | L2.N*) - {L1.N3}", "(L1.N* | L2.N*) - {L1.N3}"),
        ("(L1.N*) | (L2.N* - L2.N3)", "L1.N* | L2.N* - {L2.N3}"),
        ("L2.resid_post[a - b | {c}]@-1", "L2.resid_post[a - b | {c}]@-1"),
    ],
)
def test_canonical_form(written: str, canonical: str) -> None:
    assert str(parse_site(written)) == canonical


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "an empty text is no address"),
        ("L12.n304", "Did you mean L12.N304?"),
        ("l12.N304", "Did you mean L12.N304?"),
        ("12.N304", "Did you mean L12.N304?"),
        ("L12.resid_pots", "Did you mean L12.resid_post?"),
        ("embedd", "Did you mean embed?"),
        ("L12.N304:gte", "Did you mean :gate?"),
        ("L12", "write one such as L12.N304"),
        ("L12.N304@", "write @-1, or no @"),
        ("L12.N304@first", "'first' is not a position"),
        ("L3.H1->L7.H2", "say which: L7.H2:q, L7.H2:k or L7.H2:v"),
        ("L3.attn->L7.mlp", "cannot be the source of an edge"),
        ("L3.H1->L7.N2", "cannot be the destination of an edge"),
        ("L5.H3[7<-2]@-1", "says its positions in its brackets"),
        ("L12.resid_post[]", "names no direction"),
        ("L[5:5].N*", "is an empty range"),
        ("L5.H3[5:5<-2]", "is an empty range"),
        ("L5.H3[-2:-2<-2]", "is an empty range"),
        ("L5.H3[7:<-2]", "a head with [destination<-source]"),
        ("L5.H*[7-2]", "is not an address"),
        ("L[3:9].H*[7<-2]@3", "says its positions in its brackets"),
        ("(L3.N*", "opens a ( that is not closed"),
        ("{L3.N*}", "braces list single ones"),
        ("{L3.N1,,L3.N2}", "empty place between its commas"),
        ("L3.N1 | L3.N2 L3.N4", "is not an address"),
        ("L3.N" + "9" * 30, "larger than any index of a model"),
        ("L3.N1 | " * 5000, "too long"),
        ("(" * 3000 + "L3.N1" + ")" * 3000, "too deep"),
    ],
)
def test_what_is_wrong_is_said_and_what_would_be_right(text: str, sentence: str) -> None:
    with pytest.raises(AddressError) as error:
        parse_site(text)
    assert sentence in str(error.value)


def test_what_is_no_text_is_no_address() -> None:
    with pytest.raises(AddressError, match="not int"):
        parse_site(5)  # type: ignore[arg-type]


def test_one_site_is_asked_for_and_a_set_is_given() -> None:
    with pytest.raises(AddressError, match="one site is needed"):
        Site.parse("L3.N*")


def test_positions_out_of_range_say_which_there_are() -> None:
    with pytest.raises(AddressError, match="has 5 tokens, positions 0 to 4"):
        Positions.parse("7").check(5)
    with pytest.raises(AddressError, match="select nothing"):
        Positions.parse("5:9").check(5)
    Positions.parse("-5,4,0:9").check(5)


@given(st.integers(0, 2**40), st.lists(neurons | heads, min_size=1, max_size=6))
def test_a_random_set_matches_counts_and_avoids_what_it_must(seed: int, chosen: list[Site]) -> None:
    treated = SiteSet.of(*chosen)
    massive = [Site("neuron", layer, 7, "post") for layer in range(6)]
    try:
        control = treated.random(seed, SIZES, massive)
    except AddressError as error:
        assert "left to draw from" in str(error)  # noqa: PT017
        return
    assert control == treated.random(seed, SIZES, massive)
    assert control.counts_by_layer(SIZES) == treated.counts_by_layer(SIZES)
    drawn = {(site.kind, site.layer, site.index) for site in control.expand(SIZES)}
    assert not drawn & {(site.kind, site.layer, site.index) for site in [*chosen, *massive]}


def test_different_seeds_draw_different_controls() -> None:
    treated = SiteSet.parse("L[0:6].N[0:3]")
    drawn = {str(treated.random(seed, SIZES)) for seed in range(5)}
    assert len(drawn) == 5


def test_only_neurons_and_heads_have_random_controls() -> None:
    with pytest.raises(AddressError, match=r"L1\.mlp has no random counterpart"):
        SiteSet.parse("{L1.mlp}").random(0, SIZES)


def test_ranges_past_the_model_are_refused() -> None:
    with pytest.raises(AddressError, match="neuron 99 does not exist; the last is 9"):
        SiteSet.parse("L0.N[0:100]").expand(SIZES)
    with pytest.raises(AddressError, match="layer 8 does not exist; the last is 5"):
        SiteSet.parse("L[0:9].N0").expand(SIZES)
