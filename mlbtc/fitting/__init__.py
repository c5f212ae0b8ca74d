"""Fitting: from a dense matrix to the best factors of a spec."""

from mlbtc.fitting.fit import Fit, fit
from mlbtc.fitting.report import FitReport

__all__ = ["Fit", "FitReport", "fit"]
