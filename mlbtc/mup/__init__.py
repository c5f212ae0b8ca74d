"""The maximal update parametrisation (muP): learning rates that carry over from a narrow model to a wide one."""

from mlbtc.mup.coordinates import CoordinateCheck, coordinate_check
from mlbtc.mup.groups import parameter_groups

__all__ = ["CoordinateCheck", "coordinate_check", "parameter_groups"]
