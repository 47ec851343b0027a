"""Aliases, and the list of public rooms."""

from urllib.parse import quote

from ..client import until
from ..frame import agree, arrives, comes_in, give_power, names, refused, scenario


def _alias(server, prefix="alias"):
    return f"#{prefix}{next(names)}:{server.name}"


def _resolve(user, alias):
    return user.call("GET", f"/v3/directory/room/{quote(alias, safe='')}")


@scenario()
def an_alias_leads_to_the_room(pair):
    alice, bob = pair.people("h", "t")
    local = f"alias{next(names)}"
    room = alice.create(pair.version, room_alias_name=local, visibility="public", name=local)
    alias = f"#{local}:{pair.here.name}"
    assert _resolve(bob, alias)["room_id"] == room
    # Synapse remembers for half a minute what another server answered to the same question.
    limit = 100 + next(names)
    listed = bob.call("GET", "/v3/publicRooms", query={"server": pair.here.name, "limit": limit})["chunk"]
    assert room in [entry["room_id"] for entry in listed], listed
    found = bob.call("POST", "/v3/publicRooms", {"filter": {"generic_search_term": local}}, {"server": pair.here.name})
    assert [entry["room_id"] for entry in found["chunk"]] == [room], found
    assert bob.join(alias) == room
    agree(room, alice, bob)


@scenario(long_only=True)
def aliases_are_made_and_deleted_on_both_sides(pair):
    alice, bob = pair.people("h", "t")
    room = alice.create(pair.version)
    comes_in(bob, room, pair.here, alice)
    for owner, other in ((alice, bob), (bob, alice)):
        alias = _alias(owner.server)
        path = f"/v3/directory/room/{quote(alias, safe='')}"
        refused(404, lambda: _resolve(other, alias), "M_NOT_FOUND")
        owner.call("PUT", path, {"room_id": room})
        answer = _resolve(other, alias)
        assert answer["room_id"] == room, answer
        assert {pair.here.name, pair.there.name} <= set(answer["servers"]), answer
        refused(409, lambda: owner.call("PUT", path, {"room_id": room}))
        owner.call("DELETE", path)
        for user in (owner, other):
            refused(404, lambda: _resolve(user, alias), "M_NOT_FOUND")
    agree(room, alice, bob)


@scenario()
def a_canonical_alias_may_be_of_the_other_server(pair):
    alice, bob = pair.people("h", "t")
    room, elsewhere = alice.create(pair.version), bob.create(pair.version)
    comes_in(bob, room, pair.here, alice)
    arrives(bob, room, give_power(room, alice, 50, bob))
    ours, theirs, wrong = _alias(pair.here, "ours"), _alias(pair.there, "theirs"), _alias(pair.there, "wrong")
    for owner, alias, target in ((alice, ours, room), (bob, theirs, room), (bob, wrong, elsewhere)):
        owner.call("PUT", f"/v3/directory/room/{quote(alias, safe='')}", {"room_id": target})
    arrives(bob, room, alice.set_state(room, "m.room.canonical_alias", {"alias": theirs, "alt_aliases": [ours]}))
    arrives(alice, room, bob.set_state(room, "m.room.canonical_alias", {"alias": ours, "alt_aliases": [theirs, ours]}))
    for user in (alice, bob):
        for content in ({"alias": wrong}, {"alias": ours, "alt_aliases": [wrong]},
                        {"alias": _alias(pair.here, "none")}, {"alt_aliases": [_alias(pair.there, "none")]}):
            refused(400, lambda: user.set_state(room, "m.room.canonical_alias", content), "M_BAD_ALIAS")
        for content in ({"alias": "no alias"}, {"alt_aliases": ["#neither"]}):
            refused(400, lambda: user.set_state(room, "m.room.canonical_alias", content), "M_INVALID_PARAM")
    bob.call("DELETE", f"/v3/directory/room/{quote(theirs, safe='')}")
    content = {"alias": ours, "alt_aliases": [theirs]}
    if pair.there.kind == "synapse":
        # It takes the alias out of the event, so that nobody may name it any more.
        until("it is named no more", lambda: not [
            event for event in alice.state(room)
            if event["type"] == "m.room.canonical_alias" and theirs in event["content"].get("alt_aliases", [])])
        refused(400, lambda: alice.set_state(room, "m.room.canonical_alias", content), "M_BAD_ALIAS")
    else:
        # One that leads nowhere any more may stay.
        arrives(bob, room, alice.set_state(room, "m.room.canonical_alias", content))
    agree(room, alice, bob)


@scenario()
def public_rooms_are_searched_and_paged_through(pair):
    alice, bob = pair.people("h", "t")
    word = f"word{next(names)}word"
    rooms = [alice.create(pair.version, visibility="public", name=f"{word} {number}", topic="A topic") for number in range(4)]
    rooms.append(alice.create(pair.version, visibility="public", name="Something else", topic=f"about {word.upper()}"))
    space = alice.create(pair.version, visibility="public", name=f"{word} space", creation_content={"type": "m.space"})
    hidden = alice.create(pair.version, name=f"{word} hidden")
    comes_in(bob, rooms[0], pair.here, alice)

    def ask(**body):
        return bob.call("POST", "/v3/publicRooms", body, {"server": pair.here.name})

    def pages(step, **search):
        """Page by page to the end, and back."""
        chunks, token, back = [], None, None
        while True:
            page = ask(limit=2, filter=search, **({"since": token} if token else {}))
            assert len(page["chunk"]) <= 2, page
            chunks += page["chunk"]
            back, token = page.get("prev_batch"), page.get("next_batch")
            if not token:
                return chunks, back
    found, back = pages(2, generic_search_term=word)
    assert sorted(entry["room_id"] for entry in found) == sorted([*rooms, space]), found
    assert hidden not in [entry["room_id"] for entry in found]
    assert found[0]["room_id"] == rooms[0] and found[0]["num_joined_members"] == 2, found[0]
    page = ask(limit=2, since=back, filter={"generic_search_term": word})
    assert [entry["room_id"] for entry in page["chunk"]] == [entry["room_id"] for entry in found[2:4]], page
    first = found[0]
    assert first["name"] == f"{word} 0" and first["topic"] == "A topic" and first["join_rule"] == "public", first
    assert first["world_readable"] is False and first["guest_can_join"] is False, first
    spaces = ask(limit=10, filter={"generic_search_term": word, "room_types": ["m.space"]})["chunk"]
    assert [entry["room_id"] for entry in spaces] == [space] and spaces[0]["room_type"] == "m.space", spaces
    plain = ask(limit=10, filter={"generic_search_term": word, "room_types": [None]})["chunk"]
    assert sorted(entry["room_id"] for entry in plain) == sorted(rooms), plain
    assert not ask(limit=10, filter={"generic_search_term": f"{word}nothing"})["chunk"]
    alice.call("PUT", f"/v3/directory/list/room/{quote(rooms[1], safe='')}", {"visibility": "private"})
    until("it is not listed any more", lambda: rooms[1] not in [
        entry["room_id"] for entry in ask(limit=next(names) + 100, filter={"generic_search_term": word})["chunk"]])
