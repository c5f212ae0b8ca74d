import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc import AttentionSpec, families
from mlbtc.errors import SpecError
from mlbtc.integrations.levels import Levels, attend, check_heads, check_pairs, levels_of
from tests.integrations import definition

pytestmark = pytest.mark.usefixtures("without_compiler")
LEVELS = {
    "one level": Levels((6,), (None,)),
    "two levels": Levels((4, 2), (None, 3)),
    "three levels": Levels((1, 2, 3), (None, 4, 2)),
}


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(sorted(LEVELS)),
    rows=st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=2),
    queries=st.integers(1, 7),
    groups=st.sampled_from([1, 2]),
    causal=st.booleans(),
    skip=st.booleans(),
)
def test_attention_is_as_defined_wherever_the_padding_is(name, rows, queries, groups, causal, skip):
    levels, visible, keys = LEVELS[name], torch.tensor(rows), 7
    queries = queries if causal else keys
    new = torch.Generator().manual_seed(0)
    shapes = ((2 * groups, queries), (2, keys), (2, keys))
    tensors = [torch.randn(len(rows), *shape, 6, generator=new, dtype=torch.float64) for shape in shapes]
    starts = [sum(levels.ranks[:level]) for level in range(len(levels.ranks))]
    features = [list(range(start, start + rank)) for start, rank in zip(starts, levels.ranks, strict=True)]
    expected = definition.attend(*tensors, features, list(levels.block_sizes), causal, visible, 0.7)
    got = attend(*tensors, levels, causal=causal, visible=visible, scale=0.7, skip_padding=skip and causal)
    # What padding itself attends to is nobody's business.
    real = visible[:, None, keys - queries :, None]
    torch.testing.assert_close(got * real, expected * real)
    if not (skip and causal) and levels.one:
        torch.testing.assert_close(got, expected)


def test_levels_of_a_spec():
    spec = AttentionSpec.mlr(width=32, heads=4, ranks=(4, 2, 2), context=64, block_sizes=(64, 8, 4))
    assert levels_of(spec) == Levels((4, 2, 2), (None, 8, 4))
    assert levels_of(AttentionSpec.standard(width=32, heads=4, context=64)) == Levels((8,), (None,))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mlr", "the spec is an AttentionSpec, found str"),
        (AttentionSpec.sliding_window(width=32, heads=4, context=64, window=8), "found sliding_window"),
        (AttentionSpec.bilinear(width=32, heads=4, context=64, score=families.low_rank((32, 32), 2)), "found bilinear"),
        (AttentionSpec.mlr(width=32, heads=4, ranks=(4, 4), context=64, rope=10000.0), "leave rope at the default"),
        (
            AttentionSpec.mlr(width=32, heads=4, ranks=(4, 4), context=64, scale="mup", qk_norm=True, causal=False),
            "leave scale, qk_norm, causal at the default",
        ),
    ],
    ids=["no spec", "window", "bilinear", "rope", "several"],
)
def test_specs_that_ask_for_something_else_are_refused(spec, message):
    with pytest.raises(SpecError, match=message):
        levels_of(spec)


def test_messages_name_the_head_and_the_ranks():
    with pytest.raises(SpecError, match=r"h\.0\.attn has heads of 16 features, the ranks 4\|2 of the spec add up to 6"):
        check_heads(Levels((4, 2), (None, 3)), 16, "h.0.attn")
    with pytest.raises(
        SpecError, match=r"heads of 8 features, of which RoPE rotates d and d \+ 4 .* ranks 5\|3 would cut"
    ):
        check_pairs(Levels((5, 3), (None, 3)), 8, "layers.0")
