"""The kernels of MLR attention: their source, which tiles they take, what refuses them; they run in a process apart."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mlbtc.attention import choose_backend, mlr_attention
from mlbtc.attention.triton import AttentionProblem, Tiles, choices, plan_tiles
from mlbtc.attention.triton.choices import Place, candidates, choose_tiles, measure, recall
from mlbtc.attention.triton.source import KERNELS, kernel_source
from mlbtc.codegen.triton import support
from mlbtc.errors import BackendError, SpecError
from tests.attention.triton.rerun import rerun

PLACE = Place("a GPU", "bfloat16", 1024, 1024, 8, 1)
HALVING = AttentionProblem((8,) * 8, (None, *(8192 >> level for level in range(1, 8))), (0.125,) * 8, 64)
RAGGED = AttentionProblem((20, 6, 6), (None, 24, 12), (0.3, 0.3, -0.2), 24, causal=False, lengths=True)


def test_kernels_in_the_interpreter() -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    rerun("kernels_attention.py", interpreted=True)


@pytest.mark.slow
def test_kernels_in_the_interpreter_at_length() -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    rerun("kernels_attention.py", interpreted=True, slow=True)


def test_launches_bind_and_compile_without_a_gpu() -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    rerun("kernels_binding.py", interpreted=False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
def test_kernels_on_the_gpu() -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    rerun("kernels_attention.py", interpreted=False)


# The source -----------------------------------------------------------------------------------------------------------


def source_of(problem: AttentionProblem, tiles: Tiles | None = None) -> str:
    return kernel_source({name: plan_tiles(problem, tiles or Tiles(32, 16)) for name in KERNELS})


@pytest.mark.parametrize("problem", [HALVING, RAGGED, HALVING.cut(ragged=False, lengths=False)])
def test_source_is_deterministic_and_names_what_it_uses(problem: AttentionProblem) -> None:
    source = source_of(problem)
    code = compile(source, "kernels.py", "exec")
    assert source == source_of(problem)
    functions = [part for part in code.co_consts if hasattr(part, "co_varnames")]
    assert {function.co_name for function in functions} == set(KERNELS.values())
    for function in functions:
        text = source.partition(f"def {function.co_name}(")[2].partition("\n@")[0]
        unused = [name for name in function.co_varnames if text.count(name) < 2]
        assert not unused


def test_positions_are_compared_only_where_tiles_are_cut() -> None:
    # The diagonal is left: a query sees no key behind itself.
    whole = source_of(HALVING.cut(ragged=False, lengths=False))
    assert "visible" not in whole
    assert "stored" not in whole
    assert "visible" in source_of(HALVING)
    assert "lengths" not in source_of(HALVING)
    assert "tl.load(lengths" in source_of(RAGGED)


def test_queries_are_scaled_only_where_levels_differ() -> None:
    assert "ratio" not in source_of(HALVING)
    assert "ratio0 = tl.where(columns0 < 26, 1.0, -0.6666666666666667)" in source_of(RAGGED)


@pytest.mark.parametrize("names", [[], ["forward", "sideways"]])
def test_unknown_kernels(names: list[str]) -> None:
    with pytest.raises(SpecError, match=f"kernels are forward, dq, dkdv, found {'sideways' if names else 'none'}"):
        kernel_source({name: plan_tiles(HALVING, Tiles()) for name in names})


def test_lengths_cut_tiles() -> None:
    with pytest.raises(SpecError, match="a problem with lengths is ragged"):
        HALVING.cut(ragged=False, lengths=True)


# The tiles ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the cache be a fresh folder."""
    pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.setenv("MLBTC_CACHE", str(tmp_path))
    forget()
    return tmp_path


def forget() -> None:
    """Let this process have measured nothing."""
    recall.cache_clear()
    choices._MEASURED.clear()


def clock(times: dict[Tiles, float]) -> tuple[Callable[[Tiles], None], Callable[[Callable[[], None]], float]]:
    """Return a run and a clock that says what `times` has for it; what is not there does not fit the GPU."""
    from triton.runtime.errors import OutOfResources

    current: list[Tiles] = []

    def run(tiles: Tiles) -> None:
        if tiles not in times:
            raise OutOfResources(300_000, 200_000, "shared memory")
        current[:] = [tiles]

    def measured(call: Callable[[], None]) -> float:
        call()
        return times[current[0]]

    return run, measured


@pytest.mark.parametrize("name", KERNELS)
def test_the_fastest_tiles_are_kept(name: str, cache: Path) -> None:
    tiles = candidates(name, HALVING, half=True)
    assert recall(name, HALVING, PLACE) is None
    run, measured = clock({tiles[0]: 2.0, tiles[2]: 1.0, tiles[3]: 1.5})
    assert measure(name, HALVING, PLACE, run, measured) == tiles[2]
    assert recall(name, HALVING, PLACE) == tiles[2]
    assert choose_tiles(name, HALVING, PLACE) == tiles[2]
    (record,) = cache.glob("triton-*.json")
    kept = json.loads(record.read_text())["milliseconds"]
    assert list(kept.values())[:4] == [2.0, None, 1.0, 1.5]


def test_where_nothing_is_measured_the_first_tiles_run(cache: Path) -> None:
    tiles = candidates("dq", HALVING, half=True)
    assert choose_tiles("dq", HALVING, PLACE) == tiles[0]
    run, measured = clock({})
    assert measure("dq", HALVING, PLACE, run, measured) == tiles[0]
    assert not list(cache.glob("triton-*.json"))


def test_a_record_that_cannot_be_read_is_measured_again(cache: Path) -> None:
    tiles = candidates("forward", RAGGED, half=True)
    measure("forward", RAGGED, PLACE, *clock({tiles[1]: 1.0}))
    (record,) = cache.glob("triton-*.json")
    record.write_text("{")
    assert recall("forward", RAGGED, PLACE) == tiles[1]
    forget()
    assert recall("forward", RAGGED, PLACE) is None


def test_a_cache_that_cannot_be_written_loses_nothing(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "file").write_text("")
    monkeypatch.setenv("MLBTC_CACHE", str(cache / "file"))
    tiles = candidates("forward", HALVING, half=True)
    assert measure("forward", HALVING, PLACE, *clock({tiles[1]: 1.0})) == tiles[1]


def test_places_of_near_sizes_are_one() -> None:
    def place(tokens: int) -> Place:
        return Place.of(torch.empty(3, 8, tokens, 4), torch.empty(3, 2, tokens, 4))

    assert place(1000) == place(1024) == Place("cpu", "float32", 1024, 1024, 32, 4)
    assert place(1025) != place(1024)


# What is chosen -------------------------------------------------------------------------------------------------------


def chosen(**changes: object) -> str:
    given = {"device": "cuda", "dtype": torch.bfloat16, **changes}
    return str(choose_backend(64, 64, [8, 8], [64, 32], **given))  # type: ignore[arg-type]


def test_gpus_take_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.setattr(support, "interpreting", lambda: False)
    assert chosen().startswith("triton: tensors on a GPU")
    assert chosen(options=["key_lengths"]).startswith("triton")
    assert "the Triton kernels have no alibi in this version" in chosen(options=["alibi"])
    assert "no Triton kernels for torch.float64" in chosen(dtype=torch.float64)
    assert "up to 256 features, found 300" in chosen(values=300)
    assert chosen(device="mps").endswith("Triton kernels run on GPUs of NVIDIA and AMD, the tensors are on mps")
    assert not chosen(device="cpu", dtype=torch.float32).startswith("triton")


def test_a_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton", reason="triton is not installed")
    monkeypatch.setattr(support, "interpreting", lambda: False)
    x = torch.randn(1, 1, 4, 2)
    with pytest.raises(BackendError, match=r"run on GPUs; on a CPU .* TRITON_INTERPRET=1 .*; use 'cpp', 'strips'"):
        mlr_attention(x, x, x, [2], [None], backend="triton")
