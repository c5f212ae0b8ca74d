"""Plans: the order in which a level's factors meet the input, pair by pair, and what each step costs."""

from mlbtc.plan.build import LevelPlan, Plan, build_plan
from mlbtc.plan.step import Step

__all__ = ["LevelPlan", "Plan", "Step", "build_plan"]
