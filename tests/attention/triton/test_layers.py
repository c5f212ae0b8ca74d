"""Layers on the Triton target: what is emitted and what refuses; the kernels run in a process apart."""

import pytest
import torch

import mlbtc
from mlbtc import AttentionSpec
from mlbtc.codegen.triton import support
from mlbtc.errors import BackendError
from tests.attention.triton.rerun import rerun

SPEC = AttentionSpec.mlr(32, 2, (8, 8), 64)


def test_layers_in_the_interpreter() -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    rerun("kernels_layers.py", interpreted=True)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_layers_on_the_gpu() -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    rerun("kernels_layers.py", interpreted=False)


def test_a_file_is_emitted_without_triton_and_without_a_gpu() -> None:
    source = mlbtc.generate(SPEC, target="triton")
    compile(source, "kernels.py", "exec")
    assert source == mlbtc.generate(SPEC, target="triton")
    assert "Needs torch and triton only." in source
    for kernel in ("mlr_forward", "mlr_dq", "mlr_dkdv"):
        assert f"def {kernel}(" in source
        assert f"def {kernel}_cut(" in source


def test_heads_that_attend_alike_share_kernels() -> None:
    part = AttentionSpec.mlr(16, 1, (12, 4), 64)
    other = AttentionSpec.mlr(16, 1, (4, 12), 64)
    source = mlbtc.generate(AttentionSpec.mixed(48, 3, 64, [part, part, other]), target="triton")
    assert source.count("def mlr_forward") == 4


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        (AttentionSpec.sliding_window(32, 2, 64, 8, name="near"), "near is sliding_window"),
        (AttentionSpec.bilinear(32, 2, 64, mlbtc.families.btt((32, 32), 1), name="blocks"), "blocks is bilinear"),
    ],
)
def test_variants_without_kernels(spec: AttentionSpec, found: str) -> None:
    with pytest.raises(BackendError, match=f"has kernels for standard and mlr attention, {found}; use 'torch'"):
        mlbtc.generate(spec, target="triton")


def test_a_layer_on_a_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.setattr(support, "interpreting", lambda: False)
    with pytest.raises(
        BackendError, match=r"target 'triton' cannot run: .* run on GPUs; .* TRITON_INTERPRET=1 .*; use"
    ):
        mlbtc.compile(SPEC, target="triton")
    with pytest.raises(BackendError, match=r"no Triton kernels for torch.float64; use 'torch'"):
        mlbtc.compile(SPEC, target="triton", device="cuda", dtype=torch.float64)
