import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc.errors import SpecError
from mlbtc.integrations.masks import boolean, positions, right_padding, split_mask


@st.composite
def masks(draw):
    """Draw sizes and a mask of bits."""
    batch, queries, keys = draw(st.integers(1, 2)), draw(st.integers(1, 3)), draw(st.integers(1, 4))
    bits = draw(st.lists(st.booleans(), min_size=batch * queries * keys, max_size=batch * queries * keys))
    return torch.tensor(bits).view(batch, queries, keys)


def made(causal: bool, seen: list[bool], queries: int) -> list[list[bool]]:
    """Return the mask of one sequence by its definition."""
    first = len(seen) - queries
    return [[shown and not (causal and j > first + i) for j, shown in enumerate(seen)] for i in range(queries)]


@settings(deadline=None, max_examples=300)
@given(masks())
def test_a_mask_is_made_again_from_what_is_read_or_is_refused(mask):
    queries, keys = mask.shape[1:]
    possible = [
        causal
        for causal in ([False, True] if queries <= keys else [False])
        if all(
            any(
                made(causal, [bool(bits >> j & 1) for j in range(keys)], queries) == row.tolist()
                for bits in range(2**keys)
            )
            for row in mask
        )
    ]
    if not possible:
        with pytest.raises(SpecError, match="sliding window, packed sequences or a bias"):
            split_mask(mask)
        return
    causal, seen = split_mask(mask)
    assert causal in possible
    for row, own in zip(mask, seen, strict=True):
        assert made(causal, own.tolist(), queries) == row.tolist()


def test_numbers_hide_keys_by_any_dtypes_least():
    for low in (float("-inf"), torch.finfo(torch.float32).min, torch.finfo(torch.float16).min):
        assert boolean(torch.tensor([0.0, low])).tolist() == [True, False]
    with pytest.raises(SpecError, match="a bias"):
        boolean(torch.tensor([0.0, -1.0]))
    with pytest.raises(SpecError, match=r"found torch\.int64"):
        boolean(torch.tensor([0, 1]))


def test_positions_count_visible_keys():
    visible = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 1, 0, 1]]).bool()
    assert positions(visible).tolist() == [[0, 0, 0, 1, 2], [0, 1, 2, 3, 3], [0, 1, 1, 2, 2]]
    assert [right_padding(row[None]) for row in visible] == [False, True, False]
