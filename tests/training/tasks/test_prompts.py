import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc.training.seeds import stream
from mlbtc.training.tasks.prompts import Curriculum, Prompts, draw_prompts, least_squares_errors, zero_errors

sizes = st.integers(1, 7)


def draw(batch=3, dims=4, active=4, points=6, seed=0):
    return draw_prompts(batch, dims, active, points, stream(seed, "test"))


@given(sizes, sizes, sizes)
def test_tokens_take_turns(batch, dims, points):
    prompts = draw(batch, dims, dims, points)
    tokens = prompts.tokens()
    assert tokens.shape == (batch, 2 * points, dims)
    assert torch.equal(tokens[:, ::2], prompts.points)
    assert torch.equal(tokens[:, 1::2, 0], prompts.targets)
    assert tokens[:, 1::2, 1:].count_nonzero() == 0


@given(sizes, sizes, sizes)
def test_targets_are_linear_in_the_points(batch, dims, points):
    # More points than dimensions: one w has to explain all of them.
    prompts = draw(batch, dims, dims, points + dims)
    for x, y in zip(prompts.points.double().numpy(), prompts.targets.double().numpy(), strict=True):
        w = np.linalg.lstsq(x, y, rcond=None)[0]
        assert np.allclose(x @ w, y, atol=1e-4)


def test_scales_make_the_zero_predictor_err_by_one():
    prompts = draw(batch=20000, dims=8, active=8, points=4)
    assert prompts.points.square().sum(-1).mean().item() == pytest.approx(1, abs=0.02)
    assert zero_errors(prompts).tolist() == pytest.approx([1] * 4, abs=0.05)


def test_inactive_dimensions_are_zero():
    prompts = draw(batch=20000, dims=8, active=2, points=4)
    assert prompts.points[..., 2:].count_nonzero() == 0
    assert zero_errors(prompts).tolist() == pytest.approx([1] * 4, abs=0.05)


@settings(deadline=None)
@given(sizes, sizes, sizes, st.integers(0, 100))
def test_least_squares_is_the_minimum_norm_solution_of_numpy(batch, dims, points, seed):
    prompts = draw(batch, dims, dims, points, seed)
    x, y = prompts.points.double().numpy(), prompts.targets.double().numpy()
    expected = []
    for seen in range(points):
        # Without any point the system is empty, and numpy's answer is 0 as well.
        fits = [np.linalg.lstsq(x[b, :seen], y[b, :seen], rcond=None)[0] for b in range(batch)]
        expected.append(np.mean([(x[b, seen] @ fits[b] - y[b, seen]) ** 2 for b in range(batch)]))
    # Nearly dependent points make both solvers inexact; squared errors are of order 1.
    assert np.allclose(least_squares_errors(prompts).numpy(), expected, atol=1e-3)


def test_least_squares_is_exact_once_it_has_seen_every_dimension():
    errors = least_squares_errors(draw(batch=64, dims=5, active=5, points=12))
    assert errors[5:].max() < 1e-6
    assert errors[0] == pytest.approx(zero_errors(draw(batch=64, dims=5, active=5, points=12))[0].item())
    assert (errors[:5] > 1e-3).all()


def test_repeated_points_do_not_upset_least_squares():
    x = torch.tensor([[[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]])
    errors = least_squares_errors(Prompts(x, torch.tensor([[2.0, 2.0, 3.0]])))
    assert errors.tolist() == pytest.approx([4, 0, 9])


@given(st.integers(1, 64), st.integers(1, 128), st.integers(0, 50))
def test_the_curriculum_grows_from_a_quarter_to_all(dims, points, steps):
    curriculum = Curriculum(dims, points, steps)
    path = [curriculum.at(step) for step in range(1, steps + 3)]
    assert path == sorted(path)
    assert path[-1] == path[steps] == (dims, points)
    if steps:
        assert path[0] == (max(1, dims // 4), max(1, points // 4))
