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
