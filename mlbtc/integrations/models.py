"""Conversion of models of transformers: their attention becomes MLR attention, their parameters stay what they are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mlbtc.errors import SpecError, shown
from mlbtc.integrations.features import pair_order, pairs_by_share, rotated
from mlbtc.integrations.functions import register
from mlbtc.integrations.levels import LEVELS, ORDER, Levels, check_heads, check_pairs, levels_of
from mlbtc.integrations.library import part
from mlbtc.spec.attention import AttentionSpec

Order = Literal["weights", "given"]
SAVED = "mlbtc_attention"
"""The entry of a model's config that has the levels of its layers."""


def convert_attention(
    model: nn.Module,
    spec: AttentionSpec | Sequence[AttentionSpec | None],
    *,
    order: Order = "weights",
    name: str = "mlbtc",
    backend: str = "auto",
) -> tuple[str, ...]:
    """Let the attention layers of a GPT-2 or Llama of transformers attend by the levels of a spec, in place.

    Parameters keep their names and shapes, so that checkpoints of the model load before and after. With one level of
    all features nothing changes but the kernels. With several, pairs of tokens that share few blocks lose the features
    of the finer levels, and `order` says which these are. All layers are converted or, after an error, none;
    `model.set_attn_implementation("sdpa")` goes back. The levels are in `model.config`, and so in what
    `save_pretrained` writes: see `restore_attention`.

    A level of a Llama holds both features of each pair d and d + D/2 that RoPE rotates: level l takes r_l / 2 pairs.

    Args:
        model: a `PreTrainedModel` whose attention layers are `GPT2Attention` or `LlamaAttention`.
        spec: of variant "mlr" or "standard", with the heads and the head size of the model; its first level covers
            sequences of any length. Or one for each layer, None for standard attention.
        order: which features come first, and so reach farthest. "weights": those that matter most by the weights. The
            features of a GPT-2 head are rotated: its weights of queries and keys become singular vectors of their
            product, which changes no score, and the first r features are the best r there can be. Pairs of a Llama are
            sorted by their share in the scores of all heads; its weights stay as they are. "given": features, or pairs,
            in the order in which they are, and no weight changes.
        name: under which the attention is registered, see `register`.
        backend: of `mlbtc.attention.mlr_attention`.

    Returns:
        The names of the layers.

    Raises:
        SpecError: the model has other attention layers or none, the spec does not fit its heads, or a level would cut a
            pair of RoPE.
        BackendError: transformers is not installed, or the backend is unknown.
    """
    if order not in ("weights", "given"):
        raise SpecError(f"order must be 'weights' or 'given', found {order!r}")
    layers, kinds = _layers(model), _kinds()
    specs = [spec] * len(layers) if isinstance(spec, AttentionSpec) else list(spec)
    if len(specs) != len(layers):
        raise SpecError(f"the model has {len(layers)} attention layers, found {len(specs)} specs")
    changes = [
        kinds[type(module)](place, module, own, order)
        for (place, module), own in zip(layers.items(), specs, strict=True)
    ]
    _apply(model, changes, register(name, backend=backend))
    return tuple(layers)


def restore_attention(model: nn.Module, *, name: str = "mlbtc", backend: str = "auto") -> tuple[str, ...]:
    """Give a model its levels again that was converted and saved, and loaded now, in place.

    Args:
        model: as for `convert_attention`; its config has what that left there.
        name: as for `convert_attention`.
        backend: as for `convert_attention`.

    Returns:
        The names of the layers.

    Raises:
        SpecError: the config has no levels, or they do not fit the model.
        BackendError: transformers is not installed, or the backend is unknown.
    """
    layers = _layers(model)
    saved: Any = getattr(model.config, SAVED, None)
    if saved is None:
        raise SpecError(f"the config of the model has no {SAVED}: use convert_attention")
    if not isinstance(saved, list) or len(saved) != len(layers):
        raise SpecError(f"{SAVED} of the config is a list with an entry for each of {len(layers)} attention layers")
    changes = [_restored(place, layer, own) for (place, layer), own in zip(layers.items(), saved, strict=True)]
    _apply(model, changes, register(name, backend=backend))
    return tuple(layers)


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """What a layer gets: levels, an order of features, and values of parameters."""

    module: Any
    levels: Levels | None
    order: Tensor | None
    values: tuple[tuple[nn.Parameter, Tensor], ...]

    def apply(self) -> Callable[[], None]:
        """Make the change and return what takes it back."""
        before = [(parameter, parameter.detach().clone()) for parameter, _ in self.values]
        levels, order = getattr(self.module, LEVELS, None), getattr(self.module, ORDER, None)
        try:
            _set(self.module, self.levels, self.order, self.values)
        except BaseException:
            _set(self.module, levels, order, before)
            raise
        return lambda: _set(self.module, levels, order, before)

    def entry(self) -> dict[str, Any] | None:
        """Return what the config keeps of the change, as JSON can say it."""
        if self.levels is None:
            return None
        order = None if self.order is None else self.order.tolist()
        return {"ranks": [*self.levels.ranks], "block_sizes": [*self.levels.block_sizes], "order": order}


@torch.no_grad()
def _set(
    module: nn.Module, levels: Levels | None, order: Tensor | None, values: Sequence[tuple[nn.Parameter, Tensor]]
) -> None:
    for parameter, value in values:
        parameter.copy_(value)
    # Not saved with the model: a checkpoint of the library has no such entry.
    module.register_buffer(ORDER, order, persistent=False)
    setattr(module, LEVELS, levels)


def _apply(model: Any, changes: Sequence[_Change], name: str) -> None:
    """Make all changes and let the model attend by the registered function, or do nothing."""
    before, saved = model.config._attn_implementation, getattr(model.config, SAVED, None)
    undo: list[Callable[[], None]] = []
    try:
        for change in changes:
            undo.append(change.apply())
        model.set_attn_implementation(name)
        if any(change.module.config._attn_implementation != name for change in changes):
            raise SpecError(f"{type(model).__name__} does not let its attention be set")
        setattr(model.config, SAVED, [change.entry() for change in changes])
    except BaseException:
        for take_back in reversed(undo):
            take_back()
        model.set_attn_implementation(before)
        if saved is None:
            vars(model.config).pop(SAVED, None)
        else:
            setattr(model.config, SAVED, saved)
        raise


def _kinds() -> dict[type[nn.Module], Callable[[str, Any, AttentionSpec | None, Order], _Change]]:
    """Return what makes the change of each class of attention layers."""
    gpt2, llama = part("models.gpt2.modeling_gpt2"), part("models.llama.modeling_llama")
    return {gpt2.GPT2Attention: _gpt2, llama.LlamaAttention: _llama}


def _layers(model: Any) -> dict[str, Any]:
    """Return the attention layers of a model by their names.

    Raises:
        SpecError: the model is none of transformers, or has no layers that can be converted.
    """
    kinds = _kinds()
    if not isinstance(model, part("modeling_utils").PreTrainedModel):
        raise SpecError(f"the model must be a PreTrainedModel of transformers, found {type(model).__name__}")
    layers = {place: module for place, module in model.named_modules() if type(module) in kinds}
    if not layers:
        raise SpecError(
            f"{type(model).__name__} has no attention layer that can be converted: those of GPT-2 and Llama can"
        )
    crossing = [place for place, layer in layers.items() if getattr(layer, "is_cross_attention", False)]
    if crossing:
        raise SpecError(f"{crossing[0]} attends to another sequence: blocks of tokens are for self-attention")
    return layers


def _restored(place: str, module: Any, entry: Any) -> _Change:
    """Return the change that an entry of a config stands for; configs are files of strangers."""
    if entry is None:
        return _Change(module, None, None, ())
    keys = ("ranks", "block_sizes", "order")
    if not isinstance(entry, dict) or {*entry} != {*keys}:
        raise SpecError(f"{SAVED} of the config has entries of {', '.join(keys)}, found {shown(entry)}")
    ranks, sizes, order = (entry[key] for key in keys)
    whole = isinstance(ranks, list) and isinstance(sizes, list) and len(ranks) == len(sizes) and sizes[:1] == [None]
    if not whole or not all(type(number) is int and number > 0 for number in (*ranks, *sizes[1:])):
        raise SpecError(f"{SAVED} of the config needs a rank and a block size for each level, found {shown(entry)}")
    levels = Levels(tuple(ranks), tuple(sizes))
    check_heads(levels, module.head_dim, place)
    if order is None:
        return _Change(module, levels, None, ())
    if not isinstance(order, list) or sorted(order, key=str) != sorted(range(module.head_dim), key=str):
        raise SpecError(
            f"order in {SAVED} of the config has each of {module.head_dim} features once, found {shown(order)}"
        )
    return _Change(module, levels, torch.tensor(order, device=next(module.parameters()).device), ())


def _levels(place: str, spec: AttentionSpec | None, heads: int, head_size: int) -> Levels | None:
    if spec is None:
        return None
    levels = levels_of(spec)
    check_heads(levels, head_size, place)
    if spec.heads != heads:
        raise SpecError(f"{place} has {heads} heads, the spec has {spec.heads}")
    return levels


def _gpt2(place: str, module: Any, spec: AttentionSpec | None, order: Order) -> _Change:
    levels = _levels(place, spec, module.num_heads, module.head_dim)
    if levels is None or levels.one or order == "given":
        return _Change(module, levels, None, ())
    layer = module.c_attn
    if type(layer) is not part("pytorch_utils").Conv1D:
        raise _unreadable(place, layer)
    # The weight of a Conv1D is (in, out), and what comes out are queries, keys and values side by side.
    weight, bias = rotated(layer.weight, layer.bias, module.num_heads)
    return _Change(module, levels, None, ((layer.weight, weight), (layer.bias, bias)))


def _llama(place: str, module: Any, spec: AttentionSpec | None, order: Order) -> _Change:
    size, groups = module.head_dim, module.num_key_value_groups
    levels = _levels(place, spec, module.config.num_attention_heads, size)
    if levels is None or levels.one:
        return _Change(module, levels, None, ())
    check_pairs(levels, size, place)
    pairs = torch.arange(size // 2, device=next(module.parameters()).device)
    if order == "weights":
        for layer in (module.q_proj, module.k_proj):
            if type(layer) is not nn.Linear:
                raise _unreadable(place, layer)
        pairs = pairs_by_share(module.q_proj, module.k_proj, size, groups)
    return _Change(module, levels, pair_order(pairs, levels.ranks), ())


def _unreadable(place: str, layer: nn.Module) -> SpecError:
    return SpecError(f"{place} projects by a {type(layer).__name__}, whose weights cannot be sorted: use order='given'")
