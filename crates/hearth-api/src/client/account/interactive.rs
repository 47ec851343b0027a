//! Interactive authentication at the door: requests that carry `auth`, and the pages for clients that don't know a stage.
//!
//! Spec: client-server API, "User-Interactive Authentication API" and "Fallback".

use axum::extract::{FromRequest, Request, State};
use axum::response::{Html, IntoResponse, Response};
use bytes::Bytes;
use hearth_account::interactive::FallbackOutcome;
use hearth_account::{Attempt, Stage};
use hearth_matrix::ruma::UserId;
use http::{HeaderValue, Method, StatusCode, Uri, header};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::extract::PathOf;
use crate::limits::PasswordTry;
use crate::route::Route;
use crate::{ApiError, Doors, JsonBody};

pub(super) fn routes() -> Vec<Route> {
    let path = "/_matrix/client/v3/auth/{auth_type}/fallback/web";
    vec![
        Route::at(Method::GET, path, fallback_page),
        Route::at(Method::POST, path, fallback_form).body_size_bytes(16 * 1024),
    ]
}

/// A request that must be authenticated: its `auth` apart from what it asks.
pub(super) struct Interactive {
    method: Method,
    path: String,
    body: Map<String, Value>,
    auth: Option<Map<String, Value>>,
}

impl Interactive {
    /// A try of exactly this request by a user.
    pub(super) fn attempt(&self, user_id: &UserId) -> Attempt {
        Attempt::new(self.method.as_str(), &self.path, Some(user_id), &self.body, self.auth.clone())
    }

    /// Counts the password that this request shows, if it shows one, as wrong for its user until the outcome is known.
    pub(super) fn count_password(&self, doors: &Doors, user_id: &UserId) -> Result<Counted, ApiError> {
        let stage = self.auth.as_ref().and_then(|auth| auth.get("type")).and_then(Value::as_str);
        let shows_password = stage == Some(Stage::Password.name());
        Ok(Counted(shows_password.then(|| doors.limits.try_password(user_id.as_str())).transpose()?))
    }

    /// A try of this request whatever else its body says. Clients ask for the flows of registration before they know the
    /// name; nothing of a user is at stake there.
    pub(super) fn loose_attempt(&self) -> Attempt {
        Attempt::new(self.method.as_str(), &self.path, None, &Map::new(), self.auth.clone())
    }

    /// The body without `auth`.
    pub(super) fn body<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        serde_json::from_value(Value::Object(self.body.clone())).map_err(|error| ApiError::bad_json(error.to_string()))
    }
}

/// A password that counts as wrong.
pub(super) struct Counted(Option<PasswordTry>);

impl Counted {
    /// Passes an outcome on; unless the password was wrong, it counts no more.
    pub(super) fn settle<T, E: Into<ApiError>>(self, outcome: Result<T, E>) -> Result<T, ApiError> {
        let outcome = outcome.map_err(Into::into);
        let was_wrong = outcome.as_ref().err().is_some_and(|refusal| {
            refusal.status() == StatusCode::UNAUTHORIZED && refusal.body().extra.contains_key("errcode")
        });
        if let Some(tried) = self.0.filter(|_| !was_wrong) {
            tried.was_right();
        }
        outcome
    }
}

impl<S: Sync> FromRequest<S> for Interactive {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let (method, path) = (request.method().clone(), of_any_version(request.uri()));
        let JsonBody(mut body) = JsonBody::<Map<String, Value>>::from_request(request, state).await?;
        let auth = match body.remove("auth") {
            None | Some(Value::Null) => None,
            Some(Value::Object(auth)) => Some(auth),
            Some(_) => return Err(ApiError::bad_json("auth must be an object")),
        };
        Ok(Self { method, path, body, auth })
    }
}

/// The path behind `r0` or `v3`: to a client they are the same.
fn of_any_version(uri: &Uri) -> String {
    let path = uri.path();
    let rest = ["/_matrix/client/r0/", "/_matrix/client/v3/"].iter().find_map(|prefix| path.strip_prefix(prefix));
    rest.unwrap_or(path).to_owned()
}

/// `GET /_matrix/client/v3/auth/{authType}/fallback/web`
async fn fallback_page(
    State(doors): State<Doors>,
    PathOf(auth_type): PathOf<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let (stage, session) = stage_and_session(&auth_type, &uri)?;
    let outcome = doors.accounts.fallback_state(&session, stage).await?;
    Ok(page(stage, &session, outcome, &doors))
}

/// `POST /_matrix/client/v3/auth/{authType}/fallback/web`
async fn fallback_form(
    State(doors): State<Doors>,
    PathOf(auth_type): PathOf<String>,
    uri: Uri,
    form: Bytes,
) -> Result<Response, ApiError> {
    let (stage, session) = stage_and_session(&auth_type, &uri)?;
    let form = form_urlencoded::parse(&form).map(|(key, value)| (key.into_owned(), Value::String(value.into_owned())));
    let outcome = doors.accounts.fallback_try(&session, stage, form.collect()).await?;
    Ok(page(stage, &session, outcome, &doors))
}

fn stage_and_session(auth_type: &str, uri: &Uri) -> Result<(Stage, String), ApiError> {
    let stage = Stage::from_name(auth_type).ok_or_else(|| ApiError::not_found("There is no page for this stage"))?;
    let mut query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let session = query.find_map(|(key, value)| (key == "session").then(|| value.into_owned()));
    Ok((stage, session.ok_or_else(|| ApiError::missing_param("The session is missing"))?))
}

/// Scripts run only if they are ours, word for word; nobody may put the page into a frame.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; form-action 'self'; \
                      frame-ancestors 'none'; base-uri 'none'";

const DONE: &str = "<p>Thank you. You may close this window.</p><script>\
    if (window.onAuthDone) { window.onAuthDone(); } \
    else if (window.opener && window.opener.postMessage) { window.opener.postMessage('authDone', '*'); }</script>";

fn page(stage: Stage, session: &str, outcome: FallbackOutcome, doors: &Doors) -> Response {
    let content = match outcome {
        FallbackOutcome::Passed => DONE.to_owned(),
        FallbackOutcome::NotOffered => {
            "<p>This step is not expected now. Please begin again in your client.</p>".to_owned()
        }
        FallbackOutcome::Failed(words) => {
            let fields = fields(stage, doors);
            let session = form_urlencoded::byte_serialize(session.as_bytes()).collect::<String>();
            let words = escape(&words);
            format!(
                "<p role=\"alert\">{words}</p><form method=\"post\" action=\"?session={session}\">{fields}\
                 <button type=\"submit\">Continue</button></form>"
            )
        }
    };
    let server_name = escape(doors.options.server_name.as_str());
    let html = format!(
        "<!DOCTYPE html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>{server_name}</title></head>\
         <body style=\"font-family: sans-serif; max-width: 32em; margin: 3em auto\"><h1>{server_name}</h1>{content}</body></html>"
    );
    let mut response = Html(html).into_response();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn fields(stage: Stage, doors: &Doors) -> String {
    match stage {
        Stage::Dummy => String::new(),
        Stage::Password => "<p><label>User <input name=\"user\" autocomplete=\"username\" required></label></p>\
             <p><label>Password <input name=\"password\" type=\"password\" autocomplete=\"current-password\" required>\
             </label></p>"
            .to_owned(),
        Stage::RegistrationToken => {
            "<p><label>Registration token <input name=\"token\" required></label></p>".to_owned()
        }
        Stage::Terms => terms(doors.accounts.config().registration.terms.as_ref()),
    }
}

/// Links to the documents, in English or else in the first language there is.
fn terms(policies: Option<&Map<String, Value>>) -> String {
    let mut list = String::from("<p>By continuing you accept:</p><ul>");
    for policy in policies.into_iter().flat_map(Map::values).filter_map(Value::as_object) {
        let document = policy.get("en").or_else(|| policy.values().find(|value| value.is_object()));
        let text = |key| document.and_then(|document| document.get(key)).and_then(Value::as_str).unwrap_or_default();
        let (name, url) = (escape(text("name")), text("url"));
        if url.starts_with("https://") || url.starts_with("http://") {
            list.push_str(&format!(
                "<li><a target=\"_blank\" rel=\"noopener\" href=\"{}\">{name}</a></li>",
                escape(url)
            ));
        }
    }
    list + "</ul>"
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{escape, of_any_version, terms};

    #[test]
    fn r0_and_v3_are_one_request() {
        let path = |path: &'static str| of_any_version(&http::Uri::from_static(path));
        assert_eq!(path("/_matrix/client/r0/devices/A"), path("/_matrix/client/v3/devices/A"));
        assert_ne!(path("/_matrix/client/v3/devices/A"), path("/_matrix/client/v3/devices/B"));
    }

    #[test]
    fn nothing_on_a_page_is_markup_that_we_did_not_write() {
        assert_eq!(escape("<a href='x'>\"&"), "&lt;a href=&#39;x&#39;&gt;&quot;&amp;");
        let policies = json!({ "a": { "version": "1", "en": { "name": "<b>", "url": "javascript:alert(1)" } } });
        assert!(!terms(policies.as_object()).contains("javascript"));
    }
}
