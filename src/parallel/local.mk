# SPDX-License-Identifier: Apache-2.0
# Two libraries: everything that runs without MPI (virtual communicators serve tests and single processes),
# and the MPI implementation, linked into antipode-train only.
noinst_LTLIBRARIES += src/parallel/libap_parallel.la src/parallel/libap_parallel_mpi.la
src_parallel_libap_parallel_la_SOURCES = src/parallel/comm.c src/parallel/comm.h src/parallel/comm_virtual.c \
	src/parallel/comm_echo.c \
	src/parallel/comm_nccl.c src/parallel/comm_nccl.h src/parallel/comm_nccl_impl.h src/parallel/comm_nccl_messages.c \
	src/parallel/nccl_api.c src/parallel/nccl_api.h \
	src/parallel/mesh.c src/parallel/mesh.h src/parallel/mesh_device.c src/parallel/mesh_device.h \
	src/parallel/exchange.c src/parallel/exchange.h \
	src/parallel/zero.c src/parallel/zero.h src/parallel/tree.c src/parallel/tree.h
src_parallel_libap_parallel_la_CFLAGS = $(AM_CFLAGS) -pthread
src_parallel_libap_parallel_mpi_la_SOURCES = src/parallel/comm_mpi.c src/parallel/comm_mpi.h \
	src/parallel/world.c src/parallel/world.h
src_parallel_libap_parallel_mpi_la_CFLAGS = $(AM_CFLAGS) $(MPI_CFLAGS)
src_parallel_libap_parallel_mpi_la_LIBADD = $(MPI_LIBS)
