"""MACs of a level applied to one token, by trying every order of pairwise contractions."""

import itertools
import math
from collections.abc import Iterable

from tests.oracles.networks import Network

Operands = list[frozenset[str]]


def _contract(left: frozenset[str], right: frozenset[str], others: Iterable[frozenset[str]]) -> frozenset[str]:
    return (left | right) & frozenset().union(*others)


def best_of_all_orders(network: Network) -> int:
    """Return the least MACs over all pairwise orders; an index of one factor alone must be on an axis."""
    factors = [frozenset(names) for names in network.factors]
    return _best([*factors, frozenset(network.input)], frozenset(network.output), network.sizes)


def _best(operands: Operands, output: frozenset[str], sizes: dict[str, int]) -> int:
    if len(operands) == 1:
        return 0
    costs = []
    for i, j in itertools.combinations(range(len(operands)), 2):
        rest = [o for k, o in enumerate(operands) if k not in (i, j)]
        result = _contract(operands[i], operands[j], [*rest, output])
        cost = math.prod(sizes[name] for name in operands[i] | operands[j])
        costs.append(cost + _best([*rest, result], output, sizes))
    return min(costs)


def best_of_activation_orders(network: Network) -> int:
    """Return the least MACs over the orders in which the input meets one factor after the other."""
    costs = []
    for order in itertools.permutations(map(frozenset, network.factors)):
        carried, total = frozenset(network.input), 0
        for position, factor in enumerate(order):
            total += math.prod(network.sizes[name] for name in carried | factor)
            carried = _contract(carried, factor, [*order[position + 1 :], frozenset(network.output)])
        costs.append(total)
    return min(costs)
