"""AdamW whose two moments take one byte a weight each, in one pass over memory.

The moments of 256 neighbouring weights (128 or 64 where a row asks for it) share one scale, their largest magnitude.
Codes are spaced as a power law, fine near zero: m = scale · sign · (code/127)², v = scale · (code/255)⁴. Codes and
bfloat16 weights are rounded at random in proportion to the distance, so that the expected value is exact: small
updates are not lost, and v decays where rounding to the nearest code would hold it for ever. Random bits are a hash of
(weight's index, seed): no generator, no state, and the CUDA kernel and the reference in plain PyTorch draw the same.

Dimension letters: N blocks, W weights in a block.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._dtensor_spec import DTensorSpec, TensorMeta
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from astrobio.training.mover import Mover, pinned_empty

BLOCKS = (256, 128, 64)  # weights that share a scale: the largest that divides a row
SMALLEST = 4096  # weights; smaller tensors keep float32 moments (their bytes do not matter)
MASK = 0xFFFFFFFF  # low 32 bits


@dataclass(frozen=True)
class Hyperparameters:
    """One AdamW update's numbers.

    `step` counts from 1; `seed` picks the random bits of rounding; `offset` is the index in the whole weight of a
    shard's first, so that sharding changes no bit.
    """

    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float
    step: int
    seed: int
    offset: int = 0

    @property
    def corrections(self) -> tuple[float, float]:
        """1 − β₁ᵗ and 1 − β₂ᵗ (Kingma & Ba 2015, arXiv:1412.6980)."""
        return 1.0 - self.beta1**self.step, 1.0 - self.beta2**self.step


def block_size(shape: torch.Size | tuple[int, ...]) -> int:
    """Weights that share a scale, 0 where moments stay in float32.

    Every row is whole blocks, so that a shard by rows holds whole blocks too.
    """
    if len(shape) < 2 or math.prod(shape) < SMALLEST:
        return 0
    return next((block for block in BLOCKS if math.prod(shape[1:]) % block == 0), 0)


def random_bits(count: int, seed: int, device: torch.device | str = "cpu", offset: int = 0) -> Int[Tensor, "count"]:
    """32 random bits for each of the weights from `offset` on (an integer hash; Wellons' "lowbias32" constants)."""
    x = (torch.arange(offset, offset + count, dtype=torch.int64, device=device) * 0x9E3779B1 + seed) & MASK
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & MASK
    x = ((x ^ (x >> 15)) * 0x846CA68B) & MASK
    return x ^ (x >> 16)


def round_to_bfloat16(values: Float[Tensor, "..."], bits: Int[Tensor, "..."]) -> Tensor:
    """float32 → bfloat16, up or down at random (16 bits of `bits`) so that the expected value is exact."""
    raw = values.contiguous().view(torch.int32)
    rounded = (raw + (bits & 0xFFFF).to(torch.int32)) & -65536
    return rounded.view(torch.float32).to(torch.bfloat16)


def decode_mean(codes: Int[Tensor, "N W"], scale: Float[Tensor, "N"]) -> Float[Tensor, "N W"]:
    """First moments of int8 codes."""
    unit = codes.float() / 127.0
    return unit * unit.abs() * scale[:, None]


def decode_square(codes: Int[Tensor, "N W"], scale: Float[Tensor, "N"]) -> Float[Tensor, "N W"]:
    """Second moments of uint8 codes."""
    unit = codes.float() / 255.0
    return unit.square().square() * scale[:, None]


def encode_mean(mean: Float[Tensor, "N W"], uniform: Float[Tensor, "N W"]) -> tuple[Tensor, Tensor]:
    """First moments → (int8 codes, scales [N]); `uniform` in [0, 1) decides between the two nearest codes."""
    scale = mean.abs().amax(dim=1)
    place = (mean.abs() / scale.clamp_min(1e-30)[:, None]).sqrt() * 127.0
    low = place.floor().clamp_max(126.0)
    fraction = (place * place - low * low) / (2.0 * low + 1.0)
    return ((low + (uniform < fraction)) * mean.sign()).to(torch.int8), scale


def encode_square(square: Float[Tensor, "N W"], uniform: Float[Tensor, "N W"]) -> tuple[Tensor, Tensor]:
    """Second moments → (uint8 codes, scales [N]); positive values never become 0, which would blow up their step."""
    scale = square.amax(dim=1)
    root = (square / scale.clamp_min(1e-30)[:, None]).sqrt()
    place = root.sqrt() * 255.0
    low = place.floor().clamp_max(254.0)
    low2, high2 = low * low, (low + 1.0) * (low + 1.0)
    place2 = place * place
    fraction = (place2 * place2 - low2 * low2) / (high2 * high2 - low2 * low2)
    codes = (low + (uniform < fraction)).clamp_min(1.0)
    return torch.where(square > 0, codes, 0.0).to(torch.uint8), scale


def update_reference_(
    weight: Tensor, gradient: Tensor, state: dict[str, Tensor], factor: Tensor, numbers: Hyperparameters,
    limit: float = 0.0,
) -> None:  # fmt: skip
    """One AdamW update in place, in plain PyTorch: what the CUDA kernel must equal.

    Args:
        weight: any shape, float32 or bfloat16. gradient: the same shape.
        state: `mean`, `square` and, where quantised, their `mean_scale`, `square_scale`.
        factor: [] the gradient's multiplier (clipping); where it is not finite nothing changes.
        limit: where positive, `factor` is the gradient's norm instead, which is bounded by it (see `clip_factor`).
    """
    factor = clip_factor(factor, limit) if limit > 0 else factor
    if not bool(torch.isfinite(factor)):
        return
    width = weight.numel() // state["mean_scale"].numel() if "mean_scale" in state else weight.numel()
    shape = (-1, width)
    g = gradient.float().reshape(shape) * factor
    bits = random_bits(weight.numel(), numbers.seed, weight.device, numbers.offset).view(shape)
    if "mean_scale" in state:
        mean = decode_mean(state["mean"].view(shape), state["mean_scale"].view(-1))
        square = decode_square(state["square"].view(shape), state["square_scale"].view(-1))
    else:
        mean, square = state["mean"].view(shape), state["square"].view(shape)
    mean = numbers.beta1 * mean + (1.0 - numbers.beta1) * g
    square = numbers.beta2 * square + (1.0 - numbers.beta2) * g * g
    first, second = numbers.corrections
    step = (mean / first) / ((square / second).sqrt() + numbers.eps)
    fresh = weight.float().reshape(shape) * (1.0 - numbers.lr * numbers.weight_decay) - numbers.lr * step
    if weight.dtype == torch.bfloat16:
        fresh = round_to_bfloat16(fresh, bits)
    weight.copy_(fresh.view(weight.shape))
    _store(state, mean, square, bits)


def _store(state: dict[str, Tensor], mean: Tensor, square: Tensor, bits: Tensor) -> None:
    if "mean_scale" not in state:
        state["mean"].copy_(mean.view(state["mean"].shape))
        state["square"].copy_(square.view(state["square"].shape))
        return
    codes, scale = encode_mean(mean, (((bits >> 16) & 0xFF).float() + 0.5) / 256.0)
    state["mean"].copy_(codes.view(state["mean"].shape))
    state["mean_scale"].copy_(scale.view(state["mean_scale"].shape))
    codes, scale = encode_square(square, ((bits >> 24).float() + 0.5) / 256.0)
    state["square"].copy_(codes.view(state["square"].shape))
    state["square_scale"].copy_(scale.view(state["square_scale"].shape))


def fresh_state(weight: Tensor, whole: torch.Size | None = None) -> dict[str, Tensor]:
    """Zero moments of a weight, or of a shard of rows of a weight of the shape `whole`, on its device."""
    block, device = block_size(weight.shape if whole is None else whole), weight.device
    if not block:
        zeros = {"dtype": torch.float32, "device": device}
        return {"mean": torch.zeros(weight.shape, **zeros), "square": torch.zeros(weight.shape, **zeros)}
    scales = (weight.shape[0], math.prod(weight.shape[1:]) // block)
    return {
        "mean": torch.zeros(weight.shape, dtype=torch.int8, device=device),
        "square": torch.zeros(weight.shape, dtype=torch.uint8, device=device),
        "mean_scale": torch.zeros(scales, dtype=torch.float32, device=device),
        "square_scale": torch.zeros(scales, dtype=torch.float32, device=device),
    }


def local(tensor: Tensor) -> Tensor:
    """This rank's shard of a sharded tensor; any other tensor as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class AdamW8bit(torch.optim.Optimizer):
    """AdamW with 8-bit moments and stochastic rounding of bfloat16 weights, a drop-in for `torch.optim.AdamW`.

    Args:
        params: parameters or groups, as of any PyTorch optimizer; parameters may be shards (DTensor) by rows.
        lr, betas, eps, weight_decay: AdamW's (Loshchilov & Hutter 2019, arXiv:1711.05101).
        seed: of the random rounding.
        device: where updates are computed, if weights, gradients and moments live elsewhere (host memory).
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.98), eps: float = 1e-8,
        weight_decay: float = 0.0, seed: int = 0, device: torch.device | None = None,
    ) -> None:  # fmt: skip
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self.seed, self.updates, self._device = seed, 0, device
        self._mover: Mover | None = None
        self._place: dict[nn.Parameter, tuple[int, dict[str, Any]]] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                self._place[parameter] = (len(self._place), group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None, *, factor: Tensor | None = None) -> float | None:
        """Update every parameter that has a gradient.

        Args:
            factor: [] multiplier of all gradients (see `clip_factor`), applied on the fly; a step whose factor is not
                finite changes nothing, without the host having to wait for the device.
        """
        loss = closure() if closure is not None else None
        self.begin_step()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self.update(parameter, parameter.grad, factor)
        if self._mover is not None:
            self._mover.synchronize()
        return loss

    def begin_step(self) -> None:
        """Count one step; every parameter updated before the next call is part of it."""
        self.updates += 1

    @torch.no_grad()
    def update(
        self, parameter: nn.Parameter, gradient: Tensor, factor: Tensor | None = None, limit: float = 0.0
    ) -> None:
        """Update one parameter now (for steps inside the backward pass).

        Args:
            limit: where positive, `factor` is the gradient's norm and bounded by it, without a kernel of its own.
        """
        weight, state = local(parameter.data), self.local_state(parameter)
        mover = self.mover_of(parameter)
        if mover is None:
            self.update_local(parameter, weight, local(gradient), state, factor, limit)
            return
        homes = [weight, *state.values()]
        moved = mover.fetch([*homes, local(gradient)]).wait()
        visiting = dict(zip(state, moved[1:-1], strict=True))
        self.update_local(parameter, moved[0], moved[-1], visiting, factor, limit)
        mover.store(moved[:-1], homes)

    def mover_of(self, parameter: nn.Parameter) -> Mover | None:
        """What carries a parameter to where its updates are computed; None if it is there already."""
        if self._device is None or local(parameter.data).device == self._device:
            return None
        if self._mover is None:
            self._mover = Mover(self._device)
        return self._mover

    def local_state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """This rank's moments of a parameter (zeros before its first update), to be changed in place."""
        state = self.state[parameter]
        if not state:
            weight = local(parameter.data)
            if self.mover_of(parameter) is None:
                fresh = fresh_state(weight, parameter.shape)
            else:
                assert self._device is not None
                shapes = fresh_state(torch.empty_like(weight, device="meta"), parameter.shape)
                fresh = {name: pinned_empty(v.shape, v.dtype, self._device).zero_() for name, v in shapes.items()}
            state.update(_like(parameter, fresh))
        return {name: local(value) for name, value in state.items()}

    def update_local(
        self, parameter: nn.Parameter, weight: Tensor, gradient: Tensor, state: dict[str, Tensor],
        factor: Tensor | None = None, limit: float = 0.0,
    ) -> None:  # fmt: skip
        """`update` on tensors that stand for the parameter's and its state's, wherever those are kept."""
        if weight.numel() == 0:
            return
        numbers = self._numbers(parameter)
        if factor is None:
            factor = torch.ones((), device=weight.device)
        factor = local(factor).to(device=weight.device, dtype=torch.float32)
        if weight.is_cuda:
            from astrobio.training.kernels import update_

            update_(weight, gradient, state, factor, numbers, limit)
        else:
            update_reference_(weight, gradient, state, factor, numbers, limit)

    def _numbers(self, parameter: nn.Parameter) -> Hyperparameters:
        index, group = self._place[parameter]
        seed = hash((self.seed, self.updates, index)) & 0x7FFFFFFF
        return Hyperparameters(
            lr=group["lr"], beta1=group["betas"][0], beta2=group["betas"][1], eps=group["eps"],
            weight_decay=group["weight_decay"], step=max(self.updates, 1), seed=seed, offset=_offset(parameter),
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """As PyTorch's, with the number of steps taken in every group (AdamW's bias correction needs it)."""
        for group in self.param_groups:
            group["updates"] = self.updates
        return super().state_dict()

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore moments byte for byte (PyTorch's own would cast them to the weights' type)."""
        saved = state_dict["state"]
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        self.updates = int(self.param_groups[0].get("updates", 0))
        self._place = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                index = len(self._place)
                self._place[parameter] = (index, group)
                if index in saved:
                    self._load(parameter, saved[index])

    def _load(self, parameter: nn.Parameter, saved: dict[str, Tensor]) -> None:
        """Copy saved moments into a parameter's own, wherever those are kept."""
        self.local_state(parameter)
        for name, value in self.state[parameter].items():
            value.copy_(saved[name])


def _offset(parameter: Tensor) -> int:
    """Index in the whole weight of the first one in this rank's shard."""
    if not isinstance(parameter, DTensor):
        return 0
    _, start = compute_local_shape_and_global_offset(parameter.shape, parameter.device_mesh, parameter.placements)
    return start[0] * math.prod(parameter.shape[1:])


def _like(parameter: Tensor, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Local moments, sharded as their parameter is and kept where they are (`DTensor.from_local` would move them)."""
    if not isinstance(parameter, DTensor):
        return state
    wrapped = {}
    for name, value in state.items():
        shape = torch.Size((parameter.shape[0], *value.shape[1:]))
        stride = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
        whole = TensorMeta(shape, stride, value.dtype)
        spec = DTensorSpec(parameter.device_mesh, parameter.placements, tensor_meta=whole)
        wrapped[name] = DTensor(value, spec, requires_grad=False)  # pyright: ignore[reportCallIssue]
    return wrapped


def tensor_norm(gradient: Tensor) -> Tensor:
    """[] float32 norm of one tensor, over all its shards where it is sharded; no float32 copy is made."""
    norm = torch.linalg.vector_norm(gradient, dtype=torch.float32)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def clip_factor(norm: Tensor, limit: float) -> Tensor:
    """[] float32 multiplier that bounds a gradient norm by `limit`; NaN where the norm is not finite."""
    norm = norm.float()
    factor = (limit / (norm + 1e-6)).clamp(max=1.0)
    return torch.where(torch.isfinite(norm), factor, torch.nan)
