//! The cluster, this member, its tags, its log, its watchdog, and `ctl:`.

use super::{Row, Support};
use crate::kind::Kind;

pub(super) const ROWS: &[Row] = &[
    Row::new("scope", Kind::Text, "The name of the cluster: the last part of the prefix of its keys in etcd.")
        .env(&["PATRONI_SCOPE"])
        .required(),
    Row::new("namespace", Kind::Text, "The first part of the prefix of the cluster's keys in etcd.")
        .default("service")
        .env(&["PATRONI_NAMESPACE"]),
    Row::new("name", Kind::Text, "The name of this member, unique in the cluster.").env(&["PATRONI_NAME"]).required(),
    Row::new("tags.*", Kind::Text, "Tags of this member: nofailover, noloadbalance, clonefrom, or any of your own."),
    Row::new("log.type", Kind::Choice(&["plain", "json"]), "The form of log lines.")
        .default("plain")
        .env(&["PATRONI_LOG_TYPE"]),
    Row::new(
        "log.level",
        Kind::Choice(&["DEBUG", "INFO", "WARNING", "WARN", "ERROR", "CRITICAL", "NOTSET", "FATAL"]),
        "The least important level that is logged.",
    )
    .default("INFO")
    .env(&["PATRONI_LOG_LEVEL", "PATRONI_LOGLEVEL"]),
    Row::new("log.traceback_level", Kind::Text, "The level at which Patroni shows tracebacks.")
        .default("ERROR")
        .env(&["PATRONI_LOG_TRACEBACK_LEVEL"])
        .support(Support::Limited {
            fine: &["ERROR"],
            warned: &["*"],
            why: "Baton has no tracebacks, the line of an error says its whole cause",
        }),
    Row::new(
        "log.format",
        Kind::LogFormat,
        "Python's format of log lines, or with type json a list of its fields, each perhaps with a key: `{levelname: level}`.",
    )
    .default("'%(asctime)s %(levelname)s: %(message)s'")
    .env(&["PATRONI_LOG_FORMAT", "PATRONI_LOGFORMAT"]),
    Row::new("log.dateformat", Kind::Text, "The time in log lines, as strftime has it.")
        .env(&["PATRONI_LOG_DATEFORMAT", "PATRONI_LOG_DATEFMT"]),
    Row::new("log.static_fields", Kind::TextMap, "Fields that every JSON log line gets.")
        .env(&["PATRONI_LOG_STATIC_FIELDS"]),
    Row::new("log.max_queue_size", Kind::Int(1, i64::MAX), "How many log lines may wait to be written.")
        .default("1000")
        .env(&["PATRONI_LOG_MAX_QUEUE_SIZE"]),
    Row::new("log.dir", Kind::Path, "The directory of patroni.log; standard error when missing.")
        .env(&["PATRONI_LOG_DIR"]),
    Row::new("log.mode", Kind::Mode, "The permissions of the log file, such as 0644.")
        .env(&["PATRONI_LOG_MODE"]),
    Row::new("log.file_num", Kind::Int(0, 10_000), "How many old log files are kept.")
        .default("4")
        .env(&["PATRONI_LOG_FILE_NUM"]),
    Row::new("log.file_size", Kind::Bytes(1, i64::MAX), "The size at which a new log file begins.")
        .default("25000000")
        .env(&["PATRONI_LOG_FILE_SIZE"]),
    Row::new("log.loggers", Kind::TextMap, "Levels of single parts of the program: agent, etcd, postgres, router, or a module of them.")
        .env(&["PATRONI_LOG_LOGGERS"]),
    Row::new("log.deduplicate_heartbeat_logs", Kind::Bool, "Whether a heartbeat line that repeats is left out.")
        .default("false")
        .env(&["PATRONI_LOG_DEDUPLICATE_HEARTBEAT_LOGS"]),
    Row::new("watchdog.mode", Kind::Choice(&["off", "automatic", "required"]), "Whether a watchdog device is used.")
        .default("automatic"),
    Row::new("watchdog.device", Kind::Path, "The watchdog device.").default("/dev/watchdog"),
    Row::new("watchdog.driver", Kind::Choice(&["default", "testing"]), "The driver of the device.").default("default"),
    Row::new("watchdog.safety_margin", Kind::Int(-1, 3600), "Seconds between the watchdog's end and the ttl's; -1 is half.")
        .default("5"),
    Row::new("ctl.insecure", Kind::Bool, "Whether REST certificates go unverified.")
        .default("false")
        .env(&["PATRONI_CTL_INSECURE"]),
    Row::new("ctl.cacert", Kind::Path, "The CA that REST certificates are verified with.")
        .env(&["PATRONI_CTL_CACERT"]),
    Row::new("ctl.certfile", Kind::Path, "The client certificate for REST calls.")
        .env(&["PATRONI_CTL_CERTFILE"]),
    Row::new("ctl.keyfile", Kind::Path, "The key of the client certificate.")
        .env(&["PATRONI_CTL_KEYFILE"]),
    Row::new("ctl.keyfile_password", Kind::Secret, "The password of that key.")
        .env(&["PATRONI_CTL_KEYFILE_PASSWORD"]),
    Row::new("ctl.authentication.username", Kind::Text, "The user of REST calls to unsafe verbs.")
        .env(&["PATRONI_CTL_USERNAME"]),
    Row::new("ctl.authentication.password", Kind::Secret, "The password of that user.").env(&["PATRONI_CTL_PASSWORD"]),
    Row::new("thread_pool_size", Kind::Int(1, i64::MAX), "Patroni's thread pool.")
        .env(&["PATRONI_THREAD_POOL_SIZE"])
        .ignored("Baton has no such pool"),
    Row::new("thread_stack_size", Kind::Bytes(1, i64::MAX), "Patroni's thread stack.")
        .env(&["PATRONI_THREAD_STACK_SIZE"])
        .ignored("Baton chooses its stacks itself"),
];
