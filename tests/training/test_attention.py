import pytest

from mlbtc import MLBTC, AttentionSpec, Level
from mlbtc.errors import SpecError
from mlbtc.training import TrainingError, choose_attention
from mlbtc.training.attention import default_ranks

DEFAULTS = {"width": 32, "heads": 4, "context": 96, "causal": False, "qk_norm": False}
FILE = AttentionSpec.mlr(width=48, heads=4, ranks=(8, 4), context=96, causal=False)


def choose(attention, layers=None, **given):
    return choose_attention(attention, layers=layers, default_layers=2, given=given, defaults=DEFAULTS)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "spec.yaml"
    path.write_text(FILE.to_yaml())
    return str(path)


def test_names_take_defaults():
    assert choose("standard") == (AttentionSpec.standard(32, 4, 96, causal=False),) * 2
    assert choose("mlr", layers=1) == (AttentionSpec.mlr(32, 4, (6, 2), 96, causal=False),)


def test_names_take_what_is_given():
    assert choose("standard", width=64, heads=None)[0].width == 64


def test_a_file_decides_what_is_not_given(file):
    assert choose(file, layers=3) == (FILE,) * 3
    assert choose(file, width=48, heads=None) == (FILE,) * 2


@pytest.mark.parametrize(("flag", "value", "found"), [("width", 32, 48), ("heads", 2, 4), ("context", 48, 96)])
def test_a_flag_that_contradicts_the_file_names_both(file, flag, value, found):
    with pytest.raises(TrainingError, match=f"--{flag} {value} contradicts .*spec.yaml.* {flag}: {found}"):
        choose(file, **{flag: value})


def test_one_spec_per_layer():
    pattern = (FILE, AttentionSpec.standard(48, 4, 96, causal=False))
    assert choose(pattern) == pattern
    with pytest.raises(TrainingError, match="layers is 3, but there are 2"):
        choose(pattern, layers=3)


def test_the_spec_of_a_matrix_is_refused(tmp_path):
    path = tmp_path / "matrix.yaml"
    path.write_text(MLBTC(shape=(4, 4), levels=[Level(blocks=2)]).to_yaml())
    with pytest.raises(TrainingError, match="found the spec of a matrix"):
        choose(str(path))


@pytest.mark.parametrize(("name", "hint"), [("mrl", "did you mean 'mlr'"), ("", "known: mlr, standard")])
def test_an_unknown_name_gets_a_hint(name, hint):
    with pytest.raises(TrainingError, match=hint):
        choose(name)


def test_a_missing_file_is_named():
    with pytest.raises(SpecError, match="cannot read the file"):
        choose("nowhere.yaml")


def test_heads_that_do_not_divide():
    for name in ("standard", "mlr"):
        with pytest.raises(SpecError, match="width 30 and 4 heads"):
            choose(name, width=30)


def test_odd_contexts_cannot_be_halved():
    with pytest.raises(TrainingError, match="97 tokens are odd"):
        choose("mlr", context=97)


@pytest.mark.parametrize(("head", "ranks"), [(1, (1,)), (2, (1, 1)), (4, (3, 1)), (7, (6, 1)), (64, (48, 16))])
def test_default_ranks(head, ranks):
    assert default_ranks(head) == ranks
    assert sum(ranks) == head


def test_one_per_layer_by_name_and_by_file(file):
    found = choose([file, "standard", "mlr"], width=None, heads=None, context=None)
    assert found[0] == FILE
    # Names take the sizes of the file.
    assert found[1] == AttentionSpec.standard(48, 4, 96, causal=False)
    assert found[2] == AttentionSpec.mlr(48, 4, (9, 3), 96, causal=False)
    assert choose(["standard", "mlr"], width=64)[1].width == 64
    assert choose([file], layers=3) == (FILE,) * 3


def test_more_or_fewer_than_the_layers(file):
    assert len(choose([file, "standard"], layers=2, width=None, heads=None)) == 2
    with pytest.raises(TrainingError, match="layers is 3, but there are 2 attention specs"):
        choose([file, "standard"], layers=3)


def test_layers_of_different_widths():
    with pytest.raises(TrainingError, match="of the widths 32, 48"):
        choose([FILE, AttentionSpec.standard(32, 4, 96, causal=False)])
