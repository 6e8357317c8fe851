//! A question, as bytes, and the zone → the answer, as bytes. Pure.
//!
//! What is no question gets no answer, so that nobody can use us to shout at others; everything else gets a code that says what is wrong.

use crate::zone::{Entry, Zone, is_role};
use domain::base::iana::{Class, Opcode, OptRcode, Rcode, Rtype};
use domain::base::message_builder::{AdditionalBuilder, AnswerBuilder, PushError, StaticCompressor};
use domain::base::name::ToLabelIter;
use domain::base::{Message, MessageBuilder, Question, Record, Serial, Ttl};
use domain::rdata::{A, Aaaa, Ns, Soa, Srv, Txt};

type Out = StaticCompressor<Vec<u8>>;
type Asked<'a> = Question<domain::base::ParsedName<&'a [u8]>>;

/// How the question came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    Udp,
    Tcp,
}

/// What fits without EDNS.
const PLAIN: usize = 512;
/// The most that is sent by UDP: it passes everywhere in one piece.
const ONE_PIECE: u16 = 1232;
const MOST: usize = 65_535;
/// How long others may keep the zone's own records; the addresses have the TTL of the settings.
const STABLE: u32 = 60;

/// The answer; none to what is no question.
#[must_use]
pub fn answer(question: &[u8], zone: &Zone, carrier: Carrier) -> Option<Vec<u8>> {
    let message = Message::from_octets(question).ok()?;
    if message.header().qr() {
        return None;
    }
    let edns = Edns::of(&message);
    let limit = match (carrier, &edns) {
        (Carrier::Tcp, _) => MOST,
        (Carrier::Udp, Some(edns)) => usize::from(edns.size.clamp(512, ONE_PIECE)),
        (Carrier::Udp, None) => PLAIN,
    };
    let reply = Reply { message, zone, edns, limit };
    reply.whole().or_else(|_| reply.cut()).ok()
}

struct Edns {
    size: u16,
    version: u8,
}

impl Edns {
    fn of(message: &Message<&[u8]>) -> Option<Edns> {
        let opt = message.opt()?;
        Some(Edns { size: opt.udp_payload_size(), version: opt.version() })
    }
}

struct Reply<'a> {
    message: Message<&'a [u8]>,
    zone: &'a Zone,
    edns: Option<Edns>,
    limit: usize,
}

impl Reply<'_> {
    fn start(&self, rcode: Rcode) -> Result<AnswerBuilder<Out>, PushError> {
        let target = StaticCompressor::new(Vec::with_capacity(PLAIN));
        let mut builder = MessageBuilder::from_target(target).map_err(|_| PushError::CountOverflow)?;
        builder.set_push_limit(self.limit);
        // Of a question that cannot be read nothing is repeated.
        match self.message.sole_question().is_ok() {
            true => builder.start_answer(&self.message, rcode),
            false => {
                let header = builder.header_mut();
                header.set_id(self.message.header().id());
                header.set_qr(true);
                header.set_opcode(self.message.header().opcode());
                header.set_rcode(rcode);
                Ok(builder.answer())
            }
        }
    }

    fn whole(&self) -> Result<Vec<u8>, PushError> {
        if self.edns.as_ref().is_some_and(|edns| edns.version > 0) {
            return self.end(self.start(Rcode::NOERROR)?.additional(), OptRcode::BADVERS);
        }
        if self.message.header().opcode() != Opcode::QUERY {
            return self.refuse(Rcode::NOTIMP);
        }
        let Ok(question) = self.message.sole_question() else { return self.refuse(Rcode::FORMERR) };
        let (class, rtype) = (question.qclass(), question.qtype());
        if !matches!(class, Class::IN | Class::ANY) || matches!(rtype, Rtype::AXFR | Rtype::IXFR) {
            return self.refuse(Rcode::REFUSED);
        }
        let Some(name) = self.relative(&question) else { return self.refuse(Rcode::REFUSED) };
        match self.zone.entries.get(&name) {
            Some(entry) => self.found(&question, &name, entry),
            None if self.zone.exists(&name) => self.found(&question, &name, &Entry::default()),
            None => self.nothing(Rcode::NXDOMAIN),
        }
    }

    /// The part of the name before the zone, in small letters; none when it is another zone's.
    fn relative(&self, question: &Asked<'_>) -> Option<String> {
        let (asked, zone) = (question.qname(), &self.zone.origin.name);
        if !asked.ends_with(zone) {
            return None;
        }
        let count = asked.iter_labels().count().checked_sub(zone.iter_labels().count())?;
        let mut name = String::new();
        for label in asked.iter_labels().take(count) {
            if !name.is_empty() {
                name.push('.');
            }
            // Bytes that are no text are in no name that we have.
            name.push_str(&String::from_utf8_lossy(label.as_slice()).to_ascii_lowercase());
        }
        Some(name)
    }

    fn found(&self, question: &Asked<'_>, name: &str, entry: &Entry) -> Result<Vec<u8>, PushError> {
        let (owner, rtype) = (question.qname(), question.qtype());
        let ttl = Ttl::from_secs(self.zone.origin.ttl);
        let wants = |one: Rtype| rtype == one || rtype == Rtype::ANY;
        let mut builder = self.start(Rcode::NOERROR)?;
        builder.header_mut().set_aa(true);
        let turn = if is_role(name) { usize::from(self.message.header().id()) } else { 0 };
        let mut count = 0_usize;
        if wants(Rtype::A) {
            for ip in turned(&entry.v4, turn) {
                builder.push(Record::new(owner, Class::IN, ttl, A::new(*ip)))?;
                count += 1;
            }
        }
        if wants(Rtype::AAAA) {
            for ip in turned(&entry.v6, turn) {
                builder.push(Record::new(owner, Class::IN, ttl, Aaaa::new(*ip)))?;
                count += 1;
            }
        }
        if wants(Rtype::TXT) {
            for text in &entry.txt {
                let Ok(txt) = Txt::<Vec<u8>>::build_from_slice(text.as_bytes()) else { continue };
                builder.push(Record::new(owner, Class::IN, ttl, txt))?;
                count += 1;
            }
        }
        if wants(Rtype::SRV) {
            for (port, target) in turned(&entry.srv, turn) {
                builder.push(Record::new(owner, Class::IN, ttl, Srv::new(0, 1, *port, target)))?;
                count += 1;
            }
        }
        if name.is_empty() && wants(Rtype::SOA) {
            builder.push(Record::new(owner, Class::IN, Ttl::from_secs(STABLE), self.soa()))?;
            count += 1;
        }
        if name.is_empty() && wants(Rtype::NS) {
            for server in &self.zone.origin.servers {
                builder.push(Record::new(owner, Class::IN, Ttl::from_secs(STABLE), Ns::new(server)))?;
                count += 1;
            }
        }
        if count == 0 {
            return self.nothing(Rcode::NOERROR);
        }
        let mut additional = builder.additional();
        if wants(Rtype::SRV) && self.help(&mut additional, entry, ttl).is_err() {
            // Help that does not fit is left out; the answer itself is whole.
            additional.rewind();
        }
        self.end(additional, OptRcode::NOERROR)
    }

    /// The addresses of the hosts that a SRV record names.
    fn help(
        &self,
        additional: &mut AdditionalBuilder<Out>,
        entry: &Entry,
        ttl: Ttl,
    ) -> Result<(), PushError> {
        for (_, target) in &entry.srv {
            let label = target.iter_labels().next().map(|label| label.to_string()).unwrap_or_default();
            let Some(host) = self.zone.entries.get(&label) else { continue };
            for ip in &host.v4 {
                additional.push(Record::new(target, Class::IN, ttl, A::new(*ip)))?;
            }
            for ip in &host.v6 {
                additional.push(Record::new(target, Class::IN, ttl, Aaaa::new(*ip)))?;
            }
        }
        Ok(())
    }

    /// No such name, or no such record, for as long as answers live.
    fn nothing(&self, rcode: Rcode) -> Result<Vec<u8>, PushError> {
        let mut builder = self.start(rcode)?;
        builder.header_mut().set_aa(true);
        let mut authority = builder.authority();
        let ttl = Ttl::from_secs(self.zone.origin.ttl);
        authority.push(Record::new(&self.zone.origin.name, Class::IN, ttl, self.soa()))?;
        let code = if rcode == Rcode::NXDOMAIN { OptRcode::NXDOMAIN } else { OptRcode::NOERROR };
        self.end(authority.additional(), code)
    }

    fn refuse(&self, rcode: Rcode) -> Result<Vec<u8>, PushError> {
        self.end(self.start(rcode)?.additional(), OptRcode::from_rcode(rcode))
    }

    /// What says that the rest must be asked for by TCP.
    fn cut(&self) -> Result<Vec<u8>, PushError> {
        let mut builder = self.start(Rcode::NOERROR)?;
        builder.header_mut().set_aa(true);
        builder.header_mut().set_tc(true);
        self.end(builder.additional(), OptRcode::NOERROR)
    }

    fn end(&self, mut additional: AdditionalBuilder<Out>, rcode: OptRcode) -> Result<Vec<u8>, PushError> {
        if self.edns.is_some() {
            additional.opt(|opt| {
                opt.set_udp_payload_size(ONE_PIECE);
                opt.set_rcode(rcode);
                Ok(())
            })?;
        }
        Ok(additional.finish().into_target())
    }

    fn soa(&self) -> Soa<&crate::zone::Owned> {
        let origin = &self.zone.origin;
        let server = origin.servers.first().unwrap_or(&origin.name);
        let second = Ttl::from_secs;
        let (serial, minimum) = (Serial::from(self.zone.serial), second(origin.ttl));
        Soa::new(server, &origin.mailbox, serial, second(60), second(10), second(3600), minimum)
    }
}

/// The list, beginning anywhere: who takes the first takes another one each time.
fn turned<T>(list: &[T], turn: usize) -> impl Iterator<Item = &T> {
    let begin = if list.is_empty() { 0 } else { turn % list.len() };
    list.iter().skip(begin).chain(list.iter().take(begin))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::{Carrier, answer};
    use crate::zone::Zone;
    use crate::zone::tests::{facts, zone};
    use domain::base::iana::{Class, Rcode, Rtype};
    use domain::base::{Message, MessageBuilder, Name};
    use domain::rdata::AllRecordData;
    use proptest::prelude::{any, prop::collection::vec, proptest};
    use std::str::FromStr;

    pub(crate) fn question(name: &str, rtype: Rtype, edns: Option<u16>) -> Vec<u8> {
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(4);
        let mut builder = builder.question();
        builder.push((&Name::<Vec<u8>>::from_str(name).unwrap(), rtype)).unwrap();
        let mut builder = builder.additional();
        if let Some(size) = edns {
            builder
                .opt(|opt| {
                    opt.set_udp_payload_size(size);
                    Ok(())
                })
                .unwrap();
        }
        builder.finish()
    }

    /// Code, flags, answers and the number of authority records.
    fn ask(zone: &Zone, name: &str, rtype: Rtype) -> String {
        let bytes = answer(&question(name, rtype, Some(1232)), zone, Carrier::Udp).unwrap();
        let message = Message::from_octets(bytes.as_slice()).unwrap();
        let mut said = vec![message.header().rcode().to_string()];
        if !message.header().aa() {
            said.push("(not ours)".to_owned());
        }
        for record in message.answer().unwrap().limit_to::<AllRecordData<_, _>>() {
            let record = record.unwrap();
            said.push(format!("{} {} {}", record.ttl().as_secs(), record.rtype(), record.data()));
        }
        let authority = message.authority().unwrap().count();
        if authority > 0 {
            said.push(format!("+{authority}"));
        }
        said.join(" | ")
    }

    #[test]
    fn names_are_answered() {
        let zone = zone(&facts());
        for (name, rtype, says) in [
            ("primary.c1.pg.test", Rtype::A, "NOERROR | 1 A 10.0.0.1"),
            ("c1.pg.test", Rtype::A, "NOERROR | 1 A 10.0.0.1"),
            ("PrImArY.C1.pg.TEST", Rtype::A, "NOERROR | 1 A 10.0.0.1"),
            ("primary.c1.pg.test", Rtype::AAAA, "NOERROR | +1"),
            ("sync.c1.pg.test", Rtype::AAAA, "NOERROR | 1 AAAA fd00::2"),
            ("offline.c1.pg.test", Rtype::A, "NOERROR | +1"),
            ("pg_3-x.c1.pg.test", Rtype::A, "NOERROR | 1 A 10.0.0.3"),
            ("ns.c1.pg.test", Rtype::A, "NOERROR | 1 A 10.0.0.53"),
            ("c1.pg.test", Rtype::NS, "NOERROR | 60 NS ns.c1.pg.test."),
            ("_tcp.c1.pg.test", Rtype::A, "NOERROR | +1"),
            ("pg-9.c1.pg.test", Rtype::A, "NXDOMAIN | +1"),
            ("c1.pg.test", Rtype::AXFR, "REFUSED | (not ours)"),
            ("example.org", Rtype::A, "REFUSED | (not ours)"),
        ] {
            assert_eq!(ask(&zone, name, rtype), says, "{name} {rtype}");
        }
        assert!(ask(&zone, "c1.pg.test", Rtype::SOA).contains(" 4711 60 10 3600 1"));
        assert!(ask(&zone, "c1.pg.test", Rtype::TXT).contains("term=17"));
        assert!(
            ask(&zone, "_postgresql._tcp.primary.c1.pg.test", Rtype::SRV).contains("5432 pg-1.c1.pg.test")
        );
    }

    #[test]
    fn the_term_that_has_no_primary_has_no_data() {
        let mut without = facts();
        without.primary = None;
        let zone = zone(&without);
        assert_eq!(ask(&zone, "primary.c1.pg.test", Rtype::A), "NOERROR | +1");
        assert_eq!(ask(&zone, "c1.pg.test", Rtype::TXT), "NOERROR | +1");
    }

    #[test]
    fn what_does_not_fit_says_so_and_comes_by_tcp() {
        let mut many = facts();
        for number in 0..60_u8 {
            let name = types::NodeName(format!("r{number}"));
            let place = crate::facts::Place { host: format!("10.1.0.{number}"), port: 5432 };
            many.members.insert(name.clone(), place);
            many.replicas.push(name);
        }
        let zone = zone(&many);
        let asked = question("replica.c1.pg.test", Rtype::A, None);
        let short = answer(&asked, &zone, Carrier::Udp).unwrap();
        let message = Message::from_octets(short.as_slice()).unwrap();
        assert!(short.len() <= 512 && message.header().tc());
        assert_eq!(message.sole_question().unwrap().qtype(), Rtype::A);
        let long = answer(&asked, &zone, Carrier::Tcp).unwrap();
        assert_eq!(Message::from_octets(long.as_slice()).unwrap().header_counts().ancount(), 61);
        let edns = question("replica.c1.pg.test", Rtype::A, Some(4096));
        let whole = answer(&edns, &zone, Carrier::Udp).unwrap();
        let message = Message::from_octets(whole.as_slice()).unwrap();
        assert!(!message.header().tc() && message.opt().is_some());
    }

    #[test]
    fn what_is_no_question_has_no_answer() {
        let zone = zone(&facts());
        let mut reply = question("c1.pg.test", Rtype::A, None);
        reply[2] |= 0x80;
        assert_eq!(answer(&reply, &zone, Carrier::Udp), None);
        assert_eq!(answer(&reply[..11], &zone, Carrier::Udp), None);
        let mut update = question("c1.pg.test", Rtype::SOA, None);
        update[2] |= 5 << 3;
        let code = |bytes: &[u8]| {
            let bytes = answer(bytes, &zone, Carrier::Udp).unwrap();
            Message::from_octets(bytes.as_slice()).unwrap().header().rcode()
        };
        assert_eq!(code(&update), Rcode::NOTIMP);
        let cut = question("primary.c1.pg.test", Rtype::A, None);
        assert_eq!(code(&cut[..20]), Rcode::FORMERR);
        let mut chaos = question("c1.pg.test", Rtype::A, None);
        let last = chaos.len() - 1;
        chaos[last] = u8::try_from(Class::CH.to_int()).unwrap();
        assert_eq!(code(&chaos), Rcode::REFUSED);
    }

    proptest! {
        /// Whatever comes: no panic, an answer to its number or none, within the limit.
        #[test]
        fn bytes_of_any_kind_are_survived(bytes in vec(any::<u8>(), 0..600)) {
            survives(&bytes);
        }

        #[test]
        fn a_question_that_was_tampered_with_is_survived(
            at in vec((0_usize..80, any::<u8>()), 1..6),
            cut in 0_usize..80,
            size in any::<u16>(),
        ) {
            let mut bytes = question("_postgresql._tcp.replica.c1.pg.test", Rtype::ANY, Some(size));
            for (place, value) in at {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte = value;
                }
            }
            bytes.truncate(bytes.len().saturating_sub(cut / 4));
            survives(&bytes);
        }
    }

    fn survives(bytes: &[u8]) {
        let zone = zone(&facts());
        for (carrier, limit) in [(Carrier::Udp, 1232), (Carrier::Tcp, 65_535)] {
            if let Some(reply) = answer(bytes, &zone, carrier) {
                assert!(reply.len() <= limit && reply[..2] == bytes[..2] && reply[2] & 0x80 != 0);
            }
        }
    }
}
