import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mlbtc import AttentionSpec, families
from mlbtc.training.compute import forward_macs, step_macs
from mlbtc.training.mlp import Mlp
from mlbtc.training.model import Transformer

TOKENS, WIDTH = 16, 16
SPECS = {
    "standard": AttentionSpec.standard(WIDTH, 4, TOKENS),
    # As many features as values have: where they differ, the layer pads values for torch, which counts the padding.
    "bilinear": AttentionSpec.bilinear(WIDTH, 4, TOKENS, families.low_rank((WIDTH, WIDTH), WIDTH // 4)),
}


def counted(model, tokens):
    """Return the MACs that torch counts, on the meta device, where attention is counted, too."""
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, tokens, 3, device="meta"))
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", SPECS)
def test_the_blocks_against_the_counter_of_torch(name):
    model = Transformer([SPECS[name]] * 2, inputs=3, outputs=5, positions=TOKENS).to("meta")
    read_in_and_out = TOKENS * WIDTH * (3 + 5)
    assert forward_macs([SPECS[name]] * 2, TOKENS) == counted(model, TOKENS) - read_in_and_out


def test_structured_maps_against_the_counter_of_torch():
    btt = Mlp(families.btt((4 * WIDTH, WIDTH), 2), families.btt((WIDTH, 4 * WIDTH), 2))
    specs, mlps = [SPECS["standard"]] * 2, [btt, None]
    model = Transformer(specs, mlps, inputs=3, outputs=5, positions=TOKENS).to("meta")
    found = forward_macs(specs, TOKENS, mlps)
    assert found == counted(model, TOKENS) - TOKENS * WIDTH * (3 + 5)
    assert found < forward_macs(specs, TOKENS)
    assert step_macs(specs, sequences=2, tokens=TOKENS, mlps=mlps) == 6 * found


def test_a_step_is_three_forward_passes_of_every_sequence():
    specs = [SPECS["standard"]]
    by_hand = TOKENS * (4 * WIDTH**2 + 2 * TOKENS * WIDTH + 8 * WIDTH**2)
    assert step_macs(specs, sequences=5, tokens=TOKENS) == 3 * 5 * by_hand
