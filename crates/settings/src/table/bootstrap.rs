//! `bootstrap:`; the rows under `bootstrap.dcs` are the dynamic ones.

use super::Row;
use crate::kind::Kind;

const NO_USERS: &str = "Patroni 4 dropped it: create roles in post_bootstrap";

pub(super) const ROWS: &[Row] = &[
    Row::new("bootstrap.dcs", Kind::Json, "The dynamic configuration that a new cluster begins with.")
        .bootstrap(),
    Row::new(
        "bootstrap.method",
        Kind::Text,
        "How a new cluster is made: initdb, or the name of a section here with a command of your own.",
    )
    .default("initdb")
    .bootstrap(),
    Row::new("bootstrap.initdb", Kind::Options, "Options of initdb.").bootstrap(),
    Row::new("bootstrap.pg_hba", Kind::Lines, "The lines of pg_hba.conf of a new cluster.").bootstrap(),
    Row::new("bootstrap.post_bootstrap", Kind::Text, "A command that is run once on a new cluster.")
        .bootstrap(),
    Row::new("bootstrap.post_init", Kind::Text, "An old name of post_bootstrap.")
        .bootstrap()
        .alias_of("bootstrap.post_bootstrap"),
    Row::new("bootstrap.users.*.password", Kind::Secret, "A role to create.").bootstrap().ignored(NO_USERS),
    Row::new("bootstrap.users.*.options", Kind::Texts, "The options of a role to create.")
        .bootstrap()
        .ignored(NO_USERS),
];
