//! `restapi:`

use super::Row;
use crate::kind::Kind;

pub(super) const ROWS: &[Row] = &[
    Row::new("restapi.listen", Kind::Listen, "Where the REST API listens.")
        .env(&["PATRONI_RESTAPI_LISTEN"])
        .required(),
    Row::new("restapi.connect_address", Kind::Address, "How the others reach it; `listen` unless said.")
        .env(&["PATRONI_RESTAPI_CONNECT_ADDRESS"]),
    Row::new("restapi.authentication.username", Kind::Text, "The user that unsafe verbs ask for.")
        .env(&["PATRONI_RESTAPI_USERNAME"]),
    Row::new("restapi.authentication.password", Kind::Secret, "The password of that user.")
        .env(&["PATRONI_RESTAPI_PASSWORD"]),
    Row::new("restapi.certfile", Kind::Path, "The server's certificate; with it the API speaks https.")
        .env(&["PATRONI_RESTAPI_CERTFILE"]),
    Row::new("restapi.keyfile", Kind::Path, "The key of the certificate.").env(&["PATRONI_RESTAPI_KEYFILE"]),
    Row::new("restapi.keyfile_password", Kind::Secret, "The password of the key.")
        .env(&["PATRONI_RESTAPI_KEYFILE_PASSWORD"]),
    Row::new("restapi.cafile", Kind::Path, "The CA of client certificates.").env(&["PATRONI_RESTAPI_CAFILE"]),
    Row::new("restapi.ciphers", Kind::Text, "Permitted cipher suites of TLS 1.2, in OpenSSL's words.")
        .env(&["PATRONI_RESTAPI_CIPHERS"]),
    Row::new(
        "restapi.verify_client",
        Kind::Choice(&["none", "optional", "required"]),
        "Who needs a client certificate.",
    )
    .default("none")
    .env(&["PATRONI_RESTAPI_VERIFY_CLIENT"]),
    Row::new("restapi.http_extra_headers", Kind::TextMap, "Headers that every answer gets.")
        .env(&["PATRONI_RESTAPI_HTTP_EXTRA_HEADERS"]),
    Row::new("restapi.https_extra_headers", Kind::TextMap, "Headers that every answer over TLS gets.")
        .env(&["PATRONI_RESTAPI_HTTPS_EXTRA_HEADERS"]),
    Row::new("restapi.allowlist", Kind::Texts, "Addresses, networks and hosts that may use unsafe verbs.")
        .env(&["PATRONI_RESTAPI_ALLOWLIST"]),
    Row::new("restapi.allowlist_include_members", Kind::Bool, "Whether the members may use them as well.")
        .default("false")
        .env(&["PATRONI_RESTAPI_ALLOWLIST_INCLUDE_MEMBERS"]),
    Row::new(
        "restapi.request_queue_size",
        Kind::Int(1, 65_535),
        "The backlog of the listening socket; at least 128.",
    )
    .default("5")
    .env(&["PATRONI_RESTAPI_REQUEST_QUEUE_SIZE"]),
    Row::new(
        "restapi.server_tokens",
        Kind::Choice(&["Original", "Minimal", "ProductOnly"]),
        "What the Server header tells.",
    )
    .default("Original")
    .env(&["PATRONI_RESTAPI_SERVER_TOKENS"]),
    Row::new(
        "baton.strict_primary",
        Kind::Bool,
        "Whether GET /primary is 200 only while PostgreSQL accepts writes, as /primary?writable always is.",
    )
    .default("false"),
    Row::new("restapi.thread_pool_size", Kind::Int(1, i64::MAX), "Patroni's REST thread pool.")
        .env(&["PATRONI_RESTAPI_THREAD_POOL_SIZE"])
        .ignored("Baton's REST API has no such pool"),
];
