"""Attention in nanoGPT's places: its class, with its parameters, and emitted files."""

import importlib.util
import math
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import mlbtc
from mlbtc import AttentionSpec
from mlbtc.attention import write_variants
from mlbtc.errors import SpecError
from mlbtc.integrations import nanogpt

pytestmark = pytest.mark.usefixtures("without_compiler")
WIDTH, HEADS, CONTEXT = 16, 2, 16


@dataclass
class Config:
    n_embd: int = WIDTH
    n_head: int = HEADS
    block_size: int = CONTEXT
    bias: bool = True
    dropout: float = 0.0


class Theirs(nn.Module):
    """What nanoGPT's class computes, by its formulas."""

    def __init__(self, config):
        super().__init__()
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=config.bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=config.bias)
        self.heads = config.n_head

    def forward(self, x):
        batch, tokens, width = x.shape
        q, k, v = (
            part.view(batch, tokens, self.heads, width // self.heads).transpose(1, 2)
            for part in self.c_attn(x).split(width, dim=2)
        )
        scores = (q @ k.transpose(-2, -1)) / math.sqrt(width // self.heads)
        scores = scores.masked_fill(torch.ones(tokens, tokens).tril() == 0, float("-inf"))
        return self.c_proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, tokens, width))


class Block(nn.Module):
    """nanoGPT's block, its attention by the class that is given."""

    def __init__(self, config, attention):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(config.n_embd), nn.LayerNorm(config.n_embd)
        self.attn = attention(config)
        self.mlp = nn.Sequential(
            nn.Linear(config.n_embd, 4 * config.n_embd), nn.GELU(), nn.Linear(4 * config.n_embd, config.n_embd)
        )

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    """The classes of the files that `mlbtc generate` writes, by the names of the files."""
    folder = tmp_path_factory.mktemp("variants")
    return {
        variant.file: emitted(folder / variant.file)
        for variant in write_variants(folder, WIDTH, HEADS, CONTEXT, "width")
    }


def emitted(path):
    """Return the last class of a file."""
    found = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, nn.Module)][-1]


@pytest.mark.parametrize("bias", [False, True])
def test_one_level_is_the_class_of_nanogpt(bias):
    torch.manual_seed(0)
    config = Config(bias=bias)
    theirs, ours = Theirs(config).double(), nanogpt.CausalSelfAttention(config).double()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 9, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(ours(x), theirs(x))


def test_levels_are_those_of_the_compiled_layer():
    torch.manual_seed(0)
    ours = nanogpt.CausalSelfAttention(Config(bias=False), ranks=(5, 3)).double()
    spec = AttentionSpec.mlr(width=WIDTH, heads=HEADS, ranks=(5, 3), context=CONTEXT)
    layer = mlbtc.compile(spec, dtype=torch.float64)
    with torch.no_grad():
        parts = (layer.query, layer.key, layer.value)
        for part, weight in zip(parts, ours.c_attn.weight.chunk(3), strict=True):
            part.weight.copy_(weight)
        layer.output.weight.copy_(ours.c_proj.weight)
    x = torch.randn(2, CONTEXT, WIDTH, dtype=torch.float64)
    torch.testing.assert_close(ours(x), layer(x))


def test_dropout():
    layer, x = nanogpt.CausalSelfAttention(Config(dropout=0.5), ranks=(5, 3)), torch.randn(2, 9, WIDTH)
    # Without that of the output, weights are dropped still.
    layer.resid_dropout.p = 0.0
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_every_generated_file_takes_the_place_of_attention(layers):
    assert len(layers) > 8
    x = torch.randn(2, 9, WIDTH)
    for name, layer in layers.items():
        block = Block(Config(bias=False), partial(nanogpt.generated, layer))
        assert block(x).shape == x.shape, name


@pytest.mark.parametrize("name", ["mlr_2_levels.py", "own class"])
def test_a_model_with_it_learns(layers, name):
    torch.manual_seed(0)
    config = Config(bias=False)
    attention = partial(nanogpt.CausalSelfAttention, ranks=(5, 3))
    if name in layers:
        attention = partial(nanogpt.generated, layers[name])
    model = nn.Sequential(
        nn.Embedding(8, WIDTH), Block(config, attention), Block(config, attention), nn.Linear(WIDTH, 8)
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(100):
        # The second half of a sequence is its first half again, for which attention is needed.
        half = torch.randint(8, (16, CONTEXT // 2))
        text = torch.cat((half, half), dim=1)
        loss = F.cross_entropy(
            model(text[:, :-1])[:, CONTEXT // 2 :].flatten(0, 1), text[:, CONTEXT // 2 + 1 :].flatten()
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) / 5 < losses[0] - 0.3


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (Config(n_embd=32), "the config asks for width 32, Mlr2Levels has 16"),
        (Config(n_head=4), "the config asks for heads 4, Mlr2Levels has 2"),
        (Config(block_size=32), "the config asks for context 32, Mlr2Levels has 16"),
        (Config(dropout=0.1), r"drop no weights, the config asks for dropout 0\.1: set it to 0, or take"),
    ],
)
def test_configs_that_do_not_fit_a_file(layers, config, message):
    with pytest.raises(SpecError, match=message):
        nanogpt.generated(layers["mlr_2_levels.py"], config)


def test_other_classes_are_no_emitted_files():
    for layer in (nn.Linear, Block):
        with pytest.raises(SpecError, match="is not from an emitted file of an attention layer"):
            nanogpt.generated(layer, Config())


def test_layers_that_see_later_tokens():
    spec = AttentionSpec.mlr(width=WIDTH, heads=HEADS, ranks=(5, 3), context=CONTEXT, causal=False)
    layer = type(mlbtc.compile(spec))
    with pytest.raises(SpecError, match=r"asks for causal True, \w+ has False"):
        nanogpt.generated(layer, Config())
