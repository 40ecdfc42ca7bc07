"""Caps of memory around one process, and what the disk keeps of files, for bench/peers. Linux only."""

import ctypes
import mmap
import os
import re
import signal
import sys
import time

from report import MIB, read, say


def set_control(path, value):
    """Of the kernel, which takes no renaming."""
    with open(path, "w", encoding="utf-8") as f:
        f.write(value)


# ---- memory cgroups ---------------------------------------------------------------------------

def cgroup_folders():
    """(version, folder) in which groups of this process's own may be made, nearest first."""
    mounts = [line.split() for line in read("/proc/self/mounts").splitlines()]
    own = dict(line.split(":", 2)[1:] for line in read("/proc/self/cgroup").splitlines())
    v1 = [m[1] for m in mounts if m[2] == "cgroup" and "memory" in m[3].split(",")]
    v2 = [m[1] for m in mounts if m[2] == "cgroup2"]
    if v1:
        path = next((p for names, p in own.items() if "memory" in names.split(",")), "/")
        version, roots = 1, v1
    else:
        version, roots, path = 2, v2, own.get("", "/")
    result = []
    for root in roots[:1]:
        while True:
            result.append((version, os.path.normpath(root + path)))
            if path == "/":
                break
            path = os.path.dirname(path)
    return result


class MemoryGroup:
    """A memory cgroup of a few moments; cap_bytes 0: it only counts."""

    FILES = {1: ("memory.limit_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
             2: ("memory.max", "memory.peak", "memory.events")}

    def __init__(self, cap_bytes):
        self.cap_bytes = cap_bytes
        self.path = self.version = None

    def __enter__(self):
        reasons = []
        for version, folder in cgroup_folders():
            path = os.path.join(folder, f"penstock-peers-{os.getpid()}")
            try:
                if version == 2:
                    self.delegate(folder)
                os.mkdir(path)
            except OSError as error:
                reasons.append(f"{folder}: {error.strerror}")
                continue
            self.path, self.version = path, version
            if os.path.exists(self.file(0)):
                try:
                    self.limit()
                    return self
                except OSError as error:
                    reasons.append(f"{folder}: {error.strerror}")
            else:
                reasons.append(f"{folder}: no memory controller")
            os.rmdir(path)
        sys.exit("no memory cgroup can be made, so nothing can be capped ("
                 + ("; ".join(reasons) or "none is mounted")
                 + "); run it as root, or in a delegated cgroup")

    @staticmethod
    def delegate(folder):
        control = os.path.join(folder, "cgroup.subtree_control")
        if "memory" not in read(control).split():
            set_control(control, "+memory")

    def file(self, index):
        return os.path.join(self.path, self.FILES[self.version][index])

    def limit(self):
        if not self.cap_bytes:
            return
        set_control(self.file(0), str(self.cap_bytes))
        # Swap would be memory that the cap does not count.
        for name, value in (("memory.memsw.limit_in_bytes", str(self.cap_bytes)),
                            ("memory.swap.max", "0")):
            swap = os.path.join(self.path, name)
            if os.path.exists(swap):
                set_control(swap, value)

    def enter_child(self):
        set_control(os.path.join(self.path, "cgroup.procs"), "0")

    def peak_bytes(self):
        try:
            return int(read(self.file(1)))
        except OSError:
            return 0  # older kernels do not tell

    def was_out_of_memory(self):
        return bool(re.search(r"^oom_kill [1-9]", read(self.file(2)), re.M))

    def __exit__(self, *_):
        for _ in range(100):
            for pid in read(os.path.join(self.path, "cgroup.procs")).split():
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    pass
            try:
                os.rmdir(self.path)
                return
            except OSError:
                time.sleep(0.1)
        say(f"{self.path} could not be removed")


# ---- the disk ---------------------------------------------------------------------------------

def files_of(path):
    if os.path.isfile(path):
        return [path]
    return [os.path.join(path, name) for name in sorted(os.listdir(path))]


def cached_bytes(path):
    """Of a file, in the page cache."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int,
                          ctypes.c_int, ctypes.c_long]
    size = os.path.getsize(path)
    if size == 0:
        return 0
    fd = os.open(path, os.O_RDONLY)
    try:
        address = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    finally:
        os.close(fd)
    if address == ctypes.c_void_p(-1).value:
        return 0
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), pages)
    libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(size))
    return sum(bytes(pages).translate(bytes(i & 1 for i in range(256)))) * mmap.PAGESIZE


def drop_caches(path):
    """Nothing of these files stays in memory, where the last group's pages would be free."""
    for name in files_of(path):
        fd = os.open(name, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)
        left = cached_bytes(name)
        if left > 0.01 * os.path.getsize(name) + MIB:
            say(f"{name}: {left / MIB:,.0f} MiB stay in the page cache; does a process map it?")


def read_ahead_file(path):
    """Where the kernel keeps the read-ahead of the file's block device, or None."""
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    block = os.path.realpath(f"/sys/dev/block/{number}")
    candidates = [os.path.join(block, "queue/read_ahead_kb"),
                  os.path.join(os.path.dirname(block), "queue/read_ahead_kb"),
                  f"/sys/class/bdi/{number}/read_ahead_kb"]
    return next((name for name in candidates if os.path.exists(name)), None)


class ReadAhead:
    """Another read-ahead for as long as this lives; kb None: the system's own."""

    def __init__(self, path, kb):
        self.file, self.kb, self.before = read_ahead_file(path), kb, None

    def now(self):
        return read(self.file).strip() if self.file else "unknown"

    def __enter__(self):
        if self.kb is not None:
            if not self.file:
                sys.exit("--read-ahead: this file's disk has no read-ahead that can be set")
            before = self.now()
            try:
                set_control(self.file, str(self.kb))
            except OSError as error:
                sys.exit(f"--read-ahead: {self.file}: {error.strerror}")
            self.before = before
        return self

    def __exit__(self, *_):
        if self.before is not None:
            set_control(self.file, self.before)
