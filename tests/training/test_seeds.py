import torch
from hypothesis import given
from hypothesis import strategies as st

from mlbtc.training.seeds import seeded, stream, stream_seed

seeds = st.integers(0, 2**31)
purposes = st.sampled_from(["model", "training", "evaluation"])


@given(seeds, purposes, seeds, purposes)
def test_streams_differ_unless_seed_and_purpose_agree(seed, purpose, other_seed, other_purpose):
    same = (seed, purpose) == (other_seed, other_purpose)
    assert (stream_seed(seed, purpose) == stream_seed(other_seed, other_purpose)) == same


def test_a_stream_repeats():
    assert torch.equal(torch.randn(5, generator=stream(3, "a")), torch.randn(5, generator=stream(3, "a")))


def test_the_caller_keeps_its_generator():
    torch.manual_seed(1)
    expected = torch.randn(3)
    torch.manual_seed(1)
    with seeded(7, "model"):
        inside = torch.randn(3)
    assert torch.equal(torch.randn(3), expected)
    assert not torch.equal(inside, expected)
