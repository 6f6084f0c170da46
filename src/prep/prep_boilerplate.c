/* SPDX-License-Identifier: Apache-2.0
 * Manual pages end in licences, translators' notes and the like that hundreds of pages share word for word.
 * A model would learn to recite them, and pages on both sides of the split would have them in common. So
 * paragraphs that occur in more than a given number of pages are left out, before pages are hashed. */
#include "config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "prep/prep_state.h"

enum { LEAST_SIZE = 80 }; /* bytes: shorter paragraphs are headings, options, names */

/* Paragraphs by hash: in how many pages, and the last of them, so that a page counts once. Zero key: free. */
struct seen {
    struct seen_entry {
        uint64_t key;
        int64_t page;
        int64_t count;
    } *entries;
    int64_t slots, used;
};

static struct seen_entry *find(const struct seen *s, uint64_t key)
{
    uint64_t i = key & (uint64_t)(s->slots - 1);
    while (s->entries[i].key && s->entries[i].key != key)
        i = (i + 1) & (uint64_t)(s->slots - 1);
    return &s->entries[i];
}

static ap_status grow(struct seen *s, struct ap_error *err)
{
    struct seen bigger = {.slots = s->slots ? 2 * s->slots : 1 << 16, .used = s->used};
    bigger.entries = calloc((size_t)bigger.slots, sizeof(*bigger.entries));
    if (!bigger.entries)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    for (int64_t i = 0; i < s->slots; i++)
        if (s->entries[i].key)
            *find(&bigger, s->entries[i].key) = s->entries[i];
    free(s->entries);
    *s = bigger;
    return AP_OK;
}

/* The paragraph at text with the empty line behind it. */
static size_t paragraph(const char *text, size_t size)
{
    const char *end = memmem(text, size, "\n\n", 2);
    return end ? (size_t)(end - text) + 2 : size;
}

/* Without the newlines at its end, which the last paragraph of a page has fewer of. */
static uint64_t key_of(const char *text, size_t size)
{
    while (size && text[size - 1] == '\n')
        size--;
    return size < LEAST_SIZE ? 0 : ap_hash64(text, size, 0) | 1;
}

static ap_status count_page(struct seen *s, const char *text, size_t size, int64_t page, struct ap_error *err)
{
    for (size_t n; size; text += n, size -= n) {
        n = paragraph(text, size);
        uint64_t key = key_of(text, n);
        if (!key)
            continue;
        if (2 * (s->used + 1) > s->slots)
            AP_TRY(grow(s, err));
        struct seen_entry *e = find(s, key);
        s->used += e->key == 0;
        if (e->key == 0 || e->page != page)
            *e = (struct seen_entry){key, page, e->count + 1};
    }
    return AP_OK;
}

/* Close the gaps in place; returns the new size. */
static size_t shrink_page(const struct seen *s, char *text, size_t size, int64_t limit, int64_t *dropped)
{
    size_t used = 0;
    for (size_t at = 0, n; at < size; at += n) {
        n = paragraph(text + at, size - at);
        uint64_t key = key_of(text + at, n);
        if (key && find(s, key)->count > limit) {
            *dropped += (int64_t)n;
            continue;
        }
        memmove(text + used, text + at, n);
        used += n;
    }
    if (used && used < size) /* the end may have been cut off */
        while (used > 1 && text[used - 1] == '\n' && text[used - 2] == '\n')
            used--;
    return used;
}

static ap_status drop(struct prep *p, char *spool, struct seen *s, struct ap_error *err)
{
    int64_t kept = 0;
    for (int64_t i = 0; i < p->document_count; i++)
        if (p->documents[i].page)
            AP_TRY(count_page(s, spool + p->documents[i].offset, (size_t)p->documents[i].size, i, err));
    for (int64_t i = 0; i < p->document_count; i++) {
        struct prep_document d = p->documents[i];
        if (d.page && s->slots) {
            char *text = spool + d.offset;
            d.size = (int64_t)shrink_page(s, text, (size_t)d.size, p->opt->boilerplate, &p->report.boilerplate_bytes);
            d.hash = ap_hash128(text, (size_t)d.size);
        }
        if (d.size)
            p->documents[kept++] = d;
        else
            p->report.empty++;
    }
    p->document_count = kept;
    return AP_OK;
}

ap_status prep_drop_boilerplate(struct prep *p, struct ap_error *err)
{
    struct seen s = {0};
    if (p->opt->boilerplate == 0 || p->spool_size == 0)
        return AP_OK;
    void *spool = mmap(NULL, (size_t)p->spool_size, PROT_READ | PROT_WRITE, MAP_SHARED, p->spool_fd, 0);
    if (spool == MAP_FAILED)
        return ap_error_set(err, ap_status_from_errno(errno), "cannot map the spool file: %s", strerror(errno));
    ap_status status = drop(p, spool, &s, err);
    munmap(spool, (size_t)p->spool_size);
    free(s.entries);
    return status;
}
