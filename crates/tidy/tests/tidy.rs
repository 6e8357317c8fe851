//! The rules of the house that no compiler knows. Each test names every place that breaks its rule.

use tidy::{Text, hosts, keys, root, rows, texts};

/// Which of our crates each crate may use. `*` is every one. A crate that is not here may not exist.
const WALLS: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("clock", &["types"]),
    ("ha", &["types"]),
    ("settings", &["types"]),
    ("etcd", &["types", "clock"]),
    ("tls", &[]),
    ("http", &["types", "settings", "tls"]),
    ("postgres", &["types", "clock", "tls"]),
    ("agent", &["types", "clock", "ha", "settings", "tls", "http", "etcd", "postgres", "vip", "dns", "bgp"]),
    ("router", &["types", "clock", "settings", "http", "tls", "etcd"]),
    ("vip", &["types", "clock", "settings", "etcd"]),
    ("dns", &["types", "clock", "settings", "etcd"]),
    ("bgp", &["types", "clock", "settings", "vip"]),
    (
        "ctl",
        &[
            "types", "clock", "ha", "settings", "tls", "http", "etcd", "postgres", "agent", "router", "vip",
            "dns", "bgp", "lab",
        ],
    ),
    ("lab", &["types", "clock", "settings", "http", "tls"]),
    ("sim", &["types", "ha", "clock"]),
    ("testbed", &[]),
    ("tidy", &[]),
];

/// Crates that decide on values: nothing from outside may come in, so nothing can do I/O.
const PURE: [&str; 2] = ["types", "ha"];

/// Hosts that the repository may name: where licences, standards and the projects we build on have their documents.
const KNOWN_HOSTS: [&str; 8] = [
    "www.apache.org",
    "www.postgresql.org",
    "wiki.postgresql.org",
    "etcd.io",
    "patroni.readthedocs.io",
    "keepachangelog.com",
    "semver.org",
    "github.com",
];

/// Clocks, in the spellings that code could use. Timers of the runtime are not clocks: nobody decides on them.
const CLOCKS: [&str; 4] = ["SystemTime::now", "clock_gettime", "std::time::Instant", "chrono::"];

const FILE_LIMIT: usize = 400;
const FUNCTION_LIMIT: usize = 70;

fn sources() -> Vec<Text> {
    texts(&root()).into_iter().filter(|text| text.is("rs")).collect()
}

fn of_crate<'a>(sources: &'a [Text], name: &str) -> Vec<&'a Text> {
    let dir = format!("crates/{name}/src/");
    sources.iter().filter(|text| text.path.starts_with(&dir)).collect()
}

fn manifests() -> Vec<(String, String)> {
    let all = texts(&root()).into_iter().filter(|text| text.path.ends_with("/Cargo.toml"));
    all.filter_map(|text| {
        let name = text.path.strip_prefix("crates/")?.strip_suffix("/Cargo.toml")?.to_owned();
        Some((name, text.content))
    })
    .collect()
}

#[track_caller]
fn none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn the_deciding_core_stays_small() {
    let sources = sources();
    let core = of_crate(&sources, "ha");
    assert!(!core.is_empty());
    let mut broken = Vec::new();
    for text in core {
        let lines = text.code().count();
        if lines > FILE_LIMIT {
            broken.push(format!("{} has {lines} lines", text.path));
        }
        for function in text.functions().iter().filter(|function| function.lines > FUNCTION_LIMIT) {
            broken.push(format!("{}: {} has {} lines", text.path, function.head, function.lines));
        }
    }
    none(&broken, "a file of ha has at most 400 lines without its tests, a function at most 70");
}

#[test]
fn the_deciding_core_answers_every_case_by_name() {
    let sources = sources();
    let mut broken = Vec::new();
    for text in of_crate(&sources, "ha") {
        for (number, line) in text.code().enumerate() {
            let line = line.trim_start();
            if line.starts_with("_ =>") || line.starts_with("_ if ") {
                broken.push(format!("{}:{}: {line}", text.path, number + 1));
            }
        }
    }
    none(&broken, "no wildcard arm in ha: a new case must be thought about everywhere");
}

#[test]
fn the_deciding_core_is_deterministic() {
    const WORDS: [&str; 6] = ["HashMap", "HashSet", "async ", "std::env", "std::fs", "println!"];
    let sources = sources();
    let mut broken = Vec::new();
    for text in of_crate(&sources, "ha") {
        for (number, line) in text.code().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            broken.extend(
                WORDS
                    .iter()
                    .filter(|word| line.contains(**word))
                    .map(|word| format!("{}:{}: {word}", text.path, number + 1)),
            );
        }
    }
    none(&broken, "ha computes values from values, in the same order every time");
}

#[test]
fn clocks_are_read_in_one_place() {
    let mut broken = Vec::new();
    for text in sources()
        .iter()
        .filter(|text| !text.path.starts_with("crates/clock/") && !text.path.ends_with("tidy.rs"))
    {
        for (number, line) in text.content.lines().enumerate() {
            if CLOCKS.iter().any(|clock| line.contains(clock)) && !line.trim_start().starts_with("//") {
                broken.push(format!("{}:{}: {}", text.path, number + 1, line.trim()));
            }
        }
    }
    none(&broken, "the time comes from clock::now() or clock::wall(), or is given");
}

#[test]
fn the_walls_stand() {
    let ours: Vec<&str> = WALLS.iter().map(|(name, _)| *name).collect();
    let mut broken = Vec::new();
    for (name, manifest) in manifests() {
        let Some((_, allowed)) = WALLS.iter().find(|(known, _)| *known == name) else {
            broken.push(format!("crates/{name} is not in the table of walls"));
            continue;
        };
        for used in keys(&manifest, "dependencies") {
            let inside = ours.contains(&used.as_str());
            if inside && !allowed.contains(&used.as_str()) {
                broken.push(format!("{name} uses {used}"));
            }
            if !inside && PURE.contains(&name.as_str()) {
                broken.push(format!("{name} uses {used} from outside"));
            }
        }
    }
    none(&broken, "a crate uses only what DESIGN's house allows");
}

#[test]
fn every_external_crate_has_a_reason() {
    let root = texts(&root()).into_iter().find(|text| text.path == "Cargo.toml").unwrap();
    let table = rows(&root.content, "workspace.dependencies");
    assert!(table.len() > 10);
    let broken: Vec<String> = table
        .iter()
        .filter(|row| !row.contains("path = ") && !row.contains('#'))
        .map(|row| (*row).to_owned())
        .collect();
    none(&broken, "a line of [workspace.dependencies] ends with a comment that says what the crate is for");
    let mut direct = Vec::new();
    for (name, manifest) in manifests() {
        for table in ["dependencies", "dev-dependencies", "build-dependencies"] {
            let foreign = rows(&manifest, table).into_iter().filter(|row| !row.contains("workspace = true"));
            direct.extend(foreign.map(|row| format!("{name}: {row}")));
        }
    }
    none(&direct, "versions are chosen in the root's table only");
}

#[test]
fn every_file_says_what_it_is() {
    let sources = sources();
    let broken: Vec<String> = sources
        .iter()
        .filter(|text| !text.content.starts_with("//! "))
        .map(|text| text.path.clone())
        .collect();
    none(&broken, "a Rust file begins with //! and one sentence");
}

#[test]
fn lints_are_silenced_with_a_reason() {
    let mut broken = Vec::new();
    for text in sources().iter().filter(|text| !text.path.ends_with("tidy.rs")) {
        for (number, line) in text.content.lines().enumerate() {
            let allows =
                line.trim_start().starts_with("#[allow(") || line.trim_start().starts_with("#![allow(");
            // A module that several test programs share is used by each in part, which no expectation can express.
            let shared =
                text.path.contains("/tests/") && line.contains("dead_code") && line.contains("reason = ");
            if allows && !shared {
                broken.push(format!("{}:{}: {}", text.path, number + 1, line.trim()));
            }
        }
    }
    none(&broken, "use #[expect(lint, reason = \"…\")]: it also tells when it is no longer needed");
}

#[test]
fn documents_have_one_title() {
    let mut broken = Vec::new();
    for text in texts(&root()).iter().filter(|text| text.is("md")) {
        let mut fenced = false;
        let mut titles = 0;
        for line in text.content.lines() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if !fenced && line.starts_with("# ") {
                titles += 1;
            }
        }
        if titles != 1 || !text.content.starts_with("# ") {
            broken.push(format!("{}: {titles} titles, or not at the top", text.path));
        }
    }
    none(&broken, "a Markdown file has exactly one title, its first line");
}

#[test]
fn no_unknown_host_is_named() {
    let mut broken = Vec::new();
    for text in texts(&root()) {
        // The lock file names the registry of its packages in the form that cargo wants.
        if text.path.ends_with("Cargo.lock") {
            continue;
        }
        for host in hosts(&text.content) {
            let example = host.split('.').any(|part| part == "example")
                || host.ends_with(".local")
                || host.ends_with(".test");
            if !example && !KNOWN_HOSTS.contains(&host.as_str()) {
                broken.push(format!("{}: {host}", text.path));
            }
        }
    }
    broken.dedup();
    none(&broken, "only documents of known projects and example hosts are linked");
}

/// The states that a row of the contract may have, by their first words.
const STATES: [&str; 8] = ["works", "differs", "code", "not yet", "refused", "warned", "not part", "see "];

#[test]
fn the_contract_names_tests_that_exist() {
    let all = texts(&root());
    let contract =
        all.iter().find(|text| text.path == "docs/patroni-contract.md").map(|text| text.content.as_str());
    let mut broken = Vec::new();
    let mut named = 0;
    for line in contract
        .unwrap_or_default()
        .lines()
        .filter(|line| line.starts_with("| ") && *line != "| row | state | shown by |")
    {
        let cells: Vec<&str> = line.trim_matches('|').split(" |").map(str::trim).collect();
        let [row, state, shown] = cells.as_slice() else {
            broken.push(format!("{line}: three cells make a row"));
            continue;
        };
        if !STATES.iter().any(|known| state.starts_with(known)) {
            broken.push(format!("{row}: {state:?} is no state"));
        }
        let tests: Vec<(&str, &str)> = shown.split('`').filter_map(|words| words.split_once(": ")).collect();
        if tests.is_empty()
            && ["works", "differs", "code"].iter().any(|state_word| state.starts_with(state_word))
            && !shown.contains("](")
            && !shown.starts_with("see ")
            && !shown.starts_with("no ")
        {
            broken.push(format!("{row}: nothing shows it"));
        }
        for (place, names) in tests {
            for name in names.split(", ") {
                named += 1;
                if !is_a_test(&all, place, name) {
                    broken.push(format!("{row}: there is no test {place}: {name}"));
                }
            }
        }
    }
    assert!(named > 50, "only {named} tests are named");
    none(&broken, "rows of docs/patroni-contract.md");
}

/// Whether `name` is a story, a script, or in the crate `place` a file of tests, a module with tests, or a test.
fn is_a_test(all: &[Text], place: &str, name: &str) -> bool {
    let begins = name.strip_suffix('…');
    let fits = |stem: &str| begins.map_or(stem == name, |begin| stem.starts_with(begin));
    let stem = |path: &str| {
        path.rsplit('/').next().and_then(|file| file.split('.').next()).unwrap_or_default().to_owned()
    };
    let below =
        |directory: &str| all.iter().filter(move |text| text.path.starts_with(directory)).collect::<Vec<_>>();
    match place {
        "stories" => below("crates/lab/tests/stories/").iter().any(|text| fits(&stem(&text.path))),
        "ha scripts" => below("crates/ha/tests/scripts/stories/").iter().any(|text| fits(&stem(&text.path))),
        krate => {
            let inside = format!("crates/{krate}/");
            let head = format!("fn {name}(");
            below(&inside).iter().any(|text| {
                let part = text.path.strip_prefix(&inside).unwrap_or_default();
                let tests = part.starts_with("tests/")
                    || text.content.contains("#[test]")
                    || text.content.contains("#[tokio::test");
                text.is("rs") && tests && (part.split(['/', '.']).any(&fits) || text.content.contains(&head))
            })
        }
    }
}

#[test]
fn nobody_is_asked_to_report_a_bug() {
    let words = ["report it as", " a BUG"].concat();
    let broken: Vec<String> =
        sources().iter().filter(|text| text.content.contains(&words)).map(|text| text.path.clone()).collect();
    none(&broken, "log readers take these words for a crash");
}
