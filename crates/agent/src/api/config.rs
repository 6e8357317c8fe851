//! `/config`: the dynamic configuration.

use super::Shared;
use super::reply::{self, Reply};
use hyper::StatusCode;
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;

/// The configuration as it is in etcd.
pub(super) fn get(shared: &Shared) -> Reply {
    let snapshot = shared.view.borrow().snapshot.clone();
    match snapshot.and_then(|snapshot| snapshot.config.clone()) {
        Some(config) => reply::json(StatusCode::OK, &config.value),
        None => reply::error(StatusCode::BAD_GATEWAY, "there is no configuration in etcd"),
    }
}

/// Changes some of it: `null` removes a key.
pub(super) async fn patch(change: Value, shared: &Arc<Shared>) -> Reply {
    let by = clock::now().after(Duration::from_secs(3));
    let config = match shared.etcd.snapshot(by).await {
        Ok(snapshot) => snapshot.config,
        Err(error) => return reply::error(StatusCode::SERVICE_UNAVAILABLE, &format!("failed to {error}")),
    };
    let Some(config) = config else {
        return reply::error(StatusCode::SERVICE_UNAVAILABLE, "there is no configuration in etcd");
    };
    let changed = settings::patch(&config.value, &change);
    if let Some(refusal) = refusal(&changed) {
        return refusal;
    }
    match shared.etcd.put_config(&changed, Some(config.mod_revision), by).await {
        Ok(_) => reply::json(StatusCode::OK, &changed),
        Err(etcd::Error::Conflict) => reply::error(
            StatusCode::CONFLICT,
            "somebody else changed the configuration at the same moment; try again",
        ),
        Err(error) => reply::error(StatusCode::SERVICE_UNAVAILABLE, &format!("failed to {error}")),
    }
}

/// Replaces it.
pub(super) async fn put(config: Value, shared: &Arc<Shared>) -> Reply {
    if let Some(refusal) = refusal(&config) {
        return refusal;
    }
    let by = clock::now().after(Duration::from_secs(3));
    match shared.etcd.put_config(&config, None, by).await {
        Ok(_) => reply::json(StatusCode::OK, &config),
        Err(error) => reply::error(StatusCode::BAD_GATEWAY, &format!("failed to {error}")),
    }
}

/// The refusal of a value that every agent would refuse; it is not written.
fn refusal(config: &Value) -> Option<Reply> {
    let problems = settings::validate_dynamic(config, false).err()?;
    Some(reply::text(StatusCode::BAD_REQUEST, problems.join("\n")))
}
