# SPDX-License-Identifier: Apache-2.0
noinst_LTLIBRARIES += src/train/libap_train.la
src_train_libap_train_la_SOURCES =
src_train_libap_train_la_LIBADD = -lm

# loader
src_train_libap_train_la_SOURCES += \
  src/train/data.c src/train/data.h \
  src/train/data_order.c src/train/data_order.h

# trainer
src_train_libap_train_la_SOURCES += \
  src/train/optimizer.c src/train/optimizer.h \
  src/train/schedule.c src/train/schedule.h
