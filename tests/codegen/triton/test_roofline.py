"""Bounds for the product of two factors, against numbers worked out by hand and the report's own count."""

import pytest

from mlbtc import analyze, families
from mlbtc.codegen.triton.roofline import H100, dense_work, two_factor_work


def test_monarch_of_1024_is_bound_by_memory():
    work = two_factor_work(4096, 32, 32, 32, 32, 1)
    assert (work.flops, work.bytes_moved) == (536_870_912, 16_908_288)
    assert work.seconds() == pytest.approx(16_908_288 / 3.35e12)


def test_dense_of_1024_is_bound_by_arithmetic():
    work = dense_work(4096, 1024, 1024)
    assert (work.flops, work.bytes_moved) == (8_589_934_592, 18_874_368)
    assert work.seconds(H100) == pytest.approx(8_589_934_592 / 989.4e12)


@pytest.mark.parametrize(("a", "b", "c", "d", "s"), [(32, 32, 32, 32, 2), (3, 5, 7, 11, 2), (2, 3, 5, 7, 1)])
def test_flops_are_those_of_the_report(a, b, c, d, s):
    spec = families.btt((a * b, c * d), rank=s, factors=(a, b, c, d))
    assert two_factor_work(13, a, b, c, d, s).flops == int(analyze(spec, batch=13).flops.value)
