"""Series of one interval: reading ETT CSV files with exact complaints, a synthetic one, splits, scaling and windows."""

from __future__ import annotations

import csv
import hashlib
import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlbtc.training.errors import TrainingError
from mlbtc.training.seeds import stream

HOUR, DAY, WEEK, MONTH = timedelta(hours=1), timedelta(days=1), timedelta(days=7), timedelta(days=30)
TARGET = "OT"


def split_rows(interval: timedelta) -> tuple[int, int, int]:
    """Return the rows of 12, 4 and 4 months of 30 days: train, validation and test."""
    month = MONTH // interval
    return 12 * month, 4 * month, 4 * month


ROWS = sum(split_rows(HOUR))


@dataclass(frozen=True, slots=True)
class Series:
    """A series of several features.

    Attributes:
        name: what it is, for people.
        columns: names of the features.
        values: `(rows, features)`, float64, in the units of the file.
        digest: SHA-256 of the values, so that a resumed run can tell whether the data changed.
        interval: the time from row to row; divides a day.
    """

    name: str
    columns: tuple[str, ...]
    values: Tensor
    digest: str
    interval: timedelta = HOUR

    def __str__(self) -> str:
        every = "" if self.interval == HOUR else f" of {self.interval}"
        what = "hours" if self.interval == HOUR else "rows"
        return f"{self.name}, {len(self.values):,} {what}{every}, features {', '.join(self.columns)}"

    @property
    def season(self) -> tuple[str, int]:
        """What repeats, and its rows: a day, or a week where a row is a day."""
        return ("week", WEEK // self.interval) if self.interval == DAY else ("day", DAY // self.interval)

    @property
    def target(self) -> int:
        """The column of the oil temperature."""
        return self.columns.index(TARGET)


@dataclass(frozen=True, slots=True)
class Splits:
    """Train, validation and test rows, scaled by the mean and deviation of the train rows.

    Attributes:
        train: `(rows, features)`, 8640 rows where a row is an hour.
        validation: the look-back before it and a third as many rows.
        test: likewise.
        deviation: `(features,)`: scaled units times this are the units of the file.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    deviation: Tensor


def read_series(path: Path) -> Series:
    """Read a CSV file with the header `date,...,OT` and rows that are equally far apart, such as an hour.

    Raises:
        TrainingError: the file is missing, no such table, too short, or a cell is wrong; says which.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = [name.strip() for name in next(rows, [])]
            _check_header(path, header)
            values, interval = _read_rows(path, header, rows)
    except FileNotFoundError:
        raise TrainingError(f"--data {path}: there is no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"--data {path}: cannot be read as a CSV file: {error}") from None
    parts = split_rows(interval)
    if len(values) < sum(parts):
        raise TrainingError(
            f"{path}: {len(values):,} rows; the split of 12, 4 and 4 months, a row every {interval}, needs "
            f"{sum(parts):,} ({' + '.join(f'{part:,}' for part in parts)})"
        )
    return _series(path.name, header[1:], torch.tensor(values, dtype=torch.float64), interval)


def synthetic_series(seed: int) -> Series:
    """Return a made-up series: daily and weekly cycles, slow drift and noise, seven features. No benchmark."""
    generator = stream(seed, "synthetic series")
    hours = torch.arange(ROWS, dtype=torch.float64)[:, None]
    draw = torch.rand(4, 7, generator=generator, dtype=torch.float64)
    phases = 2 * math.pi * draw[:2]
    daily = (1 + draw[2]) * torch.sin(2 * math.pi * hours / 24 + phases[0])
    weekly = (0.5 + draw[3]) * torch.sin(2 * math.pi * hours / (7 * 24) + phases[1])
    drift = 0.02 * torch.randn(ROWS, 7, generator=generator, dtype=torch.float64).cumsum(0)
    noise = 0.4 * torch.randn(ROWS, 7, generator=generator, dtype=torch.float64)
    columns = [*(f"load_{number}" for number in range(1, 7)), TARGET]
    return _series("synthetic series", columns, 10 + daily + weekly + drift + noise, HOUR)


def split(series: Series, look_back: int) -> Splits:
    """Split into 12, 4 and 4 months of 30 days and scale by train statistics; rows behind them are left out.

    Args:
        series: at least 20 months.
        look_back: how many rows before validation and test their first windows see.
    """
    first, second, third = split_rows(series.interval)
    train = series.values[:first]
    deviation = train.std(0, correction=0)
    # A constant feature stays 0 instead of becoming a division by 0.
    deviation = torch.where(deviation == 0, torch.ones_like(deviation), deviation)
    scaled = ((series.values[: first + second + third] - train.mean(0)) / deviation).float()
    return Splits(
        scaled[:first],
        scaled[first - look_back : first + second],
        scaled[first + second - look_back :],
        deviation,
    )


def windows(rows: Tensor, length: int) -> Tensor:
    """Return a view `(windows, length, features)`: every window of consecutive rows, none dropped."""
    return rows.unfold(0, length, 1).mT


def repeat_last(past: Tensor, horizon: int) -> Tensor:
    """Forecast the last value: `(B, look-back, features)` to `(B, horizon, features)`."""
    return past[:, -1:].expand(-1, horizon, -1)


def repeat_season(past: Tensor, horizon: int, period: int) -> Tensor:
    """Forecast the last `period` rows over and over: `(B, look-back, features)` to `(B, horizon, features)`."""
    return past[:, -period:].repeat(1, -(-horizon // period), 1)[:, :horizon]


def _series(name: str, columns: list[str], values: Tensor, interval: timedelta) -> Series:
    digest = hashlib.sha256(values.numpy().tobytes()).hexdigest()
    return Series(name, tuple(columns), values, digest, interval)


def _check_header(path: Path, header: list[str]) -> None:
    found = ",".join(header)[:120] or "an empty file"
    if header[:1] != ["date"]:
        raise TrainingError(f"{path}:1: expected a header that begins with the column 'date', found {found}")
    if TARGET not in header[1:]:
        raise TrainingError(f"{path}:1: expected a column {TARGET!r} (the oil temperature), found {found}")
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise TrainingError(f"{path}:1: the column {twice[0]!r} is there more than once")


def _read_rows(path: Path, header: list[str], rows: Any) -> tuple[list[list[float]], timedelta]:
    """Return the values, and the time from row to row, which the first two rows decide."""
    values: list[list[float]] = []
    before: datetime | None = None
    interval: timedelta | None = None
    for row in rows:
        where = f"{path}:{rows.line_num}"
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise TrainingError(f"{where}: expected {len(header)} cells as in the header, found {len(row)}")
        date = _date(where, row[0])
        if before is not None:
            interval = _interval(where, before, date, interval)
        before = date
        values.append([_number(where, name, cell) for name, cell in zip(header[1:], row[1:], strict=True)])
    return values, interval or HOUR


def _date(where: str, cell: str) -> datetime:
    try:
        date = datetime.fromisoformat(cell.strip())
    except ValueError:
        date = None
    if date is None or date.tzinfo is not None:
        raise TrainingError(f"{where}: column 'date': expected one like 2016-07-01 00:00:00, found {cell!r}")
    return date


def _interval(where: str, before: datetime, date: datetime, interval: timedelta | None) -> timedelta:
    found = date - before
    if interval is not None and found != interval:
        raise TrainingError(
            f"{where}: column 'date': rows are {interval} apart, expected {before + interval}, found {date}"
        )
    if found <= timedelta(0) or DAY % found:
        raise TrainingError(
            f"{where}: column 'date': the time from row to row must divide a day, such as 1:00:00 or 0:15:00, found "
            f"{found}"
        )
    return found


def _number(where: str, name: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise TrainingError(f"{where}: column {name!r}: expected a number, found {cell!r}") from None
    if not math.isfinite(value):
        raise TrainingError(f"{where}: column {name!r}: expected a finite number, found {cell!r}")
    return value
