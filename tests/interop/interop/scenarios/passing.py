"""What passes: receipts, typing, presence."""

from ..client import until
from ..frame import arrives, comes_in, scenario
from ..servers import pause


class _Watch:
    """What is new in a room for somebody, from now on."""

    def __init__(self, user, room, kind):
        self.user, self.room, self.kind = user, room, kind
        self.since = user.sync()["next_batch"]

    def until(self, what, is_it):
        def look():
            found, self.since, _ = self.user.ephemeral(self.since, self.room, self.kind)
            return any(is_it(event["content"]) for event in found)
        until(f"{self.user.user_id} sees {what}", look)


def _both_in(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    comes_in(bob, room, pair.here, alice)
    return alice, bob, room


@scenario()
def receipts_and_typing_cross(pair):
    alice, bob, room = _both_in(pair)
    for reader, writer in ((alice, bob), (bob, alice)):
        event_id = writer.send(room, "read me")
        arrives(reader, room, event_id)
        watch = _Watch(writer, room, "m.receipt")
        reader.read(room, event_id)
        watch.until("the receipt", lambda content: reader.user_id in content.get(event_id, {}).get("m.read", {}))
        watch = _Watch(writer, room, "m.typing")
        reader.type(room)
        watch.until("the typing", lambda content: reader.user_id in content["user_ids"])
        reader.type(room, False)
        watch.until("that it stops", lambda content: reader.user_id not in content["user_ids"])


@scenario()
def receipts_in_threads_cross_and_private_ones_do_not(pair):
    alice, bob, room = _both_in(pair)
    for reader, writer in ((alice, bob), (bob, alice)):
        root = writer.send(room, "root")
        content = {"msgtype": "m.text", "body": "in the thread", "m.relates_to": {"rel_type": "m.thread", "event_id": root}}
        reply = writer.send_event(room, "m.room.message", content)
        last = writer.send(room, "last")
        arrives(reader, room, last)
        watch = _Watch(writer, room, "m.receipt")
        reader.read(room, last, "m.read.private")
        reader.room("POST", room, "read_markers", {"m.fully_read": last, "m.read.private": last})

        def sees(event_id, thread):
            def look(content):
                assert "m.read.private" not in str(content), content
                receipt = content.get(event_id, {}).get("m.read", {}).get(reader.user_id)
                return receipt and receipt.get("thread_id") == thread
            watch.until(f"the receipt in {thread}", look)
        reader.read(room, reply, thread_id=root)
        sees(reply, root)
        reader.read(room, root, thread_id="main")
        sees(root, "main")
        reader.read(room, last)
        sees(last, None)


@scenario(long_only=True)
def receipts_sent_during_an_outage_arrive(pair):
    alice, bob, room = _both_in(pair)
    for reader, writer in ((alice, bob), (bob, alice)):
        event_id = writer.send(room, "read me")
        arrives(reader, room, event_id)
        watch = _Watch(writer, room, "m.receipt")
        with pair.apart():
            reader.read(room, event_id)
            pause(0.5)
        watch.until("the receipt", lambda content: reader.user_id in content.get(event_id, {}).get("m.read", {}))


@scenario()
def presence_crosses(pair):
    alice, bob, room = _both_in(pair)
    for seen, viewer in ((alice, bob), (bob, alice)):
        path = f"/v3/presence/{seen.user_id}/status"
        # Synapse forgets what comes while it looks somebody up for the first time.
        viewer.call("GET", path)
        seen.show("unavailable", status_msg="at tea")
        until(f"{viewer.user_id} sees the status",
              lambda: viewer.call("GET", path).get("status_msg") == "at tea")


@scenario(long_only=True)
def presence_shows_in_a_sync(pair):
    alice, bob, room = _both_in(pair)
    for seen, viewer in ((alice, bob), (bob, alice)):
        viewer.call("GET", f"/v3/presence/{seen.user_id}/status")
        state = {"since": viewer.sync()["next_batch"]}
        for presence, words in (("online", "here"), ("unavailable", "at tea"), ("online", None), ("offline", "gone")):
            seen.show(presence, **({"status_msg": words} if words else {}))

            def shows():
                answer = viewer.sync(state["since"], 500)
                state["since"] = answer["next_batch"]
                told = [event["content"] for event in answer.get("presence", {}).get("events", [])
                        if event["sender"] == seen.user_id]
                return any(content["presence"] == presence and content.get("status_msg") == words for content in told)
            until(f"{viewer.user_id} sees {presence} {words}", shows)
