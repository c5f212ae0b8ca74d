"""MLR attention from the definition in the paper: one loop over pairs of tokens, float64, nothing shared with mlbtc."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor


def depth(query: int, key: int, block_sizes: list[int | None]) -> int:
    """Return how many leading levels have a block that holds both positions."""
    count = 0
    for size in block_sizes:
        if size is not None and query // size != key // size:
            break
        count += 1
    return count


class Options(NamedTuple):
    """What a call may ask for besides: as the arguments of `mlr_attention`, and the seed that it draws."""

    lengths: list[int] | None = None
    mask: list[list[bool]] | None = None
    slopes: list[float] | None = None
    dropout: float = 0.0
    seed: int = 0

    def visible(self, b: int, position: int, j: int) -> bool:
        """Return whether position `position` of sequence b, which may be padding, sees key j."""
        length = math.inf if self.lengths is None else self.lengths[b]
        return position < length and j < length and (self.mask is None or self.mask[b][j])

    def bias(self, h: int, position: int, j: int) -> float:
        """Return what is added to the score."""
        return 0.0 if self.slopes is None else -self.slopes[h] * abs(position - j)

    def factor(self, b: int, h: int, position: int, j: int) -> float:
        """Return what the weight is multiplied by: 0 if it is dropped."""
        if not self.dropout:
            return 1.0
        dropped = weight_hash(self.seed, b, h, position, j) < round(self.dropout * 2**32)
        return 0.0 if dropped else 1 / (1 - self.dropout)


PLAIN = Options()


def scramble(x: Any, key: Any = 0) -> Any:
    """Return the "lowbias32" hash of 32 bits, with a key that enters in its middle."""
    x ^= x >> 16
    x = x * 0x7FEB352D % 2**32
    x ^= x >> 15
    x ^= key
    x = x * 0x846CA68B % 2**32
    return x ^ (x >> 16)


def weight_hash(seed: int, b: int, h: int, position: Any, j: Any) -> Any:
    """Return the number of 32 bits that decides whether a weight is dropped; positions may be arrays of uint64."""
    keys: list[Any] = [0, 1]
    for part in (seed % 2**32, seed // 2**32, b, h, position):
        keys = [scramble((key + 0x9E3779B9) % 2**32 ^ part) for key in keys]
    return scramble(keys[0] ^ j * 0x9E3779B9 % 2**32, keys[1])


def oracle(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ranks: list[int],
    block_sizes: list[int | None],
    causal: bool = True,
    scale: float | list[float] | None = None,
    options: Options = PLAIN,
) -> Tensor:
    """Return `(B, H, Tq, Dv)` in float64; the queries are the last positions of the keys."""
    query, key, value = query.double(), key.double(), value.double()
    batch, heads, queries, _ = query.shape
    keys, groups = key.shape[2], heads // key.shape[1]
    if scale is None:
        scale = 1 / math.sqrt(sum(ranks))
    factors = list(scale) if isinstance(scale, list) else [scale] * len(ranks)
    rows = []
    for b in range(batch):
        for h in range(heads):
            for i in range(queries):
                position = keys - queries + i
                # Zeros that keep all three inputs in the graph where a row sees nothing.
                row = 0 * (query[b, h, i].sum() + key[b, h // groups].sum() + value[b, h // groups].sum(0))
                scores, mixed = [], []
                for j in range(position + 1 if causal else keys):
                    if not options.visible(b, position, j):
                        continue
                    score, start = torch.tensor(options.bias(h, position, j), dtype=torch.float64), 0
                    for level in range(depth(position, j, block_sizes)):
                        own = slice(start, start + ranks[level])
                        score = score + factors[level] * (query[b, h, i, own] @ key[b, h // groups, j, own])
                        start += ranks[level]
                    scores.append(score)
                    mixed.append(value[b, h // groups, j] * options.factor(b, h, position, j))
                if scores:
                    row = row + torch.softmax(torch.stack(scores), dim=0) @ torch.stack(mixed)
                rows.append(row)
    if not rows:
        return value.new_zeros(batch, heads, queries, value.shape[3])
    return torch.stack(rows).reshape(batch, heads, queries, value.shape[3])
