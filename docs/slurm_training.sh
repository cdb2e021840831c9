#!/usr/bin/env bash
# A training on several machines under SLURM: `sbatch docs/slurm_training.sh`.
#
# One torchrun a machine, one process a GPU. The dataset and --output lie on a file system that all
# machines share. Before the time is over, or when the machines are wanted by others, SLURM sends
# SIGTERM: the training saves and stops, the job is queued again, and the same command goes on.
# An example that has not been run: adapt machines, time and paths to your cluster.
#SBATCH --job-name=jepa-gym
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=B:TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -uo pipefail

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

srun torchrun \
  --nnodes "$SLURM_NNODES" --nproc-per-node "$SLURM_GPUS_ON_NODE" \
  --rdzv-id "$SLURM_JOB_ID" --rdzv-backend c10d --rdzv-endpoint "$first:29500" \
  -m jepa_gym.cli pretrain --config published \
  --data "${DATA:?the dataset folder}" --output "${OUTPUT:?the folder of the run}" \
  --threads 8 &
training=$!

stopped=0
trap 'stopped=1; kill -TERM "$training"' TERM
wait "$training"
status=$?
if [ "$stopped" = 1 ]; then # the signal ended the first wait: let the training save
  wait "$training"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
