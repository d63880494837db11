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
