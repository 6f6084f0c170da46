/* SPDX-License-Identifier: Apache-2.0
 * A child process with its output in a pipe, in a process group of its own so that all of it can be killed. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/capture.h"

/* Runs in the child: only calls that are safe after fork. */
static void become(char *const argv[], int out)
{
    setpgid(0, 0);
    int null = open("/dev/null", O_RDONLY);
    if (null >= 0)
        dup2(null, STDIN_FILENO);
    dup2(out, STDOUT_FILENO);
    dup2(out, STDERR_FILENO);
    signal(SIGPIPE, SIG_DFL);
    execvp(argv[0], argv);
    static const char text[] = "cannot be started";
    ssize_t n = write(STDOUT_FILENO, text, sizeof text - 1);
    _exit(n > 0 ? 127 : 126);
}

/* Read until end of file or the deadline; 0, or -1 on the deadline. What does not fit is read and dropped. */
static int collect(int fd, double deadline, char *buf, size_t size)
{
    size_t used = 0;
    char piece[1024];
    for (;;) {
        double left = deadline - ap_clock_monotonic();
        if (left <= 0)
            return -1;
        struct pollfd p = {.fd = fd, .events = POLLIN};
        int rc = poll(&p, 1, (int)(left * 1000) + 1);
        if (rc < 0 && errno != EINTR)
            return -1;
        if (rc <= 0)
            continue;
        ssize_t n = read(fd, piece, sizeof piece);
        if (n <= 0)
            return 0;
        size_t take = (size_t)n < size - 1 - used ? (size_t)n : size - 1 - used;
        memcpy(buf + used, piece, take);
        used += take;
        buf[used] = '\0';
    }
}

int ap_capture(char *const argv[], double timeout_s, char *buf, size_t size)
{
    int pipe_fd[2], status = 0;
    buf[0] = '\0';
    if (pipe2(pipe_fd, O_CLOEXEC) != 0) {
        snprintf(buf, size, "%s", strerror(errno));
        return -1;
    }
    pid_t pid = fork();
    if (pid == 0)
        become(argv, pipe_fd[1]);
    close(pipe_fd[1]);
    if (pid < 0) {
        snprintf(buf, size, "%s", strerror(errno));
        close(pipe_fd[0]);
        return -1;
    }
    int late = collect(pipe_fd[0], ap_clock_monotonic() + timeout_s, buf, size);
    close(pipe_fd[0]);
    if (late != 0)
        kill(-pid, SIGKILL);
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (late != 0) {
        snprintf(buf, size, "no answer in %.0f s", timeout_s);
        return -1;
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
