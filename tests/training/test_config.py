import pytest
import torch

from mlbtc import AttentionSpec
from mlbtc.training import TrainingError
from mlbtc.training.config import RunConfig, available_devices, choose_device
from mlbtc.training.tasks import forecasting, in_context_regression

SPECS = (
    AttentionSpec.mlr(width=32, heads=4, ranks=(6, 2), context=96, block_sizes=(96, 32), causal=False),
    AttentionSpec.standard(width=32, heads=4, context=96, causal=False),
)


@pytest.mark.parametrize("attention", ["mlr", SPECS[0], SPECS], ids=["name", "spec", "pattern"])
def test_json_round_trip(attention):
    config = forecasting.Config(attention=attention, data="x.csv", horizon=24)
    assert forecasting.Config.model_validate_json(config.model_dump_json()) == config


def test_options_of_layers_come_back_from_json(tmp_path):
    (tmp_path / "m.yaml").write_text("shape: [O, I]\nlevels: [{family: btt, rank: 2}, {blocks: 4}]\n")
    (tmp_path / "a.yaml").write_text(SPECS[0].to_yaml())
    given = {"attention": [tmp_path / "a.yaml", "standard"], "mlp": ["dense", tmp_path / "m.yaml"]}
    config = forecasting.Config(data="synthetic", device="cpu", **given)
    assert forecasting.Config.model_validate_json(config.model_dump_json()) == config
    resolved = config.resolved()
    assert resolved.mlps[0] is None
    assert resolved.mlps[1].down.shape == (32, 128)
    assert forecasting.Config.model_validate_json(resolved.model_dump_json()) == resolved
    assert resolved.resolved() == resolved


def test_mup_gives_names_its_scale_and_asks_it_of_specs():
    mup = {"data": "synthetic", "mup": True, "base_width": 32}
    assert [spec.scale for spec in forecasting.Config(attention="mlr", **mup).resolved().specs] == ["mup", "mup"]
    with pytest.raises(TrainingError, match=r"says scale: standard.* write scale: mup"):
        forecasting.Config(attention=SPECS, **mup).resolved()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mup": True}, "--mup needs --base-width"),
        ({"base_width": 8}, "nothing without --mup"),
        ({"schedule": "cosine"}, "--schedule cosine needs --decay-steps"),
        ({"decay_steps": 8}, "nothing without --schedule cosine"),
        ({"schedule": "cosine", "decay_steps": 100}, "behind the warm-up of 100"),
        ({"batch": 10, "accumulate": 4}, r"--batch 10 cannot be cut .* --accumulate 4; it must be a multiple of 4"),
    ],
)
def test_options_that_contradict_each_other(options, message):
    with pytest.raises(TrainingError, match=message):
        in_context_regression.Config(**options).resolved()


def test_names_of_specs_are_kept():
    spec = AttentionSpec.standard(width=32, heads=4, context=96, name="from-a-file")
    text = in_context_regression.Config(attention=spec).resolved().model_dump_json()
    assert in_context_regression.Config.model_validate_json(text).specs[0].name == "from-a-file"


def test_resolving_twice_changes_nothing():
    for config in (in_context_regression.Config(), forecasting.Config(data="synthetic", attention="mlr")):
        assert config.resolved().resolved() == config.resolved()


def test_layers_may_differ_in_heads():
    more = AttentionSpec.standard(width=32, heads=8, context=96, causal=False)
    resolved = forecasting.Config(attention=(*SPECS, more), data="synthetic", horizon=24, device="cpu").resolved()
    assert resolved.resolved() == resolved
    assert [spec.heads for spec in resolved.specs] == [4, 4, 8]


def test_a_config_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        in_context_regression.Config().steps = 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "--steps: .*greater than or equal to 1, found 0"),
        ({"lr": float("nan")}, "--lr: .*finite"),
        ({"lr": -1.0}, "--lr: .*greater than 0"),
        ({"speed": 1}, "--speed: .*not permitted"),
        ({"ema": 1.0}, "--ema: .*less than 1"),
        ({"precision": "fp16"}, "--precision: .*'fp32' or 'bf16'"),
        ({"dims": "many"}, "--dims: .*integer.*found 'many'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(TrainingError, match=message):
        in_context_regression.Config.make(**options)


def test_none_keeps_the_default():
    assert in_context_regression.Config.make(steps=None) == in_context_regression.Config()


def test_specs_need_a_resolved_config():
    with pytest.raises(TrainingError, match="resolved"):
        _ = RunConfig().specs


def test_the_cpu_is_always_there():
    assert available_devices()[0] == "cpu"
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize(
    ("name", "message"),
    [("cuda:77", "not available here; available: cpu"), ("gpu", "names no device"), ("", "names no")],
)
def test_devices_that_are_not_there(name, message):
    with pytest.raises(TrainingError, match=message):
        choose_device(name)
