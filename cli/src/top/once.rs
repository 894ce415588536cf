//! `aklight top --once`: the list, once, as plain text or JSON: for scripts, and where there is no
//! terminal.

use serde_json::{Value, json};

use super::app::App;
use super::ask::{Answer, newest};
use super::container::Flow;
use super::figures::{bytes, duration, percent};
use super::rows::{Column, Row, Sort};
use crate::connect::BrokerListArgs;
use crate::output::{Format, Output, OutputArgs};

/// The headings of the table.
const HEADER: [&str; 11] = [
    "NAME",
    "HOST",
    "STATE",
    "CPU %",
    "MEM USAGE / LIMIT",
    "MEM %",
    "NET I/O /S",
    "DISK I/O /S",
    "PIDS",
    "RESTARTS",
    "UPTIME",
];

/// Prints it.
pub async fn print(
    mut app: App,
    brokers: &BrokerListArgs,
    output: &OutputArgs,
) -> anyhow::Result<()> {
    let mut client = brokers.connect().await?;
    app.answered(Answer::Stored(newest(&mut client).await?));
    client.quit().await?;
    app.sort = Sort { column: Column::Name, reversed: false };
    let rows = app.rows();
    let mut output = Output::new(output);
    let texts: Vec<Vec<String>> = rows.iter().map(texts).collect();
    let values: Vec<Value> = rows.iter().map(value).collect();
    output.table(&HEADER, &texts, &values.into())?;
    if rows.is_empty() && output.format() == Format::Table {
        anstream::eprintln!(
            "no container is listed: `aklight producer` measures a machine with its containers"
        );
    }
    Ok(())
}

fn texts(row: &Row<'_>) -> Vec<String> {
    let usage = &row.container.usage;
    let running =
        |text: Option<String>| text.filter(|_| row.is_running()).unwrap_or_else(|| "-".to_owned());
    let pair = |flow: &Flow| format!("{} / {}", bytes(flow.into), bytes(flow.out));
    let memory = usage.memory.get();
    vec![
        row.name.clone(),
        row.key.producer.clone(),
        row.status.clone(),
        running(usage.cpu.get().map(|cpu| format!("{}%", percent(cpu.percent)))),
        running(memory.map(|m| format!("{} / {}", bytes(m.bytes), bytes(m.limit_bytes)))),
        running(memory.map(|memory| format!("{}%", percent(memory.percent)))),
        running(usage.network.get().map(pair)),
        running(usage.disk.get().map(pair)),
        running(row.container.pids.get().map(|(count, _)| count.to_string())),
        row.container.restarts.get().map_or_else(|| "-".to_owned(), u64::to_string),
        running(row.uptime_ms.map(duration)),
    ]
}

/// The same for programs: what is not known, or of no container that runs, is null.
fn value(row: &Row<'_>) -> Value {
    let container = row.container;
    let usage = &container.usage;
    let state = container.state.get();
    let info = container.info();
    let cpu = usage.cpu.get().filter(|_| row.is_running());
    let memory = usage.memory.get().filter(|_| row.is_running());
    let network = usage.network.get().filter(|_| row.is_running());
    let disk = usage.disk.get().filter(|_| row.is_running());
    json!({
        "name": row.name,
        "host": row.key.producer,
        "image": info.map(|info| &info.image),
        "id": info.map(|info| &info.id),
        "state": state.map(|state| &state.word),
        "health": state.map(|state| &state.health),
        "exit_code": state.map(|state| state.exit_code),
        "oom_killed": state.map(|state| state.oom_killed),
        "silent": row.stale,
        "alerts_firing": row.alerts,
        "cpu_percent": cpu.map(|cpu| cpu.percent),
        "memory_percent": memory.map(|memory| memory.percent),
        "memory_bytes": memory.map(|memory| memory.bytes),
        "memory_limit_bytes": memory.map(|memory| memory.limit_bytes),
        "rx_bytes_s": network.map(|flow| flow.into),
        "tx_bytes_s": network.map(|flow| flow.out),
        "read_bytes_s": disk.map(|flow| flow.into),
        "written_bytes_s": disk.map(|flow| flow.out),
        "pids": container.pids.get().filter(|_| row.is_running()).map(|(count, _)| count),
        "restarts": container.restarts.get(),
        "uptime_seconds": row.uptime_ms.map(|ms| ms / 1000),
    })
}
