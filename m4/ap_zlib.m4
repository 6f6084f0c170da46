dnl SPDX-License-Identifier: Apache-2.0
dnl zlib, with which prep reads gzip files (manual pages among them).
AC_DEFUN([AP_WITH_ZLIB], [
  AC_ARG_WITH([zlib], [AS_HELP_STRING([--without-zlib], [prep cannot read gzip files])], [], [with_zlib=auto])
  ap_have_zlib=no
  AS_IF([test "$with_zlib" != no], [
    PKG_CHECK_MODULES([ZLIB], [zlib], [ap_have_zlib=yes],
      [AS_IF([test "$with_zlib" = yes], [AC_MSG_ERROR([--with-zlib: zlib not found (Debian: zlib1g-dev)])])])
  ])
  AS_IF([test $ap_have_zlib = yes], [AC_DEFINE([AP_HAVE_ZLIB], [1], [gzip input of prep])])
  AM_CONDITIONAL([AP_ZLIB], [test $ap_have_zlib = yes])
])
