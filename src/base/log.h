/* SPDX-License-Identifier: Apache-2.0
 * The logger: the only module with process-wide state. Lines go to stderr and, once a run directory is
 * known, to its log.txt as well. Thread-safe. Values stand unadorned: "device 3", not "device=3". */
#ifndef AP_BASE_LOG_H
#define AP_BASE_LOG_H

typedef enum ap_log_level { AP_LOG_ERROR, AP_LOG_WARN, AP_LOG_INFO, AP_LOG_DEBUG } ap_log_level;

/* Level printed (default INFO) and this process's rank (-1: none). Ranks > 0 print only warnings and errors,
 * with their rank before the text, so that a message meant for the user comes from one rank. */
void ap_log_setup(ap_log_level level, int rank);
/* Append to this file too (NULL: stop). Returns 0, or -1 with errno. */
int ap_log_open(const char *path);
void ap_log(ap_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Text without prefix on standard output, for results and tables (rank > 0: dropped). */
void ap_out(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define ap_error_log(...) ap_log(AP_LOG_ERROR, __VA_ARGS__)
#define ap_warn(...)      ap_log(AP_LOG_WARN, __VA_ARGS__)
#define ap_info(...)      ap_log(AP_LOG_INFO, __VA_ARGS__)
#define ap_debug(...)     ap_log(AP_LOG_DEBUG, __VA_ARGS__)

#endif
