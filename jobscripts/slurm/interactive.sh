#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Train inside an allocation that salloc gave:
#   salloc --nodes=2 --ntasks-per-node=2 --time=30 jobscripts/slurm/interactive.sh inputs/quickstart.yaml
# Without `antipode run`: srun starts the ranks itself, and Open MPI finds its peers through PMIx.
set -eu
job=${1:?usage: salloc ... interactive.sh JOB.yaml [--set KEY=VALUE]...}
shift
exec srun --mpi=pmix --kill-on-bad-exit=1 antipode train "$job" "$@"
