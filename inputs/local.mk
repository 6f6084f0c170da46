# SPDX-License-Identifier: Apache-2.0
# Model presets: PKGDATADIR/models, or inputs/models in the source tree.
modelsdir = $(pkgdatadir)/models
dist_models_DATA = \
  inputs/models/bench-m.json \
  inputs/models/bench-s.json \
  inputs/models/deepseek-v2-lite.json \
  inputs/models/deepseek-v2.json \
  inputs/models/deepseek-v3.json \
  inputs/models/quickstart.json \
  inputs/models/tiny-v2.json \
  inputs/models/tiny-v2lite.json \
  inputs/models/tiny-v3.json
