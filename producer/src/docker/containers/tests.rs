use serde_json::Value as Json;

use super::super::details::tests::running;
use super::*;
use crate::readings::fixture::Tree;
use crate::record::{Said, parse_line};

const ID: &str = "1a2b3c4d5e6f1a2b3c4d5e6f";

fn at(seconds: u64) -> Moment {
    Moment { wall_ms: seconds * 1000, monotonic_us: seconds * 1_000_000 }
}

/// A machine with one container's files.
fn machine() -> Tree {
    let group = format!("/sys/fs/cgroup/docker/{ID}");
    let tree = Tree::new(&[
        ("/proc/meminfo", "MemTotal:  1048576 kB\nMemAvailable:  786432 kB\n"),
        ("/sys/fs/cgroup/cgroup.controllers", "cpu memory\n"),
    ]);
    spend(&tree, 0);
    for (file, text) in [
        ("memory.current", "512\n"),
        ("memory.max", "1024\n"),
        ("memory.stat", "anon 1\ninactive_file 0\n"),
        ("memory.events", "oom_kill 0\n"),
    ] {
        tree.put(&format!("{group}/{file}"), text);
    }
    tree
}

/// After so many seconds, of which the container used half of one processor.
fn spend(tree: &Tree, seconds: u64) {
    let ticks = 1000 + seconds * 100;
    tree.put("/proc/stat", &format!("cpu  {ticks} 0 0 {ticks} 0 0 0\ncpu0 1\ncpu1 1\n"));
    let stat = format!("usage_usec {}\n", seconds * 500_000);
    tree.put(&format!("/sys/fs/cgroup/docker/{ID}/cpu.stat"), &stat);
}

struct Scene {
    tree: Tree,
    containers: Containers,
    lines: Lines,
    seconds: u64,
}

impl Scene {
    fn new(filter: Filter) -> Self {
        let tree = machine();
        let containers = Containers::new("p", filter, Hierarchies::find(tree.root()));
        Self { tree, containers, lines: Lines::default(), seconds: 0 }
    }

    /// A second later.
    fn tick(&mut self) -> Told {
        self.seconds += 1;
        spend(&self.tree, self.seconds);
        self.containers.tick(at(self.seconds), &mut self.lines);
        self.told()
    }

    fn take(&mut self, news: News) -> Told {
        self.containers.take(news, at(self.seconds), &mut self.lines);
        self.told()
    }

    fn seen(&mut self, details: Details, action: Option<Action>) -> Told {
        let ts_ms = self.seconds * 1000 + 500;
        let happening = action.map(|action| Happening { action, ts_ms });
        self.take(News::Seen(Box::new(details), happening))
    }

    fn told(&mut self) -> Told {
        let bytes = self.lines.take_all();
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| match parse_line(line) {
                Some(Said::Record(record)) => {
                    (record.topic, serde_json::from_slice(&record.payload).expect("JSON"))
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }
}

fn topics(told: &[(String, Json)]) -> Vec<&str> {
    told.iter().map(|(topic, _)| topic.as_str()).collect()
}

fn ended(code: i64) -> Details {
    let mut details = running(ID, "web");
    "exited".clone_into(&mut details.state);
    details.exit_code = code;
    details.pid = None;
    details
}

fn restarted(restarts: u64) -> Details {
    let mut details = running(ID, "web");
    details.restarts = restarts;
    details.started_ms = details.started_ms.map(|ms| ms + 60_000 * (restarts + 1));
    details
}

/// What was told: topics and payloads.
type Told = Vec<(String, Json)>;

/// The events told, each as its name.
fn events(told: &[(String, Json)]) -> Vec<&str> {
    let of_web = told.iter().filter(|(topic, _)| topic == "events/docker/p/web");
    of_web.filter_map(|(_, event)| event["event"].as_str()).collect()
}

/// Podman says nothing of it, and the container's files are gone.
#[test]
fn one_that_was_nearly_full_when_the_kernel_killed_somebody_was_killed_for_memory() {
    for (bytes, kills, told_of) in [(900, 8, 1), (900, 7, 0), (500, 8, 0)] {
        let mut scene = Scene::new(Filter::default());
        scene.tree.put("/proc/vmstat", "pgfault 1\noom_kill 7\n");
        let group = format!("/sys/fs/cgroup/docker/{ID}");
        scene.tree.put(&format!("{group}/memory.current"), &format!("{bytes}\n"));
        scene.seen(running(ID, "web"), None);
        scene.tick();
        scene.tree.put("/proc/vmstat", &format!("pgfault 1\noom_kill {kills}\n"));
        let told = scene.seen(restarted(1), Some(Action::Die(Some(137))));
        assert_eq!(told[0].1["oom_killed"], told_of, "{bytes} of 1024 bytes, {kills} kills");
    }
}

#[test]
fn a_restart_that_podman_tells_itself_is_told_once() {
    let mut scene = Scene::new(Filter::default());
    scene.seen(running(ID, "web"), None);
    let mut told = scene.seen(restarted(1), Some(Action::Die(Some(1))));
    told.extend(scene.seen(restarted(1), Some(Action::Restart)));
    told.extend(scene.seen(restarted(1), Some(Action::Start)));
    assert_eq!(events(&told), ["die", "restart", "start"]);
}

#[test]
fn one_that_runs_is_described_and_measured_each_second() {
    let mut scene = Scene::new(Filter::default());
    let told = scene.seen(running(ID, "web"), None);
    assert_eq!(topics(&told), ["info/docker/p/web"]);
    assert_eq!(told[0].1["source"], "cgroup v2");
    let told = scene.tick();
    let of = |metric| &told.iter().find(|(topic, _)| topic.ends_with(metric)).expect(metric).1;
    assert_eq!(of("web/cpu")["value"], 50);
    assert_eq!(of("web/cpu")["usage_us"], 500_000);
    assert_eq!(of("web/memory")["value"], 50);
    assert_eq!(of("web/state")["value"], 1);
    assert_eq!(of("web/restarts")["value"], 0);
    assert_eq!(scene.containers.count(), 1);
}

#[test]
fn what_it_is_is_told_again_each_minute() {
    let mut scene = Scene::new(Filter::default());
    scene.seen(running(ID, "web"), None);
    let infos = (0..120).flat_map(|_| scene.tick()).filter(|(topic, _)| topic.starts_with("info"));
    assert_eq!(infos.count(), 2);
}

#[test]
fn an_end_is_told_before_the_state_shows_it() {
    let mut scene = Scene::new(Filter::default());
    scene.seen(running(ID, "web"), None);
    (0..3).for_each(|_| drop(scene.tick()));
    scene.containers.take(
        News::Seen(
            Box::new(ended(137)),
            Some(Happening { action: Action::Die(Some(137)), ts_ms: 3500 }),
        ),
        at(3),
        &mut scene.lines,
    );
    let told = scene.tick();
    let (state, restarts) = ("metrics/docker/p/web/state", "metrics/docker/p/web/restarts");
    assert_eq!(topics(&told), ["events/docker/p/web", state, state, restarts]);
    let die = &told[0].1;
    assert_eq!((&die["exit_code"], &die["oom_killed"]), (&137.into(), &0.into()));
    assert_eq!(die["last_cpu"], serde_json::json!([50, 50, 50]));
    assert_eq!(die["ts"], 3500);
    for (_, state) in &told[1..3] {
        assert_eq!((&state["value"], &state["failed"]), (&0.into(), &1.into()));
    }
}

#[test]
fn an_end_of_which_the_engine_tells_late_is_no_older_than_the_state_before_it() {
    let mut scene = Scene::new(Filter::default());
    scene.seen(running(ID, "web"), None);
    let before = scene.tick();
    let state = before.iter().find(|(topic, _)| topic.ends_with("/state")).expect("a state");
    let end = Happening { action: Action::Die(Some(1)), ts_ms: 900 };
    let told = scene.take(News::Seen(Box::new(restarted(1)), Some(end)));
    assert_eq!((&told[0].1["event"], &told[0].1["ts"]), (&"die".into(), &900.into()));
    assert_eq!((&state.1["ts"], &told[1].1["ts"]), (&1000.into(), &1001.into()));
    assert_eq!(told[1].1["failed"], 1);
}

#[test]
fn killed_for_memory_is_what_the_engine_its_event_or_the_kernel_says() {
    let by_engine = |scene: &mut Scene| {
        let mut details = ended(137);
        details.oom_killed = true;
        scene.seen(details, Some(Action::Die(Some(137))))
    };
    let by_event = |scene: &mut Scene| {
        let told = scene.seen(running(ID, "web"), Some(Action::Oom));
        assert_eq!(events(&told), ["oom"]);
        assert!(told[0].1["last_cpu"].is_array());
        scene.seen(ended(137), Some(Action::Die(Some(137))))
    };
    let by_kernel = |scene: &mut Scene| {
        scene.tree.put(&format!("/sys/fs/cgroup/docker/{ID}/memory.events"), "oom_kill 1\n");
        scene.tick();
        scene.seen(ended(137), Some(Action::Die(Some(137))))
    };
    let ways: [&dyn Fn(&mut Scene) -> Told; 3] = [&by_engine, &by_event, &by_kernel];
    for way in ways {
        let mut scene = Scene::new(Filter::default());
        scene.seen(running(ID, "web"), None);
        scene.tick();
        let told = way(&mut scene);
        assert_eq!((&told[0].1["oom_killed"], &told[0].1["failed"]), (&1.into(), &1.into()));
        // The engine may forget; the state goes on saying it, until it runs again.
        scene.seen(ended(137), None);
        let killed = |told: Told| {
            let state = told.into_iter().find(|(topic, _)| topic.ends_with("/state"));
            state.expect("a state").1["oom_killed"].clone()
        };
        assert_eq!(killed(scene.tick()), 1);
        scene.seen(restarted(0), Some(Action::Start));
        assert_eq!(killed(scene.tick()), 0);
        let told = scene.seen(ended(137), Some(Action::Die(Some(137))));
        assert_eq!(told[0].1["oom_killed"], 0, "that was another life");
    }
}

#[test]
fn a_count_that_could_not_be_read_for_a_while_is_no_kill() {
    let kills = |scene: &Scene, text: &str| {
        scene.tree.put(&format!("/sys/fs/cgroup/docker/{ID}/memory.events"), text);
    };
    let without_baseline = |scene: &mut Scene| {
        scene.tree.remove("/proc/stat");
        scene.seen(running(ID, "web"), None);
        scene.tick();
    };
    let unread_once = |scene: &mut Scene| {
        scene.seen(running(ID, "web"), None);
        for text in ["", "oom_kill 0\n"] {
            kills(scene, text);
            scene.tick();
        }
    };
    let ways: [&dyn Fn(&mut Scene); 2] = [&without_baseline, &unread_once];
    for way in ways {
        let mut scene = Scene::new(Filter::default());
        way(&mut scene);
        let told = scene.seen(ended(137), Some(Action::Die(Some(137))));
        assert_eq!(told[0].1["oom_killed"], 0);
    }
    let mut scene = Scene::new(Filter::default());
    scene.seen(running(ID, "web"), None);
    for text in ["", "oom_kill 1\n"] {
        kills(&scene, text);
        scene.tick();
    }
    let told = scene.seen(ended(137), Some(Action::Die(Some(137))));
    assert_eq!(told[0].1["oom_killed"], 1, "one between two readings is");
}

#[test]
fn a_restart_by_the_engine_is_told_in_place_of_a_start() {
    let mut scene = Scene::new(Filter::default());
    scene.seen(running(ID, "web"), None);
    // So fast that it runs again when it is asked about its end.
    let told = scene.seen(restarted(1), Some(Action::Die(Some(1))));
    assert_eq!(events(&told), ["die"]);
    assert_eq!(told[0].1["exit_code"], 1);
    let (topic, state) = &told[1];
    assert!(topic.ends_with("/state"), "its end has a state of its own: {topic}");
    assert_eq!((&state["state"], &state["failed"]), (&"exited".into(), &1.into()));
    let told = scene.seen(restarted(1), Some(Action::Start));
    assert_eq!(events(&told), ["restart"]);
    assert_eq!(told[0].1["restarts"], 1);
    let told = scene.tick();
    let restarts = told.iter().find(|(topic, _)| topic.ends_with("/restarts")).expect("restarts");
    assert_eq!(restarts.1["value"], 1);
    assert_eq!(events(&scene.seen(restarted(0), Some(Action::Start))), ["start"]);
}

#[test]
fn what_was_missed_is_told_once_from_the_difference() {
    let mut scene = Scene::new(Filter::default());
    scene.seen(running(ID, "web"), None);
    scene.tick();
    assert_eq!(events(&scene.seen(ended(3), None)), ["die"]);
    // The engine's own word of it comes late.
    let late = Happening { action: Action::Die(Some(3)), ts_ms: 900 };
    assert_eq!(events(&scene.take(News::Seen(Box::new(ended(3)), Some(late)))), [""; 0]);
    scene.tick();
    assert_eq!(events(&scene.seen(restarted(0), None)), ["start"]);
    assert_eq!(events(&scene.seen(restarted(0), None)), [""; 0]);
}

#[test]
fn a_clock_that_is_set_back_silences_nobody() {
    let mut scene = Scene::new(Filter::default());
    let hour = |seconds: u64| Moment { wall_ms: 3_600_000 + seconds * 1000, ..at(seconds) };
    let take = |scene: &mut Scene, news, now| {
        scene.containers.take(news, now, &mut scene.lines);
        scene.told()
    };
    take(&mut scene, News::Seen(Box::new(running(ID, "web")), None), hour(1));
    let told = take(&mut scene, News::Seen(Box::new(ended(3)), None), hour(2));
    assert_eq!(events(&told), ["die"]);
    // An hour back, and half a minute on.
    let happening = Happening { action: Action::Start, ts_ms: 33_000 };
    let started = News::Seen(Box::new(restarted(0)), Some(happening));
    assert_eq!(events(&take(&mut scene, started, at(33))), ["start"]);
    let infos = (34..100).flat_map(|seconds| {
        scene.containers.tick(at(seconds), &mut scene.lines);
        scene.told()
    });
    assert_eq!(infos.filter(|(topic, _)| topic.starts_with("info")).count(), 1);
}

#[test]
fn one_that_is_removed_has_a_last_word_and_no_more_samples() {
    let destroyed = Happening { action: Action::Destroy, ts_ms: 1500 };
    for news in [News::Happened(ID.to_owned(), destroyed), News::Listed(HashSet::new())] {
        let mut scene = Scene::new(Filter::default());
        scene.seen(running(ID, "web"), None);
        scene.tick();
        let told = scene.take(news);
        assert_eq!(topics(&told), ["events/docker/p/web", "info/docker/p/web"]);
        assert_eq!((&told[0].1["event"], &told[1].1["value"]), (&"destroy".into(), &0.into()));
        assert_eq!(scene.tick(), []);
        assert_eq!(scene.containers.count(), 0);
    }
}

#[test]
fn one_that_is_removed_as_it_ends_is_told_with_what_is_known() {
    let mut scene = Scene::new(Filter::default());
    scene.seen(running(ID, "web"), None);
    let died = Happening { action: Action::Die(Some(9)), ts_ms: 700 };
    let told = scene.take(News::Happened(ID.to_owned(), died));
    assert_eq!((&told[0].1["event"], &told[0].1["exit_code"]), (&"die".into(), &9.into()));
    assert_eq!(scene.tick().len(), 2, "state and restarts only");
}

#[test]
fn a_new_name_is_a_new_topic_and_the_old_one_ends() {
    let mut scene = Scene::new(Filter::default());
    scene.seen(running(ID, "web"), None);
    let told = scene.seen(running(ID, "shop"), Some(Action::Change));
    assert_eq!(topics(&told), ["info/docker/p/web", "info/docker/p/shop"]);
    assert_eq!((&told[0].1["value"], &told[1].1["value"]), (&0.into(), &1.into()));
    assert!(scene.tick().iter().all(|(topic, _)| topic.contains("/shop/")));
}

#[test]
fn one_that_fits_no_more_ends_and_one_that_never_did_is_not_there() {
    let filter = Filter { include: Vec::new(), exclude: vec!["tmp-*".parse().expect("a pattern")] };
    let mut scene = Scene::new(filter);
    assert_eq!(scene.seen(running(ID, "tmp-1"), Some(Action::Start)), []);
    scene.seen(running(ID, "web"), None);
    let told = scene.seen(running(ID, "tmp-2"), Some(Action::Change));
    assert_eq!(topics(&told), ["info/docker/p/web"]);
    assert_eq!(told[0].1["value"], 0);
    assert_eq!(scene.tick(), []);
}

#[test]
fn without_an_engine_those_that_can_be_read_go_on_and_others_are_silent() {
    let mut scene = Scene::new(Filter::default());
    scene.seen(running(ID, "web"), None);
    let mut other = running("ffff", "gone");
    other.pid = None;
    "exited".clone_into(&mut other.state);
    scene.seen(other, None);
    assert!(scene.tick().iter().any(|(topic, _)| topic.contains("/gone/")));
    scene.take(News::Lost);
    let told = scene.tick();
    assert!(topics(&told).contains(&"metrics/docker/p/web/cpu"));
    assert!(topics(&told).contains(&"metrics/docker/p/web/state"));
    assert!(!told.iter().any(|(topic, _)| topic.contains("/gone/")));
}

#[test]
fn one_without_files_is_measured_by_the_engine() {
    let mut scene = Scene::new(Filter::default());
    let told = scene.seen(running("ffff", "far"), None);
    assert_eq!(told[0].1["source"], "engine");
    let asked: Vec<&String> = scene.containers.without_files().collect();
    assert_eq!(asked, ["ffff"]);
    let stats = |n: u64| {
        let stats = serde_json::json!({"cpu_stats": {"cpu_usage": {"total_usage": n * 500},
            "system_cpu_usage": n * 2000, "online_cpus": 4}});
        Box::new(serde_json::from_value(stats).expect("stats"))
    };
    // An engine elsewhere, and not even the machine's own files.
    scene.tree.remove("/proc/stat");
    scene.containers.tick(at(1), &mut scene.lines);
    let told = scene.told();
    assert!(topics(&told).contains(&"metrics/docker/p/far/state"), "{told:?}");
    scene.take(News::Measured("ffff".to_owned(), stats(1), at(1)));
    let told = scene.take(News::Measured("ffff".to_owned(), stats(2), at(2)));
    let cpu = told.iter().find(|(topic, _)| topic == "metrics/docker/p/far/cpu").expect("cpu");
    assert_eq!(cpu.1["value"], 100);
}

#[test]
fn no_more_than_so_many_are_watched() {
    let mut scene = Scene::new(Filter::default());
    for n in 0..CONTAINERS_MAX + 5 {
        let mut details = running(&format!("id{n}"), &format!("c{n}"));
        "created".clone_into(&mut details.state);
        scene.seen(details, None);
    }
    assert_eq!(scene.containers.count(), CONTAINERS_MAX);
}
