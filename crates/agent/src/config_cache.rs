//! The copy of the dynamic configuration in the data directory: `patroni.dynamic.json`.
//!
//! It is in effect until etcd has been read, and the leader writes it to `/config` should that be missing. Without it, what
//! the file has under `bootstrap.dcs` counts.

use crate::local::Local;
use ha::Data;
use serde_json::Value;
use settings::Settings;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const FILE: &str = "patroni.dynamic.json";

/// What was kept last.
#[derive(Default)]
pub(crate) struct ConfigCache {
    /// The revision of `/config` that the copy is of, while there is a data directory to keep it in.
    kept: Option<i64>,
    /// The last attempt has failed: that is said once.
    failed: Arc<AtomicBool>,
}

impl ConfigCache {
    /// Keeps `config`, which came from `/config` at this revision, beside the loop; 0 is none that came from there.
    pub(crate) fn keep(&mut self, config: &Value, revision: i64, local: &Local) {
        let Data::Present(_) = local.data() else {
            self.kept = None;
            return;
        };
        if revision == 0 || self.kept == Some(revision) {
            return;
        }
        self.kept = Some(revision);
        let (data_dir, text, failed) = (local.data_dir().to_owned(), config.to_string(), self.failed.clone());
        tokio::task::spawn_blocking(move || {
            let written = postgres::config_files::keep(&data_dir, FILE, text.as_bytes());
            let before = failed.swap(written.is_err(), Ordering::Relaxed);
            if let (Err(error), false) = (written, before) {
                tracing::warn!(%error, "failed to keep a copy of the dynamic configuration");
            }
        });
    }
}

/// What is in effect before `/config` was read: the copy of the last time, else what a new cluster gets.
pub(crate) fn initial(settings: &Settings, data_dir: &Path) -> Value {
    let kept = std::fs::read_to_string(data_dir.join(FILE)).ok();
    let kept = kept.and_then(|text| serde_json::from_str::<Value>(&text).ok()).filter(Value::is_object);
    kept.unwrap_or_else(|| settings::born_with_baton(&settings.bootstrap.dcs))
}

#[cfg(test)]
mod tests {
    use super::initial;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[test]
    fn without_a_copy_the_file_counts() {
        let yaml = "{scope: demo, name: n1, restapi: {listen: '127.0.0.1:8008'}, etcd3: {host: '127.0.0.1'}, \
            bootstrap: {dcs: {ttl: 40, master_start_timeout: 5}}, \
            postgresql: {listen: '127.0.0.1:5433', data_dir: /data, authentication: {replication: {username: r}}}}";
        let env = BTreeMap::from([(settings::CONFIGURATION.to_owned(), yaml.to_owned())]);
        let settings = settings::load_environment(&env).unwrap().settings;
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("patroni.dynamic.json");
        let born = json!({"ttl": 40, "master_start_timeout": 5, "failsafe_mode": true});
        assert_eq!(initial(&settings, dir.path()), born);
        std::fs::write(&copy, r#"{"ttl": 20}"#).unwrap();
        assert_eq!(initial(&settings, dir.path()), json!({"ttl": 20}));
        std::fs::write(&copy, "spoiled").unwrap();
        assert_eq!(initial(&settings, dir.path())["ttl"], 40);
    }
}
