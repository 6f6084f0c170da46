# SPDX-License-Identifier: Apache-2.0
# Files for package managers, module systems and shells.
EXTRA_DIST += contrib/modulefile/antipode.lua.in contrib/spack/repo.yaml contrib/spack/packages/antipode/package.py
EXTRA_DIST += quickstart containers/packages.run containers/packages.check containers/packages.corpus \
  containers/root.sh containers/enter.sh containers/build.sh containers/corpus.sh \
  containers/Containerfile containers/antipode.def containers/runtime_packages.sh
EXTRA_DIST += jobscripts .clang-format .clang-tidy

# The module file holds the final paths, which only make knows.
modulefiledir = $(pkgdatadir)/modulefiles/antipode
nodist_modulefile_DATA = contrib/modulefile/$(VERSION).lua
contrib/modulefile/$(VERSION).lua: contrib/modulefile/antipode.lua.in Makefile
	$(AM_V_GEN)$(MKDIR_P) contrib/modulefile && sed -e 's|@VERSION@|$(VERSION)|g' -e 's|@bindir@|$(bindir)|g' \
	  -e 's|@mandir@|$(mandir)|g' $(srcdir)/contrib/modulefile/antipode.lua.in > $@.tmp && mv $@.tmp $@
CLEANFILES += contrib/modulefile/$(VERSION).lua

# bash-completion looks here; --with-bash-completion-dir changes it.
if AP_COMPLETION
completiondir = @bashcompletiondir@
dist_completion_DATA = contrib/completion/antipode
endif
