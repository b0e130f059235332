//! The flags that say which processes work together, and how they begin and end.

use nextscale::run::{Outcome, StopSignal, init_threads, threads_of};
use nextscale::{Error, Result, Team, World, tell};
use nextscale_tensor::cuda;
use nextscale_world::launch::Launch;
use nextscale_world::{Given, Identity, Limits};
use std::process::ExitCode;

/// The processes that share the work. Without these flags the environment of torchrun, srun, mpirun or mpiexec says who they are.
#[derive(clap::Args)]
#[command(rename_all = "snake_case", next_help_heading = "Processes")]
pub struct ProcessArgs {
    /// Start N processes on this machine that share the work; all: one for each GPU
    #[arg(long, value_name = "N|all", value_parser = count, conflicts_with_all = ["rank", "world_size", "master", "hosts"])]
    procs: Option<u16>,
    /// How often --procs starts all again after one has failed
    #[arg(long, value_name = "N", default_value_t = 0, requires = "procs")]
    max_restarts: usize,
    /// This process's number, from 0
    #[arg(long, value_name = "N", requires = "world_size")]
    rank: Option<usize>,
    /// The number of processes
    #[arg(long, value_name = "N", requires = "rank")]
    world_size: Option<usize>,
    /// Where rank 0 is
    #[arg(long, value_name = "HOST[:PORT]")]
    master: Option<String>,
    /// All machines
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    hosts: Vec<String>,
}

/// The value of `--procs`.
fn count(text: &str) -> Result<u16, String> {
    if text == "all" {
        return match cuda::count() {
            0 => Err("there is no GPU to count; give a number".into()),
            gpus => u16::try_from(gpus).map_err(|e| e.to_string()),
        };
    }
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("'{text}': give a number from 1 to 65535, or all")),
        Ok(count) => Ok(count),
    }
}

/// Tells a process that the launcher has started it.
const LAUNCHED: &str = "NEXTSCALE_RANK";

impl ProcessArgs {
    /// Meets the other processes and trains with them, or starts them; what a run has to say is said once.
    ///
    /// # Errors
    /// Bad flags or variables, processes that do not come, and those of `run`.
    pub fn train(
        &self,
        threads: usize,
        run: impl FnOnce(Team) -> Result<Outcome>,
    ) -> Result<ExitCode> {
        if let Some(count) = self.to_launch() {
            return self.launch(count);
        }
        let world = self.join(Limits::default())?;
        init_threads(threads_of(&world, threads))?;
        let stop = StopSignal::install()?;
        let team = Team {
            world: world.clone(),
            stop,
        };
        let outcome = run(team)?;
        let is_first = world.is_first();
        world.finish()?;
        if is_first {
            return super::ended(&outcome.message, outcome.exit_code);
        }
        Ok(ExitCode::from(outcome.exit_code))
    }

    /// The same for work of one command, which the first process tells of.
    ///
    /// # Errors
    /// Bad flags or variables, processes that do not come, and those of `work`.
    pub fn share(&self, work: impl FnOnce(&Team) -> Result<()>) -> Result<ExitCode> {
        self.share_within(Limits::default(), work)
    }

    /// The same with other limits on what is waited for.
    ///
    /// # Errors
    /// As [`ProcessArgs::share`].
    pub fn share_within(
        &self,
        limits: Limits,
        work: impl FnOnce(&Team) -> Result<()>,
    ) -> Result<ExitCode> {
        if let Some(count) = self.to_launch() {
            return self.launch(count);
        }
        let team = Team {
            world: self.join(limits)?,
            ..Team::alone()
        };
        work(&team).inspect_err(|e| team.world.leave(&e.to_string()))?;
        team.world.finish()?;
        Ok(ExitCode::SUCCESS)
    }

    /// Whether flags name other processes.
    pub fn is_given(&self) -> bool {
        self.procs.is_some() || self.world_size.is_some()
    }

    /// How many processes to start; `None` in a process that works itself.
    fn to_launch(&self) -> Option<usize> {
        let launched = std::env::var_os(LAUNCHED).is_some();
        self.procs.filter(|_| !launched).map(usize::from)
    }

    fn join(&self, limits: Limits) -> Result<World> {
        let given = Given {
            rank: self.rank,
            world_size: self.world_size,
            local_rank: None,
            master: self.master.clone(),
            hosts: self.hosts.clone(),
        };
        let identity = Identity::of_process(&given)?;
        Ok(World::join(&identity, limits)?)
    }

    fn launch(&self, count: usize) -> Result<ExitCode> {
        let program = std::env::current_exe()
            .map_err(|e| Error::failed(format!("this program can't be started again: {e}")))?;
        let mut launch = Launch::new(count, program);
        launch.max_restarts = self.max_restarts;
        launch.args = std::env::args_os().skip(1).collect();
        let code = launch.run(|line| tell!("nextscale: {line}"))?;
        Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)))
    }
}
