//! The walls of the house, held by reading the sources.
//!
//! Each wall is one sentence of ARCHITECTURE.md: a name that appears in one room only, an import
//! that runs one way, a file that stays one idea. The compiler cannot hold them, because every
//! crate of the workspace may be named by every other; this test can.
//!
//! How it reads: comments, texts in quotes and everything under `#[cfg(test)]` are blanked out
//! first (tests may reach for the clock and the disk), then `use` trees are spelled out, so that
//! `use std::{fs, io}` counts as `std::fs`. It reads text, not types: a re-export under another
//! name would pass. An exception stands in a table with its reason, and one that nothing needs
//! any more fails as well.

#[path = "walls/source.rs"]
mod source;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use source::Source;

/// The crates that the walls stand in.
const CRATES: [&str; 10] =
    ["common", "log", "broker", "oracle", "producer", "consumer", "stress", "sim", "bench", "cli"];

/// A file longer than this before its tests is usually two ideas. The house aims at 400; the
/// rest is room for a table or a long lesson.
const FILE_LINES_MAX: usize = 500;

/// A place that may do what a wall forbids, and why.
struct Door {
    /// A file, or the beginning of a path when it ends with `/`.
    place: &'static str,
    why: &'static str,
}

const fn door(place: &'static str, why: &'static str) -> Door {
    Door { place, why }
}

/// Every `main` wires real things together, so it may reach for the real ones.
fn is_main(path: &str) -> bool {
    path.ends_with("/src/main.rs") || path.contains("/src/bin/")
}

fn check_wall(names: &[&str], mains: bool, doors: &[Door]) {
    let mut used = vec![false; doors.len()];
    let mut breaches = Vec::new();
    for source in sources() {
        for (line, name) in source.finds(names) {
            if mains && is_main(&source.path) {
                continue;
            }
            let open = doors.iter().position(|door| {
                source.path == door.place
                    || (door.place.ends_with('/') && source.path.starts_with(door.place))
            });
            match open {
                Some(at) => used[at] = true,
                None => breaches.push(format!("{}:{line}: {name}", source.path)),
            }
        }
    }
    let stale = doors
        .iter()
        .zip(used)
        .filter(|(_, used)| !used)
        .map(|(door, _)| format!("{}: the exception is not needed ({})", door.place, door.why));
    breaches.extend(stale);
    assert!(breaches.is_empty(), "outside their rooms:\n  {}", breaches.join("\n  "));
}

#[test]
fn openraft_is_named_in_replication_only() {
    check_wall(
        &["openraft", "openraft_multi"],
        false,
        &[door("broker/src/replication/", "the one place that speaks Raft")],
    );
}

#[test]
fn tonic_is_named_in_peer_only() {
    check_wall(
        &["tonic", "tonic_prost", "prost", "h2"],
        false,
        &[door("broker/src/peer/", "the one place that speaks gRPC")],
    );
}

#[test]
fn axum_is_named_in_admin_only() {
    check_wall(&["axum"], false, &[door("broker/src/admin/", "the one place that speaks HTTP")]);
}

#[test]
fn the_log_knows_no_runtime() {
    let breaches: Vec<_> = sources()
        .into_iter()
        .filter(|source| source.path.starts_with("log/"))
        .flat_map(|source| {
            let path = source.path.clone();
            source.finds(&["tokio"]).into_iter().map(move |(line, _)| format!("{path}:{line}"))
        })
        .collect();
    assert!(breaches.is_empty(), "tokio in the log:\n  {}", breaches.join("\n  "));
}

/// Whoever forks has no threads and no runtime: the collector of containers, which has one, is a
/// leaf that forks nothing.
#[test]
fn the_producer_has_a_runtime_in_one_room() {
    let breaches: Vec<_> = sources()
        .into_iter()
        .filter(|source| source.path.starts_with("producer/"))
        .filter(|source| !source.path.starts_with("producer/src/docker/"))
        .flat_map(|source| {
            let path = source.path.clone();
            let found = source.finds(&["tokio", "hyper", "hyper_util", "http_body_util"]);
            found.into_iter().map(move |(line, name)| format!("{path}:{line}: {name}"))
        })
        .collect();
    assert!(breaches.is_empty(), "a runtime where processes fork:\n  {}", breaches.join("\n  "));
}

#[test]
fn time_is_passed_in() {
    check_wall(
        &["Instant::now", "SystemTime::now", "Timestamp::now", "Zoned::now"],
        true,
        &[
            door("common/src/clock.rs", "the clock that everyone else is given"),
            // tokio's clock, which simulations move.
            door("broker/src/partition/", "what waits too long"),
            door("broker/src/replication/asking.rs", "until when a leader is asked"),
            door("broker/src/cluster/", "how long brokers are silent or back"),
            door("sim/src/", "a clock that goes as the simulation says"),
            door("bench/src/clock.rs", "real time is what the bench measures"),
        ],
    );
}

#[test]
fn files_are_opened_in_few_rooms() {
    check_wall(
        &["std::fs", "tokio::fs"],
        false,
        &[
            door("log/src/disk/", "the one way of the log to a disk, real or faulty"),
            door("common/src/atomic_file.rs", "small files that are whole or not there"),
            door("common/src/settings.rs", "the file of settings, read once at the start"),
            door("producer/src/readings/", "the readings of /proc and cgroups are files"),
            door("producer/src/title.rs", "the process's own name is read from /proc/self"),
            door("producer/src/collector.rs", "counts its threads in /proc/self before it forks"),
            door("producer/src/spool/", "samples wait on the disk while no broker answers"),
            door("producer/src/sequences.rs", "which sequences a restarted producer must not use"),
            door("consumer/src/load.rs", "the rules file and a token file: what the user wrote"),
            door("consumer/src/alerts/store.rs", "offsets and alert state: read, or set aside"),
            door("consumer/src/alerts/dead.rs", "alerts.dead grows by lines and is no log"),
            door("cli/src/verify/folders.rs", "looks for logs in the folders that it is given"),
            door("cli/src/chaos/", "makes the folders of its brokers, fills a disk, removes all"),
            door("bench/src/", "measures processes in /proc, gives them folders, writes a report"),
            door("stress/src/machine.rs", "memory and CPUs of the container are files"),
        ],
    );
}

#[test]
fn the_environment_is_read_in_mains_and_settings() {
    check_wall(
        &["std::env"],
        true,
        &[
            door("common/src/settings.rs", "where every main hands its arguments and variables"),
            door("bench/src/programs.rs", "where peers' servers are found: PATH"),
            door("bench/src/peers/aklight.rs", "what users tell their brokers is kept from ours"),
        ],
    );
}

/// Who may build on whom: `common ← log ← broker`, and the clients know `common` only.
/// `[dev-dependencies]` are free: a test may start anything.
#[test]
fn crates_import_one_way() {
    let allowed = BTreeMap::from([
        ("common", vec![]),
        ("log", vec!["common"]),
        ("broker", vec!["common", "log"]),
        ("oracle", vec!["common"]),
        ("producer", vec!["common"]),
        ("consumer", vec!["common"]),
        ("stress", vec!["common"]),
        // Who measures AKLight speaks to it as to every peer.
        ("bench", vec![]),
        ("sim", vec!["broker", "common", "log", "oracle"]),
        ("cli", vec!["broker", "common", "consumer", "log", "oracle", "producer", "stress"]),
    ]);
    for name in CRATES {
        let manifest = read(&root().join(name).join("Cargo.toml"));
        for dependency in own_dependencies(&manifest) {
            assert!(
                allowed[name].contains(&dependency.as_str()),
                "{name}/Cargo.toml depends on aklight-{dependency}; it may know {:?}",
                allowed[name]
            );
        }
    }
}

/// The broker's rooms, lowest first: a room may name the rooms below it and itself.
/// Rooms of one height do not know each other. Modules that are no room (settings, events and
/// the like) are leaves that everyone may name.
#[test]
fn the_rooms_of_the_broker_import_one_way() {
    let height = |room: &str| match room {
        "replication" => Some(0),
        "partition" => Some(1),
        "fetch" | "sessions" => Some(2),
        "cluster" => Some(3),
        "ingress" | "peer" | "admin" => Some(4),
        "node" => Some(5),
        "broker" => Some(6),
        _ => None,
    };
    let mut breaches = Vec::new();
    for source in sources() {
        let Some(inside) = source.path.strip_prefix("broker/src/") else { continue };
        let room = inside.split(['/', '.']).next().unwrap_or_default().to_owned();
        let Some(own) = height(&room) else { continue };
        for (line, named) in source.crate_modules() {
            if named != room && height(&named).is_some_and(|other| other >= own) {
                breaches.push(format!("{}:{line}: {room} names {named}", source.path));
            }
        }
    }
    assert!(breaches.is_empty(), "against the stream:\n  {}", breaches.join("\n  "));
}

#[test]
fn every_module_opens_with_a_lesson() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|source| !source.raw.starts_with("//!"))
        .map(|source| source.path)
        .collect();
    assert!(silent.is_empty(), "no `//!` at the top:\n  {}", silent.join("\n  "));
}

#[test]
fn a_file_is_one_idea() {
    let long: Vec<_> = sources()
        .into_iter()
        .map(|source| (source.lines_before_tests(), source.path))
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines before its tests"))
        .collect();
    assert!(long.is_empty(), "over {FILE_LINES_MAX} lines:\n  {}", long.join("\n  "));
}

/// The test above all: walls that read nothing would always stand.
#[test]
fn the_walls_see_the_sources() {
    let sources = sources();
    for name in CRATES {
        assert!(sources.iter().any(|s| s.path.starts_with(&format!("{name}/src/"))), "{name}");
    }
    let clock = sources.iter().find(|s| s.path == "common/src/clock.rs").expect("the clock");
    assert!(!clock.finds(&["Instant::now"]).is_empty());
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every source of the crates that is not a test, in the order of their paths.
fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    for name in CRATES {
        collect(&root().join(name).join("src"), &mut files);
    }
    files.sort();
    let sources: Vec<_> = files
        .iter()
        .map(|path| {
            let name = path.strip_prefix(root()).expect("inside").to_string_lossy().into_owned();
            Source::new(name, read(path))
        })
        .collect();
    let tests: Vec<_> = sources.iter().flat_map(Source::test_modules).collect();
    let is_test = |path: &str| {
        tests.iter().any(|stem| {
            path.strip_prefix(stem.as_str())
                .is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        })
    };
    sources.into_iter().filter(|source| !is_test(&source.path)).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a crate has src/") {
        let path = entry.expect("listed").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The `aklight-…` crates in `[dependencies]` and `[build-dependencies]`, without the prefix.
fn own_dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = matches!(line, "[dependencies]" | "[build-dependencies]");
        } else if inside && let Some(rest) = line.strip_prefix("aklight-") {
            found.extend(rest.split(['.', ' ', '=']).next().map(str::to_owned));
        }
    }
    found
}
