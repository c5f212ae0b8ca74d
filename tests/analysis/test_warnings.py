"""What a report warns of, and that it is silent otherwise."""

import pytest

from mlbtc import MLBTC, Level, analyze, families
from mlbtc.spec.sizes import Size


def warnings_of(spec: MLBTC, batch: Size | str | None = None) -> tuple[str, ...]:
    return analyze(spec, batch).warnings


SILENT = {
    "low-rank": families.low_rank((64, 64), 4),
    "rank-that-fills-its-blocks": families.block_low_rank((64, 64), 16, 2),
    "as-many-parameters-as-dense": families.low_rank((64, 64), 32),
    "dense": families.dense((7, 5)),
    "butterfly": families.butterfly(64),
    "symbols": families.low_rank(("D", "D"), "r"),
    "size-of-one": families.diagonal(1),
}


@pytest.mark.parametrize("batch", [None, 1, 1000, "N"])
@pytest.mark.parametrize("spec", SILENT.values(), ids=SILENT.keys())
def test_nothing_to_warn_of(spec: MLBTC, batch: Size | str | None) -> None:
    assert warnings_of(spec, batch) == ()


def test_a_rank_above_its_blocks_names_the_level() -> None:
    assert warnings_of(MLBTC((64, 128), [Level(1, 2), Level(16, 3)])) == ()
    found = warnings_of(MLBTC((64, 128), [Level(1, 2), Level(16, 5)]))
    assert found == (
        "levels[1]: rank 5 is above what its blocks of 4 x 8 can use, 4",
        "levels[0] adds no rank: levels[1] alone has full rank, 64",
    )


def test_more_parameters_and_macs_than_dense() -> None:
    assert warnings_of(families.low_rank((64, 64), 48), 10) == (
        "6144 parameters, more than the dense matrix has (4096)",
        "1.5 times the MACs of the dense matrix, at any number of tokens",
    )


@pytest.mark.parametrize("batch", [None, 1, 77], ids=str)
def test_macs_are_compared_at_any_number_of_tokens(batch: int | None) -> None:
    assert any("1.5 times the MACs" in warning for warning in warnings_of(families.low_rank((64, 64), 48), batch))


def test_macs_are_compared_whatever_the_number_of_tokens_is_called() -> None:
    assert warnings_of(families.low_rank((64, 64), 48), "N") == warnings_of(families.low_rank((64, 64), 48))


def test_a_size_called_t_keeps_its_value() -> None:
    spec = families.low_rank(("T", "T"), 16).with_defaults({"T": 64})
    assert warnings_of(spec) == ()


def test_macs_above_dense_with_fewer_parameters() -> None:
    # The activation carries a hundred summed values that two small factors put on it.
    spec = MLBTC((40, 40), [Level.einsum("i r, r s, s j -> i j", {"r": 30, "s": 30})])
    assert warnings_of(spec, 3) == (
        "3300 parameters, more than the dense matrix has (1600)",
        "2.06 times the MACs of the dense matrix, at any number of tokens",
    )
    kron = families.kronecker((16, 16), (16, 16))
    assert warnings_of(kron) == ()


def test_symbols_with_defaults_are_checked_with_their_values() -> None:
    spec = families.low_rank(("D", "D"), 48)
    assert warnings_of(spec) == ()
    assert len(warnings_of(spec.with_defaults({"D": 64}))) == 2
    assert warnings_of(spec.with_defaults({"D": 128})) == ()
    assert len(warnings_of(spec.bind(D=40))) == 3


def test_a_bound_report_warns_anew() -> None:
    report = analyze(families.low_rank(("D", "D"), 48))
    assert report.warnings == ()
    assert len(report.bind(D=64).warnings) == 2


def test_a_level_that_adds_no_rank_is_named() -> None:
    found = warnings_of(MLBTC((64, 64), [Level(1), Level(4, 2)]))
    assert any("levels[1]" in warning and "rank" in warning for warning in found)


BONDS = {"r": 10, "s": 100}


def test_a_bond_above_its_factors_is_named() -> None:
    found = warnings_of(MLBTC((200, 200), [Level.einsum("i r, r s, s j -> i j", BONDS)]))
    assert found == ("levels[0]: the size of index s = 100 is above what factors 1 and 2 can use, 10",)
    assert warnings_of(MLBTC((200, 200), [Level.einsum("i r, r s, s j -> i j", {"r": 10, "s": 10})])) == ()
    both = warnings_of(MLBTC((8, 8), [Level.einsum("i r s, r s j -> i j", {"r": 3, "s": 3})]))
    assert both[0] == "levels[0]: the product of the indices r s = 9 is above what factors 0 and 1 can use, 8"


def test_ranks_of_a_block_tensor_train() -> None:
    def above(rank: int) -> list[str]:
        return [w for w in warnings_of(families.btt((64, 64), rank)) if "above what factors" in w]

    assert above(8) == []
    assert above(9) == ["levels[0]: the size of index s = 9 is above what factors 0 and 1 can use, 8"]


def test_levels_after_full_rank_add_none() -> None:
    ranks, blocks = [8, 6, 2, 1], [1, 4, 16, 32]
    assert warnings_of(families.mlr((64, 64), ranks, blocks)) == (
        "levels[3] adds no rank: the levels before it have full rank together, 64",
    )
    assert warnings_of(families.mlr((64, 64), ranks[:3], blocks[:3])) == ()
    # Without a proof that ranks add up, nothing is said.
    levels = [Level(p, r, permutation=(None, "bit_reversal")) for p, r in zip(blocks, ranks, strict=True)]
    assert warnings_of(MLBTC((64, 64), levels)) == ()


def test_a_scale_of_every_level_is_reducible() -> None:
    low, block = Level(1, 4), Level(4, 2)
    assert warnings_of(MLBTC((64, 64), [low.scaled(0.5), block.scaled(0.5)])) == (
        "the scale 0.5 of every level adds nothing that its factors cannot learn: it only rescales the start",
    )
    assert "of the matrix" in warnings_of(MLBTC((64, 64), [low.scaled(2)]))[0]
    assert warnings_of(MLBTC((64, 64), [low, block.scaled(0.5)])) == ()


def test_the_batch_at_which_the_order_flips() -> None:
    spec = MLBTC((300, 300), [Level.einsum("i r, r s, s j -> i j", {"r": 100, "s": 600})])
    assert warnings_of(spec)[-1] == (
        "3 times the MACs of the dense matrix, one factor after the other; with factors multiplied first, fewer from "
        "601 tokens per call on"
    )
    assert not any("MACs" in warning for warning in warnings_of(families.low_rank((300, 300), 100)))
