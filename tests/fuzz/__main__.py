"""`python -m tests.fuzz --minutes 30`: read random spec files until the time is up; the seed is printed."""

import argparse
import random
import sys
from pathlib import Path

from tests.fuzz.run import fuzz, save


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=1, help="how long to run")
    parser.add_argument("--seed", type=int, default=None, help="the seed to repeat; random by default")
    parser.add_argument("--first", type=int, default=0, help="the number of the first text")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="where failures are written")
    options = parser.parse_args()
    seed = random.randrange(10**6) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    run = fuzz(seed, 60 * options.minutes, options.first, say)
    for path in save(run, options.out):
        print(f"written: {path}")
    print(f"seed {seed}: {run.texts} texts, {len(run.failures)} kinds of failures")
    return 1 if run.failures else 0


def say(text: str) -> None:
    """Print at once, also what no terminal can show."""
    print(text.encode("utf-8", "backslashreplace").decode("utf-8"), flush=True)


if __name__ == "__main__":
    sys.exit(main())
