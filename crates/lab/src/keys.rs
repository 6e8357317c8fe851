//! Reads and writes the cluster's keys through etcd's JSON gateway.
//!
//! On purpose not with Baton's own etcd client: what the stories see must not pass through the code they judge.

use crate::rest;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::time::Duration;

/// One member of etcd is asked for at most this long before the next one is.
const ATTEMPT: Duration = Duration::from_secs(1);

/// Where the gateway is: the client addresses of all etcd members.
#[derive(Clone, Debug)]
pub struct Gateway {
    endpoints: Vec<SocketAddrV4>,
    prefix: String,
}

/// One key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub value: String,
    pub create_revision: i64,
    pub lease: i64,
}

impl Gateway {
    /// The keys below `/<namespace>/<scope>/`.
    #[must_use]
    pub fn new(endpoints: Vec<SocketAddrV4>, namespace: &str, scope: &str) -> Gateway {
        Gateway { endpoints, prefix: format!("/{namespace}/{scope}/") }
    }

    /// All keys of the cluster, without their prefix. A linearizable read.
    pub async fn read(&self) -> Result<BTreeMap<String, Entry>> {
        let mut end = self.prefix.clone().into_bytes();
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        let answer = self
            .call(
                "/v3/kv/range",
                &json!({ "key": encode(self.prefix.as_bytes()), "range_end": encode(&end) }),
            )
            .await?;
        let rows = answer.get("kvs").and_then(Value::as_array).cloned().unwrap_or_default();
        let mut entries = BTreeMap::new();
        for row in rows {
            let text = |field: &str| row.get(field).and_then(Value::as_str).unwrap_or_default();
            let key = String::from_utf8(decode(text("key"))?).context("read a key of etcd")?;
            let value = String::from_utf8_lossy(&decode(text("value"))?).into_owned();
            let number = |field: &str| text(field).parse().unwrap_or_default();
            let name = key.strip_prefix(&self.prefix).unwrap_or(&key).to_owned();
            let create_revision = number("create_revision");
            entries.insert(name, Entry { value, create_revision, lease: number("lease") });
        }
        Ok(entries)
    }

    /// Writes one key, without any condition.
    pub async fn put(&self, name: &str, value: &str) -> Result<()> {
        let key = format!("{}{name}", self.prefix);
        let body = json!({ "key": encode(key.as_bytes()), "value": encode(value.as_bytes()) });
        self.call("/v3/kv/put", &body).await.map(drop)
    }

    /// A new lease.
    pub async fn grant(&self, seconds: u32) -> Result<i64> {
        let answer = self.call("/v3/lease/grant", &json!({ "TTL": seconds })).await?;
        let id = answer.get("ID").and_then(Value::as_str).and_then(|text| text.parse().ok());
        id.ok_or_else(|| anyhow!("etcd granted no lease: {answer}"))
    }

    /// Renews a lease once.
    pub async fn keep_alive(&self, lease: i64) -> Result<()> {
        self.call("/v3/lease/keepalive", &json!({ "ID": lease.to_string() })).await.map(drop)
    }

    /// Writes one key that ends with a lease.
    pub async fn put_leased(&self, name: &str, value: &str, lease: i64) -> Result<()> {
        let key = format!("{}{name}", self.prefix);
        let body = json!({
            "key": encode(key.as_bytes()),
            "value": encode(value.as_bytes()),
            "lease": lease.to_string(),
        });
        self.call("/v3/kv/put", &body).await.map(drop)
    }

    /// The seconds that a lease still lives; negative when it has ended.
    pub async fn remaining(&self, lease: i64) -> Result<i64> {
        let answer = self.call("/v3/lease/timetolive", &json!({ "ID": lease.to_string() })).await?;
        let rest = answer.get("TTL").map_or(Some(0), |rest| rest.as_str()?.parse().ok());
        rest.ok_or_else(|| anyhow!("etcd knows no lease {lease}: {answer}"))
    }

    /// The time to live that a lease was granted, in seconds.
    pub async fn granted(&self, lease: i64) -> Result<i64> {
        let answer = self.call("/v3/lease/timetolive", &json!({ "ID": lease.to_string() })).await?;
        let granted = answer.get("grantedTTL").and_then(Value::as_str).and_then(|text| text.parse().ok());
        granted.ok_or_else(|| anyhow!("etcd knows no lease {lease}: {answer}"))
    }

    /// Removes one key.
    pub async fn delete(&self, name: &str) -> Result<()> {
        let key = format!("{}{name}", self.prefix);
        self.call("/v3/kv/deleterange", &json!({ "key": encode(key.as_bytes()) })).await.map(drop)
    }

    /// The name of the etcd member that leads, as the first member knows that knows of one.
    pub async fn etcd_leader(&self) -> Result<String> {
        let mut why = anyhow!("there is no etcd");
        for endpoint in &self.endpoints {
            let one = Gateway { endpoints: vec![*endpoint], prefix: String::new() };
            match one.leader_it_knows().await {
                Ok(name) => return Ok(name),
                Err(error) => why = error,
            }
        }
        Err(why)
    }

    async fn leader_it_knows(&self) -> Result<String> {
        let status = self.call("/v3/maintenance/status", &json!({})).await?;
        let leader = status.get("leader").cloned().unwrap_or_default();
        let members = self.call("/v3/cluster/member/list", &json!({})).await?;
        let rows = members.get("members").and_then(Value::as_array).cloned().unwrap_or_default();
        let found = rows.iter().find(|member| member.get("ID") == Some(&leader));
        let name = found.and_then(|member| member.get("name")).and_then(Value::as_str);
        name.map(str::to_owned).ok_or_else(|| anyhow!("etcd names no leader: {status}"))
    }

    async fn call(&self, path: &str, body: &Value) -> Result<Value> {
        let mut why = anyhow!("there is no etcd");
        for endpoint in &self.endpoints {
            match rest::send(*endpoint, "POST", path, body, ATTEMPT).await {
                Ok(answer) if answer.status == 200 => return answer.json(),
                Ok(answer) => why = anyhow!("etcd at {endpoint} answered {}: {}", answer.status, answer.body),
                Err(error) => why = error,
            }
        }
        bail!("{why:#}")
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding.
#[must_use]
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            if place > chunk.len() {
                text.push('=');
            } else {
                let letter = ALPHABET.get((bits >> (18 - 6 * place) & 63) as usize).copied().unwrap_or(b'=');
                text.push(char::from(letter));
            }
        }
    }
    text
}

fn decode(text: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0_u32);
    for letter in text.bytes().filter(|letter| *letter != b'=') {
        let value = ALPHABET.iter().position(|known| *known == letter);
        let value = value.ok_or_else(|| anyhow!("read base64: {letter:#x} is none of its letters"))?;
        bits = bits << 6 | u32::try_from(value).unwrap_or_default();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};

    #[test]
    fn base64_goes_both_ways() {
        for (plain, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")]
        {
            assert_eq!(encode(plain.as_bytes()), text);
            assert_eq!(decode(text).unwrap(), plain.as_bytes());
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)).unwrap(), all);
        assert!(decode("a\n").is_err());
    }
}
