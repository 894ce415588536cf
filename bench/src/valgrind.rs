//! Counting instead of timing: a process under valgrind, and what valgrind says of it in the end.
//!
//! Hardware's own counters are not there in most virtual machines; valgrind executes a program
//! itself, some fifty times slower, and knows exactly what it did. What the kernel does for the
//! program is not in it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::Arc;

use anyhow::{Context, ensure};

use crate::load::Load;
use crate::peers::{Feed, Publisher, Setup, Share, Wanted, Way};
use crate::programs::on_path;
use crate::wire::Wire;

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// Instructions, by callgrind.
    Instructions,
    /// Calls for memory from the heap, a block that grows counted again, by memcheck.
    Allocations,
}

impl Tool {
    /// A command that runs `command` under valgrind. What valgrind says goes to `log`, and a
    /// profile, where there is one, beside it.
    ///
    /// # Errors
    /// When valgrind is not on this machine.
    pub fn around(self, command: &Command, log: &Path) -> anyhow::Result<Command> {
        let valgrind = on_path("valgrind").context("valgrind is not on this machine")?;
        let mut counted = Command::new(valgrind);
        match self {
            Self::Instructions => {
                let profile = log.with_extension("callgrind");
                counted.arg("--tool=callgrind");
                counted.arg(format!("--callgrind-out-file={}", profile.display()));
            }
            // What it is made for is left out: it takes most of its time.
            Self::Allocations => {
                counted.args(["--tool=memcheck", "--undef-value-errors=no", "--leak-check=no"]);
            }
        }
        counted.arg(format!("--log-file={}", log.display()));
        counted.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => counted.env(name, value),
                None => counted.env_remove(name),
            };
        }
        Ok(counted)
    }

    /// What was counted of a process that has ended.
    ///
    /// # Errors
    /// When valgrind did not say.
    pub fn total(self, log: &Path) -> anyhow::Result<u64> {
        let text = fs::read_to_string(log).with_context(|| format!("reading {}", log.display()))?;
        let total = self.find(&text);
        total.with_context(|| format!("valgrind counted nothing; it said:\n{text}"))
    }

    fn find(self, text: &str) -> Option<u64> {
        let mark = match self {
            Self::Instructions => "Collected : ",
            Self::Allocations => "total heap usage: ",
        };
        let behind = text.lines().find_map(|line| Some(line.split_once(mark)?.1))?;
        behind.split(' ').next()?.replace(',', "").parse().ok()
    }
}

/// Whether a process came to a good end.
///
/// # Errors
/// When it did not.
pub fn ended_well(what: &str, status: ExitStatus, log: &Path) -> anyhow::Result<()> {
    let said = || fs::read_to_string(log).unwrap_or_default();
    ensure!(status.success(), "{what} ended with {status}; valgrind said:\n{}", said());
    Ok(())
}

/// A system whose server runs under valgrind, where there is something to count.
pub struct Counted<W> {
    /// The system.
    pub inner: W,
    /// What is counted, and where valgrind says it.
    pub tool: Option<(Tool, PathBuf)>,
}

impl<W: Way> Way for Counted<W> {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn is_stored(&self) -> bool {
        self.inner.is_stored()
    }

    fn program(&self) -> Option<PathBuf> {
        self.inner.program()
    }

    fn command(&self, program: &Path, setup: &Setup<'_>) -> anyhow::Result<Command> {
        let command = self.inner.command(program, setup)?;
        match &self.tool {
            Some((tool, log)) => tool.around(&command, log),
            None => Ok(command),
        }
    }

    fn greet(&self, wire: &mut Wire) -> anyhow::Result<()> {
        self.inner.greet(wire)
    }

    fn prepare(&self, server: SocketAddr, replicas: usize) -> anyhow::Result<()> {
        self.inner.prepare(server, replicas)
    }

    fn publisher(&self, load: &Arc<Load>, share: Share) -> Box<dyn Publisher> {
        self.inner.publisher(load, share)
    }

    fn feed(&self, load: &Arc<Load>, wanted: Wanted) -> Option<Box<dyn Feed>> {
        self.inner.feed(load, wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::Tool;

    #[test]
    fn what_valgrind_says_is_understood() {
        let instructions = "==7== Events    : Ir\n==7== Collected : 123456789\n";
        assert_eq!(Tool::Instructions.find(instructions), Some(123_456_789));
        let heap = "==7==   total heap usage: 1,027 allocs, 1,020 frees, 9,876 bytes allocated\n";
        assert_eq!(Tool::Allocations.find(heap), Some(1_027));
        assert_eq!(Tool::Allocations.find(instructions), None);
    }
}
