//! The PostgreSQL on this host: postmaster, control file, configuration, probe, replication commands, clone, rewind, slots.
