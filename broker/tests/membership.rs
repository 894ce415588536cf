//! Brokers come and go while the cluster works: added, removed, replaced; numbers are used once.

mod support;

use std::path::Path;

use serde_json::{Value, json};
use support::cluster::{Cluster, assert_same};
use support::load::Load;
use support::{BrokerProcess, wait_for};

const SMALL: &[&str] = &["--partitions", "2"];

/// Waits until each group has exactly these voters, in the eyes of a broker.
fn wait_for_voters(cluster: &Cluster, at: u64, voters: &[u64]) {
    wait_for(&format!("the voters are {voters:?}"), || {
        cluster.view(at).is_some_and(|view| {
            let groups = view["groups"].as_array().expect("a list");
            groups.iter().all(|group| group["voters"] == json!(voters))
        })
    });
}

#[test]
fn a_fourth_is_added_and_one_is_removed_under_load() {
    let mut cluster = Cluster::start(3, SMALL);
    let load = Load::start(&cluster.clients());
    load.wait_for_more(20);
    let peer = cluster.plan([4]).to_string();
    let told = cluster.done(2, "/cluster/add", &json!({ "id": 4, "peer": peer }));
    assert!(told.contains("--node-id 4") && told.contains(&format!("4@{peer}")), "{told}");
    let state = |view: &Value| {
        let brokers = view["brokers"].as_array().expect("a list").clone();
        brokers.iter().find(|b| b["id"] == 4).map(|b| b["state"].clone())
    };
    assert_eq!(state(&cluster.view(2).expect("shown")), Some(json!("expected")));
    cluster.start_one(4);
    wait_for_voters(&cluster, 1, &[1, 2, 3, 4]);
    load.wait_for_more(20);

    let (status, text) = cluster.post(2, "/cluster/remove", &json!({ "id": 2 }));
    assert_eq!(status, 409, "its own removal: {text}");
    cluster.done(3, "/cluster/remove", &json!({ "id": 2 }));
    wait_for_voters(&cluster, 3, &[1, 3, 4]);
    // Nobody counts on it any more, and it goes.
    let (status, said) = cluster.process(2).wait_for_end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("broker 2 was removed from its cluster and has ended"), "{said}");
    load.wait_for_more(20);
    for (id, peer) in [(2, "127.0.0.1:9"), (3, "127.0.0.1:9")] {
        let (status, text) = cluster.post(1, "/cluster/add", &json!({ "id": id, "peer": peer }));
        assert_eq!(status, 409, "number {id} is used: {text}");
    }
    let told = load.end();
    let stored = cluster.records(4);
    told.iter().for_each(|told| told.check(&stored));
    assert_same(&cluster.records(1), &stored);
    // It does not come back by itself: the others say so, which it might have missed while it was away;
    forget_removal(&cluster.data_dir(2));
    cluster.spawn(2);
    let (status, said) = cluster.process(2).wait_for_end();
    assert!(!status.success() && said.contains("was removed"), "{said}");
    // and it knows it when nobody is left to say so.
    [1, 3, 4].into_iter().for_each(|id| cluster.kill(id));
    cluster.spawn(2);
    let (status, said) = cluster.process(2).wait_for_end();
    assert!(!status.success() && said.contains("was removed"), "{said}");
    assert!(said.contains("broker.json notes"), "it asked nobody: {said}");
}

/// Takes from a broker's folder the note that it was removed, which it must hold.
fn forget_removal(data_dir: &Path) {
    let identity = data_dir.join("broker.json");
    let kept = std::fs::read_to_string(&identity).expect("its identity");
    let mut kept: Value = serde_json::from_str(&kept).expect("JSON");
    assert_eq!(kept["is_removed"], true, "noted before it ended: {kept}");
    kept["is_removed"] = false.into();
    std::fs::write(&identity, kept.to_string()).expect("written");
}

#[test]
fn a_lost_broker_is_replaced_by_an_empty_one() {
    let mut cluster = Cluster::start(3, SMALL);
    let mut nc = cluster.nc(1);
    for n in 0..50 {
        assert!(nc.ask(&format!("PRODUCE|t|key{n}|{n}")).starts_with("ACK|"));
    }
    let peer = cluster.plan([4]).to_string();
    let replace = json!({ "dead": 2, "id": 4, "peer": peer });
    let (status, text) = cluster.post(1, "/cluster/replace", &replace);
    assert_eq!(status, 409, "{text}");
    assert!(text.contains("broker 2 is alive"), "{text}");
    cluster.kill(2);
    let (status, text) = cluster.post(3, "/cluster/remove", &json!({ "id": 1 }));
    assert_eq!(status, 409, "one of two would be no majority: {text}");
    assert!(text.contains("dead: 2"), "{text}");
    cluster.done(1, "/cluster/replace", &replace);
    // Asked again, as after an answer that was lost, it does no harm.
    cluster.done(3, "/cluster/replace", &replace);
    cluster.start_one(4);
    wait_for_voters(&cluster, 1, &[1, 3, 4]);
    wait_for_voters(&cluster, 4, &[1, 3, 4]);
    assert_same(&cluster.records(4), &cluster.records(1));
    // The new one counts: with it, another may die.
    cluster.kill(3);
    let mut nc = cluster.nc(4);
    wait_for("one and four go on", || nc.ask("PRODUCE|t|k|after").starts_with("ACK|"));
}

#[test]
fn one_is_removed_as_soon_as_the_other_can_take_its_place() {
    let mut cluster = Cluster::start(1, SMALL);
    let mut nc = cluster.nc(1);
    for n in 0..200 {
        assert!(nc.ask(&format!("PRODUCE|t|key{n}|{n}")).starts_with("ACK|"));
    }
    let peer = cluster.plan([2]).to_string();
    cluster.done(1, "/cluster/add", &json!({ "id": 2, "peer": peer }));
    cluster.start_one(2);
    // At once: what the new one does not hold yet must not go with the old one.
    wait_for("it is removed", || {
        let (status, text) = cluster.post(2, "/cluster/remove", &json!({ "id": 1 }));
        assert!(
            status == 200 || text.contains("has no vote") || text.contains("no leader"),
            "{status}: {text}"
        );
        status == 200
    });
    let (status, said) = cluster.process(1).wait_for_end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert_eq!(cluster.records(2).len(), 200);
    let mut nc = cluster.nc(2);
    wait_for("the new one goes on", || nc.ask("PRODUCE|t|k|after").starts_with("ACK|"));
}

#[test]
fn a_member_that_names_only_itself_is_not_taken_for_one_alone() {
    let mut cluster = Cluster::start(1, SMALL);
    for id in [2, 3] {
        let peer = cluster.plan([id]).to_string();
        cluster.done(1, "/cluster/add", &json!({ "id": id, "peer": peer }));
        cluster.start_one(id);
    }
    wait_for_voters(&cluster, 1, &[1, 2, 3]);
    let identity = cluster.data_dir(1).join("broker.json");
    wait_for("it keeps who else is there", || {
        let kept = std::fs::read_to_string(&identity).expect("its identity");
        let kept: Value = serde_json::from_str(&kept).expect("JSON");
        kept["others"].as_array().is_some_and(|others| others.len() == 2)
    });
    cluster.stop(1);
    std::fs::remove_dir_all(cluster.data_dir(1).join("metadata.log")).expect("removed");
    let flags = ["--node-id", "1", "--listen", "127.0.0.1:0", "--peers", "1@127.0.0.1:1"];
    let mut alone = BrokerProcess::spawn(&cluster.data_dir(1), &flags);
    let (status, said) = alone.wait_for_end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("metadata.log is gone"), "{said}");
}

#[test]
fn one_alone_notes_who_it_is_and_that_its_partitions_are_here() {
    let folder = tempfile::tempdir().expect("a folder");
    let _broker = BrokerProcess::start(folder.path());
    let identity = folder.path().join("broker.json");
    let kept = || -> Value {
        let kept = std::fs::read_to_string(&identity).expect("its identity");
        serde_json::from_str(&kept).expect("JSON")
    };
    // From the first answer on; the rest follows.
    let at_first = kept();
    for name in ["incarnation", "cluster"] {
        assert_eq!(at_first[name].as_str().map(str::len), Some(32), "{name} of {at_first}");
    }
    wait_for("it is noted that all partitions are here", || kept()["is_complete"] == true);
}

#[test]
fn a_first_start_that_was_cut_off_does_not_say_how_many_partitions_there_are() {
    for (flags, expect) in [(&[][..], 2), (&["--partitions", "4"][..], 4)] {
        let folder = tempfile::tempdir().expect("a folder");
        let begun = folder.path().join("partition_0.log");
        std::fs::create_dir(&begun).expect("made");
        std::fs::write(begun.join("vote.new"), b"").expect("written");
        let broker = BrokerProcess::start_with(folder.path(), flags);
        let said = broker.connect().listing("CLUSTER");
        let partitions = said.iter().filter(|line| line.starts_with("PARTITION|")).count();
        assert_eq!(partitions, expect, "{flags:?}: {said:?}");
    }
}

#[test]
fn one_alone_that_was_stopped_before_its_partitions_began_begins_them() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(BrokerProcess::start(folder.path()));
    // As it is between the metadata's first entries and the partitions'.
    let identity = folder.path().join("broker.json");
    let kept = std::fs::read_to_string(&identity).expect("its identity");
    let mut kept: Value = serde_json::from_str(&kept).expect("JSON");
    kept["is_complete"] = false.into();
    std::fs::write(&identity, kept.to_string()).expect("written");
    std::fs::remove_dir_all(folder.path().join("partition_0.log")).expect("removed");
    let broker = BrokerProcess::start(folder.path());
    let mut nc = broker.connect();
    let acks = (0..20).filter(|n| nc.ask(&format!("PRODUCE|t|{n}|x")).starts_with("ACK|"));
    assert_eq!(acks.count(), 20);
}

#[test]
fn the_last_are_not_removed() {
    let mut cluster = Cluster::start(3, SMALL);
    cluster.kill(3);
    // Asked again it is waited for again.
    wait_for("it is removed", || cluster.post(1, "/cluster/remove", &json!({ "id": 3 })).0 == 200);
    cluster.done(1, "/cluster/remove", &json!({ "id": 3 }));
    wait_for_voters(&cluster, 1, &[1, 2]);
    cluster.done(1, "/cluster/remove", &json!({ "id": 2 }));
    wait_for_voters(&cluster, 1, &[1]);
    let (status, text) = cluster.post(1, "/cluster/remove", &json!({ "id": 1 }));
    assert_eq!(status, 409, "{text}");
    let mut nc = cluster.nc(1);
    wait_for("one alone goes on", || nc.ask("PRODUCE|t|k|v").starts_with("ACK|"));
}
