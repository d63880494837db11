//! Addresses to listen on.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

use super::{Problem, Setting};
use crate::config::entry::Rule;

/// A host name or IP address and a port; port 0 lets the kernel pick a free one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenAddr {
    /// The host as given, an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl ListenAddr {
    /// The socket address to bind: the first that the host name stands for. May ask the system's resolver.
    ///
    /// # Errors
    /// What the resolver says, or `NotFound` when the name stands for no address.
    pub fn resolve(&self) -> io::Result<SocketAddr> {
        (self.host.as_str(), self.port).to_socket_addrs()?.next().ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, format!("host '{}' has no address", self.host))
        })
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Setting for ListenAddr {
    fn read(_rule: &Rule, text: &str) -> Result<Self, Problem> {
        let problem = || Problem::new("Expected HOST:PORT, such as 127.0.0.1:9092 or [::1]:9092");
        let (host, port) = text.rsplit_once(':').ok_or_else(problem)?;
        let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if bracketed.is_none() && host.contains([':', '[', ']']) {
            return Err(problem());
        }
        let host = bracketed.unwrap_or(host);
        if host.is_empty() || host.contains(char::is_whitespace) || host.contains('/') {
            return Err(problem());
        }
        let port = port
            .parse::<u16>()
            .map_err(|_| Problem(format!("The port must be a number from 0 to 65535, not '{port}'")))?;
        Ok(ListenAddr { host: host.to_owned(), port })
    }

    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

/// An address to listen on, or `off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OptionalAddr {
    /// The door stays shut.
    Off,
    /// The door opens here.
    On(ListenAddr),
}

impl OptionalAddr {
    /// The address, if the door is to open.
    pub fn get(&self) -> Option<&ListenAddr> {
        match self {
            OptionalAddr::Off => None,
            OptionalAddr::On(addr) => Some(addr),
        }
    }
}

impl Setting for OptionalAddr {
    // A default address that is taken is skipped with a word; one that was asked for is an error.
    const PRESENCE_MATTERS: bool = true;

    fn read(rule: &Rule, text: &str) -> Result<Self, Problem> {
        if text == "off" {
            return Ok(OptionalAddr::Off);
        }
        ListenAddr::read(rule, text)
            .map(OptionalAddr::On)
            .map_err(|problem| Problem(format!("{problem}; write off for none")))
    }

    fn show(&self) -> Option<String> {
        Some(match self {
            OptionalAddr::Off => "off".to_owned(),
            OptionalAddr::On(addr) => addr.to_string(),
        })
    }
}
