"""Everything works without triton: kernel tests are skipped and say why, and the programs that are there run."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("tests/attention/triton", "tests/codegen/triton")
REASON = "triton is not installed"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST_", "TRITON_"))}
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )


def test_kernel_tests_are_skipped_with_the_reason() -> None:
    options = ("-q", "-rs", "-p", "no:cacheprovider", "-p", "tests.without_triton")
    done = run("-m", "pytest", *options, *FOLDERS)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    skips = [line for line in done.stdout.splitlines() if line.startswith("SKIPPED")]
    unexpected = [line for line in skips if REASON not in line and "CUDA" not in line]
    assert not unexpected
    # Whole files where every test needs it, single tests elsewhere; a file that imports it otherwise would be an error.
    named = {line.partition("] ")[2].partition(":")[0] for line in skips if REASON in line}
    wanted = {
        str(path.relative_to(ROOT))
        for folder in FOLDERS
        for path in (ROOT / folder).glob("test_*.py")
        if "importorskip" in path.read_text()
    }
    assert wanted <= named


PROGRAM = """
import sys
sys.modules["triton"] = None
import torch
from mlbtc.attention import AttentionCache, choose_backend, choose_decoder, mlr_attention

query, key, value = (torch.randn(1, 2, 40, 12) for _ in range(3))
found = mlr_attention(query, key, value, (8, 4), (None, 16))
exact = mlr_attention(query.double(), key.double(), value.double(), (8, 4), (None, 16), backend="reference")
assert (found - exact).abs().max() < 1e-5
cache = AttentionCache(1, 2, (8, 4), (None, 16), 12)
cache.attend(query[:, :, :39], key[:, :, :39], value[:, :, :39])
last = cache.attend(query[:, :, 39:], key[:, :, 39:], value[:, :, 39:])
assert (last - exact[:, :, 39:]).abs().max() < 1e-5
print(choose_backend(40, 40, (8, 4), (40, 16), device="cuda"))
print(choose_decoder("cuda", torch.bfloat16, 64))
"""


def test_attention_and_decoding_work_and_say_what_is_missing() -> None:
    done = run("-c", PROGRAM)
    assert done.returncode == 0, done.stderr
    attention, decoding = done.stdout.splitlines()
    assert REASON in attention
    assert decoding.startswith(f"torch: one product per level; {REASON}")


def test_the_doctor_works_and_refuses_to_prove_kernels() -> None:
    start = "import sys; sys.modules['triton'] = None; from mlbtc.cli import main; sys.argv[0] = 'mlbtc'; main()"
    assert run("-c", start, "doctor").returncode == 0
    done = run("-c", start, "doctor", "--kernels")
    assert (done.returncode, done.stderr) == (2, f"mlbtc: {REASON}: pip install triton\n")
