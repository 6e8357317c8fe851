//! The agent: observe, decide, act; REST API; guard.
