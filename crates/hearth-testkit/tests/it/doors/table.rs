//! The table of the client's doors: every route, who may not pass and with which words, and what is no proper request.
//!
//! A new route needs a row here, or `every_route_is_in_the_table` fails. What is alike everywhere (a body that is no JSON, a
//! path parameter that is no id) is not written down: `knocks.rs` makes it from the row.

use super::Refusal;

pub const BAD_JSON: Refusal = (400, "M_BAD_JSON");
pub const FORBIDDEN: Refusal = (403, "M_FORBIDDEN");
pub const INVALID_PARAM: Refusal = (400, "M_INVALID_PARAM");
pub const MISSING_PARAM: Refusal = (400, "M_MISSING_PARAM");
pub const NOT_FOUND: Refusal = (404, "M_NOT_FOUND");
pub const UNKNOWN: Refusal = (400, "M_UNKNOWN");

/// Who must show a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// Everybody.
    Needed,
    /// Nobody must, but one that is shown must be good.
    Optional,
    /// Nobody: it is not even looked at.
    Public,
}

/// A route.
pub struct Row {
    pub method: &'static str,
    pub path: &'static str,
    pub token: Token,
    /// A proper body, if the route takes JSON.
    pub body: Option<&'static str>,
    /// A proper query.
    pub query: &'static str,
    /// What somebody hears who was never in the room.
    pub outsider: Option<Refusal>,
    /// What somebody hears who was banned from the room.
    pub banned: Option<Refusal>,
    /// Bodies that are JSON objects, but not the right ones.
    pub bodies: Vec<(&'static str, Refusal)>,
    /// Queries that make no sense.
    pub queries: Vec<(&'static str, Refusal)>,
    /// Paths that make no sense.
    pub paths: Vec<(&'static str, Refusal)>,
}

impl Row {
    fn new(method: &'static str, path: &'static str, token: Token) -> Self {
        let (bodies, queries, paths) = (Vec::new(), Vec::new(), Vec::new());
        Self { method, path, token, body: None, query: "", outsider: None, banned: None, bodies, queries, paths }
    }

    fn body(self, proper: &'static str) -> Self {
        Self { body: Some(proper), ..self }
    }

    fn query(self, proper: &'static str) -> Self {
        Self { query: proper, ..self }
    }

    /// Neither an outsider nor a banned user passes.
    fn members(self, refusal: Refusal) -> Self {
        self.outsider(refusal).banned(refusal)
    }

    fn outsider(self, refusal: Refusal) -> Self {
        Self { outsider: Some(refusal), ..self }
    }

    fn banned(self, refusal: Refusal) -> Self {
        Self { banned: Some(refusal), ..self }
    }

    fn no_body(mut self, body: &'static str, refusal: Refusal) -> Self {
        self.bodies.push((body, refusal));
        self
    }

    fn no_query(mut self, query: &'static str, refusal: Refusal) -> Self {
        self.queries.push((query, refusal));
        self
    }

    fn no_path(mut self, path: &'static str, refusal: Refusal) -> Self {
        self.paths.push((path, refusal));
        self
    }
}

fn user(method: &'static str, path: &'static str) -> Row {
    Row::new(method, path, Token::Needed)
}

fn anybody(method: &'static str, path: &'static str) -> Row {
    Row::new(method, path, Token::Optional)
}

fn public(method: &'static str, path: &'static str) -> Row {
    Row::new(method, path, Token::Public)
}

/// All rows.
pub fn rows() -> Vec<Row> {
    [
        discovery(),
        accounts(),
        administration(),
        devices(),
        profiles(),
        users(),
        push_rules(),
        reports(),
        rooms(),
        membership(),
        reading(),
        sending(),
        media(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn discovery() -> Vec<Row> {
    vec![
        public("GET", "/.well-known/matrix/client"),
        public("GET", "/_matrix/client/versions"),
        user("GET", "/_matrix/client/v3/capabilities"),
        user("GET", "/_matrix/client/v3/thirdparty/protocols"),
    ]
}

fn accounts() -> Vec<Row> {
    let token = "/_matrix/client/v1/register/m.login.registration_token/validity";
    let older_token =
        "/_matrix/client/unstable/org.matrix.msc3231/register/org.matrix.msc3231.login.registration_token/validity";
    let refresh = |path| {
        public("POST", path)
            .body(r#"{"refresh_token": "a"}"#)
            .no_body("{}", BAD_JSON)
            .no_body(r#"{"refresh_token": 1}"#, BAD_JSON)
    };
    vec![
        public("POST", "/_matrix/client/v3/register")
            .body(r#"{"username": "new", "password": "correct horse battery staple"}"#)
            .no_body(r#"{"username": 1}"#, BAD_JSON)
            .no_body(r#"{"inhibit_login": "yes"}"#, BAD_JSON)
            .no_body(r#"{"auth": 1}"#, BAD_JSON)
            .no_body(r#"{"username": "Not A Name", "password": "a long password"}"#, (400, "M_INVALID_USERNAME"))
            .no_body(r#"{"username": "alice", "password": "a long password"}"#, (400, "M_USER_IN_USE"))
            .no_query("kind=robot", INVALID_PARAM),
        public("GET", "/_matrix/client/v3/register/available")
            .query("username=somebody")
            .no_query("", MISSING_PARAM)
            .no_query("username=Not%20A%20Name", (400, "M_INVALID_USERNAME"))
            .no_query("username=alice", (400, "M_USER_IN_USE")),
        public("GET", token).query("token=a").no_query("", MISSING_PARAM),
        public("GET", older_token).query("token=a").no_query("", MISSING_PARAM),
        public("GET", "/_matrix/client/v3/login"),
        public("POST", "/_matrix/client/v3/login")
            .body(r#"{"type": "m.login.password", "identifier": {"type": "m.id.user", "user": "x"}, "password": "y"}"#)
            .no_body("{}", BAD_JSON)
            .no_body(r#"{"type": 1}"#, BAD_JSON)
            .no_body(r#"{"type": "m.login.magic"}"#, UNKNOWN)
            .no_body(r#"{"type": "m.login.password", "password": "x"}"#, MISSING_PARAM)
            .no_body(r#"{"type": "m.login.password", "user": "alice"}"#, MISSING_PARAM)
            .no_body(r#"{"type": "m.login.token"}"#, MISSING_PARAM)
            .no_body(r#"{"type": "m.login.password", "user": "alice", "password": "wrong"}"#, FORBIDDEN),
        refresh("/_matrix/client/v3/refresh"),
        refresh("/_matrix/client/unstable/org.matrix.msc2918/refresh"),
        user("POST", "/_matrix/client/v1/login/get_token").body("{}").no_body(r#"{"auth": []}"#, BAD_JSON),
        user("POST", "/_matrix/client/v3/logout"),
        user("POST", "/_matrix/client/v3/logout/all"),
        user("GET", "/_matrix/client/v3/account/whoami"),
        user("GET", "/_matrix/client/v3/account/3pid"),
        user("POST", "/_matrix/client/v3/account/password")
            .body(r#"{"new_password": "correct horse battery staple"}"#)
            .no_body(r#"{"new_password": 1}"#, BAD_JSON)
            .no_body(r#"{"new_password": "long enough a word", "logout_devices": 1}"#, BAD_JSON),
        user("POST", "/_matrix/client/v3/account/deactivate").body("{}").no_body(r#"{"erase": "yes"}"#, BAD_JSON),
        public("GET", "/_matrix/client/v3/auth/{authType}/fallback/web")
            .query("session=a")
            .no_query("", MISSING_PARAM)
            .no_path("/_matrix/client/v3/auth/m.login.magic/fallback/web?session=a", NOT_FOUND),
        // A form, no JSON.
        public("POST", "/_matrix/client/v3/auth/{authType}/fallback/web")
            .query("session=a")
            .no_query("", MISSING_PARAM),
        public("GET", "/_synapse/admin/v1/register"),
        public("POST", "/_synapse/admin/v1/register")
            .body(r#"{"nonce": "a", "username": "a", "password": "a", "mac": "a"}"#)
            .no_body("{}", BAD_JSON),
    ]
}

/// Whoever does not administer the server hears nothing but that, whatever else is wrong.
fn administration() -> Vec<Row> {
    vec![
        user("GET", "/_matrix/client/v1/admin/lock/{other}"),
        user("PUT", "/_matrix/client/v1/admin/lock/{other}"),
        user("GET", "/_matrix/client/v1/admin/suspend/{other}"),
        user("PUT", "/_matrix/client/v1/admin/suspend/{other}"),
        user("GET", "/_matrix/client/v3/admin/whois/{other}"),
    ]
}

fn devices() -> Vec<Row> {
    let one = "/_matrix/client/v3/devices/{deviceId}";
    vec![
        user("GET", "/_matrix/client/v3/devices"),
        user("GET", one).no_path("/_matrix/client/v3/devices/NONE", NOT_FOUND),
        user("PUT", one)
            .body(r#"{"display_name": "x"}"#)
            .no_body(r#"{"display_name": 1}"#, BAD_JSON)
            .no_path("/_matrix/client/v3/devices/NONE", NOT_FOUND),
        user("DELETE", one).body("{}"),
        user("POST", "/_matrix/client/v3/delete_devices")
            .body(r#"{"devices": []}"#)
            .no_body("{}", BAD_JSON)
            .no_body(r#"{"devices": "all"}"#, BAD_JSON),
    ]
}

fn profiles() -> Vec<Row> {
    let field = "/_matrix/client/v3/profile/{userId}/{keyName}";
    let other = "/_matrix/client/v3/profile/{other}/displayname";
    let presence = "/_matrix/client/v3/presence/{userId}/status";
    let presence_of_other = "/_matrix/client/v3/presence/{other}/status";
    vec![
        anybody("GET", "/_matrix/client/v3/profile/{userId}")
            .no_path("/_matrix/client/v3/profile/@none:hearth.test", NOT_FOUND),
        anybody("GET", field).no_path("/_matrix/client/v3/profile/@none:hearth.test/displayname", NOT_FOUND),
        user("PUT", field)
            .body(r#"{"displayname": "x"}"#)
            .no_body("{}", MISSING_PARAM)
            .no_body(r#"{"displayname": 1}"#, INVALID_PARAM)
            .no_path(other, FORBIDDEN),
        user("DELETE", field).no_path(other, FORBIDDEN),
        user("GET", presence)
            .no_path(presence_of_other, FORBIDDEN)
            .no_path("/_matrix/client/v3/presence/@none:hearth.test/status", FORBIDDEN),
        user("PUT", presence)
            .body(r#"{"presence":"online"}"#)
            .no_body("{}", BAD_JSON)
            .no_body(r#"{"presence":5}"#, BAD_JSON)
            .no_body(r#"{"presence":"asleep"}"#, INVALID_PARAM)
            .no_path(presence_of_other, FORBIDDEN),
    ]
}

fn users() -> Vec<Row> {
    let global = "/_matrix/client/v3/user/{userId}/account_data/{type}";
    let of_room = "/_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}";
    let tag = "/_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}";
    let server_controlled = (405, "M_BAD_JSON");
    vec![
        user("GET", global)
            .no_path("/_matrix/client/v3/user/{other}/account_data/a", FORBIDDEN)
            .no_path("/_matrix/client/v3/user/{userId}/account_data/never.set", NOT_FOUND),
        user("PUT", global)
            .body("{}")
            .no_path("/_matrix/client/v3/user/{other}/account_data/a", FORBIDDEN)
            .no_path("/_matrix/client/v3/user/{userId}/account_data/m.push_rules", server_controlled)
            .no_path("/_matrix/client/v3/user/{userId}/account_data/m.fully_read", server_controlled),
        user("GET", of_room)
            .outsider(NOT_FOUND)
            .no_path("/_matrix/client/v3/user/{other}/rooms/{roomId}/account_data/a", FORBIDDEN),
        user("PUT", of_room)
            .body("{}")
            .outsider(NOT_FOUND)
            .no_path("/_matrix/client/v3/user/{other}/rooms/{roomId}/account_data/a", FORBIDDEN)
            .no_path("/_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/m.fully_read", server_controlled),
        user("GET", "/_matrix/client/v3/user/{userId}/rooms/{roomId}/tags")
            .outsider(NOT_FOUND)
            .no_path("/_matrix/client/v3/user/{other}/rooms/{roomId}/tags", FORBIDDEN),
        user("PUT", tag)
            .body(r#"{"order": 0.5}"#)
            .outsider(NOT_FOUND)
            .no_body(r#"{"order": "first"}"#, BAD_JSON)
            .no_path("/_matrix/client/v3/user/{other}/rooms/{roomId}/tags/a", FORBIDDEN),
        user("DELETE", tag)
            .outsider(NOT_FOUND)
            .no_path("/_matrix/client/v3/user/{other}/rooms/{roomId}/tags/a", FORBIDDEN),
        user("POST", "/_matrix/client/v3/user/{userId}/filter")
            .body("{}")
            .no_body(r#"{"room": 1}"#, BAD_JSON)
            .no_body(r#"{"room": {"timeline": {"limit": "many"}}}"#, BAD_JSON)
            .no_path("/_matrix/client/v3/user/{other}/filter", FORBIDDEN),
        user("GET", "/_matrix/client/v3/user/{userId}/filter/{filterId}")
            .no_path("/_matrix/client/v3/user/{other}/filter/0", FORBIDDEN)
            .no_path("/_matrix/client/v3/user/{userId}/filter/999", NOT_FOUND)
            .no_path("/_matrix/client/v3/user/{userId}/filter/nonsense", NOT_FOUND),
    ]
}

fn reports() -> Vec<Row> {
    let why = |path| user("POST", path).body(r#"{"reason": "x"}"#).no_body(r#"{"reason": 1}"#, BAD_JSON);
    vec![
        // Whoever saw it may report it, from wherever.
        why("/_matrix/client/v3/rooms/{room}/report")
            .no_body("{}", BAD_JSON)
            .no_path("/_matrix/client/v3/rooms/nonsense/report", INVALID_PARAM)
            .no_path("/_matrix/client/v3/rooms/!none:hearth.test/report", NOT_FOUND),
        why("/_matrix/client/v3/rooms/{roomId}/report/{eventId}")
            .members(NOT_FOUND)
            .no_path("/_matrix/client/v3/rooms/{roomId}/report/$none", NOT_FOUND),
        why("/_matrix/client/v3/users/{userId}/report")
            .no_body("{}", BAD_JSON)
            .no_path("/_matrix/client/v3/users/@none:hearth.test/report", NOT_FOUND),
    ]
}

fn push_rules() -> Vec<Row> {
    let rule = "/_matrix/client/v3/pushrules/global/{kind}/{ruleId}";
    let none = "/_matrix/client/v3/pushrules/global/override/none";
    vec![
        user("GET", "/_matrix/client/v3/notifications").no_query("from=nonsense", INVALID_PARAM),
        user("GET", "/_matrix/client/v3/pushrules"),
        user("GET", "/_matrix/client/v3/pushrules/"),
        user("GET", "/_matrix/client/v3/pushrules/global"),
        user("GET", "/_matrix/client/v3/pushrules/global/"),
        user("GET", rule).no_path(none, NOT_FOUND),
        user("PUT", rule)
            .body(r#"{"actions": ["notify"], "conditions": []}"#)
            .no_body("{}", BAD_JSON)
            .no_body(r#"{"actions": 1, "conditions": []}"#, BAD_JSON),
        user("DELETE", rule).no_path(none, NOT_FOUND),
        user("GET", "/_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled"),
        user("PUT", "/_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled")
            .body(r#"{"enabled": true}"#)
            .no_body("{}", BAD_JSON)
            .no_body(r#"{"enabled": 1}"#, BAD_JSON)
            .no_path("/_matrix/client/v3/pushrules/global/override/none/enabled", NOT_FOUND),
        user("GET", "/_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions"),
        user("PUT", "/_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions")
            .body(r#"{"actions": []}"#)
            .no_body("{}", BAD_JSON)
            .no_body(r#"{"actions": "notify"}"#, BAD_JSON)
            .no_path("/_matrix/client/v3/pushrules/global/override/none/actions", NOT_FOUND),
    ]
}

fn rooms() -> Vec<Row> {
    let alias = "/_matrix/client/v3/directory/room/{roomAlias}";
    vec![
        user("POST", "/_matrix/client/v3/createRoom")
            .body("{}")
            .no_body(r#"{"name": 1}"#, BAD_JSON)
            .no_body(r#"{"invite": "x"}"#, BAD_JSON)
            .no_body(r#"{"invite": ["nonsense"]}"#, BAD_JSON)
            .no_body(r#"{"initial_state": {}}"#, BAD_JSON)
            .no_body(r#"{"initial_state": [{"type": "a"}]}"#, BAD_JSON)
            .no_body(r#"{"creation_content": 1}"#, BAD_JSON)
            .no_body(r#"{"power_level_content_override": []}"#, BAD_JSON)
            .no_body(r#"{"room_version": 1}"#, BAD_JSON)
            .no_body(r#"{"room_version": "old"}"#, (400, "M_UNSUPPORTED_ROOM_VERSION"))
            .no_body(r#"{"preset": "open_house"}"#, INVALID_PARAM)
            .no_body(r#"{"visibility": "dim"}"#, INVALID_PARAM)
            .no_body(r#"{"room_alias_name": "taken"}"#, (400, "M_ROOM_IN_USE"))
            .no_body(r##"{"room_alias_name": "#a:b"}"##, INVALID_PARAM),
        public("GET", alias).no_path("/_matrix/client/v3/directory/room/%23none:hearth.test", NOT_FOUND),
        user("PUT", alias)
            .body(r#"{"room_id": "{roomId}"}"#)
            .members(FORBIDDEN)
            .no_body("{}", BAD_JSON)
            .no_body(r#"{"room_id": "nonsense"}"#, BAD_JSON)
            .no_path("/_matrix/client/v3/directory/room/%23taken:hearth.test", (409, "M_UNKNOWN"))
            .no_path("/_matrix/client/v3/directory/room/%23a:elsewhere.test", INVALID_PARAM),
        user("DELETE", alias)
            .no_path("/_matrix/client/v3/directory/room/%23none:hearth.test", NOT_FOUND)
            .no_path("/_matrix/client/v3/directory/room/%23others:hearth.test", FORBIDDEN),
        user("GET", "/_matrix/client/v3/rooms/{roomId}/aliases").members(FORBIDDEN),
        public("GET", "/_matrix/client/v3/directory/list/room/{roomId}")
            .no_path("/_matrix/client/v3/directory/list/room/!none:hearth.test", NOT_FOUND),
        user("PUT", "/_matrix/client/v3/directory/list/room/{roomId}")
            .body(r#"{"visibility": "public"}"#)
            .members(FORBIDDEN)
            .no_body(r#"{"visibility": 1}"#, BAD_JSON)
            .no_body(r#"{"visibility": "dim"}"#, INVALID_PARAM)
            .no_path("/_matrix/client/v3/directory/list/room/!none:hearth.test", NOT_FOUND),
        // Where the settings close the directory, a token is needed: `rooms/directory.rs`.
        anybody("GET", "/_matrix/client/v3/publicRooms")
            .no_query("limit=many", INVALID_PARAM)
            .no_query("since=nonsense", INVALID_PARAM),
        user("POST", "/_matrix/client/v3/publicRooms")
            .body("{}")
            .no_body(r#"{"limit": "many"}"#, BAD_JSON)
            .no_body(r#"{"filter": 1}"#, BAD_JSON)
            .no_body(r#"{"filter": {"room_types": "m.space"}}"#, BAD_JSON)
            .no_body(r#"{"since": "nonsense"}"#, INVALID_PARAM)
            .no_body(r#"{"include_all_networks": true, "third_party_instance_id": "irc"}"#, INVALID_PARAM),
    ]
}

fn membership() -> Vec<Row> {
    let whom = |path| {
        user("POST", path)
            .body(r#"{"user_id": "{other}"}"#)
            .members(FORBIDDEN)
            .no_body(r#"{"user_id": 1}"#, BAD_JSON)
            .no_body(r#"{"user_id": "nonsense"}"#, BAD_JSON)
            .no_body(r#"{"user_id": "{other}", "reason": 1}"#, BAD_JSON)
    };
    let knock = |path| user("POST", path).body("{}").members(FORBIDDEN).no_body(r#"{"reason": 1}"#, BAD_JSON);
    vec![
        user("POST", "/_matrix/client/v3/rooms/{roomId}/join")
            .body("{}")
            .members(FORBIDDEN)
            .no_body(r#"{"reason": 1}"#, BAD_JSON)
            .no_path("/_matrix/client/v3/rooms/!none:hearth.test/join", NOT_FOUND),
        user("POST", "/_matrix/client/v3/join/{roomIdOrAlias}")
            .body("{}")
            .members(FORBIDDEN)
            .no_body(r#"{"reason": 1}"#, BAD_JSON)
            .no_path("/_matrix/client/v3/join/%23none:hearth.test", NOT_FOUND),
        knock("/_matrix/client/v3/knock/{roomIdOrAlias}")
            .no_path("/_matrix/client/v3/knock/%23none:hearth.test", NOT_FOUND),
        knock("/_matrix/client/unstable/xyz.amorgan.knock/knock/{roomIdOrAlias}"),
        user("POST", "/_matrix/client/v3/rooms/{roomId}/leave")
            .body("{}")
            .members(FORBIDDEN)
            .no_body(r#"{"reason": 1}"#, BAD_JSON),
        user("POST", "/_matrix/client/v3/rooms/{roomId}/forget").outsider(NOT_FOUND),
        whom("/_matrix/client/v3/rooms/{roomId}/invite").no_body("{}", MISSING_PARAM),
        whom("/_matrix/client/v3/rooms/{roomId}/kick").no_body("{}", BAD_JSON),
        whom("/_matrix/client/v3/rooms/{roomId}/ban").no_body("{}", BAD_JSON),
        whom("/_matrix/client/v3/rooms/{roomId}/unban").no_body("{}", BAD_JSON),
        user("GET", "/_matrix/client/v3/joined_rooms"),
        user("GET", "/_matrix/client/v1/mutual_rooms")
            .query("user_id={other}")
            .no_query("", INVALID_PARAM)
            .no_query("user_id=other", INVALID_PARAM)
            .no_query("user_id={other}&from=x", INVALID_PARAM),
    ]
}

fn reading() -> Vec<Row> {
    let timestamp = |path| {
        user("GET", path)
            .query("ts=1750000000000&dir=b")
            .outsider(FORBIDDEN)
            .no_query("dir=b", MISSING_PARAM)
            .no_query("ts=1", MISSING_PARAM)
            .no_query("ts=soon&dir=b", INVALID_PARAM)
            .no_query("ts=1&dir=x", INVALID_PARAM)
    };
    let relations = |path| {
        user("GET", path)
            .outsider(NOT_FOUND)
            .no_query("dir=x", INVALID_PARAM)
            .no_query("limit=many", INVALID_PARAM)
            .no_query("from=nonsense", INVALID_PARAM)
            .no_query("to=nonsense", INVALID_PARAM)
            .no_query("recurse=perhaps", INVALID_PARAM)
    };
    let state = |path| user("GET", path).outsider(FORBIDDEN).no_query("format=xml", INVALID_PARAM);
    vec![
        user("GET", "/_matrix/client/v3/sync")
            .no_query("since=nonsense", INVALID_PARAM)
            .no_query("timeout=soon", INVALID_PARAM)
            .no_query("full_state=perhaps", INVALID_PARAM)
            .no_query("filter=%7B", INVALID_PARAM)
            .no_query("filter=999", INVALID_PARAM)
            .no_query("set_presence=asleep", INVALID_PARAM),
        user("GET", "/_matrix/client/v3/events")
            .no_query("from=nonsense", INVALID_PARAM)
            .no_query("timeout=soon", INVALID_PARAM)
            .no_query("room_id=nonsense", INVALID_PARAM),
        user("GET", "/_matrix/client/v3/events/{eventId}")
            .outsider(NOT_FOUND)
            .no_path("/_matrix/client/v3/events/$none", NOT_FOUND),
        user("GET", "/_matrix/client/v3/initialSync")
            .no_query("limit=many", INVALID_PARAM)
            .no_query("archived=perhaps", INVALID_PARAM),
        user("GET", "/_matrix/client/v3/rooms/{roomId}/initialSync")
            .outsider(FORBIDDEN)
            .no_query("limit=many", INVALID_PARAM),
        user("GET", "/_matrix/client/v3/rooms/{roomId}/event/{eventId}")
            .outsider(NOT_FOUND)
            .no_path("/_matrix/client/v3/rooms/{roomId}/event/$none", NOT_FOUND),
        user("GET", "/_matrix/client/v3/rooms/{roomId}/context/{eventId}")
            .outsider(NOT_FOUND)
            .no_query("limit=many", INVALID_PARAM)
            .no_query("filter=nonsense", INVALID_PARAM)
            .no_path("/_matrix/client/v3/rooms/{roomId}/context/$none", NOT_FOUND),
        user("GET", "/_matrix/client/v3/rooms/{roomId}/messages")
            .query("dir=b")
            .outsider(FORBIDDEN)
            .no_query("", MISSING_PARAM)
            .no_query("dir=x", INVALID_PARAM)
            .no_query("dir=b&from=nonsense", INVALID_PARAM)
            .no_query("dir=b&to=nonsense", INVALID_PARAM)
            .no_query("dir=b&limit=many", INVALID_PARAM)
            .no_query("dir=b&limit=-1", INVALID_PARAM)
            .no_query("dir=b&filter=%5B%5D", INVALID_PARAM),
        user("GET", "/_matrix/client/v3/rooms/{roomId}/members")
            .outsider(FORBIDDEN)
            .no_query("at=nonsense", INVALID_PARAM)
            .no_query("membership=hover", INVALID_PARAM)
            .no_query("not_membership=hover", INVALID_PARAM),
        user("GET", "/_matrix/client/v3/rooms/{roomId}/joined_members").members(FORBIDDEN),
        user("GET", "/_matrix/client/v3/rooms/{roomId}/state").outsider(FORBIDDEN),
        state("/_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}")
            .no_path("/_matrix/client/v3/rooms/{roomId}/state/m.never/set", NOT_FOUND),
        state("/_matrix/client/v3/rooms/{roomId}/state/{eventType}"),
        state("/_matrix/client/v3/rooms/{roomId}/state/{eventType}/"),
        timestamp("/_matrix/client/v1/rooms/{roomId}/timestamp_to_event"),
        timestamp("/_matrix/client/unstable/org.matrix.msc3030/rooms/{roomId}/timestamp_to_event"),
        relations("/_matrix/client/v1/rooms/{roomId}/relations/{eventId}"),
        relations("/_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}"),
        relations("/_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}"),
        relations("/_matrix/client/unstable/rooms/{roomId}/relations/{eventId}"),
        relations("/_matrix/client/unstable/rooms/{roomId}/relations/{eventId}/{relType}"),
        relations("/_matrix/client/unstable/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}"),
    ]
}

fn sending() -> Vec<Row> {
    let state = |path| user("PUT", path).body("{}").members(FORBIDDEN).no_body(r#"{"n": 1.5}"#, BAD_JSON);
    let receipt = "/_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}";
    vec![
        user("PUT", "/_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}")
            .body(r#"{"msgtype": "m.text", "body": "x"}"#)
            .members(FORBIDDEN)
            .no_body(r#"{"n": 1.5}"#, BAD_JSON)
            .no_body(r#"{"n": 9007199254740993}"#, BAD_JSON)
            .no_path("/_matrix/client/v3/rooms/!none:hearth.test/send/a/b", FORBIDDEN),
        user("PUT", "/_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}")
            .body("{}")
            .members(FORBIDDEN)
            .no_body(r#"{"reason": 1}"#, BAD_JSON),
        state("/_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}")
            .no_path("/_matrix/client/v3/rooms/{roomId}/state/m.room.member/{other}", BAD_JSON)
            .no_path("/_matrix/client/v3/rooms/{roomId}/state/m.room.create/", INVALID_PARAM),
        state("/_matrix/client/v3/rooms/{roomId}/state/{eventType}"),
        state("/_matrix/client/v3/rooms/{roomId}/state/{eventType}/"),
        user("POST", receipt)
            .body("{}")
            .members(FORBIDDEN)
            .no_body(r#"{"thread_id": 1}"#, BAD_JSON)
            .no_body(r#"{"thread_id": ""}"#, INVALID_PARAM)
            .no_body(r#"{"thread_id": "$none"}"#, INVALID_PARAM)
            .no_path("/_matrix/client/v3/rooms/{roomId}/receipt/m.unheard/{eventId}", INVALID_PARAM),
        user("POST", "/_matrix/client/v3/rooms/{roomId}/read_markers")
            .body(r#"{"m.read": "{eventId}"}"#)
            .members(FORBIDDEN)
            .no_body(r#"{"m.read": 1}"#, BAD_JSON)
            .no_body(r#"{"m.fully_read": "nonsense"}"#, BAD_JSON),
        user("PUT", "/_matrix/client/v3/rooms/{roomId}/typing/{userId}")
            .body(r#"{"typing": false}"#)
            .members(FORBIDDEN)
            .no_body("{}", BAD_JSON)
            .no_body(r#"{"typing": 1}"#, BAD_JSON)
            .no_body(r#"{"typing": true, "timeout": "soon"}"#, BAD_JSON)
            .no_path("/_matrix/client/v3/rooms/{roomId}/typing/{other}", FORBIDDEN),
    ]
}

/// Those of old are at three versions, of which the oldest is one with the newest here.
fn media() -> Vec<Row> {
    let mut rows = vec![user("GET", "/_matrix/client/v1/media/config")];
    for (method, path) in [
        ("GET", "/_matrix/client/v1/media/download/{serverName}/{mediaId}"),
        ("GET", "/_matrix/client/v1/media/download/{serverName}/{mediaId}/{fileName}"),
    ] {
        rows.push(
            user(method, path)
                .no_path("/_matrix/client/v1/media/download/no%20server/{mediaId}", INVALID_PARAM)
                .no_path("/_matrix/client/v1/media/download/{serverName}/..%2F..%2Fetc", NOT_FOUND)
                .no_query("timeout_ms=-1", INVALID_PARAM)
                .no_query("timeout_ms=soon", INVALID_PARAM),
        );
    }
    let sizes = |row: Row| {
        row.query("width=32&height=32")
            .no_query("width=32", INVALID_PARAM)
            .no_query("width=-1&height=32", INVALID_PARAM)
            .no_query("width=0&height=32", INVALID_PARAM)
            .no_query("width=1.5&height=32", INVALID_PARAM)
            .no_query("width=32&height=32&method=stretch", INVALID_PARAM)
            .no_query("width=32&height=32&animated=maybe", INVALID_PARAM)
            .no_query("width=32&height=32", UNKNOWN)
    };
    rows.push(sizes(user("GET", "/_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}")));
    let preview = |path| {
        user("GET", path)
            .query("url=https%3A%2F%2Fexample.org")
            .no_query("ts=1", MISSING_PARAM)
            .no_query("url=https%3A%2F%2Fexample.org&ts=now", INVALID_PARAM)
            .no_query("url=https%3A%2F%2Fexample.org", (404, "M_UNRECOGNIZED"))
    };
    rows.push(preview("/_matrix/client/v1/media/preview_url"));
    let old = [
        ["config", "upload", "create", "upload/{serverName}/{mediaId}"],
        ["download/{serverName}/{mediaId}", "download/{serverName}/{mediaId}/{fileName}", "", ""],
    ];
    for version in ["v1", "v3"] {
        // Rows live as long as the test.
        let at = |rest: &str| -> &'static str { format!("/_matrix/media/{version}/{rest}").leak() };
        let [[config, upload, create, upload_to], [download, download_as, ..]] = old.map(|paths| paths.map(at));
        rows.push(user("GET", config));
        rows.push(preview(at("preview_url")));
        rows.push(user("POST", upload));
        rows.push(user("POST", create));
        rows.push(user("PUT", upload_to).no_path(at("upload/other.test/{mediaId}"), NOT_FOUND));
        for path in [download, download_as] {
            rows.push(public("GET", path).no_query("allow_remote=maybe", INVALID_PARAM));
        }
        rows.push(public("GET", at("thumbnail/{serverName}/{mediaId}")).query("width=32&height=32"));
    }
    rows
}
