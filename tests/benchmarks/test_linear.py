"""The cases of linear layers: which there are, that every candidate is correct, and what is claimed of them."""

import pytest
import torch

import mlbtc
from mlbtc.benchmarks import peers
from mlbtc.benchmarks.figures import common_names, curves
from mlbtc.benchmarks.linear import (
    COMPILED,
    PERIOD,
    Repeated,
    Sizes,
    _multiplied_out,
    linear_cases,
    linear_specs,
)
from mlbtc.benchmarks.oracles import linear_results, mlp_results
from mlbtc.benchmarks.runner import BenchmarkError, Result, Settings, Timing, run_cases
from mlbtc.codegen.native import compiler
from mlbtc.spec import families

QUICK = Settings(seconds=1e-9, warmup=0, repetitions=1)


def timing(name, seconds, spread=0.0):
    return Timing(name, 0.0, seconds, (seconds - spread, seconds + spread), seconds, 5)


def test_specs_are_those_of_the_documentation():
    assert list(linear_specs(1024)) == [
        "monarch 32 blocks", "btt rank 1", "btt rank 2", "btt rank 4",
        "mlr 4 levels of 32", "low rank 128", "tensor train rank 8", "butterfly",
    ]  # fmt: skip
    assert all(spec.shape == (1024, 1024) for spec in linear_specs(1024).values())


@pytest.mark.parametrize("tokens", [1, 5])
def test_candidates_are_correct(tokens):
    results = run_cases(linear_cases(Sizes([32], [tokens])), QUICK)
    assert len(results) == 2 * 9
    for result in results:
        names = [timing.name for timing in result.timings]
        assert names[:3] == ["nn.Linear", "torch.einsum", "opt_einsum.contract"]
        assert {"mlbtc torch", "mlbtc auto"} <= set(names)
        assert ("mlbtc cpp" in names) == (compiler() is not None)


def test_few_different_tokens_stand_for_many():
    spec = families.btt((16, 12), 2)
    few = Repeated.draw(1200, 12, 16, torch.Generator().manual_seed(0))
    x, grad = few.whole()
    assert x.shape == (1200, 12)
    assert len(x.detach().unique(dim=0)) == PERIOD
    factors = [torch.randn(f.shape) for f in mlbtc.compile(spec, target="torch").parameters()]
    found = few.results(linear_results(spec, factors, few.x, few.weighted))
    torch.testing.assert_close(found, linear_results(spec, factors, x, grad))


@pytest.mark.parametrize("name", ["btt rank 2", "mlr", "butterfly", "tensor train"])
def test_the_dense_layer_holds_the_same_matrix(name):
    spec = next(spec for own, spec in linear_specs(32).items() if own.startswith(name))
    layer = mlbtc.compile(spec, target="torch", dtype=torch.float64)
    factors = [factor.detach() for factor in layer.parameters()]
    torch.testing.assert_close(_multiplied_out(spec, factors), layer.to_dense().detach())


@pytest.mark.skipif(compiler() is None, reason="torch.compile needs a C++ compiler on the CPU")
@pytest.mark.slow
def test_a_compiled_einsum_takes_part_where_asked_for():
    (result, _) = run_cases(linear_cases(Sizes([32], [5], cases=["monarch"], compiled=True)), QUICK)
    assert COMPILED in [timing.name for timing in result.timings]


def test_every_combination_of_sizes_is_timed():
    cases = linear_cases(Sizes([32, 64], [1, 70], [1, 2], ["btt rank 2", "butterfly"]))
    assert len(cases) == 2 * 2 * 2 * 3
    assert {case.threads for case in cases} == {1, 2}
    assert {tuple(case.sizes) for case in cases} == {("width", "tokens", "threads")}
    assert {case.name for case in cases} == {"btt rank 2", "butterfly", "mlp of btt rank 2"}


@pytest.mark.parametrize(
    ("width", "tokens", "rivals"),
    [
        (1024, 1, ["torch.einsum", "nn.Linear"]),
        (1024, 64, ["torch.einsum", "nn.Linear"]),
        (1024, 65, ["torch.einsum"]),
        (512, 1, ["torch.einsum"]),
    ],
)
def test_claims_are_of_what_auto_compiles(width, tokens, rivals):
    for case in linear_cases(Sizes([width], [tokens])):
        assert case.claims == tuple(("mlbtc auto", rival) for rival in rivals)


def test_broken_claims_are_found():
    timings = (timing("ours", 2), timing("einsum", 1), timing("dense", 3))
    claims = (("ours", "einsum"), ("ours", "dense"), ("ours", "not timed"))
    result = Result("made up", {"tokens": 1}, "forward", "dense", timings, claims=claims)
    assert result.broken_claims() == [(timings[0], timings[1])]


def test_the_results_of_an_mlp_are_those_of_autograd():
    torch.manual_seed(0)
    specs = (families.dense((6, 4)), families.dense((3, 6)))
    weights = [torch.randn(6, 4, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)]
    x, grad = torch.randn(5, 4, dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)
    found = mlp_results(specs, [[w] for w in weights], x, grad)
    inputs = [tensor.requires_grad_() for tensor in (x, *weights)]
    y = torch.nn.functional.gelu(x @ weights[0].T) @ weights[1].T
    expected = [y, *torch.autograd.grad(y, inputs, grad)]
    for one, other in zip([*found.common, *found.factors], expected, strict=True):
        torch.testing.assert_close(one, other.detach())
    for one, other in zip(found.dense, expected[2:], strict=True):
        torch.testing.assert_close(one, other.detach())


@pytest.mark.parametrize("peer", peers.PEERS, ids=lambda peer: peer.name)
def test_a_peer_is_correct_or_says_why_it_is_left_out(peer):
    found = peers.state(peer)
    if found != "installed":
        assert found == "not installed" or found.startswith("cannot be imported: ")
        pytest.skip(f"{peer.name}: {found}")
    for word in peer.products:
        for result in run_cases(linear_cases(Sizes([32], [5], cases=[word])), QUICK):
            assert peer.name in [timing.name for timing in result.timings]


def test_a_package_that_breaks_on_import_is_named(tmp_path, monkeypatch):
    (tmp_path / "broken_peer.py").write_text("import no_such_package_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    assert peers.state(peers.Peer("p", "broken_peer", {})) == (
        "cannot be imported: No module named 'no_such_package_at_all'"
    )
    assert peers.state(peers.Peer("p", "no_such_peer.at_all", {})) == "not installed"


def test_curves_are_times_faster_of_what_auto_takes_over_tokens():
    record = {
        "results": [
            {"case": "a", "mode": "forward", "sizes": {"width": 8, "tokens": tokens},
             "timings": [{"name": "nn.Linear", "ratio": 1}, {"name": "mlbtc torch", "ratio": 0.1},
                         {"name": "mlbtc auto", "ratio": ratio}]}
            for tokens, ratio in ((64, 0.25), (1, 0.5))
        ]
    }  # fmt: skip
    assert curves(record) == {"forward, width 8": {"a": [(1, 2.0), (64, 4.0)]}}


def test_the_legend_has_what_the_names_of_all_panels_have_in_common():
    panels = [{"low rank 64": [], "btt rank 1": [], "a": []}, {"low rank 128": [], "btt rank 1": []}]
    assert common_names(panels) == ["low rank", "btt rank 1", "a"]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (Sizes([1000], [1]), "--width takes a power of 2"),
        (Sizes([64], [0]), "--tokens takes 1 to 65536, found 0"),
        (Sizes([64], [1], [0]), "--threads takes 1 to 1024, found 0"),
        (Sizes([64], [1], cases=["btts rank 1"]), "no case has that name; did you mean 'btt rank 1'"),
    ],
)
def test_sizes_out_of_range(sizes, message):
    with pytest.raises(BenchmarkError, match=message):
        linear_cases(sizes)
