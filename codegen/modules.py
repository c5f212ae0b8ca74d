"""Matrix specs to modules: what is chosen once for all ways to make one, and the class that runs it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mlbtc.codegen.costs import KERNEL_TOKENS
from mlbtc.codegen.initial import check_init
from mlbtc.codegen.layouts import cheapest, few_tokens
from mlbtc.codegen.loading import load_class, load_source
from mlbtc.codegen.matrix import build_kernel, check_tokens, generate_kernels, matrix_source
from mlbtc.codegen.operator import register
from mlbtc.codegen.structured import KernelMatrix, MultipliedOut, NativeMatrix, StructuredMatrix, native_class
from mlbtc.codegen.targets import TARGETS, check_target, choose_target, is_low_rank
from mlbtc.codegen.triton.matrix import plan_kernels
from mlbtc.codegen.triton.module import TritonMatrix, kernel_attributes
from mlbtc.codegen.tuning import Candidate, recall
from mlbtc.spec.language import MLBTC

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, slots=True)
class Recipe:
    """What the class of a compiled module depends on.

    Attributes:
        spec: without open symbols.
        candidate: how it runs.
        optional: whether the torch program stands in for a kernel that cannot be built.
        init: the rule for initial values.
        few: up to how many float32 tokens the torch program runs although there is a C++ kernel.
        in_training: whether the C++ kernel also runs where gradients are asked for.
    """

    spec: MLBTC
    candidate: Candidate
    optional: bool
    init: str = "dense"
    few: int = 0
    in_training: bool = True


@dataclass(frozen=True, slots=True)
class Choice:
    """A recipe, why its candidate was taken, and where and in which dtype parameters are made."""

    recipe: Recipe
    reason: str
    device: torch.device
    dtype: torch.dtype


def choose(
    spec: MLBTC,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    tokens: int | None = None,
    target: str = "auto",
    init: str = "dense",
) -> Choice:
    """Return what the arguments of `compile_matrix` come to: what autotune measured where it did, else by rule.

    Device and dtype are those that torch makes tensors with where they are None.

    Raises:
        BackendError: the target is not available, or it is cpp and there is no compiler.
    """
    check_target(target, TARGETS)
    check_tokens(tokens)
    check_init(init)
    bound = spec.bind_defaults()
    place, kind = torch.device(device or torch.get_default_device()), dtype or torch.get_default_dtype()
    optional = target == "auto"
    tuned = recall(bound, kind, torch.get_num_threads(), tokens) if optional and place.type == "cpu" else None
    if tuned is not None:
        return Choice(Recipe(bound, tuned.best.candidate, optional, init), tuned.reason, place, kind)
    chosen, reason = choose_target(target, place, kind, bound)
    few, in_training = 0, True
    if optional and chosen == "cpp":
        few = few_tokens(bound) if kind == torch.float32 else 0
        if tokens is not None and tokens <= few:
            chosen, reason = "torch", f"a kernel takes as long for {tokens} as for {KERNEL_TOKENS} tokens"
        elif is_low_rank(bound):
            in_training, reason = False, f"{reason}; with gradients the BLAS behind torch is faster"
    if chosen != "torch":
        few = 0 if tokens else few
        return Choice(Recipe(bound, Candidate(chosen, tokens), optional, init, few, in_training), reason, place, kind)
    found, why = cheapest(bound, tokens, place.type == "cpu")
    return Choice(Recipe(bound, found, optional, init), f"{reason}; {why}" if why else reason, place, kind)


def compile_matrix(
    spec: MLBTC,
    *,
    bias: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    tokens: int | None = None,
    target: str = "auto",
    init: str = "dense",
) -> nn.Module:
    """Return a module that multiplies by the matrix, (..., in) to (..., out).

    Its torch program is emitted, stored in the cache and loaded from there; `module.source` shows it, `module.spec` is
    the spec with its symbols bound and `module.explain()` says which target runs and why. With the cpp target the
    module runs a C++ kernel, `module.cpp_source`, which is built at the first call; where a kernel cannot run (another
    device or dtype, a transform of torch.func) it runs its torch program. With the triton target it runs the kernels of
    `module.triton_source` in the same manner. Parameters are the same for every target.

    Args:
        spec: a spec whose symbols are bound or have defaults.
        bias: whether to add a learnable vector.
        device: where parameters are made.
        dtype: of the parameters.
        tokens: as for `generate_matrix`; for the torch program, whose layout and chunks the cost model decides for this
            number of tokens, or for 1024 without one.
        target: "torch", "cpp", "triton", or "auto": cpp where the parameters are on the CPU and a C++ compiler is
            found, triton where they are on a GPU and every level has a kernel, else torch. For a few tokens per call,
            by `tokens` or as they come, "auto" takes the torch program where the cost model says it is faster; so it
            does for dense levels, and for low rank where gradients are asked for.
        init: the rule for initial values, one of `mlbtc.codegen.initial.INITS`.

    Raises:
        PlanError, GraphError, CodegenError: as for `generate_matrix`.
        BackendError: the target is not available, it is cpp and there is no compiler, or triton and there is no kernel.
    """
    choice = choose(spec, device, dtype, tokens, target, init)
    made: Any = recipe_class(choice.recipe)(bias=bias, device=choice.device, dtype=choice.dtype)
    made.reason = choice.reason
    return made  # type: ignore[no-any-return]


def module_class(spec: MLBTC, candidate: Candidate, optional: bool, init: str = "dense") -> type[Any]:
    """Return the class of compiled modules for what a `Recipe` holds, the same one each time."""
    return recipe_class(Recipe(spec, candidate, optional, init))


def recipe_class(recipe: Recipe) -> type[Any]:
    """Return the class of compiled modules for a recipe, the same one each time."""
    candidate = recipe.candidate
    source = matrix_source(recipe.spec, candidate, recipe.init)
    key = (source, candidate, recipe.optional, recipe.few, recipe.in_training)
    if key not in _CLASSES:
        attributes: dict[str, Any] = {"recipe": recipe, "source": source}
        attributes |= {name: getattr(recipe, name) for name in ("spec", "candidate", "init")}
        attributes["__reduce_ex__"] = lambda module, protocol: (_restore, (recipe,), module.__dict__.copy())
        base: type[StructuredMatrix] = MultipliedOut if candidate.dense else StructuredMatrix
        emitted = load_class(source)
        if candidate.target == "cpp":
            kernel = build_kernel(recipe.spec, candidate.groups)
            digest = hashlib.sha256(repr((kernel.matrix, kernel.groups)).encode()).hexdigest()[:24]
            attributes |= {"kernel": register(digest, kernel), "key": digest}
            attributes |= {"few": recipe.few, "in_training": recipe.in_training}
            base = NativeMatrix
        elif candidate.target == "triton":
            text = generate_kernels(recipe.spec)
            attributes |= kernel_attributes(plan_kernels(recipe.spec), text, load_source(text))
            base = TritonMatrix
        if issubclass(base, KernelMatrix):
            attributes["optional"] = recipe.optional
            attributes["factor_names"] = tuple(name for name, _ in emitted(device="meta").named_parameters())
        _CLASSES[key] = native_class(emitted, base, attributes)
    return _CLASSES[key]


def _restore(recipe: Recipe) -> Any:
    """Return a module without parameters, for pickle and copy: the class is emitted anew where it does not exist."""
    made: Any = recipe_class(recipe)
    return made.__new__(made)


_CLASSES: dict[tuple[str, Candidate, bool, int, bool], type[Any]] = {}
