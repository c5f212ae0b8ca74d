"""What all caches share: the tokens of every sequence so far, what fits, and how sequences are moved and cropped."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from mlbtc.attention.choice import Choice
from mlbtc.attention.decoders import Decoding, choose_decoder
from mlbtc.attention.kernels.kept import Kept
from mlbtc.attention.kernels.native import PANEL_KEYS, working_dtype
from mlbtc.errors import SpecError


class SequenceCache(ABC):
    """Keys and values of the tokens that a causal attention layer has seen.

    Args:
        batch: the number of sequences.
        heads: the number of key heads.
        features: of a query and of a key.
        width: features of a value.
        dtype: of keys and values.
        device: where they are.

    Attributes:
        lengths: the tokens of every sequence so far.
    """

    def __init__(
        self, batch: int, heads: int, features: int, width: int, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        for name, size in (("batch", batch), ("heads", heads), ("width", width)):
            if not isinstance(size, int) or size < 0:
                raise SpecError(f"the {name} of a cache is a whole number of at least 0, found {size!r}")
        if not dtype.is_floating_point:
            raise SpecError(f"a cache holds a floating-point dtype, found {dtype}")
        self.heads, self.features, self.width = heads, features, width
        self.dtype = dtype
        self.lengths = [0] * batch
        self._empty = torch.empty(batch, heads, 0, width, dtype=dtype, device=device)
        self._space = 0
        self._decoder: tuple[object, Decoding] | None = None

    @property
    def batch(self) -> int:
        """The number of sequences."""
        return len(self.lengths)

    @property
    def device(self) -> torch.device:
        """Where keys and values are."""
        return self._empty.device

    def decoder(self) -> Choice:
        """Return what appends single tokens, "triton", "cpp" or "torch", and why."""
        return choose_decoder(self.device, self.dtype, self.width)

    @abstractmethod
    def key_elements(self) -> int:
        """Return how many elements of keys are kept: all sequences and heads, without the space for later tokens."""

    @abstractmethod
    def value_elements(self) -> int:
        """Return how many elements of values are kept: all sequences, all heads."""

    @abstractmethod
    def _parts(self) -> Iterable[Kept]:
        """Return what holds the keys and values."""

    @abstractmethod
    def _append(self, query: Tensor, key: Tensor, value: Tensor, scale: float | Sequence[float] | None) -> Tensor:
        """Append one token to every sequence and return what it attends to."""

    @abstractmethod
    def _extend(
        self, rows: slice, query: Tensor, key: Tensor, value: Tensor, scale: float | Sequence[float] | None
    ) -> Tensor:
        """Append tokens to sequences of one length and return what they attend to."""

    def _decoder_of(self, wanted: object, make: Callable[[], Decoding]) -> Decoding:
        """Return the decoder for the memory as it is now, made anew where another one is wanted than before."""
        if self._decoder is None or self._decoder[0] != wanted:
            self._decoder = (wanted, make())
        return self._decoder[1]

    def attend(
        self,
        query: Tensor,  # (B, H, n, R)
        key: Tensor,  # (B, Hkv, n, R)
        value: Tensor,  # (B, Hkv, n, Dv)
        lengths: Sequence[int] | None = None,
        scale: float | Sequence[float] | None = None,
    ) -> Tensor:
        """Append n tokens to every sequence and return what they attend to, `(B, H, n, Dv)`, in the query's dtype.

        Keys and values are kept in the dtype of the cache; half precision is computed in float32.

        Args:
            query: of the new tokens.
            key: of the new tokens.
            value: of the new tokens.
            lengths: how many of the n tokens each sequence has, the first ones; None for all n. Outputs behind them
                are 0.
            scale: as for `mlr_attention`.

        Raises:
            SpecError: shapes, dtypes, devices or lengths do not fit the cache, or gradients are asked for.
        """
        counts = self._check(query, key, value, lengths)
        tokens, most = query.shape[2], max(counts, default=0)
        if most < tokens:
            # What is behind every sequence takes no part.
            query, key, value = (x[:, :, :most] for x in (query, key, value))
            first = self.attend(query, key, value, counts, scale)
            return torch.nn.functional.pad(first, (0, 0, 0, tokens - most))
        if most == 0:
            return query.new_zeros(*query.shape[:3], self.width)
        kind, query = query.dtype, query.to(working_dtype(self.dtype))
        key, value = key.to(self.dtype), value.to(self.dtype)
        self._reserve(max(old + new for old, new in zip(self.lengths, counts, strict=True)))
        if most == 1 and all(counts):
            output = self._append(query, key, value, scale)
        elif len(set(counts)) == len(set(self.lengths)) == 1:
            output = self._extend(slice(None), query, key, value, scale)
        else:
            output = query.new_zeros(*query.shape[:3], self.width)
            for row, count in enumerate(counts):
                one, new = slice(row, row + 1), slice(0, count)
                own_query, own_key, own_value = (x[one, :, new] for x in (query, key, value))
                output[one, :, new] = self._extend(one, own_query, own_key, own_value, scale)
        self.lengths = [old + new for old, new in zip(self.lengths, counts, strict=True)]
        return output.to(kind)

    def _check(self, query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int] | None) -> list[int]:
        """Return how many tokens every sequence gets."""
        for name, tensor in (("query", query), ("key", key), ("value", value)):
            if tensor.dim() != 4 or not tensor.is_floating_point():
                raise SpecError(
                    f"{name} must be (batch, heads, tokens, features) in a floating-point dtype, found "
                    f"{tuple(tensor.shape)} in {tensor.dtype}"
                )
            if tensor.device != self.device:
                raise SpecError(
                    f"the cache is on {self.device} and {name} on {tensor.device}: move one of them, cache.to(device)"
                )
        new, (batch, heads) = query.shape[2], (self.batch, self.heads)
        if key.shape != (batch, heads, new, self.features) or value.shape != (batch, heads, new, self.width):
            raise SpecError(
                f"the cache takes keys {(batch, heads, 'n', self.features)} and values "
                f"{(batch, heads, 'n', self.width)}, found {tuple(key.shape)} and {tuple(value.shape)} "
                f"for {new} queries"
            )
        fits = query.shape[1] % heads == 0 if heads else query.shape[1] == 0
        if query.shape[0] != batch or query.shape[3] != self.features or not fits:
            raise SpecError(
                f"the cache takes queries {(batch, f'a multiple of {heads}', 'n', self.features)}, found "
                f"{tuple(query.shape)}"
            )
        if torch.is_grad_enabled() and any(x.requires_grad for x in (query, key, value)):
            raise SpecError("a cache is for inference: call the layer under torch.no_grad() or torch.inference_mode()")
        counts = [new] * batch if lengths is None else [int(length) for length in lengths]
        if len(counts) != batch or not all(0 <= count <= new for count in counts):
            raise SpecError(f"lengths has one number from 0 to {new} for each of {batch} sequences, found {counts}")
        return counts

    def _reserve(self, tokens: int) -> None:
        """Make space for sequences of `tokens` tokens, at least doubling what must grow."""
        if tokens <= self._space:
            return
        self._space = max(tokens, 2 * self._space, PANEL_KEYS)
        for part in self._parts():
            part.reserve(self._space)
        self._decoder = None

    def reorder(self, order: Sequence[int] | Tensor) -> None:
        """Replace sequence i by sequence order[i], as beam search does; sequences may be repeated or dropped.

        Raises:
            SpecError: the order is not a list of sequences.
        """
        index = torch.as_tensor(order)
        places = index.tolist()
        whole = index.dim() == 1 and not (index.is_floating_point() or index.dtype == torch.bool)
        if places and not (whole and all(0 <= place < self.batch for place in places)):
            raise SpecError(f"order is a list of sequences, numbers from 0 to {self.batch - 1}, found {places}")
        index = index.to(self.device, torch.long)
        for part in self._parts():
            part.reorder(index)
        self._empty = self._empty.index_select(0, index)
        self.lengths = [self.lengths[place] for place in places]
        self._decoder = None

    def crop(self, tokens: int) -> None:
        """Forget all but the first `tokens` tokens of every sequence.

        Raises:
            SpecError: what the token after them needs is no longer kept.
        """
        self.check_crop(tokens)
        for row, length in self._longer(tokens):
            for part in self._parts():
                part.crop(row, length, tokens)
            self.lengths[row] = tokens

    def check_crop(self, tokens: int) -> None:
        """Raise what `crop` raises, and forget nothing."""
        if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
            raise SpecError(f"a cache is cropped to a whole number of tokens of at least 0, found {tokens!r}")
        for row, length in self._longer(tokens):
            for part in self._parts():
                if not part.can_crop(row, length, tokens):
                    what = "windows" if part.sliding else "blocks"
                    raise SpecError(
                        f"cannot crop {length} tokens to {tokens}: {what} of {part.span} keep only what is from token "
                        f"{length - part.kept(row, length)} on"
                    )

    def _longer(self, tokens: int) -> list[tuple[int, int]]:
        """Return the sequences of more than so many tokens, and their lengths."""
        return [(row, length) for row, length in enumerate(self.lengths) if length > tokens]

    def clone(self) -> Self:
        """Return a copy that shares no memory with the cache."""
        return copy.deepcopy(self)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Return a copy on another device or in another dtype.

        Raises:
            SpecError: no floating-point dtype.
        """
        if dtype is not None and not dtype.is_floating_point:
            raise SpecError(f"a cache holds a floating-point dtype, found {dtype}")
        moved = self.clone()
        moved._apply(lambda tensor: tensor.to(device=device, dtype=dtype))
        moved.dtype = moved._empty.dtype
        return moved

    def _apply(self, function: Callable[[Tensor], Tensor]) -> None:
        self._empty = function(self._empty)
        for part in self._parts():
            part.apply(function)
        self._decoder = None

    def __getstate__(self) -> dict[str, Any]:
        # The decoder refers to memory by its address: it is neither copied nor pickled.
        return {**self.__dict__, "_decoder": None}


def elements_of(part: Kept, lengths: Sequence[int]) -> int:
    """Return how many elements are kept of sequences of these lengths, all heads."""
    return sum(part.kept(row, length) for row, length in enumerate(lengths)) * part.data.shape[1] * part.width


def check_window(window: int) -> None:
    """Check a window.

    Raises:
        SpecError: it is no number of tokens.
    """
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise SpecError(f"a window is a whole number of tokens of at least 1, found {window!r}")
