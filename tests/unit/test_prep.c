/* SPDX-License-Identifier: Apache-2.0
 * prep: what goes in comes out once, on the right side, in an order that depends on contents only; each kind
 * of input; each mistake; a second run that does nothing. */
#include "config.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <math.h>
#include <sys/file.h>
#include <fcntl.h>
#include <zstd.h>
#ifdef AP_HAVE_ZLIB
#include <zlib.h>
#endif

#include "prep/prep.h"
#include "support/leaks.h"
#include "text_fixture.h"

static char dir[FIXTURE_PATH], in[FIXTURE_PATH], out[FIXTURE_PATH];
static struct ap_prep_input input;
static struct ap_prep_options opt;
static struct ap_prep_report report;
static struct ap_error err;

static void setup(void)
{
    fixture_dir(dir);
    cr_assert_eq(mkdir(fixture_path(in, dir, "in"), 0777), 0);
    fixture_path(out, dir, "out");
    input = (struct ap_prep_input){AP_PREP_AUTO, in};
    opt = (struct ap_prep_options){.inputs = &input, .input_count = 1, .out_dir = out, .valid_fraction = 0.25};
}

static void teardown(void)
{
    fixture_remove(dir);
}

TestSuite(prep, .init = setup, .fini = teardown);

static void run_ok(void)
{
    cr_assert_eq(ap_prep_run(&opt, &report, &err), AP_OK, "%s: %s", err.file, err.text);
}

static void run_fails(ap_status status, const char *word)
{
    cr_assert_eq(ap_prep_run(&opt, &report, &err), status, "\"%s\" is status %s", err.text, ap_status_name(err.status));
    cr_assert(strstr(err.text, word), "\"%s\" does not say \"%s\"", err.text, word);
}

static void write_text(const char *name, const char *text)
{
    fixture_write(in, name, text, strlen(text));
}

/* Document number d of a dataset of prep as text, malloc'ed; checks the end-of-document token. */
static char *document(const char *name, int64_t d, size_t *size_p)
{
    char path[FIXTURE_PATH];
    struct ap_megatron *m;
    cr_assert_eq(ap_megatron_open(fixture_path(path, out, name), &m, &err), AP_OK, "%s: %s", err.file, err.text);
    int64_t begin = ap_megatron_document_start(m, d), count = ap_megatron_document_start(m, d + 1) - begin;
    int32_t *ids = malloc((size_t)count * sizeof(*ids));
    char *text = malloc((size_t)count);
    cr_assert(ids && text);
    ap_megatron_read(m, begin, count, ids);
    cr_assert_eq(ids[count - 1], 256);
    for (int64_t i = 0; i + 1 < count; i++) {
        cr_assert(ids[i] >= 0 && ids[i] < 256);
        text[i] = (char)ids[i];
    }
    text[count - 1] = '\0';
    if (size_p)
        *size_p = (size_t)count - 1;
    free(ids);
    ap_megatron_close(m);
    return text;
}

static int64_t documents(const char *name)
{
    char path[FIXTURE_PATH];
    struct ap_megatron *m;
    cr_assert_eq(ap_megatron_open(fixture_path(path, out, name), &m, &err), AP_OK, "%s: %s", err.file, err.text);
    int64_t count = ap_megatron_documents(m);
    ap_megatron_close(m);
    return count;
}

/* The only document of the training data. */
static void expect_only(const char *want)
{
    cr_assert_eq(documents("train"), 1);
    char *text = document("train", 0, NULL);
    cr_assert_str_eq(text, want);
    free(text);
}

AP_TEST(prep, every_document_once_on_its_side)
{
    enum { N = 400 };
    char name[32], text[64], seen[N] = {0};
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof(name), "%03d.txt", i);
        snprintf(text, sizeof(text), "document %d\n", i);
        write_text(name, text);
    }
    write_text("again.txt", "document 7\n");
    run_ok();
    cr_assert_eq(report.documents, N);
    cr_assert_eq(report.duplicates, 1);
    int64_t valid = documents("valid"), train = documents("train");
    cr_assert_eq(valid + train, N);
    cr_assert(valid > N / 8 && valid < 3 * N / 8, "%lld of %d validate", (long long)valid, N);
    for (int side = 0; side < 2; side++)
        for (int64_t d = 0; d < (side ? valid : train); d++) {
            char *got = document(side ? "valid" : "train", d, NULL);
            int number = -1;
            cr_assert_eq(sscanf(got, "document %d", &number), 1);
            cr_assert(number >= 0 && number < N && !seen[number]);
            seen[number] = 1;
            /* The side is the hash's alone. */
            struct ap_hash128 h = ap_hash128(got, strlen(got));
            cr_assert_eq((double)h.high / 0x1p64 < 0.25, side);
            free(got);
        }
    cr_assert_eq(report.train_tokens + report.valid_tokens, report.bytes + N);
}

AP_TEST(prep, names_and_folders_do_not_matter)
{
    size_t size_a, size_b;
    write_text("a.txt", "one\n");
    write_text("b.txt", "two\n");
    write_text("c.txt", "three\n");
    run_ok();
    char *a = fixture_read(out, "train.bin", &size_a);
    fixture_remove(in);
    char sub[FIXTURE_PATH];
    cr_assert_eq(mkdir(in, 0777), 0);
    cr_assert_eq(mkdir(fixture_path(sub, in, "z"), 0777), 0);
    write_text("z/q", "one\n");
    write_text("y", "two\n");
    write_text("z/a", "three\n");
    write_text(".hidden", "four\n");
    cr_assert_eq(symlink("y", fixture_path(sub, in, "link")), 0);
    run_ok();
    cr_assert_not(report.unchanged);
    cr_assert_eq(report.links, 1);
    char *b = fixture_read(out, "train.bin", &size_b);
    cr_assert_eq(size_a, size_b);
    cr_assert_arr_eq(a, b, size_a);
    free(a);
    free(b);
}

AP_TEST(prep, second_run_does_nothing_until_something_changes)
{
    struct stat before, after;
    char path[FIXTURE_PATH];
    write_text("a", "one\n");
    write_text("b", "two\n");
    run_ok();
    cr_assert_not(report.unchanged);
    struct ap_prep_report first = report;
    cr_assert_eq(stat(fixture_path(path, out, "train.bin"), &before), 0);
    run_ok();
    cr_assert(report.unchanged);
    first.unchanged = 1;
    cr_assert_arr_eq(&first, &report, sizeof(first), "the report read back differs");
    cr_assert_eq(stat(path, &after), 0);
    cr_assert_eq(before.st_ino, after.st_ino);
    opt.force = 1;
    run_ok();
    cr_assert_not(report.unchanged);
    opt.force = 0;
    cr_assert_eq(truncate(path, 2), 0); /* damaged output */
    run_ok();
    cr_assert_not(report.unchanged);
    opt.valid_fraction = 0.1; /* another option */
    run_ok();
    cr_assert_not(report.unchanged);
    write_text("c", "three\n"); /* another input */
    run_ok();
    cr_assert_not(report.unchanged);
    run_ok();
    cr_assert(report.unchanged);
}

AP_TEST(prep, both_sides_get_something)
{
    write_text("a", "1");
    run_ok();
    cr_assert_eq(documents("train"), 1);
    cr_assert_eq(documents("valid"), 0);
    write_text("b", "2");
    opt.valid_fraction = 1e-9;
    run_ok();
    cr_assert_eq(documents("train"), 1);
    cr_assert_eq(documents("valid"), 1);
    opt.valid_fraction = 0;
    run_ok();
    cr_assert_eq(documents("train"), 2);
    cr_assert_eq(documents("valid"), 0);
}

AP_TEST(prep, json_lines)
{
    write_text("a.jsonl", "{\"text\": \"caf\\u00e9 \\\"x\\\"\\n\"}\n\n  {\"id\": 1, \"text\": \"\"}\n");
    opt.valid_fraction = 0;
    run_ok();
    cr_assert_eq(report.empty, 1);
    expect_only("caf\xC3\xA9 \"x\"\n");
    write_text("a.jsonl", "{\"body\": \"other field, no newline at the end\"}");
    opt.jsonl_key = "body";
    run_ok();
    expect_only("other field, no newline at the end");
}

AP_TEST(prep, long_json_lines_cross_the_read_buffer)
{
    enum { N = 300000 };
    char *line = malloc(N + 64);
    cr_assert_not_null(line);
    int n = sprintf(line, "{\"text\": \"");
    memset(line + n, 'x', N);
    strcpy(line + n + N, "\"}\n{\"text\": \"second\"}\n");
    write_text("a.jsonl", line);
    opt.valid_fraction = 0;
    run_ok();
    cr_assert_eq(report.documents, 2);
    cr_assert_eq(report.bytes, N + 6);
    free(line);
}

AP_TEST(prep, json_mistakes_name_file_and_line)
{
    write_text("a.jsonl", "{\"text\": \"good\"}\n{\"text\": \"no end\n");
    run_fails(AP_ERR_INPUT, "not JSON");
    cr_assert(strstr(err.file, "a.jsonl") && err.line == 2, "%s:%ld", err.file, err.line);
    write_text("a.jsonl", "\n\n{\"content\": \"x\"}\n");
    run_fails(AP_ERR_INPUT, "no string field \"text\"");
    cr_assert_eq(err.line, 3);
    cr_assert(strstr(err.hint, "--jsonl-key"));
    write_text("a.jsonl", "{\"text\": 5}\n");
    run_fails(AP_ERR_INPUT, "no string field");
    write_text("a.jsonl", "[1]\n");
    run_fails(AP_ERR_INPUT, "no string field");
}

static void write_zstd(const char *name, const char *text, size_t cut)
{
    char packed[4096];
    size_t n = ZSTD_compress(packed, sizeof(packed), text, strlen(text), 3);
    cr_assert_not(ZSTD_isError(n));
    fixture_write(in, name, packed, n - cut);
}

AP_TEST(prep, zstd_is_read_and_checked)
{
    opt.valid_fraction = 0;
    write_zstd("a.jsonl.zst", "{\"text\": \"packed lines\"}\n", 0);
    run_ok();
    expect_only("packed lines");
    write_zstd("a.jsonl.zst", "{\"text\": \"packed lines\"}\n", 3);
    run_fails(AP_ERR_CORRUPT, "truncated zstd");
    cr_assert(strstr(err.file, "a.jsonl.zst"));
}

#ifdef AP_HAVE_ZLIB
static void write_gzip(const char *name, const char *text, int cut)
{
    unsigned char packed[4096];
    z_stream z = {0};
    cr_assert_eq(deflateInit2(&z, 9, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
    z.next_in = (unsigned char *)(uintptr_t)text;
    z.avail_in = (uInt)strlen(text);
    z.next_out = packed;
    z.avail_out = sizeof(packed);
    cr_assert_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
    fixture_write(in, name, packed, z.total_out - (size_t)cut);
    deflateEnd(&z);
}

AP_TEST(prep, gzip_is_read_and_checked)
{
    opt.valid_fraction = 0;
    write_gzip("a.txt.gz", "packed text\n", 0);
    run_ok();
    expect_only("packed text\n");
    write_gzip("a.txt.gz", "packed text\n", 5);
    run_fails(AP_ERR_CORRUPT, "truncated gzip");
    write_text("a.txt.gz", "\x1F\x8B\x08 and then nonsense that is not deflate data at all ............");
    run_fails(AP_ERR_CORRUPT, "damaged gzip");
}
#endif

AP_TEST(prep, invalid_utf8_is_repaired_or_skipped_and_counted)
{
    opt.valid_fraction = 0;
    write_text("a", "\xEF\xBB\xBFgood, with a byte order mark\n");
    write_text("b",
               "a long enough text with one bad \xFF byte in it, which is repaired by the replacement character ...\n");
    write_text("c", "\xE4\xF6\xFC\xE4\xF6\xFC\xE4\xF6\xFC latin");
    fixture_write(in, "d", "bin\0ary", 7);
    run_ok();
    cr_assert_eq(report.documents, 2);
    cr_assert_eq(report.invalid_documents, 2);
    cr_assert_eq(report.invalid_skipped, 1);
    cr_assert_eq(report.binary, 1);
    int found = 0;
    for (int64_t d = 0; d < 2; d++) {
        char *text = document("train", d, NULL);
        found += strstr(text, "bad \xEF\xBF\xBD byte") != NULL;
        found += strcmp(text, "good, with a byte order mark\n") == 0;
        free(text);
    }
    cr_assert_eq(found, 2);
    opt.invalid = AP_PREP_SKIP;
    run_ok();
    cr_assert_eq(report.documents, 1);
    cr_assert_eq(report.invalid_skipped, 2);
}

AP_TEST(prep, manual_pages_by_language)
{
    char path[FIXTURE_PATH];
    cr_assert_eq(ap_io_mkdirs(fixture_path(path, in, "man/man1"), NULL), AP_OK);
    cr_assert_eq(ap_io_mkdirs(fixture_path(path, in, "man/de/man1"), NULL), AP_OK);
    cr_assert_eq(ap_io_mkdirs(fixture_path(path, in, "man/pt_BR.UTF-8/man1"), NULL), AP_OK);
    write_text("man/man1/x.1", ".TH X 1\n.SH NAME\nx \\- a thing\n");
    write_text("man/man1/y.1", ".so man1/x.1\n");
    write_text("man/de/man1/x.1", ".TH X 1\n.SH BEZEICHNUNG\nx \\- ein Ding\n");
    write_text("man/pt_BR.UTF-8/man1/x.1", ".TH X 1\n.SH NOME\nx \\- uma coisa\n");
    write_text("man/README", "not a page\n");
    input.kind = AP_PREP_MANPAGES;
    opt.valid_fraction = 0;
    run_ok();
    cr_assert_eq(report.language_count, 3);
    cr_assert_str_eq(report.language[0].name, "de");
    cr_assert_str_eq(report.language[1].name, "en");
    cr_assert_str_eq(report.language[2].name, "pt_BR");
    cr_assert_eq(report.links, 1);
    cr_assert_eq(documents("train"), 3);
    char *text = document("de/train", 0, NULL);
    cr_assert_str_eq(text, "X(1)\n\nBEZEICHNUNG\nx - ein Ding\n");
    free(text);
    cr_assert_eq(report.language[0].train_tokens, 32);
    /* another choice removes the datasets that are no longer made */
    opt.languages = "en,pt_BR";
    run_ok();
    cr_assert_eq(report.language_count, 2);
    cr_assert_not(ap_io_exists(fixture_path(path, out, "de/train.bin")));
    cr_assert(ap_io_exists(fixture_path(path, out, "pt_BR/train.bin")));
    opt.combined_only = 1;
    run_ok();
    cr_assert_not(ap_io_exists(fixture_path(path, out, "pt_BR/train.bin")));
    opt.languages = "xx";
    run_fails(AP_ERR_INPUT, "no text");
    cr_assert(ap_io_exists(fixture_path(path, out, "train.bin")), "a failed run destroyed the older result");
}

AP_TEST(prep, paragraphs_of_many_pages_are_left_out)
{
    static const char licence[] =
        "This translation is free; see the licence for the conditions under which it may be copied further.";
    char name[32], text[512], path[FIXTURE_PATH];
    cr_assert_eq(ap_io_mkdirs(fixture_path(path, in, "man/man1"), NULL), AP_OK);
    for (int i = 0; i < 5; i++) { /* twice in each page: a page counts once; the short paragraph stays */
        snprintf(name, sizeof(name), "man/man1/%d.1", i);
        snprintf(text, sizeof(text), "page %d\n.P\nSee also.\n.P\n%s\n.P\nmiddle\n.P\n%s\n", i, licence, licence);
        write_text(name, text);
    }
    input.kind = AP_PREP_MANPAGES;
    opt.valid_fraction = 0;
    opt.boilerplate = 5;
    run_ok();
    cr_assert_eq(report.boilerplate_bytes, 0);
    cr_assert_eq(report.documents, 5);
    opt.boilerplate = 4;
    run_ok();
    cr_assert_geq(report.boilerplate_bytes, 10 * (int64_t)strlen(licence));
    for (int64_t d = 0; d < 5; d++) {
        int number;
        char *got = document("train", d, NULL), want[64];
        cr_assert_eq(sscanf(got, "page %d", &number), 1);
        snprintf(want, sizeof(want), "page %d\n\nSee also.\n\nmiddle\n", number);
        cr_assert_str_eq(got, want);
        free(got);
    }
    /* plain text is nobody's boilerplate */
    input.kind = AP_PREP_AUTO;
    run_ok();
    cr_assert_eq(report.boilerplate_bytes, 0);
}

AP_TEST(prep, language_bytes_caps_by_hash_order)
{
    char name[16], text[128];
    for (int i = 0; i < 50; i++) {
        snprintf(name, sizeof(name), "%d", i);
        snprintf(text, sizeof(text), "%0100d", i);
        write_text(name, text);
    }
    opt.language_bytes = 1050;
    run_ok();
    cr_assert_eq(report.documents, 10);
    cr_assert_eq(report.bytes, 1000);
    cr_assert_eq(report.over_limit, 40);
    cr_assert(documents("train") > 0 && documents("valid") > 0);
    opt.language_bytes = 10;
    run_fails(AP_ERR_INPUT, "smaller than every document");
}

AP_TEST(prep, entropy_is_that_of_the_validation_data)
{
    write_text("a", "0101");
    write_text("b", "0101");
    write_text("c", "00");
    opt.valid_fraction = 0.5;
    run_ok();
    cr_assert_eq(report.documents, 2);
    /* one of them validates: "0101" + end: pairs 01 10 01 1e -> 1 has 0 and e; "00" + end: 00 0e -> 0 has 0 and e */
    double want = report.valid_tokens == 5 ? 0.5 * log(2) : log(2);
    cr_assert_float_eq(report.valid_entropy, want, 1e-12);
}

/* Bytes that may still be written before the disk is full; negative: no limit. The linker sends pwrite here. */
static int64_t disk_left = -1;
ssize_t __real_pwrite(int fd, const void *data, size_t size, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *data, size_t size, off_t offset);

ssize_t __wrap_pwrite(int fd, const void *data, size_t size, off_t offset)
{
    if (disk_left < 0)
        return __real_pwrite(fd, data, size, offset);
    if (disk_left == 0) {
        errno = ENOSPC;
        return -1;
    }
    size = (int64_t)size < disk_left ? size : (size_t)disk_left; /* a short write first, as real disks do */
    disk_left -= (int64_t)size;
    return __real_pwrite(fd, data, size, offset);
}

AP_TEST(prep, full_disk_at_any_moment_is_reported_and_leaves_no_litter)
{
    char path[FIXTURE_PATH], name[16];
    for (int i = 0; i < 8; i++) {
        snprintf(name, sizeof(name), "%d", i);
        write_text(name, name);
    }
    run_ok();
    opt.force = 1;
    int64_t limit = 0;
    for (;; limit += limit < 16 ? 1 : 61) {
        disk_left = limit;
        ap_status status = ap_prep_run(&opt, &report, &err);
        int over = disk_left > 0;
        disk_left = -1;
        if (status == AP_OK && over)
            break;
        if (status == AP_OK)
            continue;
        cr_assert_eq(status, AP_ERR_NOSPACE, "limit %lld: %s", (long long)limit, err.text);
        cr_assert(strstr(err.text, "No space"), "%s", err.text);
        cr_assert(err.file[0]);
        /* While only the spool had been written the older result is whole; later prep.json is gone. */
        if (limit < 8)
            cr_assert(ap_io_exists(fixture_path(path, out, "prep.json")));
        const char *const litter[] = {".spool",        "train.bin.tmp", "train.idx.tmp",
                                      "valid.bin.tmp", "valid.idx.tmp", "prep.json.tmp"};
        for (size_t i = 0; i < sizeof(litter) / sizeof(*litter); i++)
            cr_assert_not(ap_io_exists(fixture_path(path, out, litter[i])), "limit %lld: %s", (long long)limit,
                          litter[i]);
    }
    cr_assert_gt(limit, 200);
    cr_assert(ap_io_exists(fixture_path(path, out, "prep.json")));
}

AP_TEST(prep, mistakes_have_messages)
{
    char path[FIXTURE_PATH];
    run_fails(AP_ERR_INPUT, "no text");
    input.path = fixture_path(path, dir, "nowhere");
    run_fails(AP_ERR_INPUT, "No such file");
    cr_assert(strstr(err.file, "nowhere"));
    input.path = in;
    write_text("a", "text\n");
    opt.tokenizer = "nonesuch";
    run_fails(AP_ERR_INPUT, "nonesuch");
    opt.tokenizer = NULL;
    opt.valid_fraction = 0.9;
    run_fails(AP_ERR_USAGE, "0.9");
    opt.valid_fraction = NAN;
    run_fails(AP_ERR_USAGE, "fraction");
    opt.valid_fraction = 0;
    opt.boilerplate = -1;
    opt.valid_fraction = 0;
    run_fails(AP_ERR_USAGE, "-1");
    opt.boilerplate = 0;
    opt.language = "../x";
    run_fails(AP_ERR_USAGE, "../x");
    opt.language = NULL;
    fixture_write(dir, "file", "", 0);
    opt.out_dir = fixture_path(path, dir, "file/out");
    cr_assert_neq(ap_prep_run(&opt, &report, &err), AP_OK);
    cr_assert(strstr(err.text, "Not a directory"), "%s", err.text);
    opt.out_dir = "/dev/null/x";
    cr_assert_neq(ap_prep_run(&opt, &report, &err), AP_OK);
    opt.out_dir = out;
    run_ok();
    /* another process on the folder */
    int fd = open(fixture_path(path, out, ".lock"), O_RDWR);
    cr_assert(fd >= 0 && flock(fd, LOCK_EX) == 0);
    opt.force = 1;
    run_fails(AP_ERR_LOCKED, "another antipode prep");
    close(fd);
    run_ok();
}
