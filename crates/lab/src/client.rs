//! Clients: where they connect, and a paced workload that knows afterwards what it was promised.

mod report;
mod workload;

pub use report::{Failure, FailureKind, WorkReport};
pub use workload::{Plan, Workload};

use crate::netns;
use anyhow::{Context, Result, anyhow};
use std::net::SocketAddrV4;
use std::time::Duration;
use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls};

/// A PostgreSQL (or a router before one) and how to log in.
#[derive(Clone)]
pub struct Target {
    /// An address, or the directory of a socket.
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: String,
    pub database: String,
}

impl Target {
    /// Connects within `span`, log-in included. The connection ends when the client is dropped.
    pub async fn connect(&self, span: Duration) -> Result<Client> {
        let mut config = Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .user(&self.user)
            .password(&self.password)
            .dbname(&self.database)
            .application_name("lab");
        let connected = timeout(span, self.open(&config)).await;
        let connected =
            connected.map_err(|_| anyhow!("connect to {}:{}: not within {span:?}", self.host, self.port))?;
        connected.with_context(|| format!("connect to {}:{}", self.host, self.port))
    }

    /// The connection itself ends when the client is dropped; its errors come out of the client's calls as well.
    async fn open(&self, config: &Config) -> Result<Client> {
        let far = self.host.parse().ok().filter(|v4| netns::place_of(*v4).is_some());
        let Some(v4) = far else {
            let (client, connection) = config.connect(NoTls).await?;
            tokio::spawn(async move { connection.await.unwrap_or_default() });
            return Ok(client);
        };
        let stream = netns::connect(SocketAddrV4::new(v4, self.port)).await?;
        // A row must not wait for the next one.
        stream.set_nodelay(true)?;
        let (client, connection) = config.connect_raw(stream, NoTls).await?;
        tokio::spawn(async move { connection.await.unwrap_or_default() });
        Ok(client)
    }

    /// Runs statements without results.
    pub async fn run(&self, sql: &str, span: Duration) -> Result<()> {
        let client = self.connect(span).await?;
        let done = timeout(span, client.batch_execute(sql)).await;
        done.map_err(|_| anyhow!("run {sql}: no answer within {span:?}"))?
            .with_context(|| format!("run {sql}"))
    }

    /// The first column of the first row, as text.
    pub async fn ask(&self, sql: &str, span: Duration) -> Result<String> {
        let client = self.connect(span).await?;
        let rows = timeout(span, client.simple_query(sql)).await;
        let rows = rows.map_err(|_| anyhow!("run {sql}: no answer within {span:?}"))?;
        let rows = rows.with_context(|| format!("run {sql}"))?;
        let row = rows.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap_or_default().to_owned()),
            _ => None,
        });
        row.ok_or_else(|| anyhow!("run {sql}: no row came back"))
    }

    /// Whether a write is acknowledged.
    pub async fn can_write(&self, span: Duration) -> Result<()> {
        self.run("CREATE TABLE IF NOT EXISTS lab_writable (at timestamptz); INSERT INTO lab_writable VALUES (now())", span)
            .await
    }

    /// A line for `psql`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgresql://{}:{}@{}:{}/{}", self.user, self.password, self.host, self.port, self.database)
    }
}
