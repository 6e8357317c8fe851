//! The router: listener, startup packet, choice, relay, hold, cancel.
