/* SPDX-License-Identifier: Apache-2.0
 * Metrics, events and the decision journal: round trips, trimming after a resume, torn and broken files. */
#include "config.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <criterion/criterion.h>

#include "../support/leaks.h"
#include "base/io.h"
#include "monitor/decisions.h"
#include "monitor/events.h"
#include "monitor/jsonl.h"
#include "monitor/metrics.h"

static char dir[128];

static void make_dir(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof(dir), "%s/ap-monitor-XXXXXX", tmp && strlen(tmp) < 80 ? tmp : "/tmp");
    cr_assert(mkdtemp(dir));
}
static void drop_dir(void)
{
    ap_io_remove_tree(dir, NULL);
}
TestSuite(monitor, .init = make_dir, .fini = drop_dir, .timeout = 30);

static const char *in_dir(const char *name)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static char *content(const char *path)
{
    char *data = NULL;
    size_t n = 0;
    cr_assert_eq(ap_io_read_file(path, 1 << 20, &data, &n, NULL), AP_OK);
    return data;
}

static void put_file(const char *path, const char *text)
{
    cr_assert_eq(ap_io_write_durable(path, text, strlen(text), NULL), AP_OK);
}

static int lines(const char *path)
{
    char *text = content(path);
    int n = 0;
    for (char *p = text; *p; p++)
        n += *p == '\n';
    free(text);
    return n;
}

AP_TEST(monitor, resume_trims_later_and_torn_lines)
{
    const char *path = in_dir("metrics.jsonl");
    struct ap_metrics_file *f = NULL;
    cr_assert_eq(ap_metrics_open(path, 0, &f, NULL), AP_OK);
    for (int s = 1; s <= 5; s++)
        cr_assert_eq(ap_metrics_write(f, &(struct ap_metrics){.step = s, .loss = 1.0 / s, .valid_loss = NAN}, 0, NULL),
                     AP_OK);
    ap_metrics_close(f);
    FILE *tail = fopen(path, "a");
    fputs("{\"v\":1,\"step\":3,\"lo", tail);
    fclose(tail);
    cr_assert_eq(ap_metrics_open(path, 3, &f, NULL), AP_OK);
    cr_expect_eq(lines(path), 3);
    cr_assert_eq(ap_metrics_write(f, &(struct ap_metrics){.step = 4, .loss = NAN, .valid_loss = 2.5}, 1, NULL), AP_OK);
    ap_metrics_close(f);
    char *text = content(path);
    cr_expect_eq(lines(path), 4);
    cr_expect(strstr(text, "\"step\": 4, \"loss\": null"), "%s", text);
    cr_expect(strstr(text, "\"valid_loss\": 2.5"));
    free(text);
}

AP_TEST(monitor, console_line)
{
    char buf[400];
    struct ap_metrics m = {.step = 10,
                           .loss = 5.1234,
                           .grad_norm = 1.234,
                           .loss_z = 0.123,
                           .norm_z = NAN,
                           .lr = 3e-4,
                           .step_ms = 123.44,
                           .tokens_per_s = 12345,
                           .mfu = 0.1234,
                           .memory = 123 << 20,
                           .skipped = 2};
    ap_metrics_console(&m, 500, 62, buf, sizeof(buf));
    cr_expect_str_eq(buf,
                     "step 10/500 | loss 5.1234 (+0.12z) | norm 1.23 | lr 3.00e-04 | 123.4 ms | 12345 tok/s | "
                     "mfu 12.3% | mem 123 MiB | eta 1m02s | skipped 2",
                     "%s", buf);
    ap_metrics_duration(-1, buf, sizeof(buf));
    cr_expect_str_eq(buf, "?");
    ap_metrics_duration(3 * 3600 + 5 * 60, buf, sizeof(buf));
    cr_expect_str_eq(buf, "3h05m");
}

AP_TEST(monitor, events_are_trimmed_by_step)
{
    const char *path = in_dir("events.jsonl");
    struct ap_events *e = NULL;
    cr_assert_eq(ap_events_open(path, 0, &e, NULL), AP_OK);
    ap_events_emit(e, AP_LOG_DEBUG, 0, "start", "run %s", "a \"b\"");
    ap_events_emit(e, AP_LOG_DEBUG, 7, "skip", "step 7");
    ap_events_close(e);
    cr_assert_eq(ap_events_open(path, 6, &e, NULL), AP_OK);
    ap_events_close(e);
    char *text = content(path);
    cr_expect(strstr(text, "\"kind\": \"start\"") && strstr(text, "run a \\\"b\\\"") && !strstr(text, "step 7"), "%s",
              text);
    free(text);
    ap_events_emit(NULL, AP_LOG_ERROR, 1, "x", "nothing happens");
}

AP_TEST(monitor, a_full_disk_is_an_error_and_leaves_no_torn_line)
{
    struct ap_jsonl *f = NULL;
    struct ap_error err = {0};
    if (access("/dev/full", W_OK) != 0)
        cr_skip_test("no /dev/full on this system");
    cr_assert_eq(ap_jsonl_open("/dev/full", &f, NULL), AP_OK);
    struct ap_json j = {0};
    ap_json_begin_object(&j, NULL);
    ap_json_end_object(&j);
    cr_expect_eq(ap_jsonl_append(f, &j, 0, &err), AP_ERR_NOSPACE);
    cr_expect(strstr(err.text, "No space left") && strcmp(err.file, "/dev/full") == 0);
    ap_strbuf_clear(&j.text);
    ap_jsonl_close(f);
    cr_expect_neq(ap_jsonl_open(in_dir("no/such/dir"), &f, &err), AP_OK);
}

static struct ap_journal *opened(const char *path)
{
    struct ap_journal *j = NULL;
    struct ap_error err = {0};
    cr_assert_eq(ap_journal_open(path, &j, &err), AP_OK, "%s", err.text);
    return j;
}

AP_TEST(monitor, journal_keeps_numbers_and_finds_the_entry_in_force)
{
    const char *path = in_dir("decisions.jsonl");
    struct ap_journal *j = opened(path);
    cr_assert_eq(ap_journal_decide(j, 1, "threads", "{\"n\":2,\"isa\":\"avx2\"}", NULL), AP_OK);
    cr_assert_eq(ap_journal_decide(j, 1, "world", "{\"ranks\":4}", NULL), AP_OK);
    cr_assert_eq(ap_journal_decide(j, 31, "world", "{\"ranks\":2}", NULL), AP_OK);
    ap_journal_close(j);
    j = opened(path);
    cr_assert_eq(ap_journal_count(j), 3);
    cr_expect_eq(ap_journal_find(j, "world", 30)->number, 2);
    cr_expect_eq(ap_journal_find(j, "world", 31)->number, 3);
    cr_expect_null(ap_journal_find(j, "world", 0));
    cr_expect_null(ap_journal_find(j, "codec", 99));
    int64_t n = 0;
    char isa[16];
    cr_expect_eq(ap_decision_i64(ap_journal_at(j, 0), "n", &n), AP_OK);
    cr_expect_eq(n, 2);
    cr_expect_eq(ap_decision_text(ap_journal_at(j, 0), "isa", isa, sizeof(isa)), AP_OK);
    cr_expect_str_eq(isa, "avx2");
    cr_expect_eq(ap_decision_i64(ap_journal_at(j, 0), "isa", &n), AP_ERR_NOTFOUND);
    cr_expect_eq(ap_decision_text(ap_journal_at(j, 0), "isa", isa, 4), AP_ERR_NOTFOUND);
    ap_journal_close(j);
}

AP_TEST(monitor, journal_removes_a_torn_line_and_refuses_a_broken_one)
{
    const char *path = in_dir("decisions.jsonl");
    const char *good = "{\"v\":1,\"n\":1,\"step\":1,\"kind\":\"a\",\"value\":{}}\n";
    struct ap_error err = {0};
    struct ap_journal *j = NULL;
    char text[400];
    snprintf(text, sizeof(text), "%s{\"v\":1,\"n\":2,\"ste", good);
    put_file(path, text);
    cr_assert_eq(ap_journal_read(path, &j, &err), AP_OK); /* a reader leaves the file alone */
    ap_journal_close(j);
    char *after = content(path);
    cr_expect_str_eq(after, text);
    free(after);
    j = opened(path);
    cr_assert_eq(ap_journal_count(j), 1);
    cr_assert_eq(ap_journal_decide(j, 2, "b", "{}", NULL), AP_OK);
    ap_journal_close(j);
    j = opened(path);
    cr_assert_eq(ap_journal_count(j), 2);
    ap_journal_close(j);

    snprintf(text, sizeof(text), "%s{\"v\":1,\"n\":3,\"step\":1,\"kind\":\"a\",\"value\":{}}\n", good);
    put_file(path, text);
    cr_expect_eq(ap_journal_open(path, &j, &err), AP_ERR_CORRUPT);
    cr_expect(err.line == 2 && strstr(err.text, "number 2 is due"), "%s", err.text);
    put_file(path, "nonsense\n");
    cr_expect_eq(ap_journal_open(path, &j, &err), AP_ERR_CORRUPT);
    cr_expect_eq(err.line, 1);
    put_file(path, "{\"v\":9,\"n\":1,\"step\":1,\"kind\":\"a\",\"value\":{}}\n");
    cr_expect_eq(ap_journal_open(path, &j, &err), AP_ERR_FORMAT);
    cr_expect_eq(ap_journal_read(in_dir("missing"), &j, &err), AP_ERR_INPUT);
}

AP_TEST(monitor, journal_comes_back_from_a_checkpoint)
{
    struct ap_journal *j = opened(in_dir("one.jsonl"));
    cr_assert_eq(ap_journal_decide(j, 1, "a", "{\"x\":1}", NULL), AP_OK);
    cr_assert_eq(ap_journal_decide(j, 5, "b", "{\"y\":\"two\"}", NULL), AP_OK);
    char *saved = ap_journal_json(j);
    ap_journal_close(j);

    j = opened(in_dir("two.jsonl"));
    cr_assert_eq(ap_journal_restore(j, saved, NULL), AP_OK);
    cr_assert_eq(ap_journal_count(j), 2);
    cr_assert_eq(ap_journal_restore(j, saved, NULL), AP_OK); /* again: nothing to do */
    cr_assert_eq(ap_journal_count(j), 2);
    ap_journal_close(j);
    j = opened(in_dir("two.jsonl"));
    cr_expect_str_eq(ap_journal_at(j, 1)->value, "{\"y\":\"two\"}");
    ap_journal_close(j);

    j = opened(in_dir("three.jsonl"));
    cr_assert_eq(ap_journal_decide(j, 1, "a", "{\"x\":2}", NULL), AP_OK);
    cr_expect_eq(ap_journal_restore(j, saved, NULL), AP_ERR_CORRUPT);
    cr_expect_eq(ap_journal_restore(j, "{}", NULL), AP_ERR_CORRUPT);
    ap_journal_close(j);
    free(saved);

    j = opened(NULL); /* in memory */
    cr_assert_eq(ap_journal_decide(j, 1, "a", "{}", NULL), AP_OK);
    saved = ap_journal_json(j);
    cr_expect_str_eq(saved, "[{\"v\": 1, \"n\": 1, \"step\": 1, \"kind\": \"a\", \"value\": {}}]");
    free(saved);
    ap_journal_close(j);
}
