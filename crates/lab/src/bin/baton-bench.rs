//! `make bench`: the pauses that clients see, event by event, as a Markdown table.

use anyhow::{Context, Result, bail};
use lab::bench::{Mode, Options, program, run};
use lab::demo::Event;
use std::process::ExitCode;

const USAGE: &str = "usage: baton-bench [--runs N] [--ttl SECONDS] [--mode off|on|quorum|all] [--etcd-away SECONDS] \
     [--event postmaster|host|unplug-host|unplug-from-etcd|freeze|agent|switchover|sync-standby|stop-sync-standby|hang|\
     wal-disk-full|etcd-leader|etcd]...";

fn main() -> ExitCode {
    program(options(std::env::args().skip(1)), async |options| {
        run(&options).await.map(|()| ExitCode::SUCCESS)
    })
}

fn options(mut words: impl Iterator<Item = String>) -> Result<Options> {
    let mut options = Options::default();
    while let Some(word) = words.next() {
        let value = words.next();
        match (word.as_str(), value.as_deref()) {
            ("--runs", Some(value)) => options.runs = value.parse()?,
            ("--ttl", Some(value)) => options.ttl = value.parse()?,
            ("--mode", Some(value)) => {
                options.modes = match value {
                    "all" => Mode::ALL.to_vec(),
                    one => {
                        vec![Mode::of(one).with_context(|| format!("understand the mode {one}; {USAGE}"))?]
                    }
                };
            }
            ("--etcd-away", Some(value)) => options.etcd_away = value.parse()?,
            ("--event", Some(value)) => options.events.push(match value {
                "postmaster" => Event::KillPostmaster,
                "host" => Event::KillHost,
                "freeze" => Event::FreezeAgent,
                "agent" => Event::KillAgent,
                "switchover" => Event::Switchover,
                "sync-standby" => Event::KillSyncStandby,
                "hang" => Event::HangPostgres,
                "etcd-leader" => Event::KillEtcdLeader,
                "etcd" => Event::StopEtcd(options.etcd_away),
                "unplug-host" => Event::UnplugHost,
                "unplug-from-etcd" => Event::CutFromEtcd,
                "stop-sync-standby" => Event::StopSyncStandby,
                "wal-disk-full" => Event::FillWalDisk,
                other => bail!("understand the event {other}; {USAGE}"),
            }),
            (_, _) => bail!("understand {word}; {USAGE}"),
        }
    }
    // Whichever of the two came first.
    for event in &mut options.events {
        if let Event::StopEtcd(away) = event {
            *away = options.etcd_away;
        }
    }
    Ok(options)
}
