//! Three brokers as one: they form, any of them takes and tells everything, a minority that is left
//! says so, people can look and change, and what is broken on purpose is broken.

mod support;

use std::time::{Duration, Instant};

use serde_json::json;
use support::cluster::{Cluster, assert_same};
use support::{BrokerProcess, wait_for, wait_until};

const SMALL: &[&str] = &["--partitions", "2"];

/// What the protocol gives a PRODUCE without a majority, and as much again for a busy machine.
const UNAVAILABLE_WITHIN: Duration = Duration::from_secs(12);

#[test]
fn a_cluster_forms_when_all_are_there_and_each_takes_and_tells_the_same() {
    let mut cluster = Cluster::planned(3, SMALL);
    cluster.spawn(1);
    let waits = cluster.process(1).wait_for_log("waiting for broker 2");
    assert!(waits.contains("cannot be reached"), "why: {waits}");
    assert_eq!(cluster.get(1, "/livez").0, 200);
    assert_eq!(cluster.get(1, "/readyz").0, 503);
    let (status, text) = cluster.get(1, "/cluster");
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("\"error\":\"this broker is starting"), "{text}");
    // A client is told so, too, and not left without a word.
    let mut nc = cluster.nc(1);
    let told = nc.line().expect("a line");
    assert!(told.starts_with("ERR|unavailable|this broker is starting"), "{told}");
    assert_eq!(nc.line(), None);
    cluster.spawn(2);
    cluster.spawn(3);
    for id in cluster.ids() {
        cluster.process(id).wait_for_log("serves clients on ");
    }
    cluster.wait_until_ready();

    let mut stored = 0;
    for id in cluster.ids() {
        let mut nc = cluster.nc(id);
        for n in 0..10 {
            let answer = nc.ask(&format!("PRODUCE|from/{id}|key{n}|{n}"));
            assert!(answer.starts_with("ACK|"), "{answer}");
            stored += 1;
        }
    }
    let all = cluster.records(1);
    assert_eq!(all.len(), stored);
    assert_same(&cluster.records(2), &all);
    assert_same(&cluster.records(3), &all);
    for id in cluster.ids() {
        let listing = cluster.nc(id).listing("CLUSTER");
        let alive = listing.iter().filter(|l| l.starts_with("BROKER|") && l.ends_with("|alive"));
        assert_eq!(alive.count(), 3, "{listing:?}");
        let leaders = ["partition 0", "partition 1"].map(|group| cluster.agreed_leader(group));
        let told: Vec<_> = listing.iter().filter(|l| l.starts_with("PARTITION|")).collect();
        for (line, leader) in told.iter().zip(leaders) {
            assert_eq!(line.split('|').nth(2), Some(leader.to_string().as_str()), "{listing:?}");
        }
    }
}

#[test]
fn without_a_majority_producing_is_unavailable_in_time_and_goes_on_when_one_returns() {
    let mut cluster = Cluster::start(3, SMALL);
    let mut nc = cluster.nc(3);
    assert!(nc.ask("PRODUCE|t|k|before").starts_with("ACK|"));
    // One that leads everything does not learn from a new leader that it is alone.
    for group in ["metadata", "partition 0", "partition 1"] {
        let order = json!({ "group": group, "to": 3 });
        wait_for("broker 3 leads", || cluster.post(3, "/cluster/transfer-leader", &order).0 == 200);
    }
    assert_eq!(cluster.get(3, "/readyz").0, 200);
    cluster.kill(1);
    cluster.kill(2);
    wait_for("it says that it is not ready", || cluster.get(3, "/readyz").0 == 503);
    for command in ["PRODUCE|t|k|alone", "PRODUCE|t|other|alone", "REGISTER_CONSUMER|c|1"] {
        let asked = Instant::now();
        nc.refused(command, "unavailable");
        assert!(asked.elapsed() < UNAVAILABLE_WITHIN, "{command}: {:?}", asked.elapsed());
    }
    // A client that goes on sending hears of it as well.
    let mut steady = cluster.nc(3);
    let pace = Some(Duration::from_millis(300));
    steady.socket.set_read_timeout(pace).expect("a timeout");
    let asked = Instant::now();
    let answer = loop {
        steady.send("PRODUCE|t|k|and on");
        match steady.try_line() {
            Ok(line) => break line.expect("an answer"),
            Err(_) => assert!(asked.elapsed() < UNAVAILABLE_WITHIN, "no answer while it sends"),
        }
    };
    assert!(answer.starts_with("ERR|unavailable|"), "{answer}");
    drop(steady);
    // What is known to be committed is still told.
    let stored = nc.listing("FETCH|t|0");
    assert!(stored[0].ends_with("|k|before"), "{stored:?}");
    let (status, text) =
        cluster.post(3, "/cluster/add", &json!({ "id": 4, "peer": "127.0.0.1:9" }));
    assert_eq!(status, 503, "{text}");
    cluster.start_one(1);
    wait_for("a majority takes records again", || nc.ask("PRODUCE|t|k|after").starts_with("ACK|"));
    cluster.agreed_leader("metadata");
    assert!(nc.ask("REGISTER_CONSUMER|c|1").starts_with("OK|"));
    wait_for("it says that it is ready", || cluster.get(3, "/readyz").0 == 200);
}

#[test]
fn a_member_with_an_empty_disk_is_refused() {
    let mut cluster = Cluster::start(3, SMALL);
    let mut nc = cluster.nc(1);
    assert!(nc.ask("PRODUCE|t|k|v").starts_with("ACK|"));
    cluster.kill(2);
    for log in ["metadata.log", "partition_0.log"] {
        let (here, aside) = (cluster.data_dir(2).join(log), cluster.data_dir(2).join("aside"));
        std::fs::rename(&here, &aside).expect("a log is set aside");
        cluster.spawn(2);
        let (status, said) = cluster.process(2).wait_for_end();
        assert_eq!(status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("{log} is gone")), "{said}");
        std::fs::rename(&aside, &here).expect("it is put back");
    }
    std::fs::remove_dir_all(cluster.data_dir(2)).expect("its disk is lost");
    cluster.spawn(2);
    let (status, said) = cluster.process(2).wait_for_end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("broker 2 is a member of cluster"), "{said}");
    assert!(said.contains("aklight cluster replace 2 NEW@HOST:7090"), "{said}");
    // The others go on.
    wait_for("the two others take records", || nc.ask("PRODUCE|t|k|v").starts_with("ACK|"));
}

#[test]
fn a_member_is_not_started_without_the_others() {
    let mut cluster = Cluster::start(3, SMALL);
    cluster.stop(2);
    let mut alone =
        BrokerProcess::spawn(&cluster.data_dir(2), &["--node-id", "2", "--listen", "127.0.0.1:0"]);
    let (status, said) = alone.wait_for_end();
    assert_eq!(status.code(), Some(1), "{said}");
    assert!(said.contains("shares its cluster with brokers 1, 3"), "{said}");
    assert!(said.contains("--peers ID@HOST:PORT"), "{said}");
}

#[test]
fn a_leader_is_moved_and_leaders_spread_again_after_a_restart() {
    let mut cluster = Cluster::start(3, SMALL);
    for to in [3, 2] {
        // Asked of one that need not lead.
        let body = json!({ "group": "partition 0", "to": to });
        let text = cluster.done(1, "/cluster/transfer-leader", &body);
        assert_eq!(text, format!("broker {to} leads partition 0"));
        assert_eq!(cluster.agreed_leader("partition 0"), to);
    }
    assert!(cluster.nc(1).ask("PRODUCE|t|k|v").starts_with("ACK|"));
    let refused = |path: &str, body: &serde_json::Value, status: u16, said: &str| {
        let (got, text) = cluster.post(1, path, body);
        assert_eq!(got, status, "{body}: {text}");
        assert!(text.contains(said), "{body}: {text}");
    };
    let transfer = "/cluster/transfer-leader";
    refused(transfer, &json!({ "group": "partition 7", "to": 1 }), 400, "from 0 to 1");
    refused(transfer, &json!({ "group": "0", "to": 1 }), 400, "no group '0'");
    refused(transfer, &json!({ "group": "metadata", "to": 9 }), 409, "its brokers: 1, 2, 3");

    assert!(cluster.stop(2).success());
    wait_for("another leads", || {
        cluster.leader(1, "partition 0").is_some_and(|leader| leader != 2)
    });
    wait_for("its going is noticed", || {
        let body = json!({ "group": "partition 0", "to": 2 });
        let (status, text) = cluster.post(1, transfer, &body);
        status == 409 && text.contains("does not answer")
    });
    cluster.start_one(2);
    // Chosen by a person, so it leads again once it has been back for a while.
    wait_for("broker 2 leads again", || cluster.leader(1, "partition 0") == Some(2));
    assert!(cluster.nc(1).ask("PRODUCE|t|k|v").starts_with("ACK|"));
}

#[test]
fn a_change_is_asked_for_in_json_and_in_sense() {
    let cluster = Cluster::start(1, SMALL);
    let path = "POST /cluster/remove HTTP/1.1\r\n";
    let (status, text) = cluster.http(1, path, "{\"id\":1}");
    assert_eq!(status, 415, "without a type: {text}");
    let form = format!("{path}Content-Type: text/plain\r\n");
    assert_eq!(cluster.http(1, &form, "{\"id\":1}").0, 415);
    let typed = format!("{path}Content-Type: application/json; charset=utf-8\r\n");
    assert_eq!(cluster.http(1, &typed, "{\"id\":1").0, 400);
    assert_eq!(cluster.http(1, &typed, &format!("{{\"id\":{}1}}", " ".repeat(5000))).0, 400);
    let (status, text) = cluster.http(1, &typed, "{\"id\":1}");
    assert_eq!(status, 409, "its own removal: {text}");
    let refused = |path: &str, body: serde_json::Value, status: u16, said: &str| {
        let (got, text) = cluster.post(1, path, &body);
        assert_eq!(got, status, "{body}: {text}");
        assert!(text.contains(said), "{body}: {text}");
    };
    refused("/cluster/remove", json!({ "id": 7 }), 409, "broker 7 is not of this cluster");
    refused("/cluster/remove", json!({ "id": 7, "force": true }), 400, "force");
    refused("/cluster/add", json!({ "id": 1, "peer": "a:1" }), 409, "of this cluster already");
    refused("/cluster/add", json!({ "id": 2, "peer": "nowhere" }), 400, "HOST:PORT");
    refused("/cluster/add", json!({ "id": 0, "peer": "a:1" }), 400, "numbered from 1");
    refused("/fault", json!({ "broker": 1, "fault": "dead" }), 403, "--allow-faults");
    refused("/fault", json!({ "broker": 1, "fault": "slow" }), 400, "milliseconds");
    assert_eq!(cluster.http(1, "GET /cluster/remove HTTP/1.1\r\n", "").0, 405);
}

#[test]
fn a_fault_is_refused_unless_the_broker_allows_it() {
    let cluster = Cluster::start(3, SMALL);
    for fault in ["dead", "alive", "isolate"] {
        let (status, text) = cluster.post(1, "/fault", &json!({ "broker": 2, "fault": fault }));
        assert_eq!(status, 403, "{text}");
        assert!(text.contains("broker 2") && text.contains("--allow-faults"), "{text}");
    }
    assert!(cluster.nc(2).ask("PRODUCE|t|k|v").starts_with("ACK|"));
}

#[test]
fn what_is_broken_on_purpose_is_broken_and_comes_back() {
    let cluster = Cluster::start(3, &["--partitions", "2", "--allow-faults"]);
    let leader = cluster.agreed_leader("partition 0");
    let other = cluster.ids().into_iter().find(|id| *id != leader).expect("three");
    let fault = |broker: u64, fault: &str| {
        cluster.done(other, "/fault", &json!({ "broker": broker, "fault": fault }))
    };

    fault(leader, "isolate");
    let next = wait_until("the others elect", || {
        cluster.leader(other, "partition 0").filter(|next| *next != leader)
    });
    assert_ne!(next, leader);
    let mut nc = cluster.nc(other);
    wait_for("the others take records", || nc.ask("PRODUCE|t|k|without").starts_with("ACK|"));
    let mut cut_off = cluster.nc(leader);
    cut_off.refused("PRODUCE|t|k|alone", "unavailable");
    let shown = cluster.view(leader).expect("HTTP answers");
    let own = shown["brokers"].as_array().expect("a list").iter().find(|b| b["id"] == leader);
    assert_eq!(own.expect("itself")["fault"], "isolate");
    fault(leader, "alive");
    wait_for("it takes records again", || cut_off.ask("PRODUCE|t|k|again").starts_with("ACK|"));
    assert_same(&cluster.records(leader), &cluster.records(other));

    fault(leader, "dead");
    assert_eq!(cut_off.line(), None, "clients are cut off");
    wait_for("the others take records", || nc.ask("PRODUCE|t|k|still").starts_with("ACK|"));
    wait_for("its silence is noticed", || {
        let view = cluster.view(other).expect("it shows");
        let brokers = view["brokers"].as_array().expect("a list");
        brokers.iter().any(|b| b["id"] == leader && b["state"] == "dead")
    });
    fault(leader, "alive");
    wait_for("clients are let in again", || {
        let nc = support::Nc::try_connect(cluster.client(leader));
        nc.is_ok_and(|mut nc| {
            nc.try_send("PING|x").is_ok() && nc.try_line().ok().flatten().is_some()
        })
    });

    let slow = json!({ "broker": other, "fault": "slow", "ms": 50 });
    cluster.done(leader, "/fault", &slow);
    wait_for("it is shown", || {
        let view = cluster.view(leader).expect("it shows");
        view["brokers"].as_array().expect("a list").iter().any(|b| b["fault"] == "slow 50")
    });
    assert!(nc.ask("PRODUCE|t|k|slowly").starts_with("ACK|"));
}
