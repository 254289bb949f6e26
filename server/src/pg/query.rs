//! A connected client: what each message does to its session.
//!
//! All messages that have arrived are handled in one go on a thread that may block, which stays with the client as long as it keeps asking. In the extended protocol an error
//! makes the client's further messages void up to its Sync; in the simple one ReadyForQuery follows at once.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use pgbee_sql::SqlError;
use pgbee_sql::error::state;
use pgbee_sql::session::{CopyShape, CopyStep, Outcome, Session, Step, WaitEvent};
use pgbee_sql::types::Type;
use pgwire::messages::copy::{CopyDone, CopyInResponse, CopyOutResponse};
use pgwire::messages::data::{NoData, ParameterDescription};
use pgwire::messages::extendedquery::{Bind, BindComplete, CloseComplete, ParseComplete, PortalSuspended};
use pgwire::messages::response::{
    CommandComplete, EmptyQueryResponse, NotificationResponse, ReadyForQuery, TransactionStatus,
};
use pgwire::messages::startup::ParameterStatus;
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use tokio::sync::{Notify, watch};

use super::connection::{Arrived, Connection, Message};
use super::{Place, Stopping, encode};

/// How long is waited for a client to take the last word.
const FAREWELL: Duration = Duration::from_secs(1);
/// What is kept of the space that rows are written in, while the client is silent.
const SCRATCH_BYTES_KEPT: usize = 1 << 10;

/// A client with its session.
pub struct Client {
    connection: Connection,
    session: Session,
    place: Place,
    mode: Mode,
    scratch: Vec<u8>,
    /// A channel has told the session something.
    told: Arc<Notify>,
    /// The session is to end.
    ended: Arc<Notify>,
}

/// What the next message is taken as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Any message.
    Ready,
    /// Void until Sync.
    SkipToSync,
    /// Data of COPY FROM STDIN, begun by a simple query or by Execute.
    CopyIn { simple: bool },
}

/// Why handling stopped.
enum Stop {
    /// The statement failed: the client is told and goes on.
    Statement(SqlError),
    /// The connection is over.
    Connection(io::Error),
}
impl From<SqlError> for Stop {
    fn from(error: SqlError) -> Self {
        Stop::Statement(error)
    }
}
impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        Stop::Connection(error)
    }
}
type Handled<T = ()> = std::result::Result<T, Stop>;

/// Whether to go on.
#[derive(PartialEq, Eq)]
enum Next {
    Wait,
    Close,
}

/// What a client is told that has been silent for longer than it may; never, if there is no limit.
async fn idle_too_long(limit: Option<(Duration, SqlError)>) -> SqlError {
    match limit {
        Some((limit, error)) => {
            tokio::time::sleep(limit).await;
            error
        }
        None => std::future::pending().await,
    }
}

impl Client {
    /// A client that has just been told who it is.
    pub fn new(mut connection: Connection, session: Session, place: Place) -> Client {
        let told: Arc<Notify> = Arc::default();
        let wake = told.clone();
        session.on_notification(Arc::new(move || wake.notify_one()));
        let ended: Arc<Notify> = Arc::default();
        let wake = ended.clone();
        session.activity().on_end(Arc::new(move || wake.notify_one()));
        connection.belongs_to(session.activity().clone());
        Client { connection, session, place, mode: Mode::Ready, scratch: Vec::new(), told, ended }
    }

    /// Serves it until it leaves or the server stops.
    ///
    /// # Errors
    /// The socket broke.
    pub async fn run(mut self) -> io::Result<()> {
        let mut stopping = self.place.clients.stopping.subscribe();
        self.ready();
        self.connection.flush().await?;
        loop {
            // What came with the startup packet is handled before the first wait.
            if tokio::task::block_in_place(|| self.handle_while_busy(&stopping))? == Next::Close {
                return Ok(());
            }
            // A statement that waits for data may go on for a while; an idle client, also one in a transaction block, is told at once.
            self.go_idle();
            let last = if let Mode::CopyIn { .. } = self.mode { Stopping::Now } else { Stopping::Draining };
            tokio::select! {
                read = self.connection.read_some() => if !read? { return Ok(()) },
                () = async { let _ = stopping.wait_for(|stop| *stop >= last).await; } => {
                    let error = SqlError::new(state::ADMIN_SHUTDOWN, "terminating connection due to administrator command");
                    return self.farewell(&error).await;
                }
                () = self.ended.notified() => {
                    // Told by whoever looks first: there, if bytes have come meanwhile.
                    if let Some(end) = self.session.activity().ending() {
                        return self.farewell(&end.error()).await;
                    }
                }
                () = self.told.notified(), if self.mode == Mode::Ready => {
                    self.notifications();
                    let ended = self.ended.clone();
                    tokio::select! {
                        written = self.connection.flush() => written?,
                        // It does not read, and would not hear why.
                        () = ended.notified() => return Ok(()),
                        _ = stopping.wait_for(|stop| *stop >= Stopping::Now) => return Ok(()),
                    }
                }
                error = idle_too_long(self.session.idle_limit()) => return self.farewell(&error).await,
            }
        }
    }

    /// The client is silent: nothing is kept that a statement needs and silence does not.
    fn go_idle(&mut self) {
        self.connection.shrink();
        if self.scratch.capacity() > SCRATCH_BYTES_KEPT {
            self.scratch = Vec::new();
        }
        self.connection.waits(WaitEvent::ClientRead);
    }

    /// The last word, to a client that may have stopped reading.
    async fn farewell(&mut self, error: &SqlError) -> io::Result<()> {
        self.connection.put(encode::error_response("FATAL", error));
        tokio::time::timeout(FAREWELL, self.connection.flush()).await.unwrap_or(Ok(()))
    }

    /// Handles what has arrived and what keeps arriving, until the client is silent for a while or the server stops.
    fn handle_while_busy(&mut self, stopping: &watch::Receiver<Stopping>) -> io::Result<Next> {
        self.connection.begin_blocking()?;
        self.connection.waits(WaitEvent::None);
        let busy = self.place.clients.busy.clone();
        let _counted = busy.begin();
        loop {
            if self.handle_all()? == Next::Close {
                return Ok(Next::Close);
            }
            if *stopping.borrow() != Stopping::Not {
                break;
            }
            match self.connection.read_blocking(self.session.is_listening(), &busy)? {
                Arrived::Some => {}
                Arrived::Nothing => break,
                Arrived::End => return Ok(Next::Close),
            }
        }
        self.connection.end_blocking()?;
        Ok(Next::Wait)
    }

    /// Handles every whole message that has arrived.
    fn handle_all(&mut self) -> io::Result<Next> {
        loop {
            if let Some(end) = self.session.activity().ending() {
                self.connection.put(encode::error_response("FATAL", &end.error()));
                self.connection.flush_blocking()?;
                return Ok(Next::Close);
            }
            let message = match self.connection.next_message() {
                Ok(None) => return Ok(Next::Wait),
                Ok(Some(message)) => message,
                // The stream is out of step.
                Err(error) => {
                    self.connection.put(encode::error_response("FATAL", &error));
                    self.connection.flush_blocking()?;
                    return Ok(Next::Close);
                }
            };
            let extended = match &message {
                Message::Other(message) => message.is_extended_query(),
                Message::Unfit { extended, .. } => *extended,
                Message::CopyData(_) => false,
            };
            match self.handle(message) {
                // However much is asked at once, and whether or not anybody reads the answers.
                Ok(Next::Wait) => self.connection.flush_if_full()?,
                Ok(Next::Close) => return Ok(Next::Close),
                Err(Stop::Connection(error)) => return Err(error),
                Err(Stop::Statement(error)) => {
                    let extended = match self.mode {
                        Mode::CopyIn { simple } => !simple,
                        _ => extended,
                    };
                    if self.fail(&error, extended)? == Next::Close {
                        return Ok(Next::Close);
                    }
                }
            }
        }
    }

    /// Tells an error and sets what comes next: nothing, if the session was to end by it.
    fn fail(&mut self, error: &SqlError, extended: bool) -> io::Result<Next> {
        // Also what failed here and not there: a value that could not be sent, a message out of place.
        self.session.abort();
        self.news();
        if error.state() == state::INTERNAL_ERROR {
            tracing::error!("internal error told to a client: {error}");
        }
        let end = self.session.activity().ending().map(|end| end.error());
        if error.state() == state::ADMIN_SHUTDOWN || end.is_some_and(|end| end.state() == error.state()) {
            self.connection.put(encode::error_response("FATAL", error));
            self.connection.flush_blocking()?;
            return Ok(Next::Close);
        }
        self.connection.put(encode::error_response("ERROR", error));
        if extended {
            self.mode = Mode::SkipToSync;
        } else {
            self.mode = Mode::Ready;
            self.ready();
        }
        // Not only at Sync: there are clients that ask by Flush, and Flush is void now.
        self.connection.flush_blocking()?;
        Ok(Next::Wait)
    }

    fn handle(&mut self, message: Message) -> Handled<Next> {
        let message = match message {
            Message::CopyData(data) => {
                // Data after a failed COPY is still on its way: dropped, as PostgreSQL does.
                if matches!(self.mode, Mode::CopyIn { .. }) {
                    self.session.copy_data(&data)?;
                }
                return Ok(Next::Wait);
            }
            Message::Unfit { .. } if self.mode == Mode::SkipToSync => return Ok(Next::Wait),
            Message::Unfit { error, .. } => return Err(error.into()),
            Message::Other(message) => message,
        };
        if let PgWireFrontendMessage::Terminate(_) = message {
            return Ok(Next::Close);
        }
        if let Mode::CopyIn { simple } = self.mode {
            return self.copy_in(message, simple);
        }
        if self.mode == Mode::SkipToSync && !matches!(message, PgWireFrontendMessage::Sync(_)) {
            return Ok(Next::Wait);
        }
        match message {
            PgWireFrontendMessage::Query(query) => {
                self.session.simple(&query.query)?;
                self.simple_results()?;
            }
            PgWireFrontendMessage::Parse(parse) => {
                let types: Vec<Type> = parse.type_oids.iter().map(|oid| Type(*oid)).collect();
                self.session.parse(parse.name.as_deref().unwrap_or(""), &parse.query, &types)?;
                self.connection.put(PgWireBackendMessage::ParseComplete(ParseComplete::new()));
            }
            PgWireFrontendMessage::Bind(bind) => self.bind(bind)?,
            PgWireFrontendMessage::Describe(describe) => {
                self.describe(describe.target_type, describe.name.as_deref().unwrap_or(""))?
            }
            PgWireFrontendMessage::Execute(execute) => {
                let outcome =
                    self.session.execute(execute.name.as_deref().unwrap_or(""), execute.max_rows.max(0) as usize)?;
                self.outcome(outcome, false)?;
            }
            PgWireFrontendMessage::Close(close) => {
                let name = close.name.as_deref().unwrap_or("");
                if close.target_type == b'S' {
                    self.session.close_statement(name)
                } else {
                    self.session.close_portal(name)
                }
                self.connection.put(PgWireBackendMessage::CloseComplete(CloseComplete::new()));
            }
            PgWireFrontendMessage::Flush(_) => self.connection.flush_blocking()?,
            PgWireFrontendMessage::Sync(_) => {
                self.mode = Mode::Ready;
                if let Err(error) = self.session.sync() {
                    self.news();
                    self.connection.put(encode::error_response("ERROR", &error));
                }
                self.ready();
                self.connection.flush_blocking()?;
            }
            // CopyDone and CopyFail after a COPY that failed already.
            PgWireFrontendMessage::CopyDone(_) | PgWireFrontendMessage::CopyFail(_) => {}
            _ => return Err(SqlError::new(state::PROTOCOL_VIOLATION, "unexpected message").into()),
        }
        Ok(Next::Wait)
    }

    fn bind(&mut self, bind: Bind) -> Handled {
        let (portal, statement) =
            (bind.portal_name.as_deref().unwrap_or(""), bind.statement_name.as_deref().unwrap_or(""));
        self.session.bind(
            portal,
            statement,
            bind.parameters,
            &bind.parameter_format_codes,
            &bind.result_column_format_codes,
        )?;
        self.connection.put(PgWireBackendMessage::BindComplete(BindComplete::new()));
        Ok(())
    }

    fn describe(&mut self, target: u8, name: &str) -> Handled {
        let description = if target == b'S' {
            let shape = self.session.describe_statement(name)?;
            self.connection.put(PgWireBackendMessage::ParameterDescription(ParameterDescription::new(
                shape.params.iter().map(|t| t.0).collect(),
            )));
            shape.fields.map(|fields| encode::row_description(&fields, None))
        } else {
            self.session.describe_portal(name)?.map(|(fields, binary)| encode::row_description(&fields, Some(&binary)))
        };
        self.connection.put(description.unwrap_or(PgWireBackendMessage::NoData(NoData::new())));
        Ok(())
    }

    /// Runs the rest of a simple query string; returns early when a COPY waits for data.
    fn simple_results(&mut self) -> Handled {
        while let Some(outcome) = self.session.next_result()? {
            self.outcome(outcome, true)?;
            if self.mode != Mode::Ready {
                return Ok(());
            }
        }
        self.news();
        self.ready();
        self.connection.flush_blocking()?;
        Ok(())
    }

    fn outcome(&mut self, outcome: Outcome, simple: bool) -> Handled {
        self.news();
        match outcome {
            Outcome::Rows { fields, binary } => {
                if simple {
                    self.connection.put(encode::row_description(&fields, Some(&binary)));
                }
                let cx = self.session.output_cx();
                loop {
                    match self.session.fetch()? {
                        Step::Rows(rows) => {
                            self.notices();
                            for row in &rows {
                                encode::data_row(
                                    row,
                                    &fields,
                                    &binary,
                                    &cx,
                                    &mut self.scratch,
                                    &mut self.connection.out,
                                )?;
                                self.connection.flush_if_full()?;
                            }
                        }
                        Step::Suspended => {
                            self.connection.put(PgWireBackendMessage::PortalSuspended(PortalSuspended::new()));
                            return Ok(());
                        }
                        Step::Done { tag } => {
                            self.complete(tag);
                            return Ok(());
                        }
                    }
                }
            }
            Outcome::Command { tag } => self.complete(tag),
            Outcome::Empty => self.connection.put(PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new())),
            Outcome::CopyIn(shape) => {
                let CopyShape { binary, columns } = shape;
                let format = i8::from(binary);
                self.connection.put(PgWireBackendMessage::CopyInResponse(CopyInResponse::new(
                    format,
                    columns as i16,
                    vec![i16::from(format); columns],
                )));
                self.connection.flush_blocking()?;
                self.mode = Mode::CopyIn { simple };
            }
            Outcome::CopyOut(shape) => {
                let CopyShape { binary, columns } = shape;
                let format = i8::from(binary);
                self.connection.put(PgWireBackendMessage::CopyOutResponse(CopyOutResponse::new(
                    format,
                    columns as i16,
                    vec![i16::from(format); columns],
                )));
                loop {
                    match self.session.copy_out()? {
                        CopyStep::Data(piece) => {
                            self.notices();
                            for row in piece.messages() {
                                encode::copy_data(row, &mut self.connection.out);
                            }
                            self.connection.flush_if_full()?;
                        }
                        CopyStep::Done { tag } => {
                            self.connection.put(PgWireBackendMessage::CopyDone(CopyDone::new()));
                            self.complete(tag);
                            return Ok(());
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// A message while COPY FROM STDIN waits for data.
    fn copy_in(&mut self, message: PgWireFrontendMessage, simple: bool) -> Handled<Next> {
        let tag = match message {
            PgWireFrontendMessage::CopyDone(_) => self.session.copy_done()?,
            PgWireFrontendMessage::CopyFail(fail) => return Err(self.session.copy_fail(&fail.message).into()),
            // Drivers send Sync or Flush right behind the Execute that began the COPY.
            PgWireFrontendMessage::Flush(_) | PgWireFrontendMessage::Sync(_) => return Ok(Next::Wait),
            _ => {
                let _ = self.session.copy_fail("unexpected message type during COPY from stdin");
                return Err(
                    SqlError::new(state::PROTOCOL_VIOLATION, "unexpected message type during COPY from stdin").into()
                );
            }
        };
        self.mode = Mode::Ready;
        self.news();
        self.complete(tag);
        if simple {
            self.simple_results()?;
        }
        Ok(Next::Wait)
    }

    fn complete(&mut self, tag: String) {
        self.news();
        self.connection.put(PgWireBackendMessage::CommandComplete(CommandComplete::new(tag)));
    }

    /// What was raised so far: before the rows whose making raised it.
    fn notices(&mut self) {
        for notice in self.session.take_notices() {
            self.connection.put(encode::notice_response(&notice));
        }
    }

    /// Notices and changed settings, before what they belong to.
    fn news(&mut self) {
        self.notices();
        for (name, value) in self.session.take_parameter_changes() {
            self.connection.put(PgWireBackendMessage::ParameterStatus(ParameterStatus::new(name.to_owned(), value)));
        }
    }

    /// What channels told the session, if it is in no transaction.
    fn notifications(&mut self) {
        for told in self.session.take_notifications() {
            self.connection.put(PgWireBackendMessage::NotificationResponse(NotificationResponse::new(
                told.pid,
                told.channel.to_string(),
                told.payload.to_string(),
            )));
        }
    }

    fn ready(&mut self) {
        self.notifications();
        self.session.rest();
        let status = match self.session.transaction_status() {
            b'T' => TransactionStatus::Transaction,
            b'E' => TransactionStatus::Error,
            _ => TransactionStatus::Idle,
        };
        self.connection.put(PgWireBackendMessage::ReadyForQuery(ReadyForQuery::new(status)));
    }
}
