"""Benchmarks on a GPU as far as a machine without one can tell: the timer, the cases on the CPU, and the command."""

import json
import sys
from functools import partial

import pytest
import torch

from mlbtc.attention.triton.roofline import backward_work, decode_work, forward_work
from mlbtc.benchmarks import cuda, gpu
from mlbtc.benchmarks.oracles import attention_results, attention_results_by_rows
from mlbtc.benchmarks.record import table
from mlbtc.benchmarks.resume import earlier_results
from mlbtc.benchmarks.runner import BenchmarkError, Settings, run_cases
from mlbtc.cli import main
from mlbtc.codegen.triton.roofline import H100, H200

QUICK = Settings(seconds=1e-6, warmup=0, repetitions=1, dtype=torch.bfloat16)


def test_events_enclose_the_call_and_the_flush_comes_first():
    happened = []

    class Event:
        def record(self):
            happened.append("event")

        def elapsed_time(self, end):
            assert end is not self
            return 2.5

    timer = cuda.EventTimer(Event, lambda: happened.append("flush"), lambda: happened.append("wait"))
    assert timer(lambda: happened.append("call")) == 2.5e-3
    assert happened == ["flush", "event", "call", "event", "wait"]


@pytest.mark.parametrize(
    ("name", "peaks"),
    [("NVIDIA H100 80GB HBM3", H100), ("NVIDIA H200", H200), ("NVIDIA H100 PCIe", None), ("NVIDIA A100-SXM4", None)],
)
def test_peaks_are_those_of_the_named_gpu(name, peaks):
    assert cuda.peaks_of(name) == peaks


@pytest.mark.parametrize("blocks", [(37, 16, 8), (48, 24, 12)])
@pytest.mark.parametrize("rows", [7, 64])
def test_rows_at_a_time_give_the_same_reference(blocks, rows):
    generator = torch.Generator().manual_seed(0)
    operands = [torch.randn(2, 2, 37, width, generator=generator) for width in (9, 9, 4, 4)]
    found = attention_results_by_rows(*operands, (4, 3, 2), blocks, rows=rows)
    for ours, theirs in zip(found, attention_results(*operands, (4, 3, 2), blocks), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def on_the_cpu(backends=("reference",), peaks=H100, tokens=64):
    return gpu.attention_cases([tokens], 1, 2, backends, names=["48|16"], flex=False, device="cpu", gpu=peaks)


def test_attention_against_the_kernels_that_run_here():
    forward, both = run_cases(on_the_cpu(), QUICK)
    assert [forward.mode, both.mode] == ["forward", "forward+backward"]
    timings = {timing.name: timing for timing in both.timings}
    assert both.rival == "sdpa flash"
    assert timings["sdpa flash"].ratio == 1
    assert {one.name for one in both.absent} == {"sdpa cuDNN", "sdpa efficient", "flash-attn"}
    works = [work(64, 2, (48, 16), (64, 32), 64) for work in (forward_work, backward_work)]
    assert timings["mlbtc reference"].flops == sum(work.flops for work in works)
    assert timings["mlbtc reference"].bound_seconds == sum(work.seconds(H100) for work in works)
    assert timings["mlbtc reference"].flops < timings["sdpa flash"].flops


def test_decoding_against_the_kernels_that_run_here():
    cases = gpu.decode_cases([128], 2, 2, names=["8 x 8"], device="cpu", gpu=H200)
    (result,) = run_cases(cases, QUICK)
    timings = {timing.name: timing for timing in result.timings}
    blocks = (None, *(128 >> level for level in range(1, 8)))
    assert timings["mlbtc cache"].bound_seconds == decode_work(128, 4, 1, (8,) * 8, blocks, 64).seconds(H200)
    kept = sum(8 * (128 >> level) for level in range(8))
    assert timings["mlbtc cache"].memory_bytes == 2 * 4 * (kept + 128 * 64)
    assert timings["sdpa flash"].memory_bytes == 2 * 4 * 128 * 128


def test_what_is_wrong_is_not_timed(monkeypatch):
    monkeypatch.setattr(gpu, "mlr_attention", lambda query, *_, **__: 0 * query)
    with pytest.raises(BenchmarkError, match=r"mlbtc reference, result 0 is wrong and will not be timed"):
        run_cases(on_the_cpu(), QUICK, timer=lambda run: pytest.fail("it was timed"))


def test_the_table_has_speeds_and_bounds():
    def columns(peaks):
        shown = table(run_cases(on_the_cpu(peaks=peaks), QUICK, timer=lambda run: 1e-3))
        return {column.header: list(column.cells) for column in shown.columns}

    found = columns(H100)
    pairs = 2 * 64 * 65 // 2
    assert found["TFLOP/s"][0] == f"{2 * pairs * 128 / 1e-3 / 1e12:.1f}"
    assert found["bound, ms"][0].endswith("%)")
    assert columns(None)["bound, ms"][0] == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": [0]}, "--tokens takes 1 to 1048576, found 0"),
        ({"heads": 0}, "--heads takes 1 to 256, found 0"),
        ({"backends": ["trition"]}, "--backend trition: there is no such backend"),
        ({"names": ["8x8"]}, "--case 8x8: there is no such case; did you mean '8 x 8'?"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(BenchmarkError, match=message.replace("?", r"\?")):
        gpu.attention_cases(**{"tokens": [8], "batch": 1, "heads": 1, "backends": ["auto"], **arguments})


# The command ----------------------------------------------------------------------------------------------------------


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["mlbtc", "bench", *map(str, arguments)])
    try:
        main()
    except SystemExit as stop:
        return stop.code or 0
    return 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("suite", ["attention", "decode"])
def test_without_a_gpu_the_command_says_so(monkeypatch, capsys, suite):
    assert call(monkeypatch, suite, "--device", "cuda") == 2
    assert capsys.readouterr().err == "mlbtc: --device cuda: torch sees no CUDA device\n"


def test_threads_do_nothing_for_a_gpu(monkeypatch, capsys):
    assert call(monkeypatch, "decode", "--device", "cuda", "--threads", 2) == 2
    assert "--threads is for --device cpu" in capsys.readouterr().err


@pytest.mark.parametrize("suite", ["attention", "decode"])
def test_from_arguments_to_a_file_that_is_read_again(monkeypatch, capsys, tmp_path, suite):
    out = tmp_path / "out.json"
    monkeypatch.setattr(cuda, "require_cuda", lambda: None)
    monkeypatch.setattr(cuda, "machine", lambda: {"gpu": "NVIDIA H200", "triton": "3"})
    monkeypatch.setattr(cuda, "cuda_timer", lambda: lambda run: 1e-3)
    for name in ("attention_cases", "decode_cases"):
        monkeypatch.setattr(gpu, name, partial(getattr(gpu, name), device="cpu"))
    options = ("--device", "cuda", "--tokens", 64, "--heads", 1, "--case", "8 x 8", "--no-flex")
    options = options[:-1] if suite == "decode" else options
    assert call(monkeypatch, suite, *options, "--seconds-per-case", 0.01, "--out", out) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{suite}: NVIDIA H200, torch")
    assert "bfloat16" in shown
    assert "1.00 times the time of sdpa" in shown
    found = json.loads(out.read_text())
    assert (found["machine"]["gpu"], found["settings"]["dtype"]) == ("NVIDIA H200", "bfloat16")
    again = earlier_results(out, out.read_text())
    assert {timing.seconds for result in again for timing in result.timings} == {1e-3}
    assert all(timing.bound_seconds for result in again for timing in result.timings)
    pytest.importorskip("matplotlib")
    assert call(monkeypatch, "figure", out) == 0
    assert out.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
