/* SPDX-License-Identifier: Apache-2.0
 * From documents to datasets: order by hash, drop duplicates, cap and split, tokenize, write. */
#include "config.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "prep/prep_state.h"
#include "text/bigram.h"
#include "text/megatron.h"

enum { CHUNK = 1 << 16 };

/* By content; of equal documents the one that was read first. */
static int by_hash(const void *pa, const void *pb)
{
    const struct prep_document *a = pa, *b = pb;
    if (a->hash.low != b->hash.low)
        return a->hash.low < b->hash.low ? -1 : 1;
    if (a->hash.high != b->hash.high)
        return a->hash.high < b->hash.high ? -1 : 1;
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

/* With few documents a side may stay empty by chance: move the document nearest to the border over. */
static void fill_sides(struct prep *p)
{
    int64_t valid = 0, lowest = 0, highest = 0;
    for (int64_t i = 0; i < p->document_count; i++) {
        const struct prep_document *d = p->documents;
        valid += d[i].valid;
        lowest = d[i].hash.high < d[lowest].hash.high ? i : lowest;
        highest = d[i].hash.high > d[highest].hash.high ? i : highest;
    }
    if (valid == p->document_count)
        p->documents[highest].valid = 0;
    else if (valid == 0 && p->document_count > 1 && p->opt->valid_fraction > 0)
        p->documents[lowest].valid = 1;
}

static int by_language_name(const void *a, const void *b)
{
    return strcmp(((const struct ap_prep_language *)a)->name, ((const struct ap_prep_language *)b)->name);
}

/* Languages in the order of their names, so that nothing depends on which file came first. */
static void sort_languages(struct prep *p)
{
    struct ap_prep_report *r = &p->report;
    struct ap_prep_language old[AP_PREP_MAX_LANGUAGES];
    int32_t map[AP_PREP_MAX_LANGUAGES] = {0};
    memcpy(old, r->language, sizeof(old));
    qsort(r->language, (size_t)r->language_count, sizeof(*r->language), by_language_name);
    for (int i = 0; i < r->language_count; i++)
        for (int k = 0; k < r->language_count; k++)
            if (strcmp(old[i].name, r->language[k].name) == 0)
                map[i] = k;
    for (int64_t i = 0; i < p->document_count; i++)
        p->documents[i].language = map[p->documents[i].language];
}

ap_status prep_select(struct prep *p, struct ap_error *err)
{
    struct ap_prep_report *r = &p->report;
    int64_t kept = 0;
    if (p->document_count == 0) {
        ap_error_set(err, AP_ERR_INPUT, "the input holds no text: %lld files read, %lld empty, %lld binary",
                     (long long)r->files, (long long)r->empty, (long long)r->binary);
        ap_error_hint(err, "for a folder of manual pages use --manpages; pages lie below man/ or man/LANG/");
        return AP_ERR_INPUT;
    }
    sort_languages(p);
    qsort(p->documents, (size_t)p->document_count, sizeof(*p->documents), by_hash);
    for (int64_t i = 0; i < p->document_count; i++) {
        struct prep_document *d = &p->documents[i];
        struct ap_prep_language *l = &r->language[d->language];
        if (kept && ap_hash128_equal(d->hash, p->documents[kept - 1].hash)) {
            r->duplicates++;
            continue;
        }
        if (p->opt->language_bytes && l->bytes + d->size > p->opt->language_bytes) {
            r->over_limit++;
            continue;
        }
        l->bytes += d->size;
        l->documents++;
        r->bytes += d->size;
        d->valid = (double)(d->hash.high >> 11) * 0x1p-53 < p->opt->valid_fraction;
        p->documents[kept++] = *d;
    }
    p->document_count = r->documents = kept;
    if (kept == 0)
        return ap_error_set(err, AP_ERR_INPUT, "--language-bytes %lld is smaller than every document",
                            (long long)p->opt->language_bytes);
    fill_sides(p);
    return AP_OK;
}

struct output {
    int language; /* -1: all */
    int valid;
    char path[64];
    int64_t tokens;
    double entropy;
};

static ap_status write_document(struct prep *p, struct ap_megatron_writer *w, const struct prep_document *d,
                                const char *text, int32_t *ids, int64_t *count_p, struct ap_error *err)
{
    const int32_t end = ap_tokenizer_end_of_document(p->tokenizer);
    AP_TRY(ap_tokenizer_encode(p->tokenizer, text, (size_t)d->size, ids, count_p, err));
    AP_TRY(ap_megatron_writer_append(w, ids, *count_p, err));
    ++*count_p;
    AP_TRY(ap_megatron_writer_append(w, &end, 1, err));
    return ap_megatron_writer_end_document(w, err);
}

static ap_status write_documents(struct prep *p, const struct output *o, const char *spool,
                                 struct ap_megatron_writer *w, struct ap_error *err)
{
    int32_t *ids = NULL;
    int64_t room = 0;
    ap_status status = AP_OK;
    for (int64_t i = 0; i < p->document_count && status == AP_OK; i++) {
        const struct prep_document *d = &p->documents[i];
        if (d->valid != o->valid || (o->language >= 0 && d->language != o->language))
            continue;
        int64_t need = ap_tokenizer_encode_bound(p->tokenizer, (size_t)d->size);
        if (need > room) {
            free(ids);
            room = need > CHUNK ? need : CHUNK;
            ids = malloc((size_t)room * sizeof(*ids));
            if (!ids)
                status = ap_error_set(err, AP_ERR_NOMEM, "out of memory");
        }
        int64_t count = 0;
        if (status == AP_OK)
            status = write_document(p, w, d, spool + d->offset, ids, &count, err);
        struct ap_prep_language *l = &p->report.language[d->language];
        if (o->language < 0)
            *(d->valid ? &l->valid_tokens : &l->train_tokens) += count;
    }
    free(ids);
    return status;
}

static ap_status measure(struct prep *p, const char *prefix, struct output *o, struct ap_error *err)
{
    struct ap_megatron *m;
    struct ap_bigram *b;
    AP_TRY(ap_megatron_open(prefix, &m, err));
    ap_status status = ap_bigram_create(ap_tokenizer_vocab_size(p->tokenizer), &b, err);
    if (status == AP_OK) {
        status = ap_bigram_add_dataset(b, m, err);
        o->entropy = ap_bigram_entropy(b);
        ap_bigram_destroy(b);
    }
    ap_megatron_close(m);
    return status;
}

static ap_status write_output(struct prep *p, struct output *o, const char *spool, struct prep_json *json,
                              struct ap_error *err)
{
    const char *name = o->language >= 0 ? p->report.language[o->language].name : NULL;
    struct ap_megatron_written written = {0};
    struct ap_megatron_writer *w;
    size_t size = strlen(p->opt->out_dir) + sizeof(o->path) + 2;
    char *prefix = malloc(size);
    if (!prefix)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    snprintf(o->path, sizeof(o->path), "%s%s%s", name ? name : "", name ? "/" : "", o->valid ? "valid" : "train");
    snprintf(prefix, size, "%s/%s", p->opt->out_dir, name ? name : "");
    ap_status status = name ? ap_io_mkdirs(prefix, err) : AP_OK;
    snprintf(prefix, size, "%s/%s", p->opt->out_dir, o->path);
    if (status == AP_OK)
        status =
            ap_megatron_writer_create(prefix, ap_megatron_dtype_for(ap_tokenizer_vocab_size(p->tokenizer)), &w, err);
    if (status == AP_OK) {
        status = write_documents(p, o, spool, w, err);
        if (status == AP_OK)
            status = ap_megatron_writer_commit(w, &written, err);
        ap_megatron_writer_destroy(w);
    }
    o->tokens = written.tokens;
    if (status == AP_OK && o->valid)
        status = measure(p, prefix, o, err);
    if (status == AP_OK)
        status = prep_json_add_file(json, o->path, name, &written, err);
    free(prefix);
    return status;
}

/* Both splits of one language (or all, -1). */
static ap_status write_pair(struct prep *p, int language, const char *spool, struct prep_json *json,
                            struct output out[2], struct ap_error *err)
{
    for (int valid = 0; valid < 2; valid++) {
        out[valid] = (struct output){.language = language, .valid = valid};
        AP_TRY(write_output(p, &out[valid], spool, json, err));
    }
    return AP_OK;
}

static ap_status write_all(struct prep *p, const char *spool, struct prep_json *json, struct ap_error *err)
{
    struct ap_prep_report *r = &p->report;
    struct output out[2];
    AP_TRY(write_pair(p, -1, spool, json, out, err));
    r->train_tokens = out[0].tokens;
    r->valid_tokens = out[1].tokens;
    r->valid_entropy = out[1].entropy;
    if (r->language_count == 1)
        r->language[0].valid_entropy = r->valid_entropy;
    for (int l = 0; l < r->language_count && r->language_count > 1 && !p->opt->combined_only; l++) {
        if (r->language[l].documents == 0)
            continue; /* nothing but duplicates of other languages */
        AP_TRY(write_pair(p, l, spool, json, out, err));
        r->language[l].valid_entropy = out[1].entropy;
    }
    return AP_OK;
}

ap_status prep_write(struct prep *p, struct prep_json *json, struct ap_error *err)
{
    /* Not empty: prep_select left at least one document, and none is empty. */
    void *spool = mmap(NULL, (size_t)p->spool_size, PROT_READ, MAP_PRIVATE, p->spool_fd, 0);
    if (spool == MAP_FAILED)
        return ap_error_set(err, ap_status_from_errno(errno), "cannot map the spool file: %s", strerror(errno));
    ap_status status = write_all(p, spool, json, err);
    munmap(spool, (size_t)p->spool_size);
    return status;
}
