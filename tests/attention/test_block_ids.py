"""Blocks that follow the input: `block_ids` of `mlr_attention`, runs of tokens and tokens that lie apart."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mlbtc.attention import choose_backend, mlr_attention
from mlbtc.attention.kernels import native
from mlbtc.attention.kernels.blocks import block_bounds
from mlbtc.attention.kernels.native import generate_kernels
from mlbtc.errors import BackendError, SpecError
from tests.attention.cases import LAYOUTS, LONG, Layout, draw, gradients
from tests.attention.option_cases import EVERY, call, compare, dense, draw_options
from tests.attention.oracle import PLAIN, Options

CAUSAL = pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
BACKEND = pytest.mark.parametrize("backend", ["cpp", "reference", "auto"])


class Cut(NamedTuple):
    """How sequences are cut: how often a block of the last level ends, and how often it ends those above."""

    fine: float
    coarse: float = 0.5
    same: bool = False
    """Whether all sequences are cut alike, with ids of shape (Tk,)."""


CUTS = {
    "ragged-paragraphs": Cut(0.1),
    "ragged-documents": Cut(0.02, 0.3),
    "singletons": Cut(1.0, 0.2),
    "one-block": Cut(0.0),
    "one-cut-for-all": Cut(0.05, 0.4, same=True),
}


def draw_ids(layout: Layout, cut: Cut, seed: int = 0, *, apart: bool = False) -> list[Tensor]:
    """Return nested ids of every level, numbered at random; `apart` scatters the tokens of a block."""
    random = np.random.default_rng(seed)
    batch, tokens = (1 if cut.same else layout.batch), layout.tokens
    ends, levels = random.random((batch, tokens)) < cut.fine, []
    order = np.argsort(random.random((batch, tokens)), axis=1) if apart else np.tile(np.arange(tokens), (batch, 1))
    for _ in layout.ranks:
        names = random.permutation(3 * tokens + 1) - tokens
        levels.insert(0, torch.from_numpy(np.take_along_axis(names[ends.cumsum(1)], order, 1)))
        ends = ends & (random.random((batch, tokens)) < cut.coarse)
    return [ids[0] if cut.same else ids for ids in levels]


def check(
    layout: Layout, ids: list[Any], causal: bool, options: Options = PLAIN, dtype: torch.dtype = torch.float64,
    **more: Any,
) -> None:  # fmt: skip
    """Compare output and gradients with those of T x T masks."""
    compare(
        layout, options, lambda twins: dense(twins, layout, causal, options, ids), dtype, causal=causal, block_ids=ids,
        **more,
    )  # fmt: skip


def largest_allocation(layout: Layout, ids: list[Any], backend: str, causal: bool) -> int:
    """Return the bytes of the largest tensor that forward and backward make."""
    inputs = draw(layout, torch.float32)
    with torch.profiler.profile(profile_memory=True) as profile:
        output = mlr_attention(*inputs, layout.ranks, block_ids=ids, causal=causal, backend=backend)
        output.sum().backward()
    return max(event.self_cpu_memory_usage for event in profile.events())


# Forward and every gradient


@CAUSAL
@BACKEND
@pytest.mark.parametrize("cut", CUTS.values(), ids=CUTS.keys())
def test_equals_the_definition(cut: Cut, backend: str, causal: bool) -> None:
    layout = Layout(150, [3, 2, 2], [None] * 3, value=5, batch=2, heads=2, key_heads=1)
    check(layout, draw_ids(layout, cut), causal, backend=backend)


@st.composite
def layouts(draw_: st.DrawFn) -> Layout:
    """Draw sequences around the lengths of strips and tiles, grouped heads, ranks and widths around a vector."""
    ranks = draw_(st.lists(st.integers(1, 11), min_size=1, max_size=4))
    key_heads = draw_(st.integers(1, 2))
    return Layout(
        draw_(st.integers(1, 300)), ranks, [None] * len(ranks), draw_(st.integers(1, 19)), draw_(st.integers(1, 3)),
        key_heads * draw_(st.integers(1, 2)), key_heads,
    )  # fmt: skip


CUT = st.builds(Cut, st.sampled_from([0, 0.01, 0.03, 0.1, 0.4, 1]), st.floats(0, 1), st.booleans())
KIND = st.sets(st.sampled_from(EVERY)).map(tuple)
DTYPE = st.sampled_from([torch.float64, torch.float32, torch.bfloat16])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    layout=layouts(), cut=CUT, kind=KIND, causal=st.booleans(), seed=st.integers(0, 99), part=st.floats(0, 1),
    dtype=DTYPE,
)  # fmt: skip
def test_any_runs_in_cpp(
    layout: Layout, cut: Cut, kind: tuple[str, ...], causal: bool, seed: int, part: float, dtype: torch.dtype
) -> None:
    options, ids = draw_options(layout, kind, seed), draw_ids(layout, cut, seed)
    queries = max(1, round(part * layout.tokens))
    check(layout, ids, causal, options, dtype, queries=queries, seed=seed, backend="cpp")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(layout=layouts(), cut=CUT, kind=KIND, causal=st.booleans(), seed=st.integers(0, 99), dtype=DTYPE)
def test_any_ids_in_auto(
    layout: Layout, cut: Cut, kind: tuple[str, ...], causal: bool, seed: int, dtype: torch.dtype
) -> None:
    options, ids = draw_options(layout, kind, seed), draw_ids(layout, cut, seed, apart=True)
    check(layout, ids, causal, options, dtype, seed=seed, backend="auto")


@pytest.mark.parametrize("kind", [(), ("lengths",), ("mask",), ("lengths", "mask")], ids=str)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_tokens_that_lie_apart_are_sorted_for_cpp(dtype: torch.dtype, kind: tuple[str, ...]) -> None:
    layout = Layout(140, [3, 2], [None] * 2, value=5, batch=3, heads=4, key_heads=2)
    ids = draw_ids(layout, CUTS["ragged-paragraphs"], apart=True)
    check(layout, ids, False, draw_options(layout, kind), dtype, backend="cpp")


@CAUSAL
@pytest.mark.parametrize("backend", ["cpp", "reference"])
@pytest.mark.parametrize("name", [*LAYOUTS, *LONG])
def test_ids_of_equal_sizes_are_block_sizes(name: str, backend: str, causal: bool) -> None:
    layout = (LAYOUTS | LONG)[name]
    inputs = draw(layout)
    positions = torch.arange(layout.tokens)
    ids: list[Any] = [positions // (size or layout.tokens) for size in layout.blocks]
    ids[0] = layout.blocks[0]
    ids = ids if len(ids) > 1 else [positions // (layout.blocks[0] or layout.tokens)]
    found = mlr_attention(*inputs, layout.ranks, block_ids=ids, causal=causal, backend=backend)
    expected = mlr_attention(*inputs, layout.ranks, layout.blocks, causal=causal, backend=backend)
    for result, wanted in zip(
        (found, *gradients(found, inputs)), (expected, *gradients(expected, inputs)), strict=True
    ):
        torch.testing.assert_close(result, wanted, rtol=1e-12, atol=1e-12)


@BACKEND
@CAUSAL
def test_sizes_and_ids_on_different_levels(causal: bool, backend: str) -> None:
    layout = Layout(100, [2, 1, 2, 1], [None] * 4, batch=2)
    paragraphs = torch.cat([start + torch.tensor([0] * 7 + [1] * 24 + [2]) for start in (0, 3, 6, 9)])[:100]
    check(layout, [None, 64, 32, paragraphs], causal, backend=backend)


@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.uint8], ids=str)
def test_ids_of_other_integers(dtype: torch.dtype) -> None:
    layout = Layout(9, [2, 1], [None] * 2)
    check(layout, [None, torch.tensor([0, 0, 1, 1, 1, 7, 7, 9, 9], dtype=dtype)], True, backend="cpp")


def test_sizes_alone_may_come_as_block_ids() -> None:
    layout = LAYOUTS["prime-tokens"]
    inputs = draw(layout)
    found = mlr_attention(*inputs, layout.ranks, block_ids=layout.blocks)
    assert torch.equal(found, mlr_attention(*inputs, layout.ranks, layout.blocks))


@BACKEND
@CAUSAL
def test_ids_of_padding_do_not_matter(causal: bool, backend: str) -> None:
    layout = Layout(70, [3, 2], [None] * 2, value=4, batch=3)
    ids = draw_ids(layout, CUTS["ragged-paragraphs"])
    inputs, lengths = draw(layout), torch.tensor([70, 0, 33])
    spoiled = [own.masked_fill(torch.arange(70) >= lengths[:, None], 5 - level) for level, own in enumerate(ids)]
    calls = [
        mlr_attention(*inputs, [3, 2], block_ids=own, key_lengths=lengths, causal=causal, backend=backend)
        for own in (ids, spoiled)
    ]
    assert torch.equal(*calls)


@pytest.mark.parametrize("tokens", [0, 1])
@pytest.mark.parametrize("batch", [0, 2])
@BACKEND
def test_few_tokens(backend: str, batch: int, tokens: int) -> None:
    layout = Layout(tokens, [2, 1], [None] * 2, batch=batch)
    inputs = draw(layout)
    ids = [None, torch.zeros(batch, tokens, dtype=torch.int64)]
    found = mlr_attention(*inputs, [2, 1], block_ids=ids, backend=backend)
    torch.testing.assert_close(found, inputs[2])


@pytest.mark.parametrize("apart", [False, True], ids=["runs", "apart"])
@pytest.mark.parametrize("backend", ["cpp", "reference"])
def test_first_and_second_derivatives(backend: str, apart: bool) -> None:
    layout = Layout(5, [2, 1], [None] * 2, value=2, batch=2, heads=2, key_heads=1)
    ids = [None, draw_ids(layout, Cut(0.5), apart=apart)[1]]

    def function(*inputs: Tensor) -> Tensor:
        return mlr_attention(*inputs, layout.ranks, block_ids=ids, causal=not apart, backend=backend)

    inputs = tuple(draw(layout))
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("apart", [False, True], ids=["runs", "apart"])
def test_memory_is_linear_in_the_tokens(apart: bool) -> None:
    layout = Layout(2048, [2, 2], [None] * 2, heads=1, key_heads=1)
    ids = draw_ids(layout, CUTS["ragged-documents"], apart=apart)
    assert largest_allocation(layout, ids, "cpp", causal=not apart) < 64 * layout.tokens
    assert largest_allocation(layout, ids, "reference", causal=not apart) >= layout.tokens**2


def test_bounds_by_hand() -> None:
    starts, stops = block_bounds(torch.tensor([[4, 4, 1, 7, 7, 7]]))
    assert starts.tolist() == [[0, 0, 2, 3, 3, 3]]
    assert stops.tolist() == [[2, 2, 3, 6, 6, 6]]


# Tracers


@CAUSAL
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_torch_compile_gives_one_graph(backend: str, causal: bool) -> None:
    layout = Layout(40, [2, 2], [None] * 2, batch=2)
    inputs = draw(layout, torch.float32)
    ids = draw_ids(layout, CUTS["ragged-paragraphs"], apart=not causal)
    lengths = torch.tensor([40, 23])

    def function(query: Tensor, key: Tensor, value: Tensor, fine: Tensor) -> Tensor:
        blocks = [None, fine]
        options: dict[str, Any] = {"key_lengths": lengths, "causal": causal, "backend": backend}
        return mlr_attention(query, key, value, [2, 2], block_ids=blocks, **options) * 2

    expected = function(*inputs, ids[1])
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")(*inputs, ids[1])
    torch.testing.assert_close(compiled, expected)
    for grad, wanted in zip(gradients(compiled, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(grad, wanted)


def test_compiled_calls_check_ids_when_they_run() -> None:
    inputs = draw(Layout(4, [1, 1], [None] * 2), torch.float32)

    def function(coarse: Tensor, fine: Tensor) -> Tensor:
        return mlr_attention(*inputs, [1, 1], block_ids=[coarse, fine])

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    with pytest.raises(BackendError, match="next to each other"):
        compiled(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 1, 1, 0]))
    with pytest.raises(SpecError, match="nested"):
        compiled(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 2]))


def test_the_operator_keeps_the_rules_of_torch() -> None:
    layout = Layout(20, [2, 2], [None] * 2, batch=2)
    ids = torch.stack(draw_ids(layout, CUTS["ragged-paragraphs"]), 1)
    arguments = (*draw(layout), [0.5, 0.5], [2, 2], [20, 20], True, None, None, None, 0.0, None, ids)
    torch.library.opcheck(torch.ops.mlbtc.mlr_attention.default, arguments)


# Backends and errors

FINE = torch.tensor([0, 0, 1, 1, 2, 2])
APART = torch.tensor([0, 1, 1, 0, 2, 2])
BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "both": ({"block_sizes": [None, 2]}, ["block_sizes or block_ids", "both"]),
    "neither": ({"block_ids": None}, ["neither"]),
    "not-a-list": ({"block_ids": FINE}, ["block_ids", "list", "Tensor"]),
    "too-few-levels": ({"block_ids": [FINE]}, ["2", "1"]),
    "tokens": ({"block_ids": [None, FINE[:5]]}, ["level 2", "(5,)", "(6,)"]),
    "batch": ({"block_ids": [FINE.expand(3, 6), None]}, ["level 1", "(3, 6)", "(1, 6)"]),
    "floats": ({"block_ids": [None, FINE.double()]}, ["level 2", "float64"]),
    "bools": ({"block_ids": [None, FINE > 0]}, ["level 2", "bool"]),
    "a-word": ({"block_ids": [FINE, "a"]}, ["level 2", "'a'"]),
    "size-of-zero": ({"block_ids": [0, FINE]}, ["level 1", "0"]),
    "not-nested": (
        {"block_ids": [torch.tensor([3, 3, 3, 5, 5, 5]), FINE]},
        ["sequence 0", "tokens 2 and 3", "block 1 of level 2", "3 and 5 of level 1"],
    ),
    "not-nested-apart": ({"block_ids": [APART, torch.tensor([0, 1, 1, 1, 2, 2])]}, ["tokens 2 and 3", "level 2"]),
    "finer-than-none": ({"block_ids": [FINE, None]}, ["level 2", "level 1", "tokens 1 and 2"]),
    "finer-than-a-size": ({"block_ids": [3, FINE]}, ["level 2", "tokens 2 and 3"]),
}


@pytest.mark.parametrize(("changes", "named"), BAD.values(), ids=BAD.keys())
def test_bad_ids(changes: dict[str, Any], named: list[str]) -> None:
    inputs = draw(Layout(6, [2, 1], [None] * 2))
    with pytest.raises(SpecError) as caught:
        mlr_attention(*inputs, [2, 1], **{"block_ids": [None, FINE], **changes})
    for word in named:
        assert word in str(caught.value)


def test_the_first_violation_is_named_with_its_sequence() -> None:
    coarse = torch.tensor([[0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1]])
    inputs = draw(Layout(6, [2, 1], [None] * 2, batch=3))
    with pytest.raises(SpecError, match="in sequence 1, tokens 2 and 3"):
        mlr_attention(*inputs, [2, 1], block_ids=[coarse, FINE])


@pytest.mark.parametrize("backend", ["strips", "expanded"])
def test_backends_for_one_size_name_the_others(backend: str) -> None:
    inputs = draw(Layout(6, [2, 1], [None] * 2))
    with pytest.raises(BackendError, match=rf"'{backend}'.*'cpp' or 'reference'"):
        mlr_attention(*inputs, [2, 1], block_ids=[None, FINE], backend=backend)


OBSTACLES: dict[str, tuple[dict[str, Any], str]] = {
    "causal": ({"causal": True}, "causal attention"),
    "alibi": ({"alibi": torch.ones(2)}, "alibi"),
    "dropout": ({"dropout": 0.1}, "dropout"),
}


@pytest.mark.parametrize(("options", "named"), OBSTACLES.values(), ids=OBSTACLES.keys())
def test_cpp_says_why_it_cannot_sort(options: dict[str, Any], named: str) -> None:
    inputs = draw(Layout(6, [2, 1], [None] * 2))
    with pytest.raises(BackendError, match=f"lie apart, and {named} forbids.*'reference'"):
        mlr_attention(*inputs, [2, 1], block_ids=[None, APART], backend="cpp", **{"causal": False, **options})


def test_cpp_cannot_sort_fewer_queries_than_keys() -> None:
    inputs = draw(Layout(6, [2, 1], [None] * 2), queries=4)
    with pytest.raises(BackendError, match="4 queries for 6 keys"):
        mlr_attention(*inputs, [2, 1], block_ids=[None, APART], backend="cpp", causal=False)


def test_what_is_chosen() -> None:
    sizes = (64, 64, [48, 16], [64, 64])
    assert choose_backend(*sizes, options=["block_ids"]).backend == "cpp"
    apart = choose_backend(*sizes, options=["block_ids"], scattered=True)
    assert apart.backend == "reference"
    assert "lie apart" in apart.reason
    assert choose_backend(*sizes, options=["block_ids"], device="meta").backend == "reference"


def test_without_a_compiler_the_reference_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_built", {})
    monkeypatch.setenv("CXX", "/nowhere/g++")
    layout = Layout(30, [2, 1], [None] * 2)
    ids = draw_ids(layout, CUTS["ragged-paragraphs"])
    check(layout, ids, True, backend="auto")
    with pytest.raises(BackendError, match=r"no C\+\+ compiler.*use 'reference'"):
        call(draw(layout), layout, PLAIN, block_ids=ids, backend="cpp")


def test_the_meta_device() -> None:
    inputs = [x.detach().to("meta") for x in draw(Layout(6, [2, 1], [None] * 2))]
    assert mlr_attention(*inputs, [2, 1], block_ids=[None, FINE]).shape == (1, 2, 6, 3)


# The source


@pytest.mark.parametrize("options", [False, True])
def test_kernels_for_sizes_have_nothing_of_runs(options: bool) -> None:
    plain, runs = (generate_kernels(torch.float32, options=options, runs=runs) for runs in (False, True))
    assert "p.starts" not in plain
    assert "p.starts" in runs
    assert max(map(len, runs.splitlines())) <= 120
