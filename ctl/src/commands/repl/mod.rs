//! `disco repl`: expressions line by line, with history and completion.
//!
//! Reading a line blocks, so it has a thread of its own; the connection to the cluster goes on meanwhile. Each line is an
//! expression of its own: the leader keeps nothing between two of them.

mod complete;
mod history;

use super::Desk;
use super::eval::evaluate;
use crate::message::{Exit, Failure};
use complete::Words;
use history::HistoryFile;
use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::history::{History as _, MemHistory};
use rustyline::{CompletionType, Config, Editor, Helper};
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

/// A line longer than this is not sent.
const LINE_BYTES_MAX: u64 = 64 * 1024;

pub async fn run(mut desk: Desk) -> Result<Exit, Failure> {
    let what = "cannot evaluate";
    let status = desk.client.status(false).await.map_err(|e| e.failure(what))?;
    desk.remember(&status).await;
    if !io::stdin().is_terminal() {
        return batch(desk).await;
    }
    let leader = status.nodes.iter().find(|n| n.leader).map_or("nobody", |n| n.name.as_str());
    desk.out.say(format!("cluster {}, {leader} leads; Tab completes, Ctrl-D ends", status.cluster));
    let mut history = HistoryFile::find();
    let mut editor = editor(Words::of(&status), history.lines()).map_err(|e| broken(&e))?;
    let prompt = format!("{}> ", crate::render::plain(&status.cluster));
    loop {
        let asked = prompt.clone();
        let (back, line) = smol::unblock(move || {
            let line = editor.readline(&asked);
            (editor, line)
        })
        .await;
        editor = back;
        let line = match line {
            Ok(line) => line,
            // The line is given up, not the session.
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => return Ok(Exit::Done),
            Err(error) => return Err(broken(&error)),
        };
        if line.trim().is_empty() {
            continue;
        }
        let _ = editor.add_history_entry(line.as_str());
        history.add(&line);
        answer(&mut desk, &line).await?;
        if let (Ok(status), Some(helper)) = (desk.client.status(true).await, editor.helper_mut()) {
            helper.0 = Words::of(&status);
        }
    }
}

/// Lines of standard input, until it ends. Exit 1 if one of them failed.
async fn batch(mut desk: Desk) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    loop {
        let read = smol::unblock(|| {
            let mut line = Vec::new();
            let read = io::stdin().lock().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
            read.map(|_| line)
        });
        let line = read.await.map_err(|e| Failure::broke("cannot read a line").caused_by(&e))?;
        if line.is_empty() {
            return Ok(exit);
        }
        if line.len() as u64 > LINE_BYTES_MAX {
            return Err(Failure::broke(format!("a line has more than {LINE_BYTES_MAX} bytes")));
        }
        let line = String::from_utf8(line).map_err(|e| Failure::broke("a line is not UTF-8").caused_by(&e))?;
        if !line.trim().is_empty() && !answer(&mut desk, line.trim()).await? {
            exit = Exit::No;
        }
    }
}

/// Whether it had a value.
async fn answer(desk: &mut Desk, line: &str) -> Result<bool, Failure> {
    match evaluate(&mut desk.client, line).await {
        Ok(value) if desk.out.json => desk.out.line(&serde_json::json!({ "value": value })).map(|()| true),
        Ok(value) => desk.out.data(value + "\n").map(|()| true),
        Err(failure) => {
            desk.out.complain(&failure);
            Ok(false)
        }
    }
}

fn broken(error: &ReadlineError) -> Failure {
    Failure::broke("cannot read from the terminal").caused_by(error)
}

fn editor(words: Words, lines: Vec<String>) -> rustyline::Result<Editor<Completion, MemHistory>> {
    let config = Config::builder().completion_type(CompletionType::List).max_history_size(history::LINES_MAX)?.build();
    let mut known = MemHistory::with_config(&config);
    for line in lines {
        known.add_owned(line)?;
    }
    let mut editor = Editor::with_history(config, known)?;
    editor.set_helper(Some(Completion(words)));
    Ok(editor)
}

/// What rustyline asks.
struct Completion(Words);

impl Completer for Completion {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &rustyline::Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        Ok(self.0.complete(line, at))
    }
}

impl rustyline::hint::Hinter for Completion {
    type Hint = String;
}
impl rustyline::highlight::Highlighter for Completion {}
impl rustyline::validate::Validator for Completion {}
impl Helper for Completion {}
