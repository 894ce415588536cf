//! The outcomes of a run, found by row, system and figure.

use crate::plan::Outcome;
use crate::rows::{Goal, Row, Target};
use crate::stats::{Spread, ratios, spread};
use crate::work::{CLIENT_CPU, PEAK_MEMORY, SERVER_CPU, Unit};

/// The outcomes of a run.
pub struct Results<'a> {
    outcomes: &'a [Outcome],
}

/// What came of a goal, or of a comparison where there is none.
pub struct Verdict {
    /// The ratio, or the figure where the goal is one.
    pub reached: f64,
    /// The system that it is a ratio to.
    pub against: Option<&'static str>,
    /// Whether it is what it was to be.
    pub is_met: bool,
}

impl<'a> Results<'a> {
    /// Of these outcomes.
    pub fn new(outcomes: &'a [Outcome]) -> Self {
        Self { outcomes }
    }

    /// Whether anyone did anything of that row.
    pub fn has(&self, row: &str) -> bool {
        self.outcomes.iter().any(|outcome| outcome.row == row && !outcome.measures.is_empty())
    }

    /// The figures of a system, with their rounds.
    pub fn rounds(&self, row: &str, system: &str, measure: &str) -> Vec<(u32, f64)> {
        self.outcomes
            .iter()
            .filter(|outcome| outcome.row == row && outcome.system == system)
            .filter_map(|outcome| {
                let found = outcome.measures.iter().find(|m| m.name == measure)?;
                Some((outcome.round, found.value))
            })
            .collect()
    }

    /// What they come to.
    pub fn spread(&self, row: &str, system: &str, measure: &str) -> Option<Spread> {
        let rounds = self.rounds(row, system, measure);
        spread(&rounds.into_iter().map(|(_, value)| value).collect::<Vec<_>>())
    }

    /// The figures of a row, costs aside, in the order in which they were measured.
    pub fn measures(&self, row: &str) -> Vec<(&'static str, Unit)> {
        let mut found: Vec<(&'static str, Unit)> = Vec::new();
        for outcome in self.outcomes.iter().filter(|outcome| outcome.row == row) {
            for measure in &outcome.measures {
                let is_cost = [SERVER_CPU, CLIENT_CPU, PEAK_MEMORY].contains(&measure.name);
                if !is_cost && found.iter().all(|(name, _)| *name != measure.name) {
                    found.push((measure.name, measure.unit));
                }
            }
        }
        found
    }

    /// Why systems failed.
    pub fn errors(&self) -> impl Iterator<Item = (&'a Outcome, &'a str)> {
        self.outcomes.iter().filter_map(|outcome| Some((outcome, outcome.error.as_deref()?)))
    }

    /// What came of a goal of a row; `None` where there are no figures for it.
    pub fn verdict(&self, row: &Row, goal: &Goal) -> Option<Verdict> {
        let unit = self.measures(row.key).into_iter().find(|(name, _)| *name == goal.measure)?.1;
        let (wanted, against) = match goal.target {
            Target::Figure(wanted) => {
                let reached = self.spread(row.key, goal.system, goal.measure)?.median;
                let is_met = unit.is_reached(reached, wanted);
                return Some(Verdict { reached, against: None, is_met });
            }
            Target::Times(wanted, system) => (wanted, system),
            Target::Best(wanted) => (wanted, self.best_peer(row, goal.measure, unit)?),
        };
        let own = self.rounds(row.key, goal.system, goal.measure);
        let other = self.rounds(row.key, against, goal.measure);
        let reached = spread(&ratios(&own, &other))?.median;
        let is_met = unit.is_reached(reached, wanted);
        Some(Verdict { reached, against: Some(against), is_met })
    }

    // Of those that are not ours, by its median.
    fn best_peer(&self, row: &Row, measure: &str, unit: Unit) -> Option<&'static str> {
        let peers = row.systems.iter().filter(|system| !system.starts_with("aklight"));
        let medians =
            peers.filter_map(|peer| Some((*peer, self.spread(row.key, peer, measure)?.median)));
        let better = |a: &f64, b: &f64| if unit.more_is_better() { b > a } else { b < a };
        medians.reduce(|a, b| if better(&a.1, &b.1) { b } else { a }).map(|(peer, _)| peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::ROWS;
    use crate::work::measure;

    fn outcome(system: &'static str, round: u32, p50: f64) -> Outcome {
        let measures = vec![measure("p50", p50, Unit::Micros)];
        Outcome { row: "single-cached", system, round, seconds: 1.0, measures, error: None }
    }

    #[test]
    fn a_goal_is_held_against_the_best_peer() {
        let outcomes = [
            outcome("aklight", 0, 90.0),
            outcome("redis streams", 0, 100.0),
            outcome("nats jetstream", 0, 300.0),
            outcome("aklight", 1, 180.0),
            outcome("redis streams", 1, 200.0),
        ];
        let results = Results::new(&outcomes);
        let row = ROWS.iter().find(|row| row.key == "single-cached").expect("the row");
        let verdict = results.verdict(row, &row.goals[0]).expect("figures");
        assert_eq!(verdict.against, Some("redis streams"));
        assert!((verdict.reached - 0.9).abs() < 1e-9 && verdict.is_met);
        assert!(results.verdict(row, &row.goals[1]).is_none());
    }

    #[test]
    fn every_goal_is_of_a_system_in_its_row() {
        for row in ROWS {
            for goal in row.goals {
                assert!(row.systems.contains(&goal.system), "{}", row.key);
                if let Target::Times(_, other) = goal.target {
                    assert!(row.systems.contains(&other), "{}", row.key);
                }
            }
        }
    }
}
