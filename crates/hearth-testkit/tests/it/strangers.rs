//! Whoever shows no token, or a wrong one, is turned away at every endpoint that needs one.

use hearth_testkit::{TestServer, json};

/// Of accounts and users; other chapters have lists of their own.
const ENDPOINTS: [(&str, &str); 39] = [
    ("POST", "v1/login/get_token"),
    ("POST", "v3/logout"),
    ("POST", "v3/logout/all"),
    ("GET", "v3/account/whoami"),
    ("GET", "v3/account/3pid"),
    ("POST", "v3/account/password"),
    ("POST", "v3/account/deactivate"),
    ("GET", "v3/devices"),
    ("GET", "v3/devices/A"),
    ("PUT", "v3/devices/A"),
    ("DELETE", "v3/devices/A"),
    ("POST", "v3/delete_devices"),
    ("PUT", "v3/profile/@alice:hearth.test/displayname"),
    ("DELETE", "v3/profile/@alice:hearth.test/displayname"),
    ("GET", "v3/user/@alice:hearth.test/account_data/a"),
    ("PUT", "v3/user/@alice:hearth.test/account_data/a"),
    ("GET", "v3/user/@alice:hearth.test/rooms/!a:hearth.test/account_data/a"),
    ("PUT", "v3/user/@alice:hearth.test/rooms/!a:hearth.test/account_data/a"),
    ("GET", "v3/user/@alice:hearth.test/rooms/!a:hearth.test/tags"),
    ("PUT", "v3/user/@alice:hearth.test/rooms/!a:hearth.test/tags/a"),
    ("DELETE", "v3/user/@alice:hearth.test/rooms/!a:hearth.test/tags/a"),
    ("POST", "v3/user/@alice:hearth.test/filter"),
    ("GET", "v3/user/@alice:hearth.test/filter/0"),
    ("GET", "v3/pushrules/"),
    ("GET", "v3/pushrules/global/"),
    ("GET", "v3/pushrules/global/override/a"),
    ("PUT", "v3/pushrules/global/override/a"),
    ("DELETE", "v3/pushrules/global/override/a"),
    ("GET", "v3/pushrules/global/override/a/enabled"),
    ("PUT", "v3/pushrules/global/override/a/enabled"),
    ("GET", "v3/pushrules/global/override/a/actions"),
    ("PUT", "v3/pushrules/global/override/a/actions"),
    ("GET", "v3/capabilities"),
    ("GET", "v3/thirdparty/protocols"),
    ("GET", "r0/account/whoami"),
    ("GET", "r0/pushrules/"),
    ("GET", "r0/devices"),
    ("POST", "r0/delete_devices"),
    ("POST", "r0/logout"),
];

#[tokio::test]
async fn strangers_are_turned_away() {
    let server = TestServer::start().await;
    for (method, path) in ENDPOINTS {
        let request = || server.request(method, &format!("/_matrix/client/{path}")).json(&json!({}));
        let nobody = request().send().await;
        assert_eq!(nobody.refusal(), (401, "M_MISSING_TOKEN".to_owned()), "{method} {path}");
        let wrong = request().token("nonsense").send().await;
        assert_eq!(wrong.refusal(), (401, "M_UNKNOWN_TOKEN".to_owned()), "{method} {path}");
    }
}
