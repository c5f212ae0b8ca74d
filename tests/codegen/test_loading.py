"""Loading: a cache keyed by content, of which nothing is executed but the given text."""

import copy
import inspect
import os
import pickle
import stat
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import mlbtc
from mlbtc import families
from mlbtc.codegen import cache_directory, load_source, loading
from mlbtc.errors import CodegenError

ROOT = Path(__file__).resolve().parents[2]
SPEC = families.btt((6, 8), 2, (2, 3, 4, 2))


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, not yet made."""
    monkeypatch.setenv("MLBTC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def text(tmp_path: Path) -> str:
    """Source that no other test loads."""
    return f'"""{tmp_path}"""\n\nvalue = 41 + 1\n\n\ndef fail():\n    raise ValueError(value)  # the line that fails\n'


def forget(source: str) -> None:
    """Make the next load of a text the first one of this process."""
    sys.modules.pop(load_source(source).__name__)


# Where


def test_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("MLBTC_CACHE", raising=False)
    assert cache_directory() == Path("/home/someone/.cache/mlbtc")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_directory() == Path("/somewhere/mlbtc")
    monkeypatch.setenv("MLBTC_CACHE", "/chosen")
    assert cache_directory() == Path("/chosen")
    monkeypatch.setenv("MLBTC_CACHE", "")
    assert cache_directory() == Path("/somewhere/mlbtc")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_directory() == Path("/home/someone/.cache/mlbtc")


@pytest.mark.parametrize("variable", ["MLBTC_CACHE", "XDG_CACHE_HOME"])
def test_modules_are_stored_where_the_variables_say(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.delenv("MLBTC_CACHE", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "deep" / "er"))
    module = load_source(text)
    folder = tmp_path / "deep" / "er" / ("mlbtc" if variable == "XDG_CACHE_HOME" else "")
    assert [path.read_text() for path in folder.iterdir()] == [text]
    assert module.__file__ == str(next(folder.iterdir()))


# What


def test_a_text_is_stored_as_it_is(cache: Path, text: str) -> None:
    module = load_source(text)
    assert module.value == 42
    (path,) = cache.iterdir()
    assert path.read_text() == text
    assert module.__name__ == path.stem
    assert path.name.startswith("mlbtc_emitted_")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700


def test_equal_texts_are_one_module_and_others_are_not(cache: Path, text: str) -> None:
    first = load_source(text)
    assert load_source(text) is first
    assert load_source(text + "\n") is not first
    assert len(list(cache.iterdir())) == 2


def test_a_text_runs_once(cache: Path, tmp_path: Path) -> None:
    text = f"with open({str(tmp_path / 'log')!r}, 'a') as file:\n    file.write('ran ')\n"
    load_source(text)
    load_source(text)
    assert (tmp_path / "log").read_text() == "ran "


@pytest.mark.parametrize(
    "tampered",
    [
        pytest.param(b"raise SystemExit('tampered')\n", id="code"),
        pytest.param(b"", id="empty"),
        pytest.param(b"value = 1\n", id="other"),
        pytest.param(b"\xff\xfe", id="bytes"),
    ],
)
def test_a_changed_file_is_not_run_but_written_anew(cache: Path, text: str, tampered: bytes) -> None:
    forget(text)
    (path,) = cache.iterdir()
    path.write_bytes(tampered)
    assert load_source(text).value == 42
    assert path.read_text() == text
    assert [p.name for p in cache.iterdir()] == [path.name]


def test_a_link_in_the_cache_is_replaced_and_not_followed(cache: Path, text: str, tmp_path: Path) -> None:
    forget(text)
    (path,) = cache.iterdir()
    path.unlink()
    target = tmp_path / "target"
    target.write_text("kept")
    path.symlink_to(target)
    assert load_source(text).value == 42
    assert target.read_text() == "kept"
    assert not path.is_symlink()
    assert path.read_text() == text


def test_a_file_that_is_right_is_not_written_again(cache: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(text)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("written")

    monkeypatch.setattr(loading.tempfile, "mkstemp", refuse)
    assert load_source(text).value == 42


@pytest.mark.parametrize("text", ["x = = 1", "def f(:\n", "x = '\0'", "return 1\n"])
def test_texts_that_do_not_compile(cache: Path, text: str) -> None:
    with pytest.raises(CodegenError, match="the emitted source does not compile: "):
        load_source(text)
    with pytest.raises(CodegenError):
        load_source(text)


def test_a_text_that_fails_while_it_runs_leaves_no_module(cache: Path, tmp_path: Path) -> None:
    text = f"import os\nif not os.path.exists({str(tmp_path / 'flag')!r}):\n    raise KeyError('first')\nvalue = 2\n"
    before = set(sys.modules)
    with pytest.raises(KeyError, match="first"):
        load_source(text)
    assert set(sys.modules) - {"os"} <= before
    (tmp_path / "flag").touch()
    assert load_source(text).value == 2


# Folders that cannot be written


def nothing_works(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    owner = {"mkstemp": loading.tempfile, "mkdir": loading.Path}.get(step, loading.os)
    monkeypatch.setattr(owner, step, fail)


@pytest.mark.parametrize("step", ["mkdir", "mkstemp", "fdopen", "chmod", "replace"])
def test_a_full_disk_is_one_clear_error(cache: Path, text: str, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    if step != "mkdir":
        cache.mkdir()
    nothing_works(monkeypatch, step)
    with pytest.raises(CodegenError) as raised:
        load_source(text)
    message = str(raised.value)
    assert message.startswith(f"cannot write to the cache {cache}: No space left on device; set MLBTC_CACHE")
    assert "\n" not in message
    assert not cache.exists() or list(cache.iterdir()) == []


def test_a_file_in_place_of_the_folder(cache: Path, text: str) -> None:
    cache.write_text("a file")
    with pytest.raises(CodegenError, match=f"cannot write to the cache {cache}: .*; set MLBTC_CACHE"):
        load_source(text)
    assert cache.read_text() == "a file"


def test_a_file_above_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("a file")
    monkeypatch.setenv("MLBTC_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(CodegenError, match="Not a directory; set MLBTC_CACHE"):
        mlbtc.compile(families.dense((3, 5)).named("below a file"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission(cache: Path, text: str) -> None:
    cache.mkdir(mode=0o500)
    with pytest.raises(CodegenError, match="Permission denied; set MLBTC_CACHE"):
        load_source(text)


def test_a_folder_in_place_of_the_file(cache: Path, text: str) -> None:
    forget(text)
    (path,) = cache.iterdir()
    path.unlink()
    path.mkdir()
    with pytest.raises(CodegenError, match="cannot write to the cache"):
        load_source(text)
    assert [p.name for p in cache.iterdir()] == [path.name]


# At the same time

SAME = """
import pathlib, sys, time
import torch, mlbtc
from mlbtc import families

pytestmark = pytest.mark.usefixtures("without_compiler")
ready, go = (pathlib.Path(a) for a in sys.argv[1:])
ready.touch()
while not go.exists():
    time.sleep(0.002)
module = mlbtc.compile(families.btt((6, 8), 2, (2, 3, 4, 2)))
print(module(torch.ones(1, 8)).shape[-1], type(module).__module__)
"""


@pytest.mark.slow
def test_processes_that_compile_the_same_spec_at_once(cache: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    waiting = [tmp_path / f"ready{n}" for n in range(3)]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", SAME, str(ready), str(tmp_path / "go")], cwd=ROOT, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for ready in waiting
    ]  # fmt: skip
    end = time.monotonic() + 100
    while not all(ready.exists() for ready in waiting) and time.monotonic() < end:
        time.sleep(0.01)
    (tmp_path / "go").touch()
    results = [process.communicate(timeout=100) for process in running]
    assert [error for _, error in results] == ["", "", ""]
    assert {out for out, _ in results} == {f"6 {load_source(mlbtc.generate(SPEC)).__name__}\n"}
    (path,) = cache.iterdir()
    assert path.read_text() == mlbtc.generate(SPEC)


def test_writers_at_once_never_show_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    texts = [letter * 200_000 for letter in "abcd"]
    path.write_text(texts[0])
    seen: list[str] = []
    threads = [
        threading.Thread(target=lambda t=t: [loading.write_atomically(path, t) for _ in range(20)]) for t in texts
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        seen.append(path.read_text())
    assert set(seen) <= set(texts)
    assert list(tmp_path.iterdir()) == [path]


def test_threads_that_load_the_same_text_at_once(cache: Path, text: str) -> None:
    slow = "import time\ntime.sleep(0.3)\n" + text
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(vars(load_source(slow)).get("value"))) for _ in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    for thread in threads:
        thread.join()
    assert found == [42, 42, 42]


# What Python does with a module


def failing(call: Callable[[], object]) -> str:
    try:
        call()
    except ValueError:
        return traceback.format_exc()
    raise AssertionError("it should have failed")


def test_tracebacks_show_the_source(cache: Path, text: str) -> None:
    module = load_source(text)
    assert "raise ValueError(value)  # the line that fails" in failing(module.fail)
    # Even where the file has gone or is another one by now.
    (path,) = cache.iterdir()
    path.write_text("x\n" * 20)
    assert "raise ValueError(value)  # the line that fails" in failing(module.fail)
    path.unlink()
    assert "raise ValueError(value)  # the line that fails" in failing(module.fail)


def test_the_source_of_a_module_can_be_inspected() -> None:
    module = mlbtc.compile(SPEC)
    assert inspect.getsource(type(module)) in module.source
    assert inspect.getsource(type(module)).startswith("class Btt(nn.Module):")
    assert inspect.getsource(type(module)._product).strip().startswith("def _product")


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))], ids=["deepcopy", "pickle"])
def test_copies(copied: Callable[[torch.nn.Module], torch.nn.Module]) -> None:
    module = mlbtc.compile(SPEC, bias=True)
    with torch.no_grad():
        module.bias.fill_(3)
    other = copied(module)
    x = torch.ones(2, 8)
    assert type(other) is type(module)
    assert torch.equal(other(x), module(x))
    assert (other.spec, other.source) == (module.spec, module.source)
    with torch.no_grad():
        other.level0_factor0.zero_()
    assert not torch.equal(other(x), module(x))


def test_a_pickle_in_another_process(cache: Path, tmp_path: Path) -> None:
    module = mlbtc.compile(SPEC)
    torch.save(module, tmp_path / "module.pt")
    script = "import sys, torch, mlbtc; print(torch.load(sys.argv[1], weights_only=False)(torch.ones(1, 8)).shape[-1])"
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "module.pt"], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "6\n"), done.stderr


def test_the_class_is_found_in_its_module() -> None:
    module = mlbtc.compile(SPEC)
    home = sys.modules[type(module).__module__]
    assert issubclass(type(module), getattr(home, type(module).__name__))
    assert Path(str(home.__file__)).read_text() == module.source
