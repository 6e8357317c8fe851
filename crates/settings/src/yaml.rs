//! YAML text → a tree with places. Duplicate keys are all reported; a syntax error ends the reading of its file.
//!
//! Limits keep a hostile or mistaken file from taking the agent's memory: size, depth, and the number of nodes that
//! aliases may multiply.

use crate::node::{Content, Key, Node};
use crate::problem::{Findings, Place, Problems};
use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span};
use serde_json::Value;
use std::collections::HashMap;
use std::sync::Arc;

/// The largest file that is read, in bytes.
pub(crate) const MAX_BYTES: u64 = 1 << 20;
const MAX_DEPTH: usize = 40;
const MAX_NODES: usize = 100_000;

/// Reads YAML that is not a settings file (`edit-config`) as JSON. `name` stands before line and column in errors.
pub fn to_json(name: &str, text: &str) -> Result<Value, Problems> {
    let mut findings = Findings::default();
    let node = parse(name, text, &mut findings);
    match node {
        Some(node) if findings.errors.is_empty() => Ok(node.to_json()),
        None if findings.errors.is_empty() => Ok(Value::Null),
        _ => Err(Problems(findings.errors)),
    }
}

/// The document in `text`; `None` when it is empty or broken, the latter with an error.
pub(crate) fn parse(name: &str, text: &str, findings: &mut Findings) -> Option<Node> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    let mut builder = Builder::new(name, findings);
    let mut parser = Parser::new_from_str_with_options(text, options);
    while let Some(next) = parser.next_event() {
        match next {
            Ok((event, span)) => {
                if !builder.take(event, span) {
                    return None;
                }
            }
            Err(error) => {
                builder.syntax(&error, text);
                return None;
            }
        }
    }
    builder.root
}

/// A collection that is still open.
enum Open {
    List(Vec<Node>),
    Map { entries: Vec<(Key, Node)>, key: Option<Key>, merges: Vec<Node> },
}

struct Frame {
    place: Place,
    anchor: usize,
    open: Open,
}

struct Builder<'a> {
    name: Arc<str>,
    findings: &'a mut Findings,
    stack: Vec<Frame>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    documents: usize,
    root: Option<Node>,
}

impl<'a> Builder<'a> {
    fn new(name: &str, findings: &'a mut Findings) -> Builder<'a> {
        let name = Arc::from(name);
        Builder {
            name,
            findings,
            stack: Vec::new(),
            anchors: HashMap::new(),
            nodes: 0,
            documents: 0,
            root: None,
        }
    }

    fn place(&self, line: usize, column: usize) -> Place {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Place::File { name: self.name.clone(), line: number(line), column: number(column.saturating_add(1)) }
    }

    /// Takes in one event; false when reading must end.
    fn take(&mut self, event: Event<'_>, span: Span) -> bool {
        let place = self.place(span.start.line(), span.start.col());
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    self.findings.error(
                        &place,
                        "",
                        "a second YAML document begins here: one file holds one document",
                    );
                    return false;
                }
                true
            }
            Event::Scalar(text, style, anchor, tag) => {
                let plain = matches!(style, ScalarStyle::Plain) && tag.is_none();
                self.node(Node::text(place, text.into_owned(), plain), anchor, 1)
            }
            Event::SequenceStart(_, anchor, _) => self.open(place, anchor, Open::List(Vec::new())),
            Event::MappingStart(_, anchor, _) => {
                self.open(place, anchor, Open::Map { entries: Vec::new(), key: None, merges: Vec::new() })
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some((node, size)) => self.node(node, 0, size),
                None => {
                    self.findings.error(
                        &place,
                        "",
                        "an alias stands inside the value it names: write the value out",
                    );
                    false
                }
            },
            _ => true,
        }
    }

    fn open(&mut self, place: Place, anchor: usize, open: Open) -> bool {
        if self.stack.len() >= MAX_DEPTH {
            self.findings.error(
                &place,
                "",
                format!("more than {MAX_DEPTH} levels of nesting: flatten the file"),
            );
            return false;
        }
        self.stack.push(Frame { place, anchor, open });
        true
    }

    fn close(&mut self) -> bool {
        let Some(frame) = self.stack.pop() else { return true };
        let content = match frame.open {
            Open::List(items) => Content::List(items),
            Open::Map { mut entries, merges, .. } => {
                for merge in merges {
                    absorb(&mut entries, merge);
                }
                Content::Map(entries)
            }
        };
        let node = Node { place: frame.place, content };
        self.node(node, frame.anchor, 1)
    }

    /// Puts a finished node where it belongs: as the document, an item, a key or a value.
    fn node(&mut self, node: Node, anchor: usize, size: usize) -> bool {
        self.nodes = self.nodes.saturating_add(size);
        if self.nodes > MAX_NODES {
            let what = format!("more than {MAX_NODES} values, aliases counted in full: shorten the file");
            self.findings.error(&node.place, "", what);
            return false;
        }
        if anchor != 0 {
            let size = count(&node);
            self.anchors.insert(anchor, (node.clone(), size));
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(node);
            return true;
        };
        match &mut frame.open {
            Open::List(items) => items.push(node),
            Open::Map { entries, key, merges } => match key.take() {
                None => match &node.content {
                    Content::Scalar { text, .. } => {
                        *key = Some(Key { text: text.clone(), place: node.place })
                    }
                    Content::List(_) | Content::Map(_) => {
                        self.findings.error(
                            &node.place,
                            "",
                            "a list or mapping stands where a key is expected",
                        );
                        return false;
                    }
                },
                Some(found) if found.text == "<<" => merges.push(node),
                Some(found) => match entries.iter().find(|(k, _)| k.text == found.text) {
                    Some((first, _)) => {
                        let at = match &first.place {
                            Place::File { line, .. } => format!("line {line}"),
                            other => other.to_string(),
                        };
                        let what =
                            format!("duplicate key {:?}: it is also in {at}; keep one of them", found.text);
                        self.findings.error(&found.place, "", what);
                    }
                    None => entries.push((found, node)),
                },
            },
        }
        true
    }

    fn syntax(&mut self, error: &ScanError, text: &str) {
        let marker = error.marker();
        let place = self.place(marker.line(), marker.col());
        let tab = text
            .lines()
            .nth(marker.line().saturating_sub(1))
            .is_some_and(|line| line.chars().take_while(|c| c.is_whitespace()).any(|c| c == '\t'));
        let what = if tab {
            "a tab is used for indentation, which YAML does not allow: use spaces".to_owned()
        } else {
            format!("not valid YAML: {}", error.info())
        };
        self.findings.error(&place, "", what);
    }
}

/// The merge key `<<`: keys of the merged mapping (or list of them) count where they are not given otherwise.
fn absorb(entries: &mut Vec<(Key, Node)>, merge: Node) {
    match merge.content {
        Content::Map(merged) => {
            for (key, value) in merged {
                if !entries.iter().any(|(k, _)| k.text == key.text) {
                    entries.push((key, value));
                }
            }
        }
        Content::List(items) => items.into_iter().for_each(|item| absorb(entries, item)),
        Content::Scalar { .. } => {}
    }
}

fn count(node: &Node) -> usize {
    match &node.content {
        Content::Scalar { .. } => 1,
        Content::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Content::Map(entries) => 1 + entries.iter().map(|(_, value)| 1 + count(value)).sum::<usize>(),
    }
}
