//! Hosts without io_uring: those that forbid it, and those that only let it be set up.

use crate::harness::{RunningRouter, World, config, connect};
use io_uring::IoUring;
use router::{Error, Io, Router};
use std::sync::LazyLock;

/// Whether the kernel gives this process what the router needs, asked without the router.
pub(crate) fn is_io_uring_here() -> bool {
    static HERE: LazyLock<bool> = LazyLock::new(|| {
        let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(8);
        ring.and_then(|ring: IoUring| ring.submit()).is_ok()
    });
    *HERE
}

/// From here on this system call fails in this thread, and in those that it starts: as in a container that does not allow it.
#[expect(unsafe_code, reason = "a filter of system calls has no safe wrapper")]
fn forbid(call: libc::c_long) {
    let step = |code, jf, k| libc::sock_filter { code, jt: 0, jf, k };
    let mut steps = [
        // The number of the call; is it that one? Then it fails, else it is allowed.
        step(0x20, 0, 0),
        step(0x15, 1, call as u32),
        step(0x06, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(0x06, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: 4, filter: steps.as_mut_ptr() };
    // SAFETY: both calls concern this thread alone; the filter and its steps live until they have been copied.
    let set = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            | libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
    };
    assert_eq!(set, 0);
}

/// What comes of it where that system call is forbidden.
fn without<T: Send + 'static>(call: libc::c_long, what: impl FnOnce() -> T + Send + 'static) -> T {
    let runtime = tokio::runtime::Handle::current();
    let whole = move || {
        forbid(call);
        let _in_runtime = runtime.enter();
        what()
    };
    std::thread::spawn(whole).join().unwrap()
}

const CALLS: [libc::c_long; 2] = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_io_uring_busy_sessions_are_served_like_all_others() {
    let world = World::start(1, |_| {}).await;
    world.lead(1).await;
    for call in CALLS {
        let mut config = config(world.etcd_server.client);
        config.io = Io::Auto;
        let router = without(call, move || RunningRouter::start(config));
        let client = connect(router.address("primary")).await.unwrap();
        for number in 0..300 {
            assert_eq!(client.ask(&format!("select {number}")).await.unwrap(), number.to_string());
        }
        let metrics = router.get("/metrics").await;
        for line in ["baton_router_carried 0", "baton_router_carrier_up 0"] {
            assert!(metrics.lines().any(|each| each == line), "{metrics}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_that_must_have_io_uring_does_not_start_without_it() {
    for call in CALLS {
        let mut config = config(1);
        config.io = Io::Uring;
        let refused = without(call, move || Router::bind(config).err()).expect("it does not start");
        let why = refused.to_string();
        assert!(matches!(refused, Error::NoCarrier(_)));
        assert!(why.contains("os error 1") && why.contains("allow io_uring_setup"), "{why}");
        assert!(why.contains("set router.io to auto"), "{why}");
    }
}
