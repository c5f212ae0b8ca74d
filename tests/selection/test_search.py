"""Searching structures: what is tried, what is kept, and that costs are those of the report."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mlbtc
from mlbtc import families
from mlbtc.errors import SpecError
from mlbtc.selection.candidates import front, measured, specs_within
from mlbtc.selection.options import CHOSEN_FROM, largest_member, macs_of, options, parameters_of

pytestmark = pytest.mark.usefixtures("without_compiler")


@pytest.mark.parametrize("shape", [(16, 16), (12, 18), (7, 5), (1, 8)])
def test_members_have_the_shape_the_budget_and_the_costs_of_their_report(shape):
    found = specs_within(shape, 0.7 * shape[0] * shape[1])
    for spec in found:
        report = mlbtc.analyze(spec, batch=1)
        one = measured(spec)
        assert spec.shape == shape
        assert one.macs == report.macs.value <= 0.7 * shape[0] * shape[1]
        assert one.parameters == report.parameters.value
        assert one.rank == report.rank.value


def test_nothing_is_tried_twice():
    found = specs_within((16, 16), 256)
    forms = [spec.simplify().canonical().levels for spec in found]
    assert len(set(forms)) == len(forms)
    # BTT of rank 1 with 4 x 4 blocks is Monarch with 4 blocks.
    assert families.monarch((16, 16), 4).canonical().levels in forms
    assert sum(form == families.btt((16, 16), 1).canonical().levels for form in forms) == 1


def test_every_family_can_be_chosen():
    assert {spec.name for family in CHOSEN_FROM for spec in specs_within((16, 16), 256, [family])} == {*CHOSEN_FROM}


@pytest.mark.parametrize("macs", [100, 150, 255])
def test_ranks_are_the_largest_that_fit(macs):
    for option in options((16, 16)):
        rank = option.largest_rank(macs)
        assert rank == max((r for r in range(1, option.most + 1) if macs_of(option.make(r)) <= macs), default=0)


def test_the_largest_member():
    spec = largest_member((16, 16), "low_rank", 200)
    assert (macs_of(spec), parameters_of(spec)) == (192, 192)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=12))
def test_a_front_beats_everything_and_nothing_in_it(points):
    found = front(points, lambda point: point)
    assert all(any(all(a <= b for a, b in zip(one, point, strict=True)) for one in found) for point in points)
    for one, other in itertools.permutations(found, 2):
        assert any(a > b for a, b in zip(one, other, strict=True))


def test_a_search_without_a_matrix():
    found = mlbtc.search((16, 32), 0.5)
    assert {one.text for one in found.front} <= {one.text for one in found.candidates}
    assert all(one.macs <= 256 and one.error is None for one in found.candidates)
    assert "error" not in found.header
    assert all(len(row) == len(found.header) for row in found.rows(found.candidates))


def test_a_search_finds_what_a_matrix_is():
    rng = np.random.default_rng(0)
    matrix = np.kron(rng.standard_normal((4, 4)), rng.standard_normal((4, 8)))
    found = mlbtc.search((16, 32), 0.5, matrix=matrix, families=["kronecker", "low_rank", "monarch"])
    best = min(found.candidates, key=lambda one: one.error)
    assert best.text == "Kronecker product of 4 x 4 and 4 x 8"
    assert best.error < 1e-12
    assert best in found.front
    low = [one for one in found.candidates if one.spec.name == "low_rank"]
    for one in low:
        values = np.linalg.svd(matrix, compute_uv=False)
        expected = np.linalg.norm(values[one.rank :]) / np.linalg.norm(values)
        assert one.error == pytest.approx(expected, abs=1e-12)


def test_measured_times():
    found = mlbtc.search((8, 8), 0.8, families=["low_rank"], measure=True, tokens=4)
    assert all(0 < one.seconds < 1 for one in found.candidates)
    assert found.header[-1] == "seconds"


@pytest.mark.parametrize(
    ("arguments", "options_", "words"),
    [
        (((4,), 0.5), {}, "a pair of positive integers"),
        (((4, 4), 0), {}, "a fraction of the MACs of a dense matrix, above 0, found 0"),
        (((4, 4), 0.01), {}, "no structure of 4 x 4 has at most 0 MACs per token"),
        (((4, 4), 0.5), {"families": ["low_rnk"]}, "did you mean 'low_rank'?"),
        (((4, 4), 0.5), {"matrix": np.zeros((3, 4))}, "the matrix has the shape (3, 4)"),
    ],
)
def test_bad_arguments(arguments, options_, words):
    with pytest.raises(SpecError) as caught:
        mlbtc.search(*arguments, **options_)
    assert words in str(caught.value)
