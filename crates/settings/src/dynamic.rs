//! The dynamic configuration: `/config` in etcd, as meant.
//!
//! A spoiled or unknown value never stops a running cluster: its default counts, and a warning names it. Timings are
//! clamped in memory only; the key is left as it was written.

use crate::callbacks::Callbacks;
use crate::check::Check;
use crate::kind::Value as Meant;
use crate::methods::ReplicaMethod;
use crate::node::Node;
use crate::origin::Origin;
use crate::problem::{Findings, Place};
use crate::slots;
use crate::standby_cluster::{self, StandbyCluster};
use crate::table;
use crate::values::Values;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use types::{ClusterType, PermanentSlot, SlotMatcher, SlotWish};

/// What holds for the whole cluster.
#[derive(Clone, PartialEq, Debug)]
pub struct Dynamic {
    /// Seconds, after clamping; so are the next two.
    pub ttl: u32,
    pub loop_wait: u32,
    pub retry_timeout: u32,
    /// Bytes.
    pub maximum_lag_on_failover: u64,
    /// Bytes; `None` is any.
    pub maximum_lag_on_syncnode: Option<u64>,
    pub pause: bool,
    /// What comes first after a crash of the primary.
    pub crash: Crash,
    /// How long a promotion after a failure waits for the routers at most.
    pub await_routers: Duration,
    /// The command that tells whether the archive holds a file; it is asked after a promotion.
    pub archive_check: Option<String>,
    /// Seconds.
    pub archive_check_timeout: u32,
    pub synchronous_mode: SynchronousMode,
    pub synchronous_mode_strict: bool,
    pub synchronous_node_count: u32,
    /// Seconds; 0 means that a crashed primary is not started again but replaced at once.
    pub primary_start_timeout: u32,
    /// Seconds; 0 is any.
    pub primary_stop_timeout: u32,
    pub check_timeline: bool,
    pub failsafe_mode: bool,
    /// Seconds.
    pub member_slots_ttl: u32,
    /// 0 is all.
    pub max_timelines_history: u32,
    pub use_pg_rewind: bool,
    pub use_slots: bool,
    pub remove_data_directory_on_rewind_failure: bool,
    pub remove_data_directory_on_diverged_timelines: bool,
    /// Seconds.
    pub pg_ctl_timeout: u32,
    pub parameters: BTreeMap<String, String>,
    pub pg_hba: Option<Vec<String>>,
    pub pg_ident: Option<Vec<String>>,
    pub recovery_conf: BTreeMap<String, String>,
    pub basebackup: Vec<(String, Option<String>)>,
    pub rewind: Vec<(String, Option<String>)>,
    pub bin_dir: Option<PathBuf>,
    pub custom_conf: Option<PathBuf>,
    pub use_unix_socket: bool,
    /// `slots`, or one of its old names.
    pub slots: BTreeMap<String, PermanentSlot>,
    pub ignore_slots: Vec<SlotMatcher>,
    /// Its presence makes this a standby cluster.
    pub standby_cluster: Option<StandbyCluster>,
    /// The next four may be overridden by a node's file; `effective` has the result.
    pub callbacks: Callbacks,
    pub create_replica_methods: Option<Vec<String>>,
    pub replica_methods: BTreeMap<String, ReplicaMethod>,
    pub pre_promote: Option<String>,
    pub before_stop: Option<String>,
}

impl Dynamic {
    /// Whether a permanent slot is a logical one: standbys then tell their primary which rows the slot still needs.
    #[must_use]
    pub fn has_logical_slots(&self) -> bool {
        self.use_slots
            && self.standby_cluster.is_none()
            && self.slots.values().any(|slot| {
                matches!(slot.wish, SlotWish::Logical { .. }) && slot.only_in != Some(ClusterType::Standby)
            })
    }

    /// Whether PostgreSQL itself, from version 17 on, shall keep permanent logical slots on standbys.
    #[must_use]
    pub fn has_failover_slots(&self) -> bool {
        self.has_logical_slots() && self.slots.values().any(|slot| slot.wish.is_failover())
    }
}

/// `baton.crash`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Crash {
    /// Whatever is faster and loses nothing.
    Auto,
    Restart,
    /// As long as it loses nothing.
    Failover,
}

/// `synchronous_mode`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SynchronousMode {
    Off,
    /// Commits wait for the first n of a list.
    On,
    /// Commits wait for any n of a list.
    Quorum,
}

impl Default for Dynamic {
    /// What an empty `/config` means.
    fn default() -> Dynamic {
        dynamic(&Value::Object(Map::new()), false).0
    }
}

/// The configuration in `value`, and what is wrong with it. While a member runs Patroni, its floors for the timings hold
/// (ttl 20, retry_timeout 3), because it uses them in any case and all members must agree.
#[must_use]
pub fn dynamic(value: &Value, patroni_member_present: bool) -> (Dynamic, Vec<String>) {
    let (values, findings) = checked(value);
    let mut warnings: Vec<String> =
        findings.errors.iter().chain(&findings.warnings).map(|problem| problem.what.clone()).collect();
    let mut dynamic = meant(&values, value, &mut warnings);
    clamp(&mut dynamic, patroni_member_present, &mut warnings);
    (dynamic, warnings)
}

/// `value` with each setting that cannot be understood as it was in `before`. A running cluster keeps its synchronous
/// mode when somebody mistypes it; defaults are for settings that were never right.
#[must_use]
pub fn keep_good(value: &Value, before: &Value) -> Value {
    if !value.is_object() {
        return before.clone();
    }
    let mut kept = value.clone();
    for problem in checked(value).1.errors {
        let path: Vec<&str> = problem.key.split('.').collect();
        let old = path.iter().try_fold(before, |at, name| at.get(name));
        put(&mut kept, &path, old);
    }
    kept
}

/// Sets or removes the value at `path`, as far as there are mappings.
fn put(root: &mut Value, path: &[&str], value: Option<&Value>) {
    let Some((last, parents)) = path.split_last() else { return };
    let mut at = root;
    for name in parents {
        match at.get_mut(name) {
            Some(next) => at = next,
            None => return,
        }
    }
    if let Value::Object(entries) = at {
        match value {
            Some(value) => drop(entries.insert((*last).to_owned(), value.clone())),
            None => drop(entries.shift_remove(*last)),
        }
    }
}

/// Whether a change to the dynamic configuration may be written: each problem is something that would have no effect, or
/// another than meant. For `edit-config`, which refuses what the agents could only warn of.
pub fn validate_dynamic(value: &Value, patroni_member_present: bool) -> Result<Vec<String>, Vec<String>> {
    let (values, findings) = checked(value);
    let texts =
        |problems: &[crate::problem::Problem]| problems.iter().map(|p| p.what.clone()).collect::<Vec<_>>();
    let mut warnings = texts(&findings.warnings);
    clamp(&mut meant(&values, value, &mut warnings), patroni_member_present, &mut warnings);
    if findings.errors.is_empty() { Ok(warnings) } else { Err(texts(&findings.errors)) }
}

/// Each dynamic setting that is given, with the origin "dynamic configuration".
#[must_use]
pub fn dynamic_origins(value: &Value) -> Vec<Origin> {
    checked(value).0.origins
}

fn checked(value: &Value) -> (Values, Findings) {
    let mut findings = Findings::default();
    let mut values = Values::new(table::dynamic());
    let node = Node::from_json(value, &Place::Dynamic);
    Check { values: &mut values, findings: &mut findings, prefix: "", methods: &[] }.document(&node);
    (values, findings)
}

/// More would be an outage of its own: by then the lease of a router that says nothing has ended.
fn await_routers(values: &Values, warnings: &mut Vec<String>) -> Duration {
    const MOST: Duration = Duration::from_secs(10);
    let wanted = values.duration("baton.await_routers");
    if wanted > MOST {
        warnings.push("baton.await_routers is used as 10s: it must be at most 10s".to_owned());
    }
    wanted.min(MOST)
}

fn meant(values: &Values, written_as: &Value, warnings: &mut Vec<String>) -> Dynamic {
    let written = |key: &str| match values.get(key) {
        Some(Meant::Texts(lines)) => Some(lines),
        _ => None,
    };
    Dynamic {
        ttl: values.number("ttl"),
        loop_wait: values.number("loop_wait"),
        retry_timeout: values.number("retry_timeout"),
        maximum_lag_on_failover: values.number("maximum_lag_on_failover"),
        maximum_lag_on_syncnode: values
            .int("maximum_lag_on_syncnode")
            .and_then(|bytes| u64::try_from(bytes).ok()),
        pause: values.flag("pause"),
        crash: match values.text("baton.crash").as_deref() {
            Some("restart") => Crash::Restart,
            Some("failover") => Crash::Failover,
            _ => Crash::Auto,
        },
        await_routers: await_routers(values, warnings),
        archive_check: values.text("baton.archive_check").filter(|command| !command.trim().is_empty()),
        archive_check_timeout: values.number("baton.archive_check_timeout"),
        synchronous_mode: match values.text("synchronous_mode").as_deref() {
            Some("on") => SynchronousMode::On,
            Some("quorum") => SynchronousMode::Quorum,
            _ => SynchronousMode::Off,
        },
        synchronous_mode_strict: values.flag("synchronous_mode_strict"),
        synchronous_node_count: values.number("synchronous_node_count"),
        primary_start_timeout: values.number("primary_start_timeout"),
        primary_stop_timeout: values.number("primary_stop_timeout"),
        check_timeline: values.flag("check_timeline"),
        failsafe_mode: values.flag("failsafe_mode"),
        member_slots_ttl: values.number("member_slots_ttl"),
        max_timelines_history: values.number("max_timelines_history"),
        use_pg_rewind: values.flag("postgresql.use_pg_rewind"),
        use_slots: values.flag("postgresql.use_slots"),
        remove_data_directory_on_rewind_failure: values
            .flag("postgresql.remove_data_directory_on_rewind_failure"),
        remove_data_directory_on_diverged_timelines: values
            .flag("postgresql.remove_data_directory_on_diverged_timelines"),
        pg_ctl_timeout: values.number("postgresql.pg_ctl_timeout"),
        parameters: values.text_map("postgresql.parameters"),
        pg_hba: written("postgresql.pg_hba"),
        pg_ident: written("postgresql.pg_ident"),
        recovery_conf: values.text_map("postgresql.recovery_conf"),
        basebackup: values.pairs("postgresql.basebackup"),
        rewind: values.pairs("postgresql.rewind"),
        bin_dir: values.path("postgresql.bin_dir"),
        custom_conf: values.path("postgresql.custom_conf"),
        use_unix_socket: values.flag("postgresql.use_unix_socket"),
        slots: slots::permanent(values.json("slots"), warnings),
        ignore_slots: slots::matchers(values.json("ignore_slots"), warnings),
        standby_cluster: standby_cluster::build(values),
        callbacks: Callbacks::build(values).unwrap_or_default(),
        create_replica_methods: written("postgresql.create_replica_methods"),
        replica_methods: replica_methods(values, written_as, warnings),
        pre_promote: values.text("postgresql.pre_promote"),
        before_stop: values.text("postgresql.before_stop"),
    }
}

/// The sections of replica methods; those that cannot run are named when they are listed.
fn replica_methods(
    values: &Values,
    config: &Value,
    warnings: &mut Vec<String>,
) -> BTreeMap<String, ReplicaMethod> {
    let listed = values.texts("postgresql.create_replica_methods").unwrap_or_default();
    let mut found = BTreeMap::new();
    let Some(Value::Object(section)) = config.get("postgresql") else { return found };
    for (name, entry) in section.iter().filter(|(_, entry)| entry.is_object()) {
        if values.is_known(&format!("postgresql.{name}")) {
            continue;
        }
        match ReplicaMethod::read(name, entry) {
            Ok(method) => drop(found.insert(name.clone(), method)),
            Err(why) if listed.contains(name) => {
                warnings.push(format!("postgresql.{name} has no effect: it {why}"));
            }
            Err(_) => {}
        }
    }
    found
}

/// Raises the timings to their floors; then lowers loop_wait, and if need be retry_timeout, until a leader that loses
/// etcd has time for two tries within its ttl.
fn clamp(dynamic: &mut Dynamic, patroni: bool, warnings: &mut Vec<String>) {
    let (ttl, loop_wait, retry) = if patroni { (20, 1, 3) } else { (2, 1, 1) };
    let because = if patroni { " while a member runs Patroni" } else { "" };
    let mut raise = |name: &str, value: &mut u32, floor: u32| {
        if *value < floor {
            warnings.push(format!("{name} {value} is used as {floor}: it must be at least {floor}{because}"));
            *value = floor;
        }
    };
    raise("ttl", &mut dynamic.ttl, ttl);
    raise("loop_wait", &mut dynamic.loop_wait, loop_wait);
    raise("retry_timeout", &mut dynamic.retry_timeout, retry);
    let needed = |d: &Dynamic| u64::from(d.loop_wait) + 2 * u64::from(d.retry_timeout);
    if needed(dynamic) <= u64::from(dynamic.ttl) {
        return;
    }
    let before = (dynamic.loop_wait, dynamic.retry_timeout);
    let left = dynamic.ttl.saturating_sub(dynamic.retry_timeout.saturating_mul(2));
    dynamic.loop_wait = left.max(loop_wait);
    if needed(dynamic) > u64::from(dynamic.ttl) {
        dynamic.retry_timeout = (dynamic.ttl.saturating_sub(dynamic.loop_wait) / 2).max(retry);
    }
    if before != (dynamic.loop_wait, dynamic.retry_timeout) {
        warnings.push(format!(
            "loop_wait {} and retry_timeout {} are used as {} and {}: loop_wait + 2 * retry_timeout must not exceed ttl {}",
            before.0, before.1, dynamic.loop_wait, dynamic.retry_timeout, dynamic.ttl
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::{Dynamic, SynchronousMode, dynamic, keep_good, validate_dynamic};
    use serde_json::{Value, json};

    fn timings(value: &Value, patroni: bool) -> (u32, u32, u32) {
        let (dynamic, _) = dynamic(value, patroni);
        (dynamic.ttl, dynamic.loop_wait, dynamic.retry_timeout)
    }

    #[test]
    fn an_empty_configuration_has_patronis_defaults() {
        let (dynamic, warnings) = dynamic(&json!({}), false);
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!((dynamic.ttl, dynamic.loop_wait, dynamic.retry_timeout), (30, 10, 10));
        assert_eq!(dynamic.maximum_lag_on_failover, 1 << 20);
        assert_eq!(dynamic.maximum_lag_on_syncnode, None);
        assert_eq!(dynamic.synchronous_mode, SynchronousMode::Off);
        assert_eq!(dynamic.primary_start_timeout, 300);
        assert_eq!(dynamic.member_slots_ttl, 1800);
        assert!(dynamic.use_slots && !dynamic.use_pg_rewind && !dynamic.pause);
        assert_eq!(dynamic, Dynamic::default());
    }

    #[test]
    fn timings_are_clamped_as_patroni_does_while_one_is_there() {
        assert_eq!(timings(&json!({"ttl": 5, "loop_wait": 30}), true), (20, 1, 9));
        assert_eq!(timings(&json!({"ttl": 30, "loop_wait": 15}), true), (30, 10, 10));
        assert_eq!(timings(&json!({"ttl": 20, "loop_wait": 2, "retry_timeout": 1}), true), (20, 2, 3));
    }

    #[test]
    fn without_patroni_the_floors_are_batons() {
        assert_eq!(timings(&json!({"ttl": 5, "loop_wait": 1, "retry_timeout": 2}), false), (5, 1, 2));
        assert_eq!(timings(&json!({"ttl": 1, "loop_wait": 1, "retry_timeout": 1}), false), (2, 1, 1));
        assert_eq!(timings(&json!({"ttl": 5}), false), (5, 1, 2));
        let (_, warnings) = dynamic(&json!({"ttl": 5, "loop_wait": 1, "retry_timeout": 2}), false);
        assert_eq!(warnings, Vec::<String>::new());
    }

    #[test]
    fn bad_values_fall_back_and_are_named() {
        let (dynamic, warnings) = dynamic(
            &json!({"ttl": "soon", "synchronous_mode": "always", "pause": "on", "synchronus_mode_strict": true,
                    "postgresql": {"parameters": {"work_mem": "4MB", "jit": false, "bad": {"x": 1}}}}),
            false,
        );
        assert_eq!(dynamic.ttl, 30);
        assert!(dynamic.pause);
        assert_eq!(dynamic.parameters.get("jit").map(String::as_str), Some("false"));
        insta::assert_snapshot!(warnings.join("\n"), @r#"
        ttl should be seconds as a whole number from 1 to 86400, or a time like 5min, but is "soon"
        synchronous_mode should be one of off, on, quorum, but is "always"
        unknown key "synchronus_mode_strict": did you mean "synchronous_mode_strict"?
        postgresql.parameters.bad should be a single value, but is a mapping
        "#);
    }

    #[test]
    fn a_mistyped_setting_stays_as_it_was() {
        let before =
            json!({"synchronous_mode": "quorum", "ttl": 10, "postgresql": {"parameters": {"jit": "off"}}});
        let typo = json!({"synchronous_mode": "qourum", "loop_wait": "x", "postgresql": {"parameters": {"jit": []}}});
        let kept = keep_good(&typo, &before);
        assert_eq!(kept, json!({"synchronous_mode": "quorum", "postgresql": {"parameters": {"jit": "off"}}}));
        assert_eq!(keep_good(&json!("spoiled"), &before), before);
        assert_eq!(keep_good(&json!({"ttl": 7}), &before), json!({"ttl": 7}));
    }

    #[test]
    fn something_else_than_a_mapping_is_survived() {
        for spoiled in [json!([]), json!("x"), json!(5), json!(null)] {
            let (found, _) = dynamic(&spoiled, true);
            assert_eq!(found.ttl, 30, "{spoiled}");
        }
    }

    #[test]
    fn old_names_yield_to_new_ones() {
        let both = json!({"master_start_timeout": 5, "primary_start_timeout": 7, "master_stop_timeout": 3});
        let (found, warnings) = dynamic(&both, false);
        assert_eq!((found.primary_start_timeout, found.primary_stop_timeout), (7, 3));
        assert_eq!(warnings.len(), 1);
        let (found, _) = dynamic(&json!({"primary_start_timeout": 7, "master_start_timeout": 5}), false);
        assert_eq!(found.primary_start_timeout, 7);
    }

    #[test]
    fn synchronous_mode_in_all_spellings() {
        for (value, meant) in [
            (json!(true), SynchronousMode::On),
            (json!("on"), SynchronousMode::On),
            (json!("quorum"), SynchronousMode::Quorum),
            (json!("Quorum"), SynchronousMode::Quorum),
            (json!(false), SynchronousMode::Off),
            (json!("off"), SynchronousMode::Off),
        ] {
            assert_eq!(
                dynamic(&json!({"synchronous_mode": value}), false).0.synchronous_mode,
                meant,
                "{value}"
            );
        }
    }

    #[test]
    fn an_edit_with_a_mistake_is_refused() {
        let refused = validate_dynamic(&json!({"tll": 5, "loop_wait": "x"}), false).unwrap_err();
        assert_eq!(refused.len(), 2, "{refused:?}");
        assert_eq!(
            validate_dynamic(&json!({"ttl": 10, "loop_wait": 1, "retry_timeout": 2}), false),
            Ok(vec![])
        );
    }
}
