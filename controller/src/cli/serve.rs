//! Arguments of `tern serve`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

const AFTER: &str = "\
Without a configuration it brings everything along: a store in the data folder, a broker, and the API.
At its first start it writes an admin token into admin.token in the data folder, for its own user alone to read.

Examples:
  tern serve
  tern serve --data /var/lib/tern --config /etc/tern/tern.toml
  tern serve --broker mqtt://mqtt.example.net:1883 --broker-user service --broker-password-file /run/secrets/mqtt";

/// What `tern serve` was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeArgs {
    /// Data folder.
    pub data: Option<PathBuf>,
    /// Where the API listens.
    pub listen_api: Option<SocketAddr>,
    /// Where the embedded broker listens.
    pub listen_mqtt: Option<SocketAddr>,
    /// An external broker instead of the embedded one.
    pub broker: Option<String>,
    /// User at that broker.
    pub broker_user: Option<String>,
    /// File that holds the password at that broker.
    pub broker_password_file: Option<PathBuf>,
    /// Configuration file.
    pub config: Option<PathBuf>,
    /// Write a new admin token into the data folder.
    pub new_admin_token: bool,
    /// The API may listen on other than loopback addresses.
    pub insecure_api_without_tls: bool,
}

#[derive(Debug, Args)]
#[command(after_help = AFTER)]
pub(super) struct Flags {
    /// Keep everything in this folder [default: ./tern-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Serve the API and /metrics here, on loopback [default: 127.0.0.1:7880]
    #[arg(long, value_name = "ADDR")]
    listen_api: Option<SocketAddr>,
    /// Let devices connect to the embedded broker here; a loopback address, see the configuration for others
    /// [default: 127.0.0.1:1883]
    #[arg(long, value_name = "ADDR")]
    listen_mqtt: Option<SocketAddr>,
    /// Use an external broker instead of the embedded one
    #[arg(long, value_name = "mqtt://HOST:PORT", conflicts_with = "listen_mqtt")]
    broker: Option<String>,
    /// Log in to the external broker as this user
    #[arg(long, value_name = "USER", requires = "broker")]
    broker_user: Option<String>,
    /// Read the password for the external broker from this file
    #[arg(long, value_name = "FILE", requires = "broker")]
    broker_password_file: Option<PathBuf>,
    /// Read the configuration from this file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write a new admin token into admin.token in the data folder, because every other is lost
    #[arg(long)]
    new_admin_token: bool,
}

impl Flags {
    pub(super) fn args(self, insecure_api_without_tls: bool) -> ServeArgs {
        let Self {
            data,
            listen_api,
            listen_mqtt,
            broker,
            broker_user,
            broker_password_file,
            config,
            new_admin_token,
        } = self;
        ServeArgs {
            data,
            listen_api,
            listen_mqtt,
            broker,
            broker_user,
            broker_password_file,
            config,
            new_admin_token,
            insecure_api_without_tls,
        }
    }
}
