"""Layers with several levels of blocks and a matrix for each: conformance, special cases, costs, files."""

import math
from typing import ClassVar

import pytest
import torch

import mlbtc
from mlbtc import MLBTC, AttentionSpec, Level, families, symbol
from mlbtc.errors import SpecError
from tests.attention.conformance import LayerConformance, batch_of, expected_of, make, report_of

N = 12
THIRDS = [(5 * i + 3) % N for i in range(N)]
BTT = families.btt((N, N), 1)
LOW = families.low_rank((N, N), 2)
SUM = families.low_rank_plus_diagonal((N, N), 1)
MOVED = MLBTC((N, N), [Level(1, 2, 0.5, (THIRDS, None)), Level(3, 1, -2.0, (None, THIRDS))])
COSTS = ("parameters", "macs", "flops", "scores", "query_key", "value_output", "values", "key_cache", "value_cache")


class TestMLBTC(LayerConformance):
    SPECS: ClassVar = {
        "btt-then-low-rank": AttentionSpec.mlbtc(N, 3, 24, [(24, BTT), (6, LOW)]),
        "three-levels": AttentionSpec.mlbtc(N, 2, 24, [(24, LOW), (12, SUM), (3, MOVED)]),
        "bidirectional": AttentionSpec.mlbtc(N, 1, 30, [(30, MOVED), (15, BTT)], causal=False),
        "one-level": AttentionSpec.mlbtc(N, 2, 20, [(20, BTT)]),
        "blocks-of-one": AttentionSpec.mlbtc(N, 2, 10, [(10, LOW), (5, LOW), (1, SUM)]),
    }


@pytest.mark.parametrize(("width", "heads", "tokens"), [(24, 3, 32), (64, 4, 128), (512, 8, 1024)], ids=str)
@pytest.mark.parametrize("causal", [True, False], ids=["causal", "bidirectional"])
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
def test_low_rank_levels_are_mlr_attention(width: int, heads: int, tokens: int, causal: bool, norm: bool) -> None:
    head = width // heads
    ranks = (head // 2, head // 4, head - head // 2 - head // 4)
    mlr = AttentionSpec.mlr(width, heads, ranks, tokens, causal=causal, qk_norm=norm)
    levels = [(tokens // 2**n, families.low_rank((width, width), rank)) for n, rank in enumerate(ranks)]
    general = AttentionSpec.mlbtc(width, heads, tokens, levels, causal, norm)
    for count in (None, tokens, 7):
        one, other = report_of(mlr, count), report_of(general, count)
        for name in (*COSTS, "rank", "peak_elements", "levels", "certainty"):
            assert getattr(one, name) == getattr(other, name), name


def test_low_rank_levels_compute_mlr_attention() -> None:
    mlr = AttentionSpec.mlr(N, 2, (3, 2, 1), 24, (24, 6, 3))
    levels = [(block, families.low_rank((N, N), rank)) for block, rank in zip((24, 6, 3), (3, 2, 1), strict=True)]
    one, other = make(mlr), make(AttentionSpec.mlbtc(N, 2, 24, levels))
    with torch.no_grad():
        for level, (start, stop) in enumerate(((0, 3), (3, 5), (5, 6))):
            for factor, name in enumerate(("query", "key")):
                weight = getattr(one, name).weight.unflatten(0, (2, 6))[:, start:stop]  # (H, r, D)
                getattr(other, f"level{level}_factor{factor}").copy_(weight.mT[:, None])
        other.value.load_state_dict(one.value.state_dict())
        other.output.load_state_dict(one.output.state_dict())
        x = batch_of(mlr, 40)
        torch.testing.assert_close(other(x), one(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("score", [BTT, LOW, SUM, MOVED], ids=["btt", "low-rank", "sum", "moved"])
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "norm"])
def test_one_level_is_bilinear_attention(score: MLBTC, norm: bool) -> None:
    bilinear = AttentionSpec.bilinear(N, 3, 20, score, qk_norm=norm)
    general = AttentionSpec.mlbtc(N, 3, 20, [(20, score)], qk_norm=norm)
    for count in (None, 20, 7):
        one, other = report_of(bilinear, count), report_of(general, count)
        for name in (*COSTS, "rank", "peak_elements", "levels", "score"):
            assert getattr(one, name) == getattr(other, name), name
    layers = make(bilinear), make(general)
    layers[1].load_state_dict(layers[0].state_dict())
    assert torch.equal(layers[0](batch_of(bilinear, 20)), layers[1](batch_of(general, 20)))


def test_levels_with_norms_have_features_of_one_size() -> None:
    spec = AttentionSpec.mlbtc(N, 3, 24, [(24, BTT), (6, families.low_rank((N, N), 4))], qk_norm=True)
    layer = mlbtc.compile(spec, dtype=torch.float64)
    keys = layer.key_features(5 * batch_of(spec, 9)[0])
    for part in keys.split([12, 4], dim=-1):
        torch.testing.assert_close(part.square().mean(-1), torch.ones(9, 3, dtype=torch.float64), rtol=1e-2, atol=1e-2)


def test_features_beyond_those_of_a_value() -> None:
    width = 32
    shape = (width, width)
    scores = families.btt(shape, 1), families.monarch(shape, 4), families.dense(shape)
    spec = AttentionSpec.mlbtc(width, 8, 64, list(zip((64, 16, 4), scores, strict=True)))
    layer, x = make(spec), batch_of(spec, 140, batch=1)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected_of(spec, layer, x), rtol=1e-9, atol=1e-9)


# Costs


@pytest.mark.parametrize(("width", "heads", "tokens"), [(256, 8, 2048), (1024, 4, 4096)], ids=str)
def test_closed_forms_of_a_tensor_train_and_low_rank_blocks(width: int, heads: int, tokens: int) -> None:
    root = int(width**0.5)
    shape = (width, width)
    spec = AttentionSpec.mlbtc(
        width, heads, tokens, [(tokens, families.btt(shape, 1)), (tokens // 4, families.low_rank(shape, 8))]
    )
    report = report_of(spec, tokens)
    assert report.scores.value == heads * tokens * (tokens * width + tokens // 4 * 8)
    assert report.query_key.value == heads * tokens * (2 * width * root + 2 * width * 8)
    assert report.key_cache.value == heads * (tokens * width + tokens // 4 * 8)
    assert report.parameters.value == heads * (2 * width * root + 2 * width * 8) + 2 * width**2
    assert (report.rank.value, report.certainty) == (width, "exact")


def test_the_split_of_a_level_is_the_best_for_its_blocks() -> None:
    """In small blocks many features are cheap, so the split may keep fewer MACs per token instead."""
    score = MLBTC((64, 64), [Level.einsum("i r, r s, s j -> i j", {"r": 32, "s": 16})])
    for block in (4096, 512, 64, 8, 1):
        spec = AttentionSpec.mlbtc(64, 4, 4096, [(4096, families.low_rank((64, 64), 4)), (block, score)])
        plan = report_of(spec).score
        assert plan is not None
        part = plan.parts[1]
        tried = [part.chosen[0], *part.rejected[0]]
        costs = [4096 * block * split.features + 4096 * split.macs for split in tried]
        assert costs[0] == min(costs)
        assert costs[1:] == sorted(costs[1:])
        assert plan.cost == 4096 * (4096 * 4 + block * part.features + plan.macs)


def test_the_report_shows_the_splits_of_every_level() -> None:
    spec = AttentionSpec.mlbtc(64, 4, 128, [(128, families.btt((64, 64), 2)), (32, families.low_rank((64, 64), 8))])
    report = report_of(spec, 128)
    found = report.to_json()["score"]
    assert [level["block_size"] for level in found["levels"]] == [128, 32]
    assert [level["chosen"]["features"] for level in found["levels"]] == [64, 8]
    assert [level["chosen"]["cost"] for level in found["levels"]] == [
        128 * 128 * 64 + 128 * 2 * 2 * 64 * 8, 128 * 32 * 8 + 128 * 2 * 64 * 8,
    ]  # fmt: skip
    assert found["macs_per_head"] == sum(level["chosen"]["cost"] for level in found["levels"])
    assert 4 * found["macs_per_head"] == int(report.scores) + int(report.query_key)
    assert [(level["rank"], level["block_size"]) for level in report.to_json()["levels"]] == [(64, 128), (8, 32)]
    assert "| 1 | 32 | query f0 \\| key f1 | 8 |" in report.to_markdown()


def test_costs_stay_symbolic_in_the_tokens() -> None:
    tokens = symbol("T")
    spec = AttentionSpec.mlbtc(64, 4, 128, [(128, families.btt((64, 64), 1)), (64, families.low_rank((64, 64), 8))])
    report = report_of(spec)
    assert report.scores == 4 * tokens**2 * 64 + 4 * tokens**2 * 8 / 2
    assert report.key_cache == 4 * tokens * 64 + 4 * tokens * 8 / 2


# Specs

HEAD = "name: a\nattention:\n  variant: mlbtc\n  width: 16\n  heads: 2\n  context: 8\n"
BAD_FILES = {
    "no-levels": ("", 3, "levels"),
    "empty": ("  levels: []\n", 7, "levels"),
    "not-a-list": ("  levels: 3\n", 7, "a list"),
    "no-score": ("  levels:\n    - {block_size: 8}\n", 8, "score"),
    "no-block": ("  levels:\n    - {score: {family: dense}}\n", 8, "block_size"),
    "unknown-key": ("  levels:\n    - {block_size: 8, scores: {family: dense}}\n", 8, "score"),
    "first-block": ("  levels:\n    - {block_size: 4, score: {family: dense}}\n", 7, "8"),
    "not-nested": (
        "  levels:\n    - {block_size: 8, score: {family: dense}}\n    - {block_size: 3, score: {family: dense}}\n",
        7,
        "3 does not divide 8",
    ),
    "unknown-family": (
        "  levels:\n    - {block_size: 8, score: {family: dense}}\n    - {block_size: 4, score: {family: bttt}}\n",
        9,
        "btt",
    ),
    "does-not-divide": ("  levels:\n    - block_size: 8\n      score: {levels: [{blocks: 3, rank: 1}]}\n", 9, "16"),
    "symbol": ("  levels:\n    - {block_size: 8, score: {blocks: 1, rank: r}}\n", 7, "symbols r"),
    "ranks": ("  levels:\n    - {block_size: 8, score: {family: dense}}\n  ranks: [8]\n", 9, "variant mlr"),
    "score": ("  score: {family: dense}\n", 7, "variant bilinear"),
}  # fmt: skip


@pytest.mark.parametrize(("rest", "line", "word"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files_name_line_and_remedy(rest: str, line: int, word: str) -> None:
    with pytest.raises(SpecError) as caught:
        mlbtc.loads(HEAD + rest, source="bad.yaml")
    assert str(caught.value).startswith(f"bad.yaml:{line}: ")
    assert word in str(caught.value)


BAD = {
    "text": ("levels", "list"),
    "a-spec": (BTT, "list"),
    "no-pair": ([BTT], r"levels\[0\]"),
    "three": ([(8, BTT, 1)], r"levels\[0\]"),
    "wrong-shape": ([(8, BTT), (4, families.dense((8, 8)))], r"levels\[1\].*12"),
    "no-spec": ([(8, "btt")], "str"),
    "no-number": ([("8", BTT)], "integer"),
    "zero": ([(0, BTT)], "at least 1"),
    "too-many": ([(8, BTT)] * 65, "64"),
    "too-many-terms": ([(8, MLBTC((N, N), [Level(1, 1)] * 200)), (8, MLBTC((N, N), [Level(1, 1)] * 100))], "256"),
}


@pytest.mark.parametrize(("levels", "word"), BAD.values(), ids=BAD.keys())
def test_bad_levels(levels: object, word: str) -> None:
    with pytest.raises(SpecError, match=word):
        AttentionSpec.mlbtc(N, 2, 8, levels)


# The paper's Tables 2 and 3, for widths that it does not print


@pytest.mark.parametrize(("width", "heads", "tokens"), [(144, 4, 288), (400, 8, 2400), (2304, 12, 4096)], ids=str)
def test_the_paper_s_tables_come_out_of_the_compiler(width: int, heads: int, tokens: int) -> None:
    head, root, shape = width // heads, math.isqrt(width), (width, width)

    def costs(spec: AttentionSpec) -> tuple[int, int]:
        report = report_of(spec, tokens)
        return int(report.scores), int(report.query_key)

    dense = 2 * tokens * width**2
    assert costs(AttentionSpec.standard(width, heads, tokens)) == (tokens**2 * head * heads, dense)
    for rank in (1, 2):
        spec = AttentionSpec.bilinear(width, heads, tokens, families.btt(shape, rank))
        assert costs(spec) == (tokens**2 * width * heads, 2 * rank * tokens * width * root * heads)
    ranks = (head // 4, head // 8, head // 8)
    bilinear = AttentionSpec.bilinear(width, heads, tokens, families.mlr(shape, ranks))
    features = sum(2**level * rank for level, rank in enumerate(ranks))
    assert costs(bilinear) == (tokens**2 * heads * features, 2 * tokens * width * sum(ranks) * heads)
    ranks = (head - 2 * (head // 4), head // 4, head // 4)
    nested = sum(tokens // 2**level * rank for level, rank in enumerate(ranks))
    assert costs(AttentionSpec.mlr(width, heads, ranks, tokens)) == (tokens * heads * nested, dense)
    levels = [(tokens // 2**level, families.low_rank(shape, rank)) for level, rank in enumerate(ranks)]
    assert costs(AttentionSpec.mlbtc(width, heads, tokens, levels)) == (tokens * heads * nested, dense)
