//! What docs/vip.md tells people to write: tests use these very lines, with the places of this machine put in.

use std::fs;
use std::path::Path;

/// The first example in this language below the line of the document that begins so. One that is not there fails the test.
pub(crate) fn example(below: &str, language: &str) -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/vip.md");
    let text = fs::read_to_string(file).unwrap();
    let begin = format!("\n```{language}\n");
    let example = text
        .split_once(&format!("\n{below}"))
        .and_then(|(_, text)| text.split_once(&begin))
        .and_then(|(_, text)| text.split_once("\n```"));
    assert!(example.is_some(), "docs/vip.md has no example in {language:?} below {below:?}");
    let (example, _) = example.unwrap();
    format!("{example}\n")
}

/// With other words in places that the example must have.
pub(crate) fn with(example: &str, places: &[(&str, &str)]) -> String {
    places.iter().fold(example.to_owned(), |text, (place, word)| {
        assert!(text.contains(place), "{place:?} is not in {text}");
        text.replace(place, word)
    })
}
