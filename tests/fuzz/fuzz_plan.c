/* SPDX-License-Identifier: Apache-2.0
 * Fuzz target: plan.json. Whatever the bytes, the answer is one error with a text, or a plan that holds together and,
 * written out, is read back to the same text. */
#include "config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "plan/plan_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *text_of(const struct ap_plan *p)
{
    struct ap_json j = {0};
    ap_json_begin_object(&j, NULL);
    ap_plan_json(p, &j);
    ap_json_end_object(&j);
    char *text = ap_strbuf_take(&j.text);
    if (text == NULL)
        abort();
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ap_plan *p = NULL, *again = NULL;
    struct ap_error err = {0};
    ap_status status = ap_plan_parse("p.json", (const char *)data, size, &p, &err);
    if (status != AP_OK) {
        if (p != NULL || err.status != status || err.text[0] == '\0')
            abort();
        return 0;
    }
    char *first = text_of(p);
    if (ap_plan_check(p, NULL, 0, &err) != AP_OK ||
        ap_plan_parse("p.json", first, strlen(first), &again, &err) != AP_OK)
        abort();
    char *second = text_of(again);
    if (strcmp(first, second) != 0)
        abort();
    free(first);
    free(second);
    ap_plan_destroy(p);
    ap_plan_destroy(again);
    return 0;
}
