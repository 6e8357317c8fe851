//! The one table of settings. Validation, defaults, environment variables, the nearest known key, `baton check` and the
//! reference all come from it; what is not built yet is a flag of its row, so that it is never ignored in silence.
//!
//! A key is a path with dots; `*` stands for any name. Rows of the dynamic configuration have their own table, because the
//! same keys stand under `bootstrap.dcs` in a file and at the top of `/config` in etcd.

mod bootstrap;
mod cluster;
mod dns;
mod dynamic;
mod elsewhere;
mod etcd;
mod postgresql;
mod restapi;
mod router;
mod vip;

use crate::kind::Kind;

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    pub key: &'static str,
    pub kind: Kind,
    /// As it would be written in YAML.
    pub default: Option<&'static str>,
    /// Environment variables; the first is the current name.
    pub env: &'static [&'static str],
    pub scope: Scope,
    pub support: Support,
    /// Whether an agent cannot start without it.
    pub required: bool,
    /// Another key of the same table that this one is an old name of.
    pub alias_of: Option<&'static str>,
    pub doc: &'static str,
}

/// Where a setting counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// In the file or the environment of one node.
    Local,
    /// Only while a new cluster is made.
    Bootstrap,
    /// In the dynamic configuration, for the whole cluster.
    Dynamic,
}

/// Whether a setting has its effect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Support {
    Full,
    /// Accepted with a warning: it has no effect, because of this.
    Ignored(&'static str),
    /// An error, because it would be dangerous to ignore it.
    Refused(&'static str),
    /// Some values are fine, some have a warning, all others are refused.
    Limited {
        fine: &'static [&'static str],
        warned: &'static [&'static str],
        why: &'static str,
    },
}

impl Row {
    const fn new(key: &'static str, kind: Kind, doc: &'static str) -> Row {
        Row {
            key,
            kind,
            default: None,
            env: &[],
            scope: Scope::Local,
            support: Support::Full,
            required: false,
            alias_of: None,
            doc,
        }
    }

    const fn default(mut self, yaml: &'static str) -> Row {
        self.default = Some(yaml);
        self
    }

    const fn env(mut self, names: &'static [&'static str]) -> Row {
        self.env = names;
        self
    }

    const fn required(mut self) -> Row {
        self.required = true;
        self
    }

    const fn bootstrap(mut self) -> Row {
        self.scope = Scope::Bootstrap;
        self
    }

    const fn dynamic(mut self) -> Row {
        self.scope = Scope::Dynamic;
        self
    }

    const fn alias_of(mut self, key: &'static str) -> Row {
        self.alias_of = Some(key);
        self
    }

    const fn support(mut self, support: Support) -> Row {
        self.support = support;
        self
    }

    const fn ignored(self, why: &'static str) -> Row {
        self.support(Support::Ignored(why))
    }

    const fn refused(self, why: &'static str) -> Row {
        self.support(Support::Refused(why))
    }

    /// Whether the value must not be shown.
    #[must_use]
    pub fn is_secret(&self) -> bool {
        self.kind == Kind::Secret
    }
}

/// The settings of a node's file.
pub(crate) fn local() -> impl Iterator<Item = &'static Row> {
    let groups: [&'static [Row]; 9] = [
        cluster::ROWS,
        restapi::ROWS,
        etcd::ROWS,
        bootstrap::ROWS,
        postgresql::ROWS,
        router::ROWS,
        vip::ROWS,
        dns::ROWS,
        elsewhere::ROWS,
    ];
    groups.into_iter().flatten()
}

/// The settings of the dynamic configuration.
pub(crate) fn dynamic() -> impl Iterator<Item = &'static Row> {
    dynamic::ROWS.iter()
}

/// Every setting: those of the file, then the dynamic ones.
pub fn rows() -> impl Iterator<Item = &'static Row> {
    local().chain(dynamic())
}

/// Families of environment variables that belong to sections Baton refuses, with the section's name.
pub(crate) const REFUSED_ENV: &[(&str, &str)] = elsewhere::ENV_PREFIXES;

/// Whether `key` is what the pattern of a row means.
pub(crate) fn matches(pattern: &str, key: &str) -> bool {
    let mut wanted = pattern.split('.');
    let mut given = key.split('.');
    loop {
        match (wanted.next(), given.next()) {
            (None, None) => return true,
            (Some(want), Some(got)) if want == "*" || want == got => {}
            _ => return false,
        }
    }
}
