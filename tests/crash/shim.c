/*
 * Loaded into a process with LD_PRELOAD, it writes down in one journal, in one order, what the process does to the
 * files of one folder, when it waited for them to be on the disk, and what it said on its standard output. From that
 * journal `disk.rs` tells what a power cut at any moment may leave of the folder.
 *
 *   CRASH_ROOT       the folder, absolute, without a slash at its end and without folders in it
 *   CRASH_JOURNAL    the journal, made anew
 *   CRASH_SYNC_US    how long a sync takes, in microseconds
 *
 * A sync is not passed on to the real disk: what is tested is whether the process waits for it, and a disk that loses
 * what was not synced is simulated anyway. The journal tells when it began and when it was done. A write is told before it is
 * done, a sync when it is done: a kill between the two errs on the strict side. What cannot be simulated (a file
 * mapped for writing, holes, copies inside the kernel) ends the process with a word.
 *
 * Every record is one write of the header below and `length` bytes, in the order of this machine.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))
#define DESCRIPTORS 4096
#define NAMES 256
#define FOLDER 1u

enum kind {
    OPENED = 1,     /* bytes: name; a file that was there */
    MADE = 2,       /* bytes: name; a file that was not */
    WRITTEN = 3,    /* offset, bytes */
    TRUNCATED = 4,  /* offset: the new length */
    SYNC_BEGUN = 5, /* offset: number of this sync */
    SYNC_DONE = 6,  /* offset: number of the sync that has begun */
    REMOVED = 7,    /* bytes: name */
    RENAMED = 8,    /* bytes: old name, a zero byte, new name */
    SAID = 9,       /* bytes: written to the standard output */
};

struct header {
    uint32_t kind;
    uint32_t file;
    uint64_t time; /* nanoseconds since 1970 */
    uint64_t offset;
    uint32_t length;
    uint32_t zero;
};

struct name {
    char text[64];
    uint32_t file;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int journal = -1;
static char root[PATH_MAX];
static size_t root_length;
static useconds_t sync_time;
static uint32_t of_descriptor[DESCRIPTORS];
static char appends[DESCRIPTORS];
static struct name names[NAMES];
static size_t named;
static uint32_t last_file = FOLDER;
static uint64_t last_sync;

static void die(const char *why) {
    char text[200];
    int length = snprintf(text, sizeof text, "crash shim: %s: not simulated\n", why);
    syscall(SYS_write, 2, text, (size_t)length);
    _exit(99);
}

static void note(enum kind kind, uint32_t file, uint64_t offset, const void *bytes, size_t length) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    struct header header = {kind, file, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec, offset,
                            (uint32_t)length, 0};
    struct iovec parts[2] = {{&header, sizeof header}, {(void *)bytes, length}};
    long done = syscall(SYS_writev, journal, parts, length > 0 ? 2 : 1);
    if (done != (long)(sizeof header + length)) die("the journal cannot be written");
}

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("CRASH_ROOT"), *path = getenv("CRASH_JOURNAL"), *time = getenv("CRASH_SYNC_US");
    if (folder == NULL || path == NULL) return;
    root_length = strlen(folder);
    if (root_length >= sizeof root) die("a long path");
    memcpy(root, folder, root_length + 1);
    sync_time = time == NULL ? 0 : (useconds_t)atoi(time);
    journal = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    if (journal < 0) die("the journal cannot be made");
}

/* The name below the folder, "" for the folder itself, NULL for what is elsewhere. */
static const char *ours(const char *path) {
    if (journal < 0 || path == NULL || strncmp(path, root, root_length) != 0) return NULL;
    if (path[root_length] == '\0') return "";
    if (path[root_length] != '/') return NULL;
    const char *name = path + root_length + 1;
    if (strchr(name, '/') != NULL) die("a folder in the folder");
    if (strlen(name) >= sizeof names[0].text) die("a long name");
    return name;
}

static struct name *find(const char *text) {
    for (size_t at = 0; at < named; at++)
        if (strcmp(names[at].text, text) == 0) return &names[at];
    return NULL;
}

static void forget(const char *text) {
    struct name *name = find(text);
    if (name != NULL) *name = names[--named];
}

static uint32_t give(const char *text, uint32_t file) {
    forget(text);
    if (named == NAMES) die("so many files");
    strcpy(names[named].text, text);
    names[named++].file = file;
    return file;
}

static uint32_t of(int descriptor) {
    return descriptor >= 0 && descriptor < DESCRIPTORS ? of_descriptor[descriptor] : 0;
}

static int opens(int folder, const char *path, int flags, mode_t mode) {
    const char *name = folder == AT_FDCWD || (path != NULL && path[0] == '/') ? ours(path) : NULL;
    if (name == NULL) return (int)syscall(SYS_openat, folder, path, flags, mode);
    pthread_mutex_lock(&lock);
    int was_there = syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
    int descriptor = (int)syscall(SYS_openat, folder, path, flags, mode), why = errno;
    if (descriptor >= 0) {
        if (descriptor >= DESCRIPTORS) die("so many open files");
        uint32_t file = FOLDER;
        if (name[0] != '\0') {
            struct name *known = find(name);
            file = known != NULL ? known->file : give(name, ++last_file);
            if (!was_there) note(MADE, file, 0, name, strlen(name));
            else if (known == NULL) note(OPENED, file, 0, name, strlen(name));
            if (was_there && (flags & O_TRUNC)) note(TRUNCATED, file, 0, NULL, 0);
        }
        of_descriptor[descriptor] = file;
        appends[descriptor] = (flags & O_APPEND) != 0;
    }
    pthread_mutex_unlock(&lock);
    errno = why;
    return descriptor;
}

static mode_t mode_of(int flags, va_list rest) {
    return flags & (O_CREAT | __O_TMPFILE) ? (mode_t)va_arg(rest, int) : 0;
}

#define OPEN(NAME)                                       \
    API int NAME(const char *path, int flags, ...) {     \
        va_list rest;                                    \
        va_start(rest, flags);                           \
        mode_t mode = mode_of(flags, rest);              \
        va_end(rest);                                    \
        return opens(AT_FDCWD, path, flags, mode);       \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(NAME)                                             \
    API int NAME(int folder, const char *path, int flags, ...) { \
        va_list rest;                                            \
        va_start(rest, flags);                                   \
        mode_t mode = mode_of(flags, rest);                      \
        va_end(rest);                                            \
        return opens(folder, path, flags, mode);                 \
    }
OPENAT(openat)
OPENAT(openat64)

API int close(int descriptor) {
    if (of(descriptor) == 0) return (int)syscall(SYS_close, descriptor);
    pthread_mutex_lock(&lock);
    of_descriptor[descriptor] = 0;
    int done = (int)syscall(SYS_close, descriptor);
    pthread_mutex_unlock(&lock);
    return done;
}

static ssize_t writes(int descriptor, const void *bytes, size_t length, off64_t offset) {
    pthread_mutex_lock(&lock);
    note(WRITTEN, of(descriptor), (uint64_t)offset, bytes, length);
    ssize_t done = syscall(SYS_pwrite64, descriptor, bytes, length, offset);
    if (done != (ssize_t)length) die("a short write");
    pthread_mutex_unlock(&lock);
    return done;
}

API ssize_t pwrite(int descriptor, const void *bytes, size_t length, off_t offset) {
    if (of(descriptor) == 0) return syscall(SYS_pwrite64, descriptor, bytes, length, offset);
    return writes(descriptor, bytes, length, offset);
}

API ssize_t pwrite64(int descriptor, const void *bytes, size_t length, off64_t offset) {
    if (of(descriptor) == 0) return syscall(SYS_pwrite64, descriptor, bytes, length, offset);
    return writes(descriptor, bytes, length, offset);
}

API ssize_t write(int descriptor, const void *bytes, size_t length) {
    if (descriptor == STDOUT_FILENO && journal >= 0) {
        pthread_mutex_lock(&lock);
        note(SAID, 0, 0, bytes, length);
        ssize_t done = syscall(SYS_write, descriptor, bytes, length);
        if (done >= 0 && done != (ssize_t)length) die("a short write");
        pthread_mutex_unlock(&lock);
        return done;
    }
    if (of(descriptor) == 0) return syscall(SYS_write, descriptor, bytes, length);
    off64_t offset = syscall(SYS_lseek, descriptor, 0, appends[descriptor] ? SEEK_END : SEEK_CUR);
    ssize_t done = writes(descriptor, bytes, length, offset);
    syscall(SYS_lseek, descriptor, offset + done, SEEK_SET);
    return done;
}

API ssize_t writev(int descriptor, const struct iovec *parts, int count) {
    if (of(descriptor) == 0 && (descriptor != STDOUT_FILENO || journal < 0))
        return syscall(SYS_writev, descriptor, parts, count);
    ssize_t done = 0;
    for (int at = 0; at < count; at++) done += write(descriptor, parts[at].iov_base, parts[at].iov_len);
    return done;
}

static int truncates(int descriptor, off64_t length) {
    if (of(descriptor) == 0) return (int)syscall(SYS_ftruncate, descriptor, length);
    pthread_mutex_lock(&lock);
    note(TRUNCATED, of(descriptor), (uint64_t)length, NULL, 0);
    int done = (int)syscall(SYS_ftruncate, descriptor, length);
    pthread_mutex_unlock(&lock);
    return done;
}

API int ftruncate(int descriptor, off_t length) { return truncates(descriptor, length); }
API int ftruncate64(int descriptor, off64_t length) { return truncates(descriptor, length); }

/* Not under the lock while it lasts: whoever does not wait for it must be seen to go on. */
static int syncs(int descriptor) {
    uint32_t file = of(descriptor);
    pthread_mutex_lock(&lock);
    uint64_t number = ++last_sync;
    note(SYNC_BEGUN, file, number, NULL, 0);
    pthread_mutex_unlock(&lock);
    if (sync_time > 0) usleep(sync_time);
    pthread_mutex_lock(&lock);
    note(SYNC_DONE, file, number, NULL, 0);
    pthread_mutex_unlock(&lock);
    return 0;
}

API int fsync(int descriptor) {
    return of(descriptor) == 0 ? (int)syscall(SYS_fsync, descriptor) : syncs(descriptor);
}

API int fdatasync(int descriptor) {
    return of(descriptor) == 0 ? (int)syscall(SYS_fdatasync, descriptor) : syncs(descriptor);
}

API int unlinkat(int folder, const char *path, int flags) {
    const char *name = folder == AT_FDCWD || path[0] == '/' ? ours(path) : NULL;
    if (name == NULL) return (int)syscall(SYS_unlinkat, folder, path, flags);
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_unlinkat, folder, path, flags), why = errno;
    if (done == 0) {
        note(REMOVED, 0, 0, name, strlen(name));
        forget(name);
    }
    pthread_mutex_unlock(&lock);
    errno = why;
    return done;
}

API int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

API int rename(const char *from, const char *to) {
    const char *old = ours(from), *new = ours(to);
    if (old == NULL && new == NULL) return (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to);
    if (old == NULL || new == NULL) die("a name that enters or leaves the folder");
    pthread_mutex_lock(&lock);
    int done = (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to), why = errno;
    if (done == 0) {
        char both[2 * sizeof names[0].text];
        size_t length = strlen(old);
        memcpy(both, old, length + 1);
        strcpy(both + length + 1, new);
        note(RENAMED, 0, 0, both, length + 1 + strlen(new));
        struct name *known = find(old);
        uint32_t file = known != NULL ? known->file : 0;
        forget(old);
        forget(new);
        if (file != 0) give(new, file);
    }
    pthread_mutex_unlock(&lock);
    errno = why;
    return done;
}

/* What cannot be simulated. */
API void *mmap(void *at, size_t length, int access, int flags, int descriptor, off_t offset) {
    if (of(descriptor) != 0 && (access & PROT_WRITE) && (flags & MAP_SHARED)) die("a file mapped for writing");
    return (void *)syscall(SYS_mmap, at, length, access, flags, descriptor, offset);
}

API void *mmap64(void *at, size_t length, int access, int flags, int descriptor, off64_t offset) {
    return mmap(at, length, access, flags, descriptor, offset);
}

API int fallocate(int descriptor, int mode, off_t offset, off_t length) {
    if (of(descriptor) != 0) die("fallocate");
    return (int)syscall(SYS_fallocate, descriptor, mode, offset, length);
}

API int posix_fallocate(int descriptor, off_t offset, off_t length) {
    if (of(descriptor) != 0) die("posix_fallocate");
    return syscall(SYS_fallocate, descriptor, 0, offset, length) == 0 ? 0 : errno;
}

API ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *where, size_t length, unsigned flags) {
    if (of(to) != 0) die("copy_file_range");
    return syscall(SYS_copy_file_range, from, at, to, where, length, flags);
}
