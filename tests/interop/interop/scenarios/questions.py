"""What the servers tell other servers: both are asked the same, each in the other's name."""

from urllib.parse import quote

from ..client import until
from ..frame import agree, arrives, comes_in, give_power, is_member, scenario, settle
from ..servers import pause


def _path(rest, *parts):
    return "/_matrix/federation/v1/" + "/".join([rest, *(quote(part, safe="") for part in parts)])


def _bare(pdu):
    return {key: value for key, value in pdu.items() if key != "unsigned"}


def _answers(pair, method, path, body=None):
    """The answer of each server."""
    return {asked.label: asker.ask(asked, method, path, body)
            for asker, asked in ((pair.here, pair.there), (pair.there, pair.here))}


def _alike(pair, what, path, see, method="GET", body=None):
    """Both answer, and what matters of it is the same."""
    answers = _answers(pair, method, path, body)
    assert all(status == 200 for status, _ in answers.values()), f"{what}: {answers}"
    one, other = [see(content) for _, content in answers.values()]
    if one != other:
        if isinstance(one, set):
            one, other = one - other, other - one
        raise AssertionError(f"{what}, only {' and only '.join(answers)}:\n{one}\n{other}")


@scenario(versions="all", long_only=True)
def both_tell_the_same_of_a_room(pair):
    """The state before every event, also where branches met, what allows it, and the event itself."""
    alice, bob, carol, dan = pair.people("h", "t", "t", "h")
    room = alice.create(pair.version, topic="Old")
    for user in (bob, carol, dan):
        user.join(room, pair.here.name)
        for watcher in (alice, bob):
            is_member(watcher, room, user.user_id, "join")
    arrives(bob, room, give_power(room, alice, 50, bob))
    begin = alice.send(room, "begin")
    arrives(bob, room, begin)
    for number in range(2):
        with pair.apart():
            alice.set_state(room, "m.room.topic", {"topic": f"Alice {number}"})
            bob.set_state(room, "m.room.topic", {"topic": f"Bob {number}"})
            alice.act(room, "kick", carol.user_id)
            carol.set_state(room, "m.room.member", {"membership": "join", "displayname": "C"}, carol.user_id)
            bob.act(room, "kick", dan.user_id)
            dan.send(room, f"Dan {number}")
            alice.redact(room, alice.send(room, "redacted"))
            bob.send(room, "Bob")
        settle(room, alice, bob)
        # What Dan said then, only his own server shows.
        agree(room, alice, bob, timeline=False)
        for user in (carol, dan):
            user.join(room, pair.here.name)
            for watcher in (alice, bob):
                is_member(watcher, room, user.user_id, "join")
    arrives(bob, room, alice.send(room, "end"))
    shown = {event["event_id"] for event in bob.history(room, 200)}
    # From version 12 on every event implies the first, and only Hearth names it among what allows others.
    create, = (event["event_id"] for event in alice.state(room) if event["type"] == "m.room.create")
    # Before the first event is nothing, which Hearth does not call a state.
    events = [event["event_id"] for event in alice.history(room, 200)
              if event["event_id"] in shown and event["type"] != "m.room.create"]
    assert len(events) > 20, events
    for event_id in events:
        _alike(pair, f"state before {event_id}", f"{_path('state_ids', room)}?event_id={quote(event_id, safe='')}",
               lambda answer: set(answer["pdu_ids"]))
        _alike(pair, f"what allows the state before {event_id}",
               f"{_path('state_ids', room)}?event_id={quote(event_id, safe='')}",
               lambda answer: set(answer["auth_chain_ids"]) - {create})
        _alike(pair, f"what allows {event_id}", _path("event_auth", room, event_id),
               lambda answer: {str(sorted(_bare(pdu).items())) for pdu in answer["auth_chain"]
                               if pdu["type"] != "m.room.create"})
        _alike(pair, f"event {event_id}", _path("event", event_id), lambda answer: [_bare(pdu) for pdu in answer["pdus"]])
    last = quote(events[0], safe="")
    _alike(pair, "the whole state", f"{_path('state', room)}?event_id={last}",
           lambda answer: {str(sorted(_bare(pdu).items())) for pdu in answer["pdus"]})
    _alike(pair, "backfill", f"{_path('backfill', room)}?v={last}&limit=10",
           lambda answer: len(answer["pdus"]))
    body = {"earliest_events": [begin], "latest_events": [events[0]], "limit": 20, "min_depth": 0}
    _alike(pair, "missing events", _path("get_missing_events", room), lambda answer: len(answer["events"]), "POST", body)


@scenario(versions="all", long_only=True)
def who_is_shut_out_is_told_nothing(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    comes_in(bob, room, pair.here, alice)
    arrives(bob, room, give_power(room, alice, 50, bob))
    said = alice.send(room, "said")
    arrives(bob, room, said)
    stranger, = pair.people("t")
    join_path = f"{_path('make_join', room, stranger.user_id)}?ver={pair.version}"
    leave_path = _path("make_leave", room, bob.user_id)
    event = quote(said, safe="")
    questions = [
        ("GET", join_path, None),
        ("GET", leave_path, None),
        ("GET", f"{_path('state', room)}?event_id={event}", None),
        ("GET", f"{_path('state_ids', room)}?event_id={event}", None),
        ("GET", _path("event_auth", room, said), None),
        ("GET", f"{_path('backfill', room)}?v={event}&limit=5", None),
        ("POST", _path("get_missing_events", room), {"earliest_events": [], "latest_events": [said], "limit": 5}),
    ]
    for method, path, body in questions:
        status, answer = pair.there.ask(pair.here, method, path, body)
        assert status == 200, (path, status, answer)
    deny = {"allow": ["*"], "deny": [pair.there.name.split(":")[0]], "allow_ip_literals": True}
    alice.set_state(room, "m.room.server_acl", deny)
    until("the list holds", lambda: pair.there.ask(pair.here, *questions[0])[0] == 403)
    for method, path, body in questions:
        status, answer = pair.there.ask(pair.here, method, path, body)
        assert (status, answer.get("errcode")) == (403, "M_FORBIDDEN"), (path, status, answer)
    # What is said in a transaction nevertheless, of a room that lets nobody in, comes to nothing.
    since = alice.sync()["next_batch"]
    edu = {"edu_type": "m.typing", "content": {"room_id": room, "user_id": bob.user_id, "typing": True}}
    body = {"origin": pair.there.name, "origin_server_ts": 1, "pdus": [], "edus": [edu]}
    status, _ = pair.there.ask(pair.here, "PUT", _path("send", f"interop{said}"), body)
    assert status == 200, status
    pause(0.5)
    assert not alice.ephemeral(since, room, "m.typing")[0]


@scenario(versions="all", long_only=True)
def who_is_not_in_a_room_is_told_nothing(pair):
    alice, = pair.people("h")
    room = alice.create(pair.version, preset="private_chat")
    said = alice.send(room, "said")
    event = quote(said, safe="")
    stranger, = pair.people("t")
    for method, path, body in [
        ("GET", f"{_path('make_join', room, stranger.user_id)}?ver={pair.version}", None),
        ("GET", f"{_path('state', room)}?event_id={event}", None),
        ("GET", f"{_path('state_ids', room)}?event_id={event}", None),
        ("GET", _path("event_auth", room, said), None),
        ("GET", f"{_path('backfill', room)}?v={event}&limit=5", None),
        ("POST", _path("get_missing_events", room), {"earliest_events": [], "latest_events": [said], "limit": 5}),
        ("GET", _path("event", said), None),
    ]:
        status, answer = pair.there.ask(pair.here, method, path, body)
        assert status in (403, 404) and answer.get("errcode") in ("M_FORBIDDEN", "M_NOT_FOUND"), (path, status, answer)
