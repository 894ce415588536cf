//! What a record costs in instructions and allocations, as a table.

use std::fmt::Write as _;

use super::number::shown;
use crate::counts::{ALLOCATIONS_MAX, Cost, INSTRUCTIONS_MAX, Spent};

/// The table, with what both sides together are to stay under.
pub fn table(costs: &[Cost]) -> String {
    let mut out = format!(
        "| work | instructions a record, server + client | ≤ {} | allocations a record, server + client | ≤ {ALLOCATIONS_MAX} |\n|---|---|---|---|---|\n",
        shown(INSTRUCTIONS_MAX)
    );
    for Cost { title, server, client } in costs {
        let instructions = |spent: &Spent| (spent.instructions, shown(spent.instructions));
        let allocations = |spent: &Spent| (spent.allocations, format!("{:.4}", spent.allocations));
        let _ = write!(out, "| {title} |");
        for (server, client, most) in [
            (instructions(server), instructions(client), INSTRUCTIONS_MAX),
            (allocations(server), allocations(client), ALLOCATIONS_MAX),
        ] {
            let mark = if server.0 + client.0 <= most { "met" } else { "**missed**" };
            let _ = write!(out, " {} + {} | {mark} |", server.1, client.1);
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_together_are_held_against_the_limit() {
        let spent = |instructions, allocations| Spent { instructions, allocations };
        let met = Cost { title: "a", server: spent(1_400.0, 0.009), client: spent(99.0, 0.0) };
        let missed =
            Cost { title: "b", server: spent(1_400.0, 0.009), client: spent(101.0, 0.002) };
        let text = table(&[met, missed]);
        let rows: Vec<_> = text.lines().skip(2).collect();
        assert_eq!(rows[0], "| a | 1,400 + 99.0 | met | 0.0090 + 0.0000 | met |");
        assert_eq!(rows[1], "| b | 1,400 + 101 | **missed** | 0.0090 + 0.0020 | **missed** |");
    }
}
