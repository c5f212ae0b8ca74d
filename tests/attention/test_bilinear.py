"""Bilinear layers against dense score matrices, one per head, made by a loop over all index values."""

import math
from typing import ClassVar

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

import mlbtc
from mlbtc import MLBTC, AttentionSpec, Level, families, symbol
from mlbtc.errors import SpecError
from tests.attention.conformance import LayerConformance, batch_of, expected_of, sets_of
from tests.attention.definition import attend, nested, normed, project
from tests.oracles.networks import Network, networks

N = 12
THIRDS = [(5 * i + 3) % N for i in range(N)]
REVERSED = list(range(N))[::-1]
SCORES = {
    "btt-1": families.btt((N, N), 1),
    "btt-2": families.btt((N, N), 2),
    "mlr": families.mlr((N, N), (2, 1, 1)),
    "mlr-beyond-the-width": families.mlr((N, N), (4, 3, 2)),
    "monarch": families.monarch((N, N), 3),
    "kronecker": families.kronecker((3, 2), (4, 6)),
    "low-rank-plus-diagonal": families.low_rank_plus_diagonal((N, N), 2),
    "dense": families.dense((N, N)),
    "low-rank": families.low_rank((N, N), 3),
    "tensor-train": families.tensor_train((3, 4), (2, 6), (2,)),
    "scaled-and-permuted": MLBTC((N, N), [Level(1, 2, 0.5, (THIRDS, None)), Level(3, 1, -2.0, (REVERSED, THIRDS))]),
    "shared-and-permuted": MLBTC((N, N), [Level(3, None, 0.5, (THIRDS, REVERSED)), Level.einsum("i -> i i", {}, 3)]),
    "chain": MLBTC((N, N), [Level.einsum("i r, r j, j s, s j -> i j", {"r": 9, "s": 1}, 0.5, (THIRDS, REVERSED))]),
    "weighted-permutation": MLBTC((N, N), [Level.einsum("i -> i i", {}, 0.5, (THIRDS, REVERSED))]),
}  # fmt: skip


class TestBilinear(LayerConformance):
    SPECS: ClassVar = {
        "btt": AttentionSpec.bilinear(N, 3, 20, SCORES["btt-2"]),
        "mlr": AttentionSpec.bilinear(N, 2, 20, SCORES["mlr"]),
        "bidirectional": AttentionSpec.bilinear(N, 1, 20, SCORES["monarch"], False),
        "moved": AttentionSpec.bilinear(N, 2, 20, SCORES["scaled-and-permuted"]),
    }


class TestNormed(LayerConformance):
    SPECS: ClassVar = {
        "mlr": AttentionSpec.bilinear(N, 2, 20, families.mlr((N, N), (2, 1)), qk_norm=True),
        "two-levels": AttentionSpec.mlbtc(
            N, 2, 20, [(20, families.low_rank((N, N), 3)), (5, families.mlr((N, N), (2, 1)))], qk_norm=True
        ),
        "joint": AttentionSpec.bilinear(N, 2, 20, families.mlr((N, N), (1, 1)), qk_norm=True, joint_norm=True),
        "joint-levels": AttentionSpec.mlbtc(
            N, 2, 20, [(20, families.low_rank((N, N), 1)), (5, families.mlr((N, N), (2, 1)))],
            qk_norm=True, joint_norm=True, scale="mup",
        ),
    }  # fmt: skip

    def expected(self, spec: AttentionSpec, layer: nn.Module, x: Tensor) -> Tensor:
        """Return what low-rank terms compute, with the features of both sides normalised term by term or together."""
        weights, counts = dict(layer.named_parameters()), [count for _, count in sets_of(spec)]
        made = [
            [self.features(weights[f"level{number}_factor{factor}"], x) for number in range(len(counts))]
            for factor in range(2)
        ]
        for side, parts in zip(("query", "key"), made, strict=True):
            if spec.joint_norm:
                parts[:] = normed(torch.cat(parts, dim=-1), weights[f"{side}_norm.weight"]).split(counts, dim=-1)
            else:
                parts[:] = [normed(part, weights[f"{side}_norm{n}.weight"]) for n, part in enumerate(parts)]
        divisors = [math.sqrt(sum(counts))] * len(counts) if spec.scale == "standard" else counts
        terms = iter(q @ k.mT / divisor for q, k, divisor in zip(*made, divisors, strict=True))
        products = [sum((next(terms) for _ in score.levels), torch.zeros((), dtype=x.dtype)) for score in spec.scores]
        value = torch.stack(project(weights, "value", x).chunk(spec.heads, dim=-1), dim=1)
        mixed = attend(spec, nested(spec, products), value)
        return project(weights, "output", torch.cat(list(mixed.unbind(1)), dim=-1))

    def features(self, weight: Tensor, x: Tensor) -> Tensor:
        """Return the features of blocks by weights (H, k, D / k, r), (B, H, T, k r)."""
        return torch.einsum("btki,hkir->bhtkr", x.unflatten(-1, weight.shape[1:3]), weight).flatten(-2)


SCORE = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES.keys())


@SCORE
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("heads", [1, 3])
def test_a_layer_is_its_matrices_applied_by_hand(score: MLBTC, causal: bool, heads: int) -> None:
    spec = AttentionSpec.bilinear(N, heads, 9, score, causal)
    layer, x = mlbtc.compile(spec, dtype=torch.float64), batch_of(spec, 5, batch=1).requires_grad_()
    found, expected = layer(x), expected_of(spec, layer, x)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    inputs = [x, *layer.parameters()]
    for grad, wanted in zip(
        torch.autograd.grad(found.square().sum(), inputs), torch.autograd.grad(expected.square().sum(), inputs),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(grad, wanted, rtol=1e-9, atol=1e-9)


@settings(derandomize=True, max_examples=15, deadline=None)
@given(networks(max_factors=3, max_product=500))
def test_any_square_level(drawn: Network) -> None:
    rows, columns = drawn.shape
    if rows != columns:
        # Two levels of one shape make a square one.
        return
    score = MLBTC(drawn.shape, [Level.einsum(drawn.expression, drawn.sizes)])
    spec = AttentionSpec.bilinear(rows, 1, 4, score)
    layer, x = mlbtc.compile(spec, dtype=torch.float64), batch_of(spec, 3, batch=1)
    torch.testing.assert_close(layer(x), expected_of(spec, layer, x), rtol=1e-10, atol=1e-10)


def test_named_permutations_are_the_lists_they_stand_for() -> None:
    lists = [0, 4, 2, 6, 1, 5, 3, 7], [0, 4, 1, 5, 2, 6, 3, 7]
    named, listed = (
        AttentionSpec.bilinear(8, 2, 9, MLBTC((8, 8), [Level(1, 2, 1, sides), Level(4, None, 1, sides[::-1])]))
        for sides in (("bit_reversal", "stride(4)"), lists)
    )
    one, other = (mlbtc.compile(spec, dtype=torch.float64) for spec in (named, listed))
    other.load_state_dict(dict(one.named_parameters()), strict=False)
    torch.testing.assert_close(one(batch_of(named, 5)), other(batch_of(named, 5)))


def test_the_norm_makes_features_of_one_size() -> None:
    spec = AttentionSpec.bilinear(N, 2, 9, families.btt((N, N), 1), qk_norm=True)
    layer = mlbtc.compile(spec, dtype=torch.float64)
    keys = layer.key_features(5 * batch_of(spec, 4)[0])
    torch.testing.assert_close(keys.square().mean(-1), torch.ones(4, 2, dtype=torch.float64), rtol=1e-3, atol=1e-3)
    assert not [name for name, _ in layer.named_parameters() if name.startswith("query_norm")]


def test_a_joint_norm_leaves_tokens_alone_that_stand_on_a_side() -> None:
    """Of low rank + tensor train, one set has factors on both sides, the other the token itself on one."""
    score = families.low_rank((N, N), 1) + families.btt((N, N), 1)
    plain, joint = (
        mlbtc.compile(AttentionSpec.bilinear(N, 2, 9, score, qk_norm=norm, joint_norm=norm), dtype=torch.float64)
        for norm in (False, True)
    )
    plain.load_state_dict({name: w for name, w in joint.state_dict().items() if "norm" not in name})
    x = batch_of(AttentionSpec.bilinear(N, 2, 9, score), 4)[0]
    token = x[:, None].expand(-1, 2, -1)
    for side in ("query", "key"):
        features, found = (getattr(layer, f"{side}_features")(x) for layer in (plain, joint))
        where = [n for n in range(features.shape[-1] - N + 1) if torch.equal(features[..., n : n + N], token)]
        made = torch.ones(features.shape[-1], dtype=torch.bool)
        for start in where:
            made[start : start + N] = False
        assert torch.equal(found[..., ~made], features[..., ~made])
        expected = normed(features[..., made], torch.ones(int(made.sum()), dtype=torch.float64))
        torch.testing.assert_close(found[..., made], expected, rtol=1e-9, atol=1e-9)
        assert sum(w.numel() for name, w in joint.named_parameters() if name.startswith(f"{side}_n")) == int(made.sum())


def test_a_norm_of_one_feature_is_refused() -> None:
    spec = AttentionSpec.bilinear(N, 2, 9, families.mlr((N, N), (1, 2)), qk_norm=True)
    with pytest.raises(SpecError, match=r"one feature.*always 0.*joint_norm") as error:
        mlbtc.compile(spec)
    assert error.value.key == "qk_norm"
    text = spec.to_yaml()
    line = 1 + next(n for n, words in enumerate(text.splitlines()) if "qk_norm" in words)
    with pytest.raises(SpecError, match=rf"^layer.yaml:{line}: attention.qk_norm: level 0 of the scores"):
        mlbtc.analyze(mlbtc.loads(text, "layer.yaml"))


# Costs


def test_small_factors_of_many_heads_are_multiplied_first() -> None:
    small, large = (
        mlbtc.generate(AttentionSpec.bilinear(width, 8, 64, families.btt((width, width), 1))) for width in (32, 1024)
    )
    assert "factors multiplied" in small
    assert "factors multiplied" not in large


def test_initial_values_do_not_depend_on_the_order_of_products() -> None:
    width = 32
    layer = mlbtc.compile(AttentionSpec.bilinear(width, 8, 64, families.btt((width, width), 2)))
    x = torch.randn(4096, width)
    features = layer.key_features(x)
    assert features.var().item() == pytest.approx(1, rel=0.2)
    assert layer.level0_factor0.std().item() == pytest.approx((4 * 2) ** -0.5, rel=0.1)


@pytest.mark.parametrize(("width", "heads", "tokens"), [(64, 4, 128), (256, 8, 1024), (1024, 16, 2048)], ids=str)
@pytest.mark.parametrize("rank", [1, 2])
def test_costs_of_a_block_tensor_train(width: int, heads: int, tokens: int, rank: int) -> None:
    spec = AttentionSpec.bilinear(width, heads, tokens, families.btt((width, width), rank))
    report = mlbtc.analyze(spec, batch=tokens)
    assert report.scores.value == tokens**2 * width * heads
    assert report.query_key.value == 2 * rank * tokens * width * math.isqrt(width) * heads
    assert report.values.value == tokens**2 * width
    assert report.value_output.value == 2 * tokens * width**2
    assert report.parameters.value == 2 * rank * width * math.isqrt(width) * heads + 2 * width**2
    assert (report.key_cache.value, report.value_cache.value) == (tokens * width * heads, tokens * width)
    assert (report.rank.value, report.certainty) == (width, "exact")


def test_costs_of_mlr_stay_symbolic_in_the_tokens() -> None:
    tokens, ranks = symbol("T"), (8, 4, 2)
    spec = AttentionSpec.bilinear(128, 8, 256, families.mlr((128, 128), ranks))
    report = mlbtc.analyze(spec)
    features = 8 + 2 * 4 + 4 * 2
    assert report.scores == tokens**2 * 8 * features
    assert report.query_key == 2 * tokens * 128 * 14 * 8
    assert report.key_cache == tokens * 8 * features
    assert report.rank.value == features
    assert report.bind(T=256).scores.value == 256**2 * 8 * features


def test_the_report_names_the_splits_it_rejected() -> None:
    report = mlbtc.analyze(AttentionSpec.bilinear(64, 4, 128, families.btt((64, 64), 2)))
    found = report.to_json()["score"]
    assert found["features"] == 64
    (level,) = found["levels"]
    assert (level["chosen"]["query"], level["chosen"]["key"]) == ([], [0, 1])
    assert [split["features"] for split in level["rejected"]] == [64, 128, 2 * 8**4]
    costs = [split["cost"] for split in level["rejected"]]
    assert costs == sorted(costs)
    assert level["chosen"]["cost"] == found["macs_per_head"] == 128**2 * 64 + 128 * 2 * 2 * 64 * 8
    assert "query x \\| key f0, f1" in report.to_markdown()


# Specs

HEAD = "name: a\nattention:\n  variant: bilinear\n  width: 16\n  heads: 2\n  context: 8\n"
FILES = {
    "family": "  score: {family: btt, rank: 1}\n",
    "levels": "  score:\n    levels:\n      - {blocks: 1, rank: 2}\n      - {family: diagonal}\n",
    "one-level": "  score: {blocks: 4, rank: 2, scale: 0.5}\n",
    "einsum": '  score: {einsum: "i r, j r -> i j", sizes: {r: 3}}\n',
}


@pytest.mark.parametrize("text", FILES.values(), ids=FILES.keys())
def test_yaml_and_back(text: str) -> None:
    spec = mlbtc.loads(HEAD + text)
    assert isinstance(spec, AttentionSpec)
    assert mlbtc.loads(spec.to_yaml()) == spec
    assert spec.variant == "bilinear"


BAD_FILES = {
    "no-score": ("", 3, "score"),
    "score-is-text": ("  score: btt\n", 7, "a mapping"),
    "unknown-family": ("  score: {family: bttt}\n", 7, "btt"),
    "no-rank": ("  score: {family: btt}\n", 7, "rank"),
    "blocks-do-not-divide": (
        "  score:\n    levels:\n      - {blocks: 1, rank: 2}\n      - {blocks: 3, rank: 1}\n",
        10,
        "16",
    ),
    "symbol": ("  score: {blocks: 1, rank: r}\n", 7, "symbols r"),
    "empty": ("  score: {levels: []}\n", 7, "at least one"),
    "levels-and-more": ("  score: {levels: [{blocks: 1}], rank: 3}\n", 7, "rank"),
    "ranks": ("  score: {blocks: 2}\n  ranks: [4, 4]\n", 8, "variant mlr"),
    "window": ("  score: {blocks: 2}\n  window: 4\n", 8, "variant sliding_window"),
}


@pytest.mark.parametrize(("rest", "line", "word"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files_name_line_and_remedy(rest: str, line: int, word: str) -> None:
    with pytest.raises(SpecError) as caught:
        mlbtc.loads(HEAD + rest, source="bad.yaml")
    assert str(caught.value).startswith(f"bad.yaml:{line}: ")
    assert word in str(caught.value)


def test_bad_scores() -> None:
    for score, word in ((families.btt((8, 8), 1), "16"), ("btt", "str"), (families.low_rank(("D", "D"), 2), "D")):
        with pytest.raises(SpecError, match=word):
            AttentionSpec.bilinear(16, 2, 8, score)
