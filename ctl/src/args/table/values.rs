//! Replicated values, and what happened.

use super::{FOLLOW, STALE, may_have, needs, switch};
use crate::args::{Command, Spec};

pub const SPECS: &[Spec] = &[
    Spec {
        words: &["kv", "get"],
        operands: &[needs("KEY")],
        flags: &[switch("raw", "the value's bytes only, without a line end"), STALE],
        summary: "print a key's value",
        about: "Exits 1 when there is no such key.",
        parse: |w| Ok(Command::KvGet { key: w.required(0), raw: w.switch("raw"), stale: w.switch("stale") }),
    },
    Spec {
        words: &["kv", "set"],
        operands: &[needs("KEY"), needs("VALUE")],
        flags: &[],
        summary: "set a key",
        about: "VALUE `-` reads it from standard input. A VALUE that begins with a dash goes after `--`.",
        parse: |w| Ok(Command::KvSet { key: w.required(0), value: Some(w.required(1)).filter(|v| v != "-") }),
    },
    Spec {
        words: &["kv", "del"],
        operands: &[needs("KEY")],
        flags: &[],
        summary: "delete a key",
        about: "Exits 1 when there was no such key.",
        parse: |w| Ok(Command::KvDel(w.required(0))),
    },
    Spec {
        words: &["kv", "ls"],
        operands: &[may_have("PREFIX")],
        flags: &[STALE],
        summary: "list keys and values",
        about: "",
        parse: |w| Ok(Command::KvLs { prefix: w.operand(0).unwrap_or_default().to_owned(), stale: w.switch("stale") }),
    },
    Spec {
        words: &["kv", "watch"],
        operands: &[needs("KEY")],
        flags: &[],
        summary: "print a key's value now and at every change",
        about: "",
        parse: |w| Ok(Command::KvWatch(w.required(0))),
    },
    Spec {
        words: &["events"],
        operands: &[],
        flags: &[FOLLOW, STALE],
        summary: "what happened",
        about: "",
        parse: |w| Ok(Command::Events { follow: w.switch("follow"), stale: w.switch("stale") }),
    },
];
