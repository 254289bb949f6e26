//! From the first byte to the first ReadyForQuery: encryption requests, cancel requests, authentication.
//!
//! SSLRequest and GSSENCRequest are answered with N (TLS is a later chapter); either may follow the other. A role with a password proves it by SCRAM-SHA-256; without one it is
//! trusted on loopback, the only place a server without a password listens.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::BufMut;
use pgbee_sql::SqlError;
use pgbee_sql::error::state;
use pgbee_sql::session::{ConnectOptions, Instance};
use pgwire::api::DefaultClient;
use pgwire::api::auth::mechanism::{AuthMechanismFactory, AuthState};
use pgwire::api::auth::sasl::scram::{ScramAuth, ScramSecret};
use pgwire::api::auth::{AuthSource, LoginInfo, Password};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::startup::{Authentication, BackendKeyData, ParameterStatus, SecretKey, Startup};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage, SslNegotiationMetaMessage};

use super::connection::Connection;
use super::query::Client;
use super::{Clients, Place, Stopping, encode};
use crate::password;

/// Who has not authenticated by then is dropped. Source: PostgreSQL's authentication_timeout.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(60);

/// Leads a connection to a session; None when it ended before (a cancel request, a refusal).
///
/// # Errors
/// The socket broke, or the client took too long.
pub async fn start(
    mut connection: Connection,
    instance: Arc<Instance>,
    clients: Arc<Clients>,
) -> io::Result<Option<Client>> {
    let greeting = greet(&mut connection, instance, clients);
    match tokio::time::timeout(STARTUP_TIMEOUT, greeting).await {
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no startup within a minute")),
        Ok(Err(Refusal::Broken(error))) => Err(error),
        Ok(Err(Refusal::Told(error))) => {
            connection.put(encode::error_response("FATAL", &error));
            connection.flush().await?;
            Ok(None)
        }
        Ok(Ok(None)) => Ok(None),
        Ok(Ok(Some((session, place)))) => {
            connection.flush().await?;
            Ok(Some(Client::new(connection, session, place)))
        }
    }
}

/// Why no session came of it.
enum Refusal {
    /// The client is told.
    Told(SqlError),
    /// There is nobody to tell.
    Broken(io::Error),
}
impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Refusal::Broken(error)
    }
}
impl From<SqlError> for Refusal {
    fn from(error: SqlError) -> Self {
        Refusal::Told(error)
    }
}

type Greeted = Option<(pgbee_sql::session::Session, Place)>;

async fn greet(
    connection: &mut Connection,
    instance: Arc<Instance>,
    clients: Arc<Clients>,
) -> Result<Greeted, Refusal> {
    let startup = loop {
        match connection.next_startup_packet()? {
            None if connection.read_some().await? => {}
            None => return Ok(None),
            Some(PgWireFrontendMessage::SslNegotiation(
                SslNegotiationMetaMessage::PostgresSsl(_) | SslNegotiationMetaMessage::PostgresGss(_),
            )) => {
                connection.out.put_u8(b'N');
                connection.flush().await?;
            }
            Some(PgWireFrontendMessage::CancelRequest(cancel)) => {
                if let Some(secret) = cancel.secret_key.as_i32() {
                    clients.cancel(cancel.pid, secret as u32);
                }
                return Ok(None);
            }
            Some(PgWireFrontendMessage::Startup(startup)) => break startup,
            Some(_) => return Err(SqlError::new(state::PROTOCOL_VIOLATION, "expected a startup packet").into()),
        }
    };
    negotiate_version(connection, &startup)?;
    let parameter = |name: &str| startup.parameters.get(name).filter(|v| !v.is_empty()).cloned();
    let user = parameter("user").ok_or_else(|| {
        SqlError::new(state::INVALID_AUTHORIZATION_SPECIFICATION, "no PostgreSQL user name specified in startup packet")
    })?;
    if parameter("replication").is_some_and(|v| !matches!(v.as_str(), "0" | "false" | "off" | "no")) {
        return Err(SqlError::unsupported("PostgreSQL's replication protocol").into());
    }
    if *clients.stopping.borrow() != Stopping::Not {
        return Err(SqlError::new(state::CANNOT_CONNECT_NOW, "the database system is shutting down").into());
    }
    let Some(place) = clients.enter() else {
        return Err(SqlError::new(state::TOO_MANY_CONNECTIONS, "sorry, too many clients already").into());
    };
    authenticate(connection, &instance, &user).await?;

    let mut settings: Vec<(String, String)> =
        parameter("options").map(|o| command_line_settings(&o)).transpose()?.unwrap_or_default();
    let own = ["user", "database", "options", "replication"];
    // Names that begin with _pq_. ask for protocol extensions; none is spoken.
    settings.extend(
        startup
            .parameters
            .iter()
            .filter(|(k, _)| !own.contains(&k.as_str()) && !k.starts_with("_pq_."))
            .map(|(k, v)| (k.clone(), v.clone())),
    );
    let options = ConnectOptions {
        database: parameter("database").unwrap_or_else(|| user.clone()),
        user,
        settings,
        backend_pid: place.pid,
        client: connection.peer(),
    };
    let session = tokio::task::block_in_place(|| instance.connect(options))?;

    let mut secret = [0u8; 4];
    getrandom::fill(&mut secret).map_err(|e| SqlError::internal(format!("no random bytes: {e}")))?;
    place.register(u32::from_be_bytes(secret), session.activity().clone(), connection.watched());
    connection.put(PgWireBackendMessage::Authentication(Authentication::Ok));
    for (name, value) in session.parameters_at_start() {
        connection.put(PgWireBackendMessage::ParameterStatus(ParameterStatus::new(name.to_owned(), value)));
    }
    connection.put(PgWireBackendMessage::BackendKeyData(BackendKeyData::new(
        place.pid,
        SecretKey::I32(i32::from_be_bytes(secret)),
    )));
    Ok(Some((session, place)))
}

/// Only major version 3 is spoken; a newer minor one is negotiated down to 3.0, as PostgreSQL 15 does.
fn negotiate_version(connection: &mut Connection, startup: &Startup) -> Result<(), SqlError> {
    let (major, minor) = (startup.protocol_number_major, startup.protocol_number_minor);
    if major != 3 {
        return Err(SqlError::new(
            state::FEATURE_NOT_SUPPORTED,
            format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.0"),
        ));
    }
    let extensions: Vec<&String> = startup.parameters.keys().filter(|k| k.starts_with("_pq_.")).collect();
    if minor > 0 || !extensions.is_empty() {
        let length = 4 + 4 + 4 + extensions.iter().map(|e| e.len() + 1).sum::<usize>();
        connection.out.put_u8(b'v');
        connection.out.put_u32(length as u32);
        connection.out.put_u32(0);
        connection.out.put_u32(extensions.len() as u32);
        for name in extensions {
            connection.out.put_slice(name.as_bytes());
            connection.out.put_u8(0);
        }
    }
    Ok(())
}

/// `-c name=value`, `--name=value`: what PGOPTIONS may hold. A backslash keeps the character after it.
fn command_line_settings(options: &str) -> Result<Vec<(String, String)>, SqlError> {
    let (mut words, mut word, mut characters) = (Vec::new(), String::new(), options.chars());
    while let Some(c) = characters.next() {
        match c {
            '\\' => word.extend(characters.next()),
            c if c.is_whitespace() => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    let mut words = words.into_iter().filter(|w| !w.is_empty());
    let mut settings = Vec::new();
    while let Some(word) = words.next() {
        let setting = if word == "-c" {
            words.next()
        } else {
            word.strip_prefix("-c").or_else(|| word.strip_prefix("--")).map(str::to_owned)
        };
        match setting.as_deref().and_then(|s| s.split_once('=')) {
            Some((name, value)) => settings.push((name.replace('-', "_"), value.to_owned())),
            None => {
                return Err(SqlError::new(
                    state::SYNTAX_ERROR,
                    format!("invalid command-line argument for server process: {word}"),
                ));
            }
        }
    }
    Ok(settings)
}

/// The one verifier this login is checked against.
#[derive(Debug)]
struct Verifier(String);

#[async_trait]
impl AuthSource for Verifier {
    async fn get_password(&self, login: &LoginInfo) -> PgWireResult<Password> {
        Err(PgWireError::InvalidPassword(login.user().unwrap_or_default().to_owned()))
    }
    async fn get_scram_secret(&self, login: &LoginInfo) -> PgWireResult<(ScramSecret, Option<()>)> {
        let secret = password::parse(&self.0)
            .ok_or_else(|| PgWireError::InvalidPassword(login.user().unwrap_or_default().to_owned()))?;
        Ok((secret, None))
    }
}

async fn authenticate(connection: &mut Connection, instance: &Arc<Instance>, user: &str) -> Result<(), Refusal> {
    let wrong =
        || SqlError::new(state::INVALID_PASSWORD, format!("password authentication failed for user \"{user}\""));
    // Someone who makes a database or sets a password holds it until the disk has it.
    let verifier = tokio::task::block_in_place(|| instance.password_verifier(user));
    // There is one role so far, which is no secret: another name is told so.
    if verifier.is_none() && user != "postgres" {
        return Err(SqlError::new(
            state::INVALID_AUTHORIZATION_SPECIFICATION,
            format!("role \"{user}\" does not exist"),
        )
        .into());
    }
    let Some(verifier) = verifier else { return Ok(()) };
    let Some(peer) = connection.peer() else {
        return Err(io::Error::from(io::ErrorKind::NotConnected).into());
    };
    let client: DefaultClient<()> = DefaultClient::new(peer, false);
    let mut mechanism = ScramAuth::new(Arc::new(Verifier(verifier))).create();
    let mut answer = mechanism.begin(&client).await;
    loop {
        match answer {
            Ok(AuthState::InProgress(request)) => connection.put(PgWireBackendMessage::Authentication(request)),
            Ok(AuthState::Ok { final_message, .. }) => {
                if let Some(message) = final_message {
                    connection.put(PgWireBackendMessage::Authentication(message));
                }
                return Ok(());
            }
            Ok(AuthState::Failed(_)) | Err(_) => return Err(wrong().into()),
        }
        connection.flush().await?;
        let message = loop {
            match connection.next_password()? {
                Some(PgWireFrontendMessage::PasswordMessageFamily(message)) => break message,
                Some(_) => return Err(SqlError::new(state::PROTOCOL_VIOLATION, "expected a password message").into()),
                None if connection.read_some().await? => {}
                None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            }
        };
        answer = mechanism.next(&client, message).await;
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn options_are_split_as_a_shell_would() {
        let settings = super::command_line_settings("-c bee.as_of=version:5  --work-mem=1MB -csearch_path=a\\ b")
            .expect("good options");
        let expected = [("bee.as_of", "version:5"), ("work_mem", "1MB"), ("search_path", "a b")];
        assert_eq!(settings, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert!(super::command_line_settings("-x").is_err());
    }
}
