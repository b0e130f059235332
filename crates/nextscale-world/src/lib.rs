//! Processes that work on one thing together: who they are, how they find each other, how they sum numbers, and how they notice
//! that one is lost.
//!
//! An [`Identity`] says which process this is, from flags or from what its launcher left in the environment. [`World::join`]
//! connects to all others. Collectives are calls that all members make in the same order. [`launch`] starts
//! the processes of one machine.
//!
//! ```
//! use nextscale_world::{Given, Identity, Limits, World};
//!
//! let identity = Identity::of_process(&Given::default())?;
//! let world = World::join(&identity, Limits::default())?;
//! let mut losses = [0.5, 1.0];
//! world.sum(&mut losses)?;
//! # assert_eq!(losses, [0.5, 1.0]);
//! world.finish()?;
//! # Ok::<(), nextscale_world::Error>(())
//! ```
//!
//! # Where rank 0 is
//!
//! Rank 0 listens on a TCP port, the others look for it. The port is that of [`Ports`]: one after `MASTER_PORT`, which
//! torchrun itself uses, or one that follows from the job's name; where it is taken the next is used, sixteen in all.
//! Each other member listens on a port of the system's choice for its neighbour of the ring, until all are connected.
//!
//! | variable | meaning |
//! |---|---|
//! | `NEXTSCALE_SECRET` | words that all members know; needed on several machines whose names are not known |
//! | `NEXTSCALE_MASTER` | `HOST` or `HOST:PORT` of rank 0 |
//! | `NEXTSCALE_HOSTS` | all machines, with commas |
//! | `NEXTSCALE_JOB` | a name that tells the job from others that use the same ports |
//! | `NEXTSCALE_HOST` | what this machine is called in messages |
//!
//! # Members that are lost
//!
//! Every member says each second that it is alive. When one is gone, silent for [`Limits::silence`], or has left with an error
//! ([`World::leave`]), rank 0 tells all others, and whatever collective they are in ends with that error. [`World::check`] says
//! it to loops that wait for something else, and [`World::on_loss`] calls back.

// Printing is for whoever uses the library.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod calls;
mod control;
mod error;
mod gate;
mod handshake;
mod identity;
#[cfg(feature = "launch")]
pub mod launch;
mod limits;
mod link;
mod orphan;
mod rendezvous;
mod ring;
mod slurm;
mod wire;
mod world;

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use error::{Error, Result};
pub use identity::{Given, Identity, Ports, Secret, Source};
pub use limits::Limits;
pub use world::World;
