/* A disk that does as it is told: preloaded into a daemon, it stands between the process and libc, and watches over one
 * store's files. Tests switch it while the daemon runs; see disk.py.
 *
 * KVD_SHIM_STORE    the path of the store's file, without symbolic links; its companions' names begin with it
 * KVD_SHIM_ORDERS   a file with the orders, one a line; the test puts a new one in its place
 * KVD_SHIM_LOG      what happens to the files is appended here
 *
 * FILES are some of the letters d (database), w (-wal), j (-journal), D (the directory).
 *
 *   fail_sync FILES AFTER ERRNO    after so many syncs, one fails; the next one would succeed
 *   fail_write FILES AFTER ERRNO   after so many writes, one fails; the next one would succeed
 *   ignore_sync FILES              a sync does nothing, and claims success
 *   block_sync FILES AFTER         after so many syncs, each begins, and ends when there are other orders
 *   delay_sync FILES MILLISECONDS  a sync takes so long
 *   free BYTES                     so much is free on the disk
 *
 * A write is recorded when it is over, a sync when it begins and when it ends: so what stands before a sync's beginning
 * is what it makes durable. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

enum { LONGEST_WAIT = 15000 }; /* milliseconds for which a sync blocks, whatever the orders say */

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *store, *orders_path;
static size_t store_length;
static int log_fd = -1;
static int64_t syncs;

struct order {
    char name[16], files[24];
    long long number, error;
};
static struct order orders[8];
static int how_many, changes;
static char read_orders[512]; /* their text */

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (found == NULL)
        abort();
    return found;
}

#define REAL(name) ({ static __typeof__(&name) found; if (found == NULL) found = real(#name); found; })

__attribute__((constructor)) static void begin(void)
{
    store = getenv("KVD_SHIM_STORE");
    orders_path = getenv("KVD_SHIM_ORDERS");
    const char *log = getenv("KVD_SHIM_LOG");
    if (store == NULL || orders_path == NULL || log == NULL)
        abort();
    store_length = strlen(store);
    log_fd = REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0)
        abort();
}

/* Which of the store's files a path names; 0: none. */
static char letter(const char *path)
{
    if (store == NULL)
        return 0;
    if (strncmp(path, store, store_length) == 0) {
        const char *rest = path + store_length;
        if (*rest == 0)
            return 'd';
        if (strcmp(rest, "-wal") == 0)
            return 'w';
        return strcmp(rest, "-journal") == 0 ? 'j' : 'o';
    }
    size_t length = strlen(path);
    return strncmp(path, store, length) == 0 && strcmp(store + length, strrchr(store, '/')) == 0 ? 'D' : 0;
}

static char letter_of(int fd)
{
    char link[32], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0 || fd == log_fd)
        return 0;
    path[length] = 0;
    return letter(path);
}

static void record(char kind, char file, int error, int64_t number, const void *data, size_t size)
{
    struct __attribute__((packed)) { char kind, file; int32_t error; int64_t number, size; } head
        = {kind, file, error, number, (int64_t)size};
    struct iovec parts[2] = {{&head, sizeof head}, {(void *)data, size}};
    if (writev(log_fd, parts, 2) != (ssize_t)(sizeof head + size))
        abort();
}

static void look_at_orders(void)
{
    char text[sizeof read_orders] = "";
    int fd = REAL(open)(orders_path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        if (read(fd, text, sizeof text - 1) < 0)
            abort();
        close(fd);
    }
    if (strcmp(text, read_orders) == 0)
        return;
    strcpy(read_orders, text);
    changes++;
    how_many = 0;
    char *rest, *line = strtok_r(text, "\n", &rest);
    for (; line != NULL && how_many < 8; line = strtok_r(NULL, "\n", &rest)) {
        struct order *order = &orders[how_many++];
        memset(order, 0, sizeof *order);
        sscanf(line, "%15s %23s %lld %lld", order->name, order->files, &order->number, &order->error);
    }
}

/* The order for a file, if there is one. */
static struct order *ordered(const char *name, char file)
{
    for (int i = 0; i < how_many; i++)
        if (strcmp(orders[i].name, name) == 0 && strchr(orders[i].files, file) != NULL)
            return &orders[i];
    return NULL;
}

/* Whether an order is to be followed now, that lets so many go by. */
static int due(struct order *order)
{
    return order != NULL && order->number-- <= 0;
}

/* The error with which something is to fail; 0: it is not. */
static int failure(const char *name, char file)
{
    struct order *order = ordered(name, file);
    if (!due(order))
        return 0;
    order->name[0] = 0; /* it is spent */
    return (int)order->error;
}

/* Syncs. */

static int sync_file(int fd, int (*sync)(int))
{
    char file = letter_of(fd);
    if (file == 0)
        return sync(fd);
    pthread_mutex_lock(&lock);
    look_at_orders();
    int64_t number = ++syncs;
    record('B', file, 0, number, NULL, 0);
    int blocked = due(ordered("block_sync", file)), at = changes;
    for (int waited = 0; blocked && at == changes && waited < LONGEST_WAIT; waited += 2) {
        pthread_mutex_unlock(&lock);
        usleep(2000);
        pthread_mutex_lock(&lock);
        look_at_orders();
    }
    struct order *delay = ordered("delay_sync", file);
    int milliseconds = delay == NULL ? 0 : (int)delay->number;
    int error = failure("fail_sync", file);
    int ignored = ordered("ignore_sync", file) != NULL;
    pthread_mutex_unlock(&lock);
    usleep(milliseconds * 1000);
    if (!error && !ignored && sync(fd) != 0)
        error = errno;
    record(ignored ? 'I' : 'E', file, error, number, NULL, 0);
    errno = error;
    return error ? -1 : 0;
}

int fsync(int fd)
{
    return sync_file(fd, REAL(fsync));
}

int fdatasync(int fd)
{
    return sync_file(fd, REAL(fdatasync));
}

/* Writes. */

static int refuse_write(char file, int64_t offset)
{
    pthread_mutex_lock(&lock);
    look_at_orders();
    int error = failure("fail_write", file);
    pthread_mutex_unlock(&lock);
    if (error) {
        record('W', file, error, offset, NULL, 0);
        errno = error;
    }
    return error;
}

ssize_t write(int fd, const void *data, size_t size)
{
    char file = letter_of(fd);
    if (file == 0)
        return REAL(write)(fd, data, size);
    int64_t offset = lseek(fd, 0, SEEK_CUR);
    if (refuse_write(file, offset))
        return -1;
    ssize_t written = REAL(write)(fd, data, size);
    if (written > 0)
        record('W', file, 0, offset, data, (size_t)written);
    return written;
}

#define PWRITE(name, offset_type)                                                 \
    ssize_t name(int fd, const void *data, size_t size, offset_type offset)       \
    {                                                                             \
        char file = letter_of(fd);                                                \
        if (file == 0)                                                            \
            return REAL(name)(fd, data, size, offset);                            \
        if (refuse_write(file, offset))                                           \
            return -1;                                                            \
        ssize_t written = REAL(name)(fd, data, size, offset);                     \
        if (written > 0)                                                          \
            record('W', file, 0, offset, data, (size_t)written);                  \
        return written;                                                           \
    }

PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define FTRUNCATE(name, size_type)                                                \
    int name(int fd, size_type size)                                              \
    {                                                                             \
        char file = letter_of(fd);                                                \
        int result = REAL(name)(fd, size);                                        \
        if (file != 0 && result == 0)                                             \
            record('T', file, 0, size, NULL, 0);                                  \
        return result;                                                            \
    }

FTRUNCATE(ftruncate, off_t)
FTRUNCATE(ftruncate64, off64_t)

/* Names. */

int unlink(const char *path)
{
    int result = REAL(unlink)(path);
    char file = letter(path);
    if (file != 0 && result == 0)
        record('U', file, 0, 0, NULL, 0);
    return result;
}

#define OPEN(name)                                                                \
    int name(const char *path, int flags, ...)                                    \
    {                                                                             \
        mode_t mode = 0;                                                          \
        if (flags & (O_CREAT | __O_TMPFILE)) {                                    \
            va_list more;                                                         \
            va_start(more, flags);                                                \
            mode = va_arg(more, mode_t);                                          \
            va_end(more);                                                         \
        }                                                                         \
        char file = flags & O_CREAT ? letter(path) : 0;                           \
        int there = file == 0 || access(path, F_OK) == 0;                         \
        int fd = REAL(name)(path, flags, mode);                                   \
        if (fd >= 0 && !there)                                                    \
            record('O', file, 0, 0, NULL, 0);                                     \
        return fd;                                                                \
    }

OPEN(open)
OPEN(open64)

/* The room. */

static void make_room(fsblkcnt_t *available, unsigned long block)
{
    pthread_mutex_lock(&lock);
    look_at_orders();
    for (int i = 0; i < how_many; i++)
        if (strcmp(orders[i].name, "free") == 0)
            *available = strtoull(orders[i].files, NULL, 10) / block;
    pthread_mutex_unlock(&lock);
}

int statvfs(const char *path, struct statvfs *found)
{
    int result = REAL(statvfs)(path, found);
    make_room(&found->f_bavail, found->f_frsize);
    return result;
}

int statvfs64(const char *path, struct statvfs64 *found)
{
    int result = REAL(statvfs64)(path, found);
    make_room((fsblkcnt_t *)&found->f_bavail, found->f_frsize);
    return result;
}
