//! Waiting for what must come: a condition, not a time. What does not come in a minute fails the test, and does not hang it.

use std::time::Duration;

/// Longer than anything takes on the slowest machine.
const LONGEST: Duration = Duration::from_secs(60);

/// Returns as soon as a condition holds; panics with what was waited for if it never does.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    until_some(what, async || condition().await.then_some(())).await
}

/// Returns a value as soon as there is one; panics with what was waited for if it never comes.
pub async fn until_some<T>(what: &str, find: impl AsyncFn() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(value) = find().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    match tokio::time::timeout(LONGEST, found).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain: {what}"),
    }
}
