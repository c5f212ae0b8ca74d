"""Hourly series: reading the ETT CSV files with exact complaints, a synthetic stand-in, splits, scaling and windows."""

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

MONTH = 30 * 24
TRAIN, VALIDATION, TEST = 12 * MONTH, 4 * MONTH, 4 * MONTH
ROWS = TRAIN + VALIDATION + TEST
HOUR = timedelta(hours=1)
TARGET = "OT"


@dataclass(frozen=True, slots=True)
class Series:
    """An hourly series of several features.

    Attributes:
        name: what it is, for people.
        columns: names of the features.
        values: `(rows, features)`, float64, in the units of the file.
        digest: SHA-256 of the values, so that a resumed run can tell whether the data changed.
    """

    name: str
    columns: tuple[str, ...]
    values: Tensor
    digest: str

    def __str__(self) -> str:
        return f"{self.name}, {len(self.values):,} hours, features {', '.join(self.columns)}"

    @property
    def target(self) -> int:
        """The column of the oil temperature."""
        return self.columns.index(TARGET)


@dataclass(frozen=True, slots=True)
class Splits:
    """Train, validation and test rows, scaled by the mean and deviation of the train rows.

    Attributes:
        train: `(8640, features)`.
        validation: the look-back before it and 2880 rows.
        test: likewise.
        deviation: `(features,)`: scaled units times this are the units of the file.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    deviation: Tensor


def read_series(path: Path) -> Series:
    """Read a CSV file with the header `date,...,OT` and one row per hour.

    Raises:
        TrainingError: the file is missing, no such table, too short, or a cell is wrong; says which.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            header = [name.strip() for name in next(rows, [])]
            _check_header(path, header)
            values = _read_rows(path, header, rows)
    except FileNotFoundError:
        raise TrainingError(f"--data {path}: there is no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"--data {path}: cannot be read as a CSV file: {error}") from None
    if len(values) < ROWS:
        raise TrainingError(
            f"{path}: {len(values):,} rows; the split of 12, 4 and 4 months of hours needs {ROWS:,} "
            f"({TRAIN:,} + {VALIDATION:,} + {TEST:,})"
        )
    return _series(path.name, header[1:], torch.tensor(values, dtype=torch.float64))


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
    return _series("synthetic series", columns, 10 + daily + weekly + drift + noise)


def split(series: Series, look_back: int) -> Splits:
    """Split into 12, 4 and 4 months of 30 days and scale by train statistics; rows behind them are left out.

    Args:
        series: at least 14,400 rows.
        look_back: how many rows before validation and test their first windows see.
    """
    train = series.values[:TRAIN]
    deviation = train.std(0, correction=0)
    # A constant feature stays 0 instead of becoming a division by 0.
    deviation = torch.where(deviation == 0, torch.ones_like(deviation), deviation)
    scaled = ((series.values[:ROWS] - train.mean(0)) / deviation).float()
    return Splits(
        scaled[:TRAIN],
        scaled[TRAIN - look_back : TRAIN + VALIDATION],
        scaled[TRAIN + VALIDATION - look_back :],
        deviation,
    )


def windows(rows: Tensor, length: int) -> Tensor:
    """Return a view `(windows, length, features)`: every window of consecutive rows, none dropped."""
    return rows.unfold(0, length, 1).mT


def repeat_last(past: Tensor, horizon: int) -> Tensor:
    """Forecast the last value: `(B, look-back, features)` to `(B, horizon, features)`."""
    return past[:, -1:].expand(-1, horizon, -1)


def repeat_last_day(past: Tensor, horizon: int) -> Tensor:
    """Forecast the last 24 hours over and over: `(B, look-back, features)` to `(B, horizon, features)`."""
    return past[:, -24:].repeat(1, -(-horizon // 24), 1)[:, :horizon]


def _series(name: str, columns: list[str], values: Tensor) -> Series:
    digest = hashlib.sha256(values.numpy().tobytes()).hexdigest()
    return Series(name, tuple(columns), values, digest)


def _check_header(path: Path, header: list[str]) -> None:
    found = ",".join(header)[:120] or "an empty file"
    if header[:1] != ["date"]:
        raise TrainingError(f"{path}:1: expected a header that begins with the column 'date', found {found}")
    if TARGET not in header[1:]:
        raise TrainingError(f"{path}:1: expected a column {TARGET!r} (the oil temperature), found {found}")
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise TrainingError(f"{path}:1: the column {twice[0]!r} is there more than once")


def _read_rows(path: Path, header: list[str], rows: Any) -> list[list[float]]:
    values: list[list[float]] = []
    expected: datetime | None = None
    for row in rows:
        where = f"{path}:{rows.line_num}"
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(header):
            raise TrainingError(f"{where}: expected {len(header)} cells as in the header, found {len(row)}")
        expected = _date(where, row[0], expected) + HOUR
        values.append([_number(where, name, cell) for name, cell in zip(header[1:], row[1:], strict=True)])
    return values


def _date(where: str, cell: str, expected: datetime | None) -> datetime:
    try:
        date = datetime.fromisoformat(cell.strip())
    except ValueError:
        raise TrainingError(f"{where}: column 'date': expected one like 2016-07-01 00:00:00, found {cell!r}") from None
    if expected is not None and date != expected:
        raise TrainingError(f"{where}: column 'date': rows are one hour apart, expected {expected}, found {cell!r}")
    return date


def _number(where: str, name: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        raise TrainingError(f"{where}: column {name!r}: expected a number, found {cell!r}") from None
    if not math.isfinite(value):
        raise TrainingError(f"{where}: column {name!r}: expected a finite number, found {cell!r}")
    return value
