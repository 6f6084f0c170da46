# SPDX-License-Identifier: Apache-2.0
# A tiny job for tests of the ways to start one. Source it, then: tiny_job FOLDER [STEPS]
# makes FOLDER/job.yaml (executable, with batch directives) and FOLDER/data from the text of this source tree.
# shellcheck shell=bash

tiny_job()
{
    local dir=$1 steps=${2:-4}
    mkdir -p "$dir/text"
    cp "$AP_SRCDIR"/docs/*.md "$AP_SRCDIR"/README.md "$dir/text/" || return 1
    antipode prep --out "$dir/data" --valid-fraction 0.3 --language en "$dir/text" > "$dir/prep.log" 2>&1 || {
        cat "$dir/prep.log"
        return 1
    }
    cat > "$dir/job.yaml" << EOF
#!/usr/bin/env -S antipode run
#SBATCH --job-name=tiny --nodes=2 --ntasks-per-node=1 --time=5 --output=out-%j.txt
#PBS -N tiny
#PBS -l select=2:ncpus=1:mpiprocs=1
name: tiny
model: {preset: tiny-v3}
data: {train: data/train, valid: data/valid, seq_len: 32}
batch: {global_sequences: 4, micro_sequences: 1}
optim: {lr: 1e-3, schedule: constant, warmup_steps: 0}
train_steps: $steps
eval: {every: 0, sequences: 4}
checkpoint: {every: 2}
monitor: {peak_gflops: 100}
threads: 1
EOF
    chmod +x "$dir/job.yaml"
}
