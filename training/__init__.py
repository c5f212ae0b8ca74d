"""Training: a small transformer whose attention comes from specs, a resumable loop, and two of the paper's tasks."""

if __name__ != "mlbtc.training":
    raise ImportError(f"import mlbtc.training, not {__name__}")

from mlbtc.training.attention import choose_attention
from mlbtc.training.errors import Interrupted, TrainingError
from mlbtc.training.model import Transformer

__all__ = ["Interrupted", "TrainingError", "Transformer", "choose_attention"]
