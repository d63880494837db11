"""Starts and stops the brokers under comparison.

Each broker gets a fresh directory, listens on loopback only, and is stopped by its pid; it also ends when this process
does, however that happens (PR_SET_PDEATHSIG). No broker is told anything but where to live and how to be durable.
"""

import ctypes
import functools
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

KAFKA_VERSION = "4.3.1"
READY_SECONDS_MAX = 60
STOP_SECONDS_MAX = 20
READY_POLL_SECONDS = 0.002
PR_SET_PDEATHSIG = 1
# Three for each partition of Kafka's and one for each connection, if we may.
OPEN_FILES = 100_000

# The same promise for both sides. Kafka's flush.ms works only with the scheduler interval set.
DURABILITY = {
    "page-cache": {
        "says": "acknowledged when in the page cache; nobody is asked to sync",
        "topic": {"flush.ms": "9223372036854775807"},
        "kafka": {},
    },
    "lazy": {
        "says": "acknowledged when in the page cache; synced within a second",
        "topic": {"flush.ms": "1000"},
        "kafka": {"log.flush.scheduler.interval.ms": "1000", "log.flush.interval.ms": "1000"},
    },
    "sync": {
        "says": "acknowledged when synced (flush.messages=1)",
        "topic": {"flush.messages": "1"},
        "kafka": {},
    },
}


# What may follow `logstreams:` in a side's name for short.
LOGSTREAMS_SHORT = {
    "dma": "write.path=dma",
    "page-cache": "write.path=page_cache",
    "listeners": "shard.listeners=true",
}


def make_sides(specs, work_dir, cpus, binary, logstreams_args, jars, durability):
    """Functions that make a broker of each side, by the side's name.

    A side is `logstreams` or `kafka`, followed by options as `:KEY=VALUE`: for LogStreams keys of its configuration, one
    of LOGSTREAMS_SHORT or `binary=PATH` for another build of it, for Kafka keys of server.properties. Sides of the same
    name are told apart by letters.
    """
    sides = {}
    for index, spec in enumerate(specs):
        kind, *options = spec.split(":")
        if kind == "logstreams":
            options = [LOGSTREAMS_SHORT.get(option, option) for option in options]
        if kind not in ("logstreams", "kafka") or not all("=" in option for option in options):
            raise ValueError(f"no side is called {spec}: use logstreams or kafka, then :KEY=VALUE or, for "
                             f"logstreams, one of {', '.join(':' + short for short in LOGSTREAMS_SHORT)}")
        name = "LogStreams" if kind == "logstreams" else f"Apache Kafka {KAFKA_VERSION}"
        name += f" ({', '.join(spec.split(':')[1:])})" if options else ""
        if specs.count(spec) > 1:
            name += f" [{chr(ord('A') + index)}]"

        def make(kind=kind, name=name, options=options):
            settings = dict(option.split("=", 1) for option in options)
            if kind == "logstreams":
                build, arguments = build_and_arguments(settings, binary)
                return LogStreams(name, work_dir, cpus, build, arguments + logstreams_args)
            return Kafka(name, work_dir, cpus, jars, durability, settings)

        sides[name] = make
    return sides


def build_and_arguments(settings, binary):
    """The binary of a LogStreams side, `binary` unless it names another, and the arguments that its other keys make."""
    build = settings.pop("binary", binary)
    return build, [word for key, value in settings.items() for word in ("-o", f"{key}={value}")]


@functools.cache
def installed(binary, work_dir):
    """A copy, as an install makes: what a linker has just written lies scattered in the page cache and is slower to run."""
    return shutil.copy2(binary, tempfile.mkdtemp(prefix="installed-", dir=work_dir))


def die_with_parent():
    """For a child between fork and exec: the kernel kills it when this process ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def free_port():
    """A TCP port of loopback that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def kafka_jars(target_dir, script_dir):
    """The folder with Kafka's jars, filled by Maven on first use. Other test kits share it."""
    jars = target_dir / "clients" / "kafka" / "libs"
    if (jars / f"kafka_2.13-{KAFKA_VERSION}.jar").exists() and any(jars.glob("slf4j-simple-*.jar")):
        return jars
    jars.parent.mkdir(parents=True, exist_ok=True)
    fresh = jars.with_name(f"libs.{os.getpid()}")
    try:
        subprocess.run(
            ["mvn", "-q", "-B", "-f", str(script_dir / "pom.xml"), "dependency:copy-dependencies",
             f"-DoutputDirectory={fresh}"],
            check=True, timeout=900)
        # Another kit may have been faster, or left a folder without all that is needed here.
        if jars.exists():
            for jar in fresh.iterdir():
                jar.replace(jars / jar.name)
        else:
            fresh.rename(jars)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return jars


class Broker:
    """One running broker. `start` returns the seconds until it answered Metadata with a broker in it."""

    def __init__(self, name, work_dir, cpus):
        self.name = name
        self.cpus = cpus
        self.work_dir = work_dir
        self.port = None
        self.process = None
        self.directory = None

    @property
    def pid(self):
        return self.process.pid

    @property
    def bootstrap(self):
        return f"127.0.0.1:{self.port}"

    def start(self):
        """Starts with an empty directory."""
        self.port = free_port()
        self.directory = pathlib.Path(self.work_dir) / f"{re.sub('[^A-Za-z0-9.]+', '-', self.name)}-{self.port}"
        self.directory.mkdir(parents=True)
        self.prepare()
        return self.launch()

    def launch(self):
        """Starts with the directory as it is."""
        log = open(self.directory / "broker.log", "wb")
        begun = time.monotonic()
        self.process = subprocess.Popen(
            self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=self._settle_child)
        log.close()
        while not self.is_ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended at its start:\n{self.log_tail()}")
            if time.monotonic() - begun > READY_SECONDS_MAX:
                raise RuntimeError(f"{self.name} is not ready after {READY_SECONDS_MAX} s:\n{self.log_tail()}")
            time.sleep(READY_POLL_SECONDS)
        return time.monotonic() - begun

    def is_ready(self):
        """Whether it answers its clients."""
        return answers_metadata(self.port)

    def stop(self):
        """Stops the process and removes its directory."""
        self.halt()
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def halt(self):
        """Stops the process, by force if it must; the directory stays."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.process = None

    def kill(self):
        """Ends the process as a crash would; the directory stays."""
        self.process.kill()
        self.process.wait()
        self.process = None

    def is_dead(self):
        return self.process is None or self.process.poll() is not None

    def segment_files(self, topic):
        """The files that hold the records of a topic."""
        return sorted(self.directory.glob(f"data/**/{topic}-*/*.log"))

    def log_tail(self):
        return (self.directory / "broker.log").read_bytes()[-2000:].decode(errors="replace")

    def _settle_child(self):
        die_with_parent()
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, max(OPEN_FILES, hard)))
        except (ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if self.cpus:
            os.sched_setaffinity(0, self.cpus)

    def prepare(self):
        pass

    def command(self):
        raise NotImplementedError


class LogStreams(Broker):
    """The binary of this repository."""

    def __init__(self, name, work_dir, cpus, binary, extra_args):
        super().__init__(name, work_dir, cpus)
        self.binary, self.extra_args = installed(binary, work_dir), extra_args

    def command(self):
        return [str(self.binary), "serve", "--data-dir", str(self.directory / "data"),
                "--kafka-addr", self.bootstrap, "--redis-addr", "off", "--admin-addr", "off",
                *self.extra_args]


class Kafka(Broker):
    """Apache Kafka, KRaft on one node, 1 GiB heap, G1, default settings."""

    def __init__(self, name, work_dir, cpus, jars, durability, settings):
        super().__init__(name, work_dir, cpus)
        self.jars, self.settings = jars, {**DURABILITY[durability]["kafka"], **settings}

    def prepare(self):
        controller_port = free_port()
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://127.0.0.1:{controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller_port}",
            "log.dirs": str(self.directory / "data"),
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            **self.settings,
        }
        properties = self.directory / "server.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        subprocess.run(
            java(self.jars, "kafka.tools.StorageTool", "format", "--standalone",
                 "-t", "AAAAAAAAAAAAAAAAAAAAAQ", "-c", str(properties)),
            check=True, timeout=READY_SECONDS_MAX, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def command(self):
        return java(self.jars, "kafka.Kafka", str(self.directory / "server.properties"),
                    options=["-Xmx1g", "-Xms1g", "-XX:+UseG1GC"])


def java(jars, main_class, *args, options=()):
    """The command that runs a class of Kafka's."""
    return ["java", *options, "-cp", f"{jars}/*", main_class, *args]


def answers_metadata(port):
    """Whether the broker at `port` answers Metadata (version 1) and knows itself."""
    body = struct.pack(">hhih", 3, 1, 1, -1) + struct.pack(">i", 0)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.settimeout(1)
            connection.sendall(struct.pack(">i", len(body)) + body)
            reply = _receive(connection, 4)
            reply = _receive(connection, struct.unpack(">i", reply)[0])
    except (OSError, EOFError):
        return False
    broker_count = struct.unpack_from(">i", reply, 4)[0]
    return broker_count > 0


def _receive(connection, count):
    received = b""
    while len(received) < count:
        chunk = connection.recv(count - len(received))
        if not chunk:
            raise EOFError
        received += chunk
    return received
