//! Where the servers' programs are on this machine.

use std::env::{current_exe, split_paths, var_os};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// The program of that name on `PATH`, or where systems keep what only root starts.
pub fn on_path(name: &str) -> Option<PathBuf> {
    split_paths(&var_os("PATH").unwrap_or_default())
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|folder| folder.join(name))
        .find(|program| program.is_file())
}

/// What a program says of its version, in one line.
pub fn version(program: &Path) -> Option<String> {
    // Two tell it among their help: Mosquitto first, and calls that a failure; collectd near the end.
    let tells_in_help = program.ends_with("mosquitto") || program.ends_with("collectd");
    let flag = if tells_in_help { "-h" } else { "--version" };
    let output = Command::new(program).arg(flag).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut lines = text.lines();
    let line = if program.ends_with("collectd") {
        lines.find(|line| line.starts_with("collectd "))
    } else {
        lines.next()
    };
    Some(line?.trim().to_owned())
}

/// This program.
///
/// # Errors
/// When the system does not say where it is.
pub fn own() -> anyhow::Result<PathBuf> {
    current_exe().context("looking for this program")
}

/// The `aklight` of this workspace, as users have it: optimized, built now if it is not there.
///
/// # Errors
/// When it does not build.
pub fn aklight() -> anyhow::Result<PathBuf> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace.join("target"), |target| workspace.join(target));
    let program = target.join("release/aklight");
    if !program.is_file() {
        let built = Command::new("cargo")
            .args(["build", "--release", "--package", "aklight"])
            .current_dir(&workspace)
            .status()
            .context("starting cargo to build aklight; --aklight PATH names one that is built")?;
        ensure!(built.success(), "aklight does not build");
    }
    program.canonicalize().with_context(|| format!("looking for {}", program.display()))
}
