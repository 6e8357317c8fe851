//! Against real etcd servers, of every version that `BATON_TEST_ETCD_BINS` names.

mod cluster;
mod faults;
mod lease;
mod lost_answers;
mod spoiled;
mod watch;
mod writes;
