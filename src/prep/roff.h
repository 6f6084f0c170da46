/* SPDX-License-Identifier: Apache-2.0
 * Manual pages to plain text: reduces roff source with man or mdoc macros to UTF-8 paragraphs. One line per
 * paragraph or line of an example, a blank line between paragraphs, headings on their own line. Comments,
 * fonts, sizes and layout are dropped; strings, conditionals and the page's own macros are followed. */
#ifndef AP_PREP_ROFF_H
#define AP_PREP_ROFF_H

#include <stddef.h>
#include "base/status.h"
#include "prep/buf.h"

/* Append the text of a page to out. source must be valid UTF-8. *link_p (NULL allowed) is set when the page
 * only includes another one (.so). Any input gives some text; AP_ERR_NOMEM is the only failure. Time and
 * output are bounded for hostile input. */
ap_status ap_roff_to_text(const char *source, size_t size, struct ap_buf *out, int *link_p, struct ap_error *err);

#endif
