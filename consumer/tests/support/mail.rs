//! A mail server of our own, as much of RFC 5321 as a mail needs; with TLS where that is wanted.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// How a server behaves.
#[derive(Default)]
pub struct Manners {
    /// What it answers to the ends of mails, one each, then 250.
    pub answers: Vec<&'static str>,
    /// Whom it does not know.
    pub refused: &'static str,
    /// How many connections it takes without ever saying a word.
    pub silent: usize,
    pub line: Line,
}

/// How the line is protected.
#[derive(Default)]
pub enum Line {
    #[default]
    Plain,
    /// TLS from the beginning.
    Tls(Arc<ServerConfig>),
    /// TLS after STARTTLS, and no mail before it.
    StartTls(Arc<ServerConfig>),
}

/// The server, and the mails that it was given: envelope and text.
#[derive(Clone)]
pub struct MailServer {
    pub address: SocketAddr,
    mails: Arc<Mutex<Vec<String>>>,
}

impl MailServer {
    pub fn start(mut manners: Manners) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = Self { address, mails: Arc::default() };
        manners.answers.reverse();
        let answers = Arc::new(Mutex::new(std::mem::take(&mut manners.answers)));
        let (manners, mails) = (Arc::new(manners), Arc::clone(&server.mails));
        std::thread::spawn(move || {
            let mut unanswered = Vec::new();
            for stream in listener.incoming().flatten() {
                if unanswered.len() < manners.silent {
                    unanswered.push(stream);
                    continue;
                }
                let (manners, answers) = (Arc::clone(&manners), Arc::clone(&answers));
                let mails = Arc::clone(&mails);
                std::thread::spawn(move || converse(stream, &manners, &answers, &mails));
            }
        });
        server
    }

    pub fn mails(&self) -> Vec<String> {
        self.mails.lock().expect("a lock").clone()
    }
}

trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

fn protected(tcp: &TcpStream, config: &Arc<ServerConfig>) -> Option<Box<dyn Stream>> {
    let connection = ServerConnection::new(Arc::clone(config)).ok()?;
    Some(Box::new(StreamOwned::new(connection, tcp.try_clone().ok()?)))
}

/// Ends when the client does.
fn converse(
    tcp: TcpStream,
    manners: &Manners,
    answers: &Mutex<Vec<&'static str>>,
    mails: &Mutex<Vec<String>>,
) -> Option<()> {
    let stream = match &manners.line {
        Line::Tls(config) => protected(&tcp, config)?,
        Line::Plain | Line::StartTls(_) => Box::new(tcp.try_clone().ok()?),
    };
    let mut talk = Talk(BufReader::new(stream));
    let mut wants_tls = matches!(manners.line, Line::StartTls(_));
    talk.say("220 mail.test ESMTP")?;
    let mut envelope = String::new();
    loop {
        let line = talk.hear()?;
        match line.get(..4).unwrap_or_default().to_uppercase().as_str() {
            "EHLO" | "HELO" if wants_tls => talk.say("250-mail.test\r\n250 STARTTLS")?,
            "EHLO" | "HELO" => talk.say("250 mail.test")?,
            "STAR" => {
                talk.say("220 go on")?;
                let Line::StartTls(config) = &manners.line else { return None };
                talk = Talk(BufReader::new(protected(&tcp, config)?));
                wants_tls = false;
            }
            "MAIL" | "RCPT" if wants_tls => talk.say("530 STARTTLS first")?,
            "RCPT" if !manners.refused.is_empty() && line.contains(manners.refused) => {
                talk.say("550 5.1.1 no such user")?;
            }
            "MAIL" | "RCPT" => {
                envelope = format!("{envelope}{line}\n");
                talk.say("250 ok")?;
            }
            "DATA" => {
                talk.say("354 go on")?;
                let mut mail = std::mem::take(&mut envelope);
                loop {
                    match talk.hear()?.as_str() {
                        "." => break,
                        line => mail = format!("{mail}{line}\n"),
                    }
                }
                mails.lock().expect("a lock").push(mail);
                let answer = answers.lock().expect("a lock").pop();
                talk.say(answer.unwrap_or("250 taken"))?;
            }
            "QUIT" => talk.say("221 bye")?,
            _ => talk.say("250 ok")?,
        }
    }
}

struct Talk(BufReader<Box<dyn Stream>>);

impl Talk {
    fn say(&mut self, line: &str) -> Option<()> {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes()).ok()
    }

    fn hear(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(1..) => Some(line.trim_end().to_owned()),
            Ok(0) | Err(_) => None,
        }
    }
}
