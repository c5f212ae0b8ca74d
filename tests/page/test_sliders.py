"""What can be moved, where it stops, and what is refused."""

import pytest

from mlbtc import MLBTC, AttentionSpec, Level, families, load, symbol
from mlbtc.analysis.sweep import Sweep, parse_sweep
from mlbtc.errors import AnalysisError
from mlbtc.page.sliders import MOST_POSITIONS, Slider, make_sliders, thin
from tests.cli.command import SPECS

D, R = symbol("D"), symbol("r")
LOCAL = load(SPECS / "local_and_global.yaml")
LAYER = AttentionSpec.standard(width=8, heads=2, context=24)


def only(sliders: tuple[Slider, ...], name: str) -> Slider:
    (found,) = [slider for slider in sliders if slider.name == name]
    return found


def test_positions_around_a_default_fit_the_spec() -> None:
    slider = only(make_sliders([LOCAL]), "D")
    assert slider.start == 1024
    assert slider.positions[0] == 64
    assert slider.positions[-1] == 16384
    assert 10 < len(slider.positions) <= MOST_POSITIONS
    assert all(int(value**0.5) ** 2 == value and value % 4 == 0 for value in slider.positions)


def test_symbols_that_divide_each_other_double() -> None:
    spec = families.monarch((D, D), blocks=R).with_defaults({"D": 96, "r": 8})
    sliders = make_sliders([spec])
    assert only(sliders, "D").positions == (6, 12, 24, 48, 96, 192, 384, 768, 1536)
    assert only(sliders, "r").positions == (1, 2, 4, 8, 16, 32, 64, 128)


def test_ranges_are_taken_as_they_are() -> None:
    sliders = make_sliders([LOCAL], [parse_sweep("D=1000,64,256"), parse_sweep("T=1:16:4x")], None)
    assert only(sliders, "D") == Slider("size:D", "D", (64, 256, 1000), 256, True)
    assert only(sliders, "T") == Slider("tokens", "T", (1, 4, 16), 4, True)


def test_fixed_sizes_leave_the_tokens() -> None:
    (slider,) = make_sliders([load(SPECS / "monarch.yaml")])
    assert (slider.key, slider.start) == ("tokens", 1024)


def test_tokens_start_at_the_context_or_the_batch() -> None:
    assert make_sliders([LAYER])[-1].start == 24
    slider = make_sliders([LAYER], batch=17)[-1]
    assert slider.start == 17
    assert 17 in slider.positions


def test_a_size_may_be_called_T() -> None:
    spec = MLBTC((symbol("T"), 8), [Level(1, 2)], defaults={"T": 16})
    sliders = make_sliders([spec], [parse_sweep("T=8,16")])
    assert [(s.key, s.name) for s in sliders] == [("size:T", "T"), ("tokens", "tokens")]
    assert sliders[0].positions == (8, 16)


def test_specs_share_a_slider() -> None:
    other = MLBTC((3 * D, D), [Level(3, 2)], defaults={"D": 64})
    sliders = make_sliders([LOCAL, other])
    assert [s.name for s in sliders] == ["D", "T"]
    assert sliders[0].start % 3 == 0


def test_starts_that_do_not_fit_give_way_to_positions_that_do() -> None:
    spec = MLBTC((D, D), [Level.einsum("a r, b r -> a b", sizes={"r": D / R})])
    sliders = make_sliders([spec], [parse_sweep("D=16,32,64"), parse_sweep("r=5,7,9,16")])
    assert (only(sliders, "D").start, only(sliders, "r").start) == (32, 16)


def test_thinned_sliders_keep_their_ends_and_start() -> None:
    spec = families.low_rank((D, D), 2).with_defaults({"D": 1024})
    sliders = make_sliders([spec])
    (slider, tokens) = thin(sliders, ["D"], 7)
    assert len(slider.positions) <= 8
    assert {64, 1024, 16384} <= set(slider.positions)
    assert tokens == sliders[1]
    given = make_sliders([spec], [parse_sweep("D=64:1024:+8")])
    assert thin(given, ["D"], 7) == given


BAD = {
    "no range": ([families.low_rank((D, D), R).with_defaults({"D": 8})], [], "symbol r has no value .* --range r=64"),
    "unknown": ([LOCAL], [Sweep("E", (1,))], "--range E: no spec has a symbol 'E'"),
    "unknown of a layer": ([LAYER], [Sweep("D", (1,))], "only T, the number of tokens"),
    "twice": ([LOCAL], [Sweep("D", (64,)), Sweep("D", (256,))], "--range D is given twice"),
    "too large": ([LOCAL], [Sweep("D", (2**25,))], r"values are from 1 to 16777216"),
    "never fits": ([LOCAL], [Sweep("D", (63, 1000))], "no position of the sliders fits: .*sqrt"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(name: str) -> None:
    specs, ranges, message = BAD[name]
    with pytest.raises(AnalysisError, match=message):
        make_sliders(specs, ranges)


def test_a_batch_outside_its_range() -> None:
    with pytest.raises(AnalysisError, match="--batch 3 is no value of --range T"):
        make_sliders([LAYER], [Sweep("T", (1, 2))], 3)
