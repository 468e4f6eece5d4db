//! From CONNECT, and the certificate if there is one, to a client that the policy knows.

use std::sync::Arc;

use tern_protocol::limits::ID_MAX;

use super::frame::Connect;
use crate::password::{Passwords, equal};
use crate::policy::{Client, SERVICE};

/// How one listener learns who its clients are.
#[derive(Debug, Clone)]
pub(crate) enum Identify {
    /// Whatever they say.
    Open,
    /// By user and password.
    Password(Arc<Passwords>),
    /// By the certificate that the TLS layer verified.
    Certificate,
}

/// A return code of CONNACK that refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// 1: not MQTT 3.1.1.
    Protocol,
    /// 2: the client id is not one of ours, or not the one proven.
    Identifier,
    /// 3: no room, or no broker.
    Unavailable,
    /// 4: user or password.
    Credentials,
    /// 5: known, but not allowed to do what CONNECT asks.
    NotAuthorized,
}

impl Refusal {
    /// Returns the code (MQTT 3.1.1 table 3.1).
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Protocol => 1,
            Self::Identifier => 2,
            Self::Unavailable => 3,
            Self::Credentials => 4,
            Self::NotAuthorized => 5,
        }
    }
}

/// Works out who connects. `certificate` is the client that a verified certificate names.
///
/// May read the file of users, so call it where blocking is allowed.
pub(crate) fn identify(
    identify: &Identify,
    certificate: Option<Client>,
    service_password: &str,
    connect: &Connect,
) -> Result<Client, Refusal> {
    if connect.level != 4 {
        return Err(Refusal::Protocol);
    }
    let id = connect.client_id.as_str();
    // Also keeps `/ + # $` away from the broker, though it never sees client ids of ours.
    let shaped = !id.is_empty()
        && id.len() <= ID_MAX
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if !shaped {
        return Err(Refusal::Identifier);
    }
    let password = connect.password.as_deref().unwrap_or_default();
    if connect.user.as_deref() == Some(SERVICE) {
        let right = equal(password, service_password.as_bytes());
        return if right { Ok(Client::Service(id.to_owned())) } else { Err(Refusal::Credentials) };
    }
    let proven = match identify {
        Identify::Open => return id.parse().map(Client::Device).map_err(|_| Refusal::Identifier),
        Identify::Password(users) => connect
            .user
            .as_deref()
            .and_then(|user| users.check(user, password))
            .ok_or(Refusal::Credentials)?,
        Identify::Certificate => certificate.ok_or(Refusal::Credentials)?,
    };
    if proven.id() == id { Ok(proven) } else { Err(Refusal::Identifier) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "service-password";

    fn connect(id: &str, login: Option<(&str, &str)>) -> Connect {
        Connect {
            level: 4,
            client_id: id.into(),
            user: login.map(|l| l.0.into()),
            password: login.map(|l| l.1.into()),
            ..Connect::default()
        }
    }

    fn device(id: &str) -> Client {
        Client::Device(id.parse().unwrap())
    }

    #[test]
    fn the_service_proves_itself_on_every_listener() {
        for mode in [Identify::Open, Identify::Certificate] {
            let who = |password| identify(&mode, None, PASSWORD, &connect("tern", Some((SERVICE, password))));
            assert_eq!(who(PASSWORD), Ok(Client::Service("tern".into())));
            assert_eq!(who("guess"), Err(Refusal::Credentials));
        }
        assert_eq!(identify(&Identify::Open, None, PASSWORD, &connect("tern", None)), Ok(device("tern")));
    }

    #[test]
    fn a_certificate_speaks_for_its_own_id_only() {
        let who =
            |certificate, id| identify(&Identify::Certificate, certificate, PASSWORD, &connect(id, None));

        assert_eq!(who(Some(device("r-1")), "r-1"), Ok(device("r-1")));
        assert_eq!(who(Some(device("r-1")), "r-2"), Err(Refusal::Identifier));
        assert_eq!(who(None, "r-1"), Err(Refusal::Credentials));
    }

    #[test]
    fn client_ids_that_could_hurt_the_broker_are_refused() {
        for id in ["", "a/b", "a+", "#", "$SYS", "a~1", "x".repeat(65).as_str()] {
            assert_eq!(
                identify(&Identify::Open, None, PASSWORD, &connect(id, None)),
                Err(Refusal::Identifier),
                "{id}"
            );
        }
    }

    #[test]
    fn another_level_of_the_protocol_is_refused_as_such() {
        let connect = Connect { level: 5, ..Connect::default() };

        assert_eq!(identify(&Identify::Open, None, PASSWORD, &connect), Err(Refusal::Protocol));
    }
}
