/* SPDX-License-Identifier: Apache-2.0
 * Backends in shared objects: antipode-NAME.so, opened when a job asks for them. */
#ifndef AP_BACKEND_PLUGIN_H
#define AP_BACKEND_PLUGIN_H

#include "backend/backend.h"

/* Name of the one function a plug-in exports. */
#define AP_BACKEND_PLUGIN_SYMBOL "ap_backend_plugin"
typedef const struct ap_backend_ops *ap_backend_plugin_fn(void);

/* Find and open the plug-in of a backend: $ANTIPODE_PLUGINDIR, the folder of the executable, lib/antipode
 * near it, the configured folder. *vt_p stays valid for the life of the process (plug-ins are not closed).
 * AP_ERR_NOTFOUND: there is no such file; AP_ERR_ENV: it does not load or is of another age. */
ap_status ap_backend_plugin_open(const char *name, const struct ap_backend_ops **vt_p, struct ap_error *err);
/* 0 when this machine shows no sign of an NVIDIA device and no $ANTIPODE_PLUGINDIR is set, so that loading the plug-in
 * is pointless. */
int ap_backend_plugin_likely(const char *name);

#endif
