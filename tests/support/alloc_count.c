/* SPDX-License-Identifier: Apache-2.0
 * Preloaded into a rank: counts the allocations made inside of steps ALLOC_FIRST to ALLOC_LAST, by the module whose
 * code asks for them. After the last of these steps a report stands in ALLOC_OUT.PID: steps N steps that were watched
 *   module COUNT BYTES NAME          who asked: the program and its plug-ins, then the libraries
 *   site COUNT BYTES NAME+0xOFFSET   where our own code asks, for addr2line
 * The caller is the return address of the allocating function. Those of the C library that allocate for their caller
 * (strdup, asprintf, getline, open_memstream, realpath) are wrapped too, so that the caller is ours and not the C
 * library. Memory mapped (mmap) counts like allocated memory. All threads count. */
#define _GNU_SOURCE 1
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MODULES_MAX 512
#define SITES_MAX   64
#define CALLER      __builtin_return_address(0)
#define EXPORT      __attribute__((visibility("default")))

struct module {
    char name[256];
    uintptr_t base, begin, end;
    int ours;
    _Atomic int64_t count, bytes;
};
struct site {
    _Atomic uintptr_t address;
    _Atomic int64_t count, bytes;
};

static struct module modules[MODULES_MAX + 1]; /* the last: unknown callers */
static int module_count;
static struct site sites[SITES_MAX];
static atomic_int watching;
static int64_t first_step, last_step, steps;

static struct {
    void *(*malloc)(size_t);
    void (*free)(void *);
    void *(*calloc)(size_t, size_t);
    void *(*realloc)(void *, size_t);
    void *(*reallocarray)(void *, size_t, size_t);
    int (*posix_memalign)(void **, size_t, size_t);
    void *(*aligned_alloc)(size_t, size_t);
    void *(*memalign)(size_t, size_t);
    char *(*strdup)(const char *);
    char *(*strndup)(const char *, size_t);
    int (*vasprintf)(char **, const char *, va_list);
    ssize_t (*getline)(char **, size_t *, FILE *);
    FILE *(*open_memstream)(char **, size_t *);
    char *(*realpath)(const char *, char *);
} real;

/* dlsym itself may ask for memory before it can answer. */
static _Alignas(64) char early[16384];
static size_t early_used;

static void *early_memory(size_t size)
{
    size_t at = (early_used + 63) / 64 * 64;
    if (size > sizeof early - at)
        return NULL;
    early_used = at + size;
    return early + at;
}

static int is_early(const void *p)
{
    return (const char *)p >= early && (const char *)p < early + sizeof early;
}

static void look_up(void **slot, const char *name)
{
    *slot = dlsym(RTLD_NEXT, name);
    if (!*slot)
        _exit(99);
}

static void set_up(void)
{
    static int busy;
    if (real.realpath || busy)
        return;
    busy = 1;
#define LOOK_UP(name) look_up((void **)&real.name, #name)
    LOOK_UP(malloc);
    LOOK_UP(free);
    LOOK_UP(calloc);
    LOOK_UP(realloc);
    LOOK_UP(reallocarray);
    LOOK_UP(posix_memalign);
    LOOK_UP(aligned_alloc);
    LOOK_UP(memalign);
    LOOK_UP(strdup);
    LOOK_UP(strndup);
    LOOK_UP(vasprintf);
    LOOK_UP(getline);
    LOOK_UP(open_memstream);
    LOOK_UP(realpath);
    busy = 0;
}

static __attribute__((constructor)) void begin(void)
{
    const char *first = getenv("ALLOC_FIRST"), *last = getenv("ALLOC_LAST");
    set_up();
    first_step = first ? strtoll(first, NULL, 10) : 1;
    last_step = last ? strtoll(last, NULL, 10) : INT64_MAX;
}

/* ---- who asked ---- */
static int add_module(struct dl_phdr_info *info, size_t size, void *data)
{
    (void)size;
    (void)data;
    for (int i = 0; i < info->dlpi_phnum && module_count < MODULES_MAX; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        if (p->p_type != PT_LOAD || !(p->p_flags & PF_X))
            continue;
        struct module *m = &modules[module_count++];
        int program = info->dlpi_name[0] == '\0';
        const char *slash = strrchr(info->dlpi_name, '/');
        snprintf(m->name, sizeof m->name, "%s", program ? "program" : slash ? slash + 1 : info->dlpi_name);
        m->base = info->dlpi_addr;
        m->begin = info->dlpi_addr + p->p_vaddr;
        m->end = m->begin + p->p_memsz;
        m->ours = program || strncmp(m->name, "antipode", 8) == 0;
    }
    return 0;
}

static struct module *module_of(uintptr_t address)
{
    for (int i = 0; i < module_count; i++)
        if (address >= modules[i].begin && address < modules[i].end)
            return &modules[i];
    return &modules[MODULES_MAX];
}

static void add_site(uintptr_t address, size_t size)
{
    for (int i = 0; i < SITES_MAX; i++) {
        uintptr_t none = 0;
        if (atomic_load(&sites[i].address) == address ||
            atomic_compare_exchange_strong(&sites[i].address, &none, address) || none == address) {
            atomic_fetch_add(&sites[i].count, 1);
            atomic_fetch_add(&sites[i].bytes, (int64_t)size);
            return;
        }
    }
}

static void asked(void *caller, size_t size)
{
    if (!atomic_load_explicit(&watching, memory_order_relaxed))
        return;
    uintptr_t address = (uintptr_t)caller;
    struct module *m = module_of(address);
    atomic_fetch_add(&m->count, 1);
    atomic_fetch_add(&m->bytes, (int64_t)size);
    if (m->ours)
        add_site(address, size);
}

/* ---- the marks ---- */
static void report(void)
{
    char path[4096], line[512];
    const char *out = getenv("ALLOC_OUT");
    snprintf(path, sizeof path, "%s.%ld", out ? out : "alloc", (long)getpid());
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        _exit(99);
    dprintf(fd, "steps %lld\n", (long long)steps);
    for (int i = 0; i <= MODULES_MAX; i++) {
        struct module *m = &modules[i];
        if (m->count > 0)
            dprintf(fd, "module %lld %lld %s\n", (long long)m->count, (long long)m->bytes,
                    i == MODULES_MAX ? "unknown" : m->name);
    }
    for (int i = 0; i < SITES_MAX && sites[i].address; i++) {
        struct module *m = module_of(sites[i].address);
        int n = snprintf(line, sizeof line, "site %lld %lld %s+0x%llx\n", (long long)sites[i].count,
                         (long long)sites[i].bytes, m->name, (unsigned long long)(sites[i].address - m->base - 1));
        if (write(fd, line, (size_t)n) != n)
            _exit(99);
    }
    close(fd);
}

/* train/step_mark.h */
EXPORT void antipode_step_mark(int64_t step, int end);
void antipode_step_mark(int64_t step, int end)
{
    if (step < first_step || step > last_step)
        return;
    if (!end && module_count == 0)
        dl_iterate_phdr(add_module, NULL);
    atomic_store(&watching, !end);
    steps += end;
    if (end && step == last_step)
        report();
}

/* ---- what is counted ---- */
EXPORT void *malloc(size_t size)
{
    set_up();
    asked(CALLER, size);
    return real.malloc ? real.malloc(size) : early_memory(size);
}

EXPORT void free(void *p)
{
    if (is_early(p))
        return;
    set_up();
    real.free(p);
}

EXPORT void *calloc(size_t n, size_t size)
{
    set_up();
    asked(CALLER, n * size);
    return real.calloc ? real.calloc(n, size) : early_memory(n * size);
}

static void *from_early(void *p, size_t size)
{
    void *grown = real.malloc ? real.malloc(size) : early_memory(size);
    size_t there = (size_t)(early + sizeof early - (char *)p);
    if (grown)
        memcpy(grown, p, size < there ? size : there);
    return grown;
}

EXPORT void *realloc(void *p, size_t size)
{
    set_up();
    asked(CALLER, size);
    return is_early(p) || !real.realloc ? from_early(p, size) : real.realloc(p, size);
}

EXPORT void *reallocarray(void *p, size_t n, size_t size)
{
    set_up();
    asked(CALLER, n * size);
    return real.reallocarray(p, n, size);
}

EXPORT int posix_memalign(void **p, size_t alignment, size_t size)
{
    set_up();
    asked(CALLER, size);
    return real.posix_memalign(p, alignment, size);
}

EXPORT void *aligned_alloc(size_t alignment, size_t size)
{
    set_up();
    asked(CALLER, size);
    return real.aligned_alloc(alignment, size);
}

EXPORT void *memalign(size_t alignment, size_t size)
{
    set_up();
    asked(CALLER, size);
    return real.memalign(alignment, size);
}

EXPORT char *strdup(const char *s)
{
    set_up();
    asked(CALLER, strlen(s) + 1);
    return real.strdup(s);
}

EXPORT char *strndup(const char *s, size_t n)
{
    set_up();
    asked(CALLER, strnlen(s, n) + 1);
    return real.strndup(s, n);
}

EXPORT int vasprintf(char **p, const char *format, va_list args)
{
    set_up();
    asked(CALLER, 0);
    return real.vasprintf(p, format, args);
}

EXPORT int asprintf(char **p, const char *format, ...)
{
    va_list args;
    set_up();
    asked(CALLER, 0);
    va_start(args, format);
    int n = real.vasprintf(p, format, args);
    va_end(args);
    return n;
}

EXPORT ssize_t getline(char **p, size_t *n, FILE *f)
{
    set_up();
    asked(CALLER, 0);
    return real.getline(p, n, f);
}

EXPORT FILE *open_memstream(char **p, size_t *n)
{
    set_up();
    asked(CALLER, 0);
    return real.open_memstream(p, n);
}

EXPORT char *realpath(const char *path, char *resolved)
{
    set_up();
    if (!resolved)
        asked(CALLER, 0);
    return real.realpath(path, resolved);
}

static void *map(void *caller, void *address, size_t size, int prot, int flags, int fd, off_t at)
{
    asked(caller, size);
    return (void *)syscall(SYS_mmap, address, size, prot, flags, fd, at);
}

EXPORT void *mmap(void *address, size_t size, int prot, int flags, int fd, off_t at)
{
    return map(CALLER, address, size, prot, flags, fd, at);
}

EXPORT void *mmap64(void *address, size_t size, int prot, int flags, int fd, off_t at)
{
    return map(CALLER, address, size, prot, flags, fd, at);
}
