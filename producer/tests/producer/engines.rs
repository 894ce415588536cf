//! Engines that are not here: Docker 29, Podman, one elsewhere, one that goes and comes back.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{FakeBroker, FakeEngine, Producer, event, wait_until};

const ID: &str = "1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b3c4d5e6f1a2b";

/// What Docker 29 says of itself; the oldest version that it takes is newer than Docker 20's.
fn docker_29() -> Value {
    json!({"Version": "29.0.1", "ApiVersion": "1.52", "MinAPIVersion": "1.44",
        "Components": [{"Name": "Engine", "Version": "29.0.1"}]})
}

fn podman() -> Value {
    json!({"Version": "4.9.3", "ApiVersion": "1.41", "MinAPIVersion": "1.24", "Components":
        [{"Name": "Podman Engine", "Version": "4.9.3"}, {"Name": "Conmon"}]})
}

/// An engine, a broker, and a folder for the producer that is to stand between them.
struct Scene {
    engine: FakeEngine,
    broker: FakeBroker,
    folder: TempDir,
}

impl Scene {
    /// With an engine that says this of itself, and no container.
    fn of(version: Value) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = FakeEngine::start(folder.path(), version);
        Self { engine, broker: FakeBroker::start(), folder }
    }

    /// With Docker 29, and a container `web` whose samples come already.
    fn of_web() -> (Self, Producer) {
        let scene = Self::of(docker_29());
        scene.engine.put(ID, "web", json!({}));
        let producer = scene.watch(&[]);
        scene.wait_for("metrics/docker/p1/web/state", |_| true);
        (scene, producer)
    }

    fn watch(&self, flags: &[&str]) -> Producer {
        let host = format!("--docker-host={}", self.engine.host());
        let flags: Vec<&str> = [host.as_str()].into_iter().chain(flags.iter().copied()).collect();
        Producer::start_with(&self.broker.address(), &self.folder.path().join("spool"), &flags)
    }

    fn wait_for(&self, topic: &str, fits: impl Fn(&Value) -> bool) -> Value {
        wait_until(topic, || {
            let records = self.broker.records_in(topic).into_iter();
            records.map(|record| record.sample).find(|sample| fits(sample))
        })
    }

    /// Waits until that many samples more are there of a topic.
    fn wait_for_more(&self, topic: &str, count: usize) {
        let seen = self.broker.records_in(topic).len();
        wait_until("more", || (self.broker.records_in(topic).len() > seen + count).then_some(()));
    }
}

/// The producer notices that the engine is gone.
fn wait_for_the_loss(producer: &Producer) {
    wait_until("the loss", || producer.log().contains("the engine cannot be asked").then_some(()));
}

fn exited(code: i64) -> Value {
    json!({"Status": "exited", "Running": false, "Pid": 0, "ExitCode": code,
        "StartedAt": "2026-11-26T01:20:36.466780314Z"})
}

#[test]
fn each_engine_is_asked_in_a_version_that_it_takes_and_only_with_get() {
    for (version, path, name) in
        [(docker_29(), "/v1.52/", "Docker 29.0.1"), (podman(), "/v1.41/", "Podman 4.9.3")]
            .into_iter()
            .chain([
                // One of the future takes nothing that we know; its oldest is the nearest.
                (
                    json!({"Version": "40", "ApiVersion": "2.9", "MinAPIVersion": "1.70"}),
                    "/v1.70/",
                    "Docker 40",
                ),
            ])
    {
        let scene = Scene::of(version);
        scene.engine.put(ID, "web", json!({}));
        let producer = scene.watch(&[]);
        scene.wait_for("metrics/docker/p1/web/state", |_| true);
        let requests = scene.engine.requests();
        assert!(requests.contains(&"GET /version".to_owned()), "{requests:?}");
        for request in requests.iter().filter(|request| *request != "GET /version") {
            assert!(request.starts_with(&format!("GET {path}")), "{request}");
        }
        assert!(producer.log().contains(name), "{}", producer.log());
    }
}

#[test]
fn an_end_by_podmans_words_is_told_and_its_nulls_are_understood() {
    let scene = Scene::of(podman());
    let config = json!({"Image": "docker.io/library/nginx:1", "Labels": null});
    scene.engine.put(ID, "web", json!({"Config": config, "HostConfig": null}));
    let _producer = scene.watch(&[]);
    scene.wait_for("metrics/docker/p1/web/state", |state| state["health"] == "none");
    scene.engine.put(ID, "web", json!({"Config": config, "State": exited(3)}));
    let nanos = 4_000_000_000_000_000_000;
    scene.engine.tell(&event("died", ID, nanos, &json!({"containerExitCode": "3"})));
    let die = scene.wait_for("events/docker/p1/web", |event| event["event"] == "die");
    assert_eq!((&die["exit_code"], &die["failed"]), (&3.into(), &1.into()));
    scene.wait_for("metrics/docker/p1/web/state", |state| state["state"] == "exited");
    scene.engine.remove(ID);
    scene.engine.tell(&event("remove", ID, nanos + 1, &json!({})));
    scene.wait_for("info/docker/p1/web", |info| info["value"] == 0);
}

#[test]
fn health_is_told_when_it_changes() {
    let scene = Scene::of(docker_29());
    scene.engine.put(ID, "web", json!({}));
    let _producer = scene.watch(&[]);
    scene.wait_for("metrics/docker/p1/web/state", |state| state["health"] == "none");
    let state = json!({"Status": "running", "Pid": 0, "StartedAt": "2026-11-26T01:20:36.466780314Z",
        "Health": {"Status": "unhealthy"}});
    scene.engine.put(ID, "web", json!({"State": state}));
    scene.engine.tell(&event(
        "health_status: unhealthy",
        ID,
        4_000_000_000_000_000_000,
        &json!({}),
    ));
    let health = scene.wait_for("events/docker/p1/web", |event| event["event"] == "health");
    assert_eq!(health["health"], "unhealthy");
    assert!(health["last_cpu"].is_array(), "{health}");
    scene.wait_for("metrics/docker/p1/web/state", |state| state["health"] == "unhealthy");
}

#[test]
fn an_engine_elsewhere_is_asked_for_numbers() {
    let scene = Scene::of(docker_29());
    scene.engine.put(ID, "far", json!({}));
    scene.engine.answer(
        &format!("/containers/{ID}/stats"),
        json!({"cpu_stats": {"cpu_usage": {"total_usage": 5}, "system_cpu_usage": 9},
            "memory_stats": {"usage": 300, "limit": 1000, "stats": {"inactive_file": 100}}}),
    );
    let _producer = scene.watch(&[]);
    let memory = scene.wait_for("metrics/docker/p1/far/memory", |_| true);
    assert_eq!((&memory["value"], &memory["bytes"]), (&20.into(), &200.into()));
    let info = scene.wait_for("info/docker/p1/far", |_| true);
    assert_eq!(info["source"], "engine");
}

#[test]
fn an_engine_that_was_restarted_is_found_again_and_its_list_is_new() {
    let (mut scene, producer) = Scene::of_web();
    scene.engine.stop();
    wait_for_the_loss(&producer);
    let own = scene.broker.records_of("cpu").len();
    wait_until("own samples", || (scene.broker.records_of("cpu").len() > own + 5).then_some(()));
    scene.engine.remove(ID);
    scene.engine.put("ffff", "new", json!({}));
    scene.engine.restart();
    scene.wait_for("metrics/docker/p1/new/state", |_| true);
    scene.wait_for("info/docker/p1/web", |info| info["value"] == 0);
    let last = scene.broker.records_in("metrics/docker/p1/web/state").len();
    scene.wait_for_more("metrics/docker/p1/new/state", 3);
    assert_eq!(scene.broker.records_in("metrics/docker/p1/web/state").len(), last, "a ghost");
    assert_eq!(producer.log().matches("the engine cannot be asked").count(), 1);
    assert!(producer.log().matches("watching 1 containers").count() == 2, "{}", producer.log());
}

#[test]
fn what_happened_while_the_connection_was_broken_is_told_and_nothing_twice() {
    let (mut scene, producer) = Scene::of_web();
    let nanos = 4_000_000_000_000_000_000;
    let oom = event("oom", ID, nanos, &json!({}));
    scene.engine.tell(&oom);
    scene.wait_for("events/docker/p1/web", |event| event["event"] == "oom");
    scene.engine.stop();
    wait_for_the_loss(&producer);
    scene.engine.put(ID, "web", json!({"State": exited(137)}));
    let die = event("die", ID, nanos + 5, &json!({"exitCode": "137"}));
    scene.engine.replay(&[&oom, &die]);
    scene.engine.restart();
    let die = scene.wait_for("events/docker/p1/web", |event| event["event"] == "die");
    assert_eq!((&die["exit_code"], &die["oom_killed"]), (&137.into(), &1.into()));
    scene.wait_for("metrics/docker/p1/web/state", |state| state["state"] == "exited");
    let since =
        scene.engine.requests().into_iter().filter(|r| r.contains("since=4000000000.000000000"));
    assert_eq!(since.count(), 1);
    let told: Vec<Value> = scene
        .broker
        .records_in("events/docker/p1/web")
        .into_iter()
        .map(|record| record.sample["event"].clone())
        .collect();
    assert_eq!(told, ["oom", "die"]);
}

#[test]
fn a_socket_that_appears_later_is_found_and_its_absence_is_said_once() {
    let mut scene = Scene::of(docker_29());
    scene.engine.put(ID, "web", json!({}));
    scene.engine.stop();
    let producer = scene.watch(&[]);
    wait_for_the_loss(&producer);
    scene.engine.restart();
    scene.wait_for("metrics/docker/p1/web/state", |_| true);
    assert_eq!(producer.log().matches("the engine cannot be asked").count(), 1);
}

#[test]
fn include_and_exclude_choose() {
    let scene = Scene::of(docker_29());
    scene.engine.put("aaaa", "web-1", json!({}));
    scene.engine.put("bbbb", "db", json!({}));
    let labels = |labels: Value| json!({"Config": {"Image": "nginx:1", "Labels": labels}});
    scene.engine.put("cccc", "web-2", labels(json!({"tier": "test"})));
    scene.engine.put("dddd", "web-3", labels(json!({"aklight.enable": "false"})));
    let flags = ["--include=web-*", "--exclude=label=tier=test"];
    let producer = scene.watch(&flags);
    wait_until("some", || {
        (scene.broker.records_in("metrics/docker/p1/web-1/state").len() > 3).then_some(())
    });
    let records = scene.broker.records();
    for name in ["db", "web-2", "web-3"] {
        let level = format!("/{name}");
        assert!(!records.iter().any(|record| record.topic.contains(&level)), "{name}");
    }
    assert!(producer.log().contains("watching 1 containers"), "{}", producer.log());
}

#[test]
fn a_collector_that_is_killed_is_back_and_watches_again() {
    let (scene, producer) = Scene::of_web();
    let before = wait_until("the collector", || producer.docker_collector());
    crate::support::send(before, nix::sys::signal::Signal::SIGKILL);
    let after = wait_until("another", || producer.docker_collector().filter(|pid| *pid != before));
    assert!(crate::support::alive(after));
    let threads = std::fs::read_to_string(format!("/proc/{after}/status")).expect("status");
    assert!(threads.contains("Threads:\t1\n"), "{threads}");
    scene.wait_for_more("metrics/docker/p1/web/state", 2);
}

#[test]
fn an_engine_that_cannot_be_reached_so_is_refused_with_what_can() {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = ["--docker-host=ssh://somewhere"];
    let mut producer = Producer::start_with("127.0.0.1:1", folder.path(), &flags);
    assert_eq!(producer.wait().code(), Some(2));
    assert!(producer.log().contains("unix:///PATH or tcp://HOST:PORT"), "{}", producer.log());
}

#[test]
fn one_that_the_engine_cannot_tell_of_is_passed_over_and_others_are_watched() {
    let scene = Scene::of(docker_29());
    scene.engine.put("aaaa", "broken", json!({}));
    scene.engine.refuse("/containers/aaaa/json");
    scene.engine.put("bbbb", "odd", json!({}));
    scene.engine.answer("/containers/bbbb/stats", json!({"cpu_stats": "what"}));
    scene.engine.put(ID, "web", json!({}));
    scene.engine.answer(&format!("/containers/{ID}/stats"), json!({"memory_stats": {"usage": 3}}));
    let producer = scene.watch(&[]);
    wait_until("some", || {
        (scene.broker.records_in("metrics/docker/p1/web/memory").len() > 3).then_some(())
    });
    scene.wait_for("metrics/docker/p1/odd/state", |_| true);
    // What happens to others is told too.
    let nanos = 4_000_000_000_000_000_000;
    scene.engine.tell(&event("die", "aaaa", nanos, &json!({"exitCode": "1"})));
    scene.engine.put(ID, "web", json!({"State": exited(3)}));
    scene.engine.tell(&event("die", ID, nanos + 1, &json!({"exitCode": "3"})));
    scene.wait_for("events/docker/p1/web", |event| event["event"] == "die");
    let log = producer.log();
    assert!(!log.contains("the engine cannot be asked"), "{log}");
    assert_eq!(log.matches("layer does not exist").count(), 1, "{log}");
    assert_eq!(log.matches("/containers/bbbb/stats").count(), 1, "{log}");
}

#[test]
fn one_that_the_engine_never_tells_of_holds_up_no_other() {
    let scene = Scene::of(docker_29());
    let Scene { engine, broker, .. } = &scene;
    // Of one it never says what it is, of one what it uses.
    engine.put("aaaa", "hangs", json!({}));
    engine.hang("/containers/aaaa/json");
    engine.put("bbbb", "half", json!({}));
    engine.hang("/containers/bbbb/stats");
    engine.put(ID, "web", json!({}));
    engine.answer(&format!("/containers/{ID}/stats"), json!({"memory_stats": {"usage": 3}}));
    let producer = scene.watch(&[]);
    let topic = "metrics/docker/p1/web/memory";
    let first = scene.wait_for(topic, |_| true);
    let both_given_up = |log: &str| log.matches("a container is passed over").count() == 2;
    assert!(!both_given_up(&producer.log()), "it was waited for: {}", producer.log());
    // What happens to the one is told when it was given up, what happens to others at once.
    let nanos = 4_000_000_000_000_000_000;
    engine.tell(&event("die", "bbbb", nanos, &json!({"exitCode": "9"})));
    engine.tell(&event("oom", ID, nanos + 1, &json!({})));
    scene.wait_for("events/docker/p1/web", |event| event["event"] == "oom");
    wait_until("it is given up", || both_given_up(&producer.log()).then_some(()));
    scene.wait_for("events/docker/p1/half", |event| event["exit_code"] == 9);
    let times: Vec<u64> = broker.records_in(topic).iter().map(|record| record.ts()).collect();
    assert!(times.last() > first["ts"].as_u64().map(|ts| ts + 5000).as_ref(), "{times:?}");
    let longest = times.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max();
    assert!(longest < Some(4000), "{times:?}");
    assert!(!producer.log().contains("the engine cannot be asked"), "{}", producer.log());
}

#[test]
fn one_whose_image_has_lost_its_name_is_watched_on() {
    let mut scene = Scene::of(docker_29());
    scene.engine.put(ID, "web", json!({}));
    scene.engine.put("dddd", "db", json!({"Config": {"Image": "postgres:1"}}));
    let flags = ["--include=image=nginx*", "--exclude=name=tmp*"];
    let producer = scene.watch(&flags);
    scene.wait_for("metrics/docker/p1/web/state", |_| true);
    scene.engine.stop();
    wait_for_the_loss(&producer);
    // Another image was given the name meanwhile; the first of the names is a link's.
    scene.engine.answer(
        "/containers/json",
        json!([
            {"Id": ID, "Names": ["/tmp/alias", "/web"], "Image": "sha256:5e1f", "State": "running"},
            {"Id": "dddd", "Names": ["/db"], "Image": "sha256:77aa", "State": "running"},
        ]),
    );
    scene.engine.restart();
    wait_until("the engine", || {
        (producer.log().matches(" containers of Docker").count() == 2).then_some(())
    });
    scene.wait_for_more("metrics/docker/p1/web/state", 3);
    assert_eq!(scene.broker.records_in("events/docker/p1/web").len(), 0);
    assert_eq!(scene.broker.records_in("metrics/docker/p1/db/state").len(), 0);
}

#[test]
fn one_made_anew_under_its_name_while_nobody_looked_has_the_last_word() {
    let (mut scene, producer) = Scene::of_web();
    scene.engine.stop();
    wait_for_the_loss(&producer);
    scene.engine.remove(ID);
    scene.engine.put("ffff", "web", json!({}));
    scene.engine.restart();
    scene.wait_for("info/docker/p1/web", |info| info["id"] == "ffff");
    scene.wait_for("info/docker/p1/web", |info| info["value"] == 0);
    let last = scene.broker.records_in("info/docker/p1/web").pop().expect("an info").sample;
    assert_eq!((&last["id"], &last["value"]), (&"ffff".into(), &1.into()));
}

#[test]
fn an_event_that_is_older_than_the_one_before_it_is_told() {
    let scene = Scene::of(docker_29());
    scene.engine.put(ID, "web", json!({}));
    scene.engine.put("dddd", "db", json!({}));
    let _producer = scene.watch(&[]);
    scene.wait_for("metrics/docker/p1/web/state", |_| true);
    scene.wait_for("metrics/docker/p1/db/state", |_| true);
    let nanos = 4_000_000_000_000_000_000;
    // Of the same moment, of a moment before, and of a clock that was set back by an hour.
    for (id, name, nanos) in [
        (ID, "web", nanos),
        ("dddd", "db", nanos),
        (ID, "web", nanos - 500_000_000),
        ("dddd", "db", nanos - 3_600_000_000_000),
    ] {
        let topic = format!("events/docker/p1/{name}");
        scene.engine.tell(&event("oom", id, nanos, &json!({})));
        scene.wait_for(&topic, |event| event["ts"] == nanos / 1_000_000);
    }
}
