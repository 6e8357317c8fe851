//! The known word nearest to a mistyped one.

/// The candidate that `word` was most likely meant to be: the one with the fewest edits, if they are few enough.
#[must_use]
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let folded = fold(word);
    let allowed = (folded.len() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| (edits(&folded, &fold(candidate)), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Case and the choice between `-` and `_` are not what a person mistypes but what they did not know.
fn fold(word: &str) -> Vec<char> {
    word.chars().take(100).map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() }).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn edits(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |row: &[usize], k: usize| row.get(k).copied().unwrap_or(usize::MAX - 1);
            let mut best = (at(&row, j) + usize::from(x != y)).min(at(&row, j + 1) + 1).min(at(&next, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn typing_errors_are_understood() {
        let keys = ["data_dir", "bin_dir", "config_dir", "listen", "pg_hba"];
        assert_eq!(nearest("data_dirr", keys), Some("data_dir"));
        assert_eq!(nearest("datadir", keys), Some("data_dir"));
        assert_eq!(nearest("data-dir", keys), Some("data_dir"));
        assert_eq!(nearest("lisetn", keys), Some("listen"));
        assert_eq!(nearest("zookeeper", keys), None);
        assert_eq!(nearest("", keys), None);
    }

    #[test]
    fn the_shortest_way_wins() {
        assert_eq!(nearest("bin_di", ["config_dir", "bin_dir"]), Some("bin_dir"));
        assert_eq!(nearest("pause", ["resume", "paused", "pause"]), Some("pause"));
    }
}
