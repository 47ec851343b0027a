//! Names of users: what may be one, and what a login means by one.
//!
//! Spec: appendices, "User Identifiers". New names follow today's grammar; logins find older ones too.

use hearth_matrix::ruma::{OwnedUserId, ServerName, UserId};

/// Longest user id.
const USER_ID_BYTES: usize = 255;

/// Why a name can't be given to a new user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsernameError {
    /// Letters other than the grammar's.
    #[error("a user name consists of the characters a-z, 0-9, and . _ = - / +")]
    Characters,
    /// Nothing at all.
    #[error("a user name is not empty")]
    Empty,
    /// Names of that form are ours.
    #[error("a user name does not begin with _")]
    Underscore,
    /// Too long.
    #[error("the user id would be longer than 255 bytes")]
    TooLong,
}

/// The id of a new user. Capitals become small letters.
pub(crate) fn new_user_id(username: &str, server_name: &ServerName) -> Result<OwnedUserId, UsernameError> {
    let localpart = username.to_ascii_lowercase();
    if localpart.is_empty() {
        return Err(UsernameError::Empty);
    }
    if !localpart.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._=-/+".contains(&b)) {
        return Err(UsernameError::Characters);
    }
    if localpart.starts_with('_') {
        return Err(UsernameError::Underscore);
    }
    let user_id = format!("@{localpart}:{server_name}");
    if user_id.len() > USER_ID_BYTES {
        return Err(UsernameError::TooLong);
    }
    UserId::parse(user_id).map_err(|_| UsernameError::Characters)
}

/// The user ids that a login may mean, best first: a full id of ours, or a localpart, as written or in small letters.
pub(crate) fn meant_user_ids(user: &str, server_name: &ServerName) -> Vec<String> {
    let localpart = match user.strip_prefix('@') {
        None => user,
        Some(rest) => match rest.split_once(':') {
            Some((localpart, server)) if server.eq_ignore_ascii_case(server_name.as_str()) => localpart,
            _ => return Vec::new(),
        },
    };
    if localpart.len() > USER_ID_BYTES {
        return Vec::new();
    }
    let lowercase = localpart.to_lowercase();
    let mut ids = vec![format!("@{localpart}:{server_name}")];
    if lowercase != localpart {
        ids.push(format!("@{lowercase}:{server_name}"));
    }
    ids
}

#[cfg(test)]
mod tests {
    use hearth_matrix::ruma::server_name;

    use super::{UsernameError, meant_user_ids, new_user_id};

    #[test]
    fn names_follow_the_grammar() {
        let id = |name: &str| new_user_id(name, server_name!("hs1")).map(|id| id.to_string());
        assert_eq!(id("user-UPPER").as_deref(), Ok("@user-upper:hs1"));
        assert_eq!(id("a.b_c=d-e/f+1").as_deref(), Ok("@a.b_c=d-e/f+1:hs1"));
        for bad in ["!", "\"", ":", "?", "\\", "@", "[", "]", "{", "|", "}", "£", "é", "\n", "'", "us,er", "a b", "\0"]
        {
            assert_eq!(id(&format!("user-{bad}-reject")), Err(UsernameError::Characters), "{bad}");
        }
        assert_eq!(id(""), Err(UsernameError::Empty));
        assert_eq!(id("_ours"), Err(UsernameError::Underscore));
        assert_eq!(id(&"a".repeat(251)), Err(UsernameError::TooLong));
    }

    #[test]
    fn a_login_names_a_user_in_several_ways() {
        let meant = |user: &str| meant_user_ids(user, server_name!("hs1"));
        assert_eq!(meant("alice"), ["@alice:hs1"]);
        assert_eq!(meant("@ALICE:hs1"), ["@ALICE:hs1", "@alice:hs1"]);
        assert!(meant("@alice:elsewhere").is_empty());
        assert!(meant("@alice").is_empty());
    }
}
