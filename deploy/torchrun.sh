#!/usr/bin/env bash
# One host, all its GPUs; when a rank dies, torchrun restarts all of them.
#
#   deploy/torchrun.sh DATASET RUN [--set key=value …]
#
# GPUS, PRESET and ACCUMULATION may be set in the environment.
set -euo pipefail
dataset=$1 run=$2
shift 2
export NCCL_NVLS_ENABLE="${NCCL_NVLS_ENABLE:-0}"  # NVLink multicast off unless asked for
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}"
exec torchrun --standalone --nproc-per-node "${GPUS:-gpu}" --max-restarts 3 \
  --no-python astrobio train --data "$dataset" --preset "${PRESET:-full_16_8b}" --out "$run" \
  --set training.accumulation="${ACCUMULATION:-32}" \
  --set execution.optimizer=adamw8bit --set execution.weights=bf16 --set execution.gradients=stochastic \
  --set execution.compile=true "$@"
