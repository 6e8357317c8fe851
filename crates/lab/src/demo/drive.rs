//! `baton demo --drive`: the cluster is broken in three ways under a steady load, and what the clients saw is printed.

use super::events::{Event, Outcome, Window};
use super::screen::Screen;
use super::{Ending, table};
use crate::client::{Plan, Workload};
use crate::lab::Lab;
use crate::primaries::Primaries;
use anyhow::Result;
use std::time::Duration;

const EVENTS: [Event; 3] = [Event::KillPostmaster, Event::KillHost, Event::Switchover];
const WARM_UP: usize = 200;

pub(super) async fn run(mut lab: Lab, synchronous: bool, screen: &mut Screen) -> Result<Ending> {
    let plan = Plan::default();
    screen.say(&format!(
        "Writing {} numbered rows a second over {} connections through the router",
        plan.per_second, plan.connections
    ));
    Primaries::prepare(&lab.target()).await?;
    let work = Workload::start(&lab.target(), plan).await?;
    let nodes = lab.nodes.iter().map(|node| (node.name.clone(), lab.own_socket(node))).collect();
    let primaries = Primaries::watch(nodes);
    work.await_progress(WARM_UP, Duration::from_secs(30)).await?;
    let mut windows: Vec<Window> = Vec::new();
    for event in EVENTS {
        screen.say(&format!("  {} …", event.describe()));
        windows.push(event.happen(&mut lab, &work).await?);
    }
    let report = work.stop().await;
    let primaries = primaries.stop().await;
    let lost = report.missing().await?;
    let mut outcomes: Vec<Outcome> = Vec::new();
    for (at, window) in windows.iter().enumerate() {
        // A row is lost by the first event that came to an end after the row was acknowledged.
        let before = at.checked_sub(1).and_then(|before| windows.get(before)).map(|window| window.to);
        let missing =
            lost.iter().filter(|ack| ack.at <= window.to && before.is_none_or(|before| ack.at > before));
        outcomes.push(Outcome::of(window, &report, &primaries, missing.count()));
    }
    lab.stop().await?;
    screen.say("");
    table::outcomes(&outcomes).iter().for_each(|line| screen.say(line));
    screen.say("");
    for window in &windows {
        for (cause, count) in report.causes(window.from, window.to) {
            screen.say(&format!("  {count} × {cause} ({})", window.event.describe()));
        }
    }
    let total = report.acks.len();
    screen.say(&format!("{total} rows were acknowledged, {} of them are missing.", lost.len()));
    let bad = outcomes.iter().any(|outcome| {
        let must_keep = synchronous || outcome.event == Event::Switchover;
        (must_keep && outcome.missing > 0) || !outcome.two_primaries.is_zero()
    });
    Ok(if bad { Ending::Lost } else { Ending::Well })
}
