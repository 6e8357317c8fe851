//! The decisions: what a member does, given what it sees.
