"""Tied factors: one tensor in several places of a spec, in the grammar, the algebra and the count of parameters."""

import pytest

import mlbtc
from mlbtc import MLBTC, AttentionSpec, Level, families, kron, loads, symbol
from mlbtc.errors import CodegenError, SpecError

D, R = symbol("D"), symbol("r")


def gram(size: int | str = 8, rank: int | str = 3, name: str = "W") -> MLBTC:
    """Return the symmetric matrix W W^T."""
    return MLBTC((size, size), [Level.einsum("i r, j r -> i j", {"r": rank}, factors=(name, name))])


def test_a_file_says_what_python_says() -> None:
    text = 'shape: [8, 8]\nlevels:\n  - {einsum: "i r, j r -> i j", sizes: {r: 3}, factors: [W, W]}\n'
    assert loads(text) == gram()
    assert gram() != MLBTC((8, 8), [Level.einsum("i r, j r -> i j", {"r": 3})])
    assert "factors W W" in str(gram())
    one = loads(text.replace("[W, W]", "[~, W]"))
    assert one.levels[0].names == (None, "W")
    assert loads(text.replace("[W, W]", "[~, ~]")) == MLBTC((8, 8), [Level.einsum("i r, j r -> i j", {"r": 3})])


@pytest.mark.parametrize("names", [("W", "W"), (None, "U"), ("null", "true"), ("no", "e5")], ids=str)
def test_files_round_trip(names: tuple[str | None, ...]) -> None:
    spec = MLBTC((D, D), [Level.einsum("k i r, k j r -> (k i) (k j)", {"k": 2, "r": R}, factors=names), Level(2)])
    assert loads(spec.to_yaml()) == spec
    assert loads(spec.to_yaml()).bind(D=8, r=2) == spec.bind(D=8, r=2)


BAD = {
    "too-few": ("[W]", "factors is a list with a name or nothing for each factor, 2 here; found ['W']"),
    "far-too-many": (f"[{', '.join(['W'] * 500)}]", "2 here; found ['W', 'W'"),
    "no-word": ("[W, a-b]", "starts with a letter, and no keyword of Python; found 'a-b'"),
    "keyword": ("[W, class]", "no keyword of Python; found 'class'"),
    "underscore": ("[W, _W]", "starts with a letter"),
    "number": ("[W, 3]", "expected a string"),
    "no-list": ("W", "factors: expected a list, found 'W'"),
}


@pytest.mark.parametrize(("factors", "words"), BAD.values(), ids=BAD.keys())
def test_what_is_no_name_is_refused(factors: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        loads(f'shape: [4, 4]\nlevels:\n  - {{einsum: "i r, j r -> i j", sizes: {{r: 3}}, factors: {factors}}}\n')
    assert str(caught.value).startswith("<string>:3: levels[0].factors")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 250


def test_factors_of_one_name_have_one_shape() -> None:
    text = """
shape: [8, 4]
levels:
  - {einsum: "i r, j r -> i j", sizes: {r: 3}, factors: [W, ~]}
  - {einsum: "i r, j r -> i j", sizes: {r: 3}, factors: [~, W]}
"""
    with pytest.raises(SpecError) as caught:
        loads(text)
    assert str(caught.value) == (
        "<string>:5: levels[1]: factor 1 is 'W' of shape (4, 3), but factor 0 of levels[0], also 'W', has shape "
        "(8, 3); factors of one name are one tensor"
    )
    with pytest.raises(SpecError, match=r"levels\[0\]: factor 1 is 'W' of shape \(E, r\)"):
        MLBTC((D, "E"), [Level.einsum("i r, j r -> i j", {"r": R}, factors=("W", "W"))])


def test_a_tensor_is_counted_once() -> None:
    spec = gram() + 2 * gram() + families.dense((8, 8))
    assert spec.tensors == ((0, 0), (2, 0))
    report = mlbtc.analyze(spec)
    assert report.parameters == 8 * 3 + 64
    assert [level.parameters.value for level in report.levels] == [24, 24, 64]
    own = MLBTC((8, 8), [level.named(None) for level in spec.levels])
    assert report.macs == mlbtc.analyze(own).macs
    assert mlbtc.analyze(own).parameters == 4 * 24 + 64
    assert mlbtc.analyze(gram("D", "r")).parameters == D * R


def test_the_algebra_keeps_names() -> None:
    wide = MLBTC((4, 6), [Level.einsum("i r, j r -> i j", {"r": 3}, factors=("U", "V"))])
    assert wide.T.levels[0].names == ("U", "V")
    assert (-2 * wide).levels[0].names == ("U", "V")
    assert (wide @ wide.T).levels[0].names == ("U", "V", "U", "V")
    assert kron(wide, gram()).levels[0].names == ("U", "V", "W", "W")
    assert (wide @ wide.T).tensors == ((0, 0), (0, 1))
    for joined in (mlbtc.hstack(wide, wide), mlbtc.block_diag(wide, wide), wide + wide):
        assert joined.tensors == ((0, 0), (0, 1))
        assert mlbtc.analyze(joined).parameters == 3 * (4 + 6)
    with pytest.raises(SpecError, match=r"levels\[1\]: factor 0 is 'W' of shape \(8, 2\).*shape \(8, 3\)"):
        gram() + gram(rank=2)


def test_a_product_that_would_split_a_tied_factor_is_refused() -> None:
    """One place of W would have its index j cut in two, the other would not."""
    square = MLBTC((4, 4), [Level.einsum("i j -> i j", factors=("W",))])
    kronecker = families.kronecker((2, 2), (2, 2))
    assert (square @ kronecker).levels[0].names == ("W", None, None)
    with pytest.raises(SpecError, match="factors of one name are one tensor"):
        square @ kronecker + square


@pytest.mark.parametrize("name", ["bias", "forward", "weight_", "spec", "training", "level3_factor0", "_product"])
def test_names_that_a_module_needs_are_refused(name: str) -> None:
    if name == "weight_":
        assert "self.weight_ = nn.Parameter" in mlbtc.generate(gram(name=name))
        return
    if name.startswith("_"):
        with pytest.raises(SpecError, match="starts with a letter"):
            gram(name=name)
        return
    for target in ("torch", "cpp"):
        with pytest.raises(CodegenError, match=rf"levels\[0\]: the module itself uses the name '{name}'"):
            mlbtc.generate(gram(name=name), target=target)
    with pytest.raises(CodegenError, match=name):
        mlbtc.compile(gram(name=name), target="torch")


def test_a_score_has_no_tied_factors() -> None:
    with pytest.raises(SpecError, match=r"a score has factors without names, but levels\[0\] has W, W"):
        AttentionSpec.bilinear(width=8, heads=2, context=8, score=gram())
