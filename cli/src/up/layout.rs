//! Which brokers `up` keeps, and where: their numbers, ports and folders.
//!
//! ```text
//!             clients  HTTP  brokers  folder
//!  broker1       7000  7070     7090  DIR/data/broker1
//!  broker2       7001  7071     7091  DIR/data/broker2
//!  a cluster of one, as the first version made it:  DIR/data
//! ```
//!
//! Invariant: a folder goes on as what it was. A cluster of one does not become one of three
//! because the default is three, and one of three is not asked for records with one broker up.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// HTTP stands this far above the line protocol: 7000 and 7070, 7001 and 7071.
const HTTP_ABOVE: u16 = 70;

/// And what brokers say to each other, this far.
const PEER_ABOVE: u16 = 90;

/// Brokers of a new cluster: the fewest of which one may die.
const BROKERS_DEFAULT: usize = 3;

/// Most brokers: five may lose two, and nobody needs more on one machine.
const BROKERS_MAX: usize = 5;

/// The highest port that leaves room for those above it.
pub const PORT_MAX: u16 = u16::MAX - PEER_ABOVE - (BROKERS_MAX as u16 - 1);

/// A file that every folder of a broker has.
const IDENTITY: &str = "broker.json";

/// The brokers, and what is to be said about them.
#[derive(Debug)]
pub struct Layout {
    /// Each with its places.
    pub brokers: Vec<Broker>,
    /// Why there are so many, where somebody may wonder.
    pub remark: Option<String>,
}

/// The places of one broker.
#[derive(Debug)]
pub struct Broker {
    /// Its number.
    pub id: usize,
    /// Where clients reach it.
    pub line: SocketAddr,
    http: SocketAddr,
    peer: SocketAddr,
    data: PathBuf,
}

/// Reads a number of brokers.
pub fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ (1 | 3 | 5)) => Ok(count),
        _ => {
            Err("write 1, 3 or 5: an even number of brokers survives no more than one less".into())
        }
    }
}

impl Layout {
    /// What the folder holds goes on; an empty one gets as many brokers as are wanted.
    pub fn new(dir: &Path, port: u16, wanted: Option<usize>) -> anyhow::Result<Self> {
        let data = dir.join("data");
        let place = |id: usize, data: PathBuf| Broker::new(id, port, data);
        if data.join(IDENTITY).exists() {
            refuse_other(&data, 1, wanted)?;
            let remark = wanted.is_none().then(|| {
                format!(
                    "{} holds a cluster of one broker, and goes on as one; for {BROKERS_DEFAULT} \
                     brokers begin anew with another --dir",
                    data.display()
                )
            });
            return Ok(Self { brokers: vec![place(1, data)], remark });
        }
        let folder = |id: usize| data.join(format!("broker{id}"));
        let highest = (1..=BROKERS_MAX).rev().find(|id| folder(*id).join(IDENTITY).exists());
        let count = match highest {
            // One whose folder is lost is started all the same: it says itself what to do.
            Some(highest) => {
                let held = highest + usize::from(highest % 2 == 0);
                refuse_other(&data, held, wanted)?;
                held
            }
            None => wanted.unwrap_or(BROKERS_DEFAULT),
        };
        let brokers = (1..=count).map(|id| place(id, folder(id))).collect();
        Ok(Self { brokers, remark: None })
    }

    /// Asked before the brokers do, because who answers there would be taken for one of ours.
    pub fn check_ports_are_free(&self) -> anyhow::Result<()> {
        let mut held = Vec::new();
        for broker in &self.brokers {
            for address in broker.listens(self.is_alone()) {
                match TcpListener::bind(address) {
                    Ok(listener) => held.push(listener),
                    Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
                        "port {}, which broker{} would need, is taken: does another `aklight up` \
                         run? End it, or choose other ports with --port",
                        address.port(),
                        broker.id
                    ),
                    Err(error) => {
                        return Err(error)
                            .with_context(|| format!("{address} cannot be listened on"));
                    }
                }
            }
        }
        Ok(())
    }

    /// All addresses for clients, as `--brokers` takes them.
    pub fn for_clients(&self) -> String {
        join(self.brokers.iter().map(|broker| broker.line.to_string()))
    }

    /// All addresses for HTTP, as `--http` takes them.
    pub fn for_http(&self) -> String {
        join(self.brokers.iter().map(|broker| broker.http.to_string()))
    }

    /// The command line of one of them.
    pub fn command_of(&self, broker: &Broker) -> Vec<String> {
        let mut command = vec![
            "broker".to_owned(),
            format!("--node-id={}", broker.id),
            format!("--data-dir={}", broker.data.to_string_lossy()),
            format!("--listen={}", broker.line),
            format!("--listen-http={}", broker.http),
        ];
        if !self.is_alone() {
            let peers = self.brokers.iter().map(|peer| format!("{}@{}", peer.id, peer.peer));
            command.push(format!("--listen-peer={}", broker.peer));
            command.push(format!("--peers={}", join(peers)));
        }
        command
    }

    fn is_alone(&self) -> bool {
        self.brokers.len() == 1
    }
}

impl Broker {
    fn new(id: usize, port: u16, data: PathBuf) -> Self {
        let above = u16::try_from(id - 1).unwrap_or(u16::MAX);
        let at = |step: u16| {
            SocketAddr::from((Ipv4Addr::LOCALHOST, port.saturating_add(above).saturating_add(step)))
        };
        Self { id, line: at(0), http: at(HTTP_ABOVE), peer: at(PEER_ABOVE), data }
    }

    fn listens(&self, alone: bool) -> impl Iterator<Item = SocketAddr> {
        [self.line, self.http].into_iter().chain((!alone).then_some(self.peer))
    }
}

fn refuse_other(data: &Path, held: usize, wanted: Option<usize>) -> anyhow::Result<()> {
    match wanted {
        Some(wanted) if wanted != held => bail!(
            "{} holds a cluster of {held}: start it with --brokers {held}, or begin one of \
             {wanted} with another --dir",
            data.display()
        ),
        _ => Ok(()),
    }
}

fn join(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder that holds these brokers' folders; an empty name is the old form.
    fn holding(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a folder");
        for name in names {
            let folder = dir.path().join("data").join(name);
            std::fs::create_dir_all(&folder).expect("made");
            std::fs::write(folder.join(IDENTITY), "{}").expect("written");
        }
        dir
    }

    fn brokers(names: &[&str], wanted: Option<usize>) -> Result<usize, String> {
        let dir = holding(names);
        let layout = Layout::new(dir.path(), 7000, wanted).map_err(|error| error.to_string())?;
        Ok(layout.brokers.len())
    }

    #[test]
    fn an_empty_folder_gets_three_or_as_many_as_are_wanted() {
        assert_eq!((brokers(&[], None), brokers(&[], Some(1))), (Ok(3), Ok(1)));
        assert_eq!(brokers(&[], Some(5)), Ok(5));
        assert!(["0", "2", "4", "7", "x"].iter().all(|text| count(text).is_err()));
        assert_eq!(count("3"), Ok(3));
    }

    #[test]
    fn a_folder_goes_on_as_what_it_was() {
        assert_eq!((brokers(&[""], None), brokers(&[""], Some(1))), (Ok(1), Ok(1)));
        assert!(brokers(&[""], Some(3)).expect_err("refused").contains("--brokers 1"));
        let three = ["broker1", "broker2", "broker3"];
        assert_eq!((brokers(&three, None), brokers(&three, Some(3))), (Ok(3), Ok(3)));
        assert!(brokers(&three, Some(5)).expect_err("refused").contains("--brokers 3"));
        assert_eq!(brokers(&["broker1", "broker2"], None), Ok(3), "the third is lost");
        assert_eq!(brokers(&["broker1"], None), Ok(1));
        let old = holding(&[""]);
        let layout = Layout::new(old.path(), 7000, None).expect("goes on");
        assert!(layout.remark.expect("said").contains("goes on as one"));
        assert_eq!(layout.brokers[0].data, old.path().join("data"));
    }

    #[test]
    fn each_broker_has_ports_and_a_folder_of_its_own() {
        let layout = Layout::new(Path::new("/x"), 7000, Some(3)).expect("a layout");
        assert_eq!(layout.for_clients(), "127.0.0.1:7000,127.0.0.1:7001,127.0.0.1:7002");
        let command = layout.command_of(&layout.brokers[1]).join(" ");
        assert_eq!(
            command,
            "broker --node-id=2 --data-dir=/x/data/broker2 --listen=127.0.0.1:7001 \
             --listen-http=127.0.0.1:7071 --listen-peer=127.0.0.1:7091 \
             --peers=1@127.0.0.1:7090,2@127.0.0.1:7091,3@127.0.0.1:7092"
        );
        let alone = Layout::new(Path::new("/x"), 7000, Some(1)).expect("a layout");
        let command = alone.command_of(&alone.brokers[0]).join(" ");
        assert!(!command.contains("peer"), "{command}");
        let last = Broker::new(BROKERS_MAX, PORT_MAX, PathBuf::new());
        assert_eq!(last.peer.port(), u16::MAX);
    }
}
