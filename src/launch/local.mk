# SPDX-License-Identifier: Apache-2.0
noinst_LTLIBRARIES += src/launch/libap_launch.la
src_launch_libap_launch_la_SOURCES = \
  src/launch/launch.c src/launch/launch.h \
  src/launch/rm_local.c src/launch/rm_pbs.c src/launch/rm_slurm.c \
  src/launch/supervise.c
