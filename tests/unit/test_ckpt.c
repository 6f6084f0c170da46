/* SPDX-License-Identifier: Apache-2.0
 * Checkpoint store: any layout loads any other bit for bit, retention, best, refusals, and the messages that a
 * user gets. Damage and crashes have their own programs (test_ckpt_damage.c, test_ckpt_crash.c). */
#include "config.h"

#include "../support/ckpt_fixture.h"
#include "../support/leaks.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/io.h"
#include "ckpt/codec.h"
#include "ckpt/image.h"
#include "ckpt/manifest.h"
#include "ckpt/reader.h"
#include "ckpt/statedir.h"

struct trip {
    char dir[256];
    int scheme;
};

static void trip_save(struct vrank *v)
{
    struct trip *t = v->ctx;
    struct ap_ckpt_options opt = {.dir = t->dir, .keep = 3};
    struct ap_ckpt_store *store = NULL;
    struct ap_error err = {0};
    VCHECK(v, ap_ckpt_store_open(&opt, v->comm, &store, &err) == AP_OK);
    if (store != NULL)
        VCHECK(v, cf_save(store, v->comm, 100, 7, t->scheme, CF_ALL, 0, &err) == AP_OK);
    if (err.text[0] != '\0')
        snprintf(v->fail, sizeof v->fail, "rank %d: save: %.200s", v->comm->rank, err.text);
    ap_ckpt_store_close(store);
}

static void trip_load(struct vrank *v)
{
    struct trip *t = v->ctx;
    struct ap_ckpt_options opt = {.dir = t->dir, .keep = 3, .read_only = 1};
    struct ap_ckpt_store *store = NULL;
    int64_t step = -1;
    int version = -1;
    VCHECK(v, ap_ckpt_store_open(&opt, v->comm, &store, NULL) == AP_OK);
    if (store == NULL)
        return;
    struct ap_error err = {0};
    VCHECK(v, cf_load(store, v->comm, AP_CKPT_LATEST, t->scheme, CF_ALL, &step, &version, &err) == AP_OK);
    if (err.text[0] != '\0')
        snprintf(v->fail, sizeof v->fail, "rank %d: load: %.200s", v->comm->rank, err.text);
    VCHECK(v, step == 100);
    VCHECK(v, version == 7);
    VCHECK(v, ap_ckpt_store_report(store)->skipped == 0);
    ap_ckpt_store_close(store);
}

/* Save with each number of ranks and scheme of from, verify, load with each of to. */
static void round_trips(const int (*from)[2], size_t from_count, const int (*to)[2], size_t to_count)
{
    for (size_t i = 0; i < from_count; i++) {
        struct trip t = {.scheme = from[i][1]};
        char state[512];
        struct ap_error err = {0};
        cf_tempdir(t.dir, sizeof t.dir);
        vranks_run(from[i][0], trip_save, &t);
        cr_assert_eq(ap_statedir_path(t.dir, 100, state, sizeof state, NULL), AP_OK);
        ap_status status = ap_ckpt_verify(state, &err);
        cr_expect_eq(status, AP_OK, "%s: %s", err.file, err.text);
        for (size_t j = 0; j < to_count; j++) {
            t.scheme = to[j][1];
            vranks_run(to[j][0], trip_load, &t);
        }
        ap_io_remove_tree(t.dir, NULL);
    }
}

AP_TEST(ckpt, any_layout_loads_any_other)
{
    static const int from[][2] = {{1, CF_EVEN}, {2, CF_EVEN}, {3, CF_UNEVEN}, {4, CF_PIECES}, {3, CF_WHOLE}};
    static const int to[][2] = {{1, CF_EVEN}, {2, CF_UNEVEN},  {3, CF_EVEN},
                                {4, CF_EVEN}, {2, CF_REPLICA}, {5, CF_PIECES}};
    round_trips(from, sizeof from / sizeof *from, to, sizeof to / sizeof *to);
}

AP_TEST(ckpt, column_slabs_load_into_any_layout_and_back)
{
    static const int slabs[][2] = {{2, CF_COLUMNS}, {1, CF_COLUMNS}, {3, CF_SPLIT}, {2, CF_BLOCKS}};
    static const int any[][2] = {{1, CF_EVEN}, {3, CF_UNEVEN}, {2, CF_SPLIT}, {3, CF_COLUMNS}};
    round_trips(slabs, sizeof slabs / sizeof *slabs, any, sizeof any / sizeof *any);
    static const int rows[][2] = {{3, CF_UNEVEN}};
    round_trips(rows, 1, any + 2, 2);
}

AP_TEST(ckpt, image_is_the_same_for_any_number_of_threads)
{
    struct cf_set c;
    struct ap_pool *pool = NULL;
    struct ap_image a, b;
    cr_assert_eq(cf_make(&c, 0, 1, CF_EVEN, CF_ALL, 3, 1), 0);
    cr_assert_eq(ap_pool_create(3, &pool, NULL), AP_OK);
    cr_assert_eq(ap_image_build(&c.set, &(struct ap_image_options){1, NULL}, &a, NULL), AP_OK);
    cr_assert_eq(ap_image_build(&c.set, &(struct ap_image_options){1, pool}, &b, NULL), AP_OK);
    cr_assert_eq(a.info.bytes, b.info.bytes);
    cr_assert(memcmp(a.data, b.data, (size_t)a.info.bytes) == 0);
    cr_expect(ap_hash128_equal(a.info.rest_hash, b.info.rest_hash));
    cr_expect_lt(a.info.bytes, a.raw_bytes, "weights must shrink: %lld of %lld", (long long)a.info.bytes,
                 (long long)a.raw_bytes);
    ap_image_free(&a);
    ap_image_free(&b);
    ap_pool_destroy(pool);
    cf_free(&c);
}

AP_TEST(ckpt, codec_round_trips_every_width_and_refuses_wrong_input)
{
    enum { N = 4099 };
    struct ap_codec *codec = NULL;
    uint8_t raw[N + 5], out[2 * N + 1000], back[N + 5];
    cr_assert_leq(ap_codec_bound(sizeof raw), sizeof out);
    cr_assert_eq(ap_codec_create(&codec, NULL), AP_OK);
    for (size_t width = 1; width <= 8; width *= 2)
        for (int noise = 0; noise < 2; noise++) {
            size_t n = N / width * width + (width > 1 ? 1 : 0), stored; /* with a rest that is no whole element */
            uint32_t mask;
            for (size_t i = 0; i < n; i++)
                raw[i] = (uint8_t)(noise ? ap_rng_u64(5, AP_RNG_TEST, i) : i / 64);
            cr_assert_eq(ap_codec_encode(codec, 1, raw, n, width, out, &stored, &mask), AP_OK);
            cr_expect_eq(mask, noise ? AP_CODEC_MASK_RAW : AP_CODEC_MASK_FULL);
            cr_assert_eq(ap_codec_decode(codec, out, stored, mask, width, back, n), AP_OK);
            cr_assert(memcmp(raw, back, n) == 0);
            cr_expect_eq(ap_codec_decode(codec, out, stored, mask, width, back, n - 1), AP_ERR_CORRUPT);
            cr_expect_eq(ap_codec_decode(codec, out, stored, 1, width, back, n), AP_ERR_CORRUPT, "unknown mask");
            cr_expect_eq(ap_codec_decode(codec, out, stored - 1, mask, width, back, n), AP_ERR_CORRUPT);
        }
    ap_codec_destroy(codec);
}

/* ---- retention, best, going back ---- */

static int has_state(const char *dir, const char *name)
{
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    return ap_io_exists(path);
}

AP_TEST(ckpt, keeps_the_newest_and_the_best)
{
    char dir[256];
    struct ap_comm *comm;
    struct ap_ckpt_entry *list;
    struct ap_error err = {0};
    int count, version;
    int64_t step;
    cf_tempdir(dir, sizeof dir);
    cr_assert_eq(ap_comm_self(&comm), AP_OK);
    struct ap_ckpt_store *store = cf_open(dir, comm, 3, 0);
    cr_expect_eq(cf_load(store, comm, AP_CKPT_LATEST, CF_EVEN, CF_SMALL, &step, &version, &err), AP_ERR_NOTFOUND);
    for (int i = 1; i <= 6; i++)
        cr_assert_eq(cf_save(store, comm, i * 10, i, CF_EVEN, CF_SMALL, i == 2, &err), AP_OK, "%s", err.text);
    cr_assert_eq(ap_ckpt_list(dir, &list, &count, NULL), AP_OK);
    cr_assert_eq(count, 4);
    static const int64_t want[] = {60, 50, 40, 20};
    for (int i = 0; i < 4; i++) {
        cr_expect_eq(list[i].step, want[i]);
        cr_expect_eq(list[i].best, want[i] == 20);
        cr_expect_eq(list[i].files, 1);
        cr_expect_gt(list[i].bytes, 10000);
    }
    free(list);
    cr_assert_eq(cf_load(store, comm, AP_CKPT_BEST, CF_EVEN, CF_SMALL, &step, &version, &err), AP_OK);
    cr_expect(step == 20 && version == 2);
    cr_assert_eq(cf_load(store, comm, 50, CF_EVEN, CF_SMALL, &step, &version, &err), AP_OK);
    cr_expect(step == 50 && version == 5);
    cr_expect_eq(cf_load(store, comm, 30, CF_EVEN, CF_SMALL, &step, &version, &err), AP_ERR_NOTFOUND);
    /* A new best lets the old one go. */
    cr_assert_eq(cf_save(store, comm, 70, 7, CF_EVEN, CF_SMALL, 1, &err), AP_OK);
    cr_expect(!has_state(dir, "step-000000000020"));
    const struct ap_ckpt_figures *f = ap_ckpt_store_figures(store);
    cr_expect_gt(f->raw_bytes, 100000);
    cr_expect_gt(f->stored_bytes, 0);
    ap_ckpt_store_close(store);
    ap_comm_destroy(comm);
}

AP_TEST(ckpt, going_back_sets_the_abandoned_branch_aside)
{
    char dir[256];
    struct ap_comm *comm;
    struct ap_error err = {0};
    int version;
    int64_t step;
    cf_tempdir(dir, sizeof dir);
    cr_assert_eq(ap_comm_self(&comm), AP_OK);
    struct ap_ckpt_store *store = cf_open(dir, comm, 3, 0);
    for (int i = 1; i <= 3; i++)
        cr_assert_eq(cf_save(store, comm, i * 10, i, CF_EVEN, CF_SMALL, i == 3, &err), AP_OK);
    cr_assert_eq(cf_load(store, comm, 10, CF_EVEN, CF_SMALL, &step, &version, &err), AP_OK);
    cr_assert_eq(cf_save(store, comm, 20, 12, CF_EVEN, CF_SMALL, 0, &err), AP_OK, "%s", err.text);
    cr_expect(has_state(dir, "step-000000000030.superseded"));
    cr_expect(!has_state(dir, "best"));
    cr_assert_eq(cf_load(store, comm, AP_CKPT_LATEST, CF_EVEN, CF_SMALL, &step, &version, &err), AP_OK);
    cr_expect(step == 20 && version == 12, "the state saved last counts: step %lld version %d", (long long)step,
              version);
    cr_expect_eq(cf_load(store, comm, AP_CKPT_BEST, CF_EVEN, CF_SMALL, &step, &version, &err), AP_ERR_NOTFOUND);
    ap_ckpt_store_close(store);
    ap_comm_destroy(comm);
}

/* ---- refusals ---- */

static struct ap_named f32(const char *name, int64_t n, int64_t begin, int64_t end, float *data)
{
    struct ap_named t = {.dtype = AP_F32, .ndim = 1, .shape = {n}, .begin = begin, .end = end, .data = data};
    snprintf(t.name, sizeof t.name, "%s", name);
    return t;
}

static void refuse_holes(struct vrank *v)
{
    static const int64_t cuts[][4] = {{0, 5, 6, 10}, {0, 6, 5, 10}, {0, 5, 5, 9}, {1, 5, 5, 10}};
    struct ap_ckpt_options opt = {.dir = v->ctx, .keep = 3};
    struct ap_ckpt_store *store = NULL;
    struct ap_error err = {0};
    float x[10] = {0};
    VCHECK(v, ap_ckpt_store_open(&opt, v->comm, &store, NULL) == AP_OK);
    for (int i = 0; i < 4 && store != NULL; i++) {
        struct ap_named_set set = {0};
        struct ap_named t = f32("param/w", 10, cuts[i][2 * v->comm->rank], cuts[i][2 * v->comm->rank + 1], x);
        VCHECK(v, ap_named_set_add(&set, &t, NULL) == AP_OK);
        VCHECK(v, ap_ckpt_save(store, 10, &set, "{}", 0, &err) == AP_ERR_BUG);
        VCHECK(v, strstr(err.text, i == 1 ? "overlap" : "gap") != NULL && strstr(err.text, "param/w") != NULL);
        ap_named_set_clear(&set);
    }
    ap_ckpt_store_close(store);
}

static void refuse_disagreement(struct vrank *v)
{
    struct ap_ckpt_options opt = {.dir = v->ctx, .keep = 3};
    struct ap_ckpt_store *store = NULL;
    struct ap_error err = {0};
    struct ap_named_set set = {0};
    float x[12] = {0};
    struct ap_named t = f32("param/w", 10 + v->comm->rank, v->comm->rank * 5, v->comm->rank * 5 + 5, x);
    VCHECK(v, ap_ckpt_store_open(&opt, v->comm, &store, NULL) == AP_OK);
    VCHECK(v, ap_named_set_add(&set, &t, NULL) == AP_OK);
    if (store != NULL) {
        VCHECK(v, ap_ckpt_save(store, 10, &set, "{}", 0, &err) == AP_ERR_BUG);
        VCHECK(v, strstr(err.text, "disagree") != NULL);
        VCHECK(v, ap_ckpt_save(store, 10, &set, "[1]", 0, &err) == AP_ERR_BUG);
    }
    ap_named_set_clear(&set);
    ap_ckpt_store_close(store);
}

static int entries_in(const char *dir)
{
    int n = 0;
    DIR *d = opendir(dir);
    struct dirent *e;
    while (d != NULL && (e = readdir(d)) != NULL)
        n += e->d_name[0] != '.';
    if (d != NULL)
        closedir(d);
    return n;
}

static void refuse_slabs(struct vrank *v)
{
    /* Of a [4, 6]: rank 0 holds columns 0..2; here is what rank 1 holds. */
    static const struct {
        int64_t col, width, begin, end;
        const char *text;
    } cases[] = {
        {3, 3, 0, 12, "leave a gap at element 2 (row 0, column 2)"},
        {1, 5, 0, 20, "overlap at element 1 (row 0, column 1)"},
        {2, 4, 1, 16, "leave a gap at element 2 (row 0, column 2)"},
        {2, 4, 0, 15, "leave a gap at element 23 (row 3, column 5)"},
        {0, 0, 12, 24, "leave a gap at element 2 (row 0, column 2)"},
        {0, 0, 0, 24, "overlap at element 0 (row 0, column 0)"},
    };
    struct ap_ckpt_options opt = {.dir = v->ctx, .keep = 3};
    struct ap_ckpt_store *store = NULL;
    struct ap_error err = {0};
    float x[24] = {0};
    VCHECK(v, ap_ckpt_store_open(&opt, v->comm, &store, NULL) == AP_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases && store != NULL; i++) {
        struct ap_named_set set = {0};
        struct ap_named t = {.name = "param/w", .dtype = AP_F32, .ndim = 2, .shape = {4, 6}, .width = 2, .end = 8};
        if (v->comm->rank == 1) {
            t.col = cases[i].col;
            t.width = cases[i].width;
            t.begin = cases[i].begin;
            t.end = cases[i].end;
        }
        t.data = x;
        VCHECK(v, ap_named_set_add(&set, &t, NULL) == AP_OK);
        VCHECK(v, ap_ckpt_save(store, 10, &set, "{}", 0, &err) == AP_ERR_BUG);
        VCHECK(v, strstr(err.text, cases[i].text) != NULL && strstr(err.text, "param/w") != NULL);
        ap_named_set_clear(&set);
    }
    ap_ckpt_store_close(store);
}

AP_TEST(ckpt, ranges_that_do_not_tile_are_refused)
{
    char dir[256];
    cf_tempdir(dir, sizeof dir);
    vranks_run(2, refuse_slabs, dir);
    vranks_run(2, refuse_holes, dir);
    vranks_run(2, refuse_disagreement, dir);
    cr_expect_eq(entries_in(dir), 1, "only LOCK may be left");
}

AP_TEST(ckpt, another_model_is_refused_and_keeps_its_states)
{
    char dir[256], text[2048];
    struct ap_comm *comm;
    struct ap_error err = {0};
    int64_t step;
    char *meta;
    float x[200] = {0};
    cf_tempdir(dir, sizeof dir);
    cr_assert_eq(ap_comm_self(&comm), AP_OK);
    struct ap_ckpt_store *store = cf_open(dir, comm, 3, 0);
    cr_assert_eq(cf_save(store, comm, 10, 1, CF_EVEN, CF_SMALL, 0, NULL), AP_OK);
    cr_assert_eq(cf_save(store, comm, 20, 2, CF_EVEN, CF_SMALL, 0, NULL), AP_OK);
    struct ap_named_set set = {0};
    struct ap_named t = f32("param/model.norm.weight", 65, 0, 65, x);
    cr_assert_eq(ap_named_set_add(&set, &t, NULL), AP_OK);
    cr_assert_eq(ap_ckpt_load(store, AP_CKPT_LATEST, &set, &meta, &step, &err), AP_ERR_INPUT);
    ap_error_format(&err, text, sizeof text);
    cr_expect(
        strstr(text, "param/model.norm.weight is f32 [64] in the checkpoint of step 20 but f32 [65] in this model"),
        "%s", text);
    cr_expect(strstr(text, "another model"), "%s", text);
    ap_named_set_clear(&set);
    t = f32("param/lm_head.weight", 65, 0, 65, x);
    cr_assert_eq(ap_named_set_add(&set, &t, NULL), AP_OK);
    cr_assert_eq(ap_ckpt_load(store, AP_CKPT_LATEST, &set, &meta, &step, &err), AP_ERR_INPUT);
    cr_expect(strstr(err.text, "has no tensor param/lm_head.weight"), "%s", err.text);
    ap_named_set_clear(&set);
    /* Part of the tensors is fine. */
    t = f32("param/model.norm.weight", 64, 10, 30, x);
    cr_assert_eq(ap_named_set_add(&set, &t, NULL), AP_OK);
    cr_assert_eq(ap_ckpt_load(store, AP_CKPT_LATEST, &set, &meta, &step, &err), AP_OK);
    free(meta);
    ap_named_set_clear(&set);
    cr_expect(has_state(dir, "step-000000000020") && has_state(dir, "step-000000000010"));
    ap_ckpt_store_close(store);
    ap_comm_destroy(comm);
}

/* Replace the manifest's body and give it a hash that fits, as a later version would write it. */
static void rewrite_manifest(const char *path, const char *from, const char *to)
{
    char *text, hex[33], out[65536];
    size_t size;
    cr_assert_eq(ap_io_read_file(path, sizeof out / 2, &text, &size, NULL), AP_OK);
    char *line = strchr(text, '\n') + 1, *at = strstr(line, from);
    cr_assert_not_null(at);
    snprintf(out, sizeof out, "%.*s%s%s", (int)(at - line), line, to, at + strlen(from));
    ap_hash128_hex(ap_hash128(out, strlen(out)), hex);
    FILE *f = fopen(path, "w");
    cr_assert_not_null(f);
    fprintf(f, "{\"xxh3_128\":\"%s\",\n%s", hex, out);
    cr_assert_eq(fclose(f), 0);
    free(text);
}

AP_TEST(ckpt, another_format_version_is_named_and_left_alone)
{
    char dir[256], path[512], text[2048];
    struct ap_comm *comm;
    struct ap_error err = {0};
    int64_t step;
    int version;
    char *meta;
    cf_tempdir(dir, sizeof dir);
    cr_assert_eq(ap_comm_self(&comm), AP_OK);
    struct ap_ckpt_store *store = cf_open(dir, comm, 3, 0);
    cr_assert_eq(cf_save(store, comm, 10, 1, CF_EVEN, CF_SMALL, 0, NULL), AP_OK);
    cr_assert_eq(cf_save(store, comm, 20, 2, CF_EVEN, CF_SMALL, 0, NULL), AP_OK);
    snprintf(path, sizeof path, "%s/step-000000000020/manifest.json", dir);
    rewrite_manifest(path, "\"version\":1", "\"version\":3");
    cr_assert_eq(cf_load(store, comm, AP_CKPT_LATEST, CF_EVEN, CF_SMALL, &step, &version, &err), AP_ERR_FORMAT);
    ap_error_format(&err, text, sizeof text);
    cr_expect(strstr(text, "format version 3, this program reads versions 1 and 2"), "%s", text);
    cr_expect_eq(ap_ckpt_peek(dir, AP_CKPT_LATEST, &meta, &step, &err), AP_ERR_FORMAT);
    cr_expect(has_state(dir, "step-000000000020"), "it must not be set aside");
    cr_assert_eq(cf_load(store, comm, 10, CF_EVEN, CF_SMALL, &step, &version, &err), AP_OK);
    ap_ckpt_store_close(store);
    ap_comm_destroy(comm);
}

AP_TEST(ckpt, forged_manifests_are_refused)
{
    /* Each has a hash that fits: only the checks of the content stand in the way. */
    static const char *edits[][2] = {
        {"\"step\":10", "\"step\":11"},
        {"\"step\":10", "\"step\":-10"},
        {"\"step\":10", "\"step\":99999999999999999999999999"},
        {"\"time\":", "\"time\":9e99,\"was\":"},
        {"\"time\":", "\"time\":-1,\"was\":"},
        {"\"index_bytes\":", "\"index_bytes\":9"},
        {"\"index_offset\":", "\"index_offset\":88888888"},
        {"\"bytes\":", "\"bytes\":9999999"},
        {"\"parts\":[[0,0,0,", "\"parts\":[[1,0,0,"},
        {"\"parts\":[[0,0,0,", "\"parts\":[[0,7777,0,"},
        {"\"parts\":[[0,0,0,", "\"parts\":[[0,0,0,1],[0,0,2,"},
        {"\"parts\":[[0,0,0,", "\"parts\":[[0,0,-1,"},
        {"\"shape\":[130,64]", "\"shape\":[13000000000,6400000000]"},
        {"\"shape\":[130,64]", "\"shape\":[130,65]"},
        {"\"shape\":[130,64]", "\"shape\":[-130,-64]"},
        {"\"shape\":[130,64]", "\"shape\":[1,1,1,1,130,64]"},
        {"\"dtype\":\"f32\"", "\"dtype\":\"f64\""},
        {"\"dtype\":\"f32\"", "\"dtype\":\"q32\""},
        {"\"name\":\"adam.m/", "\"name\":\"../../../adam.m/"},
        {"\"name\":\"adam.m/", "\"name\":\"zzz/"},
        {"\"files\":[{", "\"files\":[],\"was\":[{"},
        {"\"meta\":{", "\"meta\":7,\"was\":{"},
        {"\"tensors\":[", "\"tensors\":7,\"was\":["},
    };
    char dir[256], path[512];
    struct ap_comm *comm;
    int64_t step;
    int version;
    cf_tempdir(dir, sizeof dir);
    cr_assert_eq(ap_comm_self(&comm), AP_OK);
    for (size_t i = 0; i < sizeof edits / sizeof *edits; i++) {
        struct ap_error err = {0};
        struct ap_ckpt_store *store = cf_open(dir, comm, 3, 0);
        cr_assert_eq(cf_save(store, comm, 10, 1, CF_EVEN, CF_SMALL, 0, NULL), AP_OK);
        ap_ckpt_store_close(store);
        snprintf(path, sizeof path, "%s/step-000000000010/manifest.json", dir);
        rewrite_manifest(path, edits[i][0], edits[i][1]);
        store = cf_open(dir, comm, 3, 1);
        ap_status status = cf_load(store, comm, AP_CKPT_LATEST, CF_EVEN, CF_SMALL, &step, &version, &err);
        cr_expect(status == AP_ERR_LOST || status == AP_ERR_INPUT, "%s: %s: %s", edits[i][1], ap_status_name(status),
                  err.text);
        ap_ckpt_store_close(store);
        snprintf(path, sizeof path, "%s/step-000000000010", dir);
        cr_expect_neq(ap_ckpt_verify(path, NULL), AP_OK, "%s", edits[i][1]);
    }
    ap_comm_destroy(comm);
}

AP_TEST(ckpt, slabs_raise_the_version_and_forged_ones_are_refused)
{
    /* Tensor param/model.layers.0.mlp.down_proj.weight is bf16 [33, 17]. Each edit has a hash that fits. */
    static const char *edits[][3] = {
        {"[0,2,0,165,0,5]", "[0,2,0,132,0,4]", "leave a gap at element 4 (row 0, column 4)"},
        {"[0,2,0,165,0,5]", "[0,2,0,198,0,6]", "overlap at element 5 (row 0, column 5)"},
        {"[0,2,0,165,0,5]", "[0,2,0,164,0,5]", "leave a gap at element 548 (row 32, column 4)"},
        {"[0,2,0,165,0,5]", "[0,2,1,165,0,5]", "leave a gap at element 0 (row 0, column 0)"},
        {"[0,2,0,165,0,5]", "[0,2,0,166,0,5]", "a range that lies outside its elements"},
        {"[0,2,0,165,0,5],", "", "leave a gap at element 0 (row 0, column 0)"},
        {"[0,2,0,165,0,5],", "[0,2,0,165,0,5],[0,2,0,165,0,5],", "its parts are out of order"},
        {"[0,2,0,165,0,5],[0,3,0,396,5,12]", "[0,3,0,396,5,12],[0,2,0,165,0,5]", "its parts are out of order"},
        {"[0,3,0,396,5,12]", "[0,3,0,396,6,12]", "columns that lie outside its shape"},
        {"[0,3,0,396,5,12]", "[0,3,0,396,5,9223372036854775807]", "columns that lie outside its shape"},
        {"[0,3,0,396,5,12]", "[0,3,0,396,5,0]", "ill-formed part"},
        {"[0,3,0,396,5,12]", "[0,3,0,396,-5,12]", "ill-formed part"},
        {"[0,3,0,396,5,12]", "[0,3,0,396,5]", "ill-formed part"},
        {"[0,3,0,396,5,12]", "[0,3,0,396,5,12,1]", "ill-formed part"},
        {"[0,3,0,396,5,12]", "[0,3,9223372036854775807,9223372036854775807,5,12]", "ill-formed part"},
        {"[[0,2,0,165,0,5],[0,3,0,396,5,12]]", "[[0,2,0,561,0,17]]", "a part of all columns is written as a slab"},
        {"\"shape\":[33,17]", "\"shape\":[33,17,1]", "columns of a tensor that is not 2-D"},
        {"\"shape\":[33,17]", "\"shape\":[33,18]", "leave a gap at element 17 (row 0, column 17)"},
        {"\"version\":2", "\"version\":1", "ill-formed part"},
    };
    static const char name[] = "tensor param/model.layers.0.mlp.down_proj.weight";
    char dir[256], path[512], *text;
    size_t size, count = sizeof edits / sizeof *edits;
    struct ap_comm *comm;
    struct ap_error err = {0};
    struct ap_manifest m;
    cf_tempdir(dir, sizeof dir);
    cr_assert_eq(ap_comm_self(&comm), AP_OK);
    struct ap_ckpt_store *store = cf_open(dir, comm, 3, 0);
    cr_assert_eq(cf_save(store, comm, 10, 1, CF_EVEN, CF_SMALL, 0, NULL), AP_OK);
    cr_assert_eq(cf_save(store, comm, 20, 1, CF_COLUMNS, CF_SMALL, 0, NULL), AP_OK);
    ap_ckpt_store_close(store);
    for (int i = 1; i <= 2; i++) {
        snprintf(path, sizeof path, "%s/step-0000000000%d0/manifest.json", dir, i);
        cr_assert_eq(ap_io_read_file(path, 65536, &text, &size, NULL), AP_OK);
        cr_expect(strstr(text, i == 1 ? "\"version\":1," : "\"version\":2,"), "a state with slabs only is version 2");
        if (i == 1)
            free(text);
    }
    for (size_t i = 0; i < count; i++) {
        rewrite_manifest(path, edits[i][0], edits[i][1]);
        *strrchr(path, '/') = '\0';
        cr_expect_eq(ap_ckpt_manifest_read(path, &m, &err), AP_ERR_CORRUPT, "%s", edits[i][1]);
        cr_expect(strstr(err.text, edits[i][2]), "%s: %s", edits[i][1], err.text);
        cr_expect(strstr(err.text, i + 1 < count ? name : "adam.m/model.embed_tokens.weight"), "%s", err.text);
        cr_expect_neq(ap_ckpt_verify(path, NULL), AP_OK, "%s", edits[i][1]);
        path[strlen(path)] = '/';
        cr_assert_eq(ap_io_write_durable(path, text, size, NULL), AP_OK);
    }
    /* A tiling, but not the one in the file: HDF5's view of it says so. */
    rewrite_manifest(path, "[0,2,0,165,0,5],[0,3,0,396,5,12]", "[0,2,0,396,0,12],[0,3,0,165,12,5]");
    *strrchr(path, '/') = '\0';
    cr_expect_eq(ap_ckpt_verify(path, &err), AP_ERR_CORRUPT);
    cr_expect(strstr(err.text, "mlp.down_proj.weight: shape, range or dtype is not"), "%s", err.text);
    path[strlen(path)] = '/';
    cr_assert_eq(ap_io_write_durable(path, text, size, NULL), AP_OK);
    *strrchr(path, '/') = '\0';
    cr_expect_eq(ap_ckpt_verify(path, &err), AP_OK, "%s", err.text);
    free(text);
    ap_comm_destroy(comm);
}

AP_TEST(ckpt, exchanged_columns_are_known_by_their_attributes)
{
    /* Two halves of the columns of f32 [130, 64] in two files: the same ranges, dimensions and paths. */
    struct trip t = {.scheme = CF_SPLIT};
    char state[512], path[600];
    struct ap_error err = {0};
    cf_tempdir(t.dir, sizeof t.dir);
    vranks_run(2, trip_save, &t);
    cr_assert_eq(ap_statedir_path(t.dir, 100, state, sizeof state, NULL), AP_OK);
    cr_assert_eq(ap_ckpt_verify(state, &err), AP_OK, "%s", err.text);
    snprintf(path, sizeof path, "%s/manifest.json", state);
    rewrite_manifest(path, "[0,0,0,4160,0,32],[1,0,0,4160,32,32]", "[1,0,0,4160,0,32],[0,0,0,4160,32,32]");
    cr_expect_eq(ap_ckpt_verify(state, &err), AP_ERR_CORRUPT);
    cr_expect(strstr(err.text, "embed_tokens.weight: shape, range or dtype is not"), "%s", err.text);
}

/* ---- directories ---- */

AP_TEST(ckpt, second_job_is_told_who_holds_the_directory)
{
    char dir[256], text[2048], want[64];
    struct ap_comm *comm;
    struct ap_error err = {0};
    struct ap_ckpt_store *other = NULL;
    cf_tempdir(dir, sizeof dir);
    cr_assert_eq(ap_comm_self(&comm), AP_OK);
    struct ap_ckpt_store *store = cf_open(dir, comm, 3, 0);
    struct ap_ckpt_options opt = {.dir = dir, .keep = 3};
    cr_assert_eq(ap_ckpt_store_open(&opt, comm, &other, &err), AP_ERR_LOCKED);
    ap_error_format(&err, text, sizeof text);
    snprintf(want, sizeof want, "process %ld on ", (long)getpid());
    cr_expect(strstr(text, want) && strstr(text, "another checkpoint directory"), "%s", text);
    cr_assert_null(other);
    other = cf_open(dir, comm, 3, 1); /* readers need no lock */
    ap_ckpt_store_close(other);
    ap_ckpt_store_close(store);
    /* A holder that was killed holds nothing. */
    pid_t pid = fork();
    if (pid == 0) {
        store = cf_open(dir, comm, 3, 0);
        kill(getpid(), SIGKILL);
        _exit(0);
    }
    cr_assert_eq(waitpid(pid, NULL, 0), pid);
    store = cf_open(dir, comm, 3, 0);
    ap_ckpt_store_close(store);
    ap_comm_destroy(comm);
}

AP_TEST(ckpt, unwritable_and_impossible_directories)
{
    char dir[256], path[512], text[2048];
    struct ap_comm *comm;
    struct ap_error err = {0};
    struct ap_ckpt_store *store = NULL;
    cf_tempdir(dir, sizeof dir);
    cr_assert_eq(ap_comm_self(&comm), AP_OK);
    snprintf(path, sizeof path, "%s/file", dir);
    cr_assert_eq(close(open(path, O_CREAT | O_WRONLY, 0666)), 0);
    struct ap_ckpt_options opt = {.dir = path, .keep = 3};
    ap_status status = ap_ckpt_store_open(&opt, comm, &store, &err);
    ap_error_format(&err, text, sizeof text);
    cr_expect(status != AP_OK && strstr(text, path) != NULL, "%s", text);
    snprintf(path, sizeof path, "%s/none", dir);
    opt.read_only = 1;
    cr_expect_eq(ap_ckpt_store_open(&opt, comm, &store, &err), AP_ERR_NOTFOUND);
    cr_expect(!ap_io_exists(path), "a reader creates nothing");
    /* A directory that others own: as root, become nobody first. */
    cr_assert_eq(chmod(dir, 0555), 0);
    opt = (struct ap_ckpt_options){.dir = dir, .keep = 3};
    if (geteuid() == 0)
        cr_assert_eq(setresuid(65534, 65534, 0), 0);
    status = ap_ckpt_store_open(&opt, comm, &store, &err);
    if (getuid() == 65534)
        cr_assert_eq(setresuid(0, 0, 0), 0);
    ap_error_format(&err, text, sizeof text);
    cr_expect_eq(status, AP_ERR_ENV, "%s", text);
    cr_expect(strstr(text, "Permission denied") && strstr(text, dir), "%s", text);
    cr_assert_eq(chmod(dir, 0755), 0);
    ap_comm_destroy(comm);
}

AP_TEST(ckpt, leftovers_of_killed_saves_are_removed_and_nothing_else)
{
    static const char *left[] = {"step-000000000030.host-1-1.tmp", "step-000000000005.del", "step-000000000006.del-2",
                                 "best.tmp"};
    static const char *kept[] = {"step-000000000007.corrupt", "step-000000000040.superseded", "notes.txt", "tmp"};
    char dir[256], path[512], file[600];
    struct ap_comm *comm;
    cf_tempdir(dir, sizeof dir);
    cr_assert_eq(ap_comm_self(&comm), AP_OK);
    for (int i = 0; i < 4; i++)
        for (int k = 0; k < 2; k++) {
            snprintf(path, sizeof path, "%s/%s", dir, k ? kept[i] : left[i]);
            cr_assert_eq(mkdir(path, 0777), 0);
            snprintf(file, sizeof file, "%s/rank-00000.h5", path);
            cr_assert_eq(close(open(file, O_CREAT | O_WRONLY, 0666)), 0);
        }
    /* A replacement killed half way: the old state is the only one of its step. */
    struct ap_ckpt_store *store = cf_open(dir, comm, 3, 0);
    cr_assert_eq(cf_save(store, comm, 10, 1, CF_EVEN, CF_SMALL, 0, NULL), AP_OK);
    ap_ckpt_store_close(store);
    snprintf(path, sizeof path, "%s/step-000000000010", dir);
    snprintf(file, sizeof file, "%s.old", path);
    cr_assert_eq(rename(path, file), 0);
    store = cf_open(dir, comm, 3, 0);
    for (int i = 0; i < 4; i++) {
        cr_expect(!has_state(dir, left[i]), "%s", left[i]);
        cr_expect(has_state(dir, kept[i]), "%s", kept[i]);
    }
    int64_t step;
    int version;
    cr_assert_eq(cf_load(store, comm, AP_CKPT_LATEST, CF_EVEN, CF_SMALL, &step, &version, NULL), AP_OK);
    cr_expect(step == 10 && version == 1);
    ap_ckpt_store_close(store);
    ap_comm_destroy(comm);
}

AP_TEST(ckpt, meta_comes_back_digit_for_digit)
{
    static const char meta[] = "{\"seed\":18446744073709551615,\"lr\":0.10000,\"tiny\":1e-300,\"text\":\"\xc3\xa9\\n\","
                               "\"list\":[1,-2.50,null,true]}";
    char dir[256];
    struct ap_comm *comm;
    int64_t step;
    char *back = NULL;
    float x[4] = {1, 2, 3, 4};
    struct ap_named_set set = {0};
    struct ap_named t = f32("param/w", 4, 0, 4, x);
    cf_tempdir(dir, sizeof dir);
    cr_assert_eq(ap_comm_self(&comm), AP_OK);
    cr_assert_eq(ap_named_set_add(&set, &t, NULL), AP_OK);
    struct ap_ckpt_store *store = cf_open(dir, comm, 1, 0);
    cr_assert_eq(ap_ckpt_save(store, 0, &set, meta, 0, NULL), AP_OK);
    cr_assert_eq(ap_ckpt_peek(dir, AP_CKPT_LATEST, &back, &step, NULL), AP_OK);
    cr_expect_str_eq(back, meta);
    cr_expect_eq(step, 0);
    free(back);
    ap_ckpt_store_close(store);
    ap_named_set_clear(&set);
    ap_comm_destroy(comm);
}

/* AP_CKPT_SPEED=ELEMENTS prints bytes per parameter and speeds for an AdamW state of that many parameters. */
AP_TEST(ckpt, figures)
{
    const char *text = getenv("AP_CKPT_SPEED");
    int64_t n = text != NULL ? strtoll(text, NULL, 10) : 1000000;
    char dir[256];
    struct ap_comm *comm;
    struct ap_named_set set = {0};
    struct ap_error err = {0};
    struct ap_pool *pool = NULL;
    int64_t step;
    char *meta;
    static const char *names[] = {"param/w", "adam.m/w", "adam.v/w"};
    float *x[3];
    cf_tempdir(dir, sizeof dir);
    cr_assert_eq(ap_comm_self(&comm), AP_OK);
    for (int k = 0; k < 3; k++) {
        x[k] = malloc((size_t)n * sizeof(float));
        cr_assert_not_null(x[k]);
        ap_rng_normal(k > 1 ? 1 : (uint64_t)k, AP_RNG_TEST, 0, x[k], n);
        for (int64_t i = 0; i < n; i++)
            x[k][i] = k == 0 ? x[k][i] * 0.02f : k == 1 ? x[k][i] * 1e-3f : x[k][i] * x[k][i] * 1e-6f;
        struct ap_named t = f32(names[k], n, 0, n, x[k]);
        cr_assert_eq(ap_named_set_add(&set, &t, NULL), AP_OK);
    }
    cr_assert_eq(ap_pool_create(0, &pool, NULL), AP_OK);
    struct ap_ckpt_options opt = {.dir = dir, .keep = 1, .pool = pool};
    struct ap_ckpt_store *store = NULL;
    cr_assert_eq(ap_ckpt_store_open(&opt, comm, &store, &err), AP_OK);
    double t0 = ap_clock_monotonic();
    cr_assert_eq(ap_ckpt_save(store, 1, &set, "{}", 0, &err), AP_OK, "%s", err.text);
    double t1 = ap_clock_monotonic();
    cr_assert_eq(ap_ckpt_load(store, 1, &set, &meta, &step, &err), AP_OK, "%s", err.text);
    double t2 = ap_clock_monotonic();
    free(meta);
    const struct ap_ckpt_figures *f = ap_ckpt_store_figures(store);
    double mb = (double)f->raw_bytes / 1e6;
    fprintf(stderr,
            "ckpt figures: %.2f bytes per parameter (raw 12), save %.0f MB/s (compress %.0f, write+fsync %.0f, commit "
            "and re-read "
            "%.0f), load %.0f MB/s, %d threads\n",
            (double)f->stored_bytes / (double)n, mb / (t1 - t0), mb / f->build_s, mb / f->write_s, mb / f->commit_s,
            mb / (t2 - t1), ap_pool_threads(pool));
    cr_expect_lt((double)f->stored_bytes / (double)n, 12.0);
    ap_ckpt_store_close(store);
    ap_pool_destroy(pool);
    ap_named_set_clear(&set);
    for (int k = 0; k < 3; k++)
        free(x[k]);
    ap_comm_destroy(comm);
}
