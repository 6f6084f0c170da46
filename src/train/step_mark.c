/* SPDX-License-Identifier: Apache-2.0
 * The mark of steps. */
#include "config.h"

#include <dlfcn.h>
#include <string.h>

#include "train/step_mark.h"

ap_step_mark *ap_step_mark_find(void)
{
    void *symbol = dlsym(RTLD_DEFAULT, AP_STEP_MARK_SYMBOL);
    ap_step_mark *mark = NULL;
    if (symbol)
        memcpy(&mark, &symbol, sizeof(mark)); /* C has no conversion between the two kinds of pointers */
    return mark;
}
