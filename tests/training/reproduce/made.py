"""Outcomes made up for tests."""

from mlbtc.training.reproduce.outcome import Outcome, Point


def outcome(variant, seed, values, *, setting="only", macs=1.0, seconds=1.0, final=None):
    """Return a run that evaluated to `values`, one after every so many MACs and seconds."""
    curve = tuple(Point(i, i * macs, i * seconds, value) for i, value in enumerate(values, 1))
    versions = (("torch", "1"), ("threads", 2))
    return Outcome(setting, variant, seed, values[-1] if final is None else final, curve, 10, versions)
