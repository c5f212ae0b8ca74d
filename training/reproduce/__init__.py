"""The paper's experiments as grids of runs: what is claimed, what was found, and whether that bears the claim out."""

from mlbtc.training.reproduce.catalogue import EXPERIMENTS, Plan, plan
from mlbtc.training.reproduce.execute import reproduce
from mlbtc.training.reproduce.jobs import choose_jobs, reproduce_in_jobs

__all__ = ["EXPERIMENTS", "Plan", "choose_jobs", "plan", "reproduce", "reproduce_in_jobs"]
