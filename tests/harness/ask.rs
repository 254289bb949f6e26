//! Questions in one line: a database of a server, a statement, and what it answers as text.
//!
//! What must stay true: an error is an answer here, its SQLSTATE first; a connection that breaks is none, and fails the test.

use crate::{Client, Server};

/// A client of a server's database of this name.
pub fn client(server: &Server, database: &str) -> Client {
    Client::connect(server.port, &[("user", "postgres"), ("database", database)]).expect("a connection")
}

/// What a statement answers, columns parted by `|`; or SQLSTATE and message.
pub fn ask(client: &mut Client, sql: &str) -> Result<String, String> {
    match client.try_query(sql).expect("the connection holds") {
        Ok(answer) => Ok(answer.text()),
        Err(error) => Err(format!("{} {}", error.state(), error.message())),
    }
}

/// The answer of a statement that has to succeed.
pub fn told(client: &mut Client, sql: &str) -> String {
    ask(client, sql).unwrap_or_else(|e| panic!("{sql}: {e}"))
}
