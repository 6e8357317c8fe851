//! The difference that `edit-config` is about to make, as a unified diff of the two sorted documents.

use similar::TextDiff;

/// The lines to print; empty when nothing changes.
pub(crate) fn diff(before: &str, after: &str) -> String {
    if before == after {
        return String::new();
    }
    let difference = TextDiff::from_lines(before, after);
    let mut out = String::from("--- \n+++ \n");
    for hunk in difference.unified_diff().context_radius(3).iter_hunks() {
        out.push_str(&hunk.to_string());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::diff;

    #[test]
    fn changed_lines_start_with_their_sign() {
        insta::assert_snapshot!(diff("a: 1\nb: 2\nttl: 30\n", "a: 1\nb: 2\nttl: 20\n"), @r"
        --- 
        +++ 
        @@ -1,3 +1,3 @@
         a: 1
         b: 2
        -ttl: 30
        +ttl: 20
        ");
        assert_eq!(diff("a: 1\n", "a: 1\n"), "");
    }
}
