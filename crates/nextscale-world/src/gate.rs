//! The door of a process: a listening socket behind which only members of the job come in.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::handshake::{self, Credentials, Purpose};

/// Connections that are in the middle of the handshake. A flood of strangers takes no more threads than that.
const MOST_AT_ONCE: usize = 256;
/// Of a thread that talks to one who knocks.
const STACK: usize = 256 << 10;
/// How long names that could not be resolved are left alone.
const RESOLVE_AGAIN: Duration = Duration::from_secs(2);

/// Who may knock at all.
pub(crate) enum Allowed {
    /// Whoever has the secret.
    Anyone,
    /// Processes of this machine.
    Loopback,
    /// Processes of these hosts and of this machine.
    Hosts(Vec<String>),
}

/// Someone who proved to be of the job.
pub(crate) struct Guest {
    pub stream: TcpStream,
    pub purpose: Purpose,
    pub body: Vec<u8>,
}

/// A bound socket at which nobody is let in yet.
pub(crate) struct Gate {
    listener: TcpListener,
    port: u16,
}

/// Lets members in until it is dropped.
pub(crate) struct OpenGate {
    guests: mpsc::Receiver<Guest>,
    closed: Arc<AtomicBool>,
    turned_away: Arc<Mutex<BTreeSet<String>>>,
}

/// Binds this machine's own address alone, or all of its addresses.
pub(crate) fn bind(port: u16, loopback: Option<IpAddr>) -> io::Result<Gate> {
    let listener = match loopback {
        Some(address) => TcpListener::bind((address, port))?,
        // Both families where there are both.
        None => TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).or_else(|error| {
            match error.kind() {
                io::ErrorKind::AddrInUse => Err(error),
                _ => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)),
            }
        })?,
    };
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    Ok(Gate { listener, port })
}

impl Gate {
    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn open(self, credentials: Credentials, allowed: Allowed) -> OpenGate {
        let (send, guests) = mpsc::channel();
        let closed = Arc::new(AtomicBool::new(false));
        let turned_away = Arc::new(Mutex::new(BTreeSet::new()));
        let doorman = Doorman {
            credentials: Arc::new(credentials),
            guests: send,
            closed: closed.clone(),
            turned_away: turned_away.clone(),
            busy: Arc::new(AtomicUsize::new(0)),
            known: Known::new(allowed),
        };
        thread::spawn(move || doorman.serve(&self.listener));
        OpenGate {
            guests,
            closed,
            turned_away,
        }
    }
}

impl OpenGate {
    /// The next member that comes within `patience`.
    pub fn next(&self, patience: Duration) -> Option<Guest> {
        self.guests.recv_timeout(patience).ok()
    }

    /// Who was sent away and why, for the message when somebody is missing.
    pub fn turned_away(&self) -> Vec<String> {
        let away = self.turned_away.lock().unwrap_or_else(|e| e.into_inner());
        away.iter().cloned().collect()
    }
}

impl Drop for OpenGate {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

struct Doorman {
    credentials: Arc<Credentials>,
    guests: mpsc::Sender<Guest>,
    closed: Arc<AtomicBool>,
    turned_away: Arc<Mutex<BTreeSet<String>>>,
    busy: Arc<AtomicUsize>,
    known: Known,
}

impl Doorman {
    fn serve(mut self, listener: &TcpListener) {
        while !self.closed.load(Ordering::Relaxed) {
            let mut fds = [PollFd::new(listener, PollFlags::IN)];
            let _ = poll(&mut fds, Some(&timespec(Duration::from_millis(100))));
            let Ok((stream, from)) = listener.accept() else {
                // Nobody, or no room for another open file: not to be asked again at once.
                if fds[0].revents().intersects(PollFlags::IN) {
                    thread::sleep(Duration::from_millis(10));
                }
                continue;
            };
            let from = from.ip().to_canonical();
            if !self.known.has(from) {
                let who = format!("a process at {from}, which is no address of this job's hosts");
                note(&self.turned_away, 4, who);
                continue;
            }
            if self.busy.fetch_add(1, Ordering::Relaxed) >= MOST_AT_ONCE {
                self.busy.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            let (credentials, guests) = (self.credentials.clone(), self.guests.clone());
            let (turned_away, busy) = (self.turned_away.clone(), self.busy.clone());
            let talk = move || {
                let met = stream
                    .set_nonblocking(false)
                    .map_err(Into::into)
                    .and_then(|()| handshake::answer(&stream, &credentials));
                match met {
                    Ok((purpose, body)) => {
                        let _ = guests.send(Guest {
                            stream,
                            purpose,
                            body,
                        });
                    }
                    Err(stranger) => {
                        // Room for those who should have come is not taken by others.
                        let most = if stranger.same_job { 8 } else { 4 };
                        let who = format!("a process at {from}, which {}", stranger.why);
                        note(&turned_away, most, who);
                    }
                }
                busy.fetch_sub(1, Ordering::Relaxed);
            };
            // Where there is no room for a thread the connection closes, and a member tries again.
            if thread::Builder::new()
                .stack_size(STACK)
                .spawn(talk)
                .is_err()
            {
                self.busy.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

/// A few are enough for a message.
fn note(turned_away: &Mutex<BTreeSet<String>>, most: usize, who: String) {
    let mut away = turned_away.lock().unwrap_or_else(|e| e.into_inner());
    if away.len() < most {
        away.insert(who);
    }
}

pub(crate) fn timespec(time: Duration) -> Timespec {
    Timespec::try_from(time).unwrap_or(Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    })
}

/// The addresses that may knock.
struct Known {
    allowed: Allowed,
    addresses: BTreeSet<IpAddr>,
    asked: Option<Instant>,
}

impl Known {
    fn new(allowed: Allowed) -> Self {
        Self {
            allowed,
            addresses: BTreeSet::new(),
            asked: None,
        }
    }

    fn has(&mut self, address: IpAddr) -> bool {
        let hosts = match &mut self.allowed {
            Allowed::Anyone => return true,
            Allowed::Loopback => return address.is_loopback(),
            Allowed::Hosts(hosts) => hosts,
        };
        if address.is_loopback() || self.addresses.contains(&address) {
            return true;
        }
        // Names of machines that are starting may become known only now. Those that are known are not asked again: a stranger
        // who knocks must not hold up others.
        if !hosts.is_empty() && self.asked.is_none_or(|at| at.elapsed() > RESOLVE_AGAIN) {
            hosts.retain(|host| {
                let found = resolve(host);
                self.addresses.extend(&found);
                found.is_empty()
            });
            self.asked = Some(Instant::now());
        }
        self.addresses.contains(&address)
    }
}

/// The addresses of a host's name; none when it has none yet.
pub(crate) fn resolve(host: &str) -> Vec<IpAddr> {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found = (host, 0).to_socket_addrs().map(Iterator::collect);
    let mut addresses: Vec<IpAddr> = found
        .unwrap_or_else(|_| Vec::<SocketAddr>::new())
        .iter()
        .map(|address| address.ip().to_canonical())
        .collect();
    // The same address comes once for each kind of socket.
    let mut seen = BTreeSet::new();
    addresses.retain(|address| seen.insert(*address));
    addresses
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn member() -> Credentials {
        Credentials {
            secret: None,
            job: "a".to_owned(),
            session: [0; 16],
        }
    }

    #[test]
    fn a_member_comes_in_past_strangers() {
        let gate = bind(0, Some(Ipv4Addr::LOCALHOST.into())).unwrap();
        let at = ("127.0.0.1", gate.port());
        let gate = gate.open(member(), Allowed::Loopback);
        // Silent ones, and one who babbles.
        let _silent: Vec<_> = (0..40).map(|_| TcpStream::connect(at).unwrap()).collect();
        let mut babbler = TcpStream::connect(at).unwrap();
        let _ = babbler.write_all(&[b'x'; 100_000]);
        let stream = TcpStream::connect(at).unwrap();
        handshake::call(&stream, &member(), Purpose::Control, 1, b"hello").unwrap();
        let guest = gate.next(Duration::from_secs(4)).unwrap();
        assert_eq!(
            (guest.purpose, &guest.body[..]),
            (Purpose::Control, &b"hello"[..])
        );
        assert!(gate.next(Duration::ZERO).is_none());
        // Whoever talks to the babbler may be slower than who let the member in.
        let begun = Instant::now();
        while gate.turned_away().is_empty() && begun.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(5));
        }
        let away = gate.turned_away();
        assert!(away[0].contains("no process of this program"), "{away:?}");
    }

    #[test]
    fn only_addresses_of_the_job() {
        let lan: IpAddr = [192, 0, 2, 7].into();
        let here = Ipv4Addr::LOCALHOST.into();
        assert!(Known::new(Allowed::Anyone).has(lan));
        assert!(!Known::new(Allowed::Loopback).has(lan));
        assert!(Known::new(Allowed::Loopback).has(here));
        let hosts = || Allowed::Hosts(vec!["192.0.2.7".into(), "no.such.host.invalid".into()]);
        assert!(Known::new(hosts()).has(lan) && Known::new(hosts()).has(here));
        assert!(!Known::new(hosts()).has([192, 0, 2, 8].into()));
    }

    #[test]
    fn a_port_is_taken_once() {
        let first = bind(0, None).unwrap();
        assert_eq!(
            bind(first.port(), None).err().unwrap().kind(),
            io::ErrorKind::AddrInUse
        );
        assert!(bind(first.port(), Some(Ipv4Addr::LOCALHOST.into())).is_err());
    }
}
