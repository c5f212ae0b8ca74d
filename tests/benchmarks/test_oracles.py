"""The float64 references against autograd on dense matrices, which they do not use."""

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from mlbtc.benchmarks.oracles import attention_results, linear_results
from mlbtc.spec import MLBTC, Level, families


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(len(shape)))


def test_low_rank_gradients():
    left, right = random(1, 5, 2).requires_grad_(), random(1, 7, 2).requires_grad_() * 2
    right.retain_grad()
    x, grad = random(3, 7).requires_grad_(), random(3, 5)
    y = 0.5 * x @ right[0] @ left[0].T
    y.backward(grad)
    spec = MLBTC(shape=(5, 7), levels=[Level(blocks=1, rank=2, scale=0.5)])
    found = linear_results(spec, [left, right], x, grad)
    for result, expected in zip(found, (y, x.grad, left.grad, right.grad), strict=True):
        torch.testing.assert_close(result, expected.detach())


def test_levels_with_blocks_add_up():
    spec = families.mlr((4, 4), [1, 2])
    factors = [random(*(int(s) for s in level.factor_shape(f))) for level in spec.levels for f in range(2)]
    u, v, blocks_u, blocks_v = factors
    dense = u[0] @ v[0].T + torch.block_diag(*(a @ b.T for a, b in zip(blocks_u, blocks_v, strict=True)))
    x = random(6, 4)
    y, grad_x, *_ = linear_results(spec, factors, x, x)
    torch.testing.assert_close(y, x @ dense.T)
    torch.testing.assert_close(grad_x, x @ dense)


@pytest.mark.parametrize("tokens", [1, 7])
def test_one_level_of_attention_is_standard_attention(tokens):
    q, k, v = (random(2, 3, tokens, 4)[..., :4].clone().add(n).requires_grad_() for n in range(3))
    grad = random(2, 3, tokens, 4)
    output = scaled_dot_product_attention(q, k, v, is_causal=True)
    expected = [output.detach(), *torch.autograd.grad(output, (q, k, v), grad)]
    torch.testing.assert_close(attention_results(q, k, v, grad, (4,), (tokens,)), expected)


def test_tokens_of_different_blocks_meet_in_the_coarse_level_only():
    q, k, v, grad = (random(1, 1, 4, 2).clone().add(n).requires_grad_() for n in range(4))
    together = torch.block_diag(torch.ones(2, 2), torch.ones(2, 2)).double()
    scores = (q[..., :1] @ k[..., :1].mT + q[..., 1:] @ k[..., 1:].mT * together) / 2**0.5
    causal = torch.ones(4, 4, dtype=torch.bool).triu(1)
    output = torch.softmax(scores.masked_fill(causal, float("-inf")), -1) @ v
    expected = [output.detach(), *torch.autograd.grad(output, (q, k, v), grad.detach())]
    torch.testing.assert_close(attention_results(q, k, v, grad, (1, 1), (4, 2)), expected)
