/* Let the n-th file-system call below a directory fail, or be the last of the process.

   Loaded by LD_PRELOAD, it sees the calls of Python and of the C++ code of TensorStore
   alike. `gradtx_arm(root, n, mode)` begins to count; mode 0 only counts, 1 kills, 2 is
   ENOSPC, 3 is EIO. A call that is killed has not been made, except that a write may
   have been made in part. `gradtx_disarm()` ends it and returns how many there were. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, FULL, BROKEN };
enum { FILES = 65536, LINES = 65536, LINE = 320 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_length;
static volatile int armed;
static int mode, fired;
static long target, calls;
static char below_root[FILES]; /* by descriptor: whether it is open below the root */
static char (*lines)[LINE];    /* the calls, in words */

static void *next(const char *name) {
  void *found = dlsym(RTLD_NEXT, name);
  if (!found) _exit(113);
  return found;
}
#define REAL(name) \
  static __typeof__(name) *real; \
  if (!real) real = next(#name)

/* Returns 0, or the error that the call must end with. May not return. */
static int due(const char *call, const char *path, const char *other, int fd,
               int changes) {
  int error = 0;
  pthread_mutex_lock(&lock);
  if (armed) {
    char link[64], own[PATH_MAX];
    if (!path && lines) {
      snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
      ssize_t length = readlink(link, own, sizeof own - 1);
      own[length < 0 ? 0 : length] = 0;
      path = own;
    }
    if (lines && calls < LINES)
      snprintf(lines[calls], LINE, "%s %.140s%s%.140s", call, path ? path : "",
               other ? " " : "", other ? other : "");
    calls++;
    if (calls == target && mode != COUNT) {
      fired = 1;
      if (mode == KILL) {
        kill(getpid(), SIGKILL);
        for (;;) pause();
      }
      error = mode == FULL && changes ? ENOSPC : EIO;
    }
  }
  pthread_mutex_unlock(&lock);
  return error;
}

static int inside(const char *path) {
  return armed && path && !strncmp(path, root, root_length) &&
         (path[root_length] == 0 || path[root_length] == '/');
}

static int inside_at(int directory, const char *path) {
  if (!armed || !path) return 0;
  if (path[0] == '/' || directory == AT_FDCWD) return inside(path);
  return directory >= 0 && directory < FILES && below_root[directory];
}

static int known(int fd) { return armed && fd >= 0 && fd < FILES && below_root[fd]; }

static int note(int fd, int is_inside) {
  if (fd >= 0 && fd < FILES) below_root[fd] = (char)is_inside;
  return fd;
}

#define FAIL(condition, name, path, other, fd, changes, value) \
  if (condition) { \
    int error = due(name, path, other, fd, changes); \
    if (error) { \
      errno = error; \
      return value; \
    } \
  }

void gradtx_arm(const char *directory, long number, int how, int with_lines) {
  pthread_mutex_lock(&lock);
  snprintf(root, sizeof root, "%s", directory);
  root_length = strlen(root);
  memset(below_root, 0, sizeof below_root);
  if (with_lines && !lines) lines = calloc(LINES, LINE);
  calls = 0;
  fired = 0;
  target = number;
  mode = how;
  armed = 1;
  pthread_mutex_unlock(&lock);
}

long gradtx_disarm(int *was_fired) {
  pthread_mutex_lock(&lock);
  armed = 0;
  *was_fired = fired;
  long made = calls;
  pthread_mutex_unlock(&lock);
  return made;
}

const char *gradtx_line(long number) {
  return lines && number < LINES ? lines[number] : "";
}

#define MODE_OF(flags) \
  mode_t bits = 0; \
  if ((flags) & (O_CREAT | O_TMPFILE)) { \
    va_list rest; \
    va_start(rest, flags); \
    bits = va_arg(rest, mode_t); \
    va_end(rest); \
  }
#define WRITES(flags) (((flags) & O_ACCMODE) != O_RDONLY || ((flags) & O_CREAT))

#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    REAL(name); \
    MODE_OF(flags) \
    int is = inside(path); \
    FAIL(is, WRITES(flags) ? "create" : "open", path, 0, -1, WRITES(flags), -1) \
    return note(real(path, flags, bits), is); \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
  int name(int directory, const char *path, int flags, ...) { \
    REAL(name); \
    MODE_OF(flags) \
    int is = inside_at(directory, path); \
    FAIL(is, WRITES(flags) ? "create" : "open", path, 0, -1, WRITES(flags), -1) \
    return note(real(directory, path, flags, bits), is); \
  }
OPENAT(openat)
OPENAT(openat64)

int __openat_2(int directory, const char *path, int flags) {
  return openat(directory, path, flags);
}

int close(int fd) {
  REAL(close);
  if (fd >= 0 && fd < FILES) below_root[fd] = 0;
  return real(fd);
}

DIR *opendir(const char *path) {
  REAL(opendir);
  FAIL(inside(path), "opendir", path, 0, -1, 0, NULL)
  return real(path);
}

/* A killed write may have been made in part: half of it is. */
#define HALF(call, size, part) \
  if (known(fd) && mode == KILL && calls + 1 == target && (size) > 1) (void)!(part);

ssize_t write(int fd, const void *data, size_t size) {
  REAL(write);
  HALF("write", size, real(fd, data, size / 2))
  FAIL(known(fd), "write", 0, 0, fd, 1, -1)
  return real(fd, data, size);
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
  REAL(writev);
  HALF("writev", count, real(fd, parts, count / 2))
  FAIL(known(fd), "write", 0, 0, fd, 1, -1)
  return real(fd, parts, count);
}

#define PWRITE(name, offset_t) \
  ssize_t name(int fd, const void *data, size_t size, offset_t offset) { \
    REAL(name); \
    FAIL(known(fd), "write", 0, 0, fd, 1, -1) \
    return real(fd, data, size, offset); \
  }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t read(int fd, void *data, size_t size) {
  REAL(read);
  FAIL(known(fd), "read", 0, 0, fd, 0, -1)
  return real(fd, data, size);
}

#define PREAD(name, offset_t) \
  ssize_t name(int fd, void *data, size_t size, offset_t offset) { \
    REAL(name); \
    FAIL(known(fd), "read", 0, 0, fd, 0, -1) \
    return real(fd, data, size, offset); \
  }
PREAD(pread, off_t)
PREAD(pread64, off64_t)

int fsync(int fd) {
  REAL(fsync);
  FAIL(known(fd), "fsync", 0, 0, fd, 1, -1)
  return real(fd);
}

int fdatasync(int fd) {
  REAL(fdatasync);
  FAIL(known(fd), "fsync", 0, 0, fd, 1, -1)
  return real(fd);
}

#define TRUNCATE(name, offset_t) \
  int name(int fd, offset_t size) { \
    REAL(name); \
    FAIL(known(fd), "ftruncate", 0, 0, fd, 1, -1) \
    return real(fd, size); \
  }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

int fchmod(int fd, mode_t bits) {
  REAL(fchmod);
  FAIL(known(fd), "fchmod", 0, 0, fd, 1, -1)
  return real(fd, bits);
}

int chmod(const char *path, mode_t bits) {
  REAL(chmod);
  FAIL(inside(path), "chmod", path, 0, -1, 1, -1)
  return real(path, bits);
}

int fchmodat(int directory, const char *path, mode_t bits, int flags) {
  REAL(fchmodat);
  FAIL(inside_at(directory, path), "chmod", path, 0, -1, 1, -1)
  return real(directory, path, bits, flags);
}

int mkdir(const char *path, mode_t bits) {
  REAL(mkdir);
  FAIL(inside(path), "mkdir", path, 0, -1, 1, -1)
  return real(path, bits);
}

int mkdirat(int directory, const char *path, mode_t bits) {
  REAL(mkdirat);
  FAIL(inside_at(directory, path), "mkdir", path, 0, -1, 1, -1)
  return real(directory, path, bits);
}

int rmdir(const char *path) {
  REAL(rmdir);
  FAIL(inside(path), "rmdir", path, 0, -1, 1, -1)
  return real(path);
}

int unlink(const char *path) {
  REAL(unlink);
  FAIL(inside(path), "unlink", path, 0, -1, 1, -1)
  return real(path);
}

int unlinkat(int directory, const char *path, int flags) {
  REAL(unlinkat);
  FAIL(inside_at(directory, path), "unlink", path, 0, -1, 1, -1)
  return real(directory, path, flags);
}

int link(const char *old, const char *path) {
  REAL(link);
  FAIL(inside(path), "link", old, path, -1, 1, -1)
  return real(old, path);
}

int rename(const char *old, const char *path) {
  REAL(rename);
  FAIL(inside(old) || inside(path), "rename", old, path, -1, 1, -1)
  return real(old, path);
}

int renameat(int from, const char *old, int to, const char *path) {
  REAL(renameat);
  FAIL(inside_at(from, old) || inside_at(to, path), "rename", old, path, -1, 1, -1)
  return real(from, old, to, path);
}

int renameat2(int from, const char *old, int to, const char *path, unsigned flags) {
  REAL(renameat2);
  FAIL(inside_at(from, old) || inside_at(to, path), "rename", old, path, -1, 1, -1)
  return real(from, old, to, path, flags);
}

#define FOPEN(name) \
  FILE *name(const char *path, const char *how) { \
    REAL(name); \
    int is = inside(path); \
    FAIL(is, "fopen", path, 0, -1, strchr(how, 'r') == 0, NULL) \
    FILE *file = real(path, how); \
    if (file) note(fileno(file), is); \
    return file; \
  }
FOPEN(fopen)
FOPEN(fopen64)

#define STAT(name, type) \
  int name(const char *path, type *found) { \
    REAL(name); \
    FAIL(inside(path), "stat", path, 0, -1, 0, -1) \
    return real(path, found); \
  }
STAT(stat, struct stat)
STAT(lstat, struct stat)
STAT(stat64, struct stat64)
STAT(lstat64, struct stat64)

#define FSTAT(name, type) \
  int name(int fd, type *found) { \
    REAL(name); \
    FAIL(known(fd), "fstat", 0, 0, fd, 0, -1) \
    return real(fd, found); \
  }
FSTAT(fstat, struct stat)
FSTAT(fstat64, struct stat64)

/* What programs that were linked to an older libc call in their place. */
int __xstat(int version, const char *path, struct stat *found) {
  REAL(__xstat);
  FAIL(inside(path), "stat", path, 0, -1, 0, -1)
  return real(version, path, found);
}

int __lxstat(int version, const char *path, struct stat *found) {
  REAL(__lxstat);
  FAIL(inside(path), "stat", path, 0, -1, 0, -1)
  return real(version, path, found);
}

int __fxstat(int version, int fd, struct stat *found) {
  REAL(__fxstat);
  FAIL(known(fd), "fstat", 0, 0, fd, 0, -1)
  return real(version, fd, found);
}
