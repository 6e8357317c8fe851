//! What an agent costs: the proportional share of memory (PSS) of the agent and its guard.

use crate::node::Node;
use std::fs;

/// In kB; `None` when a process does not run, or its memory may not be read.
pub(super) fn pss_of_agent_and_guard(node: &Node) -> Option<u64> {
    let processes = node.baton_processes();
    let shares: Option<Vec<u64>> = processes.iter().map(|process| pss(process.pid)).collect();
    shares.filter(|shares| !shares.is_empty()).map(|shares| shares.iter().sum())
}

/// The same of any process.
pub(crate) fn pss(pid: i32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::pss;

    #[test]
    fn the_share_of_this_process_is_read() {
        assert!(pss(i32::try_from(std::process::id()).unwrap()).unwrap() > 100);
    }
}
