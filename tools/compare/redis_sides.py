"""Redis and LogStreams as sides of a comparison at the Redis protocol, and what their clients say of them."""

import re
import socket
import time

import brokers
import clients
import machine

CONNECT_SECONDS_MAX = 1
# How Redis says that it rewrites its append-only file, or soon will.
REWRITING = [b"aof_rewrite_in_progress:1", b"aof_rewrite_scheduled:1"]
# What a rewrite of Redis's append-only file may take.
SETTLE_SECONDS_MAX = 120


class RedisSide:
    """What both sides have: they are ready when they answer PING, and `call` asks them something."""

    def is_ready(self):
        try:
            return self.call("PING") == b"+PONG\r\n"
        except OSError:
            return False

    def call(self, *words):
        """The first bytes of the answer to a command; enough for the short answers that are asked for here."""
        with socket.create_connection(("127.0.0.1", self.redis_port), timeout=CONNECT_SECONDS_MAX) as connection:
            connection.settimeout(60)
            connection.sendall(encode(*words))
            return connection.recv(1 << 16)

    def settle(self):
        """Waits until nothing that an earlier work began goes on in the background."""

    def integer(self, *words):
        answer = self.call(*words)
        if not answer.startswith(b":"):
            raise RuntimeError(f"{self.name}: {' '.join(words)} is answered by {answer[:80]!r}")
        return int(answer[1:])


class RedisServer(RedisSide, brokers.Broker):
    """redis-server with its append-only file, synced every second, all else by default but for snapshots."""

    @property
    def redis_port(self):
        return self.port

    def command(self):
        return ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.directory),
                "--save", "", "--appendonly", "yes", "--appendfsync", "everysec"]

    def settle(self):
        """A child that rewrites the append-only file would take its CPU from whoever is measured next."""
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while any(line in self.call("INFO", "persistence") for line in REWRITING):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{self.name}: its file is still being rewritten after {SETTLE_SECONDS_MAX} s")
            time.sleep(0.1)


class LogStreams(RedisSide, brokers.LogStreams):
    """The binary of this repository, with one partition a topic as a stream has one order."""

    def prepare(self):
        self.redis_port = brokers.free_port()

    def command(self):
        return [str(self.binary), "serve", "--data-dir", str(self.directory / "data"), "--kafka-addr", self.bootstrap,
                "--redis-addr", f"127.0.0.1:{self.redis_port}", "--admin-addr", "off", "-o", "num.partitions=1",
                "-o", "auto.create.topics.enable=true", *self.extra_args]


def make_sides(specs, work_dir, cpus, binary):
    """Functions that make a server of each side, by the side's name."""
    sides = {}
    for index, spec in enumerate(specs):
        kind, *options = spec.split(":")
        if kind not in ("logstreams", "redis") or not all("=" in option for option in options):
            raise ValueError(f"no side is called {spec}: use redis, or logstreams and then :KEY=VALUE or :binary=PATH")
        name = "LogStreams" if kind == "logstreams" else "Redis"
        name += f" ({', '.join(options)})" if options else ""
        if specs.count(spec) > 1:
            name += f" [{chr(ord('A') + index)}]"

        def make(kind=kind, name=name, options=options):
            if kind == "redis":
                return RedisServer(name, work_dir, cpus)
            build, arguments = brokers.build_and_arguments(dict(option.split("=", 1) for option in options), binary)
            return LogStreams(name, work_dir, cpus, build, arguments)

        sides[name] = make
    return sides


def encode(*words):
    """A command as clients send it; words are text or bytes."""
    out = [b"*%d\r\n" % len(words)]
    for word in words:
        word = word.encode() if isinstance(word, str) else word
        out.append(b"$%d\r\n%s\r\n" % (len(word), word))
    return b"".join(out)


def benchmark(side, requests, connections, pipeline, command, cpus=()):
    """redis-benchmark with one command: requests/s, latencies of a request, and what the server paid for it."""
    line = ["redis-benchmark", "-h", "127.0.0.1", "-p", str(side.redis_port), "-n", str(requests),
            "-c", str(connections), "-P", str(pipeline), *command]
    if cpus:
        line = ["taskset", "-c", clients.join(cpus), *line]
    before = machine.cpu_seconds(side.pid)
    output = clients.run(line, 600)
    cpu_s = machine.cpu_seconds(side.pid) - before
    return {**parse_benchmark(output), "cpu_s": cpu_s}


def parse_benchmark(output):
    """The figures out of what redis-benchmark prints for people: its CSV ends with p99."""
    requests_s = float(re.search(r"throughput summary: ([\d.]+) requests per second", output).group(1))
    names, values = (row.split() for row in output.rstrip().splitlines()[-2:])
    summary_ms = dict(zip(names, map(float, values)))
    # Percentages in doubling steps towards 100, each with the latency that so many stayed within.
    steps = re.findall(r"^([\d.]+)% <= ([\d.]+) milliseconds", output.partition("Cumulative")[0], re.MULTILINE)
    p99_9_ms = next(float(ms) for percent, ms in steps if float(percent) >= 99.9)
    return {
        "requests/s": requests_s,
        "p50 us": summary_ms["p50"] * 1000,
        "p99 us": summary_ms["p99"] * 1000,
        "p99.9 us": p99_9_ms * 1000,
    }
