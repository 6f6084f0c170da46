/* SPDX-License-Identifier: Apache-2.0
 * Namespaces, the TUN device in each, and ending what runs there. */
#include "config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "testbed/site.h"

/* Packets that wait in the device while the emulator is not running. */
#define TUN_QUEUE 10000

/* Whole text into a file that exists; 0 or -1. */
static int write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t size = (ssize_t)strlen(text), n = write(fd, text, (size_t)size);
    int saved = errno;
    close(fd);
    errno = saved;
    return n == size ? 0 : -1;
}

/* Whether a child can make a network namespace; errno of the attempt. */
static int may_unshare(void)
{
    pid_t pid = fork();
    if (pid == 0)
        _exit(unshare(CLONE_NEWNET | CLONE_NEWUTS) == 0 ? 0 : errno);
    int code = 0;
    if (pid < 0 || waitpid(pid, &code, 0) < 0)
        return errno;
    return WIFEXITED(code) ? WEXITSTATUS(code) : EPERM;
}

ap_status site_allow(int *user_p, struct ap_error *err)
{
    *user_p = 0;
    int reason = may_unshare();
    if (reason == 0)
        return AP_OK;
    char map[64];
    uid_t uid = geteuid();
    gid_t gid = getegid();
    if (unshare(CLONE_NEWUSER) != 0)
        return ap_error_set(err, AP_ERR_ENV, "namespaces are not allowed here: %s, and none of a user: %s",
                            strerror(reason), strerror(errno));
    snprintf(map, sizeof map, "0 %u 1\n", (unsigned)uid);
    int bad = write_text("/proc/self/uid_map", map);
    bad |= write_text("/proc/self/setgroups", "deny");
    snprintf(map, sizeof map, "0 %u 1\n", (unsigned)gid);
    bad |= write_text("/proc/self/gid_map", map);
    if (bad)
        return ap_error_set(err, AP_ERR_ENV, "namespaces are not allowed here: no mapping of the user: %s",
                            strerror(errno));
    reason = may_unshare();
    if (reason != 0)
        return ap_error_set(err, AP_ERR_ENV, "namespaces are not allowed here: %s", strerror(reason));
    *user_p = 1;
    return AP_OK;
}

/* What the child tells the parent beside the descriptor. */
struct report {
    int ok;
    char text[200];
};

static int failed(struct report *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static int failed(struct report *r, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->text, sizeof r->text, fmt, ap);
    va_end(ap);
    return -1;
}

/* One ioctl on an interface. */
static int configure(int sock, unsigned long what, const char *step, struct ifreq *ifr, struct report *r)
{
    return ioctl(sock, what, ifr) == 0 ? 0 : failed(r, "%s of %s: %s", step, ifr->ifr_name, strerror(errno));
}

static void set_address(struct ifreq *ifr, uint32_t address)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(address)};
    memcpy(&ifr->ifr_addr, &in, sizeof in);
}

static int bring_up(int sock, const char *name, struct report *r)
{
    struct ifreq ifr = {0};
    strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
    if (configure(sock, SIOCGIFFLAGS, "flags", &ifr, r) != 0)
        return -1;
    ifr.ifr_flags |= IFF_UP | IFF_RUNNING;
    return configure(sock, SIOCSIFFLAGS, "bringing up", &ifr, r);
}

/* The length of a queue; the ioctl for it does not serve user namespaces. */
static int set_queue(const char *name, uint32_t length, struct report *r)
{
    struct {
        struct nlmsghdr head;
        struct ifinfomsg info;
        struct rtattr attr;
        uint32_t length;
    } m = {.head = {.nlmsg_len = sizeof m, .nlmsg_type = RTM_NEWLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK},
           .info = {.ifi_family = AF_UNSPEC, .ifi_index = (int)if_nametoindex(name)},
           .attr = {.rta_len = RTA_LENGTH(sizeof length), .rta_type = IFLA_TXQLEN},
           .length = length};
    struct {
        struct nlmsghdr head;
        struct nlmsgerr error;
        char rest[512];
    } answer;
    int sock = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (sock < 0)
        return failed(r, "queue of %s: %s", name, strerror(errno));
    int bad = send(sock, &m, sizeof m, 0) != (ssize_t)sizeof m ? errno : 0;
    ssize_t n = bad ? 0 : recv(sock, &answer, sizeof answer, 0);
    if (!bad && (n < (ssize_t)(sizeof answer.head + sizeof answer.error) || answer.head.nlmsg_type != NLMSG_ERROR))
        bad = EPROTO;
    if (!bad)
        bad = -answer.error.error;
    close(sock);
    return bad ? failed(r, "queue of %s: %s", name, strerror(bad)) : 0;
}

/* Address, mask (the network is on the link), size of packets and queue, up. */
static int configure_wan(uint32_t address, struct report *r)
{
    int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (sock < 0)
        return failed(r, "socket: %s", strerror(errno));
    struct ifreq ifr = {.ifr_name = "wan0"};
    int bad = bring_up(sock, "lo", r);
    ifr.ifr_mtu = SITE_MTU;
    bad = bad || configure(sock, SIOCSIFMTU, "MTU", &ifr, r);
    bad = bad || set_queue("wan0", TUN_QUEUE, r);
    set_address(&ifr, address);
    bad = bad || configure(sock, SIOCSIFADDR, "address", &ifr, r);
    set_address(&ifr, UINT32_C(0xffffff00));
    bad = bad || configure(sock, SIOCSIFNETMASK, "mask", &ifr, r);
    bad = bad || bring_up(sock, "wan0", r);
    close(sock);
    return bad ? -1 : 0;
}

static int open_tun(int offload, struct report *r)
{
    int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return failed(r, "/dev/net/tun: %s", strerror(errno));
    struct ifreq ifr = {.ifr_name = "wan0"};
    ifr.ifr_flags = (short)(IFF_TUN | IFF_NO_PI | (offload ? IFF_VNET_HDR : 0));
    if (ioctl(fd, TUNSETIFF, &ifr) != 0) {
        failed(r, "making wan0: %s", strerror(errno));
        close(fd);
        return -1;
    }
    if (offload && ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4) != 0) {
        failed(r, "segmentation offload of wan0: %s", strerror(errno));
        close(fd);
        return -1;
    }
    return fd;
}

/* The report with the descriptor, if any, over the socket pair. */
static void send_report(int sock, const struct report *r, int fd)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    memset(&control, 0, sizeof control);
    struct iovec iov = {(void *)(uintptr_t)r, sizeof *r};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
    if (fd >= 0) {
        m.msg_control = &control;
        m.msg_controllen = sizeof control;
        control.head =
            (struct cmsghdr){.cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.head), &fd, sizeof fd);
    }
    while (sendmsg(sock, &m, MSG_NOSIGNAL) < 0 && errno == EINTR)
        ;
}

static int receive_report(int sock, struct report *r, int *fd_p)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec iov = {r, sizeof *r};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n;
    while ((n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC)) < 0 && errno == EINTR)
        ;
    *fd_p = -1;
    struct cmsghdr *head = n > 0 ? CMSG_FIRSTHDR(&m) : NULL;
    if (head != NULL && head->cmsg_type == SCM_RIGHTS)
        memcpy(fd_p, CMSG_DATA(head), sizeof *fd_p);
    return n == (ssize_t)sizeof *r ? 0 : -1;
}

/* The holder: makes the site, hands over the device, sleeps until it is killed. */
static void hold(const struct site *s, int hostnames, int offload, int sock, pid_t parent)
{
    struct report r = {0};
    int fd = -1;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    if (unshare(CLONE_NEWNET | (hostnames ? CLONE_NEWUTS : 0)) != 0)
        failed(&r, "making the namespace: %s", strerror(errno));
    else if (hostnames && sethostname(s->hostname, strlen(s->hostname)) != 0)
        failed(&r, "setting the host name: %s", strerror(errno));
    else if ((fd = open_tun(offload, &r)) >= 0)
        r.ok = configure_wan(s->address, &r) == 0;
    /* Whoever started the bed may wait for the end of its output. */
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; null >= 0 && i < 3; i++)
        dup2(null, i);
    send_report(sock, &r, fd);
    if (!r.ok)
        _exit(1);
    if (fd >= 0)
        close(fd);
    close(sock);
    for (;;)
        pause();
}

static void make_hostname(char *out, const char *name)
{
    size_t n = 0;
    for (; *name != '\0' && n < 62; name++)
        out[n++] = isalnum((unsigned char)*name) ? *name : '-';
    out[n] = '\0';
}

ap_status site_open(struct site *s, const char *name, int index, int hostnames, int offload, struct ap_error *err)
{
    *s = (struct site){.name = name, .address = SITE_NETWORK + (uint32_t)index + 1, .holder = -1, .tun = -1};
    make_hostname(s->hostname, name);
    int pair[2];
    struct report r = {0};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) != 0)
        return ap_error_set(err, AP_ERR_ENV, "socketpair: %s", strerror(errno));
    pid_t parent = getpid();
    s->holder = fork();
    if (s->holder == 0) {
        close(pair[0]);
        hold(s, hostnames, offload, pair[1], parent);
    }
    close(pair[1]);
    int got = s->holder > 0 ? receive_report(pair[0], &r, &s->tun) : -1;
    close(pair[0]);
    char path[64];
    struct stat st;
    snprintf(path, sizeof path, "/proc/%d/ns/net", (int)s->holder);
    if (got == 0 && r.ok && s->tun >= 0 && stat(path, &st) == 0) {
        s->namespace = st.st_ino;
        return AP_OK;
    }
    if (r.text[0] == '\0')
        snprintf(r.text, sizeof r.text, "its process ended early");
    site_close(s);
    return ap_error_set(err, AP_ERR_ENV, "site %s: %s", name, r.text);
}

void site_close(struct site *s)
{
    if (s->namespace != 0)
        site_sweep(s->namespace, s->holder, NULL);
    if (s->holder > 0) {
        kill(s->holder, SIGKILL);
        while (waitpid(s->holder, NULL, 0) < 0 && errno == EINTR)
            ;
    }
    if (s->tun >= 0)
        close(s->tun);
    s->holder = s->tun = -1;
    s->namespace = 0;
}

/* Whether the environment of a process has AP_TESTBED_ID=id. */
static int has_id(const char *pid, const char *id)
{
    char path[64], want[128], *text = NULL;
    size_t size = 0, want_size = (size_t)snprintf(want, sizeof want, "AP_TESTBED_ID=%s", id);
    snprintf(path, sizeof path, "/proc/%.20s/environ", pid);
    FILE *f = fopen(path, "re");
    if (f == NULL)
        return 0;
    int found = 0;
    while (!found && getdelim(&text, &size, '\0', f) > 0)
        found = strlen(text) == want_size && memcmp(text, want, want_size) == 0;
    free(text);
    fclose(f);
    return found;
}

static int sweep_once(uint64_t namespace, pid_t except, const char *id)
{
    int found = 0;
    DIR *proc = opendir("/proc");
    if (proc == NULL)
        return 0;
    for (struct dirent *e; (e = readdir(proc)) != NULL;) {
        char path[64], *end;
        struct stat st;
        pid_t pid = (pid_t)strtol(e->d_name, &end, 10);
        if (*end != '\0' || pid <= 1 || pid == except || pid == getpid())
            continue;
        snprintf(path, sizeof path, "/proc/%d/ns/net", (int)pid);
        if (stat(path, &st) != 0 || st.st_ino != namespace || (id != NULL && !has_id(e->d_name, id)))
            continue;
        found += kill(pid, SIGKILL) == 0;
    }
    closedir(proc);
    return found;
}

int site_sweep(uint64_t namespace, pid_t except, const char *id)
{
    int most = 0;
    for (int i = 0; i < 100; i++) {
        int found = sweep_once(namespace, except, id);
        if (found == 0)
            break;
        most = found > most ? found : most;
        nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
    return most;
}

uint64_t site_process_start(pid_t pid)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = pid > 0 ? fopen(path, "re") : NULL;
    if (f == NULL)
        return 0;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = '\0';
    char *at = strrchr(text, ')'); /* field 2; the start time is field 22, a dead one's state (field 3) Z */
    if (at == NULL || at[1] == '\0' || at[2] == 'Z')
        return 0;
    for (int field = 2; field < 22 && at != NULL; field++)
        at = strchr(at + 1, ' ');
    return at != NULL ? strtoull(at + 1, NULL, 10) : 0;
}
