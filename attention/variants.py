"""One file per attention variant for given sizes, and an index that compares their costs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlbtc.analysis import AttentionReport, analyze
from mlbtc.attention.build import generate_attention
from mlbtc.attention.equal import Equal, block_macs, cache_elements, equal_width
from mlbtc.codegen.loading import write_atomically
from mlbtc.errors import CodegenError, SpecError
from mlbtc.spec import families
from mlbtc.spec.attention import AttentionSpec
from mlbtc.spec.dump import attention_document, document_to_yaml
from mlbtc.spec.language import MLBTC
from mlbtc.spec.sizes import as_size

MLR_LEVELS = (2, 4, 8)


@dataclass(frozen=True, slots=True)
class Variant:
    """A layer of the collection.

    Attributes:
        file: the name of its file.
        about: what it is, in a few words.
        spec: the layer.
    """

    file: str
    about: str
    spec: AttentionSpec


def attention_variants(width: int, heads: int, context: int) -> tuple[Variant, ...]:
    """Return the variants that these sizes allow, all of one width, standard attention first.

    Raises:
        SpecError: the sizes are no sizes, or heads do not divide width.
    """
    standard = AttentionSpec.standard(width, heads, context, name="standard")
    sizes = (width, heads, context)
    made = [Variant("standard.py", "one level of rank width / heads", standard)]
    made += [_mlr(levels, *sizes) for levels in MLR_LEVELS if _halves(levels, *sizes)]
    made += [_bilinear(name, about, make, *sizes) for name, (about, make) in _scores(width, heads).items()]
    window = max(1, context // 8)
    local = AttentionSpec.sliding_window(*sizes, window, name="sliding-window")
    made.append(Variant("sliding_window.py", f"every token sees the last {window} keys", local))
    if width // heads > 1:
        both = AttentionSpec.global_sliding_window(*sizes, window, name="global-sliding-window")
        made.append(Variant("global_sliding_window.py", f"half the rank sees all keys, half the last {window}", both))
    if context % 4 == 0:
        made.append(_mlbtc(*sizes))
    if heads > 1 and _halves(2, *sizes):
        made.append(_mixed(window, *sizes))
    return tuple(made)


def equal_variants(width: int, heads: int, context: int, equal: Equal) -> tuple[Variant, ...]:
    """Return the variants that these sizes allow, each as wide as makes it cost as much as standard attention.

    Args:
        width: of standard attention.
        heads: of all variants.
        context: tokens that costs refer to.
        equal: "width" for one width; "compute" for the MACs of a block with an MLP of 4 times the width; "cache" for
            the elements that decoding keeps.

    Raises:
        SpecError: the sizes are no sizes, or heads do not divide width.
    """
    variants = attention_variants(width, heads, context)
    if equal == "width":
        return variants
    of_width = lru_cache(maxsize=None)(lambda width: attention_variants(width, heads, context))

    def named(name: str, width: int) -> Variant | None:
        return next((one for one in of_width(width) if one.spec.name == name), None)

    found = []
    for variant in variants:
        name = variant.spec.name
        spec = equal_width(lambda width, name=name: _spec(named(name, width)), variants[0].spec, equal)  # type: ignore[misc]
        chosen = named(name, spec.width) if spec is not None else None
        found += [chosen] if chosen is not None else []
    return tuple(found)


def _spec(variant: Variant | None) -> AttentionSpec | None:
    return None if variant is None else variant.spec


def _mlbtc(width: int, heads: int, context: int) -> Variant:
    shape, rank = (width, width), max(1, width // heads // 4)
    levels = [(context, families.btt(shape, 1)), (context // 4, families.low_rank(shape, rank))]
    spec = AttentionSpec.mlbtc(width, heads, context, levels, name="mlbtc")
    return Variant("mlbtc.py", f"block tensor train for all pairs, rank {rank} more in quarters", spec)


def _mixed(window: int, width: int, heads: int, context: int) -> Variant:
    head, near = width // heads, heads // 2
    far = heads - near
    local = AttentionSpec.sliding_window(near * head, near, context, window)
    spec = AttentionSpec.mixed(width, heads, context, [_mlr(2, far * head, far, context).spec, local], name="mixed")
    return Variant("mixed.py", f"{far} heads in two nested levels, {near} that see the last {window} keys", spec)


def _halves(levels: int, width: int, heads: int, context: int) -> bool:
    """Whether a head has a feature for every level, and the context can be halved so often."""
    return width // heads >= levels and context % 2 ** (levels - 1) == 0


def _mlr(levels: int, width: int, heads: int, context: int) -> Variant:
    head = width // heads
    # Half the rank for everything, the rest shared by the finer levels, the coarse ones first.
    first = max(1, min(head // 2, head - (levels - 1)))
    share, more = divmod(head - first, levels - 1)
    ranks = (first, *(share + (level < more) for level in range(levels - 1)))
    spec = AttentionSpec.mlr(width, heads, ranks, context, name=f"mlr-{levels}-levels")
    return Variant(f"mlr_{levels}_levels.py", f"ranks {'|'.join(map(str, ranks))} in halving blocks", spec)


def _bilinear(
    name: str, about: str, make: Callable[[tuple[int, int]], MLBTC], width: int, heads: int, context: int
) -> Variant:
    spec = AttentionSpec.bilinear(width, heads, context, make((width, width)), name=f"bilinear-{name}")
    return Variant(f"bilinear_{name.replace('-', '_')}.py", about, spec)


def _scores(width: int, heads: int) -> dict[str, tuple[str, Callable[[tuple[int, int]], MLBTC]]]:
    """Return the scores of bilinear variants: name, what they are, and how they are made for a shape."""
    head = width // heads
    small, large = _near_square(width)
    ranks = tuple(max(1, head // 2 // 2**level) for level in range(3) if width % 2**level == 0)
    features = sum(2**level * rank for level, rank in enumerate(ranks))
    return {
        "btt-1": ("block tensor train of rank 1", lambda shape: families.btt(shape, 1)),
        "btt-2": ("block tensor train of rank 2", lambda shape: families.btt(shape, 2)),
        "mlr": (
            f"multi-level low rank {'|'.join(map(str, ranks))}, rank {min(width, features)}",
            lambda shape: families.mlr(shape, ranks),
        ),
        "monarch": (f"Monarch with {small} blocks", lambda shape: families.monarch(shape, small)),
        "kronecker": (
            f"Kronecker product of {small} x {small} and {large} x {large}",
            lambda shape: families.kronecker((small, small), (large, large)),
        ),
        "low-rank-diagonal": (
            f"rank {head} and a diagonal",
            lambda shape: families.low_rank_plus_diagonal(shape, head),
        ),
    }


def _near_square(size: int) -> tuple[int, int]:
    """Return the divisors nearest to the square root, the smaller one first."""
    small = max(divisor for divisor in range(1, int(size**0.5) + 1) if size % divisor == 0)
    return small, size // small


def write_variants(folder: Path, width: int, heads: int, context: int, equal: Equal = "width") -> tuple[Variant, ...]:
    """Write every variant and the indexes index.md, .json and .yaml, each file whole or not at all; the indexes last.

    `mlbtc.load("index.yaml:NAME")` reads a spec of the index.

    Args:
        folder: made where it does not exist; other files in it stay.
        width: the model width D.
        heads: the number of heads.
        context: the number of tokens that blocks, windows and costs refer to.
        equal: what variants have in common; see `equal_variants`.

    Raises:
        SpecError: the sizes do not fit.
        CodegenError: the folder cannot be written.
    """
    for name, size in (("width", width), ("heads", heads), ("context", context)):
        try:
            as_size(size, name)
        except SpecError as error:
            raise SpecError(f"--{error}") from None
    variants = equal_variants(width, heads, context, equal)
    files = {variant.file: generate_attention(variant.spec) for variant in variants}
    reports = [_report(variant.spec) for variant in variants]
    files |= {
        "index.json": _index_json(variants, reports),
        "index.yaml": _index_yaml(variants, equal),
        "index.md": _index_markdown(variants, reports, equal),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_atomically(folder / name, text)
    except OSError as error:
        raise CodegenError(f"cannot write to {folder}: {error.strerror or error}") from None
    return variants


def _report(spec: AttentionSpec) -> AttentionReport:
    report = analyze(spec, batch=spec.context)
    assert isinstance(report, AttentionReport)
    return report


_HEADINGS = ("parameters", "MACs", "scores", "query, key maps", "key cache", "value cache", "rank")
_COLUMNS = ("parameters", "macs", "scores", "query_key", "key_cache", "value_cache", "rank")


def _index_json(variants: tuple[Variant, ...], reports: list[AttentionReport]) -> str:
    entries: list[dict[str, Any]] = [
        {
            "file": variant.file,
            "name": variant.spec.name,
            "variant": variant.spec.variant,
            "about": variant.about,
            "spec": variant.spec.to_yaml(),
            "costs": {column: int(getattr(report, column)) for column in _COLUMNS},
        }
        for variant, report in zip(variants, reports, strict=True)
    ]
    spec = variants[0].spec
    sizes = {"width": spec.width, "heads": spec.heads, "context": spec.context}
    return json.dumps({**sizes, "variants": entries}, indent=2) + "\n"


def _index_yaml(variants: tuple[Variant, ...], equal: Equal) -> str:
    spec = variants[0].spec
    entries = {
        variant.spec.name: {
            "file": variant.file,
            "about": variant.about,
            "block_macs": block_macs(variant.spec, spec.context),
            "cache_elements": cache_elements(variant.spec, spec.context),
            "spec": attention_document(variant.spec),
        }
        for variant in variants
    }
    sizes = {"width": spec.width, "heads": spec.heads, "context": spec.context}
    return document_to_yaml({"equal": equal, **sizes, "variants": entries})


_EQUAL = {
    "width": "All have this width.",
    "compute": "Each is as wide as makes the MACs of a block, with an MLP of 4 times the width, those of the first.",
    "cache": "Each is as wide as makes its caches those of the first.",
}


def _index_markdown(variants: tuple[Variant, ...], reports: list[AttentionReport], equal: Equal) -> str:
    spec = variants[0].spec
    lines = [
        f"# Attention variants of width {spec.width} with {spec.heads} heads",
        "",
        f'{_EQUAL[equal]} `mlbtc.load("index.yaml:NAME")` reads the spec of one.',
        "",
        "Every file needs torch only; its last class takes no required arguments and maps (B, T, width) to the same,",
        f"for any T, causally. Costs are for one sequence of {spec.context} tokens, all heads, all pairs; a MAC is one",
        "multiply-add, caches are in elements, the rank is that of the score map of one head.",
        "",
        f"| file | name | what it is | width | {' | '.join(_HEADINGS)} |",
        "| --- | --- | --- " + "| ---: " * (1 + len(_HEADINGS)) + "|",
    ]
    for variant, report in zip(variants, reports, strict=True):
        numbers = " | ".join(f"{int(getattr(report, column)):,}" for column in _COLUMNS)
        about = variant.about.replace("|", "\\|")
        name = f"[{variant.file}]({variant.file}) | {variant.spec.name}"
        lines.append(f"| {name} | {about} | {variant.spec.width:,} | {numbers} |")
    return "\n".join(lines) + "\n"
