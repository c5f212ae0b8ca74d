"""MLR attention for GPUs: the tiling planner, the emitted Triton kernels, and the operators that launch them.

`tiling` decides, `source` writes, `launch` runs. Nothing here imports triton; emitted source does.
"""

from mlbtc.attention.triton.tiling import AttentionProblem, Tiles, TilingPlan, plan_tiles

__all__ = ["AttentionProblem", "Tiles", "TilingPlan", "plan_tiles"]
