"""Costs of attention layers against the closed forms of the paper."""

import json
from fractions import Fraction

import pytest
import sympy as sp
import torch
from torch.utils.flop_counter import FlopCounterMode

import mlbtc
from mlbtc import AttentionSpec, symbol
from mlbtc.analysis import AttentionReport
from mlbtc.errors import MlbtcError

EIGHTHS = (8,) * 8
UNEVEN = (32, 8, 6, 4, 4, 4, 4, 2)
WIDTHS = ((64, 1, 128), (512, 8, 1024), (768, 12, 1024), (1024, 16, 2048))


def report_of(spec: AttentionSpec, tokens: int | None = None) -> AttentionReport:
    report = mlbtc.analyze(spec, batch=tokens)
    assert isinstance(report, AttentionReport)
    return report


def reduced(ranks: tuple[int, ...]) -> Fraction:
    """Return sum of r_l / 2^(l-1)."""
    return sum((Fraction(rank, 2**level) for level, rank in enumerate(ranks)), Fraction(0))


@pytest.mark.parametrize(("width", "heads", "tokens"), WIDTHS, ids=lambda v: str(v))
@pytest.mark.parametrize("ranks", [(64,), (48, 16), EIGHTHS, UNEVEN], ids=lambda r: "-".join(map(str, r)))
def test_closed_forms(ranks: tuple[int, ...], width: int, heads: int, tokens: int) -> None:
    spec = AttentionSpec.mlr(width=width, heads=heads, ranks=ranks, context=tokens)
    report = report_of(spec, tokens)
    scores = heads * tokens**2 * reduced(ranks)
    assert report.scores.value == scores
    assert report.query_key.value == report.value_output.value == 2 * tokens * width**2
    assert report.values.value == tokens**2 * width
    assert report.macs.value == 4 * tokens * width**2 + tokens**2 * width + scores
    assert report.flops.value == 2 * report.macs.value
    assert report.key_cache.value == heads * tokens * reduced(ranks)
    assert report.value_cache.value == tokens * width
    assert report.parameters.value == 4 * width**2
    assert dict(report.dense)["macs"].value == 4 * tokens * width**2 + 2 * tokens**2 * width


@pytest.mark.parametrize(("ranks", "ratio"), [(EIGHTHS, "4.016"), (UNEVEN, "1.664")], ids=["eighths", "uneven"])
def test_the_paper_s_ratios(ranks: tuple[int, ...], ratio: str) -> None:
    spec = AttentionSpec.mlr(width=512, heads=8, ranks=ranks, context=1024)
    report = report_of(spec, 1024)
    assert f"{1024**2 * 512 / int(report.scores):.3f}" == ratio
    assert f"{1024 * 512 / int(report.key_cache):.3f}" == ratio
    assert ratio in report.to_markdown()


@pytest.mark.parametrize(("width", "heads", "tokens"), WIDTHS, ids=lambda v: str(v))
def test_one_level_costs_what_standard_attention_costs(width: int, heads: int, tokens: int) -> None:
    standard = report_of(AttentionSpec.standard(width=width, heads=heads, context=tokens), tokens)
    one = report_of(AttentionSpec.mlr(width=width, heads=heads, ranks=(width // heads,), context=tokens), tokens)
    for name in ("parameters", "macs", "scores", "values", "key_cache", "value_cache", "peak_elements", "rank"):
        assert getattr(standard, name) == getattr(one, name)
    assert standard.macs == dict(standard.dense)["macs"]
    assert standard.key_cache.value == tokens * width


def test_symbolic_forms() -> None:
    tokens = symbol("T")
    report = report_of(AttentionSpec.mlr(width=512, heads=8, ranks=(48, 16), context=1024))
    assert report.scores == 8 * tokens**2 * (48 + sp.Rational(16, 2))
    assert report.key_cache == 8 * tokens * (48 + sp.Rational(16, 2))
    assert report.query_key == 2 * tokens * 512**2
    assert report.value_cache == 512 * tokens
    assert report.scores.value is None
    assert report.parameters.value == 4 * 512**2


def test_explicit_blocks_are_counted_as_they_are() -> None:
    spec = AttentionSpec.mlr(width=12, heads=2, ranks=(3, 2, 1), context=60, block_sizes=(60, 12, 4))
    report = report_of(spec, 60)
    assert report.scores.value == 2 * 60 * (3 * 60 + 2 * 12 + 1 * 4)
    assert report.key_cache.value == 2 * (3 * 60 + 2 * 12 + 1 * 4)
    short = report_of(spec, 6)
    assert short.scores.value == 2 * 6 * (3 * 6 + 2 * 6 + 1 * 4)
    assert report_of(spec).scores.symbolic.subs({symbol("T"): 60}) == report.scores.value


def test_a_norm_adds_two_weights_per_feature_of_a_head() -> None:
    plain, norm = (AttentionSpec.standard(width=12, heads=3, context=4, qk_norm=q) for q in (False, True))
    assert int(report_of(norm).parameters) == int(report_of(plain).parameters) + 2 * 4


def test_projections_equal_what_torch_counts() -> None:
    spec = AttentionSpec.mlr(width=32, heads=4, ranks=(4, 4), context=64)
    layer = mlbtc.compile(spec, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        for part in (layer.query, layer.key, layer.value, layer.output):
            part(torch.zeros(1, 64, 32, device="meta"))
    report = report_of(spec, 64)
    assert counter.get_total_flops() == 2 * (int(report.query_key) + int(report.value_output))


def test_bind() -> None:
    spec = AttentionSpec.mlr(width=512, heads=8, ranks=(48, 16), context=1024)
    assert report_of(spec).bind(T=2048) == report_of(spec, 2048)
    assert report_of(spec).bind() == report_of(spec)
    with pytest.raises(MlbtcError, match="'D'"):
        report_of(spec).bind(D=4)
    with pytest.raises(MlbtcError, match="at least 1"):
        report_of(spec).bind(T=0)


KEYS = {
    "name", "shape", "parameters", "macs", "flops", "rank", "peak_elements", "dense", "levels", "steps", "scores",
    "projections", "values", "key_cache", "value_cache",
}  # fmt: skip


@pytest.mark.parametrize("tokens", [None, 1024])
@pytest.mark.parametrize("ranks", [None, (48, 16)], ids=["standard", "mlr"])
def test_json_keys(ranks: tuple[int, ...] | None, tokens: int | None) -> None:
    spec = (
        AttentionSpec.standard(width=512, heads=8, context=1024, name="here")
        if ranks is None
        else AttentionSpec.mlr(width=512, heads=8, ranks=ranks, context=1024, name="here")
    )
    found = json.loads(json.dumps(report_of(spec, tokens).to_json()))
    assert set(found) >= KEYS
    assert found["name"] == "here"
    assert found["shape"] == [512, 512]
    assert set(found["projections"]) == {"query_key", "value_output"}
    assert found["rank"]["certainty"] == "exact"
    quantities = [found[key] for key in ("macs", "flops", "scores", "values", "key_cache", "value_cache")]
    for quantity in [*quantities, *found["projections"].values()]:
        assert set(quantity) == {"symbolic", "value"}
        assert isinstance(quantity["symbolic"], str)
        assert ("T" in quantity["symbolic"]) == (quantity["value"] is None) == (tokens is None)
    assert found["parameters"] == {"symbolic": "1048576", "value": 1048576}


@pytest.mark.parametrize("tokens", [1, 3, 7, 1023, 1025, 4096])
def test_every_quantity_has_a_value_once_the_tokens_are_a_number(tokens: int) -> None:
    found = report_of(AttentionSpec.mlr(width=8, heads=1, ranks=(5, 3), context=1024), tokens).to_json()
    missing = [
        key for key, quantity in found.items() if isinstance(quantity, dict) and quantity.get("value", 0) is None
    ]
    assert not missing


@pytest.mark.parametrize("tokens", [1, 512, 1024])
def test_the_cache_never_holds_more_than_standard_attention_s(tokens: int) -> None:
    report = report_of(AttentionSpec.mlr(width=512, heads=8, ranks=EIGHTHS, context=1024), tokens)
    if report.key_cache.value is not None:
        assert report.key_cache.value <= tokens * 512


def test_the_text_forms_agree_with_the_numbers() -> None:
    report = report_of(AttentionSpec.mlr(width=512, heads=8, ranks=(48, 16), context=1024), 1024)
    markdown = report.to_markdown()
    for quantity in (report.scores, report.macs, report.key_cache, report.value_cache, report.values):
        assert f"{int(quantity):,}" in markdown
    assert json.loads(str(report)) == report.to_json()
