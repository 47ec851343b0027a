//! Auth events selection: which state an event must name as what allows it.
//!
//! Spec: server-server API, "Auth events selection".

use std::borrow::Cow;

use ruma::{CanonicalJsonObject, CanonicalJsonValue, UserId, events::StateEventType};

use super::{AuthRefusal, Facts, refuse};
use crate::{Pdu, RoomVersionRules};

/// The state an event's `auth_events` are taken from, for an event yet to be made.
///
/// Refuses a member event without state key or membership, which no state could allow.
pub fn auth_types(
    kind: &str,
    sender: &UserId,
    state_key: Option<&str>,
    content: &CanonicalJsonObject,
    rules: &RoomVersionRules,
) -> Result<Vec<(StateEventType, String)>, AuthRefusal> {
    let string = |value: Option<&CanonicalJsonValue>| value.and_then(CanonicalJsonValue::as_str).map(ToOwned::to_owned);
    let signed = content
        .get("third_party_invite")
        .and_then(CanonicalJsonValue::as_object)
        .and_then(|invite| invite.get("signed"))
        .and_then(CanonicalJsonValue::as_object);
    let member = Member {
        membership: string(content.get("membership")),
        token: signed.and_then(|signed| string(signed.get("token"))),
        authorised_via: string(content.get("join_authorised_via_users_server")),
    };
    let types = select(kind, sender, state_key, &member, rules)?;
    Ok(types.into_iter().map(|(kind, key)| (StateEventType::from(kind), key.into_owned())).collect())
}

/// The same for an event that exists.
pub fn auth_types_of<'p>(
    pdu: &'p Pdu,
    rules: &RoomVersionRules,
) -> Result<Vec<(&'static str, Cow<'p, str>)>, AuthRefusal> {
    let member = match pdu.facts() {
        Facts::Member(facts) => Member {
            membership: facts.membership.as_deref().map(ToOwned::to_owned),
            token: facts.third_party_token.as_deref().map(ToOwned::to_owned),
            authorised_via: facts.authorised_via.as_ref().and_then(Option::as_ref).map(|user| user.as_str().to_owned()),
        },
        _ => Member::default(),
    };
    select(&pdu.kind, &pdu.sender, pdu.state_key.as_deref(), &member, rules)
}

/// What the selection reads in the content of a member event.
#[derive(Default)]
struct Member {
    membership: Option<String>,
    token: Option<String>,
    authorised_via: Option<String>,
}

fn select<'p>(
    kind: &str,
    sender: &'p UserId,
    state_key: Option<&'p str>,
    member: &Member,
    rules: &RoomVersionRules,
) -> Result<Vec<(&'static str, Cow<'p, str>)>, AuthRefusal> {
    let mut types = Vec::with_capacity(5);
    if kind == "m.room.create" {
        return Ok(types);
    }
    if !rules.authorization.room_create_event_id_as_room_id {
        types.push(("m.room.create", Cow::Borrowed("")));
    }
    types.push(("m.room.power_levels", Cow::Borrowed("")));
    types.push(("m.room.member", Cow::Borrowed(sender.as_str())));
    if kind != "m.room.member" {
        return Ok(types);
    }
    let (Some(target), Some(membership)) = (state_key, member.membership.as_deref()) else {
        return refuse("a member event needs a state key and a membership");
    };
    if target != sender.as_str() {
        types.push(("m.room.member", Cow::Borrowed(target)));
    }
    if matches!(membership, "join" | "invite" | "knock") {
        types.push(("m.room.join_rules", Cow::Borrowed("")));
    }
    if membership == "invite"
        && let Some(token) = &member.token
    {
        types.push(("m.room.third_party_invite", Cow::Owned(token.clone())));
    }
    if membership == "join"
        && rules.authorization.restricted_join_rule
        && let Some(user) = &member.authorised_via
        && user != target
        && user != sender.as_str()
    {
        types.push(("m.room.member", Cow::Owned(user.clone())));
    }
    Ok(types)
}
