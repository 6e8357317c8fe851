//! Whom a standby gets its WAL from, with everything that is needed to reach it.

use crate::configure::{self, Upstream};
use etcd::Snapshot;
use postgres::connection::{ConnectTo, Connection, Mode};
use settings::{Dynamic, Login, StandbyCluster};
use std::time::Duration;

/// The sender, by name and address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Sender {
    Member(Upstream),
    Remote(StandbyCluster),
    Archive,
}

impl Sender {
    /// What is known of it now; `None` when its member key holds no address, or there is no remote cluster any more.
    pub(crate) fn find(
        upstream: &ha::Upstream,
        snapshot: Option<&Snapshot>,
        dynamic: &Dynamic,
    ) -> Option<Sender> {
        match upstream {
            ha::Upstream::Member(name) => {
                let member = snapshot?.members.get(name)?;
                Upstream::of(name, member.conn_url.as_deref()?).map(Sender::Member)
            }
            ha::Upstream::Remote => dynamic.standby_cluster.clone().map(Sender::Remote),
            ha::Upstream::Archive => Some(Sender::Archive),
        }
    }

    /// In the words of the decisions.
    pub(crate) fn word(&self) -> ha::Upstream {
        match self {
            Sender::Member(member) => ha::Upstream::Member(member.name.clone()),
            Sender::Remote(_) => ha::Upstream::Remote,
            Sender::Archive => ha::Upstream::Archive,
        }
    }

    /// Host and port of each PostgreSQL that it may be.
    pub(crate) fn addresses(&self) -> Vec<(String, u16)> {
        match self {
            Sender::Member(member) => vec![(member.host.clone(), member.port)],
            Sender::Remote(remote) => hosts(remote),
            Sender::Archive => Vec::new(),
        }
    }

    /// How each of them is reached with this login.
    pub(crate) fn connections(&self, login: &Login, dbname: &str, application: &str) -> Vec<ConnectTo> {
        let connect =
            |(host, port): &(String, u16)| configure::connect_to(login, host, *port, dbname, application);
        self.addresses().iter().map(connect).collect()
    }
}

/// `a,b` with a port: one for all. A port alone means this host.
fn hosts(remote: &StandbyCluster) -> Vec<(String, u16)> {
    let named = match (&remote.host, remote.port) {
        (Some(hosts), _) => hosts.as_str(),
        (None, Some(_)) => "localhost",
        (None, None) => return Vec::new(),
    };
    let names = named.split(',').map(str::trim).filter(|name| !name.is_empty());
    let plain = |name: &str| name.trim_start_matches('[').trim_end_matches(']').to_owned();
    names.map(|name| (plain(name), remote.port.unwrap_or(5432))).collect()
}

/// The one among these that a copy is taken from: the one that accepts writes, or the only one there is.
pub(crate) async fn pick(connections: Vec<ConnectTo>, within: Duration) -> anyhow::Result<ConnectTo> {
    let mut last = None;
    if let [only] = connections.as_slice() {
        return Ok(only.clone());
    }
    for connect in connections {
        match accepts_writes(&connect, within).await {
            Ok(true) => return Ok(connect),
            Ok(false) => last = Some(format!("{} is a standby itself", connect.place())),
            Err(error) => last = Some(error.to_string()),
        }
    }
    let why = last.unwrap_or_else(|| "no host is named".to_owned());
    anyhow::bail!("find a primary to copy from: {why}")
}

async fn accepts_writes(
    connect: &ConnectTo,
    within: Duration,
) -> Result<bool, postgres::connection::SqlError> {
    // A replication connection: pg_hba.conf lets this login in for nothing else.
    let mut connection = Connection::open(connect, Mode::Replication, &[], within).await?;
    let rows = connection.query("SHOW transaction_read_only", within).await?;
    Ok(rows.single() == Some("off"))
}
