//! Brokers as processes of their own, made a cluster by `--peers`.
//!
//! Ports are asked of the system and given back before a broker takes them, because every broker
//! is told those of all others at its start. Another program may be quicker: then a new cluster is
//! tried on other ports, and a broker that comes back waits for its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitStatus;

use serde_json::Value;
use tempfile::TempDir;

use super::{BrokerProcess, Nc, get, post, try_http, wait_for, wait_until};

/// What a broker says when it serves, and when its port is taken.
const SERVES: &str = "serves clients on ";
const TAKEN: &str = "another program has this port";

/// Brokers that know each other. Killed when dropped.
pub struct Cluster {
    folder: TempDir,
    flags: Vec<String>,
    seats: BTreeMap<u64, Seat>,
}

/// Where a broker is, and whether it runs.
struct Seat {
    client: SocketAddr,
    http: SocketAddr,
    peer: SocketAddr,
    process: Option<BrokerProcess>,
}

impl Cluster {
    /// As many brokers as named, formed, each group with a leader that all know.
    pub fn start(brokers: u64, flags: &[&str]) -> Self {
        let mut cluster = Self::planned(brokers, flags);
        while !cluster.try_start() {
            cluster = Self::planned(brokers, flags);
        }
        cluster.wait_until_ready();
        cluster
    }

    /// Ports and folders for brokers that are not started yet.
    pub fn planned(brokers: u64, flags: &[&str]) -> Self {
        let flags = flags.iter().map(|&flag| flag.to_owned()).collect();
        let folder = tempfile::tempdir().expect("a folder");
        let mut cluster = Self { folder, flags, seats: BTreeMap::new() };
        cluster.plan(1..=brokers);
        cluster
    }

    /// Finds ports for more brokers; where others will reach the last of them.
    pub fn plan(&mut self, ids: impl IntoIterator<Item = u64>) -> SocketAddr {
        // All are held until all are found: none is given twice.
        let mut held = Vec::new();
        let mut free = || {
            let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("bound");
            held.push(listener);
            address
        };
        for id in ids {
            let seat = Seat { client: free(), http: free(), peer: free(), process: None };
            self.seats.insert(id, seat);
        }
        self.seats.last_key_value().expect("somebody").1.peer
    }

    fn try_start(&mut self) -> bool {
        let ids = self.ids();
        ids.iter().for_each(|id| self.spawn(*id));
        ids.iter().all(|id| !self.process(*id).first_of(&[SERVES, TAKEN]).contains(TAKEN))
    }

    pub fn ids(&self) -> Vec<u64> {
        self.seats.keys().copied().collect()
    }

    /// Those that run.
    pub fn running(&self) -> Vec<u64> {
        let running = self.seats.iter().filter(|(_, seat)| seat.process.is_some());
        running.map(|(id, _)| *id).collect()
    }

    pub fn data_dir(&self, id: u64) -> PathBuf {
        self.folder.path().join(format!("broker{id}"))
    }

    /// Starts a broker and waits for nothing.
    pub fn spawn(&mut self, id: u64) {
        let mut peers = String::new();
        for (id, seat) in &self.seats {
            write!(peers, "{id}@{},", seat.peer).expect("written");
        }
        let seat = &self.seats[&id];
        let number = id.to_string();
        let addresses = [seat.client, seat.http, seat.peer].map(|address| address.to_string());
        let mut flags = vec!["--node-id", &number, "--peers", &peers];
        let names = ["--listen", "--listen-http", "--listen-peer"];
        flags.extend(names.into_iter().zip(&addresses).flat_map(|(name, at)| [name, at.as_str()]));
        flags.extend(self.flags.iter().map(String::as_str));
        let process = BrokerProcess::spawn(&self.data_dir(id), &flags);
        self.seats.get_mut(&id).expect("planned").process = Some(process);
    }

    /// Starts a broker and waits until it serves clients.
    pub fn start_one(&mut self, id: u64) {
        wait_for("its ports are free again", || {
            self.spawn(id);
            !self.process(id).first_of(&[SERVES, TAKEN]).contains(TAKEN)
        });
    }

    pub fn process(&mut self, id: u64) -> &mut BrokerProcess {
        self.seats.get_mut(&id).and_then(|seat| seat.process.as_mut()).expect("it runs")
    }

    fn take(&mut self, id: u64) -> BrokerProcess {
        self.seats.get_mut(&id).and_then(|seat| seat.process.take()).expect("it runs")
    }

    /// `kill -9`.
    pub fn kill(&mut self, id: u64) {
        self.take(id).kill();
    }

    /// `kill -9` of all, none waiting for another.
    pub fn kill_all(&mut self) {
        let running = self.running();
        running.iter().for_each(|id| self.process(*id).signal("-KILL"));
        running.iter().for_each(|id| self.kill(*id));
    }

    /// SIGTERM, and its end.
    pub fn stop(&mut self, id: u64) -> ExitStatus {
        self.take(id).terminate()
    }

    pub fn client(&self, id: u64) -> SocketAddr {
        self.seats[&id].client
    }

    pub fn clients(&self) -> Vec<SocketAddr> {
        self.seats.values().map(|seat| seat.client).collect()
    }

    pub fn nc(&self, id: u64) -> Nc {
        Nc::connect(self.client(id))
    }

    pub fn get(&self, id: u64, path: &str) -> (u16, String) {
        get(self.seats[&id].http, path)
    }

    /// Asks a broker to change something: the status, and what it says.
    pub fn post(&self, id: u64, path: &str, body: &Value) -> (u16, String) {
        let (status, answer) = post(self.seats[&id].http, path, &body.to_string());
        let answer: Value = serde_json::from_str(&answer).expect(&answer);
        let field = if status == 200 { "done" } else { "error" };
        (status, answer[field].as_str().expect("a text").to_owned())
    }

    /// The same, and it is done.
    pub fn done(&self, id: u64, path: &str, body: &Value) -> String {
        let (status, text) = self.post(id, path, body);
        assert_eq!(status, 200, "{path} {body}: {text}");
        text
    }

    /// Any request of one's own to a broker's HTTP.
    pub fn http(&self, id: u64, head: &str, body: &str) -> (u16, String) {
        try_http(self.seats[&id].http, head, body).expect("HTTP is served")
    }

    /// The cluster as a broker shows it; nothing as long as it does not.
    pub fn view(&self, id: u64) -> Option<Value> {
        let answer = try_http(self.seats[&id].http, "GET /cluster HTTP/1.1\r\n", "").ok();
        let (_, body) = answer.filter(|(status, _)| *status == 200)?;
        Some(serde_json::from_str(&body).expect("JSON"))
    }

    /// A group as a broker shows it.
    pub fn group(&self, id: u64, group: &str) -> Option<Value> {
        let view = self.view(id)?;
        view["groups"].as_array()?.iter().find(|g| g["group"] == group).cloned()
    }

    /// Who leads a group, in the eyes of a broker: only one that says so itself counts.
    pub fn leader(&self, id: u64, group: &str) -> Option<u64> {
        let group = self.group(id, group)?;
        let told = group["replicas"].as_array().is_some_and(|replicas| !replicas.is_empty());
        group["leader"].as_u64().filter(|_| told)
    }

    /// Who leads a group, once all that run agree on one of them.
    pub fn agreed_leader(&self, group: &str) -> u64 {
        let running = self.running();
        wait_until(&format!("all agree who leads {group}"), || {
            let leaders: BTreeSet<_> = running.iter().map(|id| self.leader(*id, group)).collect();
            let leader = (leaders.len() == 1).then(|| leaders.first().copied().flatten()).flatten();
            leader.filter(|leader| running.contains(leader))
        })
    }

    /// Waits until every broker that runs is ready and every group has a leader.
    pub fn wait_until_ready(&self) {
        let running = self.running();
        wait_for("all are ready", || running.iter().all(|id| self.get(*id, "/readyz").0 == 200));
        let view = self.view(running[0]).expect("it shows the cluster");
        for group in view["groups"].as_array().expect("a list") {
            self.agreed_leader(group["group"].as_str().expect("its name"));
        }
    }

    /// Every record of a broker as (partition, offset, the line without both); offsets have no hole.
    /// It is asked first how far the cluster is, and must show as much.
    pub fn records(&self, id: u64) -> Vec<(u32, u64, String)> {
        let mut nc = self.nc(id);
        let cluster = wait_until("every partition's leader says how far it is", || {
            let cluster = nc.listing("CLUSTER");
            let mut partitions = cluster.iter().filter(|line| line.starts_with("PARTITION|"));
            let told = |line: &String| line.split('|').nth(2).is_some_and(|id| id != "-");
            partitions.all(told).then_some(cluster)
        });
        let mut all = Vec::new();
        for line in cluster.iter().filter_map(|line| line.strip_prefix("PARTITION|")) {
            let fields: Vec<u64> = line.split('|').map(|f| f.parse().unwrap_or(0)).collect();
            let (partition, start, end) = (fields[0] as u32, fields[2], fields[3]);
            all.extend(partition_records(&mut nc, partition, start, end));
        }
        all
    }
}

/// Whether two brokers told the same; says where they differ first.
pub fn assert_same(one: &[(u32, u64, String)], other: &[(u32, u64, String)]) {
    let difference = one.iter().zip(other).find(|(one, other)| one != other);
    assert_eq!(difference, None);
    assert_eq!(one.len(), other.len(), "one of them tells more");
}

fn partition_records(nc: &mut Nc, partition: u32, start: u64, end: u64) -> Vec<(u32, u64, String)> {
    let mut records = Vec::new();
    let mut next = start;
    loop {
        let mut listing = nc.listing(&format!("FETCH|#|{next}|{partition}|1000|0"));
        let last = listing.pop().expect("an END");
        assert!(last.starts_with("END|"), "{last}");
        if listing.is_empty() {
            break;
        }
        for message in listing {
            let fields: Vec<_> = message.splitn(6, '|').collect();
            assert_eq!(fields[2], next.to_string(), "offsets have no hole: {message}");
            records.push((partition, next, format!("{}|{}|{}", fields[1], fields[4], fields[5])));
            next += 1;
        }
    }
    assert!(next >= end, "partition {partition} ends at {end}, and was told up to {next} only");
    records
}
