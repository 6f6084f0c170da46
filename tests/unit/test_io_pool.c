/* SPDX-License-Identifier: Apache-2.0
 * Files that survive failures, the logger, and the thread pool. */
#include "config.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "base/log.h"
#include "base/pool.h"
#include "support/leaks.h"

static char dir[200], path[256];
static struct ap_error err;

static void temp(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/ap-io-XXXXXX", tmp != NULL ? tmp : "/tmp");
    cr_assert_not_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/file", dir);
}

static void cleanup(void)
{
    cr_expect_eq(ap_io_remove_tree(dir, &err), AP_OK);
    cr_expect_not(ap_io_exists(dir));
}

TestSuite(io, .init = temp, .fini = cleanup);

static void expect_content(const char *text)
{
    char *data;
    size_t size;
    cr_assert_eq(ap_io_read_file(path, 1 << 20, &data, &size, &err), AP_OK);
    cr_expect_eq(size, strlen(text));
    cr_expect_str_eq(data, text);
    free(data);
}

AP_TEST(io, durable_write_replaces_and_leaves_nothing_behind)
{
    char tmp[300];
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    cr_assert_eq(ap_io_write_durable(path, "one", 3, &err), AP_OK);
    expect_content("one");
    cr_assert_eq(ap_io_write_durable(path, "second", 6, &err), AP_OK);
    expect_content("second");
    cr_assert_eq(ap_io_write_durable(path, "", 0, &err), AP_OK);
    expect_content("");
    cr_expect_not(ap_io_exists(tmp));
}

/* A file size limit fails the write as a full disk does: part of the data first, then an error. */
AP_TEST(io, failed_write_keeps_the_old_file)
{
    static char big[100000];
    char tmp[300];
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    cr_assert_eq(ap_io_write_durable(path, "old", 3, &err), AP_OK);
    signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit = {50000, RLIM_INFINITY};
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
    ap_status status = ap_io_write_durable(path, big, sizeof big, &err);
    limit.rlim_cur = RLIM_INFINITY;
    setrlimit(RLIMIT_FSIZE, &limit);
    cr_expect_eq(status, AP_ERR_IO);
    cr_expect_not_null(strstr(err.file, "file.tmp"));
    cr_expect_not(ap_io_exists(tmp));
    expect_content("old");
}

AP_TEST(io, full_device_is_no_space)
{
    int fd = open("/dev/full", O_WRONLY);
    cr_assert_geq(fd, 0);
    cr_expect_eq(ap_io_pwrite_all(fd, "x", 1, 0, "/dev/full", &err), AP_ERR_NOSPACE);
    cr_expect_not_null(strstr(err.text, strerror(ENOSPC)));
    close(fd);
}

AP_TEST(io, read_text_refuses_a_nul_byte_and_names_the_file)
{
    char *text = NULL;
    cr_assert_eq(ap_io_write_durable(path, "a\nb", 3, &err), AP_OK);
    cr_assert_eq(ap_io_read_text(path, 100, &text, &err), AP_OK);
    cr_expect_str_eq(text, "a\nb");
    free(text);
    cr_expect_eq(ap_io_read_text(path, 2, &text, &err), AP_ERR_INPUT);
    cr_assert_eq(ap_io_write_durable(path, "a\0b", 3, &err), AP_OK);
    cr_expect_eq(ap_io_read_text(path, 100, &text, &err), AP_ERR_INPUT);
    cr_expect_not_null(strstr(err.text, "NUL byte"));
    cr_expect_str_eq(err.file, path);
}

AP_TEST(io, read_file_refuses_what_is_too_large_missing_or_no_file)
{
    char *data;
    size_t size;
    cr_assert_eq(ap_io_write_durable(path, "12345", 5, &err), AP_OK);
    cr_expect_eq(ap_io_read_file(path, 4, &data, &size, &err), AP_ERR_INPUT);
    cr_assert_eq(ap_io_read_file(path, 5, &data, &size, &err), AP_OK);
    free(data);
    cr_expect_eq(ap_io_read_file("/nonexistent/file", 5, &data, &size, &err), AP_ERR_NOTFOUND);
    cr_expect_str_eq(err.file, "/nonexistent/file");
    cr_expect_neq(ap_io_read_file(dir, 5, &data, &size, &err), AP_OK);
    /* No size of its own: read as a stream. */
    cr_expect_eq(ap_io_read_file("/dev/zero", 100000, &data, &size, &err), AP_ERR_INPUT);
}

AP_TEST(io, map_and_positioned_reads)
{
    struct ap_mapping map;
    char buf[8];
    cr_assert_eq(ap_io_write_durable(path, "0123456789", 10, &err), AP_OK);
    cr_assert_eq(ap_io_map(path, &map, &err), AP_OK);
    cr_expect_eq(map.size, 10);
    cr_expect_eq(map.data[9], '9');
    ap_io_unmap(&map);
    cr_expect_null(map.data);
    ap_io_unmap(&map);
    int fd = open(path, O_RDONLY);
    cr_expect_eq(ap_io_pread_all(fd, buf, 4, 6, path, &err), AP_OK);
    cr_expect_arr_eq(buf, "6789", 4);
    cr_expect_eq(ap_io_pread_all(fd, buf, 5, 6, path, &err), AP_ERR_CORRUPT);
    cr_expect_not_null(strstr(err.text, "ends at byte 10"));
    close(fd);
    cr_assert_eq(ap_io_write_durable(path, "", 0, &err), AP_OK);
    cr_assert_eq(ap_io_map(path, &map, &err), AP_OK);
    cr_expect_eq(map.size, 0);
    cr_expect_neq(ap_io_map(dir, &map, &err), AP_OK);
}

AP_TEST(io, mkdirs_and_remove_tree_stay_inside)
{
    char deep[300], link[300], outside[300];
    snprintf(deep, sizeof deep, "%s/a/b/c", dir);
    cr_assert_eq(ap_io_mkdirs(deep, &err), AP_OK);
    cr_assert_eq(ap_io_mkdirs(deep, &err), AP_OK, "again is fine");
    snprintf(outside, sizeof outside, "%s/kept", dir);
    cr_assert_eq(ap_io_write_durable(outside, "k", 1, &err), AP_OK);
    snprintf(link, sizeof link, "%s/a/link", dir);
    cr_assert_eq(symlink(dir, link), 0);
    snprintf(deep, sizeof deep, "%s/a", dir);
    cr_expect_eq(ap_io_remove_tree(deep, &err), AP_OK);
    cr_expect_not(ap_io_exists(deep));
    cr_expect(ap_io_exists(outside), "a symbolic link is removed, not followed");
    cr_expect_eq(ap_io_remove_tree(deep, &err), AP_OK, "a missing path is fine");
    snprintf(deep, sizeof deep, "%s/kept/x", dir);
    cr_expect_neq(ap_io_mkdirs(deep, &err), AP_OK, "a file in the way");
}

AP_TEST(io, log_file_gets_stamped_lines_and_quiet_ranks_stay_quiet)
{
    cr_assert_eq(ap_log_open(path), 0);
    ap_info("device %d", 3);
    ap_log_setup(AP_LOG_INFO, 2);
    ap_info("not printed by rank 2");
    ap_warn("but this");
    ap_out("nor this\n");
    ap_log_setup(AP_LOG_INFO, -1);
    ap_debug("below the level");
    ap_log_open(NULL);
    ap_info("file closed");
    char *data;
    size_t size;
    cr_assert_eq(ap_io_read_file(path, 10000, &data, &size, &err), AP_OK);
    cr_expect_not_null(strstr(data, "Z device 3\n"));
    cr_expect_not_null(strstr(data, "Z warning: rank 2: but this\n"));
    cr_expect_null(strstr(data, "not printed"));
    cr_expect_null(strstr(data, "nor this"));
    cr_expect_null(strstr(data, "below"));
    cr_expect_null(strstr(data, "closed"));
    free(data);
    cr_expect_eq(ap_log_open("/nonexistent/log"), -1);
}

/* ---- pool ---- */

#define TASKS 1000
struct counts {
    _Atomic int hits[TASKS];
    _Atomic int bad_worker, threads;
    int delay_task;
};

static void count_task(void *ctx, int64_t task, int worker)
{
    struct counts *c = ctx;
    if (worker < 0 || worker >= c->threads)
        atomic_fetch_add(&c->bad_worker, 1);
    if (task == c->delay_task)
        nanosleep(&(struct timespec){0, 2000000}, NULL);
    atomic_fetch_add(&c->hits[task], 1);
}

static void run_many(int threads, int rounds)
{
    static struct counts c;
    struct ap_pool *pool = NULL;
    cr_assert_eq(ap_pool_create(threads, &pool, &err), AP_OK);
    cr_expect_eq(ap_pool_threads(pool), threads);
    memset(&c, 0, sizeof c);
    c.threads = threads;
    long expected = 0, got = 0;
    for (int r = 0; r < rounds; r++) {
        int n = r % 7 == 0 ? 0 : 1 + r * 37 % TASKS;
        c.delay_task = r % 500 == 0 ? n - 1 : -1;
        ap_pool_run(pool, n, count_task, &c);
        expected += n;
        if (r % 300 == 299) /* long enough for the workers to fall asleep */
            nanosleep(&(struct timespec){0, 3000000}, NULL);
    }
    for (int i = 0; i < TASKS; i++)
        got += c.hits[i];
    cr_expect_eq(got, expected);
    cr_expect_eq(c.bad_worker, 0);
    ap_pool_destroy(pool);
}

AP_TEST(pool, every_task_runs_once_on_one_two_and_five_threads)
{
    run_many(1, 200);
    run_many(2, 2000);
    run_many(5, 2000);
}

AP_TEST(pool, run_returns_only_after_the_last_task)
{
    struct ap_pool *pool = NULL;
    static struct counts c;
    cr_assert_eq(ap_pool_create(3, &pool, &err), AP_OK);
    for (int r = 0; r < 50; r++) {
        memset(&c, 0, sizeof c);
        c.threads = 3;
        c.delay_task = r % 4;
        ap_pool_run(pool, 4, count_task, &c);
        for (int i = 0; i < 4; i++)
            cr_assert_eq(c.hits[i], 1);
    }
    ap_pool_destroy(pool);
}

AP_TEST(pool, null_pool_is_serial_and_default_size_is_the_mask)
{
    static struct counts c;
    cpu_set_t set;
    c.threads = 1;
    c.delay_task = -1;
    ap_pool_run(NULL, 5, count_task, &c);
    cr_expect_eq(c.hits[4], 1);
    cr_expect_eq(c.bad_worker, 0);
    cr_expect_eq(ap_pool_threads(NULL), 1);
    ap_pool_destroy(NULL);
    struct ap_pool *pool = NULL;
    cr_assert_eq(sched_getaffinity(0, sizeof set, &set), 0);
    cr_assert_eq(ap_pool_create(0, &pool, &err), AP_OK);
    cr_expect_eq(ap_pool_threads(pool), CPU_COUNT(&set));
    ap_pool_destroy(pool);
    cr_expect_eq(ap_pool_create(100000, &pool, &err), AP_ERR_INPUT);
}
