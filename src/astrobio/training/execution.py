"""How a run uses its hardware; nothing here changes what is learned beyond rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from astrobio.errors import InputError

OptimizerKind = Literal["adamw", "adamw8bit"]
GradientKind = Literal["keep", "stochastic", "backward", "host"]
WeightType = Literal["fp32", "bf16"]
GatherKind = Literal["block", "step"]
ReduceKind = Literal["micro_batch", "step"]


@dataclass(frozen=True)
class ExecutionConfig:
    """Memory, precision and parallelism of a run; `astrobio plan` proposes one that fits.

    Args:
        optimizer: "adamw" keeps two float32 moments a weight, "adamw8bit" two bytes.
        weights: type in which weights are kept; bf16 needs the 8-bit optimizer, which rounds them at random.
        gradients: where they live, see `astrobio.training.gradients`.
        float8: multiply in 8-bit floating point in the large linear layers.
        compile: compile block by block.
        graphs: record blocks of up to 150 million weights as CUDA graphs, on one GPU; they keep a copy of their
            gradients for it. Without a GPU it changes nothing.
        activation_gib: memory for what the blocks keep for the backward; the rest is computed again. 0 keeps nothing
            but the blocks' inputs, None keeps everything.
        gather: where ranks share weights, "block" gathers each block for its forward and again for its backward; "step"
            gathers once a step and keeps all weights whole until its last backward. One rank needs neither.
        reduce: when ranks share gradients, after every "micro_batch" or once a "step", which keeps them whole on each
            rank until its last backward, and needs gather=step.
        shards: ranks that share one copy of weights, gradients and moments; 0 is all ranks, 1 none.
        offload: keep weights and moments in host memory: streamed block by block on one GPU, by FSDP on several.
    """

    optimizer: OptimizerKind = "adamw"
    weights: WeightType = "fp32"
    gradients: GradientKind = "keep"
    float8: bool = False
    compile: bool = False
    graphs: bool = False
    activation_gib: float | None = None
    gather: GatherKind = "block"
    reduce: ReduceKind = "micro_batch"
    shards: int = 0
    offload: bool = False

    @property
    def fixed_shapes(self) -> bool:
        """Whether each new shape of a batch costs something, so that texts had better come in few lengths."""
        return self.compile or self.graphs

    def __post_init__(self) -> None:
        if self.weights == "bf16" and self.optimizer != "adamw8bit":
            raise InputError(
                "execution.weights: bf16 needs execution.optimizer=adamw8bit (it rounds at random; plain AdamW would "
                f"lose small updates), found {self.optimizer}"
            )
        if self.gradients != "keep" and self.optimizer != "adamw8bit":
            raise InputError(
                f"execution.gradients: {self.gradients!r} needs execution.optimizer=adamw8bit, found {self.optimizer}"
            )
        whole = (self.gather, self.optimizer) == ("step", "adamw8bit") and self.gradients in ("keep", "stochastic")
        if self.reduce == "step" and not whole:
            raise InputError(
                "execution.reduce: gradients stay whole between micro-batches where weights do; set "
                "execution.gather=step, execution.optimizer=adamw8bit and execution.gradients to keep or stochastic, "
                f"found {self.gather}, {self.optimizer}, {self.gradients}"
            )
        if self.graphs and self.offload:
            raise InputError("execution.graphs: recorded weights stay where they are; set execution.offload=false")
        if self.activation_gib is not None and self.activation_gib < 0:
            raise InputError(f"execution.activation_gib: expected none or at least 0, found {self.activation_gib}")
        if self.shards < 0:
            raise InputError(f"execution.shards: expected 0 (all ranks) or more, found {self.shards}")
