"""Random spec files as nested values: mostly right, so that what lies behind the reader is reached too."""

from __future__ import annotations

import math
from random import Random
from typing import Any

WORDS = [
    "D",
    "r",
    "m",
    "n",
    "k",
    "a",
    "b",
    "i1",
    "T",
    "x",
    "lambda",
    "E",
    "I",
    "N",
    "S",
    "_",
    "sqrt",
    "null",
    "true",
    "é",
]
ODD = [
    None, True, False, 0, 1, -1, 2, 3, 0.5, 1e300, -0.0, 1e-320, 2**24, 2**24 + 1,
    2**53 + 1, 10**29, -(10**29), "", " ", "~", "null", "yes", "0x10", "1_000", "1e3", ".inf", ".nan", "-", "D",
    "2*D", "D/0", "D**32", "D**D", "(D+1)**31", "sqrt(-D)", "sqrt(sqrt(D))", "D-D", "D/3/5", "1/D", "((((D))))",
    "--D", "not D", "D if D else D", "lambda: D", "D;D", "f(D)", "D.x", "D[0]", "'D'", "9" * 40, "D" * 33,
    "D + " * 40 + "D", "(" * 90 + "D" + ")" * 90, "\u0661", "\u2177", "D\u200b", "\u202eD", "\U0001f600",
    "a\nb", "a\tb", "a\x85b", "{}", "[]", "*a", "&a", "!!int 3", "<<", "stride(0)", "stride(2)", "stride(-1)",
    "stride(99999999)", "bit_reversal", "all", [], {}, [[]], [{}], {"": None}, [1, [2, [3]]], [0, 0], [1, 0],
    [True], ["D"],
]  # fmt: skip
"""What may stand where something else belongs."""

Entry = dict[str, Any]


def spec_file(rng: Random) -> Entry:
    """Return a file of either kind."""
    file = matrix_file(rng) if rng.random() < 0.75 else attention_file(rng)
    if rng.random() < 0.4:
        file["name"] = rng.choice(["a", "local-and-global", "a b.c_d", "1", "true", "null", "x" * 64, "3e5", "1.5"])
    return file


def matrix_file(rng: Random) -> Entry:
    rows, columns = rng.choice(
        [(8, 8), (6, 9), (12, 8), (1, 7), (16, 64), (60, 84), (1024, 1024), (7, 1), (2**24, 2**12)]
    )
    shape: list[Any] = [rows, columns]
    file: Entry = {"shape": shape}
    if rng.random() < 0.35:
        shape[:] = [rng.choice(["D", "2*D", "n", "D**2", "D + n", "4*D", "sqrt(D)", "D/2", "(D+1)**3"]) for _ in shape]
        names = sorted({word for size in shape for word in ("D", "n") if word in size})
        if rng.random() < 0.6:
            file["symbols"] = {name: rng.choice([1, 4, 16, 64, 36, 1024, 2**24]) for name in names}
    count = rng.choice([1, 1, 1, 2, 2, 3, 5])
    file["levels"] = [level(rng, *(s if isinstance(s, int) else 16 for s in shape)) for _ in range(count)]
    named = [entry for entry in file["levels"] if "factors" in entry]
    if named and rng.random() < 0.5:
        # The same names again: the levels share their tensors.
        file["levels"].append({**rng.choice(named), "scale": rng.choice([1, -1, 2])})
    return file


def level(rng: Random, rows: int, columns: int) -> Entry:
    """Return one level; its numbers fit the shape, or the part of it that the level fills, more often than not."""
    sides = {"rows": part(rng, rows), "columns": part(rng, columns)} if rng.random() < 0.2 else {}
    rows, columns = (stop - start for start, stop in sides.values()) if sides else (rows, columns)
    entry = rng.choice([blocks_level, einsum_level, einsum_level, family_level])(rng, rows, columns)
    if rng.random() < 0.2:
        entry["scale"] = rng.choice([2, 0.5, -1, 1e-9, 1e300, 2**60, 1, 1.0])
    if "family" not in entry and rng.random() < 0.25:
        entry["permutation"] = {side: permutation(rng, n) for side, n in (("rows", rows), ("columns", columns))}
        entry["permutation"].pop(rng.choice(["rows", "columns", "neither"]), None)
    if sides:
        entry["at"] = sides
    return entry


def part(rng: Random, size: int) -> list[int]:
    start = rng.choice([0, 0, size // 2, rng.randrange(size)])
    return [start, rng.choice([size, size, rng.randint(start + 1, size)])]


def permutation(rng: Random, size: int) -> Any:
    names = ["bit_reversal", f"stride({divisor(rng, size)})", None]
    return rng.choice([*names, rng.sample(range(size), size)] if size <= 64 else names)


def divisor(rng: Random, size: int) -> int:
    return rng.choice([d for d in range(1, min(size, 128) + 1) if size % d == 0])


def blocks_level(rng: Random, rows: int, columns: int) -> Entry:
    entry: Entry = {"blocks": rng.choice([divisor(rng, math.gcd(rows, columns)), "k", 2])}
    if rng.random() < 0.7:
        entry["rank"] = rng.choice([1, 2, 8, "r", "r + 1", "2*r"])
    return entry


def einsum_level(rng: Random, rows: int, columns: int) -> Entry:
    """Return a product of up to 12 factors, some tied, over axes that are split at random, and summed indices."""
    names = iter([f"{letter}{digit}" for digit in ("", 2, 3, 4, 5) for letter in "abcdefghijkl"])
    sizes: dict[str, Any] = {}

    def axis(size: int) -> list[str]:
        found = []
        while size > 1 or not found:
            found.append(next(names))
            sizes[found[-1]] = part = rng.choice([size, divisor(rng, size)]) if len(found) < 5 else size
            size //= part
        return found

    output, input_ = axis(rows), axis(columns)
    for name in list(input_):
        twins = [o for o in output if sizes[o] == sizes[name] and o not in input_]
        if twins and rng.random() < 0.4:
            input_[input_.index(name)] = rng.choice(twins)
            del sizes[name]
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        sizes[next(names)] = rng.choice([1, 2, 3, 8, "r", "s"])
    factors: list[list[str]] = [[] for _ in range(rng.choice([1, 2, 2, 2, 3, 4, 6, 12]))]
    for name in sizes:
        for factor in rng.sample(factors, min(len(factors), rng.choice([1, 1, 2, 2, 3]))):
            factor.append(name)
    for factor in factors:
        if not factor:
            factor.append(rng.choice(output))
        rng.shuffle(factor)
    rng.shuffle(output)
    text = f"{', '.join(map(' '.join, factors))} -> ({' '.join(output)}) ({' '.join(input_)})"
    kept = {name: size for name, size in sizes.items() if rng.random() < 0.9 or name not in (*output, *input_)}
    entry: Entry = {"einsum": text, "sizes": kept} if kept else {"einsum": text}
    if rng.random() < 0.25:
        entry["factors"] = factor_names(rng, factors, sizes)
    return entry


def factor_names(rng: Random, factors: list[list[str]], sizes: Entry) -> list[str | None]:
    """Return names that say the shape, so that mostly factors of one shape are tied, in one level and across levels."""
    shapes = ["x".join(str(sizes[name]) for name in factor) for factor in factors]
    return [rng.choice([f"W{shape}", f"W{shape}", f"V{shape}", None]) if rng.random() < 0.95 else "W"
            for shape in shapes]  # fmt: skip


def family_level(rng: Random, rows: int, columns: int) -> Entry:
    common = divisor(rng, math.gcd(rows, columns))
    b, c = divisor(rng, rows), divisor(rng, columns)
    arguments: dict[str, Entry] = {
        "dense": {},
        "low_rank": {"rank": rng.choice([1, 3, "r"])},
        "block_diagonal": {"blocks": common},
        "block_low_rank": {"blocks": common, "rank": 2},
        "mlr": {"ranks": [2, 1], "blocks": [1, common]},
        "kronecker": {"a_shape": [b, c], "b_shape": [rows // b, columns // c]},
        "tensor_train": {"rows": [b, rows // b], "columns": [c, columns // c], "ranks": [rng.choice([1, 2, 5])]},
        "btt": {"rank": rng.choice([1, 2, "s"]), "factors": [rows // b, b, c, columns // c]},
        "monarch": {"blocks": common},
        "butterfly": {},
        "diagonal": {},
        "low_rank_plus_diagonal": {"rank": 2},
        "permutation": {"rows": permutation(rng, rows)},
    }
    name = rng.choice(list(arguments))
    entry = {"family": name, **arguments[name]}
    if name in ("mlr", "btt") and rng.random() < 0.3:
        del entry["blocks" if name == "mlr" else "factors"]
    return entry


PROJECTED = ["standard", "mlr", "sliding_window", "global_sliding_window"]


def attention_file(rng: Random) -> Entry:
    heads, head = rng.choice([(1, 4), (2, 8), (8, 64), (3, 5)])
    variant = rng.choice([*PROJECTED, "bilinear", "mlbtc", "mixed"])
    context = rng.choice([1, 8, 96, 1024, 2**24])
    entry: Entry = {"variant": variant, "width": heads * head, "heads": heads, "context": context}
    if variant == "bilinear":
        entry["score"] = score(rng, heads * head)
    if variant == "mlbtc":
        blocks = [context, divisor(rng, context)][: rng.choice([1, 2])]
        entry["levels"] = [{"block_size": block, "score": score(rng, heads * head)} for block in blocks]
    if variant == "mixed":
        first = rng.randint(1, heads)
        counts = [count for count in (first, heads - first) if count]
        entry["groups"] = [{"heads": count, **projected(rng, rng.choice(PROJECTED), head, context)} for count in counts]
    if variant in PROJECTED:
        entry |= projected(rng, variant, head, context)
    if variant in ("bilinear", "mlbtc"):
        entry |= some(rng, {"scale": "mup", "rms_cap": True})
    if rng.random() < 0.3:
        entry["causal"] = rng.random() < 0.7
    if rng.random() < 0.3 and variant != "mixed":
        entry["qk_norm"] = rng.random() < 0.7
        if variant in ("bilinear", "mlbtc") and entry["qk_norm"]:
            # Else a set of one feature is refused.
            entry["joint_norm"] = True
    return {"attention": entry}


def score(rng: Random, width: int) -> Entry:
    levels = [level(rng, width, width) for _ in range(rng.choice([1, 2]))]
    return levels[0] if rng.random() < 0.5 else {"levels": levels}


def some(rng: Random, options: Entry) -> Entry:
    return {key: value for key, value in options.items() if rng.random() < 0.2}


def projected(rng: Random, variant: str, head: int, context: int) -> Entry:
    """Return the keys of heads that have query and key projections."""
    entry: Entry = {"variant": variant, **some(rng, {"scale": "mup", "rope": rng.choice([True, {"base": 500}])})}
    if variant == "mlr":
        first = rng.randint(1, head - 1)
        entry["ranks"] = [first, head - first]
        entry |= some(rng, {"divide_by_depth": True})
        if rng.random() < 0.5:
            entry["block_sizes"] = [context, divisor(rng, context)]
    if "window" in variant:
        entry["window"] = rng.choice([1, 4, 128])
    if variant.startswith("global") and rng.random() < 0.5:
        entry |= {"ranks": [1, head - 1], "published": rng.random() < 0.5}
    return entry
