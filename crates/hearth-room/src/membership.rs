//! Membership: join, invite, knock, leave, kick, ban, unban, forget.
//!
//! The auth rules decide; here stands what they leave open: who lets a user into a restricted room, what is already as it
//! should be, and which refusals a client hears.
//! Spec: client-server API, "Room membership"; room version 8, "Restricted rooms".

use hearth_matrix::ruma::{CanonicalJsonObject, CanonicalJsonValue, OwnedRoomId, OwnedUserId, RoomId, UserId};
use hearth_matrix::{Draft, Pdu, RoomVersionRules};
use hearth_store::{Membership, Noun, StoreError, Tx};

use crate::append::{Appender, Decision};
use crate::turn::{Step, Work};
use crate::{RoomError, Rooms, guests, member_content};

/// Room members asked whether they may let somebody into a restricted room.
const AUTHORISERS: usize = 1000;

/// What somebody does to a membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MemberAction {
    /// Come in.
    Join {
        /// A guest account.
        guest: bool,
    },
    /// Ask to be let in.
    Knock,
    /// Go, or decline an invite, or take a knock back.
    Leave,
    /// Ask another in; more fields of the content may come along.
    Invite(OwnedUserId),
    /// Show another out.
    Kick(OwnedUserId),
    /// Lock another out.
    Ban(OwnedUserId),
    /// Lock another out no more.
    Unban(OwnedUserId),
}

impl Rooms {
    /// Changes a membership. True if an event was made, false if all was as it should be.
    pub async fn change_membership(
        &self,
        sender: &UserId,
        room_id: &RoomId,
        action: MemberAction,
        reason: Option<String>,
    ) -> Result<bool, RoomError> {
        match &action {
            MemberAction::Invite(target) if !self.is_local(target) => {
                let (sender, target) = (sender.to_owned(), target.clone());
                let plan = move |appender: &mut Appender<'_, '_>| invite(appender, &sender, &target, reason.as_deref());
                let made = self.invite_elsewhere(room_id, None, plan).await;
                return made.map(|_| true).map_err(RoomError::unless_known);
            }
            MemberAction::Leave => {
                if let Some(elsewhere) = self.elsewhere(sender, room_id).await? {
                    return self.leave_elsewhere(sender, room_id, &elsewhere, reason).await;
                }
            }
            _ => {}
        }
        let comes = matches!(action, MemberAction::Join { .. } | MemberAction::Knock);
        let sender = sender.to_owned();
        let plan = move |appender: &mut Appender<'_, '_>| {
            let reason = reason.as_deref();
            match &action {
                MemberAction::Join { guest } => join(appender, &sender, *guest, reason, CanonicalJsonObject::new()),
                MemberAction::Knock => knock(appender, &sender, reason),
                MemberAction::Leave => leave(appender, &sender, reason),
                MemberAction::Invite(target) => invite(appender, &sender, target, reason),
                MemberAction::Kick(target) => kick(appender, &sender, target, reason),
                MemberAction::Ban(target) => ban(appender, &sender, target, reason),
                MemberAction::Unban(target) => unban(appender, &sender, target, reason),
            }
        };
        let work = Work::new(self.inner.time.now_ms(), None, Box::new(plan));
        let made = self.submit_work(room_id, work).await;
        Ok(made.map_err(|refusal| if comes { refusal } else { refusal.unless_known() })?.is_some())
    }

    /// Comes in with more than the usual in the content of the member event. A reason may be in it, too.
    pub async fn join(
        &self,
        user: &UserId,
        room_id: &RoomId,
        guest: bool,
        content: CanonicalJsonObject,
    ) -> Result<(), RoomError> {
        let user = user.to_owned();
        let plan = move |appender: &mut Appender<'_, '_>| join(appender, &user, guest, None, content.clone());
        let work = Work::new(self.inner.time.now_ms(), None, Box::new(plan));
        self.submit_work(room_id, work).await.map(|_| ())
    }

    /// The user wants to hear no more of a room that he is not in.
    pub async fn forget(&self, user: &UserId, room_id: &RoomId) -> Result<(), RoomError> {
        let (user_id, room_id) = (user.to_owned(), room_id.to_owned());
        let nouns = vec![Noun::Name(format!("forget {user_id}"))];
        let outcome = self.inner.store.write(nouns, move |tx| {
            let (Some(room), Some(user)) = (tx.rooms().by_id(&room_id)?, tx.string_num(user_id.as_str())?) else {
                return Ok(Err(RoomError::UnknownRoom));
            };
            match tx.members().current(room.num, user)?.map(|row| row.membership) {
                Some(Membership::Leave | Membership::Ban) => {
                    tx.members().forget(room.num, user)?;
                    Ok(Ok(()))
                }
                Some(_) => Ok(Err(RoomError::StillInRoom(user_id.to_string()))),
                None => Ok(Err(RoomError::UnknownRoom)),
            }
        });
        outcome.await?
    }

    /// The rooms a user is in.
    pub async fn joined_rooms(&self, user: &UserId) -> Result<Vec<OwnedRoomId>, RoomError> {
        let user = user.to_owned();
        let rooms = self.inner.store.read(move |tx| {
            let Some(user) = tx.string_num(user.as_str())? else { return Ok(Vec::new()) };
            let rows = tx.members().rooms_of_user(user, Membership::Join)?;
            rows.iter().map(|row| Ok(tx.rooms().by_num(row.room)?.room_id.clone())).collect()
        });
        Ok(rooms.await?)
    }

    /// Leaves all rooms and declines all invites: the account is going away. Rooms that refuse are left as they are.
    pub async fn leave_all(&self, user: &UserId) -> Result<(), RoomError> {
        let user_id = user.to_owned();
        let rooms = self.inner.store.read(move |tx| {
            let Some(user) = tx.string_num(user_id.as_str())? else { return Ok(Vec::new()) };
            let rows = tx.members().of_user(user)?;
            let there = rows
                .into_iter()
                .filter(|row| matches!(row.membership, Membership::Join | Membership::Invite | Membership::Knock));
            there.map(|row| Ok(tx.rooms().by_num(row.room)?.room_id.clone())).collect::<Result<Vec<_>, StoreError>>()
        });
        for room_id in rooms.await? {
            if let Err(error) = self.change_membership(user, &room_id, MemberAction::Leave, None).await {
                tracing::warn!(%room_id, %error, "a user who goes away could not leave a room");
            }
        }
        Ok(())
    }
}

/// Whom a draft invites.
pub(crate) fn invites(draft: &Draft) -> Option<OwnedUserId> {
    let invite = draft.content.get("membership").and_then(CanonicalJsonValue::as_str) == Some("invite");
    let target = draft.state_key.as_deref().filter(|_| invite && draft.kind == "m.room.member")?;
    OwnedUserId::try_from(target).ok()
}

/// A member event that a client wrote as plain state.
pub(crate) fn state_step(appender: &mut Appender<'_, '_>, sender: &OwnedUserId, draft: &Draft) -> Decision<Step> {
    if appender.is_away() {
        return Ok(Err(RoomError::UnknownRoom));
    }
    let target = draft.state_key.as_deref().unwrap_or_default();
    let Ok(target_id) = UserId::parse(target) else {
        return Ok(Err(RoomError::BadEvent(format!("{target:?} is no user id"))));
    };
    let membership = draft.content.get("membership").and_then(CanonicalJsonValue::as_str);
    let Some(membership) = membership.and_then(Membership::from_spec) else {
        return Ok(Err(RoomError::BadEvent("membership must be invite, join, knock, leave or ban".into())));
    };
    if target == sender.as_str() && membership == Membership::Join {
        let mut draft = draft.clone();
        // Who let whom in is for servers to say: they sign for it.
        draft.content.remove("join_authorised_via_users_server");
        if appender.membership(sender)? == Some(Membership::Join) {
            return Ok(Ok(Step::Send(sender.clone(), draft)));
        }
        let guest = guests::is_guest(appender.tx, sender)?;
        return join(appender, sender, guest, None, draft.content);
    }
    if membership == Membership::Invite && blocks_invites(appender.tx, &target_id)? {
        return Ok(Err(RoomError::InviteBlocked(target_id.to_owned())));
    }
    Ok(Ok(Step::Send(sender.clone(), draft.clone())))
}

fn member_step(sender: &UserId, target: &UserId, content: CanonicalJsonObject) -> Decision<Step> {
    Ok(Ok(Step::Send(sender.to_owned(), Draft::state("m.room.member", target.as_str(), content))))
}

fn forbidden<T>(why: impl Into<String>) -> Decision<T> {
    Ok(Err(RoomError::Forbidden(why.into())))
}

pub(crate) fn join(
    appender: &mut Appender<'_, '_>,
    user: &OwnedUserId,
    guest: bool,
    reason: Option<&str>,
    mut content: CanonicalJsonObject,
) -> Decision<Step> {
    if appender.is_away() {
        return Ok(Err(RoomError::UnknownRoom));
    }
    let before = appender.membership(user)?;
    if before != Some(Membership::Join) && is_told_elsewhere(appender, user)? {
        return Ok(Err(RoomError::UnknownRoom));
    }
    match before {
        Some(Membership::Join) => return Ok(Ok(Step::Nothing)),
        // Others know whether he may: what is known of him here may be from an earlier stay.
        _ if appender.tip.partial => return Ok(Err(RoomError::UnableToAuthoriseJoin)),
        Some(Membership::Ban) => return forbidden(format!("{user} is banned from the room")),
        _ => {}
    }
    if guest && state_field(appender, "m.room.guest_access", "guest_access")?.as_deref() != Some("can_join") {
        return Ok(Err(RoomError::GuestsForbidden));
    }
    content.extend(member_content::bare("join", reason));
    member_content::add_profile(appender.tx, &mut content, user)?;
    let rule = state_field(appender, "m.room.join_rules", "join_rule")?;
    match rule.as_deref() {
        Some("public") => {}
        _ if before == Some(Membership::Invite) => {}
        Some("restricted") | Some("knock_restricted") => match authoriser(appender, user)? {
            Ok(authoriser) => {
                let field = "join_authorised_via_users_server".into();
                content.insert(field, CanonicalJsonValue::String(authoriser.into()));
            }
            Err(refusal) => return Ok(Err(refusal)),
        },
        _ => return forbidden("You are not invited to this room"),
    }
    member_step(user, user, content)
}

/// Whether another server told us of the user's membership: he knows more of the room than we do.
fn is_told_elsewhere(appender: &mut Appender<'_, '_>, user: &UserId) -> Result<bool, StoreError> {
    let Some(num) = appender.tx.string_num(user.as_str())? else { return Ok(false) };
    let room = appender.room.num;
    Ok(appender.tx.members().current(room, num)?.is_some_and(|row| row.told.is_some()))
}

/// A member of ours who may let a user into a restricted room whose conditions the user meets.
fn authoriser(appender: &mut Appender<'_, '_>, user: &UserId) -> Decision<OwnedUserId> {
    if let Err(refusal) = meets_conditions(appender, user)? {
        return Ok(Err(refusal));
    }
    let levels = appender.power_levels()?;
    let room = appender.room.num;
    for num in appender.tx.members().local_joined(room)?.into_iter().take(AUTHORISERS) {
        let member = appender.tx.string(num)?;
        if let Ok(member) = OwnedUserId::try_from(&*member)
            && levels.user(&member) >= levels.invite()
        {
            return Ok(Ok(member));
        }
    }
    Ok(Err(RoomError::UnableToGrantJoin))
}

/// The member who lets somebody into a restricted room, by whose server a join says that it is signed.
pub(crate) fn voucher(join: &Pdu, rules: &RoomVersionRules) -> Option<OwnedUserId> {
    #[derive(serde::Deserialize)]
    struct Content {
        join_authorised_via_users_server: Option<OwnedUserId>,
    }
    if !rules.signatures.check_join_authorised_via_users_server || join.membership() != Some("join") {
        return None;
    }
    serde_json::from_str::<Content>(join.content.get()).ok()?.join_authorised_via_users_server
}

/// Whether a join of another server's user, which says that this member of ours lets him in, may have our signature.
pub(crate) fn may_vouch(appender: &mut Appender<'_, '_>, user: &UserId, voucher: &UserId) -> Decision<()> {
    if matches!(appender.membership(user)?, Some(Membership::Join | Membership::Invite)) {
        return Ok(Ok(()));
    }
    match state_field(appender, "m.room.join_rules", "join_rule")?.as_deref() {
        Some("public") => return Ok(Ok(())),
        Some("restricted" | "knock_restricted") => {}
        _ => return forbidden("You are not invited to this room"),
    }
    if let Err(refusal) = meets_conditions(appender, user)? {
        return Ok(Err(refusal));
    }
    let levels = appender.power_levels()?;
    if appender.membership(voucher)? != Some(Membership::Join) || levels.user(voucher) < levels.invite() {
        return Ok(Err(RoomError::UnableToGrantJoin));
    }
    Ok(Ok(()))
}

/// Refuses who does not meet the conditions of a restricted room, as far as we can tell.
fn meets_conditions(appender: &mut Appender<'_, '_>, user: &UserId) -> Decision<()> {
    match meets_restriction(appender, user)? {
        Restriction::Met => Ok(Ok(())),
        Restriction::NotMet => forbidden("You are in none of the rooms whose members may join this room"),
        Restriction::Unknown => Ok(Err(RoomError::UnableToAuthoriseJoin)),
    }
}

/// Whether a user meets the conditions of a restricted room.
#[derive(Clone, Copy)]
enum Restriction {
    Met,
    NotMet,
    /// Not in the rooms that we are in, and the others we can't look into.
    Unknown,
}

/// Whether a user is in one of the rooms that the join rules allow.
///
/// Of a room whose members are not all known yet nothing is told of other servers' users: what is known of them may be from an
/// earlier stay.
fn meets_restriction(appender: &mut Appender<'_, '_>, user: &UserId) -> Result<Restriction, StoreError> {
    #[derive(serde::Deserialize)]
    struct JoinRules {
        #[serde(default)]
        allow: Vec<serde_json::Value>,
    }
    let not_met = Ok(Restriction::NotMet);
    let Some((_, rules)) = appender.state("m.room.join_rules", "")? else { return not_met };
    let Ok(rules) = serde_json::from_str::<JoinRules>(rules.content.get()) else { return not_met };
    let is_ours = appender.is_ours(user);
    let user = appender.tx.string_num(user.as_str())?;
    let mut all_known = true;
    for condition in rules.allow {
        if condition.get("type").and_then(|t| t.as_str()) != Some("m.room_membership") {
            continue;
        }
        let room_id = condition.get("room_id").and_then(|id| id.as_str()).and_then(|id| <&RoomId>::try_from(id).ok());
        let Some(room_id) = room_id else { continue };
        let room = appender.tx.rooms().by_id(room_id)?;
        let tip = room.as_ref().map(|room| appender.tx.rooms().tip(room.num)).transpose()?.flatten();
        let can_tell = tip.is_some_and(|tip| tip.joined_local > 0 && (is_ours || !tip.partial));
        let (Some(room), true) = (room, can_tell) else {
            all_known = false;
            continue;
        };
        let Some(user) = user else { continue };
        let membership = appender.tx.members().current(room.num, user)?.map(|row| row.membership);
        if membership == Some(Membership::Join) {
            return Ok(Restriction::Met);
        }
    }
    Ok(if all_known { Restriction::NotMet } else { Restriction::Unknown })
}

pub(crate) fn knock(appender: &mut Appender<'_, '_>, user: &OwnedUserId, reason: Option<&str>) -> Decision<Step> {
    if appender.is_away() {
        return Ok(Err(RoomError::UnknownRoom));
    }
    match appender.membership(user)? {
        Some(Membership::Knock) => return Ok(Ok(Step::Nothing)),
        Some(Membership::Join) => return forbidden(format!("{user} is in the room already")),
        Some(Membership::Invite) => return forbidden(format!("{user} is invited already")),
        Some(Membership::Ban) => return forbidden(format!("{user} is banned from the room")),
        _ => {}
    }
    let content = member_content::with_profile(appender.tx, "knock", user, reason)?;
    member_step(user, user, content)
}

pub(crate) fn leave(appender: &mut Appender<'_, '_>, user: &OwnedUserId, reason: Option<&str>) -> Decision<Step> {
    match appender.membership(user)? {
        Some(Membership::Leave) => Ok(Ok(Step::Nothing)),
        Some(Membership::Ban) | None => forbidden(format!("{user} is not in the room")),
        Some(_) => member_step(user, user, member_content::bare("leave", reason)),
    }
}

fn invite(
    appender: &mut Appender<'_, '_>,
    sender: &OwnedUserId,
    target: &OwnedUserId,
    reason: Option<&str>,
) -> Decision<Step> {
    if appender.membership(sender)? != Some(Membership::Join) {
        return forbidden(format!("{sender} is not in the room"));
    }
    match appender.membership(target)? {
        Some(Membership::Join) => return forbidden(format!("{target} is already in the room")),
        Some(Membership::Ban) => return forbidden(format!("{target} is banned from the room")),
        _ => {}
    }
    if blocks_invites(appender.tx, target)? {
        return Ok(Err(RoomError::InviteBlocked(target.clone())));
    }
    let content = member_content::with_profile(appender.tx, "invite", target, reason)?;
    member_step(sender, target, content)
}

/// Whether a user of ours lets nobody invite him. Spec: client-server API, "Invite permission".
pub(crate) fn blocks_invites(tx: &mut Tx<'_>, target: &UserId) -> Result<bool, StoreError> {
    match tx.string_num(target.as_str())? {
        Some(target) => tx.account_data().blocks_invites(target),
        None => Ok(false),
    }
}

fn kick(
    appender: &mut Appender<'_, '_>,
    sender: &OwnedUserId,
    target: &OwnedUserId,
    reason: Option<&str>,
) -> Decision<Step> {
    if appender.membership(sender)? != Some(Membership::Join) {
        return forbidden(format!("{sender} is not in the room"));
    }
    match appender.membership(target)? {
        Some(Membership::Join | Membership::Invite | Membership::Knock) => {
            member_step(sender, target, member_content::bare("leave", reason))
        }
        _ => forbidden(format!("{target} is not in the room")),
    }
}

fn ban(
    appender: &mut Appender<'_, '_>,
    sender: &OwnedUserId,
    target: &OwnedUserId,
    reason: Option<&str>,
) -> Decision<Step> {
    if appender.membership(sender)? != Some(Membership::Join) {
        return forbidden(format!("{sender} is not in the room"));
    }
    if appender.membership(target)? == Some(Membership::Ban) {
        return Ok(Ok(Step::Nothing));
    }
    member_step(sender, target, member_content::bare("ban", reason))
}

fn unban(
    appender: &mut Appender<'_, '_>,
    sender: &OwnedUserId,
    target: &OwnedUserId,
    reason: Option<&str>,
) -> Decision<Step> {
    if appender.membership(sender)? != Some(Membership::Join) {
        return forbidden(format!("{sender} is not in the room"));
    }
    match appender.membership(target)? {
        Some(Membership::Ban) => member_step(sender, target, member_content::bare("leave", reason)),
        _ => forbidden(format!("{target} is not banned")),
    }
}

/// A string field of a piece of state with an empty key.
pub(crate) fn state_field(
    appender: &mut Appender<'_, '_>,
    kind: &str,
    field: &str,
) -> Result<Option<String>, StoreError> {
    let Some((_, pdu)) = appender.state(kind, "")? else { return Ok(None) };
    let content = serde_json::from_str::<serde_json::Value>(pdu.content.get()).unwrap_or_default();
    Ok(content.get(field).and_then(|value| value.as_str()).map(str::to_owned))
}
