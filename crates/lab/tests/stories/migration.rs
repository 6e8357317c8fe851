//! The move from Patroni to Baton and back, as docs/migrate-from-patroni.md tells it: the story runs the document's own
//! commands, in their order, under a writing client behind HAProxy.

use crate::story::{SPAN, Story};
use crate::tools::run;
use lab::AgentKind::{self, Baton, Patroni};
use lab::{Plan, Primaries, Workload, patroni_bin};
use serde_json::json;
use std::time::Duration;
use types::Moment;

const DOCUMENT: &str = include_str!("../../../../docs/migrate-from-patroni.md");
/// The file of the document; on a lab's node it lies elsewhere.
const FILE: &str = "/etc/patroni/patroni.yml";
/// Shorter ones are the pace of the clients and the noise of the machine.
const A_PAUSE: Duration = Duration::from_millis(300);

/// One command of the document.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    node: String,
    words: Vec<String>,
}

/// The commands of the document: the lines of its `console` blocks, each with the host in its prompt.
fn steps(document: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut inside = false;
    for line in document.lines() {
        match line {
            "```console" => inside = true,
            "```" => inside = false,
            _ if inside => {
                let (node, command) = line.split_once(['$', '#']).unwrap();
                let words = command.split_ascii_whitespace().map(str::to_owned).collect();
                steps.push(Step { node: node.to_owned(), words });
            }
            _ => {}
        }
    }
    steps
}

impl Story {
    /// Runs one command as it stands, on the host of its prompt.
    async fn step(&mut self, step: &Step) {
        let words: Vec<&str> = step.words.iter().map(String::as_str).collect();
        let config = self.at(&step.node).config().display().to_string();
        let with_config: Vec<&str> =
            words.iter().skip(1).map(|word| if *word == FILE { config.as_str() } else { word }).collect();
        match words.as_slice() {
            ["systemctl", "disable", "--now", service] => {
                let node = self.lab.node(&step.node).unwrap();
                assert_eq!(node.kind(), kind(service), "the service that is stopped is the one that runs");
                assert!(node.stop_agent(SPAN).await, "{step:?}: it did not end");
            }
            ["systemctl", "enable", "--now", service] => {
                let node = self.lab.node(&step.node).unwrap();
                assert!(!node.agent_runs(), "the other service is stopped first");
                node.replace_by(kind(service), SPAN).await.unwrap();
            }
            ["patronictl" | "baton", ..] => {
                let program = match words[0] {
                    "baton" => self.at(&step.node).dir().join("bin/baton"),
                    _ => patroni_bin().unwrap().join("patronictl"),
                };
                let said = run(&program, &with_config).await;
                assert_eq!(said.code, Some(0), "{step:?}: {}{}", said.out, said.err);
                if words.contains(&"list") {
                    // "Go on only when …"
                    self.healthy().await;
                }
            }
            _ => panic!("the story does not know how to run {step:?}"),
        }
    }
}

fn kind(service: &str) -> AgentKind {
    match service {
        "patroni" => Patroni,
        "baton" => Baton,
        other => panic!("there is no service {other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn migration_to_baton_and_back_loses_nothing() {
    let steps = steps(DOCUMENT);
    let switchovers = steps.iter().filter(|step| step.words.iter().any(|word| word == "switchover")).count();
    assert_eq!(switchovers, 2, "one switchover each way");
    let mut story = Story::begin_led_by_the_first("migration", |spec| {
        spec.agents = vec![Patroni; 3];
        spec.router = false;
        spec.dynamic = json!({ "ttl": 20, "loop_wait": 1, "retry_timeout": 3 });
    })
    .await;
    let service = story.haproxy().await;
    Primaries::prepare(&service).await.unwrap();
    let work = Workload::start(&service, Plan::default()).await.unwrap();
    let own = story.lab.nodes.iter().map(|node| (node.name.clone(), story.lab.own_socket(node)));
    let primaries = Primaries::watch(own.collect());

    let well = crate::monitoring::probes(&story).await;
    let mut began: Vec<(Moment, String)> = Vec::new();
    for step in &steps {
        began.push((clock::now(), format!("{} {}", step.node, step.words.join(" "))));
        story.step(step).await;
        work.await_progress(20, SPAN).await.unwrap();
        if story.lab.nodes.iter().all(|node| node.kind() == Baton)
            && step.words.iter().any(|word| word == "list")
        {
            crate::monitoring::as_well_as(&well, &crate::monitoring::probes(&story).await);
        }
    }
    assert!(story.lab.nodes.iter().all(|node| node.kind() == Patroni), "the document ends where it began");
    // Two changes of the lead; the checkpoint that tells may come a moment after the last one.
    story.await_answer("n1", "SELECT timeline_id FROM pg_control_checkpoint()", "3").await;

    let report = work.stop().await;
    let primaries = primaries.stop().await;
    assert!(primaries.two_primaries().is_zero(), "two primaries: {}", primaries.describe());
    for (at, length) in report.pauses(A_PAUSE) {
        let during =
            began.iter().rev().find(|(began, _)| *began <= at).map_or("before all", |(_, step)| step);
        println!("no commit for {:.1} s, which began during: {during}", length.as_secs_f64());
    }
    println!("{} acknowledged commits", report.acks.len());
    assert_eq!(report.missing().await.unwrap(), Vec::new());
    story.end().await;
}

#[test]
fn the_document_is_understood() {
    let steps =
        steps("text\n```console\nn1$ baton check /x\nn2# systemctl enable --now baton\n```\nn3$ no\n");
    assert_eq!(steps.len(), 2);
    assert_eq!((steps[1].node.as_str(), steps[1].words[3].as_str()), ("n2", "baton"));
}
