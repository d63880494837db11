"""Facts about the machine, its processes and its memory. Reads /proc; knows nothing of brokers."""

import ctypes
import mmap
import os
import platform
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
GIB = 1 << 30


def facts():
    """Name-value pairs that belong beside every figure."""
    return {
        "kernel": platform.release(),
        "CPU": _first_field("/proc/cpuinfo", "model name"),
        "cores": len(os.sched_getaffinity(0)),
        "memory GiB": round(_meminfo_bytes("MemTotal") / GIB, 1),
        "date": time.strftime("%Y-%m-%d %H:%M %Z"),
        "load average before": "%.2f" % os.getloadavg()[0],
    }


def cpu_seconds(pid):
    """User and system CPU seconds of a process so far."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def resident_bytes(pid, kind="VmRSS"):
    """Resident memory of a process now; kind `RssAnon` leaves mapped files out."""
    return int(_first_field(f"/proc/{pid}/status", kind).split()[0]) * 1024


class CpuLedger:
    """Who used the CPUs between its making and `close`: the host, our own processes, others.

    Figures of a machine that others use at the same time are to be read with care; this says how much they did.
    """

    def __init__(self, broker_pids):
        self.broker_pids = broker_pids
        self.begun = self._read()

    def close(self):
        """Name-value pairs for the facts."""
        seconds, busy, stolen, own = (end - begin for begin, end in zip(self.begun, self._read()))
        return {
            "CPU taken by the host": f"{100 * stolen / seconds:.1f} % of a core",
            "CPU used by strangers": f"{100 * max(0, busy - own) / seconds:.0f} % of a core",
        }

    def _read(self):
        with open("/proc/stat") as file:
            user, nice, system, _idle, _iowait, irq, softirq, steal = (
                int(field) / TICKS_PER_SECOND for field in file.readline().split()[1:9])
        times = os.times()
        own = times.user + times.system + times.children_user + times.children_system
        own += sum(cpu_seconds(pid) for pid in self.broker_pids)
        return time.monotonic(), user + nice + system + irq + softirq, steal, own


class Ballast:
    """A large sparse file that is kept in the page cache, so that little of the machine's memory lies free.

    A virtual machine may give free memory back to its host, and the first touch of it afterwards is slow. That would be
    charged to whichever broker writes next, and deleting a topic frees its pages, so touching the memory once does not
    last. With nearly all of it in the page cache a write recycles a page, for every side alike; the kernel takes the
    ballast's first, since nobody reads it twice.
    """

    PASSES_MAX = 3
    STEP_BYTES = 8 << 20
    PAGE_BYTES = mmap.PAGESIZE

    def __init__(self, directory, free_bytes):
        self.free_bytes = free_bytes
        self.size_bytes = max(self.STEP_BYTES, _meminfo_bytes("MemTotal") - free_bytes)
        self.file = open(directory / "ballast", "w+b")
        self.file.truncate(self.size_bytes)
        self.buffer = bytearray(self.STEP_BYTES)

    def refill(self, seconds_max):
        """Reads what is not cached until no more than `free_bytes` are free; returns the bytes read and the seconds."""
        begun, read_bytes = time.monotonic(), 0
        for _ in range(self.PASSES_MAX):  # Reading the end may push the beginning out.
            for position in self._missing():
                if _meminfo_bytes("MemFree") <= self.free_bytes or time.monotonic() - begun > seconds_max:
                    return read_bytes, time.monotonic() - begun
                read_bytes += os.preadv(self.file.fileno(), [self.buffer], position)
        return read_bytes, time.monotonic() - begun

    def close(self):
        """Gives the memory back; the file goes with its directory."""
        self.file.truncate(0)
        self.file.close()

    def _missing(self):
        if _meminfo_bytes("MemFree") <= self.free_bytes:
            return
        cached = cached_pages(self.file.fileno(), self.size_bytes)
        step_pages = self.STEP_BYTES // self.PAGE_BYTES
        for page in range(0, len(cached), step_pages):
            if b"\0" in cached[page:page + step_pages]:
                yield page * self.PAGE_BYTES


def cached_pages(descriptor, size_bytes):
    """One byte for each page of a file: whether it is in the page cache (mincore)."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
    libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]
    if size_bytes == 0:
        return b""
    address = libc.mmap(None, size_bytes, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address == ctypes.c_void_p(-1).value:
        raise OSError(ctypes.get_errno(), "mmap")
    flags = ctypes.create_string_buffer(-(-size_bytes // mmap.PAGESIZE))
    try:
        if libc.mincore(address, size_bytes, flags) != 0:
            raise OSError(ctypes.get_errno(), "mincore")
    finally:
        libc.munmap(address, size_bytes)
    return flags.raw


def drop_cached(files):
    """Writes files to disk and takes them out of the page cache; returns the bytes that stayed and all bytes."""
    stayed_bytes = all_bytes = 0
    for path in files:
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            size_bytes = os.fstat(file.fileno()).st_size
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            flags = cached_pages(file.fileno(), size_bytes)
        stayed_bytes += (len(flags) - flags.count(0)) * mmap.PAGESIZE
        all_bytes += size_bytes
    return stayed_bytes, all_bytes


def free_disk_bytes(path):
    """Bytes that may be written below `path`."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def _meminfo_bytes(name):
    return int(_first_field("/proc/meminfo", name).split()[0]) * 1024


def _first_field(path, name):
    with open(path) as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return "unknown"
