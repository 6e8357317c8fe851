//! The playbooks without any host: their grammar, and what their templates make of an inventory, which Baton must understand. For real
//! they are run by `make playbooks`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use lab::{ansible_bin, baton_of_this_build};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn ansible() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../ansible").canonicalize().unwrap()
}

fn play(words: &[&str], home: &Path) -> String {
    let done = Command::new(ansible_bin().unwrap().join("ansible-playbook"))
        .args(words)
        .current_dir(ansible())
        .env("ANSIBLE_CONFIG", ansible().join("ansible.cfg"))
        .env("ANSIBLE_HOME", home)
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{words:?}: {said}");
    said
}

#[test]
fn the_grammar_of_the_playbooks_is_right() {
    let home = tempfile::tempdir().unwrap();
    let mut words = vec!["-i", "inventory.example.yml", "--syntax-check"];
    words.extend([
        "etcd.yml",
        "etcd-member.yml",
        "pgsql.yml",
        "pgsql-reload.yml",
        "pgsql-rm.yml",
        "upgrade.yml",
    ]);
    play(&words, home.path());
}

#[test]
fn baton_understands_what_the_templates_make() {
    let home = tempfile::tempdir().unwrap();
    let out = home.path().join("out");
    fs::create_dir(&out).unwrap();
    let baton = baton_of_this_build().unwrap();
    let (out_is, baton_is) = (format!("out={}", out.display()), format!("baton={}", baton.display()));
    let inventory = "tests/templates.inventory.yml";
    play(&["-i", inventory, "tests/templates.yml", "-e", &out_is, "-e", &baton_is], home.path());
    let has = |file: &str, parts: &[&str]| {
        let text = fs::read_to_string(out.join(file)).unwrap();
        for part in parts {
            assert!(text.contains(part), "{file} without {part}:\n{text}");
        }
    };
    let fast = [r#""ttl": 5"#, r#""synchronous_mode": true"#, "10.0.0.9/24", r#""password": "a\"b: #1""#];
    has("one-1.agent.yml", &fast);
    has("one-2.agent.yml", &[r#""ttl": 60"#, r#""synchronous_mode": false"#, "nofailover: true"]);
    has("two-1.agent.yml", &[r#""ttl": 10"#, r#""maximum_lag_on_failover": 5"#, r#""work_mem": "8MB""#]);
    has("two-2.agent.yml", &[r#""ttl": 30"#, "host replication replicator 10.0.0.3/32 scram-sha-256"]);
    has("two-2.router.yml", &["hold_timeout: 60s", r#""fallback": "primary""#]);
    let peers = "etcd-1=http://10.0.0.1:2380,etcd-2=http://10.0.0.2:2380,etcd-3=http://10.0.0.3:2380,etcd-4=http://10.0.0.4:2380\n";
    has("two-2.etcd.yml", &["name: etcd-4", peers]);
}

/// What a dead leader's checks are told in each of the plans is understood by the HAProxy beside the router as well.
#[test]
fn haproxy_understands_the_checks_of_every_pg_rto() {
    let defaults = fs::read_to_string(ansible().join("roles/agent/defaults/main.yml")).unwrap();
    let (_, plans) = defaults.split_once("pg_rto_plan:\n").unwrap();
    let plans: Vec<&str> = plans.lines().take_while(|line| line.starts_with("  ")).collect();
    let names: Vec<&str> = plans.iter().filter_map(|plan| plan.trim().split(':').next()).collect();
    assert_eq!(names, ["fast", "norm", "safe", "wide"]);
    let dir = tempfile::tempdir().unwrap();
    for plan in plans {
        let (_, words) = plan.split_once('{').unwrap();
        let of = |name: &str| {
            let found = words
                .trim_end_matches(" }")
                .split(',')
                .find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix(": "));
            found.unwrap_or_else(|| panic!("{name} in {plan}")).to_owned()
        };
        let checks: Vec<String> = ["inter", "fastinter", "downinter", "rise", "fall"]
            .iter()
            .map(|name| format!("{name} {}", of(name)))
            .collect();
        let text = format!(
            "defaults\n mode tcp\n timeout connect 1s\n timeout client {hold}\n timeout server {hold}\n timeout queue {hold}\n\
             listen primary\n bind 127.0.0.1:5433\n option httpchk GET /primary\n default-server {checks}\n server one 127.0.0.1:5432 check port 8008\n",
            hold = of("hold"),
            checks = checks.join(" ")
        );
        let file = dir.path().join("haproxy.cfg");
        fs::write(&file, &text).unwrap();
        let read =
            Command::new(lab::haproxy_binary().unwrap()).args(["-c", "-f"]).arg(&file).output().unwrap();
        assert!(read.status.success(), "{text}{}", String::from_utf8_lossy(&read.stderr));
    }
}
