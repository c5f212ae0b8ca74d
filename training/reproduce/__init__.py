"""The paper's experiments as grids of runs: what is claimed, what was found, and whether that bears the claim out."""

from mlbtc.training.reproduce.catalogue import EXPERIMENTS, Plan, plan
from mlbtc.training.reproduce.execute import reproduce

__all__ = ["EXPERIMENTS", "Plan", "plan", "reproduce"]
