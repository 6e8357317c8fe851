//! The live view, and the part of a service manager: what a user kills is started again.

use super::screen::Screen;
use super::table;
use crate::lab::Lab;
use crate::view::View;
use anyhow::Result;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;
use types::Moment;

const PACE: Duration = Duration::from_millis(250);
/// A service manager would wait a little as well before it starts a service again.
const RESTART_AFTER: Duration = Duration::from_secs(3);

/// Shows the cluster until this future is dropped.
pub(super) async fn run(mut lab: Lab, screen: &mut Screen) -> Result<()> {
    let me = shortest(&env::current_exe()?);
    let mut last = View::default();
    let mut keeper = Keeper::default();
    loop {
        let notes = keeper.look(&mut lab)?;
        let view = match lab.view().await {
            Ok(view) => view,
            Err(_) => last.clone(),
        };
        if screen.is_terminal() {
            screen.draw(&page(&lab, &view, &me, &notes));
        } else if events(&view) != events(&last) {
            table::members(&view).iter().for_each(|line| screen.say(line));
            if last.members.is_empty() {
                hints(&lab, &view, &me).iter().for_each(|line| screen.say(line));
            }
        }
        last = view;
        tokio::time::sleep(PACE).await;
    }
}

fn page(lab: &Lab, view: &View, me: &Path, notes: &[String]) -> String {
    let mut lines = vec![format!("A cluster in {}", lab.base().display()), String::new()];
    lines.extend(table::members(view));
    let state = match (view.primary(), view.paused) {
        (Some(name), false) => format!("Writable: {name}"),
        (Some(name), true) => format!("Writable: {name}. Paused: nothing happens by itself"),
        (None, _) => "No member accepts writes; the router holds new connections".to_owned(),
    };
    lines.extend([String::new(), state]);
    lines.extend(notes.iter().cloned());
    lines.extend(hints(lab, view, me));
    lines.join("\n")
}

/// Three things to try.
fn hints(lab: &Lab, view: &View, me: &Path) -> Vec<String> {
    let primary = view.primary().or(view.leader.as_ref().map(|(name, _)| name.as_str())).unwrap_or("n1");
    let base = lab.base().display();
    let target = lab.target();
    vec![
        String::new(),
        "Three things to try in another terminal:".to_owned(),
        String::new(),
        format!("  psql '{}'", target.url()),
        format!("  kill -9 $(head -1 {base}/{primary}/data/postmaster.pid)"),
        format!("  {} switchover -c {base}/n1/agent.yml --force", me.display()),
        String::new(),
        "Ctrl-C ends everything.".to_owned(),
    ]
}

/// What is worth a new block of lines where there is no terminal: not the lag.
fn events(view: &View) -> View {
    let mut view = view.clone();
    for member in &mut view.members {
        member.position = None;
    }
    view
}

/// The path relative to the current directory where that is shorter.
fn shortest(path: &Path) -> PathBuf {
    let here = env::current_dir().unwrap_or_default();
    match path.strip_prefix(&here) {
        // A bare name would be looked for in PATH.
        Ok(short) if short.components().count() == 1 => Path::new(".").join(short),
        Ok(short) => short.to_owned(),
        Err(_) => path.to_owned(),
    }
}

/// Starts what has ended again.
#[derive(Default)]
struct Keeper {
    ended: Vec<(String, Moment)>,
}

impl Keeper {
    /// Looks after every process; returns a note for each that is down.
    fn look(&mut self, lab: &mut Lab) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for name in lab.ended() {
            let since = match self.ended.iter().find(|(known, _)| *known == name) {
                Some((_, since)) => *since,
                None => {
                    self.ended.push((name.clone(), clock::now()));
                    clock::now()
                }
            };
            if clock::now().since(since) >= RESTART_AFTER {
                lab.start_again(&name)?;
                self.ended.retain(|(known, _)| *known != name);
            } else {
                notes.push(format!("{name} has ended and will be started again"));
            }
        }
        Ok(notes)
    }
}
