"""What `mlr_attention` refuses, and how it says so."""

import re
from typing import Any

import pytest
import torch
from torch import Tensor

from mlbtc.attention import mlr_attention
from mlbtc.errors import BackendError, MlbtcError, SpecError

GOOD: dict[str, Any] = {"query": (1, 2, 6, 3), "key": (1, 2, 6, 3), "value": (1, 2, 6, 4), "ranks": [2, 1]}
BAD_CALLS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "query-of-three-axes": ({"query": (2, 6, 3)}, ["query", "(2, 6, 3)"]),
    "key-of-five-axes": ({"key": (1, 1, 2, 6, 3)}, ["key", "(1, 1, 2, 6, 3)"]),
    "value-of-two-axes": ({"value": (6, 4)}, ["value", "(6, 4)"]),
    "no-ranks": ({"ranks": [], "block_sizes": []}, ["rank"]),
    "more-ranks-than-blocks": ({"ranks": [1, 1, 1]}, ["3", "2"]),
    "zero-rank": ({"ranks": [3, 0]}, ["[3, 0]"]),
    "negative-rank": ({"ranks": [4, -1]}, ["[4, -1]"]),
    "ranks-and-features": ({"ranks": [2, 2]}, ["4", "3"]),
    "query-and-key-features": ({"key": (1, 2, 6, 4)}, ["3", "4"]),
    "batches": ({"key": (2, 2, 6, 3), "value": (2, 2, 6, 4)}, ["(1, 2, 6, 3)", "(2, 2, 6, 3)"]),
    "heads-do-not-divide": ({"query": (1, 3, 6, 3)}, ["(1, 3, 6, 3)", "(1, 2, 6, 3)"]),
    "key-and-value-heads": ({"value": (1, 1, 6, 4)}, ["(1, 1, 6, 4)"]),
    "key-and-value-tokens": ({"value": (1, 2, 5, 4)}, ["(1, 2, 5, 4)"]),
    "more-queries-than-keys": ({"query": (1, 2, 7, 3)}, ["7", "6"]),
    "blocks-not-nested": ({"block_sizes": [6, 4]}, ["[6, 4]"]),
    "blocks-grow": ({"block_sizes": [3, 6]}, ["[3, 6]"]),
    "zero-block": ({"block_sizes": [None, 0]}, ["[None, 0]"]),
    "negative-block": ({"block_sizes": [-4, 2]}, ["[-4, 2]"]),
    "scales": ({"scale": [1.0, 2.0, 3.0]}, ["3", "2"]),
}


def call(changes: dict[str, Any]) -> Tensor:
    arguments = {**GOOD, "block_sizes": [None, 2], **changes}
    tensors = [torch.zeros(arguments.pop(name)) for name in ("query", "key", "value")]
    return mlr_attention(*tensors, arguments.pop("ranks"), arguments.pop("block_sizes"), **arguments)


def test_the_good_call_is_good() -> None:
    assert call({}).shape == (1, 2, 6, 4)


@pytest.mark.parametrize(("changes", "named"), BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_bad_calls(changes: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        call(changes)
    for word in named:
        assert word in str(caught.value)


@pytest.mark.parametrize("backend", ["cuda", "", "triton", "STRIPS"])
def test_unknown_backends(backend: str) -> None:
    with pytest.raises(BackendError, match=re.escape(repr(backend))) as caught:
        call({"backend": backend})
    assert "strips" in str(caught.value)


@pytest.mark.parametrize("backend", ["strips", "expanded"])
def test_fewer_queries_than_keys_need_the_reference(backend: str) -> None:
    with pytest.raises(BackendError, match="found 4 and 6") as caught:
        call({"query": (1, 2, 4, 3), "backend": backend})
    assert "reference" in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"key": (1, 0, 6, 3), "value": (1, 0, 6, 4)},
        {"ranks": [1.5, 1.5]},
        {"block_sizes": ["a", 2]},
        {"scale": "half"},
        {"scale": float("nan")},
    ],
    ids=["no-key-heads", "ranks-not-whole", "blocks-that-are-words", "scale-word", "scale-nan"],
)
def test_bad_kinds_of_values(changes: dict[str, Any]) -> None:
    with pytest.raises(MlbtcError):
        call(changes)


@pytest.mark.parametrize("dtypes", [(torch.float32, torch.float64), (torch.int64, torch.int64)], ids=str)
def test_dtypes_that_do_not_fit(dtypes: tuple[torch.dtype, torch.dtype]) -> None:
    one, two = (torch.ones(1, 1, 5, 3, dtype=dtype) for dtype in dtypes)
    with pytest.raises(MlbtcError):
        mlr_attention(one, two, two, [2, 1], [None, 2], backend="strips")
