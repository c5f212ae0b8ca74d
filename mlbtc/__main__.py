"""`python -m mlbtc` is the command line."""

from mlbtc.cli import main

main()
