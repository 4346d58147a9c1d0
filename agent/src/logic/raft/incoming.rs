//! What peers send, checked before raft-rs sees it: it trusts its peers, and panics where they lie.

use super::{Consensus, codec::decode};
use crate::model::{ids::MemberId, limits::RAFT_MESSAGE_BYTES_MAX};
use raft::eraftpb::{Message, MessageType};
use std::sync::Arc;

impl Consensus {
    /// Who a peer's message says it is from, before anything of it is believed.
    pub fn claimed_sender(bytes: &[u8]) -> Option<MemberId> {
        decode::<Message>(bytes, "message").ok().map(|m| MemberId(m.from))
    }

    /// Takes a peer's message. Anything an honest peer would not send is dropped with the reason.
    pub fn step(&mut self, from: MemberId, bytes: &[u8]) -> Result<(), String> {
        let message = self.checked(from, bytes)?;
        if message.get_msg_type() == MessageType::MsgSnapshot {
            return Err("a snapshot message without its data".into());
        }
        self.step_checked(message);
        Ok(())
    }

    /// Takes a snapshot whose data came beside the message.
    pub fn step_snapshot(&mut self, from: MemberId, bytes: &[u8], data: Vec<u8>) -> Result<(), String> {
        let message = self.checked(from, bytes)?;
        if message.get_msg_type() != MessageType::MsgSnapshot {
            return Err("not a snapshot message".into());
        }
        let meta = message.get_snapshot().get_metadata();
        let position = (meta.index, meta.term);
        let earlier = self.incoming.replace((position.0, position.1, Arc::new(data)));
        self.step_checked(message);
        // If raft-rs did not want this one, an earlier one may still be waiting for its data.
        let wanted = self.node.snap().map(|s| (s.get_metadata().index, s.get_metadata().term));
        if wanted != Some(position) {
            self.incoming = earlier;
        }
        Ok(())
    }

    fn checked(&self, from: MemberId, bytes: &[u8]) -> Result<Message, String> {
        if bytes.len() > RAFT_MESSAGE_BYTES_MAX {
            return Err(format!("{} bytes, the most is {RAFT_MESSAGE_BYTES_MAX}", bytes.len()));
        }
        let message: Message = decode(bytes, "message").map_err(|e| e.to_string())?;
        if message.from != from.0 {
            return Err(format!("from member {} but sent by member {}", message.from, from.0));
        }
        if message.to != self.member.0 {
            return Err(format!("for member {}, this is member {}", message.to, self.member.0));
        }
        let log = &self.node.raft.raft_log;
        match message.get_msg_type() {
            MessageType::MsgAppend => {
                for (offset, entry) in message.entries.iter().enumerate() {
                    if entry.index != message.index + 1 + offset as u64 {
                        return Err("entries with a gap".into());
                    }
                    let contradicts = entry.index <= log.committed && log.term(entry.index).is_ok_and(|t| t != entry.term);
                    if contradicts && message.term >= self.node.raft.term {
                        return Err(format!("entry {} contradicts what is committed", entry.index));
                    }
                }
            }
            // raft-rs panics on a commit past the log; an honest leader never sends one.
            MessageType::MsgHeartbeat if message.commit > log.last_index() => {
                return Err(format!("commit {} is past the log's end {}", message.commit, log.last_index()));
            }
            MessageType::MsgAppendResponse if !message.reject && message.index > log.last_index() => {
                return Err(format!("acknowledges entry {} that was never sent", message.index));
            }
            // Proposals are forwarded as requests, with their author; never as raft messages.
            MessageType::MsgPropose
            | MessageType::MsgReadIndex
            | MessageType::MsgHup
            | MessageType::MsgBeat
            | MessageType::MsgCheckQuorum
            | MessageType::MsgSnapStatus
            | MessageType::MsgUnreachable => {
                return Err("a message that peers do not send".into());
            }
            _ => {}
        }
        Ok(message)
    }

    fn step_checked(&mut self, message: Message) {
        // An order to campaign (see `tick`).
        if message.get_msg_type() == MessageType::MsgTimeoutNow && self.is_installing() {
            return;
        }
        // Err means "not for us now" (unknown peer, dropped): raft-rs has changed nothing.
        let _ = self.node.step(message);
        self.draw_timeout();
    }
}
