# SPDX-License-Identifier: Apache-2.0
# Model presets: PKGDATADIR/models, or inputs/models in the source tree.
EXTRA_DIST += inputs/models/README.md
modelsdir = $(pkgdatadir)/models
dist_models_DATA = \
  inputs/models/bench-m.json \
  inputs/models/bench-s.json \
  inputs/models/deepseek-v2-lite.json \
  inputs/models/deepseek-v2.json \
  inputs/models/deepseek-v3.json \
  inputs/models/dense-30m.json \
  inputs/models/moe-64.json \
  inputs/models/quickstart.json \
  inputs/models/tiny-v2.json \
  inputs/models/tiny-v2lite.json \
  inputs/models/tiny-v3.json

# Golden numbers for the installed selftest: PKGDATADIR/golden, or inputs/golden.
goldenv2dir = $(pkgdatadir)/golden/odd_v2
dist_goldenv2_DATA = \
  inputs/golden/odd_v2/config.json \
  inputs/golden/odd_v2/grads.safetensors \
  inputs/golden/odd_v2/logits.npy \
  inputs/golden/odd_v2/loss.json \
  inputs/golden/odd_v2/model.safetensors \
  inputs/golden/odd_v2/routing.npy \
  inputs/golden/odd_v2/token_loss.npy \
  inputs/golden/odd_v2/tokens.npy \
  inputs/golden/odd_v2/weights_step5.safetensors
goldenv3dir = $(pkgdatadir)/golden/odd_v3
dist_goldenv3_DATA = \
  inputs/golden/odd_v3/config.json \
  inputs/golden/odd_v3/grads.safetensors \
  inputs/golden/odd_v3/logits.npy \
  inputs/golden/odd_v3/loss.json \
  inputs/golden/odd_v3/model.safetensors \
  inputs/golden/odd_v3/routing.npy \
  inputs/golden/odd_v3/token_loss.npy \
  inputs/golden/odd_v3/tokens.npy \
  inputs/golden/odd_v3/weights_step5.safetensors

# Job files: runnable where data/quickstart is; installed as examples.
jobsdir = $(pkgdatadir)/jobs
dist_jobs_DATA = inputs/quickstart.yaml inputs/bench-s.yaml inputs/bench-m.yaml inputs/bench-dense-30m.yaml inputs/bench-moe-64.yaml

# Tables of links for antipode routes.
wandir = $(pkgdatadir)/wan
dist_wan_DATA = inputs/wan/aws12.csv inputs/wan/aws8.csv inputs/wan/three-sites.csv
