//! A control connection: frames of a kind, a length and bytes.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, TryLockError};
use std::time::{Duration, Instant};

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    /// I am alive.
    Beat = 1,
    /// To rank 0: a collective is called, with what it carries.
    Call = 2,
    /// From rank 0: what the collective gave.
    Answer = 3,
    /// From rank 0: the job has failed.
    Fail = 4,
    /// To rank 0: this is why it fails.
    Report = 5,
    /// From rank 0: everybody has come, these are they.
    Table = 6,
}

/// How long one write may stand still before it is asked whether it should go on.
const PAUSE: Duration = Duration::from_millis(500);
/// The most bytes of a frame.
const LONGEST: usize = 1 << 31;

pub(crate) struct Link {
    stream: TcpStream,
    writer: Mutex<()>,
    /// When something was heard last, in milliseconds since `epoch`.
    heard: AtomicU64,
    epoch: Instant,
}

impl Link {
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(None)?;
        stream.set_write_timeout(Some(PAUSE))?;
        Ok(Self {
            stream,
            writer: Mutex::new(()),
            heard: AtomicU64::new(0),
            epoch: Instant::now(),
        })
    }

    /// How long nothing has been heard.
    pub fn silence(&self) -> Duration {
        let heard = Duration::from_millis(self.heard.load(Ordering::Relaxed));
        self.epoch.elapsed().saturating_sub(heard)
    }

    /// Counts silence from now on.
    pub fn touch(&self) {
        let now = self.epoch.elapsed().as_millis() as u64;
        self.heard.store(now, Ordering::Relaxed);
    }

    /// Sends a frame; `stop` is asked whenever the other side takes nothing for a while.
    pub fn send(&self, frame: Frame, body: &[u8], stop: impl Fn() -> bool) -> io::Result<()> {
        let _turn = self.writer.lock().unwrap_or_else(|e| e.into_inner());
        self.write(frame, body, stop)
    }

    /// Sends a frame unless another one is on its way and stays so: the last word, or a sign of life.
    pub fn try_send(&self, frame: Frame, body: &[u8], patience: Duration) -> io::Result<()> {
        let until = Instant::now() + patience;
        loop {
            match self.writer.try_lock() {
                Ok(_turn) => return self.write(frame, body, || true),
                Err(TryLockError::Poisoned(turn)) => {
                    let _turn = turn.into_inner();
                    return self.write(frame, body, || true);
                }
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            }
        }
    }

    fn write(&self, frame: Frame, body: &[u8], stop: impl Fn() -> bool) -> io::Result<()> {
        let mut head = [frame as u8; 9];
        head[1..].copy_from_slice(&(body.len() as u64).to_le_bytes());
        if body.len() <= 4096 {
            // One packet.
            let whole = [&head, body].concat();
            return self.write_all(&whole, &stop);
        }
        self.write_all(&head, &stop)?;
        self.write_all(body, &stop)
    }

    fn write_all(&self, mut bytes: &[u8], stop: &impl Fn() -> bool) -> io::Result<()> {
        while !bytes.is_empty() {
            match (&self.stream).write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if is_pause(&e) && !stop() => {}
                Err(e) => {
                    // Half a frame: nothing can follow it.
                    self.shut();
                    return Err(e);
                }
            }
        }
        Ok(())
    }

    /// The next frame. Only one thread reads.
    pub fn read(&self) -> io::Result<(Frame, Vec<u8>)> {
        let mut head = [0; 9];
        self.read_exact(&mut head)?;
        let frame = match head[0] {
            1 => Frame::Beat,
            2 => Frame::Call,
            3 => Frame::Answer,
            4 => Frame::Fail,
            5 => Frame::Report,
            6 => Frame::Table,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        let len = u64::from_le_bytes(head[1..].try_into().expect("eight bytes"));
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        if len > LONGEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut body = Vec::new();
        while body.len() < len {
            let start = body.len();
            body.resize(len.min(start + (1 << 20)), 0);
            self.read_exact(&mut body[start..])?;
        }
        Ok((frame, body))
    }

    fn read_exact(&self, bytes: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        while done < bytes.len() {
            match (&self.stream).read(&mut bytes[done..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    done += n;
                    self.touch();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Ends all reads and writes of it.
    pub fn shut(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

fn is_pause(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}
