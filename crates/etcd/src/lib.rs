//! etcd over gRPC: endpoints, keys, records, compare-and-swap, lease, watch.
