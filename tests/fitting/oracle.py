"""Nearest structured matrices by loops over blocks and NumPy's singular values; nothing here is shared with fitting."""

import numpy as np

Array = np.ndarray


def nearest_of_rank(matrix: Array, rank: int) -> Array:
    left, values, right = np.linalg.svd(matrix, full_matrices=False)
    return (left[:, :rank] * values[:rank]) @ right[:rank]


def relative(matrix: Array, found: Array, root: Array | None = None) -> float:
    root = np.eye(matrix.shape[1]) if root is None else root
    return float(np.linalg.norm((matrix - found) @ root) / np.linalg.norm(matrix @ root))


def root_of(covariance: Array) -> Array:
    """Return a Cholesky factor: any root of C gives the same norm."""
    return np.linalg.cholesky(covariance)


def weighted_low_rank(matrix: Array, rank: int, covariance: Array) -> Array:
    root = root_of(covariance)
    return nearest_of_rank(matrix @ root, rank) @ np.linalg.inv(root)


def block_low_rank(matrix: Array, blocks: int, rank: int) -> Array:
    rows, columns = (size // blocks for size in matrix.shape)
    found = np.zeros_like(matrix)
    for k in range(blocks):
        part = np.s_[k * rows : (k + 1) * rows, k * columns : (k + 1) * columns]
        found[part] = nearest_of_rank(matrix[part], rank)
    return found


def btt(matrix: Array, factors: tuple[int, int, int, int], rank: int) -> Array:
    """Every pair of a fast output index `b` and a slow input index `c` has a block of rank `rank`."""
    a, b, c, d = factors
    found = np.zeros_like(matrix)
    for row in range(b):
        for column in range(c):
            part = np.ix_([row * a + i for i in range(a)], [column * d + j for j in range(d)])
            found[part] = nearest_of_rank(matrix[part], rank)
    return found


def kronecker(matrix: Array, a_shape: tuple[int, int], b_shape: tuple[int, int], terms: int = 1) -> Array:
    """Van Loan and Pitsianis: blocks as rows, the nearest sum of outer products, and back."""
    rows, columns = b_shape
    blocks = [
        matrix[i * rows : (i + 1) * rows, j * columns : (j + 1) * columns].reshape(-1)
        for i in range(a_shape[0])
        for j in range(a_shape[1])
    ]
    found = nearest_of_rank(np.stack(blocks), terms)
    return np.block(
        [[found[i * a_shape[1] + j].reshape(b_shape) for j in range(a_shape[1])] for i in range(a_shape[0])]
    )


def tt_svd(matrix: Array, rows: list[int], columns: list[int], ranks: list[int]) -> Array:
    """Return what sequential truncated decompositions give: within sqrt(cores - 1) of the best."""
    cores = len(rows)
    order = [axis for core in range(cores) for axis in (core, cores + core)]
    tensor = matrix.reshape(*rows, *columns).transpose(order)
    rest, before, made = tensor.reshape(1, -1), 1, []
    for core in range(cores - 1):
        left, values, right = np.linalg.svd(rest.reshape(before * rows[core] * columns[core], -1), full_matrices=False)
        rank = min(ranks[core], len(values))
        made.append(left[:, :rank].reshape(before, -1, rank))
        rest, before = values[:rank, None] * right[:rank], rank
    found = made[0]
    for core in made[1:]:
        found = np.einsum("xiy,yjz->xijz", found, core).reshape(1, -1, core.shape[2])
    found = (found.reshape(-1, before) @ rest).reshape(tensor.shape)
    return found.transpose(np.argsort(order)).reshape(matrix.shape)
