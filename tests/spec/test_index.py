"""Indexes: several specs in one file, and which of them is meant."""

from pathlib import Path

import pytest

from mlbtc import MLBTC, AttentionSpec, load
from mlbtc.errors import SpecError
from mlbtc.spec.index import split_address

INDEX = """\
equal: width
variants:
  plain:
    about: something
    spec:
      name: plain
      attention:
        variant: standard
        width: 8
        heads: 2
        context: 4
  matrix:
    spec:
      shape: [4, 4]
      levels:
        - {blocks: 2, rank: 1}
  broken:
    spec:
      attention:
        variant: standard
        width: 8
        heads: 3
        context: 4
  empty: 3
"""


@pytest.fixture
def index(tmp_path: Path) -> Path:
    path = tmp_path / "index.yaml"
    path.write_text(INDEX)
    return path


def test_a_spec_is_read_by_its_name(index: Path) -> None:
    assert load(f"{index}:plain") == AttentionSpec.standard(8, 2, 4)
    assert load(f"{index}:plain").name == "plain"
    matrix = load(f"{index}:matrix")
    assert isinstance(matrix, MLBTC)
    assert matrix.shape == (4, 4)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plane", "index.yaml:2: variants: it has no 'plane'; did you mean 'plain'"),
        ("broken", "index.yaml:22: attention.heads: heads must divide width, found width 8 and 3 heads"),
        ("empty", "index.yaml:24: variants.empty: an entry has the key spec, found 3"),
    ],
)
def test_what_is_wrong_is_said_with_the_line_of_the_index(index: Path, name: str, message: str) -> None:
    with pytest.raises(SpecError) as error:
        load(f"{index}:{name}")
    assert message in str(error.value)


def test_an_index_is_no_spec(index: Path) -> None:
    with pytest.raises(SpecError, match=r"index.yaml:2: variants: an index of specs; name one .*index.yaml:plain$"):
        load(index)


def test_a_spec_is_no_index(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("shape: [4, 4]\nlevels:\n  - {blocks: 1, rank: 2}\n")
    with pytest.raises(SpecError, match=r"one.yaml:1: 'plain' is looked for in an index with the key variants"):
        load(f"{tmp_path / 'one.yaml'}:plain")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/index.yaml:mlr", ("a/index.yaml", "mlr")),
        ("a/index.yml:mlr-2", ("a/index.yml", "mlr-2")),
        ("a/index.yaml", ("a/index.yaml", None)),
        ("a/index.yaml:", ("a/index.yaml:", None)),
        ("C:\\specs\\one.yaml", ("C:\\specs\\one.yaml", None)),
        ("12:30.yaml", ("12:30.yaml", None)),
    ],
)
def test_addresses(path: str, expected: tuple[str, str | None]) -> None:
    assert split_address(path) == expected
