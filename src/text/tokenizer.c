/* SPDX-License-Identifier: Apache-2.0
 * Tokenizers: the dispatch and the byte-level one. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "text/tokenizer.h"

enum { BYTES_END = 256, BYTES_VOCAB = 257 };

/* What a kind of tokenizer has to offer. */
struct tokenizer_ops {
    const char *name;
    int64_t vocab_size;
    int32_t end_of_document;
    int64_t (*encode_bound)(size_t size);
    size_t (*decode_bound)(int64_t count);
    ap_status (*encode)(const char *text, size_t size, int32_t *ids, int64_t *count_p, struct ap_error *err);
    ap_status (*decode)(const int32_t *ids, int64_t count, char *text, size_t *size_p, struct ap_error *err);
};

struct ap_tokenizer {
    const struct tokenizer_ops *ops;
};

static int64_t bytes_encode_bound(size_t size)
{
    return (int64_t)size;
}

static size_t bytes_decode_bound(int64_t count)
{
    return (size_t)count;
}

static ap_status bytes_encode(const char *text, size_t size, int32_t *ids, int64_t *count_p, struct ap_error *err)
{
    (void)err;
    for (size_t i = 0; i < size; i++)
        ids[i] = (uint8_t)text[i];
    *count_p = (int64_t)size;
    return AP_OK;
}

static ap_status bytes_decode(const int32_t *ids, int64_t count, char *text, size_t *size_p, struct ap_error *err)
{
    size_t used = 0;
    (void)err;
    for (int64_t i = 0; i < count; i++)
        if (ids[i] >= 0 && ids[i] < BYTES_END)
            text[used++] = (char)ids[i];
    *size_p = used;
    return AP_OK;
}

static const struct tokenizer_ops bytes_ops = {
    .name = "bytes",
    .vocab_size = BYTES_VOCAB,
    .end_of_document = BYTES_END,
    .encode_bound = bytes_encode_bound,
    .decode_bound = bytes_decode_bound,
    .encode = bytes_encode,
    .decode = bytes_decode,
};

ap_status ap_tokenizer_open(const char *spec, struct ap_tokenizer **t_p, struct ap_error *err)
{
    if (!spec || strcmp(spec, bytes_ops.name) != 0) {
        ap_error_set(err, AP_ERR_INPUT, "unknown tokenizer \"%s\"", spec ? spec : "");
        ap_error_hint(err, "the tokenizer of this version is \"bytes\"");
        return AP_ERR_INPUT;
    }
    struct ap_tokenizer *t = malloc(sizeof(*t));
    if (!t)
        return ap_error_set(err, AP_ERR_NOMEM, "out of memory");
    t->ops = &bytes_ops;
    *t_p = t;
    return AP_OK;
}

void ap_tokenizer_close(struct ap_tokenizer *t)
{
    free(t);
}

const char *ap_tokenizer_name(const struct ap_tokenizer *t)
{
    return t->ops->name;
}

int64_t ap_tokenizer_vocab_size(const struct ap_tokenizer *t)
{
    return t->ops->vocab_size;
}

int32_t ap_tokenizer_end_of_document(const struct ap_tokenizer *t)
{
    return t->ops->end_of_document;
}

int64_t ap_tokenizer_encode_bound(const struct ap_tokenizer *t, size_t size)
{
    return t->ops->encode_bound(size);
}

ap_status ap_tokenizer_encode(const struct ap_tokenizer *t, const char *text, size_t size, int32_t *ids,
                              int64_t *count_p, struct ap_error *err)
{
    return t->ops->encode(text, size, ids, count_p, err);
}

size_t ap_tokenizer_decode_bound(const struct ap_tokenizer *t, int64_t count)
{
    return t->ops->decode_bound(count);
}

ap_status ap_tokenizer_decode(const struct ap_tokenizer *t, const int32_t *ids, int64_t count, char *text,
                              size_t *size_p, struct ap_error *err)
{
    return t->ops->decode(ids, count, text, size_p, err);
}
