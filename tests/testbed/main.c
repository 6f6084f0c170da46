/* SPDX-License-Identifier: Apache-2.0
 * The command line of the test bed: up, down, ctl. The scripts beside it are the way to call it. */
#include "config.h"

#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/strbuf.h"
#include "testbed/bed.h"
#include "testbed/control.h"

static const char usage[] =
    "usage: up [--dir DIR] [--seed N] [--scenario FILE] [--seconds S] [--hostnames] [--offload] [--no-realtime] "
    "MATRIX.csv\n"
    "       down [--dir DIR]\n"
    "       ctl [--dir DIR] COMMAND...\n"
    "up makes the sites of the matrix and the links between them, in the background:\n"
    "  --dir DIR        the bed's folder (default: $AP_TESTBED_DIR, else /tmp/ap-testbed-UID)\n"
    "  --seed N         of loss, jitter and reordering (default 1)\n"
    "  --scenario FILE  timed commands, from the start on\n"
    "  --seconds S      the bed ends itself after that (default 3600)\n"
    "  --hostnames      every site has a host name of its own\n"
    "  --offload        packets of up to 64 KB: several times the throughput; losses are per large packet\n"
    "  --no-realtime    keep the scheduling class of the caller (also: AP_TESTBED_REALTIME=0)\n"
    "ctl commands: set SRC DST key=value... | cut A B | heal A B | cut-oneway SRC DST | heal-oneway SRC DST |\n"
    "  spike SRC DST MS SECONDS | cap SITE egress_mbit=MBIT ingress_mbit=MBIT | scenario FILE | stats | reset\n"
    "  (* stands for every site)\n";

enum { OPT_DIR = 1, OPT_SEED, OPT_SCENARIO, OPT_SECONDS, OPT_HOSTNAMES, OPT_OFFLOAD, OPT_NO_REALTIME, OPT_HELP };
static const struct option options[] = {
    {"dir", required_argument, NULL, OPT_DIR},
    {"seed", required_argument, NULL, OPT_SEED},
    {"scenario", required_argument, NULL, OPT_SCENARIO},
    {"seconds", required_argument, NULL, OPT_SECONDS},
    {"hostnames", no_argument, NULL, OPT_HOSTNAMES},
    {"offload", no_argument, NULL, OPT_OFFLOAD},
    {"no-realtime", no_argument, NULL, OPT_NO_REALTIME},
    {"help", no_argument, NULL, OPT_HELP},
    {NULL, 0, NULL, 0},
};

static ap_status seconds_of(const char *text, double *v_p, struct ap_error *err)
{
    char *end;
    *v_p = strtod(text, &end);
    if (end == text || *end != '\0' || !(*v_p > 0 && *v_p <= 1e6))
        return ap_error_set(err, AP_ERR_USAGE, "--seconds %s: a number from 0 to 1000000", text);
    return AP_OK;
}

static ap_status seed_of(const char *text, uint64_t *v_p, struct ap_error *err)
{
    char *end;
    *v_p = strtoull(text, &end, 10);
    if (end == text || *end != '\0' || *text == '-')
        return ap_error_set(err, AP_ERR_USAGE, "--seed %s: a whole number", text);
    return AP_OK;
}

static ap_status option_of(int c, struct bed_options *o, int *help_p, struct ap_error *err)
{
    switch (c) {
    case OPT_DIR:
        o->dir = optarg;
        return AP_OK;
    case OPT_SEED:
        return seed_of(optarg, &o->seed, err);
    case OPT_SCENARIO:
        o->scenario = optarg;
        return AP_OK;
    case OPT_SECONDS:
        return seconds_of(optarg, &o->seconds, err);
    case OPT_HOSTNAMES:
        o->hostnames = 1;
        return AP_OK;
    case OPT_OFFLOAD:
        o->offload = 1;
        return AP_OK;
    case OPT_NO_REALTIME:
        o->realtime = 0;
        return AP_OK;
    case OPT_HELP:
        *help_p = 1;
        return AP_OK;
    default: /* getopt has said what */
        return ap_error_set(err, AP_ERR_USAGE, "see --help");
    }
}

/* The words of a command in one line. A scenario's path is made absolute: the emulator may have another folder. */
static ap_status ask(const char *dir, char **words, int n, struct ap_error *err)
{
    char path[512];
    struct ap_strbuf line = {0};
    snprintf(path, sizeof path, "%s/control", dir);
    for (int i = 0; i < n; i++) {
        char *full = i == 1 && strcmp(words[0], "scenario") == 0 ? realpath(words[i], NULL) : NULL;
        ap_strbuf_add(&line, i > 0 ? " " : "");
        ap_strbuf_add(&line, full != NULL ? full : words[i]);
        free(full);
    }
    char *text = ap_strbuf_take(&line);
    ap_status status = text != NULL ? control_ask(path, text, err) : ap_error_set(err, AP_ERR_NOMEM, "no memory");
    free(text);
    return status;
}

static ap_status command(int argc, char **argv, struct ap_error *err)
{
    const char *realtime = getenv("AP_TESTBED_REALTIME");
    struct bed_options o = {.dir = getenv("AP_TESTBED_DIR"), .seed = 1, .seconds = 3600};
    o.realtime = realtime == NULL || strcmp(realtime, "0") != 0;
    int help = 0;
    if (argc < 2)
        return ap_error_set(err, AP_ERR_USAGE, "no command: up, down or ctl");
    const char *verb = argv[1];
    optind = 2;
    for (int c; (c = getopt_long(argc, argv, "+", options, NULL)) != -1;)
        AP_TRY(option_of(c, &o, &help, err));
    if (help) {
        fputs(usage, stdout);
        return AP_OK;
    }
    if (o.dir == NULL)
        return ap_error_set(err, AP_ERR_USAGE, "no --dir and no AP_TESTBED_DIR");
    int left = argc - optind;
    if (strcmp(verb, "up") == 0 && left == 1) {
        o.matrix = argv[optind];
        return bed_up(&o, err);
    }
    if (strcmp(verb, "down") == 0 && left == 0)
        return bed_down(o.dir, err);
    if (strcmp(verb, "ctl") == 0 && left > 0)
        return ask(o.dir, argv + optind, left, err);
    return ap_error_set(err, AP_ERR_USAGE, "wrong number of words for %s, or no such command: see --help", verb);
}

int main(int argc, char **argv)
{
    struct ap_error err = {0};
    char text[2048];
    ap_status status = command(argc, argv, &err);
    if (status != AP_OK) {
        ap_error_format(&err, text, sizeof text);
        fprintf(stderr, "testbed: %s\n", text);
    }
    return ap_status_exit_code(status);
}
