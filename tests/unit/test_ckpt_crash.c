/* SPDX-License-Identifier: Apache-2.0
 * Death and failure at every system call of a save. The linker routes our own calls (--wrap) through this file,
 * which counts those that change the file system and, at call number N, kills the process before, in the middle
 * of or after it, cuts the power (what was not synced is undone, then SIGKILL), or lets the call fail. N runs from
 * the first call to the last. After each: the newest committed state loads bit for bit, at least as many intact
 * states remain as were kept, nothing is left over, and the next save works. */
#include "config.h"

#include "../support/ckpt_fixture.h"
#include "../support/fewer.h"
#include "../support/leaks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "ckpt/statedir.h"

/* ---- the faults ---- */

enum fault { NONE, KILL_BEFORE, KILL_HALF, KILL_AFTER, POWER_CUT, FAIL_ONCE, FAIL_FROM_HERE, SHORT_WRITES };

static struct {
    enum fault fault;
    int at, error; /* call number from 1; errno for FAIL_* */
    atomic_int calls;
    pthread_mutex_t lock;
    /* Power cut: files written and not synced, renames whose directory was not synced (newest last). */
    char dirty[64][512];
    int dirty_count;
    struct {
        char from[512], to[512];
        char link[64]; /* symbolic link that this rename replaced */
        int exchange;
    } moved[64];
    int moved_count;
} fi = {.lock = PTHREAD_MUTEX_INITIALIZER};

int __real_open(const char *path, int flags, ...);
int __real_mkdir(const char *path, mode_t mode);
ssize_t __real_pwrite(int fd, const void *buf, size_t n, off_t offset);
int __real_fsync(int fd);
int __real_close(int fd);
int __real_rename(const char *from, const char *to);
int __real_renameat2(int fd1, const char *from, int fd2, const char *to, unsigned flags);
int __real_unlink(const char *path);
int __real_unlinkat(int fd, const char *path, int flags);
int __real_symlink(const char *target, const char *path);
int __real_posix_fallocate(int fd, off_t offset, off_t n);
int __real_ftruncate(int fd, off_t n);

int __wrap_open(const char *path, int flags, ...);
int __wrap_mkdir(const char *path, mode_t mode);
ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t offset);
int __wrap_fsync(int fd);
int __wrap_close(int fd);
int __wrap_rename(const char *from, const char *to);
int __wrap_renameat2(int fd1, const char *from, int fd2, const char *to, unsigned flags);
int __wrap_unlink(const char *path);
int __wrap_unlinkat(int fd, const char *path, int flags);
int __wrap_symlink(const char *target, const char *path);
int __wrap_posix_fallocate(int fd, off_t offset, off_t n);
int __wrap_ftruncate(int fd, off_t n);

static void fd_path(int fd, char *buf, size_t size)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, buf, size - 1);
    buf[n > 0 ? n : 0] = '\0';
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;)
        pause();
}

/* The disk after a power cut: un-synced content is gone, un-synced renames have not happened. */
static void cut_power(void)
{
    for (int i = 0; i < fi.dirty_count; i++)
        (void)!truncate(fi.dirty[i], 0);
    for (int i = fi.moved_count - 1; i >= 0; i--) {
        (void)!(fi.moved[i].exchange
                    ? __real_renameat2(AT_FDCWD, fi.moved[i].from, AT_FDCWD, fi.moved[i].to, RENAME_EXCHANGE)
                    : __real_rename(fi.moved[i].to, fi.moved[i].from));
        if (fi.moved[i].link[0] != '\0')
            (void)!__real_symlink(fi.moved[i].link, fi.moved[i].to);
    }
    die();
}

/* Returns 1 if this call has to fail (errno set). */
static int enter(void)
{
    int n = atomic_fetch_add(&fi.calls, 1) + 1;
    if (fi.fault == NONE || n < fi.at)
        return 0;
    if (fi.fault == FAIL_FROM_HERE || (fi.fault == FAIL_ONCE && n == fi.at)) {
        errno = fi.error;
        return 1;
    }
    if (n != fi.at)
        return 0;
    if (fi.fault == KILL_BEFORE)
        die();
    if (fi.fault == POWER_CUT)
        cut_power();
    return 0;
}

static void leave(void)
{
    if ((fi.fault == KILL_AFTER || fi.fault == KILL_HALF) && atomic_load(&fi.calls) >= fi.at)
        die();
}

static void note_dirty(const char *path)
{
    pthread_mutex_lock(&fi.lock);
    int i = 0;
    while (i < fi.dirty_count && strcmp(fi.dirty[i], path) != 0)
        i++;
    if (i == fi.dirty_count && fi.dirty_count < 64)
        snprintf(fi.dirty[fi.dirty_count++], sizeof fi.dirty[0], "%s", path);
    pthread_mutex_unlock(&fi.lock);
}

static void note_synced(const char *path)
{
    pthread_mutex_lock(&fi.lock);
    for (int i = 0; i < fi.dirty_count; i++)
        if (strcmp(fi.dirty[i], path) == 0)
            memmove(fi.dirty[i], fi.dirty[--fi.dirty_count], sizeof fi.dirty[0]);
    size_t n = strlen(path);
    int kept = 0;
    for (int i = 0; i < fi.moved_count; i++) {
        const char *to = fi.moved[i].to;
        int inside = strncmp(to, path, n) == 0 && to[n] == '/' && strchr(to + n + 1, '/') == NULL;
        if (!inside)
            fi.moved[kept++] = fi.moved[i];
    }
    fi.moved_count = kept;
    pthread_mutex_unlock(&fi.lock);
}

static void note_moved(const char *from, const char *to, const char *link, int exchange)
{
    pthread_mutex_lock(&fi.lock);
    if (fi.moved_count < 64) {
        snprintf(fi.moved[fi.moved_count].from, sizeof fi.moved[0].from, "%s", from);
        snprintf(fi.moved[fi.moved_count].to, sizeof fi.moved[0].to, "%s", to);
        snprintf(fi.moved[fi.moved_count].link, sizeof fi.moved[0].link, "%s", link);
        fi.moved[fi.moved_count++].exchange = exchange;
    }
    pthread_mutex_unlock(&fi.lock);
}

int __wrap_open(const char *path, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    if (!(flags & O_CREAT))
        return __real_open(path, flags);
    if (enter())
        return -1;
    int fd = __real_open(path, flags, mode);
    leave();
    return fd;
}

int __wrap_mkdir(const char *path, mode_t mode)
{
    if (enter())
        return -1;
    int rc = __real_mkdir(path, mode);
    leave();
    return rc;
}

ssize_t __wrap_pwrite(int fd, const void *buf, size_t n, off_t offset)
{
    char path[512];
    if (enter())
        return -1;
    if (fi.fault == SHORT_WRITES) { /* every other call interrupted, the rest a part only */
        if (atomic_load(&fi.calls) % 2) {
            errno = EINTR;
            return -1;
        }
        n = n > 1 ? n / 2 : n;
    }
    if (fi.fault == KILL_HALF && atomic_load(&fi.calls) >= fi.at)
        n /= 2;
    ssize_t rc = __real_pwrite(fd, buf, n, offset);
    fd_path(fd, path, sizeof path);
    note_dirty(path);
    leave();
    return rc;
}

int __wrap_fsync(int fd)
{
    char path[512];
    if (enter())
        return -1;
    int rc = __real_fsync(fd);
    fd_path(fd, path, sizeof path);
    note_synced(path);
    leave();
    return rc;
}

int __wrap_close(int fd)
{
    if ((fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY)
        return __real_close(fd);
    if (enter()) {
        int e = errno;
        __real_close(fd);
        errno = e;
        return -1;
    }
    int rc = __real_close(fd);
    leave();
    return rc;
}

int __wrap_rename(const char *from, const char *to)
{
    if (enter())
        return -1;
    char link[64];
    ssize_t n = readlink(to, link, sizeof link - 1);
    link[n > 0 ? n : 0] = '\0';
    int rc = __real_rename(from, to);
    int e = errno;
    if (rc == 0)
        note_moved(from, to, link, 0);
    leave();
    errno = e;
    return rc;
}

int __wrap_renameat2(int fd1, const char *from, int fd2, const char *to, unsigned flags)
{
    if (enter())
        return -1;
    int rc = __real_renameat2(fd1, from, fd2, to, flags);
    int e = errno;
    if (rc == 0)
        note_moved(from, to, "", (flags & RENAME_EXCHANGE) != 0);
    leave();
    errno = e;
    return rc;
}

int __wrap_unlink(const char *path)
{
    if (enter())
        return -1;
    int rc = __real_unlink(path), e = errno;
    leave();
    errno = e;
    return rc;
}

int __wrap_unlinkat(int fd, const char *path, int flags)
{
    if (enter())
        return -1;
    int rc = __real_unlinkat(fd, path, flags), e = errno;
    leave();
    errno = e;
    return rc;
}

int __wrap_symlink(const char *target, const char *path)
{
    if (enter())
        return -1;
    int rc = __real_symlink(target, path);
    leave();
    return rc;
}

int __wrap_posix_fallocate(int fd, off_t offset, off_t n)
{
    if (enter())
        return errno; /* it returns the error */
    int rc = __real_posix_fallocate(fd, offset, n);
    leave();
    return rc;
}

int __wrap_ftruncate(int fd, off_t n)
{
    if (enter())
        return -1;
    int rc = __real_ftruncate(fd, n);
    leave();
    return rc;
}

static void arm(enum fault fault, int at, int error)
{
    fi.fault = fault;
    fi.at = at;
    fi.error = error;
    atomic_store(&fi.calls, 0);
    fi.dirty_count = fi.moved_count = 0;
}

/* ---- the state under test ---- */

#define KEEP 3

/* What the child told before it died. Shared memory: its writes outlive SIGKILL. */
struct told {
    atomic_int calls;
    atomic_int committed; /* version of the last save that returned AP_OK */
};

struct scene {
    char dir[256], model[256]; /* model: the directory that every run starts from */
    struct ap_comm *comm;
    struct told *told;
    int ranks;
    int64_t step; /* saved by the child, in every run */
    int version, best;
    enum fault fault;
    int at, error;
    ap_status status; /* of a save that was to fail */
    char text[2048];
};

static void scene_save(struct vrank *v)
{
    struct scene *s = v->ctx;
    struct ap_ckpt_options opt = {.dir = s->dir, .keep = KEEP};
    struct ap_ckpt_store *store = NULL;
    struct ap_error err = {0};
    if (ap_ckpt_store_open(&opt, v->comm, &store, &err) != AP_OK)
        return;
    ap_comm_barrier(v->comm);
    if (v->comm->rank == 0)
        arm(s->fault, s->at, s->error);
    ap_comm_barrier(v->comm);
    ap_status status = cf_save(store, v->comm, s->step, s->version, CF_EVEN, CF_SMALL, s->best, &err);
    ap_comm_barrier(v->comm);
    if (v->comm->rank == 0) {
        s->told->calls = fi.calls;
        if (status == AP_OK && s->fault == POWER_CUT && s->at == fi.calls + 1) { /* right after it returned */
            s->told->committed = s->version;
            cut_power();
        }
        arm(NONE, 0, 0);
        s->status = status;
        ap_error_format(&err, s->text, sizeof s->text);
        if (status == AP_OK)
            s->told->committed = s->version;
    }
    ap_ckpt_store_close(store);
}

/* Threads without Criterion, for the forked child. */
static void run_ranks(struct scene *s)
{
    struct ap_comm *comms[4];
    struct vrank v[4];
    pthread_t threads[4];
    if (ap_comm_virtual(s->ranks, comms) != AP_OK)
        _exit(9);
    for (int r = 0; r < s->ranks; r++) {
        v[r] = (struct vrank){.comm = comms[r], .ctx = s, .fn = scene_save};
        if (pthread_create(&threads[r], NULL, vrank_main, &v[r]) != 0)
            _exit(9);
    }
    for (int r = 0; r < s->ranks; r++)
        pthread_join(threads[r], NULL);
}

/* Runs the save in a child. Returns 1 if it was killed, 0 if it ended by itself. */
static int child_save(struct scene *s)
{
    pid_t pid = fork();
    cr_assert_geq(pid, 0);
    if (pid == 0) {
        run_ranks(s);
        _exit(0);
    }
    int status;
    cr_assert_eq(waitpid(pid, &status, 0), pid);
    cr_assert(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0, "child status %d", status);
    return WIFSIGNALED(status);
}

static void scene_init(struct scene *s, int ranks, int64_t step, int best)
{
    memset(s, 0, sizeof *s);
    s->ranks = ranks;
    s->step = step;
    s->best = best;
    cr_assert_eq(ap_comm_self(&s->comm), AP_OK);
    s->told = mmap(NULL, sizeof *s->told, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    cr_assert(s->told != MAP_FAILED);
}

/* Copy of a directory, links as links, without syncing anything. */
static void copy_tree(const char *from, const char *to)
{
    DIR *d = opendir(from);
    struct dirent *e;
    cr_assert(d != NULL && (mkdir(to, 0777) == 0 || errno == EEXIST));
    while ((e = readdir(d)) != NULL) {
        char src[600], dst[600], link[64], *data;
        struct stat st;
        size_t size;
        if (e->d_name[0] == '.')
            continue;
        snprintf(src, sizeof src, "%s/%s", from, e->d_name);
        snprintf(dst, sizeof dst, "%s/%s", to, e->d_name);
        cr_assert_eq(lstat(src, &st), 0);
        if (S_ISDIR(st.st_mode)) {
            copy_tree(src, dst);
        } else if (S_ISLNK(st.st_mode)) {
            ssize_t n = readlink(src, link, sizeof link - 1);
            cr_assert_gt(n, 0);
            link[n] = '\0';
            cr_assert_eq(symlink(link, dst), 0);
        } else {
            cr_assert_eq(ap_io_read_file(src, 1 << 24, &data, &size, NULL), AP_OK);
            int fd = open(dst, O_WRONLY | O_CREAT, 0666);
            cr_assert_eq(ap_io_pwrite_all(fd, data, size, 0, dst, NULL), AP_OK);
            close(fd);
            free(data);
        }
    }
    closedir(d);
}

/* Fresh directory with the states 100, 200, 300 (versions 1, 2, 3); 200 is the best, 100 the next to go. */
static void scene_reset(struct scene *s)
{
    if (s->model[0] == '\0') {
        cf_tempdir(s->model, sizeof s->model);
        struct ap_ckpt_store *store = cf_open(s->model, s->comm, KEEP, 0);
        for (int i = 1; i <= 3; i++)
            cr_assert_eq(cf_save(store, s->comm, i * 100, i, CF_EVEN, CF_SMALL, i == 2, NULL), AP_OK);
        ap_ckpt_store_close(store);
    }
    if (s->dir[0] != '\0')
        cr_assert_eq(ap_io_remove_tree(s->dir, NULL), AP_OK);
    cf_tempdir(s->dir, sizeof s->dir);
    copy_tree(s->model, s->dir);
    atomic_store(&s->told->committed, 0);
    s->version = 4;
}

static void scene_free(struct scene *s)
{
    ap_io_remove_tree(s->dir, NULL);
    ap_io_remove_tree(s->model, NULL);
    munmap(s->told, sizeof *s->told);
    ap_comm_destroy(s->comm);
}

/* States of the directory that pass a full check; counts leftovers into *left_p. */
static int intact_states(const char *dir, int *left_p)
{
    DIR *d = opendir(dir);
    struct dirent *e;
    int intact = 0;
    *left_p = 0;
    while (d != NULL && (e = readdir(d)) != NULL) {
        char path[600];
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (ap_statedir_step(path) >= 0)
            intact += ap_ckpt_verify(path, NULL) == AP_OK;
        else if (e->d_name[0] != '.' && strcmp(e->d_name, "LOCK") != 0 && strcmp(e->d_name, "best") != 0)
            (*left_p)++;
    }
    if (d != NULL)
        closedir(d);
    return intact;
}

/* The oracle, after a death: see the head of this file. */
static void check_after(struct scene *s, const char *what)
{
    int64_t step = -1, best = -1;
    int version = -1, left, committed = s->told->committed;
    struct ap_error err = {0};
    struct ap_ckpt_store *store = cf_open(s->dir, s->comm, KEEP, 0); /* the lock died with the child */
    ap_status status = cf_load(store, s->comm, AP_CKPT_LATEST, CF_EVEN, CF_SMALL, &step, &version, &err);
    cr_assert_eq(status, AP_OK, "%s at call %d: %s", what, s->at, err.text);
    cr_expect_eq(ap_ckpt_store_report(store)->skipped, 0, "%s at call %d left a broken state: %s", what, s->at,
                 ap_ckpt_store_report(store)->text);
    if (s->step == 300) /* replaced in place */
        cr_expect(step == 300 && (version == 3 || version == 4), "%s at call %d: step %lld version %d", what, s->at,
                  (long long)step, version);
    else
        cr_expect((step == 300 && version == 3) || (step == s->step && version == 4),
                  "%s at call %d: step %lld version %d", what, s->at, (long long)step, version);
    if (committed == 4)
        cr_expect_eq(version, 4, "%s at call %d: a save that had returned is gone", what, s->at);
    /* The best state is there and is what its name says. */
    status = cf_load(store, s->comm, AP_CKPT_BEST, CF_EVEN, CF_SMALL, &best, &version, &err);
    cr_expect_eq(status, AP_OK, "%s at call %d: best: %s", what, s->at, err.text);
    cr_expect(best == 200 || (s->best && best == s->step), "%s at call %d: best is step %lld", what, s->at,
              (long long)best);
    int intact = intact_states(s->dir, &left);
    cr_expect_geq(intact, KEEP, "%s at call %d: only %d intact states remain", what, s->at, intact);
    cr_expect_eq(left, 0, "%s at call %d: %d leftovers", what, s->at, left);
    cr_assert_eq(cf_save(store, s->comm, 500, 5, CF_EVEN, CF_SMALL, 0, &err), AP_OK, "%s at call %d: next save: %s",
                 what, s->at, err.text);
    cr_assert_eq(cf_load(store, s->comm, AP_CKPT_LATEST, CF_EVEN, CF_SMALL, &step, &version, &err), AP_OK);
    cr_expect(step == 500 && version == 5);
    ap_ckpt_store_close(store);
}

/* From one call to the next that is tried; the faults begin at different ones. */
static int stride(void)
{
    return fewer("calls that fail, 1 in", 1, 4);
}

static int die_everywhere(enum fault fault, int ranks, int64_t step, int best, const char *what)
{
    struct scene s;
    int deaths = 0, next = stride();
    scene_init(&s, ranks, step, best);
    for (s.at = 1 + (int)fault % next;; s.at += next) {
        scene_reset(&s);
        s.fault = fault;
        if (!child_save(&s))
            break;
        deaths++;
        check_after(&s, what);
    }
    cr_expect_eq(s.told->committed, 4, "a save that no fault reached must succeed");
    check_after(&s, "no fault");
    cr_expect_gt(deaths, 15 / next, "%s: only %d calls met", what, deaths);
    fprintf(stderr, "%s, %d ranks: died at %d calls\n", what, ranks, deaths);
    scene_free(&s);
    return deaths;
}

AP_TEST(ckpt_crash, kill_before_every_call, .timeout = 280)
{
    die_everywhere(KILL_BEFORE, 1, 400, 0, "kill before");
    die_everywhere(KILL_BEFORE, 2, 400, 1, "kill before, best");
}

AP_TEST(ckpt_crash, kill_inside_and_after_every_call, .timeout = 280)
{
    die_everywhere(KILL_HALF, 2, 400, 1, "kill half way");
}

AP_TEST(ckpt_crash, kill_while_a_state_is_replaced, .timeout = 280)
{
    die_everywhere(KILL_AFTER, 1, 300, 1, "kill after, replacing");
}

AP_TEST(ckpt_crash, power_cut_before_every_call, .timeout = 280)
{
    die_everywhere(POWER_CUT, 1, 400, 0, "power cut");
    die_everywhere(POWER_CUT, 2, 400, 1, "power cut, best");
    die_everywhere(POWER_CUT, 2, 300, 0, "power cut, replacing");
}

AP_TEST(ckpt_crash, kill_at_random_times, .timeout = 280)
{
    struct scene s;
    int version, deaths = 0;
    int64_t step;
    scene_init(&s, 1, 0, 0);
    scene_reset(&s);
    int shown = 3; /* newest version that was seen or told */
    double t0 = ap_clock_monotonic();
    struct ap_ckpt_store *first = cf_open(s.dir, s.comm, KEEP, 0);
    for (int i = 0; i < 3; i++, shown++)
        cr_assert_eq(cf_save(first, s.comm, (shown + 1) * 100, shown + 1, CF_EVEN, CF_SMALL, 0, NULL), AP_OK);
    ap_ckpt_store_close(first);
    uint64_t span = (uint64_t)((ap_clock_monotonic() - t0) / 3 * 4e6); /* four saves, in microseconds */
    int kills = fewer("kills at random times", 40, 10);
    for (int i = 0; i < kills; i++) {
        pid_t pid = fork();
        cr_assert_geq(pid, 0);
        if (pid == 0) { /* save one state after the other until killed */
            struct ap_ckpt_store *store = cf_open(s.dir, s.comm, KEEP, 0);
            for (int v = shown + 1;; v++)
                if (cf_save(store, s.comm, v * 100, v, CF_EVEN, CF_SMALL, v % 3 == 0, NULL) == AP_OK)
                    s.told->committed = v;
        }
        usleep((useconds_t)(ap_rng_u64(9, AP_RNG_TEST, (uint64_t)i) % (span + 1)));
        kill(pid, SIGKILL);
        cr_assert_eq(waitpid(pid, NULL, 0), pid);
        deaths++;
        struct ap_ckpt_store *store = cf_open(s.dir, s.comm, KEEP, 0);
        cr_assert_eq(cf_load(store, s.comm, AP_CKPT_LATEST, CF_EVEN, CF_SMALL, &step, &version, NULL), AP_OK,
                     "round %d", i);
        cr_expect_eq(version * 100, step);
        cr_expect_geq(version, s.told->committed > shown ? s.told->committed : shown, "round %d", i);
        cr_expect_eq(ap_ckpt_store_report(store)->skipped, 0);
        shown = version;
        ap_ckpt_store_close(store);
    }
    int left;
    cr_expect_geq(intact_states(s.dir, &left), KEEP);
    cr_expect_eq(left, 0);
    cr_expect_gt(shown, 4 + kills / 5, "the children must get somewhere: version %d", shown);
    fprintf(stderr, "%d kills at random times, %d states saved in between\n", deaths, shown - 6);
    scene_free(&s);
}

/* ---- failing calls ---- */

static void fail_everywhere(enum fault fault, int error, ap_status want, const char *what)
{
    struct scene s;
    int failures = 0, passed = 0, next = stride();
    scene_init(&s, 2, 400, 1);
    for (s.at = 1 + (int)fault % next;; s.at += next) {
        int left;
        scene_reset(&s);
        s.fault = fault;
        s.error = error;
        run_ranks(&s);
        if (s.told->calls < s.at)
            break;
        if (s.status == AP_OK)
            passed++; /* the call was one whose failure costs nothing */
        else
            failures++;
        cr_expect(s.status == AP_OK || s.status == want, "%s at call %d: %s: %s", what, s.at, ap_status_name(s.status),
                  s.text);
        if (s.status != AP_OK)
            cr_expect(strstr(s.text, strerror(error)) && strstr(s.text, s.dir), "%s at call %d: %s", what, s.at,
                      s.text);
        if (fault == FAIL_ONCE) {
            char state[512];
            int intact = intact_states(s.dir, &left);
            cr_expect_geq(intact, KEEP, "%s at call %d: only %d intact states", what, s.at, intact);
            snprintf(state, sizeof state, "%s/step-000000000400", s.dir);
            cr_expect(left == 0 || ap_io_exists(state), "%s at call %d: the failed save left files", what, s.at);
        }
        check_after(&s, what);
    }
    cr_expect_eq(s.status, AP_OK);
    cr_expect_gt(failures, 15 / next);
    fprintf(stderr, "%s: %d calls failed the save, %d did not matter\n", what, failures, passed);
    scene_free(&s);
}

AP_TEST(ckpt_crash, no_space_at_every_call, .timeout = 280)
{
    fail_everywhere(FAIL_ONCE, ENOSPC, AP_ERR_NOSPACE, "ENOSPC once");
    fail_everywhere(FAIL_FROM_HERE, ENOSPC, AP_ERR_NOSPACE, "ENOSPC from there on");
}

AP_TEST(ckpt_crash, input_output_error_at_every_call, .timeout = 280)
{
    fail_everywhere(FAIL_ONCE, EIO, AP_ERR_IO, "EIO once");
    fail_everywhere(FAIL_FROM_HERE, EROFS, AP_ERR_ENV, "read-only from there on");
}

AP_TEST(ckpt_crash, short_and_interrupted_writes_cost_nothing)
{
    struct scene s;
    int64_t step;
    int version;
    scene_init(&s, 2, 400, 1);
    scene_reset(&s);
    s.fault = SHORT_WRITES;
    run_ranks(&s);
    cr_assert_eq(s.status, AP_OK, "%s", s.text);
    struct ap_ckpt_store *store = cf_open(s.dir, s.comm, KEEP, 0);
    cr_assert_eq(cf_load(store, s.comm, AP_CKPT_LATEST, CF_EVEN, CF_SMALL, &step, &version, NULL), AP_OK);
    cr_expect(step == 400 && version == 4);
    ap_ckpt_store_close(store);
    scene_free(&s);
}

/* ---- a real full disk and a real read-only one ---- */

static int write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return -1;
    ssize_t n = write(fd, text, strlen(text));
    close(fd);
    return n == (ssize_t)strlen(text) ? 0 : -1;
}

/* A private mount namespace; as an ordinary user by way of a user namespace. Returns NULL or the reason. */
static const char *own_mounts(void)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    char map[64];
    if (unshare(CLONE_NEWNS | (uid != 0 ? CLONE_NEWUSER : 0)) != 0)
        return "no mount namespace";
    if (uid != 0) {
        snprintf(map, sizeof map, "0 %d 1", (int)uid);
        if (write_text("/proc/self/setgroups", "deny") != 0 || write_text("/proc/self/uid_map", map) != 0)
            return "no user map";
        snprintf(map, sizeof map, "0 %d 1", (int)gid);
        if (write_text("/proc/self/gid_map", map) != 0)
            return "no group map";
    }
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 ? NULL : "mounts stay shared";
}

AP_TEST(ckpt_crash, full_and_read_only_file_systems)
{
    char dir[256], text[2048], fill[300];
    struct ap_comm *comm;
    struct ap_error err = {0};
    int64_t step = -1;
    int version = -1, saved = 0, left;
    cf_tempdir(dir, sizeof dir);
    const char *no = own_mounts();
    if (no == NULL && mount("tmpfs", dir, "tmpfs", 0, "size=640k") != 0)
        no = "no tmpfs";
    if (no != NULL)
        cr_skip_test("this host allows no private mounts: %s (%s)", no, strerror(errno));
    cr_assert_eq(ap_comm_self(&comm), AP_OK);
    struct ap_ckpt_store *store = cf_open(dir, comm, 100, 0);
    for (int i = 1; i < 50; i++) { /* until it is full */
        ap_status status = cf_save(store, comm, i, i, CF_EVEN, CF_SMALL, 0, &err);
        if (status != AP_OK) {
            ap_error_format(&err, text, sizeof text);
            cr_expect_eq(status, AP_ERR_NOSPACE, "%s", text);
            cr_expect(strstr(text, "MiB left") && strstr(text, "earlier checkpoints are intact") && strstr(text, dir),
                      "%s", text);
            break;
        }
        saved = i;
    }
    cr_assert(saved >= 2 && saved < 49, "%d states fit", saved);
    cr_expect_eq(intact_states(dir, &left), saved);
    cr_expect_eq(left, 0);
    ap_ckpt_store_close(store);
    /* Full to the last byte: opening and resuming work all the same. */
    snprintf(fill, sizeof fill, "%s/fill", dir);
    int fd = open(fill, O_CREAT | O_WRONLY, 0666);
    char block[4096] = {1};
    while (write(fd, block, sizeof block) > 0)
        ;
    cr_assert_eq(close(fd), 0);
    store = cf_open(dir, comm, 100, 0);
    cr_assert_eq(cf_load(store, comm, AP_CKPT_LATEST, CF_EVEN, CF_SMALL, &step, &version, &err), AP_OK, "%s", err.text);
    cr_expect(step == saved && version == saved);
    cr_assert_eq(unlink(fill), 0);
    ap_ckpt_store_close(store);
    /* Read-only: a writer is told so, a reader reads. */
    cr_assert_eq(mount(NULL, dir, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    struct ap_ckpt_options opt = {.dir = dir, .keep = 3};
    store = NULL;
    cr_expect_eq(ap_ckpt_store_open(&opt, comm, &store, &err), AP_ERR_ENV);
    cr_expect(strstr(err.text, "Read-only file system"), "%s", err.text);
    store = cf_open(dir, comm, 3, 1);
    cr_assert_eq(cf_load(store, comm, AP_CKPT_LATEST, CF_EVEN, CF_SMALL, &step, &version, &err), AP_OK);
    cr_expect(step == saved && version == saved);
    ap_ckpt_store_close(store);
    cr_assert_eq(umount2(dir, MNT_DETACH), 0);
    ap_comm_destroy(comm);
}
