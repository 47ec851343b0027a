"""Ways into a room and out of it: conditions, knocks, invites, bans."""

from ..client import until
from ..frame import agree, arrives, comes_in, give_power, is_member, refused, scenario


def _join_rules(rule, *gates):
    content = {"join_rule": rule}
    if gates:
        content["allow"] = [{"type": "m.room_membership", "room_id": gate} for gate in gates]
    return content


def _room_behind(owner, version, rule, *gates, **options):
    rules = {"type": "m.room.join_rules", "state_key": "", "content": _join_rules(rule, *gates)}
    return owner.create(version, preset="private_chat", initial_state=[rules], **options)


def _shows(user, room, section):
    until(f"the room shows as {section}", lambda: user.section(room) == section)


@scenario(since=10, long_only=True)
def who_meets_the_condition_comes_in_and_others_knock(pair):
    alice, bob, eve, dan = pair.people("h", "t", "t", "t")
    gate = alice.create(pair.version)
    room = _room_behind(alice, pair.version, "knock_restricted", gate)
    comes_in(bob, gate, pair.here, alice)
    comes_in(bob, room, pair.here, alice)
    allowed_by = bob.state_content(room, "m.room.member", bob.user_id)["join_authorised_via_users_server"]
    assert allowed_by == alice.user_id, allowed_by
    for user in (eve, dan):
        refused(403, lambda user=user: user.join(room, pair.here.name))
        user.knock(room, pair.here.name)
        is_member(alice, room, user.user_id, "knock")
        is_member(bob, room, user.user_id, "knock")
    alice.act(room, "invite", eve.user_id)
    is_member(bob, room, eve.user_id, "invite")
    eve.join(room)
    is_member(alice, room, eve.user_id, "join")
    alice.act(room, "kick", dan.user_id)
    is_member(bob, room, dan.user_id, "leave")
    # Now he may come without a knock.
    comes_in(dan, gate, pair.here, alice)
    comes_in(dan, room, pair.here, alice, bob)
    agree(room, alice, bob, eve, dan)


@scenario(versions="many", since=8)
def only_the_other_server_can_let_in(pair):
    """The joining server is in the room already, but nobody there may invite."""
    alice, bob, carol, dan, eve = pair.people("h", "t", "t", "t", "t")
    gate = alice.create(pair.version)
    room = _room_behind(alice, pair.version, "restricted", gate, power_level_content_override={"invite": 50})
    for user in (bob, carol, dan, eve):
        comes_in(user, gate, pair.here, alice)
    comes_in(bob, room, pair.here, alice)
    comes_in(carol, room, pair.here, alice, bob)
    allowed_by = bob.state_content(room, "m.room.member", carol.user_id)["join_authorised_via_users_server"]
    assert allowed_by == alice.user_id, allowed_by
    # Who is in needs no leave to change what he looks like.
    carol.set_profile("displayname", "Carol C.")
    until("the new name shows",
          lambda: alice.state_content(room, "m.room.member", carol.user_id).get("displayname") == "Carol C.")
    arrives(bob, room, alice.set_state(room, "m.room.join_rules", _join_rules("invite")))
    refused(403, lambda: dan.join(room, pair.here.name))
    arrives(bob, room, alice.set_state(room, "m.room.join_rules", _join_rules("restricted", gate)))
    comes_in(dan, room, pair.here, alice, bob)
    arrives(bob, room, alice.set_state(room, "m.room.join_rules", _join_rules("public")))
    comes_in(eve, room, pair.here, alice, bob)
    for user in (carol, eve):
        arrives(alice, room, user.send(room, "thanks"))
    agree(room, alice, bob, carol, dan, eve)


@scenario(since=8, long_only=True)
def who_cannot_see_whether_the_condition_holds_lets_nobody_in(pair):
    """The room that must be joined first is the other server's alone."""
    alice, bob, carol, dan = pair.people("h", "t", "t", "t")
    gate = carol.create(pair.version)
    room = _room_behind(alice, pair.version, "restricted", gate, power_level_content_override={"invite": 0})
    dan.join(gate, pair.there.name)
    # Synapse sees no refusal in this, but a server that can't help, and has no other to ask.
    refused(502 if pair.there.kind == "synapse" else 400, lambda: dan.join(room, pair.here.name))
    alice.act(room, "invite", bob.user_id)
    _shows(bob, room, "invite")
    comes_in(bob, room, pair.here, alice)
    # Now somebody is in who may invite, on the server that knows, as soon as it knows all members.
    bob.room("GET", room, "members")
    comes_in(dan, room, pair.there, alice, bob)
    allowed_by = alice.state_content(room, "m.room.member", dan.user_id)["join_authorised_via_users_server"]
    assert allowed_by == bob.user_id, allowed_by
    refused(403, lambda: pair.people("t")[0].join(room, pair.there.name))
    agree(room, alice, bob, dan)


@scenario(versions="all", long_only=True)
def an_invite_outlives_the_stay_of_who_made_it(pair):
    alice, carol, bob, dan = pair.people("h", "h", "t", "t")
    room = alice.create(pair.version, preset="private_chat", name="Left")
    alice.act(room, "invite", carol.user_id)
    carol.join(room)
    carol.act(room, "invite", bob.user_id)
    carol.act(room, "invite", dan.user_id)
    for user in (bob, dan):
        _shows(user, room, "invite")
    carol.leave(room)
    comes_in(bob, room, pair.here, alice)
    is_member(bob, room, carol.user_id, "leave")
    # The other guest finds the room on his own server.
    dan.join(room)
    is_member(alice, room, dan.user_id, "join")
    arrives(alice, room, dan.send(room, "where is Carol?"))
    agree(room, alice, bob, dan)


@scenario(versions="all", long_only=True)
def who_declines_may_be_asked_again(pair):
    alice, carol, bob = pair.people("h", "t", "t")
    room = alice.create(pair.version, preset="private_chat")
    alice.act(room, "invite", carol.user_id)
    _shows(carol, room, "invite")
    comes_in(carol, room, pair.here, alice)
    for inviter in (alice, carol):
        inviter.act(room, "invite", bob.user_id)
        _shows(bob, room, "invite")
        for user in (alice, carol):
            is_member(user, room, bob.user_id, "invite")
        bob.leave(room)
        for user in (alice, carol):
            is_member(user, room, bob.user_id, "leave")
        refused(403, lambda: bob.join(room, pair.here.name))
    for inviter in (alice, carol):
        inviter.act(room, "invite", bob.user_id)
        _shows(bob, room, "invite")
        # Synapse trips over an invite that just comes into a room that it knows.
        for user in (alice, carol):
            is_member(user, room, bob.user_id, "invite")
        bob.join(room, pair.here.name)
        is_member(alice, room, bob.user_id, "join")
        bob.leave(room)
        for user in (alice, carol):
            is_member(user, room, bob.user_id, "leave")
    agree(room, alice, carol)


@scenario()
def an_invite_is_declined_while_its_server_is_away(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version, preset="private_chat")
    alice.act(room, "invite", bob.user_id)
    _shows(bob, room, "invite")
    with pair.apart():
        bob.leave(room)
        assert bob.section(room) != "invite"
    # To her he may still look invited: asked again, he can come. Without other words it would be the same invite to Synapse.
    until("he is asked again", lambda: alice.act(room, "invite", bob.user_id, reason="Please") or True)
    _shows(bob, room, "invite")
    comes_in(bob, room, pair.here, alice)
    arrives(alice, room, bob.send(room, "here after all"))
    agree(room, alice, bob)


@scenario(versions="all", long_only=True)
def who_was_banned_comes_back_after_the_ban(pair):
    alice, bob, carol, dan = pair.people("h", "t", "t", "t")
    room = alice.create(pair.version)
    for user in (bob, carol):
        comes_in(user, room, pair.here, alice)
    arrives(bob, room, give_power(room, alice, 50, bob))
    for judge, other in ((alice, bob), (bob, alice)):
        judge.act(room, "kick", carol.user_id)
        is_member(other, room, carol.user_id, "leave")
        comes_in(carol, room, pair.here, alice, bob)
        judge.act(room, "ban", carol.user_id)
        is_member(other, room, carol.user_id, "ban")
        refused(403, lambda: carol.join(room, pair.here.name))
        refused(403, lambda: other.act(room, "invite", carol.user_id))
        judge.act(room, "unban", carol.user_id)
        is_member(other, room, carol.user_id, "leave")
        comes_in(carol, room, pair.here, alice, bob)
    # Somebody who never was there.
    alice.act(room, "ban", dan.user_id)
    is_member(bob, room, dan.user_id, "ban")
    refused(403, lambda: dan.join(room, pair.here.name))
    bob.act(room, "unban", dan.user_id)
    is_member(alice, room, dan.user_id, "leave")
    comes_in(dan, room, pair.here, alice, bob)
    agree(room, alice, bob, carol, dan)


@scenario(long_only=True)
def what_one_may_not_do_both_servers_refuse(pair):
    alice, bob, carol = pair.people("h", "t", "t")
    room = alice.create(pair.version)
    for user in (bob, carol):
        comes_in(user, room, pair.here, alice)
    hers = alice.send(room, "mine")
    arrives(bob, room, hers)
    for act in (
        lambda: bob.act(room, "kick", alice.user_id),
        lambda: bob.act(room, "ban", carol.user_id),
        lambda: bob.set_state(room, "m.room.name", {"name": "Bob's"}),
        lambda: bob.set_state(room, "m.room.power_levels", {"users": {bob.user_id: 100}}),
        lambda: bob.set_state(room, "m.room.member", {"membership": "join"}, carol.user_id),
        lambda: bob.set_state(room, "org.example.thing", {}, alice.user_id),
        lambda: bob.redact(room, hers),
    ):
        refused(403, act, "M_FORBIDDEN")
    stranger, = pair.people("t")
    for act in (
        lambda: stranger.send(room, "let me in"),
        lambda: stranger.state(room),
        lambda: stranger.act(room, "invite", stranger.user_id),
    ):
        refused(403, act, "M_FORBIDDEN")
    agree(room, alice, bob, carol)


@scenario(since=7, long_only=True)
def a_knock_is_refused_or_comes_from_who_is_banned(pair):
    alice, carol, bob = pair.people("h", "t", "t")
    room = _room_behind(alice, pair.version, "knock")
    alice.act(room, "invite", carol.user_id)
    _shows(carol, room, "invite")
    comes_in(carol, room, pair.here, alice)
    arrives(carol, room, give_power(room, alice, 50, carol))
    for judge in (alice, carol):
        bob.knock(room, pair.here.name)
        for user in (alice, carol):
            is_member(user, room, bob.user_id, "knock")
        judge.act(room, "kick", bob.user_id)
        for user in (alice, carol):
            is_member(user, room, bob.user_id, "leave")
        until("the knock is gone", lambda: bob.section(room) != "knock")
    alice.act(room, "ban", bob.user_id)
    is_member(carol, room, bob.user_id, "ban")
    refused(403, lambda: bob.knock(room, pair.here.name))
    agree(room, alice, carol)
