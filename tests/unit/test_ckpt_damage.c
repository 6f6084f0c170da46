/* SPDX-License-Identifier: Apache-2.0
 * Damage to any byte of any file of a state: it is never loaded, never crashes the reader, and the newest intact
 * state is loaded instead, bit for bit. AP_CKPT_DAMAGE=N sets the number of random injuries (default 500). */
#include "config.h"

#include "../support/ckpt_fixture.h"
#include "../support/fewer.h"
#include "../support/leaks.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "ckpt/reader.h"

#define RANKS  2
#define STATES 3

static void save_states(struct vrank *v)
{
    struct ap_ckpt_options opt = {.dir = v->ctx, .keep = STATES};
    struct ap_ckpt_store *store = NULL;
    VCHECK(v, ap_ckpt_store_open(&opt, v->comm, &store, NULL) == AP_OK);
    for (int i = 1; i <= STATES && store != NULL; i++)
        VCHECK(v, cf_save(store, v->comm, i * 100, i, i % 2 ? CF_COLUMNS : CF_EVEN, CF_SMALL, 0, NULL) == AP_OK);
    ap_ckpt_store_close(store);
}

struct expect {
    const char *dir;
    int64_t step; /* -1: all lost */
    int skipped;
    int read_only;
};

static void load_expected(struct vrank *v)
{
    struct expect *x = v->ctx;
    struct ap_ckpt_options opt = {.dir = x->dir, .keep = STATES, .read_only = x->read_only};
    struct ap_ckpt_store *store = NULL;
    struct ap_error err = {0};
    int64_t step = -1;
    int version = -1;
    VCHECK(v, ap_ckpt_store_open(&opt, v->comm, &store, NULL) == AP_OK);
    if (store == NULL)
        return;
    ap_status status = cf_load(store, v->comm, AP_CKPT_LATEST, CF_EVEN, CF_SMALL, &step, &version, &err);
    if (x->step < 0) {
        VCHECK(v, status == AP_ERR_LOST);
    } else {
        VCHECK(v, status == AP_OK);
        VCHECK(v, step == x->step);
        VCHECK(v, version == (int)(x->step / 100)); /* -2 would mean wrong bits */
    }
    VCHECK(v, ap_ckpt_store_report(store)->skipped == x->skipped);
    VCHECK(v, ap_ckpt_store_report(store)->newest_step == STATES * 100);
    VCHECK(v, x->skipped == 0 || strstr(ap_ckpt_store_report(store)->text, "step 300 passed over") != NULL);
    ap_ckpt_store_close(store);
}

static void state_file(const char *dir, int state, int file, char *buf, size_t size)
{
    if (file == RANKS)
        snprintf(buf, size, "%s/step-%012d/manifest.json", dir, state * 100);
    else
        snprintf(buf, size, "%s/step-%012d/rank-%05d.h5", dir, state * 100, file);
}

static uint64_t rnd(uint64_t *at, uint64_t below)
{
    return ap_rng_u64(2026, AP_RNG_TEST, (*at)++) % below;
}

static void put(const char *path, const void *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    cr_assert_geq(fd, 0);
    cr_assert_eq(ap_io_pwrite_all(fd, data, size, 0, path, NULL), AP_OK);
    cr_assert_eq(close(fd), 0);
}

enum { FLIP_BIT, FLIP_BYTE, ZERO_PAGE, CUT_RANDOM, CUT_0, CUT_1, CUT_LAST, GROW, REMOVE, STALE, KINDS };

/* Injure a file whose content is data. Returns 0 if this injury would change nothing. */
static int injure(const char *dir, int state, int file, int kind, const char *path, char *data, size_t size,
                  uint64_t *at)
{
    size_t offset = rnd(at, size), n = size;
    char *copy = malloc(size + 4096);
    cr_assert_not_null(copy);
    memcpy(copy, data, size);
    switch (kind) {
    case FLIP_BIT:
        copy[offset] = (char)(copy[offset] ^ 1 << rnd(at, 8));
        break;
    case FLIP_BYTE:
        copy[offset] = (char)(copy[offset] + 1 + (char)rnd(at, 255));
        break;
    case ZERO_PAGE:
        memset(copy + offset / 512 * 512, 0, size - offset / 512 * 512 < 512 ? size - offset / 512 * 512 : 512);
        break;
    case CUT_RANDOM:
        n = offset;
        break;
    case CUT_0:
    case CUT_1:
        n = kind == CUT_1;
        break;
    case CUT_LAST:
        n = size - 1;
        break;
    case GROW:
        memset(copy + size, (int)rnd(at, 256), 512);
        n = size + 512;
        break;
    case STALE: { /* the file of another state under this name */
        char other[512], *text;
        state_file(dir, state == 1 ? 2 : 1, file, other, sizeof other);
        free(copy);
        cr_assert_eq(ap_io_read_file(other, 1 << 24, &text, &n, NULL), AP_OK);
        copy = text;
        break;
    }
    default:
        break;
    }
    int changed = n != size || memcmp(copy, data, size) != 0 || kind == REMOVE;
    if (kind == REMOVE)
        cr_assert_eq(unlink(path), 0);
    else if (changed)
        put(path, copy, n);
    free(copy);
    return changed;
}

AP_TEST(ckpt_damage, never_loaded_and_the_newest_intact_state_is, .timeout = 280)
{
    const char *text = getenv("AP_CKPT_DAMAGE");
    int rounds = text != NULL ? (int)strtol(text, NULL, 10) : fewer("injuries", 500, 100), done = 0,
        by_kind[KINDS] = {0};
    char dir[256];
    uint64_t at = 0;
    cf_tempdir(dir, sizeof dir);
    vranks_run(RANKS, save_states, dir);
    fflush(stderr);
    int saved = dup(2), null = open("/dev/null", O_WRONLY);
    cr_assert(saved >= 0 && null >= 0);
    dup2(null, 2); /* hundreds of expected warnings */
    for (int i = 0; i < rounds; i++) {
        struct expect x = {.dir = dir, .step = STATES * 100, .read_only = 1};
        struct injured {
            char path[512], *data;
            size_t size;
        } hurt[STATES];
        /* Mostly the newest state, sometimes the newest two, all, or an older one. */
        int kind = i % KINDS, pattern = (int)rnd(&at, 8), count = 0;
        for (int s = STATES; s >= 1; s--) {
            int hit = pattern < 5 ? s == STATES : pattern == 5 ? s >= STATES - 1 : pattern == 6 ? 1 : s == 1;
            if (!hit)
                continue;
            int file = (int)rnd(&at, RANKS + 1);
            struct injured *h = &hurt[count];
            state_file(dir, s, file, h->path, sizeof h->path);
            cr_assert_eq(ap_io_read_file(h->path, 1 << 24, &h->data, &h->size, NULL), AP_OK);
            if (injure(dir, s, file, kind, h->path, h->data, h->size, &at)) {
                by_kind[kind]++;
                if (x.step == s * 100) {
                    x.step = s > 1 ? (s - 1) * 100 : -1;
                    x.skipped++;
                }
            }
            count++;
        }
        vranks_run(RANKS, load_expected, &x);
        for (int h = 0; h < count; h++) {
            put(hurt[h].path, hurt[h].data, hurt[h].size);
            free(hurt[h].data);
        }
        done++;
    }
    dup2(saved, 2);
    close(saved);
    close(null);
    for (int k = 0; k < KINDS; k++)
        cr_expect_gt(by_kind[k], rounds / KINDS / 2, "injury %d happened only %d times", k, by_kind[k]);
    fprintf(stderr, "%d injuries, every one noticed\n", done);
    struct expect x = {.dir = dir, .step = STATES * 100, .read_only = 1};
    vranks_run(RANKS, load_expected, &x);
}

AP_TEST(ckpt_damage, every_byte_of_a_small_state_counts, .timeout = 280)
{
    /* One tensor, one rank: flip each byte of both files in turn. */
    char dir[256];
    struct ap_comm *comm;
    float x[8] = {1, 2, 3, 4, 5, 6, 7, 8}, y[8];
    struct ap_named_set set = {0};
    struct ap_named t = {.name = "param/w", .dtype = AP_F32, .ndim = 1, .shape = {8}, .end = 8, .data = x};
    char *meta, *data;
    int64_t step;
    size_t size;
    static const char *files[] = {"manifest.json", "rank-00000.h5"};
    cf_tempdir(dir, sizeof dir);
    cr_assert_eq(ap_comm_self(&comm), AP_OK);
    cr_assert_eq(ap_named_set_add(&set, &t, NULL), AP_OK);
    struct ap_ckpt_store *store = cf_open(dir, comm, 2, 0);
    cr_assert_eq(ap_ckpt_save(store, 1, &set, "{}", 0, NULL), AP_OK);
    ap_ckpt_store_close(store);
    store = cf_open(dir, comm, 2, 1);
    set.list[0].data = y;
    int saved = dup(2), null = open("/dev/null", O_WRONLY);
    dup2(null, 2);
    int loaded = 0;
    size_t every = (size_t)fewer("flipped bytes, 1 in", 1, 5);
    for (int f = 0; f < 2; f++) {
        char path[512];
        snprintf(path, sizeof path, "%s/step-000000000001/%s", dir, files[f]);
        cr_assert_eq(ap_io_read_file(path, 1 << 24, &data, &size, NULL), AP_OK);
        int fd = open(path, O_WRONLY);
        for (size_t i = 0; i < size; i += every) {
            char c = (char)(data[i] ^ (1 << i % 8));
            cr_assert_eq(pwrite(fd, &c, 1, (off_t)i), 1);
            ap_status status = ap_ckpt_load(store, AP_CKPT_LATEST, &set, &meta, &step, NULL);
            if (status == AP_OK) {
                loaded++;
                free(meta);
            }
            cr_assert_eq(pwrite(fd, data + i, 1, (off_t)i), 1);
        }
        close(fd);
        free(data);
    }
    dup2(saved, 2);
    cr_expect_eq(loaded, 0, "%d flipped bytes went unnoticed", loaded);
    cr_assert_eq(ap_ckpt_load(store, AP_CKPT_LATEST, &set, &meta, &step, NULL), AP_OK);
    cr_expect(memcmp(x, y, sizeof x) == 0);
    free(meta);
    ap_ckpt_store_close(store);
    ap_named_set_clear(&set);
    ap_comm_destroy(comm);
}

AP_TEST(ckpt_damage, damaged_state_is_set_aside_and_named)
{
    char dir[256], path[512], text[64];
    uint64_t at = 7;
    char *data;
    size_t size;
    struct stat st;
    struct expect x = {.step = 200, .skipped = 1};
    cf_tempdir(dir, sizeof dir);
    x.dir = dir;
    vranks_run(RANKS, save_states, dir);
    state_file(dir, 3, 1, path, sizeof path);
    cr_assert_eq(ap_io_read_file(path, 1 << 24, &data, &size, NULL), AP_OK);
    cr_assert(injure(dir, 3, 1, FLIP_BIT, path, data, size, &at));
    free(data);
    snprintf(path, sizeof path, "%s/step-000000000300", dir);
    struct ap_error err = {0};
    cr_expect_eq(ap_ckpt_verify(path, &err), AP_ERR_CORRUPT);
    cr_expect(strstr(err.file, "rank-00001.h5"), "%s", err.file);
    vranks_run(RANKS, load_expected, &x);
    snprintf(path, sizeof path, "%s/step-000000000300.corrupt", dir);
    cr_expect_eq(stat(path, &st), 0, "the damaged state must be kept for inspection");
    /* Saving goes on; the state that takes its name is intact. */
    struct ap_comm *comm;
    int64_t step;
    int version;
    cr_assert_eq(ap_comm_self(&comm), AP_OK);
    struct ap_ckpt_store *store = cf_open(dir, comm, 3, 0);
    cr_assert_eq(cf_save(store, comm, 300, 33, CF_EVEN, CF_SMALL, 0, NULL), AP_OK);
    cr_assert_eq(cf_load(store, comm, AP_CKPT_LATEST, CF_EVEN, CF_SMALL, &step, &version, NULL), AP_OK);
    cr_expect(step == 300 && version == 33);
    /* Nothing intact: say so, lose nothing. */
    for (int s = 1; s <= 3; s++) {
        snprintf(path, sizeof path, "%s/step-%012d/manifest.json", dir, s * 100);
        cr_assert_eq(truncate(path, 10), 0);
    }
    cr_expect_eq(cf_load(store, comm, AP_CKPT_LATEST, CF_EVEN, CF_SMALL, &step, &version, &err), AP_ERR_LOST);
    snprintf(text, sizeof text, "none of 3 checkpoints is intact");
    cr_expect(strstr(err.text, text), "%s", err.text);
    snprintf(path, sizeof path, "%s/step-000000000300.corrupt-2/rank-00000.h5", dir);
    cr_expect_eq(stat(path, &st), 0);
    ap_ckpt_store_close(store);
    ap_comm_destroy(comm);
}

/* Write rows over the file's chunk index and give the manifest the hash that fits them. */
static void forge_index(const char *state, const struct ap_chunk_row *rows, const struct ap_manifest *good)
{
    struct ap_manifest m = *good;
    struct ap_image_info info = good->files[0];
    char path[512], *text;
    size_t size;
    ap_ckpt_file_path(state, 0, path, sizeof path);
    int fd = open(path, O_WRONLY);
    cr_assert_eq(ap_io_pwrite_all(fd, rows, (size_t)info.index_bytes, info.index_offset, path, NULL), AP_OK);
    close(fd);
    info.index_hash = ap_hash128(rows, (size_t)info.index_bytes);
    m.files = &info;
    cr_assert_eq(ap_manifest_print(&m, &text, &size, NULL), AP_OK);
    snprintf(path, sizeof path, "%s/manifest.json", state);
    put(path, text, size);
    free(text);
}

/* rounds edits of the index of a state that was saved with one scheme and is loaded with another. */
static void forge_and_load(int save_scheme, int load_scheme, int rounds)
{
    /* A hash can be forged: then only the bounds stand between the index and memory. */
    static const uint64_t values[] = {0, 1, 7, 4096, UINT32_MAX, (uint64_t)INT64_MAX, UINT64_MAX - 7, UINT64_MAX};
    char dir[256], state[512], path[512];
    struct ap_comm *comm;
    struct ap_manifest good = {0};
    uint64_t at = 99;
    int refused = 0, tried = 0;
    cf_tempdir(dir, sizeof dir);
    cr_assert_eq(ap_comm_self(&comm), AP_OK);
    struct ap_ckpt_store *store = cf_open(dir, comm, 3, 0);
    cr_assert_eq(cf_save(store, comm, 100, 1, save_scheme, CF_ALL, 0, NULL), AP_OK);
    ap_ckpt_store_close(store);
    snprintf(state, sizeof state, "%s/step-000000000100", dir);
    cr_assert_eq(ap_ckpt_manifest_read(state, &good, NULL), AP_OK);
    size_t bytes = (size_t)good.files[0].index_bytes, count = bytes / AP_CHUNK_ROW_BYTES;
    struct ap_chunk_row *rows = malloc(bytes), *forged = malloc(bytes);
    cr_assert(rows != NULL && forged != NULL && count > 10);
    ap_ckpt_file_path(state, 0, path, sizeof path);
    int fd = open(path, O_RDONLY);
    cr_assert_eq(ap_io_pread_all(fd, rows, bytes, good.files[0].index_offset, path, NULL), AP_OK);
    close(fd);
    for (int i = 0; i < rounds; i++) {
        struct cf_set c;
        struct ap_ckpt_reader *reader = NULL;
        struct ap_error err = {0};
        memcpy(forged, rows, bytes);
        uint64_t *word = (uint64_t *)&forged[rnd(&at, count)] + rnd(&at, 7),
                 was = *word; /* any field before the hashes */
        *word = i % 3 == 0 ? was + values[rnd(&at, 8)] : values[rnd(&at, 8)];
        if (*word == was)
            continue;
        forge_index(state, forged, &good);
        cr_assert_eq(cf_make(&c, 0, 1, load_scheme, CF_ALL, 1, 0), 0);
        cr_assert_eq(ap_ckpt_reader_open(state, &reader, NULL), AP_OK);
        ap_status status = AP_OK;
        for (int64_t t = 0; status == AP_OK && t < c.set.count; t++)
            status = ap_ckpt_reader_fill(reader, &c.set.list[t], &err);
        cr_expect(status == AP_ERR_CORRUPT || (status == AP_OK && cf_wrong(&c, 1) == 0), "%s: %s",
                  ap_status_name(status), err.text);
        cr_expect_eq(ap_ckpt_reader_check_deep(reader, 0, NULL), AP_ERR_CORRUPT);
        refused += status == AP_ERR_CORRUPT;
        tried++;
        ap_ckpt_reader_destroy(reader);
        cf_free(&c);
    }
    cr_expect_gt(refused, tried * 9 / 10, "%d of %d", refused, tried);
    fprintf(stderr, "%d forged indexes, %d refused by their bounds or the chunk hashes\n", tried, refused);
    forge_index(state, rows, &good);
    cr_expect_eq(ap_ckpt_verify(state, NULL), AP_OK);
    free(rows);
    free(forged);
    ap_manifest_free(&good);
    ap_comm_destroy(comm);
}

AP_TEST(ckpt_damage, forged_chunk_indexes_are_refused)
{
    forge_and_load(CF_EVEN, CF_UNEVEN, fewer("forged indexes", 200, 50));
    forge_and_load(CF_COLUMNS, CF_BLOCKS, fewer("forged indexes of columns", 200, 50));
}
