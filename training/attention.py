"""From `--attention standard | mlr | FILE.yaml` and the sizes beside it to one attention spec per layer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlbtc.errors import SpecError, nearest
from mlbtc.spec import AttentionSpec, load
from mlbtc.spec.index import split_address
from mlbtc.training.errors import TrainingError

NAMES = ("standard", "mlr")
Attention = str | AttentionSpec


def choose_attention(
    attention: Attention | Sequence[Attention],
    *,
    layers: int | None,
    default_layers: int,
    given: dict[str, int | None],
    defaults: dict[str, Any],
) -> tuple[AttentionSpec, ...]:
    """Return one spec per layer.

    Args:
        attention: "standard", "mlr", the path of a spec file or a spec; one for all layers, or one per layer.
        layers: the number of layers asked for, or None.
        default_layers: the number of layers where nobody says.
        given: sizes the caller asked for by name ("width", "heads", "context"), None where not; a spec must agree.
        defaults: sizes and flags for "standard" and "mlr" where `given` has None.

    Raises:
        TrainingError: a given size contradicts a spec, the name is unknown, or layers have different widths.
        SpecError: the file is no spec file.
    """
    each = [attention] if isinstance(attention, str | AttentionSpec) else list(attention)
    if len(each) > 1 and layers not in (None, len(each)):
        raise TrainingError(f"layers is {layers}, but there are {len(each)} attention specs, one per layer")
    read = [one if one in NAMES else _read(one, given) for one in each]
    # A name beside files has the sizes of the first of them.
    example = next((spec for spec in read if isinstance(spec, AttentionSpec)), None)
    wanted = dict(defaults)
    for key, value in given.items():
        if value is not None or example is not None:
            wanted[key] = getattr(example, key) if value is None else value
    specs = tuple(_named(spec, **wanted) if isinstance(spec, str) else spec for spec in read)
    widths = sorted({spec.width for spec in specs})
    if len(widths) > 1:
        raise TrainingError(f"layers need one width, found attention of the widths {', '.join(map(str, widths))}")
    return specs if len(specs) > 1 else specs * (default_layers if layers is None else layers)


def _read(attention: Attention, given: dict[str, int | None]) -> AttentionSpec:
    spec = _load(attention) if isinstance(attention, str) else attention
    _check_given(spec, given, attention if isinstance(attention, str) else "the attention spec")
    return spec


def check_causal(specs: Sequence[AttentionSpec], why: str) -> None:
    """Refuse attention that sees later tokens, for a task that predicts them.

    Args:
        specs: of the layers.
        why: what the task predicts, and from what.

    Raises:
        TrainingError: a spec is not causal.
    """
    if not all(spec.causal for spec in specs):
        raise TrainingError(
            f"{why}; the attention spec says causal: false, so a token would see its answer; set causal: true"
        )


def _named(
    name: str, *, width: int, heads: int, context: int, causal: bool, qk_norm: bool, scale: str = "standard"
) -> AttentionSpec:
    if name == "standard":
        return AttentionSpec.standard(width, heads, context, causal, qk_norm, scale=scale)
    if width < 1 or heads < 1 or width % heads:
        raise SpecError(f"heads must divide width, found width {width} and {heads} heads")
    ranks = default_ranks(width // heads)
    if context % 2 and len(ranks) > 1:
        raise TrainingError(
            f"--attention mlr halves the sequence, but {context} tokens are odd; "
            "give an even length, or a spec file with block_sizes"
        )
    return AttentionSpec.mlr(width, heads, ranks, context, None, causal, qk_norm, scale=scale)


def default_ranks(head: int) -> tuple[int, ...]:
    """Return the ranks of `--attention mlr`: three quarters global, one quarter in each half (the paper's 48|16)."""
    local = max(1, head // 4)
    return (head - local, local) if head > 1 else (head,)


def _load(path: str) -> AttentionSpec:
    file, _ = split_address(path)
    is_file_name = Path(file).suffix in (".yaml", ".yml") or (path != "" and Path(path).exists())
    if not is_file_name:
        hint = nearest(path, NAMES)
        raise TrainingError(
            f"--attention takes standard, mlr or the path of a YAML file (in an index FILE.yaml:NAME), found {path!r}; "
            f"{hint}"
        )
    spec = load(path)
    if not isinstance(spec, AttentionSpec):
        raise TrainingError(f"{path}: expected an attention spec (key `attention`), found the spec of a matrix")
    return spec


def _check_given(spec: AttentionSpec, given: dict[str, int | None], where: str) -> None:
    for key, value in given.items():
        found = getattr(spec, key)
        if value is not None and value != found:
            raise TrainingError(f"--{key} {value} contradicts {where}, which says {key}: {found}; leave one out")
