"""The minimum cut by trying every split of the factors."""

import itertools
import math

from tests.oracles.networks import Network


def minimum_cut(network: Network) -> int:
    """Return block indices times the least product of the sizes that touch both sides of a split."""
    blocks = set(network.output) & set(network.input)
    cuts = []
    for sides in itertools.product(("output", "input"), repeat=len(network.factors)):
        near, far = set(network.output), set(network.input)
        for names, side in zip(network.factors, sides, strict=True):
            (near if side == "output" else far).update(names)
        cuts.append(math.prod(network.sizes[name] for name in (near & far) - blocks))
    return min(cuts) * math.prod(network.sizes[name] for name in blocks)
