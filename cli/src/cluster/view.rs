//! What a broker tells of its cluster (`GET /cluster`), as tables, and what has changed between
//! two of them. Pure.
//!
//! Fields that a later version adds are passed over, and those that are missing are empty, so
//! that two neighbouring versions understand each other.

use serde::Deserialize;

use crate::output::printable;

/// A copy that is so many entries behind is worth a word when it has caught up; fewer are a
/// moment's work and come and go under load.
const BEHIND_NOTED: u64 = 1_000;

/// The cluster.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct View {
    /// Its name.
    pub cluster: String,
    /// The broker that told.
    pub answered_by: u64,
    /// Who is a member.
    pub brokers: Vec<Broker>,
    /// What they keep together.
    pub groups: Vec<Group>,
}

/// A member.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Broker {
    id: u64,
    address: String,
    state: String,
    voter: bool,
    fault: Option<String>,
}

/// The metadata, or a partition.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Group {
    group: String,
    leader: Option<u64>,
    term: u64,
    voters: Vec<u64>,
    learners: Vec<u64>,
    committed: u64,
    replicas: Vec<Replica>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
struct Replica {
    broker: u64,
    behind: u64,
}

impl View {
    /// The members: their numbers, and where clients reach them.
    pub fn members(&self) -> impl Iterator<Item = (u64, &str)> {
        self.brokers.iter().map(|broker| (broker.id, broker.address.as_str()))
    }

    /// The heading and the rows of the members.
    pub fn brokers_table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let header = ["BROKER", "ADDRESS", "STATE", "ROLE", "FAULT"].map(str::to_owned).to_vec();
        let row = |broker: &Broker| {
            vec![
                broker.id.to_string(),
                printable(broker.address.as_bytes()),
                printable(broker.state.as_bytes()),
                if broker.voter { "voter" } else { "learner" }.to_owned(),
                broker.fault.as_deref().map_or_else(|| "-".to_owned(), |f| printable(f.as_bytes())),
            ]
        };
        (header, self.brokers.iter().map(row).collect())
    }

    /// The heading and the rows of the groups: a column for each member says how many entries it
    /// is behind the leader.
    pub fn groups_table(&self) -> (Vec<String>, Vec<Vec<String>>) {
        let mut header = ["GROUP", "LEADER", "TERM", "COMMITTED"].map(str::to_owned).to_vec();
        header.extend(self.brokers.iter().map(|broker| format!("LAG OF {}", broker.id)));
        let row = |group: &Group| {
            let leader = group.leader.map_or_else(|| "none".to_owned(), |id| id.to_string());
            let mut cells = vec![printable(group.group.as_bytes()), leader];
            cells.extend([group.term.to_string(), group.committed.to_string()]);
            cells.extend(self.brokers.iter().map(|broker| group.lag_of(broker.id)));
            cells
        };
        (header, self.groups.iter().map(row).collect())
    }

    /// What is other than it was, in sentences.
    pub fn changes_since(&self, before: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        for broker in &self.brokers {
            match before.brokers.iter().find(|known| known.id == broker.id) {
                Some(known) => changes.extend(broker.changes_since(known)),
                None => changes.push(format!("broker {} has joined", broker.id)),
            }
        }
        for known in &before.brokers {
            if self.brokers.iter().all(|broker| broker.id != known.id) {
                changes.push(format!("broker {} has left", known.id));
            }
        }
        for group in &self.groups {
            if let Some(known) = before.groups.iter().find(|known| known.group == group.group) {
                changes.extend(group.changes_since(known));
            }
        }
        changes.iter().map(|change| printable(change.as_bytes())).collect()
    }
}

impl Broker {
    fn changes_since(&self, before: &Self) -> Vec<String> {
        let id = self.id;
        let mut changes = Vec::new();
        if self.state != before.state {
            changes.push(format!("broker {id} is {}", self.state));
        }
        if self.voter && !before.voter {
            changes.push(format!("broker {id} votes from now on"));
        }
        match (&self.fault, &before.fault) {
            (fault, known) if fault == known => {}
            (Some(fault), _) => changes.push(format!("broker {id} has the fault: {fault}")),
            (None, _) => changes.push(format!("broker {id} has no fault any more")),
        }
        changes
    }
}

impl Group {
    fn lag_of(&self, broker: u64) -> String {
        let learns = if self.learners.contains(&broker) { " (learns)" } else { "" };
        if self.leader == Some(broker) {
            return "leads".to_owned();
        }
        match self.replicas.iter().find(|replica| replica.broker == broker) {
            Some(replica) => format!("{}{learns}", replica.behind),
            None if self.voters.contains(&broker) || !learns.is_empty() => format!("?{learns}"),
            None => "-".to_owned(),
        }
    }

    fn changes_since(&self, before: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        let name = &self.group;
        match (self.leader, before.leader) {
            (Some(leader), known) if known != Some(leader) => changes.push(format!(
                "{name}: broker {leader} was elected in term {}{}",
                self.term,
                known.map(|known| format!(", after broker {known}")).unwrap_or_default()
            )),
            (Some(leader), _) if self.term != before.term => {
                changes.push(format!(
                    "{name}: broker {leader} was elected again, in term {}",
                    self.term
                ));
            }
            (None, Some(known)) => {
                changes.push(format!("{name}: no leader, after broker {known}"));
            }
            _ => {}
        }
        for replica in &self.replicas {
            let known = before.replicas.iter().find(|known| known.broker == replica.broker);
            if replica.behind < BEHIND_NOTED
                && known.is_some_and(|known| known.behind >= BEHIND_NOTED)
            {
                changes.push(format!("{name}: broker {} has caught up", replica.broker));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn view(value: Value) -> View {
        serde_json::from_value(value).expect("a view")
    }

    fn three(leader: Option<u64>, term: u64, behind: u64, second: &str) -> View {
        view(json!({
            "cluster": "c", "answered_by": 1, "version": "9", "later": true,
            "brokers": [
                { "id": 1, "address": "a:7000", "state": "alive", "voter": true, "fault": null },
                { "id": 2, "address": "b:7000", "state": second, "voter": true, "fault": "slow 100" },
                { "id": 3, "address": "c:7000", "state": "alive", "voter": false },
            ],
            "groups": [{
                "group": "partition 0", "leader": leader, "term": term, "voters": [1, 2],
                "learners": [3], "committed": 40,
                "replicas": [{ "broker": 1, "last": 40, "behind": 0 },
                             { "broker": 3, "last": 0, "behind": behind }],
            }],
        }))
    }

    #[test]
    fn tables_show_leaders_lags_and_what_is_not_known() {
        let (header, rows) = three(Some(1), 7, 12, "dead").groups_table();
        assert_eq!(header[4..], ["LAG OF 1", "LAG OF 2", "LAG OF 3"]);
        assert_eq!(rows, [["partition 0", "1", "7", "40", "leads", "?", "12 (learns)"]]);
        let (_, rows) = three(None, 7, 12, "dead").brokers_table();
        assert_eq!(rows[1], ["2", "b:7000", "dead", "voter", "slow 100"]);
        assert_eq!(rows[2], ["3", "c:7000", "alive", "learner", "-"]);
    }

    #[test]
    fn an_election_and_a_catching_up_are_told() {
        let before = three(Some(1), 7, 5_000, "alive");
        assert!(before.changes_since(&before).is_empty());
        let without = three(None, 8, 5_000, "dead");
        assert_eq!(
            without.changes_since(&before),
            ["broker 2 is dead", "partition 0: no leader, after broker 1"]
        );
        assert_eq!(
            three(Some(3), 9, 4, "dead").changes_since(&without),
            ["partition 0: broker 3 was elected in term 9", "partition 0: broker 3 has caught up"]
        );
        assert_eq!(
            three(Some(1), 9, 5_000, "alive").changes_since(&before),
            ["partition 0: broker 1 was elected again, in term 9"]
        );
    }

    #[test]
    fn who_joins_and_who_leaves_is_told() {
        let all = three(Some(1), 7, 0, "alive");
        let mut two = all.clone();
        two.brokers.pop();
        assert_eq!(all.changes_since(&two), ["broker 3 has joined"]);
        assert_eq!(two.changes_since(&all), ["broker 3 has left"]);
    }
}
