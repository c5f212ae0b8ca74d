"""MLR attention in models of transformers: an attention function with its mask function, and conversion of models.

Importing this module does not import transformers; its functions do.
"""

from mlbtc.integrations.functions import register
from mlbtc.integrations.models import convert_attention, restore_attention

__all__ = ["convert_attention", "register", "restore_attention"]
