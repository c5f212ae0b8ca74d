"""Sliding windows, alone and beside global attention, against dense masks; what they cost; what is refused."""

import math
from typing import ClassVar

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import mlbtc
from mlbtc import AttentionSpec, symbol
from mlbtc.attention.kernels import window_attention
from mlbtc.errors import SpecError
from tests.attention.cases import TOLERANCES
from tests.attention.conformance import LayerConformance, batch_of

LOCAL = AttentionSpec.sliding_window(width=12, heads=3, context=16, window=3)
BOTH = AttentionSpec.global_sliding_window(width=12, heads=3, context=16, window=3)
SPECS = {
    "local": LOCAL,
    "local-norm": AttentionSpec.sliding_window(12, 3, 16, 5, qk_norm=True),
    "local-one-key": AttentionSpec.sliding_window(12, 3, 16, 1),
    "local-everything": AttentionSpec.sliding_window(12, 3, 16, 500),
    "both": BOTH,
    "both-published": AttentionSpec.global_sliding_window(12, 2, 16, 4, (5, 1), published=True, qk_norm=True),
}


class TestWindows(LayerConformance):
    SPECS: ClassVar = SPECS


SPEC = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())


def windowed(query: Tensor, key: Tensor, value: Tensor, window: int) -> Tensor:
    """Attend with a dense mask, in float64."""
    query, key, value = query.double(), key.double(), value.double()
    distance = torch.arange(query.shape[-2])[:, None] - torch.arange(query.shape[-2])
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    return scores.masked_fill((distance < 0) | (distance >= window), float("-inf")).softmax(-1) @ value


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("tokens", "window"), [(33, 1), (64, 32), (65, 33), (129, 64), (200, 70), (130, 129), (7, 7)], ids=str
)
def test_windows_of_every_length(tokens: int, window: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 2, tokens, n, generator=generator).to(dtype) for n in (5, 5, 8))
    found = window_attention(query, key, value, window)
    assert found.dtype == dtype
    tolerance = TOLERANCES[dtype]
    expected = windowed(query, key, value, window)
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("queries", "tokens", "window"),
    [(0, 9, 3), (1, 9, 3), (4, 70, 66), (5, 7, 500), (90, 100, 40), (40, 41, 1)],
    ids=str,
)
def test_queries_are_the_last_positions(queries: int, tokens: int, window: int) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 2, tokens, n, generator=generator).double() for n in (5, 5, 3))
    found = window_attention(query[:, :, tokens - queries :], key, value, window)
    expected = windowed(query, key, value, window)[:, :, tokens - queries :]
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("tokens", [16, 100])
def test_a_token_sees_the_window_and_nothing_else(tokens: int) -> None:
    layer, x = mlbtc.compile(LOCAL, dtype=torch.float64), batch_of(LOCAL, tokens)
    y = x.clone()
    y[:, 5] += 3
    moved = (layer(x) - layer(y)).abs().amax(dim=(0, 2)) > 1e-12
    assert moved.nonzero().flatten().tolist() == [5, 6, 7]


@SPEC
def test_weights_of_a_row_sum_to_one_or_two(spec: AttentionSpec) -> None:
    layer = mlbtc.compile(spec, dtype=torch.float64, bias=True)
    with torch.no_grad():
        layer.value.weight.zero_()
        layer.value.bias.fill_(1)
        layer.output.weight.copy_(torch.eye(12))
        found = layer(batch_of(spec, 50))
    torch.testing.assert_close(found, torch.full_like(found, 2.0 if spec.published else 1.0))


def test_a_window_computes_less_than_everything() -> None:
    wide = AttentionSpec.sliding_window(64, 4, 4096, 64)
    everything = AttentionSpec.sliding_window(64, 4, 4096, 4096)

    def counted(spec: AttentionSpec) -> int:
        layer = mlbtc.compile(spec, device="meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            layer(torch.zeros(1, 4096, 64, device="meta"))
        return counter.get_total_flops()

    assert counted(wide) < counted(everything) / 5


# Costs


def test_costs_of_a_window() -> None:
    report = mlbtc.analyze(AttentionSpec.sliding_window(512, 8, 1024, 128), batch=1024)
    assert report.scores.value == report.values.value == 1024 * 128 * 512
    assert report.key_cache.value == report.value_cache.value == 128 * 512
    assert report.query_key.value == 2 * 1024 * 512**2
    assert report.parameters.value == 4 * 512**2
    short = mlbtc.analyze(AttentionSpec.sliding_window(512, 8, 1024, 128), batch=64)
    assert short.scores.value == 64 * 64 * 512


def test_costs_of_both() -> None:
    spec = AttentionSpec.global_sliding_window(512, 8, 1024, 128, (48, 16))
    report = mlbtc.analyze(spec, batch=1024)
    assert report.scores.value == 8 * 1024 * (1024 * 48 + 128 * 16)
    assert report.values.value == 1024 * (1024 + 128) * 512
    assert report.key_cache.value == 8 * (1024 * 48 + 128 * 16)
    assert report.value_cache.value == 1024 * 512
    open_ = mlbtc.analyze(spec)
    assert open_.scores.symbolic.subs({symbol("T"): 1024}) == report.scores.value
    assert open_.bind(T=1024) == report


# Specs


def test_defaults_and_yaml() -> None:
    assert BOTH.ranks == (2, 2)
    for spec in SPECS.values():
        back = mlbtc.loads(spec.to_yaml())
        assert back == spec
        assert str(spec.window) in str(back)


HEAD = "name: a\nattention:\n  width: 16\n  heads: 2\n  context: 8\n"
BAD_FILES = {
    "no-window": ("  variant: sliding_window\n", 6, "window"),
    "zero": ("  variant: sliding_window\n  window: 0\n", 7, "at least 1"),
    "bidirectional": ("  variant: sliding_window\n  window: 3\n  causal: false\n", 8, "causal"),
    "ranks-of-a-window": ("  variant: sliding_window\n  window: 3\n  ranks: [8]\n", 8, "variant mlr"),
    "three-ranks": ("  variant: global_sliding_window\n  window: 3\n  ranks: [4, 2, 2]\n", 8, "[global, window]"),
    "ranks-do-not-add-up": ("  variant: global_sliding_window\n  window: 3\n  ranks: [4, 2]\n", 8, "8"),
    "published-word": ("  variant: global_sliding_window\n  window: 3\n  published: yes\n", 8, "true or false"),
    "published-elsewhere": ("  variant: standard\n  published: true\n", 7, "global_sliding_window"),
    "window-of-standard": ("  variant: standard\n  window: 4\n", 7, "sliding_window"),
}


@pytest.mark.parametrize(("rest", "line", "word"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files_name_line_and_remedy(rest: str, line: int, word: str) -> None:
    with pytest.raises(SpecError) as caught:
        mlbtc.loads(HEAD + rest, source="bad.yaml")
    assert str(caught.value).startswith(f"bad.yaml:{line}: ")
    assert word in str(caught.value)
