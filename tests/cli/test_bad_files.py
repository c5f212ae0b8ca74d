"""Files from strangers: exit 2, one message with file and line, no traceback, nothing executed."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mlbtc import load
from mlbtc.errors import SpecError
from tests.cli.command import Command, fresh, refused

BOTH = pytest.mark.parametrize("command", ["analyze", "compile"])
BOMB = "".join(
    f"{name}: &{name} [{', '.join(f'*{before}' for _ in range(9))}]\n"
    for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


class Bad(NamedTuple):
    """A file, the line that a message must name (None: a message about the whole file) and words it must hold."""

    text: str
    line: int | None
    words: tuple[str, ...]


def level(entry: str, shape: str = "[64, 64]") -> str:
    return f"name: bad\nshape: {shape}\nlevels:\n  - {entry}\n"


def einsum(expression: str, rest: str = "") -> str:
    return level(f'{{einsum: "{expression}"{rest}}}')


def attention(rest: str) -> str:
    return f"attention:\n  width: 16\n  heads: 2\n  context: 8\n{rest}\n"


CODE = "__import__('pathlib').Path('canary').touch()"
BAD = {
    # Not a spec at all
    "broken-yaml": Bad("shape: [64, 64\nlevels: 3\n", 2, ("YAML",)),
    "broken-indent": Bad("shape: [4, 4]\n  levels: []\n", 2, ("YAML",)),
    "tab": Bad("shape: [4, 4]\n\tlevels: []\n", 2, ("YAML",)),
    "empty": Bad("", 1, ("empty",)),
    "comment-only": Bad("# nothing\n", 1, ("empty",)),
    "list": Bad("- 1\n- 2\n", 1, ("mapping", "[1, 2]")),
    "scalar": Bad("hello\n", 1, ("mapping", "hello")),
    "null": Bad("null\n", 1, ("mapping",)),
    "two-documents": Bad("shape: [4, 4]\n---\nshape: [4, 4]\n", 2, ("one document",)),
    "twice": Bad("shape: [4, 4]\nshape: [8, 8]\n", 2, ("twice",)),
    "list-as-key": Bad("[1, 2]: 3\n", 1, ("key",)),
    "deep": Bad("a: " + "[" * 40 + "]" * 40, 1, ("deeper", "12")),
    "very-deep": Bad("[" * 200_000, 1, ("nest",)),
    "very-deep-block": Bad("- " * 200_000, 1, ("deeper",)),
    # Features of YAML that execute or explode
    "python-tag": Bad(f'shape: !!python/object/apply:eval ["{CODE}"]\n', 1, ("tag",)),
    "python-name": Bad("shape: [4, 4]\nlevels: !!python/name:os.system\n", 2, ("tag",)),
    "own-tag": Bad("shape: !mine [4, 4]\n", 1, ("tag",)),
    "alias-bomb": Bad("a: &a [lol, lol]\n" + BOMB, 1, ("anchor",)),
    "alias": Bad("shape: [4, 4]\nlevels: *x\n", 2, ("alias",)),
    "merge-key": Bad("shape: [4, 4]\n<<: {levels: []}\nlevels: [{blocks: 1}]\n", 2, ("<<",)),
    # Keys and kinds
    "unknown-key": Bad("shape: [4, 4]\nlevls:\n  - {blocks: 1}\n", 2, ("levls", "levels")),
    "unknown-level-key": Bad(level("{blocks: 4, rnk: 2}"), 4, ("rnk", "rank")),
    "unknown-family": Bad(level("{family: bttt, rank: 2}"), 4, ("bttt", "btt")),
    "unknown-family-key": Bad(level("{family: btt, rang: 2}"), 4, ("rang", "rank")),
    "family-without-its-key": Bad(level("{family: low_rank}"), 4, ("rank",)),
    "einsum-and-family": Bad(level("{einsum: i j -> i j, family: btt}"), 4, ("einsum", "family")),
    "no-shape": Bad("levels:\n  - {blocks: 1}\n", 1, ("shape",)),
    "no-levels": Bad("shape: [4, 4]\n", 1, ("levels",)),
    "empty-levels": Bad("shape: [4, 4]\nlevels: []\n", 2, ("at least one",)),
    "levels-null": Bad("shape: [4, 4]\nlevels:\n", 2, ("a list",)),
    "empty-level": Bad(level("{}"), 4, ("blocks",)),
    "level-is-text": Bad(level("blocks"), 4, ("mapping",)),
    "shape-of-three": Bad("shape: [4, 4, 4]\nlevels: [{blocks: 1}]\n", 1, ("pair",)),
    "shape-a-number": Bad("shape: 4\nlevels: [{blocks: 1}]\n", 1, ("a list", "4")),
    "fraction": Bad(level("{blocks: 4, rank: 1.5}"), 4, ("1.5",)),
    "boolean": Bad(level("{blocks: true}"), 4, ("True",)),
    # Sizes
    "negative-rank": Bad(level("{blocks: 4, rank: -2}"), 4, ("rank", "-2", "at least 1")),
    "zero-rank": Bad(level("{blocks: 4, rank: 0}"), 4, ("rank", "0")),
    "zero-shape": Bad("shape: [0, 4]\nlevels: [{blocks: 1}]\n", 1, ("0",)),
    "absurd-size": Bad("shape: [99999999999, 4]\nlevels: [{blocks: 1}]\n", 1, ("99999999999", "16777216")),
    "absurd-digits": Bad(f"shape: [{'9' * 5000}, 4]\nlevels: [{{blocks: 1}}]\n", 1, ("5000",)),
    "absurd-rank": Bad(level("{blocks: 1, rank: 999999999}"), 4, ("999999999",)),
    "blocks-do-not-divide": Bad(level("{blocks: 5, rank: 2}"), 4, ("5", "64", "divi")),
    "blocks-do-not-divide-one-axis": Bad(level("{blocks: 8}", "[64, 60]"), 4, ("8", "60")),
    "sizes-disagree": Bad(einsum("a r, b r -> a b", ", sizes: {a: 32, b: 64, r: 2}"), 4, ("32", "64")),
    "product-disagrees": Bad(einsum("a b, c d -> (a c) (b d)", ", sizes: {a: 8, b: 8, c: 4, d: 8}"), 4, ("32", "64")),
    "size-left-open": Bad(einsum("a r, b r -> a b"), 4, ("'r'", "sizes")),
    "two-sizes-left-open": Bad(einsum("a b, c d -> (a c) (b d)"), 4, ("sizes",)),
    "size-of-no-index": Bad(einsum("a b -> a b", ", sizes: {z: 2}"), 4, ("'z'",)),
    "btt-factors": Bad(level("{family: btt, rank: 2, factors: [4, 4, 4, 4]}"), 4, ("64",)),
    "kronecker-shape": Bad(level("{family: kronecker, a_shape: [4, 4], b_shape: [4, 4]}"), 4, ("16", "64")),
    "butterfly-of-48": Bad(level("{family: butterfly}", "[48, 48]"), 4, ("power of 2", "48")),
    "zero-scale": Bad(level("{blocks: 1, scale: 0}"), 4, ("scale", "0")),
    "infinite-scale": Bad(level("{blocks: 1, scale: .inf}"), 4, ("scale", ".inf")),
    "nan-scale": Bad(level("{blocks: 1, scale: .nan}"), 4, ("scale", ".nan")),
    "overflowing-scale": Bad(level("{blocks: 1, scale: 1e999}"), 4, ("scale", "inf")),
    "unused-symbol": Bad("shape: [4, 4]\nsymbols: {D: 4}\nlevels: [{blocks: 1}]\n", 2, ("'D'",)),
    "symbol-of-zero": Bad("shape: [D, D]\nsymbols: {D: 0}\nlevels: [{blocks: 1}]\n", 2, ("0",)),
    "symbol-with-a-bad-name": Bad("shape: [D, D]\nsymbols: {a b: 4}\nlevels: [{blocks: 1}]\n", 2, ("a b",)),
    # Expressions
    "name-on-no-factor": Bad(einsum("a r, b r -> a z", ", sizes: {r: 2}"), 4, ("'z'", "no factor", "^")),
    "unbalanced": Bad(einsum("a b, c d -> (a c (b d)", ", sizes: {a: 8, b: 8}"), 4, ("never closed", "^")),
    "unbalanced-close": Bad(einsum("a b) -> a b"), 4, (")", "^")),
    "no-arrow": Bad(einsum("a b, c d"), 4, ("->",)),
    "one-axis": Bad(einsum("a b -> a"), 4, ("input axis",)),
    "three-axes": Bad(einsum("a b c -> a b c"), 4, ("third",)),
    "repeated-index": Bad(einsum("a a -> a a"), 4, ("twice",)),
    "empty-factor": Bad(einsum("a b, -> a b"), 4, ("factor",)),
    "empty-expression": Bad(einsum(""), 4, ("factor",)),
    "ellipsis": Bad(einsum("... a b -> a b"), 4, ("'.'",)),
    "long-expression": Bad(einsum("a b, " * 100_000 + " -> a b"), 4, ("4000",)),
    "many-parentheses": Bad(einsum("a b -> " + "(" * 3000 + "a b"), 4, ("(",)),
    "unreachable-factor": Bad(einsum("a r, b r, s t -> a b", ", sizes: {r: 2, s: 2, t: 2}"), 4, ("s",)),
    # Code
    "code-in-a-size": Bad(f'shape: ["{CODE}", 4]\nlevels: [{{blocks: 1}}]\n', 1, ("+ - * /",)),
    "code-in-a-rank": Bad(level(f'{{blocks: 1, rank: "{CODE}"}}'), 4, ("+ - * /",)),
    "code-in-an-expression": Bad(einsum(f"a b -> a {CODE}"), 4, ("^",)),
    "code-in-the-name": Bad(f'name: "{CODE}"\nshape: [4, 4]\nlevels: [{{blocks: 1}}]\n', 1, ("letters",)),
    "quotes-in-the-name": Bad('name: \'a""" + 1 + """\'\nshape: [4, 4]\nlevels: [{blocks: 1}]\n', 1, ("letters",)),
    "template-in-the-name": Bad('name: "{{ 7 * 7 }}"\nshape: [4, 4]\nlevels: [{blocks: 1}]\n', 1, ("letters",)),
    "newline-in-the-name": Bad('name: "a\\nb"\nshape: [4, 4]\nlevels: [{blocks: 1}]\n', 1, ("letters",)),
    "code-in-an-index-name": Bad(level(f'{{einsum: "a b -> a b", sizes: {{"{CODE}": 2}}}}'), 4, ("indices",)),
    "attribute-in-a-size": Bad('shape: ["D.__class__", 4]\nlevels: [{blocks: 1}]\n', 1, ("D.__class__",)),
    "tower": Bad('shape: ["D**8**8", 4]\nlevels: [{blocks: 1}]\n', 1, ("D**8**8",)),
    "long-size": Bad(f'shape: ["{"D+" * 200}D", 4]\nlevels: [{{blocks: 1}}]\n', 1, ("200",)),
    "deep-size": Bad(f'shape: ["{"-" * 190}D", 4]\nlevels: [{{blocks: 1}}]\n', 1, ("+ - * /",)),
    "empty-rank": Bad(level("{blocks: 1, rank: }"), 4, ("levels[0].rank", "empty")),
    "mapping-for-a-rank": Bad(level("{blocks: 1, rank: {a: 1}}"), 4, ("levels[0].rank: expected", "expression")),
    "family-of-8-levels": Bad(level("{family: mlr, ranks: [1, 2, 3, 4, 5, 6, 7, 8]}"), 4, ("levels[0]: 128 blocks",)),
    "hexadecimal": Bad('shape: ["0x10", 4]\nlevels: [{blocks: 1}]\n', 1, ("decimal", "0x10")),
    "never-an-integer": Bad('shape: ["D+1/2", 4]\nlevels: [{blocks: 1}]\n', 1, ("never is",)),
    "root-of-a-negative-number": Bad('shape: ["sqrt(-4)", 4]\nlevels: [{blocks: 1}]\n', 1, ("negative",)),
    "division-by-zero": Bad('shape: ["D/(D-D)", 4]\nlevels: [{blocks: 1}]\n', 1, ("integer",)),
    # Permutations
    "permutation-too-short": Bad(level("{blocks: 1, permutation: {rows: [1, 0]}}"), 4, ("2", "64")),
    "permutation-twice": Bad(level("{blocks: 1, permutation: {rows: [0, 0]}}"), 4, ("0", "twice")),
    "permutation-out-of-range": Bad(level("{blocks: 1, permutation: {columns: [0, 9]}}"), 4, ("9",)),
    "permutation-negative": Bad(level("{blocks: 1, permutation: {columns: [0, -1]}}"), 4, ("-1",)),
    "permutation-empty": Bad(level("{blocks: 1, permutation: {rows: []}}"), 4, ("empty",)),
    "permutation-name": Bad(level("{blocks: 1, permutation: {rows: bit_reverse}}"), 4, ("bit_reverse",)),
    "permutation-stride": Bad(level("{blocks: 1, permutation: {rows: stride(7)}}"), 4, ("7", "64")),
    "permutation-of-48": Bad(level("{blocks: 1, permutation: {rows: bit_reversal}}", "[48, 48]"), 4, ("48",)),
    "permutation-list": Bad(level("{blocks: 1, permutation: [0, 1]}"), 4, ("mapping",)),
    "permutation-key": Bad(level("{blocks: 1, permutation: {row: [0]}}"), 4, ("row", "rows")),
    "permutation-huge": Bad(level("{blocks: 1, permutation: {rows: [" + "0," * 20_000 + "0]}}"), 4, ("twice",)),
    # Attention
    "attention-and-shape": Bad("shape: [4, 4]\n" + attention("  variant: standard"), 1, ("shape",)),
    "attention-a-list": Bad("attention: [1]\n", 1, ("mapping",)),
    "attention-ranks": Bad(attention("  variant: mlr\n  ranks: [4, 3]"), 6, ("7", "8")),
    "attention-variant": Bad(attention("  variant: bilinaer"), 5, ("bilinaer",)),
    "attention-standard-ranks": Bad(attention("  variant: standard\n  ranks: [8]"), 6, ("mlr",)),
    "attention-blocks": Bad(attention("  variant: mlr\n  ranks: [4, 4]\n  block_sizes: [8, 3]"), 7, ("3", "8")),
    "attention-key": Bad(attention("  variant: mlr\n  rank: [4, 4]"), 6, ("ranks",)),
    "attention-heads": Bad("attention:\n  width: 16\n  heads: 3\n  context: 8\n  variant: standard\n", 3, ("16", "3")),
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_a_folder_where_nothing_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    yield
    assert not (tmp_path / "canary").exists()


def test_the_canary_works() -> None:
    exec(CODE)
    Path("canary").unlink()


@BOTH
@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_bad_files(bad: Bad, command: str, mlbtc: Command) -> None:
    Path("bad.yaml").write_text(bad.text)
    arguments = ["-o", "out.py"] if command == "compile" else []
    refused(mlbtc(command, "bad.yaml", *arguments), "bad.yaml", bad.line, *bad.words)
    assert sorted(path.name for path in Path.cwd().iterdir()) == ["bad.yaml"]


@BOTH
def test_a_bad_file_in_a_process_of_its_own(command: str, tmp_path: Path) -> None:
    for name in ("python-tag", "negative-rank"):
        (tmp_path / "bad.yaml").write_text(BAD[name].text)
        refused(fresh(command, "bad.yaml", folder=tmp_path), "bad.yaml", BAD[name].line, *BAD[name].words)


@BOTH
def test_what_is_no_text_file(command: str, mlbtc: Command) -> None:
    refused(mlbtc(command, "missing.yaml"), "missing.yaml", None, "No such file")
    Path("folder").mkdir()
    refused(mlbtc(command, "folder"), "folder", None, "directory")
    Path("binary.yaml").write_bytes(b"name: a\n\xff\xfe\x00\x01")
    refused(mlbtc(command, "binary.yaml"), "binary.yaml", 2, "UTF-8")
    Path("utf16.yaml").write_text("shape: [4, 4]\n", encoding="utf-16")
    refused(mlbtc(command, "utf16.yaml"), "utf16.yaml", 1, "UTF-8")
    Path("large.yaml").write_text("#" * (1 << 21))
    refused(mlbtc(command, "large.yaml"), "large.yaml", None, "1048576")
    refused(mlbtc(command, "/dev/zero"), "/dev/zero", None, "1048576")
    refused(mlbtc(command, ""), "", None, "No such file")


@BOTH
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"], ids=["lf", "crlf", "cr"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "bom"])
def test_line_ends_and_byte_order_marks_do_not_matter(mark: str, newline: str, command: str, mlbtc: Command) -> None:
    good, bad = mark + level("{blocks: 4, rank: 2}"), mark + level("{blocks: 4, rank: -2}")
    Path("spec.yaml").write_bytes(good.replace("\n", newline).encode())
    assert mlbtc(command, "spec.yaml").code == 0
    Path("spec.yaml").write_bytes(bad.replace("\n", newline).encode())
    refused(mlbtc(command, "spec.yaml"), "spec.yaml", 4, "-2")


def test_words_of_python_are_good_index_names(mlbtc: Command) -> None:
    Path("spec.yaml").write_text(einsum("class T, x T -> class x", ", sizes: {T: 3}"))
    assert mlbtc("compile", "spec.yaml", "-o", "layer.py").code == 0
    compile(Path("layer.py").read_text(), "layer.py", "exec")


def test_a_spec_that_uses_t_for_a_size_counts_tokens_with_another_name(mlbtc: Command) -> None:
    Path("spec.yaml").write_text(level("{blocks: 1, rank: 2}", "[T, T]"))
    assert "4*T*tokens" in mlbtc("analyze", "spec.yaml", "--format", "csv").out
    assert "20*T" in mlbtc("analyze", "spec.yaml", "--format", "csv", "--batch", "5").out


# What gets through today

SLOW_TO_REFUSE = {
    "tower-of-numbers": "shape: ['" + "(" * 12 + "2" + ")**8" * 12 + "', D]\nlevels: [{blocks: 1, rank: 2}]\n",
    "tower-of-a-symbol": "shape: ['" + "(" * 10 + "D" + ")**8" * 10 + "', D]\nlevels: [{blocks: 1, rank: 2}]\n",
    "power-of-a-long-sum": "shape: [(a+b+c+d+e+f+g+h)**8, D]\nlevels: [{blocks: 1, rank: 2}]\n",
    "permutation-with-a-late-repetition": level(
        "{blocks: 1, permutation: {rows: [" + ",".join(map(str, [*range(139_999), 139_998])) + "]}}"
    ),
    "256-symbolic-ranks": "shape: [D, D]\nlevels:\n" + "".join(f"  - {{blocks: 2, rank: r{i}}}\n" for i in range(256)),
    "100-butterflies": "shape: [8192, 8192]\nlevels:\n" + "  - {family: butterfly}\n" * 100,
    "40-trains-of-a-prime": "shape: [16777213, 16777213]\nlevels:\n" + "  - {family: btt, rank: 2}\n" * 40,
    "13-factors-all-joined": einsum(
        ", ".join(" ".join(f"x{min(i, j)}_{max(i, j)}" for j in range(13) if j != i) for i in range(13))
        + " -> x0_1 x11_12",
        ", sizes: {" + ", ".join(f"x{i}_{j}: 2" for i in range(13) for j in range(i + 1, 13)) + "}",
    ).replace("[64, 64]", "[2, 2]"),
}


@pytest.mark.slow
@pytest.mark.parametrize("text", SLOW_TO_REFUSE.values(), ids=SLOW_TO_REFUSE.keys())
def test_no_file_of_a_megabyte_keeps_analyze_busy(text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    assert fresh("analyze", "bad.yaml", folder=tmp_path, limit=20).code in (0, 2)


CRASHES = {
    "size-too-large-for-a-float": "shape: ['((D**8)**8)**8', D]\nlevels: [{blocks: 1, rank: 2}]\n",
    "root-of-a-negative-size": "shape: [D-9999, D-9999]\nlevels: [{family: btt, rank: 2}]\n",
    "blocks-of-mlr-are-one-number": level("{family: mlr, ranks: [4], blocks: 2}"),
}


@BOTH
@pytest.mark.parametrize("text", CRASHES.values(), ids=CRASHES.keys())
def test_no_file_gives_a_traceback(text: str, command: str, mlbtc: Command) -> None:
    Path("bad.yaml").write_text(text)
    assert mlbtc(command, "bad.yaml").code in (0, 2)


PLACELESS = {
    "symbol-that-blocks-do-not-divide": ("shape: [D, D]\nsymbols: {D: 63}\nlevels:\n  - {blocks: 4, rank: 2}\n", 4),
    "size-that-is-a-fraction": ("shape: [D/3, D]\nsymbols: {D: 64}\nlevels: [{blocks: 1}]\n", 1),
    "size-that-is-a-root": ("shape: [D, D]\nsymbols: {D: 1000}\nlevels:\n  - {family: btt, rank: 2}\n", 4),
    "size-that-is-negative": ("shape: [D-5000, D]\nsymbols: {D: 64}\nlevels: [{blocks: 1}]\n", 1),
}


@BOTH
@pytest.mark.parametrize(("text", "line"), PLACELESS.values(), ids=PLACELESS.keys())
def test_sizes_that_fail_once_bound_name_their_place(text: str, line: int, command: str, mlbtc: Command) -> None:
    Path("bad.yaml").write_text(text)
    refused(mlbtc(command, "bad.yaml"), "bad.yaml", line)


@BOTH
def test_control_characters_name_their_line(command: str, mlbtc: Command) -> None:
    Path("bad.yaml").write_text("shape: [4, 4]\nlevels: [{blocks: 1}] \0\n")
    refused(mlbtc(command, "bad.yaml"), "bad.yaml", 2)


def test_messages_hold_no_control_characters() -> None:
    Path("bad.yaml").write_text(einsum("a b -> \\e[31m a"))
    with pytest.raises(SpecError) as caught:
        load("bad.yaml")
    assert "\x1b" not in str(caught.value)


def test_a_size_that_is_never_positive_is_refused(mlbtc: Command) -> None:
    Path("bad.yaml").write_text(level("{blocks: 1, rank: 2}", "[D-2*D, D-2*D]"))
    assert mlbtc("analyze", "bad.yaml").code == 2


def test_a_spec_that_uses_both_names_of_the_tokens(mlbtc: Command) -> None:
    Path("spec.yaml").write_text(level("{blocks: 1, rank: 2}", "[T, tokens]"))
    assert "tokens**2" not in mlbtc("analyze", "spec.yaml", "--format", "csv").out


def test_a_name_that_makes_a_keyword(mlbtc: Command) -> None:
    Path("spec.yaml").write_text("name: none\nshape: [4, 4]\nlevels: [{blocks: 1}]\n")
    done = mlbtc("compile", "spec.yaml", "-o", "layer.py")
    assert done.code == 0 or "spec.yaml:1" in done.err
