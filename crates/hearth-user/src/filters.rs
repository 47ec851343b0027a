//! Filters that clients leave here to name them later.
//!
//! Spec: client-server API, "Filtering". What a filter does is the business of those who read it.

use hearth_matrix::ruma::api::client::filter::FilterDefinition;
use hearth_store::{Noun, StoreError, UserNum};
use serde_json::{Map, Value};

use crate::Users;
use crate::account_data::to_json;

/// Largest filter.
const FILTER_SIZE_BYTES: usize = 64 * 1024;

/// Why a filter can't be kept or found.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    /// It is no filter.
    #[error("not a filter: {0}")]
    Invalid(String),
    /// It is larger than 64 KiB.
    #[error("the filter is larger than 64 KiB")]
    TooLarge,
    /// No filter of that id.
    #[error("unknown filter")]
    NotFound,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Users {
    /// Keeps a filter; returns its id.
    pub async fn create_filter(&self, user: UserNum, filter: &Map<String, Value>) -> Result<String, FilterError> {
        let json = to_json(filter);
        if json.len() > FILTER_SIZE_BYTES {
            return Err(FilterError::TooLarge);
        }
        parse(&json)?;
        let num = self.store.write(vec![Noun::User(user)], move |tx| tx.filters().add(user, &json)).await?;
        Ok(num.to_string())
    }

    /// A filter as its client wrote it.
    pub async fn filter(&self, user: UserNum, filter_id: &str) -> Result<Map<String, Value>, FilterError> {
        let num: i64 = filter_id.parse().map_err(|_| FilterError::NotFound)?;
        let json = self.store.read(move |tx| tx.filters().get(user, num)).await?.ok_or(FilterError::NotFound)?;
        serde_json::from_str(&json).map_err(|error| StoreError::Damaged(format!("filter: {error}")).into())
    }
}

/// A filter from its JSON.
pub fn parse(json: &str) -> Result<FilterDefinition, FilterError> {
    serde_json::from_str(json).map_err(|error| FilterError::Invalid(error.to_string()))
}
