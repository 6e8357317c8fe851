//! Input that is bad in the same way every time: seeds of the fuzz targets, and numbers to change them by.

use std::fs;
use std::path::Path;

/// The same numbers every time (xorshift).
pub struct Dice(pub u64);

impl Dice {
    /// A number below this one.
    pub fn roll(&mut self, below: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % below.max(1) as u64).expect("it is smaller")
    }
}

/// The seeds of a fuzz target, in the order of their names.
#[must_use]
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let entries = fs::read_dir(&dir).expect("the seeds of every target are kept");
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.sort();
    assert!(files.len() > 3, "{}", dir.display());
    files.iter().map(|file| fs::read(file).expect("a seed can be read")).collect()
}
