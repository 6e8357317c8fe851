//! Files and environment → settings.
//!
//! file or directory → tree → the environment laid over it → checked against the table → settings. Every step adds to one
//! list of problems; only at the end is it asked whether there are errors.

use crate::build;
use crate::check::Check;
use crate::env::{self, Env};
use crate::node::{Content, Node};
use crate::origin::{self, Origin};
use crate::problem::{Findings, Place, Problem, Problems};
use crate::settings::{CtlSettings, DnsSettings, RouterSettings, Settings, VipSettings};
use crate::table;
use crate::values::Values;
use crate::vip_manager;
use crate::yaml;
use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const MAX_FILES: usize = 1000;

/// Settings, where each of them came from, and what is worth a warning.
#[derive(Clone, Debug)]
pub struct Loaded {
    pub settings: Settings,
    pub origins: Vec<Origin>,
    pub warnings: Vec<Problem>,
}

/// The settings of an agent from `path`, a file or a directory of `*.yml` and `*.yaml`, and the environment.
pub fn load(path: &Path, env: &dyn Env) -> Result<Loaded, Problems> {
    load_agent(Some(path), env)
}

/// The settings of an agent from the environment alone: `PATRONI_CONFIGURATION`, or one variable each.
pub fn load_environment(env: &dyn Env) -> Result<Loaded, Problems> {
    load_agent(None, env)
}

fn load_agent(path: Option<&Path>, env: &dyn Env) -> Result<Loaded, Problems> {
    let mut read = Reading::new(path, env);
    let settings = build::agent(&build::Raw { root: &read.root, local: &read.local }, &mut read.findings);
    let mut origins = std::mem::take(&mut read.local.origins);
    origins.extend(std::mem::take(&mut read.dynamic.origins));
    let written: Vec<String> = origins.iter().map(|origin| origin.key.clone()).collect();
    let defaults =
        table::local().filter(|row| !row.key.contains('*') && !written.iter().any(|key| key == row.key));
    origins.extend(defaults.filter_map(origin::of_default));
    origins.sort_by(|a, b| a.key.cmp(&b.key));
    match settings {
        Some(settings) if read.findings.errors.is_empty() => {
            Ok(Loaded { settings, origins, warnings: sorted(read.findings.warnings) })
        }
        _ => Err(Problems(sorted(read.findings.errors))),
    }
}

/// The settings of a router that runs by itself; only what it needs has to be there.
pub fn load_router(path: &Path, env: &dyn Env) -> Result<RouterSettings, Problems> {
    let mut read = Reading::new(Some(path), env);
    read.forgive(&["scope", "namespace", "etcd", "etcd3", "router", "ctl", "log"]);
    let settings = build::router(&build::Raw { root: &read.root, local: &read.local }, &mut read.findings);
    finish(settings, read.findings)
}

/// The settings of a holder of addresses that runs by itself; only what it needs has to be there.
pub fn load_vip(path: &Path, env: &dyn Env) -> Result<VipSettings, Problems> {
    let mut read = Reading::new(Some(path), env);
    read.forgive(&["scope", "namespace", "name", "etcd", "etcd3", "vip", "log"]);
    let settings = build::vip(&build::Raw { root: &read.root, local: &read.local }, &mut read.findings);
    finish(settings, read.findings)
}

/// The settings of a teller of names that runs by itself; only what it needs has to be there.
pub fn load_dns(path: &Path, env: &dyn Env) -> Result<DnsSettings, Problems> {
    let mut read = Reading::new(Some(path), env);
    read.forgive(&["scope", "namespace", "etcd", "etcd3", "dns", "log"]);
    let settings = build::dns(&build::Raw { root: &read.root, local: &read.local }, &mut read.findings);
    finish(settings, read.findings)
}

/// The settings of a holder of addresses from vip-manager's file, its variables, and `key=value` over both; with warnings of what in them
/// has no effect.
pub fn load_vip_manager(
    path: Option<&Path>,
    over: &[String],
    env: &dyn Env,
) -> Result<(VipSettings, Vec<Problem>), Problems> {
    let mut findings = Findings::default();
    let root = path.and_then(|path| read_path(path, &mut findings));
    let place = path.map_or(Place::Default, whole_file);
    let root = vip_manager::translate(root.as_ref(), over, env, &place, &mut findings);
    if !findings.errors.is_empty() {
        return Err(Problems(sorted(findings.errors)));
    }
    let mut local = Values::new(table::local());
    Check { values: &mut local, findings: &mut findings, prefix: "", methods: &[] }.document(&root);
    let mut read = Reading { root, local, dynamic: Values::new(table::dynamic()), findings };
    read.forgive(&["scope", "namespace", "name", "etcd", "etcd3", "vip", "log"]);
    let settings = build::vip(&build::Raw { root: &read.root, local: &read.local }, &mut read.findings);
    let warnings = sorted(std::mem::take(&mut read.findings.warnings));
    Ok((finish(settings, read.findings)?, warnings))
}

/// The settings of the command line; without a file, the environment alone counts.
pub fn load_ctl(path: Option<&Path>, env: &dyn Env) -> Result<CtlSettings, Problems> {
    let mut read = Reading::new(path, env);
    read.forgive(&["scope", "namespace", "etcd", "etcd3", "ctl", "restapi.authentication"]);
    let settings = build::ctl(&build::Raw { root: &read.root, local: &read.local }, &mut read.findings);
    finish(settings, read.findings)
}

fn finish<T>(settings: Option<T>, findings: Findings) -> Result<T, Problems> {
    settings.filter(|_| findings.errors.is_empty()).ok_or_else(|| Problems(sorted(findings.errors)))
}

fn sorted(mut problems: Vec<Problem>) -> Vec<Problem> {
    problems.sort();
    problems.dedup();
    problems
}

/// What has been read and checked so far.
struct Reading {
    root: Node,
    local: Values,
    dynamic: Values,
    findings: Findings,
}

impl Reading {
    fn new(path: Option<&Path>, env: &dyn Env) -> Reading {
        let mut findings = Findings::default();
        let mut root = match (path, env.get(env::CONFIGURATION)) {
            (Some(path), _) => read_path(path, &mut findings),
            (None, Some(document)) => yaml::parse(env::CONFIGURATION, &document, &mut findings),
            (None, None) => None,
        }
        .unwrap_or_else(|| Node::empty_map(path.map_or(Place::Default, whole_file)));
        let readable = findings.errors.is_empty();
        let over = env::tree(env, &mut findings);
        let mut local = Values::new(table::local());
        let mut dynamic = Values::new(table::dynamic());
        if matches!(root.content, Content::Map(_)) || root.is_null() {
            if root.is_null() {
                root = Node::empty_map(root.place);
            }
            root.overlay(over);
        }
        let methods = methods(&root);
        Check { values: &mut local, findings: &mut findings, prefix: "", methods: &methods }.document(&root);
        if let Some(dcs) = root.get("bootstrap").and_then(|bootstrap| bootstrap.get("dcs")) {
            Check { values: &mut dynamic, findings: &mut findings, prefix: "bootstrap.dcs.", methods: &[] }
                .document(dcs);
        }
        if !readable {
            // What is missing may stand in the part that could not be read.
            findings.unread = true;
        }
        Reading { root, local, dynamic, findings }
    }

    /// Drops the errors of sections that the caller does not use.
    fn forgive(&mut self, used: &[&str]) {
        self.findings.errors.retain(|problem| {
            let key = problem.key.as_str();
            key.is_empty()
                || used.iter().any(|used| {
                    key == *used || key.strip_prefix(used).is_some_and(|rest| rest.starts_with('.'))
                })
        });
    }
}

/// Sections with free names: the methods that `bootstrap.method` and `create_replica_methods` name.
fn methods(root: &Node) -> Vec<String> {
    let bootstrap = root.get("bootstrap").and_then(|section| section.get("method")).and_then(Node::raw);
    let mut names: Vec<String> = bootstrap.map(str::to_owned).into_iter().collect();
    for key in ["create_replica_methods", "create_replica_method"] {
        let list = root.get("postgresql").and_then(|section| section.get(key));
        if let Some(Node { content: Content::List(items), .. }) = list {
            names.extend(items.iter().filter_map(Node::raw).map(str::to_owned));
        }
    }
    names
}

fn whole_file(path: &Path) -> Place {
    Place::File { name: Arc::from(path.display().to_string()), line: 0, column: 0 }
}

fn read_path(path: &Path, findings: &mut Findings) -> Option<Node> {
    if !path.is_dir() {
        return read_file(path, findings);
    }
    let files = match list(path) {
        Ok(files) => files,
        Err(error) => {
            findings.error(&whole_file(path), "", format!("cannot list the directory: {error}"));
            return None;
        }
    };
    if files.is_empty() {
        findings.error(
            &whole_file(path),
            "",
            "the directory has no *.yml or *.yaml file: put the settings there",
        );
    }
    let mut root = Node::empty_map(whole_file(path));
    for file in files {
        match read_file(&file, findings) {
            Some(node) if matches!(node.content, Content::Map(_)) => root.overlay(node),
            Some(node) if !node.is_null() => {
                findings.error(
                    &node.place,
                    "",
                    "expected a mapping of settings at the top, like `scope: demo`",
                );
            }
            _ => {}
        }
    }
    Some(root)
}

fn list(path: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(path)?.take(MAX_FILES) {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "yml" || extension == "yaml") {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

fn read_file(path: &Path, findings: &mut Findings) -> Option<Node> {
    match read_text(path) {
        Ok(text) => yaml::parse(&path.display().to_string(), &text, findings),
        Err(error) => {
            let what = match error.kind() {
                ErrorKind::NotFound => "there is no such file: give the path of the settings".to_owned(),
                ErrorKind::PermissionDenied => {
                    "this user may not read it: change its owner or mode".to_owned()
                }
                ErrorKind::InvalidData => "it is not text in UTF-8: save it as such".to_owned(),
                _ => format!("cannot be read: {error}"),
            };
            findings.error(&whole_file(path), "", what);
            None
        }
    }
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let file = fs::File::open(path)?;
    let read = file.take(yaml::MAX_BYTES + 1).read_to_string(&mut text)?;
    if read as u64 > yaml::MAX_BYTES {
        return Err(std::io::Error::other(format!(
            "larger than {} bytes: is it the right file?",
            yaml::MAX_BYTES
        )));
    }
    Ok(text)
}
