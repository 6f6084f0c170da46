dnl SPDX-License-Identifier: Apache-2.0
dnl Checks of Antipode's configure: compiler mode, sanitizers, required and optional libraries.
dnl Rule for every optional package: --without-X leaves it out, --with-X asked for and missing is an
dnl error, neither uses it when found.

AC_DEFUN([AP_C17], [
  AC_LANG_PUSH([C])
  ap_save_CFLAGS=$CFLAGS
  CFLAGS="$CFLAGS -std=gnu17"
  AC_CACHE_CHECK([whether $CC takes -std=gnu17], [ap_cv_c17],
    [AC_COMPILE_IFELSE([AC_LANG_PROGRAM([], [])], [ap_cv_c17=yes], [ap_cv_c17=no])])
  CFLAGS=$ap_save_CFLAGS
  AS_IF([test "$ap_cv_c17" = yes], [AP_CFLAGS="-std=gnu17"],
    [AC_MSG_ERROR([a C17 compiler is needed])])
  AC_LANG_POP([C])
  AC_SUBST([AP_CFLAGS])
])

dnl --enable-sanitizer[=address,undefined]
AC_DEFUN([AP_ENABLE_SANITIZER], [
  AC_ARG_ENABLE([sanitizer],
    [AS_HELP_STRING([--enable-sanitizer@<:@=LIST@:>@], [build with sanitizers (address,undefined)])],
    [], [enable_sanitizer=no])
  AS_CASE([$enable_sanitizer], [no], [], [yes], [ap_san=address,undefined], [ap_san=$enable_sanitizer])
  AS_IF([test -n "$ap_san"], [
    ap_save_CFLAGS=$CFLAGS
    CFLAGS="$CFLAGS -fsanitize=$ap_san"
    AC_LINK_IFELSE([AC_LANG_PROGRAM([], [])], [],
      [AC_MSG_ERROR([--enable-sanitizer=$ap_san: this compiler does not link with it])])
    CFLAGS=$ap_save_CFLAGS
    AP_CFLAGS="$AP_CFLAGS -fsanitize=$ap_san -fno-omit-frame-pointer -fno-sanitize-recover=undefined"
    AP_LDFLAGS="$AP_LDFLAGS -fsanitize=$ap_san"
    AC_DEFINE_UNQUOTED([AP_SANITIZER], ["$ap_san"], [sanitizers of this build])
  ])
  AC_SUBST([AP_LDFLAGS])
])

dnl The commit this tree was configured at, for the record of a run; "release" outside of a checkout.
AC_DEFUN([AP_COMMIT], [
  ap_commit=`(cd "$srcdir" && git rev-parse --short=12 HEAD) 2>/dev/null || echo release`
  AC_DEFINE_UNQUOTED([AP_GIT_COMMIT], ["$ap_commit"], [commit of the sources at configure time])
])

AC_DEFUN([AP_WARNINGS], [
  AC_ARG_ENABLE([werror], [AS_HELP_STRING([--enable-werror], [make warnings errors])], [], [enable_werror=no])
  AP_CFLAGS="$AP_CFLAGS -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wno-missing-field-initializers"
  AS_IF([test "$enable_werror" = yes], [AP_CFLAGS="$AP_CFLAGS -Werror"])
])

dnl AP_PKG(VAR, modules, header-or-empty, Debian package)
AC_DEFUN([AP_PKG], [PKG_CHECK_MODULES([$1], [$2], [],
  [AC_MSG_ERROR([$2 not found (Debian: $3)])])])

AC_DEFUN([AP_REQUIRED_LIBS], [
  AP_PKG([FYAML], [libfyaml >= 0.8], [libfyaml-dev])
  AP_PKG([YYJSON], [yyjson], [libyyjson-dev])
  AP_PKG([XXHASH], [libxxhash >= 0.8], [libxxhash-dev])
  AP_PKG([ZSTD], [libzstd >= 1.5], [libzstd-dev])
  AP_PKG([HWLOC], [hwloc >= 2], [libhwloc-dev])
  AP_PKG([HDF5], [hdf5-serial >= 1.14], [libhdf5-dev])
  AC_CHECK_HEADER([Random123/philox.h], [], [AC_MSG_ERROR([Random123/philox.h not found (Debian: librandom123-dev)])])
])

AC_DEFUN([AP_MPI], [
  PKG_CHECK_MODULES([MPI], [ompi-c >= 5], [], [AC_MSG_ERROR([Open MPI 5 not found (Debian: libopenmpi-dev)])])
])

AC_DEFUN([AP_WITH_ONEDNN], [
  AC_ARG_WITH([onednn], [AS_HELP_STRING([--without-onednn], [plain reference kernels only])], [], [with_onednn=auto])
  ap_have_onednn=no
  AS_IF([test "$with_onednn" != no], [
    AC_CHECK_HEADER([dnnl.h], [AC_CHECK_LIB([dnnl], [dnnl_matmul_primitive_desc_create],
      [ap_have_onednn=yes; DNNL_LIBS=-ldnnl])])
    AS_IF([test "$ap_have_onednn$with_onednn" = noyes], [AC_MSG_ERROR([--with-onednn: dnnl.h or libdnnl not found (Debian: libdnnl-dev)])])
  ])
  AS_IF([test $ap_have_onednn = yes], [AC_DEFINE([AP_HAVE_ONEDNN], [1], [oneDNN GEMM on CPUs])])
  AC_SUBST([DNNL_LIBS])
  AM_CONDITIONAL([AP_ONEDNN], [test $ap_have_onednn = yes])
])

AC_DEFUN([AP_WITH_CRITERION], [
  AC_ARG_WITH([criterion], [AS_HELP_STRING([--without-criterion], [leave out the unit tests])], [], [with_criterion=auto])
  ap_have_criterion=no
  AS_IF([test "$with_criterion" != no], [
    PKG_CHECK_MODULES([CRITERION], [criterion], [ap_have_criterion=yes],
      [AS_IF([test "$with_criterion" = yes], [AC_MSG_ERROR([--with-criterion: criterion not found (Debian: libcriterion-dev)])])])
  ])
  AM_CONDITIONAL([AP_CRITERION], [test $ap_have_criterion = yes])
])

dnl --enable-fuzzer: libFuzzer targets (clang); without it the corpora are replayed by a plain main.
AC_DEFUN([AP_ENABLE_FUZZER], [
  AC_ARG_ENABLE([fuzzer], [AS_HELP_STRING([--enable-fuzzer], [build libFuzzer targets (needs clang)])], [], [enable_fuzzer=no])
  AS_IF([test "$enable_fuzzer" = yes], [
    ap_save_CFLAGS=$CFLAGS
    CFLAGS="$CFLAGS -fsanitize=fuzzer"
    AC_LINK_IFELSE([AC_LANG_SOURCE([int LLVMFuzzerTestOneInput(void); int LLVMFuzzerTestOneInput(void) { return 0; }])], [],
      [AC_MSG_ERROR([--enable-fuzzer: $CC does not link with -fsanitize=fuzzer (Debian: clang libclang-rt-dev, CC=clang)])])
    CFLAGS=$ap_save_CFLAGS
    AP_CFLAGS="$AP_CFLAGS -fsanitize=fuzzer-no-link"
    AP_LDFLAGS="$AP_LDFLAGS -fsanitize=fuzzer-no-link"
  ])
  AM_CONDITIONAL([AP_FUZZER], [test "$enable_fuzzer" = yes])
])

dnl Where bash-completion files go: below datadir, so that DESTDIR and a user's prefix work.
AC_DEFUN([AP_BASH_COMPLETION], [
  AC_ARG_WITH([bash-completion-dir],
    [AS_HELP_STRING([--with-bash-completion-dir=DIR], [bash completion file (default DATADIR/bash-completion/completions; no: none)])],
    [], [with_bash_completion_dir=yes])
  AS_CASE([$with_bash_completion_dir],
    [yes], [bashcompletiondir='${datadir}/bash-completion/completions'],
    [no], [bashcompletiondir=],
    [bashcompletiondir=$with_bash_completion_dir])
  AC_SUBST([bashcompletiondir])
  AM_CONDITIONAL([AP_COMPLETION], [test "$with_bash_completion_dir" != no])
])

AC_DEFUN([AP_SUMMARY], [
  AC_MSG_NOTICE([antipode $PACKAGE_VERSION: oneDNN $ap_have_onednn, CUDA $ap_have_cuda, NCCL $ap_have_nccl, Criterion $ap_have_criterion, sanitizer $enable_sanitizer])
])
