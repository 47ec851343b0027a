//! Parameters of a path, for endpoints that ruma does not decode for us.

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::ApiError;

/// The path's parameters, decoded: a value, or a tuple of several.
#[derive(Clone, Debug)]
pub(crate) struct PathOf<T>(pub(crate) T);

impl<T: DeserializeOwned + Send, S: Sync> FromRequestParts<S> for PathOf<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let Path(path) = Path::<T>::from_request_parts(parts, &())
            .await
            .map_err(|error| ApiError::invalid_param(format!("The path is not valid: {}", error.body_text())))?;
        Ok(Self(path))
    }
}
