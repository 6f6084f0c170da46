/* SPDX-License-Identifier: Apache-2.0
 * Writing JSON into a text, one value after another: for JSONL lines and small reports. (Reading is done by
 * yyjson.) The writer places commas; the caller keeps begin and end balanced. NaN and infinities, which JSON
 * lacks, become null. Strings must be UTF-8; what is not becomes U+FFFD. */
#ifndef AP_BASE_JSON_H
#define AP_BASE_JSON_H

#include <stdint.h>
#include "base/strbuf.h"

#define AP_JSON_DEPTH 32

struct ap_json {
    struct ap_strbuf text; /* take it with ap_strbuf_take when done */
    int indent;            /* spaces per level, 0: all on one line */
    int depth;
    char filled[AP_JSON_DEPTH]; /* something stands before in this level */
};

/* key: NULL inside an array or for the root value. */
void ap_json_begin_object(struct ap_json *j, const char *key);
void ap_json_end_object(struct ap_json *j);
void ap_json_begin_array(struct ap_json *j, const char *key);
void ap_json_end_array(struct ap_json *j);
void ap_json_str(struct ap_json *j, const char *key, const char *value); /* NULL value: null */
void ap_json_int(struct ap_json *j, const char *key, int64_t value);
void ap_json_uint(struct ap_json *j, const char *key, uint64_t value);
void ap_json_real(struct ap_json *j, const char *key, double value);
void ap_json_bool(struct ap_json *j, const char *key, int value);
void ap_json_null(struct ap_json *j, const char *key);
/* Text that is JSON already, copied as it is. */
void ap_json_raw(struct ap_json *j, const char *key, const char *json);

#endif
