/* SPDX-License-Identifier: Apache-2.0
 * A hash table from names to numbers. */
#include "config.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "plan/name_index.h"

/* The slot that holds name or is free for it. */
static size_t slot_of(const struct ap_name_index *x, const char *name)
{
    size_t at = ap_hash64(name, strlen(name), 0) & (x->slot_count - 1);
    while (x->slots[at] >= 0 && strcmp(x->names[x->slots[at]], name) != 0)
        at = (at + 1) & (x->slot_count - 1);
    return at;
}

int ap_name_find(const struct ap_name_index *x, const char *name)
{
    return x->slot_count > 0 ? x->slots[slot_of(x, name)] : -1;
}

/* Twice the room, all names placed anew. */
static int grow(struct ap_name_index *x)
{
    size_t count = x->slot_count > 0 ? 2 * x->slot_count : 64;
    char **names = realloc(x->names, count / 2 * sizeof *names);
    if (names == NULL)
        return -1;
    x->names = names;
    int *slots = malloc(count * sizeof *slots);
    if (slots == NULL)
        return -1;
    for (size_t i = 0; i < count; i++)
        slots[i] = -1;
    free(x->slots);
    x->slots = slots;
    x->slot_count = count;
    for (int i = 0; i < x->count; i++)
        x->slots[slot_of(x, x->names[i])] = i;
    return 0;
}

int ap_name_add(struct ap_name_index *x, const char *name)
{
    int known = ap_name_find(x, name);
    if (known >= 0)
        return known;
    if ((size_t)x->count * 2 >= x->slot_count && grow(x) != 0)
        return -1;
    char *copy = strdup(name);
    if (copy == NULL)
        return -1;
    x->slots[slot_of(x, name)] = x->count;
    x->names[x->count] = copy;
    return x->count++;
}

void ap_name_clear(struct ap_name_index *x)
{
    for (int i = 0; i < x->count; i++)
        free(x->names[i]);
    free(x->names);
    free(x->slots);
    *x = (struct ap_name_index){0};
}
