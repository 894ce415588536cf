//! A connection for the async forms of the client.

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::config::ClientConfig;
use super::socket;

/// Connects to one broker; its name is resolved anew, and all its addresses are tried.
///
/// # Errors
/// The reason, for people.
pub(crate) async fn dial(config: &ClientConfig, broker: &str) -> Result<TcpStream, String> {
    let stream = match timeout(config.connect_timeout, TcpStream::connect(broker)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return Err(plain(&error)),
        Err(_) => return Err(format!("no connection within {:?}", config.connect_timeout)),
    };
    socket::configure(&SockRef::from(&stream), config.request_timeout)
        .map_err(|error| format!("the socket cannot be set up: {error}"))?;
    Ok(stream)
}

/// An error of the system without its number.
pub(super) fn plain(error: &std::io::Error) -> String {
    let text = error.to_string();
    let cut = text.find(" (os error").unwrap_or(text.len());
    text[..cut].to_lowercase()
}
