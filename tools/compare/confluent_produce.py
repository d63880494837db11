"""Produces with confluent-kafka (librdkafka) at its default settings; prints messages per second.

Usage: confluent_produce.py BOOTSTRAP TOPIC MESSAGES MESSAGE_BYTES
"""

import os
import sys
import time

from confluent_kafka import Producer


def main():
    bootstrap, topic = sys.argv[1:3]
    messages, message_bytes = int(sys.argv[3]), int(sys.argv[4])
    failures = []
    producer = Producer({"bootstrap.servers": bootstrap})
    value = os.urandom(message_bytes)

    def on_delivery(error, _message):
        if error:
            failures.append(error)

    begun = time.monotonic()
    for _ in range(messages):
        while True:
            try:
                producer.produce(topic, value, on_delivery=on_delivery)
                break
            except BufferError:
                producer.poll(0.01)
        producer.poll(0)
    left = producer.flush(60)
    seconds = time.monotonic() - begun
    if failures or left:
        sys.exit(f"{len(failures)} messages failed ({failures[:1]}), {left} were not acknowledged")
    print(messages / seconds)


main()
