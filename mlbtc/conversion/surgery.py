"""Modules in the place of others: everywhere at once or nowhere, with what hangs on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn

_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_is_full_backward_hook",
)


def take_over(new: nn.Module, old: nn.Module) -> None:
    """Give a module the hooks and the mode of the one whose place it takes.

    Hooks of `state_dict` are not among them: they speak of names that the new module does not have. The collections are
    the same objects, so that handles of hooks still remove them.
    """
    for name in _HOOKS:
        if name in old.__dict__:
            new.__dict__[name] = old.__dict__[name]
    new.train(old.training)


def put(model: nn.Module, replacements: Mapping[str, nn.Module]) -> nn.Module:
    """Put modules in their places, all or, where one fails, none.

    Args:
        model: is changed.
        replacements: names in the model to modules; "" is the model itself.

    Returns:
        The model, or what replaces it.
    """
    done: list[tuple[nn.Module, str, nn.Module]] = []
    try:
        for name, new in replacements.items():
            if name:
                path, _, attribute = name.rpartition(".")
                parent = model.get_submodule(path)
                done.append((parent, attribute, parent.get_submodule(attribute)))
                setattr(parent, attribute, new)
    except BaseException:
        _undo(done)
        raise
    return replacements.get("", model)


def _undo(done: Sequence[tuple[nn.Module, str, nn.Module]]) -> None:
    for parent, attribute, old in reversed(done):
        parent._modules[attribute] = old
