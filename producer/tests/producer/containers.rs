//! The containers of a real engine. Skipped, with the reason, where there is none or it has no
//! image to make containers of.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use crate::support::{FakeBroker, Producer, wait_until};

const IMAGE: &str = "debian:bookworm-slim";

fn docker(args: &[&str]) -> Result<String, String> {
    let output = Command::new("docker").args(args).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Why no container can be made here.
fn skipped() -> bool {
    match docker(&["image", "inspect", "--format", "{{.Id}}", IMAGE]) {
        Ok(_) => false,
        Err(reason) => {
            eprintln!("skipped: no engine with the image {IMAGE} here ({reason})");
            true
        }
    }
}

/// A container, removed when dropped.
struct Container {
    name: String,
}

impl Container {
    fn run(what: &str, flags: &[&str], command: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::SeqCst);
        let name = format!("akt-docker-{what}-{}-{number}", std::process::id());
        let head = ["run", "--detach", "--name", &name];
        let tail = [IMAGE, "sh", "-c", command];
        docker(&[&head[..], flags, &tail[..]].concat()).expect("a container");
        Self { name }
    }

    fn topic(&self, kind: &str, metric: &str) -> String {
        format!("{kind}/docker/p1/{}{metric}", self.name)
    }

    fn remove(&self) {
        docker(&["rm", "--force", &self.name]).expect("removed");
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = docker(&["rm", "--force", &self.name]);
    }
}

/// Watches the containers of this test only, once a second.
fn watching(broker: &FakeBroker, spool: &Path) -> Producer {
    let include = format!("--include=akt-docker-*-{}-*", std::process::id());
    Producer::start_with(&broker.address(), spool, &[&include, "--interval=1s"])
}

fn samples(broker: &FakeBroker, topic: &str) -> Vec<Value> {
    broker.records_in(topic).into_iter().map(|record| record.sample).collect()
}

fn wait_for(broker: &FakeBroker, topic: &str, fits: impl Fn(&Value) -> bool) -> Value {
    wait_until(topic, || samples(broker, topic).into_iter().find(|sample| fits(sample)))
}

/// What `docker stats` shows, in percent of one CPU.
fn docker_stats(name: &str) -> f64 {
    let format = "{{.CPUPerc}}";
    let text = docker(&["stats", "--no-stream", "--format", format, name]).expect("stats");
    text.trim_end_matches('%').parse().expect("a number")
}

#[test]
fn a_busy_container_shows_by_name_with_the_engines_own_numbers() {
    if skipped() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let broker = FakeBroker::start();
    let flags = ["--cpus=0.1", "--memory=64m", "--pids-limit=50", "--label=aklight.alert.cpu=> 9"];
    let busy = Container::run("busy", &flags, "while :; do :; done");
    let _producer = watching(&broker, folder.path());
    let cpu = busy.topic("metrics", "/cpu");
    wait_until("samples", || (samples(&broker, &cpu).len() >= 3).then_some(()));
    let theirs: Vec<f64> = (0..3).map(|_| docker_stats(&busy.name)).collect();
    let ours: Vec<f64> =
        samples(&broker, &cpu).iter().filter_map(|sample| sample["value"].as_f64()).collect();
    // Both look at a second of their own; the quota keeps every second near 10 %, which even a busy
    // machine leaves it.
    let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
    let difference = (mean(&theirs) - mean(&ours[1..])).abs();
    assert!(difference < 4.0, "ours {ours:?}, theirs {theirs:?}");
    let last = |metric: &str| samples(&broker, &busy.topic("metrics", metric)).pop().expect(metric);
    assert_eq!(last("/cpu")["limit_cpus"], 0.1);
    assert_eq!(last("/memory")["limit_bytes"], 64 << 20);
    assert_eq!((&last("/pids")["value"], &last("/pids")["limit"]), (&1.into(), &50.into()));
    wait_for(&broker, &busy.topic("metrics", "/throttling"), |sample| {
        sample["value"].as_f64().is_some_and(|value| value > 0.0)
            && sample["throttled_us"].as_u64().is_some_and(|us| us > 0)
    });
    assert!(last("/network")["rx_bytes"].is_u64() && last("/disk")["read_bytes"].is_u64());
    assert_eq!((&last("/state")["value"], &last("/restarts")["value"]), (&1.into(), &0.into()));
    let info = samples(&broker, &busy.topic("info", "")).pop().expect("info");
    assert_eq!((&info["image"], &info["limit_cpus"]), (&IMAGE.into(), &0.1.into()));
    assert_eq!(info["aklight.alert.cpu"], "> 9");
    assert!(info["source"].as_str().is_some_and(|s| s.starts_with("cgroup")), "{info}");
}

#[test]
fn a_container_killed_for_memory_says_so_with_its_last_minute() {
    if skipped() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let broker = FakeBroker::start();
    let _producer = watching(&broker, folder.path());
    let flags = ["--memory=32m", "--memory-swap=32m"];
    let killed = Container::run("oom", &flags, "sleep 3.5; exec tail /dev/zero");
    let events = killed.topic("events", "");
    let die = wait_for(&broker, &events, |event| event["event"] == "die");
    assert_eq!((&die["exit_code"], &die["oom_killed"]), (&137.into(), &1.into()));
    assert_eq!(die["failed"], 1);
    for list in ["last_cpu", "last_memory", "last_memory_bytes"] {
        let list = die[list].as_array().expect(list);
        assert!(list.len() >= 2, "{die}");
    }
    assert!(die["last_ts"].as_u64() <= die["ts"].as_u64(), "{die}");
    wait_for(&broker, &events, |event| event["event"] == "oom");
    let state = killed.topic("metrics", "/state");
    let state = wait_for(&broker, &state, |state| state["state"] == "exited");
    assert_eq!((&state["value"], &state["failed"]), (&0.into(), &1.into()));
    assert_eq!((&state["exit_code"], &state["oom_killed"]), (&137.into(), &1.into()));
    // The event came before the sample that shows what it did.
    let records = broker.records();
    let place = |topic: &str, field: &str, value: &Value| {
        records.iter().position(|r| r.topic == topic && r.sample[field] == *value)
    };
    let die = place(&events, "event", &"die".into());
    assert!(die < place(&killed.topic("metrics", "/state"), "state", &"exited".into()));
}

#[test]
fn containers_come_and_go_without_a_ghost() {
    if skipped() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let broker = FakeBroker::start();
    let before = Container::run("before", &[], "sleep 600");
    let out = Container::run("out", &["--label=aklight.enable=false"], "sleep 600");
    let _producer = watching(&broker, folder.path());
    wait_for(&broker, &before.topic("metrics", "/memory"), |_| true);
    let later = Container::run("later", &[], "sleep 600");
    wait_for(&broker, &later.topic("metrics", "/memory"), |_| true);
    before.remove();
    let info = wait_for(&broker, &before.topic("info", ""), |info| info["value"] == 0);
    assert!(info["ts"].is_u64());
    let told: Vec<String> = samples(&broker, &before.topic("events", ""))
        .iter()
        .filter_map(|event| event["event"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(told, ["die", "destroy"]);
    let ghost = samples(&broker, &before.topic("metrics", "/state")).len();
    let seen = samples(&broker, &later.topic("metrics", "/state")).len();
    wait_until("more of the other", || {
        (samples(&broker, &later.topic("metrics", "/state")).len() > seen + 2).then_some(())
    });
    assert_eq!(samples(&broker, &before.topic("metrics", "/state")).len(), ghost);
    assert!(broker.records().iter().all(|record| !record.topic.contains(&out.name)));
}

#[test]
fn a_container_that_fails_again_and_again_is_restarting_and_counted() {
    if skipped() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let broker = FakeBroker::start();
    let _producer = watching(&broker, folder.path());
    let failing = Container::run("failing", &["--restart=always"], "sleep 0.3; exit 3");
    let events = failing.topic("events", "");
    let die = wait_for(&broker, &events, |event| event["event"] == "die");
    assert_eq!((&die["exit_code"], &die["oom_killed"]), (&3.into(), &0.into()));
    let restart = wait_for(&broker, &events, |event| event["event"] == "restart");
    assert!(restart["restarts"].as_u64().is_some_and(|restarts| restarts > 0), "{restart}");
    let restarts = failing.topic("metrics", "/restarts");
    wait_for(&broker, &restarts, |sample| sample["value"].as_u64().is_some_and(|n| n >= 2));
    let state = failing.topic("metrics", "/state");
    wait_for(&broker, &state, |state| state["failed"] == 1 && state["state"] == "restarting");
}
