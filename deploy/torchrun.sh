#!/usr/bin/env bash
# One host, all its GPUs. An interrupted run continues: give the same command again.
#
#   deploy/torchrun.sh DATASET RUN [--set key=value …]
#
# When a rank dies, torchrun starts all of them again (up to RESTARTS times) and they go on from the last checkpoint.
# Ctrl-C and SIGTERM end the run after its step with a checkpoint, for which torchrun waits up to two minutes.
# GPUS, PRESET, ACCUMULATION (a multiple of the GPUs) and RESTARTS may be set in the environment.
set -euo pipefail
if [ $# -lt 2 ]; then
  sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2
  exit 2
fi
dataset=$1 run=$2
shift 2
export NCCL_NVLS_ENABLE="${NCCL_NVLS_ENABLE:-0}"  # NVLink multicast off unless asked for
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}"
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT="${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-120}"
exec torchrun --standalone --nproc-per-node "${GPUS:-gpu}" --max-restarts "${RESTARTS:-3}" \
  -m astrobio.cli train --data "$dataset" --preset "${PRESET:-full_16_8b}" --out "$run" \
  --set training.accumulation="${ACCUMULATION:-32}" \
  --set execution.optimizer=adamw8bit --set execution.weights=bf16 --set execution.gradients=stochastic \
  --set execution.compile=true "$@"
