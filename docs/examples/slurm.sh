#!/bin/bash
#SBATCH --job-name=rollout
#SBATCH --nodes=8
#SBATCH --gpus-per-node=8
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=SIGTERM@300
# 64 GPUs: one launcher on each node, which starts eight processes. The output folder is one that all nodes see.
# SIGTERM five minutes before the end: the run keeps its state, and RUN=cats_00001 sbatch slurm.sh goes on with it.
set -euo pipefail

WORKFLOW=${WORKFLOW:-workflow.json}
OUTPUT=${OUTPUT:-$SLURM_SUBMIT_DIR/output}
MASTER=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

exec srun torchrun \
    --nnodes "$SLURM_JOB_NUM_NODES" \
    --nproc-per-node 8 \
    --rdzv-id "$SLURM_JOB_ID" \
    --rdzv-backend c10d \
    --rdzv-endpoint "$MASTER:29500" \
    -m comfyui_rollout run "$WORKFLOW" --output "$OUTPUT" --no-wait ${RUN:+--resume "$RUN"}
