"""What compiled matrix modules are beside the class that was emitted for them: which target ran, and why."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from mlbtc.codegen.kernel import REAL, Kernel
from mlbtc.codegen.operator import structured_linear
from mlbtc.codegen.transforms import active_transform
from mlbtc.codegen.tuning import Candidate
from mlbtc.errors import MlbtcError
from mlbtc.spec.language import MLBTC

AUTOCAST = (torch.bfloat16, torch.float32)
"""Dtypes of autocast under which kernels run."""


class StructuredMatrix(nn.Module):
    """The common part of compiled matrix modules.

    Attributes:
        spec: the spec, without open symbols.
        source: the Python source of the module's torch program.
        candidate: how it runs: the target, and what for it is tuned.
        init: the rule for initial values.
        reason: why like that.
    """

    spec: MLBTC
    source: str
    candidate: Candidate
    init: str
    reason: str

    @property
    def target(self) -> str:
        """The target that the module was compiled for, "torch", "cpp" or "triton"."""
        return self.candidate.target

    @property
    def tokens(self) -> int | None:
        """The number of tokens for which the torch program is planned, None for one."""
        return self.candidate.tokens

    def explain(self) -> str:
        """Return which target runs for plain tensors of the parameters' device and dtype, and why."""
        return f"target {self.candidate}: {self.reason}"


class MultipliedOut(StructuredMatrix):
    """A module that multiplies its factors to a dense matrix in every call, and the input by that."""

    in_features: int
    bias: Tensor | None

    def forward(self, x: Tensor) -> Tensor:
        """Multiply the last axis of x by the matrix: (..., in) to (..., out)."""
        if x.shape[-1:] != (self.in_features,):
            raise ValueError(f"expected an input (..., {self.in_features}), found {tuple(x.shape)}")
        weight: Tensor = self.to_dense()  # type: ignore[operator]
        return nn.functional.linear(x, weight, None if self.bias is None else self.bias.to(weight.dtype))


class KernelMatrix(StructuredMatrix):
    """A module that runs kernels where it can, and else the torch program that it inherits.

    Attributes:
        factor_names: the parameters that it reads, in the order of the spec.
        optional: whether the torch program also stands in for a kernel that cannot be built.
    """

    factor_names: tuple[str, ...]
    optional: bool
    in_features: int
    out_features: int
    _broken: str | None = None

    def _refusal(self, x: Tensor, weight: Tensor) -> str | None:
        """Return why kernels cannot run for an input and parameters like these, or None."""
        raise NotImplementedError

    def _multiply(self, rows: Tensor, factors: list[Tensor], bias: Tensor | None) -> Tensor:
        """Return the product of `(tokens, in)`."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Multiply the last axis of x by the matrix: (..., in) to (..., out)."""
        parameters: dict[str, Any] = self._parameters
        factors = [parameters[name] for name in self.factor_names if name in parameters]
        # A parametrization takes a factor away and leaves a property, which the torch program reads.
        if len(factors) < len(self.factor_names) or "bias" not in parameters:
            return self._torch_forward(x)
        if self._broken is not None or self._refusal(x, factors[0]) is not None or x.shape[-1] != self.in_features:
            return self._torch_forward(x)
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            x = x.to(torch.get_autocast_dtype(kind))
        rows = x if x.dim() == 2 else x.reshape(-1, self.in_features)
        try:
            y = self._multiply(rows, factors, parameters["bias"])
        except MlbtcError as error:
            if not self.optional:
                raise
            self._broken = f"the kernel cannot be built ({str(error).splitlines()[0]})"
            return self._torch_forward(x)
        return y if x.dim() == 2 else y.reshape(*x.shape[:-1], self.out_features)

    def _torch_forward(self, x: Tensor) -> Tensor:
        return super().forward(x)  # type: ignore[no-any-return]


class NativeMatrix(KernelMatrix):
    """A module that runs a C++ kernel.

    Attributes:
        kernel: the kernel.
        key: its name in traced graphs.
        few: up to how many float32 tokens the torch program is taken for faster.
        in_training: whether the kernel also runs where gradients are asked for and in traced graphs.
    """

    kernel: Kernel
    key: str
    few: int = 0
    in_training: bool = True

    @property
    def cpp_source(self) -> str:
        """The C++ source of the kernel for the parameters' dtype."""
        dtype = next(self.parameters()).dtype
        return self.kernel.source(dtype if dtype in REAL else torch.float32)

    def explain(self) -> str:
        """Return which target runs for plain tensors of the parameters' device and dtype, and why."""
        weight = next(self.parameters())
        reason = self._broken or self._refusal(weight, weight)
        if reason:
            return f"target torch, not cpp: {reason}"
        others = [f"up to {self.few} token(s)"] if self.few else []
        others += [] if self.in_training else ["calls with gradients", "traced graphs"]
        named = ", ".join([*others, "other devices and dtypes"]).capitalize()
        return (
            f"target {self.candidate}: {self.reason}; {str(weight.dtype).removeprefix('torch.')} on "
            f"{torch.get_num_threads()} thread(s), {self.kernel.macs:,} MACs per token. {named}, and "
            "the transforms of torch.func, run the torch program (module.source)"
        )

    def _refusal(self, x: Tensor, weight: Tensor) -> str | None:
        if not (weight.is_cpu and x.is_cpu):
            return f"kernels run on the CPU, the module is on {weight.device}"
        return refusal(x, weight, tuple(REAL), AUTOCAST)

    def forward(self, x: Tensor) -> Tensor:
        """Multiply the last axis of x by the matrix: (..., in) to (..., out)."""
        return self._torch_forward(x) if self._is_faster_in_torch(x) else super().forward(x)

    def _is_faster_in_torch(self, x: Tensor) -> bool:
        # A traced graph is for any number of tokens.
        if torch.compiler.is_compiling():
            return not self.in_training
        if self.few and 0 < x.numel() <= self.few * self.in_features and x.dtype == torch.float32:
            return not torch.is_autocast_enabled(x.device.type)
        if self.in_training or not torch.is_grad_enabled():
            return False
        return x.requires_grad or any(p is not None and p.requires_grad for p in self._parameters.values())

    def _multiply(self, rows: Tensor, factors: list[Tensor], bias: Tensor | None) -> Tensor:
        return structured_linear(rows, factors, bias, self.key)


def refusal(
    x: Tensor, weight: Tensor, dtypes: tuple[torch.dtype, ...], autocast: tuple[torch.dtype, ...]
) -> str | None:
    """Return why a kernel cannot read an input and parameters on a device that it runs on, or None.

    Args:
        x: the input.
        weight: a parameter.
        dtypes: those that kernels store.
        autocast: those that autocast may ask for.
    """
    if x.device != weight.device:
        return f"the input is on {x.device}, the factors are on {weight.device}"
    if weight.dtype not in dtypes:
        return f"kernels compute in {', '.join(str(d).removeprefix('torch.') for d in dtypes)}, not {weight.dtype}"
    kind = weight.device.type
    if torch.is_autocast_enabled(kind):
        if torch.get_autocast_dtype(kind) not in autocast or weight.dtype == torch.float64:
            return f"autocast to {torch.get_autocast_dtype(kind)}"
    elif x.dtype != weight.dtype:
        return f"the input is {x.dtype}, the factors are {weight.dtype}"
    if torch.compiler.is_compiling():
        return "an ONNX file holds no kernels" if torch.onnx.is_in_onnx_export() else None
    return _not_plain(x, weight)


def _not_plain(x: Tensor, weight: Tensor) -> str | None:
    """Return why tensors have no memory that a kernel could read: wrappers of transforms, subclasses, modes."""
    if type(x) not in _PLAIN or type(weight) not in _PLAIN:
        return f"the tensors are of the classes {type(x).__name__} and {type(weight).__name__}"
    if torch._C._len_torch_dispatch_stack():
        return "a dispatch mode is active"
    return active_transform() or None


_PLAIN = (Tensor, nn.Parameter)


def native_class(emitted: type[nn.Module], base: type[StructuredMatrix], attributes: dict[str, Any]) -> type[Any]:
    """Return the emitted class with `base` in front, under the emitted name."""
    made: type[Any] = type(emitted.__name__, (base, emitted), {"__module__": emitted.__module__, **attributes})
    return made
