//! Stories: a few lines in, the whole transcript of decisions out. `stories/NAME.txt` is the story, `stories/NAME.golden` the
//! transcript; `UPDATE=1 cargo test -p baton-ha --test scripts` writes the transcripts anew, to be reviewed as a diff.
#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "helpers of a test")]

mod stage;

use std::fs;
use std::path::Path;

#[test]
fn every_story_is_told_as_before() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts/stories");
    let mut stories: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    stories.sort();
    assert!(stories.len() >= 15, "only {} stories", stories.len());
    let update = std::env::var_os("UPDATE").is_some();
    let mut changed = Vec::new();
    for story in stories {
        let told = stage::tell(&fs::read_to_string(&story).unwrap());
        let golden = story.with_extension("golden");
        if update {
            fs::write(&golden, &told).unwrap();
        } else if fs::read_to_string(&golden).unwrap_or_default() != told {
            changed.push(format!("{}:\n{told}", story.display()));
        }
    }
    assert!(changed.is_empty(), "told differently (UPDATE=1 accepts it):\n{}", changed.join("\n"));
}
