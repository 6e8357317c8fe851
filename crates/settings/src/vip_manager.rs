//! vip-manager's file, options and variables, read as they are and said in our own words.
//!
//! ```text
//!   --ip … over VIP_IP … over the file ──► one value for each key ──► a tree with scope, name, etcd3, vip, which is checked as ours is
//! ```
//! What would have an effect that we do not have is refused; what has none any more is warned of.

use crate::env::Env;
use crate::node::{Content, Node};
use crate::problem::{Findings, Place};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Its keys, and whether they still mean something.
const KEYS: &[(&str, Option<&str>)] = &[
    ("ip", None),
    ("netmask", None),
    ("interface", None),
    ("trigger-key", None),
    ("trigger-value", None),
    ("manager-type", None),
    ("hosting-type", None),
    ("dcs-type", None),
    ("dcs-endpoints", None),
    ("etcd-user", None),
    ("etcd-password", None),
    ("etcd-ca-file", None),
    ("etcd-cert-file", None),
    ("etcd-key-file", None),
    ("verbose", None),
    ("consul-token", Some("consul is not used")),
    ("interval", Some("etcd tells of changes by itself")),
    ("retry-after", Some("the address is tried again as long as the right to it lasts")),
    ("retry-num", Some("the address is tried again as long as the right to it lasts")),
];

/// Each key with its value; what is wrong with them is told at `place`.
struct Reader<'a> {
    values: BTreeMap<&'static str, String>,
    place: &'a Place,
}

/// The tree; with errors in `findings` it means nothing.
pub(crate) fn translate(
    file: Option<&Node>,
    over: &[String],
    env: &dyn Env,
    place: &Place,
    findings: &mut Findings,
) -> Node {
    let mut reader = Reader { values: BTreeMap::new(), place };
    reader.collect(file, over, env, findings);
    let tree = reader.tree(findings);
    Node::from_json(&tree, place)
}

impl Reader<'_> {
    fn collect(&mut self, file: Option<&Node>, over: &[String], env: &dyn Env, findings: &mut Findings) {
        if let Some(Node { content: Content::Map(entries), .. }) = file {
            for (key, node) in entries {
                match KEYS.iter().find(|(known, _)| *known == key.text) {
                    Some((known, _)) => self.put(known, text(node)),
                    None => {
                        let what = format!("{:?} is no key of vip-manager: correct or remove it", key.text);
                        findings.warn(&key.place, &key.text, what);
                    }
                }
            }
        }
        for (key, _) in KEYS {
            let variable = format!("VIP_{}", key.replace('-', "_").to_uppercase());
            self.put(key, env.get(&variable));
        }
        for setting in over {
            let known = setting.split_once('=').and_then(|(key, value)| {
                KEYS.iter().find(|(known, _)| *known == key).map(|(known, _)| (*known, value))
            });
            match known {
                Some((key, value)) => self.put(key, Some(value.to_owned())),
                None => {
                    let key = setting.split('=').next().unwrap_or_default();
                    findings.error(self.place, key, format!("vip-manager has no option --{key}: remove it"));
                }
            }
        }
        for (key, why) in KEYS {
            if let (Some(why), true) = (why, self.values.contains_key(key)) {
                findings.warn(self.place, key, format!("{key} has no effect: {why}"));
            }
        }
    }

    fn put(&mut self, key: &'static str, value: Option<String>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.values.insert(key, value);
        }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    fn needed(&self, key: &str, findings: &mut Findings) -> String {
        let variable = format!("VIP_{}", key.replace('-', "_").to_uppercase());
        if self.get(key).is_none() {
            let what = format!("missing required key {key:?}: add it (or set {variable})");
            findings.error(self.place, key, what);
        }
        self.get(key).unwrap_or_default().to_owned()
    }

    fn tree(&self, findings: &mut Findings) -> Value {
        self.refuse(findings);
        let (namespace, scope) = self.cluster(findings);
        let ip = self.needed("ip", findings);
        let address = format!("{ip}/{}", self.prefix_len(&ip, findings));
        let interface = self.needed("interface", findings);
        let mut etcd = json!({ "hosts": self.endpoints() });
        for (theirs, ours) in [
            ("etcd-user", "username"),
            ("etcd-password", "password"),
            ("etcd-ca-file", "cacert"),
            ("etcd-cert-file", "cert"),
            ("etcd-key-file", "key"),
        ] {
            if let Some(value) = self.get(theirs) {
                etcd[ours] = Value::from(value);
            }
        }
        let name = self.get("trigger-value").map_or_else(hostname, str::to_owned);
        let level = if self.get("verbose") == Some("true") { "DEBUG" } else { "INFO" };
        json!({
            "scope": scope,
            "namespace": namespace,
            "name": name,
            "etcd3": etcd,
            // What it puts on an interface it puts there unasked.
            "vip": { "addresses": [{ "address": address, "interface": interface, "routed": true }] },
            "log": { "level": level },
        })
    }

    fn refuse(&self, findings: &mut Findings) {
        let dcs = self.get("dcs-type").unwrap_or("etcd");
        if !matches!(dcs, "etcd" | "etcd3") {
            let what = format!(
                "dcs-type {dcs} cannot be used: an address is held on the leader's lease in etcd; set dcs-type etcd3 and trigger-key to the leader key"
            );
            findings.error(self.place, "dcs-type", what);
        }
        for key in ["manager-type", "hosting-type"] {
            if let Some(kind) = self.get(key).filter(|kind| *kind != "basic") {
                let what = format!(
                    "{key} {kind} cannot be used: write an own configuration with a command that moves the address (docs/vip.md)"
                );
                findings.error(self.place, key, what);
            }
        }
    }

    /// Namespace and scope, from the leader key.
    fn cluster(&self, findings: &mut Findings) -> (String, String) {
        let key = self.needed("trigger-key", findings);
        let parts: Vec<&str> = key.split('/').filter(|part| !part.is_empty()).collect();
        match parts.as_slice() {
            [namespace @ .., scope, "leader"] => (namespace.join("/"), (*scope).to_owned()),
            _ => {
                if !key.is_empty() {
                    let what = format!("{key:?} is no leader key: write it like /service/pg-main/leader");
                    findings.error(self.place, "trigger-key", what);
                }
                (String::new(), String::new())
            }
        }
    }

    /// Without one, the class of the address tells, as vip-manager has it.
    fn prefix_len(&self, ip: &str, findings: &mut Findings) -> i64 {
        let written = self.needed("netmask", findings);
        match (written.parse::<i64>(), ip.parse::<std::net::IpAddr>()) {
            (Ok(length), _) if length > 0 => length,
            (Ok(_), Ok(std::net::IpAddr::V4(ip))) => match ip.octets()[0] {
                0..=127 => 8,
                128..=191 => 16,
                192..=223 => 24,
                224..=255 => 32,
            },
            (Ok(_), _) => 128,
            (Err(_), _) => {
                if !written.is_empty() {
                    let what = format!("{written:?} is no length of a prefix: write a number such as 24");
                    findings.error(self.place, "netmask", what);
                }
                32
            }
        }
    }

    fn endpoints(&self) -> Vec<String> {
        let written = self.get("dcs-endpoints").unwrap_or("http://127.0.0.1:2379");
        written.split(',').map(|one| one.trim().to_owned()).filter(|one| !one.is_empty()).collect()
    }
}

/// A scalar, or a list of them with commas between.
fn text(node: &Node) -> Option<String> {
    match &node.content {
        Content::List(items) => Some(items.iter().filter_map(Node::raw).collect::<Vec<_>>().join(",")),
        _ => node.raw().filter(|_| !node.is_null()).map(str::to_owned),
    }
}

fn hostname() -> String {
    let read = std::fs::read_to_string("/proc/sys/kernel/hostname");
    read.map(|name| name.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use crate::env::Env;
    use crate::load::load_vip_manager;
    use std::collections::BTreeMap;
    use std::io::Write;

    /// As Pigsty writes it.
    const PIGSTY: &str = "\
# vip-manager
interval: 1000
trigger-key: \"/pg/pg-meta/leader\"
trigger-value: \"pg-meta-1\"
ip: 10.10.10.2
netmask: 24
interface: eth1
hosting-type: basic
dcs-type: etcd
dcs-endpoints:
  - https://10.10.10.10:2379
  - https://10.10.10.11:2379
etcd-user: pg-meta
etcd-password: secret
etcd-ca-file: /etc/pki/ca.crt
retry-num: 2
retry-after: 250
verbose: false
";

    struct Given(BTreeMap<&'static str, &'static str>);

    impl Env for Given {
        fn get(&self, name: &str) -> Option<String> {
            self.0.get(name).map(|value| (*value).to_owned())
        }

        fn names(&self) -> Vec<String> {
            self.0.keys().map(|name| (*name).to_owned()).collect()
        }
    }

    fn load(
        text: &str,
        env: &[(&'static str, &'static str)],
        over: &[&str],
    ) -> Result<(String, usize), String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        let over: Vec<String> = over.iter().map(|word| (*word).to_owned()).collect();
        let env = Given(env.iter().copied().collect());
        let loaded = load_vip_manager(Some(file.path()), &over, &env);
        let (settings, warnings) = loaded.map_err(|problems| problems.to_string())?;
        let address = &settings.vip[0];
        let text = format!(
            "{}/{} {} {}/{} on {} as {}",
            settings.namespace,
            settings.scope,
            settings.name,
            address.ip,
            address.prefix_len.unwrap(),
            address.interface.clone().unwrap(),
            address.role
        );
        assert!(!settings.etcd.endpoints.is_empty());
        Ok((text, warnings.len()))
    }

    #[test]
    fn pigsty_s_file_works_unchanged() {
        let (text, warnings) = load(PIGSTY, &[], &[]).unwrap();
        assert_eq!(text, "pg/pg-meta pg-meta-1 10.10.10.2/24 on eth1 as primary");
        assert_eq!(warnings, 3, "interval and retries have no effect");
    }

    #[test]
    fn options_go_over_variables_and_variables_over_the_file() {
        let env = [("VIP_IP", "10.10.10.3"), ("VIP_NETMASK", "32"), ("VIP_TRIGGER_VALUE", "n2")];
        let (text, _) = load(PIGSTY, &env, &["ip=10.10.10.4"]).unwrap();
        assert_eq!(text, "pg/pg-meta n2 10.10.10.4/32 on eth1 as primary");
        let (text, _) = load(PIGSTY, &[("VIP_NETMASK", "-1")], &[]).unwrap();
        assert_eq!(text, "pg/pg-meta pg-meta-1 10.10.10.2/8 on eth1 as primary");
    }

    #[test]
    fn what_we_do_not_do_is_refused_with_what_to_do() {
        for (key, text, says) in [
            ("dcs-type: etcd", "dcs-type: consul", "set dcs-type etcd3"),
            ("hosting-type: basic", "manager-type: hetzner", "a command that moves the address"),
            ("trigger-key: \"/pg/pg-meta/leader\"", "trigger-key: /pg/x/master", "is no leader key"),
            ("interface: eth1", "", "missing required key \"interface\""),
            ("ip: 10.10.10.2", "ip: somewhere", "is no address"),
            ("netmask: 24", "netmask: wide", "is no length of a prefix"),
        ] {
            let why = load(&PIGSTY.replace(key, text), &[], &[]).unwrap_err();
            assert!(why.contains(says), "{why}");
            assert!(!why.contains("secret"), "{why}");
        }
        assert!(load(PIGSTY, &[], &["nonsense=1"]).unwrap_err().contains("no option --nonsense"));
    }
}
