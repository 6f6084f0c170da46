/* SPDX-License-Identifier: Apache-2.0
 * YAML by libfyaml's events. The tree is built with an explicit stack, so that depth costs no C stack. */
#include "config.h"

#include <libfyaml.h>
#include <stdlib.h>
#include <string.h>

#include "base/io.h"
#include "base/utf8.h"
#include "base/yaml.h"

#define MAP_MAX_PAIRS 2000 /* duplicate keys are looked for pair by pair */

struct build {
    const char *name, *text;
    size_t size;
    struct ap_error *err;
    struct ap_yaml_node *root;
    struct ap_yaml_node *stack[AP_YAML_MAX_DEPTH];
    int depth;
    long nodes;
    int documents;
};

static ap_status fail_at(const struct build *b, long line, long column, const char *text, const char *hint)
{
    ap_error_set(b->err, AP_ERR_INPUT, "%s", text);
    ap_error_at(b->err, b->name, line, column);
    if (hint != NULL)
        ap_error_hint(b->err, "%s", hint);
    return AP_ERR_INPUT;
}

/* Line and column, in characters, of a byte of text. */
static void place_of(const char *text, size_t offset, long *line_p, long *column_p)
{
    long line = 1, column = 1;
    for (size_t i = 0; i < offset; i++) {
        if (text[i] == '\n') {
            line++;
            column = 1;
        } else if (((unsigned char)text[i] & 0xc0) != 0x80) {
            column++;
        }
    }
    *line_p = line;
    *column_p = column;
}

/* What libfyaml would take silently or misread. */
static ap_status check_bytes(const struct build *b, const char *text, size_t size)
{
    long line, column;
    if (size > AP_YAML_MAX_BYTES)
        return fail_at(b, 0, 0, "the file is larger than 1 MiB", NULL);
    size_t bad = ap_utf8_validate(text, size);
    if (bad < size) {
        place_of(text, bad, &line, &column);
        ap_error_set(b->err, AP_ERR_INPUT, "byte 0x%02x is not valid UTF-8", (unsigned)(unsigned char)text[bad]);
        ap_error_at(b->err, b->name, line, column);
        ap_error_hint(b->err, "save the file as UTF-8");
        return AP_ERR_INPUT;
    }
    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0)
        return fail_at(b, 1, 1, "the file begins with a byte order mark", "save it as UTF-8 without BOM");
    const char *nul = size > 0 ? memchr(text, '\0', size) : NULL;
    if (nul != NULL) {
        place_of(text, (size_t)(nul - text), &line, &column);
        return fail_at(b, line, column, "the file holds a NUL byte", "a job file is plain text");
    }
    return AP_OK;
}

/* Slots in use: a map whose last key still waits for its value has one more than 2 * count. */
static size_t slots(const struct ap_yaml_node *n)
{
    if (n->kind == AP_YAML_MAP)
        return 2 * n->count + (n->items != NULL && n->capacity > 2 * n->count && n->items[2 * n->count] != NULL);
    return n->count;
}

void ap_yaml_free(struct ap_yaml_node *root)
{
    if (root == NULL)
        return;
    /* Depth is bounded by AP_YAML_MAX_DEPTH. */
    size_t n = slots(root);
    for (size_t i = 0; i < n; i++)
        ap_yaml_free(root->items[i]);
    free(root->items);
    free(root->text);
    free(root);
}

static ap_status append(const struct build *b, struct ap_yaml_node *parent, struct ap_yaml_node *child)
{
    size_t used = slots(parent);
    if (used + 2 > parent->capacity) {
        size_t capacity = parent->capacity > 0 ? 2 * parent->capacity : 8;
        struct ap_yaml_node **grown = realloc(parent->items, capacity * sizeof *grown);
        if (grown == NULL)
            return ap_error_set(b->err, AP_ERR_NOMEM, "no memory for a YAML document");
        memset(grown + parent->capacity, 0, (capacity - parent->capacity) * sizeof *grown);
        parent->items = grown;
        parent->capacity = capacity;
    }
    parent->items[used] = child;
    if (parent->kind == AP_YAML_LIST || used % 2 == 1)
        parent->count++;
    return AP_OK;
}

/* A key must be a scalar and new in its map. */
static ap_status check_key(const struct build *b, const struct ap_yaml_node *map, const struct ap_yaml_node *key)
{
    if (key->kind != AP_YAML_SCALAR)
        return fail_at(b, key->line, key->column, "a key must be plain text, not a list or a map", NULL);
    if (map->count >= MAP_MAX_PAIRS)
        return fail_at(b, key->line, key->column, "too many keys in one map", NULL);
    for (size_t i = 0; i < map->count; i++) {
        const struct ap_yaml_node *first = map->items[2 * i];
        if (strcmp(first->text, key->text) != 0)
            continue;
        ap_error_set(b->err, AP_ERR_INPUT, "key '%.200s' is given twice, the first time in line %ld", key->text,
                     first->line);
        ap_error_at(b->err, b->name, key->line, key->column);
        ap_error_hint(b->err, "remove one of the two");
        return AP_ERR_INPUT;
    }
    return AP_OK;
}

/* Put child below the innermost open node; on failure child is freed. */
static ap_status place(struct build *b, struct ap_yaml_node *child)
{
    ap_status status = AP_OK;
    if (b->depth == 0) {
        b->root = child;
        return AP_OK;
    }
    struct ap_yaml_node *parent = b->stack[b->depth - 1];
    if (parent->kind == AP_YAML_MAP && slots(parent) % 2 == 0)
        status = check_key(b, parent, child);
    if (status == AP_OK)
        status = append(b, parent, child);
    if (status != AP_OK)
        ap_yaml_free(child);
    return status;
}

static ap_status copy_text(const struct build *b, struct fy_token *value, struct ap_yaml_node *node)
{
    size_t size = 0;
    const char *text = value != NULL ? fy_token_get_text(value, &size) : "";
    if (text == NULL)
        return ap_error_set(b->err, AP_ERR_NOMEM, "no memory for a YAML scalar");
    if (memchr(text, '\0', size) != NULL)
        return fail_at(b, node->line, node->column, "a text may not hold a NUL character", NULL);
    node->text = malloc(size + 1);
    if (node->text == NULL)
        return ap_error_set(b->err, AP_ERR_NOMEM, "no memory for a YAML scalar");
    memcpy(node->text, text, size);
    node->text[size] = '\0';
    node->quoted = value != NULL && fy_token_scalar_style(value) != FYSS_PLAIN;
    return AP_OK;
}

static ap_status add_node(struct build *b, struct fy_event *e, int kind, long line, long column)
{
    if (++b->nodes > AP_YAML_MAX_NODES)
        return fail_at(b, line, column, "the file has too many entries", NULL);
    if (kind != AP_YAML_SCALAR && b->depth >= AP_YAML_MAX_DEPTH)
        return fail_at(b, line, column, "nested too deeply", "a job file needs no more than a few levels");
    struct ap_yaml_node *node = calloc(1, sizeof *node);
    if (node == NULL)
        return ap_error_set(b->err, AP_ERR_NOMEM, "no memory for a YAML document");
    node->kind = kind;
    node->line = line;
    node->column = column;
    if (kind == AP_YAML_SCALAR) {
        ap_status status = copy_text(b, e->scalar.value, node);
        if (status != AP_OK) {
            ap_yaml_free(node);
            return status;
        }
    }
    AP_TRY(place(b, node));
    if (kind != AP_YAML_SCALAR)
        b->stack[b->depth++] = node;
    return AP_OK;
}

static ap_status take_event(struct build *b, struct fy_event *e)
{
    const struct fy_mark *mark = fy_event_start_mark(e);
    long line = mark != NULL ? mark->line + 1 : 0, column = mark != NULL ? mark->column + 1 : 0;
    if (fy_event_get_anchor_token(e) != NULL || e->type == FYET_ALIAS)
        return fail_at(b, line, column, "anchors and aliases (& and *) are not allowed",
                       "write the value out, or quote it");
    if (fy_event_get_tag_token(e) != NULL)
        return fail_at(b, line, column, "tags (!) are not allowed", "write the plain value, or quote it");
    switch (e->type) {
    case FYET_DOCUMENT_START:
        if (++b->documents > 1)
            return fail_at(b, line, column, "a second document begins here", "one file holds one document");
        return AP_OK;
    case FYET_MAPPING_START:
        return add_node(b, e, AP_YAML_MAP, line, column);
    case FYET_SEQUENCE_START:
        return add_node(b, e, AP_YAML_LIST, line, column);
    case FYET_SCALAR:
        return add_node(b, e, AP_YAML_SCALAR, line, column);
    case FYET_MAPPING_END:
    case FYET_SEQUENCE_END:
        b->depth--;
        return AP_OK;
    default:
        return AP_OK;
    }
}

/* First line from `line` on that is indented with a tab, 0: none. libfyaml's own words for it mislead. */
static long tab_line(const struct build *b, long line)
{
    long at = 1;
    int leading = 1;
    for (size_t i = 0; i < b->size; i++) {
        if (leading && b->text[i] == '\t' && at >= line)
            return at;
        if (b->text[i] == '\n') {
            at++;
            leading = 1;
        } else if (b->text[i] != ' ') {
            leading = 0;
        }
    }
    return 0;
}

/* The first message that libfyaml collected becomes ours. */
static ap_status parser_error(const struct build *b, struct fy_diag *diag)
{
    void *it = NULL;
    struct fy_diag_error *first = fy_diag_errors_iterate(diag, &it);
    if (first == NULL)
        return fail_at(b, 0, 0, "not valid YAML", NULL);
    ap_error_set(b->err, AP_ERR_INPUT, "not valid YAML: %s", first->msg);
    ap_error_at(b->err, b->name, first->line, first->column);
    long tab = tab_line(b, first->line);
    if (tab > 0)
        ap_error_hint(b->err, "line %ld is indented with a tab: use spaces", tab);
    return AP_ERR_INPUT;
}

static ap_status run_parser(struct build *b, struct fy_parser *parser, struct fy_diag *diag)
{
    ap_status status = AP_OK;
    for (;;) {
        struct fy_event *e = fy_parser_parse(parser);
        if (e == NULL)
            return fy_diag_got_error(diag) ? parser_error(b, diag) : AP_OK;
        int last = e->type == FYET_STREAM_END;
        status = take_event(b, e);
        fy_parser_event_free(parser, e);
        if (status != AP_OK || last)
            return status;
    }
}

static ap_status parse_text(struct build *b, const char *text, size_t size)
{
    struct fy_diag_cfg dc;
    fy_diag_cfg_default(&dc);
    dc.fp = NULL; /* collect, print nothing */
    dc.level = FYET_ERROR;
    struct fy_diag *diag = fy_diag_create(&dc);
    if (diag == NULL)
        return ap_error_set(b->err, AP_ERR_NOMEM, "no memory for the YAML parser");
    fy_diag_set_collect_errors(diag, true);
    struct fy_parse_cfg pc = {.flags = FYPCF_QUIET | FYPCF_COLLECT_DIAG | FYPCF_DEFAULT_VERSION_1_2 | FYPCF_JSON_NONE,
                              .diag = diag};
    struct fy_parser *parser = fy_parser_create(&pc);
    ap_status status = AP_ERR_NOMEM;
    if (parser == NULL || fy_parser_set_string(parser, text, size) != 0)
        ap_error_set(b->err, AP_ERR_NOMEM, "no memory for the YAML parser");
    else
        status = run_parser(b, parser, diag);
    if (parser != NULL)
        fy_parser_destroy(parser);
    fy_diag_destroy(diag);
    return status;
}

ap_status ap_yaml_parse(const char *name, const char *text, size_t size, struct ap_yaml_node **root_p,
                        struct ap_error *err)
{
    struct build b = {.name = name, .text = text, .size = size, .err = err};
    AP_TRY(check_bytes(&b, text, size));
    ap_status status = AP_OK;
    if (size > 0)
        status = parse_text(&b, text, size);
    if (status == AP_OK && (b.root == NULL || (b.root->kind == AP_YAML_SCALAR && ap_yaml_is_null(b.root)))) {
        ap_yaml_free(b.root);
        b.root = calloc(1, sizeof *b.root);
        if (b.root == NULL)
            return ap_error_set(err, AP_ERR_NOMEM, "no memory for a YAML document");
        b.root->kind = AP_YAML_MAP;
        b.root->line = 1;
        b.root->column = 1;
    }
    if (status != AP_OK) {
        ap_yaml_free(b.root);
        return status;
    }
    *root_p = b.root;
    return AP_OK;
}

ap_status ap_yaml_load(const char *path, struct ap_yaml_node **root_p, struct ap_error *err)
{
    char *text;
    size_t size;
    AP_TRY(ap_io_read_file(path, AP_YAML_MAX_BYTES, &text, &size, err));
    ap_status status = ap_yaml_parse(path, text, size, root_p, err);
    free(text);
    return status;
}

const struct ap_yaml_node *ap_yaml_get(const struct ap_yaml_node *map, const char *key)
{
    if (map == NULL || map->kind != AP_YAML_MAP)
        return NULL;
    for (size_t i = 0; i < map->count; i++)
        if (strcmp(map->items[2 * i]->text, key) == 0)
            return map->items[2 * i + 1];
    return NULL;
}

int ap_yaml_is_null(const struct ap_yaml_node *node)
{
    if (node->kind != AP_YAML_SCALAR || node->quoted)
        return 0;
    return node->text[0] == '\0' || strcmp(node->text, "~") == 0 || strcmp(node->text, "null") == 0;
}
