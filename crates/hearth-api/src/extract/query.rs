//! The query, for endpoints that ruma does not decode for us.

use axum::extract::{FromRequestParts, Query};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::ApiError;

/// The decoded query.
#[derive(Clone, Debug)]
pub(crate) struct QueryOf<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Sync> FromRequestParts<S> for QueryOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Query(query) = Query::<T>::from_request_parts(parts, &())
            .await
            .map_err(|error| ApiError::invalid_param(format!("The query is not valid: {}", error.body_text())))?;
        Ok(Self(query))
    }
}
