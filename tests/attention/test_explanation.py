"""What a level sees: recorded weights are what attends, shares are those of loops over pairs, layers stay the same."""

import copy
import json
import math
import sys
from pathlib import Path
from statistics import median
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import mlbtc
from mlbtc import AttentionSpec, families
from mlbtc.attention import Explanation, explanation
from mlbtc.attention.recording import dense_scores, record
from mlbtc.errors import AnalysisError, BackendError, SpecError
from tests.attention.conformance import batch_of, make

N = 12
LOW, BTT = families.low_rank((N, N), 2), families.btt((N, N), 1)
WINDOW = AttentionSpec.sliding_window(4, 1, 24, 5)
BOTH = AttentionSpec.global_sliding_window(4, 1, 24, 3, (3, 1), rope=True)
SPECS: dict[str, AttentionSpec] = {
    "standard": AttentionSpec.standard(N, 3, 8, qk_norm=True),
    "standard-bidirectional": AttentionSpec.standard(N, 3, 8, False, rope=True),
    "mlr": AttentionSpec.mlr(N, 3, (2, 1, 1), 8, qk_norm=True),
    "mlr-options": AttentionSpec.mlr(N, 2, (3, 2, 1), 24, (24, 6, 3), scale="mup", divide_by_depth=True, rope=50.0),
    "mlr-equal-blocks": AttentionSpec.mlr(N, 2, (3, 2, 1), 24, (24, 6, 6)),
    "mlr-bidirectional": AttentionSpec.mlr(N, 2, (4, 2), 24, (24, 6), False),
    "bilinear": AttentionSpec.bilinear(N, 3, 20, BTT),
    "bilinear-bidirectional": AttentionSpec.bilinear(N, 1, 20, families.monarch((N, N), 3), False),
    "mlbtc": AttentionSpec.mlbtc(N, 3, 24, [(24, BTT), (6, LOW)], divide_by_depth=True),
    "mlbtc-bidirectional": AttentionSpec.mlbtc(N, 1, 30, [(30, LOW), (15, BTT)], causal=False),
    "window": AttentionSpec.sliding_window(N, 3, 16, 5, scale="mup"),
    "window-of-all": AttentionSpec.sliding_window(N, 3, 16, 500),
    "both": AttentionSpec.global_sliding_window(N, 2, 16, 4, (4, 2)),
    "both-published": AttentionSpec.global_sliding_window(N, 2, 16, 4, (5, 1), published=True, qk_norm=True),
    "mixed": AttentionSpec.mixed(16, 4, 24, [AttentionSpec.standard(4, 1, 24), AttentionSpec.mlr(4, 1, (2, 1, 1), 24),
                                             WINDOW, BOTH]),
    "mixed-bidirectional": AttentionSpec.mixed(
        N, 3, 20, [AttentionSpec.mlr(4, 1, (2, 2), 20, None, False), AttentionSpec.standard(8, 2, 20, False)], False
    ),
}  # fmt: skip
SPEC = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


@pytest.fixture(autouse=True)
def torch_programs(without_compiler: None) -> None:
    """The kernels of the other backends have tests of their own."""


def nothing(*shown: object) -> None:
    """See nothing."""


# What is recorded


@settings(max_examples=40, deadline=None)
@given(
    name=st.sampled_from(sorted(SPECS)),
    tokens=st.integers(1, 45),
    batch=st.integers(1, 3),
    dtype=st.sampled_from([torch.float64, torch.float32]),
    bias=st.booleans(),
)
def test_recorded_weights_times_values_are_what_the_layer_gives(
    name: str, tokens: int, batch: int, dtype: torch.dtype, bias: bool
) -> None:
    spec = SPECS[name]
    layer, x = make(spec, dtype, bias), batch_of(spec, tokens, dtype, batch)
    tolerance = 1e-10 if dtype == torch.float64 else 1e-5
    with torch.no_grad():
        torch.testing.assert_close(record(layer, x, nothing), layer(x), rtol=tolerance, atol=tolerance)


@SPEC
def test_every_head_is_shown_once_with_weights_that_sum_to_one(spec: AttentionSpec) -> None:
    shown: list[tuple[Any, ...]] = []
    record(make(spec), batch_of(spec, 26), lambda *one: shown.append(one))
    assert [number for number, *_ in shown] == list(range(spec.heads))
    assert [own for _, own, *_ in shown] == [part for part in spec.parts for _ in range(part.heads)]
    for _, own, scores, weights in shown:
        assert len(scores) == (2 if own.variant == "global_sliding_window" else 1)
        assert {one.shape for one in (*scores, weights)} == {(2, 26, 26)}
        total = torch.full((2, 26), 2.0 if own.published else 1.0, dtype=torch.float64)
        torch.testing.assert_close(weights.sum(-1), total, rtol=1e-12, atol=1e-12)
        if spec.causal:
            assert not weights.triu(1).any()


def test_a_layer_in_bfloat16_and_under_autocast() -> None:
    spec = SPECS["mlr"]
    x = batch_of(spec, 20, torch.float32)
    half = make(spec, torch.bfloat16)
    assert record(half, x.bfloat16(), nothing).dtype == torch.bfloat16
    layer = make(spec, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, expected = record(layer, x, nothing), layer(x)
    assert found.dtype == expected.dtype
    assert (found.float() - expected.float()).norm() < 0.03 * expected.float().norm()


def test_a_layer_whose_factors_are_parametrised() -> None:
    class Doubled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * x

    spec = SPECS["bilinear-bidirectional"]
    layer, x = make(spec), batch_of(spec, 9)
    plain = record(layer, x, nothing)
    nn.utils.parametrize.register_parametrization(layer, "level0_factor0", Doubled())
    with torch.no_grad():
        torch.testing.assert_close(record(layer, x, nothing), layer(x), rtol=1e-10, atol=1e-10)
        assert not torch.allclose(plain, layer(x))


# What is said of it, against loops over pairs


def levels_of(spec: AttentionSpec, tokens: int, query: int, key: int) -> int | None:
    """Return the deepest level that a pair shares, from 0; None where the query does not see the key."""
    distance = query - key
    if (spec.causal and distance < 0) or (spec.variant == "sliding_window" and distance >= (spec.window or 0)):
        return None
    if spec.variant == "global_sliding_window":
        return int(distance < (spec.window or 0))
    return max(n for n, block in enumerate(spec.block_sizes) if n == 0 or query // block == key // block)


@pytest.mark.parametrize("tokens", [1, 26])
@SPEC
def test_shares_entropy_and_scores_are_those_of_loops(spec: AttentionSpec, tokens: int) -> None:
    layer, x = make(spec), batch_of(spec, tokens)
    shown: list[tuple[Any, ...]] = []
    record(layer, x, lambda *one: shown.append(one))
    found = layer.explain(x)
    assert isinstance(found, Explanation)
    assert (found.spec, found.sequences, found.tokens, len(found.heads)) == (spec, 2, tokens, spec.heads)
    for head, (number, own, scores, weights) in zip(found.heads, shown, strict=True):
        assert (head.number, head.variant) == (number, own.variant)
        shares, entropy, keys = [0.0] * len(head.levels), 0.0, 0.0
        pairs: list[list[float]] = [[] for _ in head.levels]
        for row, query in [(row, query) for row in range(2) for query in range(tokens)]:
            seen = {key: levels_of(own, tokens, query, key) for key in range(tokens)}
            seen = {key: level for key, level in seen.items() if level is not None}
            for key, level in seen.items():
                weight = float(weights[row, query, key]) / (2 if own.published else 1)
                shares[level] += weight / (2 * tokens)
                entropy -= weight * math.log(weight) / (2 * tokens) if weight else 0.0
                pairs[level].append(float(scores[min(level, len(scores) - 1)][row, query, key]))
            keys += math.log(len(seen)) / (2 * tokens)
        assert [level.share for level in head.levels] == pytest.approx(shares, abs=1e-9)
        assert (head.entropy, head.most_entropy) == pytest.approx((entropy, keys), abs=1e-9)
        for level, values in zip(head.levels, pairs, strict=True):
            assert (0 if level.scores is None else level.scores.pairs) == len(values)
            if level.scores is not None:
                assert level.scores.mean == pytest.approx(sum(values) / len(values))
                assert level.scores.quantiles[2] == pytest.approx(median(values))
                assert list(level.scores.quantiles) == sorted(level.scores.quantiles)


@SPEC
def test_shares_add_up_and_equal_scores_give_equal_weights(spec: AttentionSpec) -> None:
    x = batch_of(spec, 23)
    for head in make(spec).explain(x).heads:
        assert sum(level.share for level in head.levels) == pytest.approx(1, abs=1e-12)
        assert sum(level.even_share for level in head.levels) == pytest.approx(1, abs=1e-12)
        assert 0 <= head.entropy <= head.most_entropy + 1e-12
    layer = make(spec)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if not name.startswith(("value", "output")):
                parameter.zero_()
    for head in layer.explain(x).heads:
        assert [one.share for one in head.levels] == pytest.approx([one.even_share for one in head.levels], abs=1e-12)
        if head.variant != "global_sliding_window":
            assert head.entropy == pytest.approx(head.most_entropy, abs=1e-12)


def made_by_hand(spec: AttentionSpec, **rows: list[list[float]]) -> nn.Module:
    """Return a layer whose query and key have these weights."""
    layer: nn.Module = mlbtc.compile(spec, dtype=torch.float64)
    with torch.no_grad():
        for name, weight in rows.items():
            getattr(layer, name).weight.copy_(torch.tensor(weight, dtype=torch.float64))
    return layer


def test_a_layer_whose_tokens_look_into_their_own_blocks_has_all_mass_there() -> None:
    spec = AttentionSpec.mlr(2, 1, (1, 1), 12, (12, 4))
    fine = [[0.0, 0.0], [100.0, 0.0]]
    (head,) = made_by_hand(spec, query=fine, key=fine).explain(torch.ones(2, 11, 2, dtype=torch.float64)).heads
    assert [level.name for level in head.levels] == ["all tokens", "blocks of 4"]
    assert [level.share for level in head.levels] == pytest.approx([0, 1], abs=1e-12)
    # Of four, four and three tokens in blocks, each sees itself and those before it.
    assert head.entropy == pytest.approx(sum(math.log(n) for n in (1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3)) / 11)
    even = sum(own / (own + before) for before, size in ((0, 4), (4, 4), (8, 3)) for own in range(1, size + 1)) / 11
    assert [level.even_share for level in head.levels] == pytest.approx([1 - even, even])
    scores = [level.scores for level in head.levels]
    assert scores[0] is not None
    assert scores[1] is not None
    assert (scores[0].pairs, scores[0].mean, scores[1].pairs) == (2 * (4 * 4 + 8 * 3), 0, 2 * (10 + 10 + 6))
    assert scores[1].quantiles == pytest.approx([1e4 / math.sqrt(2)] * 5)


def test_a_layer_whose_keys_point_to_one_block() -> None:
    spec = AttentionSpec.mlr(2, 1, (1, 1), 12, (12, 4), causal=False)
    # Features of the coarse level only: every query has 1 there, keys have 100 in the second block.
    layer = made_by_hand(spec, query=[[1.0, 0.0], [0.0, 0.0]], key=[[0.0, 100.0], [0.0, 0.0]])
    x = torch.zeros(1, 10, 2, dtype=torch.float64)
    x[:, :, 0], x[:, 4:8, 1] = 1, 1
    (head,) = layer.explain(x).heads
    # Only the four tokens of that block share the fine level with it.
    assert [level.share for level in head.levels] == pytest.approx([0.6, 0.4], abs=1e-12)
    assert head.entropy == pytest.approx(math.log(4))
    assert head.most_entropy == pytest.approx(math.log(10))


def test_a_window_beside_all_tokens_has_half_the_mass_at_least() -> None:
    spec = AttentionSpec.global_sliding_window(2, 1, 16, 3, (1, 1))
    # The global softmax looks at the first token only.
    layer = made_by_hand(spec, query=[[1.0, 0.0], [0.0, 0.0]], key=[[0.0, 100.0], [0.0, 0.0]])
    x = torch.zeros(1, 13, 2, dtype=torch.float64)
    x[:, :, 0], x[:, 0, 1] = 1, 1
    (head,) = layer.explain(x).heads
    # Half of what ten of 13 queries see: the others have the first token in their windows.
    assert [level.share for level in head.levels] == pytest.approx([5 / 13, 8 / 13], abs=1e-12)


# What stays as it is


@pytest.mark.parametrize("name", ["mlr", "mlr-bidirectional", "mixed", "mixed-bidirectional", "bilinear-bidirectional"])
def test_the_layer_its_gradients_and_random_states_stay_as_they_are(name: str) -> None:
    spec = SPECS[name]
    layer, x = make(spec).train(), batch_of(spec, 20).requires_grad_()
    called: list[nn.Module] = []
    layer.register_forward_hook(lambda module, *_: called.append(module))
    layer(x).sum().backward()
    called.clear()
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    grads, own = [p.grad.clone() for p in (x, *layer.parameters())], dict(layer.__dict__)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    layer.explain(x)
    assert torch.equal(torch.get_rng_state(), state)
    assert not called
    assert layer.training
    assert layer.__dict__ == own
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())
    assert all(torch.equal(p.grad, grad) for p, grad in zip((x, *layer.parameters()), grads, strict=True))
    assert torch.is_grad_enabled()
    y = layer(x)
    assert y.requires_grad
    assert torch.equal(y, copy.deepcopy(layer)(x))


def test_the_text_of_a_layer_is_as_before() -> None:
    layer = make(SPECS["mlr"])
    assert layer.explain() == layer.explain(8)
    assert "backend for 33 tokens" in layer.explain(33)


# Forms


def explained(name: str) -> Explanation:
    return make(SPECS[name]).explain(batch_of(SPECS[name], 26))


def test_the_table() -> None:
    lines = str(explained("mixed")).splitlines()
    assert lines[0] == str(SPECS["mixed"])
    assert lines[1] == "2 sequences of 26 tokens"
    assert sum("last 5 tokens, rank 4" in line for line in lines) == 2
    assert [line.split()[0] for line in lines if line.endswith(("of 2.36", "of 1.48"))] == ["0", "1", "2", "3"]
    (one,) = [line for line in lines if line.startswith("   0") and "of" in line]
    assert one.split()[1:3] == ["1.000", "(1.000)"]
    assert max(map(len, lines)) < 200


def test_no_pairs_are_said_to_be_none() -> None:
    spec = SPECS["mlr"]
    explained = make(spec).explain(batch_of(spec, 2, batch=1))
    assert [level.scores is None for level in explained.heads[0].levels] == [True, True, False]
    assert "no pairs" in str(explained)
    assert "1 sequence of 2 tokens" in str(explained)


@SPEC
def test_plain_data(spec: AttentionSpec) -> None:
    found = make(spec).explain(batch_of(spec, 26))
    data = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data == found.to_dict()
    assert (data["variant"], data["sequences"], data["tokens"]) == (spec.variant, 2, 26)
    for entry, head in zip(data["heads"], found.heads, strict=True):
        assert entry["entropy"] == head.entropy
        assert [level["share"] for level in entry["levels"]] == [level.share for level in head.levels]
        assert set(entry["levels"][0]) == {"level", "name", "rank", "share", "even_share", "scores"}


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_figures(suffix: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"seen{suffix}"
    explained("mixed").plot(path if suffix == ".png" else str(path))
    content = path.read_bytes()
    assert len(content) > 5000
    if suffix == ".svg":
        assert b"last 5 tokens" in content


def test_figures_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AnalysisError, match=r"\.png, \.svg"):
        explained("mlr").plot(tmp_path / "seen.jpg")
    with pytest.raises(AnalysisError, match="cannot write"):
        explained("mlr").plot(tmp_path / "nowhere" / "seen.png")
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(BackendError, match="pip install"):
        explained("mlr").plot(tmp_path / "seen.png")


# What is refused


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (torch.zeros(3, N), r"\(batch, tokens, 12\), found the shape \(3, 12\)"),
        (torch.zeros(()), "found the shape"),
        (torch.zeros(1, 2, N + 1), "found the shape"),
        (torch.zeros(0, 5, N), "at least one sequence with one token"),
        (torch.zeros(2, 0, N), "at least one sequence with one token"),
        (torch.zeros(1, 4, N, device="meta"), "meta device"),
        (torch.zeros(17, 1000, N), "17 x 1,000 tokens have 17,000,000 pairs, more than 16,777,216; give fewer"),
        ([1, 2], "a number of tokens or a tensor of them, found list"),
        (0.5, "found float"),
    ],
    ids=["2d", "0d", "width", "no-batch", "no-tokens", "meta", "pairs", "list", "float"],
)
def test_bad_input_is_one_clear_error(given: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        make(SPECS["mlr"], torch.float32).explain(given)


@pytest.mark.parametrize("name", ["mlr", "standard-bidirectional", "both"])
def test_scores_that_are_not_finite_are_refused(name: str) -> None:
    layer, x = make(SPECS[name]), batch_of(SPECS[name], 6)
    x[0, 3, 0] = torch.nan
    with pytest.raises(SpecError, match="head 0 has scores that are not finite"):
        layer.explain(x)


def test_the_limit_is_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanation, "MOST_PAIRS", 2 * 6**2)
    layer = make(SPECS["mlr"])
    layer.explain(batch_of(SPECS["mlr"], 6))
    with pytest.raises(SpecError, match="more than 72"):
        layer.explain(batch_of(SPECS["mlr"], 7))


def test_dense_scores_take_any_leading_axes() -> None:
    spec = SPECS["both"]
    query, key = (torch.randn(2, 3, 7, 6, dtype=torch.float64) for _ in range(2))
    whole, one = dense_scores(spec, query, key), dense_scores(spec, query[1, 2], key[1, 2])
    assert [tuple(scores.shape) for scores in whole] == [(2, 3, 7, 7)] * 2
    torch.testing.assert_close(tuple(scores[1, 2] for scores in whole), one)
