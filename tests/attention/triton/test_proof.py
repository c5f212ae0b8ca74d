"""The proof of the attention kernels with no GPU: every kernel, head and target, and what the proof itself says."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="triton is not installed")
if os.environ.get("TRITON_INTERPRET", "0") not in ("", "0"):
    pytest.skip("TRITON_INTERPRET makes every kernel interpreted", allow_module_level=True)

from mlbtc.attention.triton import proof
from mlbtc.attention.triton.proof import (
    RANKS,
    Subject,
    broken_limits,
    parse_ranks,
    prove,
    prove_all,
    subjects,
)
from mlbtc.codegen import loading
from mlbtc.codegen.triton import TARGETS, Record
from mlbtc.errors import BackendError, SpecError

KERNELS = ("forward", "dq", "dkdv", "decode", "join")
GOOD = Record("sm_90", 128, 0, 1000, 2000, ())


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MLBTC_CACHE", str(tmp_path))
    return tmp_path


# The kernels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", RANKS, ids=lambda ranks: "-".join(map(str, ranks)))
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_every_kernel_is_within_the_limits_of_the_gpu(target: str, ranks: tuple[int, ...]) -> None:
    verdicts = [prove(subject, target) for subject in subjects(ranks)]
    assert [verdict.kernel for verdict in verdicts] == list(KERNELS)
    assert [failure for verdict in verdicts for failure in verdict.failures] == []
    # The limits allow spills but on sm_90; a few words are what there is.
    most = 0 if target == "sm_90" else 64
    assert all(verdict.record and verdict.record.local_bytes <= most for verdict in verdicts)


def padded(features: int) -> int:
    return -(-features // 16) * 16


@pytest.mark.parametrize("ranks", RANKS, ids=lambda ranks: "-".join(map(str, ranks)))
def test_each_loop_of_the_forward_kernel_multiplies_its_padded_prefix(ranks: tuple[int, ...]) -> None:
    subject = subjects(ranks)[0]
    record = prove(subject, "sm_90").record
    assert record is not None
    widths, columns = [0], 64
    for rows, second, inner in record.dots:
        assert rows == 64
        if (second, inner) == (64, columns) and widths[-1]:
            # Weights times values: the end of a loop, whose scores are done.
            widths.append(0)
        else:
            widths[-1] += inner
    # Blocks of at least 64 tokens are coarse: one loop per padded prefix, the last one near the diagonal. The innermost
    # of them, 64 tokens of eight levels, has no loop of its own.
    depths = [sum(ranks[: level + 1]) for level in range(len(ranks)) if 8192 >> level > 64]
    expected = list(dict.fromkeys(padded(depth) for depth in depths))
    assert widths[:-2] == expected
    assert widths[-2] >= padded(sum(ranks))
    assert widths[-1] == 0


def test_decoding_multiplies_each_level_once() -> None:
    record = prove(subjects((48, 16))[3], "sm_90").record
    assert record is not None
    assert record.dots == ((16, 64, 32), (16, 64, 16), (16, 64, 16), (16, 64, 64))


# The verdict ----------------------------------------------------------------------------------------------------------


def test_limits_that_are_broken_are_named() -> None:
    subject = subjects((64,))[0]
    assert broken_limits(subject, GOOD) == ()
    assert broken_limits(subject, replace(GOOD, local_bytes=8)) == ("8 bytes per thread spill out of the registers",)
    assert broken_limits(subject, replace(GOOD, shared_bytes=2001)) == ("2001 bytes of shared memory, there are 2000",)
    assert broken_limits(subject, replace(GOOD, registers=256)) == ("256 registers per thread, there are 255",)
    assert broken_limits(subject, replace(GOOD, target="gfx942", registers=512)) == ()
    assert broken_limits(subject, replace(GOOD, target="sm_80", local_bytes=8)) == ()
    assert broken_limits(subjects((96,))[0], replace(GOOD, local_bytes=8)) == ()


def test_a_kernel_that_the_compiler_refuses_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subjects((64,))[4]
    wrong = replace(subject, source=subject.source.replace("tl.arange(0, 128)", "tl.arange(0, 127)"))
    verdict = prove(wrong, "sm_90")
    assert verdict.record is None
    assert verdict.failures[0].startswith("kernel mlr_decode_join: the compiler for sm_90 refuses it")
    assert verdict.to_json()["passes"] is False


def test_what_was_compiled_is_not_compiled_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = subjects((64,))[4]
    first = prove(subject, "sm_90")
    (record,) = cache.glob("proof-*.json")
    with monkeypatch.context() as patch:
        patch.setattr(proof, "compile_ahead", lambda *_, **__: pytest.fail("it was compiled again"))
        assert prove(subject, "sm_90") == first
    record.write_text('{"registers": 1}')
    assert prove(subject, "sm_90") == first
    prove(replace(subject, source=subject.source + "\n# another text\n"), "sm_90")
    assert len([*cache.glob("proof-*.json")]) == 2


def test_a_cache_that_cannot_be_written_costs_time_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("read-only")

    monkeypatch.setattr(loading, "write_atomically", refuse)
    assert prove(subjects((64,))[4], "sm_90").failures == ()


def test_processes_give_what_one_gives() -> None:
    ranks, seen = [(64,)], []
    assert prove_all(ranks, ["sm_90"], workers=2, done=seen.append) == prove_all(ranks, ["sm_90"], workers=1)
    assert {verdict.kernel for verdict in seen} == set(KERNELS)


def test_unknown_targets_and_the_interpreter_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match=r"'sm_91' is none that kernels are compiled for; did you mean 'sm_90'\?"):
        prove_all([(64,)], ["sm_91"])
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(BackendError, match="TRITON_INTERPRET is set, so that Triton compiles nothing; unset it"):
        prove_all([(64,)], ["sm_90"])


@pytest.mark.parametrize(
    ("text", "ranks"),
    [("64", (64,)), ("48|16", (48, 16)), ("8x8", (8,) * 8), (" 2 x 12 ", (12, 12)), ("1|2 | 3", (1, 2, 3))],
)
def test_ranks_are_read(text: str, ranks: tuple[int, ...]) -> None:
    assert parse_ranks(text) == ranks


@pytest.mark.parametrize("text", ["", "8x", "x8", "0x8", "8,8", "48|", "-1", "33x2", "257", "8x0", "eight"])
def test_what_are_no_ranks_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"ranks are written 48\|16, or 8x8"):
        parse_ranks(text)


# The command ----------------------------------------------------------------------------------------------------------


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mlbtc", "doctor", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_prints_the_table_as_json() -> None:
    done = doctor("--kernels", "--arch", "sm_90", "--ranks", "64", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert (found["passes"], found["tokens"], len(found["kernels"])) == (True, 8192, 5)
    kernel = found["kernels"][0]
    assert (kernel["kernel"], kernel["ranks"], kernel["target"], kernel["passes"]) == ("forward", [64], "sm_90", True)
    assert 0 < kernel["registers"] <= 255
    assert kernel["shared_bytes"] <= kernel["shared_limit"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--kernels", "--arch", "sm_91"), "'sm_91' is none that kernels are compiled for; did you mean 'sm_90'?"),
        (("--kernels", "--ranks", "8,8"), "ranks are written 48|16, or 8x8 for eight levels of 8"),
        (("--arch", "sm_90"), "--arch and --ranks go with --kernels"),
    ],
)
def test_bad_arguments_are_one_message(arguments: tuple[str, ...], message: str) -> None:
    done = doctor(*arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_a_broken_limit_is_the_exit_status(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.testing import CliRunner

    from mlbtc.cli.app import app

    subject: Subject = subjects((48, 16))[0]
    bad = proof.Verdict(subject.kernel, subject.ranks, "sm_90", GOOD, ("8 bytes per thread spill",))
    good = replace(bad, kernel="dq", failures=())
    monkeypatch.setattr(proof, "prove_all", lambda *_, **__: [bad, good])
    done = CliRunner().invoke(app, ["doctor", "--kernels"])
    assert done.exit_code == 1
    rows = done.stdout.splitlines()
    assert rows[1].split()[-6:] == ["FAIL", "8", "bytes", "per", "thread", "spill"]
    assert rows[2].split()[-1] == "PASS"
    assert "1 of 2 kernels break a limit, the first is forward of 48|16 on sm_90: 8 bytes per thread" in done.stderr
