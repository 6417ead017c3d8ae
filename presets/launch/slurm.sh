#!/usr/bin/env bash
# What each machine of a Slurm job runs to train together with the others. In params.yaml:
#   launch.command: srun --ntasks-per-node=1 bash presets/launch/slurm.sh
#   launch.config: presets/launch/multi-node.yaml
set -euo pipefail
: "${SLURM_GPUS_ON_NODE:?is not set by this job: submit it with --gpus-per-node}"
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
exec accelerate launch --config_file presets/launch/multi-node.yaml \
    --num_machines "$SLURM_NNODES" --machine_rank "$SLURM_NODEID" \
    --num_processes "$((SLURM_NNODES * SLURM_GPUS_ON_NODE))" --main_process_ip "$head" "$@"
