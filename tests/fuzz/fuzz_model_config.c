/* SPDX-License-Identifier: Apache-2.0
 * Fuzz target: model configurations (config.json). An accepted one has passed its own check, and its parameters can be
 * counted. */
#include "config.h"

#include <stdlib.h>
#include "fuzz/memory_file.h"
#include "plan/model_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct ap_model_config cfg = {0};
    struct ap_error err = {0};
    char path[64];
    int fd = memory_file(data, size, path, sizeof path);
    if (fd < 0)
        return 0;
    if (ap_model_config_load(path, &cfg, &err) == AP_OK) {
        if (ap_model_config_check(&cfg, &err) != AP_OK)
            abort();
    } else if (err.text[0] == '\0') {
        abort();
    }
    close(fd);
    return 0;
}
