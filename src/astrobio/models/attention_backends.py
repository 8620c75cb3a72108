"""Which attention kernel runs: the fastest one measured on this device at this length, or the one that is asked for.

The table is what `benchmarks/attention.py` measured; a kernel that the installation, the device or the shape does not
support is passed over for the next.

Dimension letters: B batch, H query heads, G key-value heads, S positions, W head width.
"""

from __future__ import annotations

import importlib.util
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from astrobio.errors import InputError

AttentionKernel = Literal["auto", "flash4", "flash3", "cudnn", "flash", "efficient", "math"]

# (fragment of the device's name) → (shortest sequence, kernels from fastest), longest first. Causal, 40 query and 8
# key-value heads of 128, bfloat16, forward and backward, TFLOP/s on one H100 at 16×512 / 4×2048 / 2×4096 / 1×8192:
# cudnn 124 / 361 / 465 / 530, flash 104 / 207 / 251 / 282 (benchmarks/results/attention.json); flash4 was not installed
# there, an earlier measurement gave it – / 313 / 454 / 546. The H200 has the same processor.
MEASURED: dict[str, tuple[tuple[int, tuple[str, ...]], ...]] = {
    "H100": ((8192, ("flash4", "cudnn", "flash")), (0, ("cudnn", "flash4", "flash"))),
    "H200": ((8192, ("flash4", "cudnn", "flash")), (0, ("cudnn", "flash4", "flash"))),
}
UNMEASURED = ("flash", "efficient", "cudnn")
KERNELS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION, "flash3": SDPBackend.FLASH_ATTENTION,
    "flash4": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION, "math": SDPBackend.MATH,
}  # fmt: skip
PLUGINS = {"flash4": ("flash_attn.cute", "FA4"), "flash3": ("flash_attn_3", "FA3")}  # name → (module, PyTorch's name)
_ACTIVE: set[str] = set()  # packages that stand behind PyTorch's flash kernel in this process


def causal_attention(
    q: Float[Tensor, "B H S W"],
    k: Float[Tensor, "B G S W"],
    v: Float[Tensor, "B G S W"],
    kernel: AttentionKernel = "auto",
) -> Float[Tensor, "B H S W"]:
    """Causal grouped-query attention by the chosen kernel, or by the fastest measured one.

    Raises:
        InputError: a named kernel that this installation does not have.
    """
    names = kernel_order(kernel, _device_name() if q.is_cuda else "", q.shape[2])
    grouped = q.shape[1] != k.shape[1]
    with sdpa_kernel(list(dict.fromkeys(KERNELS[name] for name in names)), set_priority=True):
        return scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)


def kernel_order(kernel: str, device_name: str, sequence: int) -> tuple[str, ...]:
    """Kernels to try, the first that works counts; "math" is always the last resort where none was named.

    Raises:
        InputError: an unknown kernel, or one whose package is not installed.
    """
    if kernel not in get_args(AttentionKernel):
        raise InputError(f"attention kernel: expected one of {get_args(AttentionKernel)}, found {kernel!r}")
    if kernel != "auto":
        if kernel in PLUGINS and not _activate(kernel):
            raise InputError(f"attention kernel {kernel!r}: needs the package {PLUGINS[kernel][0]}, which is missing")
        return (kernel,)
    ranking = next((rows for fragment, rows in MEASURED.items() if fragment in device_name), ((0, UNMEASURED),))
    order = next(names for shortest, names in ranking if sequence >= shortest)
    usable = [name for name in order if name not in PLUGINS or _activate(name)]
    return (*usable, "efficient", "math") if "efficient" not in usable else (*usable, "math")


@torch.compiler.assume_constant_result
def _device_name() -> str:
    return torch.cuda.get_device_name()


@torch.compiler.assume_constant_result
def _activate(name: str) -> bool:
    """Put a FlashAttention package behind PyTorch's flash kernel; False where it is not installed."""
    if name in _ACTIVE:
        return True
    module, implementation = PLUGINS[name]
    try:
        if importlib.util.find_spec(module) is None:
            return False
    except ModuleNotFoundError:  # the parent package is missing
        return False
    from torch.nn.attention import activate_flash_attention_impl

    activate_flash_attention_impl(implementation)
    _ACTIVE.add(name)
    return True
