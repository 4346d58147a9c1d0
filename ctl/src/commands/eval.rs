//! `disco eval`: an expression against the live cluster.

use super::Desk;
use crate::client::Client;
use crate::message::{Exit, Failure};

pub async fn run(mut desk: Desk, expression: &str) -> Result<Exit, Failure> {
    let value = evaluate(&mut desk.client, expression).await?;
    if desk.out.json {
        desk.out.document(&serde_json::json!({ "value": value }))?;
    } else {
        desk.out.data(value + "\n")?;
    }
    Ok(Exit::Done)
}

/// The value, as the leader prints it.
///
/// # Errors
/// The expression throws, the script does not load, or nobody answers.
pub async fn evaluate(client: &mut Client, expression: &str) -> Result<String, Failure> {
    let reply = client.eval(expression).await.map_err(|e| e.failure("cannot evaluate"))?;
    if reply.error.is_empty() {
        return Ok(reply.value);
    }
    Err(Failure::no("the expression failed").because(reply.error))
}

/// Line by line.
pub async fn repl(mut desk: Desk) -> Result<Exit, Failure> {
    for line in std::io::stdin().lines() {
        let line = line.map_err(|e| Failure::broke("cannot read a line").caused_by(&e))?;
        if line.trim().is_empty() {
            continue;
        }
        match evaluate(&mut desk.client, &line).await {
            Ok(value) => desk.out.data(value + "\n")?,
            Err(failure) => desk.out.complain(&failure),
        }
    }
    Ok(Exit::Done)
}
