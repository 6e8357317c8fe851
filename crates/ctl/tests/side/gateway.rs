//! Keys of any text in etcd, through its JSON gateway: what no typed client would write can be put as well.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

/// An etcd.
pub(crate) struct Gateway {
    address: String,
}

impl Gateway {
    pub(crate) fn new(endpoint: &str) -> Gateway {
        Gateway { address: endpoint.trim_start_matches("http://").to_owned() }
    }

    pub(crate) fn put(&self, key: &str, value: &str, lease: &str) {
        self.call("kv/put", &json!({"key": encode(key), "value": encode(value), "lease": lease}));
    }

    pub(crate) fn delete(&self, prefix: &str) {
        self.call("kv/deleterange", &json!({"key": encode(prefix), "range_end": encode(&after(prefix))}));
    }

    pub(crate) fn lease(&self) -> String {
        self.call("lease/grant", &json!({"TTL": 6000}))["ID"].as_str().unwrap().to_owned()
    }

    pub(crate) fn all(&self, prefix: &str) -> BTreeMap<String, String> {
        let found =
            self.call("kv/range", &json!({"key": encode(prefix), "range_end": encode(&after(prefix))}));
        let text = |kv: &Value, name: &str| decode(kv[name].as_str().unwrap_or_default());
        let kvs = found["kvs"].as_array().cloned().unwrap_or_default();
        kvs.iter().map(|kv| (text(kv, "key"), text(kv, "value"))).collect()
    }

    fn call(&self, path: &str, body: &Value) -> Value {
        let body = body.to_string();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "POST /v3/{path} HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(" 200 "), "etcd answers {path} with {answer}");
        serde_json::from_str(body).unwrap()
    }
}

/// The first key behind all that begin with `prefix`, which ends in a slash.
fn after(prefix: &str) -> String {
    format!("{}0", prefix.trim_end_matches('/'))
}

const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn encode(text: &str) -> String {
    let digits = text.as_bytes().chunks(3).flat_map(|chunk| {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or_default());
        let word = at(0) << 16 | at(1) << 8 | at(2);
        let digit = move |digit: usize| char::from(DIGITS[(word >> (18 - 6 * digit) & 63) as usize]);
        let known = chunk.len();
        (0..4).map(move |at| if at <= known { digit(at) } else { '=' })
    });
    digits.collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(4) {
        let value = |byte: &u8| DIGITS.iter().position(|digit| digit == byte).unwrap_or_default() as u32;
        let word = chunk.iter().fold(0, |word, byte| word << 6 | value(byte));
        let known = chunk.iter().filter(|byte| **byte != b'=').count() - 1;
        bytes.extend(word.to_be_bytes().into_iter().skip(1).take(known));
    }
    String::from_utf8(bytes).unwrap()
}
