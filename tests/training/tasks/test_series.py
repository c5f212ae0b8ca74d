import os
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mlbtc.training import TrainingError
from mlbtc.training.tasks.series import (
    ROWS,
    Series,
    read_series,
    repeat_last,
    repeat_season,
    split,
    split_rows,
    synthetic_series,
    windows,
)

START = datetime(2016, 7, 1)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
TRAIN, VALIDATION, TEST = 8640, 2880, 2880


def lines(rows=ROWS, header="date,load,OT", interval=HOUR):
    return [header, *(f"{START + row * interval},{row % 7},{row % 24}.5" for row in range(rows))]


def write(tmp_path, content):
    path = tmp_path / "series.csv"
    path.write_text("\n".join(content) + "\n")
    return path


def test_a_file_is_read(tmp_path):
    series = read_series(write(tmp_path, lines(ROWS + 3)))
    assert series.columns == ("load", "OT")
    assert series.values.shape == (ROWS + 3, 2)
    assert series.values[25].tolist() == [25 % 7, 1.5]
    assert series.target == 1


def test_values_decide_the_digest(tmp_path):
    content = lines()
    first = read_series(write(tmp_path, content)).digest
    assert read_series(write(tmp_path, content)).digest == first
    content[77] = content[77] + "1"
    assert read_series(write(tmp_path, content)).digest != first


def changed(line, text):
    content = lines()
    content[line - 1] = text
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], ":1: .*'date', found an empty file"),
        (["time,load,OT"], ":1: .*'date', found time,load,OT"),
        (["date,load"], ":1: expected a column 'OT' .*found date,load"),
        (["date,OT,OT"], "'OT' is there more than once"),
        (lines(100), r"100 rows; .*a row every 1:00:00, needs 14,400 \(8,640 \+ 2,880 \+ 2,880\)"),
        (lines(599, interval=DAY), "599 rows; .*a row every 1 day, 0:00:00, needs 600"),
        (lines(3, interval=timedelta(hours=7)), ":3: .*must divide a day, such as .*found 7:00:00"),
        (lines(3, interval=timedelta(0)), ":3: .*must divide a day, such as .*found 0:00:00"),
        (lines(ROWS - 1), "14,399 rows"),
        (changed(5, "2016-07-01 03:00:00,1,oops"), ":5: column 'OT': expected a number, found 'oops'"),
        (changed(6, "2016-07-01 04:00:00,,1"), ":6: column 'load': expected a number, found ''"),
        (changed(7, "2016-07-01 05:00:00,nan,1"), ":7: column 'load': expected a finite number, found 'nan'"),
        (changed(7, "2016-07-01 05:00:00,1,-inf"), ":7: column 'OT': expected a finite number, found '-inf'"),
        (changed(8, "yesterday,1,1"), ":8: column 'date': .*found 'yesterday'"),
        (changed(8, "2016-07-01 06:15:00,1,1"), ":8: .*1:00:00 apart, expected 2016-07-01 06:00:00"),
        (changed(9, "2016-07-01 07:00:00,1"), ":9: expected 3 cells as in the header, found 2"),
        (changed(3, "2016-07-01 01:00:00+00:00,1,1"), ":3: column 'date'"),
    ],
)
def test_bad_files_are_named_exactly(tmp_path, content, message):
    with pytest.raises(TrainingError, match=message) as error:
        read_series(write(tmp_path, content))
    assert str(tmp_path / "series.csv") in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(TrainingError, match="no such file"):
        read_series(tmp_path / "none.csv")


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), lambda path: path.write_bytes(b"date,OT\n\xff\xfe\x00")])
def test_what_is_no_csv_file(tmp_path, make):
    make(tmp_path / "x.csv")
    with pytest.raises(TrainingError, match="cannot be read as a CSV file"):
        read_series(tmp_path / "x.csv")


def test_splits_meet_where_the_field_puts_them():
    values = torch.arange(ROWS + 100, dtype=torch.float64)[:, None].expand(-1, 2).clone()
    values[:, 1] = 5
    splits = split(Series("x", ("a", "OT"), values, ""), look_back=96)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [TRAIN, VALIDATION + 96, TEST + 96]
    # Independent statistics: numpy's population standard deviation over the first 12 months.
    mean, deviation = np.arange(TRAIN).mean(), np.arange(TRAIN).std()
    hours = splits.validation[:, 0].numpy() * deviation + mean
    assert np.allclose(hours, np.arange(TRAIN - 96, TRAIN + VALIDATION), atol=0.01)
    assert np.allclose(splits.test[:, 0].numpy() * deviation + mean, np.arange(ROWS - TEST - 96, ROWS), atol=0.01)
    assert splits.deviation[0].item() == pytest.approx(deviation)
    # A constant feature.
    assert splits.train[:, 1].count_nonzero() == 0


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 3))
def test_every_window_is_there(rows, length, features):
    values = torch.arange(rows * features).view(rows, features)
    if length > rows:
        return
    found = windows(values, length)
    assert found.shape == (rows - length + 1, length, features)
    for first in range(len(found)):
        assert torch.equal(found[first], values[first : first + length])


@given(st.integers(24, 60), st.integers(1, 60))
def test_repeats(look_back, horizon):
    past = torch.randn(2, look_back, 3)
    last, day = repeat_last(past, horizon), repeat_season(past, horizon, 24)
    for hour in range(horizon):
        assert torch.equal(last[:, hour], past[:, look_back - 1])
        assert torch.equal(day[:, hour], past[:, look_back - 24 + hour % 24])
    assert last.shape == day.shape == (2, horizon, 3)


@pytest.mark.parametrize(
    ("interval", "rows", "season"),
    [
        (timedelta(minutes=15), (34560, 11520, 11520), ("day", 96)),
        (HOUR, (TRAIN, VALIDATION, TEST), ("day", 24)),
        (DAY, (360, 120, 120), ("week", 7)),
    ],
    ids=str,
)
def test_the_sampling_decides_rows_and_season(tmp_path, interval, rows, season):
    series = read_series(write(tmp_path, lines(sum(rows), interval=interval)))
    assert series.interval == interval
    assert series.season == season
    assert split_rows(interval) == rows
    splits = split(series, look_back=2)
    assert [len(part) for part in (splits.train, splits.validation, splits.test)] == [rows[0], rows[1] + 2, rows[2] + 2]


def test_the_synthetic_series_is_seeded_and_has_days():
    first, again, other = synthetic_series(0), synthetic_series(0), synthetic_series(1)
    assert first.digest == again.digest != other.digest
    assert first.values.shape == (ROWS, 7)
    assert "synthetic" in str(first)
    values = first.values - first.values.mean(0)
    apart = [((values[lag:] - values[:-lag]) ** 2).mean() for lag in (12, 24)]
    assert apart[1] < apart[0] / 2


def test_ett_h1_has_the_rivals_of_the_field():
    folder = os.environ.get("MLBTC_DATA")
    if folder is None:
        pytest.skip("MLBTC_DATA is not set: it names the folder that holds ETTh1.csv")
    series = read_series(Path(folder) / "ETTh1.csv")
    assert series.season == ("day", 24)
    splits = split(series, look_back=96)
    test = windows(splits.test, 192)
    assert len(test) == 2785
    past, future = test.split([96, 96], dim=1)
    for forecast, mse, mae in ((repeat_last(past, 96), 1.294, 0.713), (repeat_season(past, 96, 24), 0.512, 0.433)):
        difference = forecast - future
        assert difference.square().mean().item() == pytest.approx(mse, abs=5e-4)
        assert difference.abs().mean().item() == pytest.approx(mae, abs=5e-4)
