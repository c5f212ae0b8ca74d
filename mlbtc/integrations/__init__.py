"""Integrations: mlbtc's attention inside the models of other libraries, by the names that those libraries know."""

from mlbtc.integrations.multihead import MultiheadAttention

__all__ = ["MultiheadAttention"]
