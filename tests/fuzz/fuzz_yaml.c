/* SPDX-License-Identifier: Apache-2.0
 * Fuzz target: the YAML reader. Whatever the bytes, it answers with a tree inside its limits or with one error that
 * has a text and, when it is about the content, a line. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "base/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Nodes below and including this one; aborts where the tree breaks its own description. */
static size_t visit(const struct ap_yaml_node *n, int depth)
{
    size_t nodes = 1;
    if (n->line < 1 || n->column < 1 || depth > AP_YAML_MAX_DEPTH + 1 ||
        (n->kind == AP_YAML_SCALAR) != (n->text != NULL))
        abort();
    size_t children = n->kind == AP_YAML_MAP ? 2 * n->count : n->kind == AP_YAML_LIST ? n->count : 0;
    for (size_t i = 0; i < children; i++)
        nodes += visit(n->items[i], depth + 1);
    return nodes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ap_yaml_node *root = NULL;
    struct ap_error err = {0};
    if (ap_yaml_parse("job.yaml", (const char *)data, size, &root, &err) == AP_OK) {
        if (visit(root, 0) > AP_YAML_MAX_NODES + 1)
            abort();
    } else if (root != NULL || err.text[0] == '\0' || memchr(err.text, '\0', sizeof err.text) == NULL) {
        abort();
    }
    ap_yaml_free(root);
    return 0;
}
