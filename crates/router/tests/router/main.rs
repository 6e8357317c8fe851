//! The router on a real etcd and real PostgreSQL servers; the tests write the keys that agents would write.

mod cancels;
mod edges;
mod etcd_away;
mod harness;
mod holding;
mod terms;
mod tls;
