//! The command line, under patronictl's name, against a real cluster: what a script around it does in a working day; under its own name,
//! what the documents tell to look at.

use crate::story::{SPAN, Story};
use crate::tools::run;
use serde_json::{Value, json};
use std::path::PathBuf;

/// The binary through its link, with the configuration of a member.
struct Ctl {
    link: PathBuf,
    config: PathBuf,
    password: String,
}

impl Ctl {
    fn of(story: &Story) -> Ctl {
        let link = story.lab.base().join("patronictl");
        std::os::unix::fs::symlink(lab::baton_of_this_build().unwrap(), &link).unwrap();
        let config = story.lab.nodes[0].config();
        Ctl { link, config, password: story.lab.target().password }
    }

    /// What it printed; it must end well.
    async fn run(&self, line: &str) -> String {
        let output = tokio::process::Command::new(&self.link)
            .arg("-c")
            .arg(&self.config)
            .args(line.split(' '))
            .env_clear()
            .env("PGUSER", "postgres")
            .env("PGPASSWORD", &self.password)
            .stdin(std::process::Stdio::null())
            .output()
            .await
            .unwrap();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {}\n{out}{err}", output.status);
        out
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_around_patronictl_finds_what_it_knows() {
    let mut story = Story::prepare("ctl", |_| {}).await;
    let api = format!("{}:{}", story.lab.block.router(), story.lab.block.ports.router_rest());
    story.spec.router_file = json!({ "router": { "api": api } });
    story.lab.configure_router(&story.spec).unwrap();
    story.start().await;
    story.expect("the old data directory is moved aside");
    story.expect("pause");
    story.expect("by order: gets");
    let ctl = Ctl::of(&story);
    let (primary, replica) = (story.primary().await, story.a_replica().await);

    let members: Value = serde_json::from_str(&ctl.run("list -f json").await).unwrap();
    let scope = members[0]["Cluster"].as_str().unwrap().to_owned();
    let leader = members.as_array().unwrap().iter().find(|member| member["Role"] == "Leader").unwrap();
    assert_eq!(
        (&leader["Member"], &leader["State"]),
        (&Value::from(primary.clone()), &Value::from("running"))
    );
    assert!(ctl.run("topology").await.contains(&format!("| + {replica}")));
    assert!(ctl.run("dsn").await.starts_with("host="));
    assert!(ctl.run(&format!("version {scope} {replica}")).await.contains(&format!("\n{replica}: Baton ")));

    assert!(ctl.run("query -d postgres -c SELEC").await.ends_with("\tERROR, SQLSTATE: 42601\n"));
    assert_eq!(ctl.run("query -d postgres -c SELECT(41+1)AS\"answer\"").await, "answer\n42\n");
    let standby = ctl.run("query -d postgres -r replica -c SELECT(pg_is_in_recovery())").await;
    assert_eq!(standby, "pg_is_in_recovery\nTrue\n");

    as_the_documents_have_it(&story, &primary, &replica).await;
    let said = ctl.run(&format!("restart {scope} {replica} --force")).await;
    assert!(said.ends_with(&format!("Success: restart on member {replica}\n")), "{said}");
    story.healthy().await;
    let said = ctl.run(&format!("reload {scope} {replica} --force")).await;
    assert!(said.contains(&format!("Reload request received for member {replica}")), "{said}");
    let said = ctl.run("edit-config -p work_mem=5MB --force").await;
    assert!(said.contains("+    work_mem: 5MB\n") && said.ends_with("Configuration changed\n"), "{said}");
    assert!(ctl.run("show-config").await.contains("    work_mem: 5MB\n"));

    assert!(ctl.run("pause --wait").await.ends_with("Success: cluster management is paused\n"));
    assert!(ctl.run("list").await.ends_with(" Maintenance mode: on\n"));
    assert!(ctl.run("resume --wait").await.ends_with("Success: cluster management is resumed\n"));

    let said = ctl.run(&format!("switchover --leader {primary} --candidate {replica} --force")).await;
    assert!(said.contains(&format!(" Successfully switched over to \"{replica}\"\n")), "{said}");
    assert_eq!(story.primary().await, replica);
    story.healthy().await;
    let said = ctl.run(&format!("reinit {scope} {primary} --force --wait")).await;
    assert!(said.ends_with(&format!("Reinitialize is completed on: {primary}\n")), "{said}");
    story.healthy().await;
    let history: Value = serde_json::from_str(&ctl.run("history -f json").await).unwrap();
    assert_eq!(history.as_array().unwrap().last().unwrap()["New Leader"], Value::from(replica.clone()));

    assert_eq!(ctl.run(&format!("flush {scope} switchover")).await, "No pending scheduled switchover\n");
    let said = ctl.run(&format!("failover --candidate {primary} --force")).await;
    assert!(said.contains(&format!("over to \"{primary}\"")), "{said}");
    lab::wait::until(SPAN, "the candidate to lead", async || {
        (story.lab.primary().await.ok()? == primary).then_some(())
    })
    .await
    .unwrap();
    story.end().await;
}

/// What docs/*.md tells a reader to ask a cluster and a router.
async fn as_the_documents_have_it(story: &Story, primary: &str, replica: &str) {
    let asked = async |line: &str| story.baton(primary, &line.split(' ').collect::<Vec<_>>()).await;
    for (line, said) in [
        ("list -e", replica),
        ("why", primary),
        ("history", "New Leader"),
        ("history --losses", "Transactions"),
        ("history --archive", "Archive"),
        ("history --addresses", "Address"),
        ("timelines", primary),
    ] {
        let told = asked(line).await;
        assert!(told.contains(said), "{line}: {told}");
    }
    // These end with what they found.
    let config = story.at(primary).config().display().to_string();
    for (line, said) in
        [("etcd", "older ones kept"), ("what-if", replica), (&format!("what-if {replica}"), replica)]
    {
        let words: Vec<&str> = ["-c", &config].into_iter().chain(line.split(' ')).collect();
        let told = run(&story.at(primary).dir().join("bin/baton"), &words).await;
        assert!(told.code.is_some_and(|code| [0, 1, 11].contains(&code)), "{line}: {}{}", told.out, told.err);
        assert!(told.out.contains(said), "{line}: {}{}", told.out, told.err);
    }
    let file = story.lab.base().join("router/router.yml").display().to_string();
    for order in [
        "route FILE",
        "route FILE --sessions",
        "route FILE drain MEMBER",
        "route FILE undrain MEMBER",
        "route FILE pin MEMBER replica",
        "route FILE unpin MEMBER replica",
        "route FILE reload",
    ] {
        let told = asked(&order.replace("FILE", &file).replace("MEMBER", replica)).await;
        assert!(!told.is_empty(), "{order}");
    }
}
