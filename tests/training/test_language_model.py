import io
import itertools
import json
import math
import os

import pytest
import torch
from rich.console import Console

from mlbtc.spec import AttentionSpec
from mlbtc.training import TrainingError
from mlbtc.training.tasks import text as texts
from mlbtc.training.tasks.language_model import Config, evaluation_starts, resume_config, run

QUIET = Console(quiet=True)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MLBTC_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def book(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("the quick brown fox jumps over the lazy dog.\n" * 60)
    return str(path)


def small(book, out, **changes):
    sizes = {"width": 16, "heads": 2, "layers": 1, "context": 16, "batch": 4, "steps": 6, "eval_every": 3}
    return Config.make(**(sizes | {"data": (book,), "out": out, "warmup": 5} | changes))


def test_characters_are_the_96_and_others_are_dropped():
    content = "a\tb\r\n~é".encode()
    expected = bytes(texts.ALPHABET.index(code) for code in b"ab\n~")
    assert texts.encode(content, "characters") == expected
    assert texts.encode(content, "bytes") == content
    assert len(set(texts.ALPHABET)) == 96


@pytest.mark.parametrize("most", [0, 1, 3, 100])
def test_evaluation_windows_do_not_overlap_and_stay_inside(most):
    starts = evaluation_starts(101, 10, most).tolist()
    assert len(starts) == (10 if most in (0, 100) else most)
    assert all(after - before >= 10 for before, after in itertools.pairwise(starts))
    assert starts[-1] + 10 < 101


def test_a_run_learns(book, tmp_path):
    result = run(small(book, tmp_path / "run", steps=80, lr=1e-2), console=QUIET)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[0]["loss"] == pytest.approx(math.log(96), rel=1e-5)
    assert result.metrics["validation_loss"] < 0.9 * rows[0]["loss"]
    assert result.metrics["perplexity"] == pytest.approx(math.exp(result.metrics["validation_loss"]))


def test_a_run_says_what_it_costs(book, tmp_path):
    result = run(small(book, tmp_path / "run"), console=QUIET)
    # 4 projections, scores and values of 16 tokens, an MLP of 4 times the width; 3 x forward, 6 steps of 4 windows.
    per_token = 4 * 16**2 + 2 * 16 * 16 + 8 * 16**2
    assert result.metrics["macs_per_token"] == per_token
    assert result.metrics["training_macs"] == 3 * per_token * 16 * 4 * 6
    assert "non-embedding compute: 3,584 MACs per token" in result.notes[0]
    assert result.notes[0] in result.report.read_text()


def test_tokens_are_made_once_behind_a_bar(book):
    file = io.StringIO()
    for _ in range(2):
        texts.load_text([book], "bytes", 16, console=Console(file=file, force_terminal=True, width=80))
    assert "tokens" in file.getvalue()
    first = len(file.getvalue())
    texts.load_text([book], "bytes", 16, console=Console(file=file, force_terminal=True, width=80))
    assert len(file.getvalue()) == first


def test_resume_repeats_an_uninterrupted_run(book, tmp_path):
    whole = run(small(book, tmp_path / "whole"), console=QUIET)
    run(small(book, tmp_path / "parts", steps=4), console=QUIET)
    parts = run(resume_config(tmp_path / "parts", steps=6), resume=True, console=QUIET)
    assert parts.metrics["loss_by_position"] == whole.metrics["loss_by_position"]


def test_layers_may_differ(book, tmp_path):
    specs = (AttentionSpec.standard(16, 2, 16, True, True), AttentionSpec.mlr(16, 2, (6, 2), 16, None, True, True))
    config = small(book, tmp_path / "run", attention=specs, layers=None, width=None, heads=None, context=None)
    assert torch.isfinite(torch.tensor(run(config, console=QUIET).metrics["loss_by_position"])).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file or folder"),
        (b"", "too few"),
        (b"short", "too few"),
        (b"a\0b", "byte 1 is 0"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_bad_data_has_one_message(tmp_path, content, message):
    path = tmp_path / "data.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TrainingError, match=message):
        texts.load_text([str(path)], "characters", 16)


def test_the_default_text_is_the_standard_library():
    files = texts.find_files([])
    assert files == texts.find_files([])
    assert any(path.name == "argparse.py" for path in files)
    assert not any("site-packages" in path.parts for path in files)


@pytest.mark.slow
def test_the_small_recipe_of_nanogpt_reaches_its_validation_loss(tmp_path):
    """4 layers, 4 heads, width 128, context 64, batch 12, 2000 steps: nanoGPT's README reports about 1.88."""
    folder = os.environ.get("MLBTC_DATA")
    if folder is None:
        pytest.skip("MLBTC_DATA is not set: it names the folder that holds tinyshakespeare.txt")
    sizes = {"layers": 4, "heads": 4, "width": 128, "context": 64, "batch": 12, "steps": 2000, "lr": 1e-3}
    data = os.path.join(folder, "tinyshakespeare.txt")
    result = run(
        Config.make(data=(data,), eval_windows=0, eval_every=1000, out=tmp_path / "run", **sizes), console=QUIET
    )
    assert result.metrics["validation_loss"] < 1.9
