//! What host and child say to each other, and how it lies on the socket: a length (u32, little endian), then JSON.
//!
//! JSON because scripts speak nothing else, and because a frame can be read by eye when something goes wrong.
//! A frame has a bound, so neither side can be made to buffer more than [`SCRIPT_FRAME_BYTES_MAX`].

use std::{
    collections::BTreeMap,
    io::{self, Read},
    path::PathBuf,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::model::limits::SCRIPT_FRAME_BYTES_MAX;

/// Where a script's modules come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Modules {
    /// Files of this folder and below; `run` starts there too.
    Folder(PathBuf),
    /// Name (`cluster.js`, `lib/web.js`) to source text.
    Memory(BTreeMap<String, String>),
}

impl Modules {
    pub fn has(&self, name: &str) -> bool {
        match self {
            Modules::Folder(folder) => folder.join(name).exists(),
            Modules::Memory(texts) => texts.contains_key(name),
        }
    }
}

/// What a hook is called with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Arg {
    Json(Value),
    /// The cluster that `init()` returned. It lives in the child only.
    Handle,
}

/// What the script may do while it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// client.js: the bootstrap verbs.
    Client,
    /// cluster.js while it loads, in `init()` and in `configure()`: what it declares is collected, nothing changes.
    Recording,
    /// cluster.js later: what it asks for is done at once.
    Live,
}

/// What is to be called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// An export. In `Live` mode it may be missing, and what it returns is of no interest.
    Hook(String),
    /// `configure(cluster)` if there is one; answers with everything that was declared since the module began to load.
    Configure,
    /// What `every`, `on` … were given, in the order they were called.
    Registered(u32),
    /// An expression, or statements, with the module's exports in scope; answers with the printed value. Without a
    /// module `cluster` is one of this name.
    Expression { text: String, cluster: String },
}

/// From the host to the child.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToChild {
    /// The first frame: where the modules are, and the bounds the child keeps by itself.
    /// `rehearsal`: `run` and `fetch` are refused.
    Start { modules: Modules, memory_bytes: u64, idle_ms: u64, commands_max: usize, rehearsal: bool },
    /// Evaluate this module; ends with `Loaded` or `Failed`.
    Load { file: String, mode: Mode },
    /// Ends with `Done` or `Failed`.
    Call { target: Target, args: Vec<Arg>, mode: Mode },
    /// The answer to `Operation` of the same id.
    Answer { id: u64, result: Result<Value, String> },
}

/// From the child to the host.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToHost {
    /// Everything is built and the limits are in force; no script was read yet.
    Ready,
    /// The script runs again.
    Busy,
    /// Nothing of the script can run until a timer, a request of its own or the host's answer comes.
    Waiting,
    Console {
        level: String,
        text: String,
    },
    Operation {
        id: u64,
        op: String,
        args: Value,
    },
    Loaded {
        hooks: Vec<String>,
    },
    Done {
        value: Value,
    },
    /// `stack`: lines of the person's own files, `    at name (file:line:column)`, innermost first.
    Failed {
        message: String,
        stack: String,
    },
}

/// # Errors
/// `InvalidData`: larger than a frame may be (the text says by how much).
pub fn encode(frame: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, frame).map_err(io::Error::other)?;
    let size = bytes.len() - 4;
    if size > SCRIPT_FRAME_BYTES_MAX {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{size} bytes are more than the {SCRIPT_FRAME_BYTES_MAX} that fit in one message"),
        ));
    }
    let length = u32::try_from(size).expect("SCRIPT_FRAME_BYTES_MAX fits in 32 bits").to_le_bytes();
    bytes[..4].copy_from_slice(&length);
    Ok(bytes)
}

/// Reads one frame, waiting for it. `None`: the other side is gone.
///
/// # Errors
/// The socket's; `InvalidData` for a length out of bounds or text that is no frame.
pub fn read<F: DeserializeOwned>(mut from: impl Read) -> io::Result<Option<F>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut body = vec![0; body_length(length)?];
    from.read_exact(&mut body)?;
    decode(&body).map(Some)
}

/// Frames out of bytes as they arrive; for a reader that must be able to stop between any two bytes.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// # Errors
    /// As [`read`]; the stream is of no more use then.
    pub fn poll_frame<F: DeserializeOwned>(&mut self) -> io::Result<Option<F>> {
        let Some(length) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let end = 4 + body_length(*length)?;
        let Some(body) = self.buffer.get(4..end) else { return Ok(None) };
        let frame = decode(body)?;
        self.buffer.drain(..end);
        // One large frame must not be paid for ever after.
        self.buffer.shrink_to(64 * 1024);
        Ok(Some(frame))
    }
}

fn body_length(length: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_le_bytes(length) as usize;
    if length > SCRIPT_FRAME_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes")));
    }
    Ok(length)
}

fn decode<F: DeserializeOwned>(body: &[u8]) -> io::Result<F> {
    serde_json::from_slice(body).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_arrive_whole_however_the_bytes_are_cut() {
        let frames = [ToHost::Ready, ToHost::Console { level: "log".into(), text: "é\n".repeat(50) }, ToHost::Done { value: Value::Null }];
        let bytes: Vec<u8> = frames.iter().flat_map(|f| encode(f).expect("small")).collect();
        for cut in [1, 3, 7, bytes.len()] {
            let (mut decoder, mut seen) = (Decoder::default(), Vec::new());
            for piece in bytes.chunks(cut) {
                decoder.handle_bytes(piece);
                while let Some(frame) = decoder.poll_frame::<ToHost>().expect("whole frames") {
                    seen.push(format!("{frame:?}"));
                }
            }
            assert_eq!(seen, frames.iter().map(|f| format!("{f:?}")).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_frame_out_of_bounds_is_refused_on_both_sides() {
        let long = ToHost::Console { level: "log".into(), text: "x".repeat(SCRIPT_FRAME_BYTES_MAX) };
        assert!(encode(&long).expect_err("too long").to_string().contains("fit in one message"));
        let mut decoder = Decoder::default();
        decoder.handle_bytes(&[0xff; 8]);
        assert!(decoder.poll_frame::<ToHost>().is_err());
        assert!(read::<ToHost>(&[0xff_u8; 8][..]).is_err());
    }
}
