"""The cases of linear layers and of a two-layer MLP: emitted modules against dense ones, einsum and other packages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import opt_einsum
import torch
from torch import Tensor, nn

from mlbtc.benchmarks import peers
from mlbtc.benchmarks.cases import Contest, Way, check_size, modes
from mlbtc.benchmarks.oracles import linear_results, mlp_results
from mlbtc.benchmarks.runner import BenchmarkError, Case
from mlbtc.codegen.native import compiler
from mlbtc.compiler import compile as compile_spec
from mlbtc.errors import nearest
from mlbtc.spec import MLBTC, families
from mlbtc.spec.sizes import Size

DENSE, EINSUM, CONTRACT, COMPILED = "nn.Linear", "torch.einsum", "opt_einsum.contract", "torch.compile of einsum"
AUTO = "mlbtc auto"
FEW_TOKENS, DENSE_WIDTH = 64, 1024
"""Up to so many tokens, and from this width on, it is claimed that structured layers are no slower than dense ones: the
product of one token with 512 x 512 numbers takes as long as a call of torch."""

WIDTHS, TOKENS = (512, 1024, 2048, 4096), (1, 64, 1024, 4096, 8192)
"""What --full times."""

MOST_MLP_MACS = 1 << 34
"""Of the dense MLP, for --full: larger ones take minutes each and show nothing that the layers alone do not."""

PERIOD = 509
"""So many different tokens there are at most, repeated: a reference of thousands in float64 takes minutes. A prime, so
that no chunk of tokens that a candidate works on begins where another one does."""

COMPILED_AT = (1024, 1024)
"""Width and tokens at which --full compiles the einsum, which takes ten seconds each time."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What to time: every combination.

    Attributes:
        widths: powers of 2.
        tokens: tokens per call.
        threads: threads of torch; empty for those of the settings.
        cases: words, of which one must be in the name of a case; empty for all cases.
        compiled: whether torch.compile of the einsum takes part, which is compiled anew for every cell; with `full`
            where `COMPILED_AT` says.
        full: leave out what would take hours: see `MOST_MLP_MACS`.
    """

    widths: Sequence[int]
    tokens: Sequence[int]
    threads: Sequence[int] = ()
    cases: Sequence[str] = ()
    compiled: bool = False
    full: bool = False


def linear_specs(width: int) -> dict[str, MLBTC]:
    """Return the (width x width) specs that are timed, by name.

    Raises:
        BenchmarkError: the width is no power of 2 from 32 to 16384.
    """
    if not 32 <= width <= 16384 or width & (width - 1):
        raise BenchmarkError(f"--width takes a power of 2 from 32 to 16384 (a butterfly needs one), found {width}")
    shape = (width, width)
    root, part = 1 << (width.bit_length() // 2), width // 32
    halves = [root, width // root]
    return {
        f"monarch {root} blocks": families.monarch(shape, root),
        **{f"btt rank {rank}": families.btt(shape, rank) for rank in (1, 2, 4)},
        f"mlr 4 levels of {part}": families.mlr(shape, [part] * 4),
        f"low rank {4 * part}": families.low_rank(shape, 4 * part),
        "tensor train rank 8": families.tensor_train(halves, halves, [8]),
        "butterfly": families.butterfly(width),
    }


def linear_cases(sizes: Sizes) -> list[Case]:
    """Return a case per spec, width, number of tokens and number of threads, and one for an MLP.

    Raises:
        BenchmarkError: a size is out of range, or no case has the name asked for.
    """
    for count in sizes.tokens:
        check_size("tokens", count, 1, 65536)
    for count in sizes.threads:
        check_size("threads", count, 1, 1024)
    found = [
        case
        for threads in sizes.threads or (None,)
        for width in sizes.widths
        for tokens in sizes.tokens
        for case in _cases(width, tokens, threads, sizes)
    ]
    chosen = [case for case in found if not sizes.cases or any(word in case.name for word in sizes.cases)]
    if not chosen:
        known = list(dict.fromkeys(case.name for case in found))
        raise BenchmarkError(f"--case {' '.join(sizes.cases)}: no case has that name; {nearest(sizes.cases[0], known)}")
    return chosen


def _cases(width: int, tokens: int, threads: int | None, sizes: Sizes) -> list[Case]:
    size = {"width": width, "tokens": tokens, **({} if threads is None else {"threads": threads})}
    compiled = sizes.compiled and (not sizes.full or (width, tokens) == COMPILED_AT)
    macs = tokens * width * width
    made = [
        Case(name, size, DENSE, partial(build_linear, name, spec, tokens, compiled), threads, None,
             claims(width, tokens), macs)
        for name, spec in linear_specs(width).items()
    ]  # fmt: skip
    if not sizes.full or 8 * macs <= MOST_MLP_MACS:
        mlp = (families.btt((4 * width, width), 2), families.btt((width, 4 * width), 2))
        build = partial(build_mlp, mlp, tokens, compiled)
        made.append(Case("mlp of btt rank 2", size, DENSE, build, threads, None, claims(width, tokens), 8 * macs))
    return made


def claims(width: int, tokens: int) -> tuple[tuple[str, str], ...]:
    """Return what is claimed of what "auto" compiles: no slower than einsum, nor than nn.Linear for few tokens."""
    rivals = (EINSUM, DENSE) if tokens <= FEW_TOKENS and width >= DENSE_WIDTH else (EINSUM,)
    return tuple((AUTO, rival) for rival in rivals)


# Candidates -----------------------------------------------------------------------------------------------------------


def build_linear(name: str, spec: MLBTC, tokens: int, compiled: bool, seed: int) -> Contest:
    """Return the candidates of a linear case; nn.Linear holds the same matrix, all others the same factors."""
    generator = torch.Generator().manual_seed(seed)
    modules = _modules(spec, tokens, generator)
    factors = list(modules["mlbtc torch"].parameters())
    tokens_of = Repeated.draw(tokens, spec.shape[1], spec.shape[0], generator)
    x, grad = tokens_of.whole()
    expected = tokens_of.results(linear_results(spec, factors, tokens_of.x, tokens_of.weighted))
    dense = _dense(spec, factors)
    dense_expected = [*expected[:2], tokens_of.weighted.T @ tokens_of.x.double()]
    ways: list[Way] = [(DENSE, partial(dense, x), [x, dense.weight], dense_expected)]
    for rival, product in _products(spec, compiled).items():
        ways.append((rival, partial(product, factors, x), [x, *factors], expected))
    for rival, product in peers.products(name).items():
        ways.append((rival, partial(product, factors, x), [x, *factors], expected))
    ways += [(own, partial(m, x), [x, *m.parameters()], expected) for own, m in modules.items()]
    return modes(grad, ways)


def build_mlp(specs: tuple[MLBTC, MLBTC], tokens: int, compiled: bool, seed: int) -> Contest:
    """Return the candidates of two layers with a GELU between them."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (_modules(spec, tokens, generator) for spec in specs)
    factors = [list(part["mlbtc torch"].parameters()) for part in (first, second)]
    tokens_of = Repeated.draw(tokens, specs[0].shape[1], specs[1].shape[0], generator)
    x, grad = tokens_of.whole()
    expected = mlp_results(specs, factors, tokens_of.x, tokens_of.weighted)
    common = tokens_of.results(expected.common)
    dense = nn.Sequential(_dense(specs[0], factors[0]), nn.GELU(), _dense(specs[1], factors[1]))
    ways: list[Way] = [(DENSE, partial(dense, x), [x, *dense.parameters()], [*common, *expected.dense])]
    flat = [factor for part in factors for factor in part]
    for rival in _products(specs[0], compiled):
        both = [_products(spec, compiled)[rival] for spec in specs]
        ways.append((rival, partial(_mlp, both, factors, x), [x, *flat], [*common, *expected.factors]))
    for own in first:
        mlp = nn.Sequential(first[own], nn.GELU(), second[own])
        ways.append((own, partial(mlp, x), [x, *mlp.parameters()], [*common, *expected.factors]))
    return modes(grad, ways)


@dataclass(frozen=True, slots=True)
class Repeated:
    """Inputs and output gradients of many tokens, of which few differ, so that a reference of the few is one of all.

    Attributes:
        x: the tokens that differ, (few, in).
        grad: the gradients of their outputs, (few, out).
        counts: how often each of them is there, (few, 1).
        place: for each of the many which one it is.
    """

    x: Tensor
    grad: Tensor
    counts: Tensor
    place: Tensor

    @classmethod
    def draw(cls, tokens: int, in_features: Size, out_features: Size, generator: torch.Generator) -> Repeated:
        """Draw at most `PERIOD` different tokens and repeat them in order."""
        few = min(tokens, PERIOD)
        x, grad = (torch.randn(few, int(size), generator=generator) for size in (in_features, out_features))
        place = torch.arange(tokens) % few
        return cls(x, grad, torch.bincount(place, minlength=few).unsqueeze(1), place)

    @property
    def weighted(self) -> Tensor:
        """The gradients times the counts, which give the gradients of factors over all tokens, (few, out)."""
        return self.counts * self.grad.double()

    def whole(self) -> tuple[Tensor, Tensor]:
        """Return input and output gradient of all tokens."""
        return self.x[self.place].requires_grad_(), self.grad[self.place]

    def results(self, found: Sequence[Tensor]) -> list[Tensor]:
        """Return y, dL/dx and further gradients for all tokens from those of `x` and `weighted`."""
        y, grad_x, *others = found
        return [y[self.place], (grad_x / self.counts)[self.place], *others]


Product = Callable[[Sequence[Tensor], Tensor], Tensor]


def _mlp(products: Sequence[Product], factors: Sequence[Sequence[Tensor]], x: Tensor) -> Tensor:
    return products[1](factors[1], nn.functional.gelu(products[0](factors[0], x)))


def _modules(spec: MLBTC, tokens: int, generator: torch.Generator) -> dict[str, nn.Module]:
    """Return the module of each target that runs here and of "auto"; all hold the same tensors, as rivals do."""
    module = compile_spec(spec, tokens=tokens, target="torch")
    with torch.no_grad():
        for factor in module.parameters():
            factor.normal_(std=factor.std().item() or 1.0, generator=generator)
    found = {"mlbtc torch": module}
    for target in (*(["cpp"] if compiler() else []), "auto"):
        found[f"mlbtc {target}"] = compile_spec(spec, tokens=tokens, target=target)
        found[f"mlbtc {target}"].load_state_dict(dict(module.named_parameters()), assign=True)
    return found


def _dense(spec: MLBTC, factors: Sequence[Tensor]) -> nn.Linear:
    dense = nn.Linear(int(spec.shape[1]), int(spec.shape[0]), bias=False)
    with torch.no_grad():
        dense.weight.copy_(_multiplied_out(spec, [factor.double() for factor in factors]))
    return dense


def _multiplied_out(spec: MLBTC, factors: Sequence[Tensor]) -> Tensor:
    """Return the matrix, with one contraction per level."""
    total, position = torch.zeros(*map(int, spec.shape), dtype=torch.float64), 0
    for level in spec.levels:
        number = {name: place for place, name in enumerate(level.expression.indices)}
        operands: list[Tensor | list[int]] = []
        for names in level.expression.factors:
            operands += [factors[position], [number[i] for i in names]]
            position += 1
        sides = [number[i] for i in (*level.expression.output, *level.expression.input)]
        # An index on both sides, of blocks, is one of each: a diagonal of what the contraction gives once.
        inner = tuple(dict.fromkeys(sides))
        product = opt_einsum.contract(*operands, inner)
        total += float(level.scale) * _on_both_sides(product, inner, sides).reshape(total.shape)
    return total


def _on_both_sides(product: Tensor, inner: Sequence[int], sides: Sequence[int]) -> Tensor:
    """Return a tensor with the dimensions `sides`, zero off the diagonals of those that repeat."""
    result = torch.zeros([product.shape[inner.index(side)] for side in sides], dtype=product.dtype)
    strides = [sum(result.stride(p) for p, side in enumerate(sides) if side == one) for one in inner]
    result.as_strided(product.shape, strides).copy_(product)
    return result


def _products(spec: MLBTC, compiled: bool) -> dict[str, Product]:
    einsum = partial(einsum_forward, spec, torch.einsum)
    found: dict[str, Product] = {EINSUM: einsum, CONTRACT: partial(einsum_forward, spec, opt_einsum.contract)}
    return found | ({COMPILED: torch.compile(einsum, dynamic=False)} if compiled else {})


def einsum_forward(
    spec: MLBTC,
    einsum: Callable[..., Tensor],
    factors: Sequence[Tensor],
    x: Tensor,  # x: (T, in)
) -> Tensor:
    """Return what the spec's module returns, with one einsum per level."""
    total, position = None, 0
    for level in spec.levels:
        number = {name: place + 1 for place, name in enumerate(level.expression.indices)}
        sizes = [int(level.size_of[i]) for i in level.expression.input]
        operands: list[Tensor | list[int]] = [x.view(-1, *sizes), [0, *(number[i] for i in level.expression.input)]]
        for names in level.expression.factors:
            operands += [factors[position], [number[i] for i in names]]
            position += 1
        product = einsum(*operands, [0, *(number[i] for i in level.expression.output)]).flatten(1)
        product = product if level.scale == 1 else level.scale * product
        total = product if total is None else total + product
    assert total is not None
    return total
