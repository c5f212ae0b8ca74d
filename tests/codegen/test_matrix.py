"""Modules of random specs, and `generate_matrix` and `compile_matrix` themselves."""

import ast
import keyword
import re
import textwrap

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mlbtc
from mlbtc import MLBTC, Level, families
from mlbtc.codegen import compile_matrix, generate_matrix
from mlbtc.codegen.matrix import matrix_source
from mlbtc.errors import BackendError, CodegenError, GraphError, PlanError
from tests.codegen.random_specs import Drawn, drawn_specs

pytestmark = pytest.mark.usefixtures("without_compiler")

RANDOM = settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
BTT = families.btt((6, 8), 2, (2, 3, 4, 2))


def module_of(spec: MLBTC, tokens: int | None = None) -> nn.Module:
    torch.manual_seed(3)
    return compile_matrix(spec, dtype=torch.float64, tokens=tokens)


def check_against_einsum(drawn: Drawn, module: nn.Module, batch: int) -> None:
    factors: list[Tensor] = list(module.parameters())
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, drawn.shape[1], generator=generator, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(batch, drawn.shape[0], generator=generator, dtype=torch.float64)
    dense = drawn.dense(factors)
    torch.testing.assert_close(module.to_dense(), dense, rtol=1e-10, atol=1e-10)
    found, expected = module(x), x @ dense.T
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    inputs = [x, *factors]
    for grad, wanted in zip(
        torch.autograd.grad((found * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(grad, wanted, rtol=1e-9, atol=1e-9)


@RANDOM
@given(drawn=drawn_specs(), batch=st.integers(0, 3))
def test_random_specs(drawn: Drawn, batch: int) -> None:
    check_against_einsum(drawn, module_of(drawn.spec), batch)


@RANDOM
@given(drawn=drawn_specs(), tokens=st.sampled_from([64, 4096]))
def test_random_specs_planned_for_many_tokens(drawn: Drawn, tokens: int) -> None:
    check_against_einsum(drawn, module_of(drawn.spec, tokens), 2)


@pytest.mark.slow
@settings(RANDOM, max_examples=1000)
@given(drawn=drawn_specs(), tokens=st.sampled_from([1, 16, 4096]))
def test_many_random_specs(drawn: Drawn, tokens: int) -> None:
    check_against_einsum(drawn, module_of(drawn.spec, tokens), 2)


# generate_matrix


def header(source: str) -> dict[str, str]:
    """Return the sections of the docstring of an emitted file."""
    text = ast.get_docstring(ast.parse(source))
    assert text is not None
    found = re.split(r"^(Spec|Costs|Plan for T tokens):$", text, flags=re.MULTILINE)[1:]
    return {title: textwrap.dedent(body).strip("\n") for title, body in zip(found[::2], found[1::2], strict=True)}


@pytest.mark.parametrize(
    "spec",
    [
        BTT,
        families.permutation([2, 0, 1]).named("a - b.c_d"),
        families.permutation("stride(2)", 6).named("no"),
        MLBTC((4, 6), [Level(2, 1, -0.5, ([3, 1, 0, 2], "stride(3)")), Level.einsum("null true -> null true")]),
        families.mlr(("D", "D"), ["r", 2]).with_defaults({"D": 12, "r": 3}),
    ],
    ids=["btt", "listed", "stride", "words-of-yaml", "defaults"],
)
def test_the_header_holds_the_spec(spec: MLBTC) -> None:
    assert mlbtc.loads(header(generate_matrix(spec))["Spec"]) == spec.bind_defaults()


def test_the_header_holds_costs_and_plan() -> None:
    parts = header(generate_matrix(families.mlr((1024, 2048), [32, 16])))
    assert parts["Costs"].splitlines() == [
        "parameters  147,456 (dense 2,097,152)",
        "MACs        147,456 per token (dense 2,097,152)",
        "rank        64 (exact: nested low rank)",
    ]
    assert parts["Plan for T tokens"].splitlines() == [
        "level 0: t1[T k r] = x[T k j], f1[k j r]: 65536*T MACs, 32*T elements",
        "level 0: t2[T k i] = t1[T k r], f0[k i r]: 32768*T MACs, 1024*T elements",
        "level 1: t1[T k r] = x[T k j], f1[k j r]: 32768*T MACs, 32*T elements",
        "level 1: t2[T k i] = t1[T k r], f0[k i r]: 16384*T MACs, 1024*T elements",
    ]


def per_token(source: str) -> int:
    """Return the MACs per token that the header claims."""
    found = re.search(r"^MACs +([\d,]+) per token", header(source)["Costs"], re.MULTILINE)
    assert found
    return int(found[1].replace(",", ""))


def steps(source: str) -> list[tuple[int, bool]]:
    """Return for each step of the header its MACs for one token, and whether they grow with the tokens."""
    found = re.findall(r": (?:(\d+)(\*T)?|(T)) MACs", header(source)["Plan for T tokens"])
    return [(int(number or 1), bool(star or bare)) for number, star, bare in found]


@pytest.mark.parametrize("spec", [BTT, families.kronecker((3, 4), (2, 5)), families.butterfly(8)], ids=lambda s: s.name)
def test_macs_per_token_are_those_of_the_steps(spec: MLBTC) -> None:
    source = generate_matrix(spec)
    assert all(grows for _, grows in steps(source))
    assert per_token(source) == sum(macs for macs, _ in steps(source))


def test_macs_per_token_are_those_of_the_plan_for_many_tokens() -> None:
    source = generate_matrix(BTT, tokens=4096)
    assert steps(source) == [(96, False), (48, True)]
    assert per_token(source) == 48


def test_macs_per_token_leave_out_what_is_paid_once_per_call() -> None:
    source = generate_matrix(families.block_low_rank((5, 5), 5, 2), tokens=1)
    assert steps(source) == [(10, False), (5, True)]
    assert per_token(source) == 5


def test_the_number_of_tokens_decides_the_order() -> None:
    """Materialised, a BTT of rank 2 costs 96 once and 48 a token; factor by factor it costs 96 a token."""
    assert steps(generate_matrix(BTT)) == [(48, True), (48, True)]
    assert generate_matrix(BTT, tokens=1) == generate_matrix(BTT)
    assert steps(generate_matrix(BTT, tokens=3)) == [(96, False), (48, True)]
    assert generate_matrix(families.low_rank((4, 6), 2), tokens=10**6) == generate_matrix(families.low_rank((4, 6), 2))


@pytest.mark.parametrize(
    "tokens",
    [pytest.param(value) for value in (0, -3, 2.5, "many", True)],
    ids=str,
)
def test_a_number_of_tokens_is_a_positive_integer(tokens: object) -> None:
    with pytest.raises(PlanError, match="tokens"):
        generate_matrix(BTT, tokens=tokens)


def test_defaults_of_symbols_are_used() -> None:
    spec = families.low_rank(("D", "D"), "r").with_defaults({"D": 6, "r": 2})
    assert generate_matrix(spec) == generate_matrix(families.low_rank((6, 6), 2))
    module = compile_matrix(spec)
    assert module.spec == families.low_rank((6, 6), 2)
    assert module.to_dense().shape == (6, 6)


def test_open_symbols() -> None:
    spec = families.low_rank(("D", 4), "r").with_defaults({"D": 6})
    for make in (generate_matrix, compile_matrix):
        with pytest.raises(PlanError, match=r"'low_rank' has the open symbols r: .*--set r=1024.*spec\.bind\(r=1024\)"):
            make(spec)


@pytest.mark.parametrize("target", ["cuda", "tpu", "", "Torch"])
def test_targets(target: str) -> None:
    for make in (generate_matrix, compile_matrix):
        with pytest.raises(BackendError, match=f"target '{target}' is not available .*available: torch, cpp, triton"):
            make(BTT, target=target)
    assert generate_matrix(BTT, target="torch") == generate_matrix(BTT, target="auto") == generate_matrix(BTT)


def test_a_spec_that_is_no_matrix() -> None:
    spec = MLBTC((3, 4), [Level.einsum("i j, a b -> i j", {"a": 2, "b": 2})])
    for make in (generate_matrix, compile_matrix):
        with pytest.raises(GraphError, match=r"levels\[0\]: factor 1 \(a b\)"):
            make(spec)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("local-and-global", "LocalAndGlobal"),
        ("2d", "Matrix2d"),
        ("tensor", "TensorLayer"),
        ("class", "Class"),
        ("a.b c_d", "ABCD"),
        ("x" * 64, "X" + "x" * 63),
        ("none", None),
        ("true", None),
        ("False", None),
    ],
)
def test_classes_are_named_after_their_spec(name: str, expected: str | None) -> None:
    module = compile_matrix(BTT.named(name), dtype=torch.float64)
    found = type(module).__name__
    assert found == expected if expected else found.isidentifier() and not keyword.iskeyword(found)
    assert module(torch.ones(2, 8, dtype=torch.float64)).shape == (2, 6)


def test_a_module_shows_spec_source_and_sizes() -> None:
    module = compile_matrix(BTT, bias=True)
    assert module.spec == BTT
    assert module.spec.name == "btt"
    assert module.source == matrix_source(BTT, module.candidate)
    assert compile_matrix(BTT, target="torch", device="meta").source == generate_matrix(BTT)
    assert repr(module) == "Btt(in_features=8, out_features=6, bias=True)"
    assert (module.in_features, module.out_features) == (8, 6)


def test_two_modules_share_a_class_and_no_numbers() -> None:
    first, second = compile_matrix(BTT), compile_matrix(BTT)
    assert type(first) is type(second)
    assert not torch.equal(first.to_dense(), second.to_dense())
    assert type(compile_matrix(BTT.named("other"))) is not type(first)


def test_generated_sources_are_refused_for_bad_class_names() -> None:
    with pytest.raises(CodegenError, match="identifier"):
        generate_matrix(BTT, class_name="a b")
