import sys

import pytest

from mlbtc.training import figures

STEPS = [{"step": step, "loss": 1 / step} for step in range(1, 20)]
PNG = b"\x89PNG"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "figure.png"


real = figures._save


def draw_errors(path):
    errors = {"model": [1.0, 0.5], "zero predictor": [1.0, 1.0], "least squares": [1.0, 0.0]}
    return figures.errors_by_position(path, STEPS, errors)


def draw_forecast(path, steps=STEPS):
    return figures.forecast(path, steps, [0.0, 1.0], {"truth": [1.0], "model": [0.5]}, "OT")


@pytest.mark.parametrize("draw", [draw_errors, draw_forecast])
def test_a_png_is_written(path, draw):
    pytest.importorskip("matplotlib")
    assert draw(path) == path
    assert path.read_bytes().startswith(PNG)
    assert [entry.name for entry in path.parent.iterdir()] == ["figure.png"]


def test_all_of_the_validation_curve_is_in_the_picture(path, monkeypatch):
    pytest.importorskip("matplotlib")
    saved = []
    monkeypatch.setattr(figures, "_save", lambda figure, path: saved.append(figure) or real(figure, path))
    steps = [row | ({"validation_mse": 7.0} if row["step"] % 5 == 0 else {}) for row in STEPS]
    draw_forecast(path, steps)
    _, right = saved[0].axes
    assert right.get_legend_handles_labels()[1] == ["training", "validation"]
    assert right.get_ylim()[0] == 0
    assert right.get_ylim()[1] > 7


@pytest.mark.parametrize("draw", [draw_errors, draw_forecast])
def test_without_matplotlib_there_is_no_figure(path, draw, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert draw(path) is None
    assert not path.exists()


def test_smoothing_is_a_running_mean():
    values = [float(value) for value in range(100)]
    smooth = figures._smooth(values)
    assert smooth[0] == 0
    assert smooth[1:] == [value - 0.5 for value in values[1:]]
