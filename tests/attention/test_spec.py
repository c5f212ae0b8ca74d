"""`AttentionSpec`: constructors, YAML, and what it refuses."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import mlbtc
from mlbtc import AttentionSpec
from mlbtc.errors import MlbtcError, SpecError

MLR: dict[str, Any] = {"width": 16, "heads": 2, "ranks": (4, 2, 2), "context": 24}


def test_standard_is_one_level_of_the_head_dimension() -> None:
    spec = AttentionSpec.standard(width=512, heads=8, context=100)
    assert (spec.variant, spec.ranks, spec.block_sizes) == ("standard", (64,), (100,))
    assert (spec.head_dimension, spec.causal, spec.qk_norm, spec.name) == (64, True, False, "attention")


def test_blocks_halve_the_context_by_default() -> None:
    spec = AttentionSpec.mlr(width=512, heads=8, ranks=(32, 16, 8, 8), context=1024)
    assert spec.block_sizes == (1024, 512, 256, 128)
    assert spec.default_blocks
    assert not AttentionSpec.mlr(**MLR, block_sizes=(24, 6, 3)).default_blocks


def test_given_blocks_are_kept() -> None:
    spec = AttentionSpec.mlr(**MLR, block_sizes=[24, 8, 8], causal=False, qk_norm=True, name="a b")
    assert (spec.block_sizes, spec.causal, spec.qk_norm, spec.name) == ((24, 8, 8), False, True, "a b")


def test_equality_and_hash_ignore_the_name() -> None:
    one, two = AttentionSpec.mlr(**MLR), AttentionSpec.mlr(**MLR, name="other")
    assert one == two
    assert len({one, two, AttentionSpec.mlr(**MLR, causal=False)}) == 2
    assert one != AttentionSpec.standard(width=16, heads=2, context=24)


def test_specs_are_frozen() -> None:
    with pytest.raises((AttributeError, TypeError)):
        AttentionSpec.mlr(**MLR).width = 3


def test_str_says_what_matters() -> None:
    text = str(AttentionSpec.mlr(**MLR, name="mine", causal=False))
    for word in ("mine", "mlr", "16", "2 heads", "4|2|2", "24|12|6", "bidirectional"):
        assert word in text


@st.composite
def specs(draw: st.DrawFn) -> AttentionSpec:
    ranks = draw(st.lists(st.integers(1, 9), min_size=1, max_size=6))
    blocks = [draw(st.integers(1, 5))]
    for _ in ranks[1:]:
        blocks.insert(0, blocks[0] * draw(st.integers(1, 4)))
    heads = draw(st.integers(1, 4))
    name = draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,20}", fullmatch=True))
    flags = {"causal": draw(st.booleans()), "qk_norm": draw(st.booleans()), "name": name}
    if draw(st.booleans()):
        return AttentionSpec.standard(width=sum(ranks) * heads, heads=heads, context=blocks[0], **flags)
    return AttentionSpec.mlr(sum(ranks) * heads, heads, ranks, blocks[0], blocks, **flags)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(spec=specs())
def test_yaml_and_back(spec: AttentionSpec) -> None:
    back = mlbtc.loads(spec.to_yaml())
    assert back == spec
    assert isinstance(back, AttentionSpec)
    assert back.name == spec.name
    assert back.to_yaml() == spec.to_yaml()


@pytest.mark.parametrize(
    "name",
    [
        "1e5",
        "10",
        "true",
        "null",
        "1.5",
        "0x10",
        "no",
        "2024-01-01",
        "- a",
        "a ",
    ],
)
def test_names_that_yaml_could_misread(name: str) -> None:
    try:
        spec = AttentionSpec.standard(width=4, heads=1, context=4, name=name)
    except SpecError:
        return
    assert mlbtc.loads(spec.to_yaml()).name == name


def test_defaults_of_the_file() -> None:
    text = "attention: {variant: mlr, width: 16, heads: 2, context: 24, ranks: [4, 2, 2]}"
    assert mlbtc.loads(text) == AttentionSpec.mlr(**MLR)


BAD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "heads-do-not-divide": ({"heads": 3}, ["16", "3"]),
    "zero-heads": ({"heads": 0}, ["heads", "0"]),
    "negative-width": ({"width": -16}, ["width", "-16"]),
    "zero-context": ({"context": 0}, ["context", "0"]),
    "absurd-context": ({"context": 10**9}, ["context", "1000000000"]),
    "width-true": ({"width": True}, ["width", "True"]),
    "width-fraction": ({"width": 16.0}, ["width", "16.0"]),
    "width-none": ({"width": None}, ["width", "nothing"]),
    "width-symbol": ({"width": "D"}, ["width", "D"]),
    "sum-too-small": ({"ranks": (4, 2, 1)}, ["4|2|1", "7", "8"]),
    "sum-too-large": ({"ranks": (9,)}, ["9", "8"]),
    "no-ranks": ({"ranks": ()}, ["ranks"]),
    "ranks-none": ({"ranks": None}, ["ranks"]),
    "zero-rank": ({"ranks": (8, 0)}, ["rank", "0"]),
    "negative-rank": ({"ranks": (9, -1)}, ["rank", "-1"]),
    "rank-fraction": ({"ranks": (4.5, 3.5)}, ["rank", "4.5"]),
    "ranks-text": ({"ranks": "422"}, ["ranks", "422"]),
    "too-many-ranks": ({"width": 200, "ranks": (1,) * 100}, ["64"]),
    "context-not-halved": ({"context": 26}, ["26", "block_sizes"]),
    "block-count": ({"block_sizes": (24, 12)}, ["3", "2"]),
    "first-block": ({"block_sizes": (12, 6, 3)}, ["24", "12"]),
    "not-nested": ({"block_sizes": (24, 8, 3)}, ["8", "3"]),
    "blocks-grow": ({"block_sizes": (24, 6, 12)}, ["6", "12"]),
    "zero-block": ({"block_sizes": (24, 12, 0)}, ["block", "0"]),
    "negative-block": ({"block_sizes": (24, 12, -6)}, ["block", "-6"]),
    "block-none": ({"block_sizes": (24, 12, None)}, ["block", "nothing"]),
    "causal-number": ({"causal": 1}, ["causal", "1"]),
    "norm-word": ({"qk_norm": "yes"}, ["qk_norm", "yes"]),
    "name-code": ({"name": '"""; import os'}, ["name", "import os"]),
    "name-empty": ({"name": ""}, ["name"]),
    "name-newline": ({"name": "a\n"}, ["name"]),
    "name-none": ({"name": None}, ["name", "None"]),
    "block-word": ({"block_sizes": ("24", "12", "6")}, ["block", "24"]),
}


@pytest.mark.parametrize(("changes", "named"), BAD.values(), ids=BAD.keys())
def test_bad_specs(changes: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        AttentionSpec.mlr(**{**MLR, **changes})
    for word in named:
        assert word in str(caught.value)


WRONG_KINDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "width-word": ({"width": "16"}, ["width", "16"]),
    "rank-word": ({"ranks": ("4", "2", "2")}, ["rank", "4"]),
    "ranks-number": ({"ranks": 8}, ["rank", "8"]),
    "blocks-number": ({"block_sizes": 24}, ["block", "24"]),
}


@pytest.mark.parametrize(("changes", "named"), WRONG_KINDS.values(), ids=WRONG_KINDS.keys())
def test_values_of_the_wrong_kind(changes: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(SpecError) as caught:
        AttentionSpec.mlr(**{**MLR, **changes})
    for word in named:
        assert word in str(caught.value)


def test_an_absurd_number_makes_a_short_message() -> None:
    with pytest.raises(SpecError) as caught:
        AttentionSpec.mlr(**{**MLR, "width": 10**4000})
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("variant", ["MLR", "bilinar", "", None, "mrl"])
def test_unknown_variants(variant: Any) -> None:
    with pytest.raises(SpecError, match="standard, mlr, bilinear, mlbtc, sliding_window, global_sliding_window"):
        AttentionSpec(variant, 16, 2, 24)


@pytest.mark.parametrize("extra", [{"ranks": (8,)}, {"block_sizes": (24,)}], ids=str)
def test_standard_takes_neither_ranks_nor_blocks(extra: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="variant mlr"):
        AttentionSpec("standard", 16, 2, 24, **extra)


HEAD = "name: a\nattention:\n  width: 16\n  heads: 2\n"
BAD_FILES = {
    "unknown-variant": ("  context: 8\n  variant: mrl\n", 6, "mlr"),
    "unknown-key": ("  context: 8\n  variant: mlr\n  rnaks: [4, 4]\n", 7, "ranks"),
    "missing-context": ("  variant: standard\n", 2, "context"),
    "ranks-do-not-add-up": ("  context: 8\n  variant: mlr\n  ranks: [4, 3]\n", 7, "8"),
    "negative-rank": ("  context: 8\n  variant: mlr\n  ranks: [9, -1]\n", 7, "-1"),
    "rank-is-text": ("  context: 8\n  variant: mlr\n  ranks: [4, four]\n", 7, "four"),
    "ranks-is-a-number": ("  context: 8\n  variant: mlr\n  ranks: 8\n", 7, "a list"),
    "blocks-not-nested": ("  context: 8\n  variant: mlr\n  ranks: [4, 4]\n  block_sizes: [8, 3]\n", 8, "3"),
    "first-block-not-the-context": ("  context: 8\n  variant: mlr\n  ranks: [4, 4]\n  block_sizes: [4, 2]\n", 8, "8"),
    "too-few-blocks": ("  context: 8\n  variant: mlr\n  ranks: [4, 4]\n  block_sizes: [8]\n", 8, "2 ranks"),
    "zero-context": ("  context: 0\n  variant: standard\n", 5, "at least 1"),
    "standard-with-ranks": ("  context: 8\n  variant: standard\n  ranks: [8]\n", 7, "variant mlr"),
    "causal-word": ("  context: 8\n  variant: standard\n  causal: perhaps\n", 7, "true or false"),
}


@pytest.mark.parametrize(("rest", "line", "word"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files_name_line_and_remedy(rest: str, line: int, word: str) -> None:
    with pytest.raises(MlbtcError) as caught:
        mlbtc.loads(HEAD + rest, source="bad.yaml")
    message = str(caught.value)
    assert message.startswith(f"bad.yaml:{line}: ")
    assert word in message


def test_an_attention_file_has_no_shape() -> None:
    text = "shape: [4, 4]\nattention: {variant: standard, width: 4, heads: 1, context: 4}\n"
    with pytest.raises(SpecError, match="shape"):
        mlbtc.loads(text)


def test_missing_ranks_are_blamed_on_the_variant() -> None:
    with pytest.raises(SpecError, match=r"^bad.yaml:6: "):
        mlbtc.loads(HEAD + "  context: 8\n  variant: mlr\n", source="bad.yaml")


def test_a_missing_key_shows_the_keys_of_its_own_mapping() -> None:
    with pytest.raises(SpecError, match="block_sizes"):
        mlbtc.loads(HEAD + "  variant: standard\n", source="bad.yaml")
