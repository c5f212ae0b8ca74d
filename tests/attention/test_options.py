"""Options of layers: scales, means over levels, capped factors, rotated features; conformance, closed forms, errors."""

import math
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import mlbtc
from mlbtc import AttentionSpec, families
from mlbtc.attention import mlr_attention
from mlbtc.attention.kernels.levels import average_levels, rotate_levels
from mlbtc.errors import SpecError
from tests.attention.conformance import LayerConformance, batch_of, make, report_of, sets_of
from tests.attention.definition import layer_by_definition

N = 12
BTT = families.btt((N, N), 1)
LOW = families.low_rank((N, N), 2)
SUM = families.low_rank_plus_diagonal((N, N), 1)


class TestOptions(LayerConformance):
    SPECS: ClassVar = {
        "standard-mup": AttentionSpec.standard(N, 3, 20, scale="mup", qk_norm=True),
        "standard-rope": AttentionSpec.standard(N, 3, 20, rope=True),
        "mlr-mup": AttentionSpec.mlr(N, 2, (3, 2, 1), 24, (24, 6, 3), scale="mup"),
        "mlr-depth": AttentionSpec.mlr(N, 2, (3, 2, 1), 24, (24, 6, 3), divide_by_depth=True),
        "mlr-everything": AttentionSpec.mlr(
            N, 2, (3, 2, 1), 24, (24, 6, 3), qk_norm=True, scale="mup", divide_by_depth=True, rope=50.0
        ),
        "mlr-bidirectional": AttentionSpec.mlr(N, 2, (4, 2), 24, causal=False, divide_by_depth=True, rope=True),
        "window-mup-rope": AttentionSpec.sliding_window(N, 3, 20, 5, scale="mup", rope=True),
        "both-mup-rope": AttentionSpec.global_sliding_window(N, 2, 20, 5, (5, 1), scale="mup", rope={"base": 100}),
        "bilinear-mup": AttentionSpec.bilinear(N, 2, 20, families.mlr((N, N), (2, 1)), scale="mup"),
        "mlbtc-mup-depth": AttentionSpec.mlbtc(
            N, 2, 24, [(24, LOW), (12, SUM), (3, BTT)], scale="mup", divide_by_depth=True
        ),
        "mlbtc-depth": AttentionSpec.mlbtc(N, 2, 24, [(24, BTT), (6, LOW)], divide_by_depth=True),
    }


CAPPED = {
    "btt": AttentionSpec.bilinear(N, 2, 20, BTT, rms_cap=True),
    "mlbtc": AttentionSpec.mlbtc(N, 2, 24, [(24, BTT), (6, LOW)], rms_cap=True, scale="mup"),
}
# sqrt(min(fan in, fan out)) / fan in of the batched products, heads that share an input side by side; b, a, c, d, s of
# the tensor train are 4, 3, 3, 4, 1.
CAPS = {
    "level0_factor0": math.sqrt(3) / 3,
    "level0_factor1": math.sqrt(4) / 4,
    "level1_factor0": math.sqrt(4) / 12,
    "level1_factor1": math.sqrt(4) / 12,
}


def capped(layer: nn.Module) -> dict[str, Tensor]:
    """Return the weights of a layer with the factors over max(1, RMS / cap)."""
    weights = dict(layer.named_parameters())
    for name, cap in CAPS.items():
        if name in weights:
            rms = torch.sqrt(weights[name].square().mean() + 1e-8)
            weights[name] = weights[name] / max(1.0, float(rms.detach()) / cap)
    return weights


@pytest.mark.parametrize("spec", CAPPED.values(), ids=CAPPED.keys())
@pytest.mark.parametrize("size", [0.01, 3.0], ids=["below", "above"])
def test_factors_are_capped(spec: AttentionSpec, size: float) -> None:
    layer, x = make(spec), batch_of(spec, 30)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            if name.startswith("level"):
                parameter *= size
        expected = layer_by_definition(spec, capped(layer), x, sets_of(spec))
        torch.testing.assert_close(layer(x), expected, rtol=1e-9, atol=1e-9)
        if size > 1:
            plain = layer_by_definition(spec, dict(layer.named_parameters()), x, sets_of(spec))
            assert not torch.allclose(plain, expected, rtol=1e-3)


class TestCapped(LayerConformance):
    SPECS: ClassVar = CAPPED

    def expected(self, spec: AttentionSpec, layer: nn.Module, x: Tensor) -> Tensor:
        weights = dict(layer.named_parameters())
        for name, cap in CAPS.items():
            if name in weights:
                rms = (weights[name].square().mean() + 1e-8).sqrt()
                weights[name] = weights[name] / torch.maximum(rms / cap, torch.ones_like(rms))
        return layer_by_definition(spec, weights, x, sets_of(spec))


# Rotations


def test_rope_of_one_level_is_the_rotate_half_convention() -> None:
    """As in the models of Hugging Face: x cos + rotate_half(x) sin with the angles of both halves side by side."""
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    frequencies = 10_000.0 ** (-torch.arange(0, 8, 2, dtype=torch.float64) / 8)
    angles = torch.arange(9, dtype=torch.float64)[:, None] * torch.cat([frequencies, frequencies])
    halves = torch.cat([-x[..., 4:], x[..., :4]], dim=-1)
    expected = x * angles.cos() + halves * angles.sin()
    torch.testing.assert_close(rotate_levels(x, torch.arange(9), (8,), 10_000.0), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("ranks", [(4, 2), (1, 3, 2), (5,)], ids=str)
def test_scores_of_rotated_levels_depend_on_distances(ranks: tuple[int, ...]) -> None:
    query, key = torch.randn(2, 1, 1, 1, sum(ranks), dtype=torch.float64)
    starts = [sum(ranks[:level]) for level in range(len(ranks) + 1)]
    for count in starts[1:]:  # any number of leading levels
        scores = []
        for shift in (0, 5, 1000):
            q = rotate_levels(query, torch.tensor([7 + shift]), ranks, 100.0)[..., :count]
            k = rotate_levels(key, torch.tensor([3 + shift]), ranks, 100.0)[..., :count]
            scores.append((q * k).sum())
        torch.testing.assert_close(scores[1:], scores[:1] * 2, rtol=1e-9, atol=1e-9)
    if ranks[-1] % 2:
        turned = rotate_levels(query, torch.tensor([7]), ranks, 100.0)
        assert torch.equal(turned[..., -1], query[..., -1])


# Means over levels


@pytest.mark.parametrize("backend", ["reference", "strips", "expanded", "cpp"])
def test_average_levels_on_every_backend(backend: str) -> None:
    if backend == "cpp" and mlbtc.attention.choose_backend(9, 9, (1,), (9,)).backend != "cpp":
        pytest.skip("there is no C++ compiler")
    query, key, value = (torch.randn(1, 2, 150, n, dtype=torch.float64) for n in (6, 6, 4))
    wide_query, wide_key = average_levels(query, key, (3, 2, 1))
    found = mlr_attention(wide_query, wide_key, value, (3, 5, 6), (None, 30, 10), backend=backend)
    places, scores, depth = torch.arange(150), 0, torch.zeros(150, 150)
    for (start, stop), block in zip(((0, 3), (3, 5), (5, 6)), (150, 30, 10), strict=True):
        inside = places[:, None] // block == places // block
        scores = scores + inside * (query[..., start:stop] @ key[..., start:stop].mT)
        depth += inside
    scores = (scores / depth / math.sqrt(6)).masked_fill(places[:, None] < places, float("-inf"))
    torch.testing.assert_close(found, scores.softmax(-1) @ value, rtol=1e-10, atol=1e-10)


def test_the_report_counts_what_means_over_levels_multiply() -> None:
    report = report_of(AttentionSpec.mlr(512, 8, (32, 16, 16), 1024, divide_by_depth=True), 1024)
    assert report.scores.value == 8 * 1024 * (32 * 1024 + 48 * 512 + 64 * 256)
    assert report.key_cache.value == 8 * (32 * 1024 + 48 * 512 + 64 * 256)
    plain = report_of(AttentionSpec.mlr(512, 8, (32, 16, 16), 1024), 1024)
    assert (report.rank, report.query_key, report.parameters) == (plain.rank, plain.query_key, plain.parameters)


# Scales


@pytest.mark.parametrize("head", [4, 64])
def test_mup_equals_the_standard_scale_of_a_head_of_64(head: int) -> None:
    plain, mup = (AttentionSpec.standard(2 * head, 2, 16, scale=scale) for scale in ("standard", "mup"))
    layers = make(plain), make(mup)
    layers[1].load_state_dict(layers[0].state_dict())
    x = batch_of(plain, 9)
    assert torch.allclose(layers[0](x), layers[1](x)) == (head == 64)


# Specs

GOOD = {
    "rope-true": ("  variant: standard\n  rope: true\n", {"rope": 10_000.0}),
    "rope-false": ("  variant: standard\n  rope: false\n", {"rope": None}),
    "rope-default": ("  variant: standard\n  rope: {}\n", {"rope": 10_000.0}),
    "rope-base": ("  variant: standard\n  rope: {base: 500.5}\n", {"rope": 500.5}),
    "mup": ("  variant: sliding_window\n  window: 3\n  scale: mup\n", {"scale": "mup"}),
    "depth": ("  variant: mlr\n  ranks: [4, 4]\n  divide_by_depth: true\n", {"divide_by_depth": True}),
    "cap": ("  variant: bilinear\n  score: {family: dense}\n  rms_cap: true\n", {"rms_cap": True}),
}
HEAD = "name: a\nattention:\n  width: 16\n  heads: 2\n  context: 8\n"


@pytest.mark.parametrize(("rest", "options"), GOOD.values(), ids=GOOD.keys())
def test_options_of_files(rest: str, options: dict[str, Any]) -> None:
    spec = mlbtc.loads(HEAD + rest)
    assert {key: getattr(spec, key) for key in options} == options
    assert mlbtc.loads(spec.to_yaml()) == spec


BAD_FILES = {
    "scale": ("  variant: standard\n  scale: mub\n", 7, "mup"),
    "scale-number": ("  variant: standard\n  scale: 3\n", 7, "a string"),
    "rope-number": ("  variant: standard\n  rope: 3\n", 7, "mapping"),
    "rope-base-word": ("  variant: standard\n  rope: {base: x}\n", 7, "number"),
    "rope-base-small": ("  variant: standard\n  rope: {base: 0.5}\n", 7, "at least 1"),
    "rope-key": ("  variant: standard\n  rope: {bose: 5}\n", 7, "base"),
    "rope-of-a-spec": ("  variant: bilinear\n  score: {family: dense}\n  rope: true\n", 8, "projections"),
    "depth-of-standard": ("  variant: standard\n  divide_by_depth: true\n", 7, "mlr, mlbtc"),
    "depth-word": ("  variant: mlr\n  ranks: [8]\n  divide_by_depth: yes\n", 8, "true or false"),
    "cap-of-standard": ("  variant: standard\n  rms_cap: true\n", 7, "bilinear, mlbtc"),
    "cap-number": ("  variant: standard\n  rms_cap: 1\n", 7, "true or false"),
}


@pytest.mark.parametrize(("rest", "line", "word"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files_name_line_and_remedy(rest: str, line: int, word: str) -> None:
    with pytest.raises(SpecError) as caught:
        mlbtc.loads(HEAD + rest, source="bad.yaml")
    assert str(caught.value).startswith(f"bad.yaml:{line}: ")
    assert word in str(caught.value)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "scale": ({"scale": "mu-p"}, "standard or mup"),
    "scale-none": ({"scale": None}, "standard or mup"),
    "rope-nan": ({"rope": math.nan}, "at least 1"),
    "rope-word": ({"rope": "yes"}, "at least 1"),
    "rope-key": ({"rope": {"theta": 5}}, "base"),
    "depth": ({"divide_by_depth": 1}, "true or false"),
    "cap": ({"rms_cap": "yes"}, "true or false"),
}


@pytest.mark.parametrize(("options", "word"), BAD.values(), ids=BAD.keys())
def test_bad_options(options: dict[str, Any], word: str) -> None:
    with pytest.raises(SpecError, match=word):
        AttentionSpec.standard(16, 2, 8, **options)


def test_str_says_the_options() -> None:
    text = str(AttentionSpec.mlr(N, 2, (4, 2), 24, scale="mup", divide_by_depth=True, rope=500))
    for word in ("muP", "depth", "RoPE of base 500"):
        assert word in text
