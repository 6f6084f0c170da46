/* SPDX-License-Identifier: Apache-2.0
 * Starting the emulator as a process of its own, and ending it, alive or dead. */
#include "config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "testbed/bed.h"
#include "testbed/control.h"
#include "testbed/emulator.h"

#define PATH_BYTES 512
#define START_MS   15000
#define STOP_MS    4000

static const char *const files[] = {"pid", "sites", "control", "log"};

static void path_in(char out[PATH_BYTES], const char *dir, const char *file)
{
    snprintf(out, PATH_BYTES, "%s/%s", dir, file);
}

static void remove_folder(const char *dir)
{
    char path[PATH_BYTES];
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        path_in(path, dir, files[i]);
        unlink(path);
    }
    rmdir(dir);
}

/* The emulator of this folder: its process if it is alive (else 0), and its id. 0 or -1: no such folder, or it is
 * somebody else's, whose word on what to end is not taken. */
static int read_pid(const char *dir, pid_t *pid_p, char id[64])
{
    char path[PATH_BYTES], *text;
    size_t size;
    int pid;
    uint64_t start;
    struct stat st;
    path_in(path, dir, "pid");
    if (lstat(dir, &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid())
        return -1;
    if (ap_io_read_file(path, 1000, &text, &size, NULL) != AP_OK)
        return -1;
    int got = sscanf(text, "%d %" SCNu64, &pid, &start);
    free(text);
    if (got != 2)
        return -1;
    snprintf(id, 64, "%d-%" PRIu64, pid, start);
    *pid_p = site_process_start(pid) == start ? pid : 0;
    return 0;
}

static ap_status write_file(const char *dir, const char *file, const char *text, struct ap_error *err)
{
    char path[PATH_BYTES];
    path_in(path, dir, file);
    return ap_io_write_durable(path, text, strlen(text), err);
}

static ap_status write_sites(const char *dir, const struct site *sites, int n, int user, int hostnames,
                             struct ap_error *err)
{
    struct ap_strbuf text = {0};
    ap_strbuf_addf(&text, "bed %d-%" PRIu64 " user %d hostnames %d\n", (int)getpid(), site_process_start(getpid()),
                   user, hostnames);
    for (int i = 0; i < n; i++) {
        struct in_addr a = {htonl(sites[i].address)};
        char address[INET_ADDRSTRLEN];
        inet_ntop(AF_INET, &a, address, sizeof address);
        ap_strbuf_addf(&text, "site %s %d %" PRIu64 " %s %s\n", sites[i].name, (int)sites[i].holder, sites[i].namespace,
                       address, sites[i].hostname);
    }
    char *all = ap_strbuf_take(&text);
    ap_status status = all != NULL ? write_file(dir, "sites", all, err)
                                   : ap_error_set(err, AP_ERR_NOMEM, "no memory for the list of sites");
    free(all);
    return status;
}

static ap_status open_sites(const struct bed_options *o, struct ap_link_net *net, struct site *sites,
                            struct ap_error *err)
{
    for (int i = 0; i < net->n; i++)
        AP_TRY(site_open(&sites[i], net->names[i], i, o->hostnames, o->offload, err));
    for (int i = 0; o->hostnames && i < net->n; i++)
        for (int j = 0; j < i; j++)
            if (strcmp(sites[i].hostname, sites[j].hostname) == 0)
                return ap_error_set(err, AP_ERR_INPUT, "sites %s and %s have the same host name %s", net->names[j],
                                    net->names[i], sites[i].hostname);
    return AP_OK;
}

/* After that the parent may go: nobody is told of errors any more. */
static void ready(const struct bed_options *o, int pipe_fd)
{
    char path[PATH_BYTES];
    path_in(path, o->dir, "log");
    int log = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600), null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (null >= 0)
        dup2(null, 0);
    if (log >= 0 || null >= 0) {
        dup2(log >= 0 ? log : null, 1);
        dup2(log >= 0 ? log : null, 2);
    }
    if (log >= 0)
        close(log);
    if (null >= 0)
        close(null);
    const struct ap_error none = {.status = AP_OK};
    if (write(pipe_fd, &none, sizeof none) != (ssize_t)sizeof none)
        fprintf(stderr, "whoever started this is gone\n");
    close(pipe_fd);
}

static int signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* Everything of a bed whose sites are open. */
static ap_status serve(const struct bed_options *o, struct ap_link_net *net, struct site *sites, int user, int pipe_fd,
                       struct ap_error *err)
{
    char path[PATH_BYTES];
    struct emulator e;
    struct ap_link_scenario scenario = {0};
    int control = -1, signal_fd = signals();
    path_in(path, o->dir, "control");
    ap_status status = emulator_open(&e, net, sites, o->offload, o->realtime, err);
    if (status == AP_OK)
        status = control_listen(path, &control, err);
    if (status == AP_OK && o->scenario != NULL)
        status = ap_link_scenario_read(net, o->scenario, &scenario, err);
    if (status == AP_OK)
        status = write_sites(o->dir, sites, net->n, user, o->hostnames, err);
    if (status == AP_OK) {
        e.end_ns = emulator_now() + (int64_t)llround(o->seconds * 1e9);
        emulator_scenario(&e, &scenario);
        ready(o, pipe_fd);
        status = emulator_run(&e, control, signal_fd, err);
    }
    emulator_close(&e);
    if (control >= 0)
        close(control);
    if (signal_fd >= 0)
        close(signal_fd);
    return status;
}

static ap_status run(const struct bed_options *o, struct ap_link_net *net, int pipe_fd, struct ap_error *err)
{
    char text[100];
    int user;
    snprintf(text, sizeof text, "%d %" PRIu64 "\n", (int)getpid(), site_process_start(getpid()));
    AP_TRY(write_file(o->dir, "pid", text, err));
    AP_TRY(site_allow(&user, err));
    struct site *sites = calloc((size_t)net->n, sizeof *sites);
    if (sites == NULL)
        return ap_error_set(err, AP_ERR_NOMEM, "no memory for %d sites", net->n);
    for (int i = 0; i < net->n; i++)
        sites[i].holder = sites[i].tun = -1;
    ap_status status = open_sites(o, net, sites, err);
    if (status == AP_OK)
        status = serve(o, net, sites, user, pipe_fd, err);
    for (int i = 0; i < net->n; i++)
        site_close(&sites[i]);
    free(sites);
    return status;
}

/* The emulator's process: ends with the bed. */
static void child(const struct bed_options *o, struct ap_link_net *net, int pipe_fd)
{
    struct ap_error err = {0};
    setsid();
    ap_status status = run(o, net, pipe_fd, &err);
    if (status != AP_OK && write(pipe_fd, &err, sizeof err) != (ssize_t)sizeof err) {
        char text[2048];
        ap_error_format(&err, text, sizeof text);
        fprintf(stderr, "%s\n", text);
    }
    remove_folder(o->dir);
    ap_link_net_free(net);
    _exit(ap_status_exit_code(status));
}

/* Waits at most START_MS for the child's word. */
static ap_status await(pid_t pid, int pipe_fd, struct ap_error *err)
{
    struct ap_error told;
    size_t got = 0;
    fcntl(pipe_fd, F_SETFL, O_NONBLOCK);
    for (int ms = 0; ms < START_MS; ms += 10) {
        ssize_t n = read(pipe_fd, (char *)&told + got, sizeof told - got);
        if (n == 0)
            return ap_error_set(err, AP_ERR_ENV, "the emulator ended without a word");
        got += n > 0 ? (size_t)n : 0;
        if (got == sizeof told) {
            if (told.status != AP_OK) {
                waitpid(pid, NULL, 0); /* it cleans up */
                if (err != NULL)
                    *err = told;
            }
            return told.status;
        }
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    kill(pid, SIGKILL);
    return ap_error_set(err, AP_ERR_ENV, "the emulator was not ready after %d s", START_MS / 1000);
}

static ap_status make_folder(const char *dir, struct ap_error *err)
{
    pid_t pid;
    char id[64];
    if (strlen(dir) + 16 > sizeof((struct sockaddr_un *)0)->sun_path)
        return ap_error_set(err, AP_ERR_USAGE, "%s: too long, a socket goes in there", dir);
    if (read_pid(dir, &pid, id) == 0) {
        if (pid != 0)
            return ap_error_set(err, AP_ERR_USAGE, "a test bed runs in %s already: end it by tests/testbed/down", dir);
        AP_TRY(bed_down(dir, err)); /* one that was killed */
    }
    if (mkdir(dir, 0700) != 0 && !(errno == EEXIST && rmdir(dir) == 0 && mkdir(dir, 0700) == 0))
        return ap_error_set(err, AP_ERR_USAGE, "%s: %s", dir, strerror(errno));
    return AP_OK;
}

ap_status bed_up(const struct bed_options *o, struct ap_error *err)
{
    struct ap_link_net *net;
    struct ap_link_scenario scenario = {0};
    AP_TRY(ap_link_net_read(o->matrix, o->seed, &net, err));
    ap_status status = o->scenario != NULL ? ap_link_scenario_read(net, o->scenario, &scenario, err) : AP_OK;
    ap_link_scenario_clear(&scenario);
    int fds[2] = {-1, -1};
    if (status == AP_OK)
        status = make_folder(o->dir, err);
    if (status == AP_OK && pipe2(fds, O_CLOEXEC) != 0)
        status = ap_error_set(err, AP_ERR_ENV, "pipe: %s", strerror(errno));
    if (status == AP_OK) {
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            close(fds[0]);
            child(o, net, fds[1]);
        }
        close(fds[1]);
        status = pid > 0 ? await(pid, fds[0], err) : ap_error_set(err, AP_ERR_ENV, "fork: %s", strerror(errno));
        close(fds[0]);
        if (status != AP_OK)
            bed_down(o->dir, NULL);
    }
    ap_link_net_free(net);
    return status;
}

static int wait_end(pid_t pid, uint64_t start, int ms)
{
    for (; ms > 0 && site_process_start(pid) == start; ms -= 10)
        nanosleep(&(struct timespec){0, 10000000}, NULL);
    return site_process_start(pid) != start;
}

/* What a killed emulator left in the namespaces of its sites. */
static void sweep_listed(const char *dir, const char *id)
{
    char path[PATH_BYTES], *text, *save = NULL;
    size_t size;
    path_in(path, dir, "sites");
    if (ap_io_read_file(path, 1 << 20, &text, &size, NULL) != AP_OK)
        return;
    for (char *line = strtok_r(text, "\n", &save); line != NULL; line = strtok_r(NULL, "\n", &save)) {
        uint64_t namespace;
        if (sscanf(line, "site %*s %*d %" SCNu64, &namespace) == 1)
            site_sweep(namespace, 0, id);
    }
    free(text);
}

ap_status bed_down(const char *dir, struct ap_error *err)
{
    pid_t pid;
    char id[64];
    if (read_pid(dir, &pid, id) != 0)
        return AP_OK;
    if (pid != 0) {
        uint64_t start = site_process_start(pid);
        kill(pid, SIGTERM); /* it ends its sites' processes and removes the folder */
        if (!wait_end(pid, start, STOP_MS)) {
            kill(pid, SIGKILL);
            if (!wait_end(pid, start, STOP_MS))
                return ap_error_set(err, AP_ERR_ENV, "process %d does not end", (int)pid);
        }
    }
    sweep_listed(dir, id);
    remove_folder(dir);
    if (ap_io_exists(dir))
        return ap_error_set(err, AP_ERR_ENV, "%s cannot be removed", dir);
    return AP_OK;
}
