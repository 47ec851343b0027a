//! What the auth rules read in an event's content, parsed once per event.
//!
//! Parsing is lenient and independent of the room version: values say how well formed they were, and
//! the rules of the version decide what that means.

use ruma::{OwnedUserId, UserId};
use rustc_hash::FxHashMap;
use serde_json::value::RawValue;

use crate::{
    Pdu,
    canonical::{Json, Object},
};

/// The content of an event that others are judged by.
#[derive(Debug, PartialEq)]
pub(crate) enum Facts {
    Create(CreateFacts),
    Member(MemberFacts),
    /// The `join_rule`, if it is a string.
    JoinRules(Option<Box<str>>),
    PowerLevels(Box<PowerFacts>),
    Other,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct CreateFacts {
    pub has_creator: bool,
    pub creator: Option<Box<str>>,
    pub federate: bool,
    /// None: present, but not an array of user ids.
    pub additional_creators: Option<Vec<OwnedUserId>>,
    /// None: present, but not a string.
    pub room_version: Option<Box<str>>,
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct MemberFacts {
    pub membership: Option<Box<str>>,
    /// Absent, or a user id, or (the inner None) something else.
    pub authorised_via: Option<Option<OwnedUserId>>,
    /// Whether `third_party_invite` is there at all.
    pub has_third_party_invite: bool,
    /// `third_party_invite.signed.token`
    pub third_party_token: Option<Box<str>>,
}

/// How a level was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Form {
    /// Absent or an integer.
    #[default]
    Integer,
    /// A string or a float that stands for an integer: good until room version 9.
    Lax,
    /// Neither.
    Bad,
}

/// The seven levels that have a name of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Named {
    UsersDefault,
    EventsDefault,
    StateDefault,
    Ban,
    Redact,
    Kick,
    Invite,
}

impl Named {
    pub(crate) const ALL: [(Self, &'static str, i64); 7] = [
        (Self::UsersDefault, "users_default", 0),
        (Self::EventsDefault, "events_default", 0),
        (Self::StateDefault, "state_default", 50),
        (Self::Ban, "ban", 50),
        (Self::Redact, "redact", 50),
        (Self::Kick, "kick", 50),
        (Self::Invite, "invite", 0),
    ];

    pub(crate) fn default_level(self) -> i64 {
        Self::ALL[self as usize].2
    }
}

#[derive(Debug, Default, PartialEq)]
pub(crate) struct PowerFacts {
    pub named: [Option<i64>; 7],
    pub named_form: Form,
    pub events: Levels,
    pub notifications: Levels,
    pub users: Levels,
    /// Whether every key of `users` is a user id.
    pub users_are_ids: bool,
}

/// A map of levels.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Levels {
    pub levels: FxHashMap<Box<str>, i64>,
    pub form: Form,
}

impl PowerFacts {
    pub(crate) fn named(&self, name: Named) -> i64 {
        self.named[name as usize].unwrap_or(name.default_level())
    }
}

impl Pdu {
    pub(crate) fn facts(&self) -> &Facts {
        self.facts.get_or_init(|| Facts::read(&self.kind, &self.content))
    }
}

impl Facts {
    pub(crate) fn read(kind: &str, content: &RawValue) -> Self {
        if !matches!(kind, "m.room.create" | "m.room.member" | "m.room.join_rules" | "m.room.power_levels") {
            return Self::Other;
        }
        let content = Object::parse(content.get()).unwrap_or_default();
        match kind {
            "m.room.create" => Self::Create(CreateFacts::read(&content)),
            "m.room.member" => Self::Member(MemberFacts::read(&content)),
            "m.room.join_rules" => Self::JoinRules(content.get_str("join_rule").map(Into::into)),
            _ => Self::PowerLevels(Box::new(PowerFacts::read(&content))),
        }
    }
}

impl CreateFacts {
    fn read(content: &Object<'_>) -> Self {
        Self {
            has_creator: content.get("creator").is_some(),
            creator: content.get_str("creator").map(Into::into),
            federate: content.get("m.federate") != Some(&Json::Bool(false)),
            additional_creators: match content.get("additional_creators") {
                None => Some(Vec::new()),
                Some(Json::Array(users)) => users
                    .iter()
                    .map(|user| user.as_str().and_then(|user| <&UserId>::try_from(user).ok()).map(ToOwned::to_owned))
                    .collect(),
                Some(_) => None,
            },
            room_version: match content.get("room_version") {
                None => Some("1".into()),
                Some(version) => version.as_str().map(Into::into),
            },
        }
    }
}

impl MemberFacts {
    fn read(content: &Object<'_>) -> Self {
        Self {
            membership: content.get_str("membership").map(Into::into),
            authorised_via: content
                .get("join_authorised_via_users_server")
                .map(|user| user.as_str().and_then(|user| <&UserId>::try_from(user).ok()).map(ToOwned::to_owned)),
            has_third_party_invite: content.get("third_party_invite").is_some(),
            third_party_token: content
                .get("third_party_invite")
                .and_then(Json::as_object)
                .and_then(|invite| invite.get("signed"))
                .and_then(Json::as_object)
                .and_then(|signed| signed.get_str("token"))
                .map(Into::into),
        }
    }
}

impl PowerFacts {
    fn read(content: &Object<'_>) -> Self {
        let mut facts = Self::default();
        for (name, field, _) in Named::ALL {
            if let Some(value) = content.get(field) {
                let (level, form) = level(value);
                facts.named[name as usize] = level;
                facts.named_form = facts.named_form.max(form);
            }
        }
        facts.events = Levels::read(content.get("events"));
        facts.notifications = Levels::read(content.get("notifications"));
        facts.users = Levels::read(content.get("users"));
        facts.users_are_ids = facts.users.levels.keys().all(|user| <&UserId>::try_from(&**user).is_ok());
        facts
    }
}

impl Levels {
    fn read(value: Option<&Json<'_>>) -> Self {
        let mut all = Self::default();
        match value {
            None => {}
            Some(Json::Object(entries)) => {
                all.levels.reserve(entries.len());
                for (key, value) in entries.iter() {
                    let (level, form) = level(value);
                    all.form = all.form.max(form);
                    if let Some(level) = level {
                        all.levels.insert(key.into(), level);
                    }
                }
            }
            Some(_) => all.form = Form::Bad,
        }
        all
    }
}

/// A level and how it was written. Spec: room version 1, "Deprecated event content schemas".
fn level(value: &Json<'_>) -> (Option<i64>, Form) {
    match value {
        Json::Int(int) => (Some(*int), Form::Integer),
        Json::Float(float) if float.is_finite() => (Some(*float as i64), Form::Lax), // cuts and saturates
        Json::Big(_) => (Some(i64::MAX), Form::Lax),
        Json::Str(string) => {
            let digits = string.trim();
            let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
            let well_formed = !unsigned.is_empty() && unsigned.bytes().all(|byte| byte.is_ascii_digit());
            match digits.parse() {
                Ok(level) if well_formed => (Some(level), Form::Lax),
                _ => (None, Form::Bad),
            }
        }
        _ => (None, Form::Bad),
    }
}
