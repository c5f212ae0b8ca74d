"""Every layout of the torch program is the same matrix with the same parameters; the cost model says which one runs."""

import dataclasses
import re
from collections.abc import Iterator

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import mlbtc
from mlbtc import MLBTC, families
from mlbtc.codegen.layouts import SIDE_BY_SIDE_TOKENS, cheapest, fitting_chunk, torch_candidates
from mlbtc.codegen.matrix import generate_matrix, matrix_program, matrix_source
from mlbtc.codegen.modules import compile_matrix, module_class
from mlbtc.codegen.native import compiler
from mlbtc.codegen.tuning import Candidate
from tests.codegen.random_specs import Drawn, drawn_specs

# A smaller example is not worth the minutes that it takes: every example makes a dozen modules.
RANDOM = settings(
    max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)


def every_layout(spec: MLBTC, tokens: int) -> Iterator[Candidate]:
    """Yield the candidates, each with all tokens at once, with chunks of two and with what fits."""
    for candidate in torch_candidates(spec, tokens):
        yield from {candidate, dataclasses.replace(candidate, chunk=None), dataclasses.replace(candidate, chunk=2)}


@RANDOM
@given(drawn=drawn_specs(), tokens=st.sampled_from([0, 1, 2, 7]))
def test_the_product_and_all_gradients_are_those_of_the_matrix(drawn: Drawn, tokens: int) -> None:
    spec = drawn.spec
    plain = module_class(spec, Candidate("torch"), optional=False)(dtype=torch.float64, bias=True)
    torch.nn.init.normal_(plain.bias)
    x = torch.randn(tokens, spec.shape[1], dtype=torch.float64, requires_grad=True)
    bias, factors = plain.bias, [p for name, p in plain.named_parameters() if name != "bias"]
    oracle = x @ drawn.dense(factors).T + bias
    grad = torch.randn_like(oracle)
    expected = [oracle, *torch.autograd.grad(oracle, [x, *factors, bias], grad, materialize_grads=True)]
    for candidate in every_layout(spec, max(tokens, 1)):
        module = module_class(spec, candidate, optional=False)(dtype=torch.float64, bias=True)
        module.load_state_dict(plain.state_dict())
        own = [p for name, p in module.named_parameters() if name != "bias"]
        y = module(x)
        found = [y, *torch.autograd.grad(y, [x, *own, module.bias], grad, materialize_grads=True)]
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, msg=lambda text, c=candidate: f"{c}: {text}")


@RANDOM
@given(drawn=drawn_specs())
def test_parameters_and_what_a_seed_draws_are_the_same(drawn: Drawn) -> None:
    states = []
    kernels = [Candidate("cpp")] if compiler() else []
    for candidate in (*kernels, *every_layout(drawn.spec, 64)):
        torch.manual_seed(3)
        states.append(module_class(drawn.spec, candidate, optional=False)().state_dict())
    for state in states[1:]:
        assert list(state) == list(states[0])
        torch.testing.assert_close(state, states[0], rtol=0, atol=0)


@pytest.mark.parametrize("digits", [5, 6, 10])
def test_a_butterfly_has_two_products_of_large_blocks(digits: int) -> None:
    source = generate_matrix(families.butterfly(2**digits), target="torch", layout="fused")
    body = source[source.index("def _product") : source.index("def to_dense")]
    with_tokens = [line for line in body.splitlines() if "bmm" in line and " T" in line.partition("#")[2]]
    assert len(with_tokens) == 2
    assert body.count("torch.bmm(") == digits  # the others multiply factors
    if digits == 10:
        assert len(re.findall(r"reshape\(32, 32, 32\)", body)) == 2


def test_factors_are_made_once_for_all_chunks() -> None:
    spec = families.butterfly(64)
    source = matrix_source(spec, Candidate("torch", layout="fused", products=2, chunk=8))
    once, _, rest = source[source.index("def _product") : source.index("def to_dense")].partition("def product")
    assert once.count("torch.bmm(") == 4
    assert rest.count("torch.bmm(") == 2
    assert "self." not in rest
    assert "x.split(8)" in rest


def test_chunks_are_of_the_size_that_was_asked_for() -> None:
    spec = families.btt((16, 12), rank=2)
    module = module_class(spec, Candidate("torch", chunk=4), optional=False)()
    x, sizes = torch.randn(11, 12), []
    handle = torch.utils._python_dispatch.TorchDispatchMode

    class Sizes(handle):  # type: ignore[misc, valid-type]
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            result = func(*args, **(kwargs or {}))
            if func is torch.ops.aten.bmm.default:
                sizes.append(tuple(args[1].shape))
            return result

    with Sizes(), torch.no_grad():
        y = module(x)
    assert [shape[2] for shape in sizes[::2]] == [4, 4, 3]
    torch.testing.assert_close(y, x @ module.to_dense().T, rtol=1e-4, atol=1e-5)


def test_graphs_and_other_devices_have_no_chunks() -> None:
    spec = families.btt((16, 12), rank=2)
    module = module_class(spec, Candidate("torch", chunk=4), optional=False)(dtype=torch.float64)
    x = torch.randn(3, 7, 12, dtype=torch.float64)
    expected = x @ module.to_dense().T
    exported = torch.export.export(module, (x,), dynamic_shapes=({1: torch.export.Dim("t", min=2)},))
    assert "split" not in str(exported.graph)
    torch.testing.assert_close(exported.module()(x[:, :5]), expected[:, :5])
    torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(x), expected)
    torch.testing.assert_close(torch.vmap(module)(x), expected)
    assert module.to("meta")(x.to("meta")).shape == expected.shape


WIDTH = 1024
SHAPE = (WIDTH, WIDTH)


@pytest.mark.parametrize(
    ("spec", "tokens", "expected"),
    [
        (families.butterfly(WIDTH), 1, {"layout": "levels"}),
        (families.butterfly(WIDTH), 64, {"layout": "fused"}),
        (families.butterfly(WIDTH), 1024, {"layout": "fused"}),
        (families.tensor_train([32, 32], [32, 32], [8]), 1, {"layout": "levels", "chunk": None}),
        (families.tensor_train([32, 32], [32, 32], [8]), 4096, {}),
        (families.btt(SHAPE, 2), 64, {"layout": "levels", "chunk": None}),
        (families.btt(SHAPE, 2), 4096, {"layout": "levels", "chunk": 128}),
        (families.mlr(SHAPE, [32] * 4), 1, {"layout": "levels"}),
        (families.mlr(SHAPE, [32] * 4), 1024, {"layout": "nested"}),
        (families.low_rank(SHAPE, 128), 1024, {"layout": "levels", "chunk": None}),
        (families.dense(SHAPE), 4096, {"layout": "levels", "dense": False}),
    ],
    ids=lambda value: value.name if isinstance(value, MLBTC) else "",
)
def test_the_cost_model_takes_what_was_fastest_when_it_was_fitted(
    spec: MLBTC, tokens: int, expected: dict[str, object]
) -> None:
    candidate, why = cheapest(spec, tokens)
    assert {name: getattr(candidate, name) for name in expected} == expected
    assert bool(why) == (candidate != Candidate("torch", tokens))
    module = compile_matrix(spec, tokens=tokens, target="torch")
    assert module.candidate == candidate
    assert module.explain() == f"target {candidate}: asked for" + (f"; {why}" if why else "")


def test_many_tokens_are_assumed_where_their_number_is_not_known() -> None:
    spec = families.butterfly(256)
    assert cheapest(spec, None) == cheapest(spec, 1024)
    assert "1024 tokens" in compile_matrix(spec, target="torch").explain()


def test_devices_that_the_model_does_not_know_keep_the_plan_and_nested_levels() -> None:
    for spec in (families.butterfly(WIDTH), families.btt(SHAPE, 4)):
        assert cheapest(spec, 4096, on_cpu=False) == (Candidate("torch", 4096), "")
    nested = families.mlr((64, 64), [2, 2, 2, 1])
    assert cheapest(nested, SIDE_BY_SIDE_TOKENS, on_cpu=False)[0] == Candidate("torch", layout="nested")
    assert cheapest(nested, SIDE_BY_SIDE_TOKENS - 1, on_cpu=False)[0].layout == "levels"


@pytest.mark.parametrize("rank", [1, 4])
def test_the_temporaries_of_a_chunk_fit_into_the_cache(rank: int) -> None:
    chunk = fitting_chunk(matrix_program(families.btt(SHAPE, rank), Candidate("torch")).program)
    assert 4 * chunk * WIDTH * rank == 1 << 20
    assert fitting_chunk(matrix_program(families.dense((4, 1 << 16)), Candidate("torch")).program) >= 32


def test_copies_and_pickles_keep_their_layout() -> None:
    import copy
    import pickle

    module = module_class(families.butterfly(8), Candidate("torch", layout="fused", products=2, chunk=2), False)()
    x = torch.randn(5, 8)
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert other.candidate == module.candidate
        torch.testing.assert_close(other(x), module(x))


def test_generate_emits_the_layout_that_is_asked_for() -> None:
    spec = families.butterfly(8)
    assert mlbtc.generate(spec) == generate_matrix(spec, target="torch", layout="levels")
    assert "x.split(" not in mlbtc.generate(spec)
