"""Spec files: every form of a level, and errors with file, line and key. Bad files are in tests/cli too."""

from pathlib import Path
from typing import Any

import pytest

from mlbtc import MLBTC, AttentionSpec, Level, families, load, loads, symbol
from mlbtc.errors import SpecError
from mlbtc.spec import load_shaped

D = symbol("D")


def one(entry: str, shape: str = "[64, 64]", head: str = "") -> MLBTC:
    """Read a file with one level."""
    spec = loads(f"{head}shape: {shape}\nlevels:\n  - {entry}\n")
    assert isinstance(spec, MLBTC)
    return spec


LEVELS = {
    "blocks-and-rank": ("{blocks: 4, rank: 8}", [Level(4, 8)]),
    "rank-alone": ("{rank: 8}", [Level(1, 8)]),
    "blocks-alone": ("{blocks: 4}", [Level(4)]),
    "scale": ("{blocks: 4, rank: 8, scale: 0.5}", [Level(4, 8, 0.5)]),
    "integer-scale": ("{blocks: 4, scale: -2}", [Level(4, None, -2)]),
    "expressions": ("{blocks: 8/2, rank: 2*4}", [Level(4, 8)]),
    "permutation": (
        "{blocks: 4, permutation: {rows: bit_reversal, columns: stride(8)}}",
        [Level(4, permutation=("bit_reversal", "stride(8)"))],
    ),
    "one-side": ("{blocks: 4, permutation: {columns: stride(8)}}", [Level(4, permutation=(None, "stride(8)"))]),
    "einsum": (
        '{einsum: "b a c s, c b s d -> (b a) (c d)", sizes: {b: 8, c: 8, s: 2}}',
        [Level.einsum("b a c s, c b s d -> (b a) (c d)", {"b": 8, "c": 8, "s": 2})],
    ),
    "einsum-without-sizes": ('{einsum: "i -> i i"}', [Level.einsum("i -> i i")]),
    "index-called-no": ('{einsum: "no r, r y -> no y", sizes: {r: 2}}', [Level.einsum("no r, r y -> no y", {"r": 2})]),
}


@pytest.mark.parametrize(("entry", "levels"), LEVELS.values(), ids=LEVELS.keys())
def test_levels(entry: str, levels: list[Level]) -> None:
    assert one(entry) == MLBTC((64, 64), levels)


FAMILIES: dict[str, tuple[str, MLBTC]] = {
    "dense": ("{family: dense}", families.dense((64, 64))),
    "low_rank": ("{family: low_rank, rank: 3}", families.low_rank((64, 64), 3)),
    "block_diagonal": ("{family: block_diagonal, blocks: 4}", families.block_diagonal((64, 64), 4)),
    "block_low_rank": ("{family: block_low_rank, blocks: 4, rank: 2}", families.block_low_rank((64, 64), 4, 2)),
    "mlr": ("{family: mlr, ranks: [3, 2, 1]}", families.mlr((64, 64), (3, 2, 1))),
    "mlr-blocks": ("{family: mlr, ranks: [3, 2], blocks: [2, 8]}", families.mlr((64, 64), (3, 2), (2, 8))),
    "kronecker": (
        "{family: kronecker, a_shape: [2, 16], b_shape: [32, 4]}",
        families.kronecker((2, 16), (32, 4)),
    ),
    "tensor_train": (
        "{family: tensor_train, rows: [2, 32], columns: [8, 8], ranks: [3]}",
        families.tensor_train((2, 32), (8, 8), (3,)),
    ),
    "btt": ("{family: btt, rank: 2}", families.btt((64, 64), 2)),
    "btt-factors": ("{family: btt, rank: 2, factors: [2, 32, 4, 16]}", families.btt((64, 64), 2, (2, 32, 4, 16))),
    "monarch": ("{family: monarch, blocks: 4}", families.monarch((64, 64), 4)),
    "butterfly": ("{family: butterfly}", families.butterfly(64)),
    "diagonal": ("{family: diagonal}", families.diagonal(64)),
    "low_rank_plus_diagonal": (
        "{family: low_rank_plus_diagonal, rank: 2}",
        families.low_rank_plus_diagonal((64, 64), 2),
    ),
    "permutation-name": (
        "{family: permutation, rows: stride(4)}",
        families.permutation("stride(4)", 64),
    ),
    "permutation-list": (
        f"{{family: permutation, rows: {[*range(1, 64), 0]}}}",
        families.permutation([*range(1, 64), 0]),
    ),
}


@pytest.mark.parametrize(("entry", "expected"), FAMILIES.values(), ids=FAMILIES.keys())
def test_families(entry: str, expected: MLBTC) -> None:
    assert one(entry) == expected
    scaled = one(entry.replace("}", ", scale: 0.25}") if entry.count("}") == 1 else entry)
    assert {level.scale for level in scaled.levels} == {0.25}


def test_every_family_is_read() -> None:
    assert {name.split("-")[0] for name in FAMILIES} == set(families.FAMILIES)


def test_families_stand_beside_levels() -> None:
    spec = loads("shape: [16, 16]\nlevels:\n  - {family: mlr, ranks: [2, 1]}\n  - {blocks: 4}\n")
    assert spec == MLBTC((16, 16), [Level(1, 2), Level(2, 1), Level(4)])


def test_symbols_and_their_defaults() -> None:
    spec = one("{blocks: p, rank: D/4}", "[D, 2*D]", "name: local-and-global\nsymbols: {D: 1024}\n")
    assert spec == MLBTC((D, 2 * D), [Level("p", D / 4)], defaults={"D": 1024})
    assert spec.name == "local-and-global"
    assert spec.symbols == ("D", "p")
    assert spec.bind(D=16, p=2) == MLBTC((16, 32), [Level(2, 4)])


def test_the_name_of_a_spec_without_one_is_that_of_its_file(tmp_path: Path) -> None:
    text = "shape: [4, 4]\nlevels: [{blocks: 1}]"
    for file, name in (("my-spec.yaml", "my-spec"), ("ä.yaml", "matrix")):
        (tmp_path / file).write_text(text)
        spec = load(tmp_path / file)
        assert spec.name == name
        assert spec == loads(text)
    assert loads(text).name == "matrix"


def test_an_attention_file_is_an_attention_spec() -> None:
    spec = loads("name: a\nattention: {variant: mlr, width: 8, heads: 2, context: 4, ranks: [3, 1]}")
    assert spec == AttentionSpec.mlr(8, 2, (3, 1), 4)
    assert spec.name == "a"


HEAD = "name: bad\nshape: [64, 48]\nlevels:\n  - {blocks: 2}\n"
BAD = {
    "misspelt-rank": ("  - {blocks: 4, rnak: 2}", 5, "levels[1].rnak", ("'rnak'", "did you mean 'rank'?")),
    "unknown-far-away": ("  - {blocks: 4, zzz: 2}", 5, "levels[1].zzz", ("'zzz'", "blocks", "rank", "scale")),
    "rank-on-its-own-line": ("  - blocks: 4\n    rank: -2", 6, "levels[1].rank", ("at least 1", "-2")),
    "wrong-kind": ("  - {blocks: [4]}", 5, "levels[1].blocks", ("integer", "expression", "[4]")),
    "scale-is-text": ("  - {blocks: 4, scale: big}", 5, "levels[1].scale", ("number", "'big'")),
    "blocks-do-not-divide": ("  - {blocks: 5, rank: 2}", 5, "levels[1]", ("5 blocks", "64", "1, 2, 4, 8")),
    "einsum-caret": (
        '  - einsum: "i j -> i k"', 5, "levels[1].einsum",
        ("'k'", "input axis", "no factor", "i j -> i k\n             ^"),
    ),
    "einsum-size": ('  - einsum: "i j -> i j"\n    sizes:\n      i: 0', 7, "levels[1].sizes.i", ("index 'i'", "0")),
    "einsum-other-index": ('  - {einsum: "i j -> i j", sizes: {k: 3}}', 5, "levels[1]", ("'k'", "i, j")),
    "einsum-is-a-number": ("  - {einsum: 3}", 5, "levels[1].einsum", ("string", "3")),
    "einsum-and-blocks": ('  - {einsum: "i j -> i j", blocks: 3}', 5, "levels[1].blocks", ("'blocks'",)),
    "einsum-and-family": ('  - {einsum: "i j -> i j", family: dense}', 5, "levels[1]", ("both",)),
    "nothing": ("  - {scale: 2}", 5, "levels[1]", ("blocks", "einsum", "family")),
    "not-a-mapping": ("  - 3", 5, "levels[1]", ("mapping", "3")),
    "unknown-family": (
        "  - {family: monarchy, blocks: 4}", 5, "levels[1].family", ("'monarchy'", "did you mean 'monarch'?"),
    ),
    "family-is-a-list": ("  - {family: [btt]}", 5, "levels[1].family", ("['btt']",)),
    "family-key": ("  - {family: btt, rnk: 4}", 5, "levels[1].rnk", ("btt", "'rnk'", "did you mean 'rank'?")),
    "family-shape": ("  - {family: dense, shape: [64, 48]}", 5, "levels[1].shape", ("family", "above the levels")),
    "family-misses-a-key": ("  - {family: block_low_rank, rank: 2}", 5, "levels[1]", ("block_low_rank", "'blocks'")),
    "family-bad-size": ("  - {family: low_rank, rank: 0}", 5, "levels[1].rank", ("at least 1", "0")),
    "family-bad-item": ("  - {family: mlr, ranks: [4, 0]}", 5, "levels[1].ranks[1]", ("at least 1", "0")),
    "family-wants-a-list": ("  - {family: mlr, ranks: 4}", 5, "levels[1].ranks", ("list", "4")),
    "family-wants-a-pair": (
        "  - {family: kronecker, a_shape: [8], b_shape: [8, 6]}", 5, "levels[1].a_shape", ("pair", "[8]"),
    ),
    "family-does-not-fit": ("  - {family: monarch, blocks: 5}", 5, "levels[1]", ("5 blocks", "64")),
    "family-of-another-shape": (
        "  - {family: kronecker, a_shape: [8, 8], b_shape: [8, 8]}", 5, "levels[1]", ("[64, 64]", "[64, 48]"),
    ),
    "family-not-square": ("  - {family: diagonal}", 5, "levels[1]", ("[64, 64]", "[64, 48]")),
    "family-scale": ("  - {family: dense, scale: 0}", 5, "levels[1].scale", ("not 0",)),
    "permutation-shuffle": (
        "  - {blocks: 4, permutation: {rows: shuffle}}", 5, "levels[1]", ("rows", "'shuffle'", "bit_reversal"),
    ),
    "permutation-size": ("  - {blocks: 4, permutation: {columns: bit_reversal}}", 5, "levels[1]", ("columns", "48")),
    "symbol-unused": ("symbols: {D: 4}", 5, "symbols.D", ("'D'", "symbols used: none")),
    "symbol-is-a-number": ("symbols:\n  D: x", 6, "symbols.D", ("integer", "'x'")),
    "top-level-key": ("lvels: []", 5, "lvels", ("did you mean 'levels'?",)),
    "name": ("", 1, "name", ("'a/b'",)),
}  # fmt: skip


@pytest.mark.parametrize(("rest", "line", "key", "words"), BAD.values(), ids=BAD.keys())
def test_errors_name_file_line_key_and_value(rest: str, line: int, key: str, words: tuple[str, ...]) -> None:
    head = HEAD.replace("name: bad", "name: a/b") if key == "name" else HEAD
    with pytest.raises(SpecError) as caught:
        loads(head + rest + "\n", source="bad.yaml")
    message = str(caught.value)
    assert message.startswith(f"bad.yaml:{line}: {key}: ")
    for word in words:
        assert word in message


@pytest.mark.parametrize("key", ["shape", "levels"])
def test_missing_keys(key: str) -> None:
    lines = {"shape": "shape: [4, 4]", "levels": "levels: [{blocks: 1}]"}
    with pytest.raises(SpecError, match=f"bad.yaml:1: .*'{key}' is missing"):
        loads(next(text for name, text in lines.items() if name != key), source="bad.yaml")


LATER = "shape: [D, D]\nlevels:\n  - {rank: 2}\n  - {blocks: 4}\n"


def test_errors_after_reading_still_name_the_line() -> None:
    spec = loads(LATER, source="bad.yaml")
    assert isinstance(spec, MLBTC)
    with pytest.raises(SpecError, match=r"^bad.yaml:4: levels\[1\]: .*4.*10"):
        spec.bind(D=10)


ROUND_TRIPS = {
    "whole-scale": "shape: [8, 8]\nlevels: [{family: block_diagonal, blocks: 4, scale: -1}]",
    "scale-with-a-point": "shape: [8, 8]\nlevels: [{blocks: 4, scale: 2.0}]",
    "root-of-a-power": "shape: [D, D**3]\nlevels: [{family: btt, rank: 1}]",
    "root-of-a-root": "shape: [D, sqrt(D)]\nlevels: [{family: btt, rank: 1}]",
}


@pytest.mark.parametrize("text", ROUND_TRIPS.values(), ids=ROUND_TRIPS.keys())
def test_what_is_written_reads_back_to_the_letter(text: str) -> None:
    spec = loads(text)
    again = loads(spec.to_yaml())
    assert again == spec
    assert again.to_yaml() == spec.to_yaml()


def test_a_derived_size_keeps_the_limits_of_a_written_one() -> None:
    with pytest.raises(SpecError, match=r"levels\[0\]: the size of index 'a', .* degree 33"):
        loads("shape: [D**32, 4]\nlevels: [{einsum: a b r -> (a b) r, sizes: {b: 2}}]")


HOSTILE = {
    "half-a-character": ("shape: [4, 4]\nname: \ud800", r"bad.yaml:2: .*U\+D800"),
    "tab-in-a-key": ("sh\tape: 3", r"bad.yaml:1: 'sh\\tape': unknown key"),
    "long-key": (f"{'x' * 300}: 3", "did you|known"),
    "long-variant": (
        f"attention: {{variant: {'mlr' * 900}, width: 4, heads: 1, context: 4}}",
        "variant must be one of",
    ),
    "long-permutation": (f"shape: [4, 4]\nlevels: [{{blocks: 1, permutation: {{rows: {'bit' * 900}}}}}]", "stride"),
    "long-index": (f"shape: [4, 4]\nlevels: [{{einsum: {'i' * 900} {'i' * 900} -> i j}}]", "32 characters"),
    "long-list": (f"shape: [4, 4]\nlevels: [{{family: btt, rank: 1, factors: {[2] * 900}}}]", "btt factors"),
}


@pytest.mark.parametrize(("text", "words"), HOSTILE.values(), ids=HOSTILE.keys())
def test_messages_stay_short_and_printable(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        loads(text, source="bad.yaml")
    message = str(caught.value)
    assert len(message) < 500
    assert message.replace("\n", "").isprintable()


def test_what_a_file_may_not_be(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"missing.yaml: cannot read the file"):
        load(tmp_path / "missing.yaml")
    with pytest.raises(SpecError, match="cannot read the file"):
        load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"shape: [4, 4]\nname: \xe9\n")
    with pytest.raises(SpecError, match=r"latin.yaml:2: not a UTF-8"):
        load(tmp_path / "latin.yaml")


@pytest.mark.parametrize("value", ["[]", "3", "text", "[{shape: [4, 4]}]"])
def test_a_file_is_a_mapping(value: str) -> None:
    with pytest.raises(SpecError, match="a spec file is a mapping"):
        loads(value)


SHAPED = """
shape: [O, I]
symbols: {O: 16, I: 16, r: 3}
levels:
  - {family: btt, rank: 2}
  - {blocks: 4, rank: r}
  - {einsum: "k i r, k j r -> (k i) (k j)", sizes: {k: O/4, r: 1}}
"""


@pytest.mark.parametrize("shape", [(128, 32), (32, 128), (64, 64)])
def test_a_file_of_any_shape_gets_one(tmp_path: Path, shape: tuple[int, int]) -> None:
    (tmp_path / "any.yaml").write_text(SHAPED)
    found = load_shaped(tmp_path / "any.yaml", shape)
    expected = [
        *families.btt(shape, rank=2).levels,
        Level(blocks=4, rank=3),
        Level.einsum("k i r, k j r -> (k i) (k j)", {"k": shape[0] // 4, "r": 1}),
    ]
    assert found == MLBTC(shape, expected)
    assert found.symbols == ()


def test_a_file_of_one_symbol_is_square(tmp_path: Path) -> None:
    (tmp_path / "square.yaml").write_text("shape: [D, D]\nlevels: [{blocks: 2, rank: D/4}]\n")
    assert load_shaped(tmp_path / "square.yaml", (8, 8)).levels[0].size_of["r"] == 2
    with pytest.raises(SpecError, match=r"square.yaml:1: shape: a 8 x 4 matrix is wanted, found .*shape: \[O, I\]"):
        load_shaped(tmp_path / "square.yaml", (8, 4))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shape: [8, 4]\nlevels: [{blocks: 2}]", "a 4 x 8 matrix is wanted"),
        ("shape: [2*O, I]\nlevels: [{blocks: 2}]", "a 4 x 8 matrix is wanted"),
        ("shape: [O, I]\n\nlevels: [{blocks: 3}]", r":3: levels\[0\]: 3 blocks do not divide"),
        ("attention: {variant: standard, width: 4, heads: 1, context: 4}", "expected the spec of a matrix"),
    ],
)
def test_shapes_that_cannot_be_given(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "wrong.yaml").write_text(text)
    with pytest.raises(SpecError, match=message):
        load_shaped(tmp_path / "wrong.yaml", (4, 8))


def test_text_of_the_manual_is_read() -> None:
    """The examples of docs/file-grammar.md."""
    root: Any = Path(__file__).resolve().parents[2]
    page = (root / "docs" / "file-grammar.md").read_text()
    blocks = [part.split("```")[0] for part in page.split("```yaml\n")[1:]]
    specs = [loads(block) for block in blocks]
    assert [type(spec) for spec in specs] == [*[MLBTC] * 3, *[AttentionSpec] * 4]
    matrix, parts, tied = (spec for spec in specs if isinstance(spec, MLBTC))
    assert len(matrix.levels) == 5
    assert [level.at is not None for level in parts.levels] == [True] * 3
    assert tied.tensors == ((0, 0), (1, 1), (1, 2))
    assert matrix.bind(D=1024).symbols == ()
