/* SPDX-License-Identifier: Apache-2.0
 * Start the launcher, hand on stop requests in steps, return how it ended. Signals are taken by sigwaitinfo, so that
 * there is no handler and no race between a signal and the wait. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/log.h"
#include "launch/launch.h"

static const int stop_signals[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2};
#define STOP_SIGNALS (sizeof stop_signals / sizeof stop_signals[0])

/* In the child: become the launcher; report errno through the pipe when that fails. */
static void become(const struct ap_argv *argv, const sigset_t *mask, int report, pid_t parent)
{
    int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    /* Its own group: a terminal's ^C reaches the supervisor alone, which decides. That group may not read the
     * terminal. */
    setpgid(0, 0);
    if (null >= 0)
        dup2(null, STDIN_FILENO);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != parent)
        raise(SIGTERM);
    sigprocmask(SIG_SETMASK, mask, NULL);
    execvp(argv->v[0], argv->v);
    int why = errno;
    ssize_t written = write(report, &why, sizeof why);
    _exit(written == (ssize_t)sizeof why ? 127 : 126);
}

/* Reap the child if it has ended. 1: *code_p is set. */
static int reap(pid_t child, int *code_p)
{
    int status = 0;
    pid_t got;
    do
        got = waitpid(child, &status, WNOHANG);
    while (got < 0 && errno == EINTR);
    if (got != child)
        return 0;
    *code_p = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
    return 1;
}

static void pass_on(pid_t child, int requests)
{
    if (requests == 1) {
        ap_info("stop requested: the ranks finish their step and save; ask again to stop at once");
        kill(child, SIGUSR2);
    } else if (requests == 2) {
        ap_warn("stopping at once; work since the last checkpoint will be done again");
        kill(child, SIGTERM);
    } else {
        kill(-child, SIGKILL);
    }
}

ap_status ap_supervise(const struct ap_argv *argv, int *code_p, struct ap_error *err)
{
    sigset_t wanted, before;
    int report[2], requests = 0, code = 0, why = 0;
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGCHLD);
    for (size_t i = 0; i < STOP_SIGNALS; i++)
        sigaddset(&wanted, stop_signals[i]);
    if (pipe2(report, O_CLOEXEC) != 0)
        return ap_error_set(err, AP_ERR_ENV, "pipe: %s", strerror(errno));
    sigprocmask(SIG_BLOCK, &wanted, &before);

    pid_t parent = getpid(), child = fork();
    if (child == 0) {
        become(argv, &before, report[1], parent);
    }
    int failed = child < 0 ? errno : 0;
    close(report[1]);
    if (failed == 0) {
        setpgid(child, child);
        /* The pipe closes by exec; bytes in it say why exec failed. */
        if (read(report[0], &why, sizeof why) == (ssize_t)sizeof why)
            failed = why;
        while (!reap(child, &code)) {
            int signal_number = sigwaitinfo(&wanted, NULL);
            if (signal_number > 0 && signal_number != SIGCHLD)
                pass_on(child, ++requests);
        }
    }
    close(report[0]);
    sigprocmask(SIG_SETMASK, &before, NULL);
    if (failed != 0)
        return ap_error_set(err, AP_ERR_ENV, "cannot start %s: %s", argv->v[0], strerror(failed));
    *code_p = code;
    return AP_OK;
}
