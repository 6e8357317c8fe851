//! The bytes of the PostgreSQL protocol: the socket, the framing, the login.
//!
//! ```text
//! connect ─ [TLS] ─ StartupMessage ─> [SCRAM | md5 | cleartext | trust] ─> ReadyForQuery
//! ```
//!
//! Whatever arrives is treated as hostile: lengths are checked before memory is taken, texts need not be UTF-8, and
//! nothing here panics.

mod encryption;

use crate::connection::{ConnectTo, Mode, ServerError, SqlError};
use bytes::{Buf, BytesMut};
use encryption::{Binding, Opened, Plan, SslMode};
use fallible_iterator::FallibleIterator;
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::backend::{
    DataRowBody, ErrorResponseBody, Header, Message, RowDescriptionBody,
};
use postgres_protocol::message::{backend, frontend};
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

/// Longest single message. The longest that we ask for is a timeline history or the facts of a probe.
const MESSAGE_LIMIT: usize = 4 << 20;
/// Longest message before the login is done, when we do not know yet whom we talk to.
const LOGIN_MESSAGE_LIMIT: usize = 64 << 10;
/// Most messages before the login is done.
const LOGIN_MESSAGES: usize = 256;

/// The kinds of messages when WAL is sent.
pub(crate) const COPY_BOTH: u8 = b'W';
pub(crate) const COPY_DATA: u8 = backend::COPY_DATA_TAG;
pub(crate) const COPY_DONE: u8 = backend::COPY_DONE_TAG;
pub(crate) const COMMAND_COMPLETE: u8 = backend::COMMAND_COMPLETE_TAG;
/// Before the first WAL of an old timeline comes a row about the next one, or nothing but it.
const ROWS: [u8; 3] = [backend::ROW_DESCRIPTION_TAG, backend::DATA_ROW_TAG, b'N'];

/// Why a conversation ended; [`SqlError`] without the place.
pub(crate) enum Failure {
    Unreachable(io::Error),
    Silent,
    Refused(ServerError),
    Lost(io::Error),
    Nonsense(String),
    Login(&'static str),
    Tls(String),
}

impl Failure {
    /// With the words for a connection that was being opened.
    pub(crate) fn at(self, to: &ConnectTo, within: Duration) -> SqlError {
        let place = to.place();
        match self {
            Failure::Unreachable(source) => SqlError::Unreachable { place, source },
            Failure::Silent => SqlError::NoAnswer { place, within },
            Failure::Login(what) => SqlError::Login { place, user: to.user.clone(), what },
            Failure::Tls(what) => SqlError::Tls { place, what },
            other => other.after_login(place),
        }
    }

    /// With the words for a connection that was open.
    pub(crate) fn after_login(self, place: String) -> SqlError {
        match self {
            Failure::Refused(answer) => SqlError::Refused { place, answer },
            Failure::Unreachable(source) | Failure::Lost(source) => SqlError::Lost { place, source },
            Failure::Nonsense(what) => SqlError::Nonsense { place, what },
            Failure::Tls(what) => SqlError::Tls { place, what },
            Failure::Login(what) => SqlError::Nonsense { place, what: what.to_owned() },
            Failure::Silent => SqlError::Lost { place, source: io::ErrorKind::TimedOut.into() },
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send + Sync {}
impl Stream for TcpStream {}
impl Stream for UnixStream {}
impl Stream for TlsStream<TcpStream> {}

/// A socket with a PostgreSQL on its other end.
pub(crate) struct Wire {
    stream: Box<dyn Stream>,
    inbox: BytesMut,
    outbox: BytesMut,
    message_limit: usize,
    pub(crate) backend_pid: u32,
}

/// Connects, logs in and waits until the server is ready for the first query; with TLS as `sslmode` wants it.
pub(crate) async fn open(to: &ConnectTo, mode: Mode, settings: &[(&str, &str)]) -> Result<Wire, Failure> {
    if to.host.starts_with('/') {
        let opened = Opened { stream: by_socket(to).await?, encrypted: false, end_point: None };
        return start(opened, Binding::Disable, to, mode, settings).await;
    }
    let plan = Plan::of(to)?;
    let plain = async || {
        let stream = Box::new(by_address(to).await?);
        let opened = Opened { stream, encrypted: false, end_point: None };
        start(opened, plan.binding, to, mode, settings).await
    };
    let encrypted = async |must: bool| {
        let opened = encryption::encrypt(by_address(to).await?, to, &plan, must).await?;
        start(opened, plan.binding, to, mode, settings).await
    };
    match plan.mode {
        SslMode::Disable => plain().await,
        SslMode::Demand => encrypted(true).await,
        SslMode::Allow => match plain().await {
            Err(Failure::Refused(answer)) if lets_nobody_in(&answer) => encrypted(true).await,
            other => other,
        },
        SslMode::Prefer => match encrypted(false).await {
            Err(Failure::Tls(_)) => plain().await,
            Err(Failure::Refused(answer)) if lets_nobody_in(&answer) => plain().await,
            other => other,
        },
    }
}

/// Whether `pg_hba.conf` may let us in over the other kind of connection.
fn lets_nobody_in(answer: &ServerError) -> bool {
    answer.sqlstate == "28000"
}

/// Connects, asks whether TLS is spoken there, and waits for the answer, whatever it is.
pub(crate) async fn greeting(to: &ConnectTo) -> Result<(), Failure> {
    let mut stream: Box<dyn Stream> =
        if to.host.starts_with('/') { by_socket(to).await? } else { Box::new(by_address(to).await?) };
    let mut question = BytesMut::new();
    frontend::ssl_request(&mut question);
    stream.write_all(&question).await.map_err(Failure::Lost)?;
    stream.read_u8().await.map(drop).map_err(Failure::Lost)
}

async fn start(
    opened: Opened,
    binding: Binding,
    to: &ConnectTo,
    mode: Mode,
    settings: &[(&str, &str)],
) -> Result<Wire, Failure> {
    let mut wire = Wire {
        stream: opened.stream,
        inbox: BytesMut::new(),
        outbox: BytesMut::new(),
        message_limit: LOGIN_MESSAGE_LIMIT,
        backend_pid: 0,
    };
    let end_point = opened.end_point.filter(|_| binding != Binding::Disable);
    wire.start_up(to, mode, settings).await?;
    wire.log_in(to, binding, opened.encrypted, end_point).await?;
    wire.message_limit = MESSAGE_LIMIT;
    Ok(wire)
}

async fn by_socket(to: &ConnectTo) -> Result<Box<dyn Stream>, Failure> {
    let socket = Path::new(&to.host).join(format!(".s.PGSQL.{}", to.port));
    match UnixStream::connect(socket).await {
        Ok(stream) => Ok(Box::new(stream)),
        // The queue of a listener that no longer accepts is full: it exists, but it does not answer.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(Failure::Silent),
        Err(error) => Err(Failure::Unreachable(error)),
    }
}

async fn by_address(to: &ConnectTo) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect((to.host.as_str(), to.port)).await.map_err(Failure::Unreachable)?;
    stream.set_nodelay(true).map_err(Failure::Lost)?;
    Ok(stream)
}

impl Wire {
    async fn start_up(
        &mut self,
        to: &ConnectTo,
        mode: Mode,
        settings: &[(&str, &str)],
    ) -> Result<(), Failure> {
        let options: Vec<String> = settings.iter().map(|(name, value)| setting_option(name, value)).collect();
        let options = options.join(" ");
        let mut parameters = vec![
            ("user", to.user.as_str()),
            ("application_name", to.application_name.as_str()),
            ("client_encoding", "UTF8"),
        ];
        match mode {
            Mode::Sql => parameters.push(("database", to.dbname.as_str())),
            Mode::SqlAsSender => {
                parameters.extend([("database", to.dbname.as_str()), ("replication", "database")]);
            }
            Mode::Replication => parameters.push(("replication", "true")),
        }
        if !options.is_empty() {
            parameters.push(("options", options.as_str()));
        }
        self.send(|outbox| frontend::startup_message(parameters, outbox)).await
    }

    async fn log_in(
        &mut self,
        to: &ConnectTo,
        binding: Binding,
        encrypted: bool,
        end_point: Option<Vec<u8>>,
    ) -> Result<(), Failure> {
        let mut bound = false;
        let mut scram: Option<ScramSha256> = None;
        // A password that was proven to the server is worthless if the server did not prove that it knows it too.
        let mut scram_proven = true;
        for _ in 0..LOGIN_MESSAGES {
            match self.receive().await? {
                Message::AuthenticationOk if binding == Binding::Require && !bound => {
                    return Err(Failure::Login("channel_binding is required and the server offers none"));
                }
                Message::AuthenticationOk if scram_proven => {}
                Message::AuthenticationOk => {
                    return Err(Failure::Login("the server did not prove that it knows the password"));
                }
                Message::AuthenticationCleartextPassword => {
                    let password = password(to)?;
                    self.send(|outbox| frontend::password_message(password, outbox)).await?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(to.user.as_bytes(), password(to)?, body.salt());
                    self.send(|outbox| frontend::password_message(hash.as_bytes(), outbox)).await?;
                }
                Message::AuthenticationSasl(body) => {
                    let offered: Vec<&str> = body.mechanisms().collect().map_err(nonsense)?;
                    let (mechanism, channel) = mechanism(&offered, end_point.as_deref(), encrypted)?;
                    bound = mechanism == SCRAM_SHA_256_PLUS;
                    let state = ScramSha256::new(password(to)?, channel);
                    self.send(|out| frontend::sasl_initial_response(mechanism, state.message(), out)).await?;
                    scram = Some(state);
                    scram_proven = false;
                }
                Message::AuthenticationSaslContinue(body) => {
                    let state =
                        scram.as_mut().ok_or(Failure::Login("the server continues a login not begun"))?;
                    state.update(body.data()).map_err(nonsense)?;
                    self.send(|outbox| frontend::sasl_response(state.message(), outbox)).await?;
                }
                Message::AuthenticationSaslFinal(body) => {
                    let state = scram.as_mut().ok_or(Failure::Login("the server ends a login not begun"))?;
                    state.finish(body.data()).map_err(nonsense)?;
                    scram_proven = true;
                }
                Message::BackendKeyData(body) => self.backend_pid = body.process_id().unsigned_abs(),
                Message::ErrorResponse(body) => return Err(Failure::Refused(server_error(&body))),
                Message::ReadyForQuery(_) if scram_proven => return Ok(()),
                _ => return Err(Failure::Login("the server asks for a way to log in that is not supported")),
            }
        }
        Err(Failure::Nonsense("a login that does not end".to_owned()))
    }

    pub(crate) async fn send_query(&mut self, sql: &str) -> Result<(), Failure> {
        self.send(|outbox| frontend::query(sql, outbox)).await
    }

    async fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<(), Failure> {
        self.outbox.clear();
        write(&mut self.outbox).map_err(nonsense)?;
        self.stream.write_all(&self.outbox).await.map_err(Failure::Lost)?;
        self.stream.flush().await.map_err(Failure::Lost)
    }

    /// The next message that is part of the conversation; notices and parameter reports are skipped.
    pub(crate) async fn receive(&mut self) -> Result<Message, Failure> {
        loop {
            let message = match Header::parse(&self.inbox).map_err(nonsense)? {
                Some(header) if usize::try_from(header.len()).unwrap_or(usize::MAX) > self.message_limit => {
                    let what =
                        format!("a message of {} bytes, the limit is {}", header.len(), self.message_limit);
                    return Err(Failure::Nonsense(what));
                }
                Some(_) => Message::parse(&mut self.inbox).map_err(nonsense)?,
                None => None,
            };
            match message {
                Some(
                    Message::NoticeResponse(_)
                    | Message::ParameterStatus(_)
                    | Message::NotificationResponse(_),
                ) => {}
                Some(message) => return Ok(message),
                None => {
                    let count = self.stream.read_buf(&mut self.inbox).await.map_err(Failure::Lost)?;
                    if count == 0 {
                        return Err(Failure::Lost(io::ErrorKind::UnexpectedEof.into()));
                    }
                }
            }
        }
    }
}

impl Wire {
    /// The kind of the next message, whatever is in it: those of a copy in both directions are no part of the protocol for queries.
    pub(crate) async fn receive_kind(&mut self) -> Result<u8, Failure> {
        loop {
            match Header::parse(&self.inbox).map_err(nonsense)? {
                Some(header) if header.tag() == backend::ERROR_RESPONSE_TAG => {
                    let Message::ErrorResponse(body) = self.receive().await? else { continue };
                    return Err(Failure::Refused(server_error(&body)));
                }
                Some(header) => {
                    let length = usize::try_from(header.len()).unwrap_or(usize::MAX);
                    if length > self.message_limit {
                        return Err(Failure::Nonsense(format!("a message of {length} bytes")));
                    }
                    if self.inbox.len() > length {
                        // The length does not count the kind.
                        self.inbox.advance(length + 1);
                        if ROWS.contains(&header.tag()) {
                            continue;
                        }
                        return Ok(header.tag());
                    }
                }
                None => {}
            }
            let count = self.stream.read_buf(&mut self.inbox).await.map_err(Failure::Lost)?;
            if count == 0 {
                return Err(Failure::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        // A polite goodbye keeps "unexpected EOF" out of the server's log. It is one small write that the socket's
        // buffer takes at once or not at all.
        self.outbox.clear();
        frontend::terminate(&mut self.outbox);
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let _ = std::pin::Pin::new(&mut self.stream).poll_write(&mut context, &self.outbox);
    }
}

/// The best mechanism of those that are offered, and what it is bound to. That we could have bound it, had the server
/// offered that, is said as well: somebody in between may have taken the offer out.
fn mechanism(
    offered: &[&str],
    end_point: Option<&[u8]>,
    encrypted: bool,
) -> Result<(&'static str, ChannelBinding), Failure> {
    match end_point.filter(|_| encrypted) {
        Some(hash) if offered.contains(&SCRAM_SHA_256_PLUS) => {
            Ok((SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(hash.to_vec())))
        }
        _ if !offered.contains(&SCRAM_SHA_256) => Err(Failure::Login("the server offers no SCRAM-SHA-256")),
        Some(_) => Ok((SCRAM_SHA_256, ChannelBinding::unrequested())),
        None => Ok((SCRAM_SHA_256, ChannelBinding::unsupported())),
    }
}

fn password(to: &ConnectTo) -> Result<&[u8], Failure> {
    let missing = Failure::Login("the server wants a password and none is configured");
    to.password.as_ref().map(|secret| secret.reveal().as_bytes()).ok_or(missing)
}

fn nonsense(error: io::Error) -> Failure {
    Failure::Nonsense(error.to_string())
}

/// `-c name=value` with the blanks and backslashes of the value escaped, as the server splits them.
fn setting_option(name: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace(' ', "\\ ");
    format!("-c {name}={value}")
}

/// The names of the columns and their types.
pub(crate) fn columns(body: &RowDescriptionBody) -> Result<(Vec<String>, Vec<u32>), Failure> {
    let fields = body.fields().map(|field| Ok((field.name().to_owned(), field.type_oid())));
    let pairs: Vec<(String, u32)> = fields.collect().map_err(nonsense)?;
    Ok(pairs.into_iter().unzip())
}

pub(crate) fn cells(body: &DataRowBody) -> Result<Vec<Option<String>>, Failure> {
    let text = |range: std::ops::Range<usize>| {
        let bytes = body.buffer().get(range).unwrap_or_default();
        String::from_utf8_lossy(bytes).into_owned()
    };
    body.ranges().map(|range| Ok(range.map(text))).collect().map_err(nonsense)
}

pub(crate) fn server_error(body: &ErrorResponseBody) -> ServerError {
    let mut error = ServerError {
        severity: String::new(),
        sqlstate: String::new(),
        message: String::new(),
        detail: None,
    };
    let mut fields = body.fields();
    while let Ok(Some(field)) = fields.next() {
        let text = || String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            // `V` is the severity that is never translated; every server since 9.6 sends it.
            b'V' => error.severity = text(),
            b'C' => error.sqlstate = text(),
            b'M' => error.message = text(),
            b'D' => error.detail = Some(text()),
            _ => {}
        }
    }
    error
}
