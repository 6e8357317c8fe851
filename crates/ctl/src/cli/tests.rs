//! The grammar as a whole.

use super::{Cli, Command, RoleFilter};
use clap::{CommandFactory, Parser};

fn parse(line: &str) -> Command {
    let cli = Cli::try_parse_from(line.split_whitespace());
    cli.unwrap_or_else(|error| panic!("{line}: {error}")).command
}

#[test]
fn the_grammar_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn options_may_follow_arguments() {
    match parse("patronictl list demo -e other -f tsv -c /etc/x.yml -k") {
        Command::List(args) => {
            assert_eq!(args.clusters, ["demo", "other"]);
            assert!(args.extended);
        }
        other => panic!("{other:?}"),
    }
    match parse("baton -d etcd3://a/b switchover demo --candidate pg-2 --primary pg-1 --force") {
        Command::Switchover(args) => {
            assert_eq!(args.cluster.cluster.as_deref(), Some("demo"));
            assert_eq!(args.leader.as_deref(), Some("pg-1"));
            assert!(args.force);
        }
        other => panic!("{other:?}"),
    }
    match parse("baton restart demo pg-1 --force pg-2 -r replica --timeout 30") {
        Command::Restart(args) => assert_eq!(args.members.members, ["pg-1", "pg-2"]),
        other => panic!("{other:?}"),
    }
}

#[test]
fn patronictl_lines_are_understood() {
    for line in [
        "baton route router.yml",
        "baton route router.yml --sessions --json",
        "baton route router.yml drain pg-1 --cluster sales",
        "baton route router.yml reload",
        "baton haproxy-config router.yml",
        "patronictl list",
        "patronictl list -e -t -f yml -W",
        "patronictl list -w 0.5",
        "patronictl topology demo -W",
        "patronictl --dcs etcd3://h:1/s list",
        "patronictl switchover",
        "patronictl failover demo --candidate a --force",
        "patronictl edit-config -s ttl=20 -s loop_wait=5 -p max_connections=50 --force -q demo",
        "patronictl edit-config demo --apply - --force",
        "patronictl edit-config --replace file.yml",
        "patronictl reinit demo pg-1 --from-leader --wait --force",
        "patronictl pause --wait",
        "patronictl resume demo",
        "patronictl restart demo --any --pending --force",
        "patronictl reload demo pg-1 --force",
        "patronictl history -f json",
        "baton timelines demo -f yaml --stanza main",
        "baton timelines --no-backups",
        "baton restore pg.yml --time 2026-11-27T10:00:00Z --exclusive --in-place --force",
        "baton restore pg.yml --stanza main --lsn 0/3000060 --timeline 3 --to /data/new --dry-run",
        "patronictl show-config demo",
        "patronictl version demo pg-1",
        "patronictl -k -c f list",
        "patronictl switchover --leader a --scheduled now",
        "patronictl flush demo pg-1 pg-2 restart -r replica --force",
        "patronictl flush demo switchover",
        "patronictl remove demo -f json",
        "patronictl dsn demo -r replica",
        "patronictl dsn -m pg-2",
        "patronictl query demo -f file.sql --password -W",
        "patronictl demote-cluster demo --host h --port 5433 --restore-command x --primary-slot-name s --force",
        "patronictl promote-cluster --force",
        "patronictl list --group 1",
    ] {
        parse(line);
    }
}

#[test]
fn nonsense_is_refused() {
    for line in [
        "baton",
        "baton lsit",
        "baton list -f xml",
        "baton list -w 0",
        "baton restart --role boss",
        "baton remove",
        "baton flush restart",
        "baton restore",
        "baton restore pg.yml --xid 7 --name x",
        "baton restore pg.yml --in-place --to /x",
        "baton restore pg.yml --exclusive",
        "baton query -r boss -c x",
    ] {
        assert!(Cli::try_parse_from(line.split_whitespace()).is_err(), "{line}");
    }
}

#[test]
fn the_help_is_complete() {
    let help = Cli::command().render_long_help().to_string();
    assert!(!help.contains("\n  guard"), "{help}");
    insta::assert_snapshot!("help", help);
}

/// `query` has a meaning of its own for -c and -d; the long names are the same everywhere.
#[test]
fn query_s_short_options_are_its_own() {
    let line = "patronictl -d etcd3://a/b query demo -c sql -d db -U me -r primary --config-file f";
    let cli = Cli::try_parse_from(line.split_whitespace()).unwrap();
    assert_eq!(cli.reach.dcs_url.as_deref(), Some("etcd3://a/b"));
    assert_eq!(cli.reach.config_file.as_deref(), Some(std::path::Path::new("f")));
    match cli.command {
        Command::Query(args) => {
            assert_eq!((args.command.as_deref(), args.dbname.as_deref()), (Some("sql"), Some("db")));
            assert_eq!(args.role, Some(RoleFilter::Primary));
        }
        other => panic!("{other:?}"),
    }
    let cli = Cli::try_parse_from(["patronictl", "-c", "f", "query", "-c", "sql"]).unwrap();
    assert_eq!(cli.reach.config_file.as_deref(), Some(std::path::Path::new("f")));
}
