"""Facts about the machine, its processes and its memory. Reads /proc; knows nothing of brokers."""

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


def resident_bytes(pid):
    """Resident memory of a process now."""
    return int(_first_field(f"/proc/{pid}/status", "VmRSS").split()[0]) * 1024


def stolen_and_total_ticks():
    """CPU ticks that the hypervisor took away, and all ticks, since boot."""
    with open("/proc/stat") as file:
        ticks = [int(field) for field in file.readline().split()[1:9]]
    return ticks[7], sum(ticks)


def touch_memory(size_bytes, seconds_max):
    """Writes to `size_bytes` of fresh memory and gives it back; returns the bytes touched.

    A virtual machine's memory is slow at its first touch (the host must find it) and fast ever after. Without this the
    broker that happens to run first pays for it.
    """
    size_bytes = min(size_bytes, int(_meminfo_bytes("MemAvailable") * 0.8))
    deadline = time.monotonic() + seconds_max
    step_bytes = 64 << 20
    step = b"\1" * step_bytes
    touched_bytes = 0
    with mmap.mmap(-1, max(size_bytes, step_bytes)) as memory:
        while touched_bytes + step_bytes <= len(memory) and time.monotonic() < deadline:
            memory[touched_bytes:touched_bytes + step_bytes] = step
            touched_bytes += step_bytes
    return touched_bytes


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
