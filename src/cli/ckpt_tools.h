/* SPDX-License-Identifier: Apache-2.0
 * The parts of antipode ckpt that read tensors: comparing and exporting states. */
#ifndef AP_CLI_CKPT_TOOLS_H
#define AP_CLI_CKPT_TOOLS_H

#include "base/status.h"
#include "ckpt/reader.h"

/* Open a state directory, or the newest state of a checkpoint directory. */
ap_status ap_ckpt_tool_open(const char *path, struct ap_ckpt_reader **reader_p, struct ap_error *err);
/* Prints what differs; AP_ERR_INVALID when something does. */
ap_status ap_ckpt_tool_diff(const char *a, const char *b, int json, struct ap_error *err);
/* OUT/model.safetensors and OUT/config.json with hub names. */
ap_status ap_ckpt_tool_export(const char *state, const char *out, struct ap_error *err);

#endif
