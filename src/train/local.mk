# SPDX-License-Identifier: Apache-2.0
noinst_LTLIBRARIES += src/train/libap_train.la
src_train_libap_train_la_SOURCES =
src_train_libap_train_la_CFLAGS = $(AM_CFLAGS) $(YYJSON_CFLAGS) -pthread
src_train_libap_train_la_LIBADD = $(YYJSON_LIBS) -lpthread -lm

# loader
src_train_libap_train_la_SOURCES += \
  src/train/data.c src/train/data.h \
  src/train/data_order.c src/train/data_order.h

# trainer
src_train_libap_train_la_SOURCES += \
  src/train/batches.c src/train/batches.h \
  src/train/environment.c src/train/environment.h \
  src/train/evaluate.c src/train/evaluate.h \
  src/train/optimizer.c src/train/optimizer.h \
  src/train/results.c src/train/results.h \
  src/train/runner.c src/train/runner.h \
  src/train/stage.c src/train/stage.h \
  src/train/weights_hash.c src/train/weights_hash.h \
  src/train/peak.c src/train/peak.h \
  src/train/router_bias.c src/train/router_bias.h \
  src/train/schedule.c src/train/schedule.h \
  src/train/signals.c src/train/signals.h \
  src/train/step_mark.c src/train/step_mark.h \
  src/train/tracing.c src/train/tracing.h \
  src/train/trainer.c src/train/trainer.h src/train/trainer_impl.h \
  src/train/trainer_loop.c src/train/trainer_plan.c src/train/trainer_resume.c src/train/trainer_setup.c src/train/trainer_step.c \
  src/train/verdict.c \
  src/train/zscore.c src/train/zscore.h

# golden numbers
src_train_libap_train_la_SOURCES += src/train/golden.c src/train/golden.h

# benchmark of a step
src_train_libap_train_la_SOURCES += src/train/bench_step.c src/train/bench_step.h \
  src/train/group_speed.c src/train/group_speed.h \
  src/train/rank_speed.c src/train/rank_speed.h
