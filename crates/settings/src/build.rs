//! Checked values → the structs that the other crates use.

use crate::address;
use crate::bgp;
use crate::dns;
use crate::etcd::{self, Etcd};
use crate::log_format::LogFormat;
use crate::methods::BootstrapMethod;
use crate::node::{Content, Node, Scalar};
use crate::postgresql;
use crate::problem::{Findings, Place};
use crate::router;
use crate::secret::Credentials;
use crate::settings::{
    Bootstrap, Ctl, CtlSettings, DnsSettings, Log, RestApi, RouterSettings, ServerTokens, Settings,
    VerifyClient, VipSettings, Watchdog, WatchdogDriver, WatchdogMode,
};
use crate::values::Values;
use crate::vip;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use types::{NodeName, TagValue, Tags};

/// What has been read: the tree, and the values found in it.
pub(crate) struct Raw<'a> {
    pub(crate) root: &'a Node,
    pub(crate) local: &'a Values,
}

/// The settings of an agent; `None` with errors in `findings`.
pub(crate) fn agent(raw: &Raw<'_>, findings: &mut Findings) -> Option<Settings> {
    required(raw, findings);
    let values = raw.local;
    let restapi = restapi(raw, findings);
    let postgresql = postgresql::build(raw, findings);
    let etcd = required_etcd(raw, findings);
    let tags = tags(raw.root, findings);
    let router = raw.root.get("router").map(|_| router::build(raw, findings));
    let vip = vip::build(raw, findings);
    let bgp = bgp::build(raw, findings);
    let dns = dns::build(raw, findings);
    let name = values.text("name")?;
    if name.is_empty() || name.contains('/') {
        findings.error(
            &values.place("name"),
            "name",
            "name must not be empty and not contain a slash: it is part of etcd keys",
        );
    }
    Some(Settings {
        scope: scope(values, findings)?,
        namespace: namespace(values),
        name: NodeName(name),
        restapi: restapi?,
        ctl: ctl_section(values),
        etcd: etcd?,
        bootstrap: bootstrap(raw, findings),
        postgresql: postgresql?,
        tags,
        log: log(raw, findings),
        watchdog: watchdog(values),
        router,
        vip,
        bgp,
        dns,
    })
}

/// The settings of a router by itself.
pub(crate) fn router(raw: &Raw<'_>, findings: &mut Findings) -> Option<RouterSettings> {
    let values = raw.local;
    let etcd = required_etcd(raw, findings);
    let scope = scope(values, findings);
    if scope.is_none() {
        missing("scope", raw, findings);
    }
    let router = router::build(raw, findings);
    Some(RouterSettings {
        scope: scope?,
        namespace: namespace(values),
        etcd: etcd?,
        router,
        log: log(raw, findings),
        ctl: ctl_section(values),
    })
}

/// The settings of a holder of addresses by itself.
pub(crate) fn vip(raw: &Raw<'_>, findings: &mut Findings) -> Option<VipSettings> {
    let values = raw.local;
    let etcd = required_etcd(raw, findings);
    let (scope, name) = (scope(values, findings), values.text("name").filter(|name| !name.is_empty()));
    for (key, there) in [("scope", scope.is_some()), ("name", name.is_some())] {
        if !there {
            missing(key, raw, findings);
        }
    }
    Some(VipSettings {
        scope: scope?,
        namespace: namespace(values),
        name: NodeName(name?),
        etcd: etcd?,
        vip: vip::build(raw, findings),
        bgp: bgp::build(raw, findings),
        api: values.text("vip.api"),
        log: log(raw, findings),
    })
}

/// The settings of a teller of names by itself.
pub(crate) fn dns(raw: &Raw<'_>, findings: &mut Findings) -> Option<DnsSettings> {
    let values = raw.local;
    let etcd = required_etcd(raw, findings);
    let scope = scope(values, findings);
    if scope.is_none() {
        missing("scope", raw, findings);
    }
    let dns = dns::build(raw, findings);
    if dns.is_none() && raw.root.get("dns").is_none() {
        let what = "missing required section \"dns\": add it with a zone, such as `dns: {zone: pg-main.db.example.org}`";
        findings.missing(&raw.root.place, "dns", what);
    }
    Some(DnsSettings {
        scope: scope?,
        namespace: namespace(values),
        etcd: etcd?,
        dns: dns?,
        log: log(raw, findings),
    })
}

/// The settings of the command line.
pub(crate) fn ctl(raw: &Raw<'_>, findings: &mut Findings) -> Option<CtlSettings> {
    let values = raw.local;
    Some(CtlSettings {
        scope: scope(values, findings),
        namespace: namespace(values),
        etcd: etcd::build(values, findings),
        ctl: ctl_section(values),
    })
}

fn required(raw: &Raw<'_>, findings: &mut Findings) {
    for row in raw.local.rows().iter().filter(|row| row.required) {
        // A value that was written but is wrong has its own error.
        if !raw.local.found.contains_key(row.key)
            && !findings.errors.iter().any(|problem| problem.key == row.key)
        {
            missing(row.key, raw, findings);
        }
    }
}

/// Reports a required key at the innermost section that is there.
fn missing(key: &str, raw: &Raw<'_>, findings: &mut Findings) {
    let mut place: &Place = &raw.root.place;
    let mut node = raw.root;
    for name in key.split('.') {
        match node.entry(name) {
            Some((key, value)) => {
                place = &key.place;
                node = value;
            }
            None => break,
        }
    }
    let row = raw.local.row(key);
    let doc = row.map_or("", |row| row.doc);
    let env = row.and_then(|row| row.env.first()).map(|name| format!(" (or set {name})")).unwrap_or_default();
    findings.missing(place, key, format!("missing required key {key:?}: add it{env}. {doc}"));
}

fn required_etcd(raw: &Raw<'_>, findings: &mut Findings) -> Option<Etcd> {
    let before = findings.errors.len();
    let etcd = etcd::build(raw.local, findings);
    if etcd.is_none()
        && findings.errors.len() == before
        && !findings.errors.iter().any(|p| p.key.starts_with("etcd"))
    {
        let what = "missing required section \"etcd3\": add it with hosts, such as `etcd3: {hosts: [\"10.0.0.1:2379\"]}`";
        findings.missing(&raw.root.place, "etcd3", what);
    }
    etcd
}

fn scope(values: &Values, findings: &mut Findings) -> Option<String> {
    let scope = values.text("scope")?;
    if scope.is_empty() || scope.contains('/') {
        let what = "scope must not be empty and not contain a slash: it is part of etcd keys";
        findings.error(&values.place("scope"), "scope", what);
    }
    Some(scope)
}

fn namespace(values: &Values) -> String {
    values.text("namespace").unwrap_or_default().trim_matches('/').to_owned()
}

/// User and password below `section`; a user without a password has none that could be checked.
pub(crate) fn credentials(values: &Values, section: &str) -> Option<Credentials> {
    let username = values.text(&format!("{section}.username"))?;
    let password = values.secret(&format!("{section}.password")).unwrap_or_default();
    Some(Credentials { username, password })
}

fn restapi(raw: &Raw<'_>, findings: &mut Findings) -> Option<RestApi> {
    let values = raw.local;
    let listen = values.text("restapi.listen")?;
    let Some((listen_host, listen_port)) = address::split(&listen, None) else {
        let what = "restapi.listen has no port: write host:port, such as 10.0.0.1:8008";
        findings.error(&values.place("restapi.listen"), "restapi.listen", what);
        return None;
    };
    let connect_address = values.text("restapi.connect_address").unwrap_or_else(|| listen.clone());
    unreachable(&connect_address, "restapi.connect_address", values, findings);
    let verify_client = match values.text("restapi.verify_client").as_deref() {
        Some("optional") => VerifyClient::Optional,
        Some("required") => VerifyClient::Required,
        _ => VerifyClient::None,
    };
    if verify_client != VerifyClient::None && values.path("restapi.certfile").is_none() {
        let what =
            "restapi.verify_client has no effect without restapi.certfile: plain HTTP knows no certificates";
        findings.warn(&values.place("restapi.verify_client"), "restapi.verify_client", what);
    }
    let server_tokens = match values.text("restapi.server_tokens").as_deref() {
        Some("Minimal") => ServerTokens::Minimal,
        Some("ProductOnly") => ServerTokens::ProductOnly,
        _ => ServerTokens::Original,
    };
    Some(RestApi {
        listen_host,
        listen_port,
        listen,
        connect_address,
        authentication: credentials(values, "restapi.authentication"),
        certfile: values.path("restapi.certfile"),
        keyfile: values.path("restapi.keyfile"),
        keyfile_password: values.secret("restapi.keyfile_password"),
        cafile: values.path("restapi.cafile"),
        ciphers: values.text("restapi.ciphers"),
        verify_client,
        allowlist: values.texts("restapi.allowlist").unwrap_or_default(),
        allowlist_include_members: values.flag("restapi.allowlist_include_members"),
        http_extra_headers: values.text_map("restapi.http_extra_headers"),
        https_extra_headers: values.text_map("restapi.https_extra_headers"),
        request_queue_size: values.number("restapi.request_queue_size"),
        server_tokens,
        strict_primary: values.flag("baton.strict_primary"),
    })
}

/// An address for the others that means "every address" leads each of them to itself.
pub(crate) fn unreachable(connect: &str, key: &str, values: &Values, findings: &mut Findings) {
    let host = address::split(connect, None).map(|(host, _)| host).unwrap_or_default();
    if address::is_wildcard(&host) {
        let listen = key.replace("connect_address", "listen");
        let written = if values.found.contains_key(key) { key } else { &listen };
        let what = format!(
            "{written} names no address that the other members could reach: set {key} to one, as host:port"
        );
        findings.error(&values.place(written), key, what);
    }
}

/// What `ctl` leaves out is taken from `restapi`: certificate, key and password as one, the authorities, the credentials.
fn ctl_section(values: &Values) -> Ctl {
    let section = if values.path("ctl.certfile").is_some() { "ctl" } else { "restapi" };
    Ctl {
        insecure: values.flag("ctl.insecure"),
        cacert: values.path("ctl.cacert").or_else(|| values.path("restapi.cafile")),
        certfile: values.path(&format!("{section}.certfile")),
        keyfile: values.path(&format!("{section}.keyfile")),
        keyfile_password: values.secret(&format!("{section}.keyfile_password")),
        authentication: credentials(values, "ctl.authentication")
            .or_else(|| credentials(values, "restapi.authentication")),
    }
}

fn bootstrap(raw: &Raw<'_>, findings: &mut Findings) -> Bootstrap {
    let values = raw.local;
    let method = values.text("bootstrap.method").unwrap_or_default();
    let dcs = raw.root.get("bootstrap").and_then(|section| section.get("dcs")).map(Node::to_json);
    Bootstrap {
        present: raw.root.get("bootstrap").is_some_and(|section| !section.is_null()),
        dcs: dcs.filter(Value::is_object).unwrap_or_else(|| Value::Object(Map::new())),
        initdb: values.pairs("bootstrap.initdb"),
        pg_hba: values.texts("bootstrap.pg_hba").unwrap_or_default(),
        post_bootstrap: values.text("bootstrap.post_bootstrap"),
        custom: (method != "initdb").then(|| custom(raw, &method, findings)).flatten(),
        method,
    }
}

/// The section of a method that is not initdb; one that cannot run is an error.
fn custom(raw: &Raw<'_>, name: &str, findings: &mut Findings) -> Option<BootstrapMethod> {
    let key = format!("bootstrap.{name}");
    match raw.root.get("bootstrap").and_then(|section| section.entry(name)) {
        Some((written, node)) => match BootstrapMethod::read(name, &node.to_json()) {
            Ok(method) => return Some(method),
            Err(why) => findings.error(&written.place, &key, format!("{key} {why}")),
        },
        None => {
            let what =
                format!("bootstrap.method is {name}, but there is no section {key}: add it with a command");
            findings.error(&raw.local.place("bootstrap.method"), "bootstrap.method", what);
        }
    }
    None
}

/// Tags keep the types they were written with, because they are published so.
fn tags(root: &Node, findings: &mut Findings) -> Tags {
    let mut tags = BTreeMap::new();
    let Some(Node { content: Content::Map(entries), .. }) = root.get("tags") else { return Tags(tags) };
    for (key, node) in entries {
        let value = match node.scalar() {
            Some(Scalar::Bool(value)) => TagValue::Bool(value),
            Some(Scalar::Int(value)) => TagValue::Int(value),
            Some(Scalar::Text(text)) => TagValue::Text(text.to_owned()),
            Some(Scalar::Float(value)) => TagValue::Text(value.to_string()),
            Some(Scalar::Null) | None => continue,
        };
        builtin_tag(&key.text, &value, node, findings);
        tags.insert(key.text.clone(), value);
    }
    let tags = Tags(tags);
    conflict(&tags, "nofailover", "failover_priority", root, findings);
    conflict(&tags, "nosync", "sync_priority", root, findings);
    tags
}

fn builtin_tag(name: &str, value: &TagValue, node: &Node, findings: &mut Findings) {
    let key = format!("tags.{name}");
    let (fits, expects) = match name {
        "nofailover" | "nosync" | "noloadbalance" | "clonefrom" | "nostream" => {
            (value.as_bool().is_some(), "true or false")
        }
        "failover_priority" | "sync_priority" => (value.as_int().is_some(), "a whole number"),
        "replicatefrom" => (matches!(value, TagValue::Text(_)), "the name of a member"),
        _ => (true, ""),
    };
    if !fits {
        findings.error(&node.place, &key, format!("{key} should be {expects}"));
    }
}

/// The pair of an old tag and its priority may contradict itself; the old tag wins.
fn conflict(tags: &Tags, flag: &str, priority: &str, root: &Node, findings: &mut Findings) {
    let said = tags.0.get(flag).and_then(TagValue::as_bool);
    let number = tags.0.get(priority).and_then(TagValue::as_int);
    if let (Some(said), Some(number)) = (said, number)
        && said != (number <= 0)
    {
        let place = root
            .get("tags")
            .and_then(|tags| tags.entry(flag))
            .map_or(Place::Default, |(key, _)| key.place.clone());
        let python = if said { "True" } else { "False" };
        let what = format!(
            "Conflicting configuration between {flag}: {python} and {priority}: {number}. Defaulting to {flag}: {python}"
        );
        findings.warn(&place, &format!("tags.{flag}"), what);
    }
}

fn log(raw: &Raw<'_>, findings: &mut Findings) -> Log {
    let values = raw.local;
    let json = values.text("log.type").as_deref() == Some("json");
    if !json && matches!(values.json("log.format"), Some(Value::Array(_))) {
        let what =
            "log.format is a list, which only log.type json takes: write it as a text, or set log.type";
        findings.error(&values.place("log.format"), "log.format", what);
    }
    Log {
        level: values.text("log.level").unwrap_or_default(),
        traceback_level: values.text("log.traceback_level").unwrap_or_default(),
        json,
        format: match values.json("log.format").as_ref().and_then(LogFormat::read) {
            Some(format) => format,
            None => LogFormat::standard(),
        },
        dateformat: values.text("log.dateformat"),
        static_fields: match raw.root.get("log").and_then(|log| log.get("static_fields")).map(Node::to_json) {
            Some(Value::Object(fields)) => fields,
            Some(_) | None => Map::new(),
        },
        max_queue_size: values.number("log.max_queue_size"),
        dir: values.path("log.dir"),
        mode: values.int("log.mode").and_then(|mode| u32::try_from(mode).ok()),
        file_num: values.number("log.file_num"),
        file_size: values.number("log.file_size"),
        loggers: values.text_map("log.loggers"),
        deduplicate_heartbeat_logs: values.flag("log.deduplicate_heartbeat_logs"),
    }
}

fn watchdog(values: &Values) -> Watchdog {
    let mode = match values.text("watchdog.mode").as_deref() {
        Some("off") => WatchdogMode::Off,
        Some("required") => WatchdogMode::Required,
        _ => WatchdogMode::Automatic,
    };
    Watchdog {
        mode,
        device: values.path("watchdog.device").unwrap_or_default(),
        driver: match values.text("watchdog.driver").as_deref() {
            Some("testing") => WatchdogDriver::Testing,
            _ => WatchdogDriver::Default,
        },
        safety_margin: values.int("watchdog.safety_margin").unwrap_or_default(),
    }
}
