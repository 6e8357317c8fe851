//! Baton is led through the states in which a real Patroni was asked everything. Every answer and every key is the same, but for
//! the differences that `lab::golden` lists with their reasons.

use crate::story::{directory, turn};
use lab::{AgentKind, Binaries, baton_of_this_build, golden};
use std::fs;
use std::path::Path;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_patroni_s_or_differs_on_purpose() {
    let _turn = turn().await;
    let dir = directory("golden");
    println!("the lab and its logs: {}", dir.display());
    let binaries = Binaries::find(baton_of_this_build().unwrap()).unwrap();
    let ours = golden::capture(dir.join("lab"), binaries, AgentKind::Baton).await.unwrap();
    let theirs = golden::read(Path::new(golden::DIRECTORY)).unwrap();
    let found = golden::differences(&theirs, &ours);
    let others: Vec<&str> = found.iter().map(String::as_str).filter(|line| !golden::meant(line)).collect();
    assert!(others.is_empty(), "Baton differs from Patroni:\n{}", others.join("\n"));
    fs::remove_dir_all(&dir).unwrap();
}
