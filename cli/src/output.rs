//! What commands print: tables for people, JSON for programs, one way for all of them.
//!
//! Invariant: bytes that came from outside reach a terminal only through [`printable`], so that
//! no record can move the cursor or change a title. Left out: paging; `| less` does it.

use std::fmt::Write as _;
use std::io::{self, Write};

use aklight_common::client::Message;
use anstream::AutoStream;
use anstyle::{AnsiColor, Style};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

/// How a command prints what it found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns, for people.
    // Another name, so that one AKLIGHT_OUTPUT serves all commands.
    #[value(alias = "text")]
    Table,
    /// JSON, for programs.
    Json,
}

/// The flag that chooses.
#[derive(Debug, Clone, Args)]
pub struct OutputArgs {
    /// How to print: a table, or JSON
    #[arg(long, value_enum, env = "AKLIGHT_OUTPUT", default_value = "table")]
    pub output: Format,
}

/// Why nothing more can be printed.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The reader has gone, as `head` does when it has seen enough: no failure.
    #[error("nobody reads the output any more")]
    Closed,
    /// The output cannot be written.
    #[error("the output cannot be written: is the disk full?")]
    Failed(#[source] io::Error),
}

impl From<io::Error> for OutputError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Failed(error),
        }
    }
}

/// Standard output, in the format that was asked for.
pub struct Output {
    format: Format,
    stream: AutoStream<io::Stdout>,
    topic_width: usize,
}

impl Output {
    /// Prints to standard output; colours only where they are wanted.
    pub fn new(args: &OutputArgs) -> Self {
        let stream = anstream::stdout();
        Self { format: args.output, stream, topic_width: 0 }
    }

    /// The format asked for.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Prints a line.
    pub fn line(&mut self, line: &str) -> Result<(), OutputError> {
        writeln!(self.stream, "{line}")?;
        Ok(())
    }

    /// Prints one record: a line of a table that may go on for ever, or a JSON object.
    pub fn message(&mut self, message: &Message) -> Result<(), OutputError> {
        match self.format {
            Format::Json => self.line(&message_json(message).to_string()),
            Format::Table => {
                let topic = message.topic.as_str();
                self.topic_width = self.topic_width.max(topic.chars().count());
                let place = format!("p{}@{}", message.partition, message.offset);
                let style = Style::new().fg_color(Some(AnsiColor::Cyan.into()));
                let line = format!(
                    "{place:<10}  {style}{topic:<width$}{style:#}  {}  {}",
                    printable(&message.key),
                    printable(&message.payload),
                    width = self.topic_width,
                );
                self.line(&line)
            }
        }
    }

    /// Prints a whole table, or the JSON that says the same.
    pub fn table(
        &mut self,
        header: &[&str],
        rows: &[Vec<String>],
        json: &Value,
    ) -> Result<(), OutputError> {
        match self.format {
            Format::Json => self.line(&format!("{json:#}")),
            Format::Table => {
                let bold = Style::new().bold();
                for (n, line) in columns(header, rows).iter().enumerate() {
                    match n {
                        0 => self.line(&format!("{bold}{line}{bold:#}"))?,
                        _ => self.line(line)?,
                    }
                }
                Ok(())
            }
        }
    }
}

/// A record as JSON. Keys and payloads are texts where they are UTF-8, else arrays of bytes.
pub fn message_json(message: &Message) -> Value {
    json!({
        "topic": message.topic.as_str(),
        "partition": message.partition.get(),
        "offset": message.offset.get(),
        "key": bytes_json(&message.key),
        "payload": bytes_json(&message.payload),
    })
}

fn bytes_json(bytes: &[u8]) -> Value {
    std::str::from_utf8(bytes).map_or_else(|_| json!(bytes), |text| json!(text))
}

/// Bytes as a terminal may be shown them: control characters are spelled out.
pub fn printable(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for c in String::from_utf8_lossy(bytes).chars() {
        if c.is_control() {
            let _ = write!(shown, "{}", c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Rows under a header, each column as wide as its widest cell.
fn columns(header: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let width = |n: usize| {
        let cells = rows.iter().filter_map(|row| row.get(n)).map(|cell| cell.chars().count());
        cells.chain([header[n].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> =
            cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&mut header.iter().copied())];
    lines.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = vec![vec!["a".to_owned(), "1".to_owned()], vec!["long é".into(), "22".into()]];
        assert_eq!(columns(&["NAME", "N"], &rows), ["NAME    N", "a       1", "long é  22"]);
    }

    #[test]
    fn a_record_cannot_speak_to_the_terminal() {
        assert_eq!(printable(b"a\x1b[2Jb\n"), "a\\u{1b}[2Jb\\n");
        assert_eq!(printable("naïve ✓".as_bytes()), "naïve ✓");
    }

    #[test]
    fn bytes_that_are_no_text_stay_bytes() {
        assert_eq!(bytes_json(b"x"), json!("x"));
        assert_eq!(bytes_json(b"\xff\x00"), json!([255, 0]));
    }
}
