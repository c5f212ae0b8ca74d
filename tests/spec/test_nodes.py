"""YAML to plain values: scalars as they are written, the line of every key, nothing that executes."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlbtc.errors import SpecError
from mlbtc.spec.nodes import MAX_BYTES, MAX_DEPTH, read_document

SCALARS = {
    "integer": ("12", 12),
    "negative": ("-3", -3),
    "plus": ("+3", 3),
    "leading-zero-is-decimal": ("010", 10),
    "float": ("0.5", 0.5),
    "float-without-a-leading-digit": (".5", 0.5),
    "exponent": ("1e-3", 0.001),
    "exponent-with-a-point": ("1.0e-07", 1e-7),
    "true": ("true", True),
    "false": ("False", False),
    "null": ("null", None),
    "tilde": ("~", None),
    "nothing": ("", None),
    "word": ("bit_reversal", "bit_reversal"),
    "yes-is-a-word": ("yes", "yes"),
    "no-is-a-word": ("no", "no"),
    "on-is-a-word": ("on", "on"),
    "quoted-number": ("'12'", "12"),
    "double-quoted": ('"true"', "true"),
    "infinity-is-a-word": (".inf", ".inf"),
    "sexagesimal-is-a-word": ("1:30", "1:30"),
    "date-is-a-word": ("2024-01-02", "2024-01-02"),
    "hexadecimal-is-a-word": ("0x10", "0x10"),
    "underscores-are-a-word": ("1_000", "1_000"),
    "expression": ("D/4", "D/4"),
}


@pytest.mark.parametrize(("text", "expected"), SCALARS.values(), ids=SCALARS.keys())
def test_scalars(text: str, expected: Any) -> None:
    found = read_document(f"key: {text}", "file").value
    assert isinstance(found, dict)
    assert found == {"key": expected}
    assert type(found["key"]) is type(expected)


def test_lists_mappings_and_keys() -> None:
    found = read_document("a: [1, [x, 2.5]]\nno: {b: null}\n3: four\n", "file").value
    assert found == {"a": [1, ["x", 2.5]], "no": {"b": None}, "3": "four"}


def test_every_key_has_its_line() -> None:
    text = "name: x\nlevels:\n  - blocks: 1\n    rank: 2\n  - {einsum: e,\n     sizes: {r: 3}}\n"
    origin = read_document(text, "file.yaml").origin
    assert origin.where() == "file.yaml:1"
    assert origin.where("levels", 0, "rank") == "file.yaml:4: levels[0].rank"
    assert origin.where("levels", 1) == "file.yaml:5: levels[1]"
    assert origin.where("levels", 1, "sizes", "r") == "file.yaml:6: levels[1].sizes.r"
    # What has no line takes that of the nearest parent that has one.
    assert origin.where("levels", 1, "scale") == "file.yaml:5: levels[1].scale"
    assert origin.where("nowhere") == "file.yaml:1: nowhere"


BAD = {
    "alias": ("a: 1\nb: *a", 2, r"aliases \(\*a\)"),
    "anchor": ("a: &x 1", 1, r"anchors \(&x\)"),
    "tag": ("a: 1\nb: !!str 1", 2, "tags"),
    "python": ("a: !!python/object/apply:os.system [ls]", 1, "tags"),
    "binary": ("a: !!binary aGk=", 1, "tags"),
    "two-documents": ("a: 1\n---\nb: 2", 2, "one document"),
    "twice": ("a: 1\nb: 2\na: 3", 3, "'a' stands twice"),
    "twice-inside": ("a:\n  b: 1\n  b: 2", 3, "'b' stands twice"),
    "list-as-key": ("? [a]\n: 1", 1, "a key must be a word"),
    "unclosed": ("a: [1, 2\nb: 3", 2, "not valid YAML"),
    "tab": ("a:\n\tb: 1", 2, "not valid YAML"),
    "many-digits": (f"a: {'7' * 31}", 1, "31 digits"),
    "deep": ("a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH, 1, "deeper than 12"),
    "empty": ("", 1, "empty"),
    "comment": ("# only this\n", 1, "empty"),
}


@pytest.mark.parametrize(("text", "line", "words"), BAD.values(), ids=BAD.keys())
def test_what_is_refused(text: str, line: int, words: str) -> None:
    with pytest.raises(SpecError, match=words) as caught:
        read_document(text, "bad.yaml")
    assert str(caught.value).startswith(f"bad.yaml:{line}: ")


def test_size_and_depth_just_inside_the_limits() -> None:
    inner = MAX_DEPTH - 1
    assert read_document("a: " + "[" * inner + "]" * inner, "file").value
    comment = "a: 1\n#" + "x" * (MAX_BYTES - 6)
    assert read_document(comment, "file").value == {"a": 1}
    with pytest.raises(SpecError, match=str(MAX_BYTES)):
        read_document(comment + "x", "file")


@settings(derandomize=True, max_examples=300, deadline=None)
@given(st.text(alphabet="ab:- \n[]{},'\"#&*!|>?%@`1~.\t", max_size=40))
def test_any_text_is_read_or_refused_with_its_source(text: str) -> None:
    try:
        read_document(text, "file.yaml")
    except SpecError as error:
        message = str(error)
    else:
        message = "file.yaml:"
    assert message.startswith("file.yaml:")
