//! The YAML as typed, then as meant; environment; dynamic configuration and its merge rules.
