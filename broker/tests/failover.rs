//! Any broker may die, or all at once: what was acknowledged is there, clients go on elsewhere
//! exactly where they were, and who was away catches up.

mod support;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;
use support::cluster::{Cluster, assert_same};
use support::load::Load;
use support::{Nc, damage, holds, wait_for};

const SMALL: &[&str] = &["--partitions", "2"];

/// Answers that each client has between two blows.
const ACKS: usize = 50;

#[test]
fn when_a_leader_is_killed_the_others_go_on_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start(3, SMALL);
    let load = Load::start(&cluster.clients());
    load.wait_for_more(ACKS);
    for group in ["partition 0", "metadata", "partition 1"] {
        let leader = cluster.agreed_leader(group);
        cluster.kill(leader);
        load.wait_for_more(ACKS);
        cluster.start_one(leader);
        cluster.wait_until_ready();
    }
    load.wait_for_more(ACKS);
    let told = load.end();
    let stored = cluster.records(1);
    told.iter().for_each(|told| told.check(&stored));
    assert_same(&cluster.records(2), &stored);
    assert_same(&cluster.records(3), &stored);
}

#[test]
fn when_all_are_killed_at_once_everything_acknowledged_is_there_and_repeats_are_known() {
    let mut cluster = Cluster::start(3, SMALL);
    let load = Load::start(&cluster.clients());
    load.wait_for_more(2 * ACKS);
    cluster.kill_all();
    let told = load.end();
    for id in cluster.ids() {
        cluster.spawn(id);
    }
    for id in cluster.ids() {
        cluster.process(id).wait_for_log("serves clients on ");
    }
    cluster.wait_until_ready();
    let stored = cluster.records(2);
    told.iter().for_each(|told| told.check(&stored));
    // The same producer comes back at each of them: its records are there already.
    let once = told.iter().find(|told| told.name == "once").expect("it worked");
    for id in cluster.ids() {
        let mut nc = cluster.nc(id);
        assert_eq!(nc.ask("REGISTER_PRODUCER|once"), "OK");
        for number in once.numbers() {
            assert_eq!(nc.ask(&once.line(number)), once.answer(number));
        }
    }
    assert_same(&cluster.records(1), &stored);
}

#[test]
fn a_consumer_goes_on_at_another_broker_exactly_where_it_was() {
    let mut cluster = Cluster::start(3, SMALL);
    let at = cluster.agreed_leader("metadata");
    let elsewhere: Vec<_> = cluster.ids().into_iter().filter(|id| *id != at).collect();
    let mut nc = cluster.nc(at);
    assert_eq!(nc.ask("REGISTER_CONSUMER|reader|1"), "OK|0:0,1:0");
    assert_eq!(nc.ask("SUBSCRIBE|t"), "OK");
    let mut producer = cluster.nc(elsewhere[0]);
    for n in 0..20 {
        assert!(producer.ask(&format!("PRODUCE|t|key{n}|{n}")).starts_with("ACK|"));
    }
    let received: Vec<_> = (0..20).map(|_| message(&mut nc)).collect();
    // It processes the first half, and is sure of it.
    let mut next = [0, 0];
    for (partition, offset, _) in &received[..10] {
        nc.send(&format!("ACK|t|{offset}|{partition}"));
        next[*partition] = offset + 1;
    }
    assert_eq!(nc.ask("PING|done"), "PONG|done");
    cluster.kill(at);

    for id in elsewhere {
        let mut nc = cluster.nc(id);
        let stands = format!("OK|0:{},1:{}", next[0], next[1]);
        wait_for("the metadata has a leader again", || {
            let answer = nc.ask("REGISTER_CONSUMER|reader|1");
            assert!(answer == stands || answer.starts_with("ERR|unavailable|"), "{answer}");
            answer == stands
        });
        assert_eq!(nc.ask("SUBSCRIBE|t"), "OK");
        let mut again: Vec<_> = (0..10).map(|_| message(&mut nc)).collect();
        let mut rest = received[10..].to_vec();
        again.sort();
        rest.sort();
        assert_eq!(again, rest, "what it had not acknowledged, and nothing else");
    }
}

#[test]
fn an_acknowledgement_ahead_of_a_broker_that_is_cut_off_may_be_tried_again() {
    let cluster = Cluster::start(3, &["--partitions", "1", "--allow-faults"]);
    let leader = cluster.agreed_leader("partition 0");
    let at = cluster.ids().into_iter().find(|id| *id != leader).expect("three");
    let fault = |fault: &str| {
        cluster.done(leader, "/fault", &json!({ "broker": at, "fault": fault }));
    };
    let mut nc = cluster.nc(at);
    assert_eq!(nc.ask("REGISTER_CONSUMER|reader|1"), "OK|0:0");
    fault("isolate");
    // It reads the record at another broker, and comes back here.
    let mut producer = cluster.nc(leader);
    wait_for("the others take records", || producer.ask("PRODUCE|t|k|v") == "ACK|t|0|0");
    nc.refused("ACK|t|0|0", "unavailable");
    fault("alive");
    wait_for("it is taken", || {
        nc.send("ACK|t|0|0");
        let answer = nc.ask("PING|done");
        if answer != "PONG|done" {
            assert!(answer.starts_with("ERR|unavailable|"), "{answer}");
            nc.expect("PONG|done");
        }
        answer == "PONG|done"
    });
    assert_eq!(nc.ask("REGISTER_CONSUMER|reader|1"), "OK|0:1");
    nc.refused("ACK|t|7|0", "offset_out_of_range");
}

fn partition_log(cluster: &Cluster, id: u64) -> PathBuf {
    cluster.data_dir(id).join("partition_0.log/00000000000000000000.log")
}

/// Isolates the leader and gives it three records, each on its disk before the next comes: entries of
/// their own, which nobody else gets. None, and all as before, when it stopped leading before that.
fn writes_alone(cluster: &Cluster, attempt: u32) -> Option<(u64, [String; 3])> {
    let leader = cluster.agreed_leader("partition 0");
    let fault = |fault: &str| {
        cluster.done(leader, "/fault", &json!({ "broker": leader, "fault": fault }));
    };
    let mut alone = cluster.nc(leader);
    wait_for("it takes records", || alone.ask("PRODUCE|t|k|before").starts_with("ACK|"));
    let log = partition_log(cluster, leader);
    fault("isolate");
    let texts = [0, 1, 2].map(|n| format!("alone-{attempt}-{n}"));
    for text in &texts {
        alone.send(&format!("PRODUCE|t|k|{text}"));
        let soon = Instant::now() + Duration::from_secs(2);
        while !holds(&log, text.as_bytes()) {
            if Instant::now() > soon {
                fault("alive");
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    Some((leader, texts))
}

#[test]
fn what_a_leader_wrote_alone_goes_though_its_disk_is_damaged_in_the_middle_of_it() {
    let mut cluster = Cluster::start(3, &["--partitions", "1", "--allow-faults"]);
    // A leader leads alone for a second at most; on a busy machine not all three may come that far.
    let (leader, texts) = (0..20)
        .find_map(|attempt| writes_alone(&cluster, attempt))
        .expect("a leader writes three records while it is alone");
    let other = cluster.ids().into_iter().find(|id| *id != leader).expect("three");
    let log = partition_log(&cluster, leader);
    let mut nc = cluster.nc(other);
    wait_for("the others take records", || nc.ask("PRODUCE|t|k|without").starts_with("ACK|"));
    for n in 0..20 {
        assert!(nc.ask(&format!("PRODUCE|t|k|without-{n}")).starts_with("ACK|"));
    }
    cluster.kill(leader);
    damage(&log, texts[1].as_bytes());
    cluster.spawn(leader);
    cluster.process(leader).wait_for_log("were never committed");
    cluster.process(leader).wait_for_log("serves clients on ");
    cluster.wait_until_ready();
    let stored = cluster.records(other);
    assert!(stored.iter().any(|(_, _, text)| text.contains("without-19")));
    assert!(!stored.iter().any(|(_, _, text)| texts.iter().any(|alone| text.contains(alone))));
    wait_for("it has what the others have", || {
        cluster.group(leader, "partition 0").is_some_and(|group| group["end"] == stored.len())
    });
    assert_same(&cluster.records(leader), &stored);
}

fn message(nc: &mut Nc) -> (usize, u64, String) {
    let line = nc.line().expect("a message");
    let fields: Vec<_> = line.split('|').collect();
    assert_eq!(fields[0], "MESSAGE", "{line}");
    let number = |at: usize| fields[at].parse::<u64>().expect("a number");
    (number(3) as usize, number(2), fields[5].to_owned())
}

#[test]
fn a_broker_that_was_away_catches_up_from_the_log() {
    let mut cluster = Cluster::start(3, SMALL);
    let mut nc = cluster.nc(1);
    assert!(nc.ask("PRODUCE|t|k|before").starts_with("ACK|"));
    cluster.kill(3);
    wait_for("two go on", || nc.ask("PRODUCE|t|k|between").starts_with("ACK|"));
    for n in 0..500 {
        nc.send(&format!("PRODUCE|t|key{n}|{n}"));
    }
    for _ in 0..500 {
        let answer = nc.line().expect("an answer");
        assert!(answer.starts_with("ACK|"), "{answer}");
    }
    cluster.start_one(3);
    cluster.wait_until_ready();
    assert_same(&cluster.records(3), &cluster.records(1));
}

#[test]
fn a_broker_that_was_away_longer_than_retention_is_sent_what_is_kept() {
    let flags = ["--partitions", "1", "--segment-bytes", "1048576", "--retention-bytes", "2097152"];
    // Payloads that are all alike would otherwise be kept for long.
    let flags = [&flags[..], &["--compression", "none"]].concat();
    let mut cluster = Cluster::start(3, &flags);
    let mut nc = cluster.nc(1);
    assert_eq!(nc.ask("REGISTER_PRODUCER|p"), "OK");
    assert_eq!(nc.ask("PRODUCE_ONCE|1|first|k|kept in no log"), "ACK|first|0|0");
    wait_for("broker 3 has it", || {
        cluster.group(3, "partition 0").is_some_and(|group| group["end"] == 1)
    });
    cluster.kill(3);
    let payload = "x".repeat(64 << 10);
    for n in 2..100 {
        wait_for("two go on", || {
            nc.ask(&format!("PRODUCE_ONCE|{n}|t|k|{payload}")).starts_with("ACK|")
        });
    }
    wait_for("retention drops what broker 3 lacks", || {
        [1, 2].iter().all(|id| {
            let listing = cluster.nc(*id).listing("CLUSTER");
            let partition = listing.iter().find(|l| l.starts_with("PARTITION|")).expect("one");
            partition.split('|').nth(3).is_some_and(|start| start != "0")
        })
    });
    cluster.start_one(3);
    cluster.wait_until_ready();
    let kept = cluster.records(1);
    assert!(kept[0].1 > 1, "it starts at {}", kept[0].1);
    let (of_three, of_one) = (cluster.records(3), cluster.records(1));
    // Retention goes on by itself at each of them: from where both begin, they are the same.
    let start = of_three[0].1.max(of_one[0].1);
    let from_start = |records: &[(u32, u64, String)]| -> Vec<_> {
        records.iter().filter(|record| record.1 >= start).cloned().collect()
    };
    assert_same(&from_start(&of_three), &from_start(&of_one));
    // What producers were told went along with it: now that it leads, it decides about repeats.
    let transfer = json!({ "group": "partition 0", "to": 3 });
    cluster.done(1, "/cluster/transfer-leader", &transfer);
    let mut nc = cluster.nc(3);
    assert_eq!(nc.ask("REGISTER_PRODUCER|p"), "OK");
    assert_eq!(nc.ask("PRODUCE_ONCE|1|first|k|kept in no log"), "ACK|first|0|0");
    assert_eq!(nc.ask("PRODUCE_ONCE|2|t|k|nor is this"), "ACK|t|1|0");
}
