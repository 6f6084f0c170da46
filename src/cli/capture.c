/* SPDX-License-Identifier: Apache-2.0
 * A child process with its output in a pipe, in a process group of its own so that all of it can be killed. */
#include "config.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "cli/capture.h"

/* Start argv with standard input empty and both outputs in `out`; 0 or an errno. */
static int start(char *const argv[], int out, pid_t *pid_p)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t defaults;
    if (posix_spawn_file_actions_init(&files) != 0)
        return ENOMEM;
    if (posix_spawnattr_init(&attr) != 0) {
        posix_spawn_file_actions_destroy(&files);
        return ENOMEM;
    }
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    posix_spawnattr_setsigdefault(&attr, &defaults);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGDEF);
    int rc = posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (rc == 0)
        rc = posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
    if (rc == 0)
        rc = posix_spawn_file_actions_adddup2(&files, out, STDERR_FILENO);
    if (rc == 0)
        rc = posix_spawnp(pid_p, argv[0], &files, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    return rc;
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
    pid_t pid = -1;
    int rc = start(argv, pipe_fd[1], &pid);
    close(pipe_fd[1]);
    if (rc != 0) {
        snprintf(buf, size, "%s", strerror(rc));
        close(pipe_fd[0]);
        return rc == ENOENT ? 127 : -1;
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
