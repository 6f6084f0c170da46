# SPDX-License-Identifier: Apache-2.0
# Benchmarks beside other programs; docs/benchmarks.md says what each is for.
EXTRA_DIST += bench/bf16_loss bench/ckpt_h5py bench/meshes bench/plan bench/routes bench/scaling bench/vs_pytorch bench/torch_model.py \
	bench/torch_step.py bench/golden_make.py

# ---- one command for a bare GPU machine
EXTRA_DIST += bench/gpu

# ---- what the planner predicts beside what is then measured
EXTRA_DIST += bench/predict bench/scrambled bench/uneven
