# SPDX-License-Identifier: Apache-2.0
# Made by `antipode generate-docs` from the tables of the program; tests/cli/docs_test.sh keeps them so.
dist_man_MANS += \
  man/antipode-bench.1 man/antipode-ckpt.1 man/antipode-doctor.1 man/antipode-eval.1 man/antipode-help.1 man/antipode-job.5 \
  man/antipode-plan.1 man/antipode-prep.1 man/antipode-probe.1 man/antipode-routes.1 man/antipode-run.1 man/antipode-schema.1 man/antipode-selftest.1 \
  man/antipode-train.1 man/antipode.1
.PHONY: update-docs
update-docs: antipode$(EXEEXT)
	./antipode$(EXEEXT) generate-docs $(srcdir)
