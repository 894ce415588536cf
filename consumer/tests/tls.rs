//! A mail server and a webhook behind TLS, on loopback: the consumer as a process, which is told by
//! its environment whom to believe.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/certificate.rs"]
mod certificate;
#[path = "support/mail.rs"]
mod mail;
mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use certificate::{Certificate, certificate};
use mail::{Line, MailServer, Manners};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use support::{Consumer, FakeBroker, now_ms, until};

const RULES: &str = r#"
[[rule]]
name = "hot"
match = "metrics/docker/+/cpu"
fire = "> 80"
notify = ["email", "webhook"]
"#;

/// A mail server's address, as a user writes it, from how it protects the line.
type Address = fn(SocketAddr) -> String;

const TLS: Address = |at| format!("smtps://localhost:{}", at.port());
const STARTTLS: Address = |at| format!("smtp://localhost:{}?tls=required", at.port());

/// A consumer that has something to tell, and believes the authority of `pem`.
async fn alarmed(folder: &Path, pem: &str, channel: &[(&str, &str)]) -> Consumer {
    let (rules, roots) = (folder.join("rules.toml"), folder.join("roots.pem"));
    std::fs::write(&rules, RULES).expect("written");
    std::fs::write(&roots, pem).expect("written");
    let broker = FakeBroker::start();
    let mut env = vec![("SSL_CERT_FILE", roots.to_str().expect("text"))];
    env.extend(channel);
    let args = ["--group-wait", "0s", "--rules", rules.to_str().expect("text")];
    let consumer = Consumer::start(&broker, &folder.join("offsets"), &args, &env);
    until("registered", || broker.log().registrations > 0).await;
    broker.sample("web", now_ms(), 90.0);
    consumer
}

fn mailing(url: &str) -> [(&str, &str); 3] {
    [
        ("AKLIGHT_SMTP_URL", url),
        ("AKLIGHT_SMTP_FROM", "alerts@example.org"),
        ("AKLIGHT_SMTP_TO", "anna@example.org"),
    ]
}

fn lines(certificate: &Certificate) -> [(Address, Line); 2] {
    let config = || Arc::clone(&certificate.config);
    [(TLS, Line::Tls(config())), (STARTTLS, Line::StartTls(config()))]
}

#[tokio::test]
async fn mail_goes_through_tls_and_starttls_to_a_server_of_the_users_own_authority() {
    let certificate = certificate();
    for (address, line) in lines(&certificate) {
        let folder = tempfile::tempdir().expect("a folder");
        let server = MailServer::start(Manners { line, ..Manners::default() });
        let url = address(server.address);
        let consumer = alarmed(folder.path(), &certificate.pem, &mailing(&url)).await;
        until(&format!("a mail by {url}: {}", consumer.log()), || !server.mails().is_empty()).await;
        assert!(server.mails()[0].contains("FIRING"), "{:?}", server.mails());
    }
}

#[tokio::test]
async fn a_mail_server_that_nobody_vouches_for_gets_no_mail_and_it_says_what_to_do() {
    let (mine, other) = (certificate(), certificate());
    for (address, line) in lines(&other) {
        let folder = tempfile::tempdir().expect("a folder");
        let server = MailServer::start(Manners { line, ..Manners::default() });
        let url = address(server.address);
        let consumer = alarmed(folder.path(), &mine.pem, &mailing(&url)).await;
        consumer.until_line("the mail server shows a certificate that is not trusted").await;
        assert_eq!(consumer.count("SSL_CERT_FILE"), 1, "{:?}", consumer.lines());
        // The console tells what nobody else does.
        consumer.until_line("*** THRESHOLD EXCEEDED ***").await;
        assert!(server.mails().is_empty());
    }
}

/// Whoever takes STARTTLS out of the conversation does not get to read the mail.
#[tokio::test]
async fn a_mail_that_needs_starttls_does_not_go_without_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = MailServer::start(Manners::default());
    let url = STARTTLS(server.address);
    let consumer = alarmed(folder.path(), &certificate().pem, &mailing(&url)).await;
    consumer.until_line("STARTTLS is not supported").await;
    assert!(server.mails().is_empty());
}

#[tokio::test]
async fn a_webhook_is_believed_by_the_same_authority_and_no_other() {
    let (mine, other) = (certificate(), certificate());
    for (pem, believed) in [(&mine.pem, true), (&other.pem, false)] {
        let folder = tempfile::tempdir().expect("a folder");
        let (address, posts) = hook(Arc::clone(&mine.config));
        let url = format!("https://localhost:{}/geheim", address.port());
        let channel = [("AKLIGHT_WEBHOOK_URL", url.as_str())];
        let consumer = alarmed(folder.path(), pem, &channel).await;
        if believed {
            until("a post", || posts.load(Ordering::SeqCst) > 0).await;
        } else {
            consumer.until_line("the webhook shows a certificate that is not trusted").await;
            assert_eq!(posts.load(Ordering::SeqCst), 0);
        }
    }
}

/// Roots that cannot be read are a mistake that is told at the start, and not with the first alert.
#[tokio::test]
async fn authorities_that_cannot_be_read_are_named_at_the_start() {
    let folder = tempfile::tempdir().expect("a folder");
    let env = [("SSL_CERT_FILE", "/nowhere/roots.pem"), ("AKLIGHT_WEBHOOK_URL", "https://h/")];
    let env = [&env[..], &mailing("smtps://h")].concat();
    let broker = FakeBroker::start();
    let (status, _, log) = Consumer::start(&broker, folder.path(), &[], &env).ended();
    assert!(!status.success());
    for part in ["cannot set up TLS for the mail server", "cannot set up HTTPS", "SSL_CERT_FILE"] {
        assert!(log.contains(part), "{part}: {log}");
    }
}

/// A webhook behind TLS, and how many POSTs it took.
fn hook(config: Arc<ServerConfig>) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let posts = Arc::new(AtomicUsize::new(0));
    let taken = Arc::clone(&posts);
    std::thread::spawn(move || {
        for tcp in listener.incoming().flatten() {
            let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
            if answer(BufReader::new(StreamOwned::new(connection, tcp))).is_some() {
                taken.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    (address, posts)
}

/// One POST.
fn answer(mut stream: BufReader<impl Read + Write>) -> Option<()> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok().filter(|read| *read > 0)?;
        if let Some(text) = line.to_lowercase().strip_prefix("content-length:") {
            length = text.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
    }
    stream.read_exact(&mut vec![0; length]).ok()?;
    let ok = b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
    stream.get_mut().write_all(ok).and_then(|()| stream.get_mut().flush()).ok()
}
