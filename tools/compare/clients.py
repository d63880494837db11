"""Runs the clients: loadgen, confluent-kafka, Kafka's own tools. Knows how, not what (see the works)."""

import dataclasses
import json
import os
import pathlib
import subprocess

import brokers
import machine

GB = 1e9
MB = 1e6
# What a client may take beyond the time it is told to run.
SLACK_SECONDS = 90
# A refill of the ballast ends here, full or not.
REFILL_SECONDS_MAX = 60
# How much of what a failed client said is told.
FAILURE_LINES_MAX = 20


@dataclasses.dataclass
class Context:
    """What all works share."""

    loadgen_path: pathlib.Path
    jars: pathlib.Path
    seconds: float
    durability: str
    loadgen_cpus: list
    broker_cpus: list
    python: pathlib.Path
    consume_bytes: int
    tool_messages: int
    connections_max: int
    # Whether loadgen checks every message.
    verify: bool
    work_dir: pathlib.Path
    ballast: machine.Ballast
    # Makes another broker of the same kind: {side name: function}.
    fresh_broker: dict
    # The largest share of a core that loadgen took in a closed loop.
    loadgen_cores_max: float = 0.0
    # The report of the last call of loadgen.
    last_report: dict = None
    # What went wrong in parts of a work.
    notes: list = dataclasses.field(default_factory=list)

    def note(self, reason):
        """Part of a work failed."""
        self.notes.append(reason)

    def settle(self):
        """The same start for every work: nothing dirty, no memory free that the host would have to find again."""
        os.sync()
        return self.ballast.refill(REFILL_SECONDS_MAX)

    def loadgen(self, broker, command, topic, seconds, arguments):
        """A report of loadgen's about a run against a broker."""
        # What was only produced is read back afterwards.
        reads_back = self.verify and command == "produce" and "--duration" in arguments and "--delete-topic" in arguments
        if reads_back:
            arguments = [*(argument for argument in arguments if argument != "--delete-topic"), "--verify"]
        elif self.verify and (command == "both" or "--exit-at-end" in arguments):
            arguments = [*arguments, "--verify"]
        line = [command, "--bootstrap", broker.bootstrap, "--topic", topic, "--broker-pid", str(broker.pid), "--quiet"]
        report = self._loadgen([*line, *arguments], seconds)
        unanswered = (report["produce"] or {}).get("unfinished", 0)
        if unanswered:
            # A broker that falls silent has no throughput or latency worth a median.
            raise RuntimeError(f"{unanswered} messages had no answer 10 s after the end")
        if reads_back:
            self._read_back(broker, topic, report["produce"]["messages"])
            self.last_report = report
        return report

    def _read_back(self, broker, topic, messages):
        """Checks that a topic has what was produced, and deletes it."""
        checked = self._loadgen(["consume", "--bootstrap", broker.bootstrap, "--topic", topic, "--quiet",
                                 "--exit-at-end", "--verify"], 300)
        if checked["consume"]["messages"] < messages:
            raise RuntimeError(f"{checked['consume']['messages']} of {messages} messages are there")
        self.delete(broker, topic)

    def produce_closed(self, broker, topic, arguments, bytes_max):
        """Produce as fast as it goes, to a topic that is deleted afterwards."""
        report = self.loadgen(broker, "produce", topic, self.seconds, [
            "--duration", f"{self.seconds}s", "--bytes", str(bytes_max), "--warmup", "1s",
            "--delete-topic", *self.topic_configs(), *arguments])
        self.note_loadgen(report)
        return report

    def bare(self, arguments):
        """A report of the bare loop."""
        pins = ["--pin-server", join(self.broker_cpus)] if self.broker_cpus else []
        return self._loadgen(["bare", "--dir", str(self.work_dir), *pins, *arguments], self.seconds)

    def groups(self, broker, command, seconds, arguments):
        """A report about consumer groups: `groups` or `committed`."""
        line = [str(self.loadgen_path), command, "--bootstrap", broker.bootstrap, *arguments, "--json", "-"]
        return json.loads(run(line, seconds + SLACK_SECONDS))

    def create(self, broker, topic, partitions):
        self.loadgen(broker, "produce", topic, 60,
                     ["--partitions", str(partitions), "--messages", "1", *self.topic_configs()])

    def delete(self, broker, topic):
        self.loadgen(broker, "produce", topic, 30, ["--messages", "1", "--delete-topic"])

    def stamps(self):
        """How to fill a topic whose messages are to be verified. Retries of a topic that is not ready yet overtake each
        other without idempotence, so that their order would say nothing of the broker."""
        return ["--verify", "--idempotent"] if self.verify else []

    def topic_configs(self):
        pairs = brokers.DURABILITY[self.durability]["topic"].items()
        return [argument for key, value in pairs for argument in ("--topic-config", f"{key}={value}")]

    def note_loadgen(self, report):
        self.loadgen_cores_max = max(self.loadgen_cores_max, report["loadgen_cpu"]["cores"])

    def _loadgen(self, arguments, seconds):
        line = [str(self.loadgen_path), *arguments, "--json", "-"]
        if self.loadgen_cpus:
            line += ["--pin", join(self.loadgen_cpus)]
        self.last_report = json.loads(run(line, seconds + SLACK_SECONDS))
        return self.last_report


def run(line, seconds_max):
    """The standard output of a client that must succeed."""
    done = subprocess.run(line, capture_output=True, text=True, timeout=seconds_max, stdin=subprocess.DEVNULL,
                          preexec_fn=brokers.die_with_parent)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()[-FAILURE_LINES_MAX:]
        raise RuntimeError("\n".join([f"{os.path.basename(line[0])} failed with status {done.returncode}:", *said]))
    return done.stdout


def memory_metrics(report):
    """What a broker held at most during a run."""
    broker = report["broker"]
    return {
        "RSS MB": broker["rss_window_peak_bytes"] / MB,
        "RSS anonymous MB": broker["rss_anonymous_window_peak_bytes"] / MB,
    }


def latency_metrics(latency):
    """Percentiles by the names of `tables.METRICS`."""
    return {
        "p50 us": latency["p50"],
        "p99 us": latency["p99"],
        "p99.9 us": latency["p99_9"],
        "p99.99 us": latency["p99_99"],
    }


def join(numbers):
    return ",".join(map(str, numbers))
