"""Bounds for the product of two factors, against numbers worked out by hand and the report's own count."""

import pytest

from mlbtc import analyze, families
from mlbtc.codegen.triton.matrix import plan_kernels
from mlbtc.codegen.triton.roofline import H100, dense_work, matrix_work, two_factor_work


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


def test_launches_of_what_fits_its_tiles_are_the_bound() -> None:
    for rank in (1, 2):
        spec = families.btt((1024, 1024), rank=rank)
        assert matrix_work(plan_kernels(spec), 4096) == two_factor_work(4096, 32, 32, 32, 32, rank)


def test_launches_of_nested_low_rank() -> None:
    work = matrix_work(plan_kernels(families.mlr((1024, 1024), [32, 32, 32, 32], [1, 2, 4, 8])), 4096)
    assert work.flops == 2 * 4096 * 4 * 32 * 2048
    # 32 (1 + 2 + 4 + 8) features are written and read.
    assert work.bytes_moved == 2 * (4096 * (1024 + 2 * 480 + 1024) + 4 * 32 * 2048)
    assert work.seconds() < dense_work(4096, 1024, 1024).seconds()


def test_launches_of_two_levels_write_and_read_their_sum() -> None:
    spec = families.btt((1024, 1024), rank=2) + families.low_rank((1024, 1024), 32)
    work = matrix_work(plan_kernels(spec), 4096)
    assert work.flops == 2 * 4096 * (2 * 65_536 + 32 * 2048)
    factors = 2 * 65_536 + 32 * 2048
    assert work.bytes_moved == 4096 * (2 * 3 * 1024 + 4 * 2 * 1024) + 2 * factors
