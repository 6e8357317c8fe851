//! What every command for a cluster needs: which cluster, the way to its etcd, the way to its members.
//!
//!     --config-file, else PATRONICTL_CONFIG_FILE, BATON_CONFIG, ~/.config/patroni/patronictl.yaml, if there is one
//!       then the environment, then --dcs-url and --insecure

use crate::cli::Reach;
use crate::dcs_url;
use crate::exit_codes::Code;
use crate::failure::Failure;
use crate::invoked::Manner;
use crate::rest::Rest;
use crate::snapshot;
use crate::view::Cluster;
use etcd::{Etcd, Keys, Snapshot};
use http::Client;
use settings::{CtlSettings, ProcessEnv};
use std::path::PathBuf;
use std::time::Duration;
use types::Moment;

/// How long one attempt at one etcd endpoint may take.
const ATTEMPT: Duration = Duration::from_secs(1);
/// How long a command waits for etcd in all.
const PATIENCE: Duration = Duration::from_secs(5);

/// The way to clusters.
pub(crate) struct Context {
    settings: CtlSettings,
    /// Whose habits to keep.
    pub manner: Manner,
    /// For the members' REST APIs.
    pub rest: Rest,
}

impl Context {
    /// Reads the configuration.
    pub(crate) fn new(reach: &Reach, manner: Manner) -> Result<Context, Failure> {
        if reach.group.is_some() {
            return Err(Failure::new(Code::Usage, "Citus clusters are not supported: leave --group out"));
        }
        let file = config_file(reach)?;
        let mut settings = settings::load_ctl(file.as_deref(), &ProcessEnv)
            .map_err(|problems| Failure::new(Code::Configuration, problems.to_string()))?;
        if let Some(url) = &reach.dcs_url {
            let url = dcs_url::parse(url)?;
            settings.namespace = url.namespace.unwrap_or(settings.namespace);
            let mut etcd = settings.etcd.take().unwrap_or_else(|| settings::Etcd {
                endpoints: Vec::new(),
                fixed: true,
                cacert: None,
                cert: None,
                key: None,
                authentication: None,
            });
            etcd.endpoints = url.endpoints;
            etcd.authentication = url.authentication.or(etcd.authentication);
            settings.etcd = Some(etcd);
        }
        let rest = Rest::new(Client::for_people(&settings.ctl, reach.insecure));
        Ok(Context { settings, manner, rest })
    }

    /// The cluster that was named, else the configured one.
    pub(crate) fn scope(&self, named: Option<&str>) -> Result<String, Failure> {
        let scope = named.map(str::to_owned).or_else(|| self.settings.scope.clone());
        scope.filter(|scope| !scope.is_empty()).ok_or_else(|| {
            Failure::new(
                Code::Usage,
                "which cluster? Name it after the command, or give a configuration with a scope by --config-file",
            )
        })
    }

    /// The way to the etcd of this cluster; nothing is connected yet.
    pub(crate) fn etcd(&self, scope: &str) -> Result<Etcd, Failure> {
        let found = self.settings.etcd.as_ref().ok_or_else(|| {
            Failure::new(
                Code::Configuration,
                "where is etcd? Give --dcs-url etcd3://HOST:PORT/NAMESPACE, or a configuration with an etcd3: section by --config-file",
            )
        })?;
        let config = etcd_config(found);
        Ok(Etcd::new(config, Keys::new(&self.settings.namespace, scope))?)
    }

    /// Reads a cluster from etcd.
    pub(crate) async fn read(&self, scope: &str) -> Result<(Snapshot, Cluster), Failure> {
        let snapshot = self.etcd(scope)?.snapshot(deadline()).await?;
        let mut cluster = snapshot::cluster(scope, &snapshot);
        if self.manner == Manner::Patronictl {
            cluster.forget_own();
        }
        Ok((snapshot, cluster))
    }

    /// Reads a cluster from etcd and asks its members whether they are there; patronictl believes what is written.
    pub(crate) async fn look(&self, scope: &str) -> Result<(Snapshot, Cluster), Failure> {
        let (snapshot, mut cluster) = self.read(scope).await?;
        if self.manner == Manner::Patronictl {
            return Ok((snapshot, cluster));
        }
        let heard = self.rest.probe(&cluster).await;
        cluster.hear(&heard);
        Ok((snapshot, cluster))
    }
}

/// By when an answer of etcd is wanted.
pub(crate) fn deadline() -> Moment {
    clock::now().after(PATIENCE)
}

/// The settings of etcd as its crate takes them.
pub(crate) fn etcd_config(found: &settings::Etcd) -> etcd::Config {
    let tls = etcd::Tls { ca: found.cacert.clone(), cert: found.cert.clone(), key: found.key.clone() };
    let wanted = tls.ca.is_some() || tls.cert.is_some() || tls.key.is_some();
    etcd::Config {
        endpoints: found.endpoints.clone(),
        attempt: ATTEMPT,
        tls: wanted.then_some(tls),
        auth: found.authentication.as_ref().map(|login| etcd::Credentials {
            user: login.username.clone(),
            password: login.password.reveal().to_owned(),
        }),
    }
}

/// The file that was named; the default one only if it exists.
fn config_file(reach: &Reach) -> Result<Option<PathBuf>, Failure> {
    if let Some(named) = &reach.config_file {
        if std::fs::metadata(named).is_err() {
            let named = named.display();
            return Err(Failure::new(
                Code::Configuration,
                format!(
                    "Provided config file {named} not existing or no read rights. Check the -c/--config-file parameter"
                ),
            ));
        }
        return Ok(reach.config_file.clone());
    }
    let named = std::env::var_os("BATON_CONFIG").map(PathBuf::from);
    Ok(named.or_else(|| {
        let home = std::env::var_os("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".config")))?;
        Some(home.join("patroni/patronictl.yaml")).filter(|path| path.exists())
    }))
}
