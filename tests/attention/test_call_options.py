"""Key lengths, key masks, ALiBi and dropout of `mlr_attention`, on every backend and together."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mlbtc.attention import choose_backend, mlr_attention
from mlbtc.attention.kernels import native
from mlbtc.attention.kernels.native import generate_kernels
from mlbtc.errors import BackendError, SpecError
from tests.attention.cases import LAYOUTS, LONG, Layout, draw, gradients
from tests.attention.option_cases import EVERY, call, compare, dense, draw_options
from tests.attention.oracle import PLAIN, Options, oracle, weight_hash

CAUSAL = pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
BACKEND = pytest.mark.parametrize("backend", ["cpp", "strips", "expanded", "reference"])
KINDS = {**{name: (name,) for name in EVERY}, "all": EVERY}
KIND = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())

SMALL = {
    "grouped-heads": Layout(7, [2, 1], [None, 3], value=4, batch=3, heads=2, key_heads=1),
    "blocks-of-three-and-six": Layout(8, [2, 1, 1], [None, 6, 3], value=2, batch=2, heads=2, key_heads=2),
    "first-block-below-sequence": Layout(9, [1, 2], [4, 2], value=3, batch=2, heads=1, key_heads=1),
}
EMPTY = {
    "no-batch": Layout(5, [2, 1], [None, 2], batch=0),
    "no-tokens": Layout(0, [2, 1], [None, 2]),
    "no-values": Layout(5, [2, 1], [None, 2], value=0),
}


def check(layout: Layout, backend: str, causal: bool, options: Options, **more: Any) -> None:
    """Compare with the loops over pairs."""
    compare(
        layout, options, lambda twins: oracle(*twins, layout.ranks, layout.blocks, causal, None, options),
        backend=backend, causal=causal, **more,
    )  # fmt: skip


def skip_what_is_refused(backend: str, kind: tuple[str, ...]) -> None:
    if backend == "expanded" and "dropout" in kind:
        pytest.skip("scaled_dot_product_attention cannot drop weights by the hash: an error, tested below")


# The oracle itself, by hand


def test_the_oracle_with_each_option_by_hand() -> None:
    ones, value = torch.ones(1, 1, 3, 1), torch.tensor([[[[1.0], [2.0], [4.0]]]])

    def rows(options: Options, causal: bool = True) -> list[float]:
        return oracle(ones, ones, value, [1], [None], causal, 1.0, options).flatten().tolist()

    assert rows(Options(lengths=[2])) == pytest.approx([1, 1.5, 0])
    assert rows(Options(lengths=[2]), causal=False) == pytest.approx([1.5, 1.5, 0])
    assert rows(Options(mask=[[False, True, True]])) == pytest.approx([0, 2, 3])
    assert rows(Options(slopes=[float(np.log(2))])) == pytest.approx([1, (2 + 0.5) / 1.5, (4 + 1 + 0.25) / 1.75])


def test_the_hash_of_scalars_and_of_arrays() -> None:
    # "lowbias32" of 1 is published with the hash; a seed above 32 bits and every argument count.
    places = np.arange(3, dtype=np.uint64)[:, None], np.arange(4, dtype=np.uint64)
    table = weight_hash(2**40 + 5, 1, 2, *places)
    assert table.tolist() == [[weight_hash(2**40 + 5, 1, 2, i, j) for j in range(4)] for i in range(3)]
    calls = [
        (5, 0, 0, 0, 0),
        (5 + 2**40, 0, 0, 0, 0),
        (5, 1, 0, 0, 0),
        (5, 0, 1, 0, 0),
        (5, 0, 0, 1, 0),
        (5, 0, 0, 0, 1),
    ]
    assert len({weight_hash(*arguments) for arguments in calls}) == len(calls)


@KIND
@CAUSAL
def test_dense_matrices_equal_the_definition(causal: bool, kind: tuple[str, ...]) -> None:
    layout = LAYOUTS["grouped-heads"]
    options = draw_options(layout, kind)
    inputs = draw(layout)
    expected = oracle(*inputs, layout.ranks, layout.blocks, causal, None, options)
    torch.testing.assert_close(dense(inputs, layout, causal, options), expected, rtol=1e-12, atol=1e-12)


# Forward and every gradient


@CAUSAL
@BACKEND
@KIND
@pytest.mark.parametrize("layout", SMALL.values(), ids=SMALL.keys())
def test_equals_the_definition(layout: Layout, kind: tuple[str, ...], backend: str, causal: bool) -> None:
    skip_what_is_refused(backend, kind)
    check(layout, backend, causal, draw_options(layout, kind))


@BACKEND
@KIND
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_other_dtypes(dtype: torch.dtype, kind: tuple[str, ...], backend: str) -> None:
    skip_what_is_refused(backend, kind)
    layout = SMALL["blocks-of-three-and-six"]
    check(layout, backend, True, draw_options(layout, kind), dtype=dtype)


@CAUSAL
@KIND
@pytest.mark.parametrize("backend", ["cpp", "reference", "auto"])
@pytest.mark.parametrize("queries", [1, 4])
def test_queries_are_the_last_positions(queries: int, backend: str, kind: tuple[str, ...], causal: bool) -> None:
    layout = SMALL["grouped-heads"]
    check(layout, backend, causal, draw_options(layout, kind), queries=queries)


@BACKEND
@KIND
@pytest.mark.parametrize("layout", EMPTY.values(), ids=EMPTY.keys())
def test_empty_tensors(layout: Layout, kind: tuple[str, ...], backend: str) -> None:
    skip_what_is_refused(backend, kind)
    inputs = draw(layout)
    found = call(inputs, layout, draw_options(layout, kind), backend=backend)
    assert found.shape == (layout.batch, layout.heads, layout.tokens, layout.value)
    grads = torch.autograd.grad(found.sum(), inputs, allow_unused=True)
    assert all(grad is None or torch.equal(grad, torch.zeros_like(x)) for grad, x in zip(grads, inputs, strict=True))


@KIND
def test_no_queries(kind: tuple[str, ...]) -> None:
    layout = SMALL["grouped-heads"]
    for backend in ("cpp", "reference", "auto"):
        found = call(draw(layout, queries=0), layout, draw_options(layout, kind), backend=backend)
        assert found.shape == (3, 2, 0, 4)


@st.composite
def layouts(draw_: st.DrawFn, longest: int, finest: int) -> Layout:
    """Draw any divisor chain of blocks, grouped heads, ranks and widths around a vector."""
    blocks: list[int | None] = [draw_(st.integers(1, finest))]
    for factor in draw_(st.lists(st.integers(1, 4), max_size=3)):
        blocks.insert(0, int(blocks[0] or 1) * factor)
    if draw_(st.booleans()):
        blocks[0] = None
    key_heads = draw_(st.integers(1, 2))
    return Layout(
        tokens=draw_(st.integers(1, longest)),
        ranks=[draw_(st.integers(1, 11)) for _ in blocks],
        blocks=blocks,
        value=draw_(st.integers(1, 19)),
        batch=draw_(st.integers(1, 2)),
        heads=key_heads * draw_(st.integers(1, 2)),
        key_heads=key_heads,
    )


KINDS_DRAWN = st.sets(st.sampled_from(EVERY)).map(tuple)


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    layout=layouts(longest=9, finest=5), kind=KINDS_DRAWN, causal=st.booleans(), seed=st.integers(0, 99),
    backend=st.sampled_from(["strips", "expanded", "reference", "auto"]),
)  # fmt: skip
def test_any_call_equals_the_definition(
    layout: Layout, kind: tuple[str, ...], causal: bool, seed: int, backend: str
) -> None:
    backend = "auto" if backend == "expanded" and "dropout" in kind else backend
    check(layout, backend, causal, draw_options(layout, kind, seed), seed=seed)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    layout=layouts(longest=420, finest=140), kind=KINDS_DRAWN, causal=st.booleans(), seed=st.integers(0, 99),
    part=st.floats(0, 1), dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
)  # fmt: skip
def test_any_long_call_of_cpp_equals_dense_matrices(
    layout: Layout, kind: tuple[str, ...], causal: bool, seed: int, part: float, dtype: torch.dtype
) -> None:
    options = draw_options(layout, kind, seed)
    compare(
        layout, options, lambda twins: dense(twins, layout, causal, options), dtype,
        max(1, round(part * layout.tokens)),
        seed, causal=causal, backend="cpp",
    )  # fmt: skip


@settings(max_examples=25, deadline=None, derandomize=True)
@given(layout=layouts(longest=420, finest=140), kind=KINDS_DRAWN, causal=st.booleans(), seed=st.integers(0, 99))
def test_any_long_call_of_strips_equals_dense_matrices(
    layout: Layout, kind: tuple[str, ...], causal: bool, seed: int
) -> None:
    options = draw_options(layout, kind, seed)
    compare(
        layout, options, lambda twins: dense(twins, layout, causal, options), seed=seed, causal=causal, backend="strips"
    )


@KIND
@pytest.mark.parametrize("backend", ["cpp", "strips", "reference"])
def test_first_and_second_derivatives(backend: str, kind: tuple[str, ...]) -> None:
    layout = Layout(4, [2, 1], [None, 2], value=2, batch=2, heads=2, key_heads=1)
    options = draw_options(layout, kind, seed=3)

    def function(*inputs: Tensor) -> Tensor:
        return call(list(inputs), layout, options, seed=3, backend=backend)

    inputs = tuple(draw(layout))
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(function, inputs, fast_mode=True)


# What is not seen does not matter


@CAUSAL
@BACKEND
@pytest.mark.parametrize("kind", [("lengths",), ("mask",), ("lengths", "mask")], ids=str)
def test_what_lies_where_nothing_sees_it_does_not_matter(kind: tuple[str, ...], backend: str, causal: bool) -> None:
    layout = Layout(70, [3, 2], [None, 10], value=4, batch=3)
    options = draw_options(layout, kind, seed=1)
    inputs = draw(layout)
    hidden = torch.tensor(
        [[not any(options.visible(b, i, j) for i in range(70)) for j in range(70)] for b in range(layout.batch)]
    )
    assert hidden.any()
    spoiled = [x.detach().clone() for x in inputs]
    for tensor in spoiled[1:]:
        tensor[hidden[:, None].expand(-1, layout.heads, -1)] = float("nan")
    spoiled = [x.requires_grad_() for x in spoiled]
    found = call(spoiled, layout, options, backend=backend, causal=causal)
    expected = call(inputs, layout, options, backend=backend, causal=causal)
    assert torch.equal(found, expected)
    for grad, want in zip(gradients(found, spoiled), gradients(expected, inputs), strict=True):
        assert torch.equal(grad, want)


@BACKEND
def test_rows_that_see_nothing_give_zero_and_pass_nothing(backend: str) -> None:
    layout = Layout(6, [2, 1], [None, 3])
    inputs = draw(layout)
    mask = torch.tensor([[False, False, True, True, False, True]])
    found = mlr_attention(*inputs, layout.ranks, layout.blocks, key_mask=mask, backend=backend)
    assert torch.equal(found[:, :, :2], torch.zeros_like(found[:, :, :2]))
    query_grad, key_grad, value_grad = gradients(found, inputs)
    assert torch.equal(query_grad[:, :, :2], torch.zeros_like(query_grad[:, :, :2]))
    assert all(torch.equal(x[:, :, ~mask[0]], torch.zeros_like(x[:, :, ~mask[0]])) for x in (key_grad, value_grad))
    nothing = mlr_attention(*inputs, layout.ranks, layout.blocks, key_mask=torch.zeros_like(mask), backend=backend)
    for tensor in (nothing, *gradients(nothing, inputs)):
        assert torch.equal(tensor, torch.zeros_like(tensor))


@CAUSAL
@BACKEND
def test_lengths_equal_shorter_sequences(backend: str, causal: bool) -> None:
    layout = Layout(90, [3, 2], [None, 32], value=5, batch=3)
    inputs, lengths = draw(layout), [90, 1, 67]
    found = mlr_attention(
        *inputs, layout.ranks, layout.blocks, key_lengths=torch.tensor(lengths), causal=causal, backend=backend
    )
    for b, length in enumerate(lengths):
        short = [x[b : b + 1, :, :length] for x in inputs]
        expected = mlr_attention(*short, layout.ranks, layout.blocks, causal=causal, backend=backend)
        torch.testing.assert_close(found[b : b + 1, :, :length], expected, rtol=1e-12, atol=1e-12)
        assert not found[b, :, length:].any()


# Dropout


def test_every_backend_drops_the_same_weights_and_a_seed_repeats_them() -> None:
    layout = LONG["fine-blocks-of-48"]
    inputs = draw(layout)
    options = Options(dropout=0.4)
    results = [call(inputs, layout, options, seed=7, backend=backend) for backend in ("cpp", "strips", "reference")]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-10, atol=1e-10)
    again, other = (call(inputs, layout, options, seed=seed, backend="cpp") for seed in (7, 8))
    assert torch.equal(again, results[0])
    assert not torch.allclose(other, results[0])


@pytest.mark.parametrize("backend", ["cpp", "strips", "reference"])
@pytest.mark.parametrize("dropout", [0.1, 0.5, 0.9])
def test_which_weights_are_dropped_looks_random(dropout: float, backend: str) -> None:
    tokens, batch, heads = 64, 2, 4
    query = torch.zeros(batch, heads, tokens, 1, dtype=torch.float64)
    # Equal weights and values that are unit vectors: the output is the matrix of factors, divided by the tokens.
    value = torch.eye(tokens, dtype=torch.float64).expand(batch, heads, -1, -1)
    torch.manual_seed(0)
    factors = tokens * mlr_attention(query, query, value, [1], [None], causal=False, dropout=dropout, backend=backend)
    assert torch.allclose(factors.unique(), torch.tensor([0, 1 / (1 - dropout)], dtype=torch.float64))
    kept = (factors > 0).double()
    deviation = (dropout * (1 - dropout)) ** 0.5
    assert abs(float(kept.mean()) - (1 - dropout)) < 4 * deviation / kept.numel() ** 0.5
    for axis in range(4):
        others = [number for number in range(4) if number != axis]
        spread = 4.5 * deviation / (kept.numel() / kept.shape[axis]) ** 0.5
        assert float((kept.mean(others) - (1 - dropout)).abs().max()) < spread
    noise = (kept - (1 - dropout)) / deviation
    for axis in range(4):
        for distance in (1, 2, 3, 16):
            if distance < noise.shape[axis]:
                last = noise.shape[axis] - distance
                products = noise.narrow(axis, 0, last) * noise.narrow(axis, distance, last)
                assert abs(float(products.mean())) < 4.5 / products.numel() ** 0.5
    assert abs(float((noise[..., :-1, :-1] * noise[..., 1:, 1:]).mean())) < 4.5 * (batch * heads * 63 * 63) ** -0.5


def test_the_mean_over_many_draws_is_attention_without_dropout() -> None:
    layout = LAYOUTS["prime-tokens"]
    inputs = [x.detach() for x in draw(layout)]
    many = [x.expand(2000, -1, -1, -1) for x in inputs]
    drawn = call(many, layout._replace(batch=2000), Options(dropout=0.2), backend="cpp")
    error = (drawn.mean(0) - call(inputs, layout, PLAIN, backend="cpp")[0]).abs() / drawn.std(0).clamp_min(1e-12)
    assert float(error.max()) < 4.5 / 2000**0.5


def test_dropout_belongs_to_positions() -> None:
    # The last queries alone meet the weights that they meet among all queries.
    layout = LAYOUTS["grouped-heads"]
    query, key, value = draw(layout)
    options = Options(dropout=0.5)
    whole = call([query, key, value], layout, options, backend="cpp")
    last = call([query[:, :, -3:], key, value], layout, options, backend="cpp")
    torch.testing.assert_close(last, whole[:, :, -3:], rtol=1e-12, atol=1e-12)


def test_without_dropout_no_random_numbers_are_drawn() -> None:
    layout = LAYOUTS["prime-tokens"]
    before = torch.get_rng_state()
    mlr_attention(*draw(layout), layout.ranks, layout.blocks, key_lengths=[5])
    assert torch.equal(torch.get_rng_state(), before)


# Tracers


def arguments_of(layout: Layout) -> dict[str, Any]:
    options = draw_options(layout, EVERY)
    return {
        "key_lengths": torch.tensor(options.lengths),
        "key_mask": torch.tensor(options.mask),
        "alibi": torch.tensor(options.slopes),
        "dropout": options.dropout,
    }


@pytest.mark.parametrize("backend", ["auto", "reference", "expanded"])
def test_torch_compile_gives_one_graph(backend: str) -> None:
    layout = LAYOUTS["grouped-heads"]
    inputs, arguments = draw(layout, torch.float32), arguments_of(layout)
    if backend == "expanded":
        arguments["dropout"] = 0.0

    def function(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return mlr_attention(query, key, value, [2, 2], [None, 4], backend=backend, **arguments) * 2

    torch.manual_seed(0)
    expected = function(*inputs)
    torch.manual_seed(0)
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")(*inputs)
    torch.testing.assert_close(compiled, expected)
    for grad, wanted in zip(gradients(compiled, inputs), gradients(expected, inputs), strict=True):
        torch.testing.assert_close(grad, wanted)


def test_torch_export_keeps_the_operator() -> None:
    layout = LAYOUTS["grouped-heads"]
    inputs, arguments = [x.detach() for x in draw(layout, torch.float32)], arguments_of(layout)
    arguments["dropout"] = 0.0

    class Module(torch.nn.Module):
        def forward(self, query: Tensor, key: Tensor, value: Tensor, lengths: Tensor) -> Tensor:
            return mlr_attention(query, key, value, [2, 2], [None, 4], **{**arguments, "key_lengths": lengths})

    lengths = arguments["key_lengths"]
    program = torch.export.export(Module(), (*inputs, lengths))
    assert "mlbtc.mlr_attention" in str(program.graph)
    expected = mlr_attention(*inputs, [2, 2], [None, 4], **arguments)
    assert torch.equal(program.module()(*inputs, lengths), expected)


def test_the_operators_keep_the_rules_of_torch() -> None:
    layout = LAYOUTS["grouped-heads"]
    options = draw_options(layout, EVERY)
    rest = (torch.tensor(options.lengths), torch.tensor(options.mask), torch.tensor(options.slopes).double())
    arguments = (*draw(layout), [0.5, 0.5], [2, 2], [12, 4], True, *rest, 0.3, torch.tensor(options.seed))
    torch.library.opcheck(torch.ops.mlbtc.mlr_attention.default, arguments)


def test_traced_lengths_that_are_too_large_stay_inside() -> None:
    layout = LAYOUTS["prime-tokens"]
    inputs = draw(layout)
    operator = torch.ops.mlbtc.mlr_attention
    levels = ([0.5, 0.5], [3, 2], [16, 4], True)
    found, _ = operator(*inputs, *levels, torch.tensor([10**9]))
    assert torch.equal(found, operator(*inputs, *levels)[0])


def test_flops_count_all_pairs_with_options_too() -> None:
    layout = LAYOUTS["grouped-heads"]
    counts = []
    for options in (PLAIN, draw_options(layout, EVERY)):
        inputs = draw(layout)
        with FlopCounterMode(display=False) as counter:
            torch.autograd.grad(call(inputs, layout, options, backend="cpp").sum(), inputs)
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


# Backends and errors


def test_expanded_names_the_backends_that_drop_weights() -> None:
    layout = LAYOUTS["prime-tokens"]
    with pytest.raises(BackendError, match=r"'expanded' cannot drop.*'cpp', 'strips' or 'reference'"):
        mlr_attention(*draw(layout), layout.ranks, layout.blocks, dropout=0.1, backend="expanded")


@KIND
def test_without_a_compiler_auto_finds_one_that_can(kind: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "_built", {})
    monkeypatch.setenv("CXX", "/nowhere/g++")
    layout = LAYOUTS["blocks-of-three-and-six"]
    options = draw_options(layout, kind)
    check(layout, "auto", True, options)
    with pytest.raises(BackendError, match=r"no C\+\+ compiler.*'strips'"):
        check(layout, "cpp", True, options)
    choice = choose_backend(20, 20, layout.ranks, [24, 6, 3], options=["dropout"])
    assert choice.backend == "strips"
    assert "hash" in choice.reason
    assert choose_backend(20, 20, layout.ranks, [24, 6, 3], options=["dropout"], traced=True).backend == "reference"
    assert choose_backend(2, 20, layout.ranks, [24, 6, 3], options=["dropout"]).backend == "reference"


def test_an_unknown_option_of_a_choice() -> None:
    with pytest.raises(SpecError, match=r"unknown option 'bias'.*key_lengths"):
        choose_backend(4, 4, [1], [4], options=["bias"])


BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "lengths-of-another-batch": ({"key_lengths": [6, 6]}, ["key_lengths", "1", "(2,)"]),
    "lengths-of-two-axes": ({"key_lengths": torch.ones(1, 1, dtype=torch.int64)}, ["(1, 1)"]),
    "lengths-as-floats": ({"key_lengths": torch.ones(1)}, ["float32"]),
    "lengths-as-words": ({"key_lengths": ["six"]}, ["six"]),
    "lengths-as-a-number": ({"key_lengths": 6}, ["key_lengths", "6"]),
    "a-length-above-the-keys": ({"key_lengths": [7]}, ["0 to 6", "[7]"]),
    "a-negative-length": ({"key_lengths": torch.tensor([-1])}, ["[-1]"]),
    "mask-of-numbers": ({"key_mask": torch.ones(1, 6)}, ["bool", "float32"]),
    "mask-of-pairs": ({"key_mask": torch.ones(1, 6, 6, dtype=torch.bool)}, ["(1, 6)", "(1, 6, 6)"]),
    "mask-as-a-list": ({"key_mask": [[True] * 6]}, ["bool", "True"]),
    "slopes-of-other-heads": ({"alibi": torch.ones(3)}, ["2", "(3,)"]),
    "slopes-as-integers": ({"alibi": torch.ones(2, dtype=torch.int64)}, ["int64"]),
    "slopes-without-end": ({"alibi": torch.tensor([1.0, torch.inf])}, ["finite", "inf"]),
    "slopes-with-gradients": ({"alibi": torch.ones(2, requires_grad=True)}, ["detach"]),
    "dropout-of-one": ({"dropout": 1.0}, ["below 1", "1.0"]),
    "negative-dropout": ({"dropout": -0.1}, ["-0.1"]),
    "dropout-as-a-word": ({"dropout": "half"}, ["half"]),
    "dropout-nan": ({"dropout": float("nan")}, ["nan"]),
}


@pytest.mark.parametrize(("changes", "named"), BAD.values(), ids=BAD.keys())
def test_bad_options(changes: dict[str, Any], named: list[str]) -> None:
    inputs = draw(Layout(6, [2, 1], [None, 2]))
    with pytest.raises(SpecError) as caught:
        mlr_attention(*inputs, [2, 1], [None, 2], **changes)
    for word in named:
        assert word in str(caught.value)


def test_slopes_of_a_frozen_model() -> None:
    inputs = draw(Layout(6, [2, 1], [None, 2]))
    with torch.no_grad():
        found = mlr_attention(*inputs, [2, 1], [None, 2], alibi=torch.ones(2, requires_grad=True))
    assert found.isfinite().all()


# The source


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_the_plain_source_has_nothing_of_options(dtype: torch.dtype) -> None:
    plain, full = generate_kernels(dtype), generate_kernels(dtype, options=True)
    assert "Changes" in full
    assert "Changes" not in plain
    assert "hash" not in plain.replace("whose hash is smaller", "")
    assert max(map(len, full.splitlines())) <= 120
    assert full == generate_kernels(dtype, options=True)
