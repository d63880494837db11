"""Publishes to many subscribers and measures. Speaks the protocol by itself, since a library would cost more than the
server. Called by tools/compare/redis:

    pubsub_load.py PORT SUBSCRIBERS PAYLOAD_BYTES flood MESSAGES     as fast as it goes, 64 in the pipeline
    pubsub_load.py PORT SUBSCRIBERS PAYLOAD_BYTES pace RATE SECONDS [DEAF]
                                        latency from sending to receiving; beside DEAF more that never read. The publisher
                                        is a process of its own: who waits for its answer first, or is woken by it, sees a
                                        message later or sooner than a subscriber does

Prints JSON: what was published, the seconds until the last subscriber had the last message, latencies in microseconds.
"""

import json
import multiprocessing
import os
import resource
import selectors
import socket
import sys
import time

import redis_sides

PIPELINE = 64
CHANNEL = f"load-{os.getpid()}"
STAMP_BYTES = 20
READ_BYTES = 1 << 18
# What those who never read are sent before: more than sockets hold, less than Redis closes a client for.
DEAF_MESSAGES = 100
DEAF_MESSAGE_BYTES = 1 << 16


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def subscribe(port):
    connection = connect(port)
    connection.sendall(redis_sides.encode("SUBSCRIBE", CHANNEL))
    answer = b""
    while not answer.endswith(b":1\r\n"):
        answer += connection.recv(4096)
    connection.setblocking(False)
    return connection


def message(payload):
    """What a subscriber is sent for a payload."""
    return redis_sides.encode("message", CHANNEL, payload)


class Subscribers:
    """All of them on one thread; every message is as long as the other, so counting bytes counts messages."""

    def __init__(self, port, count, payload_bytes):
        self.selector = selectors.DefaultSelector()
        self.message_bytes = len(message(b"0" * payload_bytes))
        self.stamp_at = self.message_bytes - 2 - payload_bytes
        self.received = [0] * count
        self.tails = [b""] * count
        self.latencies_ns = []
        for number in range(count):
            self.selector.register(subscribe(port), selectors.EVENT_READ, number)

    def poll(self, seconds, with_latency=False):
        """Takes in what is there; waits for so long for anything."""
        for key, _ in self.selector.select(seconds):
            data = key.fileobj.recv(READ_BYTES)
            if not data:
                raise SystemExit("the server hung up")
            self.received[key.data] += len(data)
            if with_latency:
                self._stamp(key.data, data)

    def _stamp(self, number, data):
        now_ns = time.monotonic_ns()
        data = self.tails[number] + data
        whole = len(data) // self.message_bytes * self.message_bytes
        for at in range(self.stamp_at, whole, self.message_bytes):
            self.latencies_ns.append(now_ns - int(data[at:at + STAMP_BYTES]))
        self.tails[number] = data[whole:]

    def messages(self):
        """How many the slowest has."""
        return min(self.received) // self.message_bytes


def expect(publisher, answers, subscribers):
    """Takes in so many answers; each tells the number of subscribers."""
    answer = b":%d\r\n" % subscribers
    data = b""
    while len(data) < answers * len(answer):
        data += publisher.recv(1 << 16)
    if data != answer * answers:
        raise SystemExit(f"PUBLISH is answered by {data[:60]!r} and not by the {subscribers} subscribers")


def flood(port, subscribers, payload_bytes, count):
    listening = Subscribers(port, subscribers, payload_bytes)
    publisher = connect(port)
    command = redis_sides.encode("PUBLISH", CHANNEL, b"x" * payload_bytes)
    begun = time.monotonic()
    for at in range(0, count, PIPELINE):
        batch = min(PIPELINE, count - at)
        publisher.sendall(command * batch)
        listening.poll(0)
        expect(publisher, batch, subscribers)
    published_s = time.monotonic() - begun
    while listening.messages() < count:
        listening.poll(1)
    return {"messages": count, "published_s": published_s, "delivered_s": time.monotonic() - begun}


def subscribe_deaf(port, count, publisher):
    """Subscribers that never read, with as much on its way to each as they are ever sent."""
    deaf = [subscribe(port) for _ in range(count)]
    command = redis_sides.encode("PUBLISH", CHANNEL, b"x" * DEAF_MESSAGE_BYTES)
    for _ in range(DEAF_MESSAGES if deaf else 0):
        publisher.sendall(command)
        expect(publisher, 1, count)
    return deaf


def publish_paced(publisher, payload_bytes, rate, count, listeners):
    """Sends at its pace, whether or not it was answered; every message says when it was sent."""
    begun_ns = time.monotonic_ns() + 50_000_000
    for number in range(count):
        time.sleep(max(0, begun_ns + int(number * 1e9 / rate) - time.monotonic_ns()) / 1e9)
        stamp = str(time.monotonic_ns()).zfill(STAMP_BYTES)
        publisher.sendall(redis_sides.encode("PUBLISH", CHANNEL, stamp.ljust(payload_bytes)))
    expect(publisher, count, listeners)


def pace(port, subscribers, payload_bytes, rate, seconds, deaf=0):
    publisher = connect(port)
    never_read = subscribe_deaf(port, deaf, publisher)
    listening = Subscribers(port, subscribers, payload_bytes)
    count = int(rate * seconds)
    publishing = multiprocessing.get_context("fork").Process(
        target=publish_paced, args=(publisher, payload_bytes, rate, count, subscribers + len(never_read)))
    publishing.start()
    while listening.messages() < count and not publishing.exitcode:
        listening.poll(1, with_latency=True)
    publishing.join()
    if publishing.exitcode:
        raise SystemExit("the publisher failed")
    latencies = sorted(listening.latencies_ns)

    def quantile(share):
        return latencies[min(len(latencies) - 1, int(share * len(latencies)))] / 1000

    return {"messages": count, "p50": quantile(0.5), "p99": quantile(0.99), "p99_9": quantile(0.999)}


def main():
    port, subscribers, payload_bytes, mode, *numbers = sys.argv[1:]
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    load = {"flood": flood, "pace": pace}[mode]
    print(json.dumps(load(int(port), int(subscribers), int(payload_bytes), *map(int, numbers))))


if __name__ == "__main__":
    main()
