//! What the broker counts of itself. Clones count together.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters and gauges, as `/metrics` shows them (each with the prefix `aklight_`).
#[derive(Debug, Clone, Default)]
pub struct Stats {
    /// Records acknowledged to producers.
    pub records_stored: Counter,
    /// Bytes of lines read from clients.
    pub bytes_received: Counter,
    /// Records pushed to subscribers.
    pub records_pushed: Counter,
    /// Commands answered with ERR.
    pub commands_refused: Counter,
    /// Connections open now.
    pub connections: Gauge,
    /// Connections refused at the limit.
    pub connections_refused: Counter,
    /// Clients cut off because they did not read.
    pub clients_cut_off: Counter,
}

impl Stats {
    /// Puts all of them into a registry.
    pub fn register(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        counter("records_stored", "Records acknowledged to producers", &self.records_stored);
        counter("received_bytes", "Bytes of lines read from clients", &self.bytes_received);
        counter("records_pushed", "Records pushed to subscribers", &self.records_pushed);
        counter("commands_refused", "Commands answered with ERR", &self.commands_refused);
        counter(
            "connections_refused",
            "Connections refused because the limit was reached",
            &self.connections_refused,
        );
        counter(
            "clients_cut_off",
            "Clients cut off because they took no byte for too long",
            &self.clients_cut_off,
        );
        registry.register("connections", "Connections open now", self.connections.clone());
    }
}
