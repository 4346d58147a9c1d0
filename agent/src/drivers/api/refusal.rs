//! How "no" travels: a gRPC status, a sentence for people, and a stable code for programs in the metadata `disco-code`.

use crate::model::query::Answer;
use tonic::{Code, Status, metadata::MetadataMap, metadata::MetadataValue};

/// Metadata key of the machine-readable code.
pub const CODE: &str = "disco-code";

/// The answer is no, for the reason `code` (stable; the words of `Answer::Refused`, and `busy`, `unavailable`, `elsewhere`).
pub fn refuse(code: &'static str, why: impl Into<String>) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(CODE, MetadataValue::from_static(code));
    Status::with_metadata(grpc_code(code), why, metadata)
}

/// The code a status carries; empty if it came from somewhere that gives none (a transport).
pub fn code_of(status: &Status) -> &str {
    status.metadata().get(CODE).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// Metadata key of a refusal that means the node which passed a request on, not who made the request.
const OF_THE_MESSENGER: &str = "disco-messenger";

/// Says of a refusal that it means the node which passed the request on.
pub fn of_the_messenger(mut status: Status) -> Status {
    status.metadata_mut().insert(OF_THE_MESSENGER, MetadataValue::from_static("refused"));
    status
}

pub fn is_of_the_messenger(status: &Status) -> bool {
    status.metadata().contains_key(OF_THE_MESSENGER)
}

/// Turns an answer that is not the wished-for kind into its status.
pub fn unwished(answer: Answer) -> Status {
    match answer {
        Answer::Refused { code, why } => refuse(code, why),
        Answer::Busy => refuse("busy", "this node has too much to do right now; nothing was changed"),
        Answer::Unavailable { why } => refuse("unavailable", why),
        Answer::Elsewhere { leader, address } => refuse("elsewhere", format!("node {leader} at {address} leads")),
        Answer::Written { .. }
        | Answer::Read { .. }
        | Answer::Joined(_)
        | Answer::Reported { .. }
        | Answer::Planned { .. }
        | Answer::Evaluated { .. }
        | Answer::Recover(_) => refuse("internal", "the replica answered another question"),
    }
}

fn grpc_code(code: &str) -> Code {
    match code {
        "invalid" => Code::InvalidArgument,
        "not_found" => Code::NotFound,
        "exists" => Code::AlreadyExists,
        "unauthenticated" => Code::Unauthenticated,
        "busy" | "limit" => Code::ResourceExhausted,
        // Somebody else may have the answer: clients try the next address.
        "unavailable" | "elsewhere" | "not_a_manager" => Code::Unavailable,
        "internal" => Code::Internal,
        code if code == "denied" || code.starts_with("token_") => Code::PermissionDenied,
        _ => Code::FailedPrecondition,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_keeps_its_code_and_words() {
        for (code, grpc) in [
            ("not_found", Code::NotFound),
            ("token_expired", Code::PermissionDenied),
            ("denied", Code::PermissionDenied),
            ("limit", Code::ResourceExhausted),
            ("elsewhere", Code::Unavailable),
            ("removed", Code::FailedPrecondition),
        ] {
            let status = unwished(Answer::Refused { code, why: "because".into() });
            assert_eq!((code_of(&status), status.code(), status.message()), (code, grpc, "because"));
        }
    }
}
