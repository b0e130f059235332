//! Two processes prove to each other that they belong to one job, before either believes a word of the other.
//!
//! The caller sends [`HELLO`] bytes, the callee its own hello with a proof over both, the caller its proof over both hellos and
//! what it says of itself, the callee whether it takes the caller in. A proof is an HMAC-SHA256 with the job's secret, over the
//! job's name, the side, both random numbers and all that was said, so that none can be used twice or for another purpose.
//! Nothing is read before the proof but pieces of fixed size.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

use crate::Error;
use crate::wire::{Reader, Writer, read_error, write_error};

/// Raised when what processes say to each other changes.
pub(crate) const PROTOCOL: u16 = 1;
const MAGIC: [u8; 8] = *b"nxsworld";
const HELLO: usize = 64;
const PROOF: usize = 32;
/// The most that a caller says of itself.
const LONGEST_BODY: usize = 1024;
/// How long an exchange may take. A stranger who says nothing is sent away after that.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    Control = 1,
    Ring = 2,
}

/// What the members of a job have in common.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub secret: Option<Vec<u8>>,
    /// The job's name, with its incarnation.
    pub job: String,
    /// A number that only those know who were taken in: it is part of the key of ring connections.
    pub session: [u8; 16],
}

/// Why the other side is not of this job, in words that follow "the process there".
#[derive(Debug)]
pub(crate) struct Stranger {
    pub why: String,
    /// It claims to be of this job: other programs may use the port, this one should have agreed.
    pub same_job: bool,
}

impl Stranger {
    fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            same_job: false,
        }
    }

    fn of_this_job(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            same_job: true,
        }
    }
}

impl From<io::Error> for Stranger {
    fn from(error: io::Error) -> Self {
        Self::new(match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "says nothing".to_owned(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
                "hung up in the middle of the handshake".to_owned()
            }
            _ => format!("can't be talked to ({error})"),
        })
    }
}

/// The fixed part that each side sends first.
#[derive(Clone, Copy)]
struct Hello {
    purpose: u8,
    has_secret: bool,
    rank: u32,
    tag: [u8; 16],
    nonce: [u8; 32],
}

impl Hello {
    fn to_bytes(self) -> [u8; HELLO] {
        let mut out = [0; HELLO];
        out[..8].copy_from_slice(&MAGIC);
        out[8..10].copy_from_slice(&PROTOCOL.to_le_bytes());
        out[10] = self.purpose;
        out[11] = u8::from(self.has_secret);
        out[12..16].copy_from_slice(&self.rank.to_le_bytes());
        out[16..32].copy_from_slice(&self.tag);
        out[32..].copy_from_slice(&self.nonce);
        out
    }

    /// Reads the other side's, which must be of the same protocol, job and kind of secret.
    fn read(bytes: &[u8; HELLO], own: &Hello) -> Result<Self, Stranger> {
        let four = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
        if bytes[..8] != MAGIC {
            return Err(Stranger::new("is no process of this program"));
        }
        let protocol = u16::from_le_bytes([bytes[8], bytes[9]]);
        let theirs = Self {
            purpose: bytes[10],
            has_secret: bytes[11] != 0,
            rank: u32::from_le_bytes(four(12)),
            tag: bytes[16..32].try_into().expect("sixteen bytes"),
            nonce: bytes[32..].try_into().expect("thirty-two bytes"),
        };
        if theirs.tag != own.tag {
            return Err(Stranger::new("belongs to another job"));
        }
        if protocol != PROTOCOL {
            return Err(Stranger::of_this_job(format!(
                "speaks version {protocol} of the protocol, this one {PROTOCOL}: start the same build everywhere"
            )));
        }
        match (theirs.has_secret, own.has_secret) {
            (true, false) => Err(Stranger::of_this_job(
                "has a NEXTSCALE_SECRET and this one has none: set it to the same words for every process",
            )),
            (false, true) => Err(Stranger::of_this_job(
                "has no NEXTSCALE_SECRET and this one has: set it to the same words for every process",
            )),
            _ => Ok(theirs),
        }
    }
}

impl Credentials {
    fn hello(&self, purpose: u8, rank: usize) -> Result<Hello, Stranger> {
        let mut nonce = [0; 32];
        getrandom::fill(&mut nonce)
            .map_err(|e| Stranger::new(format!("can't be met without random numbers ({e})")))?;
        let tag = Sha256::new()
            .chain_update(b"nextscale job\0")
            .chain_update(self.job.as_bytes())
            .finalize();
        Ok(Hello {
            purpose,
            has_secret: self.secret.is_some(),
            rank: u32::try_from(rank).unwrap_or(u32::MAX),
            tag: tag[..16].try_into().expect("sixteen bytes"),
            nonce,
        })
    }

    fn proof(&self, side: &[u8], purpose: u8, said: &[&[u8]]) -> Hmac<Sha256> {
        let mut key = self.secret.clone().unwrap_or_default();
        if purpose == Purpose::Ring as u8 {
            key.extend_from_slice(&self.session);
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("any length is a key");
        for part in [side, self.job.as_bytes()].iter().chain(said) {
            mac.update(&(part.len() as u64).to_le_bytes());
            mac.update(part);
        }
        mac
    }
}

/// Bytes that have to be here by `deadline`, however slowly they drip.
fn read_by(stream: &TcpStream, bytes: &mut [u8], deadline: Instant) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match (&mut &*stream).read(&mut bytes[done..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

fn read_array<const N: usize>(stream: &TcpStream, deadline: Instant) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    read_by(stream, &mut bytes, deadline)?;
    Ok(bytes)
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// The calling side. After it [`read_verdict`] says whether one was taken in.
pub(crate) fn call(
    stream: &TcpStream,
    credentials: &Credentials,
    purpose: Purpose,
    rank: usize,
    body: &[u8],
) -> Result<(), Stranger> {
    assert!(body.len() <= LONGEST_BODY);
    prepare(stream)?;
    let deadline = Instant::now() + PATIENCE;
    let own = credentials.hello(purpose as u8, rank)?;
    let said = own.to_bytes();
    (&mut &*stream).write_all(&said)?;
    let heard = read_array::<HELLO>(stream, deadline)?;
    Hello::read(&heard, &own)?;
    let proof = read_array::<PROOF>(stream, deadline)?;
    let expected = credentials.proof(b"callee", own.purpose, &[&said, &heard]);
    if expected.verify_slice(&proof).is_err() {
        // No proof, so that the other side knows what is wrong too.
        let _ = (&mut &*stream).write_all(&[0; PROOF + 2]);
        return Err(Stranger::of_this_job("has another NEXTSCALE_SECRET"));
    }
    let mut last = credentials
        .proof(b"caller", own.purpose, &[&said, &heard, body])
        .finalize()
        .into_bytes()
        .to_vec();
    last.extend_from_slice(&(body.len() as u16).to_le_bytes());
    last.extend_from_slice(body);
    (&mut &*stream).write_all(&last)?;
    Ok(())
}

/// The side that is called: what the other wants and says of itself, once it has proved that it may.
pub(crate) fn answer(
    stream: &TcpStream,
    credentials: &Credentials,
) -> Result<(Purpose, Vec<u8>), Stranger> {
    prepare(stream)?;
    let deadline = Instant::now() + PATIENCE;
    let heard = read_array::<HELLO>(stream, deadline)?;
    let own = credentials.hello(heard[10], 0)?;
    let said = own.to_bytes();
    let theirs = match Hello::read(&heard, &own) {
        Ok(theirs) => theirs,
        Err(stranger) => {
            // A member with a wrong setting learns from this which one it is.
            if heard[..8] == MAGIC {
                let _ = (&mut &*stream).write_all(&said);
            }
            return Err(Stranger {
                why: match stranger.same_job {
                    true => format!("(rank {} by its word) {}", u32_at(&heard, 12), stranger.why),
                    false => stranger.why,
                },
                ..stranger
            });
        }
    };
    let purpose = match theirs.purpose {
        1 => Purpose::Control,
        2 => Purpose::Ring,
        _ => return Err(Stranger::new("asks for something unknown")),
    };
    let proof = credentials.proof(b"callee", theirs.purpose, &[&heard, &said]);
    let mut first = said.to_vec();
    first.extend_from_slice(&proof.finalize().into_bytes());
    (&mut &*stream).write_all(&first)?;

    let proof = read_array::<PROOF>(stream, deadline)?;
    let len = usize::from(u16::from_le_bytes(read_array(stream, deadline)?));
    if len > LONGEST_BODY {
        return Err(Stranger::new("says too much"));
    }
    let mut body = [0; LONGEST_BODY];
    let body = &mut body[..len];
    read_by(stream, body, deadline)?;
    let expected = credentials.proof(b"caller", theirs.purpose, &[&heard, &said, body]);
    expected.verify_slice(&proof).map_err(|_| {
        Stranger::of_this_job(format!(
            "(rank {} by its word) has another NEXTSCALE_SECRET",
            theirs.rank
        ))
    })?;
    Ok((purpose, body.to_vec()))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// Tells a caller that it is taken in, and by which machine, or why not.
pub(crate) fn write_verdict(stream: &TcpStream, said: Result<&str, &Error>) -> io::Result<()> {
    let mut verdict = Writer::default();
    match said {
        Ok(host) => {
            verdict.u8(1).text(host);
        }
        Err(error) => write_error(verdict.u8(0), error),
    }
    let mut out = Writer::default();
    out.u16(verdict.0.len() as u16).raw(&verdict.0);
    (&mut &*stream).write_all(&out.0)
}

/// The name of the callee's machine when it took one in, or why not.
pub(crate) fn read_verdict(stream: &TcpStream, by: Instant) -> io::Result<Result<String, Error>> {
    let len = u16::from_le_bytes(read_array(stream, by)?);
    let mut verdict = vec![0; usize::from(len)];
    read_by(stream, &mut verdict, by)?;
    let mut from = Reader(&verdict);
    match from.u8() {
        Some(1) => from.text().map(Ok),
        Some(0) => read_error(&mut from).map(Err),
        _ => None,
    }
    .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    type Answer = Result<(Purpose, Vec<u8>), Stranger>;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    fn job(secret: Option<&str>, job: &str, session: u8) -> Credentials {
        Credentials {
            secret: secret.map(|s| s.as_bytes().to_vec()),
            job: job.to_owned(),
            session: [session; 16],
        }
    }

    fn meet(
        caller: &Credentials,
        callee: &Credentials,
        purpose: Purpose,
    ) -> (Result<(), Stranger>, Answer) {
        let (one, other) = pair();
        thread::scope(|scope| {
            let called = scope.spawn(move || answer(&other, callee));
            let calling = call(&one, caller, purpose, 3, b"me");
            drop(one);
            (calling, called.join().unwrap())
        })
    }

    #[test]
    fn members_meet() {
        for secret in [None, Some("correct horse")] {
            for purpose in [Purpose::Control, Purpose::Ring] {
                let member = job(secret, "a", 1);
                let (calling, called) = meet(&member, &member, purpose);
                calling.unwrap();
                assert_eq!(called.unwrap(), (purpose, b"me".to_vec()));
            }
        }
    }

    #[test]
    fn others_do_not() {
        let cases = [
            (job(None, "a", 1), job(None, "b", 1), "another job", false),
            (
                job(Some("x"), "a", 1),
                job(Some("y"), "a", 1),
                "another NEXTSCALE_SECRET",
                true,
            ),
            (
                job(Some("x"), "a", 1),
                job(None, "a", 1),
                "NEXTSCALE_SECRET",
                true,
            ),
            (
                job(None, "a", 1),
                job(Some("y"), "a", 1),
                "NEXTSCALE_SECRET",
                true,
            ),
        ];
        for (one, other, why, same_job) in cases {
            let (calling, called) = meet(&one, &other, Purpose::Control);
            let (calling, called) = (calling.unwrap_err(), called.unwrap_err());
            assert!(calling.why.contains(why), "{}", calling.why);
            assert!(called.why.contains(why), "{}", called.why);
            assert_eq!((calling.same_job, called.same_job), (same_job, same_job));
        }
        // A ring asks for the session too, a control connection can't know it yet.
        let (one, other) = (job(None, "a", 1), job(None, "a", 2));
        assert!(meet(&one, &other, Purpose::Ring).1.is_err());
        assert!(meet(&one, &other, Purpose::Control).1.is_ok());
    }

    #[test]
    fn a_proof_of_one_side_is_none_for_the_other_and_what_is_said_is_proved() {
        let member = job(Some("secret"), "a", 1);
        // Sends back what it hears: both sides' proofs must differ.
        let (one, other) = pair();
        thread::scope(|scope| {
            scope.spawn(move || {
                let mut heard = [0; HELLO];
                (&other).read_exact(&mut heard).unwrap();
                (&other).write_all(&heard).unwrap();
                (&other).write_all(&[0; PROOF]).unwrap();
            });
            let error = call(&one, &member, Purpose::Control, 1, b"").unwrap_err();
            assert!(error.why.contains("another NEXTSCALE_SECRET"));
        });
        // Someone in the middle changes the body.
        let ((one, a), (b, other)) = (pair(), pair());
        thread::scope(|scope| {
            let member = &member;
            let called = scope.spawn(move || answer(&other, member));
            scope.spawn(move || {
                let mut hello = [0; HELLO];
                (&a).read_exact(&mut hello).unwrap();
                (&b).write_all(&hello).unwrap();
                let mut back = [0; HELLO + PROOF];
                (&b).read_exact(&mut back).unwrap();
                (&a).write_all(&back).unwrap();
                let mut last = [0; PROOF + 4];
                (&a).read_exact(&mut last).unwrap();
                last[PROOF + 2] ^= 1;
                (&b).write_all(&last).unwrap();
            });
            call(&one, member, Purpose::Control, 1, b"me").unwrap();
            assert!(called.join().unwrap().is_err());
        });
    }

    #[test]
    fn a_verdict_is_read() {
        let (one, other) = pair();
        let by = Instant::now() + PATIENCE;
        write_verdict(&one, Ok("host-a")).unwrap();
        write_verdict(&one, Err(&Error::Input("two\nranks 1".into()))).unwrap();
        assert_eq!(read_verdict(&other, by).unwrap().unwrap(), "host-a");
        let refusal = read_verdict(&other, by).unwrap().unwrap_err();
        assert!(refusal.is_input());
        assert_eq!(refusal.to_string(), "two ranks 1");
    }
}
