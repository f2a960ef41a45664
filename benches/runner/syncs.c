/* Times every fsync and fdatasync of a process: loaded before the C library (LD_PRELOAD), it adds a line `<calls> <nanoseconds>` to the file
 * that SYNCS_LOG names when the process ends. figures.py compiles it, so that a run is measured and its waiting for the disk told apart. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static atomic_long n_calls, total_ns;

static long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

static int timed(const char *name, int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    long begin = now_ns();
    int result = real(file);
    atomic_fetch_add(&total_ns, now_ns() - begin);
    atomic_fetch_add(&n_calls, 1);
    return result;
}

int fsync(int file) { return timed("fsync", file); }
int fdatasync(int file) { return timed("fdatasync", file); }

__attribute__((destructor)) static void report(void) {
    const char *path = getenv("SYNCS_LOG");
    FILE *log = path ? fopen(path, "a") : NULL;
    if (!log) return;
    fprintf(log, "%ld %ld\n", atomic_load(&n_calls), atomic_load(&total_ns));
    fclose(log);
}
