//! SIGHUP and POST /reload: the settings are read again, beside the loop.
//!
//! ```text
//!   asked ─► file and environment are read ─► broken: said, and nothing changes
//!                                          └► good: taken up at the next turn; what only a new agent can use is named
//! ```

use crate::wake::{Cell, Wake};
use settings::{Loaded, Problems, ProcessEnv, Settings};
use std::path::PathBuf;
use std::sync::Arc;

/// The reader; a cheap clone.
#[derive(Clone)]
pub(crate) struct Reader {
    file: Option<PathBuf>,
    wake: Wake,
    read: Arc<Cell<Option<Result<Loaded, Problems>>>>,
}

impl Reader {
    pub(crate) fn new(file: Option<PathBuf>, wake: Wake) -> Reader {
        Reader { file, wake, read: Arc::new(Cell::new(None)) }
    }

    /// Begins to read; a disk that hangs hangs only this.
    pub(crate) fn begin(&self) {
        let reader = self.clone();
        tokio::task::spawn_blocking(move || {
            let read = match &reader.file {
                Some(file) => settings::load(file, &ProcessEnv),
                None => settings::load_environment(&ProcessEnv),
            };
            reader.read.with(|kept| *kept = Some(read));
            reader.wake.wake();
        });
    }

    /// What was read since the last time.
    pub(crate) fn take(&self) -> Option<Result<Loaded, Problems>> {
        self.read.with(Option::take)
    }
}

/// The settings to go on with, and the keys whose change only the next start of the agent can take up.
pub(crate) fn merged(old: &Settings, new: Settings) -> (Settings, Vec<&'static str>) {
    let mut later = Vec::new();
    let mut fixed = |key: &'static str, changed: bool| {
        if changed {
            later.push(key);
        }
    };
    fixed("scope", old.scope != new.scope);
    fixed("namespace", old.namespace != new.namespace);
    fixed("name", old.name != new.name);
    fixed("etcd3", old.etcd != new.etcd);
    fixed("restapi.listen", old.restapi.listen != new.restapi.listen);
    fixed("restapi.request_queue_size", old.restapi.request_queue_size != new.restapi.request_queue_size);
    fixed("postgresql.data_dir", old.postgresql.data_dir != new.postgresql.data_dir);
    fixed("postgresql.bin_dir", old.postgresql.bin_dir != new.postgresql.bin_dir);
    fixed("postgresql.bin_name", old.postgresql.bin_name != new.postgresql.bin_name);
    fixed("vip", old.vip != new.vip || old.bgp != new.bgp);
    fixed("dns", old.dns != new.dns);
    let mut merged = new;
    merged.scope.clone_from(&old.scope);
    merged.namespace.clone_from(&old.namespace);
    merged.name.clone_from(&old.name);
    merged.etcd.clone_from(&old.etcd);
    merged.restapi.listen.clone_from(&old.restapi.listen);
    merged.restapi.listen_host.clone_from(&old.restapi.listen_host);
    merged.restapi.listen_port = old.restapi.listen_port;
    merged.restapi.request_queue_size = old.restapi.request_queue_size;
    merged.postgresql.data_dir.clone_from(&old.postgresql.data_dir);
    merged.postgresql.bin_dir.clone_from(&old.postgresql.bin_dir);
    merged.postgresql.bin_name.clone_from(&old.postgresql.bin_name);
    merged.vip.clone_from(&old.vip);
    merged.bgp.clone_from(&old.bgp);
    merged.dns.clone_from(&old.dns);
    (merged, later)
}

#[cfg(test)]
mod tests {
    use super::merged;
    use settings::Settings;
    use std::collections::BTreeMap;

    fn settings(name: &str, more: &str) -> Settings {
        let yaml = format!(
            "{{scope: demo, name: {name}, restapi: {{listen: '127.0.0.1:8008'}}, etcd3: {{host: '127.0.0.1'}}, {more} \
             postgresql: {{listen: '127.0.0.1:5433', data_dir: /data, authentication: {{replication: {{username: r}}}}}}}}"
        );
        let env = BTreeMap::from([(settings::CONFIGURATION.to_owned(), yaml)]);
        settings::load_environment(&env).unwrap().settings
    }

    #[test]
    fn what_only_a_new_agent_can_use_is_named_and_stays() {
        let old = settings("n1", "");
        let new = settings("n2", "tags: {nofailover: true}, namespace: other,");
        let (merged, later) = merged(&old, new);
        assert_eq!(later, ["namespace", "name"]);
        assert_eq!((merged.name.as_str(), merged.namespace.as_str()), ("n1", "service"));
        assert!(merged.tags.nofailover(), "the rest is taken up");
    }
}
