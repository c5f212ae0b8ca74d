"""The command line, `mlbtc --help`."""

from mlbtc.cli.app import main

__all__ = ["main"]
