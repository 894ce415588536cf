//! A reader: it fetches and asks for ends, of any broker, at any time.

use std::collections::BTreeMap;

use aklight_common::{Offset, PartitionId};
use aklight_oracle::Event;

use super::Kit;
use super::connection::{Connection, Lost};

/// Reads for as long as the simulation goes on.
pub async fn read(mut kit: Kit) {
    let mut places = BTreeMap::new();
    loop {
        if let Some(mut connection) = Connection::to_any(&mut kit, None) {
            let _ = look_around(&mut kit, &mut connection, &mut places).await;
        }
        kit.pause_ms(20, 400).await;
    }
}

async fn look_around(
    kit: &mut Kit,
    connection: &mut Connection,
    places: &mut BTreeMap<PartitionId, Offset>,
) -> Result<(), Lost> {
    if kit.dice.once_in(2) {
        connection.fresh_ends(kit).await?;
    }
    for _ in 0..kit.dice.between(1, 10) {
        let Some(ends) = connection.ends(kit).await? else { return Ok(()) };
        for (partition, start, _) in ends {
            // Mostly on from the last place; sometimes from anywhere before it.
            let place = places.entry(partition).or_insert(start);
            if kit.dice.once_in(8) {
                *place = Offset(kit.dice.between(start.0, place.0.max(start.0)));
            }
            let (max, wait_ms) = (kit.dice.between(1, 200), kit.dice.below(3) * 100);
            let fetched = connection.fetch(partition, *place, max, wait_ms).await?;
            let Some(fetched) = fetched else { continue };
            for seen in fetched.seen {
                kit.teller.observe(&Event::Read(seen));
            }
            *place = fetched.next.unwrap_or(*place);
        }
        kit.pause_ms(5, 200).await;
    }
    Ok(())
}
