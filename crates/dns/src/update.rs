//! The primary's name on somebody else's server: RFC 2136, signed, and never by an old term over a newer one.
//!
//! ```text
//!   read  _baton.NAME TXT "baton term=16 …"       newer than ours: rest
//!   send  if that TXT is still exactly so (or still absent):  NAME A, AAAA and the TXT := ours
//!   somebody was faster: the server refuses it as a whole; read again
//! ```
//! The server compares and writes in one step. An agent that hung while the lead moved on compares with a text that is no longer there.

use crate::server::{frame, framed};
use crate::zone::{Owned, under};
use domain::base::iana::{Class, Opcode, Rcode, Rtype};
use domain::base::message_builder::{AdditionalBuilder, PushError};
use domain::base::{Message, MessageBuilder, Record as Rr, Ttl, UnknownRecordData};
use domain::rdata::tsig::Time48;
use domain::rdata::{A, Aaaa, Txt};
use domain::tsig::{self, ClientTransaction, KeyName};
use domain::utils::base64;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// One exchange with the server may take so long.
const PATIENCE: Duration = Duration::from_secs(3);
/// The label under which the term stands.
const MARK: &str = "_baton";

/// How messages are signed.
pub type Algorithm = tsig::Algorithm;

/// What signs them.
#[derive(Clone)]
pub struct Key(std::sync::Arc<tsig::Key>);

/// A name on a server.
#[derive(Clone)]
pub struct Target {
    /// `host:port`.
    pub server: String,
    zone: Owned,
    name: Owned,
    mark: Owned,
    ttl: u32,
    key: Option<Key>,
}

/// What the name shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub term: i64,
    pub ips: Vec<IpAddr>,
}

/// How an update ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The name says it.
    Done,
    /// Somebody was faster: nothing was changed.
    Overtaken,
}

/// What is to be done, by what the server says now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    Done,
    /// A later term stands there.
    Newer(i64),
    Send,
}

/// Why it did not work.
#[derive(Debug, thiserror::Error)]
pub enum UpdateError {
    #[error("reach the name server {server}: {why}")]
    Unreachable { server: String, why: std::io::Error },
    #[error("have the name server {server} answer within {PATIENCE:?}")]
    Silent { server: String },
    #[error(
        "have an update accepted by the name server: it answers {rcode}; allow this key to change this name there"
    )]
    Refused { rcode: Rcode },
    #[error(
        "have an update accepted by the name server: {why}; compare name, algorithm and secret of the key on both sides, and the clocks"
    )]
    Signature { why: String },
    #[error("understand the name server: {0}")]
    Odd(String),
}

impl Key {
    /// A key of this name, with a secret in base64; else what is wrong with it, without the secret.
    pub fn new(name: &str, algorithm: &str, secret: &str) -> Result<Key, String> {
        let name =
            KeyName::from_str(name).map_err(|error| format!("{name:?} is no name of a key: {error}"))?;
        let algorithm =
            Algorithm::from_str(algorithm).map_err(|_| format!("{algorithm:?} is no algorithm of a key"))?;
        let bytes: Vec<u8> =
            base64::decode(secret.trim()).map_err(|_| "the secret of the key is not in base64".to_owned())?;
        let key = tsig::Key::new(algorithm, &bytes, name, None, None);
        key.map(|key| Key(key.into())).map_err(|error| format!("the key cannot be used: {error}"))
    }
}

impl Target {
    /// `name` in `zone` on the server; else what is wrong.
    pub fn new(server: &str, zone: &str, name: &str, ttl: u32, key: Option<Key>) -> Result<Target, String> {
        let parse = |text: &str| {
            Owned::from_str(text).map_err(|error| format!("{text:?} is no domain name: {error}"))
        };
        let (zone, name) = (parse(zone)?, parse(name)?);
        if !name.ends_with(&zone) {
            return Err(format!("{name} is not in the zone {zone}"));
        }
        let mark = under(&[MARK], &name).ok_or_else(|| format!("{name} is too long"))?;
        Ok(Target { server: server.to_owned(), zone, name, mark, ttl, key })
    }
}

impl Record {
    /// As it stands in the TXT record.
    #[must_use]
    pub fn text(&self) -> String {
        let ips: Vec<String> = self.ips.iter().map(IpAddr::to_string).collect();
        format!("baton term={} {}", self.term, ips.join(","))
    }
}

/// What there is to do.
#[must_use]
pub(crate) fn plan(current: Option<&str>, wanted: &Record) -> Plan {
    let term = current.and_then(|text| text.strip_prefix("baton term=")?.split(' ').next()?.parse().ok());
    match term {
        Some(newer) if newer > wanted.term => Plan::Newer(newer),
        _ if current == Some(wanted.text().as_str()) => Plan::Done,
        _ => Plan::Send,
    }
}

/// The question for the TXT record.
fn question(target: &Target, id: u16) -> Result<Vec<u8>, PushError> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    let mut builder = builder.question();
    builder.push((&target.mark, Rtype::TXT))?;
    Ok(builder.finish())
}

/// The update, not signed yet.
fn message(
    target: &Target,
    wanted: &Record,
    current: Option<&str>,
    id: u16,
) -> Result<AdditionalBuilder<Vec<u8>>, PushError> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(id);
    builder.header_mut().set_opcode(Opcode::UPDATE);
    let mut zone = builder.question();
    zone.push((&target.zone, Rtype::SOA))?;
    let mut before = zone.answer();
    let txt =
        |text: &str| Txt::<Vec<u8>>::build_from_slice(text.as_bytes()).map_err(|_| PushError::CountOverflow);
    let nothing =
        |rtype| UnknownRecordData::from_octets(rtype, Vec::new()).map_err(|_| PushError::CountOverflow);
    match current {
        Some(text) => before.push(Rr::new(&target.mark, Class::IN, Ttl::ZERO, txt(text)?))?,
        None => before.push(Rr::new(&target.mark, Class::NONE, Ttl::ZERO, nothing(Rtype::TXT)?))?,
    }
    let mut change = before.authority();
    let ttl = Ttl::from_secs(target.ttl);
    for (name, rtype) in [(&target.name, Rtype::A), (&target.name, Rtype::AAAA), (&target.mark, Rtype::TXT)] {
        change.push(Rr::new(name, Class::ANY, Ttl::ZERO, nothing(rtype)?))?;
    }
    for ip in &wanted.ips {
        match ip {
            IpAddr::V4(ip) => change.push(Rr::new(&target.name, Class::IN, ttl, A::new(*ip)))?,
            IpAddr::V6(ip) => change.push(Rr::new(&target.name, Class::IN, ttl, Aaaa::new(*ip)))?,
        }
    }
    change.push(Rr::new(&target.mark, Class::IN, ttl, txt(&wanted.text())?))?;
    Ok(change.additional())
}

/// The text that stands at the server now; none when there is none.
pub async fn current(target: &Target) -> Result<Option<String>, UpdateError> {
    let id = random();
    let question = question(target, id).map_err(|error| UpdateError::Odd(error.to_string()))?;
    let bytes = exchange(&target.server, &question).await?;
    text_of(&bytes, id)
}

pub(crate) fn text_of(bytes: &[u8], id: u16) -> Result<Option<String>, UpdateError> {
    let odd = |why: &str| UpdateError::Odd(why.to_owned());
    let message = Message::from_octets(bytes).map_err(|_| odd("the answer is too short"))?;
    if message.header().id() != id || !message.header().qr() {
        return Err(odd("the answer belongs to another question"));
    }
    match message.header().rcode() {
        Rcode::NOERROR => {}
        Rcode::NXDOMAIN => return Ok(None),
        rcode => return Err(UpdateError::Refused { rcode }),
    }
    let section = message.answer().map_err(|_| odd("the answer is broken"))?;
    let mut texts = section.limit_to::<Txt<_>>().flatten().map(|record| record.data().text::<Vec<u8>>());
    match (texts.next(), texts.next()) {
        (None, _) => Ok(None),
        (Some(text), None) => Ok(Some(String::from_utf8_lossy(&text).into_owned())),
        (Some(_), Some(_)) => {
            Err(odd("there are several TXT records where baton keeps its term: remove them"))
        }
    }
}

/// Makes the name say `wanted`, if the server still says `before`.
pub async fn send(target: &Target, wanted: &Record, before: Option<&str>) -> Result<Sent, UpdateError> {
    let too_long = |error: PushError| UpdateError::Odd(error.to_string());
    let id = random();
    let mut message = message(target, wanted, before, id).map_err(too_long)?;
    let signed = match &target.key {
        Some(key) => Some(ClientTransaction::request(key.0.clone(), &mut message, wall()).map_err(too_long)?),
        None => None,
    };
    let bytes = exchange(&target.server, &message.finish()).await?;
    let mut answer =
        Message::from_octets(bytes).map_err(|_| UpdateError::Odd("the answer is too short".to_owned()))?;
    if let Some(signed) = signed {
        let checked = signed.answer(&mut answer, wall());
        checked.map_err(|error| UpdateError::Signature { why: error.to_string() })?;
    }
    if answer.header().id() != id || !answer.header().qr() {
        return Err(UpdateError::Odd("the answer belongs to another question".to_owned()));
    }
    match answer.header().rcode() {
        Rcode::NOERROR => Ok(Sent::Done),
        Rcode::NXRRSET | Rcode::YXRRSET | Rcode::NXDOMAIN | Rcode::YXDOMAIN => Ok(Sent::Overtaken),
        rcode => Err(UpdateError::Refused { rcode }),
    }
}

async fn exchange(server: &str, message: &[u8]) -> Result<Vec<u8>, UpdateError> {
    let unreachable = |why| UpdateError::Unreachable { server: server.to_owned(), why };
    let conversation = async {
        let mut stream = TcpStream::connect(server).await?;
        stream.write_all(&framed(message)).await?;
        frame(&mut stream).await
    };
    match timeout(PATIENCE, conversation).await {
        Ok(answered) => answered.map_err(unreachable),
        Err(_) => Err(UpdateError::Silent { server: server.to_owned() }),
    }
}

/// Signatures have a time in them.
fn wall() -> Time48 {
    let since = clock::wall().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time48::from_u64(since.as_secs() & 0xffff_ffff_ffff)
}

/// A number that nobody guesses.
fn random() -> u16 {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 2];
    // By TCP it only tells answers apart.
    let _ = ring::rand::SystemRandom::new().fill(&mut bytes);
    u16::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Key, Plan, Record, Target, message, plan, text_of};
    use domain::base::Message;
    use domain::base::iana::{Class, Opcode};
    use proptest::prelude::{any, prop::collection::vec, proptest};

    fn wanted(term: i64) -> Record {
        Record { term, ips: vec!["10.0.0.1".parse().unwrap(), "fd00::1".parse().unwrap()] }
    }

    #[test]
    fn an_old_term_rests_and_the_same_one_is_done() {
        assert_eq!(plan(None, &wanted(17)), Plan::Send);
        assert_eq!(plan(Some("baton term=16 10.0.0.9"), &wanted(17)), Plan::Send);
        assert_eq!(plan(Some("baton term=18 10.0.0.9"), &wanted(17)), Plan::Newer(18));
        assert_eq!(plan(Some("baton term=17 10.0.0.1,fd00::1"), &wanted(17)), Plan::Done);
        assert_eq!(
            plan(Some("baton term=17 10.0.0.9"), &wanted(17)),
            Plan::Send,
            "it has another address now"
        );
        assert_eq!(plan(Some("hand-made"), &wanted(17)), Plan::Send);
    }

    #[test]
    fn an_update_compares_and_replaces() {
        let target = Target::new("127.0.0.1:53", "example.org", "pg.example.org", 1, None).unwrap();
        let bytes = message(&target, &wanted(17), Some("baton term=16 x"), 7).unwrap().finish();
        let update = Message::from_octets(bytes).unwrap();
        assert_eq!(update.header().opcode(), Opcode::UPDATE);
        let classes: Vec<Class> = update.answer().unwrap().map(|record| record.unwrap().class()).collect();
        assert_eq!(classes, [Class::IN]);
        let classes: Vec<Class> = update.authority().unwrap().map(|record| record.unwrap().class()).collect();
        assert_eq!(classes, [Class::ANY, Class::ANY, Class::ANY, Class::IN, Class::IN, Class::IN]);
        let bytes = message(&target, &wanted(17), None, 7).unwrap().finish();
        let update = Message::from_octets(bytes).unwrap();
        let classes: Vec<Class> = update.answer().unwrap().map(|record| record.unwrap().class()).collect();
        assert_eq!(classes, [Class::NONE], "still absent");
    }

    #[test]
    fn what_cannot_be_is_refused_without_the_secret() {
        assert!(Target::new("h:53", "example.org", "pg.example.net", 1, None).is_err());
        assert!(Target::new("h:53", "a..b", "a..b", 1, None).is_err());
        for (name, algorithm, secret) in [
            ("k", "hmac-sha256", "no base64!"),
            ("k", "rot13", "c2VjcmV0"),
            ("a..b", "hmac-sha256", "c2VjcmV0"),
        ] {
            let why = Key::new(name, algorithm, secret).err().unwrap();
            assert!(!why.contains("c2VjcmV0") && !why.contains("no base64!"), "{why}");
        }
        assert!(Key::new("k", "hmac-sha512", "c2VjcmV0").is_ok());
    }

    proptest! {
        #[test]
        fn answers_of_any_kind_are_survived(bytes in vec(any::<u8>(), 0..200)) {
            let _ = text_of(&bytes, 0x0102);
        }
    }
}
