/* SPDX-License-Identifier: Apache-2.0
 * Reading JSON on machines without the yyjson package: those of its names that config.json, safetensors
 * headers and golden numbers need, by a small parser of our own (compat/json_reader.c). What writes JSON is
 * declared only; nothing in bench/gpu calls it, and the linker drops its callers. */
#ifndef AP_BENCH_GPU_YYJSON_H
#define AP_BENCH_GPU_YYJSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct yyjson_val yyjson_val;
typedef struct yyjson_doc yyjson_doc;
typedef struct {
    unsigned code;
    const char *msg;
    size_t pos;
} yyjson_read_err;

#define YYJSON_READ_NOFLAG             0u
#define YYJSON_WRITE_NOFLAG            0u
#define YYJSON_WRITE_PRETTY            1u
#define YYJSON_WRITE_PRETTY_TWO_SPACES 2u

/* NULL and *err (may be NULL) on malformed text; alc is not used. The document copies the text. */
yyjson_doc *yyjson_read_opts(char *text, size_t size, unsigned flags, const void *alc, yyjson_read_err *err);
yyjson_doc *yyjson_read(const char *text, size_t size, unsigned flags);
void yyjson_doc_free(yyjson_doc *doc);
yyjson_val *yyjson_doc_get_root(yyjson_doc *doc);

/* All of these take NULL: not of that kind, 0, NULL. */
bool yyjson_is_null(yyjson_val *v);
bool yyjson_is_bool(yyjson_val *v);
bool yyjson_is_uint(yyjson_val *v);
bool yyjson_is_int(yyjson_val *v);
bool yyjson_is_num(yyjson_val *v);
bool yyjson_is_str(yyjson_val *v);
bool yyjson_is_arr(yyjson_val *v);
bool yyjson_is_obj(yyjson_val *v);
bool yyjson_get_bool(yyjson_val *v);
uint64_t yyjson_get_uint(yyjson_val *v);
int64_t yyjson_get_sint(yyjson_val *v);
double yyjson_get_num(yyjson_val *v);
const char *yyjson_get_str(yyjson_val *v);
size_t yyjson_arr_size(yyjson_val *v);
yyjson_val *yyjson_arr_get(yyjson_val *v, size_t index);
size_t yyjson_obj_size(yyjson_val *v);
yyjson_val *yyjson_obj_get(yyjson_val *v, const char *key);
yyjson_val *yyjson_first_child(yyjson_val *v);
yyjson_val *yyjson_next_sibling(yyjson_val *v);

/* Members of an object are stored key, value, key, value. */
#define yyjson_obj_foreach(obj, idx, max, key, val)                                                                    \
    for ((idx) = 0, (max) = yyjson_obj_size(obj), (key) = yyjson_first_child(obj), (val) = yyjson_next_sibling(key);   \
         (idx) < (max); (idx)++, (key) = yyjson_next_sibling(val), (val) = yyjson_next_sibling(key))
#define yyjson_arr_foreach(arr, idx, max, val)                                                                         \
    for ((idx) = 0, (max) = yyjson_arr_size(arr), (val) = yyjson_first_child(arr); (idx) < (max);                      \
         (idx)++, (val) = yyjson_next_sibling(val))

typedef struct yyjson_mut_doc yyjson_mut_doc;
typedef struct yyjson_mut_val yyjson_mut_val;
yyjson_mut_doc *yyjson_mut_doc_new(const void *alc);
void yyjson_mut_doc_free(yyjson_mut_doc *doc);
void yyjson_mut_doc_set_root(yyjson_mut_doc *doc, yyjson_mut_val *root);
yyjson_mut_val *yyjson_mut_obj(yyjson_mut_doc *doc);
yyjson_mut_val *yyjson_mut_obj_add_arr(yyjson_mut_doc *doc, yyjson_mut_val *obj, const char *key);
yyjson_mut_val *yyjson_mut_obj_add_obj(yyjson_mut_doc *doc, yyjson_mut_val *obj, const char *key);
bool yyjson_mut_obj_add_bool(yyjson_mut_doc *doc, yyjson_mut_val *obj, const char *key, bool v);
bool yyjson_mut_obj_add_int(yyjson_mut_doc *doc, yyjson_mut_val *obj, const char *key, int64_t v);
bool yyjson_mut_obj_add_null(yyjson_mut_doc *doc, yyjson_mut_val *obj, const char *key);
bool yyjson_mut_obj_add_real(yyjson_mut_doc *doc, yyjson_mut_val *obj, const char *key, double v);
bool yyjson_mut_obj_add_str(yyjson_mut_doc *doc, yyjson_mut_val *obj, const char *key, const char *v);
bool yyjson_mut_arr_add_str(yyjson_mut_doc *doc, yyjson_mut_val *arr, const char *v);
bool yyjson_mut_arr_add_int(yyjson_mut_doc *doc, yyjson_mut_val *arr, int64_t v);
bool yyjson_mut_arr_add_uint(yyjson_mut_doc *doc, yyjson_mut_val *arr, uint64_t v);
char *yyjson_mut_write(yyjson_mut_doc *doc, unsigned flags, size_t *size);

#endif
