//! Waiting for a condition, with a deadline and a message that says what was awaited.

use anyhow::{Result, bail};
use std::future::Future;
use std::time::Duration;

/// Looks every 20 ms, at most for `span`, until `look` finds something.
pub async fn until<T, F>(span: Duration, what: &str, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Option<T>>,
{
    let end = clock::now().after(span);
    loop {
        if let Some(found) = look().await {
            return Ok(found);
        }
        if clock::now() >= end {
            bail!("wait for {what}: not within {} s", span.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The same, where looking may fail: an error ends the wait, `None` goes on.
pub async fn try_until<T, F>(span: Duration, what: &str, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let end = clock::now().after(span);
    loop {
        if let Some(found) = look().await? {
            return Ok(found);
        }
        if clock::now() >= end {
            bail!("wait for {what}: not within {} s", span.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
