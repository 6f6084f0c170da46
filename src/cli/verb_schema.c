/* SPDX-License-Identifier: Apache-2.0
 * antipode schema: JSON Schema of the job file, for editors. */
#include "config.h"

#include <stdlib.h>

#include "base/log.h"
#include "cli/verbs.h"

const struct ap_verb ap_verb_desc_schema = {
    .name = "schema",
    .operands = "",
    .summary = "print the JSON Schema of job files",
    .doc =
        "Prints a JSON Schema (draft 2020-12) of the job file, from the table that also checks it. Editors that know "
        "YAML schemas complete and check with it:\n\n"
        "  antipode schema > antipode.schema.json\n"
        "  # yaml-language-server: $schema=antipode.schema.json",
    .run = ap_verb_schema,
};

int ap_verb_schema(int argc, char **argv)
{
    struct ap_cli_args args;
    struct ap_error err = {0};
    int code = ap_cli_begin(&ap_verb_desc_schema, argc, argv, &args, NULL);
    if (code >= 0)
        return code;
    ap_status status = AP_OK;
    char *text = ap_job_schema();
    if (text != NULL)
        ap_out("%s", text);
    else
        status = ap_error_set(&err, AP_ERR_NOMEM, "no memory for the schema");
    free(text);
    ap_cli_clear(&ap_verb_desc_schema, &args, NULL);
    return ap_cli_end(status, &err);
}
