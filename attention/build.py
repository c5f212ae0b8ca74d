"""Attention specs to source and modules."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mlbtc.analysis import AttentionReport, analyze
from mlbtc.attention.heads import Heads, heads_of
from mlbtc.attention.kernels import automatic, expanded, features, levels, reference, strips, window
from mlbtc.attention.layer import attend, layer_class
from mlbtc.attention.score import ScoreContext, score_context
from mlbtc.attention.triton import launch
from mlbtc.attention.triton.emit import VARIANTS, operator_source
from mlbtc.codegen.emit_torch import LINE, render, with_free_name
from mlbtc.codegen.loading import load_class
from mlbtc.codegen.targets import check_target
from mlbtc.errors import BackendError
from mlbtc.plan.score import plan_attention
from mlbtc.spec.attention import AttentionSpec
from mlbtc.spec.naming import class_name as class_name_of

if TYPE_CHECKING:
    import torch
    from torch import nn


@dataclass(frozen=True, slots=True)
class AttentionContext:
    """What the template of an attention layer shows."""

    summary: str
    header: tuple[str, ...]
    class_name: str
    spec: AttentionSpec
    imports: tuple[str, ...]
    kernels: tuple[str, ...]
    cacheable: bool
    groups: tuple[Heads, ...]
    score: ScoreContext | None
    fused: bool

    def nested(self, variant: str) -> bool:
        """Return whether heads of a variant attend by the function `attend` of the layer."""
        return variant == "mlr" or (self.fused and variant in VARIANTS)


TARGETS = ("torch", "triton")
"""Targets of an attention layer."""

KERNELS = {
    "standard": (),
    "mlr": (reference, expanded, strips, automatic),
    "bilinear": (features,),
    "mlbtc": (reference, expanded, strips, automatic),
    "sliding_window": (features, window),
    "global_sliding_window": (features, window),
}
"""The modules that are inlined into a layer of each variant."""


def generate_attention(spec: AttentionSpec, *, class_name: str | None = None, target: str = "auto") -> str:
    """Return the source of an attention layer; it imports torch only.

    Args:
        spec: the layer.
        class_name: the name of the class; None makes one of the spec's name.
        target: "torch", which is also "auto", or "triton": then the file needs triton, too, and attends on GPUs.

    Raises:
        BackendError: the target is not available, or it is triton and no heads attend by levels of blocks.
    """
    check_target(target, TARGETS)
    report = analyze(spec, batch=spec.context)
    assert isinstance(report, AttentionReport)
    groups = heads_of(spec)
    fused = _fused(spec, groups) if target == "triton" else ()
    own = operator_source(fused, spec.causal) if fused else ()
    # One level of blocks is the whole sequence, whose pairs share all features.
    parts = [group.spec for group in groups if group not in fused]
    variants = ["bilinear" if len(spec.levels) == 1 else part.variant for part in parts]
    inlined = dict.fromkeys(module for variant in variants for module in KERNELS[variant])
    kernels = (*map(_body, inlined), *_helpers(spec), *own)
    imports = _imports(kernels)
    score = score_context(spec) if spec.scores else None
    template = "attention_torch.py.jinja" if score is None else "score_torch.py.jinja"
    cacheable = spec.causal
    needs = "torch and triton only" if fused else "torch only"
    summary = f"{spec.name}: {spec.variant} attention, emitted by mlbtc. Needs {needs}."
    header = _header(spec, report)

    def emit(name: str) -> str:
        context = AttentionContext(summary, header, name, spec, imports, kernels, cacheable, groups, score, bool(fused))
        return render(template, context=context)

    return with_free_name(class_name, class_name_of(spec.name), emit)


def _fused(spec: AttentionSpec, groups: tuple[Heads, ...]) -> tuple[Heads, ...]:
    """Return the heads that attend by Triton kernels."""
    fused = tuple(group for group in groups if group.spec.variant in VARIANTS and not spec.scores)
    if not fused:
        raise BackendError(
            f"target 'triton' has kernels for {' and '.join(VARIANTS)} attention, {spec.name} is {spec.variant}; "
            "use 'torch'"
        )
    return fused


def _imports(kernels: tuple[str, ...]) -> tuple[str, ...]:
    """Return the lines above `import torch`: what inlined functions use of the standard library."""
    lines = {
        "import contextlib": "contextlib.",
        "import os": "os.environ",
        "from collections.abc import Sequence": "Sequence[",
        "from functools import lru_cache": "lru_cache",
        "from itertools import pairwise": "pairwise(",
        "from typing import Any": "Any",
        "from typing import Any, NamedTuple": "NamedTuple",
    }
    used = [line for line, word in lines.items() if any(word in text for text in kernels)]
    if not used:
        return ()
    if used[-1].endswith("NamedTuple"):
        used.remove("from typing import Any")
    return ("from __future__ import annotations", "", *used, "")


def _helpers(spec: AttentionSpec) -> list[str]:
    """Return the source of the functions that the options of a layer need."""
    needed: dict[Callable[..., Any], bool] = {
        levels.scale_levels: any(len(set(group.factors)) > 1 for group in heads_of(spec)),
        levels.rotate_levels: any(part.rope is not None for part in spec.parts),
        levels.average_levels: any(part.divide_by_depth for part in spec.parts),
        levels.rms_capped: spec.rms_cap,
    }
    return [inspect.getsource(function).rstrip() for function, wanted in needed.items() if wanted]


def _header(spec: AttentionSpec, report: AttentionReport) -> tuple[str, ...]:
    standard = report.tokens**2 * spec.width
    costs = [
        f"parameters  {int(report.parameters):,}",
        f"MACs        {int(report.macs):,} for one sequence of {spec.context} tokens, all pairs",
        f"scores      {int(report.scores):,} of them (standard attention {standard:,})",
        f"key cache   {int(report.key_cache):,} elements (standard attention {spec.context * spec.width:,})",
    ]
    parts = [("Spec", spec.to_yaml().rstrip().splitlines()), ("Costs", costs)]
    if spec.scores:
        parts.append(("Scores", _wrapped(str(plan_attention(spec)).splitlines())))
    lines: list[str] = []
    for title, body in parts:
        lines += [*([""] if lines else []), f"{title}:", *(f"    {line}" for line in body)]
    return tuple(lines)


def _wrapped(lines: list[str]) -> list[str]:
    return [part for line in lines for part in textwrap.wrap(line, LINE - 4, subsequent_indent="      ")]


def _body(module: ModuleType) -> str:
    """Return the source of a kernel module behind its imports."""
    source = inspect.getsource(module)
    tree = ast.parse(source)
    last = max(node.end_lineno or 0 for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom))
    lines = source.splitlines()[last:]
    kept = [line for line in lines if not line.startswith("# Everything below is inlined")]
    return "\n".join(kept).strip()


def compile_attention(
    spec: AttentionSpec,
    *,
    bias: bool = False,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    target: str = "auto",
) -> nn.Module:
    """Return an attention layer, (B, T, width) to (B, T, width) for any T.

    Args:
        spec: the layer.
        bias: whether the projections have a bias; the factors of a bilinear score have none.
        device: where parameters are made.
        dtype: of the parameters.
        target: "auto", the fastest backend for every call; "torch", the same; or "triton", which refuses calls that its
            kernels do not take, and a device without them.

    Returns:
        The module; `module.source` is its source, `module.spec` the spec. It attends with the fastest backend
        (`module.explain()` says which and why), the source with its own PyTorch kernels.

    Raises:
        BackendError: the target is not available, or cannot run there.
    """
    if target == "triton":
        _check_triton(device, dtype)
    source = generate_attention(spec, target=target)
    module: Any = layer_class(source, load_class(source).__name__)(bias=bias, device=device, dtype=dtype)
    module.spec = spec
    module.source = source
    if target == "triton":
        module.backend, module.attend = target, partial(attend, backend=target)
    return module


def _check_triton(device: torch.device | str | None, dtype: torch.dtype | None) -> None:
    import torch

    place, kind = torch.device(device or torch.get_default_device()), dtype or torch.get_default_dtype()
    reason = launch.missing(place.type, kind, values=1)
    if reason:
        raise BackendError(f"target 'triton' cannot run: {reason}; use 'torch'")
