"""The maximal update parametrisation (muP): learning rates that carry over from a narrow model to a wide one."""

from mlbtc.mup.coordinates import CoordinateCheck, coordinate_check
from mlbtc.mup.groups import parameter_groups
from mlbtc.mup.transfer import TransferCheck, transfer_check

__all__ = ["CoordinateCheck", "TransferCheck", "coordinate_check", "parameter_groups", "transfer_check"]
