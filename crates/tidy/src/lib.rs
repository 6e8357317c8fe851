//! Reads the repository for the rules in tests/tidy.rs: which files there are, what is code and what is a test, where
//! functions begin and end. It trusts rustfmt's layout, which `make check` enforces before.

use std::fs;
use std::path::{Path, PathBuf};

/// A text file of the repository.
#[derive(Clone, Debug)]
pub struct Text {
    /// From the root of the repository, with `/`.
    pub path: String,
    pub content: String,
}

/// A function in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its first line, such as `fn decide(`.
    pub head: String,
    /// From the line with `fn` to the closing brace.
    pub lines: usize,
}

/// Directories that hold nothing of ours.
const SKIPPED: [&str; 4] = ["target", ".git", ".lab", "node_modules"];

/// All text files below `root`, sorted. What is not text is left out.
#[must_use]
pub fn texts(root: &Path) -> Vec<Text> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                if !SKIPPED.contains(&name.as_str()) {
                    open.push(path);
                }
            } else if let Ok(content) = fs::read_to_string(&path) {
                let path = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
                found.push(Text { path, content });
            }
        }
    }
    found.sort_by(|one, two| one.path.cmp(&two.path));
    found
}

/// The root of the repository this crate belongs to.
#[must_use]
pub fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

impl Text {
    /// Whether its name ends in `.extension`.
    #[must_use]
    pub fn is(&self, extension: &str) -> bool {
        Path::new(&self.path).extension().is_some_and(|known| known == extension)
    }

    /// The lines of a Rust file without its module of tests, which ends the file.
    pub fn code(&self) -> impl Iterator<Item = &str> {
        self.content.lines().take_while(|line| *line != "#[cfg(test)]")
    }

    /// The functions of a Rust file, tests left out.
    #[must_use]
    pub fn functions(&self) -> Vec<Function> {
        let lines: Vec<&str> = self.code().collect();
        let mut functions = Vec::new();
        for (at, line) in lines.iter().enumerate() {
            let head = line.trim_start();
            let is_function = head.split(' ').take(5).any(|word| word == "fn") && !head.starts_with("//");
            if !is_function || head.ends_with(';') {
                continue;
            }
            let end = format!("{}}}", &line[..line.len() - head.len()]);
            let length = lines.iter().skip(at).position(|line| *line == end).unwrap_or_default();
            functions.push(Function { head: head.to_owned(), lines: length + 1 });
        }
        functions
    }
}

/// The keys of one table of a manifest, such as `dependencies`: `name` of `name.workspace = true` and `name = "1"`.
#[must_use]
pub fn keys(manifest: &str, table: &str) -> Vec<String> {
    rows(manifest, table)
        .into_iter()
        .filter_map(|row| {
            let key = row.split(['=', '.', ' ']).next()?;
            Some(key.trim().trim_matches('"').to_owned())
        })
        .collect()
}

/// The lines of one table of a manifest that are neither empty nor comments.
#[must_use]
pub fn rows<'a>(manifest: &'a str, table: &str) -> Vec<&'a str> {
    let head = format!("[{table}]");
    let inside = manifest.lines().skip_while(|line| line.trim() != head).skip(1);
    let inside = inside.take_while(|line| !line.starts_with('['));
    inside.filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')).collect()
}

/// The hosts that a text names in web addresses, where they are real names: not numbers, not a single word.
#[must_use]
pub fn hosts(content: &str) -> Vec<String> {
    let starts = content.match_indices("://").map(|(at, mark)| at + mark.len());
    let hosts = starts.filter_map(|at| {
        let rest = content.get(at..)?;
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '@')))
            .unwrap_or(rest.len());
        let host = rest.get(..end)?.rsplit('@').next()?.trim_end_matches('.');
        let (_, last) = host.rsplit_once('.')?;
        (last.len() > 1 && last.chars().all(|c| c.is_ascii_alphabetic())).then(|| host.to_owned())
    });
    hosts.collect()
}

#[cfg(test)]
mod tests {
    use super::{Function, Text, hosts, keys, rows};

    #[test]
    fn functions_are_measured_without_tests() {
        let content = "fn one() {\n    two();\n}\n\nimpl A {\n    pub async fn two(\n        a: u8,\n    ) {\n    }\n    fn three();\n}\n\n#[cfg(test)]\nmod tests {\n    fn four() {\n    }\n}\n";
        let text = Text { path: "a.rs".to_owned(), content: content.to_owned() };
        let expected = [("fn one() {", 3), ("pub async fn two(", 4)];
        let expected = expected.map(|(head, lines)| Function { head: head.to_owned(), lines });
        assert_eq!(text.functions(), expected);
        assert_eq!(text.code().count(), 12);
    }

    #[test]
    fn manifests_are_read_table_by_table() {
        let manifest = "[package]\nname = \"x\"\n\n[dependencies]\n# why\ntypes.workspace = true\nserde = \"1\" # y\n\n[lints]\nworkspace = true\n";
        assert_eq!(keys(manifest, "dependencies"), ["types", "serde"]);
        assert_eq!(rows(manifest, "dependencies").len(), 2);
        assert!(keys(manifest, "dev-dependencies").is_empty());
    }

    #[test]
    fn only_real_host_names_count() {
        let content = "http://127.0.0.1:1/ etcd3://h:1/x https://www.postgresql.org/docs postgres://u@db.example.com:5/";
        assert_eq!(hosts(content), ["www.postgresql.org", "db.example.com"]);
    }
}
