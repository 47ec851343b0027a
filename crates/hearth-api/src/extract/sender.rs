//! Who asks, by access token.
//!
//! Spec: client-server API, "Using access tokens".

use axum::extract::FromRequestParts;
use hearth_account::{AuthenticateError, Authenticated};
use hearth_matrix::ruma::{OwnedDeviceId, OwnedUserId};
use hearth_store::{DeviceNum, UserNum};
use http::request::Parts;
use http::{StatusCode, header};

use super::guests;
use crate::threshold::Record;
use crate::{ApiError, Doors};

/// The user who sends this request.
#[derive(Clone, Debug)]
pub struct Sender {
    /// The user's id.
    pub user_id: OwnedUserId,
    /// The user's number.
    pub user: UserNum,
    /// The session's device; an application service has none.
    pub device_id: Option<OwnedDeviceId>,
    /// The device's number.
    pub device: Option<DeviceNum>,
    /// A guest account.
    pub is_guest: bool,
    /// A server administrator.
    pub is_admin: bool,
    /// An administrator lets the user only look.
    pub is_suspended: bool,
}

/// The user who sends this request, if it names one. A token that is given must be good. Guests come through only where the
/// specification lets them.
#[derive(Clone, Debug)]
pub struct OptionalSender(pub Option<Sender>);

impl FromRequestParts<Doors> for Sender {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, doors: &Doors) -> Result<Self, ApiError> {
        OptionalSender::from_request_parts(parts, doors).await?.0.ok_or_else(ApiError::missing_token)
    }
}

/// The administrator who sends this request.
#[derive(Clone, Debug)]
pub(crate) struct Administrator(pub(crate) Sender);

impl FromRequestParts<Doors> for Administrator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, doors: &Doors) -> Result<Self, ApiError> {
        let sender = Sender::from_request_parts(parts, doors).await?;
        if sender.is_admin { Ok(Self(sender)) } else { Err(ApiError::forbidden("Only administrators may do that")) }
    }
}

/// The user who sends this request, though his account may be locked: he may still end his sessions.
#[derive(Clone, Debug)]
pub(crate) struct EvenLocked(pub(crate) Sender);

impl FromRequestParts<Doors> for EvenLocked {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, doors: &Doors) -> Result<Self, ApiError> {
        let token = access_token(parts).ok_or_else(ApiError::missing_token)?;
        let session = doors.accounts.authenticate_even_locked(&token).await;
        Ok(Self(Sender::of(counted(session, parts, doors)?, parts, doors)))
    }
}

impl FromRequestParts<Doors> for OptionalSender {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, doors: &Doors) -> Result<Self, ApiError> {
        let Some(token) = access_token(parts) else {
            return Ok(Self(None));
        };
        let session = counted(doors.accounts.authenticate(&token).await, parts, doors)?;
        if session.is_guest && !guests::may_ask(&parts.extensions) {
            return Err(ApiError::new(StatusCode::FORBIDDEN, "M_GUEST_ACCESS_FORBIDDEN", "Guests may not do that"));
        }
        Ok(Self(Some(Sender::of(session, parts, doors))))
    }
}

impl Sender {
    fn of(session: Authenticated, parts: &Parts, doors: &Doors) -> Self {
        if let Some(record) = Record::of(&parts.extensions) {
            record.set_user(&session.user_id);
            doors.accounts.note_seen(&session, record.client);
        }
        let Authenticated { user_id, user, device_id, device, is_guest, is_admin, is_suspended } = session;
        Self { user_id, user, device_id, device, is_guest, is_admin, is_suspended }
    }
}

/// Counts a request for its user, or one with a wrong token for its address. Administrators and application services, who
/// do for many what people do for themselves, are not limited.
fn counted(
    session: Result<Authenticated, AuthenticateError>,
    parts: &Parts,
    doors: &Doors,
) -> Result<Authenticated, ApiError> {
    let record = Record::of(&parts.extensions);
    let class = record.and_then(Record::route).and_then(|route| route.class);
    match (&session, record, class) {
        (Ok(session), _, Some(class)) if !session.is_admin && session.device.is_some() => {
            doors.limits.of_user(session.user, class)?;
        }
        (Err(AuthenticateError::Unknown { soft_logout: false }), Some(record), Some(_)) => {
            doors.limits.of_wrong_token(record.client)?;
        }
        _ => {}
    }
    Ok(session?)
}

/// Whether a request has something that may be an access token.
pub(crate) fn has_token<B>(request: &http::Request<B>) -> bool {
    request.headers().contains_key(header::AUTHORIZATION)
        || request.uri().query().is_some_and(|query| query.contains("access_token="))
}

/// The token of the `Authorization` header, else of the query.
fn access_token(parts: &Parts) -> Option<String> {
    if let Some(value) = parts.headers.get(header::AUTHORIZATION) {
        let value = value.to_str().ok()?;
        let (scheme, token) = value.split_once(' ')?;
        return scheme
            .eq_ignore_ascii_case("bearer")
            .then(|| token.trim().to_owned())
            .filter(|token| !token.is_empty());
    }
    let query = parts.uri.query()?;
    form_urlencoded::parse(query.as_bytes())
        .find_map(|(name, value)| (name == "access_token" && !value.is_empty()).then(|| value.into_owned()))
}

#[cfg(test)]
mod tests {
    use super::access_token;

    fn token_of(uri: &str, authorization: Option<&str>) -> Option<String> {
        let mut request = http::Request::get(uri);
        if let Some(value) = authorization {
            request = request.header("Authorization", value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        access_token(&parts)
    }

    #[test]
    fn a_token_comes_from_the_header_or_the_query() {
        assert_eq!(token_of("/", None), None);
        assert_eq!(token_of("/", Some("Bearer abc")).as_deref(), Some("abc"));
        assert_eq!(token_of("/", Some("bearer abc")).as_deref(), Some("abc"));
        assert_eq!(token_of("/?a=1&access_token=a%2Bb", None).as_deref(), Some("a+b"));
        assert_eq!(token_of("/?access_token=query", Some("Bearer header")).as_deref(), Some("header"));
        assert_eq!(token_of("/", Some("Basic abc")), None);
        assert_eq!(token_of("/", Some("Bearer ")), None);
        assert_eq!(token_of("/?access_token=", None), None);
    }
}
