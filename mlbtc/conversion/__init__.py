"""Conversion: the linear layers of a model become structured ones, and back."""

from mlbtc.conversion.convert import convert
from mlbtc.conversion.covariances import input_covariances
from mlbtc.conversion.densify import densify
from mlbtc.conversion.planning import ModelPlan, plan_model
from mlbtc.conversion.report import Conversion, Converted, Skipped
from mlbtc.conversion.rules import Budget

__all__ = [
    "Budget",
    "Conversion",
    "Converted",
    "ModelPlan",
    "Skipped",
    "convert",
    "densify",
    "input_covariances",
    "plan_model",
]
