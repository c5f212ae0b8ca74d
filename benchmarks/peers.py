"""Other packages that multiply by the same structures, each on the same factors; none of them has to be installed."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

Product = Callable[[Sequence[Tensor], Tensor], Tensor]
"""Factors in the order of the spec and x `(T, in)` to `(T, out)`."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A package.

    Attributes:
        name: its name on PyPI.
        module: what is imported.
        products: for each case that it has a product for, by the first word of the case's name, that product.
    """

    name: str
    module: str
    products: dict[str, Product]


def monarch(factors: Sequence[Tensor], x: Tensor) -> Tensor:
    """Multiply by a Monarch matrix with torch-structured, whose outputs are transposed."""
    multiply = importlib.import_module("torch_structured.monarch.blockdiag_butterfly_multiply")
    left, right = factors
    found: Tensor = multiply.blockdiag_butterfly_multiply(x, right, left)
    return found.reshape(x.shape[0], left.shape[1], left.shape[0]).mT.reshape(x.shape[0], -1)


def sum_of_low_rank_blocks(factors: Sequence[Tensor], x: Tensor) -> Tensor:
    """Multiply by low-rank blocks, level by level, with linear_operator, whose vectors are columns."""
    operators = importlib.import_module("linear_operator.operators")
    pairs = zip(factors[::2], factors[1::2], strict=True)
    levels = [
        operators.BlockDiagLinearOperator(operators.MatmulLinearOperator(left, right.mT)) for left, right in pairs
    ]
    found: Tensor = (operators.SumLinearOperator(*levels) @ x.mT).mT
    return found


def low_rank(factors: Sequence[Tensor], x: Tensor) -> Tensor:
    """Multiply by a low-rank matrix with linear_operator."""
    operators = importlib.import_module("linear_operator.operators")
    left, right = factors
    found: Tensor = (operators.MatmulLinearOperator(left[0], right[0].mT) @ x.mT).mT
    return found


def tensor_train(factors: Sequence[Tensor], x: Tensor) -> Tensor:
    """Multiply by a tensor train of two cores with tensorly-torch."""
    cores = importlib.import_module("tltorch.factorized_tensors")
    functional = importlib.import_module("tltorch.functional")
    first, second = factors
    rows, columns = zip(first.shape[:2], second.shape[1:], strict=True)
    weight = cores.BlockTT(
        [first[None], second[..., None]],
        tensorized_shape=(rows, columns),
        rank=(1, first.shape[-1], 1),
    )
    found: Tensor = functional.factorized_linear(x, weight, in_features=x.shape[1], implementation="factorized")
    return found


PEERS = (
    Peer("torch-structured", "torch_structured.monarch", {"monarch": monarch}),
    Peer("linear-operator", "linear_operator.operators", {"low": low_rank, "mlr": sum_of_low_rank_blocks}),
    Peer("tensorly-torch", "tltorch", {"tensor": tensor_train}),
)


def state(peer: Peer) -> str:
    """Return "installed", "not installed", or why a package that is there cannot be imported."""
    try:
        importlib.import_module(peer.module)
    except ModuleNotFoundError as error:
        own = error.name is not None and peer.module.startswith(error.name)
        return "not installed" if own else f"cannot be imported: {error}"
    # A package's import runs its own code, which may fail in any way.
    except Exception as error:
        return f"cannot be imported: {error}"
    return "installed"


def states() -> dict[str, str]:
    """Return the state of every peer, for the record."""
    return {peer.name: state(peer) for peer in PEERS}


def products(case: str) -> dict[str, Product]:
    """Return the products of the installed peers for a case."""
    word = case.split()[0]
    return {peer.name: peer.products[word] for peer in PEERS if word in peer.products and state(peer) == "installed"}
