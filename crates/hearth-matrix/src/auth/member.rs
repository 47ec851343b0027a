//! The auth rules for `m.room.member` events: one function per membership.
//!
//! Spec: rooms, "Authorization rules", "If type is `m.room.member`".

use std::sync::Arc;

use base64::Engine as _;
use ruma::UserId;

use super::{AuthRefusal, Facts, facts::MemberFacts, membership, refuse};
use crate::{
    Membership, Pdu, PowerLevels, RoomVersionRules,
    canonical::{Json, Object},
    hash::{BASE64, BASE64_URL},
    signatures::verify_bytes,
};

/// A member event with all that its rules ask for.
struct Change<'a, S> {
    rules: &'a RoomVersionRules,
    pdu: &'a Pdu,
    facts: &'a MemberFacts,
    target: &'a UserId,
    create: &'a Arc<Pdu>,
    state: &'a S,
}

pub(super) fn check<S: Fn(&str, &str) -> Option<Arc<Pdu>>>(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    create: &Arc<Pdu>,
    state: &S,
) -> Result<(), AuthRefusal> {
    let Facts::Member(facts) = pdu.facts() else {
        return refuse("not an m.room.member event");
    };
    let Some(target) = pdu.state_key.as_deref().and_then(|key| <&UserId>::try_from(key).ok()) else {
        return refuse("the state key of a member event must be a user id");
    };
    let change = Change { rules, pdu, facts, target, create, state };
    match Membership::of(pdu) {
        Membership::Join => change.join(),
        Membership::Invite if facts.has_third_party_invite => change.third_party_invite(),
        Membership::Invite => change.invite(),
        Membership::Leave => change.leave(),
        Membership::Ban => change.ban(),
        Membership::Knock if rules.authorization.knocking => change.knock(),
        Membership::Knock | Membership::Unknown => refuse("missing or unknown membership"),
    }
}

impl<S: Fn(&str, &str) -> Option<Arc<Pdu>>> Change<'_, S> {
    fn membership(&self, user: &UserId) -> Membership {
        membership(self.state, user.as_str())
    }

    fn levels(&self) -> PowerLevels {
        PowerLevels::new(Some(self.create.clone()), (self.state)("m.room.power_levels", ""), self.rules)
    }

    /// The join rule, or `invite` if none is set.
    fn is_join_rule(&self, one_of: &[&str]) -> bool {
        match (self.state)("m.room.join_rules", "") {
            Some(event) => matches!(event.facts(), Facts::JoinRules(Some(rule)) if one_of.contains(&&**rule)),
            None => one_of.contains(&"invite"),
        }
    }

    fn is_own(&self) -> bool {
        self.pdu.sender == self.target
    }

    fn join(&self) -> Result<(), AuthRefusal> {
        if *self.pdu.prev_events == [&*self.create.event_id] && self.is_room_creator(self.target) {
            return Ok(());
        }
        if !self.is_own() {
            return refuse("nobody can join for another user");
        }
        let current = self.membership(self.target);
        if current == Membership::Ban {
            return refuse("the user is banned");
        }
        let is_member_or_invited = matches!(current, Membership::Join | Membership::Invite);
        let authorization = &self.rules.authorization;
        if self.is_join_rule(if authorization.knocking { &["invite", "knock"] } else { &["invite"] }) {
            return if is_member_or_invited { Ok(()) } else { refuse("the user is not invited") };
        }
        let restricted: &[&str] = match (authorization.restricted_join_rule, authorization.knock_restricted_join_rule) {
            (true, true) => &["restricted", "knock_restricted"],
            (true, false) => &["restricted"],
            _ => &[],
        };
        if self.is_join_rule(restricted) {
            return if is_member_or_invited { Ok(()) } else { self.restricted_join() };
        }
        if self.is_join_rule(&["public"]) {
            return Ok(());
        }
        refuse("the join rule does not let the user in")
    }

    fn is_room_creator(&self, user: &UserId) -> bool {
        if self.rules.authorization.use_room_create_sender {
            return self.create.sender == user;
        }
        matches!(self.create.facts(), Facts::Create(create) if create.creator.as_deref() == Some(user.as_str()))
    }

    /// Somebody who is in the room and may invite vouches for the user.
    fn restricted_join(&self) -> Result<(), AuthRefusal> {
        let Some(Some(voucher)) = &self.facts.authorised_via else {
            return refuse("the user is not invited, and nobody authorised the join");
        };
        if self.membership(voucher) != Membership::Join {
            return refuse("who authorised the join is not in the room");
        }
        let levels = self.levels();
        if levels.user(voucher) < levels.invite() {
            return refuse("who authorised the join may not invite");
        }
        Ok(())
    }

    fn invite(&self) -> Result<(), AuthRefusal> {
        if self.membership(&self.pdu.sender) != Membership::Join {
            return refuse("the inviter is not joined");
        }
        if matches!(self.membership(self.target), Membership::Join | Membership::Ban) {
            return refuse("the invited user is joined or banned");
        }
        let levels = self.levels();
        if levels.user(&self.pdu.sender) < levels.invite() {
            return refuse("the inviter's power level is too low");
        }
        Ok(())
    }

    fn third_party_invite(&self) -> Result<(), AuthRefusal> {
        if self.membership(self.target) == Membership::Ban {
            return refuse("the invited user is banned");
        }
        let content = Object::parse(self.pdu.content.get()).unwrap_or_default();
        let Some(signed) = content
            .get("third_party_invite")
            .and_then(Json::as_object)
            .and_then(|invite| invite.get("signed"))
            .and_then(Json::as_object)
        else {
            return refuse("third_party_invite has no signed property");
        };
        let (Some(mxid), Some(token)) = (signed.get_str("mxid"), signed.get_str("token")) else {
            return refuse("third_party_invite.signed lacks mxid or token");
        };
        if mxid != self.target.as_str() {
            return refuse("the third-party invite is for another user");
        }
        let Some(invite) = (self.state)("m.room.third_party_invite", token) else {
            return refuse("no third-party invite has this token");
        };
        if invite.sender != self.pdu.sender {
            return refuse("the third-party invite is another user's");
        }
        if !is_signed_by_any(signed, &public_keys(&invite)) {
            return refuse("the third-party invite is not signed by any of its keys");
        }
        Ok(())
    }

    fn leave(&self) -> Result<(), AuthRefusal> {
        let sender = self.membership(&self.pdu.sender);
        if self.is_own() {
            let may_leave = matches!(sender, Membership::Join | Membership::Invite)
                || sender == Membership::Knock && self.rules.authorization.knocking;
            return if may_leave { Ok(()) } else { refuse("the user is not in the room") };
        }
        if sender != Membership::Join {
            return refuse("the kicker is not joined");
        }
        let levels = self.levels();
        let sender_level = levels.user(&self.pdu.sender);
        if self.membership(self.target) == Membership::Ban && sender_level < levels.ban() {
            return refuse("the sender's power level is too low to unban");
        }
        if sender_level < levels.kick() || levels.user(self.target) >= sender_level {
            return refuse("the sender's power level is too low to kick this user");
        }
        Ok(())
    }

    fn ban(&self) -> Result<(), AuthRefusal> {
        if self.membership(&self.pdu.sender) != Membership::Join {
            return refuse("the banner is not joined");
        }
        let levels = self.levels();
        let sender_level = levels.user(&self.pdu.sender);
        if sender_level < levels.ban() || levels.user(self.target) >= sender_level {
            return refuse("the sender's power level is too low to ban this user");
        }
        Ok(())
    }

    fn knock(&self) -> Result<(), AuthRefusal> {
        let rules: &[&str] = if self.rules.authorization.knock_restricted_join_rule {
            &["knock", "knock_restricted"]
        } else {
            &["knock"]
        };
        if !self.is_join_rule(rules) {
            return refuse("the join rule does not let users knock");
        }
        if !self.is_own() {
            return refuse("nobody can knock for another user");
        }
        if matches!(self.membership(self.target), Membership::Ban | Membership::Invite | Membership::Join) {
            return refuse("the user is banned, invited or joined");
        }
        Ok(())
    }
}

fn public_keys(invite: &Pdu) -> Vec<Vec<u8>> {
    let content = Object::parse(invite.content.get()).unwrap_or_default();
    let listed = content.get("public_keys").and_then(Json::as_array).unwrap_or_default();
    listed
        .iter()
        .filter_map(|key| key.as_object()?.get_str("public_key"))
        .chain(content.get_str("public_key"))
        .filter_map(|key| BASE64.decode(key).or_else(|_| BASE64_URL.decode(key)).ok())
        .collect()
}

fn is_signed_by_any(signed: &Object<'_>, keys: &[Vec<u8>]) -> bool {
    let mut message = String::new();
    signed.write_where(&mut message, |key| !matches!(key, "signatures" | "unsigned"));
    let entities = signed.get("signatures").and_then(Json::as_object);
    entities
        .into_iter()
        .flat_map(Object::iter)
        .filter_map(|(_, of_entity)| of_entity.as_object())
        .flat_map(Object::iter)
        .filter(|(key_id, _)| key_id.starts_with("ed25519:"))
        .filter_map(|(_, signature)| signature.as_str())
        .take(16)
        .any(|signature| keys.iter().take(16).any(|key| verify_bytes(message.as_bytes(), key, signature)))
}
