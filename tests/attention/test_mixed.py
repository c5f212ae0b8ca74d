"""Layers whose heads attend in groups: conformance, sums of costs, files and what is refused."""

from typing import Any, ClassVar

import pytest
import torch

import mlbtc
from mlbtc import AttentionSpec, families
from mlbtc.errors import SpecError
from tests.attention.conformance import LayerConformance, batch_of, make, report_of

N = 12
MLR = AttentionSpec.mlr(8, 2, (2, 1, 1), 24, (24, 6, 3))
LOCAL = AttentionSpec.sliding_window(4, 1, 24, 5)
STANDARD = AttentionSpec.standard(4, 1, 24)


class TestMixed(LayerConformance):
    SPECS: ClassVar = {
        "mlr-and-window": AttentionSpec.mixed(N, 3, 24, [MLR, LOCAL]),
        "mlr-and-standard": AttentionSpec.mixed(N, 3, 24, [STANDARD, MLR]),
        "two-mlr-with-options": AttentionSpec.mixed(
            N, 3, 24,
            [
                AttentionSpec.mlr(8, 2, (3, 1), 24, qk_norm=True, scale="mup", rope=True),
                AttentionSpec.mlr(4, 1, (1, 2, 1), 24, (24, 12, 4), divide_by_depth=True),
            ],
        ),
        "bidirectional": AttentionSpec.mixed(
            8, 2, 20, [AttentionSpec.standard(4, 1, 20, False), AttentionSpec.mlr(4, 1, (2, 2), 20, None, False)], False
        ),
        "everything": AttentionSpec.mixed(
            16, 4, 24, [STANDARD, AttentionSpec.mlr(4, 1, (4,), 24, qk_norm=True), LOCAL,
                        AttentionSpec.global_sliding_window(4, 1, 24, 3, (3, 1), rope=True)],
        ),
    }  # fmt: skip


def test_groups_of_one_kind_are_the_layer_of_that_kind() -> None:
    whole = AttentionSpec.mlr(N, 3, (2, 1, 1), 24, (24, 6, 3))
    mixed = AttentionSpec.mixed(N, 3, 24, [AttentionSpec.mlr(4, 1, (2, 1, 1), 24, (24, 6, 3))] * 3)
    layers = make(whole), make(mixed)
    layers[1].load_state_dict(layers[0].state_dict())
    x = batch_of(whole, 40)
    torch.testing.assert_close(layers[1](x), layers[0](x), rtol=1e-12, atol=1e-12)
    one, other = report_of(whole, 24), report_of(mixed, 24)
    for name in ("parameters", "macs", "scores", "query_key", "values", "key_cache", "value_cache", "rank"):
        assert getattr(one, name) == getattr(other, name), name


@pytest.mark.parametrize("tokens", [24, 1024])
def test_costs_are_sums_over_the_groups(tokens: int) -> None:
    groups = AttentionSpec.mlr(256, 4, (48, 16), 1024), AttentionSpec.sliding_window(256, 4, 1024, 128)
    report = report_of(AttentionSpec.mixed(512, 8, 1024, groups), tokens)
    parts = [report_of(group, tokens) for group in groups]
    for name in ("scores", "values", "key_cache", "value_cache"):
        assert int(getattr(report, name)) == sum(int(getattr(part, name)) for part in parts), name
    assert report.query_key.value == report.value_output.value == 2 * tokens * 512**2
    assert report.parameters.value == 4 * 512**2
    assert report.rank.value == 64


def test_a_cache_of_groups_is_reordered_and_cropped() -> None:
    layer, x = make(TestMixed.SPECS["mlr-and-standard"]), batch_of(STANDARD, 10, batch=1).repeat(2, 1, 3)
    with torch.no_grad():
        cache = layer.new_cache(2)
        layer(x[:, :7], cache=cache)
        cache.crop(6)
        assert (cache.lengths, cache.batch) == ([6, 6], 2)
        cache.reorder([1, 1, 0])
        rows = x[[1, 1, 0]]
        torch.testing.assert_close(layer(rows[:, 6:], cache=cache), layer(rows)[:, 6:], rtol=1e-9, atol=1e-9)
        with pytest.raises(SpecError, match="crop"):
            cache.crop(1)
        assert cache.lengths == [10, 10, 10]


def test_a_cache_of_groups_is_copied_and_moved() -> None:
    spec = TestMixed.SPECS["everything"]
    layer, x = make(spec), batch_of(spec, 9, batch=2)
    with torch.no_grad():
        cache = layer.new_cache(2)
        layer(x[:, :7], cache=cache)
        copies = cache.clone(), cache.to("cpu", torch.float32).to(dtype=torch.float64)
        layer(x[:, :2], cache=cache)
        for copy, tolerance in zip(copies, (1e-9, 1e-4), strict=True):
            assert copy.lengths == [7, 7]
            found = layer(x[:, 7:], cache=copy)
            torch.testing.assert_close(found, layer(x)[:, 7:], rtol=tolerance, atol=tolerance)


# Specs

HEAD = "name: a\nattention:\n  variant: mixed\n  width: 16\n  heads: 4\n  context: 8\n"
BAD_FILES = {
    "no-groups": ("", 3, "groups"),
    "empty": ("  groups: []\n", 7, "groups"),
    "not-a-list": ("  groups: mlr\n", 7, "a list"),
    "too-few-heads": ("  groups:\n    - {heads: 3, variant: standard}\n", 5, "3"),
    "no-heads": ("  groups:\n    - {variant: standard}\n", 8, "heads"),
    "zero-heads": ("  groups:\n    - {heads: 0, variant: standard}\n", 8, "at least 1"),
    "ranks": ("  groups:\n    - {heads: 4, variant: mlr, ranks: [2, 1]}\n", 8, "width / heads is 4"),
    "own-width": ("  groups:\n    - {heads: 4, variant: standard, width: 16}\n", 8, "width"),
    "bilinear": ("  groups:\n    - {heads: 4, variant: bilinear}\n", 8, "score"),
    "mixed": ("  groups:\n    - {heads: 4, variant: mixed}\n", 8, "groups"),
    "scale-of-the-layer": ("  scale: mup\n  groups:\n    - {heads: 4, variant: standard}\n", 7, "groups"),
    "norm-of-the-layer": ("  qk_norm: true\n  groups:\n    - {heads: 4, variant: standard}\n", 7, "groups"),
    "rope-of-the-layer": ("  rope: true\n  groups:\n    - {heads: 4, variant: standard}\n", 7, "rope"),
    "window-bidirectional": (
        "  causal: false\n  groups:\n    - {heads: 4, variant: sliding_window, window: 3}\n", 9, "causal"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rest", "line", "word"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files_name_line_and_remedy(rest: str, line: int, word: str) -> None:
    with pytest.raises(SpecError) as caught:
        mlbtc.loads(HEAD + rest, source="bad.yaml")
    assert str(caught.value).startswith(f"bad.yaml:{line}: ")
    assert word in str(caught.value)


BAD: dict[str, tuple[Any, str]] = {
    "text": ("groups", "list"),
    "no-spec": ([MLR, "standard"], "str"),
    "context": ([MLR, AttentionSpec.standard(4, 1, 12)], "context 12"),
    "causal": ([MLR, AttentionSpec.standard(4, 1, 24, False)], "causal False"),
    "head": ([MLR, AttentionSpec.standard(6, 1, 24)], "width / heads 6"),
    "heads": ([MLR], "2 heads"),
    "bilinear": ([MLR, AttentionSpec.bilinear(4, 1, 24, families.dense((4, 4)))], "found bilinear"),
}


@pytest.mark.parametrize(("groups", "word"), BAD.values(), ids=BAD.keys())
def test_bad_groups(groups: Any, word: str) -> None:
    with pytest.raises(SpecError, match=word):
        AttentionSpec.mixed(N, 3, 24, groups)
