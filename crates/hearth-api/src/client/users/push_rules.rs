//! Push rules.
//!
//! Spec: client-server API, "Push Rules: API".

use axum::extract::State;
use hearth_matrix::ruma::api::client::push::{
    delete_pushrule, get_pushrule, get_pushrule_actions, get_pushrule_enabled, set_pushrule, set_pushrule_actions,
    set_pushrule_enabled,
};
use hearth_matrix::ruma::push::{AnyPushRuleRef, RuleKind, Ruleset};
use hearth_user::push_rules::to_json;
use http::Method;
use serde_json::{Map, Value, json};

use crate::route::{Route, route};
use crate::{ApiError, Doors, JsonBody, Matrix, Sender};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::at(Method::GET, "/_matrix/client/v3/pushrules/", all).and_at("/_matrix/client/v3/pushrules"),
        Route::at(Method::GET, "/_matrix/client/v3/pushrules/global/", global)
            .and_at("/_matrix/client/v3/pushrules/global"),
        route(rule),
        route(set),
        route(remove),
        route(is_enabled),
        route(set_enabled),
        route(actions),
        route(set_actions),
    ]
}

async fn rules(doors: &Doors, sender: &Sender) -> Result<Ruleset, ApiError> {
    Ok(doors.users.push_rules(sender.user, &sender.user_id).await?)
}

/// `GET /_matrix/client/v3/pushrules/`
async fn all(State(doors): State<Doors>, sender: Sender) -> Result<JsonBody<Value>, ApiError> {
    let rules = rules(&doors, &sender).await?;
    Ok(JsonBody(json!({ "global": to_json(&rules) })))
}

/// `GET /_matrix/client/v3/pushrules/global/`
async fn global(State(doors): State<Doors>, sender: Sender) -> Result<JsonBody<Map<String, Value>>, ApiError> {
    Ok(JsonBody(to_json(&rules(&doors, &sender).await?)))
}

fn find<'a>(rules: &'a Ruleset, kind: &RuleKind, rule_id: &str) -> Result<AnyPushRuleRef<'a>, ApiError> {
    rules.get(kind.clone(), rule_id).ok_or_else(|| ApiError::not_found("Unknown push rule"))
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
async fn rule(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<get_pushrule::v3::Request>,
) -> Result<Matrix<get_pushrule::v3::Response>, ApiError> {
    let rules = rules(&doors, &sender).await?;
    let rule = find(&rules, &request.kind, &request.rule_id)?;
    Ok(Matrix(get_pushrule::v3::Response::new(rule.into())))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
async fn set(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<set_pushrule::v3::Request>,
) -> Result<Matrix<set_pushrule::v3::Response>, ApiError> {
    let (after, before) = (request.after, request.before);
    doors.users.set_push_rule(sender.user, &sender.user_id, request.rule, after, before).await?;
    Ok(Matrix(set_pushrule::v3::Response::new()))
}

/// `DELETE /_matrix/client/v3/pushrules/global/{kind}/{ruleId}`
async fn remove(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<delete_pushrule::v3::Request>,
) -> Result<Matrix<delete_pushrule::v3::Response>, ApiError> {
    doors.users.remove_push_rule(sender.user, &sender.user_id, request.kind, request.rule_id).await?;
    Ok(Matrix(delete_pushrule::v3::Response::new()))
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled`
async fn is_enabled(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<get_pushrule_enabled::v3::Request>,
) -> Result<Matrix<get_pushrule_enabled::v3::Response>, ApiError> {
    let rules = rules(&doors, &sender).await?;
    let rule = find(&rules, &request.kind, &request.rule_id)?;
    Ok(Matrix(get_pushrule_enabled::v3::Response::new(rule.enabled())))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled`
async fn set_enabled(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<set_pushrule_enabled::v3::Request>,
) -> Result<Matrix<set_pushrule_enabled::v3::Response>, ApiError> {
    let set_pushrule_enabled::v3::Request { kind, rule_id, enabled, .. } = request;
    doors.users.set_push_rule_enabled(sender.user, &sender.user_id, kind, rule_id, enabled).await?;
    Ok(Matrix(set_pushrule_enabled::v3::Response::new()))
}

/// `GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions`
async fn actions(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<get_pushrule_actions::v3::Request>,
) -> Result<Matrix<get_pushrule_actions::v3::Response>, ApiError> {
    let rules = rules(&doors, &sender).await?;
    let rule = find(&rules, &request.kind, &request.rule_id)?;
    Ok(Matrix(get_pushrule_actions::v3::Response::new(rule.actions().to_vec())))
}

/// `PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions`
async fn set_actions(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<set_pushrule_actions::v3::Request>,
) -> Result<Matrix<set_pushrule_actions::v3::Response>, ApiError> {
    let set_pushrule_actions::v3::Request { kind, rule_id, actions, .. } = request;
    doors.users.set_push_rule_actions(sender.user, &sender.user_id, kind, rule_id, actions).await?;
    Ok(Matrix(set_pushrule_actions::v3::Response::new()))
}
