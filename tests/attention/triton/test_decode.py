"""Decoding in Triton: what is planned, emitted and chosen; the kernels themselves run in processes of their own."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc.attention import decoders
from mlbtc.attention.triton import AttentionProblem
from mlbtc.attention.triton.decode import choose_splits
from mlbtc.attention.triton.decode_plan import MOST_SPLITS, decode_source, plan_decode
from mlbtc.codegen.triton import support
from mlbtc.errors import SpecError
from tests.attention.triton.rerun import rerun


def problem(ranks: tuple[int, ...], width: int = 64) -> AttentionProblem:
    blocks = (None, *(8192 >> level for level in range(1, len(ranks))))
    return AttentionProblem(ranks, blocks, (0.125,) * len(ranks), width)


def test_kernels_in_the_interpreter() -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    rerun("kernels_decode.py", interpreted=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_kernels_on_the_gpu() -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    rerun("kernels_decode.py", interpreted=False)


# The plan -------------------------------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None, derandomize=True)
@given(ranks=st.lists(st.integers(1, 200), min_size=1, max_size=4), groups=st.integers(1, 40))
def test_pieces_hold_each_feature_once(ranks: list[int], groups: int) -> None:
    plan = plan_decode(problem(tuple(ranks)), groups)
    held = [piece.offset + column for piece in plan.pieces for column in range(piece.real)]
    assert held == list(range(sum(ranks)))
    for level in plan.levels:
        own = [piece.start + column for piece in level.pieces for column in range(piece.real)]
        assert own == list(range(level.rank))
    assert {piece.width for piece in plan.pieces} <= {16, 32, 64}
    assert plan.width < sum(ranks) + 16 * len(ranks)
    assert plan.rows >= max(16, groups)


def test_a_plan_says_its_widths() -> None:
    text = str(plan_decode(problem((48, 16)), groups=4))
    assert "ranks 48|16, blocks all|4096" in text
    assert "64 features in products of 32 + 16 + 16" in text


def test_levels_are_aligned_to_panels_or_not() -> None:
    plan = plan_decode(AttentionProblem((4, 4, 4), (None, 192, 96), (1.0,) * 3, 8))
    assert [level.aligned for level in plan.levels] == [True, True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": 0}, "groups is at least 1, found 0"),
        ({"window": 0}, "window is at least 1, found 0"),
        ({"window": 8}, "a window has one level of the whole sequence"),
    ],
)
def test_plans_that_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        plan_decode(problem((8, 8)), **arguments)


@pytest.mark.parametrize("window", [None, 100])
def test_source_is_deterministic_and_compiles(window: int | None) -> None:
    plan = plan_decode(problem((64,)) if window else problem((20, 6, 6)), 2, window)
    source = decode_source(plan)
    compile(source, "decode.py", "exec")
    assert source == decode_source(plan)
    assert max(map(len, source.splitlines())) <= 120
    # Sizes that grow with the sequences are arguments that no kernel is compiled for.
    for name in plan.running_sizes:
        assert f'"{name}"' in source.partition("def mlr_decode_split")[0]


# What is chosen -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "capacity", "processors", "splits"),
    [(8, 65536, 132, 33), (1, 1 << 20, 132, 128), (1024, 65536, 132, 1), (8, 1024, 132, 4), (8, 64, 132, 1)],
)
def test_parts_fill_the_gpu_but_are_no_shorter_than_a_few_panels(
    pairs: int, capacity: int, processors: int, splits: int
) -> None:
    assert choose_splits(pairs, capacity, processors) == splits <= MOST_SPLITS


def test_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.setattr(support, "interpreting", lambda: False)
    choose = decoders.choose_decoder
    assert choose("cuda", torch.bfloat16, 64).backend == "triton"
    assert str(choose("cuda", torch.float64, 64)).endswith("there are no Triton kernels for torch.float64")
    assert choose("cuda", torch.float16, 257).reason.endswith("values of up to 256 features, found 257")
    assert choose("mps", torch.float16, 64).reason.endswith("run on GPUs of NVIDIA and AMD, the tensors are on mps")
    assert choose("cpu", torch.float32, 64).backend in ("cpp", "torch")
    monkeypatch.setattr(support, "interpreting", lambda: True)
    assert choose("cpu", torch.float32, 64).backend == "triton"
    assert choose("cpu", torch.float64, 64).backend in ("cpp", "torch")
