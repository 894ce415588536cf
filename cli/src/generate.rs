//! `aklight completions` and `aklight man`: what a package installs beside the command.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Command};
use clap_complete::Shell;

use crate::output::OutputError;

/// For which shell.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

/// Where to.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// An existing folder for the pages of all commands; without it, the first page is printed
    dir: Option<PathBuf>,
}

/// Prints the completions of a shell.
pub fn completions(args: &CompletionsArgs, mut command: Command) -> anyhow::Result<ExitCode> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "aklight", &mut script);
    print(&script)
}

/// Prints the first manual page, or writes all of them.
pub fn man(args: &ManArgs, command: Command) -> anyhow::Result<ExitCode> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return print(&page);
    };
    write_pages(dir, command)?;
    Ok(ExitCode::SUCCESS)
}

fn write_pages(dir: &Path, command: Command) -> anyhow::Result<()> {
    clap_mangen::generate_to(command, dir).with_context(|| {
        format!("no pages could be written into {}: does this folder exist?", dir.display())
    })
}

fn print(bytes: &[u8]) -> anyhow::Result<ExitCode> {
    std::io::stdout().write_all(bytes).map_err(OutputError::from)?;
    Ok(ExitCode::SUCCESS)
}
