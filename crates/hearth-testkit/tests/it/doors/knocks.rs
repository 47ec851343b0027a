//! The knocks themselves. All that is wrong is gathered, so that one run shows it whole.

use hearth_testkit::{Request, User};

use super::table::{INVALID_PARAM, Row, Token, rows};
use super::{House, Refusal, shape};

const MISSING_TOKEN: Refusal = (401, "M_MISSING_TOKEN");
const UNKNOWN_TOKEN: Refusal = (401, "M_UNKNOWN_TOKEN");
const NOT_JSON: Refusal = (400, "M_NOT_JSON");
const BAD_JSON: Refusal = (400, "M_BAD_JSON");

/// Path parameters of which only some are ids.
const IDS: [&str; 5] = ["{roomId}", "{roomIdOrAlias}", "{eventId}", "{userId}", "{roomAlias}"];

/// What went wrong.
#[derive(Default)]
struct Wrong(Vec<String>);

impl Wrong {
    async fn unless(&mut self, what: &str, request: Request, refusal: Refusal) {
        let answer = request.send().await;
        let (status, code) = answer.refusal();
        if (status, code.as_str()) != refusal {
            self.0.push(format!("{what}: wanted {refusal:?}, got {status} {}", answer.text()));
        }
    }

    fn nothing(self) {
        assert!(self.0.is_empty(), "{} of the answers are wrong:\n{}", self.0.len(), self.0.join("\n"));
    }
}

impl House {
    /// A proper request of this row, without a token.
    fn request(&self, row: &Row, path: &str, user: &User) -> Request {
        let query = if row.query.is_empty() || path.contains('?') { "".into() } else { format!("?{}", row.query) };
        let request = self.server.request(row.method, &format!("{}{query}", self.filled(path, user)));
        match row.body {
            Some(body) => request.header("content-type", "application/json").body(self.filled(body, user)),
            None => request,
        }
    }
}

#[tokio::test]
async fn strangers_are_turned_away() {
    let house = House::new().await;
    let mut wrong = Wrong::default();
    let rows = rows();
    // At all names of a route, the oldest, too.
    for route in hearth_api::routes() {
        let same = |row: &&Row| row.method == route.method && shape(row.path) == shape(&route.path);
        let Some(row) = rows.iter().find(same) else { continue };
        let path = if route.path.contains("/r0/") { row.path.replace("/v3/", "/r0/") } else { row.path.to_owned() };
        let what = format!("{} {path}", row.method);
        let request = || house.request(row, &path, &house.alice);
        if row.token == Token::Needed {
            wrong.unless(&format!("{what} of nobody"), request(), MISSING_TOKEN).await;
        }
        if row.token != Token::Public {
            wrong.unless(&format!("{what} with a wrong token"), request().token("nonsense"), UNKNOWN_TOKEN).await;
            let in_query = format!("{}access_token=nonsense", if row.query.is_empty() { "?" } else { "&" });
            let query = if row.query.is_empty() { in_query } else { format!("?{}{in_query}", row.query) };
            let request = house.request(row, &format!("{path}{query}"), &house.alice);
            wrong.unless(&format!("{what} with a wrong token in its query"), request, UNKNOWN_TOKEN).await;
        }
    }
    wrong.nothing();
}

// endpoint: POST /_matrix/client/unstable/org.matrix.msc2918/refresh
// endpoint: GET /_matrix/client/unstable/org.matrix.msc3030/rooms/{roomId}/timestamp_to_event
// endpoint: GET /_matrix/client/unstable/org.matrix.msc3231/register/org.matrix.msc3231.login.registration_token/validity
// endpoint: GET /_matrix/client/unstable/rooms/{roomId}/relations/{eventId}
// endpoint: GET /_matrix/client/unstable/rooms/{roomId}/relations/{eventId}/{relType}
// endpoint: GET /_matrix/client/unstable/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}
// endpoint: POST /_matrix/client/unstable/xyz.amorgan.knock/knock/{roomIdOrAlias}
// endpoint: GET /_matrix/client/v3/pushrules
// endpoint: GET /_matrix/client/v3/pushrules/global
#[tokio::test]
async fn older_names_lead_through_the_same_doors() {
    let house = House::new().await;
    let names = [
        ("unstable/org.matrix.msc2918/", "v3/"),
        ("unstable/org.matrix.msc3030/", "v1/"),
        ("unstable/org.matrix.msc3231/register/org.matrix.msc3231.", "v1/register/m."),
        ("unstable/rooms/", "v1/rooms/"),
        ("unstable/xyz.amorgan.knock/", "v3/"),
        ("v3/pushrules", "v3/pushrules/"),
        ("v3/pushrules/global", "v3/pushrules/global/"),
    ];
    for row in rows().iter().filter(|row| row.path.contains("/unstable/") || row.path.contains("/pushrules")) {
        let newer = names.iter().find_map(|(old, new)| match row.path.strip_prefix("/_matrix/client/")? {
            path if old.ends_with(['/', '.']) => path.strip_prefix(old).map(|rest| format!("{new}{rest}")),
            path => (path == *old).then(|| (*new).to_owned()),
        });
        let Some(newer) = newer else { continue };
        let ask = async |path: &str| {
            let answer = house.request(row, path, &house.alice).token(&house.alice.access_token).send().await;
            (answer.status, answer.json())
        };
        let answer = ask(row.path).await;
        assert_eq!(answer, ask(&format!("/_matrix/client/{newer}")).await, "{} {}", row.method, row.path);
        assert!(!matches!(answer.0, 404 | 405), "{} {}", row.method, row.path);
    }
}

#[tokio::test]
async fn those_who_are_not_in_the_room_hear_so() {
    let house = House::new().await;
    let mut wrong = Wrong::default();
    for row in rows() {
        let what = format!("{} {}", row.method, row.path);
        if row.path.contains("{roomId") && row.token == Token::Needed {
            assert!(row.outsider.is_some(), "{what}: the table does not say what an outsider hears");
        }
        for (who, user, refusal) in
            [("an outsider", &house.outsider, row.outsider), ("a banned user", &house.banned, row.banned)]
        {
            if let Some(refusal) = refusal {
                let request = house.request(&row, row.path, user).token(&user.access_token);
                wrong.unless(&format!("{what} of {who}"), request, refusal).await;
            }
        }
    }
    wrong.nothing();
}

/// Those who were banned may look back at what they saw: the table names no refusal.
#[tokio::test]
async fn those_who_were_banned_may_look_back() {
    let house = House::new().await;
    for row in rows() {
        if row.method == "GET" && row.outsider.is_some() && row.banned.is_none() && !row.path.contains("{eventId}") {
            let request = house.request(&row, row.path, &house.banned).token(&house.banned.access_token);
            let answer = request.send().await;
            assert!(matches!(answer.status, 200 | 404), "{} {}: {}", row.method, row.path, answer.text());
        }
    }
}

#[tokio::test]
async fn whoever_does_not_know_how_to_ask_hears_why() {
    let house = House::new().await;
    let alice = &house.alice;
    let mut wrong = Wrong::default();
    for row in rows() {
        let what = format!("{} {}", row.method, row.path);
        let with =
            |request: Request| if row.token == Token::Public { request } else { request.token(&alice.access_token) };
        for (id, bad) in IDS.iter().flat_map(|id| [(*id, "nonsense"), (*id, "%FF"), (*id, "%00")]) {
            if row.path.contains(id) {
                let request = with(house.request(&row, &row.path.replace(id, bad), alice));
                wrong.unless(&format!("{what} with {bad} for {id}"), request, INVALID_PARAM).await;
            }
        }
        if row.body.is_some() {
            let generic =
                [("{", NOT_JSON), ("nonsense", NOT_JSON), ("{}{}", NOT_JSON), ("[]", BAD_JSON), ("1", BAD_JSON)];
            for (body, refusal) in generic.into_iter().chain(row.bodies.iter().copied()) {
                let request = house.request(&row, row.path, alice).body(house.filled(body, alice));
                wrong.unless(&format!("{what} with {body}"), with(request), refusal).await;
            }
        }
        for (query, refusal) in &row.queries {
            let request = with(house.request(&row, &format!("{}?{query}", row.path), alice));
            wrong.unless(&format!("{what} with ?{query}"), request, *refusal).await;
        }
        for (path, refusal) in &row.paths {
            let request = with(house.request(&row, path, alice));
            wrong.unless(&format!("{} {path}", row.method), request, *refusal).await;
        }
    }
    wrong.nothing();
}
