/* SPDX-License-Identifier: Apache-2.0
 * A YAML document as a small tree in which every node knows its line and column. Read with libfyaml's event
 * parser under limits, because the text may be hostile: it is checked to be UTF-8 first (libfyaml drops what
 * follows an invalid byte without a word), anchors, aliases, tags, several documents and duplicate keys are
 * refused, as are texts over 1 MiB, more than 100 000 nodes and nesting over 32. Thread-safe. */
#ifndef AP_BASE_YAML_H
#define AP_BASE_YAML_H

#include <stddef.h>
#include "base/status.h"

#define AP_YAML_MAX_BYTES (1u << 20)
#define AP_YAML_MAX_NODES 100000
#define AP_YAML_MAX_DEPTH 32

enum ap_yaml_kind { AP_YAML_SCALAR, AP_YAML_MAP, AP_YAML_LIST };

struct ap_yaml_node {
    int kind;          /* enum ap_yaml_kind */
    long line, column; /* from 1 */
    char *text;        /* scalar: its value, NUL-terminated (no NUL inside), else NULL */
    int quoted;        /* scalar: in quotes or a block, so never null, a number or a truth value */
    size_t count;      /* map: pairs, list: entries */
    size_t capacity;
    struct ap_yaml_node **items; /* map: key, value, key, value...; list: entries */
};

/* Parse a text; name (borrowed during the call) is the file named in errors, NULL: none. *root_p is owned by
 * the caller (ap_yaml_free). An empty document gives an empty map. AP_ERR_INPUT with line and column. */
ap_status ap_yaml_parse(const char *name, const char *text, size_t size, struct ap_yaml_node **root_p,
                        struct ap_error *err);
/* Read and parse a file. */
ap_status ap_yaml_load(const char *path, struct ap_yaml_node **root_p, struct ap_error *err);
void ap_yaml_free(struct ap_yaml_node *root);
/* Value of a key of a map, NULL if absent. */
const struct ap_yaml_node *ap_yaml_get(const struct ap_yaml_node *map, const char *key);
/* An unquoted empty, ~ or null scalar. */
int ap_yaml_is_null(const struct ap_yaml_node *node);

#endif
