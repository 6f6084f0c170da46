/* SPDX-License-Identifier: Apache-2.0
 * The trainer over virtual ranks and a stand-in model: the same losses, weights and evaluations for any number
 * of ranks, after any stop and resume, with another number of ranks too; steps that are not finite; criteria;
 * stop requests; run directories that cannot be used. */
#include "config.h"

#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <sys/file.h>

#include "../support/leaks.h"
#include "../support/vranks.h"
#include "base/log.h"
#include "fake_model.h"
#include "monitor/decisions.h"
#include "text_fixture.h"
#include "train/trainer.h"

enum { DOCS = 40 };

static char dir[FIXTURE_PATH];

/* Documents of pseudo-random bytes; poison >= 0: that document holds the token that makes the loss NaN. */
static void dataset(const char *name, int docs, int64_t poison)
{
    char path[FIXTURE_PATH];
    struct ap_megatron_writer *w;
    int32_t tokens[97];
    cr_assert_eq(ap_megatron_writer_create(fixture_path(path, dir, name), AP_MEGATRON_U16, &w, NULL), AP_OK);
    uint32_t x = 12345;
    for (int d = 0; d < docs; d++) {
        int n = 40 + d % 57;
        for (int i = 0; i < n; i++) {
            x = x * 1664525u + 1013904223u;
            tokens[i] = (int32_t)(x >> 24);
        }
        if (d == poison)
            tokens[n / 2] = FAKE_POISON;
        tokens[n] = 256;
        cr_assert_eq(ap_megatron_writer_append(w, tokens, n + 1, NULL), AP_OK);
        cr_assert_eq(ap_megatron_writer_end_document(w, NULL), AP_OK);
    }
    cr_assert_eq(ap_megatron_writer_commit(w, NULL, NULL), AP_OK);
    ap_megatron_writer_destroy(w);
}

static void setup(void)
{
    fixture_dir(dir);
    cr_assert_eq(chdir(dir), 0);
    cr_assert_eq(setenv("ANTIPODE_DATADIR", AP_TEST_INPUTS, 1), 0);
    unsetenv("SLURM_SUBMIT_DIR");
    unsetenv("PBS_O_WORKDIR");
    ap_log_setup(AP_LOG_ERROR, 1); /* quiet: nothing on standard output */
    dataset("train", DOCS, -1);
    dataset("valid", 9, -1);
    static const char yaml[] = "name: t\ntrain_steps: 12\nseed: 3\nthreads: 1\nbackend: reference\n"
                               "model: {preset: tiny-v3}\n"
                               "data: {train: train, valid: valid, seq_len: 16}\n"
                               "batch: {global_sequences: 14, micro_sequences: 2}\n"
                               "optim: {lr: 1e-2, schedule: constant, warmup_steps: 2}\n"
                               "checkpoint: {every: 4, keep: 3}\n"
                               "eval: {every: 4, sequences: 13}\n"
                               "monitor: {peak_gflops: 100}\n";
    fixture_write(dir, "job.yaml", yaml, sizeof(yaml) - 1);
}

static void teardown(void)
{
    cr_assert_eq(chdir("/"), 0);
    fixture_remove(dir);
}

TestSuite(trainer, .init = setup, .fini = teardown, .timeout = 120);

struct outcome {
    ap_status status[VRANKS_MAX];
    struct ap_train_result res[VRANKS_MAX];
    struct ap_error err[VRANKS_MAX];
    const struct ap_job *job;
    const char *replay;
    const struct ap_signals *signals;
    double deadline;
};

static void rank_main(struct vrank *v)
{
    struct outcome *o = v->ctx;
    struct ap_train_options opt = {.job = o->job,
                                   .comm = v->comm,
                                   .node_ranks = v->comm->size,
                                   .mpi_version = "virtual",
                                   .replay = o->replay,
                                   .signals = o->signals,
                                   .deadline = o->deadline};
    int r = v->comm->rank;
    o->status[r] = ap_train_run(&opt, &o->res[r], &o->err[r]);
}

/* Train with overrides "key=value", NULL at the end; all ranks must agree on the outcome. */
static ap_status run(int ranks, struct outcome *o, const char *const *sets)
{
    struct ap_override list[16];
    char keys[16][64];
    struct ap_error err = {0};
    struct ap_job *job = NULL;
    int n = 0;
    for (; sets && sets[n]; n++) {
        const char *eq = strchr(sets[n], '=');
        snprintf(keys[n], sizeof(keys[n]), "%.*s", (int)(eq - sets[n]), sets[n]);
        list[n] = (struct ap_override){keys[n], eq + 1};
    }
    cr_assert_eq(ap_job_load("job.yaml", list, n, &job, &err), AP_OK, "%s: %s", err.file, err.text);
    o->job = job;
    memset(o->err, 0, sizeof(o->err));
    vranks_run(ranks, rank_main, o);
    ap_job_destroy(job);
    for (int r = 1; r < ranks; r++) {
        cr_assert_eq(o->status[r], o->status[0], "rank %d: status %d, rank 0: %d", r, o->status[r], o->status[0]);
        cr_assert_str_eq(o->err[r].text, o->err[0].text);
        cr_assert_str_eq(o->res[r].weights_hash, o->res[0].weights_hash);
    }
    return o->status[0];
}
#define RUN(ranks, o, ...) run(ranks, o, (const char *const[]){__VA_ARGS__, NULL})

/* The members of the metrics lines that must not depend on ranks or resumes, up to "tokens_per_s". */
static char *metrics(const char *name)
{
    char path[FIXTURE_PATH];
    size_t size, kept = 0;
    snprintf(path, sizeof(path), "runs/%s/metrics.jsonl", name);
    char *text = fixture_read(dir, path, &size);
    for (char *line = text; *line;) {
        char *end = strchr(line, '\n'), *stop = strstr(line, "\"tokens_per_s\"");
        cr_assert(end && stop && stop < end, "line without figures: %s", line);
        memmove(text + kept, line, (size_t)(stop - line));
        kept += (size_t)(stop - line);
        text[kept++] = '\n';
        line = end + 1;
    }
    text[kept] = 0;
    return text;
}

static void expect_same(const char *a, const char *b)
{
    char *x = metrics(a), *y = metrics(b);
    cr_expect_str_eq(x, y);
    free(x);
    free(y);
}

static int has_text(const char *name, const char *file, const char *what)
{
    char path[FIXTURE_PATH];
    size_t size;
    snprintf(path, sizeof(path), "runs/%s/%s", name, file);
    char *text = fixture_read(dir, path, &size);
    int found = strstr(text, what) != NULL;
    free(text);
    return found;
}

AP_TEST(trainer, same_bits_for_any_number_of_ranks)
{
    struct outcome one = {0}, o = {0};
    cr_assert_eq(RUN(1, &one, "name=r1"), AP_OK, "%s", one.err[0].text);
    cr_assert_eq(strlen(one.res[0].weights_hash), 32);
    cr_expect(isfinite(one.res[0].valid_loss) && one.res[0].best_step > 0);
    for (int ranks = 2; ranks <= 7; ranks++) {
        char name[16], set[32];
        snprintf(name, sizeof(name), "r%d", ranks);
        snprintf(set, sizeof(set), "name=%s", name);
        cr_assert_eq(RUN(ranks, &o, set), AP_OK, "%s", o.err[0].text);
        cr_expect_str_eq(o.res[0].weights_hash, one.res[0].weights_hash, "%d ranks", ranks);
        expect_same("r1", name);
    }
    cr_expect(has_text("r1", "summary.json", "\"verdict\": \"valid\""));
    cr_expect(has_text("r1", "summary.json", one.res[0].weights_hash));
    cr_expect(has_text("r1", "job.yaml", "train_steps: 12"));
}

AP_TEST(trainer, resume_is_bit_exact_with_any_number_of_ranks)
{
    struct outcome whole = {0}, o = {0};
    cr_assert_eq(RUN(3, &whole, "name=whole"), AP_OK);
    for (int first = 1; first <= 3; first++) {
        char name[16], set[32];
        snprintf(name, sizeof(name), "p%d", first);
        snprintf(set, sizeof(set), "name=%s", name);
        /* stops of different kinds: an end that is not a checkpoint step, a longer run, other ranks each time */
        cr_assert_eq(RUN(first, &o, set, "train_steps=5"), AP_OK);
        cr_assert_eq(RUN(first + 1, &o, set, "train_steps=6"), AP_OK);
        cr_assert_eq(RUN(5 - first, &o, set), AP_OK, "%s", o.err[0].text);
        cr_expect_str_eq(o.res[0].weights_hash, whole.res[0].weights_hash);
        cr_expect(has_text(name, "events.jsonl", "resumed from the state of step 6"));
        cr_expect(has_text(name, "summary.json", "\"resumes\": 2"));
    }
    /* once more: nothing left to do, the same verdict */
    cr_assert_eq(RUN(2, &o, "name=whole"), AP_OK);
    cr_expect_str_eq(o.res[0].weights_hash, whole.res[0].weights_hash);
}

AP_TEST(trainer, lost_steps_are_done_again_and_their_lines_replaced)
{
    struct outcome whole = {0}, o = {0};
    char path[FIXTURE_PATH];
    cr_assert_eq(RUN(2, &whole, "name=whole"), AP_OK);
    cr_assert_eq(RUN(2, &o, "name=lost"), AP_OK);
    /* as after a crash in step 12: the newest state is that of step 8, the metrics know more */
    cr_assert_eq(ap_io_remove_tree(fixture_path(path, dir, "runs/lost/ckpt/step-000000000012"), NULL), AP_OK);
    cr_assert_eq(RUN(3, &o, "name=lost"), AP_OK, "%s", o.err[0].text);
    cr_expect_str_eq(o.res[0].weights_hash, whole.res[0].weights_hash);
    expect_same("whole", "lost");
    cr_expect(has_text("lost", "events.jsonl", "resumed from the state of step 8"));
    cr_expect(has_text("lost", "decisions.jsonl", "\"ranks\":3"));
}

AP_TEST(trainer, a_lost_journal_comes_back_from_the_checkpoint)
{
    struct outcome o = {0};
    char path[FIXTURE_PATH];
    cr_assert_eq(RUN(2, &o, "name=j", "train_steps=4"), AP_OK);
    cr_assert_eq(unlink(fixture_path(path, dir, "runs/j/decisions.jsonl")), 0);
    cr_assert_eq(RUN(2, &o, "name=j"), AP_OK, "%s", o.err[0].text);
    cr_expect(has_text("j", "decisions.jsonl", "\"kind\": \"threads\""));
    /* and a damaged one is not overwritten */
    fixture_write(dir, "runs/j/decisions.jsonl", "garbage\n", 8);
    cr_assert_eq(RUN(2, &o, "name=j"), AP_ERR_CORRUPT);
    cr_expect(has_text("j", "decisions.jsonl", "garbage"));
}

AP_TEST(trainer, after_a_fall_back_the_journal_tells_of_the_ranks_at_work)
{
    struct outcome o = {0};
    struct ap_journal *j = NULL;
    char path[FIXTURE_PATH];
    int64_t ranks = 0;
    cr_assert_eq(RUN(2, &o, "name=f", "train_steps=4"), AP_OK);
    cr_assert_eq(RUN(3, &o, "name=f", "train_steps=8"), AP_OK);
    cr_assert_eq(RUN(2, &o, "name=f"), AP_OK);
    cr_assert_eq(ap_io_remove_tree(fixture_path(path, dir, "runs/f/ckpt/step-000000000012"), NULL), AP_OK);
    cr_assert_eq(ap_io_remove_tree(fixture_path(path, dir, "runs/f/ckpt/step-000000000008"), NULL), AP_OK);
    /* the journal's last word is 2 ranks, from step 9; for step 5 it said 3 */
    cr_assert_eq(RUN(2, &o, "name=f"), AP_OK, "%s", o.err[0].text);
    cr_assert_eq(ap_journal_read(fixture_path(path, dir, "runs/f/decisions.jsonl"), &j, NULL), AP_OK);
    const struct ap_decision *d = ap_journal_find(j, "world", 5);
    cr_assert(d && ap_decision_i64(d, "ranks", &ranks) == AP_OK);
    cr_expect_eq(ranks, 2);
    ap_journal_close(j);
}

AP_TEST(trainer, steps_that_are_not_finite_are_skipped_and_counted)
{
    struct outcome o = {0}, p = {0};
    dataset("poisoned", DOCS, 17);
    cr_assert_eq(RUN(1, &o, "name=nan1", "data.train=poisoned", "train_steps=20"), AP_OK, "%s", o.err[0].text);
    cr_assert_eq(RUN(4, &p, "name=nan4", "data.train=poisoned", "train_steps=20"), AP_OK, "%s", p.err[0].text);
    cr_expect(o.res[0].skipped > 0 && o.res[0].skipped < 10, "%lld skipped", (long long)o.res[0].skipped);
    cr_expect_str_eq(o.res[0].weights_hash, p.res[0].weights_hash);
    cr_expect(has_text("nan1", "events.jsonl", "\"kind\": \"skip\""));
    expect_same("nan1", "nan4");
}

AP_TEST(trainer, too_many_of_them_in_a_row_end_the_run)
{
    struct outcome o = {0};
    dataset("poison", 1, 0);
    /* clean steps first, so that there is a state to keep */
    cr_assert_eq(RUN(2, &o, "name=bad", "train_steps=4"), AP_OK);
    cr_assert_eq(RUN(2, &o, "name=bad", "data.train=poison", "batch.global_sequences=40", "limits.nan_steps=3"),
                 AP_ERR_INVALID);
    cr_expect(strstr(o.err[0].text, "not finite in steps 5 to 7"), "%s", o.err[0].text);
    cr_expect(strstr(o.err[0].hint, "state of step 4 is kept"), "%s", o.err[0].hint);
    cr_expect(has_text("bad", "summary.json", "\"verdict\": \"invalid\""));
    cr_expect(has_text("bad", "events.jsonl", "global_sequences was 14 when the state was saved and is 40 now"));
    /* the job mended, it goes on from step 4 */
    cr_assert_eq(RUN(2, &o, "name=bad", "train_steps=6"), AP_OK, "%s", o.err[0].text);
    cr_expect_eq(o.res[0].step, 6);
}

AP_TEST(trainer, criteria_of_the_job)
{
    struct outcome o = {0};
    cr_assert_eq(RUN(1, &o, "name=v", "train_steps=4"), AP_OK);
    char hash[64];
    snprintf(hash, sizeof(hash), "expect.weights_hash=%s", o.res[0].weights_hash);
    cr_expect_eq(RUN(2, &o, "name=v2", "train_steps=4", hash), AP_OK, "%s", o.err[0].text);
    cr_expect_eq(RUN(2, &o, "name=v3", "train_steps=4", "expect.weights_hash=00112233445566778899aabbccddeeff"),
                 AP_ERR_INVALID);
    cr_expect(strstr(o.err[0].text, "weights hash"));
    cr_expect_eq(RUN(2, &o, "name=v4", "train_steps=4", "expect.valid_loss_max=0.000001"), AP_ERR_INVALID);
    cr_expect(strstr(o.err[0].text, "above expect.valid_loss_max"));
    cr_expect_eq(RUN(2, &o, "name=v5", "train_steps=4", "expect.valid_loss_min=1000"), AP_ERR_INVALID);
    cr_expect_eq(RUN(2, &o, "name=v6", "train_steps=4", "expect.below_bigram=true"), AP_OK, "%s", o.err[0].text);
    cr_expect(has_text("v3", "summary.json", "\"verdict\": \"invalid\""));
}

AP_TEST(trainer, a_stop_request_saves_and_the_run_goes_on_later)
{
    struct outcome whole = {0}, o = {0};
    struct ap_signals *s = NULL;
    cr_assert_eq(RUN(2, &whole, "name=whole"), AP_OK);
    cr_assert_eq(ap_signals_start(&s, NULL), AP_OK);
    cr_assert_eq(kill(getpid(), SIGUSR2), 0);
    for (int i = 0; i < 1000 && ap_signals_count(s) == 0; i++)
        usleep(1000);
    cr_assert_eq(ap_signals_count(s), 1);
    o.signals = s;
    cr_assert_eq(RUN(2, &o, "name=s"), AP_ERR_STOPPED);
    cr_expect_eq(o.res[0].step, 1);
    cr_expect(strstr(o.err[0].text, "stopped on request after step 1 of 12"), "%s", o.err[0].text);
    cr_expect(has_text("s", "summary.json", "\"verdict\": \"stopped\""));
    ap_signals_stop(s);
    o.signals = NULL;
    cr_assert_eq(RUN(3, &o, "name=s"), AP_OK, "%s", o.err[0].text);
    cr_expect_str_eq(o.res[0].weights_hash, whole.res[0].weights_hash);
    expect_same("whole", "s");
}

Test(trainer, the_second_request_does_not_wait, .signal = SIGTERM)
{
    struct ap_signals *s = NULL;
    cr_assert_eq(ap_signals_start(&s, NULL), AP_OK);
    kill(getpid(), SIGUSR2);
    for (int i = 0; i < 1000 && ap_signals_count(s) == 0; i++)
        usleep(1000);
    kill(getpid(), SIGTERM);
    sleep(10);
    cr_assert_fail("still alive");
}

AP_TEST(trainer, the_batch_systems_deadline_stops_in_time)
{
    struct outcome o = {.deadline = 1000}; /* long past */
    cr_assert_eq(RUN(3, &o, "name=d"), AP_ERR_STOPPED);
    cr_expect_eq(o.res[0].step, 1);
    setenv("SLURM_JOB_END_TIME", "1234567890", 1);
    cr_expect_eq(ap_deadline_wall(), 1234567890);
    setenv("SLURM_JOB_END_TIME", "soon", 1);
    cr_expect_eq(ap_deadline_wall(), 0);
}

AP_TEST(trainer, two_jobs_on_one_run_directory)
{
    struct outcome o = {0};
    cr_assert_eq(RUN(1, &o, "name=l", "train_steps=2"), AP_OK);
    int fd = open("runs/l/LOCK", O_RDWR);
    cr_assert(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0, "the lock was not given back");
    cr_expect_eq(RUN(2, &o, "name=l"), AP_ERR_LOCKED);
    cr_expect(strstr(o.err[0].text, "another job is running"), "%s", o.err[0].text);
    close(fd);
    cr_expect_eq(RUN(2, &o, "name=l", "train_steps=3"), AP_OK, "%s", o.err[0].text);
}

AP_TEST(trainer, directories_that_cannot_be_used)
{
    struct outcome o = {0};
    fixture_write(dir, "afile", "x", 1);
    cr_expect_neq(RUN(2, &o, "run_dir=afile/run"), AP_OK);
    cr_expect(o.err[0].file[0], "no path in the message: %s", o.err[0].text);
    cr_assert_eq(RUN(1, &o, "name=n", "train_steps=2"), AP_OK);
    cr_expect_eq(RUN(1, &o, "name=n", "checkpoint.resume=false"), AP_ERR_INPUT);
    cr_expect(strstr(o.err[0].text, "checkpoint.resume is off"), "%s", o.err[0].text);
    cr_expect_eq(RUN(1, &o, "name=m", "checkpoint.resume=true"), AP_ERR_NOTFOUND);
}

AP_TEST(trainer, ranks_that_the_batch_cannot_feed)
{
    struct outcome o = {0};
    cr_expect_eq(RUN(8, &o, "name=x"), AP_ERR_INPUT);
    cr_expect(strstr(o.err[0].text, "data 8 x expert 1: a step has only 7 micro-batches"), "%s", o.err[0].text);
    cr_expect(strstr(o.err[0].hint, "at most data 7"), "%s", o.err[0].hint);
    cr_expect_eq(RUN(2, &o, "name=x", "parallel.data=3"), AP_ERR_INPUT);
    cr_expect_eq(RUN(3, &o, "name=x", "parallel.pipeline=2"), AP_ERR_INPUT);
    cr_expect_neq(access("runs/x", F_OK), 0, "a refused job leaves nothing behind");
}

AP_TEST(trainer, replay_takes_the_decisions_of_another_run)
{
    struct outcome o = {0};
    char path[FIXTURE_PATH];
    cr_assert_eq(RUN(1, &o, "name=first", "train_steps=2", "threads=3"), AP_OK);
    o.replay = fixture_path(path, dir, "runs/first/decisions.jsonl");
    cr_assert_eq(RUN(1, &o, "name=second", "train_steps=2", "threads=auto"), AP_OK);
    cr_expect(has_text("second", "decisions.jsonl", "\"per_rank\":3"));
    o.replay = "no/such/file";
    cr_expect_eq(RUN(1, &o, "name=third", "threads=auto"), AP_ERR_INPUT);
}
